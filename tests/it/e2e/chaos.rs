//! Everything at once, at random: sessions come, change and go, tenants write, and meanwhile
//! operator, gate, engine and store are killed, the disk fills up, ports and names are taken. Then
//! it is left alone, and every byte that a tenant was told is written must be in the store,
//! every session as wished, and nothing may be left over.
//!
//! `DOCKET_CHAOS_SECONDS` (60) and `DOCKET_CHAOS_SEED` (1): the plan follows from the seed; when
//! what lands is the machine's. All of it is in a network of its own, with an engine of its own.

mod model;
mod place;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{Dice, Model};
use place::{Asked, Place};

use super::rig::{condition, exists};

/// Sessions that come and go.
const SESSIONS: u64 = 6;
/// From the end of the last fault until all is as wished: the longest back-off, and a pass.
const CALM_WITHIN: Duration = Duration::from_mins(6);

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Heal {
    Engine,
    Store,
    Disk,
    Port,
}

struct Chaos {
    place: Place,
    model: Model,
    dice: Dice,
    step: u64,
    heals: Vec<(u64, Heal)>,
    counts: BTreeMap<&'static str, u64>,
}

#[test]
fn chaos_loses_nothing_and_leaves_nothing() {
    let number =
        |name: &str, or| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(or);
    let (seconds, seed) = (number("DOCKET_CHAOS_SECONDS", 60), number("DOCKET_CHAOS_SEED", 1));
    // A thread of its own: it moves into the engine's network and stays there.
    let ended = std::thread::spawn(move || {
        let mut chaos = Chaos {
            place: Place::new(seed, SESSIONS),
            model: Model::new(SESSIONS),
            dice: Dice::new(seed),
            step: 0,
            heals: Vec::new(),
            counts: BTreeMap::new(),
        };
        let tell = |chaos: &Chaos| {
            println!("chaos: seed {seed}, {seconds} s, {} steps", chaos.step);
            for (what, count) in &chaos.counts {
                println!("  {count:>6} {what}");
            }
        };
        chaos.run(Duration::from_secs(seconds));
        // Also if the look that follows finds something.
        tell(&chaos);
        chaos.check();
        tell(&chaos);
    });
    if let Err(why) = ended.join() {
        let words = why.downcast_ref::<String>().cloned();
        panic!("chaos, seed {seed}: {}", words.unwrap_or_else(|| "see above".to_owned()));
    }
}

impl Chaos {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn run(&mut self, within: Duration) {
        self.place.rig.start();
        for who in 0..SESSIONS - 2 {
            self.model.wish(who, false);
            self.place.rig.write(&format!("s{who}.yaml"), &self.model.spec(who));
        }
        let until = Instant::now() + within;
        while Instant::now() < until {
            self.step += 1;
            let due: Vec<Heal> = self
                .heals
                .iter()
                .filter(|(at, _)| *at <= self.step)
                .map(|(_, heal)| *heal)
                .collect();
            self.heals.retain(|(at, _)| *at > self.step);
            for heal in due {
                self.heal(heal);
            }
            self.act();
            self.place.alive();
            std::thread::sleep(Duration::from_millis(20 + self.dice.below(400)));
        }
        let left = std::mem::take(&mut self.heals);
        for (_, heal) in left {
            self.heal(heal);
        }
    }

    /// One step of the plan. Every choice is the seed's, whatever came of those before.
    fn act(&mut self) {
        let (what, who) = (self.dice.below(100), self.dice.below(SESSIONS));
        let which = self.dice.below(1000);
        match what {
            0..48 => self.write(who, which),
            48..54 => self.read(who),
            54..65 => {
                self.model.wish(who, which.is_multiple_of(5));
                self.place.rig.write(&format!("s{who}.yaml"), &self.model.spec(who));
                self.count("specs written");
            }
            65..69 => {
                if self.model.forget(who) {
                    self.place.rig.remove(&format!("s{who}.yaml"));
                    self.count("specs removed");
                }
            }
            69..76 => {
                self.place.rig.kill();
                self.place.rig.spawn(&[]);
                self.count("kills of the operator");
            }
            76..78 => {
                if self.place.kill_gate() {
                    self.count("kills of the gate");
                }
            }
            78..80 => self.fault(Heal::Engine, which),
            80..83 => self.fault(Heal::Store, which),
            83..85 => self.fault(Heal::Disk, which),
            85..88 => self.fault(Heal::Port, which),
            _ => self.by_hand(what, who),
        }
    }

    fn by_hand(&mut self, what: u64, who: u64) {
        let (verb, name): (&[&str], _) = match what {
            88..92 => (&["kill"], "containers killed"),
            92..95 => (&["rm", "-f"], "containers removed by hand"),
            95..98 => (&["pause"], "containers paused by hand"),
            _ => (&["stop", "-t", "1"], "containers stopped by hand"),
        };
        if self.place.by_hand(&format!("s{who}"), verb) {
            self.count(name);
        }
    }

    fn fault(&mut self, fault: Heal, which: u64) {
        if self.heals.iter().any(|(_, known)| *known == fault) {
            return;
        }
        let name = match fault {
            Heal::Engine => {
                self.place.engine.run("kill", &[]);
                "kills of the engine"
            }
            Heal::Store => {
                self.place.store.kill();
                "kills of the store"
            }
            Heal::Disk => {
                self.place.fill_disk();
                "full disks"
            }
            Heal::Port => {
                self.place.hold_ports(which);
                "ports held"
            }
        };
        self.count(name);
        self.heals.push((self.step + 2 + which % 15, fault));
    }

