//! How snapshots arrive, are cut, take the place of the log, make room, and are given up.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use raft_core::{
    Entry, HardState, Incoming, LogBase, LogIndex, LogPosition, Snapshot, Term, Write,
};
use raft_wal::sim::{Damage, Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Log, OpenedLog, SnapshotStore, WalError};
use support::snapshots::{CLUSTER, VOTE, base, content, snapshot};
use support::{command, open};
use xxhash_rust::xxh3::xxh3_128;

fn store(disk: &SimDisk) -> (Log, SnapshotStore) {
    let log = open(disk).unwrap().log;
    let store = log.snapshots().clone();
    (log, store)
}

fn chunk(snapshot: &Snapshot, offset: u64, bytes: Vec<u8>) -> Incoming {
    Incoming::Chunk { snapshot: snapshot.id(), offset, bytes: Bytes::from(bytes) }
}

fn temporary(disk: &SimDisk) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".tmp")).count()
}

fn install(snapshot: &Snapshot) -> Write {
    Write::detached_snapshot(Some(VOTE), snapshot.clone(), Vec::new())
}

#[test]
fn a_snapshot_arrives_in_pieces_and_only_whole() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let (snapshot, content) = (snapshot(20), content(20));
    let held = |incoming| store.store(incoming).unwrap().map(|(_, held)| held);
    assert_eq!(held(chunk(&snapshot, 0, vec![1])), Some(0), "of none that was begun");
    assert_eq!(held(Incoming::Begin(snapshot.clone())), Some(0));
    assert_eq!(held(chunk(&snapshot, 5, vec![1])), Some(0), "it does not follow");
    assert_eq!(held(chunk(&snapshot, 0, vec![1; 66_001])), Some(0), "more than there is");
    assert_eq!(held(chunk(&snapshot, 0, content[..40_000].to_vec())), Some(40_000));
    assert_eq!(held(Incoming::Begin(snapshot.clone())), Some(40_000), "it goes on where it was");
    assert!(store.open(snapshot.id()).unwrap().is_none(), "not yet");
    assert_eq!(held(chunk(&snapshot, 40_000, content[40_000..].to_vec())), Some(66_000));
    assert_eq!(held(chunk(&snapshot, 66_000, Vec::new())), Some(66_000));
    let mut read = Vec::new();
    store.open(snapshot.id()).unwrap().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == content, "complete, and readable before it is installed");
    log.append(&[install(&snapshot)]).unwrap();
    log.sync().unwrap();
    assert_eq!(store.held(), std::slice::from_ref(&snapshot));
    assert_eq!(temporary(&disk), 0);
    // What is there already is not there twice.
    log.append(&[Write::detached(None, None, vec![command(21, 2, 10)])]).unwrap();
    log.close().unwrap();
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!((restored.snapshot, restored.entries.len()), (Some(snapshot), 1));
}

#[test]
fn a_snapshot_that_arrives_damaged_is_none() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let snapshot = snapshot(10);
    store.store(Incoming::Begin(snapshot.clone())).unwrap();
    let mut wrong = content(10);
    wrong[7] ^= 1;
    let told = store.store(chunk(&snapshot, 0, wrong)).unwrap();
    assert_eq!(told, Some((snapshot.id(), 0)));
    assert_eq!(temporary(&disk), 0);
    let refusal = log.append(&[install(&snapshot)]).unwrap_err();
    assert!(matches!(refusal, WalError::Refused { .. }), "{refusal}");
    assert_eq!(store.held(), []);
}

#[test]
fn a_snapshot_without_content_is_complete_at_once() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let empty = Snapshot { length: 0, digest: xxh3_128(&[]), ..snapshot(10) };
    store.store(Incoming::Begin(empty.clone())).unwrap();
    log.append(&[install(&empty)]).unwrap();
    log.close().unwrap();
    disk.crash();
    assert_eq!(open(&disk).unwrap().restored.snapshot, Some(empty));
}

#[test]
fn what_is_abandoned_or_replaced_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let (_log, store) = store(&disk);
    for index in [10, 20] {
        store.store(Incoming::Begin(snapshot(index))).unwrap();
        assert_eq!(temporary(&disk), 1);
    }
    store.store(Incoming::Abandon(snapshot(10).id())).unwrap();
    assert_eq!(temporary(&disk), 1, "that one is not on its way any more");
    store.store(Incoming::Abandon(snapshot(20).id())).unwrap();
    assert_eq!(temporary(&disk), 0);
    // Complete, and abandoned.
    store.store(Incoming::Begin(snapshot(10))).unwrap();
    store.store(chunk(&snapshot(10), 0, content(10))).unwrap();
    store.store(Incoming::Abandon(snapshot(10).id())).unwrap();
    assert_eq!(temporary(&disk), 0);
    let mut writer = store.create(base(CLUSTER, 1)).unwrap();
    std::io::Write::write_all(&mut writer, &[1; 100_000]).unwrap();
    writer.flush().unwrap();
    assert_eq!(temporary(&disk), 1);
    drop(writer);
    assert_eq!(temporary(&disk), 0);
}

