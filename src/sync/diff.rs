//! The three-way diff: what each side must do so that both are the same and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{
    Base, BaseEntry, LocalKind, ManifestEntry, RelPath, Remote, Scan, Sha256, Stamp, Timestamp,
    Tree, TreeChange, UserName,
};

use super::keys::conflict_path;
use super::stub::{stub_of, stub_path, stub_text};
use super::{sum, tree};

/// What the diff must know besides the three sides.
pub struct Context<'a> {
    /// Whose name a conflict copy bears.
    pub user: &'a UserName,
    /// And which time.
    pub now: Timestamp,
    /// Whether contents of this many bytes wait until somebody asks for them.
    pub lazy: &'a dyn Fn(u64) -> bool,
    /// Whether this path, its parents asked before it, is never synced.
    pub excluded: &'a dyn Fn(&RelPath) -> bool,
    /// What is lazy is absent here, a stub at most, so absence is no deletion. Without: where a
    /// placeholder was put in its place, its absence is one.
    pub stubs: bool,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What must happen at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Contents that stand at `from` here go to the store; the row follows.
    Upload {
        /// Where they stand now; another path only for a conflict copy that is not renamed yet.
        from: RelPath,
        /// Their stamp: what is read must still have it.
        stamp: Stamp,
        /// Their sum.
        sha256: Sha256,
        /// Permission bits.
        mode: u32,
    },
    /// The row's contents come here, in place of nothing or of an unchanged file.
    Fetch {
        /// What comes.
        row: ManifestEntry,
        /// The file that may be replaced.
        over: Option<Stamp>,
    },
    /// The row is known, and its contents wait.
    Lazy {
        /// What waits.
        row: ManifestEntry,
    },
    /// Deleted there: the unchanged file here goes, once its contents are proven to be stored.
    Remove {
        /// The file that may be removed.
        stamp: Stamp,
        /// What it holds.
        sha256: Sha256,
        /// Under which key that is stored.
        storage_key: String,
    },
    /// Deleted here: the row goes.
    Forget,
    /// Mode or time changed here: the row follows.
    Describe {
        /// The row as it will be.
        row: ManifestEntry,
        /// The file's stamp.
        stamp: Stamp,
        /// Its contents.
        sha256: Sha256,
    },
    /// Mode or time changed there: the file follows.
    SetMeta {
        /// The row.
        row: ManifestEntry,
        /// The file's stamp.
        stamp: Stamp,
        /// Its contents.
        sha256: Sha256,
        /// Permission bits to be.
        mode: u32,
        /// Modification time to be.
        mtime_ns: i64,
    },
    /// A placeholder stands here under a name or with a mode that the store does not know: the
    /// row goes with it.
    Carry {
        /// The row as it will be.
        row: ManifestEntry,
    },
    /// Deleted there: the placeholder here goes.
    Unplace,
    /// Changed on both sides: the file here gets another name, under which it is uploaded, and
    /// the row's contents come here.
    MoveAside {
        /// The conflict copy.
        to: RelPath,
        /// The file that is renamed.
        stamp: Stamp,
        /// What comes in its place; `None`: a directory does.
        row: Option<ManifestEntry>,
    },
}

/// What must happen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// By path of the next manifest.
    pub changes: BTreeMap<RelPath, Change>,
    /// Where nothing must happen: the base that follows.
    pub agreed: BTreeMap<RelPath, BaseEntry>,
    /// Rows that cannot come here, and why.
    pub held: BTreeMap<RelPath, &'static str>,
    /// Where placeholders stand.
    pub placeholders: BTreeSet<RelPath>,
    /// Placeholders that must be filled before anything can be said of them.
    pub open: BTreeSet<RelPath>,
    /// Stubs that stand for nothing any more.
    pub stale_stubs: BTreeMap<RelPath, Stamp>,
    /// Stubs here, so that they are not taken for the tenant's files.
    pub stubs: BTreeMap<RelPath, Stamp>,
    /// The tree of the next manifest.
    pub tree: Tree,
    /// What of it is missing here.
    pub make: Tree,
    /// What stands here and is not of it.
    pub unmake: TreeChange,
}

/// The store's manifest is empty, and following it would remove everything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manifest is empty although {known} files of it are known: nothing is removed here")]
pub struct Emptied {
    /// How many files would go.
    pub known: usize,
}

