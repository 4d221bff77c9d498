//! The book in `docs/` is true: pages that can be made from the code are made from it, every reason has its entry, every
//! example is acceptable, every command is one, every link leads somewhere. What needs an engine is in `e2e/semantics.rs`.

mod faults;
mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use docket::model::{Phase, Reason};
use expect_test::expect_file;

#[test]
fn the_page_of_fields_is_made_from_the_schema() {
    expect_file!["../../docs/src/fields.md"].assert_eq(&pages::fields());
}

#[test]
fn the_page_of_the_configuration_is_made_from_the_keys() {
    expect_file!["../../docs/src/configuration.md"].assert_eq(&pages::configuration());
}

#[test]
fn the_page_of_faults_is_made_from_the_tests_and_none_is_open() {
    expect_file!["../../docs/src/faults.md"].assert_eq(&faults::page(&root()));
    assert_eq!(faults::open(&root()), [""; 0]);
}

#[test]
fn every_reason_has_its_entry_and_no_entry_is_without_a_reason() {
    let text = page("conditions.md");
    let told: Vec<&str> = rows_below(&text, "## Reasons");
    let known: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    let missing: Vec<_> = known.iter().filter(|name| !told.contains(&name.as_str())).collect();
    let made_up: Vec<_> = told.iter().filter(|name| !known.iter().any(|k| k == *name)).collect();
    assert!(
        missing.is_empty() && made_up.is_empty(),
        "missing: {missing:?}, no reason: {made_up:?}"
    );
    assert_eq!(told.len(), known.len(), "a reason is told twice");
}

#[test]
fn no_reason_is_told_that_nothing_ever_gives() {
    let mut given = String::new();
    let mut pending = vec![root().join("src")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            match name {
                "tests" | "tests.rs" | "testing" | "condition.rs" => (),
                _ if path.is_dir() => pending.push(path),
                _ => given += &read(&path),
            }
        }
    }
    let never = |reason: &&Reason| !given.contains(&format!("Reason::{reason}"));
    let never: Vec<_> = Reason::ALL.iter().filter(never).collect();
    assert!(never.is_empty(), "{never:?}");
}

#[test]
fn every_condition_and_phase_has_its_entry() {
    let text = page("conditions.md");
    let source = read(&root().join("src/model/condition.rs"));
    for (heading, name) in [("## Conditions", "ConditionType"), ("## Phases", "Phase")] {
        let known = variants(&source, name);
        let told = rows_below(&text, heading);
        assert_eq!(told.iter().collect::<BTreeSet<_>>(), known.iter().collect(), "{heading}");
    }
    assert!(variants(&source, "Phase").contains(&Phase::CrashLoop.to_string().as_str()));
}

