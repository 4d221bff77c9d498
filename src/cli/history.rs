//! `docket history` and `docket restore`: the earlier states of a workspace.

use comfy_table::Cell;

use crate::api::{Done, Restoration};
use crate::operator::handle::{HistoryView, StateView};

use super::Context;
use super::client::session;
use super::exit::{Code, Failure};
use super::output::{Format, clean};
use super::table::{Look, cell, columns, moment, size};

#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
    /// So many of the newest states; 0: all
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u64,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Put an earlier state of a session's workspace back
///
/// Unsynced edits are committed first, so a restore can itself be undone by a restore. Without
/// --path the workspace becomes what it was: files that did not exist then go, and stay in the
/// history. With --path only what was there then comes back; nothing is removed. Files that are
/// changed meanwhile are kept as conflict copies; large files come when they are asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
    /// The state: its id or the beginning of it (`docket history`), or a moment like
    /// 2026-11-23T20:04:10Z
    #[arg(long, value_name = "ID")]
    at: String,
    /// Only this file or directory, as it was then
    #[arg(long, value_name = "P")]
    path: Option<String>,
}

pub(super) async fn run(context: &Context, asked: &History) -> Result<Code, Failure> {
    let path = format!("sessions/{}/history?limit={}", session(&asked.name)?, asked.limit);
    let history: HistoryView = context.client()?.get_and_wait(&path).await?;
    let states = &history.states;
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, states)?,
        Format::Name => {
            let ids: String = states.iter().map(|state| format!("{}\n", state.id)).collect();
            context.out.data(&super::output::clean_lines(&ids))?;
        }
        _ if states.is_empty() => context.out.talk("Nothing was committed yet."),
        _ => context.out.data(&draw(context.out.look, states))?,
    }
    if history.older > 0 {
        context.out.talk(&format!("{} older states: --limit 0 shows all.", history.older));
    }
    Ok(Code::Done)
}

/// States as a table.
pub(super) fn draw(look: Look, states: &[StateView]) -> String {
    let rows: Vec<Vec<Cell>> = states
        .iter()
        .map(|state| {
            let readable = state.error.is_empty();
            let mut changes = if readable {
                state.changes.clone()
            } else {
                format!("unreadable: {}", state.error)
            };
            if state.current {
                changes.push_str(" (current)");
            }
            vec![
                cell(if state.short.is_empty() { &state.id } else { &state.short }),
                cell(moment(state.time)),
                cell(if readable { state.files.to_string() } else { "-".to_owned() }),
                cell(if readable { size(state.bytes) } else { "-".to_owned() }),
                cell(changes),
            ]
        })
        .collect();
    columns(look, &["ID", "TIME", "FILES", "SIZE", "CHANGES"], &rows)
}

pub(super) async fn restore(context: &Context, asked: &Restore) -> Result<Code, Failure> {
    let path = format!("sessions/{}/restore", session(&asked.name)?);
    let body = Restoration { at: asked.at.clone(), path: asked.path.clone() };
    let client = context.client()?;
    let work = client.post_and_wait(&path, &body);
    let done: Done = super::bar::over(work, &client, &asked.name).await?;
    context.out.data(&format!("session/{}: {}\n", asked.name, clean(&done.message)))?;
    Ok(Code::Done)
}
