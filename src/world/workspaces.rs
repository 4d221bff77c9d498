//! The workspaces: directories that tenants write to. What is asked here is asked of the node
//! that has them, never done by path further up.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use crate::model::{
    Base, CaseName, LazyMode, RelPath, Scan, Sha256, Space, Stamp, Stub, Tree, TreeChange, Uid,
    UserName, WorkspaceId, WorkspaceSeen, WorkspaceSpec,
};

use super::Body;

/// What went wrong, by what may be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkspaceErrorKind {
    /// Proven not to be there.
    NotFound,
    /// The directory is there and is not the one in the record (another device or inode).
    Replaced,
    /// No space, quota or inodes left.
    NoSpace,
    /// The file changed while it was read, or is not what the caller last saw.
    Changed,
    /// A mount lies beneath, so it will not be removed.
    Busy,
    /// The bytes that came were not those announced; nothing was put in place.
    Corrupt,
    /// Everything else: EIO, read-only, permissions.
    Io,
}

/// A failed look at or change of a workspace.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} `{path}` failed: {message}")]
pub struct WorkspaceError {
    /// What may be done about it.
    pub kind: WorkspaceErrorKind,
    /// Which call, e.g. `read`.
    pub operation: &'static str,
    /// Where, escaped.
    pub path: String,
    /// The system's own words.
    pub message: String,
}

/// One workspace: `{workspaces}/{user}/active/{case}`, and which directory it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub user: UserName,
    /// Which case.
    pub case: CaseName,
    /// The session.
    pub uid: Uid,
    /// The directory it must be; `None`: not made yet. A mismatch is
    /// [`WorkspaceErrorKind::Replaced`] for every call.
    pub id: Option<WorkspaceId>,
}

/// How much a scan trusts stamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanMode {
    /// An unchanged (inode, size, mtime, ctime) is unchanged content.
    Quick,
    /// Everything is hashed (the final sync).
    Checksum,
}

/// A file to be put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpec {
    /// Bytes.
    pub size: u64,
    /// Contents; `None`: a foreign manifest did not say.
    pub sha256: Option<Sha256>,
    /// Permission bits; masked with 0o777.
    pub mode: u32,
    /// Modification time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// `uid` and `gid` of the file.
    pub owner: (u32, u32),
}

/// What must be at a path for a change there to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// A regular file with exactly this stamp.
    Stamp(Stamp),
    /// A placeholder.
    Placeholder,
}

/// Something in the trash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trashed {
    /// Its name there.
    pub name: String,
    /// Which session's workspace it was; `None`: what a tenant moved under docket's hands, kept.
    pub uid: Option<Uid>,
    /// When it was moved there, nanoseconds since the epoch.
    pub moved_ns: i64,
}

/// A placeholder to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Where.
    pub path: RelPath,
    /// What it stands for.
    pub stub: Stub,
    /// Permission bits; masked with 0o777.
    pub mode: u32,
    /// `uid` and `gid` of the file.
    pub owner: (u32, u32),
    /// Nothing, or another placeholder, which goes.
    pub over: bool,
}

/// A small file to be put in place, with all its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallFile {
    /// Where.
    pub path: RelPath,
    /// What it is to be.
    pub file: FileSpec,
    /// Its contents.
    pub bytes: Vec<u8>,
    /// What must be there.
    pub expect: Expect,
}

