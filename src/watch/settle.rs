//! When a file may be acted on, and when it is gone. Pure: looks and times are values.
//!
//! Most prefixes of a spec are a different valid spec, so a file is read only after it was
//! renamed in or closed from writing (`whole`), or was the same in two looks [`SETTLE`] apart;
//! and an editor may take a file away for a moment, so it is gone only after two looks
//! [`VANISH`] apart. Files that vanish one soon after the other are gone together, so that the
//! first of many is not acted on before their number is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Two equal looks this far apart make a file whole.
pub(super) const SETTLE: Duration = Duration::from_millis(250);
/// Two looks this far apart that miss a file make it gone.
pub(super) const VANISH: Duration = Duration::from_secs(2);
/// No file waits longer than this for others that vanish after it.
const WAVE: Duration = Duration::from_secs(10);

/// What tells one state of a file from another. Times are seconds and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub inode: (u64, u64),
    pub size: u64,
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
}

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A file that can be read.
    File(Stamp),
    /// Something that is not taken, and why.
    Refused(String),
}

/// All names under the root, each with how far it is.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    names: BTreeMap<String, Track>,
    /// Those of them that are looked at again soon: the others cost nothing until they change.
    restless: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Track {
    /// What the contents in force were read from.
    taken: Option<Look>,
    /// Something newer, and since when it looks like that.
    newer: Option<(Look, Duration)>,
    /// Since when it is missing.
    missing: Option<Duration>,
}

impl Tracker {
    /// A name was looked at: whether it is to be read now. `whole`: it was renamed in or closed
    /// from writing, and nothing was written to it since.
    pub(super) fn seen(&mut self, name: &str, look: &Look, whole: bool, now: Duration) -> bool {
        self.change(name, |track| {
            track.missing = None;
            if track.taken.as_ref() == Some(look) {
                track.newer = None;
                return false;
            }
            match &track.newer {
                _ if whole => true,
                Some((before, since)) if before == look => now.saturating_sub(*since) >= SETTLE,
                _ => {
                    track.newer = Some((look.clone(), now));
                    false
                }
            }
        })
    }

    /// Changes how far a name is, and whether it is to be looked at again.
    fn change<T>(&mut self, name: &str, how: impl FnOnce(&mut Track) -> T) -> T {
        if !self.names.contains_key(name) {
            self.names.insert(name.to_owned(), Track::default());
        }
        let mut none = Track::default();
        let track = self.names.get_mut(name).unwrap_or(&mut none);
        let before = track.is_restless();
        let told = how(track);
        match (before, track.is_restless()) {
            (false, true) => drop(self.restless.insert(name.to_owned())),
            (true, false) => drop(self.restless.remove(name)),
            _ => (),
        }
        told
    }

    /// It was read, and looked like this before and after.
    pub(super) fn took(&mut self, name: &str, look: Look) {
        self.change(name, |track| {
            *track = Track { taken: Some(look), newer: None, missing: None };
        });
    }

    /// It could not be read as it looked: it has to settle anew.
    pub(super) fn again(&mut self, name: &str, look: Look, now: Duration) {
        self.change(name, |track| track.newer = Some((look, now)));
    }

    /// A name is not there: whether it is gone for good, and forgotten.
    pub(super) fn missed(&mut self, name: &str, now: Duration) -> bool {
        if !self.names.contains_key(name) {
            return false;
        }
        let (since, mourned) = self.change(name, |track| {
            track.newer = None;
            (*track.missing.get_or_insert(now), track.taken.is_some())
        });
        // What never was in force is not mourned.
        let gone = !mourned || now >= gone_at(since, self.last_missing());
        if gone {
            self.forget(name);
        }
        gone
    }

    /// A name is known to be no more.
    pub(super) fn forget(&mut self, name: &str) {
        self.names.remove(name);
        self.restless.remove(name);
    }

    /// Every name that is known.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// Whether anything is known of a name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whether it is missing and not gone yet.
    pub(super) fn is_missing(&self, name: &str) -> bool {
        self.names.get(name).is_some_and(|track| track.missing.is_some())
    }

    /// The names that are missing and not gone yet.
    pub(super) fn missing(&self) -> BTreeSet<&str> {
        let missing = self.restless().filter(|(_, track)| track.missing.is_some());
        missing.map(|(name, _)| name).collect()
    }

    fn restless(&self) -> impl Iterator<Item = (&str, &Track)> {
        self.restless.iter().filter_map(|name| Some((name.as_str(), self.names.get(name)?)))
    }

    /// Since when the last of those in force is missing.
    fn last_missing(&self) -> Option<Duration> {
        let in_force = self.restless().filter(|(_, track)| track.taken.is_some());
        in_force.filter_map(|(_, track)| track.missing).max()
    }

    /// When the next look at something is due.
    pub(super) fn next(&self) -> Option<Duration> {
        let last = self.last_missing();
        self.restless().filter_map(|(_, track)| track.due(last)).min()
    }

