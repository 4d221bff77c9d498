//! `docket get sources`: where specs come from, what is wrong with them, and of a repository how
//! far it is followed.

use comfy_table::Cell;

use crate::model::{Origin, OriginState, Timestamp};
use crate::operator::handle::SourceView;

use super::Context;
use super::exit::{Code, Failure};
use super::output::{Format, clean, clean_lines};
use super::table::{Look, age, cell, columns, now, span};

/// Digits of a commit's id that are shown where it is one of many things.
pub(super) const SHORT: usize = 12;

pub(super) async fn run(context: &Context, watch: bool, format: Format) -> Result<Code, Failure> {
    if watch {
        return Err(Failure::input("`docket get sources` cannot be watched"));
    }
    let sources: Vec<SourceView> = context.client()?.get("sources").await?;
    match format {
        Format::Json | Format::Yaml => context.out.value(format, &sources)?,
        Format::Name => {
            let names: String = sources.iter().map(|s| clean(&s.source) + "\n").collect();
            context.out.data(&names)?;
        }
        Format::Table | Format::Wide => {
            context.out.data(&draw(context.out.look, &sources, now()))?;
        }
    }
    Ok(Code::Done)
}

/// Sources as a table; below it how a repository is followed, and all errors.
pub(super) fn draw(look: Look, sources: &[SourceView], now: Timestamp) -> String {
    let rows: Vec<Vec<Cell>> = sources.iter().map(row).collect();
    let mut text = columns(look, &["SOURCE", "STATE", "REVISION", "OBJECTS", "ERRORS"], &rows);
    for origin in sources.iter().filter_map(|source| source.git.as_ref()) {
        text.push('\n');
        text.push_str(&followed(origin, now));
    }
    let errors: Vec<&String> = sources.iter().flat_map(|source| &source.errors).collect();
    if !errors.is_empty() {
        text.push('\n');
        text.extend(errors.iter().map(|error| clean_lines(error)));
    }
    text
}

fn row(source: &SourceView) -> Vec<Cell> {
    let some = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let revision = source.revision.get(..SHORT).unwrap_or(&source.revision);
    vec![
        cell(&source.source),
        cell(&source.state),
        cell(some(revision)),
        cell(some(&source.objects.join(","))),
        cell(source.errors.len().to_string()),
    ]
}

/// How a repository is followed: what is in force, what it has, when it was and will be asked.
fn followed(origin: &Origin, now: Timestamp) -> String {
    let some = |text: &str| if text.is_empty() { "none".to_owned() } else { clean(text) };
    let meaning = match origin.state {
        OriginState::Waiting => "the repository was not asked yet",
        OriginState::Current => "the newest commit is in force",
        OriginState::Refused => "the newest commit is not acceptable: the last good one stays",
        OriginState::Missing => "the branch is not there: the last good commit stays",
        OriginState::Unreachable => "the repository does not answer: the last good commit stays",
        OriginState::Failed => "the newest commit cannot be put in place: the last good one stays",
    };
    let ago = |at: Option<Timestamp>| match at {
        Some(_) => format!("{} ago", age(at, now)),
        None => "not since docket was started".to_owned(),
    };
    let next = match origin.next_look.map(|at| at.signed_duration_since(now).num_seconds()) {
        Some(seconds) if seconds > 0 => format!("in {}", span(seconds)),
        _ => "now".to_owned(),
    };
    let failures = match origin.failures {
        0 => String::new(),
        failures => format!(" (failures in a row: {failures})"),
    };
    let mut text = format!("{}\n", clean(&origin.source));
    for (name, value) in [
        ("State", format!("{}: {meaning}", origin.state)),
        ("In force", some(&origin.revision)),
        ("Newest", some(&origin.newest)),
        ("Answered", ago(origin.answered_at)),
        ("Fetched", ago(origin.fetched_at)),
        ("Next look", format!("{next}{failures}")),
    ] {
        text.push_str(&format!("  {:<11}{value}\n", format!("{name}:")));
    }
    text
}
