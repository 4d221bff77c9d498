//! What a parser says, made into what a person needs: where it is, what is wrong, what was
//! probably meant.

use std::fmt;

use super::text::shown;

/// What is wrong with a file, and where. Prints as `file:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// The file as the user named it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// One line.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.escape_debug();
        write!(f, "{file}:{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Longest message; a parser may quote a whole file.
const LONGEST: usize = 600;

/// What the parser says, with the place taken out and the nearest name put in.
pub(super) fn message_of(error: &serde_yaml::Error) -> String {
    let mut text = error.to_string();
    if let Some(location) = error.location() {
        let place = format!(" at line {} column {}", location.line(), location.column());
        text = text.replacen(&place, "", 1);
    }
    reworded(&text).chars().take(LONGEST).flat_map(escaped).collect()
}

fn escaped(c: char) -> Vec<char> {
    if c.is_control() { c.escape_debug().collect() } else { vec![c] }
}

fn reworded(text: &str) -> String {
    if let Some((path, name, known)) = unknown(text, "unknown field `") {
        let place = if path.is_empty() { "the object".to_owned() } else { path };
        return format!("unknown field `{}` in {place}{}", shown(&name), suggestion(&name, &known));
    }
    if let Some((path, name, known)) = unknown(text, "unknown variant `") {
        let place = if path.is_empty() { path } else { format!("{path}: ") };
        let all: Vec<String> = known.iter().map(|one| format!("`{one}`")).collect();
        let near = nearest(&name, known.iter().copied())
            .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
        return format!("{place}`{}` is not one of {}{near}", shown(&name), all.join(", "));
    }
    let scalar = ["integer `", "boolean `", "floating point `"];
    let is_scalar = scalar.iter().any(|kind| text.contains(&format!("invalid type: {kind}")));
    if is_scalar && text.ends_with("expected a string") {
        return format!("{text}: put it in quotes");
    }
    text.to_owned()
}

/// `{path}: unknown field `{name}`, expected one of `a`, `b`` taken apart.
fn unknown<'a>(text: &'a str, lead: &str) -> Option<(String, String, Vec<&'a str>)> {
    let at = text.find(lead)?;
    let path = text.get(..at)?.trim_end_matches([':', ' ']).to_owned();
    let rest = text.get(at + lead.len()..)?;
    let (name, expected) = match rest.rfind("`, expected ") {
        Some(end) => (rest.get(..end)?, rest.get(end + 2..)?),
        None => (rest.split('`').next()?, ""),
    };
    let known = expected.split('`').skip(1).step_by(2).collect();
    Some((path, name.to_owned(), known))
}

fn suggestion(name: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(name, known.iter().copied()) {
        return format!(", did you mean `{near}`?");
    }
    let all: Vec<String> = known.iter().map(|one| format!("`{one}`")).collect();
    if all.is_empty() { String::new() } else { format!(", expected one of {}", all.join(", ")) }
}

/// The known name that was probably meant, if any is near enough.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.to_lowercase().chars().take(80).collect();
    let reach = 1 + wanted.len() / 3;
    known
        .map(|one| (distance(&wanted, &one.to_lowercase().chars().collect::<Vec<_>>()), one))
        .filter(|(far, _)| *far <= reach)
        .min_by_key(|(far, _)| *far)
        .map(|(_, one)| one)
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut next = vec![row + 1];
        for (col, b) in right.iter().enumerate() {
            let at = |line: &[usize], col: usize| line.get(col).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&last, col) + usize::from(a != b))
                .min(at(&last, col + 1) + 1)
                .min(at(&next, col) + 1);
            let swapped =
                row > 0 && col > 0 && left.get(row - 1) == Some(b) && right.get(col - 1) == Some(a);
            if swapped {
                best = best.min(at(&before, col - 1) + 1);
            }
            next.push(best);
        }
        before = last;
        last = next;
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["image", "env", "health", "capDrop"];
        assert_eq!(nearest("imgae", known.into_iter()), Some("image"));
        assert_eq!(nearest("cap_drop", known.into_iter()), Some("capDrop"));
        assert_eq!(nearest("ENV", known.into_iter()), Some("env"));
        assert_eq!(nearest("privileged", known.into_iter()), None);
    }
}
