//! Text to objects with precise complaints, class merge, limits, fingerprint, JSON Schema. Pure.
//!
//! 1. `parse` takes a file to [`Object`]s or [`Complaint`]s: `text` and `value` judge the leaves,
//!    `wire` is the closed schema, `scan` refuses bombs, `complain` words what is wrong.
//! 2. [`mod@resolve`] merges a session into its class, checks the class's limits (`merge`) and the
//!    operator's `allow` (`bounds`), and expands `$(NAME)` (`expand`).
//! 3. [`mod@fingerprint`] says whether a live container is still the wanted one.
//!
//! 4. `check` judges a set of files as a whole, classes and limits included.
//! 5. [`mod@found`] is the object of a container of which nothing else is left.
//!
//! What can be judged without class and operator is judged while parsing, with line and column;
//! the rest is a [`Refusal`], which the session's status shows.

mod bounds;
mod check;
mod complain;
mod expand;
mod fingerprint;
mod found;
mod further;
mod merge;
mod parse;
mod resolve;
mod scan;
mod schema;
mod shared;
mod sources;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod wire;

pub use check::{Found, check};
pub use complain::Complaint;
pub use fingerprint::fingerprint;
pub use found::found;
pub use parse::{FILE_MAX, Format, parse_as, parse_file, place_of};
pub use resolve::resolve;
pub use schema::{ObjectKind, schema};
pub use shared::Shared;
pub use sources::{BEING_WRITTEN, NO_REVISION, SourceFile, Sources, is_spec_name, read_source};

use crate::model::{ClassObject, Reason, SessionObject};

/// One document of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `kind: Session`.
    Session(SessionObject),
    /// `kind: SessionClass`.
    Class(ClassObject),
}

/// An object and the document of its file it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// What was read.
    pub object: Object,
    /// Which document of the file, from 0, empty ones counted.
    pub document: usize,
}

/// What a file says. With complaints it is not to be acted on, though some objects are good.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Parsed {
    /// The documents that could be read.
    pub objects: Vec<Located>,
    /// What is wrong with the others, in the order of the file.
    pub complaints: Vec<Complaint>,
}

/// Why a session cannot have what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For machines: InvalidSpec, LimitExceeded or NotAllowed.
    pub reason: Reason,
    /// For people: the field, the value, the limit.
    pub message: String,
}
