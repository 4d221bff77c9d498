//! Sync and hydration over the real doors: a workspace on disk and the directory store.
#![expect(clippy::disallowed_methods, reason = "tests lay files out and look at them")]

mod cuts;
mod home;
mod hydration;
mod placeholders;
mod refused;
mod trees;
mod two_sides;
