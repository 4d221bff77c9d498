//! The ledger on disk, without damage: what is kept comes back. Damage, kills, full disks and
//! power cuts are in `tests/it/ledger_crash.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::future::join_all;
use tempfile::TempDir;

use super::format::{self, Read};
use super::store::Store;
use super::*;
use crate::model::{BaseEntry, Event, Record, RelPath, SessionName};
use crate::world::REBUILT;

const FIXTURE: &str = include_str!("../../tests/fixtures/record-v1.json");

fn record(number: u8) -> Record {
    let mut record: Record = serde_json::from_str(FIXTURE).unwrap();
    record.uid = Uid::from_bytes([number; 16]);
    record
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        at: record(0).created_at,
        session: Some(SessionName::parse("ann-c-42").unwrap()),
        warning: seq.is_multiple_of(2),
        reason: "Started".to_owned(),
        message: format!("number {seq}"),
    }
}

fn base(files: usize) -> Base {
    let entry = |number: usize| {
        let path = RelPath::parse(format!("input/file-{number}.txt").as_bytes()).unwrap();
        let entry = BaseEntry {
            sha256: None,
            size: number as u64,
            mode: 0o644,
            mtime_ns: 1_700_000_000_123_456_789,
            storage_key: format!("files/{path}@0123456789ab"),
            stamp: None,
            placed: false,
        };
        (path, entry)
    };
    Base {
        etag: Some("\"e\"".to_owned()),
        files: (0..files).map(entry).collect(),
        ..Base::default()
    }
}

fn put(record: &Record) -> Write {
    Write::Record(Box::new(record.clone()))
}

fn fact(name: &str, text: &str) -> Write {
    Write::Fact(name.to_owned(), text.to_owned())
}

fn open(state: &TempDir) -> Sled {
    Sled::open(&state.path().join("state")).unwrap()
}

fn db(state: &TempDir) -> std::path::PathBuf {
    state.path().join("state/db")
}

fn text<T>(map: &BTreeMap<String, T>, key: &str) -> T
where
    T: Clone,
{
    map.get(key).cloned().unwrap()
}

#[tokio::test]
async fn all_that_was_kept_comes_back_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let (one, two) = (record(1), record(2));
    let ledger = open(&state);
    let applied = |name: &str| Write::Applied(name.to_owned(), format!("{{\"is\":\"{name}\"}}"));
    let batch = vec![put(&one), put(&two), applied("Session/a"), applied("Session/b")];
    ledger.commit(batch).await.unwrap();
    ledger.commit(vec![Write::Base(one.uid.clone(), Box::new(base(3)))]).await.unwrap();
    ledger.commit(vec![Write::Base(two.uid.clone(), Box::new(base(4)))]).await.unwrap();
    ledger.commit(vec![fact("root", "1"), fact("root", "2"), fact("empty", "")]).await.unwrap();
    ledger.commit(vec![Write::Event(event(2)), Write::Event(event(1))]).await.unwrap();
    let gone = vec![Write::DropRecord(two.uid.clone()), Write::DropApplied("Session/b".to_owned())];
    ledger.commit(gone).await.unwrap();
    drop(ledger);

    let ledger = open(&state);
    let contents = ledger.load().await.unwrap();
    assert_eq!(contents.records, BTreeMap::from([(one.uid.clone(), one.clone())]));
    assert_eq!(contents.applied.len(), 1);
    assert_eq!(text(&contents.applied, "Session/a"), "{\"is\":\"Session/a\"}");
    assert_eq!(text(&contents.facts, "root"), "2");
    assert_eq!(text(&contents.facts, "empty"), "");
    assert_eq!(contents.events, [event(1), event(2)]);
    assert_eq!(contents.unknown, Vec::<String>::new());
    assert_eq!(ledger.base(&one.uid).await.unwrap(), Some(base(3)));
    assert_eq!(ledger.base(&two.uid).await.unwrap(), None, "it went with its record");
}

