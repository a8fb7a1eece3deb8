//! Damage that is found while the log runs, and what a loss leaves behind for ever.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use raft_core::{
    Entry, HardState, Incarnation, LogBase, LogIndex, LogPosition, Snapshot, Term, Timestamp, Write,
};
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{Log, OpenedLog, Repair, Scrubbed, WalConfig, WalError};
use support::{command, node, open};

/// Both copies of the header of a segment.
const HEADERS: u64 = 2 * 4096;

fn append(log: &mut Log, index: u64) {
    log.append(&[Write::detached(None, None, vec![command(index, 2, 900)])]).unwrap();
    log.sync().unwrap();
}

/// A log of so many entries, in segments of about seven.
fn directory(entries: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(2), voted_for: Some(node(2)) };
    log.append(&[Write::detached(Some(vote), None, Vec::new())]).unwrap();
    (1..=entries).for_each(|index| append(&mut log, index));
    (disk, log)
}

fn entries_behind(after: LogIndex, last: u64) -> Vec<Entry> {
    (after.0 + 1..=last).map(|index| command(index, 2, 900)).collect()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("segment-") && !name.ends_with(".broken"));
    names.sort_by_key(|name| name[name.len() - 20..].to_owned());
    names
}

/// Reads everything again once.
fn scrub_all(log: &mut Log, disk: &SimDisk) -> Vec<Scrubbed> {
    let places = segments(disk).len() - 1 + log.snapshots().held().len();
    (0..places).map(|_| log.next_scrub().unwrap().run(|_| true).unwrap()).collect()
}

/// Reads everything again, and writes again what is damaged.
fn scrub_and_rewrite(log: &mut Log, disk: &SimDisk, last: u64) -> usize {
    let damaged = scrub_all(log, disk).into_iter().filter(|it| it.damage().is_some());
    let damaged: Vec<Scrubbed> = damaged.collect();
    for scrubbed in &damaged {
        if let Repair::Entries { after } = log.scrubbed(scrubbed).unwrap() {
            log.rewrite(&entries_behind(after, last)).unwrap();
        }
    }
    damaged.len()
}

fn reopen(disk: &SimDisk) -> OpenedLog {
    disk.crash();
    open(disk).unwrap()
}

/// A log that lost everything behind its second segment, and has been filled up again since.
fn limping() -> (SimDisk, Log, LogPosition) {
    let (disk, log) = directory(30);
    log.close().unwrap();
    let damaged = segments(&disk)[2].clone();
    assert!(disk.damage(&damaged, &Damage::FlipBit { at: HEADERS + 100, bit: 1 }));
    let OpenedLog { mut log, restored, report, .. } = reopen(&disk);
    let lost = LogPosition::new(Term(2), LogIndex(30));
    assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)));
    assert!(report.limping);
    let last = restored.entries.len() as u64;
    assert!((5..25).contains(&last), "{last}");
    (last + 1..=29).for_each(|index| append(&mut log, index));
    (disk, log, lost)
}

