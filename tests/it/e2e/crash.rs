//! The operator is killed; nothing is lost, doubled or left behind.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::rig::{Rig, condition, exists, http, session, stored};

fn is_ready(view: &Value) -> bool {
    condition(view, "Ready").0 == "True"
}

#[test]
fn a_killed_operator_comes_back_and_touches_nothing_that_is_well() {
    let mut rig = Rig::new("kill9");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let before = rig.ready("ann-one");
    rig.kill();
    http(&before, "POST", "/write?path=while-away.txt", "still here");
    rig.start();
    let after = rig.ready("ann-one");
    for key in ["id", "startedAt", "restarts", "attempt"] {
        assert_eq!(after["status"]["container"][key], before["status"]["container"][key], "{key}");
    }
    assert_eq!(after["status"]["port"], before["status"]["port"]);
    rig.until("the edit is stored", |rig| {
        stored(rig, "ann", "one", "while-away.txt").as_deref() == Some("still here")
    });
}

#[test]
fn a_file_removed_while_nobody_watched_ends_its_session_afterwards() {
    let mut rig = Rig::new("away");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    http(&view, "POST", "/write?path=last.txt", "kept");
    rig.kill();
    rig.remove("a.yaml");
    rig.start();
    rig.gone("ann-one");
    assert_eq!(rig.containers(), []);
    assert!(!exists(&rig.workspace("ann", "one")));
    assert_eq!(stored(&rig, "ann", "one", "last.txt").as_deref(), Some("kept"));
}

#[test]
fn the_whole_state_directory_can_be_lost() {
    let mut rig = Rig::new("lost");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let (one, two) = (rig.ready("ann-one"), rig.ready("bob-two"));
    rig.kill();
    std::fs::remove_dir_all(rig.path("state")).unwrap();
    rig.remove("b.yaml");
    rig.start();
    let again = rig.ready("ann-one");
    assert_eq!(again["metadata"]["uid"], one["metadata"]["uid"]);
    assert_eq!(again["status"]["port"], one["status"]["port"]);
    assert_eq!(again["status"]["container"]["id"], one["status"]["container"]["id"]);
    let held =
        rig.see("is held", "bob-two", |view| condition(view, "PruneHeld").1 == "SourceUnknown");
    assert_eq!(held["status"]["container"]["id"], two["status"]["container"]["id"]);
    rig.ok(&["confirm-prune"]);
    rig.gone("bob-two");
    rig.ready("ann-one");
}

/// Nothing is left but containers and workspaces: those without a source are seen and held, lose
/// nothing when their end is confirmed, and are taken up untouched when their source comes back.
#[test]
fn with_the_copies_of_the_records_lost_too_containers_tell_whose_they_are() {
    let mut rig = Rig::new("labels");
    rig.start();
    for (name, user) in [("ann-one", "ann"), ("bob-one", "bob"), ("eve-one", "eve")] {
        rig.write(&format!("{user}.yaml"), &session(name, user, "one", ""));
    }
    let (one, two) = (rig.ready("ann-one"), rig.ready("bob-one"));
    let three = rig.ready("eve-one");
    rig.kill();
    std::fs::write(rig.workspace("bob", "one").join("last.txt"), "kept").unwrap();
    std::fs::remove_dir_all(rig.path("state")).unwrap();
    std::fs::remove_dir_all(rig.path("workspaces/.docket/records")).unwrap();
    rig.remove("bob.yaml");
    rig.remove("eve.yaml");
    rig.start();
    assert_eq!(rig.ready("ann-one")["status"]["container"]["id"], one["status"]["container"]["id"]);
    for (name, before) in [("bob-one", &two), ("eve-one", &three)] {
        let held =
            rig.see("is held", name, |view| condition(view, "PruneHeld").1 == "SourceUnknown");
        assert_eq!(held["metadata"]["uid"], before["metadata"]["uid"]);
        assert_eq!(held["status"]["container"]["id"], before["status"]["container"]["id"]);
        assert_eq!(held["status"]["port"], before["status"]["port"]);
    }
    rig.write("eve.yaml", &session("eve-one", "eve", "one", ""));
    let back = rig.see("is taken up", "eve-one", |view| {
        is_ready(view) && condition(view, "PruneHeld").0.is_empty()
    });
    assert_eq!(back["status"]["container"]["id"], three["status"]["container"]["id"]);
    rig.ok(&["confirm-prune"]);
    rig.gone("bob-one");
    assert_eq!(stored(&rig, "bob", "one", "last.txt").as_deref(), Some("kept"));
    assert!(!exists(&rig.workspace("bob", "one")));
    rig.ready("ann-one");
}

