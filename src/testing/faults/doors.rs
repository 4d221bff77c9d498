//! Every door in the weather. Deadlines are those of the real doors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;

use crate::model::{
    Base, CaseName, Container, ContainerDetail, ContainerId, LazyMode, PullPolicy, RelPath,
    Resources, Scan, Sha256, Space, Stamp, Timestamp, Tree, TreeChange, Uid, Usage, UserName,
    WorkspaceSeen, WorkspaceSpec,
};
use crate::world::{
    Body, Contents, CreateRequest, Engine, EngineError, EngineErrorKind, EngineInfo, EventStream,
    Expect, FileSpec, Image, Ledger, LedgerError, LogStream, ObjectMeta, Objects, Place,
    Placeholder, Probe, ProbeOutcome, ScanMode, StoreError, StoreErrorKind, Swap, Trashed,
    WorkspaceError, WorkspaceErrorKind, Workspaces, Write,
};

use super::{Life, Loss};

/// A look at the engine.
const READ: Duration = Duration::from_secs(10);
/// A change of a container.
const CHANGE: Duration = Duration::from_secs(30);
/// A start, a removal; a stop beyond its grace.
const LONG: Duration = Duration::from_mins(1);
/// One request to the object store.
const STORE: Duration = Duration::from_secs(30);

/// A door in the weather, used by one life.
#[derive(Debug)]
pub struct Weathered<D> {
    door: Arc<D>,
    life: Arc<Life>,
}

impl<D> Weathered<D> {
    /// This door as this life reaches it.
    pub fn new(door: Arc<D>, life: Arc<Life>) -> Weathered<D> {
        Weathered { door, life }
    }
}

fn engine(operation: &'static str) -> impl Fn(Loss) -> EngineError + Send + Sync + 'static {
    move |loss| {
        let (kind, message) = match loss {
            Loss::Refused => (EngineErrorKind::Unreachable, "connection refused"),
            Loss::Broken => (EngineErrorKind::Broken, "connection reset"),
            Loss::Timeout => (EngineErrorKind::Timeout, "no answer in time"),
        };
        EngineError { kind, operation, message: message.to_owned() }
    }
}

fn store(
    operation: &'static str,
    key: &str,
) -> impl Fn(Loss) -> StoreError + Send + Sync + 'static {
    let key = key.to_owned();
    move |loss| StoreError {
        kind: StoreErrorKind::Unavailable,
        operation,
        key: key.clone(),
        message: format!("{loss:?}"),
    }
}

fn disk<'a>(operation: &'static str, path: &'a str) -> impl Fn(Loss) -> WorkspaceError + Send + 'a {
    move |_| WorkspaceError {
        kind: WorkspaceErrorKind::Io,
        operation,
        path: path.to_owned(),
        message: "Input/output error".to_owned(),
    }
}

fn ledger(operation: &'static str) -> impl Fn(Loss) -> LedgerError + Send {
    move |_| LedgerError { operation, message: "Input/output error".to_owned(), no_space: false }
}

/// One engine call with its arguments cloned for the server's task.
macro_rules! ask_engine {
    ($self:ident, $op:literal, $key:expr, $deadline:expr, |$door:ident $(, $arg:ident)*| $call:expr) => {{
        let $door = Arc::clone(&$self.door);
        $(let $arg = $arg.clone();)*
        let key = $key.to_string();
        $self.life
            .remote($op, &key, $deadline, Box::pin(async move { $call.await }), engine($op))
            .await
    }};
}

