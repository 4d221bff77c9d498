//! The page of faults and attacks: each row of the two lists with the tests that carry its number.
//! A row without one would be told as open, and fails the test that keeps the page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Number, fault, promise.
const FAULTS: &[(u32, &str, &str)] = &[
    (
        1,
        "the operator dies before, amid or behind any of its effects",
        "Keep One Back, nothing leaks",
    ),
    (2, "it dies during its start, again and again", "Back"),
    (3, "power loss", "Sure"),
    (4, "two operators at once", "the second exits and names the first"),
    (5, "SIGTERM during a sync", "it ends within the grace period and finishes later"),
    (6, "no engine at the start", "Hold Back"),
    (
        7,
        "the engine is killed or restarted, with and without its containers",
        "Keep Back, same port",
    ),
    (8, "the engine hangs", "every call has a deadline; Hold"),
    (9, "events are cut or missed", "Back: nothing depends on them"),
    (10, "the engine answers errors, garbage, half a list, or is too old", "Hold"),
    (11, "the image is missing", "no half session is left"),
    (12, "a container's name is taken", "Ours, the next number"),
    (13, "a port is taken by a foreign process or container", "the next port, the record first"),
    (14, "a container is killed or ends by itself", "Back, with back-off"),
    (15, "a container is removed by hand", "Keep Back"),
    (16, "a container is paused by hand", "Back"),
    (17, "a container never gets healthy", "stopped at its budget, tried again; Keep"),
    (18, "a container is edited by hand", "put right"),
    (19, "the store is down", "Keep: nothing ends, nothing new begins"),
    (20, "the store refuses nearly everything", "waited out, not stormed"),
    (21, "no access, no bucket, wrong key", "Hold, told, not tried hot"),
    (22, "bodies are cut or changed", "never in place"),
    (23, "a body trickles", "Alone"),
    (24, "the answer to a write is lost", "it counts once"),
    (25, "somebody else changed the manifest", "both stay"),
    (26, "the manifest is empty, broken or gone", "Hold"),
    (27, "the disk of the state is full", "writes stop, and go on without a restart"),
    (28, "the disk of the workspaces is full, or has no inodes", "Keep: what is there goes out"),
    (29, "the disk fails or turns read-only", "Hold"),
    (30, "the records are damaged or gone", "Hold, rebuilt, told"),
    (31, "a spec file is broken", "its last good one stays; Alone"),
    (32, "a spec file is half written", "not acted on"),
    (33, "the directory of specs is gone or replaced", "Hold"),
    (34, "one name in two files", "both as they were"),
    (35, "files made to choke a parser", "refused before they are parsed; Alone"),
    (36, "names that lead out, names that are no text", "refused, told"),
    (37, "links in a workspace", "never followed"),
    (38, "FIFOs, sockets, devices in a workspace", "they block nobody"),
    (39, "hard links in a workspace", "each path is a file"),
    (40, "very many files, very deep trees", "bounded memory and time; Alone"),
    (41, "names that are no text in a workspace", "they come back exactly"),
    (42, "a file changes while it is read", "what is stored is one state of it"),
    (43, "times that lie", "the final sync goes by content"),
    (44, "a tenant deletes everything", "Keep: a restore brings it back"),
    (45, "a workspace is removed or replaced under its container", "Hold"),
    (46, "the clock jumps", "no storm of ends, no gate shut for ever"),
    (47, "the operator stands still for long", "it looks again before it acts"),
    (48, "few descriptors", "slower, nothing else"),
    (49, "many sessions flap at once", "Alone, no port leaks"),
    (50, "records of another format", "Hold, not rewritten"),
];

