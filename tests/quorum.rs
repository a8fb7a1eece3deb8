//! Quorum arithmetic against an obviously right twin: a value is reached by a quorum if, in each half
//! of the configuration, the nodes that reached it outnumber those that did not.

use proptest::prelude::*;
use raft_core::{Membership, NodeId};

fn node(id: u64) -> NodeId {
    NodeId::new(id).expect("the strategies start at 1")
}

fn ids(max: usize) -> impl Strategy<Value = Vec<NodeId>> {
    proptest::collection::vec((1..=12u64).prop_map(node), 0..=max)
}

/// More than half of `half` by counting both sides; an empty half has no say.
fn outnumber(half: &[NodeId], has: &dyn Fn(NodeId) -> bool) -> bool {
    let yes = half.iter().filter(|id| has(**id)).count();
    let no = half.iter().filter(|id| !has(**id)).count();
    half.is_empty() || yes > no
}

proptest! {
    #[test]
    fn quorum_agrees_with_counting(
        voters in ids(9), outgoing in ids(9), has in proptest::collection::vec(any::<bool>(), 13),
    ) {
        prop_assume!(!voters.is_empty());
        let membership = Membership::from_parts(voters, outgoing, []).unwrap();
        let has = |id: NodeId| has[id.get() as usize];
        let expected =
            outnumber(membership.voters(), &has) && outnumber(membership.outgoing(), &has);
        prop_assert_eq!(membership.is_quorum(has), expected);
    }

    #[test]
    fn quorum_value_is_the_greatest_that_a_quorum_reached(
        voters in ids(9), outgoing in ids(9), value in proptest::collection::vec(0..6u64, 13),
    ) {
        prop_assume!(!voters.is_empty());
        let membership = Membership::from_parts(voters, outgoing, []).unwrap();
        let value = |id: NodeId| value[id.get() as usize];
        let expected = (0..6)
            .rev()
            .find(|reached| membership.is_quorum(|id| value(id) >= *reached))
            .expect("everyone has reached 0");
        prop_assert_eq!(membership.quorum_value(value), expected);
    }

    #[test]
    fn any_two_quorums_of_one_configuration_meet(
        voters in ids(9), outgoing in ids(9),
        a in proptest::collection::vec(any::<bool>(), 13),
        b in proptest::collection::vec(any::<bool>(), 13),
    ) {
        prop_assume!(!voters.is_empty());
        let membership = Membership::from_parts(voters, outgoing, []).unwrap();
        let (a, b) = (|id: NodeId| a[id.get() as usize], |id: NodeId| b[id.get() as usize]);
        if membership.is_quorum(a) && membership.is_quorum(b) {
            prop_assert!(membership.nodes().any(|id| a(id) && b(id)));
        }
    }
}
