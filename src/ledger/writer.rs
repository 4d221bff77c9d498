//! The one thread that touches the store. Batches that wait while a sync runs share the next one.
//!
//! A batch that failed is undone before anything else is written, so that what callers were told
//! is what is kept. While the store takes no writes, reads go on; with each further batch it is
//! tried whether the disk is well again, and the store opened anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::fault::Fault;
use super::format::{self, Changes, Fact, Read};
use super::home::Home;
use super::store::{Store, Sums};
use crate::crash::{self, Effect, Side};
use crate::model::{Base, Uid};
use crate::world::{Contents, LedgerError, Write};

/// Batches that share one sync at most, so that the first of them is not kept waiting.
const GROUP: usize = 512;
/// Events that are kept.
const RING: usize = 2000;
/// Events over that before the oldest are dropped.
const SLACK: usize = 200;

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// What is asked of the thread.
#[derive(Debug)]
pub(super) enum Ask {
    Commit(Vec<Write>, Reply<()>),
    Base(Uid, Reply<Option<Base>>),
    Load(Reply<Contents>),
}

/// The thread's own.
#[derive(Debug)]
pub(super) struct Writer {
    // The store goes before the lock does.
    store: Option<Store>,
    /// A write failed: what was acknowledged by then, and what is to be undone.
    trouble: Option<Trouble>,
    /// Records that this program does not understand: held as they are.
    unknown: BTreeSet<String>,
    syncs: Arc<AtomicU64>,
    home: Home,
}

#[derive(Debug)]
struct Trouble {
    acknowledged: Sums,
    undo: Changes,
    /// What is read back may not be on the disk: all of it is to be written anew.
    dropped: bool,
}

impl Writer {
    pub(super) fn new(home: Home, store: Store, syncs: Arc<AtomicU64>) -> Writer {
        Writer { store: Some(store), trouble: None, unknown: BTreeSet::new(), syncs, home }
    }

