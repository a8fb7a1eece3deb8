//! How long no score is acknowledged after the leader is killed with SIGKILL.
//!
//! `cargo bench --bench failover` starts three nodes and a balancer as real processes, lets eight clients add
//! scores through the balancer one after the other, kills the leader twenty times (`-- 50` for fifty) and
//! prints the distribution of the gaps: of each kill the longest time between two acknowledgements in the
//! three seconds after it.

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
const KILLS: usize = 20;
/// Looked at after each kill.
const WINDOW: Duration = Duration::from_secs(3);
/// How long a restarted node may take to follow again.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == RUN_LEADERBOARD).is_some() {
        return leaderboard_app::cli::run_from(
            std::iter::once("leaderboard".into()).chain(arguments),
        );
    }
    let kills = arguments.filter_map(|text| text.to_str()?.parse().ok()).next().unwrap_or(KILLS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(kills))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(kills: usize) -> Result<()> {
    let logs = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("failover");
    std::fs::create_dir_all(&logs)?;
    let mut cluster = Cluster::start(&logs).await?;
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    let clients = LocalSet::new();
    for client in 0..CLIENTS {
        clients.spawn_local(keep_voting(cluster.address(), client, acknowledged.clone()));
    }
    let mut gaps = Vec::new();
    clients
        .run_until(async {
            for kill in 1..=kills {
                let leader = settled_leader(&cluster).await?;
                acknowledged.borrow_mut().clear();
                sleep(Duration::from_millis(100)).await;
                cluster.kill(leader).await?;
                let killed = Instant::now();
                sleep(WINDOW).await;
                let gap = longest_gap(&acknowledged.borrow(), killed);
                println!("kill {kill:>3}: node {leader}, {:>7.1} ms", gap.as_secs_f64() * 1e3);
                gaps.push(gap);
                cluster.restart(leader)?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .await?;
    gaps.sort_unstable();
    let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share).round() as usize];
    let millis = |gap: Duration| gap.as_secs_f64() * 1e3;
    println!(
        "{} kills: shortest {:.0} ms, median {:.0} ms, p90 {:.0} ms, longest {:.0} ms",
        gaps.len(),
        millis(at(0.0)),
        millis(at(0.5)),
        millis(at(0.9)),
        millis(at(1.0)),
    );
    Ok(())
}

/// Adds scores one after the other, each with a key of its own, repeated until it is acknowledged.
async fn keep_voting(balancer: SocketAddr, client: usize, acknowledged: Rc<RefCell<Vec<Instant>>>) {
    let (http, player) = (Client::new(), format!("player-{client}"));
    for number in 0_u64.. {
        let key = Some(format!("failover-{client}-{number}"));
        let vote = Vote { player: player.clone(), score: 1, key };
        while !matches!(http.vote(balancer, &vote).await, Ok(Outcome::Acknowledged)) {
            sleep(Duration::from_millis(5)).await;
        }
        acknowledged.borrow_mut().push(Instant::now());
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
