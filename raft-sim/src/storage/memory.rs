//! A hand-made storage that completes one write at a time, in any order, as a script says.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{
    ChunkOrder, Entry, HardState, Incarnation, Incoming, LogBase, LogIndex, Membership, Receipt,
    Restored, Snapshot, SnapshotId, Write,
};
use raft_wal::{OpenError, WalError};

use super::Storage;
use super::durable::Durable;

/// A disk that forgets what was not synced. Writes may complete in any order, but a crash keeps only
/// those before which none is missing.
pub struct Disk {
    /// What would survive a crash.
    pub durable: Durable,
    /// The bytes of complete snapshots, the newest last; two are kept.
    contents: Vec<(SnapshotId, Bytes)>,
    /// What has arrived of one that is on its way.
    pub arriving: Option<(Snapshot, Vec<u8>)>,
    /// Handed to the disk, in order, and not durable.
    pub queue: VecDeque<Queued>,
}

/// A write on its way.
pub struct Queued {
    /// The vote that it brings.
    pub hard_state: Option<HardState>,
    /// An arrived snapshot that takes the place of the log.
    pub snapshot: Option<(Snapshot, Bytes)>,
    /// Where it cuts the log.
    pub truncate_from: Option<LogIndex>,
    /// The entries that it brings.
    pub entries: Vec<Entry>,
    /// Gone once it has completed.
    write: Option<Write>,
}

impl Disk {
    /// The empty disk of a node that was told of these members.
    pub fn empty(membership: Membership) -> Self {
        Self {
            durable: Durable::empty(membership),
            contents: Vec::new(),
            arriving: None,
            queue: VecDeque::new(),
        }
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
        self.durable.vote(first.hard_state);
        if let Some((snapshot, bytes)) = first.snapshot {
            self.keep_content(snapshot.id(), bytes);
            self.durable.keep(snapshot);
            self.durable.drop_log_without_snapshot();
        }
        self.durable.append(first.truncate_from, &first.entries);
    }

    fn keep_content(&mut self, id: SnapshotId, bytes: Bytes) {
        assert_eq!(digest(&bytes), id.digest, "a damaged snapshot is taken for whole");
        self.contents.push((id, bytes));
        if self.contents.len() > 2 {
            self.contents.remove(0);
        }
    }

    /// It lost entries that it had, all behind so many of them, and was repaired.
    pub fn damage(&mut self, kept: usize) {
        let disk = &mut self.durable;
        disk.lost = disk.lost.max(disk.last());
        disk.incarnation = Incarnation(disk.incarnation.0 + 1);
        // What is in a snapshot is not in danger.
        let in_snapshot = disk.snapshots.last().map_or(LogIndex(0), Snapshot::index);
        let base = disk.base.position.index.0;
        let kept = kept.max(usize::try_from(in_snapshot.0 - base).expect("a short log"));
        disk.entries.truncate(kept);
    }

    /// The bytes of a snapshot that is held or has arrived.
    fn bytes_of(&self, id: SnapshotId) -> Option<Bytes> {
        let held = self.contents.iter().find(|(it, _)| *it == id).map(|(_, bytes)| bytes.clone());
        let arrived = self.arriving.as_ref().filter(|(it, _)| it.id() == id);
        held.or_else(|| arrived.map(|(_, bytes)| Bytes::from(bytes.clone())))
    }
}

impl Storage for Disk {
    fn durable(&self) -> &Durable {
        &self.durable
    }

    fn pending(&self) -> impl Iterator<Item = &Entry> {
        self.queue.iter().flat_map(|queued| &queued.entries)
    }

    fn start(&mut self) -> Result<Restored, OpenError> {
        self.durable.drop_log_without_snapshot();
        Ok(self.durable.restored())
    }

    fn stop(&mut self) {
        self.queue.clear();
    }

    fn enqueue(&mut self, write: Write) {
        self.queue.push_back(Queued {
            hard_state: write.hard_state(),
            snapshot: write.snapshot().map(|snapshot| {
                let bytes = self.bytes_of(snapshot.id());
                (snapshot.clone(), bytes.expect("it arrived before it is installed"))
            }),
            truncate_from: write.truncate_from(),
            entries: write.entries().to_vec(),
            write: Some(write),
        });
    }

    fn compact(&mut self, base: LogBase) {
        self.durable.compact(base);
    }

    fn rewrite(&mut self, _entries: Vec<Entry>) {
        unreachable!("nothing here calls for a repair");
    }

    fn keep(&mut self, base: LogBase, bytes: &Bytes) -> Result<Snapshot, WalError> {
        let snapshot = Snapshot { base, length: bytes.len() as u64, digest: digest(bytes) };
        self.keep_content(snapshot.id(), bytes.clone());
        self.durable.keep(snapshot.clone());
        Ok(snapshot)
    }

    fn read_chunk(&mut self, order: &ChunkOrder) -> Result<Option<Bytes>, WalError> {
        let held = self.contents.iter().find(|(it, _)| *it == order.snapshot);
        let Some((_, bytes)) = held else { return Ok(None) };
        let number = |value: u64| usize::try_from(value).expect("short snapshots");
        let start = number(order.offset);
        let end = start.saturating_add(number(order.bytes_max)).min(bytes.len());
        Ok((start < end).then(|| bytes.slice(start..end)))
    }

    fn store(&mut self, incoming: Incoming) -> Result<Option<(SnapshotId, u64)>, WalError> {
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
                return Ok(None);
            }
        }
        let held = self.arriving.as_mut().map(|(arriving, held)| {
            if held.len() as u64 == arriving.length && digest(held) != arriving.digest {
                held.clear();
            }
            (arriving.id(), held.len() as u64)
        });
        Ok(held)
    }

    fn content(&mut self, snapshot: &Snapshot) -> Result<Vec<u8>, WalError> {
        let bytes = self.bytes_of(snapshot.id()).expect("it is handed out when it is here");
        Ok(bytes.to_vec())
    }
}

/// FNV-1a over 128 bits.
pub fn digest(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |digest: u128, &byte| {
        (digest ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}
