//! The decisions, all of them. Pure and infallible: the same input always gives the same plan.
//!
//! 1. [`plan`] walks all sessions in the order of their names, those whose container keeps ending
//!    last, and hands out what is scarce (ports, places, starts) as it goes.
//! 2. [`session`] decides for one session: admit, hold, keep or end.
//! 3. `keep` is a session that is wanted, `end` one on its way out; `container` looks at the
//!    container itself.
//!
//! What cannot be seen is not decided on: an unknown listing gives a plan that touches no container.

mod container;
mod end;
mod idle;
mod keep;
#[cfg(feature = "testing")]
pub mod planted;
mod room;
mod scarce;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::model::{
    Action, Applied, Bounds, Container, DesiredState, Failure, Health, Look, Operation, Phase,
    Reason, Record, Resolved, SessionName, SessionObject, SessionPlan, Source, Space, Timestamp,
    Uid, WorkspaceSeen,
};

pub use container::{classify_end, expected_hash};
pub use idle::{Sight, Use, look_every, use_between};
pub use keep::{awaits_update, expires_at};
pub use room::{MinFree, NoRoom, Room};
pub use scarce::Scarce;

/// The numbers the operator may turn, as far as decisions depend on them.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What bounds specs; the port range is in it.
    pub bounds: Bounds,
    /// Most sessions at a time; 0: no limit.
    pub max_sessions: u32,
    /// Most sessions of one user; 0: no limit.
    pub max_per_user: u32,
    /// Most sessions starting at once; 0: no limit.
    pub max_starts: u32,
    /// Free space below which nothing is hydrated or started.
    pub min_free: MinFree,
}

/// What its sources say of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// It is wanted; its spec was resolved, or refused.
    Present {
        /// The object as written.
        object: Box<SessionObject>,
        /// Where it stands.
        source: Source,
        /// Hash of the class it was resolved with.
        class_hash: String,
        /// With the class merged in, or why it cannot be.
        resolved: Result<Box<Resolved>, Refused>,
    },
    /// Nothing can be said, or its end is held: it stays as it was.
    Held {
        /// Why.
        reason: Reason,
        /// For people.
        message: String,
        /// Its source is gone and only the end is held (`PruneHeld`).
        prune: bool,
    },
    /// It is proven to be wanted no more.
    Gone {
        /// Why, for people.
        cause: String,
    },
}

/// Why a spec is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For machines.
    pub reason: Reason,
    /// For people: which field, which limit.
    pub message: String,
}

/// Why what is wanted is not taken into force, if it is not.
pub fn refusal(one: &Session) -> Option<Refused> {
    let Want::Present { object, resolved, .. } = &one.want else { return None };
    if let Err(refused) = resolved {
        return Some(refused.clone());
    }
    let record = one.record.as_ref().filter(|record| record.ending.is_none())?;
    let moved = record.user != object.user || record.case != object.case;
    moved.then(|| Refused {
        reason: Reason::InvalidSpec,
        message: "spec.user and spec.case of a session cannot change: delete it and make another"
            .to_owned(),
    })
}

/// All that is known of one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// What its sources say.
    pub want: Want,
    /// What is remembered.
    pub record: Option<Record>,
    /// Its containers, every uid and attempt, from a complete listing.
    pub containers: Look<Vec<Container>>,
    /// Its workspace directory.
    pub workspace: Look<Option<WorkspaceSeen>>,
    /// What probes of the current container's current start say.
    pub health: Health,
    /// For how long (monotonic) that start has been probed.
    pub probed_for: Duration,
    /// For how long (monotonic) its running container has shown no sign of use.
    pub idle_for: Duration,
    /// What the last sign of use was, and when; `None`: nobody watches for any.
    pub used: Option<(Use, Timestamp)>,
    /// A hint that files changed, or that somebody asked for a sync.
    pub sync_asked: bool,
    /// When a sync was last begun, whatever came of it.
    pub sync_tried: Option<Timestamp>,
}