/// Works out what must happen. Without a base nothing is deleted on either side.
///
/// # Errors
/// [`Emptied`]: an empty manifest is not followed.
pub fn diff(
    base: Option<&Base>,
    scan: &Scan,
    remote: &Remote,
    context: &Context<'_>,
) -> Result<Plan, Emptied> {
    let (plan, lost) = decide(base, scan, remote, context);
    if remote.files.is_empty() && lost > 0 {
        return Err(Emptied { known: lost });
    }
    Ok(plan)
}

/// As [`diff`], for a manifest that is empty on purpose.
pub fn diff_emptied(
    base: Option<&Base>,
    scan: &Scan,
    remote: &Remote,
    context: &Context<'_>,
) -> Plan {
    decide(base, scan, remote, context).0
}

/// What must happen, and how many files would go because the store has them no more.
fn decide(
    base: Option<&Base>,
    scan: &Scan,
    remote: &Remote,
    context: &Context<'_>,
) -> (Plan, usize) {
    let nothing = Base::default();
    let base = base.unwrap_or(&nothing);
    let plan = Plan::default();
    let mut work = Work { base, scan, remote, context, plan, lost: 0 };
    work.find_stubs();
    let paths: BTreeSet<&RelPath> =
        base.files.keys().chain(scan.entries.keys()).chain(remote.files.keys()).collect();
    for path in paths {
        work.path(path);
    }
    work.part_files_from_directories();
    work.drop_stale_stubs();
    work.merge_trees();
    (work.plan, work.lost)
}

/// A regular file here.
#[derive(Clone, Copy)]
struct Here {
    sha256: Sha256,
    stamp: Stamp,
    mode: u32,
}

struct Work<'a> {
    base: &'a Base,
    scan: &'a Scan,
    remote: &'a Remote,
    context: &'a Context<'a>,
    plan: Plan,
    /// Files that go here because the store has them no more.
    lost: usize,
}

