//! One life of a session, walked once for each named place in docket where it can be told to die
//! (`DOCKET_CRASH`): there it dies, is started again, and all ends as if nothing had been.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use docket::crash::{Point, points};
use serde_json::{Value, json};

use super::lazy::{content, in_store};
use super::rig::{PATIENCE, Rig, condition, exists, http, run, session, stored};

const SIGABRT: i32 = 6;
/// So many walks at once: they mostly wait.
const ABREAST: usize = 10;
/// So often one walk dies.
const DEATHS: usize = 3;
/// Effects that come only of an edit of the spec, a full quota or a change in the store.
const LATER: &[&str] = &["update", "pause", "unpause", "make-tree", "rename-file", "remove-file"];

/// A rig whose operator is to die here and there.
struct Walk {
    rig: Rig,
    name: String,
    ahead: VecDeque<Point>,
    ports: BTreeSet<u64>,
}

/// What is there at the end, but for what differs between any two runs.
#[derive(Debug, PartialEq)]
struct End {
    container: Value,
    files: BTreeMap<String, Vec<u8>>,
    local: BTreeSet<String>,
}

fn class(rig: &Rig) -> String {
    format!(
        "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {{name: walked}}\nspec:\n  \
         container: {{image: docket-sample:latest, pullPolicy: Never, resources: {{cpus: \"1\", \
         memory: 64Mi, pids: 64}}, stopGracePeriod: 3s, secrets: {{KEY: {{file: {}}}}}}}\n  \
         health: {{startup: 20s, interval: 1s, timeout: 1s, failures: 3}}\n  \
         workspace: {{folders: [drafts], quota: 1Mi, sync: {{interval: 1s}}, \
         files: {{eagerBelow: 1Ki, large: OnAccess}}}}\n",
        rig.path("vault/key").display()
    )
}

fn spec(memory: &str) -> String {
    session("ann-one", "ann", "one", &format!("  container: {{resources: {{memory: {memory}}}}}"))
        .replace("class: legal", "class: walked")
}

impl Walk {
    fn new(places: &[Point], long: bool) -> Walk {
        let name = places.first().map_or(format!("calm-{long}"), ToString::to_string);
        let rig = Rig::new(&name);
        std::fs::create_dir(rig.path("vault")).unwrap();
        std::fs::write(rig.path("vault/key"), "secret").unwrap();
        rig.configure(&format!("allow: {{secretFiles: [{}]}}", rig.path("vault").display()));
        let seeds = [("seed.txt", 20), ("goes.txt", 30), ("deep/er/kept.txt", 40), ("l.bin", 4096)];
        let files: Vec<(String, Vec<u8>)> = seeds
            .iter()
            .map(|(name, size)| ((*name).to_owned(), content(*size as u64, *size)))
            .collect();
        in_store(&rig, "ann", "one", &files);
        Walk { rig, name, ahead: places.iter().copied().collect(), ports: BTreeSet::new() }
    }

    /// Starts the operator, to die at the next place.
    fn spawn(&mut self) {
        let crash = self.ahead.front().map(|place| format!("{place}:1"));
        let env: Vec<(&str, &str)> =
            crash.iter().map(|crash| ("DOCKET_CRASH", crash.as_str())).collect();
        self.rig.spawn(&env);
    }

    /// Starts the operator again if it died where it was to.
    fn mind(&mut self) {
        let Some(status) = self.rig.ended() else { return };
        let log = std::fs::read_to_string(self.rig.path("operator.log")).unwrap_or_default();
        let place = self.ahead.pop_front();
        let here = place.map(|place| format!("DOCKET_CRASH: aborting point={place} time=1"));
        let as_told =
            status.signal() == Some(SIGABRT) && here.is_some_and(|here| log.contains(&here));
        assert!(as_told, "it ended ({status}) where it was not to{}", self.rig.tail());
        self.spawn();
    }

