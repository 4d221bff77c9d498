//! Both the operator and the gate were gone: for a while nothing held opens of placeholders back.
//!
//! 1. Every container of ours is paused, so that nobody reads while things are put right.
//! 2. Every placeholder is marked again, and its wire looked at; and so is what the containers hold
//!    open, for a descriptor from before the mark is never asked about.
//! 3. The containers go on. Sessions that can have read zeros get new containers, and are told.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Container, ContainerState, Record, Scope, Uid};
use crate::workspace::{Local, Met};
use crate::world::{Clock, Engine, Ledger, WorkspaceError, Workspaces as _};

use super::Book;

/// How many files an event names.
const NAMED: usize = 5;

/// Puts things right: then everything that must be marked is marked.
///
/// # Errors
/// The workspaces cannot be walked: what runs stays paused, for nobody knows what it would read.
pub async fn guard<E: Engine, L: Ledger, C: Clock>(
    engine: &E,
    workspaces: &Local,
    book: &Book<L>,
    clock: &C,
) -> Result<(), WorkspaceError> {
    let Stood { running, paused } = pause_all(engine).await;
    let mut met = workspaces.guard().await?;
    tracing::info!(placeholders = met.len(), "everything that waits is guarded");
    let mut unknown = workspaces.caveat();
    if !met.is_empty() {
        let ids = running.iter().map(|one| one.id.clone()).collect();
        match workspaces.held_open(ids).await {
            Ok(held) => met.iter_mut().for_each(|one| one.tripped |= held.contains(&one.id)),
            Err(error) => {
                tracing::warn!(%error, "what containers hold open is not known");
                unknown.get_or_insert(format!("what it holds open is not known: {error}"));
            }
        }
    }
    let records: Vec<_> = book.by_name().into_values().collect();
    let touched = tainted(&met, true, records.iter().map(|record| &**record));
    tell(book, clock, &touched).await;
    if let Some(why) = unknown {
        let ran: BTreeSet<&Uid> = running.iter().map(|one| &one.uid).collect();
        let ran = records.iter().map(|record| &**record).filter(|record| ran.contains(&record.uid));
        for uid in tainted(&met, false, ran).keys().filter(|uid| !touched.contains_key(uid)) {
            tell_unknown(book, clock, uid, &why);
        }
    }
    for id in paused {
        if let Err(error) = engine.unpause(&id).await {
            tracing::warn!(container = %id, %error, "not thawed; the next pass does it");
        }
    }
    Ok(())
}

/// What was found running, and what of it stands still now.
struct Stood {
    running: Vec<Container>,
    paused: Vec<crate::model::ContainerId>,
}

async fn pause_all<E: Engine>(engine: &E) -> Stood {
    let mut stood = Stood { running: Vec::new(), paused: Vec::new() };
    match engine.list().await {
        Ok(all) => {
            // One that is paused already may have been so by an operator that was killed here.
            stood.running.extend(all.into_iter().filter(|one| {
                matches!(one.state, ContainerState::Running | ContainerState::Paused)
            }));
            let running = stood.running.iter();
            for one in running.filter(|one| one.state == ContainerState::Running) {
                match engine.pause(&one.id).await {
                    Ok(()) => stood.paused.push(one.id.clone()),
                    Err(error) => {
                        tracing::warn!(container = %one.id, %error, "not paused while it is guarded");
                    }
                }
            }
        }
        Err(error) => tracing::warn!(%error, "containers are not paused while they are guarded"),
    }
    stood
}

/// Which sessions can have read zeros, and of which files; not only `read`: which would have.
fn tainted<'a>(
    met: &[Met],
    read: bool,
    records: impl Iterator<Item = &'a Record>,
) -> BTreeMap<Uid, Vec<String>> {
    let mut all = BTreeMap::new();
    for record in records.filter(|record| record.attempt > 0 && record.ending.is_none()) {
        let whole = record.applied.resolved.workspace.scope == Scope::User;
        let files: Vec<String> = met
            .iter()
            .filter(|one| (one.tripped || !read) && one.user == record.user)
            .filter(|one| whole || one.case.as_ref() == Some(&record.case))
            .map(|one| one.path.to_string())
            .collect();
        if !files.is_empty() {
            all.insert(record.uid.clone(), files);
        }
    }
    all
}

async fn tell<L: Ledger, C: Clock>(
    book: &Book<L>,
    clock: &C,
    tainted: &BTreeMap<Uid, Vec<String>>,
) {
    for (uid, files) in tainted {
        let change = book.update(uid, |record| record.restart_after = Some(record.attempt)).await;
        let Ok(Some(record)) = change else {
            tracing::error!(%uid, ?change, "it read what was not there, and is not restarted");
            continue;
        };
        let named = files.iter().take(NAMED).map(|file| format!("`{file}`")).collect::<Vec<_>>();
        let more = files.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!(
            "gate and operator were both gone, and it opened {}{more} before the content came: it \
             is restarted",
            named.join(", ")
        );
        tracing::warn!(session = %record.name, "{message}");
        book.event(clock.now(), Some(&record.name), true, "Tainted", message);
    }
}

/// Nothing tells whether this session read: its people decide.
fn tell_unknown<L: Ledger, C: Clock>(book: &Book<L>, clock: &C, uid: &Uid, why: &str) {
    let Some(record) = book.get(uid) else { return };
    let message = format!(
        "gate and operator were both gone, and {why}: if it may have opened a large file just then, \
         `docket restart {}`",
        record.name
    );
    tracing::warn!(session = %record.name, "{message}");
    book.event(clock.now(), Some(&record.name), true, "PerhapsTainted", message);
}
