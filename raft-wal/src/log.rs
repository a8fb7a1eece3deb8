//! The log itself, synchronous and without threads: append, sync, roll.

use std::sync::Arc;

use raft_core::{HardState, Restored, Write};

use crate::config::WalConfig;
use crate::disk::{Disk, NamedFile, random, sync_directory};
use crate::error::{DiskError, OpenError, WalError};
use crate::format::batch::{Encoder, Frame, batch_bytes};
use crate::format::header::{Link, SegmentHeader};
use crate::format::record::{Record, entry_bytes, record_bytes};
use crate::format::{BLOCK_BYTES, SMALL_BATCH_BYTES, round_up};
use crate::identity::Identity;
use crate::recovery::{self, RecoveryReport, Tail};
use crate::spare::{Spare, SpareJob};
use crate::state::LogState;

/// A log on a [`Disk`], used by one thread. [`Wal`](crate::Wal) runs it on a thread of its own; a
/// simulation calls it directly.
///
/// Invariants: `durable <= end`, both at sector boundaries of the current segment; behind `end`
/// there are only zeros and room for a seal; every earlier segment is sealed and durable.
pub struct Log {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    write_bytes_max: u64,
    incarnation: u128,
    state: LogState,
    segment: Segment,
    next_id: u64,
    spare: Option<Spare>,
    /// A spare was ordered for the current segment. Once per segment: a full disk is not asked over
    /// and over.
    spare_ordered: bool,
    spares: u64,
    poisoned: bool,
    /// Where batches are built; kept for its capacity.
    buffer: Vec<u8>,
}

/// A log that was just opened, and what it remembers.
pub struct OpenedLog {
    /// To write to.
    pub log: Log,
    /// For [`raft_core::Node::new`](raft_core).
    pub restored: Restored,
    /// Whose log it is.
    pub identity: Identity,
    /// What recovery read and dropped.
    pub report: RecoveryReport,
}

/// The segment that is written to.
struct Segment {
    file: NamedFile,
    id: u64,
    salt: u64,
    /// Its length.
    bytes: u64,
    /// Where the next batch goes.
    end: u64,
    /// Everything before here survives a power cut.
    durable: u64,
    sequence: u64,
    chain: u32,
    /// Is the last batch empty? Then the one before it is known to have been durable.
    marked: bool,
}

impl Segment {
    fn frame(&self) -> Frame {
        Frame {
            salt: self.salt,
            segment: self.id,
            offset: self.end,
            sequence: self.sequence,
            previous_chain: self.chain,
            durable_offset: self.durable,
        }
    }

    /// Writes the finished batch to the end.
    fn put(&mut self, batch: &[u8], chain: u32) -> Result<(), DiskError> {
        self.file.write(batch, self.end)?;
        self.end += batch.len() as u64;
        self.sequence += 1;
        self.chain = chain;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.file.sync()?;
        self.durable = self.end;
        Ok(())
    }
}

impl Log {
    /// Opens the log of `config` on a disk that nobody else uses, and creates it if the disk is
    /// empty. `config.dir` only serves messages here.
    ///
    /// # Errors
    /// See [`OpenError`]. Corruption is never repaired by forgetting.
    pub fn open(disk: Arc<dyn Disk>, config: &WalConfig) -> Result<OpenedLog, OpenError> {
        config.check()?;
        recovery::open(disk, config)
    }