/// All sessions that are wanted, remembered or seen, however they are kept.
pub trait Sessions: std::fmt::Debug {
    /// One of them.
    fn get(&self, name: &SessionName) -> Option<&Session>;
    /// Each of them, in the order of their names.
    fn each(&self) -> Box<dyn Iterator<Item = (&SessionName, &Session)> + '_>;
}

impl Sessions for BTreeMap<SessionName, Session> {
    fn get(&self, name: &SessionName) -> Option<&Session> {
        self.get(name)
    }

    fn each(&self) -> Box<dyn Iterator<Item = (&SessionName, &Session)> + '_> {
        Box::new(self.iter())
    }
}

/// Everything a plan may depend on. If it is not here, a plan cannot depend on it.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// By the wall.
    pub now: Timestamp,
    /// The operator's numbers.
    pub policy: &'a Policy,
    /// All sessions that are wanted, remembered or seen.
    pub sessions: &'a dyn Sessions,
    /// Free space for workspaces.
    pub space: Look<Space>,
    /// Sessions that are over: a container that comes of one is removed.
    pub ended: &'a BTreeMap<Uid, Timestamp>,
    /// Ports that somebody else holds, and until when they are left alone.
    pub quarantine: &'a BTreeMap<u16, Timestamp>,
    /// When the engine's present run began, if it can be told.
    pub engine_started: Option<Timestamp>,
}

/// Steps that runners take right now: what they take is taken, whether or not it is in a record
/// yet.
pub type Underway<'a> = BTreeMap<&'a SessionName, &'a [Action]>;

/// A port is left alone for less than this: an end further away means that the clock went back.
const LONGEST_QUARANTINE: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

impl Input<'_> {
    /// What a session's workspace takes of what it may.
    pub fn room(&self, record: &Record) -> Room {
        Room {
            used: record.files.bytes,
            quota: record.applied.resolved.workspace.quota,
            space: self.space.known().copied(),
            floor: self.policy.min_free,
        }
    }

    /// Until when a port is left alone because somebody else holds it; `None`: it is not.
    pub fn quarantined(&self, port: u16) -> Option<Timestamp> {
        let until = *self.quarantine.get(&port)?;
        let left = until.signed_duration_since(self.now);
        (left > chrono::TimeDelta::zero() && left <= LONGEST_QUARANTINE).then_some(until)
    }
}

/// What to do, by session.
pub type Plan = BTreeMap<SessionName, SessionPlan>;

/// Decides for all sessions.
pub fn plan(input: &Input<'_>, underway: &Underway<'_>) -> Plan {
    let mut scarce = Scarce::count(input, underway);
    let mut all: Vec<_> = input.sessions.each().collect();
    all.sort_by_key(|(_, one)| turn(one));
    all.into_iter()
        .map(|(name, one)| (name.clone(), session(input, &mut scarce, name, one)))
        .collect()
}

/// Whose turn comes first where something is scarce: one whose container keeps ending waits for
/// all others, or a few of them would take every start there is.
pub fn turn(one: &Session) -> bool {
    one.record.as_ref().is_some_and(|record| record.failures.contains_key(&Operation::Run))
}

/// Decides for one session; what is scarce is taken from `scarce`.
pub fn session(
    input: &Input<'_>,
    scarce: &mut Scarce,
    name: &SessionName,
    one: &Session,
) -> SessionPlan {
    let Some(record) = &one.record else {
        return unadmitted(input, scarce, name, one);
    };
    let view = View { input, one, record };
    if record.ending.is_some() {
        return end::end(&view, scarce, None);
    }
    match &one.want {
        Want::Gone { cause } => end::end(&view, scarce, Some(cause)),
        Want::Present { .. } | Want::Held { .. } => keep::keep(&view, scarce),
    }
}

/// One session with its record, and the input around it.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    input: &'a Input<'a>,
    one: &'a Session,
    record: &'a Record,
}

