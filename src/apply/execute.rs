//! One arm an action. The executor has no choice left: it does what the plan says, writes the
//! intent before and the outcome after, and stops at the first step that fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::crash::{self, Effect};
use crate::model::{
    Action, ContainerId, Ending, Identity, ImagePin, Operation, Record, RelPath, SessionName,
    SyncKind, Timestamp, Uid, many,
};
use crate::world::{
    Clock, Engine, EngineError, EngineErrorKind, Ledger, LedgerError, Meter, Objects, Place, Timed,
    WorkspaceError, Workspaces,
};

use super::book::Book;
use super::files::FilesError;
use super::lanes::Lanes;

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
    /// What happens is counted here.
    pub meter: Arc<Meter>,
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
    /// An assertion failed: what is half done is not known.
    #[error("an assertion failed: {0}")]
    Broken(String),
    /// Somebody asked to stop here.
    #[error("interrupted")]
    Interrupted,
    /// Look again before going on; why.
    #[error("{0}")]
    LookAgain(String),
    /// The store has nothing at a path that was asked for.
    #[error("the store has no file `{0}` of this session")]
    NoFile(RelPath),
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

impl Ran {
    /// An assertion failed in it.
    pub fn broken(uid: Option<Uid>, why: String) -> Ran {
        let error = Some(("its steps".to_owned(), StepError::Broken(why)));
        Ran { uid, touched: Vec::new(), error, unknown: true }
    }
}

/// One run for one session.
pub(super) struct Run<'a, E, O, W, L, C> {
    pub(super) doors: &'a Doors<E, O, W, L, C>,
    pub(super) name: &'a SessionName,
    pub(super) uid: Option<Uid>,
    pub(super) made: Option<ContainerId>,
    pub(super) touched: Vec<ContainerId>,
    /// The last starts, as this plan saw them, of the containers that it removes.
    starts: BTreeMap<ContainerId, Timestamp>,
    cancel: &'a CancellationToken,
}

/// How it ended, for the meter.
pub(super) fn result(error: Option<&StepError>) -> &'static str {
    match error {
        None => "done",
        Some(StepError::Interrupted) => "interrupted",
        Some(_) => "failed",
    }
}

