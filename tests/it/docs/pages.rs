//! The pages of the book that are made from the code. `UPDATE_EXPECT=1 cargo test --test it docs::` writes them.

use std::fmt::Write as _;

use docket::config::{KEYS, Key, Kind, variables};
use docket::spec::{ObjectKind, schema};
use serde_json::Value;

const MADE: &str = "<!-- Made by `scripts/docs`; do not edit. -->\n";

/// Every field of both kinds.
pub fn fields() -> String {
    let mut text = format!(
        "# Every field\n\n{MADE}\n\
         From `docket schema`, which prints the same for editors and CI. An unknown field is an error that names the \
         nearest known one. Quantities are as in Kubernetes (`500m`, `4Gi`), durations `30s`, `10m`, `8h`.\n"
    );
    for (kind, name) in
        [(ObjectKind::Session, "Session"), (ObjectKind::SessionClass, "SessionClass")]
    {
        let schema = schema(kind);
        let _ = write!(text, "\n## {name}\n\n");
        if name == "Session" {
            text.push_str(
                "Below `spec.container`, `spec.workspace` and the other sections stand the fields of the class, as far as a \
                 session may change them: `env` merges; limits only within the class's `limits`; hardening only tighter. \
                 `docket validate` says where one goes too far.\n\n",
            );
        }
        text.push_str("| field | type | |\n|---|---|---|\n");
        let shared = if name == "Session" {
            &["Container", "Health", "Restart", "Workspace", "LifetimeSection", "Update"][..]
        } else {
            &[]
        };
        rows(&mut text, &schema, &schema, "", shared);
    }
    text
}

/// The rows of an object's properties; sections in `shared` are named and not opened.
fn rows(text: &mut String, all: &Value, object: &Value, path: &str, shared: &[&str]) {
    let none = serde_json::Map::new();
    let required: Vec<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in object["properties"].as_object().unwrap_or(&none) {
        let told = field["description"].as_str().unwrap_or_default();
        if told.starts_with("Printed by docket") {
            continue;
        }
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let (target, kind) = resolved(all, field);
        let is_needed = required.contains(&name.as_str());
        let needed = if is_needed && !told.starts_with("Required") { " Required." } else { "" };
        let told =
            if told.is_empty() { target["description"].as_str().unwrap_or_default() } else { told };
        let told = if told == format!("`{name}`.") { "" } else { told };
        let is_section = target["properties"].is_object();
        let map = &field["additionalProperties"];
        if is_section {
            if shared.contains(&kind.as_str()) {
                let _ =
                    writeln!(text, "| `{path}` | section | As in [the class](#sessionclass). |");
            } else {
                rows(text, all, &target, &path, shared);
            }
        } else if map["$ref"].is_string() || field["items"]["$ref"].is_string() {
            let (inner, _) =
                resolved(all, if map["$ref"].is_string() { map } else { &field["items"] });
            let (mark, word) =
                if map["$ref"].is_string() { (".NAME", "map") } else { ("[]", "list") };
            let _ = writeln!(text, "| `{path}` | {word} | {}{needed} |", cell(told));
            rows(text, all, &inner, &format!("{path}{mark}"), shared);
        } else {
            let _ = writeln!(text, "| `{path}` | {} | {}{needed} |", typed(&target), cell(told));
        }
    }
}

/// What a field refers to, and the name of that.
fn resolved(all: &Value, field: &Value) -> (Value, String) {
    let whole = [field].into_iter().chain(field["anyOf"].as_array().into_iter().flatten());
    for one in whole {
        if let Some(name) = one["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            let mut target = all["$defs"][name].clone();
            // What stands beside the reference adds to it.
            if let (Some(required), Some(object)) = (one.get("required"), target.as_object_mut()) {
                object.insert("required".to_owned(), required.clone());
            }
            return (target, name.to_owned());
        }
    }
    (field.clone(), String::new())
}

/// A field's type in a few words.
fn typed(field: &Value) -> String {
    if let Some(one) = field.get("const") {
        return format!("`{}`", one.as_str().unwrap_or_default());
    }
    if let Some(words) = field["enum"].as_array() {
        let words: Vec<String> =
            words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    if let Some(either) = field["anyOf"].as_array() {
        let said = either.iter().find_map(|one| one["description"].as_str());
        return said.map_or_else(|| "text or number".to_owned(), cell);
    }
    let kinds: Vec<&str> = match &field["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        _ => vec![],
    };
    let bounds = match (field["minimum"].as_u64(), field["maximum"].as_u64()) {
        (Some(least), Some(most)) => format!(" {least} to {most}"),
        _ => String::new(),
    };
    let is_duration = field["pattern"].as_str().is_some_and(|p| p.contains("[a-zA-Z]+ *)+"));
    match kinds.first() {
        Some(&"string") if is_duration => "duration".to_owned(),
        Some(&"string") => "text".to_owned(),
        Some(&"integer") => format!("number{bounds}"),
        Some(&"boolean") => "`true`, `false`".to_owned(),
        Some(&"array") => "list".to_owned(),
        Some(&"object") => "map".to_owned(),
        _ => String::new(),
    }
}

/// Text that a table can hold.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// Every key of the operator's configuration.
pub fn configuration() -> String {
    let mut text = format!(
        "# Configuration\n\n{MADE}\n\
         `docket.yaml`, where docket is started, or the file that `--config` or `DOCKET_CONFIG` names. A dot in a key is a \
         level in the file: `log.level` is `log: {{level: info}}`. Each key is also a flag of `docket run` (`--log.level`) \
         and a variable. A flag wins over a variable, a variable over the file. Relative paths are relative to the file; \
         without one, to where docket is started.\n\n\
         SIGHUP (`systemctl reload docket`) reads the file again. Where a key needs a restart, the log says so; a file \
         that is not acceptable changes nothing.\n\n\
         | key | takes | variable | |\n|---|---|---|---|\n"
    );
    for Key { path, kind, help } in KEYS {
        let takes = match kind {
            Kind::One(word) => (*word).to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Many(word) => format!("list of {word}"),
        };
        let variable = &variables(path)[0];
        let _ = writeln!(text, "| `{path}` | {takes} | `{variable}` | {} |", cell(help));
    }
    text
}
