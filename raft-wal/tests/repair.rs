//! Damage at rest that is found while the log runs, and what is made good then.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use raft_core::{
    ChunkOrder, Entry, HardState, LogIndex, LogPosition, Payload, Snapshot, Term, Write,
};
use raft_wal::inspect::{Fate, FileKind};
use raft_wal::sim::{Damage, Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Log, OpenedLog, Repair, Scrubbed, WalConfig, WalError};
use support::history::{
    HEADERS, after_power_cut, append, cast, cut, entries_behind, log_of, newest_snapshot, reopen,
    scrub, scrub_all, scrub_and_rewrite, segments, spoil, vote,
};
use support::life::inspector;
use support::snapshots::{CLUSTER, base, snapshot};
use support::{command, members, node, open};

#[test]
fn every_sealed_segment_damaged_at_rest_is_found_and_written_again() {
    let (_, log) = log_of(30);
    drop(log);
    let header = [100, 4096 + 100, 7].map(|at| Damage::FlipBit { at, bit: 1 });
    let data = [Damage::FlipBit { at: HEADERS + 700, bit: 1 }, Damage::Unreadable { sector: 16 }];
    let whole = [Damage::Truncate { bytes: 9000 }, Damage::Extend { bytes: 4096, fill: 0 }];
    let kinds: Vec<Option<Damage>> =
        header.into_iter().chain(data).chain(whole).map(Some).chain([None]).collect();
    for place in 0..4 {
        for kind in &kinds {
            let (disk, mut log) = log_of(30);
            let name = segments(&disk)[place].clone();
            match kind {
                Some(damage) => assert!(disk.damage(&name, damage)),
                None => assert!(disk.take(&name)),
            }
            let context = format!("segment {place}, {kind:?}");
            assert_eq!(scrub_and_rewrite(&mut log, &disk, 30), 1, "{context}");
            assert!(!segments(&disk).contains(&name), "{context}");
            assert!(scrub_all(&mut log, &disk).iter().all(|it| it.damage().is_none()), "{context}");
            append(&mut log, 2, 31..=31);
            let OpenedLog { restored, report, .. } = reopen(&disk);
            assert_eq!(restored.entries, entries_behind(LogIndex(0), 31), "{context}");
            assert_eq!((report.damage, report.header_copies_damaged), (None, 0), "{context}");
        }
    }
}

