//! Large files that come when they are opened, by a process in a container, each beside a floor
//! taken in the same run. Prints medians and ratios; asserts no time.
//!
//! 1. The first open of a 64 MiB file, against a raw download of an object like it by plain clients
//!    of the same store, with and without a sync to disk: from a `file:` store (a loop that copies),
//!    and from an S3 server with its objects in memory (curl, and a loop over rusoto's body).
//! 2. Reading it again, against a file that was always there.
//! 3. Placing 10,000 placeholders, against a plain loop that makes 10,000 sparse files.
//! 4. From the start of an operator to an answer for a reader that waited for one.
//!
//! `cargo bench --bench lazy` (PAIRS=10 for more pairs; ONLY=open for the first alone;
//! DOCKET=FILE for another build's binary). Needs root, an engine, curl and `scripts/build-image`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stands outside: it measures with the wall clock and prints"
)]

#[path = "lazy/s3.rs"]
mod s3;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 22_800;
const LARGE: usize = 64 << 20;
const MANY: usize = 10_000;

/// The binary that is measured.
fn docket() -> String {
    std::env::var("DOCKET").unwrap_or_else(|_| env!("CARGO_BIN_EXE_docket").to_owned())
}

/// A directory of our own with an operator; gone at the end with all that was made.
struct Rig {
    dir: PathBuf,
    operator: Option<Child>,
}