/// Whatever fails while a snapshot is cut or arrives: the log goes on, and nothing is left behind.
#[test]
fn a_full_disk_gives_a_snapshot_up_and_keeps_the_log() {
    for arriving in [false, true] {
        for room in [0, 1, 512, 1024, 50_000, 66_000, 66_600] {
            let disk = SimDisk::new(1);
            let (mut log, store) = store(&disk);
            log.append(&[Write::detached(Some(VOTE), None, vec![command(1, 2, 10)])]).unwrap();
            log.sync().unwrap();
            disk.set_capacity(Some(disk.used_bytes() + room));
            let outcome = if arriving {
                let begun = store.store(Incoming::Begin(snapshot(20)));
                let mut pieces = [(0, 40_000), (40_000, 66_000)].into_iter();
                begun.and_then(|_| {
                    pieces.try_for_each(|(from, to)| {
                        let bytes = content(20)[from..to].to_vec();
                        store.store(chunk(&snapshot(20), from as u64, bytes)).map(drop)
                    })
                })
            } else {
                store.create(base(CLUSTER, 1)).and_then(|mut writer| {
                    let written = writer.write(&content(20));
                    if written.is_err() {
                        assert!(matches!(writer.write(&[1]), Err(WalError::Poisoned)));
                        assert!(std::io::Write::write(&mut writer, &[1]).is_err());
                        assert!(matches!(writer.finish(), Err(WalError::Poisoned)));
                        return written;
                    }
                    writer.finish().map(drop)
                })
            };
            let error = outcome.expect_err("there is no room");
            assert!(error.is_no_space(), "{room}: {error}");
            assert_eq!((temporary(&disk), store.held().len()), (0, 0), "{room}");
            log.append(&[Write::detached(None, None, vec![command(2, 2, 10)])]).unwrap();
            log.close().unwrap();
            disk.set_capacity(None);
            disk.crash();
            assert_eq!(open(&disk).unwrap().restored.entries.len(), 2);
        }
    }
}

#[test]
fn a_disk_that_fails_ends_a_snapshot_with_its_reason() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename] {
        let disk = SimDisk::new(1);
        let (_log, store) = store(&disk);
        let fault = FaultRule::new(Fault::Error).on(&[operation]).files("incomplete-");
        disk.add_fault(fault);
        let cut = store.create(base(CLUSTER, 1)).and_then(|mut writer| {
            writer.write(&[1; 70_000])?;
            writer.finish()
        });
        let error = cut.unwrap_err();
        assert!(matches!(error, WalError::Disk { .. }), "{operation:?}: {error}");
        assert_eq!(store.held(), [], "{operation:?}");
    }
    // If also that fails which tidies up, the next start does it.
    let left = (0..8).filter(|seed| {
        let disk = SimDisk::new(*seed);
        let (_log, store) = store(&disk);
        let twice =
            FaultRule::new(Fault::Error).on(&[Operation::Write, Operation::Remove]).times(2);
        disk.add_fault(twice);
        assert!(store.create(base(CLUSTER, 1)).is_err());
        let left = temporary(&disk);
        disk.restart();
        open(&disk).unwrap();
        assert_eq!(temporary(&disk), 0);
        left > 0
    });
    assert!(left.count() > 0, "a removal that fails may have happened");
}

/// A snapshot is of what was durable, so it has no later term than the vote. One that does shows that an
/// older log was put there, and with it an older vote.
#[test]
fn a_log_that_is_older_than_its_snapshot_is_refused() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, vec![command(1, 2, 10)])]).unwrap();
    log.sync().unwrap();
    let before = disk.fork(1);
    let later = HardState { term: Term(3), voted_for: None };
    log.append(&[Write::detached(Some(later), None, vec![command(2, 3, 10)])]).unwrap();
    log.sync().unwrap();
    let mut base = base(CLUSTER, 2);
    base.position.term = Term(3);
    store.create(base).unwrap().finish().unwrap();
    let name = "snapshot-00000000000000000003-00000000000000000002";
    before.put(name, disk.read(name).unwrap());
    let (names, error) = (before.names(), open(&before).err().unwrap());
    assert!(error.is_safety_refusal() && error.to_string().contains("term 3"), "{error}");
    assert_eq!(before.names(), names);
}

