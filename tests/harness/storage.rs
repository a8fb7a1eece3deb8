//! What a member of the test cluster keeps: a disk that forgets what was not synced, with a log, a vote
//! record and snapshots, and the state machine in memory.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft_core::{
    Entry, HardState, Incarnation, Incoming, LogBase, LogIndex, LogPosition, Membership, Receipt,
    Restored, Snapshot, SnapshotId, Write,
};

/// A disk that forgets what was not synced. Writes may complete in any order, but a crash keeps only
/// those before which none is missing.
pub struct Disk {
    /// The vote record that survives a crash.
    pub hard_state: HardState,
    /// Which disk it is.
    pub incarnation: Incarnation,
    /// What the log that survives a crash stands on.
    pub base: LogBase,
    /// The log that survives a crash.
    pub entries: Vec<Entry>,
    /// What this disk once had and lost.
    pub lost: LogPosition,
    /// Complete snapshots, the newest last; two are kept.
    pub snapshots: Vec<(Snapshot, Bytes)>,
    /// What has arrived of one that is on its way.
    pub arriving: Option<(Snapshot, Vec<u8>)>,
    /// Handed to the disk, in order, and not durable.
    pub queue: VecDeque<Queued>,
}

/// A write on its way.
pub struct Queued {
    pub hard_state: Option<HardState>,
    /// An arrived snapshot that takes the place of the log.
    pub snapshot: Option<(Snapshot, Bytes)>,
    pub truncate_from: Option<LogIndex>,
    pub entries: Vec<Entry>,
    /// Gone once it has completed.
    write: Option<Write>,
}

impl Disk {
    /// The empty disk of a node that was told of these members.
    pub fn empty(membership: Membership) -> Self {
        Self {
            hard_state: HardState::default(),
            incarnation: Incarnation::default(),
            base: LogBase::initial(membership),
            entries: Vec::new(),
            lost: LogPosition::ZERO,
            snapshots: Vec::new(),
            arriving: None,
            queue: VecDeque::new(),
        }
    }

    /// What a node finds at its start.
    pub fn restore(&mut self) -> Restored {
        self.drop_log_without_snapshot();
        Restored {
            hard_state: self.hard_state,
            incarnation: self.incarnation,
            base: self.base.clone(),
            entries: self.entries.clone(),
            snapshot: self.snapshots.last().map(|(snapshot, _)| snapshot.clone()),
            lost: self.lost,
        }
    }

    pub fn enqueue(&mut self, write: Write) {
        self.queue.push_back(Queued {
            hard_state: write.hard_state(),
            snapshot: write.snapshot().map(|snapshot| {
                let bytes = self.arrived(snapshot).expect("it arrived before it is installed");
                (snapshot.clone(), Bytes::from(bytes))
            }),
            truncate_from: write.truncate_from(),
            entries: write.entries().to_vec(),
            write: Some(write),
        });
    }

    /// Completes the write at this place in the queue, if there is one that has not completed.
    pub fn complete(&mut self, place: usize) -> Option<Receipt> {
        let receipt = self.queue.get_mut(place)?.write.take()?.into_receipt();
        while self.queue.front().is_some_and(|queued| queued.write.is_none()) {
            self.persist_first();
        }
        Some(receipt)
    }

    /// The first write of the queue is on the disk for good.
    pub fn persist_first(&mut self) {
        let Some(first) = self.queue.pop_front() else { return };
        self.hard_state = first.hard_state.unwrap_or(self.hard_state);
        if let Some((snapshot, bytes)) = first.snapshot {
            self.keep(snapshot, bytes);
            self.drop_log_without_snapshot();
        }
        if let Some(from) = first.truncate_from {
            self.entries.retain(|entry| entry.index < from);
        }
        // What was compacted meanwhile does not come back.
        let base = self.base.position.index;
        self.entries.extend(first.entries.into_iter().filter(|entry| entry.index > base));
    }

    pub fn keep(&mut self, snapshot: Snapshot, bytes: Bytes) {
        assert_eq!(digest(&bytes), snapshot.digest, "a damaged snapshot is taken for whole");
        self.snapshots.push((snapshot, bytes));
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
    }

    /// The rule for the storage after a crash: a log that does not contain the position of the snapshot
    /// is no use.
    fn drop_log_without_snapshot(&mut self) {
        let Some((snapshot, _)) = self.snapshots.last() else { return };
        if self.term_at(snapshot.index()) != Some(snapshot.base.position.term.0) {
            self.base = snapshot.base.clone();
            self.entries.clear();
        }
    }

    /// Entries up to the base are not needed any more.
    pub fn compact(&mut self, base: LogBase) {
        self.entries.retain(|entry| entry.index > base.position.index);
        self.base = base;
    }

