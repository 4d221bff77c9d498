//! Earlier states of a case: how they are called, what changed between two of them, what a
//! restore puts together, and which objects no state needs any more. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{CaseName, ManifestEntry, RelPath, Remote, Timestamp, Tree, UserName};

use super::keys::{FILES, LONG, MANIFEST, MANIFESTS, TREES};
use super::manifest::{BadManifest, check_paths};

/// How a kept manifest's time is written.
pub(super) const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3fZ";
/// Bytes of a time in that form, until the year 10000.
const TIME_LENGTH: usize = "2026-11-23T20-04-10.123Z".len();
/// Bytes of it to the second.
const SECONDS_LENGTH: usize = "2026-11-23T20-04-10".len();
/// Names in a text for people.
const NAMED: usize = 3;

/// The files of a state by path.
type Files = BTreeMap<RelPath, ManifestEntry>;

/// The id of the state that a kept manifest holds, and since when it was the current one; `None`:
/// the key is not one of docket's.
pub fn state_of(key: &str) -> Option<(&str, Timestamp)> {
    let id = key.strip_prefix(MANIFESTS)?.strip_suffix(".json")?;
    Some((id, state_time(id)?))
}

/// The time in a state's id.
fn state_time(id: &str) -> Option<Timestamp> {
    let (time, rest) = (id.get(..TIME_LENGTH)?, id.get(TIME_LENGTH..)?);
    let etag = rest.strip_prefix('-')?;
    if !etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return None;
    }
    chrono::NaiveDateTime::parse_from_str(time, TIME).ok().map(|time| time.and_utc())
}

/// When a state begins that follows one of `last`: now, but later than the one before by what an
/// id can tell, whatever the clocks say.
pub fn state_after(last: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let whole = |at: Timestamp| Timestamp::from_timestamp_millis(at.timestamp_millis());
    let now = whole(now).unwrap_or(now);
    let next = last.and_then(whole).map(|last| last + chrono::TimeDelta::milliseconds(1));
    next.map_or(now, |next| next.max(now))
}

/// What each of these ids may be called for short: its time, as far as it tells the state from all
/// others; the id itself if the time does not.
pub fn short_ids(ids: &[&str]) -> Vec<String> {
    let steps = [SECONDS_LENGTH, TIME_LENGTH].map(|end| {
        let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
        ids.iter().filter_map(|id| id.get(..end)).for_each(|id| *alike.entry(id).or_default() += 1);
        (end, alike)
    });
    let short = |id: &&str| {
        let mut told = steps.iter().filter_map(|(end, alike)| Some((id.get(..*end)?, alike)));
        let told = told.find(|(id, alike)| alike.get(id) == Some(&1));
        told.map_or(*id, |(short, _)| short).to_owned()
    };
    ids.iter().map(short).collect()
}

/// Why no state is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoState {
    /// None has this id.
    #[error("there is no state `{0}`")]
    Unknown(String),
    /// None was there yet.
    #[error("at `{0}` there was no state yet")]
    TooEarly(String),
    /// Several begin like this.
    #[error("`{0}` is the beginning of {1} states: say more of the id")]
    Several(String, usize),
}

/// Which state is meant by an id, its beginning, or a moment (RFC 3339) in which it was the
/// current one. `ids`: all there are, oldest first.
///
/// # Errors
/// [`NoState`].
pub fn pick<'a>(ids: &[&'a str], asked: &str) -> Result<&'a str, NoState> {
    if let Some(id) = ids.iter().find(|id| **id == asked) {
        return Ok(id);
    }
    if let Ok(moment) = chrono::DateTime::parse_from_rfc3339(asked) {
        let before = |id: &&&str| state_time(id).is_some_and(|time| time <= moment);
        let found = ids.iter().rev().find(before);
        return found.copied().ok_or_else(|| NoState::TooEarly(asked.to_owned()));
    }
    let begins: Vec<&str> =
        ids.iter().filter(|id| !asked.is_empty() && id.starts_with(asked)).copied().collect();
    match begins[..] {
        [] => Err(NoState::Unknown(crate::model::escape_bytes(asked.as_bytes()))),
        [only] => Ok(only),
        ref all => Err(NoState::Several(asked.to_owned(), all.len())),
    }
}

/// What changed from one state to the next.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Difference {
    /// Files that are new.
    pub added: Vec<RelPath>,
    /// Files whose contents, mode or time are others.
    pub changed: Vec<RelPath>,
    /// Files that are not there any more.
    pub removed: Vec<RelPath>,
}

impl Difference {
    /// From one state to another.
    pub fn between(before: &Files, after: &Files) -> Difference {
        let mut found = Difference::default();
        for (path, row) in after {
            match before.get(path) {
                None => found.added.push(path.clone()),
                Some(was) if !same(was, row) => found.changed.push(path.clone()),
                Some(_) => (),
            }
        }
        let gone = before.keys().filter(|path| !after.contains_key(*path));
        found.removed = gone.cloned().collect();
        found
    }

    /// Whether no file differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// `added drafts/a.txt; changed 12 files`. Nothing: only directories and links differ, if at all.
impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds =
            [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        let mut between = "";
        for (word, paths) in kinds.into_iter().filter(|(_, paths)| !paths.is_empty()) {
            write!(f, "{between}{word} ")?;
            between = "; ";
            if paths.len() > NAMED {
                write!(f, "{} files", paths.len())?;
                continue;
            }
            for (at, path) in paths.iter().enumerate() {
                write!(f, "{}{path}", if at == 0 { "" } else { ", " })?;
            }
        }
        Ok(())
    }
}

