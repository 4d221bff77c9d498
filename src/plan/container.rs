//! The container itself: make, start, watch, start again, replace, take down.

use std::time::Duration;

use crate::model::{
    Action, Container, ContainerDetail, ContainerState, Health, Network, OnFailure, Operation,
    Phase, Reason, Record, RestartPolicy, SessionPlan, SyncKind, Target, Termination, Timestamp,
    UpdateStrategy, many,
};

use super::keep::{blocked, delta, short_of_space, wake};
use super::scarce::Scarce;
use super::{Closed, View, held, queued, steps};

/// How often a new spec may end before it was ready until it is rolled back.
const ENDS_BEFORE_ROLLBACK: u32 = 3;
/// How often limits may fail to change in place until the container is replaced.
const UPDATES_BEFORE_REPLACEMENT: u32 = 3;
/// A session with this many failures in a row is in a crash loop.
const CRASH_LOOP: u32 = 3;

/// The containers of one uid: the newest, and those that an interrupted replacement left.
#[derive(Debug)]
pub(super) struct Own<'a> {
    pub(super) current: Option<&'a Container>,
    pub(super) left_over: Vec<&'a Container>,
}

impl<'a> Own<'a> {
    pub(super) fn of(record: &Record, containers: &'a [Container]) -> Own<'a> {
        let mut all: Vec<&Container> = containers.iter().filter(|c| c.uid == record.uid).collect();
        all.sort_by_key(|c| c.attempt);
        Own { current: all.pop(), left_over: all }
    }

    fn all(&self) -> impl Iterator<Item = &'a Container> + '_ {
        self.left_over.iter().copied().chain(self.current)
    }
}

/// What a container of the spec in force is marked with; `None`: its image is not resolved yet.
pub fn expected_hash(record: &Record) -> Option<String> {
    let applied = &record.applied;
    let image = applied.image.as_ref()?;
    Some(crate::spec::fingerprint(&applied.resolved, &image.id, record.port))
}

/// Whether what answers in a container makes its session ready: one of an earlier spec does not, or
/// the last good spec would be forgotten.
pub(super) fn is_of_spec(record: &Record, container: &Container) -> bool {
    record.applied.resolved.update.strategy == UpdateStrategy::Never
        || expected_hash(record).is_some_and(|hash| hash == container.spec_hash)
}

/// Stops what runs, syncs what it left (by checksum), removes all. The order that loses nothing;
/// a store that fails holds up the removal and never the stop.
pub(super) fn take_down(
    view: &View<'_>,
    own: &Own<'_>,
    actions: &mut Vec<Action>,
) -> Result<(), Closed> {
    let alive: Vec<&Container> = own.all().filter(|c| is_alive(c)).collect();
    if !alive.is_empty() {
        view.gate(Operation::Stop)?;
        sync_before_stop(view, &alive, actions);
        actions.extend(alive.iter().map(|c| stop(view, c, Reason::Requested)));
    }
    let wrote = own.current.is_some_and(|c| c.state != ContainerState::Created);
    if wrote && can_sync(view) {
        view.gate(Operation::Sync)?;
        actions.push(Action::Sync { kind: SyncKind::Final });
    }
    if own.current.is_some() {
        view.gate(Operation::Remove)?;
    }
    let there = own.all().filter(|c| c.state != ContainerState::Removing);
    actions.extend(there.map(remove));
    Ok(())
}

/// One attempt while it still runs, if the store is not known to fail.
fn sync_before_stop(view: &View<'_>, alive: &[&Container], actions: &mut Vec<Action>) {
    let runs = alive.iter().any(|c| c.state == ContainerState::Running);
    if runs && can_sync(view) && view.gate(Operation::Sync).is_ok() {
        actions.push(Action::Sync { kind: SyncKind::PreStop });
    }
}

fn can_sync(view: &View<'_>) -> bool {
    view.record.has_files()
}

pub(super) fn is_alive(container: &Container) -> bool {
    matches!(
        container.state,
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting
    )
}

pub(super) fn stop(view: &View<'_>, container: &Container, reason: Reason) -> Action {
    Action::StopContainer {
        id: container.id.clone(),
        attempt: container.attempt,
        grace: view.record.applied.resolved.container.stop_grace,
        reason,
    }
}

pub(super) fn remove(container: &Container) -> Action {
    Action::RemoveContainer {
        id: container.id.clone(),
        attempt: container.attempt,
        started_at: last_start(container),
    }
}

/// When it was last started, as far as that was seen.
pub(super) fn last_start(container: &Container) -> Option<Timestamp> {
    container.detail.as_ref().and_then(|detail| detail.started_at)
}

/// The first closed gate among the operations of these steps.
pub(super) fn gate_of(view: &View<'_>, actions: &[Action]) -> Result<(), Closed> {
    for action in actions {
        let operation = match action {
            Action::StopContainer { .. } => Operation::Stop,
            Action::RemoveContainer { .. } => Operation::Remove,
            Action::Sync { kind: SyncKind::Final } => Operation::Sync,
            _ => continue,
        };
        view.gate(operation)?;
    }
    Ok(())
}

/// The container of a session that should run. `actions` are the steps it needs before.
pub(super) fn run(
    view: &View<'_>,
    scarce: &mut Scarce,
    own: &Own<'_>,
    mut actions: Vec<Action>,
) -> SessionPlan {
    let mut old = Vec::new();
    for container in &own.left_over {
        if is_alive(container) {
            old.push(stop(view, container, Reason::Requested));
        }
        if container.state != ContainerState::Removing {
            old.push(remove(container));
        }
    }
    if let Err(closed) = gate_of(view, &old) {
        return meanwhile(view, own, blocked(Phase::Updating, &closed));
    }
    actions.extend(old);
    let Some(current) = own.current else {
        if view.record.ready_since.is_some() {
            actions.push(Action::NoteNotReady);
        }
        return make(view, scarce, actions, "there is no container");
    };
    if let Some(cause) = must_be_replaced(view, current, &actions) {
        return replace(view, scarce, own, actions, cause);
    }
    let runs = matches!(current.state, ContainerState::Running | ContainerState::Restarting);
    if expected_hash(view.record).is_none() && !runs {
        return steps(Phase::Preparing, "its image is not resolved yet", actions);
    }
    match current.state {
        ContainerState::Created => start(view, scarce, current, actions, false),
        ContainerState::Running | ContainerState::Restarting => watch(view, current, actions),
        ContainerState::Paused => paused(view, current, actions),
        ContainerState::Exited => ended(view, scarce, current, actions),
        ContainerState::Removing => {
            let mut plan = steps(Phase::Preparing, "its container is being removed", actions);
            wake(&mut plan, view.now().checked_add_signed(delta(Duration::from_secs(1))));
            plan
        }
        ContainerState::Dead => {
            actions.push(remove(current));
            make(view, scarce, actions, "the engine left a dead container")
        }
    }
}

/// Why the container cannot stay, if it cannot.
fn must_be_replaced(
    view: &View<'_>,
    current: &Container,
    before: &[Action],
) -> Option<&'static str> {
    let record = view.record;
    let resolves = before.iter().any(|a| matches!(a, Action::ResolveImage { .. }));
    if record.applied.image.is_none() && !resolves {
        // Its successor cannot be made.
        return None;
    }
    if record.restart_after.is_some_and(|attempt| current.attempt <= attempt) {
        return Some("a restart was asked for");
    }
    if before.iter().any(|a| matches!(a, Action::LeasePort { .. })) {
        return Some("its port changed");
    }
    if is_cut_off(view, current) {
        return Some("it was taken off its network");
    }
    // The image will be resolved in this very plan: only then can it be told.
    let expected = expected_hash(record)?;
    let strategy = record.applied.resolved.update.strategy;
    if current.spec_hash != expected {
        return match strategy {
            UpdateStrategy::Never if is_alive(current) => None,
            _ => Some("its spec changed"),
        };
    }
    if !limits_differ(view, current) {
        return None;
    }
    match (strategy, record.failures.get(&Operation::Update)) {
        (UpdateStrategy::Recreate, _) => Some("its limits changed"),
        (UpdateStrategy::InPlaceOrRecreate, Some(failure))
            if failure.terminal || failure.count >= UPDATES_BEFORE_REPLACEMENT =>
        {
            Some("its limits cannot be changed in place")
        }
        _ => None,
    }
}

