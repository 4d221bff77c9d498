//! Many sessions on the real engine, each beside a floor taken in the same run and in turn:
//!
//! 1. Converge: from the dropped files to all Ready, against create, start and the first 200, four
//!    and eight at a time, whichever is quicker; and against docker-compose where it is installed.
//! 2. Teardown: from the removed files to all gone, against stop and remove, eight at a time.
//! 3. Drift: from a killed process to the next 200, against the engine's own `restart=always`.
//! 4. Restart: from a started operator to all Ready, against a listing and a probe each.
//!
//! Prints rows of medians and ratios; asserts no time. `cargo bench --bench scale` (SIZES=10,50,100,
//! ROUNDS=3, COMPOSE=0). Needs root, an engine and `scripts/build-image`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stands outside: it measures with the wall clock and prints"
)]

#[path = "scale/bare.rs"]
mod bare;
#[path = "scale/rig.rs"]
#[allow(dead_code, reason = "each bench uses its part")]
mod rig;
#[path = "scale/table.rs"]
mod table;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bare::Bare;
use bollard::Docker;
use rig::Rig;
use rustix::process::{Pid, Signal, kill_process};

const INSTALLATION: &str = "bench-scale";
const FIRST_PORT: u16 = 23_000;
/// A vanished file counts after two looks this far apart, by promise.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// How many processes are killed.
const KILLS: u16 = 7;
/// How often the operator is.
const RESTARTS: usize = 5;

/// One round of one size.
struct Round {
    up: Duration,
    up_floor: Duration,
    down: Duration,
    down_floor: Duration,
}

async fn floor(bare: &Bare, sessions: u16, abreast: usize) -> (Duration, Duration) {
    let began = Instant::now();
    let ids = bare.up(sessions, abreast, false).await;
    let up = began.elapsed();
    let began = Instant::now();
    bare.down(&ids, 8).await;
    (up, began.elapsed())
}

async fn round(rig: &Rig, bare: &Bare, sessions: u16, number: usize) -> Round {
    let four = floor(bare, sessions, 4).await;
    let names: Vec<String> = (0..sessions).map(|n| format!("s{sessions}-{number}-{n}")).collect();
    rig.stage(&names);
    let mut watch = rig.watch();
    let began = Instant::now();
    rig.drop_in(&names);
    watch.until_ready(&names);
    let up = began.elapsed();
    let began = Instant::now();
    rig.take_away(&names);
    watch.until(|all| names.iter().all(|name| !all.contains_key(name)));
    let down = began.elapsed();
    let eight = floor(bare, sessions, 8).await;
    Round { up, up_floor: four.0.min(eight.0), down, down_floor: four.1.min(eight.1) }
}

async fn converge(rig: &Rig, bare: &Bare, sessions: u16, rounds: usize) -> Duration {
    let mut all = Vec::new();
    for number in 0..rounds {
        all.push(round(rig, bare, sessions, number).await);
    }
    let of = |part: fn(&Round) -> Duration| all.iter().map(part).collect::<Vec<_>>();
    let floor = of(|round| round.up_floor);
    table::ratio(&format!("converge {sessions}"), &of(|round| round.up), &floor, "1.05");
    let (down, down_floor) = (of(|round| round.down), of(|round| round.down_floor));
    table::ratio(&format!("teardown {sessions}, files removed"), &down, &down_floor, "");
    let rest: Vec<_> = down.iter().map(|down| down.saturating_sub(SECOND_LOOK)).collect();
    let what = format!("teardown {sessions}, from the second look at what vanished");
    table::ratio(&what, &rest, &down_floor, "1.05");
    table::median(&of(|round| round.up))
}

/// Each container is killed once: whoever ends often is started later and later by both.
async fn drift(rig: &Rig, bare: &Bare) {
    let names: Vec<String> = (0..KILLS).map(|n| format!("kill-{n}")).collect();
    rig.stage(&names);
    let mut watch = rig.watch();
    rig.drop_in(&names);
    watch.until_ready(&names);
    let always = bare.up(KILLS, 4, true).await;
    let ours = bare.ids().await;
    // What begins with a session, its first sync, is over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (mut healed, mut floor) = (Vec::new(), Vec::new());
    for (id, other) in ours.iter().zip(&always) {
        healed.push(kill(bare, id).await);
        floor.push(kill(bare, other).await);
    }
    table::ratio("killed to healthy again", &healed, &floor, "1.10");
    bare.down(&always, 8).await;
    rig.take_away(&names);
    watch.until(|all| names.iter().all(|name| !all.contains_key(name)));
}

