//! What is written comes back: against a twin, over many segments and restarts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use raft_core::{HardState, Term, Write};
use raft_wal::sim::SimDisk;
use raft_wal::{Log, OpenError, SEGMENT_BYTES_MIN, WalConfig, WalError};
use support::{Random, Twin, command, config, node, open, twin_of};

#[derive(Clone, Copy, Debug)]
enum Act {
    Append(u8),
    Sync,
    PrepareSpare,
    /// The process ends; the system goes on.
    Restart,
    /// The log is synced and the power fails.
    SyncAndCrash,
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (1..6_u8).prop_map(Act::Append),
        4 => Just(Act::Sync),
        2 => Just(Act::PrepareSpare),
        1 => Just(Act::Restart),
        1 => Just(Act::SyncAndCrash),
        1 => Just(Act::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_log_remembers_what_its_twin_does(
        seed: u64,
        short_writes: bool,
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut random = Random(seed);
        let disk = SimDisk::new(seed);
        if short_writes {
            disk.shorten_writes();
        }
        let mut twin = Twin::default();
        let mut log = open(&disk).unwrap().log;
        for act in acts {
            match act {
                Act::Append(count) => {
                    let writes: Vec<Write> = (0..count).map(|_| {
                        let write = twin.random_write(&mut random);
                        twin.apply(&write);
                        write
                    }).collect();
                    log.append(&writes).unwrap();
                    continue;
                }
                Act::Sync => {
                    log.sync().unwrap();
                    continue;
                }
                Act::PrepareSpare => {
                    if let Some(job) = log.spare_wanted() {
                        log.offer_spare(job.run().unwrap());
                    }
                    continue;
                }
                Act::Restart => disk.restart(),
                Act::SyncAndCrash => {
                    log.sync().unwrap();
                    disk.crash();
                }
                Act::Close => log.close().unwrap(),
            }
            let opened = open(&disk).unwrap();
            prop_assert_eq!(&twin_of(&opened.restored), &twin);
            prop_assert_eq!(opened.report.torn_bytes, 0);
            log = opened.log;
        }
    }
}

#[test]
fn a_vote_survives_a_roll() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(7), voted_for: Some(node(2)) };
    log.append(&[Write::detached(Some(vote), None, Vec::new())]).unwrap();
    for index in 1..=60 {
        log.append(&[Write::detached(None, None, vec![command(index, 7, 700)])]).unwrap();
    }
    log.sync().unwrap();
    disk.crash();
    let segments = disk.names().iter().filter(|name| name.starts_with("segment-")).count();
    assert!(segments > 3, "{segments}");
    let opened = open(&disk).unwrap();
    assert_eq!(opened.restored.hard_state, vote);
    assert_eq!(opened.restored.entries.len(), 60);
    assert_eq!(opened.report.segments, segments as u64);
}

#[test]
fn a_write_larger_than_a_segment_gets_a_longer_one() {
    let disk = SimDisk::new(2);
    let mut log = open(&disk).unwrap().log;
    let large = 5 * SEGMENT_BYTES_MIN as usize;
    for (index, bytes) in [(1, 10), (2, large), (3, 10)] {
        log.append(&[Write::detached(None, None, vec![command(index, 1, bytes)])]).unwrap();
    }
    log.close().unwrap();
    disk.crash();
    let entries = open(&disk).unwrap().restored.entries;
    assert_eq!(entries, [command(1, 1, 10), command(2, 1, large), command(3, 1, 10)]);
}

#[test]
fn restarts_without_writes_leave_the_directory_as_large_as_it_was() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap().log;
    for index in 1..=30 {
        log.append(&[Write::detached(None, None, vec![command(index, 1, 900)])]).unwrap();
    }
    log.close().unwrap();
    let size = |disk: &SimDisk| {
        disk.names().iter().map(|name| disk.read(name).unwrap().len()).sum::<usize>()
    };
    let log = open(&disk).unwrap().log;
    let (names, bytes) = (disk.names().len(), size(&disk));
    log.close().unwrap();
    for _ in 0..20 {
        let opened = open(&disk).unwrap();
        assert_eq!(opened.restored.entries.len(), 30);
        opened.log.close().unwrap();
        assert_eq!((disk.names().len(), size(&disk)), (names, bytes));
    }
}