/// It runs without an address and without its port, and starting it again did not help: somebody
/// disconnected it, and no start brings that back. The failed run paces its successors.
fn is_cut_off(view: &View<'_>, current: &Container) -> bool {
    let record = view.record;
    let wanted = &record.applied.resolved.container;
    let publishes = wanted.port != 0 && matches!(wanted.network, Network::Docket | Network::Bridge);
    let failed = record.failures.contains_key(&Operation::Run) && record.ready_since.is_none();
    let bare = |detail: &ContainerDetail| detail.published.is_none() && detail.inner.is_none();
    publishes
        && failed
        && current.state == ContainerState::Running
        && current.detail.as_ref().is_some_and(bare)
}

fn limits_differ(view: &View<'_>, current: &Container) -> bool {
    let wanted = view.record.applied.resolved.container.resources;
    current.detail.as_ref().is_some_and(|detail| detail.resources != wanted)
}

/// A new container in place of the one that is there. What runs is not taken down before the new
/// one may be made.
fn replace(
    view: &View<'_>,
    scarce: &mut Scarce,
    own: &Own<'_>,
    mut actions: Vec<Action>,
    cause: &str,
) -> SessionPlan {
    let mut made = make(view, scarce, actions.clone(), cause);
    let creates = |action: &Action| matches!(action, Action::CreateContainer { .. });
    let Some(first) = made.actions.iter().position(creates) else {
        let runs = own.current.is_some_and(is_alive);
        if made.phase == Phase::Pending && runs {
            made.phase = Phase::Updating;
        }
        return meanwhile(view, own, made);
    };
    let alive: Vec<&Container> = own.current.into_iter().filter(|c| is_alive(c)).collect();
    sync_before_stop(view, &alive, &mut actions);
    actions.extend(alive.iter().map(|c| stop(view, c, Reason::Updating)));
    actions.extend(own.current.filter(|c| c.state != ContainerState::Removing).map(remove));
    if let Err(closed) = gate_of(view, &actions) {
        return meanwhile(view, own, blocked(Phase::Updating, &closed));
    }
    actions.extend(made.actions.drain(first..));
    SessionPlan { phase: Phase::Updating, actions, ..made }
}

