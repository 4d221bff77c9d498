//! What a failed step says about the disk: full, failing, or holding something else than was kept.
//! Only the last is a reason to move a store aside.

use std::io;

use crate::world::LedgerError;

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// No space left, or over quota.
    #[error("no space left: {0}")]
    Space(String),
    /// The system refused: rights, a read-only file system, a failing disk.
    #[error("{0}")]
    System(String),
    /// The store holds something else than was kept.
    #[error("it is damaged: {0}")]
    Damage(String),
}

impl Fault {
    /// The door's words for it.
    pub(super) fn during(&self, operation: &'static str) -> LedgerError {
        LedgerError {
            operation,
            message: self.to_string(),
            no_space: matches!(self, Fault::Space(_)),
        }
    }

    /// A failed system call at a path.
    pub(super) fn at(path: &std::path::Path) -> impl Fn(io::Error) -> Fault + '_ {
        move |error| Fault::named(&path.display().to_string(), &error)
    }

    fn named(place: &str, error: &io::Error) -> Fault {
        let text = format!("{place}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Space(text),
            _ => Fault::System(text),
        }
    }
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Fault {
        match error {
            sled::Error::Io(error) => {
                let text = error.to_string();
                // sled keeps an error by its text: the number of the system's is in it only.
                let system = error.raw_os_error().is_some() || says_system(&text);
                match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::Space(text),
                    _ if says_full(&text) => Fault::Space(text),
                    _ if system => Fault::System(text),
                    _ => Fault::Damage(text),
                }
            }
            error => Fault::Damage(error.to_string()),
        }
    }
}

fn says_full(text: &str) -> bool {
    ["code: 28,", "os error 28", "code: 122,", "os error 122"].iter().any(|it| text.contains(it))
}

fn says_system(text: &str) -> bool {
    ["code: ", "os error ", "could not acquire lock"].iter().any(|it| text.contains(it))
}

/// Runs a step of sled, which panics where it did not expect what it read.
pub(super) fn guarded<T>(step: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    crate::contain::contained(step).unwrap_or_else(|text| {
        Err(match () {
            () if says_full(&text) => Fault::Space(text),
            () if says_system(&text) => Fault::System(text),
            () => Fault::Damage(text),
        })
    })
}
