//! What a node and its driver may do in any order beside the log: snapshots that arrive one after the
//! other, repairs that come too late.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use bytes::Bytes;
use raft_core::{
    Entry, HardState, Incoming, LogBase, LogIndex, LogPosition, Snapshot, Term, Timestamp, Write,
};
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{Log, Repair, SnapshotStore, WalError};
use support::{command, members, open};
use xxhash_rust::xxh3::xxh3_128;

fn snapshot(index: u64, content: &[u8]) -> Snapshot {
    let base = LogBase {
        position: LogPosition::new(Term(2), LogIndex(index)),
        timestamp: Timestamp(index),
        membership: members(&[1, 2, 3]),
        membership_index: LogIndex(0),
    };
    Snapshot { base, length: content.len() as u64, digest: xxh3_128(content) }
}

/// All of it comes from another node.
fn arrives(store: &SnapshotStore, index: u64, content: &'static [u8]) -> Snapshot {
    let snapshot = snapshot(index, content);
    let held = store.store(Incoming::Begin(snapshot.clone())).unwrap();
    if held == Some((snapshot.id(), 0)) {
        let bytes = Bytes::from_static(content);
        let chunk = Incoming::Chunk { snapshot: snapshot.id(), offset: 0, bytes };
        let held = store.store(chunk).unwrap();
        assert_eq!(held, Some((snapshot.id(), snapshot.length)));
    }
    snapshot
}

/// Each with a sync of its own.
fn append(log: &mut Log, vote: Option<HardState>, entries: &[Entry]) {
    for entry in entries {
        log.append(&[Write::detached(vote, None, vec![entry.clone()])]).unwrap();
        log.sync().unwrap();
    }
}

fn install(log: &mut Log, snapshot: &Snapshot) -> Result<(), WalError> {
    let vote = HardState { term: Term(2), voted_for: None };
    log.append(&[Write::detached_snapshot(Some(vote), snapshot.clone(), Vec::new())])?;
    log.sync()
}

/// A leader that has cut another snapshot offers it at once, and the write of the first may still be in
/// the log's queue.
#[test]
fn a_snapshot_that_has_arrived_waits_for_its_write_while_the_next_one_arrives() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let store = log.snapshots().clone();
    let first = arrives(&store, 5, b"five");
    let second = snapshot(9, b"nine");
    store.store(Incoming::Begin(second.clone())).unwrap();
    assert!(store.open(first.id()).unwrap().is_some());
    install(&mut log, &first).unwrap();
    assert_eq!(arrives(&store, 9, b"nine"), second);
    // Two wait for their writes, and one of them is not wanted after all.
    let third = arrives(&store, 12, b"twelve");
    store.store(Incoming::Abandon(third.id())).unwrap();
    assert!(store.open(third.id()).unwrap().is_none());
    install(&mut log, &second).unwrap();
    assert_eq!(store.held(), [first, second.clone()]);
    drop(log);
    disk.crash();
    assert_eq!(open(&disk).unwrap().restored.snapshot, Some(second));
    assert!(disk.names().iter().all(|name| !name.starts_with("incomplete-")), "all is tidy");
}

/// The node was told that nothing is there, and asks for the first piece. It waits for an answer.
#[test]
fn every_piece_is_answered_also_of_a_snapshot_that_found_no_room() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap().log;
    let store = log.snapshots().clone();
    let snapshot = snapshot(5, b"five");
    disk.set_capacity(Some(disk.used_bytes()));
    let full = store.store(Incoming::Begin(snapshot.clone()));
    assert!(full.is_err_and(|error| error.is_no_space()));
    disk.set_capacity(None);
    let bytes = Bytes::from_static(b"five");
    let chunk = Incoming::Chunk { snapshot: snapshot.id(), offset: 0, bytes };
    assert_eq!(store.store(chunk).unwrap(), Some((snapshot.id(), 0)));
    // It gives up, and begins anew when it is offered again.
    store.store(Incoming::Abandon(snapshot.id())).unwrap();
    assert_eq!(arrives(&store, 5, b"five"), snapshot);
}

/// Entries that were never committed may reach further than the snapshot that takes their place.
#[test]
fn a_snapshot_takes_the_place_of_a_longer_log() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(1), voted_for: None };
    let entries = (1..=9).map(|index| command(index, 1, 9)).collect();
    log.append(&[Write::detached(Some(vote), None, entries)]).unwrap();
    log.sync().unwrap();
    let snapshot = arrives(log.snapshots(), 5, b"five");
    install(&mut log, &snapshot).unwrap();
    // So many that the segment with the snapshot is sealed.
    let behind: Vec<Entry> = (6..=30).map(|index| command(index, 2, 700)).collect();
    append(&mut log, None, &behind);
    drop(log);
    disk.crash();
    let opened = open(&disk).unwrap();
    assert_eq!(opened.report.damage, None);
    assert_eq!(opened.restored.base, snapshot.base);
    assert_eq!(opened.restored.entries, behind);
    // The first segment that is needed is damaged: all that is behind the snapshot is wanted.
    let mut log = opened.log;
    let first = disk.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    assert!(disk.damage(&first, &Damage::FlipBit { at: 9000, bit: 1 }));
    assert_eq!(scrub(&mut log), Repair::Entries { after: LogIndex(5) });
    log.rewrite(&behind).unwrap();
    drop(log);
    disk.crash();
    let opened = open(&disk).unwrap();
    assert_eq!(opened.report.damage, None);
    assert_eq!(opened.restored.entries, behind);
}

