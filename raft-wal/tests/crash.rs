//! Power cuts and failing disks after every single operation: what was acknowledged is there,
//! nothing else than what was submitted is, and it stays.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use raft_core::Write;
use raft_wal::SpareJob;
use raft_wal::sim::{Fault, SimDisk};
use support::{Random, Twin, open, twin_of};

/// What a run of a node handed to its log, and how far that was acknowledged.
struct Run {
    /// The log after each number of writes, from none.
    twins: Vec<Twin>,
    /// So many writes were acknowledged, over all lives.
    acknowledged: usize,
}

impl Run {
    fn new() -> Self {
        Self { twins: vec![Twin::default()], acknowledged: 0 }
    }

    /// One life: opens the log, checks what it remembers, and writes until it is done or fails.
    /// Returns whether it got through.
    fn live(&mut self, disk: &SimDisk, random: &mut Random, batches: usize, context: &str) -> bool {
        let mut log = match open(disk) {
            Ok(opened) => {
                self.check(&twin_of(&opened.restored), context);
                opened.log
            }
            Err(error) => {
                assert!(error.is_disk_failure(), "{context}: {error}");
                return false;
            }
        };
        for _ in 0..batches {
            // One batch for each sync most of the time, several now and then.
            for _ in 0..1 + random.below(5) / 4 {
                let writes: Vec<Write> = (0..1 + random.below(3))
                    .map(|_| {
                        let mut twin = self.twins.last().unwrap().clone();
                        let write = twin.random_write(random);
                        twin.apply(&write);
                        self.twins.push(twin);
                        write
                    })
                    .collect();
                if log.append(&writes).is_err() {
                    return false;
                }
            }
            if random.one_in(3) {
                match log.spare_wanted().map(SpareJob::run) {
                    Some(Ok(spare)) => log.offer_spare(spare),
                    Some(Err(_)) => log.spare_failed(),
                    None => {}
                }
            }
            if log.sync().is_err() {
                return false;
            }
            self.acknowledged = self.twins.len() - 1;
        }
        log.close().is_ok()
    }

    /// The recovered log is one that was submitted and holds everything acknowledged. From here on
    /// it is as good as acknowledged: the node has told others what it remembers.
    fn check(&mut self, recovered: &Twin, context: &str) {
        let known = self.twins[self.acknowledged..].iter().position(|twin| twin == recovered);
        let Some(beyond) = known else {
            panic!(
                "{context}: recovered {} entries, {:?}; acknowledged {} of {} writes",
                recovered.entries.len(),
                recovered.hard_state,
                self.acknowledged,
                self.twins.len() - 1
            );
        };
        self.acknowledged += beyond;
        self.twins.truncate(self.acknowledged + 1);
    }
}

/// Lives through `fault` at every operation of a script of two lives, and checks each time the
/// lives after it. Returns how many places there were.
fn every_operation(seed: u64, fault: Fault) -> u64 {
    for place in 0.. {
        let context = format!("seed {seed}, {fault:?} at operation {place}");
        let disk = SimDisk::new(seed ^ place << 32);
        let mut random = Random(seed);
        let mut run = Run::new();
        disk.inject(fault, place);
        let done = run.live(&disk, &mut random, 9, &context) && {
            disk.restart();
            disk.inject(fault, place.saturating_sub(disk.stats().operations));
            run.live(&disk, &mut random, 4, &context)
        };
        if done && disk.stats().operations <= place {
            return place;
        }
        assert_eq!(disk.stats().syncs_after_failure, 0, "{context}");
        match fault {
            Fault::PowerCut => disk.crash(),
            // The process ends and starts again; what the cache says is lost by a power cut after.
            _ => disk.restart(),
        }
        // The life that recovers is itself cut short at a random place, then one that is not.
        disk.inject(Fault::PowerCut, random.below(40));
        run.live(&disk, &mut random, 2, &context);
        disk.crash();
        assert!(run.live(&disk, &mut random, 2, &context), "{context}");
        disk.crash();
        assert!(run.live(&disk, &mut random, 0, &context), "{context}");
    }
    unreachable!("a script ends")
}

#[test]
fn power_cuts_after_every_operation_lose_nothing_acknowledged() {
    for seed in 0..60 {
        let places = every_operation(seed, Fault::PowerCut);
        assert!(places > 30, "seed {seed}: {places}");
    }
}

#[test]
fn errors_at_every_operation_lose_nothing_acknowledged() {
    for seed in 100..140 {
        every_operation(seed, Fault::Error);
    }
}

/// After a failed sync the system still shows what it could not write. A recovery that believes it
/// without writing it again loses it at the next power cut.
#[test]
fn what_a_failed_sync_left_readable_is_written_again_before_it_is_believed() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let mut random = Random(seed);
        let mut log = open(&disk).unwrap().log;
        let mut twin = Twin::default();
        let write = twin.random_write(&mut random);
        twin.apply(&write);
        log.append(&[write]).unwrap();
        disk.inject(Fault::Error, 0);
        assert!(log.sync().is_err(), "seed {seed}");
        assert!(log.sync().is_err(), "seed {seed}");
        assert_eq!(disk.stats().syncs_after_failure, 0);
        disk.restart();
        let opened = open(&disk).unwrap();
        assert_eq!(twin_of(&opened.restored), twin, "seed {seed}");
        disk.crash();
        assert_eq!(twin_of(&open(&disk).unwrap().restored), twin, "seed {seed}");
    }
}

/// A write of many sectors of which any subset arrived is dropped whole, without complaint.
#[test]
fn torn_batches_are_dropped_whole() {
    let mut torn = 0;
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk).unwrap().log;
        let first = support::command(1, 1, 3000);
        log.append(&[Write::detached(None, None, vec![first.clone()])]).unwrap();
        log.sync().unwrap();
        let second = support::command(2, 1, 5000);
        log.append(&[Write::detached(None, None, vec![second.clone()])]).unwrap();
        disk.crash();
        let opened = open(&disk).unwrap();
        let kept = opened.restored.entries;
        assert!(kept == [first.clone()] || kept == [first, second], "seed {seed}");
        torn += u64::from(opened.report.torn_bytes > 0);
    }
    assert!(torn > 100, "only {torn} of 400 power cuts tore the write");
}

/// It is told how much of a torn write there is, to the sector.
#[test]
fn what_is_torn_is_told_in_whole_sectors() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    log.append(&[Write::detached(None, None, vec![support::command(1, 1, 3000)])]).unwrap();
    log.sync().unwrap();
    log.append(&[Write::detached(None, None, vec![support::command(2, 1, 1800)])]).unwrap();
    drop(log);
    let sectors = disk.unsynced().len();
    assert!(sectors >= 3, "{sectors}");
    for kept in 0..sectors {
        let cut = disk.after_power_cut(1, |item| item < kept);
        let opened = open(&cut).unwrap();
        assert_eq!(opened.restored.entries.len(), 1);
        assert_eq!(opened.report.torn_bytes, 512 * kept as u64);
    }
}
