//! What happened in a node: enough to log it, to count it, and to follow it step by step in a
//! specification.

use crate::membership::Membership;
use crate::snapshot::SnapshotId;
use crate::status::RoleKind;
use crate::types::{Incarnation, LogIndex, LogPosition, NodeId, Term};

/// Something that happened in a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// The node changed its role or its term, or learned who leads.
    Role {
        /// The role now.
        role: RoleKind,
        /// The term now.
        term: Term,
        /// The leader of that term, if known.
        leader: Option<NodeId>,
    },
    /// A leader gave up because it heard from no quorum for an election timeout (thesis §6.2).
    QuorumLost {
        /// The term that it led.
        term: Term,
    },
    /// A leader gave up because its disk has not finished in an election timeout what the others have
    /// on theirs.
    DiskHangs {
        /// The term that it led.
        term: Term,
    },
    /// This node promised its vote in the current term, to others or to itself (§5.2).
    Voted {
        /// The term.
        term: Term,
        /// Who gets it.
        candidate: NodeId,
    },
    /// This node refused its vote, or its pre-vote.
    VoteRefused {
        /// Who asked.
        candidate: NodeId,
        /// The reason.
        why: VoteRefusal,
    },
    /// The leader's entries do not fit on this log; it was told where to look (§5.3).
    AppendRefused {
        /// The entry that is missing here.
        prev: LogPosition,
        /// Where the logs may begin to agree.
        hint: LogPosition,
    },
    /// More is known to be committed (§5.3).
    Committed {
        /// Up to here.
        index: LogIndex,
    },
    /// Leadership is being handed over (thesis §3.10).
    TransferStarted {
        /// To whom.
        to: NodeId,
    },
    /// The target did not take over in an election timeout; this node goes on leading.
    TransferFailed {
        /// Who it was.
        to: NodeId,
    },
    /// A learner has caught up, and is being made a voter.
    Promoting {
        /// Who it is.
        learner: NodeId,
    },
    /// The log begins behind this position now; what was before it is in a snapshot (§7).
    Compacted {
        /// The last entry that is not in the log any more.
        base: LogPosition,
    },
    /// This node's log ends before the leader's begins: a snapshot is being fetched.
    SnapshotFetched {
        /// Which.
        snapshot: SnapshotId,
        /// From whom.
        from: NodeId,
    },
    /// A snapshot from another node took the place of the log.
    SnapshotInstalled {
        /// Which.
        snapshot: SnapshotId,
    },
    /// A peer came back with another disk: what it acknowledged before counts no longer.
    PeerReborn {
        /// Who it is.
        peer: NodeId,
        /// The incarnation that counts from now on.
        incarnation: Incarnation,
    },
    /// The members of the cluster are now these.
    MembershipChanged {
        /// The index of the entry that says so.
        index: LogIndex,
        /// The members.
        membership: Membership,
    },
    /// An input had no effect.
    Ignored {
        /// Who sent it, if it was a message.
        from: Option<NodeId>,
        /// The reason.
        why: Ignored,
    },
}

/// Why a vote was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteRefusal {
    /// The candidate's log is not up-to-date (§5.4.1).
    LogBehind {
        /// Its last entry.
        candidate: LogPosition,
        /// What it would have to reach.
        needed: LogPosition,
    },
    /// The vote of this term is gone (§5.2).
    AlreadyVoted {
        /// Who has it.
        candidate: NodeId,
    },
}

/// Why an input had no effect. Late, repeated and reordered messages are normal; the reasons marked
/// *nonsense* never come from a node that runs this code, and are worth an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ignored {
    /// For another group, another node, or from this node itself. Nonsense.
    Misdirected,
    /// Of a term that has passed; the sender is told if it asked something.
    StaleTerm,
    /// Of a term so far ahead that it can only be damage. Nonsense.
    AbsurdTerm,
    /// A request for a vote while the leader is alive (thesis §4.2.3, §9.6).
    LeaderIsAlive,
    /// An answer to a question that is no longer asked.
    StaleReply,
    /// Entries that are not contiguous, fall in term, are of a term above the sender's, or take back
    /// what the same leader sent before. Nonsense.
    Malformed,
    /// Entries that contradict what is committed. Nonsense.
    ContradictsCommit,
    /// AppendEntries of this term from someone who is not its leader. Nonsense.
    SecondLeader,
    /// An acknowledgement of entries that the leader does not have. Nonsense.
    BeyondLog,
    /// From a node that is not a member, where only members count.
    NotAMember,
    /// A question for a leader, which this node is not.
    NotLeader,
    /// A question that would have to wait behind too many others.
    Busy,
    /// A receipt of another life of the node, or for a write that was not handed out.
    ForeignReceipt,
    /// An applied index below the last one reported, or above what was handed out.
    BadAppliedIndex,
    /// From a life of the sender's that is over, on a disk that it lost.
    StaleIncarnation,
    /// About a snapshot that nobody asked for (any more), or not this piece of it.
    StaleSnapshot,
    /// A snapshot that does not follow from this node's log, or is not newer than its last one.
    BadSnapshot,
    /// An order to campaign for a node that cannot lead now: no voter, or its disk hangs.
    CannotLead,
}
