//! The workspaces of this machine, and the only module that touches what tenants write.
//!
//! - Every step goes through a descriptor and `openat2` beneath it, links never followed
//!   (`beneath`): what is looked at is what is read, changed or removed.
//! - Nothing half done is ever seen in a workspace: files, directories and links are made whole
//!   under `.docket/staging`, owner and mode set there, and renamed into place.
//! - Nothing of a tenant is replaced or removed unseen: it is exchanged out of its place first,
//!   compared there, and put back if it is not what the caller had seen.
//! - What was acknowledged survives power loss: contents are synced before they get their name,
//!   the directory that holds the name after it. Files that come at the same time share these
//!   syncs (`flush`). Standard folders are not synced: they are made again.
//!
//! System calls block, so they run on blocking threads, few at a time; walks and removals of
//! trees have their own few, so that one huge workspace never holds up the calls of another.

#![expect(
    clippy::disallowed_methods,
    reason = "the one folder that touches tenants' files: std::fs only on docket's own, `sleep` \
              only on blocking threads"
)]

mod beneath;
mod fill;
mod flush;
mod guard;
mod held;
mod lazy;
mod lock;
mod notes;
mod pieces;
mod place;
mod read;
mod scan;
mod secrets;
mod trash;
mod unmake;
mod write;

#[cfg(test)]
mod tests;

pub use fill::{FillError, fill, inode_of, space_of, stub_of};
pub use guard::Met;
pub use lazy::{CANARY, Canary};
pub use scan::{BadGlob, Excludes};

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags, fchmod, fstat, mkdirat};
use rustix::io::Errno;
use tokio::sync::Semaphore;

use self::beneath::{Fault, open_dir};
use crate::crash::{self, Effect};
use crate::model::{
    Base, CaseName, LazyMode, RelPath, Scan, Sha256, Space, Stamp, Tree, TreeChange, Uid, UserName,
    WorkspaceSeen, WorkspaceSpec, escape_bytes,
};
use crate::world::{
    Body, Expect, FileSpec, Place, Placeholder, ScanMode, SmallFile, Trashed, WorkspaceError,
    WorkspaceErrorKind, Workspaces,
};

/// Short calls at a time.
const QUICK: usize = 32;
/// Walks and removals of whole trees at a time.
const SLOW: usize = 8;

