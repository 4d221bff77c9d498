//! Who may sync a session's files right now: one at a time, and a background sync gives way to
//! one that a stop or an end waits for. What a sync or hydration found is kept here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::{
    CaseName, Operation, Progress, Record, RelPath, SyncKind, Timestamp, Uid, UserName, many,
};
use crate::world::{
    Clock, Count, Engine, Ledger, Objects, Place, ScanMode, Timed, Workspaces, Write,
};

use super::execute::{Doors, StepError, copy_record, place};
use super::files::{self, Files, FilesError, Found};
use super::lazy::{Coming, Failures};
use super::rooms::Rooms;

/// Creates, starts and removals beside each other. The engine burns a fifth of a second of cpu a
/// published container; more than this many at once gain nothing.
const ENGINE_ABREAST: usize = 8;

/// Transfers beside each other, all sessions together; each may hold a file, its directory and a
/// connection open.
const TRANSFERS: usize = 256;

/// The sync lanes of all sessions, and the engine's.
#[derive(Debug)]
pub struct Lanes {
    files: Mutex<BTreeMap<Uid, Arc<Lane>>>,
    /// A permit is held during each create, start and removal.
    pub(super) engine: tokio::sync::Semaphore,
    /// What workspaces take of what they may.
    pub rooms: Rooms,
    /// By `user/case`: held while anything commits to it or is collected of it.
    cases: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Whether it was looked at how the store takes conditional writes.
    said_unconditional: AtomicBool,
    /// Why files did not come when they were opened.
    pub failures: Failures,
    /// What is on its way to whoever opened it.
    pub coming: Coming,
    /// Whose backlog is being fetched, or was.
    pub(super) prefetching: Mutex<BTreeMap<Uid, Prefetch>>,
    transfers: files::Turns,
    /// How far the hydrations are that are under way.
    progress: Mutex<BTreeMap<Uid, Progress>>,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes::new(usize::MAX)
    }
}

/// How far the fetching of a backlog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefetch {
    /// Under way.
    Running,
    /// Done, when this sync had been the last.
    Done(Option<Timestamp>),
}

#[derive(Debug, Default)]
struct Lane {
    turn: Arc<tokio::sync::Mutex<()>>,
    background: Mutex<CancellationToken>,
    /// Whether this process looked for the objects of files that wait.
    looked: AtomicBool,
}

impl Lanes {
    /// For a process that may hold so many descriptors open.
    pub fn new(descriptors: usize) -> Lanes {
        let share = descriptors.saturating_sub(128) / 4;
        Lanes {
            files: Mutex::default(),
            engine: tokio::sync::Semaphore::new(ENGINE_ABREAST),
            rooms: Rooms::default(),
            failures: Failures::default(),
            coming: Coming::default(),
            prefetching: Mutex::default(),
            transfers: files::Turns::new(share.clamp(4, TRANSFERS), share.max(16)),
            progress: Mutex::default(),
            cases: Mutex::default(),
            said_unconditional: AtomicBool::new(false),
        }
    }

    /// What bounds syncs and hydrations.
    pub(super) fn bounds(&self) -> files::Bounds<'_> {
        files::Bounds { floor: self.rooms.floor(), turns: &self.transfers }
    }

    /// How far a session's hydration is, while it is under way, what is half here among it.
    pub fn progress(&self, record: &Record) -> Option<Progress> {
        let all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = all.get(&record.uid).copied()?;
        let half = self.coming.beneath(&format!("{}/{}/", record.user, record.case));
        done.bytes = done.bytes.saturating_add(half).min(done.bytes_total);
        Some(done)
    }

    fn note_progress(&self, uid: &Uid, progress: Option<Progress>) {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => all.insert(uid.clone(), progress),
            None => all.remove(uid),
        };
    }

    fn of(&self, uid: &Uid) -> Arc<Lane> {
        let mut lanes = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(uid.clone()).or_default())
    }

    /// A case's turn in the store.
    pub(super) async fn case(
        &self,
        user: &UserName,
        case: &CaseName,
    ) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for are forgotten.
            cases.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(cases.entry(format!("{user}/{case}")).or_default())
        };
        turn.lock_owned().await
    }

    /// A session's turn for work that gives way to what a stop or an end waits for.
    pub(super) async fn background(
        &self,
        uid: &Uid,
    ) -> (tokio::sync::OwnedMutexGuard<()>, CancellationToken) {
        let turn = Arc::clone(&self.of(uid).turn).lock_owned().await;
        (turn, self.renewed(uid))
    }

    /// A new token for who has the turn, so that it hears of the next that is more urgent.
    pub(super) fn renewed(&self, uid: &Uid) -> CancellationToken {
        let stop = CancellationToken::new();
        *self.of(uid).background.lock().unwrap_or_else(PoisonError::into_inner) = stop.clone();
        stop
    }

    /// Forgets a session that is over.
    pub fn forget(&self, uid: &Uid) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Ends the background sync of a session, if one runs: something more urgent comes.
    pub fn interrupt(&self, uid: &Uid) {
        let lane = self.of(uid);
        let token = lane.background.lock().unwrap_or_else(PoisonError::into_inner).clone();
        token.cancel();
    }
}

