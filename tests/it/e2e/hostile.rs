//! Hostile tenants and neighbours, met by the built binary on a real engine: names carry the rows
//! of the threat model. What the module that touches workspaces does is tried in `hostile`.

use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::disk::Small;
use super::rig::{Rig, class, condition, exchange, http, run, session, stored};

fn pair(name: &str, class_more: &str) -> (Rig, Value, Value) {
    let mut rig = Rig::new(name);
    let (ann, bob) = two_ready(&mut rig, class_more);
    (rig, ann, bob)
}

fn two_ready(rig: &mut Rig, class_more: &str) -> (Value, Value) {
    rig.write("legal.yaml", &class("legal", "").replace("sync: {interval: 1s}", class_more));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    (rig.ready("ann-one"), rig.ready("bob-two"))
}

fn act(view: &Value, asked: &str) {
    let (status, said) = http(view, "POST", &format!("/do?{asked}"), "");
    assert_eq!(status, 200, "{asked}: {said}");
}

/// `docket files` as a list.
fn files(rig: &Rig, name: &str) -> Vec<Value> {
    serde_json::from_str(&rig.ok(&["files", name, "-o", "json"])).unwrap()
}

fn id(view: &Value) -> String {
    view["status"]["container"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn t6_f38_f39_fifos_sockets_and_devices_block_neither_a_sync_nor_a_neighbour_nor_the_end() {
    let (mut rig, ann, bob) = pair("t6", "sync: {interval: 1s}");
    act(&ann, "op=mkfifo&path=fifo");
    act(&ann, "op=socket&path=socket");
    let inside = rig.workspace("ann", "one");
    run("mknod", &[inside.join("null").to_str().unwrap(), "c", "1", "3"]);
    http(&ann, "POST", "/write?path=first", "shared");
    act(&ann, "op=link&from=first&path=second");
    rig.ok(&["sync", "ann-one"]);
    let told = files(&rig, "ann-one");
    for odd in ["fifo", "socket", "null"] {
        let row = told.iter().find(|row| row["path"] == odd).expect(odd);
        assert_eq!(row["state"], "skipped");
        assert!(row["reason"].as_str().unwrap().contains("no content"), "{row}");
    }
    for each in ["first", "second"] {
        assert_eq!(stored(&rig, "ann", "one", each).as_deref(), Some("shared"));
    }
    http(&bob, "POST", "/write?path=mine", "mine");
    rig.ok(&["sync", "bob-two"]);
    assert_eq!(stored(&rig, "bob", "two", "mine").as_deref(), Some("mine"));
    rig.remove("a.yaml");
    rig.gone("ann-one");
}

/// The most memory the operator ever had, in KiB.
fn peak_kib(rig: &Rig) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn t7_f40_a_huge_workspace_costs_bounded_memory_is_told_and_can_be_given_up() {
    let mut rig = Rig::new("t7");
    // In memory: it is docket that is tried, not the disk.
    let _disk = Small::mount(&rig, "1g");
    let limits = "sync: {interval: 1s}, limits: {files: 500, fileSize: 1Gi, depth: 64}";
    let (ann, bob) = two_ready(&mut rig, limits);
    let before = peak_kib(&rig);
    act(&ann, "op=truncate&path=sparse&size=1099511627776");
    act(&ann, "op=deep&path=deep&n=300");
    let says = |rig: &Rig, part: &str| {
        rig.ok(&["sync", "ann-one"]);
        let told = files(rig, "ann-one");
        let said = told.iter().any(|row| row["reason"].as_str().unwrap().contains(part));
        assert!(said, "{part}: {told:?}");
    };
    says(&rig, "limits.fileSize");
    says(&rig, "limits.depth");
    let many = rig.workspace("ann", "one").join("many");
    for n in 0..100_000 {
        if n % 1000 == 0 {
            std::fs::create_dir_all(many.join(format!("{}", n / 1000))).unwrap();
        }
        std::fs::File::create(many.join(format!("{}/{n}", n / 1000))).unwrap();
    }
    says(&rig, "limits.files");
    let grown = peak_kib(&rig).saturating_sub(before);
    assert!(grown < 64 << 10, "the operator grew by {grown} KiB");
    http(&bob, "POST", "/write?path=mine", "mine");
    rig.ok(&["sync", "bob-two"]);
    assert_eq!(stored(&rig, "bob", "two", "mine").as_deref(), Some("mine"));
    let held = rig.get("ann-one").unwrap();
    assert_eq!(condition(&held, "FilesSynced").1, "FileSkipped");

    // What is not stored keeps it from its end, until it is given up.
    rig.remove("a.yaml");
    rig.see("is held", "ann-one", |view| {
        view["status"]["phase"] == "Terminating"
            && view["status"]["retry"]["operation"] == "Sync"
            && condition(view, "FilesSynced").1 == "FileSkipped"
    });
    rig.ok(&["delete", "ann-one", "--discard"]);
    rig.gone("ann-one");
}

/// Everything docket says of a session, by the command that says it.
fn all_outputs(rig: &Rig, name: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for words in [
        "get",
        "get -o wide",
        "get -o yaml",
        "get -o json",
        "get sources",
        "plan",
        "plan -o json",
        "events",
        "events -o json",
        "describe NAME",
        "explain NAME",
        "files NAME",
        "files NAME -o json",
        "files NAME -o yaml",
        "files NAME -o name",
        "events NAME",
        "get NAME -o json",
        "get NAME -o yaml",
        "logs NAME",
        "sync NAME",
        "hydrate NAME",
        "top NAME",
        "doctor",
    ] {
        let words = words.replace("NAME", name);
        let said = rig.docket(&words.split(' ').collect::<Vec<_>>());
        all.push((words.clone(), said.stdout));
        all.push((format!("{words}, stderr"), said.stderr));
    }
    all.push((
        "operator.log".to_owned(),
        std::fs::read_to_string(rig.path("operator.log")).unwrap(),
    ));
    all
}

#[test]
fn t8_no_name_reaches_a_terminal_or_a_log_raw() {
    let (mut rig, ann, _) = pair("t8", "sync: {interval: 1s}");
    let inside = rig.workspace("ann", "one");
    let evil = b"\x1b]0;owned\x07\x1b[31mred\r\n\x7f\xc2\x9b31m\xff\xe2\x80\xae";
    let odd = |more: &[u8]| {
        let mut name = evil.to_vec();
        name.extend_from_slice(more);
        inside.join(std::ffi::OsStr::from_bytes(&name))
    };
    std::fs::write(odd(b"plain"), "plain").unwrap();
    std::fs::create_dir(odd(b"dir")).unwrap();
    std::fs::write(odd(b"dir").join("inside"), "inside").unwrap();
    std::os::unix::fs::symlink(odd(b"to"), odd(b"link")).unwrap();
    run("mkfifo", &[&inside.join("pipe").to_string_lossy()]);
    std::fs::rename(inside.join("pipe"), odd(b"fifo")).unwrap();
    http(&ann, "POST", "/write?path=/proc/self/fd/1", "\u{1b}[2Jto the log\n");
    rig.ok(&["sync", "ann-one"]);
    assert!(files(&rig, "ann-one").len() > 3);
    // A conflict names a file too, in the log and in events.
    let rows = std::fs::read_to_string(rig.path("objects/ann/one/manifest.json")).unwrap();
    assert!(rows.contains("logical_path_b64"), "{rows}");
    std::fs::remove_dir_all(&inside).unwrap();
    rig.see("is told", "ann-one", |view| condition(view, "WorkspaceReady").0 == "False");
    for (what, said) in all_outputs(&rig, "ann-one") {
        if what == "logs ann-one" {
            continue; // The tenant's own words, to a pipe: as they are.
        }
        let bad =
            said.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t') || *c == '\u{202e}');
        assert_eq!(bad, None, "docket {what}: {said:?}");
    }
}

/// Each state of the file is one letter throughout: two letters are a torn copy.
#[test]
fn t10_f42_every_stored_object_is_one_state_of_a_file_that_never_rests() {
    let (mut rig, ann, _) = pair("t10", "sync: {interval: 1s}");
    let copies = |rig: &Rig| {
        let listed = std::fs::read_dir(rig.path("objects/ann/one/files")).unwrap();
        let named = listed.map(|entry| entry.unwrap().path());
        named.filter(|path| path.to_string_lossy().contains("busy@")).collect::<Vec<_>>()
    };
    http(&ann, "POST", "/writer?path=busy&ms=120&bytes=2097152", "");
    rig.until("some states are stored", |rig| {
        rig.docket(&["sync", "ann-one"]);
        rig.path("objects/ann/one/files").exists() && copies(rig).len() >= 3
    });
    rig.remove("a.yaml");
    rig.gone("ann-one");
    for copy in copies(&rig) {
        let bytes = std::fs::read(&copy).unwrap();
        assert_eq!(bytes.len(), 2 << 20, "{}", copy.display());
        assert!(bytes.iter().all(|b| *b == bytes[0]), "{} is torn", copy.display());
    }
}

/// No tenant's directories are watched, so none can use up the machine's watches.
#[test]
fn t11_a_workspace_of_many_directories_costs_no_watches_and_no_change_is_lost() {
    let mut rig = Rig::new("t11");
    let _disk = Small::mount(&rig, "1g");
    let (ann, _) = two_ready(&mut rig, "sync: {interval: 1s}");
    let inside = rig.workspace("ann", "one");
    let watches = |rig: &Rig| {
        let infos = std::fs::read_dir(format!("/proc/{}/fdinfo", rig.pid())).unwrap();
        let texts = infos.filter_map(|info| std::fs::read_to_string(info.ok()?.path()).ok());
        texts.map(|text| text.matches("inotify wd:").count()).sum::<usize>()
    };
    let before = watches(&rig);
    act(&ann, "op=symlink&path=everything&from=/");
    for n in 0..2000 {
        std::fs::create_dir(inside.join(format!("d{n}"))).unwrap();
    }
    for n in 0..20_000 {
        let noise = inside.join(format!("d{}/noise", n % 2000));
        std::fs::write(&noise, "").unwrap();
        std::fs::remove_file(&noise).unwrap();
    }
    std::fs::write(inside.join("d1999/last"), "last").unwrap();
    rig.until("the last change is stored", |rig| {
        stored(rig, "ann", "one", "d1999/last").as_deref() == Some("last")
    });
    assert_eq!(watches(&rig), before);
}

#[test]
fn t12_cpu_and_logs_are_bounded_and_doctor_tells_what_is_not() {
    let mut rig = Rig::new("t12");
    let text = class("legal", "")
        .replace("stopGracePeriod: 3s", "stopGracePeriod: 3s, logs: {maxSize: 1Mi, maxFiles: 2}")
        .replace("cpus: \"1\"", "cpus: \"0.2\"");
    rig.write("legal.yaml", &text);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let ann = rig.ready("ann-one");
    let full = run("docker", &["inspect", "-f", "{{.Id}} {{.LogPath}}", &id(&ann)]);
    let (full, log) = full.trim().split_once(' ').unwrap();

    let throttled = || -> u64 {
        let of = |root: &str| std::fs::read_to_string(format!("{root}/{full}/cpu.stat")).ok();
        let scope = format!("/sys/fs/cgroup/system.slice/docker-{full}.scope/cpu.stat");
        let text = of("/sys/fs/cgroup/cpu/docker")
            .or_else(|| of("/sys/fs/cgroup/docker"))
            .or_else(|| std::fs::read_to_string(scope).ok())
            .expect("the container's cgroup");
        let line = text.lines().find(|line| line.starts_with("nr_throttled")).unwrap();
        line.split(' ').nth(1).unwrap().parse().unwrap()
    };
    let before = throttled();
    http(&ann, "POST", "/spin?ms=1500", "");
    rig.until("a fifth of a core is all it gets", |_| throttled() > before);

    let line = "x".repeat(1000) + "\n";
    for _ in 0..6 {
        http(&ann, "POST", "/write?path=/proc/self/fd/1", &line.repeat(1000));
    }
    rig.until("the log turned over", |_| std::path::Path::new(&format!("{log}.1")).exists());
    let kept = |at: &str| std::fs::metadata(at).map_or(0, |meta| meta.len());
    let all = kept(log) + kept(&format!("{log}.1")) + kept(&format!("{log}.2"));
    assert!(all < 3 << 20, "{all} bytes of log are kept");

    let said = rig.docket(&["doctor", "--config", rig.path("docket.yaml").to_str().unwrap()]);
    let row = |check: &str| {
        let found = said.stdout.lines().find(|line| line.contains(check));
        found.unwrap_or_else(|| panic!("{check}: {}{}", said.stdout, said.stderr)).to_owned()
    };
    assert!(row(" rootfs ").starts_with("warn") && row(" rootfs ").contains("no limit"));
    assert!(row(" network ").contains("169.254.0.0/16"), "{}", row(" network "));
}

#[test]
fn t15_a_program_that_ignores_sigterm_ends_after_its_grace_and_others_do_not_wait() {
    let mut rig = Rig::new("t15");
    rig.start();
    let stubborn = "  container: {env: {IGNORE_TERM: \"1\"}, stopGracePeriod: 2s}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", stubborn));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let ann = rig.ready("ann-one");
    rig.ready("bob-two");
    rig.ok(&["stop", "ann-one"]);
    let stopped =
        rig.see("is stopped", "ann-one", |view| view["status"]["container"]["state"] == "removed");
    let end = &stopped["status"]["container"]["lastTermination"];
    assert_eq!((&end["reason"], &end["exitCode"]), (&"Requested".into(), &137.into()), "{end}");
    rig.ok(&["start", "ann-one"]);
    let again = rig.ready("ann-one");
    assert_ne!(id(&again), id(&ann));
    for name in ["a.yaml", "b.yaml"] {
        rig.remove(name);
    }
    rig.gone("ann-one");
    rig.gone("bob-two");
    assert_eq!(rig.containers(), []);
}

