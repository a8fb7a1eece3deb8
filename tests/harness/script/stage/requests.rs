//! What clients and operators ask of a node in a script.

use bytes::Bytes;
use raft_core::{Consistency, LogIndex, Membership, NodeId};

use super::{Outcome, Stage};
use raft_sim::transcript;

impl Stage {
    pub fn propose(&mut self, id: NodeId, commands: &[String]) -> Outcome {
        let commands = commands.iter().map(|command| Bytes::copy_from_slice(command.as_bytes()));
        if let Err(refused) = self.cluster()?.propose(id, commands.collect()) {
            self.note(format_args!("{id} refuses: {}", refused.reason));
        }
        self.settle(id)?;
        Ok(())
    }

    pub fn read(&mut self, id: NodeId, consistency: Consistency) -> Outcome {
        match self.cluster()?.read(id, consistency) {
            Ok(read) => self.note(format_args!("{id} takes read #{}", read.0)),
            Err(why) => {
                self.note(format_args!("{id} refuses to read: {}", transcript::read_refused(why)));
            }
        }
        self.settle(id)?;
        Ok(())
    }

    pub fn change(
        &mut self,
        id: NodeId,
        target: &Membership,
        expected: Option<LogIndex>,
    ) -> Outcome {
        if let Err(refused) = self.cluster()?.change(id, target, expected) {
            self.note(format_args!("{id} refuses: {refused}"));
        }
        self.settle(id)?;
        Ok(())
    }

    pub fn transfer(&mut self, id: NodeId, to: Option<NodeId>) -> Outcome {
        if let Err(refused) = self.cluster()?.transfer(id, to) {
            self.note(format_args!("{id} refuses: {refused}"));
        }
        self.settle(id)?;
        Ok(())
    }

    pub fn cut(&mut self, id: NodeId) -> Outcome {
        match self.cluster()?.cut_snapshot(id) {
            Some(snapshot) => self.note(format_args!("{id} cuts the snapshot {snapshot}")),
            None => return Err(format!("{id} has nothing new to cut").into()),
        }
        self.settle(id)?;
        Ok(())
    }
}
