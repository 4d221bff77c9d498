//! The engine door on bollard: plain Docker, API 1.41 and later. DOCKER has what was measured.
//!
//! LIST is the hot path, since it answers even when containers hang. Every call has a deadline;
//! a call that timed out has an unknown outcome. There is no lasting connection: each request
//! has its own, so an engine that comes back is simply there again.

mod convert;
mod credentials;
mod events;
mod failure;
mod firewall;
mod images;
mod local;
mod network;
mod request;
mod transport;
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use crate::crash::{self, Effect, Side};
use crate::model::{
    Container, ContainerDetail, ContainerId, Identity, PullPolicy, Resources, Seccomp, Usage,
};
use crate::world::{
    CreateRequest, Engine, EngineError, EngineErrorKind, EngineInfo, EventStream, Image,
    LABEL_INSTALLATION, LogStream,
};

pub use firewall::Isolation;

use convert::Odd;
use failure::Op;
use transport::Address;

/// Where the engine is when nobody says.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// The oldest API that docket speaks: Docker 20.10.
const OLDEST_API: (u32, u32) = (1, 41);
/// Deadline of calls that look.
const READ: Duration = Duration::from_secs(10);
/// Deadline of calls that make or change.
const CHANGE: Duration = Duration::from_secs(30);
/// Deadline of a start: images on slow disks, busy engines.
const START: Duration = Duration::from_mins(1);
/// What a stop may take beyond its grace.
const STOP_BEYOND_GRACE: Duration = Duration::from_mins(1);
/// Deadline of a removal, and of waiting for somebody else's.
const REMOVE: Duration = Duration::from_mins(1);
/// bollard's own deadline, seconds: none of ours is longer but streams'.
const FOREVER: u64 = 365 * 24 * 3600;

/// What the engine door needs to know.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// `unix://PATH` or `tcp://HOST:PORT`; `None` or empty: `DOCKER_HOST`, else the local socket.
    pub host: Option<String>,
    /// Which installation this is, and where ports are published.
    pub identity: Identity,
}

/// A Docker engine. Clones share everything.
#[derive(Clone)]
pub struct Docker {
    identity: Arc<Identity>,
    address: Arc<Address>,
    client: bollard::Docker,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The negotiated API version; `None`: to be asked (again).
    api: Mutex<Option<(u32, u32)>>,
    /// Containers with our label but broken others, already warned of.
    foreign: Mutex<BTreeSet<String>>,
    /// The daemon's run as last seen.
    run: Mutex<Option<local::EngineRun>>,
    /// Last usage samples by container id.
    samples: Mutex<BTreeMap<String, usage::Previous>>,
    /// The own bridge's interface, when its rules were last seen to, and with what outcome.
    isolation: tokio::sync::Mutex<Option<(String, Instant, Isolation)>>,
}

impl Docker {
    /// An engine at an address. Nothing is connected yet.
    ///
    /// # Errors
    /// [`EngineErrorKind::InvalidSpec`] if the address cannot be understood.
    pub fn new(config: DockerConfig) -> Result<Docker, EngineError> {
        let given = config.host.filter(|host| !host.is_empty());
        let host = given.or_else(|| std::env::var("DOCKER_HOST").ok().filter(|h| !h.is_empty()));
        let address = Address::parse(host.as_deref().unwrap_or(DEFAULT_HOST))
            .map_err(|why| Op::Connect.error(EngineErrorKind::InvalidSpec, why))?;
        let address = Arc::new(address);
        let engine = Arc::clone(&address);
        let client = bollard::Docker::connect_with_custom_transport(
            move |request| transport::carry(Arc::clone(&engine), request),
            Some("http://docker"),
            FOREVER,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| Op::Connect.failed(&error))?;
        let identity = Arc::new(config.identity);
        Ok(Docker { identity, address, client, shared: Arc::default() })
    }

    /// The client, once the engine's API version is known to be new enough.
    async fn client(&self) -> Result<bollard::Docker, EngineError> {
        if lock(&self.shared.api).is_none() {
            self.negotiate().await?;
        }
        Ok(self.client.clone())
    }

    async fn negotiate(&self) -> Result<bollard::models::SystemVersion, EngineError> {
        let version = self.call(Op::Connect, READ, self.client.version()).await?;
        let text = version.api_version.as_deref().unwrap_or_default();
        let api = parse_api(text).ok_or_else(|| {
            Op::Connect.error(EngineErrorKind::Broken, format!("API version `{text}`"))
        })?;
        if api < OLDEST_API {
            let (major, minor) = OLDEST_API;
            let why = format!("the engine speaks API {text}; docket needs {major}.{minor}");
            return Err(Op::Connect.error(EngineErrorKind::TooOld, why));
        }
        *lock(&self.shared.api) = Some(api);
        Ok(version)
    }

