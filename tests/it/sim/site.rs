//! One installation: its specs, its durable state, and the lives of its operator.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use docket::apply::{Doors, Lanes};
use docket::model::{
    Bounds, CaseName, ContainerPrefix, Identity, Installation, SessionName, UserName,
};
use docket::operator::handle::Handle;
use docket::operator::{Operator, PruneGuard, Settings, SourceFile, Sources, rebuild};
use docket::plan::{MinFree, Policy};
use docket::spec::Shared;
use docket::testing::clock::FakeClock;
use docket::testing::disk::MemoryDisk;
use docket::testing::engine::{FakeEngine, Machine};
use docket::testing::faults::{Life, Sky, Weathered};
use docket::testing::memory::MemoryLedger;
use docket::testing::probe::FakeProbe;
use docket::testing::store::MemoryStore;
use docket::world::{Clock as _, Ledger as _};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bugs::{Bug, BuggyDisk, BuggyEngine, BuggyStore, ToldLedger};

/// What people want of one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    pub user: String,
    pub case: String,
    pub image: &'static str,
    /// Counts edits; the container's environment carries it.
    pub revision: u64,
    pub memory: &'static str,
    pub stopped: bool,
    pub suspended: bool,
    /// The container ends by itself, or never answers.
    pub bad: Option<(&'static str, &'static str)>,
}

/// The watched directory.
#[derive(Clone, Debug, Default)]
pub struct Specs {
    pub wishes: BTreeMap<String, Wish>,
    /// A file that does not parse right now.
    pub broken: Option<String>,
    /// The directory cannot be read right now.
    pub trouble: bool,
    /// How often the class was edited.
    pub class: u32,
}

/// One installation.
pub struct Site {
    pub name: &'static str,
    pub sky: Arc<Sky>,
    pub clock: FakeClock,
    pub machine: Arc<Machine>,
    pub store: MemoryStore,
    pub disk: MemoryDisk,
    pub ledger: Arc<MemoryLedger>,
    pub specs: Mutex<Specs>,
    /// The operator that lives now, if one does.
    pub handle: Mutex<Option<Handle>>,
    pub sources: Mutex<Option<mpsc::Sender<Sources>>>,
    pub wrongs: Mutex<Vec<String>>,
    pub cuts: AtomicU64,
    pub bug: Option<Bug>,
    /// Now and then its state directory is lost.
    pub forgetful: bool,
    /// Its first life is cut at this point, and no other one; `None`: the weather decides.
    pub first_cut: Option<u64>,
    /// First and last host port.
    pub ports: (u16, u16),
    pub tick: Duration,
}

/// How a life ended.
enum End {
    /// It never got so far.
    Unborn,
    /// Cut.
    Cut,
    /// Asked to.
    Asked,
}

impl Site {
    pub fn installation(&self) -> Installation {
        Installation::parse(self.name).unwrap()
    }

    /// Tells the operator, if there is one, what the watched directory holds.
    pub fn tell(&self) {
        let sources = self.listing();
        if let Some(sender) = &*self.sources.lock().unwrap() {
            // A full channel is a watcher that waits; the sim's is never so slow.
            let _nobody_listens = sender.try_send(sources);
        }
    }

    fn listing(&self) -> Sources {
        let specs = self.specs.lock().unwrap();
        let mut files = Shared::default();
        files.insert("legal.yaml", file("legal.yaml", &class(specs.class)));
        for (name, wish) in &specs.wishes {
            let path = format!("{name}.yaml");
            let parsed = if specs.broken.as_deref() == Some(name) {
                SourceFile::Invalid(vec![format!("{path}:1:1: broken")])
            } else {
                file(&path, &session(name, wish))
            };
            files.insert(&path, parsed);
        }
        let trouble = specs.trouble.then(|| "the directory cannot be read".to_owned());
        if trouble.is_some() {
            files = Shared::default();
        }
        Sources { root: "specs".to_owned(), trouble, revision: String::new(), files }
    }

