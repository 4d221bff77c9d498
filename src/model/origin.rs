//! Specs that are kept in git: which revision is in force, and how far it follows the repository.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What is known of the repository that specs come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// As it is configured: `git+https://host/repo.git#branch:path`.
    pub source: String,
    /// Whether what is in force is what the repository has.
    pub state: OriginState,
    /// The commit in force, in full; empty: none yet.
    pub revision: String,
    /// The commit that the branch has; empty: not known.
    pub newest: String,
    /// When the repository last answered.
    pub answered_at: Option<Timestamp>,
    /// When a commit was last fetched from it.
    pub fetched_at: Option<Timestamp>,
    /// When it is asked next.
    pub next_look: Option<Timestamp>,
    /// Failures in a row to ask or fetch.
    pub failures: u32,
    /// Why the newest commit is not in force, or why it is not known.
    pub errors: Vec<String>,
}

/// How far what is in force follows the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OriginState {
    /// It was not asked yet since docket was started.
    Waiting,
    /// The newest commit is in force.
    Current,
    /// The newest commit is not acceptable; the last good one stays in force.
    Refused,
    /// The branch is not there; the last good commit stays in force.
    Missing,
    /// It cannot be asked or fetched from; the last good commit stays in force.
    Unreachable,
    /// The commit could not be put in place on this machine; the last good one stays in force.
    Failed,
}

impl OriginState {
    /// All of them.
    pub const ALL: [OriginState; 6] = [
        OriginState::Waiting,
        OriginState::Current,
        OriginState::Refused,
        OriginState::Missing,
        OriginState::Unreachable,
        OriginState::Failed,
    ];
}

impl std::fmt::Display for OriginState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OriginState::Waiting => "Waiting",
            OriginState::Current => "Current",
            OriginState::Refused => "Refused",
            OriginState::Missing => "Missing",
            OriginState::Unreachable => "Unreachable",
            OriginState::Failed => "Failed",
        })
    }
}
