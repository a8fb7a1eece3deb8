//! Leadership transfer (thesis §3.10): `transfer_leadership` → the target catches up, nothing new is
//! taken meanwhile → `hand_over` sends TimeoutNow → `on_timeout_now` at the target, which campaigns with
//! the leader's consent.
//!
//! If the target does not take over in an election timeout, the leader goes on leading. It has given its
//! consent to an election, though, and cannot take it back: its lease is gone for the rest of the term.

use super::Node;
use super::role::{Leader, Role};
use crate::event::{Event, Ignored};
use crate::message::{BallotKind, Message};
use crate::refusal::TransferRefusal;
use crate::types::{Instant, LogIndex, NodeId};

/// Leadership on its way to another node.
#[derive(Clone, Debug, Hash)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// When the leader gives it up.
    pub(super) deadline: Instant,
    /// The target is to be told, as soon as it has the whole log.
    due: bool,
}

impl Node {
    pub(super) fn start_transfer(&mut self, to: Option<NodeId>) -> Result<NodeId, TransferRefusal> {
        let Role::Leader(leader) = &self.role else {
            return Err(TransferRefusal::NotLeader { hint: self.leader() });
        };
        if let Some(transfer) = &leader.transfer {
            return Err(TransferRefusal::InFlight { to: transfer.to });
        }
        let to = match to {
            Some(id) if id == self.config.id => return Err(TransferRefusal::AlreadyLeads),
            Some(id) if !self.membership().is_voter(id) => return Err(TransferRefusal::NotAVoter),
            Some(id) => self.can_take_over(leader, id).then_some(id),
            None => self.best_successor(leader).map(|(id, _)| id),
        };
        let to = to.ok_or(TransferRefusal::NotAlive)?;
        let deadline = self.now.after(self.config.election_timeout);
        if let Role::Leader(leader) = &mut self.role {
            leader.transfer = Some(Transfer { to, deadline, due: true });
        }
        self.events.push(Event::TransferStarted { to });
        Ok(to)
    }

    /// The voter that has most of the log on its disk, of those that answer.
    fn best_successor(&self, leader: &Leader) -> Option<(NodeId, LogIndex)> {
        let able = leader.peers.iter().filter(|peer| self.can_take_over(leader, peer.id));
        // Of equals the first, so that the same inputs give the same outputs.
        let best = able.reduce(|a, b| if b.match_index > a.match_index { b } else { a });
        best.map(|peer| (peer.id, peer.match_index))
    }

    fn can_take_over(&self, leader: &Leader, id: NodeId) -> bool {
        let answers = |peer: &crate::progress::Progress| {
            peer.is_active(self.now, self.config.election_timeout)
        };
        // In a joint phase a voter on its way out would have to step down at once.
        self.membership().voters().contains(&id) && leader.peer(id).is_some_and(answers)
    }

    /// Tells the target to campaign, once it has the whole log: anyone else's vote is refused to a
    /// shorter one (§5.4.1).
    pub(super) fn hand_over(&mut self) {
        let last = self.log.last().index;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(Transfer { to, due, .. }) = &mut leader.transfer else {
            return;
        };
        let to = *to;
        let complete = leader.peers.iter().any(|peer| peer.id == to && peer.match_index == last);
        if *due && complete {
            *due = false;
            leader.lease.revoke();
            self.send(to, Message::TimeoutNow);
        }
    }

    /// The message may have been lost: it goes out again with the next heartbeat.
    pub(super) fn repeat_hand_over(&mut self) {
        if let Role::Leader(Leader { transfer: Some(transfer), .. }) = &mut self.role {
            transfer.due = true;
        }
    }

    pub(super) fn transfer_deadline(leader: &Leader) -> Instant {
        leader.transfer.as_ref().map_or(Instant::FAR_FUTURE, |transfer| transfer.deadline)
    }

    /// The target did not take over in time.
    pub(super) fn give_up_transfer(&mut self) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(Transfer { to, .. }) = leader.transfer.take()
        {
            self.events.push(Event::TransferFailed { to });
        }
    }

    /// A leader without a vote leads no longer than it must (thesis §4.2.2); its last messages have just
    /// told the others that the configuration without it is committed.
    pub(super) fn retire(&mut self) {
        if self.is_retiring() {
            self.abdicate();
        }
    }

    /// Steps down, leaving the term to whoever can take it on at once (thesis §3.10, §4.2.2).
    pub(super) fn abdicate(&mut self) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        if let Some((to, held)) = self.best_successor(leader)
            && held >= self.commit_index
        {
            self.events.push(Event::TransferStarted { to });
            self.send(to, Message::TimeoutNow);
        }
        self.become_follower(self.hard_state.term);
    }

    /// The leader wants this node to lead.
    pub(super) fn on_timeout_now(&mut self, from: NodeId) {
        let why = match &self.role {
            Role::Leader(_) | Role::Candidate(_) => Ignored::StaleReply,
            Role::Follower(_) if self.leader().is_some_and(|leader| leader != from) => {
                Ignored::SecondLeader
            }
            Role::Follower(_) | Role::PreCandidate(_) if !self.may_campaign() => {
                Ignored::CannotLead
            }
            Role::Follower(_) | Role::PreCandidate(_) => {
                self.become_candidate(BallotKind::Transfer);
                return self.request_votes();
            }
        };
        self.ignore(Some(from), why);
    }
}
