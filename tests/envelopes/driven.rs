//! A node that whatever happens to, and what must be true of everything that it says.

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Ballot, BallotKind, ChunkOrder, Config, Consistency, Envelope, GroupId,
    HardState, Incarnation, Incoming, Input, Instant, LogIndex, Membership, Message, Node, NodeId,
    Output, QuestionId, Receipt, Restored, Snapshot, SnapshotId, Term, Timestamp, Write,
};
use raft_sim::storage::durable::Durable;

/// The seed of the node's first life.
pub const SEED: u64 = 1;

pub fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("node numbers in tests start at 1")
}

/// Something that happens to the node.
#[derive(Clone, Debug)]
pub enum Step {
    Message(Envelope),
    /// The same, of the term that the node is in.
    Timely(Envelope),
    /// Its timer, or an early or late call of it: so many nanoseconds after the origin.
    Timer(u64),
    /// Time passes until its deadline, and the timer runs out.
    Deadline,
    Applied(u64),
    Propose(Vec<u8>),
    Read(Consistency),
    Change(Membership, Option<u64>),
    Transfer(Option<NodeId>),
    /// The state machine's snapshot as of what is applied is in the storage.
    Cut,
    /// A snapshot that has nothing to do with this node is said to be in the storage.
    ForeignCut(Snapshot),
    /// The first open order for a chunk is carried out, with so many bytes.
    ChunkRead(Option<u8>),
    ForeignChunkRead(SnapshotId, u64),
    /// The storage has this much, in quarters, of the snapshot that is on its way.
    Held(u64),
    ForeignHeld(SnapshotId, u64),
    Poll,
    /// It is polled, but nothing is taken yet.
    Glance,
    /// The write at this place is done, whatever is before it.
    Written(usize),
    /// A receipt that belongs to no life of the node.
    ForeignReceipt,
    /// It dies, when so many writes more have reached the disk, and starts with what is there.
    Restart(usize),
}

/// A node, what it has handed out, and what the disk has for certain.
pub struct Driven {
    pub node: Node,
    config: Config,
    now: Instant,
    /// Those without a receipt, in order, and whether they have reached the disk.
    writes: Vec<(Write, bool)>,
    disk: Durable,
    /// So far the state machine has it.
    handed_out: LogIndex,
    orders: Vec<ChunkOrder>,
    coming: Option<SnapshotId>,
    output: Output,
}

impl Driven {
    pub fn new(config: Config, restored: &Restored) -> Self {
        Self::start(config, Durable::of(restored), Instant::default())
    }

    fn start(config: Config, disk: Durable, now: Instant) -> Self {
        let node = Node::new(config.clone(), disk.restored(), now);
        let node = node.expect("what is restored fits together");
        assert_eq!(node.status().term, disk.hard_state.term, "it forgot its term");
        Self {
            node,
            config,
            now,
            writes: Vec::new(),
            // Who drives it restores the newest snapshot at the start.
            handed_out: disk.snapshots.last().map_or(LogIndex(0), Snapshot::index),
            disk,
            orders: Vec::new(),
            coming: None,
            output: Output::default(),
        }
    }

    /// Another life, with a seed of its own. What it has promised is on the disk; all else is forgotten.
    fn restart(&mut self, reached: usize) {
        let under_way = self.writes.iter().filter(|(_, there)| !there);
        for (write, _) in under_way.take(reached) {
            self.disk.write(write);
        }
        self.config.seed += 1;
        *self = Self::start(self.config.clone(), self.disk.clone(), self.now);
    }

