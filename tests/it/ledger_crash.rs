//! The ledger against what the world does to it: kill -9, damage, a full disk, a refusing disk,
//! power cuts. What was acknowledged is there afterwards, or its loss is said aloud.
//!
//! A test that kills, limits or mounts runs itself again as a child and looks at what is left.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use docket::ledger::Sled;
use docket::model::{Base, Record, Uid};
use docket::world::{Contents, Ledger, REBUILT, Write};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Set for a child: which directory it works on.
const CHILD: &str = "DOCKET_TEST_LEDGER";

/// The directory that this process works on if it is a child.
fn child() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// This test binary running one test, as a child on a directory, behind another command if any.
fn again(wrapper: &[&str], test: &str, dir: &Path) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(me),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args).arg(me);
            command
        }
    };
    command.args(["--exact", "--nocapture", "--test-threads=1"]);
    command.arg(format!("ledger_crash::{test}")).env(CHILD, dir);
    command
}

/// Runs one test as a child, which must succeed.
fn run_again(wrapper: &[&str], test: &str, dir: &Path) {
    let output = again(wrapper, test, dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn fact(name: impl Into<String>, text: impl Into<String>) -> Write {
    Write::Fact(name.into(), text.into())
}

fn record(number: u8, attempt: u32) -> Record {
    let text = include_str!("../fixtures/record-v1.json");
    let mut record: Record = serde_json::from_str(text).unwrap();
    record.uid = Uid::from_bytes([number; 16]);
    record.attempt = attempt;
    record
}

fn base(files: usize) -> Base {
    let row = |number: usize| {
        let path = docket::model::RelPath::parse(format!("f{number}").as_bytes()).unwrap();
        let entry = docket::model::BaseEntry {
            sha256: None,
            size: 1,
            mode: 0o644,
            mtime_ns: 1,
            storage_key: "k".repeat(60),
            stamp: None,
            placed: false,
        };
        (path, entry)
    };
    Base { files: (0..files).map(row).collect(), ..Base::default() }
}

/// How many sessions the workload has.
const SESSIONS: u8 = 40;

/// One step of the workload: a session's record goes up by one, with an index of that size.
fn step(number: u8, attempt: u32) -> Vec<Write> {
    let record = record(number, attempt);
    let index = Write::Base(record.uid.clone(), Box::new(base(attempt as usize % 300)));
    let mut batch = vec![Write::Record(Box::new(record))];
    if attempt.is_multiple_of(3) {
        batch.push(index);
    }
    batch
}

/// Four tasks that overwrite records for ever, telling each acknowledgement on stdout.
async fn work(ledger: &Sled, mut acknowledged: impl FnMut()) {
    let contents = ledger.load().await.unwrap();
    let attempts: BTreeMap<u8, u32> = (0..SESSIONS)
        .map(|number| (number, contents.records.get(&record(number, 0).uid)))
        .map(|(number, record)| (number, record.map_or(0, |record| record.attempt)))
        .collect();
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    let lane = |lane: u8, told: tokio::sync::mpsc::UnboundedSender<(u8, u32)>| {
        let mut attempts = attempts.clone();
        async move {
            loop {
                for number in (0..SESSIONS).filter(|number| number % 4 == lane) {
                    let attempt = attempts.get_mut(&number).unwrap();
                    *attempt += 1;
                    ledger.commit(step(number, *attempt)).await.unwrap();
                    told.send((number, *attempt)).unwrap();
                }
            }
        }
    };
    let tell = async {
        while let Some((number, attempt)) = tell.recv().await {
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {number} {attempt}").unwrap();
            out.flush().unwrap();
            acknowledged();
        }
    };
    tokio::join!(
        lane(0, told.clone()),
        lane(1, told.clone()),
        lane(2, told.clone()),
        lane(3, told),
        tell
    );
}

/// What a child told, until it ends.
fn acknowledgements(child: &mut Child, mut heard: impl FnMut(usize)) -> BTreeMap<u8, u32> {
    let mut acks = BTreeMap::new();
    let mut count = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
        let line = String::from_utf8(line.unwrap()).unwrap();
        // libtest writes its own words into the first line.
        let Some((_, ack)) = line.split_once("ack ") else { continue };
        let Some((number, attempt)) = ack.split_once(' ') else { continue };
        acks.insert(number.parse().unwrap(), attempt.parse().unwrap());
        count += 1;
        heard(count);
    }
    acks
}

/// Every acknowledged step is there; the newest may be one further, whose answer was lost.
fn check_acknowledged(state: &Path, acks: &BTreeMap<u8, u32>) -> BTreeMap<u8, u32> {
    let ledger = Sled::open(state).unwrap();
    let contents = block(ledger.load()).unwrap();
    assert_eq!(contents.rebuilt, None, "it was moved aside: {acks:?}");
    assert_eq!(contents.unknown, Vec::<String>::new());
    let there: BTreeMap<u8, u32> = (0..SESSIONS)
        .filter_map(|number| {
            let attempt = contents.records.get(&record(number, 0).uid)?.attempt;
            assert_eq!(contents.records[&record(number, 0).uid], record(number, attempt));
            Some((number, attempt))
        })
        .collect();
    for (number, attempt) in acks {
        let kept = there.get(number).copied().unwrap_or(0);
        assert!(kept >= *attempt, "session {number}: {attempt} was acknowledged, {kept} is there");
    }
    for (number, attempt) in &there {
        let index = block(ledger.base(&record(*number, 0).uid)).unwrap();
        let newest = attempt / 3 * 3;
        let expected = (newest > 0).then(|| base(newest as usize % 300));
        assert_eq!(index, expected, "a record and its index are one batch");
    }
    there
}

/// A state directory in which all is rebuilt.
fn made(state: &Path) {
    let ledger = Sled::open(state).unwrap();
    block(ledger.commit(vec![fact(REBUILT, "{}")])).unwrap();
}

/// Rows 1 and 2.
#[test]
fn f2_what_was_acknowledged_survives_kill_9_at_any_time() {
    if let Some(state) = child() {
        let ledger = Sled::open(&state).unwrap();
        block(work(&ledger, || ()));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    made(&state);
    let mut random = SmallRng::seed_from_u64(1);
    let mut all = BTreeMap::new();
    for round in 0..40 {
        let mut child = again(&[], "f2_what_was_acknowledged_survives_kill_9_at_any_time", &state)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let kill = || rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        if round % 2 == 0 {
            // Somewhere in the middle of opening.
            std::thread::sleep(Duration::from_micros(random.random_range(0..40_000)));
            kill();
            all.extend(acknowledgements(&mut child, |_| ()));
        } else {
            let enough = random.random_range(1..200);
            all.extend(acknowledgements(&mut child, |count| {
                if count == enough {
                    kill();
                }
            }));
        }
        child.wait().unwrap();
        all = check_acknowledged(&state, &all);
    }
    assert!(all.values().sum::<u32>() > 500, "the children got to work: {all:?}");
}

/// Row 3. `EXT4_IOC_SHUTDOWN` drops what the file system has not put on the disk yet.
#[test]
fn f3_what_was_acknowledged_survives_a_power_cut() {
    const NAME: &str = "f3_what_was_acknowledged_survives_a_power_cut";
    let Some(dir) = child() else {
        let dir = tempfile::tempdir().unwrap();
        return run_again(&["unshare", "--mount"], NAME, dir.path());
    };
    if dir.ends_with("state") {
        return work_until_the_power_goes(&dir);
    }
    let (image, disk) = (dir.join("image"), dir.join("disk"));
    fs::create_dir(&disk).unwrap();
    fs::File::create(&image).unwrap().set_len(96 << 20).unwrap();
    run("mkfs.ext4", &["-q", "-F"], &[&image]);
    run("mount", &["-o", "loop"], &[&image, &disk]);
    let state = disk.join("state");
    made(&state);
    let mut all = BTreeMap::new();
    for _ in 0..12 {
        let mut child =
            again(&[], NAME, &state).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        all.extend(acknowledgements(&mut child, |_| ()));
        child.wait().unwrap();
        run("umount", &[], &[&disk]);
        run("mount", &["-o", "loop"], &[&image, &disk]);
        all = check_acknowledged(&state, &all);
    }
    run("umount", &[], &[&disk]);
    assert!(all.values().sum::<u32>() > 300, "the children got to work: {all:?}");
}

fn work_until_the_power_goes(state: &Path) {
    let disk = fs::File::open(state.parent().unwrap()).unwrap();
    let ledger = Sled::open(state).unwrap();
    let mut left = rand::rng().random_range(1..120);
    block(work(&ledger, || {
        left -= 1;
        if left == 0 {
            cut_power(&disk);
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
    }));
}

#[expect(unsafe_code, reason = "an ioctl that no crate has")]
fn cut_power(disk: &fs::File) {
    use std::os::fd::AsRawFd as _;
    const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
    const WITHOUT_FLUSH: u32 = 2;
    let how = WITHOUT_FLUSH;
    // SAFETY: the call reads one u32 behind the pointer, which lives through it.
    let result = unsafe { libc::ioctl(disk.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &raw const how) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn run(program: &str, args: &[&str], paths: &[&Path]) {
    let output = Command::new(program).args(args).args(paths).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Row 27.
#[test]
fn f27_a_full_disk_stops_writes_and_is_forgiven_without_a_restart() {
    const NAME: &str = "f27_a_full_disk_stops_writes_and_is_forgiven_without_a_restart";
    let Some(dir) = child() else {
        let dir = tempfile::tempdir().unwrap();
        return run_again(&["unshare", "--mount"], NAME, dir.path());
    };
    run("mount", &["-t", "tmpfs", "-o", "size=8m", "none"], &[&dir]);
    let (state, ballast) = (dir.join("state"), dir.join("ballast"));
    made(&state);
    let ledger = Sled::open(&state).unwrap();
    let one = record(1, 3);
    block(ledger.commit(step(1, 3))).unwrap();
    let fill = fs::write(&ballast, vec![1; 8 << 20]);
    assert_eq!(fill.unwrap_err().kind(), std::io::ErrorKind::StorageFull);

    let error = block(ledger.commit(vec![fact("lost", "1")])).unwrap_err();
    assert!(error.no_space, "{error}");
    assert_eq!(block(ledger.base(&one.uid)).unwrap(), Some(base(3)), "looking goes on");
    assert_eq!(block(ledger.load()).unwrap().records.len(), 1);

    fs::remove_file(&ballast).unwrap();
    block(ledger.commit(vec![fact("kept", "1")])).unwrap();
    drop(ledger);
    let ledger = Sled::open(&state).unwrap();
    let contents = block(ledger.load()).unwrap();
    assert_eq!(contents.rebuilt, None);
    assert_eq!(contents.records, BTreeMap::from([(one.uid.clone(), one)]));
    assert!(contents.facts.contains_key("kept") && !contents.facts.contains_key("lost"));
    drop(ledger);
    run("umount", &[], &[&dir]);
}

/// Rows 27 and 29: the system refuses a write in the middle of a batch. sled never forgives that.
#[test]
fn f29_a_refused_write_is_undone_and_forgiven_without_a_restart() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const NAME: &str = "f29_a_refused_write_is_undone_and_forgiven_without_a_restart";
    let Some(state) = child() else {
        let dir = tempfile::tempdir().unwrap();
        // A file over the limit is an error then, not the end of the process.
        let ignoring = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
        return run_again(&ignoring, NAME, &dir.path().join("state"));
    };
    made(&state);
    let ledger = Sled::open(&state).unwrap();
    block(ledger.commit(step(1, 3))).unwrap();
    let unlimited = getrlimit(Resource::Fsize);
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: unlimited.maximum };
        setrlimit(Resource::Fsize, limit).unwrap();
    };
    let mut kept = 0;
    for bytes in [700_000, 1_300_000, 1_900_000] {
        limit(Some(bytes));
        let big = |number: u32| {
            let text = format!("{number:06}").repeat(3000);
            vec![fact(format!("big-{number}"), text), fact("newest", number.to_string())]
        };
        let refused = (0..500).find(|_| match block(ledger.commit(big(kept + 1))) {
            Ok(()) => {
                kept += 1;
                false
            }
            Err(_) => true,
        });
        assert!(refused.is_some(), "the limit was never met");
        for _ in 0..3 {
            let again = block(ledger.commit(vec![fact("lost", "1")])).unwrap_err();
            assert!(!again.no_space, "{again}");
        }
        assert_eq!(block(ledger.base(&record(1, 0).uid)).unwrap(), Some(base(3)));
        limit(unlimited.current);
        block(ledger.commit(vec![fact("back", bytes.to_string())])).unwrap();
        check_newest(&block(ledger.load()).unwrap(), kept);
    }
    drop(ledger);
    let ledger = Sled::open(&state).unwrap();
    let contents = block(ledger.load()).unwrap();
    assert_eq!(contents.rebuilt, None);
    check_newest(&contents, kept);
}

fn check_newest(contents: &Contents, kept: u32) {
    let big = contents.facts.keys().filter(|name| name.starts_with("big-")).count();
    assert_eq!(big, kept as usize, "a refused batch is not there, an acknowledged one is");
    assert_eq!(contents.facts.get("newest").map(String::as_str), Some(&*kept.to_string()));
    assert!(!contents.facts.contains_key("lost"));
}

/// A state directory with a history, closed; and what is in it.
fn with_history(state: &Path) -> Contents {
    made(state);
    let ledger = Sled::open(state).unwrap();
    for attempt in 1..=12 {
        for number in 0..SESSIONS {
            block(ledger.commit(step(number, attempt))).unwrap();
        }
    }
    block(ledger.load()).unwrap()
}

/// A state directory that was filled by one batch, closed; and what is in it.
fn written_once(state: &Path) -> Contents {
    let ledger = Sled::open(state).unwrap();
    let mut batch: Vec<Write> = (0..SESSIONS).flat_map(|number| step(number, 12)).collect();
    batch.extend((0..200).map(|number| fact(format!("fact-{number}"), "x".repeat(5000))));
    batch.push(fact(REBUILT, "{}"));
    block(ledger.commit(batch)).unwrap();
    block(ledger.load()).unwrap()
}

/// What sled writes at once; each begins with a header of its own.
const SEGMENT: usize = 512 * 1024;

/// How a damaged copy opened.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// All is there.
    Whole,
    /// It was moved aside, and the new store says where.
    Aside,
}

/// Opens a damaged copy: all is there, or it is said that it is not. Never anything between.
fn open_damaged(history: &Path, contents: &Contents, damage: impl FnOnce(&Path)) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    run("cp", &["-a"], &[history, dir.path()]);
    let state = dir.path().join("state");
    damage(&state.join("db"));
    let ledger = Sled::open(&state).unwrap();
    let found = block(ledger.load()).unwrap();
    let Some(aside) = found.rebuilt else {
        assert_eq!(found.records, contents.records, "silent loss");
        assert_eq!(found.facts, contents.facts, "silent loss");
        let index = block(ledger.base(&record(0, 0).uid)).unwrap();
        assert_eq!(index, Some(base(12)), "silent loss");
        return Outcome::Whole;
    };
    assert!(found.records.is_empty());
    assert!(aside.starts_with(&format!("{}/broken-", state.display())), "{aside}");
    assert!(Path::new(&aside).exists(), "the damaged one is kept for people to look at");
    block(ledger.commit(step(1, 1))).unwrap();
    Outcome::Aside
}

fn edit(path: &Path) -> fs::File {
    fs::File::options().read(true).write(true).open(path).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = edit(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Row 30.
#[test]
fn f30_damage_is_never_taken_for_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let contents = written_once(&state);
    let size = fs::metadata(state.join("db/db")).unwrap().len();
    let open = |damage: &dyn Fn(&Path)| open_damaged(&state, &contents, damage);
    let file = |db: &Path| db.join("db");
    assert_eq!(open(&|_| ()), Outcome::Whole);

    let zero = |at: u64| move |db: &Path| edit(&file(db)).write_all_at(&[0; 4096], at).unwrap();
    let segments = || (0..size).step_by(SEGMENT);
    // Some segments may be empty by now, but not all of them.
    let flipped = segments().map(|at| open(&|db| flip(&file(db), at)));
    assert!(flipped.filter(|outcome| *outcome == Outcome::Aside).count() > 0);
    let zeroed = segments().map(|at| open(&zero(at)));
    assert!(zeroed.filter(|outcome| *outcome == Outcome::Aside).count() > 0);
    assert_eq!(open(&|db| edit(&file(db)).set_len(0).unwrap()), Outcome::Aside);
    assert_eq!(open(&|db| edit(&file(db)).set_len(SEGMENT as u64 / 2).unwrap()), Outcome::Aside);
    assert_eq!(open(&|db| fs::remove_file(file(db)).unwrap()), Outcome::Aside);
    let no_directory = |db: &Path| fs::remove_dir_all(db).and_then(|()| fs::write(db, "")).unwrap();
    assert_eq!(open(&no_directory), Outcome::Aside);

    // These need not hurt. What must not be is a loss without a word, which `open_damaged` checks.
    open(&|db| {
        let garbage: Vec<u8> = (0..700_000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
        edit(&file(db)).write_all_at(&garbage, size).unwrap();
    });
    for page in (1..size / 4096).step_by(29) {
        open(&zero(page * 4096));
    }
    open(&|db| edit(&file(db)).set_len(size - 1).unwrap());
    open(&|db| edit(&file(db)).set_len(size / 2).unwrap());
    open(&|db| fs::write(db.join("conf"), "").unwrap());
    open(&|db| flip(&db.join("conf"), 3));
    open(&|db| fs::remove_file(db.join("epoch")).unwrap());
    open(&|db| {
        for entry in fs::read_dir(db).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                flip(&path, 20);
            }
        }
    });
}

/// Row 30, anywhere.
#[test]
fn f30_a_flipped_bit_anywhere_is_harmless_or_told() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let contents = with_history(&state);
    let size = fs::metadata(state.join("db/db")).unwrap().len();
    let mut random = SmallRng::seed_from_u64(7);
    let begun = Instant::now();
    let mut aside = 0;
    for _ in 0..60 {
        let at = random.random_range(0..size);
        let outcome = open_damaged(&state, &contents, |db| flip(&db.join("db"), at));
        aside += u32::from(outcome == Outcome::Aside);
        if begun.elapsed() > Duration::from_secs(30) {
            break;
        }
    }
    assert!(aside > 0, "some of it hurt");
}
