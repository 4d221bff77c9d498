//! The container engine, in our words. A call that timed out has an unknown outcome: look again.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;

use crate::model::{
    Container, ContainerDetail, ContainerId, ContainerSpec, PullPolicy, Resources, SessionName,
    Timestamp, Uid, Usage,
};

/// What went wrong with an engine call, by what may be done about it. Source: DOCKER, where
/// each row was measured; 404 and 409 mean different things by operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EngineErrorKind {
    /// Nobody answers at the socket. Nothing is known.
    Unreachable,
    /// No answer in time: the effect may still happen. Look again.
    Timeout,
    /// The engine answered 5xx or something that cannot be read. Look again.
    Broken,
    /// The container is not there.
    NotFound,
    /// The image is not there.
    ImageMissing,
    /// The registry or the network refused the pull.
    PullFailed,
    /// Another container has the name.
    NameTaken,
    /// The host port is held by somebody else (both texts).
    PortTaken,
    /// The bind source is missing.
    MountMissing,
    /// PID 1 could not be executed: holds until the spec changes.
    CommandInvalid,
    /// The engine will not take these parameters: holds until the spec changes.
    InvalidSpec,
    /// The container is paused, or being removed, or already in the wanted state's way.
    Conflict,
    /// What was created is not what was asked for (a hardening setting was dropped).
    HardeningDropped,
    /// The engine is older than API 1.41.
    TooOld,
}

/// A failed engine call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} failed: {message}")]
pub struct EngineError {
    /// What may be done about it.
    pub kind: EngineErrorKind,
    /// Which call, e.g. `start container`.
    pub operation: &'static str,
    /// The engine's own words, one line.
    pub message: String,
}

impl EngineErrorKind {
    /// The same call with the same spec cannot succeed.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            EngineErrorKind::CommandInvalid
                | EngineErrorKind::InvalidSpec
                | EngineErrorKind::HardeningDropped
        )
    }
}

/// An image as the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Content id, `sha256:...`.
    pub id: String,
    /// `USER` of the image, empty: root.
    pub user: String,
}

/// One directory or file of the host in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindMount {
    /// Host path; must exist.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Everything needed to make a container; nothing is chosen further down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// `{prefix}-{session}-{attempt}`.
    pub name: String,
    /// Image id, pinned.
    pub image_id: String,
    /// The resolved container section.
    pub spec: ContainerSpec,
    /// Host port to publish `spec.port` on; `None` if `spec.port` is 0.
    pub host_port: Option<u16>,
    /// Workspace, secrets, `spec.mounts` and the engine's socket, in this order.
    pub mounts: Vec<BindMount>,
    /// `docket.dev/` labels and the class's own.
    pub labels: BTreeMap<String, String>,
}

/// What the engine tells as it happens: a hint where to look, never the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// Something happened to a container of ours.
    Container {
        /// Which.
        id: ContainerId,
        /// Its session label, if the event carries it.
        session: Option<SessionName>,
        /// `die`, `start`, `destroy`, `oom`, ...
        action: String,
    },
    /// The stream began anew, or events were lost: list everything.
    Relist,
    /// The stream ended: the engine may be gone.
    Gone(String),
}

/// Engine facts for `doctor` and for gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineInfo {
    /// e.g. `20.10.24`.
    pub version: String,
    /// Negotiated API version as (major, minor).
    pub api: (u32, u32),
    /// Kernel of the engine's machine.
    pub kernel: String,
    /// Identifies one run of the engine, if it can be told: containers that ended before it
    /// began were ended by its restart. `None`: unknown.
    pub started_at: Option<Timestamp>,
}

/// Lines of a container's log.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<bytes::Bytes, EngineError>> + Send>>;
/// Events as they come.
pub type EventStream = Pin<Box<dyn Stream<Item = EngineEvent> + Send>>;

