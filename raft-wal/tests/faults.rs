//! A disk that fails while a directory is read or written: an error, never another log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use raft_core::{Restored, Write};
use raft_wal::sim::{Damage, Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Log, OpenErrorKind, WalError};
use support::between::{Between, Meddler};
use support::history::{HEADERS, after_power_cut, append, cast, log_of, segments};
use support::model::Model;
use support::snapshots::{CLUSTER, base, content};
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

/// Reads or writes nothing, and says so.
struct Idle(Operation);

impl Meddler for Idle {
    fn read(&self) -> Option<usize> {
        (self.0 == Operation::Read).then_some(0)
    }

    fn write(&self) -> Option<usize> {
        (self.0 == Operation::Write).then_some(0)
    }
}

/// Else it would try for ever, or take a file for shorter than it is.
#[test]
fn a_disk_that_does_nothing_has_failed() {
    let (disk, restored) = directory(1);
    for operation in [Operation::Read, Operation::Write] {
        let idle = Between::on(&disk, Arc::new(Idle(operation)));
        let error = Log::open(idle, &config()).map(drop).unwrap_err();
        assert!(error.is_disk_failure(), "{error}");
        disk.restart();
        assert_eq!(open(&disk.fork(1)).unwrap().restored, restored, "{operation:?}");
    }
}

/// What happens behind the log's back as soon as a segment has its name.
#[derive(Default)]
struct Meanwhile(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Meddler for Meanwhile {
    fn renamed(&self, to: &str) {
        let meddle = self.0.lock().unwrap().take_if(|_| to.starts_with("segment-"));
        if let Some(meddle) = meddle {
            meddle();
        }
    }
}

/// The sync of the directory fails for the thread that cuts a snapshot, which takes the error with it:
/// the one for the log succeeds, and proves nothing.
#[test]
fn a_failed_sync_of_the_directory_counts_for_whoever_it_was_not_told() {
    let mut refused = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let meanwhile = Arc::new(Meanwhile::default());
        let between = Between::on(&disk, Arc::clone(&meanwhile));
        let mut log = Log::open(between, &config()).unwrap().log;
        cast(&mut log, 2);
        append(&mut log, 2, 1..=2);
        let mut writer = log.snapshots().create(base(CLUSTER, 1)).unwrap();
        writer.write(&content(1)).unwrap();
        let failing = disk.clone();
        *meanwhile.0.lock().unwrap() = Some(Box::new(move || {
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

/// A log that cannot remove what it should has failed; only room may be missing.
#[test]
fn an_error_of_the_disk_while_a_log_is_compacted_ends_it() {
    for (fault, goes_on) in [(Fault::Error, false), (Fault::Full, true)] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk).unwrap().log;
        cast(&mut log, 2);
        append(&mut log, 2, 1..=30);
        for index in [15, 25] {
            let mut writer = log.snapshots().create(base(CLUSTER, index)).unwrap();
            writer.write(&content(index)).unwrap();
            writer.finish().unwrap();
        }
        disk.add_fault(FaultRule::new(fault).on(&[Operation::Remove]));
        let outcome = log.compact(&base(CLUSTER, 25));
        assert_eq!(outcome.is_ok(), goes_on, "{fault:?}: {outcome:?}");
        assert_eq!(log.sync().is_ok(), goes_on, "{fault:?}");
    }
}

/// A base of another term is not in the log, also if its index is that of the base that it has.
#[test]
fn a_compaction_up_to_what_is_not_in_the_log_is_refused() {
    for index in [10, 20, 31] {
        let disk = SimDisk::new(1);
        let mut log = open(&disk).unwrap().log;
        cast(&mut log, 2);
        append(&mut log, 2, 1..=30);
        log.compact(&base(CLUSTER, 10)).unwrap();
        log.compact(&base(CLUSTER, 10)).unwrap();
        log.compact(&base(CLUSTER, 9)).unwrap();
        let mut other = base(CLUSTER, index);
        other.position.term.0 = 1;
        let outcome = log.compact(&other);
        assert!(matches!(outcome, Err(WalError::Refused { .. })), "{index}: {outcome:?}");
    }
}

/// A sector that cannot be read, and a system that interrupts whoever tries.
#[test]
fn an_interruption_behind_a_sector_that_cannot_be_read_is_no_failure() {
    let (disk, log) = log_of(30);
    log.close().unwrap();
    disk.restart();
    let name = &segments(&disk)[1];
    assert!(disk.damage(name, &Damage::Unreadable { sector: 17 }));
    let lost = open(&disk.fork(1)).unwrap().restored.lost;
    let mut interrupted = 0;
    for seed in 0..20 {
        let fork = disk.fork(seed);
        fork.add_fault(
            FaultRule::new(Fault::Interrupted).on(&[Operation::Read]).always().one_in(2),
        );
        let opened = open(&fork).unwrap();
        assert_eq!(opened.restored.lost, lost, "seed {seed}");
        interrupted += fork.stats().interruptions;
    }
    assert!(interrupted > 20, "{interrupted}");
}

/// The file says nothing against itself: only the next one knows that more was written.
#[test]
fn a_segment_that_ends_too_early_is_told_by_the_one_behind_it() {
    let (disk, log) = log_of(30);
    log.close().unwrap();
    disk.restart();
    let name = &segments(&disk)[1];
    let content = disk.read(name).unwrap();
    // All but the first of its batches, with the seal.
    let second = HEADERS as usize + 1536;
    disk.put(name, [&content[..second], &vec![0; content.len() - second]].concat());
    let damage = open(&disk).unwrap().report.damage.unwrap();
    assert_eq!((&damage.file, damage.offset), (name, second as u64), "{damage}");
    assert!(damage.what.contains("do not end as the next segment"), "{damage}");
}
