//! What goes in and out of each path, as schemas: query parameters, bodies, answers.

use serde_json::{Map, Value, json};

/// Query parameters: name, type, meaning.
pub(super) fn query(path: &str, method: &str) -> Value {
    let all: &[(&str, &str, &str)] = match (path, method) {
        ("/api/v1/sessions", _) => &[
            ("selector", "string", "Labels, as kubectl has them"),
            ("labelSelector", "string", "The same"),
            ("name", "string", "One session"),
            ("watch", "boolean", "Go on with each change, one JSON object a line"),
        ],
        ("/api/v1/sessions/{name}", "delete") => {
            &[("discard", "boolean", "Give up edits that are not stored, into the trash")]
        }
        ("/api/v1/sessions/{name}/history", _) => {
            &[("limit", "integer", "The newest so many; 0: all")]
        }
        ("/api/v1/sessions/{name}/logs", _) => &[
            ("follow", "boolean", "Go on as it comes"),
            ("tail", "integer", "So many lines from the end"),
        ],
        ("/api/v1/events", _) => &[
            ("session", "string", "Of one session"),
            ("after", "integer", "Newer than this number"),
            ("follow", "boolean", "Go on as they happen, as server-sent events"),
        ],
        ("/api/v1/top", _) => &[("session", "string", "Of one session")],
        _ => &[],
    };
    let one = |(name, kind, meaning): &(&str, &str, &str)| {
        let schema = match *kind {
            "integer" => json!({"type": "integer", "minimum": 0, "maximum": i64::MAX}),
            kind => json!({"type": kind}),
        };
        json!({"name": name, "in": "query", "required": false, "description": meaning,
               "schema": schema})
    };
    all.iter().map(one).collect()
}

/// The schema of a body, if there may be one.
pub(super) fn body(path: &str) -> Option<&'static str> {
    match path.rsplit('/').next()? {
        "plan" | "diff" | "apply" => Some("Files"),
        "delete" => Some("Deletion"),
        "hydrate" => Some("Paths"),
        "restore" => Some("Restoration"),
        "gc" => Some("Collection"),
        _ => None,
    }
}

/// What is answered if all is well, by content type.
pub(super) fn answer(path: &str, method: &str) -> Value {
    let text = json!({"schema": {"type": "string"}});
    let data = |name: &str| json!({"schema": {"$ref": format!("#/components/schemas/{name}")}});
    let list = |name: &str| {
        let items = json!({"$ref": format!("#/components/schemas/{name}")});
        json!({"application/json": {"schema": {"type": "array", "items": items}}})
    };
    let name = match (path.trim_start_matches("/api/v1"), method) {
        ("/livez" | "/readyz", _) => return json!({"text/plain": text}),
        ("/metrics", _) => {
            return json!({"text/plain": text, "application/openmetrics-text": text});
        }
        ("/sessions/{name}/logs", _) => return json!({"application/octet-stream": text}),
        ("/sessions", _) => {
            return json!({"application/json": data("SessionList"), "text/event-stream": text,
                          "application/x-ndjson": text});
        }
        ("/events", _) => {
            return json!({"application/json": data("EventList"), "text/event-stream": text});
        }
        ("/apply" | "/delete", _) | ("/sessions/{name}", "delete") => return list("Outcome"),
        ("/sessions/{name}/files", _) => return list("FileState"),
        ("/trash", _) => return list("Trashed"),
        ("/top", _) => return list("Top"),
        ("/sources", _) => return list("Source"),
        ("/doctor", _) => return list("Finding"),
        ("/openapi.json", _) => "Any",
        ("/sessions/{name}", _) => "SessionView",
        ("/sessions/{name}/history", _) => "History",
        ("/plan" | "/diff", _) => "Plan",
        ("/gc", _) => "Garbage",
        ("/confirm-prune", _) => "Confirmed",
        _ => "Done",
    };
    json!({"application/json": data(name)})
}

fn object(fields: &[(&str, Value)], required: &[&str]) -> Value {
    let fields: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({"type": "object", "required": required, "properties": fields})
}

/// The same, with every field required.
fn whole(fields: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    object(fields, &required)
}

