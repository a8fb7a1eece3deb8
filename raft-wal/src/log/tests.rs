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
