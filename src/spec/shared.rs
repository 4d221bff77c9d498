//! A map whose copies share what is the same in them: a copy costs nothing, a change to one of them
//! a path of nodes, and two are compared by what is different. So a watcher can hand over all that
//! it knows at each change, and whoever takes it finds the change without a walk over the rest.
//!
//! 1. It is a treap: ordered by key, and a heap by a number that is made of the key. Thus the same
//!    keys always make the same tree, however they came to be in it.
//! 2. A node that two maps share is not looked into, nor what is below it.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// A map by text, in the order of the keys. Clones share their nodes.
#[derive(Clone)]
pub struct Shared<V> {
    root: Tree<V>,
}

type Tree<V> = Option<Arc<Node<V>>>;
type Seen<'a, V> = Option<&'a Arc<Node<V>>>;

#[derive(Clone)]
struct Node<V> {
    key: Arc<str>,
    /// The larger is above; of two alike, the smaller key.
    rank: u64,
    value: V,
    left: Tree<V>,
    right: Tree<V>,
}

impl<V: Clone> Shared<V> {
    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&V> {
        let mut at = self.root.as_deref();
        while let Some(node) = at {
            at = match key.cmp(&node.key) {
                Ordering::Less => node.left.as_deref(),
                Ordering::Greater => node.right.as_deref(),
                Ordering::Equal => return Some(&node.value),
            };
        }
        None
    }

    /// The same, to be changed: what others share of it is copied first.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.get(key)?;
        let mut at = self.root.as_mut();
        while let Some(node) = at {
            let node = Arc::make_mut(node);
            at = match key.cmp(&node.key) {
                Ordering::Less => node.left.as_mut(),
                Ordering::Greater => node.right.as_mut(),
                Ordering::Equal => return Some(&mut node.value),
            };
        }
        None
    }

    /// Whether anything stands under a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value under a key, in place of what stood there.
    pub fn insert(&mut self, key: &str, value: V) {
        match self.get_mut(key) {
            Some(before) => *before = value,
            None => put(&mut self.root, key, rank(key), value),
        }
    }

    /// Takes out what stands under a key, and says what it was.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let value = self.get(key)?.clone();
        take(&mut self.root, key);
        Some(value)
    }

    /// All of it, in the order of the keys.
    pub fn iter(&self) -> Iter<'_, V> {
        let mut iter = Iter { above: Vec::new() };
        iter.descend(self.root.as_deref());
        iter
    }

    /// Its keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    /// Its values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The keys under which two maps differ, those that only one of them has among them. Costs what
    /// is different in them, where one was made of the other, and else a walk over both.
    pub fn different(&self, other: &Self, is_same: impl Fn(&V, &V) -> bool) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        compare(self.root.as_ref(), other.root.as_ref(), &is_same, &mut keys);
        keys
    }
}

/// Walks a map in the order of its keys.
pub struct Iter<'a, V> {
    /// What comes next, at the end, and after it what is above it and greater.
    above: Vec<&'a Node<V>>,
}

impl<'a, V> Iter<'a, V> {
    fn descend(&mut self, mut at: Option<&'a Node<V>>) {
        while let Some(node) = at {
            self.above.push(node);
            at = node.left.as_deref();
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a str, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.above.pop()?;
        self.descend(node.right.as_deref());
        Some((&node.key, &node.value))
    }
}

impl<'a, V: Clone> IntoIterator for &'a Shared<V> {
    type Item = (&'a str, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}

impl<V> Default for Shared<V> {
    fn default() -> Self {
        Shared { root: None }
    }
}

impl<V: Clone> FromIterator<(String, V)> for Shared<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(all: I) -> Self {
        let mut map = Shared::default();
        for (key, value) in all {
            map.insert(&key, value);
        }
        map
    }
}

impl<V: Clone + PartialEq> PartialEq for Shared<V> {
    fn eq(&self, other: &Self) -> bool {
        self.different(other, V::eq).is_empty()
    }
}

impl<V: Clone + fmt::Debug> fmt::Debug for Shared<V> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_map().entries(self).finish()
    }
}

/// A number that nobody chooses by the name of a file, or the tree could be made a list.
fn rank(key: &str) -> u64 {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().take(8).fold(0, |rank, byte| rank << 8 | u64::from(*byte))
}

/// Whether a key of this rank stands above another.
fn is_above(rank: u64, key: &str, other: u64, than: &str) -> bool {
    rank > other || rank == other && key < than
}

/// Puts in a key that is not there.
fn put<V: Clone>(tree: &mut Tree<V>, key: &str, rank: u64, value: V) {
    match tree {
        Some(node) if is_above(node.rank, &node.key, rank, key) => {
            let node = Arc::make_mut(node);
            let side = if key < &*node.key { &mut node.left } else { &mut node.right };
            put(side, key, rank, value);
        }
        _ => {
            let (left, right) = split(tree.as_ref(), key);
            *tree = Some(Arc::new(Node { key: key.into(), rank, value, left, right }));
        }
    }
}