impl Work<'_> {
    fn find_stubs(&mut self) {
        for (at, entry) in &self.scan.entries {
            let LocalKind::File { sha256: Some(found), stamp } = entry.kind else { continue };
            let Some(path) = stub_of(at) else { continue };
            if self.remote.files.contains_key(at) || self.base.files.contains_key(at) {
                continue; // An own file of that name wins.
            }
            let known = self.base.files.get(&path);
            let says = |size: u64, key: &str| sum(stub_text(&path, size, key).as_bytes()) == found;
            let of_base = known.is_some_and(|b| b.stamp.is_none() && says(b.size, &b.storage_key));
            let of_row = self.remote.files.get(&path).is_some_and(|row| {
                let size = row.size.or(known.map(|b| b.size)).unwrap_or_default();
                says(size, &row.storage_key)
            });
            if of_base || of_row {
                self.plan.stubs.insert(at.clone(), stamp);
            }
        }
    }

    fn path(&mut self, path: &RelPath) {
        let base = self.base.files.get(path);
        let row = self.remote.files.get(path);
        if self.is_unseen(path) {
            self.keep(path, base);
            return;
        }
        let entry = self.scan.entries.get(path).filter(|_| !self.plan.stubs.contains_key(path));
        if entry.is_some_and(|entry| matches!(entry.kind, LocalKind::Placeholder { .. })) {
            self.plan.placeholders.insert(path.clone());
        }
        match entry.map(|entry| (&entry.kind, entry.mode)) {
            None => self.nothing_here(path, base, row),
            Some((LocalKind::File { sha256: Some(sha256), stamp }, mode)) => {
                self.file_here(path, Here { sha256: *sha256, stamp: *stamp, mode }, base, row);
            }
            Some((LocalKind::File { sha256: None, .. }, _)) => self.keep(path, base),
            Some((LocalKind::Placeholder { row: Some(own), altered: false }, mode)) => {
                self.placeholder_here(path, own, mode, base, row);
            }
            Some((LocalKind::Placeholder { .. }, _)) => {
                self.plan.open.insert(path.clone());
                self.keep(path, base);
            }
            Some((LocalKind::Directory, _)) => self.directory_here(path, base, row),
            Some((LocalKind::Symlink(_), _)) => self.link_here(path, base, row),
        }
    }

    /// Nothing is known of it here: what was agreed stays as it was.
    fn keep(&mut self, path: &RelPath, base: Option<&BaseEntry>) {
        if let Some(base) = base {
            self.plan.agreed.insert(path.clone(), base.clone());
        }
    }

    /// Whether the scan says nothing of this path, or it is none of ours.
    fn is_unseen(&self, path: &RelPath) -> bool {
        if self.scan.entries.contains_key(path) {
            return false;
        }
        let mut at = Some(path.clone());
        while let Some(above) = at {
            if self.scan.skipped.contains_key(&above) || (self.context.excluded)(&above) {
                return true;
            }
            at = above.parent();
        }
        false
    }

    fn nothing_here(
        &mut self,
        path: &RelPath,
        base: Option<&BaseEntry>,
        row: Option<&ManifestEntry>,
    ) {
        let no_deletion = base.is_some_and(|b| {
            b.stamp.is_none() && (!b.placed || self.context.stubs || self.has_stub(path))
        });
        match (base, row) {
            (_, None) => self.lost += usize::from(no_deletion),
            (Some(base), Some(row)) if same_row(base, row) => {
                if no_deletion {
                    self.plan.agreed.insert(path.clone(), base.clone());
                } else {
                    self.plan.changes.insert(path.clone(), Change::Forget);
                }
            }
            (_, Some(row)) => self.come(path, row),
        }
    }

    fn file_here(
        &mut self,
        path: &RelPath,
        here: Here,
        base: Option<&BaseEntry>,
        row: Option<&ManifestEntry>,
    ) {
        let unchanged = base.filter(|b| b.sha256 == Some(here.sha256));
        match (base, row) {
            (None, None) => self.upload(path, here),
            (None, Some(row)) if row.sha256 == Some(here.sha256) => {
                self.same_content(path, here, None, row);
            }
            (None, Some(row)) => self.conflict(path, here, row),
            (Some(_), None) => match unchanged {
                Some(b) if b.stamp.is_some() => {
                    self.lost += 1;
                    let remove = Change::Remove {
                        stamp: here.stamp,
                        sha256: here.sha256,
                        storage_key: b.storage_key.clone(),
                    };
                    self.plan.changes.insert(path.clone(), remove);
                }
                _ => self.upload(path, here),
            },
            (Some(base), Some(row)) => {
                let theirs_same = same_row(base, row);
                if row.sha256 == Some(here.sha256) || (unchanged.is_some() && theirs_same) {
                    self.same_content(path, here, Some(base), row);
                } else if theirs_same {
                    self.upload(path, here);
                } else if unchanged.is_some() {
                    let fetch = Change::Fetch { row: row.clone(), over: Some(here.stamp) };
                    self.plan.changes.insert(path.clone(), fetch);
                } else {
                    self.conflict(path, here, row);
                }
            }
        }
    }

    fn upload(&mut self, path: &RelPath, here: Here) {
        let change = upload_from(path, here);
        self.plan.changes.insert(path.clone(), change);
    }

    fn conflict(&mut self, path: &RelPath, here: Here, row: &ManifestEntry) {
        let to = self.free_name(path);
        self.plan.changes.insert(to.clone(), upload_from(path, here));
        let aside = Change::MoveAside { to, stamp: here.stamp, row: Some(row.clone()) };
        self.plan.changes.insert(path.clone(), aside);
    }

    fn free_name(&self, path: &RelPath) -> RelPath {
        conflict_path(path, self.context.user, self.context.now, |name| {
            self.scan.entries.contains_key(name)
                || self.scan.skipped.contains_key(name)
                || self.base.files.contains_key(name)
                || self.remote.files.contains_key(name)
                || self.plan.changes.contains_key(name)
        })
    }

    /// The contents are the same on both sides: mode and time may differ.
    fn same_content(
        &mut self,
        path: &RelPath,
        here: Here,
        base: Option<&BaseEntry>,
        row: &ManifestEntry,
    ) {
        let mine = (here.mode, here.stamp.mtime_ns);
        let changed_here = match base {
            Some(BaseEntry { stamp: Some(was), mode, .. }) => mine != (*mode, was.mtime_ns),
            Some(BaseEntry { mode, mtime_ns, .. }) => mine != (*mode, *mtime_ns),
            // Nobody knows which is newer: the store's, so that a case comes as it was left.
            None => false,
        };
        let (mode, mtime_ns) = base.map_or(mine, |b| (b.mode, b.mtime_ns));
        let theirs = (row.mode.unwrap_or(mode), row.mtime_ns.unwrap_or(mtime_ns));
        let (stamp, sha256) = (here.stamp, here.sha256);
        let mut row = ManifestEntry { sha256: Some(sha256), size: Some(stamp.size), ..row.clone() };
        if changed_here && mine != (row.mode.unwrap_or(mine.0), row.mtime_ns.unwrap_or(mine.1)) {
            (row.mode, row.mtime_ns) = (Some(mine.0), Some(mine.1));
            self.plan.changes.insert(path.clone(), Change::Describe { row, stamp, sha256 });
        } else if !changed_here && theirs != (mode, mtime_ns) {
            let (mode, mtime_ns) = theirs;
            let set = Change::SetMeta { row, stamp, sha256, mode, mtime_ns };
            self.plan.changes.insert(path.clone(), set);
        } else {
            let (mode, mtime_ns) = if changed_here { mine } else { theirs };
            let agreed = BaseEntry {
                sha256: Some(sha256),
                size: stamp.size,
                mode,
                mtime_ns,
                storage_key: row.storage_key,
                stamp: Some(stamp),
                placed: false,
            };
            self.plan.agreed.insert(path.clone(), agreed);
        }
    }

    /// Whether a stub stands for it: then nothing else need do so.
    fn has_stub(&self, path: &RelPath) -> bool {
        stub_path(path).is_some_and(|at| self.plan.stubs.contains_key(&at))
    }

    /// A placeholder is the content it stands for, wherever it stands.
    fn placeholder_here(
        &mut self,
        path: &RelPath,
        own: &ManifestEntry,
        mode: u32,
        base: Option<&BaseEntry>,
        row: Option<&ManifestEntry>,
    ) {
        let as_base = base.is_some_and(|base| same_row(base, own));
        let as_row = row.is_some_and(|row| same_row(&lazy_entry(own), row));
        match (base, row) {
            (_, Some(row)) if as_row => {
                let known = base.filter(|_| as_base).map_or(row.mode, |base| Some(base.mode));
                let lazy = BaseEntry { placed: true, ..lazy_entry(row) };
                if known.is_none_or(|known| known == mode) || Some(mode) == row.mode {
                    self.plan.agreed.insert(path.clone(), lazy);
                } else {
                    self.carry(path, row, mode);
                }
            }
            (Some(_), Some(row)) if as_base => self.come(path, row),
            (Some(_), None) if as_base => {
                self.lost += 1;
                self.plan.changes.insert(path.clone(), Change::Unplace);
            }
            (Some(base), Some(row)) if same_row(base, row) => self.carry(path, own, mode),
            (_, None) => self.carry(path, own, mode),
            (base, Some(_)) => {
                self.plan.open.insert(path.clone());
                self.keep(path, base);
            }
        }
    }

    fn carry(&mut self, path: &RelPath, row: &ManifestEntry, mode: u32) {
        let row = ManifestEntry { mode: Some(mode), ..row.clone() };
        self.plan.changes.insert(path.clone(), Change::Carry { row });
    }

    fn directory_here(
        &mut self,
        path: &RelPath,
        base: Option<&BaseEntry>,
        row: Option<&ManifestEntry>,
    ) {
        let Some(row) = row else { return };
        self.plan.changes.insert(path.clone(), Change::Forget);
        let deleted = base.is_some_and(|b| b.stamp.is_some() && same_row(b, row));
        if !deleted {
            let aside = self.free_name(path);
            self.plan.changes.insert(aside, Change::Fetch { row: row.clone(), over: None });
        }
    }

    fn link_here(&mut self, path: &RelPath, base: Option<&BaseEntry>, row: Option<&ManifestEntry>) {
        let Some(row) = row else { return };
        if base.is_some_and(|b| b.stamp.is_some() && same_row(b, row)) {
            self.plan.changes.insert(path.clone(), Change::Forget);
        } else {
            self.plan.held.insert(path.clone(), "a link stands in its place");
            self.keep(path, base);
        }
    }

    /// What is only there comes here, now or when somebody asks for it.
    fn come(&mut self, path: &RelPath, row: &ManifestEntry) {
        if self.link_above(path) {
            self.plan.held.insert(path.clone(), "a link stands in its way");
            return;
        }
        let row = row.clone();
        let change = if row.size.is_some_and(self.context.lazy) {
            Change::Lazy { row }
        } else {
            Change::Fetch { row, over: None }
        };
        self.plan.changes.insert(path.clone(), change);
    }

    fn link_above(&self, path: &RelPath) -> bool {
        let mut at = path.parent();
        while let Some(above) = at {
            let entry = self.scan.entries.get(&above);
            if entry.is_some_and(|entry| matches!(entry.kind, LocalKind::Symlink(_))) {
                return true;
            }
            at = above.parent();
        }
        false
    }

    /// A path cannot be a file and a directory: where a file here stands in the way of what
    /// comes, it gets another name.
    fn part_files_from_directories(&mut self) {
        let next = self.next_paths();
        let mut open: Vec<&RelPath> = Vec::new();
        let mut in_the_way: BTreeSet<RelPath> = BTreeSet::new();
        for path in &next {
            while open.last().is_some_and(|top| !path.as_bytes().starts_with(top.as_bytes())) {
                open.pop();
            }
            let top =
                open.iter().find(|top| path.as_bytes().get(top.as_bytes().len()) == Some(&b'/'));
            in_the_way.extend(top.map(|top| (*top).clone()));
            open.push(path);
        }
        for path in in_the_way {
            let Some(Change::Upload { from, stamp, sha256, mode }) = self.plan.changes.get(&path)
            else {
                continue;
            };
            let here = Here { sha256: *sha256, stamp: *stamp, mode: *mode };
            let (from, stamp, to) = (from.clone(), *stamp, self.free_name(&path));
            self.plan.changes.insert(to.clone(), upload_from(&from, here));
            self.plan.changes.insert(path, Change::MoveAside { to, stamp, row: None });
        }
    }

    /// Paths of files in the next manifest.
    fn next_paths(&self) -> BTreeSet<RelPath> {
        let mut next: BTreeSet<RelPath> = self.remote.files.keys().cloned().collect();
        for (path, change) in &self.plan.changes {
            match change {
                Change::Forget | Change::MoveAside { row: None, .. } => {
                    next.remove(path);
                }
                Change::Remove { .. } | Change::Unplace => (),
                _ => {
                    next.insert(path.clone());
                }
            }
        }
        next
    }

    /// A stub whose file is here, gone or another by now stands for nothing.
    fn drop_stale_stubs(&mut self) {
        for (at, stamp) in &self.plan.stubs {
            let kind = self.scan.entries.get(at).map(|entry| &entry.kind);
            let Some(LocalKind::File { sha256, .. }) = kind else { continue };
            let Some(path) = stub_of(at) else { continue };
            let text = match (self.plan.agreed.get(&path), self.plan.changes.get(&path)) {
                (Some(base), _) if base.stamp.is_none() => {
                    Some(stub_text(&path, base.size, &base.storage_key))
                }
                (_, Some(Change::Lazy { row })) => {
                    Some(stub_text(&path, row.size.unwrap_or_default(), &row.storage_key))
                }
                // It goes once the file has come.
                (_, Some(Change::Fetch { .. })) => continue,
                _ => None,
            };
            if text.map(|text| sum(text.as_bytes())) != *sha256 {
                self.plan.stale_stubs.insert(at.clone(), *stamp);
            }
        }
    }

    fn merge_trees(&mut self) {
        let local = tree::local(self.scan);
        let files = self.next_paths().into_iter().map(|path| (path, ())).collect();
        let base = &self.base.tree;
        let remote = self.remote.tree.as_ref().unwrap_or(base);
        let unseen = |path: &RelPath| self.is_unseen(path);
        let occupied =
            |path: &RelPath| tree::beneath(&files, path) || tree::beneath(&self.scan.skipped, path);
        let sides = tree::Sides { base, local: &local, remote };
        let (mut next, mut unmake) = tree::merge(&sides, unseen, occupied);
        tree::without_collisions(&mut next, &files, |path| self.plan.stubs.contains_key(path));
        unmake.modes.retain(|path, _| next.directories.contains_key(path));
        let mut make = next.clone();
        make.directories.retain(|path, _| !local.directories.contains_key(path));
        make.symlinks.retain(|path, text| local.symlinks.get(path) != Some(text));
        make.directories.retain(|path, _| !self.is_unseen(path));
        make.symlinks.retain(|path, _| !self.is_unseen(path));
        (self.plan.tree, self.plan.make, self.plan.unmake) = (next, make, unmake);
    }
}

