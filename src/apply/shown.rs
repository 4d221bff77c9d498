//! What `docket files` shows: each file's state right now, not only as of the last sync.

use std::collections::BTreeMap;

use crate::model::{
    Base, BaseEntry, FileState, LazyMode, LocalEntry, LocalKind, Record, RelPath, Scan, Sha256,
    Stamp, Timestamp,
};
use crate::sync::stub_of;
use crate::world::{Ledger, LedgerError, ScanMode, Workspaces};

use super::execute::{Doors, place};

/// Every file of the last commit and of the workspace, and what was remarkable in the last scan.
///
/// # Errors
/// The ledger's. A workspace that cannot be walked is shown as it was last known.
pub async fn file_states<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
) -> Result<Vec<FileState>, LedgerError>
where
    W: Workspaces,
    L: Ledger,
{
    let base = doors.book.base(&record.uid).await?.unwrap_or_default();
    let spec = &record.applied.resolved.workspace;
    let scan = doors.workspaces.scan(&place(record), spec, &base, ScanMode::Quick).await;
    let failure =
        |key: &str| doors.lanes.failures.of(&format!("{}/{}/{key}", record.user, record.case));
    let opens = doors.workspaces.lazy() == LazyMode::OnAccess;
    let mut all = match &scan {
        Ok(scan) if record.hydrated => states(&base, Some(scan), opens, &failure),
        Ok(scan) => coming(scan),
        Err(error) => {
            tracing::debug!(%error, "files are shown as they were last known");
            states(&base, None, opens, &failure)
        }
    };
    for remark in &record.remarks {
        // What is lazy, modified or local is known better by now.
        if remark.state != "lazy" && (remark.state == "conflict" || !all.contains_key(&remark.path))
        {
            all.insert(remark.path.clone(), remark.clone());
        }
    }
    Ok(all.into_values().collect())
}

