//! Probes: one task a running container that has a port. It tells the loop when what it knows
//! changes, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::model::{ContainerId, Health, HealthSpec, SessionName, Timestamp};
use crate::world::{Probe, ProbeOutcome};

use super::Inner;

/// Every so many probes go through the published address, so that a dead proxy is noticed.
const PUBLISHED_EVERY: u32 = 6;

/// What one start of one container is probed with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub(super) id: ContainerId,
    pub(super) started_at: Option<Timestamp>,
    /// Where the port is published, if the engine says so.
    pub(super) published: Option<SocketAddr>,
    /// The container's own address and port, if it can be reached from here.
    pub(super) inner: Option<SocketAddr>,
    pub(super) spec: HealthSpec,
}

/// A prober and what it last said.
#[derive(Debug)]
pub(super) struct Prober {
    pub(super) target: Target,
    pub(super) health: Health,
    /// When probing of this start began, by the monotonic clock.
    pub(super) began: tokio::time::Instant,
    _task: AbortOnDropHandle<()>,
}

impl Prober {
    pub(super) fn start<P: Probe>(
        probe: Arc<P>,
        name: SessionName,
        target: Target,
        tell: mpsc::UnboundedSender<Inner>,
    ) -> Prober {
        let began = tokio::time::Instant::now();
        let task = tokio::spawn(watch(probe, name, target.clone(), tell));
        Prober { target, health: Health::Unknown, began, _task: AbortOnDropHandle::new(task) }
    }
}

async fn watch<P: Probe>(
    probe: Arc<P>,
    name: SessionName,
    target: Target,
    tell: mpsc::UnboundedSender<Inner>,
) {
    let mut told = Health::Unknown;
    let mut wait = Duration::from_millis(2);
    let mut number = 0_u32;
    let mut failures = 0_u32;
    let mut passed = false;
    loop {
        tokio::time::sleep(wait).await;
        let health = match ask(&*probe, &target, passed, number).await {
            ProbeOutcome::Healthy => {
                (passed, failures) = (true, 0);
                Health::Passing
            }
            ProbeOutcome::Unhealthy(message) => {
                failures = failures.saturating_add(1);
                Health::Failing { count: failures, message }
            }
        };
        number = number.wrapping_add(1);
        let matters = match (&told, &health) {
            (Health::Failing { .. }, Health::Failing { .. }) => {
                passed || failures.is_power_of_two()
            }
            (old, new) => old != new,
        };
        if matters {
            told = health.clone();
            let (id, started_at) = (target.id.clone(), target.started_at);
            let news = Inner::Health { name: name.clone(), id, started_at, health };
            if tell.send(news).is_err() {
                return;
            }
        }
        let interval = target.spec.interval.max(Duration::from_millis(10));
        wait = if passed { interval } else { next_early(wait, interval) };
    }
}

/// 2, 5, 10, 20 ... ms up to a second or the interval, while the first 200 is awaited.
fn next_early(wait: Duration, interval: Duration) -> Duration {
    let next = if wait < Duration::from_millis(5) { Duration::from_millis(5) } else { wait * 2 };
    next.min(Duration::from_secs(1)).min(interval)
}

/// The first success of a start, and every sixth probe, come through the published address.
async fn ask<P: Probe>(probe: &P, target: &Target, passed: bool, number: u32) -> ProbeOutcome {
    let through_published = !passed || number.is_multiple_of(PUBLISHED_EVERY);
    let (path, timeout) = (&target.spec.path, target.spec.timeout);
    match (target.published, target.inner) {
        (Some(_), Some(inner)) if !through_published => probe.probe(inner, path, timeout).await,
        (Some(published), _) => probe.probe(published, path, timeout).await,
        (None, _) => ProbeOutcome::Unhealthy("its port is not published".to_owned()),
    }
}
