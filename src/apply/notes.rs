//! The copy of a record beside the workspaces: what is left of a session when the state directory
//! is lost.

use serde::{Deserialize, Serialize};

use crate::model::{Base, RECORD_VERSION, Record};

#[derive(Serialize, Deserialize)]
struct Note<R, B> {
    version: u32,
    record: R,
    base: B,
}

/// The note's bytes.
pub fn write(record: &Record, base: Option<&Base>) -> Vec<u8> {
    serde_json::to_vec(&Note { version: RECORD_VERSION, record, base }).unwrap_or_default()
}

/// Reads a note. `Err` says why it cannot be used.
///
/// # Errors
/// A newer version, or text that is not a note.
pub fn read(bytes: &[u8]) -> Result<(Record, Option<Base>), String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let version: Version =
        serde_json::from_slice(bytes).map_err(|error| format!("it is not a record: {error}"))?;
    if version.version > RECORD_VERSION {
        return Err(format!("it is of the newer format {}", version.version));
    }
    let note: Note<Record, Option<Base>> =
        serde_json::from_slice(bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    Ok((note.record, note.base))
}
