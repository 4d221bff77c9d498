//! `docket run`: the wiring. Configuration, log, doors, the loop, the API, signals.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Guard, Reading, ServeError, Token};
use crate::apply::{Doors, Lanes, Metered};
use crate::clock::WallClock;
use crate::config::{Config, Flags, HttpRead, LogFormat, Store as Named, Surroundings};
use crate::crash;
use crate::docker::{Docker, DockerConfig};
use crate::git::Follower;
use crate::ledger::Sled;
use crate::model::{Bounds, Origin};
use crate::objects::Store;
use crate::objects::directory::Directory;
use crate::objects::s3::{S3, S3Config};
use crate::operator::handle::{Ask, Handle};
use crate::operator::{Operator, Settings, rebuild};
use crate::probe::HttpProbe;
use crate::workspace::Local;
use crate::world::{Clock as _, Engine as _, Ledger as _, Meter, StoreError};

use super::Context;
use super::exit::{Code, Failure, chain};

/// How a key is written as a variable.
const VARIABLES: &str = "Variables: DOCKET_ and the key in capitals, `_` for each dot and before \
each inner capital: DOCKET_TICK, DOCKET_S3_ENDPOINT, DOCKET_LIMITS_PER_USER, \
DOCKET_CONTAINER_PREFIX (also without the inner `_`). A flag wins over a variable, a variable \
over the file. Relative paths are relative to the file; without one, to where docket is started.";

#[derive(Debug, clap::Args)]
#[command(after_help = VARIABLES)]
pub(super) struct Run {
    #[command(flatten)]
    flags: Flags,
}

/// The loop and the ways to it.
struct Running {
    handle: Handle,
    /// Takes changed settings.
    settings: mpsc::Sender<Settings>,
    /// Takes changed bounds of specs.
    bounds: watch::Sender<Bounds>,
    /// Ends when the loop has.
    ended: JoinHandle<()>,
    /// No other operator has this engine and installation.
    _sole: Option<std::fs::File>,
}

/// From the signal to the exit; the loop itself takes at most eight seconds.
const STOP_WITHIN: Duration = Duration::from_secs(9);

pub(super) fn run(context: &Context, asked: &Run) -> Result<Code, Failure> {
    let around = context.surroundings(&asked.flags);
    let config = Config::load(&around)?;
    log(&config, context.global.no_color)?;
    if let Some(text) = around.env.get("DOCKET_CRASH") {
        crash::arm(text).map_err(|error| Failure::input(error.to_string()))?;
    }
    share_free_memory();
    super::privileges::drop_what_is_not_needed();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))?;
    let ended = runtime.block_on(operate(config, around));
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

fn log(config: &Config, no_color: bool) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    // rusoto's debug log prints the authorization header.
    let directives = format!("{},rusoto_core=info", config.log.level);
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Failure::input(format!("log.level: {error}")))?;
    let color = !no_color
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color);
    match config.log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

/// The engine that the configuration names; nothing is connected yet.
pub(super) fn engine(config: &Config) -> Result<Docker, String> {
    Docker::new(DockerConfig { host: Some(config.docker.clone()), identity: config.identity() })
        .map_err(|error| error.to_string())
}

async fn operate(config: Config, around: Surroundings) -> Result<Code, Failure> {
    let signals = Signals::listen()?;
    let shutdown = CancellationToken::new();
    let mut running = Box::pin(start(&config, &shutdown)).await?;
    let served = serve(&config, &running.handle, &shutdown).await;
    let ended = match served {
        Ok(serving) => attend(signals, &config, &around, &mut running, serving).await,
        Err(failure) => Err(failure),
    };
    say(&sd_notify::NotifyState::Stopping);
    shutdown.cancel();
    if !running.ended.is_finished() {
        let _late_or_panicked = tokio::time::timeout(STOP_WITHIN, &mut running.ended).await;
    }
    ended
}

