//! What a node wants done, and what it tells about itself.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::entry::Entry;
use crate::membership::Membership;
use crate::message::Envelope;
use crate::types::{LogIndex, LogPosition, NodeId, Term};
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
    /// Committed entries, each exactly once per life of the node and in order: to be applied. Report
    /// [`Input::Applied`](crate::Input::Applied) when done.
    pub committed: Vec<Entry>,
    /// Reads whose index is known, or that failed.
    pub reads: Vec<ReadOutcome>,
    /// What became of proposals that this node took.
    pub proposals: Vec<ProposalOutcome>,
    /// What happened, for logs, metrics and checkers.
    pub events: Vec<Event>,
}

impl Output {
    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { write, messages, committed, reads, proposals, events } = self;
        write.is_none()
            && messages.is_empty()
            && committed.is_empty()
            && reads.is_empty()
            && proposals.is_empty()
            && events.is_empty()
    }
}

/// The number of a read that a node took, in the order of the calls, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// The end of a linearizable read (thesis §6.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// The read.
    pub id: ReadId,
    /// The index that must be applied before the state machine may be read, or why there is none.
    /// After an error the read may be tried again at once; it has no effects.
    pub index: Result<LogIndex, ReadRefused>,
}

/// Why a read has no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadRefused {
    /// No leader is known to ask.
    NoLeader,
    /// The leader that was asked, or that this node was, lost its leadership meanwhile.
    LeadershipLost,
    /// [`Config::waiting_reads_max`](crate::Config) reads wait already.
    Busy,
}

/// Where the commands of one proposal went in the log: `first`, and those behind it in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The position of the first command.
    pub first: LogPosition,
    /// The position of the last one, of the same term.
    pub last: LogPosition,
}

/// Why commands were not taken. They are handed back, and certainly not in any log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposeRefused {
    /// The reason.
    pub reason: ProposeRefusal,
    /// The commands, as they came.
    pub commands: Vec<Bytes>,
}

/// The reasons of [`ProposeRefused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProposeRefusal {
    /// This node does not lead; `hint` does, as far as it knows.
    NotLeader {
        /// The leader of the current term, if known.
        hint: Option<NodeId>,
    },
    /// Too much is waiting to be committed already.
    Busy {
        /// By how many bytes the proposal is over
        /// [`Config::uncommitted_bytes_max`](crate::Config).
        bytes_over: u64,
    },
}

impl fmt::Display for ProposeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { hint: Some(leader) } => write!(f, "not the leader: {leader} is"),
            Self::NotLeader { hint: None } => write!(f, "no leader is known"),
            Self::Busy { bytes_over } => {
                write!(f, "too much waits to be committed: {bytes_over} bytes over the limit")
            }
        }
    }
}

/// What became of a run of proposed entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProposalOutcome {
    /// The first of them.
    pub first: LogPosition,
    /// The last of them.
    pub last: LogPosition,
    /// Their fate.
    pub fate: Fate,
}

/// The three ends of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Chosen for ever; they come, or came, in [`Output::committed`].
    Committed,
    /// Others were chosen in their place: certainly never applied, anywhere.
    Superseded,
    /// This node cannot tell.
    Unknown,
}

/// Something that happened in a node.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// The roles of Figure 4, and the pre-candidate of thesis §9.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleKind {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads its term.
    Leader,
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// A node as it sees itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Who it is.
    pub id: NodeId,
    /// Its role.
    pub role: RoleKind,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
    /// The leader of that term, if it knows one.
    pub leader: Option<NodeId>,
    /// Its last entry.
    pub last: LogPosition,
    /// Its log is durable here up to this index.
    pub durable: LogIndex,
    /// The greatest index that it knows to be committed.
    pub commit: LogIndex,
    /// The greatest index that its state machine has reported as applied.
    pub applied: LogIndex,
    /// The members of the cluster, as of its last entry.
    pub membership: Membership,
    /// What a leader knows of the others; empty elsewhere.
    pub peers: Vec<PeerStatus>,
}

/// What a leader knows of one other member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who it is.
    pub id: NodeId,
    /// It holds the leader's log durably up to here (§5.3, matchIndex).
    pub match_index: LogIndex,
    /// The next index to send to it (§5.3, nextIndex).
    pub next_index: LogIndex,
    /// Did it answer within the last election timeout?
    pub recently_active: bool,
}
