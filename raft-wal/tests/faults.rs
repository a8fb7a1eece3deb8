//! A disk that fails while a directory is read or written: an error, never another log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use raft_core::{Restored, Write};
use raft_wal::sim::{Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Disk, DiskFile, Log, OpenError, OpenErrorKind, WalError};
use support::model::Model;
use support::{Random, command, config, open};

/// A directory with segments and snapshots, and what it holds.
fn directory(seed: u64) -> (SimDisk, Restored) {
    let disk = SimDisk::new(seed);
    let (mut random, mut model) = (Random(seed), Model::new());
    let mut log = open(&disk).unwrap().log;
    while log.snapshots().held().is_empty() || model.now().compacted.0 == 0 {
        model.act(&mut log, &mut random).unwrap();
    }
    (0..10).for_each(|_| model.act(&mut log, &mut random).unwrap());
    log.close().unwrap();
    disk.restart();
    let restored = open(&disk.fork(seed)).unwrap().restored;
    (disk, restored)
}

fn contents(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    disk.names().into_iter().map(|name| (name.clone(), disk.read(&name).unwrap())).collect()
}

/// Nothing is taken for empty, missing or damaged only because it cannot be read now.
#[test]
fn a_read_error_anywhere_ends_the_opening_and_changes_nothing() {
    for seed in 0..4 {
        let (disk, restored) = directory(seed);
        let before = contents(&disk);
        let mut places = 0;
        for place in 0.. {
            let copy = disk.fork(place);
            copy.add_fault(FaultRule::new(Fault::Error).on(Operation::LOOKS).after(place));
            match open(&copy) {
                Err(error) => {
                    assert_eq!(error.kind(), OpenErrorKind::DiskFailure, "{place}: {error}");
                    assert!(error.is_disk_failure() && !error.is_safety_refusal());
                    if copy.stats().operations == 0 {
                        assert!(contents(&copy) == before, "seed {seed}, look {place}: {error}");
                    }
                }
                Ok(opened) => {
                    assert_eq!(
                        copy.stats().read_errors,
                        0,
                        "seed {seed}: look {place} passed over"
                    );
                    assert_eq!(opened.restored, restored);
                    break;
                }
            }
            copy.restart();
            assert_eq!(open(&copy).unwrap().restored, restored, "seed {seed}, look {place}");
            places = place;
        }
        assert!(places > 8, "{places}");
    }
}

/// Whatever fails first, the log says so once, and takes nothing any more.
#[test]
fn after_any_failure_the_log_takes_nothing() {
    for operation in [Operation::Write, Operation::Sync] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk).unwrap().log;
        disk.add_fault(FaultRule::new(Fault::Error).on(&[operation]).files("segment-"));
        let append = Write::detached(None, None, vec![command(1, 1, 10)]);
        let error = log.append(&[append]).and_then(|()| log.sync()).unwrap_err();
        assert!(matches!(error, WalError::Disk { .. }), "{operation:?}: {error}");
        let again = Write::detached(None, None, vec![command(2, 1, 10)]);
        let base = raft_core::LogBase::initial(support::members(&[1]));
        for outcome in
            [log.append(&[again]), log.sync(), log.mark(), log.compact(&base), log.rewrite(&[])]
        {
            assert!(matches!(outcome, Err(WalError::Poisoned)), "{operation:?}: {outcome:?}");
        }
        assert!(log.spare_wanted().is_none());
        assert!(matches!(log.close(), Err(WalError::Poisoned)));
        assert_eq!(disk.stats().syncs_after_failure, 0);
    }
}

/// A spare that cannot be prepared is missed only when it is needed, and then tried once more.
#[test]
fn a_spare_that_fails_is_not_missed() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    for index in 1..=40 {
        log.append(&[Write::detached(None, None, vec![command(index, 1, 900)])]).unwrap();
        log.sync().unwrap();
        if let Some(job) = log.spare_wanted() {
            disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::Write]).files("spare-"));
            assert!(matches!(job.run(), Err(WalError::Disk { .. })));
            log.spare_failed();
            disk.clear_faults();
        }
    }
    assert!(disk.stats().write_errors > 2);
    log.close().unwrap();
    disk.crash();
    assert_eq!(open(&disk).unwrap().restored.entries.len(), 40);
}

/// A disk whose files write and read nothing, and say so.
struct Idle {
    disk: SimDisk,
    operation: Operation,
}

struct IdleFile(Box<dyn DiskFile>, Operation);

impl Idle {
    fn open_on(disk: &SimDisk, operation: Operation) -> OpenError {
        let idle = Self { disk: disk.for_this_life(), operation };
        Log::open(Arc::new(idle), &config()).err().unwrap()
    }

    fn wrap(&self, file: io::Result<Box<dyn DiskFile>>) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(IdleFile(file?, self.operation)))
    }
}

impl Disk for Idle {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(self.disk.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.wrap(self.disk.open(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
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

impl DiskFile for IdleFile {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.1 == Operation::Read { Ok(0) } else { self.0.read_at(into, offset) }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.1 == Operation::Write { Ok(0) } else { self.0.write_at(bytes, offset) }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// Else it would try for ever, or take a file for shorter than it is.
#[test]
fn a_disk_that_does_nothing_has_failed() {
    let (disk, restored) = directory(1);
    for operation in [Operation::Read, Operation::Write] {
        let error = Idle::open_on(&disk, operation);
        assert!(error.is_disk_failure(), "{error}");
        disk.restart();
        assert_eq!(open(&disk.fork(1)).unwrap().restored, restored, "{operation:?}");
    }
}
