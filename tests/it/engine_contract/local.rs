//! What only shows on a real engine of this machine: confinement seen from inside, isolation of
//! the network, and an engine that is killed and comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use docket::docker::{Docker, DockerConfig, Isolation};
use docket::model::{ContainerPrefix, ContainerState, Identity, Installation, Network, PullPolicy};
use docket::probe::HttpProbe;
use docket::world::{Engine, EngineErrorKind, EngineEvent, Probe, ProbeOutcome};
use futures_util::StreamExt;

use super::rules::{Bench, eventually, hold};
use super::{Networks, bench};

/// The body of the sample's answer.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

async fn until_healthy(address: SocketAddr) {
    eventually(|| async {
        let outcome = HttpProbe.probe(address, "/health", Duration::from_secs(2)).await;
        (outcome == ProbeOutcome::Healthy).then_some(())
    })
    .await;
}

fn post(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = "HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    write!(stream, "POST {path} {head}").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_processes_and_memory_are_bounded() {
    let bench = bench();
    let rule = async {
        // The engine learns of the kernel's kill and of the end from two sources, and says "out of memory" only if it
        // heard of the kill first: on a busy machine not every time.
        for round in 1.. {
            let port = (bench.free_port)();
            let id = bench
                .started(|request| {
                    request.host_port = Some(port);
                    request.spec.init = false;
                })
                .await;
            let address = bench.seen(&id).await.1.published.unwrap();
            until_healthy(address).await;
            let got = post(address, "/fork?n=500").unwrap();
            let digits: String = got.chars().filter(char::is_ascii_digit).collect();
            assert!(digits.parse::<u32>().unwrap() < 64, "{got}");
            let _killed = post(address, "/eat?mb=500");
            let detail = bench.until(&id, ContainerState::Exited).await;
            assert_eq!(detail.exit_code, Some(137));
            if detail.oom_killed {
                return;
            }
            assert!(round < 5, "five times out of memory, and never told so");
        }
    };
    hold(&bench, Box::pin(rule)).await;
}

