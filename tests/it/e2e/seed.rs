//! Rows of the platform that docket replaces, each with tests named after it: what that platform
//! did is done here too, and its fault is not.

use serde_json::{Value, json};

use super::rig::{Rig, class, condition, exists, http, run, session, stored};

/// The example that says all that the platform had in its code.
const LEGAL: &str = include_str!("../../../examples/legal.yaml");
const ALICE: &str = "alice-smith-v-jones";

const FOLDERS: [&str; 8] = [
    "pleadings",
    "motions",
    "discovery",
    "exhibits",
    "correspondence",
    "research",
    "drafts",
    "final",
];

fn id(view: &Value) -> String {
    view["status"]["container"]["id"].as_str().unwrap().to_owned()
}

fn inspect(view: &Value) -> Value {
    let text = run("docker", &["inspect", &id(view)]);
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// Puts a case into the store as another service would: files, and rows of its manifest.
fn in_store(rig: &Rig, user: &str, case: &str, files: &[(&str, &str)], rows: &Value) {
    let prefix = rig.path("objects").join(user).join(case);
    std::fs::create_dir_all(&prefix).unwrap();
    for (key, text) in files {
        let file = prefix.join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    std::fs::write(prefix.join("manifest.json"), rows.to_string()).unwrap();
}

fn read(rig: &Rig, user: &str, case: &str, path: &str) -> Option<String> {
    std::fs::read_to_string(rig.workspace(user, case).join(path)).ok()
}

/// A rig with the example as it stands, started with the platform's prefix.
fn legal(name: &str) -> (Rig, Value) {
    let mut rig = Rig::new(name);
    rig.write("legal.yaml", LEGAL);
    rig.start();
    let view = rig.ready(ALICE);
    (rig, view)
}

/// The image's command cannot be run, and the status says so.
fn cannot_start(view: &Value) -> bool {
    ["Ready", "ContainerReady", "Stalled"].into_iter().any(|kind| {
        let (_, reason, _) = condition(view, kind);
        reason == "StartFailed" || reason == "CommandInvalid"
    })
}

// Image, limits, security.

#[test]
fn seed_the_legal_class_makes_the_container_of_the_platform_and_hardens_it() {
    let (rig, view) = legal("seed-class");
    let inspected = inspect(&view);
    let host = &inspected["HostConfig"];
    assert!(!inspected["Config"]["Image"].as_str().unwrap_or_default().is_empty());
    assert_eq!(host["Memory"], 4_u64 << 30);
    let nano = host["NanoCpus"].as_u64().unwrap();
    let quota = (host["CpuQuota"].as_u64().unwrap(), host["CpuPeriod"].as_u64().unwrap());
    assert!(nano == 2_000_000_000 || quota == (200_000, 100_000), "{nano} {quota:?}");
    assert_eq!(host["RestartPolicy"]["Name"], "no");
    assert_eq!(host["CapDrop"], json!(["ALL"]));
    let mut caps: Vec<String> = host["CapAdd"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cap| cap.as_str().unwrap().trim_start_matches("CAP_").to_owned())
        .collect();
    caps.sort();
    assert_eq!(caps, ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]);
    let options = host["SecurityOpt"].to_string();
    assert!(options.contains("no-new-privileges"), "{options}");
    assert!(!options.contains("unconfined"), "{options}");
    assert_eq!(host["ReadonlyRootfs"], false);
    assert_eq!(host["Tmpfs"]["/tmp"], "rw,noexec,nosuid,size=1g");
    assert_eq!(host["NetworkMode"], format!("docket-{}", rig.installation));
    let info = http(&view, "GET", "/info", "").1;
    assert!(info.to_lowercase().contains("seccomp"), "{info}");
}

#[test]
fn seed_seccomp_unconfined_is_refused_unless_the_operator_allows_it() {
    let mut rig = Rig::new("seed-seccomp");
    let unconfined = LEGAL.replace("seccomp: RuntimeDefault", "seccomp: Unconfined");
    assert_ne!(unconfined, LEGAL);
    rig.write("legal.yaml", &unconfined);
    rig.start();
    let view = rig.see("is refused", ALICE, |view| condition(view, "Accepted").0 == "False");
    assert!(condition(&view, "Accepted").2.contains("seccomp"), "{view:#}");
    assert_eq!(rig.containers(), []);
    rig.term();
    rig.configure("allow: {unconfinedSeccomp: true}");
    rig.start();
    let view = rig.ready(ALICE);
    assert!(inspect(&view)["HostConfig"]["SecurityOpt"].to_string().contains("unconfined"));
}

// Host ports.

#[test]
fn seed_host_ports_survive_a_restart() {
    let mut rig = Rig::new("seed-ports");
    rig.start();
    for n in 0..3 {
        rig.write(&format!("s{n}.yaml"), &session(&format!("s{n}"), &format!("u{n}"), "c", ""));
    }
    let ports = |rig: &mut Rig| -> Vec<u64> {
        (0..3).map(|n| rig.ready(&format!("s{n}"))["status"]["port"].as_u64().unwrap()).collect()
    };
    let before = ports(&mut rig);
    rig.kill();
    rig.start();
    assert_eq!(ports(&mut rig), before);
    // What the restarted operator hands out next is none of those that are held.
    rig.write("d.yaml", &session("s3", "u3", "c", ""));
    let next = rig.ready("s3")["status"]["port"].as_u64().unwrap();
    assert!(!before.contains(&next), "{next} of {before:?} was given twice");
}

#[test]
fn seed_a_failed_start_leaks_no_host_port() {
    let mut rig = Rig::new("seed-leak");
    let port = rig.ports.0;
    rig.ports = (port, port);
    rig.configure("");
    rig.start();
    for round in 0..2 {
        let more = "  container: {image: \"docket-sample:broken\"}";
        rig.write("a.yaml", &session("bad", "ann", "one", more));
        rig.see("fails to start", "bad", |view| condition(view, "ContainerReady").0 == "False");
        rig.remove("a.yaml");
        rig.gone("bad");
        let good = format!("good-{round}");
        rig.write("b.yaml", &session(&good, "bob", "two", ""));
        assert_eq!(rig.ready(&good)["status"]["port"], port, "the only port is free again");
        rig.remove("b.yaml");
        rig.gone(&good);
    }
}

#[test]
fn seed_ports_are_published_on_loopback_only() {
    let (_rig, view) = legal("seed-loop");
    let bindings = &inspect(&view)["NetworkSettings"]["Ports"]["3000/tcp"];
    for binding in bindings.as_array().unwrap() {
        assert_eq!(binding["HostIp"], "127.0.0.1");
    }
    assert!(view["status"]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
}

// Names and environment.

#[test]
fn seed_a_containers_name_says_whose_it_is() {
    let mut rig = Rig::new("seed-name");
    let name = format!("kim-{}", std::process::id());
    rig.write("a.yaml", &session(&name, "kim", "one", ""));
    rig.spawn(&[("DOCKET_CONTAINER_PREFIX", "legal-session")]);
    rig.answers();
    let view = rig.ready(&name);
    assert_eq!(view["status"]["container"]["name"], format!("legal-session-{name}-1"));
    let labels = &inspect(&view)["Config"]["Labels"];
    assert_eq!(labels["docket.dev/session"], name);
    assert_eq!(labels["docket.dev/user"], "kim");
    assert_eq!(labels["docket.dev/case"], "one");
}

#[test]
fn seed_the_environment_of_the_platform_is_there() {
    let (_rig, view) = legal("seed-env");
    let env = http(&view, "GET", "/env", "").1;
    for line in [
        "USER_ID=alice",
        "CASE_ID=smith-v-jones",
        "WORKSPACE_BASE=/opt/workspace",
        "OPENHANDS_USER_ID=alice",
        "PYTHONPATH=/opt/openhands",
    ] {
        assert!(env.lines().any(|other| other == line), "{line} in {env}");
    }
}

// Mounts.

#[test]
fn seed_a_session_sees_its_own_case_and_by_scope_user_all_of_them() {
    let mut rig = Rig::new("seed-scope");
    let wide = class("wide", "").replace("workspace: {", "workspace: {scope: User, ");
    assert!(wide.contains("scope: User"));
    rig.write("wide.yaml", &wide);
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("ann-two", "ann", "two", "").replace("legal", "wide"));
    let (one, two) = (rig.ready("ann-one"), rig.ready("ann-two"));
    http(&one, "POST", "/write?path=/opt/workspace/active/one/drafts/a.txt", "of one");
    assert_eq!(read(&rig, "ann", "one", "drafts/a.txt").as_deref(), Some("of one"));
    http(&two, "POST", "/write?path=/opt/workspace/active/two/drafts/b.txt", "of two");
    assert_eq!(read(&rig, "ann", "two", "drafts/b.txt").as_deref(), Some("of two"));
    let (status, _) = http(&one, "GET", "/read?path=/opt/workspace/active/two/drafts/b.txt", "");
    assert_eq!(status, 404, "the other case is not shown");
    let (_, text) = http(&two, "GET", "/read?path=/opt/workspace/active/one/drafts/a.txt", "");
    assert_eq!(text, "of one");
}

#[test]
fn seed_the_docker_socket_is_mounted_only_where_the_operator_allows_it() {
    let mut rig = Rig::new("seed-socket");
    let asks = LEGAL.replace("dockerSocket: false", "dockerSocket: true");
    assert_ne!(asks, LEGAL);
    rig.write("legal.yaml", &asks);
    rig.start();
    let view = rig.see("is refused", ALICE, |view| condition(view, "Accepted").0 == "False");
    assert!(condition(&view, "Accepted").2.contains("dockerSocket"), "{view:#}");
    rig.term();
    rig.configure("allow: {dockerSocket: true}");
    rig.start();
    let view = rig.ready(ALICE);
    let mounts = inspect(&view)["Mounts"].to_string();
    assert!(mounts.contains("\"/var/run/docker.sock\""), "{mounts}");
}

// Port 3000, ready.

#[test]
fn seed_the_containers_port_is_3000_and_can_be_another() {
    let mut rig = Rig::new("seed-3000");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    assert!(inspect(&view)["HostConfig"]["PortBindings"]["3000/tcp"].is_array());
    let other = class("other", "")
        .replace("pullPolicy: Never", "pullPolicy: Never, port: 8080, env: {PORT: \"8080\"}");
    rig.write("other.yaml", &other);
    rig.write("b.yaml", &session("bob-two", "bob", "two", "").replace("legal", "other"));
    let view = rig.ready("bob-two");
    assert!(inspect(&view)["HostConfig"]["PortBindings"]["8080/tcp"].is_array());
    assert_eq!(http(&view, "GET", "/health", "").0, 200);
}

#[test]
fn seed_ready_is_health_with_200_and_is_seen_in_less_than_a_polling_second() {
    let mut rig = Rig::new("seed-ready");
    rig.start();
    let more = "  container: {env: {HEALTH_DELAY_MS: \"2500\"}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    let early = rig.see("runs", "ann-one", |view| condition(view, "ContainerReady").0 == "True");
    if http(&early, "GET", "/health", "").0 != 200 {
        assert_eq!(condition(&early, "Ready").0, "False", "{early:#}");
    }
    let view = rig.ready("ann-one");
    assert_eq!(http(&view, "GET", "/health", "").0, 200);
    // Liveness goes on after that.
    http(&view, "POST", "/unhealthy", "");
    rig.see("is no longer healthy", "ann-one", |view| condition(view, "Healthy").0 == "False");
}

#[test]
fn seed_a_slow_health_body_blocks_nobody_else() {
    let mut rig = Rig::new("seed-slow");
    rig.start();
    for (n, mode) in ["drip", "endless", "slow"].into_iter().enumerate() {
        let more = format!("  container: {{env: {{HEALTH_MODE: {mode}}}}}");
        rig.write(&format!("x{n}.yaml"), &session(&format!("x{n}"), &format!("x{n}"), "c", &more));
    }
    for n in 0..3 {
        rig.see("is there", &format!("x{n}"), |view| !view["status"]["container"].is_null());
    }
    let began = std::time::Instant::now();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
}

// Sessions.

#[test]
fn seed_one_active_container_a_user_is_a_limit_and_holds_across_a_restart() {
    let mut rig = Rig::with("seed-one", "limits: {perUser: 1}");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let first = rig.ready("ann-one");
    rig.kill();
    rig.write("b.yaml", &session("ann-two", "ann", "two", ""));
    rig.start();
    let second = rig.see("waits", "ann-two", |view| view["status"]["phase"] == "Pending");
    assert!(second["status"]["container"].is_null());
    assert_eq!(id(&rig.ready("ann-one")), id(&first), "the first is not orphaned");
    assert_eq!(rig.containers().len(), 1);
    rig.remove("a.yaml");
    rig.gone("ann-one");
    rig.ready("ann-two");
}

#[test]
fn seed_sessions_are_found_by_user_and_by_case() {
    let mut rig = Rig::new("seed-find");
    rig.start();
    for (name, user, case) in [("s0", "ann", "one"), ("s1", "ann", "two"), ("s2", "bob", "one")] {
        rig.write(&format!("{name}.yaml"), &session(name, user, case, "  state: Stopped"));
        rig.see("is known", name, |_| true);
    }
    let names = |rig: &Rig, by: &str| -> Vec<String> {
        rig.ok(&["get", "-l", by, "-o", "name"])
            .lines()
            .map(|line| line.rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&rig, "user=ann"), ["s0", "s1"]);
    assert_eq!(names(&rig, "case=one"), ["s0", "s2"]);
    assert_eq!(names(&rig, "user=ann,case=two"), ["s1"]);
}

#[test]
fn seed_delete_all_ends_everything_even_when_the_operator_dies_in_the_middle() {
    let mut rig = Rig::new("seed-all");
    rig.start();
    for n in 0..3 {
        let file = rig.path(&format!("x{n}.yaml"));
        std::fs::write(&file, session(&format!("s{n}"), &format!("u{n}"), "c", "")).unwrap();
        rig.ok(&["apply", "-f", file.to_str().unwrap()]);
    }
    for n in 0..3 {
        let view = rig.ready(&format!("s{n}"));
        http(&view, "POST", "/write?path=final/last.txt", "kept");
    }
    rig.ok(&["delete", "--all"]);
    rig.kill();
    rig.start();
    for n in 0..3 {
        rig.gone(&format!("s{n}"));
        let user = format!("u{n}");
        assert!(!exists(&rig.workspace(&user, "c")));
        assert_eq!(stored(&rig, &user, "c", "final/last.txt").as_deref(), Some("kept"));
    }
    assert_eq!(rig.containers(), []);
}

#[test]
fn seed_stats_are_the_platforms_and_count_the_cores() {
    let (mut rig, view) = legal("seed-stats");
    http(&view, "POST", "/spin?ms=4000", "");
    let mut row = Value::Null;
    rig.until("it is measured", |rig| {
        let said = rig.docket(&["top", "-o", "json"]);
        let all: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let rows = if all["items"].is_array() { all["items"].clone() } else { all };
        row = rows.as_array().and_then(|rows| rows.first().cloned()).unwrap_or_default();
        row["memory_usage_mb"].as_f64().is_some_and(|used| used > 0.0)
    });
    assert_eq!(row["memory_limit_mb"], 4096.0, "{row:#}");
    for key in [
        "cpu_percent",
        "memory_usage_mb",
        "memory_limit_mb",
        "memory_percent",
        "network_rx_mb",
        "network_tx_mb",
    ] {
        let value = row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row:#}"));
        assert!((value * 100.0 - (value * 100.0).round()).abs() < 1e-6, "{key}: {value}");
        assert!(value >= 0.0, "{key}: {value}");
    }
}

// Workspace and files.

#[test]
fn seed_the_tree_of_a_case_is_the_platforms() {
    let (rig, view) = legal("seed-tree");
    let dir = rig.workspace("alice", "smith-v-jones");
    for folder in FOLDERS {
        assert!(exists(&dir.join(folder).join(".gitkeep")), "{folder}");
    }
    assert_eq!(view["status"]["workspace"], dir.to_str().unwrap());
    let listed = http(&view, "GET", "/list", "").1;
    assert!(listed.contains("pleadings/.gitkeep"), "{listed}");
}

#[test]
fn seed_a_manifest_from_elsewhere_is_enough_to_bring_the_files() {
    let mut rig = Rig::new("seed-manifest");
    in_store(
        &rig,
        "ann",
        "one",
        &[("up/1.pdf", "first"), ("up/2.pdf", "second")],
        &json!([
            {"logical_path": "pleadings/a.pdf", "file_name": "a.pdf", "size": 5,
             "storage_key": "up/1.pdf"},
            {"logical_path": "motions/b.pdf", "file_name": "b.pdf", "storage_key": "up/2.pdf"},
        ]),
    );
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    assert_eq!(http(&view, "GET", "/read?path=pleadings/a.pdf", "").1, "first");
    assert_eq!(http(&view, "GET", "/read?path=motions/b.pdf", "").1, "second", "size was missing");
    rig.ok(&["sync", "ann-one"]);
    let text = std::fs::read_to_string(rig.path("objects/ann/one/manifest.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
    let row = rows.iter().find(|row| row["logical_path"] == "motions/b.pdf").unwrap();
    assert_eq!(row["storage_key"], "up/2.pdf", "what was not edited is not uploaded");
    assert_eq!(row["size"], 6);
}

#[test]
fn seed_o1_a_manifest_whose_paths_lead_out_is_refused_whole() {
    let mut rig = Rig::new("seed-paths");
    rig.start();
    for (n, path) in ["../../../escaped", "/tmp/escaped", "a/../../b"].into_iter().enumerate() {
        let (name, user) = (format!("s{n}"), format!("u{n}"));
        in_store(
            &rig,
            &user,
            "c",
            &[("k", "bad")],
            &json!([{"logical_path": "fine.txt", "storage_key": "k"},
                    {"logical_path": path, "storage_key": "k"}]),
        );
        rig.write(&format!("{name}.yaml"), &session(&name, &user, "c", ""));
        let view =
            rig.see("is told", &name, |view| condition(view, "FilesReady").1 == "ManifestInvalid");
        assert_eq!(condition(&view, "Ready").0, "False");
    }
    assert!(!exists(&rig.path("workspaces/escaped")));
    assert!(!exists(&rig.path("escaped")));
    assert_eq!(rig.containers(), []);
}

#[test]
fn seed_stub_files_keep_their_names_apart_and_are_never_uploaded() {
    let mut rig = Rig::new("seed-stub");
    let big = "x".repeat(4096);
    in_store(
        &rig,
        "ann",
        "one",
        &[("k1", &big), ("k2", &big), ("k3", "small")],
        &json!([
            {"logical_path": "a.pdf", "storage_key": "k1"},
            {"logical_path": "a.docx", "storage_key": "k2"},
            {"logical_path": "small.txt", "storage_key": "k3"},
        ]),
    );
    rig.start();
    let more = "  workspace: {files: {eagerBelow: 1Ki, large: Stub}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    let view = rig.ready("ann-one");
    assert_eq!(read(&rig, "ann", "one", "small.txt").as_deref(), Some("small"));
    for stub in ["a.pdf.stub", "a.docx.stub"] {
        assert!(exists(&rig.workspace("ann", "one").join(stub)), "{stub}");
    }
    http(&view, "POST", "/write?path=mine.txt", "mine");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(stored(&rig, "ann", "one", "mine.txt").as_deref(), Some("mine"));
    assert_eq!(stored(&rig, "ann", "one", "a.pdf").as_deref(), Some(big.as_str()));
    assert_eq!(stored(&rig, "ann", "one", "a.docx").as_deref(), Some(big.as_str()));
    assert_eq!(stored(&rig, "ann", "one", "a.pdf.stub"), None);
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert_eq!(stored(&rig, "ann", "one", "a.pdf").as_deref(), Some(big.as_str()));
}

#[test]
fn seed_a_failed_download_is_told_and_tried_again_until_it_comes() {
    let mut rig = Rig::new("seed-missing");
    in_store(
        &rig,
        "ann",
        "one",
        &[],
        &json!([{"logical_path": "a.txt", "storage_key": "up/late"}]),
    );
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view =
        rig.see("misses it", "ann-one", |view| condition(view, "FilesReady").1 == "ObjectMissing");
    assert!(condition(&view, "FilesReady").2.contains("a.txt"), "{view:#}");
    let late = rig.path("objects/ann/one/up");
    std::fs::create_dir_all(&late).unwrap();
    std::fs::write(late.join("late"), "at last").unwrap();
    let view = rig.ready("ann-one");
    assert_eq!(http(&view, "GET", "/read?path=a.txt", "").1, "at last");
}

#[test]
fn seed_sync_back_is_incremental_and_takes_dotfiles() {
    let mut rig = Rig::new("seed-sync");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    http(&view, "POST", "/write?path=.env", "hidden");
    http(&view, "POST", "/write?path=drafts/a.txt", "one");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(stored(&rig, "ann", "one", ".env").as_deref(), Some("hidden"));
    let stamp = |rig: &Rig| {
        let found = run(
            "find",
            &[
                rig.path("objects/ann/one/files").to_str().unwrap(),
                "-type",
                "f",
                "-printf",
                "%p %C@\n",
            ],
        );
        let mut lines: Vec<String> = found.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = stamp(&rig);
    http(&view, "POST", "/write?path=drafts/a.txt", "two");
    rig.ok(&["sync", "ann-one"]);
    assert_eq!(stored(&rig, "ann", "one", "drafts/a.txt").as_deref(), Some("two"));
    let after = stamp(&rig);
    assert!(before.iter().all(|line| after.contains(line)), "{before:?}\n{after:?}");
    assert_eq!(after.len(), before.len() + 1, "one edit is one upload: {after:?}");
}

// The end and the beginning.

#[test]
fn seed_a_workspace_is_not_removed_while_its_sync_fails() {
    let mut rig = Rig::new("seed-end");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    rig.ok(&["sync", "ann-one"]);
    // The case's place in the store is gone: a file stands where its directory was.
    std::fs::rename(rig.path("objects/ann"), rig.path("ann.away")).unwrap();
    std::fs::write(rig.path("objects/ann"), "").unwrap();
    http(&view, "POST", "/write?path=last.txt", "kept");
    rig.remove("a.yaml");
    let ending = rig.see("cannot sync", "ann-one", |view| {
        view["status"]["phase"] == "Terminating" && condition(view, "FilesSynced").0 == "False"
    });
    rig.until("its container is stopped", |rig| rig.containers().iter().all(|c| c.2 != "running"));
    assert_eq!(read(&rig, "ann", "one", "last.txt").as_deref(), Some("kept"), "{ending:#}");
    std::fs::remove_file(rig.path("objects/ann")).unwrap();
    std::fs::rename(rig.path("ann.away"), rig.path("objects/ann")).unwrap();
    rig.gone("ann-one");
    assert_eq!(stored(&rig, "ann", "one", "last.txt").as_deref(), Some("kept"));
    assert!(!exists(&rig.workspace("ann", "one")));
}

#[test]
fn seed_the_end_syncs_after_the_stop_too() {
    let mut rig = Rig::new("seed-stop");
    rig.start();
    let more = "  container: {env: {WRITE_ON_TERM: final/last.txt}}";
    rig.write("a.yaml", &session("ann-one", "ann", "one", more));
    rig.ready("ann-one");
    rig.remove("a.yaml");
    rig.gone("ann-one");
    assert!(stored(&rig, "ann", "one", "final/last.txt").is_some());
    assert_eq!(rig.containers(), []);
}

#[test]
fn seed_a_failed_start_keeps_the_workspace() {
    let mut rig = Rig::new("seed-keep");
    rig.start();
    let broken = session("ann-one", "ann", "one", "  container: {image: \"docket-sample:broken\"}");
    rig.write("a.yaml", &broken);
    rig.see("fails to start", "ann-one", cannot_start);
    std::fs::write(rig.workspace("ann", "one").join("mine.txt"), "mine").unwrap();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    assert_eq!(http(&view, "GET", "/read?path=mine.txt", "").1, "mine");
    // The same for one that ran before: it goes back to what ran.
    rig.write("a.yaml", &broken);
    let view = rig.see("is rolled back", "ann-one", |view| {
        condition(view, "UpToDate").1 == "RolledBack" && condition(view, "Ready").0 == "True"
    });
    assert_eq!(http(&view, "GET", "/read?path=mine.txt", "").1, "mine");
}

#[test]
fn seed_the_record_tells_container_port_case_and_path_and_ends_with_the_session() {
    let (mut rig, view) = legal("seed-record");
    let full = inspect(&view)["Id"].as_str().unwrap().to_owned();
    assert!(full.starts_with(&id(&view)));
    assert_eq!(view["status"]["address"], format!("127.0.0.1:{}", view["status"]["port"]));
    assert_eq!(view["spec"]["case"], "smith-v-jones");
    assert_eq!(
        view["status"]["workspace"],
        rig.workspace("alice", "smith-v-jones").to_str().unwrap()
    );
    rig.kill();
    rig.start();
    let again = rig.ready(ALICE);
    for key in ["port", "workspace", "address"] {
        assert_eq!(again["status"][key], view["status"][key], "{key}");
    }
    rig.remove("legal.yaml");
    rig.gone(ALICE);
}

// Errors.

#[test]
fn seed_every_error_of_the_platform_has_a_reason_of_its_own() {
    let mut rig = Rig::new("seed-errors");
    rig.write("legal.yaml", &class("legal", "").replace("startup: 20s", "startup: 2s"));
    rig.start();
    let image = |image: &str| format!("  container: {{image: \"{image}\"}}");
    rig.write("p.yaml", &session("provision", "p", "c", &image("no-such-image:v1")));
    rig.write("b.yaml", &session("broken", "b", "c", &image("docket-sample:broken")));
    let never = "  container: {env: {HEALTH_STATUS: \"503\"}}";
    rig.write("t.yaml", &session("late", "t", "c", never));
    in_store(&rig, "m", "c", &[], &json!([{"logical_path": "a", "storage_key": "none"}]));
    rig.write("m.yaml", &session("material", "m", "c", ""));
    rig.see("has no image", "provision", |view| condition(view, "ImageReady").1 == "ImageMissing");
    rig.see("cannot start", "broken", cannot_start);
    rig.see("is late", "late", |view| {
        view["status"]["container"]["lastTermination"]["reason"] == "StartupTimeout"
    });
    rig.see("misses a file", "material", |view| condition(view, "FilesReady").1 == "ObjectMissing");
}
