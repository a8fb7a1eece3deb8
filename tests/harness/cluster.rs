//! A cluster of nodes in one thread that moves only when told to.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft_core::{
    ChangeOutcome, ChangeRefusal, ChunkOrder, Config, Consistency, Entry, Envelope, Event,
    Incarnation, Incoming, Input, Instant, LogIndex, LogPosition, Membership, Node, NodeId, Output,
    ProposalOutcome, ProposeRefused, Proposed, ReadId, ReadOutcome, ReadRefused, Snapshot,
    SnapshotId, Timestamp, TransferRefusal,
};

use super::checker::Checker;
use super::storage::{Disk, Machine, digest};

/// The node with this number.
pub fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("node numbers in tests start at 1")
}

/// One member: its node while it runs, its disk always.
pub struct Member {
    pub node: Option<Node>,
    pub disk: Disk,
    pub machine: Machine,
    /// Chunks to be read for peers.
    pub orders: VecDeque<ChunkOrder>,
    /// What to do with a snapshot that is on its way here.
    pub incoming: VecDeque<Incoming>,
    /// Counts its starts.
    pub lives: u64,
    /// By how many millionths its clock is fast.
    pub drift_ppm: i64,
    output: Output,
}

impl Member {
    fn new(disk: Disk) -> Self {
        Self {
            node: None,
            disk,
            machine: Machine::default(),
            orders: VecDeque::new(),
            incoming: VecDeque::new(),
            lives: 0,
            drift_ppm: 0,
            output: Output::default(),
        }
    }

    /// What its clock shows.
    fn clock(&self, now: Instant) -> Instant {
        let now = i128::from(now.as_nanos());
        instant(now + now * i128::from(self.drift_ppm) / 1_000_000)
    }

    /// When its clock will show this.
    fn when(&self, clock: Instant) -> Instant {
        if clock == Instant::FAR_FUTURE {
            return clock;
        }
        let nanos = i128::from(clock.as_nanos()) * 1_000_000;
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        // Rounded up, and a little more: a timer must not be called too early for ever.
        instant(nanos / rate + 1 + i128::from(self.drift_ppm != 0))
    }
}

fn instant(nanos: i128) -> Instant {
    Instant::from_nanos(u64::try_from(nanos).expect("a test is shorter than 584 years"))
}

/// What a node wanted done, except what its member keeps for later: the write is in its disk's queue,
/// chunks to read and to store are in its lists.
#[derive(Debug, Default)]
pub struct Effects {
    pub messages: Vec<Envelope>,
    pub restore: Option<Snapshot>,
    pub committed: Vec<Entry>,
    pub reads: Vec<ReadOutcome>,
    pub proposals: Vec<ProposalOutcome>,
    pub changes: Vec<ChangeOutcome>,
    pub snapshot_due: bool,
    pub events: Vec<Event>,
    /// Did it hand out a write?
    pub wrote: bool,
    /// So many chunks are to be read, and so many orders about an arriving snapshot carried out.
    pub chunks: usize,
    pub incoming: usize,
    pub compacted: Option<LogPosition>,
}

/// The members, and what watches them.
pub struct Cluster {
    pub now: Instant,
    pub members: BTreeMap<NodeId, Member>,
    pub checker: Checker,
    /// The members that the cluster started with.
    pub membership: Membership,
    config: Box<dyn Fn(NodeId, u64) -> Config>,
}

impl Cluster {
    /// `size` voters that have never run. `config` is asked for the configuration of each life of a
    /// node: its id, and the number of the life from 1.
    pub fn new(size: u64, config: impl Fn(NodeId, u64) -> Config + 'static) -> Self {
        let membership = Membership::new((1..=size).map(n)).expect("at least one voter");
        let mut cluster = Self {
            now: Instant::default(),
            members: BTreeMap::new(),
            checker: Checker::new(),
            membership,
            config: Box::new(config),
        };
        for id in (1..=size).map(n) {
            cluster.add(id);
        }
        cluster
    }

    /// Starts a node that has never run. If it is not one of the first members, it waits to be made one.
    pub fn add(&mut self, id: NodeId) {
        self.add_with_drift(id, 0);
    }

