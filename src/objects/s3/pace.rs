//! How many requests at once, all sessions together. What is best depends on the server: one on
//! the same machine is busy with a few, one far away has the more in flight the faster it goes. So
//! the number is found by trying: it grows while that brings more, goes back where it does not,
//! and shrinks at once when the store says that it is too much.
//!
//! A turn is held until the answer's body has been read to its end: the order in which anything
//! waits is memory for uploads, turn, memory for downloads, and nobody waits the other way round:
//! a body that was cut, and holds memory, is taken up again without waiting for a turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Where it starts, unless a lower limit is set.
const FIRST: usize = 32;
/// No lower than this, whatever the store says.
const LEAST: usize = 2;
/// No higher than this by itself.
pub(super) const MOST: usize = 256;
/// What is measured lasts at least this long.
const WINDOW: Duration = Duration::from_millis(150);
/// A larger number must bring so much more to be kept.
const GAIN: f64 = 1.05;
/// Windows at a number that was found best before the next one is tried.
const REST: u32 = 12;
/// After a refusal nothing larger is tried for so long.
const CAUTION: Duration = Duration::from_secs(2);
/// So many bytes of a body are as much work as one more request.
const BYTES_A_REQUEST: f64 = 256.0 * 1024.0;

/// Gives turns. Clones give the same turns.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    turns: Arc<Semaphore>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    most: usize,
    limit: usize,
    /// Turns that are to be taken away as they come back.
    owed: usize,
    window: Window,
    /// What was reached with the number before the one that is being tried.
    before: Option<(usize, f64)>,
    /// Windows until something larger is tried.
    rest: u32,
    careful_until: Option<Instant>,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    work: f64,
    ended: usize,
    /// Somebody had to wait for a turn: the limit is what limits.
    full: bool,
}

impl Window {
    fn new(now: Instant) -> Window {
        Window { begun: now, work: 0.0, ended: 0, full: false }
    }
}

/// The right to one request. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    pace: Pace,
    bytes: u64,
}

impl Turn {
    /// So many bytes moved.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.pace.ended(permit, self.bytes);
        }
    }
}

impl Pace {
    /// At most so many at once; 0: as many as the server likes.
    pub(super) fn new(most: usize) -> Pace {
        let most = if most == 0 { MOST } else { most };
        let limit = FIRST.min(most);
        let state = State {
            most,
            limit,
            owed: 0,
            window: Window::new(Instant::now()),
            before: None,
            rest: 0,
            careful_until: None,
        };
        Pace { turns: Arc::new(Semaphore::new(limit)), state: Arc::new(Mutex::new(state)) }
    }

    /// The next turn, in the order of asking. `None` is never: the turns are not closed.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let permit = match Arc::clone(&self.turns).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.state().window.full = true;
                Arc::clone(&self.turns).acquire_owned().await.ok()?
            }
        };
        Some(Turn { permit: Some(permit), pace: self.clone(), bytes: 0 })
    }

    /// A turn if one is free. For who may not wait: others may wait, in their turns, for what it
    /// holds.
    pub(super) fn turn_now(&self) -> Turn {
        let permit = Arc::clone(&self.turns).try_acquire_owned().ok();
        Turn { permit, pace: self.clone(), bytes: 0 }
    }

    /// The store said that it is too much, or did not answer in time.
    pub(super) fn refused(&self) {
        let now = Instant::now();
        let mut state = self.state();
        // The requests that were under way together are refused together: that counts once.
        if state.careful_until.is_some_and(|until| now + CAUTION / 2 < until) {
            return;
        }
        state.careful_until = Some(now + CAUTION);
        state.before = None;
        state.rest = REST;
        let limit = (state.limit * 2 / 3).max(LEAST).min(state.most);
        state.set(limit, &self.turns);
        state.window = Window::new(now);
    }

    fn ended(&self, permit: OwnedSemaphorePermit, bytes: u64) {
        let mut state = self.state();
        if state.owed > 0 {
            state.owed -= 1;
            permit.forget();
        }
        state.window.work += 1.0 + bytes as f64 / BYTES_A_REQUEST;
        state.window.ended += 1;
        state.judge(Instant::now(), &self.turns);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn limit(&self) -> usize {
        self.state().limit
    }
}

impl State {
    /// At the end of a window: is the number that is being tried better?
    fn judge(&mut self, now: Instant, turns: &Semaphore) {
        let lasted = now - self.window.begun;
        if lasted < WINDOW || self.window.ended < self.limit {
            return;
        }
        let Window { work, full, .. } = std::mem::replace(&mut self.window, Window::new(now));
        if !full {
            return;
        }
        let rate = work / lasted.as_secs_f64();
        match self.before.take() {
            Some((limit, before)) if rate < before * GAIN => {
                self.set(limit, turns);
                self.rest = REST;
            }
            tried => {
                self.rest = if tried.is_some() { 0 } else { self.rest.saturating_sub(1) };
                let careful = self.careful_until.is_some_and(|until| now < until);
                if self.rest == 0 && !careful && self.limit < self.most {
                    self.before = Some((self.limit, rate));
                    self.set((self.limit * 3 / 2 + 1).min(self.most), turns);
                }
            }
        }
    }

    fn set(&mut self, limit: usize, turns: &Semaphore) {
        if limit > self.limit {
            let more = limit - self.limit;
            let kept = more.min(self.owed);
            self.owed -= kept;
            turns.add_permits(more - kept);
        } else {
            let less = self.limit - limit;
            self.owed += less - turns.forget_permits(less);
        }
        self.limit = limit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `askers` work through a server that takes `latency` for each of at most `at_once`.
    async fn work(pace: &Pace, askers: usize, at_once: usize, latency: Duration, each: usize) {
        let server = Arc::new(Semaphore::new(at_once));
        let all: Vec<_> = (0..askers)
            .map(|_| {
                let (pace, server) = (pace.clone(), Arc::clone(&server));
                tokio::spawn(async move {
                    for _ in 0..each {
                        let _turn = pace.turn().await.unwrap();
                        let _served = server.acquire().await.unwrap();
                        tokio::time::sleep(latency).await;
                    }
                })
            })
            .collect();
        for asker in all {
            asker.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_far_server_gets_more_and_more_at_once() {
        let pace = Pace::new(0);
        work(&pace, 400, usize::MAX >> 3, Duration::from_millis(44), 200).await;
        assert!(pace.limit() > 200, "{}", pace.limit());
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_gets_no_more_than_helps() {
        let pace = Pace::new(0);
        work(&pace, 400, 8, Duration::from_millis(1), 400).await;
        assert!(pace.limit() <= 80, "{}", pace.limit());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_shrinks_once_and_not_for_each_of_those_under_way() {
        let pace = Pace::new(0);
        for _ in 0..50 {
            pace.refused();
        }
        assert_eq!(pace.limit(), FIRST * 2 / 3);
        for _ in 0..50 {
            tokio::time::advance(CAUTION).await;
            pace.refused();
        }
        assert_eq!(pace.limit(), LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_configured_is_never_exceeded_and_shrinking_waits_for_what_is_under_way() {
        let pace = Pace::new(4);
        work(&pace, 100, 100, Duration::from_millis(10), 100).await;
        assert_eq!((pace.limit(), pace.turns.available_permits()), (4, 4));
        let turns = [pace.turn().await, pace.turn().await, pace.turn().await, pace.turn().await];
        pace.refused();
        drop(turns);
        assert_eq!((pace.limit(), pace.turns.available_permits()), (2, 2));
    }
}
