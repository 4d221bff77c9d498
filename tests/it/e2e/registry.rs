//! Images from a registry of the test's own on 127.0.0.1, which Docker trusts without TLS. It can
//! hold back a layer for as long as a test wants, so that "during a pull" is a place and no race.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rig::{PATIENCE, Rig, class, condition, run, session};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[derive(Default)]
struct Shelf {
    /// What can be had: path to content type and bytes.
    things: BTreeMap<String, (String, Vec<u8>)>,
    /// Layers are not handed out.
    held: bool,
    /// Somebody waits for a layer.
    asked: bool,
    layers: Vec<String>,
    /// Who comes without this gets nothing: `user:password` in base64.
    login: Option<String>,
}

struct Registry {
    address: String,
    shelf: Arc<Mutex<Shelf>>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shelf.lock().unwrap().held = false;
        // By digest too: a tag that was moved leaves its first image behind.
        let repository = format!("{}/case", self.address);
        let listed = std::process::Command::new("docker")
            .args(["images", "-q", "--no-trunc", &repository])
            .output();
        let ids = listed.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        for image in ids.unwrap_or_default().lines() {
            let _used_elsewhere =
                std::process::Command::new("docker").args(["rmi", "-f", image]).output();
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

impl Registry {
    fn start() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let served = Arc::clone(&shelf);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shelf = Arc::clone(&served);
                std::thread::spawn(move || serve(stream, &shelf));
            }
        });
        Registry { address, shelf }
    }

    /// Puts the sample image with a file of its own under a name and tag: nothing of its layer is
    /// on the engine yet. Returns the reference.
    fn put(&self, tag: &str, mark: &str) -> String {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        run("docker", &["save", "-o", &at("all.tar"), "docket-sample:latest"]);
        run("tar", &["-xf", &at("all.tar"), "-C", &at("")]);
        let read = |path: &Path| std::fs::read(path).unwrap();
        let listed: Value =
            serde_json::from_slice(&read(&place.path().join("manifest.json"))).unwrap();
        let inside = |name: &Value| place.path().join(name.as_str().unwrap());
        let layer = inside(&listed[0]["Layers"][0]);
        let mark = format!("{mark} {} {}", std::process::id(), self.address);
        std::fs::write(place.path().join("mark"), mark).unwrap();
        run("tar", &["-rf", &layer.display().to_string(), "-C", &at(""), "mark"]);
        let layer = read(&layer);
        let mut config: Value =
            serde_json::from_slice(&read(&inside(&listed[0]["Config"]))).unwrap();
        config["rootfs"]["diff_ids"] = json!([digest(&layer)]);
        let config = serde_json::to_vec(&config).unwrap();
        let part = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "size": bytes.len(), "digest": digest(bytes)});
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part("application/vnd.docker.container.image.v1+json", &config),
            "layers": [part("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer)],
        }))
        .unwrap();
        let mut shelf = self.shelf.lock().unwrap();
        let blob = |bytes: &[u8]| format!("/v2/case/blobs/{}", digest(bytes));
        shelf.layers.push(blob(&layer));
        let plain = || "application/octet-stream".to_owned();
        shelf.things.insert(blob(&layer), (plain(), layer));
        shelf.things.insert(blob(&config), (plain(), config));
        for name in [tag, &digest(&manifest)] {
            let path = format!("/v2/case/manifests/{name}");
            shelf.things.insert(path, (MANIFEST.to_owned(), manifest.clone()));
        }
        drop(shelf);
        format!("{}/case:{tag}", self.address)
    }
}

fn serve(stream: TcpStream, shelf: &Mutex<Shelf>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (method, path) = {
        let mut words = line.split(' ');
        (words.next()?.to_owned(), words.next()?.to_owned())
    };
    let from = line.len();
    while reader.read_line(&mut line).ok()? > 2 {}
    let login = shelf.lock().ok()?.login.clone();
    let knocks = login.is_some_and(|login| !line[from..].contains(&format!("Basic {login}")));
    let (status, kind, bytes) = if knocks {
        (401, "application/json".to_owned(), b"{\"errors\": []}".to_vec())
    } else if path == "/v2/" {
        (200, "application/json".to_owned(), b"{}".to_vec())
    } else {
        let mut one = shelf.lock().ok()?;
        while one.held && method == "GET" && one.layers.contains(&path) {
            one.asked = true;
            drop(one);
            std::thread::sleep(std::time::Duration::from_millis(20));
            one = shelf.lock().ok()?;
        }
        match one.things.get(&path) {
            Some((kind, bytes)) => (200, kind.clone(), bytes.clone()),
            None => (404, "application/json".to_owned(), b"{\"errors\": []}".to_vec()),
        }
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\
         Content-Type: {kind}\r\nWWW-Authenticate: Basic realm=\"case\"\r\nDocker-Content-Digest: {}\r\nContent-Length: {}\r\n\r\n",
        digest(&bytes),
        bytes.len()
    )
    .ok()?;
    if method != "HEAD" {
        stream.write_all(&bytes).ok()?;
    }
    Some(())
}

/// A class of an image, however it is to be pulled.
fn of_image(image: &str, policy: &str) -> String {
    class("legal", "")
        .replace("docket-sample:latest", &format!("\"{image}\""))
        .replace("pullPolicy: Never", &format!("pullPolicy: {policy}"))
}

