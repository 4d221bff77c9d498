//! Bugs to be planted, each a door that lies in the way the mistake would: the suite must see
//! every one of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use docket::model::{
    Base, CaseName, Container, ContainerDetail, ContainerId, ContainerState, LazyMode, LocalEntry,
    LocalKind, PullPolicy, RelPath, Resources, Scan, Sha256, Space, Stamp, Timestamp, Tree,
    TreeChange, Uid, Usage, UserName, WorkspaceSeen, WorkspaceSpec,
};
use docket::testing::disk::MemoryDisk;
use docket::testing::engine::FakeEngine;
use docket::testing::faults::Weathered;
use docket::testing::memory::MemoryLedger;
use docket::testing::store::MemoryStore;
use docket::world::{
    Body, Contents, CreateRequest, Engine, EngineError, EngineInfo, EventStream, Expect, FileSpec,
    Image, Ledger, LedgerError, LogStream, ObjectMeta, Objects, Place, Placeholder, ScanMode,
    StoreError, StoreErrorKind, Swap, Trashed, WorkspaceError, Workspaces, Write,
};

/// A mistake that must not go unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Calls wait for ever.
    NoDeadline,
    /// What a program wrote after the sync before its stop is not looked for.
    SyncOnlyBeforeTheStop,
    /// Nothing is synced before a workspace is removed.
    RemoveWithoutSync,
    /// A failed listing is an empty one.
    EmptyListingIsAbsence,
    /// Container names are not deterministic.
    RandomNames,
    /// Two sessions are given the same port.
    PortRace,
    /// What a session gives up still counts.
    StaleCount,
    /// What does not run is not listed.
    ForgottenOrphans,
    /// A container that was found made is not compared with what was asked for.
    AdoptedUnproven,
    /// A key that is taken is a conflict, whatever is under it.
    TakenIsConflict,
}

impl Bug {
    pub const ALL: &'static [Bug] = &[
        Bug::NoDeadline,
        Bug::SyncOnlyBeforeTheStop,
        Bug::RemoveWithoutSync,
        Bug::EmptyListingIsAbsence,
        Bug::RandomNames,
        Bug::PortRace,
        Bug::StaleCount,
        Bug::ForgottenOrphans,
        Bug::AdoptedUnproven,
        Bug::TakenIsConflict,
    ];

    pub fn named(name: &str) -> Bug {
        let found = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
        *found.unwrap_or_else(|| panic!("no such bug; one of {:?}", Bug::ALL))
    }
}

/// The engine, as a buggy operator would read it.
#[derive(Debug)]
pub struct BuggyEngine {
    pub door: Weathered<FakeEngine>,
    pub bug: Option<Bug>,
    pub names: Arc<AtomicU64>,
}

impl Engine for BuggyEngine {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        let listed = self.door.list().await;
        match self.bug {
            Some(Bug::EmptyListingIsAbsence) => Ok(listed.unwrap_or_default()),
            Some(Bug::ForgottenOrphans) => listed.map(|mut all| {
                all.retain(|one| one.state == ContainerState::Running);
                all
            }),
            _ => listed,
        }
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        self.door.inspect(id).await
    }

    async fn holder_of(&self, name: &str) -> Result<Option<bool>, EngineError> {
        self.door.holder_of(name).await
    }

    async fn resolve_image(
        &self,
        reference: &str,
        policy: PullPolicy,
    ) -> Result<Image, EngineError> {
        self.door.resolve_image(reference, policy).await
    }

    async fn ensure_network(&self) -> Result<Option<String>, EngineError> {
        self.door.ensure_network().await
    }

    async fn create(&self, request: &CreateRequest) -> Result<ContainerId, EngineError> {
        if self.bug != Some(Bug::RandomNames) {
            return self.door.create(request).await;
        }
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", request.name);
        self.door.create(&CreateRequest { name, ..request.clone() }).await
    }

    async fn compare(
        &self,
        id: &ContainerId,
        request: &CreateRequest,
    ) -> Result<Option<String>, EngineError> {
        match self.bug {
            Some(Bug::AdoptedUnproven) => Ok(None),
            _ => self.door.compare(id, request).await,
        }
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.door.start(id).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        self.door.stop(id, grace).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.door.remove(id).await
    }

    async fn update(&self, id: &ContainerId, resources: Resources) -> Result<(), EngineError> {
        self.door.update(id, resources).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.door.pause(id).await
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.door.unpause(id).await
    }

    async fn usage(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
    ) -> Result<Usage, EngineError> {
        self.door.usage(id, detail).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        follow: bool,
        tail: Option<u64>,
    ) -> Result<LogStream, EngineError> {
        self.door.logs(id, follow, tail).await
    }

    fn events(&self) -> EventStream {
        self.door.events()
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.door.info().await
    }
}

