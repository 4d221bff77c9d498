//! The machine: its containers, its ports, and what happens to them from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::model::{
    Container, ContainerDetail, ContainerId, ContainerState, Network, Resources, SessionName,
    Timestamp, Uid,
};
use crate::testing::clock::FakeClock;
use crate::world::{
    Clock as _, CreateRequest, EngineError, EngineErrorKind as Kind, Image, LABEL_ATTEMPT,
    LABEL_CASE, LABEL_INSTALLATION, LABEL_SESSION, LABEL_SPEC_HASH, LABEL_UID, LABEL_USER,
};

/// The engine's replay ring.
const RING: usize = 256;
/// How long a program takes to heed SIGTERM, and a removal takes.
const PROMPT: Duration = Duration::from_millis(40);

/// A fake engine and the machine it runs on.
#[derive(Debug)]
pub struct Machine {
    pub(super) clock: FakeClock,
    pub(super) events: broadcast::Sender<Told>,
    state: Mutex<State>,
    last_words: Mutex<LastWords>,
}

/// What a program does between SIGTERM and its end.
type Words = Arc<dyn Fn(&Seen) + Send + Sync>;

#[derive(Default)]
struct LastWords(Option<Words>);

impl std::fmt::Debug for LastWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LastWords")
    }
}

/// What the event stream carries.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// Something happened to a container.
    Container { id: ContainerId, installation: String, session: String, action: &'static str },
    /// The engine went away.
    Gone,
    /// It is there again.
    Back,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) containers: BTreeMap<ContainerId, Vessel>,
    pub(super) images: BTreeMap<String, Image>,
    pub(super) networks: BTreeSet<String>,
    squatted: BTreeSet<u16>,
    missing: BTreeSet<PathBuf>,
    serial: u64,
    pub(super) down: bool,
    /// Containers are made without their hardening, and whoever asked does not live to see it.
    pub(super) careless: bool,
    pub(super) since: Option<Timestamp>,
    wrongs: Vec<String>,
}

/// One container.
#[derive(Debug)]
pub(super) struct Vessel {
    pub(super) request: CreateRequest,
    pub(super) hardened: bool,
    pub(super) serial: u64,
    pub(super) state: ContainerState,
    pub(super) resources: Resources,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    exit_code: Option<i64>,
    oom_killed: bool,
    error: String,
    /// Counts starts, so that a scheduled end belongs to one of them.
    run: u64,
    /// By the monotonic clock.
    up_since: Instant,
    pub(super) log: Vec<String>,
}

/// How the machine answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Ok,
    /// It listens and is not ready.
    NotYet,
    /// Nobody listens.
    Nobody,
    /// Somebody listens and does not answer.
    Silence,
}

/// A container as a test sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Label `docket.dev/installation`; empty: foreign to docket.
    pub installation: String,
    /// Label `docket.dev/session`.
    pub session: String,
    /// Label `docket.dev/uid`.
    pub uid: String,
    /// Label `docket.dev/attempt`.
    pub attempt: String,
    /// How often it was started.
    pub starts: u64,
    /// Label `docket.dev/spec-hash`.
    pub spec_hash: String,
    /// What it does.
    pub state: ContainerState,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its host port.
    pub port: Option<u16>,
    /// Its limits.
    pub resources: Resources,
    /// Sources of its mounts.
    pub mounts: Vec<PathBuf>,
}

/// A container, as far as what may never be is about it.
#[derive(Clone, Debug)]
pub struct Brief {
    /// Its name.
    pub name: String,
    /// Label `docket.dev/session`.
    pub session: String,
    /// Label `docket.dev/uid`.
    pub uid: String,
    /// Label `docket.dev/attempt`.
    pub attempt: String,
    /// Whether a process of it lives.
    pub alive: bool,
    /// Whether it has the hardening it was asked for with.
    pub hardened: bool,
    /// What is mounted from the host.
    pub mounts: Vec<PathBuf>,
}

impl Seen {
    /// Whether a process of it lives.
    pub fn is_alive(&self) -> bool {
        is_alive(self.state)
    }
}

pub(super) fn is_alive(state: ContainerState) -> bool {
    matches!(state, ContainerState::Running | ContainerState::Paused)
}

pub(super) fn fail(kind: Kind, operation: &'static str, message: impl Into<String>) -> EngineError {
    EngineError { kind, operation, message: message.into() }
}