#[tokio::test]
async fn the_latest_write_of_a_batch_is_the_one_that_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let ledger = open(&state);
    let one = record(1);
    let index = Write::Base(one.uid.clone(), Box::new(base(2)));
    let back = vec![put(&one), index, Write::DropRecord(one.uid.clone()), put(&one)];
    ledger.commit(back).await.unwrap();
    assert_eq!(ledger.load().await.unwrap().records.len(), 1);
    assert_eq!(ledger.base(&one.uid).await.unwrap(), None);
}

#[tokio::test]
async fn an_index_of_many_files_grows_and_shrinks_and_never_leaves_sleds_log() {
    let state = tempfile::tempdir().unwrap();
    let uid = record(1).uid;
    for files in [9000, 1, 4000, 0] {
        let ledger = open(&state);
        ledger.commit(vec![Write::Base(uid.clone(), Box::new(base(files)))]).await.unwrap();
        drop(ledger);
        let ledger = open(&state);
        assert_eq!(ledger.base(&uid).await.unwrap(), Some(base(files)));
    }
    let outside: Vec<_> = std::fs::read_dir(db(&state).join("blobs")).unwrap().collect();
    assert!(outside.is_empty(), "sled never syncs these: {outside:?}");
}

#[tokio::test]
async fn events_are_kept_to_the_last_two_thousand() {
    let state = tempfile::tempdir().unwrap();
    let ledger = open(&state);
    for batch in 0..13 {
        let events = (1..=200).map(|n| Write::Event(event(batch * 200 + n))).collect();
        ledger.commit(events).await.unwrap();
    }
    let events = ledger.load().await.unwrap().events;
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (601..=2600).collect::<Vec<u64>>());
    drop(ledger);
    let kept = Store::open(&db(&state)).unwrap().all(format::EVENT.as_bytes()).unwrap().len();
    assert!((2000..=2200).contains(&kept), "{kept}");
}

#[tokio::test]
async fn batches_at_the_same_time_share_a_sync() {
    let state = tempfile::tempdir().unwrap();
    let ledger = open(&state);
    let all: Vec<Record> = (0..200).map(record).collect();
    let commits = all.iter().map(|record| ledger.commit(vec![put(record)]));
    assert!(join_all(commits).await.iter().all(Result::is_ok));
    assert_eq!(ledger.load().await.unwrap().records.len(), 200);
    assert!(ledger.syncs() <= 20, "200 batches took {} syncs", ledger.syncs());
}

#[tokio::test]
async fn a_batch_that_cannot_be_kept_does_not_spoil_its_neighbours() {
    let state = tempfile::tempdir().unwrap();
    let ledger = open(&state);
    let good = ledger.commit(vec![fact("good", "1")]);
    let bad = ledger.commit(vec![fact("half", "1"), fact("b\0d", "1")]);
    let (good, bad) = tokio::join!(good, bad);
    good.unwrap();
    assert!(bad.unwrap_err().message.contains("NUL"));
    let facts = ledger.load().await.unwrap().facts;
    assert_eq!(facts.keys().collect::<Vec<_>>(), ["good"]);
}

#[test]
fn f50_a_record_of_format_1_still_loads_with_all_that_it_says() {
    let Read::Known(record) = format::record(FIXTURE.as_bytes()) else {
        panic!("{:?}", format::record(FIXTURE.as_bytes()))
    };
    let kept: serde_json::Value = serde_json::from_str(FIXTURE).unwrap();
    let now = serde_json::to_value(record).unwrap();
    for (key, value) in kept.as_object().unwrap() {
        assert_eq!(now.get(key), Some(value), "{key}");
    }
}

