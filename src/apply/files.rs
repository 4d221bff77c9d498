//! A session's files between its workspace and the store.
//!
//! 1. Load what the store has: one HEAD if nothing changed there.
//! 2. Scan the workspace, and let the pure diff say what must happen.
//! 3. New contents go to new keys. Then conflict copies get their names. Then one conditional
//!    write swaps the manifest; a lost race begins again at 1.
//! 4. What the store had and the workspace has not comes here; what was deleted there goes here,
//!    once its contents are proven to be stored.
//! 5. The new base is what both sides are now known to have.
//!
//! Each step can be cut off and done again. A file that cannot be read, or keeps changing, keeps
//! its base entry and is reported; the others are committed. What would go over the quota or below
//! the floor of free space does not come; what is here goes out all the same.

mod abreast;
mod come;
mod commit;
mod fetch;
mod history;
mod large;
mod remote;
mod tell;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    Base, BaseEntry, FileState, FilesSeen, LargeFiles, LazyMode, LocalKind, ManifestEntry,
    Progress, RelPath, Remote, Scan, SkipReason, Stamp, Tree, WorkspaceSpec,
};
use crate::plan::{MinFree, NoRoom};
use crate::sync::{BadManifest, Context, Emptied, Plan, at_rest, diff, diff_emptied, lazy_entry};
use crate::workspace::{BadGlob, Excludes};
use crate::world::{
    Clock, Objects, Place, ScanMode, StoreError, StoreErrorKind, WorkspaceError,
    WorkspaceErrorKind, Workspaces,
};

pub use abreast::Turns;
pub use history::{Holds, PutBack, RestoreError, StateSeen, history};
pub use remote::load_remote;
pub(super) use remote::{apart, read as read_small};

/// Scans in a row for files that change while they are read.
const ROUNDS: u32 = 3;
/// Lost races for the manifest in a row before the sync is left for later.
const RACES: u32 = 16;

/// What can go wrong, by what may be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesErrorKind {
    /// The store cannot be reached: try again later.
    StoreUnavailable,
    /// The store refuses.
    StoreDenied,
    /// The manifest is gone, or empty, though files are known: held.
    ManifestUnavailable,
    /// An entry of the manifest is refused: nothing of it is used.
    ManifestInvalid,
    /// An object that the manifest names is not there.
    ObjectMissing,
    /// What came is not what was announced.
    Corrupt,
    /// No space left here.
    NoSpace,
    /// It would go over the workspace's quota.
    OverQuota,
    /// Another directory stands where the workspace was.
    WorkspaceReplaced,
    /// Everything else of the workspace.
    Io,
}

/// Why files could not be synced or fetched.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The workspace's.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// There should be a manifest.
    #[error("the manifest of {case} is gone: {why}; put it back, or a copy from manifests/")]
    ManifestGone {
        /// `user/case`.
        case: String,
        /// How that is known.
        why: String,
    },
    /// The manifest is empty.
    #[error("the manifest of {case} is not followed: {why}")]
    Emptied {
        /// `user/case`.
        case: String,
        /// How much is known.
        why: Emptied,
    },
    /// The manifest is refused.
    #[error("{key} of {case} is refused: {why}")]
    ManifestInvalid {
        /// `user/case`.
        case: String,
        /// The manifest or its tree.
        key: String,
        /// What is wrong with it.
        why: BadManifest,
    },
    /// A content is not in the store.
    #[error(
        "`{path}`: its object `{key}` is not in the store; put it back, or take its row out of \
         manifest.json"
    )]
    ObjectMissing {
        /// The file.
        path: RelPath,
        /// Its key, relative to the case.
        key: String,
    },
    /// A content is not what its row says.
    #[error("`{path}`: {message}; put the right object back, or take its row out of manifest.json")]
    Corrupt {
        /// The file.
        path: RelPath,
        /// In which way.
        message: String,
    },
    /// A content did not come to its end.
    #[error("`{path}` broke off on its way here")]
    Cut {
        /// The file.
        path: RelPath,
        /// The store's.
        #[source]
        error: StoreError,
    },
    /// It is not to come: a bound is in the way.
    #[error("`{path}` stays in the store: {why}")]
    NoRoom {
        /// The file.
        path: RelPath,
        /// Which bound.
        why: NoRoom,
    },
    /// It is not to come: no file here may be so large.
    #[error(
        "`{path}` stays in the store: it has {size} bytes, and workspace.limits.fileSize is \
         {limit} bytes; raise that, or take its row out of manifest.json"
    )]
    TooLarge {
        /// The file.
        path: RelPath,
        /// Its bytes, as its row or the store says.
        size: u64,
        /// What one may have.
        limit: u64,
    },
    /// Others kept swapping the manifest.
    #[error("others changed the manifest of {case} {RACES} times in a row")]
    Contended {
        /// `user/case`.
        case: String,
    },
    /// `sync.exclude` cannot be read.
    #[error(transparent)]
    Exclude(#[from] BadGlob),
}

