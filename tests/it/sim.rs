//! The simulation: the real operator over doors in memory, on paused time, one seed a run. The
//! weather loses questions and answers, effects land late, the process is cut at any effect, and
//! people do what people do. After each effect the invariants are looked at; once the weather is
//! calm everything must come to be as wanted, within a bound.
//!
//! ```text
//! DOCKET_SEEDS=2000 cargo test --features testing sim     # so many seeds
//! DOCKET_SEED=17    cargo test --features testing sim     # one again, with its trace
//! ```

mod bugs;
mod check;
mod contract;
mod each;
mod run;
mod scenario;
mod site;

use std::sync::atomic::{AtomicU64, Ordering};

use bugs::Bug;
use run::{Config, Outcome};

/// Seeds of an ordinary test run; CI asks for more by `DOCKET_SEEDS`.
const SEEDS: u64 = 200;
/// A planted bug must show within so many seeds.
const SEEDS_A_BUG: u64 = 60;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs seeds on as many threads as there are cores, until the first that fails.
fn first_failure(
    seeds: std::ops::Range<u64>,
    config: impl Fn(u64) -> Config + Sync,
) -> Option<Outcome> {
    let next = AtomicU64::new(seeds.start);
    let failed = std::sync::Mutex::new(None::<Outcome>);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let outcome = run::run(&config(seed));
                    if !outcome.wrongs.is_empty() {
                        let mut slot = failed.lock().unwrap();
                        if slot.as_ref().is_none_or(|known| known.seed > outcome.seed) {
                            *slot = Some(outcome);
                        }
                        return;
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

fn tell(outcome: &Outcome) -> String {
    format!(
        "seed {} fails:\n  {}\nsee it again with\n  DOCKET_SEED={} cargo test --features testing sim::one_seed -- --nocapture",
        outcome.seed,
        outcome.wrongs.join("\n  "),
        outcome.seed
    )
}

#[test]
fn every_seed_holds_its_invariants_and_converges() {
    let seeds = number("DOCKET_SEEDS").unwrap_or(SEEDS);
    let first = number("DOCKET_FIRST_SEED").unwrap_or(1);
    if let Some(outcome) = first_failure(first..first + seeds, Config::new) {
        panic!("{}", tell(&outcome));
    }
}

#[test]
fn one_seed_is_told_in_full() {
    let Some(seed) = number("DOCKET_SEED") else { return };
    let bug = std::env::var("DOCKET_BUG").ok().map(|name| Bug::named(&name));
    let outcome = run::run(&Config { trace: true, bug, ..Config::new(seed) });
    for line in &outcome.log {
        eprintln!("{line}");
    }
    eprintln!("{} calls, {} cuts, {} faults", outcome.calls, outcome.cuts, outcome.faults);
    assert!(outcome.wrongs.is_empty(), "{}", tell(&outcome));
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in 1..=20 {
        let config = Config::new(seed);
        let (once, again) = (run::run(&config), run::run(&config));
        assert_eq!(once.hash, again.hash, "seed {seed} went two ways");
        assert!(once.calls > 100, "seed {seed} did nearly nothing");
    }
}

/// The test of the test: what must never be got wrong is got wrong on purpose, and is seen.
#[test]
fn every_planted_bug_is_caught() {
    let missed: Vec<Bug> = Bug::ALL
        .iter()
        .copied()
        .filter(|bug| {
            let config = |seed| Config { bug: Some(*bug), ..Config::new(seed) };
            first_failure(1..1 + SEEDS_A_BUG, config).is_none()
        })
        .collect();
    assert!(missed.is_empty(), "not caught within {SEEDS_A_BUG} seeds: {missed:?}");
}
