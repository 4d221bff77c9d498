//! A small world that obeys plans, so that whole lives can be run, disturbed, and cut short
//! anywhere: ports stay unique, a session has one live container, nothing unsynced is thrown
//! away, and once the disturbances end it settles.
//!
//! Effects leave in the record what the executor leaves there.

mod facts;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::world::*;
use crate::model::*;
use crate::plan::{Session, Want};
use facts::{adopt, exit, fail, note_fact, note_sync, roll_back};

/// A directory on the disk.
#[derive(Clone, Copy, Debug)]
struct Directory {
    id: WorkspaceId,
    /// Holds a tenant's bytes that are not stored.
    dirty: bool,
}

/// What a failed step is called.
type Failed = (Reason, bool, bool);

#[derive(Clone, Debug)]
struct Life {
    world: World,
    class: Words,
    disk: BTreeMap<(UserName, CaseName), Directory>,
    /// Ports that somebody else holds.
    foreign: BTreeSet<u16>,
    store_down: bool,
    /// The registry has the image `missing`.
    healed: bool,
    /// Every so many steps the operator is killed; 0: never.
    cut_every: u64,
    random: u64,
    inode: u64,
    /// What each container is to be published on.
    bound: BTreeMap<(ContainerId, Uid), u16>,
    trace: Vec<String>,
}

/// What else happens to a session between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    None,
    Kill,
    RemoveByHand,
    Pause,
    LoseRecord,
    Restart,
}

/// One chapter: what is wanted of each session, and what goes wrong meanwhile.
#[derive(Clone, Debug)]
struct Chapter {
    wants: Vec<&'static str>,
    blows: Vec<Blow>,
    class: &'static str,
    store_down: bool,
    engine_restarts: bool,
    engine_unseen: bool,
    foreign: bool,
    clock_back: bool,
    passes: usize,
}

const NAMES: [&str; 3] = ["ann-one", "ann-two", "bob-one"];

impl Life {
    fn new(policy: &str, cut_every: u64) -> Life {
        Life {
            world: World::parse(policy),
            class: Words::default(),
            disk: BTreeMap::new(),
            foreign: BTreeSet::new(),
            store_down: false,
            healed: false,
            cut_every,
            random: cut_every,
            inode: 100,
            bound: BTreeMap::new(),
            trace: Vec::new(),
        }
    }

