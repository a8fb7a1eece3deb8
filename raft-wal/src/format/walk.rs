//! Reading a segment's batches in order, and judging the place where they end.
//!
//! This is where *torn* is told from *corrupt*. Only bytes after the last sync that returned can be
//! torn, and a torn write leaves sectors as they were: zeros, because segments are filled with
//! zeros before their use and nothing that is written ever reads as a sector of zeros. Whatever
//! else does not match its checksum was damaged after it was written, and is never dropped.

use raft_core::GroupId;

use super::batch::{BATCH_HEADER_BYTES, BatchHeader, Outcome, TRAILER_BYTES, read_trailer};
use super::record::Record;
use super::{SECTOR_BYTES, is_unwritten};

/// A batch as it was written.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) header: BatchHeader,
    pub(crate) records: Vec<(GroupId, Record)>,
}

/// The next thing in a segment.
#[derive(Debug)]
pub(crate) enum Step {
    Batch(Batch),
    End(End),
}

/// Why no batch follows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing was ever written behind here.
    Clean,
    /// A write did not arrive whole. None of it was acknowledged.
    Torn {
        /// Bytes from here to the last one that did arrive.
        bytes: u64,
    },
    /// Something that was written has changed.
    Damaged {
        /// What is wrong, for whoever has to repair it.
        what: String,
    },
}

/// A place in the bytes of a segment.
pub(crate) struct Walker<'a> {
    bytes: &'a [u8],
    salt: u64,
    segment: u64,
    at: usize,
    sequence: u64,
    chain: u32,
}

impl<'a> Walker<'a> {
    /// Before the first batch of a segment, which starts behind its header.
    pub(crate) fn new(bytes: &'a [u8], salt: u64, segment: u64, start: usize, chain: u32) -> Self {
        Self { bytes, salt, segment, at: start.min(bytes.len()), sequence: 0, chain }
    }

    /// The offset of what comes next.
    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The chain value of what came last.
    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    /// Is everything from here on as the preparation of the segment left it?
    pub(crate) fn nothing_follows(&self) -> bool {
        is_unwritten(&self.bytes[self.at..])
    }

    /// Takes the next batch, or judges why there is none. After an end it stays there.
    pub(crate) fn step(&mut self) -> Step {
        let rest = &self.bytes[self.at..];
        let first_sector = &rest[..rest.len().min(SECTOR_BYTES)];
        if is_unwritten(first_sector) {
            return Step::End(self.judge_missing_header());
        }
        let Some(header) = BatchHeader::read(rest, self.salt, self.segment, self.offset()) else {
            // A sector arrives whole or not at all, and this one did arrive: case 4 of `FORMAT.md`.
            return damaged("a batch header does not match its checksum");
        };
        let frame = header.frame;
        if frame.previous_chain != self.chain || frame.sequence != self.sequence {
            return damaged("a batch does not continue the one before it");
        }
        let length = usize::try_from(header.length).ok().filter(|_| header.is_sound());
        let Some(bytes) = length.and_then(|length| rest.get(..length)) else {
            return damaged("a batch header has a valid checksum and an impossible length");
        };
        let Some(chain) = header.verify(bytes) else {
            return Step::End(self.judge_bad_body(&header, bytes));
        };
        match header.records(bytes) {
            Ok(records) => {
                self.at += bytes.len();
                self.sequence += 1;
                self.chain = chain;
                Step::Batch(Batch { header, records })
            }
            Err(what) => damaged(&format!("the batch's checksum is valid, but {what}")),
        }
    }

    /// The sector where a header would stand was never written.
    fn judge_missing_header(&self) -> End {
        if self.nothing_follows() {
            return End::Clean;
        }
        match self.proof_of_durability(SECTOR_BYTES) {
            Some(proof) => End::Damaged { what: format!("a batch header is gone; {proof}") },
            None => self.torn(),
        }
    }

    /// The header is sound, what it announces is not all there.
    fn judge_bad_body(&self, header: &BatchHeader, bytes: &[u8]) -> End {
        let diagnosis = header.records(bytes).err();
        let diagnosis = diagnosis.unwrap_or_else(|| "its padding or trailer changed".to_owned());
        if let Some(proof) = self.proof_of_durability(bytes.len()) {
            return End::Damaged { what: format!("a batch is damaged: {diagnosis}; {proof}") };
        }
        if bytes.chunks(SECTOR_BYTES).any(is_unwritten) {
            return self.torn();
        }
        let what = format!(
            "the last batch is damaged: {diagnosis}; all of its sectors were written, so this is \
             no torn write"
        );
        End::Damaged { what }
    }

