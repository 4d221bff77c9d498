//! Files of a workspace: paths as bytes, entries, the manifest's rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// How far a hydration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Files fetched.
    pub files: u64,
    /// Of so many.
    pub files_total: u64,
    /// Bytes fetched.
    pub bytes: u64,
    /// Of so many.
    pub bytes_total: u64,
}

/// A relative path inside a workspace, as bytes: components joined by `/`, none of them empty,
/// `.` or `..`, no NUL. Serialized as a string: control bytes, `%` and what is not UTF-8 are
/// written `%XX`. Clones share the bytes: a path is in many maps at a time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(Arc<[u8]>);

/// Why bytes are not a path inside a workspace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is not a path inside a workspace: {why}")]
pub struct BadPath {
    /// The path, control bytes escaped.
    pub path: String,
    /// Which rule it breaks.
    pub why: &'static str,
}

impl RelPath {
    /// Parses bytes as a relative path.
    ///
    /// # Errors
    /// [`BadPath`] for empty, absolute, `.`/`..`, empty components, NUL, a component over 255
    /// bytes or a path over 4,095.
    pub fn parse(bytes: &[u8]) -> Result<RelPath, BadPath> {
        let fail = |why| Err(BadPath { path: escape_bytes(bytes), why });
        if bytes.is_empty() {
            return fail("it is empty");
        }
        if bytes.len() > 4095 {
            return fail("it is longer than 4,095 bytes");
        }
        if bytes.contains(&0) {
            return fail("it holds a NUL byte");
        }
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" => return fail("it is absolute or has an empty component"),
                b"." | b".." => return fail("it has a `.` or `..` component"),
                part if part.len() > 255 => return fail("a component is longer than 255 bytes"),
                _ => (),
            }
        }
        Ok(RelPath(bytes.into()))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for system calls.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The text, if the bytes are UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The parent directory; `None` at the top.
    pub fn parent(&self) -> Option<RelPath> {
        let cut = self.0.iter().rposition(|b| *b == b'/')?;
        Some(RelPath(self.0[..cut].into()))
    }

    /// The last component.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }

    /// The components, top first.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// Whether another path is this one or lies beneath it.
    pub fn covers(&self, other: &RelPath) -> bool {
        let rest = other.0.strip_prefix(&*self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }

    /// How many components.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// `self/name`.
    ///
    /// # Errors
    /// [`BadPath`] as [`RelPath::parse`] has it.
    pub fn join(&self, name: &[u8]) -> Result<RelPath, BadPath> {
        RelPath::parse(&[&*self.0, b"/".as_slice(), name].concat())
    }
}

/// Control characters, and what turns the reading direction around: none of it is printed raw.
pub fn is_sly(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Bytes as printable text, reversibly: what is [`is_sly`], `%` and what is not UTF-8 as `%XX`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let hex = |text: &mut String, b: u8| {
        let _ = write!(text, "%{b:02X}"); // Writing to a String does not fail.
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_sly(c) || c == '%' {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer).bytes().for_each(|b| hex(&mut text, b));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|b| hex(&mut text, *b));
    }
    text
}

/// What [`escape_bytes`] wrote, back as bytes; `None` if a `%` is not followed by two hex digits.
pub fn unescape_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = tail else { return None };
        let digit = |b: u8| char::from(b).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    Some(bytes)
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape_bytes(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> String {
        path.to_string()
    }
}

impl TryFrom<String> for RelPath {
    type Error = BadPath;

    fn try_from(text: String) -> Result<RelPath, BadPath> {
        match unescape_bytes(&text) {
            Some(bytes) => RelPath::parse(&bytes),
            None => Err(BadPath { path: text, why: "a `%` is not followed by two hex digits" }),
        }
    }
}

/// sha256 of a file's contents.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
        self.0.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
    }

    /// Parses 64 hex digits.
    pub fn parse(text: &str) -> Option<Sha256> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut sum = [0; 32];
        for (slot, pair) in sum.iter_mut().zip(text.as_bytes().chunks(2)) {
            *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Sha256(sum))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex()[..12])
    }
}

impl From<Sha256> for String {
    fn from(sum: Sha256) -> String {
        sum.hex()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = String;
    fn try_from(text: String) -> Result<Sha256, String> {
        Sha256::parse(&text).ok_or_else(|| format!("`{text}` is not a sha256: 64 hex digits"))
    }
}

/// What a scan trusts to say a file is unchanged: (inode, size, mtime, ctime).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Nanoseconds since the epoch.
    pub ctime_ns: i64,
}

