//! The cluster that a script moves: its network, its disks, its clock. One method per command.

mod network;
mod requests;
mod storage;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::time::Duration;

use raft_core::{
    Config, Entry, Envelope, Event, HardState, Input, Instant, LogIndex, Node, NodeId, Payload,
    RoleKind, Term, Timestamp,
};

use super::{Which, settings};
use raft_sim::cluster::{Cluster, Effects, n};
use raft_sim::transcript;

/// After so many steps of one command something goes round in circles.
const STEPS_MAX: usize = 1000;

type Outcome = Result<(), Box<dyn Error>>;

/// A cluster, and all that surrounds it.
#[derive(Default)]
pub struct Stage {
    /// What happened since the runner last took it.
    pub transcript: String,
    cluster: Option<Cluster>,
    /// On their way, oldest first.
    network: Vec<Envelope>,
    delayed: Vec<Envelope>,
    /// One side of the partition; empty if there is none.
    partition: BTreeSet<NodeId>,
    /// What the first sends to the second is lost.
    cut: BTreeSet<(NodeId, NodeId)>,
    stalled: BTreeSet<NodeId>,
    stalled_chunks: BTreeSet<NodeId>,
    /// Whose state machines apply nothing, and what they were given.
    slow: BTreeMap<NodeId, Option<LogIndex>>,
    busy: BTreeSet<NodeId>,
}

impl Stage {
    pub fn start(&mut self, size: u64, settings: &[(String, String)]) -> Outcome {
        let settings = settings.to_vec();
        settings::apply(&mut Config::new(n(1), 0), &settings)?;
        *self = Self::default();
        self.cluster = Some(Cluster::in_memory(size, move |id, life| {
            // Far apart and always the same: a script means the same on every run.
            let mut config = Config::new(id, id.get() * 1000 + life);
            settings::apply(&mut config, &settings).expect("checked above");
            config
        }));
        Ok(())
    }

    pub fn add(&mut self, id: NodeId) -> Outcome {
        self.cluster()?.add(id);
        Ok(())
    }

    /// Starts a node anew with this on its disk, no-ops for entries.
    pub fn put_on_disk(&mut self, id: NodeId, hard_state: HardState, terms: &[Term]) -> Outcome {
        let cluster = self.cluster()?;
        cluster.checker.forgo_spec();
        cluster.crash(id, 0);
        let member = cluster.members.get_mut(&id).expect("it crashed just now");
        let disk = &mut member.disk.durable;
        disk.hard_state = hard_state;
        disk.entries =
            (1..).map(LogIndex).zip(terms).map(|(index, &term)| noop(index, term)).collect();
        Ok(cluster.restart(id)?)
    }

    /// The clock of a node is fast by so many millionths.
    pub fn drift(&mut self, id: NodeId, ppm: i64) -> Outcome {
        let cluster = self.cluster()?;
        if cluster.now != Instant::default() {
            return Err("a clock goes wrong from the start, before time passes".into());
        }
        if !cluster.members.contains_key(&id) {
            return Err("there is no such node".into());
        }
        cluster.set_drift(id, ppm);
        Ok(())
    }

    /// Time passes; if `connected`, messages arrive at once meanwhile.
    pub fn tick(&mut self, time: Duration, connected: bool) -> Outcome {
        let until = self.cluster()?.now.after(time);
        for _ in 0..STEPS_MAX {
            let cluster = self.cluster()?;
            let running = cluster.ids().into_iter().filter(|&id| cluster.is_up(id));
            let next = running.map(|id| (deadline(cluster, id), id)).min();
            let Some((deadline, id)) = next.filter(|&(deadline, _)| deadline <= until) else {
                cluster.now = until;
                return Ok(());
            };
            self.timer(id, deadline)?;
            if connected {
                self.stabilize()?;
            }
        }
        Err("the timers run out again and again".into())
    }

    pub fn heartbeat(&mut self, id: NodeId) -> Outcome {
        let cluster = self.cluster()?;
        if cluster.node(id).role().0 != RoleKind::Leader {
            return Err(format!("{id} does not lead").into());
        }
        let deadline = deadline(cluster, id);
        self.timer(id, deadline)?;
        Ok(())
    }

    pub fn time_out(&mut self, id: NodeId) -> Outcome {
        for _ in 0..STEPS_MAX {
            let deadline = deadline(self.cluster()?, id);
            if deadline == Instant::FAR_FUTURE {
                break;
            }
            let events = self.timer(id, deadline)?;
            if events.iter().any(|event| matches!(event, Event::Role { .. })) {
                return Ok(());
            }
        }
        Err(format!("{id} never campaigns").into())
    }

