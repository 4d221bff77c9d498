//! Manifests, trees, keys and names as text.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::picture::path;
use crate::model::{ManifestEntry, RelPath, Sha256, Timestamp, Tree, UserName};
use crate::sync::manifest::parse_within;
use crate::sync::{
    BadManifest, bare_path, check_key, conflict_path, kept_manifest, key_candidates, parse_bare,
    parse_manifest, parse_tree, reads_like_anothers, render_manifest, render_tree, sum,
};

fn entry(key: &str) -> ManifestEntry {
    ManifestEntry {
        sha256: Some(sum(b"x")),
        size: Some(1),
        mode: Some(0o640),
        mtime_ns: Some(1_795_464_250_123_456_789),
        storage_key: key.to_owned(),
    }
}

#[test]
fn a_manifest_is_a_list_of_rows_sorted_by_path() {
    let mut files = BTreeMap::new();
    files.insert(path("drafts/b.txt"), entry("files/drafts/b.txt@2d711642b726"));
    files.insert(path("a"), ManifestEntry { mtime_ns: None, mode: None, ..entry("a") });
    files.insert(RelPath::parse(b"x/\xff").unwrap(), entry("long/1"));
    let text = render_manifest(&files, &Tree::default());
    expect![[r#"
        [
        {"logical_path":"a","file_name":"a","size":1,"storage_key":"a","sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"},
        {"logical_path":"drafts/b.txt","file_name":"b.txt","size":1,"storage_key":"files/drafts/b.txt@2d711642b726","sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","mtime":"2026-11-23T20:04:10.123456789Z","mode":"0640"},
        {"logical_path":"x/�","logical_path_b64":"eC//","file_name":"�","size":1,"storage_key":"long/1","sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881","mtime":"2026-11-23T20:04:10.123456789Z","mode":"0640"}
        ]
    "#]]
    .assert_eq(std::str::from_utf8(&text).unwrap());
    assert_eq!(parse_manifest(&text).unwrap(), files);
}

#[test]
fn an_empty_manifest_is_a_list_without_rows() {
    let text = render_manifest(&BTreeMap::new(), &Tree::default());
    assert_eq!(parse_manifest(&text).unwrap(), BTreeMap::new());
    assert_eq!(parse_manifest(b"[]").unwrap(), BTreeMap::new());
}

#[test]
fn another_tree_gives_another_manifest_of_the_same_files() {
    let files: BTreeMap<_, _> = [(path("a"), entry("a"))].into();
    let mut tree = Tree::default();
    let mut texts = vec![render_manifest(&files, &tree)];
    tree.directories.insert(path("d"), 0o755);
    texts.push(render_manifest(&files, &tree));
    tree.symlinks.insert(path("l"), "../%FF".to_owned());
    texts.push(render_manifest(&files, &tree));
    assert!(texts.iter().all(|text| parse_manifest(text).unwrap() == files));
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2]);
    assert_eq!(parse_tree(&render_tree(&tree)).unwrap(), tree);
}

#[test]
fn a_manifest_from_elsewhere_needs_two_fields_only() {
    let text = br#"[{"logical_path": "a/b.pdf", "storage_key": "docs/17", "size": null,
                     "mtime": 12.5, "mode": 420, "owner": "somebody"}]"#;
    let files = parse_manifest(text).unwrap();
    let row = &files[&path("a/b.pdf")];
    assert_eq!((row.size, row.sha256), (None, None));
    assert_eq!((row.mode, row.mtime_ns), (Some(0o644), Some(12_500_000_000)));
    assert_eq!(row.storage_key, "docs/17");
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn refused(text: &str, expect: Expect) {
    expect.assert_eq(&parse_manifest(text.as_bytes()).unwrap_err().to_string());
}

