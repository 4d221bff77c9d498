//! A session that is wanted (or held as it was): which spec is in force, and the steps from what
//! is there to what that spec says.

use crate::model::{
    Action, Applied, ClassName, Container, ContainerState, DesiredState, Look, Network, Operation,
    Phase, Reason, Record, Rollout, SessionPlan, SyncKind, Timestamp,
};

use super::container::{self, Own};
use super::scarce::{NoPort, Scarce};
use super::{Closed, Session, View, Want, held, idle, steps, unseen};

/// Lifetimes that are over are ended one after the other, so far apart.
const NEXT_EXPIRY: chrono::TimeDelta = chrono::TimeDelta::seconds(1);

/// Decides for a session that is to stay.
pub(super) fn keep(view: &View<'_>, scarce: &mut Scarce) -> SessionPlan {
    let containers = match &view.one.containers {
        Look::Known(containers) => containers,
        Look::Unknown(why) => {
            // What is seen is the workspace: edits go on being stored.
            let mut plan = unseen(Phase::Unknown, why);
            add_background_sync(view, &mut plan);
            return plan;
        }
    };
    if let Some(plan) = stray(view, containers) {
        return plan;
    }
    let own = Own::of(view.record, containers);
    if let Some(adopted) = adoption(view, scarce, &own) {
        return adopted;
    }
    let mut plan = match lifecycle(view, scarce) {
        Lifecycle::Suspended => idle(Phase::Suspended, "left alone on request"),
        Lifecycle::Stopped(reason) => stopped(view, &own, reason),
        Lifecycle::Expired(reason) => {
            steps(Phase::Stopped, format!("{reason}"), vec![Action::Retire { reason }])
        }
        Lifecycle::Running => {
            let mut plan = running(view, scarce, &own);
            wake_at_its_end(view, &mut plan);
            plan
        }
    };
    add_background_sync(view, &mut plan);
    plan
}

/// A container of another uid under this session's name: its record is lost, and with it what it
/// was for. It is stopped and removed; the files are this session's.
fn stray(view: &View<'_>, containers: &[Container]) -> Option<SessionPlan> {
    let stray = containers.iter().find(|c| c.uid != view.record.uid)?;
    let cause = format!("container {} is of an earlier session of this name", stray.name);
    let mut actions = Vec::new();
    if matches!(stray.state, ContainerState::Running | ContainerState::Paused) {
        actions.push(Action::StopContainer {
            id: stray.id.clone(),
            attempt: stray.attempt,
            grace: view.record.applied.resolved.container.stop_grace,
            reason: Reason::Requested,
        });
    }
    if stray.state != ContainerState::Removing {
        actions.push(container::remove(stray));
    }
    if let Err(closed) = container::gate_of(view, &actions) {
        return Some(blocked(Phase::Preparing, &closed));
    }
    Some(steps(Phase::Preparing, cause, actions))
}

enum Lifecycle {
    Running,
    Stopped(Reason),
    Expired(Reason),
    Suspended,
}

fn lifecycle(view: &View<'_>, scarce: &mut Scarce) -> Lifecycle {
    let record = view.record;
    if record.wanted_suspend() {
        return Lifecycle::Suspended;
    }
    if record.wanted_state() == DesiredState::Stopped {
        return Lifecycle::Stopped(Reason::Stopped);
    }
    if let Some(retired) = &record.retired {
        return Lifecycle::Stopped(retired.reason);
    }
    if expiry(view).is_some_and(|over| over <= view.now()) && scarce.take_expiry() {
        return Lifecycle::Expired(Reason::Expired);
    }
    let quiet = record.applied.resolved.lifetime.idle_timeout;
    if !quiet.is_zero() && view.one.idle_for >= quiet && scarce.take_expiry() {
        return Lifecycle::Expired(Reason::Idle);
    }
    Lifecycle::Running
}

/// When its lifetime may be over, if nothing happens until then.
fn wake_at_its_end(view: &View<'_>, plan: &mut SessionPlan) {
    let soon = view.now() + NEXT_EXPIRY;
    wake(plan, expiry(view).map(|over| over.max(soon)));
    let quiet = view.record.applied.resolved.lifetime.idle_timeout;
    if !quiet.is_zero() && !view.one.idle_for.is_zero() {
        let left = quiet.saturating_sub(view.one.idle_for);
        wake(plan, view.now().checked_add_signed(delta(left)).map(|over| over.max(soon)));
    }
}

