//! `docket schema [Session|SessionClass]`: JSON Schema for editors and CI.

use clap::ValueEnum;

use super::Context;
use super::exit::{Code, Failure};

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
    let kind = asked.kind;
    let _ = (context, kind);
    Err(Failure::failed("this build has no schema"))
}
