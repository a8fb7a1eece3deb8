//! The disks and state machines of a script: held up, lost, read for others.

use std::error::Error;

use raft_core::{Incoming, NodeId};

use super::{Outcome, Stage};
use raft_sim::transcript;

impl Stage {
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

    pub fn crash(&mut self, id: NodeId, survivors: usize) -> Outcome {
        self.cluster()?.crash(id, survivors);
        self.busy.remove(&id);
        Ok(())
    }

    pub fn stall_chunks(&mut self, id: NodeId) {
        self.stalled_chunks.insert(id);
    }

    pub fn unstall_chunks(&mut self, id: NodeId) -> Outcome {
        self.stalled_chunks.remove(&id);
        self.move_chunks(id)?;
        self.settle(id)?;
        Ok(())
    }

    pub fn slow(&mut self, id: NodeId) {
        self.slow.insert(id, None);
    }

    /// The state machine has applied all that it was given.
    pub fn apply(&mut self, id: NodeId) -> Outcome {
        let given = self.slow.remove(&id).flatten().ok_or("it was given nothing")?;
        self.cluster()?.apply(id, given);
        self.settle(id)?;
        Ok(())
    }

    /// Reads pieces of snapshots for others and stores those that arrived, unless they are held up. True
    /// if there were any.
    pub(super) fn move_chunks(&mut self, id: NodeId) -> Result<bool, Box<dyn Error>> {
        if self.stalled_chunks.contains(&id) {
            return Ok(false);
        }
        let cluster = self.cluster()?;
        let mut moved = false;
        while cluster.read_chunk(id) {
            moved = true;
        }
        while let Some(incoming) = self.cluster()?.members[&id].incoming.front().cloned() {
            moved = true;
            self.cluster()?.store_incoming(id);
            let arriving = self.cluster()?.members[&id].disk.arriving.as_ref();
            let held = arriving.map_or(0, |(_, bytes)| bytes.len());
            match incoming {
                Incoming::Begin(snapshot) => {
                    self.note(format_args!("{id} holds {held} bytes of {}", snapshot.id()));
                }
                Incoming::Chunk { snapshot, .. } => {
                    self.note(format_args!("{id} holds {held} bytes of {snapshot}"));
                }
                Incoming::Abandon(snapshot) => self.note(format_args!("{id} abandons {snapshot}")),
            }
        }
        Ok(moved)
    }

    /// The disk finishes up to `count` writes behind the first `skip`; which they were.
    pub(super) fn finish_writes(
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
}
