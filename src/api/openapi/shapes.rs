//! What goes in and out of each path: query parameters, bodies, answers. The schemas of bodies and answers are drawn
//! from the types that read and write them.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::api::{
    Collection, Confirmed, Deletion, Done, ErrorBody, EventList, Files, Paths, Restoration,
    SessionList, Watched,
};
use crate::model::FileState;
use crate::operator::handle::{
    Finding, GcView, HistoryView, Outcome, PlanView, SourceView, TopView, TrashView,
};

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
        "plan" | "diff" | "apply" => Some("SpecFiles"),
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
    let lines = |name: &str, form: &str| {
        let what = format!("{form} `#/components/schemas/{name}`");
        json!({"schema": {"type": "string", "description": what}})
    };
    let name = match (path.trim_start_matches("/api/v1"), method) {
        ("/livez" | "/readyz", _) => return json!({"text/plain": text}),
        ("/metrics", _) => {
            return json!({"text/plain": text, "application/openmetrics-text": text});
        }
        ("/sessions/{name}/logs", _) => return json!({"application/octet-stream": text}),
        ("/sessions", _) => {
            return json!({"application/json": data("SessionList"),
                          "text/event-stream": lines("Watched", "The data of each:"),
                          "application/x-ndjson": lines("Watched", "Each line:")});
        }
        ("/events", _) => {
            return json!({"application/json": data("EventList"),
                          "text/event-stream": lines("Event", "The data of each:")});
        }
        ("/apply" | "/delete", _) | ("/sessions/{name}", "delete") => return list("Outcome"),
        ("/sessions/{name}/files", _) => return list("FileState"),
        ("/trash", _) => return list("TrashView"),
        ("/top", _) => return list("TopView"),
        ("/sources", _) => return list("SourceView"),
        ("/doctor", _) => return list("Finding"),
        ("/openapi.json", _) => {
            return json!({"application/json": {"schema": {"type": "object"}}});
        }
        ("/sessions/{name}", _) => "SessionView",
        ("/sessions/{name}/history", _) => "HistoryView",
        ("/plan" | "/diff", _) => "PlanView",
        ("/gc", _) => "GcView",
        ("/confirm-prune", _) => "Confirmed",
        _ => "Done",
    };
    json!({"application/json": data(name)})
}

/// Schemas as OpenAPI 3.1 has them, referring to where they stand in the document.
fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|all| all.definitions_path = "/components/schemas".into())
}

/// What bodies may be, by the name of the type that reads them.
pub(super) fn bodies() -> Map<String, Value> {
    let mut drawn = settings().into_generator();
    drawn.subschema_for::<Files>();
    drawn.subschema_for::<Deletion>();
    drawn.subschema_for::<Paths>();
    drawn.subschema_for::<Restoration>();
    drawn.subschema_for::<Collection>();
    drawn.take_definitions(true)
}

/// What is answered, by the name of the type that writes it.
pub(super) fn answers() -> Map<String, Value> {
    let mut drawn = settings().for_serialize().into_generator();
    let draw: [fn(&mut SchemaGenerator) -> schemars::Schema; 15] = [
        SchemaGenerator::subschema_for::<Confirmed>,
        SchemaGenerator::subschema_for::<Done>,
        SchemaGenerator::subschema_for::<ErrorBody>,
        SchemaGenerator::subschema_for::<EventList>,
        SchemaGenerator::subschema_for::<FileState>,
        SchemaGenerator::subschema_for::<Finding>,
        SchemaGenerator::subschema_for::<GcView>,
        SchemaGenerator::subschema_for::<HistoryView>,
        SchemaGenerator::subschema_for::<Outcome>,
        SchemaGenerator::subschema_for::<PlanView>,
        SchemaGenerator::subschema_for::<SessionList>,
        SchemaGenerator::subschema_for::<SourceView>,
        SchemaGenerator::subschema_for::<TopView>,
        SchemaGenerator::subschema_for::<TrashView>,
        SchemaGenerator::subschema_for::<Watched>,
    ];
    for one in draw {
        one(&mut drawn);
    }
    drawn.take_definitions(true)
}
