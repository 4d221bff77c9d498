//! What may be written: the closed schema of both kinds, every field optional except the few
//! that INTERFACE promises as required. Session and class share the sections; what a session
//! may really change is decided in `resolve`.
//!
//! No `flatten` and no internally tagged enums here: both lose line and column.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::text::{
    AbsPath, Capability, ContainerKey, EnvName, Folder, Glob, HttpPath, ImageRef, Key, NetworkText,
    Owner, Plain, SeccompText, SecretName, Target, TmpfsOptions,
};
use super::value::{AnyBytes, Count, Cpus, Ignored, Map, Memory, Quantity, SomeBytes, Span, Text};
use crate::model::{
    CaseName, ClassName, DesiredState, LargeFiles, OnFailure, PullPolicy, RestartPolicy, Rollout,
    Scope, SessionName, UpdateStrategy, UserName,
};

macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default, expecting = "a map")]
        pub(super) struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }
    };
}

/// `apiVersion`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    #[serde(rename = "docket.dev/v1")]
    V1,
}

/// `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum Kind {
    Session,
    SessionClass,
}

/// A whole document of kind Session.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a map")]
#[schemars(title = "Session")]
pub(super) struct SessionDoc {
    pub api_version: ApiVersion,
    pub kind: Kind,
    #[serde(default)]
    pub metadata: SessionMeta,
    pub spec: SessionSpec,
    /// Printed by docket; read over.
    #[serde(default)]
    pub status: Ignored,
}

/// A whole document of kind SessionClass.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a map")]
#[schemars(title = "SessionClass")]
pub(super) struct ClassDoc {
    pub api_version: ApiVersion,
    pub kind: Kind,
    pub metadata: ClassMeta,
    pub spec: ClassSpec,
    /// Printed by docket; read over.
    #[serde(default)]
    pub status: Ignored,
}

section!(
    /// `metadata` of a session.
    SessionMeta {
        /// Left out: `{user}-{case}`, cleaned.
        name: Option<Text<SessionName>>,
        /// What `-l` selects by.
        labels: Option<Map<Key, Text<Plain>>>,
        /// `docket.dev/prune`: enabled, confirm or disabled.
        annotations: Option<Annotations>,
        /// Printed by docket; read over.
        uid: Ignored,
        /// Printed by docket; read over.
        generation: Ignored,
        /// Printed by docket; read over.
        creation_timestamp: Ignored,
        /// Printed by docket; read over.
        deletion_timestamp: Ignored,
    }
);

/// `metadata` of a class.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a map")]
pub(super) struct ClassMeta {
    pub name: Text<ClassName>,
    #[serde(default)]
    pub labels: Option<Map<Key, Text<Plain>>>,
    #[serde(default)]
    pub annotations: Option<Annotations>,
}

/// `metadata.annotations`; those of docket are checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Annotations(pub Map<Key, Text<Plain>>);

/// `spec` of a session.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a map")]
pub(super) struct SessionSpec {
    /// Whose session it is.
    pub user: Text<UserName>,
    /// Which case it is about.
    pub case: Text<CaseName>,
    /// Left out: `default`.
    #[serde(default)]
    pub class: Option<Text<ClassName>>,
    /// Whether its container should run. Left out: Running.
    #[serde(default)]
    #[schemars(schema_with = "desired_state")]
    pub state: Option<DesiredState>,
    /// No container or health action while true.
    #[serde(default)]
    pub suspend: Option<bool>,
    #[serde(default)]
    pub container: Option<Container>,
    #[serde(default)]
    pub health: Option<Health>,
    #[serde(default)]
    pub restart: Option<Restart>,
    #[serde(default)]
    pub workspace: Option<Workspace>,
    #[serde(default)]
    pub lifetime: Option<LifetimeSection>,
    #[serde(default)]
    pub update: Option<Update>,
}

/// `spec` of a class.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a map")]
pub(super) struct ClassSpec {
    #[serde(deserialize_with = "with_image")]
    pub container: Container,
    #[serde(default)]
    pub health: Option<Health>,
    #[serde(default)]
    pub restart: Option<Restart>,
    #[serde(default)]
    pub workspace: Option<Workspace>,
    #[serde(default)]
    pub lifetime: Option<LifetimeSection>,
    #[serde(default)]
    pub update: Option<Update>,
    #[serde(default)]
    pub limits: Option<Limits>,
}

