//! The way out: contents to new keys, conflict copies to their names, one swap of the manifest.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use super::abreast::{Abreast, SMALL};
use super::{FilesError, Outcome, Work, entry_of, placed_entry};
use crate::model::{ManifestEntry, RelPath, Remote, Sha256, SkipReason, Stamp, Timestamp, Tree};
use crate::sync::{
    Change, MANIFEST, Plan, kept_manifest, key_candidates, render_manifest, render_tree,
    state_after, sum, tree_key,
};
use crate::world::{
    Body, Clock, Objects, StoreErrorKind, Swap, WorkspaceError, WorkspaceErrorKind, Workspaces,
};

/// Parcels that are read ahead.
const PACKED: usize = 64;

/// One file on its way out.
struct Parcel<'a> {
    path: &'a RelPath,
    from: &'a RelPath,
    stamp: Stamp,
    sha256: Sha256,
    mode: u32,
}

/// Its row once it is stored, or why it is not.
type Sent = Result<ManifestEntry, SkipReason>;

/// A parcel that may go, a small one with what it holds and the right to hold that.
struct Packed<'p, 't> {
    parcel: Parcel<'p>,
    bytes: Option<Result<Bytes, WorkspaceError>>,
    held: Option<SemaphorePermit<'t>>,
}

/// What became of the manifest that is to be replaced.
enum Replaced {
    /// A copy of it is kept, under the time at which it was written; `None`: there was none.
    Kept(Option<Timestamp>),
    /// It is not there any more.
    Gone,
}

/// What ended of an upload.
enum Sending<'p, 't> {
    Packed(Vec<Packed<'p, 't>>),
    Sent(Parcel<'p>, Result<Sent, FilesError>),
}

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    /// Stores what is new here and swaps the manifest. The manifest as it stands then; `None`:
    /// somebody else swapped it first, and nothing but new objects and names of conflict copies
    /// came of this.
    pub(super) async fn send(
        &self,
        remote: &Remote,
        plan: &Plan,
        outcome: &mut Outcome,
    ) -> Result<Option<Remote>, FilesError> {
        let parcels = parcels(plan);
        let mut remote = remote.clone();
        if remote.etag.is_none() && !parcels.is_empty() {
            // In a case without a manifest every object is a file: new ones must not be.
            let first = Remote { etag: None, ..remote.clone() };
            match self.commit(&first, &first.files, &Tree::default()).await? {
                Some(etag) => remote.etag = Some(etag),
                None => return Ok(None),
            }
        }
        let mut rows = self.upload(&remote, parcels, outcome).await?;
        self.move_aside(plan, &mut rows, outcome).await?;
        let mut next = remote.files.clone();
        for (path, change) in &plan.changes {
            match change {
                Change::Forget => {
                    next.remove(path);
                    outcome.gone.insert(path.clone());
                }
                Change::Upload { stamp, sha256, .. } => {
                    if let Some(row) = rows.remove(path) {
                        let stamp =
                            outcome.agreed.get(path).and_then(|e| e.stamp).unwrap_or(*stamp);
                        outcome.agreed.insert(path.clone(), entry_of(&row, *sha256, stamp));
                        next.insert(path.clone(), row);
                    }
                }
                Change::Describe { row, stamp, sha256 } => {
                    outcome.agreed.insert(path.clone(), entry_of(row, *sha256, *stamp));
                    next.insert(path.clone(), row.clone());
                }
                Change::Carry { row } => {
                    outcome.agreed.insert(path.clone(), placed_entry(row));
                    next.insert(path.clone(), row.clone());
                }
                // A row that was only moved; any other stands there already.
                Change::Fetch { row, .. } => {
                    next.insert(path.clone(), row.clone());
                }
                _ => (),
            }
        }
        let same_tree = match &remote.tree {
            Some(tree) => plan.tree == *tree,
            None => plan.tree == Tree::default(),
        };
        if next == remote.files && same_tree {
            return Ok(Some(remote));
        }
        fill(&mut next, plan);
        let swapped = self.commit(&remote, &next, &plan.tree).await?;
        let tree = Some(plan.tree.clone());
        Ok(swapped.map(|etag| Remote { etag: Some(etag), files: next, tree }))
    }

