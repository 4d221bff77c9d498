//! Keys of a case in the store, and names for conflict copies.

use crate::model::{RelPath, Sha256, Timestamp, UserName, escape_bytes};

/// The manifest's key.
pub const MANIFEST: &str = "manifest.json";
/// Where replaced manifests are kept.
pub const MANIFESTS: &str = "manifests/";
/// Where trees are kept.
pub const TREES: &str = "trees/";
/// Where contents are kept.
pub const FILES: &str = "files/";

/// Where contents of long paths are kept.
pub(super) const LONG: &str = "long/";

/// Longest key docket chooses, relative to the case. S3 takes 1,024 bytes with the prefix.
const LONGEST_KEY: usize = 900;
/// Longest component docket chooses. A directory takes 255.
const LONGEST_PART: usize = 200;
/// Longest component of a path. Source: NAME_MAX.
const NAME_MAX: usize = 255;

/// Why a storage key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// Longer than any store takes.
    #[error("it is longer than 1,024 bytes")]
    TooLong,
    /// `/`, `..` and the like: outside the case.
    #[error("it leads outside the case: keys are relative to the case and have no `.` or `..`")]
    Outside,
    /// A control character.
    #[error("it holds a control character")]
    Control,
    /// One of docket's own objects.
    #[error("it names the manifest, an earlier one, or a tree")]
    Reserved,
}

/// Whether a storage key from a manifest lies under the case's own prefix and is no object that
/// changes.
///
/// # Errors
/// [`BadKey`] says which rule it breaks.
pub fn check_key(key: &str) -> Result<(), BadKey> {
    if key.is_empty() {
        return Err(BadKey::Empty);
    }
    if key.len() > 1024 {
        return Err(BadKey::TooLong);
    }
    if key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(BadKey::Outside);
    }
    // A path may hold any control character but NUL, and its key then holds it too.
    if key.contains('\0') {
        return Err(BadKey::Control);
    }
    if key == MANIFEST || key.starts_with(MANIFESTS) || key.starts_with(TREES) {
        return Err(BadKey::Reserved);
    }
    Ok(())
}

/// Whether a key is written like one of another case, or like a whole one: `user/case/files/...`.
/// A case may have such objects of its own; if it has not, another's were meant.
pub fn reads_like_anothers(key: &str) -> bool {
    let parts: Vec<&str> = key.split('/').collect();
    let own = parts.first().is_some_and(|first| matches!(*first, "files" | "long"));
    let inside = parts.get(2..).unwrap_or_default();
    let folders = inside.iter().rev().skip(1);
    let mut folders =
        folders.filter(|part| matches!(**part, "files" | "long" | "trees" | "manifests"));
    !own && (folders.next().is_some() || inside.last() == Some(&MANIFEST))
}

/// Keys for a file's new contents, best first: the next is for when the one before is taken by
/// another content or its parent is an object.
pub fn key_candidates(path: &RelPath, sum: Sha256) -> Vec<String> {
    let text = String::from_utf8_lossy(path.as_bytes());
    let hex = sum.hex();
    let hashed = super::sum(path.as_bytes()).hex();
    let short = &hex[..12];
    let mut keys = vec![
        format!("{FILES}{text}@{short}"),
        format!("{FILES}{text}@{hex}"),
        format!("{LONG}{hashed}@{short}"),
        format!("{LONG}{hashed}@{hex}"),
    ];
    keys.retain(|key| {
        key.len() <= LONGEST_KEY && key.split('/').all(|part| part.len() <= LONGEST_PART)
    });
    keys
}

/// The logical path of an object in a case without a manifest; `None`: it is no file's.
pub fn bare_path(key: &str) -> Option<&str> {
    // Some tools mark a folder by an empty object whose key ends in `/`.
    key.strip_prefix(FILES).filter(|path| !path.is_empty() && !path.ends_with('/'))
}

/// Where the tree of a manifest is kept.
pub fn tree_key(manifest: &[u8]) -> String {
    format!("{TREES}{}.json", super::sum(manifest).hex())
}

/// Where a replaced manifest is kept: its time is when it was written.
pub fn kept_manifest(now: Timestamp, etag: &str) -> String {
    format!("{MANIFESTS}{}-{}.json", now.format(super::history::TIME), in_key(etag))
}

fn in_key(etag: &str) -> String {
    etag.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

/// Whether a manifest with this ETag is among the kept ones, by their keys: whoever replaces one
/// keeps it first.
pub fn is_kept<'a>(etag: &str, mut keys: impl Iterator<Item = &'a str>) -> bool {
    let end = format!("-{}.json", in_key(etag));
    keys.any(|key| key.ends_with(&end))
}

/// `name (conflict USER 2026-11-23T20-04-10Z).ext` beside `path`; with ` 2`, ` 3` behind the time
/// while `taken` says so. A name that would be too long loses the end of its stem.
pub fn conflict_path(
    path: &RelPath,
    user: &UserName,
    now: Timestamp,
    taken: impl Fn(&RelPath) -> bool,
) -> RelPath {
    let name = path.file_name();
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && name.len() - at <= 32);
    let (stem, ext) = name.split_at(dot.unwrap_or(name.len()));
    let time = now.format("%Y-%m-%dT%H-%M-%SZ");
    let mut number = 1_u64;
    loop {
        let count = if number > 1 { format!(" {number}") } else { String::new() };
        let mark = format!(" (conflict {user} {time}{count})");
        let room = NAME_MAX.saturating_sub(mark.len() + ext.len());
        let named = [cut(stem, room), mark.as_bytes(), ext].concat();
        let found = match path.parent() {
            Some(parent) => parent.join(&named),
            None => RelPath::parse(&named),
        };
        // Only a path at the very limit of its length cannot take a longer name: then at the top.
        let found = found.or_else(|_| RelPath::parse(&named)).unwrap_or_else(|_| path.clone());
        if !taken(&found) || number > 10_000 {
            return found;
        }
        number += 1;
    }
}

/// At most `room` bytes, not in the middle of a character.
fn cut(stem: &[u8], room: usize) -> &[u8] {
    let mut end = stem.len().min(room);
    while end < stem.len() && end > 0 && stem[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    &stem[..end]
}

/// A key for people.
pub(super) fn shown(key: &str) -> String {
    let short: String = key.chars().take(200).collect();
    escape_bytes(short.as_bytes())
}