    /// The timer of a node runs out, at `deadline` or now if that has passed.
    fn timer(&mut self, id: NodeId, deadline: Instant) -> Result<Vec<Event>, Box<dyn Error>> {
        let cluster = self.cluster()?;
        cluster.now = cluster.now.max(deadline);
        cluster.step(id, Input::Timer);
        self.settle(id)
    }

    pub fn busy(&mut self, id: NodeId) {
        self.busy.insert(id);
    }

    pub fn poll(&mut self, id: NodeId) -> Outcome {
        self.busy.remove(&id);
        self.settle(id)?;
        Ok(())
    }

    /// Shows these nodes, or all.
    pub fn show(
        &mut self,
        ids: impl Iterator<Item = NodeId>,
        line: impl Fn(&Node) -> String,
    ) -> Outcome {
        let mut ids: Vec<NodeId> = ids.collect();
        let cluster = self.cluster()?;
        if ids.is_empty() {
            ids = cluster.ids();
        }
        let show = |&id: &NodeId| match &cluster.members.get(&id)?.node {
            Some(node) => Some(line(node)),
            None => Some(format!("{id} does not run")),
        };
        let lines: Vec<String> = ids.iter().filter_map(show).collect();
        self.note(format_args!("{}", lines.join("\n")));
        Ok(())
    }

    /// Polls a node until it has nothing more to do, unless its driver is busy. Its disk and its state
    /// machine do what they are given at once, unless they are held up.
    fn settle(&mut self, id: NodeId) -> Result<Vec<Event>, Box<dyn Error>> {
        let mut events = Vec::new();
        for _ in 0..STEPS_MAX {
            if self.busy.contains(&id) {
                return Ok(events);
            }
            let stalled = self.stalled.contains(&id);
            let effects = self.cluster()?.poll(id);
            let restored = effects.restore.as_ref().map(raft_core::Snapshot::index);
            let applied = effects.committed.last().map(|entry| entry.index).or(restored);
            let applied = match self.slow.get_mut(&id) {
                Some(given) => {
                    *given = applied.or(*given);
                    None
                }
                None => applied,
            };
            let wrote = effects.wrote;
            events.extend(self.tell(id, effects)?);
            if !stalled {
                self.finish_writes(id, 0, usize::MAX)?;
            }
            if let Some(index) = applied {
                self.cluster()?.apply(id, index);
            }
            let moved = self.move_chunks(id)?;
            if (stalled || !wrote) && applied.is_none() && !moved {
                return Ok(events);
            }
        }
        Err(format!("{id} never comes to rest").into())
    }

    /// Notes what a node did, and puts its messages on their way.
    fn tell(&mut self, id: NodeId, effects: Effects) -> Result<Vec<Event>, Box<dyn Error>> {
        let Effects {
            messages,
            restore,
            committed,
            reads,
            proposals,
            changes,
            snapshot_due,
            events,
            wrote,
            chunks: _,
            incoming: _,
            compacted: _,
        } = effects;
        for event in &events {
            if transcript::shows(event) {
                self.note(format_args!("{}", transcript::event(id, event)));
            }
        }
        if wrote {
            let queue = &self.cluster()?.members[&id].disk.queue;
            let write = queue.back().map_or_else(String::new, transcript::write);
            let verb = if self.stalled.contains(&id) { "hands over" } else { "writes" };
            self.note(format_args!("{id} {verb} {write}"));
        }
        for envelope in messages {
            self.send(envelope);
        }
        if let Some(snapshot) = restore {
            self.note(format_args!("{id} restores {}", snapshot.id()));
        }
        if !committed.is_empty() {
            self.note(format_args!("{id} commits {}", transcript::entries(&committed)));
        }
        for outcome in &proposals {
            self.note(format_args!("{id} {}", transcript::proposal(outcome)));
        }
        for outcome in &changes {
            self.note(format_args!("{id} {}", transcript::change(outcome)));
        }
        for outcome in &reads {
            self.note(format_args!("{id} {}", transcript::read(outcome)));
        }
        if snapshot_due {
            self.note(format_args!("{id} asks for a snapshot to be cut"));
        }
        Ok(events)
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let line = line.to_string();
        if !line.is_empty() {
            self.transcript.push_str(&line);
            self.transcript.push('\n');
        }
    }

    pub fn cluster(&mut self) -> Result<&mut Cluster, Box<dyn Error>> {
        self.cluster.as_mut().ok_or_else(|| "a script begins with `cluster N`".into())
    }
}

/// When the timer of a node runs out. By a clock that is right that is known to the nanosecond.
fn deadline(cluster: &Cluster, id: NodeId) -> Instant {
    let is_right = cluster.members[&id].drift_ppm() == 0;
    if is_right { cluster.node(id).deadline() } else { cluster.deadline(id) }
}

fn noop(index: LogIndex, term: Term) -> Entry {
    Entry { index, term, timestamp: Timestamp(0), payload: Payload::Noop }
}
