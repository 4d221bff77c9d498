//! The ledger on disk: sled, and what sled leaves out.
//!
//! 1. [`home`]: the state directory, its lock, and the move of a damaged store out of the way.
//! 2. [`mod@format`]: facts as keys and bytes, with a version each. Pure.
//! 3. [`store`]: an open sled that adds up, and batches that survive power loss.
//! 4. [`writer`]: the one thread that touches it; batches share syncs.
//!
//! What is relied on of sled 0.34.7 is little, because much of it was measured not to hold: its
//! flush is no sync, damage opens as an empty store, an end inside `open` leaves files that the
//! next `open` stumbles over, and a full disk is never forgiven.

#![expect(
    clippy::disallowed_methods,
    reason = "the folder that touches the state directory, on a thread of its own"
)]

mod fault;
mod format;
mod home;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::model::{Base, Uid};
use crate::world::{Contents, Ledger, LedgerError, Write};
use fault::Fault;
use home::Home;
use store::Store;
use writer::{Ask, Writer};

/// How long a caller waits for an answer. A disk that takes longer is not known to be well.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long closing waits for the last sync.
const CLOSING: Duration = Duration::from_secs(10);

/// The ledger of one state directory. Dropping it closes the store and lets go of the lock.
#[derive(Debug)]
pub struct Sled {
    /// `None` while it is dropped only.
    asks: Option<mpsc::UnboundedSender<Ask>>,
    done: Mutex<std_mpsc::Receiver<()>>,
    syncs: Arc<AtomicU64>,
}

impl Sled {
    /// Opens `{state}/db`, made with its directory (0700) if it is not there. A store that is not
    /// what was acknowledged is moved to `{state}/broken-{time}` and a new one is made; either way
    /// [`Contents::rebuilt`] says so until the fact [`crate::world::REBUILT`] is committed.
    ///
    /// Blocks for as long as the store is read once, some milliseconds a thousand records.
    ///
    /// # Errors
    /// Another docket has the directory (the message names its process), the system refused, or
    /// the store is of a newer docket. Nothing was moved or made then.
    pub fn open(state: &Path) -> Result<Sled, LedgerError> {
        let failed = |fault: Fault| fault.during("open");
        let home = Home::take(state).map_err(failed)?;
        let store = open_store(&home).map_err(failed)?;
        let syncs = Arc::new(AtomicU64::new(0));
        let writer = Writer::new(home, store, Arc::clone(&syncs));
        let (asks, queue) = mpsc::unbounded_channel();
        let (closed, done) = std_mpsc::channel();
        let run = move || {
            writer.run(queue);
            drop(closed);
        };
        std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(run)
            .map_err(|error| failed(Fault::System(error.to_string())))?;
        Ok(Sled { asks: Some(asks), done: Mutex::new(done), syncs })
    }

    /// How often batches were synced since it was opened.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    async fn ask<T>(
        &self,
        operation: &'static str,
        ask: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Ask,
    ) -> Result<T, LedgerError> {
        let failed =
            |message: &str| LedgerError { operation, message: message.to_owned(), no_space: false };
        let (reply, answer) = oneshot::channel();
        let sent = self.asks.as_ref().is_some_and(|asks| asks.send(ask(reply)).is_ok());
        if !sent {
            return Err(failed("its thread has ended; restart docket"));
        }
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(failed("its thread has ended; restart docket")),
            Err(_) => Err(failed("the disk did not answer within a minute")),
        }
    }
}

impl Ledger for Sled {
    async fn load(&self) -> Result<Contents, LedgerError> {
        self.ask("read", Ask::Load).await
    }

    async fn commit(&self, batch: Vec<Write>) -> Result<(), LedgerError> {
        self.ask("write", |reply| Ask::Commit(batch, reply)).await
    }

    async fn base(&self, uid: &Uid) -> Result<Option<Base>, LedgerError> {
        self.ask("read", |reply| Ask::Base(uid.clone(), reply)).await
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        self.asks = None;
        // Its end is told by the sender's going.
        let done = self.done.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _closed = done.recv_timeout(CLOSING);
    }
}

/// Opens what is there, or moves it aside and makes a new store.
fn open_store(home: &Home) -> Result<Store, Fault> {
    home.sweep()?;
    let rebuilding = if home.has_db()? {
        match Store::open(&home.db()) {
            Ok(store) => return Ok(store),
            Err(Fault::Damage(why)) => {
                let to = home.move_aside()?;
                tracing::error!(
                    why,
                    moved_to = %to.display(),
                    "the ledger is damaged and was moved aside; it is rebuilt from containers, \
                     workspaces and the store, and nothing is removed before"
                );
                to.display().to_string()
            }
            Err(fault) => return Err(fault),
        }
    } else {
        "new".to_owned()
    };
    home.has_space(0)?;
    home.make_db(|path| Store::make(path, &[(format::REBUILDING, rebuilding.as_bytes())]))?;
    Store::open(&home.db())
}
