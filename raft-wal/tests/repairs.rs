//! Snapshots that take the place of a log, damage that is repaired while the node runs, and what a node
//! remembers after both.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use raft_core::{
    ChunkOrder, Entry, HardState, Incarnation, Incoming, LogBase, LogIndex, LogPosition, Payload,
    Restored, Snapshot, Term, Timestamp, Write,
};
use raft_wal::sim::{Damage, Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Disk, DiskFile, Log, OpenedLog, Repair, SnapshotStore, WalConfig, WalError};
use support::{command, config, members, node, open};
use xxhash_rust::xxh3::xxh3_128;

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term(term), LogIndex(index))
}

fn base(term: u64, index: u64) -> LogBase {
    LogBase {
        position: position(term, index),
        timestamp: Timestamp(1000 + index),
        membership: members(&[1, 2, 3]),
        membership_index: LogIndex(0),
    }
}

fn snapshot(term: u64, index: u64) -> Snapshot {
    let content = content(index);
    Snapshot { base: base(term, index), length: content.len() as u64, digest: xxh3_128(&content) }
}

fn content(index: u64) -> Vec<u8> {
    vec![index as u8; 3000]
}

fn vote(term: u64) -> HardState {
    HardState { term: Term(term), voted_for: Some(node(2)) }
}

/// A vote in this term, and the entries `from..=to` of it.
fn append(log: &mut Log, term: u64, from: u64, to: u64) {
    let voted = Write::detached(Some(vote(term)), None, Vec::new());
    log.append(&[voted]).unwrap();
    for index in from..=to {
        log.append(&[Write::detached(None, None, vec![command(index, term, 900)])]).unwrap();
    }
    log.sync().unwrap();
}

fn receive(store: &SnapshotStore, snapshot: &Snapshot) {
    store.store(Incoming::Begin(snapshot.clone())).unwrap();
    let bytes = Bytes::from(content(snapshot.index().0));
    let chunk = Incoming::Chunk { snapshot: snapshot.id(), offset: 0, bytes };
    assert_eq!(store.store(chunk).unwrap(), Some((snapshot.id(), snapshot.length)));
}

/// A leader's snapshot takes the place of the log.
fn install(log: &mut Log, term: u64, index: u64) {
    let snapshot = snapshot(term, index);
    receive(log.snapshots(), &snapshot);
    log.append(&[Write::detached_snapshot(Some(vote(term)), snapshot, Vec::new())]).unwrap();
    log.sync().unwrap();
}

fn cut(log: &Log, term: u64, index: u64) {
    let mut writer = log.snapshots().create(base(term, index)).unwrap();
    writer.write(&content(index)).unwrap();
    assert_eq!(writer.finish().unwrap(), snapshot(term, index));
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("segment-"));
    names.sort_by_key(|name| name[name.len() - 20..].to_owned());
    names
}

/// Changes a bit in the middle of what the file holds.
fn damage(disk: &SimDisk, name: &str) {
    let bytes = disk.read(name).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(disk.damage(name, &Damage::FlipBit { at: used as u64 * 3 / 4, bit: 3 }));
}

/// Reads everything again until something is found.
fn scrub(log: &mut Log) -> Repair {
    for _ in 0..100 {
        let Some(job) = log.next_scrub() else { continue };
        let found = log.scrubbed(&job.run(|_| true).unwrap()).unwrap();
        if found != Repair::None {
            return found;
        }
    }
    Repair::None
}

/// What is remembered after a power cut.
fn after_power_cut(disk: &SimDisk) -> Restored {
    disk.crash();
    let OpenedLog { restored, report, .. } = open(disk).unwrap();
    assert_eq!(report.damage, None);
    restored
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index.0).collect()
}

/// The entries of a leader that was deposed go further than the snapshot of the one that came after.
#[test]
fn a_snapshot_takes_the_place_of_a_log_that_is_longer() {
    for more in [0, 1, 30] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk).unwrap().log;
        append(&mut log, 2, 1, 60);
        install(&mut log, 3, 50);
        append(&mut log, 3, 51, 50 + more);
        let restored = after_power_cut(&disk);
        assert_eq!(restored.base, base(3, 50));
        assert_eq!(restored.snapshot, Some(snapshot(3, 50)));
        assert_eq!(indexes(&restored.entries), (51..=50 + more).collect::<Vec<_>>());
        assert_eq!(restored.hard_state, vote(3));
    }
}

