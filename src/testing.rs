//! Doors that live in memory, for the simulation and for contract tests. Only with the feature
//! `testing`; nothing of it is in the shipped binary.
//!
//! 1. [`faults`] is the weather between the operator and its doors: latency, lost questions, lost
//!    answers, late effects, and the end of a life at any effect.
//! 2. The fakes behave as the measured real things do; the contract tests run against both.

pub mod clock;
pub mod disk;
pub mod engine;
pub mod faults;
pub mod memory;
pub mod probe;
pub mod store;
