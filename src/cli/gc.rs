//! `docket gc` and `docket trash`: what was kept, and when it goes.

use std::time::Duration;

use comfy_table::Cell;

use crate::api::Collection;
use crate::operator::handle::{GcView, TrashView};

use super::Context;
use super::exit::{Code, Failure};
use super::output::Format;
use super::table::{Look, age, cell, columns, moment, now, size};

/// Remove from the store what no state needs any more
///
/// Earlier states that were replaced longer ago than --older-than go, and with them the contents
/// that docket wrote and that nothing else names. The current state, the newest earlier one, what
/// sessions have, and what docket did not write always stay.
#[derive(Debug, clap::Args)]
pub(super) struct Gc {
    /// List only, remove nothing
    #[arg(long)]
    dry_run: bool,
    /// What is younger stays
    #[arg(long, value_name = "AGE", default_value = "30d", value_parser = older_than)]
    older_than: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn older_than(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a number and a unit, e.g. 12h, 30d".to_owned())
}

#[derive(Debug, clap::Args)]
pub(super) struct Trash {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) async fn run(context: &Context, asked: &Gc) -> Result<Code, Failure> {
    let body =
        Collection { older_than_seconds: asked.older_than.as_secs(), dry_run: asked.dry_run };
    let found: GcView = context.client()?.post_and_wait("gc", &body).await?;
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &found)?,
        Format::Name => {
            let keys: String = found.objects.iter().map(|one| format!("{}\n", one.key)).collect();
            context.out.data(&super::output::clean_lines(&keys))?;
        }
        _ if found.objects.is_empty() => (),
        _ => context.out.data(&draw(context.out.look, &found))?,
    }
    for left in &found.left {
        context.out.talk(&format!("{} is left alone: {}", left.case, left.why));
    }
    let (count, bytes) = (found.objects.len(), size(found.bytes));
    let did = if found.dry_run { "would be removed" } else { "removed" };
    context.out.talk(&format!("{count} objects {did}, {bytes}."));
    Ok(Code::Done)
}

fn draw(look: Look, found: &GcView) -> String {
    let rows: Vec<Vec<Cell>> = found
        .objects
        .iter()
        .map(|one| vec![cell(&one.key), cell(size(one.size)), cell(age(one.written, now()))])
        .collect();
    columns(look, &["KEY", "SIZE", "AGE"], &rows)
}

pub(super) async fn trash(context: &Context, asked: &Trash) -> Result<Code, Failure> {
    let all: Vec<TrashView> = context.client()?.get("trash").await?;
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &all)?,
        Format::Name => {
            let names: String = all.iter().map(|one| format!("{}\n", one.name)).collect();
            context.out.data(&super::output::clean_lines(&names))?;
        }
        _ if all.is_empty() => context.out.talk("The trash is empty."),
        _ => context.out.data(&draw_trash(context.out.look, &all))?,
    }
    Ok(Code::Done)
}

/// The trash as a table.
pub(super) fn draw_trash(look: Look, all: &[TrashView]) -> String {
    let rows: Vec<Vec<Cell>> = all
        .iter()
        .map(|one| {
            let removed = one.removed_at.map_or_else(|| format!("- ({})", one.why), moment);
            vec![
                cell(&one.name),
                cell(one.session.as_deref().unwrap_or("-")),
                cell(moment(one.moved_at)),
                cell(removed),
            ]
        })
        .collect();
    columns(look, &["NAME", "SESSION", "SINCE", "REMOVED"], &rows)
}