async fn kill(bare: &Bare, id: &str) -> Duration {
    let seen = bare.docker.inspect_container(id, None).await.unwrap();
    let ports = seen.network_settings.unwrap().ports.unwrap();
    let port = ports["3000/tcp"].as_ref().unwrap()[0].host_port.as_ref().unwrap().parse().unwrap();
    let (pid, _) = bare.process(id).await;
    let began = Instant::now();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    // Its end is the end of all processes in its namespace. Until then one may still answer.
    let runs = |stat: String| !stat.contains(") Z") && !stat.contains(") X");
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(runs) {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    bare::until_healthy(port).await;
    began.elapsed()
}

async fn restart(rig: &mut Rig, bare: &Bare, sessions: u16) {
    let names: Vec<String> = (0..sessions).map(|n| format!("live-{n}")).collect();
    rig.stage(&names);
    let mut watch = rig.watch();
    rig.drop_in(&names);
    watch.until_ready(&names);
    let ports: Vec<u16> = names.iter().map(|name| watch.sessions[name].port).collect();
    let before = runs(bare).await;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..RESTARTS {
        let began = Instant::now();
        bare.look(&ports).await;
        floor.push(began.elapsed());
        rig.kill();
        let began = Instant::now();
        rig.start();
        watch = rig.watch();
        watch.until_ready(&names);
        ours.push(began.elapsed());
    }
    assert_eq!(before, runs(bare).await, "containers were restarted");
    table::ratio(&format!("operator restarted among {sessions}"), &ours, &floor, "1.3");
    rig.take_away(&names);
    watch.until(|all| names.iter().all(|name| !all.contains_key(name)));
}

/// Which containers there are, and since when each runs.
async fn runs(bare: &Bare) -> std::collections::BTreeMap<String, String> {
    let mut all = std::collections::BTreeMap::new();
    for id in bare.ids().await {
        let (_, since) = bare.process(&id).await;
        all.insert(id, since);
    }
    all
}

/// The same containers by docker-compose, if it is there: up, then all healthy.
async fn compose(rig: &Rig, bare: &Bare, sessions: u16) -> Option<Duration> {
    let mut text = format!(
        "version: '2.4'\nnetworks: {{default: {{external: {{name: docket-{INSTALLATION}}}}}}}\n\
         services:\n"
    );
    for n in 0..sessions {
        let workspace = rig.dir().join(format!("composed/{n}"));
        std::fs::create_dir_all(&workspace).unwrap();
        text.push_str(&format!(
            "  s{n}:\n    image: docket-sample:latest\n    init: true\n    mem_limit: 64m\n    \
             cpus: 1\n    pids_limit: 64\n    cap_drop: [ALL]\n    security_opt: \
             [no-new-privileges]\n    tmpfs: ['/tmp:rw,noexec,nosuid,size=1g']\n    volumes: \
             ['{}:/opt/workspace']\n    ports: ['127.0.0.1:{}:3000']\n",
            workspace.display(),
            bare.first_port + n
        ));
    }
    let file = rig.dir().join("docker-compose.yml");
    std::fs::write(&file, text).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new("docker-compose");
        command.args(["-p", "docket-bench", "-f"]).arg(&file).args(args);
        command.env("COMPOSE_HTTP_TIMEOUT", "120").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let began = Instant::now();
    if !run(&["up", "-d"]) {
        return None;
    }
    for n in 0..sessions {
        bare::until_healthy(bare.first_port + n).await;
    }
    let took = began.elapsed();
    assert!(run(&["rm", "--stop", "--force"]));
    Some(took)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or(default.to_owned());
    let sizes = setting("SIZES", "10,50,100");
    let sizes: Vec<u16> = sizes.split(',').map(|size| size.trim().parse().unwrap()).collect();
    let rounds: usize = setting("ROUNDS", "3").parse().unwrap();
    let class = "  container: {image: docket-sample:latest, pullPolicy: Never, resources: {cpus: \
                 \"1\", memory: 64Mi, pids: 64}}\n";
    let config = format!(
        "installation: {INSTALLATION}\ncontainerPrefix: {INSTALLATION}\nports: {FIRST_PORT}-{}\n",
        FIRST_PORT + 399
    );
    let mut rig = Rig::new(class, &config);
    let bare = Bare {
        docker: Docker::connect_with_local_defaults().unwrap(),
        first_port: FIRST_PORT + 400,
        workspaces: rig.dir().join("bare"),
    };
    // The network is made, caches are warm.
    let first = ["first".to_owned()];
    rig.stage(&first);
    rig.drop_in(&first);
    let mut watch = rig.watch();
    watch.until_ready(&first);
    rig.take_away(&first);
    watch.until(std::collections::BTreeMap::is_empty);
    table::head();
    for size in &sizes {
        let rounds = if *size > 50 { rounds.div_ceil(2) } else { rounds };
        let ours = converge(&rig, &bare, *size, rounds).await;
        if *size == 50
            && setting("COMPOSE", "1") != "0"
            && let Some(took) = compose(&rig, &bare, *size).await
        {
            table::ratio("converge 50, docker-compose as the floor", &[ours], &[took], "0.85");
        }
    }
    drift(&rig, &bare).await;
    restart(&mut rig, &bare, sizes.iter().copied().max().unwrap_or(100)).await;
    rig.kill();
    let _network = Command::new("scripts/forget").arg(INSTALLATION).stdout(Stdio::null()).status();
}