impl FilesError {
    /// What may be done about it.
    pub fn kind(&self) -> FilesErrorKind {
        match self {
            FilesError::Store(error) => match error.kind {
                StoreErrorKind::Denied | StoreErrorKind::Invalid => FilesErrorKind::StoreDenied,
                StoreErrorKind::NotFound => FilesErrorKind::ObjectMissing,
                StoreErrorKind::Corrupt => FilesErrorKind::Corrupt,
                StoreErrorKind::Unavailable | StoreErrorKind::SourceChanged => {
                    FilesErrorKind::StoreUnavailable
                }
            },
            FilesError::Workspace(error) => match error.kind {
                WorkspaceErrorKind::Replaced => FilesErrorKind::WorkspaceReplaced,
                WorkspaceErrorKind::NoSpace => FilesErrorKind::NoSpace,
                WorkspaceErrorKind::Corrupt => FilesErrorKind::Corrupt,
                _ => FilesErrorKind::Io,
            },
            FilesError::ManifestGone { .. } | FilesError::Emptied { .. } => {
                FilesErrorKind::ManifestUnavailable
            }
            FilesError::ManifestInvalid { .. } => FilesErrorKind::ManifestInvalid,
            FilesError::ObjectMissing { .. } => FilesErrorKind::ObjectMissing,
            FilesError::Corrupt { .. } => FilesErrorKind::Corrupt,
            FilesError::Cut { .. } => FilesErrorKind::StoreUnavailable,
            FilesError::NoRoom { why: NoRoom::Quota { .. }, .. } | FilesError::TooLarge { .. } => {
                FilesErrorKind::OverQuota
            }
            FilesError::NoRoom { why: NoRoom::Floor { .. }, .. } => FilesErrorKind::NoSpace,
            FilesError::Contended { .. } => FilesErrorKind::StoreUnavailable,
            FilesError::Exclude(_) => FilesErrorKind::Io,
        }
    }
}

/// What a sync or a hydration leaves behind, for the caller to keep.
#[derive(Debug)]
pub struct Found {
    /// What both sides are now known to have.
    pub base: Base,
    /// Counts; `conflicts` are those of this time alone.
    pub seen: FilesSeen,
    /// Skipped, conflicting and held files.
    pub remarks: Vec<FileState>,
}

/// What bounds all syncs and hydrations together.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// `minFree`: nothing comes that would leave less.
    pub floor: MinFree,
    /// Transfers of all sessions beside each other.
    pub turns: &'a Turns,
}

/// A session's files: the doors to both sides of them, whose they are, and what bounds what is done
/// with them.
#[derive(Debug)]
pub struct Files<'a, W, O, C> {
    /// The side here.
    pub workspaces: &'a W,
    /// The side there.
    pub objects: &'a O,
    /// For names and times.
    pub clock: &'a C,
    /// Which directory.
    pub place: &'a Place,
    /// What its class says.
    pub spec: &'a WorkspaceSpec,
    /// `uid` and `gid` of what comes here.
    pub owner: (u32, u32),
    /// What bounds all syncs and hydrations together.
    pub bounds: Bounds<'a>,
}

/// The doors and the session, for one sync or hydration.
struct Work<'a, W, O, C> {
    workspaces: &'a W,
    objects: &'a O,
    clock: &'a C,
    place: &'a Place,
    spec: &'a WorkspaceSpec,
    owner: (u32, u32),
    bounds: Bounds<'a>,
    excludes: Excludes,
    /// The manifest may be empty: somebody asked for that.
    emptied: bool,
    /// Large files come when they are opened: placeholders stand for them, else stubs.
    opens: bool,
}

/// What a first look at both sides says.
enum Glance {
    /// Nothing changed.
    AtRest(Found),
    /// Something did: what the store has, if that is as the base knows it, and what is here.
    Moved(Option<Remote>, Scan),
}

/// Both sides, and what must happen.
struct Looked {
    remote: Remote,
    scan: Scan,
    plan: Plan,
    /// What the store has may have come of the base; if not, there is none to go by.
    descends: bool,
}

