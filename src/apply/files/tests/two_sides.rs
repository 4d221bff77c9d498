//! Changes on both sides, from the first file to the manifest's last race.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::home::{Home, map, store};
use crate::apply::files::{FilesErrorKind, StateSeen, history};
use crate::model::{CaseName, LargeFiles, Stamp, UserName};
use crate::world::{ScanMode, StoreErrorKind};

#[tokio::test]
async fn new_files_are_stored_under_their_own_keys() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("drafts/a.txt", "hello");
    home.write("empty", "");
    let found = home.sync().await;
    assert_eq!(store.manifest(), map(&[("drafts/a.txt", "hello"), ("empty", "")]));
    let keys = store.keys("files");
    assert_eq!(keys, ["drafts/a.txt@2cf24dba5fb0", "empty@e3b0c44298fc"]);
    assert_eq!((found.seen.total, found.seen.local, found.seen.unsynced), (2, 2, 0));
    assert!((5..=65_536).contains(&found.seen.bytes), "what it takes of the disk: {found:?}");
}

#[tokio::test]
async fn an_edit_leaves_the_object_before_it_and_its_manifest() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    home.write("a", "two!");
    home.sync().await;
    assert_eq!(store.manifest(), map(&[("a", "two!")]));
    assert!(store.holds("one"));
    // The first of all is the empty one: what is stored before it is no file of a bare case.
    assert_eq!(store.keys("manifests").len(), 2);
}

/// A store that looks and then writes lets a commit of a dead operator through, over the one that
/// its successor made of the same manifest.
#[tokio::test]
async fn f25_a_commit_that_another_of_the_same_age_was_written_over_is_not_taken_for_deletions() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.write("gone", "x");
    home.sync().await;
    let mut late = Home::new(&store).await;
    late.sync().await;
    late.write("late", "by the dead");
    late.sync().await;
    let ghost = store.text("manifest.json");
    // As before that commit.
    let kept = store.keys("manifests").pop().unwrap();
    let before = store.text(&format!("manifests/{kept}"));
    store.drop_in("manifest.json", &before);
    store.take_out(&format!("manifests/{kept}"));
    home.sync().await;
    home.write("new", "acknowledged");
    home.write("a", "two!");
    home.remove("gone");
    home.sync().await;
    store.drop_in("manifest.json", &ghost);
    home.sync().await;
    let all = store.manifest();
    assert_eq!(all.get("new").map(String::as_str), Some("acknowledged"));
    assert_eq!(home.read("new").as_deref(), Some("acknowledged"));
    assert_eq!(all.get("late").map(String::as_str), Some("by the dead"));
    assert!(all.values().any(|text| text == "two!"), "{all:?}");
    let again = home.sync().await;
    assert_eq!(again.seen.unsynced, 0);
    assert_eq!(store.manifest(), all);
}

/// Whoever writes manifests by hand keeps none. What he deleted is deleted, also where an operator
/// committed on top of it and died before it knew.
#[tokio::test]
async fn a_deletion_by_another_counts_through_a_commit_that_was_forgotten() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("goes", "x");
    home.write("stays", "y");
    home.sync().await;
    let base = home.base.clone();
    let rows = store.text("manifest.json");
    let mut rows: serde_json::Value = serde_json::from_str(&rows).unwrap();
    rows.as_array_mut().unwrap().retain(|row| row["logical_path"] != "goes");
    store.drop_in("manifest.json", &rows.to_string());
    home.write("new", "z");
    let mut dead = Home::new(&store).await;
    dead.sync().await;
    dead.write("new", "z");
    dead.sync().await;
    home.base = base;
    home.sync().await;
    assert_eq!(home.read("goes"), None);
    assert_eq!(store.manifest(), map(&[("new", "z"), ("stays", "y")]));
}