/// Why a workspaces root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another operator has it.
    #[error("the workspaces in `{}` are held by another operator: {holder}", root.display())]
    Held {
        /// The root.
        root: PathBuf,
        /// What the holder wrote of itself.
        holder: String,
    },
    /// The directory must not become root-only, or is not ours.
    #[error("`{}` cannot be a workspaces root: {why}", root.display())]
    Unfit {
        /// The root.
        root: PathBuf,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A system call failed.
    #[error("cannot prepare `{}`", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The result of opening a root.
pub type Result<T, E = OpenError> = std::result::Result<T, E>;

/// The workspaces under one root directory of this machine. Clones share it.
#[derive(Clone, Debug)]
pub struct Local {
    inner: Arc<Inner>,
    quick: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    flush: flush::Flush,
}

/// The root and docket's own directories beside the workspaces, by descriptor.
#[derive(Debug)]
struct Inner {
    /// Absolute, without links.
    root: PathBuf,
    root_fd: OwnedFd,
    /// `.docket`, and in it:
    docket: OwnedFd,
    trash: OwnedFd,
    staging: OwnedFd,
    records: OwnedFd,
    applied: OwnedFd,
    /// Makes names in `staging` unique in this process; it is swept when the root is opened.
    counter: AtomicU64,
    note_turns: notes::Turns,
    /// What large files add up to, from their scan to their upload.
    summed: pieces::Summed,
    /// How large files come, once that is found out.
    lazy: OnceLock<lazy::Lazy>,
    /// Held as long as anything uses the root.
    _lock: OwnedFd,
}

impl Local {
    /// Opens a workspaces root: makes it (0700) and its `.docket` where missing, takes its lock,
    /// clears what a killed operator left in staging. Blocks; for the start of the program.
    ///
    /// # Errors
    /// [`OpenError::Held`] if another operator lives there.
    pub fn open(root: impl AsRef<Path>) -> Result<Local> {
        Local::open_as(root, "")
    }

    /// As [`Local::open`]; a second operator is told of `about` (e.g. `state /var/lib/docket`)
    /// beside our process id.
    ///
    /// # Errors
    /// As [`Local::open`].
    pub fn open_as(root: impl AsRef<Path>, about: &str) -> Result<Local> {
        let holder = format!("pid {} {about}", std::process::id());
        let inner = Arc::new(Inner::open(root.as_ref(), holder.trim())?);
        let quick = Arc::new(Semaphore::new(QUICK));
        let slow = Arc::new(Semaphore::new(SLOW));
        Ok(Local { inner, quick, slow, flush: flush::Flush::default() })
    }

    /// The root, absolute and without links.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }
}

impl Inner {
    fn open(root: &Path, holder: &str) -> Result<Inner> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source: std::io::Error| OpenError::Io { path, source }
        };
        let (root, root_fd, docket) = own_root(root)?;
        let own = |parent: &OwnedFd, name: &str| {
            own_dir(parent, name).map_err(|e| io(&root.join(".docket").join(name))(e.into()))
        };
        let lock = lock::take(&docket, &root, holder)?;
        let inner = Inner {
            trash: own(&docket, "trash")?,
            staging: own(&docket, "staging")?,
            records: own(&docket, "records")?,
            applied: own(&docket, "applied")?,
            counter: AtomicU64::new(0),
            note_turns: notes::Turns::new(),
            summed: pieces::Summed::default(),
            lazy: OnceLock::new(),
            _lock: lock,
            docket,
            root_fd,
            root,
        };
        inner.sweep_staging().map_err(|fault| {
            let source = std::io::Error::other(fault);
            OpenError::Io { path: inner.root.join(".docket/staging"), source }
        })?;
        Ok(inner)
    }

    /// A name in staging nobody else uses.
    fn fresh_name(&self, what: &str) -> String {
        format!("{what}-{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }
}

/// The `.docket` directory of a root, for its gate; made with it if it is not there. No lock is
/// taken.
///
/// # Errors
/// The root cannot be one.
pub fn docket_of(root: &Path) -> Result<PathBuf> {
    own_root(root).map(|(root, ..)| root.join(".docket"))
}

/// Opens a root and its `.docket`; makes them if they are not there.
fn own_root(root: &Path) -> Result<(PathBuf, OwnedFd, OwnedFd)> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| OpenError::Io { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io(root))?;
    let root = root.canonicalize().map_err(io(root))?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let custom = i32::try_from(flags.bits()).unwrap_or_default();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(custom).open(&root);
    let root_fd = OwnedFd::from(opened.map_err(io(&root))?);
    check_root(&root, &root_fd)?;
    fchmod(&root_fd, Mode::RWXU).map_err(|e| io(&root)(e.into()))?;
    let docket = own_dir(&root_fd, ".docket").map_err(|e| io(&root.join(".docket"))(e.into()))?;
    Ok((root, root_fd, docket))
}

/// A root that anybody may write to, or that belongs to somebody else, is a mistake in the
/// configuration (`/tmp`, a home): making it 0700 would break other things.
fn check_root(root: &Path, fd: &OwnedFd) -> Result<()> {
    let stat = fstat(fd).map_err(|e| OpenError::Io { path: root.to_owned(), source: e.into() })?;
    let unfit = |why| Err(OpenError::Unfit { root: root.to_owned(), why });
    if root.parent().is_none() {
        return unfit("it is the root of the file system");
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return unfit("it belongs to another user");
    }
    if stat.st_mode & 0o1002 != 0 {
        return unfit("others may write to it; name a directory of docket's own");
    }
    Ok(())
}

/// Opens a directory of docket's own, 0700; makes it if it is not there.
fn own_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => (),
        Err(errno) => return Err(errno),
    }
    let fd = open_dir(parent, name.as_bytes())?;
    fchmod(&fd, Mode::RWXU)?;
    Ok(fd)
}

/// Ends blocking work when the future that waits for it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a call is about, for its error.
#[derive(Clone, Debug)]
struct About {
    operation: &'static str,
    path: String,
}

impl About {
    fn place(operation: &'static str, place: &Place) -> About {
        About { operation, path: format!("{}/active/{}", place.user, place.case) }
    }

