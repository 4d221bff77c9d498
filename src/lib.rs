//! docket: a reconciliation operator for user sessions against plain Docker.
//!
//! ARCHITECTURE.md has the bird's eye view. In short, data flows one way:
//!
//! ```text
//!  sources + records ──> desired ─┐
//!  engine, workspaces, probes ────┴─> plan() ─> actions ─> effects
//! ```

pub mod apply;
pub mod clock;
pub mod docker;
pub mod model;
pub mod objects;
pub mod observe;
pub mod operator;
pub mod plan;
pub mod probe;
pub mod spec;
pub mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod workspace;
pub mod world;
