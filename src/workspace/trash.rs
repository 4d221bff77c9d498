//! The end of a workspace: by one rename into a directory only root can enter, then removed there
//! entry by entry through descriptors.
//!
//! Depth costs nothing: what lies deeper is moved up to the top of the heap before its parent is
//! removed, so only two directories are ever open.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, RenameFlags, fsync, renameat_with, unlinkat};
use rustix::io::Errno;

use super::Inner;
use super::beneath::{Fault, file_type, id_of, names, open_dir, real_path, stamp_of, stat_at};
use crate::model::{Uid, escape_bytes};
use crate::world::{Place, Trashed, WorkspaceErrorKind as Kind};

/// Names taken in one look at a directory of any size.
const BATCH: usize = 4096;
/// Directories of one uid in the trash.
const SAME_UID: u32 = 10_000;

impl Inner {
    pub(super) fn trash(&self, place: &Place) -> Result<(), Fault> {
        let case = match self.open_case(place) {
            Ok(case) => case,
            Err(fault) if fault.kind == Kind::NotFound => {
                // One that died behind the rename did not come to the rest.
                self.remove_empty_user(place);
                return Ok(fsync(&self.trash)?);
            }
            Err(fault) => return Err(fault),
        };
        refuse_mounts(&case)?;
        let id = id_of(&case)?;
        let active = format!("{}/active", place.user);
        let active = open_dir(&self.root_fd, active.as_bytes())?;
        let name = self.rename_into_trash(&active, place)?;
        crate::crash::point(crate::crash::Side::Amid, crate::crash::Effect::Trash);
        let moved = open_dir(&self.trash, name.as_bytes());
        if moved.and_then(id_of) != Ok(id) {
            // Swapped between the look and the rename: what was taken goes back.
            let flags = RenameFlags::NOREPLACE;
            let back = renameat_with(&self.trash, &*name, &active, place.case.as_str(), flags);
            if back.is_err() {
                self.keep(&self.trash, &name)?;
            }
            return Err(Fault::new(Kind::Replaced, "another directory came in its place"));
        }
        fsync(&active)?;
        fsync(&self.trash)?;
        self.remove_empty_user(place);
        Ok(())
    }

