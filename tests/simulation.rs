//! The whole cluster in one thread under virtual time, thousands of seeds, every invariant after every
//! step.
//!
//! A failing seed is printed with the command that replays it, and made small: what is left of it is told
//! in the notation of the golden scripts.
//!
//! - `SEED=12 cargo test --test simulation every_invariant -- --nocapture` runs only that one, and tells all
//!   of it; `EVENTS=…` with so many events.
//! - `SEEDS=100000 cargo test --release --test simulation every_invariant -- --nocapture` runs a longer
//!   campaign, `FIRST_SEED=…` another one, `EVENTS=…` with so many events each, `STOP_AT_FIRST=1` until
//!   something fails, `SHRINK=0` without making it small. Without `--nocapture` what happened is told only if
//!   something fails.

#![allow(unreachable_pub, reason = "a module of a test is nobody's library")]

#[path = "harness/leaderboard/mod.rs"]
mod leaderboard;

use std::io::Write as _;
use std::process::Command;

use leaderboard::Voters;
use raft_sim::campaign::{Broken, Campaign, Failure};
use raft_sim::shrink::{Shrinking, shrink};
use raft_sim::simulation::{Listener, Plan, Report, Simulation, Watch};

const SEEDS: u64 = 2_000;
const EVENTS: u64 = 5_000;
/// So many other runs may be tried to make a failing one smaller.
const SHRINK_RUNS_MAX: usize = 400;
/// So much of its story is printed; a file has all of it.
const LINES_SHOWN: usize = 80;
/// So many failures are told with what broke.
const FAILURES_SHOWN: usize = 20;

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
        // A reader who goes away, as `head` does, is no failure of the seed.
        let lines: Listener = Box::new(|line| drop(writeln!(std::io::stdout(), "{line}")));
        let watch = Watch { lines: Some(lines), ..Watch::default() };
        let report = run(&Plan::new(seed, events), watch);
        let _nobody_reads_it =
            writeln!(std::io::stdout(), "{report:#?}\ndigest {:032x}", report.digest);
        return;
    }
    let first = number_from("FIRST_SEED").unwrap_or(1);
    let seeds = number_from("SEEDS").unwrap_or(SEEDS);
    let last = first.checked_add(seeds.saturating_sub(1));
    assert!(last.is_some(), "FIRST_SEED={first} SEEDS={seeds}: the highest seed is {}", u64::MAX);
    let stop_at_first = number_from("STOP_AT_FIRST").is_some_and(|it| it != 0);
    let campaign = Campaign { stop_at_first, ..Campaign::new(first, seeds, events) };
    let outcome = campaign.run(run, |_| {});
    let per_second = outcome.report.events as f64 / outcome.elapsed.as_secs_f64();
    println!("{} seeds, {per_second:.0} events/s: {:#?}", outcome.seeds, outcome.report);
    for Failure { seed, broken } in outcome.failures.iter().take(FAILURES_SHOWN) {
        println!("seed {seed}: {broken}");
        println!("  replay: {}", replay(*seed, events));
    }
    if let Some(failure) = outcome.failures.first()
        && number_from("SHRINK") != Some(0)
    {
        tell_in_short(&Plan::new(failure.seed, events), &failure.broken);
    }
    let failed: Vec<u64> = outcome.failures.iter().map(|failure| failure.seed).collect();
    let named = &failed[..failed.len().min(FAILURES_SHOWN)];
    assert!(failed.is_empty(), "{} of {} seeds failed: {named:?} …", failed.len(), outcome.seeds);
    check_that_it_was_not_too_easy(&outcome.report, seeds);
}

/// What runs a seed alone, and tells all of it.
fn replay(seed: u64, events: u64) -> String {
    format!(
        "SEED={seed} EVENTS={events} cargo test --test simulation every_invariant -- --nocapture"
    )
}

#[test]
fn the_command_of_a_failure_runs_the_same_again() {
    let (seed, events) = (3, 700);
    let command = replay(seed, events);
    let (variables, rest) = command.split_once(" cargo test --test simulation ").expect("ours");
    let variables = variables.split(' ').map(|it| it.split_once('=').expect("NAME=VALUE"));
    // Cargo passes on what is in front of `--` and what is behind it.
    let output = Command::new(std::env::current_exe().expect("a test knows its program"))
        .envs(variables)
        .args(rest.split(' ').filter(|&argument| argument != "--"))
        .output()
        .expect("this program starts again");
    let text = String::from_utf8(output.stdout).expect("a story is text");
    let digest = run(&Plan::new(seed, events), Watch::default()).digest;
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("digest {digest:032x}")), "another run:\n{text}");
}

/// Makes a failing run small, and tells what is left of it.
fn tell_in_short(plan: &Plan, told: &Broken) {
    let shrinking = shrink(&run, plan, Some(told), SHRINK_RUNS_MAX);
    let Shrinking::Small(story) = shrinking else {
        return println!("{shrinking}");
    };
    println!("made small: {}", story.in_short());
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/shrunk.txt");
    let text = format!("{:?}\n\n{}\n", story.plan, Shrinking::Small(story.clone()));
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
const RARE: [(&str, u64); 12] = [
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
    ("unwinnable", 0),
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
    // Of a hundred damaged disks 39 are refused, and 17 start limping: who refuses where it could limp, or limps
    // wherever something is damaged, has more.
    let disks = &total.disks;
    let (damaged, refusals, limping) = (disks.disks_damaged, disks.refusals, disks.limping);
    assert!(refusals <= damaged / 2, "{refusals} refusals of {damaged} damaged disks");
    assert!(limping <= damaged / 4, "{limping} starts that limp of {damaged} damaged disks");
    // Three in two thousand have lost too much, and hardly ever can nobody win: what makes that more is a
    // defect, of the nodes or of the excuse.
    let (hopeless, unwinnable) = (total.hopeless, total.unwinnable);
    assert!(hopeless <= seeds / 200, "too much was lost in {hopeless} runs of {seeds}");
    assert!(unwinnable <= seeds / 1000, "nobody could win in {unwinnable} runs of {seeds}");
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in 1..=20 {
        let plan = Plan::new(seed, EVENTS);
        assert_eq!(run(&plan, Watch::default()), run(&plan, Watch::default()), "seed {seed}");
    }
}
