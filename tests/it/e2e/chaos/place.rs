//! Where chaos reigns: an engine in namespaces of its own, a store on its disk, a small disk for
//! the workspaces, and an operator between them, all of which may be killed.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use docket::objects::s3::S3;
use docket::world::Objects as _;
use md5::Digest as _;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::e2e::faults::PrivateEngine;
use crate::e2e::lazy::{checked, content, gate_pid};
use crate::e2e::rig::{Rig, class, run};

const STORE: &str = "127.0.0.1:9900";
const LARGE: usize = 300_000;

/// A session, its container's state, its id.
pub type Seen = (String, String, String);

/// How s3s-fs writes names.
const NAMES: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The store: an S3 server whose objects outlive it.
pub struct Store {
    program: String,
    dir: PathBuf,
    process: Option<Child>,
    door: S3,
    runtime: tokio::runtime::Runtime,
}

pub struct Place {
    pub store: Store,
    pub engine: PrivateEngine,
    // The engine ends before its disk, and that before the directory it is mounted in.
    _disk: Disk,
    pub rig: Rig,
    host: String,
    pub holders: Vec<TcpListener>,
    /// Each tenant's large file, and what the sample says of it.
    pub large: Vec<(Vec<u8>, String)>,
    /// Where each session was last seen.
    addresses: BTreeMap<String, String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.rig.kill();
    }
}

/// A small file system of its own.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _it_may_be_gone = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