impl<D: Engine> Engine for Weathered<D> {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        ask_engine!(self, "list containers", "", READ, |door| door.list())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        ask_engine!(self, "inspect container", id, READ, |door, id| door.inspect(&id))
    }

    async fn holder_of(&self, name: &str) -> Result<Option<bool>, EngineError> {
        let name = name.to_owned();
        ask_engine!(self, "find name", name, READ, |door, name| door.holder_of(&name))
    }

    async fn resolve_image(
        &self,
        reference: &str,
        policy: PullPolicy,
    ) -> Result<Image, EngineError> {
        let reference = reference.to_owned();
        ask_engine!(self, "resolve image", reference, LONG, |door, reference| door
            .resolve_image(&reference, policy))
    }

    async fn ensure_network(&self) -> Result<Option<String>, EngineError> {
        ask_engine!(self, "create network", "", CHANGE, |door| door.ensure_network())
    }

    async fn create(&self, request: &CreateRequest) -> Result<ContainerId, EngineError> {
        ask_engine!(self, "create container", request.name, CHANGE, |door, request| door
            .create(&request))
    }

    async fn compare(
        &self,
        id: &ContainerId,
        request: &CreateRequest,
    ) -> Result<Option<String>, EngineError> {
        ask_engine!(self, "compare container", id, READ, |door, id, request| door
            .compare(&id, &request))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        ask_engine!(self, "start container", id, LONG, |door, id| door.start(&id))
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        ask_engine!(self, "stop container", id, grace + LONG, |door, id| door.stop(&id, grace))
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        ask_engine!(self, "remove container", id, LONG, |door, id| door.remove(&id))
    }

    async fn update(&self, id: &ContainerId, resources: Resources) -> Result<(), EngineError> {
        ask_engine!(self, "update container", id, CHANGE, |door, id| door.update(&id, resources))
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        ask_engine!(self, "pause container", id, CHANGE, |door, id| door.pause(&id))
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        ask_engine!(self, "unpause container", id, CHANGE, |door, id| door.unpause(&id))
    }

    async fn usage(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
    ) -> Result<Usage, EngineError> {
        ask_engine!(self, "read usage", id, READ, |door, id, detail| door.usage(&id, &detail))
    }

    async fn logs(
        &self,
        id: &ContainerId,
        follow: bool,
        tail: Option<u64>,
    ) -> Result<LogStream, EngineError> {
        ask_engine!(self, "read logs", id, READ, |door, id| door.logs(&id, follow, tail))
    }

    fn events(&self) -> EventStream {
        let life = Arc::clone(&self.life);
        let heard = self.door.events().filter_map(move |event| {
            let life = Arc::clone(&life);
            async move {
                life.point("at", "event").await;
                // An event in eight is lost without a word while the weather is bad.
                let lost = !life.sky.is_calm() && life.sky.below(8) == 0;
                let kept = matches!(event, crate::world::EngineEvent::Relist) || !lost;
                kept.then_some(event)
            }
        });
        heard.boxed()
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        ask_engine!(self, "ask for the version", "", READ, |door| door.info())
    }
}

