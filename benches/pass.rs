//! What the operator's own thinking costs, in cpu time of its thread: sessions at rest over doors
//! in memory, so that no engine, disk or network is in the numbers.
//!
//! `cargo bench --bench pass --features testing` (SESSIONS=10000 for other sizes, comma-separated;
//! ROUNDS=50 for more).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stands outside: it measures and prints"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docket::apply::{Doors, Lanes};
use docket::model::{
    Bounds, ConditionType, ContainerPrefix, Identity, Installation, SessionName, Truth,
};
use docket::operator::handle::{Ask, Handle, Verb};
use docket::operator::{Operator, PruneGuard, Settings, Sources, rebuild};
use docket::plan::{MinFree, Policy};
use docket::spec::{Shared, read_source};
use docket::testing::clock::FakeClock;
use docket::testing::disk::MemoryDisk;
use docket::testing::engine::{FakeEngine, Machine};
use docket::testing::memory::MemoryLedger;
use docket::testing::probe::FakeProbe;
use docket::testing::store::MemoryStore;
use docket::world::{Clock as _, Ledger as _};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Cpu time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

struct Stage {
    handle: Handle,
    sources: mpsc::Sender<Sources>,
    files: Sources,
    _settings: mpsc::Sender<Settings>,
    _rescan: mpsc::Receiver<()>,
}

fn class() -> &'static str {
    "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {name: bench}\nspec:\n  container: \
     {image: \"app:v1\", port: 0}\n  workspace: {folders: [drafts], sync: {interval: 240h}, \
     files: {large: Eager}}\n"
}

fn session(n: usize, label: usize) -> String {
    format!(
        "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: s{n}, labels: {{edit: \
         \"{label}\"}}}}\nspec: {{user: u{n}, case: c, class: bench, container: {{env: {{A: one, \
         B: two, C: three}}}}}}\n"
    )
}

fn settings() -> Settings {
    let capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];
    let capabilities = capabilities.map(str::to_owned).into();
    Settings {
        policy: Policy {
            bounds: Bounds { ports: (1024, 65000), capabilities, ..Bounds::default() },
            max_sessions: 0,
            max_per_user: 0,
            max_starts: 0,
            min_free: MinFree::Percent(5.0),
        },
        // Nothing wakes by itself while it is measured.
        tick: Duration::from_hours(240),
        prune: PruneGuard { at_least: 10, percent: 50 },
        workspaces: PathBuf::from("/ws"),
        trash_keep: Duration::from_hours(7 * 24),
    }
}

