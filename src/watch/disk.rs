//! Looks at the watched directory: names, stamps, contents. Nothing outside of it is ever read:
//! every open begins at the root's descriptor and the kernel keeps it beneath.
//!
//! Links are followed only inside the root, which is how a mounted ConfigMap swaps all its files
//! at once (`x.yaml -> ..data/x.yaml`, `..data -> ..2026_11_23`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, statx};
use rustix::io::Errno;

use super::settle::{Look, Stamp};
use crate::spec::{FILE_MAX, is_spec_name};

/// Deepest sub-directory.
const DEPTH_MAX: u32 = 32;
/// What lets others than the owner write.
const WRITABLE: u32 = 0o022;

/// Device, inode and time of birth (inodes are used again): another directory under the same
/// path is another root.
pub(super) type Identity = (u64, u64, u64);

/// The watched directory, opened.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    pub identity: Identity,
    mode: u32,
    /// Specs that others can write are taken too.
    writable: bool,
}

/// What one name turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A spec file, or something in the place of one.
    Spec(Look),
    /// A directory: its insides are found by a listing.
    Directory,
    /// Nothing, or nothing of ours.
    Nothing,
}

/// Whether a name, or a directory it is in, is never looked at.
pub(super) fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

impl Root {
    /// Opens the directory; the path to it may lead over links.
    pub(super) fn open(path: &Path, writable: bool) -> io::Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let birth = statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).map_or(0, |more| {
            let seconds = u64::try_from(more.stx_btime.tv_sec).unwrap_or_default();
            seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::from(more.stx_btime.tv_nsec))
        });
        let identity = (stat.st_dev, stat.st_ino, birth);
        Ok(Root { fd, identity, mode: stat.st_mode, writable })
    }

    /// Why nothing in it is trusted, if so.
    pub(super) fn exposed(&self) -> Option<String> {
        let open = self.mode & WRITABLE != 0 && !self.writable;
        open.then(|| {
            format!(
                "others can write to it (mode {:04o}): chmod go-w it, or set allow.writableSpecs",
                self.mode & 0o7777
            )
        })
    }

    /// Every spec file under the root.
    pub(super) fn list(&self) -> io::Result<BTreeMap<String, Look>> {
        let mut all = BTreeMap::new();
        let top = rustix::fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())?;
        self.list_in(&top, "", 0, &mut all)?;
        Ok(all)
    }

    fn list_in(
        &self,
        fd: &OwnedFd,
        prefix: &str,
        depth: u32,
        all: &mut BTreeMap<String, Look>,
    ) -> io::Result<()> {
        let stat = rustix::fs::fstat(fd)?;
        let exposed = depth > 0 && stat.st_mode & WRITABLE != 0 && !self.writable;
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes().starts_with(b".") {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                kind = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(_) => continue,
                };
            }
            let shown = name.to_string_lossy();
            let path = format!("{prefix}{shown}");
            if kind == FileType::Directory {
                let inner = rustix::fs::openat(fd, name, DIRECTORY, Mode::empty());
                match inner {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    // The whole listing is in doubt: files below may be there or not.
                    Err(errno) => return Err(errno.into()),
                    Ok(_) if depth >= DEPTH_MAX => {}
                    Ok(inner) => self.list_in(&inner, &format!("{path}/"), depth + 1, all)?,
                }
                continue;
            }
            if !is_spec_name(name.to_bytes()) {
                continue;
            }
            if name.to_str().is_err() {
                all.insert(path, Look::Refused("its name is not UTF-8".to_owned()));
            } else if exposed {
                let why = format!("others can write to {prefix}: chmod go-w it");
                all.insert(path, Look::Refused(why));
            } else {
                let found = match kind {
                    FileType::Symlink => self.linked(&path),
                    _ => match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => self.judged(&stat),
                        Err(Errno::NOENT) => Found::Nothing,
                        Err(errno) => Found::Spec(Look::Refused(errno.to_string())),
                    },
                };
                if let Found::Spec(look) = found {
                    all.insert(path, look);
                }
            }
        }
        Ok(())
    }

    /// Looks at one name. Those in a sub-directory are judged as a listing would.
    pub(super) fn look(&self, path: &str) -> Found {
        let name = path.rsplit('/').next().unwrap_or(path);
        if is_hidden(path) {
            return Found::Nothing;
        }
        let parent = match path.rsplit_once('/') {
            None => Ok(None),
            Some((parent, _)) => self.open_beneath(parent, DIRECTORY, NO_LINKS).map(Some),
        };
        let Ok(parent) = parent else { return Found::Nothing };
        let dir = parent.as_ref().unwrap_or(&self.fd);
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Found::Nothing,
            Err(errno) => return Found::Spec(Look::Refused(errno.to_string())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Directory,
            _ if !is_spec_name(name.as_bytes()) => Found::Nothing,
            // Whoever owns the directory between decides: left to the listing.
            _ if parent.as_ref().is_some_and(|parent| self.is_exposed(parent)) => Found::Directory,
            FileType::Symlink => self.linked(path),
            _ => self.judged(&stat),
        }
    }

    fn is_exposed(&self, directory: &OwnedFd) -> bool {
        !self.writable
            && rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_mode & WRITABLE != 0)
    }

    /// What a link leads to, if that is beneath the root.
    fn linked(&self, path: &str) -> Found {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match self.open_beneath(path, flags, LINKS_INSIDE) {
            Err(Errno::XDEV | Errno::LOOP) => {
                Found::Spec(Look::Refused("a link that leads outside is not followed".to_owned()))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Found::Nothing,
            Err(errno) => Found::Spec(Look::Refused(errno.to_string())),
            Ok(target) => match rustix::fs::fstat(&target) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    Found::Nothing
                }
                Ok(stat) => self.judged(&stat),
                Err(errno) => Found::Spec(Look::Refused(errno.to_string())),
            },
        }
    }

    fn judged(&self, stat: &Stat) -> Found {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Found::Spec(Look::Refused("it is not a regular file".to_owned()));
        }
        if stat.st_mode & WRITABLE != 0 && !self.writable {
            let mode = stat.st_mode & 0o7777;
            return Found::Spec(Look::Refused(format!(
                "others can write it (mode {mode:04o}): chmod go-w it, or set allow.writableSpecs"
            )));
        }
        Found::Spec(Look::File(stamp(stat)))
    }

    /// Reads a file and the stamp its contents have. `None`: it changed while it was read.
    pub(super) fn read(&self, path: &str) -> io::Result<Option<(Stamp, Vec<u8>)>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_beneath(path, flags, LINKS_INSIDE)?;
        let before = rustix::fs::fstat(&fd)?;
        let Found::Spec(Look::File(before)) = self.judged(&before) else { return Ok(None) };
        let mut file = File::from(fd);
        let mut contents = Vec::new();
        file.by_ref().take(FILE_MAX as u64 + 1).read_to_end(&mut contents)?;
        let after = stamp(&rustix::fs::fstat(&file)?);
        Ok((before == after).then_some((after, contents)))
    }

    fn open_beneath(
        &self,
        path: &str,
        flags: OFlags,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd, Errno> {
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                // A rename went on beside the look.
                Err(Errno::AGAIN) if tries < 16 => tries += 1,
                // Kernels before 5.6, and sandboxes: no link at all is followed there.
                Err(Errno::NOSYS) => {
                    let flags = flags | OFlags::NOFOLLOW;
                    return rustix::fs::openat(&self.fd, path, flags, Mode::empty());
                }
                other => return other,
            }
        }
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const LINKS_INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);
const NO_LINKS: ResolveFlags = LINKS_INSIDE.union(ResolveFlags::NO_SYMLINKS);

fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        inode: (stat.st_dev, stat.st_ino),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
    }
}

/// The path relative to the root as text, if it is text.
pub(super) fn relative(root: &Path, path: &Path) -> Option<String> {
    let rest: &OsStr = path.strip_prefix(root).ok()?.as_os_str();
    std::str::from_utf8(rest.as_bytes()).ok().map(str::to_owned)
}
