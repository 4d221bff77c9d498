//! The nouns: what is wanted, what is seen, what is remembered, what is to be done.
//!
//! Plain data. No I/O, no clock, no type of an outside service.

mod action;
mod condition;
mod file;
mod lazy;
mod name;
mod observed;
mod origin;
mod record;
mod spec;
mod words;

pub use action::*;
pub use condition::*;
pub use file::*;
pub use lazy::*;
pub use name::*;
pub use observed::*;
pub use origin::*;
pub use record::*;
pub use spec::*;
pub use words::many;

/// A moment of wall time; only records and people need it, never a wait.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
