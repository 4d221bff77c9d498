//! What the workspaces promise when nobody is hostile; `tests/it/hostile.rs` has the rest.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use expect_test::expect;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::model::{BaseEntry, FilesSpec, LocalKind, Scope, SkipReason};
use crate::world::WorkspaceErrorKind as Kind;

struct Home {
    local: Local,
    dir: tempfile::TempDir,
}

fn home() -> Home {
    let dir = tempfile::tempdir().unwrap();
    Home { local: Local::open(dir.path().join("ws")).unwrap(), dir }
}

fn place(case: &str) -> Place {
    let uid = Uid::from_bytes(sha2::Sha256::digest(case)[..16].try_into().unwrap());
    Place {
        user: UserName::parse("alice").unwrap(),
        case: CaseName::parse(case).unwrap(),
        uid,
        id: None,
    }
}

fn spec() -> WorkspaceSpec {
    WorkspaceSpec {
        mount_path: "/opt/workspace".into(),
        scope: Scope::Case,
        folders: vec![],
        owner: String::new(),
        quota: 0,
        max_files: 1_000_000,
        max_file_size: 1 << 30,
        max_depth: 256,
        files: FilesSpec {
            eager_below: 1 << 20,
            large: crate::model::LargeFiles::Eager,
            prefetch: 0,
            open_deadline: Duration::from_mins(1),
        },
        sync_interval: Duration::from_secs(30),
        sync_exclude: vec![],
    }
}