/// Takes out a key that is there.
fn take<V: Clone>(tree: &mut Tree<V>, key: &str) {
    let Some(node) = tree else { return };
    let side = match key.cmp(&node.key) {
        Ordering::Equal => {
            let (left, right) = (node.left.clone(), node.right.clone());
            *tree = join(left, right);
            return;
        }
        Ordering::Less => &mut Arc::make_mut(node).left,
        Ordering::Greater => &mut Arc::make_mut(node).right,
    };
    take(side, key);
}

/// What is before a key and what is after it. The key itself is in neither.
fn split<V: Clone>(tree: Seen<'_, V>, key: &str) -> (Tree<V>, Tree<V>) {
    let Some(node) = tree else { return (None, None) };
    match key.cmp(&node.key) {
        Ordering::Equal => (node.left.clone(), node.right.clone()),
        Ordering::Less => {
            let (before, after) = split(node.left.as_ref(), key);
            (before, Some(Arc::new(Node { left: after, ..Node::clone(node) })))
        }
        Ordering::Greater => {
            let (before, after) = split(node.right.as_ref(), key);
            (Some(Arc::new(Node { right: before, ..Node::clone(node) })), after)
        }
    }
}

/// One tree of two, all keys of the first before those of the second.
fn join<V: Clone>(left: Tree<V>, right: Tree<V>) -> Tree<V> {
    match (left, right) {
        (None, one) | (one, None) => one,
        (Some(mut one), Some(mut other)) => {
            if is_above(one.rank, &one.key, other.rank, &other.key) {
                let node = Arc::make_mut(&mut one);
                node.right = join(node.right.take(), Some(other));
                Some(one)
            } else {
                let node = Arc::make_mut(&mut other);
                node.left = join(Some(one), node.left.take());
                Some(other)
            }
        }
    }
}

fn compare<V: Clone>(
    one: Seen<'_, V>,
    other: Seen<'_, V>,
    is_same: &impl Fn(&V, &V) -> bool,
    keys: &mut BTreeSet<String>,
) {
    let top = match (one, other) {
        (None, None) => return,
        (Some(one), Some(other)) if Arc::ptr_eq(one, other) => return,
        (Some(one), Some(other)) if one.key == other.key => {
            if !is_same(&one.value, &other.value) {
                keys.insert(one.key.to_string());
            }
            compare(one.left.as_ref(), other.left.as_ref(), is_same, keys);
            return compare(one.right.as_ref(), other.right.as_ref(), is_same, keys);
        }
        (Some(one), Some(other)) if is_above(one.rank, &one.key, other.rank, &other.key) => one,
        (_, Some(other)) => other,
        (Some(one), None) => one,
    };
    // It would be above in both, if both had it.
    keys.insert(top.key.to_string());
    let ((one, more), (other, further)) = (split(one, &top.key), split(other, &top.key));
    compare(one.as_ref(), other.as_ref(), is_same, keys);
    compare(more.as_ref(), further.as_ref(), is_same, keys);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_whose_copies_stay_and_whose_differences_are_found(
            steps in prop::collection::vec((0u8..40, prop::option::of(0u8..3)), 0..120),
            kept in 0usize..120,
        ) {
            let (mut map, mut model) = (Shared::default(), BTreeMap::new());
            let (mut copy, mut copied) = (map.clone(), model.clone());
            for (step, (key, value)) in steps.into_iter().enumerate() {
                let key = format!("k{key}");
                match value {
                    Some(value) => {
                        map.insert(&key, value);
                        model.insert(key, value);
                    }
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                if step == kept {
                    (copy, copied) = (map.clone(), model.clone());
                }
            }
            for (map, model) in [(&map, &model), (&copy, &copied)] {
                let all: BTreeMap<String, u8> = map.iter().map(|(k, v)| (k.to_owned(), *v)).collect();
                prop_assert_eq!(&all, model);
                prop_assert!(map.keys().eq(model.keys().map(String::as_str)), "in order");
                prop_assert!(model.iter().all(|(key, value)| map.get(key) == Some(value)));
                let anew: Shared<u8> = model.clone().into_iter().collect();
                prop_assert!(*map == anew, "the way it came to be is not seen");
            }
            let keys = model.keys().chain(copied.keys());
            let want: BTreeSet<String> = keys.filter(|k| model.get(*k) != copied.get(*k)).cloned().collect();
            prop_assert_eq!(map.different(&copy, u8::eq), want.clone());
            prop_assert_eq!(copy.different(&map, u8::eq), want);
        }
    }

    /// PERF: the cost of one change does not grow with what does not change.
    #[test]
    fn a_change_among_many_is_found_without_a_look_at_the_rest() {
        let before: Shared<usize> = (0..10_000).map(|n| (format!("s{n}.yaml"), n)).collect();
        let mut after = before.clone();
        after.insert("s5000.yaml", 1);
        after.insert("t.yaml", 1);
        after.remove("s17.yaml");
        let looks = Cell::new(0);
        let different = before.different(&after, |one, other| {
            looks.set(looks.get() + 1);
            one == other
        });
        assert!(different.iter().eq(["s17.yaml", "s5000.yaml", "t.yaml"]), "{different:?}");
        assert!(looks.get() < 200, "{} values were compared", looks.get());
    }
}
