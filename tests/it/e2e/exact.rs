//! What goes to the store comes back exactly, and nothing that was committed is ever lost:
//! FAULTS.md 24 to 26 and 41 to 44 as a user meets them, `docket history`, `restore`, `gc` and
//! `trash`, on a real engine and a real S3 server.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::rig::{Rig, class, condition, exists, http, session};
use super::store::{Bucket, local};
use crate::s3::servers;
use crate::s3::wire::{Asked, Fault};

/// Everything in a workspace: kind, mode, and of files time and contents, of links the text.
type Picture = BTreeMap<OsString, (char, u32, i128, Vec<u8>)>;

fn picture(top: &Path) -> Picture {
    let mut found = Picture::new();
    let mut ahead = vec![PathBuf::new()];
    while let Some(inside) = ahead.pop() {
        for entry in std::fs::read_dir(top.join(&inside)).unwrap() {
            let path = inside.join(entry.unwrap().file_name());
            let meta = std::fs::symlink_metadata(top.join(&path)).unwrap();
            let mode = meta.mode() & 0o7777;
            let seen = if meta.is_symlink() {
                let text = std::fs::read_link(top.join(&path)).unwrap();
                ('l', 0, 0, text.into_os_string().into_vec())
            } else if meta.is_dir() {
                ahead.push(path.clone());
                ('d', mode, 0, Vec::new())
            } else {
                let time = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
                ('f', mode, time, std::fs::read(top.join(&path)).unwrap())
            };
            found.insert(path.into_os_string(), seen);
        }
    }
    found
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn set_time(path: &Path, when: &str) {
    let done = Command::new("touch").args(["-d", when]).arg(path).status().unwrap();
    assert!(done.success());
}

/// Fills a workspace with everything that a tenant may have made.
fn fill(top: &Path) {
    let write = |at: &[u8], bytes: &[u8]| {
        let path = top.join(OsStr::from_bytes(at));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    };
    write(b".env", b"hidden");
    write(b".config/.deep/.x", b"\0\x01\xff");
    set_mode(&write(b"run.sh", b"#!/bin/sh\n"), 0o755);
    set_mode(&write(b"closed", b"mine alone"), 0o400);
    set_mode(&write(b"open", b"everybody's"), 0o777);
    set_mode(&write(b"none", b""), 0o000);
    set_time(&write(b"old", b"1969"), "1969-07-20T20:17:40.123456789Z");
    set_time(&write(b"new", b"2200"), "2200-01-01T00:00:00.000000001Z");
    // FAULTS 41 and THREATS T8: names that are no text, and names that look like something else.
    let odd: [&[u8]; 14] = [
        b"\xff\xfe not utf-8",
        b"latin-\xe9/inner-\xe9",
        b"new\nline",
        b"tab\tand \x1b[31mcolour\x07",
        b" leading and trailing ",
        b"percent%20+plus&amp;?x=1#y",
        b"at@0123456789ab",
        b"mine.stub",
        b"quote\"'`$(x)\\back",
        b"-rf",
        b"~",
        "\u{e9}\u{301} \u{202e}txt.exe".as_bytes(),
        b"manifest.json",
        b"files/long/trees/manifests/x",
    ];
    for (n, at) in odd.into_iter().enumerate() {
        write(at, format!("odd {n}").as_bytes());
    }
    write("n".repeat(255).as_bytes(), b"the longest name");
    write(vec!["deep"; 60].join("/").as_bytes(), b"deep");
    write(b"large", &(0..3_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    for empty in ["empty", "nest/of/empty", "\u{fc}ml\u{e4}ut"] {
        std::fs::create_dir_all(top.join(empty)).unwrap();
    }
    std::fs::create_dir(top.join(OsStr::from_bytes(b"dir-\xff"))).unwrap();
    set_mode(&top.join("nest/of"), 0o700);
    set_mode(&top.join("nest"), 0o777);
    set_mode(&top.join("motions"), 0o750);
    symlink("/etc/passwd", top.join("absolute")).unwrap();
    symlink("../../up", top.join("nest/relative")).unwrap();
    symlink("nowhere at all", top.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(b"to-\xff\n"), top.join(OsStr::from_bytes(b"link-\xfe"))).unwrap();
    symlink("nest", top.join("to a directory")).unwrap();
}

#[test]
fn f41_a_workspace_comes_back_from_the_store_exactly_as_it_was() {
    let (mut rig, _bucket) = Bucket::of(servers::strict(), "exact");
    rig.write(
        "legal.yaml",
        &class("legal", "  ").replace("{sync:", "{files: {large: Eager}, sync:"),
    );
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    let top = rig.workspace("ann", "one");
    fill(&top);
    http(&view, "POST", "/do?op=mkdir&path=by%20the%20tenant", "");
    http(&view, "POST", "/write?path=by%20the%20tenant/x", "x");
    rig.ok(&["sync", "ann-one"]);
    let left = picture(&top);
    assert!(left.len() > 100, "{}", left.len());
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert!(!exists(&top));
    // Another root, as another machine has it.
    rig.kill();
    std::fs::remove_dir_all(rig.path("workspaces")).unwrap();
    std::fs::remove_dir_all(rig.path("state")).unwrap();
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    let same = |left: &Picture, top: &Path| {
        let back = picture(top);
        for (path, seen) in left {
            let (kind, mode, time, bytes) = seen;
            let found = back.get(path).unwrap_or_else(|| panic!("{path:?} did not come back"));
            assert_eq!((found.0, found.1, found.2), (*kind, *mode, *time), "{path:?}");
            assert!(found.3 == *bytes, "{path:?}: other contents");
        }
        let more: Vec<_> = back.keys().filter(|path| !left.contains_key(*path)).collect();
        assert!(more.is_empty(), "{more:?}");
    };
    same(&left, &top);
    // And looking at it once more changes nothing on either side.
    let states = states(&rig, "ann-one").len();
    rig.ok(&["sync", "ann-one"]);
    same(&left, &top);
    assert_eq!(self::states(&rig, "ann-one").len(), states, "nothing was committed");
}

/// A rig whose one session syncs when it is asked to.
fn on_request(name: &str, proxy: bool) -> (Rig, Bucket, Value) {
    let (mut rig, bucket) =
        if proxy { Bucket::behind_a_proxy(name) } else { Bucket::of(servers::strict(), name) };
    rig.write("legal.yaml", &class("legal", "").replace("interval: 1s}}", "interval: 1h}}"));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    rig.ok(&["sync", "ann-one"]);
    (rig, bucket, view)
}

/// `docket history` as a list, newest first.
fn states(rig: &Rig, name: &str) -> Vec<Value> {
    serde_json::from_str(&rig.ok(&["history", name, "-o", "json"])).unwrap()
}

/// S3 tells the time of a manifest in whole seconds: those of one second have no order.
fn next_second() {
    let began = chrono::Utc::now().timestamp();
    while chrono::Utc::now().timestamp() == began {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn newest(rig: &Rig) -> String {
    states(rig, "ann-one")[0]["id"].as_str().unwrap().to_owned()
}

fn write(rig: &Rig, path: &str, text: &str) {
    let path = rig.workspace("ann", "one").join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn unsynced(view: &Value) -> u64 {
    view["status"]["files"]["unsynced"].as_u64().unwrap()
}

fn is_write(asked: &Asked) -> bool {
    asked.method == "PUT" && !asked.is_trial()
}

#[test]
fn f24_every_write_whose_answer_is_lost_counts_once() {
    let (rig, bucket, _) = on_request("f24", true);
    let before = states(&rig, "ann-one").len();
    write(&rig, "a.txt", "contents");
    write(&rig, "large", &"0123456789".repeat(1 << 20));
    let seen = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    bucket.weather(move |asked| {
        let mut seen = seen.lock().unwrap();
        let times = seen.entry(format!("{} {}", asked.method, asked.target)).or_default();
        *times += 1;
        if is_write(asked) && *times == 1 { Fault::LoseAnswer } else { Fault::Pass }
    });
    rig.ok(&["sync", "ann-one"]);
    bucket.weather(|_| Fault::Pass);
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"contents"[..]));
    assert_eq!(bucket.stored("ann/one", "large").unwrap().len(), 10 << 20);
    assert_eq!(states(&rig, "ann-one").len(), before + 1, "one commit");
    let rows = bucket.manifest("ann/one");
    assert!(rows.iter().all(|row| !row["logical_path"].as_str().unwrap().contains("conflict")));
    let lost = bucket.asked().iter().filter(|asked| is_write(asked)).count();
    assert!(lost >= 8, "each of four writes went out twice: {lost}");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(states(&rig, "ann-one").len(), before + 1);
}

#[test]
fn f25_what_another_wrote_in_between_stays_and_ours_stands_beside_it() {
    let (mut rig, bucket, _) = on_request("f25", false);
    write(&rig, "drafts/plea.final.txt", "first");
    write(&rig, "same.txt", "first");
    rig.ok(&["sync", "ann-one"]);
    let mut rows = bucket.manifest("ann/one");
    for row in &mut rows {
        let path = row["logical_path"].as_str().unwrap().to_owned();
        if path == "same.txt" || path.starts_with("drafts/plea") {
            bucket.put(&format!("ann/one/uploads/{path}"), b"theirs");
            *row = json!({"logical_path": path, "storage_key": format!("uploads/{path}")});
        }
    }
    write(&rig, "drafts/plea.final.txt", "ours");
    write(&rig, "same.txt", "theirs");
    bucket.put("ann/one/manifest.json", json!(rows).to_string().as_bytes());
    rig.ok(&["sync", "ann-one"]);
    let inside = rig.workspace("ann", "one").join("drafts");
    let names: Vec<String> = std::fs::read_dir(&inside)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("conflict"))
        .collect();
    let [copy] = &names[..] else { panic!("{names:?}") };
    let time = copy
        .strip_prefix("plea.final (conflict ann ")
        .and_then(|rest| rest.strip_suffix("Z).txt"))
        .unwrap_or_else(|| panic!("{copy}"));
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00-00-00", "{copy}");
    assert_eq!(local(&rig, "ann", "one", "drafts/plea.final.txt").as_deref(), Some("theirs"));
    assert_eq!(std::fs::read_to_string(inside.join(copy)).unwrap(), "ours");
    let stored = |path: &str| bucket.stored("ann/one", path).map(|b| String::from_utf8(b).unwrap());
    assert_eq!(stored("drafts/plea.final.txt").as_deref(), Some("theirs"));
    assert_eq!(stored(&format!("drafts/{copy}")).as_deref(), Some("ours"));
    // Both wrote the same: no conflict.
    assert_eq!(stored("same.txt").as_deref(), Some("theirs"));
    rig.see("tells", "ann-one", |view| view["status"]["files"]["conflicts"] == 1);
}

#[test]
fn f26_an_empty_broken_or_missing_manifest_deletes_nothing_and_a_restore_mends_it() {
    let (mut rig, bucket, _) = on_request("f26", false);
    write(&rig, "a.txt", "kept");
    rig.ok(&["sync", "ann-one"]);
    // What another overwrites was not kept: the one before it was.
    let good = newest(&rig);
    write(&rig, "b.txt", "kept too");
    rig.ok(&["sync", "ann-one"]);
    let broken: [(&[u8], &str); 4] = [
        (b"[]", "ManifestUnavailable"),
        (b"[{\"logical_path\": \"a.t", "ManifestInvalid"),
        (b"[{\"logical_path\": \"../a\", \"storage_key\": \"x\"}]", "ManifestInvalid"),
        (
            b"[{\"logical_path\": \"stolen.txt\", \"storage_key\": \"bob/two/files/secret\"}]",
            "ManifestInvalid",
        ),
    ];
    bucket.put("bob/two/files/secret", b"canary");
    for (n, (manifest, reason)) in broken.into_iter().enumerate() {
        bucket.put("ann/one/manifest.json", manifest);
        write(&rig, &format!("edit{n}.txt"), "waits");
        let said = rig.docket(&["sync", "ann-one"]);
        assert_eq!(said.code, 1, "{said:?}");
        let view = rig.see("is held", "ann-one", |view| {
            condition(view, "FilesSynced").1 == reason && unsynced(view) == 1
        });
        assert!(n != 3 || condition(&view, "FilesSynced").2.contains("stolen.txt"), "{view:#}");
        assert_eq!(local(&rig, "ann", "one", "a.txt").as_deref(), Some("kept"));
        assert!(!exists(&rig.workspace("ann", "one").join("stolen.txt")));
        rig.ok(&["restore", "ann-one", "--at", &good]);
        rig.see("is synced again", "ann-one", |view| unsynced(view) == 0);
        let edit = bucket.stored("ann/one", &format!("edit{n}.txt"));
        assert_eq!(edit.as_deref(), Some(&b"waits"[..]), "an edit outlives the restore");
        assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"kept"[..]));
    }
    // Nothing else names what an outsider's empty manifest took the place of.
    for kept in bucket.keys("ann/one/manifests/") {
        bucket.remove(&kept);
    }
    bucket.put("ann/one/manifest.json", b"[]");
    let only = rig.ok(&["history", "ann-one", "-o", "name"]);
    let refused = rig.docket(&["restore", "ann-one", "--at", only.trim()]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_eq!(local(&rig, "ann", "one", "a.txt").as_deref(), Some("kept"));
    let known = states(&rig, "ann-one")[1]["id"].as_str().unwrap().to_owned();
    assert!(refused.stderr.contains(&known), "{refused:?}");
    rig.ok(&["restore", "ann-one", "--at", &known]);
    rig.see("is synced again", "ann-one", |view| unsynced(view) == 0);
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"kept"[..]));
    bucket.remove("ann/one/manifest.json");
    write(&rig, "a.txt", "an edit while there is none");
    assert_eq!(rig.docket(&["sync", "ann-one"]).code, 1);
    rig.see("is held", "ann-one", |view| condition(view, "FilesSynced").1 == "ManifestUnavailable");
    rig.ok(&["restore", "ann-one", "--at", &newest(&rig)]);
    let edit = bucket.stored("ann/one", "a.txt");
    assert_eq!(edit.as_deref(), Some(&b"an edit while there is none"[..]));
}