/// The sealed part of a segment that lost its end looks whole in itself.
#[test]
fn a_segment_that_ends_too_early_is_found() {
    let (disk, mut log) = log_of(30);
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
    let (disk, mut log) = log_of(30);
    for index in [10, 28] {
        log.snapshots().create(base(CLUSTER, index)).unwrap().finish().unwrap();
        log.compact(&base(CLUSTER, index)).unwrap();
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
    let (disk, mut log) = log_of(30);
    for index in [10, 20] {
        log.snapshots().create(base(CLUSTER, index)).unwrap().finish().unwrap();
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
    log.snapshots().create(base(CLUSTER, 20)).unwrap().finish().unwrap();
    assert!(scrub_all(&mut log, &disk).iter().all(|it| it.damage().is_none()));
    let OpenedLog { restored, report, .. } = reopen(&disk);
    assert_eq!(restored.snapshot.as_ref().map(Snapshot::index), Some(LogIndex(20)));
    assert_eq!(report.snapshots_damaged, 0);
}

#[test]
fn a_whole_snapshot_in_place_of_another_is_found() {
    let (disk, mut log) = log_of(30);
    log.snapshots().create(base(CLUSTER, 10)).unwrap().finish().unwrap();
    let name = "snapshot-00000000000000000002-00000000000000000010";
    let empty = disk.read(name).unwrap();
    let mut writer = log.snapshots().create(base(CLUSTER, 10)).unwrap();
    writer.write(b"something").unwrap();
    writer.finish().unwrap();
    disk.put(name, empty);
    let found = scrub_all(&mut log, &disk);
    let damage = found.iter().find_map(|it| it.damage()).unwrap().to_string();
    assert!(damage.contains("another snapshot than it was"), "{damage}");
}

/// A snapshot that cannot be handed on to a peer has to be replaced: nobody may wait for the log to grow.
#[test]
fn a_snapshot_found_damaged_by_a_reader_is_reported_by_the_next_scrub() {
    let (disk, mut log) = log_of(2);
    cut(&log, 2);
    let snapshot = snapshot(2);
    spoil(&disk, &newest_snapshot(&disk));
    let order =
        ChunkOrder { to: node(2), snapshot: snapshot.id(), offset: 0, bytes_max: snapshot.length };
    assert_eq!(log.snapshots().read_chunk(&order).unwrap(), None);
    assert_eq!(scrub(&mut log), Repair::Snapshot);
    assert_eq!(scrub(&mut log), Repair::None, "once is enough");
    assert_eq!(log.snapshots().held(), []);
}

#[test]
fn a_scrub_can_be_given_up_and_has_nothing_to_do_in_a_new_log() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    assert!(log.next_scrub().is_none());
    let (disk, mut log) = log_of(30);
    for index in [10, 20] {
        let mut writer = log.snapshots().create(base(CLUSTER, index)).unwrap();
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
    let (disk, mut log) = log_of(30);
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
    append(&mut log, 2, 31..=31);
    assert_eq!(scrub_and_rewrite(&mut log, &disk, 31), 1);
    let OpenedLog { restored, report, .. } = reopen(&disk);
    assert_eq!((restored.entries.len(), report.damage), (31, None));
}

/// Of what the damaged segment held, everything was replaced or dropped while the entries were fetched.
#[test]
fn entries_that_come_too_late_are_refused_without_harm() {
    let (disk, mut log) = log_of(30);
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

#[test]
fn entries_that_do_not_fit_a_rewriting_do_no_harm() {
    let (disk, mut log) = log_of(60);
    let entries = |last| (1..=last).map(|index| command(index, 2, 900)).collect::<Vec<_>>();
    for wrong in [Vec::new(), entries(59), entries(60).split_off(7), {
        let mut entries = entries(60);
        entries[3].payload = Payload::Membership(members(&[1, 2]));
        entries
    }] {
        let outcome = log.rewrite(&wrong);
        assert!(matches!(outcome, Err(WalError::Refused { .. })), "{outcome:?}");
    }
    append(&mut log, 2, 61..=62);
    log.rewrite(&entries(62)).unwrap();
    assert_eq!(after_power_cut(&disk).entries, entries(62));
}

/// Segments that a rewriting was to remove are left out by whoever looks, and removed by the next start.
#[test]
fn what_a_rewriting_could_not_remove_is_told_and_removed_later() {
    let (disk, mut log) = log_of(30);
    let before = segments(&disk);
    assert_eq!(inspector(&disk).segments().unwrap().replaced(), &[] as &[String]);
    spoil(&disk, &before[1]);
    let Repair::Entries { after } = scrub(&mut log) else { panic!("it is needed") };
    disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::Remove]).always());
    assert!(log.rewrite(&entries_behind(after, 30)).is_err());
    drop(log);
    disk.restart();
    let inspector = inspector(&disk);
    let found = inspector.segments().unwrap();
    let mut replaced = found.replaced().to_vec();
    replaced.sort_unstable();
    let kept: Vec<String> = found.map(|content| content.unwrap().summary.name).collect();
    assert_eq!(replaced, before[1..], "{kept:?}");
    assert_eq!((kept.len(), &kept[0]), (2, &before[0]));
    let inspection = inspector.inspect().unwrap();
    assert_eq!(inspection.damages, []);
    for file in &inspection.files {
        let is_replaced = replaced.contains(&file.name);
        assert_eq!(matches!(file.kind, FileKind::Replaced), is_replaced, "{file:?}");
        assert_eq!(file.fate == Fate::Removed, is_replaced, "{file:?}");
    }
    let OpenedLog { restored, .. } = open(&disk).unwrap();
    assert_eq!(restored.entries, entries_behind(LogIndex(0), 30));
    assert!(segments(&disk).iter().all(|name| !replaced.contains(name)));
}

