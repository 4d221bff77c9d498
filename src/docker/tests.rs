//! What a hung, broken, old or dishonest engine leads to (FAULTS 8, 10), by a scripted one.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::model::{ContainerPrefix, Installation};
use crate::world::EngineEvent;

type Script = fn(&str) -> Option<String>;

/// An engine that answers as the script says; `None`: never.
struct Scripted {
    docker: Docker,
    asked: Arc<Mutex<Vec<String>>>,
    socket: PathBuf,
    _dir: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Scripted {
    fn new(script: Script) -> Scripted {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("d.sock");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let task = serve(&socket, script, Arc::clone(&asked));
        let identity = Identity {
            installation: Installation::parse("here").unwrap(),
            prefix: ContainerPrefix::parse("docket").unwrap(),
            bind: "127.0.0.1".parse().unwrap(),
        };
        let host = Some(format!("unix://{}", socket.display()));
        let docker = Docker::new(DockerConfig { host, identity }).unwrap();
        Scripted { docker, asked, socket, _dir: dir, task }
    }

    /// The socket goes away, as with a daemon that ended.
    #[expect(clippy::disallowed_methods, reason = "a test's own socket")]
    fn hide(&self) {
        self.task.abort();
        std::fs::remove_file(&self.socket).unwrap();
    }

    fn asked(&self) -> Vec<String> {
        lock(&self.asked).clone()
    }
}

fn serve(
    socket: &std::path::Path,
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, script, Arc::clone(&asked)));
        }
    })
}

