//! One open store: sled, the sum of all that is in it, and the syncs that sled leaves out.
//!
//! - Every batch carries a new `meta`: how many keys there are and the sum of their digests. It is
//!   kept up by what changed, and worked out over all at open. A store whose keys do not add up is
//!   damaged, whatever sled says.
//! - `epoch`, a file beside sled's, holds the number of the last acknowledged batch. It is written
//!   after the batch is durable and not synced, so it is never ahead of the truth: a store that is
//!   behind it lost what was acknowledged, even if it adds up.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::fault::{Fault, guarded};
use super::format::{self, Changes, META, Meta, STORE_VERSION};
use super::home::sync_store;

/// Bytes of pages that sled may keep in memory.
const CACHE: u64 = 32 * 1024 * 1024;
/// How often sled's own thread tidies its file, and syncs it whether or not anything was written.
/// Each write here is made sure by itself, so nothing waits for that.
const TIDY_MILLIS: u64 = 10_000;
/// Keys of a batch while a store is copied.
const COPIED_AT_ONCE: usize = 1024;
/// How long a store that was just closed may take to let go of its file.
const LET_GO: Duration = Duration::from_secs(5);

/// Keys and their digests, without `meta`.
pub(super) type Sums = BTreeMap<Vec<u8>, u128>;

/// A store that adds up.
#[derive(Debug)]
pub(super) struct Store {
    db: sled::Db,
    /// sled's file, for the syncs.
    file: File,
    epoch: File,
    /// What is acknowledged.
    pub sums: Sums,
    meta: Meta,
    /// A sync failed since the store was opened: the kernel may have dropped what was not on the
    /// disk, and holds it for clean.
    unsynced: bool,
    #[cfg(test)]
    pub refuse_sync: bool,
}

/// A batch that was not kept; what its keys held before, should it have reached the disk.
#[derive(Debug)]
pub(super) struct NotKept {
    pub fault: Fault,
    pub before: Changes,
}

impl Store {
    /// Makes a store with first facts in an empty directory. It is not synced yet.
    pub(super) fn make(path: &Path, facts: &[(&str, &[u8])]) -> Result<(), Fault> {
        let db = open_sled(path)?;
        let meta = Meta { version: STORE_VERSION, epoch: 0, count: 0, sum: 0 };
        let mut store = Store::attach(db, path, Sums::new(), meta)?;
        let parts = facts.iter().flat_map(|(name, value)| format::parts(name, value));
        let changes = parts.map(|(key, value)| (key, Some(value))).collect();
        store.write(&changes).map_err(|not_kept| not_kept.fault)
    }

    /// Opens a store and adds it up.
    ///
    /// # Errors
    /// [`Fault::Damage`] if it is not what was acknowledged; others if that could not be told.
    pub(super) fn open(path: &Path) -> Result<Store, Fault> {
        if !std::fs::metadata(path).map_err(Fault::at(path))?.is_dir() {
            return Err(Fault::Damage("it is no directory".to_owned()));
        }
        let db = open_sled(path)?;
        let (sums, meta) = guarded(|| add_up(&db))?;
        let store = Store::attach(db, path, sums, meta)?;
        let told = read_epoch(&store.epoch).unwrap_or(0);
        if told > store.meta.epoch {
            return Err(Fault::Damage(format!(
                "batch {told} was acknowledged, and what is there ends at {}",
                store.meta.epoch
            )));
        }
        // What was found may be in the page cache only.
        sync_store(path)?;
        Ok(store)
    }

