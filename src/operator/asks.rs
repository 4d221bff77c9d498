//! Answers to what is asked of a running operator. What takes time is answered from a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::model::{
    ClassName, Container, ContainerState, DesiredState, Ending, FileState, LazyMode, Operation,
    Override, Record, SessionName, many,
};
use crate::plan::{Plan, Session, Want};
use crate::world::{Clock, Engine, Ledger, Objects, Probe, Workspaces, Write};

use super::Operator;
use super::handle::{
    Answer, Ask, Finding, LogStreamBox, Outcome, PlanView, PlannedSession, Refusal, TopView, Verb,
    Which,
};
use super::start::CONFIRMED;

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// Answers one question; whoever asked may be gone by then, and that is fine.
    pub(super) async fn answer(&mut self, ask: Ask) {
        if matches!(ask, Ask::Plan(..) | Ask::Diff(..)) && !self.has_seen_all() {
            return self.parked.push(ask);
        }
        match ask {
            Ask::Plan(files, reply) => give(reply, self.plan_with(&files, false)),
            Ask::Diff(files, reply) => give(reply, self.plan_with(&files, true)),
            Ask::Apply(files, reply) => {
                let answer = self.apply_files(&files).await;
                self.give_shown(reply, answer);
            }
            Ask::Delete { which, discard, reply } => {
                let answer = self.delete(&which, discard).await;
                self.give_shown(reply, answer);
            }
            Ask::Verb(name, verb, reply) => {
                let answer = self.verb(&name, verb).await;
                self.give_shown(reply, answer);
            }
            Ask::Sync(name, reply) => self.sync_now(&name, reply).await,
            Ask::Hydrate(name, paths, reply) => self.hydrate_now(&name, paths, reply),
            Ask::Files(name, reply) => self.files_of(&name, reply),
            Ask::Logs { name, follow, tail, reply } => self.logs_of(&name, follow, tail, reply),
            Ask::Top(name, reply) => self.top(name.as_ref(), reply),
            Ask::Numbers(reply) => give(reply, Ok(self.numbers())),
            Ask::Sources(reply) => {
                give(reply, Ok(self.wants.sources(self.sources.as_ref(), &self.applied)));
            }
            Ask::ConfirmPrune(reply) => {
                let answer = self.confirm_prune().await;
                self.give_shown(reply, answer);
            }
            Ask::Doctor(reply) => self.doctor(reply),
            Ask::History(name, most, reply) => self.history_of(&name, most, reply),
            Ask::Restore { name, at, path, reply } => {
                self.restore_now(&name, at, path.as_deref(), reply);
            }
            Ask::Gc { older_than, dry, reply } => self.collect_garbage(older_than, dry, reply),
            Ask::Trash(reply) => self.trash(reply),
            Ask::Rescan => {
                let _a_rescan_is_due_already = self.mail.rescan.try_send(());
                self.look_again = true;
            }
        }
    }

    /// Answers a command once what it changed is shown: whoever asks next, or waits, is never told
    /// of the time before it.
    fn give_shown<T>(&mut self, reply: oneshot::Sender<Answer<T>>, answer: Answer<T>) {
        self.pass();
        give(reply, answer);
    }

    /// Whether sources and engine were listed once: before, a plan would be of half a world.
    fn has_seen_all(&self) -> bool {
        self.sources.is_some() && (self.looks > 1 || !self.looking)
    }

    /// Answers what waited for the first look at everything.
    pub(super) async fn answer_parked(&mut self) {
        if !self.parked.is_empty() && self.has_seen_all() {
            for ask in std::mem::take(&mut self.parked) {
                self.answer(ask).await;
            }
        }
    }

    fn known(&self, name: &SessionName) -> Answer<&super::Live> {
        self.live
            .get(name)
            .ok_or_else(|| Refusal::NotFound(format!("there is no session `{name}`")))
    }

    pub(super) fn record_of(&self, name: &SessionName) -> Answer<Arc<Record>> {
        self.known(name)?;
        self.doors.book.by_session(name).ok_or_else(|| {
            Refusal::Refused(format!(
                "session `{name}` is not admitted yet; `docket explain {name}` says why"
            ))
        })
    }

    /// The plan of the next pass, or as if these files were applied or were all there is.
    fn plan_with(&self, files: &[(String, String)], whole: bool) -> Answer<PlanView> {
        if let crate::model::Look::Unknown(why) = &self.containers_look {
            return Err(Refusal::Failed(format!("the engine is not seen: {why}")));
        }
        let plan = if files.is_empty() && !whole {
            self.next_plan(&self.sessions_as_they_are())
        } else {
            let wants = self.wants.imagine(
                files,
                whole,
                self.sources.as_ref(),
                &self.applied,
                &self.settings,
                self.doors.clock.now(),
            )?;
            let mut sessions = self.sessions_as_they_are();
            let names: Vec<SessionName> = wants.keys().cloned().collect();
            for name in names {
                sessions.entry(name).or_insert_with(unseen);
            }
            for (name, session) in &mut sessions {
                if let Some(want) = wants.get(name) {
                    session.want = (**want).clone();
                }
            }
            self.next_plan(&sessions)
        };
        Ok(plan_view(&plan))
    }

    fn sessions_as_they_are(&self) -> BTreeMap<SessionName, Session> {
        self.live.iter().map(|(name, live)| (name.clone(), live.session.clone())).collect()
    }

    fn next_plan(&self, sessions: &BTreeMap<SessionName, Session>) -> Plan {
        let lent = self.lent();
        let input = self.input(&lent, sessions);
        crate::plan::plan(&input, &self.underway())
    }

    async fn apply_files(&mut self, files: &[(String, String)]) -> Answer<Vec<Outcome>> {
        let objects = self.wants.parse_applied(files)?;
        let mut writes = Vec::new();
        let mut outcomes = Vec::new();
        for (key, json) in objects {
            if let Some(file) = self.wants.file_that_owns(&key) {
                outcomes.push(Outcome {
                    object: key,
                    outcome: format!("refused: it is owned by file {file}; edit that"),
                    refused: true,
                });
                continue;
            }
            let outcome = match self.applied.get(&key) {
                Some(before) if *before == json => "unchanged",
                Some(_) => "configured",
                None => "created",
            };
            outcomes.push(Outcome { object: key.clone(), outcome: outcome.into(), refused: false });
            if outcome != "unchanged" {
                writes.push((key, json));
            }
        }
        if outcomes.iter().any(|outcome| outcome.refused) {
            let refused: Vec<String> = outcomes
                .iter()
                .filter(|outcome| outcome.refused)
                .map(|outcome| format!("{} {}", outcome.object, outcome.outcome))
                .collect();
            return Err(Refusal::Refused(format!("nothing was applied: {}", refused.join("; "))));
        }
        let batch = writes.iter().map(|(k, j)| Write::Applied(k.clone(), j.clone())).collect();
        self.doors.book.ledger().commit(batch).await.map_err(failed)?;
        for (key, json) in &writes {
            self.copy_applied(key, Some(json)).await;
        }
        self.applied.extend(writes);
        self.reconsider();
        Ok(outcomes)
    }

    async fn delete(&mut self, which: &Which, discard: bool) -> Answer<Vec<Outcome>> {
        if let Which::Class(class) = which {
            return self.delete_class(class).await;
        }
        let names = self.selected(which)?;
        let lone = matches!(which, Which::Name(_));
        let mut outcomes = Vec::new();
        for name in names {
            let object = format!("session/{name}");
            let key = object.clone();
            let ending =
                self.doors.book.by_session(&name).is_some_and(|record| record.ending.is_some());
            if !(ending && discard)
                && let Some(file) = self.wants.file_that_owns(&key)
            {
                let why = format!("owned by file {file}; remove it there");
                if lone {
                    return Err(Refusal::Refused(format!("session `{name}` is {why}")));
                }
                let outcome = format!("skipped: {why}");
                outcomes.push(Outcome { object, outcome, refused: true });
                continue;
            }
            self.end_by_command(&name, discard).await?;
            outcomes.push(Outcome { object, outcome: "deleted".to_owned(), refused: false });
        }
        self.reconsider();
        Ok(outcomes)
    }

    async fn delete_class(&mut self, class: &ClassName) -> Answer<Vec<Outcome>> {
        let object = format!("sessionclass/{class}");
        if let Some(file) = self.wants.file_that_owns(&object) {
            let why = format!("class `{class}` is owned by file {file}; remove it there");
            return Err(Refusal::Refused(why));
        }
        if !self.applied.contains_key(&object) {
            return Err(Refusal::NotFound(format!("there is no class `{class}`")));
        }
        let batch = vec![Write::DropApplied(object.clone())];
        self.doors.book.ledger().commit(batch).await.map_err(failed)?;
        self.no_longer_applied(&object).await;
        self.reconsider();
        Ok(vec![Outcome { object, outcome: "deleted".to_owned(), refused: false }])
    }

    /// The tombstone and the end's beginning go in one batch.
    async fn end_by_command(&mut self, name: &SessionName, discard: bool) -> Answer<()> {
        let key = format!("session/{name}");
        let now = self.doors.clock.now();
        let mut batch = Vec::new();
        if self.applied.contains_key(&key) {
            batch.push(Write::DropApplied(key.clone()));
        }
        let Some(record) = self.doors.book.by_session(name) else {
            self.doors.book.ledger().commit(batch).await.map_err(failed)?;
            self.no_longer_applied(&key).await;
            self.dirty.insert(name.clone());
            return Ok(());
        };
        let changed = self.doors.book.update_with(&record.uid, batch, |record| {
            let ending = record.ending.get_or_insert_with(|| Ending {
                since: now,
                cause: "deleted by command".to_owned(),
                discard: false,
                pre_synced: false,
                final_synced: false,
                followed: BTreeMap::new(),
                trashed: false,
            });
            ending.discard |= discard;
            record.ready_since = None;
            if discard {
                record.failures.clear();
            }
        });
        changed.await.map_err(failed)?;
        self.no_longer_applied(&key).await;
        self.doors.lanes.interrupt(&record.uid);
        if let Some(live) = self.live.get(name)
            && let Some(cancel) = &live.main
        {
            cancel.cancel();
        }
        self.dirty.insert(name.clone());
        Ok(())
    }

    async fn no_longer_applied(&mut self, key: &str) {
        if self.applied.remove(key).is_some() {
            self.copy_applied(key, None).await;
        }
    }

    /// Keeps the copy of an applied object beside the workspaces. Its failure is told and not
    /// fatal: the ledger has the object, and the next start makes the copies agree with it.
    async fn copy_applied(&self, key: &str, text: Option<&str>) {
        if let Err(error) = self.doors.workspaces.keep_applied(key, text).await {
            tracing::warn!(object = %key, %error, "the copy of an applied object was not kept");
        }
    }

    fn selected(&self, which: &Which) -> Answer<Vec<SessionName>> {
        match which {
            Which::Name(name) => {
                if !self.live.contains_key(name) && !self.wants.knows(name) {
                    return Err(Refusal::NotFound(format!("there is no session `{name}`")));
                }
                Ok(vec![name.clone()])
            }
            Which::All => Ok(self.live.keys().cloned().collect()),
            Which::Class(_) => Ok(Vec::new()),
            Which::Selector(selector) => Ok(self
                .live
                .iter()
                .filter(|(_, live)| {
                    live.view.as_ref().is_some_and(|view| {
                        let mut labels = view.metadata.labels.clone();
                        for key in ["user", "case"] {
                            let value = view.spec.get(key).and_then(|value| value.as_str());
                            if let Some(value) = value {
                                labels.insert(key.to_owned(), value.to_owned());
                            }
                        }
                        selector.matches(&labels)
                    })
                })
                .map(|(name, _)| name.clone())
                .collect()),
        }
    }

    async fn verb(&mut self, name: &SessionName, verb: Verb) -> Answer<()> {
        let record = self.record_of(name)?;
        if record.ending.is_some() {
            return Err(Refusal::Refused(format!("session `{name}` is ending")));
        }
        let now = self.doors.clock.now();
        // What it is doing was decided before: it stops before the next step.
        if let Some(cancel) = self.live.get(name).and_then(|live| live.main.as_ref()) {
            cancel.cancel();
        }
        let changed = self.doors.book.update(&record.uid, |record| {
            let (state, suspend) = (record.applied.object.state, record.applied.object.suspend);
            match verb {
                Verb::Stop => {
                    record.state_override = over(DesiredState::Stopped, state, now);
                    record.retired = None;
                }
                Verb::Start => {
                    record.state_override = over(DesiredState::Running, state, now);
                    record.retired = None;
                    record.activate(now);
                    begin_anew(record);
                }
                Verb::Restart => {
                    record.restart_after = Some(record.attempt);
                    record.applied.image = None;
                    record.activate(now);
                    record.ran_since = None;
                    begin_anew(record);
                }
                Verb::Suspend => record.suspend_override = over(true, suspend, now),
                Verb::Resume => record.suspend_override = over(false, suspend, now),
            }
        });
        changed.await.map_err(failed)?;
        let said = format!("{verb:?} by command").to_lowercase();
        self.doors.book.event(now, Some(name), false, "Command", said);
        self.dirty.insert(name.clone());
        Ok(())
    }

    async fn sync_now(&mut self, name: &SessionName, reply: oneshot::Sender<Answer<String>>) {
        let record = match self.record_of(name) {
            Ok(record) => record,
            Err(refusal) => return give(reply, Err(refusal)),
        };
        if record.workspace.is_none() || !record.has_files() {
            let why = format!("session `{name}` has no files yet");
            return give(reply, Err(Refusal::Refused(why)));
        }
        let cleared = self.doors.book.update(&record.uid, |record| {
            record.failures.remove(&Operation::Sync);
        });
        if let Err(error) = cleared.await {
            return give(reply, Err(failed(error)));
        }
        // A sync under way may have scanned before the asker's edit: its answer is the next one.
        let next = self.live.get(name).is_some_and(|live| live.files);
        self.sync_waiters.entry(name.clone()).or_default().push((next, reply));
        if !next {
            self.begin_sync(name);
        }
    }

    /// A sync ended: those who waited for it hear, those who came during it get the next.
    pub(super) fn finish_syncs(&mut self, name: &SessionName, error: Option<String>) {
        let Some(waiting) = self.sync_waiters.remove(name) else { return };
        let (later, now): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(next, _)| *next);
        for (_, reply) in now {
            let answer = match &error {
                None => Ok(self.synced_text(name)),
                Some(error) => Err(Refusal::Failed(error.clone())),
            };
            give(reply, answer);
        }
        if !later.is_empty() {
            let later = later.into_iter().map(|(_, reply)| (false, reply)).collect();
            self.sync_waiters.insert(name.clone(), later);
            self.begin_sync(name);
        }
    }

    fn synced_text(&self, name: &SessionName) -> String {
        match self.doors.book.by_session(name) {
            Some(record) => format!(
                "{}, {} unsynced, {} skipped",
                many(record.files.total, "file"),
                record.files.unsynced,
                record.files.skipped
            ),
            None => "the session is over".to_owned(),
        }
    }

    fn hydrate_now(
        &mut self,
        name: &SessionName,
        paths: Vec<String>,
        reply: oneshot::Sender<Answer<String>>,
    ) {
        let record = self.record_of(name).and_then(|record| {
            let why = || Refusal::Refused(format!("session `{name}` has no files yet"));
            if record.hydrated { Ok(record) } else { Err(why()) }
        });
        let paths = paths.iter().map(|path| super::keeping::wanted_path(path));
        let asked = paths.collect::<Answer<Vec<_>>>().and_then(|paths| Ok((record?, paths)));
        let (record, paths) = match asked {
            Ok(asked) => asked,
            Err(refusal) => return give(reply, Err(refusal)),
        };
        let (doors, tell) = (Arc::clone(&self.doors), self.tell.clone());
        tokio::spawn(async move {
            let work = crate::apply::hydrate_paths(&doors, &record, &paths);
            let answer = super::shown(work, &tell, &record.name).await;
            let _loop_is_gone = tell.send(super::Inner::Moved { name: record.name.clone() });
            let answer = answer.map_err(|error| match error {
                crate::apply::StepError::NoFile(_) => Refusal::NotFound(error.to_string()),
                error => Refusal::Failed(error.to_string()),
            });
            give(reply, answer);
        });
    }

    fn files_of(&self, name: &SessionName, reply: oneshot::Sender<Answer<Vec<FileState>>>) {
        let record = match self.record_of(name) {
            Ok(record) => record,
            Err(refusal) => return give(reply, Err(refusal)),
        };
        let doors = Arc::clone(&self.doors);
        tokio::spawn(async move {
            let answer = crate::apply::file_states(&doors, &record).await;
            give(reply, answer.map_err(failed));
        });
    }

    fn current(&self, name: &SessionName) -> Option<&Container> {
        let record = self.live.get(name)?.session.record.as_ref()?;
        self.containers.of(name).filter(|c| c.uid == record.uid).max_by_key(|c| c.attempt)
    }

    fn logs_of(
        &self,
        name: &SessionName,
        follow: bool,
        tail: Option<u64>,
        reply: oneshot::Sender<Answer<LogStreamBox>>,
    ) {
        if let Err(refusal) = self.known(name) {
            return give(reply, Err(refusal));
        }
        let Some(id) = self.current(name).map(|container| container.id.clone()) else {
            let why = format!("session `{name}` has no container");
            return give(reply, Err(Refusal::Refused(why)));
        };
        let doors = Arc::clone(&self.doors);
        tokio::spawn(async move {
            let answer = doors.engine.logs(&id, follow, tail).await;
            give(reply, answer.map(LogStreamBox).map_err(|e| Refusal::Failed(e.to_string())));
        });
    }

    fn top(&self, name: Option<&SessionName>, reply: oneshot::Sender<Answer<Vec<TopView>>>) {
        if let Some(name) = name
            && let Err(refusal) = self.known(name)
        {
            return give(reply, Err(refusal));
        }
        let rows: Vec<_> = self
            .live
            .iter()
            .filter(|(each, live)| name.is_none_or(|n| n == *each) && live.session.record.is_some())
            .map(|(name, live)| {
                let running = self
                    .current(name)
                    .filter(|c| c.state == ContainerState::Running)
                    .and_then(|c| c.detail.clone().map(|detail| (c.id.clone(), detail)));
                let (disk, quota) = live.session.record.as_ref().map_or((0, 0), |record| {
                    (record.files.bytes, record.applied.resolved.workspace.quota)
                });
                (name.to_string(), running, disk, quota)
            })
            .collect();
        let doors = Arc::clone(&self.doors);
        tokio::spawn(async move {
            let looks = rows.into_iter().map(|(name, running, disk_bytes, quota_bytes)| {
                let engine = &doors.engine;
                async move {
                    let usage = match &running {
                        Some((id, detail)) => engine.usage(id, detail).await.ok(),
                        None => None,
                    };
                    TopView { name, usage, disk_bytes, quota_bytes }
                }
            });
            give(reply, Ok(futures_util::future::join_all(looks).await));
        });
    }

    async fn confirm_prune(&mut self) -> Answer<Vec<String>> {
        let names = self.wants.held_for_prune();
        let mut confirmed = self.wants.confirmed().clone();
        confirmed.extend(names.iter().cloned());
        let text = serde_json::to_string(&confirmed).unwrap_or_default();
        let batch = vec![Write::Fact(CONFIRMED.to_owned(), text)];
        self.doors.book.ledger().commit(batch).await.map_err(failed)?;
        self.wants.confirm(&names);
        self.reconsider();
        Ok(names.iter().map(ToString::to_string).collect())
    }

    /// Writes down whose confirmed end is still to come.
    pub(super) fn keep_confirmed(&self) {
        let text = serde_json::to_string(self.wants.confirmed()).unwrap_or_default();
        let doors = Arc::clone(&self.doors);
        tokio::spawn(async move {
            let batch = vec![Write::Fact(CONFIRMED.to_owned(), text)];
            if let Err(error) = doors.book.ledger().commit(batch).await {
                tracing::warn!(%error, "confirmed ends were not kept");
            }
        });
    }

    fn doctor(&self, reply: oneshot::Sender<Answer<Vec<Finding>>>) {
        let doors = Arc::clone(&self.doors);
        let low = self.settings.policy.min_free;
        tokio::spawn(async move {
            let mut findings = Vec::new();
            findings.push(match doors.engine.info().await {
                Ok(info) => finding(
                    "engine",
                    "ok",
                    format!(
                        "{}, API {}.{}, kernel {}",
                        info.version, info.api.0, info.api.1, info.kernel
                    ),
                    "",
                ),
                Err(error) => finding(
                    "engine",
                    "fail",
                    error.to_string(),
                    "start the engine, or set `docker:`",
                ),
            });
            findings.push(match doors.engine.ensure_network().await {
                Ok(None) => finding(
                    "network",
                    "ok",
                    "tenants reach neither each other nor the host nor 169.254.0.0/16".into(),
                    "",
                ),
                Ok(Some(why)) => finding(
                    "network",
                    "warn",
                    format!("tenants do not reach each other, but may reach the host: {why}"),
                    "let docket use iptables, or drop that traffic yourself",
                ),
                Err(error) => finding(
                    "network",
                    "fail",
                    error.to_string(),
                    "remove or rename the network of that name",
                ),
            });
            findings.push(match doors.objects.head("docket-doctor").await {
                Ok(_) if matches!(doors.objects.is_conditional().await, Ok(false)) => finding(
                    "store",
                    "warn",
                    format!("it answers; {}", crate::apply::UNCONDITIONAL),
                    "use a server that knows If-Match and If-None-Match on PUT",
                ),
                Ok(_) => finding("store", "ok", "it answers".into(), ""),
                Err(error) => finding(
                    "store",
                    "fail",
                    error.to_string(),
                    "check `store:` and its credentials",
                ),
            });
            findings.push(match doors.workspaces.lazy() {
                LazyMode::OnAccess => match doors.workspaces.caveat() {
                    None => {
                        finding("files", "ok", "large files come when they are opened".into(), "")
                    }
                    Some(why) => finding(
                        "files",
                        "warn",
                        format!("large files come when they are opened; {why}"),
                        "mount the file system of `workspaces:` with relatime",
                    ),
                },
                LazyMode::Stub { reason } => finding(
                    "files",
                    "warn",
                    format!("stub files stand for large files: {reason}"),
                    "`docket hydrate` fetches them; OnAccess wants CAP_SYS_ADMIN, Linux 5.1 (better \
                     6.14) and a file system with trusted attributes (ext4, XFS, btrfs)",
                ),
            });
            findings.push(match doors.workspaces.space().await {
                Ok(space) if low.is_short(space) => finding(
                    "space",
                    "warn",
                    format!(
                        "{} MiB free, below minFree: nothing is hydrated or started",
                        space.free >> 20
                    ),
                    "free space under `workspaces:` or lower `minFree`",
                ),
                Ok(space) => finding("space", "ok", format!("{} MiB free", space.free >> 20), ""),
                Err(error) => finding(
                    "workspaces",
                    "fail",
                    error.to_string(),
                    "sessions are left as they are until `workspaces:` can be looked at",
                ),
            });
            give(reply, Ok(findings));
        });
    }
}

