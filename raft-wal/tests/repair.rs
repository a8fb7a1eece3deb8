//! Damage that is found while the log runs, and what a loss leaves behind for ever.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use raft_core::{Entry, HardState, Incarnation, LogIndex, LogPosition, Term, Write};
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{Log, OpenedLog, Repair, Scrubbed, WalError};
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