    fn file(operation: &'static str, place: &Place, path: &RelPath) -> About {
        About { operation, path: format!("{}/active/{}/{path}", place.user, place.case) }
    }

    fn own(operation: &'static str, what: impl std::fmt::Display) -> About {
        About { operation, path: what.to_string() }
    }

    fn error(self, fault: Fault) -> WorkspaceError {
        let Fault { kind, message } = fault;
        WorkspaceError { kind, operation: self.operation, path: self.path, message }
    }
}

impl Local {
    /// Runs short blocking work.
    async fn quick<T: Send + 'static>(
        &self,
        about: About,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        run(&self.quick, &self.inner, work).await.map_err(|fault| about.error(fault))
    }

    /// Runs blocking work whose length depends on the tenant.
    async fn slow<T: Send + 'static>(
        &self,
        about: About,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        run(&self.slow, &self.inner, work).await.map_err(|fault| about.error(fault))
    }
}

/// What became of each of several; a failure of the whole is everybody's.
fn each<T>(
    abouts: Vec<About>,
    done: Result<Vec<Result<T, Fault>>, Fault>,
) -> Vec<Result<T, WorkspaceError>> {
    let each = |about: About, done: Result<T, Fault>| done.map_err(|fault| about.error(fault));
    match done {
        Ok(all) => abouts.into_iter().zip(all).map(|(about, one)| each(about, one)).collect(),
        Err(fault) => abouts.into_iter().map(|about| each(about, Err(fault.clone()))).collect(),
    }
}

/// Runs blocking work within a lane. The place in the lane is given back when the work has ended,
/// even if nobody waits for it any more.
async fn run<T: Send + 'static>(
    lane: &Arc<Semaphore>,
    inner: &Arc<Inner>,
    work: impl FnOnce(&Arc<Inner>) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let io = |error: &dyn std::fmt::Display| Fault::new(WorkspaceErrorKind::Io, error);
    let permit = Arc::clone(lane).acquire_owned().await.map_err(|e| io(&e))?;
    let inner = Arc::clone(inner);
    let task = tokio::task::spawn_blocking(move || {
        let result = work(&inner);
        drop(permit);
        result
    });
    task.await.map_err(|e| io(&e))?
}

impl Workspaces for Local {
    fn host_path(&self, place: &Place, user_scope: bool) -> PathBuf {
        let user = self.inner.root.join(place.user.as_str());
        if user_scope { user } else { user.join("active").join(place.case.as_str()) }
    }

    async fn look(
        &self,
        user: &UserName,
        case: &CaseName,
    ) -> Result<Option<WorkspaceSeen>, WorkspaceError> {
        let about = About::own("look at", format_args!("{user}/active/{case}"));
        let (user, case) = (user.clone(), case.clone());
        self.quick(about, move |inner| inner.look(&user, &case)).await
    }

    async fn list(&self) -> Result<Vec<(UserName, CaseName, WorkspaceSeen)>, WorkspaceError> {
        self.slow(About::own("list", "the workspaces"), |inner| inner.list()).await
    }

    async fn ensure(
        &self,
        place: &Place,
        owner: (u32, u32),
    ) -> Result<WorkspaceSeen, WorkspaceError> {
        let place = place.clone();
        let about = About::place("make", &place);
        crash::around(
            Effect::MakeWorkspace,
            self.quick(about, move |inner| inner.ensure(&place, owner)),
        )
        .await
    }

    async fn ensure_folders(
        &self,
        place: &Place,
        folders: &[String],
        owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        let (place, folders) = (place.clone(), folders.to_vec());
        let about = About::place("make folders in", &place);
        crash::around(
            Effect::MakeFolders,
            self.quick(about, move |inner| inner.ensure_folders(&place, &folders, owner)),
        )
        .await
    }

    async fn ensure_tree(
        &self,
        place: &Place,
        tree: &Tree,
        owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        let (place, tree) = (place.clone(), tree.clone());
        let about = About::place("make directories in", &place);
        crash::around(
            Effect::MakeTree,
            self.slow(about, move |inner| inner.ensure_tree(&place, &tree, owner)),
        )
        .await
    }

