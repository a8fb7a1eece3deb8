//! The state machine of a member, and what waits to be applied to it, as in a driver.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{Entry, LogIndex, LogPosition, NodeId};

use crate::machine::StateMachine;
use crate::reference::{Last, Reference, apply_entry};

/// A state machine in memory: a crash ends it.
#[derive(Debug)]
pub struct Replica<M> {
    machine: M,
    /// The last entry that it reflects.
    applied: LogPosition,
    queue: VecDeque<Todo>,
}

#[derive(Debug)]
enum Todo {
    Apply(Entry),
    /// The state as of this position takes the place of all before.
    Restore(LogPosition, Vec<u8>),
}

/// A command that was applied, and what the machine said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its entry.
    pub position: LogPosition,
    /// The response to it.
    pub response: Bytes,
}

impl<M: StateMachine> Replica<M> {
    pub(crate) const fn new(machine: M) -> Self {
        Self { machine, applied: LogPosition::ZERO, queue: VecDeque::new() }
    }

    /// The machine, as of [`Replica::applied`].
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The last entry that the machine reflects.
    pub const fn applied(&self) -> LogPosition {
        self.applied
    }

    /// How many entries wait, and how many bytes they count for. What is in front of a snapshot that waits,
    /// too, does not count: a node does not know of it any more.
    pub fn queued(&self) -> (usize, u64) {
        let size = |todo: &Todo| match todo {
            Todo::Apply(entry) => Some(entry.size_bytes()),
            Todo::Restore(..) => None,
        };
        let sizes = self.queue.iter().rev().map_while(size);
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.queue.push_back(Todo::Apply(entry));
    }

    /// Behind what waits already.
    pub(crate) fn push_restore(&mut self, position: LogPosition, snapshot: Vec<u8>) {
        self.queue.push_back(Todo::Restore(position, snapshot));
    }

    /// At once: the state that a life begins with.
    pub(crate) fn restore(&mut self, id: NodeId, position: LogPosition, snapshot: &[u8]) {
        let restored = self.machine.restore(snapshot);
        restored
            .unwrap_or_else(|why| panic!("{id} cannot restore a snapshot as of {position}: {why}"));
        self.applied = position;
    }

    /// Applies what waits up to an index, in order, and compares all of it with the reference.
    pub(crate) fn apply_up_to(
        &mut self,
        id: NodeId,
        index: LogIndex,
        reference: &Reference<M>,
    ) -> Vec<Applied> {
        let mut applied = Vec::new();
        let mut last = None;
        while self.queue.front().is_some_and(|todo| todo.index() <= index)
            && let Some(todo) = self.queue.pop_front()
        {
            match todo {
                Todo::Restore(position, snapshot) => {
                    self.restore(id, position, &snapshot);
                    reference.check_state(id, position.index, &self.machine, Last::Restored);
                    last = None;
                }
                Todo::Apply(entry) => {
                    self.applied = entry.position();
                    let response = apply_entry(&mut self.machine, &entry);
                    reference.check_response(id, &entry, response.as_ref());
                    let position = entry.position();
                    applied.extend(response.map(|response| Applied { position, response }));
                    last = Some(entry);
                }
            }
        }
        let last = last.as_ref().map_or(Last::Nothing, Last::Applied);
        reference.check_state(id, self.applied.index, &self.machine, last);
        applied
    }
}

impl Todo {
    const fn index(&self) -> LogIndex {
        match self {
            Self::Apply(entry) => entry.index,
            Self::Restore(position, _) => position.index,
        }
    }
}
