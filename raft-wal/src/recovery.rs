//! Opening a directory: whose it is, what its segments say, and whether all of it is there.

use std::sync::Arc;

use raft_core::{Entry, GroupId, HardState, LogBase, LogIndex, LogPosition, Restored, Timestamp};

use crate::config::{SEGMENT_FILE_BYTES_MAX, WalConfig};
use crate::disk::{Disk, NamedFile, remove, sync_directory};
use crate::error::{DiskError, OpenError};
use crate::format::header::{HeaderError, Link, SegmentHeader};
use crate::format::record::Record;
use crate::format::walk::{End, Step, Walker};
use crate::identity::{IDENTITY_FILE, Stored, remove_temporary_files};
use crate::log::{Log, OpenedLog};
use crate::state::LogState;

const SEGMENT_PREFIX: &str = "segment-";

/// The name of a segment: its base index and its number, both with 20 digits so that they sort.
pub(crate) fn segment_name(base: LogIndex, id: u64) -> String {
    format!("{SEGMENT_PREFIX}{:020}-{id:020}", base.0)
}

/// What recovery read, and what it found torn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments read.
    pub segments: u64,
    /// Their bytes, unused room included.
    pub bytes: u64,
    /// Entries in the log now.
    pub entries: u64,
    /// Bytes of the torn write at the end that was dropped; 0 if the end was clean. Nothing of it
    /// had been acknowledged.
    pub torn_bytes: u64,
    /// Was one of the two copies of the identity damaged? It was written anew.
    pub identity_repaired: bool,
    /// Was the directory new?
    pub created: bool,
}

/// What has to be written again before anything new.
pub(crate) struct Tail {
    /// The header of the segment that the tail is in.
    pub(crate) header: SegmentHeader,
    /// What stands behind it, without seals and empty batches.
    pub(crate) batches: Vec<Vec<(GroupId, Record)>>,
    /// The number for the segment that replaces it.
    pub(crate) next_id: u64,
}

/// A file whose name is that of a segment.
#[derive(Debug)]
struct SegmentFile {
    name: String,
    base: u64,
    id: u64,
}

/// A segment that was read and found whole, apart from a torn end.
struct ReadSegment {
    name: String,
    header: SegmentHeader,
    batches: Vec<Vec<(GroupId, Record)>>,
    /// Where its data end: what a successor must name.
    link: Link,
    /// The successor that its seal names.
    sealed_for: Option<u64>,
    /// Was nothing ever written behind its header?
    untouched: bool,
    torn_bytes: u64,
}

/// The log, put together record by record.
struct Replay {
    state: LogState,
    entries: Vec<Entry>,
}

/// See [`Log::open`].
pub(crate) fn open(disk: Arc<dyn Disk>, config: &WalConfig) -> Result<OpenedLog, OpenError> {
    let names = disk.list().map_err(DiskError::of("list", &config.dir.display().to_string()))?;
    let files = segment_files(&names)?;
    let (stored, intact) = identify(disk.as_ref(), config, &names, &files)?;
    let incarnation = stored.identity.incarnation;
    let recovered = if files.is_empty() {
        create(config, &stored)?
    } else {
        read_segments(disk.as_ref(), incarnation, files)?
    };
    let Recovered { first, replay, tail, obsolete, mut report } = recovered;
    let log = Log::start(disk, config, incarnation, &tail, replay.state)?;
    if !obsolete.is_empty() {
        for name in &obsolete {
            remove(log.disk(), name)?;
        }
        sync_directory(log.disk())?;
    }
    let identity = stored.identity.clone();
    if !stored.established || !intact {
        // From here on there is a segment, and its absence is noticed.
        Stored { established: true, ..stored }.store(log.disk())?;
    }
    report.identity_repaired = !intact;
    report.entries = replay.entries.len() as u64;
    let restored = Restored {
        hard_state: log.hard_state(),
        entries: replay.entries,
        // A log that was never compacted stands on the members that the cluster started with.
        base: LogBase {
            position: first.base,
            timestamp: first.base_timestamp,
            membership_index: first.base.index,
            membership: first.membership.clone(),
        },
        ..Restored::empty(first.membership)
    };
    tracing::info!(dir = %config.dir.display(), ?report, "opened the log");
    if report.torn_bytes > 0 {
        tracing::warn!(bytes = report.torn_bytes, "dropped a torn write, never acknowledged");
    }
    Ok(OpenedLog { log, restored, identity, report })
}

