//! Effects: one arm an action, and what their outcomes leave in the record.

mod book;
mod collect;
mod containers;
mod execute;
mod facts;
mod failure;
pub mod files;
mod gate;
mod guard;
mod lanes;
mod lazy;
mod metered;
pub mod notes;
mod prefetch;
mod restore;
mod rooms;
mod shown;

pub use book::Book;
pub use collect::{Collected, Garbage, collect};
pub use execute::{Doors, Ran, StepError, owner_of, place, run, sweep_trash};
pub use guard::guard;
pub use lanes::{Lanes, UNCONDITIONAL, hydrate_paths};
pub use lazy::{Coming, Failures, Filler};
pub use metered::Metered;
pub use prefetch::{prefetch, wants_prefetch};
pub use restore::{RestoreFailed, restore};
pub use rooms::Rooms;
pub use shown::file_states;
