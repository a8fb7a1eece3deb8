//! What a log says of room: how much a batch takes, and how much is left for certain.

use raft_core::{HardState, LogIndex, Membership, NodeId, Payload, Term, Timestamp};

use super::*;
use crate::sim::SimDisk;

fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        timestamp: Timestamp(0),
        payload: Payload::Command(vec![7; bytes].into()),
    }
}

fn open(disk: &SimDisk) -> Log {
    let node = NodeId::new(1).unwrap();
    let config = WalConfig {
        segment_bytes: crate::SEGMENT_BYTES_MIN,
        ..WalConfig::new("simulated", "tests", node, Membership::new([node]).unwrap())
    };
    Log::open(Arc::new(disk.for_this_life()), &config).unwrap().log
}

fn vote(term: u64) -> HardState {
    HardState { term: Term(term), voted_for: None }
}

#[test]
fn a_batch_takes_as_many_bytes_as_it_is_said_to() {
    let mut log = open(&SimDisk::new(1));
    log.append(&[Write::detached(Some(vote(1)), None, vec![entry(1, 1, 1)])]).unwrap();
    let mut rolls = 0;
    for (term, size) in (2..).zip((0..512).step_by(8)) {
        let (segment, begin) = (log.segment_id(), log.segment.end);
        let entries = vec![entry(1, term, size), entry(2, term, 33)];
        let said = Log::bytes_of(&entries);
        log.append(&[Write::detached(Some(vote(term)), Some(LogIndex(1)), entries)]).unwrap();
        if log.segment_id() == segment {
            assert_eq!(log.segment.end - begin, said, "with {size} bytes");
        } else {
            assert_eq!(log.segment_id(), segment + 1);
            rolls += 1;
        }
    }
    assert!((1..32).contains(&rolls), "{rolls} of 64 went into another segment");
}

/// Whether or not a mark may have to come before what is written, and the disk being full by then.
#[test]
fn what_there_is_room_for_is_taken_and_a_vote_behind_it() {
    for marked in [true, false] {
        let disk = SimDisk::new(2);
        let mut log = open(&disk);
        log.append(&[Write::detached(Some(vote(1)), None, vec![entry(1, 1, 1)])]).unwrap();
        assert!(!log.is_marked());
        if marked {
            log.mark().unwrap();
        }
        assert_eq!(log.is_marked(), marked);
        disk.set_capacity(Some(disk.used_bytes()));
        let mut left = log.room_bytes();
        assert!(left > 1000, "{left} bytes are left of {}", log.segment.bytes);
        for index in 2.. {
            let entries = vec![entry(index, 1, 200)];
            let bytes = Log::bytes_of(&entries);
            if bytes > left {
                break;
            }
            left -= bytes;
            log.append(&[Write::detached(None, None, entries)]).unwrap();
        }
        log.mark().unwrap();
        log.append(&[Write::detached(Some(vote(2)), None, Vec::new())]).unwrap();
        assert_eq!(log.segment_id(), 1, "there was no room for another segment");
    }
}

fn open_with(disk: &SimDisk, change: impl FnOnce(&mut WalConfig)) -> Log {
    let node = NodeId::new(1).unwrap();
    let mut config = WalConfig::new("simulated", "tests", node, Membership::new([node]).unwrap());
    change(&mut config);
    Log::open(Arc::new(disk.for_this_life()), &config).unwrap().log
}

fn write_of(index: u64, bytes: usize) -> Write {
    Write::detached(None, None, vec![entry(index, 1, bytes)])
}

#[test]
fn a_marked_end_is_not_marked_again() {
    let mut log = open(&SimDisk::new(1));
    log.append(&[write_of(1, 10)]).unwrap();
    log.mark().unwrap();
    let end = log.segment.end;
    log.mark().unwrap();
    assert!(log.is_marked());
    assert_eq!(log.segment.end, end);
}

#[test]
fn a_write_may_take_what_it_may_and_not_a_byte_more() {
    let write = write_of(1, 3000);
    let bytes = Log::write_bytes(&write);
    for (write_bytes_max, fits) in [(bytes, true), (bytes - 1, false)] {
        let disk = SimDisk::new(1);
        let mut log = open_with(&disk, |config| {
            (config.batch_bytes, config.write_bytes_max) = (1, write_bytes_max);
        });
        let outcome = log.append(std::slice::from_ref(&write));
        assert_eq!(outcome.is_ok(), fits, "{write_bytes_max}: {outcome:?}");
    }
}

#[test]
fn the_room_for_votes_grows_with_the_segment() {
    let votes = |segment_bytes| segment::reserve_bytes(segment_bytes) / SMALL_BATCH_BYTES;
    let sizes = [crate::SEGMENT_BYTES_MIN, 256 << 10, 1 << 20, 2 << 20, 16 << 20];
    assert_eq!(sizes.map(votes), [4, 8, 32, 64, 64]);
}

/// Although the current one is nearly empty: what did not fit into it waits for another.
#[test]
fn a_segment_that_there_was_no_room_for_is_asked_for_again() {
    let disk = SimDisk::new(1);
    let mut log = open_with(&disk, |config| config.segment_bytes = 64 << 10);
    log.append(&[write_of(1, 100)]).unwrap();
    assert!(log.spare_wanted().is_none(), "it is not half full");
    disk.set_capacity(Some(0));
    let error = log.append(&[write_of(2, 55_000)]).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(log.spare_wanted().is_some());
}

/// A block more as soon as there is a byte more.
#[test]
fn a_segment_has_room_for_what_it_needs_and_its_seal() {
    const BLOCK: u64 = 4096;
    let bytes = |needed| segment_file_bytes(4 * BLOCK, needed);
    assert_eq!(bytes(0), 4 * BLOCK);
    assert_eq!(bytes(4 * BLOCK - SMALL_BATCH_BYTES), 4 * BLOCK);
    assert_eq!(bytes(4 * BLOCK - SMALL_BATCH_BYTES + 1), 5 * BLOCK);
}

/// However much of it the end of the log takes that every start writes again.
#[test]
fn a_segment_that_is_written_again_has_room_for_votes_and_its_seal() {
    for size in (15_000..20_000).step_by(256) {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        let mut log = log;
        log.append(&[Write::detached(Some(vote(1)), None, vec![entry(1, 1, size)])]).unwrap();
        log.close().unwrap();
        disk.restart();
        let mut log = open(&disk);
        disk.set_capacity(Some(disk.used_bytes()));
        for term in 2..6 {
            let write = Write::detached(Some(vote(term)), None, Vec::new());
            log.append(&[write]).unwrap_or_else(|error| panic!("{size}, vote of {term}: {error}"));
        }
        let (end, bytes) = (log.segment.end, log.segment.bytes);
        assert!(end + SMALL_BATCH_BYTES <= bytes, "{size}: no room for a seal behind {end}");
    }
}

/// Four of them are just what may be in a segment, and then there are the batches around them.
#[test]
fn what_no_segment_can_hold_is_not_written_again() {
    let mut log = open(&SimDisk::new(1));
    let payload = bytes::Bytes::from(vec![0; 256 << 20]);
    let entry = |index| Entry { payload: Payload::Command(payload.clone()), ..entry(index, 1, 0) };
    let entries: Vec<Entry> = (1..=4).map(entry).collect();
    let reason = |outcome| match outcome {
        Err(WalError::Refused { reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(log.rewrite(&entries)), "more than a segment can be made to hold");
    let less = reason(log.rewrite(&entries[..3]));
    assert_eq!(less, "entries that are not those of this log");
}
