//! Files on both sides: what a manifest says, under which key contents go, what a stub looks like,
//! and the three-way diff of the last commit, the workspace and the store. Pure.
//!
//! The rules, once:
//!
//! 1. The base is the last state both sides agreed on. Only what it knows can have been deleted;
//!    without it nothing is deleted on either side.
//! 2. One side changed: the other follows. Both changed to the same: agreed. Both changed to
//!    different contents: both are kept, the local one under another name. An edit wins over a
//!    deletion.
//! 3. What a scan could not look into keeps its base entry and its row. What is excluded is never
//!    touched.
//! 4. A row whose content is not here (lazy) was not deleted by being absent.

mod diff;
mod history;
mod keys;
mod manifest;
mod rest;
mod stub;
mod tree;

pub use diff::{Change, Context, Emptied, Plan, diff, diff_emptied, lazy_entry};
pub use history::{
    Aged, Difference, NoReturn, NoState, Own, garbage, has_manifest, old_manifests, pick, put_back,
    short_ids, split_key, state_after, state_of,
};
pub use keys::{
    BadKey, FILES, MANIFEST, MANIFESTS, TREES, bare_path, check_key, conflict_path, is_kept,
    kept_manifest, key_candidates, reads_like_anothers, tree_key,
};
pub use manifest::{
    BadManifest, MAX_BYTES, MAX_ENTRIES, check_paths, foreign_row, parse_bare, parse_manifest,
    parse_tree, render_manifest, render_tree,
};
pub use rest::at_rest;
pub use stub::{STUB, stub_of, stub_path, stub_text};

use sha2::Digest as _;

use crate::model::Sha256;

/// The sum of some bytes.
pub fn sum(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests;
