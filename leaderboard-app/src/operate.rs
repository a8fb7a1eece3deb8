//! `leaderboard status`, `members`, `transfer` and `snapshot`: an operator's view of a running cluster, and what
//! can be done to it, over the HTTP interface of its nodes.
//!
//! `client` asks one address after another; `view` is what nodes say; each of the other files is a command.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::balancer::NodeAddress;
use crate::cli::Failure;
use crate::duration::parse_duration;

mod client;
mod members;
mod order;
mod snapshot;
mod status;
mod table;
mod view;

use client::Client;

/// Where the example cluster answers: its balancer, then its nodes.
const DEFAULT_ENDPOINTS: [&str; 4] =
    ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"];

/// Whom to ask, and how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct EndpointArgs {
    /// HTTP addresses of nodes or of a balancer, separated by commas; the next is asked when one does not
    /// answer [default: 127.0.0.1:8080, then 8081 to 8083]
    #[arg(
        long,
        global = true,
        env = "LEADERBOARD_ENDPOINTS",
        value_name = "HOST:PORT,…",
        value_delimiter = ','
    )]
    endpoints: Vec<NodeAddress>,
    /// How long one request may take (ms, s, m), at most 60s
    #[arg(
        long,
        global = true,
        env = "LEADERBOARD_TIMEOUT",
        value_name = "DURATION",
        default_value = "8s",
        value_parser = timeout
    )]
    timeout: Duration,
}

/// Options of `leaderboard status`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    endpoints: EndpointArgs,
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
}

/// Options of `leaderboard members`.
#[derive(Clone, Debug, Args)]
pub(crate) struct MembersArgs {
    #[command(subcommand)]
    what: MembersCommand,
    #[command(flatten)]
    endpoints: EndpointArgs,
}

#[derive(Clone, Debug, Subcommand)]
enum MembersCommand {
    /// Show the members, as the leader sees them if it can be asked
    #[command(after_help = LIST_HELP)]
    List {
        /// How it is shown
        #[arg(short, long, value_name = "FORMAT", default_value = "text")]
        output: Output,
    },
    /// Add a node: as a learner, and as a voter once it has caught up
    #[command(after_help = ADD_HELP)]
    Add {
        /// The node's number, which no other node has or had
        #[arg(value_name = "ID", value_parser = node_id)]
        id: u64,
        /// Where the other nodes reach it
        #[arg(value_name = "RAFT_ADDR")]
        raft: NodeAddress,
        /// Where it answers HTTP
        #[arg(value_name = "HTTP_ADDR")]
        http: NodeAddress,
        /// Leave it a learner: it gets the log and has no vote
        #[arg(long)]
        learner: bool,
    },
    /// Make a learner a voter
    #[command(after_help = PROMOTE_HELP)]
    Promote {
        /// The node's number
        #[arg(value_name = "ID", value_parser = node_id)]
        id: u64,
    },
    /// Remove a node, which may be the leader; the others go on
    #[command(after_help = REMOVE_HELP)]
    Remove {
        /// The node's number
        #[arg(value_name = "ID", value_parser = node_id)]
        id: u64,
    },
}

/// Options of `leaderboard transfer`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TransferArgs {
    /// The voter that is to lead; if none is named, the one that has most of the log
    #[arg(value_name = "ID", value_parser = node_id)]
    to: Option<u64>,
    #[command(flatten)]
    endpoints: EndpointArgs,
}

/// Options of `leaderboard snapshot`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SnapshotArgs {
    #[command(flatten)]
    endpoints: EndpointArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

pub(crate) const STATUS_HELP: &str = "\
Without --endpoints all members are asked that one of the default addresses
knows; with it, exactly these. MEMBERS is voters+learners. Two nodes with the
same APPLIED index and different digests would be a bug.

Examples:
  leaderboard status
  leaderboard status --watch
  leaderboard status --endpoints 10.0.0.1:8081,10.0.0.2:8081 -o json

