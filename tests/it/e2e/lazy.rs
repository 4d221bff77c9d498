//! Large files that come when they are opened, by readers inside real containers: what is opened
//! is all there, whoever of operator and gate is killed meanwhile; and where it cannot be, it is
//! said why.

mod s3;
mod service;
mod storm;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::rig::{Rig, condition, exchange, exists, http, run, session};

/// Content without a block of zeros, another for each seed.
pub(super) fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// What the sample image says of a file of this content.
pub(super) fn checked(content: &[u8]) -> String {
    let sum = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{} {sum:016x} 0\n", content.len())
}

/// Puts a case of these files into the store.
pub(super) fn in_store(rig: &Rig, user: &str, case: &str, files: &[(String, Vec<u8>)]) {
    let prefix = rig.path("objects").join(user).join(case);
    std::fs::create_dir_all(prefix.join("k")).unwrap();
    let mut rows = Vec::new();
    for (number, (path, bytes)) in files.iter().enumerate() {
        std::fs::write(prefix.join(format!("k/{number}")), bytes).unwrap();
        rows.push(json!({
            "logical_path": path, "size": bytes.len(), "storage_key": format!("k/{number}"),
            "mtime": "2024-05-06T07:08:09Z",
        }));
    }
    std::fs::write(prefix.join("manifest.json"), json!(rows).to_string()).unwrap();
}

/// A rig with one session whose files of a KiB and more are lazy.
pub(super) fn lazy(name: &str, files: &[(String, Vec<u8>)], more: &str) -> Rig {
    let rig = Rig::new(name);
    in_store(&rig, "ann", "one", files);
    let spec = format!(
        "  workspace: {{sync: {{interval: 1s}}, files: {{eagerBelow: 1Ki, large: OnAccess{more}}}}}"
    );
    rig.write("a.yaml", &session("ann-one", "ann", "one", &spec));
    rig
}

fn named(name: &str, seed: u64, size: usize) -> (String, Vec<u8>) {
    (name.to_owned(), content(seed, size))
}

/// The process that holds the lock of the gate.
pub(super) fn gate_pid(rig: &Rig) -> Option<u32> {
    let text = std::fs::read_to_string(rig.path("workspaces/.docket/gate.lock")).ok()?;
    text.lines().next()?.strip_prefix("pid ")?.parse().ok()
}

/// How many inodes the gate has marked.
fn marks(rig: &Rig) -> usize {
    let Some(pid) = gate_pid(rig) else { return 0 };
    let Ok(all) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return 0 };
    let count = |path: PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("fanotify ino:")).count()
    };
    all.flatten().map(|entry| count(entry.path())).max().unwrap_or(0)
}

/// How often an operator was welcomed by a gate.
pub(super) fn welcomes(rig: &Rig) -> usize {
    let log = std::fs::read_to_string(rig.path("workspaces/.docket/gate.log"));
    log.unwrap_or_default().matches("an operator is connected").count()
}

fn blocks(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().blocks()
}

fn check(view: &Value, path: &str) -> (u16, String) {
    http(view, "GET", &format!("/check?path={path}"), "")
}

/// A file's state as `docket files` shows it.
fn state(rig: &Rig, path: &str) -> Option<String> {
    let files: Value = serde_json::from_str(&rig.ok(&["files", "ann-one", "-o", "json"])).unwrap();
    let row = files.as_array().unwrap().iter().find(|row| row["path"] == path)?.clone();
    row["state"].as_str().map(str::to_owned)
}

