//! Places: which directory is whose, and making directories, links and empty files in one step.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags, fchmod, fchown, fgetxattr, fsetxattr,
    fstatvfs, fsync, mkdirat, openat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::Inner;
use super::beneath::{Fault, XATTR_UID, file_type, id_of, names, open_dir, open_path, stat_at};
use crate::model::{CaseName, RelPath, Space, Tree, Uid, UserName, WorkspaceSeen, unescape_bytes};
use crate::world::{Place, WorkspaceErrorKind as Kind};

/// What directories are made with unless somebody said otherwise.
const DIRECTORY_MODE: u32 = 0o755;

/// Something to be made whole in staging and renamed into place.
pub(super) enum Make<'a> {
    /// A directory with these permission bits, and for whom it is the workspace.
    Directory(u32, Option<&'a Uid>),
    /// An empty file.
    Empty,
    /// A symlink with this text.
    Link(&'a [u8]),
}

impl Inner {
    /// Opens a place's directory, which must be the one it says.
    pub(super) fn open_case(&self, place: &Place) -> Result<OwnedFd, Fault> {
        let path = format!("{}/active/{}", place.user, place.case);
        let case = open_dir(&self.root_fd, path.as_bytes()).map_err(place_fault)?;
        match place.id {
            Some(id) if id != id_of(&case)? => Err(replaced()),
            _ => Ok(case),
        }
    }

    /// That the root's path still leads to the root that is held open: containers are given
    /// paths, and what is reached by one must be what is looked at.
    fn at_its_path(&self) -> Result<(), Fault> {
        let held = id_of(&self.root_fd)?;
        let root = self.root.display();
        let why = match rustix::fs::stat(&self.root) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (held.dev, held.ino) => return Ok(()),
            Ok(_) => format!("another directory stands at {root}"),
            Err(errno) => format!("{root} is gone ({errno})"),
        };
        let why =
            format!("{why}: put the one back that docket holds, or restart docket on this one");
        Err(Fault::new(Kind::Io, why))
    }

    pub(super) fn look(
        &self,
        user: &UserName,
        case: &CaseName,
    ) -> Result<Option<WorkspaceSeen>, Fault> {
        self.at_its_path()?;
        let path = format!("{user}/active/{case}");
        match open_dir(&self.root_fd, path.as_bytes()) {
            Ok(fd) => Ok(Some(seen(&fd)?)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(place_fault(errno)),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<(UserName, CaseName, WorkspaceSeen)>, Fault> {
        let mut all = Vec::new();
        for user in parsed(names(&self.root_fd, usize::MAX)?, UserName::parse) {
            let active = match open_dir(&self.root_fd, format!("{user}/active").as_bytes()) {
                Ok(active) => active,
                Err(Errno::NOENT) => continue,
                Err(errno @ (Errno::LOOP | Errno::NOTDIR)) => {
                    // One tenant's doing; looking at the session's own place tells it as well.
                    tracing::warn!(%user, %errno, "the user's tree is not made of directories");
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            for case in parsed(names(&active, usize::MAX)?, CaseName::parse) {
                match open_dir(&active, case.as_str().as_bytes()) {
                    Ok(fd) => all.push((user.clone(), case, seen(&fd)?)),
                    Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => (),
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        Ok(all)
    }

    pub(super) fn ensure(&self, place: &Place, owner: (u32, u32)) -> Result<WorkspaceSeen, Fault> {
        self.at_its_path()?;
        match self.open_case(place) {
            Ok(case) => return adopt(&case, &place.uid),
            Err(fault) if fault.kind == Kind::NotFound && place.id.is_none() => (),
            Err(fault) => return Err(fault),
        }
        // The user's directories may be removed with the user's last case at the same moment.
        for _ in 0..8 {
            let user = place.user.as_str().as_bytes();
            let user = self.ensure_dir(&self.root_fd, user, owner).map_err(as_place)?;
            let active = match self.ensure_dir(&user, b"active", owner) {
                Ok(active) => active,
                Err(fault) if fault.kind == Kind::NotFound => continue,
                Err(fault) => return Err(as_place(fault)),
            };
            let make = Make::Directory(DIRECTORY_MODE, Some(&place.uid));
            match self.make(&active, place.case.as_str().as_bytes(), &make, owner) {
                Ok(_) => (),
                Err(fault) if fault.kind == Kind::NotFound => continue,
                Err(fault) => return Err(fault),
            }
            fsync(&active)?;
            return adopt(&self.open_case(place)?, &place.uid);
        }
        Err(Fault::new(Kind::Io, "the user's directory is removed over and over"))
    }

    pub(super) fn ensure_folders(
        &self,
        place: &Place,
        folders: &[String],
        owner: (u32, u32),
    ) -> Result<(), Fault> {
        let case = self.open_case(place)?;
        for folder in folders {
            let path = RelPath::parse(folder.as_bytes()).map_err(|e| Fault::new(Kind::Io, e))?;
            let dir = match self.ensure_path(&case, Some(&path), owner) {
                Ok(dir) => dir,
                // The tenant has a file or a link of that name: theirs.
                Err(fault) if fault.kind == Kind::Changed => continue,
                Err(fault) => return Err(fault),
            };
            if matches!(stat_at(&dir, b".gitkeep"), Err(Errno::NOENT)) {
                self.make(&dir, b".gitkeep", &Make::Empty, owner)?;
            }
        }
        Ok(())
    }

    pub(super) fn ensure_tree(
        &self,
        place: &Place,
        tree: &Tree,
        owner: (u32, u32),
    ) -> Result<(), Fault> {
        let case = self.open_case(place)?;
        // Parents sort before what is in them.
        for (path, mode) in &tree.directories {
            self.make_beneath(&case, path, &Make::Directory(mode & 0o777, None), owner)?;
        }
        for (path, text) in &tree.symlinks {
            let Some(text) = unescape_bytes(text) else { continue };
            if !text.is_empty() && text.len() < 4096 && !text.contains(&0) {
                self.make_beneath(&case, path, &Make::Link(&text), owner)?;
            }
        }
        Ok(fsync(&case)?)
    }

    /// Makes one entry and its parents, unless something is in their way.
    fn make_beneath(
        &self,
        case: &OwnedFd,
        path: &RelPath,
        what: &Make<'_>,
        owner: (u32, u32),
    ) -> Result<(), Fault> {
        let parent = match self.ensure_path(case, path.parent().as_ref(), owner) {
            Ok(parent) => parent,
            Err(fault) if fault.kind == Kind::Changed => return Ok(()),
            Err(fault) => return Err(fault),
        };
        match stat_at(&parent, path.file_name()) {
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => self.make(&parent, path.file_name(), what, owner).map(drop),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a directory of a workspace, making what is missing on the way; `None` is the top.
    pub(super) fn ensure_path(
        &self,
        case: &OwnedFd,
        path: Option<&RelPath>,
        owner: (u32, u32),
    ) -> Result<OwnedFd, Fault> {
        let Some(path) = path else { return Ok(open_dir(case, b".")?) };
        match open_dir(case, path.as_bytes()) {
            Err(Errno::NOENT) => (),
            result => return Ok(result?),
        }
        let mut dir = open_dir(case, b".")?;
        for part in path.components() {
            dir = self.ensure_dir(&dir, part, owner)?;
        }
        Ok(dir)
    }

    /// Opens `name` in `dir`, making it if it is not there.
    fn ensure_dir(&self, dir: &OwnedFd, name: &[u8], owner: (u32, u32)) -> Result<OwnedFd, Fault> {
        match open_dir(dir, name) {
            Err(Errno::NOENT) => (),
            result => return Ok(result?),
        }
        self.make(dir, name, &Make::Directory(DIRECTORY_MODE, None), owner)?;
        Ok(open_dir(dir, name)?)
    }

    /// Makes something under `name` in `dir`, with its owner and mode from the first moment on.
    /// `false`: there is something already.
    pub(super) fn make(
        &self,
        dir: impl AsFd,
        name: &[u8],
        what: &Make<'_>,
        owner: (u32, u32),
    ) -> Result<bool, Fault> {
        let staged = self.fresh_name("new");
        let flags =
            if matches!(what, Make::Directory(..)) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let made = self.make_staged(&staged, what, owner).and_then(|()| {
            renameat_with(&self.staging, &*staged, dir, name, RenameFlags::NOREPLACE)
        });
        if made.is_err() {
            let _ = unlinkat(&self.staging, &*staged, flags); // Swept at the next start if not now.
        }
        match made {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn make_staged(&self, name: &str, what: &Make<'_>, owner: (u32, u32)) -> Result<(), Errno> {
        let (uid, gid) = ids(owner);
        match what {
            Make::Directory(mode, whose) => {
                mkdirat(&self.staging, name, Mode::RWXU)?;
                let fd = open_dir(&self.staging, name.as_bytes())?;
                if let Some(uid) = whose {
                    mark(&fd, uid);
                }
                fchown(&fd, uid, gid)?;
                fchmod(&fd, Mode::from_raw_mode(*mode))
            }
            Make::Empty => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let fd = openat(&self.staging, name, flags, Mode::RUSR | Mode::WUSR)?;
                fchown(&fd, uid, gid)?;
                fchmod(&fd, Mode::from_raw_mode(0o644))
            }
            Make::Link(text) => {
                symlinkat(*text, &self.staging, name)?;
                // Nobody else can reach staging: this is the link just made, and not its target.
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&self.staging, name, uid, gid, flags)
            }
        }
    }

    pub(super) fn space(&self) -> Result<Space, Fault> {
        self.at_its_path()?;
        let stat = fstatvfs(&self.root_fd)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

/// An owner as the kernel takes it; the highest number means "leave it".
pub(super) fn ids(owner: (u32, u32)) -> (Option<rustix::fs::Uid>, Option<rustix::fs::Gid>) {
    let uid = (owner.0 != u32::MAX).then(|| rustix::fs::Uid::from_raw(owner.0));
    let gid = (owner.1 != u32::MAX).then(|| rustix::fs::Gid::from_raw(owner.1));
    (uid, gid)
}

/// Writes whose workspace a directory is; where it cannot be written, (dev, inode) must do.
fn mark(case: &OwnedFd, uid: &Uid) {
    if let Err(errno) = fsetxattr(case, XATTR_UID, uid.as_str().as_bytes(), XattrFlags::empty()) {
        tracing::debug!(%uid, %errno, "the workspace's uid cannot be kept in {XATTR_UID}");
    }
}

/// What is known of a workspace's directory.
pub(super) fn seen(case: &OwnedFd) -> Result<WorkspaceSeen, Fault> {
    let mut value = [0u8; 64];
    let uid = match fgetxattr(case, XATTR_UID, &mut value) {
        Ok(length) => {
            std::str::from_utf8(&value[..length]).ok().and_then(|text| Uid::parse(text).ok())
        }
        Err(_) => None,
    };
    Ok(WorkspaceSeen { id: id_of(case)?, uid })
}

/// An existing directory is the session's unless it says it is another's.
fn adopt(case: &OwnedFd, uid: &Uid) -> Result<WorkspaceSeen, Fault> {
    let mut seen = seen(case)?;
    match &seen.uid {
        Some(other) if other != uid => {
            Err(Fault::new(Kind::Replaced, format_args!("it belongs to session {other}")))
        }
        Some(_) => Ok(seen),
        None => {
            mark(case, uid);
            seen.uid = self::seen(case)?.uid;
            Ok(seen)
        }
    }
}

/// The names that are names of ours; others are nobody's.
fn parsed<T, E>(names: Vec<Vec<u8>>, parse: impl Fn(&str) -> Result<T, E>) -> Vec<T> {
    let parse = |name: Vec<u8>| String::from_utf8(name).ok().and_then(|text| parse(&text).ok());
    names.into_iter().filter_map(parse).collect()
}

fn replaced() -> Fault {
    Fault::new(Kind::Replaced, "another directory stands in its place")
}

/// A link or a file where a directory of the layout should be is a replaced workspace.
fn place_fault(errno: Errno) -> Fault {
    as_place(Fault::from(errno))
}

fn as_place(fault: Fault) -> Fault {
    if fault.kind == Kind::Changed { replaced() } else { fault }
}

/// The parent directory of a path and what a look at the path itself gives: an O_PATH descriptor.
pub(super) fn open_entry(case: &OwnedFd, path: &RelPath) -> Result<(OwnedFd, OwnedFd), Fault> {
    let parent = open_parent(case, path)?;
    let entry = open_path(&parent, path.file_name())?;
    Ok((parent, entry))
}

/// Opens the directory that holds a path.
pub(super) fn open_parent(case: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Fault> {
    let parent = path.parent();
    Ok(open_dir(case, parent.as_ref().map_or(b".".as_slice(), RelPath::as_bytes))?)
}

/// Whether the stat is a regular file's.
pub(super) fn is_file(stat: &rustix::fs::Stat) -> bool {
    file_type(stat) == FileType::RegularFile
}
