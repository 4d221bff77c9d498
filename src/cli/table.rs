//! Columns as kubectl draws them, and words for sizes and times.

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};

use crate::model::{Phase, Timestamp};
use crate::status::SessionView;

use super::output::clean;

/// Rows under headings, without lines; ends with a newline.
pub(super) fn columns(color: bool, head: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(head.iter().copied());
    table.add_rows(rows.iter().cloned());
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A cell of text.
pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(clean(text.as_ref()))
}

/// The phase in its colour.
pub(super) fn phase(phase: Phase) -> Cell {
    let cell = Cell::new(phase.to_string());
    match phase {
        Phase::Running => cell.fg(Color::Green),
        Phase::CrashLoop | Phase::Rejected | Phase::Failed => cell.fg(Color::Red),
        Phase::Degraded | Phase::Restarting | Phase::Unknown => cell.fg(Color::Yellow),
        Phase::Pending | Phase::Preparing | Phase::Starting | Phase::Updating => {
            cell.fg(Color::Cyan)
        }
        Phase::Suspended | Phase::Stopped | Phase::Terminating => cell.fg(Color::DarkGrey),
    }
}

/// A text of the object's spec; `-` if it has none.
pub(super) fn said(view: &SessionView, key: &str) -> String {
    view.spec.get(key).and_then(serde_json::Value::as_str).unwrap_or("-").to_owned()
}

/// Time passed, as kubectl says it: `12s`, `5m`, `3h10m`, `4d`.
pub(super) fn age(from: Option<Timestamp>, now: Timestamp) -> String {
    match from {
        Some(from) => span(now.signed_duration_since(from).num_seconds()),
        None => "-".to_owned(),
    }
}

/// A number of seconds in at most two units.
pub(super) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let two = |first: i64, unit: char, second: i64, smaller: char| match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit}{second}{smaller}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / 60, 'm', seconds % 60, 's'),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..28_800 => two(seconds / 3600, 'h', seconds / 60 % 60, 'm'),
        28_800..172_800 => format!("{}h", seconds / 3600),
        172_800..691_200 => two(seconds / 86_400, 'd', seconds / 3600 % 24, 'h'),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in the largest unit that leaves at least one.
pub(super) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Now.
pub(super) fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the shell: ages are about this moment")]
    chrono::Utc::now()
}

/// A moment, to the second.
pub(super) fn moment(at: Timestamp) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
