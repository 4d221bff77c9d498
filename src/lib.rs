//! docket: a reconciliation operator for user sessions against plain Docker.
//!
//! ARCHITECTURE.md has the bird's eye view. In short, data flows one way:
//!
//! ```text
//!  sources + records ──> desired ─┐
//!  engine, workspaces, probes ────┴─> plan() ─> actions ─> effects
//! ```

pub mod api;
pub mod apply;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contain;
pub mod crash;
pub mod docker;
pub mod gate;
pub mod git;
pub mod ledger;
pub mod lock;
pub mod model;
pub mod objects;
pub mod observe;
pub mod operator;
pub mod plan;
pub mod probe;
pub mod spec;
pub mod status;
pub mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod watch;
pub mod workspace;
pub mod world;