    /// splitmix64: the same life for the same seed.
    fn dice(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn want(&mut self, session: &str, words: &str) {
        let one = self.world.sessions.entry(name(session)).or_insert_with(nothing_known);
        one.want = match words {
            "gone" => Want::Gone { cause: "its file is gone".to_owned() },
            "held" => {
                let message = "two files".to_owned();
                Want::Held { reason: Reason::DuplicateName, message, prune: false }
            }
            words => {
                let own = Words::parse(&words.split_whitespace().collect::<Vec<_>>());
                want(session, &own, &self.class)
            }
        };
    }

    /// What the next look sees: time passes, programs answer, crash or hang.
    fn observe(&mut self) {
        self.world.now += TimeDelta::seconds(5);
        let now = self.world.now;
        for one in self.world.sessions.values_mut() {
            let Look::Known(containers) = &mut one.containers else { continue };
            (one.health, one.probed_for) = (Health::Unknown, std::time::Duration::ZERO);
            for container in containers.iter_mut() {
                container.detail.as_mut().unwrap().published = None;
                if container.state != ContainerState::Running {
                    continue;
                }
                let detail = container.detail.as_mut().unwrap();
                let age = now - detail.started_at.unwrap();
                let passes = u32::try_from(age.num_seconds().max(0) / 5).unwrap();
                match detail.image_id.as_str() {
                    "sha256:crash" => {
                        container.state = ContainerState::Exited;
                        detail.finished_at = Some(now);
                        detail.exit_code = Some(1);
                        continue;
                    }
                    "sha256:hang" => {
                        let message = "no answer".to_owned();
                        one.health = Health::Failing { count: passes, message };
                    }
                    _ => one.health = Health::Passing,
                }
                one.probed_for = age.to_std().unwrap_or_default();
                let port = self.bound.get(&(container.id.clone(), container.uid.clone()));
                detail.published = port.map(|port| ([127, 0, 0, 1], *port).into());
                let place = UserName::parse(&container.user)
                    .ok()
                    .zip(CaseName::parse(&container.case).ok());
                if let Some(directory) = place.and_then(|place| self.disk.get_mut(&place)) {
                    directory.dirty |= passes % 3 == 1;
                }
            }
            let place = match (&one.record, &one.want) {
                (Some(record), _) => Some((record.user.clone(), record.case.clone())),
                (None, Want::Present { object, .. }) => {
                    Some((object.user.clone(), object.case.clone()))
                }
                (None, _) => None,
            };
            let seen = place.and_then(|place| self.disk.get(&place));
            one.workspace = Look::Known(seen.map(|d| WorkspaceSeen { id: d.id, uid: None }));
        }
        self.world.sessions.retain(|_, one| {
            let nothing = one.record.is_none()
                && one.containers.known().is_none_or(Vec::is_empty)
                && matches!(one.want, Want::Gone { .. });
            !nothing
        });
    }

    /// One pass: plan, then each session's steps, perhaps cut short. Whether anything was done.
    fn pass(&mut self) -> bool {
        self.observe();
        let plan = self.world.plan();
        let mut busy = false;
        let cut = if self.cut_every == 0 { u64::MAX } else { self.dice() % self.cut_every };
        let mut done = 0;
        for (session, planned) in &plan {
            for action in &planned.actions {
                busy |= *action != Action::Sync { kind: SyncKind::Background };
                if done == cut {
                    self.trace.push("killed".to_owned());
                    return true;
                }
                done += 1;
                self.trace
                    .push(format!("{} {session}: {action}", self.world.now.format("%H:%M:%S")));
                let met = self.apply(session, action);
                self.assert_invariants();
                if let Err(met) = met {
                    self.trace.push(format!("    failed: {}", met.0));
                    self.note(session, action, met);
                    break;
                }
            }
            busy |= planned.wake_at.is_some() && planned.reason.is_some();
        }
        busy
    }

    fn note(
        &mut self,
        session: &SessionName,
        action: &Action,
        (reason, terminal, at_once): Failed,
    ) {
        let operation = match action {
            Action::CreateWorkspace => Operation::Workspace,
            Action::Hydrate => Operation::Hydrate,
            Action::ResolveImage { .. } => Operation::Image,
            Action::CreateContainer { .. } => Operation::Create,
            Action::StartContainer { .. } => Operation::Start,
            Action::StopContainer { .. } => Operation::Stop,
            Action::RemoveContainer { .. } => Operation::Remove,
            Action::Sync { .. } => Operation::Sync,
            _ => return,
        };
        let now = self.world.now;
        let Some(record) = self.record(session) else { return };
        if reason == Reason::PortConflict {
            let port = record.port.unwrap();
            self.world.quarantine.insert(port, now + TimeDelta::seconds(60));
        }
        let record = self.record(session).unwrap();
        fail(record, operation, reason, terminal, at_once, now);
    }

    fn record(&mut self, session: &SessionName) -> Option<&mut Record> {
        self.world.sessions.get_mut(session)?.record.as_mut()
    }

    fn containers(&mut self, session: &SessionName) -> &mut Vec<Container> {
        match &mut self.world.sessions.get_mut(session).unwrap().containers {
            Look::Known(containers) => containers,
            Look::Unknown(_) => panic!("{session}: a container was touched unseen"),
        }
    }

    fn find(&mut self, session: &SessionName, id: &ContainerId) -> Option<&mut Container> {
        self.containers(session).iter_mut().find(|c| c.id == *id)
    }

    fn directory(&mut self, session: &SessionName) -> Option<&mut Directory> {
        let record = self.world.sessions.get(session)?.record.as_ref()?;
        self.disk.get_mut(&(record.user.clone(), record.case.clone()))
    }

    fn apply(&mut self, session: &SessionName, action: &Action) -> Result<(), Failed> {
        let now = self.world.now;
        match action {
            Action::Admit { applied, source, .. } => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&self.dice().to_le_bytes());
                let one = self.world.sessions.get_mut(session).unwrap();
                assert!(one.record.is_none(), "{session}: admitted twice");
                let uid = Uid::from_bytes(bytes);
                one.record = Some(Record::admit(uid, (**applied).clone(), source.clone(), now));
            }
            Action::Adopt { applied, source, keep_last_good } => {
                let record = self.record(session).unwrap();
                adopt(record, applied, source, *keep_last_good, now);
            }
            Action::RollBack { message } => roll_back(self.record(session).unwrap(), message),
            Action::LeasePort { port, .. } => self.record(session).unwrap().port = Some(*port),
            Action::CreateWorkspace => self.create_workspace(session),
            Action::Hydrate => {
                if self.store_down {
                    return Err((Reason::StoreUnavailable, false, false));
                }
                let record = self.record(session).unwrap();
                record.hydrated = true;
                record.failures.remove(&Operation::Hydrate);
            }
            Action::ResolveImage { reference, .. } => {
                if reference == "missing" && !self.healed {
                    return Err((Reason::ImageMissing, false, false));
                }
                let record = self.record(session).unwrap();
                record.applied.image = Some(pin(reference));
                record.failures.remove(&Operation::Image);
            }
            Action::CreateContainer { attempt, port } => self.create(session, *attempt, *port),
            Action::StartContainer { target, restart } => {
                return self.start(session, target, *restart);
            }
            Action::StopContainer { id, attempt, reason, .. } => {
                self.stop(session, id, *attempt, *reason);
            }
            Action::RemoveContainer { id, attempt, .. } => {
                return self.remove(session, id, *attempt);
            }
            Action::UpdateResources { id, resources } => {
                let container = self.find(session, id).unwrap();
                container.detail.as_mut().unwrap().resources = *resources;
            }
            Action::PauseContainer { id, .. } => {
                self.find(session, id).unwrap().state = ContainerState::Paused;
            }
            Action::UnpauseContainer { id } => {
                self.find(session, id).unwrap().state = ContainerState::Running;
                self.record(session).unwrap().paused = None;
            }
            Action::Sync { kind } => return self.sync(session, *kind),
            Action::TrashWorkspace => self.trash(session),
            Action::EmptyTrash => (),
            Action::DropRecord => {
                let left = self.containers(session).len();
                assert_eq!(left, 0, "{session}: dropped with containers");
                self.world.sessions.get_mut(session).unwrap().record = None;
            }
            Action::Rebuild { uid, attempt, port, image_id, applied, source, .. } => {
                let image = image_id.clone().unwrap();
                let named = source.clone().unwrap_or(Source::Applied);
                let mut record = Record::admit(uid.clone(), (**applied).clone(), named, now);
                record.source_unseen = source.is_none();
                (record.attempt, record.port, record.adopted) = (*attempt, *port, true);
                let place = (record.user.clone(), record.case.clone());
                record.workspace = self.disk.get(&place).map(|d| d.id);
                record.hydrated = record.workspace.is_some();
                record.applied.image = Some(ImagePin { id: image, user: String::new() });
                self.world.sessions.get_mut(session).unwrap().record = Some(record);
            }
            note => note_fact(self.record(session).unwrap(), note, now),
        }
        Ok(())
    }

    fn create_workspace(&mut self, session: &SessionName) {
        self.inode += 1;
        let fresh = Directory { id: WorkspaceId { dev: 1, ino: self.inode }, dirty: false };
        let record = self.record(session).unwrap();
        let place = (record.user.clone(), record.case.clone());
        let was_there = self.disk.contains_key(&place);
        let id = self.disk.entry(place).or_insert(fresh).id;
        let record = self.record(session).unwrap();
        record.workspace = Some(id);
        record.adopted = was_there;
        record.failures.remove(&Operation::Workspace);
    }

    fn create(&mut self, session: &SessionName, attempt: u32, port: Option<u16>) {
        let now = self.world.now;
        let record = self.record(session).unwrap();
        assert!(record.hydrated, "{session}: made before its files are there");
        assert!(record.ending.is_none(), "{session}: made while it ends");
        (record.attempt, record.restarts, record.ready_since) = (attempt, 0, None);
        let (operation, reason) = (Operation::Create, Reason::InProgress);
        record.intent = Some(Intent { operation, attempt, at: now, reason });
        let image = record.applied.image.clone().expect("its image is pinned");
        let resolved = &record.applied.resolved;
        let container = Container {
            id: ContainerId(format!("{session}-{attempt}")),
            name: format!("docket-{session}-{attempt}"),
            session: session.clone(),
            uid: record.uid.clone(),
            attempt,
            spec_hash: crate::spec::fingerprint(resolved, &image.id, record.port),
            user: record.user.to_string(),
            case: record.case.to_string(),
            state: ContainerState::Created,
            detail: Some(ContainerDetail {
                image_id: image.id,
                started_at: None,
                finished_at: None,
                exit_code: None,
                oom_killed: false,
                error: String::new(),
                pid: None,
                published: None,
                inner: None,
                resources: resolved.container.resources,
            }),
        };
        assert_eq!(port, record.port, "{session}: made for a port that is not leased");
        if let Some(port) = port {
            self.bound.insert((container.id.clone(), container.uid.clone()), port);
        }
        let all = self.containers(session);
        assert!(all.iter().all(|c| c.attempt != attempt), "{session}: the name is taken");
        all.push(container);
    }

    fn start(
        &mut self,
        session: &SessionName,
        target: &Target,
        restart: bool,
    ) -> Result<(), Failed> {
        let now = self.world.now;
        let record = self.record(session).unwrap();
        let (attempt, port) = (record.attempt, record.port);
        record.ready_since = None;
        let (operation, reason) = (Operation::Start, Reason::InProgress);
        record.intent = Some(Intent { operation, attempt, at: now, reason });
        if port.is_some_and(|port| self.foreign.contains(&port)) {
            return Err((Reason::PortConflict, false, true));
        }
        let id = match target {
            Target::Seen(id) => id.clone(),
            Target::Made => self.containers(session).last().unwrap().id.clone(),
        };
        let container = self.find(session, &id).unwrap();
        let detail = container.detail.as_mut().unwrap();
        if detail.image_id == "sha256:invalid" {
            return Err((Reason::CommandInvalid, true, false));
        }
        container.state = ContainerState::Running;
        (detail.started_at, detail.finished_at, detail.exit_code) = (Some(now), None, None);
        let record = self.record(session).unwrap();
        (record.intent, record.paused) = (None, None);
        record.ran_since = record.ran_since.or(Some(now));
        record.restarts += u32::from(restart);
        if !restart {
            record.restart_after = record.restart_after.filter(|n| *n >= record.attempt);
        }
        record.failures.remove(&Operation::Create);
        record.failures.remove(&Operation::Start);
        Ok(())
    }

    fn stop(&mut self, session: &SessionName, id: &ContainerId, attempt: u32, reason: Reason) {
        let now = self.world.now;
        let record = self.record(session).unwrap();
        record.intent = Some(Intent { operation: Operation::Stop, attempt, at: now, reason });
        record.ready_since = None;
        record.paused = None;
        record.failures.remove(&Operation::Stop);
        let container = self.find(session, id).unwrap();
        container.state = ContainerState::Exited;
        let detail = container.detail.as_mut().unwrap();
        (detail.finished_at, detail.exit_code) = (Some(now), Some(143));
        // The last writes come on SIGTERM.
        if let Some(directory) = self.directory(session) {
            directory.dirty = true;
        }
    }

    fn remove(
        &mut self,
        session: &SessionName,
        id: &ContainerId,
        attempt: u32,
    ) -> Result<(), Failed> {
        let Some(container) = self.find(session, id) else { return Ok(()) };
        if matches!(container.state, ContainerState::Running | ContainerState::Paused) {
            return Err((Reason::InProgress, false, false));
        }
        self.containers(session).retain(|c| c.id != *id);
        let record = self.record(session).unwrap();
        record.intent = record.intent.take().filter(|intent| intent.attempt != attempt);
        Ok(())
    }

    fn sync(&mut self, session: &SessionName, kind: SyncKind) -> Result<(), Failed> {
        let (now, down) = (self.world.now, self.store_down);
        if kind == SyncKind::PreStop {
            if let Some(ending) = &mut self.record(session).unwrap().ending {
                ending.pre_synced = true;
            }
        } else if down {
            self.world.sessions.get_mut(session).unwrap().sync_tried = Some(now);
            return Err((Reason::StoreUnavailable, false, false));
        }
        if down {
            return Ok(());
        }
        self.directory(session).expect("a directory to sync").dirty = false;
        note_sync(self.world.sessions.get_mut(session).unwrap(), kind, now);
        Ok(())
    }

    fn trash(&mut self, session: &SessionName) {
        let alive = self.containers(session).iter().any(|c| c.state == ContainerState::Running);
        assert!(!alive, "{session}: its workspace went while it ran");
        let record = self.record(session).unwrap();
        let place = (record.user.clone(), record.case.clone());
        let discard = record.ending.as_ref().unwrap().discard;
        let gone = self.disk.remove(&place);
        assert!(discard || !gone.is_some_and(|d| d.dirty), "{session}: edits were thrown away");
        self.record(session).unwrap().ending.as_mut().unwrap().trashed = true;
    }

    fn assert_invariants(&self) {
        let ports: Vec<u16> =
            self.world.sessions.values().filter_map(|one| one.record.as_ref()?.port).collect();
        let unique: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(unique.len(), ports.len(), "two sessions share a port");
        let mut running = 0;
        for (name, one) in &self.world.sessions {
            let Look::Known(containers) = &one.containers else { continue };
            let alive = |c: &&Container| {
                matches!(c.state, ContainerState::Running | ContainerState::Paused)
            };
            let live = containers.iter().filter(alive).count();
            assert!(live <= 1, "{name}: {live} live containers");
            running += u32::from(live > 0);
        }
        let most = self.world.policy.max_sessions;
        assert!(most == 0 || running <= most, "{running} sessions run, {most} may");
    }

    fn blow(&mut self, session: &str, blow: Blow) {
        let now = self.world.now;
        let Some(one) = self.world.sessions.get_mut(&name(session)) else { return };
        let Look::Known(containers) = &mut one.containers else { return };
        let running = |c: &&mut Container| c.state == ContainerState::Running;
        match blow {
            Blow::None => (),
            Blow::Kill => containers.iter_mut().filter(running).for_each(|c| exit(c, 137, now)),
            Blow::RemoveByHand => containers.clear(),
            Blow::Pause => {
                for container in containers.iter_mut().filter(running) {
                    container.state = ContainerState::Paused;
                }
            }
            Blow::LoseRecord => one.record = None,
            Blow::Restart => {
                if let Some(record) = &mut one.record {
                    record.restart_after = Some(record.attempt);
                    record.applied.image = None;
                }
            }
        }
    }

    fn live(&mut self, chapter: &Chapter) {
        self.class = Words::parse(&chapter.class.split_whitespace().collect::<Vec<_>>());
        self.store_down = chapter.store_down;
        self.foreign = if chapter.foreign { [8001, 8002].into() } else { BTreeSet::new() };
        if chapter.clock_back {
            self.world.now -= TimeDelta::hours(1);
        }
        for (session, words) in NAMES.iter().zip(&chapter.wants) {
            self.want(session, words);
        }
        for (session, blow) in NAMES.iter().zip(&chapter.blows) {
            self.blow(session, *blow);
        }
        if chapter.engine_restarts {
            let now = self.world.now;
            self.world.engine_started = Some(now);
            for one in self.world.sessions.values_mut() {
                let Look::Known(containers) = &mut one.containers else { continue };
                let running = |c: &&mut Container| c.state == ContainerState::Running;
                containers.iter_mut().filter(running).for_each(|c| exit(c, 137, now));
            }
        }
        let hidden = if chapter.engine_unseen { self.hide() } else { BTreeMap::new() };
        for pass in 0..chapter.passes {
            if pass == chapter.passes / 2 {
                self.show(&hidden);
            }
            self.pass();
        }
        self.show(&hidden);
    }

    fn hide(&mut self) -> BTreeMap<SessionName, Look<Vec<Container>>> {
        let hide = |one: &mut Session| {
            std::mem::replace(&mut one.containers, Look::Unknown("refused".to_owned()))
        };
        self.world.sessions.iter_mut().map(|(name, one)| (name.clone(), hide(one))).collect()
    }

    fn show(&mut self, hidden: &BTreeMap<SessionName, Look<Vec<Container>>>) {
        for (name, one) in &mut self.world.sessions {
            if let (Look::Unknown(_), seen) = (&one.containers, hidden.get(name)) {
                one.containers = seen.cloned().unwrap_or(Look::Known(Vec::new()));
            }
        }
    }

    /// Runs until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..400 {
            if !self.pass() {
                return;
            }
        }
        let tail = self.trace.iter().rev().take(60).rev().cloned().collect::<Vec<_>>();
        let plan = crate::plan::render(&self.world.plan());
        panic!("it does not settle:\n{}\n{plan}\n{:#?}", tail.join("\n"), self.world.sessions);
    }
}

