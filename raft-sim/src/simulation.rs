//! A cluster under virtual time, with faults and clients, all drawn from one seed.
//!
//! A run has two phases. First chaos: messages are lost, doubled, delayed and reordered, links are cut
//! both ways, one way and in part, nodes crash (losing what was not synced) in the middle of whatever their
//! disks do, restart and pause, disks fail, fill up, are slow and rot; each seed draws its own mix. Then
//! one majority is healed, the rest stays broken for ever, and progress is demanded within ten election
//! timeouts. The checker watches every step.

mod agenda;
mod churn;
pub mod clients;
mod disks;
mod driver;
mod duties;
mod faults;
mod happening;
mod kinds;
mod majority;
mod moments;
mod network;
mod operators;
mod options;
mod progress;
mod report;
mod service;
mod strangers;
mod trace;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raft_core::{Input, Instant, NodeId, RoleKind};

use crate::cluster::Cluster;
use crate::digest::seed_of;
use crate::history::History;
use crate::machine::{Words, Workload};
use crate::storage::shipping::Store;
use crate::transcript;
use agenda::{Agenda, Planned};
use clients::Client;
use duties::Unfinished;
use faults::Trouble;
use happening::Happening;
pub use kinds::{Counts, Kind, Moment};
pub use options::Options;
pub use report::{Report, Section};
use service::Service;
pub use trace::Listener;
use trace::Trace;

/// One run.
pub struct Simulation<W: Workload> {
    /// The nodes, and what watches them.
    pub cluster: Cluster<Store, W::Machine>,
    workload: Rc<W>,
    clients: Vec<Client>,
    /// Clients may begin something new.
    begin_operations: bool,
    /// Those that are whole in the second phase.
    good: BTreeSet<NodeId>,
    /// How often those, or anyone before, have stored a piece of a snapshot.
    pieces_stored: u64,
    /// When progress is asked for again.
    next_probe: Instant,
    /// Who waits for what at which node.
    services: BTreeMap<NodeId, Service>,
    history: History,
    options: Options,
    /// What is drawn while the present event happens.
    random: fastrand::Rng,
    /// The seed of the present event.
    seed: u64,
    /// The seed of the run.
    root: u64,
    agenda: Agenda<Happening>,
    /// How often the timer of each node has run out.
    timers: BTreeMap<NodeId, u64>,
    /// What may go wrong, if not everything: the seeds of these interventions.
    only: Option<Arc<BTreeSet<u64>>>,
    /// All interventions so far, if somebody wants to know.
    interventions: Option<Interventions>,
    /// Directed links that are cut, each with the number of the partition that cut it.
    cut: BTreeSet<(NodeId, NodeId, u64)>,
    paused: BTreeSet<NodeId>,
    unpolled: BTreeSet<NodeId>,
    /// Until when a disk takes, and the life of the node.
    busy: BTreeMap<NodeId, (u64, Instant)>,
    /// When a node heard another one last: the first of each pair the second.
    heard: BTreeMap<(NodeId, NodeId), Instant>,
    /// What the disks of leaders have not finished.
    unfinished: BTreeMap<NodeId, Unfinished>,
    /// Whose newest snapshot turned out damaged: they are to cut another one.
    without_snapshot: BTreeSet<NodeId>,
    /// The number of the next node that joins.
    next_id: u64,
    /// So many events make the first phase.
    events: u64,
    chaos: bool,
    /// So many events had happened when chaos ended.
    events_of_chaos: u64,
    trouble: Trouble,
    trace: Trace,
    report: Report,
}

/// Seeds of what went wrong in a run, in order.
pub type Interventions = Arc<Mutex<Vec<u64>>>;

/// A run that can be repeated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// So many events happen before progress is demanded.
    pub events: u64,
    /// What the seed draws for itself, unless it is given.
    pub options: Option<Options>,
    /// Nothing goes wrong but this.
    pub only: Option<Arc<BTreeSet<u64>>>,
}

impl Plan {
    /// All that this seed has in store.
    #[must_use]
    pub fn new(seed: u64, events: u64) -> Self {
        Self { seed, events, options: None, only: None }
    }
}

