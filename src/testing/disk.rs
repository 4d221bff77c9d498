//! Workspaces in memory, with what tenants do to them and a list of every content that was
//! destroyed, for whoever checks that it was stored before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use crate::model::{
    Base, CaseName, LazyMode, LocalEntry, LocalKind, ManifestEntry, RelPath, Scan, Sha256,
    SkipReason, Space, Stamp, Stub, Tree, TreeChange, Uid, UserName, WorkspaceId, WorkspaceSeen,
    WorkspaceSpec,
};
use crate::testing::clock::FakeClock;
use crate::testing::store::{MemoryStore, sum_of};
use crate::world::{
    Body, Clock as _, Expect, FileSpec, Place, Placeholder, ScanMode, Trashed, WorkspaceError,
    WorkspaceErrorKind as Kind, Workspaces,
};

/// The disk of one node. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    clock: FakeClock,
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

type Key = (UserName, CaseName);

#[derive(Debug, Default)]
struct State {
    spaces: BTreeMap<Key, Directory>,
    trash: BTreeMap<Uid, Vec<(i64, Key, Directory)>>,
    notes: BTreeMap<Uid, Vec<u8>>,
    applied: BTreeMap<String, String>,
    secrets: BTreeMap<Uid, BTreeMap<String, PathBuf>>,
    destroyed: Vec<Destroyed>,
    serial: u64,
    free: Option<u64>,
    /// Opened placeholders are filled from here; `None`: stub files stand for large files.
    opens: Option<MemoryStore>,
}

/// A content that is nowhere on this disk any more.
#[derive(Clone, Debug)]
pub struct Destroyed {
    /// Whose.
    pub user: UserName,
    /// Which case.
    pub case: CaseName,
    /// Where it was.
    pub path: RelPath,
    /// What it was.
    pub sum: Sha256,
    /// By which call.
    pub by: &'static str,
}

#[derive(Clone, Debug)]
struct Directory {
    id: WorkspaceId,
    uid: Option<Uid>,
    files: BTreeMap<RelPath, File>,
    folders: BTreeMap<RelPath, u32>,
    links: BTreeMap<RelPath, String>,
}

#[derive(Clone, Debug)]
struct File {
    bytes: Bytes,
    sum: Sha256,
    mode: u32,
    stamp: Stamp,
    /// It is a placeholder, of this.
    stub: Option<Stub>,
}

fn fail(kind: Kind, operation: &'static str, path: impl std::fmt::Display) -> WorkspaceError {
    WorkspaceError { kind, operation, path: path.to_string(), message: format!("{kind:?}") }
}

impl Directory {
    fn seen(&self) -> WorkspaceSeen {
        WorkspaceSeen { id: self.id, uid: self.uid.clone() }
    }

