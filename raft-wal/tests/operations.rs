//! What a log does to its disk, operation by operation: its safety hangs on the order, and its speed on
//! doing nothing besides.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use raft_core::{ChunkOrder, Incoming};
use raft_wal::sim::{Damage, Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Log, Repair, WalError};
use support::history::{append, cast, cut, log_of, scrub, scrub_all, segments, spoil};
use support::snapshots::{CLUSTER, base, content, snapshot};
use support::watched::Watched;
use support::{config, node, open};

fn watched(disk: &SimDisk) -> (Arc<Watched>, Log) {
    let watched = Watched::on(disk);
    let log = Log::open(watched.clone(), &config()).unwrap().log;
    (watched, log)
}

/// Everything is durable before the name, the name before the seal, and the seal before the data.
#[test]
fn a_log_writes_syncs_and_goes_over_to_the_next_segment() {
    let (disk, mut log) = watched(&SimDisk::new(1));
    assert_eq!(
        disk.seen(),
        [
            "create IDENTITY.tmp",
            "write 8192 at 0 of IDENTITY.tmp",
            "sync IDENTITY.tmp",
            "rename IDENTITY.tmp to IDENTITY",
            "sync the directory",
            "create spare-0.tmp",
            "write 16384 at 0 of spare-0.tmp",
            "sync spare-0.tmp",
            "write 8192 at 0 of spare-0.tmp",
            "write 512 at 8192 of spare-0.tmp",
            "sync spare-0.tmp",
            "rename spare-0.tmp to segment 1",
            "sync the directory",
            "create IDENTITY.tmp",
            "write 8192 at 0 of IDENTITY.tmp",
            "sync IDENTITY.tmp",
            "rename IDENTITY.tmp to IDENTITY",
            "sync the directory",
        ]
    );
    append(&mut log, 2, 1..=1);
    assert_eq!(disk.seen(), ["write 1536 at 8704 of segment 1", "sync segment 1"]);
    log.sync().unwrap();
    log.append(&[]).unwrap();
    assert_eq!(disk.seen(), [""; 0]);
    append(&mut log, 2, 2..=3);
    disk.seen();
    // It does not fit any more.
    append(&mut log, 2, 4..=4);
    assert_eq!(
        disk.seen(),
        [
            "create spare-1.tmp",
            "write 16384 at 0 of spare-1.tmp",
            "sync spare-1.tmp",
            "write 8192 at 0 of spare-1.tmp",
            "sync spare-1.tmp",
            "rename spare-1.tmp to segment 2",
            "sync the directory",
            "write 512 at 13312 of segment 1",
            "sync segment 1",
            "write 1536 at 8192 of segment 2",
            "sync segment 2",
        ]
    );
    log.close().unwrap();
    assert_eq!(disk.seen(), ["write 512 at 9728 of segment 2", "sync segment 2"]);
}

/// A log of 30 entries that was closed, with these snapshots.
fn history(snapshots: &[u64]) -> SimDisk {
    let (disk, log) = log_of(30);
    for &index in snapshots {
        cut(&log, index);
    }
    log.close().unwrap();
    disk.restart();
    disk
}

/// Of two chunks.
const SNAPSHOT_WRITTEN_AGAIN: [&str; 8] = [
    "create incomplete-snapshot-1.tmp",
    "write 512 at 0 of incomplete-snapshot-1.tmp",
    "write 65540 at 512 of incomplete-snapshot-1.tmp",
    "write 468 at 66052 of incomplete-snapshot-1.tmp",
    "write 116 at 66520 of incomplete-snapshot-1.tmp",
    "sync incomplete-snapshot-1.tmp",
    "rename incomplete-snapshot-1.tmp to snapshot 20",
    "sync the directory",
];

/// The names of these snapshots may be in memory only, for all that this life knows: one of them is written
/// again before the log is removed for it, and not if nothing is removed.
#[test]
fn a_compaction_that_removes_nothing_writes_a_record_and_no_snapshot() {
    let (twin, log) = log_of(2);
    (1..=2).for_each(|index| drop(cut(&log, index)));
    drop(log);
    twin.restart();
    let (disk, mut log) = watched(&twin);
    disk.seen();
    log.compact(&base(CLUSTER, 2)).unwrap();
    assert_eq!(disk.seen(), ["write 512 at 12288 of segment 2", "sync segment 2"]);

    let (disk, mut log) = watched(&history(&[10, 20]));
    disk.seen();
    log.compact(&base(CLUSTER, 20)).unwrap();
    let record = ["write 512 at 13312 of segment 11", "sync segment 11"];
    let removed =
        ["remove segment 1", "remove segment 2", "remove segment 3", "sync the directory"];
    assert_eq!(disk.seen(), [&record[..], &SNAPSHOT_WRITTEN_AGAIN, &removed].concat());
}

/// Those that this life has cut are on disk for certain.
#[test]
fn a_snapshot_that_was_just_cut_is_not_written_again() {
    let sim = history(&[]);
    let (disk, mut log) = watched(&sim);
    for index in [8, 16, 24] {
        cut(&log, index);
    }
    disk.seen();
    log.compact(&base(CLUSTER, 24)).unwrap();
    assert_eq!(
        disk.seen(),
        [
            "write 512 at 13312 of segment 11",
            "sync segment 11",
            "remove segment 1",
            "remove segment 2",
            "remove segment 3",
            "remove segment 4",
            "remove segment 5",
            "sync the directory",
        ]
    );
}

