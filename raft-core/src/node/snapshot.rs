//! Snapshots (§7): cutting one compacts the log; a follower whose log ends before the leader's begins
//! fetches one, at its own pace: InstallSnapshot names it → SnapshotRequest by offset → SnapshotChunk →
//! the storage has it → `install`.
//!
//! The transfer belongs to the node and not to a role: it outlives elections, and goes on with whoever
//! holds the same content. A snapshot is committed state, so it is right to install it no matter who leads
//! when the last chunk arrives, unless the log has got there by itself meanwhile.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::role::{Follower, Leader, Role};
use super::{Alarm, Forgetting, Node};
use crate::configurations::Configurations;
use crate::event::{Event, Ignored};
use crate::message::Message;
use crate::output::Output;
use crate::progress::Pace;
use crate::snapshot::{ChunkOrder, Held, Incoming, LogBase, Snapshot, SnapshotId};
use crate::types::{Instant, LogIndex, LogPosition, NodeId};

/// So many times the node asks for a piece again before it takes another snapshot that it is offered.
const PATIENCE: u32 = 4;

/// What a node has of snapshots, and what it does with them.
#[derive(Clone, Debug, Hash)]
pub(super) struct Snapshots {
    /// In the storage, ready to be served.
    pub(super) held: Held,
    /// On its way here.
    receiving: Option<Receiving>,
    /// Installed, to be handed to the storage with the next write.
    pub(super) unwritten: Option<Snapshot>,
    /// Installed, to be handed to the state machine.
    restore: Option<Snapshot>,
    /// The last index at which a new snapshot was due.
    asked_at: LogIndex,
    /// Chunks that peers wait for, at most one for each, and those of them that are being read.
    wanted: Vec<ChunkOrder>,
    reading: Vec<ChunkOrder>,
    incoming: Vec<Incoming>,
    compacted: Option<LogBase>,
}

/// A snapshot on its way here.
#[derive(Clone, Debug, Hash)]
struct Receiving {
    snapshot: Snapshot,
    source: NodeId,
    /// How much of it the storage has; unknown until the storage has said so.
    held: Option<u64>,
    /// A chunk is on its way to the storage.
    storing: bool,
    /// When to ask for the next chunk, for the first time or again.
    ask_due: Instant,
    /// When something last came of it.
    last_progress: Instant,
}

impl Snapshots {
    pub(super) fn new(snapshot: Option<Snapshot>) -> Self {
        Self {
            held: Held::new(snapshot),
            receiving: None,
            unwritten: None,
            restore: None,
            asked_at: LogIndex(0),
            wanted: Vec::new(),
            reading: Vec::new(),
            incoming: Vec::new(),
            compacted: None,
        }
    }

    /// When the next chunk is to be asked for.
    pub(super) fn ask_due(&self) -> Instant {
        let due = |receiving: &Receiving| receiving.asks().then_some(receiving.ask_due);
        self.receiving.as_ref().and_then(due).unwrap_or(Instant::FAR_FUTURE)
    }

    pub(super) fn forget_time(&mut self, forgetting: Forgetting, timeout: Duration) {
        if let Some(receiving) = &mut self.receiving {
            forgetting.due(&mut receiving.ask_due, Alarm::Heartbeat);
            forgetting.since(&mut receiving.last_progress, timeout * PATIENCE, Alarm::Rest);
        }
    }

    fn abandon(&mut self) {
        if let Some(receiving) = self.receiving.take() {
            self.incoming.push(Incoming::Abandon(receiving.snapshot.id()));
        }
    }

    fn take_outputs(&mut self, output: &mut Output) {
        let Self { wanted, reading, incoming, compacted, .. } = self;
        wanted.retain(|order| {
            let busy = reading.iter().any(|open| open.to == order.to);
            if !busy {
                reading.push(*order);
                output.chunks.push(*order);
            }
            busy
        });
        output.incoming.append(incoming);
        if compacted.is_some() {
            output.compacted = compacted.take();
        }
    }

    /// Hands out an installed snapshot to be restored, once its write is handed out. False while it must
    /// wait for that: what is committed behind it has to wait as well.
    pub(super) fn hand_out_restore(&mut self, output: &mut Output) -> bool {
        if self.unwritten.is_some() {
            return false;
        }
        if let Some(snapshot) = self.restore.take() {
            // What was not applied before is part of the snapshot.
            output.committed.clear();
            output.restore = Some(snapshot);
        }
        true
    }
}

impl Receiving {
    /// Is it for the peer to act next?
    fn asks(&self) -> bool {
        self.held.is_some() && !self.storing
    }
}

// Cutting a snapshot, and compacting the log.
impl Node {
    /// What a snapshot of the state machine as of `index` is stored with.
    pub(super) fn base_at(&self, index: LogIndex) -> Option<LogBase> {
        // What is not durable here must not be in a snapshot that is: after a crash the snapshot would be
        // of a term that the vote record has never seen.
        let known = index > LogIndex(0) && index <= self.applied && index <= self.log.durable();
        let term = self.log.term_at(index).filter(|_| known)?;
        let (membership_index, membership) = self.configurations.as_of(index);
        Some(LogBase {
            position: LogPosition::new(term, index),
            timestamp: self.log.timestamp_at(index)?,
            membership: membership.clone(),
            membership_index,
        })
    }