    fn settings(&self) -> Settings {
        let capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"];
        let capabilities = capabilities.map(str::to_owned).into();
        let bounds = Bounds { ports: self.ports, capabilities, ..Bounds::default() };
        Settings {
            policy: Policy {
                bounds,
                max_sessions: 0,
                max_per_user: 0,
                max_starts: 2,
                min_free: MinFree::Percent(5.0),
            },
            tick: self.tick,
            prune: PruneGuard { at_least: 10, percent: 50 },
            workspaces: PathBuf::from("/ws"),
            trash_keep: Duration::from_hours(7 * 24),
        }
    }

    /// One life after the other until `over`.
    pub async fn live(self: Arc<Self>, over: CancellationToken) {
        let mut number = 0_u64;
        while !over.is_cancelled() {
            number += 1;
            let cut_at = match self.first_cut {
                Some(first) => first * u64::from(number == 1),
                None if self.sky.is_calm() => 0,
                None => 1 + self.sky.below(700),
            };
            if self.forgetful && !self.sky.is_calm() && self.sky.below(8) == 0 {
                self.sky.note(format_args!("== {} its state directory is lost", self.name));
                self.ledger.lose();
            }
            let no_deadlines = self.bug == Some(Bug::NoDeadline);
            let name = format!("{}{number}", self.name);
            let life = Life::new(Arc::clone(&self.sky), &name, cut_at, no_deadlines);
            match self.one_life(&life, &over).await {
                End::Cut => {
                    self.cuts.fetch_add(1, Ordering::Relaxed);
                }
                End::Unborn => life.cut(),
                End::Asked => {
                    life.cut();
                    self.sky.note(format_args!("{name} ended as asked"));
                }
            }
            *self.handle.lock().unwrap() = None;
            *self.sources.lock().unwrap() = None;
            tokio::time::sleep(Duration::from_millis(self.sky.below(4000))).await;
        }
    }

