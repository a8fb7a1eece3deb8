//! How long no score is acknowledged after the leader is killed with SIGKILL, or restarted with SIGTERM.
//!
//! `cargo bench --bench failover` starts three nodes and a balancer as real processes, lets eight clients add
//! scores through the balancer one after the other, kills the leader twenty times (`-- 50` for fifty) and
//! prints the distribution of the gaps: of each kill the longest time between two acknowledgements in the
//! three seconds after it. With `-- rolling 50` all nodes are restarted in turn, fifty times a node, as in an
//! upgrade: every request that failed counts, and none should.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use real::Result;
use real::client::{Client, Outcome, Vote};
use real::cluster::{Cluster, RUN_LEADERBOARD};

#[path = "../tests/real/mod.rs"]
mod real;

const CLIENTS: usize = 8;
const TIMES: usize = 20;
/// Looked at after each kill.
const KILL_WINDOW: Duration = Duration::from_secs(3);
/// Looked at after the end of a node that was restarted.
const RESTART_WINDOW: Duration = Duration::from_millis(500);
/// How long a restarted node may take to follow again.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == RUN_LEADERBOARD).is_some() {
        return leaderboard_app::cli::run_from(
            std::iter::once("leaderboard".into()).chain(arguments),
        );
    }
    let arguments: Vec<String> = arguments.filter_map(|text| text.into_string().ok()).collect();
    let rolling = arguments.iter().any(|word| word == "rolling");
    let times = arguments.iter().find_map(|text| text.parse().ok()).unwrap_or(TIMES);
    let how = if rolling { How::Restarted } else { How::Killed };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(how, times))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What is done to a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// The leader, with SIGKILL.
    Killed,
    /// Each in turn, with SIGTERM.
    Restarted,
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<Instant>,
    /// Answers other than an acknowledgement.
    failed: usize,
}

async fn measure(how: How, times: usize) -> Result<()> {
    let logs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("failover");
    std::fs::create_dir_all(&logs)?;
    let mut cluster = Cluster::start(&logs).await?;
    let seen = Rc::new(RefCell::new(Seen::default()));
    let clients = LocalSet::new();
    for client in 0..CLIENTS {
        clients.spawn_local(keep_voting(cluster.address(), client, seen.clone()));
    }
    let gaps = clients.run_until(disturb(&mut cluster, how, times, &seen)).await?;
    let by_leaders = gaps.iter().filter(|(led, _)| *led).map(|(_, gap)| *gap);
    tell(if how == How::Killed { "kills" } else { "restarts of leaders" }, by_leaders.collect());
    if how == How::Restarted {
        let others = gaps.iter().filter(|(led, _)| !led).map(|(_, gap)| *gap);
        tell("restarts of followers", others.collect());
        println!("{} requests failed", seen.borrow().failed);
    }
    Ok(())
}

/// Did the node lead, and how long was no score acknowledged?
async fn disturb(
    cluster: &mut Cluster,
    how: How,
    times: usize,
    seen: &RefCell<Seen>,
) -> Result<Vec<(bool, Duration)>> {
    let mut gaps = Vec::new();
    let nodes = cluster.ids().count();
    let count = if how == How::Killed { times } else { times * nodes };
    for time in 0..count {
        let leader = settled_leader(cluster).await?;
        let node = if how == How::Killed { leader } else { time % nodes + 1 };
        seen.borrow_mut().acknowledged.clear();
        sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        let window = match how {
            How::Killed => {
                cluster.kill(node).await?;
                KILL_WINDOW
            }
            How::Restarted => {
                let code = cluster.stop(node).await?;
                if code != Some(0) {
                    return Err(format!("node {node} ended with {code:?}").into());
                }
                RESTART_WINDOW
            }
        };
        sleep(window).await;
        let gap = longest_gap(&seen.borrow().acknowledged, begun);
        let role = if node == leader { "which led" } else { "which followed" };
        println!("{:>3}: node {node}, {role}, {:>7.1} ms", time + 1, millis(gap));
        gaps.push((node == leader, gap));
        cluster.restart(node)?;
    }
    Ok(gaps)
}

fn millis(gap: Duration) -> f64 {
    gap.as_secs_f64() * 1e3
}

fn tell(what: &str, mut gaps: Vec<Duration>) {
    gaps.sort_unstable();
    let at = |share: f64| {
        gaps.get(((gaps.len().saturating_sub(1)) as f64 * share).round() as usize)
            .map_or(f64::NAN, |gap| millis(*gap))
    };
    println!(
        "{} {what}: shortest {:.0} ms, median {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        gaps.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
    );
}

/// Adds scores one after the other, each with a key of its own, repeated until it is acknowledged.
async fn keep_voting(balancer: SocketAddr, client: usize, seen: Rc<RefCell<Seen>>) {
    let (http, player) = (Client::new(), format!("player-{client}"));
    for number in 0_u64.. {
        let key = Some(format!("failover-{client}-{number}"));
        let vote = Vote { player: player.clone(), score: 1, key };
        while !matches!(http.vote(balancer, &vote).await, Ok(Outcome::Acknowledged)) {
            seen.borrow_mut().failed += 1;
            sleep(Duration::from_millis(5)).await;
        }
        seen.borrow_mut().acknowledged.push(Instant::now());
    }
}

/// The longest time between two acknowledgements, from the last one before the kill on.
fn longest_gap(acknowledged: &[Instant], killed: Instant) -> Duration {
    let before = acknowledged.partition_point(|&at| at <= killed).saturating_sub(1);
    let mut last = acknowledged.get(before).copied().unwrap_or(killed);
    let mut longest = Duration::ZERO;
    for &at in acknowledged[before..].iter().chain([&Instant::now()]) {
        longest = longest.max(at - last);
        last = at;
    }
    longest
}

/// Waits until all nodes follow one leader and have its log: its id.
async fn settled_leader(cluster: &Cluster) -> Result<usize> {
    let (client, deadline) = (Client::new(), Instant::now() + PATIENCE);
    while Instant::now() < deadline {
        let mut seen = Vec::new();
        for id in cluster.ids() {
            if let Ok(state) = client.get(cluster.address_of(id), "/v1/cluster").await {
                seen.push(state);
            }
        }
        let leader = seen.iter().find(|state| state["role"] == "leader");
        let settled = leader.filter(|leader| {
            let members = leader["members"].as_array();
            let close = |lag: &serde_json::Value| lag.as_u64().is_some_and(|lag| lag < 100);
            members.is_some_and(|all| all.iter().all(|member| close(&member["lag_entries"])))
                && seen.len() == cluster.ids().count()
                && seen.iter().all(|state| state["leader"] == leader["node"])
        });
        if let Some(id) = settled.and_then(|leader| leader["node"].as_u64()) {
            return Ok(usize::try_from(id)?);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err("the cluster does not settle".into())
}
