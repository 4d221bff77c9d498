//! Where data and talk go, and what may not reach a terminal.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::model::is_sly;

use super::table::Look;

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Names, one a line
    Name,
}

/// The two outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    /// How a table on stdout may look.
    pub look: Look,
}

impl Out {
    pub(super) fn new(no_color: bool) -> Out {
        let wanted = !no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let able = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let terminal = io::stdout().is_terminal();
        let width = comfy_table::Table::new().width().filter(|width| terminal && *width > 0);
        let color = wanted && able && terminal;
        Out { look: Look { color, width: width.map(usize::from) } }
    }

    /// Data.
    #[expect(clippy::unused_self, reason = "who has the outputs may write")]
    pub(super) fn data(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Talk; nobody has to hear it.
    #[expect(clippy::unused_self, reason = "who has the outputs may write")]
    pub(super) fn talk(self, text: &str) {
        let _nobody_reads = writeln!(io::stderr(), "{}", clean(text));
    }

    /// Data as JSON or YAML.
    pub(super) fn value(self, format: Format, value: &impl Serialize) -> io::Result<()> {
        self.data(&render(format, value)?)
    }
}

/// A value as JSON or YAML, ending with a newline.
pub(super) fn render(format: Format, value: &impl Serialize) -> io::Result<String> {
    let text = match format {
        Format::Yaml => serde_yaml::to_string(value).map_err(io::Error::other)?,
        _ => serde_json::to_string_pretty(value).map_err(io::Error::other)? + "\n",
    };
    Ok(harmless(text))
}

/// A value as one line of JSON.
pub(super) fn line(value: &impl Serialize) -> io::Result<String> {
    Ok(harmless(serde_json::to_string(value).map_err(io::Error::other)? + "\n"))
}

/// JSON and YAML escape the first control bytes themselves; DEL and the C1 range, which
/// terminals obey too, are written in the way that both read.
fn harmless(text: String) -> String {
    let escaped = |c: char| !c.is_ascii_control() && is_sly(c) || c == '\u{7f}';
    if !text.chars().any(escaped) {
        return text;
    }
    text.chars()
        .map(|c| if escaped(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
        .collect()
}

/// Text on one line that does nothing to a terminal.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_sly(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for a text of several lines.
pub(super) fn clean_lines(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::{Format, clean, render};

    #[test]
    fn nothing_that_a_terminal_obeys_gets_out() {
        assert_eq!(clean("a\u{1b}[2Jb\n\u{9b}c\u{202e}d"), r"a\u{1b}[2Jb\n\u{9b}c\u{202e}d");
        let text = render(Format::Json, &"\u{1b}\u{9b}\u{7f}").unwrap();
        assert_eq!(text, "\"\\u001b\\u009b\\u007f\"\n");
        let back: String = serde_json::from_str(&text).unwrap();
        assert_eq!(back, "\u{1b}\u{9b}\u{7f}");
    }

    #[test]
    fn yaml_can_be_read_back() {
        let odd = "\u{1b}\u{9b}\u{7f} \u{202e}: x";
        let text = render(Format::Yaml, &serde_json::json!({ "a": odd })).unwrap();
        let back: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(back["a"], odd, "{text}");
    }
}
