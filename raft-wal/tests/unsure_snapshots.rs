//! Snapshots with names that only memory holds: after a sync of the directory that failed, the system may
//! go on showing a name that it never wrote. Nothing goes for their sake before one is written again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::Write as _;

use raft_wal::sim::{Fault, FaultRule, Operation, SimDisk};
use raft_wal::{OpenedLog, WalError};
use support::history::{
    append, cast, cut, entries_behind, install, newest_snapshot, receive, segments, spoil,
};
use support::open;
use support::snapshots::{CLUSTER, base, content, snapshot};

/// A life that ends when it has given a snapshot its name.
fn cut_in_vain(disk: &SimDisk, index: u64) {
    let log = open(disk).unwrap().log;
    let mut writer = log.snapshots().create(base(CLUSTER, index)).unwrap();
    writer.write_all(&content(index)).unwrap();
    disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::SyncDirectory]));
    assert!(matches!(writer.finish(), Err(WalError::Disk { .. })));
    disk.restart();
}

/// The power fails, again and again. Nothing is lost.
fn survives_power_cuts(disk: &SimDisk, entries: u64, context: &str) {
    for start in 0..3 {
        let OpenedLog { restored, report, .. } = open(disk).unwrap();
        assert!(!report.limping, "{context}, start {start}: {report:?}");
        let held = entries_behind(restored.base.position.index, entries);
        assert_eq!(restored.entries, held, "{context}, start {start}");
        disk.crash();
    }
}

/// Is there less after a power cut?
fn is_lost_with_the_power(disk: &SimDisk) -> bool {
    open(&disk.after_power_cut(0, |_| true)).unwrap().report.limping
}

#[test]
fn a_damaged_segment_is_not_put_aside_for_a_snapshot_that_only_memory_holds() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk).unwrap().log;
        cast(&mut log, 2);
        append(&mut log, 2, 1..=25);
        drop(log);
        cut_in_vain(&disk, 20);
        spoil(&disk, &segments(&disk)[0]);
        lost += usize::from(is_lost_with_the_power(&disk));
        survives_power_cuts(&disk, 25, &format!("seed {seed}"));
    }
    assert!(lost > 1, "{lost}");
}

/// The log begins behind the first one, which was installed.
#[test]
fn a_damaged_snapshot_is_not_put_aside_for_one_that_only_memory_holds() {
    let mut lost = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk).unwrap().log;
        receive(log.snapshots(), &snapshot(20));
        install(&mut log, &snapshot(20));
        append(&mut log, 2, 21..=40);
        drop(log);
        let installed = newest_snapshot(&disk);
        cut_in_vain(&disk, 30);
        spoil(&disk, &installed);
        lost += usize::from(is_lost_with_the_power(&disk));
        survives_power_cuts(&disk, 40, &format!("seed {seed}"));
    }
    assert!(lost > 1, "{lost}");
}

/// Two are kept, and at each start there are three.
#[test]
fn an_old_snapshot_is_not_removed_for_two_that_only_memory_holds() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk).unwrap().log;
        cast(&mut log, 2);
        append(&mut log, 2, 1..=60);
        for index in [20, 30] {
            let snapshot = cut(&log, index);
            log.compact(&snapshot.base).unwrap();
        }
        drop(log);
        for index in [40, 50] {
            cut_in_vain(&disk, index);
        }
        survives_power_cuts(&disk, 60, &format!("seed {seed}"));
        assert_eq!(disk.names().iter().filter(|name| name.starts_with("snapshot-")).count(), 2);
    }
}

/// What is to make room cannot be kept from going by want of room.
#[test]
fn a_start_on_a_full_disk_leaves_old_snapshots_where_they_are() {
    let disk = SimDisk::new(4);
    let mut log = open(&disk).unwrap().log;
    cast(&mut log, 2);
    append(&mut log, 2, 1..=60);
    for index in [20, 30] {
        let snapshot = cut(&log, index);
        log.compact(&snapshot.base).unwrap();
    }
    drop(log);
    // One of 66,000 bytes.
    let big = base(CLUSTER, 40);
    let log = open(&disk).unwrap().log;
    let mut writer = log.snapshots().create(big).unwrap();
    writer.write_all(&content(20)).unwrap();
    disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::SyncDirectory]));
    assert!(writer.finish().is_err());
    drop(log);
    disk.restart();
    let snapshots = || disk.names().iter().filter(|name| name.starts_with("snapshot-")).count();
    assert_eq!(snapshots(), 3);
    // Room for the tail of the log, but not for that.
    disk.set_capacity(Some(disk.used_bytes() + 40_000));
    for _ in 0..3 {
        let OpenedLog { log, restored, report, .. } = open(&disk).unwrap();
        let at = restored.base.position.index;
        assert_eq!(restored.entries, entries_behind(at, 60), "{report:?}");
        assert_eq!(snapshots(), 3);
        drop(log);
        disk.restart();
    }
    disk.set_capacity(None);
    survives_power_cuts(&disk, 60, "with room");
    assert_eq!(snapshots(), 2);
}

#[test]
fn the_log_is_not_removed_for_snapshots_that_only_memory_holds() {
    let mut forgotten = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        for (index, range) in [(10, 1..=15), (20, 16..=25)] {
            let mut log = open(&disk).unwrap().log;
            cast(&mut log, 2);
            append(&mut log, 2, range);
            drop(log);
            cut_in_vain(&disk, index);
        }
        let mut log = open(&disk).unwrap().log;
        assert_eq!(log.snapshots().held(), [snapshot(10), snapshot(20)], "seed {seed}");
        let cut = disk.after_power_cut(seed, |_| true);
        let is_snapshot = |name: &&String| name.starts_with("snapshot-");
        forgotten += usize::from(cut.names().iter().filter(is_snapshot).count() == 0);
        log.compact(&base(CLUSTER, 20)).unwrap();
        disk.crash();
        survives_power_cuts(&disk, 25, &format!("seed {seed}"));
    }
    assert!(forgotten > 1, "{forgotten}");
}
