//! What people, tenants, other programs and the machine do meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use docket::model::RelPath;
use docket::operator::handle::{Answer, Ask, Refusal, Verb};
use docket::testing::engine::{Machine, Seen};
use docket::world::{CreateRequest, StoreErrorKind};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use super::site::{Site, Wish, session_name};

/// Sessions that people come back to.
const SESSIONS: u32 = 5;

/// The machine before anything happens: a foreign container, and what programs do at their end.
pub fn prepare(machine: &Arc<Machine>, sites: &[Arc<Site>]) {
    assert!(machine.make_foreign(foreign("somebody-elses", Some(8003))));
    let sites = sites.to_vec();
    machine.on_term(move |one| {
        let Some(site) = sites.iter().find(|site| site.name == one.installation) else { return };
        // The write that a sync before the stop cannot see.
        write(site, one, "last-words", site.sky.below(1 << 32));
    });
}

fn foreign(name: &str, port: Option<u16>) -> CreateRequest {
    CreateRequest {
        name: name.to_owned(),
        image_id: format!("sha256:{:064x}", 1),
        spec: crate::engine_contract::rules::spec("app:v1"),
        host_port: port,
        mounts: Vec::new(),
        labels: BTreeMap::new(),
    }
}

fn write(site: &Site, one: &Seen, file: &str, content: u64) {
    let specs = site.ledger.records();
    let Some(record) = specs.values().find(|r| r.uid.as_str() == one.uid) else { return };
    let path = RelPath::parse(format!("drafts/{file}").as_bytes()).unwrap();
    let text = format!("{file} {content}").into_bytes();
    if site.disk.write_by_tenant(&record.user, &record.case, &path, text) {
        site.sky.note(format_args!("== {} {}: tenant writes {path}", site.name, one.session));
    }
}

/// Everything that happens while the weather is bad, and the last edits that make all wishes good.
pub async fn play(seed: u64, length: Duration, machine: &Arc<Machine>, sites: &[Arc<Site>]) {
    let mut chance = SmallRng::seed_from_u64(seed);
    let Some(first) = sites.first() else { return };
    let sky = Arc::clone(&first.sky);
    while sky.now() < length {
        sleep(Duration::from_millis(chance.random_range(100..6_000))).await;
        let site = &sites[chance.random_range(0..sites.len())];
        let name = format!("s{}", chance.random_range(0..SESSIONS));
        match chance.random_range(0..100_u32) {
            0..32 => people(&mut chance, site, &name),
            32..40 => command(&mut chance, site, &name),
            40..66 => tenants(&mut chance, site),
            66..84 => hands(&mut chance, machine, site, &name),
            _ => elements(&mut chance, machine, site),
        }
    }
    make_good(&mut chance, machine, sites);
}

fn people(chance: &mut SmallRng, site: &Arc<Site>, name: &str) {
    let dice = chance.random_range(0..100_u32);
    let mut specs = site.specs.lock().unwrap();
    let exists = specs.wishes.contains_key(name);
    let number = name.trim_start_matches('s');
    let fresh = wish(chance, number);
    let said = if exists {
        match dice {
            0..25 => {
                specs.wishes.remove(name);
                "is wanted no more"
            }
            25..60 => {
                specs.wishes.insert(name.to_owned(), fresh);
                "is edited"
            }
            60..70 => edit(
                &mut specs.wishes,
                name,
                |wish| wish.stopped = !wish.stopped,
                "is stopped or started",
            ),
            70..76 => edit(
                &mut specs.wishes,
                name,
                |wish| wish.suspended = !wish.suspended,
                "is suspended or resumed",
            ),
            76..84 => edit(
                &mut specs.wishes,
                name,
                |wish| wish.memory = if wish.memory == "4Gi" { "2Gi" } else { "4Gi" },
                "is resized",
            ),
            84..92 => {
                specs.broken = Some(name.to_owned());
                "is broken"
            }
            _ => {
                specs.broken = None;
                specs.trouble = !specs.trouble && chance.random_range(0..3_u32) == 0;
                "is mended, or the directory fails"
            }
        }
    } else {
        specs.wishes.insert(name.to_owned(), fresh);
        "is wanted"
    };
    drop(specs);
    site.sky.note(format_args!("== {} {name} {said}", site.name));
    site.tell();
}