#[test]
fn two_snapshots_are_kept() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, Vec::new())]).unwrap();
    for index in 1..=5 {
        log.append(&[Write::detached(None, None, vec![command(index, 2, 10)])]).unwrap();
        log.sync().unwrap();
        let mut writer = store.create(base(CLUSTER, index)).unwrap();
        writer.write(&[index as u8]).unwrap();
        writer.finish().unwrap();
        let held: Vec<u64> = store.held().iter().map(|held| held.index().0).collect();
        assert_eq!(held, [index - 1, index][usize::from(index == 1)..]);
    }
    let snapshots =
        |disk: &SimDisk| disk.names().iter().filter(|name| name.starts_with("snapshot-")).count();
    assert_eq!(snapshots(&disk), 2);
    // The names of those before may come back: the next start removes them.
    disk.restart();
    disk.duplicate(
        "snapshot-00000000000000000002-00000000000000000004",
        "snapshot-00000000000000000002-00000000000000000003",
    );
    let opened = open(&disk).unwrap();
    assert_eq!((opened.report.snapshots_damaged, snapshots(&disk)), (1, 3), "a copy is no other");
}

/// What makes room on a full disk needs none.
#[test]
fn a_compaction_makes_room_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, Vec::new())]).unwrap();
    let append = |log: &mut Log, index| {
        let write = Write::detached(None, None, vec![command(index, 2, 900)]);
        log.append(&[write]).and_then(|()| log.sync())
    };
    (1..=40).for_each(|index| append(&mut log, index).unwrap());
    for index in [20, 30] {
        store.create(base(CLUSTER, index)).unwrap().finish().unwrap();
    }
    disk.set_capacity(Some(disk.used_bytes()));
    let full = (41..).find(|index| append(&mut log, *index).is_err()).unwrap();
    // Not even a vote finds room any more.
    let mut term = 2;
    let vote = |term| HardState { term: Term(term), voted_for: None };
    while log.append(&[Write::detached(Some(vote(term + 1)), None, Vec::new())]).is_ok() {
        term += 1;
    }
    let names = disk.names().len();
    log.compact(&base(CLUSTER, 30)).unwrap();
    assert!(disk.names().len() + 1 < names);
    append(&mut log, full).unwrap();
    log.close().unwrap();
    disk.set_capacity(None);
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!(restored.hard_state, vote(term));
    assert_eq!(restored.base.position.index.0 + restored.entries.len() as u64, full);
}

/// A leader may send what this node has cut itself.
#[test]
fn a_snapshot_that_is_held_already_need_not_arrive() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, vec![command(1, 2, 10)])]).unwrap();
    log.sync().unwrap();
    let held = store.create(base(CLUSTER, 1)).unwrap().finish().unwrap();
    log.append(&[install(&held)]).unwrap();
    log.close().unwrap();
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!((restored.base, restored.snapshot), (held.base.clone(), Some(held)));
}

/// A segment that stands on entries that were cut off later cannot be where the log begins, so the one
/// before it stays as long as the older snapshot may be needed.
#[test]
fn the_older_snapshot_finds_its_log_also_behind_a_truncation() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let segments = || disk.names().iter().filter(|name| name.starts_with("segment-")).count();
    let append = |log: &mut Log, vote, cut, entry: Entry| {
        log.append(&[Write::detached(vote, cut, vec![entry])]).unwrap();
        log.sync().unwrap();
    };
    append(&mut log, Some(VOTE), None, command(1, 2, 900));
    let mut last = 1;
    while segments() == 1 {
        last += 1;
        append(&mut log, None, None, command(last, 2, 900));
    }
    // The second segment stands on the entry before the last; from the one before that on, the log is
    // another leader's.
    let vote = HardState { term: Term(3), voted_for: None };
    append(&mut log, Some(vote), Some(LogIndex(last - 2)), command(last - 2, 3, 10));
    for index in last - 1..=last {
        append(&mut log, None, None, command(index, 3, 10));
        let position = LogPosition::new(Term(3), LogIndex(index));
        let base = LogBase { position, ..base(CLUSTER, index) };
        store.create(base.clone()).unwrap().finish().unwrap();
        log.compact(&base).unwrap();
    }
    let newest = format!("snapshot-{:020}-{last:020}", 3);
    while segments() < 4 {
        last += 1;
        append(&mut log, None, None, command(last, 3, 900));
    }
    log.close().unwrap();
    disk.restart();
    assert!(disk.damage(&newest, &Damage::FlipBit { at: 0, bit: 1 }));
    let OpenedLog { restored, report, .. } = open(&disk).unwrap();
    assert!(!report.limping && report.snapshots_damaged == 1, "{report:?}");
    assert_eq!(restored.entries.last().map(|entry| entry.index), Some(LogIndex(last)));
}
