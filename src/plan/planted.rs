//! The one mistake that no lying door can make, planted by the simulation to see that it is
//! caught: two sessions of one pass are given the same port.

use std::cell::Cell;

thread_local! {
    static RACE: Cell<bool> = const { Cell::new(false) };
}

/// Plants the mistake in this thread, or takes it out.
pub fn race_ports(on: bool) {
    RACE.set(on);
}

pub(super) fn ports_race() -> bool {
    RACE.get()
}