    /// The state machine's own snapshot is in the storage.
    pub(super) fn on_snapshot_cut(&mut self, snapshot: Snapshot) {
        let index = snapshot.index();
        let newer = index > self.snapshots.held.index();
        if !newer || self.base_at(index).as_ref() != Some(&snapshot.base) {
            return self.ignore(None, Ignored::BadSnapshot);
        }
        self.snapshots.held.push(snapshot);
        // Some of what it contains stays, for followers that were away for a moment, and all that is not
        // on the disk as it is here.
        let to = self.log.trailing_from(index, self.config.trailing_bytes_max);
        let to = to.min(self.log.durable());
        if to > self.log.base().index {
            self.snapshots.compacted = self.base_at(to);
            self.log.compact(to);
            self.configurations.compact(to);
            self.events.push(Event::Compacted { base: self.log.base() });
        }
    }

    /// Everything about snapshots that is to be done now.
    pub(super) fn poll_snapshots(&mut self, output: &mut Output) {
        self.ask_for_chunk();
        self.snapshots.take_outputs(output);
        let since = self.snapshots.held.index().max(self.snapshots.asked_at);
        let possible = self.applied.min(self.log.durable());
        let grown = self.log.bytes_between(since, possible);
        if grown >= self.config.snapshot_after_bytes {
            self.snapshots.asked_at = possible;
            output.snapshot_due = true;
        }
    }
}

// Sending one.
impl Node {
    /// A peer asks for a piece of a snapshot.
    pub(super) fn on_snapshot_request(&mut self, from: NodeId, id: SnapshotId, offset: u64) {
        let known = match &mut self.role {
            Role::Leader(Leader { peers, .. }) => {
                let peer = peers.iter_mut().find(|peer| peer.id == from);
                if let Some(Pace::Snapshot { held, .. }) = peer.map(|peer| &mut peer.pace) {
                    *held = offset;
                }
                peers.iter().any(|peer| peer.id == from)
            }
            _ => self.membership().contains(from),
        };
        if !known {
            return self.ignore(Some(from), Ignored::NotAMember);
        }
        if !self.snapshots.held.contains(id) || offset >= id.length {
            self.send(from, Message::SnapshotChunk { snapshot: id, offset, bytes: None });
            return self.ignore(Some(from), Ignored::StaleSnapshot);
        }
        let bytes_max = self.config.snapshot_chunk_bytes_max.min(id.length - offset);
        self.snapshots.wanted.retain(|order| order.to != from);
        self.snapshots.wanted.push(ChunkOrder { to: from, snapshot: id, offset, bytes_max });
    }

    /// A piece was read for a peer.
    pub(super) fn on_chunk_read(&mut self, order: &ChunkOrder, bytes: Option<Bytes>) {
        let reading = &mut self.snapshots.reading;
        let Some(place) = reading.iter().position(|open| open == order) else {
            return self.ignore(None, Ignored::StaleSnapshot);
        };
        reading.remove(place);
        let bytes = bytes.filter(|bytes| !bytes.is_empty());
        let ChunkOrder { to, snapshot, offset, bytes_max: _ } = *order;
        self.send(to, Message::SnapshotChunk { snapshot, offset, bytes });
    }
}

// Receiving one.
impl Node {
    /// The leader's log begins behind the end of this one.
    pub(super) fn on_install_snapshot(&mut self, from: NodeId, snapshot: Snapshot) {
        if matches!(self.role, Role::Leader(_)) || self.leader().is_some_and(|id| id != from) {
            return self.ignore(Some(from), Ignored::SecondLeader);
        }
        self.hear_from_leader(from);
        if snapshot.index() <= self.commit_index || self.log.contains(snapshot.base.position) {
            return self.pass_over(snapshot.base.position);
        }
        let (now, id) = (self.now, snapshot.id());
        let patience = self.config.election_timeout * PATIENCE;
        match &mut self.snapshots.receiving {
            // The same content, perhaps from another leader: it goes on where it stopped.
            Some(receiving) if receiving.snapshot == snapshot => {
                if receiving.source != from {
                    receiving.source = from;
                    receiving.ask_due = now;
                }
            }
            // Another content, but the one before is still coming: what is there is not thrown away.
            // While it is for the storage to act, nobody has stopped sending.
            Some(receiving)
                if !receiving.asks() || now.since(receiving.last_progress) < patience => {}
            Some(_) | None => {
                self.snapshots.abandon();
                self.snapshots.incoming.push(Incoming::Begin(snapshot.clone()));
                self.snapshots.receiving = Some(Receiving {
                    snapshot,
                    source: from,
                    held: None,
                    storing: false,
                    ask_due: now,
                    last_progress: now,
                });
                self.events.push(Event::SnapshotFetched { snapshot: id, from });
            }
        }
    }

