//! A cluster of nodes in one thread that moves only when told to.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft_core::{
    Config, Consistency, Entry, Envelope, Event, HardState, Input, Instant, LogIndex, LogPosition,
    Membership, Node, NodeId, Output, ProposalOutcome, ProposeRefused, Proposed, ReadId,
    ReadOutcome, ReadRefused, Receipt, Restored, Timestamp, Write,
};

use super::checker::Checker;

/// The node with this number.
pub fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("node numbers in tests start at 1")
}

/// A disk that forgets what was not synced. Writes may complete in any order, but a crash keeps only
/// those before which none is missing.
#[derive(Default)]
pub struct Disk {
    /// The vote record that survives a crash.
    pub hard_state: HardState,
    /// The log that survives a crash.
    pub entries: Vec<Entry>,
    /// Handed to the disk, in order, and not durable.
    pub queue: VecDeque<Queued>,
}

/// A write on its way.
pub struct Queued {
    pub hard_state: Option<HardState>,
    pub truncate_from: Option<LogIndex>,
    pub entries: Vec<Entry>,
    /// Gone once it has completed.
    write: Option<Write>,
}

impl Disk {
    fn enqueue(&mut self, write: Write) {
        self.queue.push_back(Queued {
            hard_state: write.hard_state(),
            truncate_from: write.truncate_from(),
            entries: write.entries().to_vec(),
            write: Some(write),
        });
    }

    /// Completes the write at this place in the queue, if there is one that has not completed.
    fn complete(&mut self, place: usize) -> Option<Receipt> {
        let receipt = self.queue.get_mut(place)?.write.take()?.into_receipt();
        while self.queue.front().is_some_and(|queued| queued.write.is_none()) {
            self.persist_first();
        }
        Some(receipt)
    }

    /// The first write of the queue is on the disk for good.
    fn persist_first(&mut self) {
        let Some(first) = self.queue.pop_front() else { return };
        self.hard_state = first.hard_state.unwrap_or(self.hard_state);
        if let Some(from) = first.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        self.entries.extend(first.entries);
    }

    /// Is this entry, and so all before it, on the disk?
    pub fn holds(&self, position: LogPosition) -> bool {
        position.index.0 == 0
            || usize::try_from(position.index.0)
                .ok()
                .and_then(|index| self.entries.get(index - 1))
                .is_some_and(|entry| entry.position() == position)
    }
}

/// One member: its node while it runs, its disk always.
pub struct Member {
    pub node: Option<Node>,
    pub disk: Disk,
    /// Counts its starts.
    pub lives: u64,
    output: Output,
}

/// What a node wanted done, the write aside, which is in its disk's queue by now.
#[derive(Debug, Default)]
pub struct Effects {
    pub messages: Vec<Envelope>,
    pub committed: Vec<Entry>,
    pub reads: Vec<ReadOutcome>,
    pub proposals: Vec<ProposalOutcome>,
    pub events: Vec<Event>,
    /// Did it hand out a write?
    pub wrote: bool,
}

/// The members, and what watches them.
pub struct Cluster {
    pub now: Instant,
    pub members: BTreeMap<NodeId, Member>,
    pub checker: Checker,
    membership: Membership,
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
            checker: Checker::new(membership.clone()),
            membership,
            config: Box::new(config),
        };
        for id in (1..=size).map(n) {
            let (disk, output) = (Disk::default(), Output::default());
            cluster.members.insert(id, Member { node: None, disk, lives: 0, output });
            cluster.restart(id);
        }
        cluster
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.members[&id].node.is_some()
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
        let restored = Restored {
            hard_state: member.disk.hard_state,
            entries: member.disk.entries.clone(),
            ..Restored::empty(self.membership.clone())
        };
        let config = (self.config)(id, member.lives);
        let node = Node::new(config, restored, self.now).expect("a disk of ours restores");
        member.node = Some(node);
        self.checker.on_restart(id);
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
    }

    /// Feeds one input, without polling.
    pub fn step(&mut self, id: NodeId, input: Input) {
        let now = self.now;
        self.node_mut(id).step(now, input);
        self.node(id).check_invariants();
    }

    /// Proposes commands to a node, without polling.
    pub fn propose(
        &mut self,
        id: NodeId,
        commands: Vec<Bytes>,
    ) -> Result<Proposed, ProposeRefused> {
        let now = self.now;
        let timestamp = Timestamp(now.as_nanos() / 1_000_000);
        self.node_mut(id).propose(now, timestamp, commands)
    }

    /// Asks a node for a read, without polling.
    pub fn read(&mut self, id: NodeId) -> Result<ReadId, ReadRefused> {
        let now = self.now;
        let read = self.node_mut(id).read(now, Consistency::Linearizable)?;
        let life = self.members[&id].lives;
        self.checker.on_read_started(id, life, read);
        Ok(read)
    }

    /// Polls a node: its write goes into its disk's queue, the rest is returned, all of it checked.
    pub fn poll(&mut self, id: NodeId) -> Effects {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        let node = member.node.as_mut().unwrap_or_else(|| panic!("{id} does not run"));
        node.poll(&mut member.output);
        let Output { write, messages, committed, reads, proposals, events, .. } =
            &mut member.output;
        let effects = Effects {
            wrote: write.is_some(),
            messages: std::mem::take(messages),
            committed: std::mem::take(committed),
            reads: std::mem::take(reads),
            proposals: std::mem::take(proposals),
            events: std::mem::take(events),
        };
        if let Some(write) = write.take() {
            member.disk.enqueue(write);
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
