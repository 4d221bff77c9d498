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

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, PortBinding};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
};

const FIRST_PORT: u16 = 22_900;

fn healthy(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let ask = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answer = [0; 12];
    stream.write_all(ask).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

async fn bare(docker: &Docker, n: u16, network: &str, workspace: &str) -> Duration {
    let port = FIRST_PORT + 50 + n;
    let name = format!("docket-bench-bare-{n}");
    let began = Instant::now();
    let binding =
        PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
    let body = ContainerCreateBody {
        image: Some("docket-sample:latest".into()),
        exposed_ports: Some(vec!["3000/tcp".into()]),
        host_config: Some(HostConfig {
            memory: Some(64 << 20),
            memory_swap: Some(64 << 20),
            nano_cpus: Some(1_000_000_000),
            pids_limit: Some(64),
            init: Some(true),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            network_mode: Some(network.into()),
            tmpfs: Some(HashMap::from([("/tmp".into(), "rw,noexec,nosuid,size=1g".into())])),
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(workspace.into()),
                target: Some("/opt/workspace".into()),
                ..Mount::default()
            }]),
            port_bindings: Some(HashMap::from([("3000/tcp".into(), Some(vec![binding]))])),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let made = docker.create_container(Some(options), body).await.unwrap();
    docker.start_container(&made.id, None::<StartContainerOptions>).await.unwrap();
    while !healthy(port) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&made.id, Some(force)).await.unwrap();
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
         installation: bench\nports: {FIRST_PORT}-{}\n",
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
    let docker = Docker::connect_with_local_defaults().unwrap();
    let bare_dir = root.join("bare");
    std::fs::create_dir(&bare_dir).unwrap();
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for n in 0..pairs {
        floor.push(bare(&docker, n, "docket-bench", bare_dir.to_str().unwrap()).await);
        ours.push(dropped(root, n));
    }
    operator.kill().unwrap();
    operator.wait().unwrap();
    let _never_made =
        Command::new("docker").args(["network", "rm", "docket-bench"]).output().unwrap();
    let (floor, ours) = (median(floor), median(ours));
    println!("file drop to Ready, {pairs} pairs, medians:");
    println!("  bare create + start + first 200   {floor:7.1} ms");
    println!("  docket                            {ours:7.1} ms   ratio {:.2}", ours / floor);
}