/// Shows how far a hydration is as long as it lives.
struct Shown<'a> {
    lanes: &'a Lanes,
    uid: &'a Uid,
}

impl Shown<'_> {
    fn at(&self, progress: Progress) {
        self.lanes.note_progress(self.uid, Some(progress));
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.lanes.note_progress(self.uid, None);
    }
}

impl<E, O, W, L, C> Doors<E, O, W, L, C> {
    /// A session's files.
    pub(super) fn files<'a>(&'a self, there: &'a Place, record: &'a Record) -> Files<'a, W, O, C> {
        Files {
            workspaces: &self.workspaces,
            objects: &self.objects,
            clock: &self.clock,
            place: there,
            spec: &record.applied.resolved.workspace,
            owner: super::execute::owner_of(record),
            bounds: self.lanes.bounds(),
        }
    }
}

/// Syncs a session's files and keeps what came of it.
pub(super) async fn sync<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
    kind: SyncKind,
    cancel: &CancellationToken,
) -> Result<(), StepError>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let lane = doors.lanes.of(&record.uid);
    if kind != SyncKind::Background {
        doors.lanes.interrupt(&record.uid);
    }
    let _turn = lane.turn.lock().await;
    let _case = doors.lanes.case(&record.user, &record.case).await;
    let stop = CancellationToken::new();
    if kind == SyncKind::Background {
        *lane.background.lock().unwrap_or_else(PoisonError::into_inner) = stop.clone();
    }
    let base = doors.book.base(&record.uid).await?;
    let mode = match kind {
        SyncKind::Background | SyncKind::PreStop => ScanMode::Quick,
        SyncKind::Final => ScanMode::Checksum,
    };
    let there = place(record);
    doors.lanes.rooms.scan_begins(record);
    let files = doors.files(&there, record);
    let work = files.sync(base.as_ref(), mode);
    let found = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(StepError::Interrupted),
        () = stop.cancelled() => return Err(StepError::Interrupted),
        found = work => found,
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            note_waiting(doors, record, base.as_ref(), &error).await;
            return Err(error.into());
        }
    };
    say_unconditional(doors).await;
    let now = doors.clock.now();
    let conflicts = found.seen.conflicts;
    let kept = keep(doors, &record.uid, base.as_ref(), found, |record| {
        record.last_sync = Some(now);
        record.failures.remove(&Operation::Sync);
    });
    let after = kept.await?;
    tell_missing(doors, record, &files, base.as_ref(), &after).await;
    if conflicts > 0 {
        doors.meter.count(Count::Conflicts, "", conflicts);
        let message = format!("changed on both sides, and both kept: {}", many(conflicts, "file"));
        doors.book.event(now, Some(&record.name), true, "Conflict", message);
    }
    Ok(())
}

/// After a sync that failed, edits wait: they are counted all the same.
async fn note_waiting<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
    base: Option<&crate::model::Base>,
    error: &FilesError,
) where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    if matches!(error, FilesError::Workspace(_) | FilesError::Exclude(_)) {
        return;
    }
    let counted = doors.files(&place(record), record).waiting(base).await;
    let kept = match counted {
        Ok(found) => {
            let (seen, remarks) = (found.seen, found.remarks);
            let change = |record: &mut Record| {
                let conflicts = record.files.conflicts;
                record.files = crate::model::FilesSeen { conflicts, ..seen };
                record.remarks = remarks;
            };
            let after = doors.book.update(&record.uid, change).await;
            // What the workspace takes counts for opens, too.
            after.map(|after| after.iter().for_each(|after| doors.lanes.rooms.heed(after)))
        }
        Err(error) => {
            tracing::debug!(session = %record.name, %error, "what waits was not counted");
            return;
        }
    };
    if let Err(error) = kept {
        tracing::debug!(session = %record.name, %error, "what waits was not counted");
    }
}

/// Says once that the store does not decide conditional writes itself.
async fn say_unconditional<E, O: Objects, W, L: Ledger, C: Clock>(doors: &Doors<E, O, W, L, C>) {
    if doors.lanes.said_unconditional.load(Ordering::Relaxed) {
        return;
    }
    let Ok(decides) = doors.objects.is_conditional().await else { return };
    if !doors.lanes.said_unconditional.swap(true, Ordering::Relaxed) && !decides {
        doors.book.event(doors.clock.now(), None, true, "StoreUnconditional", UNCONDITIONAL);
    }
}

/// What a store without conditional writes means.
pub const UNCONDITIONAL: &str = "the store does not know conditional writes: docket reads, compares \
    and writes, so let nothing else write to a case while its session lives";

