//! One segment: what it says about itself, and its records.

use std::fmt;
use std::vec;

use raft_core::{GroupId, HardState, Incarnation, LogIndex, LogPosition};

use super::{ReadOnly, Record};
use crate::disk::NamedFile;
use crate::error::OpenError;
use crate::format::BLOCK_BYTES;
use crate::format::batch::BATCH_HEADER_BYTES;
use crate::format::header::SegmentHeader;
use crate::recovery::Damage;
use crate::recovery::scan::{Scan, ScannedBatch, SegmentFile};

/// What a segment says about itself, and where and why it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentSummary {
    /// The name of its file.
    pub name: String,
    /// Its number; a newer segment has a greater one.
    pub id: u64,
    /// It stands for all segments with numbers from this one on: less than its own if it is a copy of
    /// others.
    pub first_id: u64,
    /// How many of the two copies of its header are whole. With none, nothing else can be told.
    pub header_copies: u8,
    /// The last entry before it.
    pub base: LogPosition,
    /// The vote as of its start.
    pub hard_state: HardState,
    /// Which of its disks the node ran on.
    pub incarnation: Incarnation,
    /// The last entry that was lost in a repair before; `0@0` if none was.
    pub lost: LogPosition,
    /// The segment that it continues, if it is not the first.
    pub previous: Option<u64>,
    /// The segment that its seal names. One that was written to last has no seal.
    pub sealed_for: Option<u64>,
    /// Batches with records, seals and marks aside, up to its end or to the damage.
    pub batches: u64,
    /// The records in them.
    pub records: u64,
    /// The first and the last entry among them, in the order in which they stand there.
    pub entries: Option<(LogIndex, LogIndex)>,
    /// The last entry of the log as of its end.
    pub last: LogPosition,
    /// Where its data end, in bytes.
    pub data_end: u64,
    /// Was nothing ever written behind its header?
    pub untouched: bool,
    /// Bytes of a torn write at its end; 0 if it ends clean. Nothing of it was acknowledged.
    pub torn_bytes: u64,
    /// What is not as it was written.
    pub damage: Option<Damage>,
}

impl SegmentSummary {
    pub(super) fn of(scan: &Scan) -> Self {
        let header = scan.header.as_ref();
        let copies = match header {
            None => 0,
            Some(_) if scan.copy_damaged => 1,
            Some(_) => 2,
        };
        let records = || scan.batches.iter().flat_map(|batch| &batch.records);
        let index = |(_, record): &(GroupId, Record)| match record {
            Record::Entry(entry) => Some(entry.index),
            _ => None,
        };
        let first = records().find_map(index);
        let last = scan.batches.iter().rev();
        let last = last.flat_map(|batch| batch.records.iter().rev()).find_map(index);
        let hard_state = header.map(|header| header.hard_state).unwrap_or_default();
        Self {
            name: scan.file.name.clone(),
            id: scan.file.id,
            first_id: scan.first_id(),
            header_copies: copies,
            base: header.map(|header| header.base.position).unwrap_or_default(),
            hard_state,
            incarnation: header.map(|header| header.repairs.incarnation).unwrap_or_default(),
            lost: header.map(|header| header.repairs.lost).unwrap_or_default(),
            previous: header.and_then(|header| header.previous).map(|link| link.id),
            sealed_for: scan.sealed_for,
            batches: scan.batches.len() as u64,
            records: records().count() as u64,
            entries: first.zip(last),
            last: scan.outcome().last,
            data_end: scan.link.end,
            untouched: scan.untouched,
            torn_bytes: scan.torn_bytes,
            damage: scan.fault.clone(),
        }
    }
}

/// A segment with its records.
pub struct SegmentContent {
    /// What it says about itself.
    pub summary: SegmentSummary,
    batches: Vec<ScannedBatch>,
}

impl SegmentContent {
    /// The records up to its end or to the damage, in the order in which they were written. The seal
    /// is not among them: [`SegmentSummary::sealed_for`] tells it.
    pub fn into_records(self) -> impl Iterator<Item = LocatedRecord> {
        self.batches.into_iter().flat_map(|batch| {
            let mut offset = batch.offset + BATCH_HEADER_BYTES as u64;
            batch.records.into_iter().map(move |(group, record)| {
                let located = LocatedRecord { offset, group, record };
                offset += located.record.bytes();
                located
            })
        })
    }
}

impl fmt::Debug for SegmentContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentContent({:?})", self.summary)
    }
}

/// A record, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedRecord {
    /// Where in the file, in bytes. What stands there is scrambled.
    pub offset: u64,
    /// The Raft group that it belongs to.
    pub group: GroupId,
    /// What it says.
    pub record: Record,
}

/// The segments of a directory: see [`Inspector::segments`](super::Inspector::segments).
pub struct Segments<'a> {
    pub(super) disk: &'a ReadOnly,
    pub(super) directory: u128,
    pub(super) files: vec::IntoIter<SegmentFile>,
    pub(super) replaced: Vec<String>,
}

impl Segments<'_> {
    /// Segments that are left out: a newer one holds a copy of them.
    #[must_use]
    pub fn replaced(&self) -> &[String] {
        &self.replaced
    }
}

impl Iterator for Segments<'_> {
    /// An error if the file cannot be read, or another version wrote it. Damage is no error here.
    type Item = Result<SegmentContent, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        let file = self.files.next()?;
        let scan = Scan::read(self.disk, file, self.directory);
        Some(scan.map(|scan| {
            let summary = SegmentSummary::of(&scan);
            SegmentContent { summary, batches: scan.batches }
        }))
    }
}

/// The directory that a segment says it belongs to.
pub(super) fn directory_of(disk: &ReadOnly, name: &str) -> Option<u128> {
    let (bytes, _) = NamedFile::read(disk, name, HEADER_BYTES_LOOKED_AT).ok()?;
    SegmentHeader::decode(&bytes).ok().map(|(header, _)| header.directory)
}

/// Both copies of an ordinary header.
const HEADER_BYTES_LOOKED_AT: u64 = 2 * BLOCK_BYTES as u64;
