//! Reading one segment: what it says, and where and why it ends.

use std::ops::RangeInclusive;

use raft_core::{GroupId, LogIndex};

use crate::config::SEGMENT_FILE_BYTES_MAX;
use crate::disk::{Disk, NamedFile};
use crate::error::OpenError;
use crate::format::batch::Outcome;
use crate::format::header::{HeaderError, Link, SegmentHeader};
use crate::format::record::Record;
use crate::format::walk::{Batch, End, Step, Walker};
use crate::recovery::Damage;

const SEGMENT_PREFIX: &str = "segment-";

/// Segments are numbered one by one from 1. No log gets to the end of this, so there is always a next
/// number.
const IDS: RangeInclusive<u64> = 1..=1 << 62;

/// The name of a segment: its base index and its number, both with 20 digits so that they sort.
pub(crate) fn segment_name(base: LogIndex, id: u64) -> String {
    format!("{SEGMENT_PREFIX}{:020}-{id:020}", base.0)
}

/// What damaged files are renamed to end with.
pub(crate) const BROKEN_SUFFIX: &str = ".broken";

/// A file whose name is that of a segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    base: u64,
    pub(crate) id: u64,
}

/// A data batch of a segment.
#[derive(Clone, Debug)]
pub(crate) struct ScannedBatch {
    pub(crate) offset: u64,
    pub(crate) outcome: Outcome,
    pub(crate) records: Vec<(GroupId, Record)>,
}

/// A segment that was read, as far as it could be.
pub(crate) struct Scan {
    pub(crate) file: SegmentFile,
    /// Its length.
    pub(crate) bytes: u64,
    /// What it says about itself; `None` if that is damaged, and with it all of the segment.
    pub(crate) header: Option<SegmentHeader>,
    /// One of the two copies of the header is damaged.
    pub(crate) copy_damaged: bool,
    /// What stands behind the header, without seals and markers, up to the end or the fault.
    pub(crate) batches: Vec<ScannedBatch>,
    /// Where its data end: what a successor must name.
    pub(crate) link: Link,
    /// The successor that its seal names, also if that stands behind the fault.
    pub(crate) sealed_for: Option<u64>,
    /// Was nothing ever written behind its header?
    pub(crate) untouched: bool,
    pub(crate) torn_bytes: u64,
    /// Something that was written has changed.
    pub(crate) fault: Option<Damage>,
    /// What the segment's last batch left behind in spite of the fault, if that can be told.
    pub(crate) surviving: Option<Outcome>,
}

/// The segments among these names, in the order of their numbers.
pub(crate) fn segment_files(names: &[String]) -> Result<Vec<SegmentFile>, OpenError> {
    let mut files = Vec::new();
    for name in names {
        let Some(rest) = name.strip_prefix(SEGMENT_PREFIX) else { continue };
        if name.ends_with(BROKEN_SUFFIX) {
            continue;
        }
        let numbers = rest.split_once('-');
        let numbers = numbers.and_then(|(base, id)| Some((base.parse().ok()?, id.parse().ok()?)));
        match numbers {
            // Spelled back, so that there is one spelling.
            Some((base, id)) if IDS.contains(&id) && segment_name(LogIndex(base), id) == *name => {
                files.push(SegmentFile { name: name.clone(), base, id });
            }
            _ => return Err(OpenError::misnamed(name)),
        }
    }
    files.sort_unstable_by_key(|file| (file.id, file.base));
    Ok(files)
}

/// A segment may be a copy of others that are still there, or there again: the run that copied them
/// ended before it had removed them for good. Takes those out and returns their names.
pub(crate) fn take_replaced(
    disk: &dyn Disk,
    directory: u128,
    files: &mut Vec<SegmentFile>,
) -> Result<Vec<String>, OpenError> {
    let mut replaced = Vec::new();
    let mut kept = Vec::new();
    let mut covered_from = u64::MAX;
    for file in files.drain(..).rev() {
        if file.id >= covered_from {
            replaced.push(file.name);
            continue;
        }
        let (bytes, _) = NamedFile::read(disk, &file.name, HEADER_BYTES_LOOKED_AT)?;
        // A header that is not as it should be covers nothing here, and is judged when its turn
        // comes.
        let header = SegmentHeader::decode(&bytes).ok().map(|(header, _)| header);
        let header = header.filter(|h| (h.id, h.directory) == (file.id, directory));
        covered_from = header.map_or(file.id, |header| header.first_id);
        kept.push(file);
    }
    kept.reverse();
    *files = kept;
    Ok(replaced)
}

/// More than both copies of a header of 8,000 members.
const HEADER_BYTES_LOOKED_AT: u64 = 160 << 10;

impl Scan {
    /// Reads a segment.
    ///
    /// # Errors
    /// If the disk fails, or another version wrote the segment. Damage is no error here.
    pub(crate) fn read(
        disk: &dyn Disk,
        file: SegmentFile,
        directory: u128,
    ) -> Result<Self, OpenError> {
        let mut content = Vec::new();
        Ok(Self::begin(&mut content, disk, file, directory)?.complete(&content))
    }

