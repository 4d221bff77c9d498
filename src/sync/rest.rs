//! The common case first: nothing changed. Told by one walk over what was scanned, without
//! building anything, so that a sync of many files that are as they were costs little more than
//! looking at them.

use crate::model::{Base, LocalKind, Scan};

/// Whether a workspace is exactly what both sides last agreed on, all of it seen.
/// If the store's manifest is the base's too, there is nothing to sync.
pub fn at_rest(base: &Base, scan: &Scan) -> bool {
    let mut files = base.files.iter();
    let mut directories = base.tree.directories.iter();
    let mut symlinks = base.tree.symlinks.iter();
    scan.skipped.is_empty()
        && scan.entries.iter().all(|(path, entry)| match &entry.kind {
            LocalKind::File { sha256, stamp } => files.next().is_some_and(|(at, known)| {
                at == path
                    && known.stamp == Some(*stamp)
                    && known.sha256.is_some()
                    && known.sha256 == *sha256
                    && known.mode == entry.mode
                    && known.mtime_ns == stamp.mtime_ns
                    && known.size == stamp.size
            }),
            LocalKind::Directory => directories.next() == Some((path, &entry.mode)),
            LocalKind::Symlink(text) => symlinks.next() == Some((path, text)),
            LocalKind::Placeholder { row: Some(row), altered: false } => {
                files.next().is_some_and(|(at, known)| {
                    at == path
                        && known.placed
                        && known.stamp.is_none()
                        && known.storage_key == row.storage_key
                        && known.sha256 == row.sha256
                        && known.mode == entry.mode
                        && row.size == Some(known.size)
                        && row.mtime_ns == Some(known.mtime_ns)
                })
            }
            LocalKind::Placeholder { .. } => false,
        })
        && files.next().is_none()
        && directories.next().is_none()
        && symlinks.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BaseEntry, LocalEntry, RelPath, Sha256, SkipReason, Stamp, Tree};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn stamp(ino: u64) -> Stamp {
        Stamp { ino, size: 3, mtime_ns: 5, ctime_ns: 6 }
    }

    /// A file, a directory and a link, as agreed and as seen.
    fn same() -> (Base, Scan) {
        let sum = Some(Sha256([7; 32]));
        let known = BaseEntry {
            sha256: sum,
            size: 3,
            mode: 0o644,
            mtime_ns: 5,
            storage_key: "files/a".to_owned(),
            stamp: Some(stamp(1)),
            placed: false,
        };
        let tree = Tree {
            directories: [(path("d"), 0o755)].into(),
            symlinks: [(path("l"), "a".to_owned())].into(),
        };
        let base = Base { etag: Some("e".to_owned()), files: [(path("a"), known)].into(), tree };
        let file = LocalKind::File { sha256: sum, stamp: stamp(1) };
        let entries = [
            (path("a"), LocalEntry { kind: file, mode: 0o644 }),
            (path("d"), LocalEntry { kind: LocalKind::Directory, mode: 0o755 }),
            (path("l"), LocalEntry { kind: LocalKind::Symlink("a".to_owned()), mode: 0o777 }),
        ];
        (base, Scan { entries: entries.into(), ..Scan::default() })
    }

    #[test]
    fn any_difference_ends_the_rest() {
        let (base, scan) = same();
        assert!(at_rest(&base, &scan));
        assert!(!at_rest(&Base::default(), &scan));
        assert!(!at_rest(&base, &Scan::default()));
        let changes: [fn(&mut Scan); 8] = [
            |scan| drop(scan.entries.remove(&path("a"))),
            |scan| drop(scan.entries.remove(&path("d"))),
            |scan| drop(scan.entries.remove(&path("l"))),
            |scan| scan.entries.get_mut(&path("a")).unwrap().mode = 0o600,
            |scan| scan.entries.get_mut(&path("d")).unwrap().mode = 0o700,
            |scan| drop(scan.skipped.insert(path("x"), SkipReason::Special)),
            |scan| {
                let kind = LocalKind::File { sha256: Some(Sha256([7; 32])), stamp: stamp(2) };
                scan.entries.get_mut(&path("a")).unwrap().kind = kind;
            },
            |scan| {
                let kind = LocalKind::Placeholder { row: None, altered: false };
                scan.entries.get_mut(&path("a")).unwrap().kind = kind;
            },
        ];
        for change in changes {
            let mut scan = scan.clone();
            change(&mut scan);
            assert!(!at_rest(&base, &scan), "{scan:?}");
        }
        let mut lazy = base;
        lazy.files.get_mut(&path("a")).unwrap().stamp = None;
        assert!(!at_rest(&lazy, &scan));
    }
}