    /// Continues a recovered log in a segment of its own: what the last run left behind the last
    /// seal is written again and synced. It was read, but a sync of it may have failed in the life
    /// before, and then only the memory of the system holds it.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        config: &WalConfig,
        incarnation: u128,
        tail: &Tail,
        state: LogState,
    ) -> Result<Self, DiskError> {
        let id = tail.next_id;
        let salt = random(disk.as_ref())?;
        let records =
            |batch: &[_]| batch.iter().map(|(_, record): &(_, Record)| record.bytes()).sum();
        let batches: u64 = tail.batches.iter().map(|batch| batch_bytes(records(batch))).sum();
        let needed = SegmentHeader::bytes(&tail.header.membership) + batches + SMALL_BATCH_BYTES;
        let bytes = segment_file_bytes(config.segment_bytes, needed);
        let spare = SpareJob { disk: Arc::clone(&disk), number: 0, bytes }.prepare()?;
        let header =
            SegmentHeader { salt, incarnation, id, file_bytes: bytes, ..tail.header.clone() };
        let mut segment = begin(spare, &header)?;
        let mut buffer = Vec::new();
        for batch in tail.batches.iter().map(Vec::as_slice).chain([[].as_slice()]) {
            // The file gets its name only when all of it is durable, so each batch may say so of
            // those before it. The last, empty one says it of all.
            segment.durable = segment.end;
            let mut encoder = Encoder::new(&mut buffer, segment.frame());
            batch.iter().for_each(|(group, record)| encoder.record(*group, record));
            let chain = encoder.finish();
            segment.put(&buffer, chain)?;
        }
        segment.sync()?;
        segment.marked = true;
        publish(disk.as_ref(), &mut segment.file, &header)?;
        Ok(Self {
            disk,
            segment_bytes: config.segment_bytes,
            write_bytes_max: config.write_bytes_max,
            incarnation,
            state,
            segment,
            next_id: id + 1,
            spare: None,
            spare_ordered: false,
            spares: 1,
            poisoned: false,
            buffer,
        })
    }

    /// Appends these writes, in this order, as one batch. They are durable after the next [`sync`]
    /// that succeeds, all of them or, if the power fails before, possibly none.
    ///
    /// # Errors
    /// If the disk fails or a write does not continue the log. The log is then poisoned.
    ///
    /// [`sync`]: Log::sync
    pub fn append(&mut self, writes: &[Write]) -> Result<(), WalError> {
        self.unless_poisoned(|log| log.try_append(writes))
    }

    /// Makes everything appended so far durable. Costs nothing if it is already.
    ///
    /// # Errors
    /// If the disk fails. The log is then poisoned, and the file never synced again.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.unless_poisoned(|log| Ok(log.sync_segment()?))
    }

    /// Syncs, and leaves an empty batch behind that shows what was durable, so that damage to
    /// the last batch is later told from a torn write.
    ///
    /// # Errors
    /// If the disk fails, or did before.
    pub fn close(mut self) -> Result<(), WalError> {
        self.unless_poisoned(|log| {
            log.sync_segment()?;
            if log.segment.marked || !log.has_room(SMALL_BATCH_BYTES) {
                return Ok(());
            }
            let encoder = Encoder::new(&mut log.buffer, log.segment.frame());
            let chain = encoder.finish();
            log.segment.put(&log.buffer, chain)?;
            Ok(log.sync_segment()?)
        })
    }

    /// An order to prepare the next segment, as soon as the current one is half full and if none
    /// was given yet. To be run beside the log; a log whose orders nobody runs prepares its
    /// segments itself, and takes longer when it rolls.
    pub fn spare_wanted(&mut self) -> Option<SpareJob> {
        let wanted = self.spare.is_none()
            && !self.spare_ordered
            && !self.poisoned
            && self.segment.end >= self.segment.bytes / 2;
        wanted.then(|| {
            self.spare_ordered = true;
            self.spare_job(self.segment_bytes)
        })
    }

    /// Takes a prepared segment for the next roll.
    pub fn offer_spare(&mut self, spare: Spare) {
        self.spare = Some(spare);
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// The vote as of the last write.
    pub(crate) fn hard_state(&self) -> HardState {
        self.state.hard_state()
    }

    /// Bytes that a write takes in a batch.
    pub(crate) fn write_bytes(write: &Write) -> u64 {
        let hard_state = if write.hard_state().is_some() { record_bytes(8) } else { 0 };
        let truncation = if write.truncate_from().is_some() { record_bytes(0) } else { 0 };
        hard_state + truncation + write.entries().iter().map(entry_bytes).sum::<u64>()
    }

    fn unless_poisoned<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        let result = act(self);
        self.poisoned = result.is_err();
        result
    }

    fn try_append(&mut self, writes: &[Write]) -> Result<(), WalError> {
        let records: u64 = writes.iter().map(Self::write_bytes).sum();
        if records == 0 {
            return Ok(());
        }
        if records > self.write_bytes_max {
            let (bytes, max) = (records, self.write_bytes_max);
            let reason = format!("a write of {bytes} bytes, with write_bytes_max at {max}");
            return Err(WalError::Refused { reason });
        }
        let bytes = batch_bytes(records);
        if !self.has_room(bytes) {
            self.roll(bytes)?;
        }
        for write in writes {
            self.state.apply_write(write).map_err(|reason| WalError::Refused { reason })?;
        }
        let mut encoder = Encoder::new(&mut self.buffer, self.segment.frame());
        for write in writes {
            encode(&mut encoder, write);
        }
        let chain = encoder.finish();
        debug_assert_eq!(self.buffer.len() as u64, bytes, "the size was computed beforehand");
        self.segment.put(&self.buffer, chain)?;
        self.segment.marked = false;
        // One huge write does not keep its memory for ever.
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    fn sync_segment(&mut self) -> Result<(), DiskError> {
        if self.segment.durable == self.segment.end {
            return Ok(());
        }
        self.segment.sync()
    }

    /// Is there room for a batch of this many bytes, and for the seal behind it?
    fn has_room(&self, bytes: u64) -> bool {
        self.segment.end + bytes + SMALL_BATCH_BYTES <= self.segment.bytes
    }

    /// Goes over to a new segment with room for a batch of this many bytes.
    ///
    /// The order carries the safety: all data durable, then the successor durable under its name,
    /// then the seal, and only then data in the successor. So a segment with data has a sealed
    /// predecessor, a seal has a successor, and whatever is missing is missed.
    fn roll(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.sync_segment()?;
        let membership = self.state.membership().clone();
        let needed = SegmentHeader::bytes(&membership) + bytes;
        let spare = self.take_spare(segment_file_bytes(self.segment_bytes, needed))?;
        let (base, base_timestamp) = self.state.last();
        let id = self.next_id;
        let Segment { id: previous, end, chain, .. } = self.segment;
        let header = SegmentHeader {
            salt: random(self.disk.as_ref())?,
            incarnation: self.incarnation,
            id,
            file_bytes: spare.bytes,
            first_id: id,
            previous: Some(Link { id: previous, end, chain }),
            hard_state: self.state.hard_state(),
            base,
            base_timestamp,
            membership,
        };
        let mut next = begin(spare, &header)?;
        next.sync()?;
        publish(self.disk.as_ref(), &mut next.file, &header)?;

        let mut encoder = Encoder::new(&mut self.buffer, self.segment.frame());
        encoder.seal(self.state.group(), id);
        let chain = encoder.finish();
        self.segment.put(&self.buffer, chain)?;
        self.segment.sync()?;

        self.segment = next;
        self.next_id = id + 1;
        self.spare_ordered = false;
        Ok(())
    }

    fn take_spare(&mut self, bytes: u64) -> Result<Spare, DiskError> {
        match self.spare.take_if(|spare| spare.bytes >= bytes) {
            Some(spare) => Ok(spare),
            None => self.spare_job(bytes).prepare(),
        }
    }

    fn spare_job(&mut self, bytes: u64) -> SpareJob {
        let number = self.spares;
        self.spares += 1;
        SpareJob { disk: Arc::clone(&self.disk), number, bytes }
    }
}