/// Something stands in the way of what is wanted: what runs is watched on.
pub(super) fn meanwhile(view: &View<'_>, own: &Own<'_>, waits: SessionPlan) -> SessionPlan {
    let Some(current) = own.current.filter(|c| c.state == ContainerState::Running) else {
        return waits;
    };
    let rolls_back = waits.actions.iter().any(|a| matches!(a, Action::RollBack { .. }));
    if rolls_back {
        return waits;
    }
    let watched = watch(view, current, waits.actions);
    let phase = match (watched.phase, waits.phase) {
        (Phase::Running, Phase::Updating) => Phase::Updating,
        (Phase::Running, Phase::Unknown) => Phase::Unknown,
        (Phase::Running, _) => Phase::Degraded,
        (phase, _) => phase,
    };
    let mut plan = SessionPlan { phase, actions: watched.actions, ..waits };
    wake(&mut plan, watched.wake_at);
    plan
}

/// Makes and starts a container.
fn make(
    view: &View<'_>,
    scarce: &mut Scarce,
    mut actions: Vec<Action>,
    cause: &str,
) -> SessionPlan {
    if let Err(closed) = view
        .gate(Operation::Create)
        .and_then(|()| view.gate(Operation::Start))
        .and_then(|()| view.gate(Operation::Run))
    {
        let phase = match view.record.failures.get(&Operation::Run) {
            Some(failure) if failure.count >= CRASH_LOOP => Phase::CrashLoop,
            _ => Phase::Starting,
        };
        let mut plan = give_up_or_wait(view, &closed, phase);
        plan.actions.splice(0..0, actions);
        return plan;
    }
    if let Err(full) = scarce.keep_place(view.input.policy, &view.record.name) {
        return queued(&full, actions);
    }
    if let Some(short) = short_of_space(view) {
        return SessionPlan { actions, ..short };
    }
    if let Err(full) = scarce.take_start(view.input.policy, &view.record.name) {
        return queued(&full, actions);
    }
    let port = actions
        .iter()
        .rev()
        .find_map(|action| match action {
            Action::LeasePort { port, .. } => Some(*port),
            _ => None,
        })
        .or(view.record.port)
        .filter(|_| view.record.applied.resolved.container.port != 0);
    actions.push(Action::CreateContainer { attempt: next_attempt(view.record), port });
    actions.push(Action::StartContainer { target: Target::Made, restart: false });
    steps(Phase::Starting, cause, actions)
}

