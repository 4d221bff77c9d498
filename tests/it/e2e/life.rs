//! One session's life, and what its user may do to it meanwhile.

use super::rig::{Rig, class, condition, exists, http, run, session, stored};

#[test]
fn a_dropped_file_becomes_a_locked_down_healthy_container_and_its_removal_leaves_nothing() {
    let mut rig = Rig::new("life");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    assert_eq!(view["status"]["phase"], "Running");
    assert_eq!(view["status"]["container"]["attempt"], 1);
    let port = view["status"]["port"].as_u64().unwrap();
    assert!((u64::from(rig.ports.0)..=u64::from(rig.ports.1)).contains(&port));
    assert_eq!(http(&view, "GET", "/health", "").0, 200);
    for folder in ["pleadings", "motions", "discovery", "exhibits", "correspondence", "research"] {
        assert!(exists(&rig.workspace("ann", "one").join(folder).join(".gitkeep")), "{folder}");
    }

    let (status, _) = http(&view, "POST", "/write?path=drafts/brief.txt", "whereas");
    assert_eq!(status, 200);
    rig.until("the edit is stored", |rig| {
        stored(rig, "ann", "one", "drafts/brief.txt").as_deref() == Some("whereas")
    });

    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert_eq!(rig.containers(), [], "no container is left");
    assert!(!exists(&rig.workspace("ann", "one")), "no workspace is left");
    assert_eq!(stored(&rig, "ann", "one", "drafts/brief.txt").as_deref(), Some("whereas"));
}