#[test]
fn what_was_applied_comes_back_after_the_state_directory_is_lost() {
    let mut rig = Rig::new("applied");
    rig.start();
    let text =
        [super::rig::class("applied", ""), session("ann-one", "ann", "one", "")].join("---\n");
    let file = rig.path("applied.yaml");
    std::fs::write(&file, text.replace("class: legal", "class: applied")).unwrap();
    rig.ok(&["apply", "-f", file.to_str().unwrap()]);
    let before = rig.ready("ann-one");
    rig.kill();
    std::fs::remove_dir_all(rig.path("state")).unwrap();
    rig.start();
    let after = rig.see("is taken up again", "ann-one", |view| {
        is_ready(view) && condition(view, "Accepted").0 == "True"
    });
    assert_eq!(condition(&after, "PruneHeld").0, "", "its source is seen");
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["status"]["container"]["id"], before["status"]["container"]["id"]);
    let sources = rig.ok(&["get", "sources"]);
    assert!(sources.contains("applied"), "{sources}");
    rig.ok(&["delete", "ann-one"]);
    rig.gone("ann-one");
    let copies = rig.path("workspaces/.docket/applied");
    let left: Vec<_> = std::fs::read_dir(copies).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["sessionclass.applied"]);
}

/// What it saw before it was frozen is not what is there afterwards.
#[test]
fn f47_a_frozen_operator_looks_again_before_it_acts() {
    let mut rig = Rig::new("frozen");
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    let (one, two) = (rig.ready("ann-one"), rig.ready("bob-two"));
    let id = |view: &Value| view["status"]["container"]["id"].as_str().unwrap().to_owned();
    rig.signal("STOP");
    // One ends and is back before anybody can have looked; the other one goes with its file and
    // is wanted again.
    super::rig::run("docker", &["kill", &id(&one)]);
    super::rig::run("docker", &["start", &id(&one)]);
    super::rig::run("docker", &["rm", "-f", &id(&two)]);
    rig.remove("b.yaml");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.signal("CONT");
    let two_again = rig.see("is made again", "bob-two", |view| {
        is_ready(view) && view["status"]["container"]["id"] != two["status"]["container"]["id"]
    });
    assert_eq!(two_again["metadata"]["uid"], two["metadata"]["uid"], "it never ended");
    let one_again = rig.ready("ann-one");
    assert_eq!(one_again["status"]["container"]["id"], one["status"]["container"]["id"]);
    assert_eq!(one_again["status"]["container"]["restarts"], 0, "nobody restarted it");
    assert_eq!(rig.containers().len(), 2);
}

#[test]
fn f48_few_descriptors_slow_it_down_and_break_nothing() {
    let mut rig = Rig::new("few");
    rig.through = ["prlimit", "--nofile=80:80"].map(str::to_owned).to_vec();
    rig.start();
    for n in 0..6 {
        rig.write(&format!("s{n}.yaml"), &session(&format!("s{n}"), &format!("u{n}"), "c", ""));
    }
    for n in 0..6 {
        let view = rig.ready(&format!("s{n}"));
        http(&view, "POST", "/write?path=drafts/kept.txt", "kept");
    }
    for n in 0..6 {
        let user = format!("u{n}");
        rig.until("the edit is stored", |rig| {
            stored(rig, &user, "c", "drafts/kept.txt").as_deref() == Some("kept")
        });
    }
    assert_eq!(rig.containers().len(), 6);
    for n in 0..6 {
        rig.remove(&format!("s{n}.yaml"));
    }
    for n in 0..6 {
        rig.gone(&format!("s{n}"));
    }
}

