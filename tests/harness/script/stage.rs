//! The cluster that a script moves: its network, its disks, its clock. One method per command.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    Config, Consistency, Entry, Envelope, Event, HardState, Input, Instant, LogIndex, Node, NodeId,
    Payload, RoleKind, Term, Timestamp,
};

use super::super::cluster::{Cluster, Effects, n};
use super::{Which, transcript};

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
    stalled: BTreeSet<NodeId>,
    busy: BTreeSet<NodeId>,
}

impl Stage {
    pub fn start(&mut self, size: u64, limits: &[(String, u64)]) -> Outcome {
        let limits = limits.to_vec();
        set_limits(&mut Config::new(n(1), 0), &limits)?;
        *self = Self::default();
        self.cluster = Some(Cluster::new(size, move |id, life| {
            // Far apart and always the same: a script means the same on every run.
            let mut config = Config::new(id, id.get() * 1000 + life);
            set_limits(&mut config, &limits).expect("checked above");
            config
        }));
        Ok(())
    }

    /// Starts a node anew with this on its disk, no-ops for entries.
    pub fn put_on_disk(&mut self, id: NodeId, hard_state: HardState, terms: &[Term]) -> Outcome {
        let cluster = self.cluster()?;
        cluster.crash(id, 0);
        let disk = &mut cluster.members.get_mut(&id).expect("it crashed just now").disk;
        disk.hard_state = hard_state;
        disk.entries =
            (1..).map(LogIndex).zip(terms).map(|(index, &term)| noop(index, term)).collect();
        self.restart(id)
    }