/// As a child of a killed operator does until it becomes another program.
#[test]
fn a_root_whose_lock_is_let_go_in_a_moment_is_waited_for() {
    let home = home();
    let root = home.dir.path().join("ws");
    drop(home.local);
    let held = std::fs::File::open(root.join(".docket/lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let child = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
    });
    Local::open(&root).unwrap();
    child.join().unwrap();
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn body(bytes: &[u8]) -> Body {
    Box::pin(std::io::Cursor::new(bytes.to_vec()))
}

fn sum(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

fn file(bytes: &[u8]) -> FileSpec {
    FileSpec {
        size: bytes.len() as u64,
        sha256: Some(sum(bytes)),
        mode: 0o640,
        mtime_ns: 1_600_000_000_123_456_789,
        owner: (1000, 1001),
    }
}

impl Home {
    /// A workspace that is there, with its identity.
    async fn workspace(&self, case: &str) -> (Place, std::path::PathBuf) {
        let mut place = place(case);
        place.id = Some(self.local.ensure(&place, (1000, 1001)).await.unwrap().id);
        let path = self.local.host_path(&place, false);
        (place, path)
    }

    async fn put(
        &self,
        place: &Place,
        at: &str,
        bytes: &[u8],
        expect: Expect,
    ) -> Result<Stamp, WorkspaceError> {
        let written = self.local.write(place, &path(at), &file(bytes), body(bytes), expect).await;
        written.map(|(_, stamp)| stamp)
    }

    async fn scan(&self, place: &Place) -> Scan {
        self.local.scan(place, &spec(), &Base::default(), ScanMode::Quick).await.unwrap()
    }

    fn staging_is_empty(&self) -> bool {
        std::fs::read_dir(self.dir.path().join("ws/.docket/staging")).unwrap().next().is_none()
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, WorkspaceError>) -> Kind {
    result.unwrap_err().kind
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn show(scan: &Scan) -> String {
    let entry = |(path, entry): (&RelPath, &crate::model::LocalEntry)| {
        let what = match &entry.kind {
            LocalKind::File { sha256, stamp } => {
                format!("{} {}", &sha256.unwrap().hex()[..12], stamp.size)
            }
            LocalKind::Symlink(text) => format!("-> {text}"),
            other => format!("{other:?}"),
        };
        format!("{path} {:o} {what}\n", entry.mode)
    };
    let skipped = |(path, why): (&RelPath, &SkipReason)| format!("{path} skipped {why:?}\n");
    let entries = scan.entries.iter().map(entry);
    entries.chain(scan.skipped.iter().map(skipped)).collect()
}

#[tokio::test]
async fn a_workspace_is_made_once_and_found_again() {
    let home = home();
    let place = place("one");
    let (user, case) = (&place.user, &place.case);
    assert_eq!(home.local.look(user, case).await.unwrap(), None);
    let seen = home.local.ensure(&place, (1000, 1001)).await.unwrap();
    assert_eq!(home.local.ensure(&place, (0, 0)).await.unwrap(), seen);
    assert_eq!(home.local.look(user, case).await.unwrap(), Some(seen.clone()));
    let all = home.local.list().await.unwrap();
    assert_eq!(all, vec![(user.clone(), case.clone(), seen)]);

    let dir = home.local.host_path(&place, false);
    assert_eq!(mode(&dir), 0o755);
    let meta = std::fs::metadata(&dir).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1000, 1001));
    assert_eq!(mode(&home.dir.path().join("ws")), 0o700);
    assert_eq!(mode(&home.dir.path().join("ws/.docket/staging")), 0o700);
    assert!(home.staging_is_empty());
    assert_eq!(home.local.host_path(&place, true), home.local.root().join("alice"));
}

#[tokio::test]
async fn another_sessions_directory_is_not_taken_over() {
    let home = home();
    let (first, _) = home.workspace("one").await;
    let mut second = place("one");
    second.uid = Uid::from_bytes([7; 16]);
    let seen = home.local.look(&first.user, &first.case).await.unwrap().unwrap();
    if seen.uid.is_some() {
        assert_eq!(kind(home.local.ensure(&second, (0, 0)).await), Kind::Replaced);
    }
}

#[tokio::test]
async fn fault_45_a_replaced_or_removed_directory_is_noticed_by_every_call() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    std::fs::rename(&dir, dir.with_extension("away")).unwrap();
    assert_eq!(home.local.look(&place.user, &place.case).await.unwrap(), None);
    assert_eq!(kind(home.local.ensure(&place, (0, 0)).await), Kind::NotFound);
    assert_eq!(kind(home.put(&place, "a", b"a", Expect::Absent).await), Kind::NotFound);

    std::fs::create_dir(&dir).unwrap();
    let stamp = Stamp { ino: 1, size: 1, mtime_ns: 1, ctime_ns: 1 };
    let local = &home.local;
    let (at, expect) = (path("a"), Expect::Stamp(stamp));
    let base = Base::default();
    let found = [
        kind(local.ensure(&place, (0, 0)).await),
        kind(local.ensure_folders(&place, &[], (0, 0)).await),
        kind(local.ensure_tree(&place, &Tree::default(), (0, 0)).await),
        kind(local.scan(&place, &spec(), &base, ScanMode::Quick).await),
        local.read(&place, &at, stamp).await.err().unwrap().kind,
        kind(home.put(&place, "a", b"a", Expect::Absent).await),
        kind(local.rename(&place, &at, &path("b"), stamp).await),
        kind(local.set_meta(&place, &at, 0, 0, stamp).await),
        kind(local.remove_file(&place, &at, expect).await),
        kind(local.trash(&place).await),
    ];
    assert_eq!(found, [Kind::Replaced; 10]);
    assert!(std::fs::read_dir(&dir).unwrap().next().is_none(), "nothing was put into it");
}

#[tokio::test]
async fn folders_and_trees_are_made_where_nothing_is_in_their_way() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    std::fs::write(dir.join("motions"), "mine").unwrap();
    let folders = ["drafts".to_owned(), "motions".to_owned()];
    home.local.ensure_folders(&place, &folders, (1000, 1001)).await.unwrap();
    home.local.ensure_folders(&place, &folders, (1000, 1001)).await.unwrap();
    let mut tree = Tree::default();
    tree.directories.insert(path("deep/er"), 0o4700);
    tree.directories.insert(path("motions/x"), 0o700);
    tree.symlinks.insert(path("deep/link"), "/etc/pass%77d".into());
    tree.symlinks.insert(path("drafts/.gitkeep"), "no".into());
    home.local.ensure_tree(&place, &tree, (1000, 1001)).await.unwrap();
    expect![[r#"
        deep 755 Directory
        deep/er 700 Directory
        deep/link 777 -> /etc/passwd
        drafts 755 Directory
        drafts/.gitkeep 644 e3b0c44298fc 0
        motions 644 3fd30542fe3f 4
    "#]]
    .assert_eq(&show(&home.scan(&place).await));
    for at in ["deep/er", "deep/link", "drafts/.gitkeep"] {
        let meta = std::fs::symlink_metadata(dir.join(at)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1000, 1001), "{at}");
    }
    assert!(home.staging_is_empty());
}

#[tokio::test]
async fn a_file_is_written_whole_with_mode_time_and_owner() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let large: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
    for bytes in [&b""[..], b"small", &large] {
        let stamp = home.put(&place, "sub/dir/f", bytes, Expect::Absent).await.unwrap();
        let at = dir.join("sub/dir/f");
        let meta = std::fs::metadata(&at).unwrap();
        assert_eq!(std::fs::read(&at).unwrap(), bytes);
        assert_eq!((meta.uid(), meta.gid(), mode(&at)), (1000, 1001, 0o640));
        assert_eq!(meta.mtime() * 1_000_000_000 + meta.mtime_nsec(), 1_600_000_000_123_456_789);
        let scan = home.scan(&place).await;
        let LocalKind::File { sha256, stamp: seen } = &scan.entries[&path("sub/dir/f")].kind else {
            panic!("{scan:?}");
        };
        assert_eq!((*sha256, *seen), (Some(sum(bytes)), stamp));
        let mut read = Vec::new();
        let mut reader = home.local.read(&place, &path("sub/dir/f"), stamp).await.unwrap();
        reader.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, bytes);
        home.local.remove_file(&place, &path("sub/dir/f"), Expect::Stamp(stamp)).await.unwrap();
        assert!(!at.exists());
    }
    assert_eq!(std::fs::metadata(dir.join("sub")).unwrap().uid(), 1000);
    assert!(home.staging_is_empty());
}