    pub fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base.position, Entry::position)
    }

    fn term_at(&self, index: LogIndex) -> Option<u64> {
        let base = self.base.position;
        if index == base.index {
            return Some(base.term.0);
        }
        let slot = usize::try_from(index.0.checked_sub(base.index.0)?).ok()?;
        self.entries.get(slot - 1).map(|entry| entry.term.0)
    }

    /// Is this committed entry, and so all before it, on the disk, as an entry or in a snapshot?
    pub fn holds(&self, position: LogPosition) -> bool {
        position.index <= self.base.position.index
            || self.term_at(position.index) == Some(position.term.0)
            || self.snapshots.last().is_some_and(|(it, _)| it.index() >= position.index)
    }

    /// The bytes of a snapshot from an offset on, at most so many.
    pub fn read_chunk(&self, id: SnapshotId, offset: u64, bytes_max: u64) -> Option<Bytes> {
        let (_, bytes) = self.snapshots.iter().find(|(snapshot, _)| snapshot.id() == id)?;
        let start = usize::try_from(offset).ok()?;
        let end = start.saturating_add(usize::try_from(bytes_max).ok()?).min(bytes.len());
        (start < end).then(|| bytes.slice(start..end))
    }

    /// The bytes of a snapshot that has arrived, installed already or not.
    pub fn arrived(&self, snapshot: &Snapshot) -> Option<Vec<u8>> {
        let installed = self.snapshots.iter().find(|(it, _)| it == snapshot);
        let installed = installed.map(|(_, bytes)| bytes.to_vec());
        let arrived = self.arriving.as_ref().filter(|(it, _)| it == snapshot);
        installed.or_else(|| arrived.map(|(_, bytes)| bytes.clone()))
    }

    /// Does what the node wants with a snapshot that is on its way; how much of it is here then.
    pub fn store(&mut self, incoming: Incoming) -> Option<(SnapshotId, u64)> {
        match incoming {
            Incoming::Begin(snapshot) => {
                if self.arriving.as_ref().is_none_or(|(arriving, _)| *arriving != snapshot) {
                    self.arriving = Some((snapshot, Vec::new()));
                }
            }
            Incoming::Chunk { snapshot, offset, bytes } => {
                let (arriving, held) = self.arriving.as_mut().expect("begun before a chunk comes");
                assert_eq!(arriving.id(), snapshot, "a chunk of another snapshot");
                assert_eq!(held.len() as u64, offset, "a chunk that does not follow");
                held.extend_from_slice(&bytes);
            }
            Incoming::Abandon(id) => {
                self.arriving.take_if(|(arriving, _)| arriving.id() == id);
                return None;
            }
        }
        let (arriving, held) = self.arriving.as_mut()?;
        if held.len() as u64 == arriving.length && digest(held) != arriving.digest {
            held.clear();
        }
        Some((arriving.id(), held.len() as u64))
    }
}

/// A state machine: all that it remembers of its commands is a digest.
#[derive(Default)]
pub struct Machine {
    /// The digest as of each index since the last that was reported as applied.
    states: BTreeMap<LogIndex, u64>,
}

impl Machine {
    /// As the storage restores it.
    pub fn restored(disk: &Disk) -> Self {
        let mut machine = Self::default();
        if let Some((_, bytes)) = disk.snapshots.last() {
            machine.restore(bytes);
        }
        machine
    }

    pub fn apply(&mut self, entry: &Entry) {
        let before = self.states.last_key_value().map_or(0, |(_, state)| *state);
        self.states.insert(entry.index, apply(before, entry));
    }

    /// The digest as of an index.
    pub fn state_at(&self, index: LogIndex) -> Option<u64> {
        self.states.get(&index).copied()
    }

    pub fn forget_before(&mut self, index: LogIndex) {
        self.states = self.states.split_off(&index);
    }

    /// The bytes of a snapshot; their length varies.
    pub fn snapshot_at(&self, index: LogIndex) -> Option<Bytes> {
        let state = self.state_at(index)?;
        let padding = "-".repeat(usize::try_from(index.0 % 97).expect("less than 97"));
        Some(Bytes::from(format!("{} {state} {padding}", index.0)))
    }

    pub fn restore(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("a snapshot of ours is text");
        let mut words = text.split(' ').map(str::parse::<u64>);
        let (index, state) = (words.next(), words.next());
        let (Some(Ok(index)), Some(Ok(state))) = (index, state) else {
            panic!("not a snapshot of ours: {text}");
        };
        self.states = BTreeMap::from([(LogIndex(index), state)]);
    }
}

/// What an entry makes of a state.
pub fn apply(state: u64, entry: &Entry) -> u64 {
    entry.to_string().bytes().fold(state, |state, byte| super::simulation::fold(state, byte.into()))
}

/// FNV-1a over 128 bits.
pub fn digest(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |digest: u128, &byte| {
        (digest ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}
