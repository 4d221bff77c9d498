//! One arm an action. The executor has no choice left: it does what the plan says, writes the
//! intent before and the outcome after, and stops at the first step that fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use crate::model::{
    Action, Applied, Container, ContainerId, ContainerState, Ending, Identity, ImagePin, Intent,
    Network, Operation, Reason, Record, Retired, RolledBack, Scope, SessionName, Source, SyncKind,
    Target, Termination, Timestamp, Uid, container_name,
};
use crate::plan::classify_end;
use crate::world::{
    BindMount, Clock, CreateRequest, Engine, EngineError, EngineErrorKind, Ledger, LedgerError,
    Objects, Place, WorkspaceError, WorkspaceErrorKind, Workspaces,
};

use super::book::Book;
use super::files::{FilesError, FilesErrorKind};
use super::gate::{Met, failed};
use super::lanes::Lanes;

/// How long a contested port is left alone.
const QUARANTINE: TimeDelta = TimeDelta::seconds(60);
/// A foreign container may hold so many names in a row before the session waits.
const NAMES_TRIED: u32 = 5;
/// The one sync before a stop takes at most this long and is never a condition of it.
const PRE_STOP: Duration = Duration::from_secs(20);

/// The doors, the book and what all sessions share.
#[derive(Debug)]
pub struct Doors<E, O, W, L, C> {
    /// Containers.
    pub engine: E,
    /// The object store.
    pub objects: O,
    /// Directories.
    pub workspaces: W,
    /// Records.
    pub book: Book<L>,
    /// Time and chance.
    pub clock: C,
    /// What every container of this operator shares.
    pub identity: Identity,
    /// `allow.secretFiles`.
    pub secret_files: Vec<PathBuf>,
    /// Where the engine's socket is, for classes that may mount it.
    pub engine_socket: PathBuf,
    /// Contested ports and until when they are left alone.
    pub quarantine: Mutex<BTreeMap<u16, Timestamp>>,
    /// Who may sync a session's files right now.
    pub lanes: Lanes,
}

/// Why a run of actions stopped early.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The engine's.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The ledger's: nothing is known to be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A workspace's.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A sync's or hydration's.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The session has no record any more.
    #[error("the session has no record any more")]
    NoRecord,
    /// Somebody asked to stop here.
    #[error("interrupted")]
    Interrupted,
    /// Look again before going on; why.
    #[error("{0}")]
    LookAgain(String),
    /// The files are not safe yet.
    #[error("{0}")]
    NotSafe(String),
}

/// How a run of actions ended.
#[derive(Debug)]
pub struct Ran {
    /// The session's uid, also if it was just admitted.
    pub uid: Option<Uid>,
    /// Containers that were made, started, stopped or removed: to be looked at again.
    pub touched: Vec<ContainerId>,
    /// What stopped it, at which action's text.
    pub error: Option<(String, StepError)>,
    /// An effect's outcome is not known: only a complete listing tells.
    pub unknown: bool,
}

/// One run for one session.
struct Run<'a, E, O, W, L, C> {
    doors: &'a Doors<E, O, W, L, C>,
    name: &'a SessionName,
    uid: Option<Uid>,
    made: Option<ContainerId>,
    touched: Vec<ContainerId>,
    cancel: &'a CancellationToken,
}

/// Runs a plan's actions in order.
pub async fn run<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    name: &SessionName,
    uid: Option<Uid>,
    actions: &[Action],
    cancel: &CancellationToken,
) -> Ran
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let mut run = Run { doors, name, uid, made: None, touched: Vec::new(), cancel };
    let mut error = None;
    for action in actions {
        if cancel.is_cancelled() {
            error = Some((action.to_string(), StepError::Interrupted));
            break;
        }
        if let Err(met) = run.step(action).await {
            run.note(action, &met).await;
            error = Some((action.to_string(), met));
            break;
        }
    }
    let unknown = error.as_ref().is_some_and(|(_, met)| match met {
        StepError::Engine(met) => matches!(
            met.kind,
            EngineErrorKind::Timeout | EngineErrorKind::Unreachable | EngineErrorKind::Broken
        ),
        StepError::LookAgain(_) => true,
        _ => false,
    });
    Ran { uid: run.uid, touched: run.touched, error, unknown }
}

