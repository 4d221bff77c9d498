//! Each condition by itself: its value, why, and in one line for people.
//!
//! A look that failed gives Unknown and never False. Ready, Stalled and Reconciling are worked
//! out last, from the others and the plan.

use crate::model::{
    Action, ConditionType, ContainerState, Failure, Health, LargeFiles, Look, Network, Operation,
    Phase, Progress, Reason, Record, Resolved, Rollout, Truth, UpdateStrategy, many,
};
use crate::plan::{NoRoom, Want, expected_hash, refusal};

use super::Scene;

/// A condition before it is known since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) kind: ConditionType,
    pub(super) status: Truth,
    pub(super) reason: Reason,
    pub(super) message: String,
}

/// A condition's value without its type.
type Verdict = (Truth, Reason, String);

impl Draft {
    fn new(kind: ConditionType, (status, reason, message): Verdict) -> Draft {
        Draft { kind, status, reason, message: one_line(&message) }
    }

    /// Whether it says that a new generation is on its way into the container.
    pub(super) fn is_update(&self) -> bool {
        self.kind == ConditionType::UpToDate
            && self.status == Truth::False
            && self.reason == Reason::Updating
    }
}

/// Without line breaks and control characters, at most 1,024 characters.
pub(super) fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(1024).collect()
}

fn yes(reason: Reason, message: impl Into<String>) -> Verdict {
    (Truth::True, reason, message.into())
}

fn no(reason: Reason, message: impl Into<String>) -> Verdict {
    (Truth::False, reason, message.into())
}

fn unknown(reason: Reason, message: impl Into<String>) -> Verdict {
    (Truth::Unknown, reason, message.into())
}

fn failed(failure: &Failure) -> Verdict {
    no(failure.reason, failure.message.clone())
}

/// All conditions of a session, in the order they are shown.
pub(super) fn all(scene: &Scene<'_>) -> Vec<Draft> {
    let facts: Vec<Draft> = [
        (ConditionType::Accepted, accepted(scene)),
        (ConditionType::WorkspaceReady, workspace(scene)),
        (ConditionType::FilesReady, files_ready(scene)),
        (ConditionType::PortReady, port(scene)),
        (ConditionType::ImageReady, image(scene)),
        (ConditionType::ContainerReady, container(scene)),
        (ConditionType::Healthy, healthy(scene)),
        (ConditionType::UpToDate, up_to_date(scene)),
        (ConditionType::FilesSynced, files_synced(scene)),
    ]
    .into_iter()
    .map(|(kind, verdict)| Draft::new(kind, verdict))
    .collect();
    let ready = Draft::new(ConditionType::Ready, ready(scene, &facts));
    let mut all = vec![ready];
    all.extend(facts);
    let passing = passing(scene, &all);
    all.extend(passing);
    all
}

/// The conditions that stand only while they are true.
fn passing(scene: &Scene<'_>, facts: &[Draft]) -> Vec<Draft> {
    let stalled = stalled(scene, facts);
    let reconciling = if stalled.is_none() { reconciling(scene, facts) } else { None };
    [
        (ConditionType::Reconciling, reconciling),
        (ConditionType::Stalled, stalled),
        (ConditionType::Suspended, suspended(scene)),
        (ConditionType::RuntimeUnresponsive, unresponsive(scene)),
        (ConditionType::PruneHeld, prune_held(scene)),
    ]
    .into_iter()
    .filter_map(|(kind, found)| {
        found.map(|(reason, message)| Draft::new(kind, yes(reason, message)))
    })
    .collect()
}

