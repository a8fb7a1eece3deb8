//! Raft, as a specification that can be executed: what a server may do, and nothing about how.
//!
//! The names are those of Ongaro's TLA+ specification (`raft.tla`), with what this implementation adds to
//! it: pre-votes and consent (thesis §9.6, §3.10), joint consensus and learners (§6, thesis §4), snapshots
//! (§7), servers that stop and come back with what their disks have, and disks that lost something and know
//! how much. Each action of a server below is a function: its preconditions, each with the words for when it
//! does not hold, then its effect. Nothing here is shared with the logic of `raft-core`, only the words that
//! messages, entries and memberships are made of; quorums are counted over sets.
//!
//! [`Spec::observe`] is shown every step of every node, with what caused it, and must find actions that
//! explain what has changed (`spec/refine.rs`); [`Spec::send`] is shown every message, and it must be true
//! (`spec/messages.rs`). What finds no explanation is a defect, and named after the action that it would
//! have been. Both look only at what has changed since the step before.
//!
//! What a server knows to be received but not durable, timers, leases, reads and flow control are not
//! described: they change nothing that could be unsafe, except reads, which the checker follows.

mod log;
mod messages;
mod refine;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use raft_core::{
    Entry, GroupId, HardState, LogIndex, LogPosition, Membership, NodeId, Payload, RoleKind, Term,
};

use crate::storage::durable::Durable;
use log::Log;
pub use refine::{Cause, View};
use server::Server;

/// Every so many steps a whole log is looked at, not only what has changed.
pub(crate) const STEPS_BETWEEN_AUDITS: u64 = 64;

/// All servers, and what is remembered of the past: the leaders, their logs, what was committed.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    servers: BTreeMap<NodeId, Server>,
    elections: BTreeMap<Term, Election>,
    /// What the entries say that bring configurations; at `0@0` what the cluster began with.
    configurations: BTreeMap<LogPosition, Membership>,
    /// The entries that some leader has committed.
    committed: Log,
    /// The Raft group that is described: messages of others say nothing to it.
    pub group: GroupId,
    /// How many steps of nodes were explained.
    pub steps: u64,
}

/// A term that has a leader.
#[derive(Clone, Debug)]
struct Election {
    leader: NodeId,
    /// The leader's log, and how much of it the leader has committed.
    log: Log,
    commit_index: LogIndex,
}

/// A step that no action explains.
struct Unexplained {
    action: &'static str,
    broken: &'static str,
}

type Explained = Result<(), Unexplained>;

/// A precondition of an action.
fn require(holds: bool, action: &'static str, otherwise: &'static str) -> Explained {
    if holds { Ok(()) } else { Err(Unexplained { action, broken: otherwise }) }
}

/// Do these servers make a majority of the voters, in a joint phase of both sets of them?
pub(crate) fn is_quorum(configuration: &Membership, servers: &BTreeSet<NodeId>) -> bool {
    let majority = |voters: &[NodeId]| {
        let voters: BTreeSet<NodeId> = voters.iter().copied().collect();
        voters.intersection(servers).count() * 2 > voters.len()
    };
    let joint = !configuration.outgoing().is_empty();
    majority(configuration.voters()) && (!joint || majority(configuration.outgoing()))
}

/// May the second configuration follow on the first (§6, thesis §4.1)?
fn may_follow(now: &Membership, next: &Membership) -> bool {
    let set = |ids: &[NodeId]| ids.iter().copied().collect::<BTreeSet<NodeId>>();
    let (voters, next_voters) = (set(now.voters()), set(next.voters()));
    if !now.outgoing().is_empty() {
        let target = next_voters == voters && next.learners() == now.learners();
        return target && next.outgoing().is_empty();
    }
    let difference = voters.symmetric_difference(&next_voters).count();
    set(next.outgoing()) == voters || next.outgoing().is_empty() && difference <= 1
}

/// The actions.
impl Spec {
    fn server(&mut self, id: NodeId) -> &mut Server {
        self.servers.get_mut(&id).unwrap_or_else(|| panic!("{id} was never started"))
    }

