//! The fake engine is proven: it holds every rule that the real one holds.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use docket::model::Installation;
use docket::testing::clock::FakeClock;
use docket::testing::engine::{FakeEngine, Machine};

use crate::engine_contract::rules::{self, Bench};

/// A process that holds a port until it is dropped.
struct Squatter(Arc<Machine>, u16);

impl Drop for Squatter {
    fn drop(&mut self) {
        self.0.free(self.1);
    }
}

fn bench() -> Bench<FakeEngine> {
    let machine = Machine::new(FakeClock::new(1), &[("app:v1", "")]);
    let door = |installation: &str| {
        let installation = Installation::parse(installation).unwrap();
        FakeEngine::new(Arc::clone(&machine), installation, [127, 0, 0, 1].into())
    };
    let (engine, other) = (door("contract"), door("contract-other"));
    let (squatted, lost, found) =
        (Arc::clone(&machine), Arc::clone(&machine), Arc::clone(&machine));
    let ports = Arc::new(AtomicU16::new(9000));
    let next = Arc::clone(&ports);
    Bench {
        engine,
        other,
        installation: "contract".to_owned(),
        other_installation: "contract-other".to_owned(),
        image: "app:v1".to_owned(),
        squat: Box::new(move || {
            let port = next.fetch_add(1, Ordering::Relaxed);
            squatted.squat(port);
            (port, Box::new(Squatter(Arc::clone(&squatted), port)) as Box<dyn Any>)
        }),
        free_port: Box::new(move || ports.fetch_add(1, Ordering::Relaxed)),
        make_dir: Box::new(move || {
            let path = PathBuf::from("/srv/some-directory");
            found.lose_directory(&path, false);
            path
        }),
        remove_dir: Box::new(move |path| lost.lose_directory(path, true)),
    }
}

macro_rules! on_the_fake_engine {
    ($($rule:ident)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $rule() {
            let bench = bench();
            rules::hold(&bench, rules::$rule(&bench)).await;
        }
    )*};
}

rules::for_every_rule!(on_the_fake_engine);
