//! Placeholders: sparse files of the true size, name and time, whose content comes when they are
//! opened.
//!
//! One is made whole in staging, marked there, and only then renamed into the workspace: visible
//! means marked. Its access time is older than its modification time by a set amount: whoever
//! reads it while nothing guards it trips that wire.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{
    Mode, OFlags, RenameFlags, Timestamps, XattrFlags, fchmod, fchown, fsetxattr, fstat, fsync,
    ftruncate, futimens, openat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::beneath::{
    Fault, XATTR_STUB, is_placeholder, open_path, reopen, stamp_fd, stamp_of, stub_value, timespec,
};
use super::place::{ids, is_file, open_entry};
use super::{About, Inner, Local};
use crate::model::{LazyMode, LocalKind, ManifestEntry, Stamp, Stub};
use crate::world::{Marks, Place, Placeholder, WorkspaceError, WorkspaceErrorKind as Kind};

/// How much older the access time of an untouched placeholder is than its modification time;
/// twice that while it is being filled.
const WIRE_NS: i64 = 1_000_000_000;
/// Directories that are synced one by one; beyond that the whole file system is.
const DIRECTORIES: usize = 16;

/// How large files come in this root.
#[derive(Debug)]
pub(super) struct Lazy {
    pub mode: LazyMode,
    pub marks: Option<Arc<dyn Marks>>,
    /// Whether access times tell who read a placeholder.
    pub wired: bool,
}

/// What the times of a placeholder tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Nobody was at it.
    Untouched,
    /// docket began to fill it.
    Begun,
    /// Somebody read it, wrote to it or set its times.
    Tripped,
}

impl Wire {
    /// The access time that says so.
    pub fn atime_ns(self, stub: &Stub) -> i64 {
        let older = if self == Wire::Begun { 2 * WIRE_NS } else { WIRE_NS };
        stub.mtime_ns.saturating_sub(older)
    }

    /// What these times tell. A write by others moves the modification time, a fill does as well.
    pub fn of(stub: &Stub, stat: &rustix::fs::Stat) -> Wire {
        let nanos = i64::try_from(stat.st_atime_nsec).unwrap_or_default();
        let atime = stat.st_atime.saturating_mul(1_000_000_000).saturating_add(nanos);
        if atime == Wire::Begun.atime_ns(stub) {
            Wire::Begun
        } else if atime == Wire::Untouched.atime_ns(stub)
            && stamp_of(stat).mtime_ns == stub.mtime_ns
        {
            Wire::Untouched
        } else {
            Wire::Tripped
        }
    }
}

/// How large files come; nothing is found out yet: not when they are opened.
pub(super) fn mode(inner: &Inner) -> LazyMode {
    let unknown = || LazyMode::Stub { reason: "it was not found out".to_owned() };
    inner.lazy.get().map_or_else(unknown, |lazy| lazy.mode.clone())
}

/// Where access times are not kept, nothing tells who read what nobody guarded.
pub(super) fn caveat(inner: &Inner) -> Option<String> {
    let lazy = inner.lazy.get()?;
    (lazy.mode == LazyMode::OnAccess && !lazy.wired).then(|| {
        "access times are not kept here (noatime): should gate and operator ever be killed \
         together, it cannot be told who read a placeholder meanwhile"
            .to_owned()
    })
}

/// The key of the canary: no object of any store.
pub const CANARY: &str = ".docket/canary";

/// A placeholder in staging that nobody needs, to see whether opens are held back.
#[derive(Debug)]
pub struct Canary {
    inner: Arc<Inner>,
    name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = unlinkat(&self.inner.staging, &*self.name, rustix::fs::AtFlags::empty());
    }
}

impl Local {
    /// `.docket`, where the gate is.
    pub fn docket_dir(&self) -> PathBuf {
        self.inner.root.join(".docket")
    }

    /// Places a canary that stands for `content`. Blocks.
    ///
    /// # Errors
    /// The system's own words: placeholders cannot be had here.
    pub fn canary(&self, content: &[u8], marks: &dyn Marks) -> Result<Canary, String> {
        let stub = Stub {
            key: CANARY.to_owned(),
            size: content.len() as u64,
            mtime_ns: 1_000_000_000_000_000_000,
            sha256: Some(crate::sync::sum(content)),
            deadline: Duration::from_secs(5),
        };
        let name = self.inner.fresh_name("canary");
        let made = self.inner.stage_placeholder(&name, &stub, 0o600, (u32::MAX, u32::MAX), marks);
        let path = self.docket_dir().join("staging").join(&name);
        let canary = Canary { inner: Arc::clone(&self.inner), name, path };
        made.map(|()| canary).map_err(unfit)
    }

