//! The segment that is written to: its file, and how it comes to be.

use std::sync::Arc;

use crate::disk::{Disk, NamedFile, random, sync_directory};
use crate::error::DiskError;
use crate::format::batch::{Encoder, Frame, Outcome, batch_bytes};
use crate::format::header::SegmentHeader;
use crate::format::{BLOCK_BYTES, SMALL_BATCH_BYTES, round_up};
use crate::recovery::plan::{Tail, TailBatch};
use crate::recovery::scan::segment_name;
use crate::spare::{Spare, SpareJob};

/// The segment that is written to.
pub(super) struct Segment {
    pub(super) file: NamedFile,
    pub(super) id: u64,
    pub(super) salt: u64,
    /// Its length.
    pub(super) bytes: u64,
    /// Where the next batch goes.
    pub(super) end: u64,
    /// Everything before here survives a power cut.
    pub(super) durable: u64,
    pub(super) sequence: u64,
    pub(super) chain: u32,
    /// Is the last batch empty? Then the one before it is known to have been durable.
    pub(super) marked: bool,
}

impl Segment {
    pub(super) fn frame(&self) -> Frame {
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
    pub(super) fn put(&mut self, batch: &[u8], chain: u32) -> Result<(), DiskError> {
        self.file.write(batch, self.end)?;
        self.end += batch.len() as u64;
        self.sequence += 1;
        self.chain = chain;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), DiskError> {
        self.file.sync()?;
        self.durable = self.end;
        Ok(())
    }
}

/// Bytes that batches take on disk.
pub(super) fn data_bytes(batches: &[TailBatch]) -> u64 {
    let records = |batch: &TailBatch| batch.records.iter().map(|(_, record)| record.bytes()).sum();
    batches.iter().map(|batch| batch_bytes(records(batch))).sum()
}

/// Writes a header and batches into a segment of their own, and gives it its name once all of it is
/// durable. The header's number and salt are those of the new segment then.
pub(super) fn write_again(
    disk: &Arc<dyn Disk>,
    segment_bytes: u64,
    tail: Tail,
    number: u64,
    buffer: &mut Vec<u8>,
) -> Result<(Segment, SegmentHeader), DiskError> {
    let Tail { mut header, batches } = tail;
    let data = data_bytes(&batches);
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
pub(super) fn begin(spare: Spare, header: &SegmentHeader) -> Result<Segment, DiskError> {
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
pub(super) fn publish(
    disk: &dyn Disk,
    file: &mut NamedFile,
    header: &SegmentHeader,
) -> Result<(), DiskError> {
    file.rename(disk, segment_name(header.base.position.index, header.id))?;
    sync_directory(disk)
}

/// Kept in every segment for votes, 512 bytes each, on a disk that is full: 4 to 64.
pub(super) fn reserve_bytes(segment_bytes: u64) -> u64 {
    (segment_bytes / 64).clamp(4 * SMALL_BATCH_BYTES, 64 * SMALL_BATCH_BYTES)
}

/// The length of a segment that needs this much, its seal aside.
pub(super) fn segment_file_bytes(segment_bytes: u64, needed: u64) -> u64 {
    round_up(needed + SMALL_BATCH_BYTES, BLOCK_BYTES).max(segment_bytes)
}