#[tokio::test]
async fn a_new_file_on_its_way_has_no_name_that_a_kill_could_leave() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let large = vec![7; 1_000_000];
    let (mut give, take) = tokio::io::duplex(1024);
    let (local, at, file) = (home.local.clone(), path("sub/f"), file(&large));
    let writing = tokio::spawn(async move {
        local.write(&place, &at, &file, Box::pin(take), Expect::Absent).await.map(drop)
    });
    // By now more than one chunk was taken, so the first is written.
    give.write_all(&large[..900_000]).await.unwrap();
    assert!(home.staging_is_empty() && !dir.join("sub/f").exists());
    give.write_all(&large[900_000..]).await.unwrap();
    drop(give);
    writing.await.unwrap().unwrap();
    assert_eq!(std::fs::read(dir.join("sub/f")).unwrap(), large);
}

#[tokio::test]
async fn wrong_bytes_are_never_put_in_place() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let good = vec![1u8; 700_000];
    let mut wrong = good.clone();
    wrong[650_000] = 2;
    let broken = Box::pin(tokio::io::AsyncReadExt::chain(
        std::io::Cursor::new(vec![1u8; 300_000]),
        tokio_util::io::StreamReader::new(Box::pin(futures_util::stream::once(async {
            Err::<bytes::Bytes, _>(std::io::Error::other("cut"))
        }))),
    ));
    let bodies: [Body; 5] = [
        body(&good[1..]),
        body(&[good.clone(), vec![1]].concat()),
        body(&wrong),
        body(b""),
        broken,
    ];
    for bytes in bodies {
        let (at, said) = (path("d/f"), file(&good));
        let written = home.local.write(&place, &at, &said, bytes, Expect::Absent).await;
        assert_eq!(kind(written), Kind::Corrupt);
    }
    assert!(std::fs::read_dir(&dir).unwrap().next().is_none());
    assert!(home.staging_is_empty());
}

#[tokio::test]
async fn an_edit_is_never_overwritten_or_removed() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let first = home.put(&place, "f", b"first", Expect::Absent).await.unwrap();
    assert_eq!(kind(home.put(&place, "f", b"again", Expect::Absent).await), Kind::Changed);
    let second = home.put(&place, "f", b"second", Expect::Stamp(first)).await.unwrap();
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"second");
    std::fs::write(dir.join("f"), "edited").unwrap();
    let changed = [
        kind(home.put(&place, "f", b"third", Expect::Stamp(second)).await),
        kind(home.local.remove_file(&place, &path("f"), Expect::Stamp(second)).await),
        kind(home.local.remove_file(&place, &path("f"), Expect::Placeholder).await),
        kind(home.local.remove_file(&place, &path("f"), Expect::Absent).await),
        kind(home.local.rename(&place, &path("f"), &path("g"), second).await),
        kind(home.local.set_meta(&place, &path("f"), 0o600, 1, second).await),
        home.local.read(&place, &path("f"), second).await.err().unwrap().kind,
        kind(home.put(&place, "gone", b"x", Expect::Stamp(second)).await),
        kind(home.put(&place, "gone/too", b"x", Expect::Stamp(second)).await),
        kind(home.put(&place, "f/under", b"x", Expect::Absent).await),
    ];
    assert_eq!(changed, [Kind::Changed; 10]);
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), b"edited");
    home.local.remove_file(&place, &path("gone"), Expect::Stamp(second)).await.unwrap();
    assert!(home.staging_is_empty());
}

