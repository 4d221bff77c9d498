//! FAULTS.md 19 to 23, 28 and 29 as a user meets them: the built binary, a real engine, a real S3
//! server, and between them whatever can go wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::rig::{Rig, condition, http, run, session};
use super::store::{Bucket, local};
use crate::s3::servers;
use crate::s3::sum;
use crate::s3::wire::{Asked, Fault, error};

fn is(view: &Value, kind: &str, status: &str, reason: &str) -> bool {
    let (now, why, _) = condition(view, kind);
    now == status && why == reason
}

/// Whether the request reads an object that some other service wrote.
fn reads_upload(asked: &Asked) -> bool {
    asked.method == "GET" && asked.target.contains("/uploads/")
}

/// Rows of a manifest whose objects are `uploads/{path}`, each with its text.
fn in_store(bucket: &Bucket, case: &str, files: &[(&str, &str)]) {
    let mut rows = Vec::new();
    for (path, text) in files {
        bucket.put(&format!("{case}/uploads/{path}"), text.as_bytes());
        rows.push(json!({"logical_path": path, "storage_key": format!("uploads/{path}"),
                         "size": text.len(), "sha256": sum(text.as_bytes()).hex()}));
    }
    bucket.put(&format!("{case}/manifest.json"), json!(rows).to_string().as_bytes());
}

fn running(rig: &Rig, session: &str) -> bool {
    let name = format!("-{session}-");
    rig.containers().iter().any(|(_, named, state)| named.contains(&name) && state == "running")
}

#[test]
fn f19_while_the_store_is_gone_no_session_ends_and_none_begins_and_nothing_is_lost() {
    let (mut rig, mut bucket) = Bucket::behind_a_proxy("f19");
    in_store(&bucket, "bob/two", &[("there.txt", "bob's")]);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    rig.ok(&["sync", "ann-one"]);
    bucket.close();
    http(&view, "POST", "/write?path=last.txt", "not stored yet");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.remove("a.yaml");
    rig.see("waits for the store", "bob-two", |v| is(v, "FilesReady", "False", "StoreUnavailable"));
    rig.see("cannot end", "ann-one", |v| {
        v["status"]["phase"] == "Terminating" && is(v, "FilesSynced", "False", "StoreUnavailable")
    });
    rig.until("its container is stopped", |rig| !running(rig, "ann-one"));
    assert!(!running(&rig, "bob-two"), "nobody starts without their files");
    assert_eq!(local(&rig, "ann", "one", "last.txt").as_deref(), Some("not stored yet"));
    bucket.open_again(&rig);
    rig.gone("ann-one");
    assert_eq!(bucket.stored("ann/one", "last.txt").as_deref(), Some(&b"not stored yet"[..]));
    let bob = rig.ready("bob-two");
    assert_eq!(http(&bob, "GET", "/read?path=there.txt", "").1, "bob's");
}

#[test]
fn f20_a_store_that_refuses_everything_twice_is_waited_out_and_not_stormed() {
    let (mut rig, bucket) = Bucket::behind_a_proxy("f20");
    let names: Vec<String> = (0..30).map(|n| format!("f{n}.txt")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "text")).collect();
    in_store(&bucket, "ann/one", &files);
    let seen = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
    bucket.weather(move |asked| {
        let mut seen = seen.lock().unwrap();
        let times = seen.entry(format!("{} {}", asked.method, asked.target)).or_default();
        *times += 1;
        match *times {
            1 => Fault::Instead(error(503, "SlowDown")),
            2 => Fault::Instead(error(500, "InternalError")),
            _ => Fault::Pass,
        }
    });
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    assert_eq!(http(&view, "GET", "/read?path=f29.txt", "").1, "text");
    http(&view, "POST", "/write?path=new.txt", "new");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(bucket.stored("ann/one", "new.txt").as_deref(), Some(&b"new"[..]));
    let reads = bucket.asked().iter().filter(|asked| reads_upload(asked)).count();
    assert_eq!(reads, 90, "three attempts each, and no hydration was begun anew");
}

