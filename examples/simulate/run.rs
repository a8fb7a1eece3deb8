//! One seed of the leaderboard under the simulator.

use raft_sim::campaign::{Broken, quietly};
use raft_sim::shrink::shrink;
use raft_sim::simulation::{Listener, Plan, Report, Simulation, Watch};

use crate::leaderboard::Voters;
use crate::{out, screen};

/// So many other runs may be tried to make a failing one smaller.
const SHRINK_RUNS_MAX: usize = 1_000;

/// A run; it panics where something breaks.
pub(crate) fn run(plan: &Plan, watch: Watch) -> Report {
    Simulation::new(plan, Voters::of_seed(plan.seed), watch).run()
}

/// Runs one seed, with or without its story. Did it survive?
pub(crate) fn one(seed: u64, events: u64, trace: bool) -> bool {
    let lines: Option<Listener> = trace.then(|| Box::new(out::line) as Listener);
    let watch = Watch { lines, ..Watch::default() };
    let ended = quietly(|| run(&Plan::new(seed, events), watch));
    if trace {
        out::line(""); // The story is over.
    }
    match ended {
        Ok(report) => {
            screen::report(seed, &report);
            true
        }
        Err(broken) => {
            out::line(format!("seed {seed} FAILED: {broken}"));
            if !trace {
                tell_in_short(seed, events, Some(&broken));
            }
            false
        }
    }
}

/// Makes a failing seed small, and tells what is left of it.
pub(crate) fn tell_in_short(seed: u64, events: u64, told: Option<&Broken>) {
    out::note(format!("making seed {seed} small, in at most {SHRINK_RUNS_MAX} runs …"));
    let shrinking = shrink(&run, &Plan::new(seed, events), told, SHRINK_RUNS_MAX);
    out::line(format!("\nseed {seed}, as small as it gets:\n"));
    out::line(shrinking.to_string());
}
