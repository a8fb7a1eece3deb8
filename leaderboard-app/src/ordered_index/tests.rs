use proptest::prelude::*;

use super::node::{NODE_MAX, NODE_MIN};
use super::*;

/// The slow, obviously right twin: a sorted vector.
#[derive(Clone, Debug, Default)]
struct Twin(Vec<u32>);

impl Twin {
    fn insert(&mut self, key: u32) -> bool {
        match self.0.binary_search(&key) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, key);
                true
            }
        }
    }

    fn remove(&mut self, key: u32) -> bool {
        match self.0.binary_search(&key) {
            Ok(at) => {
                self.0.remove(at);
                true
            }
            Err(_) => false,
        }
    }
}

/// Returns the depth and the number of keys below, after checking every invariant of the type.
fn check_node(node: &Node<u32>, is_root: bool) -> (usize, usize) {
    assert!(node.width() <= NODE_MAX, "overfull: {}", node.width());
    assert!(is_root || node.width() >= NODE_MIN, "underfull: {}", node.width());
    match node {
        Node::Leaf(keys) => (0, keys.len()),
        Node::Inner(inner) => {
            assert!(inner.children.len() > 1, "an inner node with a single child");
            let mut depths = Vec::new();
            let mut total = 0;
            for child in &inner.children {
                let (depth, len) = check_node(&child.node, false);
                assert_eq!(len, child.len);
                depths.push(depth);
                total += len;
            }
            depths.dedup();
            assert_eq!(depths.len(), 1, "leaves at several depths");
            (depths[0] + 1, total)
        }
    }
}

fn check(index: &OrderedIndex<u32>, twin: &Twin) {
    assert_eq!(check_node(&index.root, true).1, index.len());
    assert!(index.iter_from_rank(0).eq(&twin.0), "the keys differ");
    assert_eq!(index.is_empty(), twin.0.is_empty());
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32),
    Remove(u32),
    /// `count` keys from `start`, `stride` apart: long enough runs for three levels.
    InsertRun(u32, u32, u32),
    RemoveRun(u32, u32, u32),
    Query(u32),
    /// Keep a copy of the present state, and look at it again at the end.
    Clone,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..20_000_u32;
    let run = (0..20_000_u32, 1..3_000_u32, prop::sample::select(vec![1, 2, 7, 19_997]));
    prop_oneof![
        2 => key.clone().prop_map(Op::Insert),
        2 => key.clone().prop_map(Op::Remove),
        3 => run.clone().prop_map(|(start, count, stride)| Op::InsertRun(start, count, stride)),
        2 => run.prop_map(|(start, count, stride)| Op::RemoveRun(start, count, stride)),
        3 => key.prop_map(Op::Query),
        1 => Just(Op::Clone),
    ]
}

fn run_keys(start: u32, count: u32, stride: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |n| (start + n * stride) % 20_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn agrees_with_a_sorted_vector(ops in prop::collection::vec(op(), 1..40)) {
        let mut index = OrderedIndex::default();
        let mut twin = Twin::default();
        let mut kept = Vec::new();
        for op in ops {
            match op {
                Op::Insert(key) => prop_assert_eq!(index.insert(key), twin.insert(key)),
                Op::Remove(key) => prop_assert_eq!(index.remove(&key), twin.remove(key)),
                Op::InsertRun(start, count, stride) => {
                    for key in run_keys(start, count, stride) {
                        prop_assert_eq!(index.insert(key), twin.insert(key));
                    }
                }
                Op::RemoveRun(start, count, stride) => {
                    for key in run_keys(start, count, stride) {
                        prop_assert_eq!(index.remove(&key), twin.remove(key));
                    }
                }
                Op::Query(key) => {
                    let place = twin.0.binary_search(&key);
                    prop_assert_eq!(index.rank_of(&key), place.ok());
                    let (Ok(before) | Err(before)) = place;
                    prop_assert_eq!(index.partition_point(|other| *other < key), before);
                    let rank = key as usize;
                    prop_assert_eq!(index.at_rank(rank), twin.0.get(rank));
                    let rest = twin.0.get(before..).unwrap_or_default();
                    prop_assert!(index.iter_from_rank(before).take(200).eq(rest.iter().take(200)));
                }
                Op::Clone => kept.push((index.clone(), twin.clone())),
            }
            check(&index, &twin);
        }
        // Writing to one copy must not show in another.
        for (index, twin) in &kept {
            check(index, twin);
        }
    }
}

#[test]
fn grows_to_four_levels_and_shrinks_to_nothing() {
    let mut index = OrderedIndex::default();
    let count = 300_000_u32;
    // A multiplier prime to the count visits every key once, in an order far from sorted.
    let shuffled = |n: u32| u32::try_from(u64::from(n) * 7_919 % u64::from(count)).unwrap();
    for n in 0..count {
        assert!(index.insert(shuffled(n)));
    }
    let (depth, len) = check_node(&index.root, true);
    assert!(depth >= 3, "depth {depth}");
    assert_eq!(len, count as usize);
    for rank in (0..count).step_by(997) {
        assert_eq!(index.at_rank(rank as usize), Some(&rank));
        assert_eq!(index.rank_of(&rank), Some(rank as usize));
    }
    for n in 0..count {
        assert!(index.remove(&shuffled(n)));
    }
    check(&index, &Twin::default());
    assert_eq!(index.at_rank(0), None);
    assert_eq!(index.iter_from_rank(usize::MAX).next(), None);
}

#[test]
fn a_clone_shares_what_is_not_touched() {
    let mut index: OrderedIndex<u32> = OrderedIndex::default();
    for key in 0..10_000 {
        index.insert(key);
    }
    let before = index.clone();
    assert!(!index.insert(5), "present");
    assert!(!index.remove(&20_000), "absent");
    assert!(Arc::ptr_eq(&before.root, &index.root), "a refused change copies nothing");
    assert!(index.remove(&5));
    let (Node::Inner(old), Node::Inner(new)) = (&*before.root, &*index.root) else {
        panic!("10,000 keys need more than one level");
    };
    let shared = old.children.iter().zip(&new.children);
    let copied = shared.filter(|(old, new)| !Arc::ptr_eq(&old.node, &new.node)).count();
    assert_eq!(copied, 1, "only the path to the key is copied");
    assert_eq!(before.rank_of(&5), Some(5));
}
