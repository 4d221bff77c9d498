//! A tiny language for worlds: one line a fact, defaults for the rest.
//!
//! ```text
//! now       12:00:00
//! policy    sessions=1 user=1 starts=1 ports=8001-8002
//! space     low | unseen
//! engine    since=11:59:00 | unseen
//! quarantine 8001 until=12:05:00
//! class     strategy=Never rollout=Immediate ...      # of every want and record
//! want      ann-one image=web2 class-image=web3 memory=1 state=Stopped suspend
//! refused   ann-one LimitExceeded
//! held      ann-one PruneGuard prune
//! gone      ann-one
//! record    ann-one bare | waits | port=8001 attempt=1 ready=11:50:00 fail=Run*3:Error@11:59:00+60 ...
//! workspace ann-one missing | replaced | unseen
//! container ann-one running attempt=1 port=8001 passing | failing=3 probed=30 idle=60 used=11:59:00 exit=1 ...
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;

use crate::model::*;
use crate::plan::{Input, MinFree, Plan, Policy, Refused, Session, Use, Want, plan};

/// No session is over.
static NONE_ENDED: BTreeMap<Uid, Timestamp> = BTreeMap::new();

/// A whole input, owned.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) policy: Policy,
    pub(crate) sessions: BTreeMap<SessionName, Session>,
    pub(crate) space: Look<Space>,
    pub(crate) quarantine: BTreeMap<u16, Timestamp>,
    pub(crate) engine_started: Option<Timestamp>,
}

/// Words after a line's verb: `key=value` or `flag`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(BTreeMap<String, String>);

