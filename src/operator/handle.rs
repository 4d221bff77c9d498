//! What may be asked of a running operator. The HTTP API and through it every command goes
//! through here; the loop answers between two steps and never waits for an asker.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::model::{ClassName, Event, FileState, Origin, SessionName, Timestamp, Usage};
use crate::status::SessionView;
use crate::world::{LogStream, Meter};

/// Why the operator did not do what was asked, by exit code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such session (exit code 4, HTTP 404).
    #[error("{0}")]
    NotFound(String),
    /// The input is not acceptable (exit code 2, HTTP 422): one complaint a line.
    #[error("{0}")]
    Invalid(String),
    /// Not possible as things are (exit code 1, HTTP 409).
    #[error("{0}")]
    Refused(String),
    /// It was tried and failed (exit code 1, HTTP 500).
    #[error("{0}")]
    Failed(String),
}

/// An answer.
pub type Answer<T> = Result<T, Refusal>;

/// Which sessions a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// One by name.
    Name(SessionName),
    /// All whose labels have these values (`user` and `case` count as labels too); parsed by
    /// [`Selector`].
    Selector(Selector),
    /// All.
    All,
    /// An applied class: the sessions of it stay as they are.
    Class(ClassName),
}

/// Label selector: every term must hold. `a=b`, `a==b`, `a!=b`, `a`, `!a`, `a in (x,y)`,
/// `a notin (x,y)`, as kubectl has them.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Selector(pub Vec<Term>);

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Term {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label has none of these values, or is not there.
    NotIn(String, Vec<String>),
    /// The label is there.
    Has(String),
    /// The label is not there.
    HasNot(String),
}

impl Selector {
    /// Whether labels fit.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match term {
            Term::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Term::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Term::Has(key) => labels.contains_key(key),
            Term::HasNot(key) => !labels.contains_key(key),
        })
    }
}

/// The verbs without an answer but their acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Override: stopped.
    Stop,
    /// Override: running; also ends Expired and Idle.
    Start,
    /// A new container, the image resolved anew.
    Restart,
    /// Override: left alone.
    Suspend,
    /// Override: not left alone.
    Resume,
}

/// One line of `docket apply` or `delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outcome {
    /// `session/alice-v-jones`, `sessionclass/legal`.
    pub object: String,
    /// `created`, `configured`, `unchanged`, `deleted`, `skipped: owned by file x.yaml`.
    pub outcome: String,
    /// It was refused or skipped: the command exits 1.
    pub refused: bool,
}

/// How things stand, in numbers: what `/metrics` tells beside what it sees of each session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Ports of the range that records have.
    pub ports_leased: u64,
    /// Ports of it that somebody else was found to hold.
    pub ports_quarantined: u64,
    /// Ports of it that could be leased.
    pub ports_free: u64,
    /// Sessions that wait before something is tried again, by operation.
    pub backing_off: BTreeMap<String, u64>,
    /// Sessions that wait for a place or for leave to start.
    pub queued: u64,
    /// Sessions that are worked on.
    pub working: u64,
}

/// One row of `docket get sources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceView {
    /// File path relative to the watched directory, the directory itself, the repository, or
    /// `applied`.
    pub source: String,
    /// `Ok`, `Invalid`, `Unreadable`; of a repository: `Current`, `Refused`, `Missing`,
    /// `Unreachable`, `Failed`, `Waiting`.
    pub state: String,
    /// Revision: a short content hash; of a repository the commit in force.
    pub revision: String,
    /// Names of the objects in it: `session/x`, `sessionclass/y`.
    pub objects: Vec<String>,
    /// Complaints, `file:line:column: message`.
    pub errors: Vec<String>,
    /// The repository's own row: how far it is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Origin>,
}