/// The number of the next container. One whose creation was begun and never seen keeps its
/// number: should it appear late, its name is taken and it is found.
fn next_attempt(record: &Record) -> u32 {
    match &record.intent {
        Some(intent) if intent.operation == Operation::Create => intent.attempt,
        _ => record.attempt + 1,
    }
}

fn start(
    view: &View<'_>,
    scarce: &mut Scarce,
    current: &Container,
    mut actions: Vec<Action>,
    restart: bool,
) -> SessionPlan {
    if let Err(closed) = view.gate(Operation::Start) {
        return give_up_or_wait(view, &closed, Phase::Starting);
    }
    if let Err(full) = scarce.keep_place(view.input.policy, &view.record.name) {
        return queued(&full, actions);
    }
    if !restart && let Some(short) = short_of_space(view) {
        return SessionPlan { actions, ..short };
    }
    if let Err(full) = scarce.take_start(view.input.policy, &view.record.name) {
        return queued(&full, actions);
    }
    actions.push(Action::StartContainer { target: Target::Seen(current.id.clone()), restart });
    let phase = if restart { Phase::Restarting } else { Phase::Starting };
    steps(phase, if restart { "it ended" } else { "its container is made" }, actions)
}

/// A closed gate: back to the last good spec if the new one cannot get ready, else wait.
fn give_up_or_wait(view: &View<'_>, closed: &Closed, phase: Phase) -> SessionPlan {
    let tried = [Operation::Create, Operation::Start, Operation::Run]
        .iter()
        .filter_map(|op| view.record.failures.get(op))
        .filter(|failure| !failure.reason.is_circumstance())
        .map(|failure| failure.count)
        .max()
        .unwrap_or_default();
    let hopeless = closed.until.is_none()
        || closed.reason == Reason::StartupTimeout
        || tried >= ENDS_BEFORE_ROLLBACK;
    if hopeless && may_roll_back(view.record) {
        return roll_back(closed.reason, &closed.message);
    }
    let phase = if closed.until.is_none() { Phase::Failed } else { phase };
    blocked(phase, closed)
}

fn roll_back(reason: Reason, message: &str) -> SessionPlan {
    let message = format!("{reason}: {message}");
    steps(Phase::Updating, "the new spec never got ready", vec![Action::RollBack { message }])
}

pub(super) fn may_roll_back(record: &Record) -> bool {
    record.last_good.is_some()
        && record.ready_generation < record.applied.generation
        && record.applied.resolved.update.on_failure == OnFailure::Rollback
}

/// Somebody froze it: thawed, unless docket did it and the cause stands.
fn paused(view: &View<'_>, current: &Container, mut actions: Vec<Action>) -> SessionPlan {
    if view.record.paused == Some(Reason::DiskPressure)
        && let Some(pressed) = disk_pressure(view)
    {
        return SessionPlan { actions, ..pressed };
    }
    if let Err(closed) = view.gate(Operation::Update) {
        return blocked(Phase::Degraded, &closed);
    }
    actions.push(Action::UnpauseContainer { id: current.id.clone() });
    steps(Phase::Degraded, "its container is paused", actions)
}

/// Why docket itself keeps it from writing on, if so.
fn disk_pressure(view: &View<'_>) -> Option<SessionPlan> {
    let why = view.room().pressure()?;
    Some(held(Phase::Degraded, Reason::DiskPressure, why))
}

