//! What the operator takes when nothing happens, and when everything does, by the number of its
//! sessions: the real `docket run`, with its files, records, syncs and probes, over an engine that
//! has no containers but answers as one does, at a real unix socket.
//!
//! 1. At rest: cpu time over a while, in per cent of one core, and resident memory.
//! 2. A storm of 10,000 events in which twenty containers really die: cpu time, what memory grew to,
//!    and whether all twenty were started again.
//! 3. The operator killed and started among all of them, to all Ready.
//!
//! Prints rows; asserts no time. `cargo bench --bench crowd` (SESSIONS=100,1000,10000, SECONDS_AT_REST=30).
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stands outside: it measures with the wall clock and prints"
)]

#[path = "crowd/engine.rs"]
mod engine;
#[path = "scale/rig.rs"]
#[allow(dead_code, reason = "each bench uses its part")]
mod rig;
#[allow(dead_code, reason = "ratios are for those with a floor")]
#[path = "scale/table.rs"]
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Engine;
use rig::Rig;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const EVENTS: usize = 10_000;
const DEATHS: usize = 20;

/// Cpu time of a process, milliseconds: user and system ticks of /proc/PID/stat, 100 a second.
fn cpu(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = text.rsplit_once(')').unwrap();
    let ticks = rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    ticks.sum::<u64>() * 10
}

/// A line of /proc/PID/status, MiB.
fn memory(pid: u32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

fn goal(sessions: usize) -> (&'static str, &'static str) {
    match sessions {
        100 => ("0.3 %", "20 MiB"),
        1_000 => ("1 %", ""),
        10_000 => ("", "45 MiB"),
        _ => ("", ""),
    }
}

/// Until little is done: what begins with a session, its first sync above all, is over.
async fn settle(rig: &Rig, at_least: u64) {
    tokio::time::sleep(Duration::from_secs(at_least)).await;
    for _ in 0..18 {
        let before = cpu(rig.pid());
        tokio::time::sleep(Duration::from_secs(5)).await;
        if cpu(rig.pid()) - before < 250 {
            break;
        }
    }
}

async fn bench(sessions: usize, seconds: u64) {
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("engine.sock");
    let engine = Engine::serve(&path);
    let config = format!(
        "installation: bench-crowd\ncontainerPrefix: bench-crowd\nports: 20000-32000\ndocker: \
         unix://{}\n",
        path.display()
    );
    let mut rig = Rig::new("  container: {image: app}\n", &config);
    let names: Vec<String> = (0..sessions).map(|n| format!("s{n}")).collect();
    rig.stage(&names);
    let began = Instant::now();
    let cpu_before = cpu(rig.pid());
    rig.drop_in(&names);
    until(&engine, &rig, sessions).await;
    let text = format!(
        "{:.1} s, {:.1} ms of cpu a session",
        began.elapsed().as_secs_f64(),
        (cpu(rig.pid()) - cpu_before) as f64 / sessions as f64
    );
    table::value(&format!("{sessions} sessions made, engine for nothing"), &text, "");
    // A sync comes every 30 s.
    settle(&rig, 35).await;
    rest(&rig, &engine, sessions, seconds).await;
    storm(&rig, &engine, sessions).await;
    rig.kill();
    let began = Instant::now();
    rig.start();
    until(&engine, &rig, sessions).await;
    let text = format!("{:.2} s, {} ms of cpu", began.elapsed().as_secs_f64(), cpu(rig.pid()));
    table::value(&format!("operator restarted among {sessions}, engine for nothing"), &text, "");
}

/// Until so many are Ready. The reading is done beside the engine, which must go on answering.
async fn until(engine: &Arc<Engine>, rig: &Rig, sessions: usize) {
    let mut watch = rig.watch();
    let read =
        move || watch.until(|all| all.values().filter(|seen| seen.ready).count() == sessions);
    tokio::task::spawn_blocking(read).await.unwrap();
    assert_eq!(engine.started().1, sessions);
}

async fn rest(rig: &Rig, engine: &Engine, sessions: usize, seconds: u64) {
    let (before, asked) = (cpu(rig.pid()), engine.asked());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (used, asked) = (cpu(rig.pid()) - before, engine.asked() - asked);
    let percent = used as f64 / (seconds as f64 * 1e3) * 100.0;
    let (most, resident) = goal(sessions);
    let text = format!("{percent:.2} % of a core, {asked} engine calls in {seconds} s");
    table::value(&format!("at rest with {sessions}"), &text, most);
    let text = format!("{:.0} MiB", memory(rig.pid(), "VmRSS"));
    table::value(&format!("resident with {sessions}"), &text, resident);
}

async fn storm(rig: &Rig, engine: &Engine, sessions: usize) {
    let ids = engine.ids();
    let (starts, _) = engine.started();
    let (before, asked) = (cpu(rig.pid()), engine.asked());
    let resident = memory(rig.pid(), "VmRSS");
    let began = Instant::now();
    for n in 0..EVENTS {
        let id = &ids[n % ids.len()];
        let dies = n % (EVENTS / DEATHS) == EVENTS / DEATHS / 2;
        // Each of another session, whatever their number.
        let id = if dies { &ids[n / (EVENTS / DEATHS) * ids.len() / DEATHS] } else { id };
        engine.tell(id, if dies { "die" } else { "pause" }, dies);
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while engine.started() != (starts + DEATHS as u64, sessions) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let healed = began.elapsed();
    settle(rig, 0).await;
    let text = format!(
        "{} ms of cpu, {} engine calls, all {DEATHS} dead started after {:.2} s, {resident:.0} to \
         {:.0} MiB",
        cpu(rig.pid()) - before,
        engine.asked() - asked,
        healed.as_secs_f64(),
        memory(rig.pid(), "VmRSS"),
    );
    table::value(&format!("{EVENTS} events among {sessions}"), &text, "");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    // A listener a session, and a connection a probe.
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let seconds = setting("SECONDS_AT_REST", "30").parse().unwrap();
    table::head();
    for size in setting("SESSIONS", "100,1000,10000").split(',') {
        bench(size.trim().parse().unwrap(), seconds).await;
    }
}
