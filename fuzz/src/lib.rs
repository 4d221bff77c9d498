//! What the fuzz targets do with their bytes. `tests/it/fuzz.rs` runs the same over the corpora, so that they are true
//! also where nobody fuzzes.

use docket::api;
use docket::model::{CaseName, RelPath, SessionName, Tree, UserName, escape_bytes, unescape_bytes};
use docket::{spec, sync};

/// A spec file: read or refused.
pub fn specs(bytes: &[u8]) {
    let _read_or_refused = spec::read_source("fuzz.yaml", bytes);
}

/// A manifest or a tree of the store: what is taken is written as it was read.
pub fn manifests(bytes: &[u8]) {
    if let Ok(files) = sync::parse_manifest(bytes) {
        let again = sync::render_manifest(&files, &Tree::default());
        let again = sync::parse_manifest(&again);
        assert!(again.is_ok_and(|again| again.keys().eq(files.keys())));
    }
    let _read_or_refused = sync::parse_tree(bytes);
}

/// Names and paths: what is one leads nowhere else.
pub fn names(bytes: &[u8]) {
    if let Ok(path) = RelPath::parse(bytes) {
        assert!(path.components().all(|part| !matches!(part, b"" | b"." | b"..")));
        assert_eq!(path.as_bytes(), bytes);
    }
    assert_eq!(unescape_bytes(&escape_bytes(bytes)).as_deref(), Some(bytes));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let harmless = |name: &str| !name.contains(['/', '\0']) && !matches!(name, "" | "." | "..");
    assert!(SessionName::parse(text).map_or(true, |name| harmless(name.as_str())));
    assert!(UserName::parse(text).map_or(true, |name| harmless(name.as_str())));
    assert!(CaseName::parse(text).map_or(true, |name| harmless(name.as_str())));
    let _parsed_or_refused = api::parse_selector(text);
}

/// Bodies of API requests.
pub fn bodies(bytes: &[u8]) {
    let _files = serde_json::from_slice::<api::Files>(bytes);
    let _deletion = serde_json::from_slice::<api::Deletion>(bytes);
    let _paths = serde_json::from_slice::<api::Paths>(bytes);
    let _restoration = serde_json::from_slice::<api::Restoration>(bytes);
    let _collection = serde_json::from_slice::<api::Collection>(bytes);
}

/// What operator and gate say to each other, and when: no open is lost, none answered twice.
pub fn protocol(bytes: &[u8]) {
    docket::gate::rehearse(bytes);
}
