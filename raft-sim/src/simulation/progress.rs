//! The second phase of a run: what is left whole must make progress.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{Instant, Membership, NodeId, Payload, Promotion, RoleKind};

use super::{ELECTION_TIMEOUT, Happening, Simulation};
use crate::storage::Storage;

const AFTER_ALL: &[u8] = b"after all";

impl Simulation {
    /// Heals one majority, leaves the rest broken for ever, and demands that it commits and applies a
    /// new command within ten election timeouts, and that all of it catches up in the end.
    pub(super) fn demand_progress(&mut self) {
        self.chaos = false;
        self.heal_disks();
        let Some(good) = self.choose_majority() else {
            self.report.hopeless += 1;
            return;
        };
        for id in self.cluster.ids() {
            if self.cluster.is_up(id) && !good.contains(&id) {
                self.cluster.stop(id);
            }
        }
        // Nothing that is still on the agenda may bring the others back, or break the majority.
        self.agenda.retain(|happening| {
            !matches!(
                happening,
                Happening::Restart(_)
                    | Happening::Client
                    | Happening::Crash(..)
                    | Happening::Operator
                    | Happening::DiskFault
                    | Happening::Replace(..)
            )
        });
        self.cut.clear();
        self.paused.clear();
        for &id in &good {
            self.restart(id);
        }
        self.note(|| format!("healed: {good:?}"));
        let deadline = self.cluster.now.after(ELECTION_TIMEOUT * 2 * 10);
        let known = self.cluster.checker.committed.len();
        let mut next_try = self.cluster.now;
        let committed = self.run_until(deadline, |simulation| {
            // Whoever takes itself to lead may have been deposed: asked once is not enough.
            if next_try <= simulation.cluster.now {
                next_try = simulation.cluster.now.after(Duration::from_millis(50));
                simulation.propose_to_leader(&good);
            }
            let committed = &simulation.cluster.checker.committed[known..];
            committed.iter().find(|entry| entry.payload == after_all()).map(|entry| entry.index)
        });
        let goal = committed.unwrap_or_else(|| panic!("no progress: {}", self.describe(&good)));
        let applied = |simulation: &Self, enough: usize| {
            let has = |&&id: &&NodeId| simulation.cluster.node(id).status().applied >= goal;
            (good.iter().filter(has).count() >= enough).then_some(())
        };
        let progress = self.run_until(deadline, |simulation| applied(simulation, 1));
        assert!(progress.is_some(), "command {goal} is not applied: {}", self.describe(&good));
        let patience = self.cluster.now.after(ELECTION_TIMEOUT * 100);
        let all = self.run_until(patience, |simulation| {
            // Who is no member is told nothing.
            let members = simulation.leading_membership()?;
            let has = |&&id: &&NodeId| simulation.cluster.node(id).status().applied >= goal;
            good.iter().filter(|&&id| members.contains(id)).all(|id| has(&id)).then_some(())
        });
        assert!(all.is_some(), "not all catch up to {goal}: {}", self.describe(&good));
    }

    /// Nodes that are a majority of whatever configuration may be in effect, often just so. `None` if not
    /// even all that are left would be.
    fn choose_majority(&mut self) -> Option<BTreeSet<NodeId>> {
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
        // Where a disk has lost something, what it had may be on few others: all are needed.
        if !self.any_disk_wanting() {
            self.random.shuffle(&mut ids);
            for id in ids {
                let mut fewer = good.clone();
                fewer.remove(&id);
                if self.random.u8(..4) > 0 && enough(&fewer) {
                    good = fewer;
                }
            }
        }
        Some(good)
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

    fn leading_membership(&self) -> Option<Membership> {
        let ids = self.cluster.ids().into_iter();
        let mut leaders = ids.filter(|&id| {
            self.cluster.is_up(id) && self.cluster.node(id).role().0 == RoleKind::Leader
        });
        let leader = leaders.next()?;
        Some(self.cluster.node(leader).status().membership)
    }

    /// Runs, with clients, until `done` says something, or the deadline passes.
    fn run_until<T>(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let mut next_client = self.cluster.now;
        while self.cluster.now < deadline {
            if next_client <= self.cluster.now {
                next_client = self.cluster.now.after(Duration::from_millis(50));
                self.later(Duration::from_millis(50), Happening::Client);
            }
            if let Some(result) = done(self) {
                return Some(result);
            }
            self.one_event();
        }
        None
    }

    fn describe(&self, ids: &BTreeSet<NodeId>) -> String {
        let statuses = ids.iter().map(|&id| format!("{:?}", self.cluster.node(id).status()));
        statuses.collect::<Vec<_>>().join("\n")
    }

    /// A command that only this phase knows, to whoever leads.
    fn propose_to_leader(&mut self, good: &BTreeSet<NodeId>) {
        let leads = |&id: &NodeId| self.cluster.node(id).role().0 == RoleKind::Leader;
        let Some(leader) = good.iter().copied().find(leads) else { return };
        let _refused = self.cluster.propose(leader, vec![Bytes::from_static(AFTER_ALL)]);
        self.poll_soon(leader);
    }
}

fn after_all() -> Payload {
    Payload::Command(Bytes::from_static(AFTER_ALL))
}
