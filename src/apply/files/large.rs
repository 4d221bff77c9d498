//! Large files that wait: a placeholder stands for each where opens can be held back, else a stub
//! file. One form gives way to the other when the mode or the class changed; the new one always
//! stands before the old one goes.

use std::collections::BTreeMap;

use super::{FilesError, Outcome, Work};
use crate::model::{Base, BaseEntry, ManifestEntry, RelPath, Stub, WorkspaceSpec};
use crate::sync::Plan;
use crate::world::{
    Clock, Expect, Objects, Place, Placeholder, StoreError, WorkspaceError, WorkspaceErrorKind,
    Workspaces,
};

/// Placeholders placed in one call.
const BATCH: usize = 1000;

/// See [`super::Files::missing`].
pub(super) async fn missing<O: Objects>(
    objects: &O,
    place: &Place,
    spec: &WorkspaceSpec,
    before: Option<&Base>,
    base: &Base,
) -> Result<BTreeMap<RelPath, (String, String)>, StoreError> {
    let known = |path: &RelPath, key: &str| {
        let before = before.and_then(|before| before.files.get(path));
        before.is_some_and(|known| known.stamp.is_none() && known.storage_key == key)
    };
    let waiting = base
        .files
        .iter()
        .filter(|(path, entry)| entry.stamp.is_none() && !known(path, &entry.storage_key));
    let waiting: Vec<(&RelPath, &BaseEntry)> = waiting.collect();
    if waiting.is_empty() {
        return Ok(BTreeMap::new());
    }
    let prefix = format!("{}/{}/", place.user, place.case);
    let listed = objects.list(&prefix).await?;
    let sizes: BTreeMap<&str, u64> = listed
        .iter()
        .filter_map(|meta| Some((meta.key.strip_prefix(&prefix)?, meta.size)))
        .collect();
    let told = waiting.into_iter().filter_map(|(path, entry)| {
        let key = entry.storage_key.as_str();
        let too_large = entry.size > spec.max_file_size;
        let why = match sizes.get(key) {
            _ if too_large => {
                let (size, limit) = (entry.size, spec.max_file_size);
                let why = FilesError::TooLarge { path: path.clone(), size, limit }.to_string();
                return Some((path.clone(), (format!("{prefix}{key}"), why)));
            }
            Some(size) if *size == entry.size => return None,
            Some(size) => format!("its object has {size} bytes, its row says {}", entry.size),
            None => "its object is not in the store".to_owned(),
        };
        let why = format!("{why}; put the right one back, or take its row out of manifest.json");
        Some((path.clone(), (format!("{prefix}{key}"), why)))
    });
    Ok(told.collect())
}

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    /// Sees to it that something stands for each of these.
    pub(super) async fn stand_for(
        &self,
        plan: &Plan,
        lazy: Vec<(&RelPath, BaseEntry)>,
        outcome: &mut Outcome,
    ) -> Result<(), FilesError> {
        if self.opens {
            return self.place(plan, lazy, outcome).await;
        }
        let placed: Vec<RelPath> = lazy
            .iter()
            .filter(|(path, _)| plan.placeholders.contains(*path))
            .map(|(path, _)| (*path).clone())
            .collect();
        self.write_stubs(plan, lazy, outcome).await?;
        for path in placed {
            match self.workspaces.remove_file(self.place, &path, Expect::Placeholder).await {
                Ok(()) => {
                    if let Some(entry) = outcome.agreed.get_mut(&path) {
                        entry.placed = false;
                    }
                }
                Err(error) if error.kind == WorkspaceErrorKind::Replaced => {
                    return Err(error.into());
                }
                Err(error) => tracing::debug!(%error, "a placeholder stays"),
            }
        }
        Ok(())
    }

    async fn place(
        &self,
        plan: &Plan,
        lazy: Vec<(&RelPath, BaseEntry)>,
        outcome: &mut Outcome,
    ) -> Result<(), FilesError> {
        let (there, missing): (Vec<_>, Vec<_>) = lazy.into_iter().partition(|(path, _)| {
            plan.placeholders.contains(*path) && plan.agreed.contains_key(*path)
        });
        outcome.agreed.extend(there.into_iter().map(|(path, entry)| (path.clone(), entry)));
        // What may not be here has nothing that stands for it.
        let (excluded, missing): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(path, entry)| {
                self.is_excluded(path) || entry.size > self.spec.max_file_size
            });
        outcome.agreed.extend(excluded.into_iter().map(|(path, entry)| (path.clone(), entry)));
        for batch in missing.chunks(BATCH) {
            let files = batch.iter().map(|(path, entry)| Placeholder {
                path: (*path).clone(),
                stub: Stub {
                    key: self.key(&entry.storage_key),
                    size: entry.size,
                    mtime_ns: entry.mtime_ns,
                    sha256: entry.sha256,
                    deadline: self.spec.files.open_deadline,
                },
                mode: entry.mode,
                owner: self.owner,
                over: plan.placeholders.contains(*path),
            });
            let placed = self.workspaces.place(self.place, files.collect()).await?;
            for ((path, entry), placed) in batch.iter().zip(placed) {
                match placed {
                    Ok(()) => {
                        let entry = BaseEntry { placed: true, ..entry.clone() };
                        outcome.agreed.insert((*path).clone(), entry);
                        self.drop_stub(plan, path).await;
                    }
                    Err(error) => match error.kind {
                        WorkspaceErrorKind::Replaced | WorkspaceErrorKind::NoSpace => {
                            return Err(error.into());
                        }
                        _ => outcome.uncome.push(((*path).clone(), error.into())),
                    },
                }
            }
        }
        Ok(())
    }

    /// Opens placeholders of which nothing else can be said first; whether any was filled.
    pub(super) async fn open_first(
        &self,
        plan: &Plan,
        unopened: &mut Vec<(RelPath, FilesError)>,
    ) -> bool {
        let mut filled = false;
        for path in &plan.open {
            if unopened.iter().any(|(known, _)| known == path) {
                continue;
            }
            match self.workspaces.open(self.place, path).await {
                Ok(_) => filled = true,
                Err(error) => unopened.push((path.clone(), error.into())),
            }
        }
        filled
    }

    /// Opens a placeholder, so that it is filled as if its tenant had opened it.
    pub(super) async fn open(
        &self,
        path: &RelPath,
        row: &ManifestEntry,
    ) -> Result<BaseEntry, FilesError> {
        let stamp = self.workspaces.open(self.place, path).await?;
        // Only what is exactly as it came is known to be the row's content; the scan sees the rest.
        let same = |stamp: &crate::model::Stamp| {
            Some(stamp.size) == row.size && Some(stamp.mtime_ns) == row.mtime_ns
        };
        match (stamp.filter(same), row.sha256) {
            (Some(stamp), Some(sha256)) => Ok(super::entry_of(row, sha256, stamp)),
            _ => Err(FilesError::Workspace(WorkspaceError {
                kind: WorkspaceErrorKind::Changed,
                operation: "open",
                path: path.to_string(),
                message: "what it holds is known after the next look".to_owned(),
            })),
        }
    }
}
