//! One node with its disk: what a crash takes and what it leaves, and what the node does on one event.
//!
//! A site depends on nothing outside of it. So what it does on an event is computed once, and looked up
//! after that, however many states of the whole contain this site.

use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    Alarm, Config, Entry, Incoming, Input, Instant, LogIndex, LogPosition, Membership, Message,
    Node, NodeId, Output, Receipt, RoleKind, Snapshot, Status, Timestamp, Write,
};
use raft_sim::storage::durable::Durable;
use xxhash_rust::xxh3::Xxh3;

use super::action::Act;
use super::effects::{Effects, check_promises, check_step};

/// A step at the moment at which the node takes itself to be: its clock stands still.
const NOW: Instant = Alarm::ORIGIN;

/// A node, what its disk has for certain, and what is on its way there.
#[derive(Clone)]
pub struct Site {
    pub node: Node,
    pub disk: Durable,
    /// Handed out, in order: any part of it from the beginning may survive a crash.
    pub pending: Vec<Pending>,
    config: Config,
    /// It has asked others something in this life.
    asked: bool,
    /// Writes are done at once.
    quick: bool,
}

/// A write that was handed out.
#[derive(Clone)]
pub struct Pending {
    write: Arc<Write>,
    /// A receipt is made of a write, once. The node as it was makes the same write once more.
    again: Arc<Node>,
    arrived: bool,
}

impl Pending {
    fn receipt(&self) -> Receipt {
        let mut output = Output::default();
        Node::clone(&self.again).poll(&mut output);
        output.write.expect("the same node does the same").into_receipt()
    }

    /// How many places there are at which a crash can tear it: after the vote, the snapshot, the
    /// truncation, and each entry.
    fn atoms(&self) -> usize {
        3 + self.write.entries().len()
    }
}

impl Site {
    /// A node that has never run. It has heard from all others before, as far as their disks go: so that
    /// what is remembered of those is the same in every state.
    pub fn new(config: Config, members: Membership, quick: bool) -> Self {
        let disk = Durable::empty(members);
        let node = start(&config, &disk);
        Self { node, disk, pending: Vec::new(), config, asked: false, quick }
    }

    /// What it is, as a number.
    pub fn fingerprint(&self) -> u128 {
        let Self { node, disk, pending, config, asked, quick } = self;
        let mut hasher = Xxh3::new();
        node.fingerprint(&mut hasher);
        let Durable { hard_state, incarnation, base, entries, lost, snapshots } = disk;
        (hard_state, incarnation, base, entries, lost, snapshots).hash(&mut hasher);
        (config, asked, quick, pending.len()).hash(&mut hasher);
        for Pending { write, again: _, arrived } in pending {
            (write.hard_state(), write.snapshot(), write.truncate_from()).hash(&mut hasher);
            (write.entries(), write.mark(), arrived).hash(&mut hasher);
        }
        hasher.digest128()
    }

    /// The places at which a crash can cut off what is on its way to the disk.
    pub fn crash_points(&self) -> usize {
        self.pending.iter().map(Pending::atoms).sum::<usize>() + 1
    }

    /// What it does on `act`. An error is a broken invariant.
    pub fn after(&self, act: &Act) -> Result<(Self, Effects), String> {
        let mut site = self.clone();
        let before = self.node.status();
        let mut effects = Effects::default();
        site.take(act, &mut effects);
        site.settle(&mut effects)?;
        // A follower that sticks to its leader ignores requests for its vote, which changes nothing: that is
        // what happens to a message that is lost, too. So nobody here has that patience.
        forget_time(&mut site.node);
        site.node.check_invariants();
        check_step(self, &before, act, &site, &site.node.status(), &mut effects)?;
        Ok((site, effects))
    }

    fn take(&mut self, act: &Act, effects: &mut Effects) {
        match act {
            Act::Deliver(envelope) => self.node.step(NOW, Input::Message(envelope.clone())),
            Act::Ring(alarm) => self.node.step(alarm.rings_at(), Input::Timer),
            Act::Written(place) => self.written(*place),
            Act::Crash(atoms) => {
                effects.torn = self.crash(*atoms);
                effects.restarted = true;
            }
            Act::Propose(command) => {
                let command = Bytes::copy_from_slice(&[*command]);
                let _refused = self.node.propose(NOW, Timestamp(0), vec![command]);
            }
            Act::Read => {
                effects.read_begun = self.node.read(NOW, raft_core::Consistency::Linearizable).ok();
            }
            Act::Change(target) => {
                let _refused = self.node.change_membership(NOW, Timestamp(0), target, None);
            }
            Act::Transfer(to) => {
                let _refused = self.node.transfer_leadership(NOW, Some(*to));
            }
            Act::Cut => self.cut(),
        }
    }

    fn written(&mut self, place: usize) {
        let receipt = self.pending[place].receipt();
        self.pending[place].arrived = true;
        while self.pending.first().is_some_and(|first| first.arrived) {
            let first = self.pending.remove(0);
            self.disk.write(&first.write);
        }
        self.node.step(NOW, Input::Written(receipt));
    }

    /// Loses all that is on its way to the disk but so many atoms of it, and starts again. True if a write
    /// was torn.
    fn crash(&mut self, mut atoms: usize) -> bool {
        let mut torn = false;
        for Pending { write, .. } in std::mem::take(&mut self.pending) {
            let all = 3 + write.entries().len();
            torn |= atoms > 0 && atoms < all;
            tear(&mut self.disk, &write, atoms.min(all));
            atoms -= atoms.min(all);
        }
        // An answer to a question of an earlier life is known by the seed. If none was asked, the same seed
        // will do, and lives that differ in nothing else are the same.
        self.config.seed += u64::from(self.asked);
        self.asked = false;
        self.node = start(&self.config, &self.disk);
        torn
    }