    fn ask_for_chunk(&mut self) {
        let (now, commit) = (self.now, self.commit_index);
        if self.snapshots.receiving.as_ref().is_some_and(|it| it.snapshot.index() <= commit) {
            return self.snapshots.abandon(); // The log has got there by itself.
        }
        let Some(receiving) = &mut self.snapshots.receiving else {
            return;
        };
        if !receiving.asks() || receiving.ask_due > now {
            return;
        }
        receiving.ask_due = now.after(self.config.election_timeout);
        let (to, snapshot) = (receiving.source, receiving.snapshot.id());
        let offset = receiving.held.unwrap_or(0);
        self.send(to, Message::SnapshotRequest { snapshot, offset });
    }

    /// A piece arrived, or the news that there is none.
    pub(super) fn on_snapshot_chunk(
        &mut self,
        from: NodeId,
        id: SnapshotId,
        offset: u64,
        bytes: Option<Bytes>,
    ) {
        let now = self.now;
        let expected = |receiving: &&mut Receiving| {
            receiving.snapshot.id() == id && receiving.held == Some(offset) && !receiving.storing
        };
        let Some(receiving) = self.snapshots.receiving.as_mut().filter(expected) else {
            return self.ignore(Some(from), Ignored::StaleSnapshot);
        };
        let Some(bytes) = bytes else {
            // Gone. Whoever leads has another, and will say so.
            if receiving.source == from {
                self.snapshots.abandon();
            }
            return;
        };
        if bytes.is_empty() || bytes.len() as u64 > id.length - offset {
            return self.ignore(Some(from), Ignored::Malformed);
        }
        receiving.storing = true;
        receiving.last_progress = now;
        self.snapshots.incoming.push(Incoming::Chunk { snapshot: id, offset, bytes });
    }

    /// The storage has so much of it.
    pub(super) fn on_snapshot_held(&mut self, id: SnapshotId, bytes: u64) {
        let now = self.now;
        let this = |receiving: &&mut Receiving| receiving.snapshot.id() == id;
        let Some(receiving) = self.snapshots.receiving.as_mut().filter(this) else {
            return self.ignore(None, Ignored::StaleSnapshot);
        };
        let stored = receiving.storing;
        if receiving.held.is_some_and(|held| bytes < held || (stored && bytes == held)) {
            // Not what its name says: discarded. The leader's next offer begins anew, with a newer one if
            // there is one.
            return self.snapshots.abandon();
        }
        receiving.held = Some(bytes.min(id.length));
        receiving.storing = false;
        receiving.ask_due = now;
        receiving.last_progress = now;
        if bytes >= id.length {
            self.install_received();
        }
    }

    /// All of it is here and verified.
    fn install_received(&mut self) {
        let Some(position) = self.snapshots.receiving.as_ref().map(|it| it.snapshot.base.position)
        else {
            return;
        };
        let overtaken = position.index <= self.commit_index || self.log.contains(position);
        if overtaken || matches!(self.role, Role::Leader(_)) {
            self.snapshots.abandon();
            return self.pass_over(position);
        }
        if let Some(Receiving { snapshot, .. }) = self.snapshots.receiving.take() {
            self.install(snapshot);
        }
    }

    /// The log contains all that a snapshot does: nothing is replaced, nothing regresses. What a
    /// snapshot contains is committed, so the log is known to be right up to there (§7: entries that
    /// follow are retained).
    fn pass_over(&mut self, position: LogPosition) {
        if position.index > self.commit_index && self.log.contains(position) {
            self.set_commit_index(position.index);
        }
        let commit = self.commit_index;
        if let Role::Follower(Follower { leader: Some(leader), .. }) = &mut self.role {
            // Every leader has what is committed (§5.4): so much of the logs is the same.
            leader.verified = leader.verified.max(commit);
            leader.reply_due = true;
        }
    }

    /// The snapshot takes the place of the whole log (§7).
    fn install(&mut self, snapshot: Snapshot) {
        let LogBase { position, timestamp, membership, membership_index } = snapshot.base.clone();
        let agreed = self.commit_index;
        self.settle_proposals_by_snapshot(position);
        self.settle_change_by_snapshot(position);
        self.log.reset(position, timestamp, agreed);
        self.outbox.truncate_from(agreed.next());
        let changed = *self.membership() != membership;
        self.configurations = Configurations::new(membership_index, membership, []);
        if changed {
            self.announce_membership();
        }
        self.events.push(Event::SnapshotInstalled { snapshot: snapshot.id() });
        self.snapshots.held.push(snapshot.clone());
        self.snapshots.unwritten = Some(snapshot.clone());
        self.snapshots.compacted = None; // The storage drops more than that along with the write.
        self.snapshots.restore = Some(snapshot);
        self.handed_out = position.index;
        self.set_commit_index(position.index);
        if let Role::Follower(Follower { leader: Some(leader), .. }) = &mut self.role {
            leader.verified = leader.verified.max(position.index);
        }
    }
}
