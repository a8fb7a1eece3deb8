//! Elections (§5.2), the up-to-date rule (§5.4.1), pre-votes and stickiness (thesis §9.6, §4.2.3).
//!
//! `campaign` → `on_request_vote` at the others → `on_request_vote_reply` back at the candidate, twice:
//! as a question that binds nobody, then for real.

use alloc::vec::Vec;

use super::Node;
use super::role::{Campaign, Role};
use crate::event::{Event, Ignored, VoteRefusal};
use crate::message::{Ballot, BallotKind, Message};
use crate::types::{LogPosition, NodeId};

impl Node {
    /// Nobody leads, as far as this node can tell.
    pub(super) fn campaign(&mut self) {
        self.become_pre_candidate();
        self.request_votes();
        self.count_own_vote();
    }

    pub(super) fn request_votes(&mut self) {
        let (Role::PreCandidate(campaign) | Role::Candidate(campaign)) = &self.role else {
            return;
        };
        let ballot = campaign.ballot;
        let last = self.log.last();
        let membership = self.membership();
        let others =
            membership.nodes().filter(|&id| membership.is_voter(id) && id != self.config.id);
        for id in others.collect::<Vec<_>>() {
            self.send(id, Message::RequestVote { ballot, last });
        }
    }

    /// Someone asks for this node's vote. The gate has already refused while a leader is alive.
    pub(super) fn on_request_vote(&mut self, from: NodeId, ballot: Ballot, last: LogPosition) {
        let refusal = self.refuse_vote(from, ballot.kind, last);
        match refusal {
            Some(why) => self.events.push(Event::VoteRefused { candidate: from, why }),
            // A pre-vote would be given; nothing is promised, and no timer is reset.
            None if !ballot.kind.binds() => {}
            None => {
                if self.hard_state.voted_for.is_none() {
                    let term = self.hard_state.term;
                    self.events.push(Event::Voted { term, candidate: from });
                }
                self.hard_state.voted_for = Some(from);
                self.reset_election_timer();
            }
        }
        // The outbox keeps the reply until the vote is durable.
        self.send(from, Message::RequestVoteReply { ballot, granted: refusal.is_none() });
    }

    fn refuse_vote(
        &self,
        from: NodeId,
        kind: BallotKind,
        last: LogPosition,
    ) -> Option<VoteRefusal> {
        // At least as up-to-date as this log (§5.4.1), and as what this node may have had and lost.
        let needed = self.log.last().max(self.lost);
        if last < needed {
            return Some(VoteRefusal::LogBehind { candidate: last, needed });
        }
        let voted = self.hard_state.voted_for.filter(|&voted| kind.binds() && voted != from);
        voted.map(|candidate| VoteRefusal::AlreadyVoted { candidate })
    }

    /// An answer to a campaign of this node's.
    pub(super) fn on_request_vote_reply(&mut self, from: NodeId, ballot: Ballot, granted: bool) {
        let is_voter = self.membership().is_voter(from);
        let campaign = match &mut self.role {
            Role::PreCandidate(campaign) | Role::Candidate(campaign)
                if campaign.ballot == ballot =>
            {
                campaign
            }
            _ => return self.ignore(Some(from), Ignored::StaleReply),
        };
        if !is_voter {
            return self.ignore(Some(from), Ignored::NotAMember);
        }
        if granted {
            campaign.grant(from);
            self.tally();
        }
    }

    /// The candidate's own vote, which counts once it is durable like any other. In the question before
    /// an election nothing needs to be durable.
    pub(super) fn count_own_vote(&mut self) {
        let id = self.config.id;
        match &mut self.role {
            Role::PreCandidate(campaign) => campaign.grant(id),
            Role::Candidate(campaign) if self.outbox.is_durable(self.hard_state) => {
                campaign.grant(id);
            }
            Role::Candidate(_) | Role::Follower(_) | Role::Leader(_) => return,
        }
        self.tally();
    }

    /// With a majority the question becomes an election, and an election a leadership.
    fn tally(&mut self) {
        let (Role::PreCandidate(campaign) | Role::Candidate(campaign)) = &self.role else {
            return;
        };
        if !self.membership().is_quorum(|id| campaign.granted.contains(&id)) {
            return;
        }
        match campaign.ballot.kind {
            BallotKind::PreVote => {
                self.become_candidate(BallotKind::Vote);
                self.request_votes();
            }
            BallotKind::Vote | BallotKind::Transfer => self.become_leader(),
        }
    }
}

impl Campaign {
    fn grant(&mut self, voter: NodeId) {
        if !self.granted.contains(&voter) {
            self.granted.push(voter);
        }
    }
}