/// Runs a plan's actions in order; `begins` is told the number of each before it is taken.
pub async fn run<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    name: &SessionName,
    uid: Option<Uid>,
    actions: &[Action],
    cancel: &CancellationToken,
    begins: impl Fn(usize),
) -> Ran
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let starts = actions.iter().filter_map(last_start).collect();
    let mut run = Run { doors, name, uid, made: None, touched: Vec::new(), starts, cancel };
    let mut error = None;
    for (number, action) in actions.iter().enumerate() {
        begins(number);
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
            Action::RemoveContainer { id, attempt, started_at } => {
                self.remove(id, *attempt, *started_at).await
            }
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
                self.event(false, "Unpaused", "its container goes on");
                self.change(|record| record.paused = None).await
            }
            Action::Sync { kind } => self.sync(*kind).await,
            Action::TrashWorkspace => self.trash().await,
            Action::EmptyTrash => {
                let record = self.record()?;
                Ok(self.doors.workspaces.empty_trash(&record.uid).await?)
            }
            Action::DropRecord => self.drop_record().await,
            Action::RemoveLate { id } => self.remove_late(id).await,
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

    pub(super) fn now(&self) -> Timestamp {
        self.doors.clock.now()
    }

    pub(super) fn record(&self) -> Result<Arc<Record>, StepError> {
        self.uid.as_ref().and_then(|uid| self.doors.book.get(uid)).ok_or(StepError::NoRecord)
    }

    pub(super) fn event(&self, warning: bool, reason: &str, message: &str) {
        self.doors.book.event(self.now(), Some(self.name), warning, reason, message);
    }

    /// Changes the record; the copy beside the workspaces follows where it matters.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<(), StepError> {
        let uid = self.uid.as_ref().ok_or(StepError::NoRecord)?;
        let before = self.record()?;
        let after = self.doors.book.update(uid, change).await?.ok_or(StepError::NoRecord)?;
        if !is_copied_alike(&before, &after) {
            self.doors.lanes.rooms.heed(&after);
            copy_record(self.doors, &after, None).await;
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

    async fn hydrate(&self) -> Result<(), StepError> {
        let record = self.record()?;
        let began = Instant::now();
        let done = super::lanes::hydrate(self.doors, &record, self.cancel).await;
        let labels = ("start", result(done.as_ref().err()));
        self.doors.meter.took(Timed::Hydration, labels, began.elapsed());
        done?;
        self.event(false, "Hydrated", "its files are there");
        Ok(())
    }

    async fn sync_timed(&self, record: &Record, kind: SyncKind) -> Result<(), StepError> {
        let began = Instant::now();
        let done = super::lanes::sync(self.doors, record, kind, self.cancel).await;
        let kind = match kind {
            SyncKind::Background => "background",
            SyncKind::PreStop => "pre_stop",
            SyncKind::Final => "final",
        };
        let labels = (kind, result(done.as_ref().err()));
        self.doors.meter.took(Timed::Sync, labels, began.elapsed());
        done
    }

    async fn sync(&self, kind: SyncKind) -> Result<(), StepError> {
        let record = self.record()?;
        match kind {
            SyncKind::PreStop => {
                // One attempt, and whatever comes of it, the stop goes on.
                let work = self.sync_timed(&record, kind);
                match tokio::time::timeout(PRE_STOP, work).await {
                    Ok(Ok(()) | Err(StepError::Interrupted)) => (),
                    Ok(Err(met)) => self.event(true, "SyncFailed", &met.to_string()),
                    Err(_) => {
                        self.event(true, "SyncFailed", "the sync before the stop took too long");
                    }
                }
                self.change(|record| {
                    if let Some(ending) = &mut record.ending {
                        ending.pre_synced = true;
                    }
                })
                .await
            }
            SyncKind::Background => self.sync_timed(&record, kind).await,
            SyncKind::Final => {
                self.sync_timed(&record, kind).await?;
                let after = self.record()?;
                let Some(_) = &after.ending else { return Ok(()) };
                if after.files.blocking > 0 || after.files.unsynced > 0 {
                    return Err(StepError::NotSafe(format!(
                        "not stored: {}; `docket files {}` says why",
                        many(after.files.blocking.max(after.files.unsynced), "file"),
                        after.name
                    )));
                }
                self.change(|record| {
                    if let Some(ending) = &mut record.ending {
                        ending.final_synced = true;
                        ending.followed.clone_from(&self.starts);
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
        let kept = record.files.excluded > 0 || record.ending.as_ref().is_some_and(|e| e.discard);
        if kept && let Some(whose) = self.doors.book.with_trashed(&record) {
            self.doors.book.ledger().commit(vec![whose]).await?;
        }
        self.doors.workspaces.drop_secrets(&record.uid).await?;
        self.doors.workspaces.drop_note(&record.uid).await?;
        let dropped = self.doors.book.drop_record(&record.uid, self.now());
        crash::around(Effect::DropRecord, dropped).await?;
        self.doors.lanes.rooms.forget(&record.user, &record.case);
        self.event(false, "Ended", "nothing of it is left");
        Ok(())
    }
}

/// Whether the copy of the one says all that the copy of the other must. Steps of an end that are
/// taken again without harm are not worth a copy: the sync before the stop, and the move to the
/// trash, which finds nothing to move.
fn is_copied_alike(one: &Record, other: &Record) -> bool {
    let of = |r: &Record| (r.port, r.attempt, r.workspace);
    let ending = |r: &Record| {
        r.ending.clone().map(|ending| Ending { pre_synced: false, trashed: false, ..ending })
    };
    of(one) == of(other)
        && one.source == other.source
        && one.applied == other.applied
        && ending(one) == ending(other)
}

fn last_start(action: &Action) -> Option<(ContainerId, Timestamp)> {
    match action {
        Action::RemoveContainer { id, started_at: Some(at), .. } => Some((id.clone(), *at)),
        _ => None,
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

/// Removes what has been in the trash for its time and belongs to no session.
///
/// # Errors
/// The workspaces': what could not be removed stays for the next sweep.
pub async fn sweep_trash<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    keep: Duration,
) -> Result<(), WorkspaceError>
where
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let now = doors.clock.now();
    let mut newest: BTreeMap<Uid, i64> = BTreeMap::new();
    for trashed in doors.workspaces.list_trash().await? {
        let Some(uid) = trashed.uid else { continue };
        let moved = newest.entry(uid).or_insert(trashed.moved_ns);
        *moved = trashed.moved_ns.max(*moved);
    }
    for (uid, moved_ns) in newest {
        let age = now - chrono::DateTime::from_timestamp_nanos(moved_ns);
        let over = age.to_std().is_ok_and(|age| age >= keep);
        if over && doors.book.get(&uid).is_none() {
            doors.workspaces.empty_trash(&uid).await?;
            doors.book.event(now, None, false, "TrashSwept", format!("what {uid} left is gone"));
        }
    }
    Ok(())
}