    /// The names whose next look is due.
    pub(super) fn due(&self, now: Duration) -> Vec<String> {
        let last = self.last_missing();
        let is_due = |track: &Track| track.due(last).is_some_and(|at| at <= now);
        self.restless().filter(|(_, t)| is_due(t)).map(|(name, _)| name.to_owned()).collect()
    }
}

impl Track {
    fn is_restless(&self) -> bool {
        self.newer.is_some() || self.missing.is_some()
    }

    fn due(&self, last_missing: Option<Duration>) -> Option<Duration> {
        let settles = self.newer.as_ref().map(|(_, since)| *since + SETTLE);
        let vanishes = self.missing.map(|since| gone_at(since, last_missing));
        settles.into_iter().chain(vanishes).min()
    }
}

/// When a name that is missing since then is gone, if the last to vanish did so at `last`.
fn gone_at(since: Duration, last: Option<Duration>) -> Duration {
    (last.unwrap_or(since).max(since) + VANISH).min(since + WAVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn file(size: u64) -> Look {
        Look::File(Stamp { inode: (1, 2), size, mtime: (0, 0), ctime: (0, 0) })
    }

    #[test]
    fn a_whole_file_is_read_at_once_and_only_once() {
        let mut tracker = Tracker::default();
        assert!(tracker.seen("a", &file(1), true, at(0)));
        tracker.took("a", file(1));
        assert!(!tracker.seen("a", &file(1), true, at(1)));
        assert_eq!(tracker.next(), None);
    }

    #[test]
    fn any_other_file_is_read_after_two_equal_looks() {
        let mut tracker = Tracker::default();
        assert!(!tracker.seen("a", &file(1), false, at(0)));
        assert_eq!(tracker.next(), Some(SETTLE));
        assert!(!tracker.seen("a", &file(1), false, at(249)));
        assert!(tracker.seen("a", &file(1), false, at(250)));
    }

    #[test]
    fn a_file_that_goes_on_changing_is_not_read() {
        let mut tracker = Tracker::default();
        for step in 0..100 {
            assert!(!tracker.seen("a", &file(step), false, at(step * 200)));
        }
        assert!(!tracker.seen("a", &file(99), false, at(99 * 200 + 100)));
        assert!(tracker.seen("a", &file(99), false, at(99 * 200 + 250)));
    }

    #[test]
    fn a_file_is_gone_after_two_looks_two_seconds_apart() {
        let mut tracker = Tracker::default();
        tracker.took("a", file(1));
        assert!(!tracker.missed("a", at(0)));
        assert!(tracker.is_missing("a"));
        assert_eq!(tracker.next(), Some(VANISH));
        assert_eq!(tracker.due(at(1999)), Vec::<String>::new());
        assert!(!tracker.missed("a", at(1999)));
        assert_eq!(tracker.due(at(2000)), ["a"]);
        assert!(tracker.missed("a", at(2000)));
        assert_eq!(tracker.names().count(), 0);
    }

    #[test]
    fn files_that_vanish_one_after_the_other_are_gone_together() {
        let mut tracker = Tracker::default();
        for name in ["a", "b", "c"] {
            tracker.took(name, file(1));
        }
        assert!(!tracker.missed("a", at(0)));
        assert!(!tracker.missed("b", at(1500)));
        assert!(!tracker.missed("a", at(2000)), "there may be more");
        assert_eq!(tracker.next(), Some(at(3500)));
        assert_eq!(tracker.due(at(3500)), ["a", "b"]);
        assert!(tracker.missed("a", at(3500)) && tracker.missed("b", at(3500)));
        // One that is missed again and again does not hold up another for ever.
        assert!(!tracker.missed("c", at(4000)));
        for step in 0..5 {
            let name = format!("n{step}");
            tracker.took(&name, file(1));
            assert!(!tracker.missed(&name, at(5000 + step * 1900)));
            assert!(!tracker.missed("c", at(5000 + step * 1900)));
        }
        assert!(tracker.missed("c", at(14_000)));
    }

    #[test]
    fn a_file_that_comes_back_was_never_gone() {
        let mut tracker = Tracker::default();
        tracker.took("a", file(1));
        assert!(!tracker.missed("a", at(0)));
        assert!(!tracker.seen("a", &file(1), false, at(1000)));
        assert!(!tracker.missed("a", at(1500)));
        assert!(!tracker.missed("a", at(3499)));
        assert!(tracker.missed("a", at(3500)));
    }

    #[test]
    fn a_half_written_file_keeps_what_was_read_before() {
        let mut tracker = Tracker::default();
        tracker.took("a", file(1));
        assert!(!tracker.seen("a", &file(2), false, at(0)));
        // Back to what it was: nothing to read.
        assert!(!tracker.seen("a", &file(1), false, at(400)));
        assert_eq!(tracker.next(), None);
    }
}