#[test]
fn f21_what_the_store_refuses_for_good_is_said_and_not_tried_hot() {
    let (mut rig, bucket) = Bucket::behind_a_proxy("f21");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let ready = rig.ready("ann-one");
    rig.ok(&["sync", "ann-one"]);
    bucket.weather(|_| Fault::Instead(error(403, "ExpiredToken")));
    http(&ready, "POST", "/write?path=last.txt", "kept");
    let view = rig.see("is refused", "ann-one", |v| is(v, "FilesSynced", "False", "StoreDenied"));
    let told = condition(&view, "FilesSynced").2;
    assert!(told.contains("403 ExpiredToken"), "{told}");
    assert_eq!(condition(&view, "Ready").0, "True", "it works on");
    // Each try asks once or twice, and tries come further and further apart.
    let (before, tries) = (bucket.asked().len(), view["status"]["retry"]["failures"].clone());
    let view = rig.see("is tried again", "ann-one", |v| v["status"]["retry"]["failures"] != tries);
    let (asked, tries) = (
        bucket.asked().len() - before,
        view["status"]["retry"]["failures"].as_u64().unwrap() - tries.as_u64().unwrap(),
    );
    assert!(asked as u64 <= 4 * tries, "{asked} requests in {tries} tries");
    rig.remove("a.yaml");
    rig.see("does not end", "ann-one", |v| {
        v["status"]["phase"] == "Terminating" && is(v, "FilesSynced", "False", "StoreDenied")
    });
    assert_eq!(local(&rig, "ann", "one", "last.txt").as_deref(), Some("kept"));
    bucket.weather(|_| Fault::Pass);
    rig.gone("ann-one");
    assert_eq!(bucket.stored("ann/one", "last.txt").as_deref(), Some(&b"kept"[..]));
}

#[test]
fn f21_a_missing_bucket_and_a_wrong_key_are_said_in_status() {
    let server = servers::strict();
    let (mut rig, _bucket) = Bucket::of(server, "f21-bucket");
    for (name, value, word) in [
        ("DOCKET_STORE", "s3://no-such-bucket/x", "create the bucket"),
        ("AWS_SECRET_ACCESS_KEY", "not-the-secret", "check the credentials"),
    ] {
        rig.spawn(&[(name, value)]);
        rig.answers();
        rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
        let view = rig.see("is told", "ann-one", |v| {
            is(v, "FilesReady", "False", "StoreDenied")
                && condition(v, "FilesReady").2.contains(word)
        });
        assert_eq!(view["status"]["container"], Value::Null);
        rig.kill();
    }
    rig.start();
    rig.ready("ann-one");
}

#[test]
fn f22_bodies_that_are_cut_or_changed_never_land() {
    let (mut rig, bucket) = Bucket::behind_a_proxy("f22");
    in_store(&bucket, "ann/one", &[("cut.txt", "a body that is cut")]);
    in_store(&bucket, "bob/two", &[("flipped.txt", "a body that is changed")]);
    in_store(&bucket, "eve/three", &[("short.txt", "a body of another length")]);
    bucket.put("eve/three/uploads/short.txt", b"a body");
    bucket.weather(|asked| match &asked.target {
        _ if !reads_upload(asked) => Fault::Pass,
        target if target.contains("cut.txt") => Fault::CutBody(0),
        target if target.contains("flipped.txt") => Fault::FlipAnswer,
        _ => Fault::Pass,
    });
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.write("e.yaml", &session("eve-three", "eve", "three", ""));
    for name in ["bob-two", "eve-three"] {
        rig.see("is told", name, |v| is(v, "FilesReady", "False", "ContentCorrupt"));
    }
    // What broke off may come yet.
    rig.see("is told", "ann-one", |v| is(v, "FilesReady", "False", "StoreUnavailable"));
    for (user, case, path) in
        [("ann", "one", "cut.txt"), ("bob", "two", "flipped.txt"), ("eve", "three", "short.txt")]
    {
        assert_eq!(local(&rig, user, case, path), None);
        let staging = std::fs::read_dir(rig.path("workspaces/.docket/staging")).unwrap();
        assert_eq!(staging.count(), 0, "nothing half done is left");
    }
    bucket.weather(|_| Fault::Pass);
    bucket.put("eve/three/uploads/short.txt", b"a body of another length");
    let ann = rig.ready("ann-one");
    assert_eq!(http(&ann, "GET", "/read?path=cut.txt", "").1, "a body that is cut");
    rig.ready("bob-two");
    rig.ready("eve-three");
    assert_eq!(local(&rig, "bob", "two", "flipped.txt").as_deref(), Some("a body that is changed"));
}

