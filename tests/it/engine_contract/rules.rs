//! What every engine door must do, real or fake: the rows of DOCKER as tests over [`Engine`].
//!
//! The image is the sample workspace; a fake reads the same variables of its environment:
//! `EXIT_AFTER_MS`, `EXIT_CODE`, `IGNORE_TERM=1`. A command other than `/app` does not exist.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use docket::model::{
    Container, ContainerDetail, ContainerId, ContainerSpec, ContainerState, LogSpec, Network,
    PullPolicy, Resources, Seccomp, Security,
};
use docket::world::{
    BindMount, CreateRequest, Engine, EngineErrorKind as Kind, EngineEvent, EventStream,
    LABEL_ATTEMPT, LABEL_CASE, LABEL_INSTALLATION, LABEL_SESSION, LABEL_SPEC_HASH, LABEL_UID,
    LABEL_USER,
};
use futures_util::{FutureExt, StreamExt};

/// Longest wait for something that should be true at once or soon.
const SOON: Duration = Duration::from_secs(20);

/// An engine under test and the world around it.
pub struct Bench<E> {
    /// The engine of this installation.
    pub engine: E,
    /// The same engine for another installation.
    pub other: E,
    /// This installation's name; unique to the bench.
    pub installation: String,
    /// The other's.
    pub other_installation: String,
    /// Reference of the sample image.
    pub image: String,
    /// Takes a port as a process that is no container would, until the guard is dropped.
    pub squat: Box<dyn Fn() -> (u16, Box<dyn Any>)>,
    /// A port that nobody holds.
    pub free_port: Box<dyn Fn() -> u16>,
    /// Makes an empty directory on the engine's host.
    pub make_dir: Box<dyn Fn() -> PathBuf>,
    /// Removes an empty directory of the engine's host.
    pub remove_dir: Box<dyn Fn(&Path)>,
}

static NAMES: AtomicU64 = AtomicU64::new(1);

impl<E: Engine> Bench<E> {
    /// A request for a small locked-down container on the default bridge, with a name of its own.
    pub async fn request(&self) -> CreateRequest {
        let number = NAMES.fetch_add(1, Ordering::Relaxed);
        let image = self.engine.resolve_image(&self.image, PullPolicy::Never).await.unwrap();
        CreateRequest {
            name: format!("{}-s{number}-1", self.installation),
            image_id: image.id,
            spec: spec(&self.image),
            host_port: None,
            mounts: Vec::new(),
            labels: labels(&self.installation, number),
        }
    }

    /// A created container.
    pub async fn created(&self, edit: impl FnOnce(&mut CreateRequest)) -> ContainerId {
        let mut request = self.request().await;
        edit(&mut request);
        self.engine.create(&request).await.unwrap()
    }

    /// A started container.
    pub async fn started(&self, edit: impl FnOnce(&mut CreateRequest)) -> ContainerId {
        let id = self.created(edit).await;
        self.engine.start(&id).await.unwrap();
        id
    }

    /// The container, inspected.
    pub async fn seen(&self, id: &ContainerId) -> (Container, ContainerDetail) {
        let container = self.engine.inspect(id).await.unwrap().unwrap();
        let detail = container.detail.clone().unwrap();
        (container, detail)
    }

    /// Waits until the container is in this state.
    pub async fn until(&self, id: &ContainerId, state: ContainerState) -> ContainerDetail {
        eventually(|| async {
            let (container, detail) = self.seen(id).await;
            (container.state == state).then_some(detail)
        })
        .await
    }

    async fn state(&self, id: &ContainerId) -> ContainerState {
        self.seen(id).await.0.state
    }

    /// Removes every container of both installations.
    pub async fn clean(&self) {
        for engine in [&self.engine, &self.other] {
            for container in engine.list().await.unwrap() {
                if container.state == ContainerState::Paused {
                    engine.unpause(&container.id).await.unwrap();
                }
                engine.stop(&container.id, Duration::ZERO).await.unwrap();
                engine.remove(&container.id).await.unwrap();
            }
        }
    }
}

