//! How large files come in a workspaces root: found out when the operator starts, by trying it.
//!
//! 1. The gate that is there is connected to, or one is started.
//! 2. A canary is placed: a placeholder of known content. A child opens and reads it.
//! 3. What the child read is that content: files come when they are opened. Anything else: stub
//!    files, and the reason is shown in status and by `docket doctor`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::apply::{Book, Coming, Failures, Filler, Rooms};
use crate::clock::WallClock;
use crate::gate::{Gate, Unfit, attach};
use crate::model::LazyMode;
use crate::workspace::Local;
use crate::world::{Engine, Ledger, Marks, Meter, Objects, Workspaces as _};

use super::exit::{Failure, chain};

/// How long the child may take.
const CANARY_WITHIN: Duration = Duration::from_secs(20);
/// Canaries that may be answered with an error before it counts.
const TRIES: u32 = 5;
/// Canaries that may be answered by nobody before it counts.
const LATE_TRIES: u32 = 2;

/// Finds out how large files come, and answers opens from now on.
///
/// # Errors
/// A gate is there that does not answer: nothing may begin until that is settled.
pub(super) async fn begin<O: Objects>(
    workspaces: &Local,
    objects: Arc<O>,
    (rooms, failures, coming): (Rooms, Failures, Coming),
    meter: Arc<Meter>,
) -> Result<Option<Gate>, Failure> {
    let docket = workspaces.docket_dir();
    let attached = tokio::task::spawn_blocking(move || attach(&docket)).await;
    let (gate, opens) = match attached {
        Ok(Ok(attached)) => attached,
        Ok(Err(error @ Unfit::Silent(_))) => {
            return Err(Failure::failed(chain(&error))
                .hint("the file names the process; if it hangs, continue or end it"));
        }
        Ok(Err(error)) => {
            stubs(workspaces, error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(Failure::failed(error.to_string())),
    };
    let marks: Arc<dyn Marks> = Arc::new(gate.clone());
    let content = format!("docket canary {}\n", std::process::id()).repeat(400).into_bytes();
    let canary_says = content.clone();
    let marked = Arc::clone(&marks);
    let filler = Filler::new(objects, marked, rooms, failures, coming, canary_says, meter);
    tokio::spawn(filler.serve(opens));
    let mut tries = 0;
    while let Err(why) = canary(workspaces, &content, &marks).await {
        tries += 1;
        // A gate that was killed meanwhile tells openers to try again, or comes too late; so we
        // do: what runs has placeholders already, and stubs would take them away from it.
        let most = match why {
            Untaken::Told(_) => TRIES,
            Untaken::Late => LATE_TRIES,
            _ => 1,
        };
        if tries < most {
            tracing::debug!(%why, "another canary is sent");
            continue;
        }
        stubs(workspaces, why.to_string());
        return Ok(None);
    }
    workspaces.set_lazy(LazyMode::OnAccess, Some(marks));
    tracing::info!("large files come when they are opened");
    if let Some(why) = workspaces.caveat() {
        tracing::warn!("{why}");
    }
    Ok(Some(gate))
}

fn stubs(workspaces: &Local, reason: String) {
    tracing::warn!(%reason, "stub files stand for large files");
    workspaces.set_lazy(LazyMode::Stub { reason }, None);
}

/// Why a canary did not come back with its content.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    /// The file system does not take placeholders.
    #[error("the file system does not take placeholders: {0}")]
    Placed(String),
    /// Its open was not held back.
    #[error("canary not intercepted: {0}")]
    Missed(&'static str),
    /// Nobody answered its open.
    #[error("canary not intercepted: nobody let its reader go on")]
    Late,
    /// Its open was answered with an error.
    #[error("the canary could not be read: {0}")]
    Told(String),
    /// Nobody could be sent.
    #[error("the canary's reader cannot be started: {0}")]
    Unsent(String),
}

/// Whether a child that opens a placeholder reads its content.
///
/// # Errors
/// Why not.
async fn canary(workspaces: &Local, content: &[u8], marks: &Arc<dyn Marks>) -> Result<(), Untaken> {
    let (local, bytes, held) = (workspaces.clone(), content.to_owned(), Arc::clone(marks));
    let placed = tokio::task::spawn_blocking(move || local.canary(&bytes, &*held));
    let canary = placed
        .await
        .map_err(|error| Untaken::Placed(error.to_string()))?
        .map_err(Untaken::Placed)?;
    let child = tokio::process::Command::new("/proc/self/exe")
        .args(["gate", "read"])
        .arg(&canary.path)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let read = tokio::time::timeout(CANARY_WITHIN, child)
        .await
        .map_err(|_| Untaken::Late)?
        .map_err(|error| Untaken::Unsent(error.to_string()))?;
    if read.status.success() && read.stdout == content {
        return Ok(());
    }
    if read.status.success() {
        return Err(Untaken::Missed("its reader saw no content"));
    }
    Err(Untaken::Told(String::from_utf8_lossy(&read.stderr).trim().to_owned()))
}

/// Sees to it that no container runs while a placeholder in its workspace is unguarded.
///
/// # Errors
/// There are placeholders that this process cannot even see: it would take them for edits. Or the
/// workspaces cannot be walked.
pub(super) async fn guard<E: Engine, L: Ledger>(
    gate: Option<&Gate>,
    engine: &E,
    workspaces: &Local,
    book: &Book<L>,
) -> Result<(), Failure> {
    if gate.is_some_and(Gate::is_guarded) {
        return Ok(());
    }
    let local = workspaces.clone();
    let sees = tokio::task::spawn_blocking(move || local.sees_placeholders()).await;
    if !sees.unwrap_or_default() {
        return blind(workspaces, book).await;
    }
    crate::apply::guard(engine, workspaces, book, &WallClock).await.map_err(|error| {
        Failure::failed(format!("placeholders cannot be guarded: {}", chain(&error)))
            .hint("containers stay paused until it can be walked; see to that path and start again")
    })?;
    if let Some(gate) = gate {
        gate.set_guarded();
    }
    Ok(())
}

/// Without placeholders there is nothing to see.
async fn blind<L: Ledger>(workspaces: &Local, book: &Book<L>) -> Result<(), Failure> {
    for record in book.by_name().into_values() {
        let base = book.base(&record.uid).await;
        let base = base.map_err(|error| Failure::failed(chain(&error)))?;
        if base.is_some_and(|base| base.files.values().any(|entry| entry.placed)) {
            let why = workspaces.lazy();
            return Err(Failure::failed(format!(
                "session `{}` has placeholders, and this process cannot tell them from files ({why})",
                record.name
            ))
            .hint("run docket with CAP_SYS_ADMIN, or fetch all with `docket hydrate` before"));
        }
    }
    Ok(())
}
