//! A cluster of nodes in one thread that moves only when told to.

mod clock;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use raft_core::{
    ChangeOutcome, ChunkOrder, Config, Entry, Envelope, Event, Incoming, Input, Instant, LogIndex,
    LogPosition, Membership, Node, NodeId, Output, ProposalOutcome, ReadOutcome, Snapshot,
};
use raft_wal::{OpenError, Repair, WalError};

use super::checker::Checker;
use super::digest_machine::DigestMachine;
use super::machine::StateMachine;
use super::reference::{Last, Reference};
use super::replica::{Applied, Replica};
use super::spec::Cause;
use super::storage::Storage;
use super::storage::durable::Durable;
use super::storage::memory::Disk;
use clock::Pace;
pub use clock::WALL_CLOCK_AHEAD_MAX;

/// The node with this number.
pub fn n(id: u64) -> NodeId {
    NodeId::new(id).expect("node numbers in tests start at 1")
}

/// One member: its node while it runs, its disk always. Its state machine is in [`Cluster::replicas`].
pub struct Member<D> {
    /// `None` while it is down.
    pub node: Option<Node>,
    /// What survives.
    pub disk: D,
    /// Chunks to be read for peers.
    pub orders: VecDeque<ChunkOrder>,
    /// What to do with a snapshot that is on its way here.
    pub incoming: VecDeque<Incoming>,
    /// What its disk wants to be given again.
    pub repair: Repair,
    /// Counts its starts.
    pub lives: u64,
    /// What its clock shows.
    pace: Pace,
    output: Output,
}

impl<D> Member<D> {
    fn new(disk: D) -> Self {
        Self {
            node: None,
            disk,
            orders: VecDeque::new(),
            incoming: VecDeque::new(),
            repair: Repair::None,
            lives: 0,
            pace: Pace::default(),
            output: Output::default(),
        }
    }

    /// By how many millionths its clock is fast.
    pub fn drift_ppm(&self) -> i64 {
        self.pace.drift_ppm
    }
}

/// What a node wanted done, except what its member keeps for later: the write is in its disk's queue,
/// chunks to read and to store are in its lists.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be sent at once.
    pub messages: Vec<Envelope>,
    /// To take the place of the state machine, before what is committed.
    pub restore: Option<Snapshot>,
    /// To be applied, in this order.
    pub committed: Vec<Entry>,
    /// Reads that may be served, or not.
    pub reads: Vec<ReadOutcome>,
    /// What became of proposals.
    pub proposals: Vec<ProposalOutcome>,
    /// What became of membership changes.
    pub changes: Vec<ChangeOutcome>,
    /// Is a snapshot to be cut?
    pub snapshot_due: bool,
    /// What there is to tell.
    pub events: Vec<Event>,
    /// Did it hand out a write?
    pub wrote: bool,
    /// So many chunks are to be read, and so many orders about an arriving snapshot carried out.
    pub chunks: usize,
    /// So many orders about a snapshot that arrives were given.
    pub incoming: usize,
    /// Up to where the log was compacted.
    pub compacted: Option<LogPosition>,
}

/// The members, and what watches them.
pub struct Cluster<D = Disk, M = DigestMachine> {
    /// The true time.
    pub now: Instant,
    /// All that exist, up or down.
    pub members: BTreeMap<NodeId, Member<D>>,
    /// The state machines of the members that run.
    pub replicas: BTreeMap<NodeId, Replica<M>>,
    /// What a state machine must answer.
    pub reference: Reference<M>,
    /// Watches every step.
    pub checker: Checker,
    /// The members that the cluster started with.
    pub membership: Membership,
    /// Nodes that ended because of their disks, and why, since somebody last looked.
    pub failed: Vec<(NodeId, WalError)>,
    config: Box<dyn Fn(NodeId, u64) -> Config>,
    empty_disk: Box<dyn Fn(NodeId, Membership) -> D>,
    new_machine: Box<dyn Fn() -> M>,
}