fn accepted(scene: &Scene<'_>) -> Verdict {
    if scene.ending() {
        return yes(Reason::Accepted, "");
    }
    if let Some(refused) = refusal(scene.one) {
        let good = scene.record().is_some();
        let kept = if good { "; the last good spec stays in force" } else { "" };
        return no(refused.reason, format!("{}{kept}", refused.message));
    }
    if scene.record().is_none() && scene.plan.reason == Some(Reason::WorkspaceInUse) {
        return no(Reason::WorkspaceInUse, scene.cause());
    }
    match &scene.one.want {
        Want::Held { prune: false, reason: Reason::SourceUnreadable, message } => {
            unknown(Reason::SourceUnreadable, message)
        }
        Want::Held { prune: false, reason, message } => no(*reason, message),
        Want::Present { .. } | Want::Held { .. } | Want::Gone { .. } => yes(Reason::Accepted, ""),
    }
}

fn workspace(scene: &Scene<'_>) -> Verdict {
    let Some(record) = scene.record() else { return not_begun(scene) };
    match (&scene.one.workspace, record.workspace) {
        (Look::Unknown(why), _) => {
            unknown(Reason::WorkspaceUnknown, format!("the workspace is not seen: {why}"))
        }
        (Look::Known(_), None) => match scene.failure(Operation::Workspace) {
            Some(failure) => failed(failure),
            None => not_begun(scene),
        },
        (Look::Known(None), Some(_)) if record.ending.as_ref().is_some_and(|e| e.trashed) => {
            no(Reason::Terminating, "the workspace was moved to the trash")
        }
        (Look::Known(None), Some(_)) => {
            no(Reason::WorkspaceMissing, "the workspace directory is gone")
        }
        (Look::Known(Some(seen)), Some(id)) if seen.id != id => {
            no(Reason::WorkspaceReplaced, "another directory stands where the workspace was")
        }
        (Look::Known(Some(_)), Some(_)) => yes(Reason::Converged, ""),
    }
}

/// False, and whether it is under way, waits for something named, or was not tried yet.
fn not_begun(scene: &Scene<'_>) -> Verdict {
    if scene.facts.busy.is_some() || !scene.plan.actions.is_empty() {
        return no(Reason::InProgress, "");
    }
    match scene.plan.reason {
        Some(reason) => no(Reason::Waiting, format!("{reason} comes first")),
        None => no(Reason::NotStarted, ""),
    }
}

fn files_ready(scene: &Scene<'_>) -> Verdict {
    let Some(record) = scene.record() else { return not_begun(scene) };
    if record.hydrated {
        let lazy = record.files.lazy;
        return match scene.input.room(record).fetches_nothing() {
            Some(NoRoom::Floor { .. }) if lazy == 0 => yes(Reason::Converged, ""),
            Some(why) => yes(why.reason(), why.bound()),
            None => yes(Reason::Converged, waiting(scene, record, lazy)),
        };
    }
    if let Some(progress) = scene.facts.progress {
        let Progress { files, files_total, bytes, bytes_total } = progress;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (here, all) = (mib(bytes), mib(bytes_total));
        let message =
            format!("{files} of {} are here, {here:.1} of {all:.1} MiB", many(files_total, "file"));
        return no(Reason::InProgress, message);
    }
    if let Some(failure) = scene.failure(Operation::Hydrate) {
        return failed(failure);
    }
    if scene.plan.reason == Some(Reason::LowSpace) {
        return no(Reason::LowSpace, scene.cause());
    }
    not_begun(scene)
}

/// How large files come, if they do not come by themselves.
fn waiting(scene: &Scene<'_>, record: &Record, lazy: u64) -> String {
    let wanted = record.applied.resolved.workspace.files.large;
    match (wanted, scene.facts.stubs) {
        (LargeFiles::OnAccess, Some(why)) => format!("{lazy} wait as stub files: {why}"),
        _ if lazy == 0 => String::new(),
        (LargeFiles::OnAccess, None) => format!("{lazy} come when opened"),
        (LargeFiles::Stub | LargeFiles::Eager, _) => format!("{lazy} wait for `docket hydrate`"),
    }
}

/// Whether a host port is wanted at all.
fn wants_port(resolved: &Resolved) -> bool {
    resolved.container.port != 0 && resolved.container.network != Network::None
}

