//! Rows of the catalogue of faults that need the whole operator and a real engine. Each name
//! carries the number of its row.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::proxy::{Fault, Proxy};
use super::rig::{Rig, condition, exists, http, run, session, stored};

fn id(view: &Value) -> String {
    view["status"]["container"]["id"].as_str().unwrap().to_owned()
}

/// What must be the same when nothing was done to a container.
fn life(view: &Value) -> Vec<Value> {
    let container = &view["status"]["container"];
    let mut all: Vec<Value> =
        ["id", "startedAt", "attempt", "restarts"].map(|key| container[key].clone()).into();
    all.push(view["status"]["port"].clone());
    all.push(view["metadata"]["uid"].clone());
    all
}

/// A ready session of an operator whose engine is behind a proxy.
fn behind_a_proxy(name: &str) -> (Rig, Proxy, Value) {
    let mut rig = Rig::new(name);
    let proxy = Proxy::new(rig.path("engine.sock"));
    rig.configure(&format!("docker: {}", proxy.host()));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    (rig, proxy, view)
}

/// A fault of the engine: told, nothing done to what runs, over as soon as it is over.
fn holds(name: &str, fault: Fault) {
    let (mut rig, proxy, before) = behind_a_proxy(name);
    proxy.set(fault);
    rig.see("is unknown", "ann-one", |view| condition(view, "RuntimeUnresponsive").0 == "True");
    // Whatever is asked for meanwhile waits.
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.see("waits", "bob-two", |view| condition(view, "Ready").0 != "True");
    let containers = rig.containers();
    assert_eq!(containers.len(), 1, "{containers:?}");
    assert_eq!(containers[0].2, "running");
    assert_eq!(http(&before, "GET", "/health", "").0, 200, "the tenant noticed nothing");
    proxy.set(Fault::None);
    let after = rig.see("is known again", "ann-one", |view| {
        condition(view, "Ready").0 == "True" && condition(view, "RuntimeUnresponsive").0 != "True"
    });
    assert_eq!(life(&after), life(&before));
    rig.ready("bob-two");
}

#[test]
fn f2_kills_during_the_start_do_not_keep_it_from_starting() {
    let mut rig = Rig::new("f2");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    rig.kill();
    for round in 0..30_u64 {
        rig.spawn(&[]);
        std::thread::sleep(Duration::from_millis(round * 137 % 500));
        rig.kill();
    }
    rig.start();
    assert_eq!(life(&rig.ready("ann-one")), life(&before));
    assert_eq!(rig.containers().len(), 1);
}

