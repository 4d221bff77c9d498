//! `docket get`: sessions, one session, or where specs come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::ValueEnum;
use comfy_table::Cell;

use crate::api::{SessionList, Watched, parse_selector};
use crate::model::{ConditionType, Timestamp, Truth};
use crate::status::SessionView;

use super::Context;
use super::client::{part, session};
use super::exit::{Code, Failure};
use super::output::{Format, line};
use super::table::{Look, age, cell, columns, now, phase, said};

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// A session; `sources`: where specs come from. Left out: all sessions
    #[arg(value_parser = super::client::bare, add = super::completions::names_and_sources())]
    name: Option<String>,
    /// Go on and print what changes
    #[arg(short, long)]
    watch: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Those whose labels fit: a=b, a!=b, a in (x,y), a, !a; user and case are labels too
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "name")]
    selector: Option<String>,
    /// The order of sessions
    #[arg(long, value_enum, value_name = "COLUMN", conflicts_with_all = ["name", "watch"])]
    sort_by: Option<Order>,
}

/// `--sort-by`; of what is equal, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    /// By name, as without it
    Name,
    /// By user, then case
    User,
    /// By phase
    Phase,
    /// By port
    Port,
    /// Most restarts first
    Restarts,
    /// Most unsynced files first
    Unsynced,
    /// Newest first
    Age,
}

/// Puts sessions in order.
pub(super) fn sort(views: &mut [Arc<SessionView>], order: Order) {
    use std::cmp::Reverse;
    // A stable sort: what comes in is in the order of names.
    match order {
        Order::Name => views.sort_by_cached_key(|view| view.metadata.name.clone()),
        Order::User => views.sort_by_cached_key(|view| (said(view, "user"), said(view, "case"))),
        Order::Phase => views.sort_by_cached_key(|view| view.status.phase.to_string()),
        Order::Port => views.sort_by_key(|view| view.status.port.unwrap_or(u16::MAX)),
        Order::Restarts => views.sort_by_key(|view| Reverse(restarts(view))),
        Order::Unsynced => views.sort_by_key(|view| Reverse(view.status.files.unsynced)),
        Order::Age => views.sort_by_key(|view| Reverse(view.metadata.creation_timestamp)),
    }
}

fn restarts(view: &SessionView) -> u32 {
    view.status.container.as_ref().map_or(0, |container| container.restarts)
}

pub(super) async fn run(context: &Context, asked: &Get) -> Result<Code, Failure> {
    if asked.name.as_deref() == Some("sources") {
        return super::sources::run(context, asked.watch, asked.output).await;
    }
    if let Some(text) = &asked.selector {
        parse_selector(text).map_err(|error| Failure::input(error.to_string()))?;
    }
    if asked.watch {
        return watch(context, asked).await;
    }
    match &asked.name {
        Some(name) => one(context, asked, name).await,
        None => all(context, asked).await,
    }
}

async fn one(context: &Context, asked: &Get, name: &str) -> Result<Code, Failure> {
    let view: Arc<SessionView> =
        context.client()?.get(&format!("sessions/{}", session(name)?)).await?;
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &view)?,
        format => context.out.data(&draw(context.out.look, format, &[view], now()))?,
    }
    Ok(Code::Done)
}

async fn all(context: &Context, asked: &Get) -> Result<Code, Failure> {
    let path = match &asked.selector {
        Some(selector) => format!("sessions?selector={}", part(selector)),
        None => "sessions".to_owned(),
    };
    let mut list: SessionList = context.client()?.get(&path).await?;
    if let Some(order) = asked.sort_by {
        sort(&mut list.items, order);
    }
    match asked.output {
        Format::Json | Format::Yaml => context.out.value(asked.output, &list)?,
        Format::Table | Format::Wide if list.items.is_empty() => {
            context.out.talk("There are no sessions.");
        }
        format => context.out.data(&draw(context.out.look, format, &list.items, now()))?,
    }
    Ok(Code::Done)
}

/// Prints what there is, then each change, until it is interrupted.
async fn watch(context: &Context, asked: &Get) -> Result<Code, Failure> {
    let mut path = vec!["sessions?watch=true".to_owned()];
    path.extend(asked.selector.as_ref().map(|selector| format!("selector={}", part(selector))));
    if let Some(name) = &asked.name {
        path.push(format!("name={}", part(session(name)?)));
    }
    let client = context.client()?;
    if let Some(name) = &asked.name {
        let _it_is_there: Arc<SessionView> = client.get(&format!("sessions/{name}")).await?;
    }
    let mut changes = client.stream(&path.join("&")).await?;
    let mut known: BTreeMap<String, Arc<SessionView>> = BTreeMap::new();
    let mut printed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut begun = false;
    while let Some(change) = changes.value::<Watched>().await? {
        match change {
            Watched::Bookmark => {
                // The first rows come together, so that their columns agree.
                show(context, asked.output, &known, None)?;
                printed = known.iter().map(|(n, v)| (n.clone(), seen(asked.output, v))).collect();
                begun = true;
            }
            Watched::Added(view) | Watched::Modified(view) => {
                let name = view.metadata.name.clone();
                let news = seen(asked.output, &view);
                known.insert(name.clone(), view);
                if begun && (news.is_empty() || printed.get(&name) != Some(&news)) {
                    show(context, asked.output, &known, Some(&name))?;
                    printed.insert(name, news);
                }
            }
            Watched::Deleted(view) => {
                if begun {
                    show(context, asked.output, &known, Some(&view.metadata.name))?;
                }
                known.remove(&view.metadata.name);
                printed.remove(&view.metadata.name);
            }
        }
    }
    Err(Failure::new(Code::Unreachable, "the operator ended").hint("look at its log"))
}