/// What came of the effects of one round.
#[derive(Debug, Default)]
struct Outcome {
    /// New base entries by path.
    agreed: BTreeMap<RelPath, BaseEntry>,
    /// Base entries that do not hold any more.
    gone: BTreeSet<RelPath>,
    /// Files here that could not be stored, and why.
    unsent: BTreeMap<RelPath, SkipReason>,
    /// Rows that could not come here, and why.
    uncome: Vec<(RelPath, FilesError)>,
    /// Conflict copies, and of what.
    conflicts: BTreeMap<RelPath, RelPath>,
}

impl<W: Workspaces, O: Objects, C: Clock> Files<'_, W, O, C> {
    /// Syncs a workspace with the store, both ways. `base`: what both sides last agreed on; without
    /// it nothing is deleted on either side. With [`ScanMode::Checksum`] it is the last sync of a
    /// workspace nobody writes to any more: everything goes out, and nothing is brought here but
    /// what takes the place of a conflict copy.
    ///
    /// # Errors
    /// [`FilesError`]: what was committed before stays committed, and doing it again is safe.
    pub async fn sync(&self, base: Option<&Base>, mode: ScanMode) -> Result<Found, FilesError> {
        self.work(false)?.sync(base, mode).await
    }

    /// As [`Files::sync`] after a [`Files::put_back`]: the store's manifest is followed even if it
    /// is empty.
    ///
    /// # Errors
    /// As [`Files::sync`].
    pub async fn sync_restored(&self, base: Option<&Base>) -> Result<Found, FilesError> {
        self.work(true)?.sync(base, ScanMode::Quick).await
    }

    /// What waits here for a sync that cannot be: counted against what both sides agreed on last.
    ///
    /// # Errors
    /// The workspace's.
    pub async fn waiting(&self, base: Option<&Base>) -> Result<Found, FilesError> {
        self.work(true)?.waiting(base).await
    }

    /// Makes an earlier state (by its id, the beginning of it, or a moment) the current one in the
    /// store; with a path only what it has there, beside what is there now. The workspace follows
    /// by [`Files::sync_restored`].
    ///
    /// `unfollowed`: the present manifest was not followed, and this is what was agreed on before
    /// it.
    ///
    /// # Errors
    /// [`RestoreError`]: nothing was changed.
    pub async fn put_back(
        &self,
        at: &str,
        path: Option<&RelPath>,
        unfollowed: Option<&Base>,
    ) -> Result<PutBack, RestoreError> {
        self.work(true)?.put_back(at, path, unfollowed).await
    }

    /// Fetches what must be there before the start, smallest first, and notes the rest as lazy.
    /// Nothing here is overwritten but files that are as the base knows them. Can be cut off and
    /// done again.
    ///
    /// # Errors
    /// [`FilesError`], after everything that could be fetched was.
    pub async fn hydrate(
        &self,
        base: Option<&Base>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Found, FilesError> {
        self.work(false)?.hydrate(base, come::Wanted::Eager, progress).await
    }

    /// Fetches lazy files on request: these paths and what lies beneath them; none: all of them.
    ///
    /// # Errors
    /// As [`Files::hydrate`].
    pub async fn hydrate_paths(
        &self,
        base: Option<&Base>,
        paths: &[RelPath],
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Found, FilesError> {
        self.work(false)?.hydrate(base, come::Wanted::Paths(paths), progress).await
    }

    /// Large files that wait, that wait for something else than `before`, and for which opening will
    /// fail: full keys, and why, by path. One listing says it of all of them.
    ///
    /// # Errors
    /// The store's.
    pub async fn missing(
        &self,
        before: Option<&Base>,
        base: &Base,
    ) -> Result<BTreeMap<RelPath, (String, String)>, StoreError> {
        large::missing(self.objects, self.place, self.spec, before, base).await
    }

    fn work(&self, emptied: bool) -> Result<Work<'_, W, O, C>, FilesError> {
        let Files { workspaces, objects, clock, place, spec, owner, bounds } = *self;
        let excludes = Excludes::new(&spec.sync_exclude)?;
        let opens =
            spec.files.large == LargeFiles::OnAccess && workspaces.lazy() == LazyMode::OnAccess;
        let work = Work {
            workspaces,
            objects,
            clock,
            place,
            spec,
            owner,
            bounds,
            excludes,
            emptied,
            opens,
        };
        Ok(work)
    }
}

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    async fn sync(&self, base: Option<&Base>, mode: ScanMode) -> Result<Found, FilesError> {
        let mut seen = None;
        if let Some(base) = base.filter(|base| base.etag.is_some()) {
            match self.glance(base, mode).await? {
                Glance::AtRest(found) => return Ok(found),
                Glance::Moved(remote, scan) => seen = Some((remote, scan)),
            }
        }
        let mut base = base.cloned();
        let mut conflicts = BTreeMap::new();
        let (mut rounds, mut races) = (0, 0);
        loop {
            let Looked { remote, scan, plan, descends } =
                self.look(base.as_ref(), mode, seen.take()).await?;
            base = base.filter(|_| descends);
            let mut outcome = Outcome::default();
            let swapped = self.send(&remote, &plan, &mut outcome).await;
            conflicts.append(&mut outcome.conflicts);
            let Some(remote) = swapped? else {
                races += 1;
                if races >= RACES {
                    return Err(FilesError::Contended { case: self.case() });
                }
                continue;
            };
            if mode == ScanMode::Quick {
                self.remove_here(&plan, &mut outcome).await?;
                self.unmake_tree(&plan.unmake).await?;
                self.make_tree(&plan).await?;
                self.fetch_all(&plan, &scan, &mut outcome).await?;
            }
            let tree = match mode {
                ScanMode::Quick => plan.tree.clone(),
                ScanMode::Checksum => here(&plan, base.as_ref()),
            };
            let next = next_base(base.as_ref(), &plan, &outcome, &remote, tree);
            rounds += 1;
            if outcome.unsent.is_empty() || rounds >= ROUNDS {
                outcome.conflicts = conflicts;
                return Ok(self.tell(next, &scan, &plan, &outcome));
            }
            base = Some(next);
        }
    }

    /// Counts what a sync would store, as far as it can be known without the store.
    async fn waiting(&self, base: Option<&Base>) -> Result<Found, FilesError> {
        let known = base.cloned().unwrap_or_default();
        let scan = self.workspaces.scan(self.place, self.spec, &known, ScanMode::Quick).await?;
        let plan = self.plan(base, &scan, &remote::of_base(&known))?;
        Ok(self.tell_pending(known, &scan, &plan, &Outcome::default()))
    }

    /// The common case: one HEAD and one scan beside each other tell that nothing changed.
    async fn glance(&self, base: &Base, mode: ScanMode) -> Result<Glance, FilesError> {
        let case = self.case();
        // What is answered if nothing changed is made ready while others look.
        let (same, scan, kept) = tokio::join!(
            remote::is_same(self.objects, &case, base),
            self.workspaces.scan(self.place, self.spec, base, mode),
            async { base.clone() }
        );
        let (same, scan) = (same?, scan?);
        let waits = |kind: &LocalKind| matches!(kind, LocalKind::Placeholder { .. });
        let forms = self.opens || !scan.entries.values().any(|entry| waits(&entry.kind));
        if same && forms && at_rest(base, &scan) {
            return Ok(Glance::AtRest(self.tell_rest(kept, &scan)));
        }
        Ok(Glance::Moved(same.then(|| remote::of_base(base)), scan))
    }

    /// Loads what the store has, scans, and lets the diff decide.
    async fn look(
        &self,
        base: Option<&Base>,
        mode: ScanMode,
        seen: Option<(Option<Remote>, Scan)>,
    ) -> Result<Looked, FilesError> {
        let Place { user, case, .. } = self.place;
        let (remote, mut seen) = seen.map_or((None, None), |(remote, scan)| (remote, Some(scan)));
        let mut remote = match remote {
            Some(remote) => remote,
            None => load_remote(self.objects, user, case, base).await?,
        };
        let nothing = Base::default();
        let known = base.unwrap_or(&nothing);
        let descends = self.descends(&remote, known).await?;
        let base = base.filter(|_| descends);
        self.refuse_anothers(&remote, known).await?;
        self.fill_sizes(&mut remote).await?;
        let mut unopened = Vec::new();
        let (scan, mut plan) = loop {
            let scan = match seen.take() {
                Some(scan) => scan,
                None => self.workspaces.scan(self.place, self.spec, known, mode).await?,
            };
            self.fill_times(&mut remote, &scan, known).await;
            self.fill_sums(&mut remote, &scan, known).await?;
            let plan = self.plan(base, &scan, &remote)?;
            if !self.open_first(&plan, &mut unopened).await {
                break (scan, plan);
            }
        };
        for (path, error) in unopened {
            tracing::debug!(%path, %error, "a changed placeholder stays");
            plan.held.insert(path, "a changed placeholder whose content does not come");
        }
        if !plan.changes.is_empty() {
            tracing::debug!(case = %self.case(), plan = %plan, "sync");
        }
        Ok(Looked { remote, scan, plan, descends })
    }

    fn plan(&self, base: Option<&Base>, scan: &Scan, remote: &Remote) -> Result<Plan, FilesError> {
        let context = Context {
            user: &self.place.user,
            now: self.clock.now(),
            lazy: &|size| self.is_lazy(size),
            excluded: &|path| self.excludes.covers(path),
            stubs: !self.opens,
        };
        if self.emptied {
            return Ok(diff_emptied(base, scan, remote, &context));
        }
        diff(base, scan, remote, &context)
            .map_err(|why| FilesError::Emptied { case: self.case(), why })
    }

    fn is_lazy(&self, size: u64) -> bool {
        let files = &self.spec.files;
        files.large != LargeFiles::Eager && size >= files.eager_below
    }

    /// `user/case`, for people and as the prefix of keys.
    fn case(&self) -> String {
        format!("{}/{}", self.place.user, self.place.case)
    }

    fn key(&self, relative: &str) -> String {
        format!("{}/{}/{relative}", self.place.user, self.place.case)
    }
}

