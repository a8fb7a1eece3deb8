//! A door for tests: bytes from a peer, as far as a node, a caller that waits, or a refusal. Fuzzing chooses
//! them (`fuzz/targets/protobuf.rs`), and the tests below draw them.
//!
//! They are taken for a frame, as `service.rs` does it. Of each envelope that the wire allows the node must
//! make something without a panic or a broken invariant; and whatever node says, that envelope or what the
//! node answers, must come out of the wire as it went in. Or they are taken for what else travels: greetings
//! of either side, proposals and answers that are forwarded, and orders of operators with what came of them.

use bytes::Bytes;
use prost::Message as _;
use raft_core::{
    Ballot, BallotKind, Config, Envelope, GroupId, Incarnation, Input, Instant, Membership,
    Message, Node, NodeId, Output, QuestionId, Restored, RoleKind, Term,
};

use crate::convert::{
    answer_from_wire, answer_to_wire, incarnation_to_wire, order_from_wire,
    order_outcome_from_wire, order_outcome_to_wire, order_to_wire,
};
use crate::error::Unknown;
use crate::handshake::{Caller, Identity, Refusal, identity_of};
use crate::pending::Failure;
use crate::wire;

const SEED: u64 = 1;

fn id(number: u64) -> NodeId {
    NodeId::new(number).expect("numbers from 1")
}

/// The first byte says what the others are taken for.
///
/// # Panics
/// If what comes of them is not as it must be.
pub fn bytes(input: &[u8]) {
    let Some((&first, bytes)) = input.split_first() else { return };
    match first % 8 {
        3 => hello(bytes),
        4 => welcome(bytes),
        5 => answers(bytes),
        6 => order(bytes),
        7 => order_reply(bytes),
        kind => frame(kind, bytes),
    }
}

/// `kind` says what the node is before.
fn frame(kind: u8, bytes: &[u8]) {
    let Ok(frame) = wire::Frame::decode(Bytes::copy_from_slice(bytes)) else { return };
    let mut node = Peer::new(kind);
    for envelope in frame.envelopes {
        if let Ok(envelope) = Envelope::try_from(envelope) {
            there_and_back(&envelope);
            node.hear(envelope);
        }
    }
}

/// This node, as `handshake.rs` knows it: one of three, of which nobody else may be it.
fn this() -> Identity {
    identity_of("one", 1, &[1, 2, 3], 0)
}

/// Only another member that means this node and this cluster is let in, and is who it says it is.
fn hello(bytes: &[u8]) {
    let Ok(hello) = wire::Hello::decode(bytes) else { return };
    match this().check_hello(&hello) {
        Ok(Caller { id: caller, incarnation }) => {
            let told = hello.membership.clone().and_then(|told| Membership::try_from(told).ok());
            let newer = told.filter(|_| hello.membership_index > 0);
            let is_member = caller == id(2) || caller == id(3);
            let says_so = newer.is_some_and(|newer| newer.contains(caller));
            assert!(caller != id(1) && (is_member || says_so), "{caller} was let in");
            assert_eq!((hello.from, hello.to, &*hello.cluster), (caller.get(), 1, "one"));
            assert_eq!(incarnation_to_wire(incarnation), hello.incarnation, "as somebody else");
        }
        Err(why) => refused(&why),
    }
}

/// Only the node that was meant is taken for it.
fn welcome(bytes: &[u8]) {
    let Ok(welcome) = wire::Welcome::decode(bytes) else { return };
    let named = welcome.node;
    match this().check_welcome(Some(welcome), id(2)) {
        Ok(()) => assert_eq!(named, 2, "another node was taken for n2"),
        Err(why) => {
            let may_be = matches!(why, Refusal::Malformed(_) | Refusal::Version { .. });
            assert!(named != 2 || may_be, "n2 was not taken for itself");
            refused(&why);
        }
    }
}

/// A refusal is one line of an operator's log, and no longer than a peer may make it.
fn refused(why: &Refusal) {
    let line = why.to_string();
    assert!(!line.is_empty() && !line.contains(['\n', '\r', '\u{1b}']), "{line:?}");
    // The name of a cluster is cut at 64 characters, none of which takes more than ten when it is escaped.
    assert!(line.len() < 1000, "{} bytes", line.len());
}

/// What a leader answers is what a follower understands, and what nobody understands is told as unknown.
fn answers(bytes: &[u8]) {
    let Ok(answers) = wire::Answers::decode(Bytes::copy_from_slice(bytes)) else { return };
    for wire::Answer { id, outcome } in answers.answers {
        let is_missing = outcome.is_none();
        let answer = answer_from_wire(outcome);
        if is_missing {
            assert_eq!(answer, Err(Unknown::ConnectionLost.into()), "an answer made up");
        }
        // A leader never says that a connection was lost; whoever passes that on says what it comes to.
        let lost: Failure = Unknown::ConnectionLost.into();
        let expected = match &answer {
            Err(why) if *why == lost => Err(Unknown::LeadershipLost.into()),
            _ => answer.clone(),
        };
        let again = answer_to_wire(id, answer).encode_to_vec();
        let again = wire::Answer::decode(&*again).map(|it| (it.id, answer_from_wire(it.outcome)));
        assert_eq!(again, Ok((id, expected)), "the wire has changed it");
    }
}

