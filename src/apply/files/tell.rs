//! What a scan and its sync tell: counts for status, remarks for `docket files`.

use super::{Found, Outcome, Work};
use crate::model::{Base, FileState, FilesSeen, LocalKind, RelPath, Scan, SkipReason, Timestamp};
use crate::sync::{Change, Plan};
use crate::world::{Clock, Objects, Workspaces};

/// Most remarks that are kept.
const REMARKS: usize = 1000;

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    /// After a sync: what was not sent is not stored.
    pub(super) fn tell(&self, base: Base, scan: &Scan, plan: &Plan, outcome: &Outcome) -> Found {
        let mut seen = self.count(&base, scan);
        for path in outcome.unsent.keys() {
            seen.unsynced += 1;
            seen.unsynced_bytes += size_here(scan, path);
            seen.total += u64::from(!base.files.contains_key(path));
        }
        seen.skipped += outcome.unsent.len() as u64;
        seen.blocking += outcome.unsent.len() as u64;
        seen.conflicts = outcome.conflicts.len() as u64;
        let remarks = remarks(scan, plan, outcome);
        Found { base, seen, remarks }
    }

    /// Nothing was found to do.
    pub(super) fn tell_rest(&self, base: Base, scan: &Scan) -> Found {
        Found { seen: self.count(&base, scan), base, remarks: Vec::new() }
    }

    /// After a hydration: what is new here waits for the next sync.
    pub(super) fn tell_pending(
        &self,
        base: Base,
        scan: &Scan,
        plan: &Plan,
        outcome: &Outcome,
    ) -> Found {
        let mut seen = self.count(&base, scan);
        for (path, change) in &plan.changes {
            if let Change::Upload { from, stamp, .. } = change {
                seen.unsynced += 1;
                seen.unsynced_bytes += stamp.size;
                seen.total += u64::from(from == path && !base.files.contains_key(path));
            }
        }
        let remarks = remarks(scan, plan, outcome);
        Found { base, seen, remarks }
    }

    fn count(&self, base: &Base, scan: &Scan) -> FilesSeen {
        let lazy = base.files.values().filter(|entry| entry.stamp.is_none()).count() as u64;
        let total = base.files.len() as u64;
        let skipped = scan.skipped.values();
        let excluded = skipped.clone().filter(|why| **why == SkipReason::Excluded);
        let met = |path| scan.entries.contains_key(path) || scan.skipped.contains_key(path);
        let fetched =
            base.files.iter().filter(|(path, entry)| entry.stamp.is_some() && !met(*path));
        FilesSeen {
            total,
            local: total - lazy,
            lazy,
            skipped: skipped.len() as u64,
            blocking: skipped.filter(|why| why.blocks_end()).count() as u64,
            excluded: excluded.count() as u64,
            bytes: scan.bytes + fetched.map(|(_, entry)| entry.size).sum::<u64>(),
            last_scan: Some(self.clock.now()),
            ..FilesSeen::default()
        }
    }
}

fn size_here(scan: &Scan, path: &RelPath) -> u64 {
    match scan.entries.get(path).map(|entry| &entry.kind) {
        Some(LocalKind::File { stamp, .. }) => stamp.size,
        _ => 0,
    }
}

/// The worst first: what is not safe, then conflicts, then the rest.
fn remarks(scan: &Scan, plan: &Plan, outcome: &Outcome) -> Vec<FileState> {
    let remark = |path: &RelPath, state: &str, reason: String| {
        let (size, mtime) = match scan.entries.get(path).map(|entry| &entry.kind) {
            Some(LocalKind::File { stamp, .. }) => {
                (stamp.size, Some(Timestamp::from_timestamp_nanos(stamp.mtime_ns)))
            }
            _ => (0, None),
        };
        FileState { path: path.clone(), state: state.to_owned(), size, reason, mtime }
    };
    let mut all: Vec<FileState> =
        outcome.unsent.iter().map(|(path, why)| remark(path, "skipped", text(why))).collect();
    let (blocking, harmless): (Vec<_>, Vec<_>) =
        scan.skipped.iter().partition(|(_, why)| why.blocks_end());
    all.extend(blocking.iter().map(|(path, why)| remark(path, "skipped", text(why))));
    all.extend(outcome.conflicts.iter().map(|(path, of)| {
        remark(path, "conflict", format!("`{of}` was changed on both sides: this is the local one"))
    }));
    all.extend(
        outcome
            .uncome
            .iter()
            .map(|(path, error)| remark(path, "lazy", format!("not fetched: {error}"))),
    );
    all.extend(plan.held.iter().map(|(path, why)| remark(path, "skipped", (*why).to_owned())));
    all.extend(harmless.iter().map(|(path, why)| remark(path, "skipped", text(why))));
    all.truncate(REMARKS);
    all
}

/// A reason for people.
fn text(why: &SkipReason) -> String {
    match why {
        SkipReason::Special => "a FIFO, socket or device: it has no content".to_owned(),
        SkipReason::TooLarge => "larger than workspace.limits.fileSize".to_owned(),
        SkipReason::Sparse => {
            "mostly holes, and larger than workspace.quota: it would take all of its size in the store"
                .to_owned()
        }
        SkipReason::TooDeep => "deeper than workspace.limits.depth".to_owned(),
        SkipReason::TooMany => "beyond workspace.limits.files".to_owned(),
        SkipReason::Excluded => "matches workspace.sync.exclude".to_owned(),
        SkipReason::Unreadable(message) => format!("it cannot be read: {message}"),
        SkipReason::Torn => "it changed each time it was read".to_owned(),
        SkipReason::Hollow => {
            "nothing but a hole, and the store has a content for it: remove it, or put an earlier \
                               state back with docket restore NAME --at ID --path PATH"
                .to_owned()
        }
    }
}