#[test]
fn what_a_loss_left_behind_outlives_the_rewriting_of_an_older_segment() {
    for damaged in [0, 1] {
        let (disk, mut log, lost) = limping();
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

/// Of what the damaged segment held, everything was replaced or dropped while the entries were fetched.
#[test]
fn entries_that_come_too_late_are_refused_without_harm() {
    let (disk, mut log) = directory(30);
    let damaged = segments(&disk)[2].clone();
    assert!(disk.damage(&damaged, &Damage::FlipBit { at: HEADERS + 100, bit: 1 }));
    let mut repairs = scrub_all(&mut log, &disk).into_iter().map(|it| log.scrubbed(&it).unwrap());
    let Some(Repair::Entries { after }) = repairs.find(|it| *it != Repair::None) else {
        panic!("the damage was not found");
    };
    drop(repairs);
    let vote = HardState { term: Term(3), voted_for: None };
    let cut = Write::detached(Some(vote), Some(LogIndex(2)), vec![command(2, 3, 10)]);
    log.append(&[cut]).unwrap();
    log.sync().unwrap();
    for entries in [entries_behind(after, 30), Vec::new(), vec![command(1, 2, 900)]] {
        let refusal = log.rewrite(&entries).unwrap_err();
        assert!(matches!(refusal, WalError::Refused { .. }), "{refusal}");
    }
    log.append(&[Write::detached(None, None, vec![command(3, 3, 10)])]).unwrap();
    log.close().unwrap();
    // The damage is still there.
    let OpenedLog { restored, report, .. } = reopen(&disk);
    let damage = report.damage.unwrap().to_string();
    assert!(damage.contains(&damaged), "{damage}");
    assert_eq!(restored.lost, LogPosition::new(Term(3), LogIndex(3)));
}

/// It raises its number again, and remembers the farther of the two losses.
#[test]
fn a_second_loss_is_added_to_the_first() {
    let (disk, log, lost) = limping();
    log.close().unwrap();
    let damaged = segments(&disk)[3].clone();
    assert!(disk.damage(&damaged, &Damage::FlipBit { at: HEADERS + 100, bit: 1 }));
    for lives in [2, 2] {
        let OpenedLog { restored, report, .. } = reopen(&disk);
        assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(lives)));
        assert!(restored.entries.len() < 29, "{report:?}");
    }
    let OpenedLog { mut log, restored, .. } = reopen(&disk);
    for index in restored.entries.len() as u64 + 1..=40 {
        append(&mut log, index);
    }
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
    let (disk, mut log, lost) = limping();
    for index in 30..=60 {
        append(&mut log, index);
        if index % 10 == 0 {
            let base = base(index - 3);
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

fn base(index: u64) -> LogBase {
    LogBase {
        position: LogPosition::new(Term(2), LogIndex(index)),
        timestamp: Timestamp(1000 + index),
        membership: support::members(&[1, 2, 3]),
        membership_index: LogIndex(0),
    }
}

#[test]
fn every_sealed_segment_damaged_at_rest_is_found_and_written_again() {
    let (_, log) = directory(30);
    drop(log);
    let header = [100, 4096 + 100, 7].map(|at| Damage::FlipBit { at, bit: 1 });
    let data = [Damage::FlipBit { at: HEADERS + 700, bit: 1 }, Damage::Unreadable { sector: 16 }];
    let whole = [Damage::Truncate { bytes: 9000 }, Damage::Extend { bytes: 4096, fill: 0 }];
    let kinds: Vec<Option<Damage>> =
        header.into_iter().chain(data).chain(whole).map(Some).chain([None]).collect();
    for place in 0..4 {
        for kind in &kinds {
            let (disk, mut log) = directory(30);
            let name = segments(&disk)[place].clone();
            match kind {
                Some(damage) => assert!(disk.damage(&name, damage)),
                None => assert!(disk.take(&name)),
            }
            let context = format!("segment {place}, {kind:?}");
            assert_eq!(scrub_and_rewrite(&mut log, &disk, 30), 1, "{context}");
            assert!(!segments(&disk).contains(&name), "{context}");
            assert!(scrub_all(&mut log, &disk).iter().all(|it| it.damage().is_none()), "{context}");
            append(&mut log, 31);
            let OpenedLog { restored, report, .. } = reopen(&disk);
            assert_eq!(restored.entries, entries_behind(LogIndex(0), 31), "{context}");
            assert_eq!((report.damage, report.header_copies_damaged), (None, 0), "{context}");
        }
    }
}

/// The sealed part of a segment that lost its end looks whole in itself.
#[test]
fn a_segment_that_ends_too_early_is_found() {
    let (disk, mut log) = directory(30);
    let name = segments(&disk)[1].clone();
    let content = disk.read(&name).unwrap();
    let used = content.chunks(512).rposition(|sector| sector != [0; 512]).unwrap();
    for sectors in [1, 3] {
        let at = (used as u64 + 1 - sectors) * 512;
        assert!(disk.damage(&name, &Damage::Zeros { at, bytes: sectors * 512 }));
        let found = scrub_all(&mut log, &disk).into_iter().filter(|it| it.damage().is_some());
        let damage = found.map(|it| it.damage().unwrap().to_string()).collect::<Vec<_>>();
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert!(damage[0].contains(&name), "{damage:?}");
    }
}

/// Segments that only the older snapshot needs, and one that nothing needs any more.
#[test]
fn what_is_not_needed_is_removed_and_not_repaired() {
    let (disk, mut log) = directory(30);
    for index in [10, 28] {
        log.snapshots().create(base(index)).unwrap().finish().unwrap();
        log.compact(&base(index)).unwrap();
    }
    let needed_by_older = segments(&disk);
    assert!(needed_by_older.len() > 2);
    assert!(disk.damage(&needed_by_older[0], &Damage::FlipBit { at: HEADERS + 700, bit: 1 }));
    let found = scrub_all(&mut log, &disk);
    let damaged: Vec<&Scrubbed> = found.iter().filter(|it| it.damage().is_some()).collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!(log.scrubbed(damaged[0]).unwrap(), Repair::None);
    assert!(segments(&disk).len() < needed_by_older.len());
    assert_eq!(log.scrubbed(damaged[0]).unwrap(), Repair::None, "it is gone already");
    let restored = reopen(&disk).restored;
    assert_eq!(restored.entries, entries_behind(LogIndex(28), 30));
}

#[test]
fn a_damaged_snapshot_is_out_of_use() {
    let (disk, mut log) = directory(30);
    for index in [10, 20] {
        log.snapshots().create(base(index)).unwrap().finish().unwrap();
    }
    let newest = "snapshot-00000000000000000002-00000000000000000020";
    assert!(disk.damage(newest, &Damage::FlipBit { at: 600, bit: 1 }));
    let found = scrub_all(&mut log, &disk);
    let damaged: Vec<&Scrubbed> = found.iter().filter(|it| it.damage().is_some()).collect();
    assert_eq!(damaged.len(), 1);
    assert_eq!(log.scrubbed(damaged[0]).unwrap(), Repair::Snapshot);
    let held: Vec<LogIndex> = log.snapshots().held().iter().map(Snapshot::index).collect();
    assert_eq!(held, [LogIndex(10)]);
    // Another one takes its place and its name.
    log.snapshots().create(base(20)).unwrap().finish().unwrap();
    assert!(scrub_all(&mut log, &disk).iter().all(|it| it.damage().is_none()));
    let OpenedLog { restored, report, .. } = reopen(&disk);
    assert_eq!(restored.snapshot.as_ref().map(Snapshot::index), Some(LogIndex(20)));
    assert_eq!(report.snapshots_damaged, 0);
}

#[test]
fn a_whole_snapshot_in_place_of_another_is_found() {
    let (disk, mut log) = directory(30);
    log.snapshots().create(base(10)).unwrap().finish().unwrap();
    let name = "snapshot-00000000000000000002-00000000000000000010";
    let empty = disk.read(name).unwrap();
    let mut writer = log.snapshots().create(base(10)).unwrap();
    writer.write(b"something").unwrap();
    writer.finish().unwrap();
    disk.put(name, empty);
    let found = scrub_all(&mut log, &disk);
    let damage = found.iter().find_map(|it| it.damage()).unwrap().to_string();
    assert!(damage.contains("another snapshot than it was"), "{damage}");
}

#[test]
fn a_scrub_can_be_given_up_and_has_nothing_to_do_in_a_new_log() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    assert!(log.next_scrub().is_none());
    let (disk, mut log) = directory(30);
    for index in [10, 20] {
        let mut writer = log.snapshots().create(base(index)).unwrap();
        writer.write(b"something").unwrap();
        writer.finish().unwrap();
    }
    // An odd number of places, so that each is given up once and read once.
    let places = segments(&disk).len() - 1 + 2;
    assert_eq!(places % 2, 1);
    for _ in 0..places {
        assert!(log.next_scrub().unwrap().run(|_| false).is_none());
        let mut pieces = 0;
        let scrubbed = log.next_scrub().unwrap().run(|bytes| {
            pieces += bytes;
            true
        });
        assert_eq!(scrubbed.unwrap().bytes(), pieces);
    }
}

#[test]
fn a_full_disk_puts_a_rewrite_off() {
    let (disk, mut log) = directory(30);
    let second = segments(&disk)[1].clone();
    assert!(disk.damage(&second, &Damage::FlipBit { at: HEADERS + 700, bit: 1 }));
    disk.set_capacity(Some(disk.used_bytes() + 1000));
    let found = scrub_all(&mut log, &disk);
    let damaged = found.iter().find(|it| it.damage().is_some()).unwrap();
    let Repair::Entries { after } = log.scrubbed(damaged).unwrap() else { panic!("not found") };
    assert!(log.rewrite(&entries_behind(after, 30)).unwrap_err().is_no_space());
    let vote = HardState { term: Term(3), voted_for: None };
    log.append(&[Write::detached(Some(vote), None, Vec::new())]).unwrap();
    disk.set_capacity(None);
    append(&mut log, 31);
    assert_eq!(scrub_and_rewrite(&mut log, &disk, 31), 1);
    let OpenedLog { restored, report, .. } = reopen(&disk);
    assert_eq!((restored.entries.len(), report.damage), (31, None));
}

/// Behind a compaction, and in more than one batch.
#[test]
fn a_rewrite_begins_behind_what_is_not_needed_any_more() {
    let disk = SimDisk::new(1);
    let config = WalConfig { batch_bytes: 3000, ..support::config() };
    let open = || Log::open(Arc::new(disk.for_this_life()), &config).unwrap();
    let mut log = open().log;
    let vote = HardState { term: Term(2), voted_for: Some(node(2)) };
    log.append(&[Write::detached(Some(vote), None, Vec::new())]).unwrap();
    (1..=30).for_each(|index| append(&mut log, index));
    log.snapshots().create(base(10)).unwrap().finish().unwrap();
    log.compact(&base(10)).unwrap();
    log.rewrite(&entries_behind(LogIndex(10), 30)).unwrap();
    assert_eq!(segments(&disk).len(), 1);
    append(&mut log, 31);
    disk.crash();
    let OpenedLog { restored, report, .. } = open();
    assert_eq!((restored.hard_state, restored.base), (vote, base(10)));
    assert_eq!(restored.entries, entries_behind(LogIndex(10), 31));
    assert_eq!(report.damage, None);
}

/// Directories that come back limping: without a segment in the middle, without a part of the last one,
/// without any snapshot.
fn damaged() -> Vec<SimDisk> {
    let spoil = |disk: &SimDisk, name: &str| {
        assert!(disk.damage(name, &Damage::FlipBit { at: HEADERS + 700, bit: 1 }));
    };
    let middle = directory(30).0;
    spoil(&middle, &segments(&middle)[2]);
    let last = directory(31).0;
    spoil(&last, segments(&last).last().unwrap());
    let (snapshots, mut log) = directory(30);
    for index in [14, 28] {
        log.snapshots().create(base(index)).unwrap().finish().unwrap();
        log.compact(&base(index)).unwrap();
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