    /// Says how large files come here, once.
    pub fn set_lazy(&self, mode: LazyMode, marks: Option<Arc<dyn Marks>>) {
        let name = self.inner.fresh_name("wire");
        let wired = self.inner.try_wire(&name);
        let _ = unlinkat(&self.inner.staging, &*name, rustix::fs::AtFlags::empty());
        if let Err(errno) = wired {
            tracing::debug!(%errno, "whether access times are kept cannot be tried");
        }
        let wired = wired.unwrap_or_default();
        let _said_before = self.inner.lazy.set(Lazy { mode, marks, wired });
    }
}

/// Why placeholders cannot be had.
fn unfit(errno: Errno) -> String {
    match errno {
        Errno::PERM => "EPERM: no CAP_SYS_ADMIN in the initial user namespace".to_owned(),
        Errno::OPNOTSUPP => "EOPNOTSUPP: the file system does not take placeholders".to_owned(),
        errno => format!("a placeholder cannot be made: {}", std::io::Error::from(errno)),
    }
}

impl Inner {
    /// Whether the access time of a file that is older than its modification moves with a read,
    /// as a placeholder's must.
    fn try_wire(&self, name: &str) -> Result<bool, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&self.staging, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        rustix::io::write(&file, b"docket")?;
        let old = timespec(WIRE_NS);
        futimens(
            &file,
            &Timestamps { last_access: old, last_modification: timespec(2 * WIRE_NS) },
        )?;
        rustix::io::pread(&file, &mut [0u8; 6], 0)?;
        Ok(fstat(&file)?.st_atime != old.tv_sec)
    }

    /// Places many; one that fails is told of and holds up no other.
    pub(super) fn place_all(
        &self,
        place: &Place,
        files: Vec<Placeholder>,
    ) -> Result<Vec<Result<(), WorkspaceError>>, Fault> {
        let Some(Lazy { mode: LazyMode::OnAccess, marks: Some(marks), .. }) = self.lazy.get()
        else {
            return Err(Fault::new(Kind::Io, "files do not come when they are opened here"));
        };
        let case = self.open_case(place)?;
        let mut touched: Vec<OwnedFd> = Vec::new();
        let mut last: Option<(Option<crate::model::RelPath>, OwnedFd)> = None;
        let mut all = Vec::with_capacity(files.len());
        for file in files {
            let at = file.path.parent();
            let parent = match last.take() {
                Some((path, fd)) if path == at => Ok(fd),
                other => {
                    touched
                        .extend(other.map(|(_, fd)| fd).filter(|_| touched.len() <= DIRECTORIES));
                    self.ensure_path(&case, at.as_ref(), file.owner)
                }
            };
            let placed = parent.and_then(|parent| {
                let placed = self.place_one(&parent, &file, &**marks);
                last = Some((at, parent));
                placed
            });
            let about = || About::file("place", place, &file.path);
            all.push(placed.map_err(|fault| about().error(fault)));
        }
        touched.extend(last.map(|(_, fd)| fd));
        if touched.len() > DIRECTORIES {
            rustix::fs::syncfs(&case)?;
        } else {
            for directory in touched {
                fsync(&directory)?;
            }
        }
        Ok(all)
    }

    fn place_one(
        &self,
        parent: &OwnedFd,
        file: &Placeholder,
        marks: &dyn Marks,
    ) -> Result<(), Fault> {
        let name = self.fresh_name("lazy");
        let target = file.path.file_name();
        let staged = self.stage_placeholder(&name, &file.stub, file.mode, file.owner, marks);
        let placed = staged.map_err(Fault::from).and_then(|()| {
            let flags = RenameFlags::NOREPLACE;
            match renameat_with(&self.staging, &*name, parent, target, flags) {
                Ok(()) => Ok(()),
                Err(Errno::EXIST) if file.over => self.exchange(&name, parent, target),
                Err(Errno::EXIST) => Err(Fault::changed("there is something already")),
                Err(errno) => Err(errno.into()),
            }
        });
        // What lies there now is ours that found no place, or the placeholder that it replaced.
        let _gone_already = unlinkat(&self.staging, &*name, rustix::fs::AtFlags::empty());
        placed
    }

    /// Takes the place of another placeholder; anything else goes back.
    fn exchange(&self, name: &str, parent: &OwnedFd, target: &[u8]) -> Result<(), Fault> {
        let entry = open_path(parent, target)?;
        if !is_placeholder(&entry)? {
            return Err(Fault::changed("it is no placeholder any more"));
        }
        let ino = fstat(&entry)?.st_ino;
        let flags = RenameFlags::EXCHANGE;
        renameat_with(&self.staging, name, parent, target, flags)?;
        let theirs = open_path(&self.staging, name.as_bytes())?;
        if fstat(&theirs)?.st_ino == ino && is_placeholder(&theirs)? {
            return Ok(());
        }
        renameat_with(&self.staging, name, parent, target, flags)?;
        Err(Fault::changed("it changed at the moment it was to be replaced"))
    }

    /// Makes a placeholder in staging, marked.
    fn stage_placeholder(
        &self,
        name: &str,
        stub: &Stub,
        mode: u32,
        owner: (u32, u32),
        marks: &dyn Marks,
    ) -> Result<(), Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&self.staging, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
        ftruncate(&file, stub.size)?;
        fsetxattr(&file, XATTR_STUB, stub.render().as_bytes(), XattrFlags::CREATE)?;
        let (uid, gid) = ids(owner);
        fchown(&file, uid, gid)?;
        fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
        futimens(
            &file,
            &Timestamps {
                last_access: timespec(Wire::Untouched.atime_ns(stub)),
                last_modification: timespec(stub.mtime_ns),
            },
        )?;
        marks.mark(file.as_fd()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// Opens a placeholder as anybody would: the gate holds this thread until it is filled.
    pub(super) fn open_lazy(
        &self,
        place: &Place,
        path: &crate::model::RelPath,
    ) -> Result<Option<Stamp>, Fault> {
        let case = self.open_case(place)?;
        let entry = match open_entry(&case, path) {
            Ok((_, entry)) => entry,
            Err(fault) if fault.kind == Kind::NotFound => return Ok(None),
            Err(fault) => return Err(fault),
        };
        if !is_file(&fstat(&entry)?) || !is_placeholder(&entry)? {
            return Ok(None);
        }
        drop(reopen(&entry)?);
        if is_placeholder(&entry)? {
            return Err(Fault::new(Kind::Io, "nothing holds its opens back"));
        }
        Ok(Some(stamp_fd(&entry)?))
    }
}