impl<E, O, W, L, C> Run<'_, E, O, W, L, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    async fn step(&mut self, action: &Action) -> Result<(), StepError> {
        match action {
            Action::Admit { applied, source, .. } => self.admit(applied, source).await,
            Action::Adopt { applied, source, keep_last_good } => {
                self.adopt(applied, source, *keep_last_good).await
            }
            Action::RollBack { message } => self.roll_back(message).await,
            Action::LeasePort { port, instead_of } => self.lease(*port, *instead_of).await,
            Action::CreateWorkspace => self.create_workspace().await,
            Action::Hydrate => self.hydrate().await,
            Action::ResolveImage { reference, policy } => {
                let pulled = self.doors.engine.resolve_image(reference, *policy);
                let image = tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => return Err(StepError::Interrupted),
                    image = pulled => image?,
                };
                let pin = ImagePin { id: image.id, user: image.user };
                self.change(|record| {
                    record.applied.image = Some(pin);
                    record.failures.remove(&Operation::Image);
                })
                .await
            }
            Action::CreateContainer { attempt, port } => self.create(*attempt, *port).await,
            Action::StartContainer { target, restart } => self.start(target, *restart).await,
            Action::StopContainer { id, attempt, grace, reason } => {
                self.stop(id, *attempt, *grace, *reason).await
            }
            Action::RemoveContainer { id, attempt } => self.remove(id, *attempt).await,
            Action::UpdateResources { id, resources } => {
                self.touched.push(id.clone());
                self.doors.engine.update(id, *resources).await?;
                self.event(false, "Resized", "its limits changed in place");
                Ok(())
            }
            Action::PauseContainer { id, reason } => {
                let reason = *reason;
                self.change(|record| record.paused = Some(reason)).await?;
                self.touched.push(id.clone());
                self.event(true, &reason.to_string(), "its container is paused");
                Ok(self.doors.engine.pause(id).await?)
            }
            Action::UnpauseContainer { id } => {
                self.touched.push(id.clone());
                self.doors.engine.unpause(id).await?;
                self.change(|record| record.paused = None).await
            }
            Action::Sync { kind } => self.sync(*kind).await,
            Action::TrashWorkspace => self.trash().await,
            Action::EmptyTrash => {
                let record = self.record()?;
                Ok(self.doors.workspaces.empty_trash(&record.uid).await?)
            }
            Action::DropRecord => self.drop_record().await,
            Action::Rebuild { .. } => self.rebuild(action).await,
            Action::BeginEnding { .. }
            | Action::NoteTermination(_)
            | Action::NoteFailure { .. }
            | Action::NoteReady { .. }
            | Action::NoteNotReady
            | Action::ClearFailures { .. }
            | Action::Retire { .. } => self.note_fact(action).await,
        }
    }

    fn now(&self) -> Timestamp {
        self.doors.clock.now()
    }

    fn record(&self) -> Result<Arc<Record>, StepError> {
        self.uid.as_ref().and_then(|uid| self.doors.book.get(uid)).ok_or(StepError::NoRecord)
    }

    fn event(&self, warning: bool, reason: &str, message: &str) {
        self.doors.book.event(self.now(), Some(self.name), warning, reason, message);
    }

    /// Changes the record; the copy beside the workspaces follows where it matters.
    async fn change(&self, change: impl FnOnce(&mut Record) + Send) -> Result<(), StepError> {
        let uid = self.uid.as_ref().ok_or(StepError::NoRecord)?;
        let before = self.record()?;
        let after = self.doors.book.update(uid, change).await?.ok_or(StepError::NoRecord)?;
        let copied = |r: &Record| {
            (
                r.port,
                r.attempt,
                r.source.clone(),
                r.applied.clone(),
                r.ending.is_some(),
                r.workspace,
            )
        };
        if copied(&before) != copied(&after) {
            copy_record(self.doors, &after, None).await;
        }
        Ok(())
    }

    async fn admit(&mut self, applied: &Applied, source: &Source) -> Result<(), StepError> {
        let uid = Uid::from_bytes(self.doors.clock.random());
        let record = Record::admit(uid.clone(), applied.clone(), source.clone(), self.now());
        let record = self.doors.book.admit(record).await?;
        self.uid = Some(uid);
        copy_record(self.doors, &record, None).await;
        self.event(false, "Admitted", "its spec was taken");
        Ok(())
    }

    async fn adopt(
        &self,
        applied: &Applied,
        source: &Source,
        keep_last_good: bool,
    ) -> Result<(), StepError> {
        let now = self.now();
        let before = self.record()?;
        let new = applied.generation != before.applied.generation;
        self.change(|record| {
            if keep_last_good {
                record.last_good = Some(record.applied.clone());
            }
            let object = &applied.object;
            if record.state_override.as_ref().is_some_and(|o| o.file_said != object.state) {
                record.state_override = None;
            }
            if record.suspend_override.as_ref().is_some_and(|o| o.file_said != object.suspend) {
                record.suspend_override = None;
            }
            record.applied = applied.clone();
            record.source = source.clone();
            record.source_unseen = false;
            if new {
                record.failures.retain(|operation, _| {
                    matches!(operation, Operation::Sync | Operation::Stop | Operation::Remove)
                });
                record.rolled_back = None;
                record.retired = None;
                record.active_since = Some(now);
            }
        })
        .await?;
        if new {
            let message = format!("generation {} is in force", applied.generation);
            self.event(false, "Adopted", &message);
        }
        Ok(())
    }

    async fn roll_back(&self, message: &str) -> Result<(), StepError> {
        self.change(|record| {
            let Some(mut good) = record.last_good.take() else { return };
            good.generation = record.applied.generation;
            record.rolled_back = Some(RolledBack {
                object_hash: record.applied.object.hash.clone(),
                class_hash: record.applied.class_hash.clone(),
                message: message.to_owned(),
            });
            record.applied = good;
            record.failures.clear();
        })
        .await?;
        self.event(true, "RolledBack", message);
        Ok(())
    }

    async fn lease(&self, port: u16, instead_of: Option<u16>) -> Result<(), StepError> {
        self.change(|record| record.port = Some(port)).await?;
        if let Some(old) = instead_of {
            let message = format!("port {old} is held by somebody else; port {port} is leased");
            self.event(true, "PortConflict", &message);
        }
        Ok(())
    }

    async fn create_workspace(&self) -> Result<(), StepError> {
        let record = self.record()?;
        let before = self.doors.workspaces.look(&record.user, &record.case).await?;
        let owner = owner_of(&record);
        let place = place(&record);
        let seen = self.doors.workspaces.ensure(&place, owner).await?;
        // A directory of this very session is one that an earlier, interrupted run made.
        let foreign = before.is_some_and(|b| b.uid.as_ref() != Some(&record.uid));
        let folders = &record.applied.resolved.workspace.folders;
        let place = Place { id: Some(seen.id), ..place };
        self.doors.workspaces.ensure_folders(&place, folders, owner).await?;
        self.change(|record| {
            record.workspace = Some(seen.id);
            record.adopted = foreign;
            record.failures.remove(&Operation::Workspace);
        })
        .await
    }

    /// Labels, mounts and all: what the engine is asked for.
    async fn request(
        &self,
        record: &Record,
        attempt: u32,
        port: Option<u16>,
    ) -> Result<CreateRequest, StepError> {
        let applied = &record.applied;
        let spec = &applied.resolved;
        let image = applied
            .image
            .as_ref()
            .ok_or_else(|| StepError::LookAgain("its image is not resolved".to_owned()))?;
        let user_scope = spec.workspace.scope == Scope::User;
        let target = if user_scope {
            spec.workspace.mount_path.clone()
        } else {
            spec.workspace.mount_path.join("active").join(record.case.as_str())
        };
        let place = place(record);
        let source = self.doors.workspaces.host_path(&place, user_scope);
        let mut mounts = vec![BindMount { source, target, read_only: false }];
        for (name, file) in &spec.container.secrets {
            let allowed = &self.doors.secret_files;
            let staged = self.doors.workspaces.stage_secret(&record.uid, name, file, allowed);
            let target = PathBuf::from("/run/secrets").join(name);
            mounts.push(BindMount { source: staged.await?, target, read_only: true });
        }
        mounts.extend(spec.container.mounts.iter().map(|mount| BindMount {
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
        }));
        if spec.container.security.docker_socket {
            let target = PathBuf::from("/var/run/docker.sock");
            let source = self.doors.engine_socket.clone();
            mounts.push(BindMount { source, target, read_only: false });
        }
        let hash = crate::spec::fingerprint(spec, &image.id, record.port);
        Ok(CreateRequest {
            name: container_name(&self.doors.identity.prefix, &record.name, attempt),
            image_id: image.id.clone(),
            spec: spec.container.clone(),
            host_port: port,
            mounts,
            labels: labels(&self.doors.identity, record, attempt, hash),
        })
    }

    async fn create(&mut self, attempt: u32, port: Option<u16>) -> Result<(), StepError> {
        let now = self.now();
        self.change(|record| {
            record.attempt = attempt;
            record.restarts = 0;
            record.ready_since = None;
            record.intent = Some(intent(Operation::Create, attempt, now, Reason::InProgress));
        })
        .await?;
        let record = self.record()?;
        let request = self.request(&record, attempt, port).await?;
        if request.spec.network == Network::Docket {
            self.doors.engine.ensure_network().await?;
        }
        match self.doors.engine.create(&request).await {
            Ok(id) => {
                self.touched.push(id.clone());
                self.made = Some(id);
                self.event(false, "Created", &format!("container {}", request.name));
                Ok(())
            }
            Err(error) if error.kind == EngineErrorKind::NameTaken => {
                self.name_taken(&request.name, attempt, error).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ours: it is found by the next listing and adopted. Foreign: the next number.
    async fn name_taken(
        &self,
        name: &str,
        attempt: u32,
        error: EngineError,
    ) -> Result<(), StepError> {
        match self.doors.engine.holder_of(name).await? {
            Some(false) => {
                let message = format!("a foreign container has the name {name}");
                self.event(true, "NameConflict", &message);
                self.change(|record| {
                    record.attempt = attempt;
                    record.intent = None;
                })
                .await?;
                Err(error.into())
            }
            Some(true) | None => Err(StepError::LookAgain(format!("the name {name} was taken"))),
        }
    }

    async fn start(&mut self, target: &Target, restart: bool) -> Result<(), StepError> {
        let id = match target {
            Target::Seen(id) => id.clone(),
            Target::Made => self.made.clone().ok_or_else(|| {
                StepError::LookAgain("the container to start was not made".to_owned())
            })?,
        };
        let now = self.now();
        self.touched.push(id.clone());
        self.change(|record| {
            let attempt = record.attempt;
            record.intent = Some(intent(Operation::Start, attempt, now, Reason::InProgress));
            record.ready_since = None;
        })
        .await?;
        self.doors.engine.start(&id).await?;
        self.change(|record| {
            record.intent = None;
            record.paused = None;
            record.restarts += u32::from(restart);
            if !restart {
                record.restart_after = record.restart_after.filter(|n| *n >= record.attempt);
            }
            record.failures.remove(&Operation::Create);
            record.failures.remove(&Operation::Start);
        })
        .await?;
        let (reason, what) = if restart { ("Restarted", "again") } else { ("Started", "") };
        self.event(false, reason, &format!("container {id} was started {what}").trim_end());
        Ok(())
    }

    async fn stop(
        &mut self,
        id: &ContainerId,
        attempt: u32,
        grace: Duration,
        reason: Reason,
    ) -> Result<(), StepError> {
        let now = self.now();
        self.touched.push(id.clone());
        self.change(|record| {
            record.intent = Some(intent(Operation::Stop, attempt, now, reason));
            record.ready_since = None;
        })
        .await?;
        self.doors.engine.stop(id, grace).await?;
        let seen = self.doors.engine.inspect(id).await?;
        if seen.is_some_and(|c| is_alive(&c)) {
            return Err(StepError::LookAgain(format!("container {id} was stopped and still runs")));
        }
        self.change(|record| {
            record.failures.remove(&Operation::Stop);
            record.paused = None;
        })
        .await?;
        self.event(false, "Stopped", &format!("container {id} was stopped ({reason})"));
        Ok(())
    }

    /// The proof of how it ended goes with it, so that is written down first.
    async fn remove(&mut self, id: &ContainerId, attempt: u32) -> Result<(), StepError> {
        self.touched.push(id.clone());
        if let Some(seen) = self.doors.engine.inspect(id).await? {
            let record = self.record()?;
            if is_alive(&seen) {
                return Err(StepError::LookAgain(format!("container {id} runs")));
            }
            let exited = seen.state == ContainerState::Exited && seen.uid == record.uid;
            if let (true, Some(detail)) = (exited, &seen.detail) {
                let end = classify_end(&record, &seen, detail, None);
                self.change(|record| note_end(record, end)).await?;
            }
            self.doors.engine.remove(id).await?;
        }
        self.change(|record| {
            record.intent = record.intent.take().filter(|intent| intent.attempt != attempt);
            record.failures.remove(&Operation::Remove);
        })
        .await?;
        self.event(false, "Removed", &format!("container {id} was removed"));
        Ok(())
    }

    async fn hydrate(&self) -> Result<(), StepError> {
        let record = self.record()?;
        super::lanes::hydrate(self.doors, &record, self.cancel).await?;
        self.event(false, "Hydrated", "its files are there");
        Ok(())
    }

    async fn sync(&self, kind: SyncKind) -> Result<(), StepError> {
        let record = self.record()?;
        match kind {
            SyncKind::PreStop => {
                // One attempt, and whatever comes of it, the stop goes on.
                let work = super::lanes::sync(self.doors, &record, kind, self.cancel);
                match tokio::time::timeout(PRE_STOP, work).await {
                    Ok(Ok(())) => (),
                    Ok(Err(met)) => self.event(true, "SyncFailed", &met.to_string()),
                    Err(_) => {
                        self.event(true, "SyncFailed", "the sync before the stop took too long")
                    }
                }
                self.change(|record| {
                    if let Some(ending) = &mut record.ending {
                        ending.pre_synced = true;
                    }
                })
                .await
            }
            SyncKind::Background => {
                super::lanes::sync(self.doors, &record, kind, self.cancel).await
            }
            SyncKind::Final => {
                super::lanes::sync(self.doors, &record, kind, self.cancel).await?;
                let after = self.record()?;
                let Some(_) = &after.ending else { return Ok(()) };
                if after.files.blocking > 0 || after.files.unsynced > 0 {
                    return Err(StepError::NotSafe(format!(
                        "{} files are not stored; `docket files {}` says why",
                        after.files.blocking.max(after.files.unsynced),
                        after.name
                    )));
                }
                self.change(|record| {
                    if let Some(ending) = &mut record.ending {
                        ending.final_synced = true;
                    }
                })
                .await
            }
        }
    }

    async fn trash(&self) -> Result<(), StepError> {
        let record = self.record()?;
        self.doors.workspaces.trash(&place(&record)).await?;
        self.change(|record| {
            if let Some(ending) = &mut record.ending {
                ending.trashed = true;
            }
        })
        .await
    }

    async fn drop_record(&self) -> Result<(), StepError> {
        let record = self.record()?;
        self.doors.workspaces.drop_secrets(&record.uid).await?;
        self.doors.workspaces.drop_note(&record.uid).await?;
        self.doors.book.drop_record(&record.uid).await?;
        self.event(false, "Ended", "nothing of it is left");
        Ok(())
    }

    /// A container of ours without a record is taken in: its uid, port and number stay.
    async fn rebuild(&mut self, action: &Action) -> Result<(), StepError> {
        let Action::Rebuild { found, uid, attempt, port, image_id, applied, source } = action
        else {
            return Ok(());
        };
        let mut record =
            Record::admit(uid.clone(), (**applied).clone(), source.clone(), self.now());
        record.attempt = *attempt;
        record.port = *port;
        record.adopted = true;
        let seen = self.doors.workspaces.look(&record.user, &record.case).await?;
        record.workspace = seen.map(|seen| seen.id);
        record.hydrated = record.workspace.is_some();
        if let Some(id) = image_id {
            let never = crate::model::PullPolicy::Never;
            let user = self.doors.engine.resolve_image(id, never).await.map(|image| image.user);
            let pin = ImagePin { id: id.clone(), user: user.unwrap_or_default() };
            record.applied.image = Some(pin);
        }
        let record = self.doors.book.admit(record).await?;
        self.uid = Some(uid.clone());
        copy_record(self.doors, &record, None).await;
        self.event(true, "Rebuilt", &format!("its record was lost and rebuilt from {found}"));
        Ok(())
    }

    async fn note_fact(&self, action: &Action) -> Result<(), StepError> {
        let now = self.now();
        let random = self.doors.clock.random()[0];
        let before = self.record()?;
        self.change(|record| match action {
            Action::BeginEnding { cause } => {
                if record.ending.is_none() {
                    record.ending = Some(Ending {
                        since: now,
                        cause: cause.clone(),
                        discard: false,
                        pre_synced: false,
                        final_synced: false,
                        trashed: false,
                    });
                    record.ready_since = None;
                }
            }
            Action::NoteTermination(end) => note_end(record, end.clone()),
            Action::NoteFailure { operation, reason, message, terminal } => {
                let met = Met {
                    operation: *operation,
                    reason: *reason,
                    message: message.clone(),
                    terminal: *terminal,
                    at_once: false,
                };
                note_failure(record, &met, now, random);
            }
            Action::NoteReady { generation } => {
                record.ready_since = record.ready_since.or(Some(now));
                record.ready_generation = *generation;
                record.last_good = None;
                record
                    .failures
                    .retain(|operation, _| matches!(operation, Operation::Run | Operation::Sync));
            }
            Action::NoteNotReady => record.ready_since = None,
            Action::ClearFailures { operation } => {
                record.failures.remove(operation);
            }
            Action::Retire { reason } => {
                record.retired = Some(Retired { reason: *reason, at: now });
            }
            _ => (),
        })
        .await?;
        self.tell_fact(&before, action);
        Ok(())
    }

    fn tell_fact(&self, before: &Record, action: &Action) {
        match action {
            Action::NoteReady { generation } if before.ready_since.is_none() => {
                self.event(false, "Ready", &format!("generation {generation} answers"));
            }
            Action::NoteTermination(end) => {
                let warning = !matches!(end.reason, Reason::Requested | Reason::Completed);
                let code = end.exit_code.map_or(String::new(), |c| format!(" with exit code {c}"));
                self.event(warning, &end.reason.to_string(), &format!("its container ended{code}"));
            }
            Action::Retire { reason } => {
                self.event(false, &reason.to_string(), "its lifetime is over");
            }
            Action::BeginEnding { cause } if before.ending.is_none() => {
                self.event(false, "Ending", cause);
            }
            _ => (),
        }
    }

    /// Writes down why a step failed, so that its gate closes for a while.
    async fn note(&self, action: &Action, met: &StepError) {
        let Some(met) = self.classify(action, met) else { return };
        if met.reason == Reason::PortConflict
            && let Ok(record) = self.record()
            && let Some(port) = record.port
        {
            let until = self.now().checked_add_signed(QUARANTINE).unwrap_or(self.now());
            self.doors
                .quarantine
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(port, until);
        }
        let (now, random) = (self.now(), self.doors.clock.random()[0]);
        let noted = self.change(|record| note_failure(record, &met, now, random)).await;
        if let Err(error) = noted {
            tracing::warn!(session = %self.name, %error, "a failure could not be kept");
        }
        if met.reason != Reason::PortConflict {
            self.event(true, &met.reason.to_string(), &met.message);
        }
    }

    fn classify(&self, action: &Action, met: &StepError) -> Option<Met> {
        let operation = operation_of(action)?;
        let count = self
            .record()
            .ok()
            .and_then(|r| r.failures.get(&operation).map(|f| f.count))
            .unwrap_or_default();
        let (reason, terminal, at_once) = match met {
            StepError::Engine(error) => engine_reason(operation, error.kind, count),
            StepError::Workspace(error) => (workspace_reason(error.kind, operation), false, false),
            StepError::Files(error) => (files_reason(error.kind()), false, false),
            StepError::NotSafe(_) => (Reason::FileSkipped, false, false),
            StepError::LookAgain(_) => (Reason::InProgress, false, false),
            StepError::Ledger(_) | StepError::NoRecord | StepError::Interrupted => return None,
        };
        Some(Met { operation, reason, message: one_line(&met.to_string()), terminal, at_once })
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

fn note_failure(record: &mut Record, met: &Met, now: Timestamp, random: u8) {
    let before = record.failures.get(&met.operation);
    let failure = failed(before, met, &record.applied.resolved, now, random);
    record.failures.insert(met.operation, failure);
}

fn note_end(record: &mut Record, end: Termination) {
    record.intent = record.intent.take().filter(|intent| intent.attempt != end.attempt);
    record.ready_since = None;
    record.last_termination = Some(end);
}

fn intent(operation: Operation, attempt: u32, at: Timestamp, reason: Reason) -> Intent {
    Intent { operation, attempt, at, reason }
}

fn is_alive(container: &Container) -> bool {
    matches!(
        container.state,
        ContainerState::Running | ContainerState::Paused | ContainerState::Restarting
    )
}

/// Which gate an action's failure closes; `None`: it is a note.
fn operation_of(action: &Action) -> Option<Operation> {
    Some(match action {
        Action::CreateWorkspace => Operation::Workspace,
        Action::Hydrate => Operation::Hydrate,
        Action::ResolveImage { .. } => Operation::Image,
        Action::CreateContainer { .. } => Operation::Create,
        Action::StartContainer { .. } => Operation::Start,
        Action::StopContainer { .. } => Operation::Stop,
        Action::RemoveContainer { .. } => Operation::Remove,
        Action::UpdateResources { .. }
        | Action::PauseContainer { .. }
        | Action::UnpauseContainer { .. } => Operation::Update,
        Action::Sync { .. } => Operation::Sync,
        Action::TrashWorkspace | Action::EmptyTrash | Action::DropRecord => Operation::Cleanup,
        _ => return None,
    })
}

/// Reason, whether it holds until the spec changes, whether the next try comes at once.
fn engine_reason(operation: Operation, kind: EngineErrorKind, count: u32) -> (Reason, bool, bool) {
    let soon = count < NAMES_TRIED;
    match kind {
        EngineErrorKind::PortTaken => (Reason::PortConflict, false, soon),
        EngineErrorKind::NameTaken => (Reason::NameConflict, false, soon),
        EngineErrorKind::ImageMissing => (Reason::ImageMissing, false, false),
        EngineErrorKind::PullFailed => (Reason::ImagePullFailed, false, false),
        EngineErrorKind::CommandInvalid => (Reason::CommandInvalid, true, false),
        EngineErrorKind::HardeningDropped => (Reason::HardeningDropped, true, false),
        EngineErrorKind::Unreachable | EngineErrorKind::Timeout => {
            (Reason::EngineUnreachable, false, false)
        }
        kind => match operation {
            Operation::Create => (Reason::CreateFailed, kind.is_terminal(), false),
            _ => (Reason::StartFailed, kind.is_terminal(), false),
        },
    }
}

fn workspace_reason(kind: WorkspaceErrorKind, operation: Operation) -> Reason {
    match kind {
        WorkspaceErrorKind::Replaced => Reason::WorkspaceReplaced,
        WorkspaceErrorKind::NoSpace => Reason::LowSpace,
        _ if operation == Operation::Create => Reason::SecretUnavailable,
        _ => Reason::WorkspaceFailed,
    }
}

fn files_reason(kind: FilesErrorKind) -> Reason {
    match kind {
        FilesErrorKind::StoreUnavailable => Reason::StoreUnavailable,
        FilesErrorKind::StoreDenied => Reason::StoreDenied,
        FilesErrorKind::ManifestUnavailable => Reason::ManifestUnavailable,
        FilesErrorKind::ManifestInvalid => Reason::ManifestInvalid,
        FilesErrorKind::ObjectMissing => Reason::ObjectMissing,
        FilesErrorKind::Corrupt => Reason::ContentCorrupt,
        FilesErrorKind::NoSpace => Reason::LowSpace,
        FilesErrorKind::WorkspaceReplaced => Reason::WorkspaceReplaced,
        FilesErrorKind::Io => Reason::WorkspaceFailed,
    }
}

/// Where a session's workspace is and which directory it must be.
pub fn place(record: &Record) -> Place {
    Place {
        user: record.user.clone(),
        case: record.case.clone(),
        uid: record.uid.clone(),
        id: record.workspace,
    }
}

/// Who owns the files: `workspace.owner`, else `runAs`, else the image's `USER`, else root. A
/// name (not a number) cannot be looked up without opening the image: root.
pub fn owner_of(record: &Record) -> (u32, u32) {
    let spec = &record.applied.resolved;
    let image = record.applied.image.as_ref().map_or("", |pin| pin.user.as_str());
    [spec.workspace.owner.as_str(), spec.container.security.run_as.as_str(), image]
        .into_iter()
        .find(|text| !text.is_empty())
        .and_then(parse_owner)
        .unwrap_or((0, 0))
}

fn parse_owner(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    Some((user.parse().ok()?, group.parse().ok()?))
}

fn labels(
    identity: &Identity,
    record: &Record,
    attempt: u32,
    hash: String,
) -> BTreeMap<String, String> {
    use crate::world::{
        LABEL_ATTEMPT, LABEL_CASE, LABEL_INSTALLATION, LABEL_SESSION, LABEL_SPEC_HASH, LABEL_UID,
        LABEL_USER,
    };
    let mut labels = record.applied.resolved.container.labels.clone();
    labels.extend(
        [
            (LABEL_INSTALLATION, identity.installation.to_string()),
            (LABEL_SESSION, record.name.to_string()),
            (LABEL_UID, record.uid.to_string()),
            (LABEL_ATTEMPT, attempt.to_string()),
            (LABEL_SPEC_HASH, hash),
            (LABEL_USER, record.user.to_string()),
            (LABEL_CASE, record.case.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    labels
}

/// Writes the copy of a record beside the workspaces. Its failure is told and not fatal: the
/// ledger has the record.
pub(super) async fn copy_record<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
    base: Option<&crate::model::Base>,
) where
    W: Workspaces,
    L: Ledger,
{
    let kept;
    let base = match base {
        Some(base) => Some(base),
        None => {
            kept = doors.book.base(&record.uid).await.ok().flatten();
            kept.as_ref()
        }
    };
    let note = super::notes::write(record, base);
    if let Err(error) = doors.workspaces.put_note(&record.uid, note).await {
        tracing::warn!(session = %record.name, %error, "the copy of the record was not written");
    }
}
