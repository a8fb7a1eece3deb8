//! Real processes on loopback: three nodes and a balancer, clients that add scores, and a killer.
//!
//! What is shown: whatever dies, no acknowledged score is lost and none counts twice, all nodes come to
//! the same state, and a node refuses to run where it must not.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use real::cluster::{Cluster, RUN_LEADERBOARD};

#[path = "processes/chaos.rs"]
mod chaos;
#[path = "networks/load.rs"]
#[allow(dead_code, reason = "a module of two tests")]
mod load;
#[path = "processes/refusals.rs"]
mod refusals;
#[path = "harness/leaderboard/registers.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of several tests")]
mod registers;
#[path = "processes/replaced.rs"]
mod replaced;
#[path = "processes/rolling.rs"]
mod rolling;

mod real;

/// Runs the tests; or, when a test has started this program again, a node or a balancer.
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == RUN_LEADERBOARD) {
        return leaderboard_app::cli::run_from(
            std::iter::once("leaderboard".into()).chain(arguments),
        );
    }
    let trials = vec![
        trial("no_acknowledged_score_is_lost_and_none_counts_twice", |cluster, _| {
            Box::pin(chaos::no_acknowledged_score_is_lost_and_none_counts_twice(cluster))
        }),
        trial("everything_killed_at_once_comes_back", |cluster, _| {
            Box::pin(chaos::everything_killed_at_once_comes_back(cluster))
        }),
        trial("a_rolling_restart_fails_no_request", |cluster, _| {
            Box::pin(rolling::a_rolling_restart_fails_no_request(cluster))
        }),
        trial("all_members_are_replaced_one_by_one", |cluster, keep| {
            Box::pin(replaced::all_members_are_replaced_one_by_one(cluster, keep))
        }),
        trial("one_directory_is_for_one_node", |cluster, keep| {
            Box::pin(refusals::one_directory_is_for_one_node(cluster, keep))
        }),
        trial("a_damaged_log_is_repaired_and_a_lost_vote_refused", |cluster, keep| {
            Box::pin(refusals::a_damaged_log_is_repaired_and_a_lost_vote_refused(cluster, keep))
        }),
        trial("strangers_on_the_raft_port_change_nothing", |cluster, keep| {
            Box::pin(refusals::strangers_on_the_raft_port_change_nothing(cluster, keep))
        }),
    ];
    // Each test has a cluster of its own: side by side they would only take each other's time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

type Test =
    for<'a> fn(&'a mut Cluster, &'a Path) -> Pin<Box<dyn Future<Output = real::Result<()>> + 'a>>;

/// Gives a test its own cluster, and a directory for the logs of its processes.
fn trial(name: &'static str, test: Test) -> Trial {
    Trial::test(name, move || {
        let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("processes").join(name);
        let _ = std::fs::remove_dir_all(&keep);
        std::fs::create_dir_all(&keep)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(async {
            let mut cluster = Cluster::start(&keep).await?;
            test(&mut cluster, &keep).await
        });
        done.map_err(|error| Failed::from(format!("{error}\nLogs are in {}", keep.display())))
    })
}