fn port(scene: &Scene<'_>) -> Verdict {
    let Some(record) = scene.record() else { return not_begun(scene) };
    let resolved = &record.applied.resolved;
    if !wants_port(resolved) {
        return yes(Reason::Converged, "no port is wanted");
    }
    if let Some(reason @ (Reason::PoolExhausted | Reason::PortInUse)) = scene.plan.reason {
        return no(reason, scene.cause());
    }
    let Some(port) = record.port else { return not_begun(scene) };
    let contested = scene.input.quarantined(port).is_some();
    if contested
        && scene.failure(Operation::Start).is_some_and(|f| f.reason == Reason::PortConflict)
    {
        return no(Reason::PortConflict, format!("somebody else holds port {port}"));
    }
    if scene.plans(|action| matches!(action, Action::LeasePort { .. })) {
        return no(Reason::InProgress, "another port is being leased");
    }
    yes(Reason::Converged, "")
}

fn image(scene: &Scene<'_>) -> Verdict {
    let Some(record) = scene.record() else { return not_begun(scene) };
    match (&record.applied.image, scene.failure(Operation::Image)) {
        (Some(pin), _) => yes(Reason::Converged, format!("pinned to {}", pin.id)),
        (None, Some(failure)) => failed(failure),
        (None, None) => not_begun(scene),
    }
}

fn container(scene: &Scene<'_>) -> Verdict {
    if let Look::Unknown(why) = &scene.one.containers {
        return unknown(Reason::EngineUnreachable, format!("the engine is not seen: {why}"));
    }
    let Some(record) = scene.record() else { return not_begun(scene) };
    let Some(current) = scene.current() else { return no_container(scene) };
    match current.state {
        ContainerState::Running if scene.taken_down() => {
            no(Reason::InProgress, "its container is being stopped")
        }
        ContainerState::Running => yes(Reason::Converged, ""),
        ContainerState::Paused => {
            let reason = record.paused.unwrap_or(Reason::Paused);
            let pressed = scene.plan.reason == Some(reason);
            let why = if pressed { format!(": {}", scene.cause()) } else { String::new() };
            no(reason, format!("its container is paused{why}"))
        }
        ContainerState::Created => match scene.failure(Operation::Start) {
            Some(failure) => failed(failure),
            None => no(Reason::InProgress, "its container is made and not started"),
        },
        ContainerState::Exited => exited(scene, record, current.attempt),
        ContainerState::Restarting | ContainerState::Removing | ContainerState::Dead => {
            no(Reason::InProgress, format!("its container is {}", super::state_text(current.state)))
        }
    }
}

fn no_container(scene: &Scene<'_>) -> Verdict {
    if scene.ending() {
        return no(Reason::Terminating, "");
    }
    if let Some(rests) = scene.rests() {
        return no(rests, "no container is wanted");
    }
    let failure = [Operation::Create, Operation::Start, Operation::Run]
        .into_iter()
        .find_map(|operation| scene.failure(operation));
    match failure {
        Some(failure) => failed(failure),
        None => not_begun(scene),
    }
}

fn exited(scene: &Scene<'_>, record: &Record, attempt: u32) -> Verdict {
    if scene.plan.phase == Phase::CrashLoop {
        let message = scene.failure(Operation::Run).map(|failure| {
            format!("{}, {} in a row", failure.message, many(failure.count, "time"))
        });
        return no(Reason::CrashLoopBackOff, message.unwrap_or_default());
    }
    match record.last_termination.as_ref().filter(|end| end.attempt == attempt) {
        Some(end) => {
            let code = end.exit_code.map(|code| format!("it ended with exit code {code}"));
            no(end.reason, code.unwrap_or_else(|| "it ended".to_owned()))
        }
        None => no(Reason::InProgress, "it ended"),
    }
}