    fn add_parents(&mut self, path: &RelPath) {
        let mut parent = path.parent();
        while let Some(folder) = parent {
            parent = folder.parent();
            self.folders.entry(folder).or_insert(0o755);
        }
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The directory of a place, if it is the one that is meant.
    fn at(
        &mut self,
        place: &Place,
        operation: &'static str,
    ) -> Result<&mut Directory, WorkspaceError> {
        let name = format!("{}/{}", place.user, place.case);
        let key = (place.user.clone(), place.case.clone());
        let Some(found) = self.spaces.get_mut(&key) else {
            return Err(fail(Kind::NotFound, operation, name));
        };
        match place.id {
            Some(id) if id != found.id => Err(fail(Kind::Replaced, operation, name)),
            _ => Ok(found),
        }
    }

    fn destroy(&mut self, key: &Key, path: &RelPath, sum: Sha256, by: &'static str) {
        let (user, case) = key.clone();
        self.destroyed.push(Destroyed { user, case, path: path.clone(), sum, by });
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new(clock: FakeClock) -> MemoryDisk {
        MemoryDisk { clock, root: PathBuf::from("/ws"), state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self) -> i64 {
        self.clock.now().timestamp_nanos_opt().unwrap_or_default()
    }

    /// Where a workspace is on the host.
    pub fn path(&self, user: &UserName, case: &CaseName) -> PathBuf {
        self.root.join(user.as_str()).join("active").join(case.as_str())
    }

    /// A tenant writes a file. `false`: there is no workspace.
    pub fn write_by_tenant(
        &self,
        user: &UserName,
        case: &CaseName,
        path: &RelPath,
        bytes: Vec<u8>,
    ) -> bool {
        let now = self.nanos();
        let mut state = self.state();
        let ino = state.next();
        let Some(space) = state.spaces.get_mut(&(user.clone(), case.clone())) else { return false };
        let ino = space.files.get(path).map_or(ino, |file| file.stamp.ino);
        let stamp = Stamp { ino, size: bytes.len() as u64, mtime_ns: now, ctime_ns: now };
        let file =
            File { sum: sum_of(&bytes), bytes: Bytes::from(bytes), mode: 0o644, stamp, stub: None };
        space.add_parents(path);
        space.files.insert(path.clone(), file);
        true
    }

    /// A tenant removes a file. `false`: it was not there.
    pub fn remove_by_tenant(&self, user: &UserName, case: &CaseName, path: &RelPath) -> bool {
        let mut state = self.state();
        let space = state.spaces.get_mut(&(user.clone(), case.clone()));
        space.is_some_and(|space| space.files.remove(path).is_some())
    }

    /// Everything in a workspace; `None`: it is not there.
    pub fn files(&self, user: &UserName, case: &CaseName) -> Option<BTreeMap<RelPath, Sha256>> {
        let state = self.state();
        let space = state.spaces.get(&(user.clone(), case.clone()))?;
        Some(space.files.iter().map(|(path, file)| (path.clone(), file.sum)).collect())
    }

    /// All workspaces.
    pub fn spaces(&self) -> Vec<(UserName, CaseName)> {
        self.state().spaces.keys().cloned().collect()
    }

    /// All copies of records.
    pub fn noted(&self) -> Vec<Uid> {
        self.state().notes.keys().cloned().collect()
    }

    /// The uids of what lies in the trash.
    pub fn trashed(&self) -> Vec<Uid> {
        self.state().trash.keys().cloned().collect()
    }

    /// What was destroyed since the last call.
    pub fn destroyed(&self) -> Vec<Destroyed> {
        std::mem::take(&mut self.state().destroyed)
    }

    /// From now on placeholders stand for large files, and are filled from this store when they
    /// are opened; `None`: stub files do.
    pub fn open_from(&self, store: Option<MemoryStore>) {
        self.state().opens = store;
    }

    /// Where placeholders stand.
    pub fn placeholders(&self, user: &UserName, case: &CaseName) -> Vec<RelPath> {
        let state = self.state();
        let space = state.spaces.get(&(user.clone(), case.clone()));
        let files = space.iter().flat_map(|space| &space.files);
        files.filter(|(_, file)| file.stub.is_some()).map(|(path, _)| path.clone()).collect()
    }

    /// A tenant renames a file, placeholder or not. `false`: it was not there.
    pub fn rename_by_tenant(
        &self,
        user: &UserName,
        case: &CaseName,
        from: &RelPath,
        to: &RelPath,
    ) -> bool {
        let mut state = self.state();
        let Some(space) = state.spaces.get_mut(&(user.clone(), case.clone())) else { return false };
        let Some(file) = space.files.remove(from) else { return false };
        space.add_parents(to);
        space.files.insert(to.clone(), file);
        true
    }

    /// So much of the 1 TiB is free from now on; `None`: nearly all.
    pub fn set_free(&self, free: Option<u64>) {
        self.state().free = free;
    }
}

impl Workspaces for MemoryDisk {
    fn host_path(&self, place: &Place, user_scope: bool) -> PathBuf {
        if user_scope {
            return self.root.join(place.user.as_str());
        }
        self.path(&place.user, &place.case)
    }

    async fn look(
        &self,
        user: &UserName,
        case: &CaseName,
    ) -> Result<Option<WorkspaceSeen>, WorkspaceError> {
        let state = self.state();
        Ok(state.spaces.get(&(user.clone(), case.clone())).map(Directory::seen))
    }

    async fn list(&self) -> Result<Vec<(UserName, CaseName, WorkspaceSeen)>, WorkspaceError> {
        let state = self.state();
        let row =
            |((user, case), one): (&Key, &Directory)| (user.clone(), case.clone(), one.seen());
        Ok(state.spaces.iter().map(row).collect())
    }

    async fn ensure(
        &self,
        place: &Place,
        _owner: (u32, u32),
    ) -> Result<WorkspaceSeen, WorkspaceError> {
        let mut state = self.state();
        let key = (place.user.clone(), place.case.clone());
        if !state.spaces.contains_key(&key) {
            let id = WorkspaceId { dev: 1, ino: state.next() };
            let fresh = Directory {
                id,
                uid: Some(place.uid.clone()),
                files: BTreeMap::new(),
                folders: BTreeMap::new(),
                links: BTreeMap::new(),
            };
            let seen = fresh.seen();
            state.spaces.insert(key, fresh);
            return Ok(seen);
        }
        Ok(state.at(place, "make workspace")?.seen())
    }

    async fn ensure_folders(
        &self,
        place: &Place,
        folders: &[String],
        _owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        let now = self.nanos();
        let mut state = self.state();
        for folder in folders {
            let ino = state.next();
            let space = state.at(place, "make folders")?;
            let bad = |_| fail(Kind::Io, "make folders", folder);
            let path = RelPath::parse(folder.as_bytes()).map_err(bad)?;
            let keep = path.join(b".gitkeep").map_err(bad)?;
            space.folders.entry(path).or_insert(0o755);
            let stamp = Stamp { ino, size: 0, mtime_ns: now, ctime_ns: now };
            let empty =
                File { bytes: Bytes::new(), sum: sum_of(b""), mode: 0o644, stamp, stub: None };
            space.files.entry(keep).or_insert(empty);
        }
        Ok(())
    }

    async fn ensure_tree(
        &self,
        place: &Place,
        tree: &Tree,
        _owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        let mut state = self.state();
        let space = state.at(place, "make tree")?;
        for (path, mode) in &tree.directories {
            space.folders.entry(path.clone()).or_insert(*mode);
        }
        for (path, target) in &tree.symlinks {
            space.links.entry(path.clone()).or_insert_with(|| target.clone());
        }
        Ok(())
    }

    async fn change_tree(&self, place: &Place, change: &TreeChange) -> Result<(), WorkspaceError> {
        let mut state = self.state();
        let space = state.at(place, "change tree")?;
        space.links.retain(|path, text| change.symlinks.get(path) != Some(text));
        for path in change.directories.iter().rev() {
            let inside = [path.as_bytes(), b"/"].concat();
            let is_inside = |at: &RelPath| at.as_bytes().starts_with(&inside);
            let empty = !space.files.keys().any(is_inside)
                && !space.folders.keys().any(is_inside)
                && !space.links.keys().any(is_inside);
            if empty {
                space.folders.remove(path);
            }
        }
        for (path, (from, to)) in &change.modes {
            if let Some(mode) = space.folders.get_mut(path).filter(|mode| **mode == *from) {
                *mode = *to;
            }
        }
        Ok(())
    }

    async fn scan(
        &self,
        place: &Place,
        spec: &WorkspaceSpec,
        base: &Base,
        mode: ScanMode,
    ) -> Result<Scan, WorkspaceError> {
        let mut state = self.state();
        let space = state.at(place, "scan")?;
        let mut scan = Scan::default();
        for (path, mode) in &space.folders {
            let entry = LocalEntry { kind: LocalKind::Directory, mode: *mode };
            scan.entries.insert(path.clone(), entry);
        }
        for (path, target) in &space.links {
            let entry = LocalEntry { kind: LocalKind::Symlink(target.clone()), mode: 0o777 };
            scan.entries.insert(path.clone(), entry);
        }
        for (path, file) in &space.files {
            scan.bytes += file.stamp.size;
            if file.stamp.size > spec.max_file_size {
                scan.skipped.insert(path.clone(), SkipReason::TooLarge);
                continue;
            }
            if let Some(stub) = &file.stub {
                let kind = seen_as(stub, &file.stamp, place);
                scan.entries.insert(path.clone(), LocalEntry { kind, mode: file.mode });
                continue;
            }
            let known = base.files.get(path).filter(|entry| entry.stamp == Some(file.stamp));
            let sha256 = match (mode, known) {
                (ScanMode::Quick, Some(entry)) => entry.sha256,
                _ => Some(file.sum),
            };
            let kind = LocalKind::File { sha256, stamp: file.stamp };
            scan.entries.insert(path.clone(), LocalEntry { kind, mode: file.mode });
        }
        Ok(scan)
    }

    async fn read(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Stamp,
    ) -> Result<Body, WorkspaceError> {
        let mut state = self.state();
        let space = state.at(place, "read")?;
        let file = space.files.get(path).ok_or_else(|| fail(Kind::NotFound, "read", path))?;
        if file.stamp != expected {
            return Err(fail(Kind::Changed, "read", path));
        }
        Ok(Box::pin(std::io::Cursor::new(file.bytes.clone())))
    }

    async fn write(
        &self,
        place: &Place,
        path: &RelPath,
        file: &FileSpec,
        mut body: Body,
        expect: Expect,
    ) -> Result<(Sha256, Stamp), WorkspaceError> {
        let mut bytes = Vec::new();
        if body.read_to_end(&mut bytes).await.is_err() {
            return Err(fail(Kind::Corrupt, "write", path));
        }
        let sum = sum_of(&bytes);
        let wrong = file.sha256.is_some_and(|announced| announced != sum);
        if wrong || bytes.len() as u64 != file.size {
            return Err(fail(Kind::Corrupt, "write", path));
        }
        let now = self.nanos();
        let mut state = self.state();
        let ino = state.next();
        let space = state.at(place, "write")?;
        expected(space, path, expect, "write")?;
        let stamp = Stamp { ino, size: file.size, mtime_ns: file.mtime_ns, ctime_ns: now };
        let mode = file.mode & 0o777;
        let new = File { bytes: Bytes::from(bytes), sum, mode, stamp, stub: None };
        space.add_parents(path);
        let old = space.files.insert(path.clone(), new);
        if let Some(old) = old.filter(|old| old.stub.is_none()) {
            let key = (place.user.clone(), place.case.clone());
            state.destroy(&key, path, old.sum, "write");
        }
        Ok((sum, stamp))
    }

    async fn rename(
        &self,
        place: &Place,
        from: &RelPath,
        to: &RelPath,
        expected_stamp: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        let now = self.nanos();
        let mut state = self.state();
        let space = state.at(place, "rename")?;
        expected(space, from, Expect::Stamp(expected_stamp), "rename")?;
        expected(space, to, Expect::Absent, "rename")?;
        let Some(mut file) = space.files.remove(from) else {
            return Err(fail(Kind::NotFound, "rename", from));
        };
        file.stamp.ctime_ns = now;
        let stamp = file.stamp;
        space.files.insert(to.clone(), file);
        Ok(stamp)
    }

    async fn set_meta(
        &self,
        place: &Place,
        path: &RelPath,
        mode: u32,
        mtime_ns: i64,
        expected_stamp: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        let now = self.nanos();
        let mut state = self.state();
        let space = state.at(place, "set meta")?;
        expected(space, path, Expect::Stamp(expected_stamp), "set meta")?;
        let Some(file) = space.files.get_mut(path) else {
            return Err(fail(Kind::NotFound, "set meta", path));
        };
        file.mode = mode & 0o777;
        file.stamp.mtime_ns = mtime_ns;
        file.stamp.ctime_ns = now;
        Ok(file.stamp)
    }

    async fn remove_file(
        &self,
        place: &Place,
        path: &RelPath,
        expect: Expect,
    ) -> Result<(), WorkspaceError> {
        let mut state = self.state();
        let space = state.at(place, "remove file")?;
        expected(space, path, expect, "remove file")?;
        if let Some(old) = space.files.remove(path).filter(|old| old.stub.is_none()) {
            let key = (place.user.clone(), place.case.clone());
            state.destroy(&key, path, old.sum, "remove file");
        }
        Ok(())
    }

    async fn trash(&self, place: &Place) -> Result<(), WorkspaceError> {
        let now = self.nanos();
        let mut state = self.state();
        match state.at(place, "trash") {
            Ok(_) => (),
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let key = (place.user.clone(), place.case.clone());
        if let Some(space) = state.spaces.remove(&key) {
            state.trash.entry(place.uid.clone()).or_default().push((now, key, space));
        }
        Ok(())
    }

    async fn empty_trash(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        let mut state = self.state();
        for (_, key, space) in state.trash.remove(uid).unwrap_or_default() {
            for (path, file) in space.files.into_iter().filter(|(_, file)| file.stub.is_none()) {
                state.destroy(&key, &path, file.sum, "empty trash");
            }
        }
        Ok(())
    }

    async fn list_trash(&self) -> Result<Vec<Trashed>, WorkspaceError> {
        let state = self.state();
        let newest = |all: &Vec<(i64, Key, Directory)>| all.iter().map(|one| one.0).max();
        let all = state.trash.iter().map(|(uid, all)| Trashed {
            name: uid.to_string(),
            uid: Some(uid.clone()),
            moved_ns: newest(all).unwrap_or(0),
        });
        Ok(all.collect())
    }

    async fn stage_secret(
        &self,
        uid: &Uid,
        name: &str,
        _source: &Path,
        _allowed: &[PathBuf],
    ) -> Result<PathBuf, WorkspaceError> {
        let path = self.root.join(".docket/secrets").join(uid.as_str()).join(name);
        let mut state = self.state();
        state.secrets.entry(uid.clone()).or_default().insert(name.to_owned(), path.clone());
        Ok(path)
    }

    async fn drop_secrets(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        self.state().secrets.remove(uid);
        Ok(())
    }

    async fn put_note(&self, uid: &Uid, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        self.state().notes.insert(uid.clone(), bytes);
        Ok(())
    }

    async fn drop_note(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        self.state().notes.remove(uid);
        Ok(())
    }

    async fn keep_applied(&self, key: &str, text: Option<&str>) -> Result<(), WorkspaceError> {
        let applied = &mut self.state().applied;
        match text {
            Some(text) => applied.insert(key.to_owned(), text.to_owned()),
            None => applied.remove(key),
        };
        Ok(())
    }

    async fn applied(&self) -> Result<BTreeMap<String, String>, WorkspaceError> {
        Ok(self.state().applied.clone())
    }

    async fn notes(&self) -> Result<Vec<(Uid, Vec<u8>)>, WorkspaceError> {
        Ok(self.state().notes.iter().map(|(uid, note)| (uid.clone(), note.clone())).collect())
    }

    fn lazy(&self) -> LazyMode {
        match self.state().opens {
            Some(_) => LazyMode::OnAccess,
            None => LazyMode::Stub { reason: "this disk holds no opens back".to_owned() },
        }
    }

    async fn place(
        &self,
        place: &Place,
        files: Vec<Placeholder>,
    ) -> Result<Vec<Result<(), WorkspaceError>>, WorkspaceError> {
        let now = self.nanos();
        let mut state = self.state();
        let mut all = Vec::new();
        for file in files {
            let ino = state.next();
            let space = state.at(place, "place")?;
            let over = expected(space, &file.path, Expect::Placeholder, "place");
            let free = expected(space, &file.path, Expect::Absent, "place");
            let placed = if file.over { over.or(free) } else { free };
            if placed.is_ok() {
                let Stub { size, mtime_ns, .. } = file.stub;
                let stamp = Stamp { ino, size, mtime_ns, ctime_ns: now };
                let (bytes, mode, stub) = (Bytes::new(), file.mode & 0o777, Some(file.stub));
                space.add_parents(&file.path);
                let new = File { sum: sum_of(&bytes), bytes, mode, stamp, stub };
                space.files.insert(file.path, new);
            }
            all.push(placed);
        }
        Ok(all)
    }

    async fn open(&self, place: &Place, path: &RelPath) -> Result<Option<Stamp>, WorkspaceError> {
        let now = self.nanos();
        let mut state = self.state();
        let store = state.opens.clone();
        let space = state.at(place, "open")?;
        let Some(file) = space.files.get_mut(path) else { return Ok(None) };
        let Some(stub) = &file.stub else { return Ok(None) };
        let bytes = store.and_then(|store| store.bytes(&stub.key));
        let sound = |bytes: &Bytes| stub.sha256.is_none_or(|sum| sum == sum_of(bytes));
        let Some(bytes) = bytes.filter(sound) else { return Err(fail(Kind::Io, "open", path)) };
        (file.sum, file.bytes, file.stub) = (sum_of(&bytes), bytes, None);
        file.stamp.ctime_ns = now;
        Ok(Some(file.stamp))
    }

    async fn space(&self) -> Result<Space, WorkspaceError> {
        const TOTAL: u64 = 1 << 40;
        Ok(Space { total: TOTAL, free: self.state().free.unwrap_or(TOTAL / 10 * 9) })
    }
}

/// Whether what is at a path is what the caller saw last.
fn expected(
    space: &Directory,
    path: &RelPath,
    expect: Expect,
    operation: &'static str,
) -> Result<(), WorkspaceError> {
    let there = space.files.get(path);
    let free = !space.folders.contains_key(path) && !space.links.contains_key(path);
    let holds = match expect {
        Expect::Absent => there.is_none() && free,
        Expect::Stamp(stamp) => {
            there.is_some_and(|file| file.stamp == stamp && file.stub.is_none())
        }
        Expect::Placeholder => there.is_some_and(|file| file.stub.is_some()),
    };
    if holds { Ok(()) } else { Err(fail(Kind::Changed, operation, path)) }
}

/// A placeholder as a scan tells it.
fn seen_as(stub: &Stub, stamp: &Stamp, place: &Place) -> LocalKind {
    let prefix = format!("{}/{}/", place.user, place.case);
    let row = stub.key.strip_prefix(&prefix).map(|key| ManifestEntry {
        sha256: stub.sha256,
        size: Some(stub.size),
        mode: None,
        mtime_ns: Some(stub.mtime_ns),
        storage_key: key.to_owned(),
    });
    let altered = (stub.size, stub.mtime_ns) != (stamp.size, stamp.mtime_ns);
    LocalKind::Placeholder { row, altered }
}
