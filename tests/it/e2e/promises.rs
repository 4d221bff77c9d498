//! Promises of the interface that no other test keeps an eye on, with the built binary.

use std::time::{Duration, Instant};

use super::rig::{Rig, class, condition, exchange, session};

#[test]
fn an_idle_session_is_stopped_until_it_is_started_and_one_in_use_is_not() {
    let mut rig = Rig::new("idle");
    rig.write("legal.yaml", &class("legal", "  lifetime: {idleTimeout: 3s}"));
    rig.write("quiet.yaml", &session("quiet", "ann", "one", ""));
    rig.write("busy.yaml", &session("busy", "bob", "one", ""));
    rig.start();
    let busy = rig.ready("busy");
    let address = busy["status"]["address"].as_str().unwrap().to_owned();
    // The one that is used outlives the other by far.
    let began = Instant::now();
    let mut stopped = false;
    while !stopped || began.elapsed() < Duration::from_secs(9) {
        let _busy = exchange(&address, "PUT", "/notes.txt", &"x".repeat(32 << 10));
        let quiet = rig.get("quiet").unwrap();
        stopped = quiet["status"]["phase"] == "Stopped";
        assert!(began.elapsed() < super::rig::PATIENCE, "{quiet}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let quiet = rig.get("quiet").unwrap();
    assert_eq!(condition(&quiet, "Ready").1, "Idle", "{quiet}");
    assert_eq!(quiet["status"]["lifetime"], serde_json::Value::Null, "nothing runs: {quiet}");
    let busy = rig.get("busy").unwrap();
    let idle = &busy["status"]["lifetime"]["idle"];
    assert!(["Files", "Network"].iter().any(|sign| idle["usedBy"] == *sign), "{busy}");
    assert!(idle["endsAt"].as_str() > idle["usedAt"].as_str(), "{busy}");
    assert_eq!(condition(&busy, "Ready").0, "True", "{busy}{}", rig.tail());
    assert_eq!(busy["status"]["container"]["attempt"], 1);
    rig.ok(&["start", "quiet"]);
    rig.see("runs again", "quiet", |view| view["status"]["container"]["attempt"] == 2);
}

#[test]
fn an_expired_session_keeps_port_and_files_and_begins_anew_with_an_edit() {
    let mut rig = Rig::new("expired");
    rig.write("legal.yaml", &class("legal", "  lifetime: {maxAge: 8s}"));
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    rig.start();
    let port = rig.ready("a")["status"]["port"].clone();
    let view = rig.see("is expired", "a", |view| {
        condition(view, "Ready").1 == "Expired" && view["status"]["container"]["state"] == "removed"
    });
    assert_eq!(view["status"]["phase"], "Stopped", "{view}");
    assert_eq!(view["status"]["port"], port, "{view}");
    assert!(rig.workspace("ann", "one").join("drafts/.gitkeep").exists());
    rig.write("a.yaml", &session("a", "ann", "one", "  lifetime: {maxAge: 0s}"));
    let view = rig.see("runs again", "a", |view| {
        view["status"]["container"]["attempt"] == 2 && condition(view, "Ready").0 == "True"
    });
    assert_eq!(view["status"]["port"], port, "{view}");
}

#[test]
fn a_directory_that_comes_later_and_swaps_its_files_behind_links_is_followed() {
    use std::os::unix::fs::symlink;
    let mut rig = Rig::new("links");
    let specs = rig.path("specs");
    std::fs::rename(&specs, rig.path("later")).unwrap();
    rig.start();
    rig.until("the missing directory is told", |rig| {
        rig.docket(&["get", "sources"]).stdout.contains("No such file or directory")
    });
    // As a ConfigMap is mounted: a link to a directory of this revision, files as links into it.
    let revision = |at: &str, more: &str| {
        let folder = rig.path(at);
        std::fs::create_dir(&folder).unwrap();
        let more = format!("  state: Stopped\n{more}");
        std::fs::write(folder.join("a.yaml"), session("a", "ann", "one", &more)).unwrap();
    };
    revision("later/..first", "");
    symlink("..first", rig.path("later/..data")).unwrap();
    symlink("..data/a.yaml", rig.path("later/a.yaml")).unwrap();
    std::fs::rename(rig.path("later"), &specs).unwrap();
    revision("specs/..second", "  container: {env: {A: b}}");
    rig.see("is there", "a", |view| view["metadata"]["generation"] == 1);
    symlink("..second", specs.join("..data_tmp")).unwrap();
    std::fs::rename(specs.join("..data_tmp"), specs.join("..data")).unwrap();
    std::fs::remove_dir_all(specs.join("..first")).unwrap();
    rig.see("is of the second revision", "a", |view| {
        view["metadata"]["generation"] == 2 && view["spec"]["container"]["env"]["A"] == "b"
    });
}

#[test]
fn two_of_one_new_name_are_neither_taken() {
    let mut rig = Rig::new("twice");
    let stopped = |more: &str| session("a", "ann", "one", &format!("  state: Stopped\n{more}"));
    rig.write("a.yaml", &format!("{}---\n{}", stopped(""), stopped("  suspend: true")));
    rig.start();
    let view = rig.see("is told twice", "a", |view| condition(view, "Accepted").0 == "False");
    assert_eq!(condition(&view, "Accepted").1, "DuplicateName", "{view}");
    assert_eq!(view["metadata"]["generation"], 0, "{view}");
    rig.write("a.yaml", &stopped(""));
    rig.see("is taken", "a", |view| view["metadata"]["generation"] == 1);
}

#[test]
fn what_is_printed_as_a_name_is_taken_as_one_and_applied_classes_go_by_theirs() {
    let mut rig = Rig::new("names");
    rig.remove("legal.yaml");
    rig.start();
    let both =
        format!("{}---\n{}", class("legal", ""), session("a", "ann", "one", "  state: Stopped"));
    std::fs::write(rig.path("both.yaml"), both).unwrap();
    let file = rig.path("both.yaml").display().to_string();
    let said = rig.ok(&["apply", "-f", &file]);
    assert_eq!(said, "sessionclass/legal created\nsession/a created\n");
    rig.see("is there", "a", |view| view["status"]["phase"] == "Stopped");
    assert_eq!(rig.ok(&["get", "-o", "name"]), "session/a\n");
    rig.ok(&["get", "session/a"]);
    rig.ok(&["explain", "session/a"]);
    assert_eq!(rig.docket(&["delete", "sessionclass/other"]).code, 4);
    assert_eq!(rig.docket(&["delete", "sessionclass/O ther"]).code, 2);
    assert_eq!(rig.ok(&["delete", "sessionclass/legal"]), "sessionclass/legal deleted\n");
    let view =
        rig.see("misses its class", "a", |view| condition(view, "Accepted").1 == "ClassNotFound");
    assert_eq!(view["status"]["phase"], "Stopped", "{view}");
    assert_eq!(rig.ok(&["delete", "session/a"]), "session/a deleted\n");
    rig.gone("a");
    rig.write("legal.yaml", &class("legal", ""));
    rig.seen("legal.yaml");
    let said = rig.docket(&["delete", "sessionclass/legal"]);
    assert!(said.code == 1 && said.stderr.contains("owned by file legal.yaml"), "{said:?}");
}

#[test]
fn a_place_in_the_queue_is_told_as_it_moves() {
    let mut rig = Rig::with("queue", "limits: {sessions: 1, concurrentStarts: 1}");
    for name in ["a", "b", "c"] {
        rig.write(&format!("{name}.yaml"), &session(name, name, "one", ""));
    }
    rig.start();
    rig.ready("a");
    for (name, place) in [("b", 1), ("c", 2)] {
        let view = rig.see("waits", name, |view| view["status"]["queuePosition"] == place);
        assert_eq!(condition(&view, "Ready").1, "LimitReached");
        assert_eq!(view["status"]["phase"], "Pending");
    }
    rig.remove("a.yaml");
    rig.ready("b");
    rig.see("moved up", "c", |view| view["status"]["queuePosition"] == 1);
}
