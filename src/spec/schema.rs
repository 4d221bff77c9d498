//! JSON Schema of both kinds, drawn from the very types that parse them.

use super::wire::{ClassDoc, SessionDoc};

/// The kinds there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// `kind: Session`.
    Session,
    /// `kind: SessionClass`.
    SessionClass,
}

/// The JSON Schema (draft 2020-12) of a kind.
pub fn schema(kind: ObjectKind) -> serde_json::Value {
    let (mut schema, name) = match kind {
        ObjectKind::Session => (schemars::schema_for!(SessionDoc), "Session"),
        ObjectKind::SessionClass => (schemars::schema_for!(ClassDoc), "SessionClass"),
    };
    // The type behind `kind` knows both; a document of this schema is one.
    if let Some(properties) = schema.get_mut("properties") {
        properties["kind"] = serde_json::json!({"const": name});
    }
    let mut schema = schema.to_value();
    // Sessions have the same section and need no image.
    if let Some(container) = schema.pointer_mut("/$defs/ClassSpec/properties/container") {
        container["required"] = serde_json::json!(["image"]);
    }
    schema
}