fn healthy(scene: &Scene<'_>) -> Verdict {
    let Some(record) = scene.record() else {
        return unknown(Reason::Waiting, "there is no container");
    };
    let runs = scene.current().is_some_and(|c| c.state == ContainerState::Running);
    let unseen = scene.one.containers.known().is_none();
    if !runs && !unseen {
        return unknown(Reason::Waiting, "its container does not run");
    }
    if record.applied.resolved.container.port == 0 {
        return if unseen {
            unknown(Reason::EngineUnreachable, "")
        } else {
            yes(Reason::NoProbe, "it has no port: there is nothing to probe")
        };
    }
    match &scene.one.health {
        Health::Passing => yes(Reason::Converged, ""),
        Health::Unknown => unknown(Reason::ProbeUnknown, "no probe was answered yet"),
        Health::Failing { count, message } => no(
            Reason::ProbeFailing,
            format!("{} failed in a row: {message}", many(*count, "probe")),
        ),
    }
}

fn up_to_date(scene: &Scene<'_>) -> Verdict {
    let Some(record) = scene.record() else { return not_begun(scene) };
    if scene.ending() {
        return no(Reason::Terminating, "");
    }
    let (status, reason, message) = accepted(scene);
    if status != Truth::True {
        return (status, reason, message);
    }
    if let Some(verdict) = wanted_differs(scene, record) {
        return verdict;
    }
    container_differs(scene, record).unwrap_or_else(|| match scene.current() {
        _ if scene.one.containers.known().is_none() => unknown(Reason::EngineUnreachable, ""),
        None if scene.rests().is_some() => yes(Reason::Stopped, "no container is wanted"),
        None => not_begun(scene),
        Some(_) => yes(Reason::Converged, ""),
    })
}

/// What is wanted is not what is in force.
fn wanted_differs(scene: &Scene<'_>, record: &Record) -> Option<Verdict> {
    let now = record.applied.generation;
    let newer = |action: &Action| matches!(action, Action::Adopt { applied, .. } if applied.generation > now);
    if scene.plans(newer) {
        return Some(no(Reason::Updating, "a new spec is being taken into force"));
    }
    let Want::Present { object, class_hash, resolved: Ok(resolved), .. } = &scene.one.want else {
        return None;
    };
    if let Some(bad) = &record.rolled_back
        && bad.object_hash == object.hash
        && bad.class_hash == *class_hash
    {
        return Some(no(Reason::RolledBack, bad.message.clone()));
    }
    if object.hash == record.applied.object.hash && **resolved == record.applied.resolved {
        return None;
    }
    Some(match resolved.update.rollout {
        Rollout::OnNextStart => {
            no(Reason::PendingNextStart, "its class changed: comes with the next start")
        }
        Rollout::Immediate => {
            no(Reason::Waiting, "its class changed: waits for update.maxConcurrent")
        }
    })
}

/// The container is not what is in force.
fn container_differs(scene: &Scene<'_>, record: &Record) -> Option<Verdict> {
    let current = scene.current()?;
    if record.restart_after.is_some_and(|attempt| current.attempt <= attempt) {
        return Some(no(Reason::Updating, "a restart was asked for"));
    }
    let update = record.applied.resolved.update.strategy;
    let Some(expected) = expected_hash(record) else {
        let failure = scene.failure(Operation::Image);
        let pending = || no(Reason::Updating, "the new image is not resolved yet");
        return Some(failure.map_or_else(pending, failed));
    };
    if current.spec_hash != expected {
        return Some(if update == UpdateStrategy::Never {
            no(Reason::UpdateDisabled, "update.strategy is Never: comes with the next container")
        } else {
            no(Reason::Updating, "its container is of an earlier spec")
        });
    }
    let limits = record.applied.resolved.container.resources;
    if current.detail.as_ref().is_some_and(|detail| detail.resources != limits) {
        return Some(match (update, scene.failure(Operation::Update)) {
            (UpdateStrategy::Never, _) => no(Reason::UpdateDisabled, "update.strategy is Never"),
            (_, Some(failure)) => failed(failure),
            (_, None) => no(Reason::Updating, "its limits are being changed"),
        });
    }
    None
}

