//! What a failed step means: a reason, a gate that closes for a while, or for good until the spec
//! changes.

use std::sync::PoisonError;

use chrono::TimeDelta;

use crate::model::{Action, Operation, Reason, Record, Timestamp};
use crate::world::{
    Clock, Engine, EngineErrorKind, Ledger, Objects, WorkspaceErrorKind, Workspaces,
};

use super::execute::{Run, StepError};
use super::files::FilesErrorKind;
use super::gate::{Met, failed};

/// How long a contested port is left alone.
const QUARANTINE: TimeDelta = TimeDelta::seconds(60);
/// A foreign container may hold so many names in a row before the session waits.
const NAMES_TRIED: u32 = 5;

impl<E, O, W, L, C> Run<'_, E, O, W, L, C>
where
    E: Engine,
    O: Objects,
    W: Workspaces,
    L: Ledger,
    C: Clock,
{
    /// Writes down why a step failed, so that its gate closes for a while.
    pub(super) async fn note(&self, action: &Action, met: &StepError) {
        let Some(met) = self.classify(action, met) else { return };
        if met.reason == Reason::PortConflict
            && let Ok(record) = self.record()
            && let Some(port) = record.port
        {
            let until = self.now().checked_add_signed(QUARANTINE).unwrap_or(self.now());
            self.doors
                .quarantine
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(port, until);
        }
        let (now, random) = (self.now(), self.doors.clock.random()[0]);
        let noted = self.change(|record| note_failure(record, &met, now, random)).await;
        if let Err(error) = noted {
            tracing::warn!(session = %self.name, %error, "a failure could not be kept");
        }
        if met.reason != Reason::PortConflict {
            self.event(true, &met.reason.to_string(), &met.message);
        }
    }

    pub(super) fn classify(&self, action: &Action, met: &StepError) -> Option<Met> {
        let operation = operation_of(action)?;
        let count = self
            .record()
            .ok()
            .and_then(|r| r.failures.get(&operation).map(|f| f.count))
            .unwrap_or_default();
        let (reason, terminal, at_once) = match met {
            StepError::Engine(error) => engine_reason(operation, error.kind, count),
            StepError::Workspace(error) => (workspace_reason(error.kind, operation), false, false),
            StepError::Files(error) => (files_reason(error.kind()), false, false),
            StepError::NotSafe(_) | StepError::NoFile(_) => (Reason::FileSkipped, false, false),
            StepError::LookAgain(_) => (Reason::InProgress, false, false),
            StepError::Ledger(_)
            | StepError::Broken(_)
            | StepError::NoRecord
            | StepError::Interrupted => return None,
        };
        Some(Met { operation, reason, message: one_line(&met.to_string()), terminal, at_once })
    }
}

pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

pub(super) fn note_failure(record: &mut Record, met: &Met, now: Timestamp, random: u8) {
    let before = record.failures.get(&met.operation);
    let failure = failed(before, met, &record.applied.resolved, now, random);
    record.failures.insert(met.operation, failure);
}

/// Which gate an action's failure closes; `None`: it is a note.
pub(super) fn operation_of(action: &Action) -> Option<Operation> {
    Some(match action {
        Action::CreateWorkspace => Operation::Workspace,
        Action::Hydrate => Operation::Hydrate,
        Action::ResolveImage { .. } => Operation::Image,
        Action::CreateContainer { .. } => Operation::Create,
        Action::StartContainer { .. } => Operation::Start,
        Action::StopContainer { .. } => Operation::Stop,
        Action::RemoveContainer { .. } => Operation::Remove,
        Action::UpdateResources { .. }
        | Action::PauseContainer { .. }
        | Action::UnpauseContainer { .. } => Operation::Update,
        Action::Sync { .. } => Operation::Sync,
        Action::TrashWorkspace | Action::EmptyTrash | Action::DropRecord => Operation::Cleanup,
        _ => return None,
    })
}

/// Reason, whether it holds until the spec changes, whether the next try comes at once.
pub(super) fn engine_reason(
    operation: Operation,
    kind: EngineErrorKind,
    count: u32,
) -> (Reason, bool, bool) {
    let soon = count < NAMES_TRIED;
    match kind {
        EngineErrorKind::PortTaken => (Reason::PortConflict, false, soon),
        EngineErrorKind::NameTaken => (Reason::NameConflict, false, soon),
        EngineErrorKind::ImageMissing => (Reason::ImageMissing, false, false),
        EngineErrorKind::PullFailed => (Reason::ImagePullFailed, false, false),
        EngineErrorKind::CommandInvalid => (Reason::CommandInvalid, true, false),
        EngineErrorKind::HardeningDropped => (Reason::HardeningDropped, true, false),
        EngineErrorKind::Unreachable | EngineErrorKind::Timeout => {
            (Reason::EngineUnreachable, false, false)
        }
        kind => match operation {
            Operation::Create => (Reason::CreateFailed, kind.is_terminal(), false),
            _ => (Reason::StartFailed, kind.is_terminal(), false),
        },
    }
}

pub(super) fn workspace_reason(kind: WorkspaceErrorKind, operation: Operation) -> Reason {
    match kind {
        WorkspaceErrorKind::Replaced => Reason::WorkspaceReplaced,
        WorkspaceErrorKind::NoSpace => Reason::LowSpace,
        _ if operation == Operation::Create => Reason::SecretUnavailable,
        _ => Reason::WorkspaceFailed,
    }
}

pub(super) fn files_reason(kind: FilesErrorKind) -> Reason {
    match kind {
        FilesErrorKind::StoreUnavailable => Reason::StoreUnavailable,
        FilesErrorKind::StoreDenied => Reason::StoreDenied,
        FilesErrorKind::ManifestUnavailable => Reason::ManifestUnavailable,
        FilesErrorKind::ManifestInvalid => Reason::ManifestInvalid,
        FilesErrorKind::ObjectMissing => Reason::ObjectMissing,
        FilesErrorKind::Corrupt => Reason::ContentCorrupt,
        FilesErrorKind::NoSpace => Reason::LowSpace,
        FilesErrorKind::OverQuota => Reason::QuotaExceeded,
        FilesErrorKind::WorkspaceReplaced => Reason::WorkspaceReplaced,
        FilesErrorKind::Io => Reason::WorkspaceFailed,
    }
}
