//! The directory store's system calls. They block; the door runs them off the runtime's threads.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags, Stat,
    flock, fstat, fsync, mkdirat, openat, openat2, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use sha2::Digest as _;
use tokio::sync::mpsc::Receiver;

use super::{CHUNK, Fault, Inner, Piece, Seen};
use crate::crash::{self, Effect, Side};
use crate::model::{Sha256, Timestamp, escape_bytes};
use crate::world::{ObjectMeta, StoreErrorKind as Kind, Swap};

/// Where objects are written first. No user's name begins with a dot.
const STAGING: &str = ".docket-staging";
/// What a killed operator left there goes after so many seconds; another may be writing now.
const LEFT_OVER: i64 = 3600;
/// Longest component. Source: NAME_MAX.
const NAME_MAX: usize = 255;

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        let kind = match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Kind::Denied,
            Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV | Errno::INVAL => Kind::Invalid,
            _ => Kind::Unavailable,
        };
        Fault::new(kind, std::io::Error::from(errno))
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Fault::new(Kind::Unavailable, error),
        }
    }
}

/// Whether a key is a path beneath the root.
pub(super) fn check(key: &str) -> Result<(), Fault> {
    let bad = |why: &str| Err(Fault::new(Kind::Invalid, why));
    if key.contains('\0') {
        return bad("the key holds a NUL byte");
    }
    for part in key.split('/') {
        match part {
            "" => return bad("the key is empty or has an empty component"),
            "." | ".." => return bad("the key has a `.` or `..` component"),
            STAGING => return bad("the key is kept for objects that are being written"),
            part if part.len() > NAME_MAX => {
                return bad("a component of the key is longer than 255 bytes");
            }
            _ => (),
        }
    }
    Ok(())
}

/// The root and where objects are staged.
pub(super) fn open_root(root: &Path) -> Result<(OwnedFd, OwnedFd), Fault> {
    let mut above: Vec<&Path> = root.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
    above.reverse();
    for path in above {
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST | Errno::ISDIR) => (),
            // One that may not be made may be there: opening it tells.
            Err(errno) if Fault::from(errno).kind == Kind::Denied => (),
            Err(errno) => return Err(errno.into()),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, root, flags, Mode::empty())?;
    match mkdirat(&fd, STAGING, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => (),
        Err(errno) => return Err(errno.into()),
    }
    let staging = openat(&fd, STAGING, flags | OFlags::NOFOLLOW, Mode::empty())?;
    sweep(&staging)?;
    Ok((fd, staging))
}

/// Whether this is the directory that stands at the path; an error if none does.
pub(super) fn stands_at(root: &OwnedFd, path: &Path) -> Result<bool, Fault> {
    let there = match rustix::fs::stat(path) {
        Ok(there) => there,
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let message = format!("the store's directory {} is not there", path.display());
            return Err(Fault::new(Kind::Unavailable, message));
        }
        Err(errno) => return Err(errno.into()),
    };
    let ours = fstat(root)?;
    Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino))
}

/// Removes what a killed operator left.
fn sweep(staging: &OwnedFd) -> Result<(), Fault> {
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    for entry in Dir::read_from(staging)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(staging, name, AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| now.saturating_sub(stat.st_mtime) > LEFT_OVER) {
            let _somebody_else_did = unlinkat(staging, name, AtFlags::empty());
        }
    }
    Ok(())
}

fn seen(stat: &Stat) -> Seen {
    let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
    Seen {
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime_ns: ns(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime_ns: ns(stat.st_ctime, stat.st_ctime_nsec as i64),
    }
}

fn parent_and_name(key: &str) -> (Option<&str>, &str) {
    match key.rsplit_once('/') {
        Some((parent, name)) => (Some(parent), name),
        None => (None, key),
    }
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

/// Bytes of an object, never more or fewer than announced.
pub(super) struct Reading {
    file: File,
    left: u64,
}

impl Reading {
    pub fn new(file: File, size: u64) -> Reading {
        Reading { file, left: size }
    }

    /// The next bytes; `None` at the end.
    pub fn step(&mut self) -> Result<Option<Bytes>, Fault> {
        if self.left == 0 {
            let more = self.file.read(&mut [0])? > 0;
            let longer = || Fault::new(Kind::Corrupt, "the object became longer while it was read");
            return if more { Err(longer()) } else { Ok(None) };
        }
        let want = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = Vec::with_capacity(want);
        (&mut self.file).take(want as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Err(Fault::new(Kind::Corrupt, "the object became shorter while it was read"));
        }
        self.left -= chunk.len() as u64;
        Ok(Some(Bytes::from(chunk)))
    }
}

/// A file in staging; removed unless it was given its name.
struct Staged<'a> {
    inner: &'a Inner,
    name: String,
    file: File,
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // Gone if it was given its name; what stays is swept at a later start.
        let _ = unlinkat(&self.inner.staging, &*self.name, AtFlags::empty());
    }
}

