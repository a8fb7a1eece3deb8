//! What a loss leaves behind: for ever, and once, however often the repair is cut short.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use raft_core::{Incarnation, LogIndex, LogPosition, Term};
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{Log, OpenedLog, Repair, WalConfig};
use support::history::{
    HEADERS, after_power_cut, append, cast, entries_behind, log_of, reopen, scrub,
    scrub_and_rewrite, segments, spoil, vote,
};
use support::snapshots::{ALONE, CLUSTER, base, content};
use support::{config, members, open};

/// A log that lost everything behind its second segment, and has been filled up again since.
fn limping(closed: bool) -> (SimDisk, Log, LogPosition) {
    let (disk, log) = log_of(30);
    if closed {
        log.close().unwrap();
    }
    let damaged = segments(&disk)[2].clone();
    assert!(disk.damage(&damaged, &Damage::FlipBit { at: HEADERS + 100, bit: 1 }));
    let OpenedLog { mut log, restored, report, .. } = reopen(&disk);
    let lost = LogPosition::new(Term(2), LogIndex(30));
    assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)));
    assert!(report.limping);
    let last = restored.entries.len() as u64;
    assert!((5..25).contains(&last), "{last}");
    append(&mut log, 2, last + 1..=29);
    (disk, log, lost)
}

#[test]
fn what_a_loss_left_behind_outlives_the_rewriting_of_an_older_segment() {
    for (closed, damaged) in [(true, 0), (true, 1), (false, 1)] {
        let (disk, mut log, lost) = limping(closed);
        let name = segments(&disk)[damaged].clone();
        assert!(disk.damage(&name, &Damage::FlipBit { at: HEADERS + 100, bit: 1 }));
        assert_eq!(scrub_and_rewrite(&mut log, &disk, 29), 1);
        for _ in 0..2 {
            let restored = reopen(&disk).restored;
            assert_eq!(restored.entries, entries_behind(LogIndex(0), 29));
            assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)), "{damaged}");
        }
    }
}

/// What was lost and how often is remembered when a segment from before the loss is written again.
#[test]
fn a_limping_node_still_limps_after_a_segment_was_written_again() {
    let (disk, log) = log_of(60);
    log.close().unwrap();
    disk.restart();
    // The last but one holds entries; the vote is in the last one.
    let names = segments(&disk);
    spoil(&disk, &names[names.len() - 2]);
    let OpenedLog { mut log, restored, .. } = open(&disk).unwrap();
    let lost = LogPosition::new(Term(2), LogIndex(60));
    assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)));
    let kept = restored.entries;
    assert!(kept.len() > 20 && kept.len() < 59, "{}", kept.len());

    spoil(&disk, &segments(&disk)[1]);
    let Repair::Entries { after } = scrub(&mut log) else { panic!("it is needed") };
    assert!(after > LogIndex(0));
    let wanted: Vec<_> = kept.iter().filter(|it| it.index > after).cloned().collect();
    log.rewrite(&wanted).unwrap();
    let restored = after_power_cut(&disk);
    assert_eq!(restored.entries, kept);
    assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)));
}

/// It raises its number again, and remembers the farther of the two losses.
#[test]
fn a_second_loss_is_added_to_the_first() {
    let (disk, log, lost) = limping(true);
    log.close().unwrap();
    let damaged = segments(&disk)[3].clone();
    assert!(disk.damage(&damaged, &Damage::FlipBit { at: HEADERS + 100, bit: 1 }));
    for lives in [2, 2] {
        let OpenedLog { restored, report, .. } = reopen(&disk);
        assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(lives)));
        assert!(restored.entries.len() < 29, "{report:?}");
    }
    let OpenedLog { mut log, restored, .. } = reopen(&disk);
    append(&mut log, 2, restored.entries.len() as u64 + 1..=40);
    log.close().unwrap();
    let last = segments(&disk).pop().unwrap();
    assert!(disk.damage(&last, &Damage::FlipBit { at: 8, bit: 1 }), "one copy of two");
    assert!(!reopen(&disk).report.limping);
    let second = segments(&disk)[1].clone();
    assert!(disk.damage(&second, &Damage::Zeros { at: HEADERS, bytes: 2048 }));
    let restored = reopen(&disk).restored;
    let farther = LogPosition::new(Term(2), LogIndex(40));
    assert_eq!((restored.lost, restored.incarnation), (farther, Incarnation(3)));
}

#[test]
fn what_a_loss_left_behind_outlives_rolls_snapshots_and_compaction() {
    let (disk, mut log, lost) = limping(true);
    for index in 30..=60 {
        append(&mut log, 2, index..=index);
        if index % 10 == 0 {
            let base = base(CLUSTER, index - 3);
            log.snapshots().create(base.clone()).unwrap().finish().unwrap();
            log.compact(&base).unwrap();
        }
    }
    log.close().unwrap();
    for _ in 0..2 {
        let restored = reopen(&disk).restored;
        assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)));
        assert_eq!(restored.entries, entries_behind(LogIndex(57), 60));
    }
    // The last segment alone, with a snapshot before it, says it too.
    for name in segments(&disk).iter().rev().skip(1) {
        assert!(disk.take(name));
    }
    let restored = reopen(&disk).restored;
    assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)));
}

