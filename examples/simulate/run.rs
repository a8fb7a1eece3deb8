//! One seed of the leaderboard under the simulator.

use raft_sim::campaign::quietly;
use raft_sim::shrink::shrink;
use raft_sim::simulation::{Listener, Plan, Report, Simulation, Watch};

use crate::leaderboard::Voters;
use crate::screen;

/// So many other runs may be tried to make a failing one smaller.
const SHRINK_RUNS_MAX: usize = 1_000;

/// A run; it panics where something breaks.
pub(crate) fn run(plan: &Plan, watch: Watch) -> Report {
    Simulation::new(plan, Voters::of_seed(plan.seed), watch).run()
}

/// Runs one seed, with or without its story. Did it survive?
pub(crate) fn one(seed: u64, events: u64, trace: bool) -> bool {
    let lines: Option<Listener> = trace.then(|| Box::new(|line| println!("{line}")) as Listener);
    let watch = Watch { lines, ..Watch::default() };
    match quietly(|| run(&Plan::new(seed, events), watch)) {
        Ok(report) => {
            screen::report(seed, &report);
            true
        }
        Err(broken) => {
            println!("seed {seed}: {broken}");
            if !trace {
                tell_in_short(seed, events);
            }
            false
        }
    }
}

/// Makes a failing seed small, and tells what is left of it.
pub(crate) fn tell_in_short(seed: u64, events: u64) {
    eprintln!("making seed {seed} small, in at most {SHRINK_RUNS_MAX} runs …");
    match shrink(&run, &Plan::new(seed, events), SHRINK_RUNS_MAX) {
        None => println!("seed {seed} does not fail again: it is not deterministic!"),
        Some(story) => {
            for line in &story.lines {
                println!("{line}");
            }
            println!("{}", story.broken);
            println!("{} of {} interventions are left", story.after, story.before);
        }
    }
}
