//! What is decided anew after a change is what deciding everything anew gives; what is wrong is
//! told once.

use expect_test::expect;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::{Applied, Uid};
use crate::plan::{MinFree, Policy};
use crate::spec::read_source;
use crate::spec::{BEING_WRITTEN, NO_REVISION};

fn settings() -> Settings {
    Settings {
        policy: Policy {
            bounds: Bounds { ports: (8001, 8999), ..Bounds::default() },
            max_sessions: 0,
            max_per_user: 0,
            max_starts: 0,
            min_free: MinFree::Percent(5.0),
        },
        tick: std::time::Duration::from_secs(5),
        prune: PruneGuard { at_least: 2, percent: 50 },
        workspaces: "/ws".into(),
        trash_keep: std::time::Duration::from_hours(1),
    }
}

fn class(image: &str) -> String {
    format!(
        "{{apiVersion: docket.dev/v1, kind: SessionClass, metadata: {{name: legal}}, \
         spec: {{container: {{image: {image}}}}}}}"
    )
}

fn session(name: &str, case: &str, class: &str) -> String {
    format!(
        "{{apiVersion: docket.dev/v1, kind: Session, metadata: {{name: {name}}}, \
         spec: {{user: ann, case: {case}, class: {class}}}}}"
    )
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// A directory, what was applied, the records, and the wants of all that.
struct Scene {
    files: Shared<SourceFile>,
    /// As they were when they could be seen last: in trouble the watcher keeps what it knows.
    seen: Shared<SourceFile>,
    trouble: Option<String>,
    records: BTreeMap<SessionName, Arc<Record>>,
    settings: Settings,
    wants: Wants,
    now: Timestamp,
}

impl Scene {
    fn new() -> Scene {
        let (files, records) = (Shared::default(), BTreeMap::new());
        let wants = Wants::new(BTreeSet::new());
        Scene {
            files,
            seen: Shared::default(),
            trouble: None,
            records,
            settings: settings(),
            wants,
            now: at(0),
        }
    }

    fn write(&mut self, path: &str, text: &str) {
        self.files.insert(path, read_source(path, text.as_bytes()));
    }

    /// What is wanted and acceptable gets its record.
    fn admit(&mut self, name: &str) {
        let name = SessionName::parse(name).unwrap();
        let Some(want) = self.wants.decided.get(&name) else { return };
        let Want::Present { object, source, class_hash, resolved: Ok(resolved) } = &**want else {
            return;
        };
        let applied = Applied {
            generation: 1,
            object: (**object).clone(),
            class_hash: class_hash.clone(),
            resolved: (**resolved).clone(),
            image: None,
        };
        let record = Record::admit(Uid::from_bytes([7; 16]), applied, source.clone(), self.now);
        self.records.insert(name, Arc::new(record));
    }

    fn listing(&self) -> Sources {
        let files = if self.trouble.is_some() { self.seen.clone() } else { self.files.clone() };
        let trouble = self.trouble.clone();
        Sources { root: "specs".to_owned(), trouble, revision: String::new(), files }
    }

    fn decide(&mut self) -> BTreeSet<SessionName> {
        let names: BTreeSet<SessionName> =
            self.wants.claims.records().keys().chain(self.records.keys()).cloned().collect();
        for name in names {
            self.wants.heed(&name, self.records.get(&name));
        }
        let (sources, applied) = (self.listing(), BTreeMap::new());
        self.seen.clone_from(&sources.files);
        self.wants.decide(&Around {
            sources: Some(&sources),
            applied: &applied,
            settings: &self.settings,
            now: self.now,
        })
    }

    fn news(&mut self) -> String {
        self.decide();
        let line = |News { place, wrong, gone }: News| {
            format!("{} {place}: {wrong}\n", if gone { "-" } else { "+" })
        };
        self.wants.news().into_iter().map(line).collect()
    }
}

#[test]
fn what_is_wrong_with_the_sources_is_news_once_and_once_more_when_it_is_gone() {
    let mut scene = Scene::new();
    scene.write("class.yaml", &class("web"));
    scene.write("a.yaml", "kind: [");
    scene.write("b.yaml", &session("b", "one", "legal"));
    scene.write("c.yaml", &session("c", "one", "nope"));
    let first = scene.news();
    expect![[r#"
        + c.yaml: session/c: WorkspaceInUse: the workspace of ann and one belongs to session b
        + a.yaml: a.yaml:1:7: kind: invalid type: sequence, expected a YAML tag starting with '!'
    "#]]
    .assert_eq(&first);
    assert_eq!(scene.news(), "");
    let wait = SourceFile::Unreadable(BEING_WRITTEN.to_owned());
    scene.files.insert("d.yaml", wait);
    assert_eq!(scene.news(), "", "nothing is wrong with what is being written");
    scene.files.remove("d.yaml");
    scene.write("a.yaml", &session("a", "two", "legal"));
    scene.files.remove("c.yaml");
    scene.trouble = None;
    let mended = scene.news();
    expect![[r#"
        - c.yaml: session/c: WorkspaceInUse: the workspace of ann and one belongs to session b
        - a.yaml: a.yaml:1:7: kind: invalid type: sequence, expected a YAML tag starting with '!'
    "#]]
    .assert_eq(&mended);
    scene.trouble = Some("specs cannot be opened".to_owned());
    expect![[r#"
        + the watched directory: specs cannot be opened
    "#]]
    .assert_eq(&scene.news());
}

#[test]
fn that_a_repository_was_not_fetched_yet_is_no_news_but_that_it_is_gone_is() {
    let mut scene = Scene::new();
    let trouble = format!("/state/git/current {NO_REVISION}");
    scene.trouble = Some(trouble.clone());
    assert_eq!(scene.news(), "", "a first start");
    scene.trouble = None;
    scene.write("a.yaml", &session("a", "one", "legal"));
    scene.write("class.yaml", &class("web"));
    assert_eq!(scene.news(), "");
    scene.trouble = Some(trouble);
    expect![[r#"
        + the watched directory: /state/git/current is not there yet: no revision was fetched and found good
    "#]]
    .assert_eq(&scene.news());
}

#[test]
fn nobody_is_known_not_to_be_wanted_before_all_was_read() {
    let mut scene = Scene::new();
    let name = SessionName::parse("a").unwrap();
    let held = |scene: &Scene| matches!(*scene.wants.of(&name, None), Want::Held { .. });
    assert!(held(&scene), "nothing was listed");
    scene.write("b.yaml", "kind: [");
    scene.decide();
    assert!(held(&scene), "it may be in what cannot be read");
    scene.write("b.yaml", &session("b", "one", "legal"));
    scene.decide();
    assert!(matches!(*scene.wants.of(&name, None), Want::Gone { .. }));
    scene.trouble = Some("specs cannot be opened".to_owned());
    scene.decide();
    assert!(held(&scene), "nothing can be read");
}

#[test]
fn a_file_that_cannot_be_read_goes_on_owning_what_came_of_it() {
    let mut scene = Scene::new();
    scene.write("class.yaml", &class("web"));
    scene.write("a.yaml", &session("a", "one", "legal"));
    scene.decide();
    scene.admit("a");
    scene.decide();
    let owner = |scene: &Scene, key: &str| scene.wants.file_that_owns(key);
    for broken in ["kind: [", ""] {
        if broken.is_empty() {
            let unreadable = SourceFile::Unreadable("others can write it".to_owned());
            scene.files.insert("a.yaml", unreadable.clone());
            scene.files.insert("class.yaml", unreadable);
        } else {
            scene.write("a.yaml", broken);
            scene.write("class.yaml", broken);
        }
        scene.decide();
        assert_eq!(owner(&scene, "session/a").as_deref(), Some("a.yaml"));
        assert_eq!(owner(&scene, "sessionclass/legal").as_deref(), Some("class.yaml"));
    }
    scene.files.remove("a.yaml");
    scene.files.remove("class.yaml");
    scene.decide();
    assert_eq!(owner(&scene, "session/a"), None);
    assert_eq!(owner(&scene, "sessionclass/legal"), None);
}

#[test]
fn a_session_waits_for_a_class_that_may_be_in_a_file_that_is_being_written() {
    let mut scene = Scene::new();
    let wait = SourceFile::Unreadable(BEING_WRITTEN.to_owned());
    scene.write("a.yaml", &session("a", "one", "legal"));
    scene.files.insert("class.yaml", wait.clone());
    assert_eq!(scene.news(), "");
    let name = SessionName::parse("a").unwrap();
    assert!(matches!(*scene.wants.of(&name, None), Want::Held { .. }));
    scene.write("class.yaml", &class("web"));
    assert_eq!(scene.news(), "");
    assert!(matches!(*scene.wants.of(&name, None), Want::Present { resolved: Ok(_), .. }));
    scene.files.remove("class.yaml");
    let missing = scene.news();
    expect![[r#"
        + a.yaml: session/a: ClassNotFound: there is no class `legal`
    "#]]
    .assert_eq(&missing);
    scene.files.insert("other.yaml", wait);
    assert_eq!(scene.news(), "", "what was told stays so");
    scene.files.remove("other.yaml");
    assert_eq!(scene.news(), "");
}

#[test]
fn each_kind_of_trouble_is_told_where_it_stands() {
    let mut scene = Scene::new();
    scene.write("class.yaml", &class("web"));
    scene.write("one.yaml", &session("one", "a", "legal"));
    scene.write("two.yaml", &session("one", "b", "legal"));
    scene.write("three.yaml", &session("three", "c", "nope"));
    scene.write("v.yaml", &session("v", "d", "legal"));
    scene.write("w.yaml", &session("w", "d", "legal"));
    scene.files.insert("x.yaml", SourceFile::Unreadable("Permission denied".to_owned()));
    let loose =
        class("web").replace("{image: web}", "{image: web, security: {dockerSocket: true}}");
    scene.write("y.yaml", &loose.replace("name: legal", "name: loose"));
    scene.write("z.yaml", &session("z", "e", "loose"));
    scene.decide();
    let rows = scene.wants.sources(Some(&scene.listing()), &BTreeMap::new());
    let line = |row: &SourceView| {
        let errors: String = row.errors.iter().map(|error| format!("  {error}\n")).collect();
        format!("{} {}\n{errors}", row.source, row.state)
    };
    expect![[r#"
        class.yaml Ok
        one.yaml Refused
          one.yaml: DuplicateName: one is in one.yaml and two.yaml: both are held
        three.yaml Refused
          three.yaml: session/three: ClassNotFound: there is no class `nope`
        two.yaml Refused
          two.yaml: DuplicateName: one is in one.yaml and two.yaml: both are held
        v.yaml Ok
        w.yaml Refused
          w.yaml: session/w: WorkspaceInUse: the workspace of ann and d belongs to session v
        x.yaml Unreadable
          x.yaml: Permission denied
        y.yaml Ok
        z.yaml Refused
          z.yaml: session/z: NotAllowed: spec.container.security.dockerSocket: true is root on the host, and allow.dockerSocket is false
    "#]].assert_eq(&rows.iter().map(line).collect::<String>());
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Write(&'static str, String),
    Remove(&'static str),
    Admit(&'static str),
    Forget(&'static str),
    End(&'static str),
    Trouble(bool),
    Later(i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let file = || select(vec!["a.yaml", "b.yaml", "c.yaml", "d.yaml"]);
    let name = || select(vec!["s0", "s1", "s2"]);
    let text = prop_oneof![
        4 => (name(), select(vec!["one", "two"]), select(vec!["legal", "nope"]))
            .prop_map(|(name, case, class)| session(name, case, class)),
        2 => select(vec!["web", "web2"]).prop_map(class),
        1 => Just("kind: [".to_owned()),
    ];
    prop_oneof![
        6 => (file(), text).prop_map(|(file, text)| Step::Write(file, text)),
        2 => file().prop_map(Step::Remove),
        4 => name().prop_map(Step::Admit),
        1 => name().prop_map(Step::Forget),
        1 => name().prop_map(Step::End),
        1 => any::<bool>().prop_map(Step::Trouble),
        1 => select(vec![1, 30, 90]).prop_map(Step::Later),
    ]
}

proptest! {
    #[test]
    fn deciding_what_changed_is_deciding_everything(
        steps in prop::collection::vec((any_step(), any::<bool>()), 1..24),
    ) {
        let mut scene = Scene::new();
        scene.write("class.yaml", &class("web"));
        for (step, decides) in steps {
            match step {
                Step::Write(path, text) => scene.write(path, &text),
                Step::Remove(path) => drop(scene.files.remove(path)),
                Step::Admit(name) => scene.admit(name),
                Step::Forget(name) => {
                    let name = SessionName::parse(name).unwrap();
                    scene.records.remove(&name);
                    scene.wants.ended(&name);
                }
                Step::End(name) => {
                    let name = SessionName::parse(name).unwrap();
                    if let Some(record) = scene.records.get_mut(&name) {
                        Arc::make_mut(record).ending.get_or_insert(crate::model::Ending {
                            since: scene.now,
                            cause: String::new(),
                            discard: false,
                            pre_synced: false,
                            final_synced: false,
                            followed: BTreeMap::new(),
                            trashed: false,
                        });
                    }
                }
                Step::Trouble(is) => scene.trouble = is.then(|| "it is gone".to_owned()),
                Step::Later(seconds) => scene.now += TimeDelta::seconds(seconds),
            }
            if !decides {
                continue;
            }
            scene.decide();
            let mut anew = scene.wants.clone();
            let (sources, applied) = (scene.listing(), BTreeMap::new());
            let around = Around {
                sources: Some(&sources),
                applied: &applied,
                settings: &scene.settings,
                now: scene.now,
            };
            let changed = anew.decide_all(&around);
            prop_assert!(changed.is_empty(), "{changed:?} was not decided on");
            // And as a newcomer would, who knows the classes and what vanished when.
            let mut fresh = Wants::new(BTreeSet::new());
            fresh.classes.clone_from(&scene.wants.classes);
            fresh.class_sources.clone_from(&scene.wants.class_sources);
            fresh.vanished.clone_from(&scene.wants.vanished);
            fresh.held.clone_from(&scene.wants.held);
            for (name, record) in &scene.records {
                fresh.heed(name, Some(record));
            }
            fresh.decide(&around);
            prop_assert_eq!(&fresh.decided, &scene.wants.decided);
            if scene.trouble.is_none() {
                let wrongs = |of: &Wants| -> Vec<_> {
                    of.wrongs.iter().map(|(at, (_, wrongs))| (at.clone(), wrongs.clone())).collect()
                };
                prop_assert_eq!(wrongs(&fresh), wrongs(&scene.wants));
            }
        }
    }
}