    async fn one_life(self: &Arc<Self>, life: &Arc<Life>, over: &CancellationToken) -> End {
        let ledger = ToldLedger {
            door: Weathered::new(Arc::clone(&self.ledger), Arc::clone(life)),
            kept: Arc::clone(&self.ledger),
        };
        let identity = Identity {
            installation: self.installation(),
            prefix: ContainerPrefix::parse("docket").unwrap(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let workspaces = BuggyDisk {
            door: Weathered::new(Arc::new(self.disk.clone()), Arc::clone(life)),
            bug: self.bug,
        };
        let opened = tokio::select! {
            biased;
            () = life.ended() => return End::Cut,
            opened = async {
                let contents = ledger.load().await?;
                rebuild(ledger, &contents, &workspaces, self.clock.now()).await
            } => opened,
        };
        let Ok((book, rebuilt)) = opened else { return End::Unborn };
        let machine = Arc::clone(&self.machine);
        let engine = FakeEngine::new(machine, identity.installation.clone(), identity.bind);
        let doors = Arc::new(Doors {
            engine: BuggyEngine {
                door: Weathered::new(Arc::new(engine), Arc::clone(life)),
                bug: self.bug,
                names: Arc::new(AtomicU64::new(life.points() + self.sky.calls())),
            },
            objects: BuggyStore {
                door: Weathered::new(Arc::new(self.store.clone()), Arc::clone(life)),
                bug: self.bug,
            },
            workspaces,
            book,
            clock: self.clock.clone(),
            identity,
            secret_files: Vec::new(),
            engine_socket: PathBuf::from("/var/run/docker.sock"),
            quarantine: Mutex::default(),
            lanes: Lanes::default(),
            meter: Arc::default(),
        });
        let probe =
            Weathered::new(Arc::new(FakeProbe::new(Arc::clone(&self.machine))), Arc::clone(life));
        let (sources, listings) = mpsc::channel(1024);
        let (_settings, new_settings) = mpsc::channel(1);
        let (rescan, _rescans) = mpsc::channel(1);
        let (operator, handle) = Operator::new(
            doors,
            Arc::new(probe),
            self.settings(),
            rebuilt,
            listings,
            new_settings,
            rescan,
        );
        *self.handle.lock().unwrap() = Some(handle);
        *self.sources.lock().unwrap() = Some(sources);
        self.tell();
        self.until_its_end(life, over, operator).await
    }

    async fn until_its_end<E, O, W, L, P, C>(
        &self,
        life: &Arc<Life>,
        over: &CancellationToken,
        operator: Operator<E, O, W, L, P, C>,
    ) -> End
    where
        E: docket::world::Engine,
        O: docket::world::Objects,
        W: docket::world::Workspaces,
        L: docket::world::Ledger,
        P: docket::world::Probe,
        C: docket::world::Clock,
    {
        let shutdown = CancellationToken::new();
        let mut running = tokio::spawn(operator.run(shutdown.clone()));
        // Now and then it is asked to end before it is cut.
        let asked = match self.sky.below(3) {
            0 if !self.sky.is_calm() && self.first_cut.is_none() => {
                Duration::from_secs(1 + self.sky.below(90))
            }
            _ => Duration::from_secs(1 << 30),
        };
        let sleep = tokio::time::sleep(asked);
        let dies = tokio::select! {
            biased;
            () = over.cancelled() => false,
            () = life.ended() => true,
            () = sleep => false,
            ended = &mut running => {
                self.wrong(format!("the operator ended by itself: {ended:?}"));
                return End::Asked;
            }
        };
        if dies {
            running.abort();
            return End::Cut;
        }
        shutdown.cancel();
        tokio::select! {
            biased;
            () = life.ended() => {
                running.abort();
                End::Cut
            }
            ended = tokio::time::timeout(Duration::from_secs(10), &mut running) => {
                if !matches!(ended, Ok(Ok(()))) {
                    self.wrong(format!("it did not end within 10 s of being asked to: {ended:?}"));
                }
                running.abort();
                End::Asked
            }
        }
    }

    pub fn wrong(&self, text: impl std::fmt::Display) {
        let mut wrongs = self.wrongs.lock().unwrap();
        let text = format!("{:.3} {}: {text}", self.sky.now().as_secs_f64(), self.name);
        // One wrong often shows after every later effect too.
        if wrongs.len() < 20 {
            self.sky.note(format_args!("WRONG {text}"));
            wrongs.push(text);
        }
    }
}

/// A file as the watcher would tell it. What was read once is told as the same again.
fn file(path: &str, text: &str) -> SourceFile {
    thread_local! {
        static READ: RefCell<BTreeMap<(String, String), SourceFile>> = RefCell::default();
    }
    READ.with_borrow_mut(|read| {
        let known = read.entry((path.to_owned(), text.to_owned()));
        let anew = || docket::spec::read_source(path, text.as_bytes());
        let file = known.or_insert_with(anew).clone();
        assert!(matches!(file, SourceFile::Parsed { .. }), "{file:?} in {text}");
        file
    })
}

fn class(edits: u32) -> String {
    let env = if edits > 0 { json!({"CLASS": edits.to_string()}) } else { json!({}) };
    json!({
        "apiVersion": "docket.dev/v1", "kind": "SessionClass", "metadata": {"name": "legal"},
        "spec": {
            "container": {"image": "app:v1", "env": env},
            "update": {"rollout": "Immediate", "maxConcurrent": 1},
            "workspace": {"folders": ["drafts"], "files": {"large": "Eager"}}
        }
    })
    .to_string()
}

fn session(name: &str, wish: &Wish) -> String {
    let mut env = BTreeMap::from([("REVISION".to_owned(), wish.revision.to_string())]);
    env.insert("HEALTH_DELAY_MS".to_owned(), "1500".to_owned());
    env.extend(wish.bad.map(|(key, value)| (key.to_owned(), value.to_owned())));
    json!({
        "apiVersion": "docket.dev/v1", "kind": "Session", "metadata": {"name": name},
        "spec": {
            "user": wish.user, "case": wish.case, "class": "legal",
            "state": if wish.stopped { "Stopped" } else { "Running" },
            "suspend": wish.suspended,
            "container": {
                "image": wish.image, "env": env, "resources": {"memory": wish.memory}
            }
        }
    })
    .to_string()
}

pub fn names(user: &str, case: &str) -> (UserName, CaseName) {
    (UserName::parse(user).unwrap(), CaseName::parse(case).unwrap())
}

pub fn session_name(name: &str) -> SessionName {
    SessionName::parse(name).unwrap()
}