impl<D: Storage, M: StateMachine> Cluster<D, M> {
    /// `size` voters that have never run. `config` is asked for the configuration of each life of a
    /// node: its id, and the number of the life from 1; `empty_disk` for the disk of a new node, which
    /// was told of these members; `new_machine` for the state machine of a new life.
    pub fn new(
        size: u64,
        config: impl Fn(NodeId, u64) -> Config + 'static,
        empty_disk: impl Fn(NodeId, Membership) -> D + 'static,
        new_machine: impl Fn() -> M + 'static,
    ) -> Self {
        let membership = Membership::new((1..=size).map(n)).expect("at least one voter");
        let mut cluster = Self {
            now: Instant::default(),
            members: BTreeMap::new(),
            replicas: BTreeMap::new(),
            reference: Reference::new(new_machine()),
            checker: Checker::new(),
            membership,
            failed: Vec::new(),
            config: Box::new(config),
            empty_disk: Box::new(empty_disk),
            new_machine: Box::new(new_machine),
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
        let disk = (self.empty_disk)(id, self.membership.clone());
        let pace = Pace { drift_ppm, ..Pace::default() };
        let member = Member { pace, ..Member::new(disk) };
        assert!(self.members.insert(id, member).is_none(), "there is a {id} already");
        self.restart(id).expect("an empty disk that does not fail");
    }

    /// A node is gone for good, with its disk: the node in the checker's memory, the disk returned.
    pub fn destroy(&mut self, id: NodeId) -> D {
        let member = self.members.remove(&id);
        let member = member.unwrap_or_else(|| panic!("there is no {id}"));
        self.checker.on_death(id, Durable::clone(member.disk.durable()));
        member.disk
    }

    /// All members that exist, in order.
    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    /// Does it exist, and run?
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
    ///
    /// # Errors
    /// If the disk fails, or what it remembers is not to be trusted.
    pub fn restart(&mut self, id: NodeId) -> Result<(), OpenError> {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        assert!(member.node.is_none(), "{id} runs already");
        member.lives += 1;
        let config = (self.config)(id, member.lives);
        let restored = member.disk.start()?;
        let mut replica = Replica::new((self.new_machine)());
        if let Some(snapshot) = &restored.snapshot {
            replica.restore(id, snapshot.base.position, &member.disk.content(snapshot)?);
        }
        let (now, found) = (member.pace.at(self.now), Durable::of(&restored));
        let node = Node::new(config, restored, now).expect("a disk of ours restores");
        member.node = Some(node);
        self.checker.on_restart(&self.members, id, &found);
        self.reference.follow(&self.checker.committed);
        let (index, last) = (replica.applied().index, Last::Restored);
        self.reference.check_state(id, index, replica.machine(), last);
        self.replicas.insert(id, replica);
        Ok(())
    }

    /// Stops a node at once.
    pub fn stop(&mut self, id: NodeId) {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        member.node = None;
        self.replicas.remove(&id);
        member.disk.stop();
        member.orders.clear();
        member.incoming.clear();
        member.repair = Repair::None;
    }

    /// What came of an operation of a node's disk, unless it failed: then the node ends. A disk that is
    /// merely full has done nothing.
    pub fn unless_failed<T>(&mut self, id: NodeId, outcome: Result<T, WalError>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) if error.is_no_space() => None,
            Err(error) => {
                assert!(!matches!(error, WalError::Refused { .. }), "{id}: {error}");
                self.stop(id);
                self.failed.push((id, error));
                None
            }
        }
    }

    /// When the timer of a node runs out, by the true clock.
    pub fn deadline(&self, id: NodeId) -> Instant {
        let deadline = self.node(id).deadline();
        self.members[&id].pace.when(deadline)
    }

    /// What the clock of a node shows.
    pub fn clock(&self, id: NodeId) -> Instant {
        self.members[&id].pace.at(self.now)
    }

    /// From here on the clock of a node is so many millionths fast.
    pub fn set_drift(&mut self, id: NodeId, drift_ppm: i64) {
        let (shown, since) = (self.clock(id), self.now);
        if let Some(member) = self.members.get_mut(&id) {
            member.pace = Pace { since, shown, drift_ppm };
        }
    }

    /// The clock of a node jumps ahead. No clock goes back.
    pub fn jump_clock(&mut self, id: NodeId, by: Duration) {
        let (shown, since) = (self.clock(id).after(by), self.now);
        if let Some(member) = self.members.get_mut(&id) {
            member.pace = Pace { since, shown, ..member.pace };
        }
    }

    /// Feeds one input, without polling.
    pub fn step(&mut self, id: NodeId, input: Input) {
        let now = self.clock(id);
        let cause = Cause::of(&input);
        self.node_mut(id).step(now, input);
        self.node(id).check_invariants();
        self.checker.on_step(&self.members, id, &cause);
    }

    /// The state machine of a node applies what waits for it up to an index, and the node is told, without
    /// polling: the commands among that, with the responses.
    pub fn apply(&mut self, id: NodeId, index: LogIndex) -> Vec<Applied> {
        self.reference.follow(&self.checker.committed);
        let replica = self.replicas.get_mut(&id).unwrap_or_else(|| panic!("{id} does not run"));
        let applied = replica.apply_up_to(id, index, &self.reference);
        let index = replica.applied().index;
        if index > self.node(id).status().applied {
            self.step(id, Input::Applied(index));
        }
        applied
    }

    /// The state machine of a running node, and what waits for it.
    pub fn replica(&self, id: NodeId) -> &Replica<M> {
        self.replicas.get(&id).unwrap_or_else(|| panic!("{id} does not run"))
    }

    /// Polls a node: its write goes into its disk's queue, the rest is returned, all of it checked. A
    /// node whose disk fails ends, and did nothing.
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
        if let Some(base) = compacted {
            member.disk.compact(base);
        }
        if let Repair::Entries { after } = std::mem::take(&mut member.repair) {
            // All that the node has was handed over just now, so this is where the log ends; and what it
            // compacted was, so this is where it begins.
            let first = after.max(node.status().base.index).next();
            let entry = |index| node.entry(LogIndex(index)).cloned();
            member.disk.rewrite((first.0..).map_while(entry).collect());
        }
        if let Some(snapshot) = &effects.restore {
            let bytes = member.disk.content(snapshot);
            let Some(bytes) = self.unless_failed(id, bytes) else { return Effects::default() };
            let replica = self.replicas.get_mut(&id).expect("polled just now");
            replica.push_restore(snapshot.base.position, bytes);
        }
        let replica = self.replicas.get_mut(&id).expect("polled just now");
        effects.committed.iter().for_each(|entry| replica.push(entry.clone()));
        self.checker.on_poll(&self.members, id, &effects);
        effects
    }
}

/// What only a script does: writes complete one by one, in any order.
impl Cluster {
    /// As [`Cluster::new`], over hand-made disks.
    pub fn in_memory(size: u64, config: impl Fn(NodeId, u64) -> Config + 'static) -> Self {
        Self::new(size, config, |_, membership| Disk::empty(membership), DigestMachine::default)
    }

    /// Stops a node at once. Of the writes that were not synced the first `survivors` reach the disk all
    /// the same, unknown to the node.
    pub fn crash(&mut self, id: NodeId, survivors: usize) {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        for _ in 0..survivors {
            member.disk.persist_first();
        }
        self.stop(id);
    }

    /// A stopped node's disk lost entries that it had, all behind so many of them, and was repaired.
    pub fn damage(&mut self, id: NodeId, kept: usize) {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        assert!(member.node.is_none(), "{id} runs");
        member.disk.damage(kept);
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
