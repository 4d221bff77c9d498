//! What is printed, from fixed views; what is refused before anything is asked.

use std::sync::Arc;

use clap::Parser as _;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::output::Format;
use super::table::Look;
use super::{Typed, bar, describe, doctor, events, explain, files, get, history, top};
use crate::model::{Event, Timestamp};
use crate::operator::handle::{Finding, SourceView, StateView, TopView};
use crate::status::SessionView;

fn now() -> Timestamp {
    "2026-11-23T20:10:00Z".parse().unwrap()
}

/// A session with a few things changed: merged into a healthy one.
#[expect(clippy::needless_pass_by_value, reason = "it is always made for the call")]
fn view(changes: Value) -> Arc<SessionView> {
    let mut object = json!({
        "apiVersion": "docket.dev/v1",
        "kind": "Session",
        "metadata": {
            "name": "alice-v-jones", "uid": "0123456789abcdef0123456789abcdef", "generation": 2,
            "labels": {"team": "red"}, "annotations": {},
            "creationTimestamp": "2026-11-23T19:55:00Z"
        },
        "spec": {"user": "alice", "case": "v-jones", "class": "legal"},
        "status": {
            "observedGeneration": 2, "phase": "Running",
            "conditions": [
                condition("Ready", "True", "Converged", ""),
                condition("Accepted", "True", "Accepted", ""),
                condition("FilesSynced", "True", "Synced", ""),
            ],
            "container": {
                "id": "2a469a8f67ef", "name": "docket-alice-v-jones-3", "attempt": 3,
                "state": "running", "startedAt": "2026-11-23T20:00:00Z", "restarts": 1,
                "lastTermination": {
                    "reason": "Error", "exitCode": 1, "finishedAt": "2026-11-23T19:59:58Z"
                },
                "image": "legal-workspace:latest",
                "imageId": "sha256:0123456789abcdef0123456789abcdef"
            },
            "port": 8042, "address": "127.0.0.1:8042",
            "workspace": "/w/alice/active/v-jones",
            "files": {
                "total": 430, "local": 412, "lazy": 18, "unsynced": 0, "unsyncedBytes": 0,
                "skipped": 0, "lastSync": "2026-11-23T20:09:40Z", "conflicts": 0
            },
            "retry": {"operation": "", "failures": 0, "notBefore": null, "lastError": ""},
            "override": null,
            "source": "alice.yaml", "plan": "alice-v-jones is Running\n",
            "nextCheck": "2026-11-23T20:10:05Z"
        }
    });
    merge(&mut object, &changes);
    Arc::new(serde_json::from_value(object).unwrap())
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "observedGeneration": 2, "lastTransitionTime": "2026-11-23T20:08:00Z"
    })
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value.clone(),
    }
}

fn waiting() -> Arc<SessionView> {
    view(json!({
        "metadata": {"name": "bob-one", "labels": {}},
        "spec": {"user": "bob", "case": "one", "class": null},
        "status": {
            "phase": "Preparing", "container": null, "port": null, "address": null,
            "source": "bob.yaml",
            "conditions": [
                condition("Ready", "False", "ImagePullFailed", "no such host"),
                condition("Accepted", "True", "Accepted", ""),
                condition("ImageReady", "False", "ImagePullFailed", "no such \u{1b}[2J host"),
                condition("Reconciling", "True", "StartFailed", ""),
                condition("Healthy", "Unknown", "Waiting", ""),
            ],
            "files": {"unsynced": 3, "unsyncedBytes": 41984},
            "retry": {
                "operation": "Image", "failures": 2, "notBefore": "2026-11-23T20:10:12Z",
                "lastError": "no such host"
            },
            "override": {"suspend": false},
            "plan": "bob-one is Preparing: ImagePullFailed: no such host\n",
        }
    }))
}

#[expect(clippy::needless_pass_by_value, reason = "as expect_test is used")]
fn table(format: Format, expected: Expect) {
    expected.assert_eq(&get::draw(Look::default(), format, &[view(json!({})), waiting()], now()));
}