fn manifest(rig: &Rig) -> Vec<Value> {
    let text = std::fs::read_to_string(rig.path("objects/ann/one/manifest.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn key_of(rig: &Rig, path: &str) -> Option<String> {
    let rows = manifest(rig);
    let row = rows.iter().find(|row| row["logical_path"] == path)?;
    row["storage_key"].as_str().map(str::to_owned)
}

#[test]
fn seed_a_large_file_is_downloaded_when_it_is_opened_and_nothing_is_left_behind() {
    let files = [named("exhibits/a.bin", 1, 3 << 20), named("b.bin", 2, 5000), named("s", 3, 9)];
    let mut rig = lazy("lazy", &files, "");
    rig.start();
    let view = rig.ready("ann-one");
    let at = rig.workspace("ann", "one").join("exhibits/a.bin");
    assert_eq!(std::fs::metadata(&at).unwrap().len(), 3 << 20, "the true size");
    assert_eq!(std::fs::metadata(&at).unwrap().mtime(), 1_714_979_289, "the true time");
    assert_eq!(blocks(&at), 0, "and no content yet");
    assert_eq!(condition(&view, "FilesReady").2, "2 come when opened");
    assert_eq!(view["status"]["files"]["lazy"], 2);
    assert_eq!(state(&rig, "exhibits/a.bin").as_deref(), Some("lazy"));
    assert_eq!(marks(&rig), 2);
    let doctor: Value =
        serde_json::from_str(&rig.docket(&["doctor", "-o", "json"]).stdout).unwrap();
    let files_check = doctor.as_array().unwrap().iter().find(|one| one["check"] == "files");
    assert_eq!(files_check.unwrap()["level"], "ok");

    assert_eq!(check(&view, "exhibits/a.bin"), (200, checked(&files[0].1)));
    assert_ne!(blocks(&at), 0);
    assert_eq!(std::fs::metadata(&at).unwrap().mtime(), 1_714_979_289);
    assert_eq!(state(&rig, "exhibits/a.bin").as_deref(), Some("local"));
    rig.see("counts what is here", "ann-one", |view| view["status"]["files"]["lazy"] == 1);
    let before = manifest(&rig);
    // An edit opens, so it is filled first; only what was edited goes up.
    http(&view, "POST", "/write?path=b.bin&append=1", "more");
    assert_eq!(state(&rig, "s").as_deref(), Some("local"));
    rig.ok(&["sync", "ann-one"]);
    let edited = [files[1].1.clone(), b"more".to_vec()].concat();
    let key = key_of(&rig, "b.bin").unwrap();
    assert_eq!(std::fs::read(rig.path("objects/ann/one").join(key)).unwrap(), edited);
    assert_eq!(key_of(&rig, "exhibits/a.bin").as_deref(), Some("k/0"), "{before:?}");

    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert!(!exists(&rig.workspace("ann", "one")));
    assert_eq!(marks(&rig), 0, "no mark is left");
}

#[test]
fn a_session_that_ends_with_placeholders_loses_nothing_and_leaves_no_marks() {
    let files = [named("a", 1, 5000), named("b", 2, 5000), named("gone", 3, 5000)];
    let mut rig = lazy("lazy-end", &files, "");
    rig.start();
    let view = rig.ready("ann-one");
    assert_eq!(marks(&rig), 3);
    assert_eq!(http(&view, "POST", "/do?op=mkdir&path=sub", "").0, 200);
    assert_eq!(http(&view, "POST", "/do?op=rename&from=a&path=sub/renamed", "").0, 200);
    assert_eq!(http(&view, "POST", "/do?op=unlink&path=gone", "").0, 200);
    assert_eq!(http(&view, "POST", "/do?op=chmod&path=b&mode=600", "").0, 200);
    assert_eq!(state(&rig, "sub/renamed").as_deref(), Some("lazy"));
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert_eq!(marks(&rig), 0);
    // A rename is a row that moved, a deletion a row that went; no content was touched.
    assert_eq!(key_of(&rig, "sub/renamed").as_deref(), Some("k/0"));
    assert_eq!(key_of(&rig, "a"), None);
    assert_eq!(key_of(&rig, "gone"), None);
    let b = manifest(&rig).into_iter().find(|row| row["logical_path"] == "b").unwrap();
    assert_eq!(
        (b["storage_key"].as_str(), b["mode"].to_string()),
        (Some("k/1"), b["mode"].to_string())
    );
    assert!(!exists(&rig.path("objects/ann/one/files/b")), "nothing was uploaded for it");
    for (number, (_, bytes)) in files.iter().enumerate() {
        let kept = std::fs::read(rig.path(&format!("objects/ann/one/k/{number}"))).unwrap();
        assert_eq!(&kept, bytes);
    }
}

#[test]
fn a_reader_waits_for_the_next_operator_and_no_longer_than_its_deadline() {
    let files = [named("a", 1, 300_000), named("b", 2, 300_000)];
    let mut rig = lazy("lazy-wait", &files, ", openDeadline: 15s");
    rig.start();
    let view = rig.ready("ann-one");
    let address = view["status"]["address"].as_str().unwrap().to_owned();
    rig.kill();
    let reader = std::thread::spawn({
        let address = address.clone();
        move || exchange(&address, "GET", "/check?path=a", "").unwrap()
    });
    let gate = gate_pid(&rig).unwrap();
    rig.start();
    assert_eq!(reader.join().unwrap(), (200, checked(&files[0].1)));
    assert_eq!(gate_pid(&rig), Some(gate), "the gate outlived its operator");
    assert_eq!(rig.containers().len(), 1);

    // With an object that does not come, the deadline ends the wait.
    rig.kill();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    write!(stream, "GET /check?path=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("os error 5"), "EIO: {answer}");
    assert_eq!(blocks(&rig.workspace("ann", "one").join("b")), 0);
}

#[test]
fn a_killed_gate_is_replaced_and_sigterm_of_the_operator_leaves_it() {
    let files = [named("a", 1, 300_000), named("b", 2, 300_000)];
    let mut rig = lazy("lazy-gate", &files, "");
    rig.start();
    let view = rig.ready("ann-one");
    let first = gate_pid(&rig).unwrap();
    run("kill", &["-9", &first.to_string()]);
    rig.until("another gate is there", |rig| {
        gate_pid(rig).is_some_and(|pid| pid != first) && welcomes(rig) == 2
    });
    assert_eq!(check(&view, "a"), (200, checked(&files[0].1)));
    let second = gate_pid(&rig);
    assert_eq!(rig.term().0, Some(0));
    assert!(exists(Path::new(&format!("/proc/{}", second.unwrap()))), "it goes on");
    rig.start();
    assert_eq!(gate_pid(&rig), second);
    assert_eq!(check(&view, "b"), (200, checked(&files[1].1)));
    // Nobody is connected and nothing is marked any more: it ends.
    rig.kill();
    rig.until("the gate has ended", |_| !exists(Path::new(&format!("/proc/{}", second.unwrap()))));
}

#[test]
fn with_both_gone_the_session_that_read_zeros_is_restarted_and_told() {
    let files = [named("a", 1, 300_000), named("b", 2, 300_000)];
    let mut rig = lazy("lazy-both", &files, "");
    rig.start();
    let view = rig.ready("ann-one");
    rig.kill();
    kill_gate(&mut rig);
    assert_ne!(check(&view, "a").1, checked(&files[0].1), "the kernel cannot prevent it");
    rig.start();
    let view = rig.see("has a new container", "ann-one", |view| {
        view["status"]["container"]["attempt"] == 2 && condition(view, "Ready").0 == "True"
    });
    let events = rig.ok(&["events", "ann-one"]);
    assert!(events.contains("Tainted") && events.contains("`ann/active/one/a`"), "{events}");
    assert!(!events.contains("`ann/active/one/b`"), "{events}");
    assert_eq!(check(&view, "a"), (200, checked(&files[0].1)));
    assert_eq!(check(&view, "b"), (200, checked(&files[1].1)));
}

/// A descriptor from before the gate died, whose holder has not read yet, would give it zeros.
#[test]
fn with_both_gone_the_session_that_holds_a_placeholder_open_is_restarted() {
    let files = [named("a", 1, 300_000), named("b", 2, 300_000)];
    let mut rig = lazy("lazy-held", &files, "");
    rig.start();
    rig.ready("ann-one");
    rig.kill();
    let gone = kill_gate(&mut rig);
    let at = rig.workspace("ann", "one").join("a");
    let before = std::fs::metadata(&at).unwrap();
    let (id, _, _) = rig.containers().remove(0);
    let holder = hold_open_inside(&id, &at);
    assert_eq!(std::fs::metadata(&at).unwrap().atime(), before.atime(), "nothing was read");
    rig.start();
    let view = rig.see("has a new container", "ann-one", |view| {
        view["status"]["container"]["attempt"] == 2 && condition(view, "Ready").0 == "True"
    });
    drop((gone, holder));
    let events = rig.ok(&["events", "ann-one"]);
    assert!(events.contains("Tainted") && events.contains("`ann/active/one/a`"), "{events}");
    assert!(!events.contains("`ann/active/one/b`"), "{events}");
    assert_eq!(check(&view, "a"), (200, checked(&files[0].1)));
}

/// Whatever whoever starts it may do.
#[test]
fn operator_and_gate_keep_only_the_privileges_that_the_book_names() {
    let mut rig = lazy("lazy-few", &[named("a", 1, 300_000)], "");
    rig.start();
    rig.ready("ann-one");
    let ours = status_of(std::process::id(), "CapPrm");
    // Source: linux/capability.h.
    let named = [21, 0, 3, 1, 12, 13, 19, 24].iter().fold(0, |all, bit| all | 1 << bit);
    for (who, pid) in [("operator", rig.pid()), ("gate", gate_pid(&rig).unwrap())] {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status_of(pid, set), ours & named, "{set} of the {who}");
        }
        assert_eq!(status_of(pid, "NoNewPrivs"), 1, "{who}");
    }
}

fn status_of(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    u64::from_str_radix(value.unwrap().trim(), 16).unwrap()
}

/// Where access times are not kept, nobody can tell who read: that is said before and after.
#[test]
fn without_access_times_it_is_said_that_nobody_can_tell_who_read() {
    let files = [named("a", 1, 300_000)];
    let mut rig = lazy("lazy-noatime", &files, "");
    let at = rig.path("workspaces");
    std::fs::create_dir(&at).unwrap();
    let mounted = Mounted::noatime(&at);
    rig.start();
    let view = rig.ready("ann-one");
    let doctor = rig.docket(&["doctor"]).stdout;
    assert!(doctor.contains("noatime") && doctor.contains("relatime"), "{doctor}");
    let log = std::fs::read_to_string(rig.path("operator.log")).unwrap();
    assert!(log.contains("access times are not kept here (noatime)"), "{log}");
    rig.kill();
    kill_gate(&mut rig);
    rig.start();
    rig.until("it is said", |rig| rig.ok(&["events", "ann-one"]).contains("PerhapsTainted"));
    let events = rig.ok(&["events", "ann-one"]);
    assert!(events.contains("`docket restart ann-one`"), "{events}");
    assert_eq!(check(&view, "a"), (200, checked(&files[0].1)));
    assert_eq!(rig.get("ann-one").unwrap()["status"]["container"]["attempt"], 1);
    rig.remove("a.yaml");
    rig.gone("ann-one");
    rig.kill();
    drop(mounted);
}

/// kill -9 of the gate, and until it is gone.
fn kill_gate(rig: &mut Rig) -> u32 {
    let pid = gate_pid(rig).unwrap();
    run("kill", &["-9", &pid.to_string()]);
    let gone = format!("/proc/{pid}/fd");
    rig.until("the gate is gone", |_| std::fs::read_dir(&gone).is_err());
    pid
}

/// A process in a container's control group that has a file open and does not read it.
fn hold_open_inside(container: &str, file: &Path) -> Held {
    let format = "{{.State.Pid}}";
    let pid = run("docker", &["inspect", "--format", format, container]);
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let child =
        Command::new("sleep").arg("600").stdin(std::fs::File::open(file).unwrap()).spawn().unwrap();
    let held = Held(child);
    let mut moved = false;
    for line in groups.lines() {
        let mut words = line.splitn(3, ':');
        let (_, kind, path) = (words.next(), words.next().unwrap(), words.next().unwrap());
        let name = kind.trim_start_matches("name=");
        let roots = match name {
            "" => vec!["/sys/fs/cgroup".to_owned(), "/sys/fs/cgroup/unified".to_owned()],
            name => vec![format!("/sys/fs/cgroup/{name}")],
        };
        for root in roots {
            let at = format!("{root}{path}/cgroup.procs");
            moved |= std::fs::write(at, held.0.id().to_string()).is_ok();
        }
    }
    assert!(moved, "{groups}");
    held
}

struct Held(std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _it_may_have_ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn asked_for_or_fetched_ahead_files_come_without_being_opened() {
    let files = [named("d/a", 1, 5000), named("d/b", 2, 5000), named("c", 3, 5000)];
    let mut rig = lazy("lazy-ask", &files, "");
    rig.start();
    rig.ready("ann-one");
    let said = rig.ok(&["hydrate", "ann-one", "d/a"]);
    assert!(said.contains("1 of 1 files are here"), "{said}");
    for (path, code) in [("/d/a", 2), ("d/../c", 2), ("", 2), ("nope", 4), ("d/a/b", 4)] {
        let said = rig.docket(&["hydrate", "ann-one", path]);
        assert_eq!(said.code, code, "{path}: {}", said.stderr);
    }
    let there =
        |rig: &Rig, path: &str| std::fs::read(rig.workspace("ann", "one").join(path)).unwrap();
    assert_eq!(there(&rig, "d/a"), files[0].1);
    assert_eq!(blocks(&rig.workspace("ann", "one").join("c")), 0);
    assert_eq!(blocks(&rig.workspace("ann", "one").join("d/b")), 0);
    let said = rig.ok(&["hydrate", "ann-one", "d/", "d/a"]);
    assert!(said.contains("2 of 2 files are here"), "{said}");
    assert_eq!(there(&rig, "d/b"), files[1].1);
    let more = "  workspace: {sync: {interval: 1s}, files: {eagerBelow: 1Ki, prefetch: 1Gi}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    rig.see("has fetched ahead", "ann-one", |view| view["status"]["files"]["lazy"] == 0);
    assert_eq!(there(&rig, "c"), files[2].1);
    assert_eq!(marks(&rig), 0);
}

/// A file whose object is gone is told so at once, and holds up nobody.
#[test]
fn a_file_that_cannot_come_is_an_error_to_its_reader_alone() {
    let files = [named("lost", 1, 5000), named("wrong", 2, 5000), named("fine", 3, 5000)];
    let mut rig = lazy("lazy-lost", &files, "");
    rig.start();
    let view = rig.ready("ann-one");
    std::fs::remove_file(rig.path("objects/ann/one/k/0")).unwrap();
    std::fs::write(rig.path("objects/ann/one/k/1"), "short").unwrap();
    for path in ["lost", "wrong"] {
        let (status, said) = check(&view, path);
        assert_eq!(status, 500, "{said}");
        assert!(said.contains("os error 5"), "{said}");
        assert_eq!(state(&rig, path).as_deref(), Some("lazy"));
    }
    assert_eq!(check(&view, "fine"), (200, checked(&files[2].1)));
    let listed = rig.ok(&["files", "ann-one"]);
    assert!(listed.contains("its object is not in the store"), "{listed}");
    // The next operator looks for itself, before anybody opens anything.
    rig.kill();
    rig.start();
    let told = "opening will fail for 2 files: `lost`, `wrong`";
    rig.until("it is told", |rig| rig.ok(&["events", "ann-one"]).contains(told));
    let listed = rig.ok(&["files", "ann-one"]);
    assert!(listed.contains("its object is not in the store"), "{listed}");
}

/// Stub files stand for large ones, and everybody is told why.
#[track_caller]
fn falls_back(rig: &mut Rig, why: &str) {
    let view = rig.ready("ann-one");
    let stub = rig.workspace("ann", "one").join("a.stub");
    let text = std::fs::read_to_string(&stub).unwrap();
    assert!(text.contains("key: k/0"), "{text}");
    assert!(!exists(&rig.workspace("ann", "one").join("a")));
    let said = condition(&view, "FilesReady").2;
    assert!(said.starts_with("1 wait as stub files: ") && said.contains(why), "{said}");
    let doctor = rig.docket(&["doctor"]).stdout;
    assert!(doctor.contains("stub files stand for large files"), "{doctor}");
    // LAZY: a deleted or edited stub changes no object.
    http(&view, "POST", "/do?op=unlink&path=a.stub", "");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(key_of(rig, "a").as_deref(), Some("k/0"));
    rig.ok(&["hydrate", "ann-one"]);
    assert_eq!(std::fs::read(rig.workspace("ann", "one").join("a")).unwrap(), content(1, 5000));
}

#[test]
fn without_the_privilege_stub_files_stand_for_large_ones() {
    let mut rig = lazy("lazy-eperm", &[named("a", 1, 5000)], "");
    rig.through = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
        .map(str::to_owned)
        .to_vec();
    rig.start();
    falls_back(&mut rig, "EPERM");
}

#[test]
fn on_a_file_system_without_placeholders_stub_files_stand_for_large_ones() {
    let mut rig = lazy("lazy-fs", &[named("a", 1, 5000)], "");
    let at = rig.path("workspaces");
    std::fs::create_dir(&at).unwrap();
    let mounted = Mounted::ramfs(&at);
    rig.spawn(&[("DOCKET_MIN_FREE", "0")]);
    rig.answers();
    falls_back(&mut rig, "EOPNOTSUPP");
    rig.remove("a.yaml");
    rig.gone("ann-one");
    rig.kill();
    drop(mounted);
}

/// A kernel that refuses the call, as one without permission events does.
#[test]
fn where_the_kernel_refuses_the_group_stub_files_stand_for_large_ones() {
    for (errno, why) in [("EINVAL", "EINVAL: the kernel"), ("EPERM", "EPERM: no CAP_SYS_ADMIN")] {
        let name = format!("lazy-init-{}", errno.to_lowercase());
        let mut rig = lazy(&name, &[named("a", 1, 5000)], "");
        rig.through = injected("fanotify_init", &format!("error={errno}"));
        rig.start();
        falls_back(&mut rig, why);
    }
}

/// A kernel that makes the group and takes no mark.
#[test]
fn where_the_kernel_refuses_the_mark_stub_files_stand_for_large_ones() {
    let mut rig = lazy("lazy-mark", &[named("a", 1, 5000)], "");
    rig.through = injected("fanotify_mark", "error=EINVAL");
    rig.start();
    falls_back(&mut rig, "Invalid argument");
}

/// A kernel that says that it marks, and holds nothing back.
#[test]
fn where_the_canary_is_not_intercepted_stub_files_stand_for_large_ones() {
    let mut rig = lazy("lazy-missed", &[named("a", 1, 5000)], "");
    rig.through = injected("fanotify_mark", "retval=0");
    rig.start();
    falls_back(&mut rig, "canary not intercepted: its reader saw no content");
}

/// What an operator is started by whose calls of this name end so, with nothing done.
fn injected(call: &str, end: &str) -> Vec<String> {
    let words = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e"];
    let mut words = words.map(str::to_owned).to_vec();
    words.push(format!("trace={call}"));
    words.extend(["-e".to_owned(), format!("inject={call}:{end}"), "--".to_owned()]);
    words
}

/// A file system of memory that knows no extended attributes, unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn ramfs(at: &Path) -> Mounted {
        run("mount", &["-t", "ramfs", "-o", "mode=0700", "ramfs", &at.display().to_string()]);
        Mounted(at.to_owned())
    }

    /// The same directory, without access times.
    fn noatime(at: &Path) -> Mounted {
        let text = at.display().to_string();
        run("mount", &["--bind", &text, &text]);
        run("mount", &["-o", "remount,bind,noatime", &text]);
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// What a privileged operator placed, one without the privilege must not take for edits.
#[test]
fn an_operator_that_cannot_see_placeholders_does_not_begin() {
    let mut rig = lazy("lazy-blind", &[named("a", 1, 5000)], "");
    rig.start();
    rig.ready("ann-one");
    rig.kill();
    let words = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    rig.through = words.map(str::to_owned).to_vec();
    rig.spawn(&[]);
    assert_eq!(rig.wait_exit(), Some(1));
    let log = std::fs::read_to_string(rig.path("operator.log")).unwrap();
    assert!(log.contains("has placeholders") && log.contains("EPERM"), "{log}");
    rig.through.clear();
    rig.start();
    let view = rig.ready("ann-one");
    assert_eq!(check(&view, "a"), (200, checked(&content(1, 5000))));
}
