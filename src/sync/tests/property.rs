//! Whatever the three sides are: no content is lost, and doing what the plan says leaves nothing
//! more to be done.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::picture::path;
use crate::model::{
    Base, BaseEntry, LocalEntry, LocalKind, ManifestEntry, RelPath, Remote, Scan, Sha256, Stamp,
    Timestamp, UserName,
};
use crate::sync::{Change, Context, Plan, diff, sum};

/// Paths that meet each other: files, directories above them, neighbours in byte order.
const PATHS: [&str; 8] = ["a", "a!", "a/b", "a/b/c", "b", "c/d", "c/e", "f.txt"];

/// A side: a content's number and a time's, by path.
type Side = BTreeMap<RelPath, (u8, i64)>;

fn side() -> impl Strategy<Value = Side> {
    let file = (0..PATHS.len(), 0_u8..4, 0_i64..2);
    proptest::collection::vec(file, 0..6).prop_map(|files| {
        let mut side = Side::new();
        for (at, content, time) in files {
            let at = path(PATHS[at]);
            let meets = side.keys().any(|other: &RelPath| above(other, &at) || above(&at, other));
            if !meets {
                side.insert(at, (content, time));
            }
        }
        side
    })
}

fn above(top: &RelPath, at: &RelPath) -> bool {
    at.as_bytes().strip_prefix(top.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
}

fn content(number: u8) -> Sha256 {
    sum(&[number])
}

fn stamp(number: u8, time: i64) -> Stamp {
    Stamp { ino: u64::from(number), size: u64::from(number), mtime_ns: time, ctime_ns: time }
}

fn row(at: &RelPath, number: u8, time: i64) -> ManifestEntry {
    ManifestEntry {
        sha256: Some(content(number)),
        size: Some(u64::from(number)),
        mode: Some(0o644),
        mtime_ns: Some(time),
        storage_key: format!("files/{at}@{number}"),
    }
}

fn entry(row: &ManifestEntry, stamp: Option<Stamp>) -> BaseEntry {
    BaseEntry {
        sha256: row.sha256,
        size: row.size.unwrap(),
        mode: row.mode.unwrap(),
        mtime_ns: row.mtime_ns.unwrap(),
        storage_key: row.storage_key.clone(),
        stamp,
        placed: false,
    }
}

/// The scan of a side, with the directories that its files need.
fn scan(side: &Side) -> Scan {
    let mut scan = Scan::default();
    for (at, (number, time)) in side {
        let kind = LocalKind::File { sha256: Some(content(*number)), stamp: stamp(*number, *time) };
        scan.entries.insert(at.clone(), LocalEntry { kind, mode: 0o644 });
        let mut above = at.parent();
        while let Some(directory) = above {
            above = directory.parent();
            let entry = LocalEntry { kind: LocalKind::Directory, mode: 0o755 };
            scan.entries.insert(directory, entry);
        }
    }
    scan
}

fn plan(base: Option<&Base>, here: &Side, remote: &Remote) -> Option<Plan> {
    let user = UserName::parse("ann").unwrap();
    let context = Context {
        user: &user,
        now: Timestamp::from_timestamp(1_795_464_250, 0).unwrap(),
        lazy: &|_| false,
        excluded: &|_| false,
        stubs: true,
    };
    diff(base, &scan(here), remote, &context).ok()
}

fn number_of(sha256: Sha256) -> u8 {
    (0..=255).find(|n| content(*n) == sha256).unwrap()
}

/// Does what a plan says, in the order of the engine.
fn apply(plan: &Plan, here: &mut Side, remote: &mut Remote, base: &mut Base) {
    let mut files = plan.agreed.clone();
    for (at, change) in &plan.changes {
        if let Change::MoveAside { to, .. } = change {
            let moved = here.remove(at).unwrap();
            assert!(here.insert(to.clone(), moved).is_none(), "{to} was taken");
        }
    }
    for (at, change) in &plan.changes {
        if let Change::Remove { sha256, .. } = change {
            assert_eq!(content(here.remove(at).unwrap().0), *sha256);
        }
    }
    for (at, change) in &plan.changes {
        match change {
            Change::Upload { stamp, sha256, .. } => {
                let row = row(at, number_of(*sha256), stamp.mtime_ns);
                assert_eq!(content(here[at].0), *sha256);
                files.insert(at.clone(), entry(&row, Some(*stamp)));
                remote.files.insert(at.clone(), row);
            }
            Change::Fetch { row, over } => {
                assert_eq!(here.contains_key(at), over.is_some(), "{at}");
                come(at, row, here, &mut files);
                remote.files.insert(at.clone(), row.clone());
            }
            Change::MoveAside { row: Some(row), .. } => come(at, row, here, &mut files),
            Change::Forget => drop(remote.files.remove(at)),
            Change::Describe { row, stamp, .. } => {
                files.insert(at.clone(), entry(row, Some(*stamp)));
                remote.files.insert(at.clone(), row.clone());
            }
            Change::SetMeta { row, mtime_ns, .. } => {
                here.get_mut(at).unwrap().1 = *mtime_ns;
                let number = here[at].0;
                files.insert(at.clone(), entry(row, Some(stamp(number, *mtime_ns))));
            }
            Change::Remove { .. } | Change::MoveAside { row: None, .. } => (),
            Change::Lazy { .. } | Change::Carry { .. } | Change::Unplace => {
                unreachable!("nothing is lazy here")
            }
        }
    }
    remote.tree = Some(plan.tree.clone());
    *base = Base { etag: None, files, tree: plan.tree.clone() };
}

fn come(
    at: &RelPath,
    row: &ManifestEntry,
    here: &mut Side,
    files: &mut BTreeMap<RelPath, BaseEntry>,
) {
    let (number, time) = (number_of(row.sha256.unwrap()), row.mtime_ns.unwrap());
    assert!(!here.keys().any(|other| above(other, at) || above(at, other)), "{at} has no place");
    here.insert(at.clone(), (number, time));
    files.insert(at.clone(), entry(row, Some(stamp(number, time))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn nothing_is_lost_and_nothing_is_left_to_do(
        known in proptest::option::of(side()),
        here in side(),
        there in side(),
    ) {
        let mut base = known.as_ref().map(|known| {
            let files = known.iter().map(|(at, (number, time))| {
                let row = row(at, *number, *time);
                (at.clone(), entry(&row, Some(stamp(*number, *time))))
            });
            Base { files: files.collect(), ..Base::default() }
        });
        let rows = there.iter().map(|(at, (number, time))| (at.clone(), row(at, *number, *time)));
        let mut remote =
            Remote { etag: Some("e".into()), files: rows.collect(), ..Remote::default() };
        let Some(plan) = plan(base.as_ref(), &here, &remote) else {
            prop_assert!(there.is_empty() && !here.is_empty() && known.is_some());
            return Ok(());
        };
        let (before_here, before_there) = (here.clone(), there.clone());
        let mut here = here;
        let mut after = base.take().unwrap_or_default();
        apply(&plan, &mut here, &mut remote, &mut after);

        // Both sides have the same files.
        let theirs: BTreeMap<_, _> =
            remote.files.iter().map(|(at, row)| (at, row.sha256.unwrap())).collect();
        let ours: BTreeMap<_, _> =
            here.iter().map(|(at, (number, _))| (at, content(*number))).collect();
        prop_assert_eq!(ours, theirs);

        // What is gone was deleted on one side and unchanged on the other.
        let kept: BTreeSet<u8> = here.values().map(|(number, _)| *number).collect();
        let was = |at: &RelPath| known.as_ref().and_then(|known| known.get(at)).map(|k| k.0);
        for (at, (number, _)) in before_here.iter().chain(&before_there) {
            let known_so = was(at) == Some(*number);
            let other_side_moved_on = before_here.get(at).map(|h| h.0) != Some(*number)
                || before_there.get(at).map(|t| t.0) != Some(*number);
            prop_assert!(
                kept.contains(number) || (known_so && other_side_moved_on),
                "`{at}` with content {number} is lost\n{plan}"
            );
        }

        // Nothing is left to do.
        let again = super::property::plan(Some(&after), &here, &remote);
        let again = again.map(|plan| plan.to_string());
        prop_assert_eq!(again.as_deref(), Some(""));
    }
}
