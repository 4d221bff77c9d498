//! Earlier states: names, differences, restores, and what nobody needs.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;

use super::picture::path;
use crate::model::{ManifestEntry, Remote, Timestamp, Tree};
use crate::sync::{
    Difference, NoReturn, NoState, Own, garbage, kept_manifest, old_manifests, pick, put_back,
    short_ids, state_after, state_of, sum, tree_key,
};

fn row(text: &str) -> ManifestEntry {
    ManifestEntry {
        sha256: Some(sum(text.as_bytes())),
        size: Some(text.len() as u64),
        mode: Some(0o644),
        mtime_ns: Some(1),
        storage_key: format!("files/{text}"),
    }
}

fn state(files: &[(&str, &str)], directories: &[&str]) -> Remote {
    let files = files.iter().map(|(at, text)| (path(at), row(text))).collect();
    let directories = directories.iter().map(|at| (path(at), 0o755)).collect();
    Remote { etag: None, files, tree: Some(Tree { directories, symlinks: BTreeMap::new() }) }
}

fn shown(state: &Remote) -> String {
    let files = state.files.iter().map(|(at, row)| format!("{at}={} ", &row.storage_key[6..]));
    let tree = state.tree.clone().unwrap_or_default();
    files.chain(tree.directories.keys().map(|at| format!("{at}/ "))).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_795_464_250 + seconds, 0).unwrap()
}

#[test]
fn a_states_id_is_the_name_of_its_kept_manifest() {
    let key = kept_manifest(at(0), "\"ab-1\"");
    assert_eq!(state_of(&key), Some(("2026-11-23T20-04-10.000Z-ab-1", at(0))));
    for odd in ["manifests/notes.json", "manifests/2026-11-23T20-04-10.000Z-a/b.json", "x"] {
        assert_eq!(state_of(odd), None, "{odd}");
    }
}

#[test]
fn a_state_is_meant_by_its_id_its_beginning_or_a_moment() {
    let ids =
        ["2026-11-23T20-04-10.000Z-a", "2026-11-23T20-04-11.000Z-b", "2026-11-24T00-00-00.000Z-c"];
    assert_eq!(pick(&ids, ids[1]), Ok(ids[1]));
    assert_eq!(pick(&ids, "2026-11-24"), Ok(ids[2]));
    assert_eq!(pick(&ids, "2026-11-23"), Err(NoState::Several("2026-11-23".to_owned(), 2)));
    assert_eq!(pick(&ids, "2026-11-23T22:04:10.5+02:00"), Ok(ids[0]));
    assert_eq!(pick(&ids, "2026-12-01T00:00:00Z"), Ok(ids[2]));
    assert!(matches!(pick(&ids, "2026-11-01T00:00:00Z"), Err(NoState::TooEarly(_))));
    for unknown in ["", "zzz", "../x"] {
        assert!(matches!(pick(&ids, unknown), Err(NoState::Unknown(_))), "{unknown}");
    }
}

#[test]
fn a_state_is_later_than_the_one_before_whatever_the_clocks_say() {
    let said = |last, now| kept_manifest(state_after(last, now), "e");
    let odd = at(5) + chrono::TimeDelta::nanoseconds(7_999_999);
    assert_eq!(said(None, odd), "manifests/2026-11-23T20-04-15.007Z-e.json");
    assert_eq!(said(Some(at(0)), odd), said(None, odd));
    assert_eq!(said(Some(odd), odd), "manifests/2026-11-23T20-04-15.008Z-e.json");
    assert_eq!(said(Some(at(9)), at(5)), "manifests/2026-11-23T20-04-19.001Z-e.json");
}

#[test]
fn a_short_id_means_one_state() {
    let ids = [
        "2026-11-23T20-04-10.000Z-a",
        "2026-11-23T20-04-11.000Z-b",
        "2026-11-23T20-04-11.500Z-c",
        "2026-11-23T20-04-12.000Z-d",
        "2026-11-23T20-04-12.000Z-e",
    ];
    let short = short_ids(&ids);
    expect!["2026-11-23T20-04-10 2026-11-23T20-04-11.000Z 2026-11-23T20-04-11.500Z 2026-11-23T20-04-12.000Z-d 2026-11-23T20-04-12.000Z-e"]
        .assert_eq(&short.join(" "));
    for (short, id) in short.iter().zip(ids) {
        assert_eq!(pick(&ids, short), Ok(id));
    }
}

