//! What a leader owes to the others, as far as it takes time to see: it takes on no change that rests on voters
//! who do not answer, and does not lead on with a disk that hangs.

use raft_core::{Instant, LogIndex, Membership, NodeId, RoleKind, Status, Term};

use super::Simulation;
use crate::machine::Workload;

/// What the disk of a leader has been given and not finished.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unfinished {
    /// The life of the node, and its term.
    of: (u64, Term),
    /// All up to here is finished.
    durable: LogIndex,
    /// What its disk had been given when that was first seen; when that was, by the clock of the node.
    given: LogIndex,
    since: Instant,
}

impl<W: Workload> Simulation<W> {
    /// A majority of these voters must have been heard lately, or nothing could be committed any more.
    pub(super) fn check_change_rests_on_the_living(&self, leader: NodeId, target: &Membership) {
        // The slowest clocks make two election timeouts of one.
        let lately = self.timeout() * 3;
        let heard = |&&id: &&NodeId| {
            let last = self.heard.get(&(leader, id));
            id == leader || last.is_some_and(|&last| self.cluster.now.since(last) <= lately)
        };
        let (voters, living) =
            (target.voters().len(), target.voters().iter().filter(heard).count());
        assert!(living * 2 > voters, "{leader} takes on {target}: only {living} voters answer");
    }

    /// A node was polled: what a leader has to write, its disk has been given.
    pub(super) fn watch_disk(&mut self, id: NodeId) {
        if self.cluster.node(id).role().0 != RoleKind::Leader {
            self.unfinished.remove(&id);
            return;
        }
        let Status { term, durable, last, .. } = self.cluster.node(id).status();
        let of = (self.life(id), term);
        let same = |it: &Unfinished| it.of == of && it.durable == durable;
        if durable == last.index {
            self.unfinished.remove(&id);
        } else if !self.unfinished.get(&id).is_some_and(same) {
            let since = self.cluster.clock(id);
            self.unfinished.insert(id, Unfinished { of, durable, given: last.index, since });
        }
    }

    /// The timer of a node has run out: a leader does not lead on if its disk has hung for an election
    /// timeout with what is committed without it.
    pub(super) fn check_hanging_disk(&self, id: NodeId) {
        let Some(unfinished) = self.unfinished.get(&id) else { return };
        let Unfinished { of, durable, given, since } = *unfinished;
        let hangs = self.cluster.clock(id).since(since) >= self.timeout();
        if !hangs || self.cluster.node(id).role().0 != RoleKind::Leader {
            return;
        }
        let now = self.cluster.node(id).status();
        let same = of == (self.life(id), now.term) && now.durable == durable;
        assert!(!same || now.commit < given, "{id} leads on with a disk that hangs");
    }
}
