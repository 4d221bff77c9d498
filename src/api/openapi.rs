//! `/api/v1/openapi.json`: the API in words for machines. Its schemas come from the types; a test holds its paths
//! against the routes.

mod shapes;

use serde_json::{Map, Value, json};

use crate::spec::{ObjectKind, schema};

/// Path, method, what it does, whether it has a session's name in it.
pub(super) const PATHS: &[(&str, &str, &str)] = &[
    ("/livez", "get", "Whether the loop runs"),
    ("/readyz", "get", "Whether the engine was seen lately"),
    ("/metrics", "get", "Numbers for Prometheus; with a token also by session"),
    ("/api/v1/openapi.json", "get", "This document"),
    (
        "/api/v1/sessions",
        "get",
        "All sessions; selector=, watch=true, or server-sent events by Accept",
    ),
    ("/api/v1/sessions/{name}", "get", "One session with its status"),
    ("/api/v1/sessions/{name}", "delete", "End an applied session; discard=true"),
    ("/api/v1/sessions/{name}/files", "get", "Its files with their state"),
    ("/api/v1/sessions/{name}/history", "get", "The committed states of its workspace"),
    ("/api/v1/sessions/{name}/restore", "post", "Put one of them back"),
    ("/api/v1/sessions/{name}/logs", "get", "Its container's output; follow=true, tail="),
    ("/api/v1/sessions/{name}/stop", "post", "End its container until start"),
    ("/api/v1/sessions/{name}/start", "post", "Undo stop, or begin a lifetime anew"),
    ("/api/v1/sessions/{name}/restart", "post", "Make a new container"),
    ("/api/v1/sessions/{name}/suspend", "post", "Leave its container alone until resume"),
    ("/api/v1/sessions/{name}/resume", "post", "Undo suspend"),
    ("/api/v1/sessions/{name}/sync", "post", "Sync its files now"),
    ("/api/v1/sessions/{name}/hydrate", "post", "Fetch files now; body {\"paths\": []}"),
    ("/api/v1/events", "get", "Events; session=, after=, follow=true"),
    ("/api/v1/plan", "get", "What the next pass would do, and why"),
    ("/api/v1/plan", "post", "The same as if files were applied"),
    ("/api/v1/diff", "post", "Files as the whole watched directory against what runs"),
    ("/api/v1/apply", "post", "Record objects"),
    ("/api/v1/delete", "post", "End applied sessions by name, selector or all"),
    ("/api/v1/confirm-prune", "post", "Confirm the ends that are held"),
    ("/api/v1/gc", "post", "Remove stored contents that no state needs"),
    ("/api/v1/trash", "get", "What was kept of ended workspaces"),
    ("/api/v1/rescan", "post", "Read the sources again"),
    ("/api/v1/top", "get", "What sessions use; session="),
    ("/api/v1/sources", "get", "Where specs come from, and what is wrong there"),
    ("/api/v1/doctor", "get", "What the operator can check of its surroundings"),
];

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for (path, method, summary) in PATHS {
        let name =
            json!({"name": "name", "in": "path", "required": true, "schema": {"type": "string"}});
        let named = path.contains("{name}");
        let parameters = if named { json!([name]) } else { json!([]) };
        let one = paths.entry(*path).or_insert_with(|| json!({"parameters": parameters}));
        one[*method] = operation(path, method, summary);
    }
    let mut schemas = Map::new();
    for (name, kind) in
        [("Session", ObjectKind::Session), ("SessionClass", ObjectKind::SessionClass)]
    {
        let mut one = here(schema(kind));
        let parts = one.as_object_mut().and_then(|one| one.remove("$defs"));
        if let Some(Value::Object(parts)) = parts {
            schemas.extend(parts);
        }
        schemas.insert(name.to_owned(), one);
    }
    schemas.extend(shapes::bodies());
    schemas.extend(shapes::answers());
    json!({
        "openapi": "3.1.0",
        "info": {"title": "docket", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

/// A schema whose references lead to where its parts stand in this document.
fn here(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (key, here(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(here).collect(),
        Value::String(text) => text.replacen("#/$defs/", "#/components/schemas/", 1).into(),
        other => other,
    }
}

fn operation(path: &str, method: &str, summary: &str) -> Value {
    let error = |what: &str| {
        json!({"description": what, "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/ErrorBody"}}}})
    };
    let done = json!({"description": "done", "content": shapes::answer(path, method)});
    let mut answers = json!({"200": done});
    let guarded = path.starts_with("/api/");
    let (parameters, body) = (shapes::query(path, method), shapes::body(path));
    let body = body.filter(|_| method == "post");
    if path == "/livez" || path == "/readyz" {
        answers["503"] = json!({"description": "it is not", "content": {"text/plain": {
            "schema": {"type": "string"}}}});
    }
    answers["400"] = error("not HTTP as it should be");
    answers["403"] = error("a foreign Host or Origin");
    answers["401"] = error("no token, or a wrong one");
    answers["405"] = error("this method is not for this path; Allow says which are");
    if guarded {
        answers["500"] = error("it was tried and failed");
        answers["503"] = error("the operator is starting or stopping");
    }
    if path.contains("{name}") || parameters.to_string().contains("\"session\"") || body.is_some() {
        answers["404"] = error("no such session");
    }
    if body.is_some() || parameters.as_array().is_some_and(|all| !all.is_empty()) {
        answers["422"] = error("not acceptable: which field, and why");
    }
    if method != "get" && guarded {
        answers["409"] = error("not possible as things are");
        answers["413"] = error("too large a body");
    }
    if path.ends_with("/files") || path.ends_with("/history") || path.ends_with("/logs") {
        answers["409"] = error("not possible as things are");
    }
    let mut operation = json!({"summary": summary, "responses": answers});
    if parameters.as_array().is_some_and(|all| !all.is_empty()) {
        operation["parameters"] = parameters;
    }
    if let Some(name) = body {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        operation["requestBody"] =
            json!({"required": false, "content": {"application/json": {"schema": schema}}});
    }
    if guarded {
        operation["security"] = json!([{"token": []}]);
    }
    operation
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_types_of_the_document_share_a_name() {
        let mut seen = BTreeSet::new();
        let kinds = [ObjectKind::Session, ObjectKind::SessionClass].map(schema);
        let specs = kinds.iter().filter_map(|kind| kind["$defs"].as_object());
        let specs: BTreeSet<String> = specs.flat_map(|parts| parts.keys().cloned()).collect();
        let kinds = ["Session".to_owned(), "SessionClass".to_owned()];
        let all = specs.into_iter().chain(kinds);
        let all = all.chain(shapes::bodies().into_iter().map(|(name, _)| name));
        let all = all.chain(shapes::answers().into_iter().map(|(name, _)| name));
        let twice: Vec<String> = all.filter(|name| !seen.insert(name.clone())).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}