/// The workspaces of this node.
///
/// Every call opens beneath the workspace by descriptors and never follows a link
/// (openat2 RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS).
pub trait Workspaces: Send + Sync + 'static {
    /// The host path the container mounts for this place (whole user tree if `user_scope`).
    fn host_path(&self, place: &Place, user_scope: bool) -> PathBuf;
    /// Whether the directory is there, and which it is. `Ok(None)` is proven absence.
    fn look(
        &self,
        user: &UserName,
        case: &CaseName,
    ) -> impl Future<Output = Result<Option<WorkspaceSeen>, WorkspaceError>> + Send;
    /// Every workspace directory there is, complete.
    fn list(
        &self,
    ) -> impl Future<Output = Result<Vec<(UserName, CaseName, WorkspaceSeen)>, WorkspaceError>> + Send;
    /// Makes the directory (owner and modes as said; uid in `trusted.docket.uid` where it can be
    /// set) if it is not there. An existing one that is not `place.id` is `Replaced`.
    fn ensure(
        &self,
        place: &Place,
        owner: (u32, u32),
    ) -> impl Future<Output = Result<WorkspaceSeen, WorkspaceError>> + Send;
    /// Makes the standard folders, each with `.gitkeep`, where missing.
    fn ensure_folders(
        &self,
        place: &Place,
        folders: &[String],
        owner: (u32, u32),
    ) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Makes directories with modes and symlinks of a tree, where nothing is in their way.
    fn ensure_tree(
        &self,
        place: &Place,
        tree: &Tree,
        owner: (u32, u32),
    ) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Removes directories that are empty and links that still say the same, and sets modes of
    /// directories that still have the old one. What is not as it was seen is left alone.
    fn change_tree(
        &self,
        place: &Place,
        change: &TreeChange,
    ) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Walks the whole workspace within the spec's limits and excludes; contents are hashed where
    /// the stamp is not the base's (or everything, as the mode says).
    fn scan(
        &self,
        place: &Place,
        spec: &WorkspaceSpec,
        base: &Base,
        mode: ScanMode,
    ) -> impl Future<Output = Result<Scan, WorkspaceError>> + Send;
    /// Opens a regular file for upload. The body fails with `Changed` at its end if the stamp is
    /// not `expected` any more.
    fn read(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Stamp,
    ) -> impl Future<Output = Result<Body, WorkspaceError>> + Send;
    /// Writes a file: staging, length and sum verified, synced to disk, mode, mtime and owner
    /// set, then renamed into place if `expect` still holds. Parent directories are made. The
    /// sum of what was written is returned with the new stamp.
    fn write(
        &self,
        place: &Place,
        path: &RelPath,
        file: &FileSpec,
        body: Body,
        expect: Expect,
    ) -> impl Future<Output = Result<(Sha256, Stamp), WorkspaceError>> + Send;
    /// Reads small files whole, as [`Workspaces::read`] does; what became of each, in their order.
    /// Many at once cost less than one by one.
    fn read_small(
        &self,
        place: &Place,
        files: Vec<(RelPath, Stamp)>,
    ) -> impl Future<Output = Vec<Result<Vec<u8>, WorkspaceError>>> + Send {
        async move {
            let mut all = Vec::with_capacity(files.len());
            for (path, stamp) in files {
                all.push(read_whole(self, place, &path, stamp).await);
            }
            all
        }
    }
    /// Writes small files, as [`Workspaces::write`] does; what became of each, in their order.
    /// Many at once share their syncs to disk.
    fn write_small(
        &self,
        place: &Place,
        files: Vec<SmallFile>,
    ) -> impl Future<Output = Vec<Result<(Sha256, Stamp), WorkspaceError>>> + Send {
        async move {
            let mut all = Vec::with_capacity(files.len());
            for SmallFile { path, file, bytes, expect } in files {
                let body: Body = Box::pin(std::io::Cursor::new(bytes));
                all.push(self.write(place, &path, &file, body, expect).await);
            }
            all
        }
    }
    /// Renames a file within the workspace, never over another (conflict copies).
    fn rename(
        &self,
        place: &Place,
        from: &RelPath,
        to: &RelPath,
        expected: Stamp,
    ) -> impl Future<Output = Result<Stamp, WorkspaceError>> + Send;
    /// Sets the permission bits and modification time of an unchanged file.
    fn set_meta(
        &self,
        place: &Place,
        path: &RelPath,
        mode: u32,
        mtime_ns: i64,
        expected: Stamp,
    ) -> impl Future<Output = Result<Stamp, WorkspaceError>> + Send;
    /// Removes a file if it is still exactly as expected. The caller has its contents stored.
    fn remove_file(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Expect,
    ) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Moves the whole directory into the trash (root only, by rename). Absent is success.
    fn trash(&self, place: &Place) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Removes what [`Workspaces::trash`] moved there for this uid; `Busy` if a mount lies
    /// beneath. Absent is success.
    fn empty_trash(&self, uid: &Uid) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Everything in the trash, by name.
    fn list_trash(&self) -> impl Future<Output = Result<Vec<Trashed>, WorkspaceError>> + Send;
    /// Keeps a secret value as a root-only file on a tmpfs-like place for mounting; returns its
    /// host path. `source` is resolved without following links beneath one of `allowed`.
    fn stage_secret(
        &self,
        uid: &Uid,
        name: &str,
        source: &std::path::Path,
        allowed: &[PathBuf],
    ) -> impl Future<Output = Result<PathBuf, WorkspaceError>> + Send;
    /// Removes the staged secrets of a session. Absent is success.
    fn drop_secrets(&self, uid: &Uid) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Writes the copy of a record (`.docket/records/{uid}`) by rename.
    fn put_note(
        &self,
        uid: &Uid,
        bytes: Vec<u8>,
    ) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Removes the copy of a record. Absent is success.
    fn drop_note(&self, uid: &Uid) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Writes the copy of an applied object (`.docket/applied/{kind}.{name}`) by rename, or removes
    /// it. Absent is success.
    fn keep_applied(
        &self,
        key: &str,
        text: Option<&str>,
    ) -> impl Future<Output = Result<(), WorkspaceError>> + Send;
    /// Every copy of an applied object: `kind/name` to its JSON text.
    fn applied(
        &self,
    ) -> impl Future<Output = Result<BTreeMap<String, String>, WorkspaceError>> + Send;
    /// Every copy of a record.
    fn notes(&self) -> impl Future<Output = Result<Vec<(Uid, Vec<u8>)>, WorkspaceError>> + Send;
    /// How large files come here.
    fn lazy(&self) -> LazyMode {
        LazyMode::Stub { reason: "placeholders are not known here".to_owned() }
    }
    /// What cannot be told of placeholders here although they work, for people.
    fn caveat(&self) -> Option<String> {
        None
    }
    /// Places placeholders, each visible only once it is whole and whoever opens it waits. Parent
    /// directories are made. What became of each, in their order; all that came about survives
    /// power loss.
    fn place(
        &self,
        place: &Place,
        files: Vec<Placeholder>,
    ) -> impl Future<Output = Result<Vec<Result<(), WorkspaceError>>, WorkspaceError>> + Send {
        let _ = (place, files);
        std::future::ready(Err(unknown_here("place")))
    }
    /// Opens a placeholder as its tenant would, so that it is filled; its stamp then. `None`: an
    /// ordinary file, or nothing, is there.
    fn open(
        &self,
        place: &Place,
        path: &RelPath,
    ) -> impl Future<Output = Result<Option<Stamp>, WorkspaceError>> + Send {
        let _ = (place, path);
        std::future::ready(Err(unknown_here("open")))
    }
    /// Space left.
    fn space(&self) -> impl Future<Output = Result<Space, WorkspaceError>> + Send;
}

async fn read_whole<W: Workspaces + ?Sized>(
    workspaces: &W,
    place: &Place,
    path: &RelPath,
    stamp: Stamp,
) -> Result<Vec<u8>, WorkspaceError> {
    use tokio::io::AsyncReadExt as _;
    let mut body = workspaces.read(place, path, stamp).await?;
    let mut bytes = Vec::new();
    match body.read_to_end(&mut bytes).await {
        Ok(_) if bytes.len() as u64 == stamp.size => Ok(bytes),
        short => Err(WorkspaceError {
            kind: WorkspaceErrorKind::Changed,
            operation: "read",
            path: path.to_string(),
            message: match short {
                Ok(_) => "it is not as long as it was".to_owned(),
                Err(error) => error.to_string(),
            },
        }),
    }
}

fn unknown_here(operation: &'static str) -> WorkspaceError {
    WorkspaceError {
        kind: WorkspaceErrorKind::Io,
        operation,
        path: String::new(),
        message: "placeholders are not known here".to_owned(),
    }
}
