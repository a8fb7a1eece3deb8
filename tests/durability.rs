//! Real nodes under `strace`: what leaves a node is on disk, and a disk that fails ends it.
//!
//! Needs Linux and `strace`; skipped with one line where that is missing. The order of writes, syncs
//! and answers is read from traces, in which a call that was seen to begin had not happened before,
//! and one that was seen to end had. The log by itself, and under power cuts, is tested beside it:
//! `../raft-wal/tests/real_disk.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::time::{Instant, sleep};

use order::Change;
use real::Result;
use real::client::{Client, Outcome, Vote};
use real::cluster::{Cluster, RUN_LEADERBOARD};
use strace::Call;

#[path = "../raft-wal/tests/real/order.rs"]
mod order;
mod real;
#[path = "../raft-wal/tests/real/strace.rs"]
mod strace;

const PATIENCE: Duration = Duration::from_secs(60);
const DISK_FAILURE: i32 = 4;
const PLAYER: &str = "alice";
/// What servers and clients receive and send with.
const SOCKET_CALLS: &str = "read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg";

/// Runs the tests; or, when a test has started this program again, a node or a balancer.
fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == RUN_LEADERBOARD) {
        return leaderboard_app::cli::run_from(
            std::iter::once("leaderboard".into()).chain(arguments),
        );
    }
    let missing = strace::missing();
    if let Some(missing) = &missing {
        eprintln!("tests of durability skipped: {missing}");
    }
    let skipped = missing.is_some();
    let trials = vec![
        trial("a_failed_sync_ends_the_node", |keep| Box::pin(a_failed_sync_ends_the_node(keep))),
        trial("no_answer_before_both_disks_have_it", |keep| {
            Box::pin(no_answer_before_both_disks_have_it(keep))
        }),
    ];
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(skipped)).collect();
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit_code()
}

type Test = for<'a> fn(&'a Path) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// Gives a test a directory for traces and logs.
fn trial(name: &'static str, test: Test) -> Trial {
    Trial::test(name, move || {
        let keep = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("durability").join(name);
        let _ = std::fs::remove_dir_all(&keep);
        std::fs::create_dir_all(&keep)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(test(&keep));
        done.map_err(|error| {
            Failed::from(format!("{error}\nTraces and logs are in {}", keep.display()))
        })
    })
}

/// A sync fails while a cluster of one counts votes: the node ends with exit code 4 and one line that
/// says why, answers nothing after it, and comes back with all that it had acknowledged.
async fn a_failed_sync_ends_the_node(keep: &Path) -> Result<()> {
    let trace = keep.join("trace");
    let calls = format!("{SOCKET_CALLS},{}", order::CALLS);
    // Of each thread the 25th; only the one that writes the log comes so far.
    let inject = ["-e", "inject=fdatasync:error=EIO:when=25"];
    let under = |_| strace::command(&trace, &calls, &inject);
    let mut cluster = Cluster::start_under(keep, 1, under).await?;
    let client = Client::new();
    let mut acknowledged = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match vote(&client, &cluster, 1).await? {
            Outcome::Acknowledged => acknowledged += 1,
            // Before it leads.
            Outcome::NotApplied if acknowledged == 0 && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            _ => break,
        }
        if acknowledged > 100 {
            return Err("the node outlives its disk".into());
        }
    }
    let exit_code = cluster.wait_for_end(1).await?;
    let log = cluster.log_of(1)?;
    let last_words: Vec<_> = log.lines().filter(|line| line.starts_with("leaderboard: ")).collect();
    let [line] = last_words.as_slice() else {
        return Err(format!("not one line that says why, but: {last_words:?}").into());
    };
    if exit_code != Some(DISK_FAILURE) || !line.contains("cannot sync segment-") {
        return Err(format!("exit code {exit_code:?}: {line}").into());
    }
    let calls = strace::parse(&std::fs::read_to_string(&trace)?);
    let failed = calls.iter().find(|call| call.injected).ok_or("no sync failed")?;
    let later = |call: &&Call| call.began > failed.ended;
    let answers = answers(&calls);
    if let Some(answer) = answers.iter().map(|(_, answer)| *answer).find(later) {
        return Err(format!("answered after the failure: {answer:?}").into());
    }
    if let Some(again) = calls
        .iter()
        .filter(later)
        .find(|call| call.name == "fdatasync" && call.file() == failed.file())
    {
        return Err(format!("synced again after the failure: {again:?}").into());
    }
    cluster.restart(1)?;
    let total = total_after_restart(&client, &cluster).await?;
    // The vote that found the disk broken may have been written.
    if total != acknowledged && total != acknowledged + 1 {
        return Err(format!("{total} votes of {acknowledged} acknowledged").into());
    }
    Ok(())
}

