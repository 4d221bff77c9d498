//! Effects: one arm an action, and what their outcomes leave in the record.

mod book;
mod containers;
mod execute;
mod facts;
mod failure;
pub mod files;
mod gate;
mod lanes;
mod lazy;
pub mod notes;

pub use book::Book;
pub use execute::{Doors, Ran, StepError, owner_of, place, run, sweep_trash};
pub use lanes::{Lanes, hydrate_paths};
pub use lazy::{Failures, Filler, IsShort};
