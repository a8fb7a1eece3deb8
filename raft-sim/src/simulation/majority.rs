//! Which nodes are healed in the second phase, and whether they can be asked for anything.

use std::collections::BTreeSet;

use raft_core::{Membership, NodeId, Payload, Promotion, Status};

use super::Simulation;
use crate::machine::Workload;
use crate::storage::Storage;

impl<W: Workload> Simulation<W> {
    /// Nodes that are a majority of whatever configuration may be in effect, often just so. `None` if not
    /// even all that are left would be.
    pub(super) fn choose_majority(&mut self) -> Option<BTreeSet<NodeId>> {
        let mut open = self.open_configurations();
        if self.options.promotion == Promotion::WhenCaughtUp {
            // Whoever learns may have been made a voter in the very moment in which it broke.
            for membership in open.clone() {
                let mut all = membership.target();
                for &learner in membership.learners() {
                    all = all.with_voter(learner);
                    open.push(all.clone());
                    open.push(membership.with_voter(learner));
                }
            }
        }
        let enough = |good: &BTreeSet<NodeId>| {
            open.iter().all(|membership| membership.is_quorum(|id| good.contains(&id)))
        };
        let mut ids = self.cluster.ids();
        let mut good: BTreeSet<NodeId> = ids.iter().copied().collect();
        if !enough(&good) || self.something_is_gone(&open) {
            return None;
        }
        // Whoever has lost something votes only for who may have that: somebody who is left must, and be able
        // to win with those who are.
        let wanting = self.any_disk_wanting();
        self.random.shuffle(&mut ids);
        for id in ids {
            let mut fewer = good.clone();
            fewer.remove(&id);
            let breaks = self.random.u8(..4) > 0;
            let wins = || open.iter().all(|membership| self.disks_elect_one(&fewer, membership));
            if breaks && enough(&fewer) && (!wanting || wins()) {
                good = fewer;
            }
        }
        Some(good)
    }

    /// Is there one of these whom a majority of this configuration would vote for, as far as disks tell?
    fn disks_elect_one(&self, good: &BTreeSet<NodeId>, membership: &Membership) -> bool {
        let disk = |id: NodeId| self.cluster.members[&id].disk.durable();
        let needs = |id: NodeId| disk(id).last().max(disk(id).lost);
        good.iter().any(|&candidate| {
            let last = disk(candidate).last();
            let votes = |id| good.contains(&id) && needs(id) <= last;
            membership.is_voter(candidate)
                && needs(candidate) <= last
                && membership.is_quorum(votes)
        })
    }

    /// Is there one of these who may campaign, and for whom a majority of the members that it knows of can
    /// vote? There may be none, though a majority of every configuration is well: a new voter that does not
    /// know that it is one, and as a learner was sent more than the voters have who count on it, votes for
    /// none of them and does not campaign itself.
    pub(super) fn somebody_can_win(&self, good: &BTreeSet<NodeId>) -> bool {
        let status = |id: NodeId| self.cluster.node(id).status();
        // Who has lost something votes only for who may have it.
        let lost = |id: NodeId| self.cluster.members[&id].disk.durable().lost;
        good.iter().map(|&id| status(id)).any(|candidate| {
            let needs = |id: NodeId| status(id).last.max(lost(id));
            let votes = |id| good.contains(&id) && needs(id) <= candidate.last;
            lost(candidate.id) <= candidate.last
                && self.may_be_a_voter(&candidate)
                && candidate.membership.is_quorum(votes)
        })
    }

    /// Does the newest configuration that this node knows to be committed, or one behind it in its log, have
    /// it as a voter? If not, it does not campaign.
    fn may_be_a_voter(&self, status: &Status) -> bool {
        let disk = self.cluster.members[&status.id].disk.durable();
        let in_log = disk.entries.iter().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.index, membership)),
            Payload::Noop | Payload::Command(_) => None,
        });
        let mut all: Vec<_> =
            [(disk.base.position.index, &disk.base.membership)].into_iter().chain(in_log).collect();
        let committed = all.partition_point(|(index, _)| *index <= status.commit).max(1) - 1;
        all.drain(..committed);
        all.iter().any(|(_, membership)| membership.is_voter(status.id))
    }

    /// Has a disk lost entries that no other voter's disk has? Its node cannot tell that nobody relied on
    /// them, and votes for nobody who lacks them: if its vote is needed, that is the end.
    fn something_is_gone(&self, open: &[Membership]) -> bool {
        let disk = |id: NodeId| self.cluster.members.get(&id).map(|member| member.disk.durable());
        let has = |id: NodeId, lost| disk(id).is_some_and(|it| it.last() >= lost);
        let voters = |membership: &Membership| {
            [membership.voters(), membership.outgoing()].concat().into_iter()
        };
        open.iter().any(|membership| {
            let votes = |id: NodeId| {
                let lost = disk(id).map(|it| it.lost);
                lost.is_some_and(|lost| has(id, lost) || voters(membership).any(|it| has(it, lost)))
            };
            !membership.is_quorum(votes)
        })
    }
}
