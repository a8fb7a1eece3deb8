//! The second phase of a run: what is left whole must make progress.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use raft_core::{
    Envelope, Instant, LogIndex, Membership, Message, NodeId, PeerPace, PeerStatus, RoleKind, Term,
};

use super::clients::{Client, OPERATION_MAX, at};
use super::kinds::Kind;
use super::network::Flapping;
use super::traffic::Traffic;
use super::{Happening, Simulation};
use crate::machine::Workload;
use crate::transcript;
use raft_wal::sim::{Fault, FaultRule, Operation};

/// Who catches up and gets on with it has so long, and a hundred election timeouts.
const CATCHING_UP_MAX: Duration = Duration::from_secs(60);

/// So many leaders may be given up before one has made everyone as good as itself.
const LEADERS_MAX: u32 = 4;

/// What is known of how those catch up who must.
#[derive(Default)]
struct CatchingUp {
    /// Of the newest leader.
    term: Term,
    /// The last index that it had when it was first seen.
    end: LogIndex,
    /// How many there were.
    leaders: u32,
    /// The most that its peers ever had of that.
    most: u64,
    /// Pieces of snapshots that were stored: some may fetch one that an earlier leader has offered, whose link
    /// flaps.
    pieces: u64,
}

/// No more events than this may happen in the second phase. Of 2,000 honest seeds of 5,000 events the
/// busiest has 14,141 there.
pub(super) const EVENTS_MAX: u64 = 1_000_000;

/// How a node may be broken for ever.
const FOR_EVER: &[Kind] = &[
    Kind::DownForEver,
    Kind::PausedForEver,
    Kind::DeafForEver,
    Kind::MuteForEver,
    Kind::FlappingForEver,
    Kind::FullForEver,
    Kind::SlowForEver,
    Kind::StaleForEver,
];

impl<W: Workload> Simulation<W> {
    /// Heals one majority, leaves the rest broken for ever, and demands that it commits and applies a
    /// new command within ten election timeouts, and that all of it catches up in the end.
    pub(super) fn demand_progress(&mut self) {
        self.chaos = false;
        self.events_of_chaos = self.report.events;
        self.heal_disks();
        let Some(good) = self.choose_majority() else {
            self.report.hopeless += 1;
            return;
        };
        // Nothing that is still on the agenda may bring the others back, or break the majority.
        self.agenda.retain(|happening| match happening {
            // As in `say_again`.
            Happening::Late(envelope, _) => !shows_a_leader(envelope),
            happening => !matches!(
                happening,
                Happening::Restart(_)
                    | Happening::Traffic(Traffic::Tick(_))
                    | Happening::Crash(..)
                    | Happening::Operator
                    | Happening::DiskFault
                    | Happening::Replace(..)
                    | Happening::Room(_)
                    | Happening::Heal(_)
                    | Happening::Flap(_)
                    | Happening::Pause(_)
                    | Happening::Resume(_)
                    | Happening::Change
            ),
        });
        self.cut.clear();
        self.trouble.slow.clear();
        for id in self.paused.clone() {
            self.resume(id);
        }
        for &id in &good {
            self.restart(id);
        }
        self.note(|| format!("chaos ends; healed: {}", transcript::nodes(&good)));
        self.break_for_ever(&good);
        let timeout = self.slowest_timeout(&good);
        self.good.clone_from(&good);
        for client in 0..self.prober() {
            self.next_tick(client);
        }
        let Some(goal) = self.run_until_progress(&good, timeout) else {
            assert!(!self.somebody_can_win(&good), "no progress: {}", self.describe(&good));
            self.report.unwinnable += 1;
            return;
        };
        // Nobody begins anything new. Where pieces are small and snapshots frequent, a node that is behind
        // might else be sent one after the other and have each of them too late.
        self.begin_operations = false;
        // Who gets one entry at a time needs a while, however short the timeouts are.
        let patience = timeout * 100 + Duration::from_secs(30) + CATCHING_UP_MAX;
        let patience = self.cluster.now.after(patience);
        let all = self.run_until(patience, |simulation| {
            // Who is no member is told nothing.
            let members = simulation.leading_membership()?;
            let has = |&&id: &&NodeId| simulation.cluster.node(id).status().applied >= goal;
            good.iter().filter(|&&id| members.contains(id)).all(|id| has(&id)).then_some(())
        });
        assert!(all.is_some(), "not all catch up to {goal}: {}", self.describe(&good));
        self.demand_answers(&good);
    }

