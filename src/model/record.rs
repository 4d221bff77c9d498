//! What is remembered of a session: facts that cannot be observed. While a record stands, a
//! teardown is owed, spec or no spec.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::condition::{ConditionType, Reason, Truth};
use super::file::FileState;
use super::name::{CaseName, ContainerId, SessionName, Uid, UserName};
use super::observed::{FilesSeen, WorkspaceId};
use super::spec::{DesiredState, Resolved, SessionObject};

/// The format of [`Record`]; a newer one is held and not rewritten.
pub const RECORD_VERSION: u32 = 1;

/// Everything remembered of one session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_VERSION`] when it was written.
    pub version: u32,
    /// Made at admission.
    pub uid: Uid,
    /// The session's name.
    pub name: SessionName,
    /// Whose it is.
    pub user: UserName,
    /// Which case.
    pub case: CaseName,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// Where its spec came from last.
    pub source: Source,
    /// The spec in force.
    pub applied: Applied,
    /// The last spec that got ready, if it is not the one in force.
    pub last_good: Option<Applied>,
    /// Generation that was rolled back from: not tried again.
    pub rolled_back: Option<RolledBack>,
    /// Leased host port.
    pub port: Option<u16>,
    /// Number of the newest container, made or about to be made; 0: none yet.
    pub attempt: u32,
    /// The workspace directory.
    pub workspace: Option<WorkspaceId>,
    /// The directory was there before this record: what is in it may be nowhere else.
    pub adopted: bool,
    /// The files that must be there before the start were there once.
    pub hydrated: bool,
    /// An effect that was begun: written before it, cleared by observation.
    pub intent: Option<Intent>,
    /// Back-off facts by operation.
    pub failures: BTreeMap<Operation, Failure>,
    /// Restarts of the container in its current attempt series.
    pub restarts: u32,
    /// How PID 1 last ended.
    pub last_termination: Option<Termination>,
    /// Since when it has been ready without a break; `None`: it is not.
    pub ready_since: Option<Timestamp>,
    /// The generation that was last seen ready.
    pub ready_generation: u64,
    /// Ended by lifetime until `docket start` or a new generation.
    pub retired: Option<Retired>,
    /// When its container was last started on request or for a new generation.
    pub active_since: Option<Timestamp>,
    /// When a container of it was first started since then; its age counts from here.
    #[serde(default)]
    pub ran_since: Option<Timestamp>,
    /// docket itself paused the container, and why.
    pub paused: Option<Reason>,
    /// `docket stop|start`: wins over the file until the opposite, or until the file changes it.
    pub state_override: Option<Override<DesiredState>>,
    /// `docket suspend|resume`.
    pub suspend_override: Option<Override<bool>>,
    /// `docket restart` wants a container newer than this attempt.
    pub restart_after: Option<u32>,
    /// It is ending; never undone.
    pub ending: Option<Ending>,
    /// What the last scan and sync told.
    pub files: FilesSeen,
    /// When the last sync committed or found nothing to do.
    pub last_sync: Option<Timestamp>,
    /// Skipped, conflicting and other remarkable files of the last scan, at most 1,000.
    pub remarks: Vec<FileState>,
    /// Rebuilt after a loss of state and its source not seen yet.
    pub source_unseen: bool,
    /// When each condition last changed its value.
    pub transitions: BTreeMap<ConditionType, (Truth, Timestamp)>,
}

/// A spec in force and what it was pinned to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// Counts the specs that were in force, from 1.
    pub generation: u64,
    /// The object as its author wrote it.
    pub object: SessionObject,
    /// The class's hash it was resolved with.
    pub class_hash: String,
    /// With the class merged in.
    pub resolved: Resolved,
    /// The image it was pinned to; `None`: not resolved yet.
    pub image: Option<ImagePin>,
}

/// An image reference and the id it was resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePin {
    /// `sha256:...`
    pub id: String,
    /// The image's `USER`.
    pub user: String,
}

/// Where a spec came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// A file under the watched directory, path relative to it.
    File(String),
    /// `docket apply`.
    Applied,
}

/// A generation that never got ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Hash of the session's object.
    pub object_hash: String,
    /// Hash of the class.
    pub class_hash: String,
    /// What it met.
    pub message: String,
}

/// An effect that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What.
    pub operation: Operation,
    /// On which container.
    pub attempt: u32,
    /// When.
    pub at: Timestamp,
    /// What for: how an exit that follows is to be read.
    pub reason: Reason,
}

