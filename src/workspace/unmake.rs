//! What goes of a tree: directories and links that were deleted on the other side. A directory goes
//! only if it is empty, which the kernel decides in one step; a link is moved out of its place
//! first and looked at there, so that nothing a tenant puts in its place is ever removed.

use std::os::fd::OwnedFd;

use rustix::fs::renameat_with;
use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, fchmod, fstat, readlinkat, unlinkat};
use rustix::io::Errno;

use super::Inner;
use super::beneath::{Fault, file_type, open_dir, stat_at};
use super::place::open_parent;
use crate::model::{RelPath, TreeChange, escape_bytes};
use crate::world::{Place, WorkspaceErrorKind as Kind};

impl Inner {
    pub(super) fn change_tree(&self, place: &Place, change: &TreeChange) -> Result<(), Fault> {
        let case = self.open_case(place)?;
        for (path, text) in &change.symlinks {
            passed(self.remove_link(&case, path, text))?;
        }
        // What is in a directory sorts after it.
        for path in change.directories.iter().rev() {
            passed(remove_dir(&case, path))?;
        }
        for (path, (from, to)) in &change.modes {
            passed(set_mode(&case, path, *from, *to))?;
        }
        Ok(())
    }

    fn remove_link(&self, case: &OwnedFd, path: &RelPath, text: &str) -> Result<(), Fault> {
        let parent = open_parent(case, path)?;
        let name = path.file_name();
        if !is_link(&parent, name, text)? {
            return Err(Fault::changed("it is not the link that was seen"));
        }
        // No file has inode 0: a sweep after a crash here keeps whatever this turns out to be.
        let swap = self.fresh_name("swap-0-0-0-0");
        renameat_with(&parent, name, &self.staging, &*swap, RenameFlags::NOREPLACE)?;
        if is_link(&self.staging, swap.as_bytes(), text)? {
            return Ok(unlinkat(&self.staging, &*swap, AtFlags::empty())?);
        }
        let back = renameat_with(&self.staging, &*swap, &parent, name, RenameFlags::NOREPLACE);
        if back.is_err() {
            self.keep(&self.staging, &swap)?;
        }
        Err(Fault::changed("it changed at the moment it was to be removed"))
    }
}

/// Something else, something more or nothing stands there: it is left alone.
fn passed(done: Result<(), Fault>) -> Result<(), Fault> {
    match done {
        Err(fault) if matches!(fault.kind, Kind::Changed | Kind::NotFound) => {
            tracing::debug!(why = %fault.message, "a directory or link is left as it is");
            Ok(())
        }
        done => done,
    }
}

fn is_link(dir: &OwnedFd, name: &[u8], text: &str) -> Result<bool, Errno> {
    if file_type(&stat_at(dir, name)?) != FileType::Symlink {
        return Ok(false);
    }
    let there = readlinkat(dir, name, Vec::new())?;
    Ok(escape_bytes(there.to_bytes()) == text)
}

fn remove_dir(case: &OwnedFd, path: &RelPath) -> Result<(), Fault> {
    let parent = open_parent(case, path)?;
    match unlinkat(&parent, path.file_name(), AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(Fault::changed("it is not empty")),
        Err(Errno::NOTDIR) => Err(Fault::changed("it is no directory any more")),
        Err(Errno::BUSY) => Err(Fault::changed("something is mounted there")),
        done => Ok(done?),
    }
}

fn set_mode(case: &OwnedFd, path: &RelPath, from: u32, to: u32) -> Result<(), Fault> {
    let dir = open_dir(case, path.as_bytes())?;
    if fstat(&dir)?.st_mode & 0o777 != from {
        return Err(Fault::changed("its mode is not the one that was seen"));
    }
    Ok(fchmod(&dir, Mode::from_raw_mode(to & 0o777))?)
}