/// Behind a compaction, and in more than one batch.
#[test]
fn a_rewrite_begins_behind_what_is_not_needed_any_more() {
    let disk = SimDisk::new(1);
    let config = WalConfig { batch_bytes: 3000, ..support::config() };
    let open = || Log::open(Arc::new(disk.for_this_life()), &config).unwrap();
    let mut log = open().log;
    cast(&mut log, 2);
    append(&mut log, 2, 1..=30);
    log.snapshots().create(base(CLUSTER, 10)).unwrap().finish().unwrap();
    log.compact(&base(CLUSTER, 10)).unwrap();
    cast(&mut log, 3);
    log.rewrite(&entries_behind(LogIndex(10), 30)).unwrap();
    assert_eq!(segments(&disk).len(), 1);
    // Of more than 900 bytes each, so four fill a batch.
    let written = inspector(&disk).segments().unwrap().next().unwrap().unwrap().summary;
    assert_eq!((written.batches, written.damage), (20 / 4, None));
    assert_eq!(written.entries, Some((LogIndex(11), LogIndex(30))));
    // It stands for all of them, and knows the last vote from its beginning on.
    assert_eq!((written.first_id, written.previous, written.hard_state), (1, None, vote(3)));
    append(&mut log, 2, 31..=31);
    disk.crash();
    let OpenedLog { restored, report, .. } = open();
    assert_eq!((restored.hard_state, restored.base), (vote(3), base(CLUSTER, 10)));
    assert_eq!(restored.entries, entries_behind(LogIndex(10), 31));
    assert_eq!(report.damage, None);
}

/// The newest snapshot is damaged, so the node begins with the one before it, and with the log since.
#[test]
fn what_the_older_snapshot_needs_is_not_taken_for_compacted() {
    let (disk, mut log) = log_of(90);
    cut(&log, 10);
    cut(&log, 50);
    log.compact(&base(CLUSTER, 50)).unwrap();
    log.close().unwrap();
    disk.restart();
    spoil(&disk, &newest_snapshot(&disk));
    let OpenedLog { mut log, restored, .. } = open(&disk).unwrap();
    assert_eq!(restored.snapshot, Some(snapshot(10)));
    assert!(restored.base.position.index <= LogIndex(10));
    // The segment that holds some of what lies between the two.
    let first = segments(&disk)[0].clone();
    spoil(&disk, &first);
    let Repair::Entries { after } = scrub(&mut log) else { panic!("{first} is needed") };
    assert!(after <= LogIndex(10), "{after}");
    let wanted: Vec<_> = restored.entries.iter().filter(|it| it.index > after).cloned().collect();
    log.rewrite(&wanted).unwrap();
    let again = after_power_cut(&disk);
    assert_eq!((again.lost, again.snapshot), (LogPosition::ZERO, restored.snapshot));
    assert_eq!(again.entries.last(), restored.entries.last());
    assert!(again.base.position.index <= LogIndex(10));
}

/// No snapshot stands for what was compacted: the newest one was found damaged.
#[test]
fn nothing_is_dropped_for_a_snapshot_that_was_found_damaged() {
    let (disk, mut log) = log_of(90);
    cut(&log, 10);
    cut(&log, 50);
    log.compact(&base(CLUSTER, 50)).unwrap();
    spoil(&disk, &newest_snapshot(&disk));
    while log.snapshots().held().len() == 2 {
        scrub(&mut log);
    }
    // Only one copy of a header: nothing is lost yet.
    assert!(disk.damage(&segments(&disk)[0], &Damage::FlipBit { at: 100, bit: 1 }));
    let found = scrub(&mut log);
    assert_eq!(found, Repair::Snapshot, "that is what has to come first");
    let entries: Vec<_> = (51..=90).map(|index| command(index, 2, 900)).collect();
    drop(log.rewrite(&entries));
    let restored = after_power_cut(&disk);
    assert_eq!(restored.lost, LogPosition::ZERO);
    assert_eq!(
        restored.entries.last().map(Entry::position),
        Some(LogPosition::new(Term(2), LogIndex(90)))
    );
}
