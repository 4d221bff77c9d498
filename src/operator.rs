//! The loop: reasons to wake, runners, back-off, shutdown.

pub mod handle;