#[tokio::test]
async fn a_conflict_copy_gets_a_free_name_and_meta_is_set() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let stamp = home.put(&place, "d/f", b"mine", Expect::Absent).await.unwrap();
    home.put(&place, "d/taken", b"x", Expect::Absent).await.unwrap();
    let taken = home.local.rename(&place, &path("d/f"), &path("d/taken"), stamp).await;
    assert_eq!(kind(taken), Kind::Changed);
    let moved = home.local.rename(&place, &path("d/f"), &path("d/g"), stamp).await.unwrap();
    let set = home.local.set_meta(&place, &path("d/g"), 0o6755, 5, moved).await.unwrap();
    assert_eq!(set.mtime_ns, 5);
    assert_eq!(mode(&dir.join("d/g")), 0o755);
    let scan = home.scan(&place).await;
    let LocalKind::File { stamp, .. } = scan.entries[&path("d/g")].kind else { panic!() };
    assert_eq!(stamp, set);
}

#[tokio::test]
async fn a_quick_scan_trusts_stamps_and_a_checksum_scan_does_not() {
    let home = home();
    let (place, _) = home.workspace("one").await;
    let stamp = home.put(&place, "f", b"content", Expect::Absent).await.unwrap();
    let lie = sum(b"a lie that shows what was trusted");
    let entry = BaseEntry {
        sha256: Some(lie),
        size: 7,
        mode: 0o640,
        mtime_ns: stamp.mtime_ns,
        storage_key: "files/f".into(),
        stamp: Some(stamp),
        placed: false,
    };
    let mut base = Base::default();
    base.files.insert(path("f"), entry);
    let mut sums = Vec::new();
    for mode in [ScanMode::Quick, ScanMode::Checksum] {
        let scan = home.local.scan(&place, &spec(), &base, mode).await.unwrap();
        let LocalKind::File { sha256, .. } = scan.entries[&path("f")].kind else { panic!() };
        sums.push(sha256.unwrap());
    }
    assert_eq!(sums, [lie, sum(b"content")]);
}

#[tokio::test]
async fn limits_and_excludes_are_reported_and_not_descended() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    for at in ["a/b/c/d", "node_modules/x/y", "logs/deep"] {
        std::fs::create_dir_all(dir.join(at)).unwrap();
    }
    for (at, bytes) in [("a/keep", 3), ("a/x.tmp", 1), ("a/b/big", 99), ("logs/deep/l.log", 1)] {
        std::fs::write(dir.join(at), vec![b'x'; bytes]).unwrap();
    }
    let globs = ["*.tmp", "node_modules/", "logs/**/*.log"].map(str::to_owned).to_vec();
    let spec = WorkspaceSpec { sync_exclude: globs, max_depth: 3, max_file_size: 50, ..spec() };
    let base = Base::default();
    let scan = home.local.scan(&place, &spec, &base, ScanMode::Quick).await.unwrap();
    expect![[r#"
        a 755 Directory
        a/b 755 Directory
        a/b/c 755 Directory
        a/keep 644 cd2eb0837c9b 3
        logs 755 Directory
        logs/deep 755 Directory
        a/b/big skipped TooLarge
        a/b/c/d skipped TooDeep
        a/x.tmp skipped Excluded
        logs/deep/l.log skipped Excluded
        node_modules skipped Excluded
    "#]]
    .assert_eq(&show(&scan));
    let bad = WorkspaceSpec { sync_exclude: vec!["[".into()], ..spec };
    let refused = home.local.scan(&place, &bad, &base, ScanMode::Quick).await.unwrap_err();
    assert!(refused.message.contains("`[` is not a glob"), "{refused}");
}

#[tokio::test]
async fn a_walk_that_is_cut_claims_nothing_of_what_it_did_not_see() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    for number in 0..20 {
        std::fs::create_dir_all(dir.join(format!("d{number}"))).unwrap();
        std::fs::write(dir.join(format!("d{number}/f")), "x").unwrap();
    }
    let full = home.scan(&place).await;
    let mut base = Base::default();
    for (path, entry) in &full.entries {
        if let LocalKind::File { sha256, stamp } = entry.kind {
            let entry = BaseEntry {
                sha256,
                size: 1,
                mode: 0,
                mtime_ns: 0,
                storage_key: String::new(),
                stamp: Some(stamp),
                placed: false,
            };
            base.files.insert(path.clone(), entry);
        }
    }
    let spec = WorkspaceSpec { max_files: 5, ..spec() };
    let scan = home.local.scan(&place, &spec, &base, ScanMode::Quick).await.unwrap();
    let files = scan.entries.values().filter(|e| matches!(e.kind, LocalKind::File { .. }));
    assert_eq!(files.count(), 5);
    for path in base.files.keys() {
        let skipped = scan.skipped.get(path) == Some(&SkipReason::TooMany);
        assert!(scan.entries.contains_key(path) != skipped, "{path}");
    }
}

