//! What an opening reports of a damaged directory, and what it does about it: all of it, word by word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use raft_core::{Entry, Incarnation, LogIndex, LogPosition, Payload, Restored, Term, Write};
use raft_wal::inspect::Inspection;
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{Damage as Found, Log, OpenError, OpenedLog, RecoveryReport, Repair, WalConfig};
use support::history::{
    HEADERS, append, cast, cut, entries_behind, log_of, reopen, scrub, segments, spoil, vote,
};
use support::life::inspector;
use support::snapshots::{CLUSTER, base};
use support::{command, config, members, open};

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
    let looking = inspector(&disk);
    let summaries = looking.segments().unwrap().map(|it| it.unwrap().summary);
    for (summary, id) in summaries.zip(1..) {
        assert_eq!((summary.id, summary.first_id), (id, id), "it stands for itself only");
    }
    assert_eq!(open(&disk).unwrap().report, report(&names, 30));
    let names = segments(&disk);
    let looking = inspector(&disk);
    let copy = looking.segments().unwrap().last().unwrap().unwrap().summary;
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

/// Each place once, whether a segment says it itself or the next one does of it.
#[test]
fn every_damage_is_told_once() {
    let (disk, names) = closed(30);
    flip(&disk, &names[2], HEADERS + 700);
    assert!(disk.take(&names[6]));
    let damages = inspect(&disk).damages;
    let places: Vec<(&str, u64)> = damages.iter().map(|it| (it.file.as_str(), it.offset)).collect();
    assert_eq!(places, [(names[2].as_str(), HEADERS), (&names[7], 0)], "{damages:#?}");
    assert_eq!(damages[1].what, "the segment before it is missing");
}

/// Of an older snapshot that is not of this log, behind a newer one that is damaged: both are put aside.
#[test]
fn snapshots_that_are_not_of_this_log_are_counted_and_put_aside() {
    let (disk, log) = log_of(30);
    let mut foreign = base(CLUSTER, 10);
    foreign.position.term = Term(1);
    log.snapshots().create(foreign).unwrap().finish().unwrap();
    cut(&log, 20);
    log.close().unwrap();
    disk.restart();
    let snapshots = |ending: &str| {
        [(1, 10), (2, 20)].map(|(term, index)| format!("snapshot-{term:020}-{index:020}{ending}"))
    };
    spoil(&disk, &snapshots("")[1]);
    let mut expected = report(&segments(&disk), 30);
    expected.snapshots_damaged = 2;
    let OpenedLog { log, restored, report, .. } = open(&disk).unwrap();
    assert_eq!(report, expected);
    assert_eq!((restored.snapshot, restored.entries), (None, entries_behind(LogIndex(0), 30)));
    assert_eq!(log.snapshots().held(), []);
    let mut names = disk.names();
    names.retain(|name| name.starts_with("snapshot-"));
    assert_eq!(names, snapshots(".broken"));
}

/// Whether a snapshot of another term at the very place where the log begins stands for what is missing
/// before it, nobody can tell: what the log had is lost, and written down as that.
#[test]
fn a_snapshot_of_another_entry_than_the_log_begins_behind_does_not_complete_it() {
    let (disk, mut log) = log_of(3);
    let mut term = 2;
    while segments(&disk).len() < 2 {
        term += 1;
        cast(&mut log, term);
    }
    let mut other = base(CLUSTER, 3);
    other.position.term = Term(3);
    let snapshot = log.snapshots().create(other.clone()).unwrap().finish().unwrap();
    log.close().unwrap();
    disk.restart();
    let names = segments(&disk);
    assert!(disk.take(&names[0]));
    let OpenedLog { restored, report, .. } = open(&disk).unwrap();
    let expected = Restored {
        hard_state: vote(term),
        incarnation: Incarnation(1),
        lost: position(2, 3),
        base: other,
        entries: Vec::new(),
        snapshot: Some(snapshot),
    };
    assert_eq!(restored, expected);
    let mut told = self::report(&names[1..], 0);
    told.limping = true;
    told.damage = Some(Found {
        file: names[1].clone(),
        offset: 0,
        what: "the segments before it are missing, and no whole snapshot stands for them"
            .to_owned(),
    });
    assert_eq!(report, told);
}