    fn attach(db: sled::Db, path: &Path, sums: Sums, meta: Meta) -> Result<Store, Fault> {
        let file = path.join("db");
        let file = File::open(&file).map_err(Fault::at(&file))?;
        let epoch = path.join("epoch");
        let epoch = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&epoch)
            .map_err(Fault::at(&epoch))?;
        Ok(Store {
            db,
            file,
            epoch,
            sums,
            meta,
            unsynced: false,
            #[cfg(test)]
            refuse_sync: false,
        })
    }

    /// Keeps changes as a whole, through power loss.
    pub(super) fn write(&mut self, changes: &Changes) -> Result<(), NotKept> {
        let before = guarded(|| self.held(changes))
            .map_err(|fault| NotKept { fault, before: Changes::new() })?;
        let mut meta = self.meta.clone();
        meta.epoch += 1;
        let mut new = Vec::new();
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            let digest = value.as_ref().map(|value| format::digest(key, value));
            let known = self.sums.get(key).copied();
            if known == digest {
                continue;
            }
            if let Some(known) = known {
                meta.sum = meta.sum.wrapping_sub(known);
                meta.count -= 1;
            }
            if let Some(digest) = digest {
                meta.sum = meta.sum.wrapping_add(digest);
                meta.count += 1;
            }
            match value {
                Some(value) => batch.insert(&key[..], &value[..]),
                None => batch.remove(&key[..]),
            }
            new.push((key, digest));
        }
        let text = serde_json::to_vec(&meta).unwrap_or_default();
        batch.insert(META, text);
        let kept = guarded(|| self.hand_over(batch)).and_then(|()| {
            crate::crash::point(crate::crash::Side::Amid, crate::crash::Effect::Commit);
            self.sync()
        });
        if let Err(fault) = kept {
            return Err(NotKept { fault, before });
        }
        for (key, digest) in new {
            match digest {
                Some(digest) => self.sums.insert(key.clone(), digest),
                None => self.sums.remove(key),
            };
        }
        self.meta = meta;
        // A hint that is only ever behind: losing it loses a check, not a fact.
        let _unwritten =
            self.epoch.write_all_at(format!("{:020}\n", self.meta.epoch).as_bytes(), 0);
        Ok(())
    }

    /// What keys hold now.
    fn held(&self, changes: &Changes) -> Result<Changes, Fault> {
        let held = |key: &Vec<u8>| Ok((key.clone(), self.db.get(key)?.map(|it| it.to_vec())));
        changes.keys().map(held).collect()
    }

    fn hand_over(&self, batch: sled::Batch) -> Result<(), Fault> {
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        Ok(())
    }

    /// sled's flush asks the kernel to write, not the disk to keep.
    fn sync(&mut self) -> Result<(), Fault> {
        let synced = self.file.sync_all();
        #[cfg(test)]
        let synced = if self.refuse_sync { Err(std::io::ErrorKind::Other.into()) } else { synced };
        self.unsynced |= synced.is_err();
        synced.map_err(Fault::at(Path::new("the store's file")))
    }

    /// Whether something written here may never reach the disk, though reading shows it. The
    /// kernel tells each descriptor once that a write behind its back failed.
    pub(super) fn may_have_dropped(&mut self) -> bool {
        self.unsynced || self.sync().is_err()
    }

    /// Everything in it as changes to an empty store.
    pub(super) fn everything(&self) -> Result<Changes, Fault> {
        let entry = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = entry?;
            Ok((key.to_vec(), Some(value.to_vec())))
        };
        let all: Result<Changes, Fault> = guarded(|| self.db.iter().map(entry).collect());
        let mut all = all?;
        all.remove(META);
        Ok(all)
    }

    /// Makes a store of the same contents in an empty directory, in files that no failed write
    /// was ever made to.
    pub(super) fn copy_to(&self, path: &Path, contents: &Changes) -> Result<(), Fault> {
        let meta = Meta { epoch: self.meta.epoch, count: 0, sum: 0, ..self.meta };
        let mut copy = Store::attach(open_sled(path)?, path, Sums::new(), meta)?;
        let mut all = contents.iter().map(|(key, value)| (key.clone(), value.clone()));
        loop {
            let some: Changes = all.by_ref().take(COPIED_AT_ONCE).collect();
            copy.write(&some).map_err(|not_kept| not_kept.fault)?;
            if some.len() < COPIED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// One value, if there is one.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let all = self.all(&format::stem(name))?;
        Ok(all.into_values().next())
    }

    /// All values whose keys begin so, by name.
    pub(super) fn all(&self, prefix: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, Fault> {
        guarded(|| {
            let mut parts: BTreeMap<String, Vec<(u32, sled::IVec)>> = BTreeMap::new();
            for entry in self.db.scan_prefix(prefix) {
                let (key, value) = entry?;
                let Some((name, number)) = format::name_of(&key) else {
                    return Err(Fault::Damage(format!("{key:?} is no key of docket's")));
                };
                parts.entry(name.to_owned()).or_default().push((number, value));
            }
            let join = |(name, parts): (String, Vec<(u32, sled::IVec)>)| {
                let whole = format::whole(parts.iter().map(|(number, part)| (*number, &part[..])));
                match whole {
                    Some(whole) => Ok((name, whole)),
                    None => Err(Fault::Damage(format!("{name} is not whole"))),
                }
            };
            parts.into_iter().map(join).collect()
        })
    }
}

/// Opens sled. A store that was closed a moment ago may still hold its file.
fn open_sled(path: &Path) -> Result<sled::Db, Fault> {
    let begun = Instant::now();
    loop {
        let config = sled::Config::new().path(path).cache_capacity(CACHE);
        let config = config.flush_every_ms(Some(TIDY_MILLIS));
        let opened = guarded(|| Ok(config.open()?));
        match opened {
            Err(Fault::System(text))
                if text.contains("could not acquire lock") && begun.elapsed() < LET_GO =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

/// Works out the sum of all keys and compares it with what was written.
fn add_up(db: &sled::Db) -> Result<(Sums, Meta), Fault> {
    let mut sums = Sums::new();
    let mut found = None;
    let mut sum = 0_u128;
    for entry in db.iter() {
        let (key, value) = entry?;
        if &key[..] == META {
            found = Some(value);
            continue;
        }
        let digest = format::digest(&key, &value);
        sum = sum.wrapping_add(digest);
        sums.insert(key.to_vec(), digest);
    }
    let Some(found) = found else {
        return Err(Fault::Damage(format!("it has no sum of its {} keys", sums.len())));
    };
    let meta: Meta = serde_json::from_slice(&found)
        .map_err(|error| Fault::Damage(format!("its sum cannot be read: {error}")))?;
    if meta.version > STORE_VERSION {
        let version = meta.version;
        return Err(Fault::System(format!(
            "its format {version} is of a newer docket, this one knows up to {STORE_VERSION}: \
             start the newer one"
        )));
    }
    if meta.count != sums.len() as u64 || meta.sum != sum {
        let (count, there) = (meta.count, sums.len());
        return Err(Fault::Damage(format!(
            "{count} keys were written and {there} are there, or not as written"
        )));
    }
    Ok((sums, meta))
}

fn read_epoch(file: &File) -> Option<u64> {
    let mut text = [0; 20];
    file.read_exact_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text).ok()?.parse().ok()
}
