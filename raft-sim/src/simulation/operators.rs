//! What operators do: members come and go, leadership is handed over, snapshots are cut; a node that lost
//! its disk is removed, and another takes its place.

use std::collections::BTreeSet;
use std::time::Duration;

use raft_core::{Entry, LogIndex, LogPosition, Membership, NodeId, Payload};

use super::kinds::{Kind, Moment};
use super::{Happening, Simulation};
use crate::cluster::n;
use crate::machine::Workload;
use crate::storage::Storage;
use crate::storage::shipping::Store;
use crate::transcript;

/// No more nodes than this exist at a time.
const NODES_MAX: usize = 8;

impl<W: Workload> Simulation<W> {
    pub(super) fn operator(&mut self) {
        if !self.chaos {
            return;
        }
        let busy = self.options.churn > 0.5;
        let often = if busy { self.timeout() / 2 } else { self.options.operator_interval };
        let wait = self.up_to(often.min(self.options.operator_interval) * 2);
        self.later(wait, Happening::Operator);
        if !self.intervenes() {
            return;
        }
        if self.random.f64() < self.options.churn {
            return self.churn();
        }
        match self.random.u8(..8) {
            0 => drop(self.add_node()),
            1 => self.remove_leftovers(),
            2..=4 => self.change_members(),
            5 => self.hand_over(),
            6 => {
                if let Some(id) = self.anyone_running() {
                    self.cut(id);
                }
            }
            _ => self.wipe(),
        }
    }

    pub(super) fn anyone_running(&mut self) -> Option<NodeId> {
        let up: Vec<NodeId> = self.cluster.ids().into_iter().filter(|&id| self.runs(id)).collect();
        (!up.is_empty()).then(|| up[self.random.usize(..up.len())])
    }

    pub(super) fn cut(&mut self, id: NodeId) {
        if !self.runs(id) {
            return;
        }
        if let Some(snapshot) = self.cluster.cut_snapshot(id) {
            self.report.cuts += 1;
            self.without_snapshot.remove(&id);
            self.note(|| format!("{id} cuts snapshot {snapshot}"));
            if !self.strike_at(id, Moment::SnapshotCut) {
                self.poll_soon(id);
            }
        }
    }

    pub(super) fn add_node(&mut self) -> Option<NodeId> {
        if self.cluster.members.len() >= NODES_MAX {
            return None;
        }
        let id = n(self.next_id);
        self.next_id += 1;
        self.note(|| format!("{id} joins"));
        let drift = self.drift();
        self.cluster.add_with_drift(id, drift);
        Some(id)
    }

    /// A node is gone for good, and its disk with it.
    pub(super) fn lose(&mut self, id: NodeId) {
        let disk = self.cluster.destroy(id);
        self.report.disks.count_disk(disk);
        self.paused.remove(&id);
        self.trouble.held.remove(&id);
        self.unpolled.remove(&id);
        self.without_snapshot.remove(&id);
    }

    /// A node will not come back: as an operator would do, another one takes its place.
    pub(super) fn give_up(&mut self, id: NodeId) {
        self.lose(id);
        if let Some(new) = self.add_node() {
            self.later(Duration::ZERO, Happening::Replace(id, new));
        }
    }

    /// Asks for the one in place of the other, until it is done.
    pub(super) fn replace(&mut self, old: NodeId, new: NodeId) {
        if let Some(leader) = self.leader() {
            let now = self.cluster.node(leader).status().membership;
            if !now.contains(old) || !self.cluster.members.contains_key(&new) {
                if now.contains(new) {
                    self.count(Kind::ReAdded);
                }
                return;
            }
            let without = now.target().without(old);
            let target = if self.random.bool() {
                without.map(|it| it.with_voter(new))
            } else {
                without.and_then(|it| it.with_learner(new))
            };
            if let Ok(target) = target {
                self.ask_for(leader, &target, None);
            }
        }
        let wait = self.up_to(self.timeout() * 2);
        self.later(wait, Happening::Replace(old, new));
    }

    /// Nodes that are in nobody's configuration any more go away for good.
    fn remove_leftovers(&mut self) {
        let mut needed: BTreeSet<NodeId> = BTreeSet::new();
        for id in self.cluster.ids() {
            if self.cluster.is_up(id) {
                needed.extend(self.cluster.node(id).status().membership.nodes());
            }
        }
        let down = self.cluster.ids().into_iter().any(|id| !self.cluster.is_up(id));
        if down {
            return; // A node that is down may still count on others.
        }
        for id in self.cluster.ids() {
            if !needed.contains(&id) && self.random.bool() {
                self.note(|| format!("{id} goes"));
                self.cluster.stop(id);
                self.lose(id);
            }
        }
    }

