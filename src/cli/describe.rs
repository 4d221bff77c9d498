//! `docket describe NAME`: everything there is to know of a session.

use std::fmt::Write as _;
use std::sync::Arc;

use comfy_table::Cell;

use crate::api::EventList;
use crate::model::{Condition, ConditionType, Event, Timestamp, many};
use crate::operator::handle::TopView;
use crate::status::SessionView;

use super::client::session;
use super::exit::{Code, Failure};
use super::output::{clean, clean_lines};
use super::table::{Look, age, cell, columns, moment, now, said, size};
use super::{Context, events};

#[derive(Debug, clap::Args)]
pub(super) struct Describe {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
}

/// How many events are shown.
const EVENTS: usize = 8;

pub(super) async fn run(context: &Context, asked: &Describe) -> Result<Code, Failure> {
    let client = context.client()?;
    let name = session(&asked.name)?;
    let view: Arc<SessionView> = client.get(&format!("sessions/{name}")).await?;
    // What is only an addition does not keep the rest from being shown.
    let top: Vec<TopView> = client.get(&format!("top?session={name}")).await.unwrap_or_default();
    let events: EventList = client.get(&format!("events?session={name}")).await?;
    let from = events.items.len().saturating_sub(EVENTS);
    let text = draw(context.out.look, &view, top.first(), &events.items[from..], now());
    context.out.data(&text)?;
    Ok(Code::Done)
}

/// Labelled lines, then tables. What is nothing, and what is as it should be, takes no line of its
/// own: a healthy session fits a screen.
pub(super) fn draw(
    look: Look,
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
    let fine: Vec<String> = view
        .status
        .conditions
        .iter()
        .filter(|c| is_fine(c))
        .map(|c| format!("{:?}", c.kind))
        .collect();
    text.push_str("Conditions:\n");
    text.push_str(&indent(&conditions(look.indented(2), view, now)));
    if !fine.is_empty() {
        text.push_str(&indent(&format!("and as they should be: {}", fine.join(", "))));
    }
    // A healthy session's plan is a line that says the phase again.
    if view.status.plan.trim().lines().count() > 1 || view.status.plan.contains(": ") {
        text.push_str("Plan:\n");
        text.push_str(&indent(&clean_lines(&view.status.plan)));
    }
    let mut spec = view.spec.clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|key, value| {
            !["user", "case", "class"].contains(&key.as_str()) && !value.is_null()
        });
    }
    if spec.as_object().is_none_or(|spec| !spec.is_empty()) {
        text.push_str("Spec:\n");
        let spec = super::output::render(super::output::Format::Yaml, &spec);
        text.push_str(&indent(&clean_lines(&spec.unwrap_or_default())));
    }
    if events.is_empty() {
        text.push_str("Events:          none\n");
    } else {
        text.push_str("Events:\n");
        text.push_str(&indent(&events::draw(look.indented(2), events, now, true)));
    }
    text
}

/// Ready is always told in full.
fn is_fine(condition: &Condition) -> bool {
    condition.kind != ConditionType::Ready && !super::explain::is_off(condition)
}

fn put(text: &mut String, label: &str, value: impl AsRef<str>) {
    let value = value.as_ref();
    let value = if value.is_empty() { "-" } else { value };
    let _ = writeln!(text, "{:<16} {}", format!("{label}:"), clean(value)); // To a String.
}