/// Id, attack.
const ATTACKS: &[(&str, &str)] = &[
    ("T1", "a link in the workspace to files of the host"),
    ("T2", "a directory swapped for a link while it is walked"),
    ("T3", "a parent swapped while files arrive"),
    ("T4", "modes and owners changed through a link"),
    ("T5", "the end of a workspace led outside"),
    ("T6", "FIFOs, sockets and devices to block the walker"),
    ("T7", "huge, many or deep files to exhaust the walker"),
    ("T8", "names with control bytes, newlines, no text"),
    ("T9", "a setuid file for a local accomplice"),
    ("T10", "a file changed while it is read"),
    ("T11", "a flood of events, a watcher led outside"),
    ("T12", "processes, memory, processor, logs, disk exhausted"),
    ("T13", "neighbours, the host and the metadata service by network"),
    ("T14", "a hostile health answer"),
    ("T15", "SIGTERM ignored"),
    ("T16", "archive and exec calls confused"),
    ("P1", "a spec that asks for root on the host"),
    ("P2", "names that lead out of their directory"),
    ("P3", "specs made to choke or confuse a parser"),
    ("P4", "a manifest that names another tenant's object"),
    ("O1", "a manifest that leads out, lies or is huge"),
    ("L1", "local users who look into state, socket, specs, workspaces"),
    ("L2", "a local process that answers on a session's port"),
    ("N1", "the API from the network, from a foreign page"),
    ("S1", "secrets in logs, status, inspect"),
];

/// A test's path and name.
type Test = (String, String);

/// What the last recorded whole run of `scripts/test` said: `scripts/docs --results`.
struct LastRun {
    /// When and where, for people.
    what: String,
    /// Tests that carry a row's number, and whether they passed.
    tests: BTreeMap<String, bool>,
}

impl LastRun {
    fn parse(text: &str) -> LastRun {
        let mut run = LastRun { what: String::new(), tests: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split_once(' ') {
                Some(("ok", name)) => drop(run.tests.insert(name.to_owned(), true)),
                Some(("FAILED", name)) => drop(run.tests.insert(name.to_owned(), false)),
                Some(("run", what)) => what.clone_into(&mut run.what),
                _ => panic!("docs/last-run.txt: `{line}`"),
            }
        }
        run
    }

    /// The result of a row: that of its worst test.
    fn of(&self, tests: Option<&BTreeSet<Test>>) -> String {
        let Some(tests) = tests else { return String::new() };
        let result = |name: &str| self.tests.get(name).copied();
        let failed = tests.iter().filter(|(_, name)| result(name) == Some(false)).count();
        let absent = tests.iter().filter(|(_, name)| result(name).is_none()).count();
        match (failed, absent) {
            (0, 0) => "passed".to_owned(),
            (0, _) if absent == tests.len() => "not run yet".to_owned(),
            (0, _) => format!("passed, {absent} not run yet"),
            _ => format!("**{failed} failed**"),
        }
    }
}

/// The page.
pub fn page(root: &Path) -> String {
    let tests = tests(root);
    let last = std::fs::read_to_string(root.join("docs/last-run.txt")).unwrap();
    let last = LastRun::parse(&last);
    let row = |id: &str| format!("{} | {} |", cell(&tests, id), last.of(tests.get(id)));
    let mut text = HEAD.replace("RUN", &last.what);
    for (number, fault, promise) in FAULTS {
        let row = row(&format!("F{number}"));
        let _ = writeln!(text, "| {number} | {fault} | {promise} | {row}");
    }
    text.push_str(BETWEEN);
    for (id, attack) in ATTACKS {
        let _ = writeln!(text, "| {id} | {attack} | {}", row(id));
    }
    text.push_str(CHAOS);
    text
}

/// Rows that no test carries.
pub fn open(root: &Path) -> Vec<String> {
    let tests = tests(root);
    let faults = FAULTS.iter().map(|(number, ..)| format!("F{number}"));
    let all = faults.chain(ATTACKS.iter().map(|(id, _)| (*id).to_owned()));
    all.filter(|id| !tests.contains_key(id)).collect()
}

