//! One installation's door to the machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::model::{
    Container, ContainerDetail, ContainerId, Installation, PullPolicy, Resources, SessionName,
    Usage,
};
use crate::world::{
    CreateRequest, Engine, EngineError, EngineErrorKind as Kind, EngineEvent, EngineInfo,
    EventStream, Image, LABEL_INSTALLATION, LogStream,
};

use super::machine::{Machine, Told, fail, is_alive};

/// The engine as one installation sees it.
#[derive(Clone, Debug)]
pub struct FakeEngine {
    machine: Arc<Machine>,
    installation: Installation,
    bind: IpAddr,
}

impl FakeEngine {
    /// A door for this installation; ports are published on `bind`.
    pub fn new(machine: Arc<Machine>, installation: Installation, bind: IpAddr) -> FakeEngine {
        FakeEngine { machine, installation, bind }
    }

    fn up(&self, operation: &'static str) -> Result<(), EngineError> {
        if self.machine.state().down {
            return Err(fail(Kind::Unreachable, operation, "connection refused"));
        }
        Ok(())
    }

    /// Refuses to change what is another's, and remembers that it was tried.
    fn ours(&self, operation: &'static str, id: &ContainerId) -> Result<(), EngineError> {
        self.up(operation)?;
        let whose = {
            let state = self.machine.state();
            state.containers.get(id).map(|one| one.label(LABEL_INSTALLATION).to_owned())
        };
        match whose {
            Some(whose) if whose != self.installation.as_str() => {
                self.machine.wrong(format!(
                    "{operation} {id} by `{}` on a container of `{whose}`",
                    self.installation
                ));
                Err(fail(Kind::Conflict, operation, "it is another installation's"))
            }
            _ => Ok(()),
        }
    }
}

