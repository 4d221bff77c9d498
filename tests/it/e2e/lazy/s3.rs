//! Large files that come when they are opened, from a real S3 server behind a proxy.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{blocks, check, checked, content, gate_pid, state};
use crate::e2e::rig::{Rig, exchange, http, session};
use crate::e2e::store::Bucket;
use crate::s3::sum;
use crate::s3::wire::{Asked, Fault, error};

/// A session `ann-one` whose two files are lazy, and the store's way to withhold objects.
fn begun(name: &str) -> (Rig, Bucket, [Vec<u8>; 2]) {
    let (mut rig, bucket) = Bucket::behind_a_proxy(name);
    let files = [content(1, 3 << 20), content(2, 70_000)];
    let rows: Vec<Value> = ["exhibits/a.bin", "b.bin"]
        .into_iter()
        .zip(&files)
        .map(|(path, bytes)| {
            bucket.put(&format!("ann/one/uploads/{path}"), bytes);
            json!({"logical_path": path, "storage_key": format!("uploads/{path}"),
                   "size": bytes.len(), "sha256": sum(bytes).hex()})
        })
        .collect();
    bucket.put("ann/one/manifest.json", json!(rows).to_string().as_bytes());
    rig.start();
    let spec = "  workspace: {sync: {interval: 1s}, files: {eagerBelow: 1Ki}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", spec));
    rig.ready("ann-one");
    (rig, bucket, files)
}

/// Whether the request reads the content of this file.
fn reads(asked: &Asked, path: &str) -> bool {
    asked.method == "GET" && asked.target.ends_with(&format!("/uploads/{path}"))
}

/// From now on the store is too busy for this file's content; the switch ends that.
fn busy_for(bucket: &Bucket, path: &'static str) -> Arc<AtomicBool> {
    let busy = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&busy);
    bucket.weather(move |asked| {
        let refused = switch.load(Ordering::Relaxed) && reads(asked, path);
        if refused { Fault::Instead(error(503, "SlowDown")) } else { Fault::Pass }
    });
    busy
}

#[test]
fn seed_from_s3_a_large_file_comes_when_it_is_opened_and_its_edit_goes_back() {
    let (rig, bucket, files) = begun("lazy-s3");
    let view = rig.get("ann-one").unwrap();
    let at = rig.workspace("ann", "one").join("exhibits/a.bin");
    assert_eq!(std::fs::metadata(&at).unwrap().len(), 3 << 20);
    assert!(blocks(&at) <= 8, "no more than what it stands for may take");
    let age = std::fs::metadata(&at).unwrap().modified().unwrap().elapsed().unwrap();
    assert!(age.as_secs() < 3600, "as old as its object, not of 1970: {age:?}");
    assert_eq!(state(&rig, "exhibits/a.bin").as_deref(), Some("lazy"));
    assert!(!bucket.asked().iter().any(|asked| asked.target.contains("/uploads/")));

    assert_eq!(check(&view, "exhibits/a.bin"), (200, checked(&files[0])));
    assert_eq!(state(&rig, "exhibits/a.bin").as_deref(), Some("local"));
    assert_eq!(state(&rig, "b.bin").as_deref(), Some("lazy"));
    assert_eq!(check(&view, "exhibits/a.bin"), (200, checked(&files[0])));
    let read = bucket.asked().iter().filter(|asked| reads(asked, "exhibits/a.bin")).count();
    assert_eq!(read, 1, "it is read here from then on");

    http(&view, "POST", "/write?path=exhibits/a.bin&append=1", "and more");
    rig.ok(&["sync", "ann-one"]);
    let edited = [files[0].clone(), b"and more".to_vec()].concat();
    assert!(bucket.stored("ann/one", "exhibits/a.bin").unwrap() == edited);
    assert!(bucket.get("ann/one/uploads/exhibits/a.bin").unwrap() == files[0]);
    assert!(bucket.stored("ann/one", "b.bin").unwrap() == files[1]);
    assert_eq!(state(&rig, "b.bin").as_deref(), Some("lazy"), "and nothing else was touched");
}

#[test]
fn while_files_are_fetched_from_s3_on_request_it_is_shown_how_far_they_are() {
    let (mut rig, bucket, files) = begun("lazy-s3-ask");
    let busy = busy_for(&bucket, "exhibits/a.bin");
    let asker = Command::new(env!("CARGO_BIN_EXE_docket"))
        .args(["hydrate", "ann-one", "--state"])
        .arg(rig.path("state"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let view = rig.see("shows how far it is", "ann-one", |view| {
        view["status"]["files"]["progress"]["files"] == 1
    });
    let progress = json!({"files": 1, "filesTotal": 2, "bytes": 70_000,
                          "bytesTotal": (3 << 20) + 70_000});
    assert_eq!(view["status"]["files"]["progress"], progress);
    busy.store(false, Ordering::Relaxed);
    let said = asker.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stderr), "", "no bar where nobody looks");
    let told = String::from_utf8_lossy(&said.stdout);
    assert!(told.contains("2 of 2 files are here"), "{told}");
    let there = std::fs::read(rig.workspace("ann", "one").join("exhibits/a.bin")).unwrap();
    assert!(there == files[0]);
}

#[test]
fn a_reader_that_waits_for_s3_outlives_the_operator() {
    let (mut rig, bucket, files) = begun("lazy-s3-kill");
    let view = rig.get("ann-one").unwrap();
    let address = view["status"]["address"].as_str().unwrap().to_owned();
    let busy = busy_for(&bucket, "exhibits/a.bin");
    let reader = std::thread::spawn(move || {
        exchange(&address, "GET", "/check?path=exhibits/a.bin", "").unwrap()
    });
    let asked = || bucket.asked().iter().filter(|asked| reads(asked, "exhibits/a.bin")).count();
    rig.until("the store is asked for it again", |_| asked() > 1);
    let gate = gate_pid(&rig);
    rig.kill();
    busy.store(false, Ordering::Relaxed);
    assert!(!reader.is_finished());
    rig.start();
    assert_eq!(reader.join().unwrap(), (200, checked(&files[0])));
    assert_eq!(gate_pid(&rig), gate);
    assert_eq!(check(&view, "b.bin"), (200, checked(&files[1])));
}
