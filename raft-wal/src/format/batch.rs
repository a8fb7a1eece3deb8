//! A batch: what one write puts on disk and one sync makes durable.
//!
//! A header in the clear, then scrambled: the records and padding to whole sectors; at the very end,
//! in the clear again, a trailer with the chain value, which is also the checksum of it all.
//!
//! Header and trailer both tell the [`Outcome`], each under a checksum of its own: whatever happens to
//! the records, the vote and how far the log went are known as long as one of the two is readable.

use bytes::Bytes;
use raft_core::{Entry, GroupId, HardState, LogBase, LogIndex, LogPosition, NodeId, Term};

use super::record::{self, Place, Record};
use super::{SECTOR_BYTES, put_u32, put_u64, round_up, scramble, seed, u32_at, u64_at};

/// The fixed part of every batch.
pub(crate) const BATCH_HEADER_BYTES: usize = 96;
/// The last bytes of every batch.
pub(crate) const TRAILER_BYTES: usize = 56;

const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"BTCH");
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"DONE");

const AT_MAGIC: usize = 0;
const AT_CRC: usize = 4;
const AT_LENGTH: usize = 8;
const AT_RECORDS: usize = 12;
const AT_SEQUENCE: usize = 16;
const AT_OFFSET: usize = 24;
const AT_DURABLE_OFFSET: usize = 32;
const AT_BODY_BYTES: usize = 40;
const AT_PREVIOUS_CHAIN: usize = 44;
const AT_SEGMENT: usize = 48;
const AT_OUTCOME: usize = 56;

const AT_TRAILER_SEQUENCE: usize = 8;
const AT_TRAILER_OUTCOME: usize = 16;
const AT_TRAILER_CHAIN: usize = TRAILER_BYTES - 4;

/// Bytes of a batch whose records take this many.
pub(crate) const fn batch_bytes(records: u64) -> u64 {
    round_up((BATCH_HEADER_BYTES + TRAILER_BYTES) as u64 + records, SECTOR_BYTES)
}

/// What a batch leaves behind: the vote, and how far the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The vote as of the end of the batch.
    pub(crate) hard_state: HardState,
    /// The last entry as of the end of the batch.
    pub(crate) last: LogPosition,
}

impl Outcome {
    fn put(&self, bytes: &mut [u8], at: usize) {
        put_u64(bytes, at, self.hard_state.term.0);
        put_u64(bytes, at + 8, self.hard_state.voted_for.map_or(0, NodeId::get));
        put_u64(bytes, at + 16, self.last.index.0);
        put_u64(bytes, at + 24, self.last.term.0);
    }

    fn read(bytes: &[u8], at: usize) -> Self {
        Self {
            hard_state: HardState {
                term: Term(u64_at(bytes, at)),
                voted_for: NodeId::new(u64_at(bytes, at + 8)),
            },
            last: LogPosition::new(Term(u64_at(bytes, at + 24)), LogIndex(u64_at(bytes, at + 16))),
        }
    }
}

/// Where a batch stands, and what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The random number of the segment.
    pub(crate) salt: u64,
    /// The segment.
    pub(crate) segment: u64,
    /// Its first byte in the segment.
    pub(crate) offset: u64,
    /// How many batches stand before it in the segment.
    pub(crate) sequence: u64,
    /// The chain value of the batch before it, or of the segment's header.
    pub(crate) previous_chain: u32,
    /// Everything in the segment before here was durable when the batch was written: the end of the
    /// last batch whose sync had returned.
    pub(crate) durable_offset: u64,
}

impl Frame {
    fn place(&self) -> Place {
        Place { salt: self.salt, chain: self.previous_chain }
    }

    fn seed(&self) -> u32 {
        seed(self.salt, self.offset, self.previous_chain)
    }
}

/// Builds one batch in a buffer that is reused.
pub(crate) struct Encoder<'b> {
    out: &'b mut Vec<u8>,
    frame: Frame,
    records: u32,
}

impl<'b> Encoder<'b> {
    /// An empty batch; what was in `out` is gone.
    pub(crate) fn new(out: &'b mut Vec<u8>, frame: Frame) -> Self {
        out.clear();
        out.resize(BATCH_HEADER_BYTES, 0);
        Self { out, frame, records: 0 }
    }

    fn next_record(&mut self) -> (&mut Vec<u8>, Place, u64) {
        self.records += 1;
        let offset = self.frame.offset + self.out.len() as u64;
        (&mut *self.out, self.frame.place(), offset)
    }

    pub(crate) fn hard_state(&mut self, group: GroupId, state: HardState) {
        let (out, place, offset) = self.next_record();
        record::put_hard_state(out, place, offset, group, state);
    }

    pub(crate) fn truncate(&mut self, group: GroupId, from: LogIndex) {
        let (out, place, offset) = self.next_record();
        record::put_truncate(out, place, offset, group, from);
    }

