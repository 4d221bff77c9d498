//! From a dropped file to Ready, against the bare API calls for the same container taken in the
//! same run: create, start, first 200. Prints both medians and their ratio; asserts no time.
//!
//! `cargo bench --bench ready` (PAIRS=10 for more pairs). Needs an engine and
//! `scripts/build-image`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stands outside: it measures with the wall clock and prints"
)]

#[path = "scale/bare.rs"]
#[allow(dead_code, reason = "each bench uses its part")]
mod bare;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bare::Bare;
use bollard::Docker;

const INSTALLATION: &str = "bench";
const FIRST_PORT: u16 = 22_900;

async fn floor(bare: &Bare, n: u16) -> Duration {
    let began = Instant::now();
    let id = bare.one(n, false).await;
    let took = began.elapsed();
    bare.down(&[id], 1).await;
    took
}

fn docket(dir: &std::path::Path, args: &[&str]) -> bool {
    Command::new(env!("CARGO_BIN_EXE_docket"))
        .args(args)
        .arg("--state")
        .arg(dir.join("state"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

fn dropped(dir: &std::path::Path, n: u16) -> Duration {
    let name = format!("bench-{n}");
    let text = format!(
        "apiVersion: docket.dev/v1\nkind: Session\nmetadata: {{name: {name}}}\n\
         spec: {{user: u{n}, case: c, class: bench}}\n"
    );
    std::fs::write(dir.join("staged"), text).unwrap();
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_docket"))
        .args(["wait", &name, "--for=ready", "--timeout", "60s", "--state"])
        .arg(dir.join("state"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(50)); // the waiter is connected before the drop
    let file = dir.join("specs").join(format!("{name}.yaml"));
    let began = Instant::now();
    std::fs::rename(dir.join("staged"), &file).unwrap();
    assert!(waiting.wait().unwrap().success(), "{name} did not get ready");
    let took = began.elapsed();
    std::fs::remove_file(file).unwrap();
    assert!(docket(dir, &["wait", &name, "--for=deleted", "--timeout", "60s"]));
    took
}

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort();
    all[all.len() / 2].as_secs_f64() * 1e3
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let pairs: u16 = std::env::var("PAIRS").ok().and_then(|n| n.parse().ok()).unwrap_or(7);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir(root.join("specs")).unwrap();
    let class = "apiVersion: docket.dev/v1\nkind: SessionClass\nmetadata: {name: bench}\nspec:\n  \
                 container: {image: docket-sample:latest, pullPolicy: Never, \
                 resources: {cpus: \"1\", memory: 64Mi, pids: 64}}\n";
    std::fs::write(root.join("specs/class.yaml"), class).unwrap();
    let config = format!(
        "specs: specs\nstate: state\nworkspaces: workspaces\nstore: file:{}\n\
         installation: {INSTALLATION}\nports: {FIRST_PORT}-{}\n",
        root.join("objects").display(),
        FIRST_PORT + 40
    );
    std::fs::write(root.join("docket.yaml"), config).unwrap();
    let mut operator = Command::new(env!("CARGO_BIN_EXE_docket"))
        .args(["run", "--config"])
        .arg(root.join("docket.yaml"))
        .env("DOCKET_LOG_LEVEL", "warn")
        .spawn()
        .unwrap();
    while !docket(root, &["get"]) {
        std::thread::sleep(Duration::from_millis(50));
    }
    dropped(root, 99); // the network is made, caches are warm
    let bare = Bare {
        docker: Docker::connect_with_local_defaults().unwrap(),
        first_port: FIRST_PORT + 50,
        workspaces: root.join("bare"),
    };
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for n in 0..pairs {
        theirs.push(floor(&bare, n).await);
        ours.push(dropped(root, n));
    }
    operator.kill().unwrap();
    operator.wait().unwrap();
    let _never_made =
        Command::new("docker").args(["network", "rm", "docket-bench"]).output().unwrap();
    let (floor, ours) = (median(theirs), median(ours));
    println!("file drop to Ready, {pairs} pairs, medians:");
    println!("  bare create + start + first 200   {floor:7.1} ms");
    println!("  docket                            {ours:7.1} ms   ratio {:.2}", ours / floor);
}