/// How much of the batch buffer stays allocated between batches.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// The length of a segment that needs this much, its seal aside.
fn segment_file_bytes(segment_bytes: u64, needed: u64) -> u64 {
    round_up(needed + SMALL_BATCH_BYTES, BLOCK_BYTES).max(segment_bytes)
}

/// Writes the header into a prepared segment; not yet durable.
fn begin(spare: Spare, header: &SegmentHeader) -> Result<Segment, DiskError> {
    let Spare { file, bytes } = spare;
    let encoded = header.encode();
    file.write(&encoded, 0)?;
    let end = encoded.len() as u64;
    Ok(Segment {
        file,
        id: header.id,
        salt: header.salt,
        bytes,
        end,
        durable: end,
        sequence: 0,
        chain: SegmentHeader::chain(&encoded),
        marked: false,
    })
}

/// Gives a durable segment the name under which recovery believes it.
fn publish(disk: &dyn Disk, file: &mut NamedFile, header: &SegmentHeader) -> Result<(), DiskError> {
    file.rename(disk, recovery::segment_name(header.base.index, header.id))?;
    sync_directory(disk)
}

/// A write as records: the vote first, so that no entry of a term is there without its term.
fn encode(encoder: &mut Encoder<'_>, write: &Write) {
    let group = write.group();
    if let Some(state) = write.hard_state() {
        encoder.hard_state(group, state);
    }
    if let Some(from) = write.truncate_from() {
        encoder.truncate(group, from);
    }
    for entry in write.entries() {
        encoder.entry(group, entry);
    }
}
