//! What steps leave in a record, as the executor leaves it there.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use crate::model::*;
use crate::plan::Session;

pub(super) fn exit(container: &mut Container, code: i64, now: Timestamp) {
    container.state = ContainerState::Exited;
    let detail = container.detail.as_mut().unwrap();
    (detail.exit_code, detail.finished_at) = (Some(code), Some(now));
}

pub(super) fn adopt(
    record: &mut Record,
    new: &Applied,
    source: &Source,
    keep: bool,
    now: Timestamp,
) {
    if keep {
        record.last_good = Some(record.applied.clone());
    }
    let is_new = new.generation != record.applied.generation;
    record.applied = new.clone();
    record.source = source.clone();
    record.source_unseen = false;
    if is_new {
        record.failures.retain(|operation, _| {
            matches!(operation, Operation::Sync | Operation::Stop | Operation::Remove)
        });
        (record.rolled_back, record.retired) = (None, None);
        record.activate(now);
    }
}

pub(super) fn roll_back(record: &mut Record, message: &str) {
    let mut good = record.last_good.take().expect("a last good spec");
    good.generation = record.applied.generation;
    record.rolled_back = Some(RolledBack {
        object_hash: record.applied.object.hash.clone(),
        class_hash: record.applied.class_hash.clone(),
        message: message.to_owned(),
    });
    record.applied = good;
    record.failures.clear();
}

pub(super) fn fail(
    record: &mut Record,
    operation: Operation,
    reason: Reason,
    terminal: bool,
    at_once: bool,
    now: Timestamp,
) {
    let count = record.failures.get(&operation).map_or(0, |failure| failure.count) + 1;
    let tries = if operation == Operation::Run { count - 1 } else { count };
    let wait = match tries {
        0 => 0,
        _ if at_once && count <= 5 => 0,
        n => 60.min(1_i64 << n.min(6)),
    };
    let not_before = now + TimeDelta::seconds(wait);
    let message = "it did not work".to_owned();
    let failure = Failure { count, at: now, not_before, reason, message, terminal };
    record.failures.insert(operation, failure);
}

pub(super) fn note_fact(record: &mut Record, action: &Action, now: Timestamp) {
    match action {
        Action::BeginEnding { cause } => {
            let cause = cause.clone();
            record.ready_since = None;
            record.ending.get_or_insert(Ending {
                since: now,
                cause,
                discard: false,
                pre_synced: false,
                final_synced: false,
                followed: BTreeMap::new(),
                trashed: false,
            });
        }
        Action::NoteTermination(end) => {
            record.intent = record.intent.take().filter(|intent| intent.attempt != end.attempt);
            record.ready_since = None;
            record.last_termination = Some(end.clone());
        }
        Action::NoteFailure { operation, reason, terminal, .. } => {
            fail(record, *operation, *reason, *terminal, false, now);
        }
        Action::NoteReady { generation } => {
            record.ready_since = record.ready_since.or(Some(now));
            record.ran_since = record.ran_since.or(Some(now));
            record.ready_generation = *generation;
            record.last_good = None;
            record.failures.retain(|op, _| matches!(op, Operation::Run | Operation::Sync));
        }
        Action::NoteNotReady => record.ready_since = None,
        Action::ClearFailures { operation } => {
            record.failures.remove(operation);
        }
        Action::Retire { reason } => {
            record.retired = Some(Retired { reason: *reason, at: now });
        }
        other => panic!("{other} is not a note"),
    }
}

/// A sync succeeded.
pub(super) fn note_sync(one: &mut Session, kind: SyncKind, now: Timestamp) {
    let record = one.record.as_mut().unwrap();
    record.last_sync = Some(now);
    record.failures.remove(&Operation::Sync);
    if let (SyncKind::Final, Some(ending)) = (kind, &mut record.ending) {
        let all = one.containers.known().into_iter().flatten();
        let start = |c: &Container| Some((c.id.clone(), c.detail.as_ref()?.started_at?));
        ending.final_synced = true;
        ending.followed = all.filter_map(start).collect();
    }
}