    /// Reads a segment into `content`, and looks no further than at its header. The disk is needed for
    /// this part only.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn begin(
        content: &mut Vec<u8>,
        disk: &dyn Disk,
        file: SegmentFile,
        directory: u128,
    ) -> Result<Self, OpenError> {
        // No header says the length of a file that is longer than this.
        let length = NamedFile::read_into(content, disk, &file.name, SEGMENT_FILE_BYTES_MAX)?;
        let decoded = SegmentHeader::decode(content);
        let (header, intact) = match decoded {
            Ok(decoded) => decoded,
            Err(HeaderError::Version(found)) => {
                return Err(OpenError::UnsupportedVersion { file: file.name, found });
            }
            Err(HeaderError::Invalid(what)) => return Ok(Self::unreadable(file, length, what)),
        };
        let wrong = if header.directory != directory {
            Some("it belongs to another directory")
        } else if header.file_bytes != length {
            Some("its length changed")
        } else if (header.base.position.index.0, header.id) != (file.base, file.id) {
            Some("it is not the segment that its name says")
        } else {
            None
        };
        if let Some(what) = wrong {
            return Ok(Self::unreadable(file, length, what));
        }
        Ok(Self {
            copy_damaged: !intact,
            link: Link { id: header.id, end: header.bytes(), chain: header.chain() },
            header: Some(header),
            fault: None,
            ..Self::unreadable(file, length, "")
        })
    }

    /// Takes in what stands behind the header, if that makes sense.
    pub(crate) fn complete(mut self, content: &[u8]) -> Self {
        if let Some(header) = self.header.take() {
            self.walk(&header, content);
            self.header = Some(header);
        }
        self
    }

    fn unreadable(file: SegmentFile, bytes: u64, what: &str) -> Self {
        let fault = Damage { file: file.name.clone(), offset: 0, what: what.to_owned() };
        Self {
            link: Link { id: file.id, end: 0, chain: 0 },
            file,
            bytes,
            header: None,
            copy_damaged: false,
            batches: Vec::new(),
            sealed_for: None,
            untouched: false,
            torn_bytes: 0,
            fault: Some(fault),
            surviving: None,
        }
    }

    /// Reads what stands behind the header, up to a clean or torn end or to a fault.
    fn walk(&mut self, header: &SegmentHeader, bytes: &[u8]) {
        let Link { end, chain, .. } = self.link;
        // The header was decoded from memory, so its length fits.
        let mut walker = Walker::new(bytes, header.salt, header.id, end as usize, chain);
        self.untouched = walker.nothing_follows();
        loop {
            let fault = match walker.step() {
                Step::Batch(batch) => match self.take(batch) {
                    Ok(true) => {
                        let (end, chain) = (walker.offset(), walker.chain());
                        self.link = Link { end, chain, ..self.link };
                        continue;
                    }
                    Ok(false) => continue,
                    Err((offset, what)) => (offset, what.to_owned()),
                },
                Step::End(End::Clean) => return,
                Step::End(End::Torn { bytes }) if self.sealed_for.is_none() => {
                    self.torn_bytes = bytes;
                    return;
                }
                Step::End(End::Torn { .. }) => {
                    (walker.offset(), "something stands behind the seal".to_owned())
                }
                Step::End(End::Damaged { what }) => (walker.offset(), what),
            };
            self.surviving = walker.surviving_outcome();
            self.sealed_for = self.sealed_for.or_else(|| walker.surviving_seal());
            self.set_fault(fault.0, fault.1);
            return;
        }
    }

    /// Takes a batch over; true if it holds more than a seal.
    fn take(&mut self, batch: Batch) -> Result<bool, (u64, &'static str)> {
        let offset = batch.header.frame.offset;
        if self.sealed_for.is_some() {
            return Err((offset, "a batch stands behind the seal"));
        }
        match batch.records.as_slice() {
            [] => {}
            [(_, Record::Seal(next))] => {
                self.sealed_for = Some(*next);
                return Ok(false);
            }
            records if records.iter().any(|(_, record)| record.is_seal()) => {
                return Err((offset, "a seal stands among other records"));
            }
            _ => {
                let (outcome, records) = (batch.header.outcome, batch.records);
                self.batches.push(ScannedBatch { offset, outcome, records });
            }
        }
        Ok(true)
    }

    /// What its last batch leaves behind.
    pub(crate) fn outcome(&self) -> Outcome {
        let at_start = || {
            self.header
                .as_ref()
                .map(|it| Outcome { hard_state: it.hard_state, last: it.base.position })
        };
        let last = self.batches.last().map(|batch| batch.outcome);
        last.or_else(at_start).unwrap_or_default()
    }

    pub(crate) fn set_fault(&mut self, offset: u64, what: String) {
        self.fault = Some(Damage { file: self.file.name.clone(), offset, what });
    }

    /// The lowest number of a segment that this one stands for.
    pub(crate) fn first_id(&self) -> u64 {
        self.header.as_ref().map_or(self.file.id, |header| header.first_id)
    }

    /// Does this segment, the last one or not, continue `previous`, all of it? Else what is wrong.
    pub(crate) fn break_behind(&self, previous: &Self, is_last: bool) -> Option<Damage> {
        if previous.fault.is_some() {
            return previous.fault.clone();
        }
        let Some(header) = &self.header else { return self.fault.clone() };
        let here = |what: String| Some(Damage { file: self.file.name.clone(), offset: 0, what });
        let behind = |what: String| {
            let (file, offset) = (previous.file.name.clone(), previous.link.end);
            Some(Damage { file, offset, what })
        };
        match header.previous {
            Some(link) if link == previous.link => {}
            Some(link) if link.id == previous.link.id => {
                return behind(format!(
                    "its data do not end as the next segment, number {}, says: at offset {}",
                    header.id, link.end
                ));
            }
            _ => return here("the segment before it is missing".to_owned()),
        }
        // A seal has its successor; and whatever has a successor with data in it has a seal.
        match previous.sealed_for {
            Some(next) if (header.first_id..=header.id).contains(&next) => None,
            Some(next) => here(format!("segment {next} should stand before it, and is missing")),
            None if is_last && self.untouched => None,
            None => behind("its seal is gone, and a later segment holds data".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