/// Opens the doors, locks what may have one operator only, and sets the loop going.
async fn start(config: &Config, shutdown: &CancellationToken) -> Result<Running, Failure> {
    let meter = Arc::new(Meter::default());
    let engine = engine(config).map_err(Failure::failed)?;
    let engine = Metered::new(engine, Arc::clone(&meter));
    let about = format!("state {}", config.state.display());
    let sole = super::sole::take(&config.docker, config.installation.as_str(), &about)
        .map_err(Failure::failed)?;
    let workspaces = Local::open_as(&config.workspaces, &about)
        .map_err(|error| Failure::failed(chain(&error)))?;
    let objects = Arc::new(Metered::new(store(config)?, Arc::clone(&meter)));
    let lanes = Lanes::new(descriptors());
    lanes.rooms.set_floor(config.min_free);
    let (store, rooms) = (Arc::clone(&objects), lanes.rooms.clone());
    let (failures, coming) = (lanes.failures.clone(), lanes.coming.clone());
    let lazily = (rooms, failures, coming);
    let gate = super::lazy::begin(&workspaces, store, lazily, Arc::clone(&meter)).await?;
    let ledger = Sled::open(&config.state).map_err(|error| Failure::failed(chain(&error)))?;
    let contents = ledger.load().await.map_err(|error| Failure::failed(chain(&error)))?;
    let (book, rebuilt) = rebuild(ledger, &contents, &workspaces, WallClock.now())
        .await
        .map_err(|error| Failure::failed(chain(&error)))?;
    if let Some(why) = &contents.rebuilt {
        let containers = || async { engine.list().await.is_ok_and(|all| !all.is_empty()) };
        let records = !book.by_name().is_empty() || !rebuilt.applied.is_empty();
        if why != "new" || records || containers().await {
            tracing::warn!(%why, "the ledger was lost; records come back from their copies");
        } else {
            tracing::info!("a first start: nothing is remembered yet");
        }
    }
    Box::pin(super::lazy::guard(gate.as_ref(), &engine, &workspaces, &book)).await?;
    if let Store::S3(s3) = objects.door() {
        tokio::spawn(sweep_uploads((**s3).clone()));
    }
    let doors = Doors {
        engine,
        objects,
        workspaces,
        book,
        clock: WallClock,
        identity: config.identity(),
        secret_files: config.allow.secret_files.clone(),
        engine_socket: config.docker.trim_start_matches("unix://").into(),
        quarantine: Mutex::default(),
        lanes,
        meter,
    };
    let (bounds, within) = watch::channel(config.bounds());
    let Specs { sources, rescan, origin } = specs(config, within)?;
    let (settings, changed) = mpsc::channel(1);
    let (operator, mut handle) = Operator::new(
        Arc::new(doors),
        Arc::new(HttpProbe),
        config.settings(),
        rebuilt,
        sources,
        changed,
        rescan,
    );
    if let Some(origin) = origin {
        handle.origin = origin;
    }
    let ended = tokio::spawn(operator.run(shutdown.clone()));
    Ok(Running { handle, settings, bounds, ended, _sole: sole })
}

/// Where specs come from.
struct Specs {
    sources: mpsc::Receiver<crate::spec::Sources>,
    rescan: mpsc::Sender<()>,
    origin: Option<watch::Receiver<Option<Origin>>>,
}

/// Watches the directory; that of a repository's revision in force, if there is one.
fn specs(config: &Config, bounds: watch::Receiver<Bounds>) -> Result<Specs, Failure> {
    let watch = |revisions: bool| {
        crate::watch::spawn(crate::watch::Options {
            root: config.specs.clone(),
            writable: config.allow.writable_specs,
            marker: (!revisions).then(|| config.state.join("specs-root")),
            revisions,
        })
    };
    let Some(remote) = &config.git.remote else {
        let (sources, rescan) = watch(false);
        return Ok(Specs { sources, rescan, origin: None });
    };
    let options = crate::git::Options {
        remote: remote.clone(),
        cache: config.revisions(),
        interval: config.git.interval,
        verify: config.git.verify.clone(),
        credentials: config.git.credentials.clone(),
        ssh_key: config.git.ssh_key.clone(),
        known_hosts: config.git.known_hosts.clone(),
    };
    let cache = options.cache.clone();
    let (follower, origin) = Follower::open(options, bounds)
        .map_err(|error| Failure::failed(format!("{}: {error}", cache.display())))?;
    let (sources, swapped) = watch(true);
    let (rescan, asked) = mpsc::channel(1);
    tokio::spawn(follower.follow(asked, swapped));
    Ok(Specs { sources, rescan, origin: Some(origin) })
}

/// Lets threads share memory that was given back. By default each of them has its own, and what the
/// transfers of many sessions used once would stay with all of them.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt takes two numbers and touches nothing of ours")]
fn share_free_memory() {
    // Source: mallopt(3). A refusal changes nothing.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

#[cfg(not(target_env = "gnu"))]
fn share_free_memory() {}

/// How many descriptors this process may hold: as many as it is allowed to ask for.
fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let now = getrlimit(Resource::Nofile).current;
    now.map_or(usize::MAX, |now| usize::try_from(now).unwrap_or(usize::MAX))
}

/// The store that the configuration names; S3 is not asked anything yet.
fn store(config: &Config) -> Result<Store, Failure> {
    let wrong = |error: StoreError| Failure::failed(chain(&error));
    match &config.store {
        Named::Directory(root) => Directory::open(root, "").map(Store::Directory).map_err(wrong),
        Named::S3 { bucket, prefix } => {
            let how = S3Config {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                endpoint: config.s3.endpoint.clone(),
                region: config.s3.region.clone(),
                path_style: config.s3.path_style,
                ca_file: config.s3.ca_file.clone(),
                max_bandwidth: config.s3.max_bandwidth,
                max_concurrent: config.s3.max_concurrent,
            };
            S3::new(&how).map(|s3| Store::S3(Box::new(s3))).map_err(wrong)
        }
    }
}