#[test]
fn f4_an_operator_with_another_state_directory_is_refused_the_same_installation() {
    let mut rig = Rig::new("f4");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    let text = std::fs::read_to_string(rig.path("docket.yaml")).unwrap();
    let other = text
        .replace("state: state", "state: state-2")
        .replace("workspaces: workspaces", "workspaces: workspaces-2");
    std::fs::write(rig.path("other.yaml"), other).unwrap();
    let out = std::process::Command::new("timeout")
        .args(["30", env!("CARGO_BIN_EXE_docket"), "run", "--config"])
        .arg(rig.path("other.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(&rig.installation), "{said}");
    assert_eq!(life(&rig.ready("ann-one")), life(&before));
}

#[test]
fn f5_sigterm_during_a_sync_ends_in_time_and_the_sync_is_finished_later() {
    let mut rig = Rig::new("f5");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    let file = std::fs::File::create(rig.workspace("ann", "one").join("big.bin")).unwrap();
    file.set_len(300 << 20).unwrap();
    file.write_all_at(b"the end", (300 << 20) - 7).unwrap();
    let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_docket"))
        .args(["sync", "ann-one", "--state"])
        .arg(rig.path("state"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    rig.until("the upload began", |rig| {
        let found = run("find", &[rig.path("objects").to_str().unwrap(), "-size", "+1M"]);
        !found.trim().is_empty()
    });
    let (code, took) = rig.term();
    let _it_was_cut_or_done = asked.wait();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    rig.start();
    rig.ok(&["sync", "ann-one"]);
    let manifest = std::fs::read(rig.path("objects/ann/one/manifest.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_slice(&manifest).unwrap();
    let row = rows.iter().find(|row| row["logical_path"] == "big.bin").unwrap();
    assert_eq!(row["size"], 300 << 20);
    rig.ready("ann-one");
}

#[test]
fn f6_an_engine_that_is_not_there_at_the_start_is_waited_for() {
    let mut rig = Rig::new("f6");
    let socket = rig.path("engine.sock");
    rig.configure(&format!("docker: unix://{}", socket.display()));
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.start();
    rig.see("waits", "ann-one", |view| condition(view, "Ready").0 != "True");
    let proxy = Proxy::new(socket);
    let before = rig.ready("ann-one");
    proxy.set(Fault::Closed);
    rig.see("is unknown", "ann-one", |view| condition(view, "RuntimeUnresponsive").0 == "True");
    rig.kill();
    rig.start();
    let held = rig.see("is still known", "ann-one", |_| true);
    assert_eq!(held["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(held["status"]["port"], before["status"]["port"]);
    proxy.set(Fault::None);
    assert_eq!(life(&rig.ready("ann-one")), life(&before));
}

/// An engine that may be killed: `scripts/private-engine`, ended with the test.
pub(super) struct PrivateEngine {
    pub(super) dir: tempfile::TempDir,
    pub(super) options: &'static [&'static str],
}

impl PrivateEngine {
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/private-engine");

    pub(super) fn start(options: &'static [&'static str]) -> (PrivateEngine, String) {
        let dir = tempfile::Builder::new().prefix("docket-e-").tempdir().unwrap();
        let engine = PrivateEngine { dir, options };
        let host = engine.run("start", options).trim().to_owned();
        let load = format!("docker save docket-sample:latest | docker -H {host} load");
        run("sh", &["-c", &load]);
        (engine, host)
    }

    pub(super) fn run(&self, command: &str, options: &[&str]) -> String {
        let mut args = vec![command, self.dir.path().to_str().unwrap()];
        args.extend(options);
        run(PrivateEngine::SCRIPT, &args)
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let _what_can_be_done = std::process::Command::new(PrivateEngine::SCRIPT)
            .arg("stop")
            .arg(self.dir.path())
            .output();
    }
}

/// The engine is killed under a running session and comes back: what was before, and after.
fn killed_engine(name: &str, options: &'static [&'static str]) -> (Value, Value) {
    let (engine, host) = PrivateEngine::start(options);
    let mut rig = Rig::new(name);
    rig.configure(&format!("docker: {host}"));
    let dir = engine.dir.path().to_str().unwrap().to_owned();
    rig.through = vec![PrivateEngine::SCRIPT.to_owned(), "exec".to_owned(), dir];
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    std::fs::write(rig.workspace("ann", "one").join("mine.txt"), "mine").unwrap();
    engine.run("kill", &[]);
    let unknown =
        rig.see("is unknown", "ann-one", |view| condition(view, "RuntimeUnresponsive").0 == "True");
    assert_eq!(unknown["status"]["port"], before["status"]["port"]);
    engine.run("dockerd", engine.options);
    let after = rig.see("is ready again", "ann-one", |view| {
        condition(view, "Ready").0 == "True" && condition(view, "RuntimeUnresponsive").0 != "True"
    });
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(stored(&rig, "ann", "one", "mine.txt").as_deref(), Some("mine"));
    rig.remove("a.yaml");
    rig.gone("ann-one");
    (before, after)
}

#[test]
fn f7_an_engine_that_comes_back_without_its_containers_gets_them_started_again() {
    let (before, after) = killed_engine("f7", &[]);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["port"], before["status"]["port"]);
    assert_eq!(id(&after), id(&before), "the same container");
}

#[test]
fn f7_an_engine_that_kept_its_containers_finds_them_left_alone() {
    let (before, after) = killed_engine("f7-live", &["--live-restore"]);
    assert_eq!(life(&after), life(&before));
}

#[test]
fn f8_an_engine_that_hangs_is_given_up_at_a_deadline_and_nothing_is_undone() {
    holds("f8", Fault::Hangs);
}

#[test]
fn f9_without_events_every_change_is_seen_all_the_same() {
    let (mut rig, proxy, before) = behind_a_proxy("f9");
    proxy.set(Fault::NoEvents);
    rig.ready("ann-one");
    run("docker", &["kill", &id(&before)]);
    let after = rig.see("was restarted", "ann-one", |view| {
        view["status"]["container"]["restarts"] == 1 && condition(view, "Ready").0 == "True"
    });
    run("docker", &["rm", "-f", &id(&after)]);
    rig.see("was made again", "ann-one", |view| {
        view["status"]["container"]["attempt"] == 2 && condition(view, "Ready").0 == "True"
    });
    rig.remove("a.yaml");
    rig.gone("ann-one");
}

#[test]
fn f10_an_engine_that_answers_with_errors_is_no_reason_to_undo_anything() {
    holds("f10-500", Fault::Status(500));
}

#[test]
fn f10_an_engine_that_knows_no_page_is_not_one_without_containers() {
    holds("f10-404", Fault::Status(404));
}

#[test]
fn f10_an_engine_that_talks_garbage_is_no_reason_to_undo_anything() {
    holds("f10-garbage", Fault::Garbage);
}

#[test]
fn f10_an_answer_that_never_ends_is_given_up() {
    holds("f10-slow", Fault::Slow);
}

#[test]
fn f10_half_a_list_is_not_a_list() {
    holds("f10-half", Fault::Truncated);
}

#[test]
fn f18_a_container_edited_by_hand_is_put_right() {
    let mut rig = Rig::new("f18");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    run("docker", &["update", "--memory", "32m", "--memory-swap", "32m", &id(&before)]);
    rig.until("the limit is as the class says", |rig| {
        let Some((now, _, _)) = rig.containers().into_iter().next() else { return false };
        let out = std::process::Command::new("docker")
            .args(["inspect", "-f", "{{.HostConfig.Memory}}", &now])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).trim() == "67108864"
    });
    rig.ready("ann-one");
}

/// The ledger is damaged while nobody runs; then everything is as it was.
fn survives_damage(name: &str, damage: impl Fn(&std::path::Path)) {
    let mut rig = Rig::new(name);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    http(&before, "POST", "/write?path=mine.txt", "mine");
    rig.kill();
    damage(&rig.path("state/db"));
    rig.start();
    let after = rig.ready("ann-one");
    assert_eq!(life(&after), life(&before));
    assert_eq!(http(&after, "GET", "/read?path=mine.txt", "").1, "mine");
    assert_eq!(rig.containers().len(), 1);
    // What was rebuilt is held until its source was seen.
    rig.seen("a.yaml");
    rig.see("has its source", "ann-one", |view| condition(view, "PruneHeld").0.is_empty());
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert_eq!(stored(&rig, "ann", "one", "mine.txt").as_deref(), Some("mine"));
}

fn largest(db: &std::path::Path) -> std::fs::File {
    let listed = run("find", &[db.to_str().unwrap(), "-type", "f", "-name", "db"]);
    let file = listed.lines().next().expect("sled's file");
    std::fs::OpenOptions::new().read(true).write(true).open(file).unwrap()
}

#[test]
fn f30_a_ledger_cut_short_is_rebuilt_and_nothing_is_destroyed() {
    survives_damage("f30-cut", |db| largest(db).set_len(100).unwrap());
}

#[test]
fn f30_a_flipped_byte_in_the_ledger_destroys_nothing() {
    survives_damage("f30-flip", |db| {
        let file = largest(db);
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], 0).unwrap();
    });
}

#[test]
fn f30_a_page_of_zeroes_in_the_ledger_destroys_nothing() {
    survives_damage("f30-zero", |db| largest(db).write_all_at(&[0; 4096], 0).unwrap());
}

#[test]
fn f30_garbage_at_the_end_of_the_ledger_destroys_nothing() {
    survives_damage("f30-tail", |db| {
        let mut file = largest(db);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(&[0xa5; 5000]).unwrap();
    });
}

#[test]
fn f30_an_empty_ledger_is_rebuilt_and_nothing_is_destroyed() {
    survives_damage("f30-empty", |db| {
        std::fs::remove_dir_all(db).unwrap();
        std::fs::create_dir(db).unwrap();
    });
}

#[test]
fn f31_a_broken_file_keeps_its_last_good_and_the_other_files_go_on() {
    let mut rig = Rig::new("f31");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    rig.write("a.yaml", "kind: Session\nspec: {{{ no\n\u{1}");
    rig.see("is told", "ann-one", |view| condition(view, "Accepted").0 == "False");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.ready("bob-two");
    assert_eq!(life(&rig.get("ann-one").unwrap()), life(&before));
    rig.kill();
    rig.start();
    assert_eq!(life(&rig.ready("ann-one")), life(&before), "it is remembered over a restart");
}

#[test]
fn f32_a_file_that_is_being_written_is_not_acted_on_before_it_is_whole() {
    let mut rig = Rig::new("f32");
    rig.start();
    let text = session("ann-one", "ann", "one-of-many", "  state: Stopped");
    // A writer that was held up for longer than two looks are apart proves nothing: once more.
    let written = (0..20).any(|_| {
        let mut file = std::fs::File::create(rig.path("specs/a.yaml")).unwrap();
        let mut last = Instant::now();
        for byte in text.as_bytes() {
            file.write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(15)); // the fault itself: a slow writer
            let acted = (*byte == b'\n').then(|| rig.get("ann-one").is_some());
            if last.elapsed() > Duration::from_millis(200) {
                drop(file);
                rig.remove("a.yaml");
                rig.gone("ann-one");
                return false;
            }
            assert_ne!(acted, Some(true), "half a file was acted on");
            last = Instant::now();
        }
        true
    });
    assert!(written, "this machine is too busy for a test of time");
    let view = rig.see("is admitted", "ann-one", |view| view["metadata"]["generation"] != 0);
    assert_eq!(view["spec"]["case"], "one-of-many");
    assert_eq!(view["metadata"]["generation"], 1, "{view:#}");
}