/// Somebody types a command; whether it is heard is luck.
fn command(chance: &mut SmallRng, site: &Arc<Site>, name: &str) {
    const VERBS: &[Verb] = &[Verb::Stop, Verb::Start, Verb::Restart, Verb::Suspend, Verb::Resume];
    let Some(handle) = site.handle.lock().unwrap().clone() else { return };
    let verb = VERBS[chance.random_range(0..VERBS.len())];
    let name = session_name(name);
    site.sky.note(format_args!("== {} docket {verb:?} {name}", site.name));
    tokio::spawn(async move {
        let _heard = handle.ask(|reply| Ask::Verb(name, verb, reply)).await;
    });
}

/// The last commands: they agree with the files, and what is held is confirmed.
pub async fn last_commands(site: Arc<Site>) {
    let wishes = site.specs.lock().unwrap().wishes.clone();
    for (name, wish) in wishes {
        let state = if wish.stopped { Verb::Stop } else { Verb::Start };
        for verb in [state, Verb::Resume] {
            let name = session_name(&name);
            ask(&site, |reply| Ask::Verb(name.clone(), verb, reply)).await;
        }
    }
    for _ in 0..20 {
        ask(&site, Ask::ConfirmPrune).await;
        sleep(Duration::from_secs(10)).await;
    }
}

