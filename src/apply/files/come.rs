//! The way in: contents come, what was deleted there goes, stubs stand for the rest.

use std::collections::BTreeSet;

use super::{
    FILE_MODE, FilesError, Found, Looked, Outcome, ROUNDS, Work, entry_of, next_base, still_known,
};
use crate::model::{
    Base, BaseEntry, ManifestEntry, Progress, RelPath, Scan, SkipReason, Stamp, TreeChange,
};
use crate::plan::Room;
use crate::sync::{Change, Plan, lazy_entry, stub_path, stub_text};
use crate::world::{
    Body, Clock, Expect, FileSpec, Objects, ScanMode, WorkspaceErrorKind, Workspaces,
};

/// Which lazy files a hydration fetches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// Those that are not lazy (any more).
    Eager,
    /// These and what lies beneath them; none: all.
    Paths(&'a [RelPath]),
}

impl Wanted<'_> {
    fn covers(self, path: &RelPath) -> bool {
        match self {
            Wanted::Eager => false,
            Wanted::Paths([]) => true,
            Wanted::Paths(paths) => paths.iter().any(|top| top.covers(path)),
        }
    }
}

/// One file on its way in.
pub(super) struct Order<'a> {
    pub(super) path: &'a RelPath,
    pub(super) row: ManifestEntry,
    pub(super) how: How,
}

/// What is done about an order.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// Its bytes are written in place of what is expected there.
    Write(Expect),
    /// Its placeholder is opened.
    Open,
}