/// Who decides alone has nobody to ask: that is told by the members of the last segment, and by a change of
/// them in it.
#[test]
fn who_decides_alone_is_told_by_the_last_change_of_members() {
    for (before, after, alone) in [(&[1][..], &[1, 2, 3][..], false), (&[1, 2, 3], &[1], true)] {
        let disk = SimDisk::new(1);
        let config = WalConfig { membership: members(before), ..config() };
        let open = || Log::open(Arc::new(disk.for_this_life()), &config);
        let mut log = open().unwrap().log;
        cast(&mut log, 2);
        let change = Entry { payload: Payload::Membership(members(after)), ..command(1, 2, 0) };
        log.append(&[Write::detached(None, None, vec![change])]).unwrap();
        append(&mut log, 2, 2..=2);
        log.close().unwrap();
        disk.restart();
        // The batch behind the mark of the start, the vote and the change.
        flip(&disk, &segments(&disk)[0], HEADERS + 3 * 512 + 200);
        match open() {
            Ok(OpenedLog { restored, report, .. }) => {
                assert!(!alone && report.limping);
                assert_eq!((restored.entries.len(), restored.lost), (1, position(2, 2)));
            }
            Err(OpenError::Corrupt { what, advice, .. }) => {
                assert!(alone && advice.contains("--accept-data-loss"), "{what}: {advice}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// A log whose last segment was prepared, and has its name, when the one before it was not sealed yet.
fn unsealed() -> (SimDisk, Vec<String>) {
    for place in 0..20 {
        let (disk, mut log) = log_of(6);
        cut(&log, 5);
        let before = segments(&disk).len();
        disk.inject(Fault::Error, place);
        let outcome = log.append(&[Write::detached(None, None, vec![command(7, 2, 900)])]);
        disk.restart();
        let looking = inspector(&disk);
        let last: Vec<_> = looking.segments().unwrap().map(|it| it.unwrap().summary).collect();
        let [.., previous, last] = last.as_slice() else { continue };
        if outcome.is_err()
            && segments(&disk).len() > before
            && previous.sealed_for.is_none()
            && last.untouched
        {
            assert_eq!(last.base, position(2, 6));
            let names = segments(&disk);
            return (disk, names);
        }
    }
    panic!("it is never so");
}

/// Whether the seal ever became durable is unknown, so both are written again, as one.
#[test]
fn a_segment_that_was_only_prepared_is_replaced_with_the_one_before_it() {
    let (disk, names) = unsealed();
    let count = names.len();
    let OpenedLog { mut log, restored, report, .. } = open(&disk).unwrap();
    assert_eq!(report, self::report(&names, 6));
    assert_eq!(restored.entries, entries_behind(LogIndex(0), 6));
    let after = segments(&disk);
    assert_eq!(after[..count - 2], names[..count - 2]);
    assert_eq!(after.len(), count - 1);
    let looking = inspector(&disk);
    let copy = looking.segments().unwrap().last().unwrap().unwrap().summary;
    assert_eq!((copy.first_id, copy.id), (count as u64 - 1, count as u64 + 1));
    append(&mut log, 2, 7..=20);
    log.close().unwrap();
    let OpenedLog { restored, report, .. } = reopen(&disk);
    assert_eq!(report.damage, None);
    assert_eq!(restored.entries, entries_behind(LogIndex(0), 20));
}

/// The same without any segment before them, since a snapshot stands for those.
#[test]
fn a_segment_that_was_only_prepared_is_enough_behind_a_snapshot() {
    let (disk, mut names) = unsealed();
    let (fork, last) = (disk.fork(1), names.pop().unwrap());
    let log = open(&fork).unwrap().log;
    let newest = cut(&log, 6);
    drop(log);
    let name = format!("snapshot-{:020}-{:020}", 2, 6);
    disk.put(&name, fork.read(&name).unwrap());
    names.iter().for_each(|name| assert!(disk.take(name)));
    let OpenedLog { mut log, restored, report, .. } = open(&disk).unwrap();
    assert_eq!(report, self::report(&[last], 0));
    assert_eq!((restored.base, restored.snapshot), (base(CLUSTER, 6), Some(newest)));
    assert_eq!((restored.lost, restored.hard_state), (LogPosition::ZERO, vote(2)));
    append(&mut log, 2, 7..=20);
    let restored = reopen(&disk).restored;
    assert_eq!(restored.entries, entries_behind(LogIndex(6), 20));
}

/// A snapshot stands for what is damaged. What is whole behind it is known to be the log, so it can be
/// removed once it is not needed, and is written again from its own beginning.
#[test]
fn behind_damage_that_a_snapshot_stands_for_all_is_as_before() {
    let damaged = || {
        let (disk, log) = log_of(30);
        cut(&log, 8);
        log.close().unwrap();
        disk.restart();
        let names = segments(&disk);
        flip(&disk, &names[1], HEADERS + 700);
        let opened = open(&disk).unwrap();
        assert_eq!(opened.report, report(&names, 24));
        assert_eq!(opened.restored.entries, entries_behind(LogIndex(6), 30));
        assert_eq!(segments(&disk)[..7], names[2..9]);
        (disk, opened.log)
    };
    // The last two of them.
    for place in [6, 5] {
        let (disk, mut log) = damaged();
        spoil(&disk, &segments(&disk)[place]);
        let Repair::Entries { after } = scrub(&mut log) else { panic!("{place}") };
        assert_eq!(after, LogIndex(6 + 3 * place as u64));
        log.rewrite(&entries_behind(after, 30)).unwrap();
        assert_eq!(reopen(&disk).restored.entries, entries_behind(LogIndex(6), 30));
    }
    let (disk, mut log) = damaged();
    // Both in the last one.
    [28, 29].iter().for_each(|&index| drop(cut(&log, index)));
    log.compact(&base(CLUSTER, 29)).unwrap();
    assert_eq!(segments(&disk).len(), 1);
}
