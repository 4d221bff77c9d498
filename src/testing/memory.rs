//! A ledger in memory: what a commit kept is there after the process was cut, nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::{Base, Record, Uid};
use crate::world::{Contents, Ledger, LedgerError, REBUILT, Write};

/// The durable half; an operator's memory is the other.
#[derive(Debug, Default)]
pub struct MemoryLedger(Mutex<Kept>);

/// The sessions a batch is about.
fn about(batch: &[Write]) -> Vec<Uid> {
    let uid = |write: &Write| match write {
        Write::Record(record) => Some(record.uid.clone()),
        Write::DropRecord(uid) | Write::Base(uid, _) => Some(uid.clone()),
        _ => None,
    };
    batch.iter().filter_map(uid).collect()
}

#[derive(Debug, Default)]
struct Kept {
    contents: Contents,
    bases: BTreeMap<Uid, Base>,
    doubtful: BTreeSet<Uid>,
}

impl MemoryLedger {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records that would be there after a restart.
    pub fn records(&self) -> BTreeMap<Uid, Record> {
        self.kept().contents.records.clone()
    }

    /// Runs over the records without copying them.
    pub fn with_records<T>(&self, look: impl FnOnce(&BTreeMap<Uid, Record>) -> T) -> T {
        look(&self.kept().contents.records)
    }

    /// A batch was answered with an error, or not: what the asker knows of these records may, or
    /// must, be what is kept.
    pub fn answered(&self, batch: &[Write], with_error: bool) {
        let mut kept = self.kept();
        for uid in about(batch) {
            if with_error {
                kept.doubtful.insert(uid);
            } else {
                kept.doubtful.remove(&uid);
            }
        }
    }

    /// The records whose last batch was answered with an error.
    pub fn doubtful(&self) -> BTreeSet<Uid> {
        self.kept().doubtful.clone()
    }

    /// The state directory is lost: the next load finds nothing and says so.
    pub fn lose(&self) {
        let mut kept = self.kept();
        *kept = Kept::default();
        kept.contents.rebuilt = Some("the store was empty".to_owned());
    }
}

impl Ledger for MemoryLedger {
    async fn load(&self) -> Result<Contents, LedgerError> {
        Ok(self.kept().contents.clone())
    }

    async fn commit(&self, batch: Vec<Write>) -> Result<(), LedgerError> {
        let mut kept = self.kept();
        for write in batch {
            let Kept { contents, bases, .. } = &mut *kept;
            match write {
                Write::Record(record) => {
                    contents.records.insert(record.uid.clone(), *record);
                }
                Write::DropRecord(uid) => {
                    contents.records.remove(&uid);
                    bases.remove(&uid);
                }
                Write::Base(uid, base) => {
                    bases.insert(uid, *base);
                }
                Write::Applied(key, text) => {
                    contents.applied.insert(key, text);
                }
                Write::DropApplied(key) => {
                    contents.applied.remove(&key);
                }
                Write::Fact(key, text) => {
                    if key == REBUILT {
                        contents.rebuilt = None;
                    }
                    contents.facts.insert(key, text);
                }
                Write::Event(event) => {
                    contents.events.push(event);
                    contents.events.sort_by_key(|event| event.seq);
                    let over = contents.events.len().saturating_sub(2000);
                    contents.events.drain(..over);
                }
            }
        }
        Ok(())
    }

    async fn base(&self, uid: &Uid) -> Result<Option<Base>, LedgerError> {
        Ok(self.kept().bases.get(uid).cloned())
    }
}
