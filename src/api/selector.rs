//! Label selectors as text: `a=b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a`, `!a`.

use std::collections::BTreeMap;

use crate::operator::handle::{Selector, Term};
use crate::status::SessionView;

/// A selector that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a selector: expected a=b, a!=b, a in (x,y), a notin (x,y), a or !a", term.escape_debug())]
pub struct BadSelector {
    /// The part that is wrong.
    pub term: String,
}

/// Reads a selector.
///
/// # Errors
/// [`BadSelector`] names the first part that is wrong.
pub fn parse_selector(text: &str) -> Result<Selector, BadSelector> {
    if text.trim().is_empty() {
        return Ok(Selector::default());
    }
    split(text).into_iter().map(|part| term(part.trim())).collect::<Result<_, _>>().map(Selector)
}

/// At commas that are not in parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => (),
        }
    }
    parts.push(&text[start..]);
    parts
}

fn term(text: &str) -> Result<Term, BadSelector> {
    let bad = || BadSelector { term: text.to_owned() };
    if let Some(set) = text.strip_suffix(')') {
        let (head, values) = set.split_once('(').ok_or_else(bad)?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if values.iter().any(|value| !is_value(value)) {
            return Err(bad());
        }
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) if is_key(key) => Ok(Term::In(key.to_owned(), values)),
            (Some(key), Some("notin"), None) if is_key(key) => {
                Ok(Term::NotIn(key.to_owned(), values))
            }
            _ => Err(bad()),
        };
    }
    let pair = |key: &str, value: &str| {
        let (key, value) = (key.trim(), value.trim());
        (is_key(key) && is_value(value)).then(|| (key.to_owned(), vec![value.to_owned()]))
    };
    if let Some((key, value)) = text.split_once("!=") {
        return pair(key, value).map(|(key, values)| Term::NotIn(key, values)).ok_or_else(bad);
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return pair(key, value).map(|(key, values)| Term::In(key, values)).ok_or_else(bad);
    }
    match text.strip_prefix('!').map(str::trim) {
        Some(key) if is_key(key) => Ok(Term::HasNot(key.to_owned())),
        None if is_key(text) => Ok(Term::Has(text.to_owned())),
        _ => Err(bad()),
    }
}

fn is_key(text: &str) -> bool {
    (1..=317).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

fn is_value(text: &str) -> bool {
    text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
}

/// What a selector looks at: the labels, and user and case as if they were labels.
pub fn selectable(view: &SessionView) -> BTreeMap<String, String> {
    let mut labels = view.metadata.labels.clone();
    for key in ["user", "case"] {
        if let Some(value) = view.spec.get(key).and_then(serde_json::Value::as_str) {
            labels.insert(key.to_owned(), value.to_owned());
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::parse_selector;

    fn chosen(selector: &str) -> Vec<&'static str> {
        let selector = parse_selector(selector).unwrap();
        let worlds = [("a", "team=red user=ann"), ("b", "team=blue"), ("c", "")];
        let labels = |text: &str| {
            text.split_whitespace()
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        worlds
            .into_iter()
            .filter(|(_, text)| selector.matches(&labels(text)))
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn selectors_choose_as_kubectl_does() {
        assert_eq!(chosen(""), ["a", "b", "c"]);
        assert_eq!(chosen("team=red"), ["a"]);
        assert_eq!(chosen("team==red"), ["a"]);
        assert_eq!(chosen("team!=red"), ["b", "c"]);
        assert_eq!(chosen("team in (red, blue)"), ["a", "b"]);
        assert_eq!(chosen("team notin (red)"), ["b", "c"]);
        assert_eq!(chosen("team"), ["a", "b"]);
        assert_eq!(chosen("!team"), ["c"]);
        assert_eq!(chosen("team in (red,blue),user=ann"), ["a"]);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for bad in ["=x", "a=b c", "a in x", "a in (x", "!", "a,,b", "a within (x)", "a=(b)"] {
            assert!(parse_selector(bad).is_err(), "{bad}");
        }
    }
}
