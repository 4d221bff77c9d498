//! THREATS O1 and P4: what a manifest may not say is refused by name, before anything is written.

use std::fs;

use super::home::{Home, map, store};
use crate::apply::files::FilesErrorKind;

/// Rows around one: a good one before and after it.
fn rows(bad: &str) -> String {
    format!(
        r#"[{{"logical_path": "good", "storage_key": "up/good"}}, {bad},
            {{"logical_path": "later", "storage_key": "up/good"}}]"#
    )
}

#[tokio::test]
async fn o1_each_entry_of_the_corpus_is_refused_by_name_and_nothing_is_written() {
    let row = |path: &str, rest: &str| {
        rows(&format!(r#"{{"logical_path": "{path}", "storage_key": "up/bad"{rest}}}"#))
    };
    let zeros = "0".repeat(64);
    let wrong_hash = format!(r#", "sha256": "{zeros}""#);
    let corpus: Vec<(String, &str, FilesErrorKind)> = vec![
        (row("../up", ""), "../up", FilesErrorKind::ManifestInvalid),
        (row("a/../../up", ""), "a/../../up", FilesErrorKind::ManifestInvalid),
        (row("/etc/passwd", ""), "/etc/passwd", FilesErrorKind::ManifestInvalid),
        (row("", ""), "entry 1", FilesErrorKind::ManifestInvalid),
        (row("a//b", ""), "a//b", FilesErrorKind::ManifestInvalid),
        (row(".", ""), "`.`", FilesErrorKind::ManifestInvalid),
        (row(r"nul\u0000", ""), "nul%00", FilesErrorKind::ManifestInvalid),
        (row("good", ""), "good", FilesErrorKind::ManifestInvalid),
        (row("good/below", ""), "good/below", FilesErrorKind::ManifestInvalid),
        (row("x", r#", "logical_path_b64": "Li4vdXA=""#), "`x`", FilesErrorKind::ManifestInvalid),
        (row("size", r#", "size": -1"#), "size", FilesErrorKind::ManifestInvalid),
        (row("hash", r#", "sha256": "12""#), "hash", FilesErrorKind::ManifestInvalid),
        (row("wrong-size", r#", "size": 5"#), "wrong-size", FilesErrorKind::Corrupt),
        (row("wrong-hash", &wrong_hash), "wrong-hash", FilesErrorKind::Corrupt),
    ];
    for (manifest, names, kind) in corpus {
        let (_temp, store) = store();
        let mut home = Home::new(&store).await;
        store.drop_in("up/good", "good");
        store.drop_in("up/bad", "bad");
        store.drop_in("manifest.json", &manifest);
        let error = home.try_hydrate().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(names), "{error}");
        let mut there = home.files();
        if kind == FilesErrorKind::Corrupt {
            // Only the download can tell: the others come, it never does.
            there.retain(|_, text| text != "good");
        }
        assert_eq!(there, map(&[]), "{manifest}");
        assert!(!home.dir.parent().unwrap().join("up").exists());
    }
}

#[tokio::test]
async fn p4_a_key_of_another_tenant_is_refused_by_name_and_nothing_is_written() {
    for key in [
        "../../bob/two/files/secret",
        "/bob/two/files/secret",
        "bob/two/files/secret",
        "some/prefix/bob/two/files/secret",
        "bob/two/manifest.json",
    ] {
        let (_temp, store) = store();
        let mut home = Home::new(&store).await;
        store.drop_in("../../bob/two/files/secret", "canary");
        store.drop_in("../../bob/two/manifest.json", "[]");
        store.drop_in("up/good", "good");
        let bad = format!(r#"{{"logical_path": "stolen", "storage_key": "{key}"}}"#);
        store.drop_in("manifest.json", &rows(&bad));
        let error = home.try_hydrate().await.unwrap_err();
        assert_eq!(error.kind(), FilesErrorKind::ManifestInvalid, "{error}");
        assert!(error.to_string().contains("stolen"), "{error}");
        assert_eq!(home.files(), map(&[]), "{key}");
        // One of the case's own that reads like it is its own.
        if !key.starts_with(['.', '/']) && key.contains("files") {
            store.drop_in(key, "mine");
            home.try_hydrate().await.unwrap();
            assert_eq!(home.read("stolen").as_deref(), Some("mine"));
        }
    }
}

#[tokio::test]
async fn edits_that_wait_are_counted_while_the_store_is_of_no_use() {
    let (_temp, store) = store();
    let mut home = Home::new(&store).await;
    home.write("a", "one");
    home.sync().await;
    store.take_out("manifest.json");
    store.drop_in("manifest.json", "not json");
    home.write("a", "two!");
    home.write("b", "three");
    fs::create_dir(home.dir.join("d")).unwrap();
    let error = home.try_sync(crate::world::ScanMode::Quick).await.unwrap_err();
    assert_eq!(error.kind(), FilesErrorKind::ManifestInvalid);
    let seen = home.all().waiting(home.base.as_ref()).await.unwrap().seen;
    assert_eq!((seen.unsynced, seen.unsynced_bytes, seen.total), (2, 9, 2));
}
