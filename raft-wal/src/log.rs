//! The log itself, synchronous and without threads: append, sync, roll; `drop.rs` and `repair.rs` have
//! what else it does, `segment.rs` the file that it writes to.

use std::collections::VecDeque;
use std::sync::Arc;

use raft_core::{Entry, GroupId, HardState, Payload, Restored, Write};

use crate::config::WalConfig;
use crate::disk::{Disk, random};
use crate::error::{DiskError, OpenError, WalError};
use crate::format::SMALL_BATCH_BYTES;
use crate::format::batch::{Encoder, batch_bytes};
use crate::format::header::{Link, SegmentHeader};
use crate::format::record::{Record, base_bytes, entry_bytes, record_bytes};
use crate::identity::Identity;
use crate::recovery::plan::{Continued, Sealed};
use crate::recovery::{self, RecoveryReport};
use crate::snapshots::SnapshotStore;
use crate::spare::{Spare, SpareJob};
use crate::state::LogState;

mod drop;
mod repair;
mod segment;

pub use repair::Repair;
use segment::{Segment, begin, publish, reserve_bytes, segment_file_bytes, write_again};

/// A log on a [`Disk`], used by one thread. [`Wal`](crate::Wal) runs it on a thread of its own; a
/// simulation calls it directly.
///
/// Invariants: `durable <= end`, both at sector boundaries of the current segment; behind `end`
/// there are only zeros and room for a seal; every earlier segment is sealed and durable, and the
/// header of each fits the end of the one before it.
pub struct Log {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    write_bytes_max: u64,
    batch_bytes: u64,
    state: LogState,
    snapshots: SnapshotStore,
    /// The segments before the current one, the oldest first.
    sealed: VecDeque<Sealed>,
    /// The header of the current one.
    header: SegmentHeader,
    /// Could the log begin with what the header of the current one stands on?
    is_beginning: bool,
    segment: Segment,
    /// Segments with lower numbers mean nothing once all that was appended is durable: a snapshot
    /// took the place of the log.
    needed_from: u64,
    spare: Option<Spare>,
    /// A spare was ordered, and has neither come nor failed.
    spare_ordered: bool,
    /// The last one could not be had: the next one is wanted at once, however empty the segment is,
    /// because it shows when there is room again.
    spare_missed: bool,
    /// How many there were; the first segment of a life is made of number 0.
    spares: u64,
    /// What the next scrub looks at.
    scrub_turn: usize,
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
        log: Continued,
        snapshots: SnapshotStore,
    ) -> Result<Self, DiskError> {
        let Continued { state, tail, tail_is_beginning, sealed } = log;
        let mut buffer = Vec::new();
        let (segment, header) = write_again(&disk, config.segment_bytes, tail, 0, &mut buffer)?;
        Ok(Self {
            disk,
            segment_bytes: config.segment_bytes,
            write_bytes_max: config.write_bytes_max,
            batch_bytes: config.batch_bytes,
            state,
            snapshots,
            sealed: sealed.into(),
            needed_from: 0,
            header,
            is_beginning: tail_is_beginning,
            segment,
            spare: None,
            spare_ordered: false,
            spare_missed: false,
            spares: 0,
            scrub_turn: 0,
            poisoned: false,
            buffer,
        })
    }

    /// Appends these writes, in this order, as one batch. They are durable after the next [`sync`]
    /// that succeeds, all of them or, if the power fails before, possibly none.
    ///
    /// A snapshot in a write must have arrived in the [`SnapshotStore`]; it becomes durable first. Such
    /// a write must be the first of its batch.
    ///
    /// # Errors
    /// [`WalError::NoSpace`]: nothing happened, except that the vote of a write with a snapshot may be
    /// durable, and the same may be tried again. Else the disk failed or a write does not continue the
    /// log, and the log is poisoned.
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
        self.unless_poisoned(|log| {
            log.sync_segment()?;
            let needed_from = log.needed_from;
            let count = log.sealed.iter().take_while(|it| it.header.id < needed_from).count();
            log.drop_segments(count)
        })
    }

    /// Syncs, and leaves an empty batch behind that shows what was durable, so that damage to
    /// the last batch is later told from a torn write. It also repeats the vote.
    ///
    /// # Errors
    /// If the disk fails, or did before.
    pub fn mark(&mut self) -> Result<(), WalError> {
        self.unless_poisoned(|log| {
            log.sync_segment()?;
            if log.segment.marked || !log.has_room(SMALL_BATCH_BYTES, Urgency::Urgent) {
                return Ok(());
            }
            let encoder = Encoder::new(&mut log.buffer, log.segment.frame());
            let chain = encoder.finish(log.state.outcome());
            log.segment.put(&log.buffer, chain)?;
            log.segment.marked = true;
            Ok(log.sync_segment()?)
        })
    }

    /// Does the end of the log carry a mark?
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.segment.marked
    }

    /// [Marks](Log::mark) the end of the log and lets go of the disk.
    ///
    /// # Errors
    /// If the disk fails, or did before.
    pub fn close(mut self) -> Result<(), WalError> {
        self.mark()
    }

    /// The snapshots beside the log.
    #[must_use]
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// An order to prepare the next segment, as soon as the current one is half full or the last attempt
    /// has failed; the next order when this one is answered by [`Log::offer_spare`] or
    /// [`Log::spare_failed`]. To be run beside the log; a log whose orders nobody runs prepares its
    /// segments itself, and takes longer when it rolls.
    pub fn spare_wanted(&mut self) -> Option<SpareJob> {
        let wanted = self.spare.is_none()
            && !self.spare_ordered
            && !self.poisoned
            && (self.spare_missed || self.segment.end >= self.segment.bytes / 2);
        wanted.then(|| {
            self.spare_ordered = true;
            self.spare_job(self.segment_bytes)
        })
    }

    /// Takes a prepared segment for the next roll.
    pub fn offer_spare(&mut self, spare: Spare) {
        self.spare = Some(spare);
        (self.spare_ordered, self.spare_missed) = (false, false);
    }

    /// The order could not be carried out: it may be given again.
    pub fn spare_failed(&mut self) {
        (self.spare_ordered, self.spare_missed) = (false, true);
    }

    /// The number of the segment that is written to.
    pub(crate) fn segment_id(&self) -> u64 {
        self.segment.id
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    /// Bytes that a write takes in a batch.
    pub(crate) fn write_bytes(write: &Write) -> u64 {
        let hard_state = if write.hard_state().is_some() { record_bytes(8) } else { 0 };
        let truncation = if write.truncate_from().is_some() { record_bytes(0) } else { 0 };
        let snapshot = write.snapshot().map_or(0, |snapshot| base_bytes(&snapshot.base));
        hard_state + snapshot + truncation + write.entries().iter().map(entry_bytes).sum::<u64>()
    }

    /// Bytes of a batch of these entries, with a vote and a truncation.
    pub(crate) fn bytes_of(entries: &[Entry]) -> u64 {
        let records = record_bytes(8) + record_bytes(0);
        batch_bytes(records + entries.iter().map(entry_bytes).sum::<u64>())
    }

    /// Does a write wait for room on a full disk, and leave the reserve alone? Not what a group of nodes
    /// needs to govern itself: votes, and the entries with which a leader begins and changes members.
    pub(crate) fn is_bulk(write: &Write) -> bool {
        let is_command = |entry: &Entry| matches!(entry.payload, Payload::Command(_));
        write.snapshot().is_some() || write.entries().iter().any(is_command)
    }

    /// Writes whose batches have at most so many bytes together find room for certain, even if the disk
    /// is full by now: in the current segment, or all the rest of them in the one that is prepared.
    pub(crate) fn room_bytes(&self) -> u64 {
        let kept = reserve_bytes(self.segment_bytes) + SMALL_BATCH_BYTES;
        // A mark may come before them.
        let mark = if self.segment.marked { 0 } else { SMALL_BATCH_BYTES };
        let here = self.segment.bytes.saturating_sub(self.segment.end + kept + mark);
        let header = self.header.bytes();
        let next = self.spare.as_ref().map_or(0, |it| it.bytes.saturating_sub(header + kept));
        here.max(next)
    }

    fn unless_poisoned<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        let result = act(self);
        self.poisoned = result.as_ref().is_err_and(|error| !error.is_no_space());
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
        if writes.iter().skip(1).any(|write| write.snapshot().is_some()) {
            let reason = "a snapshot in the middle of a batch".to_owned();
            return Err(WalError::Refused { reason });
        }
        if let Some(snapshot) = writes[0].snapshot() {
            // The vote first: a snapshot of a term that the vote does not know is of no use after a
            // crash. Then a segment of its own, because nothing before the snapshot will be needed.
            if let Some(state) = writes[0].hard_state() {
                self.put_vote(writes[0].group(), state)?;
            }
            self.roll(batch_bytes(records))?;
            self.snapshots.publish(snapshot)?;
            self.needed_from = self.segment.id;
            // What its header stands on is superseded by its first record.
            self.is_beginning = false;
        }
        let is_bulk = writes.iter().any(Self::is_bulk);
        let urgency = if is_bulk { Urgency::Bulk } else { Urgency::Urgent };
        self.put_batch(records, urgency, |log| {
            for write in writes {
                if let Some(from) = write.truncate_from() {
                    log.cut_off(from);
                }
                log.state.apply_write(write).map_err(|reason| WalError::Refused { reason })?;
            }
            let mut encoder = Encoder::new(&mut log.buffer, log.segment.frame());
            for write in writes {
                encode(&mut encoder, write);
            }
            Ok(encoder.finish(log.state.outcome()))
        })
    }

    /// Makes a vote durable, alone; once, however often the write that it belongs to is tried.
    fn put_vote(&mut self, group: GroupId, hard_state: HardState) -> Result<(), WalError> {
        if hard_state != self.state.hard_state() {
            let record = Record::HardState(hard_state);
            self.put_batch(record.bytes(), Urgency::Urgent, |log| {
                let applied = log.state.apply_record(group, &record);
                applied.map_err(|reason| WalError::Refused { reason })?;
                let mut encoder = Encoder::new(&mut log.buffer, log.segment.frame());
                encoder.record(group, &record);
                Ok(encoder.finish(log.state.outcome()))
            })?;
        }
        Ok(self.sync_segment()?)
    }

    /// Appends a batch with so many bytes of records, which `encode` puts into the buffer.
    fn put_batch(
        &mut self,
        records: u64,
        urgency: Urgency,
        encode: impl FnOnce(&mut Self) -> Result<u32, WalError>,
    ) -> Result<(), WalError> {
        let bytes = batch_bytes(records);
        if !self.has_room(bytes, urgency) {
            self.roll(bytes)?;
        }
        let chain = encode(self)?;
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

    /// Is there room for a batch of this many bytes, and for the seal behind it? Entries leave some
    /// for votes, which must find room even when the disk is full.
    fn has_room(&self, bytes: u64, urgency: Urgency) -> bool {
        let reserve = match urgency {
            Urgency::Bulk => reserve_bytes(self.segment_bytes),
            Urgency::Urgent => 0,
        };
        self.segment.end + bytes + reserve + SMALL_BATCH_BYTES <= self.segment.bytes
    }

    /// Goes over to a new segment with room for a batch of this many bytes.
    ///
    /// The order carries the safety: all data durable, then the successor durable under its name,
    /// then the seal, and only then data in the successor. So a segment with data has a sealed
    /// predecessor, a seal has a successor, and whatever is missing is missed.
    fn roll(&mut self, bytes: u64) -> Result<(), WalError> {
        self.sync_segment()?;
        let Segment { id: previous, end, chain, .. } = self.segment;
        let mut header = SegmentHeader {
            salt: random(self.disk.as_ref())?,
            id: previous + 1,
            first_id: previous + 1,
            previous: Some(Link { id: previous, end, chain }),
            hard_state: self.state.hard_state(),
            base: self.state.end(),
            ..self.header.clone()
        };
        let needed = header.bytes() + bytes + reserve_bytes(self.segment_bytes);
        let spare = self.take_spare(segment_file_bytes(self.segment_bytes, needed));
        // Until here nothing has changed: on a full disk the log stays as it is.
        let spare = spare.map_err(WalError::of_new_file)?;
        header.file_bytes = spare.bytes;
        let mut next = begin(spare, &header)?;
        next.sync()?;
        publish(self.disk.as_ref(), &mut next.file, &header)?;

        let mut encoder = Encoder::new(&mut self.buffer, self.segment.frame());
        encoder.seal(self.state.group(), header.id);
        let chain = encoder.finish(self.state.outcome());
        self.segment.put(&self.buffer, chain)?;
        self.segment.sync()?;

        let name = std::mem::replace(&mut self.segment, next).file.name;
        let header = std::mem::replace(&mut self.header, header);
        let is_beginning = std::mem::replace(&mut self.is_beginning, true);
        self.sealed.push_back(Sealed { name, header, is_beginning });
        Ok(())
    }

    fn take_spare(&mut self, bytes: u64) -> Result<Spare, DiskError> {
        match self.spare.take_if(|spare| spare.bytes >= bytes) {
            Some(spare) => Ok(spare),
            None => {
                let spare = self.spare_job(bytes).prepare();
                self.spare_missed |= spare.is_err();
                spare
            }
        }
    }

    fn spare_job(&mut self, bytes: u64) -> SpareJob {
        let number = self.spare_number();
        SpareJob { disk: Arc::clone(&self.disk), number, bytes }
    }

    fn spare_number(&mut self) -> u64 {
        self.spares += 1;
        self.spares
    }
}

/// May a batch use the room that is kept for votes?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Commands and snapshots: they wait until there is room.
    Bulk,
    /// Votes, marks and what else is no command: an election must not fail for want of a sector.
    Urgent,
}

/// How much of the batch buffer stays allocated between batches.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// A write as records: the vote first, so that no entry of a term is there without its term.
fn encode(encoder: &mut Encoder<'_>, write: &Write) {
    let group = write.group();
    if let Some(state) = write.hard_state() {
        encoder.hard_state(group, state);
    }
    if let Some(snapshot) = write.snapshot() {
        encoder.reset(group, &snapshot.base);
    }
    if let Some(from) = write.truncate_from() {
        encoder.truncate(group, from);
    }
    for entry in write.entries() {
        encoder.entry(group, entry);
    }
}

#[cfg(test)]
mod tests;