/// Who wants to know what of a run.
#[derive(Default)]
pub struct Watch {
    /// Gets a line for everything that happens.
    pub lines: Option<Listener>,
    /// Gets the seeds of all interventions.
    pub interventions: Option<Interventions>,
}

impl<W: Workload> Simulation<W> {
    /// A cluster that has not begun to run, with the state machine and the clients of this workload.
    pub fn new(plan: &Plan, workload: W, watch: Watch) -> Self {
        let Plan { seed, events, options, only } = plan.clone();
        let options = options.unwrap_or_else(|| Options::of_seed(seed));
        let random = fastrand::Rng::with_seed(seed_of(seed, 0));
        let workload = Rc::new(workload);
        let new_machine = Rc::clone(&workload);
        let new_machine = move || new_machine.machine();
        let (config, disk) = (options.config(seed), options.disk(seed));
        let cluster = Cluster::new(options.size, config, disk, new_machine);
        let next_id = options.size + 1;
        let mut simulation = Self {
            cluster,
            workload,
            clients: Vec::new(),
            begin_operations: true,
            good: BTreeSet::new(),
            pieces_stored: 0,
            next_probe: Instant::default(),
            services: BTreeMap::new(),
            history: History::default(),
            options,
            random,
            seed,
            root: seed,
            agenda: Agenda::default(),
            timers: BTreeMap::new(),
            only,
            interventions: watch.interventions,
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            unpolled: BTreeSet::new(),
            busy: BTreeMap::new(),
            heard: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            without_snapshot: BTreeSet::new(),
            next_id,
            events,
            chaos: true,
            events_of_chaos: 0,
            trouble: Trouble::default(),
            trace: Trace::new(watch.lines),
            report: Report::default(),
        };
        let describe = Rc::clone(&simulation.workload);
        let describe = Box::new(move |words: Words<'_>| describe.describe(words));
        simulation.cluster.reference.describe_by(describe);
        for line in simulation.options.to_string().lines() {
            simulation.note(|| line.to_owned());
        }
        let ids = transcript::nodes(&simulation.cluster.ids());
        simulation.note(|| format!("{ids} start for the first time"));
        for id in simulation.cluster.ids() {
            let drift = simulation.drift();
            simulation.cluster.set_drift(id, drift);
        }
        simulation.start_clients();
        simulation.later(simulation.options.operator_interval, Happening::Operator);
        simulation.later(simulation.options.fault_interval, Happening::Fault);
        simulation.later(simulation.options.disk_fault_interval, Happening::DiskFault);
        simulation.later(simulation.options.scrub_interval, Happening::Scrub);
        simulation.later(simulation.options.stranger_interval, Happening::Stranger);
        simulation
    }

    /// Runs both phases; panics where an invariant breaks or progress is missing.
    pub fn run(mut self) -> Report {
        while self.report.events < self.events {
            self.one_event();
        }
        self.demand_progress();
        let over =
            || "the run is over, and the log replayed to check what clients were told".to_owned();
        self.trace.begin(self.cluster.now, over);
        self.history.check(&*self.workload, &self.cluster.checker.committed);
        self.report.floods = u64::from(self.options.clients.flood);
        self.report.elections = self.cluster.checker.elections() as u64;
        self.report.committed = self.cluster.checker.committed.len() as u64;
        self.report.reads = self.cluster.checker.reads_served;
        self.report.configurations = self.cluster.checker.configurations;
        self.report.changes_committed = self.cluster.checker.changes_committed;
        self.report.unknown_fates = self.cluster.checker.unknown_fates;
        self.report.installs = self.cluster.checker.snapshots_installed;
        for id in self.cluster.ids() {
            let disk = self.cluster.destroy(id);
            self.report.disks.count_disk(disk);
        }
        self.report.digest = self.trace.digest();
        self.report.simulated = Duration::from_nanos(self.cluster.now.as_nanos());
        self.report
    }

    fn later(&mut self, wait: Duration, happening: Happening) {
        let at = self.cluster.now.after(wait);
        let seed = self.random.u64(..);
        self.agenda.add(at, seed, happening);
    }

    /// May the present event go wrong, or whatever it is that only happens because we want trouble?
    fn intervenes(&mut self) -> bool {
        self.may_intervene(self.seed)
    }

    /// The same, of something that is not an event of its own.
    fn may_intervene(&mut self, seed: u64) -> bool {
        let may = self.only.as_ref().is_none_or(|only| only.contains(&seed));
        if may && let Some(interventions) = &self.interventions {
            interventions.lock().expect("nobody panics with it").push(seed);
        }
        may
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        let nanos = u64::try_from(longest.as_nanos()).expect("short times").max(1);
        Duration::from_nanos(self.random.u64(1..=nanos))
    }

    /// The election timeout, of those who wait longest.
    fn timeout(&self) -> Duration {
        self.options.election_timeout * if self.options.uneven_timeouts { 2 } else { 1 }
    }

    fn runs(&self, id: NodeId) -> bool {
        self.cluster.is_up(id) && !self.paused.contains(&id)
    }

    /// The next thing on the agenda, or the next timer of a node, whichever comes first.
    fn one_event(&mut self) {
        self.report.events += 1;
        self.check_that_it_does_not_drown();
        let running = self.cluster.ids().into_iter().filter(|&id| self.runs(id));
        let timer = running.map(|id| (self.cluster.deadline(id), id)).min();
        let next = self.agenda.next_at();
        match (timer, next) {
            (Some((at, id)), next) if next.is_none_or(|next| at < next) => {
                self.cluster.now = self.cluster.now.max(at);
                let count = self.timers.entry(id).or_default();
                *count += 1;
                let seed = seed_of(seed_of(self.root, id.get()), *count);
                self.begin(seed);
                self.trace.note_timer(self.cluster.now, id);
                self.trace.begin(self.cluster.now, || format!("the timer of {id} runs out"));
                self.cluster.step(id, Input::Timer);
                self.check_hanging_disk(id);
                self.poll_soon(id);
            }
            _ => {
                let Some(Planned { at, seed, what, .. }) = self.agenda.pop() else {
                    return;
                };
                self.cluster.now = self.cluster.now.max(at);
                self.begin(seed);
                self.trace.begin(self.cluster.now, || what.to_string());
                self.happen(what);
            }
        }
        self.bury_the_failed();
    }

    /// From here on it is the event with this seed that happens.
    fn begin(&mut self, seed: u64) {
        self.seed = seed;
        self.trouble.hearing = None;
        self.random = fastrand::Rng::with_seed(seed);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        self.trace.note(self.cluster.now, what);
    }

    fn note_often<L: Display>(&mut self, what: &impl Hash, line: impl FnOnce() -> L) {
        self.trace.note_often(self.cluster.now, what, line);
    }

    /// A node that leads, or takes itself to lead: any of them, if there are several.
    fn leader(&mut self) -> Option<NodeId> {
        let leads =
            |&id: &NodeId| self.runs(id) && self.cluster.node(id).role().0 == RoleKind::Leader;
        let leaders: Vec<NodeId> = self.cluster.ids().into_iter().filter(leads).collect();
        (!leaders.is_empty()).then(|| leaders[self.random.usize(..leaders.len())])
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::digest_machine::DigestMachine;
    use crate::machine::Operation;
    use progress::EVENTS_MAX;

    struct Idle;

    impl Workload for Idle {
        type Machine = DigestMachine;

        fn machine(&self) -> DigestMachine {
            DigestMachine::default()
        }

        fn next(&self, _client: u64, _number: u64, _random: &mut fastrand::Rng) -> Operation {
            Operation::Query(Bytes::new())
        }

        fn decides(&self, _command: &Bytes, _response: &Bytes) -> bool {
            true
        }
    }

    /// In the last phase one thing makes the next happen, and time hardly goes by.
    #[test]
    #[should_panic(expected = "the run drowns: 1000001 events since chaos ended")]
    fn a_run_in_which_one_message_makes_another_ends() {
        let mut simulation = Simulation::new(&Plan::new(1, 0), Idle, Watch::default());
        simulation.chaos = false;
        simulation.agenda = Agenda::default();
        for _ in 0..=EVENTS_MAX {
            simulation.later(Duration::ZERO, Happening::Heal(1));
            simulation.one_event();
        }
    }
}