impl Vessel {
    fn new(request: CreateRequest, serial: u64) -> Vessel {
        Vessel {
            resources: request.spec.resources,
            request,
            hardened: true,
            serial,
            state: ContainerState::Created,
            started_at: None,
            finished_at: None,
            exit_code: None,
            oom_killed: false,
            error: String::new(),
            run: 0,
            up_since: Instant::now(),
            log: Vec::new(),
        }
    }

    pub(super) fn label(&self, key: &str) -> &str {
        self.request.labels.get(key).map_or("", String::as_str)
    }

    fn seen(&self, id: &ContainerId) -> Seen {
        Seen {
            id: id.clone(),
            name: self.request.name.clone(),
            installation: self.label(LABEL_INSTALLATION).to_owned(),
            session: self.label(LABEL_SESSION).to_owned(),
            uid: self.label(LABEL_UID).to_owned(),
            attempt: self.label(LABEL_ATTEMPT).to_owned(),
            starts: self.run,
            spec_hash: self.label(LABEL_SPEC_HASH).to_owned(),
            state: self.state,
            env: self.request.spec.env.clone(),
            port: self.request.host_port,
            resources: self.resources,
            mounts: self.request.mounts.iter().map(|mount| mount.source.clone()).collect(),
        }
    }

    fn env(&self, key: &str) -> Option<&str> {
        self.request.spec.env.get(key).map(String::as_str)
    }

    fn millis(&self, key: &str) -> Option<Duration> {
        self.env(key)?.parse().ok().map(Duration::from_millis)
    }

    fn inner(&self) -> Option<IpAddr> {
        let [.., high, low] = self.serial.to_be_bytes();
        let has = self.request.spec.network != Network::None && is_alive(self.state);
        has.then_some(IpAddr::V4(Ipv4Addr::new(172, 17, high, low)))
    }

    /// As LIST has it; `None`: a label is missing or broken.
    pub(super) fn listed(&self, id: &ContainerId) -> Option<Container> {
        Some(Container {
            id: id.clone(),
            name: self.request.name.clone(),
            session: SessionName::parse(self.label(LABEL_SESSION)).ok()?,
            uid: Uid::parse(self.label(LABEL_UID)).ok()?,
            attempt: self.label(LABEL_ATTEMPT).parse().ok()?,
            spec_hash: self.label(LABEL_SPEC_HASH).to_owned(),
            user: self.label(LABEL_USER).to_owned(),
            case: self.label(LABEL_CASE).to_owned(),
            state: self.state,
            detail: None,
        })
    }

    /// As inspect has it.
    pub(super) fn detail(&self, bind: IpAddr) -> ContainerDetail {
        let alive = is_alive(self.state);
        ContainerDetail {
            image_id: self.request.image_id.clone(),
            started_at: self.started_at,
            finished_at: self.finished_at.filter(|_| !alive),
            exit_code: self.exit_code,
            oom_killed: self.oom_killed,
            error: self.error.clone(),
            pid: alive.then_some(1000 + self.serial as i32),
            published: self
                .request
                .host_port
                .filter(|_| alive)
                .map(|port| SocketAddr::new(bind, port)),
            inner: self.inner(),
            resources: self.resources,
        }
    }

    fn end(&mut self, code: i64, oom: bool, now: Timestamp) {
        self.state = ContainerState::Exited;
        self.exit_code = Some(code);
        self.finished_at = Some(now);
        self.oom_killed = oom;
        self.log.push(format!("ended with {code}"));
    }
}

