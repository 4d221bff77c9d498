//! What people and machines are told: conditions, phase, the object with its status. Pure.
//!
//! 1. [`view()`] draws one session from what was seen, what is remembered and what is planned.
//! 2. `conditions` works out each condition by itself, then Ready and Stalled from the others.
//! 3. `view` is the shape of the object.
//!
//! Status explains the plan, so it is given the plan and decides nothing itself.

mod conditions;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::model::{
    Action, Condition, ConditionType, Container, ContainerPrefix, ContainerState, Failure, Look,
    Operation, Phase, Progress, Reason, Record, SessionName, SessionObject, SessionPlan, Source,
    SyncKind, Timestamp, Truth, container_name,
};
use crate::plan::{Input, Session, Want, expires_at};

pub use view::*;

/// When each condition last changed its value.
pub type Transitions = BTreeMap<ConditionType, (Truth, Timestamp)>;

/// What only the operator can add.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Address host ports are published on.
    pub bind: IpAddr,
    /// What container names begin with.
    pub prefix: &'a ContainerPrefix,
    /// Where the workspace is on the host; empty if it cannot be told.
    pub workspace: &'a str,
    /// The step that runs right now, as its text.
    pub busy: Option<&'a str>,
    /// Why stub files stand for large files though they could come when they are opened; `None`:
    /// they do come.
    pub stubs: Option<&'a str>,
    /// The commit that the files of the sources are from; empty: they are from no repository.
    pub revision: &'a str,
    /// Why its last steps ended with nothing known to be kept in the ledger, if they did.
    pub unkept: Option<&'a str>,
    /// What an assertion that failed in its steps said: it stands still.
    pub broken: Option<&'a str>,
    /// When the next pass comes without any event.
    pub next_pass: Option<Timestamp>,
    /// How far its hydration is, while one is under way.
    pub progress: Option<Progress>,
    /// The transitions as the last view gave them; empty: the record's.
    pub remembered: &'a Transitions,
}

/// A session as users see it, and what is to be remembered for the next time.
#[derive(Clone, Debug, PartialEq)]
pub struct Viewed {
    /// The object with its status.
    pub view: SessionView,
    /// To be kept in the record, or with the operator for a session without one.
    pub transitions: Transitions,
}

/// One session with everything its status may depend on.
#[derive(Clone, Copy, Debug)]
struct Scene<'a> {
    input: &'a Input<'a>,
    one: &'a Session,
    plan: &'a SessionPlan,
    facts: &'a Facts<'a>,
}

/// Draws a session.
pub fn view(
    input: &Input<'_>,
    name: &SessionName,
    one: &Session,
    plan: &SessionPlan,
    facts: &Facts<'_>,
) -> Viewed {
    let scene = Scene { input, one, plan, facts };
    let drafts = conditions::all(&scene);
    let phase = phase(&scene, &drafts);
    let transitions = transitions(&scene, &drafts);
    let generation = one.record.as_ref().map_or(0, |r| r.applied.generation);
    let conditions = drafts.into_iter().map(|draft| Condition {
        kind: draft.kind,
        status: draft.status,
        reason: draft.reason,
        message: draft.message,
        observed_generation: generation,
        last_transition_time: transitions.get(&draft.kind).map_or(input.now, |(_, at)| *at),
    });
    let status = Status {
        observed_generation: generation,
        phase,
        conditions: conditions.collect(),
        container: container_view(&scene),
        port: one.record.as_ref().and_then(|r| r.port),
        address: address(&scene),
        workspace: facts.workspace.to_owned(),
        files: files(&scene),
        retry: retry(&scene),
        override_: override_(&scene),
        queue_position: plan.queue,
        lifetime: lifetime(&scene),
        source: source(&scene),
        source_revision: source_revision(&scene),
        plan: format!("{name} {plan}"),
        next_check: [plan.wake_at, facts.next_pass].into_iter().flatten().min(),
    };
    let view = SessionView {
        api_version: "docket.dev/v1".to_owned(),
        kind: "Session".to_owned(),
        metadata: metadata(&scene, name),
        spec: scene
            .object()
            .and_then(|object| object.raw.get("spec").cloned())
            .unwrap_or_else(|| serde_json::json!({})),
        status,
    };
    Viewed { view, transitions }
}

