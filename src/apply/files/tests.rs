//! Sync and hydration over the real doors: a workspace on disk and the directory store.

mod cuts;
mod hydration;
mod home;
mod two_sides;