#[tokio::test]
async fn f50_a_record_of_a_newer_format_is_held_as_it_is() {
    let state = tempfile::tempdir().unwrap();
    drop(open(&state));
    let newer = FIXTURE.replacen("\"version\": 1,", "\"version\": 2, \"soul\": [1, 2],", 1);
    let uid = record(0).uid;
    let name = format::record_name(&uid);
    let mut store = Store::open(&db(&state)).unwrap();
    let parts = format::parts(&name, newer.as_bytes()).into_iter();
    store.write(&parts.map(|(key, part)| (key, Some(part))).collect()).unwrap();
    drop(store);

    let ledger = open(&state);
    let contents = ledger.load().await.unwrap();
    assert_eq!(contents.records, BTreeMap::new());
    assert_eq!(contents.unknown, std::slice::from_ref(&name));
    ledger.commit(vec![put(&record(0))]).await.unwrap_err();
    ledger.commit(vec![Write::DropRecord(uid)]).await.unwrap_err();
    ledger.commit(vec![put(&record(1))]).await.unwrap();
    drop(ledger);
    let store = Store::open(&db(&state)).unwrap();
    assert_eq!(store.get(&name).unwrap().unwrap(), newer.into_bytes());
}

#[tokio::test]
async fn a_new_store_says_so_until_all_was_rebuilt() {
    let state = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let ledger = open(&state);
        assert_eq!(ledger.load().await.unwrap().rebuilt.as_deref(), Some("new"));
        ledger.commit(vec![put(&record(1))]).await.unwrap();
    }
    open(&state).commit(vec![fact(REBUILT, "{}")]).await.unwrap();
    assert_eq!(open(&state).load().await.unwrap().rebuilt, None);
}

#[test]
fn a_second_docket_is_told_who_has_the_directory() {
    let state = tempfile::tempdir().unwrap();
    let first = open(&state);
    let error = Sled::open(&state.path().join("state")).unwrap_err().to_string();
    assert!(error.contains(&format!("held by process {}", std::process::id())), "{error}");
    drop(first);
    open(&state);
}

#[test]
fn l1_the_state_directory_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let state = tempfile::tempdir().unwrap();
    drop(open(&state));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state.path().join("state")), 0o700);
    assert_eq!(mode(&state.path().join("state/lock")), 0o600);
}

#[tokio::test]
async fn what_an_end_in_the_middle_of_opening_left_is_swept() {
    let state = tempfile::tempdir().unwrap();
    let ledger = open(&state);
    ledger.commit(vec![put(&record(1)), fact(REBUILT, "{}")]).await.unwrap();
    drop(ledger);
    std::fs::write(db(&state).join("snap.0000000000000FFF.generating"), b"half").unwrap();
    std::fs::create_dir(state.path().join("state/db.making")).unwrap();
    let contents = open(&state).load().await.unwrap();
    assert_eq!(contents.records.len(), 1);
    assert_eq!(contents.rebuilt, None);
    assert!(!state.path().join("state/db.making").exists());
}

/// As a child of a killed operator does until it becomes another program.
#[test]
fn a_lock_that_is_let_go_in_a_moment_is_waited_for() {
    let state = tempfile::tempdir().unwrap();
    drop(open(&state));
    let held = std::fs::File::open(state.path().join("state/lock")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let child = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(held);
    });
    drop(open(&state));
    child.join().unwrap();
}

#[tokio::test]
async fn a_store_that_lost_its_last_batches_is_not_trusted_even_if_it_adds_up() {
    let state = tempfile::tempdir().unwrap();
    let ledger = open(&state);
    ledger.commit(vec![put(&record(1)), fact(REBUILT, "{}")]).await.unwrap();
    drop(ledger);
    let epoch = std::fs::read(db(&state).join("epoch")).unwrap();
    let later: u64 = String::from_utf8(epoch).unwrap().trim().parse::<u64>().unwrap() + 1;
    std::fs::write(db(&state).join("epoch"), format!("{later:020}\n")).unwrap();
    let contents = open(&state).load().await.unwrap();
    assert_eq!(contents.records, BTreeMap::new());
    assert!(contents.rebuilt.unwrap().contains("/broken-"));
}

#[tokio::test]
async fn f50_a_store_of_a_newer_docket_stays_where_it_is() {
    let state = tempfile::tempdir().unwrap();
    drop(open(&state));
    let sled = sled::open(db(&state)).unwrap();
    let meta = String::from_utf8(sled.get(format::META).unwrap().unwrap().to_vec()).unwrap();
    sled.insert(format::META, meta.replace("\"version\":1", "\"version\":2").as_bytes()).unwrap();
    drop(sled);
    let error = Sled::open(&state.path().join("state")).unwrap_err().to_string();
    assert!(error.contains("newer docket"), "{error}");
    assert!(db(&state).join("conf").exists());
}

