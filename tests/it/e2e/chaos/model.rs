//! What was wished and what was acknowledged: the memory that docket is measured by.

use std::collections::{BTreeMap, BTreeSet};

use docket::testing::faults::mix;

use super::place::Asked;
use crate::e2e::rig::session;

/// Numbers that follow from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(mix(seed))
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % below
    }
}

#[derive(Default)]
struct Tenant {
    /// Whether it is to be stopped; `None`: there is to be none.
    wish: Option<bool>,
    revision: u64,
    /// What a tenant was told is written.
    acknowledged: BTreeMap<String, String>,
    /// Files whose last write failed: nobody knows what they hold.
    doubtful: BTreeSet<String>,
    /// Files of which one may still come, from a container that is paused.
    unknown: BTreeSet<String>,
}

pub struct Model(Vec<Tenant>);

impl Model {
    pub fn new(sessions: u64) -> Model {
        Model((0..sessions).map(|_| Tenant::default()).collect())
    }

    pub fn wish(&mut self, who: u64, stopped: bool) {
        let tenant = &mut self.0[who as usize];
        tenant.wish = Some(stopped);
        tenant.revision += 1;
    }

    pub fn wished(&self, who: u64) -> Option<bool> {
        self.0[who as usize].wish
    }

    /// Whether there was one.
    pub fn forget(&mut self, who: u64) -> bool {
        self.0[who as usize].wish.take().is_some()
    }

    pub fn spec(&self, who: u64) -> String {
        let Tenant { wish, revision, .. } = &self.0[who as usize];
        let state = if *wish == Some(true) { "Stopped" } else { "Running" };
        // Every third edit needs another container.
        let env = revision / 3;
        let more = format!("  state: {state}\n  container: {{env: {{REVISION: \"{env}\"}}}}");
        session(&format!("s{who}"), &format!("u{who}"), "c", &more)
    }

    pub fn written(&mut self, who: u64, path: String, text: String, answer: &Asked) {
        let tenant = &mut self.0[who as usize];
        match answer {
            Asked::Answer(200, _) => {
                tenant.doubtful.remove(&path);
                tenant.acknowledged.insert(path, text);
            }
            Asked::Answer(..) => drop(tenant.doubtful.insert(path)),
            // It may be carried out after a later one.
            Asked::Unknown => drop(tenant.unknown.insert(path)),
            Asked::Unsent | Asked::Another { .. } => (),
        }
    }

    /// What was acknowledged and is not there.
    pub fn missing(&self, who: u64, stored: &BTreeMap<String, Vec<u8>>) -> Option<String> {
        let tenant = &self.0[who as usize];
        let in_doubt = |path| tenant.doubtful.contains(path) || tenant.unknown.contains(path);
        let known = tenant.acknowledged.iter().filter(|(path, _)| !in_doubt(*path));
        let lost = known
            .filter(|(path, text)| stored.get(*path).is_none_or(|bytes| bytes != text.as_bytes()));
        let lost: Vec<String> = lost
            .map(|(path, text)| {
                let is = stored.get(path).map(|bytes| String::from_utf8_lossy(bytes));
                let short = |text: &str| text.chars().take(20).collect::<String>();
                format!("{path}: {:?}, not {:?}", is.map(|is| short(&is)), short(text))
            })
            .collect();
        (!lost.is_empty()).then(|| format!("u{who}: {lost:?}"))
    }
}

#[test]
fn what_chaos_was_told_is_missed_when_it_is_lost_or_changed() {
    let mut model = Model::new(1);
    let path = || "a.txt".to_owned();
    let told = Asked::Answer(200, String::new());
    let stored = |text: &str| BTreeMap::from([(path(), text.as_bytes().to_vec())]);
    model.written(0, path(), "one".to_owned(), &told);
    assert!(model.missing(0, &BTreeMap::new()).is_some());
    assert!(model.missing(0, &stored("two")).is_some());
    assert_eq!(model.missing(0, &stored("one")), None);
    model.written(0, path(), "two".to_owned(), &Asked::Unsent);
    assert!(model.missing(0, &stored("two")).is_some(), "it never arrived");
    model.written(0, path(), "two".to_owned(), &Asked::Answer(500, String::new()));
    assert_eq!(model.missing(0, &stored("tw")), None, "nobody was told what it holds");
    model.written(0, path(), "three".to_owned(), &told);
    assert!(model.missing(0, &stored("tw")).is_some());
}
