//! One run: a world from a seed, bad weather for a while, calm, and what must be true then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docket::testing::clock::FakeClock;
use docket::testing::disk::MemoryDisk;
use docket::testing::engine::Machine;
use docket::testing::faults::{Sky, mix};
use docket::testing::memory::MemoryLedger;
use docket::testing::store::MemoryStore;
use tokio_util::sync::CancellationToken;

use super::bugs::Bug;
use super::site::{Site, Specs};
use super::{check, scenario};

/// Calls in a thousand that go wrong.
const PER_MILLE: u64 = 25;
/// Longest time from calm weather to everything as wanted: the longest back-offs (two minutes of
/// a sync, twice) and a minute's quarantine, with room.
const BOUND: Duration = Duration::from_mins(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct Config {
    pub seed: u64,
    pub trace: bool,
    pub bug: Option<Bug>,
    /// How long the bad weather lasts.
    pub length: Duration,
}

impl Config {
    pub fn new(seed: u64) -> Config {
        Config { seed, trace: false, bug: None, length: Duration::from_mins(4) }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub wrongs: Vec<String>,
    pub hash: u64,
    pub calls: u64,
    pub cuts: u64,
    pub faults: u64,
    pub log: Vec<String>,
}

/// Runs one seed.
pub fn run(config: &Config) -> Outcome {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story(config))
}

async fn story(config: &Config) -> Outcome {
    docket::plan::planted::race_ports(config.bug == Some(Bug::PortRace));
    docket::plan::planted::count_stale(config.bug == Some(Bug::StaleCount));
    docket::plan::planted::recount(true);
    let seed = config.seed;
    let sky = Sky::new(seed, PER_MILLE, config.trace);
    let clock = FakeClock::new(mix(seed ^ 1));
    let machine = Machine::new(clock.clone(), &[("app:v1", "1000"), ("app:v2", "1000")]);
    let both = sky.below(4) == 0;
    let forgetful = sky.below(8) == 0;
    let site = |name| {
        Arc::new(Site {
            tick: Duration::from_secs(5),
            name,
            sky: Arc::clone(&sky),
            clock: clock.clone(),
            machine: Arc::clone(&machine),
            store: MemoryStore::new(clock.clone()),
            disk: MemoryDisk::new(clock.clone()),
            ledger: Arc::new(MemoryLedger::default()),
            specs: Mutex::new(Specs::default()),
            handle: Mutex::new(None),
            sources: Mutex::new(None),
            wrongs: Mutex::default(),
            cuts: AtomicU64::new(0),
            bug: config.bug,
            forgetful,
            first_cut: None,
            ports: (8001, 8016),
        })
    };
    let sites: Vec<Arc<Site>> =
        if both { vec![site("north"), site("south")] } else { vec![site("north")] };
    scenario::prepare(&machine, &sites);
    let watched = sites.clone();
    sky.set_check(move |operation| {
        if check::changes(operation) {
            for site in &watched {
                check::invariants(site, operation);
            }
        }
    });
    let over = CancellationToken::new();
    let mut tasks = Vec::new();
    for site in &sites {
        tasks.push(tokio::spawn(Arc::clone(site).live(over.clone())));
        tasks.push(tokio::spawn(check::watch(Arc::clone(site))));
    }
    scenario::play(mix(seed ^ 2), config.length, &machine, &sites).await;
    sky.note("== calm");
    sky.calm();
    for site in &sites {
        tokio::spawn(scenario::last_commands(Arc::clone(site)));
    }
    converge(&sky, &sites).await;
    over.cancel();
    let mut wrongs = Vec::new();
    for site in &sites {
        wrongs.append(&mut site.wrongs.lock().unwrap());
    }
    Outcome {
        seed,
        wrongs,
        hash: sky.hash(),
        calls: sky.calls(),
        cuts: sites.iter().map(|site| site.cuts.load(Ordering::Relaxed)).sum(),
        faults: sky.faults().values().sum(),
        log: sky.log(),
    }
}

/// Waits until all is as wanted, and sees that it stays so.
pub async fn converge(sky: &Arc<Sky>, sites: &[Arc<Site>]) {
    let bad =
        |sites: &[Arc<Site>]| sites.iter().any(|site| !site.wrongs.lock().unwrap().is_empty());
    let end = sky.now() + BOUND;
    while sky.now() < end && !bad(sites) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        if sites.iter().all(|site| check::owed(site).is_empty()) {
            sky.note("== as wanted");
            let before: Vec<_> = sites.iter().map(|site| check::settled(site)).collect();
            tokio::time::sleep(Duration::from_secs(90)).await;
            for (site, before) in sites.iter().zip(before) {
                let after = check::settled(site);
                if before != after {
                    site.wrong(format!("it does not rest: {before:?} became {after:?}"));
                }
                for owed in check::owed(site) {
                    site.wrong(format!("it was as wanted and is not any more: {owed}"));
                }
            }
            return;
        }
    }
    if !bad(sites) {
        for site in sites {
            for owed in check::owed(site) {
                site.wrong(format!("not as wanted after {}s: {owed}", BOUND.as_secs()));
            }
        }
    }
}
