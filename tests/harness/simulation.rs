//! A cluster under virtual time, with faults and clients, all drawn from one seed.
//!
//! A run has two phases. First chaos: messages are lost, doubled, delayed and reordered, links are cut
//! both ways, one way and in part, nodes crash (losing what was not synced), restart and pause, disks are
//! slow and finish out of order; each seed draws its own mix. Then one majority is healed, the rest stays
//! broken for ever, and progress is demanded within ten election timeouts. The checker watches every step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use raft_core::{Config, Envelope, Input, Instant, LogIndex, NodeId, RoleKind};

use super::cluster::{Cluster, Effects, n};

/// What a seed draws for itself.
#[derive(Clone, Debug)]
pub struct Options {
    pub size: u64,
    pub loss: f64,
    pub duplication: f64,
    pub delay_max: Duration,
    pub sync_max: Duration,
    /// Every how often, about, something breaks.
    pub fault_interval: Duration,
    pub client_interval: Duration,
    pub append_bytes_max: u64,
    pub inflight_messages_max: usize,
    pub uncommitted_bytes_max: u64,
    pub unapplied_bytes_max: u64,
    /// How likely a node is polled only after more has queued up.
    pub lazy_poll: f64,
    /// How likely a new leader is cut off or killed within moments: what makes the histories of
    /// Figures 7 and 8 common.
    pub curse: f64,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub elections: u64,
    pub committed: u64,
    pub reads: u64,
    pub crashes: u64,
    pub unsynced_writes_lost: u64,
    pub partitions: u64,
    pub pauses: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub receipts_out_of_order: u64,
    pub superseded: u64,
    /// A digest of everything that happened, in order.
    pub digest: u64,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        let Self {
            events,
            elections,
            committed,
            reads,
            crashes,
            unsynced_writes_lost,
            partitions,
            pauses,
            lost,
            duplicated,
            receipts_out_of_order,
            superseded,
            digest,
        } = other;
        self.events += events;
        self.elections += elections;
        self.committed += committed;
        self.reads += reads;
        self.crashes += crashes;
        self.unsynced_writes_lost += unsynced_writes_lost;
        self.partitions += partitions;
        self.pauses += pauses;
        self.lost += lost;
        self.duplicated += duplicated;
        self.receipts_out_of_order += receipts_out_of_order;
        self.superseded += superseded;
        // Threads finish in any order.
        self.digest = self.digest.wrapping_add(*digest);
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Deliver(Envelope),
    /// The disk of this life of a node finishes what it was given.
    Sync(NodeId, u64),
    /// This life of a node is polled, if it still waits for that.
    Poll(NodeId, u64),
    Applied(NodeId, u64, LogIndex),
    Restart(NodeId),
    Heal(u64),
    Resume(NodeId),
    Crash(NodeId, u64),
    Client,
    Fault,
}

/// One run.
pub struct Simulation {
    pub cluster: Cluster,
    options: Options,
    random: fastrand::Rng,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next_number: u64,
    /// Directed links that are cut, each with the number of the partition that cut it.
    cut: BTreeSet<(NodeId, NodeId, u64)>,
    paused: BTreeSet<NodeId>,
    unpolled: BTreeSet<NodeId>,
    chaos: bool,
    trace: bool,
    report: Report,
    commands: u64,
}

const ELECTION_TIMEOUT: Duration = Duration::from_millis(300);