#[test]
fn every_example_in_the_documents_is_acceptable() {
    let place = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for (name, text) in documents() {
        for block in
            blocks(&text).iter().filter(|block| block.info.split(' ').next() == Some("yaml"))
        {
            let file = place.path().join("example.yaml");
            fs::write(&file, &block.text).unwrap();
            let is_spec = block.text.contains("apiVersion: docket.dev/v1");
            let is_config = block.text.starts_with("# docket.yaml");
            let mut docket = docket(place.path());
            docket.env("DOCKET_ALLOW_SECRET_FILES", "/etc/docket/secrets");
            match (is_spec, is_config) {
                (true, _) => docket.args(["validate", "example.yaml"]),
                (_, true) => docket.args(["validate", "--config", "example.yaml", "fine.yaml"]),
                (false, false) => continue,
            };
            fs::write(place.path().join("fine.yaml"), FINE).unwrap();
            let out = docket.output().unwrap();
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{name}:{}: {said}\n{}", block.line, block.text);
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} examples were found");
}

#[test]
fn every_command_in_the_documents_is_one() {
    let place = tempfile::tempdir().unwrap();
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (name, text) in documents() {
        let blocks = blocks(&text);
        let shells = ["sh", "console", "bash"];
        let typed = blocks.iter().filter(|block| shells.contains(&block.info.as_str()));
        let all = typed.map(|block| block.text.as_str()).chain(spans(&text));
        for (command, flags) in all.flat_map(commands) {
            let help = helps.entry(command.clone()).or_insert_with(|| {
                let out = docket(place.path()).args([&command, "--help"]).output().unwrap();
                String::from_utf8(out.stdout).unwrap()
            });
            if help.is_empty() {
                wrong.push(format!("{name}: docket {command}"));
            }
            for flag in flags.iter().filter(|flag| !knows(help, flag)) {
                wrong.push(format!("{name}: docket {command} {flag}"));
            }
        }
    }
    assert!(helps.len() > 20, "the commands were not found: {:?}", helps.keys());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_in_the_summary() {
    let mut wrong = Vec::new();
    for (name, text) in documents() {
        let here = root().join(&name);
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty()
                && !file.contains("://")
                && !here.parent().unwrap().join(file).exists()
            {
                wrong.push(format!("{name}: {link}"));
            }
            let target =
                if file.is_empty() { here.clone() } else { here.parent().unwrap().join(file) };
            if let Some((_, anchor)) = link.split_once('#')
                && !file.contains("://")
                && target.exists()
                && !anchors(&read(&target)).contains(anchor)
            {
                wrong.push(format!("{name}: {link}: no such heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let summary = links(&page("SUMMARY.md"));
    let pages: BTreeSet<String> = pages().into_iter().filter(|name| name != "SUMMARY.md").collect();
    assert_eq!(summary.into_iter().collect::<BTreeSet<_>>(), pages);
}

const FINE: &str = "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {name: a}\nspec: {container: {image: a}}\n";

/// A fenced block of a document.
pub struct Block {
    /// What stands behind the fence.
    pub info: String,
    /// Line of the fence, from 1.
    pub line: usize,
    pub text: String,
}

/// The fenced blocks of a document.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, Some(info)) => {
                open = Some(Block { info: info.to_owned(), line: number + 1, text: String::new() });
            }
            (None, None) => (),
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

pub fn page(name: &str) -> String {
    read(&root().join("docs/src").join(name))
}

/// The names of the book's pages.
fn pages() -> Vec<String> {
    let entries = fs::read_dir(root().join("docs/src")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "md")).collect()
}

/// README and all pages: (path from the root, text).
fn documents() -> Vec<(String, String)> {
    let mut names = vec!["README.md".to_owned(), "examples/README.md".to_owned()];
    names.extend(pages().into_iter().map(|name| format!("docs/src/{name}")));
    names.sort();
    names.into_iter().map(|name| (name.clone(), read(&root().join(&name)))).collect()
}

/// The names in the first column of the tables below a heading, up to the next of its rank.
fn rows_below<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, after) = text.split_once(&format!("\n{heading}\n")).expect("the heading is there");
    let section = after.split("\n## ").next().unwrap_or_default();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// The variants of an enum, from its source.
fn variants<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let (_, after) =
        source.split_once(&format!("pub enum {name} {{\n")).expect("the enum is there");
    let body = after.split("\n}").next().unwrap_or_default();
    body.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
        .map(|line| line.trim_end_matches(','))
        .collect()
}

/// Code within lines, outside of blocks.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    let lines = text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        inside ^= is_fence;
        !inside && !is_fence
    });
    lines.flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// What is typed after `docket`: the command and its flags. Lines of output are left out.
fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let joined = text.replace("\\\n", " ");
    let is_session = joined.lines().any(|line| line.starts_with("$ "));
    let mut found = Vec::new();
    for line in joined.lines() {
        let line = match (is_session, line.strip_prefix("$ ")) {
            (true, None) => continue,
            (_, Some(typed)) => typed,
            (false, None) => line,
        };
        let typed = line.split(" #").next().unwrap_or_default();
        for part in typed.split(['|', ';', '(', ')', '&']) {
            let mut words =
                part.split_whitespace().skip_while(|word| word.contains('=') || *word == "sudo");
            if !words.next().is_some_and(|word| word == "docket" || word.ends_with("/docket")) {
                continue;
            }
            let words: Vec<&str> = words.collect();
            let Some(command) = words.iter().find(|word| {
                word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
            }) else {
                continue;
            };
            let flags = words.iter().filter(|word| word.starts_with('-') && word.len() > 1);
            found.push(((*command).to_owned(), flags.map(|flag| (*flag).to_owned()).collect()));
        }
    }
    found
}

fn knows(help: &str, flag: &str) -> bool {
    let flag = flag.split('=').next().unwrap_or_default();
    help.split(|c: char| c.is_whitespace() || ",[=<".contains(c)).any(|word| word == flag)
}

/// The targets of a document's links, code left out.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        inside ^= line.starts_with("```");
        if inside {
            continue;
        }
        for rest in line.split("](").skip(1) {
            found.extend(rest.split(')').next().map(str::to_owned));
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
        .map(|line| line.chars().filter(|c| kept(*c)).collect())
        .collect()
}

fn docket(place: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_docket"));
    command.current_dir(place).env("COLUMNS", "400");
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reader_of_the_documents_is_not_fooled() {
    let text = "$ docket get alice -o json | jq .\nNAME docket plan\n$ FOO=1 docket --state x diff . # docket no\n";
    let found = commands(text);
    assert_eq!(found[0], ("get".to_owned(), vec!["-o".to_owned()]));
    assert_eq!(
        found[1].0, "x",
        "a flag's value before the command is not told from it: put flags behind"
    );
    assert_eq!(found.len(), 2);
    assert!(knows("  -o, --output <X>  how", "--output=json") && !knows("--outputs", "--output"));
    assert_eq!(links("[a](b.md#c) `x`\n```\n[n](o)\n```\n[d](e)"), ["b.md#c", "e"]);
    assert!(anchors("## What it's *for*: a `b`").contains("what-its-for-a-b"));
}