/// The ledger; which answers were errors is remembered for the invariants.
#[derive(Debug)]
pub struct ToldLedger {
    pub door: Weathered<MemoryLedger>,
    pub kept: Arc<MemoryLedger>,
}

impl Ledger for ToldLedger {
    async fn load(&self) -> Result<Contents, LedgerError> {
        self.door.load().await
    }

    async fn commit(&self, batch: Vec<Write>) -> Result<(), LedgerError> {
        // Until it is answered nothing is known of it, and a cut leaves it so.
        self.kept.answered(&batch, true);
        let answer = self.door.commit(batch.clone()).await;
        self.kept.answered(&batch, answer.is_err());
        answer
    }

    async fn base(&self, uid: &Uid) -> Result<Option<Base>, LedgerError> {
        self.door.base(uid).await
    }
}

/// The store, as a buggy client would read it.
#[derive(Debug)]
pub struct BuggyStore {
    pub door: Weathered<MemoryStore>,
    pub bug: Option<Bug>,
}

impl Objects for BuggyStore {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.door.head(key).await
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        self.door.get(key).await
    }

    async fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        if self.bug == Some(Bug::TakenIsConflict) && self.door.head(key).await?.is_some() {
            return Err(StoreError {
                kind: StoreErrorKind::Invalid,
                operation: "put",
                key: key.to_owned(),
                message: "412 Precondition Failed".to_owned(),
            });
        }
        self.door.put_new(key, body, size, sha256).await
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        self.door.put_if(key, bytes, expected, at).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.door.list(prefix).await
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        self.door.is_conditional().await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.door.delete(key).await
    }
}

/// The workspaces, as a buggy syncer would read them.
#[derive(Debug)]
pub struct BuggyDisk {
    pub door: Weathered<MemoryDisk>,
    pub bug: Option<Bug>,
}

impl Workspaces for BuggyDisk {
    fn host_path(&self, place: &Place, user_scope: bool) -> PathBuf {
        self.door.host_path(place, user_scope)
    }

    async fn look(
        &self,
        user: &UserName,
        case: &CaseName,
    ) -> Result<Option<WorkspaceSeen>, WorkspaceError> {
        self.door.look(user, case).await
    }

    async fn list(&self) -> Result<Vec<(UserName, CaseName, WorkspaceSeen)>, WorkspaceError> {
        self.door.list().await
    }

    async fn ensure(
        &self,
        place: &Place,
        owner: (u32, u32),
    ) -> Result<WorkspaceSeen, WorkspaceError> {
        self.door.ensure(place, owner).await
    }

    async fn ensure_folders(
        &self,
        place: &Place,
        folders: &[String],
        owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        self.door.ensure_folders(place, folders, owner).await
    }

    async fn ensure_tree(
        &self,
        place: &Place,
        tree: &Tree,
        owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        self.door.ensure_tree(place, tree, owner).await
    }

    async fn change_tree(&self, place: &Place, change: &TreeChange) -> Result<(), WorkspaceError> {
        self.door.change_tree(place, change).await
    }

