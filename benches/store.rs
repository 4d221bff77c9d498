//! Docket's own transfer path beside rclone, the AWS CLI and a plain loop that does nothing but the
//! calls, on the same server and files, one after the other in turn. Prints medians and their
//! ratios; asserts no time.
//!
//! `cargo bench --bench store` (`PAIRS=5` rounds, or as many as begin within `MINUTES=7`;
//! `FILES=10000`, `LARGE_MIB=1024`; `AWS=0` without the AWS CLI, which needs a minute for many small
//! files and is asked for them in the first round only; `ONLY=small` or `large` or `crowd`). The server holds its
//! objects in memory (`store/server.rs`), so that the clients are what is measured;
//! `scripts/s3-peers` installs the others. Peers copy; docket hashes, makes sure that what came is
//! on the disk, and swaps a manifest.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unnecessary_wraps,
    reason = "a bench stands outside: it measures with the wall clock and prints"
)]

#[path = "store/floor.rs"]
mod floor;
#[path = "store/server.rs"]
mod server;
#[path = "store/told.rs"]
mod told;
#[path = "store/worker.rs"]
mod worker;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use told::{Cost, Told};

const BUCKET: &str = "docket-bench";
const SMALL: usize = 4096;
/// More than that and rclone gets slower here.
const RCLONE_TRANSFERS: &str = "32";

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The server, in a process of its own.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Server {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env("STORE_BENCH_SERVER", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let server = Server { process, address: address.trim().to_owned() };
        server.tell("PUT");
        server
    }

    /// Forgets everything.
    fn clear(&self) {
        self.tell("DELETE");
        self.tell("PUT");
    }

    fn tell(&self, method: &str) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("{method} /{BUCKET} HTTP/1.1\r\nhost: {}\r\n", self.address);
        write!(stream, "{head}authorization: none\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ended = self.process.wait();
    }
}

/// Docket's side, or the floor's.
struct Docket {
    root: PathBuf,
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What a command came to.
struct Did {
    took: f64,
    /// Processor seconds.
    used: f64,
    files: usize,
    /// MiB, now and at most.
    memory: (f64, f64),
}

impl Did {
    fn cost(&self) -> Cost {
        Cost { took: self.took, used: self.used }
    }
}

/// Processor seconds of all children that ended. Source: proc(5), in ticks of 10 ms.
fn cpu_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let ticks = after_name.split_whitespace().skip(13).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

impl Docket {
    fn start(root: &Path, peers: &Peers) -> Docket {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .envs(peers.environment.iter().map(|(name, value)| (name, value)))
            .env("STORE_BENCH_WORKER", root)
            .env("STORE_BENCH_ENDPOINT", &peers.endpoint)
            .env("MALLOC_ARENA_MAX", "2") // as `docket run` sets it
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let ask = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Docket { root: root.to_owned(), process, ask, answers }
    }

    fn ask(&mut self, line: &str) -> Did {
        writeln!(self.ask, "{line}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let numbers: Vec<f64> = answer.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let [nanos, files, now, most, used] = numbers[..] else {
            panic!("the worker died at `{line}`")
        };
        let memory = (now / 1024.0, most / 1024.0);
        Did { took: nanos / 1e9, used, files: files as usize, memory }
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
    /// The AWS CLI takes part in this round.
    with_aws: bool,
}

impl Peers {
    fn find(endpoint: &str, root: &Path) -> Peers {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/s3-peers");
        let found = Command::new(script).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let text = String::from_utf8(found.stdout).unwrap();
        let (rclone, aws) = text.trim().split_once('\n').unwrap();
        let config = root.join("aws-config");
        let text = "[default]\nregion = us-east-1\nrequest_checksum_calculation = when_required\n\
                    response_checksum_validation = when_required\ns3 =\n  \
                    max_concurrent_requests = 32\n  addressing_style = path\n";
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
        Peers { environment, endpoint, rclone, aws, with_aws: true }
    }

