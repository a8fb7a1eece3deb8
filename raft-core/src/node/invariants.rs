//! What must be true after every step, whatever happened. A broken one is a bug of ours: tests call
//! this after every step, and debug builds do so by themselves.

use super::Node;
use super::role::{Follower, Role};

impl Node {
    /// Panics if an invariant of the node is broken. Costs time in proportion to what is in flight.
    pub fn check_invariants(&self) {
        self.log.check_invariants();
        let last = self.log.last();
        assert!(last.term <= self.hard_state.term, "an entry from the future");
        assert!(self.commit_index <= last.index, "committed beyond the log");
        assert!(self.handed_out <= self.commit_index, "handed out before it was committed");
        assert!(self.applied <= self.handed_out, "applied before it was handed out");
        assert!(self.configurations.current_index() <= last.index, "configuration beyond the log");
        match &self.role {
            Role::Leader(leader) => {
                assert_eq!(self.hard_state.voted_for, Some(self.config.id), "leads without a vote");
                let opening = self.log.term_at(leader.opening);
                let compacted = leader.opening < self.log.base().index;
                assert!(compacted || opening == Some(self.hard_state.term), "opened another term");
                for peer in &leader.peers {
                    peer.check_invariants();
                    assert!(peer.match_index <= last.index, "{} matches beyond the log", peer.id);
                    assert!(peer.next_index <= last.index.next(), "{} next beyond", peer.id);
                }
            }
            Role::Candidate(_) => assert_eq!(self.hard_state.voted_for, Some(self.config.id)),
            Role::Follower(Follower { leader: Some(leader), .. }) => {
                assert!(leader.verified <= last.index, "verified beyond the log");
                assert!(leader.acknowledged <= leader.verified, "acknowledged beyond verified");
                assert_ne!(leader.id, self.config.id, "follows itself");
            }
            Role::Follower(_) | Role::PreCandidate(_) => {}
        }
    }

    pub(super) fn debug_check_invariants(&self) {
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }
}
