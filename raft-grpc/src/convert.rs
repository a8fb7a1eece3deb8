//! Wire ↔ core. What goes out is always possible; what comes in is checked, and refused by name. It
//! never panics, and it trusts no length: the size of a frame was limited before it was decoded.
//!
//! Only the shape is checked here. Whether a message makes sense is for raft-core to say.

mod answer;
mod order;

use std::fmt;

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Ballot, BallotKind, Entry, Envelope, GroupId, Incarnation, LogBase, LogIndex,
    LogPosition, Membership, Message, NodeId, Payload, QuestionId, Round, Snapshot, SnapshotId,
    Term, Timestamp,
};

use crate::wire;
pub(crate) use answer::{answer_from_wire, answer_to_wire};
pub(crate) use order::{
    order_from_wire, order_outcome_from_wire, order_outcome_to_wire, order_to_wire,
};

/// How many nodes one list of a membership may name.
const MEMBERS_MAX: usize = 255;

/// Why something that arrived is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A part that must be there is not, or is of a kind that this version does not know.
    Missing(&'static str),
    /// A node id is zero.
    NoNode(&'static str),
    /// The members cannot be a cluster.
    Membership,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "{what} is missing or unknown"),
            Self::NoNode(what) => write!(f, "{what} is 0, which is no node"),
            Self::Membership => write!(f, "the members cannot be a cluster"),
        }
    }
}

/// The node with this number.
pub(crate) fn node(id: u64, what: &'static str) -> Result<NodeId, Malformed> {
    NodeId::new(id).ok_or(Malformed::NoNode(what))
}

impl From<Envelope> for wire::Envelope {
    fn from(envelope: Envelope) -> Self {
        let Envelope { group, from, to, term, incarnation, message } = envelope;
        Self {
            group: group.0,
            from: from.get(),
            to: to.get(),
            term: term.0,
            incarnation: incarnation.0,
            message: Some(message.into()),
        }
    }
}

impl TryFrom<wire::Envelope> for Envelope {
    type Error = Malformed;

    fn try_from(envelope: wire::Envelope) -> Result<Self, Malformed> {
        let wire::Envelope { group, from, to, term, incarnation, message } = envelope;
        Ok(Self {
            group: GroupId(group),
            from: node(from, "Envelope.from")?,
            to: node(to, "Envelope.to")?,
            term: Term(term),
            incarnation: Incarnation(incarnation),
            message: message.ok_or(Malformed::Missing("Envelope.message"))?.try_into()?,
        })
    }
}

impl From<Message> for wire::envelope::Message {
    fn from(message: Message) -> Self {
        match message {
            Message::RequestVote { ballot, last } => Self::RequestVote(wire::RequestVote {
                kind: kind_to_wire(ballot.kind),
                campaign: Some(ballot.campaign.into()),
                last_term: last.term.0,
                last_index: last.index.0,
            }),
            Message::RequestVoteReply { ballot, granted } => {
                Self::RequestVoteReply(wire::RequestVoteReply {
                    kind: kind_to_wire(ballot.kind),
                    campaign: Some(ballot.campaign.into()),
                    granted,
                })
            }
            Message::AppendEntries { prev, entries, commit, round } => {
                Self::AppendEntries(wire::AppendEntries {
                    prev_term: prev.term.0,
                    prev_index: prev.index.0,
                    entries: entries.iter().cloned().map(Into::into).collect(),
                    commit: commit.0,
                    round: round.0,
                })
            }
            Message::AppendEntriesReply { round, outcome } => {
                Self::AppendEntriesReply(wire::AppendEntriesReply {
                    round: round.0,
                    outcome: Some(outcome.into()),
                })
            }
            Message::ReadIndex { ticket, lease } => {
                Self::ReadIndex(wire::ReadIndex { ticket: Some(ticket.into()), lease })
            }
            Message::ReadIndexReply { ticket, index } => {
                Self::ReadIndexReply(wire::ReadIndexReply {
                    ticket: Some(ticket.into()),
                    index: index.map(|index| index.0),
                })
            }
            Message::InstallSnapshot { snapshot } => Self::InstallSnapshot(snapshot.into()),
            Message::SnapshotRequest { snapshot, offset } => {
                Self::SnapshotRequest(wire::SnapshotRequest { id: Some(snapshot.into()), offset })
            }
            Message::SnapshotChunk { snapshot, offset, bytes } => {
                Self::SnapshotChunk(wire::SnapshotChunk {
                    id: Some(snapshot.into()),
                    offset,
                    bytes,
                })
            }
            Message::TimeoutNow => Self::TimeoutNow(wire::TimeoutNow {}),
        }
    }
}

