//! What may be in Cargo.lock, and that every exception of deny.toml has its reason: the part of
//! cargo-deny that needs no cargo-deny.

use std::fs;
use std::path::Path;

/// Crates that are refused below a version, and why.
const AT_LEAST: &[(&str, [u64; 3], &str)] = &[
    ("h2", [0, 3, 27], "rusoto_core pulls it; earlier ones fall to a storm of resets"),
    ("ring", [0, 17, 12], "RUSTSEC-2025-0009"),
    ("rustls", [0, 23, 18], "RUSTSEC-2024-0399"),
];

/// Crates that must not come in at all, and why.
const NEVER: &[(&str, &str)] = &[
    ("aws-lc-sys", "rustls runs on ring here"),
    ("openssl-src", "a vendored OpenSSL would have to be followed for its advisories"),
];

#[test]
fn no_locked_crate_is_known_to_be_vulnerable() {
    let packages = packages(&read("Cargo.lock"));
    assert!(packages.iter().any(|(name, _)| name == "docket"), "Cargo.lock is not understood");
    let mut wrong = Vec::new();
    for (name, version) in &packages {
        for (known, least, why) in AT_LEAST {
            if name == known && numbers(version) < *least {
                wrong.push(format!("{name} {version}: {why}"));
            }
        }
        for (known, why) in NEVER {
            if name == known {
                wrong.push(format!("{name} {version}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_locked_crate_comes_from_crates_io() {
    let lock = read("Cargo.lock");
    let strange: Vec<&str> = lock
        .lines()
        .filter(|line| line.starts_with("source = "))
        .filter(|line| !line.contains("registry+https://github.com/rust-lang/crates.io-index"))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn every_exception_of_deny_toml_has_its_reason() {
    let wrong = exceptions_without_reason(&read("deny.toml"));
    assert!(wrong.is_empty(), "without a reason:\n{}", wrong.join("\n"));
}

#[test]
fn an_exception_without_a_reason_is_found() {
    let text = "[advisories]\nignore = [\n  { id = \"A\", reason = \"why\" },\n  \"RUSTSEC-1\",\n  \
                { id = \"B\", reason = \"\" },\n]\n[bans]\nskip = [{ crate = \"x\" }]\n\
                deny = []\nallow = [\n  \"MIT\",\n]\n";
    assert_eq!(
        exceptions_without_reason(text),
        ["\"RUSTSEC-1\",", "{ id = \"B\", reason = \"\" },", "[{ crate = \"x\" }]"]
    );
}

#[test]
fn versions_are_compared_as_numbers() {
    assert!(numbers("0.3.9") < numbers("0.3.27"));
    assert!(numbers("0.17.14+build.1") > [0, 17, 12]);
}

/// The entries of the lists in which cargo-deny takes exceptions that do not say why.
fn exceptions_without_reason(deny: &str) -> Vec<String> {
    const LISTS: [&str; 6] = ["ignore", "deny", "skip", "skip-tree", "exceptions", "clarify"];
    let mut inside = false;
    let mut wrong = Vec::new();
    for line in deny.lines() {
        let line = line.trim();
        let mut entry = line;
        if let Some((name, value)) = line.split_once('=')
            && LISTS.contains(&name.trim())
            && value.trim().starts_with('[')
        {
            inside = true;
            entry = value.trim();
        }
        if !inside {
            continue;
        }
        let is_entry = entry.contains(['{', '"']);
        let said = entry.split_once("reason = \"").is_some_and(|(_, why)| !why.starts_with('"'));
        if is_entry && !said {
            wrong.push(entry.to_owned());
        }
        if entry.ends_with(']') {
            inside = false;
        }
    }
    wrong
}

/// (name, version) of each package of a Cargo.lock.
fn packages(lock: &str) -> Vec<(String, String)> {
    let value = |line: &str, key: &str| {
        line.strip_prefix(key).map(|rest| rest.trim_matches('"').to_owned())
    };
    let mut found = Vec::new();
    let mut name = String::new();
    for line in lock.lines() {
        if let Some(this) = value(line, "name = ") {
            name = this;
        } else if let Some(version) = value(line, "version = ")
            && !name.is_empty()
        {
            found.push((std::mem::take(&mut name), version));
        }
    }
    found
}

fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '+', '-']).map(|part| part.parse().unwrap_or(0));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}
