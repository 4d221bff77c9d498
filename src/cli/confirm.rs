//! `docket confirm-prune`: prints and confirms exactly the names that are held now.

use crate::api::Confirmed;

use super::Context;
use super::exit::{Code, Failure};
use super::output::Format;

#[derive(Debug, clap::Args)]
pub(super) struct ConfirmPrune {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(context: &Context, asked: &ConfirmPrune) -> Result<Code, Failure> {
    let done: Confirmed = context.client()?.post("confirm-prune", &()).await?;
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &done)?,
        Format::Name => {
            let names: String = done.confirmed.iter().map(|n| format!("session/{n}\n")).collect();
            context.out.data(&names)?;
        }
        _ if done.confirmed.is_empty() => context.out.talk("No session is held."),
        _ => {
            let names: String = done.confirmed.iter().map(|name| format!("{name}\n")).collect();
            context.out.data(&super::output::clean_lines(&names))?;
            let count = done.confirmed.len();
            context.out.talk(&format!("Confirmed: {count} held so far end now."));
        }
    }
    Ok(Code::Done)
}