impl Machine {
    /// An empty machine with these images, each under its reference and its id.
    pub fn new(clock: FakeClock, images: &[(&str, &str)]) -> Arc<Machine> {
        let mut state = State { since: Some(clock.now()), ..State::default() };
        for (number, (reference, user)) in images.iter().enumerate() {
            let id = format!("sha256:{:064x}", number + 1);
            let image = Image { id: id.clone(), user: (*user).to_owned() };
            state.images.insert((*reference).to_owned(), image.clone());
            state.images.insert(id, image);
        }
        let events = broadcast::channel(RING).0;
        Arc::new(Machine { clock, events, state: Mutex::new(state), last_words: Mutex::default() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &State, id: &ContainerId, action: &'static str) {
        let Some(one) = state.containers.get(id) else { return };
        let (installation, session) =
            (one.label(LABEL_INSTALLATION).to_owned(), one.label(LABEL_SESSION).to_owned());
        let told = Told::Container { id: id.clone(), installation, session, action };
        let _nobody_listens = self.events.send(told);
    }

    /// The containers of an installation, as far as what may never be is about them.
    pub fn briefly(&self, installation: &str) -> Vec<Brief> {
        let state = self.state();
        let own = state.containers.values();
        let own = own.filter(|one| one.label(LABEL_INSTALLATION) == installation);
        own.map(|one| Brief {
            name: one.request.name.clone(),
            session: one.label(LABEL_SESSION).to_owned(),
            uid: one.label(LABEL_UID).to_owned(),
            attempt: one.label(LABEL_ATTEMPT).to_owned(),
            alive: is_alive(one.state),
            hardened: one.hardened,
            mounts: one.request.mounts.iter().map(|mount| mount.source.clone()).collect(),
        })
        .collect()
    }

    /// Everything there is, by id.
    pub fn containers(&self) -> Vec<Seen> {
        self.state().containers.iter().map(|(id, one)| one.seen(id)).collect()
    }

    /// What every program does when it is asked to end, just before it does: the write that a
    /// sync before the stop cannot see.
    pub fn on_term(&self, words: impl Fn(&Seen) + Send + Sync + 'static) {
        let mut slot = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        slot.0 = Some(Arc::new(words));
    }

    /// What callers did that they must never do, so far; each is told once.
    pub fn wrongs(&self) -> Vec<String> {
        std::mem::take(&mut self.state().wrongs)
    }

    /// Who answers at an address right now.
    pub fn ask(&self, address: SocketAddr) -> Answer {
        let state = self.state();
        let found = state.containers.values().find(|one| {
            let published = one.request.host_port == Some(address.port());
            let inner =
                one.inner() == Some(address.ip()) && one.request.spec.port == address.port();
            is_alive(one.state) && (published && address.ip().is_loopback() || inner)
        });
        match found {
            None => Answer::Nobody,
            Some(one) if one.state == ContainerState::Paused => Answer::Silence,
            Some(one) if one.env("HEALTH_MODE") == Some("hang") => Answer::Silence,
            Some(one) => {
                let after = one.millis("HEALTH_DELAY_MS").unwrap_or_default();
                if one.up_since.elapsed() < after { Answer::NotYet } else { Answer::Ok }
            }
        }
    }

    /// A foreign process takes a port.
    pub fn squat(&self, port: u16) {
        let mut state = self.state();
        if holder(&state, port).is_none() {
            state.squatted.insert(port);
        }
    }

    /// It gives it up.
    pub fn free(&self, port: u16) {
        self.state().squatted.remove(&port);
    }

    /// A directory of the host is gone, or (`false`) there again.
    pub fn lose_directory(&self, path: &Path, lost: bool) {
        let mut state = self.state();
        if lost {
            state.missing.insert(path.to_owned());
        } else {
            state.missing.remove(path);
        }
    }

    /// An image is there under this reference, or (`None`) not any more.
    pub fn set_image(&self, reference: &str, id: Option<&str>) {
        let mut state = self.state();
        match id {
            None => {
                state.images.remove(reference);
            }
            Some(id) => {
                let image = Image { id: id.to_owned(), user: String::new() };
                state.images.insert(reference.to_owned(), image.clone());
                state.images.insert(id.to_owned(), image);
            }
        }
    }

    /// From now on containers are made without their hardening, each time by a run that is cut
    /// before it can compare; or not any more.
    pub fn be_careless(&self, careless: bool) {
        self.state().careless = careless;
    }

    /// Somebody makes and starts a container that is not docket's. `false`: the name is taken.
    pub fn make_foreign(self: &Arc<Self>, request: CreateRequest) -> bool {
        let Ok(id) = self.create(request) else { return false };
        self.start(&id).is_ok()
    }

    /// SIGKILL by hand (or the kernel's, for memory).
    pub fn kill(&self, id: &ContainerId, oom: bool) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(one) = state.containers.get_mut(id) else { return };
        if !is_alive(one.state) {
            return;
        }
        one.end(137, oom, now);
        self.tell(&state, id, if oom { "oom" } else { "kill" });
        self.tell(&state, id, "die");
    }

    /// `docker rm -f` by hand.
    pub fn remove_by_hand(&self, id: &ContainerId) {
        self.kill(id, false);
        let mut state = self.state();
        self.tell(&state, id, "destroy");
        state.containers.remove(id);
    }

    /// `docker pause` by hand.
    pub fn pause_by_hand(&self, id: &ContainerId) {
        let mut state = self.state();
        let Some(one) = state.containers.get_mut(id) else { return };
        if one.state == ContainerState::Running {
            one.state = ContainerState::Paused;
            self.tell(&state, id, "pause");
        }
    }

    /// Events of a container to which nothing happened.
    pub fn chatter(&self, id: &ContainerId, times: usize) {
        let state = self.state();
        (0..times).for_each(|_| self.tell(&state, id, "update"));
    }

    /// The engine goes away: nobody answers. Containers run on.
    pub fn go_down(&self) {
        self.state().down = true;
        let _nobody_listens = self.events.send(Told::Gone);
    }

    /// It comes back and, without live-restore, kills what still ran: no event tells of it.
    pub fn come_back(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        state.down = false;
        state.since = Some(now);
        for one in state.containers.values_mut() {
            if is_alive(one.state) {
                one.end(137, false, now);
            }
        }
        let _nobody_listens = self.events.send(Told::Back);
    }

    /// The network to the engine is there again; the engine itself never went.
    pub fn reconnect(&self) {
        self.state().down = false;
        let _nobody_listens = self.events.send(Told::Back);
    }

    pub(super) fn wrong(&self, text: String) {
        self.state().wrongs.push(text);
    }

    pub(super) fn create(&self, request: CreateRequest) -> Result<ContainerId, EngineError> {
        const OP: &str = "create container";
        let mut state = self.state();
        check_limits(OP, request.spec.resources)?;
        if !state.images.contains_key(&request.image_id) {
            let text = format!("No such image: {}", request.image_id);
            return Err(fail(Kind::ImageMissing, OP, text));
        }
        check_mounts(&state, OP, &request)?;
        if let Some((id, _)) =
            state.containers.iter().find(|(_, one)| one.request.name == request.name)
        {
            let text = format!("The name \"/{}\" is in use by container {id}", request.name);
            return Err(fail(Kind::NameTaken, OP, text));
        }
        state.serial += 1;
        let serial = state.serial;
        // Spread like real ids, so that nothing leans on their order.
        let mixed = serial.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let id = ContainerId(format!("{mixed:016x}{serial:048x}"));
        state.containers.insert(id.clone(), Vessel::new(request, serial));
        self.tell(&state, &id, "create");
        Ok(id)
    }

    pub(super) fn start(self: &Arc<Self>, id: &ContainerId) -> Result<(), EngineError> {
        const OP: &str = "start container";
        let now = self.clock.now();
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(one) = state.containers.get(id) else {
            return Err(fail(Kind::NotFound, OP, format!("No such container: {id}")));
        };
        match one.state {
            ContainerState::Running => return Ok(()),
            ContainerState::Created | ContainerState::Exited => (),
            other => return Err(fail(Kind::Conflict, OP, format!("it is {other:?}"))),
        }
        check_mounts(state, OP, &one.request)?;
        if let Some(port) = one.request.host_port
            && let Some(why) = holder(state, port)
        {
            let text = format!("driver failed programming external connectivity: {why}");
            if let Some(one) = state.containers.get_mut(id) {
                one.error.clone_from(&text);
            }
            return Err(fail(Kind::PortTaken, OP, text));
        }
        let Some(one) = state.containers.get_mut(id) else { return Ok(()) };
        let missing = one.request.spec.command.first().is_some_and(|command| command != "/app");
        if missing && !one.request.spec.init {
            let text = "exec: no such file or directory".to_owned();
            one.error.clone_from(&text);
            return Err(fail(Kind::CommandInvalid, OP, text));
        }
        one.state = ContainerState::Running;
        one.started_at = Some(now);
        one.up_since = Instant::now();
        (one.exit_code, one.oom_killed, one.error) = (None, false, String::new());
        one.run += 1;
        one.log.push("started".to_owned());
        let end = if missing {
            Some((PROMPT, 127))
        } else {
            let code = one.env("EXIT_CODE").and_then(|code| code.parse().ok()).unwrap_or(0);
            one.millis("EXIT_AFTER_MS").map(|after| (after, code))
        };
        let run = one.run;
        self.tell(state, id, "start");
        drop(guard);
        if let Some((after, code)) = end {
            let (machine, id) = (Arc::clone(self), id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                machine.ends(&id, Some(run), code);
            });
        }
        Ok(())
    }

