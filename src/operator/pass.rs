//! A pass: what is dirty and not being worked on is decided, and its steps begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::apply::{Ran, StepError};
use crate::contain::{contained, contained_while};
use crate::model::{
    Action, Container, ContainerState, Health, Look, Network, Phase, SessionName, SyncKind,
    Timestamp, Uid,
};
use crate::observe::{Full, One};
use crate::plan::{Input, Sessions, Want};
use crate::world::{Clock, Count, Engine, Ledger, Objects, Probe, Timed, Workspaces};

use super::health::{Prober, Target};
use super::{Inner, Operator, lanes, shown};

/// The same steps this often in a row: the loop spins, and is slowed down.
const SPINS: u32 = 4;

/// What changes beside the loop and is looked at once for a decision.
pub(super) struct Lent {
    ended: Arc<BTreeMap<Uid, Timestamp>>,
    quarantine: BTreeMap<u16, Timestamp>,
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
    /// Decides for every dirty session and begins its steps.
    pub(super) fn pass(&mut self) {
        let wall = self.doors.clock.now();
        let now = Instant::now();
        if self.clocks.jumped(wall, now) {
            // What waits for a time may wait for another one now.
            self.dirty.extend(self.live.keys().cloned());
        }
        self.dirty.extend(self.index.due(wall, now));
        if self.dirty.is_empty() {
            return;
        }
        // Whatever changed may have moved the queue.
        self.dirty.extend(self.index.queued.iter().cloned());
        let began = Instant::now();
        let mut dirty = std::mem::take(&mut self.dirty);
        for name in &dirty {
            self.refresh(name);
        }
        // An update is done: those that wait for their turn need no tick.
        for class in std::mem::take(&mut self.updated) {
            let next = self.index.next_updates(&class).filter(|name| !dirty.contains(*name));
            let next: Vec<SessionName> = next.cloned().collect();
            for name in &next {
                self.refresh(name);
            }
            dirty.extend(next);
        }
        let decided = self.decide(&dirty);
        for (name, plan) in decided {
            self.begin(&name, plan);
        }
        for name in &dirty {
            self.index.heed(name, self.live.get(name));
        }
        self.publish(&dirty);
        self.forget_the_gone(&dirty);
        if std::mem::take(&mut self.records_changed) {
            self.reconsider();
        }
        self.doors.meter.took(Timed::Pass, ("", ""), began.elapsed());
        #[cfg(feature = "testing")]
        self.recount();
    }

    /// Everything the planner may see of a session, brought up to date.
    fn refresh(&mut self, name: &SessionName) {
        let record = self.doors.book.by_session(name);
        let want = self.wants.of(name, record.as_deref());
        let containers = match &self.containers_look {
            Look::Known(()) => Look::Known(self.containers.of(name).cloned().collect()),
            Look::Unknown(why) => Look::Unknown(why.clone()),
        };
        let looks = self.looks;
        let listed = matches!(self.containers_look, Look::Known(()));
        let live = self.enliven(name);
        if record.is_none() && live.session.record.is_none() && listed && looks > 0 {
            live.trusted_from = 0;
        }
        if !same(live.seen.0.as_ref(), Some(&want)) {
            live.session.want = (*want).clone();
        }
        if !same(live.seen.1.as_ref(), record.as_ref()) || record.is_none() {
            live.session.record = record.as_deref().cloned();
        }
        live.seen = (Some(want), record.clone());
        live.session.containers = if live.trusted_from > 0 && listed {
            Look::Unknown("an earlier step's outcome is not known yet".to_owned())
        } else {
            containers
        };
        self.count(name);
        self.records_changed |= self.wants.heed(name, record.as_ref());
        self.tend_prober(name);
        self.tend_idler(name);
    }

    /// Counts what a session takes, and what its runner is about to.
    fn count(&mut self, name: &SessionName) {
        let live = self.live.get(name);
        let underway = live.filter(|live| live.main.is_some()).map(|live| &live.plan.actions[..]);
        let session = live.map(|live| &live.session);
        self.updated.extend(self.scarce.heed(name, session, underway.unwrap_or_default()));
    }