/// What a request may hold, and nothing else.
fn strict(fields: &[(&str, Value)], required: &[&str]) -> Value {
    let mut schema = object(fields, required);
    schema["additionalProperties"] = json!(false);
    schema
}

fn text() -> Value {
    json!({"type": "string"})
}

fn maybe() -> Value {
    json!({"type": ["string", "null"]})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn time() -> Value {
    json!({"type": ["string", "null"], "format": "date-time"})
}

fn any() -> Value {
    json!({"type": "object"})
}

fn texts() -> Value {
    json!({"type": "array", "items": text()})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn many(name: &str) -> Value {
    json!({"type": "array", "items": reference(name)})
}

/// All that is referred to.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    [bodies(), sessions(), answers()].concat()
}

fn bodies() -> Vec<(&'static str, Value)> {
    let file = whole(&[("name", text()), ("text", text())]);
    let name = [("name", maybe()), ("selector", maybe()), ("all", flag()), ("discard", flag())];
    let seconds = json!({"type": "integer", "minimum": 0, "maximum": i64::MAX});
    vec![
        ("Files", strict(&[("files", json!({"type": "array", "items": file}))], &[])),
        ("Deletion", strict(&name, &[])),
        ("Paths", strict(&[("paths", texts())], &[])),
        ("Restoration", strict(&[("at", text()), ("path", maybe())], &["at"])),
        ("Collection", strict(&[("olderThanSeconds", seconds), ("dryRun", flag())], &[])),
    ]
}

fn sessions() -> Vec<(&'static str, Value)> {
    let listed = |kind: &str, items| {
        let version = json!({"const": "docket.dev/v1"});
        whole(&[("apiVersion", version), ("kind", json!({"const": kind})), ("items", items)])
    };
    let event = [
        ("seq", number()),
        ("at", time()),
        ("session", maybe()),
        ("warning", flag()),
        ("reason", text()),
        ("message", text()),
    ];
    let file = [
        ("path", text()),
        ("state", text()),
        ("size", number()),
        ("reason", text()),
        ("mtime", time()),
    ];
    let state = [("id", text()), ("time", time()), ("current", flag())];
    let usage = json!({"type": ["object", "null"]});
    let top =
        [("name", text()), ("usage", usage), ("disk_bytes", number()), ("quota_bytes", number())];
    vec![
        ("SessionView", whole(&[("metadata", any()), ("status", any())])),
        ("SessionList", listed("SessionList", many("SessionView"))),
        ("Event", whole(&event)),
        ("EventList", listed("EventList", many("Event"))),
        ("FileState", whole(&file)),
        ("State", whole(&state)),
        ("History", whole(&[("states", many("State")), ("older", number())])),
        ("Top", whole(&top)),
    ]
}

fn answers() -> Vec<(&'static str, Value)> {
    let trashed = [
        ("name", text()),
        ("session", maybe()),
        ("movedAt", time()),
        ("removedAt", time()),
        ("why", text()),
    ];
    let source = [
        ("source", text()),
        ("state", text()),
        ("revision", text()),
        ("objects", texts()),
        ("errors", texts()),
        ("git", any()),
    ];
    let required = ["source", "state", "revision", "objects", "errors"];
    let finding = [("check", text()), ("level", text()), ("message", text()), ("hint", text())];
    let planned = json!({"type": "object", "additionalProperties": reference("Planned")});
    let anything = json!({"type": "array", "items": any()});
    let garbage = [
        ("dryRun", flag()),
        ("objects", anything.clone()),
        ("bytes", number()),
        ("left", anything),
    ];
    vec![
        ("Any", any()),
        ("Error", whole(&[("code", text()), ("message", text())])),
        ("Done", whole(&[("message", text())])),
        ("Confirmed", whole(&[("confirmed", texts())])),
        ("Outcome", whole(&[("object", text()), ("outcome", text()), ("refused", flag())])),
        ("Trashed", whole(&trashed)),
        ("Source", object(&source, &required)),
        ("Finding", whole(&finding)),
        ("Planned", whole(&[("phase", text()), ("cause", text()), ("actions", texts())])),
        ("Plan", whole(&[("text", text()), ("sessions", planned), ("changes", flag())])),
        ("Garbage", whole(&garbage)),
    ]
}