/// How a walk of one workspace meets placeholders.
#[derive(Clone, Debug)]
pub(super) struct Meeting {
    /// What keys of this case begin with.
    prefix: String,
    marks: Option<Arc<dyn Marks>>,
}

impl Meeting {
    pub fn of(inner: &Inner, place: &Place) -> Meeting {
        let prefix = format!("{}/{}/", place.user, place.case);
        Meeting { prefix, marks: inner.lazy.get().and_then(|lazy| lazy.marks.clone()) }
    }

    /// What an entry is, if it is a placeholder. One that was brought here by other hands than
    /// docket's is marked before anything is said of it.
    pub fn look(
        &self,
        entry: &OwnedFd,
        stat: &rustix::fs::Stat,
    ) -> Result<Option<LocalKind>, Errno> {
        let Some(value) = stub_value(entry)? else { return Ok(None) };
        if let Some(marks) = &self.marks {
            marks
                .see(entry.as_fd())
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        let stub = Stub::parse(&value);
        let stamp = stamp_of(stat);
        let altered = stub.as_ref().is_some_and(|stub| {
            let moved = stub.mtime_ns != stamp.mtime_ns && Wire::of(stub, stat) != Wire::Begun;
            stub.size != stamp.size || moved
        });
        let row = stub.and_then(|stub| {
            let storage_key = stub.key.strip_prefix(&self.prefix)?.to_owned();
            Some(ManifestEntry {
                sha256: stub.sha256,
                size: Some(stub.size),
                mode: None,
                mtime_ns: Some(stub.mtime_ns),
                storage_key,
            })
        });
        Ok(Some(LocalKind::Placeholder { row, altered }))
    }
}
