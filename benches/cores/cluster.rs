//! Three nodes of raft-core in one thread. Messages are values in queues, each node has a disk that is a
//! `Vec`, and every committed command is applied.

use bytes::Bytes;
use raft_core::{
    Config, Entry, Envelope, Input, Instant, LogIndex, Membership, Node, NodeId, Output, Payload,
    Restored, RoleKind, Timestamp, Write,
};

use crate::applied::Applied;

/// A cluster that has elected its first node.
pub(crate) struct Cluster {
    members: Vec<Member>,
    now: Instant,
}

struct Member {
    node: Node,
    inbox: Vec<Envelope>,
    /// Something else than a message came in.
    roused: bool,
    output: Output,
    disk: Vec<Entry>,
    applied: Applied,
}

impl Cluster {
    /// Three nodes and an election.
    ///
    /// # Panics
    /// If the first node does not win the election that only it calls.
    pub(crate) fn new() -> Self {
        let ids = [1, 2, 3].map(|id| NodeId::new(id).expect("not zero"));
        let membership = Membership::new(ids).expect("three voters");
        let now = Instant::default();
        let members = ids.map(|id| Member::new(id, &membership, now)).into();
        let mut cluster = Self { members, now };
        cluster.now = cluster.members[0].node.deadline();
        cluster.members[0].node.step(cluster.now, Input::Timer);
        cluster.members[0].roused = true;
        cluster.settle();
        assert_eq!(cluster.members[0].node.role().0, RoleKind::Leader);
        cluster
    }

    /// Proposes `commands` together and lets everyone act until nobody has anything to do: all three
    /// nodes have stored, committed and applied them.
    pub(crate) fn commit(&mut self, commands: Vec<Bytes>) {
        let leader = &mut self.members[0];
        leader.roused = true;
        let proposed = leader.node.propose(self.now, Timestamp(0), commands);
        proposed.expect("the leader takes proposals");
        self.settle();
    }

    /// What was applied.
    ///
    /// # Panics
    /// If the nodes applied different commands, or stored something else than they applied.
    pub(crate) fn applied(&self) -> Applied {
        let leader = self.members[0].applied;
        for member in &self.members {
            assert_eq!(member.applied, leader, "all apply the same");
            let mut stored = Applied::default();
            member.disk.iter().for_each(|entry| apply(&mut stored, entry));
            assert_eq!(stored, leader, "the disk holds what was applied");
        }
        leader
    }

    fn settle(&mut self) {
        let mut busy = true;
        while busy {
            busy = false;
            for place in 0..self.members.len() {
                busy |= self.members[place].act(self.now);
                // Taken out so that it can be emptied into the others' inboxes, and put back.
                let mut messages = std::mem::take(&mut self.members[place].output.messages);
                for envelope in messages.drain(..) {
                    let to = usize::try_from(envelope.to.get() - 1).expect("one of three");
                    self.members[to].inbox.push(envelope);
                }
                self.members[place].output.messages = messages;
            }
        }
    }
}

impl Member {
    fn new(id: NodeId, membership: &Membership, now: Instant) -> Self {
        let config = Config::new(id, id.get());
        let restored = Restored::empty(membership.clone());
        Self {
            node: Node::new(config, restored, now).expect("a sound start"),
            inbox: Vec::new(),
            roused: false,
            output: Output::default(),
            disk: Vec::new(),
            applied: Applied::default(),
        }
    }

    /// Takes in all messages and does what the node says until it says nothing more. True if there was
    /// anything to do. Leaves the messages to be sent in the output.
    fn act(&mut self, now: Instant) -> bool {
        if self.inbox.is_empty() && !self.roused {
            return false;
        }
        self.roused = false;
        for envelope in self.inbox.drain(..) {
            self.node.step(now, Input::Message(envelope));
        }
        loop {
            self.node.poll(&mut self.output);
            self.apply_committed(now);
            self.output.reads.clear();
            self.output.proposals.clear();
            self.output.events.clear();
            let Some(write) = self.output.write.take() else {
                return true;
            };
            store(&mut self.disk, &write);
            self.node.step(now, Input::Written(write.into_receipt()));
        }
    }

    /// Applies what was handed out. That lets the node hand out more only if there was more than
    /// `unapplied_bytes_max`: the next message is early enough to ask for it.
    fn apply_committed(&mut self, now: Instant) {
        let Some(last) = self.output.committed.last() else {
            return;
        };
        let last = last.index;
        for entry in self.output.committed.iter() {
            apply(&mut self.applied, entry);
        }
        self.output.committed.clear();
        self.node.step(now, Input::Applied(last));
    }
}

fn store(disk: &mut Vec<Entry>, write: &Write) {
    if let Some(LogIndex(from)) = write.truncate_from() {
        disk.truncate(usize::try_from(from - 1).expect("in memory"));
    }
    disk.extend_from_slice(write.entries());
}

fn apply(applied: &mut Applied, entry: &Entry) {
    if let Payload::Command(command) = &entry.payload {
        applied.apply(command);
    }
}