    /// PID 1 ends by itself, or as it was asked to. `run`: only if it is still that start.
    fn ends(&self, id: &ContainerId, run: Option<u64>, code: i64) -> bool {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(one) = state.containers.get_mut(id) else { return false };
        if !is_alive(one.state) || run.is_some_and(|run| run != one.run) {
            return false;
        }
        one.end(code, false, now);
        self.tell(&state, id, "die");
        true
    }

    /// SIGTERM, the grace, SIGKILL; once begun it goes on whoever gave up waiting.
    pub(super) async fn stop(&self, id: &ContainerId, grace: Duration) {
        let (heeds, run) = {
            let state = self.state();
            let Some(one) = state.containers.get(id).filter(|one| is_alive(one.state)) else {
                return;
            };
            let ignores = one.env("IGNORE_TERM").is_some() && !one.request.spec.init;
            (!ignores && one.state == ContainerState::Running, one.run)
        };
        {
            let state = self.state();
            self.tell(&state, id, "kill");
        }
        let heeds_in_time = heeds && grace > PROMPT;
        tokio::time::sleep(if heeds_in_time { PROMPT } else { grace }).await;
        if heeds_in_time {
            let seen = self
                .state()
                .containers
                .get(id)
                .filter(|one| one.run == run)
                .map(|one| one.seen(id));
            let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
            if let (Some(words), Some(seen)) = (words, seen.filter(Seen::is_alive)) {
                words(&seen);
            }
        }
        if self.ends(id, Some(run), if heeds_in_time { 143 } else { 137 }) {
            let state = self.state();
            self.tell(&state, id, "stop");
        }
    }

