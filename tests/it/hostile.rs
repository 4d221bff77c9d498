//! Hostile workspaces: what a tenant with root in the container can do to the directory that
//! docket reads, writes and removes on the host. Test names carry the row of the threat model
//! (`t1`..) or of the fault list (`fault_28`..).
//!
//! Run as root, as docket does: some rows need devices, mounts and other owners.

mod faults;
mod halted;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use docket::model::{
    Base, BaseEntry, CaseName, FilesSpec, LargeFiles, LocalKind, RelPath, Scan, Scope, Sha256,
    SkipReason, Stamp, Tree, Uid, UserName, WorkspaceSpec,
};
use docket::workspace::Local;
use docket::world::{
    Expect, FileSpec, Place, ScanMode, WorkspaceError, WorkspaceErrorKind as Kind, Workspaces as _,
};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use sha2::Digest as _;
use tokio::io::AsyncReadExt as _;

/// Longest any single call may take here; far above what it takes.
const BOUND: Duration = Duration::from_mins(1);

/// A workspace, and beside its root a directory nobody may be led into.
struct Den {
    /// Goes before the directory it is in.
    _mounted: Option<Mounted>,
    dir: tempfile::TempDir,
    local: Local,
    place: Place,
    inside: PathBuf,
    outside: PathBuf,
}

fn den_at(root: &str, prepare: impl FnOnce(&Path) -> Option<Mounted>) -> Den {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("f"), "canary").expect("write");
    fs::set_permissions(outside.join("f"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let mounted = prepare(dir.path());
    let local = Local::open(dir.path().join(root)).expect("a workspaces root");
    let mut place = Place {
        user: UserName::parse("alice").expect("a user"),
        case: CaseName::parse("case").expect("a case"),
        uid: Uid::from_bytes([1; 16]),
        id: None,
    };
    place.id = Some(wait(local.ensure(&place, (1000, 1000))).expect("a workspace").id);
    let inside = local.host_path(&place, false);
    Den { _mounted: mounted, dir, local, place, inside, outside }
}

fn den() -> Den {
    den_at("ws", |_| None)
}

/// Runs a call to its end, which must come.
fn wait<T>(call: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let bounded = async { tokio::time::timeout(BOUND, call).await };
    runtime.expect("a runtime").block_on(bounded).expect("the call ends")
}

pub fn spec() -> WorkspaceSpec {
    WorkspaceSpec {
        mount_path: "/opt/workspace".into(),
        scope: Scope::Case,
        folders: vec![],
        owner: String::new(),
        quota: 0,
        max_files: 1_000_000,
        max_file_size: 100 << 30,
        max_depth: 256,
        files: FilesSpec {
            eager_below: 1 << 20,
            large: LargeFiles::Eager,
            prefetch: 0,
            open_deadline: Duration::from_mins(1),
        },
        sync_interval: Duration::from_secs(30),
        sync_exclude: vec![],
    }
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).expect("a path")
}

fn file(bytes: &[u8]) -> FileSpec {
    let size = bytes.len() as u64;
    let sha256 = Some(sum(bytes));
    FileSpec { size, sha256, mode: 0o644, mtime_ns: 1_600_000_000_000_000_000, owner: (1000, 1000) }
}

