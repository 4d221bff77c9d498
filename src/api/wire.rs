//! Shapes of requests and answers, beside those of the operator's handle.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Event;
use crate::operator::handle::Refusal;
use crate::status::SessionView;

/// What every error's body is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// `NotFound`, `Invalid`, `Refused`, `Failed`, `Starting`, `Unauthorized`, `Forbidden`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl ErrorBody {
    /// The HTTP status and the body of a refusal.
    pub fn of(refusal: &Refusal) -> (u16, ErrorBody) {
        let (status, code) = match refusal {
            Refusal::NotFound(_) => (404, "NotFound"),
            Refusal::Invalid(_) => (422, "Invalid"),
            Refusal::Refused(_) => (409, "Refused"),
            Refusal::Failed(_) => (500, "Failed"),
        };
        (status, ErrorBody { code: code.to_owned(), message: refusal.to_string() })
    }
}

/// A list of sessions, as `docket get -o json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionList {
    /// `docket.dev/v1`.
    #[schemars(extend("const" = "docket.dev/v1"))]
    pub api_version: String,
    /// `SessionList`.
    #[schemars(extend("const" = "SessionList"))]
    pub kind: String,
    /// By name.
    pub items: Vec<Arc<SessionView>>,
}

impl SessionList {
    /// A list of these.
    pub fn of(items: Vec<Arc<SessionView>>) -> SessionList {
        SessionList {
            api_version: "docket.dev/v1".to_owned(),
            kind: "SessionList".to_owned(),
            items,
        }
    }
}

/// A list of events, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// `docket.dev/v1`.
    #[schemars(extend("const" = "docket.dev/v1"))]
    pub api_version: String,
    /// `EventList`.
    #[schemars(extend("const" = "EventList"))]
    pub kind: String,
    /// By sequence number.
    pub items: Vec<Event>,
}

/// One line of watched sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub enum Watched {
    /// It was there at the beginning, or is new.
    Added(Arc<SessionView>),
    /// It changed.
    Modified(Arc<SessionView>),
    /// It is over; as it was last seen.
    Deleted(Arc<SessionView>),
    /// Everything there is has been told: what was not told by now is not there.
    Bookmark,
}

/// One file of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamedFile {
    /// For complaints.
    pub name: String,
    /// Its contents.
    pub text: String,
}

/// Body of `POST plan`, `diff` and `apply`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SpecFiles")]
pub struct Files {
    /// The files.
    #[serde(default)]
    pub files: Vec<NamedFile>,
}

/// Body of `POST delete`: exactly one of name, selector and all.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// One session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Those whose labels fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// All of them.
    #[serde(default)]
    pub all: bool,
    /// Unsynced edits are given up, into the trash.
    #[serde(default)]
    pub discard: bool,
}

/// Body of `POST sessions/NAME/hydrate`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Paths {
    /// Paths in the workspace; none: all.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// Body of `POST sessions/NAME/restore`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restoration {
    /// The state: its id, the beginning of it, or a moment (RFC 3339).
    pub at: String,
    /// What of it; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Body of `POST gc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Collection {
    /// What is younger stays.
    pub older_than_seconds: u64,
    /// Nothing is removed.
    pub dry_run: bool,
}

impl Default for Collection {
    fn default() -> Collection {
        Collection { older_than_seconds: 30 * 24 * 3600, dry_run: false }
    }
}

/// Answer of what has nothing but its being done to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// For people.
    pub message: String,
}

/// Answer of `POST confirm-prune`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confirmed {
    /// The sessions that were held and are confirmed now.
    pub confirmed: Vec<String>,
}
