//! Membership changes (§6, thesis §4): `change_membership` appends a configuration, which takes effect at
//! once; where two majorities would not be sure to meet, it is a joint one, and when that is committed the
//! leader, this one or the next, appends the target.

use alloc::vec::Vec;

use super::Node;
use super::role::{Leader, Role};
use crate::config::Promotion;
use crate::entry::{Entry, Payload};
use crate::event::Event;
use crate::membership::Membership;
use crate::output::{ChangeOutcome, Fate};
use crate::progress::Progress;
use crate::refusal::ChangeRefusal;
use crate::types::{Instant, LogIndex, LogPosition, NodeId, Timestamp};

/// A change that was taken here, until its fate is known; also when this node leads no more.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct PendingChange {
    /// The first configuration on the way to the target.
    entered: LogPosition,
    /// That one is committed; its end is still to come.
    begun: bool,
}

impl Node {
    pub(super) fn check_change(
        &self,
        target: &Membership,
        expected: Option<LogIndex>,
    ) -> Result<(), ChangeRefusal> {
        let Role::Leader(leader) = &self.role else {
            return Err(ChangeRefusal::NotLeader { hint: self.leader() });
        };
        if self.is_retiring() {
            return Err(ChangeRefusal::NotLeader { hint: None });
        }
        let (now, index) = (self.membership(), self.configurations.current_index());
        if let Some(transfer) = &leader.transfer {
            return Err(ChangeRefusal::Transferring { to: transfer.to });
        }
        if target.is_joint() {
            return Err(ChangeRefusal::JointTarget);
        }
        if expected.is_some_and(|expected| expected != index) {
            return Err(ChangeRefusal::Stale { actual: index });
        }
        if now.is_joint() || index > self.commit_index {
            return Err(ChangeRefusal::InFlight { index });
        }
        if self.commit_index < leader.opening {
            return Err(ChangeRefusal::NoCommitInTermYet);
        }
        if now == target {
            return Err(ChangeRefusal::NoChange);
        }
        let ready = target.voters().iter().filter(|&&id| self.is_ready(leader, id)).count();
        let needed = target.voters().len() / 2 + 1;
        if ready < needed {
            return Err(ChangeRefusal::WouldLoseQuorum { ready, needed });
        }
        Ok(())
    }

    /// Could commits rest on this node at once? It answers, and what it lacks of the log can be on its way
    /// to it at once.
    fn is_ready(&self, leader: &Leader, id: NodeId) -> bool {
        let ready = |peer: &Progress| {
            let lag = self.log.bytes_between(peer.match_index, self.commit_index);
            let reachable = peer.match_index >= self.log.base().index;
            let answers = peer.is_active(self.now, self.config.election_timeout);
            answers && reachable && lag <= self.config.inflight_bytes_max
        };
        id == self.config.id || leader.peer(id).is_some_and(ready)
    }

    /// Takes the first step towards `target`.
    pub(super) fn begin_change(
        &mut self,
        timestamp: Timestamp,
        target: &Membership,
    ) -> LogPosition {
        let step = self.membership().toward(target);
        self.append_membership(timestamp, step)
    }

    fn append_membership(&mut self, timestamp: Timestamp, membership: Membership) -> LogPosition {
        let entry = Entry {
            index: self.log.last().index.next(),
            term: self.hard_state.term,
            timestamp: timestamp.max(self.log.last_timestamp()),
            payload: Payload::Membership(membership),
        };
        let position = entry.position();
        self.append(entry);
        position
    }

    pub(super) fn watch_change(&mut self, entered: LogPosition) {
        // Whatever was taken here before is decided: something of this term is committed.
        debug_assert!(self.change.is_none());
        self.change = Some(PendingChange { entered, begun: false });
    }