async fn answer(mut stream: UnixStream, script: Script, asked: Arc<Mutex<Vec<String>>>) {
    let mut heard = Vec::new();
    while !heard.windows(4).any(|four| four == b"\r\n\r\n") {
        if stream.read_buf(&mut heard).await.unwrap() == 0 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&heard).into_owned();
    let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    lock(&asked).push(line.clone());
    match script(&line) {
        Some(said) => stream.write_all(said.as_bytes()).await.unwrap(),
        None => std::future::pending().await,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it is a script's answer")]
fn json(status: u16, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}"))
}

fn version() -> Option<String> {
    json(200, r#"{"Version": "20.10.24", "ApiVersion": "1.41", "KernelVersion": "6"}"#)
}

fn nobody() -> ContainerId {
    ContainerId("ab".repeat(32))
}

#[tokio::test]
async fn nobody_at_the_socket_is_unreachable_and_says_where() {
    let engine = Scripted::new(|_| None);
    engine.hide();
    let error = engine.docker.list().await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Unreachable);
    assert!(error.message.contains("d.sock"), "{error}");
    assert!(engine.docker.inspect(&nobody()).await.is_err());
    assert!(engine.docker.remove(&nobody()).await.is_err());
}

#[tokio::test]
async fn f10_an_engine_that_is_too_old_is_refused_before_any_call() {
    let engine = Scripted::new(|_| json(200, r#"{"Version": "19.03", "ApiVersion": "1.40"}"#));
    let error = engine.docker.list().await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::TooOld, "{error}");
    assert_eq!(engine.asked(), ["GET /version"]);
}

#[tokio::test(start_paused = true)]
async fn a_hung_engine_is_a_timeout_for_every_call() {
    let engine = Scripted::new(|line| match line {
        "GET /version" => version(),
        _ => None,
    });
    *lock(&engine.docker.shared.api) = Some((1, 41));
    let id = nobody();
    let grace = Duration::from_secs(10);
    let kinds = [
        engine.docker.list().await.map(|_| ()),
        engine.docker.inspect(&id).await.map(|_| ()),
        engine.docker.start(&id).await,
        engine.docker.stop(&id, grace).await,
        engine.docker.remove(&id).await,
        engine.docker.pause(&id).await,
        engine.docker.ensure_network().await.map(drop),
        engine.docker.resolve_image("a", PullPolicy::Never).await.map(|_| ()),
    ]
    .map(|answer| answer.unwrap_err().kind);
    assert_eq!(kinds, [EngineErrorKind::Timeout; 8]);
}

#[tokio::test]
async fn garbage_is_broken_and_never_absence() {
    let engine = Scripted::new(|line| match line {
        "GET /version" => version(),
        line if line.contains("/json?") && line.contains("all=true") => json(200, "[{\"Id\": 7"),
        _ => json(200, "<html>not docker</html>"),
    });
    for answer in [
        engine.docker.list().await.map(|_| ()),
        engine.docker.inspect(&nobody()).await.map(|_| ()),
        engine.docker.holder_of("x").await.map(|_| ()),
        engine.docker.resolve_image("a", PullPolicy::Never).await.map(|_| ()),
        engine.docker.ensure_network().await.map(drop),
    ] {
        assert_eq!(answer.unwrap_err().kind, EngineErrorKind::Broken);
    }
}

#[tokio::test]
async fn a_500_or_a_cut_answer_is_broken_and_never_absence() {
    let engine = Scripted::new(|line| match line {
        "GET /version" => version(),
        line if line.starts_with("GET /containers/json") => {
            Some("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[".to_owned())
        }
        _ => json(500, r#"{"message": "no such container: or so"}"#),
    });
    for answer in [
        engine.docker.list().await.map(|_| ()),
        engine.docker.inspect(&nobody()).await.map(|_| ()),
        engine.docker.stop(&nobody(), Duration::ZERO).await,
        engine.docker.remove(&nobody()).await,
    ] {
        assert_eq!(answer.unwrap_err().kind, EngineErrorKind::Broken);
    }
}

#[tokio::test]
async fn what_the_engine_dropped_is_named_and_its_container_removed() {
    let engine = Scripted::new(|line| match line.split('?').next().unwrap() {
        "GET /version" => version(),
        "POST /containers/create" => json(201, r#"{"Id": "c0ffee", "Warnings": []}"#),
        "GET /containers/c0ffee/json" => {
            json(200, r#"{"Id": "c0ffee", "HostConfig": {"Memory": 1}, "Config": {}}"#)
        }
        "DELETE /containers/c0ffee" => json(204, ""),
        _ => None,
    });
    let error = engine.docker.create(&request::tests::request()).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::HardeningDropped);
    assert!(error.message.contains("Memory"), "{error}");
    let asked = engine.asked();
    assert!(asked.last().unwrap().starts_with("DELETE /containers/c0ffee?"), "{asked:?}");
}

#[tokio::test]
async fn a_network_removed_from_under_a_container_is_made_anew_at_its_start() {
    let engine = Scripted::new(|line| match line.split('?').next().unwrap() {
        "GET /version" => version(),
        "GET /networks/docket-here" => json(
            200,
            r#"{"Name": "docket-here", "Id": "0123456789abcdef", "Driver": "bridge",
                "Options": {"com.docker.network.bridge.enable_icc": "false"},
                "Labels": {"docket.dev/installation": "here"}}"#,
        ),
        _ => json(404, r#"{"message": "network docket-here not found"}"#),
    });
    let error = engine.docker.start(&nobody()).await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Broken, "the container itself is there: {error}");
    let starts = engine.asked().iter().filter(|line| line.ends_with("/start")).count();
    assert_eq!(starts, 2);
}

#[tokio::test]
async fn a_removal_by_somebody_else_is_waited_for() {
    let engine = Scripted::new(|line| match line.split('?').next().unwrap() {
        "GET /version" => version(),
        line if line.starts_with("DELETE") => {
            json(409, r#"{"message": "removal of container ab is already in progress"}"#)
        }
        _ => json(404, r#"{"message": "No such container: ab"}"#),
    });
    engine.docker.remove(&nobody()).await.unwrap();
    assert_eq!(engine.asked().len(), 3);
}

#[tokio::test]
async fn an_event_stream_that_ends_says_gone_once_and_relist_when_it_is_back() {
    let script: Script = |line| match line.split('?').next().unwrap() {
        "GET /version" => version(),
        // Ends at once.
        _ => json(200, ""),
    };
    let mut engine = Scripted::new(script);
    let mut events = engine.docker.events();
    assert_eq!(events.next().await, Some(EngineEvent::Relist));
    assert!(matches!(events.next().await, Some(EngineEvent::Gone(_))));
    engine.hide();
    // Whatever was under way when it went: from now on only one `Gone`, then silence.
    let quiet = Duration::from_millis(700);
    let mut told = Vec::new();
    while let Ok(event) = timeout(quiet, events.next()).await {
        told.push(event.unwrap());
    }
    assert!(told.iter().filter(|event| **event != EngineEvent::Relist).count() <= 2, "{told:?}");
    engine.task = serve(&engine.socket, script, Arc::clone(&engine.asked));
    assert_eq!(events.next().await, Some(EngineEvent::Relist));
}