#[test]
fn sessions_come_in_columns() {
    table(
        Format::Table,
        expect![[r#"
        NAME            USER    CASE      PHASE       READY   PORT   RESTARTS   UNSYNCED   AGE
        alice-v-jones   alice   v-jones   Running     True    8042   1          0          15m
        bob-one         bob     one       Preparing   False   -      0          3          15m
    "#]],
    );
    table(
        Format::Wide,
        expect![[r#"
        NAME            USER    CASE      PHASE       READY   PORT   RESTARTS   UNSYNCED   AGE   CLASS     ADDRESS          CONTAINER                GENERATION   SOURCE       REASON
        alice-v-jones   alice   v-jones   Running     True    8042   1          0          15m   legal     127.0.0.1:8042   docket-alice-v-jones-3   2            alice.yaml   Converged
        bob-one         bob     one       Preparing   False   -      0          3          15m   default   -                -                        2            bob.yaml     ImagePullFailed
    "#]],
    );
    table(
        Format::Name,
        expect![[r#"
        session/alice-v-jones
        session/bob-one
    "#]],
    );
}

/// As on a terminal of so many columns.
fn narrow(width: usize) -> Look {
    Look { color: false, width: Some(width) }
}

#[test]
fn a_table_fits_its_terminal_and_names_stay_whole() {
    let long = view(json!({
        "metadata": {"name": "a-name-that-somebody-will-want-to-copy"},
        "spec": {"user": "somebody-with-a-long-name@example.com", "case": "the-case-of-the-long-title"},
    }));
    let text = get::draw(narrow(120), Format::Table, &[long, waiting()], now());
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    expect![[r#"
        NAME                                    USER             CASE            PHASE      READY  PORT  RESTARTS  UNSYNCED  AGE
        a-name-that-somebody-will-want-to-copy  somebody-with-…  the-case-of-t…  Running    True   8042  1         0         15m
        bob-one                                 bob              one             Preparing  False  -     0         3         15m
    "#]].assert_eq(&text);
    let text = events::draw(narrow(60), &[some_events(), vec![long_event()]].concat(), now(), true);
    assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    expect![[r#"
        AGE  TYPE     REASON             MESSAGE
        10m  Normal   Started            start container
                                         2a469a8f67ef
        60s  Warning  EngineUnreachable  nobody answers\nat all
        30s  Warning  ImagePullFailed    the registry at
                                         registry.example.com does
                                         not answer: it is tried
                                         again in 12s
    "#]]
    .assert_eq(&text);
}

/// As on a usual terminal: numbers and phases are whole, and a name keeps what tells it from others.
#[test]
fn sessions_with_long_names_fit_eighty_columns() {
    let long = view(json!({
        "metadata": {"name": "somebody-with-a-long-name-the-case-of-the-0123abcdef"},
        "spec": {"user": "somebody-with-a-long-name@example.com", "case": "the-case-of-the-long-title"},
        "status": {"phase": "Terminating", "port": 18042},
    }));
    let demo = view(json!({
        "metadata": {"name": "alice-smith-v-jones"},
        "spec": {"user": "alice", "case": "smith-v-jones"}, "status": {"port": 17201},
    }));
    let text = get::draw(narrow(80), Format::Table, std::slice::from_ref(&demo), now());
    expect![[r#"
        NAME                USER  CASE         PHASE   READY PORT  RESTARTS UNSYNCED AGE
        alice-smith-v-jones alice smith-v-jon… Running True  17201 1        0        15m
    "#]]
    .assert_eq(&text);
    let sessions = [demo, long, waiting()];
    let text = get::draw(narrow(80), Format::Table, &sessions, now());
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    expect![[r#"
        NAME                 USER   CASE   PHASE       READY PORT  RESTARTS UNSYNCED AGE
        alice-smith-v-jones  alice  smith… Running     True  17201 1        0        15m
        somebody-wi…23abcdef someb… the-c… Terminating True  18042 1        0        15m
        bob-one              bob    one    Preparing   False -     0        3        15m
    "#]]
    .assert_eq(&text);
    let piped = get::draw(Look::default(), Format::Table, &sessions, now());
    assert!(piped.contains("the-case-of-the-0123abcdef   somebody-with-a-long-name@example.com"));
}

fn long_event() -> Event {
    serde_json::from_value(json!({
        "seq": 3, "at": "2026-11-23T20:09:30Z", "session": "alice-v-jones", "warning": true,
        "reason": "ImagePullFailed",
        "message": "the registry at registry.example.com does not answer: it is tried again in 12s"
    }))
    .unwrap()
}

#[test]
fn only_what_is_seen_to_change_is_printed_again() {
    let before = view(json!({}));
    let later = view(json!({"status": {
        "nextCheck": "2026-11-23T20:11:00Z", "files": {"lastSync": "2026-11-23T20:10:40Z"}
    }}));
    let stopped = view(json!({"status": {"phase": "Stopped"}}));
    let moved = view(json!({"status": {"source": "b.yaml"}}));
    for format in [Format::Table, Format::Wide] {
        assert_eq!(get::seen(format, &before), get::seen(format, &later));
        assert_ne!(get::seen(format, &before), get::seen(format, &stopped));
    }
    assert_eq!(get::seen(Format::Table, &before), get::seen(Format::Table, &moved));
    assert_ne!(get::seen(Format::Wide, &before), get::seen(Format::Wide, &moved));
    assert!(get::seen(Format::Json, &before).is_empty(), "machines get every change");
}

#[test]
fn sessions_come_in_the_order_that_was_asked_for() {
    let mut views = [view(json!({})), waiting()];
    let names = |views: &[Arc<SessionView>]| {
        views.iter().map(|view| view.metadata.name.clone()).collect::<Vec<_>>().join(" ")
    };
    for (order, expected) in [
        (get::Order::Unsynced, "bob-one alice-v-jones"),
        (get::Order::Restarts, "alice-v-jones bob-one"),
        (get::Order::Phase, "bob-one alice-v-jones"),
        (get::Order::Port, "alice-v-jones bob-one"),
        (get::Order::User, "alice-v-jones bob-one"),
    ] {
        get::sort(&mut views, order);
        assert_eq!(names(&views), expected, "{order:?}");
    }
}

#[test]
fn a_wait_shows_bytes_where_there_are_any_else_where_the_session_is() {
    let mut most = 0;
    let mut told = |view: &SessionView| format!("{:?}\n", bar::shown(view, &mut most));
    let progress = json!({"files": 3, "filesTotal": 9, "bytes": 10, "bytesTotal": 100});
    let going = |bytes: u64| json!({"status": {"files": {"unsynced": 2, "unsyncedBytes": bytes}}});
    let all = [
        told(&view(json!({"status": {"files": {"progress": progress}}}))),
        told(&view(going(400))),
        told(&view(going(100))),
        told(&view(json!({}))),
    ];
    expect![[r#"
        Bytes { done: 10, all: 100, what: "3 of 9 files" }
        Bytes { done: 0, all: 400, what: "2 files to store" }
        Bytes { done: 300, all: 400, what: "2 files to store" }
        Words("alice-v-jones is Running, Converged")
    "#]]
    .assert_eq(&all.concat());
}

#[test]
fn states_of_a_workspace_come_in_columns() {
    let states: Vec<StateView> = serde_json::from_value(json!([
        {"id": "2026-11-23T20-04-10Z-b", "time": "2026-11-23T20:04:10Z", "current": true, "files": 9,
         "bytes": 4096, "added": 1, "changed": 0, "removed": 0, "changes": "added a.txt", "error": ""},
        {"id": "2026-11-23T20-00-00Z-a", "time": "2026-11-23T20:00:00Z", "current": false, "files": 0,
         "bytes": 0, "added": 0, "changed": 0, "removed": 0, "changes": "", "error": "not JSON"},
    ]))
    .unwrap();
    expect![[r#"
        ID                       TIME                   FILES   SIZE      CHANGES
        2026-11-23T20-04-10Z-b   2026-11-23T20:04:10Z   9       4.0 KiB   added a.txt (current)
        2026-11-23T20-00-00Z-a   2026-11-23T20:00:00Z   -       -         unreadable: not JSON
    "#]]
    .assert_eq(&history::draw(Look::default(), &states));
    expect![[r#"
        ID                      TIME             FILES  SIZE     CHANGES
        2026-11-23T20-04-10Z-b  2026-11-23T20:…  9      4.0 KiB  added a.txt (c…
        2026-11-23T20-00-00Z-a  2026-11-23T20:…  -      -        unreadable: no…
    "#]]
    .assert_eq(&history::draw(narrow(72), &states));
}

#[test]
fn a_phase_has_its_colour_only_if_it_may() {
    let row =
        get::draw(Look { color: true, width: None }, Format::Table, &[view(json!({}))], now());
    assert!(row.contains("\u{1b}["), "{row:?}");
}

#[test]
fn a_healthy_session_is_explained_in_a_line() {
    expect![[r#"
        alice-v-jones is Running, ready (Converged).
        It is as it was asked for.
        What happens next:
          alice-v-jones is Running
          it is looked at again in 5s (20:10:05 UTC), or at the next event
    "#]]
    .assert_eq(&explain::draw(&view(json!({})), now()));
}

#[test]
fn what_a_person_must_do_is_told_with_the_reason() {
    let told = |kind: &str, reason: &str| {
        let view = view(json!({"status": {
            "workspace": "/w/alice/active/v-jones",
            "conditions": [
                condition("Ready", "False", reason, "as it is"),
                condition(kind, "False", reason, "as it is"),
            ]
        }}));
        let text = explain::draw(&view, now());
        let (_, blocks) = text.split_once("What blocks it:\n").unwrap();
        blocks.split_once("What happens next:").unwrap().0.trim().to_owned() + "\n"
    };
    let all = [
        ("ContainerReady", "DiskPressure"),
        ("PortReady", "PoolExhausted"),
        ("ContainerReady", "NameConflict"),
        ("FilesSynced", "ManifestUnavailable"),
        ("WorkspaceReady", "WorkspaceUnknown"),
        ("UpToDate", "RolledBack"),
        ("ContainerReady", "CommandInvalid"),
    ];
    let text: String = all.iter().map(|(kind, reason)| told(kind, reason)).collect();
    expect![[r#"
        it wrote too much: raise workspace.quota (or free the disk), or remove files on the host under /w/alice/active/v-jones
        no port is free: widen `ports:` of the operator, or end or stop sessions with a port (a stopped one keeps its port; an ended one gives it back)
        containers that are not docket's have its names (`docker ps -a`): remove or rename them, or set another `containerPrefix`
        bring manifest.json back, by `docket restore alice-v-jones --at ID` of what `docket history alice-v-jones` lists; if that is empty, from a backup of the store; without one, take its source away, `docket delete alice-v-jones --discard` (its files go to the trash), and put its source and what you want of /w/alice/active/v-jones back
        `docket doctor` says what is wrong with the workspaces' directory
        the last good spec is in force again: correct the new one; each edit is tried once
        its command cannot be run: correct container.command, container.args or the image
    "#]].assert_eq(&text);
}

#[test]
fn what_is_missing_is_explained_with_its_time() {
    expect![[r#"
        bob-one is Preparing, not ready (ImagePullFailed: no such host).
        Not as asked for, or under way:
          ImageReady=False for 2m: ImagePullFailed: no such \u{1b}[2J host
          Reconciling=True for 2m: StartFailed
          Healthy=Unknown for 2m: Waiting
        What blocks it:
          Image failed 2 times in a row, last: no such host
          an override: not suspended by command
          see to the registry; if it wants a login: `docker login` as the user that docket runs as
        What happens next:
          bob-one is Preparing: ImagePullFailed: no such host
          Image is tried again in 12s (20:10:12 UTC)
          it is looked at again in 5s (20:10:05 UTC), or at the next event
    "#]]
    .assert_eq(&explain::draw(&waiting(), now()));
}

#[test]
fn a_failure_that_is_over_blocks_nothing() {
    let over = view(json!({"status": {
        "conditions": [condition("Ready", "True", "Converged", "")],
        "retry": {
            "operation": "Run", "failures": 1, "notBefore": "2026-11-23T20:00:00Z",
            "lastError": "ended with exit code 137",
        },
    }}));
    expect![[r#"
        alice-v-jones is Running, ready (Converged).
        It is as it was asked for.
        Run failed 1 time in a row, last: ended with exit code 137; forgotten if it does not happen again for a while.
        What happens next:
          alice-v-jones is Running
          it is looked at again in 5s (20:10:05 UTC), or at the next event
    "#]].assert_eq(&explain::draw(&over, now()));
}

#[test]
fn a_lifetime_is_told_with_what_keeps_it() {
    let mortal = view(json!({"status": {
        "conditions": [condition("Ready", "True", "Converged", "")],
        "lifetime": {
            "expiresAt": "2026-11-24T20:00:00Z",
            "idle": {
                "usedBy": "Network",
                "usedAt": "2026-11-23T20:09:00Z",
                "endsAt": "2026-11-23T20:39:00Z",
            },
        },
    }}));
    expect![[r#"
        alice-v-jones is Running, ready (Converged).
        It is as it was asked for.
        What happens next:
          alice-v-jones is Running
          over in 23h (2026-11-24T20:00:00Z), stopped in 29m (2026-11-23T20:39:00Z) unless it is used; last use 60s ago (Network)
          it is looked at again in 5s (20:10:05 UTC), or at the next event
    "#]].assert_eq(&explain::draw(&mortal, now()));
}

#[test]
fn a_held_session_is_told_how_to_go_on() {
    let held = view(json!({"status": {
        "conditions": [
            condition("Ready", "True", "Converged", ""),
            condition("PruneHeld", "True", "PruneGuard", "12 of 14 files vanished within 60 s"),
        ],
        "queuePosition": 2,
    }}));
    expect![[r#"
        alice-v-jones is Running, ready (Converged).
        Not as asked for, or under way:
          PruneHeld=True for 2m: PruneGuard: 12 of 14 files vanished within 60 s
        What blocks it:
          a limit on sessions: it is number 2 in the queue
          its end is held: bring its file back, or `docket confirm-prune`
        What happens next:
          alice-v-jones is Running
          it is looked at again in 5s (20:10:05 UTC), or at the next event
    "#]]
    .assert_eq(&explain::draw(&held, now()));
}

#[test]
fn a_replaced_workspace_is_told_what_ends_it() {
    for reason in ["WorkspaceReplaced", "WorkspaceMissing"] {
        let lost = view(json!({"status": {"conditions": [
            condition("Ready", "False", reason, "another directory stands there"),
            condition("Stalled", "True", reason, "another directory stands there"),
        ]}}));
        let text = explain::draw(&lost, now());
        assert!(text.contains("`docket delete alice-v-jones --discard`"), "{text}");
        assert!(!text.contains("edit its spec"), "{text}");
    }
}

#[test]
fn a_description_has_everything() {
    let top = TopView {
        name: "alice-v-jones".into(),
        usage: Some(crate::model::Usage {
            cpu_percent: 12.345,
            memory_bytes: 300 << 20,
            memory_limit_bytes: 4 << 30,
            network_rx_bytes: 1500,
            network_tx_bytes: 2_500_000,
        }),
        disk_bytes: 5 << 20,
        quota_bytes: 10 << 30,
    };
    expect![[r#"
        Name:            alice-v-jones
        User:            alice
        Case:            v-jones
        Class:           legal
        Labels:          team=red
        Source:          alice.yaml
        Uid:             0123456789abcdef0123456789abcdef, generation 2
        Created:         2026-11-23T19:55:00Z (15m ago)
        Phase:           Running
        Address:         127.0.0.1:8042
        Workspace:       /w/alice/active/v-jones
        Container:       docket-alice-v-jones-3 (2a469a8f67ef)
          State:         running, attempt 3, 1 restart
          Image:         legal-workspace:latest (sha256:0123456789ab)
          Started:       2026-11-23T20:00:00Z (10m ago)
          Last end:      Error, exit code 1, 2026-11-23T19:59:58Z
        Uses:            12.35 % of a core, 300.0 MiB of 4.0 GiB of memory
        Network:         1.5 KiB received, 2.4 MiB sent
        Disk:            5.0 MiB of 10.0 GiB
        Files:           430 (412 here, 18 lazy)
          Last sync:     2026-11-23T20:09:40Z (20s ago)
        Conditions:
          TYPE    STATUS   REASON      SINCE   MESSAGE
          Ready   True     Converged   2m
          and as they should be: Accepted, FilesSynced
        Events:
          AGE   TYPE      REASON              MESSAGE
          10m   Normal    Started             start container 2a469a8f67ef
          60s   Warning   EngineUnreachable   nobody answers\nat all
    "#]]
    .assert_eq(&describe::draw(
        Look::default(),
        &view(json!({})),
        Some(&top),
        &some_events(),
        now(),
    ));
}

#[test]
fn a_description_of_what_is_not_there_yet_is_one_too() {
    expect![[r#"
        Name:            bob-one
        User:            bob
        Case:            one
        Class:           default
        Labels:          team=red
        Source:          bob.yaml
        Uid:             0123456789abcdef0123456789abcdef, generation 2
        Created:         2026-11-23T19:55:00Z (15m ago)
        Phase:           Preparing
        Workspace:       /w/alice/active/v-jones
        Override:        not suspended by command
        Container:       none
        Files:           430 (412 here, 18 lazy)
          Of them:       3 not stored (41.0 KiB)
          Last sync:     2026-11-23T20:09:40Z (20s ago)
        Retry:           Image, 2 failures, again in 12s
          Last error:    no such host
        Conditions:
          TYPE          STATUS    REASON            SINCE   MESSAGE
          Ready         False     ImagePullFailed   2m      no such host
          ImageReady    False     ImagePullFailed   2m      no such \u{1b}[2J host
          Reconciling   True      StartFailed       2m
          Healthy       Unknown   Waiting           2m
          and as they should be: Accepted
        Plan:
          bob-one is Preparing: ImagePullFailed: no such host
        Events:          none
    "#]]
    .assert_eq(&describe::draw(Look::default(), &waiting(), None, &[], now()));
}

fn some_events() -> Vec<Event> {
    serde_json::from_value(json!([
        {"seq": 1, "at": "2026-11-23T20:00:00Z", "session": "alice-v-jones", "warning": false,
         "reason": "Started", "message": "start container 2a469a8f67ef"},
        {"seq": 2, "at": "2026-11-23T20:09:00Z", "session": null, "warning": true,
         "reason": "EngineUnreachable", "message": "nobody answers\nat all"},
    ]))
    .unwrap()
}

#[test]
fn events_come_in_columns() {
    expect![[r#"
        AGE   TYPE      SESSION         REASON              MESSAGE
        10m   Normal    alice-v-jones   Started             start container 2a469a8f67ef
        60s   Warning   -               EngineUnreachable   nobody answers\nat all
    "#]]
    .assert_eq(&events::draw(Look::default(), &some_events(), now(), false));
}

#[test]
fn use_is_told_in_mib_with_two_decimals() {
    let rows: Vec<top::Row> = [
        TopView {
            name: "a".into(),
            usage: Some(crate::model::Usage {
                cpu_percent: 150.126,
                memory_bytes: 1 << 20,
                memory_limit_bytes: 3 << 20,
                network_rx_bytes: 1024,
                network_tx_bytes: 0,
            }),
            disk_bytes: 1 << 30,
            quota_bytes: 0,
        },
        TopView { name: "b".into(), usage: None, disk_bytes: 0, quota_bytes: 1 << 30 },
    ]
    .iter()
    .map(top::Row::of)
    .collect();
    expect![[r#"
        NAME   CPU%     MEM MIB   LIMIT MIB   MEM%    RX MIB   TX MIB   DISK MIB
        a      150.13   1.00      3.00        33.33   0.00     0.00     1024.00
        b      -        -         -           -       -        -        0.00 / 1024.00
    "#]]
    .assert_eq(&top::draw(Look::default(), &rows));
    let text = top::draw(narrow(72), &rows);
    assert!(text.lines().all(|line| line.chars().count() <= 72), "{text}");
    expect![[r#"
        {"name":"a","cpu_percent":150.13,"memory_usage_mb":1.0,"memory_limit_mb":3.0,"memory_percent":33.33,"network_rx_mb":0.0,"network_tx_mb":0.0,"disk":1024.0,"disk_quota":0.0}
    "#]].assert_eq(&super::output::line(&rows[0]).unwrap());
}

#[test]
fn sources_show_their_errors_below() {
    let sources = [
        SourceView {
            source: "a.yaml".into(),
            state: "Ok".into(),
            revision: "0123abcd".into(),
            objects: vec!["session/a".into(), "sessionclass/legal".into()],
            errors: vec![],
            git: None,
        },
        SourceView {
            source: "b.yaml".into(),
            state: "Invalid".into(),
            revision: String::new(),
            objects: vec![],
            errors: vec!["b.yaml:7:3: unknown field `imag` in spec".into()],
            git: None,
        },
    ];
    expect![[r#"
        SOURCE   STATE     REVISION   OBJECTS                        ERRORS
        a.yaml   Ok        0123abcd   session/a,sessionclass/legal   0
        b.yaml   Invalid   -          -                              1

        b.yaml:7:3: unknown field `imag` in spec
    "#]]
    .assert_eq(&super::sources::draw(Look::default(), &sources, now()));
}

#[test]
fn a_repository_tells_how_far_it_is_followed() {
    let origin = crate::model::Origin {
        source: "git+https://host/repo.git#main:specs".into(),
        state: crate::model::OriginState::Refused,
        revision: "1f".repeat(20),
        newest: "2e".repeat(20),
        answered_at: Some("2026-11-23T20:09:48Z".parse().unwrap()),
        fetched_at: None,
        next_look: Some("2026-11-23T20:10:18Z".parse().unwrap()),
        failures: 0,
        errors: vec!["specs/b.yaml:7:3: unknown field `imag`".into()],
    };
    let rows = [SourceView::of_origin(origin)];
    expect![[r#"
        SOURCE                                 STATE     REVISION       OBJECTS   ERRORS
        git+https://host/repo.git#main:specs   Refused   1f1f1f1f1f1f   -         1

        git+https://host/repo.git#main:specs
          State:     Refused: the newest commit is not acceptable: the last good one stays
          In force:  1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f
          Newest:    2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e2e
          Answered:  12s ago
          Fetched:   not since docket was started
          Next look: in 18s

        specs/b.yaml:7:3: unknown field `imag`
    "#]]
    .assert_eq(&super::sources::draw(Look::default(), &rows, now()));
}

#[test]
fn files_are_listed_with_odd_names_escaped() {
    let listed: Vec<crate::model::FileState> = serde_json::from_value(json!([
        {"path": "drafts/a.docx", "state": "local", "size": 2048, "reason": "",
         "mtime": "2026-11-23T20:00:00Z"},
        {"path": "x%1B[2J", "state": "skipped", "size": 0, "reason": "not a regular file",
         "mtime": null},
    ]))
    .unwrap();
    expect![[r#"
        STATE     SIZE      MODIFIED               PATH            REASON
        local     2.0 KiB   2026-11-23T20:00:00Z   drafts/a.docx
        skipped   0 B       -                      x%1B[2J         not a regular file
    "#]]
    .assert_eq(&files::draw(Look::default(), &listed));
}

#[test]
fn findings_say_what_to_do() {
    let findings = [
        Finding {
            check: "kernel".into(),
            level: "ok".into(),
            message: "6.1.0".into(),
            hint: String::new(),
        },
        Finding {
            check: "engine".into(),
            level: "fail".into(),
            message: "nobody answers".into(),
            hint: "start it".into(),
        },
    ];
    expect![[r#"
        LEVEL   CHECK    FOUND            WHAT TO DO
        ok      kernel   6.1.0
        fail    engine   nobody answers   start it
    "#]]
    .assert_eq(&doctor::draw(Look::default(), &findings));
    expect![[r#"
        LEVEL   CHECK    FOUND
        ok      kernel   6.1.0
        fail    engine   nobody answers

        hint: engine: start it
    "#]]
    .assert_eq(&doctor::draw(narrow(40), &findings));
}

#[test]
fn ages_are_kubectls() {
    let ages: Vec<String> =
        [5, 119, 120, 185, 599, 600, 3600, 10_800, 11_460, 36_000, 200_000, 864_000]
            .map(super::table::span)
            .to_vec();
    expect!["5s 119s 2m 3m5s 9m59s 10m 60m 3h 3h11m 10h 2d7h 10d"].assert_eq(&ages.join(" "));
}

#[test]
fn the_command_line_agrees_with_itself() {
    super::command_line().debug_assert();
}

#[test]
fn every_command_of_the_documentation_is_there() {
    let lines = "run|validate a|schema|schema Session|schema sessionclass|plan|plan a b|diff d|\
        apply -f a b|apply -f a -f b|delete n|delete -l a=b --discard|delete --all|get|get n -o json|\
        get -w|get sources|get -l a=b -o wide|describe n|explain n|events|events n -w|\
        wait n --for=ready|wait n --for deleted --timeout 5m|logs n -f --tail 10|top|top -o json|\
        files n|hydrate n|hydrate n a b|sync n|stop n|start n|restart n|suspend n|resume n|\
        confirm-prune|doctor|token|completions bash|man|get --state d --no-color|\
        run --config c --tick 1s --s3.endpoint http://x --allow.dockerSocket --limits.perUser 1|\
        run --allow.dockerSocket=false --allow.networks a,b --state d";
    for line in lines.split('|') {
        let words = std::iter::once("docket").chain(line.split_whitespace());
        if let Err(error) = Typed::try_parse_from(words) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let lines = "delete|delete n --all|delete -l a=b --all|get n -l a=b|wait n|wait n --for=happy|\
        apply|apply -f|validate|stop|logs n --tail x|schema Pod|completions x|bogus|\
        wait n --for=ready --timeout soon";
    for line in lines.split('|') {
        let words = std::iter::once("docket").chain(line.split_whitespace());
        assert!(Typed::try_parse_from(words).is_err(), "{line}");
    }
}