    /// The same, with a clock that is so many millionths fast.
    pub fn add_with_drift(&mut self, id: NodeId, drift_ppm: i64) {
        let disk = Disk::empty(self.membership.clone());
        let member = Member { drift_ppm, ..Member::new(disk) };
        assert!(self.members.insert(id, member).is_none(), "there is a {id} already");
        self.restart(id);
    }

    /// A node is gone for good, with its disk.
    pub fn destroy(&mut self, id: NodeId) {
        let member = self.members.remove(&id);
        let member = member.unwrap_or_else(|| panic!("there is no {id}"));
        self.checker.on_death(id, member.disk);
    }

    /// A stopped node's disk lost entries that it had, all behind so many of them, and was repaired.
    pub fn damage(&mut self, id: NodeId, kept: usize) {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        assert!(member.node.is_none(), "{id} runs");
        let disk = &mut member.disk;
        disk.lost = disk.lost.max(disk.last());
        disk.incarnation = Incarnation(disk.incarnation.0 + 1);
        // What is in a snapshot is not in danger.
        let in_snapshot = disk.snapshots.last().map_or(LogIndex(0), |(it, _)| it.index());
        let base = disk.base.position.index.0;
        let kept = kept.max(usize::try_from(in_snapshot.0 - base).expect("a short log"));
        disk.entries.truncate(kept);
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.members.get(&id).is_some_and(|member| member.node.is_some())
    }

    /// The running node `id`.
    pub fn node(&self, id: NodeId) -> &Node {
        self.members[&id].node.as_ref().unwrap_or_else(|| panic!("{id} does not run"))
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        member.node.as_mut().unwrap_or_else(|| panic!("{id} does not run"))
    }

    /// Starts a stopped node with what its disk remembers.
    pub fn restart(&mut self, id: NodeId) {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        assert!(member.node.is_none(), "{id} runs already");
        member.lives += 1;
        let config = (self.config)(id, member.lives);
        let restored = member.disk.restore();
        member.machine = Machine::restored(&member.disk);
        let now = member.clock(self.now);
        let node = Node::new(config, restored, now).expect("a disk of ours restores");
        self.checker.on_restart(id, node.status().applied);
        member.node = Some(node);
    }

    /// Stops a node at once. Of the writes that were not synced the first `survivors` reach the disk all
    /// the same, unknown to the node.
    pub fn crash(&mut self, id: NodeId, survivors: usize) {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        member.node = None;
        for _ in 0..survivors {
            member.disk.persist_first();
        }
        member.disk.queue.clear();
        member.orders.clear();
        member.incoming.clear();
    }

    /// When the timer of a node runs out, by the true clock.
    pub fn deadline(&self, id: NodeId) -> Instant {
        let deadline = self.node(id).deadline();
        self.members[&id].when(deadline)
    }

    fn clock(&self, id: NodeId) -> Instant {
        self.members[&id].clock(self.now)
    }

    /// Feeds one input, without polling.
    pub fn step(&mut self, id: NodeId, input: Input) {
        let now = self.clock(id);
        let applied = match input {
            Input::Applied(index) => Some(index),
            _ => None,
        };
        let membership = self.node(id).status().membership;
        self.node_mut(id).step(now, input);
        self.node(id).check_invariants();
        // Whose votes a commit rests on can only be told now: those of the members before the step, for
        // any others are appended after the commit that allows it.
        self.checker.check_commit(&self.members, id, &membership);
        if let Some(index) = applied {
            let member = self.members.get_mut(&id).expect("it was stepped just now");
            member.machine.forget_before(index);
        }
    }

    /// Proposes commands to a node, without polling.
    pub fn propose(
        &mut self,
        id: NodeId,
        commands: Vec<Bytes>,
    ) -> Result<Proposed, ProposeRefused> {
        let (now, timestamp) = (self.clock(id), self.timestamp());
        self.node_mut(id).propose(now, timestamp, commands)
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(self.now.as_nanos() / 1_000_000)
    }

    /// Asks a node for a membership change, without polling.
    pub fn change(
        &mut self,
        id: NodeId,
        target: &Membership,
        expected: Option<LogIndex>,
    ) -> Result<LogPosition, ChangeRefusal> {
        let (now, timestamp) = (self.clock(id), self.timestamp());
        self.node_mut(id).change_membership(now, timestamp, target, expected)
    }

