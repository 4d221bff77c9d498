//! Doors that say how long each call took and what came of it. They change nothing else.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;
use tokio_util::io::InspectReader;

use crate::model::{
    Container, ContainerDetail, ContainerId, PullPolicy, Resources, Sha256, Timestamp, Usage,
};
use crate::world::{
    Body, Content, Count, CreateRequest, Engine, EngineError, EngineErrorKind, EngineInfo,
    EventStream, Image, LogStream, Meter, ObjectMeta, Objects, PieceSums, Pieces, StoreError,
    StoreErrorKind, Swap, Timed,
};

/// A door and who counts what goes through it.
#[derive(Clone, Debug)]
pub struct Metered<D> {
    door: D,
    meter: Arc<Meter>,
}

impl<D> Metered<D> {
    /// This door, with its calls counted here.
    pub fn new(door: D, meter: Arc<Meter>) -> Metered<D> {
        Metered { door, meter }
    }

    /// The door itself.
    pub fn door(&self) -> &D {
        &self.door
    }

    async fn timed<T, E>(
        &self,
        what: Timed,
        operation: &'static str,
        outcome: fn(&E) -> &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let answer = call.await;
        let came = answer.as_ref().err().map_or("ok", outcome);
        self.meter.took(what, (operation, came), began.elapsed());
        answer
    }

    async fn engine<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        self.timed(Timed::EngineCall, operation, |error| engine_word(error.kind), call).await
    }

    async fn store<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.timed(Timed::StoreCall, operation, |error| store_word(error.kind), call).await
    }

    /// The same bytes, counted as they pass.
    fn counted(&self, body: Body, direction: &'static str) -> Body {
        let meter = Arc::clone(&self.meter);
        let passed = move |bytes: &[u8]| {
            meter.count(Count::Transferred, direction, bytes.len() as u64);
        };
        let pieces = body.pieces().map(|pieces| {
            let meter = Arc::clone(&self.meter);
            Arc::new(CountedPieces { pieces, meter, direction }) as Arc<dyn Pieces>
        });
        Box::pin(Counted { body: InspectReader::new(body, passed), pieces })
    }
}

/// A body that is counted as it is read.
struct Counted<R> {
    body: R,
    pieces: Option<Arc<dyn Pieces>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.body).poll_read(context, buffer)
    }
}

impl<R: AsyncRead + Unpin + Send> Content for Counted<R> {
    fn pieces(&self) -> Option<Arc<dyn Pieces>> {
        self.pieces.clone()
    }
}

/// The same, by pieces.
struct CountedPieces {
    pieces: Arc<dyn Pieces>,
    meter: Arc<Meter>,
    direction: &'static str,
}

impl Pieces for CountedPieces {
    fn sums(&self) -> &PieceSums {
        self.pieces.sums()
    }

    fn read(&self, at: u64, into: &mut [u8]) -> std::io::Result<()> {
        self.pieces.read(at, into)?;
        self.meter.count(Count::Transferred, self.direction, into.len() as u64);
        Ok(())
    }

    fn unchanged(&self) -> std::io::Result<()> {
        self.pieces.unchanged()
    }
}

fn engine_word(kind: EngineErrorKind) -> &'static str {
    match kind {
        EngineErrorKind::Unreachable => "unreachable",
        EngineErrorKind::Timeout => "timeout",
        EngineErrorKind::Broken => "broken",
        EngineErrorKind::NotFound => "not_found",
        EngineErrorKind::ImageMissing => "image_missing",
        EngineErrorKind::PullFailed => "pull_failed",
        EngineErrorKind::NameTaken => "name_taken",
        EngineErrorKind::PortTaken => "port_taken",
        EngineErrorKind::MountMissing => "mount_missing",
        EngineErrorKind::CommandInvalid => "command_invalid",
        EngineErrorKind::InvalidSpec => "invalid_spec",
        EngineErrorKind::Conflict => "conflict",
        EngineErrorKind::HardeningDropped => "hardening_dropped",
        EngineErrorKind::TooOld => "too_old",
    }
}

fn store_word(kind: StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::Unavailable => "unavailable",
        StoreErrorKind::Denied => "denied",
        StoreErrorKind::NotFound => "not_found",
        StoreErrorKind::Corrupt => "corrupt",
        StoreErrorKind::SourceChanged => "source_changed",
        StoreErrorKind::Invalid => "invalid",
    }
}

impl<D: Engine> Engine for Metered<D> {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        self.engine("list", Box::pin(self.door.list())).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        self.engine("inspect", Box::pin(self.door.inspect(id))).await
    }

    async fn holder_of(&self, name: &str) -> Result<Option<bool>, EngineError> {
        self.engine("holder_of_name", Box::pin(self.door.holder_of(name))).await
    }

    async fn resolve_image(
        &self,
        reference: &str,
        policy: PullPolicy,
    ) -> Result<Image, EngineError> {
        self.engine("resolve_image", Box::pin(self.door.resolve_image(reference, policy))).await
    }

    async fn ensure_network(&self) -> Result<Option<String>, EngineError> {
        self.engine("ensure_network", Box::pin(self.door.ensure_network())).await
    }

    async fn create(&self, request: &CreateRequest) -> Result<ContainerId, EngineError> {
        self.engine("create", Box::pin(self.door.create(request))).await
    }

    async fn compare(
        &self,
        id: &ContainerId,
        request: &CreateRequest,
    ) -> Result<Option<String>, EngineError> {
        self.engine("compare", Box::pin(self.door.compare(id, request))).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.engine("start", Box::pin(self.door.start(id))).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        self.engine("stop", Box::pin(self.door.stop(id, grace))).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.engine("remove", Box::pin(self.door.remove(id))).await
    }

    async fn update(&self, id: &ContainerId, resources: Resources) -> Result<(), EngineError> {
        self.engine("update", Box::pin(self.door.update(id, resources))).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.engine("pause", Box::pin(self.door.pause(id))).await
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.engine("unpause", Box::pin(self.door.unpause(id))).await
    }

    async fn usage(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
    ) -> Result<Usage, EngineError> {
        self.engine("usage", Box::pin(self.door.usage(id, detail))).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        follow: bool,
        tail: Option<u64>,
    ) -> Result<LogStream, EngineError> {
        self.engine("logs", Box::pin(self.door.logs(id, follow, tail))).await
    }

    fn events(&self) -> EventStream {
        self.door.events()
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.engine("info", Box::pin(self.door.info())).await
    }
}

impl<D: Objects> Objects for Metered<D> {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.store("head", Box::pin(self.door.head(key))).await
    }

    async fn get(&self, key: &str) -> Result<(ObjectMeta, Body), StoreError> {
        let (meta, body) = self.store("get", Box::pin(self.door.get(key))).await?;
        Ok((meta, self.counted(body, "received")))
    }

    async fn put_new(
        &self,
        key: &str,
        body: Body,
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        let body = self.counted(body, "sent");
        self.store("put", Box::pin(self.door.put_new(key, body, size, sha256))).await
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Vec<u8>,
        expected: Option<&str>,
        at: Timestamp,
    ) -> Result<Swap, StoreError> {
        self.store("swap", Box::pin(self.door.put_if(key, bytes, expected, at))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.store("list", Box::pin(self.door.list(prefix))).await
    }

    async fn is_conditional(&self) -> Result<bool, StoreError> {
        self.door.is_conditional().await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store("delete", Box::pin(self.door.delete(key))).await
    }
}
