//! `docket apply -f FILE...` and `docket delete`: records with the operator instead of files.

use std::path::PathBuf;

use crate::api::{Deletion, Files, parse_selector};
use crate::model::ClassName;
use crate::operator::handle::Outcome;

use super::client::session;
use super::exit::{Code, Failure};
use super::output::{Format, clean};
use super::{Context, input};

#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// Files, directories, - for stdin
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    file: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(false).args(["name", "selector", "all"]))]
pub(super) struct Delete {
    /// The session, or sessionclass/NAME
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: Option<String>,
    /// All whose labels fit; those that files own are skipped and listed
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// All sessions; those that files own are skipped and listed
    #[arg(long)]
    all: bool,
    /// Give up unsynced edits, into the trash
    #[arg(long)]
    discard: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(context: &Context, asked: &Apply) -> Result<Code, Failure> {
    let files = Files { files: input::named(&asked.file)? };
    if files.files.is_empty() {
        return Err(Failure::input("there is no spec file in what was named"));
    }
    let outcomes: Vec<Outcome> = context.client()?.post("apply", &files).await?;
    tell(context, asked.output, &outcomes)
}

pub(super) async fn delete(context: &Context, asked: &Delete) -> Result<Code, Failure> {
    if let Some(name) = &asked.name {
        if let Some(class) = name.strip_prefix("sessionclass/") {
            ClassName::parse(class).map_err(|error| Failure::input(error.to_string()))?;
        } else {
            session(name)?;
        }
    }
    if let Some(text) = &asked.selector {
        let selector = parse_selector(text).map_err(|error| Failure::input(error.to_string()))?;
        if selector.0.is_empty() {
            return Err(Failure::input("an empty selector would delete everything")
                .hint("say --all if that is meant"));
        }
    }
    let body = Deletion {
        name: asked.name.clone(),
        selector: asked.selector.clone(),
        all: asked.all,
        discard: asked.discard,
    };
    let outcomes: Vec<Outcome> = context.client()?.post("delete", &body).await?;
    if outcomes.is_empty() {
        context.out.talk("There is no such session.");
    }
    tell(context, asked.output, &outcomes)
}

fn tell(context: &Context, format: Format, outcomes: &[Outcome]) -> Result<Code, Failure> {
    match format {
        Format::Json | Format::Yaml => context.out.value(format, &outcomes)?,
        Format::Name => {
            let names: String = outcomes.iter().map(|o| clean(&o.object) + "\n").collect();
            context.out.data(&names)?;
        }
        _ => {
            let lines: String = outcomes
                .iter()
                .map(|one| format!("{} {}\n", clean(&one.object), clean(&one.outcome)))
                .collect();
            context.out.data(&lines)?;
        }
    }
    let refused = outcomes.iter().any(|outcome| outcome.refused);
    Ok(if refused { Code::Failed } else { Code::Done })
}