fn files_synced(scene: &Scene<'_>) -> Verdict {
    let Some(record) = scene.record().filter(|record| record.has_files()) else {
        return unknown(Reason::NotStarted, "there are no files yet");
    };
    if record.ending.as_ref().is_some_and(|ending| ending.final_synced) {
        return yes(Reason::Synced, "");
    }
    let (status, reason, message) = workspace(scene);
    if status != Truth::True {
        return (status, reason, message);
    }
    if record.files.blocking > 0 {
        let message = format!(
            "{} skipped; `docket files` says which and why",
            many(record.files.blocking, "file")
        );
        return no(Reason::FileSkipped, message);
    }
    if let Some(failure) = scene.failure(Operation::Sync) {
        return failed(failure);
    }
    let (files, bytes) = (record.files.unsynced, record.files.unsynced_bytes);
    if files > 0 {
        return no(
            Reason::Unsynced,
            format!("{} of {} to be stored", many(files, "file"), many(bytes, "byte")),
        );
    }
    if scene.one.sync_asked {
        return no(Reason::Unsynced, "files changed since the last sync");
    }
    match record.last_sync {
        None => unknown(Reason::NotStarted, "nothing was synced yet"),
        Some(_) => yes(Reason::Synced, ""),
    }
}

/// Whether the session serves with the spec that was accepted.
fn ready(scene: &Scene<'_>, facts: &[Draft]) -> Verdict {
    if scene.ending() {
        let ending = scene.record().and_then(|record| record.ending.as_ref());
        let cause = ending.map_or_else(|| scene.cause(), |ending| ending.cause.clone());
        return no(Reason::Terminating, cause);
    }
    if scene.record().is_none() {
        let refused =
            facts.iter().find(|d| d.kind == ConditionType::Accepted && d.status != Truth::True);
        let (reason, message) = match (refused, trouble(scene), scene.plan.reason) {
            (Some(refused), ..) => (refused.reason, refused.message.clone()),
            (None, Some(trouble), _) => trouble,
            (None, None, Some(reason)) => (reason, scene.cause()),
            (None, None, None) => (Reason::InProgress, scene.cause()),
        };
        return no(reason, message);
    }
    if let Some(rests) = scene.rests() {
        return no(rests, "no container is wanted");
    }
    match facts.iter().find(|draft| keeps_from_ready(scene, draft)) {
        None => published(scene),
        Some(draft) => because(scene, draft),
    }
}

/// What keeps docket itself from doing anything for the session.
fn trouble(scene: &Scene<'_>) -> Option<(Reason, String)> {
    let told = |reason, why: Option<&str>| Some((reason, why?.to_owned()));
    told(Reason::InternalError, scene.facts.broken)
        .or_else(|| told(Reason::LedgerFailed, scene.facts.unkept))
}

/// Ready is what the first condition that stands in its way says.
fn because(scene: &Scene<'_>, draft: &Draft) -> Verdict {
    let starting = draft.kind == ConditionType::Healthy
        && scene.record().is_some_and(|record| record.ready_since.is_none());
    let status = if starting { Truth::False } else { draft.status };
    let suspended = draft.status == Truth::False && suspended(scene).is_some();
    let vague = matches!(draft.reason, Reason::InProgress | Reason::Waiting | Reason::NotStarted);
    match (scene.plan.reason, trouble(scene)) {
        _ if suspended => no(Reason::Suspended, "left alone on request"),
        (_, Some((reason, message))) if vague => (status, reason, message),
        (Some(reason), _) if vague => (status, reason, scene.cause()),
        _ => {
            let empty = draft.message.is_empty();
            let message = if empty { scene.cause() } else { draft.message.clone() };
            (status, draft.reason, message)
        }
    }
}

/// Whether a condition stands in the way of Ready. A session whose new spec was refused, rolled
/// back or waits for its time serves with the one in force.
fn keeps_from_ready(scene: &Scene<'_>, draft: &Draft) -> bool {
    if draft.status == Truth::True {
        return false;
    }
    match draft.kind {
        ConditionType::Accepted | ConditionType::FilesSynced => false,
        ConditionType::UpToDate => {
            accepted(scene).0 == Truth::True
                && !matches!(
                    draft.reason,
                    Reason::RolledBack
                        | Reason::PendingNextStart
                        | Reason::UpdateDisabled
                        | Reason::Waiting
                )
        }
        _ => true,
    }
}

