//! The log itself, synchronous and without threads: append, sync, roll, drop, repair.

use std::collections::VecDeque;
use std::sync::Arc;

use raft_core::{Entry, GroupId, LogBase, LogIndex, Restored, Write};

use crate::config::WalConfig;
use crate::disk::{Disk, NamedFile, random, remove, sync_directory};
use crate::error::{DiskError, OpenError, WalError};
use crate::format::batch::{Encoder, Frame, Outcome, batch_bytes};
use crate::format::header::{Link, SegmentHeader};
use crate::format::record::{Record, base_bytes, entry_bytes, record_bytes};
use crate::format::{BLOCK_BYTES, SMALL_BATCH_BYTES, round_up};
use crate::identity::Identity;
use crate::recovery::plan::{Continued, Sealed, Tail, TailBatch};
use crate::recovery::scan::segment_name;
use crate::recovery::{self, RecoveryReport};
use crate::scrub::{ScrubJob, Scrubbed, Target};
use crate::snapshots::SnapshotStore;
use crate::spare::{Spare, SpareJob};
use crate::state::LogState;

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
    /// Could the log begin with the current one?
    is_beginning: bool,
    segment: Segment,
    /// Segments with lower numbers mean nothing once all that was appended is durable: a snapshot
    /// took the place of the log.
    needed_from: u64,
    spare: Option<Spare>,
    /// A spare was ordered for the current segment.
    spare_ordered: bool,
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
            spares: 1,
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
    /// [`WalError::NoSpace`]: nothing happened, and the same may be tried again. Else the disk failed
    /// or a write does not continue the log, and the log is poisoned.
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

    /// Writes down that the log up to `base` is not needed any more
    /// ([`Output::compacted`](raft_core::Output)), and removes the segments that nothing needs: not
    /// the node, and not the older of the two snapshots, which would have to stand in if the newer
    /// one turned out damaged.
    ///
    /// # Errors
    /// If the disk fails, or the base is not in the log. The log is then poisoned.
    pub fn compact(&mut self, base: &LogBase) -> Result<(), WalError> {
        self.unless_poisoned(|log| {
            log.state.compact(base).map_err(|reason| WalError::Refused { reason })?;
            let written = log.put_batch(base_bytes(base), Urgency::Urgent, |log| {
                let group = log.state.group();
                let mut encoder = Encoder::new(&mut log.buffer, log.segment.frame());
                encoder.compacted(group, base);
                Ok(encoder.finish(log.state.outcome()))
            });
            // On a full disk this is what makes room. Without the record the next start merely
            // remembers more than it needs.
            unless_full(written)?;
            log.sync_segment()?;
            let needed = base.position.index.min(log.snapshots.fallback_index());
            unless_full(log.drop_behind_snapshot(needed))
        })
    }

    /// The snapshots beside the log.
    #[must_use]
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// An order to read something that was durable long ago, and to see whether it still is what it
    /// was: each sealed segment and each snapshot in turn. `None` if there is nothing of that kind.
    pub fn next_scrub(&mut self) -> Option<ScrubJob> {
        let held = self.snapshots.held();
        let places = self.sealed.len() + held.len();
        let turn = self.scrub_turn.checked_rem(places)?;
        self.scrub_turn = turn + 1;
        let target = match self.sealed.get(turn) {
            Some(Sealed { name, header, .. }) => {
                let next = self.sealed.get(turn + 1).map_or(&self.header, |it| &it.header);
                let link = next.previous?;
                Target::Segment { name: name.clone(), id: header.id, link }
            }
            None => Target::Snapshot(held.get(turn - self.sealed.len())?.clone()),
        };
        let (disk, directory) = (Arc::clone(&self.disk), self.header.directory);
        Some(ScrubJob { disk, directory, snapshots: self.snapshots.clone(), target })
    }

    /// Takes in what a scrub found. What nothing needs any more is removed at once.
    ///
    /// # Errors
    /// If the disk fails while something is removed.
    pub fn scrubbed(&mut self, scrubbed: &Scrubbed) -> Result<Repair, WalError> {
        let Some(damage) = &scrubbed.damage else { return Ok(Repair::None) };
        let id = match &scrubbed.target {
            Target::Snapshot(snapshot) => {
                tracing::error!(%damage, "a snapshot was damaged at rest");
                self.snapshots.forget(snapshot.id());
                return Ok(Repair::Snapshot);
            }
            Target::Segment { id, .. } => *id,
        };
        let Some(place) = self.sealed.iter().position(|it| it.header.id == id) else {
            return Ok(Repair::None); // It was dropped meanwhile.
        };
        tracing::error!(%damage, "a segment was damaged at rest");
        let base = self.state.base().position.index;
        if place < self.count_not_needed(base) {
            self.unless_poisoned(|log| unless_full(log.drop_behind_snapshot(base)))?;
            return Ok(Repair::None);
        }
        let beginning = self.sealed.iter().take(place + 1).rev().find(|it| it.is_beginning);
        let from = beginning.map_or(base, |it| it.header.base.position.index);
        Ok(Repair::Entries { after: from.max(base) })
    }

    /// Writes all entries behind a place named by [`Repair::Entries`] again, into a segment that takes
    /// the place of those that held them. `entries` is all of the log behind there, up to its last entry.
    ///
    /// # Errors
    /// As [`Log::append`]; [`WalError::Refused`] without harm if the entries are not those.
    pub fn rewrite(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        self.unless_poisoned(|log| match log.try_rewrite(entries) {
            // Nothing was changed: the log had gone on since the repair was asked for.
            Err(refused @ WalError::Refused { .. }) => Ok(Err(refused)),
            done => done.map(Ok),
        })?
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

    /// The order could not be carried out: it may be given again.
    pub fn spare_failed(&mut self) {
        self.spare_ordered = false;
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
            self.make_way(&writes[0], snapshot.index())?;
            // A segment of its own, because nothing before the snapshot will be needed.
            self.roll(batch_bytes(records))?;
            self.snapshots.publish(snapshot)?;
            self.needed_from = self.segment.id;
        }
        let bulk = |write: &Write| !write.entries().is_empty() || write.snapshot().is_some();
        let urgency = if writes.iter().any(bulk) { Urgency::Bulk } else { Urgency::Urgent };
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

    /// Before a snapshot up to `index` takes the place of the log: makes the vote that comes with it
    /// durable, because a snapshot of a term that the vote does not know is of no use after a crash, and
    /// cuts off what it contradicts, so that the next segment does not begin behind the snapshot.
    fn make_way(&mut self, write: &Write, index: LogIndex) -> Result<(), WalError> {
        let vote = write.hard_state().map(Record::HardState);
        let beyond = self.state.last().index >= index;
        let contradicted = beyond.then_some(Record::Truncate(index));
        let records: Vec<Record> = vote.into_iter().chain(contradicted).collect();
        if records.is_empty() {
            return Ok(());
        }
        let group = write.group();
        self.put_batch(records.iter().map(Record::bytes).sum(), Urgency::Urgent, |log| {
            if beyond {
                log.cut_off(index);
            }
            for record in &records {
                let applied = log.state.apply_record(group, record);
                applied.map_err(|reason| WalError::Refused { reason })?;
            }
            let mut encoder = Encoder::new(&mut log.buffer, log.segment.frame());
            records.iter().for_each(|record| encoder.record(group, record));
            Ok(encoder.finish(log.state.outcome()))
        })?;
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
            file_bytes: 0,
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
        self.spare_ordered = false;
        Ok(())
    }

    /// The log is cut off from here on: segments that stand on what was there are no beginnings.
    fn cut_off(&mut self, from: LogIndex) {
        let current = (&self.header, &mut self.is_beginning);
        let sealed = self.sealed.iter_mut().map(|it| (&it.header, &mut it.is_beginning));
        for (header, is_beginning) in sealed.chain([current]) {
            *is_beginning &= header.base.position.index < from;
        }
    }

    /// How many sealed segments could go, if the log up to this index is not needed.
    fn count_not_needed(&self, index: LogIndex) -> usize {
        let could_begin = |is_beginning, header: &SegmentHeader| {
            is_beginning && header.base.position.index <= index
        };
        if could_begin(self.is_beginning, &self.header) {
            return self.sealed.len();
        }
        let first = self.sealed.iter().rposition(|it| could_begin(it.is_beginning, &it.header));
        first.unwrap_or_default()
    }

    /// Removes the segments that hold nothing behind this index, if there is a snapshot for them: the one
    /// that there was may have turned out damaged.
    fn drop_behind_snapshot(&mut self, index: LogIndex) -> Result<(), WalError> {
        let count = self.count_not_needed(index);
        if count == 0 || !self.snapshots.ascertain(index)? {
            return Ok(());
        }
        self.drop_segments(count)
    }

    /// Removes so many sealed segments, the oldest ones.
    fn drop_segments(&mut self, count: usize) -> Result<(), WalError> {
        if count == 0 {
            return Ok(());
        }
        for Sealed { name, .. } in self.sealed.drain(..count) {
            remove(self.disk.as_ref(), &name)?;
        }
        // If they come back after a power cut, the next start removes them again.
        Ok(sync_directory(self.disk.as_ref())?)
    }

    fn try_rewrite(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        self.sync_segment()?;
        let first = entries.first().map_or(self.state.last().index.next(), |entry| entry.index);
        let after = first.prev();
        let refused = || WalError::Refused { reason: "entries of another log".to_owned() };
        let begins_there = |it: &Sealed| it.is_beginning && it.header.base.position.index == after;
        let place = self.sealed.iter().position(begins_there);
        let (place, mut header) = if self.state.base().position.index == after {
            if !self.snapshots.ascertain(after)? {
                return Err(refused());
            }
            let first_id = self.sealed.front().map_or(&self.header, |it| &it.header).first_id;
            let base = self.state.base().clone();
            let hard_state = self.state.hard_state();
            let repairs = self.state.repairs();
            let header = self.header.clone();
            let header =
                SegmentHeader { first_id, previous: None, base, hard_state, repairs, ..header };
            (0, header)
        } else {
            let place = place.ok_or_else(refused)?;
            // What was lost since that segment began is not to be forgotten with those behind it.
            let repairs = self.state.repairs();
            (place, SegmentHeader { repairs, ..self.sealed[place].header.clone() })
        };
        header.id = self.segment.id + 1;
        let group = self.state.group();
        let mut state = LogState::at_start_of(&header);
        let batches = self.batches_of(entries, &mut state, group).map_err(|_| refused())?;
        if state.end() != self.state.end() || state.hard_state() != self.state.hard_state() {
            return Err(refused());
        }
        let number = self.spare_number();
        let tail = Tail { header, batches };
        let (segment, header) =
            write_again(&self.disk, self.segment_bytes, tail, number, &mut self.buffer)
                .map_err(WalError::of_new_file)?;
        let before = std::mem::replace(&mut self.segment, segment);
        self.header = header;
        self.is_beginning = true;
        for Sealed { name, .. } in self.sealed.drain(place..) {
            remove(self.disk.as_ref(), &name)?;
        }
        remove(self.disk.as_ref(), &before.file.name)?;
        sync_directory(self.disk.as_ref())?;
        self.spare_ordered = false;
        Ok(())
    }

    /// Entries in batches of the usual size behind `state`, and the vote if that does not have it.
    fn batches_of(
        &self,
        entries: &[Entry],
        state: &mut LogState,
        group: GroupId,
    ) -> Result<Vec<TailBatch>, String> {
        let mut batches = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        if state.hard_state() != self.state.hard_state() {
            batch.push((group, Record::HardState(self.state.hard_state())));
        }
        for entry in entries {
            bytes += entry_bytes(entry);
            batch.push((group, Record::Entry(entry.clone())));
            if bytes >= self.batch_bytes {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        batches.push(batch);
        let with_outcome = |records: Vec<(GroupId, Record)>| {
            for (group, record) in &records {
                state.apply_record(*group, record)?;
            }
            Ok(TailBatch { outcome: state.outcome(), records })
        };
        batches.into_iter().filter(|records| !records.is_empty()).map(with_outcome).collect()
    }

    fn take_spare(&mut self, bytes: u64) -> Result<Spare, DiskError> {
        match self.spare.take_if(|spare| spare.bytes >= bytes) {
            Some(spare) => Ok(spare),
            None => self.spare_job(bytes).prepare(),
        }
    }

    fn spare_job(&mut self, bytes: u64) -> SpareJob {
        let number = self.spare_number();
        SpareJob { disk: Arc::clone(&self.disk), number, bytes }
    }

    fn spare_number(&mut self) -> u64 {
        self.spares += 1;
        self.spares - 1
    }
}

/// No room is no failure of something that can be done later.
fn unless_full(outcome: Result<(), WalError>) -> Result<(), WalError> {
    match outcome {
        Err(error) if error.is_no_space() => Ok(()),
        outcome => outcome,
    }
}

/// What a scrub calls for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing: there was no damage, or what was damaged is not needed.
    #[default]
    None,
    /// The snapshot is out of use: another one should be cut.
    Snapshot,
    /// A segment has to be written again: give all entries behind this index to [`Log::rewrite`].
    Entries {
        /// The entry before the first one that is wanted.
        after: LogIndex,
    },
}

/// May a batch use the room that is kept for votes?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// Entries: they wait until there is room.
    Bulk,
    /// Votes and marks: an election must not fail for want of a sector.
    Urgent,
}

