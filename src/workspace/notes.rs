//! Copies of records beside the workspaces: whole or not at all, and there after power loss.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::Inner;
use super::beneath::{Fault, file_type, names, open};
use crate::model::Uid;

/// Writes a file of docket's own: beside it first, synced, then by rename.
pub(super) fn put(dir: &OwnedFd, name: &str, bytes: &[u8], mode: Mode) -> Result<(), Fault> {
    let temporary = format!(".{name}.tmp");
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
        let _turn = self.notes_turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        put(&self.records, uid.as_str(), bytes, Mode::RUSR | Mode::WUSR)
    }

    pub(super) fn drop_note(&self, uid: &Uid) -> Result<(), Fault> {
        remove(&self.records, uid.as_str())?;
        Ok(fsync(&self.records)?)
    }

    pub(super) fn notes(&self) -> Result<Vec<(Uid, Vec<u8>)>, Fault> {
        let mut notes = Vec::new();
        for name in names(&self.records, usize::MAX)? {
            let text = String::from_utf8_lossy(&name);
            let Ok(uid) = Uid::parse(&text) else { continue };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let file = match open(&self.records, &name, flags, super::beneath::RESOLVE) {
                Ok(file) => file,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            if file_type(&fstat(&file)?) == FileType::RegularFile {
                let mut bytes = Vec::new();
                std::fs::File::from(file).read_to_end(&mut bytes)?;
                notes.push((uid, bytes));
            }
        }
        notes.sort();
        Ok(notes)
    }
}