#[test]
fn a_difference_names_a_few_files_and_counts_many() {
    let said = |before: &[(&str, &str)], after: &[(&str, &str)]| {
        let (before, after) = (state(before, &[]), state(after, &[]));
        Difference::between(&before.files, &after.files).to_string()
    };
    expect!["added b; changed a; removed c"]
        .assert_eq(&said(&[("a", "1"), ("c", "1")], &[("a", "2"), ("b", "1")]));
    expect!["removed 4 files"]
        .assert_eq(&said(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")], &[]));
    expect![""].assert_eq(&said(&[("a", "1")], &[("a", "1")]));
}

#[test]
fn a_whole_state_comes_back_as_it_was() {
    let then = state(&[("a", "1"), ("d/b", "2")], &["d", "empty"]);
    let now = state(&[("a", "9"), ("new", "3")], &[]);
    expect!["a=1 d/b=2 d/ empty/ "].assert_eq(&shown(&put_back(&now, &then, None).unwrap()));
}

#[test]
fn with_a_path_nothing_else_is_touched_and_nothing_is_removed() {
    let then = state(&[("a", "1"), ("d/b", "2"), ("dd", "7")], &["d", "d/empty"]);
    let now = state(&[("a", "9"), ("d/newer", "3")], &["d"]);
    let back = |at: &str| put_back(&now, &then, Some(&path(at))).map(|next| shown(&next));
    expect!["a=9 d/b=2 d/newer=3 d/ d/empty/ "].assert_eq(&back("d").unwrap());
    expect!["a=1 d/newer=3 d/ "].assert_eq(&back("a").unwrap());
    assert_eq!(back("never"), Err(NoReturn::NotThen(path("never"))));
    let now = state(&[("d", "a file now")], &[]);
    let back = put_back(&now, &then, Some(&path("d")));
    assert!(matches!(back, Err(NoReturn::InTheWay(_))), "{back:?}");
}

#[test]
fn only_keys_of_dockets_own_forms_are_its_own() {
    let (short, long) = ("0123456789ab", "0".repeat(64));
    for (key, own) in [
        (format!("files/a b/c@{short}"), Some(Own::Contents)),
        (format!("files/c@{long}"), Some(Own::Contents)),
        (format!("long/{long}@{short}"), Some(Own::Contents)),
        (tree_key(b"[]"), Some(Own::Tree)),
        (kept_manifest(at(0), "e"), Some(Own::Manifest)),
        ("files/brief.pdf".to_owned(), None),
        ("files/a@example.org".to_owned(), None),
        (format!("files/a@{}", &short[1..]), None),
        (format!("files/a@{}", short.to_uppercase()), None),
        (format!("files/@{short}"), None),
        (format!("up/a@{short}"), None),
        (format!("long/x@{short}"), None),
        ("trees/x.json".to_owned(), None),
        ("manifests/x.json".to_owned(), None),
        ("manifest.json".to_owned(), None),
    ] {
        assert_eq!(Own::of(&key), own, "{key}");
    }
}

#[test]
fn the_newest_manifest_and_what_is_needed_or_young_stays() {
    let manifests: Vec<String> = (0..3).map(|n| kept_manifest(at(n), "e")).collect();
    let aged: Vec<_> = manifests.iter().map(|key| (key.as_str(), Some(at(10)))).collect();
    let old = old_manifests(&aged, at(100));
    assert_eq!(old, manifests[..2].iter().map(String::as_str).collect());
    assert_eq!(old_manifests(&aged, at(10)), BTreeSet::new());
    assert_eq!(old_manifests(&[(&manifests[0], None), (&manifests[1], None)], at(100)).len(), 0);
    let needed = BTreeSet::from(["files/b@0123456789ab".to_owned()]);
    let objects = [
        ("files/a@0123456789ab", Some(at(0))),
        ("files/b@0123456789ab", Some(at(0))),
        ("files/c@0123456789ab", Some(at(50))),
        ("files/d@0123456789ab", None),
        ("files/foreign", Some(at(0))),
        ("manifest.json", Some(at(0))),
        (manifests[0].as_str(), Some(at(0))),
    ];
    assert_eq!(garbage(&objects, &needed, at(20)), BTreeSet::from(["files/a@0123456789ab"]));
}