impl TryFrom<wire::envelope::Message> for Message {
    type Error = Malformed;

    fn try_from(message: wire::envelope::Message) -> Result<Self, Malformed> {
        use wire::envelope::Message as Wire;
        Ok(match message {
            Wire::RequestVote(request) => Self::RequestVote {
                ballot: ballot(request.kind, request.campaign)?,
                last: position(request.last_term, request.last_index),
            },
            Wire::RequestVoteReply(reply) => Self::RequestVoteReply {
                ballot: ballot(reply.kind, reply.campaign)?,
                granted: reply.granted,
            },
            Wire::AppendEntries(append) => Self::AppendEntries {
                prev: position(append.prev_term, append.prev_index),
                entries: append
                    .entries
                    .into_iter()
                    .map(TryInto::try_into)
                    .collect::<Result<_, _>>()?,
                commit: LogIndex(append.commit),
                round: Round(append.round),
            },
            Wire::AppendEntriesReply(reply) => Self::AppendEntriesReply {
                round: Round(reply.round),
                outcome: reply
                    .outcome
                    .ok_or(Malformed::Missing("AppendEntriesReply.outcome"))?
                    .into(),
            },
            Wire::ReadIndex(request) => {
                Self::ReadIndex { ticket: question(request.ticket)?, lease: request.lease }
            }
            Wire::ReadIndexReply(reply) => Self::ReadIndexReply {
                ticket: question(reply.ticket)?,
                index: reply.index.map(LogIndex),
            },
            Wire::InstallSnapshot(offer) => Self::InstallSnapshot { snapshot: offer.try_into()? },
            Wire::SnapshotRequest(request) => {
                Self::SnapshotRequest { snapshot: snapshot_id(request.id)?, offset: request.offset }
            }
            Wire::SnapshotChunk(chunk) => Self::SnapshotChunk {
                snapshot: snapshot_id(chunk.id)?,
                offset: chunk.offset,
                bytes: chunk.bytes,
            },
            Wire::TimeoutNow(wire::TimeoutNow {}) => Self::TimeoutNow,
        })
    }
}

fn kind_to_wire(kind: BallotKind) -> i32 {
    match kind {
        BallotKind::PreVote => wire::BallotKind::PreVote.into(),
        BallotKind::Vote => wire::BallotKind::Vote.into(),
        BallotKind::Transfer => wire::BallotKind::Transfer.into(),
    }
}

fn ballot(kind: i32, campaign: Option<wire::QuestionId>) -> Result<Ballot, Malformed> {
    let kind = match wire::BallotKind::try_from(kind) {
        Ok(wire::BallotKind::PreVote) => BallotKind::PreVote,
        Ok(wire::BallotKind::Vote) => BallotKind::Vote,
        Ok(wire::BallotKind::Transfer) => BallotKind::Transfer,
        Ok(wire::BallotKind::Unspecified) | Err(_) => {
            return Err(Malformed::Missing("the kind of a ballot"));
        }
    };
    let campaign = question(campaign)?;
    Ok(Ballot { kind, campaign })
}

impl From<QuestionId> for wire::QuestionId {
    fn from(QuestionId { life, number }: QuestionId) -> Self {
        Self { life, number }
    }
}

fn question(id: Option<wire::QuestionId>) -> Result<QuestionId, Malformed> {
    let wire::QuestionId { life, number } = id.ok_or(Malformed::Missing("a question's number"))?;
    Ok(QuestionId { life, number })
}

impl From<SnapshotId> for wire::SnapshotId {
    fn from(SnapshotId { position, length, digest }: SnapshotId) -> Self {
        Self {
            term: position.term.0,
            index: position.index.0,
            length,
            digest: Bytes::copy_from_slice(&digest.to_be_bytes()),
        }
    }
}

fn snapshot_id(id: Option<wire::SnapshotId>) -> Result<SnapshotId, Malformed> {
    let id = id.ok_or(Malformed::Missing("a snapshot's id"))?;
    let wire::SnapshotId { term, index, length, digest } = id;
    let digest = (&*digest).try_into();
    let digest = digest.map_err(|_| Malformed::Missing("a snapshot's digest (16 bytes)"))?;
    Ok(SnapshotId { position: position(term, index), length, digest: u128::from_be_bytes(digest) })
}

impl From<Snapshot> for wire::InstallSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        let id = snapshot.id();
        let LogBase { position: _, timestamp, membership, membership_index } = snapshot.base;
        Self {
            id: Some(id.into()),
            timestamp: timestamp.0,
            membership: Some(membership.into()),
            membership_index: membership_index.0,
        }
    }
}

