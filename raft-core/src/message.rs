//! What nodes say to each other: Figure 2 of the paper, pre-votes (thesis §9.6), read-index requests
//! (thesis §6.4), snapshots (§7) and leadership transfer (thesis §3.10).
//!
//! Every message travels in an [`Envelope`], whose `term` is the sender's current and *durable* term,
//! without exception: a pre-vote too, which asks about the term after it.

use core::fmt;

use bytes::Bytes;

use crate::entries::Entries;
use crate::snapshot::{Snapshot, SnapshotId};
use crate::types::{GroupId, Incarnation, LogIndex, LogPosition, NodeId, Term};

/// A message with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The Raft group that it belongs to.
    pub group: GroupId,
    /// Who says it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The sender's term, durable at the sender.
    pub term: Term,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// What is said.
    pub message: Message,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// "Elect me" (§5.2), or "would you elect me in the next term?" (thesis §9.6).
    RequestVote {
        /// Which campaign of the sender's this belongs to.
        ballot: Ballot,
        /// The candidate's last entry, for the up-to-date rule of §5.4.1.
        last: LogPosition,
    },
    /// The answer to [`Message::RequestVote`].
    RequestVoteReply {
        /// The ballot of the request, unchanged: an answer to an earlier campaign does not count.
        ballot: Ballot,
        /// Is the vote given?
        granted: bool,
    },
    /// The leader's log, or with no entries its heartbeat (§5.3).
    AppendEntries {
        /// The entry just before `entries`, which the follower must have.
        prev: LogPosition,
        /// What follows it: contiguous indexes, terms that never fall.
        entries: Entries,
        /// The leader's commit index.
        commit: LogIndex,
        /// The latest round of leadership confirmation (thesis §6.4) that the leader has started.
        round: Round,
    },
    /// The answer to [`Message::AppendEntries`].
    AppendEntriesReply {
        /// The latest round seen from this leader. 0 in an answer to a leader of an earlier term,
        /// whose rounds must not be taken for those of the present one with the same numbers.
        round: Round,
        /// Did the logs match?
        outcome: AppendOutcome,
    },
    /// A follower asks at which index a linearizable read may be served (thesis §6.4).
    ReadIndex {
        /// The follower's number for the request.
        ticket: QuestionId,
        /// May the leader answer from its lease (thesis §6.4.1)?
        lease: bool,
    },
    /// The leader's answer to [`Message::ReadIndex`].
    ReadIndexReply {
        /// The number of the request.
        ticket: QuestionId,
        /// The index that a read must wait for, confirmed after the request arrived; `None` if the
        /// leader stopped being one before it could tell.
        index: Option<LogIndex>,
    },
    /// "Your log ends before mine begins: fetch this snapshot" (§7). Repeated until the follower is
    /// past it.
    InstallSnapshot {
        /// What to fetch.
        snapshot: Snapshot,
    },
    /// "Send me what follows on this offset", to any node that holds the snapshot: the receiver sets
    /// the pace.
    SnapshotRequest {
        /// Of which snapshot.
        snapshot: SnapshotId,
        /// How many bytes the sender has already.
        offset: u64,
    },
    /// The answer to [`Message::SnapshotRequest`].
    SnapshotChunk {
        /// Of which snapshot.
        snapshot: SnapshotId,
        /// The offset of the request.
        offset: u64,
        /// The bytes from there on, never empty; `None` if the snapshot is gone.
        bytes: Option<Bytes>,
    },
    /// "Hold an election at once: you may lead" (leadership transfer, thesis §3.10).
    TimeoutNow,
}

/// The number of a question, unique over all lives of the node that asks: the answer to an earlier
/// question, or to one that was asked before a restart, is never taken for the answer to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuestionId {
    /// The life of the node: its seed, new at every start.
    pub life: u64,
    /// Counts the questions of that life, from 1.
    pub number: u64,
}

/// A campaign for votes. The number tells apart the campaigns of one node, also within one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ballot {
    /// A real vote, or the question whether one would be given.
    pub kind: BallotKind,
    /// Which campaign of the candidate's it is.
    pub campaign: QuestionId,
}

