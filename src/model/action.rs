//! What is to be done: one effect each, with nothing left to choose. The text of an action is
//! what the log, `docket plan` and the tests print.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::condition::{Phase, Reason};
use super::name::{ContainerId, Uid};
use super::record::{Applied, Operation, Source, Termination};
use super::spec::{PullPolicy, Resources};

/// Which container an action is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// One that was seen.
    Seen(ContainerId),
    /// The one that an earlier action of the same plan makes.
    Made,
}

/// When files go back to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncKind {
    /// Now and then, or asked for.
    Background,
    /// Before a stop, one attempt of at most 20 s; its failure stops nothing.
    PreStop,
    /// After the process is gone, by checksum: nothing is removed before it succeeded.
    Final,
}

/// One effect. Each can be run twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Writes the record: from here on a teardown is owed. The executor mints the uid.
    Admit {
        /// The spec in force from now on.
        applied: Box<Applied>,
        /// Where it came from.
        source: Source,
        /// The port leased with it, if it needs one.
        port: Option<u16>,
    },
    /// Takes a changed spec into force.
    Adopt {
        /// The new spec in force.
        applied: Box<Applied>,
        /// Where it came from.
        source: Source,
        /// What the one before is kept as: the last good one.
        keep_last_good: bool,
    },
    /// Goes back to the last good spec.
    RollBack {
        /// What the failed one met.
        message: String,
    },
    /// Leases a port, in the ledger before use.
    LeasePort {
        /// Which.
        port: u16,
        /// The port given up for it, contested by somebody else.
        instead_of: Option<u16>,
    },
    /// Makes the workspace directory and its folders.
    CreateWorkspace,
    /// Fetches the files that must be there before the start.
    Hydrate,
    /// Resolves the image to an id and pins it.
    ResolveImage {
        /// As written.
        reference: String,
        /// When to pull.
        policy: PullPolicy,
    },
    /// Makes a container under the next deterministic name.
    CreateContainer {
        /// Number of the container.
        attempt: u32,
        /// Host port, if it has one.
        port: Option<u16>,
    },
    /// Starts a container.
    StartContainer {
        /// Which.
        target: Target,
        /// A restart is counted.
        restart: bool,
    },
    /// Stops a container.
    StopContainer {
        /// Which.
        id: ContainerId,
        /// Its number.
        attempt: u32,
        /// Time between SIGTERM and SIGKILL.
        grace: Duration,
        /// What for: how the exit is to be read.
        reason: Reason,
    },
    /// Removes a stopped container.
    RemoveContainer {
        /// Which.
        id: ContainerId,
        /// Its number.
        attempt: u32,
        /// When it was last started, as far as that was seen: if it was started since, what it
        /// wrote is not stored.
        started_at: Option<super::Timestamp>,
    },
    /// Changes limits in place.
    UpdateResources {
        /// Which.
        id: ContainerId,
        /// To these.
        resources: Resources,
    },
    /// Freezes a container.
    PauseContainer {
        /// Which.
        id: ContainerId,
        /// Why.
        reason: Reason,
    },
    /// Thaws a container.
    UnpauseContainer {
        /// Which.
        id: ContainerId,
    },
    /// Takes note how PID 1 ended, before the proof is gone.
    NoteTermination(Termination),
    /// Takes note of a failure that is not of a call: the gate closes for a while.
    NoteFailure {
        /// Which gate.
        operation: Operation,
        /// Why.
        reason: Reason,
        /// For people.
        message: String,
        /// Holds until the spec changes.
        terminal: bool,
    },
    /// Takes note that it is ready, of this generation.
    NoteReady {
        /// Which.
        generation: u64,
    },
    /// Takes note that it is not ready any more.
    NoteNotReady,
    /// Opens a gate: what failed before works now.
    ClearFailures {
        /// Which gate.
        operation: Operation,
    },
    /// Ends it by its lifetime, until `docket start` or a new generation.
    Retire {
        /// Expired or Idle.
        reason: Reason,
    },
    /// Syncs files back.
    Sync {
        /// Which kind.
        kind: SyncKind,
    },
    /// Begins the end; never undone.
    BeginEnding {
        /// Why.
        cause: String,
    },
    /// Moves the workspace directory to the trash.
    TrashWorkspace,
    /// Removes what was moved to the trash.
    EmptyTrash,
    /// Frees the port and drops the record: nothing is owed any more.
    DropRecord,
    /// Removes a container that the engine made for a session after that session was over: a
    /// creation that was given up as unanswered came late.
    RemoveLate {
        /// Which.
        id: ContainerId,
    },
    /// Takes an orphan into the ledger: a container of ours without a record.
    Rebuild {
        /// What was found, for people.
        found: String,
        /// The uid on its labels.
        uid: Uid,
        /// Its number.
        attempt: u32,
        /// The host port it is published on.
        port: Option<u16>,
        /// The image it was made from.
        image_id: Option<String>,
        /// The spec in force from now on.
        applied: Box<Applied>,
        /// Where that came from; `None`: from its labels, and no source is known.
        source: Option<Source>,
    },
}

