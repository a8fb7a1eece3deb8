//! A whole cluster on this machine: nodes as real processes, the balancer, and the page.
//!
//! ```text
//! cargo run --release --example cluster
//! ```
//!
//! With `-- --tls` the nodes speak TLS to each other.
//!
//! Kill nodes with `k 2` or from elsewhere with `kill -9`, restart them with `r 2`, and watch
//! elections and recoveries being told line by line. The data stays: start again and the scores are
//! there.
//!
//! The example runs itself again for every process: with `leaderboard` as its first argument it
//! *is* the `leaderboard` program. What starts and watches those processes, in the order of use:
//!
//! - `plan`: addresses and directories, checked before anything starts;
//! - `process`: one child, from its start to its end;
//! - `launcher`: the loop that reacts to children, signals and `commands`;
//! - `observer`: what the nodes say about themselves, turned into news;
//! - `screen`: what is printed.

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Parser;

mod commands;
mod launcher;
mod observer;
mod plan;
mod process;
mod screen;

use plan::{Options, Plan};
use screen::Screen;

/// As the first argument: behave as the `leaderboard` program.
const AS_LEADERBOARD: &str = "leaderboard";

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|first| first == OsStr::new(AS_LEADERBOARD)) {
        return leaderboard_app::cli::run_from(args);
    }
    let screen = Screen::new();
    let plan = match Plan::new(&Options::parse()).and_then(|plan| plan.check().map(|()| plan)) {
        Ok(plan) => plan,
        Err(error) => {
            screen.failed(&error);
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(launcher::run(&plan, &screen)),
        Err(error) => {
            screen.failed(&format!("cannot start the runtime: {error}"));
            ExitCode::FAILURE
        }
    }
}
