//! What is wanted of one session, with nothing left open: class merged in, defaults filled,
//! variables expanded, limits checked. INTERFACE section 1 is where every field is promised.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::{CaseName, ClassName, ContainerPrefix, Installation, SessionName, UserName};

/// One `kind: Session` object as its author wrote it, names parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionObject {
    /// `metadata.name`, or the name derived from user and case.
    pub name: SessionName,
    /// `metadata.labels`, what `-l` selects by.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Whose session it is.
    pub user: UserName,
    /// Which case it is about.
    pub case: CaseName,
    /// The class it takes its defaults and limits from.
    pub class: ClassName,
    /// Whether its container should run.
    pub state: DesiredState,
    /// No container or health action while true.
    pub suspend: bool,
    /// The object as JSON (apiVersion, kind, metadata, spec), as `docket get -o json` prints it.
    pub raw: serde_json::Value,
    /// sha256 (hex) of the canonical JSON of `spec` without `state` and `suspend`: two objects
    /// with one hash want the same container, files and rules.
    pub hash: String,
}

impl SessionObject {
    /// What a vanished file means for this session.
    pub fn prune(&self) -> Prune {
        match self.annotations.get("docket.dev/prune").map(String::as_str) {
            Some("confirm") => Prune::Confirm,
            Some("disabled") => Prune::Disabled,
            _ => Prune::Enabled,
        }
    }
}

/// The annotation `docket.dev/prune`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prune {
    /// A vanished file ends the session, within the prune guard.
    Enabled,
    /// A vanished file holds the session until `docket confirm-prune`.
    Confirm,
    /// A vanished file never ends the session.
    Disabled,
}

/// One `kind: SessionClass` object as its author wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassObject {
    /// `metadata.name`.
    pub name: ClassName,
    /// The object as JSON.
    pub raw: serde_json::Value,
    /// sha256 (hex) of the canonical JSON of `spec`.
    pub hash: String,
}

/// Whether a session's container should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// The container runs and answers.
    #[default]
    Running,
    /// The container is removed; workspace and port are kept.
    Stopped,
}

/// A session's whole will: the only form the planner and the doors see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Whose session it is.
    pub user: UserName,
    /// Which case it is about.
    pub case: CaseName,
    /// The class it was merged with.
    pub class: ClassName,
    /// `spec.container`.
    pub container: ContainerSpec,
    /// `spec.health`.
    pub health: HealthSpec,
    /// `spec.restart`.
    pub restart: RestartSpec,
    /// `spec.workspace`.
    pub workspace: WorkspaceSpec,
    /// `spec.lifetime`.
    pub lifetime: Lifetime,
    /// `spec.update`.
    pub update: UpdateSpec,
}

/// `spec.container`, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Image reference as written; the id it was pinned to is in the record.
    pub image: String,
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// Entrypoint; empty: the image's.
    pub command: Vec<String>,
    /// Arguments; empty: the image's.
    pub args: Vec<String>,
    /// The whole environment, `$(NAME)` expanded, `USER_ID`, `CASE_ID`, `WORKSPACE_BASE` included.
    pub env: BTreeMap<String, String>,
    /// Read-only files `/run/secrets/{name}` and the host file each comes from, expanded.
    pub secrets: BTreeMap<String, PathBuf>,
    /// Container port; 0: none, and no health probe either.
    pub port: u16,
    /// Fixed host port; 0: leased from the operator's range.
    pub host_port: u16,
    /// What the container may use. The only part that changes in place.
    pub resources: Resources,
    /// How the container is locked down.
    pub security: Security,
    /// Target path to mount options, e.g. `/tmp` to `rw,noexec,nosuid,size=1g`.
    pub tmpfs: BTreeMap<String, String>,
    /// Host directories the operator allowed.
    pub mounts: Vec<MountSpec>,
    /// Which network it joins.
    pub network: Network,
    /// A tiny init as PID 1 that forwards signals and reaps.
    pub init: bool,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// Labels copied to the container; never `docket.dev/`.
    pub labels: BTreeMap<String, String>,
    /// Rotation of the container's log.
    pub logs: LogSpec,
}

/// `container.resources`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of a core.
    pub nano_cpus: u64,
    /// Bytes; swap is set to the same, so there is none beyond it.
    pub memory: u64,
    /// Most processes and threads.
    pub pids: u32,
}

/// `container.security`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// `uid:gid`; empty: the image's `USER`.
    pub run_as: String,
    /// Capabilities dropped, upper case without `CAP_`, sorted.
    pub cap_drop: Vec<String>,
    /// Capabilities added, upper case without `CAP_`, sorted.
    pub cap_add: Vec<String>,
    /// No gain of privileges by setuid programs.
    pub no_new_privileges: bool,
    /// System-call filter.
    pub seccomp: Seccomp,
    /// The root file system is read-only.
    pub read_only_rootfs: bool,
    /// The engine's socket is mounted: root on the host, so only where the operator allows it.
    pub docker_socket: bool,
}

/// `security.seccomp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// The engine's own profile.
    RuntimeDefault,
    /// No filter; only where the operator allows it.
    Unconfined,
    /// A profile file the operator allows.
    Profile(PathBuf),
}

/// `container.pullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Pull at every resolution.
    Always,
    /// Pull if the engine does not have it.
    #[default]
    IfNotPresent,
    /// Never pull.
    Never,
}

