//! One server of the specification: its variables, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{
    Ballot, Entry, HardState, Incarnation, LogIndex, LogPosition, Membership, NodeId, Payload,
    RoleKind, Term,
};

use super::log::Log;

/// One server: the variables of `raft.tla`, by their names.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) role: RoleKind,
    pub(super) current_term: Term,
    pub(super) voted_for: Option<NodeId>,
    pub(super) log: Log,
    pub(super) commit_index: LogIndex,
    /// What it asked last; answers to anything else do not count.
    pub(super) asked: Option<Ballot>,
    /// Who has voted for it in its current term, and who would in the next.
    pub(super) votes_granted: BTreeSet<NodeId>,
    pub(super) pre_votes_granted: BTreeSet<NodeId>,
    /// As a leader: how far each of the others has acknowledged its log, and on which of its disks.
    pub(super) match_index: BTreeMap<NodeId, (Incarnation, LogIndex)>,
    /// It campaigns because the leader wanted it to.
    pub(super) consent: bool,
    /// The configurations in its log, with what it stands on; the last one is in effect.
    pub(super) configurations: Vec<(LogIndex, Membership)>,
    /// Where its log begins in fact.
    pub(super) base: LogPosition,
    /// What it takes to be on its disk.
    pub(super) durable: LogIndex,
    pub(super) incarnation: Incarnation,
    /// What its disk had and lost.
    pub(super) lost: LogPosition,
    /// Ends of the log that it may have asked for votes with, in its current term.
    pub(super) announced: BTreeSet<LogPosition>,
    /// What has left the server about its term and its vote: it must remember that much.
    pub(super) promised: HardState,
}

impl Server {
    pub(super) fn configuration(&self) -> &(LogIndex, Membership) {
        self.configurations.last().expect("a log stands on a configuration")
    }

    /// Does it vote in the configuration that is committed, or in one that may come to be?
    pub(super) fn may_have_a_vote(&self, id: NodeId) -> bool {
        let committed = self.configurations.iter().rposition(|(at, _)| *at <= self.commit_index);
        let possible = &self.configurations[committed.unwrap_or(0)..];
        possible.iter().any(|(_, it)| it.voters().contains(&id) || it.outgoing().contains(&id))
    }

    pub(super) fn put(&mut self, entry: &Entry) {
        self.log.put(entry.position());
        self.configurations.retain(|(at, _)| *at < entry.index);
        if let Payload::Membership(membership) = &entry.payload {
            self.configurations.push((entry.index, membership.clone()));
        }
    }

    /// It asks for votes. To a new question nobody has answered.
    pub(super) fn ask(&mut self, ballot: Ballot) {
        if self.asked.replace(ballot) != Some(ballot) {
            self.votes_granted.clear();
            self.pre_votes_granted.clear();
        }
    }

    pub(super) fn enter(&mut self, term: Term, voted_for: Option<NodeId>) {
        (self.current_term, self.voted_for, self.consent) = (term, voted_for, false);
        self.asked = None;
        self.votes_granted.clear();
        self.pre_votes_granted.clear();
        self.announced.clear();
    }
}