    /// Runs until a command is acknowledged that was begun in this phase: for ten election timeouts, and from
    /// whenever some node has caught up a little with what its leader had when it was first seen, for another
    /// ten. A vote may be needed of one who lacks a lot, and some seeds send one entry at a time, and snapshots
    /// in pieces of forty bytes.
    fn run_until_progress(
        &mut self,
        good: &BTreeSet<NodeId>,
        timeout: Duration,
    ) -> Option<LogIndex> {
        let patience = self.cluster.now.after(timeout * 100 + CATCHING_UP_MAX);
        let mut deadline = self.cluster.now.after(timeout * 10);
        let (mut known, mut looked) = (CatchingUp::default(), self.next_probe);
        while self.cluster.now < deadline.min(patience) {
            if let Some(goal) = self.progress() {
                return Some(goal);
            }
            if self.next_probe != looked {
                looked = self.next_probe;
                if self.catches_up(good, &mut known) {
                    deadline = self.cluster.now.after(timeout * 10);
                }
            }
            self.one_event();
        }
        None
    }

    /// Has any of these more of what the newest leader had at first than ever before? Or does another one lead,
    /// which may happen a few times?
    fn catches_up(&self, good: &BTreeSet<NodeId>, known: &mut CatchingUp) -> bool {
        let stored = std::mem::replace(&mut known.pieces, self.pieces_stored) < self.pieces_stored;
        let running = self.cluster.ids().into_iter().filter(|&id| self.runs(id));
        let leaders = running.filter(|&id| self.cluster.node(id).role().0 == RoleKind::Leader);
        let leader = leaders.max_by_key(|&id| self.cluster.node(id).role().1);
        let Some(status) = leader.map(|id| self.cluster.node(id).status()) else {
            return stored;
        };
        let snapshot = status.snapshot.map_or(LogIndex(0), |held| held.position.index);
        if status.term > known.term {
            let leaders = known.leaders + 1;
            let (term, end, pieces) = (status.term, status.last.index, known.pieces);
            *known = CatchingUp { term, end, leaders, most: 0, pieces };
        }
        let has = |peer: &PeerStatus| match peer.pace {
            // Another snapshot begins at its beginning, and goes further.
            PeerPace::Snapshot { held } => peer.match_index.0 + snapshot.min(known.end).0 + held,
            _ => peer.match_index.min(known.end).0,
        };
        let all = status.peers.iter().filter(|peer| good.contains(&peer.id)).map(has).sum();
        let grows = all > known.most || known.most == 0;
        known.most = known.most.max(all).max(1);
        stored || grows && known.leaders <= LEADERS_MAX
    }

    /// A command of a client that only this phase has, as soon as it is acknowledged.
    fn progress(&mut self) -> Option<LogIndex> {
        let prober = self.prober();
        if self.next_probe <= self.cluster.now {
            let soon = Duration::from_millis(50).min(self.timeout() / 4);
            self.next_probe = self.cluster.now.after(soon);
            self.later(soon, Happening::Traffic(Traffic::Step(prober)));
        }
        let told = self.clients[at(prober)].seen();
        (told > LogIndex(0)).then_some(told)
    }

    /// Every client must have its answer, or have given up, and no node that is a member may keep anyone
    /// waiting.
    fn demand_answers(&mut self, good: &BTreeSet<NodeId>) {
        for client in 0..=self.prober() {
            self.later(Duration::ZERO, Happening::Traffic(Traffic::Tick(client)));
        }
        let patience = self.cluster.now.after(OPERATION_MAX + self.timeout() * 100);
        let answered = self.run_until(patience, |simulation| {
            let members = simulation.leading_membership()?;
            let good: Vec<NodeId> =
                good.iter().copied().filter(|&id| members.contains(id)).collect();
            let idle = simulation.clients.iter().all(Client::is_idle);
            let told = good.iter().all(|&id| simulation.cluster.checker.open_fate(id).is_none());
            (idle && told && simulation.somebody_waits(&good).is_none()).then_some(())
        });
        if answered.is_none() {
            let ids: Vec<NodeId> = good.iter().copied().collect();
            let who = self.somebody_waits(&ids);
            let fates =
                ids.iter().filter_map(|&id| Some((id, self.cluster.checker.open_fate(id)?)));
            let fates: Vec<_> = fates.collect();
            panic!(
                "somebody waits for ever: {who:?}, for fates: {fates:?}: {}",
                self.describe(good)
            );
        }
    }