/// Asks until there is an answer that asking again would not change.
async fn ask<T>(
    site: &Arc<Site>,
    question: impl Fn(tokio::sync::oneshot::Sender<Answer<T>>) -> Ask,
) {
    for _ in 0..60 {
        let handle = site.handle.lock().unwrap().clone();
        if let Some(handle) = handle
            && !matches!(handle.ask(&question).await, Err(Refusal::Failed(_)))
        {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn edit(
    wishes: &mut BTreeMap<String, Wish>,
    name: &str,
    change: impl FnOnce(&mut Wish),
    said: &'static str,
) -> &'static str {
    if let Some(wish) = wishes.get_mut(name) {
        change(wish);
    }
    said
}

fn wish(chance: &mut SmallRng, number: &str) -> Wish {
    let bad = match chance.random_range(0..12_u32) {
        0 => Some(("EXIT_AFTER_MS", "700")),
        1 => Some(("HEALTH_MODE", "hang")),
        2 => Some(("EXIT_AFTER_MS", "20000")),
        _ => None,
    };
    Wish {
        user: format!("u{}", number.parse::<u32>().unwrap_or(0) % 2),
        case: format!("case-{number}"),
        image: if chance.random_range(0..4_u32) == 0 { "app:v2" } else { "app:v1" },
        revision: chance.random_range(1..1_000_000),
        memory: "4Gi",
        stopped: chance.random_range(0..10_u32) == 0,
        suspended: false,
        bad,
    }
}

fn tenants(chance: &mut SmallRng, site: &Arc<Site>) {
    let running: Vec<Seen> = site
        .machine
        .containers()
        .into_iter()
        .filter(|one| {
            one.installation == site.name && one.state == docket::model::ContainerState::Running
        })
        .collect();
    if running.is_empty() {
        return;
    }
    let one = &running[chance.random_range(0..running.len())];
    let file = format!("f{}", chance.random_range(0..3_u32));
    if chance.random_range(0..6_u32) > 0 {
        return write(site, one, &file, chance.random_range(0..u64::MAX));
    }
    let records = site.ledger.records();
    let Some(record) = records.values().find(|r| r.uid.as_str() == one.uid) else { return };
    let path = RelPath::parse(format!("drafts/{file}").as_bytes()).unwrap();
    if site.disk.remove_by_tenant(&record.user, &record.case, &path) {
        site.sky.note(format_args!("== {} {}: tenant removes {path}", site.name, one.session));
    }
}

fn hands(chance: &mut SmallRng, machine: &Arc<Machine>, site: &Arc<Site>, name: &str) {
    let dice = chance.random_range(0..100_u32);
    let own: Vec<Seen> = machine
        .containers()
        .into_iter()
        .filter(|one| one.installation == site.name && one.session == name)
        .collect();
    let note = |what: &str| site.sky.note(format_args!("== {} {what} {name}", site.name));
    if dice < 14 {
        let port = 8001 + chance.random_range(0..10_u16);
        site.sky.note(format_args!("== somebody takes port {port}"));
        machine.squat(port);
        let (machine, wait) = (Arc::clone(machine), chance.random_range(20..90_u64));
        tokio::spawn(async move {
            sleep(Duration::from_secs(wait)).await;
            machine.free(port);
        });
        return;
    }
    if dice < 26 {
        let records = site.ledger.records();
        let next = records.values().find(|r| r.name.as_str() == name).map_or(1, |r| r.attempt + 1);
        let taken = format!("docket-{name}-{next}");
        site.sky.note(format_args!("== somebody makes a container {taken}"));
        machine.make_foreign(foreign(&taken, None));
        return;
    }
    let Some(one) = own.first() else { return };
    match dice {
        26..50 => {
            note("kill by hand");
            machine.kill(&one.id, false);
        }
        50..60 => {
            note("out of memory");
            machine.kill(&one.id, true);
        }
        60..82 => {
            note("rm -f by hand");
            machine.remove_by_hand(&one.id);
        }
        _ => {
            note("pause by hand");
            machine.pause_by_hand(&one.id);
        }
    }
}

fn elements(chance: &mut SmallRng, machine: &Arc<Machine>, site: &Arc<Site>) {
    let dice = chance.random_range(0..100_u32);
    let wait = Duration::from_secs(chance.random_range(1..40));
    let sky = Arc::clone(&site.sky);
    let machine = Arc::clone(machine);
    match dice {
        0..18 => {
            sky.note("== the engine goes down");
            machine.go_down();
            tokio::spawn(async move {
                sleep(wait).await;
                if !sky.is_calm() {
                    sky.note("== the engine is restarted");
                    machine.come_back();
                }
            });
        }
        18..34 => {
            sky.note("== the engine cannot be reached");
            machine.go_down();
            tokio::spawn(async move {
                sleep(wait).await;
                sky.note("== the engine can be reached");
                machine.reconnect();
            });
        }
        34..58 => {
            let kind = match chance.random_range(0..3_u32) {
                0 => StoreErrorKind::Denied,
                _ => StoreErrorKind::Unavailable,
            };
            sky.note(format_args!("== {} the store is {kind:?}", site.name));
            site.store.fail_with(Some(kind));
            let site = Arc::clone(site);
            tokio::spawn(async move {
                sleep(wait * 2).await;
                site.sky.note(format_args!("== {} the store works", site.name));
                site.store.fail_with(None);
            });
        }
        58..72 => {
            let by = chance.random_range(-3600..3600_i64);
            sky.note(format_args!("== the clock jumps by {by}s"));
            site.clock.jump(TimeDelta::seconds(by));
        }
        72..82 => {
            sky.note(format_args!("== {} the disk is nearly full", site.name));
            site.disk.set_free(Some(1 << 30));
            let site = Arc::clone(site);
            tokio::spawn(async move {
                sleep(wait).await;
                site.disk.set_free(None);
            });
        }
        82..92 => {
            sky.note("== an image is missing");
            machine.set_image("app:v2", None);
            tokio::spawn(async move {
                sleep(wait).await;
                machine.set_image("app:v2", Some(&format!("sha256:{:064x}", 2)));
            });
        }
        _ => {
            sky.note("== the engine leaves the hardening out");
            machine.be_careless(true);
            tokio::spawn(async move {
                sleep(wait).await;
                machine.be_careless(false);
            });
        }
    }
}

/// The last edits: everything that is still wanted is wanted in a way that can be had.
fn make_good(chance: &mut SmallRng, machine: &Arc<Machine>, sites: &[Arc<Site>]) {
    for port in 8001..=8010 {
        machine.free(port);
    }
    machine.set_image("app:v2", Some(&format!("sha256:{:064x}", 2)));
    machine.reconnect();
    machine.be_careless(false);
    for site in sites {
        site.store.fail_with(None);
        site.disk.set_free(None);
        let mut specs = site.specs.lock().unwrap();
        specs.broken = None;
        specs.trouble = false;
        for wish in specs.wishes.values_mut() {
            wish.revision += 1_000_000;
            wish.suspended = false;
            wish.bad = None;
            wish.stopped = chance.random_range(0..8_u32) == 0;
        }
        drop(specs);
        site.tell();
    }
}