#[test]
fn f23_a_body_that_trickles_holds_up_nobody_else_and_arrives() {
    let (mut rig, bucket) = Bucket::behind_a_proxy("f23");
    let slow = "byte by byte ".repeat(8);
    let other = "after it in size ".repeat(20);
    in_store(&bucket, "ann/one", &[("slow.txt", &slow), ("other.txt", &other)]);
    in_store(&bucket, "bob/two", &[("quick.txt", "quick")]);
    bucket.weather(|asked| match &asked.target {
        target if reads_upload(asked) && target.contains("slow.txt") => {
            Fault::Trickle(Duration::from_millis(150))
        }
        _ => Fault::Pass,
    });
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.until("the larger file is there", |rig| {
        local(rig, "ann", "one", "other.txt").is_some_and(|text| text == other)
    });
    let view = rig.see("shows how far it is", "ann-one", |v| {
        v["status"]["files"]["progress"]["files"] == 1 && condition(v, "FilesReady").0 == "False"
    });
    assert_eq!(view["status"]["files"]["total"], 2);
    let told = condition(&view, "FilesReady").2;
    assert!(told.starts_with("1 of 2 files are here"), "{told}");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let bob = rig.ready("bob-two");
    assert_eq!(http(&bob, "GET", "/read?path=quick.txt", "").1, "quick");
    let view = rig.ready("ann-one");
    assert_eq!(view["status"]["files"]["progress"], Value::Null);
    assert_eq!(local(&rig, "ann", "one", "slow.txt").as_deref(), Some(slow.as_str()));
    let reads = bucket.asked().into_iter().filter(|a| a.target.contains("slow.txt"));
    assert_eq!(reads.filter(reads_upload).count(), 1, "slow is not broken");
}

/// A file system of its own under one of a rig's directories.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(rig: &Rig, at: &str, options: &str) -> Mounted {
        let at = rig.path(at);
        std::fs::create_dir(&at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", options, "docket-test", at.to_str().unwrap()]);
        Mounted(at)
    }

    fn ext4(rig: &Rig, at: &str) -> Mounted {
        let (at, image) = (rig.path(at), rig.path("image"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        let options = "loop,errors=remount-ro";
        run("mount", &["-o", options, image.to_str().unwrap(), at.to_str().unwrap()]);
        Mounted(at)
    }

    /// As if the kernel had met an error on the disk: read-only from now on, whoever writes.
    fn turns_read_only(&self) {
        let device = run("findmnt", &["-no", "SOURCE", self.0.to_str().unwrap()]);
        let name = device.trim().trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test").unwrap();
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone_already = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A rig whose workspaces are on a small file system, and what holds that there.
fn small(name: &str, mount: impl FnOnce(&Rig) -> Mounted) -> (Mounted, Rig, Bucket) {
    let (mut rig, bucket) = Bucket::of(servers::strict(), name);
    rig.env.push(("DOCKET_MIN_FREE".to_owned(), "1Ki".to_owned()));
    (mount(&rig), rig, bucket)
}

#[test]
fn f28_without_inodes_or_space_files_do_not_come_and_edits_still_go() {
    let (disk, mut rig, bucket) =
        small("f28", |rig| Mounted::tmpfs(rig, "workspaces", "size=8m,nr_inodes=140,mode=700"));
    let names: Vec<String> = (0..200).map(|n| format!("f{n}.txt")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "text")).collect();
    in_store(&bucket, "ann/one", &[("a.txt", "first")]);
    in_store(&bucket, "bob/many", &files);
    in_store(&bucket, "eve/much", &[("large.bin", &"x".repeat(900_000).repeat(12))]);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    let eager = "  workspace: {files: {large: Eager}}";
    rig.write("e.yaml", &session("eve-much", "eve", "much", eager));
    rig.see("is told", "eve-much", |v| is(v, "FilesReady", "False", "LowSpace"));
    rig.write("b.yaml", &session("bob-many", "bob", "many", ""));
    rig.see("is told", "bob-many", |v| is(v, "FilesReady", "False", "LowSpace"));
    // What is there already is stored all the same, and nothing of it is lost.
    http(&view, "POST", "/write?path=a.txt", "edited");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"edited"[..]));
    assert_eq!(bucket.manifest("bob/many").len(), 200, "what did not come was not deleted");
    disk.remount("size=64m,nr_inodes=10000");
    rig.ready("bob-many");
    rig.ready("eve-much");
    assert_eq!(local(&rig, "bob", "many", "f199.txt").as_deref(), Some("text"));
}