impl Words {
    pub(crate) fn parse(words: &[&str]) -> Words {
        let pair = |word: &&str| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => ((*word).to_owned(), String::new()),
        };
        Words(words.iter().map(pair).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Debug,
    {
        self.get(key).map(|text| text.parse().unwrap())
    }

    fn seconds(&self, key: &str) -> Option<Duration> {
        self.number(key).map(Duration::from_secs)
    }

    fn time(&self, key: &str) -> Option<Timestamp> {
        self.get(key).map(at)
    }

    fn over(&self, other: &Words) -> Words {
        let mut all = other.0.clone();
        all.extend(self.0.clone());
        Words(all)
    }
}

/// A time of the day all tests happen on.
pub(crate) fn at(time: &str) -> Timestamp {
    format!("2026-11-23T{time}Z").parse().unwrap()
}

pub(crate) fn name(text: &str) -> SessionName {
    SessionName::parse(text).unwrap()
}

/// The uid of a session's record, unless the line says otherwise.
pub(crate) fn uid(text: &str) -> Uid {
    let mut bytes = [0; 16];
    for (slot, byte) in bytes.iter_mut().zip(text.bytes()) {
        *slot = byte;
    }
    Uid::from_bytes(bytes)
}

pub(crate) const HERE: WorkspaceId = WorkspaceId { dev: 1, ino: 1 };

/// The object that these words describe: own keys only.
pub(crate) fn object(session: &str, own: &Words) -> SessionObject {
    let (user, case) = session.split_once('-').unwrap_or((session, "case"));
    let state = match own.get("state") {
        Some("Stopped") => DesiredState::Stopped,
        _ => DesiredState::Running,
    };
    let keys = ["image", "memory", "hostport"];
    let hashed: Vec<String> =
        keys.iter().filter_map(|key| own.get(key).map(|value| format!("{key}={value}"))).collect();
    let user = own.get("user").unwrap_or(user);
    let case = own.get("case").unwrap_or(case);
    let spec = json!({"user": user, "case": case, "own": hashed.clone(),
        "state": format!("{state:?}"), "suspend": own.has("suspend")});
    SessionObject {
        name: name(session),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        user: UserName::parse(user).unwrap(),
        case: CaseName::parse(case).unwrap(),
        class: ClassName::parse("legal").unwrap(),
        state,
        suspend: own.has("suspend"),
        raw: json!({"apiVersion": "docket.dev/v1", "kind": "Session",
            "metadata": {"name": session, "note": own.get("note").unwrap_or("")}, "spec": spec}),
        hash: hashed.join(","),
    }
}

/// What the class in force is known by.
pub(crate) fn class_hash(own: &Words) -> String {
    format!("class {}", own.get("class-image").unwrap_or("web"))
}

/// The spec that own words and the words of the `class` line make.
pub(crate) fn resolved(session: &str, own: &Words, class: &Words) -> Resolved {
    let object = object(session, own);
    let words = own.over(class);
    let seconds = |key, default| words.seconds(key).unwrap_or(Duration::from_secs(default));
    let image = words.get("image").or(words.get("class-image")).unwrap_or("web");
    Resolved {
        user: object.user,
        case: object.case,
        class: object.class,
        container: container_spec(image, &words),
        health: HealthSpec {
            path: "/health".to_owned(),
            startup: seconds("startup", 60),
            interval: seconds("interval", 10),
            timeout: seconds("timeout", 2),
            failures: 3,
        },
        restart: RestartSpec {
            policy: match words.get("restart") {
                Some("OnFailure") => RestartPolicy::OnFailure,
                Some("Never") => RestartPolicy::Never,
                _ => RestartPolicy::Always,
            },
            initial_delay: seconds("delay", 1),
            max_delay: seconds("maxdelay", 60),
            reset_after: seconds("reset", 600),
        },
        workspace: workspace_spec(&words),
        lifetime: Lifetime {
            max_age: seconds("maxage", 0),
            idle_timeout: seconds("idletimeout", 0),
        },
        update: update_spec(&words),
    }
}

fn container_spec(image: &str, words: &Words) -> ContainerSpec {
    ContainerSpec {
        image: image.to_owned(),
        pull_policy: PullPolicy::IfNotPresent,
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        port: words.number("cport").unwrap_or(3000),
        host_port: words.number("hostport").unwrap_or(0),
        resources: resources(words.number("memory").unwrap_or(4)),
        security: Security {
            run_as: String::new(),
            cap_drop: vec!["ALL".to_owned()],
            cap_add: Vec::new(),
            no_new_privileges: true,
            seccomp: Seccomp::RuntimeDefault,
            read_only_rootfs: false,
            docker_socket: false,
        },
        tmpfs: BTreeMap::new(),
        mounts: Vec::new(),
        network: Network::Docket,
        init: true,
        stop_grace: Duration::from_secs(10),
        labels: BTreeMap::new(),
        logs: LogSpec { max_size: 10 << 20, max_files: 3 },
    }
}

pub(crate) fn resources(gib: u64) -> Resources {
    Resources { nano_cpus: 2_000_000_000, memory: gib << 30, pids: 512 }
}

fn workspace_spec(words: &Words) -> WorkspaceSpec {
    WorkspaceSpec {
        mount_path: "/opt/workspace".into(),
        scope: if words.has("wide") { Scope::User } else { Scope::Case },
        folders: vec!["drafts".to_owned()],
        owner: String::new(),
        quota: 10 << 30,
        max_files: 1_000_000,
        max_file_size: 100 << 30,
        max_depth: 256,
        files: FilesSpec {
            eager_below: 1 << 20,
            large: LargeFiles::OnAccess,
            prefetch: 0,
            open_deadline: Duration::from_mins(1),
        },
        sync_interval: words.seconds("sync").unwrap_or(Duration::from_secs(30)),
        sync_exclude: Vec::new(),
    }
}

fn update_spec(words: &Words) -> UpdateSpec {
    UpdateSpec {
        strategy: match words.get("strategy") {
            Some("Recreate") => UpdateStrategy::Recreate,
            Some("Never") => UpdateStrategy::Never,
            _ => UpdateStrategy::InPlaceOrRecreate,
        },
        rollout: match words.get("rollout") {
            Some("Immediate") => Rollout::Immediate,
            _ => Rollout::OnNextStart,
        },
        max_concurrent: words.number("concurrent").unwrap_or(2),
        on_failure: if words.has("hold") { OnFailure::Hold } else { OnFailure::Rollback },
    }
}

fn reason(text: &str) -> Reason {
    let known = Reason::ALL.iter().find(|reason| reason.to_string() == text);
    *known.unwrap_or_else(|| panic!("`{text}` is not a reason"))
}

pub(crate) fn operation(text: &str) -> Operation {
    serde_json::from_value(json!(text)).unwrap()
}

/// The id an image name is resolved to.
pub(crate) fn image_id(image: &str) -> String {
    format!("sha256:{image}")
}

pub(crate) fn pin(image: &str) -> ImagePin {
    ImagePin { id: image_id(image), user: String::new() }
}

pub(crate) fn applied(session: &str, own: &Words, class: &Words) -> Applied {
    let resolved = resolved(session, own, class);
    Applied {
        generation: own.number("generation").unwrap_or(1),
        object: object(session, own),
        class_hash: class_hash(own),
        image: Some(pin(&resolved.container.image)),
        resolved,
    }
}

fn record(session: &str, words: &Words, class: &Words, now: Timestamp) -> Record {
    let source = Source::File(format!("{session}.yaml"));
    let mut record = Record::admit(uid(session), applied(session, words, class), source, now);
    record.created_at = at("10:00:00");
    record.active_since = Some(words.time("active").unwrap_or(at("10:00:00")));
    record.ran_since =
        (!words.has("bare") && !words.has("waits")).then_some(record.active_since).flatten();
    record.port = words.number("port");
    if words.has("unpinned") || words.has("bare") {
        record.applied.image = None;
    }
    if !words.has("bare") {
        record.attempt = words.number("attempt").unwrap_or(1);
        record.workspace = Some(HERE);
        record.hydrated = !words.has("empty");
        record.last_sync = Some(words.time("synced").unwrap_or(now));
    }
    if words.has("ready") {
        record.ready_since =
            Some(words.get("ready").filter(|t| !t.is_empty()).map_or(at("11:00:00"), at));
        record.ready_generation = record.applied.generation;
    }
    if let Some(generation) = words.number("was-ready") {
        record.ready_generation = generation;
    }
    more_of_record(&mut record, session, words, class);
    record
}

fn more_of_record(record: &mut Record, session: &str, words: &Words, class: &Words) {
    if let Some(image) = words.get("good") {
        let own = Words::parse(&[&format!("image={image}")]);
        record.last_good = Some(applied(session, &own, class));
    }
    if let Some(image) = words.get("bad") {
        let own = Words::parse(&[&format!("image={image}")]);
        record.rolled_back = Some(RolledBack {
            object_hash: object(session, &own).hash,
            class_hash: class_hash(&own),
            message: "it never got ready".to_owned(),
        });
    }
    for (key, value) in &words.0 {
        if matches!(key.as_str(), "fail" | "fail1" | "fail2" | "fail3" | "fail4")
            || key == "terminal"
        {
            let (operation, failure) = failure(value, key == "terminal");
            record.failures.insert(operation, failure);
        }
    }
    if let Some((what, why)) = words.get("intent").and_then(|text| text.split_once(':')) {
        let since = words.time("intent-at").unwrap_or(at("11:59:00"));
        let (operation, reason) = (operation(what), reason(why));
        record.intent = Some(Intent { operation, attempt: record.attempt, at: since, reason });
    }
    if let Some((why, code)) = words.get("noted").and_then(|text| text.split_once(':')) {
        record.last_termination = Some(Termination {
            attempt: record.attempt,
            reason: reason(why),
            exit_code: code.parse().ok(),
            finished_at: Some(at("11:59:00")),
        });
    }
    record.retired =
        words.get("retired").map(|why| Retired { reason: reason(why), at: at("11:30:00") });
    record.paused = words.get("paused").map(reason);
    record.restart_after = words.number("restart-after");
    record.files.bytes = words.number::<u64>("gib").unwrap_or(1) << 30;
    record.files.excluded = words.number("excluded").unwrap_or(0);
    record.files.unsynced = words.number("unsynced").unwrap_or(0);
    record.restarts = words.number("restarts").unwrap_or(0);
    record.source_unseen = words.has("unseen");
    if let Some(value) = words.get("override") {
        let stopped = value == "Stopped";
        record.state_override = Some(Override {
            value: if stopped { DesiredState::Stopped } else { DesiredState::Running },
            file_said: record.applied.object.state,
            at: at("11:00:00"),
        });
    }
    record.ending = words.get("ending").map(|done| Ending {
        since: at("11:59:00"),
        cause: "its file is gone".to_owned(),
        discard: done.contains("discard"),
        pre_synced: done.contains("presynced"),
        final_synced: done.contains("stored"),
        followed: done
            .contains("stored")
            .then(|| {
                (ContainerId("c1".to_owned()), words.time("followed").unwrap_or(at("10:30:00")))
            })
            .into_iter()
            .collect(),
        trashed: done.contains("trashed"),
    });
}

/// `Run*3:Error@11:59:00+60`: three failures in a row, the last then, not before 60 s later.
fn failure(text: &str, terminal: bool) -> (Operation, Failure) {
    let (what, rest) = text.split_once(':').unwrap();
    let (what, count) = what.split_once('*').unwrap_or((what, "1"));
    let (why, when) = rest.split_once('@').unwrap_or((rest, "11:59:59+60"));
    let (when, wait) = when.split_once('+').unwrap_or((when, "60"));
    let since = at(when);
    let failure = Failure {
        count: count.parse().unwrap(),
        at: since,
        not_before: since + TimeDelta::seconds(wait.parse().unwrap()),
        reason: reason(why),
        message: "it did not work".to_owned(),
        terminal,
    };
    (operation(what), failure)
}

fn container(session: &str, words: &Words, class: &Words) -> Container {
    let state = [
        ("running", ContainerState::Running),
        ("created", ContainerState::Created),
        ("paused", ContainerState::Paused),
        ("exited", ContainerState::Exited),
        ("removing", ContainerState::Removing),
        ("dead", ContainerState::Dead),
    ];
    let state = state.iter().find(|(word, _)| words.has(word)).unwrap().1;
    let resolved = resolved(session, words, class);
    let port: Option<u16> = words.number("port");
    let attempt = words.number("attempt").unwrap_or(1);
    let image = image_id(&resolved.container.image);
    let ended = state == ContainerState::Exited;
    let published = port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let owner = words.get("uid").unwrap_or(session);
    let detail = ContainerDetail {
        image_id: image.clone(),
        started_at: Some(words.time("since").unwrap_or(at("10:30:00"))),
        finished_at: ended.then(|| words.time("ended").unwrap_or(at("11:59:00"))),
        exit_code: ended.then(|| words.number("exit").unwrap_or(1)),
        oom_killed: words.has("oom"),
        error: String::new(),
        pid: None,
        published: published.filter(|_| !words.has("unbound") && !ended),
        inner: None,
        resources: resolved.container.resources,
    };
    let object = object(session, words);
    Container {
        id: ContainerId(words.get("id").map_or(format!("c{attempt}"), str::to_owned)),
        name: format!("docket-{session}-{attempt}"),
        session: name(session),
        uid: uid(owner),
        attempt,
        spec_hash: crate::spec::fingerprint(&resolved, &image, port),
        user: object.user.to_string(),
        case: object.case.to_string(),
        state,
        detail: (!words.has("uninspected")).then_some(detail),
    }
}

impl World {
    /// Nothing at all, at noon.
    pub(crate) fn empty() -> World {
        World {
            now: at("12:00:00"),
            policy: Policy {
                bounds: Bounds { ports: (8001, 8999), ..Bounds::default() },
                max_sessions: 0,
                max_per_user: 0,
                max_starts: 0,
                min_free: MinFree::Percent(5.0),
            },
            sessions: BTreeMap::new(),
            space: Look::Known(Space { total: 100 << 30, free: 50 << 30 }),
            quarantine: BTreeMap::new(),
            engine_started: None,
        }
    }