/// Runs a rule and cleans up after it, even if it fails.
pub async fn hold<E: Engine>(bench: &Bench<E>, rule: impl Future<Output = ()>) {
    let outcome = std::panic::AssertUnwindSafe(rule).catch_unwind().await;
    bench.clean().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Asks again and again, within a bound, until there is an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let end = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < end, "it did not come true within {SOON:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn spec(image: &str) -> ContainerSpec {
    ContainerSpec {
        image: image.to_owned(),
        pull_policy: PullPolicy::Never,
        command: Vec::new(),
        args: Vec::new(),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        port: 3000,
        host_port: 0,
        resources: Resources { nano_cpus: 500_000_000, memory: 64 << 20, pids: 64 },
        security: Security {
            run_as: String::new(),
            cap_drop: vec!["ALL".to_owned()],
            cap_add: vec!["CHOWN".to_owned()],
            no_new_privileges: true,
            seccomp: Seccomp::RuntimeDefault,
            read_only_rootfs: true,
            docker_socket: false,
        },
        tmpfs: BTreeMap::from([("/tmp".to_owned(), "rw,noexec,nosuid,size=1m".to_owned())]),
        mounts: Vec::new(),
        network: Network::Bridge,
        init: true,
        stop_grace: Duration::from_secs(10),
        labels: BTreeMap::new(),
        logs: LogSpec { max_size: 1 << 20, max_files: 2 },
    }
}

