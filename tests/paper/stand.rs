//! One node on a test stand: it is fed messages and time, its disk and its state machine do what it
//! says at once (or when told), and what it says is collected.

use std::collections::VecDeque;
use std::time::Duration;

use raft_core::{
    Ballot, ChunkOrder, Config, Envelope, Event, GroupId, HardState, Ignored, Incarnation,
    Incoming, Input, Instant, LogBase, LogIndex, LogPosition, Membership, Message, Node, NodeId,
    Output, ProposalOutcome, ProposeRefusal, Proposed, ReadOutcome, Restored, RoleKind, Round,
    Snapshot, SnapshotId, Timestamp, Write,
};
use raft_core::{BallotKind, ChangeOutcome, ChangeRefusal, Entry};

use crate::words::{accepted, n, voters};

/// The times of every node here, in milliseconds.
pub(crate) const ELECTION_TIMEOUT: u64 = 300;
pub(crate) const HEARTBEAT: u64 = 50;

pub(crate) struct Stand {
    pub(crate) node: Node,
    pub(crate) config: Config,
    now: Instant,
    output: Output,
    /// What would be found after a crash now.
    pub(crate) disk: Restored,
    /// Writes that the disk has not finished, if it was stalled.
    pub(crate) writes: VecDeque<Write>,
    stalled: bool,
    /// The state machine does not report what it applies.
    pub(crate) lazy: bool,
    /// Snapshots in the storage, whole or in part.
    pub(crate) stored: Vec<(SnapshotId, Vec<u8>)>,
    /// The last campaign of this node, and the last round of a leader.
    ballot: Option<Ballot>,
    pub(crate) round: Round,
    /// What was collected: tests take it.
    pub(crate) messages: Vec<Envelope>,
    pub(crate) applied: Vec<Entry>,
    pub(crate) reads: Vec<ReadOutcome>,
    pub(crate) proposals: Vec<ProposalOutcome>,
    pub(crate) changes: Vec<ChangeOutcome>,
    pub(crate) events: Vec<Event>,
    pub(crate) incoming: Vec<Incoming>,
    pub(crate) chunks: Vec<ChunkOrder>,
    pub(crate) restored: Vec<Snapshot>,
    pub(crate) snapshot_due: bool,
}

impl Stand {
    /// Node 1, that has never run, in a cluster of these voters.
    pub(crate) fn new(ids: &[u64]) -> Self {
        Self::start(Config::new(n(1), 1), Restored::empty(voters(ids)))
    }

    /// Node 1 of these voters, in `term`, with a log of no-ops of the given terms on its disk.
    pub(crate) fn with_log(ids: &[u64], term: u64, log: &[u64]) -> Self {
        let hard_state = HardState { term: raft_core::Term(term), voted_for: None };
        let entries = crate::words::entries(1, log);
        let disk = Restored { hard_state, entries, ..Restored::empty(voters(ids)) };
        Self::start(Config::new(n(1), 1), disk)
    }

    /// Node 1, just elected in term 1: its first entry is on its own disk only.
    pub(crate) fn elected(ids: &[u64]) -> Self {
        let mut stand = Self::new(ids);
        stand.win();
        stand
    }

    /// Node 1, the leader of term 1, after its first entry was committed everywhere.
    pub(crate) fn leader(ids: &[u64]) -> Self {
        Self::leader_with(Config::new(n(1), 1), voters(ids))
    }

    /// The same, with this configuration.
    pub(crate) fn leader_with(config: Config, members: Membership) -> Self {
        let mut stand = Self::start(config, Restored::empty(members));
        stand.win();
        stand.all_acknowledge();
        stand.forget();
        stand
    }