fn sum(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

fn stamp(path: &Path) -> Stamp {
    let meta = fs::symlink_metadata(path).expect("metadata");
    let ns = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
    Stamp {
        ino: meta.ino(),
        size: meta.size(),
        mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
    }
}

impl Den {
    fn scan_as(&self, spec: &WorkspaceSpec, base: &Base, mode: ScanMode) -> Scan {
        wait(self.local.scan(&self.place, spec, base, mode)).expect("a scan")
    }

    fn scan(&self) -> Scan {
        self.scan_as(&spec(), &Base::default(), ScanMode::Quick)
    }

    fn write(&self, at: &RelPath, bytes: &[u8], expect: Expect) -> Result<Stamp, WorkspaceError> {
        let body = Box::pin(std::io::Cursor::new(bytes.to_vec()));
        let file = file(bytes);
        let written = self.local.write(&self.place, at, &file, body, expect);
        wait(written).map(|(_, stamp)| stamp)
    }

    fn read(&self, at: &RelPath, expected: Stamp) -> Result<Vec<u8>, WorkspaceError> {
        wait(async {
            let mut body = self.local.read(&self.place, at, expected).await?;
            let mut bytes = Vec::new();
            match body.read_to_end(&mut bytes).await {
                Ok(_) => Ok(bytes),
                Err(error) => Err(error
                    .get_ref()
                    .and_then(|e| e.downcast_ref::<WorkspaceError>())
                    .expect("an error of ours")
                    .clone()),
            }
        })
    }

    /// What is outside is as it was: the canary alone, its bytes, mode and owner.
    fn assert_outside_untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.outside).expect("outside is there").collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(fs::read(self.outside.join("f")).expect("the canary is there"), b"canary");
        let meta = fs::metadata(self.outside.join("f")).expect("metadata");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, 0));
        let meta = fs::metadata(&self.outside).expect("metadata");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o755, 0));
    }
}

/// A thread that does something over and over until it is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn busy(mut work: impl FnMut() + Send + 'static) -> Busy {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            work();
        }
    });
    Busy { stop, thread: Some(thread) }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(!matches!(joined, Some(Err(_))), "the hostile thread died");
    }
}

fn exchange(a: &Path, b: &Path) {
    let _ = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
}

/// `sub` is a directory with `f` inside, `link` leads outside; their names change places.
fn swap_sub(den: &Den) -> Busy {
    let (sub, link) = (den.inside.join("sub"), den.inside.join("link"));
    fs::create_dir(&sub).expect("mkdir");
    fs::write(sub.join("f"), "inside file").expect("write");
    symlink(&den.outside, &link).expect("symlink");
    busy(move || exchange(&sub, &link))
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn tmpfs(at: &Path, options: &str) -> Mounted {
    fs::create_dir_all(at).expect("mkdir");
    let options = std::ffi::CString::new(options).expect("options");
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).expect("root");
    Mounted(at.to_owned())
}

#[test]
fn t1_links_are_recorded_and_never_followed() {
    let den = den();
    let outside = den.outside.to_str().expect("text");
    fs::create_dir(den.inside.join("d")).expect("mkdir");
    let canary = format!("{outside}/f");
    let links = [
        ("to-file", canary.as_str()),
        ("to-dir", outside),
        ("to-root", "/"),
        ("up", ".."),
        ("self", "self"),
        ("d/out", "../../../../../outside"),
        ("magic", "/proc/self/root"),
        ("nowhere", "missing"),
    ];
    for (at, target) in links {
        symlink(target, den.inside.join(at)).expect("symlink");
    }
    for mode in [ScanMode::Quick, ScanMode::Checksum] {
        let scan = den.scan_as(&spec(), &Base::default(), mode);
        assert_eq!(scan.entries.len(), links.len() + 1);
        assert!(scan.skipped.is_empty());
        for (at, target) in links {
            assert_eq!(scan.entries[&path(at)].kind, LocalKind::Symlink(target.to_owned()));
        }
    }
    let canary = stamp(&den.outside.join("f"));
    for at in ["to-file", "to-dir/f", "d/out/f", "up/case/to-file", "to-root/etc/passwd"] {
        let at = path(at);
        assert_eq!(den.read(&at, canary).expect_err("refused").kind, Kind::Changed, "{at}");
        let replaced = den.write(&at, b"evil", Expect::Stamp(canary));
        assert_eq!(replaced.expect_err("refused").kind, Kind::Changed, "{at}");
        let removed = den.local.remove_file(&den.place, &at, Expect::Stamp(canary));
        assert_eq!(wait(removed).expect_err("refused").kind, Kind::Changed, "{at}");
        let mine = path("mine");
        let moved = den.local.rename(&den.place, &at, &mine, canary);
        assert_eq!(wait(moved).expect_err("refused").kind, Kind::Changed, "{at}");
    }
    for at in ["to-dir/new", "d/out/new", "to-file/new", "nowhere", "nowhere/new"] {
        let made = den.write(&path(at), b"evil", Expect::Absent);
        assert_eq!(made.expect_err("refused").kind, Kind::Changed, "{at}");
    }
    den.assert_outside_untouched();
}

