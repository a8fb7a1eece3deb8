//! What is committed (§5.3, §5.4.2, Figure 8), and what that means for whoever waits.

use super::Node;
use super::role::{Follower, Role};
use crate::entries::Committed;
use crate::entry::Entry;
use crate::event::Event;
use crate::output::{Fate, ProposalOutcome};
use crate::types::{Instant, LogIndex, LogPosition};

impl Node {
    /// A leader commits what a majority holds durably, if it is of its own term: an entry of an earlier
    /// term is committed only along with it (§5.4.2).
    pub(super) fn advance_commit_index(&mut self) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let holds = |id| {
            if id == self.config.id {
                self.log.durable() // Its own disk is just another voter.
            } else {
                leader.peer(id).map_or(LogIndex(0), |peer| peer.match_index)
            }
        };
        let held = self.membership().quorum_value(holds);
        if held > self.commit_index && self.log.term_at(held) == Some(self.hard_state.term) {
            self.set_commit_index(held);
        }
    }

    /// When a leader has to give up because its disk hangs: an election timeout after it was given
    /// what the others have had on their disks long since. If theirs are no better, it stays.
    pub(super) fn disk_deadline(&self) -> Instant {
        match self.outbox.oldest_write() {
            Some((since, index)) if index <= self.commit_index => {
                since.after(self.config.election_timeout)
            }
            _ => Instant::FAR_FUTURE,
        }
    }

    /// A leader that cannot write stops the whole cluster sooner or later; any other can do better, and
    /// the best of them is asked to at once.
    pub(super) fn step_down_with_hanging_disk(&mut self) {
        self.events.push(Event::DiskHangs { term: self.hard_state.term });
        self.abdicate();
    }

    /// A follower commits what the leader has committed, as far as it is known to have it (§5.3).
    pub(super) fn learn_commit_index(&mut self, leader_commit: LogIndex) {
        let Role::Follower(Follower { leader: Some(leader), .. }) = &self.role else {
            return;
        };
        let commit = leader_commit.min(leader.verified);
        if commit > self.commit_index {
            self.set_commit_index(commit);
        }
    }

    pub(super) fn set_commit_index(&mut self, index: LogIndex) {
        debug_assert!(index > self.commit_index && index <= self.log.last().index);
        self.commit_index = index;
        self.events.push(Event::Committed { index });
        // Whoever waits for it looks at it.
        self.settle_proposals();
        self.follow_up_change();
        self.release_patient_reads();
    }

    /// Someone waits for the fate of these entries.
    pub(super) fn watch_proposal(&mut self, first: LogPosition, last: LogPosition) {
        if last < first {
            return;
        }
        match self.proposals.back_mut() {
            Some((_, end)) if end.term == first.term && end.index.next() == first.index => {
                *end = last;
            }
            _ => self.proposals.push_back((first, last)),
        }
    }

    /// Can an entry at this position, behind the commit index, never be committed any more? Every log that
    /// can still win has what is committed, and terms do not fall along a log (§5.4).
    pub(super) fn is_dead(&self, position: LogPosition) -> bool {
        self.log.term_at(self.commit_index).is_some_and(|committed| position.term < committed)
    }

    /// Decides every proposal that the commit index has reached or outlived. If another entry was chosen
    /// at the place of one, that one and all behind it are dead for ever: no log can hold them any more.
    fn settle_proposals(&mut self) {
        while let Some((first, last)) = self.proposals.front().copied() {
            let reached = first.index <= self.commit_index;
            if !reached && !self.is_dead(first) {
                return;
            }
            self.proposals.pop_front();
            if !reached || !self.log.contains(first) {
                let fate = Fate::Superseded;
                self.proposal_outcomes.push(ProposalOutcome { first, last, fate });
                continue;
            }
            // The log may hold the run only in part: what follows has then been superseded.
            let end = LogPosition::new(first.term, last.index.min(self.commit_index));
            let reached = if self.log.contains(end) {
                end
            } else {
                self.log.last_at_or_below(end.index, first.term)
            };
            let fate = Fate::Committed;
            self.proposal_outcomes.push(ProposalOutcome { first, last: reached, fate });
            if reached < last {
                let rest = LogPosition::new(first.term, reached.index.next());
                self.proposals.push_front((rest, last));
            }
        }
    }

    /// A snapshot takes the place of the log up to `snapshot`: what it says of the proposals there is all
    /// that can be known.
    pub(super) fn settle_proposals_by_snapshot(&mut self, snapshot: LogPosition) {
        while let Some((first, last)) = self.proposals.front().copied() {
            if first.index > snapshot.index {
                return;
            }
            self.proposals.pop_front();
            // Terms never fall along a log: one of a later term cannot lie below the snapshot's last.
            let fate = if first.term > snapshot.term { Fate::Superseded } else { Fate::Unknown };
            let end = last.min(LogPosition::new(last.term, snapshot.index));
            self.proposal_outcomes.push(ProposalOutcome { first, last: end, fate });
            if end < last {
                let rest = LogPosition::new(first.term, snapshot.index.next());
                self.proposals.push_front((rest, last));
            }
        }
    }

    /// Hands out committed entries, each once, as long as the state machine keeps up.
    pub(super) fn hand_out_committed(&mut self, out: &mut Committed) {
        if self.handed_out == self.commit_index {
            return;
        }
        let waiting = self.log.bytes_between(self.applied, self.handed_out);
        let room = self.config.unapplied_bytes_max.saturating_sub(waiting);
        let from = self.handed_out.next();
        let next = self.log.get(from).map_or(0, Entry::size_bytes);
        // Something must always be able to go.
        if next > room && waiting > 0 {
            return;
        }
        for run in self.log.pieces(from, self.commit_index, room) {
            self.handed_out = LogIndex(self.handed_out.0 + run.len() as u64);
            out.push(run);
        }
    }
}