/// Answers 200 to everything on a port, as a local process might.
struct Squatter(Arc<AtomicBool>);

impl Squatter {
    fn on(port: u16) -> Squatter {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        let _asked = stream.read(&mut [0; 1024]);
                        let _told =
                            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                    }
                    Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
                }
            }
        });
        Squatter(stop)
    }
}

impl Drop for Squatter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn l2_a_process_that_answers_on_the_port_of_a_session_does_not_make_it_ready() {
    let mut rig = Rig::new("l2");
    rig.write("legal.yaml", &class("legal", "  restart: {policy: Never}"));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    let address = before["status"]["address"].as_str().unwrap().to_owned();
    let port = u16::try_from(before["status"]["port"].as_u64().unwrap()).unwrap();
    run("docker", &["kill", &id(&before)]);
    rig.see("is down", "ann-one", |view| condition(view, "ContainerReady").0 == "False");
    let squatter = Squatter::on(port);
    assert_eq!(exchange(&address, "GET", "/health", "").unwrap().0, 200, "the squatter answers");
    let began = Instant::now();
    rig.until("time enough for a mistake", |rig| {
        let view = rig.get("ann-one").unwrap();
        assert_eq!(condition(&view, "Ready").0, "False", "{view:#}");
        assert_ne!(condition(&view, "Healthy").0, "True", "{view:#}");
        began.elapsed() > Duration::from_secs(4)
    });
    rig.ok(&["restart", "ann-one"]);
    let after = rig.ready("ann-one");
    drop(squatter);
    assert_ne!(after["status"]["port"], before["status"]["port"]);
}