/// The two questions of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BallotKind {
    /// For the term after the envelope's; changes nothing at the voter (thesis §9.6).
    PreVote,
    /// For the envelope's term; the voter is bound by it (§5.2).
    Vote,
    /// As [`BallotKind::Vote`], with the leader's consent: the voter does not wait for its silence
    /// (thesis §3.10, §4.2.3).
    Transfer,
}

impl BallotKind {
    /// Is the voter bound by its answer?
    #[must_use]
    pub const fn binds(self) -> bool {
        matches!(self, Self::Vote | Self::Transfer)
    }
}

/// A number of leadership confirmations (thesis §6.4), counted by each leader from 1 within its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub u64);

impl Round {
    /// The round after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What a follower did with an [`Message::AppendEntries`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// The logs agree.
    Accepted {
        /// They agree up to here **and** it is durable at the follower: a promise, the only thing
        /// that a leader may count towards a commit.
        durable: LogIndex,
        /// They agree up to here, durable or not: a hint for flow control, never counted.
        received: LogIndex,
    },
    /// The follower does not have the entry `prev` of the request.
    Refused {
        /// The index of that entry, so that a late refusal can be told from a fresh one.
        prev: LogIndex,
        /// Its last entry at or before `prev` whose term is not above that of `prev`: what
        /// follows it cannot match (§5.3, the optimisation at its end).
        hint: LogPosition,
    },
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group: _, from, to, term, incarnation: _, message } = self;
        write!(f, "{from}@{term} → {to} {message}")
    }
}

impl fmt::Display for QuestionId {
    /// Only the number: a transcript is about one life, or says where another begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.number)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            BallotKind::PreVote => write!(f, "PreVote"),
            BallotKind::Vote => write!(f, "RequestVote"),
            BallotKind::Transfer => write!(f, "TransferVote"),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestVote { ballot, last } => write!(f, "{ballot} last={last}"),
            Self::RequestVoteReply { ballot, granted } => {
                write!(f, "{ballot}Reply {}", if *granted { "granted" } else { "refused" })
            }
            Self::AppendEntries { prev, entries, commit, round } => {
                write!(f, "AppendEntries prev={prev} commit={commit} round={}", round.0)?;
                write!(f, " [")?;
                for (n, entry) in entries.iter().enumerate() {
                    let gap = if n == 0 { "" } else { " " };
                    write!(f, "{gap}{entry}")?;
                }
                write!(f, "]")
            }
            Self::AppendEntriesReply { round, outcome } => {
                write!(f, "AppendEntriesReply {outcome} round={}", round.0)
            }
            Self::ReadIndex { ticket, lease } => {
                write!(f, "ReadIndex {ticket}{}", if *lease { " lease" } else { "" })
            }
            Self::ReadIndexReply { ticket, index: Some(index) } => {
                write!(f, "ReadIndexReply {ticket} index={index}")
            }
            Self::ReadIndexReply { ticket, index: None } => {
                write!(f, "ReadIndexReply {ticket} refused")
            }
            Self::InstallSnapshot { snapshot } => {
                write!(f, "InstallSnapshot {} {}", snapshot.id(), snapshot.base.membership)
            }
            Self::SnapshotRequest { snapshot, offset } => {
                write!(f, "SnapshotRequest {snapshot} offset={offset}")
            }
            Self::SnapshotChunk { snapshot, offset, bytes: Some(bytes) } => {
                write!(f, "SnapshotChunk {snapshot} offset={offset} bytes={}", bytes.len())
            }
            Self::SnapshotChunk { snapshot, offset, bytes: None } => {
                write!(f, "SnapshotChunk {snapshot} offset={offset} gone")
            }
            Self::TimeoutNow => write!(f, "TimeoutNow"),
        }
    }
}

impl fmt::Display for AppendOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { durable, received } if durable == received => {
                write!(f, "durable={durable}")
            }
            Self::Accepted { durable, received } => {
                write!(f, "durable={durable} received={received}")
            }
            Self::Refused { prev, hint } => write!(f, "refused prev={prev} hint={hint}"),
        }
    }
}
