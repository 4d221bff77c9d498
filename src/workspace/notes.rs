//! Copies of records and of applied objects beside the workspaces: whole or not at all, and there after power loss.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::Inner;
use super::beneath::{Fault, file_type, names, open};
use crate::model::Uid;

/// So many notes are written beside each other: each waits for the disk, which has one wait for all.
const TURNS: usize = 64;

/// The writers of one note take turns; those of others hardly ever wait for them.
#[derive(Debug)]
pub(super) struct Turns([Mutex<()>; TURNS]);

impl Turns {
    pub(super) fn new() -> Turns {
        Turns(std::array::from_fn(|_| Mutex::new(())))
    }

    /// The turn of the note with this key.
    fn of(&self, key: &str) -> MutexGuard<'_, ()> {
        let sum = key
            .bytes()
            .fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let [first, ..] = &self.0;
        lock(self.0.get(sum % TURNS).unwrap_or(first))
    }

    /// Nobody writes meanwhile.
    fn all(&self) -> Vec<MutexGuard<'_, ()>> {
        self.0.iter().map(lock).collect()
    }
}

fn lock(turn: &Mutex<()>) -> MutexGuard<'_, ()> {
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a file is called until it is whole.
fn beside(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Writes a file of docket's own: beside it first, synced, then by rename.
pub(super) fn put(dir: &OwnedFd, name: &str, bytes: &[u8], mode: Mode) -> Result<(), Fault> {
    let temporary = beside(name);
    remove(dir, &temporary)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(dir, &*temporary, flags, mode)?);
    file.write_all(bytes)?;
    rustix::fs::fchmod(&file, mode)?;
    fsync(&file)?;
    renameat(dir, &*temporary, dir, name)?;
    Ok(fsync(dir)?)
}

/// Removes a file of docket's own; absent is success.
pub(super) fn remove(dir: &OwnedFd, name: &str) -> Result<(), Fault> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

impl Inner {
    pub(super) fn put_note(&self, uid: &Uid, bytes: &[u8]) -> Result<(), Fault> {
        // Two writers of one note take turns; the later one wins.
        let _turn = self.note_turns.of(uid.as_str());
        put(&self.records, uid.as_str(), bytes, Mode::RUSR | Mode::WUSR)
    }

    pub(super) fn drop_note(&self, uid: &Uid) -> Result<(), Fault> {
        let _turn = self.note_turns.of(uid.as_str());
        remove(&self.records, &beside(uid.as_str()))?;
        remove(&self.records, uid.as_str())?;
        Ok(fsync(&self.records)?)
    }

    pub(super) fn notes(&self) -> Result<Vec<(Uid, Vec<u8>)>, Fault> {
        let _turns = self.note_turns.all();
        let known = |name: &str| Uid::parse(name).ok();
        let mut notes = read_all(&self.records, known)?;
        notes.sort();
        Ok(notes)
    }

    pub(super) fn keep_applied(&self, key: &str, text: Option<&str>) -> Result<(), Fault> {
        let _turn = self.note_turns.of(key);
        // Neither kinds nor names have a dot.
        let name = key.replace('/', ".");
        match text {
            Some(text) => put(&self.applied, &name, text.as_bytes(), Mode::RUSR | Mode::WUSR),
            None => {
                remove(&self.applied, &name)?;
                Ok(fsync(&self.applied)?)
            }
        }
    }

    pub(super) fn applied(&self) -> Result<BTreeMap<String, String>, Fault> {
        let _turns = self.note_turns.all();
        let known = |name: &str| {
            let (kind, name) = name.split_once('.').filter(|(kind, _)| !kind.is_empty())?;
            Some(format!("{kind}/{name}"))
        };
        let all = read_all(&self.applied, known)?.into_iter();
        Ok(all.filter_map(|(key, text)| Some((key, String::from_utf8(text).ok()?))).collect())
    }
}

/// The regular files of a directory of docket's own whose names are understood. What a killed
/// operator did not finish goes; nobody writes meanwhile.
fn read_all<N>(
    dir: &OwnedFd,
    understood: impl Fn(&str) -> Option<N>,
) -> Result<Vec<(N, Vec<u8>)>, Fault> {
    let mut all = Vec::new();
    for name in names(dir, usize::MAX)? {
        let text = String::from_utf8_lossy(&name);
        if text.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp")).is_some() {
            remove(dir, &text)?;
            continue;
        }
        let Some(known) = understood(&text) else { continue };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match open(dir, &name, flags, super::beneath::RESOLVE) {
            Ok(file) => file,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if file_type(&fstat(&file)?) == FileType::RegularFile {
            let mut bytes = Vec::new();
            std::fs::File::from(file).read_to_end(&mut bytes)?;
            all.push((known, bytes));
        }
    }
    Ok(all)
}