    /// The steps that runners take right now.
    pub(super) fn underway(&self) -> crate::plan::Underway<'_> {
        let busy = self.index.busy.iter().filter_map(|name| self.live.get_key_value(name));
        busy.map(|(name, live)| (name, live.plan.actions.as_slice())).collect()
    }

    /// What a decision borrows, as it is now.
    pub(super) fn lent(&self) -> Lent {
        let quarantine = self.doors.quarantine.lock();
        let quarantine = quarantine.unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        Lent { ended: self.doors.book.ended(), quarantine }
    }

    /// Everything that decisions on these sessions may depend on.
    pub(super) fn input<'a>(&'a self, lent: &'a Lent, sessions: &'a dyn Sessions) -> Input<'a> {
        Input {
            now: self.doors.clock.now(),
            policy: &self.settings.policy,
            sessions,
            space: self.space.clone(),
            ended: &lent.ended,
            quarantine: &lent.quarantine,
            engine_started: self.engine_started,
        }
    }

    /// Plans for what is dirty and free. The scarce is counted over everything.
    fn decide(
        &mut self,
        dirty: &BTreeSet<SessionName>,
    ) -> Vec<(SessionName, crate::model::SessionPlan)> {
        let mut scarce = std::mem::take(&mut self.scarce);
        let lent = self.lent();
        let input = self.input(&lent, &self.live);
        scarce.begin(&input);
        let now = Instant::now();
        let mut turns: Vec<_> =
            dirty.iter().filter_map(|name| self.live.get_key_value(name)).collect();
        turns.sort_by_key(|(_, live)| crate::plan::turn(&live.session));
        let plans = turns
            .into_iter()
            .filter(|(_, live)| live.main.is_none() && live.broken.is_none())
            .filter(|(_, live)| live.not_before.is_none_or(|at| at <= now))
            .map(|(name, live)| {
                let decide = || crate::plan::session(&input, &mut scarce, name, &live.session);
                (name.clone(), contained(decide))
            })
            .collect::<Vec<_>>();
        self.scarce = scarce;
        let mut good = Vec::new();
        for (name, plan) in plans {
            match plan {
                Ok(plan) => good.push((name, plan)),
                Err(why) => self.broke(&name, why),
            }
        }
        good
    }

    /// Hands a plan's steps to runners.
    fn begin(&mut self, name: &SessionName, plan: crate::model::SessionPlan) {
        let Some(live) = self.live.get_mut(name) else { return };
        let repeated = !plan.actions.is_empty() && plan.actions == live.plan.actions;
        live.repeats = if repeated { live.repeats + 1 } else { 0 };
        live.not_before = None;
        if live.repeats >= SPINS {
            let wait =
                Duration::from_millis(250 << live.repeats.min(SPINS + 5).saturating_sub(SPINS));
            live.not_before = Some(Instant::now() + wait);
            if live.repeats == SPINS {
                tracing::warn!(session = %name, steps = %plan, "the same steps again and again; slowed down");
            }
        }
        let (main, background) = lanes(&plan.actions);
        live.plan = plan;
        if background && !live.files {
            self.begin_sync(name);
        }
        if !main.is_empty() {
            self.begin_main(name, main);
        }
    }

    fn begin_main(&mut self, name: &SessionName, actions: Vec<Action>) {
        let Some(live) = self.live.get_mut(name) else { return };
        tracing::info!("{name} {}", live.plan.to_string().trim_end());
        let cancel = CancellationToken::new();
        live.main = Some(cancel.clone());
        self.count(name);
        let Some(live) = self.live.get_mut(name) else { return };
        let drift = super::numbers::drift(live, &live.plan);
        let uid = live.session.record.as_ref().map(|record| record.uid.clone());
        let ids = self.containers.of(name).map(|c| c.id.clone()).collect::<Vec<_>>();
        let doors = Arc::clone(&self.doors);
        let tell = self.tell.clone();
        let name = name.clone();
        live.step = Arc::default();
        let step = Arc::clone(&live.step);
        tokio::spawn(async move {
            let begins = |number: usize| {
                step.store(number, Ordering::Relaxed);
                // What may take long is shown while it does.
                if actions.get(number).is_some_and(is_long) {
                    let _loop_is_gone = tell.send(Inner::Step { name: name.clone() });
                }
            };
            let work = crate::apply::run(&doors, &name, uid.clone(), &actions, &cancel, begins);
            let began = Instant::now();
            let work = contained_while(work);
            let ran = if actions.iter().any(|action| matches!(action, Action::Hydrate)) {
                shown(work, &tell, &name).await
            } else {
                work.await
            };
            let ran = ran.unwrap_or_else(|why| Ran::broken(uid, why));
            let result = match &ran.error {
                None => "done",
                Some((_, StepError::Interrupted)) => "interrupted",
                Some(_) => "failed",
            };
            doors.meter.took(Timed::Reconcile, (result, ""), began.elapsed());
            if let (Some(drift), None) = (drift, &ran.error) {
                doors.meter.count(Count::Drift, drift, 1);
            }
            let mut look: BTreeSet<_> = ids.into_iter().collect();
            look.extend(ran.touched.iter().cloned());
            // Steps that touch neither engine nor workspace need no look.
            let looks = !ran.touched.is_empty()
                || ran.error.is_some()
                || actions.iter().any(touches_workspace);
            let record = ran.uid.as_ref().and_then(|uid| doors.book.get(uid));
            let one = if looks {
                let place = record.map(|r| (r.user.clone(), r.case.clone()));
                let ids = look.into_iter().collect();
                crate::observe::one(&doors.engine, &doors.workspaces, ids, place).await
            } else {
                One { containers: BTreeMap::new(), workspace: None }
            };
            let _loop_is_gone = tell.send(Inner::Ran { name, ran, one });
        });
    }

    pub(super) fn begin_sync(&mut self, name: &SessionName) {
        let now = self.doors.clock.now();
        let Some(live) = self.live.get_mut(name) else { return };
        let Some(uid) = live.session.record.as_ref().map(|r| r.uid.clone()) else { return };
        live.files = true;
        live.session.sync_asked = false;
        live.session.sync_tried = Some(now);
        let doors = Arc::clone(&self.doors);
        let tell = self.tell.clone();
        let name = name.clone();
        tokio::spawn(async move {
            let never = CancellationToken::new();
            let actions = [Action::Sync { kind: SyncKind::Background }];
            let work =
                crate::apply::run(&doors, &name, Some(uid.clone()), &actions, &never, |_| ());
            let ran = contained_while(work).await;
            let ran = ran.unwrap_or_else(|why| Ran::broken(Some(uid), why));
            let error = ran.error.map(|(_, error)| error);
            let error = error
                .filter(|error| !matches!(error, StepError::Interrupted | StepError::NoRecord));
            let _loop_is_gone = tell.send(Inner::Synced { name, error });
        });
    }

    pub(super) fn synced(&mut self, name: &SessionName, error: Option<StepError>) {
        if let Some(error) = &error {
            tracing::warn!(session = %name, %error, "a background sync failed");
        }
        if let Some(StepError::Broken(why)) = &error {
            self.broke(name, why.clone());
        }
        let error = error.map(|error| error.to_string());
        if let Some(live) = self.live.get_mut(name) {
            live.files = false;
        }
        self.finish_syncs(name, error);
        self.dirty.insert(name.clone());
    }

    /// An assertion failed in what was done for a session: nothing more is, until the next start.
    fn broke(&mut self, name: &SessionName, why: String) {
        tracing::error!(session = %name, assertion = %why, "an assertion failed; this session stands still");
        let now = self.doors.clock.now();
        self.doors.book.event(now, Some(name), true, "InternalError", &why);
        if let Some(live) = self.live.get_mut(name) {
            live.broken = Some(why);
        }
        self.dirty.insert(name.clone());
    }

    /// A main runner is done: what it touched was looked at, and the next plan follows.
    pub(super) fn ran(&mut self, name: &SessionName, ran: &Ran, one: One) {
        match &ran.error {
            Some((step, StepError::Interrupted)) => {
                tracing::info!(session = %name, %step, "its steps end here: something else is wanted now");
            }
            Some((step, error)) => {
                tracing::warn!(session = %name, %step, %error, "a step failed");
            }
            None => tracing::debug!(session = %name, "its steps are done"),
        }
        if let Some((_, StepError::Broken(why))) = &ran.error {
            self.broke(name, why.clone());
        }
        let looks = self.looks;
        let Some(live) = self.live.get_mut(name) else { return };
        live.main = None;
        live.unkept = match &ran.error {
            Some((_, StepError::Ledger(error))) => Some(error.to_string()),
            _ => None,
        };
        live.touched_at = Some(Instant::now());
        let missed = std::mem::take(&mut live.missed);
        if ran.unknown {
            // Only a complete look that begins after this tells what became of it.
            live.trusted_from = looks + 1;
            self.look_again = true;
        }
        self.looked(name, one);
        self.look_at(name, missed);
        // A listing that is under way may have been made before these effects.
        if self.looking && !ran.touched.is_empty() {
            self.overtaken.insert(name.clone(), looks);
        }
        self.index.heed(name, self.live.get(name));
        self.dirty.insert(name.clone());
    }

    /// A look at one session came back.
    pub(super) fn looked(&mut self, name: &SessionName, one: One) {
        for (id, look) in one.containers {
            match look {
                Look::Known(Some(container)) => {
                    self.containers.insert(container);
                }
                Look::Known(None) => {
                    self.containers.remove(&id);
                }
                // It may be new, or changed, or gone: only a complete look tells. Until then nothing
                // is decided, least of all that there is no container.
                Look::Unknown(_) => {
                    self.containers.forget_detail(&id);
                    if let Some(live) = self.live.get_mut(name) {
                        live.trusted_from = live.trusted_from.max(self.looks + 1);
                    }
                    self.look_again = true;
                }
            }
        }
        if let (Some(workspace), Some(live)) = (one.workspace, self.live.get_mut(name)) {
            live.session.workspace = workspace;
        }
        self.dirty.insert(name.clone());
    }

    /// A complete look came back. What it tells anew is decided on, and what is not settled.
    pub(super) fn observed(&mut self, number: u64, took: Duration, full: Full) {
        self.looking = false;
        let before = (self.is_short(), self.engine_started, self.listing());
        self.space = full.space;
        self.engine_started = full.engine_started.or(self.engine_started);
        for (name, look) in full.workspaces {
            let overtaken = self.overtaken.contains_key(&name);
            if let Some(live) = self.live.get_mut(&name)
                && live.main.is_none()
                && !overtaken
                && live.session.workspace != look
            {
                live.session.workspace = look;
                self.dirty.insert(name);
            }
        }
        match full.containers {
            Look::Unknown(why) => {
                self.look_failures = self.look_failures.saturating_add(1);
                let wait = Duration::from_millis(250 << self.look_failures.min(5));
                self.next_look = Instant::now() + wait.min(Duration::from_secs(5));
                if self.look_failures == 1 {
                    tracing::warn!(%why, "the engine is not seen; nothing is decided until it is");
                }
                self.containers_look = Look::Unknown(why);
            }
            Look::Known(listed) => {
                if self.look_failures > 0 {
                    tracing::info!("the engine is seen again");
                }
                self.look_failures = 0;
                // A listing may take a fiftieth of the time at most.
                self.next_look = Instant::now() + self.settings.tick.max(took * 50);
                self.merge(number, listed);
                self.containers_look = Look::Known(());
                let _nobody_listens = self.last_pass.send(Some(self.doors.clock.now()));
            }
        }
        let overtaken = std::mem::take(&mut self.overtaken).into_keys();
        self.dirty.extend(overtaken);
        let after = (self.is_short(), self.engine_started, self.listing());
        if before != after || after.0 == Some(true) {
            self.dirty.extend(self.live.keys().cloned());
        }
        self.mark_unsettled();
    }

    /// Whether there is too little space for anything new.
    fn is_short(&self) -> Option<bool> {
        self.space.known().map(|space| self.settings.policy.min_free.is_short(*space))
    }

    /// Whether the engine was listed, or why not.
    fn listing(&self) -> Option<String> {
        match &self.containers_look {
            Look::Known(()) => None,
            Look::Unknown(why) => Some(why.clone()),
        }
    }

    /// What waits for something is decided on with each look, and of all else a part, so that
    /// each session's turn comes within a dozen looks whatever was forgotten.
    fn mark_unsettled(&mut self) {
        const TURNS: usize = 12;
        self.dirty.extend(self.index.unsettled.iter().cloned());
        let strangers = self.containers.sessions().filter(|name| !self.live.contains_key(*name));
        self.dirty.extend(strangers.cloned());
        self.dirty.extend(self.wants.names().filter(|n| !self.live.contains_key(*n)).cloned());
        let part = self.live.len().div_ceil(TURNS);
        let from = std::mem::take(&mut self.turn);
        let mut turn: Vec<SessionName> = match &from {
            Some(name) => {
                self.live.range(name..).map(|(name, _)| name.clone()).take(part + 1).collect()
            }
            None => self.live.keys().take(part + 1).cloned().collect(),
        };
        if turn.len() > part {
            self.turn = turn.pop();
        }
        self.dirty.extend(turn);
    }

    /// Takes a listing in, except where a runner has been or is at work since it began.
    fn merge(
        &mut self,
        number: u64,
        listed: std::collections::BTreeMap<crate::model::ContainerId, Container>,
    ) {
        let (live, overtaken) = (&self.live, &self.overtaken);
        let busy = |name: &SessionName| {
            live.get(name).is_some_and(|live| live.main.is_some()) || overtaken.contains_key(name)
        };
        let (changed, mut again) = self.containers.take_in(listed, busy);
        self.missed(changed.len());
        self.dirty.extend(changed);
        for (name, live) in &mut self.live {
            if live.trusted_from == 0 {
                continue;
            }
            self.dirty.insert(name.clone());
            if live.trusted_from <= number && !self.overtaken.contains_key(name) {
                live.trusted_from = 0;
            } else if live.main.is_none() {
                again = true;
            }
        }
        if again && self.live.values().any(|live| live.trusted_from > 0 && live.main.is_none()) {
            self.look_again = true;
        }
    }

    /// Starts, keeps or ends the prober of a session's running container.
    fn tend_prober(&mut self, name: &SessionName) {
        let target = self.probe_target(name);
        let Some(live) = self.live.get_mut(name) else { return };
        let same = match (&live.prober, &target) {
            (Some(prober), Some(target)) => prober.target == *target,
            (None, None) => true,
            _ => false,
        };
        if !same {
            live.prober = target.map(|target| {
                Prober::start(Arc::clone(&self.probe), name.clone(), target, self.tell.clone())
            });
        }
        match &live.prober {
            Some(prober) => {
                live.session.health = prober.health.clone();
                live.session.probed_for = prober.began.elapsed();
            }
            None => {
                live.session.health = Health::Unknown;
                live.session.probed_for = Duration::ZERO;
            }
        }
    }

    fn probe_target(&self, name: &SessionName) -> Option<Target> {
        let record = self.live.get(name)?.session.record.as_ref()?;
        let spec = &record.applied.resolved;
        if spec.container.port == 0 || record.wanted_suspend() || record.ending.is_some() {
            return None;
        }
        let current = self
            .containers
            .of(name)
            .filter(|c| c.uid == record.uid)
            .max_by_key(|c| c.attempt)
            .filter(|c| c.state == ContainerState::Running)?;
        let detail = current.detail.as_ref()?;
        let local = self.doors.identity.bind.is_loopback();
        let inner = detail
            .inner
            .filter(|_| local && spec.container.network != Network::None)
            .map(|ip| std::net::SocketAddr::new(ip, spec.container.port));
        Some(Target {
            id: current.id.clone(),
            started_at: detail.started_at,
            published: detail.published,
            inner,
            spec: spec.health.clone(),
        })
    }

    /// Sessions of which nothing is wanted, remembered or seen any more.
    fn forget_the_gone(&mut self, dirty: &BTreeSet<SessionName>) {
        let gone: Vec<SessionName> = dirty
            .iter()
            .filter_map(|name| Some((name, self.live.get(name)?)))
            .filter(|(name, live)| {
                live.main.is_none()
                    && !live.files
                    && live.session.record.is_none()
                    && (!self.wants.knows(name) || self.wants.only_held(name))
                    && self.containers.of(name).next().is_none()
            })
            .map(|(name, _)| name.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        for name in &gone {
            if let Some(record) = self.live.remove(name).and_then(|live| live.session.record) {
                self.doors.lanes.forget(&record.uid);
            }
            self.updated.extend(self.scarce.heed(name, None, &[]));
            self.index.heed(name, None);
            if self.wants.ended(name) {
                self.keep_confirmed();
            }
        }
        self.sessions.send_modify(|snapshot| {
            let all = Arc::make_mut(snapshot);
            for name in &gone {
                all.remove(name);
            }
        });
        // Somebody may have waited for its workspace, its port or its place.
        self.reconsider();
        self.dirty.extend(self.index.unsettled.iter().cloned());
    }
}

/// Whether nothing but a change, or its own time, makes another plan of it.
pub(super) fn is_settled(live: &super::Live) -> bool {
    let plan = &live.plan;
    let at_rest = matches!(plan.phase, Phase::Running | Phase::Stopped | Phase::Suspended);
    let waits = plan.reason.is_some() || plan.queue.is_some() || !plan.actions.is_empty();
    let in_force = match (&live.session.want, &live.session.record) {
        (Want::Present { object, class_hash, resolved: Ok(_), .. }, Some(record)) => {
            object.hash == record.applied.object.hash && *class_hash == record.applied.class_hash
        }
        _ => false,
    };
    at_rest && !waits && in_force && live.trusted_from == 0
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn is_long(action: &Action) -> bool {
    matches!(action, Action::ResolveImage { .. } | Action::Hydrate | Action::StopContainer { .. })
        || matches!(action, Action::Sync { kind: SyncKind::Final | SyncKind::PreStop })
}

fn touches_workspace(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateWorkspace
            | Action::TrashWorkspace
            | Action::EmptyTrash
            | Action::Rebuild { .. }
    )
}
