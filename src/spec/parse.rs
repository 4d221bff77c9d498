//! Text to objects. A document is either taken whole or complained about; nothing is guessed.
//!
//! 1. The text is judged as text: size, UTF-8, anchors, nesting.
//! 2. Each document is read three times from one pass of the parser each: for its kind, for its
//!    typed form (whose errors carry line and column), and as plain JSON to keep.

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::fmt;

use super::complain::{Complaint, message_of};
use super::wire::{ClassDoc, Kind, SessionDoc, SessionMeta, SessionSpec};
use super::{Located, Object, Parsed};
use super::{further, scan};
use crate::model::{CaseName, ClassName, ClassObject, SessionName, SessionObject, UserName};

/// Largest file.
pub const FILE_MAX: usize = 64 * 1024;

/// Documents with more complaints before them are read up to their first fault only.
const COMPLAINTS_MAX: usize = 50;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, several documents.
    Yaml,
    /// One JSON value.
    Json,
}

/// Parses one file; how it is written is told by its name, else by its contents.
pub fn parse_file(path_shown: &str, text: &[u8]) -> Parsed {
    let json = match path_shown.rsplit_once('.') {
        Some((_, "json")) => true,
        Some((_, "yaml" | "yml")) => false,
        _ => serde_json::from_slice::<IgnoredAny>(text).is_ok(),
    };
    parse_as(path_shown, text, if json { Format::Json } else { Format::Yaml })
}

/// Parses one text.
pub fn parse_as(path_shown: &str, text: &[u8], format: Format) -> Parsed {
    let mut reader = Reader { file: path_shown, parsed: Parsed::default() };
    if let Err((line, column, message)) = reader.read(text, format) {
        reader.complain(line, column, message);
    }
    reader.parsed
}

/// Where a field of a document stands, e.g. `spec.container.image` of the document 0: line and
/// column of its value, and whether it is there; if not, of the map where it would be.
pub fn place_of(
    path_shown: &str,
    text: &str,
    document: usize,
    field: &str,
) -> (usize, usize, bool) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = matches!(path_shown.rsplit_once('.'), Some((_, "json")));
    let json = is_json.then(|| as_yaml(text).ok()).flatten();
    let text = json.as_deref().unwrap_or(text);
    let parts: Vec<&str> = field.split('.').collect();
    let found = Cell::new(false);
    let seek = Seek { parts: &parts, found: &found };
    let document = serde_yaml::Deserializer::from_str(text).nth(document);
    let place = document.and_then(|document| seek.deserialize(document).err()?.location());
    place.map_or((1, 1, false), |place| (place.line(), place.column(), found.get()))
}

/// Fails on purpose where a field stands: only the parser's errors know line and column.
struct Seek<'a> {
    parts: &'a [&'a str],
    found: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.found.set(self.parts.is_empty());
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("to be elsewhere")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        if let [first, rest @ ..] = self.parts {
            while let Some(key) = access.next_key::<serde_yaml::Value>()? {
                if key.as_str() == Some(first) {
                    access.next_value_seed(Seek { parts: rest, found: self.found })?;
                } else {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Err(de::Error::custom("here"))
    }
}

struct Reader<'a> {
    file: &'a str,
    parsed: Parsed,
}

type Stop = (usize, usize, String);