/// Directories that come back limping: without a segment in the middle, without a part of the last one,
/// without any snapshot.
fn damaged() -> Vec<SimDisk> {
    let spoil = |disk: &SimDisk, name: &str| {
        assert!(disk.damage(name, &Damage::FlipBit { at: HEADERS + 700, bit: 1 }));
    };
    let middle = log_of(30).0;
    spoil(&middle, &segments(&middle)[2]);
    let last = log_of(31).0;
    spoil(&last, segments(&last).last().unwrap());
    let (snapshots, mut log) = log_of(30);
    for index in [14, 28] {
        log.snapshots().create(base(CLUSTER, index)).unwrap().finish().unwrap();
        log.compact(&base(CLUSTER, index)).unwrap();
        let name = format!("snapshot-{:020}-{index:020}", 2);
        assert!(snapshots.damage(&name, &Damage::FlipBit { at: 520, bit: 1 }));
    }
    vec![middle, last, snapshots]
}

/// The power fails, or an operation does, anywhere while a damaged directory is put right: the next start
/// knows of the same loss, neither of none nor of two.
#[test]
fn a_repair_that_is_cut_short_comes_to_the_same() {
    for (n, disk) in damaged().into_iter().enumerate() {
        disk.restart();
        let OpenedLog { restored, report, .. } = open(&disk.fork(1)).unwrap();
        assert!(report.limping && restored.lost.index.0 >= 30, "{n}: {report:?}");
        let check = |disk: &SimDisk, context: &str| {
            for start in 0..2 {
                let opened = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(opened.restored, restored, "{context}, start {start}");
                disk.crash();
            }
        };
        let mut futures = 0;
        for fault in [Fault::PowerCut, Fault::Error] {
            for place in 0.. {
                let disk = disk.fork(place);
                disk.inject(fault, place);
                let opened = open(&disk);
                let context = format!("case {n}, {fault:?} at operation {place}");
                if disk.stats().operations <= place {
                    assert!(opened.is_ok() && place > 5, "{context}");
                    break;
                }
                assert!(opened.is_err_and(|error| error.is_disk_failure()), "{context}");
                for cut in disk.power_cuts(64, place) {
                    check(&cut.disk, &format!("{context}, with {:?}", cut.survived));
                    futures += 1;
                }
                disk.restart();
                check(&disk, &context);
            }
        }
        assert!(futures > 200, "{n}: {futures}");
    }
}

/// The only voter refuses to forget; but what its snapshot holds is not forgotten.
#[test]
fn nothing_is_lost_if_the_snapshot_holds_all_that_the_log_did() {
    let disk = SimDisk::new(9);
    let open = || {
        let config = WalConfig { membership: members(ALONE), ..config() };
        Log::open(Arc::new(disk.for_this_life()), &config)
    };
    let mut log = open().unwrap().log;
    cast(&mut log, 2);
    append(&mut log, 2, 1..=30);
    let base = base(ALONE, 30);
    let mut writer = log.snapshots().create(base.clone()).unwrap();
    writer.write(&content(30)).unwrap();
    let snapshot = writer.finish().unwrap();
    log.close().unwrap();
    disk.restart();
    let names = segments(&disk);
    spoil(&disk, &names[names.len() - 1]);
    let OpenedLog { restored, report, .. } = open().unwrap();
    assert_eq!((restored.base, restored.snapshot), (base, Some(snapshot)));
    assert_eq!((restored.lost, restored.incarnation), (LogPosition::ZERO, Incarnation(0)));
    assert_eq!(restored.hard_state, vote(2));
    assert!(!report.limping && report.damage.is_some(), "{report:?}");
}

/// A node that comes back with a new directory is heard although its old one had been repaired.
#[test]
fn a_new_directory_begins_with_the_incarnation_that_it_is_told_and_keeps_it() {
    let disk = SimDisk::new(3);
    let open = |first| {
        let config = WalConfig { first_incarnation: Incarnation(first), ..config() };
        Log::open(Arc::new(disk.for_this_life()), &config).unwrap()
    };
    let OpenedLog { mut log, restored, .. } = open(1_000);
    assert_eq!(restored.incarnation, Incarnation(1_000));
    cast(&mut log, 2);
    append(&mut log, 2, 1..=30);
    log.close().unwrap();
    disk.restart();
    let OpenedLog { log, restored, .. } = open(2_000);
    assert_eq!(restored.incarnation, Incarnation(1_000), "it is not new any more");
    drop(log);
    disk.restart();
    spoil(&disk, &segments(&disk)[2]);
    assert_eq!(open(2_000).restored.incarnation, Incarnation(1_001));
}
