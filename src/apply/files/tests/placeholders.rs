//! Placeholders through hydration and sync, on a disk that holds opens back: what stands for a
//! file, what a rename, a deletion and an edit of one are, and how one form gives way to the other.

use std::collections::BTreeMap;

use super::home::{Still, path, spec};
use crate::apply::files::{Bounds, Files, Found, Turns};
use crate::model::{Base, CaseName, LargeFiles, Uid, UserName, WorkspaceSpec};
use crate::plan::MinFree;
use crate::sync::parse_manifest;
use crate::testing::clock::FakeClock;
use crate::testing::disk::MemoryDisk;
use crate::testing::store::MemoryStore;
use crate::world::{Clock as _, Objects as _, Place, ScanMode, Workspaces as _};

const MANIFEST: &str = r#"[
    {"logical_path": "big", "size": 10, "storage_key": "k/big", "mode": "0644"},
    {"logical_path": "d/large", "size": 12, "storage_key": "k/large", "mode": "0644"},
    {"logical_path": "s", "size": 1, "storage_key": "k/s", "mode": "0644"}
]"#;

static TURNS: Turns = Turns::new(4, 16);
const BOUNDS: Bounds<'static> = Bounds { floor: MinFree::Bytes(0), turns: &TURNS };

struct Desk {
    disk: MemoryDisk,
    store: MemoryStore,
    place: Place,
    spec: WorkspaceSpec,
    base: Option<Base>,
}

impl Desk {
    /// A case of two large files and a small one, materialised.
    async fn new() -> Desk {
        let clock = FakeClock::new(7);
        let (disk, store) = (MemoryDisk::new(clock.clone()), MemoryStore::new(clock));
        for (key, text) in [
            ("manifest.json", MANIFEST),
            ("k/big", "0123456789"),
            ("k/large", "abcdefghijkl"),
            ("k/s", "s"),
        ] {
            store.put_by_hand(&format!("ann/one/{key}"), text.as_bytes().to_vec());
        }
        disk.open_from(Some(store.clone()));
        let mut place = Place {
            user: UserName::parse("ann").unwrap(),
            case: CaseName::parse("one").unwrap(),
            uid: Uid::from_bytes([1; 16]),
            id: None,
        };
        place.id = Some(disk.ensure(&place, (0, 0)).await.unwrap().id);
        let mut spec = spec();
        spec.files.eager_below = 10;
        spec.files.large = LargeFiles::OnAccess;
        let mut desk = Desk { disk, store, place, spec, base: None };
        desk.hydrate().await;
        desk
    }

    fn all(&self) -> Files<'_, MemoryDisk, MemoryStore, Still> {
        let Desk { disk, store, place, spec, .. } = self;
        Files {
            workspaces: disk,
            objects: store,
            clock: &Still,
            place,
            spec,
            owner: (0, 0),
            bounds: BOUNDS,
        }
    }

    async fn hydrate(&mut self) -> Found {
        let found = self.all().hydrate(self.base.as_ref(), &|_| ()).await.unwrap();
        self.base = Some(found.base.clone());
        found
    }

    async fn sync(&mut self, mode: ScanMode) -> Found {
        let found = self.all().sync(self.base.as_ref(), mode).await.unwrap();
        self.base = Some(found.base.clone());
        found
    }

    fn rename(&self, from: &str, to: &str) {
        let Place { user, case, .. } = &self.place;
        assert!(self.disk.rename_by_tenant(user, case, &path(from), &path(to)));
    }

    fn remove(&self, at: &str) {
        let Place { user, case, .. } = &self.place;
        assert!(self.disk.remove_by_tenant(user, case, &path(at)));
    }

    fn placeholders(&self) -> Vec<String> {
        let Place { user, case, .. } = &self.place;
        self.disk.placeholders(user, case).iter().map(ToString::to_string).collect()
    }

    /// Every file here.
    fn files(&self) -> Vec<String> {
        let files = self.disk.files(&self.place.user, &self.place.case).unwrap();
        files.keys().map(ToString::to_string).collect()
    }

    /// Keys by path, as the manifest has them.
    fn manifest(&self) -> BTreeMap<String, String> {
        let bytes = self.store.bytes("ann/one/manifest.json").unwrap();
        let rows = parse_manifest(&bytes).unwrap();
        rows.into_iter().map(|(path, row)| (path.to_string(), row.storage_key)).collect()
    }
}

