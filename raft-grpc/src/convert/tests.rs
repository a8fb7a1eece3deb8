//! Everything that the core can say survives the wire, and nothing on the wire can hurt.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use raft_core::*;

use super::Malformed;
use crate::wire;

fn node() -> impl Strategy<Value = NodeId> {
    (1..=u64::MAX).prop_map(|id| NodeId::new(id).unwrap())
}

fn index() -> impl Strategy<Value = LogIndex> {
    any::<u64>().prop_map(LogIndex)
}

fn position() -> impl Strategy<Value = LogPosition> {
    (any::<u64>(), index()).prop_map(|(term, index)| LogPosition::new(Term(term), index))
}

fn question() -> impl Strategy<Value = QuestionId> {
    (any::<u64>(), any::<u64>()).prop_map(|(life, number)| QuestionId { life, number })
}

fn ballot() -> impl Strategy<Value = Ballot> {
    let kinds = [BallotKind::PreVote, BallotKind::Vote, BallotKind::Transfer];
    (prop::sample::select(kinds.to_vec()), question())
        .prop_map(|(kind, campaign)| Ballot { kind, campaign })
}

fn membership() -> impl Strategy<Value = Membership> {
    // Odd ids vote, even ids learn, so that no list contradicts another.
    let voters = || vec((0..1000_u64).prop_map(|id| NodeId::new(2 * id + 1).unwrap()), 1..9);
    let learners = vec((1..1000_u64).prop_map(|id| NodeId::new(2 * id).unwrap()), 0..5);
    (voters(), voters(), any::<bool>(), learners).prop_map(|(voters, old, joint, learners)| {
        let old = if joint { old } else { Vec::new() };
        Membership::from_parts(voters, old, learners).unwrap()
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::Noop),
        vec(any::<u8>(), 0..50).prop_map(|bytes| Payload::Command(Bytes::from(bytes))),
        membership().prop_map(Payload::Membership),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (position(), any::<u64>(), payload()).prop_map(|(position, time, payload)| Entry {
        index: position.index,
        term: position.term,
        timestamp: Timestamp(time),
        payload,
    })
}

fn outcome() -> impl Strategy<Value = AppendOutcome> {
    prop_oneof![
        (index(), index())
            .prop_map(|(durable, received)| AppendOutcome::Accepted { durable, received }),
        (index(), position()).prop_map(|(prev, hint)| AppendOutcome::Refused { prev, hint }),
    ]
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let base = (position(), any::<u64>(), membership(), index()).prop_map(
        |(position, time, membership, membership_index)| LogBase {
            position,
            timestamp: Timestamp(time),
            membership,
            membership_index,
        },
    );
    (base, any::<u64>(), any::<u128>()).prop_map(|(base, length, digest)| Snapshot {
        base,
        length,
        digest,
    })
}

fn chunk() -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(any::<u8>(), 0..50).prop_map(Bytes::from))
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        snapshot().prop_map(|snapshot| Message::InstallSnapshot { snapshot }),
        (snapshot(), any::<u64>()).prop_map(|(snapshot, offset)| Message::SnapshotRequest {
            snapshot: snapshot.id(),
            offset,
        }),
        (snapshot(), any::<u64>(), chunk()).prop_map(|(snapshot, offset, bytes)| {
            Message::SnapshotChunk { snapshot: snapshot.id(), offset, bytes }
        }),
        Just(Message::TimeoutNow),
        (ballot(), position()).prop_map(|(ballot, last)| Message::RequestVote { ballot, last }),
        (ballot(), any::<bool>())
            .prop_map(|(ballot, granted)| Message::RequestVoteReply { ballot, granted }),
        (position(), vec(entry(), 0..5), index(), any::<u64>()).prop_map(
            |(prev, entries, commit, round)| Message::AppendEntries {
                prev,
                entries: entries.into(),
                commit,
                round: Round(round),
            }
        ),
        (any::<u64>(), outcome()).prop_map(|(round, outcome)| Message::AppendEntriesReply {
            round: Round(round),
            outcome,
        }),
        (question(), any::<bool>())
            .prop_map(|(ticket, lease)| Message::ReadIndex { ticket, lease }),
        (question(), option::of(index()))
            .prop_map(|(ticket, index)| Message::ReadIndexReply { ticket, index }),
    ]
}

pub(crate) fn envelope() -> impl Strategy<Value = Envelope> {
    (any::<u64>(), node(), node(), any::<u64>(), any::<u64>(), message()).prop_map(
        |(group, from, to, term, incarnation, message)| Envelope {
            group: GroupId(group),
            from,
            to,
            term: Term(term),
            incarnation: Incarnation(incarnation),
            message,
        },
    )
}

proptest! {
    #[test]
    fn what_the_core_says_survives_the_wire(envelope in envelope()) {
        let bytes = wire::Envelope::from(envelope.clone()).encode_to_vec();
        let back = wire::Envelope::decode(Bytes::from(bytes)).unwrap();
        prop_assert_eq!(Envelope::try_from(back), Ok(envelope));
    }

    #[test]
    fn arbitrary_bytes_are_at_worst_refused(bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(frame) = wire::Frame::decode(Bytes::from(bytes)) {
            for envelope in frame.envelopes {
                let _ = Envelope::try_from(envelope);
            }
        }
    }

    /// Random bytes rarely get past the decoder, damaged messages do.
    #[test]
    fn a_damaged_message_is_at_worst_refused(
        envelope in envelope(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = wire::Envelope::from(envelope).encode_to_vec();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(envelope) = wire::Envelope::decode(Bytes::from(bytes)) {
            let _ = Envelope::try_from(envelope);
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let empty = wire::Envelope::default();
    assert_eq!(Envelope::try_from(empty), Err(Malformed::NoNode("Envelope.from")));
    let silent = wire::Envelope { from: 1, to: 2, ..Default::default() };
    assert_eq!(Envelope::try_from(silent), Err(Malformed::Missing("Envelope.message")));
    let no_kind = wire::envelope::Message::RequestVote(wire::RequestVote::default());
    assert_eq!(Message::try_from(no_kind), Err(Malformed::Missing("the kind of a ballot")));
    let no_payload = wire::Entry::default();
    assert_eq!(Entry::try_from(no_payload), Err(Malformed::Missing("Entry.payload")));
}

#[test]
fn impossible_members_are_refused() {
    let none = wire::Membership::default();
    assert_eq!(Membership::try_from(none), Err(Malformed::Membership));
    let nobody = wire::Membership { voters: vec![1, 0], ..Default::default() };
    assert_eq!(Membership::try_from(nobody), Err(Malformed::NoNode("a member")));
    let too_many = wire::Membership { voters: (1..=256).collect(), ..Default::default() };
    assert_eq!(Membership::try_from(too_many), Err(Malformed::Membership));
    let both = wire::Membership { voters: vec![1], learners: vec![1], outgoing: vec![] };
    assert_eq!(Membership::try_from(both), Err(Malformed::Membership));
}

#[test]
fn a_command_is_a_slice_of_its_frame() {
    let command = Bytes::from(vec![7; 1000]);
    let entry = wire::Entry {
        index: 1,
        term: 1,
        timestamp: 1,
        payload: Some(wire::entry::Payload::Command(command)),
    };
    let frame = Bytes::from(entry.encode_to_vec());
    let entry = Entry::try_from(wire::Entry::decode(frame.clone()).unwrap()).unwrap();
    let Payload::Command(command) = entry.payload else {
        panic!("a command went in");
    };
    assert!(frame.as_ptr_range().contains(&command.as_ptr()), "it was copied");
}