/// One of `container.mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Host directory, below one of `allow.hostPaths`.
    pub source: PathBuf,
    /// Where it appears in the container.
    pub target: PathBuf,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// `container.network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// docket's own bridge `docket-{installation}`: containers cannot reach each other.
    Docket,
    /// The engine's default bridge.
    Bridge,
    /// No network; needs port 0.
    None,
    /// A network the operator named in `allow.networks`.
    Named(String),
}

/// `container.logs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// Bytes of one log file.
    pub max_size: u64,
    /// How many are kept.
    pub max_files: u32,
}

/// `spec.health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// Path asked by GET; 200 is healthy.
    pub path: String,
    /// How long a started container may take to its first 200.
    pub startup: Duration,
    /// Time between probes afterwards.
    pub interval: Duration,
    /// Whole time one probe may take.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy.
    pub failures: u32,
}

/// `restart.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// After every exit.
    #[default]
    Always,
    /// After an exit other than 0.
    OnFailure,
    /// Never.
    Never,
}

/// `spec.restart`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    /// When an ended container is started again.
    pub policy: RestartPolicy,
    /// Wait before the first restart.
    pub initial_delay: Duration,
    /// Longest wait.
    pub max_delay: Duration,
    /// Ready for this long: the count begins anew.
    pub reset_after: Duration,
}

/// `workspace.scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Scope {
    /// `{mountPath}/active/{case}` alone is the mount.
    #[default]
    Case,
    /// All of the user's tree is mounted at `mountPath`.
    User,
}

/// `spec.workspace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceSpec {
    /// Where the workspace appears in the container.
    pub mount_path: PathBuf,
    /// How much of the user's tree is mounted.
    pub scope: Scope,
    /// Standard folders, each with `.gitkeep`; single components.
    pub folders: Vec<String>,
    /// `uid:gid` that owns the files; empty: `runAs`, else the image's `USER`, else root.
    pub owner: String,
    /// Soft limit in bytes; 0: none.
    pub quota: u64,
    /// Most files a scan looks at.
    pub max_files: u64,
    /// Largest file that is synced, bytes.
    pub max_file_size: u64,
    /// Deepest directory.
    pub max_depth: u32,
    /// How files arrive.
    pub files: FilesSpec,
    /// Time between background syncs.
    pub sync_interval: Duration,
    /// Globs of paths that are never synced.
    pub sync_exclude: Vec<String>,
}

/// `workspace.files.large`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LargeFiles {
    /// Fetched when opened.
    #[default]
    OnAccess,
    /// A `.stub` file stands for it until `docket hydrate`.
    Stub,
    /// Fetched before the container starts.
    Eager,
}

/// `workspace.files`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesSpec {
    /// Files smaller than this many bytes are fetched before the container starts.
    pub eager_below: u64,
    /// What happens to the others.
    pub large: LargeFiles,
    /// Bytes a second of background fetching; 0: off.
    pub prefetch: u64,
    /// Longest wait of one `open()`.
    pub open_deadline: Duration,
}

/// `spec.lifetime`; zero means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifetime {
    /// Since admission or the last start.
    pub max_age: Duration,
    /// Since the last sign of use.
    pub idle_timeout: Duration,
}

/// `update.strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UpdateStrategy {
    /// In place where the engine can, else a new container.
    #[default]
    InPlaceOrRecreate,
    /// Always a new container.
    Recreate,
    /// The running container stays as it is.
    Never,
}

/// `update.rollout`: how an edit of the class reaches running sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Rollout {
    /// With the session's next container.
    #[default]
    OnNextStart,
    /// At once, `maxConcurrent` at a time.
    Immediate,
}

/// `update.onFailure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnFailure {
    /// Back to the last spec that got ready.
    #[default]
    Rollback,
    /// Stay and back off.
    Hold,
}

/// `spec.update`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateSpec {
    /// How a changed spec reaches the container.
    pub strategy: UpdateStrategy,
    /// How a changed class reaches running sessions.
    pub rollout: Rollout,
    /// How many sessions of a class update at once.
    pub max_concurrent: u32,
    /// What happens if the new one never gets ready.
    pub on_failure: OnFailure,
}

/// The operator's `allow` and what else bounds a class or session from outside.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// `allow.dockerSocket`.
    pub docker_socket: bool,
    /// `allow.hostPaths`: directories whose insides may be mounted.
    pub host_paths: Vec<PathBuf>,
    /// `allow.unconfinedSeccomp`.
    pub unconfined_seccomp: bool,
    /// `allow.seccompProfiles`: profile files that may be named.
    pub seccomp_profiles: Vec<PathBuf>,
    /// `allow.secretFiles`: directories whose files may become secrets.
    pub secret_files: Vec<PathBuf>,
    /// `allow.networks`.
    pub networks: Vec<String>,
    /// `allow.capabilities`.
    pub capabilities: Vec<String>,
    /// `allow.loosenHardening`.
    pub loosen_hardening: bool,
    /// First and last leasable host port.
    pub ports: (u16, u16),
}

/// What every container of this operator shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which docket on this engine.
    pub installation: Installation,
    /// What container names begin with.
    pub prefix: ContainerPrefix,
    /// Address host ports are published on.
    pub bind: IpAddr,
}