/// The reader docket must not be: it resolves, checks, and opens by path.
fn naive_read(root: &Path, at: &str) -> Option<String> {
    let real = fs::canonicalize(root.join(at)).ok()?;
    if !real.starts_with(root) {
        return None;
    }
    let mut text = String::new();
    fs::File::open(root.join(at)).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn t2_a_swapped_directory_never_leads_out() {
    const TRIES: u32 = 20_000;
    let den = den();
    let hostile = swap_sub(&den);
    let canary = stamp(&den.outside.join("f"));
    let (at, inside) = (path("sub/f"), sum(b"inside file"));
    let mut seen = 0;
    wait(async {
        for _ in 0..TRIES / 2 {
            let (spec, base) = (spec(), Base::default());
            let scanned = den.local.scan(&den.place, &spec, &base, ScanMode::Quick).await;
            for (path, entry) in scanned.expect("a scan").entries {
                if let LocalKind::File { sha256, stamp } = entry.kind {
                    assert_eq!(sha256, Some(inside), "{path}");
                    assert_ne!(stamp.ino, canary.ino, "{path}");
                    seen += 1;
                }
            }
            let read = den.local.read(&den.place, &at, canary).await;
            assert!(read.is_err(), "the canary was opened");
        }
    });
    assert!(seen > 0, "the file inside was seen at times");

    // The control: the same race must lead the naive reader out, or it proves nothing.
    let root = den.inside.canonicalize().expect("a path");
    let since = Instant::now();
    while naive_read(&root, "sub/f").as_deref() != Some("canary") {
        assert!(since.elapsed() < BOUND, "the race never led anybody out: the control is void");
    }
    drop(hostile);
    den.assert_outside_untouched();
}

#[test]
fn t3_a_parent_swapped_while_files_arrive_takes_nothing_outside() {
    let den = den();
    let hostile = swap_sub(&den);
    let large = vec![7u8; 600_000];
    let mut written = 0;
    for round in 0..1500 {
        let bytes: &[u8] = if round % 10 == 0 { &large } else { b"small" };
        let at = path(&format!("sub/{}/{round}", round % 7));
        match den.write(&at, bytes, Expect::Absent) {
            Ok(_) => written += 1,
            Err(error) => {
                assert!(matches!(error.kind, Kind::Changed | Kind::NotFound), "{error}");
            }
        }
    }
    drop(hostile);
    assert!(written > 0, "some arrived");
    den.assert_outside_untouched();
}

#[test]
fn t4_modes_and_owners_never_change_through_a_link() {
    let den = den();
    symlink(&den.outside, den.inside.join("drafts")).expect("symlink");
    symlink(den.outside.join("f"), den.inside.join("final")).expect("symlink");
    let canary = stamp(&den.outside.join("f"));
    for at in ["drafts/f", "final"] {
        let at = path(at);
        let set = den.local.set_meta(&den.place, &at, 0o777, 1, canary);
        assert_eq!(wait(set).expect_err("refused").kind, Kind::Changed);
    }
    let folders = ["drafts".to_owned(), "final".to_owned()];
    wait(den.local.ensure_folders(&den.place, &folders, (1000, 1000))).expect("in the way is fine");
    let mut tree = Tree::default();
    for at in ["drafts", "drafts/sub", "final"] {
        tree.directories.insert(path(at), 0o777);
    }
    tree.symlinks.insert(path("drafts/link"), "x".into());
    wait(den.local.ensure_tree(&den.place, &tree, (1000, 1000))).expect("in the way is fine");
    den.assert_outside_untouched();
}

#[test]
fn t4_owners_never_change_through_a_swapped_directory() {
    let den = den();
    let hostile = swap_sub(&den);
    wait(async {
        for round in 0..2000 {
            let mut tree = Tree::default();
            tree.directories.insert(path("sub"), 0o777);
            tree.directories.insert(path(&format!("sub/{round}/x")), 0o777);
            let _ = den.local.ensure_tree(&den.place, &tree, (1000, 1000)).await;
        }
    });
    drop(hostile);
    den.assert_outside_untouched();
}

#[test]
fn t5_the_end_of_a_workspace_removes_nothing_outside() {
    let den = den();
    fs::create_dir_all(den.inside.join("a/b/c")).expect("mkdir");
    fs::set_permissions(den.inside.join("a/b"), fs::Permissions::from_mode(0o0)).expect("chmod");
    for at in ["link", "a/link", "a/b/c/link"] {
        symlink(&den.outside, den.inside.join(at)).expect("symlink");
    }
    fs::hard_link(den.outside.join("f"), den.inside.join("a/hard")).expect("link");
    wait(den.local.trash(&den.place)).expect("trashed");
    // Whoever still holds a directory open goes on swapping inside the trash.
    let trash = den.dir.path().join("ws/.docket/trash").join(den.place.uid.as_str());
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let held = rustix::fs::open(trash.join("a"), flags, Mode::empty()).expect("open");
    let hostile = busy(move || {
        let _ = renameat_with(&held, "b", &held, "link", RenameFlags::EXCHANGE);
    });
    let mut emptied = wait(den.local.empty_trash(&den.place.uid));
    drop(hostile);
    for _ in 0..3 {
        if emptied.is_ok() {
            break;
        }
        emptied = wait(den.local.empty_trash(&den.place.uid));
    }
    emptied.expect("emptied once nobody interferes");
    assert!(!trash.exists());
    den.assert_outside_untouched();
}

#[test]
fn t5_a_workspace_swapped_at_its_end_is_put_back() {
    let den = den();
    let active = den.inside.parent().expect("active").to_owned();
    let evil = active.join("evil");
    let mut ended = 0;
    for round in 0..400 {
        let place = Place { id: None, ..den.place.clone() };
        let id = wait(den.local.ensure(&place, (1000, 1000))).expect("made").id;
        let place = Place { id: Some(id), ..place };
        fs::write(den.inside.join("mine"), "x").expect("write");
        if round % 2 == 0 {
            symlink(&den.outside, &evil).expect("symlink");
        } else {
            fs::create_dir(&evil).expect("mkdir");
            fs::write(evil.join("theirs"), "y").expect("write");
        }
        let (case, other) = (den.inside.clone(), evil.clone());
        let hostile = busy(move || exchange(&case, &other));
        let moved = wait(den.local.trash(&place));
        drop(hostile);
        match moved {
            Ok(()) => ended += 1,
            Err(error) => assert!(matches!(error.kind, Kind::Replaced | Kind::Io), "{error}"),
        }
        let trash = den.dir.path().join("ws/.docket/trash");
        for entry in fs::read_dir(&trash).expect("the trash") {
            let entry = entry.expect("an entry");
            assert!(entry.file_type().expect("a type").is_dir(), "only the workspace is there");
            assert!(entry.path().join("mine").exists(), "only the workspace is there");
        }
        wait(den.local.empty_trash(&place.uid)).expect("emptied");
        // Whatever is left of the round goes by hand.
        for at in [&den.inside, &evil] {
            let _ = fs::remove_file(at);
            let _ = fs::remove_dir_all(at);
        }
    }
    assert!(ended > 0, "the end was reached at times");
    den.assert_outside_untouched();
}

#[test]
fn t5_a_mount_beneath_keeps_a_workspace_from_going() {
    let den = den();
    let point = den.inside.join("mounted here");
    fs::create_dir(&point).expect("mkdir");
    let mounted = {
        mount_bind(&den.outside, &point).expect("root");
        Mounted(point.clone())
    };
    let scan = den.scan();
    assert!(!scan.entries.contains_key(&path("mounted here/f")));
    let why = SkipReason::Unreadable("something is mounted there".to_owned());
    assert_eq!(scan.skipped.get(&path("mounted here")), Some(&why));
    let refused = wait(den.local.trash(&den.place)).expect_err("refused");
    assert_eq!(refused.kind, Kind::Busy);
    assert!(refused.message.contains("mounted here"), "{refused}");
    assert!(point.join("f").exists());
    drop(mounted);
    wait(den.local.trash(&den.place)).expect("trashed");

    let point = den.dir.path().join("ws/.docket/trash").join(den.place.uid.as_str());
    let point = point.join("mounted here");
    mount_bind(&den.outside, &point).expect("root");
    let mounted = Mounted(point);
    let refused = wait(den.local.empty_trash(&den.place.uid)).expect_err("refused");
    assert_eq!(refused.kind, Kind::Busy);
    drop(mounted);
    wait(den.local.empty_trash(&den.place.uid)).expect("emptied");
    den.assert_outside_untouched();
}

#[test]
fn t6_fault_38_fifos_sockets_and_devices_block_nobody() {
    let den = den();
    let mode = Mode::RWXU;
    for (at, kind) in [
        ("fifo", FileType::Fifo),
        ("socket", FileType::Socket),
        ("null", FileType::CharacterDevice),
        ("disk", FileType::BlockDevice),
    ] {
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(CWD, den.inside.join(at), kind, mode, device).expect("root");
    }
    fs::write(den.inside.join("file"), "x").expect("write");
    for mode in [ScanMode::Quick, ScanMode::Checksum] {
        let scan = den.scan_as(&spec(), &Base::default(), mode);
        assert_eq!(scan.entries.len(), 1);
        let expected = ["disk", "fifo", "null", "socket"].map(path);
        assert_eq!(scan.skipped.keys().cloned().collect::<Vec<_>>(), expected);
        assert!(scan.skipped.values().all(|why| *why == SkipReason::Special));
    }
    for at in ["disk", "fifo", "null", "socket"] {
        let seen = stamp(&den.inside.join(at));
        let at = path(at);
        assert_eq!(den.read(&at, seen).expect_err("refused").kind, Kind::Changed);
        let removed = den.local.remove_file(&den.place, &at, Expect::Stamp(seen));
        assert_eq!(wait(removed).expect_err("refused").kind, Kind::Changed);
    }
    wait(den.local.trash(&den.place)).expect("trashed");
    wait(den.local.empty_trash(&den.place.uid)).expect("emptied");
}

#[test]
fn t6_a_file_that_becomes_a_fifo_blocks_nobody() {
    let den = den();
    let (at, other) = (den.inside.join("f"), den.inside.join("other"));
    fs::write(&at, "content").expect("write");
    let seen = stamp(&at);
    rustix::fs::mknodat(CWD, &other, FileType::Fifo, Mode::RWXU, 0).expect("mkfifo");
    let hostile = busy(move || exchange(&at, &other));
    wait(async {
        for _ in 0..200 {
            let base = Base::default();
            den.local.scan(&den.place, &spec(), &base, ScanMode::Quick).await.expect("a scan");
            if let Ok(mut body) = den.local.read(&den.place, &path("f"), seen).await {
                let _ = body.read_to_end(&mut Vec::new()).await;
            }
        }
    });
    drop(hostile);
}

#[test]
fn t7_fault_40_a_huge_workspace_is_walked_within_its_limits_and_removed() {
    const FILES: usize = 100_000;
    // In memory: it is the walk that is tried, not the disk.
    let den = den_at("huge", |dir| Some(tmpfs(&dir.join("huge"), "mode=700")));
    for dir in 0..FILES / 1000 {
        let dir = den.inside.join(format!("d{dir}"));
        fs::create_dir(&dir).expect("mkdir");
        let dir = rustix::fs::open(&dir, OFlags::DIRECTORY, Mode::empty()).expect("open");
        for file in 0..1000 {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&dir, format!("f{file}"), flags, Mode::RUSR).expect("create");
        }
    }
    let sparse = fs::File::create(den.inside.join("sparse")).expect("create");
    sparse.set_len(1 << 40).expect("truncate");
    deep(&den.inside, 3000);

    let few = WorkspaceSpec { max_files: 1000, ..spec() };
    let scan = den.scan_as(&few, &Base::default(), ScanMode::Quick);
    let files = |scan: &Scan| {
        scan.entries.values().filter(|e| matches!(e.kind, LocalKind::File { .. })).count()
    };
    assert!(files(&scan) <= 1000);
    assert!(scan.skipped.values().any(|why| *why == SkipReason::TooMany));
    assert!(scan.entries.len() + scan.skipped.len() < 5000, "a cut walk stays small");

    let full = den.scan();
    assert_eq!(files(&full), FILES);
    assert_eq!(full.skipped.get(&path("sparse")), Some(&SkipReason::TooLarge));
    let deepest = full.entries.keys().map(RelPath::depth).max();
    assert_eq!(deepest, Some(256));
    let below = full.skipped.iter().find(|(path, _)| path.depth() == 257);
    assert_eq!(below.map(|(_, why)| why), Some(&SkipReason::TooDeep));

    wait(den.local.trash(&den.place)).expect("trashed");
    wait(den.local.empty_trash(&den.place.uid)).expect("emptied");
    assert!(wait(den.local.list_trash()).expect("a listing").is_empty());
}

