//! The first minutes: what the ledger kept, and what is left of a lost one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::apply::{Book, notes};
use crate::model::{Health, Look, Reason, SessionName, Uid};
use crate::plan::{Session, Want};
use crate::world::{
    Clock, Contents, Engine, Ledger, LedgerError, Objects, Probe, REBUILT, Workspaces, Write,
};

use super::Operator;

/// Name of the ledger's fact that holds confirmed prunes.
pub(super) const CONFIRMED: &str = "confirmed-prune";

/// What a new operator begins with beside its records.
#[derive(Clone, Debug, Default)]
pub struct Rebuilt {
    /// Applied objects, `kind/name` to JSON text.
    pub applied: BTreeMap<String, String>,
    /// Sessions whose end was confirmed.
    pub confirmed: BTreeSet<SessionName>,
}

/// Opens the book. With a ledger that is new or was damaged, records come back from the copies
/// beside the workspaces, each held until its source is seen. With a trusted ledger, copies
/// without a record are what an interrupted end left: they go.
///
/// # Errors
/// The ledger's, or the text of a failed look: nothing may begin then.
pub async fn rebuild<L: Ledger, W: Workspaces>(
    ledger: L,
    contents: &Contents,
    workspaces: &W,
    now: crate::model::Timestamp,
) -> Result<(Book<L>, Rebuilt), LedgerError> {
    let book = Book::new(ledger, contents);
    let failed = |what: &'static str, message: String| LedgerError {
        operation: what,
        message,
        no_space: false,
    };
    let copies = workspaces
        .notes()
        .await
        .map_err(|error| failed("look at the copies of records", error.to_string()))?;
    for (uid, bytes) in copies {
        if contents.records.contains_key(&uid)
            || contents.unknown.iter().any(|k| k.contains(uid.as_str()))
        {
            continue;
        }
        if contents.rebuilt.is_none() {
            // One that cannot be read may be all that is left of a session: it stays.
            if let Err(why) = notes::read(&bytes) {
                tracing::error!(%uid, %why, "a copy of a record cannot be used and is left alone");
                continue;
            }
            if let Err(error) = workspaces.drop_note(&uid).await {
                tracing::warn!(%uid, %error, "an old copy of a record was not removed");
            }
            continue;
        }
        take_back(&book, &uid, &bytes, now).await?;
    }
    let applied = rebuild_applied(&book, contents, workspaces).await?;
    if contents.rebuilt.is_some() {
        // Only now: an end before this begins rebuilding again.
        book.ledger().commit(vec![Write::Fact(REBUILT.to_owned(), now.to_rfc3339())]).await?;
    }
    let confirmed = contents
        .facts
        .get(CONFIRMED)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    Ok((book, Rebuilt { applied, confirmed }))
}

/// The applied objects: the ledger's, with which the copies beside the workspaces are made to agree;
/// or, with a ledger that lost them, the copies.
async fn rebuild_applied<L: Ledger, W: Workspaces>(
    book: &Book<L>,
    contents: &Contents,
    workspaces: &W,
) -> Result<BTreeMap<String, String>, LedgerError> {
    let copies = workspaces.applied().await.map_err(|error| LedgerError {
        operation: "look at the copies of applied objects",
        message: error.to_string(),
        no_space: false,
    })?;
    let mut applied = contents.applied.clone();
    if contents.rebuilt.is_some() {
        let lost = copies.into_iter().filter(|(key, _)| !contents.applied.contains_key(key));
        let lost: BTreeMap<String, String> = lost.collect();
        let batch = lost.iter().map(|(key, text)| Write::Applied(key.clone(), text.clone()));
        let batch: Vec<Write> = batch.collect();
        if !batch.is_empty() {
            book.ledger().commit(batch).await?;
        }
        applied.extend(lost);
        return Ok(applied);
    }
    let stale = copies.keys().filter(|key| !applied.contains_key(*key)).map(|key| (key, None));
    let missing = applied.iter().filter(|(key, text)| copies.get(*key) != Some(*text));
    for (key, text) in stale.chain(missing.map(|(key, text)| (key, Some(text.as_str())))) {
        if let Err(error) = workspaces.keep_applied(key, text).await {
            tracing::warn!(object = %key, %error, "the copy of an applied object was not kept");
        }
    }
    Ok(applied)
}

async fn take_back<L: Ledger>(
    book: &Book<L>,
    uid: &Uid,
    bytes: &[u8],
    now: crate::model::Timestamp,
) -> Result<(), LedgerError> {
    let (mut record, base) = match notes::read(bytes) {
        Ok(note) => note,
        Err(why) => {
            tracing::error!(%uid, %why, "the copy of a record cannot be used; its session is not rebuilt");
            return Ok(());
        }
    };
    record.source_unseen = true;
    // What failed or was under way then is not known to be so now.
    record.intent = None;
    record.failures.clear();
    let name = record.name.clone();
    let uid = record.uid.clone();
    book.admit(record).await?;
    if let Some(base) = base {
        book.update_with(&uid, vec![Write::Base(uid.clone(), Box::new(base))], |_| ()).await?;
    }
    book.event(now, Some(&name), true, "Rebuilt", "its record was lost and rebuilt from its copy");
    Ok(())
}

impl<E, O, W, L, P, C> Operator<E, O, W, L, P, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    P: Probe,
    C: Clock,
{
    /// Every record becomes a live session before anything is looked at.
    pub(super) fn adopt_records(&mut self) {
        for (name, record) in self.doors.book.by_name() {
            self.doors.lanes.rooms.heed(&record);
            self.enliven(&name);
            self.dirty.insert(name);
        }
    }

    /// A session the loop knows from now on.
    pub(super) fn enliven(&mut self, name: &SessionName) -> &mut super::Live {
        let number = self.looks;
        self.live.entry(name.clone()).or_insert_with(|| super::Live {
            session: Session {
                want: Want::Held {
                    reason: Reason::SourceUnreadable,
                    message: "the sources were not listed yet".to_owned(),
                    prune: false,
                },
                record: None,
                containers: Look::Unknown("it was not listed yet".to_owned()),
                workspace: Look::Unknown("it was not looked at yet".to_owned()),
                health: Health::Unknown,
                probed_for: Duration::ZERO,
                idle_for: Duration::ZERO,
                used: None,
                sync_asked: false,
                sync_tried: None,
            },
            seen: (None, None),
            plan: crate::model::SessionPlan {
                phase: crate::model::Phase::Unknown,
                cause: String::new(),
                actions: Vec::new(),
                wake_at: None,
                queue: None,
                reason: None,
            },
            view: None,
            transitions: BTreeMap::new(),
            main: None,
            files: false,
            trusted_from: number,
            touched_at: None,
            looked_at: false,
            missed: BTreeSet::new(),
            repeats: 0,
            unkept: None,
            broken: None,
            not_before: None,
            prober: None,
            idler: None,
            step: std::sync::Arc::default(),
        })
    }
}
