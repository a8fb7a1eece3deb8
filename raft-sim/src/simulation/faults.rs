//! What goes wrong with nodes: they pause, crash in storms, their timers and clocks are not what they should
//! be, new leaders are cursed. What goes wrong between them is in `network.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use raft_core::{Consistency, Envelope, Input, Instant, NodeId};

use super::churn::Goal;
use super::kinds::Kind;
use super::{Happening, Simulation};
use crate::machine::Workload;

/// What `fault` may do. Each seed chooses some of these.
pub(super) const FAULTS: &[Kind] = &[
    Kind::Pause,
    Kind::TimerBurst,
    Kind::Storm,
    Kind::Halves,
    Kind::Isolation,
    Kind::LeftBehind,
    Kind::OneWay,
    Kind::Bridge,
    Kind::Chain,
    Kind::Majorities,
    Kind::Links,
    Kind::Flap,
    Kind::Lull,
    Kind::SlowLink,
    Kind::ClockJump,
    Kind::ClockPace,
];

/// Who waits for a leader, to leave it behind, looks for it so many times.
const LEADER_AWAITED_MAX: u32 = 20;

/// The longest pause, in election timeouts.
const PAUSE_MAX: u32 = 20;

/// What is wrong at the moment, or may come back.
#[derive(Default)]
pub(super) struct Trouble {
    /// How many times links were cut, or slowed down.
    pub cuts: u64,
    /// What waits for a node that is paused.
    pub held: BTreeMap<NodeId, Vec<Happening>>,
    /// Full disks, and how often each had refused something before.
    pub full: BTreeMap<NodeId, u64>,
    /// Links that take longer, each with the number under which it was slowed down.
    pub slow: BTreeMap<(NodeId, NodeId), (u64, Duration)>,
    /// Until when nodes restart as soon as they have crashed.
    pub storm_until: Instant,
    /// True messages, to be said again.
    pub recorded: VecDeque<Envelope>,
    /// Until when nobody writes.
    pub quiet_until: Instant,
    /// What was asked of a node in the present event.
    pub hearing: Option<Envelope>,
    /// When the clock of a node jumped last.
    pub jumped: BTreeMap<NodeId, Instant>,
    /// What operators are after.
    pub goal: Option<Goal>,
}