/// Directories within directories, deeper than any path can say.
fn deep(at: &Path, depth: usize) {
    let mut dir: OwnedFd = fs::File::open(at).expect("open").into();
    for _ in 0..depth {
        rustix::fs::mkdirat(&dir, "deep", Mode::RWXU).expect("mkdir");
        dir = rustix::fs::openat(&dir, "deep", OFlags::DIRECTORY, Mode::empty()).expect("open");
    }
}

#[test]
fn t7_a_path_too_long_to_be_said_is_reported_where_it_begins() {
    let den = den();
    let mut dir: OwnedFd = fs::File::open(&den.inside).expect("open").into();
    let name = "n".repeat(255);
    for _ in 0..40 {
        rustix::fs::mkdirat(&dir, &*name, Mode::RWXU).expect("mkdir");
        dir = rustix::fs::openat(&dir, &*name, OFlags::DIRECTORY, Mode::empty()).expect("open");
    }
    let scan = den.scan();
    let (at, why) = scan.skipped.first_key_value().expect("something is skipped");
    assert_eq!((scan.skipped.len(), why), (1, &SkipReason::TooDeep));
    assert!(at.as_bytes().len() + 256 > 4095);
}

#[test]
fn fault_41_names_that_are_no_text_round_trip() {
    let den = den();
    names_round_trip(&den, b"\xff\xfe");
    names_round_trip(&den, b"new\nline\r\x1b[31m");
    names_round_trip(&den, &[b'x'; 255]);
    names_round_trip(&den, b"-rf %41 *?[");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn t8_any_name_round_trips_and_is_never_shown_raw(
        name in proptest::collection::vec((1u8..=255).prop_filter("a name", |b| *b != b'/'), 1..256)
    ) {
        prop_assume!(name != b"." && name != b"..");
        let den = den();
        names_round_trip(&den, &name);
    }
}

