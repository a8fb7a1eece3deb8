//! What may happen to a node, drawn from well-typed and otherwise arbitrary parts, with numbers at the limits;
//! some fit well enough for the node to campaign, lead, follow and commit in between.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use raft_core::{
    AppendOutcome, Ballot, BallotKind, Consistency, Entry, Envelope, GroupId, HardState,
    Incarnation, LogBase, LogIndex, LogPosition, Membership, Message, NodeId, Payload, QuestionId,
    Restored, Round, Snapshot, Term, Timestamp,
};

use super::driven::{SEED, Step, n};
use super::life::Life;

/// A whole life.
pub fn life() -> impl Strategy<Value = Life> {
    let steps = proptest::collection::vec(step(), 1..30);
    (restored(), steps, any::<(bool, bool, bool, bool)>()).prop_map(
        |(restored, steps, (tight, leads, lease, promotes))| Life {
            restored,
            steps,
            tight,
            leads,
            lease,
            promotes,
        },
    )
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        16 => 0..4u64,
        1 => select(vec![1 << 32, (1 << 32) + 1, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX]),
        1 => any::<u64>(),
    ]
}

fn members(
    voters: impl IntoIterator<Item = NodeId>,
    outgoing: impl IntoIterator<Item = NodeId>,
) -> Membership {
    Membership::from_parts(voters, outgoing, []).expect("voters, and no learner who votes")
}

fn node_id() -> impl Strategy<Value = NodeId> {
    prop_oneof![
        1 => Just(n(1)), 8 => Just(n(2)), 4 => Just(n(3)), 1 => Just(n(9)), 1 => Just(n(u64::MAX)),
    ]
}

fn position() -> impl Strategy<Value = LogPosition> {
    let any = (number(), number());
    let any = any.prop_map(|(term, index)| LogPosition::new(Term(term), LogIndex(index)));
    prop_oneof![1 => Just(LogPosition::default()), 2 => any]
}

fn payload() -> impl Strategy<Value = Payload> {
    let members = (node_id(), proptest::collection::vec(node_id(), 0..3))
        .prop_map(|(one, outgoing)| Payload::Membership(members([one], outgoing)));
    prop_oneof![
        4 => Just(Payload::Noop),
        2 => Just(Payload::Command(Bytes::from_static(b"a command"))),
        1 => members,
    ]
}

/// Entries behind `prev`, most of them as they must be, some not.
fn entries(prev: LogPosition) -> impl Strategy<Value = Vec<Entry>> {
    let entry =
        (payload(), 0..2u64, proptest::option::weighted(0.02, (number(), number(), number())));
    proptest::collection::vec(entry, 0..4).prop_map(move |parts| {
        let mut last = prev;
        let entries = parts.into_iter().map(|(payload, rise, wrong)| {
            last = LogPosition::new(Term(last.term.0.saturating_add(rise)), last.index.next());
            let right = (last.index.0, last.term.0, 0);
            let (index, term, timestamp) = wrong.unwrap_or(right);
            Entry {
                index: LogIndex(index),
                term: Term(term),
                timestamp: Timestamp(timestamp),
                payload,
            }
        });
        entries.collect()
    })
}

fn target() -> impl Strategy<Value = Membership> {
    let list = || proptest::collection::vec(1..5u64, 0..4);
    (1..5u64, list(), list(), list()).prop_map(|(one, voters, outgoing, learners)| {
        let voters: Vec<_> = voters.into_iter().chain([one]).collect();
        let learners = learners.into_iter().filter(|id| !voters.contains(id)).map(n);
        let outgoing = if one == 1 { outgoing } else { Vec::new() };
        Membership::from_parts(voters.iter().copied().map(n), outgoing.into_iter().map(n), learners)
            .expect("voters, and no learner who votes")
    })
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (position(), target(), number(), number(), 0..3u128).prop_map(
        |(position, membership, membership_index, length, digest)| Snapshot {
            base: LogBase {
                position,
                timestamp: Timestamp(0),
                membership,
                membership_index: LogIndex(membership_index),
            },
            length,
            digest,
        },
    )
}

/// Few enough that a chunk fits the snapshot that is on its way now and then.
fn offered() -> Snapshot {
    Snapshot {
        base: LogBase {
            position: LogPosition::new(Term(0), LogIndex(9)),
            ..LogBase::initial(members([n(1), n(2)], [n(3)]))
        },
        length: 4,
        digest: 1,
    }
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    prop_oneof![3 => Just(offered()), 1 => snapshot()]
}

fn chunk() -> impl Strategy<Value = Option<Bytes>> {
    proptest::option::weighted(0.9, (0..6usize).prop_map(|length| Bytes::from(vec![0; length])))
}

fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![
        Just(Consistency::Linearizable),
        Just(Consistency::Lease),
        number().prop_map(|index| Consistency::AtLeast(LogIndex(index))),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let question = || {
        (prop_oneof![3 => Just(SEED), 1 => number()], 0..8u64)
            .prop_map(|(life, number)| QuestionId { life, number })
    };
    let ballot = move || {
        let kind = select(vec![BallotKind::PreVote, BallotKind::Vote, BallotKind::Transfer]);
        (kind, question()).prop_map(|(kind, campaign)| Ballot { kind, campaign })
    };
    let accepted = (number(), proptest::option::of(number()));
    let accepted = accepted.prop_map(|(durable, received)| AppendOutcome::Accepted {
        durable: LogIndex(durable),
        received: LogIndex(received.unwrap_or(durable)),
    });
    let refused = (number(), position())
        .prop_map(|(prev, hint)| AppendOutcome::Refused { prev: LogIndex(prev), hint });
    let append = position().prop_flat_map(|prev| {
        (entries(prev), number(), number()).prop_map(move |(entries, commit, round)| {
            Message::AppendEntries {
                prev,
                entries: entries.into(),
                commit: LogIndex(commit),
                round: Round(round),
            }
        })
    });
    prop_oneof![
        2 => (ballot(), position())
            .prop_map(|(ballot, last)| Message::RequestVote { ballot, last }),
        4 => (ballot(), prop::bool::weighted(0.8))
            .prop_map(|(ballot, granted)| Message::RequestVoteReply { ballot, granted }),
        6 => append,
        4 => (number().prop_map(Round), prop_oneof![accepted, refused])
            .prop_map(|(round, outcome)| Message::AppendEntriesReply { round, outcome }),
        1 => (question(), any::<bool>())
            .prop_map(|(ticket, lease)| Message::ReadIndex { ticket, lease }),
        2 => snapshots().prop_map(|snapshot| Message::InstallSnapshot { snapshot }),
        1 => (snapshots(), number()).prop_map(|(snapshot, offset)| {
            Message::SnapshotRequest { snapshot: snapshot.id(), offset }
        }),
        1 => (snapshots(), number(), chunk()).prop_map(|(snapshot, offset, bytes)| {
            Message::SnapshotChunk { snapshot: snapshot.id(), offset, bytes }
        }),
        1 => Just(Message::TimeoutNow),
        1 => (question(), proptest::option::of(number())).prop_map(|(ticket, index)| {
            Message::ReadIndexReply { ticket, index: index.map(LogIndex) }
        }),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let group = prop_oneof![20 => Just(0), 1 => number()].prop_map(GroupId);
    let to = prop_oneof![20 => Just(n(1)), 1 => node_id()];
    let incarnation = prop_oneof![20 => Just(0), 1 => number()].prop_map(Incarnation);
    (group, node_id(), to, number(), incarnation, message()).prop_map(
        |(group, from, to, term, incarnation, message)| Envelope {
            group,
            from,
            to,
            term: Term(term),
            incarnation,
            message,
        },
    )
}

/// One thing that happens.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => envelope().prop_map(Step::Message),
        8 => envelope().prop_map(Step::Timely),
        1 => number().prop_map(Step::Timer),
        3 => Just(Step::Deadline),
        1 => number().prop_map(Step::Applied),
        2 => proptest::collection::vec(0..100u8, 0..4).prop_map(Step::Propose),
        2 => consistency().prop_map(Step::Read),
        1 => (target(), proptest::option::of(number()))
            .prop_map(|(target, expected)| Step::Change(target, expected)),
        1 => proptest::option::of(node_id()).prop_map(Step::Transfer),
        2 => Just(Step::Cut),
        1 => snapshots().prop_map(Step::ForeignCut),
        2 => proptest::option::of(0..4u8).prop_map(Step::ChunkRead),
        1 => (snapshots(), number())
            .prop_map(|(snapshot, offset)| Step::ForeignChunkRead(snapshot.id(), offset)),
        3 => (0..5u64).prop_map(Step::Held),
        1 => (snapshots(), number())
            .prop_map(|(snapshot, bytes)| Step::ForeignHeld(snapshot.id(), bytes)),
        4 => Just(Step::Poll),
        1 => Just(Step::Glance),
        4 => (0..3usize).prop_map(Step::Written),
        1 => Just(Step::ForeignReceipt),
        1 => (0..4usize).prop_map(Step::Restart),
    ]
}

/// What storage restored: a base, and a log of terms that rise by 0 or 1.
fn restored() -> impl Strategy<Value = Restored> {
    let base = select(vec![LogPosition::default(), LogPosition::new(Term(1), LogIndex(2))]);
    let rises = proptest::collection::vec(0..2u64, 0..5);
    (base, rises, 0..2u64, any::<bool>()).prop_map(|(position, rises, ahead, repaired)| {
        let membership = members((1..=3).map(n), []);
        let base = LogBase { position, ..LogBase::initial(membership.clone()) };
        let mut restored = Restored { base: base.clone(), ..Restored::empty(membership) };
        if position.index > LogIndex(0) {
            restored.snapshot = Some(Snapshot { base, length: 3, digest: 0 });
        }
        let mut last = position;
        for rise in rises {
            last = LogPosition::new(Term(last.term.0 + rise), last.index.next());
            let LogPosition { term, index } = last;
            let (timestamp, payload) = (Timestamp(0), Payload::Noop);
            restored.entries.push(Entry { index, term, timestamp, payload });
        }
        restored.hard_state = HardState { term: Term(last.term.0 + ahead), voted_for: None };
        if repaired {
            restored.incarnation = Incarnation(1);
            restored.lost = LogPosition::new(restored.hard_state.term, last.index);
        }
        restored
    })
}
