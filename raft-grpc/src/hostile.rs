//! A door for tests: bytes from a peer, as far as a node. Fuzzing chooses them (`fuzz/targets/protobuf.rs`), and
//! the test below draws them.
//!
//! They are taken for a frame, as `service.rs` does it. Of each envelope that the wire allows the node must
//! make something without a panic or a broken invariant; and whatever node says, that envelope or what the
//! node answers, must come out of the wire as it went in.

use bytes::Bytes;
use prost::Message as _;
use raft_core::{
    Ballot, BallotKind, Config, Envelope, GroupId, Incarnation, Input, Instant, Membership,
    Message, Node, NodeId, Output, QuestionId, Restored, RoleKind, Term,
};

use crate::wire;

const SEED: u64 = 1;

fn id(number: u64) -> NodeId {
    NodeId::new(number).expect("numbers from 1")
}

/// The first byte says what the node is before, the others are a frame.
///
/// # Panics
/// If the node, or the way there and back, is not as it must be.
pub fn frame(input: &[u8]) {
    let Some((&first, frame)) = input.split_first() else { return };
    let Ok(frame) = wire::Frame::decode(Bytes::copy_from_slice(frame)) else { return };
    let mut node = Peer::new(first);
    for envelope in frame.envelopes {
        if let Ok(envelope) = Envelope::try_from(envelope) {
            there_and_back(&envelope);
            node.hear(envelope);
        }
    }
}

/// What goes onto the wire comes out of it.
fn there_and_back(envelope: &Envelope) {
    let bytes = wire::Envelope::from(envelope.clone()).encode_to_vec();
    let back = wire::Envelope::decode(&*bytes).map(Envelope::try_from);
    assert_eq!(back, Ok(Ok(envelope.clone())), "the wire has changed it");
}

/// A node of three, whose disk is quick.
struct Peer {
    node: Node,
    now: Instant,
}

impl Peer {
    /// One that has just started, or campaigns, or leads.
    fn new(kind: u8) -> Self {
        let members = Membership::new([1, 2, 3].map(id)).expect("three voters");
        let now = Instant::default();
        let node = Node::new(Config::new(id(1), SEED), Restored::empty(members), now);
        let mut peer = Self { node: node.expect("an empty disk restores"), now };
        let kind = kind % 3;
        if kind > 0 {
            peer.now = peer.node.deadline();
            peer.node.step(peer.now, Input::Timer);
            peer.poll();
        }
        if kind > 1 {
            peer.win(BallotKind::PreVote, 1);
            peer.win(BallotKind::Vote, 2);
            assert_eq!(peer.node.role().0, RoleKind::Leader);
        }
        peer
    }

    fn win(&mut self, kind: BallotKind, number: u64) {
        let ballot = Ballot { kind, campaign: QuestionId { life: SEED, number } };
        self.hear(Envelope {
            group: GroupId(0),
            from: id(2),
            to: id(1),
            term: match kind {
                BallotKind::PreVote => Term(0),
                BallotKind::Vote | BallotKind::Transfer => Term(1),
            },
            incarnation: Incarnation(0),
            message: Message::RequestVoteReply { ballot, granted: true },
        });
    }

    fn hear(&mut self, envelope: Envelope) {
        self.node.step(self.now, Input::Message(envelope));
        self.node.check_invariants();
        self.poll();
    }

    /// Until it wants nothing done: everything that it writes is durable at once.
    fn poll(&mut self) {
        loop {
            let mut output = Output::default();
            self.node.poll(&mut output);
            output.messages.iter().for_each(there_and_back);
            let Some(write) = output.write.take() else { return };
            self.node.step(self.now, Input::Written(write.into_receipt()));
            self.node.check_invariants();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::convert::tests::envelope;

    /// Mostly such as a node may get, so that much of it is reached.
    fn plausible() -> impl Strategy<Value = Envelope> {
        (envelope(), 1..4u64, 0..4u64).prop_map(|(envelope, from, term)| Envelope {
            group: GroupId(0),
            from: id(from),
            to: id(1),
            term: Term(term),
            incarnation: Incarnation(0),
            ..envelope
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_frame_breaks_a_node(
            first in any::<u8>(),
            envelopes in prop::collection::vec(prop_oneof![3 => plausible(), 1 => envelope()], 1..8),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let envelopes = envelopes.into_iter().map(Into::into).collect();
            let mut bytes = vec![first];
            bytes.extend(wire::Frame { envelopes }.encode_to_vec());
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            frame(&bytes);
        }
    }
}
