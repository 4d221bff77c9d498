//! What users see of a session: the object with its `status`, as `docket get -o json` prints it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Condition, Phase, Progress, Termination, Timestamp};
use crate::plan::Use;

/// `{"apiVersion": "docket.dev/v1", "kind": "Session", "metadata", "spec", "status"}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// `docket.dev/v1`.
    #[schemars(extend("const" = "docket.dev/v1"))]
    pub api_version: String,
    /// `Session`.
    #[schemars(extend("const" = "Session"))]
    pub kind: String,
    /// Name, uid, generation, labels, annotations, creationTimestamp, deletionTimestamp.
    pub metadata: Metadata,
    /// The spec as its author wrote it.
    pub spec: serde_json::Value,
    /// What is.
    pub status: Status,
}

/// `metadata`.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The session's name.
    pub name: String,
    /// Empty until admitted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Counts the specs that were in force; 0 until admitted.
    pub generation: u64,
    /// As its author wrote them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// As its author wrote them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// When it was admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// When it began to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Timestamp>,
}

/// `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The generation this status is about.
    pub observed_generation: u64,
    /// For people.
    pub phase: Phase,
    /// For machines.
    pub conditions: Vec<Condition>,
    /// The container, if there is one or was one.
    pub container: Option<ContainerView>,
    /// Leased host port.
    pub port: Option<u16>,
    /// Where it answers.
    pub address: Option<String>,
    /// Where its files are on the host.
    pub workspace: String,
    /// Counts of files.
    pub files: FilesView,
    /// The operation that waits to be tried again.
    pub retry: RetryView,
    /// `docket stop` and the like, if one is in force.
    #[serde(rename = "override")]
    pub override_: Option<OverrideView>,
    /// Place in the queue, from 1, while a limit holds it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
    /// When docket would stop it by itself; left out: never, or nothing runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<LifetimeView>,
    /// Where its spec comes from: a file path relative to the watched directory, or `applied`.
    pub source: String,
    /// The commit of the repository that its spec is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_revision: Option<String>,
    /// What the next pass would do and why, as text.
    pub plan: String,
    /// When it is looked at next without any event.
    pub next_check: Option<Timestamp>,
}

/// `status.container`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// First 12 digits of the id.
    pub id: String,
    /// `{prefix}-{session}-{attempt}`.
    pub name: String,
    /// Which container of the session.
    pub attempt: u32,
    /// The engine's state: created, running, paused, exited, ...
    pub state: String,
    /// When PID 1 last started.
    pub started_at: Option<Timestamp>,
    /// How often it was started again.
    pub restarts: u32,
    /// How PID 1 last ended.
    pub last_termination: Option<TerminationView>,
    /// The image as the spec in force names it; empty: the container is of another spec.
    #[serde(default)]
    pub image: String,
    /// The image id it was made from.
    pub image_id: String,
}

/// `status.container.lastTermination`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TerminationView {
    /// Why.
    pub reason: crate::model::Reason,
    /// PID 1's exit code.
    pub exit_code: Option<i64>,
    /// When.
    pub finished_at: Option<Timestamp>,
}

impl From<&Termination> for TerminationView {
    fn from(end: &Termination) -> Self {
        TerminationView {
            reason: end.reason,
            exit_code: end.exit_code,
            finished_at: end.finished_at,
        }
    }
}

/// `status.lifetime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LifetimeView {
    /// The end by `lifetime.maxAge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The end by `lifetime.idleTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleView>,
}

/// `status.lifetime.idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdleView {
    /// What kept it alive last.
    pub used_by: Use,
    /// When that was seen.
    pub used_at: Timestamp,
    /// When it ends if nobody uses it until then.
    pub ends_at: Timestamp,
}

/// `status.files`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesView {
    /// All of them.
    pub total: u64,
    /// With contents here.
    pub local: u64,
    /// Not fetched yet.
    pub lazy: u64,
    /// Not known to be stored.
    pub unsynced: u64,
    /// Their bytes.
    pub unsynced_bytes: u64,
    /// Not synced; `docket files` says why.
    pub skipped: u64,
    /// When a sync last succeeded.
    pub last_sync: Option<Timestamp>,
    /// Conflict copies made.
    pub conflicts: u64,
    /// How far a hydration is, while one is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// `status.retry`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryView {
    /// Empty: nothing waits.
    pub operation: String,
    /// Failures in a row.
    pub failures: u32,
    /// Not before; null: nothing waits, or only a change of the spec helps.
    pub not_before: Option<Timestamp>,
    /// What it last met.
    pub last_error: String,
}

/// `status.override`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OverrideView {
    /// `Stopped` or `Running`, if `docket stop|start` said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<crate::model::DesiredState>,
    /// If `docket suspend|resume` said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}
