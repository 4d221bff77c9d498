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
    let busy = rig.get("busy").unwrap();
    assert_eq!(condition(&busy, "Ready").0, "True", "{busy}{}", rig.tail());
    assert_eq!(busy["status"]["container"]["attempt"], 1);
    rig.ok(&["start", "quiet"]);
    rig.see("runs again", "quiet", |view| view["status"]["container"]["attempt"] == 2);
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
