//! A workspace and a store for tests, and a store that fails, waits and counts on request.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt as _;

use crate::apply::files::{Bounds, Files, FilesError, Found, Turns};
use crate::model::{
    Base, CaseName, FilesSpec, LargeFiles, Progress, RelPath, Scope, Sha256, Timestamp, Uid,
    UserName, WorkspaceSpec,
};
use crate::objects::directory::Directory;
use crate::plan::MinFree;
use crate::sync::{parse_manifest, sum};
use crate::workspace::Local;
use crate::world::{
    Body, Clock, ObjectMeta, Objects, Place, ScanMode, StoreError, StoreErrorKind, Swap,
    Workspaces as _,
};

/// Always the same moment.
pub(super) struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_timestamp(1_795_464_250, 0).unwrap()
    }

    fn random(&self) -> [u8; 16] {
        [7; 16]
    }
}

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A store that can be asked to misbehave.
#[derive(Clone)]
pub(super) struct Spy {
    pub store: Directory,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    calls: Vec<String>,
    /// What happens before a call of this name, once.
    before: Option<(&'static str, Hook)>,
    /// The n-th call from now fails; `true`: after it was done.
    fails: Option<(usize, bool)>,
    down: Option<StoreErrorKind>,
    /// Bodies of keys that hold this break off.
    cuts: Option<String>,
}

impl Spy {
    pub fn new(root: &Path) -> Spy {
        Spy { store: Directory::open(root, "").unwrap(), state: Arc::default() }
    }

    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    pub fn down(&self, kind: Option<StoreErrorKind>) {
        self.state.lock().unwrap().down = kind;
    }

    /// From now on bodies of keys that hold this break off halfway.
    pub fn cut(&self, key: Option<&str>) {
        self.state.lock().unwrap().cuts = key.map(str::to_owned);
    }

    pub fn fail(&self, nth: Option<usize>, after: bool) {
        self.state.lock().unwrap().fails = nth.map(|nth| (nth, after));
    }

    pub fn before<F>(&self, call: &'static str, hook: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let hook: Hook = Box::new(move || Box::pin(hook()));
        self.state.lock().unwrap().before = Some((call, hook));
    }

    async fn call<T>(
        &self,
        name: &'static str,
        key: &str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (hook, fails) = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(format!("{name} {key}"));
            let hook = state.before.take_if(|(call, _)| *call == name);
            let fails = match &mut state.fails {
                Some((0, after)) => Some(*after),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            };
            if fails.is_some() {
                state.fails = None;
            }
            (hook, fails.or(state.down.map(|_| false)))
        };
        if let Some((_, hook)) = hook {
            hook().await;
        }
        let kind = self.state.lock().unwrap().down.unwrap_or(StoreErrorKind::Unavailable);
        let error = || StoreError {
            kind,
            operation: name,
            key: key.to_owned(),
            message: "asked to fail".to_owned(),
        };
        match fails {
            Some(false) => Err(error()),
            Some(true) => work.await.and_then(|_| Err(error())),
            None => work.await,
        }
    }
}

impl Objects for Spy {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.call("head", key, self.store.head(key)).await
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        let (meta, body) = self.call("get", key, self.store.get(key)).await?;
        let cut = self.state.lock().unwrap().cuts.as_ref().is_some_and(|cut| key.contains(cut));
        if !cut {
            return Ok((meta, body));
        }
        let ends = std::io::Error::from(std::io::ErrorKind::ConnectionAborted);
        let ends = futures_util::stream::iter([Err::<bytes::Bytes, _>(ends)]);
        let broken = tokio_util::io::StreamReader::new(ends);
        let body: Body = Box::pin(body.take(meta.size / 2).chain(broken));
        Ok((meta, body))
    }

    async fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        self.call("put", key, self.store.put_new(key, body, size, sha256)).await
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        self.call("swap", key, self.store.put_if(key, bytes, expected, at)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.call("list", prefix, self.store.list(prefix)).await
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        self.store.is_conditional().await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.call("delete", key, self.store.delete(key)).await
    }
}

/// One node with one workspace of `ann`'s case `one`.
pub(super) struct Home {
    pub local: Local,
    pub store: Spy,
    pub place: Place,
    pub spec: WorkspaceSpec,
    pub base: Option<Base>,
    pub floor: MinFree,
    pub dir: PathBuf,
    _temp: tempfile::TempDir,
}

/// A store and the directory it lies in.
pub(super) fn store() -> (tempfile::TempDir, Spy) {
    let temp = tempfile::tempdir().unwrap();
    let spy = Spy::new(temp.path());
    (temp, spy)
}

impl Home {
    pub async fn new(store: &Spy) -> Home {
        let temp = tempfile::tempdir().unwrap();
        let local = Local::open(temp.path().join("ws")).unwrap();
        let mut place = Place {
            user: UserName::parse("ann").unwrap(),
            case: CaseName::parse("one").unwrap(),
            uid: Uid::from_bytes([1; 16]),
            id: None,
        };
        place.id = Some(local.ensure(&place, (0, 0)).await.unwrap().id);
        let dir = local.host_path(&place, false);
        let floor = MinFree::Bytes(0);
        let store = store.clone();
        Home { local, store, place, spec: spec(), base: None, floor, dir, _temp: temp }
    }