/// A page that was written once through shared memory is written again without any trace in the
/// file's times, until the kernel has written it back.
#[test]
fn f43_the_final_sync_takes_what_moved_no_time() {
    let (mut rig, bucket, _) = on_request("f43", false);
    write(&rig, "mapped", &"-".repeat(4096));
    let script = "import mmap, sys\n\
                  f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0)\n\
                  for line in sys.stdin:\n    m[0:5] = line[:5].encode(); print('done', flush=True)\n";
    let mut writer = Command::new("python3")
        .args(["-c", script])
        .arg(rig.workspace("ann", "one").join("mapped"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = writer.stdin.take().unwrap();
    let mut from = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut store = |text: &str| {
        writeln!(to, "{text}").unwrap();
        assert_eq!(from.next().unwrap().unwrap(), "done");
    };
    store("first");
    rig.ok(&["sync", "ann-one"]);
    let begins = |bucket: &Bucket| {
        String::from_utf8(bucket.stored("ann/one", "mapped").unwrap()[..5].to_vec()).unwrap()
    };
    assert_eq!(begins(&bucket), "first");
    store("again");
    drop(to);
    assert!(writer.wait().unwrap().success());
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert_eq!(begins(&bucket), "again");
}

#[test]
fn f44_a_tenant_who_deletes_everything_gets_it_all_back() {
    let (mut rig, bucket, view) = on_request("f44", false);
    let top = rig.workspace("ann", "one");
    write(&rig, "drafts/plea.txt", "months of work");
    write(&rig, "exhibits/a/b/c.txt", "evidence");
    std::fs::create_dir(top.join("empty")).unwrap();
    set_mode(&top.join("empty"), 0o700);
    symlink("drafts", top.join("link")).unwrap();
    rig.ok(&["sync", "ann-one"]);
    let (before, good) = (picture(&top), newest(&rig));
    let (status, said) = http(&view, "POST", "/do?op=remove-all&path=.", "");
    assert_eq!(status, 200, "{said}");
    assert_eq!(picture(&top), Picture::new());
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(bucket.manifest("ann/one"), Vec::<Value>::new(), "a deletion is a deletion");
    let emptied = newest(&rig);
    rig.ok(&["restore", "ann-one", "--at", &good]);
    assert_eq!(picture(&top), before);
    assert_eq!(
        bucket.stored("ann/one", "drafts/plea.txt").as_deref(),
        Some(&b"months of work"[..])
    );
    // A restore is a change like any other: it can be undone, and to an empty state too, but for
    // the class's folders: a container counts on them.
    rig.ok(&["restore", "ann-one", "--at", &emptied]);
    let kept = picture(&top);
    assert!(top.join("drafts/.gitkeep").exists(), "{kept:?}");
    let files = kept.iter().filter(|(_, (kind, ..))| *kind != 'd');
    let mut names = files.filter_map(|(path, _)| Path::new(path).file_name());
    assert!(names.all(|name| name == ".gitkeep"), "{kept:?}");
    assert!(!kept.contains_key(OsStr::new("empty")), "{kept:?}");
    rig.ok(&["restore", "ann-one", "--at", &good]);
    assert_eq!(picture(&top), before);
    // A stopped one as well.
    rig.ok(&["stop", "ann-one"]);
    rig.see("is stopped", "ann-one", |view| view["status"]["phase"] == "Stopped");
    std::fs::remove_dir_all(top.join("exhibits")).unwrap();
    rig.ok(&["restore", "ann-one", "--at", &good]);
    assert_eq!(picture(&top), before);
}

#[test]
fn a_restore_takes_edits_along_and_with_a_path_touches_nothing_else() {
    let (rig, bucket, _) = on_request("restore", false);
    write(&rig, "a.txt", "one");
    write(&rig, "d/b.txt", "one");
    rig.ok(&["sync", "ann-one"]);
    let first = newest(&rig);
    next_second();
    write(&rig, "a.txt", "two");
    write(&rig, "d/b.txt", "two");
    write(&rig, "d/newer.txt", "two");
    write(&rig, "uncommitted.txt", "two");
    let read = |path: &str| local(&rig, "ann", "one", path);
    rig.ok(&["restore", "ann-one", "--at", &first, "--path", "d"]);
    assert_eq!(read("d/b.txt").as_deref(), Some("one"));
    assert_eq!(read("d/newer.txt").as_deref(), Some("two"), "nothing is removed");
    assert_eq!(read("a.txt").as_deref(), Some("two"), "and nothing else touched");
    next_second();
    rig.ok(&["restore", "ann-one", "--at", &first]);
    assert_eq!(read("a.txt").as_deref(), Some("one"));
    assert_eq!((read("d/newer.txt"), read("uncommitted.txt")), (None, None));
    // What was never synced before is in the history all the same.
    let all = states(&rig, "ann-one");
    let committed = all.iter().find(|state| {
        state["changes"].as_str().unwrap().contains("uncommitted.txt") && state["removed"] == 0
    });
    let id = committed.unwrap_or_else(|| panic!("a state with the edits: {all:#?}"))["id"]
        .as_str()
        .unwrap();
    rig.ok(&["restore", "ann-one", "--at", id, "--path", "uncommitted.txt"]);
    assert_eq!(read("uncommitted.txt").as_deref(), Some("two"));
    assert_eq!(bucket.stored("ann/one", "uncommitted.txt").as_deref(), Some(&b"two"[..]));
    for (words, code) in [
        (vec!["restore", "ann-one", "--at", "never"], 4),
        (vec!["restore", "ann-one", "--at", &first, "--path", "never"], 4),
        (vec!["restore", "ann-one", "--at", &first, "--path", "../up"], 2),
        (vec!["restore", "ann-one", "--at", "2"], 2),
        (vec!["restore", "nobody", "--at", &first], 4),
        (vec!["history", "nobody"], 4),
        (vec!["restore", "ann-one"], 2),
    ] {
        assert_eq!(rig.docket(&words).code, code, "{words:?}");
    }
}

#[test]
fn garbage_goes_and_every_state_that_stays_can_still_be_restored() {
    let (rig, bucket, _) = on_request("gc", false);
    for n in 0..4 {
        write(&rig, "a.txt", &format!("state {n}"));
        rig.ok(&["sync", "ann-one"]);
    }
    // What looks like nobody's but is somebody's.
    bucket.put("ann/one/files/foreign.pdf", b"from elsewhere");
    bucket.put("ann/one/uploads/x", b"from elsewhere");
    bucket.put("bob/two/files/bare@0123456789ab", b"a case without a manifest");
    let gc = |more: &[&str]| -> Value {
        let words = [&["gc", "-o", "json"], more].concat();
        serde_json::from_str(&rig.ok(&words)).unwrap()
    };
    assert_eq!(gc(&[])["objects"], json!([]), "all of it is young");
    let dry = gc(&["--older-than", "0s", "--dry-run"]);
    let keys: Vec<&str> =
        dry["objects"].as_array().unwrap().iter().map(|o| o["key"].as_str().unwrap()).collect();
    assert!(keys.iter().filter(|key| key.contains("a.txt@")).count() >= 2, "{keys:?}");
    assert!(keys.iter().all(|key| bucket.get(key).is_some()), "a dry run removes nothing");
    let wet = gc(&["--older-than", "0s"]);
    assert_eq!(wet["objects"], dry["objects"]);
    assert!(keys.iter().all(|key| bucket.get(key).is_none()));
    for kept in
        ["ann/one/files/foreign.pdf", "ann/one/uploads/x", "bob/two/files/bare@0123456789ab"]
    {
        assert!(bucket.get(kept).is_some(), "{kept}");
    }
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"state 3"[..]));
    let left = states(&rig, "ann-one");
    assert_eq!(left.len(), 2, "the current one and the newest before it: {left:#?}");
    for (state, text) in left.iter().rev().zip(["state 2", "state 3"]) {
        rig.ok(&["restore", "ann-one", "--at", state["id"].as_str().unwrap()]);
        assert_eq!(local(&rig, "ann", "one", "a.txt").as_deref(), Some(text));
    }
    assert_eq!(rig.docket(&["gc", "--older-than", "soon"]).code, 2);
}

