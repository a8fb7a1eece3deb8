//! What a node wants done, and what became of what it was asked.

use alloc::vec::Vec;

use crate::entries::Committed;
use crate::event::Event;
use crate::message::Envelope;
use crate::refusal::ReadRefused;
use crate::snapshot::{ChunkOrder, Incoming, LogBase, Snapshot};
use crate::types::{LogIndex, LogPosition};
use crate::write::Write;

/// Everything to do now, filled by [`Node::poll`](crate::Node::poll). Keep one and reuse it: its buffers
/// keep their capacity. Take each field (destructure without `..`, so that a new one is not forgotten).
///
/// Nothing here waits for anything else: the messages may leave before the write is on disk, the
/// entries may be applied before the messages leave.
#[derive(Debug, Default)]
pub struct Output {
    /// To be made durable; hand back its [`Receipt`](crate::Receipt). At most one new one per poll,
    /// many may be under way; they must reach the disk in order.
    pub write: Option<Write>,
    /// To be sent, now. They may be lost, repeated and reordered; better not too often.
    pub messages: Vec<Envelope>,
    /// Before `committed`, replace the state machine's state by this snapshot, which a
    /// [`Write`](crate::Write::snapshot) has handed to the storage (it may be read before that write is
    /// durable). Report [`Input::Applied`](crate::Input::Applied) when done.
    pub restore: Option<Snapshot>,
    /// Committed entries, each at most once per life of the node and in order, without a gap except
    /// where `restore` fills it: to be applied. Report [`Input::Applied`](crate::Input::Applied) when
    /// done.
    pub committed: Committed,
    /// Reads whose index is known, or that failed.
    pub reads: Vec<ReadOutcome>,
    /// What became of proposals that this node took.
    pub proposals: Vec<ProposalOutcome>,
    /// What became of membership changes that this node took.
    pub changes: Vec<ChangeOutcome>,
    /// The log has grown by [`Config::snapshot_after_bytes`](crate::Config) since the last snapshot: one
    /// should be cut. A caller that cannot may ignore it; it comes again after as many bytes more.
    pub snapshot_due: bool,
    /// Pieces of stored snapshots to be read for peers; answer each with
    /// [`Input::ChunkRead`](crate::Input::ChunkRead). At most one per peer is open.
    pub chunks: Vec<ChunkOrder>,
    /// What to do with a snapshot that is on its way here, in order.
    pub incoming: Vec<Incoming>,
    /// The log begins behind this now: the storage may drop what is before it when it likes, and keeps
    /// this to give back as [`Restored::base`](crate::Restored).
    pub compacted: Option<LogBase>,
    /// What happened, for logs, metrics and checkers.
    pub events: Vec<Event>,
}

impl Output {
    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            write,
            messages,
            restore,
            committed,
            reads,
            proposals,
            changes,
            snapshot_due,
            chunks,
            incoming,
            compacted,
            events,
        } = self;
        write.is_none()
            && messages.is_empty()
            && restore.is_none()
            && committed.is_empty()
            && reads.is_empty()
            && proposals.is_empty()
            && changes.is_empty()
            && !snapshot_due
            && chunks.is_empty()
            && incoming.is_empty()
            && compacted.is_none()
            && events.is_empty()
    }
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// It sees every write that was acknowledged before it began: a majority confirms the leader first
    /// (thesis §6.4).
    #[default]
    Linearizable,
    /// The same, but a leader whose lease holds answers at once, trusting that clocks drift apart by no
    /// more than [`Config::lease_clock_drift_ppm`](crate::Config) (thesis §6.4.1). Without a lease it is
    /// [`Consistency::Linearizable`].
    Lease,
    /// It sees at least the entries up to this index, such as the reader's own last write, on any node.
    /// The read waits until this node knows that index to be committed, for at most an election timeout.
    AtLeast(LogIndex),
}

/// The number of a read that a node took, in the order of the calls, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The end of a read (thesis §6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadOutcome {
    /// The read.
    pub id: ReadId,
    /// The index that must be applied before the state machine may be read, or why there is none.
    /// After an error the read may be tried again at once; it has no effects.
    pub index: Result<LogIndex, ReadRefused>,
}

/// Where the commands of one proposal went in the log: `first`, and those behind it in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The position of the first command.
    pub first: LogPosition,
    /// The position of the last one, of the same term.
    pub last: LogPosition,
}

/// What became of a run of proposed entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProposalOutcome {
    /// The first of them.
    pub first: LogPosition,
    /// The last of them.
    pub last: LogPosition,
    /// Their fate.
    pub fate: Fate,
}

/// The three ends of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Chosen for ever; they come, or came, in [`Output::committed`].
    Committed,
    /// Others were chosen in their place: certainly never applied, anywhere.
    Superseded,
    /// This node cannot tell.
    Unknown,
}

/// The end of a membership change that this node took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChangeOutcome {
    /// The position that [`Node::change_membership`](crate::Node::change_membership) gave.
    pub change: LogPosition,
    /// Committed: the target is in effect and committed, a joint phase is over. Superseded: certainly
    /// without effect. Unknown: this node cannot tell.
    pub fate: Fate,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Payload};
    use crate::membership::Membership;
    use crate::message::Message;
    use crate::types::{GroupId, Incarnation, NodeId, Term, Timestamp};
    use alloc::vec;

    fn snapshot(node: NodeId) -> Snapshot {
        let base = LogBase::initial(Membership::new([node]).unwrap());
        Snapshot { base, length: 1, digest: 2 }
    }

    fn entry() -> Entry {
        let (index, term, timestamp) = (LogIndex(1), Term(1), Timestamp(0));
        Entry { index, term, timestamp, payload: Payload::Noop }
    }

    fn message(node: NodeId) -> Envelope {
        Envelope {
            group: GroupId(0),
            from: node,
            to: node,
            term: Term(1),
            incarnation: Incarnation(0),
            message: Message::TimeoutNow,
        }
    }

    #[test]
    fn an_output_with_anything_in_it_is_not_empty() {
        let node = NodeId::new(1).unwrap();
        let (snapshot, at) = (snapshot(node), LogPosition::new(Term(1), LogIndex(1)));
        let (base, id) = (snapshot.base.clone(), snapshot.id());
        let order = ChunkOrder { to: node, snapshot: id, offset: 0, bytes_max: 1 };
        let read = ReadOutcome { id: ReadId(1), index: Ok(LogIndex(1)) };
        let (change, fate) = (at, Fate::Committed);
        let mut committed = Committed::default();
        committed.push(vec![entry()].into());
        let with = |set: &dyn Fn(&mut Output)| {
            let mut output = Output::default();
            set(&mut output);
            output
        };
        assert!(with(&|_| {}).is_empty());
        let outputs = [
            with(&|o| o.write = Some(Write::detached(None, None, vec![]))),
            with(&|o| o.messages.push(message(node))),
            with(&|o| o.restore = Some(snapshot.clone())),
            with(&|o| o.committed = committed.clone()),
            with(&|o| o.reads.push(read)),
            with(&|o| o.proposals.push(ProposalOutcome { first: at, last: at, fate })),
            with(&|o| o.changes.push(ChangeOutcome { change, fate })),
            with(&|o| o.snapshot_due = true),
            with(&|o| o.chunks.push(order)),
            with(&|o| o.incoming.push(Incoming::Abandon(id))),
            with(&|o| o.compacted = Some(base.clone())),
            with(&|o| o.events.push(Event::QuorumLost { term: Term(1) })),
        ];
        for output in outputs {
            assert!(!output.is_empty(), "{output:?}");
        }
    }
}
