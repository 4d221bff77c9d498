//! Opening a large file fetches it: the gate, a process of its own that holds opens back until
//! the operator has filled the file.
//!
//! A group of fanotify marks lives as long as a descriptor of it, and when the last closes, those
//! who wait are let through to zeros. So two processes have it: the operator, which may be killed
//! or upgraded at any time, and a tiny gate that outlives it. Either alone keeps the marks.
//!
//! - `abi`: fanotify itself.
//! - `wire`: what the two say to each other.
//! - `table`: the opens that wait.
//! - `rehearsal`: wire and table played by a fuzzer.
//! - `server`: the gate.
//! - `client`: the operator's side; it starts a gate where there is none, and again when one dies.
//! - `keeper`: the service manager of a gate that is a service, which keeps the group for it.

#![expect(
    clippy::disallowed_methods,
    reason = "the gate's own files under `.docket` and what /proc says of its group"
)]

mod abi;
mod apart;
mod client;
mod keeper;
#[cfg(feature = "testing")]
mod rehearsal;
mod server;
mod table;
mod wire;

pub use client::{Answer, Gate, Opened, Opens, Unfit, attach, tell_to_end};
pub use keeper::{Environment, Keeper};
#[cfg(feature = "testing")]
pub use rehearsal::rehearse;
pub use server::{Begin, Standing, serve, stand};

use apart::stand_apart;

/// Marks the inode of a placeholder; `workspace` writes it.
const XATTR_STUB: &str = "trusted.docket.stub";
/// Held by the gate as long as it lives.
const LOCK: &str = "gate.lock";
/// A line in there: it is a service's, which starts it again when it dies.
const STANDING: &str = "standing";
/// What the gate has to say; nobody else listens by then.
const LOG: &str = "gate.log";