impl Inner {
    fn open_dir(&self, path: Option<&str>) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path.unwrap_or("."), flags, Mode::empty(), beneath())
    }

    /// The object, if it is there. What is no regular file is none.
    pub fn open(&self, key: &str) -> Result<Option<(File, Seen)>, Fault> {
        check(key)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match openat2(&self.root, key, flags, Mode::empty(), beneath()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.must_stand()?;
                return Ok(None);
            }
            // A socket cannot be opened, and a link is not followed: neither is an object.
            Err(Errno::NXIO | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let stat = fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        Ok(Some((File::from(fd), seen(&stat))))
    }

    /// Nothing is absent from a store that is itself gone.
    fn must_stand(&self) -> Result<(), Fault> {
        match fstat(&self.root)?.st_nlink {
            0 => Err(Fault::new(Kind::Unavailable, "the store's directory was removed")),
            _ => Ok(()),
        }
    }

    /// Whether the key is taken by this content; taken by another is an error.
    pub fn is_there(&self, key: &str, size: u64, sha256: Sha256) -> Result<bool, Fault> {
        let Some((mut file, seen)) = self.open(key)? else { return Ok(false) };
        let taken = || Fault::new(Kind::Invalid, "the key is taken by another content");
        if seen.size != size {
            return Err(taken());
        }
        let mut sum = sha2::Sha256::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => sum.update(&chunk[..read]),
            }
        }
        if sum.finalize()[..] != sha256.0 {
            return Err(taken());
        }
        // Whoever wrote it may not have come to syncing it.
        fsync(&file)?;
        fsync(&self.open_dir(parent_and_name(key).0)?)?;
        Ok(true)
    }

    fn staged(&self) -> Result<Staged<'_>, Fault> {
        self.must_stand()?;
        let number = self.serial.fetch_add(1, Ordering::Relaxed);
        let time = clock_gettime(ClockId::Realtime);
        let name = format!("{}-{:x}-{:x}-{number}", std::process::id(), time.tv_sec, time.tv_nsec);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.staging, &*name, flags | OFlags::NOFOLLOW, mode)?;
        Ok(Staged { inner: self, name, file: File::from(file) })
    }

    pub fn put_new(
        &self,
        key: &str,
        mut pieces: Receiver<Piece>,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), Fault> {
        check(key)?;
        let mut staged = self.staged()?;
        let mut sum = sha2::Sha256::new();
        let mut written = 0;
        loop {
            match pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    written += bytes.len() as u64;
                    sum.update(&bytes);
                    staged.file.write_all(&bytes)?;
                }
                Some(Piece::End) => break,
                None => return Err(Fault::new(Kind::SourceChanged, "the bytes ended too early")),
            }
        }
        if written != size || sum.finalize()[..] != sha256.0 {
            return Err(Fault::new(Kind::SourceChanged, "the bytes are not those announced"));
        }
        fsync(&staged.file)?;
        crash::point(Side::Amid, Effect::PutObject);
        let (parent, name) = parent_and_name(key);
        let directory = self.ensure(parent)?;
        if self.link(&staged, &directory, name)? || self.is_there(key, size, sha256)? {
            return Ok(fsync(&directory)?);
        }
        Err(Fault::new(Kind::Invalid, "something else stands under the key"))
    }

    /// Gives a staged file its name; `false` if that is taken.
    fn link(&self, staged: &Staged<'_>, directory: &OwnedFd, name: &str) -> Result<bool, Fault> {
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(&self.staging, &*staged.name, directory, name, flags) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub fn put_if(
        &self,
        key: &str,
        bytes: &[u8],
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, Fault> {
        check(key)?;
        let mut staged = self.staged()?;
        staged.file.write_all(bytes)?;
        // Files' times move with the kernel's ticks only.
        staged.file.set_modified(at.into())?;
        fsync(&staged.file)?;
        crash::point(Side::Amid, Effect::SwapManifest);
        let (parent, name) = parent_and_name(key);
        let directory = self.ensure(parent)?;
        // Let go of when the descriptor is closed.
        flock(&directory, FlockOperation::LockExclusive)?;
        let mut etag = None;
        if let Some((mut file, seen)) = self.open(key)? {
            if holds(&mut file, bytes)? {
                fsync(&file)?;
                fsync(&directory)?;
                return Ok(Swap::Done(seen.etag()));
            }
            etag = Some(seen.etag());
        }
        if etag.as_deref() != expected {
            return Ok(Swap::Lost);
        }
        if expected.is_some() {
            renameat(&self.staging, &*staged.name, &directory, name)?;
        } else if !self.link(&staged, &directory, name)? {
            return Err(Fault::new(Kind::Invalid, "something else stands under the key"));
        }
        fsync(&directory)?;
        Ok(Swap::Done(seen(&fstat(&staged.file)?).etag()))
    }

    /// Opens a directory of keys, making what is missing. One that is an object is refused.
    fn ensure(&self, path: Option<&str>) -> Result<OwnedFd, Fault> {
        let mut at = self.open_dir(None)?;
        let Some(path) = path else { return Ok(at) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        for part in path.split('/') {
            let mut next = openat(&at, part, flags, Mode::empty());
            if matches!(next, Err(Errno::NOENT)) {
                match mkdirat(&at, part, Mode::RWXU) {
                    Ok(()) => fsync(&at)?,
                    Err(Errno::EXIST) => (),
                    Err(errno) => return Err(errno.into()),
                }
                next = openat(&at, part, flags, Mode::empty());
            }
            at = next.map_err(|errno| match errno {
                Errno::NOTDIR | Errno::LOOP => {
                    Fault::new(Kind::Invalid, format_args!("`{part}` in the key is an object"))
                }
                errno => errno.into(),
            })?;
        }
        Ok(at)
    }

    /// Everything whose key begins with `prefix`, sorted by key.
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, Fault> {
        let (parent, _) = parent_and_name(prefix);
        if let Some(parent) = parent {
            check(parent)?;
        }
        let mut found = Vec::new();
        let mut waiting = vec![parent.map_or_else(String::new, |parent| format!("{parent}/"))];
        while let Some(folder) = waiting.pop() {
            self.list_one(&folder, prefix, &mut found, &mut waiting)?;
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn list_one(
        &self,
        folder: &str,
        prefix: &str,
        found: &mut Vec<ObjectMeta>,
        waiting: &mut Vec<String>,
    ) -> Result<(), Fault> {
        let path = Some(folder.trim_end_matches('/')).filter(|path| !path.is_empty());
        let directory = match self.open_dir(path) {
            Ok(directory) => directory,
            // Not there, or not a directory of keys.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return self.must_stand(),
            Err(errno) => return Err(errno.into()),
        };
        self.must_stand()?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || (path.is_none() && name == STAGING.as_bytes()) {
                continue;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let stat = match statat(directory.as_fd(), entry.file_name(), flags) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !matches!(kind, FileType::RegularFile | FileType::Directory) {
                continue;
            }
            let Ok(name) = std::str::from_utf8(name) else {
                let path = escape_bytes(&[folder.as_bytes(), name].concat());
                let text = format!("`{path}` is not UTF-8, so it has no key: rename it");
                return Err(Fault::new(Kind::Invalid, text));
            };
            let key = format!("{folder}{name}");
            if kind == FileType::RegularFile && key.starts_with(prefix) {
                found.push(seen(&stat).meta(key));
            } else if kind == FileType::Directory {
                let inside = format!("{key}/");
                if inside.starts_with(prefix) || prefix.starts_with(&inside) {
                    waiting.push(inside);
                }
            }
        }
        Ok(())
    }

    pub fn delete(&self, key: &str) -> Result<(), Fault> {
        check(key)?;
        let (parent, name) = parent_and_name(key);
        let directory = match self.open_dir(parent) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return self.must_stand(),
            Err(errno) => return Err(errno.into()),
        };
        match unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) => Ok(fsync(&directory)?),
            Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn holds(file: &mut File, bytes: &[u8]) -> Result<bool, Fault> {
    let mut there = Vec::with_capacity(bytes.len());
    file.take(bytes.len() as u64 + 1).read_to_end(&mut there)?;
    Ok(there == bytes)
}
