//! Earlier states of a case, and putting one back. A restore is a commit in the store: the next
//! manifest is the earlier one, or the present one with some of its files. An ordinary sync then
//! brings it to the workspace, so that it treats edits and lazy files as every sync does.

use futures_util::{StreamExt as _, stream};

use super::remote::{apart, of_base, of_bytes, read, read_manifest};
use super::{FilesError, RACES, Work};
use crate::model::{Base, CaseName, ManifestEntry, RelPath, Remote, Timestamp, Tree, UserName};
use crate::sync::{
    Difference, MANIFESTS, NoReturn, NoState, kept_manifest, parse_manifest, pick, put_back,
    render_manifest, render_tree, short_ids, state_of, sum, tree_key,
};
use crate::world::{Clock, Objects, Workspaces};

/// Manifests read beside each other.
const ABREAST: usize = 8;

/// One state of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSeen {
    /// What `docket restore --at` takes.
    pub id: String,
    /// As much of it as means no other state.
    pub short: String,
    /// Since when it was the current one.
    pub since: Timestamp,
    /// It is the current one.
    pub current: bool,
    /// Its files, their bytes and what changed since the state before; or why it cannot be read.
    pub holds: Result<Holds, String>,
}

/// What is in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holds {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Against the state before; `None`: it is the first.
    pub difference: Option<Difference>,
}

/// A state whose manifest has a name.
struct Named {
    id: String,
    since: Timestamp,
    /// Relative to the case.
    key: String,
    current: bool,
}

/// Every state of a case, oldest first. The current one's id is what it will be kept as.
async fn states<O: Objects>(objects: &O, prefix: &str) -> Result<Vec<Named>, FilesError> {
    let listed = objects.list(&format!("{prefix}{MANIFESTS}")).await?;
    let mut kept: Vec<_> = listed
        .iter()
        .filter_map(|meta| Some((meta.key.strip_prefix(prefix)?, meta.modified)))
        .filter_map(|(key, replaced)| {
            let (id, since) = state_of(key)?;
            let named = Named { id: id.to_owned(), since, key: key.to_owned(), current: false };
            Some((since, replaced, named))
        })
        .collect();
    // Two states within the resolution of the store's clock: the earlier was replaced earlier.
    kept.sort_by(|a, b| (a.0, a.1, &a.2.id).cmp(&(b.0, b.1, &b.2.id)));
    let mut all: Vec<Named> = kept.into_iter().map(|(_, _, named)| named).collect();
    if let Some((meta, _)) = read_manifest(objects, prefix).await? {
        let since = meta.modified.unwrap_or_default();
        let key = kept_manifest(since, &meta.etag);
        let id = state_of(&key).map_or_else(|| meta.etag.clone(), |(id, _)| id.to_owned());
        // A swap that did not come about may have left its copy already.
        all.retain(|named| named.id != id);
        let key = crate::sync::MANIFEST.to_owned();
        all.push(Named { id, since, key, current: true });
    }
    Ok(all)
}

/// The newest states of a case, newest first, and how many older ones there are. `most`: so many;
/// 0: all.
///
/// # Errors
/// The store's.
pub async fn history<O: Objects>(
    objects: &O,
    user: &UserName,
    case: &CaseName,
    most: usize,
) -> Result<(Vec<StateSeen>, usize), FilesError> {
    let prefix = format!("{user}/{case}/");
    let named = states(objects, &prefix).await?;
    let short = short_ids(&named.iter().map(|named| named.id.as_str()).collect::<Vec<_>>());
    let most = if most == 0 { named.len() } else { most };
    let older = named.len().saturating_sub(most);
    // The one before the first that is shown tells what changed in it.
    let from = older.saturating_sub(1);
    let wanted = named.into_iter().zip(short).skip(from);
    let prefix = &prefix;
    let mut reading = stream::iter(wanted.map(|(named, short)| async move {
        let rows = rows(objects, prefix, &named).await;
        (named, short, rows)
    }))
    .buffered(ABREAST);
    let (mut seen, mut before) = (Vec::new(), None);
    while let Some((named, short, rows)) = reading.next().await {
        let (holds, rows) = match rows? {
            Ok(rows) => (Ok(holds(before.as_ref(), &rows)), Some(rows)),
            Err(why) => (Err(why), None),
        };
        before = rows;
        let Named { id, since, current, .. } = named;
        seen.push(StateSeen { id, short, since, current, holds });
    }
    drop(reading);
    if older > 0 {
        seen.remove(0);
    }
    seen.reverse();
    Ok((seen, older))
}

type Rows = std::collections::BTreeMap<RelPath, ManifestEntry>;

/// The rows of a state; in its place why they cannot be read, if only this one cannot.
async fn rows<O: Objects>(
    objects: &O,
    prefix: &str,
    named: &Named,
) -> Result<Result<Rows, String>, FilesError> {
    Ok(match read(objects, prefix, &named.key).await {
        Ok(Some((_, bytes))) => {
            let rows = apart(bytes, |bytes| parse_manifest(&bytes)).await?;
            rows.map_err(|why| why.to_string())
        }
        Ok(None) => Err("it went away meanwhile".to_owned()),
        Err(FilesError::ManifestInvalid { why, .. }) => Err(why.to_string()),
        Err(error) => return Err(error),
    })
}