fn expiry(view: &View<'_>) -> Option<Timestamp> {
    expires_at(view.record)
}

/// When its age is over, if it has one: what waited for a place or an image did not age.
pub fn expires_at(record: &Record) -> Option<Timestamp> {
    let age = record.applied.resolved.lifetime.max_age;
    // A record of before this was noted has a container that is ready, and no such time.
    let before = || record.active_since.filter(|_| record.ready_since.is_some());
    let since = record.ran_since.or_else(before).filter(|_| !age.is_zero())?;
    since.checked_add_signed(delta(age))
}

/// A `std` duration as chrono has it; what does not fit is for ever.
pub(super) fn delta(duration: std::time::Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX)
}

/// Whether a changed spec is taken into force now.
fn adoption(view: &View<'_>, scarce: &mut Scarce, own: &Own<'_>) -> Option<SessionPlan> {
    let Want::Present { object, source, class_hash, resolved: Ok(resolved) } = &view.one.want
    else {
        return None;
    };
    if super::refusal(view.one).is_some() {
        return None;
    }
    let applied = &view.record.applied;
    let object_changed = object.hash != applied.object.hash;
    let written_anew = object.raw != applied.object.raw || *source != view.record.source;
    let class_changed = *class_hash != applied.class_hash;
    if !object_changed && !written_anew && !class_changed && !view.record.source_unseen {
        return None;
    }
    if let Some(bad) = &view.record.rolled_back
        && bad.object_hash == object.hash
        && bad.class_hash == *class_hash
        && object.state == applied.object.state
        && object.suspend == applied.object.suspend
    {
        return None;
    }
    let will_differ = **resolved != applied.resolved;
    if class_changed && !object_changed && will_differ {
        // One that a restart is asked of is about to start anew.
        let starts = own.current.is_none() || is_restart(view, own);
        let now = match resolved.update.rollout {
            Rollout::OnNextStart => starts,
            Rollout::Immediate => {
                starts
                    || scarce.take_update(
                        &resolved.class,
                        resolved.update.max_concurrent,
                        &view.record.name,
                    )
            }
        };
        if !now && !written_anew {
            return None;
        }
        if !now {
            return Some(adopt(view, applied.resolved.clone(), applied.class_hash.clone()));
        }
    }
    Some(adopt(view, (**resolved).clone(), class_hash.clone()))
}

/// The changed class that waits for its turn to come into a running session (`rollout: Immediate`),
/// as far as its sources and its record tell.
pub fn awaits_update(one: &Session) -> Option<&ClassName> {
    let (Want::Present { object, class_hash, resolved: Ok(resolved), .. }, Some(record)) =
        (&one.want, &one.record)
    else {
        return None;
    };
    let applied = &record.applied;
    let waits = *class_hash != applied.class_hash
        && object.hash == applied.object.hash
        && resolved.update.rollout == Rollout::Immediate
        && **resolved != applied.resolved;
    waits.then_some(&resolved.class)
}

/// `docket restart` is about to make a new container.
fn is_restart(view: &View<'_>, own: &Own<'_>) -> bool {
    let asked = view.record.restart_after;
    own.current.is_some_and(|current| asked.is_some_and(|attempt| current.attempt <= attempt))
}

/// The step that takes the wanted object into force.
fn adopt(view: &View<'_>, resolved: crate::model::Resolved, class_hash: String) -> SessionPlan {
    let Want::Present { object, source, .. } = &view.one.want else {
        return idle(Phase::Unknown, "");
    };
    let before = &view.record.applied;
    let same_spec =
        object.raw.get("spec") == before.object.raw.get("spec") && resolved == before.resolved;
    let same_container = object.hash == before.object.hash && resolved == before.resolved;
    let applied = Applied {
        generation: before.generation + u64::from(!same_spec),
        object: (**object).clone(),
        class_hash,
        image: if same_container { before.image.clone() } else { None },
        resolved,
    };
    let was_ready = view.record.ready_generation == before.generation;
    let cause = if same_spec { "its metadata changed" } else { "its spec changed" };
    steps(
        Phase::Updating,
        cause,
        vec![Action::Adopt {
            keep_last_good: was_ready && !same_container,
            applied: Box::new(applied),
            source: source.clone(),
        }],
    )
}