impl TryFrom<wire::InstallSnapshot> for Snapshot {
    type Error = Malformed;

    fn try_from(offer: wire::InstallSnapshot) -> Result<Self, Malformed> {
        let wire::InstallSnapshot { id, timestamp, membership, membership_index } = offer;
        let SnapshotId { position, length, digest } = snapshot_id(id)?;
        let membership = membership.ok_or(Malformed::Missing("InstallSnapshot.membership"))?;
        let base = LogBase {
            position,
            timestamp: Timestamp(timestamp),
            membership: membership.try_into()?,
            membership_index: LogIndex(membership_index),
        };
        Ok(Self { base, length, digest })
    }
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term(term), LogIndex(index))
}

impl From<AppendOutcome> for wire::append_entries_reply::Outcome {
    fn from(outcome: AppendOutcome) -> Self {
        match outcome {
            AppendOutcome::Accepted { durable, received } => {
                Self::Accepted(wire::append_entries_reply::Accepted {
                    durable: durable.0,
                    received: received.0,
                })
            }
            AppendOutcome::Refused { prev, hint } => {
                Self::Refused(wire::append_entries_reply::Refused {
                    prev: prev.0,
                    hint_term: hint.term.0,
                    hint_index: hint.index.0,
                })
            }
        }
    }
}

impl From<wire::append_entries_reply::Outcome> for AppendOutcome {
    fn from(outcome: wire::append_entries_reply::Outcome) -> Self {
        use wire::append_entries_reply::Outcome;
        match outcome {
            Outcome::Accepted(accepted) => Self::Accepted {
                durable: LogIndex(accepted.durable),
                received: LogIndex(accepted.received),
            },
            Outcome::Refused(refused) => Self::Refused {
                prev: LogIndex(refused.prev),
                hint: position(refused.hint_term, refused.hint_index),
            },
        }
    }
}

impl From<Entry> for wire::Entry {
    fn from(entry: Entry) -> Self {
        let Entry { index, term, timestamp, payload } = entry;
        Self {
            index: index.0,
            term: term.0,
            timestamp: timestamp.0,
            payload: Some(match payload {
                Payload::Noop => wire::entry::Payload::Noop(wire::Noop {}),
                Payload::Command(command) => wire::entry::Payload::Command(command),
                Payload::Membership(members) => wire::entry::Payload::Membership(members.into()),
            }),
        }
    }
}

impl TryFrom<wire::Entry> for Entry {
    type Error = Malformed;

    fn try_from(entry: wire::Entry) -> Result<Self, Malformed> {
        let wire::Entry { index, term, timestamp, payload } = entry;
        let payload = match payload.ok_or(Malformed::Missing("Entry.payload"))? {
            wire::entry::Payload::Noop(wire::Noop {}) => Payload::Noop,
            wire::entry::Payload::Command(command) => Payload::Command(command),
            wire::entry::Payload::Membership(members) => Payload::Membership(members.try_into()?),
        };
        Ok(Self {
            index: LogIndex(index),
            term: Term(term),
            timestamp: Timestamp(timestamp),
            payload,
        })
    }
}

impl From<Membership> for wire::Membership {
    fn from(membership: Membership) -> Self {
        let numbers = |ids: &[NodeId]| ids.iter().map(|id| id.get()).collect();
        Self {
            voters: numbers(membership.voters()),
            outgoing: numbers(membership.outgoing()),
            learners: numbers(membership.learners()),
        }
    }
}

impl TryFrom<wire::Membership> for Membership {
    type Error = Malformed;

    fn try_from(membership: wire::Membership) -> Result<Self, Malformed> {
        let wire::Membership { voters, outgoing, learners } = membership;
        Self::from_parts(nodes(&voters)?, nodes(&outgoing)?, nodes(&learners)?)
            .map_err(|_| Malformed::Membership)
    }
}

fn nodes(ids: &[u64]) -> Result<Vec<NodeId>, Malformed> {
    if ids.len() > MEMBERS_MAX {
        return Err(Malformed::Membership);
    }
    ids.iter().map(|&id| node(id, "a member")).collect()
}

/// The 16 bytes of a data directory's random number.
pub(crate) fn incarnation_to_wire(incarnation: u128) -> Bytes {
    Bytes::copy_from_slice(&incarnation.to_be_bytes())
}

/// The random number in 16 bytes.
pub(crate) fn incarnation(bytes: &[u8]) -> Result<u128, Malformed> {
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| Malformed::Missing("the incarnation (16 bytes)"))?;
    Ok(u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(crate) mod tests;