/// How much of the batch buffer stays allocated between batches.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Kept in every segment for votes, 512 bytes each, on a disk that is full: 4 to 64.
fn reserve_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes / 64).clamp(4 * SMALL_BATCH_BYTES, 64 * SMALL_BATCH_BYTES)
}

/// The length of a segment that needs this much, its seal aside.
fn segment_file_bytes(segment_bytes: u64, needed: u64) -> u64 {
    round_up(needed + SMALL_BATCH_BYTES, BLOCK_BYTES).max(segment_bytes)
}

/// Writes a header and batches into a segment of their own, and gives it its name once all of it is
/// durable. The header's number and salt are those of the new segment then.
fn write_again(
    disk: &Arc<dyn Disk>,
    segment_bytes: u64,
    tail: Tail,
    number: u64,
    buffer: &mut Vec<u8>,
) -> Result<(Segment, SegmentHeader), DiskError> {
    let Tail { mut header, batches } = tail;
    let records = |batch: &[_]| batch.iter().map(|(_, record): &(_, Record)| record.bytes()).sum();
    let data: u64 = batches.iter().map(|batch| batch_bytes(records(&batch.records))).sum();
    let needed = header.bytes() + data + SMALL_BATCH_BYTES + reserve_bytes(segment_bytes);
    let bytes = segment_file_bytes(segment_bytes, needed);
    let spare = SpareJob { disk: Arc::clone(disk), number, bytes }.prepare()?;
    header.salt = random(disk.as_ref())?;
    header.file_bytes = bytes;
    let mut segment = begin(spare, &header)?;
    let at_start = Outcome { hard_state: header.hard_state, last: header.base.position };
    let end = batches.last().map_or(at_start, |batch| batch.outcome);
    let batches = batches.iter().map(|batch| (batch.outcome, batch.records.as_slice()));
    for (outcome, batch) in batches.chain([(end, [].as_slice())]) {
        // The file gets its name only when all of it is durable, so each batch may say so of
        // those before it. The last, empty one says it of all.
        segment.durable = segment.end;
        let mut encoder = Encoder::new(buffer, segment.frame());
        batch.iter().for_each(|(group, record)| encoder.record(*group, record));
        let chain = encoder.finish(outcome);
        segment.put(buffer, chain)?;
    }
    segment.sync()?;
    segment.marked = true;
    publish(disk.as_ref(), &mut segment.file, &header)?;
    Ok((segment, header))
}

/// Writes the header into a prepared segment; not yet durable.
fn begin(spare: Spare, header: &SegmentHeader) -> Result<Segment, DiskError> {
    let Spare { file, bytes } = spare;
    file.write(&header.encode(), 0)?;
    let end = header.bytes();
    Ok(Segment {
        file,
        id: header.id,
        salt: header.salt,
        bytes,
        end,
        durable: end,
        sequence: 0,
        chain: header.chain(),
        marked: false,
    })
}

/// Gives a durable segment the name under which recovery believes it.
fn publish(disk: &dyn Disk, file: &mut NamedFile, header: &SegmentHeader) -> Result<(), DiskError> {
    file.rename(disk, segment_name(header.base.position.index, header.id))?;
    sync_directory(disk)
}

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
