//! Directories, modes and symlinks: the three-way merge of what has no content.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{LocalKind, RelPath, Scan, Tree, TreeChange};

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
            LocalKind::File { .. } | LocalKind::Placeholder { .. } => (),
        }
    }
    tree
}

/// The three sides of a merge.
pub(super) struct Sides<'a> {
    /// What both agreed on last.
    pub base: &'a Tree,
    /// What stands here.
    pub local: &'a Tree,
    /// What the store has; where it says nothing of trees, what it had.
    pub remote: &'a Tree,
}

/// A path of a tree, and what became of it.
enum Fate<V> {
    /// It is in the next tree, and here if it was.
    Stays(V),
    /// It is in the next tree, and what stands here is another.
    Follows(V),
    /// It was deleted there and is as it was here.
    Goes,
    /// It was deleted here.
    Gone,
}

/// One path: what one side alone changed is followed; what both changed is as it stands here.
/// Without a base the value here stays (`theirs`: follows), and nothing goes.
fn fate<V: Clone + PartialEq>(
    base: Option<&V>,
    local: Option<&V>,
    remote: Option<&V>,
    theirs: bool,
) -> Fate<V> {
    match (local, remote) {
        (Some(here), Some(there)) if here == there => Fate::Stays(here.clone()),
        (Some(here), Some(there)) if base == Some(here) || (base.is_none() && theirs) => {
            Fate::Follows(there.clone())
        }
        (Some(here), None) if base == Some(here) => Fate::Goes,
        (Some(here), _) => Fate::Stays(here.clone()),
        (None, Some(there)) if base == Some(there) => Fate::Gone,
        (None, Some(there)) => Fate::Stays(there.clone()),
        (None, None) => Fate::Gone,
    }
}

/// The next tree, and what of it must go or change here. `unseen`: nothing is known of the path
/// here; `occupied`: something lies beneath that stays or cannot be seen.
pub(super) fn merge(
    sides: &Sides<'_>,
    unseen: impl Fn(&RelPath) -> bool,
    occupied: impl Fn(&RelPath) -> bool,
) -> (Tree, TreeChange) {
    let Sides { base, local, remote } = sides;
    let (mut next, mut change) = (Tree::default(), TreeChange::default());
    for path in union(&local.symlinks, &remote.symlinks) {
        let (here, there) = (local.symlinks.get(path), remote.symlinks.get(path));
        match fate(base.symlinks.get(path), here, there, false) {
            Fate::Stays(text) => {
                next.symlinks.insert(path.clone(), text);
            }
            Fate::Follows(text) => {
                change.symlinks.extend(here.map(|here| (path.clone(), here.clone())));
                next.symlinks.insert(path.clone(), text);
            }
            Fate::Goes => {
                change.symlinks.extend(here.map(|here| (path.clone(), here.clone())));
            }
            Fate::Gone if unseen(path) => {
                next.symlinks.extend(there.map(|there| (path.clone(), there.clone())));
            }
            Fate::Gone => (),
        }
    }
    // What is in a directory sorts after it: from the end on, its inside is decided before it.
    for path in union(&local.directories, &remote.directories).into_iter().rev() {
        let (here, there) = (local.directories.get(path), remote.directories.get(path));
        let needed =
            || occupied(path) || beneath(&next.directories, path) || beneath(&next.symlinks, path);
        let mode = match fate(base.directories.get(path), here, there, true) {
            Fate::Stays(mode) => Some(mode),
            Fate::Follows(mode) => {
                change.modes.extend(here.map(|here| (path.clone(), (*here, mode))));
                Some(mode)
            }
            Fate::Goes if !needed() => {
                change.directories.insert(path.clone());
                None
            }
            Fate::Goes => here.copied(),
            Fate::Gone if unseen(path) || needed() => there.copied(),
            Fate::Gone => None,
        };
        next.directories.extend(mode.map(|mode| (path.clone(), mode)));
    }
    (next, change)
}

fn union<'a, V>(
    one: &'a BTreeMap<RelPath, V>,
    other: &'a BTreeMap<RelPath, V>,
) -> Vec<&'a RelPath> {
    let all: BTreeSet<&RelPath> = one.keys().chain(other.keys()).collect();
    all.into_iter().collect()
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
    tree.symlinks.retain(|path, _| !beneath_file(path) && !beneath(files, path));
    let links: Vec<RelPath> = tree.symlinks.keys().cloned().collect();
    for link in links {
        let inside = [link.as_bytes(), b"/"].concat();
        tree.directories.retain(|path, _| *path != link && !path.as_bytes().starts_with(&inside));
        tree.symlinks.retain(|path, _| !path.as_bytes().starts_with(&inside));
    }
}

/// Whether a map has a path beneath a directory.
pub(super) fn beneath<V>(files: &BTreeMap<RelPath, V>, directory: &RelPath) -> bool {
    let inside = [directory.as_bytes(), b"/"].concat();
    let Ok(first) = RelPath::parse(&[&inside, b"\x01".as_slice()].concat()) else { return false };
    files.range(first..).next().is_some_and(|(path, _)| path.as_bytes().starts_with(&inside))
}
