//! The built command against an operator that answers from a script, over a real socket: what
//! is printed, on which of the outputs, and the exit code.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use docket::api::{self, Guard, Reading, Token};
use docket::model::{Event, SessionName, Timestamp};
use docket::operator::handle::{
    Answer, Ask, Finding, GcView, Handle, HistoryView, LogStreamBox, Numbers, Outcome, PlanView,
    Refusal, Snapshot, SourceView, TopView, Which,
};
use docket::status::SessionView;
use serde_json::json;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

mod dashboard;
mod doctor;
mod http;
mod terminal;

/// What the scripted operator has been asked, as text.
type Asked = Arc<Mutex<Vec<String>>>;

struct Fake {
    place: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    sessions: watch::Sender<Snapshot>,
    last_pass: watch::Sender<Option<Timestamp>>,
    events: broadcast::Sender<Event>,
    past: Arc<Mutex<VecDeque<Event>>>,
    asked: Asked,
    tcp: SocketAddr,
    token: String,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Fake {
    fn start() -> Fake {
        Fake::start_reading(Reading::Token)
    }

    fn start_reading(reading: Reading) -> Fake {
        let place = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let shutdown = CancellationToken::new();
        let (asks, questions) = mpsc::channel(8);
        let (sessions, snapshot) = watch::channel(Snapshot::default());
        let (last_pass, passed) = watch::channel(Some(chrono::Utc::now()));
        let (events, _) = broadcast::channel(16);
        let past = Arc::new(Mutex::new(VecDeque::new()));
        let handle = Handle {
            asks,
            sessions: snapshot,
            events: events.clone(),
            past: Arc::clone(&past),
            last_pass: passed,
            origin: watch::channel(None).1,
            meter: Arc::default(),
        };
        let asked = Asked::default();
        let state = place.path().join("state");
        let tcp = runtime.block_on(async {
            let bound = api::bind_unix(&state.join("docket.sock")).await.unwrap();
            tokio::spawn(api::serve_unix(bound, handle.clone(), shutdown.clone()));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let guard = Guard { token: Token::ensure(&state).unwrap(), reading };
            tokio::spawn(api::serve_tcp_on(listener, guard, handle, shutdown.clone()));
            tokio::spawn(answer_all(questions, sessions.clone(), Arc::clone(&asked)));
            address
        });
        let token = Token::read(&state).unwrap().reveal().to_owned();
        let runtime = Some(runtime);
        Fake { place, runtime, shutdown, sessions, last_pass, events, past, asked, tcp, token }
    }

    fn state(&self) -> PathBuf {
        self.place.path().join("state")
    }

    fn docket(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = docket_in(self.place.path());
        command.arg("--state").arg(self.state()).args(words);
        command
    }

    fn put(&self, view: SessionView) {
        let name = SessionName::parse(&view.metadata.name).unwrap();
        self.sessions.send_modify(|all| {
            Arc::make_mut(all).insert(name, Arc::new(view));
        });
    }

    fn remove(&self, name: &str) {
        self.sessions.send_modify(|all| {
            Arc::make_mut(all).remove(&SessionName::parse(name).unwrap());
        });
    }

    fn happen(&self, seq: u64, session: &str, message: &str) {
        let event: Event = serde_json::from_value(json!({
            "seq": seq, "at": "2026-11-23T20:00:00Z", "session": session, "warning": false,
            "reason": "Started", "message": message
        }))
        .unwrap();
        self.past.lock().unwrap().push_back(event.clone());
        let _nobody_listens = self.events.send(event);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// A raw request over TCP: status and body.
    fn http(&self, head: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(self.tcp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "{head}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

/// The loop's place: every question is answered from what is written here.
async fn answer_all(
    mut questions: mpsc::Receiver<Ask>,
    sessions: watch::Sender<Snapshot>,
    asked: Asked,
) {
    while let Some(ask) = questions.recv().await {
        let here = |name: &SessionName| {
            if sessions.borrow().contains_key(name) {
                Ok(())
            } else {
                Err(Refusal::NotFound(format!("there is no session `{name}`")))
            }
        };
        asked.lock().unwrap().push(format!("{ask:?}"));
        match ask {
            Ask::Plan(files, reply) | Ask::Diff(files, reply) => drop(reply.send(planned(&files))),
            Ask::Apply(files, reply) => drop(reply.send(applied(&files))),
            Ask::Delete { which, reply, .. } => {
                let answer = match &which {
                    Which::Name(name) => here(name).map(|()| vec![outcome(name.as_str(), false)]),
                    _ => Ok(vec![outcome("a", false), outcome("b", true)]),
                };
                drop(reply.send(answer));
            }
            Ask::Numbers(reply) => drop(reply.send(Ok(Numbers::default()))),
            Ask::Verb(name, _, reply) => drop(reply.send(here(&name))),
            Ask::Sync(name, reply) => drop(reply.send(here(&name).map(|()| "3 files".into()))),
            Ask::Hydrate(_, paths, reply) => {
                drop(reply.send(Err(Refusal::Refused(format!("no room for {}", paths.join(" "))))));
            }
            Ask::Files(_, reply) => drop(reply.send(Ok(Vec::new()))),
            Ask::History(_, _, reply) => drop(reply.send(Ok(HistoryView::default()))),
            Ask::Restore { name, at, reply, .. } => {
                let found = here(&name).and_then(|()| match at.as_str() {
                    "none" => Err(Refusal::NotFound("there is no state `none`".into())),
                    _ => Ok(format!("restored to {at}: changed a")),
                });
                drop(reply.send(found));
            }
            Ask::Gc { dry, reply, .. } => {
                let (objects, left) = (Vec::new(), Vec::new());
                drop(reply.send(Ok(GcView { dry_run: dry, objects, bytes: 0, left })));
            }
            Ask::Trash(reply) => drop(reply.send(Ok(Vec::new()))),
            Ask::Logs { reply, .. } => {
                let pieces = ["one\n", "two\u{fffd}\n"].map(|text| Ok(text.into()));
                let stream = Box::pin(futures_util::stream::iter(pieces));
                drop(reply.send(Ok(LogStreamBox(stream))));
            }
            Ask::Top(_, reply) => {
                let name = "a".to_owned();
                let top = TopView { name, usage: None, disk_bytes: 0, quota_bytes: 0 };
                drop(reply.send(Ok(vec![top])));
            }
            Ask::Sources(reply) => drop(reply.send(Ok(vec![source()]))),
            Ask::ConfirmPrune(reply) => drop(reply.send(Ok(vec!["a".into(), "b".into()]))),
            Ask::Doctor(reply) => {
                let (check, level) = ("engine".to_owned(), "fail".to_owned());
                let (message, hint) = ("scripted".to_owned(), "start it".to_owned());
                drop(reply.send(Ok(vec![Finding { check, level, message, hint }])));
            }
            Ask::Rescan => (),
        }
    }
}

fn outcome(name: &str, refused: bool) -> Outcome {
    let outcome = if refused { "skipped: owned by file b.yaml" } else { "deleted" };
    Outcome { object: format!("session/{name}"), outcome: outcome.to_owned(), refused }
}

fn planned(files: &[(String, String)]) -> Answer<PlanView> {
    if files.iter().any(|(_, text)| text.contains("bad")) {
        return Err(Refusal::Invalid("x.yaml:1:1: bad".into()));
    }
    let changes = !files.is_empty();
    let text = if changes { "a is Pending\n  admit\n" } else { "a is Running\n" };
    Ok(PlanView { text: text.into(), sessions: BTreeMap::new(), changes })
}

fn applied(files: &[(String, String)]) -> Answer<Vec<Outcome>> {
    let object = "session/a".to_owned();
    if files.iter().any(|(_, text)| text.contains("owned")) {
        Err(Refusal::Refused("nothing was applied: owned by file a.yaml".into()))
    } else {
        Ok(vec![Outcome { object, outcome: "created".into(), refused: false }])
    }
}

fn source() -> SourceView {
    SourceView {
        source: "a.yaml".into(),
        state: "Ok".into(),
        revision: "abc".into(),
        objects: vec!["session/a".into()],
        errors: vec![],
        git: None,
    }
}

fn view(name: &str, phase: &str, ready: &str) -> SessionView {
    let condition = |kind: &str, reason: &str| {
        json!({"type": kind, "status": ready, "reason": reason, "message": "",
               "observedGeneration": 1, "lastTransitionTime": "2026-11-23T20:00:00Z"})
    };
    serde_json::from_value(json!({
        "apiVersion": "docket.dev/v1", "kind": "Session",
        "metadata": {"name": name, "uid": "0123456789abcdef0123456789abcdef", "generation": 1,
                     "labels": {"team": "red"}},
        "spec": {"user": "ann", "case": name},
        "status": {
            "observedGeneration": 1, "phase": phase,
            "conditions": [condition("Ready", "Converged"), condition("FilesSynced", "Synced")],
            "container": null, "port": 8001, "address": "127.0.0.1:8001", "workspace": "/w",
            "files": {"total": 0, "local": 0, "lazy": 0, "unsynced": 0, "unsyncedBytes": 0,
                      "skipped": 0, "lastSync": null, "conflicts": 0},
            "retry": {"operation": "", "failures": 0, "notBefore": null, "lastError": ""},
            "override": null, "source": "a.yaml", "plan": "", "nextCheck": null
        }
    }))
    .unwrap()
}

/// The built binary in a directory, with nothing of this process's environment that it heeds.
fn docket_in(place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docket"));
    command.current_dir(place).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOCKET_") {
            command.env_remove(name);
        }
    }
    command
}

fn alone(words: &[&str]) -> Output {
    let place = tempfile::tempdir().unwrap();
    docket_in(place.path()).args(words).output().unwrap()
}

#[track_caller]
fn ended(output: &Output, code: i32) -> (String, String) {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {talk}");
    (out, talk)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn wrong_usage_is_2_and_help_is_data() {
    for words in [&["bogus"][..], &[], &["get", "--bogus"], &["wait", "a"], &["apply"]] {
        let (out, talk) = ended(&alone(words), 2);
        assert!(out.is_empty() && !talk.is_empty(), "{words:?}");
    }
    for words in [&["--help"][..], &["run", "--help"], &["--version"], &["help", "get"]] {
        let (out, talk) = ended(&alone(words), 0);
        assert!(!out.is_empty() && talk.is_empty(), "{words:?}");
    }
    ended(&alone(&["plan", "--bogus"]), 1);
}

#[test]
fn no_operator_is_3_with_a_hint() {
    let commands = [
        "get",
        "get a",
        "get -w",
        "describe a",
        "explain a",
        "events",
        "plan",
        "top",
        "files a",
        "stop a",
        "confirm-prune",
        "logs a",
        "wait a --for=ready",
        "wait a --for=deleted",
        "sync a",
        "delete a",
        "get sources",
    ];
    for words in commands {
        let words: Vec<&str> = words.split(' ').collect();
        let (out, talk) = ended(&alone(&words), 3);
        assert!(out.is_empty(), "{words:?}: {out}");
        assert!(talk.starts_with("error: no operator answers at "), "{words:?}: {talk}");
        assert!(talk.contains("\nhint: "), "{words:?}: {talk}");
    }
}

#[test]
fn a_bad_configuration_is_2_with_its_place() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("docket.yaml"), "specs: a\ntik: 5s\n").unwrap();
    for words in [&["run"][..], &["get"]] {
        let (_, talk) = ended(&docket_in(place.path()).args(words).output().unwrap(), 2);
        assert_eq!(talk, "error: docket.yaml:2:1: unknown key `tik`: did you mean `tick`?\n");
    }
    let (_, talk) = ended(&docket_in(place.path()).arg("plan").output().unwrap(), 1);
    assert!(talk.contains("docket.yaml:2:1"), "{talk}");
    let (_, talk) = ended(&alone(&["run", "--tick", "soon"]), 2);
    assert!(talk.starts_with("error: --tick: `soon` is not a duration"), "{talk}");
}

#[test]
fn sessions_are_listed_and_shown() {
    let fake = Fake::start();
    let (out, talk) = ended(&fake.docket(&["get"]), 0);
    assert_eq!((out.as_str(), talk.as_str()), ("", "There are no sessions.\n"));
    fake.put(view("ann-one", "Running", "True"));
    fake.put(view("bob-two", "Starting", "False"));
    let (out, _) = ended(&fake.docket(&["get"]), 0);
    assert!(out.starts_with("NAME      USER   CASE      PHASE      READY   PORT"), "{out}");
    assert_eq!(out.lines().count(), 3);
    let (out, _) = ended(&fake.docket(&["get", "-l", "case=bob-two", "-o", "name"]), 0);
    assert_eq!(out, "session/bob-two\n");
    let (out, _) = ended(&fake.docket(&["get", "-o", "json"]), 0);
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["apiVersion"], "docket.dev/v1");
    assert_eq!(list["kind"], "SessionList");
    assert_eq!(list["items"][1]["metadata"]["name"], "bob-two");
    let (out, _) = ended(&fake.docket(&["get", "ann-one", "-o", "json"]), 0);
    let one: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(one["status"]["phase"], "Running");
    assert_eq!(one["kind"], "Session");
    ended(&fake.docket(&["describe", "ann-one"]), 0);
    ended(&fake.docket(&["explain", "ann-one"]), 0);
}

#[test]
fn an_unknown_name_is_4_and_a_bad_one_2() {
    let fake = Fake::start();
    for command in ["get", "describe", "explain", "events", "stop", "sync", "delete"] {
        let (_, talk) = ended(&fake.docket(&[command, "nobody"]), 4);
        assert_eq!(talk, "error: there is no session `nobody`\n", "{command}");
        ended(&fake.docket(&[command, "No Body"]), 2);
    }
}

#[test]
fn a_new_operator_does_not_deny_what_it_has_not_looked_for() {
    let fake = Fake::start();
    fake.last_pass.send_replace(None);
    let (_, talk) =
        ended(&fake.docket(&["wait", "nobody", "--for=deleted", "--timeout", "500ms"]), 5);
    assert!(talk.contains("has not looked yet"), "{talk}");
    fake.last_pass.send_replace(Some(chrono::Utc::now()));
    let (out, _) = ended(&fake.docket(&["wait", "nobody", "--for=deleted"]), 0);
    assert_eq!(out, "session/nobody deleted\n");
}

#[test]
fn waiting_ends_when_it_is_so_and_says_why_when_it_is_not() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Starting", "False"));
    let late = fake.docket(&["wait", "ann-one", "--for=ready", "--timeout", "300ms"]);
    let (_, talk) = ended(&late, 5);
    assert!(talk.starts_with("error: session `ann-one` was not ready within 300ms\n"), "{talk}");
    assert!(talk.contains("ann-one is Starting, not ready"), "{talk}");
    // No time at all is time for one look.
    ended(&fake.docket(&["wait", "nobody", "--for=deleted", "--timeout", "0s"]), 0);
    let (_, err) = ended(&fake.docket(&["wait", "ann-one", "--for=ready", "--timeout", "0s"]), 5);
    assert!(err.contains("ann-one is ") && !err.contains("no such session"), "{err}");
    let waiting = fake.command(&["wait", "new-one", "--for=synced"]).stdout(Stdio::piped()).spawn();
    fake.put(view("new-one", "Running", "True"));
    ended(&waiting.unwrap().wait_with_output().unwrap(), 0);
    let waiting =
        fake.command(&["wait", "new-one", "--for=deleted"]).stdout(Stdio::piped()).spawn().unwrap();
    fake.remove("new-one");
    ended(&waiting.wait_with_output().unwrap(), 0);
}