#[test]
fn l1_t9_no_other_user_gets_at_state_socket_workspaces_or_records() {
    let (rig, _, _) = pair("l1", "sync: {interval: 1s}");
    // Whoever may pass the directory above must not get further.
    std::fs::set_permissions(rig.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    for private in [
        "state",
        "workspaces",
        "workspaces/.docket",
        "workspaces/.docket/records",
        "workspaces/.docket/trash",
    ] {
        let meta = std::fs::metadata(rig.path(private)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o700, 0), "{private}");
    }
    let mode = |at: &str| std::fs::metadata(rig.path(at)).unwrap().mode() & 0o7777;
    assert_eq!(mode("state/docket.sock"), 0o600);
    assert_eq!(mode("state/token"), 0o600);
    let inside = rig.workspace("ann", "one");
    std::fs::copy("/bin/true", inside.join("su")).unwrap();
    std::fs::set_permissions(inside.join("su"), std::fs::Permissions::from_mode(0o6755)).unwrap();
    for words in [
        vec![inside.join("su")],
        vec!["/bin/ls".into(), rig.path("workspaces")],
        vec!["/bin/cat".into(), rig.path("state/token")],
        vec![
            env!("CARGO_BIN_EXE_docket").into(),
            "get".into(),
            "--state".into(),
            rig.path("state"),
        ],
    ] {
        let out = Command::new(&words[0])
            .args(&words[1..])
            .current_dir("/")
            .uid(65534)
            .gid(65534)
            .output();
        let done = out.as_ref().is_ok_and(|out| out.status.success());
        assert!(!done, "{words:?}: {out:?}");
    }
    // Copied away it is no setuid file: neither is what comes back from the store.
    rig.ok(&["sync", "ann-one"]);
    let rows = std::fs::read_to_string(rig.path("objects/ann/one/manifest.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    let row = rows.iter().find(|row| row["logical_path"] == "su").unwrap();
    assert_eq!(row["mode"], "0755", "{row}");
}

#[test]
fn s1_a_secret_is_in_its_file_and_nowhere_else() {
    const CANARY: &str = "canary-5up3r-s3cr3t";
    let mut rig = Rig::new("s1");
    let vault = rig.path("vault");
    std::fs::create_dir_all(vault.join("ann")).unwrap();
    std::fs::write(vault.join("ann/token"), CANARY).unwrap();
    rig.configure(&format!("allow: {{secretFiles: [{}]}}", vault.display()));
    let secrets = format!(
        "container: {{secrets: {{API_TOKEN: {{file: {}/$(USER_ID)/token}}}}, ",
        vault.display()
    );
    rig.write("legal.yaml", &class("legal", "").replace("container: {", &secrets));
    rig.spawn(&[("DOCKET_LOG_LEVEL", "debug")]);
    rig.answers();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    assert_eq!(http(&view, "GET", "/read?path=/run/secrets/API_TOKEN", "").1, CANARY);
    assert!(!http(&view, "GET", "/env", "").1.contains(CANARY));
    let (status, said) = http(&view, "POST", "/write?path=/run/secrets/API_TOKEN", "x");
    assert_ne!(status, 200, "it is read-only: {said}");
    rig.ok(&["sync", "ann-one"]);
    let inspected = run("docker", &["inspect", &id(&view)]);
    assert!(inspected.contains("API_TOKEN") && !inspected.contains(CANARY), "{inspected}");
    for (what, said) in all_outputs(&rig, "ann-one") {
        assert!(!said.contains(CANARY), "docket {what}: {said}");
    }
    // Another user's secret, and one that is a link, are told without their content.
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let told = rig.see("is told", "bob-two", |view| {
        condition(view, "ContainerReady").1 == "SecretUnavailable"
    });
    assert!(!told.to_string().contains(CANARY));
    std::fs::create_dir(vault.join("bob")).unwrap();
    std::os::unix::fs::symlink(vault.join("ann/token"), vault.join("bob/token")).unwrap();
    rig.ok(&["restart", "bob-two"]);
    rig.see("is told again", "bob-two", |view| {
        condition(view, "ContainerReady").2.contains("links are not followed")
    });
    rig.kill();
    for kept in ["state", "workspaces", "objects", "operator.log", "specs"] {
        let kept = rig.path(kept);
        let found = Command::new("grep").args(["-rl", CANARY]).arg(&kept).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{}", kept.display());
    }
}

/// A pause of the operator is not one of the world: what it knew is looked at again first.
#[test]
fn f47_an_operator_that_stood_still_looks_again_before_it_does_anything() {
    let (mut rig, ann, _) = pair("f47", "sync: {interval: 1s}");
    run("kill", &["-STOP", &rig.pid().to_string()]);
    run("docker", &["rm", "-f", &id(&ann)]);
    rig.remove("b.yaml");
    rig.write("c.yaml", &session("cid-three", "cid", "three", ""));
    std::thread::sleep(Duration::from_secs(3)); // the fault itself: nothing is heard meanwhile
    run("kill", &["-CONT", &rig.pid().to_string()]);
    let after = rig.see("is made again", "ann-one", |view| {
        view["status"]["container"]["attempt"] == 2 && condition(view, "Ready").0 == "True"
    });
    assert_eq!(after["status"]["port"], ann["status"]["port"]);
    rig.ready("cid-three");
    rig.gone("bob-two");
    assert_eq!(rig.containers().len(), 2);
}

/// Few descriptors and threads: everything is done all the same, a little at a time.
#[test]
fn f48_with_few_descriptors_everything_still_comes_to_its_end() {
    let mut rig = Rig::new("f48");
    rig.through = ["prlimit", "--nofile=96:96", "--"].map(str::to_owned).to_vec();
    for n in 0..200 {
        let at = rig.path(&format!("objects/ann/one/files/in-{n}"));
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, "in").unwrap();
    }
    rig.start();
    for n in 0..4 {
        let case = if n == 0 { "one".to_owned() } else { format!("c{n}") };
        rig.write(&format!("{n}.yaml"), &session(&format!("s{n}"), "ann", &case, ""));
    }
    for n in 0..4 {
        rig.ready(&format!("s{n}"));
    }
    let inside = rig.workspace("ann", "one");
    assert_eq!(std::fs::read_to_string(inside.join("in-199")).unwrap(), "in");
    for n in 0..200 {
        std::fs::write(inside.join(format!("out-{n}")), "out").unwrap();
    }
    rig.until("all of it is stored", |rig| {
        rig.docket(&["sync", "s0"]).code == 0
            && stored(rig, "ann", "one", "out-199").as_deref() == Some("out")
    });
    for n in 0..4 {
        rig.remove(&format!("{n}.yaml"));
    }
    for n in 0..4 {
        rig.gone(&format!("s{n}"));
    }
}
