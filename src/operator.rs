//! The loop: a closed enum of reasons to wake, one pass after each, one runner a session.
//!
//! 1. Something happens: sources changed, a listing came back, an event, a probe, a runner is
//!    done, somebody asks, time passed.
//! 2. What it touches is marked dirty.
//! 3. A pass decides for the dirty sessions that are not being worked on, and hands each plan's
//!    steps to a runner of its own.
//!
//! The loop itself never waits for anything outside: looks and effects run in tasks that report
//! back.

mod asks;
mod catalogue;
mod claims;
mod fleet;
pub mod handle;
mod health;
mod idle;
mod index;
mod keeping;
mod numbers;
mod pass;
mod publish;
#[cfg(feature = "testing")]
mod recount;
mod start;
mod wants;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::{Doors, Ran, StepError};
use crate::model::{
    Action, ClassName, ContainerId, Event, Health, Look, Record, SessionName, SessionPlan, Space,
    Timestamp,
};
use crate::observe::{Full, One};
use crate::plan::{Policy, Scarce, Session, Use, Want};
use crate::status::SessionView;
use crate::world::{Clock, Count, Engine, EngineEvent, Ledger, Objects, Probe, Workspaces};

use handle::{Ask, Handle, Snapshot};
use health::Prober;
use idle::Idler;
pub use start::{Rebuilt, rebuild};
pub use wants::{PruneGuard, SourceFile, Sources};

/// Time between two looks at the trash.
const SWEEP: Duration = Duration::from_secs(60);

/// The operator's numbers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What decisions depend on.
    pub policy: Policy,
    /// The longest time between two passes.
    pub tick: Duration,
    /// When a wave of vanished files is held.
    pub prune: PruneGuard,
    /// Where workspaces are, for people.
    pub workspaces: PathBuf,
    /// How long the trash is kept.
    pub trash_keep: Duration,
}

/// The channels around a loop.
#[derive(Debug)]
pub struct Mail {
    /// Newest listing of the sources.
    pub sources: mpsc::Receiver<Sources>,
    /// Questions.
    pub asks: mpsc::Receiver<Ask>,
    /// Changed settings.
    pub settings: mpsc::Receiver<Settings>,
    /// Asks for a rescan of the sources.
    pub rescan: mpsc::Sender<()>,
}

/// What the loop's own tasks tell it.
#[derive(Debug)]
enum Inner {
    /// A complete look came back; it began as the n-th.
    Observed { number: u64, took: Duration, full: Box<Full> },
    /// A look at one session came back.
    Looked { name: SessionName, one: One, began: Instant },
    /// A main runner is done.
    Ran { name: SessionName, ran: Ran, one: One },
    /// A main runner takes a step that may last.
    Step { name: SessionName },
    /// A container showed a sign of use.
    Used { name: SessionName, id: ContainerId, started_at: Option<Timestamp>, used: Use },
    /// A background sync is done.
    Synced { name: SessionName, error: Option<StepError> },
    /// A hydration got further.
    Moved { name: SessionName },
    /// What a prober knows changed.
    Health { name: SessionName, id: ContainerId, started_at: Option<Timestamp>, health: Health },
}

/// How many looks at single sessions run side by side: a storm of events is none of looks, and some
/// containers may hang.
const LOOKS: usize = 64;
/// How often the progress of a hydration is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// Does work, and tells now and then that it goes on.
async fn shown<T>(
    work: impl Future<Output = T>,
    tell: &mpsc::UnboundedSender<Inner>,
    name: &SessionName,
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(SHOWN_EVERY) => {
                let _loop_is_gone = tell.send(Inner::Moved { name: name.clone() });
            }
        }
    }
}

/// Why the loop woke.
#[derive(Debug)]
enum Wake {
    Shutdown,
    Inner(Inner),
    Ask(Ask),
    Sources(Sources),
    Engine(EngineEvent),
    Settings(Box<Settings>),
    Time,
}