impl SourceView {
    /// The row of a repository.
    pub fn of_origin(origin: Origin) -> SourceView {
        SourceView {
            source: origin.source.clone(),
            state: origin.state.to_string(),
            revision: origin.revision.clone(),
            objects: Vec::new(),
            errors: origin.errors.clone(),
            git: Some(origin),
        }
    }
}

/// The plan of a pass as text and as its answer to "is there anything to do".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanView {
    /// One block a session, `name is Phase: cause`, steps indented.
    pub text: String,
    /// The same by session, for `-o json`.
    pub sessions: BTreeMap<String, PlannedSession>,
    /// Whether any session has a step.
    pub changes: bool,
}

/// One session's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedSession {
    /// Where it is.
    pub phase: String,
    /// Why.
    pub cause: String,
    /// The steps' texts.
    pub actions: Vec<String>,
}

/// `docket top`'s row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopView {
    /// The session.
    pub name: String,
    /// What its container uses; `None`: it does not run or could not be measured.
    pub usage: Option<Usage>,
    /// Bytes of regular files in its workspace at the last scan.
    pub disk_bytes: u64,
    /// Soft limit in bytes; 0: none.
    pub quota_bytes: u64,
}

/// One state of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StateView {
    /// What `docket restore --at` takes.
    pub id: String,
    /// As much of it as means no other state; taken too.
    #[serde(default)]
    pub short: String,
    /// Since when it was the current one.
    pub time: Timestamp,
    /// It is the current one.
    pub current: bool,
    /// Regular files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that are new in it.
    pub added: u64,
    /// Files whose contents, mode or time are others than before.
    pub changed: u64,
    /// Files that were there before.
    pub removed: u64,
    /// What changed, for people.
    pub changes: String,
    /// Why it cannot be read; empty: it can.
    pub error: String,
}

/// States of a workspace, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HistoryView {
    /// The newest of them.
    pub states: Vec<StateView>,
    /// How many older ones there are.
    pub older: u64,
}

/// An object that goes, or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectView {
    /// Its key in the store.
    pub key: String,
    /// Its bytes.
    pub size: u64,
    /// When it was written.
    pub written: Option<Timestamp>,
}

/// A case of which nothing was collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GarbageView {
    /// `user/case`.
    pub case: String,
    /// Why.
    pub why: String,
}

/// What `docket gc` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcView {
    /// Nothing was removed.
    pub dry_run: bool,
    /// What went, or would go.
    pub objects: Vec<ObjectView>,
    /// Their bytes.
    pub bytes: u64,
    /// Cases that were left alone.
    pub left: Vec<GarbageView>,
}

/// Something in the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrashView {
    /// Its name beneath `.docket/trash`.
    pub name: String,
    /// Whose workspace it was, if that is still known.
    pub session: Option<String>,
    /// When it was moved there.
    pub moved_at: Timestamp,
    /// When it is removed; `None`: not by itself, or not yet.
    pub removed_at: Option<Timestamp>,
    /// Why there is no such time; else empty.
    pub why: String,
}

/// One finding of `docket doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// `ok`, `warn` or `fail`.
    pub level: String,
    /// What was found.
    pub message: String,
    /// What to do; empty if ok.
    pub hint: String,
}