#[test]
fn the_trash_says_whose_it_is_and_when_it_goes() {
    let mut rig = Rig::with("trash", "trash: {keep: 3d}");
    rig.start();
    rig.write(
        "a.yaml",
        &session("ann-one", "ann", "one", "  workspace: {sync: {exclude: [\"*.tmp\"]}}"),
    );
    rig.ready("ann-one");
    write(&rig, "x.tmp", "excluded, so it is kept for a while");
    rig.remove("a.yaml");
    rig.gone("ann-one");
    rig.kill();
    rig.start();
    let all: Value = serde_json::from_str(&rig.ok(&["trash", "-o", "json"])).unwrap();
    let [one] = &all.as_array().unwrap()[..] else { panic!("{all:#}") };
    assert_eq!(one["session"], "ann-one");
    let time = |key: &str| {
        chrono::DateTime::parse_from_rfc3339(one[key].as_str().unwrap()).unwrap().timestamp()
    };
    assert_eq!(time("removedAt") - time("movedAt"), 3 * 24 * 3600);
    assert!(rig.path("workspaces/.docket/trash").join(one["name"].as_str().unwrap()).exists());
    assert!(rig.ok(&["trash"]).contains("ann-one"));
}

/// A server that takes conditions for decoration: what one proxy strips, another server never
/// knew.
#[test]
fn a_store_without_conditional_writes_is_told_of_and_synced_with_all_the_same() {
    static STRIPPED: AtomicUsize = AtomicUsize::new(0);
    let server = servers::all().iter().find(|server| server.name == "moto").unwrap();
    let (mut rig, bucket) = Bucket::with_weather(server, "unconditional", |asked| {
        if asked.method == "PUT"
            && asked.header("if-match").or(asked.header("if-none-match")).is_some()
        {
            STRIPPED.fetch_add(1, Ordering::Relaxed);
            return Fault::WithoutConditions;
        }
        Fault::Pass
    });
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    write(&rig, "a.txt", "one");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(STRIPPED.load(Ordering::Relaxed), 2, "only while it was tried out");
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"one"[..]));
    assert!(rig.ok(&["events"]).contains("StoreUnconditional"));
    let found: Value = serde_json::from_str(&rig.docket(&["doctor", "-o", "json"]).stdout).unwrap();
    let store = found.as_array().unwrap().iter().find(|one| one["check"] == "store").unwrap();
    assert_eq!(store["level"], "warn", "{store}");
    // Read, compared and written: what another wrote is not overwritten.
    write(&rig, "a.txt", "ours");
    bucket.put("ann/one/uploads/a", b"theirs");
    let rows = json!([{"logical_path": "a.txt", "storage_key": "uploads/a"}]);
    bucket.put("ann/one/manifest.json", rows.to_string().as_bytes());
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(local(&rig, "ann", "one", "a.txt").as_deref(), Some("theirs"));
    let rows = bucket.manifest("ann/one");
    let ours = rows.iter().find_map(|row| {
        row["logical_path"].as_str().filter(|path| path.contains("(conflict ann "))
    });
    assert_eq!(bucket.stored("ann/one", ours.unwrap()).as_deref(), Some(&b"ours"[..]));
}