fn names_round_trip(den: &Den, name: &[u8]) {
    let at = RelPath::parse(name).expect("a path");
    let host = den.inside.join(std::ffi::OsStr::from_bytes(name));
    fs::write(&host, "host").expect("write");
    let scan = den.scan();
    assert_eq!(scan.entries.keys().collect::<Vec<_>>(), [&at]);
    let shown = at.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown}");
    assert_eq!(RelPath::try_from(shown).expect("it parses"), at);
    let LocalKind::File { stamp, .. } = scan.entries[&at].kind else { panic!("{scan:?}") };
    assert_eq!(den.read(&at, stamp).expect("it reads"), b"host");
    let stamp = den.write(&at, b"docket", Expect::Stamp(stamp)).expect("it writes");
    assert_eq!(fs::read(&host).expect("it is there"), b"docket");
    let error = den.write(&at, b"x", Expect::Absent).expect_err("taken").to_string();
    assert!(!error.chars().any(char::is_control), "{error}");
    wait(den.local.remove_file(&den.place, &at, Expect::Stamp(stamp))).expect("it goes");
    assert!(!host.exists());
}

#[test]
fn t9_no_setuid_file_is_made_and_no_other_user_gets_in() {
    let den = den();
    let bytes = fs::read("/bin/true").expect("a program");
    let setuid = FileSpec { mode: 0o6755, ..file(&bytes) };
    let body = Box::pin(std::io::Cursor::new(bytes));
    let at = path("su");
    let written = den.local.write(&den.place, &at, &setuid, body, Expect::Absent);
    let (_, seen) = wait(written).expect("written");
    let mode = || fs::metadata(den.inside.join("su")).expect("metadata").mode() & 0o7777;
    assert_eq!(mode(), 0o755);
    wait(den.local.set_meta(&den.place, &path("su"), 0o7777, 1, seen)).expect("set");
    assert_eq!(mode(), 0o777);
    // The tenant makes one: it is not carried on, and no accomplice on the host reaches it.
    let own = fs::Permissions::from_mode(0o6755);
    fs::set_permissions(den.inside.join("su"), own).expect("chmod");
    assert_eq!(den.scan().entries[&path("su")].mode, 0o755);
    fs::set_permissions(den.dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let ran = std::process::Command::new(den.inside.join("su")).uid(65534).gid(65534).status();
    assert_eq!(ran.expect_err("refused").kind(), std::io::ErrorKind::PermissionDenied);
}

/// A page a version: what was read is one state the file had if the versions never rise and the
/// first is at most one ahead of the last.
fn one_state(bytes: &[u8]) -> bool {
    let version = |page: &[u8]| u64::from_le_bytes(page[..8].try_into().expect("8 bytes"));
    let versions: Vec<u64> = bytes.chunks(4096).map(version).collect();
    let falling = versions.windows(2).all(|pair| pair[0] >= pair[1]);
    falling && versions.first() <= versions.last().map(|last| last + 1).as_ref()
}

#[test]
fn t10_fault_42_what_is_read_is_one_state_of_the_file_or_an_error() {
    const PAGES: u64 = 64;
    let den = den();
    let at = den.inside.join("busy");
    fs::write(&at, vec![0; 4096 * PAGES as usize]).expect("write");
    let writer = fs::OpenOptions::new().write(true).open(&at).expect("open");
    let rounds = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&rounds);
    let hostile = busy(move || {
        let round = count.fetch_add(1, Ordering::Relaxed) + 1;
        for page in 0..PAGES {
            writer.write_all_at(&round.to_le_bytes(), page * 4096).expect("write");
        }
        if round.is_multiple_of(200) {
            // Long enough a pause for some readings to succeed.
            std::thread::park_timeout(Duration::from_millis(40));
        }
    });
    let (mut read, mut torn, mut refused) = (0, 0, 0);
    let since = Instant::now();
    while (read < 20 || torn + refused < 5) && since.elapsed() < BOUND / 2 {
        let scan = den.scan();
        let Some(entry) = scan.entries.get(&path("busy")) else {
            assert_eq!(scan.skipped.get(&path("busy")), Some(&SkipReason::Torn));
            torn += 1;
            continue;
        };
        let LocalKind::File { sha256, stamp } = entry.kind else { panic!("{entry:?}") };
        match den.read(&path("busy"), stamp) {
            Ok(bytes) => {
                assert!(one_state(&bytes));
                assert_eq!(Some(sum(&bytes)), sha256, "what was hashed is what was read");
                read += 1;
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::Changed);
                refused += 1;
            }
        }
    }
    drop(hostile);
    assert!(read > 0, "some readings succeeded ({torn} torn, {refused} refused)");
    assert!(rounds.load(Ordering::Relaxed) > 0);
}

#[test]
fn t10_a_file_that_shrinks_or_grows_while_it_is_read_gives_an_error_before_its_end() {
    let den = den();
    let at = den.inside.join("f");
    for change in [0u64, 600_000, 1_200_000] {
        fs::write(&at, vec![b'x'; 1_000_000]).expect("write");
        let seen = stamp(&at);
        let got = wait(async {
            let mut body = den.local.read(&den.place, &path("f"), seen).await.expect("opened");
            let mut first = vec![0; 300_000];
            body.read_exact(&mut first).await.expect("the beginning");
            fs::OpenOptions::new()
                .write(true)
                .open(&at)
                .expect("open")
                .set_len(change)
                .expect("cut");
            // Whoever counts bytes never gets all of them.
            body.read_exact(&mut vec![0; 700_000]).await
        });
        assert!(got.is_err(), "{change}");
    }
}
