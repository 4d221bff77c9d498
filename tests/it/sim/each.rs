//! Lives that are not left to chance: one cut at every single effect, and many sessions at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docket::model::RelPath;
use docket::testing::clock::FakeClock;
use docket::testing::disk::MemoryDisk;
use docket::testing::engine::Machine;
use docket::testing::faults::Sky;
use docket::testing::memory::MemoryLedger;
use docket::testing::store::MemoryStore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::check;
use super::run::converge;
use super::site::{Site, Specs, Wish, names};

fn site(first_cut: u64, ports: (u16, u16)) -> Arc<Site> {
    site_with(first_cut, ports, Duration::from_secs(5))
}

fn site_with(first_cut: u64, ports: (u16, u16), tick: Duration) -> Arc<Site> {
    let clock = FakeClock::new(7);
    let machine = Machine::new(clock.clone(), &[("app:v1", "1000"), ("app:v2", "1000")]);
    let site = Arc::new(Site {
        name: "north",
        sky: Sky::new(7, 0, false),
        clock: clock.clone(),
        machine,
        store: MemoryStore::new(clock.clone()),
        disk: MemoryDisk::new(clock),
        ledger: Arc::new(MemoryLedger::default()),
        specs: Mutex::new(Specs::default()),
        handle: Mutex::new(None),
        sources: Mutex::new(None),
        wrongs: Mutex::default(),
        cuts: AtomicU64::new(0),
        bug: None,
        forgetful: false,
        first_cut: Some(first_cut),
        ports,
        tick,
    });
    super::scenario::prepare(&site.machine, std::slice::from_ref(&site));
    let watched = Arc::clone(&site);
    site.sky.set_check(move |operation| {
        if check::changes(operation) {
            check::invariants(&watched, operation);
        }
    });
    site
}

fn wish(number: usize, bad: Option<(&'static str, &'static str)>) -> Wish {
    Wish {
        user: format!("u{number}"),
        case: "c".to_owned(),
        image: "app:v1",
        revision: 1,
        memory: "4Gi",
        stopped: false,
        suspended: false,
        bad,
    }
}

fn edit(site: &Site, change: impl FnOnce(&mut Specs)) {
    change(&mut site.specs.lock().unwrap());
    site.tell();
}

fn on_paused_time<T>(story: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(story)
}

/// Two sessions are wanted, written to, edited, resized; one goes. Whether the cut was reached.
async fn one_life(cut: u64) -> (bool, Vec<String>) {
    let site = site(cut, (8001, 8016));
    let over = CancellationToken::new();
    tokio::spawn(Arc::clone(&site).live(over.clone()));
    edit(&site, |specs| {
        specs.wishes.insert("s0".to_owned(), wish(0, None));
        specs.wishes.insert("s1".to_owned(), wish(1, None));
    });
    sleep(Duration::from_secs(20)).await;
    for number in 0..2 {
        let (user, case) = names(&format!("u{number}"), "c");
        let path = RelPath::parse(b"drafts/letter").unwrap();
        site.disk.write_by_tenant(&user, &case, &path, format!("dear {number}").into_bytes());
    }
    sleep(Duration::from_secs(40)).await;
    edit(&site, |specs| {
        for wish in specs.wishes.values_mut() {
            wish.revision += 1;
        }
    });
    sleep(Duration::from_secs(20)).await;
    edit(&site, |specs| {
        if let Some(wish) = specs.wishes.get_mut("s1") {
            wish.memory = "2Gi";
        }
        specs.wishes.remove("s0");
    });
    sleep(Duration::from_secs(40)).await;
    let reached = site.cuts.load(Ordering::Relaxed) > 0;
    site.sky.calm();
    converge(&site.sky, std::slice::from_ref(&site)).await;
    over.cancel();
    let wrongs = std::mem::take(&mut *site.wrongs.lock().unwrap());
    (reached, wrongs)
}