/// What was lost once is known for ever, also behind a segment that was written before it was lost, and
/// has to be written again.
#[test]
fn a_segment_written_again_does_not_forget_what_was_lost() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(1), voted_for: None };
    let entries: Vec<Entry> = (1..=40).map(|index| command(index, 1, 700)).collect();
    append(&mut log, Some(vote), &entries);
    drop(log);
    disk.crash();
    let segments = disk.names().into_iter().filter(|name| name.starts_with("segment-"));
    let segments: Vec<String> = segments.collect();
    assert!(disk.damage(&segments[3], &Damage::FlipBit { at: 9000, bit: 1 }));
    let opened = open(&disk).unwrap();
    let (lost, incarnation) = (opened.restored.lost, opened.restored.incarnation);
    assert_eq!((lost, incarnation.0), (entries[39].position(), 1));
    let (mut log, kept) = (opened.log, opened.restored.entries.len());
    append(&mut log, None, &entries[kept..]);
    assert!(disk.damage(&segments[1], &Damage::FlipBit { at: 9000, bit: 1 }));
    assert_eq!(scrub(&mut log), Repair::None);
    let Repair::Entries { after } = scrub(&mut log) else { panic!("damage that nobody sees") };
    assert!(after > LogIndex(0));
    log.rewrite(&entries[after.0 as usize..]).unwrap();
    drop(log);
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!((restored.lost, restored.incarnation), (lost, incarnation));
    assert_eq!(restored.entries, entries);
}

/// A log of 40 entries, compacted up to one of them behind a snapshot.
fn compacted() -> (SimDisk, Log, Vec<Entry>, Vec<String>) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(2), voted_for: None };
    let entries: Vec<Entry> = (1..=40).map(|index| command(index, 2, 700)).collect();
    append(&mut log, Some(vote), &entries);
    let base = |index: u64| {
        let timestamp = entries[index as usize - 1].timestamp;
        LogBase { timestamp, ..snapshot(index, b"").base }
    };
    log.snapshots().create(base(38)).unwrap().finish().unwrap();
    log.compact(&base(34)).unwrap();
    let segments = disk.names().into_iter().filter(|name| name.starts_with("segment-"));
    let segments = segments.collect();
    (disk, log, entries, segments)
}

fn scrub(log: &mut Log) -> Repair {
    let scrubbed = log.next_scrub().unwrap().run(|_| true).unwrap();
    log.scrubbed(&scrubbed).unwrap()
}

fn flip_a_bit(disk: &SimDisk, prefix: &str) {
    let name = disk.names().into_iter().find(|name| name.starts_with(prefix)).unwrap();
    let at = if prefix.starts_with("segment") { 9000 } else { 100 };
    assert!(disk.damage(&name, &Damage::FlipBit { at, bit: 1 }));
}

/// A node that starts without its damaged snapshot needs the log that was compacted because of it.
#[test]
fn a_log_that_was_compacted_for_a_damaged_snapshot_is_needed_again() {
    let (disk, log, entries, segments) = compacted();
    drop(log);
    disk.crash();
    flip_a_bit(&disk, "snapshot-");
    let opened = open(&disk).unwrap();
    assert_eq!(
        (opened.restored.base.position, opened.restored.snapshot),
        (LogPosition::ZERO, None)
    );
    assert_eq!(opened.restored.entries, entries);
    let mut log = opened.log;
    flip_a_bit(&disk, &segments[0]);
    assert_eq!(scrub(&mut log), Repair::Entries { after: LogIndex(0) });
    log.rewrite(&entries).unwrap();
    drop(log);
    disk.crash();
    let opened = open(&disk).unwrap();
    assert_eq!((opened.report.damage, opened.restored.entries), (None, entries));
}

/// The same while it runs: until another snapshot is cut, nothing stands for what was compacted.
#[test]
fn without_a_snapshot_nothing_is_dropped() {
    let (disk, mut log, entries, segments) = compacted();
    flip_a_bit(&disk, "snapshot-");
    while scrub(&mut log) != Repair::Snapshot {}
    flip_a_bit(&disk, &segments[0]);
    for _ in &segments {
        scrub(&mut log);
    }
    assert!(segments.iter().all(|segment| disk.names().contains(segment)));
    let repaired = log.rewrite(&entries[34..]);
    assert!(matches!(repaired, Err(WalError::Refused { .. })), "{repaired:?}");
}

/// A repair is asked for, and what it is to begin with is compacted, or cut off, before it is done.
#[test]
fn a_repair_that_was_overtaken_does_no_harm() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(1), voted_for: None };
    let entries: Vec<Entry> = (1..=40).map(|index| command(index, 1, 700)).collect();
    append(&mut log, Some(vote), &entries);
    let nothing_left = log.rewrite(&[]);
    assert!(matches!(nothing_left, Err(WalError::Refused { .. })), "{nothing_left:?}");
    let of_another_log = log.rewrite(&entries[..30]);
    assert!(matches!(of_another_log, Err(WalError::Refused { .. })), "{of_another_log:?}");
    log.append(&[Write::detached(None, None, vec![command(41, 1, 9)])]).unwrap();
    log.sync().unwrap();
    drop(log);
    disk.crash();
    assert_eq!(open(&disk).unwrap().restored.entries.len(), 41);
}