    fn configurations_in(&self, log: &Log) -> Vec<(LogIndex, Membership)> {
        let brought = self.configurations.iter().filter(|(at, _)| log.contains(**at));
        brought.map(|(at, membership)| (at.index, membership.clone())).collect()
    }

    /// A server comes back with what its disk has: all that was durable, every promise; and of the rest what
    /// had reached the disk unknown to it. What a disk has lost, it must know.
    fn restart(&mut self, id: NodeId, disk: &Durable) -> Explained {
        let refuse = |holds, why| require(holds, "Restart", why);
        let HardState { term, voted_for } = disk.hard_state;
        let Durable { lost, incarnation, .. } = *disk;
        let base = disk.base.position;
        refuse(self.committed.contains(base), "it begins behind what is not committed")?;
        let mut log = Log::default();
        for position in self.committed.between(LogIndex(1), base.index) {
            log.put(position);
        }
        for entry in &disk.entries {
            let written = self.elections.get(&entry.term).map(|it| &it.log);
            let written = written.is_some_and(|log| log.contains(entry.position()));
            refuse(written, "it has an entry that no leader wrote")?;
            log.put(entry.position());
        }
        let held = disk.snapshots.last().map_or(LogPosition::ZERO, |it| it.base.position);
        refuse(self.committed.contains(held), "its snapshot is of what is not committed")?;
        if let Some(before) = self.servers.get(&id) {
            let HardState { term: promised, voted_for: vote } = before.promised;
            let kept = term >= promised && (term > promised || vote.is_none() || vote == voted_for);
            refuse(kept, "a term or a vote that left it is forgotten")?;
            let known = term < before.current_term
                || term == before.current_term
                    && (voted_for == before.voted_for || voted_for.is_none());
            refuse(known, "a vote that it never gave")?;
            refuse(incarnation >= before.incarnation, "an incarnation that has passed")?;
            refuse(lost >= before.lost, "what was lost once is forgotten")?;
            let durable = before.log.at(before.durable).expect("durable up to there");
            refuse(log.contains(durable) || lost >= durable, "an entry that was durable is gone")?;
        }
        if base == LogPosition::ZERO {
            // All servers begin with the same one, also those that join later.
            let first = disk.base.membership.clone();
            let first = self.configurations.entry(LogPosition::ZERO).or_insert(first);
            refuse(*first == disk.base.membership, "another cluster")?;
        }
        let configurations = self.configurations_in(&log);
        let promised = self.servers.get(&id).map(|before| before.promised).unwrap_or_default();
        let server = Server {
            role: RoleKind::Follower,
            current_term: term,
            voted_for,
            durable: log.last().index,
            log,
            commit_index: base.index.max(held.index),
            asked: None,
            votes_granted: BTreeSet::new(),
            pre_votes_granted: BTreeSet::new(),
            match_index: BTreeMap::new(),
            consent: false,
            configurations,
            base,
            incarnation,
            lost,
            announced: BTreeSet::new(),
            promised,
        };
        self.servers.insert(id, server);
        Ok(())
    }

    /// A message of a newer term came.
    fn update_term(&mut self, id: NodeId, term: Term) {
        let server = self.server(id);
        server.enter(term, None);
        server.role = RoleKind::Follower;
    }

    /// A campaign begins: after a question that a quorum would vote yes to, or with the leader's consent.
    fn timeout(&mut self, id: NodeId, consent: bool) -> Explained {
        let server = self.server(id);
        let refuse = |holds, why| require(holds, "Timeout", why);
        refuse(server.role != RoleKind::Leader, "a leader does not campaign")?;
        refuse(server.log.last() >= server.lost, "its log lacks what it had acknowledged")?;
        refuse(server.may_have_a_vote(id), "it is no voter")?;
        server.pre_votes_granted.insert(id);
        let asked = is_quorum(&server.configuration().1, &server.pre_votes_granted);
        refuse(consent || asked, "nobody would vote for it")?;
        server.enter(server.current_term.next(), Some(id));
        server.announced.insert(server.log.last());
        (server.role, server.consent) = (RoleKind::Candidate, consent);
        Ok(())
    }