#[tokio::test]
async fn states_of_one_second_stand_in_their_order() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    let texts: Vec<String> = (0..12).map(|n| "x".repeat(n + 1)).collect();
    for text in &texts {
        home.write("a", text);
        home.sync().await;
    }
    let (user, case) = (UserName::parse("ann").unwrap(), CaseName::parse("one").unwrap());
    let (states, _) = history(&store, &user, &case, 12).await.unwrap();
    let sizes: Vec<u64> = states.iter().map(|state| state.holds.as_ref().unwrap().bytes).collect();
    assert_eq!(sizes, (1..=12).rev().collect::<Vec<u64>>());
    assert!(states[0].current && states[1..].iter().all(|state| !state.current));
    let later = |pair: &[StateSeen]| pair[0].since > pair[1].since;
    assert!(states.windows(2).all(later), "{states:#?}");
}

#[tokio::test]
async fn with_nothing_changed_one_look_is_enough() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    fs::create_dir(home.dir.join("folder")).unwrap();
    home.sync().await;
    store.calls();
    for mode in [ScanMode::Quick, ScanMode::Checksum] {
        home.try_sync(mode).await.unwrap();
        assert_eq!(store.calls(), ["head ann/one/manifest.json"]);
    }
}

#[tokio::test]
async fn two_workspaces_of_one_case_become_the_same() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    a.write("shared", "one");
    a.write("x/only-a", "1");
    fs::set_permissions(a.dir.join("shared"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("../elsewhere", a.dir.join("link")).unwrap();
    fs::create_dir(a.dir.join("empty-folder")).unwrap();
    a.sync().await;
    b.write("only-b", "2");
    b.sync().await;
    a.sync().await;
    assert_eq!(a.files(), b.files());
    assert_eq!(a.files(), store.manifest());
    assert!(b.dir.join("empty-folder").is_dir());
    assert_eq!(fs::read_link(b.dir.join("link")).unwrap(), "../elsewhere".to_owned());
    let mode = fs::metadata(b.dir.join("shared")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let times = [&a, &b].map(|h| fs::metadata(h.dir.join("shared")).unwrap().modified().unwrap());
    assert_eq!(times[0], times[1]);
    // A deletion and an edit travel too.
    a.remove("only-b");
    b.write("shared", "edited");
    a.sync().await;
    b.sync().await;
    a.sync().await;
    assert_eq!(a.files(), map(&[("shared", "edited"), ("x/only-a", "1")]));
    assert_eq!(a.files(), b.files());
    assert!(store.holds("2"), "a deletion is a change of the manifest only");
    store.calls();
    a.sync().await;
    b.sync().await;
    assert_eq!(store.calls().len(), 2, "both are settled");
}

/// FAULTS 25.
#[tokio::test]
async fn changed_on_both_sides_both_are_kept() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    a.write("report.pdf", "one");
    a.sync().await;
    b.sync().await;
    a.write("report.pdf", "from a");
    b.write("report.pdf", "from b!");
    a.sync().await;
    let found = b.sync().await;
    a.sync().await;
    let copy = "report (conflict ann 2026-11-23T20-04-10Z).pdf";
    assert_eq!(b.files(), map(&[(copy, "from b!"), ("report.pdf", "from a")]));
    assert_eq!(a.files(), b.files());
    assert_eq!(store.manifest(), a.files());
    assert_eq!(found.seen.conflicts, 1);
    assert_eq!(found.remarks[0].state, "conflict");
    assert_eq!(found.remarks[0].path.to_string(), copy);
}

#[tokio::test]
async fn a_lost_race_for_the_manifest_is_merged() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    a.write("first", "0");
    a.sync().await;
    b.sync().await;
    a.write("from-a", "1");
    b.write("from-b", "2");
    store.before("swap", move || async move {
        b.sync().await;
    });
    a.sync().await;
    let all = map(&[("first", "0"), ("from-a", "1"), ("from-b", "2")]);
    assert_eq!(store.manifest(), all);
    assert_eq!(a.files(), all);
}