fn cell(tests: &BTreeMap<String, BTreeSet<Test>>, id: &str) -> String {
    let Some(found) = tests.get(id) else { return "**open**".to_owned() };
    let one = |(path, name): &Test| format!("`{name}` ({})", how(path));
    found.iter().map(one).collect::<Vec<_>>().join("<br>")
}

/// How a test goes about it, by where it stands.
fn how(path: &str) -> &'static str {
    const HOW: &[(&str, &str)] = &[
        ("tests/it/sim", "simulation"),
        ("tests/it/e2e", "binary, engine"),
        ("tests/it/hostile", "binary, engine"),
        ("tests/it/engine_contract", "fake and engine"),
        ("tests/it/ledger_crash", "process, disk"),
        ("tests/it/cli", "binary"),
        ("tests/it/s3", "S3 servers"),
        ("src/plan", "decision"),
        ("src/spec", "decision"),
        ("src/sync", "decision"),
        ("src/model", "decision"),
        ("src/workspace", "file system"),
        ("src/ledger", "disk"),
    ];
    HOW.iter().find(|(start, _)| path.starts_with(start)).map_or("unit", |(_, how)| how)
}

/// All tests by the rows that their names begin with: `t6_f38_f39_fifos_block_nobody`.
fn tests(root: &Path) -> BTreeMap<String, BTreeSet<Test>> {
    let known: BTreeSet<String> = FAULTS
        .iter()
        .map(|(number, ..)| format!("F{number}"))
        .chain(ATTACKS.iter().map(|(id, _)| (*id).to_owned()))
        .collect();
    let mut found: BTreeMap<String, BTreeSet<Test>> = BTreeMap::new();
    let mut pending = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let short = path.strip_prefix(root).unwrap().to_str().unwrap();
            for name in tests_of(&text) {
                for id in ids(name).filter(|id| known.contains(id)) {
                    found.entry(id).or_default().insert((short.to_owned(), name.to_owned()));
                }
            }
        }
    }
    found
}

/// Names of functions below an attribute that makes them tests.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
            return None;
        }
        let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))?;
        let name = rest.split('(').next();
        if std::mem::take(&mut is_test) { name } else { None }
    })
}

/// The rows in a name: words of a letter and a number before the first other word, `fault_38` too.
fn ids(name: &str) -> impl Iterator<Item = String> {
    let name = name.replace("fault_", "f");
    let words: Vec<String> = name.split('_').map(str::to_ascii_uppercase).collect();
    words.into_iter().take_while(|word| {
        let mut letters = word.chars();
        letters.next().is_some_and(char::is_alphabetic)
            && word.len() > 1
            && letters.all(|letter| letter.is_ascii_digit())
    })
}

#[test]
fn the_rows_in_a_name_are_found_and_only_tests_count() {
    let of = |name: &str| ids(name).collect::<Vec<_>>();
    assert_eq!(of("t6_f38_f39_fifos_block_nobody"), ["T6", "F38", "F39"]);
    assert_eq!(of("t10_fault_42_what_is_read"), ["T10", "F42"]);
    assert_eq!(of("a_f1_car"), [""; 0]);
    let text = "#[test]\nfn f1_a() {}\nfn f2_b() {}\n  #[tokio::test]\n  async fn f3_c() {}\n";
    assert_eq!(tests_of(text).collect::<Vec<_>>(), ["f1_a", "f3_c"]);
}

#[test]
fn a_row_is_as_good_as_its_worst_test() {
    let last = LastRun::parse("# a comment\nrun today\nok f1_a\nFAILED f1_b\nok f2_c\n");
    let of = |names: &[&str]| {
        let tests = names.iter().map(|name| (String::new(), (*name).to_owned())).collect();
        last.of(Some(&tests))
    };
    assert_eq!(last.what, "today");
    assert_eq!(of(&["f1_a", "f2_c"]), "passed");
    assert_eq!(of(&["f1_a", "f1_b", "f9_z"]), "**1 failed**");
    assert_eq!(of(&["f1_a", "f9_z"]), "passed, 1 not run yet");
    assert_eq!(of(&["f9_z"]), "not run yet");
}