/// A container engine. Each call has its own deadline; AlreadyStarted, NotModified and, for
/// stop and remove, NotFound are success.
pub trait Engine: Send + Sync + 'static {
    /// Every container of this installation, running or not, without detail; never a part.
    fn list(&self) -> impl Future<Output = Result<Vec<Container>, EngineError>> + Send;
    /// One container with its detail; `Ok(None)`: the engine says it is not there.
    fn inspect(
        &self,
        id: &ContainerId,
    ) -> impl Future<Output = Result<Option<Container>, EngineError>> + Send;
    /// Who holds a container name: `Ok(None)` nobody, `Ok(Some(false))` a foreign container,
    /// `Ok(Some(true))` one of this installation.
    fn holder_of(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<bool>, EngineError>> + Send;
    /// The image of a reference, pulled as the policy says.
    fn resolve_image(
        &self,
        reference: &str,
        policy: PullPolicy,
    ) -> impl Future<Output = Result<Image, EngineError>> + Send;
    /// Makes the installation's own bridge if it is not there; checks that icc is off.
    /// `Some`: it is there, but tenants are not kept off the host's addresses and the metadata
    /// service; why, and what to do.
    fn ensure_network(&self) -> impl Future<Output = Result<Option<String>, EngineError>> + Send;
    /// Makes a container, inspects it and compares: [`EngineErrorKind::HardeningDropped`] if the
    /// engine silently left something out (the container is removed again).
    fn create(
        &self,
        request: &CreateRequest,
    ) -> impl Future<Output = Result<ContainerId, EngineError>> + Send;
    /// The first setting of this request that a container does not have; `None`: it has all of
    /// them. For one that was made by a run that did not live to compare it.
    fn compare(
        &self,
        id: &ContainerId,
        request: &CreateRequest,
    ) -> impl Future<Output = Result<Option<String>, EngineError>> + Send;
    /// Starts a container.
    fn start(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Stops a container: SIGTERM, `grace`, SIGKILL. Returns when it has ended.
    fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Removes a stopped container and its anonymous volumes; waits until it is gone.
    fn remove(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Changes limits in place.
    fn update(
        &self,
        id: &ContainerId,
        resources: Resources,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Freezes a container.
    fn pause(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// Thaws a container.
    fn unpause(&self, id: &ContainerId) -> impl Future<Output = Result<(), EngineError>> + Send;
    /// What it uses right now; cpu as the difference to the previous call for the same start,
    /// or of two samples.
    fn usage(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
    ) -> impl Future<Output = Result<Usage, EngineError>> + Send;
    /// The container's output; `tail` lines from the end (`None`: all), and on as it comes if
    /// `follow`.
    fn logs(
        &self,
        id: &ContainerId,
        follow: bool,
        tail: Option<u64>,
    ) -> impl Future<Output = Result<LogStream, EngineError>> + Send;
    /// Events of this installation's containers, for ever: reconnects by itself, says
    /// [`EngineEvent::Gone`] and [`EngineEvent::Relist`]. Its reader never blocks.
    fn events(&self) -> EventStream;
    /// Version facts.
    fn info(&self) -> impl Future<Output = Result<EngineInfo, EngineError>> + Send;
}

/// The labels every container of ours carries.
pub const LABEL_INSTALLATION: &str = "docket.dev/installation";
/// The session's name.
pub const LABEL_SESSION: &str = "docket.dev/session";
/// The session's uid.
pub const LABEL_UID: &str = "docket.dev/uid";
/// Which container of the session this is, from 1.
pub const LABEL_ATTEMPT: &str = "docket.dev/attempt";
/// Fingerprint of what a live container cannot change.
pub const LABEL_SPEC_HASH: &str = "docket.dev/spec-hash";
/// Whose session it is.
pub const LABEL_USER: &str = "docket.dev/user";
/// Which case it is about.
pub const LABEL_CASE: &str = "docket.dev/case";

/// What identifies a container as a session's: for [`CreateRequest::labels`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The session's name.
    pub session: SessionName,
    /// The session's uid.
    pub uid: Uid,
    /// Which container.
    pub attempt: u32,
}
