//! Sync and hydration over the real doors: a workspace on disk and the directory store.

mod cuts;
mod home;
mod hydration;
mod two_sides;
