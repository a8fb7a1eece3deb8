//! Snapshots that another node sends, and that take the place of the log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use raft_core::{Incoming, LogIndex, LogPosition, Snapshot, Term, Write};
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{Log, Repair};
use support::history::{
    after_power_cut, append, cast, entries_behind, install, log_of, receive, reopen, scrub,
    segments, spoil, vote,
};
use support::snapshots::{ALONE, CLUSTER, base, snapshot};
use support::{command, open};

/// A log of so many entries of term 1, of which none is committed.
fn of_another_leader(entries: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    cast(&mut log, 1);
    append(&mut log, 1, 1..=entries);
    (disk, log)
}

/// The entries of a leader that was deposed go further than the snapshot of the one that came after.
#[test]
fn a_snapshot_takes_the_place_of_a_log_that_is_longer() {
    for more in [0, 1, 30] {
        let (disk, mut log) = of_another_leader(60);
        receive(log.snapshots(), &snapshot(50));
        install(&mut log, &snapshot(50));
        append(&mut log, 2, 51..=50 + more);
        let restored = after_power_cut(&disk);
        assert_eq!(restored.base, base(CLUSTER, 50));
        assert_eq!(restored.snapshot, Some(snapshot(50)));
        assert_eq!(restored.entries, entries_behind(LogIndex(50), 50 + more));
        assert_eq!(restored.hard_state, vote(2));
    }
}

#[test]
fn the_segment_that_begins_with_a_snapshot_is_written_again_from_there() {
    // With so many entries the log before is shorter than a segment, or longer.
    for (before, index, restart) in [(9, 5, true), (60, 50, false), (60, 50, true)] {
        let (disk, mut log) = of_another_leader(before);
        receive(log.snapshots(), &snapshot(index));
        install(&mut log, &snapshot(index));
        append(&mut log, 2, index + 1..=index + 40);
        let entries = entries_behind(LogIndex(index), index + 40);
        if restart {
            drop(log);
            let opened = reopen(&disk);
            assert_eq!(opened.report.damage, None);
            assert_eq!(opened.restored.base, base(CLUSTER, index));
            assert_eq!(opened.restored.entries, entries);
            log = opened.log;
        }
        spoil(&disk, &segments(&disk)[0]);
        assert_eq!(scrub(&mut log), Repair::Entries { after: LogIndex(index) });
        log.rewrite(&entries).unwrap();
        let restored = after_power_cut(&disk);
        assert_eq!((restored.base, restored.lost), (base(CLUSTER, index), LogPosition::ZERO));
        assert_eq!(restored.entries, entries);
    }
}

/// A leader that has cut another snapshot offers it at once, and the write of the first may still be in
/// the log's queue.
#[test]
fn a_snapshot_that_has_arrived_waits_for_its_write_while_the_next_one_arrives() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let store = log.snapshots().clone();
    let [first, second, third] = [5, 9, 12].map(snapshot);
    receive(&store, &first);
    store.store(Incoming::Begin(second.clone())).unwrap();
    assert!(store.open(first.id()).unwrap().is_some());
    install(&mut log, &first);
    receive(&store, &second);
    // Two wait for their writes, and one of them is not wanted after all.
    receive(&store, &third);
    store.store(Incoming::Abandon(third.id())).unwrap();
    assert!(store.open(third.id()).unwrap().is_none());
    install(&mut log, &second);
    assert_eq!(store.held(), [first, second.clone()]);
    drop(log);
    assert_eq!(after_power_cut(&disk).snapshot, Some(second));
    assert!(disk.names().iter().all(|name| !name.starts_with("incomplete-")), "all is tidy");
}

/// The node was told that nothing is there, and asks for the first piece. It waits for an answer.
#[test]
fn every_piece_is_answered_also_of_a_snapshot_that_found_no_room() {
    let disk = SimDisk::new(1);
    let log = open(&disk).unwrap().log;
    let store = log.snapshots().clone();
    let snapshot = snapshot(5);
    disk.set_capacity(Some(disk.used_bytes()));
    let full = store.store(Incoming::Begin(snapshot.clone()));
    assert!(full.is_err_and(|error| error.is_no_space()));
    disk.set_capacity(None);
    let piece = Incoming::Chunk { snapshot: snapshot.id(), offset: 0, bytes: "piece".into() };
    assert_eq!(store.store(piece).unwrap(), Some((snapshot.id(), 0)));
    // It gives up, and begins anew when it is offered again.
    store.store(Incoming::Abandon(snapshot.id())).unwrap();
    receive(&store, &snapshot);
}

