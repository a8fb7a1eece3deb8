//! A node as it sees itself.

use alloc::vec::Vec;
use core::fmt;

use crate::membership::Membership;
use crate::snapshot::SnapshotId;
use crate::types::{LogIndex, LogPosition, NodeId, Term};

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
    /// The last entry that is not in the log any more (§7).
    pub base: LogPosition,
    /// The newest snapshot.
    pub snapshot: Option<SnapshotId>,
    /// The members of the cluster, as of its last entry.
    pub membership: Membership,
    /// The index of the entry that brought them: what a conditional change expects.
    pub membership_index: LogIndex,
    /// To whom this leader is handing over, if it is.
    pub transferring_to: Option<NodeId>,
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
    /// How it is being sent to.
    pub pace: PeerPace,
}

/// How a leader sends to a peer (§5.3, §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPace {
    /// Where the logs agree is not known: one message at a time.
    Probe,
    /// Ahead of the answers, within a window.
    Replicate,
    /// Its log ends before the leader's begins: it fetches a snapshot.
    Snapshot {
        /// How many bytes of it the peer was last known to hold.
        held: u64,
    },
}