    /// It gives its vote: the only one in this term, and to a log that is as new as its own, and as all
    /// that it ever had.
    fn handle_request_vote_request(
        &mut self,
        id: NodeId,
        from: NodeId,
        last: LogPosition,
    ) -> Explained {
        let server = self.server(id);
        let refuse = |holds, why| require(holds, "HandleRequestVoteRequest", why);
        refuse(server.voted_for.is_none(), "a second vote in this term")?;
        refuse(last >= server.log.last(), "the candidate's log is older")?;
        refuse(last >= server.lost, "the candidate's log is older than what was lost")?;
        server.voted_for = Some(from);
        Ok(())
    }

    /// A quorum has voted for it, itself included only once its disk has that. Nobody led this term before,
    /// and its log has all that was committed in an earlier one (checked by whoever commits, for leaders
    /// that are there already).
    fn become_leader(&mut self, id: NodeId, disk: &Durable) -> Explained {
        let committed = self.committed_before(self.servers[&id].current_term);
        let server = self.server(id);
        let refuse = |holds, why| require(holds, "BecomeLeader", why);
        refuse(server.role == RoleKind::Candidate, "it was no candidate")?;
        let HardState { term, voted_for } = disk.hard_state;
        if (term, voted_for) == (server.current_term, Some(id)) {
            server.votes_granted.insert(id);
        }
        let elected = is_quorum(&server.configuration().1, &server.votes_granted);
        refuse(elected, "no quorum has voted for it")?;
        refuse(server.log.contains(committed), "Leader Completeness")?;
        server.role = RoleKind::Leader;
        server.match_index.clear();
        let (log, commit_index) = (server.log.clone(), server.commit_index);
        let term = server.current_term;
        let election = Election { leader: id, log, commit_index };
        refuse(self.elections.insert(term, election).is_none(), "Election Safety")
    }

    /// The end of what leaders of earlier terms have committed.
    fn committed_before(&self, term: Term) -> LogPosition {
        let earlier = self.elections.range(..term).map(|(_, election)| election.commit_index);
        self.committed.at(earlier.max().unwrap_or_default()).expect("committed up to there")
    }

    /// A leader appends an entry of its own: the one that opens its term, a command, a configuration.
    fn client_request(&mut self, id: NodeId, entry: &Entry, opens: bool, asked: bool) -> Explained {
        let server = self.servers.get_mut(&id).expect("a server that moves was started");
        let refuse = |holds, why| require(holds, "ClientRequest", why);
        refuse(server.role == RoleKind::Leader, "only a leader takes entries")?;
        refuse(entry.term == server.current_term, "an entry of another term")?;
        refuse(entry.index == server.log.last().index.next(), "not at the end of the log")?;
        match &entry.payload {
            Payload::Noop => refuse(opens, "only the first entry of a term says nothing")?,
            Payload::Command(_) => refuse(asked && !opens, "a command that nobody proposed")?,
            Payload::Membership(next) => {
                let refuse = |holds, why| require(holds, "ChangeMembership", why);
                let (since, now) = server.configuration();
                let commit = server.log.at(server.commit_index).expect("committed up to there");
                refuse(!opens && commit.term == entry.term, "nothing is committed in this term")?;
                refuse(*since <= commit.index, "the change before is not committed")?;
                refuse(may_follow(now, next), "majorities that may not meet")?;
                self.configurations.insert(entry.position(), next.clone());
            }
        }
        server.put(entry);
        let election = self.elections.get_mut(&entry.term).expect("a leader was elected");
        election.log.put(entry.position());
        Ok(())
    }

    /// A follower makes its log the leader's, as far as a message goes: what is there already stays, with all
    /// behind it, unless it contradicts.
    fn append_entries(&mut self, id: NodeId, prev: LogPosition, entries: &[Entry]) -> Explained {
        let server = self.server(id);
        let refuse = |holds, why| require(holds, "AppendEntries", why);
        refuse(server.role == RoleKind::Follower, "only a follower appends")?;
        refuse(server.log.contains(prev), "it does not have the entry before")?;
        for entry in entries {
            if !server.log.contains(entry.position()) {
                refuse(entry.index > server.commit_index, "a committed entry is replaced")?;
                server.put(entry);
            }
        }
        Ok(())
    }