/// Everything that was found out before the first write.
struct Recovered {
    first: SegmentHeader,
    replay: Replay,
    tail: Tail,
    obsolete: Vec<String>,
    report: RecoveryReport,
}

fn segment_files(names: &[String]) -> Result<Vec<SegmentFile>, OpenError> {
    let mut files = Vec::new();
    for name in names.iter().filter(|name| name.starts_with(SEGMENT_PREFIX)) {
        let parts = name[SEGMENT_PREFIX.len()..].split_once('-');
        let numbers = parts.and_then(|(base, id)| Some((base.parse().ok()?, id.parse().ok()?)));
        match numbers {
            // Spelled back, so that there is one spelling.
            Some((base, id)) if segment_name(LogIndex(base), id) == *name => {
                files.push(SegmentFile { name: name.clone(), base, id });
            }
            _ => return Err(OpenError::corrupt(name, 0, "no segment has such a name")),
        }
    }
    files.sort_unstable_by_key(|file| (file.id, file.base));
    Ok(files)
}

/// Whose directory it is: as stored, or new if it is empty; and whether what was stored is intact.
fn identify(
    disk: &dyn Disk,
    config: &WalConfig,
    names: &[String],
    files: &[SegmentFile],
) -> Result<(Stored, bool), OpenError> {
    if names.iter().any(|name| name == IDENTITY_FILE) {
        let (stored, intact) = Stored::load(disk)?;
        stored.check_owner(config)?;
        remove_temporary_files(disk, names)?;
        if !stored.established {
            // Its name may never have become durable; segments must not outlive it.
            stored.store(disk)?;
        }
        return Ok((stored, intact));
    }
    if !files.is_empty() {
        let what = "it is missing, and there are segments that belong to somebody";
        return Err(OpenError::corrupt(IDENTITY_FILE, 0, what));
    }
    remove_temporary_files(disk, names)?;
    let stored = Stored::draw(disk, config)?;
    stored.store(disk)?;
    Ok((stored, true))
}

/// A log that holds nothing yet.
fn create(config: &WalConfig, stored: &Stored) -> Result<Recovered, OpenError> {
    if stored.established {
        let what = "all segments are missing";
        return Err(OpenError::corrupt("the directory", 0, what));
    }
    let header = SegmentHeader {
        salt: 0,
        incarnation: stored.identity.incarnation,
        id: 1,
        file_bytes: 0,
        first_id: 1,
        previous: None,
        hard_state: HardState::default(),
        base: LogPosition::default(),
        base_timestamp: Timestamp::default(),
        membership: config.membership.clone(),
    };
    let state = LogState::at_start_of(&header);
    Ok(Recovered {
        first: header.clone(),
        replay: Replay { state, entries: Vec::new() },
        tail: Tail { header, batches: Vec::new(), next_id: 1 },
        obsolete: Vec::new(),
        report: RecoveryReport { created: true, ..RecoveryReport::default() },
    })
}

