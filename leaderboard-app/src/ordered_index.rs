//! A sorted set that knows ranks: a counted B+tree with copy-on-write nodes.
//!
//! Each inner node keeps the number of keys below each child beside it, so that "how many keys come
//! before this one" and "which key is at this rank" touch one node per level. Nodes are shared by
//! `Arc`: a clone of the set is O(1), and a later change copies only the path that it touches.
//!
//! Nothing observable depends on the shape of the tree, only on the keys in it.

use std::sync::Arc;

mod node;
#[cfg(test)]
mod tests;

use node::{Inner, Node};

/// A sorted set of keys with ranks. `insert`, `remove`, `rank_of`, `partition_point` and `at_rank`
/// take O(log n); `clone` takes O(1).
///
/// Invariants (checked after every step in the tests): keys ascend strictly; all leaves are at one
/// depth; every node but the root is at least a quarter full, no node is overfull; each count equals
/// the number of keys below.
#[derive(Clone, Debug)]
pub struct OrderedIndex<K> {
    len: usize,
    root: Arc<Node<K>>,
}

impl<K> Default for OrderedIndex<K> {
    fn default() -> Self {
        Self { len: 0, root: Arc::new(Node::Leaf(Vec::new())) }
    }
}

impl<K> OrderedIndex<K> {
    /// How many keys there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key with `rank` keys before it (0 is the first), or `None` past the end.
    #[must_use]
    pub fn at_rank(&self, rank: usize) -> Option<&K> {
        self.iter_from_rank(rank).next()
    }

    /// The keys in order, from the one with `rank` keys before it. O(log n) to start, then O(1) each.
    #[must_use]
    pub fn iter_from_rank(&self, rank: usize) -> Iter<'_, K> {
        let mut iter = Iter { path: Vec::new(), leaf: &[] };
        if rank < self.len {
            iter.descend(&self.root, rank);
        }
        iter
    }
}

impl<K: Ord> OrderedIndex<K> {
    /// How many keys come before `key`, or `None` if it is not in the set.
    #[must_use]
    pub fn rank_of(&self, key: &K) -> Option<usize> {
        let before = self.partition_point(|other| other < key);
        (self.at_rank(before) == Some(key)).then_some(before)
    }

    /// How many keys the predicate holds for. It must hold for a prefix of the order and for nothing
    /// after it, as in [`slice::partition_point`]; so bounds need not be whole keys.
    #[must_use]
    pub fn partition_point(&self, holds: impl Fn(&K) -> bool) -> usize {
        let mut before = 0;
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.children[1..].partition_point(|child| holds(&child.first));
                    before += inner.children[..at].iter().map(|child| child.len).sum::<usize>();
                    node = &inner.children[at].node;
                }
                Node::Leaf(keys) => return before + keys.partition_point(holds),
            }
        }
    }
}

impl<K: Ord + Clone> OrderedIndex<K> {
    /// Adds a key. Returns false, and changes nothing, if it was there.
    pub fn insert(&mut self, key: K) -> bool {
        if self.rank_of(&key).is_some() {
            // Looking first keeps a refused insert from copying shared nodes.
            return false;
        }
        if let Some(right) = Arc::make_mut(&mut self.root).insert(key) {
            Inner::grow(&mut self.root, self.len + 1, right);
        }
        self.len += 1;
        true
    }

    /// Removes a key. Returns false, and changes nothing, if it was not there.
    pub fn remove(&mut self, key: &K) -> bool {
        if self.rank_of(key).is_none() {
            return false;
        }
        let root = Arc::make_mut(&mut self.root);
        root.remove(key);
        if let Some(only) = root.only_child() {
            self.root = only;
        }
        self.len -= 1;
        true
    }
}

/// The keys of an [`OrderedIndex`] in ascending order.
#[derive(Clone, Debug)]
pub struct Iter<'a, K> {
    /// The inner nodes above the leaf, each with the child to visit next.
    path: Vec<(&'a Inner<K>, usize)>,
    /// What is left of the current leaf.
    leaf: &'a [K],
}

impl<'a, K> Iter<'a, K> {
    /// Goes down to the key with `rank` keys before it below `node`; there are more than `rank`.
    fn descend(&mut self, mut node: &'a Node<K>, mut rank: usize) {
        loop {
            match node {
                Node::Inner(inner) => {
                    let mut at = 0;
                    while rank >= inner.children[at].len {
                        rank -= inner.children[at].len;
                        at += 1;
                    }
                    self.path.push((inner, at + 1));
                    node = &inner.children[at].node;
                }
                Node::Leaf(keys) => {
                    self.leaf = &keys[rank..];
                    return;
                }
            }
        }
    }
}

impl<'a, K> Iterator for Iter<'a, K> {
    type Item = &'a K;

    fn next(&mut self) -> Option<&'a K> {
        loop {
            if let Some((first, rest)) = self.leaf.split_first() {
                self.leaf = rest;
                return Some(first);
            }
            let (inner, next) = self.path.pop()?;
            if let Some(child) = inner.children.get(next) {
                self.path.push((inner, next + 1));
                self.descend(&child.node, 0);
            }
        }
    }
}