    fn heal(&mut self, heal: Heal) {
        match heal {
            Heal::Engine => {
                let swept: u64 = self.place.engine.run("sweep", &[]).trim().parse().unwrap();
                *self
                    .counts
                    .entry("containers that the dying engine left half made, swept")
                    .or_default() += swept;
                self.place.engine.run("dockerd", self.place.engine.options);
            }
            Heal::Store => {
                let torn = self.place.store.mend();
                *self
                    .counts
                    .entry("objects that the dying store left torn, mended")
                    .or_default() += torn;
                self.place.store.start();
            }
            Heal::Disk => self.place.free_disk(),
            Heal::Port => self.place.holders.clear(),
        }
    }

    /// A tenant writes; what is acknowledged is remembered.
    fn write(&mut self, who: u64, which: u64) {
        let path = match which % 4 {
            0 => format!("latest-{}.txt", which % 3),
            _ => format!("drafts/w{}.txt", self.step),
        };
        let text = format!("u{who} {} {}\n", self.step, "x".repeat(which as usize * 3));
        let answer = self.place.ask_own(who, "POST", &format!("/write?path={path}"), &text);
        self.count(match answer {
            Asked::Another { by_word: false } => "times another answered where one had been",
            Asked::Another { by_word: true } => {
                "times another answered though the engine was there"
            }
            Asked::Answer(200, _) => "edits acknowledged",
            Asked::Answer(..) => "edits refused",
            Asked::Unknown => "edits not answered",
            Asked::Unsent => "edits not sent",
        });
        self.model.written(who, path, text, &answer);
    }

    /// A tenant opens its large file: it is whole, or it is an error.
    fn read(&mut self, who: u64) {
        if let Asked::Answer(200, said) =
            self.place.ask_own(who, "GET", "/check?path=large.bin", "")
        {
            assert_eq!(said, self.place.large[who as usize].1, "s{who} read something else");
            self.count("large files read");
        }
    }

    fn check(&mut self) {
        let began = Instant::now();
        self.place.calm("every session is as wished", CALM_WITHIN, |place| {
            (0..SESSIONS).find_map(|who| differs(place, &self.model, who))
        });
        let took = began.elapsed().as_secs();
        self.counts.insert("seconds until all was as wished", took);
        let mut ports = std::collections::BTreeSet::new();
        for who in 0..SESSIONS {
            let Some(view) = self.place.rig.get(&format!("s{who}")) else { continue };
            // One that never ran has none.
            let Some(port) = view["status"]["port"].as_u64() else { continue };
            assert!(ports.insert(port), "port {port} is leased twice: {:#}", view["status"]);
        }
        self.stored("while the sessions live");
        for who in 0..SESSIONS {
            if self.model.forget(who) {
                self.place.rig.remove(&format!("s{who}.yaml"));
            }
        }
        self.place.calm("every session is gone", CALM_WITHIN, |place| {
            let left = place.containers()?;
            let known = place.rig.docket(&["get", "-o", "name"]).stdout;
            (!left.is_empty() || !known.trim().is_empty()).then(|| format!("{left:?} {known}"))
        });
        let (files, bytes, copies) = self.stored("after the sessions");
        self.counts.insert("files compared at the end", files);
        self.counts.insert("bytes compared at the end", bytes);
        self.counts.insert("conflict copies", copies);
        // What a killed operator left in staging goes with the next start.
        self.place.rig.kill();
        self.place.rig.start();
        for own in ["records", "trash", "staging"] {
            let at = self.place.rig.path(&format!("workspaces/.docket/{own}"));
            let Ok(left) = std::fs::read_dir(at) else { continue };
            let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{own} holds {left:?}");
        }
        for who in 0..SESSIONS {
            let at = self.place.rig.path(&format!("workspaces/u{who}"));
            assert!(!exists(&at), "{} is left", at.display());
        }
    }

    /// Every acknowledged byte is in the store: files, bytes and conflict copies.
    fn stored(&mut self, when: &str) -> (u64, u64, u64) {
        let (mut files, mut bytes, mut copies) = (0, 0, 0);
        for who in 0..SESSIONS {
            let mut all = BTreeMap::new();
            self.place.calm(when, CALM_WITHIN, |place| {
                all = place.stored(who);
                self.model.missing(who, &all)
            });
            files += all.len() as u64;
            bytes += all.values().map(|text| text.len() as u64).sum::<u64>();
            copies += all.keys().filter(|path| path.contains(" (conflict ")).count() as u64;
        }
        (files, bytes, copies)
    }
}

/// How a session is not as wished.
fn differs(place: &Place, model: &Model, who: u64) -> Option<String> {
    let name = format!("s{who}");
    let mine: Vec<_> =
        place.containers()?.into_iter().filter(|(session, ..)| *session == name).collect();
    let view = place.rig.get(&name);
    let Some(stopped) = model.wished(who) else {
        let left = view.is_some() || !mine.is_empty();
        return left.then(|| {
            format!("{name} is not gone: {mine:?} {:?}", view.map(|v| v["status"].clone()))
        });
    };
    let Some(view) = view else { return Some(format!("{name} is not known")) };
    let running = mine.iter().filter(|(_, state, _)| state == "running").count();
    let is = if stopped {
        running == 0 && view["status"]["phase"] == "Stopped"
    } else {
        let holds = |kind| condition(&view, kind).0 == "True";
        mine.len() == 1 && running == 1 && holds("Ready") && holds("UpToDate")
    };
    (!is).then(|| format!("{name}, stopped {stopped}: {mine:?} {:#}", view["status"]))
}