    /// Waits until something holds, over the operator's death.
    #[track_caller]
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Rig) -> bool) {
        let began = Instant::now();
        while !holds(&self.rig) {
            self.mind();
            assert!(
                began.elapsed() < PATIENCE,
                "{}: not in time: {what}{}\n{:#}",
                self.name,
                self.rig.tail(),
                self.rig.get("ann-one").unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    #[track_caller]
    fn ready(&mut self, what: &str) -> Value {
        let mut seen = Value::Null;
        self.until(what, |rig| {
            let Some(view) = rig.get("ann-one") else { return false };
            let is =
                condition(&view, "Ready").0 == "True" && condition(&view, "UpToDate").0 == "True";
            seen = view;
            is
        });
        self.ports.insert(seen["status"]["port"].as_u64().unwrap());
        seen
    }

    /// The session's life up to its end; a long one has everything in it that may happen.
    fn live(&mut self, long: bool) -> End {
        self.spawn();
        let text = class(&self.rig);
        let file = self.rig.path("class.yaml");
        std::fs::write(&file, text).unwrap();
        self.until("its class is applied", |rig| {
            rig.docket(&["apply", "-f", file.to_str().unwrap()]).code == 0
        });
        self.rig.write("a.yaml", &spec("64Mi"));
        let first = self.ready("it is ready");
        let uid = first["metadata"]["uid"].clone();
        let (code, _) = http(&first, "POST", "/write?path=drafts/mine.txt", "mine");
        assert_eq!(code, 200);
        self.until("its edit is stored", |rig| {
            stored(rig, "ann", "one", "drafts/mine.txt").as_deref() == Some("mine")
        });
        if long {
            self.much_happens();
        }
        let last = self.ready("it is ready at last");
        assert_eq!(last["metadata"]["uid"], uid, "it is the same session");
        assert_eq!(self.ports.len(), 1, "its port is kept: {:?}", self.ports);
        self.end()
    }

    /// New limits, a pause at twice the quota, an earlier state, a change on both sides.
    fn much_happens(&mut self) {
        self.rig.write("a.yaml", &spec("96Mi"));
        self.until("its limit is changed", |rig| {
            let all = rig.containers();
            all.len() == 1 && memory(&all[0].0) == 96 << 20
        });
        let much = self.rig.workspace("ann", "one").join("much.bin");
        std::fs::write(&much, vec![7; 5 << 19]).unwrap();
        self.until("it is paused", |rig| {
            rig.get("ann-one").is_some_and(|view| {
                condition(&view, "ContainerReady").1 == "DiskPressure"
                    && rig.containers().iter().any(|(_, _, state)| state == "paused")
            })
        });
        std::fs::remove_file(&much).unwrap();
        self.ready("it goes on");
        self.a_directory_comes_back();
        self.both_sides_change();
    }

    /// One that the current state has not and an earlier one had.
    fn a_directory_comes_back(&mut self) {
        let hollow = self.rig.workspace("ann", "one").join("hollow");
        std::fs::create_dir(&hollow).unwrap();
        let newest = |rig: &Rig| rig.docket(&["history", "ann-one", "-n", "1", "-o", "name"]);
        let synced = |rig: &Rig| rig.docket(&["sync", "ann-one"]).code == 0;
        self.until("the directory is committed", synced);
        let mut with = String::new();
        self.until("its state is told", |rig| {
            newest(rig).stdout.trim().clone_into(&mut with);
            !with.is_empty()
        });
        std::fs::remove_dir(&hollow).unwrap();
        self.until("it is committed that it went", |rig| {
            let now = newest(rig).stdout;
            synced(rig) && !now.trim().is_empty() && now.trim() != with
        });
        self.until("the directory is back", |rig| {
            exists(&hollow) || {
                let _tried_again = rig.docket(&["restore", "ann-one", "--at", &with]);
                exists(&hollow)
            }
        });
    }

    /// While no operator lives, its files change here and in the store.
    fn both_sides_change(&mut self) {
        self.until("nothing waits", |rig| {
            stored(rig, "ann", "one", "much.bin").is_none()
                && rig.docket(&["sync", "ann-one"]).code == 0
        });
        self.mind();
        self.rig.kill();
        let prefix = self.rig.path("objects/ann/one");
        let at = prefix.join("manifest.json");
        let mut rows: Vec<Value> = serde_json::from_slice(&std::fs::read(&at).unwrap()).unwrap();
        rows.retain(|row| row["logical_path"] != "goes.txt" && row["logical_path"] != "seed.txt");
        for (path, text) in [("seed.txt", "theirs"), ("comes.txt", "new")] {
            std::fs::write(prefix.join(format!("k-{path}")), text).unwrap();
            rows.push(json!({
                "logical_path": path, "size": text.len(), "storage_key": format!("k-{path}"),
                "mtime": "2024-05-06T07:08:10Z",
            }));
        }
        std::fs::write(&at, json!(rows).to_string()).unwrap();
        let inside = self.rig.workspace("ann", "one");
        std::fs::write(inside.join("seed.txt"), "ours").unwrap();
        self.spawn();
        self.until("both sides are one", |rig| {
            let here = std::fs::read_to_string(inside.join("comes.txt"));
            here.is_ok_and(|text| text == "new")
                && !exists(&inside.join("goes.txt"))
                && all_stored(rig).values().any(|text| text == b"ours")
                && all_stored(rig).values().any(|text| text == b"theirs")
        });
    }

    fn end(&self) -> End {
        let all = self.rig.containers();
        assert_eq!(all.len(), 1, "{all:?}");
        let said = run("docker", &["inspect", &all[0].0]);
        let seen: Value = serde_json::from_str(&said).unwrap();
        let host = &seen[0]["HostConfig"];
        let container = json!({
            "state": all[0].2, "memory": host["Memory"], "drop": host["CapDrop"],
            "readonly": host["ReadonlyRootfs"], "mounts": seen[0]["Mounts"].as_array().unwrap().len(),
        });
        let inside = self.rig.workspace("ann", "one");
        let said = run("find", &[inside.to_str().unwrap(), "-printf", "%P %y\\n"]);
        let local = said.lines().map(without_time).collect();
        let files = all_stored(&self.rig);
        let files = files.into_iter().map(|(path, text)| (without_time(&path), text)).collect();
        End { container, files, local }
    }

    /// The session ends, and nothing of it is left.
    fn ends(&mut self) {
        let before = all_stored(&self.rig);
        self.rig.remove("a.yaml");
        self.until("it is gone", |rig| rig.docket(&["get", "ann-one"]).code == 4);
        // The place behind the last effect may still be before us.
        self.until("it died where it was to", |rig| rig.docket(&["get"]).code == 0);
        assert_eq!(self.rig.containers(), []);
        assert!(!exists(&self.rig.path("workspaces/ann")), "its workspace is left");
        for own in ["records", "trash", "staging", "secrets"] {
            let at = self.rig.path(&format!("workspaces/.docket/{own}"));
            let Ok(left) = std::fs::read_dir(at) else { continue };
            let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{own} holds {left:?}");
        }
        // Its lease is its record's; a record that is left would be shown after a start.
        assert_eq!(self.rig.ok(&["get", "-o", "name"]).trim(), "", "a record is left");
        assert_eq!(all_stored(&self.rig), before, "the store has what it had");
    }
}

fn memory(id: &str) -> u64 {
    let said = run("docker", &["inspect", "--format", "{{.HostConfig.Memory}}", id]);
    said.trim().parse().unwrap()
}

/// Everything that the manifest names, but the large file that nobody opened.
fn all_stored(rig: &Rig) -> BTreeMap<String, Vec<u8>> {
    let prefix = rig.path("objects/ann/one");
    let Ok(text) = std::fs::read(prefix.join("manifest.json")) else { return BTreeMap::new() };
    let rows: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let row = |row: &Value| {
        let bytes = std::fs::read(prefix.join(row["storage_key"].as_str().unwrap()));
        (row["logical_path"].as_str().unwrap().to_owned(), bytes.unwrap())
    };
    rows.iter().map(row).collect()
}

/// `seed (conflict ann 2026-...).txt` without when it was.
fn without_time(path: &str) -> String {
    match path.split_once(" (conflict ").map(|(name, rest)| (name, rest.split_once(')'))) {
        Some((name, Some((_, rest)))) => format!("{name} (conflict){rest}"),
        _ => path.to_owned(),
    }
}

fn walk(places: &[Point], long: bool) -> End {
    let mut walk = Walk::new(places, long);
    let end = walk.live(long);
    walk.ends();
    assert!(walk.ahead.is_empty(), "never passed: {:?}{}", walk.ahead, walk.rig.tail());
    end
}

/// Places in the order of a life, each at most once: those of one walk lie far apart in it.
fn walks(places: &[Point], long: bool) -> Vec<(Vec<Point>, bool)> {
    let count = places.len().div_ceil(DEATHS);
    let of = |first| places.iter().skip(first).step_by(count).copied().collect();
    (0..count).map(|first| (of(first), long)).collect()
}

/// `DOCKET_POINTS=NAME`: only places with that in their names, one a walk.
#[test]
fn f1_killed_at_every_named_place_it_ends_where_an_undisturbed_run_ends() {
    let only = std::env::var("DOCKET_POINTS").ok();
    let is_late = |place: &Point| {
        LATER.iter().any(|effect| place.to_string().split_once('-').unwrap().1 == *effect)
    };
    let (late, other): (Vec<Point>, Vec<Point>) = points().partition(is_late);
    let mut left = vec![(Vec::new(), false), (Vec::new(), true)];
    match &only {
        None => {
            left.splice(0..0, walks(&other, false));
            left.extend(walks(&late, true));
        }
        Some(only) => {
            let wanted = points().filter(|place| place.to_string().contains(only.as_str()));
            left.extend(wanted.map(|place| (vec![place], is_late(&place))));
        }
    }
    let places: usize = left.iter().map(|(places, _)| places.len()).sum();
    let left = Mutex::new(left);
    let (ends, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..ABREAST {
            scope.spawn(|| {
                loop {
                    let Some((places, long)) = left.lock().unwrap().pop() else { return };
                    match std::panic::catch_unwind(|| walk(&places, long)) {
                        Ok(end) => ends.lock().unwrap().push((places, long, end)),
                        Err(_) => failed.lock().unwrap().push(places),
                    }
                }
            });
        }
    });
    let (ends, failed) = (ends.into_inner().unwrap(), failed.into_inner().unwrap());
    assert!(failed.is_empty(), "of {places} places: {failed:?}");
    for (places, long, end) in &ends {
        let calm = ends.iter().find(|(places, of, _)| places.is_empty() && of == long).unwrap();
        assert_eq!(*end, calm.2, "after {places:?}");
        assert!(!long || end.files.len() >= 6, "{end:?}");
    }
    println!("{places} places in {} walks, {:?}", ends.len(), began.elapsed());
}

/// Its session alone stands still, and says so, until docket starts again.
#[test]
fn an_assertion_that_fails_stops_its_session_and_no_other() {
    let mut rig = Rig::new("asserts");
    rig.spawn(&[("DOCKET_CRASH", "panic:before-start:1")]);
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    let stands_still = |v: &Value| condition(v, "Stalled").1 == "InternalError";
    let told = rig.see("stands still", "ann-one", stands_still);
    let why = condition(&told, "Stalled").2;
    assert!(why.contains("DOCKET_CRASH: before-start was passed 1 times"), "{why}");
    let explained = rig.ok(&["explain", "ann-one"]);
    assert!(explained.contains("until docket starts again"), "{explained}");
    rig.write("b.yaml", &session("bob-two", "bob", "two", ""));
    rig.ready("bob-two");
    rig.kill();
    rig.start();
    rig.ready("ann-one");
    rig.ready("bob-two");
}

#[test]
fn a_place_that_is_none_is_refused_at_the_start() {
    let mut rig = Rig::new("noplace");
    rig.spawn(&[("DOCKET_CRASH", "before-lunch:1")]);
    assert_eq!(rig.wait_exit(), Some(2));
    let said = std::fs::read_to_string(rig.path("operator.log")).unwrap();
    assert!(said.contains("there is no place `before-lunch`; there are before-admit"), "{said}");
}
