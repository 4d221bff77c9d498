//! `docket plan [FILE...]` and `docket diff DIR`: what would be done. Exit 0: nothing; 2: changes.

use std::path::PathBuf;

use crate::api::Files;
use crate::operator::handle::{PlanView, SourceView};

use super::exit::{Code, Failure};
use super::output::{Format, clean_lines};
use super::{Context, input};

#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    /// As if these were applied: files, directories, - for stdin
    files: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// As if this were the whole watched directory
    directory: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(context: &Context, asked: &Plan) -> Result<Code, Failure> {
    let files = Files { files: input::named(&asked.files)? };
    let client = context.client()?;
    let plan: PlanView = match files.files.is_empty() {
        true if !asked.files.is_empty() => {
            return Err(Failure::input("there is no spec file in what was named"));
        }
        true => client.get("plan").await?,
        false => client.post("plan", &files).await?,
    };
    if files.files.is_empty() {
        // What cannot be read plans nothing, and that is not the same as nothing to do.
        let sources: Vec<SourceView> = client.get("sources").await?;
        for one in sources.iter().filter(|one| !one.errors.is_empty()) {
            let first = one.errors.first().map_or("", String::as_str);
            let line = format!("warning: {} is not followed ({}): {first}", one.source, one.state);
            context.out.talk(&clean_lines(&line));
        }
    }
    tell(context, asked.output, &plan)
}

pub(super) async fn diff(context: &Context, asked: &Diff) -> Result<Code, Failure> {
    let files = Files { files: input::directory(&asked.directory)? };
    let plan: PlanView = context.client()?.post("diff", &files).await?;
    tell(context, asked.output, &plan)
}

fn tell(context: &Context, format: Format, plan: &PlanView) -> Result<Code, Failure> {
    match format {
        Format::Json | Format::Yaml => context.out.value(format, plan)?,
        Format::Name => {
            let busy = plan.sessions.iter().filter(|(_, session)| !session.actions.is_empty());
            let names: String = busy.map(|(name, _)| format!("session/{name}\n")).collect();
            context.out.data(&clean_lines(&names))?;
        }
        _ => context.out.data(&clean_lines(&plan.text))?,
    }
    if !plan.changes && !matches!(format, Format::Json | Format::Yaml | Format::Name) {
        context.out.talk("Nothing to do.");
    }
    Ok(if plan.changes { Code::Changes } else { Code::Done })
}