#[test]
fn f29_a_read_only_remount_deletes_nothing_and_edits_made_before_it_still_go() {
    let (disk, mut rig, bucket) = small("f29", |rig| Mounted::ext4(rig, "workspaces"));
    in_store(&bucket, "ann/one", &[("a.txt", "first"), ("b.txt", "second")]);
    rig.start();
    let rare = "  workspace: {sync: {interval: 1h}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", rare));
    let view = rig.ready("ann-one");
    http(&view, "POST", "/write?path=a.txt", "edited");
    disk.turns_read_only();
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"edited"[..]));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let told =
        rig.see("is told", "bob-two", |v| is(v, "WorkspaceReady", "False", "WorkspaceFailed"));
    assert!(condition(&told, "WorkspaceReady").2.contains("ead-only"), "{told:#}");
    rig.remove("a.yaml");
    rig.see("cannot be removed", "ann-one", |v| v["status"]["retry"]["failures"] != 0);
    assert_eq!(local(&rig, "ann", "one", "b.txt").as_deref(), Some("second"));
    assert_eq!(bucket.stored("ann/one", "b.txt").as_deref(), Some(&b"second"[..]));
}

/// Nothing is begun that could not be remembered, what runs is served, and nobody has to start the
/// operator again.
#[test]
fn f27_with_a_full_disk_under_its_state_it_serves_and_goes_on_by_itself_when_there_is_room() {
    let (disk, mut rig, bucket) =
        small("f27", |rig| Mounted::tmpfs(rig, "state", "size=8m,mode=700"));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    let ballast = disk.0.join("ballast");
    let full = std::fs::write(&ballast, vec![1; 8 << 20]);
    assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    http(&view, "POST", "/write?path=a.txt", "edited");
    let told = rig.see("is told", "bob-two", |v| {
        v["status"]["conditions"].to_string().contains("LedgerFailed")
    });
    assert!(told["status"]["container"]["id"].is_null(), "{told:#}");
    assert_eq!(http(&view, "GET", "/read?path=a.txt", "").1, "edited");
    rig.until("nothing was made", |rig| rig.containers().len() == 1);
    rig.remove("a.yaml");
    std::fs::remove_file(&ballast).unwrap();
    rig.ready("bob-two");
    rig.gone("ann-one");
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"edited"[..]));
}

/// The same for good: what runs runs on, and with the state lost it is found again.
#[test]
fn f29_with_its_state_read_only_it_serves_and_its_successor_finds_everything() {
    let (disk, mut rig, bucket) = small("f29-state", |rig| Mounted::ext4(rig, "state"));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    disk.turns_read_only();
    http(&view, "POST", "/write?path=a.txt", "edited");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.see("is told", "bob-two", |v| {
        v["status"]["conditions"].to_string().contains("LedgerFailed")
    });
    assert_eq!(http(&view, "GET", "/read?path=a.txt", "").1, "edited");
    rig.kill();
    drop(disk);
    rig.start();
    let again = rig.ready("ann-one");
    assert_eq!(again["status"]["container"]["id"], view["status"]["container"]["id"]);
    rig.ready("bob-two");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"edited"[..]));
}

#[test]
fn f29_a_disk_that_answers_nothing_but_errors_deletes_nothing_in_the_store() {
    let (disk, mut rig, bucket) = small("f29-eio", |rig| Mounted::ext4(rig, "workspaces"));
    in_store(&bucket, "ann/one", &[("a.txt", "first"), ("b.txt", "second")]);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    rig.ok(&["sync", "ann-one"]);
    // EXT4_IOC_SHUTDOWN: from now on every call on it fails with EIO.
    let script = "import fcntl,os,struct,sys; \
        fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587d,struct.pack('I',2))";
    run("python3", &["-c", script, disk.0.to_str().unwrap()]);
    rig.remove("a.yaml");
    rig.see("does not end", "ann-one", |v| v["status"]["phase"] == "Terminating");
    rig.until("its container is stopped", |rig| !running(rig, "ann-one"));
    rig.see("cannot be synced", "ann-one", |v| condition(v, "FilesSynced").0 == "False");
    assert_eq!(bucket.stored("ann/one", "a.txt").as_deref(), Some(&b"first"[..]));
    assert_eq!(bucket.stored("ann/one", "b.txt").as_deref(), Some(&b"second"[..]));
}