/// A session as the loop knows it.
#[derive(Debug)]
struct Live {
    session: Session,
    /// What `session` holds copies of: an unchanged one is not copied again.
    seen: (Option<Arc<Want>>, Option<Arc<Record>>),
    plan: SessionPlan,
    view: Option<Arc<SessionView>>,
    /// When each condition last changed its value.
    transitions: crate::status::Transitions,
    /// A main runner works on it.
    main: Option<CancellationToken>,
    /// Which of its plan's steps that is.
    step: Arc<AtomicUsize>,
    /// A background sync works on it.
    files: bool,
    /// Only a complete look that began as this number or later tells about it.
    trusted_from: u64,
    /// When its last steps ended.
    touched_at: Option<Instant>,
    /// A look at it alone is under way.
    looked_at: bool,
    /// Containers that events told of while steps or a look were under way.
    missed: BTreeSet<ContainerId>,
    /// The same steps so often in a row without an end.
    repeats: u32,
    /// Why its last steps ended with nothing known to be kept in the ledger, if they did.
    unkept: Option<String>,
    /// What an assertion that failed in its steps said: nothing is done for it any more.
    broken: Option<String>,
    /// Not planned before (a loop that spins is slowed down).
    not_before: Option<Instant>,
    prober: Option<Prober>,
    idler: Option<Idler>,
}

impl crate::plan::Sessions for BTreeMap<SessionName, Live> {
    fn get(&self, name: &SessionName) -> Option<&Session> {
        self.get(name).map(|live| &live.session)
    }

    fn each(&self) -> Box<dyn Iterator<Item = (&SessionName, &Session)> + '_> {
        Box::new(self.iter().map(|(name, live)| (name, &live.session)))
    }
}