/// Reads the segments in order and joins them, or says what does not fit.
fn read_segments(
    disk: &dyn Disk,
    incarnation: u128,
    mut files: Vec<SegmentFile>,
) -> Result<Recovered, OpenError> {
    let mut report = RecoveryReport::default();
    let mut obsolete = drop_replaced(disk, incarnation, &mut files)?;
    let last_id = files.last().map_or(0, |file| file.id);
    let mut start: Option<(SegmentHeader, Replay)> = None;
    let mut previous: Option<ReadSegment> = None;
    let mut last: Option<ReadSegment> = None;
    for file in &files {
        previous = last.take();
        let (header, bytes) = read_header(disk, file, incarnation)?;
        report.segments += 1;
        report.bytes += bytes.len() as u64;
        let (_, replay) = match (&mut start, &previous) {
            (None, _) => {
                check_first(file, &header)?;
                let state = LogState::at_start_of(&header);
                start.insert((header.clone(), Replay { state, entries: Vec::new() }))
            }
            (Some(start), Some(previous)) => {
                check_link(previous, file, &header)?;
                if !start.1.state.is_start_of(&header) {
                    let what = "its header contradicts the segments before it";
                    return Err(OpenError::corrupt(&file.name, 0, what));
                }
                start
            }
            (Some(_), None) => unreachable!("a segment was read before this one"),
        };
        let segment = read_batches(file, header, &bytes, replay)?;
        check_seal(previous.as_ref(), &segment, file.id == last_id)?;
        report.torn_bytes += segment.torn_bytes;
        last = Some(segment);
    }
    let (Some((first, replay)), Some(last)) = (start, last) else {
        unreachable!("there is at least one segment")
    };
    // A successor that holds nothing was being prepared when the last run ended. Whether the seal
    // before it ever became durable is unknown: the tail is the one before.
    let tail = match previous {
        Some(previous) if last.untouched => {
            obsolete.push(last.name);
            previous
        }
        _ => last,
    };
    obsolete.push(tail.name);
    let next_id = last_id.checked_add(1);
    let next_id =
        next_id.ok_or_else(|| OpenError::corrupt("the directory", 0, "no number left"))?;
    let tail = Tail { header: tail.header, batches: tail.batches, next_id };
    Ok(Recovered { first, replay, tail, obsolete, report })
}

/// A segment may be a copy of a tail whose originals are still there, or there again: the run that
/// copied it ended before it had removed them for good. Takes those out and returns their names.
fn drop_replaced(
    disk: &dyn Disk,
    incarnation: u128,
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
        let header = header.filter(|h| (h.id, h.incarnation) == (file.id, incarnation));
        covered_from = header.map_or(file.id, |header| header.first_id);
        kept.push(file);
    }
    kept.reverse();
    *files = kept;
    Ok(replaced)
}

/// More than a header of 8,000 members.
const HEADER_BYTES_LOOKED_AT: u64 = 64 << 10;

/// The bytes of a segment, and its header if it is that of this file.
fn read_header(
    disk: &dyn Disk,
    file: &SegmentFile,
    incarnation: u128,
) -> Result<(SegmentHeader, Vec<u8>), OpenError> {
    let corrupt = |what| OpenError::corrupt(&file.name, 0, what);
    let (bytes, length) = NamedFile::read(disk, &file.name, SEGMENT_FILE_BYTES_MAX)?;
    if length > SEGMENT_FILE_BYTES_MAX {
        return Err(corrupt("no segment is that long"));
    }
    let (header, _) = SegmentHeader::decode(&bytes).map_err(|error| match error {
        HeaderError::Version(found) => {
            OpenError::UnsupportedVersion { file: file.name.clone(), found }
        }
        HeaderError::Invalid(what) => corrupt(what),
    })?;
    if header.incarnation != incarnation {
        return Err(corrupt("it belongs to another directory"));
    }
    if header.file_bytes != length {
        return Err(corrupt("its length changed"));
    }
    if (header.base.index.0, header.id) != (file.base, file.id) {
        return Err(corrupt("it is not the segment that its name says"));
    }
    Ok((header, bytes))
}

fn check_first(file: &SegmentFile, header: &SegmentHeader) -> Result<(), OpenError> {
    match header.previous {
        None => Ok(()),
        Some(Link { id, .. }) => {
            let what = format!("the segment before it, number {id}, is missing");
            Err(OpenError::corrupt(&file.name, 0, what))
        }
    }
}

/// Does the segment with this header continue `previous`, all of it?
fn check_link(
    previous: &ReadSegment,
    file: &SegmentFile,
    header: &SegmentHeader,
) -> Result<(), OpenError> {
    match header.previous {
        Some(link) if link == previous.link => Ok(()),
        Some(link) if link.id == previous.link.id => {
            let what = format!(
                "its data do not end as the next segment, number {}, says: at offset {}",
                header.id, link.end
            );
            Err(OpenError::corrupt(&previous.name, previous.link.end, what))
        }
        _ => Err(OpenError::corrupt(&file.name, 0, "the segment before it is missing")),
    }
}

