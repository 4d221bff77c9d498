//! A container engine in memory. It behaves as the measured one does, row by row: the name is the
//! lock, a port conflicts only at the start, what a caller gave up on happens all the same, and
//! what dies while the engine is down tells nobody.
//!
//! A [`Machine`] is the engine; a [`FakeEngine`] is one installation's door to it. What people
//! and other programs do to the machine are methods of [`Machine`].

mod door;
mod machine;

pub use door::FakeEngine;
pub use machine::{Answer, Machine, Seen};