    /// Time passes; if `connected`, messages arrive at once meanwhile.
    pub fn tick(&mut self, time: Duration, connected: bool) -> Outcome {
        let until = self.cluster()?.now.after(time);
        for _ in 0..STEPS_MAX {
            let cluster = self.cluster()?;
            let running = cluster.ids().into_iter().filter(|&id| cluster.is_up(id));
            let next = running.map(|id| (cluster.node(id).deadline(), id)).min();
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
        let node = self.node(id)?;
        if node.role().0 != RoleKind::Leader {
            return Err(format!("{id} does not lead").into());
        }
        let deadline = node.deadline();
        self.timer(id, deadline)?;
        Ok(())
    }

    pub fn time_out(&mut self, id: NodeId) -> Outcome {
        for _ in 0..STEPS_MAX {
            let deadline = self.node(id)?.deadline();
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

    pub fn deliver(&mut self, which: &Which) -> Outcome {
        for envelope in self.take(which)? {
            self.arrive(envelope)?;
        }
        Ok(())
    }

    pub fn lose(&mut self, which: &Which) -> Outcome {
        for envelope in self.take(which)? {
            self.note(format_args!("lost: {envelope}"));
        }
        Ok(())
    }

    pub fn duplicate(&mut self, which: &Which) -> Outcome {
        for at in self.matching(which)?.into_iter().rev() {
            self.network.insert(at + 1, self.network[at].clone());
        }
        Ok(())
    }

    pub fn delay(&mut self, which: &Which) -> Outcome {
        for envelope in self.take(which)? {
            self.note(format_args!("delayed: {envelope}"));
            self.delayed.push(envelope);
        }
        Ok(())
    }

    pub fn release(&mut self) {
        self.network.append(&mut self.delayed);
    }

    pub fn stabilize(&mut self) -> Outcome {
        for _ in 0..STEPS_MAX {
            if self.network.is_empty() {
                return Ok(());
            }
            let envelope = self.network.remove(0);
            self.arrive(envelope)?;
        }
        Err("messages cause messages without end".into())
    }

    /// A message arrives. One to a stopped node, or to nobody, is lost.
    pub fn arrive(&mut self, envelope: Envelope) -> Outcome {
        let cluster = self.cluster()?;
        let to = envelope.to;
        if !cluster.members.contains_key(&to) || !cluster.is_up(to) {
            self.note(format_args!("lost: {envelope}"));
            return Ok(());
        }
        cluster.step(to, Input::Message(envelope));
        self.settle(to)?;
        Ok(())
    }

    pub fn partition(&mut self, side: Vec<NodeId>) {
        self.partition = side.into_iter().collect();
    }

    pub fn stall(&mut self, id: NodeId) {
        self.stalled.insert(id);
    }

    pub fn sync(&mut self, id: NodeId, skip: usize, count: Option<usize>) -> Outcome {
        for write in self.finish_writes(id, skip, count.unwrap_or(usize::MAX))? {
            self.note(format_args!("{id} syncs {write}"));
        }
        self.settle(id)?;
        Ok(())
    }

    pub fn unstall(&mut self, id: NodeId) -> Outcome {
        self.stalled.remove(&id);
        self.sync(id, 0, None)
    }

    pub fn busy(&mut self, id: NodeId) {
        self.busy.insert(id);
    }

    pub fn poll(&mut self, id: NodeId) -> Outcome {
        self.busy.remove(&id);
        self.settle(id)?;
        Ok(())
    }

    pub fn crash(&mut self, id: NodeId, survivors: usize) -> Outcome {
        self.cluster()?.crash(id, survivors);
        self.busy.remove(&id);
        Ok(())
    }

    pub fn restart(&mut self, id: NodeId) -> Outcome {
        self.cluster()?.restart(id);
        Ok(())
    }

    pub fn propose(&mut self, id: NodeId, commands: &[String]) -> Outcome {
        let commands = commands.iter().map(|command| Bytes::copy_from_slice(command.as_bytes()));
        if let Err(refused) = self.cluster()?.propose(id, commands.collect()) {
            self.note(format_args!("{id} refuses: {}", refused.reason));
        }
        self.settle(id)?;
        Ok(())
    }

    pub fn read(&mut self, id: NodeId) -> Outcome {
        match self.cluster()?.read(id, Consistency::Linearizable) {
            Ok(read) => self.note(format_args!("{id} takes read #{}", read.0)),
            Err(why) => self.note(format_args!("{id} refuses to read: {why:?}")),
        }
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

    pub fn show_network(&mut self) {
        let lines: Vec<String> = self.network.iter().map(ToString::to_string).collect();
        self.note(format_args!("{}", lines.join("\n")));
    }

    /// Polls a node until it has nothing more to do, unless its driver is busy. The disk finishes
    /// writes at once unless it is stalled, the state machine applies entries at once.
    fn settle(&mut self, id: NodeId) -> Result<Vec<Event>, Box<dyn Error>> {
        let mut events = Vec::new();
        for _ in 0..STEPS_MAX {
            if self.busy.contains(&id) {
                return Ok(events);
            }
            let stalled = self.stalled.contains(&id);
            let effects = self.cluster()?.poll(id);
            let at_rest = (stalled || !effects.wrote) && effects.committed.is_empty();
            let applied = effects.committed.last().map(|entry| entry.index);
            events.extend(self.tell(id, effects)?);
            if !stalled {
                self.finish_writes(id, 0, usize::MAX)?;
            }
            if let Some(index) = applied {
                self.cluster()?.step(id, Input::Applied(index));
            }
            if at_rest {
                return Ok(events);
            }
        }
        Err(format!("{id} never comes to rest").into())
    }

    /// Notes what a node did, and puts its messages on their way.
    fn tell(&mut self, id: NodeId, effects: Effects) -> Result<Vec<Event>, Box<dyn Error>> {
        let Effects { messages, committed, reads, proposals, events, wrote, .. } = effects;
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
            let crosses =
                self.partition.contains(&envelope.from) != self.partition.contains(&envelope.to);
            if crosses && !self.partition.is_empty() {
                self.note(format_args!("lost: {envelope}"));
            } else {
                self.note(format_args!("{envelope}"));
                self.network.push(envelope);
            }
        }
        if !committed.is_empty() {
            self.note(format_args!("{id} commits {}", transcript::entries(&committed)));
        }
        for outcome in &proposals {
            self.note(format_args!("{id} {}", transcript::proposal(outcome)));
        }
        for outcome in &reads {
            self.note(format_args!("{id} {}", transcript::read(outcome)));
        }
        Ok(events)
    }

    /// The disk finishes up to `count` writes behind the first `skip`; which they were.
    fn finish_writes(
        &mut self,
        id: NodeId,
        skip: usize,
        count: usize,
    ) -> Result<Vec<String>, Box<dyn Error>> {
        let cluster = self.cluster()?;
        let mut writes = Vec::new();
        let mut place = skip;
        while writes.len() < count {
            let queue = &cluster.members[&id].disk.queue;
            let length = queue.len();
            let Some(write) = queue.get(place).map(transcript::write) else { break };
            if cluster.complete(id, place) {
                writes.push(write);
            }
            // One before which none is missing leaves the queue, others stay in their place.
            if cluster.members[&id].disk.queue.len() == length {
                place += 1;
            }
        }
        Ok(writes)
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let line = line.to_string();
        if !line.is_empty() {
            self.transcript.push_str(&line);
            self.transcript.push('\n');
        }
    }

    fn cluster(&mut self) -> Result<&mut Cluster, Box<dyn Error>> {
        self.cluster.as_mut().ok_or_else(|| "a script begins with `cluster N`".into())
    }

    fn node(&mut self, id: NodeId) -> Result<&Node, Box<dyn Error>> {
        Ok(self.cluster()?.node(id))
    }

    fn take(&mut self, which: &Which) -> Result<Vec<Envelope>, Box<dyn Error>> {
        let chosen = self.matching(which)?;
        let taken = chosen.iter().map(|&at| self.network[at].clone()).collect();
        for at in chosen.into_iter().rev() {
            self.network.remove(at);
        }
        Ok(taken)
    }

    /// Where in the network these messages are; an error if nothing matches, for then the script
    /// does not do what it says.
    fn matching(&self, which: &Which) -> Result<Vec<usize>, Box<dyn Error>> {
        if let Some(key) = which.keys().find(|key| !["from", "to", "skip", "n"].contains(&&***key))
        {
            return Err(format!("messages are chosen by from, to, skip, n, not by {key}").into());
        }
        let number = |key: &str, default| match which.get(key) {
            Some(&number) => usize::try_from(number),
            None => Ok(default),
        };
        let is = |key: &str, id: NodeId| which.get(key).is_none_or(|&number| number == id.get());
        let all = (0..self.network.len())
            .filter(|&at| is("from", self.network[at].from) && is("to", self.network[at].to));
        let chosen: Vec<usize> =
            all.skip(number("skip", 0)?).take(number("n", usize::MAX)?).collect();
        if chosen.is_empty() {
            return Err("no such message is on its way".into());
        }
        Ok(chosen)
    }
}

fn noop(index: LogIndex, term: Term) -> Entry {
    Entry { index, term, timestamp: Timestamp(0), payload: Payload::Noop }
}

fn set_limits(config: &mut Config, limits: &[(String, u64)]) -> Outcome {
    for (name, value) in limits {
        match name.as_str() {
            "append_bytes_max" => config.append_bytes_max = *value,
            "inflight_messages_max" => config.inflight_messages_max = usize::try_from(*value)?,
            "inflight_bytes_max" => config.inflight_bytes_max = *value,
            "uncommitted_bytes_max" => config.uncommitted_bytes_max = *value,
            "unapplied_bytes_max" => config.unapplied_bytes_max = *value,
            "waiting_reads_max" => config.waiting_reads_max = usize::try_from(*value)?,
            _ => return Err(format!("Config has no limit {name}").into()),
        }
    }
    Ok(config.validate().map_err(|error| error.to_string())?)
}