#[test]
fn f1_cut_before_and_after_every_effect_of_a_life_it_ends_the_same() {
    let next = AtomicU64::new(1);
    let failed = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let cut = next.fetch_add(1, Ordering::Relaxed);
                    let (reached, wrongs) = on_paused_time(one_life(cut));
                    if !wrongs.is_empty() {
                        *failed.lock().unwrap() = Some((cut, wrongs));
                    }
                    if !reached {
                        return;
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert_eq!(failed, None, "cut at that point of its first life");
    let cuts = next.load(Ordering::Relaxed);
    assert!(cuts > 200, "a life of {cuts} effects is too short to say anything");
}

#[test]
fn f49_many_sessions_that_flap_do_not_hold_up_the_others_and_leak_no_port() {
    const MANY: usize = 42;
    on_paused_time(async {
        let site = site(0, (8101, 8100 + MANY as u16));
        let over = CancellationToken::new();
        tokio::spawn(Arc::clone(&site).live(over.clone()));
        edit(&site, |specs| {
            for number in 0..MANY {
                let bad = (number % 3 != 0).then_some(("EXIT_AFTER_MS", "700"));
                specs.wishes.insert(format!("s{number}"), wish(number, bad));
            }
        });
        sleep(Duration::from_mins(10)).await;
        let starts = |number: usize| {
            let all = site.machine.containers().into_iter();
            let of = all.filter(|one| one.session == format!("s{number}"));
            of.map(|one| one.starts).sum::<u64>()
        };
        for number in 0..MANY {
            let starts = starts(number);
            if number % 3 == 0 {
                assert_eq!(starts, 1, "s{number} is well and was started again");
            } else {
                assert!((4..40).contains(&starts), "s{number} was started {starts} times");
            }
        }
        // There are as many ports as sessions: each must have come back for the next to have one.
        edit(&site, |specs| specs.wishes.clear());
        site.sky.calm();
        tokio::spawn(super::scenario::last_commands(Arc::clone(&site)));
        converge(&site.sky, std::slice::from_ref(&site)).await;
        edit(&site, |specs| {
            for number in 0..MANY {
                specs.wishes.insert(format!("t{number}"), wish(number, None));
            }
        });
        converge(&site.sky, std::slice::from_ref(&site)).await;
        over.cancel();
        let wrongs = site.wrongs.lock().unwrap().clone();
        assert_eq!(wrongs, Vec::<String>::new());
    });
}

#[test]
fn a_changed_class_goes_on_to_the_next_as_soon_as_one_is_ready() {
    const MANY: usize = 6;
    on_paused_time(async {
        // No tick helps.
        let site = site_with(0, (8201, 8200 + MANY as u16), Duration::from_hours(24));
        let over = CancellationToken::new();
        tokio::spawn(Arc::clone(&site).live(over.clone()));
        edit(&site, |specs| {
            for number in 0..MANY {
                specs.wishes.insert(format!("s{number}"), wish(number, None));
            }
        });
        sleep(Duration::from_mins(5)).await;
        edit(&site, |specs| specs.class = 1);
        sleep(Duration::from_mins(10)).await;
        let handle = site.handle.lock().unwrap().clone().unwrap();
        let views = handle.sessions.borrow().clone();
        assert_eq!(views.len(), MANY);
        for view in views.values() {
            let container = view.status.container.as_ref().unwrap();
            assert_eq!(container.attempt, 2, "{} waits: {}", view.metadata.name, view.status.plan);
        }
        over.cancel();
        let wrongs = site.wrongs.lock().unwrap().clone();
        assert_eq!(wrongs, Vec::<String>::new());
    });
}

#[test]
fn a_flood_of_events_is_a_few_looks_and_what_really_happened_in_it_is_seen() {
    on_paused_time(async {
        let site = site(0, (8001, 8016));
        let over = CancellationToken::new();
        tokio::spawn(Arc::clone(&site).live(over.clone()));
        edit(&site, |specs| drop(specs.wishes.insert("s0".to_owned(), wish(0, None))));
        sleep(Duration::from_secs(20)).await;
        let only = || site.machine.containers().remove(0);
        let (id, before) = (only().id, site.sky.calls());
        site.machine.chatter(&id, 200);
        sleep(Duration::from_millis(100)).await;
        let calls = site.sky.calls() - before;
        assert!((1..20).contains(&calls), "{calls} calls for 200 events");
        site.machine.chatter(&id, 100);
        site.machine.kill(&id, false);
        site.machine.chatter(&id, 100);
        sleep(Duration::from_secs(3)).await;
        assert_eq!((only().id, only().starts), (id, 2));
        over.cancel();
        let wrongs = site.wrongs.lock().unwrap().clone();
        assert_eq!(wrongs, Vec::<String>::new());
    });
}