/// Somebody else removed or replaced an object: that is known before anybody opens its file.
#[tokio::test]
async fn a_file_whose_object_is_missing_is_told_before_it_is_opened() {
    let desk = Desk::new().await;
    let base = desk.base.clone().unwrap();
    let missing = async |before| desk.all().missing(before, &base).await.unwrap();
    assert_eq!(missing(None).await, BTreeMap::new());
    desk.store.put_by_hand("ann/one/k/big", b"other".to_vec());
    desk.store.delete("ann/one/k/large").await.unwrap();
    let told = missing(None).await;
    let told: Vec<String> =
        told.iter().map(|(path, (key, why))| format!("{path} {key} {why}\n")).collect();
    expect_test::expect![[r#"
        big ann/one/k/big its object has 5 bytes, its row says 10; put the right one back, or take its row out of manifest.json
        d/large ann/one/k/large its object is not in the store; put the right one back, or take its row out of manifest.json
    "#]]
    .assert_eq(&told.concat());
    assert_eq!(missing(Some(&base)).await, BTreeMap::new(), "only what is new is looked for");
}

/// A row may say any size: what no file here may have has nothing that stands for it, and holds up
/// nobody.
#[tokio::test]
async fn a_file_larger_than_its_limit_stays_in_the_store_and_the_limit_is_named() {
    let mut desk = Desk::new().await;
    desk.sync(ScanMode::Quick).await;
    let huge = MANIFEST.replace("\"size\": 12", "\"size\": 9000000000000000000");
    desk.store.put_by_hand("ann/one/manifest.json", huge.into_bytes());
    desk.base = None;
    desk.disk = MemoryDisk::new(FakeClock::new(7));
    desk.disk.open_from(Some(desk.store.clone()));
    desk.place.id = Some(desk.disk.ensure(&desk.place, (0, 0)).await.unwrap().id);
    desk.hydrate().await;
    assert_eq!(desk.placeholders(), ["big"]);
    let base = desk.base.clone().unwrap();
    let told = desk.all().missing(None, &base).await.unwrap();
    expect_test::expect!["`d/large` stays in the store: it has 9000000000000000000 bytes, and workspace.limits.fileSize is 1073741824 bytes; raise that, or take its row out of manifest.json"]
        .assert_eq(&told[&path("d/large")].1);
    let asked = desk.all().hydrate_paths(Some(&base), &[path("d/large")], &|_| ()).await;
    assert!(asked.unwrap_err().to_string().contains("workspace.limits.fileSize"));
    desk.sync(ScanMode::Quick).await;
    assert!(desk.manifest().contains_key("d/large"), "its row stays");
}

/// A row without a time is as old as its object; one whose object is not listed came just now.
#[tokio::test]
async fn a_placeholder_whose_row_has_no_time_gets_that_of_its_object_and_keeps_it() {
    let mut desk = Desk::new().await;
    let ns = |time: crate::model::Timestamp| time.timestamp_nanos_opt().unwrap();
    let mut written = Vec::new();
    for key in ["ann/one/k/big", "ann/one/k/large"] {
        written.push(ns(desk.store.head(key).await.unwrap().unwrap().modified.unwrap()));
    }
    let times = |desk: &Desk| {
        let files = &desk.base.as_ref().unwrap().files;
        ["big", "d/large"].map(|at| files[&path(at)].mtime_ns)
    };
    assert_eq!(times(&desk)[..], written);
    assert!(written.iter().all(|at| *at > 0));
    // The index is lost: what stands here says it, whatever became of the object.
    desk.store.delete("ann/one/k/large").await.unwrap();
    desk.base = None;
    desk.hydrate().await;
    assert_eq!(times(&desk)[..], written);
    desk.remove("d/large");
    desk.base = None;
    desk.hydrate().await;
    assert_eq!(times(&desk), [written[0], ns(Still.now())]);
    desk.sync(ScanMode::Quick).await;
    assert_eq!(times(&desk), [written[0], ns(Still.now())]);
}

fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(at, key)| ((*at).to_owned(), (*key).to_owned())).collect()
}

#[tokio::test]
async fn a_placeholder_stands_for_a_large_file_and_is_never_sent() {
    let mut desk = Desk::new().await;
    assert_eq!(desk.placeholders(), ["big", "d/large"]);
    let before = desk.store.keys("");
    for mode in [ScanMode::Quick, ScanMode::Checksum] {
        let found = desk.sync(mode).await;
        assert_eq!((found.seen.lazy, found.seen.local, found.seen.unsynced), (2, 1, 0));
    }
    assert_eq!(desk.placeholders(), ["big", "d/large"]);
    let known = desk.store.keys("").into_iter().filter(|key| key.contains("/k/"));
    assert_eq!(
        known.collect::<Vec<_>>().len(),
        before.iter().filter(|k| k.contains("/k/")).count()
    );
    assert!(!desk.store.keys("").iter().any(|key| key.contains("/files/")), "nothing was sent");
}

