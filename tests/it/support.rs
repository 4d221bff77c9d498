//! What several tests need.

pub mod browser;
pub mod image;

use std::path::Path;
use std::process::Command;

/// Removes what bears an installation's name from the engine at `host` (empty: the usual one), as
/// docket itself never does.
pub fn forget(installation: &str, host: &str) {
    let mut forget = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/forget"));
    if !host.is_empty() {
        forget.env("DOCKER_HOST", host);
    }
    let _what_is_left_is_seen_by_its_name = forget.arg(installation).output();
}