impl<'a> Scene<'a> {
    fn record(&self) -> Option<&'a Record> {
        self.one.record.as_ref()
    }

    /// The object as its author last wrote it: the wanted one, else the one in force.
    fn object(&self) -> Option<&'a SessionObject> {
        match (&self.one.want, self.record()) {
            // What ends is what was in force; the same name wanted anew is another session.
            (_, Some(record)) if record.ending.is_some() => Some(&record.applied.object),
            (Want::Present { object, .. }, _) => Some(object),
            (_, record) => record.map(|r| &r.applied.object),
        }
    }

    /// The plan's cause, without the reason that stands before it in the plan's text.
    fn cause(&self) -> String {
        let cause = &self.plan.cause;
        let reason = self.plan.reason.map(|reason| format!("{reason}: ")).unwrap_or_default();
        cause.strip_prefix(&reason).unwrap_or(cause).to_owned()
    }

    /// It is ending, or its end is what comes next.
    fn ending(&self) -> bool {
        let planned = self.plan.phase == Phase::Terminating;
        self.record().is_some_and(|r| r.ending.is_some() || planned)
    }

    /// The newest container of this session's uid; `None` also if the engine is not seen.
    fn current(&self) -> Option<&'a Container> {
        let uid = &self.record()?.uid;
        let all = self.one.containers.known()?;
        all.iter().filter(|c| c.uid == *uid).max_by_key(|c| c.attempt)
    }

    fn failure(&self, operation: Operation) -> Option<&'a Failure> {
        self.record()?.failures.get(&operation)
    }

    /// Why no container is wanted, if none is.
    fn rests(&self) -> Option<Reason> {
        let record = self.record()?;
        if record.wanted_state() == crate::model::DesiredState::Stopped {
            return Some(Reason::Stopped);
        }
        record.retired.as_ref().map(|retired| retired.reason)
    }

    fn plans(&self, which: impl Fn(&Action) -> bool) -> bool {
        self.plan.actions.iter().any(which)
    }

    /// Its container is being stopped, removed or frozen, or about to be, whatever is wanted by now.
    fn taken_down(&self) -> bool {
        let Some(current) = self.current() else { return false };
        self.plans(|action| match action {
            Action::StopContainer { id, .. }
            | Action::RemoveContainer { id, .. }
            | Action::PauseContainer { id, .. } => *id == current.id,
            _ => false,
        })
    }

    /// Whether something other than a background sync is done or about to be done.
    fn at_work(&self) -> bool {
        let background = Action::Sync { kind: SyncKind::Background };
        self.plans(|action| *action != background && !is_note(action))
            || self.facts.busy.is_some_and(|step| step != background.to_string())
    }
}

/// Whether an action only writes something down.
fn is_note(action: &Action) -> bool {
    matches!(action, Action::NoteReady { .. } | Action::ClearFailures { .. })
}

/// When docket would stop it by itself.
fn lifetime(scene: &Scene<'_>) -> Option<LifetimeView> {
    let record = scene.record()?;
    if scene.ending() || scene.rests().is_some() {
        return None;
    }
    let idle = record.applied.resolved.lifetime.idle_timeout;
    let idle = scene.one.used.filter(|_| !idle.is_zero()).and_then(|(used_by, used_at)| {
        let ends_at = used_at.checked_add_signed(chrono::TimeDelta::from_std(idle).ok()?)?;
        Some(IdleView { used_by, used_at, ends_at })
    });
    let view = LifetimeView { expires_at: expires_at(record), idle };
    (view != LifetimeView::default()).then_some(view)
}

/// The plan's phase, where the conditions do not tell more.
fn phase(scene: &Scene<'_>, drafts: &[conditions::Draft]) -> Phase {
    let is = |kind, status| drafts.iter().any(|d| d.kind == kind && d.status == status);
    let refused = is(ConditionType::Accepted, Truth::False);
    let sync_fails = scene.failure(Operation::Sync).is_some_and(|f| f.count > 0);
    match scene.plan.phase {
        Phase::Pending if scene.record().is_none() && refused => Phase::Rejected,
        Phase::Running if !is(ConditionType::ContainerReady, Truth::True) => Phase::Starting,
        Phase::Starting if prepares(scene) => Phase::Preparing,
        // The plan is older than what was seen since: it answers, and the next plan will say so.
        Phase::Pending
        | Phase::Starting
        | Phase::CrashLoop
        | Phase::Stopped
        | Phase::Failed
        | Phase::Unknown
            if is(ConditionType::Ready, Truth::True) =>
        {
            Phase::Running
        }
        Phase::Running if drafts.iter().any(conditions::Draft::is_update) => Phase::Updating,
        Phase::Running if sync_fails || is(ConditionType::Healthy, Truth::False) => Phase::Degraded,
        phase => phase,
    }
}

/// The step that runs right now comes before any container.
fn prepares(scene: &Scene<'_>) -> bool {
    let Some(busy) = scene.facts.busy else { return false };
    let first = |action: &Action| {
        matches!(
            action,
            Action::Admit { .. }
                | Action::LeasePort { .. }
                | Action::ResolveImage { .. }
                | Action::CreateWorkspace
                | Action::Hydrate
        )
    };
    scene.current().is_none() && scene.plans(|action| first(action) && action.to_string() == busy)
}

fn transitions(scene: &Scene<'_>, drafts: &[conditions::Draft]) -> Transitions {
    let remembered = scene.facts.remembered;
    let before = match scene.record() {
        Some(record) if remembered.is_empty() => &record.transitions,
        _ => remembered,
    };
    let now = scene.input.now;
    let since = |draft: &conditions::Draft| match before.get(&draft.kind) {
        Some((status, at)) if *status == draft.status => *at,
        _ => now,
    };
    drafts.iter().map(|draft| (draft.kind, (draft.status, since(draft)))).collect()
}

