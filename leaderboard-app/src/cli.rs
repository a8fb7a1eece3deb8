//! The command line: `leaderboard node …`, `leaderboard balancer …`, what operators do (`status`, `members`,
//! `transfer`, `snapshot`), `leaderboard log …` and `leaderboard certs …`.
//!
//! Options come from flags, then from the environment (`LEADERBOARD_…`), then from the TOML file of
//! `--config`. Exit codes: 0 done, 1 failed, 2 bad usage, 3 refused for safety (a foreign data
//! directory, a damaged log), 4 disk failure; 130 and 143 after a second SIGINT or SIGTERM.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use raft_grpc::{Fatal, StartError};
use tracing_subscriber::EnvFilter;

use crate::balancer::{self, BalancerArgs, BalancerError};
use crate::certs::{self, CertsArgs, CertsError};
use crate::log_command::{self, LogArgs};
use crate::node::{self, NodeArgs, NodeError};
use crate::operate::{self, MembersArgs, SnapshotArgs, StatusArgs, TransferArgs};

mod config_file;
mod shutdown;
#[cfg(test)]
mod tests;

pub(crate) const FAILED: u8 = 1;
pub(crate) const BAD_USAGE: u8 = 2;
pub(crate) const REFUSED_FOR_SAFETY: u8 = 3;
pub(crate) const DISK_FAILURE: u8 = 4;

/// A leaderboard replicated with Raft
#[derive(Debug, Parser)]
#[command(
    name = "leaderboard",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Options come from flags, then LEADERBOARD_… variables, then the file of --config.\n\
                  Exit codes: 0 done, 1 failed, 2 bad usage, 3 refused for safety (foreign data \
                  directory, damaged log), 4 disk failure."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// A TOML file with options: a table for each command, keys named like the flags
    #[arg(long, global = true, env = "LEADERBOARD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines look, which go to stderr
    #[arg(
        long,
        global = true,
        env = "LEADERBOARD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "human"
    )]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,raft_grpc=debug`
    #[arg(
        long,
        global = true,
        env = "LEADERBOARD_LOG",
        value_name = "FILTER",
        default_value = "info",
        value_parser = log_filter
    )]
    log: String,
    /// Stop when standard input closes, for a parent process that must not leave children behind
    #[arg(long, global = true, env = "LEADERBOARD_EXIT_WITH_STDIN", hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one member of the cluster
    Node(Box<NodeArgs>),
    /// Spread requests over the nodes of a cluster
    Balancer(BalancerArgs),
    /// Show how the nodes of a cluster are
    #[command(after_help = operate::STATUS_HELP)]
    Status(StatusArgs),
    /// Show and change who belongs to a cluster
    Members(MembersArgs),
    /// Let another node lead
    #[command(after_help = operate::TRANSFER_HELP)]
    Transfer(TransferArgs),
    /// Have nodes cut a snapshot now
    #[command(after_help = operate::SNAPSHOT_HELP)]
    Snapshot(SnapshotArgs),
    /// Look into the log directory of a node that does not run
    Log(LogArgs),
    /// Make certificates for TLS between nodes
    Certs(CertsArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people
    Human,
    /// One JSON object per line
    Json,
}

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    run_from(std::env::args_os())
}

/// Runs a command to its end; the first argument is the name of the program, as in
/// [`std::env::args`]. Starts its own runtime and obeys SIGTERM and SIGINT, so it is called outside of
/// a runtime and takes over the process.
#[must_use]
pub fn run_from<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BAD_USAGE));
        }
    };
    if let Command::Log(args) = &cli.command {
        // What it finds is its output, and it may be interrupted at any time: no log lines, no signals.
        return ExitCode::from(log_command::run(args));
    }
    if let Command::Certs(args) = &cli.command {
        return print_or_fail(certs::run(args), &cli);
    }
    start_logging(&cli.common);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(FAILED, &format!("cannot start the runtime: {error}"), &cli),
    };
    let ended = runtime.block_on(run(&cli));
    // A thread that reads a long log, or hangs in a disk, must not keep the process from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { exit_code, message }) => failed(exit_code, &message, &cli),
    }
}

/// Reads flags, environment and configuration file.
fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    if let Some(path) = config_file::path_in(&command, args) {
        command = config_file::with_defaults_of(command, &path)?;
    }
    let matches = command.try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

/// Why a command ended without success.
pub(crate) struct Failure {
    pub(crate) exit_code: u8,
    pub(crate) message: String,
}

async fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        // Questions and orders may be interrupted at any time.
        Command::Status(args) => operate::status(args).await,
        Command::Members(args) => operate::members(args).await,
        Command::Transfer(args) => operate::transfer(args).await,
        Command::Snapshot(args) => operate::snapshot(args).await,
        Command::Node(args) => Ok(node::run(NodeArgs::clone(args), shutdown(cli)?).await?),
        Command::Balancer(args) => Ok(balancer::run(args.clone(), shutdown(cli)?).await?),
        // Done before there was a runtime.
        Command::Log(_) | Command::Certs(_) => Ok(()),
    }
}

/// When a process that serves is to stop.
fn shutdown(cli: &Cli) -> Result<impl Future<Output = ()> + Send + use<>, Failure> {
    shutdown::requested(cli.common.exit_with_stdin).map_err(|error| Failure {
        exit_code: FAILED,
        message: format!("cannot listen for signals: {error}"),
    })
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        let exit_code = match &error {
            NodeError::Usage(_) | NodeError::Start(StartError::Config(_)) => BAD_USAGE,
            NodeError::Start(error) if error.is_safety_refusal() => REFUSED_FOR_SAFETY,
            NodeError::Start(error) if error.is_disk_failure() => DISK_FAILURE,
            NodeError::Fatal(Fatal::Disk(_) | Fatal::DiskHangs) => DISK_FAILURE,
            _ => FAILED,
        };
        Self { exit_code, message: error.to_string() }
    }
}

impl From<BalancerError> for Failure {
    fn from(error: BalancerError) -> Self {
        let exit_code = match &error {
            BalancerError::NoNodes | BalancerError::ListensOnNode(_) => BAD_USAGE,
            _ => FAILED,
        };
        Self { exit_code, message: error.to_string() }
    }
}

/// For a command that has nothing to say but its result, and needs no runtime.
fn print_or_fail(result: Result<String, CertsError>, cli: &Cli) -> ExitCode {
    match result {
        Ok(words) => {
            // Whoever closes the pipe has read enough.
            let _ = io::stdout().write_all(words.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let is_usage = matches!(error, CertsError::Name(_));
            failed(if is_usage { BAD_USAGE } else { FAILED }, &error.to_string(), cli)
        }
    }
}

/// Says why, in the chosen format.
fn failed(exit_code: u8, message: &str, cli: &Cli) -> ExitCode {
    match cli.common.log_format {
        LogFormat::Human => eprintln!("leaderboard: {message}"),
        LogFormat::Json => tracing::error!(exit_code, "{message}"),
    }
    ExitCode::from(exit_code)
}

fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn start_logging(common: &CommonArgs) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&common.log))
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    // Whoever embeds this may have a subscriber already: then theirs stays.
    let _ = match common.log_format {
        LogFormat::Human => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