impl Rig {
    fn new(server: Option<&s3::Server>) -> Rig {
        let dir = std::env::temp_dir().join(format!("docket-bench-lazy-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("specs")).unwrap();
        let store = match server {
            None => format!("file:{}", dir.join("objects").display()),
            Some(server) => {
                format!("s3://{}\ns3: {{endpoint: \"{}\"}}", s3::BUCKET, server.endpoint)
            }
        };
        let text = format!(
            "specs: specs\nstate: state\nworkspaces: workspaces\nstore: {store}\n\
             installation: bench-lazy\ncontainerPrefix: bench-lazy\nports: {PORT}-{}\n\
             minFree: 64Mi\n",
            PORT + 20
        );
        std::fs::write(dir.join("docket.yaml"), text).unwrap();
        let class = "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {name: default}\n\
             spec:\n  container: {image: docket-sample:latest, pullPolicy: Never}\n  \
             workspace: {quota: 0, files: {eagerBelow: 1Ki}, sync: {interval: 1h}}\n";
        std::fs::write(dir.join("specs/class.yaml"), class).unwrap();
        Rig { dir, operator: None }
    }

    fn start(&mut self) {
        let log = std::fs::File::create(self.dir.join("operator.log")).unwrap();
        let child = Command::new(docket())
            .args(["run", "--config"])
            .arg(self.dir.join("docket.yaml"))
            .envs(s3::CREDENTIALS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.operator = Some(child.unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.operator.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn docket(&self, args: &[&str]) -> Option<String> {
        let state = self.dir.join("state");
        let out = Command::new(docket()).args(args).arg("--state").arg(state).output().unwrap();
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Drops a session into the watched directory; its address and how long it took to be Ready.
    fn session(&self, case: &str) -> (String, Duration) {
        let text = format!(
            "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: {case}}}\n\
             spec: {{user: ann, case: {case}}}\n"
        );
        let staged = self.dir.join("staged");
        std::fs::write(&staged, text).unwrap();
        let began = Instant::now();
        std::fs::rename(staged, self.dir.join(format!("specs/{case}.yaml"))).unwrap();
        loop {
            let asked = self.docket(&["wait", case, "--for=ready", "--timeout", "60s"]);
            if asked.is_some() {
                break;
            }
        }
        let took = began.elapsed();
        let view = self.docket(&["get", case, "-o", "json"]).unwrap();
        let view: serde_json::Value = serde_json::from_str(&view).unwrap();
        (view["status"]["address"].as_str().unwrap().to_owned(), took)
    }

    /// Puts a case of so many files of one size into the directory.
    fn store(&self, case: &str, count: usize, bytes: &[u8], declared: usize) {
        let prefix = self.dir.join("objects/ann").join(case);
        std::fs::create_dir_all(prefix.join("k")).unwrap();
        for n in (0..count).filter(|_| !bytes.is_empty()) {
            std::fs::write(prefix.join(format!("k/{n}")), bytes).unwrap();
        }
        std::fs::write(prefix.join("manifest.json"), manifest(count, bytes, declared)).unwrap();
    }

    fn workspace(&self, case: &str) -> PathBuf {
        self.dir.join("workspaces/ann/active").join(case)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill();
        let filter = "label=docket.dev/installation=bench-lazy";
        let ours = Command::new("docker").args(["ps", "-aq", "--filter", filter]).output().unwrap();
        for id in String::from_utf8_lossy(&ours.stdout).lines() {
            let _gone = Command::new("docker").args(["rm", "-f", id]).output();
        }
        let _gone = Command::new("docker").args(["network", "rm", "docket-bench-lazy"]).output();
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

/// One exchange with the container; it must succeed.
fn ask(address: &str, method: &str, path: &str) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    began.elapsed()
}

/// A manifest of so many files of one content, as docket writes it: with its sum.
fn manifest(count: usize, bytes: &[u8], declared: usize) -> String {
    use sha2::Digest as _;
    let sum = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let rows: Vec<serde_json::Value> = (0..count)
        .map(|n| {
            let mut row = serde_json::json!({
                "logical_path": format!("d{}/f{n}", n % 20), "size": declared,
                "storage_key": format!("k/{n}"), "mtime": "2024-05-06T07:08:09Z",
            });
            if !bytes.is_empty() {
                row["sha256"] = sum.clone().into();
            }
            row
        })
        .collect();
    serde_json::Value::from(rows).to_string()
}

/// What any client of the directory could do: its bytes into a file here.
fn raw_copy(from: &Path, to: &Path) {
    let mut source = std::fs::File::open(from).unwrap();
    let mut target = std::fs::File::create(to).unwrap();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = source.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        target.write_all(&buffer[..read]).unwrap();
    }
}

/// How long work takes when the disk has nothing else to do.
fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    rustix::fs::sync();
    let began = Instant::now();
    let _it_was_asserted = work();
    began.elapsed()
}

/// The object of this number, into this file.
type Download<'a> = Box<dyn Fn(usize, &Path) + 'a>;

/// A plain client, and how long each of its downloads took.
struct Floor<'a> {
    name: &'static str,
    download: Download<'a>,
    plain: Vec<Duration>,
    synced: Vec<Duration>,
}

impl<'a> Floor<'a> {
    fn new(name: &'static str, download: impl Fn(usize, &Path) + 'a) -> Floor<'a> {
        Floor { name, download: Box::new(download), plain: vec![], synced: vec![] }
    }

    fn measure(&mut self, n: usize, dir: &Path) {
        let to = dir.join("copy");
        self.plain.push(timed(|| (self.download)(n, &to)));
        std::fs::remove_file(&to).unwrap();
        self.synced.push(timed(|| {
            (self.download)(n, &to);
            std::fs::File::open(&to).unwrap().sync_data().unwrap();
        }));
        std::fs::remove_file(&to).unwrap();
    }
}

/// First opens of the session `large` beside plain downloads, and reads after them.
fn opens(rig: &Rig, pairs: usize, store: &str, mut floors: Vec<Floor<'_>>) {
    let (address, _) = rig.session("large");
    let copies = rig.dir.join("copies");
    std::fs::create_dir(&copies).unwrap();
    let (mut opens, mut after, mut native) = (vec![], vec![], vec![]);
    let content = bytes(LARGE);
    for n in 0..pairs {
        for floor in &mut floors {
            floor.measure(n, &copies);
        }
        let same = format!("/do?op=truncate&size={LARGE}&path=d{}/f{n}", n % 20);
        opens.push(timed(|| ask(&address, "POST", &same)));
        let always = rig.workspace("large").join(format!("always{n}"));
        std::fs::write(always, &content).unwrap();
        native.push(timed(|| ask(&address, "GET", &format!("/check?path=always{n}"))));
        let again = format!("/check?path=d{}/f{n}", n % 20);
        after.push(timed(|| ask(&address, "GET", &again)));
    }
    for Floor { name, plain, synced, .. } in floors {
        tell(&format!("{store} first open of 64 MiB"), opens.clone(), name, plain);
        let synced_name = format!("{name}, synced");
        tell(&format!("{store} first open of 64 MiB"), opens.clone(), &synced_name, synced);
    }
    tell(&format!("{store} read again"), after, "of a file that was always there", native);
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn tell(what: &str, mut ours: Vec<Duration>, floor: &str, mut floors: Vec<Duration>) {
    let (one, other) = (median(&mut ours), median(&mut floors));
    println!(
        "{what}: {one:.1?} ({:.1?} to {:.1?}); {floor}: {other:.1?} ({:.1?} to {:.1?}); ratio {:.2}",
        ours[0],
        ours[ours.len() - 1],
        floors[0],
        floors[floors.len() - 1],
        one.as_secs_f64() / other.as_secs_f64()
    );
}

fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

fn main() {
    let pairs = std::env::var("PAIRS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load at the start: {}", load.trim());
    let large = bytes(LARGE);
    {
        let server = s3::Server::start();
        for n in 0..pairs {
            server.put(&format!("ann/large/k/{n}"), &large);
        }
        let rows = manifest(pairs, &large, LARGE);
        server.put("ann/large/manifest.json", rows.as_bytes());
        let mut rig = Rig::new(Some(&server));
        rig.start();
        let key = |n| format!("ann/large/k/{n}");
        let floors = vec![
            Floor::new("curl", |n, to| server.curl(&key(n), to)),
            Floor::new("a loop over rusoto's body", |n, to| server.download(&key(n), to)),
        ];
        opens(&rig, pairs, "s3:", floors);
    }
    let mut rig = Rig::new(None);
    rig.store("large", pairs, &large, LARGE);
    rig.store("many", MANY, &[], LARGE);
    rig.store("small", pairs, &bytes(5000), 5000);
    rig.start();
    let objects = rig.dir.join("objects/ann/large/k");
    let copy = Floor::new("raw copy", |n, to| raw_copy(&objects.join(n.to_string()), to));
    opens(&rig, pairs, "file:", vec![copy]);
    if std::env::var("ONLY").is_ok_and(|only| only == "open") {
        return;
    }

    // Many placeholders: what they add to the time to Ready.
    let (_, empty) = rig.session("empty");
    let (_, many) = rig.session("many");
    let placed = many.saturating_sub(empty);
    let plain = rig.dir.join("plain");
    std::fs::create_dir(&plain).unwrap();
    let began = Instant::now();
    for n in 0..MANY {
        std::fs::File::create(plain.join(n.to_string())).unwrap().set_len(1 << 20).unwrap();
    }
    std::fs::File::open(&plain).unwrap().sync_all().unwrap();
    println!(
        "{MANY} placeholders: {placed:.2?} more to Ready (limit 3 s); plain sparse files: {:.2?}",
        began.elapsed()
    );

    // A reader that waits for the next operator.
    let (address, _) = rig.session("small");
    let mut served = Vec::new();
    for n in 0..pairs {
        rig.kill();
        let waiting = {
            let address = address.clone();
            std::thread::spawn(move || {
                ask(&address, "GET", &format!("/check?path=d{}/f{n}", n % 20));
                Instant::now()
            })
        };
        std::thread::sleep(Duration::from_millis(200));
        let began = Instant::now();
        rig.start();
        served.push(waiting.join().unwrap() - began);
    }
    let middle = median(&mut served);
    let (least, most) = (served[0], served[served.len() - 1]);
    println!(
        "start of an operator to the answer for a waiting reader: {middle:.1?} ({least:.1?} to \
         {most:.1?}; limit 100 ms)"
    );
}
