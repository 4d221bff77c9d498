//! Who watches for use: one task a running container whose class has an idle timeout. It tells the
//! loop of each sign of use, and nothing else.
//!
//! What was used before docket looked is not known, so idleness counts from its first look: a
//! restart of the operator makes a session live longer and never shorter.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::model::{
    ContainerDetail, ContainerId, ContainerState, FilesSeen, HealthSpec, SessionName, Timestamp,
};
use crate::plan::{Sight, Use, look_every, use_between};
use crate::world::{Clock, Engine, Ledger, Objects, Probe, Workspaces};

use super::{Inner, Operator};

/// What one start of one container is watched with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Watched {
    pub(super) id: ContainerId,
    pub(super) started_at: Option<Timestamp>,
    idle_timeout: Duration,
    health: Option<HealthSpec>,
}

/// A watcher and when it last saw a sign of use.
#[derive(Debug)]
pub(super) struct Idler {
    pub(super) watched: Watched,
    pub(super) used_at: Instant,
    /// What that sign was, and when by the wall clock, for people.
    pub(super) used: (Use, Timestamp),
    /// What the last scan told, for the task.
    files: Arc<Mutex<FilesSeen>>,
    _task: AbortOnDropHandle<()>,
}

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// Starts, keeps or ends the watcher of a session's running container.
    pub(super) fn tend_idler(&mut self, name: &SessionName) {
        let target = self.idle_target(name);
        let now = self.doors.clock.now();
        let Some(live) = self.live.get_mut(name) else { return };
        let Some((watched, detail)) = target else {
            live.idler = None;
            live.session.idle_for = Duration::ZERO;
            live.session.used = None;
            return;
        };
        let files = live.session.record.as_ref().map(|record| record.files.clone());
        let files = files.unwrap_or_default();
        match &live.idler {
            Some(idler) if idler.watched == watched => {
                *idler.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = files;
            }
            _ => {
                let files = Arc::new(Mutex::new(files));
                let (doors, tell) = (Arc::clone(&self.doors), self.tell.clone());
                let (of, named, seen) = (watched.clone(), name.clone(), Arc::clone(&files));
                let task = tokio::spawn(async move {
                    watch(&doors.engine, &of, &detail, &seen, |used| {
                        let (id, started_at) = (of.id.clone(), of.started_at);
                        tell.send(Inner::Used { name: named.clone(), id, started_at, used }).is_ok()
                    })
                    .await;
                });
                live.idler = Some(Idler {
                    watched,
                    used_at: Instant::now(),
                    used: (Use::FirstLook, now),
                    files,
                    _task: AbortOnDropHandle::new(task),
                });
            }
        }
        let idle_for = live.idler.as_ref().map(|idler| idler.used_at.elapsed());
        live.session.idle_for = idle_for.unwrap_or_default();
        live.session.used = live.idler.as_ref().map(|idler| idler.used);
    }

    fn idle_target(&self, name: &SessionName) -> Option<(Watched, ContainerDetail)> {
        let record = self.live.get(name)?.session.record.as_ref()?;
        let spec = &record.applied.resolved;
        let idle_timeout = spec.lifetime.idle_timeout;
        if idle_timeout.is_zero() || record.wanted_suspend() || record.ending.is_some() {
            return None;
        }
        let current = self
            .containers
            .of(name)
            .filter(|c| c.uid == record.uid)
            .max_by_key(|c| c.attempt)
            .filter(|c| c.state == ContainerState::Running)?;
        let detail = current.detail.clone()?;
        let watched = Watched {
            id: current.id.clone(),
            started_at: detail.started_at,
            idle_timeout,
            health: (spec.container.port != 0).then(|| spec.health.clone()),
        };
        Some((watched, detail))
    }
}

/// Looks now and then; `tell` says whether anybody still listens.
async fn watch<E: Engine>(
    engine: &E,
    watched: &Watched,
    detail: &ContainerDetail,
    files: &Mutex<FilesSeen>,
    tell: impl Fn(Use) -> bool,
) {
    let every = look_every(watched.idle_timeout);
    let mut before: Option<(Sight, Instant)> = None;
    loop {
        let seen = engine.usage(&watched.id, detail).await.ok().map(|usage| {
            let files = files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            (Sight::of(&usage, &files), Instant::now())
        });
        let used = match (&before, &seen) {
            (Some((before, at)), Some((after, now))) => {
                use_between(*before, *after, now.duration_since(*at), watched.health.as_ref())
            }
            (None, Some(_)) => Some(Use::FirstLook),
            // It failed: nothing is known, so nothing is idle.
            (_, None) => Some(Use::Unknown),
        };
        if used.is_some_and(|used| !tell(used)) {
            return;
        }
        before = seen;
        tokio::time::sleep(every).await;
    }
}