fn chapter() -> impl Strategy<Value = Chapter> {
    let wants = prop::sample::select(vec![
        "",
        "",
        "image=web2",
        "class-image=web3",
        "image=crash",
        "image=hang",
        "image=missing",
        "image=invalid",
        "state=Stopped",
        "suspend",
        "memory=8",
        "hostport=8001",
        "hostport=8002",
        "gone",
        "gone",
        "held",
        "class-image=crash",
        "image=web2 state=Stopped",
    ]);
    let blows = prop::sample::select(vec![
        Blow::None,
        Blow::None,
        Blow::None,
        Blow::Kill,
        Blow::RemoveByHand,
        Blow::Pause,
        Blow::LoseRecord,
        Blow::Restart,
    ]);
    let class = prop::sample::select(vec![
        "",
        "rollout=Immediate concurrent=1",
        "strategy=Recreate",
        "strategy=Never",
        "restart=OnFailure",
        "restart=Never",
        "hold",
    ]);
    let rarely = || prop::bool::weighted(0.15);
    (
        prop::collection::vec(wants, 3),
        prop::collection::vec(blows, 3),
        class,
        (rarely(), rarely(), rarely(), rarely(), rarely()),
        1..40_usize,
    )
        .prop_map(|(wants, blows, class, odds, passes)| Chapter {
            wants,
            blows,
            class,
            store_down: odds.0,
            engine_restarts: odds.1,
            engine_unseen: odds.2,
            foreign: odds.3,
            clock_back: odds.4,
            passes,
        })
}

