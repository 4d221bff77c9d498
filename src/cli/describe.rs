//! `docket describe NAME`: everything there is to know of a session.

use std::fmt::Write as _;
use std::sync::Arc;

use comfy_table::Cell;

use crate::api::EventList;
use crate::model::{Event, Timestamp, many};
use crate::operator::handle::TopView;
use crate::status::SessionView;

use super::client::session;
use super::exit::{Code, Failure};
use super::output::{clean, clean_lines};
use super::table::{age, cell, columns, moment, now, said, size};
use super::{Context, events};

#[derive(Debug, clap::Args)]
pub(super) struct Describe {
    /// The session
    #[arg(value_parser = super::client::bare)]
    name: String,
}

/// How many events are shown.
const EVENTS: usize = 20;

pub(super) async fn run(context: &Context, asked: &Describe) -> Result<Code, Failure> {
    let client = context.client()?;
    let name = session(&asked.name)?;
    let view: Arc<SessionView> = client.get(&format!("sessions/{name}")).await?;
    // What is only an addition does not keep the rest from being shown.
    let top: Vec<TopView> = client.get(&format!("top?session={name}")).await.unwrap_or_default();
    let events: EventList = client.get(&format!("events?session={name}")).await?;
    let from = events.items.len().saturating_sub(EVENTS);
    let text = draw(&view, top.first(), &events.items[from..], now());
    context.out.data(&text)?;
    Ok(Code::Done)
}

/// Labelled lines, then tables.
pub(super) fn draw(
    view: &SessionView,
    top: Option<&TopView>,
    events: &[Event],
    now: Timestamp,
) -> String {
    let mut text = String::new();
    head(&mut text, view, now);
    container(&mut text, view, now);
    usage(&mut text, top);
    files(&mut text, view, now);
    retry(&mut text, view, now);
    text.push_str("Conditions:\n");
    text.push_str(&indent(&conditions(view, now)));
    if !view.status.plan.trim().is_empty() {
        text.push_str("Plan:\n");
        text.push_str(&indent(&clean_lines(&view.status.plan)));
    }
    text.push_str("Spec:\n");
    let spec = super::output::render(super::output::Format::Yaml, &view.spec);
    text.push_str(&indent(&clean_lines(&spec.unwrap_or_default())));
    if events.is_empty() {
        text.push_str("Events:          none\n");
    } else {
        text.push_str("Events:\n");
        text.push_str(&indent(&events::draw(events, now, true)));
    }
    text
}

fn put(text: &mut String, label: &str, value: impl AsRef<str>) {
    let value = value.as_ref();
    let value = if value.is_empty() { "-" } else { value };
    let _ = writeln!(text, "{:<16} {}", format!("{label}:"), clean(value)); // To a String.
}

pub(super) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

fn head(text: &mut String, view: &SessionView, now: Timestamp) {
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
    };
    let ago = |at: Timestamp| format!("{} ({} ago)", moment(at), age(Some(at), now));
    let status = &view.status;
    put(text, "Name", &view.metadata.name);
    put(text, "User", said(view, "user"));
    put(text, "Case", said(view, "case"));
    let class = said(view, "class");
    put(text, "Class", if class == "-" { "default" } else { &class });
    put(text, "Labels", pairs(&view.metadata.labels));
    put(text, "Annotations", pairs(&view.metadata.annotations));
    put(text, "Source", &status.source);
    if let Some(revision) = &status.source_revision {
        put(text, "Revision", revision);
    }
    put(text, "Uid", &view.metadata.uid);
    put(text, "Generation", view.metadata.generation.to_string());
    put(text, "Created", view.metadata.creation_timestamp.map_or(String::new(), ago));
    if let Some(at) = view.metadata.deletion_timestamp {
        put(text, "Ending since", ago(at));
    }
    put(text, "Phase", status.phase.to_string());
    if let Some(place) = status.queue_position {
        put(text, "Queue", format!("place {place}"));
    }
    put(text, "Port", status.port.map_or(String::new(), |port| port.to_string()));
    put(text, "Address", status.address.as_deref().unwrap_or(""));
    put(text, "Workspace", &status.workspace);
    if let Some(told) = overrides(view) {
        put(text, "Override", told);
    }
}