pub(super) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// When it would be stopped by itself, and what kept it alive so far.
pub(super) fn lifetime(view: &SessionView, now: Timestamp) -> Option<String> {
    let lifetime = view.status.lifetime?;
    let left = |at: Timestamp| format!("in {} ({})", age(Some(now), at), moment(at));
    let over = lifetime.expires_at.map(|at| format!("over {}", left(at)));
    let idle = lifetime.idle.map(|idle| {
        let (by, since) = (idle.used_by, age(Some(idle.used_at), now));
        format!("stopped {} unless it is used; last use {since} ago ({by:?})", left(idle.ends_at))
    });
    (over.is_some() || idle.is_some())
        .then(|| over.into_iter().chain(idle).collect::<Vec<_>>().join(", "))
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
    for (label, map) in
        [("Labels", &view.metadata.labels), ("Annotations", &view.metadata.annotations)]
    {
        if !map.is_empty() {
            put(text, label, pairs(map));
        }
    }
    put(text, "Source", &status.source);
    if let Some(revision) = &status.source_revision {
        put(text, "Revision", revision);
    }
    if !view.metadata.uid.is_empty() {
        put(text, "Uid", format!("{}, generation {}", view.metadata.uid, view.metadata.generation));
    }
    put(text, "Created", view.metadata.creation_timestamp.map_or(String::new(), ago));
    if let Some(at) = view.metadata.deletion_timestamp {
        put(text, "Ending since", ago(at));
    }
    put(text, "Phase", status.phase.to_string());
    if let Some(place) = status.queue_position {
        put(text, "Queue", format!("place {place}"));
    }
    if let Some(told) = lifetime(view, now) {
        put(text, "Lifetime", told);
    }
    match (&status.address, status.port) {
        (Some(address), _) => put(text, "Address", address),
        (None, Some(port)) => put(text, "Port", port.to_string()),
        (None, None) => (),
    }
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
    let id = if container.id.is_empty() { String::new() } else { format!(" ({})", container.id) };
    put(text, "Container", format!("{}{id}", container.name));
    let restarts = many(container.restarts, "restart");
    put(text, "  State", format!("{}, attempt {}, {restarts}", container.state, container.attempt));
    match (container.image.as_str(), container.image_id.as_str()) {
        ("", "") => (),
        ("", id) => put(text, "  Image", format!("{id}, not that of the spec in force")),
        (name, id) => put(text, "  Image", format!("{name} ({})", short(id))),
    }
    let started = container
        .started_at
        .map_or(String::new(), |at| format!("{} ({} ago)", moment(at), age(Some(at), now)));
    if !started.is_empty() {
        put(text, "  Started", started);
    }
    if let Some(end) = &container.last_termination {
        let code = end.exit_code.map_or(String::new(), |code| format!(", exit code {code}"));
        let at = end.finished_at.map_or(String::new(), |at| format!(", {}", moment(at)));
        put(text, "  Last end", format!("{}{code}{at}", end.reason));
    }
}

fn usage(text: &mut String, top: Option<&TopView>) {
    let Some(top) = top else { return };
    if let Some(usage) = &top.usage {
        let limit = match usage.memory_limit_bytes {
            0 => String::new(),
            limit => format!(" of {}", size(limit)),
        };
        let memory = format!("{}{limit}", size(usage.memory_bytes));
        put(text, "Uses", format!("{:.2} % of a core, {memory} of memory", usage.cpu_percent));
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
    put(text, "Files", format!("{} ({} here, {} lazy)", files.total, files.local, files.lazy));
    let mut odd = Vec::new();
    if files.unsynced > 0 {
        odd.push(format!("{} not stored ({})", files.unsynced, size(files.unsynced_bytes)));
    }
    if files.skipped > 0 {
        odd.push(format!("{} skipped", files.skipped));
    }
    if files.conflicts > 0 {
        odd.push(format!("{} in conflict", files.conflicts));
    }
    if !odd.is_empty() {
        put(text, "  Of them", odd.join(", "));
    }
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

/// The conditions that are worth a line, as a table.
pub(super) fn conditions(look: Look, view: &SessionView, now: Timestamp) -> String {
    let rows: Vec<Vec<Cell>> = view
        .status
        .conditions
        .iter()
        .filter(|condition| !is_fine(condition))
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
    columns(look, &["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], &rows)
}

/// `sha256:` and twelve digits.
fn short(id: &str) -> &str {
    id.get(..19).unwrap_or(id)
}
