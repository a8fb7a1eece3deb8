//! Why a node does not do what it is asked. A refusal changes nothing, and says what is in the way.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::types::{LogIndex, NodeId};

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
    /// Leadership is on its way to another node (thesis §3.10).
    Transferring {
        /// That node.
        to: NodeId,
    },
    /// A command is larger than the transport can carry.
    TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The largest that is taken, [`Config::command_bytes_max`](crate::Config::command_bytes_max).
        bytes_max: u64,
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
            Self::Transferring { to } => write!(f, "leadership is on its way to {to}"),
            Self::TooLarge { bytes, bytes_max } => {
                write!(f, "a command has {bytes} bytes, at most {bytes_max} can be carried")
            }
        }
    }
}

impl core::error::Error for ProposeRefusal {}

impl fmt::Display for ProposeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl core::error::Error for ProposeRefused {}

/// Why a read has no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadRefused {
    /// No leader is known to ask.
    NoLeader,
    /// The leader that was asked, or that this node was, lost its leadership meanwhile.
    LeadershipLost,
    /// [`Config::waiting_reads_max`](crate::Config) reads wait already.
    Busy,
    /// The index asked for is not known to be committed here after an election timeout.
    NotReached {
        /// What is.
        commit: LogIndex,
    },
}

impl fmt::Display for ReadRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeader => write!(f, "no leader is known"),
            Self::LeadershipLost => write!(f, "the leader that was asked leads no longer"),
            Self::Busy => write!(f, "too many reads wait already"),
            Self::NotReached { commit } => {
                write!(f, "only index {commit} is known to be committed here")
            }
        }
    }
}

impl core::error::Error for ReadRefused {}

/// Why a membership change was not begun. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeRefusal {
    /// This node does not lead; `hint` does, as far as it knows.
    NotLeader {
        /// The leader of the current term, if known.
        hint: Option<NodeId>,
    },
    /// Leadership is on its way to another node.
    Transferring {
        /// That node.
        to: NodeId,
    },
    /// The last change is not complete: its entry is not committed, or its joint phase has not ended.
    InFlight {
        /// The index of the configuration in effect.
        index: LogIndex,
    },
    /// Nothing of this leader's term is committed yet, so that it cannot know whether an earlier leader's
    /// change is still to come (Ongaro, 2015). In a moment there is.
    NoCommitInTermYet,
    /// The configuration in effect is not the one that the change was made for.
    Stale {
        /// The index of the one that is.
        actual: LogIndex,
    },
    /// The target is a joint configuration; those are a leader's own steps.
    JointTarget,
    /// The target is what is in effect already.
    NoChange,
    /// The new voters would have no majority of nodes that answer now and lack no more of the log than
    /// [`Config::inflight_bytes_max`](crate::Config): nothing could be committed until they do. Add the
    /// newcomers as learners first, and let them catch up.
    WouldLoseQuorum {
        /// How many of the new voters are ready.
        ready: usize,
        /// How many would be needed.
        needed: usize,
    },
}

impl fmt::Display for ChangeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { hint: Some(leader) } => write!(f, "not the leader: {leader} is"),
            Self::NotLeader { hint: None } => write!(f, "no leader is known"),
            Self::Transferring { to } => write!(f, "leadership is on its way to {to}"),
            Self::InFlight { index } => {
                write!(f, "the change at index {index} is not complete yet")
            }
            Self::NoCommitInTermYet => write!(f, "the leader has not committed in its term yet"),
            Self::Stale { actual } => {
                write!(f, "the members have changed meanwhile, at index {actual}")
            }
            Self::JointTarget => {
                write!(f, "the target of a change cannot be a joint configuration")
            }
            Self::NoChange => write!(f, "these are the members already"),
            Self::WouldLoseQuorum { ready, needed } => write!(
                f,
                "only {ready} of the new voters answer and have most of the log, {needed} are needed: \
                 let new nodes catch up as learners first"
            ),
        }
    }
}

impl core::error::Error for ChangeRefusal {}

/// Why leadership was not handed over. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferRefusal {
    /// This node does not lead; `hint` does, as far as it knows.
    NotLeader {
        /// The leader of the current term, if known.
        hint: Option<NodeId>,
    },
    /// Leadership is on its way to this node already.
    InFlight {
        /// That node.
        to: NodeId,
    },
    /// The target leads already.
    AlreadyLeads,
    /// The target is no voter.
    NotAVoter,
    /// The target has not answered for an election timeout; without a target, nobody has.
    NotAlive,
}

impl fmt::Display for TransferRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { hint: Some(leader) } => write!(f, "not the leader: {leader} is"),
            Self::NotLeader { hint: None } => write!(f, "no leader is known"),
            Self::InFlight { to } => write!(f, "leadership is on its way to {to}"),
            Self::AlreadyLeads => write!(f, "the target leads already"),
            Self::NotAVoter => write!(f, "the target is no voter: make it one first"),
            Self::NotAlive => write!(f, "no voter that could take over answers"),
        }
    }
}

impl core::error::Error for TransferRefusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use alloc::vec;

    /// A client reads this when it gets no answer.
    #[test]
    fn refusals_say_what_to_do_or_to_wait_for() {
        let leader = NodeId::new(2);
        let commit = LogIndex(7);
        let refused =
            ProposeRefused { reason: ProposeRefusal::NotLeader { hint: leader }, commands: vec![] };
        let said: [(String, &str); 7] = [
            (refused.to_string(), "not the leader: n2 is"),
            (ReadRefused::NoLeader.to_string(), "no leader is known"),
            (ReadRefused::LeadershipLost.to_string(), "the leader that was asked leads no longer"),
            (ReadRefused::Busy.to_string(), "too many reads wait already"),
            (
                ReadRefused::NotReached { commit }.to_string(),
                "only index 7 is known to be committed here",
            ),
            (TransferRefusal::NotAVoter.to_string(), "the target is no voter: make it one first"),
            (TransferRefusal::NotAlive.to_string(), "no voter that could take over answers"),
        ];
        for (words, expected) in said {
            assert_eq!(words, expected);
        }
    }
}
