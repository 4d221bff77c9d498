//! Mistakes that no lying door can make, planted by the simulation to see that they are caught:
//! two sessions of one pass are given the same port; what a session gave up counts on. And the
//! switch that has every pass counted again from nothing.

use std::cell::Cell;

thread_local! {
    static RACE: Cell<bool> = const { Cell::new(false) };
    static STALE: Cell<bool> = const { Cell::new(false) };
    static RECOUNT: Cell<bool> = const { Cell::new(false) };
}

/// Plants the mistake in this thread, or takes it out.
pub fn race_ports(on: bool) {
    RACE.set(on);
}

pub(super) fn ports_race() -> bool {
    RACE.get()
}

/// Plants the mistake in this thread that what a session gives up still counts, or takes it out.
pub fn count_stale(on: bool) {
    STALE.set(on);
}

pub(super) fn counts_stale() -> bool {
    STALE.get()
}

/// Has operators of this thread count all again after each pass, and panic if it differs.
pub fn recount(on: bool) {
    RECOUNT.set(on);
}

/// Whether they do.
pub fn recounts() -> bool {
    RECOUNT.get()
}
