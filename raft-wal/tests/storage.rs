//! Everything that a log and its snapshots go through, cut short after every single operation of the
//! disk: votes, entries, truncations, rolls, snapshots cut and installed, compaction, rewriting.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;

use raft_wal::sim::{Fault, SimDisk};
use support::model::Model;
use support::{Random, open};

/// One life: opens the log, checks what it remembers, and does so many things until it is done or
/// fails. Returns whether it got through.
fn live(
    model: &mut Model,
    disk: &SimDisk,
    random: &mut Random,
    acts: usize,
    context: &str,
) -> bool {
    let mut log = match open(disk) {
        Ok(opened) => {
            assert_eq!(opened.report.damage, None, "{context}");
            model.check(&opened.restored, opened.log.snapshots(), context);
            opened.log
        }
        Err(error) => {
            assert!(error.is_disk_failure(), "{context}: {error}");
            return false;
        }
    };
    let segments = || disk.names().iter().filter(|name| name.starts_with("segment-")).count();
    (0..acts).all(|_| match (segments(), model.act(&mut log, random)) {
        (before, Ok(())) => {
            if segments() > before {
                model.count("roll");
            }
            if segments() < before {
                model.count("drop");
            }
            true
        }
        (_, Err(error)) => {
            assert!(!matches!(error, raft_wal::WalError::Refused { .. }), "{context}: {error}");
            false
        }
    }) && log.close().is_ok()
}

/// What was done, how often.
type Done = BTreeMap<&'static str, u64>;

fn add(done: &mut Done, more: &Done) {
    more.iter().for_each(|(what, count)| *done.entry(what).or_default() += count);
}

/// Everything that a log can be asked to do was cut short; a few chosen scripts need not do all of it.
fn assert_touched(done: &Done) {
    if std::env::var_os("SCRIPTS").is_some() {
        return;
    }
    for what in [
        "vote", "append", "truncate", "roll", "cut", "install", "compact", "drop", "rewrite",
        "mark", "spare", "scrub",
    ] {
        assert!(done.get(what).is_some_and(|count| *count > 0), "{what} is not in {done:?}");
    }
}

/// Lives through `fault` at every operation of a script of two lives, and checks each time the
/// lives after it. Returns how many places there were, and what the script did.
fn every_operation(seed: u64, fault: Fault) -> (u64, Done) {
    for place in 0.. {
        let context = format!("seed {seed}, {fault:?} at operation {place}");
        let disk = SimDisk::new(seed ^ place << 32);
        let mut random = Random(seed);
        let mut model = Model::new();
        disk.inject(fault, place);
        let done = live(&mut model, &disk, &mut random, 25, &context) && {
            disk.restart();
            disk.inject(fault, place.saturating_sub(disk.stats().operations));
            live(&mut model, &disk, &mut random, 8, &context)
        };
        if done && disk.stats().operations <= place {
            return (place, model.done);
        }
        assert_eq!(disk.stats().syncs_after_failure, 0, "{context}");
        match fault {
            Fault::PowerCut => disk.crash(),
            // The process ends and starts again; what the cache says is lost by a power cut after.
            _ => disk.restart(),
        }
        // The life that recovers is itself cut short at a random place, then one that is not.
        disk.inject(Fault::PowerCut, random.below(60));
        live(&mut model, &disk, &mut random, 5, &context);
        disk.crash();
        assert!(live(&mut model, &disk, &mut random, 5, &context), "{context}");
        disk.crash();
        assert!(live(&mut model, &disk, &mut random, 0, &context), "{context}");
    }
    unreachable!("a script ends")
}

/// The power fails at every operation of a script, and of what is not synced then every subset
/// survives, or very many of them if there are more. Returns how many futures there were, how many of
/// the places had all of theirs, and what the script did.
fn every_subset(seed: u64, subsets_max: usize) -> (usize, usize, Done) {
    let (mut futures, mut exhausted) = (0, 0);
    for place in 0.. {
        let disk = SimDisk::new(seed ^ place << 32);
        let mut random = Random(seed);
        let mut model = Model::new();
        disk.inject(Fault::PowerCut, place);
        let context = format!("seed {seed}, power cut at operation {place}");
        if live(&mut model, &disk, &mut random, 14, &context) {
            return (futures, exhausted, model.done);
        }
        let cuts = disk.power_cuts(subsets_max, seed);
        exhausted += usize::from(cuts.is_exhaustive());
        for cut in cuts {
            let mut model = model.clone();
            let context = format!("{context}, with {:?} of {:?}", cut.survived, disk.unsynced());
            // As often as it starts, it is the same.
            for _ in 0..2 {
                assert!(live(&mut model, &cut.disk, &mut random, 0, &context), "{context}");
                cut.disk.crash();
            }
            futures += 1;
        }
    }
    unreachable!("a script ends")
}

#[test]
fn whatever_subset_of_the_unsynced_sectors_survives_nothing_acknowledged_is_lost() {
    let mut touched = Done::new();
    for seed in seeds(4) {
        let (futures, exhausted, done) = every_subset(seed, 128);
        assert!(futures > 1000 && exhausted > 30, "seed {seed}: {futures}, {exhausted}");
        add(&mut touched, &done);
    }
    assert_touched(&touched);
}

/// How many scripts are gone through: `SCRIPTS=n`, from `FIRST_SEED=n` on.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("FIRST_SEED").unwrap_or(0);
    first..first + number("SCRIPTS").unwrap_or(default)
}

#[test]
fn power_cuts_after_every_operation_lose_nothing_acknowledged() {
    let mut touched = Done::new();
    for seed in seeds(12) {
        let (places, done) = every_operation(seed, Fault::PowerCut);
        assert!(places > 30, "seed {seed}: {places}");
        add(&mut touched, &done);
    }
    assert_touched(&touched);
}

#[test]
fn errors_at_every_operation_lose_nothing_acknowledged() {
    let mut touched = Done::new();
    for seed in seeds(8) {
        add(&mut touched, &every_operation(seed, Fault::Error).1);
    }
    assert_touched(&touched);
}