impl Engine for FakeEngine {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        self.up("list containers")?;
        let state = self.machine.state();
        let own = |one: &super::machine::Vessel| {
            one.label(LABEL_INSTALLATION) == self.installation.as_str()
        };
        Ok(state
            .containers
            .iter()
            .filter(|(_, one)| own(one))
            .filter_map(|(id, one)| one.listed(id))
            .collect())
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        const OP: &str = "inspect container";
        self.up(OP)?;
        let state = self.machine.state();
        let Some(one) = state.containers.get(id) else { return Ok(None) };
        if one.label(LABEL_INSTALLATION) != self.installation.as_str() {
            return Err(fail(Kind::Conflict, OP, "it is another installation's"));
        }
        let detail = one.detail(self.bind);
        match one.listed(id) {
            Some(container) => Ok(Some(Container { detail: Some(detail), ..container })),
            None => Err(fail(Kind::Conflict, OP, "it has a broken label")),
        }
    }

    async fn holder_of(&self, name: &str) -> Result<Option<bool>, EngineError> {
        self.up("list containers")?;
        let state = self.machine.state();
        let found = state.containers.iter().find(|(_, one)| one.request.name == name);
        let ours = |one: &super::machine::Vessel| {
            one.label(LABEL_INSTALLATION) == self.installation.as_str()
        };
        Ok(found.map(|(id, one)| ours(one) && one.listed(id).is_some()))
    }

    async fn resolve_image(
        &self,
        reference: &str,
        _policy: PullPolicy,
    ) -> Result<Image, EngineError> {
        const OP: &str = "inspect image";
        self.up(OP)?;
        let found = self.machine.state().images.get(reference).cloned();
        found.ok_or_else(|| fail(Kind::ImageMissing, OP, format!("No such image: {reference}")))
    }

    async fn ensure_network(&self) -> Result<Option<String>, EngineError> {
        self.up("create network")?;
        let name = format!("docket-{}", self.installation);
        self.machine.state().networks.insert(name);
        Ok(None)
    }

    async fn create(&self, request: &CreateRequest) -> Result<ContainerId, EngineError> {
        const OP: &str = "create container";
        self.up(OP)?;
        let id = self.machine.create(request.clone())?;
        let mut state = self.machine.state();
        if state.careless {
            if let Some(one) = state.containers.get_mut(&id) {
                one.hardened = false;
            }
            return Err(fail(Kind::Broken, OP, "cut before it was compared"));
        }
        Ok(id)
    }

    async fn compare(
        &self,
        id: &ContainerId,
        request: &CreateRequest,
    ) -> Result<Option<String>, EngineError> {
        const OP: &str = "inspect container";
        self.ours(OP, id)?;
        let state = self.machine.state();
        let Some(one) = state.containers.get(id) else {
            return Err(fail(Kind::NotFound, OP, format!("No such container: {id}")));
        };
        let (made, asked) = (&one.request, request);
        let limits = one.resources == asked.spec.resources;
        let rest = one.hardened
            && (&made.spec.security, &made.spec.tmpfs, &made.spec.network, made.spec.init)
                == (&asked.spec.security, &asked.spec.tmpfs, &asked.spec.network, asked.spec.init);
        let around = (&made.mounts, made.host_port) == (&asked.mounts, asked.host_port);
        let labels = asked.labels.iter().all(|(key, value)| made.labels.get(key) == Some(value));
        Ok([
            ("limits", limits),
            ("confinement", rest),
            ("mounts, ports", around),
            ("labels", labels),
        ]
        .into_iter()
        .find_map(|(what, same)| (!same).then(|| what.to_owned())))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.ours("start container", id)?;
        self.machine.start(id)
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        const OP: &str = "stop container";
        self.ours(OP, id)?;
        let (machine, id) = (Arc::clone(&self.machine), id.clone());
        let work = tokio::spawn(async move { machine.stop(&id, grace).await });
        work.await.map_err(|_| fail(Kind::Broken, OP, "the engine went away"))
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        const OP: &str = "remove container";
        self.ours(OP, id)?;
        let (machine, id) = (Arc::clone(&self.machine), id.clone());
        let work = tokio::spawn(async move { machine.remove(&id).await });
        work.await.unwrap_or_else(|_| Err(fail(Kind::Broken, OP, "the engine went away")))
    }

    async fn update(&self, id: &ContainerId, resources: Resources) -> Result<(), EngineError> {
        self.ours("update container", id)?;
        self.machine.update(id, resources)
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.ours("pause container", id)?;
        self.machine.freeze(id, true)
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.ours("unpause container", id)?;
        self.machine.freeze(id, false)
    }

    async fn usage(
        &self,
        id: &ContainerId,
        _detail: &ContainerDetail,
    ) -> Result<Usage, EngineError> {
        const OP: &str = "read usage";
        self.up(OP)?;
        let state = self.machine.state();
        match state.containers.get(id) {
            None => Err(fail(Kind::NotFound, OP, format!("No such container: {id}"))),
            Some(one) if !is_alive(one.state) => {
                Err(fail(Kind::Conflict, OP, "the container does not run"))
            }
            Some(one) => Ok(Usage {
                cpu_percent: 1.0,
                memory_bytes: one.resources.memory / 2,
                memory_limit_bytes: one.resources.memory,
                network_rx_bytes: 0,
                network_tx_bytes: 0,
            }),
        }
    }

    async fn logs(
        &self,
        id: &ContainerId,
        follow: bool,
        tail: Option<u64>,
    ) -> Result<LogStream, EngineError> {
        const OP: &str = "read logs";
        self.up(OP)?;
        if !self.machine.state().containers.contains_key(id) {
            return Err(fail(Kind::NotFound, OP, format!("No such container: {id}")));
        }
        let (machine, id) = (Arc::clone(&self.machine), id.clone());
        let text = async move {
            loop {
                let (alive, lines) = {
                    let state = machine.state();
                    match state.containers.get(&id) {
                        None => (false, Vec::new()),
                        Some(one) => (is_alive(one.state), one.log.clone()),
                    }
                };
                if follow && alive {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                let most = tail.map_or(lines.len(), |tail| tail as usize);
                let from = lines.len().saturating_sub(most);
                let text: String = lines[from..].iter().map(|line| format!("{line}\n")).collect();
                return Ok(Bytes::from(text));
            }
        };
        Ok(futures_util::stream::once(text).boxed())
    }

    fn events(&self) -> EventStream {
        let receiver = self.machine.events.subscribe();
        let installation = self.installation.to_string();
        let began = futures_util::stream::once(async { EngineEvent::Relist });
        let rest = futures_util::stream::unfold(
            (receiver, installation),
            |(mut receiver, installation)| async move {
                let event = next_event(&mut receiver, &installation).await?;
                Some((event, (receiver, installation)))
            },
        );
        began.chain(rest).boxed()
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.up("ask for the version")?;
        Ok(EngineInfo {
            version: "20.10.24".to_owned(),
            api: (1, 41),
            kernel: "6.1.0".to_owned(),
            started_at: self.machine.state().since,
        })
    }
}

/// The next event that concerns this installation. What the ring lost is a word to list again.
async fn next_event(
    receiver: &mut broadcast::Receiver<Told>,
    installation: &str,
) -> Option<EngineEvent> {
    loop {
        match receiver.recv().await {
            Ok(Told::Container { id, installation: whose, session, action }) => {
                if whose == installation {
                    let session = SessionName::parse(&session).ok();
                    return Some(EngineEvent::Container { id, session, action: action.to_owned() });
                }
            }
            Ok(Told::Gone) => return Some(EngineEvent::Gone("connection reset".to_owned())),
            Ok(Told::Back) | Err(RecvError::Lagged(_)) => return Some(EngineEvent::Relist),
            Err(RecvError::Closed) => return None,
        }
    }
}
