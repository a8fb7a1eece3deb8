//! Segments that are long enough to be read on two threads: nobody can tell from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use raft_core::Write;
use raft_wal::sim::{Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Log, OpenError, OpenedLog, WalConfig};
use support::{Random, Twin, config, twin_of};

const SEGMENTS: usize = 7;

fn open(disk: &SimDisk) -> Result<OpenedLog, OpenError> {
    let config = WalConfig { segment_bytes: 1 << 20, ..config() };
    Log::open(Arc::new(disk.for_this_life()), &config)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

/// A closed log of several long segments, and what is in it.
fn written(disk: &SimDisk) -> Twin {
    let mut random = Random(5);
    let mut twin = Twin::default();
    let mut log = open(disk).unwrap().log;
    while segments(disk).len() < SEGMENTS {
        let mut batch = Vec::new();
        for _ in 0..50 {
            let write: Write = twin.random_write(&mut random);
            twin.apply(&write);
            batch.push(write);
        }
        log.append(&batch).unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    disk.restart();
    twin
}

#[test]
fn everything_is_there_in_its_order() {
    let disk = SimDisk::new(1);
    let twin = written(&disk);
    let opened = open(&disk).unwrap();
    assert!(twin_of(&opened.restored) == twin);
    assert_eq!(opened.report.segments, SEGMENTS as u64);
    assert!(opened.report.bytes >= (SEGMENTS as u64) << 20);
}

#[test]
fn the_first_segment_that_cannot_be_read_is_the_one_that_is_named() {
    let disk = SimDisk::new(2);
    written(&disk);
    let names = segments(&disk);
    // Each is opened once to see what it replaces, from the last to the first, and once to be read.
    for first in 0..SEGMENTS {
        let disk = disk.fork(first as u64);
        for name in &names[first..] {
            let rule = FaultRule::new(Fault::Error).on(&[Operation::Open]).files(name);
            disk.add_fault(rule.after(1));
        }
        let Err(error) = open(&disk) else { panic!("segment {first} was read") };
        assert!(error.to_string().contains(&names[first]), "{error}, not of {}", names[first]);
        let stats = disk.stats();
        assert_eq!(stats.read_errors, 1, "nothing is read behind an error: {stats:?}");
    }
}

#[test]
fn damage_ends_the_log_where_it_is() {
    let disk = SimDisk::new(3);
    let twin = written(&disk);
    // The last one is not full.
    for (number, name) in segments(&disk)[..SEGMENTS - 1].iter().enumerate() {
        let disk = disk.fork(number as u64);
        let mut content = disk.read(name).unwrap();
        content[300_000] ^= 1;
        disk.put(name, content);
        let opened = open(&disk).unwrap();
        assert_eq!(opened.report.damage.map(|damage| damage.file).as_ref(), Some(name));
        let entries = opened.restored.entries;
        assert!(entries.len() < twin.entries.len());
        // What the log forgot may include a truncation: as far as terms agree, entries do.
        let same =
            entries.iter().zip(&twin.entries).filter(|(here, there)| here.term == there.term);
        assert!(same.clone().count() > 0 || number == 0);
        for (here, there) in same {
            assert_eq!(here, there);
        }
    }
}

/// A segment for a single write that needs more than one has is as long as it takes, its seal included.
#[test]
fn one_write_of_any_length_finds_a_segment() {
    for bytes in (20_000..30_000).step_by(100) {
        let disk = SimDisk::new(1);
        let mut log = support::open(&disk).unwrap().log;
        let entries = [support::command(1, 1, bytes), support::command(2, 1, 12_000)];
        for entry in &entries {
            log.append(&[Write::detached(None, None, vec![entry.clone()])]).unwrap();
            log.sync().unwrap();
        }
        log.close().unwrap();
        disk.restart();
        let OpenedLog { restored, report, .. } = support::open(&disk).unwrap();
        assert_eq!((restored.entries.as_slice(), report.damage), (&entries[..], None), "{bytes}");
    }
}
