//! Docket's own transfer path in a process of its own: commands come in on stdin, one a line, and
//! each is answered by how long it took and how much memory the process had at most meanwhile.
//! Another such process is the floor.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use docket::apply::files::{Bounds, Files, Turns};
use docket::clock::WallClock;
use docket::model::{Base, CaseName, FilesSpec, LargeFiles, Scope, Uid, UserName, WorkspaceSpec};
use docket::objects::s3::{S3, S3Config};
use docket::plan::MinFree;
use docket::workspace::Local;
use docket::world::{Objects as _, Place, ScanMode, Workspaces as _};

use crate::floor::Floor;

/// As the operator has it.
const TRANSFERS: usize = 256;

fn spec() -> WorkspaceSpec {
    let files = FilesSpec {
        eager_below: 0,
        large: LargeFiles::Eager,
        prefetch: 0,
        open_deadline: Duration::from_mins(1),
    };
    WorkspaceSpec {
        mount_path: PathBuf::from("/w"),
        scope: Scope::Case,
        folders: Vec::new(),
        owner: String::new(),
        quota: 0,
        max_files: 1_000_000,
        max_file_size: 100 << 30,
        max_depth: 256,
        files,
        sync_interval: Duration::from_secs(30),
        sync_exclude: Vec::new(),
    }
}

/// Resident memory in KiB: `VmRSS` now, `VmHWM` at most.
fn memory(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor seconds of this process.
fn cpu() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

struct Worker {
    /// Made when it is asked for: docket's process has none.
    floor: std::sync::OnceLock<Arc<Floor>>,
    endpoint: String,
    bucket: String,
    store: S3,
    /// Two nodes: one that files go out from, one that they come to.
    out: Local,
    into: Local,
    spec: WorkspaceSpec,
    turns: Turns,
    bases: tokio::sync::Mutex<BTreeMap<String, Base>>,
}

impl Worker {
    async fn place(&self, node: &Local, case: &str) -> Place {
        let mut place = Place {
            user: UserName::parse("ann").unwrap(),
            case: CaseName::parse(case).unwrap(),
            uid: Uid::from_bytes([1; 16]),
            id: None,
        };
        place.id = Some(node.ensure(&place, (0, 0)).await.unwrap().id);
        place
    }

    fn floor(&self) -> &Arc<Floor> {
        self.floor.get_or_init(|| Arc::new(Floor::new(&self.endpoint, &self.bucket)))
    }

    fn files<'a>(&'a self, node: &'a Local, place: &'a Place) -> Files<'a, Local, S3, WallClock> {
        Files {
            workspaces: node,
            objects: &self.store,
            clock: &WallClock,
            place,
            spec: &self.spec,
            owner: (0, 0),
            bounds: Bounds { floor: MinFree::Bytes(0), turns: &self.turns },
        }
    }

    async fn sync(&self, case: &str) -> usize {
        let place = self.place(&self.out, case).await;
        let base = self.bases.lock().await.get(case).cloned();
        let files = self.files(&self.out, &place);
        let found = files.sync(base.as_ref(), ScanMode::Quick);
        let base = found.await.unwrap().base;
        let files = base.files.len();
        self.bases.lock().await.insert(case.to_owned(), base);
        files
    }

    async fn down(&self, case: &str) -> usize {
        let place = self.place(&self.into, case).await;
        let files = self.files(&self.into, &place);
        files.hydrate(None, &|_| ()).await.unwrap().base.files.len()
    }

    /// Does what a line says; how many files that was.
    async fn command(&self, line: &str) -> usize {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let cases: Vec<&str> = words.collect();
        match verb {
            "make" => drop(self.place(&self.out, cases[0]).await),
            "sync" => {
                let all = cases.iter().map(|case| self.sync(case));
                return futures_util::future::join_all(all).await.into_iter().sum();
            }
            "down" => {
                let all = cases.iter().map(|case| self.down(case));
                return futures_util::future::join_all(all).await.into_iter().sum();
            }
            "head" => {
                let key = format!("ann/{}/manifest.json", cases[0]);
                drop(self.store.head(&key).await.unwrap());
            }
            "idle" => (),
            "floor-up" => return self.floor().up(Path::new(cases[0]), cases[1]).await,
            "floor-down" => return self.floor().down(cases[0], Path::new(cases[1])).await,
            other => panic!("no command {other}"),
        }
        0
    }
}

/// Serves until stdin ends.
pub fn serve(root: PathBuf, endpoint: &str, bucket: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let config = S3Config {
        bucket: bucket.to_owned(),
        prefix: "docket".to_owned(),
        endpoint: endpoint.to_owned(),
        region: "us-east-1".to_owned(),
        path_style: true,
        ca_file: None,
        max_bandwidth: 0,
        max_concurrent: 0,
    };
    let worker = Worker {
        floor: std::sync::OnceLock::new(),
        endpoint: endpoint.to_owned(),
        bucket: bucket.to_owned(),
        store: S3::new(&config).unwrap(),
        out: Local::open(root.join("out")).unwrap(),
        into: Local::open(root.join("in")).unwrap(),
        spec: spec(),
        turns: Turns::new(TRANSFERS, usize::MAX),
        bases: tokio::sync::Mutex::default(),
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        // Forgets the highest memory use so far.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (began, before) = (Instant::now(), cpu());
        let files = runtime.block_on(worker.command(&line));
        let (took, used) = (began.elapsed(), cpu() - before);
        let (now, most) = (memory("VmRSS:"), memory("VmHWM:"));
        println!("{} {files} {now} {most} {used}", took.as_nanos());
        std::io::stdout().flush().unwrap();
    }
}
