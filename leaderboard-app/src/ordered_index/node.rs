//! The nodes of the tree: how they split, borrow and merge.

use std::sync::Arc;

/// The most keys in a leaf and children in an inner node.
pub(super) const NODE_MAX: usize = 64;
/// The fewest, but in the root. A quarter, not a half: a score that goes up and down at a boundary then
/// does not split and merge each time.
pub(super) const NODE_MIN: usize = NODE_MAX / 4;

#[derive(Clone, Debug)]
pub(super) enum Node<K> {
    Leaf(Vec<K>),
    Inner(Inner<K>),
}

/// Invariant: all keys below child `i` are at least `children[i].first` and less than
/// `children[i + 1].first`. The first key of a child may have been removed since: `first` separates,
/// it need not be present. Child 0 has nothing before it to be separated from: its `first` is never
/// looked at and means nothing.
#[derive(Clone, Debug)]
pub(super) struct Inner<K> {
    pub(super) children: Vec<Child<K>>,
}

#[derive(Clone, Debug)]
pub(super) struct Child<K> {
    pub(super) first: K,
    pub(super) len: usize,
    pub(super) node: Arc<Node<K>>,
}

impl<K> Node<K> {
    /// Keys in a leaf, children in an inner node: what [`NODE_MAX`] and [`NODE_MIN`] bound.
    pub(super) const fn width(&self) -> usize {
        match self {
            Self::Leaf(keys) => keys.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    /// How many keys there are below, one level deep.
    fn count(&self) -> usize {
        match self {
            Self::Leaf(keys) => keys.len(),
            Self::Inner(inner) => inner.children.iter().map(|child| child.len).sum(),
        }
    }

    /// The child of an inner node that has no other, which then is a root too many.
    pub(super) fn only_child(&self) -> Option<Arc<Self>> {
        match self {
            Self::Inner(inner) if inner.children.len() == 1 => {
                Some(Arc::clone(&inner.children[0].node))
            }
            _ => None,
        }
    }
}

impl<K: Ord> Inner<K> {
    /// Below which child `key` is or would be.
    pub(super) fn child_for(&self, key: &K) -> usize {
        self.children[1..].partition_point(|child| child.first <= *key)
    }
}

impl<K: Ord + Clone> Node<K> {
    /// Adds a key that is not there. Returns the right half, to be placed after this node, if it had
    /// to split.
    pub(super) fn insert(&mut self, key: K) -> Option<Child<K>> {
        match self {
            Self::Leaf(keys) => {
                let at = keys.partition_point(|other| *other < key);
                keys.insert(at, key);
            }
            Self::Inner(inner) => {
                let at = inner.child_for(&key);
                let child = &mut inner.children[at];
                let split = Arc::make_mut(&mut child.node).insert(key);
                child.len += 1;
                if let Some(right) = split {
                    child.len -= right.len;
                    inner.children.insert(at + 1, right);
                }
            }
        }
        (self.width() > NODE_MAX).then(|| self.split_off(self.width() / 2))
    }

    /// Removes a key that is there.
    pub(super) fn remove(&mut self, key: &K) {
        match self {
            Self::Leaf(keys) => {
                if let Ok(at) = keys.binary_search(key) {
                    keys.remove(at);
                }
            }
            Self::Inner(inner) => {
                let at = inner.child_for(key);
                let child = &mut inner.children[at];
                let node = Arc::make_mut(&mut child.node);
                node.remove(key);
                child.len -= 1;
                if node.width() < NODE_MIN {
                    inner.refill(at);
                }
            }
        }
    }

    /// Keeps the first `at` keys or children and returns the others as a node of their own.
    fn split_off(&mut self, at: usize) -> Child<K> {
        let (first, right) = match self {
            Self::Leaf(keys) => {
                let right = keys.split_off(at);
                (right[0].clone(), Self::Leaf(right))
            }
            Self::Inner(inner) => {
                let children = inner.children.split_off(at);
                (children[0].first.clone(), Self::Inner(Inner { children }))
            }
        };
        Child { first, len: right.count(), node: Arc::new(right) }
    }

    /// Takes over all that `right` holds, whose keys follow and before which `separator` stands.
    fn append(&mut self, right: Self, separator: K) {
        match (self, right) {
            (Self::Leaf(keys), Self::Leaf(mut right)) => keys.append(&mut right),
            (Self::Inner(inner), Self::Inner(mut right)) => {
                // It was a first child, whose bound means nothing; from now on it separates.
                right.children[0].first = separator;
                inner.children.append(&mut right.children);
            }
            _ => unreachable!("siblings are on one level, so both are leaves or neither is"),
        }
    }
}

impl<K: Ord + Clone> Inner<K> {
    /// Puts a new root above `root`, which has split and now holds the left half of `len` keys.
    pub(super) fn grow(root: &mut Arc<Node<K>>, len: usize, right: Child<K>) {
        // The first child's bound means nothing, so any key will do for it.
        let left =
            Child { first: right.first.clone(), len: len - right.len, node: Arc::clone(root) };
        *root = Arc::new(Node::Inner(Self { children: vec![left, right] }));
    }

    /// Child `at` has too few: merges it with a neighbour, and splits them evenly if that is too much.
    fn refill(&mut self, at: usize) {
        if self.children.len() < 2 {
            return;
        }
        let left = at.saturating_sub(1);
        let right = self.children.remove(left + 1);
        let child = &mut self.children[left];
        let node = Arc::make_mut(&mut child.node);
        node.append(Arc::unwrap_or_clone(right.node), right.first);
        child.len += right.len;
        if node.width() > NODE_MAX {
            let half = node.split_off(node.width() / 2);
            child.len -= half.len;
            self.children.insert(left + 1, half);
        }
    }
}
