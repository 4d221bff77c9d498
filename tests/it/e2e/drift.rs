//! What others do to containers: each is seen, told and mended, and costs nobody a file.

use super::rig::{Rig, class, condition, exchange, exists, http, run, session, stored};

fn one(name: &str) -> (Rig, serde_json::Value) {
    let mut rig = Rig::new(name);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    (rig, view)
}

fn id(view: &serde_json::Value) -> String {
    view["status"]["container"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn f14_a_killed_container_is_started_again_and_told_as_killed() {
    let (mut rig, before) = one("killed");
    run("docker", &["kill", &id(&before)]);
    let after = rig.see("was restarted", "ann-one", |view| {
        view["status"]["container"]["restarts"] == 1 && condition(view, "Ready").0 == "True"
    });
    assert_eq!(id(&after), id(&before), "the same container");
    assert_eq!(after["status"]["container"]["lastTermination"]["reason"], "Killed");
    assert_eq!(after["status"]["container"]["lastTermination"]["exitCode"], 137);
}

#[test]
fn f14_a_container_that_ends_at_once_gets_into_a_crash_loop_and_others_go_on() {
    let mut rig = Rig::new("loop");
    rig.start();
    let more = "  container: {env: {EXIT_AFTER_MS: \"1\", EXIT_CODE: \"3\"}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let view =
        rig.see("is in a crash loop", "ann-one", |view| view["status"]["phase"] == "CrashLoop");
    assert_eq!(view["status"]["container"]["lastTermination"]["exitCode"], 3);
    assert_eq!(view["status"]["container"]["lastTermination"]["reason"], "Error");
    assert!(view["status"]["retry"]["failures"].as_u64().unwrap() >= 3);
    rig.ready("bob-two");
    rig.remove("a.yaml");
    rig.gone("ann-one");
}

#[test]
fn f15_a_removed_container_is_made_again_with_its_files() {
    let (mut rig, before) = one("removed");
    http(&before, "POST", "/write?path=mine.txt", "mine");
    run("docker", &["rm", "-f", &id(&before)]);
    let after = rig.see("has a new container", "ann-one", |view| {
        view["status"]["container"]["attempt"] == 2 && condition(view, "Ready").0 == "True"
    });
    assert_eq!(after["status"]["port"], before["status"]["port"]);
    assert_eq!(http(&after, "GET", "/read?path=mine.txt", "").1, "mine");
}

#[test]
fn f16_a_paused_container_is_thawed() {
    let (mut rig, before) = one("paused");
    run("docker", &["pause", &id(&before)]);
    rig.until("it runs again", |rig| rig.containers().iter().all(|c| c.2 == "running"));
    let after = rig.ready("ann-one");
    assert_eq!(id(&after), id(&before));
}

#[test]
fn f17_a_container_that_never_answers_is_stopped_at_its_budget_and_tried_again() {
    let mut rig = Rig::new("never");
    rig.write("legal.yaml", &class("legal", "").replace("startup: 20s", "startup: 2s"));
    rig.start();
    let more = "  container: {env: {HEALTH_MODE: hang}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    let view = rig.see("timed out", "ann-one", |view| {
        view["status"]["container"]["lastTermination"]["reason"] == "StartupTimeout"
    });
    assert_eq!(condition(&view, "Ready").0, "False");
    assert!(exists(&rig.workspace("ann", "one")), "its workspace is kept");
    assert_eq!(rig.containers().len(), 1);
}

#[test]
fn a_container_that_becomes_unhealthy_is_restarted() {
    let (mut rig, before) = one("unhealthy");
    http(&before, "POST", "/unhealthy", "");
    let after = rig.see("was restarted", "ann-one", |view| {
        view["status"]["container"]["restarts"] == 1 && condition(view, "Ready").0 == "True"
    });
    assert_eq!(after["status"]["container"]["lastTermination"]["reason"], "Unhealthy");
}

#[test]
fn f11_a_missing_image_says_so_and_leaves_no_half_session_behind() {
    let mut rig = Rig::new("noimage");
    rig.start();
    let more = "  container: {image: \"no-such-image:v9\"}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    let view = rig.see("misses its image", "ann-one", |view| {
        condition(view, "ImageReady").1 == "ImageMissing"
    });
    assert!(condition(&view, "ImageReady").2.contains("no-such-image:v9"));
    assert_eq!(rig.containers(), []);
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
}

#[test]
fn f12_a_foreign_container_with_the_name_is_not_touched_and_the_next_number_is_taken() {
    let mut rig = Rig::new("foreign");
    let name = format!("{}-ann-one-1", rig.installation);
    run("docker", &["create", "--name", &name, "docket-sample:latest"]);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    let state = run("docker", &["inspect", "-f", "{{.State.Status}}", &name]);
    run("docker", &["rm", "-f", &name]);
    assert_eq!(view["status"]["container"]["attempt"], 2);
    assert_eq!(state.trim(), "created", "it is as it was");
}