#[test]
fn a_session_that_is_removed_while_its_image_is_pulled_is_gone_before_the_pull_ends() {
    let registry = Registry::start();
    let image = registry.put("slow", "slow");
    registry.shelf.lock().unwrap().held = true;
    let mut rig = Rig::new("pull");
    rig.write("legal.yaml", &of_image(&image, "IfNotPresent"));
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    rig.start();
    rig.until("the layer is asked for", |_| registry.shelf.lock().unwrap().asked);
    let view = rig.see("tells of the pull", "a", |view| view["status"]["port"].is_u64());
    assert_eq!(view["status"]["phase"], "Preparing", "{view}");
    assert_eq!(condition(&view, "ImageReady").0, "False", "{view}");
    let step = format!("resolve image {image}");
    assert_eq!(condition(&view, "Reconciling").2, step, "{view}");
    rig.remove("a.yaml");
    rig.gone("a");
    assert!(registry.shelf.lock().unwrap().held, "the pull cannot have ended");
    registry.shelf.lock().unwrap().held = false;
    // The same name anew is another session, and gets what was asked for.
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    rig.ready("a");
    assert_eq!(rig.containers().len(), 1);
}

#[test]
fn a_moved_tag_changes_nothing_until_a_restart_asks_the_registry_again() {
    let registry = Registry::start();
    let image = registry.put("v", "first");
    let mut rig = Rig::new("moved");
    rig.write("legal.yaml", &of_image(&image, "Always"));
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    rig.start();
    let first = rig.ready("a")["status"]["container"]["imageId"].clone();
    registry.put("v", "second");
    let name = rig.get("a").unwrap()["status"]["container"]["name"].clone();
    run("docker", &["rm", "-f", name.as_str().unwrap()]);
    let of_attempt = |rig: &mut Rig, attempt: u64| {
        rig.see("has its new container", "a", |view| {
            view["status"]["container"]["attempt"] == attempt
                && condition(view, "Ready").0 == "True"
        })
    };
    assert_eq!(of_attempt(&mut rig, 2)["status"]["container"]["imageId"], first);
    rig.ok(&["restart", "a"]);
    let view = of_attempt(&mut rig, 3);
    assert_ne!(view["status"]["container"]["imageId"], first);
    assert_eq!(view["metadata"]["generation"], 1, "{view}");
}

#[test]
fn a_registry_that_wants_a_login_gets_what_docker_login_left() {
    let registry = Registry::start();
    let image = registry.put("private", "private");
    // ann:open sesame
    let login = "YW5uOm9wZW4gc2VzYW1l";
    registry.shelf.lock().unwrap().login = Some(login.to_owned());
    let mut rig = Rig::new("login");
    rig.write("legal.yaml", &of_image(&image, "IfNotPresent"));
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    let config = rig.path("docker-config");
    std::fs::create_dir(&config).unwrap();
    rig.spawn(&[("DOCKER_CONFIG", config.to_str().unwrap())]);
    rig.answers();
    let view =
        rig.see("is not let in", "a", |view| condition(view, "ImageReady").1 == "ImagePullFailed");
    assert!(condition(&view, "ImageReady").2.contains("no basic auth credentials"), "{view}");
    let explained = rig.ok(&["explain", "a"]);
    assert!(explained.contains("docker login"), "{explained}");
    let entry = json!({"auths": {&registry.address: {"auth": login}}});
    std::fs::write(config.join("config.json"), entry.to_string()).unwrap();
    rig.ready("a");
    let state = rig.path("state");
    let log = rig.path("operator.log");
    let secrets =
        ["-r", "-e", "open sesame", "-e", login, log.to_str().unwrap(), state.to_str().unwrap()];
    let found = std::process::Command::new("grep").args(secrets).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{found:?}");
}

#[test]
fn a_policy_of_never_does_not_ask_the_registry() {
    let registry = Registry::start();
    let image = registry.put("never", "never");
    let mut rig = Rig::new("never");
    rig.write("legal.yaml", &of_image(&image, "Never"));
    rig.write("a.yaml", &session("a", "ann", "one", ""));
    rig.start();
    let view = rig.see("misses its image", "a", |v| condition(v, "ImageReady").1 == "ImageMissing");
    assert_eq!(view["status"]["retry"]["operation"], "Image", "{view}");
    rig.write("legal.yaml", &of_image(&image, "IfNotPresent"));
    rig.ready("a");
}

#[test]
fn a_session_that_is_removed_while_it_starts_leaves_nothing() {
    let mut rig = Rig::new("starts");
    rig.write(
        "a.yaml",
        &session("a", "ann", "one", "  health: {path: /nothing-here, startup: 1h}"),
    );
    rig.start();
    rig.see("starts", "a", |view| {
        view["status"]["phase"] == "Starting" && view["status"]["container"]["state"] == "running"
    });
    let began = std::time::Instant::now();
    rig.remove("a.yaml");
    rig.gone("a");
    assert!(began.elapsed() < PATIENCE);
    assert!(rig.containers().is_empty());
    assert!(!rig.workspace("ann", "one").exists());
}
