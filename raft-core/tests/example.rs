//! The example that the documentation sends people to first: what it claims, it asserts.

#[path = "../examples/election_by_hand.rs"]
mod election_by_hand;

#[test]
fn election_by_hand_keeps_its_claims() {
    election_by_hand::main().unwrap();
}