/// The states, of what both sides agreed on and what is here now.
fn states(
    base: &Base,
    scan: Option<&Scan>,
    opens: bool,
    failure: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<RelPath, FileState> {
    let mut all = BTreeMap::new();
    for (path, known) in &base.files {
        let entry = scan.and_then(|scan| scan.entries.get(path));
        let unseen = scan.is_none_or(|scan| is_unseen(scan, path));
        let deleted = !unseen && entry.is_none();
        let (state, reason) = match entry.map(|entry| &entry.kind) {
            Some(LocalKind::File { sha256, stamp }) if is_other(known, *sha256, *stamp) => {
                ("modified", String::new())
            }
            Some(LocalKind::File { .. }) => ("local", String::new()),
            Some(LocalKind::Placeholder { .. }) => {
                ("lazy", failure(&known.storage_key).unwrap_or_default())
            }
            None if known.stamp.is_none() && !(deleted && known.placed && opens) => {
                ("lazy", failure(&known.storage_key).unwrap_or_default())
            }
            None if unseen => ("local", String::new()),
            _ => ("modified", "deleted here".to_owned()),
        };
        let (size, mtime) = entry.and_then(size_and_time).unwrap_or((known.size, known.mtime_ns));
        all.insert(path.clone(), state_of(path, state, reason, size, mtime));
    }
    for (path, entry) in scan.iter().flat_map(|scan| &scan.entries) {
        let stub = stub_of(path).is_some_and(|of| base.files.get(&of).is_some_and(is_lazy));
        if base.files.contains_key(path) || stub {
            continue;
        }
        if let Some((size, mtime)) = size_and_time(entry) {
            let reason = "not in the store yet".to_owned();
            all.insert(path.clone(), state_of(path, "modified", reason, size, mtime));
        } else if let LocalKind::Placeholder { row: Some(row), .. } = &entry.kind {
            let (size, mtime) = (row.size.unwrap_or_default(), row.mtime_ns.unwrap_or_default());
            let reason = "renamed here".to_owned();
            all.insert(path.clone(), state_of(path, "lazy", reason, size, mtime));
        }
    }
    all
}

/// What is here while files still come for the first time: only then is it known what the store
/// has of them.
fn coming(scan: &Scan) -> BTreeMap<RelPath, FileState> {
    let shown = |(path, entry): (&RelPath, &LocalEntry)| {
        let (state, size, mtime) = match &entry.kind {
            LocalKind::Placeholder { row: Some(row), .. } => {
                ("lazy", row.size.unwrap_or_default(), row.mtime_ns.unwrap_or_default())
            }
            _ => size_and_time(entry).map(|(size, mtime)| ("local", size, mtime))?,
        };
        let reason = "the first files are still coming".to_owned();
        Some((path.clone(), state_of(path, state, reason, size, mtime)))
    };
    scan.entries.iter().filter_map(shown).collect()
}

/// A foreign manifest may not say what a file holds.
fn is_other(known: &BaseEntry, sha256: Option<Sha256>, stamp: Stamp) -> bool {
    match known.sha256 {
        Some(_) => sha256 != known.sha256,
        None => (stamp.size, stamp.mtime_ns) != (known.size, known.mtime_ns),
    }
}

fn is_lazy(entry: &BaseEntry) -> bool {
    entry.stamp.is_none()
}

fn size_and_time(entry: &LocalEntry) -> Option<(u64, i64)> {
    match entry.kind {
        LocalKind::File { stamp, .. } => Some((stamp.size, stamp.mtime_ns)),
        _ => None,
    }
}

fn is_unseen(scan: &Scan, path: &RelPath) -> bool {
    let mut at = Some(path.clone());
    while let Some(above) = at {
        if scan.skipped.contains_key(&above) {
            return true;
        }
        at = above.parent();
    }
    false
}

fn state_of(path: &RelPath, state: &str, reason: String, size: u64, mtime_ns: i64) -> FileState {
    FileState {
        path: path.clone(),
        state: state.to_owned(),
        size,
        reason,
        mtime: Some(Timestamp::from_timestamp_nanos(mtime_ns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManifestEntry;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn known(sum: u8, here: bool, placed: bool) -> BaseEntry {
        let stamp = Stamp { ino: 1, size: 9, mtime_ns: 0, ctime_ns: 0 };
        BaseEntry {
            sha256: Some(Sha256([sum; 32])),
            size: 9,
            mode: 0o644,
            mtime_ns: 0,
            storage_key: "k".to_owned(),
            stamp: here.then_some(stamp),
            placed,
        }
    }

    fn here(sum: u8) -> LocalEntry {
        let stamp = Stamp { ino: 1, size: 9, mtime_ns: 0, ctime_ns: 0 };
        let kind = LocalKind::File { sha256: Some(Sha256([sum; 32])), stamp };
        LocalEntry { kind, mode: 0o644 }
    }

    #[test]
    fn each_file_is_shown_as_it_is_now() {
        let mut base = Base::default();
        let mut scan = Scan::default();
        for (name, entry, now) in [
            ("same", known(1, true, false), Some(here(1))),
            ("edited", known(1, true, false), Some(here(2))),
            ("deleted", known(1, true, false), None),
            ("stub", known(1, false, false), None),
            ("filled", known(1, false, true), Some(here(1))),
            ("gone", known(1, false, true), None),
        ] {
            base.files.insert(path(name), entry);
            scan.entries.extend(now.map(|now| (path(name), now)));
        }
        let row = ManifestEntry {
            sha256: None,
            size: Some(9),
            mode: None,
            mtime_ns: Some(0),
            storage_key: "k".to_owned(),
        };
        let kind = LocalKind::Placeholder { row: Some(row), altered: false };
        base.files.insert(path("waits"), known(1, false, true));
        scan.entries.insert(path("waits"), LocalEntry { kind, mode: 0o644 });
        scan.entries.insert(path("new"), here(3));
        scan.entries.insert(path("stub.stub"), here(4));
        let shown: Vec<String> = states(&base, Some(&scan), true, &|_| None)
            .values()
            .map(|one| format!("{} {} {}", one.path, one.state, one.reason).trim().to_owned())
            .collect();
        expect_test::expect![[r#"
            [
                "deleted modified deleted here",
                "edited modified",
                "filled local",
                "gone modified deleted here",
                "new modified not in the store yet",
                "same local",
                "stub lazy",
                "waits lazy",
            ]
        "#]]
        .assert_debug_eq(&shown);
    }

    /// A placeholder that lies there before the first commit was not renamed by anybody.
    #[test]
    fn while_the_first_files_come_nothing_is_said_of_edits() {
        let row = ManifestEntry {
            sha256: None,
            size: Some(7),
            mode: None,
            mtime_ns: Some(0),
            storage_key: "k".to_owned(),
        };
        let kind = LocalKind::Placeholder { row: Some(row), altered: false };
        let mut scan = Scan::default();
        scan.entries.insert(path("waits"), LocalEntry { kind, mode: 0o644 });
        scan.entries.insert(path("came"), here(1));
        let folder = LocalEntry { kind: LocalKind::Directory, mode: 0o755 };
        scan.entries.insert(path("folder"), folder);
        let shown: Vec<String> = coming(&scan)
            .values()
            .map(|one| format!("{} {} {} {}", one.path, one.state, one.size, one.reason))
            .collect();
        assert_eq!(
            shown,
            [
                "came local 9 the first files are still coming",
                "waits lazy 7 the first files are still coming"
            ]
        );
    }
}