#[tokio::test]
async fn a_renamed_placeholder_takes_its_row_along_and_a_removed_one_takes_it_away() {
    let mut desk = Desk::new().await;
    desk.rename("big", "d/e/moved");
    desk.remove("d/large");
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.manifest(), keys(&[("d/e/moved", "k/big"), ("s", "k/s")]));
    desk.sync(ScanMode::Checksum).await;
    assert_eq!(desk.manifest(), keys(&[("d/e/moved", "k/big"), ("s", "k/s")]));
    assert_eq!(desk.placeholders(), ["d/e/moved"]);
    assert!(desk.store.bytes("ann/one/k/large").is_some(), "its object stays");
}

#[tokio::test]
async fn without_an_index_no_absent_placeholder_was_deleted() {
    let mut desk = Desk::new().await;
    desk.remove("big");
    desk.base = None;
    desk.sync(ScanMode::Quick).await;
    assert!(desk.manifest().contains_key("big"));
    assert_eq!(desk.placeholders(), ["big", "d/large"], "it stands again");
}

#[tokio::test]
async fn what_is_asked_for_is_opened_and_becomes_an_ordinary_file() {
    let mut desk = Desk::new().await;
    let found = desk.all().hydrate_paths(desk.base.as_ref(), &[path("d")], &|_| ()).await.unwrap();
    assert!(found.base.files[&path("d/large")].stamp.is_some());
    desk.base = Some(found.base);
    assert_eq!(desk.placeholders(), ["big"]);
    let found = desk.sync(ScanMode::Quick).await;
    assert_eq!((found.seen.lazy, found.seen.local), (1, 2));
    assert_eq!(desk.manifest().len(), 3);
}

#[tokio::test]
async fn placeholders_and_stubs_give_way_to_each_other_and_nothing_is_deleted() {
    let mut desk = Desk::new().await;
    let rows = desk.manifest();
    desk.disk.open_from(None);
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.placeholders(), [""; 0]);
    assert_eq!(desk.files(), ["big.stub", "d/large.stub", "s"]);
    desk.remove("big.stub");
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.manifest(), rows, "a removed stub is no deletion");
    desk.disk.open_from(Some(desk.store.clone()));
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.placeholders(), ["big", "d/large"]);
    assert_eq!(desk.files(), ["big", "d/large", "s"], "no stub is left");
    assert_eq!(desk.manifest(), rows);
    // The class says so, for all that the disk could.
    desk.spec.files.large = LargeFiles::Stub;
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.files(), ["big.stub", "d/large.stub", "s"]);
    desk.spec.files.large = LargeFiles::Eager;
    desk.hydrate().await;
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.files(), ["big", "d/large", "s"]);
    assert_eq!(desk.placeholders(), [""; 0]);
    assert_eq!(desk.manifest(), rows);
}

#[tokio::test]
async fn a_newer_row_replaces_the_placeholder_and_a_dropped_one_removes_it() {
    let mut desk = Desk::new().await;
    desk.sync(ScanMode::Quick).await;
    let newer = MANIFEST.replace("k/big", "k/newer").replace(r#""size": 10"#, r#""size": 11"#);
    let newer = newer.replace(
        r#""size": 12, "storage_key": "k/large""#,
        r#""size": 2, "storage_key": "k/tiny""#,
    );
    desk.store.put_by_hand("ann/one/k/newer", b"01234567890".to_vec());
    desk.store.put_by_hand("ann/one/k/tiny", b"xy".to_vec());
    desk.store.put_by_hand("ann/one/manifest.json", newer.into_bytes());
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.placeholders(), ["big"], "the other is small now, and has come");
    assert_eq!(desk.base.as_ref().unwrap().files[&path("big")].storage_key, "k/newer");
    assert_eq!(desk.manifest()["big"], "k/newer");
    let only = r#"[{"logical_path": "s", "size": 1, "storage_key": "k/s", "mode": "0644"}]"#;
    desk.store.put_by_hand("ann/one/manifest.json", only.as_bytes().to_vec());
    desk.sync(ScanMode::Quick).await;
    assert_eq!(desk.placeholders(), [""; 0]);
}