/// A seal has its successor; and whatever has a successor with data in it has a seal.
fn check_seal(
    previous: Option<&ReadSegment>,
    segment: &ReadSegment,
    is_last: bool,
) -> Result<(), OpenError> {
    if let Some(next) = segment.sealed_for.filter(|_| is_last) {
        let what = format!("it is sealed, and segment {next}, which follows it, is missing");
        return Err(OpenError::corrupt(&segment.name, segment.link.end, what));
    }
    let Some(previous) = previous else {
        return Ok(());
    };
    match previous.sealed_for {
        Some(next) if (segment.header.first_id..=segment.header.id).contains(&next) => Ok(()),
        Some(next) => {
            let what = format!("segment {next} should stand before it, and is missing");
            Err(OpenError::corrupt(&segment.name, 0, what))
        }
        None if is_last && segment.untouched => Ok(()),
        None => {
            let what = "its seal is gone, and a later segment holds data";
            Err(OpenError::corrupt(&previous.name, previous.link.end, what))
        }
    }
}

/// Reads what stands behind the header, up to a clean or torn end.
fn read_batches(
    file: &SegmentFile,
    header: SegmentHeader,
    bytes: &[u8],
    replay: &mut Replay,
) -> Result<ReadSegment, OpenError> {
    let encoded = header.encode();
    let start = encoded.len();
    let chain = SegmentHeader::chain(&encoded);
    let mut walker = Walker::new(bytes, header.salt, header.id, start, chain);
    let mut segment = ReadSegment {
        name: file.name.clone(),
        link: Link { id: header.id, end: start as u64, chain: walker.chain() },
        header,
        batches: Vec::new(),
        sealed_for: None,
        untouched: walker.nothing_follows(),
        torn_bytes: 0,
    };
    loop {
        let corrupt = |offset, what: String| OpenError::corrupt(&file.name, offset, what);
        match walker.step() {
            Step::Batch(batch) => {
                let offset = batch.header.frame.offset;
                if segment.sealed_for.is_some() {
                    return Err(corrupt(offset, "a batch stands behind the seal".to_owned()));
                }
                for (group, record) in &batch.records {
                    replay.take(*group, record).map_err(|what| {
                        corrupt(offset, format!("a batch contradicts the log before it: {what}"))
                    })?;
                }
                match batch.records.as_slice() {
                    [] => {}
                    [(_, Record::Seal(next))] => {
                        segment.sealed_for = Some(*next);
                        continue;
                    }
                    records if records.iter().any(|(_, record)| record.is_seal()) => {
                        return Err(corrupt(
                            offset,
                            "a seal stands among other records".to_owned(),
                        ));
                    }
                    _ => segment.batches.push(batch.records),
                }
                let end = walker.offset();
                segment.link = Link { end, chain: walker.chain(), ..segment.link };
            }
            Step::End(End::Clean) => return Ok(segment),
            Step::End(End::Torn { bytes }) if segment.sealed_for.is_none() => {
                segment.torn_bytes = bytes;
                return Ok(segment);
            }
            Step::End(End::Torn { .. }) => {
                let what = "something stands behind the seal".to_owned();
                return Err(corrupt(walker.offset(), what));
            }
            Step::End(End::Damaged { what }) => return Err(corrupt(walker.offset(), what)),
        }
    }
}

impl Replay {
    fn take(&mut self, group: GroupId, record: &Record) -> Result<(), String> {
        self.state.apply_record(group, record)?;
        match record {
            Record::Truncate(from) => {
                let kept = self.entries.partition_point(|entry| entry.index < *from);
                self.entries.truncate(kept);
            }
            Record::Entry(entry) => self.entries.push(entry.clone()),
            Record::HardState(_) | Record::Seal(_) => {}
        }
        Ok(())
    }
}
