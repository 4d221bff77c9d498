//! The opens that wait for an answer. Pure: time is a value.
//!
//! An event is handed to the operator once; when another operator comes, again. Its deadline is
//! absolute: it holds whether or not anybody is at work on it.

use std::collections::BTreeMap;
use std::time::Duration;

/// One waiting open.
#[derive(Debug)]
struct Waiting<F> {
    file: F,
    until: Duration,
    handed: bool,
}

/// All waiting opens.
#[derive(Debug)]
pub(super) struct Table<F> {
    waiting: BTreeMap<u64, Waiting<F>>,
    next: u64,
}

impl<F> Table<F> {
    /// Ids begin at `first`; an answer to an earlier gate's event must not match one of ours.
    pub(super) fn new(first: u64) -> Table<F> {
        Table { waiting: BTreeMap::new(), next: first }
    }

    /// An open began to wait, until then.
    pub(super) fn add(&mut self, file: F, until: Duration) {
        self.waiting.insert(self.next, Waiting { file, until, handed: false });
        self.next += 1;
    }

    /// Nobody works on any of them: all are to be handed over again.
    pub(super) fn unhand(&mut self) {
        for one in self.waiting.values_mut() {
            one.handed = false;
        }
    }

    /// Hands over what was not, as long as `hand` takes it.
    pub(super) fn hand(&mut self, mut hand: impl FnMut(u64, &F) -> bool) {
        for (id, one) in &mut self.waiting {
            if !one.handed {
                if !hand(*id, &one.file) {
                    return;
                }
                one.handed = true;
            }
        }
    }

    /// An open was answered; `None`: its deadline came first.
    pub(super) fn take(&mut self, id: u64) -> Option<F> {
        self.waiting.remove(&id).map(|one| one.file)
    }

    /// The opens whose deadline has come.
    pub(super) fn late(&mut self, now: Duration) -> Vec<F> {
        let late: Vec<u64> =
            self.waiting.iter().filter(|(_, one)| one.until <= now).map(|(id, _)| *id).collect();
        late.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// How long until the next deadline; `None`: nothing waits.
    pub(super) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        self.waiting.values().map(|one| one.until.saturating_sub(now)).min()
    }

    /// How many wait.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn handed(table: &mut Table<&'static str>) -> Vec<u64> {
        let mut ids = Vec::new();
        table.hand(|id, _| {
            ids.push(id);
            true
        });
        ids
    }

    #[test]
    fn an_open_is_handed_over_once_and_again_to_the_next_operator() {
        let mut table = Table::new(7);
        table.add("a", at(10));
        table.add("b", at(11));
        assert_eq!(handed(&mut table), [7, 8]);
        assert_eq!(handed(&mut table), [0u64; 0]);
        assert_eq!(table.take(7), Some("a"));
        table.unhand();
        assert_eq!(handed(&mut table), [8]);
        assert_eq!(table.take(7), None);
    }

    #[test]
    fn a_deadline_holds_also_for_what_was_handed_over() {
        let mut table = Table::new(1);
        table.add("a", at(10));
        table.add("b", at(20));
        assert_eq!(handed(&mut table).len(), 2);
        assert_eq!(table.next_deadline(at(4)), Some(at(6)));
        assert_eq!(table.late(at(9)), [""; 0]);
        assert_eq!(table.late(at(10)), ["a"]);
        assert_eq!(table.next_deadline(at(30)), Some(at(0)));
        assert_eq!(table.late(at(30)), ["b"]);
        assert!(table.is_empty());
        assert_eq!(table.next_deadline(at(30)), None);
    }

    #[test]
    fn what_could_not_be_handed_over_is_tried_again() {
        let mut table = Table::new(1);
        table.add("a", at(10));
        table.hand(|_, _| false);
        assert_eq!(handed(&mut table), [1]);
    }
}
