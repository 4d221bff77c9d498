//! What the loop knows in numbers, for who scrapes them, and what it counts as it goes.

use std::collections::BTreeMap;

use crate::model::{Action, Container, ContainerState, SessionPlan};
use crate::world::{Clock, Count, Engine, Ledger, Objects, Probe, Workspaces};

use super::handle::Numbers;
use super::{Live, Operator};

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// How things stand.
    pub(super) fn numbers(&self) -> Numbers {
        let now = self.doors.clock.now();
        let (first, last) = self.settings.policy.bounds.ports;
        let within = |port: &u16| (first..=last).contains(port);
        let taken = self.scarce.ports();
        let quarantine = self.doors.quarantine.lock();
        let quarantine = quarantine.unwrap_or_else(std::sync::PoisonError::into_inner);
        let held = quarantine.iter().filter(|(port, until)| within(port) && **until > now).count();
        drop(quarantine);
        let records = self.live.values().filter_map(|live| live.session.record.as_ref());
        let mut backing_off = BTreeMap::new();
        let mut leased = 0;
        for record in records {
            leased += u64::from(record.port.as_ref().is_some_and(within));
            for (operation, failure) in &record.failures {
                if failure.terminal || failure.not_before > now {
                    *backing_off.entry(format!("{operation:?}")).or_default() += 1;
                }
            }
        }
        let range = u64::from(last.saturating_sub(first)) + u64::from(first <= last);
        let used = taken.iter().filter(|port| within(port)).count() as u64;
        Numbers {
            ports_leased: leased,
            ports_quarantined: held as u64,
            ports_free: range.saturating_sub(used),
            backing_off,
            queued: self.index.queued.len() as u64,
            working: self.index.busy.len() as u64,
        }
    }

    /// A listing found so many changes that nothing else had told of.
    pub(super) fn missed(&self, changes: usize) {
        // The first listing tells of everything: no event could have before.
        if self.containers_look.known().is_some() {
            self.doors.meter.count(Count::EventsMissed, "", changes as u64);
        }
    }
}

/// What was changed from outside that these steps put right; `None`: they come of something else.
pub(super) fn drift(live: &Live, plan: &SessionPlan) -> Option<&'static str> {
    if plan.actions.iter().any(|action| matches!(action, Action::RemoveLate { .. })) {
        return Some("Late");
    }
    let record = live.session.record.as_ref().filter(|record| record.ending.is_none())?;
    // What docket itself stops or replaces is not ready from that step on.
    let as_wanted =
        record.ready_since.is_some() && record.ready_generation == record.applied.generation;
    if !as_wanted || plan.actions.is_empty() {
        return None;
    }
    let own = live.session.containers.known()?.iter().filter(|one| one.uid == record.uid);
    let Some(current) = own.max_by_key(|one: &&Container| one.attempt) else {
        return Some("Removed");
    };
    let resizes = |action: &Action| matches!(action, Action::UpdateResources { .. });
    match current.state {
        ContainerState::Exited => Some("Ended"),
        ContainerState::Paused if record.paused.is_none() => Some("Paused"),
        ContainerState::Running if plan.actions.iter().any(resizes) => Some("Resized"),
        _ => None,
    }
}
