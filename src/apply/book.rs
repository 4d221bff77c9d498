//! The records in memory and their way into the ledger. A change is visible to others only once
//! it is durable; two changes of one session never overtake each other. Only the time of a sync that
//! found nothing new goes with the next change: should it be lost, the next sync comes early.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::TimeDelta;
use tokio::sync::broadcast;

use crate::model::{Base, Event, Record, SessionName, Timestamp, Uid};
use crate::world::{Contents, Ledger, LedgerError, Write};

/// How many events are kept for `docket events`.
const EVENTS: usize = 2000;
/// Name of the ledger's fact that holds the sessions that are over.
const ENDED: &str = "ended";
/// Name of the ledger's fact that says whose workspaces went into the trash.
const TRASHED: &str = "trashed";
/// How many of them are remembered, and for how long.
const ENDED_KEPT: (usize, TimeDelta) = (256, TimeDelta::days(1));
/// How many of those are remembered.
const TRASHED_KEPT: usize = 1000;
/// A sync that found nothing new is written down when the last that was is so long ago.
const SYNC_KEPT: TimeDelta = TimeDelta::minutes(10);

/// All records, and everything else the ledger keeps.
#[derive(Debug)]
pub struct Book<L> {
    ledger: L,
    slots: Mutex<BTreeMap<Uid, Arc<Slot>>>,
    /// Uids by session name; two only while one of them ends.
    names: Mutex<BTreeMap<SessionName, Vec<Uid>>>,
    /// Records whose admission failed: whether the ledger has them is not known.
    doubtful: Mutex<Vec<Uid>>,
    /// Sessions that are over, and since when, for a day: what still comes of them is removed.
    ended: Mutex<Arc<BTreeMap<Uid, Timestamp>>>,
    /// Whose workspaces went into the trash, newest last.
    trashed: Mutex<Vec<(Uid, String)>>,
    events: Mutex<u64>,
    /// Events that are not in the ledger yet: they go with the next batch.
    unkept: Mutex<Vec<Event>>,
    /// Past events, oldest first; shared with the API.
    pub past: Arc<Mutex<VecDeque<Event>>>,
    /// Events as they happen.
    pub live: broadcast::Sender<Event>,
}