impl<D: Objects> Objects for Weathered<D> {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let (door, name) = (Arc::clone(&self.door), key.to_owned());
        let call = Box::pin(async move { door.head(&name).await });
        self.life.remote("head", key, STORE, call, store("head", key)).await
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        let (door, name) = (Arc::clone(&self.door), key.to_owned());
        let call = Box::pin(async move { door.get(&name).await });
        self.life.remote("get", key, STORE, call, store("get", key)).await
    }

    async fn put_new(
        &self,
        key: &str,
        mut body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        // The body is the asker's: it is sent before anything is done with it.
        let mut bytes = Vec::new();
        let read = body.read_to_end(&mut bytes).await;
        let (door, name) = (Arc::clone(&self.door), key.to_owned());
        let call =
            Box::pin(async move {
                let body: Body =
                    match read {
                        Ok(_) => Box::pin(std::io::Cursor::new(bytes)),
                        Err(error) => Box::pin(tokio_util::io::StreamReader::new(
                            futures_util::stream::iter([Ok(bytes::Bytes::from(bytes)), Err(error)]),
                        )),
                    };
                door.put_new(&name, body, size, sha256).await
            });
        self.life.remote("put", key, STORE, call, store("put", key)).await
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        let (door, name) = (Arc::clone(&self.door), key.to_owned());
        let expected = expected.map(str::to_owned);
        let call =
            Box::pin(async move { door.put_if(&name, bytes, expected.as_deref(), at).await });
        self.life.remote("swap", key, STORE, call, store("swap", key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        let (door, name) = (Arc::clone(&self.door), prefix.to_owned());
        let call = Box::pin(async move { door.list(&name).await });
        self.life.remote("list", prefix, STORE, call, store("list", prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (door, name) = (Arc::clone(&self.door), key.to_owned());
        let call = Box::pin(async move { door.delete(&name).await });
        self.life.remote("delete", key, STORE, call, store("delete", key)).await
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        self.door.is_conditional().await
    }
}

/// One call to the own disk.
macro_rules! touch {
    ($self:ident, $op:literal, $key:expr, $call:expr) => {{
        let key = $key.to_string();
        $self.life.local($op, &key, $call, disk($op, &key)).await
    }};
}

impl<D: Workspaces> Workspaces for Weathered<D> {
    fn host_path(&self, place: &Place, user_scope: bool) -> PathBuf {
        self.door.host_path(place, user_scope)
    }

    async fn look(
        &self,
        user: &UserName,
        case: &CaseName,
    ) -> Result<Option<WorkspaceSeen>, WorkspaceError> {
        touch!(self, "look", format_args!("{user}/{case}"), self.door.look(user, case))
    }

    async fn list(&self) -> Result<Vec<(UserName, CaseName, WorkspaceSeen)>, WorkspaceError> {
        touch!(self, "list workspaces", "", self.door.list())
    }

    async fn ensure(
        &self,
        place: &Place,
        owner: (u32, u32),
    ) -> Result<WorkspaceSeen, WorkspaceError> {
        touch!(self, "make workspace", at(place), self.door.ensure(place, owner))
    }

    async fn ensure_folders(
        &self,
        place: &Place,
        folders: &[String],
        owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        touch!(self, "make folders", at(place), self.door.ensure_folders(place, folders, owner))
    }

    async fn ensure_tree(
        &self,
        place: &Place,
        tree: &Tree,
        owner: (u32, u32),
    ) -> Result<(), WorkspaceError> {
        touch!(self, "make tree", at(place), self.door.ensure_tree(place, tree, owner))
    }

    async fn change_tree(&self, place: &Place, change: &TreeChange) -> Result<(), WorkspaceError> {
        touch!(self, "change tree", at(place), self.door.change_tree(place, change))
    }

    async fn scan(
        &self,
        place: &Place,
        spec: &WorkspaceSpec,
        base: &Base,
        mode: ScanMode,
    ) -> Result<Scan, WorkspaceError> {
        touch!(self, "scan", at(place), self.door.scan(place, spec, base, mode))
    }

    async fn read(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Stamp,
    ) -> Result<Body, WorkspaceError> {
        touch!(self, "read", path, self.door.read(place, path, expected))
    }

    async fn write(
        &self,
        place: &Place,
        path: &RelPath,
        file: &FileSpec,
        body: Body,
        expect: Expect,
    ) -> Result<(Sha256, Stamp), WorkspaceError> {
        touch!(self, "write", path, self.door.write(place, path, file, body, expect))
    }

    async fn rename(
        &self,
        place: &Place,
        from: &RelPath,
        to: &RelPath,
        expected: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        touch!(self, "rename", from, self.door.rename(place, from, to, expected))
    }

    async fn set_meta(
        &self,
        place: &Place,
        path: &RelPath,
        mode: u32,
        mtime_ns: i64,
        expected: Stamp,
    ) -> Result<Stamp, WorkspaceError> {
        touch!(self, "set meta", path, self.door.set_meta(place, path, mode, mtime_ns, expected))
    }

    async fn remove_file(
        &self,
        place: &Place,
        path: &RelPath,
        expected: Expect,
    ) -> Result<(), WorkspaceError> {
        touch!(self, "remove file", path, self.door.remove_file(place, path, expected))
    }

    async fn trash(&self, place: &Place) -> Result<(), WorkspaceError> {
        touch!(self, "trash", at(place), self.door.trash(place))
    }

    async fn empty_trash(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        touch!(self, "empty trash", uid, self.door.empty_trash(uid))
    }

    async fn list_trash(&self) -> Result<Vec<Trashed>, WorkspaceError> {
        touch!(self, "list trash", "", self.door.list_trash())
    }

    async fn stage_secret(
        &self,
        uid: &Uid,
        name: &str,
        source: &std::path::Path,
        allowed: &[PathBuf],
    ) -> Result<PathBuf, WorkspaceError> {
        touch!(self, "stage secret", name, self.door.stage_secret(uid, name, source, allowed))
    }

    async fn drop_secrets(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        touch!(self, "drop secrets", uid, self.door.drop_secrets(uid))
    }

    async fn put_note(&self, uid: &Uid, bytes: Vec<u8>) -> Result<(), WorkspaceError> {
        touch!(self, "put note", uid, self.door.put_note(uid, bytes))
    }

    async fn drop_note(&self, uid: &Uid) -> Result<(), WorkspaceError> {
        touch!(self, "drop note", uid, self.door.drop_note(uid))
    }

    async fn keep_applied(&self, key: &str, text: Option<&str>) -> Result<(), WorkspaceError> {
        touch!(self, "keep applied", key, self.door.keep_applied(key, text))
    }

    async fn applied(&self) -> Result<BTreeMap<String, String>, WorkspaceError> {
        touch!(self, "read applied", "", self.door.applied())
    }

    async fn notes(&self) -> Result<Vec<(Uid, Vec<u8>)>, WorkspaceError> {
        touch!(self, "read notes", "", self.door.notes())
    }

    fn lazy(&self) -> LazyMode {
        self.door.lazy()
    }

    async fn place(
        &self,
        place: &Place,
        files: Vec<Placeholder>,
    ) -> Result<Vec<Result<(), WorkspaceError>>, WorkspaceError> {
        touch!(self, "place", at(place), self.door.place(place, files))
    }

    async fn open(&self, place: &Place, path: &RelPath) -> Result<Option<Stamp>, WorkspaceError> {
        touch!(self, "open", path, self.door.open(place, path))
    }

    async fn space(&self) -> Result<Space, WorkspaceError> {
        touch!(self, "look at space", "", self.door.space())
    }
}

fn at(place: &Place) -> String {
    format!("{}/{}", place.user, place.case)
}

impl<D: Ledger> Ledger for Weathered<D> {
    async fn load(&self) -> Result<Contents, LedgerError> {
        self.life.local("load", "", self.door.load(), ledger("load")).await
    }

    async fn commit(&self, batch: Vec<Write>) -> Result<(), LedgerError> {
        let key = batch.iter().map(kind_of).collect::<Vec<_>>().join(", ");
        self.life.local("commit", &key, self.door.commit(batch), ledger("commit")).await
    }

    async fn base(&self, uid: &Uid) -> Result<Option<Base>, LedgerError> {
        self.life.local("read base", uid.as_str(), self.door.base(uid), ledger("read base")).await
    }
}

fn kind_of(write: &Write) -> String {
    match write {
        Write::Record(record) => format!("record {}", record.name),
        Write::DropRecord(uid) => format!("drop {uid}"),
        Write::Base(uid, _) => format!("base {uid}"),
        Write::Applied(key, _) => format!("applied {key}"),
        Write::DropApplied(key) => format!("drop {key}"),
        Write::Fact(key, _) => format!("fact {key}"),
        Write::Event(event) => format!("event {}", event.reason),
    }
}

impl<D: Probe> Probe for Weathered<D> {
    async fn probe(&self, address: SocketAddr, path: &str, timeout: Duration) -> ProbeOutcome {
        self.life.point("before", "probe").await;
        let unlucky = !self.life.sky.is_calm() && self.life.sky.below(100) == 0;
        tokio::time::sleep(Duration::from_micros(500)).await;
        let outcome = if unlucky {
            ProbeOutcome::Unhealthy("connection reset".to_owned())
        } else {
            self.door.probe(address, path, timeout).await
        };
        self.life.point("after", "probe").await;
        outcome
    }
}
