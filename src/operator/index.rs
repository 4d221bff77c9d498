//! What the loop asks of all sessions at each turn, kept up one session at a time: whose time has
//! come, who is worked on, who waits. A turn costs what it is about, not how many there are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{ClassName, SessionName, Timestamp};

use super::Live;

/// So many of those that wait for a class's update are looked at when one is done: enough to find
/// some that can begin. A pass stays cheap among thousands, and the tick finds the others.
const NEXT: usize = 32;

/// Sessions by what the loop looks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By the wall, and by the monotonic clock.
    walls: BTreeSet<(Timestamp, SessionName)>,
    ticks: BTreeSet<(Instant, SessionName)>,
    times: BTreeMap<SessionName, (Option<Timestamp>, Option<Instant>)>,
    /// A main runner works on them.
    pub(super) busy: BTreeSet<SessionName>,
    /// They wait for a place.
    pub(super) queued: BTreeSet<SessionName>,
    /// They are not at rest.
    pub(super) unsettled: BTreeSet<SessionName>,
    /// They wait for their turn to get a changed class.
    updates: BTreeSet<(ClassName, SessionName)>,
    update_of: BTreeMap<SessionName, ClassName>,
    /// Files of theirs are to be fetched in the background.
    pub(super) backlogs: BTreeSet<SessionName>,
}

impl Index {
    /// Takes in how a session is now; `None`: it is forgotten.
    pub(super) fn heed(&mut self, name: &SessionName, live: Option<&Live>) {
        let free = live.filter(|live| live.main.is_none());
        let tick = free.and_then(|live| live.not_before);
        // One that is slowed down is not planned before that ends, whatever else is due.
        let wall = free.filter(|_| tick.is_none()).and_then(|live| live.plan.wake_at);
        self.set_times(name, wall, tick);
        let record = live.and_then(|live| live.session.record.as_ref());
        mark(&mut self.busy, name, live.is_some_and(|live| live.main.is_some()));
        mark(&mut self.queued, name, live.is_some_and(|live| live.plan.queue.is_some()));
        mark(&mut self.unsettled, name, live.is_some_and(|live| !super::pass::is_settled(live)));
        self.set_update(name, live.and_then(|live| crate::plan::awaits_update(&live.session)));
        mark(&mut self.backlogs, name, record.is_some_and(crate::apply::wants_prefetch));
    }

    fn set_update(&mut self, name: &SessionName, class: Option<&ClassName>) {
        if self.update_of.get(name) == class {
            return;
        }
        if let Some(before) = self.update_of.remove(name) {
            self.updates.remove(&(before, name.clone()));
        }
        if let Some(class) = class {
            self.updates.insert((class.clone(), name.clone()));
            self.update_of.insert(name.clone(), class.clone());
        }
    }

    /// Who is next to get a changed class, in the order of names.
    pub(super) fn next_updates(&self, class: &ClassName) -> impl Iterator<Item = &SessionName> {
        let of = self.updates.iter().skip_while(move |(other, _)| other < class);
        of.take_while(move |(other, _)| other == class).take(NEXT).map(|(_, name)| name)
    }

    fn set_times(&mut self, name: &SessionName, wall: Option<Timestamp>, tick: Option<Instant>) {
        let (was, old) = self.times.get(name).copied().unwrap_or_default();
        if (was, old) == (wall, tick) {
            return;
        }
        if let Some(at) = was {
            self.walls.remove(&(at, name.clone()));
        }
        if let Some(at) = old {
            self.ticks.remove(&(at, name.clone()));
        }
        self.walls.extend(wall.map(|at| (at, name.clone())));
        self.ticks.extend(tick.map(|at| (at, name.clone())));
        if wall.is_none() && tick.is_none() {
            self.times.remove(name);
        } else {
            self.times.insert(name.clone(), (wall, tick));
        }
    }

    /// Whose time has come.
    pub(super) fn due(&self, wall: Timestamp, now: Instant) -> BTreeSet<SessionName> {
        let walls = self.walls.iter().take_while(|(at, _)| *at <= wall).map(|(_, name)| name);
        let ticks = self.ticks.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name);
        walls.chain(ticks).cloned().collect()
    }

    /// When the next one's time comes.
    pub(super) fn next(&self, wall: Timestamp, now: Instant) -> Option<Instant> {
        let wait = |at: Timestamp| (at - wall).to_std().unwrap_or_default();
        let by_wall =
            self.walls.first().map(|(at, _)| now + wait(*at).max(Duration::from_millis(1)));
        let by_tick = self.ticks.first().map(|(at, _)| *at);
        by_wall.into_iter().chain(by_tick).min()
    }
}

fn mark(all: &mut BTreeSet<SessionName>, name: &SessionName, is: bool) {
    if !is {
        all.remove(name);
    } else if !all.contains(name) {
        all.insert(name.clone());
    }
}