    /// The world these lines describe.
    pub(crate) fn parse(text: &str) -> World {
        let mut world = World::empty();
        let mut class = Words::default();
        let mut engine_unseen = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let rest = Words::parse(&words[1..]);
            match words[0] {
                "now" => world.now = at(words[1]),
                "class" => class = rest,
                "policy" => world.set_policy(&rest),
                "space" => {
                    world.space = match words[1] {
                        "low" => Look::Known(Space { total: 100 << 30, free: 1 << 30 }),
                        "none" => Look::Known(Space { total: 100 << 30, free: 300 << 20 }),
                        _ => Look::Unknown("I/O error".to_owned()),
                    }
                }
                "engine" => {
                    engine_unseen = rest.has("unseen");
                    world.engine_started = rest.time("since");
                }
                "quarantine" => {
                    let until = rest.time("until").unwrap_or(at("12:05:00"));
                    world.quarantine.insert(words[1].parse().unwrap(), until);
                }
                verb => world.line(verb, words[1], &words[2..], &class),
            }
        }
        for one in world.sessions.values_mut().filter(|_| engine_unseen) {
            one.containers = Look::Unknown("connection refused".to_owned());
        }
        world
    }

    fn set_policy(&mut self, words: &Words) {
        self.policy.max_sessions = words.number("sessions").unwrap_or(0);
        self.policy.max_per_user = words.number("user").unwrap_or(0);
        self.policy.max_starts = words.number("starts").unwrap_or(0);
        if let Some((first, last)) = words.get("ports").and_then(|ports| ports.split_once('-')) {
            self.policy.bounds.ports = (first.parse().unwrap(), last.parse().unwrap());
        }
    }