/// What a command said that wins over the spec.
pub(super) fn overrides(view: &SessionView) -> Option<String> {
    let told = view.status.override_.as_ref()?;
    let mut parts = Vec::new();
    if let Some(state) = told.state {
        parts.push(format!("state {state:?}"));
    }
    if let Some(suspend) = told.suspend {
        parts.push(if suspend { "suspended".to_owned() } else { "not suspended".to_owned() });
    }
    (!parts.is_empty()).then(|| parts.join(", ") + " by command")
}

fn container(text: &mut String, view: &SessionView, now: Timestamp) {
    let Some(container) = &view.status.container else {
        return put(text, "Container", "none");
    };
    put(text, "Container", format!("{} ({})", container.name, container.id));
    put(text, "  State", &container.state);
    put(text, "  Attempt", container.attempt.to_string());
    put(text, "  Image", &container.image_id);
    let started = container
        .started_at
        .map_or(String::new(), |at| format!("{} ({} ago)", moment(at), age(Some(at), now)));
    put(text, "  Started", started);
    put(text, "  Restarts", container.restarts.to_string());
    if let Some(end) = &container.last_termination {
        let code = end.exit_code.map_or(String::new(), |code| format!(", exit code {code}"));
        let at = end.finished_at.map_or(String::new(), |at| format!(", {}", moment(at)));
        put(text, "  Last end", format!("{}{code}{at}", end.reason));
    }
}

fn usage(text: &mut String, top: Option<&TopView>) {
    let Some(top) = top else { return };
    if let Some(usage) = &top.usage {
        put(text, "Cpu", format!("{:.2} %", usage.cpu_percent));
        let limit = match usage.memory_limit_bytes {
            0 => String::new(),
            limit => format!(" of {}", size(limit)),
        };
        put(text, "Memory", format!("{}{limit}", size(usage.memory_bytes)));
        let (rx, tx) = (size(usage.network_rx_bytes), size(usage.network_tx_bytes));
        put(text, "Network", format!("{rx} received, {tx} sent"));
    }
    let quota = match top.quota_bytes {
        0 => String::new(),
        quota => format!(" of {}", size(quota)),
    };
    put(text, "Disk", format!("{}{quota}", size(top.disk_bytes)));
}

fn files(text: &mut String, view: &SessionView, now: Timestamp) {
    let files = &view.status.files;
    let unsynced = match files.unsynced {
        0 => "0".to_owned(),
        count => format!("{count} ({})", size(files.unsynced_bytes)),
    };
    put(text, "Files", format!("{} ({} here, {} lazy)", files.total, files.local, files.lazy));
    put(text, "  Unsynced", unsynced);
    put(text, "  Skipped", files.skipped.to_string());
    put(text, "  Conflicts", files.conflicts.to_string());
    let last = files
        .last_sync
        .map_or("never".to_owned(), |at| format!("{} ({} ago)", moment(at), age(Some(at), now)));
    put(text, "  Last sync", last);
}

fn retry(text: &mut String, view: &SessionView, now: Timestamp) {
    let retry = &view.status.retry;
    if retry.operation.is_empty() {
        return;
    }
    let when = match retry.not_before {
        Some(at) if at > now => format!("again in {}", age(Some(now), at)),
        Some(_) => "again now".to_owned(),
        None => "not again before the spec changes".to_owned(),
    };
    put(text, "Retry", format!("{}, {}, {when}", retry.operation, many(retry.failures, "failure")));
    put(text, "  Last error", &retry.last_error);
}

/// The conditions as a table.
pub(super) fn conditions(view: &SessionView, now: Timestamp) -> String {
    let rows: Vec<Vec<Cell>> = view
        .status
        .conditions
        .iter()
        .map(|condition| {
            vec![
                cell(format!("{:?}", condition.kind)),
                cell(format!("{:?}", condition.status)),
                cell(condition.reason.to_string()),
                cell(age(Some(condition.last_transition_time), now)),
                cell(&condition.message),
            ]
        })
        .collect();
    columns(false, &["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], &rows)
}
