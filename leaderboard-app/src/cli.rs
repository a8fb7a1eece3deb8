//! The command line: `leaderboard node …` and `leaderboard balancer …`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::balancer::{self, BalancerArgs};

/// A leaderboard replicated with Raft.
#[derive(Debug, Parser)]
#[command(name = "leaderboard", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Spread requests over the nodes of a cluster.
    Balancer(BalancerArgs),
}

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    run_from(std::env::args_os())
}

/// Runs a command to its end; the first argument is the name of the program, as in
/// [`std::env::args`]. Starts its own runtime, so it is called outside of one.
#[must_use]
pub fn run_from<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("leaderboard: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Command::Balancer(args) = cli.command;
    match runtime.block_on(balancer::run(args, std::future::pending())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leaderboard: {error}");
            ExitCode::FAILURE
        }
    }
}