/// A question to the loop, with where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// `docket plan FILE...`: file name and text of each; none: the next pass.
    Plan(Vec<(String, String)>, oneshot::Sender<Answer<PlanView>>),
    /// `docket diff DIR`: as if these files were the whole watched directory.
    Diff(Vec<(String, String)>, oneshot::Sender<Answer<PlanView>>),
    /// `docket apply -f`.
    Apply(Vec<(String, String)>, oneshot::Sender<Answer<Vec<Outcome>>>),
    /// `docket delete`.
    Delete {
        /// Which.
        which: Which,
        /// Unsynced edits are given up.
        discard: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer<Vec<Outcome>>>,
    },
    /// stop, start, restart, suspend, resume.
    Verb(SessionName, Verb, oneshot::Sender<Answer<()>>),
    /// `docket sync`: answers when that sync ended.
    Sync(SessionName, oneshot::Sender<Answer<String>>),
    /// `docket hydrate NAME [PATH...]`: answers when the files are there.
    Hydrate(SessionName, Vec<String>, oneshot::Sender<Answer<String>>),
    /// `docket files`.
    Files(SessionName, oneshot::Sender<Answer<Vec<FileState>>>),
    /// `docket logs`.
    Logs {
        /// Which.
        name: SessionName,
        /// Go on as it comes.
        follow: bool,
        /// Lines from the end; `None`: all.
        tail: Option<u64>,
        /// Where the stream goes.
        reply: oneshot::Sender<Answer<LogStreamBox>>,
    },
    /// `docket top`; `None`: all.
    Top(Option<SessionName>, oneshot::Sender<Answer<Vec<TopView>>>),
    /// How things stand, in numbers.
    Numbers(oneshot::Sender<Answer<Numbers>>),
    /// `docket get sources`.
    Sources(oneshot::Sender<Answer<Vec<SourceView>>>),
    /// `docket confirm-prune`: the names that were held and are confirmed now.
    ConfirmPrune(oneshot::Sender<Answer<Vec<String>>>),
    /// `docket history`: so many of the newest states; 0: all.
    History(SessionName, usize, oneshot::Sender<Answer<HistoryView>>),
    /// `docket restore`: answers when the files are there.
    Restore {
        /// Which.
        name: SessionName,
        /// Which state: its id, the beginning of it, or a moment.
        at: String,
        /// What of it; `None`: all.
        path: Option<String>,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer<String>>,
    },
    /// `docket gc`: answers when it is done.
    Gc {
        /// What is younger stays.
        older_than: std::time::Duration,
        /// Nothing is removed.
        dry: bool,
        /// Where the answer goes.
        reply: oneshot::Sender<Answer<GcView>>,
    },
    /// `docket trash`.
    Trash(oneshot::Sender<Answer<Vec<TrashView>>>),
    /// `docket doctor`: what only the operator can see.
    Doctor(oneshot::Sender<Answer<Vec<Finding>>>),
    /// Reread the sources now.
    Rescan,
}

/// A log stream that can travel in an [`Ask`].
pub struct LogStreamBox(pub LogStream);

impl std::fmt::Debug for LogStreamBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogStreamBox")
    }
}

/// All sessions as they are now, by name; replaced as a whole after each change.
pub type Snapshot = std::sync::Arc<BTreeMap<SessionName, std::sync::Arc<SessionView>>>;

/// The way to a running operator. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Questions to the loop.
    pub asks: mpsc::Sender<Ask>,
    /// The newest snapshot, and when it changes.
    pub sessions: watch::Receiver<Snapshot>,
    /// Events as they happen; a slow reader loses some and reads the ring again.
    pub events: broadcast::Sender<Event>,
    /// The ring of past events.
    pub past: std::sync::Arc<std::sync::Mutex<std::collections::VecDeque<Event>>>,
    /// What was counted.
    pub meter: std::sync::Arc<Meter>,
    /// When the loop last finished a complete pass, for `/livez` and `/readyz`.
    pub last_pass: watch::Receiver<Option<crate::model::Timestamp>>,
    /// The repository that specs come from, if they do.
    pub origin: watch::Receiver<Option<Origin>>,
}

impl Handle {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// [`Refusal::Failed`] if the operator is shutting down.
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Answer<T>>) -> Ask,
    ) -> Answer<T> {
        let gone = || Refusal::Failed("the operator is shutting down".to_owned());
        let (reply, answer) = oneshot::channel();
        self.asks.send(question(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Past events with a sequence number above `after`, oldest first.
    pub fn events_after(&self, after: u64) -> Vec<Event> {
        let past = self.past.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        past.iter().filter(|event| event.seq > after).cloned().collect()
    }
}