    /// The members have changed: a leader begins to replicate to the new ones. Those who have left are
    /// told for an election timeout, so that they know.
    pub(super) fn meet_members(&mut self) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let members: Vec<NodeId> = self.configurations.current().nodes().collect();
        let last = self.log.last().index;
        for &id in members.iter().filter(|&&id| id != self.config.id) {
            match leader.peer_mut(id) {
                Some(peer) => peer.departing = None,
                None => leader.peers.push(Progress::new(id, last, self.now)),
            }
        }
        leader.peers.sort_unstable_by_key(|peer| peer.id);
        for peer in &mut leader.peers {
            if peer.departing.is_none() && !members.contains(&peer.id) {
                peer.departing = Some(Instant::FAR_FUTURE);
            }
        }
    }

    /// Forgets those who have left, an election timeout after that was certain.
    pub(super) fn part_with_departed(&mut self) {
        let now = self.now;
        if let Role::Leader(leader) = &mut self.role {
            leader.peers.retain(|peer| peer.departing.is_none_or(|until| now < until));
        }
    }

    /// The commit index has risen: a joint phase that is committed is left, those who leave are told for
    /// so much longer, and whoever waits for a change is told.
    pub(super) fn follow_up_change(&mut self) {
        self.settle_change();
        // Whose confirmations count may have changed: perhaps nobody else's are needed any more.
        self.release_reads();
        if !self.is_configuration_committed() {
            return;
        }
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let farewell = self.now.after(self.config.election_timeout);
        for peer in &mut leader.peers {
            peer.departing = peer.departing.map(|until| until.min(farewell));
        }
        let membership = self.configurations.current();
        if membership.is_joint() {
            let target = membership.target();
            self.append_membership(Timestamp(0), target);
        }
    }

    /// Is the current configuration committed, and with it something of the term that this node leads? Until
    /// then what follows from it may be someone else's turn.
    pub(super) fn is_configuration_committed(&self) -> bool {
        let index = self.configurations.current_index();
        let Role::Leader(leader) = &self.role else { return false };
        self.commit_index >= index.max(leader.opening)
    }

    /// Is it committed that this leader has no vote any more? Then its duty is done (thesis §4.2.2), and it begins
    /// nothing that would keep it.
    pub(super) fn is_retiring(&self) -> bool {
        self.is_configuration_committed() && !self.membership().is_voter(self.config.id)
    }

    fn settle_change(&mut self) {
        let Some(PendingChange { entered, begun }) = self.change else {
            return;
        };
        if entered.index > self.commit_index && !self.is_dead(entered) {
            return;
        }
        let fate = if begun || self.log.contains(entered) {
            let (_, committed) = self.configurations.as_of(self.commit_index);
            if committed.is_joint() {
                self.change = Some(PendingChange { entered, begun: true });
                return;
            }
            Fate::Committed
        } else {
            Fate::Superseded
        };
        self.change = None;
        self.change_outcomes.push(ChangeOutcome { change: entered, fate });
    }

    /// A snapshot takes the place of the log: what it says of a change is all that can be known.
    pub(super) fn settle_change_by_snapshot(&mut self, snapshot: LogPosition) {
        let Some(PendingChange { entered, begun }) = self.change else {
            return;
        };
        if entered.index > snapshot.index || begun {
            return; // Decided like any other, by what is committed behind the snapshot.
        }
        // It was entered behind a committed entry of its own term, so nothing older can end the snapshot:
        // its term decides nothing, as that of a proposal may.
        self.change = None;
        self.change_outcomes.push(ChangeOutcome { change: entered, fate: Fate::Unknown });
    }

    /// Makes a learner that has caught up a voter, if that is the policy (thesis §4.2.1). One at a time:
    /// the next one's turn comes when this change is complete.
    pub(super) fn promote_learners(&mut self) {
        if self.config.promotion == Promotion::Manual {
            return;
        }
        let (last, within) = (self.log.last().index, self.config.election_timeout);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let learners = self.configurations.current().learners();
        let now = self.now;
        let mut ready = leader.peers.iter_mut().filter_map(|peer| {
            let learns = learners.binary_search(&peer.id).is_ok() && peer.is_active(now, within);
            (learns && peer.has_caught_up(last, now, within)).then_some(peer.id)
        });
        let Some(learner) = ready.next() else {
            return;
        };
        let target = self.membership().with_voter(learner);
        if self.check_change(&target, None).is_ok() {
            self.events.push(Event::Promoting { learner });
            self.begin_change(Timestamp(0), &target);
        }
    }
}