/// One file as the last commit knew it: the three-way diff's base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseEntry {
    /// Contents as stored; `None`: a foreign manifest did not say, and it is not fetched yet.
    pub sha256: Option<Sha256>,
    /// Bytes.
    pub size: u64,
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Literal key, relative to the case's prefix.
    pub storage_key: String,
    /// The local file's stamp when it held exactly this content; `None`: not here (lazy).
    pub stamp: Option<Stamp>,
    /// Not here, and a placeholder was put in its place: that one gone, the file was deleted.
    #[serde(default)]
    pub placed: bool,
}

/// The last commit both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Base {
    /// ETag of the manifest it mirrors; `None`: no manifest existed.
    pub etag: Option<String>,
    /// Regular files by path.
    pub files: BTreeMap<RelPath, BaseEntry>,
    /// Empty directories, directory modes, symlinks.
    pub tree: Tree,
}

/// What a manifest cannot say, kept beside it in `trees/`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// Directories and their modes.
    pub directories: BTreeMap<RelPath, u32>,
    /// Symlinks and their targets, as [`escape_bytes`] text; never followed.
    pub symlinks: BTreeMap<RelPath, String>,
}

/// What of a tree goes or changes in a workspace, each only if it is still as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TreeChange {
    /// Directories that go if they are empty.
    pub directories: BTreeSet<RelPath>,
    /// Symlinks that go if this is still their text.
    pub symlinks: BTreeMap<RelPath, String>,
    /// Directories whose permission bits change: from, to.
    pub modes: BTreeMap<RelPath, (u32, u32)>,
}

/// What kind of thing a scan met at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalKind {
    /// A regular file; the sum is there if it was hashed in this scan or its stamp is the base's.
    File {
        /// Contents, if known.
        sha256: Option<Sha256>,
        /// Identity for skipping.
        stamp: Stamp,
    },
    /// A placeholder of a file that was not fetched.
    Placeholder {
        /// What it stands for, without its mode; `None`: a content of another case, or it cannot
        /// be told.
        row: Option<ManifestEntry>,
        /// Its size or time is not as it was placed: somebody changed it.
        altered: bool,
    },
    /// A directory.
    Directory,
    /// A symlink with its target as [`escape_bytes`] text; never followed.
    Symlink(String),
}

/// One entry of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEntry {
    /// What it is.
    pub kind: LocalKind,
    /// Permission bits, at most 0o777.
    pub mode: u32,
}

/// Why an entry is not synced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SkipReason {
    /// A FIFO, socket or device: it has no content.
    Special,
    /// Larger than `limits.fileSize`.
    TooLarge,
    /// Mostly holes, and larger than the workspace's quota: it takes nothing here, and would take all
    /// of that in the store.
    Sparse,
    /// Deeper than `limits.depth`.
    TooDeep,
    /// Beyond `limits.files`.
    TooMany,
    /// Matches `sync.exclude`.
    Excluded,
    /// It could not be read; its base entry stays.
    Unreadable(String),
    /// It changed each time it was read.
    Torn,
    /// Nothing but a hole where the store has another content: as likely a content that was lost
    /// as an edit, so it replaces nothing. Source: LAZY, invariant 4.
    Hollow,
}

impl SkipReason {
    /// Whether a skipped entry of this kind keeps a session from ending (its bytes are not safe).
    pub fn blocks_end(&self) -> bool {
        !matches!(self, SkipReason::Special | SkipReason::Excluded)
    }
}

/// A complete walk of a workspace. A failed walk is an error, never a short `Scan`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Scan {
    /// What is there, by path.
    pub entries: BTreeMap<RelPath, LocalEntry>,
    /// What is there and not looked into, with its reason.
    pub skipped: BTreeMap<RelPath, SkipReason>,
    /// Bytes on disk of all regular files that were met, skipped and excluded ones too.
    pub bytes: u64,
}

/// A row of `manifest.json`, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Contents; a foreign manifest may not say.
    pub sha256: Option<Sha256>,
    /// Bytes; a foreign manifest may not say, then HEAD decides.
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Nanoseconds since the epoch.
    pub mtime_ns: Option<i64>,
    /// Literal key, relative to the case's prefix.
    pub storage_key: String,
}

/// What the store holds of a case.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Remote {
    /// ETag of `manifest.json`; `None`: there is none (a bare listing, or nothing at all).
    pub etag: Option<String>,
    /// Files by path.
    pub files: BTreeMap<RelPath, ManifestEntry>,
    /// Directories and symlinks; `None`: the manifest has no tree, so nothing is known of them.
    pub tree: Option<Tree>,
}

/// A file's state, as `docket files` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileState {
    /// Where.
    pub path: RelPath,
    /// local, lazy, modified, conflict or skipped.
    pub state: String,
    /// Bytes.
    pub size: u64,
    /// Why, for skipped ones; else empty.
    pub reason: String,
    /// Modification time.
    pub mtime: Option<Timestamp>,
}
