//! Watch the shipping code survive a million faults.
//!
//! ```text
//! cargo run --release --example simulate -- --seeds 10000
//! cargo run --release --example simulate -- --seed 17 --trace
//! ```
//!
//! Every seed is a whole cluster with its clients, networks and disks, in one thread under virtual time. What
//! happens in it, and every invariant that is checked meanwhile: raft-sim's README. A seed that fails is
//! made small, and its story told.
//!
//! - `run`: one seed of the leaderboard under the simulator;
//! - `screen`: progress, and what is printed at the end;
//! - `record`: results that accumulate in a file.

#[path = "../../tests/harness/leaderboard/mod.rs"]
#[allow(unreachable_pub, reason = "a module of a test is nobody's library")]
mod leaderboard;
mod record;
mod run;
mod screen;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use raft_sim::campaign::Campaign;

/// Runs many seeds of a simulated cluster, or tells the story of one.
#[derive(Debug, Parser)]
#[command(name = "simulate", version)]
struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
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
    #[arg(long, conflicts_with_all = ["seeds", "first_seed", "threads", "append", "total"])]
    seed: Option<u64>,

    /// Tell everything that happens, in the notation of the golden scripts
    #[arg(long, requires = "seed")]
    trace: bool,

    /// Begin no other seed once one has failed
    #[arg(long)]
    stop_at_first: bool,

    /// Append what was run to this file, a line of JSON for each campaign
    #[arg(long, value_name = "FILE")]
    append: Option<PathBuf>,

    /// Run nothing; add up all campaigns that were appended to this file
    #[arg(long, value_name = "FILE", conflicts_with = "append")]
    total: Option<PathBuf>,
}

fn main() -> ExitCode {
    match simulate(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Did all of it survive?
fn simulate(options: &Options) -> Result<bool, String> {
    if let Some(file) = &options.total {
        screen::table(&record::total(file)?);
        return Ok(true);
    }
    if let Some(seed) = options.seed {
        return Ok(run::one(seed, options.events, options.trace));
    }
    if let Some(file) = &options.append {
        record::check(file)?; // Not only after hours.
    }
    let campaign = Campaign {
        stop_at_first: options.stop_at_first,
        ..Campaign::new(options.first_seed, options.seeds, options.events)
    };
    let threads = options.threads.and_then(|threads| usize::try_from(threads).ok());
    let campaign = Campaign { threads: threads.unwrap_or(campaign.threads), ..campaign };
    let progress = screen::Progress::new(&campaign);
    let outcome = campaign.run(run::run, |now| progress.show(now));
    progress.end();
    let record = record::Record::new(&campaign, &outcome);
    if let Some(file) = &options.append {
        record::append(file, &record)?;
    }
    screen::table(&[record]);
    for failure in &outcome.failures {
        screen::failure(failure);
    }
    if let Some(first) = outcome.failures.first() {
        run::tell_in_short(first.seed, options.events);
    }
    Ok(outcome.failures.is_empty())
}
