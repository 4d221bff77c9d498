//! Phases, conditions and the closed list of reasons.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Where a session is, in one word, for people.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Phase {
    /// Admitted or queued; nothing made yet.
    Pending,
    /// Workspace, files, port, image.
    Preparing,
    /// Container made or started, not yet ready.
    Starting,
    /// Ready.
    Running,
    /// Runs, and a probe or a sync fails.
    Degraded,
    /// Ended and about to be started again.
    Restarting,
    /// Ended again and again; waits.
    CrashLoop,
    /// A new generation replaces the container.
    Updating,
    /// Left alone on request.
    Suspended,
    /// The container is gone on request; workspace and port are kept.
    Stopped,
    /// On its way out.
    Terminating,
    /// Its spec is not acceptable and there is no earlier one.
    Rejected,
    /// Ended and not to be started again, or cannot be started until its spec changes.
    Failed,
    /// The engine or the sources cannot be seen.
    Unknown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a condition is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionType {
    /// All that was asked for is there and answers.
    Ready,
    /// The spec in force is the one asked for.
    Accepted,
    /// The workspace directory is there and the right one.
    WorkspaceReady,
    /// The files that must be there before the start are there.
    FilesReady,
    /// A host port is leased and not contested.
    PortReady,
    /// The image is on the engine and pinned.
    ImageReady,
    /// The container runs.
    ContainerReady,
    /// The last probe was a 200.
    Healthy,
    /// The container is of the generation asked for.
    UpToDate,
    /// Everything in the workspace is stored.
    FilesSynced,
    /// Work is under way. Only while true.
    Reconciling,
    /// Nothing will happen without a change from outside. Only while true.
    Stalled,
    /// Left alone on request. Only while true.
    Suspended,
    /// The engine does not answer. Only while true.
    RuntimeUnresponsive,
    /// Its source is gone and its end is held. Only while true.
    PruneHeld,
}

/// A condition's three values.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a condition has its value. A closed list: machines may match on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, for documents and tests.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// Its name, as machines know it.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)*
                }
            }
        }
    };
}

impl Reason {
    /// Whether a failure for this reason is no spec's doing: with another spec it would be the same.
    /// So it is waited for, and never the cause to go back to an earlier spec.
    pub const fn is_circumstance(self) -> bool {
        matches!(
            self,
            Reason::PortConflict
                | Reason::NameConflict
                | Reason::EngineUnreachable
                | Reason::LowSpace
                | Reason::InProgress
        )
    }
}

reasons! {
    /// Everything is as wanted.
    Converged,
    /// It is being brought about right now.
    InProgress,
    /// Nothing was tried yet.
    NotStarted,
    /// Another condition must hold first.
    Waiting,
    /// The spec was taken.
    Accepted,
    /// The file cannot be parsed; the last good spec stays in force.
    InvalidSpec,
    /// A value is over the class's `limits` or a forbidden loosening.
    LimitExceeded,
    /// The operator's `allow` does not cover it.
    NotAllowed,
    /// There is no such class.
    ClassNotFound,
    /// Two sources name this session.
    DuplicateName,
    /// Another session has this (user, case).
    WorkspaceInUse,
    /// The source cannot be read or is incomplete: held.
    SourceUnreadable,
    /// The file vanished and the prune guard holds, or confirmation is asked for.
    PruneGuard,
    /// `docket.dev/prune: confirm`.
    ConfirmationRequired,
    /// `docket.dev/prune: disabled`.
    PruneDisabled,
    /// Rebuilt after a loss of state; its source was not seen yet.
    SourceUnknown,
    /// A limit on sessions is reached: queued.
    LimitReached,
    /// No host port is free.
    PoolExhausted,
    /// Somebody else holds the port; another is taken.
    PortConflict,
    /// The fixed port is leased to another session.
    PortInUse,
    /// The image is not there.
    ImageMissing,
    /// The image could not be pulled.
    ImagePullFailed,
    /// The container could not be made.
    CreateFailed,
    /// The container could not be started.
    StartFailed,
    /// PID 1 cannot be executed.
    CommandInvalid,
    /// The engine left out a hardening setting.
    HardeningDropped,
    /// A foreign container has the name.
    NameConflict,
    /// No 200 within `health.startup`.
    StartupTimeout,
    /// Probes fail.
    ProbeFailing,
    /// No probe answered yet.
    ProbeUnknown,
    /// The container has no port: there is nothing to probe.
    NoProbe,
    /// PID 1 ended by itself, with a failure.
    Error,
    /// PID 1 was killed from outside.
    Killed,
    /// PID 1 was killed for memory.
    OutOfMemory,
    /// docket asked for it.
    Requested,
    /// The engine's restart ended it.
    EngineRestart,
    /// Liveness failed and docket stopped it.
    Unhealthy,
    /// It ended well and the policy does not start it again.
    Completed,
    /// It ended again and again.
    CrashLoopBackOff,
    /// `state: Stopped` or `docket stop`.
    Stopped,
    /// `lifetime.maxAge` is over.
    Expired,
    /// `lifetime.idleTimeout` is over.
    Idle,
    /// `suspend: true` or `docket suspend`.
    Suspended,
    /// The container is paused by somebody.
    Paused,
    /// Paused by docket: too much was written, or the disk is full.
    DiskPressure,
    /// The new generation never got ready; the last good one runs.
    RolledBack,
    /// The new generation comes with the next start.
    PendingNextStart,
    /// `update.strategy: Never`.
    UpdateDisabled,
    /// A new generation replaces the container.
    Updating,
    /// It is ending.
    Terminating,
    /// The engine cannot be reached.
    EngineUnreachable,
    /// The workspace could not be made.
    WorkspaceFailed,
    /// The workspace was not looked at yet, or cannot be: nothing is known of it.
    WorkspaceUnknown,
    /// Another directory stands where the workspace was.
    WorkspaceReplaced,
    /// The workspace directory is gone.
    WorkspaceMissing,
    /// No space below `minFree`.
    LowSpace,
    /// The workspace is at its quota: nothing more comes from the store.
    QuotaExceeded,
    /// The manifest cannot be read, or is gone though earlier ones exist.
    ManifestUnavailable,
    /// The manifest has an entry that is refused.
    ManifestInvalid,
    /// An object the manifest names is not there.
    ObjectMissing,
    /// Contents that came are not what was announced.
    ContentCorrupt,
    /// The store cannot be reached.
    StoreUnavailable,
    /// The store refuses.
    StoreDenied,
    /// Everything is stored.
    Synced,
    /// Edits wait for the next sync.
    Unsynced,
    /// Files were skipped by a limit.
    FileSkipped,
    /// The secret's file cannot be used.
    SecretUnavailable,
    /// The ledger cannot be written.
    LedgerFailed,
    /// An internal assertion failed; only this session stands still.
    InternalError,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One condition, as Kubernetes has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// Its value.
    pub status: Truth,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people; one line.
    pub message: String,
    /// The generation it was worked out for.
    pub observed_generation: u64,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
}