    fn cut(&mut self) {
        let Some(base) = self.node.snapshot_base(self.node.status().applied) else { return };
        let digest = u128::from(base.position.index.0);
        let snapshot = Snapshot { base, length: 1, digest };
        self.disk.keep(snapshot.clone());
        self.node.step(NOW, Input::SnapshotCut(snapshot));
    }

    /// Polls until there is nothing more to do but to wait for the disk and the others. The state machine
    /// and the storage of snapshots are quick.
    fn settle(&mut self, effects: &mut Effects) -> Result<(), String> {
        loop {
            let again = self.node.clone();
            let mut output = Output::default();
            self.node.poll(&mut output);
            if output.is_empty() {
                return Ok(());
            }
            let Output {
                write,
                messages,
                restore,
                committed,
                reads,
                proposals,
                changes,
                snapshot_due: _,
                chunks,
                incoming,
                compacted,
                events,
            } = output;
            for envelope in messages {
                check_promises(&envelope, &self.disk)?;
                self.asked |= is_question(&envelope.message);
                effects.sends.push(envelope);
            }
            if let Some(write) = write {
                self.hand_out(write, again);
            }
            let restored = restore.map(|snapshot| snapshot.index());
            if let Some(index) = committed.last().map(|entry| entry.index).or(restored) {
                self.node.step(NOW, Input::Applied(index));
            }
            if let Some(base) = compacted {
                self.disk.compact(base);
            }
            for order in chunks {
                let bytes = Some(Bytes::from_static(b"s"));
                self.node.step(NOW, Input::ChunkRead { order, bytes });
            }
            incoming.iter().for_each(|order| self.store(order));
            effects.reads.extend(reads);
            effects.fates.extend(proposals.iter().map(|it| (it.first, it.last, it.fate)));
            effects.fates.extend(changes.iter().map(|it| (it.change, it.change, it.fate)));
            effects.events.extend(events);
        }
    }

    fn hand_out(&mut self, write: Write, again: Node) {
        if self.quick {
            self.disk.write(&write);
            self.node.step(NOW, Input::Written(write.into_receipt()));
        } else {
            let (write, again) = (Arc::new(write), Arc::new(again));
            self.pending.push(Pending { write, again, arrived: false });
        }
    }

    fn store(&mut self, order: &Incoming) {
        let (snapshot, bytes) = match order {
            Incoming::Begin(snapshot) => (snapshot.id(), 0),
            Incoming::Chunk { snapshot, offset, bytes } => (*snapshot, offset + bytes.len() as u64),
            Incoming::Abandon(_) => return,
        };
        self.node.step(NOW, Input::SnapshotHeld { snapshot, bytes });
    }

    /// Which of the writes on their way have no receipt yet.
    pub fn unwritten(&self) -> impl Iterator<Item = usize> {
        let open = |(place, pending): (usize, &Pending)| (!pending.arrived).then_some(place);
        self.pending.iter().enumerate().filter_map(open)
    }

    /// Has the log already something else than what the write at this place brings to the disk?
    pub fn is_overwritten(&self, place: usize) -> bool {
        let last = self.pending[place].write.entries().last();
        last.is_some_and(|it| self.position_at(it.index).is_some_and(|now| now != it.position()))
    }

    /// The entries after the base.
    pub fn entries(&self, status: &Status) -> impl Iterator<Item = &Entry> {
        let indexes = status.base.index.0 + 1..=status.last.index.0;
        indexes.map(|index| self.node.entry(LogIndex(index)).expect("a log has no gap"))
    }

    /// What the log says at `index`, if it is known: at the base or behind it.
    pub fn position_at(&self, index: LogIndex) -> Option<LogPosition> {
        let base = self.node.status().base;
        let entry = self.node.entry(index).map(Entry::position);
        entry.or((base.index == index).then_some(base))
    }

    pub fn id(&self) -> NodeId {
        self.config.id
    }

    pub fn leads(&self) -> bool {
        self.node.role().0 == RoleKind::Leader
    }
}

/// First every moment goes to its place, then the first of these passes.
fn forget_time(node: &mut Node) {
    node.forget_time(None);
    node.forget_time(Some(Alarm::Patience));
}

/// Whether an answer will name this life of the sender.
fn is_question(message: &Message) -> bool {
    matches!(message, Message::RequestVote { .. } | Message::ReadIndex { .. })
}

/// The first `atoms` parts of a write, in the order in which they take effect.
fn tear(disk: &mut Durable, write: &Write, atoms: usize) {
    if atoms >= 1 {
        disk.vote(write.hard_state());
    }
    if let Some(snapshot) = write.snapshot().filter(|_| atoms >= 2) {
        disk.install(snapshot);
    }
    if atoms >= 3 {
        disk.append(write.truncate_from(), &write.entries()[..atoms - 3]);
    }
}

/// A life begins. Every other node is known at once to run on its first disk: an old answer of each
/// says so, which has no other effect.
fn start(config: &Config, disk: &Durable) -> Node {
    let mut node = Node::new(config.clone(), disk.restored(), NOW)
        .expect("what a crash leaves can be started");
    let members: Vec<NodeId> = disk.base.membership.nodes().collect();
    for from in members.into_iter().filter(|&id| id != config.id) {
        node.step(NOW, Input::Message(super::action::hello(from, config.id)));
    }
    node.poll(&mut Output::default()); // What it says of those.
    forget_time(&mut node);
    node
}