#[derive(Debug)]
struct Slot {
    turn: tokio::sync::Mutex<()>,
    value: Mutex<Option<Arc<Record>>>,
    /// The last sync that the ledger knows of.
    kept_sync: Mutex<Option<Timestamp>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<L: Ledger> Book<L> {
    /// Opens the book with what the ledger kept.
    pub fn new(ledger: L, contents: &Contents) -> Book<L> {
        let mut names: BTreeMap<SessionName, Vec<Uid>> = BTreeMap::new();
        for record in contents.records.values() {
            names.entry(record.name.clone()).or_default().push(record.uid.clone());
        }
        let slots = contents
            .records
            .iter()
            .map(|(uid, record)| (uid.clone(), Arc::new(Slot::holding(record.clone()))))
            .collect();
        let seq = contents.events.last().map_or(0, |event| event.seq);
        let past: VecDeque<Event> = contents.events.iter().cloned().collect();
        Book {
            ledger,
            slots: Mutex::new(slots),
            names: Mutex::new(names),
            doubtful: Mutex::default(),
            ended: Mutex::new(Arc::new(
                contents
                    .facts
                    .get(ENDED)
                    .and_then(|text| serde_json::from_str(text).ok())
                    .unwrap_or_default(),
            )),
            trashed: Mutex::new(
                contents
                    .facts
                    .get(TRASHED)
                    .and_then(|text| serde_json::from_str(text).ok())
                    .unwrap_or_default(),
            ),
            events: Mutex::new(seq),
            unkept: Mutex::default(),
            past: Arc::new(Mutex::new(past)),
            live: broadcast::channel(1024).0,
        }
    }

    /// The ledger itself, for what is not a record.
    pub fn ledger(&self) -> &L {
        &self.ledger
    }

    /// A record by uid.
    pub fn get(&self, uid: &Uid) -> Option<Arc<Record>> {
        locked(&self.slots).get(uid).and_then(|slot| locked(&slot.value).clone())
    }

    /// All records by session name. An ending record and its successor never stand side by side,
    /// so a name is one record; should two be found, the one that is not ending is shown.
    pub fn by_name(&self) -> BTreeMap<SessionName, Arc<Record>> {
        let mut all: BTreeMap<SessionName, Arc<Record>> = BTreeMap::new();
        for slot in locked(&self.slots).values() {
            let Some(record) = locked(&slot.value).clone() else { continue };
            let newer = all.get(&record.name).is_none_or(|known| known.ending.is_some());
            if newer {
                all.insert(record.name.clone(), record);
            }
        }
        all
    }

    /// The record of a session, by name.
    pub fn by_session(&self, name: &SessionName) -> Option<Arc<Record>> {
        let uids = locked(&self.names).get(name).cloned().unwrap_or_default();
        let all = uids.iter().filter_map(|uid| self.get(uid));
        all.min_by_key(|record| record.ending.is_some())
    }

    /// Writes a new record. When this returns, a teardown is owed.
    ///
    /// # Errors
    /// The ledger's: then there is no record. Should the ledger have kept it all the same, the
    /// next admission drops it, so that no session ever has two.
    pub async fn admit(&self, record: Record) -> Result<Arc<Record>, LedgerError> {
        let uid = record.uid.clone();
        let doubtful = std::mem::take(&mut *locked(&self.doubtful));
        let mut batch: Vec<Write> = doubtful.iter().cloned().map(Write::DropRecord).collect();
        batch.push(Write::Record(Box::new(record.clone())));
        if let Err(error) = self.ledger.commit(batch).await {
            let mut all = locked(&self.doubtful);
            all.extend(doubtful);
            all.push(uid);
            return Err(error);
        }
        let record = Arc::new(record);
        let slot = Slot::holding((*record).clone());
        locked(&self.slots).insert(uid.clone(), Arc::new(slot));
        let mut names = locked(&self.names);
        let uids = names.entry(record.name.clone()).or_default();
        if !uids.contains(&uid) {
            uids.push(uid);
        }
        drop(names);
        Ok(record)
    }

    /// Changes a record, and keeps more writes in the same batch. `None`: there is no such record
    /// any more.
    ///
    /// # Errors
    /// The ledger's: then nothing was changed.
    pub async fn update_with(
        &self,
        uid: &Uid,
        more: Vec<Write>,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<Option<Arc<Record>>, LedgerError> {
        let Some(slot) = locked(&self.slots).get(uid).cloned() else { return Ok(None) };
        let _turn = slot.turn.lock().await;
        let Some(before) = locked(&slot.value).clone() else { return Ok(None) };
        let mut after = (*before).clone();
        change(&mut after);
        if after == *before && more.is_empty() {
            return Ok(Some(before));
        }
        if more.is_empty() && slot.may_wait(&before, &after) {
            let after = Arc::new(after);
            *locked(&slot.value) = Some(Arc::clone(&after));
            return Ok(Some(after));
        }
        let mut batch = more;
        batch.push(Write::Record(Box::new(after.clone())));
        batch.extend(self.take_events());
        self.ledger.commit(batch).await?;
        *locked(&slot.kept_sync) = after.last_sync;
        let after = Arc::new(after);
        *locked(&slot.value) = Some(Arc::clone(&after));
        Ok(Some(after))
    }

    /// Changes a record.
    ///
    /// # Errors
    /// As [`Book::update_with`].
    pub async fn update(
        &self,
        uid: &Uid,
        change: impl FnOnce(&mut Record) + Send,
    ) -> Result<Option<Arc<Record>>, LedgerError> {
        self.update_with(uid, Vec::new(), change).await
    }

    /// Events to be kept with a batch. Should that fail they are lost from the ledger, not from
    /// those who listen.
    fn take_events(&self) -> Vec<Write> {
        std::mem::take(&mut *locked(&self.unkept)).into_iter().map(Write::Event).collect()
    }

    /// Keeps the events that no batch took along.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn keep_events(&self) -> Result<(), LedgerError> {
        let events = self.take_events();
        if events.is_empty() { Ok(()) } else { self.ledger.commit(events).await }
    }

    /// Drops a record: nothing is owed any more.
    ///
    /// # Errors
    /// The ledger's: then the record stands.
    pub async fn drop_record(&self, uid: &Uid, now: Timestamp) -> Result<(), LedgerError> {
        let Some(slot) = locked(&self.slots).get(uid).cloned() else { return Ok(()) };
        let _turn = slot.turn.lock().await;
        let ended = Arc::new(with_one_more(&locked(&self.ended), uid, now));
        let mut batch = vec![Write::DropRecord(uid.clone())];
        // It is plain data and cannot fail; without it only a late container would stay.
        batch.extend(
            serde_json::to_string(&*ended).ok().map(|text| Write::Fact(ENDED.to_owned(), text)),
        );
        *locked(&self.ended) = ended;
        self.ledger.commit(batch).await?;
        let gone = locked(&slot.value).take();
        locked(&self.slots).remove(uid);
        if let Some(record) = gone {
            let mut names = locked(&self.names);
            if let Some(uids) = names.get_mut(&record.name) {
                uids.retain(|known| known != uid);
                if uids.is_empty() {
                    names.remove(&record.name);
                }
            }
        }
        Ok(())
    }

    /// The sessions that are over: nothing of them is owed, and nothing of them may stay.
    pub fn ended(&self) -> Arc<BTreeMap<Uid, Timestamp>> {
        Arc::clone(&locked(&self.ended))
    }

    /// Remembers whose workspace a uid's was, for those who look into the trash later.
    pub fn with_trashed(&self, record: &Record) -> Option<Write> {
        let mut all = locked(&self.trashed);
        all.retain(|(uid, _)| *uid != record.uid);
        all.push((record.uid.clone(), record.name.to_string()));
        let excess = all.len().saturating_sub(TRASHED_KEPT);
        all.drain(..excess);
        serde_json::to_string(&*all).ok().map(|text| Write::Fact(TRASHED.to_owned(), text))
    }

    /// Names of sessions whose workspaces went into the trash.
    pub fn trashed(&self) -> BTreeMap<Uid, String> {
        locked(&self.trashed).iter().cloned().collect()
    }

    /// The sync index of a session; empty if it has none that can be trusted.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn base(&self, uid: &Uid) -> Result<Option<Base>, LedgerError> {
        self.ledger.base(uid).await
    }