#[test]
fn f33_a_directory_replaced_by_an_empty_one_ends_nothing() {
    let mut rig = Rig::new("f33");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    std::fs::rename(rig.path("specs"), rig.path("away")).unwrap();
    std::fs::create_dir(rig.path("specs")).unwrap();
    let began = Instant::now();
    rig.until("time enough for a mistake", |rig| {
        assert_eq!(life(&rig.get("ann-one").expect("it is held")), life(&before));
        began.elapsed() > Duration::from_secs(6)
    });
    std::fs::remove_dir(rig.path("specs")).unwrap();
    std::fs::rename(rig.path("away"), rig.path("specs")).unwrap();
    rig.write("a.yaml", &session("ann-one", "ann", "one", "  state: Stopped"));
    rig.see("follows its file again", "ann-one", |view| view["status"]["phase"] == "Stopped");
}

#[test]
fn f35_files_made_to_choke_a_parser_are_told_and_others_go_on() {
    let mut rig = Rig::new("f35");
    rig.start();
    let huge = format!("{}# {}\n", session("huge", "h", "c", ""), "x".repeat(65 * 1024));
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (one, next) in ["a", "b", "c", "d", "e", "f", "g", "h"].windows(2).map(|w| (w[0], w[1])) {
        bomb.push_str(&format!("{next}: &{next} [{}]\n", vec![format!("*{one}"); 10].join(", ")));
    }
    rig.write("huge.yaml", &huge);
    rig.write("bomb.yaml", &bomb);
    rig.write("deep.yaml", &"[".repeat(60_000));
    let began = Instant::now();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    rig.until("each is complained of", |rig| {
        let said = rig.docket(&["get", "sources"]).stdout;
        ["huge.yaml", "bomb.yaml", "deep.yaml"].iter().all(|name| said.contains(name))
    });
    assert!(rig.get("huge").is_none());
}