/// FAULTS 24.
#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_found_out() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    home.write("a", "two!");
    let swap = {
        store.calls();
        // head, put, its tree, get of the old manifest, its copy, swap
        store.fail(Some(5), true);
        home.try_sync(ScanMode::Quick).await
    };
    assert_eq!(store.calls().last().unwrap(), "swap ann/one/manifest.json");
    assert_eq!(swap.unwrap_err().kind(), FilesErrorKind::StoreUnavailable);
    let found = home.sync().await;
    assert_eq!((found.seen.conflicts, found.seen.unsynced), (0, 0));
    assert_eq!(store.manifest(), map(&[("a", "two!")]));
    assert_eq!(home.files(), map(&[("a", "two!")]));
}

/// FAULTS 19, 21.
#[tokio::test]
async fn a_store_that_fails_changes_nothing_here() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    home.write("b", "two");
    for (kind, said) in [
        (StoreErrorKind::Unavailable, FilesErrorKind::StoreUnavailable),
        (StoreErrorKind::Denied, FilesErrorKind::StoreDenied),
    ] {
        store.down(Some(kind));
        assert_eq!(home.try_sync(ScanMode::Checksum).await.unwrap_err().kind(), said);
        assert_eq!(home.files(), map(&[("a", "one"), ("b", "two")]));
    }
    store.down(None);
    home.sync().await;
    assert_eq!(store.manifest(), home.files());
}

/// FAULTS 26.
#[tokio::test]
async fn a_manifest_that_vanished_is_held() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    let manifest = fs::read_to_string(store.store.path().join("ann/one/manifest.json")).unwrap();
    store.take_out("manifest.json");
    for base in [home.base.clone(), None] {
        home.base = base;
        let ended = home.try_sync(ScanMode::Quick).await.unwrap_err();
        assert_eq!(ended.kind(), FilesErrorKind::ManifestUnavailable);
        assert!(home.try_hydrate().await.is_err());
        assert_eq!(home.files(), map(&[("a", "one")]));
    }
    store.drop_in("manifest.json", &manifest);
    home.sync().await;
    assert_eq!(home.files(), store.manifest());
}

/// FAULTS 26.
#[tokio::test]
async fn a_manifest_that_was_emptied_removes_nothing_here() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    store.drop_in("manifest.json", "[]");
    let ended = home.try_sync(ScanMode::Quick).await.unwrap_err();
    assert_eq!(ended.kind(), FilesErrorKind::ManifestUnavailable);
    assert_eq!(home.files(), map(&[("a", "one")]));
    // Without a base it is no deletion: the file is added to it.
    home.base = None;
    home.sync().await;
    assert_eq!(store.manifest(), map(&[("a", "one")]));
}

/// FAULTS 26: a listing that misses known files is no deletion either.
#[tokio::test]
async fn a_short_listing_is_held() {
    let (_temp, store) = store();
    store.drop_in("files/a", "one");
    store.drop_in("files/b", "two");
    let mut home = Home::new(&store).await;
    home.try_hydrate().await.unwrap();
    store.take_out("files/b");
    let ended = home.try_sync(ScanMode::Quick).await.unwrap_err();
    assert_eq!(ended.kind(), FilesErrorKind::ManifestUnavailable);
    assert_eq!(home.files(), map(&[("a", "one"), ("b", "two")]));
}

/// FAULTS 44.
#[tokio::test]
async fn a_tenant_who_removes_everything_loses_nothing_in_the_store() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.write("b/c", "two");
    home.sync().await;
    home.remove("a");
    fs::remove_dir_all(home.dir.join("b")).unwrap();
    home.sync().await;
    assert_eq!(store.manifest(), map(&[]));
    assert!(store.holds("one") && store.holds("two"));
    home.sync().await;
    assert_eq!(home.files(), map(&[]));
}

#[tokio::test]
async fn without_a_base_nothing_is_deleted_on_either_side() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    for (at, text) in [("same", "s"), ("removed-here", "r"), ("edited", "old")] {
        home.write(at, text);
    }
    home.sync().await;
    home.remove("removed-here");
    home.write("edited", "new!");
    home.write("added", "a");
    home.base = None;
    home.sync().await;
    let copy = "edited (conflict ann 2026-11-23T20-04-10Z)";
    let all = map(&[
        ("added", "a"),
        ("edited", "old"),
        (copy, "new!"),
        ("removed-here", "r"),
        ("same", "s"),
    ]);
    assert_eq!(home.files(), all);
    assert_eq!(store.manifest(), all);
}

