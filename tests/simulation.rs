//! The whole cluster in one thread under virtual time, hundreds of seeds, every invariant after every step.
//!
//! A failing seed is printed with the command that replays it:
//! `SEED=17 cargo test --test simulation -- --nocapture` runs only that one and prints its trace.
//! `SEEDS=100000 cargo test --release --test simulation` runs a longer campaign, `FIRST_SEED=…` another one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use raft_sim::simulation::{Listener, Plan, Report, Simulation, Watch};

const SEEDS: u64 = 600;
const EVENTS_PER_SEED: u64 = 8_000;

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

fn run(seed: u64, trace: bool) -> Report {
    let lines: Option<Listener> = trace.then(|| Box::new(|line| println!("{line}")) as Listener);
    let watch = Watch { lines, ..Watch::default() };
    Simulation::new(&Plan::new(seed, EVENTS_PER_SEED), watch).run()
}

#[test]
fn every_invariant_holds_under_every_seed() {
    if let Some(seed) = number_from("SEED") {
        println!("{:#?}", run(seed, true));
        return;
    }
    let first = number_from("FIRST_SEED").unwrap_or(1);
    let end = first + number_from("SEEDS").unwrap_or(SEEDS);
    let (next, total, failed) =
        (AtomicU64::new(first), Mutex::new(Report::default()), Mutex::new(Vec::new()));
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    // The panic message has been printed by the time that it is caught.
                    match catch_unwind(AssertUnwindSafe(|| run(seed, false))) {
                        Ok(report) => total.lock().unwrap().add(&report),
                        Err(_) => failed.lock().unwrap().push(seed),
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    let per_second = total.events as f64 / started.elapsed().as_secs_f64();
    println!("{} seeds, {per_second:.0} events/s: {total:#?}", end - first);
    let mut failed = failed.into_inner().unwrap();
    failed.sort_unstable();
    for seed in &failed {
        println!("replay: SEED={seed} cargo test --test simulation -- --nocapture");
    }
    assert!(failed.is_empty(), "failed seeds: {failed:?}");
    check_that_it_was_not_too_easy(&total, end - first);
}

/// A run in which a kind of fault never happened proves nothing about it.
fn check_that_it_was_not_too_easy(total: &Report, seeds: u64) {
    if seeds < SEEDS {
        return;
    }
    let counted = [
        ("elections", total.elections),
        ("committed entries", total.committed),
        ("reads", total.reads),
        ("crashes", total.crashes),
        ("writes lost", total.writes_lost),
        ("partitions", total.partitions),
        ("pauses", total.pauses),
        ("messages lost", total.lost),
        ("messages duplicated", total.duplicated),
        ("configurations", total.configurations),
        ("membership changes completed", total.changes_committed),
        ("learners promoted", total.promotions),
        ("transfers", total.transfers),
        ("transfers that failed", total.transfers_failed),
        ("snapshots cut", total.cuts),
        ("compactions", total.compactions),
        ("snapshots installed", total.installs),
        ("peers reborn", total.reborn),
        ("old leaders asked", total.asked_old_leaders),
        ("disks damaged", total.disks.disks_damaged),
        ("disks lost", total.disks.disks_lost),
        ("power cuts in the middle of an operation", total.disks.cut_operations),
        ("sectors that survived a power cut", total.disks.sectors_kept),
        ("sectors that did not", total.disks.sectors_lost),
        ("files torn by a power cut", total.disks.files_torn),
        ("names lost by a power cut", total.disks.names_lost),
        ("errors of reading", total.disks.read_errors),
        ("errors of writing", total.disks.write_errors),
        ("errors of syncing", total.disks.sync_errors),
        ("errors of naming", total.disks.name_errors),
        ("interruptions", total.disks.interruptions),
        ("short writes", total.disks.short_writes),
        ("slow syncs", total.disks.slow_syncs),
        ("waits for room", total.disks.waits_for_room),
        ("ends by a disk's failure", total.disks.ended_by_disk),
        ("starts that failed", total.disks.starts_failed),
        ("segments begun", total.disks.rolls),
        ("segments dropped", total.disks.segments_dropped),
        ("marks", total.disks.marks),
        ("scrubs", total.disks.scrubs),
        ("scrubs that found damage", total.disks.damage_scrubbed),
        ("starts that found damage and lost nothing", total.disks.repaired_starts),
        ("refusals", total.disks.refusals),
    ];
    for (what, count) in counted {
        assert!(count >= 100, "only {count} {what} in {seeds} seeds");
    }
    let rare = [
        ("proposals superseded", total.superseded),
        ("limping starts", total.disks.limping),
        ("torn ends dropped", total.disks.torn_ends),
        ("damaged snapshots found", total.disks.snapshots_damaged),
        ("identities repaired", total.disks.identities_repaired),
        ("sectors that could not be read", total.disks.unreadable_hits),
        ("segments written again", total.disks.rewritten),
    ];
    for (what, count) in rare {
        assert!(count >= 10, "only {count} {what} in {seeds} seeds");
    }
    assert!(total.unknown_fates >= 1, "no fate was unknown");
    assert!(total.hopeless <= seeds / 10, "{} runs without a demand", total.hopeless);
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in 1..=20 {
        assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
    }
}
