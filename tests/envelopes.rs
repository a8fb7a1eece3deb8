//! Whatever a peer, a client, a clock or a disk says to a node, it neither panics nor breaks an
//! invariant.
//!
//! The inputs are well-typed and otherwise arbitrary, with numbers at the limits; some fit well
//! enough for the node to campaign, lead, follow and commit in between.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use raft_core::{
    AppendOutcome, Ballot, BallotKind, Config, Entry, Envelope, GroupId, HardState, Input, Instant,
    LogIndex, LogPosition, Membership, Message, Node, NodeId, Output, Payload, QuestionId, Receipt,
    Restored, RoleKind, Round, Term, Timestamp, Write,
};

const SEED: u64 = 1;

/// Something that happens to the node.
#[derive(Clone, Debug)]
enum Step {
    Message(Envelope),
    /// The same, of the term that the node is in.
    Timely(Envelope),
    /// Its timer, or an early or late call of it: so many nanoseconds after the origin.
    Timer(u64),
    /// Time passes until its deadline, and the timer runs out.
    Deadline,
    Applied(u64),
    Propose(Vec<u8>),
    Read,
    Poll,
    /// The write at this place is done, whatever is before it.
    Written(usize),
    /// A receipt that belongs to no life of the node.
    ForeignReceipt,
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        16 => 0..4u64,
        1 => select(vec![1 << 32, (1 << 32) + 1, 1 << 63, (1 << 63) + 1, u64::MAX - 1, u64::MAX]),
        1 => any::<u64>(),
    ]
}

fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("node numbers in tests start at 1")
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

fn message() -> impl Strategy<Value = Message> {
    let question = || {
        (prop_oneof![3 => Just(SEED), 1 => number()], 0..8u64)
            .prop_map(|(life, number)| QuestionId { life, number })
    };
    let ballot = move || {
        let kind = select(vec![BallotKind::PreVote, BallotKind::Vote]);
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
            Message::AppendEntries { prev, entries, commit: LogIndex(commit), round: Round(round) }
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
        1 => question().prop_map(|ticket| Message::ReadIndex { ticket }),
        1 => (question(), proptest::option::of(number())).prop_map(|(ticket, index)| {
            Message::ReadIndexReply { ticket, index: index.map(LogIndex) }
        }),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let group = prop_oneof![20 => Just(0), 1 => number()].prop_map(GroupId);
    let to = prop_oneof![20 => Just(n(1)), 1 => node_id()];
    (group, node_id(), to, number(), message()).prop_map(|(group, from, to, term, message)| {
        Envelope { group, from, to, term: Term(term), message }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => envelope().prop_map(Step::Message),
        8 => envelope().prop_map(Step::Timely),
        1 => number().prop_map(Step::Timer),
        3 => Just(Step::Deadline),
        1 => number().prop_map(Step::Applied),
        2 => proptest::collection::vec(0..100u8, 0..4).prop_map(Step::Propose),
        2 => Just(Step::Read),
        4 => Just(Step::Poll),
        4 => (0..3usize).prop_map(Step::Written),
        1 => Just(Step::ForeignReceipt),
    ]
}

/// What storage restored: a base, and a log of terms that rise by 0 or 1.
fn restored() -> impl Strategy<Value = Restored> {
    let base = select(vec![LogPosition::default(), LogPosition::new(Term(1), LogIndex(2))]);
    (base, proptest::collection::vec(0..2u64, 0..5), 0..2u64).prop_map(|(base, rises, ahead)| {
        let membership = members((1..=3).map(n), []);
        let mut restored = Restored { base, ..Restored::empty(membership) };
        let mut last = base;
        for rise in rises {
            last = LogPosition::new(Term(last.term.0 + rise), last.index.next());
            let LogPosition { term, index } = last;
            let (timestamp, payload) = (Timestamp(0), Payload::Noop);
            restored.entries.push(Entry { index, term, timestamp, payload });
        }
        restored.hard_state = HardState { term: Term(last.term.0 + ahead), voted_for: None };
        restored
    })
}

/// A node, and the writes that it has handed out.
struct Driven {
    node: Node,
    now: Instant,
    writes: Vec<Write>,
    output: Output,
}

impl Driven {
    fn step(&mut self, step: Step) {
        let Self { node, now, writes, output } = self;
        match step {
            Step::Message(envelope) => node.step(*now, Input::Message(envelope)),
            Step::Timely(envelope) => {
                let term = node.status().term;
                node.step(*now, Input::Message(Envelope { term, ..envelope }));
            }
            Step::Timer(nanos) => node.step(Instant::from_nanos(nanos), Input::Timer),
            Step::Deadline => {
                *now = node.deadline().max(*now);
                node.step(*now, Input::Timer);
            }
            Step::Applied(index) => node.step(*now, Input::Applied(LogIndex(index))),
            Step::Propose(sizes) => {
                let commands =
                    sizes.iter().map(|&size| Bytes::from(vec![0; size.into()])).collect();
                let _refused_or_not = node.propose(*now, Timestamp(0), commands);
            }
            Step::Read => drop(node.read(*now)),
            Step::Poll => {
                node.poll(output);
                writes.extend(output.write.take());
                output.messages.clear();
                output.committed.clear();
                output.reads.clear();
                output.proposals.clear();
                output.events.clear();
            }
            Step::Written(place) if place < writes.len() => {
                let receipt = writes.remove(place).into_receipt();
                node.step(*now, Input::Written(receipt));
            }
            Step::Written(_) => {}
            Step::ForeignReceipt => node.step(*now, Input::Written(foreign_receipt())),
        }
        node.check_invariants();
        let _total = node.status();
    }
}

/// The steps of an election that the node wins.
fn election() -> Vec<Step> {
    let granted = |kind, number| {
        let ballot = Ballot { kind, campaign: QuestionId { life: SEED, number } };
        Step::Timely(Envelope {
            group: GroupId(0),
            from: n(2),
            to: n(1),
            term: Term(0),
            message: Message::RequestVoteReply { ballot, granted: true },
        })
    };
    let (pre_vote, vote) = (granted(BallotKind::PreVote, 1), granted(BallotKind::Vote, 2));
    vec![Step::Deadline, pre_vote, Step::Poll, Step::Written(0), vote, Step::Poll]
}

fn foreign_receipt() -> Receipt {
    Write::detached(Some(HardState { term: Term(1), voted_for: None }), None, Vec::new())
        .into_receipt()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn nothing_that_arrives_breaks_a_node(
        restored in restored(),
        steps in proptest::collection::vec(step(), 1..30),
        (tight, leads) in any::<(bool, bool)>(),
    ) {
        let mut config = Config::new(n(1), SEED);
        if tight {
            config.append_bytes_max = 1;
            config.inflight_messages_max = 1;
            config.uncommitted_bytes_max = 100;
            config.unapplied_bytes_max = 1;
            config.waiting_reads_max = 2;
        }
        let node = Node::new(config, restored, Instant::default()).unwrap();
        let (writes, output) = (Vec::new(), Output::default());
        let mut driven = Driven { node, now: Instant::default(), writes, output };
        if leads {
            election().into_iter().for_each(|step| driven.step(step));
            prop_assert_eq!(driven.node.role().0, RoleKind::Leader);
        }
        for step in steps {
            driven.step(step);
        }
    }
}