/// All is well again and each session is wanted (or not): how it must end.
fn heal(life: &mut Life, wanted: [bool; 3]) {
    // A container without record and source is held, not ended: its source must be seen first.
    for session in NAMES {
        let lost = life.world.sessions.get(&name(session)).is_some_and(|one| one.record.is_none());
        if lost {
            life.want(session, "");
        }
    }
    life.cut_every = 0;
    for _ in 0..3 {
        life.pass();
    }
    life.live(&Chapter {
        wants: wanted.map(|wanted| if wanted { "image=web4" } else { "gone" }).to_vec(),
        blows: vec![Blow::None; 3],
        class: "",
        store_down: false,
        engine_restarts: false,
        engine_unseen: false,
        foreign: false,
        clock_back: false,
        passes: 0,
    });
    life.healed = true;
    life.settle();
}

fn assert_healed(life: &Life, wanted: [bool; 3]) {
    for (session, wanted) in NAMES.iter().zip(wanted) {
        let one = life.world.sessions.get(&name(session));
        let Some(one) = one.filter(|_| wanted) else {
            assert!(one.is_none(), "{session} is still there:\n{}", life.trace.join("\n"));
            continue;
        };
        let containers = one.containers.known().unwrap();
        let runs = containers.iter().any(|c| c.state == ContainerState::Running);
        let queued = life.world.policy.max_sessions > 0 && !runs;
        if queued {
            continue;
        }
        assert_eq!(containers.len(), 1, "{session}:\n{}", life.trace.join("\n"));
        let image = &containers[0].detail.as_ref().unwrap().image_id;
        assert_eq!(image, "sha256:web4", "{session}:\n{}", life.trace.join("\n"));
        assert_eq!(containers[0].state, ContainerState::Running);
    }
    let most = life.world.policy.max_sessions as usize;
    let want = wanted.iter().filter(|wanted| **wanted).count();
    let run = life.world.sessions.values();
    let runs = |c: &Container| c.state == ContainerState::Running;
    let run = run.filter(|one| one.containers.known().unwrap().iter().any(runs)).count();
    assert_eq!(run, if most == 0 { want } else { want.min(most) }, "{}", life.trace.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::with_cases(500)
    })]

    #[test]
    fn any_life_settles_once_it_is_left_alone(
        policy in prop::sample::select(vec![
            "", "policy starts=1", "policy sessions=2", "policy user=1", "policy ports=8001-8003",
        ]),
        cut_every in prop::sample::select(vec![0_u64, 3, 7, 20]),
        chapters in prop::collection::vec(chapter(), 1..6),
        wanted in any::<[bool; 3]>(),
    ) {
        let mut life = Life::new(policy, cut_every);
        for chapter in &chapters {
            life.live(chapter);
        }
        heal(&mut life, wanted);
        if !policy.contains("user") {
            assert_healed(&life, wanted);
        }
    }
}

