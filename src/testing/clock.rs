//! Wall time from tokio's (pausable) clock and an offset that a test may move, and chance from a
//! seed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::time::Instant;

use crate::model::Timestamp;
use crate::world::Clock;

/// A wall clock that follows tokio's time. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct FakeClock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    offset: TimeDelta,
    chance: SmallRng,
}

impl FakeClock {
    /// A clock that says 2026-01-05 08:00 UTC now, and whose chance is this seed's.
    pub fn new(seed: u64) -> FakeClock {
        let state = State { offset: TimeDelta::zero(), chance: SmallRng::seed_from_u64(seed) };
        FakeClock(Arc::new(Inner { began: Instant::now(), state: Mutex::new(state) }))
    }

    /// Moves the wall clock, as an operator of the machine or a bad time server would.
    pub fn jump(&self, by: TimeDelta) {
        let mut state = self.state();
        state.offset = state.offset.checked_add(&by).unwrap_or(state.offset);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        const BEGAN: i64 = 1_767_600_000;
        let began = Timestamp::from_timestamp(BEGAN, 0).unwrap_or_default();
        let passed = TimeDelta::from_std(self.0.began.elapsed()).unwrap_or_default();
        began + passed + self.state().offset
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.state().chance.fill_bytes(&mut bytes);
        bytes
    }
}
