//! What each workspace takes of what it may, for fetches that come outside of any plan: an open
//! of a placeholder knows its key and nothing of sessions. Shared by whoever scans and whoever
//! fills.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{CaseName, Record, Space, Timestamp, UserName};
use crate::plan::{MinFree, NoRoom, Room};

/// The rooms of all workspaces. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Rooms(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    floor: MinFree,
    /// By `user/case`.
    cases: BTreeMap<String, Taken>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { floor: MinFree::Bytes(0), cases: BTreeMap::new() }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    quota: u64,
    /// Bytes at the last scan.
    counted: u64,
    scanned: Option<Timestamp>,
    /// Granted before the scan that is under way began: that one will count it.
    before: u64,
    /// Granted since, and perhaps not seen by it.
    since: u64,
}

impl Taken {
    fn used(&self) -> u64 {
        self.counted.saturating_add(self.before).saturating_add(self.since)
    }
}

impl Rooms {
    /// Below this much free space nothing is fetched.
    pub fn set_floor(&self, floor: MinFree) {
        self.inner().floor = floor;
    }

    /// What [`Rooms::set_floor`] said last.
    pub fn floor(&self) -> MinFree {
        self.inner().floor
    }

    /// Takes in what a record says: its quota, and what a new scan counted.
    pub fn heed(&self, record: &Record) {
        let mut inner = self.inner();
        let taken = inner.cases.entry(case_of(&record.user, &record.case)).or_default();
        taken.quota = record.applied.resolved.workspace.quota;
        if taken.scanned != record.files.last_scan {
            taken.scanned = record.files.last_scan;
            taken.counted = record.files.bytes;
            taken.before = 0;
        }
    }

    /// A scan begins: what was granted until now will be counted by it.
    pub fn scan_begins(&self, record: &Record) {
        let mut inner = self.inner();
        let taken = inner.cases.entry(case_of(&record.user, &record.case)).or_default();
        taken.before += std::mem::take(&mut taken.since);
    }

    /// Forgets a workspace that is over.
    pub fn forget(&self, user: &UserName, case: &CaseName) {
        self.inner().cases.remove(&case_of(user, case));
    }

    /// Grants the object of a full key (`user/case/...`) so many bytes here. A workspace that is
    /// not known yet has the floor only.
    ///
    /// # Errors
    /// Which bound is in the way.
    pub fn take(&self, key: &str, more: u64, space: Option<Space>) -> Result<(), NoRoom> {
        let mut inner = self.inner();
        let floor = inner.floor;
        let mut unknown = Taken::default();
        let taken = inner.cases.get_mut(case_in(key)).unwrap_or(&mut unknown);
        Room { used: taken.used(), quota: taken.quota, space, floor }.admits(more)?;
        taken.since = taken.since.saturating_add(more);
        Ok(())
    }

    /// What was granted did not come.
    pub fn give_back(&self, key: &str, more: u64) {
        if let Some(taken) = self.inner().cases.get_mut(case_in(key)) {
            let rest = more.saturating_sub(taken.since);
            taken.since = taken.since.saturating_sub(more);
            taken.before = taken.before.saturating_sub(rest);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn case_of(user: &UserName, case: &CaseName) -> String {
    format!("{user}/{case}")
}

/// The `user/case` that a full key begins with.
fn case_in(key: &str) -> &str {
    let end = key.match_indices('/').nth(1).map_or(key.len(), |(at, _)| at);
    &key[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_between_two_scans_add_up_and_a_scan_counts_anew() {
        let rooms = Rooms::default();
        let taken = Taken { quota: 10, counted: 4, ..Taken::default() };
        rooms.inner().cases.insert("ann/one".to_owned(), taken);
        assert_eq!(rooms.take("ann/one/files/a", 5, None), Ok(()));
        assert!(matches!(
            rooms.take("ann/one/files/b", 2, None),
            Err(NoRoom::Quota { used: 9, .. })
        ));
        rooms.give_back("ann/one/files/a", 5);
        assert_eq!(rooms.take("ann/one/files/b", 2, None), Ok(()));
        assert_eq!(rooms.take("bob/two/files/c", 1 << 40, None), Ok(()), "not known yet");
        rooms.set_floor(MinFree::Bytes(100));
        let space = Some(Space { total: 1000, free: 150 });
        assert_eq!(rooms.take("bob/two/files/c", 50, space), Ok(()));
        assert!(matches!(rooms.take("bob/two/files/c", 51, space), Err(NoRoom::Floor { .. })));
    }
}