/// It runs: in place changes, then health.
fn watch(view: &View<'_>, current: &Container, mut actions: Vec<Action>) -> SessionPlan {
    let record = view.record;
    let Some(detail) = &current.detail else {
        let phase = match record.ready_since {
            Some(_) => Phase::Running,
            None => Phase::Starting,
        };
        return steps(phase, "its container was not inspected yet", actions);
    };
    let wanted = record.applied.resolved.container.resources;
    let in_place = record.applied.resolved.update.strategy == UpdateStrategy::InPlaceOrRecreate;
    let pressed = disk_pressure(view);
    let resizes = detail.resources != wanted && in_place;
    let mut again = None;
    match view.gate(Operation::Update) {
        Ok(()) => {
            let id = current.id.clone();
            if let Some(pressed) = pressed {
                actions.push(Action::PauseContainer { id, reason: Reason::DiskPressure });
                return SessionPlan { actions, ..pressed };
            }
            if resizes {
                actions.push(Action::UpdateResources { id, resources: wanted });
            }
        }
        Err(closed) if resizes || pressed.is_some() => again = closed.until,
        Err(_) => (),
    }
    let mut plan = health(view, current, detail, actions);
    wake(&mut plan, again);
    plan
}

fn health(
    view: &View<'_>,
    current: &Container,
    detail: &ContainerDetail,
    mut actions: Vec<Action>,
) -> SessionPlan {
    let record = view.record;
    let spec = &record.applied.resolved;
    let has_probe = spec.container.port != 0;
    let bound = !has_probe || detail.published.is_some();
    // A start after it was ready is somebody else's: it has its startup budget anew.
    let again = |since| detail.started_at.is_some_and(|started| started > since);
    let was_ready = record.ready_since.is_some_and(|since| !again(since));
    match &view.one.health {
        _ if !has_probe => ready(view, current, actions),
        Health::Passing if bound => ready(view, current, actions),
        Health::Passing => {
            steps(Phase::Starting, "its port is not published as the engine sees it", actions)
        }
        Health::Failing { count, message } if was_ready && *count >= spec.health.failures => {
            if let Err(closed) = view.gate(Operation::Stop) {
                return SessionPlan { actions, ..blocked(Phase::Degraded, &closed) };
            }
            actions.push(stop(view, current, Reason::Unhealthy));
            steps(
                Phase::Restarting,
                format!("{} failed: {message}", many(*count, "probe")),
                actions,
            )
        }
        Health::Failing { message, .. } if was_ready => {
            steps(Phase::Degraded, format!("a probe failed: {message}"), actions)
        }
        Health::Unknown if was_ready => {
            steps(Phase::Running, "its health is not known yet", actions)
        }
        seen => {
            if record.ready_since.is_some() {
                actions.push(Action::NoteNotReady);
            }
            starting(view, current, seen, actions)
        }
    }
}

/// Started, and no 200 yet: within its budget it is left alone.
fn starting(
    view: &View<'_>,
    current: &Container,
    seen: &Health,
    mut actions: Vec<Action>,
) -> SessionPlan {
    let budget = view.record.applied.resolved.health.startup;
    if view.one.probed_for < budget {
        let mut plan = steps(Phase::Starting, "its container has not answered yet", actions);
        let left = budget.saturating_sub(view.one.probed_for);
        wake(&mut plan, view.now().checked_add_signed(delta(left)));
        return plan;
    }
    let last = match seen {
        Health::Failing { message, .. } => message.clone(),
        Health::Unknown | Health::Passing => "no probe was answered".to_owned(),
    };
    let message = format!("no 200 within {}s: {last}", budget.as_secs());
    if let Err(closed) = view.gate(Operation::Stop) {
        return SessionPlan { actions, ..blocked(Phase::Restarting, &closed) };
    }
    actions.push(stop(view, current, Reason::StartupTimeout));
    SessionPlan { actions, ..held(Phase::Restarting, Reason::StartupTimeout, message) }
}

fn ready(view: &View<'_>, current: &Container, mut actions: Vec<Action>) -> SessionPlan {
    let record = view.record;
    let generation = record.applied.generation;
    let since = record.ready_since;
    if is_of_spec(record, current) && (since.is_none() || record.ready_generation != generation) {
        actions.push(Action::NoteReady { generation });
    }
    let mut plan = steps(Phase::Running, "", actions);
    let reset = delta(record.applied.resolved.restart.reset_after);
    if record.failures.contains_key(&Operation::Run)
        && let Some(since) = since
    {
        match since.checked_add_signed(reset) {
            Some(at) if at <= view.now() => {
                plan.actions.push(Action::ClearFailures { operation: Operation::Run });
            }
            at => wake(&mut plan, at),
        }
    }
    plan
}