section!(
    /// `spec.container`.
    Container {
        /// Required in a class. Resolved to an image id at admission and pinned.
        image: Option<Text<ImageRef>>,
        /// When the image is pulled. Default: IfNotPresent.
        #[schemars(schema_with = "pull_policy")]
        pull_policy: Option<PullPolicy>,
        /// Entrypoint; empty: the image's.
        command: Option<Vec<Text<Plain>>>,
        /// Arguments; empty: the image's.
        args: Option<Vec<Text<Plain>>>,
        /// Environment; `$(NAME)` as in Kubernetes.
        env: Option<Map<EnvName, Text<Plain>>>,
        /// Read-only files under /run/secrets.
        secrets: Option<Map<SecretName, Secret>>,
        /// Container port; 0: none, and no health probe either. Default: 3000.
        port: Option<Count<0, 65535>>,
        /// Fixed host port; 0: leased from the operator's range. Default: 0.
        host_port: Option<Count<0, 65535>>,
        resources: Option<ResourcesSection>,
        security: Option<SecuritySection>,
        /// Target to mount options. Default: /tmp with rw,noexec,nosuid,size=1g.
        tmpfs: Option<Map<Target, Text<TmpfsOptions>>>,
        /// Host directories that allow.hostPaths covers.
        mounts: Option<Vec<Mount>>,
        /// docket, bridge, none, or a network in allow.networks. Default: docket.
        network: Option<Text<NetworkText>>,
        /// A tiny init as PID 1. Default: true.
        init: Option<bool>,
        /// Time between SIGTERM and SIGKILL. Default: 10s.
        stop_grace_period: Option<Span<true>>,
        /// Labels copied to the container.
        labels: Option<Map<ContainerKey, Text<Plain>>>,
        logs: Option<Logs>,
    }
);

/// One of `container.secrets`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a map")]
pub(super) struct Secret {
    /// A file of the host below one of allow.secretFiles; `$(USER_ID)` and `$(CASE_ID)` are expanded.
    pub file: Text<AbsPath>,
}

/// One of `container.mounts`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a map")]
pub(super) struct Mount {
    /// A path of the host that allow.hostPaths covers.
    pub source: Text<AbsPath>,
    /// Where it appears in the container.
    pub target: Text<Target>,
    /// Default: false.
    #[serde(default)]
    pub read_only: Option<bool>,
}

section!(
    /// `container.resources`.
    ResourcesSection {
        /// Default: 2.
        cpus: Option<Quantity<Cpus>>,
        /// Default: 4Gi; no swap beyond it.
        memory: Option<Quantity<Memory>>,
        /// Default: 512.
        pids: Option<Count<1, 4_194_304>>,
    }
);

section!(
    /// `container.security`.
    SecuritySection {
        /// uid:gid; empty: the image's USER.
        run_as: Option<Text<Owner>>,
        /// Default: ALL.
        cap_drop: Option<Vec<Text<Capability>>>,
        /// Default: CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID.
        cap_add: Option<Vec<Text<Capability>>>,
        /// Default: true.
        no_new_privileges: Option<bool>,
        /// RuntimeDefault, Unconfined or the path of a profile. Default: RuntimeDefault.
        seccomp: Option<Text<SeccompText>>,
        /// Default: false.
        read_only_rootfs: Option<bool>,
        /// Default: false.
        docker_socket: Option<bool>,
    }
);

section!(
    /// `container.logs`.
    Logs {
        /// Default: 10Mi.
        max_size: Option<Quantity<SomeBytes>>,
        /// Default: 3.
        max_files: Option<Count<1, 1000>>,
    }
);

section!(
    /// `spec.health`.
    Health {
        /// Asked by GET; 200 is healthy. Default: /health.
        path: Option<Text<HttpPath>>,
        /// How long the first 200 may take. Default: 60s.
        startup: Option<Span<false>>,
        /// Default: 10s.
        interval: Option<Span<false>>,
        /// Default: 2s.
        timeout: Option<Span<false>>,
        /// Failures in a row that make it unhealthy. Default: 3.
        failures: Option<Count<1, 1000>>,
    }
);

section!(
    /// `spec.restart`.
    Restart {
        /// Default: Always.
        #[schemars(schema_with = "restart_policy")]
        policy: Option<RestartPolicy>,
        /// Default: 1s.
        initial_delay: Option<Span<false>>,
        /// Default: 60s.
        max_delay: Option<Span<false>>,
        /// Default: 10m.
        reset_after: Option<Span<false>>,
    }
);

