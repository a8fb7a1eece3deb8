//! Watch the shipping code survive a million faults.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 10000
//! cargo run --release --example simulate -- --seed 12 --trace
//! ```
//!
//! Every seed is a whole cluster with its clients, networks and disks, in one thread under virtual time. What
//! happens in it, and every invariant that is checked meanwhile: raft-sim's README. A seed that fails is
//! made small, and its story told.
//!
//! - `run`: one seed of the leaderboard under the simulator;
//! - `pieces`: a campaign, in pieces that are kept as they are done; `interrupt`: Ctrl-C;
//! - `screen`: progress, and what is printed at the end; `out`: how it is printed;
//! - `record`: results that accumulate in a file; `total`: all of them together.

#[path = "../../tests/harness/leaderboard/mod.rs"]
#[allow(unreachable_pub, reason = "a module of a test is nobody's library")]
mod leaderboard;

mod interrupt;
mod out;
mod pieces;
mod record;
mod run;
mod screen;
mod total;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use raft_sim::campaign::Campaign;

/// Runs many seeds of a simulated cluster, or tells the story of one.
#[derive(Debug, Parser)]
#[command(name = "simulate", version)]
struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000, value_parser = at_least_one)]
    seeds: u64,

    /// The first seed; the others follow it
    #[arg(long, default_value_t = 1)]
    first_seed: u64,

    /// Events in each run, before faults end and progress is demanded
    #[arg(long, default_value_t = 5_000)]
    events: u64,

    /// Runs at a time [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,

    /// Run this seed alone
    #[arg(long, conflicts_with_all = OF_A_CAMPAIGN)]
    seed: Option<u64>,

    /// Tell everything that happens to that one seed, in the notation of the golden scripts
    #[arg(long, requires = "seed", conflicts_with_all = OF_A_CAMPAIGN)]
    trace: bool,

    /// Begin no other seed once one has failed
    #[arg(long)]
    stop_at_first: bool,

    /// Append what was run to this file, a line of JSON at the end and every two minutes
    ///
    /// A campaign that is killed loses what it did since the last line; Ctrl-C loses nothing. A line names
    /// the commit of the directory that this was built from as it is at the start: build it, then start it.
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,

    /// Run nothing; add up all that was appended to this file
    ///
    /// Seeds that the same commit ran with as many events before count once, if all of a line were;
    /// if only some were, they count twice, and that is said. Lines of changed (`-dirty`) or unknown
    /// code are never taken for the same. It exits with 1 if any seed failed, of whatever code.
    #[arg(long, value_name = "FILE", exclusive = true)]
    total: Option<PathBuf>,

    /// Run nothing; explain what the table counts
    #[arg(long, exclusive = true)]
    kinds: bool,
}

/// What says nothing about a seed that is run alone.
const OF_A_CAMPAIGN: [&str; 5] = ["seeds", "first_seed", "threads", "stop_at_first", "append"];

fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("no seeds, no campaign: at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    let ended = simulate(&Options::parse());
    let ended = ended.and_then(|code| out::finish().map(|()| code));
    ended.unwrap_or_else(|error| {
        out::note(format!("simulate: {error}"));
        ExitCode::FAILURE
    })
}

fn code(survived: bool) -> ExitCode {
    if survived { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn simulate(options: &Options) -> Result<ExitCode, String> {
    if options.kinds {
        screen::kinds();
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &options.total {
        return total::total(file).map(code);
    }
    if let Some(seed) = options.seed {
        return Ok(code(run::one(seed, options.events, options.trace)));
    }
    if options.first_seed.checked_add(options.seeds - 1).is_none() {
        let left = (u64::MAX - options.first_seed).saturating_add(1);
        let (first, seeds) = (options.first_seed, options.seeds);
        return Err(format!(
            "--first-seed {first} --seeds {seeds}: the highest seed is {}, so there are only {left}",
            u64::MAX
        ));
    }
    let campaign = Campaign {
        stop_at_first: options.stop_at_first,
        ..Campaign::new(options.first_seed, options.seeds, options.events)
    };
    let threads = options.threads.and_then(|threads| usize::try_from(threads).ok());
    let campaign = Campaign { threads: threads.unwrap_or(campaign.threads), ..campaign };
    pieces::run(&campaign, options.append.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_of_a_failure_runs_the_same_again() {
        for (seed, events) in [(17, 5_000), (u64::MAX, 1)] {
            let command = screen::replay(seed, events);
            let (_cargo, arguments) = command.split_once(" -- ").expect("arguments of ours");
            let arguments = std::iter::once("simulate").chain(arguments.split(' '));
            let options = Options::try_parse_from(arguments).expect("arguments that we take");
            assert_eq!((options.seed, options.events, options.trace), (Some(seed), events, true));
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        let refused = |arguments: &[&str]| {
            let arguments = std::iter::once(&"simulate").chain(arguments);
            Options::try_parse_from(arguments).expect_err("nonsense").to_string()
        };
        for (arguments, named) in [
            (&["--trace", "--seeds", "3"][..], "'--trace' cannot be used with '--seeds <SEEDS>'"),
            (&["--seed", "3", "--stop-at-first"], "'--seed <SEED>' cannot be used with"),
            (&["--total", "x", "--seeds", "3"], "'--total <FILE>' cannot be used with"),
            (&["--total", "x", "--events", "3"], "'--total <FILE>' cannot be used with"),
            (&["--kinds", "--seed", "3"], "'--kinds' cannot be used with"),
            (&["--trace"], "--seed <SEED>"),
            (&["--seeds", "0"], "no seeds, no campaign: at least 1"),
        ] {
            let told = refused(arguments);
            assert!(told.contains(named), "{arguments:?}: {told}");
        }
    }

    #[test]
    fn more_seeds_than_there_are_is_an_error() {
        let arguments = ["simulate", "--first-seed", "18446744073709551615", "--seeds", "2"];
        let options = Options::try_parse_from(arguments).expect("numbers");
        assert!(simulate(&options).expect_err("there is only one").contains("only 1"));
    }
}