    /// How long it took; a failure is told and does not end the others' rounds.
    fn run(&self, program: &str, args: &[&str]) -> Option<Cost> {
        let (began, before) = (Instant::now(), cpu_of_children());
        let out = Command::new(program)
            .args(args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env_remove("AWS_CA_BUNDLE") // rclone cannot do with it, and nothing here is encrypted
            .output()
            .unwrap();
        let cost = Cost { took: began.elapsed().as_secs_f64(), used: cpu_of_children() - before };
        if !out.status.success() {
            eprintln!("{program} {args:?} failed: {}", String::from_utf8_lossy(&out.stderr));
        }
        out.status.success().then_some(cost)
    }

    fn rclone(&self, from: &str, to: &str) -> Option<Cost> {
        let n = RCLONE_TRANSFERS;
        // A large file in parts beside each other, as the others do.
        let tuned = ["--transfers", n, "--checkers", n, "--fast-list", "--checksum"];
        let large = ["--s3-upload-concurrency", "8", "--s3-chunk-size", "8M"];
        self.run(&self.rclone, &[&["copy", from, to][..], &tuned, &large].concat())
    }

    fn aws(&self, args: &[&str]) -> Option<Cost> {
        let aws = self.aws.as_ref().filter(|_| self.with_aws)?;
        let all =
            [&["--endpoint-url", &self.endpoint, "s3"], args, &["--only-show-errors"]].concat();
        self.run(aws, &all)
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

/// Who does a step.
const ALL: [&str; 4] = ["docket", "rclone", "aws", "floor"];

/// Waits until the disk is as quick as it is idle, or for a minute.
fn settle(directory: &Path) {
    let began = Instant::now();
    let mut quick = 0;
    while quick < 5 && began.elapsed().as_secs() < 60 {
        let written = Instant::now();
        let file = std::fs::File::create(directory.join("probe")).unwrap();
        file.sync_all().unwrap();
        quick = if written.elapsed().as_millis() < 20 { quick + 1 } else { 0 };
    }
}

struct Bench {
    root: PathBuf,
    server: Server,
    peers: Peers,
    docket: Docket,
    floor: Docket,
    told: Told,
}

/// One round over files of one kind.
struct Round {
    n: usize,
    case: String,
    files: usize,
    /// Where docket has them, and so everybody takes them from.
    source: PathBuf,
    /// Where the others bring them.
    came: PathBuf,
}

impl Bench {
    fn ours(&mut self, n: usize, row: &'static str, line: &str, files: usize) {
        let did = self.docket.ask(line);
        assert_eq!(did.files, files, "{line}");
        self.told.add(n, row, "docket", Some(did.cost()));
        self.told.peak(row, did.memory.1);
    }

    /// A step by everybody in turn; who begins changes from round to round.
    fn all(
        &mut self,
        round: &Round,
        row: &'static str,
        step: impl Fn(&mut Bench, &Round, &'static str) -> Option<Cost>,
    ) {
        for turn in 0..ALL.len() {
            let who = ALL[(round.n + turn) % ALL.len()];
            // What the one before wrote is not written back on the other's time.
            rustix::fs::sync();
            let cost = step(self, round, who);
            self.told.add(round.n, row, who, cost);
        }
    }

    fn up(&mut self, round: &Round, row: &'static str, again: bool) {
        self.all(round, row, |bench, round, who| {
            let (from, case) = (round.source.to_str().unwrap(), &round.case);
            let (remote, url) = (format!("b:{BUCKET}/r/{case}"), format!("s3://{BUCKET}/a/{case}"));
            match who {
                "docket" => {
                    bench.ours(round.n, row, &format!("sync {case}"), round.files);
                    None
                }
                "rclone" => bench.peers.rclone(from, &remote),
                "aws" if again => bench.peers.aws(&["sync", from, &url]),
                "aws" => bench.peers.aws(&["cp", "--recursive", from, &url]),
                _ if again => None,
                _ => Some(bench.floor.ask(&format!("floor-up {from} f/{case}")).cost()),
            }
        });
    }

    fn down(&mut self, round: &Round, row: &'static str) {
        self.all(round, row, |bench, round, who| {
            let (into, case) = (round.came.join(who), &round.case);
            let into = into.to_str().unwrap();
            let (remote, url) = (format!("b:{BUCKET}/r/{case}"), format!("s3://{BUCKET}/a/{case}"));
            match who {
                "docket" => {
                    bench.ours(round.n, row, &format!("down {case}"), round.files);
                    None
                }
                "rclone" => bench.peers.rclone(&remote, into),
                "aws" => bench.peers.aws(&["cp", "--recursive", &url, into]),
                _ => Some(bench.floor.ask(&format!("floor-down f/{case} {into}")).cost()),
            }
        });
    }

    fn round(&mut self, n: usize, rows: [&'static str; 2], files: usize, size: usize) {
        self.peers.with_aws = files == 1 || n == 0;
        let case = format!("{}-{n}", rows[0].split_whitespace().next().unwrap_or_default());
        self.docket.ask(&format!("make {case}"));
        let source = self.docket.out(&case);
        fill(&source, files, size, n as u64 + 1);
        let came = self.root.join("came").join(&case);
        let round = Round { n, case, files, source, came };
        self.up(&round, rows[0], false);
        if files > 1 {
            self.up(&round, "nothing changed", true);
            let head = self.docket.ask(&format!("head {}", round.case)).cost();
            self.told.add(n, "one manifest check", "docket", Some(head));
            let words = format!("changed {}", round.case);
            std::fs::write(round.source.join("d0/f1.bin"), words).unwrap();
            self.up(&round, "one changed", true);
        }
        self.down(&round, rows[1]);
        // Many small files stay to the end: ext4 is slow to make new ones for minutes after others
        // were removed.
        if files == 1 {
            remove(&[&round.source, &round.came, &self.docket.came(&round.case)]);
            settle(&self.root);
        }
        self.server.clear();
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
        self.ours(0, "20 sessions up", &format!("sync {all}"), 20 * 502);
        self.ours(0, "20 sessions down", &format!("down {all}"), 20 * 502);
    }
}

fn main() {
    if std::env::var_os("STORE_BENCH_SERVER").is_some() {
        return server::serve();
    }
    if let Some(root) = std::env::var_os("STORE_BENCH_WORKER") {
        let endpoint = std::env::var("STORE_BENCH_ENDPOINT").unwrap();
        return worker::serve(root.into(), &endpoint, BUCKET);
    }
    let (pairs, files) = (number("PAIRS", 5), number("FILES", 10_000));
    let large = number("LARGE_MIB", 1024) << 20;
    let only = std::env::var("ONLY").ok();
    let wanted = |what: &str| only.as_ref().is_none_or(|only| only == what);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let server = Server::start();
    let peers = Peers::find(&format!("http://{}", server.address), &root);
    let docket = Docket::start(&root.join("docket"), &peers);
    let floor = Docket::start(&root.join("floor"), &peers);
    let mut bench = Bench { root, server, peers, docket, floor, told: Told::default() };
    let idle = bench.docket.ask("idle").memory.0;
    let (began, minutes) = (Instant::now(), number("MINUTES", 7) as u64);
    let in_time = |part: u64| began.elapsed().as_secs() < minutes * 60 * part / 2;
    for n in (0..pairs).take_while(|n| wanted("small") && (*n == 0 || in_time(1))) {
        bench.round(n, ["small files up", "small files down"], files, SMALL);
    }
    for n in (0..pairs).take_while(|n| wanted("large") && (*n == 0 || in_time(2))) {
        bench.round(n, ["large file up", "large file down"], 1, large);
    }
    if wanted("crowd") {
        bench.crowd();
    }
    println!(
        "{files} files of {SMALL} bytes and one of {} MiB, at most {pairs} rounds, medians; load {}",
        large >> 20,
        std::fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
    bench.told.print(idle);
}
