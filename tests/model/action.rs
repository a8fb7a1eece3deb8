//! What can happen, and how it is told: in the notation and with the commands of the golden scripts.

use std::fmt;

use raft_core::{
    Alarm, AppendOutcome, Envelope, GroupId, Incarnation, LogIndex, Membership, Message, NodeId,
    RoleKind, Round, Term,
};

/// What can happen to one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    Deliver(Envelope),
    Ring(Alarm),
    /// The receipt of the write at this place comes.
    Written(usize),
    /// It loses what is on its way to the disk, except so many parts of it, and starts again.
    Crash(usize),
    Propose(u8),
    Read,
    Change(Membership),
    Transfer(NodeId),
    /// It cuts a snapshot of all that is applied.
    Cut,
}

impl Act {
    /// As a command for node `id`.
    pub fn told(&self, id: NodeId) -> String {
        let id = id.get();
        match self {
            Self::Deliver(envelope) => format!("> {envelope}"),
            Self::Ring(Alarm::Heartbeat) => format!("heartbeat {id}"),
            Self::Ring(Alarm::Transfer) => format!("timeout {id}  # of the transfer"),
            Self::Ring(Alarm::Disk) => format!("timeout {id}  # of its disk"),
            Self::Ring(Alarm::Quorum) => format!("timeout {id}  # of its quorum"),
            Self::Ring(_) => format!("timeout {id}"),
            Self::Written(place) => format!("sync {id} skip={place} n=1"),
            Self::Crash(atoms) => format!("crash {id}, restart {id}  # survivors: {atoms} parts"),
            Self::Propose(command) => format!("propose {id} {}", char::from(*command)),
            Self::Read => format!("read {id}"),
            Self::Change(target) => format!("change {id} \"{target}\""),
            Self::Transfer(to) => format!("transfer {id} to={}", to.get()),
            Self::Cut => format!("cut {id}"),
        }
    }
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    Delivered,
    /// And stays on its way.
    Duplicated,
    Dropped,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivered => "",
            Self::Duplicated => "duplicate, ",
            Self::Dropped => "drop ",
        })
    }
}

/// An answer of a term before all others, to nothing: it has no effect, except that the node then knows
/// on which of its disks the sender runs.
pub fn hello(from: NodeId, to: NodeId) -> Envelope {
    let outcome = AppendOutcome::Accepted { durable: LogIndex(0), received: LogIndex(0) };
    let message = Message::AppendEntriesReply { round: Round(0), outcome };
    let (group, incarnation) = (GroupId(0), Incarnation(0));
    Envelope { group, from, to, term: Term(0), incarnation, message }
}

/// Has an answer no effect any more, now or ever, at a receiver in this role whose disk is in `term`? Its
/// term is nothing new there, which survives every crash, so only what it answers can still matter. And
/// questions never come again: a campaign that has ended, a leadership of a term, a read that was asked. But
/// a candidate may yet lead the term that it asks in, and what was sent to its leader comes to it then.
pub fn is_dead(envelope: &Envelope, role: RoleKind, term: Term) -> bool {
    let past = envelope.term < term;
    let campaigns = matches!(role, RoleKind::PreCandidate | RoleKind::Candidate);
    let over = match &envelope.message {
        Message::RequestVoteReply { granted, .. } => !granted || !campaigns,
        Message::AppendEntriesReply { .. } => {
            !matches!(role, RoleKind::Leader | RoleKind::Candidate)
        }
        Message::ReadIndexReply { .. } => role != RoleKind::Follower,
        Message::TimeoutNow => return past,
        Message::RequestVote { .. }
        | Message::AppendEntries { .. }
        | Message::ReadIndex { .. }
        | Message::InstallSnapshot { .. }
        | Message::SnapshotRequest { .. }
        | Message::SnapshotChunk { .. } => return false,
    };
    past || (over && envelope.term == term)
}
