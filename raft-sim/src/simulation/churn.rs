//! Operators who are after something: a cluster grows to seven voters or shrinks to one, step by step and
//! through all faults, a voter is replaced while another is down, the leader is removed.

use raft_core::{Membership, NodeId};

use super::Simulation;
use super::kinds::Kind;
use crate::machine::Workload;

/// What operators are after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Grow,
    Shrink,
}

const GROWN: usize = 7;

impl<W: Workload> Simulation<W> {
    /// Takes a step towards what operators are after.
    pub(super) fn churn(&mut self) {
        let Some(leader) = self.leader() else { return };
        let status = self.cluster.node(leader).status();
        let now = status.membership;
        let (choice, settled) = (self.random.u8(..10), !now.is_joint());
        let only = now.voters().len() == 1;
        match (self.trouble.goal, choice) {
            (_, 0) => self.replace_while_another_is_down(leader, &now),
            (_, 1) if !only => {
                let without = now.without(leader).ok();
                if without.is_some_and(|target| self.ask_for(leader, &target, None)) {
                    self.count(Kind::LeaderRemoved);
                }
            }
            (_, 2) => self.hand_over(),
            (_, 3) => self.wipe(),
            (Some(Goal::Grow), _) if settled && now.voters().len() >= GROWN => {
                self.count(Kind::Grown);
                self.trouble.goal = Some(Goal::Shrink);
            }
            (Some(Goal::Shrink), _) if settled && only && now.learners().is_empty() => {
                self.count(Kind::Shrunk);
                self.trouble.goal = Some(Goal::Grow);
            }
            (Some(Goal::Grow), _) => self.grow(leader, &now),
            (Some(Goal::Shrink), _) => self.shrink(leader, &now),
            (None, _) => {
                let grow = now.voters().len() < 4;
                self.trouble.goal = Some(if grow { Goal::Grow } else { Goal::Shrink });
            }
        }
    }

    /// Newcomers learn first; then, one after the other or all together, they become voters.
    fn grow(&mut self, leader: NodeId, now: &Membership) {
        while self.cluster.members.len() < GROWN && self.add_node().is_some() {}
        let outside: Vec<NodeId> =
            self.cluster.ids().into_iter().filter(|&id| !now.contains(id)).collect();
        let (promote, all) = (self.random.bool(), self.random.bool());
        let mut target = now.target();
        if outside.is_empty() || promote && !now.learners().is_empty() {
            for &id in now.learners().iter().take(if all { GROWN } else { 1 }) {
                target = target.with_voter(id);
            }
        } else {
            for id in outside.into_iter().take(if all { GROWN } else { 1 }) {
                target = target.with_learner(id).unwrap_or(target);
            }
        }
        self.ask_for(leader, &target, None);
    }

    /// One after the other goes, or all but the leader.
    fn shrink(&mut self, leader: NodeId, now: &Membership) {
        let all = self.random.u8(..4) == 0;
        let others: Vec<NodeId> = now.nodes().filter(|&id| id != leader).collect();
        let mut target = now.target();
        let first = self.random.usize(..others.len().max(1));
        for &id in others.iter().skip(if all { 0 } else { first }).take(if all { 99 } else { 1 }) {
            target = target.without(id).unwrap_or(target);
        }
        self.ask_for(leader, &target, None);
    }

    fn replace_while_another_is_down(&mut self, leader: NodeId, now: &Membership) {
        let others: Vec<NodeId> = now.voters().iter().copied().filter(|&id| id != leader).collect();
        let (one, other) = (self.random.usize(..others.len().max(1)), self.random.bool());
        if others.len() < 2 {
            return;
        }
        let (old, down) = (others[one], others[(one + 1) % others.len()]);
        let outside = self.cluster.ids().into_iter().find(|&id| !now.contains(id));
        let Some(new) = outside.or_else(|| self.add_node()) else { return };
        self.crash(down);
        let without = now.without(old);
        let target = if other {
            without.map(|it| it.with_voter(new))
        } else {
            without.and_then(|it| it.with_learner(new))
        };
        if self.runs(leader) && target.is_ok_and(|target| self.ask_for(leader, &target, None)) {
            self.count(Kind::ReplacedWhileDown);
        }
    }
}