    /// What the last batch of the segment left behind, if that can still be told although the batch
    /// here is damaged: from the header or the trailer of the last one, and only if nothing behind
    /// them could be another whose both are gone.
    pub(crate) fn surviving_outcome(&self) -> Option<Outcome> {
        let mut last: Option<(u64, Outcome)> = None;
        let mut told = self.at;
        for (n, sector) in self.bytes[self.at..].chunks_exact(SECTOR_BYTES).enumerate() {
            let at = self.at + n * SECTOR_BYTES;
            let header = BatchHeader::read(sector, self.salt, self.segment, at as u64);
            let header = header.and_then(|header| {
                let end = at.checked_add(usize::try_from(header.length).ok()?)?;
                let fits = header.is_sound() && end <= self.bytes.len();
                fits.then_some((header.frame.sequence, header.outcome, end))
            });
            let end = at + SECTOR_BYTES;
            let trailer = sector.last_chunk().and_then(|trailer| {
                let start = end - TRAILER_BYTES;
                let (sequence, outcome) = read_trailer(trailer, self.salt, start as u64)?;
                Some((sequence, outcome, end))
            });
            for (sequence, outcome, end) in header.into_iter().chain(trailer) {
                told = told.max(end);
                if last.is_none_or(|(known, _)| known <= sequence) {
                    last = Some((sequence, outcome));
                }
            }
        }
        let (_, outcome) = last?;
        is_unwritten(&self.bytes[told..]).then_some(outcome)
    }

    /// The successor that a seal names which can still be read, although a batch before it is damaged.
    pub(crate) fn surviving_seal(&self) -> Option<u64> {
        let rest = &self.bytes[self.at..];
        rest.chunks_exact(SECTOR_BYTES).enumerate().find_map(|(n, sector)| {
            let at = (self.at + n * SECTOR_BYTES) as u64;
            let header = BatchHeader::read(sector, self.salt, self.segment, at)?;
            match header.records(sector).ok()?.as_slice() {
                [(_, Record::Seal(next))] => Some(*next),
                _ => None,
            }
        })
    }

    /// Looks behind the next `skip` bytes for a batch written when what stands here was durable.
    fn proof_of_durability(&self, skip: usize) -> Option<String> {
        let mut at = self.at + skip;
        while let Some(sector) = self.bytes.get(at..at + BATCH_HEADER_BYTES) {
            let header = BatchHeader::read(sector, self.salt, self.segment, at as u64);
            if header.is_some_and(|header| header.frame.durable_offset > self.offset()) {
                return Some(format!("the batch at offset {at} shows that it was durable once"));
            }
            at += SECTOR_BYTES;
        }
        None
    }

    fn torn(&self) -> End {
        let rest = &self.bytes[self.at..];
        let mut sectors = rest.chunks(SECTOR_BYTES);
        let written = sectors.rposition(|sector| !is_unwritten(sector)).map_or(0, |n| n + 1);
        End::Torn { bytes: (written * SECTOR_BYTES).min(rest.len()) as u64 }
    }
}

fn damaged(what: &str) -> Step {
    Step::End(End::Damaged { what: what.to_owned() })
}

#[cfg(test)]
mod tests {
    use raft_core::{HardState, LogIndex, LogPosition, Term};

    use super::super::batch::{Encoder, Frame};
    use super::*;

    const SALT: u64 = 0x5EED;
    const START: usize = 4096;

    /// A segment of three batches, the middle one of two sectors; `durable` tells the durable
    /// offset that each batch carries, given its own.
    fn segment(durable: impl Fn(u64) -> u64) -> Vec<u8> {
        let mut bytes = vec![0; START + 8 * SECTOR_BYTES];
        let (mut at, mut chain) = (START, 9);
        for (sequence, records) in [3, 15, 3].into_iter().enumerate() {
            let mut out = Vec::new();
            let frame = Frame {
                salt: SALT,
                segment: 1,
                offset: at as u64,
                sequence: sequence as u64,
                previous_chain: chain,
                durable_offset: durable(at as u64),
            };
            let mut encoder = Encoder::new(&mut out, frame);
            for n in 0..records {
                let term = Term(n + 1);
                encoder.hard_state(GroupId(0), HardState { term, voted_for: None });
                encoder.truncate(GroupId(0), LogIndex(n));
            }
            chain = encoder.finish(outcome(sequence as u64));
            bytes[at..at + out.len()].copy_from_slice(&out);
            at += out.len();
        }
        bytes
    }

    fn outcome(sequence: u64) -> Outcome {
        Outcome { last: LogPosition::new(Term(1), LogIndex(sequence)), ..Outcome::default() }
    }

    fn walk(bytes: &[u8]) -> (usize, u64, End) {
        let mut walker = Walker::new(bytes, SALT, 1, START, 9);
        for batches in 0.. {
            match walker.step() {
                Step::Batch(_) => {}
                Step::End(end) => return (batches, walker.offset(), end),
            }
        }
        unreachable!("a walk ends")
    }

