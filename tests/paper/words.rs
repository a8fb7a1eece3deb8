//! Entries, members and messages in few words. `at(4, 2)` is `4@2`: index 4, term 2.

use raft_core::{
    AppendOutcome, Ballot, BallotKind, Entry, LogBase, LogIndex, LogPosition, Membership, Message,
    NodeId, Payload, QuestionId, Round, Snapshot, Term, Timestamp,
};

pub(crate) fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("nodes are numbered from 1")
}

pub(crate) fn at(index: u64, term: u64) -> LogPosition {
    LogPosition::new(Term(term), LogIndex(index))
}

/// An entry with this command, or a no-op if there is none.
pub(crate) fn entry(index: u64, term: u64, command: &'static str) -> Entry {
    let payload = match command {
        "" => Payload::Noop,
        text => Payload::Command(text.into()),
    };
    Entry { index: LogIndex(index), term: Term(term), timestamp: Timestamp(0), payload }
}

/// An entry with a configuration.
pub(crate) fn configuration(index: u64, term: u64, members: Membership) -> Entry {
    Entry { payload: Payload::Membership(members), ..entry(index, term, "") }
}

/// No-ops from index `first` on, of these terms.
pub(crate) fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    (first..).zip(terms).map(|(index, &term)| entry(index, term, "")).collect()
}

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().map(|&id| n(id)).collect()
}

pub(crate) fn voters(ids: &[u64]) -> Membership {
    Membership::new(nodes(ids)).expect("there are voters")
}

/// The joint configuration on the way from `old` to `new`.
pub(crate) fn joint(new: &[u64], old: &[u64]) -> Membership {
    Membership::from_parts(nodes(new), nodes(old), []).expect("there are voters")
}

pub(crate) fn with_learners(ids: &[u64], learners: &[u64]) -> Membership {
    Membership::from_parts(nodes(ids), [], nodes(learners)).expect("nobody is both")
}

/// A question of a candidate that is not on the stand.
fn ballot(kind: BallotKind) -> Ballot {
    Ballot { kind, campaign: QuestionId { life: 77, number: 1 } }
}

pub(crate) fn vote(last: LogPosition) -> Message {
    Message::RequestVote { ballot: ballot(BallotKind::Vote), last }
}

pub(crate) fn pre_vote(last: LogPosition) -> Message {
    Message::RequestVote { ballot: ballot(BallotKind::PreVote), last }
}

pub(crate) fn transfer_vote(last: LogPosition) -> Message {
    Message::RequestVote { ballot: ballot(BallotKind::Transfer), last }
}

pub(crate) fn append(prev: LogPosition, entries: Vec<Entry>, commit: u64) -> Message {
    let entries = entries.into();
    Message::AppendEntries { prev, entries, commit: LogIndex(commit), round: Round(1) }
}

pub(crate) fn heartbeat(prev: LogPosition, commit: u64) -> Message {
    append(prev, Vec::new(), commit)
}

pub(crate) fn accepted(durable: u64, received: u64, round: Round) -> Message {
    let outcome =
        AppendOutcome::Accepted { durable: LogIndex(durable), received: LogIndex(received) };
    Message::AppendEntriesReply { round, outcome }
}

pub(crate) fn refused(prev: u64, hint: LogPosition, round: Round) -> Message {
    let outcome = AppendOutcome::Refused { prev: LogIndex(prev), hint };
    Message::AppendEntriesReply { round, outcome }
}

/// A snapshot of some other node's, of `length` bytes, that ends at `position`.
pub(crate) fn snapshot(position: LogPosition, length: u64, members: Membership) -> Snapshot {
    let base = LogBase { position, ..LogBase::initial(members) };
    Snapshot { base, length, digest: 1 }
}