    /// A leader commits what a quorum has acknowledged, its own disk included, if it is of its own term.
    fn advance_commit_index(&mut self, id: NodeId, to: LogIndex, disk: &Durable) -> Explained {
        let server = self.servers.get_mut(&id).expect("a server that moves was started");
        let refuse = |holds, why| require(holds, "AdvanceCommitIndex", why);
        let position = server.log.at(to);
        refuse(position.is_some_and(|it| it.term == server.current_term), "not of its term")?;
        let acknowledged = server.match_index.iter().filter(|(_, (_, index))| *index >= to);
        let mut agree: BTreeSet<NodeId> = acknowledged.map(|(&peer, _)| peer).collect();
        if position.is_some_and(|position| disk.contains(position)) {
            agree.insert(id);
        }
        refuse(is_quorum(&server.configuration().1, &agree), "no quorum has it on disk")?;
        for position in server.log.between(server.commit_index.next(), to) {
            let known = position.index <= self.committed.last().index;
            refuse(!known || self.committed.contains(position), "State Machine Safety")?;
            if !known {
                self.committed.put(position);
            }
        }
        server.commit_index = to;
        let term = server.current_term;
        let election = self.elections.get_mut(&term).expect("a leader was elected");
        election.commit_index = to;
        let complete = |later: &Election| later.log.contains(position.expect("looked at above"));
        let all = self.elections.range(term.next()..).all(|(_, later)| complete(later));
        refuse(all, "Leader Completeness: a later leader lacks it")
    }

    /// A follower learns what the leader of its term has committed, as far as its log is the leader's.
    fn learn_commit_index(&mut self, id: NodeId, to: LogIndex) -> Explained {
        let server = self.servers.get_mut(&id).expect("a server that moves was started");
        let refuse = |holds, why| require(holds, "LearnCommitIndex", why);
        refuse(server.role == RoleKind::Follower, "only a follower learns it")?;
        let leader = self.elections.get(&server.current_term);
        let leader =
            leader.ok_or(Unexplained { action: "LearnCommitIndex", broken: "from whom" })?;
        refuse(to <= leader.commit_index, "the leader has not committed that much")?;
        refuse(server.log.agrees(&leader.log, to), "its log is not the leader's")?;
        server.commit_index = to;
        Ok(())
    }

    /// A snapshot of what is committed has arrived. It takes the place of a log that lacks what it contains;
    /// of one that has it, it says that so much is committed.
    fn install_snapshot(&mut self, id: NodeId, upto: LogPosition, replaces: bool) -> Explained {
        let server = self.servers.get_mut(&id).expect("a server that moves was started");
        let refuse = |holds, why| require(holds, "InstallSnapshot", why);
        refuse(self.committed.contains(upto), "of what is not committed")?;
        refuse(upto.index > server.commit_index, "of less than what is committed here")?;
        refuse(server.log.contains(upto) != replaces, "in place of a log that has it")?;
        if replaces {
            refuse(server.role != RoleKind::Leader, "at a leader")?;
            server.log.cut(server.commit_index);
            for position in self.committed.between(server.commit_index.next(), upto.index) {
                server.log.put(position);
            }
            server.base = upto;
        }
        server.commit_index = upto.index;
        if server.role == RoleKind::Leader {
            let term = server.current_term;
            let election = self.elections.get_mut(&term).expect("a leader was elected");
            election.commit_index = upto.index;
        }
        if replaces {
            let configurations = self.configurations_in(&self.servers[&id].log);
            self.server(id).configurations = configurations;
        }
        Ok(())
    }

    /// What a snapshot on its disk contains may go from a log, if it is committed and on the disk.
    fn compact_log(&mut self, id: NodeId, base: LogPosition, disk: &Durable) -> Explained {
        let server = self.server(id);
        let refuse = |holds, why| require(holds, "CompactLog", why);
        refuse(base.index > server.base.index, "what was compacted is back")?;
        refuse(server.log.contains(base), "to what is not in the log")?;
        refuse(base.index <= server.commit_index, "beyond what is committed")?;
        refuse(base.index <= server.durable, "beyond what is on the disk")?;
        let held = disk.snapshots.iter().any(|it| it.index() >= base.index);
        refuse(held, "without a snapshot of it")?;
        server.base = base;
        Ok(())
    }
}
