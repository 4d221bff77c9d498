//! The only way into a workspace: opens beneath a descriptor that never follow a link, and looks
//! at what was opened through its descriptor. Everything else in this folder is built on these.

use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec};
use rustix::io::Errno;

use crate::model::{Stamp, WorkspaceId, escape_bytes};
use crate::world::WorkspaceErrorKind as Kind;

/// No way out, no links, no magic links, no other mount. Source: THREATS T1, T2.
pub(super) const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Marks the inode of a placeholder: its content is not here. Source: LAZY.
pub(super) const XATTR_STUB: &str = "trusted.docket.stub";
/// The session a workspace directory was made for.
pub(super) const XATTR_UID: &str = "trusted.docket.uid";

/// What went wrong below the border, before operation and path are known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Fault {
    /// What may be done about it.
    pub kind: Kind,
    /// For people, one line.
    pub message: String,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(kind: Kind, message: impl Display) -> Fault {
        Fault { kind, message: message.to_string() }
    }

    /// What the caller last saw is not what is there.
    pub fn changed(message: impl Display) -> Fault {
        Fault::new(Kind::Changed, message)
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        let kind = match errno {
            Errno::NOENT => Kind::NotFound,
            Errno::NOSPC | Errno::DQUOT => Kind::NoSpace,
            Errno::BUSY => Kind::Busy,
            // A component is a link or no directory: something else is in the place.
            Errno::LOOP | Errno::NOTDIR => Kind::Changed,
            _ => Kind::Io,
        };
        Fault { kind, message: std::io::Error::from(errno).to_string() }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        match Errno::from_io_error(&error) {
            Some(errno) => Fault::from(errno),
            None => Fault::new(Kind::Io, error),
        }
    }
}

/// Opens `path` beneath `dir`.
pub(super) fn open(
    dir: impl AsFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut left = 64;
    loop {
        match fs::openat2(&dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel could not rule out a race; it says to try again.
            Err(Errno::AGAIN | Errno::INTR) if left > 0 => left -= 1,
            result => return result,
        }
    }
}

/// Opens a directory beneath `dir` for listing and as the base of further calls.
pub(super) fn open_dir(dir: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(dir, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, RESOLVE)
}

/// Opens whatever is at `path` without opening it: for fstat, xattrs and [`reopen`]. A FIFO does
/// not block, a placeholder is not filled, a device does nothing.
pub(super) fn open_path(dir: impl AsFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    open(dir, path, OFlags::PATH | OFlags::NOFOLLOW, RESOLVE)
}

/// Opens the regular file behind an O_PATH descriptor for reading: exactly that inode. The link
/// under `/proc` is our own descriptor's.
pub(super) fn reopen(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let own = link_of(fd);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match fs::openat(CWD, &*own, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may ask not to touch the access time.
        Err(Errno::PERM) => fs::openat(CWD, &*own, flags, Mode::empty()),
        result => result,
    }
}

/// `/proc/self/fd/N`, for the calls that take no O_PATH descriptor.
pub(super) fn link_of(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The absolute path the kernel knows a directory by.
pub(super) fn real_path(fd: &OwnedFd) -> Result<PathBuf, Errno> {
    use std::os::unix::ffi::OsStringExt as _;
    let target = fs::readlinkat(CWD, &*link_of(fd), Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes())))
}

/// Whether the inode is marked as a placeholder. Does not open it.
pub(super) fn is_placeholder(fd: &OwnedFd) -> Result<bool, Errno> {
    match fs::getxattr(&*link_of(fd), XATTR_STUB, &mut [0u8; 0]) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// What a placeholder's inode says it stands for; `None`: it is none. Does not open it.
pub(super) fn stub_value(fd: &OwnedFd) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = [0u8; 4096];
    match fs::getxattr(&*link_of(fd), XATTR_STUB, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::RANGE) => Ok(Some(Vec::new())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The link's text behind an O_PATH descriptor of a symlink, or at `name` in `dir`.
pub(super) fn link_text(dir: impl AsFd, name: &[u8]) -> Result<String, Errno> {
    Ok(escape_bytes(fs::readlinkat(dir, name, Vec::new())?.as_bytes()))
}

/// Looks at `name` in `dir` without following it.
pub(super) fn stat_at(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// What kind of inode.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Permission bits without setuid, setgid and sticky.
pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o777
}

/// What tells that a file is unchanged.
pub(super) fn stamp_of(stat: &Stat) -> Stamp {
    let nanos = |seconds: i64, nanos: u64| {
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::try_from(nanos).unwrap_or(0))
    };
    Stamp {
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// The stamp of what a descriptor names.
pub(super) fn stamp_fd(fd: impl AsFd) -> Result<Stamp, Errno> {
    Ok(stamp_of(&fs::fstat(fd)?))
}

/// Equal but for ctime, which every rename moves.
pub(super) fn same_content(a: Stamp, b: Stamp) -> bool {
    (a.ino, a.size, a.mtime_ns) == (b.ino, b.size, b.mtime_ns)
}

/// Which directory a descriptor names.
pub(super) fn id_of(fd: impl AsFd) -> Result<WorkspaceId, Errno> {
    let stat = fs::fstat(fd)?;
    Ok(WorkspaceId { dev: stat.st_dev, ino: stat.st_ino })
}

/// Nanoseconds since the epoch as the kernel takes them.
pub(super) fn timespec(ns: i64) -> Timespec {
    Timespec { tv_sec: ns.div_euclid(1_000_000_000), tv_nsec: ns.rem_euclid(1_000_000_000) }
}

/// The names in a directory but `.` and `..`, at most `limit` of them.
pub(super) fn names(dir: &OwnedFd, limit: usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            if names.len() == limit {
                break;
            }
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
