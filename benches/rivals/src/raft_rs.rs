//! Three nodes of raft-rs in one thread, driven as its documentation says, with its own `MemStorage`.

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::{MemStorage, Storage as _};
use raft::{Config, GetEntriesContext, RawNode, StateRole};

use crate::applied::Applied;

/// How the leader is given commands and sends them on.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Lets the leader put entries into a message that has not left yet.
    pub batch_append: bool,
    /// One proposal with all entries, instead of one for each.
    pub together: bool,
}

/// A cluster that has elected its first node.
pub struct Cluster {
    members: Vec<Member>,
    settings: Settings,
}

struct Member {
    node: RawNode<MemStorage>,
    storage: MemStorage,
    inbox: Vec<Message>,
    applied: Applied,
}

impl Cluster {
    /// Three nodes and an election.
    pub fn new(settings: Settings) -> Self {
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let members = [1, 2, 3].map(|id| Member::new(id, settings, &log)).into();
        let mut cluster = Self { members, settings };
        cluster.members[0].node.campaign().expect("may campaign");
        cluster.settle();
        assert_eq!(cluster.members[0].node.raft.state, StateRole::Leader);
        cluster
    }

    /// Proposes the commands and lets everyone act until nobody has anything to do.
    pub fn commit(&mut self, commands: Vec<Bytes>) {
        let leader = &mut self.members[0].node;
        if self.settings.together {
            let entry = |data| Entry { data, ..Entry::default() };
            let mut proposal = Message { from: 1, ..Message::default() };
            proposal.set_msg_type(MessageType::MsgPropose);
            proposal.set_entries(commands.into_iter().map(entry).collect::<Vec<_>>().into());
            leader.step(proposal).expect("the leader takes proposals");
        } else {
            for command in commands {
                // Its signature wants a `Vec`; `step` takes the command as it is.
                let entry = Entry { data: command, ..Entry::default() };
                let mut proposal = Message { from: 1, ..Message::default() };
                proposal.set_msg_type(MessageType::MsgPropose);
                proposal.set_entries(vec![entry].into());
                leader.step(proposal).expect("the leader takes proposals");
            }
        }
        self.settle();
    }

    /// What was applied; panics if the nodes applied or stored different commands.
    pub fn applied(&self) -> Applied {
        let leader = self.members[0].applied;
        for member in &self.members {
            assert_eq!(member.applied, leader, "all apply the same");
            let storage = &member.storage;
            let (first, last) = (storage.first_index(), storage.last_index());
            let (first, last) = (first.expect("in memory"), last.expect("in memory"));
            let context = GetEntriesContext::empty(false);
            let entries = storage.entries(first, last + 1, None, context).expect("in memory");
            let mut stored = Applied::default();
            entries.iter().for_each(|entry| apply(&mut stored, entry));
            assert_eq!(stored, leader, "the storage holds what was applied");
        }
        leader
    }

    fn settle(&mut self) {
        let mut sent = Vec::new();
        let mut busy = true;
        while busy {
            busy = false;
            for place in 0..self.members.len() {
                busy |= self.members[place].act(&mut sent);
                for message in sent.drain(..) {
                    let to = usize::try_from(message.to - 1).expect("one of three");
                    self.members[to].inbox.push(message);
                }
            }
        }
    }
}

impl Member {
    fn new(id: u64, settings: Settings, log: &slog::Logger) -> Self {
        let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
        let config = Config {
            id,
            election_tick: 10,
            heartbeat_tick: 1,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            batch_append: settings.batch_append,
            ..Config::default()
        };
        let node = RawNode::new(&config, storage.clone(), log).expect("a sound start");
        Self { node, storage, inbox: Vec::new(), applied: Applied::default() }
    }

    /// Takes in all messages and does what the node says until it says nothing more.
    fn act(&mut self, sent: &mut Vec<Message>) -> bool {
        let mut busy = !self.inbox.is_empty();
        for message in self.inbox.drain(..) {
            self.node.step(message).expect("a member's message");
        }
        while self.node.has_ready() {
            busy = true;
            let mut ready = self.node.ready();
            sent.extend(ready.take_messages());
            apply_all(&mut self.applied, &ready.take_committed_entries());
            if !ready.entries().is_empty() {
                self.storage.wl().append(ready.entries()).expect("contiguous");
            }
            if let Some(state) = ready.hs() {
                self.storage.wl().set_hardstate(state.clone());
            }
            sent.extend(ready.take_persisted_messages());
            let mut rest = self.node.advance(ready);
            if let Some(commit) = rest.commit_index() {
                self.storage.wl().mut_hard_state().commit = commit;
            }
            sent.extend(rest.take_messages());
            apply_all(&mut self.applied, &rest.take_committed_entries());
            self.node.advance_apply();
        }
        busy
    }
}

fn apply_all(applied: &mut Applied, entries: &[Entry]) {
    entries.iter().for_each(|entry| apply(applied, entry));
}

fn apply(applied: &mut Applied, entry: &Entry) {
    if !entry.data.is_empty() {
        applied.apply(&entry.data);
    }
}
