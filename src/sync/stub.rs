//! Stub files: `name.stub` stands for a file that was not fetched. Their text follows from the row
//! alone, so a stub is known by its content and needs no memory.

use crate::model::RelPath;

/// What a stub's name ends in.
pub const STUB: &[u8] = b".stub";

/// Where the stub of a file stands; `None` if the name would be too long.
pub fn stub_path(path: &RelPath) -> Option<RelPath> {
    RelPath::parse(&[path.as_bytes(), STUB].concat()).ok()
}

/// The file that a stub's name stands for.
pub fn stub_of(path: &RelPath) -> Option<RelPath> {
    path.as_bytes().strip_suffix(STUB).and_then(|rest| RelPath::parse(rest).ok())
}

/// What a stub says.
pub fn stub_text(path: &RelPath, size: u64, key: &str) -> String {
    format!(
        "This file stands for `{path}`, which is in the store and was not fetched yet.\n\
         size: {size}\n\
         key: {}\n\
         To fetch it: docket hydrate SESSION '{path}'\n\
         Editing or removing this file changes nothing in the store.\n",
        super::keys::shown(key),
    )
}