#[test]
fn writes_that_do_not_continue_the_log_poison_it_and_leave_no_trace() {
    let write = |index| Write::detached(None, None, vec![command(index, 2, 5)]);
    for wrong in [
        write(3),
        write(1),
        Write::detached(None, None, vec![command(2, 1, 5)]),
        Write::detached(None, Some(raft_core::LogIndex(9)), Vec::new()),
        Write::detached(None, Some(raft_core::LogIndex(0)), Vec::new()),
        Write::detached(None, None, vec![command(2, 2, 300 << 20)]),
    ] {
        let disk = SimDisk::new(4);
        let mut log = open(&disk).unwrap().log;
        log.append(&[write(1)]).unwrap();
        log.sync().unwrap();
        let refusal = log.append(&[wrong]).unwrap_err();
        assert!(matches!(refusal, WalError::Refused { .. }), "{refusal}");
        assert!(matches!(log.append(&[write(2)]), Err(WalError::Poisoned)));
        assert!(matches!(log.sync(), Err(WalError::Poisoned)));
        disk.restart();
        assert_eq!(open(&disk).unwrap().restored.entries, [command(1, 2, 5)]);
    }
}

#[test]
fn a_full_disk_leaves_room_for_votes_and_goes_on_when_there_is_room_again() {
    let disk = SimDisk::new(5);
    let mut log = open(&disk).unwrap().log;
    disk.set_capacity(Some(disk.used_bytes()));
    let mut written = 0;
    let append = |log: &mut Log, index| {
        let write = Write::detached(None, None, vec![command(index, 1, 900)]);
        log.append(&[write]).and_then(|()| log.sync())
    };
    loop {
        if let Some(job) = log.spare_wanted() {
            assert!(job.run().is_err_and(|error| error.is_no_space()), "no room for a spare");
            log.spare_failed();
        }
        match append(&mut log, written + 1) {
            Ok(()) => written += 1,
            Err(error) => break assert!(error.is_no_space(), "{error}"),
        }
    }
    assert!(written > 2, "the current segment had its room already");
    assert!(!disk.names().iter().any(|name| name.ends_with(".tmp")), "{:?}", disk.names());
    let vote = |term| HardState { term: Term(term), voted_for: Some(node(2)) };
    let mut term = 0;
    let error = loop {
        let write = Write::detached(Some(vote(term + 1)), None, Vec::new());
        match log.append(&[write]).and_then(|()| log.sync()) {
            Ok(()) => term += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_no_space(), "{error}");
    assert!(term >= 4, "room for {term} votes only");
    assert!(append(&mut log, written + 1).unwrap_err().is_no_space());
    disk.set_capacity(None);
    append(&mut log, written + 1).unwrap();
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!(restored.entries.len() as u64, written + 1);
    assert_eq!(restored.hard_state, vote(term));
}

#[test]
fn the_directory_of_another_node_is_refused_by_name_and_left_alone() {
    let disk = SimDisk::new(6);
    open(&disk).unwrap().log.close().unwrap();
    // One of ours that an interrupted run left, and one that is somebody else's.
    disk.put("spare-7.tmp", vec![1]);
    disk.put("thesis.tmp", vec![1]);
    let before = disk.names();
    for foreign in [
        WalConfig { node: node(2), ..config() },
        WalConfig { cluster: "other".to_owned(), ..config() },
    ] {
        let error = Log::open(Arc::new(disk.clone()), &foreign).err().unwrap();
        assert!(matches!(error, OpenError::ForeignDirectory { .. }), "{error}");
        assert!(error.is_safety_refusal());
        assert!(error.to_string().contains("n1 of the cluster \"tests\""), "{error}");
    }
    assert_eq!(disk.names(), before);
    open(&disk).unwrap();
    assert!(!disk.names().contains(&"spare-7.tmp".to_owned()));
    assert!(disk.names().contains(&"thesis.tmp".to_owned()));
}

#[test]
fn the_incarnation_stays_and_is_new_for_a_new_directory() {
    let disk = SimDisk::new(7);
    let first = open(&disk).unwrap().identity;
    disk.crash();
    assert_eq!(open(&disk).unwrap().identity, first);
    assert_ne!(open(&SimDisk::new(8)).unwrap().identity.incarnation, first.incarnation);
}