    fn line(&mut self, verb: &str, session: &str, words: &[&str], class: &Words) {
        let rest = Words::parse(words);
        let now = self.now;
        let one = self.sessions.entry(name(session)).or_insert_with(nothing_known);
        match verb {
            "want" => one.want = want(session, &rest, class),
            "refused" => {
                let refused =
                    Refused { reason: reason(words[0]), message: "it may not be".to_owned() };
                one.want = want(session, &rest, class);
                if let Want::Present { resolved, .. } = &mut one.want {
                    *resolved = Err(refused);
                }
            }
            "held" => {
                let (reason, prune) = (reason(words[0]), rest.has("prune"));
                one.want = Want::Held { reason, message: "as it was".to_owned(), prune };
            }
            "gone" => one.want = Want::Gone { cause: "its file is gone".to_owned() },
            "record" => {
                let record = record(session, &rest, class, now);
                let seen = record.workspace.map(|id| WorkspaceSeen { id, uid: None });
                one.workspace = Look::Known(seen);
                one.record = Some(record);
            }
            "workspace" => {
                let other = WorkspaceId { dev: 1, ino: 2 };
                one.workspace = match words[0] {
                    "missing" => Look::Known(None),
                    "replaced" => Look::Known(Some(WorkspaceSeen { id: other, uid: None })),
                    _ => Look::Unknown("I/O error".to_owned()),
                };
            }
            "container" => {
                if let Look::Known(all) = &mut one.containers {
                    all.push(container(session, &rest, class));
                }
                watch(one, &rest);
            }
            "ask" => one.sync_asked = true,
            other => panic!("`{other}` is not a line of a world"),
        }
    }