    /// One call within its deadline, its error in our words.
    async fn call<T>(
        &self,
        op: Op,
        deadline: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        match timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.note(op.failed(&error))),
            Err(_) => {
                let why = format!("no answer within {} s", deadline.as_secs());
                Err(op.error(EngineErrorKind::Timeout, why))
            }
        }
    }

    /// An engine that went away may come back as another: its version is asked again.
    fn note(&self, mut error: EngineError) -> EngineError {
        if error.kind == EngineErrorKind::Unreachable {
            *lock(&self.shared.api) = None;
            error.message = format!("{}: {}", self.address, error.message);
        }
        error
    }

    async fn rows(&self, filter: (&str, String)) -> Result<Vec<ContainerSummary>, EngineError> {
        let filters = HashMap::from([(filter.0, vec![filter.1])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let client = self.client().await?;
        self.call(Op::List, READ, client.list_containers(Some(options))).await
    }

    async fn look(
        &self,
        id: &ContainerId,
    ) -> Result<Option<ContainerInspectResponse>, EngineError> {
        let client = self.client().await?;
        let look = client.inspect_container(&id.0, None::<InspectContainerOptions>);
        match self.call(Op::Inspect, READ, look).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == EngineErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of the seccomp profile that the spec names, if it names one.
    async fn profile(&self, request: &CreateRequest) -> Result<Option<String>, EngineError> {
        let Seccomp::Profile(path) = &request.spec.security.seccomp else { return Ok(None) };
        let bad = |why: String| {
            let why = format!("seccomp profile {} {why}", path.display());
            Op::Create.error(EngineErrorKind::InvalidSpec, why)
        };
        let owned = path.clone();
        let read = tokio::task::spawn_blocking(move || local::read_profile(&owned)).await;
        let bytes = read
            .map_err(std::io::Error::other)
            .and_then(|read| read)
            .map_err(|error| bad(format!("cannot be read: {error}")))?;
        request::compact_profile(&bytes).map(Some).map_err(bad)
    }

    /// Looks whether the engine took everything; if not, what it made goes away again.
    async fn prove(
        &self,
        id: &ContainerId,
        body: &bollard::models::ContainerCreateBody,
    ) -> Result<(), EngineError> {
        let error = match self.look(id).await {
            Ok(Some(made)) => match request::dropped(body, &made) {
                None => return Ok(()),
                Some(field) => Op::Create.error(
                    EngineErrorKind::HardeningDropped,
                    format!("the engine left out what was asked for: {field}"),
                ),
            },
            Ok(None) => {
                return Err(Op::Create.error(EngineErrorKind::Broken, "it vanished at once"));
            }
            Err(error) => error,
        };
        // Not proven is not to be used: the next attempt makes another.
        if let Err(left) = self.remove(id).await {
            tracing::warn!(container = %id, error = %left, "an unproven container is left over");
        }
        Err(error)
    }

    async fn start_once(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let start = client.start_container(&id.0, None::<StartContainerOptions>);
        crash::around(Effect::Start, self.call(Op::Start, START, start)).await
    }

    async fn remove_once(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let options = RemoveContainerOptionsBuilder::default().v(true).force(false).build();
        let remove = client.remove_container(&id.0, Some(options));
        crash::around(Effect::Remove, self.call(Op::Remove, REMOVE, remove)).await
    }

    /// Says once of each container that it is passed over.
    fn pass_over(&self, why: &str) {
        if lock(&self.shared.foreign).insert(why.to_owned()) {
            tracing::warn!("{why}: treated as foreign, never touched");
        }
    }
}

impl Engine for Docker {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        let installation = self.identity.installation.as_str();
        let rows = self.rows(("label", format!("{LABEL_INSTALLATION}={installation}"))).await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            match convert::from_summary(row, installation) {
                Ok(container) => found.push(container),
                Err(Odd::Foreign(why)) => self.pass_over(&why),
                Err(odd) => return Err(Op::List.error(EngineErrorKind::Broken, odd.to_string())),
            }
        }
        Ok(found)
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        let Some(found) = self.look(id).await? else { return Ok(None) };
        match convert::from_inspect(found, self.identity.installation.as_str()) {
            Ok(mut container) => {
                self.forget_remote_pid(&mut container);
                Ok(Some(container))
            }
            Err(Odd::Foreign(why)) => Err(Op::Inspect.error(EngineErrorKind::Conflict, why)),
            Err(odd) => Err(Op::Inspect.error(EngineErrorKind::Broken, odd.to_string())),
        }
    }

    async fn holder_of(&self, name: &str) -> Result<Option<bool>, EngineError> {
        let pattern = format!("^/{}$", name.replace('.', "\\."));
        let full = format!("/{name}");
        let rows = self.rows(("name", pattern)).await?;
        let holder = rows.into_iter().find(|row| row.names.iter().flatten().any(|n| *n == full));
        // Ours is what a listing shows: without all labels it would be waited for in vain.
        let installation = self.identity.installation.as_str();
        Ok(holder.map(|row| convert::from_summary(row, installation).is_ok()))
    }

    async fn resolve_image(
        &self,
        reference: &str,
        policy: PullPolicy,
    ) -> Result<Image, EngineError> {
        crash::around(Effect::ResolveImage, self.image(reference, policy)).await
    }

    async fn ensure_network(&self) -> Result<Option<String>, EngineError> {
        Ok(match crash::around(Effect::EnsureNetwork, self.isolation()).await? {
            Isolation::Enforced => None,
            Isolation::Open(why) => Some(why),
        })
    }

    async fn create(&self, request: &CreateRequest) -> Result<ContainerId, EngineError> {
        if let Some(why) = request::unsendable(request) {
            return Err(Op::Create.error(EngineErrorKind::InvalidSpec, why));
        }
        let profile = self.profile(request).await?;
        let body = request::create_body(request, &self.identity, profile.as_deref());
        let options = CreateContainerOptionsBuilder::default().name(&request.name).build();
        let client = self.client().await?;
        let create = client.create_container(Some(options), body.clone());
        crash::point(Side::Before, Effect::Create);
        let made = self.call(Op::Create, CHANGE, create).await?;
        crash::point(Side::Amid, Effect::Create);
        let id = ContainerId(made.id);
        self.prove(&id, &body).await?;
        crash::point(Side::After, Effect::Create);
        Ok(id)
    }

    async fn compare(
        &self,
        id: &ContainerId,
        request: &CreateRequest,
    ) -> Result<Option<String>, EngineError> {
        let profile = self.profile(request).await?;
        let body = request::create_body(request, &self.identity, profile.as_deref());
        match self.look(id).await? {
            Some(made) => Ok(request::dropped(&body, &made)),
            None => Err(Op::Inspect.error(EngineErrorKind::NotFound, "no such container")),
        }
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        match self.start_once(id).await {
            Err(error) if failure::network_is_missing(&error.message) => {
                self.isolation().await?;
                self.start_once(id).await
            }
            answer => answer,
        }
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let seconds = request::whole_seconds(grace);
        let options = StopContainerOptionsBuilder::default()
            .t(i32::try_from(seconds).unwrap_or(i32::MAX))
            .build();
        let client = self.client().await?;
        let stop = client.stop_container(&id.0, Some(options));
        let stop = self.call(Op::Stop, grace.saturating_add(STOP_BEYOND_GRACE), stop);
        match crash::around(Effect::Stop, stop).await {
            Err(error) if error.kind == EngineErrorKind::NotFound => Ok(()),
            answer => answer,
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let Err(error) = self.remove_once(id).await else { return Ok(()) };
        let under_way = error.message.contains("already in progress");
        match error.kind {
            EngineErrorKind::NotFound => return Ok(()),
            EngineErrorKind::Conflict if under_way => {}
            _ => return Err(error),
        }
        let end = Instant::now() + REMOVE;
        while self.look(id).await?.is_some() {
            if Instant::now() >= end {
                return Err(error);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn update(&self, id: &ContainerId, resources: Resources) -> Result<(), EngineError> {
        let client = self.client().await?;
        let update = client.update_container(&id.0, request::update_body(resources));
        crash::around(Effect::Update, self.call(Op::Update, CHANGE, update)).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let pause = self.call(Op::Pause, CHANGE, client.pause_container(&id.0));
        match crash::around(Effect::Pause, pause).await {
            Err(error) if failure::is_already_so(Op::Pause, &error.message) => Ok(()),
            answer => answer,
        }
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let unpause = self.call(Op::Unpause, CHANGE, client.unpause_container(&id.0));
        match crash::around(Effect::Unpause, unpause).await {
            Err(error) if failure::is_already_so(Op::Unpause, &error.message) => Ok(()),
            answer => answer,
        }
    }

    async fn usage(
        &self,
        id: &ContainerId,
        detail: &ContainerDetail,
    ) -> Result<Usage, EngineError> {
        self.measure(id, detail).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        follow: bool,
        tail: Option<u64>,
    ) -> Result<LogStream, EngineError> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(follow)
            .tail(&tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()))
            .build();
        // A stream shows no status until it says something, and it may never.
        if self.look(id).await?.is_none() {
            return Err(Op::Logs.error(EngineErrorKind::NotFound, "no such container"));
        }
        let client = self.client().await?;
        let frames = client.logs(&id.0, Some(options));
        Ok(Box::pin(frames.map(|frame| match frame {
            Ok(frame) => Ok(frame.into_bytes()),
            Err(error) => Err(Op::Logs.failed(&error)),
        })))
    }

    fn events(&self) -> EventStream {
        events::stream(self.clone())
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let version = self
            .negotiate()
            .await
            .map_err(|error| EngineError { operation: Op::Info.name(), ..error })?;
        Ok(EngineInfo {
            version: version.version.unwrap_or_default(),
            api: version.api_version.as_deref().and_then(parse_api).unwrap_or(OLDEST_API),
            kernel: version.kernel_version.unwrap_or_default(),
            started_at: self.started_at().await,
        })
    }
}

/// `1.41` as (1, 41).
fn parse_api(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What a poisoned lock guards here is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
