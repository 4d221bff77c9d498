//! What the store has of a case.

use std::collections::BTreeMap;

use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::abreast::Abreast;
use super::{FilesError, Work};
use crate::model::{
    Base, CaseName, LocalKind, ManifestEntry, RelPath, Remote, Scan, Sha256, Timestamp, UserName,
};
use crate::sync::{
    BadManifest, FILES, MANIFEST, MANIFESTS, MAX_BYTES, foreign_row, is_kept, parse_bare,
    parse_manifest, parse_tree, reads_like_anothers, tree_key,
};
use crate::world::{Clock, ObjectMeta, Objects, StoreError, StoreErrorKind, Workspaces};

/// Text longer than this is not read on the async threads.
const INLINE: usize = 256 << 10;

/// What the store has of a case: its manifest, or the objects themselves if there never was one.
/// One HEAD is enough if the base mirrors the manifest that stands there.
///
/// # Errors
/// [`FilesError`]: among others, the manifest is gone though it or its files are known.
pub async fn load_remote<O: Objects>(
    objects: &O,
    user: &UserName,
    case: &CaseName,
    base: Option<&Base>,
) -> Result<Remote, FilesError> {
    let prefix = format!("{user}/{case}/");
    if let Some(base) = base.filter(|base| base.etag.is_some())
        && is_same(objects, prefix.trim_end_matches('/'), base).await?
    {
        return Ok(of_base(base));
    }
    match read_manifest(objects, &prefix).await? {
        Some((meta, bytes)) => of_bytes(objects, &prefix, MANIFEST, meta, bytes).await,
        None => of_listing(objects, &prefix, base).await,
    }
}

/// Whether the manifest of `user/case` is the one that the base mirrors.
pub(super) async fn is_same<O: Objects>(
    objects: &O,
    case: &str,
    base: &Base,
) -> Result<bool, FilesError> {
    let head = objects.head(&format!("{case}/{MANIFEST}")).await?;
    Ok(head.is_some_and(|meta| Some(meta.etag) == base.etag))
}

/// The manifest that a base mirrors.
pub(super) fn of_base(base: &Base) -> Remote {
    let files = base.files.iter().map(|(path, entry)| {
        let row = ManifestEntry {
            sha256: entry.sha256,
            size: Some(entry.size),
            mode: Some(entry.mode),
            mtime_ns: Some(entry.mtime_ns),
            storage_key: entry.storage_key.clone(),
        };
        (path.clone(), row)
    });
    Remote { etag: base.etag.clone(), files: files.collect(), tree: Some(base.tree.clone()) }
}

/// The manifest's bytes; `None` if it is proven not to be there.
pub(super) async fn read_manifest<O: Objects>(
    objects: &O,
    prefix: &str,
) -> Result<Option<(ObjectMeta, Vec<u8>)>, FilesError> {
    read(objects, prefix, MANIFEST).await
}