impl Reader<'_> {
    fn complain(&mut self, line: usize, column: usize, message: String) {
        self.parsed.complaints.push(Complaint {
            file: self.file.to_owned(),
            line,
            column,
            message,
        });
    }

    fn read(&mut self, bytes: &[u8], format: Format) -> Result<(), Stop> {
        if bytes.len() > FILE_MAX {
            let message = format!("the file has {} bytes, at most 64 KiB are read", bytes.len());
            return Err((1, 1, message));
        }
        let text = utf8(bytes)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            // More often a write that was cut than a wish that its sessions end.
            return Err((1, 1, "the file is empty: remove it if its objects are to go".to_owned()));
        }
        let text = match format {
            Format::Yaml => text.to_owned(),
            Format::Json => as_yaml(text)?,
        };
        scan::check(&text).map_err(|trouble| (trouble.line, trouble.column, trouble.message))?;
        self.documents(&text)
    }

    fn documents(&mut self, text: &str) -> Result<(), Stop> {
        let mut typed = serde_yaml::Deserializer::from_str(text);
        let mut plain = serde_yaml::Deserializer::from_str(text);
        for (document, head) in serde_yaml::Deserializer::from_str(text).enumerate() {
            // The iterator repeats a syntax error for ever: the first one ends it.
            let head = Head::deserialize(head).map_err(|error| stop(&error))?;
            let (Some(typed), Some(plain)) = (typed.next(), plain.next()) else { break };
            let object = match head {
                Head::Empty => continue,
                Head::Of(Kind::Session) => {
                    SessionDoc::deserialize(typed).and_then(|doc| session(doc, plain))
                }
                Head::Of(Kind::SessionClass) => {
                    ClassDoc::deserialize(typed).and_then(|doc| class(&doc, plain))
                }
            };
            match object {
                Ok(object) => self.parsed.objects.push(Located { object, document }),
                Err(error) => {
                    self.complaints(&error, text, document, head);
                }
            }
        }
        Ok(())
    }

    /// The fault that ended the reading of a document, and those after it.
    fn complaints(&mut self, first: &serde_yaml::Error, text: &str, document: usize, head: Head) {
        let mut told = vec![stop(first)];
        if self.parsed.complaints.len() < COMPLAINTS_MAX {
            let again = || serde_yaml::Deserializer::from_str(text).nth(document);
            let more = match head {
                Head::Empty => Vec::new(),
                Head::Of(Kind::Session) => further::faults::<SessionDoc, _>(again),
                Head::Of(Kind::SessionClass) => further::faults::<ClassDoc, _>(again),
            };
            told.extend(more.iter().map(stop));
        }
        told.sort();
        told.dedup();
        // What is misspelt is missing too: that is said by the nearest name.
        let meant = |name: &str, told: &[Stop]| {
            let end = format!("did you mean `{name}`?");
            told.iter().any(|(_, _, message)| message.ends_with(&end))
        };
        let whole = told.clone();
        told.retain(|(_, _, message)| {
            let missing = message.split_once("missing field `").map(|(_, rest)| rest);
            let name = missing.and_then(|rest| rest.split('`').next());
            name.is_none_or(|name| !meant(name, &whole))
        });
        for (line, column, message) in told {
            self.complain(line, column, message);
        }
    }
}

fn stop(error: &serde_yaml::Error) -> Stop {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    (line, column, message_of(error))
}

fn utf8(bytes: &[u8]) -> Result<&str, Stop> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = good.split(|byte| *byte == b'\n').count();
        let last = good.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        (line, String::from_utf8_lossy(last).chars().count() + 1, "not UTF-8".to_owned())
    })
}

/// JSON that the YAML parser reads to the same values: it knows no surrogate pairs, no tab
/// indentation and fewer raw characters.
fn as_yaml(text: &str) -> Result<String, Stop> {
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
        return Err((error.line().max(1), error.column().max(1), message));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((pair, after)) = surrogates(rest) {
            out.push(pair);
            rest = after;
            continue;
        }
        let whole = if c == '\\' {
            1 + rest[1..].chars().next().map_or(0, char::len_utf8)
        } else {
            c.len_utf8()
        };
        match c {
            '\t' => out.push(' '),
            // These are breaks or refused in YAML; in JSON they stand in strings only.
            '\u{7f}'..='\u{9f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{fffe}'
            | '\u{ffff}'
            | '\u{feff}' => {
                out.extend(["\\u", format!("{:04x}", u32::from(c)).as_str()]);
            }
            _ => out.push_str(&rest[..whole]),
        }
        rest = &rest[whole..];
    }
    Ok(out)
}

/// `\ud83d\ude00` at the start, as the character it means.
fn surrogates(text: &str) -> Option<(char, &str)> {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let high = unit(text)?;
    let low = unit(text.get(6..)?)?;
    let pair = char::decode_utf16([high, low]).next()?.ok()?;
    (0xd800..0xdc00).contains(&high).then_some((pair, text.get(12..)?))
}

/// The kind of a document, before it is read as one.
enum Head {
    Empty,
    Of(Kind),
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeadVisitor)
    }
}

struct HeadVisitor;