#[tokio::test]
async fn a_placeholder_is_seen_and_never_read() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let at = dir.join("lazy");
    std::fs::File::create(&at).unwrap().set_len(1 << 40).unwrap();
    let marked =
        rustix::fs::setxattr(&at, beneath::XATTR_STUB, b"key", rustix::fs::XattrFlags::empty());
    if marked.is_err() {
        return; // Needs root and a file system with trusted xattrs.
    }
    let before = std::fs::metadata(&at).unwrap();
    for mode in [ScanMode::Quick, ScanMode::Checksum] {
        let scan = home.local.scan(&place, &spec(), &Base::default(), mode).await.unwrap();
        assert_eq!(show(&scan), "lazy 644 Placeholder { row: None, altered: false }\n");
    }
    let stamp = beneath::stamp_fd(std::fs::File::open(&at).unwrap()).unwrap();
    let read = home.local.read(&place, &path("lazy"), stamp).await;
    assert_eq!(read.err().unwrap().kind, Kind::Changed);
    assert_eq!(std::fs::metadata(&at).unwrap().atime_nsec(), before.atime_nsec());
    // As a file it may neither be replaced nor removed; as a placeholder it may.
    let removed = home.local.remove_file(&place, &path("lazy"), Expect::Stamp(stamp)).await;
    assert_eq!(kind(removed), Kind::Changed);
    assert!(at.exists());
    home.put(&place, "lazy", b"here", Expect::Placeholder).await.unwrap();
    assert_eq!(std::fs::read(&at).unwrap(), b"here");
    let again = home.put(&place, "lazy", b"here", Expect::Placeholder).await;
    assert_eq!(kind(again), Kind::Changed);
}

/// As after an end between the rename and what follows it.
#[tokio::test]
async fn a_workspace_that_is_in_the_trash_already_leaves_no_empty_user_behind() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let trash = home.dir.path().join("ws/.docket/trash");
    std::fs::rename(&dir, trash.join(place.uid.as_str())).unwrap();
    home.local.trash(&place).await.unwrap();
    assert!(!home.local.root().join("alice").exists());
    assert!(trash.join(place.uid.as_str()).exists());
}