    pub(crate) fn entry(&mut self, group: GroupId, entry: &Entry) {
        let (out, place, offset) = self.next_record();
        record::put_entry(out, place, offset, group, entry);
    }

    pub(crate) fn seal(&mut self, group: GroupId, next: u64) {
        let (out, place, offset) = self.next_record();
        record::put_seal(out, place, offset, group, next);
    }

    pub(crate) fn reset(&mut self, group: GroupId, base: &LogBase) {
        let (out, place, offset) = self.next_record();
        record::put_reset(out, place, offset, group, base);
    }

    pub(crate) fn compacted(&mut self, group: GroupId, base: &LogBase) {
        let (out, place, offset) = self.next_record();
        record::put_compacted(out, place, offset, group, base);
    }

    pub(crate) fn record(&mut self, group: GroupId, record: &Record) {
        match record {
            Record::Reset(base) => self.reset(group, base),
            Record::Compacted(base) => self.compacted(group, base),
            Record::HardState(state) => self.hard_state(group, *state),
            Record::Truncate(from) => self.truncate(group, *from),
            Record::Entry(entry) => self.entry(group, entry),
            Record::Seal(next) => self.seal(group, *next),
        }
    }

    /// Completes the batch in the buffer, which leaves this behind; returns the chain value for the
    /// next one.
    pub(crate) fn finish(self, outcome: Outcome) -> u32 {
        let Self { out, frame, records } = self;
        let body = out.len() - BATCH_HEADER_BYTES;
        let end = (out.len() + TRAILER_BYTES).next_multiple_of(SECTOR_BYTES);
        out.resize(end, 0);
        let as_u32 = |bytes| u32::try_from(bytes).expect("the log bounds a batch below 4 GiB");
        put_u32(out, AT_MAGIC, BATCH_MAGIC);
        put_u32(out, AT_LENGTH, as_u32(end));
        put_u32(out, AT_RECORDS, records);
        put_u64(out, AT_SEQUENCE, frame.sequence);
        put_u64(out, AT_OFFSET, frame.offset);
        put_u64(out, AT_DURABLE_OFFSET, frame.durable_offset);
        put_u32(out, AT_BODY_BYTES, as_u32(body));
        put_u32(out, AT_PREVIOUS_CHAIN, frame.previous_chain);
        put_u64(out, AT_SEGMENT, frame.segment);
        outcome.put(out, AT_OUTCOME);
        let crc = header_crc(out, frame.salt, frame.offset);
        put_u32(out, AT_CRC, crc);
        let scrambled = BATCH_HEADER_BYTES..end - TRAILER_BYTES;
        scramble(frame.salt, frame.offset + BATCH_HEADER_BYTES as u64, &mut out[scrambled]);
        let start = end - TRAILER_BYTES;
        let trailer = &mut out[start..];
        put_u32(trailer, AT_MAGIC, TRAILER_MAGIC);
        put_u64(trailer, AT_TRAILER_SEQUENCE, frame.sequence);
        outcome.put(trailer, AT_TRAILER_OUTCOME);
        let crc = trailer_crc(trailer, frame.salt, frame.offset + start as u64);
        put_u32(trailer, AT_CRC, crc);
        let chain = crc32c::crc32c_append(frame.seed(), &out[..end - 4]);
        put_u32(out, end - 4, chain);
        chain
    }
}

/// The header's checksum leaves the chain out of the seed: a header must be recognizable when the
/// batch before it is damaged. The chain value it expects stands in it and is compared instead.
fn header_crc(header: &[u8], salt: u64, offset: u64) -> u32 {
    crc32c::crc32c_append(seed(salt, offset, 0), &header[AT_LENGTH..BATCH_HEADER_BYTES])
}

/// The trailer's own checksum, so that it counts even if nothing else of the batch does.
fn trailer_crc(trailer: &[u8], salt: u64, offset: u64) -> u32 {
    let outcome = &trailer[AT_TRAILER_SEQUENCE..AT_TRAILER_CHAIN];
    crc32c::crc32c_append(seed(salt, offset, 0), outcome)
}

/// The number and the outcome of the batch whose trailer these bytes, which lie at `offset` of the
/// segment, are, if they are one.
pub(crate) fn read_trailer(
    trailer: &[u8; TRAILER_BYTES],
    salt: u64,
    offset: u64,
) -> Option<(u64, Outcome)> {
    let is_trailer = u32_at(trailer, AT_MAGIC) == TRAILER_MAGIC
        && u32_at(trailer, AT_CRC) == trailer_crc(trailer, salt, offset);
    is_trailer
        .then(|| (u64_at(trailer, AT_TRAILER_SEQUENCE), Outcome::read(trailer, AT_TRAILER_OUTCOME)))
}

