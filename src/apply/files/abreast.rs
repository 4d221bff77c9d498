//! Many transfers beside each other: at most so many a session, and at most so many of all
//! sessions together, so that neither memory nor descriptors grow with their number. What bounds
//! requests to the store itself is the store's own affair.
//!
//! Whoever runs transfers awaits nothing but through [`Abreast`]: a transfer that is not polled may
//! have been given what the other waits for.

use std::collections::VecDeque;
use std::future::Future;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Of one session.
const OF_ONE: usize = 128;
/// Bytes of a small file that is read or written whole, at most.
pub(super) const SMALL: u64 = 64 << 10;
/// What small files are counted in.
const UNIT: u64 = 8 << 10;
/// Units of small files in memory, all sessions together: 8 MiB.
const UNITS: usize = 1024;

/// What all sessions' transfers share.
#[derive(Debug)]
pub struct Turns {
    transfers: Semaphore,
    /// Units of small files that are in memory, and of which a file may be open each.
    small: Semaphore,
}

impl Turns {
    /// So many transfers at a time, and so many small files in memory.
    pub const fn new(transfers: usize, small: usize) -> Turns {
        let small = if small < UNITS { small } else { UNITS };
        Turns { transfers: Semaphore::const_new(transfers), small: Semaphore::const_new(small) }
    }

    /// The right to hold a small file in memory, if there is room now.
    pub(super) fn try_hold(&self, size: u64) -> Option<SemaphorePermit<'_>> {
        self.small.try_acquire_many(units(size)).ok()
    }

    /// The same, waiting for it. For who holds nothing.
    pub(super) async fn hold(&self, size: u64) -> Option<SemaphorePermit<'_>> {
        self.small.acquire_many(units(size)).await.ok()
    }
}

/// More than half of all units is never asked for.
fn units(size: u64) -> u32 {
    size.div_ceil(UNIT).clamp(1, SMALL / UNIT) as u32
}

/// One session's transfers that are under way.
pub(super) struct Abreast<'a, T> {
    turns: &'a Turns,
    /// A turn for the next.
    spare: Option<SemaphorePermit<'a>>,
    /// Those that hold a turn.
    holders: usize,
    under_way: FuturesUnordered<BoxFuture<'a, (bool, T)>>,
    /// What ended while something else was waited for.
    ended: VecDeque<T>,
}

impl<'a, T: Send + 'a> Abreast<'a, T> {
    pub(super) fn new(turns: &'a Turns) -> Self {
        let (under_way, ended) = (FuturesUnordered::new(), VecDeque::new());
        Abreast { turns, spare: None, holders: 0, under_way, ended }
    }

    /// Whether nothing is under way, and nothing ended that was not told.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.ended.is_empty()
    }

    /// Whether anything that holds a turn is under way or was not told.
    pub(super) fn has_transfers(&self) -> bool {
        self.holders > 0 || !self.ended.is_empty()
    }

    /// Whether another may begin. Who has nothing under way waits until it may.
    pub(super) async fn has_room(&mut self) -> bool {
        if self.spare.is_none() && self.holders < OF_ONE {
            self.spare = match self.turns.transfers.try_acquire() {
                Ok(turn) => Some(turn),
                Err(_) if self.is_idle() => self.turns.transfers.acquire().await.ok(),
                Err(_) => None,
            };
        }
        self.spare.is_some()
    }

    /// Begins one, if there is room.
    pub(super) fn begin(&mut self, work: impl Future<Output = T> + Send + 'a) {
        let turn = self.spare.take();
        self.holders += 1;
        let work = async move {
            let done = work.await;
            drop(turn);
            (true, done)
        };
        self.under_way.push(work.boxed());
    }

    /// Begins something that is no transfer and needs no turn.
    pub(super) fn aside(&mut self, work: impl Future<Output = T> + Send + 'a) {
        self.under_way.push(work.map(|done| (false, done)).boxed());
    }

    /// Waits for something else, while everything that is under way goes on.
    pub(super) async fn meanwhile<V>(&mut self, work: impl Future<Output = V>) -> V {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                value = &mut work => return value,
                Some(ended) = self.under_way.next() => {
                    let ended = self.count(ended);
                    self.ended.push_back(ended);
                }
            }
        }
    }

    /// What ends first; `None`: nothing is under way.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.spare = None;
        if let Some(ended) = self.ended.pop_front() {
            return Some(ended);
        }
        let ended = self.under_way.next().await?;
        Some(self.count(ended))
    }

    fn count(&mut self, (held, ended): (bool, T)) -> T {
        self.holders -= usize::from(held);
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_share_the_turns_and_each_gets_to_its_end() {
        let turns = Turns::new(5, 1);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = async |n: u64| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(std::time::Duration::from_millis(n % 7)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            n
        };
        let session = async || {
            let (mut all, mut waiting, mut sum) = (Abreast::new(&turns), (0..100).peekable(), 0);
            loop {
                while waiting.peek().is_some() && all.has_room().await {
                    waiting.next().into_iter().for_each(|n| all.begin(work(n)));
                }
                match all.next().await {
                    Some(n) => sum += n,
                    None => return sum,
                }
            }
        };
        let sums = futures_util::future::join_all((0..20).map(|_| session())).await;
        assert_eq!(sums, vec![4950; 20]);
        assert_eq!(most.load(Ordering::SeqCst), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_transfer_waits_for_may_be_waited_for_beside_it() {
        let turns = Turns::new(8, 1);
        let lane = Semaphore::new(1);
        let mut all = Abreast::new(&turns);
        for _ in 0..4 {
            assert!(all.has_room().await);
            all.begin(async {
                let _turn = lane.acquire().await;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            });
        }
        // The lane is given to a transfer first, which must be polled to give it back.
        all.meanwhile(async { drop(lane.acquire().await) }).await;
        let mut ended = 0;
        while all.next().await.is_some() {
            ended += 1;
        }
        assert_eq!(ended, 4);
    }
}
