//! Why an order was not carried out.

use std::fmt;

use raft_core::{ChangeRefusal, NodeId, TransferRefusal};

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// Only the leader can do it, and none was found in time; or there is one that takes no orders from other
    /// nodes, since it runs an older version.
    #[error("only the leader can do it; {}", whom(.leader))]
    NotLeader {
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The members cannot be changed like that now.
    #[error("{0}")]
    Change(ChangeRefusal),
    /// Leadership cannot be handed over like that now.
    #[error("{0}")]
    Transfer(TransferRefusal),
    /// A learner that lacks too much of the leader's log cannot vote yet: nothing might be committed until it
    /// has caught up.
    #[error("{id} has not caught up yet: {lag}")]
    NotCaughtUp {
        /// The learner.
        id: NodeId,
        /// What it lacks.
        lag: Lag,
    },
    /// The node is no member.
    #[error("{0} is no member; add it first")]
    NotAMember(NodeId),
    /// The node was removed just now, and this leader still tells it so: what it remembers of that node must
    /// not count for one that comes back without its log. In a moment it is over.
    #[error("{0} is only just leaving; try again in a moment")]
    Leaving(NodeId),
    /// Without it nobody would be left to vote.
    #[error("{0} is the only voter; without it there is no cluster")]
    LastVoter(NodeId),
    /// This node goes on leading.
    #[error("{0} did not take over; look whether it is up and has caught up")]
    DidNotTakeOver(NodeId),
    /// It was begun, and another leader's log took its place: it certainly has no effect.
    #[error("the leader changed, and the order was dropped; give it again")]
    Superseded,
    /// It may have been begun, and what became of it is not known here: the leader changed or stopped, or the
    /// connection to it broke.
    #[error("what became of the order is not known; look at the members and at who leads")]
    Unknown,
    /// It did not happen in time, and still may.
    #[error("it did not happen in time, and still may; look at the members and at who leads")]
    Timeout,
    /// That is no address.
    #[error("{0:?} is no address: it must be host:port")]
    BadAddress(String),
    /// Too many orders wait already.
    #[error("too many orders wait already; try again later")]
    Busy,
    /// This node is stopping.
    #[error("the node is shutting down; ask another one")]
    ShuttingDown,
    /// There is nothing to make a snapshot of, or no room for it.
    #[error("no snapshot was cut: {0}")]
    NoSnapshot(&'static str),
    /// The leader, which runs another version, refused it for a reason that this one does not know.
    #[error("the leader refused it: {0}")]
    Other(String),
}

/// What a learner lacks of the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lag {
    /// It does not answer.
    Silent,
    /// So many entries.
    Entries(u64),
    /// It fetches a snapshot.
    Snapshot {
        /// How many bytes of it it has.
        held: u64,
    },
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => {
                f.write_str("it does not answer; see that it runs, and was told to join")
            }
            Self::Entries(missing) => write!(f, "it lacks {missing} entries"),
            Self::Snapshot { held } => {
                write!(f, "it fetches a snapshot, and has {held} bytes of it")
            }
        }
    }
}

fn whom(leader: &Option<NodeId>) -> String {
    leader.map_or_else(|| "none was found in time".to_owned(), |leader| format!("ask {leader}"))
}

impl From<ChangeRefusal> for OrderError {
    fn from(why: ChangeRefusal) -> Self {
        match why {
            ChangeRefusal::NotLeader { hint } => Self::NotLeader { leader: hint },
            why => Self::Change(why),
        }
    }
}

impl From<TransferRefusal> for OrderError {
    fn from(why: TransferRefusal) -> Self {
        match why {
            TransferRefusal::NotLeader { hint } => Self::NotLeader { leader: hint },
            why => Self::Transfer(why),
        }
    }
}

impl OrderError {
    /// May the order have had its effect, or have it yet? With any other error it certainly has none.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        matches!(self, Self::Unknown | Self::Timeout)
    }

    /// Is it only not possible at this moment?
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Change(
                ChangeRefusal::InFlight { .. }
                    | ChangeRefusal::NoCommitInTermYet
                    | ChangeRefusal::WouldLoseQuorum { .. }
                    | ChangeRefusal::Stale { .. }
                    | ChangeRefusal::Transferring { .. }
            ) | Self::Superseded
                | Self::Leaving(_)
                | Self::NotCaughtUp { .. }
        )
    }
}