/// One that a node has taken over waits for its write; meanwhile the next one begins to come.
#[test]
fn a_snapshot_that_waits_for_its_write_is_not_given_up_for_the_next_one() {
    let (disk, mut log) = log_of(10);
    let (first, second) = (snapshot(50), snapshot(70));
    let store = log.snapshots().clone();
    receive(&store, &first);
    receive(&store, &second);
    store.store(Incoming::Begin(snapshot(90))).unwrap();
    for snapshot in [&first, &second] {
        assert!(store.open(snapshot.id()).unwrap().is_some());
        install(&mut log, snapshot);
    }
    assert_eq!(store.held(), [first, second.clone()]);
    drop(log);
    assert_eq!(after_power_cut(&disk).snapshot, Some(second));
}

#[test]
fn a_snapshot_comes_first_in_its_batch_or_not_at_all() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    receive(log.snapshots(), &snapshot(10));
    let before = Write::detached(Some(vote(2)), None, vec![command(1, 2, 10)]);
    let install = Write::detached_snapshot(None, snapshot(10), Vec::new());
    let refusal = log.append(&[before, install]).unwrap_err();
    assert!(refusal.to_string().contains("in the middle of a batch"), "{refusal}");
}

/// The members are those of the snapshot that took the place of the log, also when what stands behind it
/// is damaged.
#[test]
fn who_decides_alone_is_told_by_the_snapshot_that_was_installed() {
    for (members_then, is_alone) in [(ALONE, true), (CLUSTER, false)] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk).unwrap().log;
        let snapshot = Snapshot { base: base(members_then, 20), ..snapshot(20) };
        receive(log.snapshots(), &snapshot);
        install(&mut log, &snapshot);
        append(&mut log, 2, 21..=23);
        log.close().unwrap();
        disk.restart();
        let last = disk.names().into_iter().rfind(|name| name.starts_with("segment-"));
        // Behind the record of the snapshot, in the first entry.
        assert!(disk.damage(&last.unwrap(), &Damage::FlipBit { at: 2 * 4096 + 512 + 200, bit: 1 }));
        match open(&disk) {
            Ok(opened) => {
                assert!(opened.report.limping && !is_alone);
                assert_eq!(opened.restored.lost, LogPosition::new(Term(2), LogIndex(23)));
            }
            Err(error) => assert!(error.is_safety_refusal() && is_alone),
        }
    }
}

/// The power fails at every operation of an installation, with the log synced before or behind: there is
/// the log before, the snapshot alone, or all of the write.
#[test]
fn an_installation_cut_short_is_done_or_not() {
    let mut seen = [0; 3];
    for place in 0.. {
        let disk = SimDisk::new(1);
        let mut log = open(&disk).unwrap().log;
        cast(&mut log, 2);
        append(&mut log, 2, 1..=1);
        receive(log.snapshots(), &snapshot(20));
        let write = Write::detached_snapshot(None, snapshot(20), vec![command(21, 2, 10)]);
        disk.inject(Fault::PowerCut, place);
        if log.append(&[write]).and_then(|()| log.sync()).is_ok() {
            break;
        }
        for cut in disk.power_cuts(64, place) {
            let restored = open(&cut.disk).unwrap().restored;
            let context = format!("operation {place}, with {:?}", cut.survived);
            let base = restored.base.position.index.0;
            let last = base + restored.entries.len() as u64;
            let which = [(0, 1), (20, 20), (20, 21)].iter().position(|it| *it == (base, last));
            seen[which.unwrap_or_else(|| panic!("{context}: {base}, {last}"))] += 1;
            assert_eq!(restored.snapshot, (base == 20).then(|| snapshot(20)), "{context}");
            cut.disk.crash();
            let again = open(&cut.disk).unwrap().restored;
            assert_eq!(again, restored, "{context}");
        }
    }
    assert!(seen.iter().all(|count| *count > 1), "{seen:?}");
}