    fn erase(bytes: &mut [u8], sector: usize) {
        bytes[START + sector * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
    }

    // The first batch is sector 0, the second the sectors 1 to 4, the third sector 5.
    #[test]
    fn a_whole_segment_ends_clean() {
        assert_eq!(walk(&segment(|own| own)), (3, (START + 6 * SECTOR_BYTES) as u64, End::Clean));
    }

    #[test]
    fn missing_sectors_of_the_last_batch_are_torn() {
        for sector in 1..5 {
            let mut bytes = segment(|own| own);
            erase(&mut bytes, 5);
            erase(&mut bytes, sector);
            let (batches, _, end) = walk(&bytes);
            assert_eq!(batches, 1);
            assert!(matches!(end, End::Torn { .. }), "{sector}: {end:?}");
        }
    }

    #[test]
    fn missing_sectors_before_a_batch_that_knew_them_durable_are_damage() {
        for sector in 0..5 {
            let mut bytes = segment(|own| own);
            erase(&mut bytes, sector);
            let (_, _, end) = walk(&bytes);
            assert!(matches!(end, End::Damaged { .. }), "{sector}: {end:?}");
        }
    }

    #[test]
    fn missing_sectors_before_batches_of_the_same_sync_are_torn() {
        for sector in 0..5 {
            let mut bytes = segment(|_| START as u64);
            erase(&mut bytes, sector);
            let (_, _, end) = walk(&bytes);
            assert!(matches!(end, End::Torn { .. }), "{sector}: {end:?}");
        }
    }

    #[test]
    fn a_changed_sector_is_damage_wherever_it_is() {
        for at in (START..START + 6 * SECTOR_BYTES).step_by(3) {
            let mut bytes = segment(|_| START as u64);
            bytes[at] ^= 0x10;
            let (_, _, end) = walk(&bytes);
            assert!(matches!(end, End::Damaged { .. }), "{at}: {end:?}");
        }
    }

    /// Whatever single place is damaged, the outcome of the last batch is known: header and trailer
    /// would have to go both. Only the last batch of a single sector can lose both in one sector.
    #[test]
    fn the_last_outcome_survives_damage_to_either_of_its_copies() {
        let survivor = |bytes: &[u8]| {
            let mut walker = Walker::new(bytes, SALT, 1, START, 9);
            while matches!(walker.step(), Step::Batch(_)) {}
            walker.surviving_outcome()
        };
        let whole = segment(|own| own);
        for at in START..START + 6 * SECTOR_BYTES {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            assert_eq!(survivor(&bytes), Some(outcome(2)), "{at}");
        }
        let mut bytes = whole.clone();
        bytes[START + 5 * SECTOR_BYTES..][..SECTOR_BYTES].fill(0xA5);
        assert_eq!(survivor(&bytes), None, "the last batch is gone, and was written");
        let mut bytes = whole;
        bytes[START + 5 * SECTOR_BYTES..][..SECTOR_BYTES].fill(0);
        bytes[START + SECTOR_BYTES + 7] ^= 1;
        assert_eq!(survivor(&bytes), Some(outcome(1)), "the last batch never arrived");
    }

    /// To the last byte of the file, and not behind it.
    #[test]
    fn an_outcome_survives_at_the_very_end_and_not_if_its_batch_is_cut_off() {
        let survivor = |bytes: &[u8]| Walker::new(bytes, SALT, 1, START, 9).surviving_outcome();
        let mut full = segment(|own| own);
        full.truncate(START + 6 * SECTOR_BYTES);
        full[START + 5 * SECTOR_BYTES + 10] ^= 1;
        assert_eq!(survivor(&full), Some(outcome(2)), "the trailer tells");
        for sectors in 2..5 {
            let mut cut_off = segment(|own| own);
            cut_off.truncate(START + sectors * SECTOR_BYTES);
            assert_eq!(survivor(&cut_off), None, "something follows that is not all there");
        }
    }

    #[test]
    fn a_recycled_block_does_not_validate() {
        let bytes = segment(|own| own);
        let mut other_salt = Walker::new(&bytes, SALT + 1, 1, START, 9);
        assert!(matches!(other_salt.step(), Step::End(End::Damaged { .. })));
        let mut other_segment = Walker::new(&bytes, SALT, 2, START, 9);
        assert!(matches!(other_segment.step(), Step::End(End::Damaged { .. })));
        let mut other_past = Walker::new(&bytes, SALT, 1, START, 8);
        assert!(matches!(other_past.step(), Step::End(End::Damaged { .. })));
    }
}