/// Fetches what must be there before the start, and keeps what came of it.
pub(super) async fn hydrate<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
    cancel: &CancellationToken,
) -> Result<(), StepError>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let lane = doors.lanes.of(&record.uid);
    let _turn = lane.turn.lock().await;
    let base = doors.book.base(&record.uid).await?;
    let there = place(record);
    doors.lanes.rooms.scan_begins(record);
    let shown = Shown { lanes: &doors.lanes, uid: &record.uid };
    let show = |progress| shown.at(progress);
    let files = doors.files(&there, record);
    let work = files.hydrate(base.as_ref(), &show);
    let found = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(StepError::Interrupted),
        found = work => found?,
    };
    let now = doors.clock.now();
    let kept = keep(doors, &record.uid, base.as_ref(), found, |record| {
        record.hydrated = true;
        record.last_sync = record.last_sync.or(Some(now));
        record.failures.remove(&Operation::Hydrate);
    });
    let after = kept.await?;
    tell_missing(doors, record, &files, base.as_ref(), &after).await;
    Ok(())
}

/// Files named in an event.
const NAMED: usize = 3;

/// Says of large files that begin to wait, and once of all that do, what would otherwise be found
/// out by who opens them: that the store has not what they wait for, or that it may not come.
async fn tell_missing<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
    files: &Files<'_, W, O, C>,
    before: Option<&crate::model::Base>,
    base: &crate::model::Base,
) where
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let looked = doors.lanes.of(&record.uid).looked.swap(true, Ordering::Relaxed);
    let before = before.filter(|_| looked);
    let missing = match files.missing(before, base).await {
        Ok(missing) if missing.is_empty() => return,
        Ok(missing) => missing,
        Err(error) => {
            tracing::debug!(session = %record.name, %error, "what waits was not looked for");
            return;
        }
    };
    let named: Vec<String> = missing.keys().take(NAMED).map(|path| format!("`{path}`")).collect();
    let more = if missing.len() > NAMED { ", ..." } else { "" };
    let message = format!(
        "opening will fail for {}: {}{more}; `docket files {}` says why",
        many(missing.len() as u64, "file"),
        named.join(", "),
        record.name
    );
    doors.book.event(doors.clock.now(), Some(&record.name), true, "ObjectMissing", message);
    for (key, why) in missing.into_values() {
        doors.lanes.failures.set(&key, Some(why));
    }
}

/// Keeps an index and its counts in one batch with a change of the record; the index.
pub(super) async fn keep<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    uid: &Uid,
    before: Option<&crate::model::Base>,
    found: Found,
    change: impl FnOnce(&mut Record) + Send,
) -> Result<crate::model::Base, StepError>
where
    W: Workspaces,
    L: Ledger,
{
    let Found { base, seen, remarks } = found;
    let moved = before != Some(&base);
    let more =
        if moved { vec![Write::Base(uid.clone(), Box::new(base.clone()))] } else { Vec::new() };
    let after = doors
        .book
        .update_with(uid, more, |record| {
            let conflicts = record.files.conflicts + seen.conflicts;
            record.files = crate::model::FilesSeen { conflicts, ..seen };
            record.remarks = remarks;
            change(record);
        })
        .await?
        .ok_or(StepError::NoRecord)?;
    doors.lanes.rooms.heed(&after);
    if moved {
        copy_record(doors, &after, Some(&base)).await;
    }
    Ok(base)
}

/// Fetches files on request, these and what lies beneath them; the answer for people.
///
/// # Errors
/// As a hydration's; [`StepError::NoFile`].
pub async fn hydrate_paths<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
    paths: &[RelPath],
) -> Result<String, StepError>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let lane = doors.lanes.of(&record.uid);
    let _turn = lane.turn.lock().await;
    let base = doors.book.base(&record.uid).await?;
    let known = || base.iter().flat_map(|base| &base.files);
    let mut wanted = BTreeSet::new();
    for asked in paths {
        let before = wanted.len();
        let found = known().map(|(path, _)| path).filter(|path| asked.covers(path));
        wanted.extend(found.cloned());
        if wanted.len() == before && !wanted.contains(asked) {
            return Err(StepError::NoFile(asked.clone()));
        }
    }
    if paths.is_empty() {
        wanted.extend(known().filter(|(_, e)| e.stamp.is_none()).map(|(path, _)| path.clone()));
    }
    let wanted: Vec<RelPath> = wanted.into_iter().collect();
    if wanted.is_empty() {
        return Ok("all files are here".to_owned());
    }
    let there = place(record);
    doors.lanes.rooms.scan_begins(record);
    let shown = Shown { lanes: &doors.lanes, uid: &record.uid };
    let show = |progress| shown.at(progress);
    let files = doors.files(&there, record);
    let began = Instant::now();
    let found = files.hydrate_paths(base.as_ref(), &wanted, &show).await;
    let labels = ("request", if found.is_ok() { "done" } else { "failed" });
    doors.meter.took(Timed::Hydration, labels, began.elapsed());
    let found = found?;
    let here = found
        .base
        .files
        .iter()
        .filter(|(path, entry)| entry.stamp.is_some() && wanted.contains(path));
    let told = format!("{} of {} files are here", here.count(), wanted.len());
    keep(doors, &record.uid, base.as_ref(), found, |_| ()).await?;
    Ok(told)
}
