//! The ledger: facts that cannot be observed, kept through power loss.

use std::collections::BTreeMap;
use std::future::Future;

use crate::model::{Base, Event, Record, Uid};

/// A failed ledger call: nothing of the batch is known to be kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the ledger could not {operation}: {message}")]
pub struct LedgerError {
    /// What was tried, e.g. `write`.
    pub operation: &'static str,
    /// The store's own words.
    pub message: String,
    /// No space left: mutating stops, serving goes on, and space heals it.
    pub no_space: bool,
}

/// The fact that says that everything was rebuilt: from then on [`Contents::rebuilt`] is `None`.
/// Without it, an end in the middle of rebuilding would leave half a store that looks trusted.
pub const REBUILT: &str = "rebuilt";

/// One change. A batch of them is kept as a whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A session's record, whole.
    Record(Box<Record>),
    /// The session is over.
    DropRecord(Uid),
    /// The sync index of a session.
    Base(Uid, Box<Base>),
    /// An object by `apply`, by `kind/name`, as JSON text.
    Applied(String, String),
    /// No longer applied.
    DropApplied(String),
    /// A fact of the operator itself by name (e.g. the sources' root identity), as JSON text.
    Fact(String, String),
    /// An event for `docket events`; the ring keeps the last 2,000.
    Event(Event),
}

/// All that was kept.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Records by uid.
    pub records: BTreeMap<Uid, Record>,
    /// Applied objects by `kind/name`.
    pub applied: BTreeMap<String, String>,
    /// Facts by name.
    pub facts: BTreeMap<String, String>,
    /// Events, oldest first.
    pub events: Vec<Event>,
    /// The store was new, or damaged and moved aside (with where): rebuild before deciding.
    /// It stays so until the fact [`REBUILT`] is committed.
    pub rebuilt: Option<String>,
    /// Records of a newer format than this program knows, by key: they are held, not rewritten.
    pub unknown: Vec<String>,
}

/// Durable memory.
pub trait Ledger: Send + Sync + 'static {
    /// Everything, once at start.
    fn load(&self) -> impl Future<Output = Result<Contents, LedgerError>> + Send;
    /// Keeps a batch. When this returns it survives power loss; concurrent batches share a flush.
    fn commit(&self, batch: Vec<Write>) -> impl Future<Output = Result<(), LedgerError>> + Send;
    /// The sync index of a session; empty if it has none.
    fn base(&self, uid: &Uid) -> impl Future<Output = Result<Option<Base>, LedgerError>> + Send;
}