#[test]
fn f4_a_second_operator_is_refused_and_names_the_first() {
    let mut rig = Rig::new("second");
    rig.start();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_docket"))
        .args(["run", "--config"])
        .arg(rig.path("docket.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("pid"), "{said}");
    rig.ok(&["get"]);
}

/// What is there of each session, but for what differs between any two runs: ids, ports, uids,
/// attempts, and what tenants wrote.
fn end_state(rig: &Rig) -> std::collections::BTreeMap<String, Value> {
    let ours = |text: &str| text.replace(&rig.installation, "INSTALLATION");
    let one = |(id, _, _): (String, String, String)| {
        let said = super::rig::run("docker", &["inspect", &id]);
        let all: Value = serde_json::from_str(&ours(&said)).unwrap();
        let host = &all[0]["HostConfig"];
        let label = |name: &str| all[0]["Config"]["Labels"][format!("docket.dev/{name}")].clone();
        let (user, name) = (label("user"), label("session").as_str().unwrap().to_owned());
        let workspace = rig.workspace(user.as_str().unwrap(), "c");
        let name_of = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let folders: std::collections::BTreeSet<_> = std::fs::read_dir(workspace)
            .unwrap()
            .map(name_of)
            .filter(|name| !name.starts_with("edit-"))
            .collect();
        let mut env: Vec<Value> = all[0]["Config"]["Env"].as_array().unwrap().clone();
        env.sort_by_key(ToString::to_string);
        let state = serde_json::json!({
            "user": user, "case": label("case"), "image": all[0]["Image"], "env": env,
            "running": all[0]["State"]["Running"], "memory": host["Memory"],
            "pids": host["PidsLimit"], "caps": [host["CapDrop"], host["CapAdd"]],
            "options": host["SecurityOpt"], "init": host["Init"], "network": host["NetworkMode"],
            "tmpfs": host["Tmpfs"], "mounted": all[0]["Mounts"][0]["Destination"],
            "folders": folders,
        });
        (name, state)
    };
    rig.containers().into_iter().map(one).collect()
}

/// No workspace, no copy of docket's own, no port.
fn nothing_is_left(rig: &mut Rig) {
    for n in 0..10 {
        assert!(!exists(&rig.path(&format!("workspaces/u{n}"))), "no workspace is left");
    }
    for own in ["records", "trash", "applied"] {
        let left = std::fs::read_dir(rig.path(&format!("workspaces/.docket/{own}"))).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{own} holds {left:?}");
    }
    // Every port is free again: as many sessions as ports find one each.
    let ports = rig.ports.1 - rig.ports.0 + 1;
    for n in 0..ports {
        rig.write(&format!("p{n}.yaml"), &session(&format!("p{n}"), &format!("p{n}"), "c", ""));
    }
    for n in 0..ports {
        rig.see("has a port", &format!("p{n}"), |view| condition(view, "PortReady").0 == "True");
    }
}

/// The end state of ten sessions that nobody disturbs.
fn undisturbed() -> std::collections::BTreeMap<String, Value> {
    let mut calm = Rig::new("calm");
    calm.start();
    for n in 0..10 {
        let name = format!("s{n}");
        calm.write(&format!("{name}.yaml"), &session(&name, &format!("u{n}"), "c", ""));
    }
    for n in 0..10 {
        calm.ready(&format!("s{n}"));
    }
    end_state(&calm)
}

#[test]
fn killed_at_many_moments_while_sessions_come_and_go_it_ends_where_an_undisturbed_run_ends() {
    let kills: u32 = std::env::var("DOCKET_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut rig = Rig::new("storm");
    rig.start();
    let mut random = 0x9e37_79b9_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut edits = Vec::new();
    for round in 0..kills {
        let n = next(10);
        let (name, user) = (format!("s{n}"), format!("u{n}"));
        let file = rig.path(&format!("specs/{name}.yaml"));
        match next(5) {
            0 if exists(&file) && n >= 5 => std::fs::remove_file(&file).unwrap(),
            1 => {
                let more = format!("  container: {{env: {{ROUND: \"{round}\"}}}}");
                rig.write(&format!("{name}.yaml"), &session(&name, &user, "c", &more));
            }
            2 => {
                let all = rig.containers();
                if let Some((id, _, _)) = all.get(next(all.len().max(1) as u64) as usize) {
                    let _it_may_be_gone =
                        std::process::Command::new("docker").args(["rm", "-f", id]).output();
                }
            }
            _ => rig.write(&format!("{name}.yaml"), &session(&name, &user, "c", "")),
        }
        // Now and then it is let come so far that there is somebody to write.
        let writer = format!("s{}", next(5));
        let until = Instant::now() + Duration::from_secs(if round % 4 == 0 { 8 } else { 0 });
        let mut view = rig.get(&writer);
        while !view.as_ref().is_some_and(is_ready) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(40));
            view = rig.get(&writer);
        }
        if let Some(view) = view.filter(is_ready) {
            let path = format!("edit-{round}.txt");
            let address = view["status"]["address"].as_str().unwrap_or_default().to_owned();
            let written = super::rig::exchange(
                &address,
                "POST",
                &format!("/write?path={path}"),
                &round.to_string(),
            );
            if matches!(written, Ok((200, _))) {
                let user = view["spec"]["user"].as_str().unwrap().to_owned();
                edits.push((user, path, round.to_string()));
            }
        }
        std::thread::sleep(Duration::from_millis(next(400)));
        rig.kill();
        rig.spawn(&[]);
    }
    rig.answers();
    for n in 0..10 {
        let name = format!("s{n}");
        rig.write(&format!("{name}.yaml"), &session(&name, &format!("u{n}"), "c", ""));
    }
    let mut ports = std::collections::BTreeSet::new();
    for n in 0..10 {
        let view = rig.see("is ready and up to date", &format!("s{n}"), |view| {
            condition(view, "Ready").0 == "True" && condition(view, "UpToDate").0 == "True"
        });
        ports.insert(view["status"]["port"].as_u64().unwrap());
    }
    assert_eq!(ports.len(), 10, "no shared port");
    assert_eq!(rig.containers().len(), 10, "{:?}", rig.containers());
    assert_eq!(end_state(&rig), undisturbed());
    for (user, path, text) in &edits {
        rig.until(&format!("{user}/{path} is stored"), |rig| {
            stored(rig, user, "c", path).as_deref() == Some(text)
        });
    }
    for n in 0..10 {
        rig.remove(&format!("s{n}.yaml"));
    }
    let mut confirmed = false;
    rig.until("everything is gone", |rig| {
        if !confirmed {
            confirmed = rig.docket(&["confirm-prune"]).stdout.contains('s');
        }
        rig.containers().is_empty() && rig.docket(&["get", "-o", "name"]).stdout.trim().is_empty()
    });
    nothing_is_left(&mut rig);
    println!("{kills} kills, {} edits, none lost", edits.len());
    assert!(edits.len() >= kills as usize / 20, "too few to say anything: {}", edits.len());
}
