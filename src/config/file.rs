//! Reads `docket.yaml`: only the keys there are, each complaint with its line and column.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::keys::{Key, find, names_below};
use super::{Config, ConfigError, Raw};

/// The values of a file, each acceptable.
type Found = Vec<(&'static Key, Raw)>;

/// Reads the text of a file.
pub(super) fn parse(file: &str, text: &str) -> Result<Found, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    // Nothing, or comments only: not even a null for the parser.
    let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    if !text.lines().any(says) {
        return Ok(found);
    }
    let deserializer = serde_yaml::Deserializer::from_str(text);
    match (Section { path: String::new(), found: &mut found }).deserialize(deserializer) {
        Ok(()) => Ok(found),
        Err(error) => {
            let (line, column) =
                error.location().map_or((1, 1), |place| (place.line(), place.column()));
            let message = bare(&error.to_string(), line, column);
            Err(ConfigError::InFile { file: file.to_owned(), line, column, message })
        }
    }
}

/// The message without the place that serde_yaml puts behind it and the path before it.
fn bare(text: &str, line: usize, column: usize) -> String {
    let text = text.replace(&format!(" at line {line} column {column}"), "");
    match text.split_once(MARK) {
        Some((_, said)) => said.to_owned(),
        None => text,
    }
}

/// Stands before what we say ourselves, so that it can be told from what serde_yaml adds.
const MARK: &str = "\u{1}";

fn complain<E: serde::de::Error>(message: impl fmt::Display) -> E {
    E::custom(format_args!("{MARK}{message}"))
}

/// A map below a path.
struct Section<'a> {
    path: String,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for Section<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Section<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = names_below(&self.path).join(", ");
        match self.path.as_str() {
            "" => write!(f, "a map of keys ({names})"),
            path => write!(f, "a map for `{path}` ({names})"),
        }
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(next) = map.next_key_seed(Name { section: &self.path, seen: &mut seen })? {
            match next {
                Next::Key(key) => {
                    if let Some(raw) = map.next_value_seed(Value(key))? {
                        self.found.push((key, raw));
                    }
                }
                Next::Section(path) => {
                    map.next_value_seed(Section { path, found: self.found })?;
                }
            }
        }
        Ok(())
    }
}

enum Next {
    Key(&'static Key),
    Section(String),
}

/// A key of a map, checked where it stands.
struct Name<'a> {
    section: &'a str,
    seen: &'a mut BTreeSet<String>,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Next;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Next, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Next;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a key")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Next, E> {
        if !self.seen.insert(name.to_owned()) {
            return Err(complain(format_args!("`{name}` stands here twice")));
        }
        let path = match self.section {
            "" => name.to_owned(),
            section => format!("{section}.{name}"),
        };
        let names = names_below(self.section);
        if !names.contains(&name) {
            return Err(complain(unknown(name, self.section, &names)));
        }
        Ok(find(&path).map_or(Next::Section(path), Next::Key))
    }
}

fn unknown(name: &str, section: &str, names: &[&str]) -> String {
    let name = name.escape_debug();
    let place = if section.is_empty() { String::new() } else { format!(" in `{section}`") };
    match super::value::nearest(&name.to_string(), names) {
        Some(near) => format!("unknown key `{name}`{place}: did you mean `{near}`?"),
        None => format!("unknown key `{name}`{place}: expected one of {}", names.join(", ")),
    }
}

/// The value of a key, checked where it stands.
struct Value(&'static Key);

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<Raw>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Raw>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value {
    fn checked<E: serde::de::Error>(&self, raw: Raw) -> Result<Option<Raw>, E> {
        // Paths do not matter to whether a value is acceptable.
        let mut scratch = Config::defaults(std::path::Path::new("/"));
        match scratch.assign(self.0, &raw, std::path::Path::new("/")) {
            Ok(()) => Ok(Some(raw)),
            Err(message) => Err(complain(format_args!("{}: {message}", self.0.path))),
        }
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Option<Raw>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            super::Kind::Many(word) => write!(f, "a list of {word} for `{}`", self.0.path),
            super::Kind::One(word) => write!(f, "{word} for `{}`", self.0.path),
            super::Kind::Switch => write!(f, "true or false for `{}`", self.0.path),
        }
    }

    fn visit_unit<E>(self) -> Result<Option<Raw>, E> {
        Ok(None)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Option<Raw>, E> {
        self.checked(Raw::Scalar(value.to_string()))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Option<Raw>, E> {
        self.checked(Raw::Scalar(value.to_string()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Option<Raw>, E> {
        self.checked(Raw::Scalar(value.to_string()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Option<Raw>, E> {
        self.checked(Raw::Scalar(value.to_string()))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Option<Raw>, E> {
        self.checked(Raw::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Raw>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<String>()? {
            items.push(item);
        }
        self.checked(Raw::List(items))
    }
}
