//! Numbers that are counted where things happen, for who scrapes them. They are told by
//! `/metrics` and never decided on. Labels are words of docket's own, so their number is bounded:
//! never a session's name, a path or what an engine said.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper ends of the buckets of a histogram, in seconds: from a call on the same machine to a
/// large file over a slow line.
pub const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Changes of containers that a listing found and no event had told of.
    EventsMissed,
    /// Times that the stream of events began anew.
    EventStreams,
    /// What was changed from outside and put right, by what.
    Drift,
    /// Containers started again, by how the one before ended.
    Restarts,
    /// Bytes of files given to the store, and taken from it, by `sent` and `received`.
    Transferred,
    /// Files that were changed on both sides.
    Conflicts,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timed {
    /// Deciding: one pass.
    Pass,
    /// Carrying out one session's plan, by its result.
    Reconcile,
    /// A call to the engine, by operation and outcome.
    EngineCall,
    /// A call to the store, by operation and outcome.
    StoreCall,
    /// A sync of a session's files, by kind and result.
    Sync,
    /// Fetching files, by what asked for them (`start`, `open`, `request`) and result.
    Hydration,
}

/// Durations by size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many in each bucket of [`BUCKETS`] and not in one before; the last: above all.
    pub counts: [u64; BUCKETS.len() + 1],
    /// All together, in seconds.
    pub sum: f64,
}

/// Values of the labels that a [`Count`] or [`Timed`] has, in its order; empty: it has none.
pub type Labels = (&'static str, &'static str);

/// All that was counted since the operator began.
#[derive(Debug, Default)]
pub struct Meter {
    counts: Mutex<BTreeMap<(Count, Labels), u64>>,
    timed: Mutex<BTreeMap<(Timed, Labels), Histogram>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meter {
    /// So many more.
    pub fn count(&self, what: Count, label: &'static str, more: u64) {
        let mut all = locked(&self.counts);
        let count = all.entry((what, (label, ""))).or_default();
        *count = count.saturating_add(more);
    }

    /// It took so long.
    pub fn took(&self, what: Timed, labels: Labels, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|end| *end < seconds);
        let mut all = locked(&self.timed);
        let histogram = all.entry((what, labels)).or_default();
        if let Some(count) = histogram.counts.get_mut(bucket) {
            *count += 1;
        }
        histogram.sum += seconds;
    }

    /// What was counted so far, by labels.
    pub fn counted(&self) -> BTreeMap<(Count, Labels), u64> {
        locked(&self.counts).clone()
    }

    /// What was timed so far, by labels.
    pub fn timed(&self) -> BTreeMap<(Timed, Labels), Histogram> {
        locked(&self.timed).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_holds_it() {
        let meter = Meter::default();
        for millis in [0, 1, 2, 1000, 1_000_000] {
            meter.took(Timed::Pass, ("", ""), Duration::from_millis(millis));
        }
        let all = meter.timed();
        let histogram = all[&(Timed::Pass, ("", ""))];
        assert_eq!(histogram.counts[0], 2);
        assert_eq!(histogram.counts[1], 1);
        assert_eq!(histogram.counts[9], 1);
        assert_eq!(histogram.counts[BUCKETS.len()], 1);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 5);
        assert!((histogram.sum - 1001.003).abs() < 1e-9);
    }
}