/// PID 1 ended: first the fact, then, after its time, another start by the policy.
fn ended(
    view: &View<'_>,
    scarce: &mut Scarce,
    current: &Container,
    mut actions: Vec<Action>,
) -> SessionPlan {
    let record = view.record;
    let Some(detail) = &current.detail else {
        return steps(Phase::Restarting, "its container was not inspected yet", actions);
    };
    let noted = record
        .last_termination
        .as_ref()
        .filter(|end| end.attempt == current.attempt && end.finished_at == detail.finished_at);
    let Some(end) = noted else {
        let end = classify_end(record, current, detail, view.input.engine_started);
        actions.extend(note_end(record, end));
        return steps(Phase::Restarting, "it ended", actions);
    };
    let policy = record.applied.resolved.restart.policy;
    let failed = end.reason != Reason::Completed;
    let again = match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => failed,
        RestartPolicy::Never => matches!(end.reason, Reason::EngineRestart | Reason::Requested),
    };
    let tries = record.failures.get(&Operation::Run).map_or(0, |failure| failure.count);
    let hopeless = !again || end.reason == Reason::StartupTimeout || tries >= ENDS_BEFORE_ROLLBACK;
    if hopeless && may_roll_back(record) {
        let message = record.failures.get(&Operation::Run).map(|failure| failure.message.as_str());
        return roll_back(end.reason, message.unwrap_or("it ended"));
    }
    if !again {
        let phase = if failed { Phase::Failed } else { Phase::Stopped };
        let message = format!("its restart policy is {policy:?}");
        return SessionPlan { actions, ..held(phase, end.reason, message) };
    }
    if let Err(closed) = view.gate(Operation::Run) {
        let loops = record.failures.get(&Operation::Run).is_some_and(|f| f.count >= CRASH_LOOP);
        let phase = if loops { Phase::CrashLoop } else { Phase::Restarting };
        return give_up_or_wait(view, &closed, phase);
    }
    start(view, scarce, current, actions, true)
}

/// What is written down about an end, before anything is done about it.
fn note_end(record: &Record, end: Termination) -> Vec<Action> {
    let mut actions = Vec::new();
    let counted = !matches!(end.reason, Reason::Requested | Reason::EngineRestart);
    let message = match end.exit_code {
        Some(code) => format!("ended with exit code {code}"),
        None => "ended".to_owned(),
    };
    // Under an init, a command that cannot be executed starts well and ends with these codes.
    let cannot_run = matches!(end.exit_code, Some(126 | 127))
        && record.ready_generation < record.applied.generation;
    let reason = if cannot_run { Reason::CommandInvalid } else { end.reason };
    actions.push(Action::NoteTermination(end));
    if counted {
        actions.push(Action::NoteFailure {
            operation: Operation::Run,
            reason,
            message,
            terminal: cannot_run,
        });
    }
    actions
}

/// Why PID 1 ended, as truthfully as it can be told. Source: DOCKER, "Exits".
pub fn classify_end(
    record: &Record,
    container: &Container,
    detail: &ContainerDetail,
    engine_started: Option<Timestamp>,
) -> Termination {
    let asked = record
        .intent
        .as_ref()
        .filter(|i| i.operation == Operation::Stop && i.attempt == container.attempt)
        // A stop asked for before this start is an old story.
        .filter(|i| detail.started_at.is_none_or(|started| started <= i.at))
        .map(|intent| match intent.reason {
            reason @ (Reason::Unhealthy | Reason::StartupTimeout) => reason,
            _ => Reason::Requested,
        });
    let by_engine = engine_started.is_some_and(|began| {
        detail.started_at.is_some_and(|started| started < began)
            && detail.finished_at.is_none_or(|end| {
                end <= began.checked_add_signed(chrono::TimeDelta::seconds(30)).unwrap_or(end)
            })
    });
    let reason = match (asked, detail.exit_code) {
        (Some(reason), _) => reason,
        (None, _) if detail.oom_killed => Reason::OutOfMemory,
        (None, _) if by_engine => Reason::EngineRestart,
        (None, Some(0)) => Reason::Completed,
        (None, Some(137)) => Reason::Killed,
        (None, _) => Reason::Error,
    };
    Termination {
        attempt: container.attempt,
        reason,
        exit_code: detail.exit_code,
        finished_at: detail.finished_at,
    }
}