/// The operator.
#[derive(Debug)]
pub struct Operator<E, O, W, L, P, C> {
    doors: Arc<Doors<E, O, W, L, C>>,
    probe: Arc<P>,
    settings: Settings,
    mail: Mail,
    tell: mpsc::UnboundedSender<Inner>,
    told: mpsc::UnboundedReceiver<Inner>,
    live: BTreeMap<SessionName, Live>,
    dirty: BTreeSet<SessionName>,
    containers: fleet::Fleet,
    containers_look: Look<()>,
    space: Look<Space>,
    engine_started: Option<Timestamp>,
    sources: Option<Sources>,
    wants: wants::Wants,
    applied: BTreeMap<String, String>,
    /// A record came, went, or changed where others depend on it: that is decided anew.
    records_changed: bool,
    /// What is scarce, and who takes it.
    scarce: Scarce,
    /// Classes of which an update was done since the last pass.
    updated: BTreeSet<ClassName>,
    index: index::Index,
    clocks: Clocks,
    /// Whose turn comes next of those that nothing happens to.
    turn: Option<SessionName>,
    /// Complete looks begun so far; one at a time is under way.
    looks: u64,
    looking: bool,
    /// Sessions whose steps ended while a complete look was under way: it does not tell of them.
    overtaken: BTreeMap<SessionName, u64>,
    /// Turns of looks at single sessions.
    turns: Arc<Semaphore>,
    look_again: bool,
    look_failures: u32,
    next_look: Instant,
    next_sweep: Instant,
    sync_waiters: BTreeMap<SessionName, Vec<Waiter>>,
    /// Plans asked for before everything was looked at once.
    parked: Vec<Ask>,
    sessions: watch::Sender<Snapshot>,
    last_pass: watch::Sender<Option<Timestamp>>,
}

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// An operator over these doors, with what the ledger kept, and the way to it.
    pub fn new(
        doors: Arc<Doors<E, O, W, L, C>>,
        probe: Arc<P>,
        settings: Settings,
        rebuilt: Rebuilt,
        sources: mpsc::Receiver<Sources>,
        new_settings: mpsc::Receiver<Settings>,
        rescan: mpsc::Sender<()>,
    ) -> (Self, Handle) {
        let (ask, asks) = mpsc::channel(64);
        let (tell, told) = mpsc::unbounded_channel();
        let (sessions, snapshot) = watch::channel(Snapshot::default());
        let (last_pass, passed) = watch::channel(None);
        let handle = Handle {
            asks: ask,
            sessions: snapshot,
            events: doors.book.live.clone(),
            past: Arc::clone(&doors.book.past),
            meter: Arc::clone(&doors.meter),
            last_pass: passed,
            origin: watch::channel(None).1,
        };
        doors.lanes.rooms.set_floor(settings.policy.min_free);
        let operator = Operator {
            doors,
            probe,
            settings,
            mail: Mail { sources, asks, settings: new_settings, rescan },
            tell,
            told,
            live: BTreeMap::new(),
            dirty: BTreeSet::new(),
            containers: fleet::Fleet::default(),
            containers_look: Look::Unknown("it was not listed yet".to_owned()),
            space: Look::Unknown("it was not looked at yet".to_owned()),
            engine_started: None,
            sources: None,
            wants: wants::Wants::new(rebuilt.confirmed),
            applied: rebuilt.applied,
            records_changed: false,
            scarce: Scarce::default(),
            updated: BTreeSet::new(),
            index: index::Index::default(),
            clocks: Clocks::default(),
            turn: None,
            looks: 0,
            looking: false,
            overtaken: BTreeMap::new(),
            turns: Arc::new(Semaphore::new(LOOKS)),
            look_again: true,
            look_failures: 0,
            next_look: Instant::now(),
            next_sweep: Instant::now() + SWEEP,
            sync_waiters: BTreeMap::new(),
            parked: Vec::new(),
            sessions,
            last_pass,
        };
        (operator, handle)
    }

    /// Runs until `shutdown`; then finishes what must not be cut, within eight seconds.
    /// Containers are left as they are.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut events = self.doors.engine.events();
        let mut open = Open { sources: true, settings: true, asks: true };
        self.adopt_records();
        loop {
            self.look_if_due();
            self.sweep_if_due();
            self.prefetch_if_wanted();
            self.pass();
            let wake = self.next_wake(&shutdown, &mut events, &mut open).await;
            if matches!(wake, Wake::Shutdown) {
                break;
            }
            self.heed(wake).await;
            self.answer_parked().await;
        }
        self.finish().await;
    }

    async fn next_wake(
        &mut self,
        shutdown: &CancellationToken,
        events: &mut crate::world::EventStream,
        open: &mut Open,
    ) -> Wake {
        let until = self.next_time();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Wake::Shutdown,
            Some(inner) = self.told.recv() => Wake::Inner(inner),
            ask = self.mail.asks.recv(), if open.asks => match ask {
                Some(ask) => Wake::Ask(ask),
                None => { open.asks = false; Wake::Time }
            },
            sources = self.mail.sources.recv(), if open.sources => match sources {
                Some(sources) => Wake::Sources(sources),
                None => { open.sources = false; Wake::Time }
            },
            settings = self.mail.settings.recv(), if open.settings => match settings {
                Some(settings) => Wake::Settings(Box::new(settings)),
                None => { open.settings = false; Wake::Time }
            },
            Some(event) = events.next() => Wake::Engine(event),
            () = tokio::time::sleep_until(until) => Wake::Time,
        }
    }

    async fn heed(&mut self, wake: Wake) {
        match wake {
            Wake::Shutdown | Wake::Time => (),
            Wake::Inner(inner) => self.told(inner),
            Wake::Ask(ask) => self.answer(ask).await,
            Wake::Sources(sources) => {
                let before = self.sources.as_ref().map(|sources| &sources.revision);
                if before.is_some_and(|before| *before != sources.revision) {
                    // Each of them says which one it is from.
                    self.dirty.extend(self.live.keys().cloned());
                }
                self.sources = Some(sources);
                // Who is just being admitted has its workspace, whoever else now names it.
                self.dirty.extend(self.index.busy.iter().cloned());
                self.reconsider();
            }
            Wake::Settings(settings) => {
                self.settings = *settings;
                self.doors.lanes.rooms.set_floor(self.settings.policy.min_free);
                self.reconsider();
                self.dirty.extend(self.live.keys().cloned());
            }
            Wake::Engine(event) => self.engine_event(event),
        }
    }

    fn told(&mut self, inner: Inner) {
        match inner {
            Inner::Observed { number, took, full } => self.observed(number, took, *full),
            Inner::Looked { name, one, began } => {
                let missed = self.live.get_mut(&name).and_then(|live| {
                    live.looked_at = false;
                    // Else it is looked at when its runner is done.
                    live.main.is_none().then(|| std::mem::take(&mut live.missed))
                });
                // A look from before the last steps tells nothing of after them.
                let stale = self
                    .live
                    .get(&name)
                    .is_some_and(|live| live.touched_at.is_some_and(|at| began < at));
                if stale {
                    let ids = one.containers.into_keys();
                    self.look_at(&name, ids.chain(missed.into_iter().flatten()).collect());
                } else {
                    self.looked(&name, one);
                    self.look_at(&name, missed.unwrap_or_default());
                }
            }
            Inner::Ran { name, ran, one } => self.ran(&name, &ran, one),
            Inner::Synced { name, error } => self.synced(&name, error),
            Inner::Step { name } => {
                self.dirty.insert(name);
            }
            Inner::Used { name, id, started_at, used } => {
                let now = self.doors.clock.now();
                let live = self.live.get_mut(&name);
                if let Some(idler) = live.and_then(|live| live.idler.as_mut())
                    && (&idler.watched.id, idler.watched.started_at) == (&id, started_at)
                {
                    idler.used_at = Instant::now();
                    idler.used = (used, now);
                    self.dirty.insert(name);
                }
            }
            Inner::Moved { name } => self.publish(&BTreeSet::from([name])),
            Inner::Health { name, id, started_at, health } => {
                let Some(live) = self.live.get_mut(&name) else { return };
                let Some(prober) = &mut live.prober else { return };
                if prober.target.id == id && prober.target.started_at == started_at {
                    prober.health = health;
                    self.dirty.insert(name);
                }
            }
        }
    }

    fn engine_event(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::Relist => {
                self.doors.meter.count(Count::EventStreams, "", 1);
                self.look_again = true;
            }
            EngineEvent::Gone(why) => {
                tracing::warn!(%why, "the engine's events ended");
                self.look_again = true;
            }
            EngineEvent::Container { id, session, action } => {
                if action.starts_with("exec_") || action == "top" {
                    return;
                }
                let known = self.containers.get(&id).map(|c| c.session.clone()).or(session);
                match known {
                    Some(name) if self.live.get(&name).is_some_and(|l| l.main.is_none()) => {
                        self.look_at(&name, BTreeSet::from([id]));
                    }
                    // It is looked at when its runner is done.
                    Some(name) if self.live.contains_key(&name) => {
                        if let Some(live) = self.live.get_mut(&name) {
                            live.missed.insert(id);
                        }
                    }
                    _ => self.look_again = true,
                }
            }
        }
    }

    /// A complete look is begun when one is due and none is under way.
    fn look_if_due(&mut self) {
        let due = self.look_again || Instant::now() >= self.next_look;
        let blocked = self.look_failures > 0 && Instant::now() < self.next_look;
        if self.looking || !due || blocked {
            return;
        }
        self.looking = true;
        self.look_again = false;
        self.looks += 1;
        let number = self.looks;
        let doors = Arc::clone(&self.doors);
        let known = self.containers.known();
        let places = self
            .live
            .iter()
            .filter_map(|(name, live)| {
                let record = live.session.record.as_ref()?;
                Some((name.clone(), (record.user.clone(), record.case.clone())))
            })
            .collect();
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let full = crate::observe::full(&doors.engine, &doors.workspaces, places, &known).await;
            let took = began.elapsed();
            let _loop_is_gone = tell.send(Inner::Observed { number, took, full: Box::new(full) });
        });
    }

    /// What was kept in the trash for its time goes, now and then.
    fn sweep_if_due(&mut self) {
        if Instant::now() < self.next_sweep {
            return;
        }
        self.next_sweep = Instant::now() + SWEEP;
        let doors = Arc::clone(&self.doors);
        let keep = self.settings.trash_keep;
        tokio::spawn(async move {
            if let Err(error) = crate::apply::sweep_trash(&doors, keep).await {
                tracing::warn!(%error, "the trash was not swept");
            }
        });
    }

    /// Backlogs are drained in tasks of their own.
    fn prefetch_if_wanted(&self) {
        for name in &self.index.backlogs {
            let live = self.live.get(name);
            let Some(record) = live.and_then(|live| live.session.record.as_ref()) else { continue };
            let doors = Arc::clone(&self.doors);
            tokio::spawn(crate::apply::prefetch(doors, record.uid.clone()));
        }
    }

    /// These containers of a session are looked at: now, or, all at once, after the look that is
    /// under way. So however many events there are, looks are few.
    fn look_at(&mut self, name: &SessionName, ids: BTreeSet<ContainerId>) {
        let Some(live) = self.live.get_mut(name).filter(|_| !ids.is_empty()) else { return };
        if live.looked_at {
            live.missed.extend(ids);
            return;
        }
        live.looked_at = true;
        let doors = Arc::clone(&self.doors);
        let tell = self.tell.clone();
        let turns = Arc::clone(&self.turns);
        let name = name.clone();
        tokio::spawn(async move {
            // Nobody closes it.
            let _turn = turns.acquire().await;
            let began = Instant::now();
            let ids = ids.into_iter().collect();
            let one = crate::observe::one(&doors.engine, &doors.workspaces, ids, None).await;
            let _loop_is_gone = tell.send(Inner::Looked { name, one, began });
        });
    }

    /// The earliest time at which something may change without being told.
    fn next_time(&self) -> Instant {
        let now = Instant::now();
        let wall = self.doors.clock.now();
        let mut next = now + self.settings.tick;
        if !self.looking {
            next = next.min(self.next_look.max(now));
        }
        if let Some(at) = self.index.next(wall, now) {
            next = next.min(at);
        }
        if !self.dirty.is_empty() {
            next = now;
        }
        next.max(now + Duration::from_millis(1))
    }

    /// Says goodbye: runners finish their step and stop before the next.
    async fn finish(mut self) {
        tracing::info!("shutting down; containers are left running");
        for live in self.live.values() {
            if let Some(cancel) = &live.main {
                cancel.cancel();
            }
            if let Some(record) = live.session.record.as_ref().filter(|_| live.files) {
                self.doors.lanes.interrupt(&record.uid);
            }
        }
        self.keep_transitions().await;
        if let Err(error) = self.doors.book.keep_events().await {
            tracing::warn!(%error, "the last events were not kept");
        }
        let deadline = Instant::now() + Duration::from_secs(7);
        while self.live.values().any(|live| live.main.is_some() || live.files) {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!("a step was still under way; it is found again at the next start");
                    return;
                }
                Some(inner) = self.told.recv() => match inner {
                    Inner::Ran { name, .. } => {
                        if let Some(live) = self.live.get_mut(&name) { live.main = None; }
                    }
                    Inner::Synced { name, .. } => {
                        if let Some(live) = self.live.get_mut(&name) { live.files = false; }
                    }
                    _ => (),
                },
            }
        }
    }
}