    /// Many files beside each other, small ones read ahead. One that cannot be read is noted; a
    /// store that fails ends it.
    async fn upload(
        &self,
        remote: &Remote,
        parcels: Vec<Parcel<'_>>,
        outcome: &mut Outcome,
    ) -> Result<BTreeMap<RelPath, ManifestEntry>, FilesError> {
        let taken: BTreeMap<&str, Sha256> = remote
            .files
            .values()
            .filter_map(|row| Some((row.storage_key.as_str(), row.sha256?)))
            .collect();
        let mut waiting = parcels.into_iter().peekable();
        let (mut packed, mut packing) = (VecDeque::new(), false);
        let mut rows = BTreeMap::new();
        let mut sending = Abreast::new(self.bounds.turns);
        loop {
            while !packed.is_empty() && sending.has_room().await {
                let Some(parcel) = packed.pop_front() else { break };
                sending.begin(self.upload_parcel(parcel, &taken));
            }
            if !packing && packed.len() < PACKED {
                let alone = packed.is_empty() && sending.is_idle();
                let next = self.pick(&mut waiting, alone).await;
                packing = !next.is_empty();
                if packing {
                    sending.aside(self.pack(next));
                }
            }
            match sending.next().await {
                None => return Ok(rows),
                Some(Sending::Packed(more)) => {
                    packing = false;
                    packed.extend(more);
                }
                Some(Sending::Sent(parcel, sent)) => match sent? {
                    Ok(row) => {
                        rows.insert(parcel.path.clone(), row);
                    }
                    Err(reason) => {
                        outcome.unsent.insert(parcel.from.clone(), reason);
                    }
                },
            }
        }
    }