section!(
    /// `spec.workspace`.
    Workspace {
        /// Default: /opt/workspace.
        mount_path: Option<Text<Target>>,
        /// Default: Case.
        #[schemars(schema_with = "scope")]
        scope: Option<Scope>,
        /// Standard folders, each with .gitkeep.
        folders: Option<Vec<Text<Folder>>>,
        /// uid:gid; empty: runAs, else the image's USER, else root.
        owner: Option<Text<Owner>>,
        /// Default: 10Gi; 0: none.
        quota: Option<Quantity<AnyBytes>>,
        limits: Option<ScanLimits>,
        files: Option<Files>,
        sync: Option<Sync>,
    }
);

section!(
    /// `workspace.limits`.
    ScanLimits {
        /// Default: 1000000.
        files: Option<Count<1, 1_000_000_000>>,
        /// Default: 100Gi.
        file_size: Option<Quantity<SomeBytes>>,
        /// Default: 256.
        depth: Option<Count<1, 4096>>,
    }
);

section!(
    /// `workspace.files`.
    Files {
        /// Smaller files are fetched before the start. Default: 1Mi.
        eager_below: Option<Quantity<AnyBytes>>,
        /// What happens to the others. Default: OnAccess.
        #[schemars(schema_with = "large_files")]
        large: Option<LargeFiles>,
        /// Bytes a second of background fetching; 0: off. Default: 0.
        prefetch: Option<Quantity<AnyBytes>>,
        /// Longest wait of one open. Default: 60s.
        open_deadline: Option<Span<false>>,
    }
);

section!(
    /// `workspace.sync`.
    Sync {
        /// Default: 30s.
        interval: Option<Span<false>>,
        /// Globs of paths that are never synced.
        exclude: Option<Vec<Text<Glob>>>,
    }
);

section!(
    /// `spec.lifetime`; 0s: never.
    LifetimeSection {
        /// From its first start after admission, `docket start` or a new generation; what waits does not age. Default: 0s.
        max_age: Option<Span<true>>,
        /// Since the last sign of use: traffic beyond docket's own probes, 5 % of a core, or a file
        /// of the workspace that changed. Default: 0s.
        idle_timeout: Option<Span<true>>,
    }
);

section!(
    /// `spec.update`.
    Update {
        /// Default: InPlaceOrRecreate.
        #[schemars(schema_with = "update_strategy")]
        strategy: Option<UpdateStrategy>,
        /// How an edit of the class reaches running sessions. Default: OnNextStart.
        #[schemars(schema_with = "rollout")]
        rollout: Option<Rollout>,
        /// Default: 2.
        max_concurrent: Option<Count<1, 100_000>>,
        /// Default: Rollback.
        #[schemars(schema_with = "on_failure")]
        on_failure: Option<OnFailure>,
    }
);

section!(
    /// `spec.limits` of a class: how far its sessions may go.
    Limits {
        /// Default: 16Gi.
        max_memory: Option<Quantity<Memory>>,
        /// Default: 8.
        max_cpus: Option<Quantity<Cpus>>,
        /// Default: 4096.
        max_pids: Option<Count<1, 4_194_304>>,
        /// Globs of images a session may name. Default: any.
        images: Option<Vec<Text<Glob>>>,
    }
);

/// A class without an image is no class.
fn with_image<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Container, D::Error> {
    let container = Container::deserialize(deserializer)?;
    if container.image.is_none() {
        return Err(serde::de::Error::custom(
            "missing field `image` in container: a class needs it",
        ));
    }
    Ok(container)
}

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Map::<Key, Text<Plain>>::deserialize(deserializer)?;
        if let Some(value) = map.0.get(&Key("docket.dev/prune".to_owned())) {
            super::text::prune(&value.0.0).map_err(serde::de::Error::custom)?;
        }
        Ok(Annotations(map))
    }
}

impl JsonSchema for Annotations {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Annotations".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {"docket.dev/prune": {"enum": ["enabled", "confirm", "disabled"]}},
            "additionalProperties": {"type": "string"},
        })
    }
}

macro_rules! one_of {
    ($($name:ident: $($value:literal)|+;)*) => {
        $(fn $name(_: &mut SchemaGenerator) -> Schema {
            json_schema!({"type": ["string", "null"], "enum": [$($value,)+ null]})
        })*
    };
}

one_of! {
    desired_state: "Running" | "Stopped";
    pull_policy: "Always" | "IfNotPresent" | "Never";
    restart_policy: "Always" | "OnFailure" | "Never";
    scope: "Case" | "User";
    large_files: "OnAccess" | "Stub" | "Eager";
    update_strategy: "InPlaceOrRecreate" | "Recreate" | "Never";
    rollout: "OnNextStart" | "Immediate";
    on_failure: "Rollback" | "Hold";
}
