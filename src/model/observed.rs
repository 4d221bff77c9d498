//! What was seen of the outside. Three-valued: seen, absent, unknown; only a complete listing
//! proves absence.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::name::{ContainerId, SessionName, Uid};
use super::spec::Resources;

/// The answer of a look: known, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// The look was complete; `T` is the truth as of then.
    Known(T),
    /// The look failed or was not made: nothing may follow from it.
    Unknown(String),
}

impl<T> Look<T> {
    /// The value if known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Look::Known(value) => Some(value),
            Look::Unknown(_) => None,
        }
    }
}

/// One container of ours, from LIST and, where it changed, inspect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's id.
    pub id: ContainerId,
    /// The container's name, without the leading slash.
    pub name: String,
    /// Label `docket.dev/session`.
    pub session: SessionName,
    /// Label `docket.dev/uid`.
    pub uid: Uid,
    /// Label `docket.dev/attempt`.
    pub attempt: u32,
    /// Label `docket.dev/spec-hash`.
    pub spec_hash: String,
    /// Label `docket.dev/user`.
    pub user: String,
    /// Label `docket.dev/case`.
    pub case: String,
    /// What the engine says it does.
    pub state: ContainerState,
    /// What inspect adds; `None` until it was inspected in this state.
    pub detail: Option<ContainerDetail>,
}

/// The engine's state of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made and never started, or its start failed.
    Created,
    /// PID 1 lives.
    Running,
    /// Frozen by the cgroup freezer.
    Paused,
    /// The engine itself restarts it (never with our policy `no`).
    Restarting,
    /// PID 1 ended.
    Exited,
    /// A removal is under way.
    Removing,
    /// The engine failed to remove it.
    Dead,
}

/// What only inspect tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerDetail {
    /// Id of the image it was made from.
    pub image_id: String,
    /// When PID 1 last started; `None`: never.
    pub started_at: Option<Timestamp>,
    /// When PID 1 last ended; `None`: never, or it runs.
    pub finished_at: Option<Timestamp>,
    /// PID 1's exit code, if it ended.
    pub exit_code: Option<i64>,
    /// The kernel killed PID 1 for memory. Only to be believed if no stop was asked for.
    pub oom_killed: bool,
    /// The engine's own error text (a failed start), empty if none.
    pub error: String,
    /// PID 1 on the host, if it runs here.
    pub pid: Option<i32>,
    /// Where the container port is published, if it is.
    pub published: Option<SocketAddr>,
    /// The container's own address on its network.
    pub inner: Option<IpAddr>,
    /// Limits in force.
    pub resources: Resources,
}

/// A health probe's outcome over time, as the prober keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Health {
    /// No probe of this start has answered yet, or none could be made.
    #[default]
    Unknown,
    /// The last probe was a 200, through the published address at least once since the start.
    Passing,
    /// So many probes in a row failed, the last for this reason.
    Failing {
        /// Failures in a row.
        count: u32,
        /// What the last probe met.
        message: String,
    },
}

/// The identity of a directory: what a path names, beyond its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceId {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// A workspace directory that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceSeen {
    /// Device and inode.
    pub id: WorkspaceId,
    /// The uid in `trusted.docket.uid`, if it can be read.
    pub uid: Option<Uid>,
}

/// What scans and syncs of a workspace last told; counts for status and for the planner.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FilesSeen {
    /// Files in the workspace's last known state.
    pub total: u64,
    /// Of those, with contents here.
    pub local: u64,
    /// Of those, not fetched yet.
    pub lazy: u64,
    /// Files whose contents are not known to be stored.
    pub unsynced: u64,
    /// Their bytes.
    pub unsynced_bytes: u64,
    /// Files that are not synced; `docket files` says why.
    pub skipped: u64,
    /// Of those, how many keep the session from ending.
    pub blocking: u64,
    /// Of those, how many match `sync.exclude`.
    pub excluded: u64,
    /// Conflict copies made so far.
    pub conflicts: u64,
    /// Bytes of regular files here.
    pub bytes: u64,
    /// When the last complete scan ended.
    pub last_scan: Option<Timestamp>,
}

/// Space on the file system of the workspaces, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What an unprivileged writer could still use.
    pub free: u64,
}

/// One sample of what a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// CPU per cent between two samples; 100 is one core.
    pub cpu_percent: f64,
    /// Bytes, page cache that can be dropped not counted, as `docker stats` reckons.
    pub memory_bytes: u64,
    /// Limit in bytes.
    pub memory_limit_bytes: u64,
    /// Bytes received over all interfaces but lo.
    pub network_rx_bytes: u64,
    /// Bytes sent.
    pub network_tx_bytes: u64,
}