impl Options {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let sometimes = |random: &mut fastrand::Rng, value: f64| {
            if random.bool() { random.f64() * value } else { 0.0 }
        };
        let millis = |random: &mut fastrand::Rng, of: &[u64]| {
            Duration::from_millis(of[random.usize(..of.len())])
        };
        let append_bytes_max = [1, 200, 1 << 20][random.usize(..3)];
        let inflight_messages_max = [1, 2, 64][random.usize(..3)];
        // Who sends little at a time must not have much to send, or catching up takes for ever.
        let slow = append_bytes_max < 1 << 20;
        let uncommitted = if slow { [300, 2_000] } else { [4_000, 1 << 20] };
        Self {
            size: [1, 2, 3, 3, 3, 4, 5, 5, 7][random.usize(..9)],
            loss: sometimes(random, 0.25),
            duplication: sometimes(random, 0.2),
            delay_max: millis(random, &[1, 5, 30, 150]),
            sync_max: millis(random, &[1, 4, 40, 400]),
            fault_interval: millis(random, &[50, 200, 600, 2000]),
            client_interval: millis(random, &[2, 10, 50]),
            append_bytes_max,
            inflight_messages_max,
            uncommitted_bytes_max: uncommitted[random.usize(..2)],
            unapplied_bytes_max: [200, 1 << 20][random.usize(..2)],
            lazy_poll: sometimes(random, 0.9),
            curse: sometimes(random, 0.9),
        }
    }

    fn config(&self, seed: u64) -> impl Fn(NodeId, u64) -> Config + 'static {
        let options = self.clone();
        move |id, life| {
            let seed = fold(fold(seed, id.get()), life);
            let append_bytes_max = options.append_bytes_max;
            Config {
                election_timeout: ELECTION_TIMEOUT,
                append_bytes_max,
                inflight_messages_max: options.inflight_messages_max,
                uncommitted_bytes_max: options.uncommitted_bytes_max.max(append_bytes_max),
                inflight_bytes_max: (append_bytes_max * 2).max(1_000),
                unapplied_bytes_max: options.unapplied_bytes_max,
                ..Config::new(id, seed)
            }
        }
    }
}

