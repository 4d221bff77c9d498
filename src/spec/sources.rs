//! A listing of the watched directory as plain data, between the watcher that makes it and the
//! operator that compares it with its records.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::parse::hex;
use super::{Object, Shared, parse_file};

/// One file of the watched directory.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceFile {
    /// It parses as a whole.
    Parsed {
        /// Its objects. Clones share them: what is the same is seen to be without a look inside.
        objects: Arc<Vec<Object>>,
        /// Short hash of its contents.
        revision: String,
    },
    /// It does not: `file:line:column: message` each.
    Invalid(Vec<String>),
    /// It is there and cannot be read.
    Unreadable(String),
}

/// Why a file that is still written to cannot be read yet: nothing is wrong with it.
pub const BEING_WRITTEN: &str = "it is being written";

/// Ends what is said of a repository's directory before the first good revision is in it. Whoever
/// follows the repository tells what keeps it from coming.
pub const NO_REVISION: &str = "is not there yet: no revision was fetched and found good";

/// A complete listing of the watched directory, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Sources {
    /// Where it is, for people.
    pub root: String,
    /// Why nothing may be concluded, if so.
    pub trouble: Option<String>,
    /// The commit that all of it is from; empty: the directory is no revision of a repository.
    pub revision: String,
    /// Files by path relative to the root. The next listing shares with this one what is the same.
    pub files: Shared<SourceFile>,
}

/// Whether a file of this name is looked at at all.
pub fn is_spec_name(name: &[u8]) -> bool {
    let ends = |end: &str| name.ends_with(end.as_bytes());
    // `~`, `.swp` and `.tmp` end in none of these.
    !name.starts_with(b".") && (ends(".yaml") || ends(".yml") || ends(".json"))
}

/// A file's contents as a source: whole, or not at all.
pub fn read_source(path_shown: &str, contents: &[u8]) -> SourceFile {
    let parsed = parse_file(path_shown, contents);
    if parsed.complaints.is_empty() {
        let digest = Sha256::digest(contents);
        SourceFile::Parsed {
            objects: Arc::new(parsed.objects.into_iter().map(|located| located.object).collect()),
            revision: hex(digest.get(..6).unwrap_or_default()),
        }
    } else {
        SourceFile::Invalid(parsed.complaints.iter().map(ToString::to_string).collect())
    }
}