/// What both clocks said last.
#[derive(Debug, Default)]
struct Clocks(Option<(Timestamp, Instant)>);

impl Clocks {
    /// Whether the wall clock went another way than time did since it was asked last.
    fn jumped(&mut self, wall: Timestamp, now: Instant) -> bool {
        let before = self.0.replace((wall, now));
        let Some((then, at)) = before else { return false };
        let passed = chrono::TimeDelta::from_std(now - at).unwrap_or(chrono::TimeDelta::MAX);
        (wall - then - passed).abs() > chrono::TimeDelta::seconds(1)
    }
}

/// Which channels are still open.
#[derive(Debug)]
struct Open {
    sources: bool,
    settings: bool,
    asks: bool,
}

/// Who waits for a sync: whether for the next one, and where the answer goes.
type Waiter = (bool, tokio::sync::oneshot::Sender<handle::Answer<String>>);

/// The ring of past events, shared with the API.
pub type Past = Arc<Mutex<VecDeque<Event>>>;
/// Events as they happen.
pub type LiveEvents = broadcast::Sender<Event>;

/// The steps of a plan that the main runner takes, and whether a background sync is among them.
fn lanes(actions: &[Action]) -> (Vec<Action>, bool) {
    let is_background =
        |a: &Action| matches!(a, Action::Sync { kind: crate::model::SyncKind::Background });
    let only = actions.iter().all(is_background);
    // Between other steps a background sync keeps its place: a replacement syncs before it
    // removes.
    let last = actions.last().is_some_and(is_background);
    match (only, last) {
        (true, _) => (Vec::new(), !actions.is_empty()),
        (false, true) => (actions[..actions.len() - 1].to_vec(), true),
        (false, false) => (actions.to_vec(), false),
    }
}