    pub fn all(&self) -> Files<'_, Local, Spy, Still> {
        static TURNS: Turns = Turns::new(64, 64);
        let Home { local, store, place, spec, .. } = self;
        Files {
            workspaces: local,
            objects: store,
            clock: &Still,
            place,
            spec,
            owner: (0, 0),
            bounds: Bounds { floor: self.floor, turns: &TURNS },
        }
    }

    pub async fn try_sync(&mut self, mode: ScanMode) -> Result<Found, FilesError> {
        let found = self.all().sync(self.base.as_ref(), mode).await?;
        self.base = Some(found.base.clone());
        Ok(found)
    }

    pub async fn sync(&mut self) -> Found {
        self.try_sync(ScanMode::Quick).await.unwrap()
    }

    pub async fn try_hydrate(&mut self) -> Result<Found, FilesError> {
        let found = self.all().hydrate(self.base.as_ref(), &|_| ()).await?;
        self.base = Some(found.base.clone());
        Ok(found)
    }

    pub async fn hydrate_paths(&mut self, paths: &[&str]) -> (Found, Vec<Progress>) {
        self.try_hydrate_paths(paths).await.unwrap()
    }

    pub async fn try_hydrate_paths(
        &mut self,
        paths: &[&str],
    ) -> Result<(Found, Vec<Progress>), FilesError> {
        let paths: Vec<RelPath> = paths.iter().map(|at| path(at)).collect();
        let told = Mutex::new(Vec::new());
        let tell = |progress| told.lock().unwrap().push(progress);
        let found = self.all().hydrate_paths(self.base.as_ref(), &paths, &tell).await?;
        self.base = Some(found.base.clone());
        Ok((found, told.into_inner().unwrap()))
    }

    pub fn write(&self, at: &str, text: &str) {
        let file = self.dir.join(at);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    pub fn read(&self, at: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(at)).ok()
    }

    pub fn remove(&self, at: &str) {
        fs::remove_file(self.dir.join(at)).unwrap();
    }

    /// Every file here and what it holds.
    pub fn files(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        walk(&self.dir, &self.dir, &mut found);
        found
    }
}

fn walk(top: &Path, at: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap();
        if kind.is_dir() {
            walk(top, &path, found);
        } else if kind.is_file() {
            let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes();
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.insert(String::from_utf8_lossy(name).into_owned(), text);
        }
    }
}

impl Spy {
    fn root(&self) -> &Path {
        self.store.path()
    }

    /// What the manifest says: each path and what its object holds.
    pub fn manifest(&self) -> BTreeMap<String, String> {
        let case = self.root().join("ann/one");
        let rows = parse_manifest(&fs::read(case.join("manifest.json")).unwrap()).unwrap();
        rows.into_iter()
            .map(|(path, row)| {
                let bytes = fs::read(case.join(&row.storage_key)).unwrap();
                assert!(row.sha256.is_none_or(|said| said == sum(&bytes)), "{path}");
                (path.to_string(), String::from_utf8(bytes).unwrap())
            })
            .collect()
    }

    /// Writes below the case's prefix by hand.
    pub fn drop_in(&self, key: &str, text: &str) {
        let file = self.root().join("ann/one").join(key);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// What stands below the case's prefix.
    pub fn text(&self, key: &str) -> String {
        fs::read_to_string(self.root().join("ann/one").join(key)).unwrap()
    }

    pub fn take_out(&self, key: &str) {
        fs::remove_file(self.root().join("ann/one").join(key)).unwrap();
    }

    /// Keys below a folder of the case.
    pub fn keys(&self, folder: &str) -> Vec<String> {
        let mut found = BTreeMap::new();
        let top = self.root().join("ann/one").join(folder);
        if top.exists() {
            walk(&top, &top, &mut found);
        }
        found.into_keys().collect()
    }

    /// Whether some object holds this.
    pub fn holds(&self, text: &str) -> bool {
        let mut found = BTreeMap::new();
        walk(self.root(), self.root(), &mut found);
        found.values().any(|held| held == text)
    }
}

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

pub(super) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(at, text)| ((*at).to_owned(), (*text).to_owned())).collect()
}

pub(super) fn spec() -> WorkspaceSpec {
    WorkspaceSpec {
        mount_path: "/opt/workspace".into(),
        scope: Scope::Case,
        folders: vec![],
        owner: String::new(),
        quota: 0,
        max_files: 1_000_000,
        max_file_size: 1 << 30,
        max_depth: 256,
        files: FilesSpec {
            eager_below: 1 << 20,
            large: LargeFiles::Stub,
            prefetch: 0,
            open_deadline: Duration::from_mins(1),
        },
        sync_interval: Duration::from_secs(30),
        sync_exclude: vec![],
    }
}