impl View<'_> {
    fn now(&self) -> Timestamp {
        self.input.now
    }

    /// What its workspace takes of what it may.
    fn room(&self) -> Room {
        self.input.room(self.record)
    }

    /// Whether an operation may run now, and if not, why and until when.
    fn gate(&self, operation: Operation) -> Result<(), Closed> {
        match self.record.failures.get(&operation) {
            Some(failure) if failure.terminal => Err(Closed::until(failure, None)),
            // A failure in the future means that the wall clock went back: the gate is open.
            Some(failure) if failure.at <= self.now() && self.now() < failure.not_before => {
                Err(Closed::until(failure, Some(failure.not_before)))
            }
            _ => Ok(()),
        }
    }
}

/// A gate that is closed.
#[derive(Clone, Debug)]
struct Closed {
    until: Option<Timestamp>,
    reason: Reason,
    message: String,
}

impl Closed {
    fn until(failure: &Failure, until: Option<Timestamp>) -> Closed {
        let message = match until {
            Some(until) => format!(
                "waits until {} after {} failure{}: {}",
                until.format("%H:%M:%S"),
                failure.count,
                if failure.count == 1 { "" } else { "s" },
                failure.message
            ),
            None => format!("holds until the spec changes: {}", failure.message),
        };
        Closed { until, reason: failure.reason, message }
    }
}

/// A session that was not admitted: wanted for the first time, refused, queued, or found.
fn unadmitted(
    input: &Input<'_>,
    scarce: &mut Scarce,
    name: &SessionName,
    one: &Session,
) -> SessionPlan {
    let containers = match &one.containers {
        Look::Known(containers) => containers,
        Look::Unknown(why) => {
            return unseen(Phase::Unknown, why);
        }
    };
    let late = containers.iter().filter(|c| input.ended.contains_key(&c.uid));
    let late: Vec<Action> = late.map(|c| Action::RemoveLate { id: c.id.clone() }).collect();
    if !late.is_empty() {
        return steps(Phase::Terminating, "the engine made a container of it late", late);
    }
    match &one.want {
        Want::Held { reason, message, .. } => held(Phase::Pending, *reason, message),
        Want::Gone { .. } if containers.is_empty() => idle(Phase::Terminating, String::new()),
        Want::Gone { .. } => unknown(input, scarce, containers, name),
        Want::Present { resolved: Err(refused), .. } => {
            held(Phase::Rejected, refused.reason, &refused.message)
        }
        Want::Present { object, source, class_hash, resolved: Ok(resolved) } => {
            let first = Applied {
                generation: 1,
                object: (**object).clone(),
                class_hash: class_hash.clone(),
                resolved: (**resolved).clone(),
                image: None,
            };
            match containers.iter().max_by_key(|c| c.attempt) {
                Some(found) => rebuild(found, first, Some(source.clone())),
                None => match scarce.owner_of_place(&object.user, &object.case, name) {
                    Some(owner) => held(
                        Phase::Pending,
                        Reason::WorkspaceInUse,
                        format!("session {owner} has the workspace of this user and case"),
                    ),
                    None => admit(input, scarce, first, source.clone()),
                },
            }
        }
    }
}

/// Containers of ours of which no record and no source is left: taken in as what their labels say,
/// so that they are seen, held, and end when that is confirmed.
fn unknown(
    input: &Input<'_>,
    scarce: &Scarce,
    containers: &[Container],
    name: &SessionName,
) -> SessionPlan {
    let nobodys = |why: &str| {
        let what = "a container of this installation has no record and no source";
        held(Phase::Unknown, Reason::SourceUnknown, format!("{what}{why}"))
    };
    let Some(last) = containers.iter().max_by_key(|c| c.attempt) else { return nobodys("") };
    if containers.iter().any(|c| c.uid != last.uid) {
        return nobodys(", nor has another of its session: remove one of them");
    }
    let Some(detail) = &last.detail else { return nobodys("") };
    let Some(applied) = crate::spec::found(last, detail, &input.policy.bounds) else {
        return nobodys(", and its labels are not docket's: remove it");
    };
    let Applied { object, .. } = &applied;
    if let Some(owner) = scarce.owner_of_place(&object.user, &object.case, name) {
        return nobodys(&format!(", and session {owner} has its workspace: remove it"));
    }
    rebuild(last, applied, None)
}

