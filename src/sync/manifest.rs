//! Text of manifests and trees. What is read is checked before anything acts on it: whoever can
//! write to the bucket may have written it.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{ManifestEntry, RelPath, Sha256, Timestamp, Tree, escape_bytes};

use super::keys::{bare_path, check_key, shown};

/// Most entries of a manifest.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Most bytes of a manifest or tree that are read.
pub const MAX_BYTES: u64 = 512 << 20;

/// A manifest or tree that is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Not a JSON list.
    #[error("it is not a JSON list of files: {0}")]
    Json(String),
    /// One entry.
    #[error("entry {index} (`{path}`) is refused: {why}")]
    Entry {
        /// From 0.
        index: usize,
        /// Its logical path or what stands in its place, escaped.
        path: String,
        /// Which rule it breaks.
        why: String,
    },
    /// One entry whose key is none of this case.
    #[error(
        "`{path}` is refused: its storage_key `{key}` reads like a key of another case, and this \
         case has no such object: keys are relative to the case"
    )]
    Foreign {
        /// Its logical path, escaped.
        path: String,
        /// Its key, for people.
        key: String,
    },
    /// Over [`MAX_ENTRIES`].
    #[error("it has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// Over [`MAX_BYTES`].
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
}

/// One row as it is written.
#[derive(Serialize)]
struct Row<'a> {
    logical_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logical_path_b64: Option<String>,
    file_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    storage_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha256>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
}

/// The manifest's bytes: one row a line, sorted by path. The same files and tree give the same
/// bytes, and another tree gives other bytes: the white space at the end is the tree's sum, so
/// that `trees/{sha256 of the manifest}.json` never has to change.
pub fn render_manifest(files: &BTreeMap<RelPath, ManifestEntry>, tree: &Tree) -> Vec<u8> {
    let mut text = Vec::with_capacity(files.len() * 320 + 256);
    text.push(b'[');
    for (index, (path, entry)) in files.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        let lossy = String::from_utf8_lossy(path.as_bytes());
        let row = Row {
            logical_path: &lossy,
            logical_path_b64: path
                .to_str()
                .is_none()
                .then(|| BASE64_STANDARD.encode(path.as_bytes())),
            file_name: lossy.rsplit('/').next().unwrap_or(&lossy),
            size: entry.size,
            storage_key: &entry.storage_key,
            sha256: entry.sha256,
            mtime: entry.mtime_ns.map(time_text),
            mode: entry.mode.map(|mode| format!("{:04o}", mode & 0o777)),
        };
        // Writing plain strings and numbers to memory does not fail.
        let _ = serde_json::to_writer(&mut text, &row);
    }
    text.extend_from_slice(b"\n]\n");
    if *tree != Tree::default() {
        let sum = super::sum(&render_tree(tree));
        let bits = sum.0[..16].iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        text.extend(bits.map(|bit| if bit == 1 { b'\t' } else { b' ' }));
    }
    text
}

fn time_text(ns: i64) -> String {
    Timestamp::from_timestamp_nanos(ns).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

/// Reads a manifest, docket's own or one from elsewhere.
///
/// # Errors
/// [`BadManifest`] names the first entry that is refused: nothing of such a manifest is used.
pub fn parse_manifest(bytes: &[u8]) -> Result<BTreeMap<RelPath, ManifestEntry>, BadManifest> {
    parse_within(bytes, MAX_ENTRIES)
}

pub(super) fn parse_within(
    bytes: &[u8],
    most: usize,
) -> Result<BTreeMap<RelPath, ManifestEntry>, BadManifest> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(BadManifest::TooLarge);
    }
    let mut refused = None;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Rows { refused: &mut refused, most }.deserialize(&mut reader);
    if let Some(refused) = refused {
        return Err(refused);
    }
    let files = read.map_err(|error| BadManifest::Json(error.to_string()))?;
    reader.end().map_err(|error| BadManifest::Json(error.to_string()))?;
    check_paths(files.keys())?;
    Ok(files)
}

