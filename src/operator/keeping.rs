//! Answers about what was kept: earlier states of a workspace, garbage in the store, the trash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio::sync::oneshot;

use crate::apply::files::{self, RestoreError, StateSeen};
use crate::apply::{Doors, RestoreFailed};
use crate::model::{Record, RelPath, SessionName, Timestamp};
use crate::sync::{NoReturn, NoState};
use crate::world::{Clock, Engine, Ledger, Objects, Probe, Trashed, Workspaces};

use super::Operator;
use super::asks::give;
use super::handle::{
    Answer, GarbageView, GcView, HistoryView, ObjectView, Refusal, StateView, TrashView,
};

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    pub(super) fn history_of(
        &self,
        name: &SessionName,
        most: usize,
        reply: oneshot::Sender<Answer<HistoryView>>,
    ) {
        let record = match self.record_of(name) {
            Ok(record) => record,
            Err(refusal) => return give(reply, Err(refusal)),
        };
        let doors = Arc::clone(&self.doors);
        tokio::spawn(async move {
            let seen = files::history(&doors.objects, &record.user, &record.case, most).await;
            let answer = seen.map(|(states, older)| HistoryView {
                states: states.into_iter().map(state_view).collect(),
                older: older as u64,
            });
            give(reply, answer.map_err(|error| Refusal::Failed(error.to_string())));
        });
    }

    pub(super) fn restore_now(
        &self,
        name: &SessionName,
        at: String,
        path: Option<&str>,
        reply: oneshot::Sender<Answer<String>>,
    ) {
        let asked = self
            .restorable(name)
            .and_then(|record| Ok((record, path.map(wanted_path).transpose()?)));
        let (record, path) = match asked {
            Ok(asked) => asked,
            Err(refusal) => return give(reply, Err(refusal)),
        };
        let doors = Arc::clone(&self.doors);
        tokio::spawn(async move {
            let done = crate::apply::restore(&doors, &record, &at, path.as_ref()).await;
            give(reply, done.map_err(|failed| refusal_of(&failed)));
        });
    }

    /// A session whose workspace can be changed.
    fn restorable(&self, name: &SessionName) -> Answer<Arc<Record>> {
        let record = self.record_of(name)?;
        if record.ending.is_some() {
            return Err(Refusal::Refused(format!("session `{name}` is ending")));
        }
        if record.workspace.is_none() || !record.has_files() {
            return Err(Refusal::Refused(format!("session `{name}` has no files yet")));
        }
        Ok(record)
    }

    pub(super) fn collect_garbage(
        &self,
        older_than: Duration,
        dry: bool,
        reply: oneshot::Sender<Answer<GcView>>,
    ) {
        let doors = Arc::clone(&self.doors);
        tokio::spawn(async move {
            let age = TimeDelta::from_std(older_than).unwrap_or(TimeDelta::MAX);
            let cut = doors.clock.now().checked_sub_signed(age).unwrap_or(Timestamp::MIN_UTC);
            let answer = match crate::apply::collect(&doors, cut, dry).await {
                Ok(collected) => Ok(gc_view(collected, dry)),
                Err(error) => Err(Refusal::Failed(error.to_string())),
            };
            give(reply, answer);
        });
    }

    pub(super) fn trash(&self, reply: oneshot::Sender<Answer<Vec<TrashView>>>) {
        let doors = Arc::clone(&self.doors);
        let keep = self.settings.trash_keep;
        tokio::spawn(async move {
            let answer = match doors.workspaces.list_trash().await {
                Ok(all) => Ok(trash_views(&doors, all, keep)),
                Err(error) => Err(Refusal::Failed(error.to_string())),
            };
            give(reply, answer);
        });
    }
}

/// A path as `docket files` prints it; a shell's completion adds the slash.
pub(super) fn wanted_path(text: &str) -> Answer<RelPath> {
    let text = text.strip_suffix('/').unwrap_or(text);
    RelPath::try_from(text.to_owned()).map_err(|bad| Refusal::Invalid(bad.to_string()))
}

fn refusal_of(failed: &RestoreFailed) -> Refusal {
    let text = failed.to_string();
    match failed {
        RestoreFailed::Restore(error) => match error {
            RestoreError::NoState(NoState::Several(..)) => Refusal::Invalid(text),
            RestoreError::NoState(_) | RestoreError::NoReturn(NoReturn::NotThen(_)) => {
                Refusal::NotFound(text)
            }
            RestoreError::NoReturn(_)
            | RestoreError::NothingBeside(_)
            | RestoreError::NotFollowed { .. } => Refusal::Refused(text),
            RestoreError::Files(_) => Refusal::Failed(text),
        },
        RestoreFailed::Step(crate::apply::StepError::Interrupted) => Refusal::Refused(
            "something more urgent came; `docket history` says whether it is the state".to_owned(),
        ),
        RestoreFailed::Step(_) => Refusal::Failed(text),
    }
}

fn state_view(seen: StateSeen) -> StateView {
    let StateSeen { id, short, since, current, holds } = seen;
    let mut view = StateView { id, short, time: since, current, ..StateView::default() };
    match holds {
        Ok(holds) => {
            (view.files, view.bytes) = (holds.files, holds.bytes);
            view.changes = match &holds.difference {
                None => "the first state".to_owned(),
                Some(difference) if difference.is_empty() => "directories or links".to_owned(),
                Some(difference) => difference.to_string(),
            };
            if let Some(difference) = holds.difference {
                view.added = difference.added.len() as u64;
                view.changed = difference.changed.len() as u64;
                view.removed = difference.removed.len() as u64;
            }
        }
        Err(why) => view.error = why,
    }
    view
}

fn gc_view(collected: crate::apply::Collected, dry: bool) -> GcView {
    let objects: Vec<ObjectView> = collected
        .garbage
        .into_iter()
        .map(|one| ObjectView { key: one.key, size: one.size, written: one.written })
        .collect();
    let left = collected.left.into_iter().map(|(case, why)| GarbageView { case, why }).collect();
    let bytes = objects.iter().map(|one| one.size).sum();
    GcView { dry_run: dry, objects, bytes, left }
}

fn trash_views<E, O, W, L: Ledger, C>(
    doors: &Doors<E, O, W, L, C>,
    all: Vec<Trashed>,
    keep: Duration,
) -> Vec<TrashView> {
    let known = doors.book.trashed();
    // What moved there last decides for all of a session.
    let mut newest = BTreeMap::new();
    for one in &all {
        let at = newest.entry(one.uid.clone()).or_insert(one.moved_ns);
        *at = one.moved_ns.max(*at);
    }
    let keep = TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
    let view = |one: Trashed| {
        let owed = one.uid.as_ref().and_then(|uid| doors.book.get(uid));
        let session = owed.as_ref().map(|record| record.name.to_string());
        let session = session.or_else(|| known.get(one.uid.as_ref()?).cloned());
        let last = Timestamp::from_timestamp_nanos(newest[&one.uid]);
        let (removed_at, why) = match (&one.uid, owed) {
            (None, _) => {
                (None, "what a tenant moved under docket's hands: kept until you remove it")
            }
            (Some(_), Some(_)) => (None, "its session is still ending"),
            (Some(_), None) => (last.checked_add_signed(keep), ""),
        };
        let moved_at = Timestamp::from_timestamp_nanos(one.moved_ns);
        TrashView { name: one.name, session, moved_at, removed_at, why: why.to_owned() }
    };
    all.into_iter().map(view).collect()
}
