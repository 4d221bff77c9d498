//! The doors to the outside, as small traits, with the kinds of error that decide what happens
//! next. The real ones live one folder a crate; the simulation has its own.
//!
//! Every method that looks returns the whole truth or an error, never part of it.

mod body;
mod engine;
mod ledger;
mod marks;
mod meter;
mod objects;
mod probe;
mod workspaces;

pub use body::*;
pub use engine::*;
pub use ledger::*;
pub use marks::*;
pub use meter::*;
pub use objects::*;
pub use probe::*;
pub use workspaces::*;

use crate::model::Timestamp;

/// Wall time and randomness: the two things a decision takes as values.
pub trait Clock: Send + Sync + 'static {
    /// Now, by the wall.
    fn now(&self) -> Timestamp;
    /// 16 random bytes, for uids and jitter.
    fn random(&self) -> [u8; 16];
}
