//! Two damages at once, where each of them alone would be made good or be told from the other place.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use raft_core::{HardState, Incarnation, LogIndex, LogPosition, Term, Write};
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{Log, OpenError, OpenedLog};
use support::history::{HEADERS, segments};
use support::{command, node, open};

const SECTOR: u64 = 512;

fn append(log: &mut Log, write: Write) {
    log.append(&[write]).unwrap();
    log.sync().unwrap();
}

fn vote(term: u64) -> Write {
    let state = HardState { term: Term(term), voted_for: Some(node(2)) };
    Write::detached(Some(state), None, Vec::new())
}

/// A log of three segments and so many entries. The last vote stands in the header of the third.
fn directory() -> (SimDisk, Log, u64) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    append(&mut log, vote(2));
    let mut last = 0;
    while segments(&disk).len() < 2 {
        last += 1;
        append(&mut log, Write::detached(None, None, vec![command(last, 2, 900)]));
    }
    append(&mut log, vote(3));
    // The roll is followed by what was too long for the segment before.
    while segments(&disk).len() < 3 {
        last += 1;
        append(&mut log, Write::detached(None, None, vec![command(last, 3, 900)]));
    }
    (disk, log, last)
}

/// Behind the damage the seal still tells that there was a later segment, and the last vote was in it.
#[test]
fn a_missing_last_segment_is_missed_although_the_one_before_it_is_damaged() {
    let (disk, mut log, _) = directory();
    append(&mut log, vote(4));
    log.close().unwrap();
    disk.restart();
    let names = segments(&disk);
    assert!(disk.take(&names[2]));
    for damaged in [false, true] {
        if damaged {
            let flip = Damage::FlipBit { at: HEADERS + SECTOR + 200, bit: 1 };
            assert!(disk.damage(&names[1], &flip));
        }
        let outcome = open(&disk.fork(1)).map(|opened| opened.restored.hard_state);
        assert!(matches!(outcome, Err(OpenError::Corrupt { .. })), "{damaged}: {outcome:?}");
    }
}

/// What a repair left behind stands in the headers of the segments since. If the first of them holds no
/// more than its mark, and that is gone, it looks as if it was never used.
#[test]
fn a_loss_is_not_forgotten_with_the_mark_behind_it() {
    let (disk, mut log, last) = directory();
    append(&mut log, Write::detached(None, None, vec![command(last + 1, 3, 10)]));
    log.close().unwrap();
    disk.restart();
    let damaged = segments(&disk)[2].clone();
    assert!(disk.damage(&damaged, &Damage::FlipBit { at: HEADERS + 200, bit: 1 }));
    let lost = LogPosition::new(Term(3), LogIndex(last + 1));
    for mark_is_gone in [false, true] {
        if mark_is_gone {
            let repaired = segments(&disk).pop().unwrap();
            assert!(disk.damage(&repaired, &Damage::Zeros { at: HEADERS, bytes: SECTOR }));
        }
        let OpenedLog { log, restored, .. } = open(&disk).unwrap();
        assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(1)), "{mark_is_gone}");
        assert_eq!(restored.hard_state.term, Term(3));
        drop(log);
        disk.restart();
    }
}