/// Rot, an error and no room, when a snapshot that may be in memory only is to be written again: nothing is
/// removed for it, and only the error ends the log.
#[test]
fn a_snapshot_that_cannot_be_written_again_keeps_the_log() {
    let kept = segments(&history(&[10, 20])).len();
    let compact = |meddle: &dyn Fn(&SimDisk)| {
        let disk = history(&[10, 20]);
        let mut log = open(&disk).unwrap().log;
        meddle(&disk);
        let outcome = log.compact(&base(CLUSTER, 20));
        assert_eq!(segments(&disk).len(), kept);
        (disk, log, outcome)
    };
    let newest = "snapshot-00000000000000000002-00000000000000000020";
    // The first chunk and the last one, and the header.
    for at in [600, 66_100, 20] {
        let rot = Damage::FlipBit { at, bit: 1 };
        let (_, mut log, outcome) = compact(&|disk| assert!(disk.damage(newest, &rot)));
        outcome.unwrap();
        assert_eq!(log.snapshots().held(), [snapshot(10)], "{at}");
        assert_eq!(scrub(&mut log), Repair::Snapshot, "{at}");
        assert_eq!(scrub(&mut log), Repair::None, "{at}");
        append(&mut log, 2, 31..=31);
    }
    let failing = FaultRule::new(Fault::Error).on(&[Operation::Read]).files("snapshot-").after(1);
    let (_, mut log, outcome) = compact(&|disk| disk.add_fault(failing.clone()));
    assert!(matches!(outcome, Err(WalError::Disk { .. })), "{outcome:?}");
    assert!(matches!(log.sync(), Err(WalError::Poisoned)));
    let (disk, mut log, outcome) = compact(&|disk| disk.set_capacity(Some(disk.used_bytes())));
    outcome.unwrap();
    assert_eq!(log.snapshots().held(), [snapshot(10), snapshot(20)]);
    disk.set_capacity(None);
    append(&mut log, 2, 31..=31);
}

/// A segment that only the older snapshot needs is damaged: it goes with those before it, or stays as long
/// as there is no room for that.
#[test]
fn a_damaged_segment_that_nothing_needs_is_removed_or_stays() {
    let compacted = || {
        let sim = history(&[10, 20]);
        let mut log = open(&sim).unwrap().log;
        log.compact(&base(CLUSTER, 20)).unwrap();
        log.close().unwrap();
        sim.restart();
        let (disk, mut log) = watched(&sim);
        spoil(&sim, &segments(&sim)[0]);
        let found = scrub_all(&mut log, &sim).into_iter().find(|it| it.damage().is_some()).unwrap();
        disk.seen();
        (sim, disk, log, found)
    };
    let (sim, disk, mut log, found) = compacted();
    let before = segments(&sim).len();
    assert_eq!(log.scrubbed(&found).unwrap(), Repair::None);
    let removed =
        ["remove segment 4", "remove segment 5", "remove segment 6", "sync the directory"];
    assert_eq!(disk.seen(), [&SNAPSHOT_WRITTEN_AGAIN[..], &removed].concat());
    assert!(segments(&sim).len() < before);

    let (sim, _, mut log, found) = compacted();
    sim.set_capacity(Some(sim.used_bytes()));
    assert_eq!(log.scrubbed(&found).unwrap(), Repair::None);
    assert_eq!(segments(&sim).len(), before);
    cast(&mut log, 3);

    let (sim, _, mut log, found) = compacted();
    sim.add_fault(FaultRule::new(Fault::Error).on(&[Operation::Remove]));
    let outcome = log.scrubbed(&found);
    assert!(matches!(outcome, Err(WalError::Disk { .. })), "{outcome:?}");
    assert!(matches!(log.sync(), Err(WalError::Poisoned)));
}

/// Also if another one is cut meanwhile; but not if it is the same one again.
#[test]
fn what_a_reader_found_damaged_is_reported_until_it_was_replaced() {
    for again in [10, 20] {
        let (disk, mut log) = log_of(30);
        let damaged = cut(&log, 10);
        spoil(&disk, "snapshot-00000000000000000002-00000000000000000010");
        let order = ChunkOrder { to: node(2), snapshot: damaged.id(), offset: 0, bytes_max: 300 };
        assert_eq!(log.snapshots().read_chunk(&order).unwrap(), None);
        cut(&log, again);
        let expected = if again == 10 { Repair::None } else { Repair::Snapshot };
        assert_eq!(scrub(&mut log), expected, "{again}");
    }
}

/// Neither too much nor at the wrong place: what does not fit is left out, and asked for again.
#[test]
fn a_piece_of_a_snapshot_fits_or_is_not_taken() {
    let (_, log) = log_of(2);
    let (store, snapshot) = (log.snapshots(), snapshot(10));
    let id = snapshot.id();
    store.store(Incoming::Begin(snapshot)).unwrap();
    let bytes = content(10);
    for (offset, piece, held) in [
        (0, &bytes[..100], 100),
        (0, &bytes[..100], 100),
        (101, &bytes[101..], 100),
        (100, &[&bytes[100..], &[7]].concat()[..], 100),
        (100, &bytes[100..200], 200),
        (200, &bytes[..101], 200),
        (200, &bytes[200..], 300),
    ] {
        let chunk = Incoming::Chunk { snapshot: id, offset, bytes: piece.to_vec().into() };
        let told = store.store(chunk).unwrap();
        assert_eq!(told, Some((id, held)), "{} bytes at {offset}", piece.len());
    }
}
