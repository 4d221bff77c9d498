//! The engine contract against a real engine: the local one, or `DOCKET_TEST_ENGINE`'s.

mod local;
pub mod rules;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use docket::docker::{Docker, DockerConfig};
use docket::model::{ContainerPrefix, Identity, Installation};

use crate::support::image;
use rules::Bench;

/// `DOCKET_TEST_ENGINE`, else empty: the default engine.
fn host() -> String {
    std::env::var("DOCKET_TEST_ENGINE").unwrap_or_default()
}

fn docker(installation: &str) -> Docker {
    let identity = Identity {
        installation: Installation::parse(installation).unwrap(),
        prefix: ContainerPrefix::parse("docket").unwrap(),
        bind: "127.0.0.1".parse().unwrap(),
    };
    Docker::new(DockerConfig { host: Some(host()), identity }).unwrap()
}

/// A bench on the real engine, with an installation of its own.
fn bench() -> Bench<Docker> {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    image::ensure_sample(&host());
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let installation = format!("contract-{}-{number}", std::process::id());
    let other_installation = format!("{installation}-other");
    Bench {
        engine: docker(&installation),
        other: docker(&other_installation),
        installation,
        other_installation,
        image: image::SAMPLE.to_owned(),
        squat: Box::new(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            (listener.local_addr().unwrap().port(), Box::new(listener))
        }),
        free_port: Box::new(|| {
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
        }),
        make_dir: Box::new(|| tempfile::Builder::new().prefix("docket-").tempdir().unwrap().keep()),
        remove_dir: Box::new(|path| std::fs::remove_dir(path).unwrap()),
    }
}

/// Removes an installation's network and its rules, however the test ends: `Engine` has no call
/// for it, since docket never removes a network.
struct Networks(Vec<String>);

impl Networks {
    fn of(bench: &Bench<Docker>) -> Networks {
        Networks(vec![bench.installation.clone(), bench.other_installation.clone()])
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for installation in &self.0 {
            crate::support::forget(installation, &host());
        }
    }
}

macro_rules! on_the_real_engine {
    ($($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            let bench = bench();
            let _networks = Networks::of(&bench);
            rules::hold(&bench, rules::$rule(&bench)).await;
        }
    )*};
}

rules::for_every_rule!(on_the_real_engine);

/// With `ENGINE26=1`: the same rules inside the network of a Docker 26, where its ports are.
#[test]
fn the_contract_holds_on_docker_26_where_it_is_asked_for() {
    if std::env::var_os("ENGINE26").is_none_or(|value| value != "1") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/engine26");
    let started = Command::new(&script).arg("start").output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let mut run = Command::new(&script);
    run.arg("exec").arg(std::env::current_exe().unwrap());
    let only = ["engine_contract::", "--skip", "engine_contract::local", "--skip", "docker_26"];
    let output = run.args(only).env_remove("DOCKET_TEST_ENGINE").output().unwrap();
    Command::new(&script).arg("stop").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("a_created_container_is_listed_and_inspected ... ok"), "{said}");
}