fn metadata(scene: &Scene<'_>, name: &SessionName) -> Metadata {
    let record = scene.record();
    let object = scene.object();
    Metadata {
        name: name.to_string(),
        uid: record.map(|r| r.uid.to_string()).unwrap_or_default(),
        generation: record.map_or(0, |r| r.applied.generation),
        labels: object.map(|o| o.labels.clone()).unwrap_or_default(),
        annotations: object.map(|o| o.annotations.clone()).unwrap_or_default(),
        creation_timestamp: record.map(|r| r.created_at),
        deletion_timestamp: record.and_then(|r| r.ending.as_ref()).map(|e| e.since),
    }
}

/// The container there is, or what is remembered of the last one.
fn container_view(scene: &Scene<'_>) -> Option<ContainerView> {
    let record = scene.record()?;
    let last_termination = record.last_termination.as_ref().map(TerminationView::from);
    if let Some(seen) = scene.current() {
        let detail = seen.detail.as_ref();
        return Some(ContainerView {
            id: seen.id.short().to_owned(),
            name: seen.name.clone(),
            attempt: seen.attempt,
            state: state_text(seen.state).to_owned(),
            started_at: detail.and_then(|d| d.started_at),
            restarts: record.restarts,
            last_termination,
            image: detail.map(|d| image_name(record, &d.image_id)).unwrap_or_default(),
            image_id: detail.map(|d| d.image_id.clone()).unwrap_or_default(),
        });
    }
    if record.attempt == 0 {
        return None;
    }
    let gone = matches!(scene.one.containers, Look::Known(_));
    Some(ContainerView {
        id: String::new(),
        name: container_name(scene.facts.prefix, &record.name, record.attempt),
        attempt: record.attempt,
        state: if gone { "removed" } else { "unknown" }.to_owned(),
        started_at: None,
        restarts: record.restarts,
        last_termination,
        image: String::new(),
        image_id: String::new(),
    })
}

/// The name of the image that a container was made from, if that is the one in force.
fn image_name(record: &Record, id: &str) -> String {
    let pinned = record.applied.image.as_ref().is_some_and(|pin| pin.id == id);
    if pinned { record.applied.resolved.container.image.clone() } else { String::new() }
}

/// The engine's word for a state.
fn state_text(state: ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Paused => "paused",
        ContainerState::Restarting => "restarting",
        ContainerState::Exited => "exited",
        ContainerState::Removing => "removing",
        ContainerState::Dead => "dead",
    }
}

/// Where it answers: as the engine publishes it, else as it is leased.
fn address(scene: &Scene<'_>) -> Option<String> {
    let record = scene.record()?;
    let seen = scene.current().and_then(|c| c.detail.as_ref()).and_then(|d| d.published);
    let leased = record
        .port
        .filter(|_| record.applied.resolved.container.port != 0)
        .map(|port| SocketAddr::new(scene.facts.bind, port));
    seen.or(leased).map(|address| address.to_string())
}

fn files(scene: &Scene<'_>) -> FilesView {
    let Some(record) = scene.record() else { return FilesView::default() };
    let files = &record.files;
    let progress = scene.facts.progress;
    // Before the first hydration has ended nothing else is known.
    let first = progress.filter(|_| !record.hydrated).unwrap_or_default();
    FilesView {
        total: files.total.max(first.files_total),
        local: files.local.max(first.files),
        progress,
        lazy: files.lazy,
        unsynced: files.unsynced,
        unsynced_bytes: files.unsynced_bytes,
        skipped: files.skipped,
        last_sync: record.last_sync,
        conflicts: files.conflicts,
    }
}

/// The failing operation with the latest failure.
fn retry(scene: &Scene<'_>) -> RetryView {
    let latest = scene
        .record()
        .and_then(|record| record.failures.iter().max_by_key(|(_, failure)| failure.at));
    let Some((operation, failure)) = latest else { return RetryView::default() };
    RetryView {
        operation: format!("{operation:?}"),
        failures: failure.count,
        not_before: (!failure.terminal).then_some(failure.not_before),
        last_error: conditions::one_line(&failure.message),
    }
}

fn override_(scene: &Scene<'_>) -> Option<OverrideView> {
    let record = scene.record()?;
    let state = record.state_override.as_ref().map(|o| o.value);
    let suspend = record.suspend_override.as_ref().map(|o| o.value);
    (state.is_some() || suspend.is_some()).then_some(OverrideView { state, suspend })
}

fn source(scene: &Scene<'_>) -> String {
    let wanted = match &scene.one.want {
        Want::Present { source, .. } => Some(source),
        _ => None,
    };
    match wanted.or(scene.record().map(|r| &r.source)) {
        Some(Source::File(path)) => path.clone(),
        Some(Source::Applied) => "applied".to_owned(),
        None => String::new(),
    }
}

/// The commit that a file of the sources is from, if that is where its spec is.
fn source_revision(scene: &Scene<'_>) -> Option<String> {
    let ends = scene.record().is_some_and(|record| record.ending.is_some());
    match &scene.one.want {
        Want::Present { source: Source::File(_), .. } if !ends => {
            Some(scene.facts.revision.to_owned()).filter(|revision| !revision.is_empty())
        }
        _ => None,
    }
}