async fn stage(sessions: usize) -> Stage {
    let clock = FakeClock::new(1);
    let machine = Machine::new(clock.clone(), &[("app:v1", "1000")]);
    let ledger = MemoryLedger::default();
    let disk = MemoryDisk::new(clock.clone());
    let identity = Identity {
        installation: Installation::parse("bench").unwrap(),
        prefix: ContainerPrefix::parse("docket").unwrap(),
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let contents = ledger.load().await.unwrap();
    let (book, rebuilt) = rebuild(ledger, &contents, &disk, clock.now()).await.unwrap();
    let doors = Arc::new(Doors {
        engine: FakeEngine::new(Arc::clone(&machine), identity.installation.clone(), identity.bind),
        objects: MemoryStore::new(clock.clone()),
        workspaces: disk,
        book,
        clock,
        identity,
        secret_files: Vec::new(),
        engine_socket: PathBuf::from("/var/run/docker.sock"),
        quarantine: Mutex::default(),
        lanes: Lanes::default(),
        meter: Arc::default(),
    });
    let (sources, listings) = mpsc::channel(4);
    let (settings_to, new_settings) = mpsc::channel(1);
    let (rescan, rescans) = mpsc::channel(1);
    let probe = Arc::new(FakeProbe::new(machine));
    let (operator, handle) =
        Operator::new(doors, probe, settings(), rebuilt, listings, new_settings, rescan);
    tokio::spawn(operator.run(CancellationToken::new()));
    let mut files: Shared<_> = (0..sessions)
        .map(|n| {
            let path = format!("s{n}.yaml");
            let file = read_source(&path, session(n, 0).as_bytes());
            (path, file)
        })
        .collect();
    files.insert("class.yaml", read_source("class.yaml", class().as_bytes()));
    let files = Sources { root: "specs".to_owned(), trouble: None, revision: String::new(), files };
    sources.send(files.clone()).await.unwrap();
    let mut all = Stage { handle, sources, files, _settings: settings_to, _rescan: rescans };
    until(&mut all.handle, |view| view.values().filter(|v| is_ready(v)).count() == sessions).await;
    tokio::time::sleep(Duration::from_mins(10)).await;
    all
}

fn is_ready(view: &docket::status::SessionView) -> bool {
    let ready =
        |c: &docket::model::Condition| c.kind == ConditionType::Ready && c.status == Truth::True;
    view.status.conditions.iter().any(ready)
}

type Views = BTreeMap<SessionName, Arc<docket::status::SessionView>>;

async fn until(handle: &mut Handle, is_so: impl Fn(&Views) -> bool) {
    while !is_so(&handle.sessions.borrow_and_update()) {
        handle.sessions.changed().await.unwrap();
    }
}

/// Median cpu milliseconds of a step.
async fn measure(rounds: usize, mut step: impl AsyncFnMut(usize)) -> f64 {
    let mut took = Vec::new();
    for round in 0..rounds {
        let began = cpu();
        step(round).await;
        took.push(cpu().saturating_sub(began));
        // What a step left behind is done before the next.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    took.sort();
    took[took.len() / 2].as_secs_f64() * 1e3
}

async fn bench(sessions: usize, rounds: usize) {
    let Stage { mut handle, sources, mut files, _settings, _rescan } = stage(sessions).await;
    let middle = SessionName::parse(&format!("s{}", sessions / 2)).unwrap();

    let asking = handle.clone();
    let idle = measure(rounds, async |_| {
        // Refused, so nothing changes: a question, and a pass that finds nothing to do.
        let nobody = SessionName::parse("nobody").unwrap();
        asking.ask(|reply| Ask::Verb(nobody, Verb::Stop, reply)).await.unwrap_err();
    })
    .await;

    let one = measure(rounds, async |round| {
        let suspended = round % 2 == 0;
        let verb = if suspended { Verb::Suspend } else { Verb::Resume };
        let name = middle.clone();
        handle.ask(|reply| Ask::Verb(name, verb, reply)).await.unwrap();
        until(&mut handle, |all| {
            let phase = all.get(&middle).unwrap().status.phase;
            (phase == docket::model::Phase::Suspended) == suspended
        })
        .await;
    })
    .await;

    let path = format!("s{}.yaml", sessions / 2);
    let mut edits = Vec::new();
    for round in 0..rounds {
        let text = session(sessions / 2, round + 1);
        files.files.insert(&path, read_source(&path, text.as_bytes()));
        edits.push(files.clone());
    }
    let mut edits = edits.into_iter();
    let file = measure(rounds, async |round| {
        sources.send(edits.next().unwrap()).await.unwrap();
        let edit = (round + 1).to_string();
        until(&mut handle, |all| {
            all.get(&middle).unwrap().metadata.labels.get("edit") == Some(&edit)
        })
        .await;
    })
    .await;

    let asking = handle.clone();
    let look = measure(rounds.min(10), async |_| {
        asking.asks.send(Ask::Rescan).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    })
    .await;
    println!("{sessions:>8} {idle:>12.3} {one:>14.3} {file:>14.3} {look:>16.3}");
}

fn main() {
    let sizes = std::env::var("SESSIONS").unwrap_or_else(|_| "100,1000,10000".to_owned());
    let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(31);
    println!("cpu milliseconds of the operator's thread, medians of {rounds}:");
    println!("sessions    idle pass    one command  one edited file  complete look*");
    for size in sizes.split(',') {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(bench(size.trim().parse().unwrap(), rounds));
    }
    println!("* with the listing and the inspections of the engine in memory");
}