impl<'de> Visitor<'de> for HeadVisitor {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with apiVersion, kind, metadata and spec")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Head, E> {
        Ok(Head::Empty)
    }

    fn visit_none<E: de::Error>(self) -> Result<Head, E> {
        Ok(Head::Empty)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Head, A::Error> {
        let mut kind = None;
        while let Some(key) = access.next_key::<serde_yaml::Value>()? {
            if key.as_str() == Some("kind") && kind.is_none() {
                kind = Some(access.next_value()?);
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        kind.map(Head::Of).ok_or_else(|| de::Error::missing_field("kind"))
    }
}

fn session(
    doc: SessionDoc,
    plain: serde_yaml::Deserializer<'_>,
) -> Result<Object, serde_yaml::Error> {
    let mut raw = serde_json::Value::deserialize(plain)?;
    let SessionDoc { metadata: SessionMeta { name, labels, annotations, .. }, spec, .. } = doc;
    let SessionSpec { user, case, class, state, suspend, .. } = spec;
    let name = match name {
        Some(name) => name.0,
        None => derived_name(&user.0, &case.0).map_err(<serde_yaml::Error as de::Error>::custom)?,
    };
    let class = match class {
        Some(class) => class.0,
        None => ClassName::parse("default").map_err(<serde_yaml::Error as de::Error>::custom)?,
    };
    tidy(&mut raw, Some(name.as_str()));
    let hash = hash_of(&raw, &["state", "suspend"]);
    let texts = |map: super::value::Map<
        super::text::Key,
        super::value::Text<super::text::Plain>,
    >| { map.0.into_iter().map(|(key, value)| (key.0, value.0.0)).collect() };
    Ok(Object::Session(SessionObject {
        name,
        labels: labels.map(texts).unwrap_or_default(),
        annotations: annotations.map(|all| texts(all.0)).unwrap_or_default(),
        user: user.0,
        case: case.0,
        class,
        state: state.unwrap_or_default(),
        suspend: suspend.unwrap_or_default(),
        raw,
        hash,
    }))
}

fn class(doc: &ClassDoc, plain: serde_yaml::Deserializer<'_>) -> Result<Object, serde_yaml::Error> {
    let mut raw = serde_json::Value::deserialize(plain)?;
    tidy(&mut raw, None);
    let hash = hash_of(&raw, &[]);
    Ok(Object::Class(ClassObject { name: doc.metadata.name.0.clone(), raw, hash }))
}

/// Takes out what only docket prints, and fills in the name.
fn tidy(raw: &mut serde_json::Value, name: Option<&str>) {
    let Some(object) = raw.as_object_mut() else { return };
    object.remove("status");
    let metadata = object.entry("metadata").or_insert_with(|| serde_json::json!({}));
    if metadata.is_null() {
        *metadata = serde_json::json!({});
    }
    let Some(metadata) = metadata.as_object_mut() else { return };
    for printed in ["uid", "generation", "creationTimestamp", "deletionTimestamp"] {
        metadata.remove(printed);
    }
    if let Some(name) = name {
        metadata.insert("name".to_owned(), name.into());
    }
}

/// sha256 of the canonical JSON of `spec`, without the fields named and without nulls.
fn hash_of(raw: &serde_json::Value, without: &[&str]) -> String {
    let mut spec = raw.get("spec").cloned().unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|key, _| !without.contains(&key.as_str()));
    }
    let mut text = String::new();
    canonical(&spec, &mut text);
    hex(&Sha256::digest(text.as_bytes()))
}

/// JSON with sorted keys and without nulls, so that the order of writing means nothing.
fn canonical(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Object(fields) => {
            let mut all: Vec<_> = fields.iter().filter(|(_, value)| !value.is_null()).collect();
            all.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in all {
                out.push_str(&serde_json::Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        serde_json::Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Longest part of a derived name before its digest.
const DERIVED_MAX: usize = 41;

/// `{user}-{case}` cleaned. Where two pairs could come to the same text (something was cleaned
/// or cut, or a part holds the `-` that joins them), 10 hex digits of sha256(user NUL case)
/// keep them apart.
fn derived_name(user: &UserName, case: &CaseName) -> Result<SessionName, String> {
    let plain = format!("{user}-{case}");
    let cleaned: String = plain
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(DERIVED_MAX)
        .collect();
    let cleaned = cleaned.trim_matches('-');
    let ambiguous = user.as_str().contains('-') || case.as_str().contains('-');
    let name = if cleaned == plain && !ambiguous {
        plain
    } else {
        let digest = Sha256::digest(format!("{user}\0{case}").as_bytes());
        format!("{cleaned}-{}", hex(digest.get(..5).unwrap_or_default()))
    };
    SessionName::parse(&name).map_err(|bad| bad.to_string())
}
