//! The shape of the house, as a test: who may call whom, and who may touch the outside.
//! ARCHITECTURE.md says why; this says no.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first. A module names only modules of lower floors.
const FLOORS: &[&[&str]] = &[
    &["model"],
    &["spec", "plan", "sync", "status"],
    &["world", "crash", "contain", "lock"],
    &[
        "docker",
        "objects",
        "workspace",
        "ledger",
        "watch",
        "probe",
        "gate",
        "git",
        "clock",
        "testing",
    ],
    &["observe", "apply"],
    &["operator", "api"],
    &["cli", "config", "main"],
];

/// Modules that may name one of their own floor: (who, whom, why).
const NEIGHBOURS: &[(&str, &str, &str)] = &[
    ("plan", "spec", "what is compared is the fingerprint that a spec gives"),
    ("status", "plan", "an explanation tells what the plan would do"),
    ("apply", "observe", "what a step touched is looked at again"),
    ("api", "operator", "the API hands requests to the loop and reads its last view"),
    ("cli", "config", "commands find the socket and the state directory by it"),
    ("main", "cli", "main only starts it"),
    ("main", "config", "main only reads it"),
];

/// Decisions: no iteration order that changes from run to run.
const PURE: &[&str] = &["model", "spec", "plan", "sync", "status", "world"];

/// Further folders, each with its reason.
type Also = &'static [(&'static str, &'static str)];

/// Outside crates and the one folder that may name each.
const KEEPERS: &[(&str, &str, Also)] = &[
    ("bollard", "docker", &[]),
    ("docker_credential", "docker", &[]),
    ("sled", "ledger", &[]),
    ("rusoto_core", "objects", &[]),
    ("rusoto_credential", "objects", &[]),
    ("rusoto_s3", "objects", &[]),
    ("rustls", "objects", &[]),
    ("hyper_rustls", "objects", &[]),
    ("rustls_native_certs", "objects", &[]),
    ("xml", "objects", &[]),
    ("notify", "watch", &[]),
    (
        "serde_yaml",
        "spec",
        &[("config", "docket.yaml is YAML too"), ("cli", "`-o yaml` prints it")],
    ),
    (
        "schemars",
        "spec",
        &[
            ("model", "derived only: what the API answers is described by the types themselves"),
            ("plan", "derived only, as in model"),
            ("status", "derived only, as in model"),
            ("operator", "derived only, as in model"),
            ("api", "derived only, and the document that has them all"),
        ],
    ),
    (
        "backoff",
        "apply",
        &[
            ("objects", "waits between attempts at the store"),
            ("git", "waits between looks at a repository that fails"),
        ],
    ),
    ("axum", "api", &[]),
    ("prometheus_client", "api", &[]),
    ("clap", "cli", &[("config", "every key is a flag")]),
    ("clap_complete", "cli", &[]),
    ("comfy_table", "cli", &[]),
    (
        "rustix",
        "workspace",
        &[
            ("gate", "fanotify's neighbours: openat2, flock"),
            ("ledger", "its own lock and fsync, which sled does not have"),
            ("objects", "the directory store: durable renames"),
            ("watch", "reads spec files without following links"),
            ("git", "ends what git started; a revision is on the disk before it is in force"),
            ("cli", "doctor tries openat2 and asks for free space"),
            ("lock", "flock, for all who may run once only"),
        ],
    ),
    (
        "libc",
        "gate",
        &[
            ("workspace", "extended attributes and what rustix does not have"),
            ("cli", "mallopt at the start"),
        ],
    ),
];

/// Longest file one reads in one go.
const LINES_MAX: usize = 800;
/// Files over that: (path, why).
const LONG: &[(&str, &str)] = &[];