impl Order<'_> {
    /// Bytes by which the workspace grows when it has come.
    pub(super) fn growth(&self) -> u64 {
        let before = match self.how {
            How::Write(Expect::Stamp(stamp)) => stamp.size,
            How::Write(Expect::Absent | Expect::Placeholder) | How::Open => 0,
        };
        self.row.size.unwrap_or_default().saturating_sub(before)
    }
}

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    /// Looks again if something appeared while files came; what still stands in the way then is
    /// left to the next sync.
    pub(super) async fn hydrate(
        &self,
        base: Option<&Base>,
        wanted: Wanted<'_>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Found, FilesError> {
        let mut base = base.cloned();
        for round in 1.. {
            let (found, mut failures) = self.hydrate_once(base.as_ref(), wanted, progress).await?;
            let before = failures.len();
            failures.retain(|(_, error)| !is_in_the_way(error));
            if let Some((_, error)) = failures.into_iter().min_by(|a, b| a.0.cmp(&b.0)) {
                return Err(error);
            }
            if before == 0 || round == ROUNDS {
                return Ok(found);
            }
            base = Some(found.base);
        }
        Err(FilesError::Contended { case: self.case() })
    }

    async fn hydrate_once(
        &self,
        base: Option<&Base>,
        wanted: Wanted<'_>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(Found, Vec<(RelPath, FilesError)>), FilesError> {
        let Looked { remote, scan, plan, descends } =
            self.look(base, ScanMode::Quick, None).await?;
        let base = base.filter(|_| descends);
        let mut outcome = Outcome::default();
        let orders = self.orders(&plan, wanted);
        let ordered: BTreeSet<&RelPath> = orders.iter().map(|order| order.path).collect();
        let waits = |path: &RelPath| self.opens || !ordered.contains(path);
        let waiting = lazy_rows(&plan).filter(|(path, _)| waits(path)).collect();
        let modes = TreeChange { modes: plan.unmake.modes.clone(), ..TreeChange::default() };
        self.unmake_tree(&modes).await?;
        self.make_tree(&plan).await?;
        self.set_metas(&plan, &mut outcome).await?;
        self.stand_for(&plan, waiting, &mut outcome).await?;
        self.fetch_orders(&plan, &scan, orders, &mut outcome, progress).await?;
        // A deletion here is committed by the next sync only, and until then the base knows it.
        let mut tree = remote.tree.clone().unwrap_or_default();
        still_known(&mut tree, &plan, base);
        let base = next_base(base, &plan, &outcome, &remote, tree);
        let failures = std::mem::take(&mut outcome.uncome);
        Ok((self.tell_pending(base, &scan, &plan, &outcome), failures))
    }

    fn orders<'p>(&self, plan: &'p Plan, wanted: Wanted<'_>) -> Vec<Order<'p>> {
        let mut orders = Vec::new();
        for (path, change) in &plan.changes {
            match change {
                Change::Fetch { row, over } => {
                    let how = How::Write(expected(plan, path, *over));
                    orders.push(Order { path, row: row.clone(), how });
                }
                Change::Lazy { row } if wanted.covers(path) => {
                    let how = self.how(plan, path);
                    orders.push(Order { path, row: row.clone(), how });
                }
                _ => (),
            }
        }
        for (path, entry) in &plan.agreed {
            let asked = wanted.covers(path) || !self.is_lazy(entry.size);
            if entry.stamp.is_none() && asked && !self.is_excluded(path) {
                let how = self.how(plan, path);
                orders.push(Order { path, row: row_of(entry), how });
            }
        }
        orders
    }

    /// How a lazy file is fetched.
    fn how(&self, plan: &Plan, path: &RelPath) -> How {
        let placed = plan.placeholders.contains(path);
        if self.opens || placed { How::Open } else { How::Write(Expect::Absent) }
    }

    pub(super) fn is_excluded(&self, path: &RelPath) -> bool {
        let mut at = Some(path.clone());
        while let Some(above) = at {
            if self.excludes.covers(&above) {
                return true;
            }
            at = above.parent();
        }
        false
    }

    /// Everything that a sync brings here.
    pub(super) async fn fetch_all(
        &self,
        plan: &Plan,
        scan: &Scan,
        outcome: &mut Outcome,
    ) -> Result<(), FilesError> {
        self.set_metas(plan, outcome).await?;
        let lazy = plan.changes.iter().filter_map(|(path, change)| match change {
            Change::Lazy { row } => Some((path, lazy_entry(row))),
            _ => None,
        });
        let forms = plan.agreed.iter().filter(|(path, entry)| {
            entry.stamp.is_none() && self.opens != plan.placeholders.contains(*path)
        });
        let forms = forms.map(|(path, entry)| (path, entry.clone()));
        self.stand_for(plan, lazy.chain(forms).collect(), outcome).await?;
        let orders = orders_of_sync(plan);
        self.fetch_orders(plan, scan, orders, outcome, &|_| ()).await
    }

    /// Mode and time of files whose contents are the same.
    async fn set_metas(&self, plan: &Plan, outcome: &mut Outcome) -> Result<(), FilesError> {
        for (path, change) in &plan.changes {
            let Change::SetMeta { row, stamp, sha256, mode, mtime_ns } = change else { continue };
            let set = self.workspaces.set_meta(self.place, path, *mode, *mtime_ns, *stamp).await;
            match set {
                Ok(stamp) => {
                    let entry = BaseEntry {
                        mode: *mode,
                        mtime_ns: *mtime_ns,
                        ..entry_of(row, *sha256, stamp)
                    };
                    outcome.agreed.insert(path.clone(), entry);
                }
                Err(error) if error.kind == WorkspaceErrorKind::Replaced => {
                    return Err(error.into());
                }
                Err(error) => tracing::debug!(%error, "mode and time are set by the next sync"),
            }
        }
        Ok(())
    }

    /// What may come when so much is used; free space that cannot be told holds nobody up.
    pub(super) async fn room(&self, used: u64) -> Room {
        let space = self.workspaces.space().await.ok();
        Room { used, quota: self.spec.quota, space, floor: self.bounds.floor }
    }

    /// Fetches one file in place of a conflict copy.
    pub(super) async fn fetch_into(
        &self,
        path: &RelPath,
        row: &ManifestEntry,
        over: Option<Stamp>,
        outcome: &mut Outcome,
    ) -> Result<(), FilesError> {
        match self.fetch(path, row, over.map_or(Expect::Absent, Expect::Stamp)).await {
            Ok(entry) => {
                outcome.gone.remove(path);
                outcome.agreed.insert(path.clone(), entry);
            }
            Err(error) if is_replaced(&error) => return Err(error),
            Err(error) => outcome.uncome.push((path.clone(), error)),
        }
        Ok(())
    }

    /// Removes what was deleted there, once its contents are proven to be stored, and stubs that
    /// stand for nothing.
    pub(super) async fn remove_here(
        &self,
        plan: &Plan,
        outcome: &mut Outcome,
    ) -> Result<(), FilesError> {
        for (path, change) in &plan.changes {
            let Change::Remove { stamp, storage_key, .. } = change else { continue };
            let stored = self.objects.head(&self.key(storage_key)).await?;
            if stored.is_none_or(|meta| meta.size != stamp.size) {
                // The workspace has the last copy: the next sync stores it again.
                tracing::warn!(%path, "deleted in the store, but kept here: it is stored nowhere");
                outcome.gone.insert(path.clone());
                outcome.unsent.insert(path.clone(), SkipReason::Torn);
                continue;
            }
            if self.remove(path, *stamp).await? {
                outcome.gone.insert(path.clone());
            }
        }
        for (path, _) in plan.changes.iter().filter(|(_, change)| **change == Change::Unplace) {
            match self.workspaces.remove_file(self.place, path, Expect::Placeholder).await {
                Ok(()) => drop(outcome.gone.insert(path.clone())),
                Err(error) if error.kind == WorkspaceErrorKind::Replaced => {
                    return Err(error.into());
                }
                Err(error) => tracing::debug!(%error, "a placeholder is not removed"),
            }
        }
        for (path, stamp) in &plan.stale_stubs {
            self.remove(path, *stamp).await?;
        }
        Ok(())
    }

    /// Whether it is gone; what changed meanwhile stays.
    async fn remove(&self, path: &RelPath, stamp: Stamp) -> Result<bool, FilesError> {
        match self.workspaces.remove_file(self.place, path, Expect::Stamp(stamp)).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind == WorkspaceErrorKind::Replaced => Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "not removed");
                Ok(error.kind == WorkspaceErrorKind::NotFound)
            }
        }
    }

    pub(super) async fn make_tree(&self, plan: &Plan) -> Result<(), FilesError> {
        if plan.make == crate::model::Tree::default() {
            return Ok(());
        }
        Ok(self.workspaces.ensure_tree(self.place, &plan.make, self.owner).await?)
    }

    /// Removes directories and links that were deleted there, and sets modes; what changed
    /// meanwhile stays, and is new to the next sync.
    pub(super) async fn unmake_tree(&self, change: &TreeChange) -> Result<(), FilesError> {
        if *change == TreeChange::default() {
            return Ok(());
        }
        Ok(self.workspaces.change_tree(self.place, change).await?)
    }

    /// Writes stubs where nothing is in their way.
    pub(super) async fn write_stubs(
        &self,
        plan: &Plan,
        lazy: Vec<(&RelPath, BaseEntry)>,
        outcome: &mut Outcome,
    ) -> Result<(), FilesError> {
        for (path, entry) in lazy {
            let at = stub_path(path).filter(|at| self.may_stand(plan, at));
            if let Some(at) = at {
                let text = stub_text(path, entry.size, &entry.storage_key).into_bytes();
                let file = FileSpec {
                    size: text.len() as u64,
                    sha256: None,
                    mode: FILE_MODE,
                    mtime_ns: entry.mtime_ns,
                    owner: self.owner,
                };
                let body: Body = Box::pin(std::io::Cursor::new(text));
                let put = self.workspaces.write(self.place, &at, &file, body, Expect::Absent).await;
                match put {
                    Ok(_) => (),
                    Err(error) => match error.kind {
                        WorkspaceErrorKind::Replaced | WorkspaceErrorKind::NoSpace => {
                            return Err(error.into());
                        }
                        _ => tracing::debug!(%error, "a stub has no place"),
                    },
                }
            }
            outcome.agreed.insert(path.clone(), entry);
        }
        Ok(())
    }

    /// No stub where one stands, where a file of that name is known, or where nothing is synced.
    fn may_stand(&self, plan: &Plan, at: &RelPath) -> bool {
        let there = plan.stubs.contains_key(at) && !plan.stale_stubs.contains_key(at);
        !there
            && !plan.agreed.contains_key(at)
            && !plan.changes.contains_key(at)
            && !self.is_excluded(at)
    }

    /// The file is here: its stub goes, if it is still as it was written.
    pub(super) async fn drop_stub(&self, plan: &Plan, path: &RelPath) {
        let Some(at) = stub_path(path) else { return };
        let Some(stamp) = plan.stubs.get(&at) else { return };
        if let Err(error) = self.remove(&at, *stamp).await {
            tracing::debug!(%error, "a stub stays");
        }
    }
}