Exit codes: 0 all who were asked answer and have a leader, 1 not so, 2 bad usage.";

const LIST_HELP: &str = "\
Example:
  leaderboard members list -o json | jq -r '.members[] | select(.healthy | not) | .id'";

const ADD_HELP: &str = "\
Start the node first, or while this waits, with --join. What it waits for is told
on standard error. Ctrl-C leaves it a learner. A node that is added already is
left as it is; one that is a learner already is promoted.

Example, a fourth node for the example cluster:
  leaderboard node --id 4 --join --data-dir data/4 \\
      --http 127.0.0.1:8084 --raft 127.0.0.1:7084 \\
      --peers 1=127.0.0.1:7081,2=127.0.0.1:7082,3=127.0.0.1:7083
  leaderboard members add 4 127.0.0.1:7084 127.0.0.1:8084";

const PROMOTE_HELP: &str = "\
It fails if the node has not caught up within --timeout.

Example:
  leaderboard members promote 4 --timeout 60s";

const REMOVE_HELP: &str = "\
Stop its process afterwards. Its number must not come back with its old data
directory; with an empty one it may be added again.

Example:
  leaderboard members remove 1";

pub(crate) const TRANSFER_HELP: &str = "\
Examples:
  leaderboard transfer        to the voter that has most of the log
  leaderboard transfer 2      to node 2; nothing happens if it leads already";

pub(crate) const SNAPSHOT_HELP: &str = "\
Without --endpoints on every member, with it on exactly these nodes. A node cuts
one by itself after every --snapshot-after-bytes of writes; this one is for
before a backup or a restart.

Examples:
  leaderboard snapshot
  leaderboard snapshot --endpoints 127.0.0.1:8081";

impl EndpointArgs {
    fn were_given(&self) -> bool {
        !self.endpoints.is_empty()
    }

    fn client(&self) -> Client {
        let endpoints = if self.were_given() {
            self.endpoints.clone()
        } else {
            let parse = |text: &&str| text.parse().expect("an address");
            DEFAULT_ENDPOINTS.iter().map(parse).collect()
        };
        Client::new(endpoints, self.timeout, !self.were_given())
    }
}

/// Runs `leaderboard status`.
pub(crate) async fn status(args: &StatusArgs) -> Result<(), Failure> {
    status::run(args).await
}

/// Runs `leaderboard members`.
pub(crate) async fn members(args: &MembersArgs) -> Result<(), Failure> {
    let client = args.endpoints.client();
    match &args.what {
        MembersCommand::List { output } => members::list(&client, *output).await,
        MembersCommand::Add { id, raft, http, learner } => {
            members::add(&client, *id, raft, http, *learner).await
        }
        MembersCommand::Promote { id } => members::promote(&client, *id).await,
        MembersCommand::Remove { id } => members::remove(&client, *id).await,
    }
}

/// Runs `leaderboard transfer`.
pub(crate) async fn transfer(args: &TransferArgs) -> Result<(), Failure> {
    order::transfer(&args.endpoints.client(), args.to).await
}

/// Runs `leaderboard snapshot`.
pub(crate) async fn snapshot(args: &SnapshotArgs) -> Result<(), Failure> {
    snapshot::run(&args.endpoints).await
}

/// Writes a line of what was asked for. Whoever has closed the output does not want it.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a line about how it goes.
fn progress(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn node_id(text: &str) -> Result<u64, String> {
    // JSON numbers are exact up to here.
    let id = text.parse().ok().filter(|id| (1..1 << 53).contains(id));
    id.ok_or_else(|| "a node's id is a whole number from 1".to_owned())
}

fn timeout(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..=Duration::from_secs(60);
    parse_duration(text)
        .filter(|timeout| range.contains(timeout))
        .ok_or_else(|| "expected a whole number of ms, s or m, up to 60s".to_owned())
}