#[tokio::test]
async fn a_file_is_not_removed_here_if_its_contents_are_stored_nowhere() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    a.write("keep", "k");
    a.write("gone", "precious");
    a.sync().await;
    b.sync().await;
    a.remove("gone");
    a.sync().await;
    let key = store.keys("files").into_iter().find(|key| key.starts_with("gone@")).unwrap();
    store.take_out(&format!("files/{key}"));
    b.sync().await;
    assert_eq!(b.read("gone").as_deref(), Some("precious"));
    assert!(store.holds("precious"));
}

/// FAULTS 45.
#[tokio::test]
async fn a_directory_that_was_replaced_commits_no_deletion() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    fs::rename(&home.dir, home.dir.with_extension("moved")).unwrap();
    fs::create_dir(&home.dir).unwrap();
    let ended = home.try_sync(ScanMode::Quick).await;
    assert_eq!(ended.unwrap_err().kind(), FilesErrorKind::WorkspaceReplaced);
    assert_eq!(store.manifest(), map(&[("a", "one")]));
}

/// FAULTS 38, T7: what is skipped is told, and what cannot be read keeps its row.
#[tokio::test]
async fn what_is_skipped_is_told_and_the_rest_is_stored() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.spec.max_file_size = 10;
    home.spec.sync_exclude = vec!["*.tmp".to_owned()];
    home.write("a", "one");
    home.write("large", "more than ten bytes");
    home.write("x.tmp", "scratch");
    let fifo = home.dir.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let found = home.sync().await;
    assert_eq!(store.manifest(), map(&[("a", "one")]));
    let seen = found.seen;
    assert_eq!((seen.skipped, seen.blocking, seen.excluded), (3, 1, 1));
    let told: Vec<String> =
        found.remarks.iter().map(|r| format!("{} {}: {}", r.state, r.path, r.reason)).collect();
    assert_eq!(
        told,
        [
            "skipped large: larger than workspace.limits.fileSize",
            "skipped fifo: a FIFO, socket or device: it has no content",
            "skipped x.tmp: matches workspace.sync.exclude",
        ]
    );
}

/// FAULTS 42: what changes under the reader's hands is read again.
#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_sent_whole() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("quiet", "q");
    home.write("busy", "first version");
    let busy = home.dir.join("busy");
    store.before("put", move || async move {
        fs::write(busy, "second version, longer").unwrap();
    });
    let found = home.sync().await;
    assert_eq!(found.seen.unsynced, 0);
    assert_eq!(store.manifest(), map(&[("busy", "second version, longer"), ("quiet", "q")]));
}

#[tokio::test]
async fn the_last_sync_takes_everything_out_and_brings_nothing_here() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    a.write("from-a", "1");
    fs::create_dir(a.dir.join("folder-of-a")).unwrap();
    a.sync().await;
    b.write("from-b", "2");
    let found = b.try_sync(ScanMode::Checksum).await.unwrap();
    assert_eq!(b.files(), map(&[("from-b", "2")]));
    assert_eq!(store.manifest(), map(&[("from-a", "1"), ("from-b", "2")]));
    assert_eq!((found.seen.unsynced, found.seen.blocking), (0, 0));
    b.sync().await;
    assert_eq!(b.files(), store.manifest());
    assert!(b.dir.join("folder-of-a").is_dir());
}