/// Whether a TCP connection can be made from inside a container's network.
fn reaches(pid: i32, address: SocketAddr) -> bool {
    let script = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
    let pid = pid.to_string();
    let arguments = ["-t", &pid, "-n", "timeout", "1", "bash", "-c", &script];
    Command::new("nsenter").args(arguments).output().unwrap().status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_are_seen_from_inside() {
    let bench = bench();
    let _networks = Networks::of(&bench);
    let rule = async {
        let port = (bench.free_port)();
        let id = bench
            .started(|request| {
                request.host_port = Some(port);
                request.spec.security.run_as = "1000:1000".to_owned();
                request.spec.env.insert("FEATURE_X".to_owned(), "on".to_owned());
            })
            .await;
        let (_, detail) = bench.seen(&id).await;
        let address = detail.published.unwrap();
        until_healthy(address).await;
        assert!(get(address, "/env").lines().any(|line| line == "FEATURE_X=on"));
        let info = get(address, "/info");
        let field = |name: &str| {
            let line = info.lines().find(|line| line.starts_with(name)).expect(name);
            line[name.len()..].trim().to_owned()
        };
        assert_eq!(field("Uid:"), "1000 1000 1000 1000");
        assert_eq!(field("CapEff:"), "0000000000000000");
        assert_eq!(field("CapBnd:"), "0000000000000001", "CHOWN and nothing else");
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    };
    hold(&bench, Box::pin(rule)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t13_tenants_reach_neither_each_other_nor_the_host_nor_the_metadata_service() {
    let bench = bench();
    let _networks = Networks::of(&bench);
    hold(&bench, Box::pin(isolated(&bench))).await;
}

/// The host's address on the installation's bridge.
fn gateway_of(installation: &str) -> std::net::IpAddr {
    let name = format!("docket-{installation}");
    let format = "{{(index .IPAM.Config 0).Gateway}}";
    let arguments = ["network", "inspect", "-f", format, &name];
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Something behind the host answers under two addresses: an ordinary one, which a tenant
/// reaches, and a link-local one like the metadata service's, which it does not.
async fn beyond_the_host(bench: &Bench<Docker>, tenant: i32) {
    let id = bench.started(|request| request.spec.network = Network::None).await;
    let pid = bench.seen(&id).await.1.pid.unwrap().to_string();
    let tag = std::process::id() % 200;
    let script = format!(
        "set -e
         ip link add dkh{tag} type veth peer name dkn{tag}
         ip link set dkn{tag} netns {pid}
         ip addr add 198.18.{tag}.1/30 dev dkh{tag}
         ip link set dkh{tag} up
         nsenter -t {pid} -n sh -ec '
             ip addr add 198.18.{tag}.2/30 dev dkn{tag}
             ip addr add 169.254.77.{tag}/32 dev dkn{tag}
             ip link set dkn{tag} up
             ip route add default via 198.18.{tag}.1'
         ip route add 169.254.77.{tag}/32 via 198.18.{tag}.2"
    );
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let made = Command::new("sh").args(["-c", &script]).env("PATH", path).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let ordinary: SocketAddr = format!("198.18.{tag}.2:3000").parse().unwrap();
    let metadata: SocketAddr = format!("169.254.77.{tag}:3000").parse().unwrap();
    until_healthy(metadata).await; // From the host itself.
    assert!(reaches(tenant, ordinary), "the way there works");
    assert!(!reaches(tenant, metadata), "what is link-local");
    // Its network, and with it the host's end and its routes, ends with the container.
}

async fn isolated(bench: &Bench<Docker>) {
    assert_eq!(bench.engine.isolation().await.unwrap(), Isolation::Enforced);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let port = (bench.free_port)();
        let id = bench
            .started(|request| {
                request.host_port = Some(port);
                request.spec.network = Network::Docket;
            })
            .await;
        let detail = bench.seen(&id).await.1;
        // Published, it answers the operator: on loopback and on its own address.
        until_healthy(detail.published.unwrap()).await;
        until_healthy((detail.inner.unwrap(), 3000).into()).await;
        seen.push(detail);
    }
    let pid = seen[0].pid.unwrap();
    let own = SocketAddr::from((seen[0].inner.unwrap(), 3000));
    let neighbour = SocketAddr::from((seen[1].inner.unwrap(), 3000));
    assert!(reaches(pid, own), "the way of looking works");
    assert!(!reaches(pid, neighbour), "the neighbour's container port");
    let host = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let gateway = SocketAddr::new(gateway_of(&bench.installation), port);
    assert!(TcpStream::connect(gateway).is_ok(), "the host itself reaches {gateway}");
    assert!(!reaches(pid, gateway), "the host's own address");
    beyond_the_host(bench, pid).await;
    let rules = Command::new("/usr/sbin/iptables").args(["-S", "DOCKER-USER"]).output().unwrap();
    let listed = String::from_utf8(rules.stdout).unwrap();
    let comment = format!("--comment docket-{} ", bench.installation);
    let ours = listed.lines().filter(|line| line.contains(&comment));
    let metadata: Vec<_> = ours.filter(|line| line.contains("-d 169.254.0.0/16")).collect();
    assert_eq!(metadata.len(), 1, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_network_of_that_name_is_not_used() {
    let bench = bench();
    let _networks = Networks::of(&bench);
    let name = format!("docket-{}", bench.installation);
    let made = Command::new("docker").args(["network", "create", &name]).output().unwrap();
    assert!(made.status.success());
    let error = bench.engine.ensure_network().await.unwrap_err();
    assert_eq!(error.kind, EngineErrorKind::Conflict);
    assert!(error.message.contains(&format!("docker network rm {name}")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_does_not_answer_is_a_failed_pull_that_names_the_image() {
    let bench = bench();
    let nobody = "127.0.0.1:1/nope";
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Always] {
        let error = bench.engine.resolve_image(nobody, policy).await.unwrap_err();
        assert_eq!(error.kind, EngineErrorKind::PullFailed, "{error}");
        assert!(error.message.contains("127.0.0.1:1/nope"), "{error}");
    }
}

/// An engine of the test's own, ended with it.
struct PrivateEngine(tempfile::TempDir);

impl PrivateEngine {
    fn start() -> PrivateEngine {
        let engine = PrivateEngine(tempfile::Builder::new().prefix("dke").tempdir().unwrap());
        engine.run("start");
        engine
    }

    fn run(&self, command: &str) {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/private-engine");
        let output = Command::new(script).arg(command).arg(self.0.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "private-engine {command}: {said}");
    }

    fn docker(&self) -> Docker {
        let identity = Identity {
            installation: Installation::parse("private").unwrap(),
            prefix: ContainerPrefix::parse("docket").unwrap(),
            bind: "127.0.0.1".parse().unwrap(),
        };
        let host = Some(format!("unix://{}/docker.sock", self.0.path().display()));
        Docker::new(DockerConfig { host, identity }).unwrap()
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.run("stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_is_gone_and_unknown_and_another_run_when_it_is_back() {
    let engine = PrivateEngine::start();
    let docker = engine.docker();
    let mut events = docker.events();
    assert_eq!(next(&mut events).await, EngineEvent::Relist);
    let first = docker.info().await.unwrap();
    assert!(first.started_at.is_some(), "{first:?}");
    engine.run("kill");
    assert!(matches!(next(&mut events).await, EngineEvent::Gone(_)));
    // A call that had just begun breaks off instead.
    let kind = docker.list().await.unwrap_err().kind;
    assert!(matches!(kind, EngineErrorKind::Unreachable | EngineErrorKind::Broken), "{kind:?}");
    engine.run("dockerd");
    assert_eq!(next(&mut events).await, EngineEvent::Relist);
    assert_eq!(docker.list().await.unwrap(), []);
    let second = docker.info().await.unwrap();
    assert!(second.started_at > first.started_at, "{first:?} {second:?}");
}

async fn next(events: &mut docket::world::EventStream) -> EngineEvent {
    let wait = Duration::from_mins(1);
    tokio::time::timeout(wait, events.next()).await.expect("an event in time").unwrap()
}
