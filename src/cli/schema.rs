//! `docket schema [Session|SessionClass]`: JSON Schema for editors and CI.

use clap::ValueEnum;
use serde_json::Value;

use crate::spec::{ObjectKind, schema};

use super::Context;
use super::exit::{Code, Failure};
use super::output::Format;

#[derive(Debug, clap::Args)]
pub(super) struct Schema {
    /// Of which object [default: both]
    #[arg(value_enum, ignore_case = true)]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(name = "Session")]
    Session,
    #[value(name = "SessionClass")]
    SessionClass,
}

pub(super) fn run(context: &Context, asked: &Schema) -> Result<Code, Failure> {
    let schema = match asked.kind {
        Some(Kind::Session) => schema(ObjectKind::Session),
        Some(Kind::SessionClass) => schema(ObjectKind::SessionClass),
        // A document is one or the other.
        None => either(schema(ObjectKind::Session), schema(ObjectKind::SessionClass)),
    };
    context.out.value(Format::Json, &schema)?;
    Ok(Code::Done)
}

/// One schema for both kinds; what they refer to moves to the top, where references look.
fn either(mut one: Value, mut other: Value) -> Value {
    let mut shared = serde_json::Map::new();
    for schema in [&mut one, &mut other] {
        let Some(object) = schema.as_object_mut() else { continue };
        object.remove("$schema");
        if let Some(Value::Object(definitions)) = object.remove("$defs") {
            shared.extend(definitions);
        }
    }
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "docket.dev/v1",
        "oneOf": [one, other],
        "$defs": shared,
    })
}