/// FAULTS 43.
#[tokio::test]
async fn a_checksum_sync_finds_what_stamps_hide() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    home.write("a", "two");
    // As if a store through a mapping had left every stamp as it was.
    let seen = fs::metadata(home.dir.join("a")).unwrap();
    let entry = home.base.as_mut().unwrap().files.values_mut().next().unwrap();
    entry.mtime_ns = seen.mtime() * 1_000_000_000 + seen.mtime_nsec();
    entry.stamp = Some(Stamp {
        ino: seen.ino(),
        size: seen.size(),
        mtime_ns: entry.mtime_ns,
        ctime_ns: seen.ctime() * 1_000_000_000 + seen.ctime_nsec(),
    });
    home.sync().await;
    assert_eq!(store.manifest(), map(&[("a", "one")]));
    home.try_sync(ScanMode::Checksum).await.unwrap();
    assert_eq!(store.manifest(), map(&[("a", "two")]));
}

/// O1, P4.
#[tokio::test]
async fn a_hostile_manifest_is_refused_before_anything_is_written() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    for text in [
        r#"[{"logical_path": "../../../up", "storage_key": "files/x"}]"#,
        r#"[{"logical_path": "a", "storage_key": "../../bob/two/files/secret"}]"#,
        r#"[{"logical_path": "a", "storage_key": "k"}, {"logical_path": "a/b", "storage_key": "k"}]"#,
        "not json",
    ] {
        store.drop_in("manifest.json", text);
        let ended = home.try_sync(ScanMode::Quick).await.unwrap_err();
        assert_eq!(ended.kind(), FilesErrorKind::ManifestInvalid, "{text}");
        assert!(ended.to_string().contains("manifest.json of ann/one is refused: "), "{ended}");
        let ended = home.try_hydrate().await.unwrap_err();
        assert_eq!(ended.kind(), FilesErrorKind::ManifestInvalid, "{text}");
        assert_eq!(home.files(), map(&[]));
    }
}

#[tokio::test]
async fn a_key_that_is_taken_by_another_content_is_not_used() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    store.drop_in("files/a@2cf24dba5fb0", "not hello");
    store.drop_in("manifest.json", "[]");
    home.write("a", "hello");
    home.sync().await;
    assert_eq!(store.manifest(), map(&[("a", "hello")]));
    assert_eq!(store.keys("files").len(), 2);
}

#[tokio::test]
async fn a_key_below_an_object_gets_a_hashed_one() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    store.drop_in("files/d", "an object");
    store.drop_in("manifest.json", "[]");
    home.write("d/a", "hello");
    home.sync().await;
    assert_eq!(store.manifest(), map(&[("d/a", "hello")]));
    assert_eq!(store.keys("long").len(), 1);
}

#[tokio::test]
async fn a_new_directory_alone_is_stored_and_comes_back() {
    let (_temp, store) = store();
    let (mut a, mut b) = (Home::new(&store).await, Home::new(&store).await);
    a.write("f", "x");
    a.sync().await;
    for name in ["one", "two"] {
        fs::create_dir(a.dir.join(name)).unwrap();
        a.sync().await;
    }
    fs::remove_dir(a.dir.join("one")).unwrap();
    a.sync().await;
    b.sync().await;
    assert!(b.dir.join("two").is_dir() && !b.dir.join("one").exists());
}

/// A file that is to be here before the start and is larger than any may be: the limit is named, and
/// what else is to come comes.
#[tokio::test]
async fn an_eager_file_over_its_limit_names_it_and_holds_up_no_other() {
    let (_temp, store) = store();
    store.drop_in("files/a", "one");
    store.drop_in("files/large", "more than ten bytes");
    store.drop_in("files/z", "two");
    let mut home = Home::new(&store).await;
    home.spec.files.large = LargeFiles::Eager;
    home.spec.max_file_size = 10;
    let refused = home.try_hydrate().await.unwrap_err();
    assert_eq!(refused.kind(), FilesErrorKind::OverQuota);
    assert_eq!(
        refused.to_string(),
        "`large` stays in the store: it has 19 bytes, and workspace.limits.fileSize is 10 bytes; \
         raise that, or take its row out of manifest.json"
    );
    assert_eq!(home.files(), map(&[("a", "one"), ("z", "two")]));
    home.spec.max_file_size = 19;
    home.try_hydrate().await.unwrap();
    assert_eq!(home.read("large").as_deref(), Some("more than ten bytes"));
}