/// A batch header with a valid checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) frame: Frame,
    /// Bytes from the header's first to the trailer's last.
    pub(crate) length: u64,
    pub(crate) records: u32,
    pub(crate) outcome: Outcome,
    body: u64,
}

impl BatchHeader {
    /// The header at the start of `bytes`, if there is one that belongs at this offset of the
    /// segment.
    pub(crate) fn read(bytes: &[u8], salt: u64, segment: u64, offset: u64) -> Option<Self> {
        let header = bytes.get(..BATCH_HEADER_BYTES)?;
        let is_header = u32_at(header, AT_MAGIC) == BATCH_MAGIC
            && u32_at(header, AT_CRC) == header_crc(header, salt, offset)
            && u64_at(header, AT_OFFSET) == offset
            && u64_at(header, AT_SEGMENT) == segment;
        is_header.then(|| Self {
            frame: Frame {
                salt,
                segment,
                offset,
                sequence: u64_at(header, AT_SEQUENCE),
                previous_chain: u32_at(header, AT_PREVIOUS_CHAIN),
                durable_offset: u64_at(header, AT_DURABLE_OFFSET),
            },
            length: u64::from(u32_at(header, AT_LENGTH)),
            records: u32_at(header, AT_RECORDS),
            outcome: Outcome::read(header, AT_OUTCOME),
            body: u64::from(u32_at(header, AT_BODY_BYTES)),
        })
    }

    /// Do the lengths fit each other? Every batch that was written is so.
    pub(crate) fn is_sound(&self) -> bool {
        self.length == batch_bytes(self.body) && self.frame.durable_offset <= self.frame.offset
    }

    /// The chain value of the batch, if `bytes`, all of it, is what was written.
    pub(crate) fn verify(&self, bytes: &[u8]) -> Option<u32> {
        let end = bytes.len().checked_sub(4)?;
        let chain = crc32c::crc32c_append(self.frame.seed(), &bytes[..end]);
        (u32_at(bytes, end) == chain).then_some(chain)
    }

    /// The records, with their groups. Command payloads share one buffer with the others of the
    /// batch.
    ///
    /// # Errors
    /// What is wrong with the first record that is damaged or makes no sense.
    pub(crate) fn records(&self, bytes: &[u8]) -> Result<Vec<(GroupId, Record)>, String> {
        let start = BATCH_HEADER_BYTES;
        let length = usize::try_from(self.body).map_err(|_| "the batch is too long".to_owned())?;
        let Some(body) = bytes.get(start..start + length) else {
            return Err("the batch is cut off".to_owned());
        };
        let mut body = body.to_vec();
        scramble(self.frame.salt, self.frame.offset + start as u64, &mut body);
        let body = Bytes::from(body);
        // Not reserved from the count: only what was decoded takes memory.
        let mut records = Vec::new();
        let mut at = 0;
        while at < body.len() {
            let offset = self.frame.offset + (start + at) as u64;
            let (group, record, next) = record::read_record(&body, at, self.frame.place(), offset)?;
            records.push((group, record));
            at = next;
        }
        if records.len() != self.records as usize {
            return Err("a batch holds another number of records than it says".to_owned());
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame {
        salt: 7,
        segment: 1,
        offset: 4096,
        sequence: 3,
        previous_chain: 9,
        durable_offset: 2048,
    };

    /// The header of a batch of a record in which these bytes stand here, under a checksum that is right.
    fn header_with(at: usize, bytes: &[u8]) -> BatchHeader {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, FRAME);
        encoder.truncate(GroupId(0), LogIndex(5));
        encoder.finish(Outcome::default());
        out[at..at + bytes.len()].copy_from_slice(bytes);
        let crc = header_crc(&out, FRAME.salt, FRAME.offset);
        put_u32(&mut out, AT_CRC, crc);
        BatchHeader::read(&out, FRAME.salt, FRAME.segment, FRAME.offset).unwrap()
    }

    #[test]
    fn a_header_is_sound_if_its_numbers_fit_each_other() {
        let of_length = |length: u32| header_with(AT_LENGTH, &length.to_le_bytes()).is_sound();
        assert!(of_length(512));
        assert!(![0, 511, 513, 1024, u32::MAX].into_iter().any(of_length));
        // What fits beside header and trailer into a sector.
        let of_body = |body: u32| header_with(AT_BODY_BYTES, &body.to_le_bytes()).is_sound();
        assert!([0, 48, 512 - 96 - 56].into_iter().all(of_body));
        assert!(![512 - 96 - 56 + 1, 512, u32::MAX].into_iter().any(of_body));
        // Nothing is durable that is yet to be written.
        let of_durable = |at: u64| header_with(AT_DURABLE_OFFSET, &at.to_le_bytes()).is_sound();
        assert!([0, 2048, FRAME.offset].into_iter().all(of_durable));
        assert!(![FRAME.offset + 1, u64::MAX].into_iter().any(of_durable));
    }
}