/// One row with this path and key.
fn row(logical: &str, key: &str) -> String {
    format!(r#"{{"logical_path": {logical:?}, "storage_key": {key:?}}}"#)
}

#[test]
fn o1_a_refused_entry_is_named() {
    let at = |logical: &str| format!("[{}, {}]", row("ok", "files/ok"), row(logical, "files/x"));
    refused(&at("../up"), expect!["entry 1 (`../up`) is refused: it has a `.` or `..` component"]);
    refused(
        &at("/etc/passwd"),
        expect!["entry 1 (`/etc/passwd`) is refused: it is absolute or has an empty component"],
    );
    refused(&at(""), expect!["entry 1 (``) is refused: it is empty"]);
    refused(&at("ok"), expect!["entry 1 (`ok`) is refused: the path is there twice"]);
    refused(
        &at("ok/below"),
        expect!["entry 0 (`ok`) is refused: it is a file, and a directory for `ok/below`"],
    );
    refused(
        r#"[{"logical_path": "a\u0000b", "storage_key": "files/x"}]"#,
        expect!["entry 0 (`a%00b`) is refused: it holds a NUL byte"],
    );
    refused(
        r#"[{"logical_path": "a", "storage_key": "x", "logical_path_b64": "Li4vYQ=="}]"#,
        expect!["entry 0 (`a`) is refused: it has a `.` or `..` component"],
    );
    refused(
        &format!("[{}, {}, {}]", row("a", "k"), row("a!", "k"), row("a/b", "k")),
        expect!["entry 0 (`a`) is refused: it is a file, and a directory for `a/b`"],
    );
}

#[test]
fn p4_a_key_outside_the_case_is_refused() {
    for key in ["../../bob/secret/files/a", "/bob/files/a", "files/../../a", "files//a", ""] {
        assert!(check_key(key).is_err(), "{key}");
        assert!(parse_manifest(format!("[{}]", row("a", key)).as_bytes()).is_err(), "{key}");
    }
    for key in ["manifest.json", "manifests/2026-x.json", "trees/ab.json"] {
        assert!(check_key(key).is_err(), "{key}");
    }
    refused(
        &format!("[{}]", row("a", "../../bob/one/files/a")),
        expect![
            "entry 0 (`a`) is refused: storage_key `../../bob/one/files/a`: it leads outside the case: keys are relative to the case and have no `.` or `..`"
        ],
    );
}

#[test]
fn p4_a_key_may_read_like_one_of_another_case() {
    let foreign = [
        "bob/two/files/a.txt",
        "bob/two/files/d/a@0123456789ab",
        "prefix/of/store/bob/two/files/a",
        "bob/two/manifest.json",
        "bob/two/manifests/2026.json",
        "bob/two/long/00@0123456789ab",
    ];
    for key in foreign {
        assert!(reads_like_anothers(key), "{key}");
    }
    let own = ["files/a/files/b", "up/1.pdf", "docs/17", "files/x@0123456789ab", "a/b/files", "a"];
    for key in own {
        assert!(!reads_like_anothers(key), "{key}");
    }
}

#[test]
fn wrong_types_are_refused() {
    refused(
        "{}",
        expect![
            "it is not a JSON list of files: invalid type: map, expected a list of files at line 1 column 0"
        ],
    );
    refused(
        "[1]",
        expect!["entry 0 (`1`) is refused: it is not an object with logical_path and storage_key"],
    );
    refused(
        "[",
        expect!["it is not a JSON list of files: EOF while parsing a list at line 1 column 1"],
    );
    refused(
        "[] x",
        expect!["it is not a JSON list of files: trailing characters at line 1 column 4"],
    );
    let with = |field: &str| format!(r#"[{{"logical_path": "a", "storage_key": "k", {field}}}]"#);
    refused(
        &with(r#""size": -1"#),
        expect!["entry 0 (`a`) is refused: size is not a number of bytes"],
    );
    refused(
        &with(r#""size": "9""#),
        expect!["entry 0 (`a`) is refused: size is not a number of bytes"],
    );
    refused(
        &with(r#""sha256": "abc""#),
        expect!["entry 0 (`a`) is refused: sha256 is not 64 hex digits"],
    );
    refused(
        &with(r#""mtime": "yesterday""#),
        expect!["entry 0 (`a`) is refused: mtime is neither RFC 3339 nor seconds since 1970"],
    );
    refused(
        &with(r#""mode": "rwx""#),
        expect![[
            r#"entry 0 (`a`) is refused: mode is neither octal digits like "0644" nor a number up to 4095"#
        ]],
    );
    refused(
        r#"[{"storage_key": "k"}]"#,
        expect![[r#"entry 0 (`{"storage_key":"k"}`) is refused: logical_path is missing"#]],
    );
    refused(
        r#"[{"logical_path": "a"}]"#,
        expect!["entry 0 (`a`) is refused: storage_key is missing"],
    );
}

#[test]
fn o1_a_manifest_of_too_many_entries_is_refused() {
    let text = format!("[{}, {}, {}]", row("a", "k"), row("b", "k"), row("c", "k"));
    assert_eq!(parse_within(text.as_bytes(), 3).unwrap().len(), 3);
    assert_eq!(parse_within(text.as_bytes(), 2), Err(BadManifest::TooMany));
}

#[test]
fn a_case_without_a_manifest_is_what_lies_under_files() {
    let objects = [("files/a/b.txt", 3), ("files/dir/", 0), ("other/x", 1), ("files/c", 0)];
    let files = parse_bare(objects.into_iter()).unwrap();
    let shown: Vec<String> =
        files.iter().map(|(at, row)| format!("{at} {:?} {}", row.size, row.storage_key)).collect();
    assert_eq!(shown, ["a/b.txt Some(3) files/a/b.txt", "c Some(0) files/c"]);
    assert!(parse_bare([("files/a", 1), ("files/a/b", 1)].into_iter()).is_err());
    assert!(parse_bare([("files/../a", 1)].into_iter()).is_err());
    assert_eq!(bare_path("files/"), None);
}

#[test]
fn a_key_is_the_path_and_the_beginning_of_the_sum() {
    let sum = sum(b"x");
    let hex = sum.hex();
    let keys = key_candidates(&path("drafts/a b.pdf"), sum);
    let hashed = crate::sync::sum(b"drafts/a b.pdf").hex();
    assert_eq!(
        keys,
        [
            format!("files/drafts/a b.pdf@{}", &hex[..12]),
            format!("files/drafts/a b.pdf@{hex}"),
            format!("long/{hashed}@{}", &hex[..12]),
            format!("long/{hashed}@{hex}"),
        ]
    );
}

#[test]
fn a_long_path_gets_a_hashed_key() {
    let sum = sum(b"x");
    let component = path(&"n".repeat(190));
    assert!(key_candidates(&component, sum)[0].starts_with("long/"));
    let deep = path(&vec!["abcdefghi"; 100].join("/"));
    assert!(key_candidates(&deep, sum)[0].starts_with("long/"));
    for at in [component, deep, RelPath::parse(b"\xff").unwrap()] {
        let keys = key_candidates(&at, sum);
        assert!(!keys.is_empty());
        assert!(keys.iter().all(|key| check_key(key).is_ok() && key.len() <= 900), "{keys:?}");
    }
}

#[test]
fn a_conflict_copy_keeps_its_extension_and_its_length() {
    let user = UserName::parse("ann").unwrap();
    let now = Timestamp::from_timestamp(1_795_464_250, 0).unwrap();
    let name = |at: &str| conflict_path(&path(at), &user, now, |_| false).to_string();
    assert_eq!(name("d/a.pdf"), "d/a (conflict ann 2026-11-23T20-04-10Z).pdf");
    assert_eq!(name(".bashrc"), ".bashrc (conflict ann 2026-11-23T20-04-10Z)");
    assert_eq!(name("Makefile"), "Makefile (conflict ann 2026-11-23T20-04-10Z)");
    let long = format!("{}.pdf", "é".repeat(125));
    let named = conflict_path(&path(&long), &user, now, |_| false);
    assert!(named.as_bytes().len() <= 255 && named.to_str().unwrap().ends_with("Z).pdf"));
    let first = path("a (conflict ann 2026-11-23T20-04-10Z)");
    let second = conflict_path(&path("a"), &user, now, |at| *at == first);
    assert_eq!(second.to_string(), "a (conflict ann 2026-11-23T20-04-10Z 2)");
}

#[test]
fn a_replaced_manifest_is_kept_under_its_time_and_etag() {
    let now = Timestamp::from_timestamp(1_795_464_250, 0).unwrap();
    assert_eq!(kept_manifest(now, "\"a/b-1\""), "manifests/2026-11-23T20-04-10.000Z-ab-1.json");
}

proptest::proptest! {
    /// T8, FAULTS 41: any name a tenant can make goes to the manifest and back.
    #[test]
    fn any_name_survives_the_manifest(
        names in proptest::collection::vec(proptest::collection::vec(1_u8..=255, 1..40), 1..6),
    ) {
        let files: BTreeMap<RelPath, ManifestEntry> = names
            .iter()
            .map(|name| name.iter().map(|b| if *b == b'/' { b'_' } else { *b }).collect::<Vec<_>>())
            .filter_map(|name| RelPath::parse(&name).ok())
            .map(|at| {
                let key = key_candidates(&at, sum(b"x")).remove(0);
                (at, entry(&key))
            })
            .collect();
        let text = render_manifest(&files, &Tree::default());
        proptest::prop_assert_eq!(parse_manifest(&text).unwrap(), files);
    }

    /// O1: no bytes make the reader panic, and what it takes is safe.
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"a-z_/.0-9 -]{0,80}") {
        let _ = parse_manifest(text.as_bytes());
        let _ = parse_tree(text.as_bytes());
    }

    #[test]
    fn a_key_that_is_taken_stays_in_the_case(key in "[a-z./\\\\%\u{0}-\u{ff}]{0,40}") {
        if check_key(&key).is_ok() {
            let outside = key.starts_with('/') || key.split('/').any(|part| part == "..");
            proptest::prop_assert!(!outside);
        }
    }
}

#[test]
fn a_sum_is_that_of_the_bytes() {
    let known = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    assert_eq!(Some(sum(b"x")), Sha256::parse(known));
}