const HEAD: &str = "\
# Faults and attacks, and their tests

<!-- Made by tests/it/docs/faults.rs from the names of the tests; `scripts/docs` writes it. -->

What docket survives and refuses, row by row, each with the tests that hold it to that. A test carries the number of
its row in its name; all of them run in `scripts/test`, and a row without a test fails it. How a test goes about it
stands behind it: *decision* (pure, text in and out), *simulation* (the real operator over fakes, by seeds), *file
system*, *disk* and *process* (the module against the real thing, killed or without power), *fake and engine* (one
contract for both), *S3 servers*, *binary* and *binary, engine* (as a user runs it). The results are those of the last
whole run that was recorded: RUN.

The promises: **Keep** no acknowledged byte of a tenant is lost · **Hold** missing, failed or odd information never
destroys · **One** at most one live container a session · **Back** as wished within one pass and the capped back-off
after the fault ends · **Ours** what is foreign stays untouched · **Alone** only that session is affected, and says so ·
**Sure** what was acknowledged survives power loss.

## Faults

| # | fault | promise | tests | last result |
|---|---|---|---|---|
";

const BETWEEN: &str = "
## Attacks

What is promised and what is not is in [Security](security.md).

| id | attack | tests | last result |
|---|---|---|---|
";

const CHAOS: &str = "
## All at once

`scripts/chaos --minutes N --seed S` lets sessions come, change and go while operator, gate, engine and store are killed,
the disk fills up, ports are taken, and containers are killed, removed, stopped and paused by hand. A model remembers what
tenants were told is written. At the end every session must be as wished, every byte in the store, and no container,
directory, record or doubled port left. `scripts/test` runs a minute of it, `LONG=1 scripts/test` ten.

A run of 620 s with seed 3, on two cores that others used too, without `--live-restore`: 1,629 steps, 193 specs written and
49 removed; the operator was killed 107 times, the gate 31, the engine 26, the store 41; the disk was full 29 times, a
quarter of the ports taken 46 times; 38 containers were killed, 21 removed, 15 stopped and 24 paused by hand. Of 352 edits
275 were acknowledged, the others not answered or not sent. Three seconds after the last fault all was as wished; all
acknowledged edits were in the store, nothing was left over, and there was no conflict copy.

A run of an hour with seed 11, on two cores that builds and tests used too, without `--live-restore`: 7,929 steps, 874 specs
written and 218 removed; the operator was killed 548 times, the gate 170, the engine 132, the store 185; the disk was full 143
times, a quarter of the ports taken 182 times; 153 containers were killed, 137 removed, 80 stopped and 97 paused by hand; 146
large files were read. Of the edits 1,530 were acknowledged, 10 refused, 197 not answered and 2,111 not sent, for nobody was
there. All was as wished at once after the last fault; 1,346 files of 3.8 MB were compared, all acknowledged edits were among
them, nothing was left over, and there was no conflict copy. One container that the dying engine had left half made was swept.
Fourteen times whoever answered at an address that the engine had just named did not say that he was the tenant that was
asked: nothing was then written or read. Why is not known: an answer that broke off, or rules and proxies of an engine that
was killed; it did not happen in 400 s more.

Before that, without that question, an hour with the same seed missed two edits, and another run read another tenant's large
file: they had been asked of an address where somebody else was by then. What was looked for in docket instead was found in the
S3 server: of two conditional writes made on the same manifest at once it lets both through, 222 times of 300, and docket now
takes no manifest that was written so for deletions.

Two earlier runs of an hour (seeds 5 and 7) lost no acknowledged byte and did not end clean, for what the S3 server and the engine
leave when they are killed; that is now mended by the run before they start again, and counted.
";
