//! The backlog, drained in the background: smallest first, within `files.prefetch` bytes a
//! second, as long as there is room. Whoever opens a file does not wait for its turn here.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::model::{Base, LargeFiles, LazyMode, Record, RelPath, Uid};
use crate::plan::Room;
use crate::world::{Clock, Ledger, Objects, Workspaces};

use super::execute::{Doors, place};
use super::lanes::Prefetch;

/// Fetches a session's backlog, unless that is under way or done since its last sync.
pub async fn prefetch<E, O, W, L, C>(doors: Arc<Doors<E, O, W, L, C>>, uid: Uid)
where
    E: crate::world::Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let Some(record) = doors.book.get(&uid).filter(|record| wants_prefetch(record)) else { return };
    {
        let mut all = doors.lanes.prefetching.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(&uid) {
            Some(Prefetch::Running) => return,
            Some(Prefetch::Done(last)) if *last == record.last_sync => return,
            _ => drop(all.insert(uid.clone(), Prefetch::Running)),
        }
    }
    drain(&doors, &uid).await;
    let last = doors.book.get(&uid).map(|record| record.last_sync);
    let mut all = doors.lanes.prefetching.lock().unwrap_or_else(PoisonError::into_inner);
    match last {
        Some(last) => drop(all.insert(uid, Prefetch::Done(last))),
        None => drop(all.remove(&uid)),
    }
}

/// Whether a session has a backlog that is to be drained.
pub fn wants_prefetch(record: &Record) -> bool {
    record.applied.resolved.workspace.files.prefetch > 0
        && record.hydrated
        && record.files.lazy > 0
        && record.ending.is_none()
}

async fn drain<E, O, W, L, C>(doors: &Doors<E, O, W, L, C>, uid: &Uid)
where
    E: crate::world::Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let mut tried = BTreeSet::new();
    while let Some(record) = doors.book.get(uid).filter(|record| wants_prefetch(record)) {
        let Ok(Some(base)) = doors.book.base(uid).await else { return };
        let Some((path, size)) = next(&base, &tried) else { return };
        let spec = &record.applied.resolved.workspace;
        let room = Room {
            used: record.files.bytes,
            quota: spec.quota,
            space: doors.workspaces.space().await.ok(),
            floor: doors.lanes.rooms.floor(),
        };
        if room.admits(size).is_err() {
            return;
        }
        tried.insert(path.clone());
        let opens = spec.files.large == LargeFiles::OnAccess
            && doors.workspaces.lazy() == LazyMode::OnAccess;
        let come = if opens {
            let opened = doors.workspaces.open(&place(&record), &path).await;
            opened.map(drop).map_err(|error| error.to_string())
        } else {
            let paths = std::slice::from_ref(&path);
            let come = super::hydrate_paths(doors, &record, paths).await;
            come.map(drop).map_err(|error| error.to_string())
        };
        if let Err(error) = come {
            tracing::debug!(session = %record.name, %path, %error, "not fetched ahead");
        }
        tokio::time::sleep(pace(size, spec.files.prefetch)).await;
    }
}

/// The smallest file that was not tried yet.
fn next(base: &Base, tried: &BTreeSet<RelPath>) -> Option<(RelPath, u64)> {
    base.files
        .iter()
        .filter(|(path, entry)| entry.stamp.is_none() && !tried.contains(*path))
        .min_by_key(|(_, entry)| entry.size)
        .map(|(path, entry)| (path.clone(), entry.size))
}

/// How long so many bytes take at so many a second.
fn pace(bytes: u64, a_second: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / a_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BaseEntry;

    #[test]
    fn the_smallest_come_first_and_at_the_pace_that_is_said() {
        let mut base = Base::default();
        for (name, size) in [("a", 30), ("b", 10), ("c", 20)] {
            let entry = BaseEntry {
                sha256: None,
                size,
                mode: 0o644,
                mtime_ns: 0,
                storage_key: name.to_owned(),
                stamp: None,
                placed: true,
            };
            base.files.insert(RelPath::parse(name.as_bytes()).unwrap(), entry);
        }
        let mut tried = BTreeSet::new();
        let mut order = Vec::new();
        while let Some((path, size)) = next(&base, &tried) {
            order.push(size);
            tried.insert(path);
        }
        assert_eq!(order, [10, 20, 30]);
        assert_eq!(pace(1 << 20, 1 << 20), Duration::from_secs(1));
        assert_eq!(pace(1 << 19, 1 << 20), Duration::from_millis(500));
    }
}