/// What can fail and be tried again later, each with a gate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Make or look at the workspace.
    Workspace,
    /// Fetch files.
    Hydrate,
    /// Resolve or pull the image.
    Image,
    /// Make the container.
    Create,
    /// Start the container.
    Start,
    /// Keep the container running: exits, failed liveness, startup time-outs.
    Run,
    /// Stop the container.
    Stop,
    /// Remove a container.
    Remove,
    /// Change limits in place, pause, unpause.
    Update,
    /// Sync files back.
    Sync,
    /// Remove the workspace directory.
    Cleanup,
}

impl Operation {
    /// All of them.
    pub const ALL: &'static [Operation] = &[
        Operation::Workspace,
        Operation::Hydrate,
        Operation::Image,
        Operation::Create,
        Operation::Start,
        Operation::Run,
        Operation::Stop,
        Operation::Remove,
        Operation::Update,
        Operation::Sync,
        Operation::Cleanup,
    ];
}

/// A failed operation: facts only; when it may run again follows from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Failures in a row.
    pub count: u32,
    /// When the last one was.
    pub at: Timestamp,
    /// Not to be tried before; worked out with jitter when it failed.
    pub not_before: Timestamp,
    /// Why.
    pub reason: Reason,
    /// What it met, one line.
    pub message: String,
    /// Holds until the spec changes.
    pub terminal: bool,
}

/// How PID 1 ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// Which container.
    pub attempt: u32,
    /// Error, Killed, OutOfMemory, Requested, EngineRestart, Unhealthy, StartupTimeout, Completed.
    pub reason: Reason,
    /// PID 1's exit code.
    pub exit_code: Option<i64>,
    /// When, by the engine.
    pub finished_at: Option<Timestamp>,
}

/// Ended by its lifetime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Expired or Idle.
    pub reason: Reason,
    /// Since when.
    pub at: Timestamp,
}

/// A wish by command that wins over the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override<T> {
    /// What is wanted instead.
    pub value: T,
    /// What the file said then; when it says something else, the override is over.
    pub file_said: T,
    /// Since when.
    pub at: Timestamp,
}

/// A session on its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Since when.
    pub since: Timestamp,
    /// Why: its file went, `docket delete`, confirmed prune.
    pub cause: String,
    /// Unsynced edits are given up (into the trash).
    pub discard: bool,
    /// The one sync while it still ran was tried.
    pub pre_synced: bool,
    /// The sync after the process was gone succeeded: everything is stored.
    pub final_synced: bool,
    /// Its containers' last starts before that sync. One that was started since, by a call that
    /// landed late, may have written since.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub followed: BTreeMap<ContainerId, Timestamp>,
    /// The directory was moved to the trash.
    pub trashed: bool,
}

/// Something that happened, for `docket events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Counts up; resumable.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Which session; `None`: the operator itself.
    pub session: Option<SessionName>,
    /// Whether a person should look.
    pub warning: bool,
    /// One word for machines, e.g. `Started`, `PortConflict`.
    pub reason: String,
    /// For people, one line.
    pub message: String,
}

impl Record {
    /// A record at admission: nothing was done yet.
    pub fn admit(uid: Uid, applied: Applied, source: Source, now: Timestamp) -> Record {
        Record {
            version: RECORD_VERSION,
            uid,
            name: applied.object.name.clone(),
            user: applied.object.user.clone(),
            case: applied.object.case.clone(),
            created_at: now,
            source,
            applied,
            last_good: None,
            rolled_back: None,
            port: None,
            attempt: 0,
            workspace: None,
            adopted: false,
            hydrated: false,
            intent: None,
            failures: BTreeMap::new(),
            restarts: 0,
            last_termination: None,
            ready_since: None,
            ready_generation: 0,
            retired: None,
            active_since: Some(now),
            ran_since: None,
            paused: None,
            state_override: None,
            suspend_override: None,
            restart_after: None,
            ending: None,
            files: FilesSeen::default(),
            last_sync: None,
            remarks: Vec::new(),
            source_unseen: false,
            transitions: BTreeMap::new(),
        }
    }

    /// Its time begins anew: its age counts from now if it is ready, else from its next start.
    pub fn activate(&mut self, now: Timestamp) {
        self.active_since = Some(now);
        self.ran_since = self.ready_since.map(|_| now);
    }

    /// The state wanted now: the override if there is one, else the spec's.
    pub fn wanted_state(&self) -> DesiredState {
        self.state_override.as_ref().map_or(self.applied.object.state, |o| o.value)
    }

    /// Whether the workspace may hold bytes that are nowhere else.
    pub fn has_files(&self) -> bool {
        self.workspace.is_some() && (self.hydrated || self.adopted || self.attempt > 0)
    }

    /// Whether it is to be left alone.
    pub fn wanted_suspend(&self) -> bool {
        self.suspend_override.as_ref().map_or(self.applied.object.suspend, |o| o.value)
    }
}