    async fn change_tree(&self, place: &Place, change: &TreeChange) -> Result<(), WorkspaceError> {
        let (place, change) = (place.clone(), change.clone());
        let about = About::place("remove directories in", &place);
        self.slow(about, move |inner| inner.change_tree(&place, &change)).await
    }

    async fn scan(
        &self,
        place: &Place,
        spec: &WorkspaceSpec,
        base: &Base,
        mode: ScanMode,
    ) -> Result<Scan, WorkspaceError> {
        let about = About::place("scan", place);
        let meeting = lazy::Meeting::of(&self.inner, place);
        let rules = match scan::Rules::new(spec, mode, meeting) {
            Ok(rules) => rules,
            Err(bad) => return Err(about.error(Fault::new(WorkspaceErrorKind::Io, bad))),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = StopOnDrop(Arc::clone(&stop));
        let (place, base) = (place.clone(), Arc::new(scan::needed(base)));
        let known = Arc::clone(&base);
        let scan = self.slow(about, move |inner| {
            let case = inner.open_case(&place)?;
            scan::scan(&case, &rules, &known, &inner.summed, &stop)
        });
        let scan = scan.await;
        // Taking it apart is not waited for.
        drop(tokio::task::spawn_blocking(move || drop(base)));
        scan
    }

    async fn read(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Stamp,
    ) -> Result<Body, WorkspaceError> {
        let about = About::file("read", place, path);
        let (owned, path) = (place.clone(), path.clone());
        let open = move |inner: &Arc<Inner>| read::open(&inner.open_case(&owned)?, &path, expected);
        let file = self.quick(about.clone(), open).await?;
        Ok(read::body(file, expected, about, self.inner.summed.of(expected)))
    }

    async fn write(
        &self,
        place: &Place,
        path: &RelPath,
        file: &FileSpec,
        body: Body,
        expect: Expect,
    ) -> Result<(Sha256, Stamp), WorkspaceError> {
        let about = About::file("write", place, path);
        let target = write::Target { place: place.clone(), path: path.clone(), expect };
        crash::around(Effect::WriteFile, write::write(self, target, file, body))
            .await
            .map_err(|fault| about.error(fault))
    }

    async fn read_small(
        &self,
        place: &Place,
        files: Vec<(RelPath, Stamp)>,
    ) -> Vec<Result<Vec<u8>, WorkspaceError>> {
        let abouts: Vec<About> =
            files.iter().map(|(path, _)| About::file("read", place, path)).collect();
        let owned = place.clone();
        let read = move |inner: &Arc<Inner>| {
            let case = inner.open_case(&owned)?;
            let read = files.iter().map(|(path, stamp)| read::whole(&case, path, *stamp));
            Ok(read.collect())
        };
        each(abouts, run(&self.quick, &self.inner, read).await)
    }

    async fn write_small(
        &self,
        place: &Place,
        files: Vec<SmallFile>,
    ) -> Vec<Result<(Sha256, Stamp), WorkspaceError>> {
        let abouts = files.iter().map(|file| About::file("write", place, &file.path)).collect();
        each(abouts, crash::around(Effect::WriteFile, write::write_small(self, place, files)).await)
    }

    async fn rename(
        &self,
        place: &Place,
        from: &RelPath,
        to: &RelPath,
        expected: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        let about = About::file("rename", place, from);
        let (place, from, to) = (place.clone(), from.clone(), to.clone());
        crash::around(
            Effect::RenameFile,
            self.quick(about, move |inner| inner.rename(&place, &from, &to, expected)),
        )
        .await
    }

    async fn set_meta(
        &self,
        place: &Place,
        path: &RelPath,
        mode: u32,
        mtime_ns: i64,
        expected: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        let about = About::file("set mode and time of", place, path);
        let (place, path) = (place.clone(), path.clone());
        let work = move |inner: &Arc<Inner>| {
            write::set_meta(&inner.open_case(&place)?, &path, (mode, mtime_ns), expected)
        };
        self.quick(about, work).await
    }

    async fn remove_file(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Expect,
    ) -> Result<(), WorkspaceError> {
        let about = About::file("remove", place, path);
        let (place, path) = (place.clone(), path.clone());
        crash::around(
            Effect::RemoveFile,
            self.quick(about, move |inner| inner.remove_file(&place, &path, expected)),
        )
        .await
    }

    async fn trash(&self, place: &Place) -> Result<(), WorkspaceError> {
        let about = About::place("move to the trash", place);
        let place = place.clone();
        crash::around(Effect::Trash, self.quick(about, move |inner| inner.trash(&place))).await
    }

    async fn empty_trash(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        let about = About::own("empty the trash of", uid);
        let uid = uid.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let _guard = StopOnDrop(Arc::clone(&stop));
        crash::around(
            Effect::EmptyTrash,
            self.slow(about, move |inner| inner.empty_trash(&uid, &stop)),
        )
        .await
    }

    async fn list_trash(&self) -> Result<Vec<Trashed>, WorkspaceError> {
        self.quick(About::own("list", "the trash"), |inner| inner.list_trash()).await
    }

    async fn stage_secret(
        &self,
        uid: &Uid,
        name: &str,
        source: &Path,
        allowed: &[PathBuf],
    ) -> Result<PathBuf, WorkspaceError> {
        use std::os::unix::ffi::OsStrExt as _;
        let about = About::own("stage secret", escape_bytes(source.as_os_str().as_bytes()));
        let (uid, name) = (uid.clone(), name.to_owned());
        let (source, allowed) = (source.to_owned(), allowed.to_vec());
        let work = move |inner: &Arc<Inner>| inner.stage_secret(&uid, &name, &source, &allowed);
        crash::around(Effect::StageSecret, self.quick(about, work)).await
    }

    async fn drop_secrets(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        let about = About::own("drop the secrets of", uid);
        let uid = uid.clone();
        crash::around(Effect::DropSecrets, self.quick(about, move |inner| inner.drop_secrets(&uid)))
            .await
    }

    async fn put_note(&self, uid: &Uid, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        let about = About::own("write the record copy of", uid);
        let uid = uid.clone();
        crash::around(Effect::PutCopy, self.quick(about, move |inner| inner.put_note(&uid, &bytes)))
            .await
    }

    async fn drop_note(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        let about = About::own("remove the record copy of", uid);
        let uid = uid.clone();
        crash::around(Effect::DropCopy, self.quick(about, move |inner| inner.drop_note(&uid))).await
    }

    async fn keep_applied(&self, key: &str, text: Option<&str>) -> Result<(), WorkspaceError> {
        let about = About::own("write the copy of", key);
        let (key, text) = (key.to_owned(), text.map(str::to_owned));
        crash::around(
            Effect::KeepApplied,
            self.quick(about, move |inner| inner.keep_applied(&key, text.as_deref())),
        )
        .await
    }

    async fn applied(&self) -> Result<BTreeMap<String, String>, WorkspaceError> {
        let about = About::own("read", "the copies of applied objects");
        self.slow(about, |inner| inner.applied()).await
    }

    async fn notes(&self) -> Result<Vec<(Uid, Vec<u8>)>, WorkspaceError> {
        self.slow(About::own("read", "the record copies"), |inner| inner.notes()).await
    }

    fn lazy(&self) -> LazyMode {
        lazy::mode(&self.inner)
    }

    fn caveat(&self) -> Option<String> {
        lazy::caveat(&self.inner)
    }

    async fn place(
        &self,
        place: &Place,
        files: Vec<Placeholder>,
    ) -> Result<Vec<Result<(), WorkspaceError>>, WorkspaceError> {
        let about = About::place("place placeholders in", place);
        let place = place.clone();
        crash::around(
            Effect::PlaceStubs,
            self.slow(about, move |inner| inner.place_all(&place, files)),
        )
        .await
    }

    async fn open(&self, place: &Place, path: &RelPath) -> Result<Option<Stamp>, WorkspaceError> {
        let about = About::file("open", place, path);
        let (place, path) = (place.clone(), path.clone());
        // Not in a lane: it waits for the store.
        let inner = Arc::clone(&self.inner);
        let opening = tokio::task::spawn_blocking(move || inner.open_lazy(&place, &path));
        let ended =
            opening.await.unwrap_or_else(|error| Err(Fault::new(WorkspaceErrorKind::Io, error)));
        ended.map_err(|fault| about.error(fault))
    }

    async fn space(&self) -> Result<Space, WorkspaceError> {
        self.quick(About::own("ask the space of", "the workspaces"), |inner| inner.space()).await
    }
}