/// What a person sees change in a row: its age is no news. Nothing for machines: they get every
/// change.
pub(super) fn seen(format: Format, view: &SessionView) -> Vec<String> {
    let mut cells = match format {
        Format::Json | Format::Yaml => return Vec::new(),
        Format::Name => return vec![view.metadata.name.clone()],
        Format::Table | Format::Wide => {
            row(view, view.metadata.creation_timestamp.unwrap_or_default())
        }
    };
    if format == Format::Wide {
        cells.extend(more(view));
    }
    cells.iter().map(Cell::content).collect()
}

/// Prints all that is known, or the one that changed in the columns of all.
fn show(
    context: &Context,
    format: Format,
    known: &BTreeMap<String, Arc<SessionView>>,
    changed: Option<&str>,
) -> Result<(), Failure> {
    let shown = known.values().filter(|view| changed.is_none_or(|name| name == view.metadata.name));
    match format {
        Format::Json => {
            for view in shown {
                context.out.data(&line(view)?)?;
            }
        }
        Format::Yaml => {
            for view in shown {
                context.out.data("---\n")?;
                context.out.value(format, view)?;
            }
        }
        format => {
            let views: Vec<_> = known.values().cloned().collect();
            let text = draw(context.out.look, format, &views, now());
            let heads = usize::from(format != Format::Name);
            let row = changed.and_then(|name| known.keys().position(|known| known == name));
            match row.and_then(|row| text.lines().nth(heads + row)) {
                Some(line) => context.out.data(&format!("{line}\n"))?,
                None => context.out.data(&text)?,
            }
        }
    }
    Ok(())
}

const HEAD: [&str; 9] =
    ["NAME", "USER", "CASE", "PHASE", "READY", "PORT", "RESTARTS", "UNSYNCED", "AGE"];
const WIDE: [&str; 6] = ["CLASS", "ADDRESS", "CONTAINER", "GENERATION", "SOURCE", "REASON"];

/// Sessions as a table.
pub(super) fn draw(
    look: Look,
    format: Format,
    views: &[Arc<SessionView>],
    now: Timestamp,
) -> String {
    if format == Format::Name {
        return views.iter().map(|view| format!("session/{}\n", view.metadata.name)).collect();
    }
    let mut names = HEAD.to_vec();
    let mut look = look;
    if format == Format::Wide {
        names.extend(WIDE);
        // Whoever asks for all of it gets all of it, a line each, as kubectl does.
        look.width = None;
    }
    let rows: Vec<Vec<Cell>> = views
        .iter()
        .map(|view| {
            let mut cells = row(view, now);
            if format == Format::Wide {
                cells.extend(more(view));
            }
            cells
        })
        .collect();
    columns(look, &names, &rows)
}

fn row(view: &SessionView, now: Timestamp) -> Vec<Cell> {
    let status = &view.status;
    vec![
        cell(&view.metadata.name),
        cell(said(view, "user")),
        cell(said(view, "case")),
        phase(status.phase),
        cell(ready(view)),
        cell(status.port.map_or("-".to_owned(), |port| port.to_string())),
        cell(restarts(view).to_string()),
        cell(status.files.unsynced.to_string()),
        cell(age(view.metadata.creation_timestamp, now)),
    ]
}

fn more(view: &SessionView) -> Vec<Cell> {
    let status = &view.status;
    let class = said(view, "class");
    let container = status.container.as_ref().map_or("-", |c| c.name.as_str());
    let reason = status
        .conditions
        .iter()
        .find(|c| c.kind == ConditionType::Ready)
        .map_or("-".to_owned(), |c| c.reason.to_string());
    vec![
        cell(if class == "-" { "default" } else { &class }),
        cell(status.address.as_deref().unwrap_or("-")),
        cell(container),
        cell(status.observed_generation.to_string()),
        cell(&status.source),
        cell(reason),
    ]
}

/// `True`, `False` or `Unknown`.
pub(super) fn ready(view: &SessionView) -> String {
    let truth = view
        .status
        .conditions
        .iter()
        .find(|condition| condition.kind == ConditionType::Ready)
        .map_or(Truth::Unknown, |condition| condition.status);
    format!("{truth:?}")
}
