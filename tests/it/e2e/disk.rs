//! Small disks and quotas: nothing more comes or starts, everything goes on being stored, and the
//! container that fills the disk is paused until there is space again.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::rig::{Rig, class, condition, http, run, session, stored};

const MIB: u64 = 1 << 20;

/// A file system of its own for the workspaces; gone with the test, before the rig.
pub struct Small(PathBuf);

impl Small {
    pub fn mount(rig: &Rig, size: &str) -> Small {
        let at = rig.path("workspaces");
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={size},mode=700");
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", at.to_str().unwrap()]);
        Small(at)
    }

    /// Leaves so many bytes free.
    fn leave(&self, bytes: u64) {
        let at = self.0.join(".docket/ballast");
        let _there_is_none_yet = std::fs::remove_file(&at);
        let seen = rustix::fs::statvfs(&self.0).unwrap();
        let free = seen.f_bavail * seen.f_frsize;
        let size = free.checked_sub(bytes).expect("so much is free");
        let file = std::fs::File::create(&at).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join(".docket/ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _it_may_be_gone = std::process::Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A class whose large files wait for `docket hydrate`, and such a file of ann's in the store.
fn with_a_lazy_file(rig: &Rig, quota: &str, size: u64) {
    let text = class("legal", "").replace(
        "sync: {interval: 1s}",
        &format!("sync: {{interval: 1s}}, quota: {quota}, files: {{eagerBelow: 1Ki, large: Stub}}"),
    );
    rig.write("legal.yaml", &text);
    put(&rig.path("objects/ann/one/files/large.bin"), size);
}

fn put(at: &Path, size: u64) {
    std::fs::create_dir_all(at.parent().unwrap()).unwrap();
    std::fs::write(at, vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
}

fn reason(view: &Value, kind: &str) -> String {
    condition(view, kind).1
}

fn is_ready(view: &Value) -> bool {
    condition(view, "Ready").0 == "True"
}

/// `docket hydrate` is refused, and says by which bound.
fn refused(rig: &Rig, bound: &str) {
    let said = rig.docket(&["hydrate", "ann-one"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains(bound), "{said:?}");
    assert!(!rig.workspace("ann", "one").join("large.bin").exists());
}

#[test]
fn t12_f28_below_min_free_nothing_comes_or_starts_and_everything_goes_out() {
    let mut rig = Rig::with("floor", "");
    let disk = Small::mount(&rig, "96m");
    rig.set("minFree", "32Mi");
    with_a_lazy_file(&rig, "10Gi", 2 * MIB);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    assert_eq!(before["status"]["files"]["lazy"], 1);

    disk.leave(30 * MIB);
    rig.see("says so", "ann-one", |view| reason(view, "FilesReady") == "LowSpace");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let held = rig.see("waits", "bob-two", |view| {
        reason(view, "FilesReady") == "LowSpace" && reason(view, "Ready") == "LowSpace"
    });
    assert!(condition(&held, "FilesReady").2.contains("below minFree"), "{held:#}");
    refused(&rig, "minFree");
    // What runs goes on, is started again when it ends, and its files go out.
    run("docker", &["kill", before["status"]["container"]["id"].as_str().unwrap()]);
    let after = rig.see("was restarted", "ann-one", |view| {
        view["status"]["container"]["restarts"] == 1 && is_ready(view)
    });
    http(&after, "POST", "/write?path=mine.txt", "mine");
    rig.until("the edit is stored", |rig| {
        stored(rig, "ann", "one", "mine.txt").as_deref() == Some("mine")
    });
    assert_eq!(rig.containers().len(), 1, "nothing new was started");

    // Hardly anything is left: nobody may go on writing, and edits still go out.
    disk.leave(2 * MIB);
    rig.see("is paused", "ann-one", |view| reason(view, "ContainerReady") == "DiskPressure");
    assert_eq!(rig.containers()[0].2, "paused");
    std::fs::write(rig.workspace("ann", "one").join("last.txt"), "last").unwrap();
    rig.until("the last edit is stored", |rig| {
        stored(rig, "ann", "one", "last.txt").as_deref() == Some("last")
    });

    disk.free();
    rig.see("goes on", "ann-one", is_ready);
    rig.ready("bob-two");
    rig.ok(&["hydrate", "ann-one"]);
    assert!(rig.workspace("ann", "one").join("large.bin").exists());
    let events = rig.ok(&["events", "ann-one"]);
    assert!(events.contains("DiskPressure") && events.contains("Unpaused"), "{events}");
}

#[test]
fn t12_over_its_quota_nothing_comes_and_at_twice_of_it_the_container_is_paused() {
    let mut rig = Rig::new("quota");
    with_a_lazy_file(&rig, "2Mi", MIB);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.ready("ann-one");
    rig.ready("bob-two");
    let inside = rig.workspace("ann", "one");

    // With what is there it would go over the quota; so it stays where it is.
    put(&inside.join("mine.bin"), MIB + MIB / 2);
    rig.ok(&["sync", "ann-one"]);
    refused(&rig, "workspace.quota");
    put(&inside.join("more.bin"), MIB);
    let over = rig
        .see("is over its quota", "ann-one", |view| reason(view, "FilesReady") == "QuotaExceeded");
    assert!(is_ready(&over), "a quota is soft: {over:#}");
    let row = |rig: &Rig, path: &str| stored(rig, "ann", "one", path).map(|text| text.len() as u64);
    rig.until("what is over it is stored", |rig| row(rig, "more.bin") == Some(MIB));

    put(&inside.join("too-much.bin"), 2 * MIB);
    let paused =
        rig.see("is paused", "ann-one", |view| reason(view, "ContainerReady") == "DiskPressure");
    assert!(condition(&paused, "ContainerReady").2.contains("twice its quota"), "{paused:#}");
    assert_eq!(reason(&paused, "Ready"), "DiskPressure");
    rig.until("even that is stored", |rig| row(rig, "too-much.bin") == Some(2 * MIB));
    assert!(is_ready(&rig.get("bob-two").unwrap()), "nobody else is paused");

    for each in ["mine.bin", "more.bin", "too-much.bin"] {
        std::fs::remove_file(inside.join(each)).unwrap();
    }
    rig.see("goes on", "ann-one", is_ready);
    rig.ok(&["hydrate", "ann-one"]);
    assert_eq!(std::fs::metadata(inside.join("large.bin")).unwrap().len(), MIB);
}

/// Eager files beyond a quota keep the start waiting, and the wait ends with the quota's change.
#[test]
fn a_start_that_its_quota_holds_up_says_so_and_goes_on_with_a_larger_one() {
    let mut rig = Rig::new("small-quota");
    let eager = |quota: &str| {
        let wanted = format!("sync: {{interval: 1s}}, quota: {quota}, files: {{large: Eager}}");
        class("legal", "").replace("sync: {interval: 1s}", &wanted)
    };
    rig.write("legal.yaml", &eager("1Mi"));
    put(&rig.path("objects/ann/one/files/large.bin"), 2 * MIB);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let held = rig.see("waits", "ann-one", |view| reason(view, "FilesReady") == "QuotaExceeded");
    assert!(
        condition(&held, "FilesReady").2.contains("`large.bin` stays in the store"),
        "{held:#}"
    );
    rig.write("legal.yaml", &eager("10Mi"));
    rig.ready("ann-one");
    let here = rig.workspace("ann", "one").join("large.bin");
    assert_eq!(std::fs::metadata(here).unwrap().len(), 2 * MIB);
}

/// Opening a large file fetches it, and a quota bounds that too: the reader is told by its errno.
#[test]
fn t12_an_open_that_would_go_over_the_quota_or_below_the_floor_is_refused() {
    let mut rig = Rig::new("quota-open");
    let disk = Small::mount(&rig, "96m");
    rig.set("minFree", "32Mi");
    let on_access = |quota: &str| {
        let files = "files: {eagerBelow: 1Ki, large: OnAccess}";
        let wanted = format!("sync: {{interval: 1s}}, quota: {quota}, {files}");
        class("legal", "").replace("sync: {interval: 1s}", &wanted)
    };
    rig.write("legal.yaml", &on_access("3Mi"));
    for name in ["a.bin", "b.bin"] {
        put(&rig.path(&format!("objects/ann/one/files/{name}")), 2 * MIB);
    }
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    if rig.workspace("ann", "one").join("a.bin.stub").exists() {
        println!("large files do not come when they are opened on this machine");
        return;
    }
    let read = |view: &Value, name: &str| http(view, "GET", &format!("/read?path={name}"), "");
    disk.leave(33 * MIB);
    let (status, said) = read(&view, "a.bin");
    assert!(status != 200 && said.contains("No space left"), "{status} {said:.200}");
    disk.free();
    let (status, said) = read(&view, "a.bin");
    assert_eq!((status, said.len() as u64), (200, 2 * MIB));
    let (status, said) = read(&view, "b.bin");
    assert!(status != 200 && said.to_lowercase().contains("quota"), "{status} {said:.200}");
    rig.write("legal.yaml", &on_access("10Mi"));
    rig.ok(&["restart", "ann-one"]);
    let view = rig.see("has a new container", "ann-one", |view| {
        view["status"]["container"]["attempt"] == 2 && is_ready(view)
    });
    assert_eq!(read(&view, "b.bin").1.len() as u64, 2 * MIB);
}