/// What a foreign manifest left out differs from nothing.
fn same(one: &ManifestEntry, other: &ManifestEntry) -> bool {
    fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
        one.is_none() || other.is_none() || one == other
    }
    let content = match (one.sha256, other.sha256) {
        (Some(one), Some(other)) => one == other,
        _ => one.storage_key == other.storage_key,
    };
    content && agree(one.mode, other.mode) && agree(one.mtime_ns, other.mtime_ns)
}

/// Why a state cannot be put back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoReturn {
    /// The path was not in it.
    #[error("`{0}` was not there in that state")]
    NotThen(RelPath),
    /// What was a file then is a directory now, or the other way round.
    #[error("it cannot be put beside what is there now: {0}; move that away first")]
    InTheWay(BadManifest),
}

/// The next state of a restore. Without a path it is the earlier state: files that are newer go.
/// With one, what was at and beneath it then is put back, and everything else stays, newer files
/// beneath it too.
///
/// # Errors
/// [`NoReturn`].
pub fn put_back(now: &Remote, then: &Remote, path: Option<&RelPath>) -> Result<Remote, NoReturn> {
    let Some(path) = path else {
        let tree = then.tree.clone().or_else(|| now.tree.clone());
        return Ok(Remote { etag: now.etag.clone(), files: then.files.clone(), tree });
    };
    let mut next = now.clone();
    let files = then.files.iter().filter(|(at, _)| path.covers(at));
    next.files.extend(files.map(|(at, row)| (at.clone(), row.clone())));
    let mut tree = next.tree.take().unwrap_or_default();
    if let Some(old) = &then.tree {
        let directories = old.directories.iter().filter(|(at, _)| path.covers(at));
        tree.directories.extend(directories.map(|(at, mode)| (at.clone(), *mode)));
        let links = old.symlinks.iter().filter(|(at, _)| path.covers(at));
        tree.symlinks.extend(links.map(|(at, text)| (at.clone(), text.clone())));
    }
    let was_there = then.files.keys().any(|at| path.covers(at))
        || then.tree.as_ref().is_some_and(|tree| has(tree, path));
    if !was_there {
        return Err(NoReturn::NotThen(path.clone()));
    }
    check_paths(next.files.keys()).map_err(NoReturn::InTheWay)?;
    next.tree = Some(tree);
    Ok(next)
}

fn has(tree: &Tree, path: &RelPath) -> bool {
    tree.directories.contains_key(path) || tree.symlinks.contains_key(path)
}

/// What an object of a case is, by its key; only these forms are docket's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// `manifests/{time}-{etag}.json`.
    Manifest,
    /// `trees/{sha256}.json`.
    Tree,
    /// `files/...@{12 or 64 hex digits}`, `long/{sha256}@{12 or 64}`.
    Contents,
}

impl Own {
    /// `None`: the object is not docket's.
    pub fn of(key: &str) -> Option<Own> {
        let hex = |text: &str, lengths: &[usize]| {
            lengths.contains(&text.len())
                && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if state_of(key).is_some() {
            return Some(Own::Manifest);
        }
        if let Some(name) = key.strip_prefix(TREES) {
            return hex(name.strip_suffix(".json")?, &[64]).then_some(Own::Tree);
        }
        let (name, sum) = key.rsplit_once('@')?;
        let named = match name.strip_prefix(LONG) {
            Some(path) => hex(path, &[64]),
            None => name.strip_prefix(FILES).is_some_and(|path| !path.is_empty()),
        };
        (named && hex(sum, &[12, 64])).then_some(Own::Contents)
    }
}

/// The user, the case and the key within it of a full key.
pub fn split_key(full: &str) -> Option<(UserName, CaseName, &str)> {
    let (user, rest) = full.split_once('/')?;
    let (case, key) = rest.split_once('/')?;
    Some((UserName::parse(user).ok()?, CaseName::parse(case).ok()?, key))
}

/// An object of a case and when it was written.
pub type Aged<'a> = (&'a str, Option<Timestamp>);

/// Kept manifests that were replaced before `cut`; the newest stays whatever its age, and so does
/// one whose age is not known.
pub fn old_manifests<'a>(objects: &[Aged<'a>], cut: Timestamp) -> BTreeSet<&'a str> {
    let mut kept: Vec<_> = objects
        .iter()
        .filter_map(|(key, written)| Some((state_of(key)?.1, *written, *key)))
        .collect();
    kept.sort();
    kept.pop();
    let old = kept.into_iter().filter(|(_, written, _)| written.is_some_and(|at| at < cut));
    old.map(|(_, _, key)| key).collect()
}

/// Contents and trees that nobody needs, written before `cut`. `needed`: what kept manifests, live
/// sessions and their trees name.
pub fn garbage<'a>(
    objects: &[Aged<'a>],
    needed: &BTreeSet<String>,
    cut: Timestamp,
) -> BTreeSet<&'a str> {
    let old = objects.iter().filter(|(_, written)| written.is_some_and(|at| at < cut));
    let own = old.filter(|(key, _)| matches!(Own::of(key), Some(Own::Contents | Own::Tree)));
    own.filter(|(key, _)| !needed.contains(*key)).map(|(key, _)| *key).collect()
}

/// Whether a case has a manifest; one without is nobody's to collect: its objects are its files.
pub fn has_manifest(objects: &[Aged<'_>]) -> bool {
    objects.iter().any(|(key, _)| *key == MANIFEST)
}