    /// The next parcels to be packed, small ones as far as there is room for them. `alone`: nothing
    /// is under way, so the room for one is waited for.
    async fn pick<'p>(
        &self,
        waiting: &mut Peekable<impl Iterator<Item = Parcel<'p>>>,
        alone: bool,
    ) -> Vec<Packed<'p, '_>> {
        let turns = self.bounds.turns;
        let mut picked = Vec::new();
        while picked.len() < PACKED
            && let Some(size) = waiting.peek().map(|parcel| parcel.stamp.size)
        {
            let held = match turns.try_hold(size) {
                _ if size > SMALL => None,
                None if alone && picked.is_empty() => turns.hold(size).await,
                None => break,
                held => held,
            };
            picked.extend(waiting.next().map(|parcel| Packed { parcel, bytes: None, held }));
        }
        picked
    }

    /// Reads what is small.
    async fn pack<'p, 't>(&self, mut picked: Vec<Packed<'p, 't>>) -> Sending<'p, 't> {
        let small = |packed: &&mut Packed<'_, '_>| packed.held.is_some();
        let wanted = picked.iter_mut().filter(small);
        let wanted = wanted.map(|p| (p.parcel.from.clone(), p.parcel.stamp)).collect();
        let read = self.workspaces.read_small(self.place, wanted).await;
        for (packed, read) in picked.iter_mut().filter(small).zip(read) {
            packed.bytes = Some(read.map(Bytes::from));
        }
        Sending::Packed(picked)
    }

    async fn upload_parcel<'p, 't>(
        &self,
        packed: Packed<'p, 't>,
        taken: &BTreeMap<&str, Sha256>,
    ) -> Sending<'p, 't> {
        let Packed { parcel, bytes, held } = packed;
        let sent = self.upload_one(&parcel, bytes, taken).await;
        drop(held);
        Sending::Sent(parcel, sent)
    }

    async fn upload_one(
        &self,
        parcel: &Parcel<'_>,
        bytes: Option<Result<Bytes, WorkspaceError>>,
        taken: &BTreeMap<&str, Sha256>,
    ) -> Result<Sent, FilesError> {
        let Parcel { path, from, stamp, sha256, mode } = *parcel;
        for key in key_candidates(path, sha256) {
            let row = ManifestEntry {
                sha256: Some(sha256),
                size: Some(stamp.size),
                mode: Some(mode),
                mtime_ns: Some(stamp.mtime_ns),
                storage_key: key,
            };
            match taken.get(row.storage_key.as_str()) {
                Some(there) if *there == sha256 => return Ok(Ok(row)),
                Some(_) => continue,
                None => (),
            }
            let body: Result<Body, WorkspaceError> = match &bytes {
                Some(Ok(bytes)) => Ok(Box::pin(std::io::Cursor::new(bytes.clone()))),
                Some(Err(error)) => Err(error.clone()),
                None => self.workspaces.read(self.place, from, stamp).await,
            };
            let body = match body {
                Ok(body) => body,
                Err(error) => match error.kind {
                    WorkspaceErrorKind::Replaced => return Err(error.into()),
                    WorkspaceErrorKind::Changed | WorkspaceErrorKind::NotFound => {
                        return Ok(Err(SkipReason::Torn));
                    }
                    _ => return Ok(Err(SkipReason::Unreadable(error.message))),
                },
            };
            let full = self.key(&row.storage_key);
            match self.objects.put_new(&full, body, stamp.size, sha256).await {
                Ok(()) => return Ok(Ok(row)),
                Err(error) => match error.kind {
                    StoreErrorKind::SourceChanged => return Ok(Err(SkipReason::Torn)),
                    StoreErrorKind::Invalid => {
                        tracing::debug!(%error, "the next key is tried");
                    }
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(Err(SkipReason::Unreadable("the store takes none of its keys".to_owned())))
    }

    /// Gives conflict copies that are stored their names, and fetches what stands in their place.
    /// Before the swap: cut off after it, the copy is an ordinary new file of the next sync.
    async fn move_aside(
        &self,
        plan: &Plan,
        rows: &mut BTreeMap<RelPath, ManifestEntry>,
        outcome: &mut Outcome,
    ) -> Result<(), FilesError> {
        for (path, change) in &plan.changes {
            let Change::MoveAside { to, stamp, row } = change else { continue };
            let Some(stored) = rows.get(to).cloned() else { continue };
            let stamp = match self.workspaces.rename(self.place, path, to, *stamp).await {
                Ok(stamp) => stamp,
                Err(error) if error.kind == WorkspaceErrorKind::Replaced => {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::debug!(%error, "a conflict copy is tried again");
                    rows.remove(to);
                    outcome.unsent.insert(path.clone(), SkipReason::Torn);
                    continue;
                }
            };
            let sha256 = stored.sha256.unwrap_or(Sha256([0; 32]));
            outcome.agreed.insert(to.clone(), entry_of(&stored, sha256, stamp));
            outcome.conflicts.insert(to.clone(), path.clone());
            outcome.gone.insert(path.clone());
            if let Some(row) = row {
                self.fetch_into(path, row, None, outcome).await?;
            }
        }
        Ok(())
    }

    /// Swaps the manifest for these files and this tree. Its new ETag; `None`: somebody else did.
    pub(super) async fn commit(
        &self,
        remote: &Remote,
        files: &BTreeMap<RelPath, ManifestEntry>,
        tree: &Tree,
    ) -> Result<Option<String>, FilesError> {
        let bytes = render_manifest(files, tree);
        // An empty one too: without it nothing would be known of directories and links.
        let tree_key = tree_key(&bytes);
        let tree = self.put(&tree_key, render_tree(tree));
        let ((), replaced) = tokio::try_join!(tree, self.keep_replaced(remote))?;
        let Replaced::Kept(last) = replaced else { return Ok(None) };
        let (key, at) = (self.key(MANIFEST), state_after(last, self.clock.now()));
        match self.objects.put_if(&key, bytes, remote.etag.as_deref(), at).await? {
            Swap::Done(etag) => Ok(Some(etag)),
            Swap::Lost => Ok(None),
        }
    }

    /// Keeps a copy of the manifest that is to be replaced.
    async fn keep_replaced(&self, remote: &Remote) -> Result<Replaced, FilesError> {
        let Some(etag) = &remote.etag else { return Ok(Replaced::Kept(None)) };
        let prefix = format!("{}/", self.case());
        let there = super::remote::read_manifest(self.objects, &prefix).await?;
        let Some((meta, old)) = there.filter(|(meta, _)| meta.etag == *etag) else {
            return Ok(Replaced::Gone);
        };
        // By the time it was written: done twice, it is the same copy.
        let time = meta.modified.unwrap_or_else(|| self.clock.now());
        self.put(&kept_manifest(time, etag), old).await?;
        Ok(Replaced::Kept(Some(time)))
    }

    pub(super) async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), FilesError> {
        let (size, sha256) = (bytes.len() as u64, sum(&bytes));
        let body: Body = Box::pin(std::io::Cursor::new(bytes));
        Ok(self.objects.put_new(&self.key(key), body, size, sha256).await?)
    }
}

fn parcels(plan: &Plan) -> Vec<Parcel<'_>> {
    let mut parcels: Vec<Parcel<'_>> = plan
        .changes
        .iter()
        .filter_map(|(path, change)| match change {
            Change::Upload { from, stamp, sha256, mode } => {
                Some(Parcel { path, from, stamp: *stamp, sha256: *sha256, mode: *mode })
            }
            _ => None,
        })
        .collect();
    parcels.sort_by_key(|parcel| parcel.stamp.size);
    parcels
}

/// What a foreign manifest left out and is known by now goes into the next one.
fn fill(rows: &mut BTreeMap<RelPath, ManifestEntry>, plan: &Plan) {
    for (path, row) in rows {
        let Some(known) = plan.agreed.get(path).filter(|k| k.storage_key == row.storage_key) else {
            continue;
        };
        row.sha256 = row.sha256.or(known.sha256);
        row.size = row.size.or(Some(known.size));
        if known.stamp.is_some() {
            row.mode = row.mode.or(Some(known.mode));
            row.mtime_ns = row.mtime_ns.or(Some(known.mtime_ns));
        }
    }
}