/// What to do for one session, in order; a step that fails ends it until the next look.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionPlan {
    /// Where the session is.
    pub phase: Phase,
    /// Why anything is done, or why nothing is; one line.
    pub cause: String,
    /// What stands in the way, for machines; `cause` says it for people.
    pub reason: Option<Reason>,
    /// Place in the queue, from 1, while a limit holds it back.
    pub queue: Option<u64>,
    /// The steps.
    pub actions: Vec<Action>,
    /// When time alone changes the plan next.
    pub wake_at: Option<super::Timestamp>,
}

impl fmt::Display for SessionPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is {}", self.phase)?;
        if !self.cause.is_empty() {
            write!(f, ": {}", self.cause)?;
        }
        writeln!(f)?;
        for action in &self.actions {
            writeln!(f, "  {action}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Seen(id) => write!(f, " {id}"),
            Target::Made => Ok(()),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Admit { port: Some(port), .. } => write!(f, "admit with port {port}"),
            Action::Admit { port: None, .. } => f.write_str("admit"),
            Action::Adopt { applied, .. } => write!(f, "adopt generation {}", applied.generation),
            Action::RollBack { message } => write!(f, "roll back to the last good spec: {message}"),
            Action::LeasePort { port, instead_of: None } => write!(f, "lease port {port}"),
            Action::LeasePort { port, instead_of: Some(old) } => {
                write!(f, "quarantine port {old} and lease port {port}")
            }
            Action::CreateWorkspace => f.write_str("create workspace"),
            Action::Hydrate => f.write_str("hydrate files"),
            Action::ResolveImage { reference, .. } => write!(f, "resolve image {reference}"),
            Action::CreateContainer { attempt, port: Some(port) } => {
                write!(f, "create container {attempt} on port {port}")
            }
            Action::CreateContainer { attempt, port: None } => {
                write!(f, "create container {attempt}")
            }
            Action::StartContainer { target, restart: false } => {
                write!(f, "start container{target}")
            }
            Action::StartContainer { target, restart: true } => {
                write!(f, "restart container{target}")
            }
            Action::StopContainer { id, grace, reason, .. } => {
                write!(f, "stop container {id} within {}s ({reason})", grace.as_secs())
            }
            Action::RemoveContainer { id, attempt, .. } => {
                write!(f, "remove container {attempt} {id}")
            }
            Action::UpdateResources { id, .. } => write!(f, "change limits of container {id}"),
            Action::PauseContainer { id, reason } => write!(f, "pause container {id} ({reason})"),
            Action::UnpauseContainer { id } => write!(f, "unpause container {id}"),
            Action::NoteTermination(end) => match end.exit_code {
                Some(code) => write!(f, "note the end: {} with {code}", end.reason),
                None => write!(f, "note the end: {}", end.reason),
            },
            Action::NoteFailure { reason, message, .. } => {
                write!(f, "note failure: {reason}: {message}")
            }
            Action::NoteReady { generation } => write!(f, "note ready, generation {generation}"),
            Action::NoteNotReady => f.write_str("note not ready"),
            Action::ClearFailures { operation } => write!(f, "forget failures of {operation:?}"),
            Action::Retire { reason } => write!(f, "end its lifetime ({reason})"),
            Action::Sync { kind: SyncKind::Background } => f.write_str("sync files"),
            Action::Sync { kind: SyncKind::PreStop } => f.write_str("sync files before the stop"),
            Action::Sync { kind: SyncKind::Final } => f.write_str("sync files by checksum"),
            Action::BeginEnding { cause } => write!(f, "begin the end: {cause}"),
            Action::TrashWorkspace => f.write_str("move workspace to the trash"),
            Action::EmptyTrash => f.write_str("remove workspace from the trash"),
            Action::DropRecord => f.write_str("release port and record"),
            Action::RemoveLate { id } => {
                write!(f, "remove container {id}, which came after its session's end")
            }
            Action::Rebuild { found, .. } => write!(f, "rebuild the record from {found}"),
        }
    }
}
