//! An engine that has no containers: it speaks as much of the Engine's HTTP over a unix socket as
//! docket uses, and one listener a published port answers the probes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::broadcast;

const IMAGE: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";

/// One container: what was asked for, and whether it runs.
pub struct Vessel {
    body: Value,
    name: String,
    status: &'static str,
    started: String,
    starts: u64,
}

/// The engine. It is shared with the tasks that answer.
pub struct Engine {
    vessels: Mutex<BTreeMap<String, Vessel>>,
    network: Mutex<Option<Value>>,
    events: broadcast::Sender<Bytes>,
    asked: AtomicU64,
}

impl Engine {
    /// Listens at `socket`.
    pub fn serve(socket: &Path) -> Arc<Engine> {
        let engine = Arc::new(Engine {
            vessels: Mutex::default(),
            network: Mutex::default(),
            events: broadcast::channel(1 << 15).0,
            asked: AtomicU64::new(0),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&engine));
        let listener = UnixListener::bind(socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        engine
    }

    fn vessels(&self) -> MutexGuard<'_, BTreeMap<String, Vessel>> {
        self.vessels.lock().unwrap()
    }

    /// How many requests there were.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn ids(&self) -> Vec<String> {
        self.vessels().keys().cloned().collect()
    }

    /// How often containers were started, and how many run.
    pub fn started(&self) -> (u64, usize) {
        let vessels = self.vessels();
        let starts = vessels.values().map(|one| one.starts).sum();
        (starts, vessels.values().filter(|one| one.status == "running").count())
    }

    /// Tells that something happened to a container. With `died` it really did.
    pub fn tell(&self, id: &str, action: &str, died: bool) {
        let mut vessels = self.vessels();
        let Some(one) = vessels.get_mut(id) else { return };
        if died {
            one.status = "exited";
        }
        let event = json!({
            "Type": "container", "Action": action, "time": 1, "timeNano": 1,
            "Actor": {"ID": id, "Attributes": one.body["Labels"]},
        });
        let _nobody_listens = self.events.send(format!("{event}\n").into());
    }

    fn state(one: &Vessel) -> Value {
        json!({
            "Status": one.status, "Running": one.status == "running", "Pid": 0, "ExitCode": 0,
            "StartedAt": one.started, "FinishedAt": "2026-01-01T00:00:00Z", "Error": "",
        })
    }

    fn inspected(id: &str, one: &Vessel) -> Value {
        let body = &one.body;
        let host = &body["HostConfig"];
        json!({
            "Id": id, "Name": format!("/{}", one.name), "Image": IMAGE,
            "State": Engine::state(one), "HostConfig": host,
            "Config": {"Labels": body["Labels"], "Env": body["Env"], "User": body["User"]},
            "NetworkSettings": {"Ports": host["PortBindings"], "Networks": {}},
        })
    }

    fn create(&self, name: &str, body: &[u8]) -> Response {
        let mut vessels = self.vessels();
        let id =
            format!("{:064x}", (vessels.len() as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let body: Value = serde_json::from_slice(body).unwrap();
        let vessel = Vessel {
            body,
            name: name.to_owned(),
            status: "created",
            started: "0001-01-01T00:00:00Z".to_owned(),
            starts: 0,
        };
        vessels.insert(id.clone(), vessel);
        drop(vessels);
        self.tell(&id, "create", false);
        (StatusCode::CREATED, json!({"Id": id, "Warnings": []}).to_string()).into_response()
    }

    async fn start(&self, id: &str) -> Response {
        let port = {
            let mut vessels = self.vessels();
            let one = vessels.get_mut(id).unwrap();
            one.status = "running";
            one.started = chrono::Utc::now().to_rfc3339();
            one.starts += 1;
            let ports = one.body["HostConfig"]["PortBindings"].as_object();
            let port = ports.and_then(|ports| ports.values().next());
            let port = port.and_then(|port| port[0]["HostPort"].as_str()?.parse().ok());
            port.filter(|_| one.starts == 1)
        };
        if let Some(port) = port {
            serve_probes(port).await;
        }
        self.tell(id, "start", false);
        StatusCode::NO_CONTENT.into_response()
    }

    fn list(&self) -> Response {
        let vessels = self.vessels();
        let row = |(id, one): (&String, &Vessel)| {
            let ports = one.body["HostConfig"]["PortBindings"].as_object();
            let port = ports.and_then(|all| all.values().next()?[0]["HostPort"].as_str());
            json!({
                "Id": id, "Names": [format!("/{}", one.name)], "Image": IMAGE, "ImageID": IMAGE,
                "Command": "/app", "Created": 1, "State": one.status, "Status": "Up 5 minutes",
                "Labels": one.body["Labels"],
                "Ports": [{"IP": "127.0.0.1", "PrivatePort": 3000, "Type": "tcp",
                    "PublicPort": port.and_then(|port| port.parse::<u16>().ok())}],
                "HostConfig": {"NetworkMode": one.body["HostConfig"]["NetworkMode"]},
                "NetworkSettings": {"Networks": {}}, "Mounts": [],
            })
        };
        let rows: Vec<Value> = vessels.iter().map(row).collect();
        json!(rows).to_string().into_response()
    }

    fn events(&self) -> Response {
        let told = self.events.subscribe();
        let lines = futures_util::stream::unfold(told, |mut told| async move {
            loop {
                match told.recv().await {
                    Ok(line) => return Some((Ok::<_, Infallible>(line), told)),
                    Err(broadcast::error::RecvError::Lagged(_)) => (),
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Body::from_stream(lines.boxed()).into_response()
    }
}

async fn answer(
    State(engine): State<Arc<Engine>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    engine.asked.fetch_add(1, Ordering::Relaxed);
    let parts: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    let gone = || (StatusCode::NOT_FOUND, json!({"message": "no such thing"}).to_string());
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["version"]) => json!({"Version": "20.10.24", "ApiVersion": "1.41",
            "MinAPIVersion": "1.12", "KernelVersion": "6.1"})
        .to_string()
        .into_response(),
        ("GET", ["events"]) => engine.events(),
        ("GET", ["containers", "json"])
            if uri.query().is_some_and(|q| q.contains("%22name%22")) =>
        {
            "[]".into_response()
        }
        ("GET", ["containers", "json"]) => engine.list(),
        ("POST", ["containers", "create"]) => {
            let name = uri.query().and_then(|query| query.split("name=").nth(1));
            let name = name.and_then(|name| name.split('&').next()).unwrap_or_default();
            engine.create(name, &body)
        }
        ("GET", ["containers", id, "json"]) => match engine.vessels().get(*id) {
            Some(one) => Engine::inspected(id, one).to_string().into_response(),
            None => gone().into_response(),
        },
        ("POST", ["containers", id, "start"]) => engine.start(id).await,
        ("GET", ["images", .., "json"]) => {
            json!({"Id": IMAGE, "Config": {"User": ""}}).to_string().into_response()
        }
        ("POST", ["networks", "create"]) => {
            let mut network: Value = serde_json::from_slice(&body).unwrap();
            network["Id"] = "00".repeat(32).into();
            *engine.network.lock().unwrap() = Some(network);
            (StatusCode::CREATED, json!({"Id": "00".repeat(32)}).to_string()).into_response()
        }
        ("GET", ["networks", _]) => match &*engine.network.lock().unwrap() {
            Some(network) => network.to_string().into_response(),
            None => gone().into_response(),
        },
        _ => gone().into_response(),
    }
}

/// Answers 200 to whoever asks at a port.
async fn serve_probes(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let mut asked = [0; 1024];
                let _gone = stream.read(&mut asked).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _gone = stream.write_all(answer).await;
            });
        }
    });
}
