//! What is asked of a node: commands, reads, changes of the members, leadership, snapshots.

use bytes::Bytes;
use raft_core::{
    ChangeRefusal, Consistency, Incoming, Input, Instant, LogIndex, LogPosition, Membership,
    NodeId, ProposeRefused, Proposed, ReadId, ReadRefused, SnapshotId, Timestamp, TransferRefusal,
};

use super::Cluster;
use super::clock::wall_clock;
use crate::machine::StateMachine;
use crate::spec::Cause;
use crate::storage::Storage;

impl<D: Storage, M: StateMachine> Cluster<D, M> {
    /// What both clocks of a node show.
    fn clocks(&self, id: NodeId) -> (Instant, Timestamp) {
        let lives = self.members.get(&id).map_or(0, |member| member.lives);
        (self.clock(id), wall_clock(self.now, id, lives))
    }

    /// Proposes commands to a node, without polling.
    pub fn propose(
        &mut self,
        id: NodeId,
        commands: Vec<Bytes>,
    ) -> Result<Proposed, ProposeRefused> {
        let (now, timestamp) = self.clocks(id);
        let taken = self.node_mut(id).propose(now, timestamp, commands);
        if let Ok(Proposed { first, last }) = taken {
            self.checker.on_taken(id, first.term, first.index..=last.index);
        }
        self.checker.on_step(&self.members, id, &Cause::Propose);
        taken
    }

    /// Asks a node for a membership change, without polling.
    pub fn change(
        &mut self,
        id: NodeId,
        target: &Membership,
        expected: Option<LogIndex>,
    ) -> Result<LogPosition, ChangeRefusal> {
        let (now, timestamp) = self.clocks(id);
        let taken = self.node_mut(id).change_membership(now, timestamp, target, expected);
        let asked = taken.is_ok().then(|| target.clone());
        if let Ok(change) = taken {
            self.checker.on_taken(id, change.term, change.index..=change.index);
        }
        self.checker.on_step(&self.members, id, &Cause::Operator(asked));
        taken
    }

    /// Asks a node to hand over its leadership, without polling.
    pub fn transfer(&mut self, id: NodeId, to: Option<NodeId>) -> Result<NodeId, TransferRefusal> {
        let now = self.clock(id);
        let taken = self.node_mut(id).transfer_leadership(now, to);
        self.checker.on_step(&self.members, id, &Cause::Operator(None));
        taken
    }

    /// Asks a node for a read, without polling.
    pub fn read(&mut self, id: NodeId, consistency: Consistency) -> Result<ReadId, ReadRefused> {
        let now = self.clock(id);
        let taken = self.node_mut(id).read(now, consistency);
        self.checker.on_step(&self.members, id, &Cause::Progress);
        let read = taken?;
        let life = self.members[&id].lives;
        self.checker.on_read_started(id, life, read, consistency);
        Ok(read)
    }

    /// Cuts a snapshot of what a node has applied and stores it, without polling. `None` if there is
    /// nothing new to cut.
    pub fn cut_snapshot(&mut self, id: NodeId) -> Option<SnapshotId> {
        let status = self.node(id).status();
        let base = self.node(id).snapshot_base(status.applied)?;
        if status.snapshot.is_some_and(|held| held.position.index >= status.applied) {
            return None;
        }
        let bytes = self.snapshot(id, status.applied);
        let member = self.members.get_mut(&id)?;
        let kept = member.disk.keep(base, &bytes);
        let snapshot = self.unless_failed(id, kept)?;
        let named = snapshot.id();
        self.step(id, Input::SnapshotCut(snapshot));
        Some(named)
    }

    /// Stores the snapshot again that a node takes to be there, and that turned out damaged, if nothing
    /// was applied since. The bytes are the same, so the node need not be told.
    pub fn cut_snapshot_again(&mut self, id: NodeId) -> bool {
        let status = self.node(id).status();
        let held = status.snapshot.filter(|held| held.position.index == status.applied);
        let base = held.and_then(|held| self.node(id).snapshot_base(held.position.index));
        let Some(base) = base else { return false };
        let bytes = self.snapshot(id, status.applied);
        let Some(member) = self.members.get_mut(&id) else { return false };
        let kept = member.disk.keep(base, &bytes);
        let kept = self.unless_failed(id, kept);
        kept.is_some_and(|snapshot| {
            assert_eq!(Some(snapshot.id()), held, "{id}: the same state in other bytes");
            true
        })
    }

    fn snapshot(&self, id: NodeId, applied: LogIndex) -> Bytes {
        let replica = self.replica(id);
        assert_eq!(replica.applied().index, applied, "{id}: the machine is elsewhere");
        replica.machine().snapshot()
    }

    /// Reads the first chunk that a peer of this node waits for, without polling. False if none does.
    pub fn read_chunk(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        let Some(order) = member.orders.pop_front() else { return false };
        let read = member.disk.read_chunk(&order);
        if let Some(bytes) = self.unless_failed(id, read) {
            self.step(id, Input::ChunkRead { order, bytes });
        }
        true
    }

    /// Does the first thing that this node wants done with an arriving snapshot, without polling.
    pub fn store_incoming(&mut self, id: NodeId) -> bool {
        let member = self.members.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"));
        let Some(incoming) = member.incoming.pop_front() else { return false };
        let snapshot = match &incoming {
            Incoming::Begin(snapshot) => snapshot.id(),
            Incoming::Chunk { snapshot, .. } | Incoming::Abandon(snapshot) => *snapshot,
        };
        let held = match member.disk.store(incoming) {
            // What had come of it is gone.
            Err(error) if error.is_no_space() => Ok(Some((snapshot, 0))),
            held => held,
        };
        if let Some(Some((snapshot, bytes))) = self.unless_failed(id, held) {
            self.step(id, Input::SnapshotHeld { snapshot, bytes });
        }
        true
    }
}
