//! Steps that only write facts into the record.

use std::collections::BTreeMap;

use crate::crash::{self, Effect};
use crate::model::{
    Action, Applied, Ending, ImagePin, Operation, Reason, Record, Retired, RolledBack, Source,
    Termination, Uid,
};
use crate::world::{Clock, Engine, Ledger, Objects, Workspaces};

use super::execute::{Run, StepError, copy_record};
use super::failure::note_failure;
use super::gate::Met;

impl<E, O, W, L, C> Run<'_, E, O, W, L, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    pub(super) async fn admit(
        &mut self,
        applied: &Applied,
        source: &Source,
    ) -> Result<(), StepError> {
        let uid = Uid::from_bytes(self.doors.clock.random());
        let record = Record::admit(uid.clone(), applied.clone(), source.clone(), self.now());
        let admitted = self.doors.book.admit(record);
        let record = crash::around(Effect::Admit, admitted).await?;
        self.uid = Some(uid);
        copy_record(self.doors, &record, None).await;
        self.event(false, "Admitted", "its spec was taken");
        Ok(())
    }

    pub(super) async fn adopt(
        &self,
        applied: &Applied,
        source: &Source,
        keep_last_good: bool,
    ) -> Result<(), StepError> {
        let now = self.now();
        let before = self.record()?;
        let new = applied.generation != before.applied.generation;
        self.change(|record| {
            if keep_last_good {
                record.last_good = Some(record.applied.clone());
            }
            let object = &applied.object;
            if record.state_override.as_ref().is_some_and(|o| o.file_said != object.state) {
                record.state_override = None;
            }
            if record.suspend_override.as_ref().is_some_and(|o| o.file_said != object.suspend) {
                record.suspend_override = None;
            }
            record.applied = applied.clone();
            record.source = source.clone();
            record.source_unseen = false;
            if new {
                record.failures.retain(|operation, _| {
                    matches!(operation, Operation::Sync | Operation::Stop | Operation::Remove)
                });
                record.rolled_back = None;
                record.retired = None;
                record.activate(now);
            }
        })
        .await?;
        if new {
            let message = format!("generation {} is in force", applied.generation);
            self.event(false, "Adopted", &message);
        }
        Ok(())
    }

    pub(super) async fn roll_back(&self, message: &str) -> Result<(), StepError> {
        self.change(|record| {
            let Some(mut good) = record.last_good.take() else { return };
            good.generation = record.applied.generation;
            record.rolled_back = Some(RolledBack {
                object_hash: record.applied.object.hash.clone(),
                class_hash: record.applied.class_hash.clone(),
                message: message.to_owned(),
            });
            record.applied = good;
            record.failures.clear();
        })
        .await?;
        self.event(true, "RolledBack", message);
        Ok(())
    }

    pub(super) async fn lease(&self, port: u16, instead_of: Option<u16>) -> Result<(), StepError> {
        let leased = self.change(|record| record.port = Some(port));
        crash::around(Effect::LeasePort, leased).await?;
        if let Some(old) = instead_of {
            let message = format!("port {old} is held by somebody else; port {port} is leased");
            self.event(true, "PortConflict", &message);
        }
        Ok(())
    }

    /// A container of ours without a record is taken in: its uid, port and number stay.
    pub(super) async fn rebuild(&mut self, action: &Action) -> Result<(), StepError> {
        let Action::Rebuild { found, uid, attempt, port, image_id, applied, source } = action
        else {
            return Ok(());
        };
        let named = source.clone().unwrap_or(Source::Applied);
        let mut record = Record::admit(uid.clone(), (**applied).clone(), named, self.now());
        record.source_unseen = source.is_none();
        record.attempt = *attempt;
        record.port = *port;
        record.adopted = true;
        let seen = self.doors.workspaces.look(&record.user, &record.case).await?;
        record.workspace = seen.map(|seen| seen.id);
        record.hydrated = record.workspace.is_some();
        if let Some(id) = image_id {
            let never = crate::model::PullPolicy::Never;
            let user = self.doors.engine.resolve_image(id, never).await.map(|image| image.user);
            let pin = ImagePin { id: id.clone(), user: user.unwrap_or_default() };
            record.applied.image = Some(pin);
        }
        let record = self.doors.book.admit(record).await?;
        self.uid = Some(uid.clone());
        copy_record(self.doors, &record, None).await;
        self.event(true, "Rebuilt", &format!("its record was lost and rebuilt from {found}"));
        Ok(())
    }

    pub(super) async fn note_fact(&self, action: &Action) -> Result<(), StepError> {
        let now = self.now();
        let random = self.doors.clock.random()[0];
        let before = self.record()?;
        self.change(|record| match action {
            Action::BeginEnding { cause } if record.ending.is_none() => {
                record.ending = Some(Ending {
                    since: now,
                    cause: cause.clone(),
                    discard: false,
                    pre_synced: false,
                    final_synced: false,
                    followed: BTreeMap::new(),
                    trashed: false,
                });
                record.ready_since = None;
            }
            Action::NoteTermination(end) => note_end(record, end.clone()),
            Action::NoteFailure { operation, reason, message, terminal } => {
                let met = Met {
                    operation: *operation,
                    reason: *reason,
                    message: message.clone(),
                    terminal: *terminal,
                    at_once: false,
                };
                note_failure(record, &met, now, random);
            }
            Action::NoteReady { generation } => {
                record.ready_since = record.ready_since.or(Some(now));
                record.ran_since = record.ran_since.or(Some(now));
                record.ready_generation = *generation;
                record.last_good = None;
                record
                    .failures
                    .retain(|operation, _| matches!(operation, Operation::Run | Operation::Sync));
            }
            Action::NoteNotReady => record.ready_since = None,
            Action::ClearFailures { operation } => {
                record.failures.remove(operation);
            }
            Action::Retire { reason } => {
                record.retired = Some(Retired { reason: *reason, at: now });
            }
            _ => (),
        })
        .await?;
        self.tell_fact(&before, action);
        Ok(())
    }

    pub(super) fn tell_fact(&self, before: &Record, action: &Action) {
        match action {
            Action::NoteReady { generation } if before.ready_since.is_none() => {
                self.event(false, "Ready", &format!("generation {generation} answers"));
            }
            Action::NoteTermination(end) => {
                let warning = !matches!(end.reason, Reason::Requested | Reason::Completed);
                let code = end.exit_code.map_or(String::new(), |c| format!(" with exit code {c}"));
                self.event(warning, &end.reason.to_string(), &format!("its container ended{code}"));
            }
            Action::Retire { reason } => {
                self.event(false, &reason.to_string(), "its lifetime is over");
            }
            Action::BeginEnding { cause } if before.ending.is_none() => {
                self.event(false, "Ending", cause);
            }
            _ => (),
        }
    }
}

pub(super) fn note_end(record: &mut Record, end: Termination) {
    record.intent = record.intent.take().filter(|intent| intent.attempt != end.attempt);
    record.ready_since = None;
    record.last_termination = Some(end);
}
