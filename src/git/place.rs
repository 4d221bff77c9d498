//! The cache in the state directory: a bare repository, a directory for each revision, and the
//! link `current` to the one in force. A directory is complete before its name is there, and the
//! link moves by rename: who follows it sees one revision as a whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::Options;
use super::decide::Revision;

/// The link to the revision in force.
const CURRENT: &str = "current";

/// The cache.
#[derive(Clone, Debug)]
pub(super) struct Place {
    root: PathBuf,
}

impl Place {
    /// Opens the cache. What is of another repository, or was judged by other signers, is not used:
    /// it goes.
    pub(super) fn open(options: &Options) -> io::Result<Place> {
        let place = Place { root: options.cache.clone() };
        let verify = options.verify.as_ref().map(|path| path.display().to_string());
        let about = format!("{}\nverify {}\n", options.remote, verify.as_deref().unwrap_or("-"));
        let note = place.root.join("about");
        if fs::read_to_string(&note).ok().as_deref() != Some(&about) {
            remove(&place.root)?;
        }
        private(&place.root)?;
        write(&note, about.as_bytes())?;
        // Of an earlier run: a lock of a killed git would be in the way for ever.
        remove(&place.repository())?;
        let current = place.current();
        place.keep_only(current.as_ref().into_iter().collect())?;
        Ok(place)
    }

    /// Where git keeps what it fetched.
    pub(super) fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }

    /// The revision in force.
    pub(super) fn current(&self) -> Option<Revision> {
        let to = fs::read_link(self.root.join(CURRENT)).ok()?;
        let there = self.root.join(&to).is_dir();
        Revision::parse(to.to_str()?).filter(|_| there)
    }

    /// Throws away what git keeps: the next look begins anew.
    pub(super) fn forget_repository(&self) -> io::Result<()> {
        remove(&self.repository())
    }

    /// Puts a revision in place and in force. The one before stays until the next.
    pub(super) fn put(
        &self,
        revision: &Revision,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> io::Result<()> {
        let whole = self.root.join(revision.as_str());
        if !whole.try_exists()? {
            let half = self.root.join(format!("{}.new", revision.as_str()));
            remove(&half)?;
            private(&half)?;
            for (path, contents) in files {
                let file = half.join(path);
                if let Some(parent) = file.parent() {
                    private(parent)?;
                }
                write(&file, contents)?;
            }
            rustix::fs::syncfs(fs::File::open(&half)?)?;
            fs::rename(&half, &whole)?;
        }
        let before = self.current();
        let link = self.root.join("current.new");
        remove(&link)?;
        symlink(revision.as_str(), &link)?;
        fs::rename(&link, self.root.join(CURRENT))?;
        fs::File::open(&self.root)?.sync_all()?;
        self.keep_only(before.iter().chain([revision]).collect())
    }

    /// Removes all revisions but these.
    fn keep_only(&self, kept: Vec<&Revision>) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            let bare = text.strip_suffix(".new").unwrap_or(&text);
            let is_revision = Revision::parse(bare).is_some();
            if is_revision && !kept.iter().any(|revision| revision.as_str() == text) {
                remove(&self.root.join(&name))?;
            }
        }
        Ok(())
    }
}

/// A directory for its owner alone, whatever the umask, and those above it.
fn private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(path)
}

fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(contents)
}

/// Removes whatever stands there; a link itself.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
