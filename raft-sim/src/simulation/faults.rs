//! What breaks, and for how long: nodes pause, links are cut, new leaders are cursed.

use std::collections::BTreeSet;

use raft_core::{Consistency, NodeId};

use super::{ELECTION_TIMEOUT, Happening, Simulation};

impl Simulation {
    pub(super) fn fault(&mut self) {
        if !self.chaos {
            return;
        }
        let wait = self.up_to(self.options.fault_interval * 2);
        self.later(wait, Happening::Fault);
        let ids = self.cluster.ids();
        if ids.is_empty() || !self.intervenes() {
            return; // All are gone for good, one after the other.
        }
        let anyone = ids[self.random.usize(..ids.len())];
        let leader = self.leader();
        let victim = leader.filter(|_| self.random.bool()).unwrap_or(anyone);
        match self.random.u8(..8) {
            0..=2 => self.crash(victim),
            3 => self.pause(victim),
            _ => self.partition(&ids),
        }
    }

    /// Bad things happen to a new leader: what it says is lost, or it dies soon, or both.
    pub(super) fn curse(&mut self, id: NodeId) {
        let (curse, seed) = (self.random.f64(), self.random.u64(..));
        if !self.chaos || curse >= self.options.curse || !self.may_intervene(seed) {
            return;
        }
        if self.random.bool() {
            let ids = self.cluster.ids();
            let deaf = ids.iter().copied().filter(|&to| to != id && self.random.u8(..4) > 0);
            let links: Vec<_> = deaf.map(|to| (id, to)).collect();
            self.cut_for_a_while(&links);
        }
        let wait = self.up_to(self.options.delay_max.saturating_add(self.options.sync_max) * 2);
        let life = self.cluster.members[&id].lives;
        self.later(wait, Happening::Crash(id, life));
    }

    pub(super) fn cut_for_a_while(&mut self, links: &[(NodeId, NodeId)]) {
        self.report.partitions += 1;
        let number = self.report.partitions;
        self.cut.extend(links.iter().map(|&(a, b)| (a, b, number)));
        self.note(|| format!("partition {number}: {links:?}"));
        let wait = self.up_to(ELECTION_TIMEOUT * 8);
        self.later(wait, Happening::Heal(number));
    }

    pub(super) fn pause(&mut self, id: NodeId) {
        self.report.pauses += 1;
        self.note(|| format!("pause {id}"));
        self.paused.insert(id);
        let wait = self.up_to(ELECTION_TIMEOUT * 4);
        self.later(wait, Happening::Resume(id));
    }

    pub(super) fn resume(&mut self, id: NodeId) {
        self.note(|| format!("resume {id}"));
        if self.paused.remove(&id) && self.cluster.is_up(id) && self.random.bool() {
            // Someone asks before it notices how late it is.
            let _refused = self.cluster.read(id, Consistency::Lease);
            self.poll(id);
        }
    }

    /// A node hears nobody for a while.
    pub(super) fn deafen(&mut self, id: NodeId) {
        let others = self.cluster.ids().into_iter().filter(|&from| from != id);
        let links: Vec<_> = others.map(|from| (from, id)).collect();
        if self.chaos {
            self.cut_for_a_while(&links);
        }
    }

    /// Cuts the cluster in two, isolates one node (often the leader), or cuts single directed links.
    pub(super) fn partition(&mut self, ids: &[NodeId]) {
        let kind = self.random.u8(..4);
        let alone = self.leader().unwrap_or(ids[0]);
        let side: BTreeSet<NodeId> = ids.iter().copied().filter(|_| self.random.bool()).collect();
        let mut links = Vec::new();
        for &a in ids {
            for &b in ids {
                let cut = match kind {
                    0 => side.contains(&a) != side.contains(&b),
                    1 => a == alone || b == alone,
                    2 => side.contains(&a) && !side.contains(&b),
                    _ => self.random.u8(..4) == 0,
                };
                if a != b && cut {
                    links.push((a, b));
                }
            }
        }
        self.cut_for_a_while(&links);
    }
}
