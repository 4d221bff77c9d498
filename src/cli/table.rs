//! Columns as kubectl draws them, and words for sizes and times.

use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};

use crate::model::{Phase, Timestamp};
use crate::status::SessionView;

use super::output::clean;

/// How a table may look where it is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether it may have colours.
    pub color: bool,
    /// Columns of the terminal; `None`: as many as it takes.
    pub width: Option<usize>,
}

impl Look {
    /// Whether a table fits as it is.
    pub(super) fn fits(self, head: &[&str], rows: &[Vec<Cell>]) -> bool {
        self.width.is_none_or(|width| Widths::of(head, rows).fitted(width).is_none())
    }

    /// What is left beside an indentation.
    pub(super) fn indented(self, by: usize) -> Look {
        Look { width: self.width.map(|width| width.saturating_sub(by)), ..self }
    }
}

/// Between two columns, where they do not fit, and where they still do not.
const GAP: usize = 3;
const NARROW_GAP: usize = 2;
const CLOSE_GAP: usize = 1;
/// What a column keeps at least, where a table does not fit.
const LEAST: usize = 12;
/// The same for one of words, which goes on in the next line.
const LEAST_WORDS: usize = 24;
/// What the names of these columns keep at least, where nothing else helps: a session's own name
/// has them as a rule.
const LEAST_TIGHT: usize = 6;
const TIGHT: [&str; 2] = ["USER", "CASE"];
/// The same of a session's name: its beginning, and the digits at its end that tell it from others.
const LEAST_NAME: usize = 20;
/// The end of a name that is cut.
const NAME_END: usize = 8;
/// The heading of names of sessions.
const NAME: &str = "NAME";

/// Rows under headings, without lines; ends with a newline. Where they do not fit, words go on in
/// the next line and other texts are cut, but not those of the first column, which are names to be
/// used. Names of sessions are, in their middle, where the rest would not fit else.
pub(super) fn columns(look: Look, head: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if look.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(head.iter().copied());
    let wide = Widths::of(head, rows);
    let fitted = look.width.and_then(|width| wide.fitted(width));
    let gap = fitted.as_ref().map_or(GAP, |(gap, _)| *gap);
    let fitted = fitted.map(|(_, to)| to);
    let shown = rows.iter().map(|row| match &fitted {
        None => row.clone(),
        Some(to) => row
            .iter()
            .zip(to)
            .zip(&wide.words)
            .zip(0..)
            .map(|(((c, to), words), at)| cut(c, *to, *words, at == 0))
            .collect(),
    });
    table.add_rows(shown);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, gap as u16));
        if let (Some(to), Some(true)) = (&fitted, wide.words.get(at)) {
            let to = to.get(at).copied().unwrap_or(LEAST) + gap;
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(to as u16)));
        }
    }
    if fitted.is_some() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::MAX);
    }
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// How wide columns are, in characters.
#[derive(Debug, Default)]
struct Widths {
    natural: Vec<usize>,
    least: Vec<usize>,
    /// The same, where nothing else helps; and then with names of sessions cut, too.
    tight: Vec<usize>,
    named: Vec<usize>,
    /// Whether a column holds sentences.
    words: Vec<bool>,
}

impl Widths {
    fn of(head: &[&str], rows: &[Vec<Cell>]) -> Widths {
        let mut all = Widths::default();
        for (at, heading) in head.iter().enumerate() {
            let texts = || rows.iter().filter_map(|row| Some(row.get(at)?.content()));
            let title = heading.chars().count();
            let natural = texts().map(|text| text.chars().count()).max().unwrap_or(0).max(title);
            let words = texts().any(|text| text.split(' ').count() > 3);
            let least = if words { LEAST_WORDS } else { LEAST }.max(title).min(natural);
            all.natural.push(natural);
            all.words.push(words);
            let is_tight = TIGHT.contains(heading) && !words;
            let tight = if is_tight { LEAST_TIGHT.min(natural) } else { least };
            let name = if *heading == NAME { LEAST_NAME.min(natural) } else { natural };
            let first = |other: usize| if at == 0 { natural } else { other };
            all.least.push(first(least));
            all.tight.push(first(tight));
            all.named.push(if at == 0 { name } else { tight });
        }
        all
    }

    /// The gap and the widths that fit; `None`: they fit as they are. First texts are cut, the
    /// widest first, then columns move closer, then users and cases are cut further, and at last
    /// the names of sessions.
    fn fitted(&self, width: usize) -> Option<(usize, Vec<usize>)> {
        let gaps = self.natural.len().saturating_sub(1);
        if self.natural.iter().sum::<usize>() + GAP * gaps <= width {
            return None;
        }
        let mut last = (CLOSE_GAP, Vec::new());
        for (gap, from, least) in [
            (NARROW_GAP, &self.natural, &self.least),
            (CLOSE_GAP, &self.natural, &self.least),
            (CLOSE_GAP, &self.natural, &self.tight),
            (CLOSE_GAP, &self.tight, &self.named),
        ] {
            let to = shrunk(from, least, width.saturating_sub(gap * gaps));
            let fits = to.iter().sum::<usize>() + gap * gaps <= width;
            last = (gap, to);
            if fits {
                break;
            }
        }
        Some(last)
    }
}

/// Widths of no more than `width` together, if that can be with so much for each.
fn shrunk(natural: &[usize], least: &[usize], width: usize) -> Vec<usize> {
    let mut to = natural.to_vec();
    while to.iter().sum::<usize>() > width {
        let shrinkable = (0..to.len()).filter(|at| to[*at] > least[*at]);
        let Some(widest) = shrinkable.max_by_key(|at| to[*at]) else { break };
        to[widest] -= 1;
    }
    to
}

/// A cell that is no wider than it may be.
fn cut(cell: &Cell, to: usize, words: bool, first: bool) -> Cell {
    let text = cell.content();
    let length = text.chars().count();
    if words || length <= to {
        return cell.clone();
    }
    let end = if first { NAME_END.min(to / 2) } else { 0 };
    let begin: String = text.chars().take(to.saturating_sub(end + 1)).collect();
    let end: String = text.chars().skip(length - end).collect();
    Cell::new(format!("{begin}\u{2026}{end}"))
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