#[tokio::test]
async fn a_workspace_goes_to_the_trash_and_from_there() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let (other, _) = home.workspace("two").await;
    home.put(&place, "a/b/c", b"bytes", Expect::Absent).await.unwrap();
    home.local.trash(&place).await.unwrap();
    home.local.trash(&place).await.unwrap();
    assert!(!dir.exists());
    let trash = home.dir.path().join("ws/.docket/trash");
    let kept = trash.join(place.uid.as_str()).join("a/b/c");
    assert_eq!(std::fs::read(&kept).unwrap(), b"bytes");

    // A second one of the same session, as after a crash: both are listed and emptied as one.
    let again = Place { id: None, ..place.clone() };
    home.local.ensure(&again, (0, 0)).await.unwrap();
    home.local.trash(&again).await.unwrap();
    assert!(kept.exists() && trash.join(format!("{}.1", place.uid)).exists());
    let listed = home.local.list_trash().await.unwrap();
    assert_eq!(listed[0].uid.as_ref(), Some(&place.uid));
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    assert!((now - listed[0].moved_ns / 1_000_000_000).abs() < 3600);

    home.local.trash(&other).await.unwrap();
    assert!(!home.local.root().join("alice").exists(), "the user's last case is gone");
    home.local.empty_trash(&place.uid).await.unwrap();
    home.local.empty_trash(&place.uid).await.unwrap();
    let listed = home.local.list_trash().await.unwrap();
    assert_eq!((listed.len(), listed[0].uid.as_ref()), (1, Some(&other.uid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_of_many_that_are_written_beside_each_other_are_each_the_last_one_written() {
    let home = home();
    let uids: Vec<Uid> = (0..100).map(|n| Uid::from_bytes([n; 16])).collect();
    let writers = uids.iter().map(async |uid: &Uid| {
        for text in ["first", "second"] {
            home.local.put_note(uid, format!("{text} {uid}").into_bytes()).await.unwrap();
        }
    });
    futures_util::future::join_all(writers).await;
    let mut want: Vec<_> =
        uids.iter().map(|uid| (uid.clone(), format!("second {uid}").into_bytes())).collect();
    want.sort();
    assert_eq!(home.local.notes().await.unwrap(), want);
}

#[tokio::test]
async fn notes_are_kept_whole_and_listed() {
    let home = home();
    let uid = place("one").uid;
    home.local.put_note(&uid, b"first".to_vec()).await.unwrap();
    home.local.put_note(&uid, b"second".to_vec()).await.unwrap();
    let records = home.dir.path().join("ws/.docket/records");
    let unfinished = records.join(format!(".{uid}.tmp"));
    std::fs::write(&unfinished, "half").unwrap();
    std::fs::write(records.join("README"), "not a note").unwrap();
    assert_eq!(home.local.notes().await.unwrap(), vec![(uid.clone(), b"second".to_vec())]);
    assert!(!unfinished.exists());
    home.local.put_note(&uid, b"third".to_vec()).await.unwrap();
    assert_eq!(mode(&records.join(uid.as_str())), 0o600);
    home.local.drop_note(&uid).await.unwrap();
    home.local.drop_note(&uid).await.unwrap();
    assert!(home.local.notes().await.unwrap().is_empty());
}

#[tokio::test]
async fn s1_secrets_come_from_allowed_directories_only_and_without_links() {
    let home = home();
    let uid = place("one").uid;
    let vault = home.dir.path().join("vault");
    std::fs::create_dir_all(vault.join("alice")).unwrap();
    std::fs::write(vault.join("alice/token"), "t0ken").unwrap();
    std::fs::write(home.dir.path().join("outside"), "canary").unwrap();
    std::fs::write(vault.join("huge"), vec![0; 1024 * 1024 + 1]).unwrap();
    std::os::unix::fs::symlink("../outside", vault.join("link")).unwrap();
    std::os::unix::fs::symlink("..", vault.join("up")).unwrap();
    let allowed = [home.dir.path().join("nowhere"), vault.clone()];
    let stage = |source: &str| {
        let source = vault.join(source);
        let (local, uid, allowed) = (home.local.clone(), uid.clone(), allowed.clone());
        async move { local.stage_secret(&uid, "API_TOKEN", &source, &allowed).await }
    };
    let staged = stage("alice/token").await.unwrap();
    assert_eq!(std::fs::read(&staged).unwrap(), b"t0ken");
    assert_eq!(mode(&staged), 0o444);
    assert_eq!(mode(staged.parent().unwrap()), 0o700);
    let inode = std::fs::metadata(&staged).unwrap().ino();
    stage("alice/token").await.unwrap();
    assert_eq!(std::fs::metadata(&staged).unwrap().ino(), inode, "a mounted file stays");
    for refused in ["link", "up/outside", "../outside", "alice", "huge", "missing"] {
        assert!(stage(refused).await.is_err(), "{refused}");
    }
    let name = home.local.stage_secret(&uid, "../x", &vault.join("alice/token"), &allowed).await;
    assert!(name.is_err());
    home.local.drop_secrets(&uid).await.unwrap();
    home.local.drop_secrets(&uid).await.unwrap();
    assert!(!staged.exists());
}

#[tokio::test]
async fn a_second_operator_is_told_who_has_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ws");
    let first = Local::open_as(root.clone(), "state /srv/state").unwrap();
    let refused = Local::open(root.clone()).unwrap_err().to_string();
    let pid = std::process::id();
    assert!(refused.ends_with(&format!("pid {pid} state /srv/state")), "{refused}");
    drop(first);
    Local::open(root).unwrap();
}

#[test]
fn l1_a_root_that_others_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ws");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(Local::open(root.clone()), Err(OpenError::Unfit { .. })));
    assert_eq!(mode(&root), 0o1777);
    assert!(matches!(Local::open("/"), Err(OpenError::Unfit { .. })));
}

#[tokio::test]
async fn what_a_killed_operator_left_is_swept_but_an_edit_is_kept() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let stamp = home.put(&place, "f", b"base", Expect::Absent).await.unwrap();
    let Home { local, dir: root } = home;
    drop(local);
    let docket = root.path().join("ws/.docket");
    let name = |n: u32| {
        let Stamp { ino, size, mtime_ns, .. } = stamp;
        docket.join(format!("staging/swap-{ino}-{size}-{mtime_ns}-999999999-{n}"))
    };
    std::fs::write(docket.join("staging/new-0"), "half").unwrap();
    std::fs::create_dir(docket.join("staging/new-1")).unwrap();
    std::fs::hard_link(dir.join("f"), name(0)).unwrap();
    std::fs::write(name(1), "edited").unwrap();
    Local::open(root.path().join("ws")).unwrap();
    assert!(std::fs::read_dir(docket.join("staging")).unwrap().next().is_none());
    assert_eq!(std::fs::read(docket.join("trash/kept-0")).unwrap(), b"edited");
    assert!(!docket.join("trash/kept-1").exists());
}

