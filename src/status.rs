//! What people and machines are told: conditions, phase, the object with its status. Pure.

mod view;

pub use view::*;