    /// All others are broken for ever, each in its way.
    fn break_for_ever(&mut self, good: &BTreeSet<NodeId>) {
        let others: Vec<NodeId> =
            self.cluster.ids().into_iter().filter(|id| !good.contains(id)).collect();
        for id in others {
            let how = FOR_EVER[self.random.usize(..FOR_EVER.len())];
            let how = if self.cluster.is_up(id) { how } else { Kind::DownForEver };
            self.count(how);
            self.note(|| format!("{id} is {}", how.name()));
            let from_it = good.iter().map(|&other| (id, other));
            let to_it = good.iter().map(|&other| (other, id));
            match how {
                Kind::PausedForEver => {
                    self.paused.insert(id);
                }
                Kind::DeafForEver => drop(self.cut_for_ever(&to_it.collect::<Vec<_>>())),
                Kind::MuteForEver => drop(self.cut_for_ever(&from_it.collect::<Vec<_>>())),
                Kind::FlappingForEver => {
                    let links = from_it.chain(to_it).collect();
                    self.flap_on(Flapping { links, left: None, down: None });
                }
                Kind::FullForEver => {
                    let sim = &self.cluster.members[&id].disk.sim;
                    sim.set_capacity(Some(sim.used_bytes()));
                }
                Kind::SlowForEver => {
                    let each = self.timeout() * 4;
                    let slow = FaultRule::new(Fault::Slow(each)).on(&[Operation::Sync]);
                    self.cluster.members[&id].disk.sim.add_fault(slow.always());
                }
                how => {
                    self.cluster.stop(id);
                    self.unpolled.remove(&id);
                    if how == Kind::StaleForEver {
                        self.later(Duration::ZERO, Happening::Stale);
                    }
                }
            }
        }
    }

    /// What was said by those who are broken now, or by whomever, is said again. Only what the leader of the
    /// present term said is not: who hears its old heartbeats for ever takes it to be alive.
    pub(super) fn say_again(&mut self) {
        let terms: BTreeMap<NodeId, Term> = self
            .cluster
            .members
            .iter()
            .filter_map(|(&id, member)| Some((id, member.node.as_ref()?.status().term)))
            .collect();
        self.replay(4, |it| {
            !shows_a_leader(it) || terms.get(&it.to).is_some_and(|&term| it.term < term)
        });
        let wait = self.up_to(self.timeout());
        self.later(wait, Happening::Stale);
    }

    /// The election timeout of the slowest of these nodes.
    fn slowest_timeout(&self, good: &BTreeSet<NodeId>) -> Duration {
        let drift = good.iter().map(|id| self.cluster.members[id].drift_ppm()).min();
        let rate = 1.0 + drift.unwrap_or_default() as f64 / 1e6;
        self.timeout().div_f64(rate.min(1.0))
    }

    /// Whoever answers each message with another one, or with two, leaves no time for anything else: deadlines
    /// never pass then.
    pub(super) fn check_that_it_does_not_drown(&self) {
        let events = self.report.events - self.events_of_chaos;
        assert!(
            self.chaos || events <= EVENTS_MAX,
            "the run drowns: {events} events since chaos ended, and the clock shows only {:?}: {}",
            Duration::from_nanos(self.cluster.now.as_nanos()),
            self.describe(&self.good),
        );
    }

    /// The members, as the newest leader knows them.
    fn leading_membership(&self) -> Option<Membership> {
        let running = self.cluster.ids().into_iter().filter(|&id| self.runs(id));
        let statuses = running.map(|id| self.cluster.node(id).status());
        let leaders = statuses.filter(|status| status.role == RoleKind::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.membership)
    }

    /// Runs, with clients, until `done` says something, or the deadline passes.
    fn run_until<T>(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        while self.cluster.now < deadline {
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
}

/// Does it show to a node of its term that there is a leader, however old it is?
fn shows_a_leader(envelope: &Envelope) -> bool {
    matches!(envelope.message, Message::AppendEntries { .. } | Message::InstallSnapshot { .. })
}