#[test]
fn f36_names_that_lead_out_are_refused_and_odd_file_names_hurt_nobody() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut rig = Rig::new("f36");
    rig.start();
    for (n, user) in ["..", "a/b", "\"a\\0b\"", "/etc", "../../x"].into_iter().enumerate() {
        let text = session(&format!("bad{n}"), user, "c", "");
        rig.write(&format!("bad{n}.yaml"), &text);
    }
    rig.write("worse.yaml", &session("../../x", "ann", "c", ""));
    let odd = rig.path("specs").join(std::ffi::OsStr::from_bytes(b"odd-\xff.yaml"));
    std::fs::write(odd, session("odd", "odd", "c", "  state: Stopped")).unwrap();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    rig.until("each is complained of", |rig| {
        let said = rig.docket(&["get", "sources"]).stdout;
        (0..5).all(|n| said.contains(&format!("bad{n}.yaml"))) && said.contains("worse.yaml")
    });
    assert_eq!(rig.containers().len(), 1);
    assert!(!exists(&rig.path("x")));
    assert!(!exists(&rig.path("workspaces/..").join("active")));
}

#[test]
fn f37_links_in_a_workspace_are_never_followed() {
    let mut rig = Rig::new("f37");
    rig.start();
    std::fs::write(rig.path("secret"), "of the host").unwrap();
    std::fs::create_dir(rig.path("outside")).unwrap();
    std::fs::write(rig.path("outside/secret"), "of the host").unwrap();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    let link = |name: &str, to: &str| {
        let asked = format!("/do?op=symlink&path={name}&from={to}");
        assert_eq!(http(&view, "POST", &asked, "").0, 200, "{asked}");
    };
    link("leak", rig.path("secret").to_str().unwrap());
    link("sub", rig.path("outside").to_str().unwrap());
    link("up", "../../../../secret");
    http(&view, "POST", "/write?path=real.txt", "mine");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(stored(&rig, "ann", "one", "real.txt").as_deref(), Some("mine"));
    let found = std::process::Command::new("grep")
        .args(["-rl", "of the host"])
        .arg(rig.path("objects"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert!(exists(&rig.path("secret")) && exists(&rig.path("outside/secret")));
}
