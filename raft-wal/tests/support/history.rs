//! A log of single entries of term 2, in segments of about seven, and what happens to it at rest.

use std::ops::RangeInclusive;

use bytes::Bytes;
use raft_core::{Entry, HardState, Incoming, LogIndex, Restored, Snapshot, Term, Write};
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{Log, OpenedLog, Repair, Scrubbed, SnapshotStore};

use super::snapshots::{CLUSTER, base, content};
use super::{command, node, open};

/// Both copies of the header of a segment.
pub(crate) const HEADERS: u64 = 2 * 4096;

pub(crate) fn vote(term: u64) -> HardState {
    HardState { term: Term(term), voted_for: Some(node(2)) }
}

pub(crate) fn cast(log: &mut Log, term: u64) {
    log.append(&[Write::detached(Some(vote(term)), None, Vec::new())]).unwrap();
    log.sync().unwrap();
}

/// Each with a sync of its own.
pub(crate) fn append(log: &mut Log, term: u64, indexes: RangeInclusive<u64>) {
    for index in indexes {
        log.append(&[Write::detached(None, None, vec![command(index, term, 900)])]).unwrap();
        log.sync().unwrap();
    }
}

/// A log of so many entries.
pub(crate) fn log_of(entries: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    cast(&mut log, 2);
    append(&mut log, 2, 1..=entries);
    (disk, log)
}

pub(crate) fn entries_behind(after: LogIndex, last: u64) -> Vec<Entry> {
    (after.0 + 1..=last).map(|index| command(index, 2, 900)).collect()
}

/// In the order of their numbers.
pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("segment-") && !name.ends_with(".broken"));
    names.sort_by_key(|name| name[name.len() - 20..].to_owned());
    names
}

pub(crate) fn newest_snapshot(disk: &SimDisk) -> String {
    disk.names().into_iter().rfind(|name| name.starts_with("snapshot-")).unwrap()
}

/// Changes a bit in the middle of what the file holds.
pub(crate) fn spoil(disk: &SimDisk, name: &str) {
    let bytes = disk.read(name).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(disk.damage(name, &Damage::FlipBit { at: used as u64 * 3 / 4, bit: 3 }));
}

/// Reads everything again once.
pub(crate) fn scrub_all(log: &mut Log, disk: &SimDisk) -> Vec<Scrubbed> {
    let places = segments(disk).len() - 1 + log.snapshots().held().len();
    (0..places).map(|_| log.next_scrub().unwrap().run(|_| true).unwrap()).collect()
}

/// Reads everything again until something is found.
pub(crate) fn scrub(log: &mut Log) -> Repair {
    for _ in 0..100 {
        let Some(job) = log.next_scrub() else { continue };
        let found = log.scrubbed(&job.run(|_| true).unwrap()).unwrap();
        if found != Repair::None {
            return found;
        }
    }
    Repair::None
}

/// Reads everything again, and writes again what is damaged: so many segments.
pub(crate) fn scrub_and_rewrite(log: &mut Log, disk: &SimDisk, last: u64) -> usize {
    let damaged = scrub_all(log, disk).into_iter().filter(|it| it.damage().is_some());
    let damaged: Vec<Scrubbed> = damaged.collect();
    for scrubbed in &damaged {
        if let Repair::Entries { after } = log.scrubbed(scrubbed).unwrap() {
            log.rewrite(&entries_behind(after, last)).unwrap();
        }
    }
    damaged.len()
}

pub(crate) fn reopen(disk: &SimDisk) -> OpenedLog {
    disk.crash();
    open(disk).unwrap()
}

/// What is remembered after a power cut, without any damage.
pub(crate) fn after_power_cut(disk: &SimDisk) -> Restored {
    let OpenedLog { restored, report, .. } = reopen(disk);
    assert_eq!(report.damage, None);
    restored
}

/// The state machine's own snapshot.
pub(crate) fn cut(log: &Log, index: u64) -> Snapshot {
    let mut writer = log.snapshots().create(base(CLUSTER, index)).unwrap();
    writer.write(&content(index)).unwrap();
    writer.finish().unwrap()
}

/// All of a snapshot comes from another node.
pub(crate) fn receive(store: &SnapshotStore, snapshot: &Snapshot) {
    store.store(Incoming::Begin(snapshot.clone())).unwrap();
    let bytes = Bytes::from(content(snapshot.index().0));
    let chunk = Incoming::Chunk { snapshot: snapshot.id(), offset: 0, bytes };
    assert_eq!(store.store(chunk).unwrap(), Some((snapshot.id(), snapshot.length)));
}

/// It takes the place of the log.
pub(crate) fn install(log: &mut Log, snapshot: &Snapshot) {
    log.append(&[Write::detached_snapshot(Some(vote(2)), snapshot.clone(), Vec::new())]).unwrap();
    log.sync().unwrap();
}