pub(super) fn is_replaced(error: &FilesError) -> bool {
    matches!(error, FilesError::Workspace(error) if error.kind == WorkspaceErrorKind::Replaced)
}

/// Something stands where the file should come, and was not there before.
fn is_in_the_way(error: &FilesError) -> bool {
    matches!(error, FilesError::Workspace(error) if error.kind == WorkspaceErrorKind::Changed)
}

/// Everything that is and stays lazy.
fn lazy_rows(plan: &Plan) -> impl Iterator<Item = (&RelPath, BaseEntry)> {
    let known = plan.agreed.iter().filter(|(_, entry)| entry.stamp.is_none());
    let known = known.map(|(path, entry)| (path, entry.clone()));
    known.chain(plan.changes.iter().filter_map(|(path, change)| match change {
        Change::Lazy { row } => Some((path, lazy_entry(row))),
        _ => None,
    }))
}

fn row_of(entry: &BaseEntry) -> ManifestEntry {
    ManifestEntry {
        sha256: entry.sha256,
        size: Some(entry.size),
        mode: Some(entry.mode),
        mtime_ns: Some(entry.mtime_ns),
        storage_key: entry.storage_key.clone(),
    }
}

/// What must be where a row's bytes come.
fn expected(plan: &Plan, path: &RelPath, over: Option<Stamp>) -> Expect {
    match over {
        Some(stamp) => Expect::Stamp(stamp),
        None if plan.placeholders.contains(path) => Expect::Placeholder,
        None => Expect::Absent,
    }
}

/// What a sync brings here.
fn orders_of_sync(plan: &Plan) -> Vec<Order<'_>> {
    let fetches = plan.changes.iter().filter_map(|(path, change)| match change {
        Change::Fetch { row, over } => {
            let how = How::Write(expected(plan, path, *over));
            Some(Order { path, row: row.clone(), how })
        }
        _ => None,
    });
    fetches.collect()
}