#[test]
fn a_module_names_only_lower_floors() {
    let mut wrong = Vec::new();
    for file in shipped() {
        let Some(floor) = floor_of(&file.module) else {
            wrong.push(format!("{}: `{}` has no floor: add it", file.path, file.module));
            continue;
        };
        for used in file.named_modules() {
            let lower = floor_of(&used).is_some_and(|other| other < floor);
            let neighbour =
                NEIGHBOURS.iter().any(|(who, whom, _)| *who == file.module && *whom == used);
            if !lower && !neighbour && used != file.module {
                wrong.push(format!("{}: `{}` may not name `{used}`", file.path, file.module));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_outside_crate_has_one_keeper() {
    let mut wrong = Vec::new();
    for file in shipped() {
        for (name, keeper, others) in KEEPERS {
            let allowed =
                file.module == *keeper || others.iter().any(|(who, _)| *who == file.module);
            if !allowed && file.names_crate(name) {
                wrong.push(format!("{}: `{name}` belongs to src/{keeper}", file.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn decisions_do_not_depend_on_the_order_of_a_hash() {
    let wrong: Vec<String> = shipped()
        .iter()
        .filter(|file| PURE.contains(&file.module.as_str()))
        .flat_map(|file| {
            ["HashMap", "HashSet"]
                .into_iter()
                .filter(|name| file.tokens.iter().any(|token| token == name))
                .map(|name| format!("{}: {name}: use its BTree sibling", file.path))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_why_it_exists() {
    let silent: Vec<String> = all_sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| format!("{path}: begin with a //! header"))
        .collect();
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<String> = all_sources()
        .into_iter()
        .filter(|(path, text)| {
            text.lines().count() > LINES_MAX && !LONG.iter().any(|(known, _)| known == path)
        })
        .map(|(path, text)| format!("{path}: {} lines, at most {LINES_MAX}", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn no_long_file_is_excused_for_longer_than_it_is_long() {
    for (path, _) in LONG {
        let lines = fs::read_to_string(root().join(path)).unwrap().lines().count();
        assert!(lines > LINES_MAX, "{path} is short enough now: take it from LONG");
    }
}

/// Code of `src/` that is shipped: comments, strings and test modules taken out.
struct File {
    path: String,
    module: String,
    tokens: Vec<String>,
    /// Names of the file's own module tree: `super::x` of one of them stays inside.
    children: BTreeSet<String>,
}

impl File {
    /// The modules of docket that this file names by `crate::`, `docket::` or `super::`.
    fn named_modules(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for at in 0..self.tokens.len() {
            let starts_path = at == 0 || self.tokens[at - 1] != "::";
            let head = self.tokens[at].as_str();
            let from_root = head == "crate" || (head == "docket" && self.module == "main");
            if from_root && starts_path && self.token(at + 1) == "::" {
                found.extend(first_names(&self.tokens[at + 2..]));
            } else if head == "super" && self.token(at + 1) == "::" {
                let outside = first_names(&self.tokens[at + 2..]);
                found.extend(outside.into_iter().filter(|name| !self.children.contains(name)));
            }
        }
        found.retain(|name| floor_of(name).is_some());
        found
    }

    /// Whether an outside crate is named: at the head of a path, or in `use` and `extern crate`.
    fn names_crate(&self, name: &str) -> bool {
        (0..self.tokens.len()).filter(|at| self.tokens[*at] == name).any(|at| {
            let before = if at == 0 { "" } else { self.token(at - 1) };
            let inside_path = before == "::" && at > 1 && is_word(self.token(at - 2));
            let heads_path = self.token(at + 1) == "::" && !inside_path;
            heads_path || before == "use" && !inside_path || before == "crate"
        })
    }

    fn token(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", String::as_str)
    }
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The first names of a path's rest: one, or those of a `{...}` group.
fn first_names(tokens: &[String]) -> Vec<String> {
    if tokens.first().is_none_or(|token| token != "{") {
        return tokens.first().filter(|token| is_word(token)).cloned().into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if depth == 1 && is_word(token) && ["{", ","].contains(&tokens[at - 1].as_str()) => {
                names.push(token.clone());
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn shipped() -> Vec<File> {
    let sources: BTreeMap<String, Vec<String>> = all_sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("src/") && path != "src/lib.rs")
        .map(|(path, text)| (path, tokens(&text)))
        .collect();
    let tests: Vec<String> =
        sources.iter().flat_map(|(path, tokens)| test_files(path, tokens)).collect();
    let modules: Vec<(String, BTreeSet<String>)> =
        sources.iter().map(|(path, tokens)| (module_of(path), declared_modules(tokens))).collect();
    sources
        .into_iter()
        .filter(|(path, _)| !tests.iter().any(|test| is_below(path, test)))
        .map(|(path, tokens)| {
            let module = module_of(&path);
            let own = modules.iter().filter(|(name, _)| *name == module);
            let children = own.flat_map(|(_, declared)| declared.clone()).collect();
            File { path, module, tokens: without_tests(&tokens), children }
        })
        .collect()
}

/// `src/plan/mod.rs` and `src/plan.rs` belong to `plan`.
fn module_of(path: &str) -> String {
    let first = path.trim_start_matches("src/").split('/').next().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn is_below(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn declared_modules(tokens: &[String]) -> BTreeSet<String> {
    tokens.windows(2).filter(|pair| pair[0] == "mod").map(|pair| pair[1].clone()).collect()
}

/// Where each `#[cfg(test)] mod` stands: (index of `#`, index of the token after the name).
fn test_modules(tokens: &[String]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        if !matches_at(tokens, start, &["#", "[", "cfg", "("]) {
            continue;
        }
        let mut at = start;
        let mut for_tests = false;
        while tokens.get(at).is_some_and(|token| token == "#") {
            let end = closing(tokens, at + 1);
            for_tests |= tokens[at..end].iter().any(|token| token == "test")
                && !tokens[at..end].iter().any(|token| token == "not");
            at = end + 1;
        }
        if tokens.get(at).is_some_and(|token| token == "pub") {
            at += 1;
            if tokens.get(at).is_some_and(|token| token == "(") {
                at = closing(tokens, at) + 1;
            }
        }
        if for_tests && tokens.get(at).is_some_and(|token| token == "mod") {
            found.push((start, at + 2));
        }
    }
    found
}

/// The module paths (without `.rs`) of `#[cfg(test)] mod name;` declared in a file.
fn test_files(path: &str, tokens: &[String]) -> Vec<String> {
    let folder = match path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix("/main.rs")) {
        Some(folder) => folder,
        None => path.trim_end_matches(".rs"),
    };
    test_modules(tokens)
        .into_iter()
        .filter(|(_, after)| tokens.get(*after).is_some_and(|token| token == ";"))
        .map(|(_, after)| format!("{folder}/{}", tokens[after - 1]))
        .collect()
}

fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    for (start, after) in test_modules(tokens) {
        if start < at {
            continue;
        }
        kept.extend_from_slice(&tokens[at..start]);
        let inline = tokens.get(after).is_some_and(|token| token == "{");
        at = if inline { closing(tokens, after) + 1 } else { after + 1 };
    }
    kept.extend_from_slice(&tokens[at.min(tokens.len())..]);
    kept
}

/// The index of the bracket that closes the one at `open`.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len() - 1
}

fn matches_at(tokens: &[String], at: usize, wanted: &[&str]) -> bool {
    wanted.iter().enumerate().all(|(n, token)| tokens.get(at + n).is_some_and(|t| t == token))
}

/// Words, `::` and single signs; no comments, no strings, no characters.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = string_length(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            found.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                found.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    found
}

/// Length of the string, raw string or character literal that `rest` begins with.
fn string_length(rest: &str) -> Option<usize> {
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    let body = &rest[prefix..];
    if prefix > 0 && rest[..prefix].contains('r') && body.starts_with(['#', '"']) {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let open = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return open.find(&end).map(|at| prefix + hashes + 1 + at + end.len());
    }
    if prefix <= 1 && body.starts_with('"') {
        return quoted_length(body, '"').map(|length| prefix + length);
    }
    // A lifetime has no closing quote right behind its first character.
    if prefix <= 1 && body.starts_with('\'') {
        let inner = body[1..].chars().next()?;
        let closes = inner == '\\' || body[1 + inner.len_utf8()..].starts_with('\'');
        return if closes { quoted_length(body, '\'').map(|length| prefix + length) } else { None };
    }
    None
}

fn quoted_length(body: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        if c == quote && !escaped {
            return Some(at + 1);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// Every Rust file of the repository but build output: (path from the root, text).
fn all_sources() -> Vec<(String, String)> {
    let mut pending: Vec<PathBuf> = ["src", "tests", "benches", "examples", "fuzz"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    let mut found = BTreeMap::new();
    while let Some(folder) = pending.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    pending.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let short = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.insert(short, text);
            }
        }
    }
    assert!(found.len() > 3, "the sources are not where this test looks");
    found.into_iter().collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reader_of_these_rules_is_not_fooled() {
    let text = r##"
        //! crate::docker in a comment
        use crate::{model::{Record, api}, world};
        use super::operator::run;
        const A: &str = "crate::api"; const B: &str = r#"crate::cli"#; const C: char = '"';
        fn f<'a>(x: &'a sled::Db) { crate::observe::look(); a::notify::b() }
        #[cfg(test)]
        mod tests { use crate::gate; use bollard::Docker; }
        #[cfg(not(test))]
        mod real { use crate::watch; }
    "##;
    let file = File {
        path: "src/plan.rs".to_owned(),
        module: "plan".to_owned(),
        tokens: without_tests(&tokens(text)),
        children: BTreeSet::new(),
    };
    let named: Vec<String> = file.named_modules().into_iter().collect();
    assert_eq!(named, ["model", "observe", "operator", "watch", "world"]);
    assert!(file.names_crate("sled"));
    assert!(!file.names_crate("bollard"));
    assert!(!file.names_crate("notify"));
}