/// Containers are given paths: a root that is not at its path any more is not seen, and nothing
/// is made in it.
#[tokio::test]
async fn a_root_that_was_moved_away_or_replaced_is_not_seen_until_it_is_back() {
    let home = home();
    let (place, _) = home.workspace("one").await;
    let (root, aside) = (home.dir.path().join("ws"), home.dir.path().join("aside"));
    let look = || home.local.look(&place.user, &place.case);
    let seen = look().await.unwrap();
    std::fs::rename(&root, &aside).unwrap();
    let gone = look().await.unwrap_err().to_string();
    assert!(gone.contains("ws is gone"), "{gone}");
    std::fs::create_dir(&root).unwrap();
    for error in [
        look().await.unwrap_err(),
        home.local.space().await.unwrap_err(),
        home.local.ensure(&place, (1000, 1001)).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("another directory stands at"), "{error}");
    }
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&aside, &root).unwrap();
    assert_eq!(look().await.unwrap(), seen);
}

#[tokio::test]
async fn space_is_that_of_the_file_system() {
    let space = home().local.space().await.unwrap();
    assert!(space.free > 0 && space.free < space.total);
}

/// A tenant cannot hide from the quota: what is not synced takes space all the same.
#[tokio::test]
async fn t12_everything_on_the_disk_counts_however_it_hides() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    let globs = ["*.tmp", "cache/"].map(str::to_owned).to_vec();
    let spec = WorkspaceSpec { sync_exclude: globs, max_depth: 3, ..spec() };
    let base = Base::default();
    let counted =
        || async { home.local.scan(&place, &spec, &base, ScanMode::Quick).await.unwrap().bytes };
    let sparse = std::fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(counted().await < 1 << 19, "a hole takes nothing");
    for at in ["plain", "out.tmp", "cache/deep/er", "d1/d2/d3/d4/d5"] {
        let at = dir.join(at);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, vec![7; 1 << 20]).unwrap();
    }
    let found = counted().await;
    assert!((4 << 20..5 << 20).contains(&found), "{found}");
}

/// It costs its tenant nothing, and would cost the store all of it, for ever.
#[tokio::test]
async fn t7_a_file_of_holes_larger_than_the_quota_is_not_read_and_said() {
    let home = home();
    let (place, dir) = home.workspace("sparse").await;
    let spec = WorkspaceSpec { quota: 1 << 30, max_file_size: u64::MAX, ..spec() };
    let make = |name: &str, size| {
        let file = std::fs::File::create(dir.join(name)).unwrap();
        file.set_len(size).unwrap();
    };
    make("vast", 1 << 40);
    make("within", 1 << 20);
    std::fs::write(dir.join("plain"), "text").unwrap();
    let scan = home.local.scan(&place, &spec, &Base::default(), ScanMode::Quick).await.unwrap();
    assert_eq!(scan.skipped.get(&path("vast")), Some(&SkipReason::Sparse));
    assert!(SkipReason::Sparse.blocks_end());
    assert_eq!((scan.skipped.len(), scan.entries.len()), (1, 2), "{scan:?}");
}