#[test]
fn the_segment_that_begins_with_a_snapshot_is_written_again_from_there() {
    for restart in [false, true] {
        let disk = SimDisk::new(2);
        let mut log = open(&disk).unwrap().log;
        append(&mut log, 2, 1, 60);
        install(&mut log, 3, 50);
        append(&mut log, 3, 51, 90);
        if restart {
            drop(log);
            disk.restart();
            log = open(&disk).unwrap().log;
        }
        damage(&disk, &segments(&disk)[0]);
        assert_eq!(scrub(&mut log), Repair::Entries { after: LogIndex(50) });
        let entries: Vec<_> = (51..=90).map(|index| command(index, 3, 900)).collect();
        log.rewrite(&entries).unwrap();
        let restored = after_power_cut(&disk);
        assert_eq!((restored.base, restored.lost), (base(3, 50), LogPosition::ZERO));
        assert_eq!(restored.entries, entries);
    }
}

/// What was lost and how often is remembered when a segment from before the loss is written again.
#[test]
fn a_limping_node_still_limps_after_a_segment_was_written_again() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap().log;
    append(&mut log, 2, 1, 60);
    log.close().unwrap();
    disk.restart();
    // The last but one holds entries; the vote is in the last one.
    let names = segments(&disk);
    damage(&disk, &names[names.len() - 2]);
    let OpenedLog { mut log, restored, .. } = open(&disk).unwrap();
    assert_eq!((restored.lost, restored.incarnation), (position(2, 60), Incarnation(1)));
    let kept = restored.entries;
    assert!(kept.len() > 20 && kept.len() < 59, "{}", kept.len());

    damage(&disk, &segments(&disk)[1]);
    let Repair::Entries { after } = scrub(&mut log) else { panic!("it is needed") };
    assert!(after > LogIndex(0));
    let wanted: Vec<_> = kept.iter().filter(|it| it.index > after).cloned().collect();
    log.rewrite(&wanted).unwrap();
    let restored = after_power_cut(&disk);
    assert_eq!(restored.entries, kept);
    assert_eq!((restored.lost, restored.incarnation), (position(2, 60), Incarnation(1)));
}

/// The newest snapshot is damaged, so the node begins with the one before it, and with the log since.
#[test]
fn what_the_older_snapshot_needs_is_not_taken_for_compacted() {
    let disk = SimDisk::new(4);
    let mut log = open(&disk).unwrap().log;
    append(&mut log, 2, 1, 90);
    cut(&log, 2, 10);
    cut(&log, 2, 50);
    log.compact(&base(2, 50)).unwrap();
    log.close().unwrap();
    disk.restart();
    let newest = disk.names().into_iter().rfind(|name| name.starts_with("snapshot-")).unwrap();
    damage(&disk, &newest);
    let OpenedLog { mut log, restored, .. } = open(&disk).unwrap();
    assert_eq!(restored.snapshot, Some(snapshot(2, 10)));
    assert!(restored.base.position.index <= LogIndex(10));
    // The segment that holds some of what lies between the two.
    let first = segments(&disk)[0].clone();
    damage(&disk, &first);
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
    let disk = SimDisk::new(5);
    let mut log = open(&disk).unwrap().log;
    append(&mut log, 2, 1, 90);
    cut(&log, 2, 10);
    cut(&log, 2, 50);
    log.compact(&base(2, 50)).unwrap();
    let newest = disk.names().into_iter().rfind(|name| name.starts_with("snapshot-")).unwrap();
    damage(&disk, &newest);
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
    assert_eq!(restored.entries.last().map(Entry::position), Some(position(2, 90)));
}

/// One that a node has taken over waits for its write; meanwhile the next one begins to come.
#[test]
fn a_snapshot_that_waits_for_its_write_is_not_given_up_for_the_next_one() {
    let disk = SimDisk::new(6);
    let mut log = open(&disk).unwrap().log;
    append(&mut log, 2, 1, 10);
    let (first, second) = (snapshot(2, 50), snapshot(2, 70));
    let store = log.snapshots().clone();
    receive(&store, &first);
    receive(&store, &second);
    store.store(Incoming::Begin(snapshot(2, 90))).unwrap();
    for snapshot in [&first, &second] {
        assert!(store.open(snapshot.id()).unwrap().is_some());
        let write = Write::detached_snapshot(None, snapshot.clone(), Vec::new());
        log.append(&[write]).unwrap();
        log.sync().unwrap();
    }
    assert_eq!(store.held(), [first, second.clone()]);
    drop(log);
    assert_eq!(after_power_cut(&disk).snapshot, Some(second));
}