/// No container is wanted: stop, sync what it left, remove.
fn stopped(view: &View<'_>, own: &Own<'_>, reason: Reason) -> SessionPlan {
    let mut actions = Vec::new();
    if view.record.ready_since.is_some() && own.current.is_none() {
        actions.push(Action::NoteNotReady);
    }
    match container::take_down(view, own, &mut actions) {
        Ok(()) => steps(Phase::Stopped, reason.to_string(), actions),
        Err(closed) => SessionPlan { actions, ..blocked(Phase::Stopped, &closed) },
    }
}

/// A container is wanted: what it needs first, then the container itself. Where something stands
/// in the way, one that already runs goes on being watched.
fn running(view: &View<'_>, scarce: &mut Scarce, own: &Own<'_>) -> SessionPlan {
    let mut actions = Vec::new();
    let mut plan = match prepare(view, scarce, own, &mut actions) {
        Ok(()) => container::run(view, scarce, own, actions),
        Err(plan) => container::meanwhile(view, own, *plan),
    };
    // A container that runs does not show that its successor's image is waited for.
    if view.record.applied.image.is_none()
        && let Err(closed) = view.gate(Operation::Image)
    {
        wake(&mut plan, closed.until);
    }
    plan
}

/// Everything a container needs: port, image, workspace, files. The port first: a lease that
/// waits behind a long step is one that two sessions may be given. `Err` is the whole plan where
/// something stands in the way.
fn prepare(
    view: &View<'_>,
    scarce: &mut Scarce,
    own: &Own<'_>,
    actions: &mut Vec<Action>,
) -> Result<(), Box<SessionPlan>> {
    port(view, scarce, actions)?;
    image(view, own, actions)?;
    workspace(view, actions)?;
    Ok(())
}

/// The image first: who owns the workspace may depend on its `USER`, and a missing image leaves
/// no half session behind. A container that still runs goes on while its successor's image is
/// missing.
fn image(
    view: &View<'_>,
    own: &Own<'_>,
    actions: &mut Vec<Action>,
) -> Result<(), Box<SessionPlan>> {
    let applied = &view.record.applied;
    let create = view.record.failures.get(&Operation::Create);
    let vanished = own.current.is_none()
        && create.is_some_and(|failure| failure.reason == Reason::ImageMissing)
        && view.gate(Operation::Create).is_ok();
    if applied.image.is_some() && !vanished {
        return Ok(());
    }
    let Err(closed) = view.gate(Operation::Image) else {
        actions.push(Action::ResolveImage {
            reference: applied.resolved.container.image.clone(),
            policy: applied.resolved.container.pull_policy,
        });
        return Ok(());
    };
    if own.current.is_some_and(container::is_alive) {
        return Ok(());
    }
    if !closed.reason.is_circumstance() && container::may_roll_back(view.record) {
        let message = format!("{}: {}", closed.reason, closed.message);
        return Err(Box::new(steps(
            Phase::Updating,
            "the new image cannot be had",
            vec![Action::RollBack { message }],
        )));
    }
    Err(Box::new(waiting(actions, &closed)))
}

fn waiting(actions: &mut Vec<Action>, closed: &Closed) -> SessionPlan {
    let phase = if closed.until.is_some() { Phase::Preparing } else { Phase::Failed };
    SessionPlan { actions: std::mem::take(actions), ..blocked(phase, closed) }
}

fn workspace(view: &View<'_>, actions: &mut Vec<Action>) -> Result<(), Box<SessionPlan>> {
    let record = view.record;
    let seen = match &view.one.workspace {
        Look::Known(seen) => seen,
        Look::Unknown(why) => {
            let message = format!("the workspace is not seen: {why}");
            return Err(Box::new(held(Phase::Unknown, Reason::WorkspaceUnknown, message)));
        }
    };
    match (record.workspace, seen) {
        (Some(id), Some(seen)) if seen.id != id => {
            let message = "another directory stands where the workspace was";
            return Err(Box::new(held(Phase::Degraded, Reason::WorkspaceReplaced, message)));
        }
        (Some(_), None) => {
            let message = "the workspace directory is gone";
            return Err(Box::new(held(Phase::Degraded, Reason::WorkspaceMissing, message)));
        }
        (None, _) => {
            view.gate(Operation::Workspace)
                .map_err(|closed| Box::new(waiting(actions, &closed)))?;
            actions.push(Action::CreateWorkspace);
        }
        (Some(_), Some(_)) => (),
    }
    if !record.hydrated {
        if let Some(short) = short_of_space(view) {
            let actions = std::mem::take(actions);
            return Err(Box::new(SessionPlan { actions, ..short }));
        }
        view.gate(Operation::Hydrate).map_err(|closed| Box::new(waiting(actions, &closed)))?;
        actions.push(Action::Hydrate);
    }
    Ok(())
}

