//! When a failed operation may run again: exponential, with jitter, worked out once when it
//! failed and kept in the record. The one place that names the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use chrono::TimeDelta;

use crate::model::{Failure, Operation, Reason, Resolved, Timestamp};

/// First and longest wait of an operation.
fn limits(operation: Operation, spec: &Resolved) -> (Duration, Duration) {
    let seconds = Duration::from_secs;
    match operation {
        Operation::Run => (spec.restart.initial_delay, spec.restart.max_delay),
        Operation::Sync => (seconds(2), seconds(120)),
        Operation::Hydrate | Operation::Image => (seconds(2), seconds(60)),
        Operation::Workspace | Operation::Cleanup => (seconds(1), seconds(60)),
        Operation::Create
        | Operation::Start
        | Operation::Stop
        | Operation::Remove
        | Operation::Update => (seconds(1), seconds(30)),
    }
}

/// The wait after the `count`-th failure in a row, between 0.8 and 1.2 times the exponential by
/// `random`, never above the longest. A container's first end costs no wait, as in kubelet: the
/// waits begin with the second.
pub(super) fn delay(operation: Operation, spec: &Resolved, count: u32, random: u8) -> Duration {
    let count = if operation == Operation::Run { count.saturating_sub(1) } else { count };
    if count == 0 {
        return Duration::ZERO;
    }
    let (first, longest) = limits(operation, spec);
    let mut steps = ExponentialBackoff {
        current_interval: first,
        initial_interval: first,
        randomization_factor: 0.0,
        multiplier: 2.0,
        max_interval: longest.max(first),
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    let mut wait = first;
    for _ in 0..count.min(32) {
        wait = steps.next_backoff().unwrap_or(longest);
    }
    let jittered = wait.mul_f64(0.8 + 0.4 * f64::from(random) / 255.0);
    jittered.min(longest.max(first))
}

/// What failed, for [`failed`].
#[derive(Clone, Debug)]
pub(super) struct Met {
    pub(super) operation: Operation,
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) terminal: bool,
    /// The next try is made on other terms (another port, another name): no wait.
    pub(super) at_once: bool,
}

/// The failure after one more.
pub(super) fn failed(
    before: Option<&Failure>,
    met: &Met,
    spec: &Resolved,
    now: Timestamp,
    random: u8,
) -> Failure {
    // What circumstances stood in the way of says nothing of the spec, nor the other way round.
    let alike =
        |failure: &&Failure| failure.reason.is_circumstance() == met.reason.is_circumstance();
    let count = before.filter(alike).map_or(0, |failure| failure.count).saturating_add(1);
    let wait = if met.at_once { Duration::ZERO } else { delay(met.operation, spec, count, random) };
    let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
    Failure {
        count,
        at: now,
        not_before: now.checked_add_signed(wait).unwrap_or(now),
        reason: met.reason,
        message: met.message.clone(),
        terminal: met.terminal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{World, name};

    #[test]
    fn what_circumstances_stood_in_the_way_of_is_not_counted_against_a_spec() {
        let world = World::parse("record ann-one");
        let record = world.sessions[&name("ann-one")].record.clone().unwrap();
        let spec = &record.applied.resolved;
        let met = |reason| Met {
            operation: Operation::Start,
            reason,
            message: String::new(),
            terminal: false,
            at_once: false,
        };
        let mut failure = None;
        let mut counts = Vec::new();
        for reason in [
            Reason::PortConflict,
            Reason::EngineUnreachable,
            Reason::StartFailed,
            Reason::StartFailed,
            Reason::PortConflict,
        ] {
            let next = failed(failure.as_ref(), &met(reason), spec, world.now, 0);
            counts.push(next.count);
            failure = Some(next);
        }
        assert_eq!(counts, [1, 2, 1, 2, 1]);
    }
}
