//! The `leaderboard` command; everything it does is in the library, so that others can embed it.

use std::process::ExitCode;

fn main() -> ExitCode {
    leaderboard_app::cli::main()
}