    pub(crate) fn start(config: Config, disk: Restored) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let node = Node::new(config.clone(), disk.clone(), now).expect("a sound start");
        let mut stand = Self {
            node,
            config,
            now,
            output: Output::default(),
            disk,
            writes: VecDeque::new(),
            stalled: false,
            lazy: false,
            stored: Vec::new(),
            ballot: None,
            round: Round(0),
            messages: Vec::new(),
            applied: Vec::new(),
            reads: Vec::new(),
            proposals: Vec::new(),
            changes: Vec::new(),
            events: Vec::new(),
            incoming: Vec::new(),
            chunks: Vec::new(),
            restored: Vec::new(),
            snapshot_due: false,
        };
        stand.settle();
        stand
    }

    /// The process dies and starts again, a moment later, with what its disk has.
    pub(crate) fn restart(&mut self) {
        self.restart_with(self.disk.clone());
    }

    pub(crate) fn restart_with(&mut self, disk: Restored) {
        let config = Config { seed: self.config.seed + 100, ..self.config.clone() };
        let stored = std::mem::take(&mut self.stored);
        let now = self.now;
        *self = Self::start(config.clone(), disk.clone());
        self.node = Node::new(config, disk, now).expect("what its disk has is sound");
        (self.now, self.stored) = (now, stored);
    }

    // What happens to it.

    pub(crate) fn input(&mut self, input: Input) {
        self.node.step(self.now, input);
        self.settle();
    }

    /// A message from node `from`, of this term, arrives.
    pub(crate) fn hear(&mut self, from: u64, term: u64, message: Message) {
        self.deliver(Envelope {
            group: GroupId(0),
            from: n(from),
            to: self.config.id,
            term: raft_core::Term(term),
            incarnation: Incarnation(0),
            message,
        });
    }

    pub(crate) fn deliver(&mut self, envelope: Envelope) {
        self.input(Input::Message(envelope));
    }

    /// Time passes, and the timer runs out whenever it does.
    pub(crate) fn wait(&mut self, millis: u64) {
        let end = self.now.after(Duration::from_millis(millis));
        for times in 0.. {
            if self.node.deadline() > end {
                break;
            }
            assert!(times < 10_000, "the timer runs out and nothing happens");
            self.now = self.now.max(self.node.deadline());
            self.input(Input::Timer);
        }
        self.now = end;
    }

    /// Time passes until the timer has run out once.
    pub(crate) fn wait_for_timer(&mut self) {
        self.now = self.node.deadline();
        assert_ne!(self.now, Instant::FAR_FUTURE, "no timer runs");
        self.input(Input::Timer);
    }

    /// How many milliseconds are left until the timer runs out.
    pub(crate) fn timer(&self) -> u64 {
        u64::try_from(self.node.deadline().since(self.now).as_millis()).expect("not for ever")
    }

    /// Node `from` answers this node's campaign.
    pub(crate) fn answer(&mut self, from: u64, granted: bool) {
        let ballot = self.ballot.expect("a campaign");
        let term = self.term();
        self.hear(from, term, Message::RequestVoteReply { ballot, granted });
    }

    /// Whether this node asks for pre-votes or for votes: what the next answer would be to.
    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot.expect("a campaign")
    }

    /// Its timer runs out, and as many others as it takes would vote for it, lowest numbers first.
    pub(crate) fn stand_for_election(&mut self) {
        self.wait_for_timer();
        for id in self.others() {
            if self.role().0 == RoleKind::PreCandidate {
                self.answer(id, true);
            }
        }
    }

    /// And they do vote for it.
    pub(crate) fn win(&mut self) {
        self.stand_for_election();
        for id in self.others() {
            if self.role().0 == RoleKind::Candidate {
                self.answer(id, true);
            }
        }
        assert_eq!(self.role().0, RoleKind::Leader, "elected");
    }

    /// Follower `from` has this leader's log on its disk up to `durable`, and has seen the last
    /// round.
    pub(crate) fn acknowledge(&mut self, from: u64, durable: u64) {
        let (term, round) = (self.term(), self.round);
        self.hear(from, term, accepted(durable, durable, round));
    }

    /// All other members have the whole log.
    pub(crate) fn all_acknowledge(&mut self) {
        let (members, own) = (self.node.status().membership, self.id());
        for id in members.nodes().map(NodeId::get).filter(|&id| id != own) {
            if self.role().0 == RoleKind::Leader {
                self.acknowledge(id, self.node.status().last.index.0);
            }
        }
    }

    pub(crate) fn propose(
        &mut self,
        commands: &[&'static str],
    ) -> Result<Proposed, ProposeRefusal> {
        let commands = commands.iter().map(|&command| command.into()).collect();
        let result = self.node.propose(self.now, Timestamp(0), commands);
        self.settle();
        result.map_err(|refused| refused.reason)
    }

    pub(crate) fn read(
        &mut self,
        how: raft_core::Consistency,
    ) -> Result<u64, raft_core::ReadRefused> {
        let id = self.node.read(self.now, how);
        self.settle();
        id.map(|id| id.0)
    }

    pub(crate) fn change(&mut self, target: &Membership) -> Result<LogPosition, ChangeRefusal> {
        let result = self.node.change_membership(self.now, Timestamp(0), target, None);
        self.settle();
        result
    }

    pub(crate) fn transfer(&mut self, to: Option<u64>) -> Result<u64, raft_core::TransferRefusal> {
        let result = self.node.transfer_leadership(self.now, to.map(n));
        self.settle();
        result.map(NodeId::get)
    }

    /// The state machine stores a snapshot of these bytes as of `index`.
    pub(crate) fn cut(&mut self, index: u64, bytes: &[u8]) -> Snapshot {
        let base = self.node.snapshot_base(LogIndex(index)).expect("applied");
        let snapshot = Snapshot { base, length: bytes.len() as u64, digest: 1 };
        self.stored.push((snapshot.id(), bytes.to_vec()));
        self.disk.snapshot = Some(snapshot.clone());
        self.input(Input::SnapshotCut(snapshot.clone()));
        snapshot
    }

    /// The disk takes writes and finishes none.
    pub(crate) fn stall(&mut self) {
        self.stalled = true;
    }

    /// It finishes the oldest one.
    pub(crate) fn sync(&mut self) {
        let write = self.writes.pop_front().expect("a write is under way");
        self.finish(write);
        self.settle();
    }

    // What it does.

    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.node.poll(&mut self.output);
            let again = self.carry_out();
            if !again {
                return;
            }
        }
        panic!("there is always something to do");
    }

    /// Does what the node wants done; true if there may be more.
    fn carry_out(&mut self) -> bool {
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
        } = std::mem::take(&mut self.output);
        for Envelope { message, .. } in &messages {
            match message {
                Message::RequestVote { ballot, .. } => self.ballot = Some(*ballot),
                Message::AppendEntries { round, .. } => self.round = *round,
                _ => {}
            }
        }
        self.messages.extend(messages);
        self.reads.extend(reads);
        self.proposals.extend(proposals);
        self.changes.extend(changes);
        self.events.extend(events);
        self.snapshot_due |= snapshot_due;
        if let Some(base) = compacted {
            self.compact(base);
        }
        let mut again = self.apply(restore, committed.drain_entries().collect());
        again |= !chunks.is_empty() || !incoming.is_empty();
        chunks.into_iter().for_each(|order| self.read_chunk(order));
        incoming.into_iter().for_each(|order| self.store(order));
        if let Some(write) = write {
            again |= !self.stalled;
            self.writes.push_back(write);
        }
        while !self.stalled {
            let Some(write) = self.writes.pop_front() else { break };
            self.finish(write);
        }
        again
    }

    fn apply(&mut self, restore: Option<Snapshot>, committed: Vec<Entry>) -> bool {
        let restored = restore.as_ref().map(Snapshot::index);
        let reached = committed.last().map(|entry| entry.index).or(restored);
        self.restored.extend(restore);
        self.applied.extend(committed);
        if let Some(index) = reached.filter(|_| !self.lazy) {
            self.node.step(self.now, Input::Applied(index));
        }
        reached.is_some()
    }

    fn finish(&mut self, write: Write) {
        if let Some(hard_state) = write.hard_state() {
            self.disk.hard_state = hard_state;
        }
        if let Some(snapshot) = write.snapshot() {
            self.disk.base = snapshot.base.clone();
            self.disk.entries.clear();
            self.disk.snapshot = Some(snapshot.clone());
        }
        if let Some(from) = write.truncate_from() {
            self.disk.entries.retain(|entry| entry.index < from);
        }
        self.disk.entries.extend(write.entries().iter().cloned());
        self.node.step(self.now, Input::Written(write.into_receipt()));
    }

    fn compact(&mut self, base: LogBase) {
        self.disk.entries.retain(|entry| entry.index > base.position.index);
        self.disk.base = base;
    }

    fn read_chunk(&mut self, order: ChunkOrder) {
        self.chunks.push(order);
        let stored = self.stored.iter().find(|(id, _)| *id == order.snapshot);
        let bytes = stored.map(|(_, bytes)| {
            let rest = bytes.iter().copied().skip(order.offset as usize);
            rest.take(order.bytes_max as usize).collect::<Vec<u8>>().into()
        });
        self.node.step(self.now, Input::ChunkRead { order, bytes });
    }

    fn store(&mut self, order: Incoming) {
        self.incoming.push(order.clone());
        let (id, more) = match order {
            Incoming::Begin(snapshot) => (snapshot.id(), Vec::new()),
            Incoming::Chunk { snapshot, offset: _, bytes } => (snapshot, bytes.to_vec()),
            Incoming::Abandon(id) => return self.stored.retain(|(stored, _)| *stored != id),
        };
        if !self.stored.iter().any(|(stored, _)| *stored == id) {
            self.stored.push((id, Vec::new()));
        }
        let known = self.stored.iter_mut().find(|(stored, _)| *stored == id);
        let (_, bytes) = known.expect("just put there");
        bytes.extend(more);
        let bytes = bytes.len() as u64;
        self.node.step(self.now, Input::SnapshotHeld { snapshot: id, bytes });
    }

    // What one sees of it.

    pub(crate) fn id(&self) -> u64 {
        self.config.id.get()
    }

    pub(crate) fn others(&self) -> Vec<u64> {
        let membership = self.node.status().membership;
        let others = membership.nodes().map(NodeId::get).filter(|&id| id != self.id());
        others.filter(|&id| membership.is_voter(n(id))).collect()
    }

    pub(crate) fn role(&self) -> (RoleKind, u64) {
        let (role, term) = self.node.role();
        (role, term.0)
    }

    pub(crate) fn term(&self) -> u64 {
        self.role().1
    }

    pub(crate) fn leads(&self) -> bool {
        self.role().0 == RoleKind::Leader
    }

    pub(crate) fn voted_for(&self) -> Option<u64> {
        self.node.status().voted_for.map(NodeId::get)
    }

    pub(crate) fn follows(&self) -> Option<u64> {
        self.node.status().leader.map(NodeId::get)
    }

    pub(crate) fn commit(&self) -> u64 {
        self.node.status().commit.0
    }

    pub(crate) fn members(&self) -> String {
        self.node.status().membership.to_string()
    }

    /// The log, in the notation of the types: `1@1 2@1=a`.
    pub(crate) fn log(&self) -> String {
        let status = self.node.status();
        let indexes = status.base.index.0 + 1..=status.last.index.0;
        words(indexes.filter_map(|index| self.node.entry(LogIndex(index))))
    }

    /// What it has said since it was last asked, in the notation of the types.
    pub(crate) fn said(&mut self) -> Vec<String> {
        self.messages.drain(..).map(|envelope| envelope.to_string()).collect()
    }

    /// Only the last of it.
    pub(crate) fn last_word(&mut self) -> String {
        self.said().pop().unwrap_or_default()
    }

    /// All of it that was said to node `to`, without the addresses; what was said to others is
    /// forgotten.
    pub(crate) fn told(&mut self, to: u64) -> Vec<String> {
        let to = n(to);
        let to_it = self.messages.drain(..).filter(|envelope| envelope.to == to);
        to_it.map(|envelope| envelope.message.to_string()).collect()
    }

    /// Whom it has asked for which kind of vote.
    pub(crate) fn asked_for_votes(&mut self) -> Vec<(BallotKind, u64)> {
        let asked = self.messages.drain(..).filter_map(|envelope| match envelope.message {
            Message::RequestVote { ballot, .. } => Some((ballot.kind, envelope.to.get())),
            _ => None,
        });
        asked.collect()
    }

    /// The entries that were handed to the state machine since it was last asked.
    pub(crate) fn applies(&mut self) -> String {
        words(std::mem::take(&mut self.applied).iter())
    }

    /// Did it say since it was last asked that an input had no effect, for this reason?
    pub(crate) fn ignored(&mut self, expected: Ignored) -> bool {
        let events = std::mem::take(&mut self.events);
        events.iter().any(|event| matches!(event, Event::Ignored { why, .. } if *why == expected))
    }

    /// Forgets what was collected.
    pub(crate) fn forget(&mut self) {
        self.messages.clear();
        self.applied.clear();
        self.reads.clear();
        self.proposals.clear();
        self.changes.clear();
        self.events.clear();
        self.incoming.clear();
        self.chunks.clear();
        self.restored.clear();
        self.snapshot_due = false;
    }
}

fn words<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    entries.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
