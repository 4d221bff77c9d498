//! When a failed request is tried again: capped waits with full jitter, the store's own
//! `Retry-After`, and one budget for all requests, so that a broken store is not stormed by every
//! file at once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use tokio::time::Instant;

use crate::objects::s3::answer::Failure;

/// What a retry costs, and what a success gives back.
const COST: u32 = 5;
const REFUND: u32 = 1;
const FULL: u32 = 500;
/// A store that asks for longer than this is not waited for inside a call.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// How often and how long one request is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Attempts in all.
    pub(super) attempts: u32,
    /// About the mean of the first wait.
    pub(super) first_wait: Duration,
    /// Longest mean of a wait.
    pub(super) longest_wait: Duration,
    /// No further attempt begins later than this.
    pub(super) elapsed: Duration,
}

/// What all requests of a store share: the budget of retries, and until when it wants peace.
#[derive(Debug)]
pub(super) struct Shared {
    tokens: Mutex<u32>,
    peace: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn new() -> Shared {
        Shared { tokens: Mutex::new(FULL), peace: Mutex::new(None) }
    }

    /// A request succeeded.
    pub(super) fn refund(&self) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        *tokens = (*tokens + REFUND).min(FULL);
    }

    fn pay(&self) -> bool {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let left = tokens.checked_sub(COST);
        *tokens = left.unwrap_or(*tokens);
        left.is_some()
    }

    fn ask_for_peace(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut peace = self.peace.lock().unwrap_or_else(PoisonError::into_inner);
        *peace = Some(peace.map_or(until, |before| before.max(until)));
    }

    /// Waits as long as the store asked all of us to.
    pub(super) async fn keep_peace(&self) {
        let until = *self.peace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// The attempts of one request.
#[derive(Debug)]
pub(super) struct Attempts {
    made: u32,
    patience: Patience,
    waits: ExponentialBackoff,
}

impl Attempts {
    pub(super) fn new(patience: Patience) -> Attempts {
        let mut waits = ExponentialBackoff {
            initial_interval: patience.first_wait,
            // From nothing to twice the interval: full jitter.
            randomization_factor: 1.0,
            multiplier: 2.0,
            max_interval: patience.longest_wait,
            max_elapsed_time: Some(patience.elapsed),
            ..ExponentialBackoff::default()
        };
        waits.reset();
        Attempts { made: 0, patience, waits }
    }

    /// How long to wait before the next attempt; `None`: this failure is final.
    pub(super) fn after(&mut self, failure: &Failure, shared: &Shared) -> Option<Duration> {
        self.made += 1;
        if !failure.again {
            return None;
        }
        if let Some(asked) = failure.retry_after {
            shared.ask_for_peace(asked.min(RETRY_AFTER_MAX));
        }
        let asked = failure.retry_after.unwrap_or_default();
        if self.made >= self.patience.attempts || asked > RETRY_AFTER_MAX || !shared.pay() {
            return None;
        }
        let wait = self.waits.next_backoff()?.max(asked);
        (self.waits.get_elapsed_time() + wait <= self.patience.elapsed).then_some(wait)
    }

    /// Something arrived: the next trouble is a new one.
    pub(super) fn progressed(&mut self) {
        self.made = 0;
        self.waits.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::StoreErrorKind;

    fn patience(attempts: u32) -> Patience {
        Patience {
            attempts,
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(1),
            elapsed: Duration::from_mins(1),
        }
    }

    fn down() -> Failure {
        Failure::passing(StoreErrorKind::Unavailable, "down")
    }

    #[test]
    fn waits_are_jittered_grow_and_stay_under_their_cap() {
        let shared = Shared::new();
        let mut all = Vec::new();
        for _ in 0..10 {
            let mut attempts = Attempts::new(patience(8));
            let waits: Vec<Duration> =
                std::iter::from_fn(|| attempts.after(&down(), &shared)).collect();
            assert_eq!(waits.len(), 7, "eight attempts have seven waits between them");
            assert!(waits[0] <= Duration::from_millis(201), "{waits:?}");
            assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(2)), "{waits:?}");
            all.extend(waits);
        }
        all.sort();
        all.dedup();
        assert!(all.len() > 60, "no jitter: {all:?}");
    }

    #[test]
    fn the_budget_is_shared_and_successes_fill_it_again() {
        let shared = Shared::new();
        let mut retries = 0;
        while Attempts::new(patience(8)).after(&down(), &shared).is_some() {
            retries += 1;
        }
        assert_eq!(retries, FULL / COST);
        for _ in 0..COST {
            assert!(Attempts::new(patience(8)).after(&down(), &shared).is_none());
            shared.refund();
        }
        assert!(Attempts::new(patience(8)).after(&down(), &shared).is_some());
    }

    #[test]
    fn what_will_not_help_is_not_tried_again() {
        let shared = Shared::new();
        let denied = Failure::new(StoreErrorKind::Denied, "no");
        assert!(Attempts::new(patience(8)).after(&denied, &shared).is_none());
        let long = Failure { retry_after: Some(Duration::from_hours(1)), ..down() };
        assert!(Attempts::new(patience(8)).after(&long, &shared).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_keeps_the_peace_one_was_asked_for() {
        let shared = Shared::new();
        let asked = Failure { retry_after: Some(Duration::from_secs(7)), ..down() };
        let wait = Attempts::new(patience(8)).after(&asked, &shared).unwrap();
        assert!(wait >= Duration::from_secs(7));
        let before = Instant::now();
        shared.keep_peace().await;
        assert_eq!(before.elapsed(), Duration::from_secs(7));
    }
}
