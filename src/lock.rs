//! Locks that die with their holder, for whoever may run once only: a state directory, a
//! workspaces root, an installation on an engine.
#![expect(clippy::disallowed_methods, reason = "waits a moment, on the thread that starts docket")]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long a lock is waited for.
const DYING: Duration = Duration::from_secs(1);

/// Takes an exclusive lock, and tries for a moment: a child that its holder had just begun has its
/// descriptors, this one among them, until it becomes the program it is to be.
///
/// # Errors
/// `WOULDBLOCK`: somebody holds it.
pub fn lock_soon(file: impl AsFd) -> Result<(), Errno> {
    let until = Instant::now() + DYING;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(DYING / 50),
            taken => return taken,
        }
    }
}