fn holds(before: Option<&Rows>, rows: &Rows) -> Holds {
    Holds {
        files: rows.len() as u64,
        bytes: rows.values().filter_map(|row| row.size).fold(0, u64::saturating_add),
        difference: before.map(|before| Difference::between(before, rows)),
    }
}

/// Why nothing was put back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The store or the workspace.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// No such state.
    #[error(transparent)]
    NoState(#[from] NoState),
    /// The state is there, and cannot be put back like this.
    #[error(transparent)]
    NoReturn(#[from] NoReturn),
    /// The state is the very manifest that is not followed.
    #[error(
        "`{id}` is the present manifest, which is not followed: it would remove what is here{}",
        other_state(.other.as_deref())
    )]
    NotFollowed {
        /// The state that was meant.
        id: String,
        /// The newest other one.
        other: Option<String>,
    },
    /// The present manifest cannot be read, so nothing can be put beside what it says.
    #[error("{0}; a restore without --path puts the whole state in its place")]
    NothingBeside(String),
}

fn other_state(other: Option<&str>) -> String {
    other.map_or_else(String::new, |id| format!("; what was known before it is `{id}`"))
}

/// What a restore changed in the store.
#[derive(Debug)]
pub struct PutBack {
    /// The state that was meant.
    pub id: String,
    /// From what was there to what is there now.
    pub difference: Difference,
}

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    /// Makes an earlier state the current one, or what it has at and beneath a path part of it.
    pub(super) async fn put_back(
        &self,
        at: &str,
        path: Option<&RelPath>,
        unfollowed: Option<&Base>,
    ) -> Result<PutBack, RestoreError> {
        let prefix = format!("{}/", self.case());
        if let Some(base) = unfollowed {
            self.keep_known(base, &prefix).await?;
        }
        let named = states(self.objects, &prefix).await?;
        let ids: Vec<&str> = named.iter().map(|named| named.id.as_str()).collect();
        let id = pick(&ids, at)?.to_owned();
        let chosen = named.iter().find(|named| named.id == id);
        if unfollowed.is_some() && chosen.is_some_and(|named| named.current) {
            let others = named.iter().rev().filter(|named| !named.current);
            let other = others.map(|named| named.id.clone()).next();
            return Err(RestoreError::NotFollowed { id, other });
        }
        let key = chosen.map(|named| named.key.clone()).unwrap_or_default();
        let gone = || NoState::Unknown(id.clone());
        let (meta, bytes) = read(self.objects, &prefix, &key).await?.ok_or_else(gone)?;
        let then = of_bytes(self.objects, &prefix, &key, meta, bytes).await?;
        for _ in 0..RACES {
            let now = self.present(&prefix, path.is_some()).await?;
            let next = put_back(&now, &then, path)?;
            let difference = Difference::between(&now.files, &next.files);
            if difference.is_empty() && next.tree == now.tree && !now.files.is_empty() {
                return Ok(PutBack { id, difference });
            }
            let tree = next.tree.unwrap_or_default();
            if self.commit(&now, &next.files, &tree).await?.is_some() {
                return Ok(PutBack { id, difference });
            }
        }
        Err(FilesError::Contended { case: self.case() }.into())
    }

    /// Keeps what both sides last agreed on as a state: after a manifest that was emptied, broken
    /// or removed by somebody else, nothing in the store names it any more.
    async fn keep_known(&self, base: &Base, prefix: &str) -> Result<(), FilesError> {
        if base.files.is_empty() {
            return Ok(());
        }
        let known = of_base(base);
        let bytes = render_manifest(&known.files, &base.tree);
        let sum = sum(&bytes).hex();
        let etag = base.etag.as_deref().unwrap_or(&sum[..12]);
        let key = kept_manifest(self.clock.now(), etag);
        // Kept before under another time, or as what docket itself replaced.
        let same = key.rsplit_once("Z-").map_or("", |(_, rest)| rest);
        let listed = self.objects.list(&format!("{prefix}{MANIFESTS}")).await?;
        if listed.iter().any(|meta| meta.key.ends_with(&format!("Z-{same}"))) {
            return Ok(());
        }
        if base.tree != Tree::default() {
            self.put(&tree_key(&bytes), render_tree(&base.tree)).await?;
        }
        self.put(&key, bytes).await
    }

    /// What is current. One that cannot be read, or is gone, is an empty one that is replaced.
    async fn present(&self, prefix: &str, needed: bool) -> Result<Remote, RestoreError> {
        let unread = |etag: Option<String>, why: String| {
            let empty = Remote { etag, ..Remote::default() };
            if needed { Err(RestoreError::NothingBeside(why)) } else { Ok(empty) }
        };
        let key = crate::sync::MANIFEST;
        let Some((meta, bytes)) = read_manifest(self.objects, prefix).await? else {
            return unread(None, format!("the manifest of {} is gone", self.case()));
        };
        let etag = Some(meta.etag.clone());
        match of_bytes(self.objects, prefix, key, meta, bytes).await {
            Ok(now) => Ok(now),
            Err(error @ FilesError::ManifestInvalid { .. }) => unread(etag, error.to_string()),
            Err(error) => Err(error.into()),
        }
    }
}
