//! Wall time and chance, the real ones.
#![expect(clippy::disallowed_methods, reason = "this file is the clock")]

use rand::RngCore as _;

use crate::model::Timestamp;
use crate::world::Clock;

/// The machine's clock and its random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        chrono::Utc::now()
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        bytes
    }
}
