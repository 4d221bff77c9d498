//! Numbers for Prometheus, with a life behind them: they move, and Prometheus's own judge finds no fault.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use super::rig::{Rig, condition, http, run, session, stored};

/// What is promised: name and type.
const PROMISED: &[(&str, &str)] = &[
    ("docket_build_info", "gauge"),
    ("docket_sessions", "gauge"),
    ("docket_session_conditions", "gauge"),
    ("docket_pass_duration_seconds", "histogram"),
    ("docket_reconcile_duration_seconds", "histogram"),
    ("docket_engine_call_duration_seconds", "histogram"),
    ("docket_store_call_duration_seconds", "histogram"),
    ("docket_engine_events_missed_total", "counter"),
    ("docket_engine_event_streams_total", "counter"),
    ("docket_drift_corrected_total", "counter"),
    ("docket_restarts_total", "counter"),
    ("docket_ports", "gauge"),
    ("docket_sessions_backing_off", "gauge"),
    ("docket_files", "gauge"),
    ("docket_unsynced_bytes", "gauge"),
    ("docket_sync_duration_seconds", "histogram"),
    ("docket_store_transferred_bytes_total", "counter"),
    ("docket_conflicts_total", "counter"),
    ("docket_hydration_duration_seconds", "histogram"),
    ("docket_queue_length", "gauge"),
    ("docket_sessions_working", "gauge"),
];

fn scrape(address: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /metrics HTTP/1.1\r\nConnection: close\r\n";
    write!(stream, "{request}Host: {address}\r\n{more}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// The value of a sample, by its name and labels as they stand.
fn sample(text: &str, series: &str) -> f64 {
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let found = lines.find(|(name, _)| *name == series);
    found.unwrap_or_else(|| panic!("no {series} in {text}")).1.parse().unwrap()
}

#[test]
fn every_number_that_is_promised_is_there_moves_and_pleases_promtool() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut rig = Rig::with("numbers", &format!("listen: \"{address}\""));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let view = rig.ready("ann-one");
    http(&view, "POST", "/write?path=drafts/brief.txt", "whereas");
    rig.until("the edit is stored", |rig| stored(rig, "ann", "one", "drafts/brief.txt").is_some());
    let id = view["status"]["container"]["id"].as_str().unwrap();
    run("docker", &["pause", id]);
    rig.until("it is thawed", |_| {
        sample(&scrape(&address, ""), "docket_drift_corrected_total{reason=\"Paused\"}") >= 1.0
    });
    run("docker", &["kill", id]);
    rig.see("was restarted", "ann-one", |view| {
        view["status"]["container"]["restarts"] == 1 && condition(view, "Ready").0 == "True"
    });

    let text = scrape(&address, "");
    for (name, kind) in PROMISED {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {text}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
    }
    for moved in [
        "docket_restarts_total{reason=\"Killed\"}",
        "docket_store_transferred_bytes_total{direction=\"sent\"}",
        "docket_engine_event_streams_total",
        "docket_pass_duration_seconds_count",
        "docket_reconcile_duration_seconds_count{result=\"done\"}",
        "docket_engine_call_duration_seconds_count{operation=\"create\",outcome=\"ok\"}",
        "docket_engine_call_duration_seconds_count{operation=\"start\",outcome=\"ok\"}",
        "docket_store_call_duration_seconds_count{operation=\"put\",outcome=\"ok\"}",
        "docket_sync_duration_seconds_count{kind=\"background\",result=\"done\"}",
        "docket_hydration_duration_seconds_count{cause=\"start\",result=\"done\"}",
        "docket_ports{state=\"leased\"}",
        "docket_ports{state=\"free\"}",
    ] {
        assert!(sample(&text, moved) >= 1.0, "{moved}: {text}");
    }
    assert!(!text.contains("ann-one"), "without the token no session is named: {text}");

    let token = format!("Authorization: Bearer {}\r\n", rig.ok(&["token"]).trim());
    let promtool = run("scripts/linters", &["promtool"]);
    for text in [text, scrape(&address, &token)] {
        let mut judge = Command::new(promtool.trim())
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        judge.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = judge.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success() && words.is_empty(), "promtool: {words}\n{text}");
    }
}