impl<W: Workload> Simulation<W> {
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
        let kinds = &self.options.faults;
        let kind = kinds.get(self.random.usize(..kinds.len().max(1))).copied();
        // Crashes matter in every run; storms are long.
        let (crash, storm) = (self.random.u8(..3) == 0, self.random.u8(..4) == 0);
        let kind = kind.filter(|&kind| !crash && (storm || kind != Kind::Storm));
        match kind {
            None => self.crash(victim),
            Some(Kind::Pause) => self.pause(victim),
            Some(Kind::TimerBurst) => self.burst_of_timers(victim),
            Some(Kind::Storm) => self.storm(&ids),
            Some(Kind::LeftBehind) => self.leave_behind(LEADER_AWAITED_MAX),
            Some(Kind::Flap) => self.flap(&ids, victim),
            Some(Kind::Lull) => self.lull(),
            Some(Kind::SlowLink) => self.slow_down(&ids, victim),
            Some(Kind::ClockJump) => self.jump_clock(victim),
            Some(Kind::ClockPace) => self.change_pace(victim),
            Some(shape) => self.partition(&ids, shape),
        }
    }

    pub(super) fn count(&mut self, kind: Kind) {
        *self.report.faults.entry(kind).or_default() += 1;
    }

    /// Bad things happen to a new leader: what it says is lost, or it dies soon, or both.
    pub(super) fn curse(&mut self, id: NodeId) {
        let (curse, seed) = (self.random.f64(), self.random.u64(..));
        if !self.chaos || curse >= self.options.curse || !self.may_intervene(seed) {
            return;
        }
        let outer = std::mem::replace(&mut self.random, fastrand::Rng::with_seed(seed));
        if self.random.bool() {
            let ids = self.cluster.ids();
            let deaf = ids.iter().copied().filter(|&to| to != id && self.random.u8(..4) > 0);
            let links: Vec<_> = deaf.map(|to| (id, to)).collect();
            self.cut_for_a_while(&links);
        }
        let wait = self.up_to(self.options.delay_max.saturating_add(self.options.sync_max) * 2);
        let life = self.cluster.members[&id].lives;
        self.later(wait, Happening::Crash(id, life));
        self.random = outer;
    }

    /// A node stands still. Short pauses are as likely as long ones are, of twice the length.
    pub(super) fn pause(&mut self, id: NodeId) {
        if !self.runs(id) {
            return;
        }
        let at_most = [2, 4, 8, PAUSE_MAX][self.random.usize(..4)];
        let wait = self.timeout() + self.up_to(self.timeout() * (at_most - 1));
        self.report.pauses += 1;
        self.count(Kind::Pause);
        self.note(|| format!("{id} pauses"));
        self.paused.insert(id);
        self.later(wait, Happening::Resume(id));
    }

    /// It goes on where it stopped. Whether it sees first how late it is, or what has arrived meanwhile, is
    /// a matter of chance.
    pub(super) fn resume(&mut self, id: NodeId) {
        self.note(|| format!("{id} goes on"));
        if !self.paused.remove(&id) {
            return;
        }
        let waiting = self.trouble.held.remove(&id).unwrap_or_default();
        let (ask, messages_first) = (self.random.bool(), self.random.bool());
        if self.cluster.is_up(id) {
            let overdue = self.cluster.deadline(id) < self.cluster.now;
            if overdue {
                self.count(Kind::OverdueTimer);
            }
            if ask {
                // Someone asks before it notices how late it is.
                let _refused = self.cluster.read(id, Consistency::Lease);
                self.poll(id);
            }
        }
        for what in waiting {
            match what {
                Happening::Deliver(envelope) if messages_first && self.runs(id) => {
                    self.deliver(envelope);
                }
                what => self.later(Duration::ZERO, what),
            }
        }
    }

    /// Whoever calls the timer calls it far too often, and too early.
    fn burst_of_timers(&mut self, id: NodeId) {
        if !self.runs(id) {
            return;
        }
        self.count(Kind::TimerBurst);
        let times = self.random.usize(2..=200);
        self.note(|| format!("the timer of {id} is called {times} times"));
        for _ in 0..times {
            self.cluster.step(id, Input::Timer);
        }
        self.poll_soon(id);
    }

    /// All nodes crash, again and again, and come back at once.
    fn storm(&mut self, ids: &[NodeId]) {
        self.count(Kind::Storm);
        self.note(|| "a restart storm".to_owned());
        let wait = self.timeout() + self.up_to(self.timeout() * 6);
        let until = self.cluster.now.after(wait);
        self.trouble.storm_until = self.trouble.storm_until.max(until);
        for &id in ids {
            let wait = self.up_to(self.timeout());
            self.later(wait, Happening::Storm(id));
        }
    }

    /// In a storm a node crashes.
    pub(super) fn crash_in_storm(&mut self, id: NodeId) {
        if !self.chaos || self.cluster.now >= self.trouble.storm_until {
            return;
        }
        self.crash(id);
        let wait = self.up_to(self.timeout() * 3);
        self.later(wait, Happening::Storm(id));
    }

    /// How long a node stays down.
    pub(super) fn down_time(&mut self) -> Duration {
        let storm = self.cluster.now < self.trouble.storm_until;
        self.up_to(if storm { self.timeout() } else { self.timeout() * 4 })
    }

    /// The clock of a node jumps ahead, perhaps several times. With leases only by as much as they allow
    /// for: what a clock may gain in an election timeout, on one that gains nothing else.
    fn jump_clock(&mut self, id: NodeId) {
        let times = if self.random.bool() { 1 } else { self.random.u32(2..=10) };
        let timeout = self.timeout();
        let mut most = timeout * 20 / times;
        if let Some(ppm) = self.options.lease_clock_drift_ppm {
            let before = self.trouble.jumped.get(&id).copied();
            let lately = before.is_some_and(|it| self.cluster.now.since(it) < timeout * 4);
            let gains = self.cluster.members[&id].drift_ppm() > 0;
            if lately || gains {
                return;
            }
            most = timeout * ppm / (1_000_000 + ppm) * 9 / 10 / times;
        }
        self.count(if times == 1 { Kind::ClockJump } else { Kind::ClockBurst });
        self.trouble.jumped.insert(id, self.cluster.now);
        for _ in 0..times {
            let by = self.up_to(most);
            self.note(|| format!("the clock of {id} jumps by {by:?}"));
            self.cluster.jump_clock(id, by);
        }
    }

    /// The clock of a node goes faster or slower from here on.
    fn change_pace(&mut self, id: NodeId) {
        let drift = self.drift();
        if self.options.lease_clock_drift_ppm.is_some()
            && let Some(&jumped) = self.trouble.jumped.get(&id)
            && self.cluster.now.since(jumped) < self.timeout() * 4
        {
            return; // Both together would be more than leases allow for.
        }
        self.count(Kind::ClockPace);
        self.note(|| format!("the clock of {id} is fast by {drift} ppm from here on"));
        self.cluster.set_drift(id, drift);
    }

    /// By how much the clock of a node is fast: not more than leases allow for; without them, at half or
    /// twice the pace of time.
    pub(super) fn drift(&mut self) -> i64 {
        let drift = match self.options.lease_clock_drift_ppm {
            Some(most) if self.random.bool() => {
                if self.random.bool() {
                    most.into()
                } else {
                    -i64::from(most)
                }
            }
            Some(most) => self.random.i64(-i64::from(most)..=most.into()),
            None if self.options.wrong_clocks => self.random.i64(-500_000..=1_000_000),
            None => self.random.i64(-200_000..=200_000),
        };
        if !(-200_000..=250_000).contains(&drift) {
            self.count(Kind::ClockWrong);
        }
        drift
    }
}
