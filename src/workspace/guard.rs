//! The walk over everything when nothing was guarded: every placeholder is marked, and its wire
//! looked at. Where opens cannot be held back any more, a stub takes its place.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Timestamps, UTIME_OMIT, fstat, unlinkat, utimensat};
use rustix::io::Errno;

use super::beneath::{
    Fault, file_type, link_of, names, open_dir, open_path, stat_at, stub_value, timespec,
};
use super::lazy::{Lazy, Wire};
use super::{Inner, Local};
use crate::model::{CaseName, ContainerId, RelPath, Stub, UserName};
use crate::sync::{stub_path, stub_text};
use crate::world::{WorkspaceError, WorkspaceErrorKind as Kind};

/// A placeholder that the walk met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// In whose tree.
    pub user: UserName,
    /// In which case; `None`: elsewhere in the user's tree.
    pub case: Option<CaseName>,
    /// Beneath the workspaces root.
    pub path: RelPath,
    /// Somebody has read or written it while nothing held opens back.
    pub tripped: bool,
    /// Device and inode.
    pub id: (u64, u64),
}

impl Local {
    /// Marks every placeholder there is and resets its wire, or replaces it by a stub where files
    /// do not come when they are opened. One that cannot be marked becomes a stub as well.
    ///
    /// # Errors
    /// The root cannot be walked: nothing is known then.
    pub async fn guard(&self) -> Result<Vec<Met>, WorkspaceError> {
        self.slow(super::About::own("guard", "the workspaces"), |inner| inner.guard()).await
    }

    /// Device and inode of every file that these containers hold open.
    ///
    /// # Errors
    /// It cannot be told.
    pub async fn held_open(
        &self,
        containers: Vec<ContainerId>,
    ) -> Result<BTreeSet<(u64, u64)>, WorkspaceError> {
        let about = super::About::own("look at", "what containers hold open");
        self.slow(about, move |_| Ok(super::held::held_open(&containers)?)).await
    }
}

impl Inner {
    fn guard(&self) -> Result<Vec<Met>, Fault> {
        let mut all = Vec::new();
        for name in names(&self.root_fd, usize::MAX)? {
            let text = std::str::from_utf8(&name).ok();
            let Some(user) = text.and_then(|text| UserName::parse(text).ok()) else { continue };
            let mut waiting: Vec<RelPath> = RelPath::parse(&name).into_iter().collect();
            while let Some(path) = waiting.pop() {
                match self.guard_directory(&user, &path, &mut waiting, &mut all) {
                    Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => (),
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(all)
    }

    fn guard_directory(
        &self,
        user: &UserName,
        path: &RelPath,
        waiting: &mut Vec<RelPath>,
        all: &mut Vec<Met>,
    ) -> Result<(), Errno> {
        let dir = open_dir(&self.root_fd, path.as_bytes())?;
        for name in names(&dir, usize::MAX)? {
            let Ok(at) = path.join(&name) else { continue };
            match stat_at(&dir, &name).map(|stat| file_type(&stat)) {
                Ok(FileType::Directory) => waiting.push(at),
                Ok(FileType::RegularFile) => {
                    let Ok(entry) = open_path(&dir, &name) else { continue };
                    let Some(value) = stub_value(&entry)? else { continue };
                    let stat = fstat(&entry)?;
                    let tripped = self.guard_one(&dir, &name, &at, &entry, &value)?;
                    let (case, id) = (case_of(&at), (stat.st_dev, stat.st_ino));
                    all.push(Met { user: user.clone(), case, path: at, tripped, id });
                }
                Ok(_) | Err(_) => (),
            }
        }
        Ok(())
    }

    /// Whether the wire was tripped.
    fn guard_one(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        at: &RelPath,
        entry: &OwnedFd,
        value: &[u8],
    ) -> Result<bool, Errno> {
        let stub = Stub::parse(value);
        let stat = fstat(entry)?;
        let tripped = stub.as_ref().is_none_or(|stub| Wire::of(stub, &stat) == Wire::Tripped);
        let marks = self.lazy.get().and_then(|Lazy { marks, .. }| marks.as_ref());
        let marked = match marks.map(|marks| marks.mark(entry.as_fd())) {
            Some(Ok(())) => true,
            Some(Err(error)) => {
                tracing::warn!(path = %at, %error, "a placeholder cannot be guarded any more");
                false
            }
            None => false,
        };
        if !marked {
            return self.become_stub(dir, name, at, stub.as_ref()).map(|()| tripped);
        }
        if let (Some(stub), true) = (&stub, tripped) {
            let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps {
                last_access: timespec(Wire::Untouched.atime_ns(stub)),
                last_modification: omit,
            };
            utimensat(CWD, &*link_of(entry), &times, AtFlags::empty())?;
        }
        Ok(tripped)
    }

    /// The stub first, so that at no moment nothing stands for the file.
    fn become_stub(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        at: &RelPath,
        stub: Option<&Stub>,
    ) -> Result<(), Errno> {
        // As the sync of that case would write it, so that it knows it again.
        let inside = at.components().skip(3).collect::<Vec<_>>().join(&b'/');
        if let (Some(stub), Ok(path)) = (stub, RelPath::parse(&inside))
            && let Some(key) = stub.key.splitn(3, '/').nth(2)
            && let Some(file) = stub_path(&path)
        {
            let text = stub_text(&path, stub.size, key);
            self.put_beside(dir, file.file_name(), text.as_bytes())?;
        }
        unlinkat(dir, name, AtFlags::empty())
    }

    fn put_beside(&self, dir: &OwnedFd, name: &[u8], text: &[u8]) -> Result<(), Errno> {
        use rustix::fs::{Mode, OFlags, RenameFlags, fsync, openat, renameat_with};
        let staged = self.fresh_name("stub");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = openat(&self.staging, &*staged, flags, mode)?;
        rustix::io::write(&file, text)?;
        fsync(&file)?;
        match renameat_with(&self.staging, &*staged, dir, name, RenameFlags::NOREPLACE) {
            Ok(()) => fsync(dir),
            // Something of that name is there already: the tenant's, or the stub.
            Err(Errno::EXIST) => unlinkat(&self.staging, &*staged, AtFlags::empty()),
            Err(errno) => Err(errno),
        }
    }
}

/// `{user}/active/{case}/...`
fn case_of(path: &RelPath) -> Option<CaseName> {
    let mut parts = path.components().skip(1);
    if parts.next() != Some(b"active") {
        return None;
    }
    let case = std::str::from_utf8(parts.next()?).ok()?;
    CaseName::parse(case).ok()
}

/// What an operator that sees no placeholders must not do: run where there are some.
impl Local {
    /// Whether placeholders can be told from ordinary files here.
    pub fn sees_placeholders(&self) -> bool {
        let name = self.inner.fresh_name("sight");
        let seen = self.inner.sight(&name);
        let _ = unlinkat(&self.inner.staging, &*name, AtFlags::empty());
        matches!(seen, Ok(true))
    }
}

impl Inner {
    fn sight(&self, name: &str) -> Result<bool, Fault> {
        use rustix::fs::{Mode, OFlags, XattrFlags, fgetxattr, fsetxattr, openat};
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.staging, name, flags, Mode::RUSR | Mode::WUSR)?;
        fsetxattr(&file, super::beneath::XATTR_STUB, b"0", XattrFlags::empty())
            .map_err(|errno| Fault::new(Kind::Io, errno))?;
        Ok(fgetxattr(&file, super::beneath::XATTR_STUB, &mut [0u8; 8])? == 1)
    }
}