/// Why nothing may be hydrated or started, if the disk is nearly full.
pub(super) fn short_of_space(view: &View<'_>) -> Option<SessionPlan> {
    let space = view.input.space.known()?;
    let message = format!("{} are free, below minFree", super::room::bytes(space.free));
    view.input
        .policy
        .min_free
        .is_short(*space)
        .then(|| held(Phase::Pending, Reason::LowSpace, message))
}

fn port(
    view: &View<'_>,
    scarce: &mut Scarce,
    actions: &mut Vec<Action>,
) -> Result<(), Box<SessionPlan>> {
    let record = view.record;
    let resolved = &record.applied.resolved;
    if resolved.container.port == 0 || resolved.container.network == Network::None {
        return Ok(());
    }
    let fixed = resolved.container.host_port;
    let fits = record.port.is_some_and(|port| {
        (fixed == 0 || fixed == port) && !scarce.is_anothers(port, &record.name)
    });
    let contested = record
        .failures
        .get(&Operation::Start)
        .filter(|failure| failure.reason == Reason::PortConflict)
        .and(record.port)
        .filter(|port| view.input.quarantined(*port).is_some());
    if fits && contested.is_none() {
        return Ok(());
    }
    match scarce.take_port(view.input.policy, &record.name, resolved, contested) {
        Ok(port) => {
            actions.push(Action::LeasePort { port, instead_of: contested });
            Ok(())
        }
        Err(no_port) => {
            let (reason, message) = match no_port {
                NoPort::Exhausted => {
                    (Reason::PoolExhausted, "every port of the range is taken".to_owned())
                }
                NoPort::InUse(owner) => {
                    let by = owner.map_or("somebody else".to_owned(), |o| o.to_string());
                    (Reason::PortInUse, format!("port {fixed} is held by {by}"))
                }
            };
            let actions = std::mem::take(actions);
            let ports = view.input.quarantine.keys();
            let wake_at = ports.filter_map(|port| view.input.quarantined(*port)).min();
            Err(Box::new(SessionPlan { actions, wake_at, ..held(Phase::Pending, reason, message) }))
        }
    }
}

/// A phase that only time or a change gets out of.
pub(super) fn blocked(phase: Phase, closed: &Closed) -> SessionPlan {
    SessionPlan { wake_at: closed.until, ..held(phase, closed.reason, &closed.message) }
}

/// Edits go back to the store now and then, whatever else goes on.
fn add_background_sync(view: &View<'_>, plan: &mut SessionPlan) {
    let record = view.record;
    let there = matches!((&view.one.workspace, record.workspace),
        (Look::Known(Some(seen)), Some(id)) if seen.id == id);
    // A sync may take long: what else is to be done comes first.
    if !there || !record.hydrated || !plan.actions.iter().all(is_note) {
        return;
    }
    match view.gate(Operation::Sync) {
        Ok(()) => (),
        Err(closed) => return wake(plan, closed.until),
    }
    let interval = delta(record.applied.resolved.workspace.sync_interval);
    let last = record.last_sync.max(view.one.sync_tried);
    let due = last.and_then(|last| last.checked_add_signed(interval));
    let is_due = match (last, due) {
        (Some(last), Some(due)) => due <= view.now() || last > view.now(),
        (None, _) => true,
        (Some(_), None) => false,
    };
    if is_due || view.one.sync_asked {
        plan.actions.push(Action::Sync { kind: SyncKind::Background });
    } else {
        wake(plan, due);
    }
}

fn is_note(action: &Action) -> bool {
    matches!(action, Action::NoteReady { .. } | Action::NoteNotReady | Action::ClearFailures { .. })
}

/// The plan is looked at again at this time at the latest.
pub(super) fn wake(plan: &mut SessionPlan, at: Option<Timestamp>) {
    plan.wake_at = match (plan.wake_at, at) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
}
