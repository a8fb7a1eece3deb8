//! The roles of Figure 4 and how a node moves between them. What belongs to a role lives inside it:
//! votes exist only while campaigning, progress only while leading.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Node;
use super::read::{FollowerReads, Lease, WaitingRead};
use super::transfer::Transfer;
use crate::entry::{Entry, Payload};
use crate::event::Event;
use crate::message::{Ballot, BallotKind, Round};
use crate::progress::Progress;
use crate::refusal::ReadRefused;
use crate::status::RoleKind;
use crate::types::{Instant, LogIndex, NodeId, TERM_MAX, Term};
use crate::write::HardState;

/// What a node is, with what it needs for that.
#[derive(Clone, Debug, Hash)]
pub(super) enum Role {
    Follower(Follower),
    /// Asks whether it would be elected (thesis §9.6).
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Leader),
}

#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Follower {
    /// The leader of this term, once it has been heard.
    pub(super) leader: Option<KnownLeader>,
    pub(super) reads: FollowerReads,
}

/// The leader of the current term, as its follower sees it.
#[derive(Clone, Debug, Hash)]
pub(super) struct KnownLeader {
    pub(super) id: NodeId,
    /// Our log is the leader's up to here. Stays true for the whole term: a leader only appends.
    pub(super) verified: LogIndex,
    /// How much of it the leader was told to be durable.
    pub(super) acknowledged: LogIndex,
    /// The latest round heard.
    pub(super) round: Round,
    /// The leader waits for an answer that need not wait for the disk.
    pub(super) reply_due: bool,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Campaign {
    pub(super) ballot: Ballot,
    /// Who would vote, or has voted, for this node.
    pub(super) granted: Vec<NodeId>,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Leader {
    /// The other members, in order.
    pub(super) peers: Vec<Progress>,
    /// The entry that opened the term: reads wait until it is committed (thesis §6.4).
    pub(super) opening: LogIndex,
    /// The last round of leadership confirmation that was started.
    pub(super) round: Round,
    pub(super) heartbeat_due: Instant,
    pub(super) reads: VecDeque<WaitingRead>,
    pub(super) lease: Lease,
    /// Leadership is on its way to another node.
    pub(super) transfer: Option<Transfer>,
}

impl Role {
    pub(super) fn follower() -> Self {
        Self::Follower(Follower::default())
    }

    pub(super) fn kind(&self) -> RoleKind {
        match self {
            Self::Follower(_) => RoleKind::Follower,
            Self::PreCandidate(_) => RoleKind::PreCandidate,
            Self::Candidate(_) => RoleKind::Candidate,
            Self::Leader(_) => RoleKind::Leader,
        }
    }
}

impl Leader {
    pub(super) fn peer_mut(&mut self, id: NodeId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }

    pub(super) fn peer(&self, id: NodeId) -> Option<&Progress> {
        self.peers.iter().find(|peer| peer.id == id)
    }
}

impl Node {
    /// The leader of the current term, if known.
    pub(super) fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.config.id),
            Role::Follower(follower) => follower.leader.as_ref().map(|leader| leader.id),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Does this node have reason to believe that a leader is at work: does it lead, or has it heard
    /// from one within the shortest election timeout (thesis §4.2.3)? A newer term does not make it
    /// forget that: the leader of the older one may still hold a lease.
    pub(super) fn leader_is_alive(&self) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(_) => self.now < self.sticky_until,
            Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Follows whoever leads `term`, at least the current one; a new term has no vote yet (§5.1).
    pub(super) fn become_follower(&mut self, term: Term) {
        debug_assert!(term >= self.hard_state.term);
        if term > self.hard_state.term {
            self.hard_state.term = term;
            self.hard_state.voted_for = None;
        }
        // A follower keeps its timer: a higher term alone is no reason to wait longer (§5.2).
        if !matches!(self.role, Role::Follower(_)) {
            self.reset_election_timer();
        }
        self.change_role(Role::follower());
    }

    /// Asks the others first, without touching the term (thesis §9.6).
    pub(super) fn become_pre_candidate(&mut self) {
        let campaign = self.new_campaign(BallotKind::PreVote);
        self.change_role(Role::PreCandidate(campaign));
        self.reset_election_timer();
    }

    /// Starts an election in a new term and votes for itself (§5.2). That vote counts once it is durable.
    pub(super) fn become_candidate(&mut self, kind: BallotKind) {
        debug_assert!(!matches!(self.role, Role::Leader(_)) && kind.binds());
        let (term, id) = (self.hard_state.term.next(), self.config.id);
        self.hard_state = HardState { term, voted_for: Some(id) };
        let campaign = self.new_campaign(kind);
        self.change_role(Role::Candidate(campaign));
        self.events.push(Event::Voted { term, candidate: id });
        self.reset_election_timer();
    }

    /// Leads the term: opens it with an entry of its own, so that the entries of earlier terms can be
    /// committed (§5.4.2, §8).
    pub(super) fn become_leader(&mut self) {
        debug_assert!(matches!(self.role, Role::Candidate(_)));
        debug_assert_eq!(self.hard_state.voted_for, Some(self.config.id));
        let last = self.log.last().index;
        let others = self.membership().nodes().filter(|&id| id != self.config.id);
        let peers = others.map(|id| Progress::new(id, last, self.now)).collect();
        self.change_role(Role::Leader(Leader {
            peers,
            opening: last.next(),
            round: Round(1),
            heartbeat_due: self.now.after(self.config.heartbeat_interval),
            reads: VecDeque::new(),
            lease: Lease::new(self.now),
            transfer: None,
        }));
        self.append(Entry {
            index: last.next(),
            term: self.hard_state.term,
            timestamp: self.log.last_timestamp(),
            payload: Payload::Noop,
        });
    }

    /// Every change of role goes through here: whoever waits for a read in the old role is told.
    fn change_role(&mut self, role: Role) {
        let before = core::mem::replace(&mut self.role, role);
        match before {
            Role::Leader(leader) => self.fail_reads(leader.reads),
            Role::Follower(follower) => {
                self.fail_follower_reads(follower.reads, ReadRefused::LeadershipLost);
            }
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        self.announce_role();
    }

    pub(super) fn announce_role(&mut self) {
        let (role, term, leader) = (self.role.kind(), self.hard_state.term, self.leader());
        self.events.push(Event::Role { role, term, leader });
    }

    fn new_campaign(&mut self, kind: BallotKind) -> Campaign {
        let campaign = self.new_question();
        Campaign { ballot: Ballot { kind, campaign }, granted: Vec::new() }
    }

    /// Has a write waited for an election timeout? This node could promise nothing as a leader.
    fn disk_hangs(&self) -> bool {
        let oldest = self.outbox.oldest_write();
        oldest.is_some_and(|(since, _)| self.now.since(since) >= self.config.election_timeout)
    }

    pub(super) fn reset_election_timer(&mut self) {
        let timeout = self.random.between_once_and_twice(self.config.election_timeout);
        self.election_deadline = self.now.after(timeout);
    }

    /// When this node campaigns: never, unless it has a vote itself and there is a term left, and not
    /// while its disk hangs or its log is known to lack something.
    pub(super) fn election_timer(&self) -> Instant {
        if self.may_campaign() { self.election_deadline } else { Instant::FAR_FUTURE }
    }

    /// Could this node lead? Not while it knows that it has lost entries which it may have acknowledged.
    /// A configuration without it counts once it is committed: until then its log may be the only one
    /// that can win, and the others need it to (thesis §4.2.2).
    pub(super) fn may_campaign(&self) -> bool {
        self.hard_state.term < TERM_MAX
            && !self.disk_hangs()
            && self.log.last() >= self.lost
            && self.configurations.may_need_vote_of(self.config.id, self.commit_index)
    }
}
