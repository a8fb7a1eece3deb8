//! Real processes in networks of their own: cables are pulled, links cut in one direction, nodes stand still, and
//! what clients were told meanwhile must be explained by one order of votes and reads.
//!
//! Needs Linux, root, and the programs `unshare`, `mount` and `ip`; skipped with one line where that is missing.
//! `cargo test --test networks -- --nocapture`

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use faults::World;
use real::Result;
use real::cluster::RUN_LEADERBOARD;

#[path = "networks/faults.rs"]
mod faults;
#[path = "networks/load.rs"]
mod load;
mod real;
#[path = "harness/leaderboard/registers.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of several tests")]
mod registers;
#[path = "networks/wires.rs"]
mod wires;

/// Runs the tests, inside of namespaces for which this program starts itself again; or, when a test has started it,
/// is a node or a balancer.
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == RUN_LEADERBOARD) {
        return leaderboard_app::cli::run_from(
            std::iter::once("leaderboard".into()).chain(arguments),
        );
    }
    let missing = wires::missing();
    if let Some(missing) = &missing {
        eprintln!("tests with networks skipped: {missing}");
    } else if !wires::is_inside() {
        let inside = wires::inside().map(|mut it| it.args(std::env::args_os().skip(1)).status());
        return match inside {
            Ok(Ok(status)) if status.success() => ExitCode::SUCCESS,
            Ok(Ok(_)) => ExitCode::FAILURE,
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(&error),
        };
    }
    let trials = [
        trial("the_leader_is_unplugged", |it| Box::pin(faults::the_leader_is_unplugged(it))),
        trial("the_leader_is_mute", |it| Box::pin(faults::the_leader_is_mute(it))),
        trial("the_leader_is_deaf", |it| Box::pin(faults::the_leader_is_deaf(it))),
        trial("one_link_is_cut", |it| Box::pin(faults::one_link_is_cut(it))),
        trial("a_link_flaps", |it| Box::pin(faults::a_link_flaps(it))),
        trial("nodes_are_killed_and_restarted", |it| {
            Box::pin(faults::nodes_are_killed_and_restarted(it))
        }),
        trial("the_leader_stands_still", |it| Box::pin(faults::the_leader_stands_still(it))),
    ];
    let skipped = missing.is_some();
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(skipped)).collect();
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("namespaces: {error}");
    ExitCode::FAILURE
}

type Trouble = for<'a> fn(&'a mut World) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Gives a test a directory for the logs of its processes.
fn trial(name: &'static str, trouble: Trouble) -> Trial {
    Trial::test(name, move || {
        let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("networks").join(name);
        let _ = std::fs::remove_dir_all(&keep);
        std::fs::create_dir_all(&keep)?;
        run(&keep, trouble)
            .map_err(|error| Failed::from(format!("{error}\nLogs are in {}", keep.display())))
    })
}

fn run(keep: &Path, trouble: Trouble) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(faults::under_load(keep, async |world| trouble(world).await))
}
