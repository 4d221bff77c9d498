//! `docket gc`: removes what no state needs any more, and nothing that anybody may need. Of each
//! case:
//!
//! 1. Nothing commits to it meanwhile: its lane is held.
//! 2. Kept manifests that were replaced long ago go, the newest never.
//! 3. Contents and trees go that docket wrote, long ago, and that neither a manifest that stays
//!    nor the index of a session names.
//!
//! A case whose manifest is missing, or one of whose manifests cannot be read, is left alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{CaseName, Timestamp, UserName};
use crate::sync::{
    Aged, MANIFEST, Own, garbage, has_manifest, old_manifests, parse_manifest, split_key, tree_key,
};
use crate::world::{Clock, Ledger, ObjectMeta, Objects};

use super::execute::{Doors, StepError};
use super::files::{FilesError, apart, read_small};

/// Keys of one case, relative to it, that something needs.
type Needed = BTreeSet<String>;

/// An object that goes, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Its full key.
    pub key: String,
    /// Its bytes.
    pub size: u64,
    /// When it was written.
    pub written: Option<Timestamp>,
}

/// What a collection found.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// What goes, by key.
    pub garbage: Vec<Garbage>,
    /// Cases that were left alone, and why.
    pub left: BTreeMap<String, String>,
}

/// Finds, and unless `dry` removes, what was written before `cut` and is needed by nothing.
///
/// # Errors
/// The store's or the ledger's: what was removed until then was garbage.
pub async fn collect<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    cut: Timestamp,
    dry: bool,
) -> Result<Collected, StepError>
where
    O: Objects,
    L: Ledger,
    C: Clock,
{
    let mut all = Collected::default();
    for (user, case) in cases(&doors.objects).await? {
        let _turn = doors.lanes.case(&user, &case).await;
        let named = format!("{user}/{case}");
        match of_case(doors, &user, &case, cut).await? {
            Ok(garbage) if garbage.is_empty() => (),
            Ok(garbage) => {
                if !dry {
                    for one in &garbage {
                        doors.objects.delete(&one.key).await.map_err(FilesError::from)?;
                    }
                    let bytes: u64 = garbage.iter().map(|one| one.size).sum();
                    let said = format!("{named}: {} objects, {bytes} bytes", garbage.len());
                    doors.book.event(doors.clock.now(), None, false, "Collected", said);
                }
                all.garbage.extend(garbage);
            }
            Err(why) => drop(all.left.insert(named, why)),
        }
    }
    Ok(all)
}

/// Cases that something of docket's own lies in.
async fn cases<O: Objects>(objects: &O) -> Result<BTreeSet<(UserName, CaseName)>, StepError> {
    let listed = objects.list("").await.map_err(FilesError::from)?;
    let own = listed.iter().filter_map(|meta| split_key(&meta.key));
    Ok(own
        .filter(|(_, _, key)| Own::of(key).is_some())
        .map(|(user, case, _)| (user, case))
        .collect())
}

/// What goes of one case, manifests first: a state that is still named never lacks contents. Or
/// why nothing does.
async fn of_case<E, O, W, L, C>(
    doors: &Doors<E, O, W, L, C>,
    user: &UserName,
    case: &CaseName,
    cut: Timestamp,
) -> Result<Result<Vec<Garbage>, String>, StepError>
where
    O: Objects,
    L: Ledger,
{
    let prefix = format!("{user}/{case}/");
    let listed = doors.objects.list(&prefix).await.map_err(FilesError::from)?;
    let aged: Vec<Aged<'_>> = listed
        .iter()
        .filter_map(|meta| Some((meta.key.strip_prefix(&prefix)?, meta.modified)))
        .collect();
    if !has_manifest(&aged) {
        return Ok(Err("it has no manifest: its objects may be its files".to_owned()));
    }
    let old = old_manifests(&aged, cut);
    let kept = aged.iter().map(|(key, _)| *key).filter(|key| {
        *key == MANIFEST || (Own::of(key) == Some(Own::Manifest) && !old.contains(key))
    });
    let mut needed = Needed::new();
    for key in kept {
        if let Err(why) = named_by(&doors.objects, &prefix, key, &mut needed).await? {
            return Ok(Err(format!("{key} cannot be read: {why}")));
        }
    }
    for record in doors.book.by_name().values() {
        if (&record.user, &record.case) == (user, case)
            && let Some(base) = doors.book.base(&record.uid).await?
        {
            needed.extend(base.files.into_values().map(|entry| entry.storage_key));
        }
    }
    let rest = garbage(&aged, &needed, cut);
    let by_key: BTreeMap<&str, &ObjectMeta> =
        listed.iter().filter_map(|meta| Some((meta.key.strip_prefix(&prefix)?, meta))).collect();
    let going = old.iter().chain(&rest).filter_map(|key| by_key.get(key));
    Ok(Ok(going
        .map(|meta| Garbage { key: meta.key.clone(), size: meta.size, written: meta.modified })
        .collect()))
}

/// Adds what a manifest names, its tree too.
async fn named_by<O: Objects>(
    objects: &O,
    prefix: &str,
    key: &str,
    needed: &mut Needed,
) -> Result<Result<(), String>, StepError> {
    let bytes = match read_small(objects, prefix, key).await {
        Ok(Some((_, bytes))) => bytes,
        Ok(None) => return Ok(Err("it went away meanwhile".to_owned())),
        Err(FilesError::ManifestInvalid { why, .. }) => return Ok(Err(why.to_string())),
        Err(error) => return Err(error.into()),
    };
    let (tree, rows) = apart(bytes, |bytes| (tree_key(&bytes), parse_manifest(&bytes))).await?;
    let rows = match rows {
        Ok(rows) => rows,
        Err(why) => return Ok(Err(why.to_string())),
    };
    needed.extend(rows.into_values().map(|row| row.storage_key));
    needed.insert(tree);
    Ok(Ok(()))
}