/// An operator that was killed may have left uploads in parts behind. A day is longer than any of
/// another operator takes; those of our own are known.
async fn sweep_uploads(s3: S3) {
    const OLDER: Duration = Duration::from_hours(24);
    let mut turns = tokio::time::interval(Duration::from_hours(6));
    loop {
        turns.tick().await;
        match s3.abort_stale(WallClock.now(), OLDER).await {
            Ok(0) => (),
            Ok(count) => tracing::info!(count, "unfinished uploads of an earlier run are aborted"),
            Err(error) => tracing::debug!(%error, "unfinished uploads are looked for later"),
        }
    }
}

/// Serves the API: the socket always, TCP if asked for.
async fn serve(
    config: &Config,
    handle: &Handle,
    shutdown: &CancellationToken,
) -> Result<Vec<JoinHandle<Result<(), ServeError>>>, Failure> {
    let wrong = |error: ServeError| Failure::failed(chain(&error));
    let bound = api::bind_unix(&config.socket()).await.map_err(wrong)?;
    let token = Token::ensure(&config.state).map_err(|error| Failure::failed(chain(&error)))?;
    let mut serving = Vec::new();
    if let Some(address) = config.listen {
        let listener = tokio::net::TcpListener::bind(address).await.map_err(|error| {
            Failure::failed(format!("cannot listen at {address}: {error}"))
                .hint("set `listen:` to a free address")
        })?;
        let reading = match config.http_read {
            HttpRead::Token => Reading::Token,
            HttpRead::Open => Reading::Open,
        };
        let guard = Guard { token, reading };
        let (handle, shutdown) = (handle.clone(), shutdown.clone());
        serving.push(tokio::spawn(api::serve_tcp_on(listener, guard, handle, shutdown)));
        tracing::info!(%address, "serving HTTP");
    }
    let socket = api::serve_unix(bound, handle.clone(), shutdown.clone());
    serving.push(tokio::spawn(socket));
    tracing::info!(socket = %config.socket().display(), "serving");
    Ok(serving)
}

/// The signals an operator heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("no signals can be had: {error}")))
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            reload: listen(SignalKind::hangup())?,
        })
    }
}

/// Runs until a signal, or until something that must not end has ended.
async fn attend(
    mut signals: Signals,
    config: &Config,
    around: &Surroundings,
    running: &mut Running,
    mut serving: Vec<JoinHandle<Result<(), ServeError>>>,
) -> Result<Code, Failure> {
    say(&sd_notify::NotifyState::Ready);
    let dog = tokio::spawn(watchdog(running.handle.clone()));
    let ended = loop {
        let any_served = futures_util::future::select_all(serving.iter_mut());
        tokio::select! {
            _ = signals.terminate.recv() => {
                tracing::info!("told to end; containers stay as they are");
                break Ok(Code::Done);
            }
            _ = signals.interrupt.recv() => {
                tracing::info!("interrupted; containers stay as they are");
                break Ok(Code::Done);
            }
            _ = signals.reload.recv() => reload(config, around, running).await,
            ended = &mut running.ended => {
                let why = ended.err().map_or(String::new(), |error| format!(": {error}"));
                break Err(Failure::failed(format!("the loop ended by itself{why}")));
            }
            (ended, _, _) = any_served => {
                let why = match ended {
                    Ok(Ok(())) => "the API ended by itself".to_owned(),
                    Ok(Err(error)) => chain(&error),
                    Err(error) => error.to_string(),
                };
                break Err(Failure::failed(why));
            }
        }
    };
    dog.abort();
    ended
}

/// SIGHUP. A configuration that is not acceptable changes nothing.
async fn reload(config: &Config, around: &Surroundings, running: &Running) {
    let newer = match Config::load(around) {
        Ok(newer) => newer,
        Err(error) => {
            let why = chain(&error);
            return tracing::error!(%why, "the configuration stays as it was");
        }
    };
    let fixed = config.fixed_differences(&newer);
    if !fixed.is_empty() {
        tracing::warn!(
            keys = fixed.join(", "),
            "changed, but only a restart brings them into force"
        );
    }
    running.bounds.send_replace(newer.bounds());
    let settings = Settings { workspaces: config.workspaces.clone(), ..newer.settings() };
    let _the_loop_has_ended = running.settings.send(settings).await;
    let _the_loop_has_ended = running.handle.asks.send(Ask::Rescan).await;
    tracing::info!("configuration read again");
}

/// Tells systemd that the loop still answers.
async fn watchdog(handle: Handle) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(within / 2);
    loop {
        ticks.tick().await;
        let answer = tokio::time::timeout(within / 2, handle.ask(Ask::Sources)).await;
        if answer.is_ok_and(|answer| answer.is_ok()) {
            say(&sd_notify::NotifyState::Watchdog);
        }
    }
}

fn say(state: &sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "systemd was not told");
    }
}