#[test]
fn f13_a_port_held_by_a_foreign_process_is_passed_over() {
    let mut rig = Rig::new("port");
    let squatter = std::net::TcpListener::bind(("127.0.0.1", rig.ports.0)).unwrap();
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    drop(squatter);
    assert_ne!(view["status"]["port"], rig.ports.0);
    assert_eq!(rig.containers().len(), 1, "the one that could not start is gone");
}

#[test]
fn a_session_that_has_not_answered_yet_is_not_ready() {
    let mut rig = Rig::new("squat");
    rig.write("legal.yaml", &class("legal", "").replace("startup: 20s", "startup: 60s"));
    rig.start();
    rig.write(
        "a.yaml",
        &session("ann-one", "ann", "one", "  container: {env: {HEALTH_DELAY_MS: \"4000\"}}"),
    );
    let starting = rig.see("runs", "ann-one", |view| condition(view, "ContainerReady").0 == "True");
    assert_eq!(condition(&starting, "Ready").0, "False");
    rig.ready("ann-one");
}

#[test]
fn a_full_pool_says_so_and_waits_for_a_port() {
    let mut rig = Rig::new("pool");
    let port = rig.ports.0;
    rig.ports = (port, port);
    rig.configure("");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.see("waits for a port", "bob-two", |view| {
        condition(view, "PortReady").1 == "PoolExhausted"
    });
    rig.remove("a.yaml");
    let view = rig.ready("bob-two");
    assert_eq!(view["status"]["port"], port);
}

#[test]
fn the_same_case_twice_is_given_to_the_first() {
    let (mut rig, _) = one("twice");
    rig.write("b.yaml", &session("other", "ann", "one", ""));
    let view =
        rig.see("is refused", "other", |view| condition(view, "Accepted").1 == "WorkspaceInUse");
    assert_eq!(view["status"]["phase"], "Rejected");
    rig.ready("ann-one");
}

#[test]
fn f34_one_name_in_two_files_holds_both_as_they_were() {
    let (mut rig, before) = one("dup");
    let more = "  container: {env: {OTHER: \"1\"}}";
    rig.write("b.yaml", &session("ann-one", "ann", "one", more));
    let held =
        rig.see("is held", "ann-one", |view| condition(view, "Accepted").1 == "DuplicateName");
    assert_eq!(id(&held), id(&before));
    rig.remove("b.yaml");
    rig.see("goes on", "ann-one", |view| condition(view, "Accepted").0 == "True");
}

#[test]
fn containers_cannot_reach_each_other() {
    let mut rig = Rig::new("icc");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let (one, two) = (rig.ready("ann-one"), rig.ready("bob-two"));
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let inner = run("docker", &["inspect", "-f", format, &id(&two)]);
    let path = format!("/fetch?address={}:3000&ms=1500", inner.trim());
    let (status, body) = http(&one, "GET", &path, "");
    assert!(status != 200, "one reached two: {status} {body}");
    let address = two["status"]["address"].as_str().unwrap();
    assert_eq!(exchange(address, "GET", "/health", "").unwrap().0, 200, "published on loopback");
}

#[test]
fn a_conflicting_edit_in_the_store_keeps_both() {
    let (mut rig, view) = one("conflict");
    http(&view, "POST", "/write?path=shared.txt", "first");
    rig.until("it is stored", |rig| stored(rig, "ann", "one", "shared.txt").is_some());
    rig.ok(&["suspend", "ann-one"]);
    let prefix = rig.path("objects/ann/one");
    rig.term();
    // Somebody else commits another version while nobody looks.
    let manifest = prefix.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    std::fs::write(prefix.join("files/theirs"), "theirs").unwrap();
    for row in &mut rows {
        if row["logical_path"] == "shared.txt" {
            *row = serde_json::json!({"logical_path": "shared.txt", "storage_key": "files/theirs"});
        }
    }
    std::fs::write(&manifest, serde_json::to_string(&rows).unwrap()).unwrap();
    std::fs::write(rig.workspace("ann", "one").join("shared.txt"), "mine").unwrap();
    rig.start();
    rig.ok(&["sync", "ann-one"]);
    let dir = rig.workspace("ann", "one");
    let names: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let copy = names.iter().find(|name| name.starts_with("shared (conflict ann ")).expect("a copy");
    assert_eq!(std::fs::read_to_string(dir.join(copy)).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(dir.join("shared.txt")).unwrap(), "theirs");
}
