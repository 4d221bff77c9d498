//! A session on its way out: sync while it runs, stop, sync after the process is gone, remove
//! every container, move the directory to the trash, free the port, drop the record. Each step
//! can be run twice, and none is left out because an earlier life may have done it.

use crate::model::{
    Action, Container, ContainerState, Look, Operation, Phase, Reason, Scope, SessionPlan, SyncKind,
};

use super::container::{self, is_alive};
use super::keep::blocked;
use super::scarce::Scarce;
use super::{View, held, steps, unseen};

/// Decides for a session that ends, or that begins to end for this cause.
pub(super) fn end(view: &View<'_>, scarce: &Scarce, cause: Option<&str>) -> SessionPlan {
    let containers = match &view.one.containers {
        Look::Known(containers) => containers,
        Look::Unknown(why) => {
            return unseen(Phase::Terminating, why);
        }
    };
    let mut actions = Vec::new();
    if let Some(cause) = cause {
        actions.push(Action::BeginEnding { cause: cause.to_owned() });
    }
    let mut plan = match teardown(view, scarce, containers, &mut actions) {
        Ok(()) => steps(Phase::Terminating, "", actions),
        Err(mut stuck) => {
            stuck.actions.splice(0..0, actions);
            *stuck
        }
    };
    plan.phase = Phase::Terminating;
    if plan.cause.is_empty() {
        let ending = view.record.ending.as_ref();
        plan.cause =
            ending.map(|e| e.cause.clone()).or(cause.map(str::to_owned)).unwrap_or_default();
    }
    plan
}

/// The steps that are still owed. `Err` is where they stop and why.
fn teardown(
    view: &View<'_>,
    scarce: &Scarce,
    containers: &[Container],
    actions: &mut Vec<Action>,
) -> Result<(), Box<SessionPlan>> {
    let stuck = |closed: &super::Closed| Box::new(blocked(Phase::Terminating, closed));
    // Every container under this name: one of a lost record could still write to the workspace.
    let ending = view.record.ending.as_ref();
    let discard = ending.is_some_and(|e| e.discard);
    let followed = |container: &Container| {
        let start = container::last_start(container);
        container.state == ContainerState::Removing
            || start == ending.and_then(|e| e.followed.get(&container.id).copied())
    };
    let synced = ending.is_some_and(|e| e.final_synced) && containers.iter().all(followed);
    let alive: Vec<&Container> = containers.iter().filter(|c| is_alive(c)).collect();

    let has_files = view.record.has_files();
    let pre_synced = ending.is_some_and(|e| e.pre_synced);
    if !alive.is_empty() {
        view.gate(Operation::Stop).map_err(|closed| stuck(&closed))?;
        if has_files && !discard && !pre_synced {
            actions.push(Action::Sync { kind: SyncKind::PreStop });
        }
        actions.extend(alive.iter().map(|c| container::stop(view, c, Reason::Requested)));
    }
    if has_files && !discard && !(synced && alive.is_empty()) {
        final_sync(view, &stuck)?;
        actions.push(Action::Sync { kind: SyncKind::Final });
    }
    view.gate(Operation::Remove).map_err(|closed| stuck(&closed))?;
    let there = containers.iter().filter(|c| c.state != ContainerState::Removing);
    actions.extend(there.map(container::remove));
    let again = has_files && !discard && synced && shared(view, scarce);
    directory(view, discard, again, actions, &stuck)?;
    actions.push(Action::DropRecord);
    Ok(())
}

fn unseen_workspace(why: &str) -> SessionPlan {
    let message = format!("the workspace is not seen: {why}");
    held(Phase::Terminating, Reason::WorkspaceUnknown, message)
}

/// Whether the sync after the process is gone may be tried now.
fn final_sync(
    view: &View<'_>,
    stuck: &impl Fn(&super::Closed) -> Box<SessionPlan>,
) -> Result<(), Box<SessionPlan>> {
    match (&view.one.workspace, view.record.workspace) {
        (Look::Unknown(why), _) => {
            return Err(Box::new(unseen_workspace(why)));
        }
        (Look::Known(None), Some(_)) => {
            return Err(Box::new(held(
                Phase::Terminating,
                Reason::WorkspaceMissing,
                "the workspace directory is gone before it was synced; \
                 `docket delete --discard` ends it",
            )));
        }
        (Look::Known(Some(seen)), Some(id)) if seen.id != id => {
            return Err(Box::new(held(
                Phase::Terminating,
                Reason::WorkspaceReplaced,
                "another directory stands where the workspace was; \
                 `docket delete --discard` ends it",
            )));
        }
        _ => (),
    }
    view.gate(Operation::Sync).map_err(|closed| stuck(&closed))
}

/// The directory goes to the trash, and out of it if nothing in it is worth keeping.
fn directory(
    view: &View<'_>,
    discard: bool,
    again: bool,
    actions: &mut Vec<Action>,
    stuck: &impl Fn(&super::Closed) -> Box<SessionPlan>,
) -> Result<(), Box<SessionPlan>> {
    let Some(id) = view.record.workspace else {
        return unrecorded_directory(view, actions, stuck);
    };
    view.gate(Operation::Cleanup).map_err(|closed| stuck(&closed))?;
    let replaced = matches!(&view.one.workspace, Look::Known(Some(seen)) if seen.id != id);
    let trashed = view.record.ending.as_ref().is_some_and(|e| e.trashed);
    if !trashed && !replaced {
        let here = matches!(view.one.workspace, Look::Known(Some(_)));
        if here && again {
            view.gate(Operation::Sync).map_err(|closed| stuck(&closed))?;
            actions.push(Action::Sync { kind: SyncKind::Final });
        }
        actions.push(Action::TrashWorkspace);
    }
    let keep = discard || view.record.files.excluded > 0;
    if !keep && !replaced {
        actions.push(Action::EmptyTrash);
    }
    Ok(())
}

/// A directory that was made for this very session and never got into its record: nothing ran in
/// it, and nobody else will remove it.
fn unrecorded_directory(
    view: &View<'_>,
    actions: &mut Vec<Action>,
    stuck: &impl Fn(&super::Closed) -> Box<SessionPlan>,
) -> Result<(), Box<SessionPlan>> {
    match &view.one.workspace {
        Look::Unknown(why) => Err(Box::new(unseen_workspace(why))),
        Look::Known(Some(seen)) if seen.uid.as_ref() == Some(&view.record.uid) => {
            view.gate(Operation::Cleanup).map_err(|closed| stuck(&closed))?;
            actions.extend([Action::TrashWorkspace, Action::EmptyTrash]);
            Ok(())
        }
        // An end that was cut short may have moved it to the trash already.
        Look::Known(_) if view.record.ending.is_some() => {
            view.gate(Operation::Cleanup).map_err(|closed| stuck(&closed))?;
            actions.push(Action::EmptyTrash);
            Ok(())
        }
        Look::Known(_) => Ok(()),
    }
}

/// Whether another container of the user can still write to this workspace.
fn shared(view: &View<'_>, scarce: &Scarce) -> bool {
    scarce.siblings(view.record).filter_map(|name| view.input.sessions.get(name)).any(|other| {
        other.record.as_ref().is_some_and(|record| {
            record.uid != view.record.uid && record.applied.resolved.workspace.scope == Scope::User
        }) && other.containers.known().is_some_and(|all| all.iter().any(is_alive))
    })
}