/// Two nodes, of which a majority is both: whenever one of them answers a vote with 200, each has
/// written after the vote came in, and synced that, before the answer went out. So neither the node
/// answers early, nor does the other acknowledge entries to it early.
async fn no_answer_before_both_disks_have_it(keep: &Path) -> Result<()> {
    const VOTES: usize = 100;
    let trace = |id| keep.join(format!("trace-{id}"));
    let calls = format!("{SOCKET_CALLS},{}", order::CALLS);
    let under = |id| strace::command(&trace(id), &calls, &[]);
    let mut cluster = Cluster::start_under(keep, 2, under).await?;
    let client = Client::new();
    let mut acknowledged = 0;
    let (mut node, deadline) = (1, Instant::now() + PATIENCE);
    while acknowledged < VOTES {
        if vote(&client, &cluster, node).await? == Outcome::Acknowledged {
            acknowledged += 1;
        } else if Instant::now() < deadline {
            // It does not lead, or nobody does yet.
            node = 3 - node;
            sleep(Duration::from_millis(20)).await;
        } else {
            return Err("no node takes votes".into());
        }
    }
    let mut traces = Vec::new();
    for id in [1, 2] {
        let exit_code = cluster.stop(id).await?;
        if exit_code != Some(0) {
            return Err(format!("node {id} ended with {exit_code:?}").into());
        }
        traces.push(strace::parse(&std::fs::read_to_string(trace(id))?));
    }
    let disks: Vec<_> = traces.iter().map(|calls| order::changes(calls)).collect();
    let mut answers = 0;
    for calls in &traces {
        answers += check_answers(calls, &disks)?;
    }
    if answers < acknowledged {
        return Err(format!("{acknowledged} votes, but {answers} answers in the traces").into());
    }
    Ok(())
}

/// Each answer to a vote came after a write that both disks had synced, and that was made after the
/// vote came in. One client sends one vote after the other, so hardly anything else is written
/// meanwhile: the log marks its end when nothing comes for a while, and here something does. Returns
/// how many answers there are.
fn check_answers(calls: &[Call], disks: &[Vec<Change>]) -> Result<usize> {
    let answers = answers(calls);
    for (asked, answer) in &answers {
        let has_it = |disk: &Vec<Change>| {
            let mut since = disk.iter().filter(|change| change.began > *asked);
            since.any(|change| change.bytes > 0 && change.is_durable_at(answer.began))
        };
        if let Some(disk) = disks.iter().position(|disk| !has_it(disk)) {
            let disk = disk + 1;
            return Err(format!("answered before disk {disk} has it: {answer:?}").into());
        }
    }
    Ok(answers.len())
}

/// The answers with 200 to votes, each with the moment at which the vote had come in.
fn answers(calls: &[Call]) -> Vec<(u64, &Call)> {
    let mut answers = Vec::new();
    // By connection.
    let mut asked = BTreeMap::new();
    for call in calls {
        if call.text().starts_with("POST /add_vote") {
            asked.insert(call.file(), call.ended);
        } else if call.text().starts_with("HTTP/1.1 ")
            && let Some(asked) = asked.remove(call.file())
            && call.text().starts_with("HTTP/1.1 200")
        {
            answers.push((asked, call));
        }
    }
    answers
}

async fn vote(client: &Client, cluster: &Cluster, node: usize) -> Result<Outcome> {
    let vote = Vote { player: PLAYER.to_owned(), score: 1, key: None };
    client.vote(cluster.address_of(node), &vote).await
}

/// The votes for the one player, once the only node leads again.
async fn total_after_restart(client: &Client, cluster: &Cluster) -> Result<u64> {
    let path = format!("/player_rankings?player={PLAYER}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.get(cluster.address_of(1), &path).await {
            Ok(ranking) => return Ok(ranking["score"].as_u64().ok_or("no score")?),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