#[test]
fn entries_that_do_not_fit_a_rewriting_do_no_harm() {
    let disk = SimDisk::new(7);
    let mut log = open(&disk).unwrap().log;
    append(&mut log, 2, 1, 60);
    let entries = |last| (1..=last).map(|index| command(index, 2, 900)).collect::<Vec<_>>();
    for wrong in [Vec::new(), entries(59), entries(60).split_off(7), {
        let mut entries = entries(60);
        entries[3].payload = Payload::Membership(members(&[1, 2]));
        entries
    }] {
        let outcome = log.rewrite(&wrong);
        assert!(matches!(outcome, Err(WalError::Refused { .. })), "{outcome:?}");
    }
    append(&mut log, 2, 61, 62);
    log.rewrite(&entries(62)).unwrap();
    assert_eq!(after_power_cut(&disk).entries, entries(62));
}

/// A disk on which something happens behind the log's back, between the renaming of a segment and the
/// sync of the directory that is to make its name durable.
struct Meddling {
    disk: SimDisk,
    meddle: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Disk for Meddling {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)?;
        let meddle = self.meddle.lock().unwrap().take_if(|_| to.starts_with("segment-"));
        if let Some(meddle) = meddle {
            meddle();
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
}

/// The sync of the directory fails for the thread that cuts a snapshot, which takes the error with it:
/// the one for the log succeeds, and proves nothing.
#[test]
fn a_failed_sync_of_the_directory_counts_for_whoever_it_was_not_told() {
    let mut refused = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let meddling = Meddling { disk: disk.for_this_life(), meddle: Mutex::default() };
        let meddling = Arc::new(meddling);
        let mut log = Log::open(Arc::clone(&meddling) as _, &config()).unwrap().log;
        append(&mut log, 2, 1, 2);
        let mut writer = log.snapshots().create(base(2, 1)).unwrap();
        writer.write(&content(1)).unwrap();
        let failing = disk.clone();
        *meddling.meddle.lock().unwrap() = Some(Box::new(move || {
            failing.add_fault(FaultRule::new(Fault::Error).on(&[Operation::SyncDirectory]));
            assert!(matches!(writer.finish(), Err(WalError::Disk { .. })));
        }));
        let mut acknowledged = 2;
        for index in 3..20 {
            let write = Write::detached(None, None, vec![command(index, 2, 900)]);
            if log.append(&[write]).and_then(|()| log.sync()).is_err() {
                refused += 1;
                break;
            }
            acknowledged = index;
        }
        let restored = after_power_cut(&disk);
        assert!(restored.entries.len() as u64 >= acknowledged, "seed {seed}: {acknowledged}");
    }
    assert_eq!(refused, 20);
}

/// A snapshot that cannot be handed on to a peer has to be replaced: nobody may wait for the log to grow.
#[test]
fn a_snapshot_found_damaged_by_a_reader_is_reported_by_the_next_scrub() {
    let disk = SimDisk::new(8);
    let mut log = open(&disk).unwrap().log;
    append(&mut log, 2, 1, 2);
    cut(&log, 2, 2);
    let snapshot = snapshot(2, 2);
    damage(&disk, &disk.names().into_iter().rfind(|it| it.starts_with("snapshot-")).unwrap());
    let order =
        ChunkOrder { to: node(2), snapshot: snapshot.id(), offset: 0, bytes_max: snapshot.length };
    assert_eq!(log.snapshots().read_chunk(&order).unwrap(), None);
    assert_eq!(scrub(&mut log), Repair::Snapshot);
    assert_eq!(scrub(&mut log), Repair::None, "once is enough");
    assert_eq!(log.snapshots().held(), []);
}

/// The only voter refuses to forget; but what its snapshot holds is not forgotten.
#[test]
fn nothing_is_lost_if_the_snapshot_holds_all_that_the_log_did() {
    let disk = SimDisk::new(9);
    let open = || {
        let config = WalConfig { membership: members(&[1]), ..config() };
        Log::open(Arc::new(disk.for_this_life()), &config)
    };
    let mut log = open().unwrap().log;
    append(&mut log, 2, 1, 30);
    let base = LogBase { membership: members(&[1]), ..base(2, 30) };
    let mut writer = log.snapshots().create(base.clone()).unwrap();
    writer.write(&content(30)).unwrap();
    let snapshot = writer.finish().unwrap();
    log.close().unwrap();
    disk.restart();
    let names = segments(&disk);
    damage(&disk, &names[names.len() - 1]);
    let OpenedLog { restored, report, .. } = open().unwrap();
    assert_eq!((restored.base, restored.snapshot), (base, Some(snapshot)));
    assert_eq!((restored.lost, restored.incarnation), (LogPosition::ZERO, Incarnation(0)));
    assert_eq!(restored.hard_state, vote(2));
    assert!(!report.limping && report.damage.is_some(), "{report:?}");
}