fn labels(installation: &str, number: u64) -> BTreeMap<String, String> {
    [
        (LABEL_INSTALLATION, installation.to_owned()),
        (LABEL_SESSION, format!("s{number}")),
        (LABEL_UID, format!("{number:032x}")),
        (LABEL_ATTEMPT, "1".to_owned()),
        (LABEL_SPEC_HASH, "v1-00".to_owned()),
        (LABEL_USER, "ann".to_owned()),
        (LABEL_CASE, format!("case-{number}")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn set(request: &mut CreateRequest, name: &str, value: &str) {
    request.spec.env.insert(name.to_owned(), value.to_owned());
}

/// Defines the rules, and `for_every_rule!` to make a test of each on some bench.
macro_rules! rules {
    ($($(#[$doc:meta])* async fn $name:ident($bench:ident) $body:block)*) => {
        $($(#[$doc])* pub async fn $name<E: Engine>($bench: &Bench<E>) $body)*

        /// Calls `$test` with the names of all rules.
        macro_rules! for_every_rule { ($test:ident) => { $test! { $($name)* } } }
        pub(crate) use for_every_rule;
    };
}

rules! {
    async fn a_created_container_is_listed_and_inspected(bench) {
        let request = bench.request().await;
        let id = bench.engine.create(&request).await.unwrap();
        let list = bench.engine.list().await.unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!((&list[0].id, &list[0].name), (&id, &request.name));
        assert_eq!((list[0].state, list[0].attempt), (ContainerState::Created, 1));
        assert_eq!(list[0].session.as_str(), request.labels[LABEL_SESSION]);
        assert_eq!(list[0].uid.as_str(), request.labels[LABEL_UID]);
        assert_eq!(list[0].spec_hash, request.labels[LABEL_SPEC_HASH]);
        assert_eq!(list[0].case, request.labels[LABEL_CASE]);
        let (found, detail) = bench.seen(&id).await;
        assert_eq!(Container { detail: None, ..found }, list[0]);
        assert_eq!(detail.image_id, request.image_id);
        assert_eq!(detail.resources, request.spec.resources);
        assert_eq!((detail.started_at, detail.exit_code, detail.pid), (None, None, None));
    }

    async fn a_container_that_is_not_as_asked_for_is_told_apart(bench) {
        let request = bench.request().await;
        let id = bench.engine.create(&request).await.unwrap();
        assert_eq!(bench.engine.compare(&id, &request).await.unwrap(), None);
        let edits: [fn(&mut CreateRequest); 4] = [
            |request| request.spec.resources.pids += 1,
            |request| request.spec.security.cap_add.push("NET_RAW".to_owned()),
            |request| request.spec.init = !request.spec.init,
            |request| drop(request.labels.insert("more".to_owned(), "1".to_owned())),
        ];
        for edit in edits {
            let mut other = request.clone();
            edit(&mut other);
            assert!(bench.engine.compare(&id, &other).await.unwrap().is_some(), "{other:?}");
        }
        let nobody = ContainerId("0123456789ab".repeat(5) + "0000");
        let error = bench.engine.compare(&nobody, &request).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound);
    }

    async fn a_running_container_tells_where_it_is_published(bench) {
        let port = (bench.free_port)();
        let id = bench.started(|request| request.host_port = Some(port)).await;
        let (container, detail) = bench.seen(&id).await;
        assert_eq!(container.state, ContainerState::Running);
        assert_eq!(detail.published, Some(([127, 0, 0, 1], port).into()));
        assert!(detail.inner.is_some());
        assert!(detail.started_at.is_some());
        assert_eq!((detail.finished_at, detail.exit_code), (None, None));
    }

    async fn a_missing_container_is_absent_and_not_an_error(bench) {
        let nobody = ContainerId("0123456789ab".repeat(5) + "0000");
        assert_eq!(bench.engine.inspect(&nobody).await.unwrap(), None);
        bench.engine.stop(&nobody, Duration::ZERO).await.unwrap();
        bench.engine.remove(&nobody).await.unwrap();
        assert_eq!(bench.engine.start(&nobody).await.unwrap_err().kind, Kind::NotFound);
        let limits = spec(&bench.image).resources;
        assert_eq!(bench.engine.update(&nobody, limits).await.unwrap_err().kind, Kind::NotFound);
        assert_eq!(bench.engine.pause(&nobody).await.unwrap_err().kind, Kind::NotFound);
    }

    async fn only_the_own_installation_is_listed(bench) {
        bench.created(|_| {}).await;
        let mut theirs = bench.request().await;
        theirs.labels.insert(LABEL_INSTALLATION.to_owned(), bench.other_installation.clone());
        let foreign = bench.other.create(&theirs).await.unwrap();
        assert_eq!(bench.engine.list().await.unwrap().len(), 1);
        assert_eq!(bench.other.list().await.unwrap()[0].id, foreign);
        assert_eq!(bench.engine.inspect(&foreign).await.unwrap_err().kind, Kind::Conflict);
    }

    async fn a_taken_name_is_refused_and_its_holder_told(bench) {
        let request = bench.request().await;
        bench.engine.create(&request).await.unwrap();
        let again = bench.engine.create(&request).await.unwrap_err();
        assert_eq!(again.kind, Kind::NameTaken, "{again}");
        assert_eq!(bench.engine.holder_of(&request.name).await.unwrap(), Some(true));
        assert_eq!(bench.other.holder_of(&request.name).await.unwrap(), Some(false));
        let near = request.name.replace("-1", "-11");
        assert_eq!(bench.engine.holder_of(&near).await.unwrap(), None);
    }

    async fn what_has_our_label_and_is_no_session_is_foreign(bench) {
        let mut request = bench.request().await;
        request.labels.retain(|key, _| key == docket::world::LABEL_INSTALLATION);
        bench.engine.create(&request).await.unwrap();
        assert_eq!(bench.engine.list().await.unwrap(), []);
        assert_eq!(bench.engine.holder_of(&request.name).await.unwrap(), Some(false));
    }

    async fn of_ten_creates_at_once_one_wins(bench) {
        let request = bench.request().await;
        let tries = (0..10).map(|_| bench.engine.create(&request));
        let answers = futures_util::future::join_all(tries).await;
        let kinds: Vec<Kind> =
            answers.iter().filter_map(|answer| Some(answer.as_ref().err()?.kind)).collect();
        assert_eq!(kinds, [Kind::NameTaken; 9]);
        assert_eq!(bench.engine.list().await.unwrap().len(), 1);
    }

    async fn a_missing_image_is_told_apart_from_a_missing_container(bench) {
        let nope = bench.engine.resolve_image("docket-nope:none", PullPolicy::Never).await;
        assert_eq!(nope.unwrap_err().kind, Kind::ImageMissing);
        let id = format!("sha256:{}", "0".repeat(64));
        let by_id = bench.engine.resolve_image(&id, PullPolicy::IfNotPresent).await;
        assert_eq!(by_id.unwrap_err().kind, Kind::ImageMissing);
        let mut request = bench.request().await;
        request.image_id = id;
        assert_eq!(bench.engine.create(&request).await.unwrap_err().kind, Kind::ImageMissing);
        assert_eq!(bench.engine.list().await.unwrap(), []);
    }

    async fn an_image_that_is_there_is_not_pulled(bench) {
        let image = bench.engine.resolve_image(&bench.image, PullPolicy::IfNotPresent).await.unwrap();
        assert!(image.id.starts_with("sha256:"));
        assert_eq!(image, bench.engine.resolve_image(&image.id, PullPolicy::Always).await.unwrap());
    }

    async fn a_missing_bind_source_is_refused_and_nothing_made(bench) {
        let dir = (bench.make_dir)();
        (bench.remove_dir)(&dir);
        let mut request = bench.request().await;
        request.mounts = vec![mount(&dir)];
        let error = bench.engine.create(&request).await.unwrap_err();
        assert_eq!(error.kind, Kind::MountMissing, "{error}");
        assert_eq!(bench.engine.list().await.unwrap(), []);
    }

    async fn a_bind_source_that_vanished_is_told_at_start(bench) {
        let dir = (bench.make_dir)();
        let id = bench.created(|request| request.mounts = vec![mount(&dir)]).await;
        (bench.remove_dir)(&dir);
        let error = bench.engine.start(&id).await.unwrap_err();
        assert_eq!(error.kind, Kind::MountMissing, "{error}");
        assert_eq!(bench.state(&id).await, ContainerState::Created);
    }

    async fn starting_twice_is_success(bench) {
        let id = bench.started(|_| {}).await;
        bench.engine.start(&id).await.unwrap();
        assert_eq!(bench.state(&id).await, ContainerState::Running);
    }

    async fn a_port_held_by_a_foreign_process_is_taken_until_it_is_free(bench) {
        let (port, guard) = (bench.squat)();
        let id = bench.created(|request| request.host_port = Some(port)).await;
        let error = bench.engine.start(&id).await.unwrap_err();
        assert_eq!(error.kind, Kind::PortTaken, "{error}");
        let (container, detail) = bench.seen(&id).await;
        assert_eq!((container.state, detail.exit_code), (ContainerState::Created, None));
        assert!(!detail.error.is_empty());
        drop(guard);
        bench.engine.start(&id).await.unwrap();
        assert_eq!(bench.state(&id).await, ContainerState::Running);
    }

    async fn a_port_held_by_another_container_is_taken(bench) {
        let port = (bench.free_port)();
        bench.started(|request| request.host_port = Some(port)).await;
        let second = bench.created(|request| request.host_port = Some(port)).await;
        let error = bench.engine.start(&second).await.unwrap_err();
        assert_eq!(error.kind, Kind::PortTaken, "{error}");
        assert_eq!(bench.state(&second).await, ContainerState::Created);
        bench.engine.remove(&second).await.unwrap();
    }

    async fn a_command_that_does_not_exist_is_told_at_start(bench) {
        let id = bench.created(|request| {
            request.spec.init = false;
            request.spec.command = vec!["/nope".to_owned()];
        })
        .await;
        let error = bench.engine.start(&id).await.unwrap_err();
        assert_eq!(error.kind, Kind::CommandInvalid, "{error}");
        assert_eq!(bench.state(&id).await, ContainerState::Created);
    }

    /// The init starts, and it alone finds out.
    async fn behind_an_init_a_command_that_does_not_exist_is_exit_127(bench) {
        let id = bench.started(|request| request.spec.command = vec!["/nope".to_owned()]).await;
        let detail = bench.until(&id, ContainerState::Exited).await;
        assert_eq!(detail.exit_code, Some(127));
    }

    async fn limits_that_are_too_small_are_an_invalid_spec(bench) {
        let mut request = bench.request().await;
        request.spec.resources.memory = 1 << 20;
        assert_eq!(bench.engine.create(&request).await.unwrap_err().kind, Kind::InvalidSpec);
        let id = bench.started(|_| {}).await;
        let limits = request.spec.resources;
        assert_eq!(bench.engine.update(&id, limits).await.unwrap_err().kind, Kind::InvalidSpec);
    }

    async fn limits_change_in_place(bench) {
        let id = bench.started(|_| {}).await;
        let before = bench.seen(&id).await.1;
        for (memory, pids) in [(128_u64 << 20, 99), (32 << 20, 33)] {
            let limits = Resources { nano_cpus: 250_000_000, memory, pids };
            bench.engine.update(&id, limits).await.unwrap();
            let after = bench.seen(&id).await.1;
            assert_eq!(after.resources, limits);
            assert_eq!(after.started_at, before.started_at);
        }
    }

    async fn stopping_what_does_not_run_is_success(bench) {
        let id = bench.created(|_| {}).await;
        bench.engine.stop(&id, Duration::from_secs(1)).await.unwrap();
        bench.engine.start(&id).await.unwrap();
        bench.engine.stop(&id, Duration::from_secs(5)).await.unwrap();
        assert_eq!(bench.state(&id).await, ContainerState::Exited);
        bench.engine.stop(&id, Duration::from_secs(5)).await.unwrap();
    }

    async fn a_stop_has_ended_it_when_it_returns(bench) {
        let id = bench.started(|request| set(request, "EXIT_CODE", "7")).await;
        let before = bench.seen(&id).await.1;
        // The program may not listen for signals yet.
        let grace = Duration::from_secs(5);
        bench.engine.stop(&id, grace).await.unwrap();
        let (container, detail) = bench.seen(&id).await;
        assert_eq!(container.state, ContainerState::Exited);
        assert!(detail.exit_code.is_some());
        assert!(detail.finished_at > before.started_at);
        assert!(!detail.oom_killed);
    }

    async fn a_program_that_ignores_sigterm_is_killed_after_the_grace(bench) {
        let id = bench.started(|request| {
            request.spec.init = false;
            set(request, "IGNORE_TERM", "1");
        })
        .await;
        let begun = tokio::time::Instant::now();
        bench.engine.stop(&id, Duration::from_secs(2)).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1));
        let detail = bench.until(&id, ContainerState::Exited).await;
        assert_eq!((detail.exit_code, detail.oom_killed), (Some(137), false));
    }

    async fn a_program_that_ends_tells_its_exit_code_and_starts_again(bench) {
        let id = bench.started(|request| {
            set(request, "EXIT_AFTER_MS", "50");
            set(request, "EXIT_CODE", "3");
        })
        .await;
        let first = bench.until(&id, ContainerState::Exited).await;
        assert_eq!(first.exit_code, Some(3));
        assert!(first.finished_at >= first.started_at);
        bench.engine.start(&id).await.unwrap();
        let second = eventually(|| async {
            let detail = bench.seen(&id).await.1;
            (detail.started_at > first.started_at).then_some(detail)
        })
        .await;
        assert_eq!(second.image_id, first.image_id);
    }

    async fn a_paused_container_is_thawed_or_stopped_but_not_started(bench) {
        let id = bench.started(|_| {}).await;
        bench.engine.pause(&id).await.unwrap();
        bench.engine.pause(&id).await.unwrap();
        assert_eq!(bench.state(&id).await, ContainerState::Paused);
        assert_eq!(bench.engine.start(&id).await.unwrap_err().kind, Kind::Conflict);
        assert_eq!(bench.engine.remove(&id).await.unwrap_err().kind, Kind::Conflict);
        bench.engine.unpause(&id).await.unwrap();
        bench.engine.unpause(&id).await.unwrap();
        assert_eq!(bench.state(&id).await, ContainerState::Running);
        bench.engine.pause(&id).await.unwrap();
        bench.engine.stop(&id, Duration::from_secs(1)).await.unwrap();
        assert_eq!(bench.state(&id).await, ContainerState::Exited);
        assert_eq!(bench.engine.pause(&id).await.unwrap_err().kind, Kind::Conflict);
    }

    async fn a_running_container_is_not_removed(bench) {
        let id = bench.started(|_| {}).await;
        assert_eq!(bench.engine.remove(&id).await.unwrap_err().kind, Kind::Conflict);
        assert_eq!(bench.state(&id).await, ContainerState::Running);
    }

    async fn removed_at_once_by_many_it_is_gone_for_all(bench) {
        let id = bench.started(|_| {}).await;
        bench.engine.stop(&id, Duration::ZERO).await.unwrap();
        let tries = (0..6).map(|_| bench.engine.remove(&id));
        for answer in futures_util::future::join_all(tries).await {
            answer.unwrap();
        }
        assert_eq!(bench.engine.inspect(&id).await.unwrap(), None);
        assert_eq!(bench.engine.list().await.unwrap(), []);
    }

    async fn events_say_relist_first_and_then_what_happens(bench) {
        let mut events = bench.engine.events();
        assert_eq!(next(&mut events).await, EngineEvent::Relist);
        let mut theirs = bench.request().await;
        theirs.labels.insert(LABEL_INSTALLATION.to_owned(), bench.other_installation.clone());
        let foreign = bench.other.create(&theirs).await.unwrap();
        bench.other.start(&foreign).await.unwrap();
        let request = bench.request().await;
        let id = bench.engine.create(&request).await.unwrap();
        bench.engine.start(&id).await.unwrap();
        bench.engine.stop(&id, Duration::from_secs(5)).await.unwrap();
        bench.engine.remove(&id).await.unwrap();
        let mut told = Vec::new();
        while told.last().is_none_or(|last| last != "destroy") {
            let event = next(&mut events).await;
            let EngineEvent::Container { id: of, session, action } = event else {
                panic!("{event:?}")
            };
            assert_eq!(of, id, "an event of another's container");
            assert_eq!(session.unwrap().as_str(), request.labels[LABEL_SESSION]);
            told.push(action);
        }
        for action in ["create", "start", "die", "stop"] {
            assert!(told.iter().any(|one| one == action), "{action} is missing: {told:?}");
        }
    }

    async fn usage_of_a_running_container_is_sane(bench) {
        let id = bench.started(|_| {}).await;
        let detail = bench.seen(&id).await.1;
        for _ in 0..2 {
            let usage = bench.engine.usage(&id, &detail).await.unwrap();
            assert_eq!(usage.memory_limit_bytes, 64 << 20);
            assert!(usage.memory_bytes > 0 && usage.memory_bytes < 64 << 20, "{usage:?}");
            assert!((0.0..1000.0).contains(&usage.cpu_percent), "{usage:?}");
        }
        bench.engine.stop(&id, Duration::from_secs(5)).await.unwrap();
        let detail = bench.seen(&id).await.1;
        assert!(bench.engine.usage(&id, &detail).await.is_err());
    }

    async fn the_log_is_what_the_program_said(bench) {
        let id = bench.started(|request| {
            set(request, "EXIT_AFTER_MS", "50");
            set(request, "EXIT_CODE", "0");
        })
        .await;
        // Followed, it ends when the program ends.
        let all = text(bench.engine.logs(&id, true, None).await.unwrap()).await;
        assert_eq!(all.lines().count(), 2, "{all}");
        bench.until(&id, ContainerState::Exited).await;
        assert_eq!(text(bench.engine.logs(&id, false, None).await.unwrap()).await, all);
        let last = text(bench.engine.logs(&id, false, Some(1)).await.unwrap()).await;
        assert_eq!(last.lines().collect::<Vec<_>>(), [all.lines().last().unwrap()]);
        let nobody = ContainerId("0123456789ab".repeat(5) + "0000");
        let missing = bench.engine.logs(&nobody, false, None).await.err().unwrap();
        assert_eq!(missing.kind, Kind::NotFound);
    }

    async fn the_own_network_is_made_once_and_found_again(bench) {
        bench.engine.ensure_network().await.unwrap();
        bench.engine.ensure_network().await.unwrap();
        let port = (bench.free_port)();
        let id = bench.started(|request| {
            request.spec.network = Network::Docket;
            request.host_port = Some(port);
        })
        .await;
        let detail = bench.seen(&id).await.1;
        assert_eq!(detail.published, Some(([127, 0, 0, 1], port).into()));
        assert!(detail.inner.is_some());
    }

    async fn the_engine_says_what_it_is(bench) {
        let info = bench.engine.info().await.unwrap();
        assert!(info.api >= (1, 41), "{info:?}");
        assert!(!info.version.is_empty());
        assert_eq!(bench.engine.info().await.unwrap(), info);
    }
}

fn mount(source: &Path) -> BindMount {
    BindMount { source: source.to_owned(), target: "/opt/workspace".into(), read_only: false }
}

async fn next(events: &mut EventStream) -> EngineEvent {
    tokio::time::timeout(SOON, events.next()).await.expect("an event in time").unwrap()
}

async fn text(stream: docket::world::LogStream) -> String {
    let frames: Vec<_> = tokio::time::timeout(SOON, stream.collect()).await.expect("an end");
    let bytes: Vec<u8> = frames.into_iter().flat_map(Result::unwrap).collect();
    String::from_utf8(bytes).unwrap()
}
