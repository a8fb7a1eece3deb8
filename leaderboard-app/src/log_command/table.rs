//! The table of files, and a file for programs.

use raft_wal::inspect::{Fate, FileKind, FileSummary};
use serde::Serialize;

use super::dump::state_of;
use super::text;

/// The longest name of a file of ours.
const NAME_COLUMNS: usize = 50;

/// The head of the table: not wider than 80 columns, whatever the terminal has.
pub(super) fn head() -> String {
    format!("{:<NAME_COLUMNS$}  {:<10} {:>7} {:>8}", "FILE", "STATE", "RECORDS", "SIZE")
}

/// A file in the table; `None` for `LOCK`, which says nothing.
pub(super) fn row(file: &FileSummary) -> Option<String> {
    if matches!(file.kind, FileKind::Lock) {
        return None;
    }
    let name = text::printable(&file.name);
    let state = state(&file.kind);
    let records = match &file.kind {
        FileKind::Segment(segment) if segment.header_copies > 0 => segment.records.to_string(),
        _ => String::new(),
    };
    let size = file.bytes.map(text::size).unwrap_or_default();
    let row = format!("{name:<NAME_COLUMNS$}  {state:<10} {records:>7} {size:>8}");
    Some(row.trim_end().to_owned())
}

fn state(kind: &FileKind) -> &'static str {
    match kind {
        FileKind::Lock => "lock",
        FileKind::Segment(segment) if segment.header_copies == 1 && segment.damage.is_none() => {
            "one copy"
        }
        FileKind::Segment(segment) => state_of(segment),
        FileKind::Identity(Ok(())) | FileKind::Snapshot(Ok(_)) => "whole",
        FileKind::Identity(Err(_)) | FileKind::Snapshot(Err(_)) => "damaged",
        FileKind::Replaced => "replaced",
        FileKind::Temporary => "temporary",
        FileKind::PutAside => "put aside",
        FileKind::Unreadable(_) => "unreadable",
        // One of others, or of a kind that a later version of the library tells.
        _ => "foreign",
    }
}

/// A file for programs.
#[derive(Serialize)]
pub(super) struct FileField<'a> {
    name: &'a str,
    kind: &'static str,
    state: &'static str,
    bytes: Option<u64>,
    /// What a start would do with it.
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<SegmentField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotField>,
}

#[derive(Serialize)]
struct SegmentField {
    id: u64,
    base_index: u64,
    base_term: u64,
    header_copies: u8,
    batches: u64,
    records: u64,
    first_index: Option<u64>,
    last_index: Option<u64>,
    torn_bytes: u64,
}

#[derive(Serialize)]
struct SnapshotField {
    index: u64,
    term: u64,
    bytes: u64,
    digest: String,
}

impl<'a> FileField<'a> {
    pub(super) fn of(file: &'a FileSummary) -> Self {
        let segment = match &file.kind {
            FileKind::Segment(segment) => Some(SegmentField {
                id: segment.id,
                base_index: segment.base.index.0,
                base_term: segment.base.term.0,
                header_copies: segment.header_copies,
                batches: segment.batches,
                records: segment.records,
                first_index: segment.entries.map(|(first, _)| first.0),
                last_index: segment.entries.map(|(_, last)| last.0),
                torn_bytes: segment.torn_bytes,
            }),
            _ => None,
        };
        let snapshot = match &file.kind {
            FileKind::Snapshot(Ok(snapshot)) => Some(SnapshotField {
                index: snapshot.base.position.index.0,
                term: snapshot.base.position.term.0,
                bytes: snapshot.length,
                digest: format!("{:032x}", snapshot.digest),
            }),
            _ => None,
        };
        Self {
            name: &file.name,
            kind: kind(&file.kind),
            state: state(&file.kind),
            bytes: file.bytes,
            fate: fate(file.fate),
            segment,
            snapshot,
        }
    }
}

fn kind(kind: &FileKind) -> &'static str {
    match kind {
        FileKind::Lock => "lock",
        FileKind::Identity(_) => "identity",
        FileKind::Segment(_) | FileKind::Replaced => "segment",
        FileKind::Snapshot(_) => "snapshot",
        FileKind::Temporary => "temporary",
        FileKind::PutAside => "broken",
        FileKind::Unreadable(_) => "unreadable",
        _ => "foreign",
    }
}

fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::WrittenAgain => "written_again",
        Fate::Removed => "removed",
        Fate::PutAside => "put_aside",
        _ => "stays",
    }
}