    /// Says that something happened. An event that cannot be kept is still told to those who
    /// listen: it is a courtesy, not a fact anything depends on.
    pub fn event(
        &self,
        now: Timestamp,
        session: Option<&SessionName>,
        warning: bool,
        reason: &str,
        message: impl Into<String>,
    ) -> Event {
        let seq = {
            let mut seq = locked(&self.events);
            *seq += 1;
            *seq
        };
        let event = Event {
            seq,
            at: now,
            session: session.cloned(),
            warning,
            reason: reason.to_owned(),
            message: message.into(),
        };
        locked(&self.unkept).push(event.clone());
        let mut past = locked(&self.past);
        past.push_back(event.clone());
        if past.len() > EVENTS {
            past.pop_front();
        }
        drop(past);
        let _nobody_listens = self.live.send(event.clone());
        event
    }
}

/// The sessions that are over with one more; the oldest are forgotten.
fn with_one_more(
    before: &BTreeMap<Uid, Timestamp>,
    uid: &Uid,
    now: Timestamp,
) -> BTreeMap<Uid, Timestamp> {
    let (most, age) = ENDED_KEPT;
    let mut all: Vec<(Timestamp, Uid)> =
        before.iter().filter(|(_, at)| now - **at < age).map(|(u, at)| (*at, u.clone())).collect();
    all.sort();
    let excess = (all.len() + 1).saturating_sub(most);
    let kept = all.into_iter().skip(excess).map(|(at, uid)| (uid, at));
    kept.chain([(uid.clone(), now)]).collect()
}

impl Slot {
    fn holding(record: Record) -> Slot {
        let kept_sync = Mutex::new(record.last_sync);
        let value = Mutex::new(Some(Arc::new(record)));
        Slot { turn: tokio::sync::Mutex::new(()), value, kept_sync }
    }

    /// Whether nothing is new but the time of a sync, and the ledger knows of one not long before.
    fn may_wait(&self, before: &Record, after: &Record) -> bool {
        let (Some(kept), Some(at)) = (*locked(&self.kept_sync), after.last_sync) else {
            return false;
        };
        let lately = kept <= at && at - kept < SYNC_KEPT;
        lately && *before == Record { last_sync: before.last_sync, ..after.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory::MemoryLedger;

    #[tokio::test]
    async fn a_sync_that_found_nothing_new_is_written_down_with_the_next_change_or_after_a_while() {
        let fixture = include_str!("../../tests/fixtures/record-v1.json");
        let record: Record = serde_json::from_str(fixture).unwrap();
        let (uid, began) = (record.uid.clone(), record.created_at);
        let book = Book::new(MemoryLedger::default(), &Contents::default());
        book.admit(Record { last_sync: None, ..record }).await.unwrap();
        let kept = || book.ledger().records()[&uid].clone();
        let sync = async |seconds| {
            let at = began + TimeDelta::seconds(seconds);
            book.update(&uid, |record| record.last_sync = Some(at)).await.unwrap();
            assert_eq!(book.get(&uid).unwrap().last_sync, Some(at), "it is known at once");
            (kept().last_sync.unwrap() - began).num_seconds()
        };
        assert_eq!(sync(10).await, 10, "the first");
        assert_eq!(sync(40).await, 10, "it waits");
        assert_eq!(sync(609).await, 10, "it waits");
        assert_eq!(sync(610).await, 610, "long ago");
        assert_eq!(sync(640).await, 610, "it waits");
        book.update(&uid, |record| record.attempt += 1).await.unwrap();
        assert_eq!(kept(), *book.get(&uid).unwrap(), "it goes with the next change");
        book.update(&uid, |record| {
            record.last_sync = Some(began + TimeDelta::seconds(641));
            record.restarts += 1;
        })
        .await
        .unwrap();
        assert_eq!(kept(), *book.get(&uid).unwrap(), "what is new beside it does not wait");
    }
}