impl Store {
    pub fn start(&mut self) {
        let mut words = Command::new(&self.program);
        let (host, port) = STORE.split_once(':').unwrap();
        words.args(["--host", host, "--port", port, "--access-key", crate::s3::KEY]);
        words.args(["--secret-key", crate::s3::SECRET]).arg(&self.dir);
        words.env("RUST_LOG", "off").stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(words.stderr(Stdio::null()).spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(STORE).is_err() {
            assert!(Instant::now() < end, "the store does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// s3s-fs keeps an object and what it says of it in three files. A kill between them leaves
    /// one that no object store may ever show: it is given what belongs to its content. How many.
    pub fn mend(&self) -> u64 {
        let mut mended = 0;
        for entry in std::fs::read_dir(&self.dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some((bucket, object)) = name
                .strip_prefix(".bucket-")
                .and_then(|rest| rest.strip_suffix(".internal.json")?.split_once(".object-"))
            else {
                continue;
            };
            let plain = |text: &str| String::from_utf8(NAMES.decode(text).unwrap()).unwrap();
            let at = self.dir.join(plain(bucket)).join(plain(object));
            let said = self.dir.join(&name);
            let about = self.dir.join(name.replace(".internal.json", ".metadata.json"));
            let read = |path: &Path| -> Option<Value> {
                serde_json::from_slice(&std::fs::read(path).ok()?).ok()
            };
            let Ok(content) = std::fs::read(&at) else { continue };
            let tag = hex(&md5::Md5::digest(&content));
            let mut noted = read(&said).unwrap_or_else(|| json!({"e_tag": ""}));
            // That of a content in parts is none of the whole.
            let right =
                noted["e_tag"].as_str().is_some_and(|noted| noted == tag || noted.contains('-'));
            if right {
                continue;
            }
            let mut words = read(&about).unwrap_or_else(|| json!({"user_metadata": {}}));
            noted["e_tag"] = tag.into();
            words["user_metadata"]["docket-sha256"] = hex(&sha2::Sha256::digest(&content)).into();
            std::fs::write(&said, noted.to_string()).unwrap();
            std::fs::write(&about, words.to_string()).unwrap();
            mended += 1;
        }
        mended
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.runtime.block_on(async {
            let (_, mut body) = self.door.get(key).await.ok()?;
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes).await.ok()?;
            Some(bytes)
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Place {
    pub fn new(seed: u64, sessions: u64) -> Place {
        let mut rig = Rig::new("chaos");
        let disk = disk(&rig);
        // Every other seed's engine takes its containers with it.
        let options: &[&str] = if seed.is_multiple_of(2) { &["--live-restore"] } else { &[] };
        let (engine, host) = PrivateEngine::start(options);
        move_into(&engine);
        rig.configure(&format!("docker: {host}"));
        rig.set("minFree", "4Mi");
        let lazy = "sync: {interval: 1s}, files: {eagerBelow: 1Ki, large: OnAccess}";
        rig.write("legal.yaml", &class("legal", "").replace("sync: {interval: 1s}", lazy));
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        rig.env = vec![
            set("AWS_ACCESS_KEY_ID", crate::s3::KEY),
            set("AWS_SECRET_ACCESS_KEY", crate::s3::SECRET),
            set("DOCKET_STORE", "s3://chaos/of it"),
            set("DOCKET_S3_ENDPOINT", &format!("http://{STORE}")),
        ];
        let large = (0..sessions).map(|who| content(seed + who, LARGE));
        let large: Vec<_> = large.map(|bytes| (bytes.clone(), checked(&bytes))).collect();
        let store = store(&rig, &large);
        let holders = Vec::new();
        let addresses = BTreeMap::new();
        Place { rig, store, engine, _disk: disk, host, holders, large, addresses }
    }

    fn docker(&self, words: &[&str]) -> Option<String> {
        let out = Command::new("timeout")
            .args(["10", "docker", "-H", &self.host])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Containers of this operator; `None`: the engine does not answer.
    pub fn containers(&self) -> Option<Vec<Seen>> {
        let filter = format!("label=docket.dev/installation={}", self.rig.installation);
        let format = "{{.Label \"docket.dev/session\"}} {{.State}} {{.ID}}";
        let said =
            self.docker(&["ps", "-a", "--no-trunc", "--filter", &filter, "--format", format]);
        Some(said?.lines().filter_map(three).collect())
    }

    /// Asks a tenant's own container. Where the engine cannot say where that is now, it may have moved
    /// since, and another's answers there by now: whoever answers is asked for his name first.
    pub fn ask_own(&mut self, who: u64, method: &str, path: &str, body: &str) -> Asked {
        let Some(address) = self.address(&format!("s{who}")) else { return Asked::Unsent };
        let own = format!("USER_ID=u{who}");
        match ask(&address, "GET", "/env", "") {
            Asked::Answer(200, all) if all.lines().any(|line| line == own) => {
                ask(&address, method, path, body)
            }
            Asked::Answer(200, _) => Asked::Another { by_word: self.docker(&["info"]).is_some() },
            // Whoever does not say who he is may be anybody.
            _ => match ask(&address, method, path, body) {
                Asked::Answer(..) => Asked::Unknown,
                other => other,
            },
        }
    }

    /// Where a session's container answers, by the engine's word of this moment, or its last one.
    fn address(&mut self, session: &str) -> Option<String> {
        let label = format!("label=docket.dev/session={session}");
        if let Some(said) = self.docker(&["ps", "--filter", &label, "--format", "{{.Ports}}"]) {
            // `127.0.0.1:21003->3000/tcp`
            match said.split("->").next().filter(|address| !address.trim().is_empty()) {
                Some(at) => self.addresses.insert(session.to_owned(), at.trim().to_owned()),
                None => self.addresses.remove(session),
            };
        }
        self.addresses.get(session).cloned()
    }

    pub fn by_hand(&self, session: &str, verb: &[&str]) -> bool {
        let all = self.containers().unwrap_or_default();
        let Some((_, _, id)) = all.iter().find(|(of, ..)| of == session) else { return false };
        let mut words = verb.to_vec();
        words.push(id);
        self.docker(&words).is_some()
    }

    /// Kills the gate while an operator is there to start the next one, and waits for that.
    pub fn kill_gate(&mut self) -> bool {
        let Some(gate) = gate_pid(&self.rig) else { return false };
        if self.rig.docket(&["get"]).code != 0 {
            return false;
        }
        let killed = Command::new("kill").args(["-KILL", &gate.to_string()]).output().unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while gate_pid(&self.rig).is_none_or(|now| now == gate) {
            assert!(Instant::now() < end, "no gate follows{}", self.rig.tail());
            self.alive();
            std::thread::sleep(Duration::from_millis(20));
        }
        killed.status.success()
    }

    /// Takes every byte of the workspaces' disk.
    pub fn fill_disk(&self) {
        let at = self.rig.path("workspaces");
        let free = rustix::fs::statvfs(&at).unwrap();
        let file = std::fs::File::create(at.join(".docket/ballast")).unwrap();
        let size = free.f_bavail * free.f_frsize;
        let flags = rustix::fs::FallocateFlags::empty();
        let _less_is_free_by_now = rustix::fs::fallocate(&file, flags, 0, size.max(1));
    }

    pub fn free_disk(&self) {
        std::fs::remove_file(self.rig.path("workspaces/.docket/ballast")).unwrap();
    }

    /// Some ports of the range are a stranger's.
    pub fn hold_ports(&mut self, which: u64) {
        let (first, last) = self.rig.ports;
        let ports = (first..=last).filter(|port| u64::from(*port) % 4 == which % 4);
        self.holders.extend(ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()));
    }

    /// The operator ends only when it is killed.
    pub fn alive(&mut self) {
        if let Some(status) = self.rig.ended() {
            panic!("the operator ended by itself ({status}){}", self.rig.tail());
        }
    }

    /// Waits until nothing is wrong any more.
    pub fn calm(
        &mut self,
        what: &str,
        within: Duration,
        mut wrong: impl FnMut(&Place) -> Option<String>,
    ) {
        let end = Instant::now() + within;
        while let Some(why) = wrong(self) {
            self.alive();
            if Instant::now() >= end {
                // For a look at all of it: the directory of this run goes.
                let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/chaos");
                std::fs::create_dir_all(&kept).unwrap();
                let log = kept.join("operator.log");
                std::fs::copy(self.rig.path("operator.log"), &log).unwrap();
                run("cp", &["-r", self.store.dir.to_str().unwrap(), kept.to_str().unwrap()]);
                panic!("not in time: {what}: {why}; kept in {}{}", kept.display(), self.rig.tail());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// All files of a tenant in the store.
    pub fn stored(&self, who: u64) -> BTreeMap<String, Vec<u8>> {
        let manifest = self.store.get(&format!("u{who}/c/manifest.json")).unwrap_or_default();
        let rows: Vec<Value> = serde_json::from_slice(&manifest).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |row: &Value| {
            let bytes = self.store.get(&format!("u{who}/c/{}", text(&row["storage_key"])))?;
            Some((text(&row["logical_path"]), bytes))
        };
        rows.iter().filter_map(row).collect()
    }
}

fn three(line: &str) -> Option<Seen> {
    let mut words = line.split(' ').map(str::to_owned);
    Some((words.next()?, words.next()?, words.next()?))
}

/// 64 MiB of their own for the workspaces, before the engine copies the table of mounts.
fn disk(rig: &Rig) -> Disk {
    let (image, at) = (rig.path("disk"), rig.path("workspaces"));
    std::fs::create_dir(&at).unwrap();
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
    run("mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
    run("chmod", &["700", at.to_str().unwrap()]);
    Disk(at)
}

/// This thread, and what it starts, into the network where the engine publishes its ports.
fn move_into(engine: &PrivateEngine) {
    let pid = std::fs::read_to_string(engine.dir.path().join("init.pid")).unwrap();
    let network = std::fs::File::open(format!("/proc/{}/ns/net", pid.trim())).unwrap();
    let kind = Some(rustix::thread::LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), kind).unwrap();
}

/// The store with each tenant's large file in it.
fn store(rig: &Rig, large: &[(Vec<u8>, String)]) -> Store {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3-server");
    let program = run(script, &["install", "s3s"]).trim().to_owned();
    let dir = rig.path("s3");
    std::fs::create_dir_all(dir.join("chaos")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let door = crate::s3::door(&format!("http://{STORE}"), "chaos", "of it");
    let mut store = Store { program, dir, process: None, door, runtime };
    store.start();
    for (who, (bytes, _)) in large.iter().enumerate() {
        let rows = json!([{
            "logical_path": "large.bin", "size": bytes.len(), "storage_key": "k/large",
            "mtime": "2024-05-06T07:08:09Z",
        }]);
        let at = chrono::Utc::now();
        for (key, bytes) in [("k/large", bytes.clone()), ("manifest.json", rows.to_string().into())]
        {
            let key = format!("u{who}/c/{key}");
            let put = store.door.put_if(&key, bytes, None, at);
            store.runtime.block_on(put).unwrap();
        }
    }
    store
}

/// What is known of an exchange with a tenant.
pub enum Asked {
    /// It never arrived.
    Unsent,
    /// It may have arrived, and may still be carried out.
    Unknown,
    /// Another tenant's container answered; whether the engine had just said where to ask.
    Another {
        by_word: bool,
    },
    Answer(u16, String),
}

/// One HTTP exchange.
pub fn ask(address: &str, method: &str, path: &str, body: &str) -> Asked {
    let Ok(to) = address.parse::<SocketAddr>() else { return Asked::Unsent };
    let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) else {
        return Asked::Unsent;
    };
    let mut exchange = || {
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    };
    exchange().map_or(Asked::Unknown, |(status, body)| Asked::Answer(status, body))
}
