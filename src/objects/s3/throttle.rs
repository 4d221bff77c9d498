//! Bytes a second, all transfers together, each direction by itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What may be used at once after a rest.
const BURST: Duration = Duration::from_millis(100);

/// A bandwidth limit.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Bytes a second; 0: no limit.
    rate: u64,
    /// Until when what was let through uses the line.
    busy_until: Mutex<Instant>,
}

impl Throttle {
    pub(super) fn new(rate: u64) -> Throttle {
        Throttle { rate, busy_until: Mutex::new(Instant::now()) }
    }

    /// Counts bytes; until when whoever moved them must wait before moving more.
    pub(super) fn count(&self, bytes: usize) -> Option<Instant> {
        if self.rate == 0 {
            return None;
        }
        let now = Instant::now();
        let takes = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut busy = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = (*busy).max(now.checked_sub(BURST).unwrap_or(now)) + takes;
        (*busy > now).then_some(*busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_together_move_what_is_allowed_and_not_more() {
        let throttle = std::sync::Arc::new(Throttle::new(1 << 20));
        let begun = Instant::now();
        let all: Vec<_> = (0..8)
            .map(|_| {
                let throttle = std::sync::Arc::clone(&throttle);
                tokio::spawn(async move {
                    for _ in 0..8 {
                        if let Some(until) = throttle.count(64 << 10) {
                            tokio::time::sleep_until(until).await;
                        }
                    }
                })
            })
            .collect();
        for one in all {
            one.await.unwrap();
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((3.8..=4.0).contains(&took), "4 MiB at 1 MiB a second took {took} s");
        assert_eq!(Throttle::new(0).count(usize::MAX), None);
    }
}
