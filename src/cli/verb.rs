//! `docket stop|start|restart|suspend|resume NAME`.

use crate::api::Done;
use crate::operator::handle::Verb;

use super::Context;
use super::client::session;
use super::exit::{Code, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
}

pub(super) async fn run(context: &Context, asked: &Named, verb: Verb) -> Result<Code, Failure> {
    let word = format!("{verb:?}").to_lowercase();
    let path = format!("sessions/{}/{word}", session(&asked.name)?);
    let done: Done = context.client()?.post(&path, &()).await?;
    context.out.data(&format!("{}\n", super::output::clean(&done.message)))?;
    Ok(Code::Done)
}