/// Rows one at a time, so that a huge list costs only what it says.
struct Rows<'a> {
    refused: &'a mut Option<BadManifest>,
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = BTreeMap<RelPath, ManifestEntry>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = BTreeMap<RelPath, ManifestEntry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
        let mut files = BTreeMap::new();
        let mut index = 0;
        let mut refuse = |why: BadManifest| {
            let text = why.to_string();
            *self.refused = Some(why);
            A::Error::custom(text)
        };
        while let Some(row) = rows.next_element::<Value>()? {
            if index >= self.most {
                return Err(refuse(BadManifest::TooMany));
            }
            let (path, entry) = parse_row(index, &row).map_err(&mut refuse)?;
            if files.insert(path.clone(), entry).is_some() {
                let why = "the path is there twice".to_owned();
                let path = path.to_string();
                return Err(refuse(BadManifest::Entry { index, path, why }));
            }
            index += 1;
        }
        Ok(files)
    }
}

fn parse_row(index: usize, row: &Value) -> Result<(RelPath, ManifestEntry), BadManifest> {
    let shown_path = match row.get("logical_path") {
        Some(Value::String(path)) => escape_bytes(path.as_bytes()),
        _ => row.to_string().chars().take(80).collect(),
    };
    let refuse = |why: String| BadManifest::Entry { index, path: shown_path.clone(), why };
    let Value::Object(row) = row else {
        return Err(refuse("it is not an object with logical_path and storage_key".to_owned()));
    };
    let field = |name: &str| row.get(name).filter(|value| !value.is_null());
    let text = |name: &'static str| match field(name) {
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(refuse(format!("{name} is not a string"))),
        None => Ok(None),
    };
    let logical = text("logical_path")?.ok_or_else(|| refuse("logical_path is missing".into()))?;
    let raw = match text("logical_path_b64")? {
        Some(b64) => BASE64_STANDARD
            .decode(b64)
            .map_err(|_| refuse("logical_path_b64 is not base64".to_owned()))?,
        None => logical.as_bytes().to_vec(),
    };
    let path = RelPath::parse(&raw).map_err(|bad| refuse(bad.why.to_owned()))?;
    let key = text("storage_key")?.ok_or_else(|| refuse("storage_key is missing".to_owned()))?;
    check_key(key).map_err(|bad| refuse(format!("storage_key `{}`: {bad}", shown(key))))?;
    let sha256 = match text("sha256")? {
        Some(hex) => Some(
            Sha256::parse(hex).ok_or_else(|| refuse("sha256 is not 64 hex digits".to_owned()))?,
        ),
        None => None,
    };
    let size = match field("size") {
        Some(value) => Some(
            value
                .as_u64()
                .filter(|size| i64::try_from(*size).is_ok())
                .ok_or_else(|| refuse("size is not a number of bytes".to_owned()))?,
        ),
        None => None,
    };
    let mtime_ns =
        field("mtime").map(|value| parse_time(value).ok_or_else(|| refuse(MTIME.into())));
    let mode = field("mode").map(|value| parse_mode(value).ok_or_else(|| refuse(MODE.into())));
    let entry = ManifestEntry {
        sha256,
        size,
        mode: mode.transpose()?,
        mtime_ns: mtime_ns.transpose()?,
        storage_key: key.to_owned(),
    };
    Ok((path, entry))
}

const MTIME: &str = "mtime is neither RFC 3339 nor seconds since 1970";
const MODE: &str = "mode is neither octal digits like \"0644\" nor a number up to 4095";

/// RFC 3339, or seconds since 1970 as a number.
fn parse_time(value: &Value) -> Option<i64> {
    if let Some(text) = value.as_str() {
        return Timestamp::parse_from_rfc3339_utc(text)?.timestamp_nanos_opt();
    }
    if let Some(seconds) = value.as_i64() {
        return seconds.checked_mul(1_000_000_000);
    }
    let ns = value.as_f64()? * 1e9;
    (ns.abs() < 9.2e18).then_some(ns as i64)
}

trait FromRfc3339: Sized {
    fn parse_from_rfc3339_utc(text: &str) -> Option<Self>;
}

impl FromRfc3339 for Timestamp {
    fn parse_from_rfc3339_utc(text: &str) -> Option<Timestamp> {
        chrono::DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
    }
}

/// Permission bits: octal digits as text, or the number itself. What is above 0o777 is dropped.
fn parse_mode(value: &Value) -> Option<u32> {
    let mode = match value.as_str() {
        Some(text) => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            u64::from_str_radix(digits, 8).ok()?
        }
        None => value.as_u64()?,
    };
    (mode <= 0o177_777).then_some(mode as u32 & 0o777)
}