/// After a failed sync the kernel may hold for clean what it dropped: nothing of the old files is
/// relied on any more.
#[test]
fn f29_a_batch_whose_sync_failed_is_undone_and_all_else_is_written_to_new_files() {
    use std::os::unix::fs::MetadataExt as _;
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("state");
    let home = Home::take(&path).unwrap();
    let store = open_store(&home).unwrap();
    let mut writer = Writer::new(home, store, Arc::default());
    let keep = |writer: &mut Writer, text: &str| {
        let batch = vec![fact("same", text), fact(text, &"long ".repeat(5000))];
        writer.keep(format::facts(batch).unwrap())
    };
    let inode = || std::fs::metadata(path.join("db/db")).unwrap().ino();
    keep(&mut writer, "acknowledged").unwrap();
    let first = inode();
    writer.refuse_syncs(true);
    let _told = keep(&mut writer, "refused").unwrap_err();
    keep(&mut writer, "later").unwrap();
    assert_ne!(inode(), first, "it was written to the file that may have lost something");
    assert!(!path.join("db.making").exists());
    let facts = writer.load().unwrap().facts;
    assert_eq!(facts.keys().collect::<Vec<_>>(), ["acknowledged", "later", "same"]);
    assert_eq!(text(&facts, "same"), "later");
    writer.refuse_syncs(true);
    let _told = keep(&mut writer, "refused").unwrap_err();
    writer.heal().unwrap();
    drop(writer);
    let home = Home::take(&path).unwrap();
    let mut writer = Writer::new(home, Store::open(&path.join("db")).unwrap(), Arc::default());
    let facts = writer.load().unwrap().facts;
    assert_eq!(text(&facts, "same"), "later");
    assert!(!facts.contains_key("refused"));
    keep(&mut writer, "last").unwrap();
}

/// The simulation's ledger is held to what this one does: 150 random batches to both.
#[cfg(feature = "testing")]
#[tokio::test]
async fn the_ledger_in_memory_keeps_what_the_one_on_disk_keeps() {
    use rand::{Rng as _, SeedableRng as _};
    let mut random = rand::rngs::SmallRng::seed_from_u64(50);
    let state = tempfile::tempdir().unwrap();
    let memory = crate::testing::memory::MemoryLedger::default();
    let mut disk = open(&state);
    let mut seq = 0;
    for round in 0..150 {
        let mut batch = Vec::new();
        for _ in 0..random.random_range(1..6) {
            let one = record(random.random_range(0..4));
            let name = format!("Session/{}", random.random_range(0..3));
            batch.push(match random.random_range(0..8) {
                0 | 1 => put(&one),
                2 => Write::DropRecord(one.uid),
                3 | 4 => Write::Base(one.uid, Box::new(base(random.random_range(0..80)))),
                5 => Write::Applied(name, round.to_string()),
                6 => Write::DropApplied(name),
                _ => fact(&name, &round.to_string()),
            });
        }
        if round == 120 {
            batch.push(fact(REBUILT, "{}"));
        }
        batch.extend((0..20).map(|_| {
            seq += 1;
            Write::Event(event(seq))
        }));
        memory.commit(batch.clone()).await.unwrap();
        disk.commit(batch).await.unwrap();
        if round % 10 == 0 {
            drop(disk);
            disk = open(&state);
        } else if round % 10 != 9 {
            continue;
        }
        let (known, kept) = (memory.load().await.unwrap(), disk.load().await.unwrap());
        assert_eq!(known.records, kept.records);
        assert_eq!(known.applied, kept.applied);
        assert_eq!(known.facts, kept.facts);
        assert_eq!(known.events, kept.events);
        assert_eq!(kept.rebuilt.is_some(), round < 120);
        for number in 0..4 {
            let uid = record(number).uid;
            assert_eq!(memory.base(&uid).await.unwrap(), disk.base(&uid).await.unwrap());
        }
    }
}
