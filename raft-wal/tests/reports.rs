//! What an opening reports of a damaged directory, and what it does about it: all of it, word by word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use raft_core::{
    Entry, Incarnation, LogIndex, LogPosition, Membership, Payload, Restored, Snapshot, Term, Write,
};
use raft_wal::inspect::{FileKind, Inspection};
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{Damage as Found, Log, OpenError, OpenedLog, RecoveryReport, WalConfig};
use support::history::{
    HEADERS, append, cast, cut, entries_behind, log_of, reopen, segments, spoil, vote,
};
use support::life::inspector;
use support::snapshots::{CLUSTER, base, content, snapshot};
use support::{command, config, members, node, open};

/// A log of so many entries that was closed, and its segments.
fn closed(entries: u64) -> (SimDisk, Vec<String>) {
    let (disk, log) = log_of(entries);
    log.close().unwrap();
    disk.restart();
    let names = segments(&disk);
    (disk, names)
}

/// Of a directory with these segments, all of them of the usual length.
fn report(segments: &[String], entries: u64) -> RecoveryReport {
    let mut report = RecoveryReport::default();
    report.segments = segments.len() as u64;
    report.bytes = report.segments * config().segment_bytes;
    report.entries = entries;
    report
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term(term), LogIndex(index))
}

fn inspect(disk: &SimDisk) -> Inspection {
    inspector(disk).inspect().unwrap()
}

fn flip(disk: &SimDisk, name: &str, at: u64) {
    assert!(disk.damage(name, &Damage::FlipBit { at, bit: 1 }), "{name} at {at}");
}

#[test]
fn a_whole_log_says_how_large_it_is() {
    let (disk, names) = closed(30);
    assert_eq!(names.len(), 10);
    let summaries = inspector(&disk).segments().unwrap().map(|it| it.unwrap().summary);
    for (summary, id) in summaries.zip(1..) {
        assert_eq!((summary.id, summary.first_id), (id, id), "it stands for itself only");
    }
    assert_eq!(open(&disk).unwrap().report, report(&names, 30));
    let names = segments(&disk);
    let copy = inspector(&disk).segments().unwrap().last().unwrap().unwrap().summary;
    assert_eq!((copy.name.as_str(), copy.id, copy.first_id), (names[9].as_str(), 11, 10));
}

#[test]
fn copies_of_headers_are_counted_and_are_no_damage() {
    let (disk, names) = closed(30);
    flip(&disk, &names[0], 100);
    flip(&disk, &names[3], 4096 + 7);
    assert_eq!(inspect(&disk).damages, []);
    let mut expected = report(&names, 30);
    expected.header_copies_damaged = 2;
    assert_eq!(open(&disk).unwrap().report, expected);
}