fn upload_from(from: &RelPath, here: Here) -> Change {
    let Here { sha256, stamp, mode } = here;
    Change::Upload { from: from.clone(), stamp, sha256, mode }
}

/// Whether the row's contents are still those of the base.
fn same_row(base: &BaseEntry, row: &ManifestEntry) -> bool {
    match (base.sha256, row.sha256) {
        (Some(was), Some(is)) => was == is,
        _ => base.storage_key == row.storage_key && row.size.is_none_or(|size| size == base.size),
    }
}

/// The base of a row whose contents are not here.
pub fn lazy_entry(row: &ManifestEntry) -> BaseEntry {
    BaseEntry {
        sha256: row.sha256,
        size: row.size.unwrap_or_default(),
        mode: row.mode.unwrap_or(0o644),
        mtime_ns: row.mtime_ns.unwrap_or_default(),
        storage_key: row.storage_key.clone(),
        stamp: None,
        placed: false,
    }
}

impl Plan {
    /// Whether nothing must happen on either side.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.stale_stubs.is_empty()
            && self.make.directories.is_empty()
            && self.make.symlinks.is_empty()
            && self.unmake == TreeChange::default()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, change) in &self.changes {
            match change {
                Change::Upload { from, stamp, .. } if from == path => {
                    writeln!(f, "upload `{path}` ({} bytes)", stamp.size)?;
                }
                Change::Upload { from, stamp, .. } => {
                    writeln!(f, "upload `{path}` ({} bytes) from `{from}`", stamp.size)?;
                }
                Change::Fetch { row, over: None } => {
                    writeln!(f, "fetch `{path}` from {}", super::keys::shown(&row.storage_key))?;
                }
                Change::Fetch { row, over: Some(_) } => {
                    let key = super::keys::shown(&row.storage_key);
                    writeln!(f, "replace `{path}` from {key}")?;
                }
                Change::Lazy { row } => {
                    let size = row.size.unwrap_or_default();
                    writeln!(
                        f,
                        "leave `{path}` in the store until it is asked for ({size} bytes)"
                    )?;
                }
                Change::Remove { .. } => writeln!(f, "remove `{path}` here")?,
                Change::Forget => writeln!(f, "drop `{path}` from the manifest")?,
                Change::Describe { row, .. } => {
                    writeln!(f, "describe `{path}` (mode {:04o})", row.mode.unwrap_or_default())?;
                }
                Change::SetMeta { mode, .. } => {
                    writeln!(f, "set mode and time of `{path}` (mode {mode:04o})")?;
                }
                Change::Carry { .. } => writeln!(f, "carry the placeholder `{path}` along")?,
                Change::Unplace => writeln!(f, "remove the placeholder `{path}`")?,
                Change::MoveAside { to, .. } => writeln!(f, "move `{path}` aside to `{to}`")?,
            }
        }
        for (path, why) in &self.held {
            writeln!(f, "hold `{path}`: {why}")?;
        }
        for path in &self.open {
            writeln!(f, "fill the placeholder `{path}` first")?;
        }
        for path in self.stale_stubs.keys() {
            writeln!(f, "remove the stub `{path}`")?;
        }
        for path in self.unmake.symlinks.keys() {
            writeln!(f, "remove the link `{path}`")?;
        }
        for path in &self.unmake.directories {
            writeln!(f, "remove the directory `{path}` if it is empty")?;
        }
        for (path, (_, mode)) in &self.unmake.modes {
            writeln!(f, "set the mode of the directory `{path}` to {mode:04o}")?;
        }
        for path in self.make.directories.keys() {
            writeln!(f, "make the directory `{path}`")?;
        }
        for path in self.make.symlinks.keys() {
            writeln!(f, "make the link `{path}`")?;
        }
        Ok(())
    }
}