/// A small object, with its bounds; `None`: it is proven not to be there.
pub(in crate::apply) async fn read<O: Objects>(
    objects: &O,
    prefix: &str,
    key: &str,
) -> Result<Option<(ObjectMeta, Vec<u8>)>, FilesError> {
    let full = format!("{prefix}{key}");
    let (meta, body) = match objects.get(&full).await {
        Ok(found) => found,
        Err(error) if error.kind == StoreErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let too_large = || invalid(prefix, key, BadManifest::TooLarge);
    if meta.size > MAX_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(meta.size as usize);
    let read = body.take(MAX_BYTES + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| broken("get", &full, &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    Ok(Some((meta, bytes)))
}

fn invalid(prefix: &str, key: &str, why: BadManifest) -> FilesError {
    let case = prefix.trim_end_matches('/').to_owned();
    FilesError::ManifestInvalid { case, key: key.to_owned(), why }
}

/// A body that ended early is a store that was not reached, unless the store says otherwise.
pub(super) fn broken(operation: &'static str, key: &str, error: &std::io::Error) -> StoreError {
    let said = error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>());
    if let Some(said) = said {
        return said.clone();
    }
    let message = format!("the answer broke off: {error}");
    StoreError { kind: StoreErrorKind::Unavailable, operation, key: key.to_owned(), message }
}

/// What a manifest's bytes say, with its tree.
pub(super) async fn of_bytes<O: Objects>(
    objects: &O,
    prefix: &str,
    key: &str,
    meta: ObjectMeta,
    bytes: Vec<u8>,
) -> Result<Remote, FilesError> {
    // What it says takes several times the memory of its text, which is dropped by then.
    let read_rows = |bytes: Vec<u8>| (tree_key(&bytes), parse_manifest(&bytes));
    let (tree_key, files) = apart(bytes, read_rows).await?;
    let files = files.map_err(|why| invalid(prefix, key, why))?;
    let tree = match read(objects, prefix, &tree_key).await? {
        Some((_, bytes)) => {
            let tree = apart(bytes, |bytes| parse_tree(&bytes)).await?;
            Some(tree.map_err(|why| invalid(prefix, &tree_key, why))?)
        }
        None => None,
    };
    Ok(Remote { etag: Some(meta.etag), files, tree })
}

/// Reads a text; a long one not on the threads on which everybody waits.
pub(in crate::apply) async fn apart<T: Send + 'static>(
    bytes: Vec<u8>,
    read: impl FnOnce(Vec<u8>) -> T + Send + 'static,
) -> Result<T, FilesError> {
    if bytes.len() <= INLINE {
        return Ok(read(bytes));
    }
    let read = tokio::task::spawn_blocking(move || read(bytes)).await;
    read.map_err(|error| {
        let (kind, message) = (StoreErrorKind::Unavailable, error.to_string());
        StoreError { kind, operation: "read", key: MANIFEST.to_owned(), message }.into()
    })
}

/// No manifest: there never was one, or it is gone.
async fn of_listing<O: Objects>(
    objects: &O,
    prefix: &str,
    base: Option<&Base>,
) -> Result<Remote, FilesError> {
    let gone = |why: String| {
        let case = prefix.trim_end_matches('/').to_owned();
        Err(FilesError::ManifestGone { case, why })
    };
    if !objects.list(&format!("{prefix}{MANIFESTS}")).await?.is_empty() {
        return gone("earlier ones are kept under manifests/".to_owned());
    }
    if base.is_some_and(|base| base.etag.is_some()) {
        return gone("there was one at the last sync".to_owned());
    }
    let listed = objects.list(&format!("{prefix}{FILES}")).await?;
    let relative =
        listed.iter().filter_map(|meta| Some((meta.key.strip_prefix(prefix)?, meta.size)));
    let files = parse_bare(relative).map_err(|why| invalid(prefix, FILES, why))?;
    let missing =
        base.map_or(0, |base| base.files.keys().filter(|path| !files.contains_key(path)).count());
    if missing > 0 {
        return gone(format!("{missing} known files are not in the listing either"));
    }
    Ok(Remote { etag: None, files, tree: None })
}

impl<W: Workspaces, O: Objects, C: Clock> Work<'_, W, O, C> {
    /// Whether what the store has may have come of what was agreed on last. A manifest of docket's
    /// that neither replaced that one nor another's manifest was written over it by a store whose conditional writes are
    /// none when two of them meet: what it does not name is not deleted, it was never heard of.
    pub(super) async fn descends(&self, remote: &Remote, base: &Base) -> Result<bool, FilesError> {
        let Some(etag) = &base.etag else { return Ok(true) };
        // Others' manifests have no tree, and they keep none that they replace.
        if remote.etag == base.etag || remote.tree.is_none() {
            return Ok(true);
        }
        let listed = self.objects.list(&self.key(MANIFESTS)).await?;
        let keys = || listed.iter().map(|meta| meta.key.as_str());
        if is_kept(etag, keys()) || self.is_anothers(keys().max()).await? {
            return Ok(true);
        }
        let case = self.case();
        tracing::warn!(%case, "the manifest was written over the one before by who did not know it; nothing is deleted");
        Ok(false)
    }

    /// Whether a kept manifest is none of docket's: who wrote that kept none that he replaced.
    async fn is_anothers(&self, kept: Option<&str>) -> Result<bool, FilesError> {
        let prefix = format!("{}/", self.case());
        let Some(key) = kept.and_then(|key| key.strip_prefix(&prefix)) else { return Ok(false) };
        let Some((_, bytes)) = read(self.objects, &prefix, key).await? else { return Ok(false) };
        let tree = apart(bytes, |bytes| tree_key(&bytes)).await?;
        Ok(self.objects.head(&self.key(&tree)).await?.is_none())
    }

    /// Refuses a manifest that names what another case has, before anything is done with it. Only
    /// whether this case has such an object is asked, never whether another has.
    pub(super) async fn refuse_anothers(
        &self,
        remote: &Remote,
        base: &Base,
    ) -> Result<(), FilesError> {
        for (path, row) in &remote.files {
            let key = &row.storage_key;
            let known = base.files.get(path).is_some_and(|entry| entry.storage_key == *key);
            if known || !reads_like_anothers(key) {
                continue;
            }
            if self.objects.head(&self.key(key)).await?.is_none() {
                let prefix = format!("{}/", self.case());
                return Err(invalid(&prefix, MANIFEST, foreign_row(path, key)));
            }
        }
        Ok(())
    }

    /// Asks for the sizes that a foreign manifest left out. A missing object stays without one:
    /// fetching it will say so.
    pub(super) async fn fill_sizes(&self, remote: &mut Remote) -> Result<(), FilesError> {
        let unknown: Vec<(RelPath, String)> = remote
            .files
            .iter()
            .filter(|(_, row)| row.size.is_none())
            .map(|(path, row)| (path.clone(), self.key(&row.storage_key)))
            .collect();
        let mut waiting = unknown.into_iter();
        let mut asking = Abreast::new(self.bounds.turns);
        loop {
            while waiting.len() > 0 && asking.has_room().await {
                let Some((path, key)) = waiting.next() else { break };
                asking.begin(self.ask_size(path, key));
            }
            let Some((path, head)) = asking.next().await else { return Ok(()) };
            if let Some(row) = remote.files.get_mut(&path) {
                row.size = head?.map(|meta| meta.size);
            }
        }
    }

    async fn ask_size(
        &self,
        path: RelPath,
        key: String,
    ) -> (RelPath, Result<Option<ObjectMeta>, StoreError>) {
        let head = self.objects.head(&key).await;
        (path, head)
    }

    /// Gives lazy files a time that a foreign manifest left out, for a placeholder has one from
    /// the start: that of what stands here already, else when the object was written, else now.
    /// One listing says it of all.
    pub(super) async fn fill_times(&self, remote: &mut Remote, scan: &Scan, base: &Base) {
        let mut unknown = Vec::new();
        for (path, row) in &mut remote.files {
            if row.mtime_ns.is_some() || !row.size.is_some_and(|size| self.is_lazy(size)) {
                continue;
            }
            let known = base.files.get(path).filter(|known| known.storage_key == row.storage_key);
            let here = match scan.entries.get(path).map(|entry| &entry.kind) {
                Some(LocalKind::Placeholder { row: Some(own), .. }) => Some(own),
                _ => None,
            };
            let here = here.filter(|own| own.storage_key == row.storage_key);
            row.mtime_ns = known.map(|known| known.mtime_ns).or(here.and_then(|own| own.mtime_ns));
            if row.mtime_ns.is_none() {
                unknown.push(path.clone());
            }
        }
        if unknown.is_empty() {
            return;
        }
        let listed =
            self.objects.list(&format!("{}/", self.case())).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "when objects were written is not known");
                Vec::new()
            });
        let written: BTreeMap<&str, Timestamp> =
            listed.iter().filter_map(|meta| Some((&*meta.key, meta.modified?))).collect();
        for path in unknown {
            let Some(row) = remote.files.get_mut(&path) else { continue };
            let at = written.get(&*self.key(&row.storage_key)).copied();
            row.mtime_ns = at.unwrap_or_else(|| self.clock.now()).timestamp_nanos_opt();
        }
    }

    /// Reads contents whose sum a foreign manifest left out, where a file of that size stands
    /// here and nothing else can tell whether they are the same.
    pub(super) async fn fill_sums(
        &self,
        remote: &mut Remote,
        scan: &Scan,
        base: &Base,
    ) -> Result<(), FilesError> {
        let mut sums: BTreeMap<RelPath, Sha256> = BTreeMap::new();
        for (path, row) in &remote.files {
            let here = scan.entries.get(path).map(|entry| &entry.kind);
            let Some(LocalKind::File { stamp, sha256 }) = here else { continue };
            // Where one side is as it was, the other decides.
            let known = base.files.get(path).is_some_and(|entry| {
                entry.sha256.is_some()
                    && (entry.storage_key == row.storage_key || entry.sha256 == *sha256)
            });
            if row.sha256.is_some() || known || row.size != Some(stamp.size) {
                continue;
            }
            let key = self.key(&row.storage_key);
            match self.objects.get(&key).await {
                Ok((_, body)) => {
                    let sum = sum_of(body).await.map_err(|error| broken("get", &key, &error))?;
                    sums.insert(path.clone(), sum);
                }
                Err(error) if error.kind == StoreErrorKind::NotFound => (),
                Err(error) => return Err(error.into()),
            }
        }
        for (path, sum) in sums {
            if let Some(row) = remote.files.get_mut(&path) {
                row.sha256 = Some(sum);
            }
        }
        Ok(())
    }
}

async fn sum_of(mut body: impl AsyncRead + Unpin) -> std::io::Result<Sha256> {
    let mut sum = sha2::Sha256::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match body.read(&mut chunk).await? {
            0 => return Ok(Sha256(sum.finalize().into())),
            read => sum.update(&chunk[..read]),
        }
    }
}
