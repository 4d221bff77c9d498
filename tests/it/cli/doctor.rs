//! `docket doctor`, with an operator and without.

use super::{Fake, docket_in, ended};

#[test]
fn the_doctor_says_when_it_looks_at_the_defaults() {
    let place = tempfile::tempdir().unwrap();
    let doctor = || {
        let out = docket_in(place.path()).args(["doctor", "--docker", "unix:///none"]).output();
        let (found, _) = ended(&out.unwrap(), 1);
        let config = found.lines().find(|line| line.split_whitespace().nth(1) == Some("config"));
        config.unwrap().to_owned()
    };
    let config = doctor();
    assert!(config.contains("no docket.yaml here: the defaults are checked"), "{config}");
    std::fs::write(place.path().join("docket.yaml"), "tick: 5s\n").unwrap();
    let config = doctor();
    assert!(config.contains("docket.yaml is fine"), "{config}");
}

#[test]
fn the_doctor_asks_the_operator_and_fails_with_it() {
    let fake = Fake::start();
    let (out, _) = ended(&fake.docket(&["doctor", "--ports", "1-65535"]), 1);
    assert!(out.contains("scripted") && out.contains("start it"), "{out}");
    assert!(out.contains("openat2"), "{out}");
}
