//! Many transfers beside each other: at most so many a session, and at most so many of all
//! sessions together, so that neither memory nor descriptors grow with their number. What bounds
//! requests to the store itself is the store's own affair.

use std::future::Future;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Of one session.
const OF_ONE: usize = 128;

/// One session's transfers that are under way.
pub(super) struct Abreast<'a, T> {
    turns: &'a Semaphore,
    /// A turn for the next.
    spare: Option<SemaphorePermit<'a>>,
    under_way: FuturesUnordered<BoxFuture<'a, T>>,
}

impl<'a, T: Send + 'a> Abreast<'a, T> {
    pub(super) fn new(turns: &'a Semaphore) -> Self {
        Abreast { turns, spare: None, under_way: FuturesUnordered::new() }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether another may begin. Who has nothing under way waits until it may.
    pub(super) async fn has_room(&mut self) -> bool {
        if self.spare.is_none() && self.under_way.len() < OF_ONE {
            self.spare = match self.turns.try_acquire() {
                Ok(turn) => Some(turn),
                Err(_) if self.is_idle() => self.turns.acquire().await.ok(),
                Err(_) => None,
            };
        }
        self.spare.is_some()
    }

    /// Begins one, if there is room.
    pub(super) fn begin(&mut self, work: impl Future<Output = T> + Send + 'a) {
        let turn = self.spare.take();
        let work = async move {
            let done = work.await;
            drop(turn);
            done
        };
        self.under_way.push(work.boxed());
    }

    /// What ends first; `None`: nothing is under way.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.spare = None;
        self.under_way.next().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sessions_share_the_turns_and_each_gets_to_its_end() {
        let turns = Semaphore::new(5);
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
}
