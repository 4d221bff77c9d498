//! The engine contract against a real engine: the local one, or `DOCKET_TEST_ENGINE`'s.

mod local;
pub mod rules;

use std::net::TcpListener;
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

/// `Engine` has no call for it: docket never removes a network. Its rules go too.
fn drop_networks(bench: &Bench<Docker>) {
    for installation in [&bench.installation, &bench.other_installation] {
        let network = format!("docket-{installation}");
        // Most benches have none.
        let script = "docker network rm $0; for chain in DOCKER-USER INPUT; do
            iptables -w 5 -S $chain | grep -- \"--comment $0 \" | sed 's/^-A/-D/' |
                while read -r rule; do iptables -w 5 $rule; done; done";
        let mut clean = std::process::Command::new("bash");
        clean.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        if !host().is_empty() {
            clean.env("DOCKER_HOST", host());
        }
        let _ = clean.args(["-c", script, &network]).output();
    }
}

macro_rules! on_the_real_engine {
    ($($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            let bench = bench();
            rules::hold(&bench, rules::$rule(&bench)).await;
            drop_networks(&bench);
        }
    )*};
}

rules::for_every_rule!(on_the_real_engine);
