//! The whole cluster in one thread under virtual time, thousands of seeds, every invariant after every
//! step.
//!
//! A failing seed is printed with the command that replays it, and made small: what is left of it is told
//! in the notation of the golden scripts.
//!
//! - `SEED=17 cargo test --test simulation -- --nocapture` runs only that one, and tells all of it.
//! - `SEEDS=100000 cargo test --release --test simulation` runs a longer campaign, `FIRST_SEED=…` another
//!   one, `EVENTS=…` with so many events each, `STOP_AT_FIRST=1` until something fails, `SHRINK=0` without
//!   making it small.

#![allow(unreachable_pub, reason = "a module of a test is nobody's library")]

#[path = "harness/leaderboard/mod.rs"]
mod leaderboard;

use leaderboard::Voters;
use raft_sim::campaign::{Campaign, Failure};
use raft_sim::shrink::shrink;
use raft_sim::simulation::{Listener, Plan, Report, Simulation, Watch};

const SEEDS: u64 = 2_000;
const EVENTS: u64 = 5_000;
/// So many other runs may be tried to make a failing one smaller.
const SHRINK_RUNS_MAX: usize = 400;
/// So much of its story is printed; a file has all of it.
const LINES_SHOWN: usize = 80;

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

fn run(plan: &Plan, watch: Watch) -> Report {
    Simulation::new(plan, Voters::of_seed(plan.seed), watch).run()
}

#[test]
fn every_invariant_holds_under_every_seed() {
    let events = number_from("EVENTS").unwrap_or(EVENTS);
    if let Some(seed) = number_from("SEED") {
        let lines: Listener = Box::new(|line| println!("{line}"));
        let watch = Watch { lines: Some(lines), ..Watch::default() };
        println!("{:#?}", run(&Plan::new(seed, events), watch));
        return;
    }
    let first = number_from("FIRST_SEED").unwrap_or(1);
    let seeds = number_from("SEEDS").unwrap_or(SEEDS);
    let stop_at_first = number_from("STOP_AT_FIRST").is_some();
    let campaign = Campaign { stop_at_first, ..Campaign::new(first, seeds, events) };
    let outcome = campaign.run(run, |_| {});
    let per_second = outcome.report.events as f64 / outcome.elapsed.as_secs_f64();
    println!("{} seeds, {per_second:.0} events/s: {:#?}", outcome.seeds, outcome.report);
    for Failure { seed, broken } in &outcome.failures {
        println!("seed {seed}: {broken}");
        println!("  replay: SEED={seed} cargo test --test simulation -- --nocapture");
    }
    if let Some(failure) = outcome.failures.first()
        && number_from("SHRINK") != Some(0)
    {
        tell_in_short(&Plan::new(failure.seed, events));
    }
    let failed: Vec<u64> = outcome.failures.iter().map(|failure| failure.seed).collect();
    assert!(failed.is_empty(), "failed seeds: {failed:?}");
    check_that_it_was_not_too_easy(&outcome.report, seeds);
}

/// Makes a failing run small, and tells what is left of it.
fn tell_in_short(plan: &Plan) {
    let Some(story) = shrink(&run, plan, SHRINK_RUNS_MAX) else {
        return println!("seed {} does not fail again: it is not deterministic!", plan.seed);
    };
    let (before, after, runs) = (story.before, story.after, story.runs);
    println!("made small in {runs} runs: {after} of {before} interventions are left");
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/shrunk.txt");
    let text = format!("{:?}\n\n{}\n", story.plan, story.lines.join("\n"));
    match std::fs::write(file, text) {
        Ok(()) => println!("its whole story, of {} lines: {file}", story.lines.len()),
        Err(error) => println!("its story cannot be written to {file}: {error}"),
    }
    for line in &story.lines[story.lines.len().saturating_sub(LINES_SHOWN)..] {
        println!("{line}");
    }
    println!("{}", story.broken);
}

/// What happens less than a hundred times in a plain run, and how often it must all the same: it takes
/// several other things that come together.
const RARE: [(&str, u64); 11] = [
    ("superseded", 10),
    ("unknown fates", 1),
    ("told unknown", 0),
    ("transfers failed", 50),
    ("torn ends", 10),
    ("limping", 50),
    ("snapshots damaged", 10),
    ("identities repaired", 10),
    ("rewritten", 10),
    ("rewrites refused", 0),
    ("hopeless", 0),
];

/// A run in which something hardly happened proves nothing about it.
fn check_that_it_was_not_too_easy(total: &Report, seeds: u64) {
    if seeds < SEEDS {
        return;
    }
    for (what, count) in total.counts() {
        let rare = RARE.iter().find(|(name, _)| *name == what);
        let least = rare.map_or(100, |(_, least)| *least);
        assert!(count >= least, "only {count} {what} in {seeds} seeds");
    }
    assert!(total.hopeless <= seeds / 10, "{} runs without a demand", total.hopeless);
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in 1..=20 {
        let plan = Plan::new(seed, EVENTS);
        assert_eq!(run(&plan, Watch::default()), run(&plan, Watch::default()), "seed {seed}");
    }
}
