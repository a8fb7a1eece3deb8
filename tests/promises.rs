//! What `Node` promises to whoever drives it, besides the protocol: that nothing is handed out twice or in
//! the wrong order when outputs are taken late, and that time in the log does not go back.

use bytes::Bytes;
use raft_core::{
    Config, Entry, Envelope, GroupId, Incarnation, Input, Instant, LogBase, LogIndex, LogPosition,
    Membership, Message, Node, NodeId, Output, Payload, Restored, Round, Snapshot, Term, Timestamp,
};

fn node_id(number: u64) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn members(numbers: &[u64]) -> Membership {
    Membership::new(numbers.iter().copied().map(node_id)).expect("there are some")
}

fn start(id: u64, members: Membership) -> Node {
    let config = Config::new(node_id(id), 7);
    Node::new(config, Restored::empty(members), Instant::default()).expect("a new node")
}

fn at(index: u64, term: u64) -> LogPosition {
    LogPosition::new(Term(term), LogIndex(index))
}

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(Bytes::from_static(b"x"));
    Entry { index: LogIndex(index), term: Term(1), timestamp: Timestamp(0), payload }
}

/// Polls until nothing waits for the disk, which is quick.
fn settle(node: &mut Node, now: Instant) {
    let mut output = Output::default();
    node.poll(&mut output);
    while let Some(write) = output.write.take() {
        node.step(now, Input::Written(write.into_receipt()));
        node.poll(&mut output);
    }
}

/// The wall clock of a leader goes back, or a leader takes over whose clock is behind: the timestamps of
/// entries do not fall, so that a state machine may trust them.
#[test]
fn timestamps_never_fall() {
    let mut node = start(1, members(&[1]));
    let now = node.deadline();
    node.step(now, Input::Timer);
    settle(&mut node, now);
    let propose = |node: &mut Node, time| {
        let taken = node.propose(now, Timestamp(time), vec![Bytes::from_static(b"x")]);
        taken.expect("it leads").last.index
    };
    let indexes = [propose(&mut node, 20), propose(&mut node, 5), propose(&mut node, 30)];
    let target = members(&[1]).with_learner(node_id(2)).expect("one voter is left");
    settle(&mut node, now);
    let change = node.change_membership(now, Timestamp(7), &target, None).expect("it leads");
    let time = |index| node.entry(index).map(|entry| entry.timestamp.0);
    assert_eq!(indexes.map(time), [Some(20), Some(20), Some(30)]);
    assert_eq!(time(change.index), Some(30));
}

/// A driver may poll again before it has taken everything. What it was to apply before a snapshot is in
/// the snapshot, and what lies behind the snapshot comes with it, not before.
#[test]
fn a_snapshot_takes_the_place_of_what_was_not_taken_yet() {
    let mut node = start(2, members(&[1, 2, 3]));
    let (now, mut output) = (Instant::default(), Output::default());
    let hear = |node: &mut Node, message| {
        let (from, to) = (node_id(1), node_id(2));
        let (group, incarnation) = (GroupId::default(), Incarnation::default());
        let envelope = Envelope { group, from, to, term: Term(1), incarnation, message };
        node.step(now, Input::Message(envelope));
    };
    let append = |prev, entries: Vec<Entry>, commit| Message::AppendEntries {
        prev,
        entries: entries.into(),
        commit: LogIndex(commit),
        round: Round(1),
    };
    hear(&mut node, append(LogPosition::ZERO, vec![entry(1), entry(2)], 2));
    node.poll(&mut output);
    assert_eq!(
        output.committed.iter().count(),
        2,
        "both are to be applied, and stay where they are"
    );

    let base = LogBase { position: at(9, 1), ..LogBase::initial(members(&[1, 2, 3])) };
    let snapshot = Snapshot { base, length: 4, digest: 1 };
    let id = snapshot.id();
    hear(&mut node, Message::InstallSnapshot { snapshot: snapshot.clone() });
    node.poll(&mut output);
    node.step(now, Input::SnapshotHeld { snapshot: id, bytes: 0 });
    node.poll(&mut output);
    let bytes = Some(Bytes::from_static(b"0123"));
    hear(&mut node, Message::SnapshotChunk { snapshot: id, offset: 0, bytes });
    node.poll(&mut output);
    node.step(now, Input::SnapshotHeld { snapshot: id, bytes: 4 });
    hear(&mut node, append(at(9, 1), vec![entry(10)], 10));
    node.poll(&mut output);
    assert_eq!(output.restore, None, "its write waits behind the one that nobody took");
    let last = output.committed.last().map(|entry| entry.index);
    assert_eq!(last, Some(LogIndex(2)), "what lies behind the snapshot waits for it");

    let first = output.write.take().expect("the entries before the snapshot");
    node.poll(&mut output);
    assert_eq!(output.restore, Some(snapshot));
    let indexes: Vec<u64> = output.committed.iter().map(|entry| entry.index.0).collect();
    assert_eq!(indexes, [10], "what came before is part of the snapshot");
    node.step(now, Input::Written(first.into_receipt()));
}