/// The base after a round: what is agreed, what came of the effects, and where an effect failed
/// what was known before.
fn next_base(
    before: Option<&Base>,
    plan: &Plan,
    outcome: &Outcome,
    remote: &Remote,
    tree: Tree,
) -> Base {
    let mut files = plan.agreed.clone();
    for path in plan.changes.keys() {
        if outcome.gone.contains(path) {
            continue;
        }
        let known = before.and_then(|base| base.files.get(path));
        if let Some(entry) = known {
            files.insert(path.clone(), entry.clone());
        }
    }
    files.extend(outcome.agreed.clone());
    let mut base = Base { etag: None, files, tree };
    if mirrors(&base, remote) {
        base.etag.clone_from(&remote.etag);
    }
    base
}

/// The tree that is known here when nothing of a plan's tree was made or unmade.
fn here(plan: &Plan, base: Option<&Base>) -> Tree {
    let mut tree = plan.tree.clone();
    tree.directories.retain(|path, _| !plan.make.directories.contains_key(path));
    tree.symlinks.retain(|path, _| !plan.make.symlinks.contains_key(path));
    still_known(&mut tree, plan, base);
    tree.directories.extend(plan.unmake.modes.iter().map(|(path, (was, _))| (path.clone(), *was)));
    tree
}

