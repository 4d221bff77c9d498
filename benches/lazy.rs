//! Large files that come when they are opened, by a process in a container, each beside a floor
//! taken in the same run. Prints medians and ratios; asserts no time.
//!
//! 1. The first open of a 64 MiB file, against a raw copy of an object like it, synced to disk.
//! 2. Reading it again, against a file that was always there.
//! 3. Placing 10,000 placeholders, against a plain loop that makes 10,000 sparse files.
//! 4. From the start of an operator to an answer for a reader that waited for one.
//!
//! `cargo bench --bench lazy` (PAIRS=10 for more pairs). Needs root, an engine and
//! `scripts/build-image`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stands outside: it measures with the wall clock and prints"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PORT: u16 = 22_800;
const LARGE: usize = 64 << 20;
const MANY: usize = 10_000;

/// A directory of our own with an operator; gone at the end with all that was made.
struct Rig {
    dir: PathBuf,
    operator: Option<Child>,
}

impl Rig {
    fn new() -> Rig {
        let dir = std::env::temp_dir().join(format!("docket-bench-lazy-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("specs")).unwrap();
        let text = format!(
            "specs: specs\nstate: state\nworkspaces: workspaces\nstore: file:{}\n\
             installation: bench-lazy\ncontainerPrefix: bench-lazy\nports: {PORT}-{}\n\
             minFree: 64Mi\n",
            dir.join("objects").display(),
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
        let child = Command::new(env!("CARGO_BIN_EXE_docket"))
            .args(["run", "--config"])
            .arg(self.dir.join("docket.yaml"))
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
        let out = Command::new(env!("CARGO_BIN_EXE_docket"))
            .args(args)
            .arg("--state")
            .arg(state)
            .output()
            .unwrap();
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

    /// Puts a case of so many files of one size into the store.
    fn store(&self, case: &str, count: usize, bytes: &[u8], declared: usize) {
        let prefix = self.dir.join("objects/ann").join(case);
        std::fs::create_dir_all(prefix.join("k")).unwrap();
        let rows: Vec<serde_json::Value> = (0..count)
            .map(|n| {
                if !bytes.is_empty() {
                    std::fs::write(prefix.join(format!("k/{n}")), bytes).unwrap();
                }
                serde_json::json!({
                    "logical_path": format!("d{}/f{n}", n % 20), "size": declared,
                    "storage_key": format!("k/{n}"), "mtime": "2024-05-06T07:08:09Z",
                })
            })
            .collect();
        let text = serde_json::Value::from(rows).to_string();
        std::fs::write(prefix.join("manifest.json"), text).unwrap();
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

/// What any client of the store could do: its bytes into a file here, synced to disk.
fn raw_copy(from: &Path, to: &Path) -> Duration {
    let began = Instant::now();
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
    target.sync_data().unwrap();
    began.elapsed()
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
    let mut rig = Rig::new();
    rig.store("large", pairs, &bytes(LARGE), LARGE);
    rig.store("many", MANY, &[], LARGE);
    rig.store("small", pairs, &bytes(5000), 5000);
    rig.start();

    // The first open, and reads after it.
    let (address, _) = rig.session("large");
    let copies = rig.dir.join("copies");
    std::fs::create_dir(&copies).unwrap();
    let (mut opens, mut raws, mut after, mut native) = (vec![], vec![], vec![], vec![]);
    for n in 0..pairs {
        let object = rig.dir.join(format!("objects/ann/large/k/{n}"));
        raws.push(raw_copy(&object, &copies.join(n.to_string())));
        let same = format!("/do?op=truncate&size={LARGE}&path=d{}/f{n}", n % 20);
        opens.push(ask(&address, "POST", &same));
        let always = rig.workspace("large").join(format!("always{n}"));
        std::fs::copy(&object, always).unwrap();
        native.push(ask(&address, "GET", &format!("/check?path=always{n}")));
        after.push(ask(&address, "GET", &format!("/check?path=d{}/f{n}", n % 20)));
    }
    tell("first open of 64 MiB", opens, "raw copy, synced", raws);
    tell("read again", after, "of a file that was always there", native);

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