impl Simulation {
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let options = Options::draw(&mut random);
        if trace {
            println!("{options:?}");
        }
        let cluster = Cluster::new(options.size, options.config(seed));
        let mut simulation = Self {
            cluster,
            options,
            random,
            agenda: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next_number: 0,
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            unpolled: BTreeSet::new(),
            chaos: true,
            trace,
            report: Report::default(),
            commands: 0,
        };
        simulation.later(Duration::ZERO, Happening::Client);
        simulation.later(simulation.options.fault_interval, Happening::Fault);
        simulation
    }

    /// Runs both phases; panics where an invariant breaks or progress is missing.
    pub fn run(mut self, events: u64) -> Report {
        while self.report.events < events {
            self.one_event();
        }
        self.demand_progress();
        self.report.elections = self.cluster.checker.elections() as u64;
        self.report.committed = self.cluster.checker.committed.len() as u64;
        self.report.reads = self.cluster.checker.reads_served;
        self.report
    }

    fn later(&mut self, wait: Duration, happening: Happening) {
        let at = self.cluster.now.after(wait);
        self.next_number += 1;
        self.agenda.push(Reverse((at, self.next_number)));
        self.happenings.insert(self.next_number, happening);
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).expect("short times").max(1);
        Duration::from_nanos(self.random.u64(1..=nanos))
    }

    fn runs(&self, id: NodeId) -> bool {
        self.cluster.is_up(id) && !self.paused.contains(&id)
    }

    /// The next thing on the agenda, or the next timer of a node, whichever comes first.
    fn one_event(&mut self) {
        self.report.events += 1;
        let running = self.cluster.ids().into_iter().filter(|&id| self.runs(id));
        let timer = running.map(|id| (self.cluster.node(id).deadline(), id)).min();
        let next = self.agenda.peek().map(|Reverse((at, _))| *at);
        match (timer, next) {
            (Some((at, id)), next) if next.is_none_or(|next| at < next) => {
                self.cluster.now = self.cluster.now.max(at);
                self.note(|| format!("{id} timer"));
                self.cluster.step(id, Input::Timer);
                self.poll_soon(id);
            }
            _ => {
                let Some(Reverse((at, number))) = self.agenda.pop() else {
                    return;
                };
                self.cluster.now = self.cluster.now.max(at);
                let happening = self.happenings.remove(&number).expect("on the agenda once");
                self.happen(happening);
            }
        }
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let line = what();
        for byte in line.bytes() {
            self.report.digest = fold(self.report.digest, u64::from(byte));
        }
        self.report.digest = fold(self.report.digest, self.cluster.now.as_nanos());
        if self.trace {
            println!("{:>10.3} ms  {line}", self.cluster.now.as_nanos() as f64 / 1e6);
        }
    }

    fn happen(&mut self, happening: Happening) {
        let lives =
            |id: NodeId, life: u64| self.runs(id) && self.cluster.members[&id].lives == life;
        match happening {
            Happening::Deliver(envelope) => self.deliver(envelope),
            Happening::Sync(id, life) if lives(id, life) => self.sync(id),
            Happening::Poll(id, life) if lives(id, life) && self.unpolled.contains(&id) => {
                self.poll(id);
            }
            Happening::Applied(id, life, index) if lives(id, life) => {
                self.cluster.step(id, Input::Applied(index));
                self.poll_soon(id);
            }
            // A paused node does all that when it goes on.
            Happening::Sync(id, _) | Happening::Poll(id, _) | Happening::Applied(id, ..)
                if self.paused.contains(&id) =>
            {
                self.later(Duration::from_millis(5), happening);
            }
            Happening::Sync(..) | Happening::Poll(..) | Happening::Applied(..) => {}
            Happening::Restart(id) => self.restart(id),
            Happening::Heal(number) => {
                self.note(|| format!("heal {number}"));
                self.cut.retain(|(_, _, cut_by)| *cut_by != number);
            }
            Happening::Resume(id) => {
                self.note(|| format!("resume {id}"));
                if self.paused.remove(&id) && self.cluster.is_up(id) && self.random.bool() {
                    // Someone asks before it notices how late it is.
                    let _refused = self.cluster.read(id);
                    self.poll(id);
                }
            }
            Happening::Crash(id, life) => {
                if self.chaos && self.cluster.members[&id].lives == life {
                    self.crash(id);
                }
            }
            Happening::Client => self.client(),
            Happening::Fault => self.fault(),
        }
    }

    fn deliver(&mut self, envelope: Envelope) {
        let (from, to) = (envelope.from, envelope.to);
        if self.cut.iter().any(|(a, b, _)| (*a, *b) == (from, to)) || !self.cluster.is_up(to) {
            self.report.lost += 1;
            return self.note(|| format!("lost      {envelope}"));
        }
        if self.paused.contains(&to) {
            return self.later(Duration::from_millis(5), Happening::Deliver(envelope));
        }
        self.note(|| format!("{envelope}"));
        self.cluster.step(to, Input::Message(envelope));
        self.poll_soon(to);
    }

    /// The disk completes some of what it has: most often from the front, sometimes in any order.
    fn sync(&mut self, id: NodeId) {
        let waiting = self.cluster.members[&id].disk.queue.len();
        if waiting == 0 {
            return;
        }
        if self.random.u8(..4) == 0 {
            let place = self.random.usize(..waiting);
            self.report.receipts_out_of_order += u64::from(place > 0);
            self.note(|| format!("{id} completes write {place} of {waiting}"));
            self.cluster.complete(id, place);
        } else {
            let count = self.random.usize(1..=waiting);
            self.note(|| format!("{id} syncs {count} of {waiting}"));
            self.cluster.sync(id, count, false);
        }
        self.poll_soon(id);
        if !self.cluster.members[&id].disk.queue.is_empty() {
            self.sync_later(id);
        }
    }

    fn sync_later(&mut self, id: NodeId) {
        let calm = Duration::from_millis(4);
        let wait = self.up_to(if self.chaos { self.options.sync_max } else { calm });
        let life = self.cluster.members[&id].lives;
        self.later(wait, Happening::Sync(id, life));
    }

    /// Polls at once, or lets more queue up first.
    fn poll_soon(&mut self, id: NodeId) {
        if self.random.f64() >= self.options.lazy_poll {
            return self.poll(id);
        }
        if self.unpolled.insert(id) {
            let wait = self.up_to(Duration::from_millis(2));
            let life = self.cluster.members[&id].lives;
            self.later(wait, Happening::Poll(id, life));
        }
    }

    fn poll(&mut self, id: NodeId) {
        self.unpolled.remove(&id);
        let Effects { messages, committed, reads: _, proposals, events, wrote } =
            self.cluster.poll(id);
        for event in events {
            self.note(|| format!("{id} {event:?}"));
            if matches!(event, raft_core::Event::Role { role: RoleKind::Leader, .. }) {
                self.curse(id);
            }
        }
        for outcome in proposals {
            self.report.superseded += u64::from(outcome.fate == raft_core::Fate::Superseded);
        }
        if wrote {
            self.sync_later(id);
        }
        if let Some(last) = committed.last() {
            let wait = self.up_to(Duration::from_millis(3));
            let life = self.cluster.members[&id].lives;
            self.later(wait, Happening::Applied(id, life, last.index));
        }
        for envelope in messages {
            self.transmit(envelope);
        }
    }

    fn transmit(&mut self, envelope: Envelope) {
        if self.chaos && self.random.f64() < self.options.loss {
            self.report.lost += 1;
            return self.note(|| format!("lost      {envelope}"));
        }
        if self.chaos && self.random.f64() < self.options.duplication {
            self.report.duplicated += 1;
            let wait = self.up_to(self.options.delay_max * 3);
            self.later(wait, Happening::Deliver(envelope.clone()));
        }
        let calm = Duration::from_millis(5);
        let longest = if self.chaos { self.options.delay_max } else { calm };
        let wait = self.up_to(longest);
        self.later(wait, Happening::Deliver(envelope));
    }

    fn client(&mut self) {
        let up: Vec<NodeId> = self.cluster.ids().into_iter().filter(|&id| self.runs(id)).collect();
        if !up.is_empty() {
            let id = up[self.random.usize(..up.len())];
            if self.random.f64() < 0.3 {
                let _refused = self.cluster.read(id);
            } else {
                self.propose(id);
            }
            self.poll_soon(id);
        }
        if self.chaos {
            let wait = self.up_to(self.options.client_interval * 2);
            self.later(wait, Happening::Client);
        }
    }

    /// A node that leads, or takes itself to lead: any of them, if there are several.
    fn leader(&mut self) -> Option<NodeId> {
        let leads =
            |&id: &NodeId| self.runs(id) && self.cluster.node(id).role().0 == RoleKind::Leader;
        let leaders: Vec<NodeId> = self.cluster.ids().into_iter().filter(leads).collect();
        (!leaders.is_empty()).then(|| leaders[self.random.usize(..leaders.len())])
    }

    /// Some commands, most often to a leader.
    fn propose(&mut self, id: NodeId) {
        let to = self.leader().filter(|_| self.random.f64() < 0.9).unwrap_or(id);
        let count = self.random.usize(1..=4);
        let commands: Vec<Bytes> = (0..count)
            .map(|_| {
                self.commands += 1;
                let padding = "x".repeat(self.random.usize(..100));
                Bytes::from(format!("{}{padding}", self.commands))
            })
            .collect();
        let taken = self.cluster.propose(to, commands);
        self.note(|| format!("{to} is proposed {count}: {}", taken.is_ok()));
        self.poll_soon(to);
    }

    fn fault(&mut self) {
        if !self.chaos {
            return;
        }
        let ids = self.cluster.ids();
        let anyone = ids[self.random.usize(..ids.len())];
        let leader = self.leader();
        let victim = leader.filter(|_| self.random.bool()).unwrap_or(anyone);
        match self.random.u8(..8) {
            0..=2 => self.crash(victim),
            3 => self.pause(victim),
            _ => self.partition(&ids),
        }
        let wait = self.up_to(self.options.fault_interval * 2);
        self.later(wait, Happening::Fault);
    }

    fn crash(&mut self, id: NodeId) {
        if !self.cluster.is_up(id) {
            return;
        }
        let unsynced = self.cluster.members[&id].disk.queue.len();
        let survivors = self.random.usize(..=unsynced);
        self.report.crashes += 1;
        self.report.unsynced_writes_lost += (unsynced - survivors) as u64;
        self.note(|| format!("crash {id}, {survivors} of {unsynced} unsynced writes survive"));
        self.cluster.crash(id, survivors);
        self.unpolled.remove(&id);
        self.paused.remove(&id);
        let wait = self.up_to(ELECTION_TIMEOUT * 4);
        self.later(wait, Happening::Restart(id));
    }

    fn restart(&mut self, id: NodeId) {
        if !self.cluster.is_up(id) {
            self.note(|| format!("restart {id}"));
            self.cluster.restart(id);
        }
    }

    /// Bad things happen to a new leader: what it says is lost, or it dies soon, or both.
    fn curse(&mut self, id: NodeId) {
        if !self.chaos || self.random.f64() >= self.options.curse {
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

    fn cut_for_a_while(&mut self, links: &[(NodeId, NodeId)]) {
        self.report.partitions += 1;
        let number = self.report.partitions;
        self.cut.extend(links.iter().map(|&(a, b)| (a, b, number)));
        self.note(|| format!("partition {number}: {links:?}"));
        let wait = self.up_to(ELECTION_TIMEOUT * 8);
        self.later(wait, Happening::Heal(number));
    }

    fn pause(&mut self, id: NodeId) {
        self.report.pauses += 1;
        self.note(|| format!("pause {id}"));
        self.paused.insert(id);
        let wait = self.up_to(ELECTION_TIMEOUT * 4);
        self.later(wait, Happening::Resume(id));
    }

    /// Cuts the cluster in two, isolates one node (often the leader), or cuts single directed links.
    fn partition(&mut self, ids: &[NodeId]) {
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

    /// Heals one majority, leaves the rest broken for ever, and demands that it commits and applies a
    /// new command within ten election timeouts, and that all of it catches up in the end.
    fn demand_progress(&mut self) {
        self.chaos = false;
        let mut ids = self.cluster.ids();
        self.random.shuffle(&mut ids);
        let majority = ids.len() / 2 + 1;
        let healed = self.random.usize(majority..=ids.len());
        let (good, bad) = ids.split_at(healed);
        for &id in bad {
            if self.cluster.is_up(id) {
                self.cluster.crash(id, 0);
            }
        }
        // Nothing that is still on the agenda may bring the others back, or break the majority.
        let good: BTreeSet<NodeId> = good.iter().copied().collect();
        self.happenings.retain(|_, happening| {
            !matches!(happening, Happening::Restart(_) | Happening::Client | Happening::Crash(..))
        });
        self.agenda.retain(|Reverse((_, number))| self.happenings.contains_key(number));
        self.cut.clear();
        self.paused.clear();
        for &id in &good {
            self.restart(id);
        }
        self.note(|| format!("healed: {good:?}"));
        let deadline = self.cluster.now.after(ELECTION_TIMEOUT * 2 * 10);
        let Some(goal) =
            self.run_until(deadline, |simulation| simulation.command_of_new_leader(&good))
        else {
            panic!("no leader takes a command: {}", self.describe(&good));
        };
        let applied = |simulation: &Self, enough: usize| {
            let has = |&&id: &&NodeId| simulation.cluster.node(id).status().applied >= goal;
            (good.iter().filter(has).count() >= enough).then_some(())
        };
        let progress = self.run_until(deadline, |simulation| applied(simulation, 1));
        assert!(progress.is_some(), "command {goal} is not applied: {}", self.describe(&good));
        let patience = self.cluster.now.after(ELECTION_TIMEOUT * 100);
        let all = self.run_until(patience, |simulation| applied(simulation, good.len()));
        assert!(all.is_some(), "not all catch up to {goal}: {}", self.describe(&good));
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

    /// Once a leader of this phase takes a command: the index that all must reach.
    fn command_of_new_leader(&mut self, good: &BTreeSet<NodeId>) -> Option<LogIndex> {
        let leads = |&id: &NodeId| self.cluster.node(id).role().0 == RoleKind::Leader;
        let leader = good.iter().copied().find(leads)?;
        let proposed = self.cluster.propose(leader, vec![Bytes::from_static(b"after all")]);
        self.poll_soon(leader);
        Some(proposed.ok()?.last.index)
    }
}

/// FNV-1a with a 64-bit step: enough to tell two runs apart.
pub fn fold(digest: u64, value: u64) -> u64 {
    (digest ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
}

/// All the nodes' numbers of a cluster of this size, for tests that look in.
pub fn ids(size: u64) -> Vec<NodeId> {
    (1..=size).map(n).collect()
}