/// What was not unmade is as the base knew it, so that the next sync unmakes it.
fn still_known(tree: &mut Tree, plan: &Plan, base: Option<&Base>) {
    let Some(base) = base else { return };
    for path in &plan.unmake.directories {
        let known = base.tree.directories.get(path);
        tree.directories.extend(known.map(|mode| (path.clone(), *mode)));
    }
    for path in plan.unmake.symlinks.keys() {
        let known = base.tree.symlinks.get(path);
        tree.symlinks.extend(known.map(|text| (path.clone(), text.clone())));
    }
}

/// Whether the manifest can be worked out from the base, so that its ETag alone tells that
/// nothing changed there.
fn mirrors(base: &Base, remote: &Remote) -> bool {
    let same = |entry: &BaseEntry, row: &ManifestEntry| {
        entry.storage_key == row.storage_key
            && row.sha256.is_none_or(|sum| entry.sha256 == Some(sum))
            && row.size.is_none_or(|size| entry.size == size)
            && row.mode.is_none_or(|mode| entry.mode == mode)
            && row.mtime_ns.is_none_or(|mtime| entry.mtime_ns == mtime)
    };
    remote.tree.as_ref().is_none_or(|tree| *tree == base.tree)
        && base.files.len() == remote.files.len()
        && base
            .files
            .iter()
            .zip(&remote.files)
            .all(|((path, entry), (at, row))| path == at && same(entry, row))
}

fn entry_of(row: &ManifestEntry, sha256: crate::model::Sha256, stamp: Stamp) -> BaseEntry {
    BaseEntry {
        sha256: Some(sha256),
        size: stamp.size,
        mode: row.mode.unwrap_or(FILE_MODE),
        mtime_ns: row.mtime_ns.unwrap_or(stamp.mtime_ns),
        storage_key: row.storage_key.clone(),
        stamp: Some(stamp),
        placed: false,
    }
}

/// The base of a row whose placeholder stands here.
fn placed_entry(row: &ManifestEntry) -> BaseEntry {
    BaseEntry { placed: true, ..lazy_entry(row) }
}

/// What a file gets whose row does not say.
const FILE_MODE: u32 = 0o644;

#[cfg(test)]
mod tests;