fn finding(check: &str, level: &str, message: String, hint: &str) -> Finding {
    Finding { check: check.to_owned(), level: level.to_owned(), message, hint: hint.to_owned() }
}

pub(super) fn give<T>(reply: oneshot::Sender<Answer<T>>, answer: Answer<T>) {
    let _nobody_waits = reply.send(answer);
}

fn failed(error: crate::world::LedgerError) -> Refusal {
    Refusal::Failed(error.to_string())
}

fn over<T: PartialEq>(value: T, file_said: T, at: crate::model::Timestamp) -> Option<Override<T>> {
    (value != file_said).then_some(Override { value, file_said, at })
}

/// A person asked: what failed before may be tried at once.
fn begin_anew(record: &mut Record) {
    record.retired = None;
    record
        .failures
        .retain(|op, _| matches!(op, Operation::Sync | Operation::Stop | Operation::Remove));
}

fn unseen() -> Session {
    Session {
        want: Want::Gone { cause: String::new() },
        record: None,
        containers: crate::model::Look::Known(Vec::new()),
        workspace: crate::model::Look::Known(None),
        health: crate::model::Health::Unknown,
        probed_for: std::time::Duration::ZERO,
        idle_for: std::time::Duration::ZERO,
        used: None,
        sync_asked: false,
        sync_tried: None,
    }
}

fn plan_view(plan: &Plan) -> PlanView {
    let busy: Plan = plan
        .iter()
        .filter(|(_, p)| !p.actions.is_empty())
        .map(|(n, p)| (n.clone(), p.clone()))
        .collect();
    let changes = busy.values().any(|plan| {
        plan.actions.iter().any(|action| !matches!(action, crate::model::Action::Sync { .. }))
    });
    PlanView {
        text: crate::plan::render(plan),
        sessions: plan
            .iter()
            .map(|(name, plan)| {
                let planned = PlannedSession {
                    phase: plan.phase.to_string(),
                    cause: plan.cause.clone(),
                    actions: plan.actions.iter().map(ToString::to_string).collect(),
                };
                (name.to_string(), planned)
            })
            .collect(),
        changes,
    }
}