/// One life: two sessions come, one changes its image, one goes, then all go.
fn story(cut: Option<usize>) -> (Vec<String>, usize) {
    let chapters = [
        ["", "", "gone"],
        ["image=web2", "", "gone"],
        ["gone", "", "gone"],
        ["gone", "state=Stopped", ""],
        ["gone"; 3],
    ];
    let mut life = Life::new("", 0);
    let mut ends = Vec::new();
    for wants in chapters {
        for (session, words) in NAMES.iter().zip(wants) {
            life.want(session, words);
        }
        life.settle_cut(cut);
        ends.push(life.end_state());
    }
    let steps = life.trace.len();
    (ends, steps)
}

impl Life {
    /// Settles; the operator is killed before the n-th step of its life.
    fn settle_cut(&mut self, cut: Option<usize>) {
        for _ in 0..200 {
            self.observe();
            let plan = self.world.plan();
            let background = Action::Sync { kind: SyncKind::Background };
            let mut busy = false;
            'pass: for (session, planned) in &plan {
                for action in &planned.actions {
                    busy |= *action != background;
                    if cut == Some(self.trace.len()) {
                        self.trace.push("killed".to_owned());
                        break 'pass;
                    }
                    self.trace.push(format!("{session}: {action}"));
                    self.apply(session, action).expect("nothing fails in this life");
                    self.assert_invariants();
                }
            }
            if !busy {
                return;
            }
        }
        panic!("it does not settle");
    }

    fn end_state(&self) -> String {
        let port = |one: &Session| one.record.as_ref().and_then(|record| record.port);
        let show = |(name, one): (&SessionName, &Session)| {
            let all = one.containers.known().unwrap();
            let all = all.iter().map(|c| (c.state, c.detail.as_ref().unwrap().image_id.clone()));
            format!("{name} {:?} {:?}", port(one), all.collect::<Vec<_>>())
        };
        let sessions: Vec<String> = self.world.sessions.iter().map(show).collect();
        format!("{} on disk {:?}", sessions.join("; "), self.disk.keys().collect::<Vec<_>>())
    }
}

#[test]
fn killed_at_any_step_it_ends_up_in_the_same_place() {
    let (expected, steps) = story(None);
    assert!(30 < steps, "a life of {steps} steps tests little");
    for cut in 0..steps {
        let (found, _) = story(Some(cut));
        assert_eq!(found, expected, "killed before step {cut}");
    }
}