    /// What the planner is given.
    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            now: self.now,
            policy: &self.policy,
            sessions: &self.sessions,
            space: self.space.clone(),
            ended: &NONE_ENDED,
            quarantine: &self.quarantine,
            engine_started: self.engine_started,
        }
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.input(), &BTreeMap::new())
    }
}

fn watch(one: &mut Session, words: &Words) {
    if words.has("passing") {
        one.health = Health::Passing;
    }
    if let Some(count) = words.number("failing") {
        one.health = Health::Failing { count, message: "connection refused".to_owned() };
    }
    one.probed_for = words.seconds("probed").unwrap_or_default();
    one.idle_for = words.seconds("idle").unwrap_or_default();
    one.used = words.time("used").map(|at| (Use::Network, at));
}

pub(crate) fn want(session: &str, own: &Words, class: &Words) -> Want {
    Want::Present {
        object: Box::new(object(session, own)),
        source: Source::File(format!("{session}.yaml")),
        class_hash: class_hash(own),
        resolved: Ok(Box::new(resolved(session, own, class))),
    }
}

pub(crate) fn nothing_known() -> Session {
    Session {
        want: Want::Gone { cause: "its file is gone".to_owned() },
        record: None,
        containers: Look::Known(Vec::new()),
        workspace: Look::Known(None),
        health: Health::Unknown,
        probed_for: Duration::ZERO,
        idle_for: Duration::ZERO,
        used: None,
        sync_asked: false,
        sync_tried: None,
    }
}