    /// Answers until nobody can ask any more.
    pub(super) fn run(mut self, mut asks: mpsc::UnboundedReceiver<Ask>) {
        let mut next = None;
        while let Some(ask) = next.take().or_else(|| asks.blocking_recv()) {
            match ask {
                Ask::Commit(batch, reply) => {
                    let mut group = vec![(batch, reply)];
                    while group.len() < GROUP && next.is_none() {
                        match asks.try_recv() {
                            Ok(Ask::Commit(batch, reply)) => group.push((batch, reply)),
                            // Who waits for none of these batches may read before them.
                            Ok(Ask::Base(uid, reply)) => drop(reply.send(self.base(&uid))),
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    self.commit(group);
                }
                // Who no longer waits is not told.
                Ask::Base(uid, reply) => drop(reply.send(self.base(&uid))),
                Ask::Load(reply) => drop(reply.send(self.load())),
            }
        }
    }

    fn commit(&mut self, group: Vec<(Vec<Write>, Reply<()>)>) {
        let mut facts = Vec::new();
        let mut waiting = Vec::new();
        for (batch, reply) in group {
            // Whoever gave up was told nothing: nothing of it is begun.
            if reply.is_closed() {
                continue;
            }
            match format::facts(batch).and_then(|facts| self.touches_unknown(facts)) {
                Ok(more) => {
                    facts.extend(more);
                    waiting.push(reply);
                }
                Err(message) => {
                    let error = LedgerError { operation: "write", message, no_space: false };
                    drop(reply.send(Err(error)));
                }
            }
        }
        if waiting.is_empty() {
            return;
        }
        crash::point(Side::Before, Effect::Commit);
        let kept = self.keep(facts).map_err(|fault| fault.during("write"));
        if let Err(error) = &kept {
            tracing::error!(%error, "nothing can be remembered; no session is changed meanwhile");
        }
        crash::point(Side::After, Effect::Commit);
        for reply in waiting {
            drop(reply.send(kept.clone()));
        }
    }

    /// A record of a newer format is neither replaced nor dropped.
    fn touches_unknown(&self, facts: Vec<Fact>) -> Result<Vec<Fact>, String> {
        match facts.iter().find(|fact| self.unknown.contains(fact.name())) {
            Some(fact) => Err(format!("{} is of a newer format and held", fact.name())),
            None => Ok(facts),
        }
    }

    pub(super) fn keep(&mut self, facts: Vec<Fact>) -> Result<(), Fault> {
        let bytes: usize = facts.iter().map(Fact::size).sum();
        self.home.has_space(3 * bytes as u64)?;
        if self.trouble.is_some() {
            self.heal()?;
        }
        let Some(store) = &mut self.store else {
            return Err(Fault::System("the store is not open".to_owned()));
        };
        let changes = changes(&store.sums, facts);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        store.write(&changes).map_err(|not_kept| {
            let acknowledged = store.sums.clone();
            self.trouble = Some(Trouble { acknowledged, undo: not_kept.before, dropped: false });
            not_kept.fault
        })
    }

    /// Opens the store anew after a failed write, and undoes that write. After a failed sync that
    /// is not enough: what the kernel dropped looks as if it were kept until the power goes, and
    /// then takes along what was written after it. So all is written to new files.
    pub(super) fn heal(&mut self) -> Result<(), Fault> {
        self.home.try_disk()?;
        let Some(trouble) = &mut self.trouble else { return Ok(()) };
        if let Some(mut old) = self.store.take() {
            trouble.dropped |= old.may_have_dropped();
        }
        let mut store = Store::open(&self.home.db())?;
        let differs = |key: &&Vec<u8>| trouble.acknowledged.get(*key) != store.sums.get(*key);
        let all = trouble.acknowledged.keys().chain(store.sums.keys());
        if let Some(lost) = all.filter(differs).find(|key| !trouble.undo.contains_key(*key)) {
            let name = format::name_of(lost).map_or("", |(name, _)| name);
            return Err(Fault::Damage(format!("{name} is not as acknowledged; restart docket")));
        }
        if trouble.dropped {
            let mut contents = store.everything()?;
            for (key, value) in &trouble.undo {
                match value {
                    Some(_) => contents.insert(key.clone(), value.clone()),
                    None => contents.remove(key),
                };
            }
            let bytes: usize = contents
                .iter()
                .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
                .sum();
            self.home.has_space(3 * bytes as u64)?;
            self.home.remake_db(|path| store.copy_to(path, &contents))?;
            drop(store);
            self.home.drop_making()?;
            store = Store::open(&self.home.db())?;
        } else {
            store.write(&trouble.undo).map_err(|not_kept| not_kept.fault)?;
        }
        self.store = Some(store);
        self.trouble = None;
        tracing::info!("the ledger takes writes again");
        Ok(())
    }

    /// The next syncs fail, or work again.
    #[cfg(test)]
    pub(super) fn refuse_syncs(&mut self, refuse: bool) {
        if let Some(store) = &mut self.store {
            store.refuse_sync = refuse;
        }
    }

    fn open_store(&self) -> Result<&Store, LedgerError> {
        let closed = Fault::System("the store is not open after a failed write".to_owned());
        self.store.as_ref().ok_or_else(|| closed.during("read"))
    }

    fn base(&self, uid: &Uid) -> Result<Option<Base>, LedgerError> {
        let kept = self.open_store()?.get(&format::base_name(uid));
        match kept.map_err(|fault| fault.during("read"))?.map(|bytes| format::base(&bytes)) {
            None => Ok(None),
            Some(Read::Known(base)) => Ok(Some(*base)),
            Some(Read::Unknown(why)) => {
                let message = format!("the sync index of {uid}: {why}");
                Err(LedgerError { operation: "read", message, no_space: false })
            }
        }
    }

    pub(super) fn load(&mut self) -> Result<Contents, LedgerError> {
        let store = self.open_store()?;
        let (contents, unknown) = read_all(store).map_err(|fault| fault.during("read"))?;
        self.unknown = unknown;
        Ok(contents)
    }
}

/// Everything but the sync indexes, and the names of records that are not understood.
fn read_all(store: &Store) -> Result<(Contents, BTreeSet<String>), Fault> {
    let mut contents = Contents::default();
    let mut unknown = BTreeSet::new();
    for (name, bytes) in store.all(format::RECORD.as_bytes())? {
        match format::record(&bytes) {
            Read::Known(record) if format::record_name(&record.uid) == name => {
                contents.records.insert(record.uid.clone(), *record);
            }
            Read::Known(record) => {
                return Err(Fault::Damage(format!("{name} holds {}", record.uid)));
            }
            Read::Unknown(why) => {
                tracing::error!(record = name, why, "a record is not understood: it is held");
                unknown.insert(name.clone());
                contents.unknown.push(name);
            }
        }
    }
    contents.applied = texts(store, format::APPLIED)?;
    contents.facts = texts(store, format::FACT)?;
    let events = store.all(format::EVENT.as_bytes())?.into_values();
    contents.events = events.filter_map(|bytes| format::event(&bytes)).collect();
    let over = contents.events.len().saturating_sub(RING);
    contents.events.drain(..over);
    contents.rebuilt =
        store.get(format::REBUILDING)?.map(|place| String::from_utf8_lossy(&place).into_owned());
    Ok((contents, unknown))
}

fn texts(store: &Store, prefix: &str) -> Result<std::collections::BTreeMap<String, String>, Fault> {
    let all = store.all(prefix.as_bytes())?.into_iter();
    let text = |(name, bytes): (String, Vec<u8>)| {
        let name = name.strip_prefix(prefix).unwrap_or(&name).to_owned();
        match String::from_utf8(bytes) {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(Fault::Damage(format!("{prefix}{name} is not text"))),
        }
    };
    all.map(text).collect()
}

/// What facts in order change, by key, the latest of each; and the oldest events, which go.
fn changes(sums: &Sums, facts: Vec<Fact>) -> Changes {
    let mut changes = Changes::new();
    let mut told = false;
    for fact in facts {
        told |= fact.name().starts_with(format::EVENT);
        drop_parts(sums, &mut changes, fact.name());
        if let Fact::Put(name, value) = fact {
            changes.extend(format::parts(&name, &value).into_iter().map(|(k, v)| (k, Some(v))));
        }
    }
    if told {
        drop_old_events(sums, &mut changes);
    }
    changes
}

fn drop_parts(sums: &Sums, changes: &mut Changes, name: &str) {
    let stem = format::stem(name);
    let there = keys(sums, changes, &stem);
    changes.extend(there.into_iter().map(|key| (key, None)));
}

/// Keys that begin so and are there after the changes.
fn keys(sums: &Sums, changes: &Changes, prefix: &[u8]) -> BTreeSet<Vec<u8>> {
    let from = prefix.to_vec();
    let ours = |key: &&Vec<u8>| key.starts_with(prefix);
    let known = sums.range(from.clone()..).map(|(key, _)| key).take_while(ours);
    let mut keys: BTreeSet<Vec<u8>> = known.cloned().collect();
    for (key, value) in changes.range(from..).take_while(|(key, _)| ours(key)) {
        match value {
            Some(_) => keys.insert(key.clone()),
            None => keys.remove(key),
        };
    }
    keys
}

fn drop_old_events(sums: &Sums, changes: &mut Changes) {
    let prefix = format::EVENT.as_bytes();
    let known = sums.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
    if known.count() + changes.len() <= RING + SLACK {
        return;
    }
    let keys = keys(sums, changes, prefix);
    let names: BTreeSet<&str> =
        keys.iter().filter_map(|key| Some(format::name_of(key)?.0)).collect();
    if names.len() <= RING + SLACK {
        return;
    }
    for name in names.iter().take(names.len() - RING) {
        drop_parts(sums, changes, name);
    }
}