/// An order that means something means the same when it is passed on.
fn order(bytes: &[u8]) {
    let Ok(request) = wire::OrderRequest::decode(bytes) else { return };
    if let Ok(wanted) = order_from_wire(request.order) {
        assert_eq!(order_from_wire(Some(order_to_wire(&wanted))), Ok(wanted), "changed");
    }
}

/// What came of an order is the same when it is passed on, and is one line for people.
fn order_reply(bytes: &[u8]) {
    let Ok(reply) = wire::OrderReply::decode(bytes) else { return };
    let end = order_outcome_from_wire(reply.outcome);
    if let Err(why) = &end {
        let line = why.to_string();
        assert!(line.len() < 1000 && !line.contains(['\n', '\r', '\u{1b}']), "{line:?}");
    }
    let again = order_outcome_from_wire(Some(order_outcome_to_wire(end.clone())));
    assert_eq!(again, end, "the wire has changed it");
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
            kind in 0..3u8,
            envelopes in prop::collection::vec(prop_oneof![3 => plausible(), 1 => envelope()], 1..8),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let envelopes = envelopes.into_iter().map(Into::into).collect();
            let mut bytes = vec![kind];
            bytes.extend(wire::Frame { envelopes }.encode_to_vec());
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            super::bytes(&bytes);
        }

        #[test]
        fn nobody_is_let_in_but_who_may_be(
            version in 0..3u32,
            cluster in prop_oneof![3 => Just("one".to_owned()), 1 => any::<String>()],
            (from, to, node) in (0..5u64, 0..3u64, 0..4u64),
            incarnation in prop::collection::vec(any::<u8>(), 15..18),
            (voters, membership_index) in (prop::collection::vec(0..6u64, 0..3), 0..2u64),
            (number, address, note, entry) in (0..5u64, "[a-z]{0,3}(:[0-9]{1,5})?", any::<String>(), any::<u64>()),
        ) {
            let members = vec![wire::Member { node: number, address, note, version: entry }];
            let incarnation = Bytes::from(incarnation);
            let welcome = wire::Welcome {
                node,
                incarnation: incarnation.clone(),
                members: members.clone(),
                protocol_version: version,
            };
            super::welcome(&welcome.encode_to_vec());
            let membership = Some(wire::Membership { voters, ..Default::default() });
            let hello = wire::Hello {
                protocol_version: version,
                oldest_protocol_version: version / 2,
                cluster,
                from,
                to,
                incarnation,
                members,
                membership,
                membership_index,
            };
            super::hello(&hello.encode_to_vec());
        }

        #[test]
        fn an_answer_means_the_same_to_whoever_hears_it(
            bytes in prop::collection::vec(any::<u8>(), 0..30),
            (id, reason, number) in (any::<u64>(), -1..7i32, any::<u64>()),
            which in 0..7u8,
        ) {
            use wire::answer::{Applied, NotLeader, Outcome, SizeLimit};
            let limit = SizeLimit { bytes: number, max: number / 2 };
            let outcome = match which {
                0 => Some(Outcome::NotLeader(NotLeader { leader: Some(number % 3) })),
                1 => Some(Outcome::NotApplied(reason)),
                2 => Some(Outcome::Unknown(reason)),
                3 => Some(Outcome::TooLarge(limit)),
                4 => Some(Outcome::ResponseTooLarge(limit)),
                5 => Some(Outcome::Applied(Applied { term: number, index: id, response: bytes.into() })),
                _ => None,
            };
            let answers = wire::Answers { answers: vec![wire::Answer { id, outcome }] };
            super::answers(&answers.encode_to_vec());
        }

        #[test]
        fn no_order_and_no_answer_to_one_breaks_a_node(
            (reason, node, index) in (0..20i32, 0..3u64, any::<u64>()),
            (ready, needed) in (any::<u64>(), any::<u64>()),
            (missing_entries, snapshot_bytes_held) in (any::<Option<u64>>(), any::<Option<u64>>()),
            text in ".*",
            noise in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            use wire::order_reply::{Outcome, Refusal};
            let refusal = Refusal {
                reason, node, index, ready, needed, missing_entries, snapshot_bytes_held,
                text: text.clone(),
            };
            let outcome = Some(Outcome::Refusal(refusal));
            super::order_reply(&wire::OrderReply { welcome: None, outcome }.encode_to_vec());
            let member = Some(wire::Member { node, address: text, ..Default::default() });
            let add = wire::order_request::AddMember { member };
            let order = Some(wire::order_request::Order::AddMember(add));
            super::order(&wire::OrderRequest { order, ..Default::default() }.encode_to_vec());
            super::order(&noise);
            super::order_reply(&noise);
        }
    }
}