    /// Asks a node to hand over its leadership, without polling.
    pub fn transfer(&mut self, id: NodeId, to: Option<NodeId>) -> Result<NodeId, TransferRefusal> {
        let now = self.clock(id);
        self.node_mut(id).transfer_leadership(now, to)
    }

    /// Cuts a snapshot of what a node has applied and stores it, without polling. `None` if there is
    /// nothing new to cut.
    pub fn cut_snapshot(&mut self, id: NodeId) -> Option<SnapshotId> {
        let status = self.node(id).status();
        let base = self.node(id).snapshot_base(status.applied)?;
        let member = self.members.get_mut(&id)?;
        if status.snapshot.is_some_and(|held| held.position.index >= status.applied) {
            return None;
        }
        let bytes = member.machine.snapshot_at(status.applied)?;
        let snapshot = Snapshot { base, length: bytes.len() as u64, digest: digest(&bytes) };
        let named = snapshot.id();
        member.disk.keep(snapshot.clone(), bytes);
        self.step(id, Input::SnapshotCut(snapshot));
        Some(named)
    }

    /// Reads the first chunk that a peer of this node waits for, without polling. False if none does.
    pub fn read_chunk(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        let Some(order) = member.orders.pop_front() else { return false };
        let bytes = member.disk.read_chunk(order.snapshot, order.offset, order.bytes_max);
        self.step(id, Input::ChunkRead { order, bytes });
        true
    }

    /// Does the first thing that this node wants done with an arriving snapshot, without polling.
    pub fn store_incoming(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        let Some(incoming) = member.incoming.pop_front() else { return false };
        if let Some((snapshot, bytes)) = member.disk.store(incoming) {
            self.step(id, Input::SnapshotHeld { snapshot, bytes });
        }
        true
    }

    /// Asks a node for a read, without polling.
    pub fn read(&mut self, id: NodeId, consistency: Consistency) -> Result<ReadId, ReadRefused> {
        let now = self.clock(id);
        let read = self.node_mut(id).read(now, consistency)?;
        let life = self.members[&id].lives;
        self.checker.on_read_started(id, life, read, consistency);
        Ok(read)
    }

    /// Polls a node: its write goes into its disk's queue, the rest is returned, all of it checked.
    pub fn poll(&mut self, id: NodeId) -> Effects {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        let node = member.node.as_mut().unwrap_or_else(|| panic!("{id} does not run"));
        node.poll(&mut member.output);
        let Output {
            write,
            messages,
            restore,
            mut committed,
            reads,
            proposals,
            changes,
            snapshot_due,
            chunks,
            incoming,
            compacted,
            events,
        } = std::mem::take(&mut member.output);
        let base = compacted.as_ref().map(|base| base.position);
        if let Some(base) = compacted {
            member.disk.compact(base);
        }
        let effects = Effects {
            wrote: write.is_some(),
            messages,
            restore,
            committed: committed.drain_entries().collect(),
            reads,
            proposals,
            changes,
            snapshot_due,
            events,
            chunks: chunks.len(),
            incoming: incoming.len(),
            compacted: base,
        };
        member.orders.extend(chunks);
        member.incoming.extend(incoming);
        if let Some(write) = write {
            member.disk.enqueue(write);
        }
        if let Some(snapshot) = &effects.restore {
            let bytes = member.disk.arrived(snapshot).expect("it is handed out when it is here");
            member.machine.restore(&bytes);
        }
        for entry in &effects.committed {
            member.machine.apply(entry);
        }
        self.checker.on_poll(&self.members, id, &effects);
        effects
    }

    /// Completes up to `count` writes of a node and gives it the receipts, without polling; in
    /// `reversed` order the last first.
    pub fn sync(&mut self, id: NodeId, count: usize, reversed: bool) {
        let count = count.min(self.members[&id].disk.queue.len());
        for turn in 0..count {
            // In order the first completes each time, and leaves the queue.
            self.complete(id, if reversed { count - 1 - turn } else { 0 });
        }
    }

    /// Completes the write at this place in a node's disk queue and gives it the receipt, without
    /// polling. False if there is no such write, or it had completed.
    pub fn complete(&mut self, id: NodeId, place: usize) -> bool {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        let Some(receipt) = member.disk.complete(place) else { return false };
        self.step(id, Input::Written(receipt));
        true
    }
}