/// A container of ours without a record: it is taken in as it is, and only then compared.
fn rebuild(found: &Container, applied: Applied, source: Option<Source>) -> SessionPlan {
    let Some(detail) = &found.detail else {
        return idle(Phase::Preparing, "its container was not inspected yet");
    };
    let action = Action::Rebuild {
        found: format!("container {}", found.name),
        uid: found.uid.clone(),
        attempt: found.attempt,
        port: detail.published.map(|address| address.port()),
        image_id: Some(detail.image_id.clone()),
        applied: Box::new(applied),
        source,
    };
    steps(Phase::Preparing, "its record was lost", vec![action])
}

/// Admits a session if there is a place for it, and plans its first steps with it.
fn admit(input: &Input<'_>, scarce: &mut Scarce, first: Applied, source: Source) -> SessionPlan {
    let runs = first.object.state == DesiredState::Running;
    if runs && let Err(full) = scarce.take_place(input.policy, &first.object.user) {
        return queued(&full, Vec::new());
    }
    let mut actions = vec![Action::Admit {
        applied: Box::new(first.clone()),
        source: source.clone(),
        port: None,
    }];
    // The steps that follow are planned as if the record were written already, so that a new
    // session goes from its file to its container in one run.
    let record = Record::admit(scarce.no_uid(), first, source.clone(), input.now);
    let imagined = Session {
        want: Want::Present {
            object: Box::new(record.applied.object.clone()),
            source,
            class_hash: record.applied.class_hash.clone(),
            resolved: Ok(Box::new(record.applied.resolved.clone())),
        },
        record: None,
        containers: Look::Known(Vec::new()),
        workspace: Look::Known(None),
        health: Health::Unknown,
        probed_for: Duration::ZERO,
        idle_for: Duration::ZERO,
        used: None,
        sync_asked: false,
        sync_tried: None,
    };
    let view = View { input, one: &imagined, record: &record };
    let mut planned = keep::keep(&view, scarce);
    actions.append(&mut planned.actions);
    SessionPlan { actions, ..planned }
}

/// A plan without steps.
fn idle(phase: Phase, cause: impl Into<String>) -> SessionPlan {
    steps(phase, cause, Vec::new())
}

/// A plan without steps, and what stands in the way.
fn held(phase: Phase, reason: Reason, message: impl std::fmt::Display) -> SessionPlan {
    SessionPlan { reason: Some(reason), ..idle(phase, format!("{reason}: {message}")) }
}

/// A plan without steps because the engine does not answer.
fn unseen(phase: Phase, why: &str) -> SessionPlan {
    let cause = format!("the engine is not seen: {why}");
    SessionPlan { reason: Some(Reason::EngineUnreachable), ..idle(phase, cause) }
}

/// A plan with steps.
fn steps(phase: Phase, cause: impl Into<String>, actions: Vec<Action>) -> SessionPlan {
    SessionPlan { phase, cause: cause.into(), reason: None, queue: None, actions, wake_at: None }
}

/// A plan that waits for a place; the steps before it can be done.
fn queued(full: &scarce::Full, actions: Vec<Action>) -> SessionPlan {
    SessionPlan {
        reason: Some(Reason::LimitReached),
        queue: Some(full.place),
        ..steps(Phase::Pending, full.to_string(), actions)
    }
}

/// The plan as a person would read it: the log, `docket plan` and the tests print this.
pub fn render(plan: &Plan) -> String {
    let mut text = String::new();
    for (name, session) in plan {
        let _ = write!(text, "{name} {session}"); // Writing to a String does not fail.
    }
    text
}