/// A row whose key is none of this case.
pub fn foreign_row(path: &RelPath, key: &str) -> BadManifest {
    BadManifest::Foreign { path: path.to_string(), key: shown(key) }
}

/// Refuses a path that is both a file and a directory of another.
///
/// # Errors
/// [`BadManifest::Entry`] names the file.
pub fn check_paths<'a>(paths: impl Iterator<Item = &'a RelPath>) -> Result<(), BadManifest> {
    let mut open: Vec<(usize, &RelPath)> = Vec::new();
    for (index, path) in paths.enumerate() {
        // In byte order `a`, `a!`, `a/b`: a file may stand apart from what lies beneath it.
        while open.last().is_some_and(|(_, top)| !path.as_bytes().starts_with(top.as_bytes())) {
            open.pop();
        }
        // All that is open is how this path begins.
        let above =
            open.iter().find(|(_, top)| path.as_bytes().get(top.as_bytes().len()) == Some(&b'/'));
        if let Some((index, top)) = above {
            let why = format!("it is a file, and a directory for `{path}`");
            return Err(BadManifest::Entry { index: *index, path: top.to_string(), why });
        }
        open.push((index, path));
    }
    Ok(())
}

/// A case without a manifest: every object under `files/`, given with its size and key relative
/// to the case, is a file.
///
/// # Errors
/// [`BadManifest::Entry`] names an object whose key is no path of a workspace.
pub fn parse_bare<'a>(
    objects: impl Iterator<Item = (&'a str, u64)>,
) -> Result<BTreeMap<RelPath, ManifestEntry>, BadManifest> {
    let mut files = BTreeMap::new();
    let named = objects.filter_map(|(key, size)| Some((bare_path(key)?, key, size)));
    for (index, (path, key, size)) in named.enumerate() {
        let refuse =
            |why: String| BadManifest::Entry { index, path: escape_bytes(path.as_bytes()), why };
        if index >= MAX_ENTRIES {
            return Err(BadManifest::TooMany);
        }
        check_key(key).map_err(|bad| refuse(bad.to_string()))?;
        let path = RelPath::parse(path.as_bytes()).map_err(|bad| refuse(bad.why.to_owned()))?;
        let entry = ManifestEntry {
            sha256: None,
            size: Some(size),
            mode: None,
            mtime_ns: None,
            storage_key: key.to_owned(),
        };
        files.insert(path, entry);
    }
    check_paths(files.keys())?;
    Ok(files)
}

/// A tree as it is written.
#[derive(Serialize, Deserialize)]
struct TreeText {
    directories: BTreeMap<RelPath, String>,
    symlinks: BTreeMap<RelPath, String>,
}

/// A tree's bytes, sorted by path; the same tree gives the same bytes.
pub fn render_tree(tree: &Tree) -> Vec<u8> {
    let mode = |mode: &u32| format!("{:04o}", mode & 0o777);
    let text = TreeText {
        directories: tree.directories.iter().map(|(path, m)| (path.clone(), mode(m))).collect(),
        symlinks: tree.symlinks.clone(),
    };
    // Maps with text keys written to memory do not fail.
    serde_json::to_vec(&text).unwrap_or_default()
}

/// Reads a tree.
///
/// # Errors
/// [`BadManifest`] if it is not one, or has more than [`MAX_ENTRIES`].
pub fn parse_tree(bytes: &[u8]) -> Result<Tree, BadManifest> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(BadManifest::TooLarge);
    }
    let text: TreeText =
        serde_json::from_slice(bytes).map_err(|error| BadManifest::Json(error.to_string()))?;
    if text.directories.len() + text.symlinks.len() > MAX_ENTRIES {
        return Err(BadManifest::TooMany);
    }
    let mut directories = BTreeMap::new();
    for (index, (path, mode)) in text.directories.into_iter().enumerate() {
        let Some(mode) = parse_mode(&Value::String(mode)) else {
            let path = path.to_string();
            return Err(BadManifest::Entry { index, path, why: MODE.to_owned() });
        };
        directories.insert(path, mode);
    }
    Ok(Tree { directories, symlinks: text.symlinks })
}
