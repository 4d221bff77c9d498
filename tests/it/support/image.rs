//! The sample image, built once if the engine does not have it.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The sample workspace: serves /health on port 3000; its README says what its variables do.
pub const SAMPLE: &str = "docket-sample:latest";

/// Makes sure that the engine at `host` (empty: the default one) has [`SAMPLE`].
pub fn ensure_sample(host: &str) {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/build-image");
        let mut build = Command::new(script);
        if !host.is_empty() {
            build.env("DOCKER_HOST", host);
        }
        let output = build.output().expect("scripts/build-image can be run");
        assert!(
            output.status.success(),
            "scripts/build-image failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
}