    pub fn step(&mut self, step: Step) {
        let Self { node, now, writes, disk, orders, coming, output, .. } = self;
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
            Step::Read(consistency) => drop(node.read(*now, consistency)),
            Step::Change(target, expected) => {
                drop(node.change_membership(*now, Timestamp(0), &target, expected.map(LogIndex)));
            }
            Step::Transfer(to) => drop(node.transfer_leadership(*now, to)),
            Step::Cut => {
                if let Some(base) = node.snapshot_base(node.status().applied) {
                    let snapshot = Snapshot { base, length: 3, digest: 0 };
                    // One that arrived meanwhile is not taken for older than this.
                    if disk.snapshots.last().is_none_or(|held| held.index() < snapshot.index()) {
                        disk.keep(snapshot.clone());
                    }
                    node.step(*now, Input::SnapshotCut(snapshot));
                }
            }
            Step::ForeignCut(snapshot) => node.step(*now, Input::SnapshotCut(snapshot)),
            Step::ChunkRead(length) => {
                if let Some(order) = orders.pop() {
                    let bytes = length.map(|length| Bytes::from(vec![0; length.into()]));
                    node.step(*now, Input::ChunkRead { order, bytes });
                }
            }
            Step::ForeignChunkRead(snapshot, offset) => {
                let order = ChunkOrder { to: n(2), snapshot, offset, bytes_max: 1 };
                node.step(*now, Input::ChunkRead { order, bytes: None });
            }
            Step::Held(quarters) => {
                if let Some(snapshot) = *coming {
                    let bytes = snapshot.length / 4 * quarters;
                    node.step(*now, Input::SnapshotHeld { snapshot, bytes });
                }
            }
            Step::ForeignHeld(snapshot, bytes) => {
                node.step(*now, Input::SnapshotHeld { snapshot, bytes });
            }
            Step::Poll => self.poll(),
            Step::Glance => node.poll(output),
            Step::Written(place) if place < writes.len() => {
                // They reach it in order, in whatever order the receipts come.
                for (write, there) in writes[..=place].iter_mut().filter(|(_, there)| !there) {
                    disk.write(write);
                    *there = true;
                }
                let receipt = writes.remove(place).0.into_receipt();
                node.step(*now, Input::Written(receipt));
            }
            Step::Written(_) => {}
            Step::ForeignReceipt => node.step(*now, Input::Written(foreign_receipt())),
            Step::Restart(reached) => self.restart(reached),
        }
        self.node.check_invariants();
        let _total = self.node.status();
    }

    /// What it wants done is looked at, and kept until it is.
    fn poll(&mut self) {
        let Self { node, writes, disk, handed_out, orders, coming, output, .. } = self;
        node.poll(output);
        output.messages.iter().for_each(|envelope| check_promise(envelope, disk));
        *handed_out = check_handed_out(*handed_out, output);
        writes.extend(output.write.take().map(|write| (write, false)));
        orders.append(&mut output.chunks);
        for incoming in output.incoming.drain(..) {
            if let Incoming::Begin(snapshot) = incoming {
                *coming = Some(snapshot.id());
            }
        }
        *output = Output::default();
    }
}

/// The steps of an election that the node wins.
pub fn election() -> Vec<Step> {
    let granted = |kind, number| {
        let ballot = Ballot { kind, campaign: QuestionId { life: SEED, number } };
        Step::Timely(Envelope {
            group: GroupId(0),
            from: n(2),
            to: n(1),
            term: Term(0),
            incarnation: Incarnation(0),
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

/// What a message promises would survive a crash at this moment.
fn check_promise(envelope: &Envelope, disk: &Durable) {
    let HardState { term, voted_for } = disk.hard_state;
    let kept = match &envelope.message {
        Message::RequestVote { ballot, .. } if ballot.kind.binds() => {
            voted_for == Some(envelope.from)
        }
        Message::RequestVoteReply { ballot, granted: true } if ballot.kind.binds() => {
            voted_for == Some(envelope.to)
        }
        Message::AppendEntriesReply {
            outcome: AppendOutcome::Accepted { durable, .. }, ..
        } => *durable <= disk.last().index,
        _ => true,
    };
    assert!(kept && envelope.term == term, "not durable: {envelope}, on a disk of {term}");
}

/// The state machine is given every entry once, in order, without a gap but where a snapshot fills it.
fn check_handed_out(mut last: LogIndex, output: &Output) -> LogIndex {
    if let Some(snapshot) = &output.restore {
        assert!(snapshot.index() >= last, "{snapshot:?} takes the state back from {last}");
        last = snapshot.index();
    }
    for entry in output.committed.iter() {
        assert_eq!(entry.index, last.next(), "handed out of order");
        last = entry.index;
    }
    last
}
