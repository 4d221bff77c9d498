//! Files that come before the start, stubs for the large ones, and what comes on request.

use super::home::{Home, map, store};
use crate::apply::files::FilesErrorKind;
use crate::model::LargeFiles;
use crate::plan::MinFree;
use crate::world::StoreErrorKind;

/// SEED: the manifest of a storage service, with sizes left out.
const FOREIGN: &str = r#"[
    {"logical_path": "pleadings/a.pdf", "file_name": "a.pdf", "size": 5, "storage_key": "docs/1"},
    {"logical_path": "exhibits/b.bin", "storage_key": "docs/2"},
    {"logical_path": "big.mp4", "storage_key": "docs/3"}
]"#;

fn foreign(store: &super::home::Spy) {
    store.drop_in("manifest.json", FOREIGN);
    store.drop_in("docs/1", "hello");
    store.drop_in("docs/2", "");
    store.drop_in("docs/3", "0123456789 and more");
}

#[tokio::test]
async fn small_files_come_and_a_stub_stands_for_a_large_one() {
    let (_temp, store) = store();
    foreign(&store);
    let mut home = Home::new(&store).await;
    home.spec.files.eager_below = 10;
    let found = home.try_hydrate().await.unwrap();
    assert_eq!(home.read("pleadings/a.pdf").as_deref(), Some("hello"));
    assert_eq!(home.read("exhibits/b.bin").as_deref(), Some(""));
    assert_eq!(home.read("big.mp4"), None);
    expect_test::expect![[r#"
        This file stands for `big.mp4`, which is in the store and was not fetched yet.
        size: 19
        key: docs/3
        To fetch it: docket hydrate SESSION 'big.mp4'
        Editing or removing this file changes nothing in the store.
    "#]]
    .assert_eq(&home.read("big.mp4.stub").unwrap());
    assert_eq!((found.seen.total, found.seen.local, found.seen.lazy), (3, 2, 1));
    // SEED: a stub is not uploaded, and neither side changes.
    let before = store.manifest();
    home.sync().await;
    assert_eq!(store.manifest(), before);
    home.remove("big.mp4.stub");
    home.sync().await;
    assert_eq!(store.manifest(), before);
}

#[tokio::test]
async fn a_file_that_is_asked_for_comes_in_place_of_its_stub() {
    let (_temp, store) = store();
    foreign(&store);
    let mut home = Home::new(&store).await;
    home.spec.files.eager_below = 1;
    home.try_hydrate().await.unwrap();
    assert!(home.read("pleadings/a.pdf.stub").is_some());
    let (found, told) = home.hydrate_paths(&["pleadings"]).await;
    assert_eq!(home.read("pleadings/a.pdf").as_deref(), Some("hello"));
    assert_eq!(home.read("pleadings/a.pdf.stub"), None);
    assert!(home.read("big.mp4.stub").is_some());
    assert_eq!(found.seen.lazy, 1);
    let last = told.last().unwrap();
    assert_eq!((last.files, last.files_total, last.bytes, last.bytes_total), (1, 1, 5, 5));
    home.hydrate_paths(&[]).await;
    assert_eq!(home.read("big.mp4").as_deref(), Some("0123456789 and more"));
    assert_eq!(home.read("big.mp4.stub"), None);
    assert_eq!(home.base.as_ref().unwrap().files.len(), 3);
}

#[tokio::test]
async fn an_edited_stub_is_the_tenants_file_and_changes_no_object() {
    let (_temp, store) = store();
    foreign(&store);
    let mut home = Home::new(&store).await;
    home.spec.files.eager_below = 10;
    home.try_hydrate().await.unwrap();
    home.write("big.mp4.stub", "my notes");
    home.sync().await;
    assert_eq!(store.manifest()["big.mp4"], "0123456789 and more");
    assert_eq!(store.manifest()["big.mp4.stub"], "my notes");
    home.hydrate_paths(&[]).await;
    assert_eq!(home.read("big.mp4.stub").as_deref(), Some("my notes"));
}

#[tokio::test]
async fn a_case_without_a_manifest_is_its_objects() {
    let (_temp, store) = store();
    store.drop_in("files/drafts/a.txt", "by hand");
    let mut home = Home::new(&store).await;
    home.try_hydrate().await.unwrap();
    assert_eq!(home.files(), map(&[("drafts/a.txt", "by hand")]));
    home.write("drafts/b.txt", "mine");
    home.sync().await;
    assert_eq!(store.manifest(), map(&[("drafts/a.txt", "by hand"), ("drafts/b.txt", "mine")]));
    let rows = std::fs::read_to_string(store.store.path().join("ann/one/manifest.json")).unwrap();
    assert!(rows.contains(r#""storage_key":"files/drafts/a.txt""#), "{rows}");
}

#[tokio::test]
async fn edits_made_before_a_hydration_is_done_again_stay() {
    let (_temp, store) = store();
    foreign(&store);
    let mut home = Home::new(&store).await;
    home.try_hydrate().await.unwrap();
    home.write("pleadings/a.pdf", "edited");
    home.remove("exhibits/b.bin");
    home.write("new", "n");
    let found = home.try_hydrate().await.unwrap();
    let here =
        map(&[("big.mp4", "0123456789 and more"), ("new", "n"), ("pleadings/a.pdf", "edited")]);
    assert_eq!(home.files(), here);
    assert_eq!(found.seen.unsynced, 2);
    home.sync().await;
    assert_eq!(home.files(), here);
    assert_eq!(store.manifest(), here);
}

#[tokio::test]
async fn what_is_here_already_is_not_fetched_again() {
    let (_temp, store) = store();
    foreign(&store);
    let mut home = Home::new(&store).await;
    home.try_hydrate().await.unwrap();
    let before = home.files();
    // Killed before the index was kept.
    home.base = None;
    home.try_hydrate().await.unwrap();
    home.sync().await;
    assert_eq!(home.files(), before);
    assert_eq!(store.manifest(), before);
}

#[tokio::test]
async fn a_missing_object_is_named_and_the_others_come() {
    let (_temp, store) = store();
    foreign(&store);
    store.take_out("docs/1");
    let mut home = Home::new(&store).await;
    let error = home.try_hydrate().await.unwrap_err();
    assert_eq!(error.kind(), FilesErrorKind::ObjectMissing);
    assert_eq!(
        error.to_string(),
        "`pleadings/a.pdf`: its object `docs/1` is not in the store; put it back, or take its row \
         out of manifest.json"
    );
    assert!(home.read("big.mp4").is_some() && home.read("exhibits/b.bin").is_some());
    // In a running session nothing waits for it, and its row stays.
    home.write("new", "n");
    let found = home.sync().await;
    assert!(found.remarks.iter().any(|r| r.path.to_string() == "pleadings/a.pdf"));
    assert!(store.holds("n"));
    store.drop_in("docs/1", "hello");
    home.try_hydrate().await.unwrap();
    assert_eq!(home.read("pleadings/a.pdf").as_deref(), Some("hello"));
}

/// FAULTS 22.
#[tokio::test]
async fn wrong_bytes_are_never_put_in_place() {
    let (_temp, store) = store();
    let mut first = Home::new(&store).await;
    first.write("a", "right");
    first.sync().await;
    let key = format!("files/{}", store.keys("files")[0]);
    for text in ["wrong", "too long", "x"] {
        store.drop_in(&key, text);
        let mut home = Home::new(&store).await;
        let error = home.try_hydrate().await.unwrap_err();
        assert_eq!(error.kind(), FilesErrorKind::Corrupt, "{error}");
        assert_eq!(home.files(), map(&[]));
    }
}

/// FAULTS 22.
#[tokio::test]
async fn a_body_that_breaks_off_is_a_store_out_of_reach_and_the_others_come() {
    let (_temp, store) = store();
    let mut first = Home::new(&store).await;
    first.write("small", "s");
    first.write("other", "o");
    first.write("large", &"l".repeat(100_000));
    first.sync().await;
    for name in ["small", "large"] {
        let mut home = Home::new(&store).await;
        home.spec.files.large = crate::model::LargeFiles::Eager;
        store.cut(Some(name));
        let error = home.try_hydrate().await.unwrap_err();
        assert_eq!(error.kind(), FilesErrorKind::StoreUnavailable, "{error}");
        assert_eq!(error.to_string(), format!("`{name}` broke off on its way here"));
        assert_eq!(home.read(name), None);
        assert_eq!(home.files().len(), 2);
        store.cut(None);
        home.try_hydrate().await.unwrap();
        assert_eq!(home.files().len(), 3);
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_no_empty_workspace() {
    let (_temp, store) = store();
    foreign(&store);
    let mut home = Home::new(&store).await;
    store.down(Some(StoreErrorKind::Unavailable));
    let error = home.try_hydrate().await.unwrap_err();
    assert_eq!(error.kind(), FilesErrorKind::StoreUnavailable);
    assert_eq!(home.base, None);
}

#[tokio::test]
async fn with_large_files_eager_nothing_waits() {
    let (_temp, store) = store();
    foreign(&store);
    let mut home = Home::new(&store).await;
    home.spec.files.eager_below = 1;
    home.try_hydrate().await.unwrap();
    home.spec.files.large = LargeFiles::Eager;
    let found = home.try_hydrate().await.unwrap();
    assert_eq!(found.seen.lazy, 0);
    assert_eq!(home.files().len(), 3);
}

#[tokio::test]
async fn many_files_come_and_go() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    for n in 0..200 {
        a.write(&format!("d{}/f{n}", n % 7), &format!("content {n}"));
    }
    a.sync().await;
    b.try_hydrate().await.unwrap();
    assert_eq!(a.files(), b.files());
    b.sync().await;
    assert_eq!(store.manifest(), a.files());
}

/// A quota is soft: what is here is synced, and only nothing more comes.
#[tokio::test]
async fn t12_over_its_quota_a_workspace_gets_nothing_more_and_is_synced_all_the_same() {
    let (_temp, store) = store();
    store.drop_in("files/a", "small");
    store.drop_in("files/large", &"x".repeat(50_000));
    let mut home = Home::new(&store).await;
    home.spec.files.large = LargeFiles::Eager;
    home.spec.quota = 40_000;
    let refused = home.try_hydrate().await.unwrap_err();
    assert_eq!(refused.kind(), FilesErrorKind::OverQuota);
    assert_eq!(
        refused.to_string(),
        "`large` stays in the store: 5 B of workspace.quota (39.0 KiB) are used, and it has \
         48.8 KiB"
    );
    assert_eq!(home.files(), map(&[("a", "small")]), "what fits comes");
    // The tenant goes over it: everything of theirs is stored, nothing is fetched.
    home.write("mine", &"y".repeat(60_000));
    let found = home.sync().await;
    assert!(found.seen.bytes > home.spec.quota);
    assert_eq!(store.manifest()["mine"].len(), 60_000);
    assert_eq!(store.manifest()["large"].len(), 50_000, "what did not come is not deleted there");
    assert_eq!(home.read("large"), None);
    let refused = home.try_hydrate_paths(&[]).await.unwrap_err();
    assert_eq!(refused.kind(), FilesErrorKind::OverQuota);
    // A larger quota, and it comes.
    home.spec.quota = 0;
    home.try_hydrate().await.unwrap();
    assert_eq!(home.read("large").map(|text| text.len()), Some(50_000));
}

#[tokio::test]
async fn below_the_floor_nothing_comes_and_everything_goes_out() {
    let (_temp, store) = store();
    store.drop_in("files/a", "theirs");
    let mut home = Home::new(&store).await;
    home.floor = MinFree::Bytes(u64::MAX);
    let refused = home.try_hydrate().await.unwrap_err();
    assert_eq!(refused.kind(), FilesErrorKind::NoSpace);
    home.write("mine", "mine");
    home.sync().await;
    assert_eq!(store.manifest(), map(&[("a", "theirs"), ("mine", "mine")]));
    assert_eq!(home.read("a"), None);
    home.floor = MinFree::Bytes(0);
    home.try_hydrate().await.unwrap();
    assert_eq!(home.read("a").as_deref(), Some("theirs"));
}
