//! What to do about what the repository has, and what of a commit may become the watched
//! directory. Pure: what git said is text, time and chance are values.

use std::collections::BTreeMap;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;

use crate::model::Bounds;
use crate::spec::{FILE_MAX, check, is_spec_name};

use super::remote::Remote;

/// Deepest directory; a watched one has the same.
const DEPTH_MAX: usize = 32;
/// Most files of a revision ...
const FILES_MAX: usize = 50_000;
/// ... and most bytes of all of them.
const BYTES_MAX: u64 = 512 << 20;
/// A repository that fails is asked again after this at the latest, or after its interval.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// A commit's id in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Revision(String);

impl Revision {
    /// What git calls a commit: 40 or 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Revision> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (matches!(text.len(), 40 | 64) && text.bytes().all(hex)).then(|| Revision(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is remembered between two looks.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The commit in force.
    pub(super) current: Option<Revision>,
    /// The commit that was fetched last.
    pub(super) fetched: Option<Revision>,
    /// The commit that was judged last, and what was wrong with its files within these bounds.
    pub(super) refused: Option<(Revision, Bounds, Vec<String>)>,
}

/// What is to be done about the commit that the branch has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The branch is not there: what is in force stays.
    Hold,
    /// It is in force.
    Rest,
    /// It was looked at before, and this is wrong with it.
    Refuse(Vec<String>),
    /// It has to be judged; `fetch`: and fetched before.
    Judge {
        /// It is not here yet.
        fetch: bool,
    },
}

/// What follows from the newest commit of the branch.
pub(super) fn next(memory: &Memory, newest: Option<&Revision>, bounds: &Bounds) -> Step {
    let Some(newest) = newest else { return Step::Hold };
    if memory.current.as_ref() == Some(newest) {
        return Step::Rest;
    }
    match &memory.refused {
        // A signature is looked at again each time: who may sign changes outside.
        Some((revision, within, errors)) if revision == newest && within == bounds => {
            Step::Refuse(errors.clone())
        }
        _ => Step::Judge { fetch: memory.fetched.as_ref() != Some(newest) },
    }
}

/// The commit that `git ls-remote` tells for exactly this reference.
pub(super) fn newest(told: &str, reference: &str) -> Option<Revision> {
    told.lines().find_map(|line| {
        let (id, name) = line.split_once('\t')?;
        if name == reference { Revision::parse(id) } else { None }
    })
}

/// One file to be read: its path below the watched directory and the id of its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) path: String,
    pub(super) id: String,
    pub(super) size: u64,
}

/// The spec files among what `git ls-tree -r -z -l` tells. All others are never read.
///
/// # Errors
/// What is wrong with the tree, a line each.
pub(super) fn spec_files(told: &[u8], remote: &Remote) -> Result<Vec<Blob>, Vec<String>> {
    let mut files = Vec::new();
    let mut wrong = Vec::new();
    for line in told.split(|b| *b == 0).filter(|line| !line.is_empty()) {
        let Some((head, path)) = split_at(line, b'\t') else {
            return Err(vec!["git listed its files in an unknown way".to_owned()]);
        };
        if !is_looked_at(path) {
            continue;
        }
        let shown = remote.shown(&String::from_utf8_lossy(path));
        let head = String::from_utf8_lossy(head);
        let words: Vec<&str> = head.split_ascii_whitespace().collect();
        match (std::str::from_utf8(path), &words[..]) {
            (Err(_), _) => wrong.push(format!("{shown}: its name is not UTF-8")),
            (_, ["120000", ..]) => {
                wrong.push(format!("{shown}: it is a link; put the file itself there"));
            }
            // A submodule is another repository: nobody looks into it.
            (_, ["160000", ..]) => (),
            (Ok(path), [_, "blob", id, size]) if Revision::parse(id).is_some() => {
                let size = size.parse().unwrap_or(u64::MAX);
                if size > FILE_MAX as u64 {
                    wrong.push(format!(
                        "{shown}:1:1: the file has {size} bytes, at most 64 KiB are read"
                    ));
                }
                files.push(Blob { path: path.to_owned(), id: (*id).to_owned(), size });
            }
            _ => return Err(vec!["git listed its files in an unknown way".to_owned()]),
        }
    }
    let bytes = files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    if wrong.is_empty() && (files.len() > FILES_MAX || bytes > BYTES_MAX) {
        wrong.push(format!(
            "{} files with {bytes} bytes are too many: at most {FILES_MAX} with {BYTES_MAX}",
            files.len()
        ));
    }
    if wrong.is_empty() { Ok(files) } else { Err(wrong) }
}

/// As the watched directory has it: no part begins with a dot, and the end is that of a spec.
fn is_looked_at(path: &[u8]) -> bool {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
    let plain = |part: &&[u8]| !part.is_empty() && !part.starts_with(b".");
    parts.len() <= DEPTH_MAX
        && parts.iter().all(plain)
        && parts.last().is_some_and(|name| is_spec_name(name))
}

fn split_at(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let middle = bytes.iter().position(|b| *b == at)?;
    Some((bytes.get(..middle)?, bytes.get(middle + 1..)?))
}

/// The contents that `git cat-file --batch` tells, in the order they were asked for. `None`: it is
/// not what was asked for.
pub(super) fn contents(mut told: &[u8], asked: &[Blob]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for blob in asked {
        let (head, rest) = split_at(told, b'\n')?;
        let expected = format!("{} blob {}", blob.id, blob.size);
        let size = usize::try_from(blob.size).ok()?;
        if head != expected.as_bytes() || rest.get(size) != Some(&b'\n') {
            return None;
        }
        files.insert(blob.path.clone(), rest.get(..size)?.to_vec());
        told = rest.get(size + 1..)?;
    }
    told.is_empty().then_some(files)
}

/// What is wrong with the files of a revision as a whole; nothing: it may come into force.
pub(super) fn judge(
    files: &BTreeMap<String, Vec<u8>>,
    remote: &Remote,
    bounds: &Bounds,
) -> Vec<String> {
    let shown: Vec<(String, Vec<u8>)> =
        files.iter().map(|(path, text)| (remote.shown(path), text.clone())).collect();
    check(&shown, bounds).complaints
}

/// How long until the next look: the interval, longer with each failure in a row. `random` moves
/// it by a fifth either way, so that many machines do not ask at once.
pub(super) fn wait(interval: Duration, failures: u32, random: u8) -> Duration {
    let longest = LONGEST_WAIT.max(interval);
    let mut steps = ExponentialBackoff {
        current_interval: interval,
        initial_interval: interval,
        randomization_factor: 0.0,
        multiplier: 2.0,
        max_interval: longest,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    let mut wait = interval;
    for _ in 0..failures.min(32) {
        wait = steps.next_backoff().unwrap_or(longest);
    }
    wait.mul_f64(0.8 + 0.4 * f64::from(random) / 255.0).min(longest)
}