/// The last word on Ready: the engine must have been seen to publish the port.
fn published(scene: &Scene<'_>) -> Verdict {
    let wants = scene.record().is_some_and(|r| wants_port(&r.applied.resolved));
    match scene.current().and_then(|c| c.detail.as_ref()) {
        None => no(Reason::InProgress, "its container was not inspected yet"),
        Some(detail) if wants && detail.published.is_none() => {
            no(Reason::InProgress, "its port is not published as the engine sees it")
        }
        Some(_) => yes(Reason::Converged, ""),
    }
}

/// Why nothing will happen without a change from outside.
fn stalled(scene: &Scene<'_>, facts: &[Draft]) -> Option<(Reason, String)> {
    if let Some(why) = scene.facts.broken {
        let message =
            format!("an assertion failed, and it stands still until docket starts again: {why}");
        return Some((Reason::InternalError, message));
    }
    if scene.at_work() {
        return None;
    }
    let of = |kind| facts.iter().find(|d| d.kind == kind && d.status == Truth::False);
    if let Some(refused) = of(ConditionType::Accepted) {
        return Some((refused.reason, refused.message.clone()));
    }
    let odd = [Reason::WorkspaceReplaced, Reason::WorkspaceMissing];
    if let Some(lost) = of(ConditionType::WorkspaceReady).filter(|d| odd.contains(&d.reason)) {
        return Some((lost.reason, lost.message.clone()));
    }
    if scene.plan.phase != Phase::Failed {
        return None;
    }
    let ended = scene.record().and_then(|r| r.last_termination.as_ref()).map(|end| end.reason);
    let reason = scene.plan.reason.or(ended).unwrap_or(Reason::Error);
    Some((reason, scene.cause()))
}

/// Why it is not yet what was asked for, while that is worked on or waited for.
fn reconciling(scene: &Scene<'_>, facts: &[Draft]) -> Option<(Reason, String)> {
    if scene.facts.broken.is_some() {
        return None;
    }
    if let Some(why) = scene.facts.unkept {
        return Some((Reason::LedgerFailed, why.to_owned()));
    }
    let busy = scene.facts.busy.map(str::to_owned);
    if scene.at_work() {
        return Some((Reason::InProgress, busy.unwrap_or_else(|| scene.cause())));
    }
    if scene.ending() {
        let reason = scene.plan.reason.unwrap_or(Reason::Terminating);
        return Some((reason, scene.cause()));
    }
    let is_ready = facts.iter().any(|d| d.kind == ConditionType::Ready && d.status == Truth::True);
    let at_rest = matches!(
        scene.plan.phase,
        Phase::Stopped | Phase::Suspended | Phase::Unknown | Phase::Rejected | Phase::Failed
    );
    if is_ready || (at_rest && scene.plan.reason.is_none()) || scene.plan.phase == Phase::Unknown {
        return None;
    }
    Some((scene.plan.reason.unwrap_or(Reason::Waiting), scene.cause()))
}

fn suspended(scene: &Scene<'_>) -> Option<(Reason, String)> {
    let record = scene.record()?;
    (record.wanted_suspend() && !scene.ending())
        .then(|| (Reason::Suspended, "left alone on request".to_owned()))
}

fn unresponsive(scene: &Scene<'_>) -> Option<(Reason, String)> {
    match &scene.one.containers {
        Look::Unknown(why) => Some((Reason::EngineUnreachable, why.clone())),
        Look::Known(_) => None,
    }
}

fn prune_held(scene: &Scene<'_>) -> Option<(Reason, String)> {
    match &scene.one.want {
        Want::Held { prune: true, reason, message } if !scene.ending() => {
            Some((*reason, message.clone()))
        }
        _ => None,
    }
}
