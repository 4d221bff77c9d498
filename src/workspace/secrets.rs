//! Secret values as files for mounting: root-only on the host, in memory where `/run` or
//! `/dev/shm` is, else beside the workspaces.
//!
//! The file itself may be read by all (0444), so that whatever user the container runs as can; the
//! directories above it are 0700, which a mount of the file alone does not inherit.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat, unlinkat};
use rustix::io::Errno;
use sha2::Digest as _;

use super::beneath::{Fault, names, open, open_dir, reopen};
use super::notes;
use super::place::is_file;
use super::{Inner, own_dir};
use crate::model::{RelPath, Sha256, Uid};
use crate::world::WorkspaceErrorKind as Kind;

/// Largest secret.
const MAX_SECRET: u64 = 1024 * 1024;
/// Source: `<linux/magic.h>`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Where secrets of a root lie, and the path of it.
fn store(inner: &Inner) -> Result<(OwnedFd, PathBuf), Fault> {
    use std::os::unix::ffi::OsStrExt as _;
    for memory in ["/run", "/dev/shm"] {
        let Some(fd) = open_memory(memory) else { continue };
        let all = own_dir(&fd, "docket-secrets")?;
        // Anybody may make a directory in /dev/shm, and would be its owner still.
        if fstat(&all)?.st_uid != rustix::process::geteuid().as_raw() {
            continue;
        }
        let sum = sha2::Sha256::digest(inner.root.as_os_str().as_bytes());
        let root = Sha256(sum.into()).hex()[..16].to_owned();
        let path = Path::new(memory).join("docket-secrets").join(&root);
        return Ok((own_dir(&all, &root)?, path));
    }
    Ok((own_dir(&inner.docket, "secrets")?, inner.root.join(".docket/secrets")))
}

/// A directory, if it is in memory.
fn open_memory(path: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty()).ok()?;
    (fstatfs(&fd).ok()?.f_type == TMPFS_MAGIC).then_some(fd)
}

impl Inner {
    pub(super) fn stage_secret(
        &self,
        uid: &Uid,
        name: &str,
        source: &Path,
        allowed: &[PathBuf],
    ) -> Result<PathBuf, Fault> {
        match RelPath::parse(name.as_bytes()) {
            Ok(path) if path.depth() == 1 => (),
            _ => return Err(Fault::new(Kind::Io, "the secret's name is no file name")),
        }
        let value = value_of(source, allowed)?;
        let (store, path) = store(self)?;
        let dir = own_dir(&store, uid.as_str())?;
        let path = path.join(uid.as_str()).join(name);
        // An unchanged one stays the same file: a running container has it mounted.
        if std::fs::read(&path).is_ok_and(|now| now == value) {
            return Ok(path);
        }
        notes::put(&dir, name, &value, Mode::from_raw_mode(0o444))?;
        Ok(path)
    }

    pub(super) fn drop_secrets(&self, uid: &Uid) -> Result<(), Fault> {
        let (store, _) = store(self)?;
        let dir = match open_dir(&store, uid.as_str().as_bytes()) {
            Err(Errno::NOENT) => return Ok(()),
            result => result?,
        };
        for name in names(&dir, usize::MAX)? {
            unlinkat(&dir, &*name, AtFlags::empty())?;
        }
        match unlinkat(&store, uid.as_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Reads a secret's source: a regular file beneath an allowed directory, no link on the way.
fn value_of(source: &Path, allowed: &[PathBuf]) -> Result<Vec<u8>, Fault> {
    use std::os::unix::ffi::OsStrExt as _;
    let beneath = |allowed: &PathBuf| {
        let rest = source.strip_prefix(allowed).ok()?;
        let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
        (plain && source.is_absolute()).then(|| (allowed.clone(), rest.to_owned()))
    };
    let Some((directory, rest)) = allowed.iter().find_map(beneath) else {
        return Err(Fault::new(Kind::Io, "it is in none of the directories in allow.secretFiles"));
    };
    // The allowed directory is the operator's own word; what is in it may be anybody's.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, &directory, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    let entry = match open(&directory, rest.as_os_str().as_bytes(), flags, resolve) {
        Err(Errno::LOOP) => return Err(Fault::new(Kind::Io, "links are not followed")),
        result => result?,
    };
    if !is_file(&fstat(&entry)?) {
        return Err(Fault::new(Kind::Io, "it is no regular file (links are not followed)"));
    }
    let mut value = Vec::new();
    std::fs::File::from(reopen(&entry)?).take(MAX_SECRET + 1).read_to_end(&mut value)?;
    if value.len() as u64 > MAX_SECRET {
        return Err(Fault::new(Kind::Io, "it is larger than 1 MiB"));
    }
    Ok(value)
}