#[test]
fn everything_of_the_class_reaches_the_container() {
    let mut rig = Rig::new("hard");
    let text = "apiVersion: docket.dev/v1
kind: SessionClass
metadata: {name: legal}
spec:
  container:
    image: docket-sample:latest
    pullPolicy: Never
    env: {GREETING: \"hello $(USER_ID)\", A: \"$(B)\"}
    resources: {cpus: \"1.5\", memory: 96Mi, pids: 77}
    security: {runAs: \"1000:1000\", readOnlyRootfs: true}
    tmpfs: {/tmp: \"rw,noexec,nosuid,size=16m\"}
    labels: {traefik.enable: \"true\"}
    logs: {maxSize: 1Mi, maxFiles: 2}
    stopGracePeriod: 2s
";
    rig.write("legal.yaml", text);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    let id = view["status"]["container"]["id"].as_str().unwrap().to_owned();
    let inspected: serde_json::Value =
        serde_json::from_str(&run("docker", &["inspect", &id])).unwrap();
    let (host, config) = (&inspected[0]["HostConfig"], &inspected[0]["Config"]);
    assert_eq!(config["User"], "1000:1000");
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    let caps = host["CapAdd"].as_array().unwrap().len();
    assert_eq!(caps, 5, "{}", host["CapAdd"]);
    let options = host["SecurityOpt"].to_string();
    assert!(options.contains("no-new-privileges"), "{options}");
    assert!(!options.contains("unconfined"), "{options}");
    assert_eq!(host["ReadonlyRootfs"], true);
    assert_eq!(host["Memory"], 96 << 20);
    assert_eq!(host["MemorySwap"], 96 << 20);
    assert_eq!(host["NanoCpus"], 1_500_000_000_u64);
    assert_eq!(host["PidsLimit"], 77);
    assert_eq!(host["Init"], true);
    assert_eq!(host["RestartPolicy"]["Name"], "no");
    assert_eq!(host["LogConfig"]["Config"]["max-file"], "2");
    assert_eq!(host["NetworkMode"], format!("docket-{}", rig.installation));
    assert!(host["Binds"].is_null(), "mounts, never binds");
    assert_eq!(host["Tmpfs"]["/tmp"], "rw,noexec,nosuid,size=16m");
    assert_eq!(config["Labels"]["traefik.enable"], "true");
    assert_eq!(config["Labels"]["docket.dev/user"], "ann");
    let bindings = &host["PortBindings"]["3000/tcp"][0];
    assert_eq!(bindings["HostIp"], "127.0.0.1");
    let env = http(&view, "GET", "/env", "").1;
    for line in [
        "GREETING=hello ann",
        "A=$(B)",
        "USER_ID=ann",
        "CASE_ID=one",
        "WORKSPACE_BASE=/opt/workspace",
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    let owner = run("stat", &["-c", "%u:%g", rig.workspace("ann", "one").to_str().unwrap()]);
    assert_eq!(owner.trim(), "1000:1000", "the workspace belongs to runAs");
    let network = run("docker", &["network", "inspect", &format!("docket-{}", rig.installation)]);
    assert!(network.contains("\"com.docker.network.bridge.enable_icc\": \"false\""), "{network}");
}

#[test]
fn an_edit_of_the_session_recreates_its_container_and_keeps_port_and_files() {
    let mut rig = Rig::new("edit");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    http(&before, "POST", "/write?path=notes.txt", "mine");
    let more = "  container: {env: {FEATURE_X: \"on\"}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    let after = rig.see("runs the new spec", "ann-one", |view| {
        view["status"]["container"]["attempt"] == 2 && condition(view, "Ready").0 == "True"
    });
    assert_eq!(after["status"]["port"], before["status"]["port"]);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["generation"], 2);
    assert_eq!(http(&after, "GET", "/read?path=notes.txt", "").1, "mine");
    assert!(http(&after, "GET", "/env", "").1.contains("FEATURE_X=on"));
    assert_eq!(rig.containers().len(), 1);
}

#[test]
fn more_memory_is_given_in_place_without_a_restart() {
    let mut rig = Rig::new("resize");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    let more = "  container: {resources: {cpus: \"1\", memory: 128Mi, pids: 64}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    let id = before["status"]["container"]["id"].as_str().unwrap().to_owned();
    rig.until("the limit is changed", |_| {
        run("docker", &["inspect", "-f", "{{.HostConfig.Memory}}", &id]).trim() == "134217728"
    });
    let after = rig.ready("ann-one");
    assert_eq!(after["status"]["container"]["id"], before["status"]["container"]["id"]);
    assert_eq!(
        after["status"]["container"]["startedAt"],
        before["status"]["container"]["startedAt"]
    );
}

#[test]
fn a_broken_edit_keeps_the_last_good_spec_and_says_where_it_is_broken() {
    let mut rig = Rig::new("broken");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    rig.write("a.yaml", &session("ann-one", "ann", "one", "  contaner: {}"));
    rig.until("the source is shown as invalid", |rig| {
        let sources = rig.docket(&["get", "sources"]).stdout;
        sources.contains("a.yaml:8:3") && sources.contains("container")
    });
    let held =
        rig.see("stays as it was", "ann-one", |view| condition(view, "Accepted").0 == "False");
    assert_eq!(held["status"]["container"]["id"], before["status"]["container"]["id"]);
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.see("is accepted again", "ann-one", |view| condition(view, "Accepted").0 == "True");
}

#[test]
fn a_new_spec_that_never_gets_ready_is_rolled_back() {
    let mut rig = Rig::new("rollback");
    rig.write("legal.yaml", &class("legal", "").replace("startup: 20s", "startup: 3s"));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    let more = "  container: {env: {HEALTH_STATUS: \"500\"}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    let view = rig.see("runs the last good spec", "ann-one", |view| {
        condition(view, "UpToDate").1 == "RolledBack" && condition(view, "Ready").0 == "True"
    });
    assert!(!http(&view, "GET", "/env", "").1.contains("HEALTH_STATUS"));
}

#[test]
fn stop_keeps_workspace_and_port_and_start_brings_it_back() {
    let mut rig = Rig::new("stop");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    http(&before, "POST", "/write?path=kept.txt", "kept");
    rig.ok(&["stop", "ann-one"]);
    let stopped = rig.see("is stopped", "ann-one", |view| view["status"]["phase"] == "Stopped");
    rig.until("its container is gone", |rig| rig.containers().is_empty());
    assert_eq!(stopped["status"]["override"]["state"], "Stopped");
    assert_eq!(stopped["status"]["port"], before["status"]["port"]);
    assert_eq!(
        std::fs::read_to_string(rig.workspace("ann", "one").join("kept.txt")).unwrap(),
        "kept"
    );
    rig.ok(&["start", "ann-one"]);
    let after = rig.ready("ann-one");
    assert_eq!(after["status"]["port"], before["status"]["port"]);
    assert!(after["status"]["override"].is_null());
}

#[test]
fn what_is_written_while_the_container_stops_is_synced_too() {
    let mut rig = Rig::new("lastword");
    rig.start();
    let more = "  container: {env: {WRITE_ON_TERM: last.txt}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    rig.ready("ann-one");
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert!(stored(&rig, "ann", "one", "last.txt").is_some(), "the last words are stored");
}

#[test]
fn applied_records_live_and_die_by_command_and_files_are_refused() {
    let mut rig = Rig::new("apply");
    rig.start();
    std::fs::write(rig.path("x.yaml"), session("ann-one", "ann", "one", "")).unwrap();
    let file = rig.path("x.yaml");
    let said = rig.ok(&["apply", "-f", file.to_str().unwrap()]);
    assert!(said.contains("ann-one"), "{said}");
    rig.ready("ann-one");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.ready("bob-two");
    assert_eq!(rig.docket(&["delete", "bob-two"]).code, 1, "a file owns it");
    assert_eq!(rig.docket(&["delete", "nobody"]).code, 4);
    rig.ok(&["delete", "ann-one"]);
    rig.ok(&["wait", "ann-one", "--for=deleted", "--timeout", "60s"]);
    assert_eq!(rig.docket(&["get", "ann-one"]).code, 4);
    let all = rig.docket(&["delete", "--all"]);
    assert_eq!(all.code, 1, "what files own is skipped and said: {all:?}");
    rig.ready("bob-two");
    rig.write("b.yaml", "kind: [");
    rig.see("is held", "bob-two", |view| condition(view, "Accepted").1 == "InvalidSpec");
    let said = rig.docket(&["delete", "bob-two"]);
    assert_eq!(said.code, 1, "a broken file owns it all the same: {said:?}");
    assert_eq!(rig.docket(&["delete", "--all"]).code, 1);
    std::fs::write(&file, session("bob-two", "bob", "two", "")).unwrap();
    assert_eq!(rig.docket(&["apply", "-f", file.to_str().unwrap()]).code, 1);
    let said = rig.docket(&["plan"]);
    assert!(said.stderr.contains("warning: b.yaml is not followed (Invalid)"), "{said:?}");
    rig.ready("bob-two");
}

#[test]
fn plan_says_what_would_be_done_and_does_nothing() {
    let mut rig = Rig::new("plan");
    rig.start();
    rig.seen("legal.yaml");
    rig.until("nothing is to be done", |rig| rig.docket(&["plan"]).code == 0);
    std::fs::write(rig.path("x.yaml"), session("ann-one", "ann", "one", "")).unwrap();
    let file = rig.path("x.yaml");
    let said = rig.docket(&["plan", file.to_str().unwrap()]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stdout.contains("create container 1 on port"), "{}", said.stdout);
    assert_eq!(rig.containers(), []);
    assert_eq!(rig.docket(&["get", "ann-one"]).code, 4);
    rig.term();
    assert_eq!(rig.docket(&["plan"]).code, 3, "nobody answers");
}

#[test]
fn sigterm_leaves_containers_running_and_exits_with_zero_in_ten_seconds() {
    let mut rig = Rig::new("term");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    let (code, took) = rig.term();
    assert_eq!(code, Some(0));
    assert!(took.as_secs() < 10, "{took:?}");
    assert_eq!(rig.containers().first().map(|c| c.2.clone()).as_deref(), Some("running"));
    rig.start();
    let after = rig.ready("ann-one");
    for key in ["id", "startedAt", "restarts"] {
        assert_eq!(after["status"]["container"][key], before["status"]["container"][key], "{key}");
    }
}

#[test]
fn many_files_that_vanish_at_once_are_held_until_confirmed() {
    let mut rig = Rig::with("prune", "pruneGuard: {atLeast: 2, percent: 50}");
    rig.start();
    for n in 0..3 {
        let text = session(&format!("s{n}"), &format!("u{n}"), "c", "  state: Stopped");
        rig.write(&format!("s{n}.yaml"), &text);
    }
    for n in 0..3 {
        rig.see("is stopped", &format!("s{n}"), |view| view["status"]["phase"] == "Stopped");
    }
    for n in 0..3 {
        rig.remove(&format!("s{n}.yaml"));
    }
    for n in 0..3 {
        rig.see("is held", &format!("s{n}"), |view| condition(view, "PruneHeld").0 == "True");
    }
    let said = rig.ok(&["confirm-prune"]);
    for n in 0..3 {
        assert!(said.contains(&format!("s{n}")), "{said}");
        rig.gone(&format!("s{n}"));
    }
}

#[test]
fn a_vanished_directory_holds_everything() {
    let mut rig = Rig::new("vanish");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    std::fs::rename(rig.path("specs"), rig.path("away")).unwrap();
    rig.until("the loss is shown", |rig| {
        !rig.docket(&["get", "sources"]).stdout.contains("a.yaml")
            || rig.docket(&["get", "sources"]).stdout.contains("Unreadable")
    });
    std::thread::sleep(std::time::Duration::from_secs(5)); // what must not happen has no event
    let held = rig.get("ann-one").unwrap();
    assert_eq!(held["status"]["container"]["id"], before["status"]["container"]["id"]);
    std::fs::rename(rig.path("away"), rig.path("specs")).unwrap();
    rig.write("a.yaml", &session("ann-one", "ann", "one", "  state: Stopped"));
    rig.see("follows its file again", "ann-one", |view| view["status"]["phase"] == "Stopped");
}

#[test]
fn a_directory_compared_with_what_runs_from_it_is_no_change() {
    let mut rig = Rig::new("diff");
    rig.write("team/ann.yaml", &session("ann", "ann", "one", ""));
    rig.start();
    rig.ready("ann");
    let specs = rig.path("specs").display().to_string();
    rig.ok(&["diff", &specs]);
    let file = rig.path("specs/team/ann.yaml").display().to_string();
    rig.ok(&["plan", &file]);
}

#[test]
fn a_second_operator_of_an_installation_is_refused_whatever_its_state() {
    let mut first = Rig::new("sole");
    first.start();
    let mut second = Rig::new("sole");
    second.spawn(&[("DOCKET_LOG_LEVEL", "info")]);
    assert_eq!(second.wait_exit(), Some(1));
    let told = second.tail();
    assert!(told.contains(&first.path("state").display().to_string()), "{told}");
}

#[test]
fn a_held_session_that_is_deleted_by_command_is_not_listed_any_more() {
    let mut rig = Rig::new("heldend");
    let kept = session("ann", "ann", "one", "")
        .replace("{name: ann}", "{name: ann, annotations: {docket.dev/prune: disabled}}");
    rig.write("ann.yaml", &kept);
    rig.start();
    rig.ready("ann");
    rig.remove("ann.yaml");
    rig.see("is held", "ann", |view| condition(view, "PruneHeld").0 == "True");
    rig.ok(&["delete", "ann"]);
    rig.gone("ann");
    assert_eq!(rig.containers(), []);
}