    /// Removes what does not run; returns when it is gone.
    pub(super) async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        const OP: &str = "remove container";
        loop {
            let first = {
                let mut state = self.state();
                let Some(one) = state.containers.get_mut(id) else { return Ok(()) };
                match one.state {
                    state if is_alive(state) => {
                        return Err(fail(Kind::Conflict, OP, format!("it is {state:?}")));
                    }
                    ContainerState::Removing => false,
                    _ => {
                        one.state = ContainerState::Removing;
                        true
                    }
                }
            };
            tokio::time::sleep(PROMPT).await;
            if first {
                let mut state = self.state();
                self.tell(&state, id, "destroy");
                state.containers.remove(id);
                return Ok(());
            }
        }
    }

    pub(super) fn update(&self, id: &ContainerId, resources: Resources) -> Result<(), EngineError> {
        const OP: &str = "update container";
        let mut state = self.state();
        let Some(one) = state.containers.get_mut(id) else {
            return Err(fail(Kind::NotFound, OP, format!("No such container: {id}")));
        };
        check_limits(OP, resources)?;
        one.resources = resources;
        self.tell(&state, id, "update");
        Ok(())
    }

    pub(super) fn freeze(&self, id: &ContainerId, frozen: bool) -> Result<(), EngineError> {
        let (op, from, to) = if frozen {
            ("pause container", ContainerState::Running, ContainerState::Paused)
        } else {
            ("unpause container", ContainerState::Paused, ContainerState::Running)
        };
        let mut state = self.state();
        let Some(one) = state.containers.get_mut(id) else {
            return Err(fail(Kind::NotFound, op, format!("No such container: {id}")));
        };
        match one.state {
            state if state == to => return Ok(()),
            state if state == from => one.state = to,
            other => return Err(fail(Kind::Conflict, op, format!("it is {other:?}"))),
        }
        self.tell(&state, id, if frozen { "pause" } else { "unpause" });
        Ok(())
    }
}

/// Who holds a host port, in the engine's words.
fn holder(state: &State, port: u16) -> Option<&'static str> {
    if state.squatted.contains(&port) {
        return Some("address already in use");
    }
    let held = |one: &Vessel| is_alive(one.state) && one.request.host_port == Some(port);
    state.containers.values().any(held).then_some("port is already allocated")
}

fn check_mounts(
    state: &State,
    operation: &'static str,
    request: &CreateRequest,
) -> Result<(), EngineError> {
    match request.mounts.iter().find(|mount| state.missing.contains(&mount.source)) {
        None => Ok(()),
        Some(mount) => {
            let text = format!("bind source path does not exist: {}", mount.source.display());
            Err(fail(Kind::MountMissing, operation, text))
        }
    }
}

fn check_limits(operation: &'static str, resources: Resources) -> Result<(), EngineError> {
    const LEAST: u64 = 6 << 20;
    if resources.memory > 0 && resources.memory < LEAST {
        let text = "Minimum memory limit allowed is 6MB";
        return Err(fail(Kind::InvalidSpec, operation, text));
    }
    Ok(())
}