#[tokio::test]
async fn a_hole_where_the_store_has_a_content_is_no_edit() {
    let home = home();
    let (place, dir) = home.workspace("holes").await;
    for name in ["lost", "new"] {
        std::fs::File::create(dir.join(name)).unwrap().set_len(5000).unwrap();
    }
    std::fs::write(dir.join("zeros"), [0; 5000]).unwrap();
    let entry = |sha256| BaseEntry {
        sha256,
        size: 5000,
        mode: 0o644,
        mtime_ns: 0,
        storage_key: "files/x".to_owned(),
        stamp: None,
        placed: false,
    };
    let mut base = Base::default();
    for name in ["lost", "zeros"] {
        base.files.insert(path(name), entry(Some(sum(b"content"))));
    }
    let scan = home.local.scan(&place, &spec(), &base, ScanMode::Checksum).await.unwrap();
    assert_eq!(scan.skipped.get(&path("lost")), Some(&SkipReason::Hollow));
    assert!(SkipReason::Hollow.blocks_end());
    assert_eq!(scan.skipped.len(), 1, "a new hole, and zeros that were written, are contents");
    base.files.insert(path("lost"), entry(Some(sum(&[0; 5000]))));
    let scan = home.local.scan(&place, &spec(), &base, ScanMode::Checksum).await.unwrap();
    assert!(scan.skipped.is_empty(), "it was stored as the hole it is");
}

#[tokio::test]
async fn many_small_files_come_and_go_at_once_and_each_is_told_by_itself() {
    let home = home();
    let (place, dir) = home.workspace("one").await;
    home.put(&place, "taken", b"theirs", Expect::Absent).await.unwrap();
    let name = |n: usize| path(&format!("d{}/f{n}", n % 3));
    let small = |path: RelPath, bytes: &[u8], file: FileSpec| SmallFile {
        path,
        file,
        bytes: bytes.to_vec(),
        expect: Expect::Absent,
    };
    let mut files: Vec<SmallFile> = (0..20)
        .map(|n| {
            let bytes = vec![b'x'; n];
            small(name(n), &bytes, file(&bytes))
        })
        .collect();
    files.push(small(path("taken"), b"ours", file(b"ours")));
    files.push(small(path("wrong"), b"wrong", file(b"right")));
    files.push(small(path("short"), b"x", file(b"xx")));
    let mut written = home.local.write_small(&place, files).await;
    let failed: Vec<Kind> = written.split_off(20).into_iter().map(kind).collect();
    assert_eq!(failed, [Kind::Changed, Kind::Corrupt, Kind::Corrupt]);
    assert_eq!(std::fs::read(dir.join("taken")).unwrap(), b"theirs");
    assert!(!dir.join("wrong").exists() && !dir.join("short").exists());
    assert!(home.staging_is_empty());

    let written = written.into_iter().map(|written| written.unwrap().1);
    let mut known: Vec<_> = written.enumerate().map(|(n, stamp)| (name(n), stamp)).collect();
    std::fs::write(dir.join("d1/f1"), b"edited").unwrap();
    std::fs::remove_file(dir.join("d2/f2")).unwrap();
    known.push((path("d0"), known[0].1));
    let read = home.local.read_small(&place, known).await;
    for (n, read) in read.into_iter().enumerate() {
        match n {
            1 | 20 => assert_eq!(kind(read), Kind::Changed),
            2 => assert_eq!(kind(read), Kind::NotFound),
            _ => assert_eq!(read.unwrap(), vec![b'x'; n]),
        }
    }

    let gone = Place { id: Some(crate::model::WorkspaceId { dev: 0, ino: 0 }), ..place };
    let files = vec![small(path("a"), b"a", file(b"a")), small(path("b"), b"b", file(b"b"))];
    let written = home.local.write_small(&gone, files).await;
    assert_eq!(written.into_iter().map(kind).collect::<Vec<_>>(), [Kind::Replaced; 2]);
}