    async fn scan(
        &self,
        place: &Place,
        spec: &WorkspaceSpec,
        base: &Base,
        mode: ScanMode,
    ) -> Result<Scan, WorkspaceError> {
        let scan = self.door.scan(place, spec, base, mode).await?;
        let blind = match self.bug {
            Some(Bug::SyncOnlyBeforeTheStop) => mode == ScanMode::Checksum,
            Some(Bug::RemoveWithoutSync) => true,
            _ => false,
        };
        Ok(if blind { as_in(base) } else { scan })
    }

    async fn read(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Stamp,
    ) -> Result<Body, WorkspaceError> {
        self.door.read(place, path, expected).await
    }

    async fn write(
        &self,
        place: &Place,
        path: &RelPath,
        file: &FileSpec,
        body: Body,
        expect: Expect,
    ) -> Result<(Sha256, Stamp), WorkspaceError> {
        self.door.write(place, path, file, body, expect).await
    }

    async fn rename(
        &self,
        place: &Place,
        from: &RelPath,
        to: &RelPath,
        expected: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        self.door.rename(place, from, to, expected).await
    }

    async fn set_meta(
        &self,
        place: &Place,
        path: &RelPath,
        mode: u32,
        mtime_ns: i64,
        expected: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        self.door.set_meta(place, path, mode, mtime_ns, expected).await
    }

    async fn remove_file(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Expect,
    ) -> Result<(), WorkspaceError> {
        self.door.remove_file(place, path, expected).await
    }

    async fn trash(&self, place: &Place) -> Result<(), WorkspaceError> {
        self.door.trash(place).await
    }

    async fn empty_trash(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        self.door.empty_trash(uid).await
    }

    async fn list_trash(&self) -> Result<Vec<Trashed>, WorkspaceError> {
        self.door.list_trash().await
    }

    async fn stage_secret(
        &self,
        uid: &Uid,
        name: &str,
        source: &Path,
        allowed: &[PathBuf],
    ) -> Result<PathBuf, WorkspaceError> {
        self.door.stage_secret(uid, name, source, allowed).await
    }

    async fn drop_secrets(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        self.door.drop_secrets(uid).await
    }

    async fn put_note(&self, uid: &Uid, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        self.door.put_note(uid, bytes).await
    }

    async fn drop_note(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        self.door.drop_note(uid).await
    }

    async fn keep_applied(&self, key: &str, text: Option<&str>) -> Result<(), WorkspaceError> {
        self.door.keep_applied(key, text).await
    }

    async fn applied(&self) -> Result<BTreeMap<String, String>, WorkspaceError> {
        self.door.applied().await
    }

    async fn notes(&self) -> Result<Vec<(Uid, Vec<u8>)>, WorkspaceError> {
        self.door.notes().await
    }

    fn lazy(&self) -> LazyMode {
        self.door.lazy()
    }

    async fn place(
        &self,
        place: &Place,
        files: Vec<Placeholder>,
    ) -> Result<Vec<Result<(), WorkspaceError>>, WorkspaceError> {
        self.door.place(place, files).await
    }

    async fn open(&self, place: &Place, path: &RelPath) -> Result<Option<Stamp>, WorkspaceError> {
        self.door.open(place, path).await
    }

    async fn space(&self) -> Result<Space, WorkspaceError> {
        self.door.space().await
    }
}

/// A scan that finds everything as it was last committed.
fn as_in(base: &Base) -> Scan {
    let entry = |(path, known): (&RelPath, &docket::model::BaseEntry)| {
        let kind = match known.stamp {
            Some(stamp) => LocalKind::File { sha256: known.sha256, stamp },
            None => LocalKind::Placeholder { row: None, altered: false },
        };
        (path.clone(), LocalEntry { kind, mode: known.mode })
    };
    let entries = base.files.iter().map(entry).collect();
    Scan { entries, ..Scan::default() }
}
