//! `docket history` and `docket restore` of a session: what was committed stays committed, so
//! everything here is first synced and then changed.

use tokio_util::sync::CancellationToken;

use crate::model::{Operation, Record, RelPath};
use crate::world::{Clock, Engine, Ledger, Objects, ScanMode, Workspaces};

use super::execute::{Doors, StepError, owner_of, place};
use super::files::{FilesError, FilesErrorKind, Found, PutBack, RestoreError};
use super::lanes::keep;

/// Why nothing, or not all, was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreFailed {
    /// The state, the store or the workspace: nothing was changed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A step of the session.
    #[error(transparent)]
    Step(#[from] StepError),
}

impl From<FilesError> for RestoreFailed {
    fn from(error: FilesError) -> RestoreFailed {
        RestoreFailed::Restore(error.into())
    }
}

/// Puts an earlier state, or what it has at and beneath a path, into the workspace of a session.
/// The answer for people.
///
/// # Errors
/// [`RestoreFailed`]. Once the store has the new manifest the next sync brings it here, whatever
/// fails then.
pub async fn restore<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    record: &Record,
    at: &str,
    path: Option<&RelPath>,
) -> Result<String, RestoreFailed>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    let (_turn, stop) = doors.lanes.background(&record.uid).await;
    let _case = doors.lanes.case(&record.user, &record.case).await;
    let restoring = Restoring { doors, record, stop };
    let unfollowed = if restoring.commit_edits().await? {
        None
    } else {
        Some(doors.book.base(&record.uid).await.map_err(StepError::from)?.unwrap_or_default())
    };
    let there = place(record);
    let PutBack { id, difference } =
        doors.files(&there, record).put_back(at, path, unfollowed.as_ref()).await?;
    let what = match (difference.is_empty(), path) {
        (true, _) => "no file differs from it".to_owned(),
        (false, _) => difference.to_string(),
    };
    let said = match path {
        Some(path) => format!("`{path}` restored from {id}: {what}"),
        None => format!("restored to {id}: {what}"),
    };
    let now = doors.clock.now();
    doors.book.event(now, Some(&record.name), false, "Restored", said.clone());
    restoring.bring_it_here().await?;
    Ok(said)
}

struct Restoring<'a, E, O, W, L, C> {
    doors: &'a Doors<E, O, W, L, C>,
    record: &'a Record,
    stop: CancellationToken,
}

impl<E, O, W, L, C> Restoring<'_, E, O, W, L, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    /// What is here is a state of its own before anything takes its place. A manifest that cannot
    /// be read, or is gone, is what a restore mends: edits are kept by the merge after it. Whether
    /// it is followed.
    async fn commit_edits(&self) -> Result<bool, RestoreFailed> {
        match self.sync(false).await {
            Err(RestoreFailed::Restore(RestoreError::Files(error)))
                if matches!(
                    error.kind(),
                    FilesErrorKind::ManifestUnavailable | FilesErrorKind::ManifestInvalid
                ) =>
            {
                tracing::info!(session = %self.record.name, %error, "restored over");
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// The class's folders stand whatever the state had: a container counts on them.
    async fn bring_it_here(&self) -> Result<(), RestoreFailed> {
        self.sync(true).await?;
        let Restoring { doors, record, .. } = self;
        let folders = &record.applied.resolved.workspace.folders;
        let (there, owner) = (place(record), owner_of(record));
        let made = doors.workspaces.ensure_folders(&there, folders, owner).await;
        Ok(made.map_err(StepError::from)?)
    }

    async fn sync(&self, restored: bool) -> Result<(), RestoreFailed> {
        let Restoring { doors, record, .. } = self;
        let base = doors.book.base(&record.uid).await.map_err(StepError::from)?;
        let there = place(record);
        let files = doors.files(&there, record);
        let work = async {
            if restored {
                files.sync_restored(base.as_ref()).await
            } else {
                files.sync(base.as_ref(), ScanMode::Quick).await
            }
        };
        let mut work = std::pin::pin!(work);
        let mut stop = self.stop.clone();
        let found: Found = loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // A stop waits its turn; an end does not.
                    let ending = doors.book.get(&record.uid).is_none_or(|r| r.ending.is_some());
                    if ending {
                        return Err(StepError::Interrupted.into());
                    }
                    stop = doors.lanes.renewed(&record.uid);
                }
                found = &mut work => break found?,
            }
        };
        let now = doors.clock.now();
        keep(doors, &record.uid, base.as_ref(), found, |record| {
            record.last_sync = Some(now);
            record.failures.remove(&Operation::Sync);
        })
        .await?;
        Ok(())
    }
}