    /// Asks a node that takes itself to lead for other members: some change of one node, or any others.
    pub(super) fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let status = self.cluster.node(leader).status();
        let now = status.membership;
        let ids = self.cluster.ids();
        let one = ids[self.random.usize(..ids.len())];
        let target = match self.random.u8(..5) {
            0 => Ok(now.with_voter(one)),
            1 => now.with_learner(one),
            2 => now.without(one),
            _ => {
                let mut voters: Vec<NodeId> = Vec::new();
                let mut learners = Vec::new();
                for &id in &ids {
                    match self.random.u8(..4) {
                        0 => learners.push(id),
                        1 => {}
                        _ => voters.push(id),
                    }
                }
                Membership::from_parts(voters, [], learners)
            }
        };
        let Ok(target) = target else { return };
        let expected = self.random.bool().then_some(status.membership_index);
        self.ask_for(leader, &target, expected);
    }

    /// Asks a leader for these members. Did it take that on?
    pub(super) fn ask_for(
        &mut self,
        leader: NodeId,
        target: &Membership,
        expected: Option<LogIndex>,
    ) -> bool {
        let taken = self.cluster.change(leader, target, expected);
        self.report.changes_taken += u64::from(taken.is_ok());
        self.note(|| {
            format!("{leader} is asked for the members {target}: {}", transcript::taken(&taken))
        });
        if taken.is_ok() {
            self.check_change_rests_on_the_living(leader, target);
        }
        self.poll_soon(leader);
        taken.is_ok()
    }

    pub(super) fn hand_over(&mut self) {
        let Some(leader) = self.leader() else { return };
        let ids = self.cluster.ids();
        let to = self.random.bool().then(|| ids[self.random.usize(..ids.len())]);
        let taken = self.cluster.transfer(leader, to);
        self.report.transfers += u64::from(taken.is_ok());
        self.note(|| format!("{leader} is to hand over: {}", transcript::taken(&taken)));
        self.poll_soon(leader);
        // What the old leader ought to hear in a moment may not reach it.
        if taken.is_ok() && self.random.f64() < self.options.curse {
            let wait = self.up_to(self.options.delay_max * 4);
            self.later(wait, Happening::Deafen(leader));
        }
    }

    /// A disk is lost, with all that is on it, or rots.
    pub(super) fn wipe(&mut self) {
        match self.random.u8(..5) {
            0 | 1 => {}
            2 => return self.rot(),
            _ => return self.meddle(),
        }
        let Some(victim) = self.who_may_lose_its_disk() else { return };
        self.note(|| format!("{victim} is lost with its disk"));
        self.report.disks.disks_lost += 1;
        if self.cluster.is_up(victim) {
            self.cluster.stop(victim);
        }
        self.give_up(victim);
    }

    /// Some node whose disk may be damaged. At most one node at a time, and only where others have all
    /// that it had: more than that no protocol could survive.
    pub(super) fn who_may_lose_its_disk(&mut self) -> Option<NodeId> {
        if self.any_disk_wanting() {
            return None;
        }
        let ids = self.cluster.ids();
        let victim = *ids.get(self.random.usize(..ids.len().max(1)))?;
        if self.open_configurations().iter().any(|open| open.voters().len() < 3) {
            return None;
        }
        // Nothing that is committed may be on this disk and only one other.
        let spread = |position: LogPosition| {
            let others = ids.iter().filter(|&&id| id != victim);
            let holds = |&&id: &&NodeId| self.cluster.members[&id].disk.durable().holds(position);
            others.filter(holds).count() >= 2
        };
        let committed = self.cluster.checker.committed.last();
        committed.is_none_or(|entry| spread(entry.position())).then_some(victim)
    }

    /// Is there a disk that lacks something which its node may have acknowledged, or a member that is
    /// lost for good?
    pub(super) fn any_disk_wanting(&self) -> bool {
        let members = &self.cluster.members;
        let wanting = |disk: &Store| {
            let durable = disk.durable();
            disk.is_suspect() || durable.last() < durable.lost
        };
        members.values().any(|member| wanting(&member.disk))
            || self
                .open_configurations()
                .iter()
                .any(|open| open.nodes().any(|id| !members.contains_key(&id)))
    }

    /// The configuration that is committed, and those that may yet be: whatever is behind it in any log.
    pub(super) fn open_configurations(&self) -> Vec<Membership> {
        let committed = &self.cluster.checker.committed;
        let of = |entry: &Entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.index, membership.clone())),
            Payload::Noop | Payload::Command(_) => None,
        };
        let (index, last) = committed
            .iter()
            .rev()
            .find_map(of)
            .unwrap_or((LogIndex(0), self.cluster.membership.clone()));
        let mut open = vec![last];
        for member in self.cluster.members.values() {
            let on_disk = member.disk.durable().entries.iter().chain(member.disk.pending());
            let on_disk = on_disk.filter_map(of);
            open.extend(on_disk.filter(|(at, _)| *at > index).map(|(_, membership)| membership));
            if let Some(node) = &member.node {
                let entries = (index.0 + 1..=node.status().last.index.0).map(LogIndex);
                let in_memory = entries.filter_map(|index| node.entry(index).and_then(of));
                open.extend(in_memory.map(|(_, membership)| membership));
            }
        }
        open.dedup();
        open
    }
}
