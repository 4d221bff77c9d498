//! Directories, modes and symlinks: the three-way merge of what has no content.

use std::collections::BTreeMap;

use crate::model::{LocalKind, RelPath, Scan, Tree};

/// What the scan saw of directories and symlinks.
pub(super) fn local(scan: &Scan) -> Tree {
    let mut tree = Tree::default();
    for (path, entry) in &scan.entries {
        match &entry.kind {
            LocalKind::Directory => {
                tree.directories.insert(path.clone(), entry.mode);
            }
            LocalKind::Symlink(target) => {
                tree.symlinks.insert(path.clone(), target.clone());
            }
            LocalKind::File { .. } | LocalKind::Placeholder => (),
        }
    }
    tree
}

/// The next tree. What stands here stays: directories and links are never removed or changed here,
/// so the store follows. What is only there comes, unless it was deleted here.
pub(super) fn merge(
    base: &Tree,
    local: &Tree,
    remote: &Tree,
    unseen: impl Fn(&RelPath) -> bool,
) -> Tree {
    Tree {
        directories: side(&base.directories, &local.directories, &remote.directories, &unseen),
        symlinks: side(&base.symlinks, &local.symlinks, &remote.symlinks, &unseen),
    }
}

fn side<V: Clone + PartialEq>(
    base: &BTreeMap<RelPath, V>,
    local: &BTreeMap<RelPath, V>,
    remote: &BTreeMap<RelPath, V>,
    unseen: impl Fn(&RelPath) -> bool,
) -> BTreeMap<RelPath, V> {
    let mut next = local.clone();
    for (path, theirs) in remote {
        let deleted_here = base.get(path) == Some(theirs) && !unseen(path);
        if !local.contains_key(path) && !deleted_here {
            next.insert(path.clone(), theirs.clone());
        }
    }
    next
}

/// Takes out what stands where a file stands or must lie beneath one, and links above files.
pub(super) fn without_collisions<'a, V>(
    tree: &mut Tree,
    files: &'a BTreeMap<RelPath, V>,
    stands: impl Fn(&RelPath) -> bool + 'a,
) {
    let beneath_file = |path: &RelPath| {
        let mut at = Some(path.clone());
        while let Some(top) = at {
            if files.contains_key(&top) || stands(&top) {
                return true;
            }
            at = top.parent();
        }
        false
    };
    tree.directories.retain(|path, _| !beneath_file(path));
    tree.symlinks.retain(|path, _| !beneath_file(path) && !has_files(files, path));
    let links: Vec<RelPath> = tree.symlinks.keys().cloned().collect();
    for link in links {
        let inside = [link.as_bytes(), b"/"].concat();
        tree.directories.retain(|path, _| *path != link && !path.as_bytes().starts_with(&inside));
        tree.symlinks.retain(|path, _| !path.as_bytes().starts_with(&inside));
    }
}

fn has_files<V>(files: &BTreeMap<RelPath, V>, directory: &RelPath) -> bool {
    let inside = [directory.as_bytes(), b"/"].concat();
    let Ok(first) = RelPath::parse(&[&inside, b"\x01".as_slice()].concat()) else { return false };
    files.range(first..).next().is_some_and(|(path, _)| path.as_bytes().starts_with(&inside))
}