#[test]
fn watched_sessions_come_as_they_change() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Starting", "False"));
    let mut child = fake.command(&["get", "-w"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut text = String::new();
    let mut read_until = |what: &str| {
        until(&format!("`{what}` does not come"), || {
            let mut buffer = [0; 1024];
            let count = out.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            text.contains(what)
        });
    };
    read_until("Starting");
    fake.put(view("ann-one", "Running", "True"));
    read_until("Running");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(text.matches("NAME").count(), 1, "{text}");
}

#[test]
fn events_go_on_without_a_gap() {
    let fake = Fake::start();
    fake.happen(1, "ann-one", "first");
    fake.happen(2, "bob-two", "other");
    let (out, _) = ended(&fake.docket(&["events", "ann-one"]), 0);
    assert!(out.contains("first") && !out.contains("other"), "{out}");
    let mut child =
        fake.command(&["events", "-w", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut next =
        || -> serde_json::Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["seq"], 1);
    assert_eq!(next()["seq"], 2);
    fake.happen(3, "ann-one", "third");
    assert_eq!(next()["seq"], 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_plan_says_by_its_exit_code_whether_there_is_anything_to_do() {
    let fake = Fake::start();
    let (out, _) = ended(&fake.docket(&["plan"]), 0);
    assert_eq!(out, "a is Running\n");
    std::fs::create_dir_all(fake.place.path().join("d/sub")).unwrap();
    std::fs::write(fake.place.path().join("d/sub/x.yaml"), "kind: Session").unwrap();
    std::fs::write(fake.place.path().join("d/.hidden.yaml"), "bad").unwrap();
    std::fs::write(fake.place.path().join("bad.yaml"), "bad").unwrap();
    let (out, _) = ended(&fake.docket(&["plan", "d/sub/x.yaml"]), 2);
    assert_eq!(out, "a is Pending\n  admit\n");
    ended(&fake.docket(&["diff", "d"]), 2);
    assert!(fake.asked().last().unwrap().starts_with("Diff([(\"sub/x.yaml\","));
    let (_, talk) = ended(&fake.docket(&["plan", "bad.yaml"]), 1);
    assert_eq!(talk, "error: x.yaml:1:1: bad\n");
    ended(&fake.docket(&["plan", "none.yaml"]), 1);
    ended(&fake.docket(&["diff", "bad.yaml"]), 1);
}

#[test]
fn applying_and_deleting_say_what_became_of_each() {
    let fake = Fake::start();
    std::fs::write(fake.place.path().join("a.yaml"), "fine").unwrap();
    std::fs::write(fake.place.path().join("b.yaml"), "owned").unwrap();
    let (out, _) = ended(&fake.docket(&["apply", "-f", "a.yaml"]), 0);
    assert_eq!(out, "session/a created\n");
    let (_, talk) = ended(&fake.docket(&["apply", "-f", "a.yaml", "b.yaml"]), 1);
    assert_eq!(talk, "error: nothing was applied: owned by file a.yaml\n");
    ended(&fake.docket(&["apply", "-f", "none.yaml"]), 2);
    let (out, _) = ended(&fake.docket(&["delete", "--all"]), 1);
    assert_eq!(out, "session/a deleted\nsession/b skipped: owned by file b.yaml\n");
    ended(&fake.docket(&["delete", "-l", " "]), 2);
    fake.put(view("ann-one", "Running", "True"));
    let (out, _) = ended(&fake.docket(&["delete", "ann-one", "--discard"]), 0);
    assert_eq!(out, "session/ann-one deleted\n");
    assert!(fake.asked().last().unwrap().contains("discard: true"));
}

#[test]
fn too_large_a_file_is_refused_before_it_travels() {
    let fake = Fake::start();
    std::fs::write(fake.place.path().join("big.yaml"), vec![b' '; 64 * 1024 + 1]).unwrap();
    let (_, talk) = ended(&fake.docket(&["apply", "-f", "big.yaml"]), 2);
    assert_eq!(talk, "error: big.yaml:1:1: larger than 64 KiB\n");
    assert!(fake.asked().is_empty());
}

#[test]
fn commands_reach_the_loop_and_print_its_answer() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    for verb in ["stop", "start", "restart", "suspend", "resume"] {
        let (out, _) = ended(&fake.docket(&[verb, "ann-one"]), 0);
        assert_eq!(out, format!("session/ann-one: {verb} recorded\n"));
    }
    assert_eq!(ended(&fake.docket(&["sync", "ann-one"]), 0).0, "session/ann-one: 3 files\n");
    let (_, talk) = ended(&fake.docket(&["hydrate", "ann-one", "a/b.pdf"]), 1);
    assert_eq!(talk, "error: no room for a/b.pdf\n");
    assert_eq!(ended(&fake.docket(&["confirm-prune"]), 0).0, "a\nb\n");
    assert_eq!(ended(&fake.docket(&["logs", "ann-one", "-f"]), 0).0, "one\ntwo\u{fffd}\n");
    assert!(fake.asked().iter().any(|ask| ask.starts_with("Logs") && ask.contains("follow: true")));
    assert!(ended(&fake.docket(&["get", "sources"]), 0).0.contains("a.yaml   Ok"));
    let (out, _) = ended(&fake.docket(&["top", "-o", "json"]), 0);
    let rows: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(ended(&fake.docket(&["top", "-l", "user=nobody", "-o", "json"]), 0).0, "[]\n");
    for field in [
        "cpu_percent",
        "memory_usage_mb",
        "memory_limit_mb",
        "memory_percent",
        "network_rx_mb",
        "network_tx_mb",
        "disk",
    ] {
        assert!(rows[0].as_object().unwrap().contains_key(field), "{field}");
    }
}

#[test]
fn a_reader_who_goes_away_ends_it_quietly() {
    let fake = Fake::start();
    for n in 0..3000 {
        fake.put(view(&format!("ann-{n}"), "Running", "True"));
    }
    let mut child = fake
        .command(&["get", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    ended(&child.wait_with_output().unwrap(), 0);
    let child = fake
        .command(&["get", "-o", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(child.wait_with_output().unwrap().stderr.is_empty());
}

#[test]
fn completions_and_the_manual_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = ended(&alone(&["completions", shell]), 0);
        assert!(script.contains("DOCKET_COMPLETE"), "{shell}: {script}");
    }
    assert!(ended(&alone(&["man"]), 0).0.contains(".TH docket 1"));
}

/// In a real bash: what stands in the line is asked of docket, and of its operator.
#[test]
fn completions_know_commands_flags_and_the_sessions_there_are() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    fake.put(view("bob-two", "Starting", "False"));
    let bin = Path::new(env!("CARGO_BIN_EXE_docket"));
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let complete = |state: &Path, words: &[&str]| {
        let state = state.display();
        let line: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "source <(docket completions bash); \
             COMP_WORDS=(docket --state '{state}' {}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             COMP_TYPE=9; _clap_complete_docket docket \"${{COMP_WORDS[COMP_CWORD]}}\" x; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            line.join(" ")
        );
        let out = Command::new("bash").args(["-c", &script]).env("PATH", &path).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let state = fake.state();
    assert_eq!(complete(&state, &["desc"]), ["describe"]);
    assert_eq!(complete(&state, &["describe", "a"]), ["ann-one"]);
    let all = complete(&state, &["get", ""]);
    assert!(
        ["ann-one", "bob-two", "sources"].iter().all(|name| all.iter().any(|one| one == name)),
        "{all:?}"
    );
    assert_eq!(complete(&state, &["get", "--sort-by", "un"]), ["unsynced"]);
    let nobody = fake.place.path().join("nobody");
    assert_eq!(complete(&nobody, &["describe", "a"]), [""; 1], "without an operator nothing");
}

#[test]
fn l1_the_socket_is_private_and_a_stale_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let fake = Fake::start();
    let socket = fake.state().join("docket.sock");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(&fake.state()), 0o700);
    assert_eq!(mode(&fake.state().join("token")), 0o600);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let taken = runtime.block_on(api::bind_unix(&socket)).unwrap_err();
    assert!(matches!(taken, api::ServeError::Taken { .. }), "{taken:?}");
    let stale = fake.place.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(runtime.block_on(api::bind_unix(&stale)).is_ok());
    let file = fake.place.path().join("file.sock");
    std::fs::write(&file, "precious").unwrap();
    let foreign = runtime.block_on(api::bind_unix(&file)).unwrap_err();
    assert!(matches!(foreign, api::ServeError::Foreign { .. }), "{foreign:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn n1_the_tcp_port_wants_the_token_and_its_own_name() {
    let fake = Fake::start();
    fake.put(view("ann-one", "Running", "True"));
    let bearer = format!("Authorization: Bearer {}", fake.token);
    let get = |path: &str, lines: &str| {
        fake.http(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{lines}", fake.tcp)).0
    };
    assert_eq!(get("/livez", "X: y"), 200);
    assert_eq!(get("/readyz", "X: y"), 200);
    assert_eq!(get("/api/v1/sessions", "X: y"), 401);
    assert_eq!(get("/api/v1/sessions", "Authorization: Bearer wrong"), 401);
    assert_eq!(get("/api/v1/sessions", &bearer), 200);
    assert_eq!(get("/api/v1/sessions/ann-one", &bearer), 200);
    assert_eq!(get("/api/v1/sessions/nobody", &bearer), 404);
    assert_eq!(get("/api/v1/bogus", &bearer), 404);
    assert_eq!(get("/api/v1/sessions", &format!("{bearer}\r\nOrigin: http://evil.example")), 403);
    assert_eq!(get("/api/v1/sessions", &format!("{bearer}\r\nOrigin: null")), 403);
    let own = format!("{bearer}\r\nOrigin: http://{}", fake.tcp);
    assert_eq!(get("/api/v1/sessions", &own), 200);
    let foreign = format!("GET /livez HTTP/1.1\r\nHost: evil.example\r\n{bearer}");
    assert_eq!(fake.http(&foreign).0, 403);
    let post = |lines: &str| {
        let host = fake.tcp;
        fake.http(&format!(
            "POST /api/v1/sessions/ann-one/stop HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{lines}"
        ))
    };
    assert_eq!(post("X: y").0, 401);
    assert!(fake.asked().is_empty());
    assert_eq!(post(&bearer).0, 200);
}

#[test]
fn n1_open_reading_shows_neither_logs_nor_files_and_changes_nothing() {
    let fake = Fake::start_reading(Reading::Open);
    fake.put(view("ann-one", "Running", "True"));
    let host = fake.tcp;
    let status =
        |line: &str| fake.http(&format!("{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0")).0;
    assert_eq!(status("GET /api/v1/sessions"), 200);
    assert_eq!(status("GET /api/v1/sessions/ann-one"), 200);
    assert_eq!(status("GET /api/v1/sessions/ann-one/logs"), 401);
    assert_eq!(status("GET /api/v1/sessions/ann-one/files"), 401);
    assert_eq!(status("POST /api/v1/sessions/ann-one/stop"), 401);
    assert_eq!(status("DELETE /api/v1/sessions/ann-one"), 401);
    assert_eq!(status("POST /api/v1/plan"), 401);
    assert!(fake.asked().is_empty());
    let mut secret = view("bob-two", "Degraded", "False");
    secret.status.conditions[1].message = "secret.pdf cannot be read".to_owned();
    secret.status.retry.last_error = "secret.pdf: permission denied".to_owned();
    secret.status.plan = "sync secret.pdf".to_owned();
    fake.put(secret);
    fake.happen(1, "bob-two", "secret.pdf was not stored");
    for path in ["sessions", "sessions/bob-two", "events", "plan"] {
        let request = |more: &str| {
            fake.http(&format!("GET /api/v1/{path} HTTP/1.1\r\nHost: {host}\r\n{more}")).1
        };
        assert!(!request("X: y").contains("secret"), "{path}");
        let known = request(&format!("Authorization: Bearer {}", fake.token));
        assert!(known.contains("secret") || path == "plan", "{path}: {known}");
    }
}

#[test]
fn files_are_validated_without_an_operator() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    let docket = |words: &[&str]| docket_in(place.path()).args(words).output().unwrap();
    let session = |case: &str, more: &str| {
        format!(
            "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: {case}}}\n\
             spec:\n  user: ann\n  case: {case}\n{more}"
        )
    };
    write(
        "class.yaml",
        "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {name: default}\n\
         spec: {container: {image: x, network: bridge}, limits: {maxMemory: 1Gi}}\n",
    );
    write("good.yaml", &session("one", ""));
    write("typo.yaml", &session("two", "  clas: x\n"));
    write("over.yaml", &session("three", "  container: {resources: {memory: 64Gi}}\n"));
    let (out, _) = ended(&docket(&["validate", "good.yaml", "class.yaml"]), 0);
    assert_eq!(out, "good.yaml: ok\nclass.yaml: ok\n");
    let (_, talk) = ended(&docket(&["validate", "good.yaml"]), 0);
    assert!(talk.contains("class `default` is not among the files"), "{talk}");
    let (out, talk) = ended(&docket(&["validate", "typo.yaml", "class.yaml"]), 2);
    assert!(talk.starts_with("typo.yaml:7:3: unknown field `clas`"), "{talk}");
    assert!(out.is_empty(), "{out}");
    let (_, talk) = ended(&docket(&["validate", "over.yaml", "class.yaml"]), 2);
    let place = "over.yaml:7:35: three: spec.container.resources.memory: 64Gi";
    assert!(talk.starts_with(place), "{talk}");
    write("again.yaml", &session("one", ""));
    let (_, talk) = ended(&docket(&["validate", "."]), 2);
    assert!(talk.contains("./good.yaml:3:18: session `one` is also in ./again.yaml"), "{talk}");
    // A class alone is held against what is allowed, and what is wrong in it is told once.
    write(
        "loose.yaml",
        "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {name: default}\n\
         spec:\n  container:\n    image: x\n    security: {dockerSocket: true}\n",
    );
    for files in [&["loose.yaml"][..], &["loose.yaml", "good.yaml"]] {
        let (_, talk) = ended(&docket(&[&["validate"], files].concat()), 2);
        assert!(
            talk.starts_with("loose.yaml:7:30: spec.container.security.dockerSocket: "),
            "{talk}"
        );
        assert_eq!(talk.lines().count(), 1, "{talk}");
        ended(&docket(&[&["validate", "--allow.dockerSocket", "true"], files].concat()), 0);
    }
    ended(&docket(&["validate", "none.yaml"]), 2);
}

#[test]
fn the_schema_refers_to_nothing_that_is_not_in_it() {
    for words in [&["schema"][..], &["schema", "Session"], &["schema", "SessionClass"]] {
        let (out, _) = ended(&alone(words), 0);
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        let mut references = Vec::new();
        refers_to(&schema, &mut references);
        assert!(!references.is_empty());
        let class = schema.pointer("/$defs/ClassSpec/properties/container/required");
        let expected = (words != ["schema", "Session"]).then(|| json!(["image"]));
        assert_eq!(class, expected.as_ref(), "{words:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(schema.pointer(pointer).is_some(), "{words:?}: {reference}");
        }
    }
}

fn refers_to(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            found.extend(object.get("$ref").and_then(|r| r.as_str()).map(str::to_owned));
            object.values().for_each(|value| refers_to(value, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| refers_to(value, found)),
        _ => (),
    }
}