    /// A crash after the rename may have left an earlier one: each gets its own name.
    fn rename_into_trash(&self, active: &OwnedFd, place: &Place) -> Result<String, Fault> {
        for number in 0..SAME_UID {
            let name = match number {
                0 => place.uid.to_string(),
                number => format!("{}.{number}", place.uid),
            };
            let flags = RenameFlags::NOREPLACE;
            match renameat_with(active, place.case.as_str(), &self.trash, &*name, flags) {
                Ok(()) => return Ok(name),
                Err(Errno::EXIST) => (),
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(Fault::new(Kind::Io, "the trash is full of this session"))
    }

    /// The user's own directories go with the last case; what is in them stays.
    fn remove_empty_user(&self, place: &Place) {
        if let Ok(user) = open_dir(&self.root_fd, place.user.as_str().as_bytes()) {
            let _ = unlinkat(&user, "active", AtFlags::REMOVEDIR);
            let _ = unlinkat(&self.root_fd, place.user.as_str(), AtFlags::REMOVEDIR);
        }
    }

    pub(super) fn list_trash(&self) -> Result<Vec<Trashed>, Fault> {
        let mut all = Vec::new();
        for name in names(&self.trash, usize::MAX)? {
            // The rename into the trash was the directory's last change of state.
            let moved_ns = match stat_at(&self.trash, &name) {
                Ok(stat) => stamp_of(&stat).ctime_ns,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let uid = uid_of(&name);
            all.push(Trashed { name: escape_bytes(&name), uid, moved_ns });
        }
        all.sort();
        Ok(all)
    }

    pub(super) fn empty_trash(&self, uid: &Uid, stop: &AtomicBool) -> Result<(), Fault> {
        for name in names(&self.trash, usize::MAX)? {
            if uid_of(&name).as_ref() != Some(uid) {
                continue;
            }
            let stat = match stat_at(&self.trash, &name) {
                Err(Errno::NOENT) => continue,
                result => result?,
            };
            if file_type(&stat) == FileType::Directory {
                let top = open_dir(&self.trash, &name)?;
                refuse_mounts(&top)?;
                remove_all(&top, stop)?;
                unlinkat(&self.trash, &*name, AtFlags::REMOVEDIR)?;
            } else {
                unlinkat(&self.trash, &*name, AtFlags::empty())?;
            }
        }
        Ok(fsync(&self.trash)?)
    }
}

/// `{uid}` or `{uid}.{number}`.
fn uid_of(name: &[u8]) -> Option<Uid> {
    let text = std::str::from_utf8(name).ok()?;
    Uid::parse(text.split_once('.').map_or(text, |(uid, _)| uid)).ok()
}

/// Removes everything in a directory nobody else can reach.
fn remove_all(top: &OwnedFd, stop: &AtomicBool) -> Result<(), Fault> {
    let mut lifted = 0u64;
    loop {
        let batch = names(top, BATCH)?;
        if batch.is_empty() {
            return Ok(());
        }
        for name in batch {
            if stop.load(Ordering::Relaxed) {
                return Err(Fault::new(Kind::Io, "nobody waits for the removal any more"));
            }
            if !remove_simple(top, &name)? {
                let dir = open_dir(top, &name)?;
                empty_one(top, &dir, &mut lifted)?;
                drop(dir);
                unlinkat(top, &*name, AtFlags::REMOVEDIR)?;
            }
        }
    }
}

/// Removes what is in `dir`; directories that are not empty are lifted to `top`.
fn empty_one(top: &OwnedFd, dir: &OwnedFd, lifted: &mut u64) -> Result<(), Fault> {
    loop {
        let batch = names(dir, BATCH)?;
        if batch.is_empty() {
            return Ok(());
        }
        for name in batch {
            if remove_simple(dir, &name)? {
                continue;
            }
            loop {
                *lifted += 1;
                let to = format!("{lifted}.lifted");
                match renameat_with(dir, &*name, top, &*to, RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => (),
                    result => break result?,
                }
            }
        }
    }
}

/// Removes a file, a link or an empty directory; `false`: it is a directory with something in it.
fn remove_simple(dir: &OwnedFd, name: &[u8]) -> Result<bool, Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno),
        },
        Err(errno) => Err(errno),
    }
}

/// A mount beneath would be emptied with the directory, or keep it from going.
fn refuse_mounts(dir: &OwnedFd) -> Result<(), Fault> {
    let path = real_path(dir)?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    match mount_beneath(&table, &path) {
        None => Ok(()),
        Some(at) => {
            let at = escape_bytes(&at);
            Err(Fault::new(Kind::Busy, format_args!("`{at}` is mounted there; unmount it first")))
        }
    }
}

/// The first mount at or below a path, of a mountinfo table. Source: proc_pid_mountinfo(5).
fn mount_beneath(table: &[u8], path: &Path) -> Option<Vec<u8>> {
    let path = path.as_os_str().as_bytes();
    table.split(|b| *b == b'\n').find_map(|line| {
        let at = unescape_octal(line.split(|b| *b == b' ').nth(4)?);
        let rest = at.strip_prefix(path)?;
        (rest.is_empty() || rest.starts_with(b"/")).then_some(at)
    })
}

/// Space, tab, newline and backslash are written `\040` and so on.
fn unescape_octal(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) =
            (first, tail)
        {
            bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_whatever_its_name() {
        let table = b"22 27 0:21 / /proc rw - proc proc rw\n\
            40 27 254:0 /x /w/a\\040b/active/c\\134d/sub rw - ext4 /dev/vda rw\n";
        let at = |path: &str| mount_beneath(table, Path::new(path)).is_some();
        assert!(at("/w/a b/active/c\\d"));
        assert!(at("/w/a b/active/c\\d/sub"));
        assert!(!at("/w/a b/active/c"));
        assert!(!at("/w/a b/active/c\\d/sub/x"));
    }
}
