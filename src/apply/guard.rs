//! Both the operator and the gate were gone: for a while nothing held opens of placeholders back.
//!
//! 1. Every container of ours is paused, so that nobody reads while things are put right.
//! 2. Every placeholder is marked again, and its wire looked at.
//! 3. The containers go on. Sessions that can have read zeros get new containers, and are told.

use std::collections::BTreeMap;

use crate::model::{ContainerState, Record, Scope, Uid};
use crate::workspace::{Local, Met};
use crate::world::{Clock, Engine, Ledger, WorkspaceError};

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
    let paused = pause_all(engine).await;
    let met = workspaces.guard().await?;
    tracing::info!(placeholders = met.len(), "everything that waits is guarded");
    let records: Vec<_> = book.by_name().into_values().collect();
    tell(book, clock, &tainted(&met, records.iter().map(|record| &**record))).await;
    for id in paused {
        if let Err(error) = engine.unpause(&id).await {
            tracing::warn!(container = %id, %error, "not thawed; the next pass does it");
        }
    }
    Ok(())
}

async fn pause_all<E: Engine>(engine: &E) -> Vec<crate::model::ContainerId> {
    let mut paused = Vec::new();
    match engine.list().await {
        Ok(all) => {
            for one in all.into_iter().filter(|one| one.state == ContainerState::Running) {
                match engine.pause(&one.id).await {
                    Ok(()) => paused.push(one.id),
                    Err(error) => {
                        tracing::warn!(container = %one.id, %error, "not paused while it is guarded");
                    }
                }
            }
        }
        Err(error) => tracing::warn!(%error, "containers are not paused while they are guarded"),
    }
    paused
}

/// Which sessions can have read zeros, and of which files.
fn tainted<'a>(
    met: &[Met],
    records: impl Iterator<Item = &'a Record>,
) -> BTreeMap<Uid, Vec<String>> {
    let mut all = BTreeMap::new();
    for record in records.filter(|record| record.attempt > 0 && record.ending.is_none()) {
        let whole = record.applied.resolved.workspace.scope == Scope::User;
        let files: Vec<String> = met
            .iter()
            .filter(|one| one.tripped && one.user == record.user)
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
