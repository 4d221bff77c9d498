//! Docket's own transfer path beside rclone and the AWS CLI, on the same server and files, one
//! after the other in turn. Prints medians and their ratios; asserts no time.
//!
//! `cargo bench --bench store` (`PAIRS=5`, `FILES=10000`, `LARGE_MIB=1024`, `AWS=0` without the
//! AWS CLI, which takes most of the time). The server is one of the tests' own, with its objects
//! in memory; `scripts/s3-peers` installs the others. Peers copy; docket hashes, makes sure that
//! what came is on the disk, and swaps a manifest.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench stands outside: it measures with the wall clock and prints"
)]

#[path = "store/worker.rs"]
mod worker;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const BUCKET: &str = "docket-bench";
const SMALL: usize = 4096;
/// More than that and rclone gets slower here.
const RCLONE_TRANSFERS: &str = "32";

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The server, with its objects on a tmpfs: the disk is not what is measured.
struct Server {
    process: Child,
    endpoint: String,
}

impl Server {
    fn start() -> Server {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3-server");
        let installed =
            Command::new(script).args(["install", "s3s"]).stdout(Stdio::null()).status();
        assert!(installed.unwrap().success());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(script)
            .args(["run", "s3s", &address])
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        while TcpStream::connect(&address).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Server { process, endpoint: format!("http://{address}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}

/// Docket's side.
struct Docket {
    root: PathBuf,
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What a command came to.
struct Told {
    took: f64,
    files: usize,
    /// MiB, now and at most.
    memory: (f64, f64),
}

impl Docket {
    fn start(root: &Path, peers: &Peers) -> Docket {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .envs(peers.environment.iter().map(|(name, value)| (name, value)))
            .env("STORE_BENCH_WORKER", root)
            .env("STORE_BENCH_ENDPOINT", &peers.endpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ask = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Docket { root: root.to_owned(), process, ask, answers }
    }

    fn ask(&mut self, line: &str) -> Told {
        writeln!(self.ask, "{line}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let numbers: Vec<f64> = answer.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let [nanos, files, now, most] = numbers[..] else { panic!("the worker died at `{line}`") };
        Told { took: nanos / 1e9, files: files as usize, memory: (now / 1024.0, most / 1024.0) }
    }

    fn out(&self, case: &str) -> PathBuf {
        self.root.join("out/ann/active").join(case)
    }

    fn came(&self, case: &str) -> PathBuf {
        self.root.join("in/ann/active").join(case)
    }
}

impl Drop for Docket {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The others.
struct Peers {
    environment: Vec<(String, String)>,
    endpoint: String,
    rclone: String,
    aws: Option<String>,
}

impl Peers {
    fn find(endpoint: &str, root: &Path) -> Peers {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3-peers");
        let found = Command::new(script).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let text = String::from_utf8(found.stdout).unwrap();
        let (rclone, aws) = text.trim().split_once('\n').unwrap();
        let config = root.join("aws-config");
        let text = "[default]\nregion = us-east-1\ns3 =\n  max_concurrent_requests = 32\n  \
                    addressing_style = path\n";
        std::fs::write(&config, text).unwrap();
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = vec![
            set("RCLONE_CONFIG", "/dev/null"),
            set("RCLONE_CONFIG_B_TYPE", "s3"),
            set("RCLONE_CONFIG_B_PROVIDER", "Other"),
            set("RCLONE_CONFIG_B_ENDPOINT", endpoint),
            set("RCLONE_CONFIG_B_ACCESS_KEY_ID", "AKIADOCKETTEST"),
            set("RCLONE_CONFIG_B_SECRET_ACCESS_KEY", "docket-test-secret"),
            set("RCLONE_CONFIG_B_FORCE_PATH_STYLE", "true"),
            set("RCLONE_CONFIG_B_NO_CHECK_BUCKET", "true"),
            set("AWS_CONFIG_FILE", config.to_str().unwrap()),
            set("AWS_ACCESS_KEY_ID", "AKIADOCKETTEST"),
            set("AWS_SECRET_ACCESS_KEY", "docket-test-secret"),
        ];
        let aws = (number("AWS", 1) != 0).then(|| aws.to_owned());
        let (endpoint, rclone) = (endpoint.to_owned(), rclone.to_owned());
        Peers { environment, endpoint, rclone, aws }
    }

    fn run(&self, program: &str, args: &[&str]) -> f64 {
        let began = Instant::now();
        let out = Command::new(program)
            .args(args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("AWS_CA_BUNDLE") // rclone cannot do with it, and nothing here is encrypted
            .output()
            .unwrap();
        let took = began.elapsed().as_secs_f64();
        let words = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program} {args:?}: {words}");
        took
    }

    fn rclone(&self, from: &str, to: &str) -> f64 {
        let n = RCLONE_TRANSFERS;
        let tuned = ["--transfers", n, "--checkers", n, "--fast-list", "--checksum"];
        self.run(&self.rclone, &[&["copy", from, to][..], &tuned].concat())
    }

    fn aws(&self, args: &[&str]) -> Option<f64> {
        let aws = self.aws.as_ref()?;
        let all =
            [&["--endpoint-url", &self.endpoint, "s3"], args, &["--only-show-errors"]].concat();
        Some(self.run(aws, &all))
    }
}

/// Seconds by row and by who.
#[derive(Default)]
struct Times(BTreeMap<&'static str, BTreeMap<&'static str, Vec<f64>>>);

impl Times {
    fn add(&mut self, row: &'static str, who: &'static str, took: impl Into<Option<f64>>) {
        let all = self.0.entry(row).or_default().entry(who).or_default();
        all.extend(took.into());
    }

    fn median(&self, row: &str, who: &str) -> Option<f64> {
        let mut all = self.0.get(row)?.get(who)?.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }

    /// The lowest and highest ratio of a pair.
    fn spread(&self, row: &str, who: &str) -> Option<(f64, f64)> {
        let row = self.0.get(row)?;
        let pairs =
            row.get("docket")?.iter().zip(row.get(who)?).map(|(ours, theirs)| ours / theirs);
        pairs.fold(None, |seen, ratio| {
            let (low, high): (f64, f64) = seen.unwrap_or((ratio, ratio));
            Some((low.min(ratio), high.max(ratio)))
        })
    }

    fn print(&self, rows: &[(&'static str, &str)]) {
        println!(
            "{:22} {:>9} {:>9} {:>9}  {:>22}  {:>8}  goal",
            "", "docket", "rclone", "aws", "to rclone (spread)", "to aws"
        );
        for (row, goal) in rows {
            let seconds =
                |who| self.median(row, who).map_or("-".to_owned(), |s| format!("{s:.3} s"));
            let Some(ours) = self.median(row, "docket") else { continue };
            let ratio = |who| self.median(row, who).map(|theirs| ours / theirs);
            let rclone = match (ratio("rclone"), self.spread(row, "rclone")) {
                (Some(ratio), Some((low, high))) => format!("{ratio:.2} ({low:.2}-{high:.2})"),
                _ => "-".to_owned(),
            };
            let aws = ratio("aws").map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            println!(
                "{row:22} {:>9} {:>9} {:>9}  {rclone:>22}  {aws:>8}  {goal}",
                seconds("docket"),
                seconds("rclone"),
                seconds("aws")
            );
        }
    }
}

fn fill(directory: &Path, files: usize, size: usize, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; size];
    for n in 0..files {
        for chunk in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
        }
        let folder = directory.join(format!("d{}", n / 500));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("f{n}.bin")), &bytes).unwrap();
    }
}

fn remove(gone: &[&Path]) {
    for path in gone {
        let _never_made = std::fs::remove_dir_all(path);
    }
}

struct Bench {
    root: PathBuf,
    server: Server,
    peers: Peers,
    docket: Docket,
    times: Times,
    peaks: BTreeMap<&'static str, f64>,
}

impl Bench {
    fn ours(&mut self, row: &'static str, line: &str, files: usize) {
        let told = self.docket.ask(line);
        assert_eq!(told.files, files, "{line}");
        self.times.add(row, "docket", told.took);
        let peak = self.peaks.entry(row).or_default();
        *peak = peak.max(told.memory.1);
    }

    /// One round over files of one kind.
    fn pair(&mut self, n: usize, rows: [&'static str; 2], files: usize, size: usize) {
        let case = format!("{}-{n}", rows[0].split_whitespace().next().unwrap_or_default());
        self.docket.ask(&format!("make {case}"));
        let source = self.docket.out(&case);
        fill(&source, files, size, n as u64 + 1);
        let (from, remote) = (source.to_str().unwrap().to_owned(), format!("b:{BUCKET}/r/{case}"));
        let url = format!("s3://{BUCKET}/a/{case}");
        let came = self.root.join("came");
        let into = came.to_str().unwrap().to_owned();
        self.ours(rows[0], &format!("sync {case}"), files);
        self.times.add(rows[0], "rclone", self.peers.rclone(&from, &remote));
        self.times.add(rows[0], "aws", self.peers.aws(&["cp", "--recursive", &from, &url]));
        if files > 1 {
            self.unchanged(&case, &from, &remote, &url, files);
        }
        self.ours(rows[1], &format!("down {case}"), files);
        remove(&[&self.docket.came(&case)]);
        self.times.add(rows[1], "rclone", self.peers.rclone(&remote, &into));
        remove(&[&came]);
        self.times.add(rows[1], "aws", self.peers.aws(&["cp", "--recursive", &url, &into]));
        remove(&[&came, &source]);
    }

    fn unchanged(&mut self, case: &str, from: &str, remote: &str, url: &str, files: usize) {
        self.ours("nothing changed", &format!("sync {case}"), files);
        let head = self.docket.ask(&format!("head {case}")).took;
        self.times.add("one manifest check", "docket", head);
        self.times.add("nothing changed", "rclone", self.peers.rclone(from, remote));
        self.times.add("nothing changed", "aws", self.peers.aws(&["sync", from, url]));
        std::fs::write(self.docket.out(case).join("d0/f1.bin"), format!("changed {case}")).unwrap();
        self.ours("one changed", &format!("sync {case}"), files);
        self.times.add("one changed", "rclone", self.peers.rclone(from, remote));
        self.times.add("one changed", "aws", self.peers.aws(&["sync", from, url]));
    }

    /// Many sessions at once, small and large files: what the operator's memory is bounded for.
    fn crowd(&mut self) {
        let cases: Vec<String> = (0..20).map(|n| format!("crowd-{n}")).collect();
        for (n, case) in cases.iter().enumerate() {
            self.docket.ask(&format!("make {case}"));
            fill(&self.docket.out(case), 500, SMALL, n as u64 + 1000);
            fill(&self.docket.out(case).join("large"), 2, 40 << 20, n as u64 + 2000);
        }
        let all = cases.join(" ");
        self.ours("20 sessions up", &format!("sync {all}"), 20 * 502);
        self.ours("20 sessions down", &format!("down {all}"), 20 * 502);
    }
}

fn main() {
    if let Some(root) = std::env::var_os("STORE_BENCH_WORKER") {
        let endpoint = std::env::var("STORE_BENCH_ENDPOINT").unwrap();
        return worker::serve(root.into(), &endpoint, BUCKET);
    }
    let (pairs, files) = (number("PAIRS", 5), number("FILES", 10_000));
    let large = number("LARGE_MIB", 1024) << 20;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let server = Server::start();
    let peers = Peers::find(&server.endpoint, &root);
    // What spares a question for each copy also keeps it from making the bucket.
    peers.run(&peers.rclone, &["mkdir", "--s3-no-check-bucket=false", &format!("b:{BUCKET}")]);
    let docket = Docket::start(&root, &peers);
    let (times, peaks) = (Times::default(), BTreeMap::new());
    let mut bench = Bench { root, server, peers, docket, times, peaks };
    let idle = bench.docket.ask("idle").memory.0;
    for n in 0..pairs {
        bench.pair(n, ["small files up", "small files down"], files, SMALL);
    }
    for n in 0..pairs {
        bench.pair(n, ["large file up", "large file down"], 1, large);
    }
    bench.crowd();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{files} files of {SMALL} bytes and one of {} MiB at {}, {pairs} rounds, medians; load {}",
        large >> 20,
        bench.server.endpoint,
        load.trim()
    );
    bench.times.print(&[
        ("small files up", "0.30 of rclone"),
        ("nothing changed", "25 ms beyond one manifest check"),
        ("one manifest check", ""),
        ("one changed", "0.25 of the best"),
        ("small files down", "0.35 of rclone"),
        ("large file up", "0.80 of the best"),
        ("large file down", ""),
        ("20 sessions up", ""),
        ("20 sessions down", ""),
    ]);
    println!("\nmemory of docket's side: idle {idle:.1} MiB; at most beyond that (goal 64):");
    for (row, peak) in &bench.peaks {
        println!("{row:22} {:>6.1} MiB", peak - idle);
    }
}
