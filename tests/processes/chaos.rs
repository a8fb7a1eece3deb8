//! Nodes are killed while scores are added.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::real::Result;
use crate::real::client::{Client, Outcome, Vote};
use crate::real::cluster::Cluster;

const CLIENTS: u64 = 32;
const VOTES: u64 = 20_000;
const PLAYERS: u64 = 150;
/// How long anything may take to come right after a fault.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What the clients know, to be compared with what the nodes say.
#[derive(Default)]
pub(super) struct Ledger {
    acknowledged: Cell<u64>,
    totals: RefCell<BTreeMap<String, i64>>,
    /// Votes without a key of their own whose outcome stayed unknown.
    doubtful: RefCell<BTreeMap<String, Vec<i64>>>,
    unknown: Cell<u64>,
}

impl Ledger {
    /// How many votes were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    pub(super) fn acknowledge(&self, vote: &Vote) {
        self.acknowledged.set(self.acknowledged.get() + 1);
        *self.totals.borrow_mut().entry(vote.player.clone()).or_default() += vote.score;
    }

    /// The totals are what was acknowledged, and of the doubtful votes each once or not at all.
    fn check(&self, totals: &BTreeMap<String, i64>) -> Result<()> {
        let doubtful = self.doubtful.borrow();
        for (player, &acknowledged) in self.totals.borrow().iter() {
            let extra = totals.get(player).copied().unwrap_or_default() - acknowledged;
            let scores = doubtful.get(player).map_or(&[][..], Vec::as_slice);
            if !is_sum_of_some(scores, extra) {
                let what = if extra < 0 { "lost" } else { "counted twice" };
                return Err(format!("{player}: {extra} of {acknowledged} {what}").into());
            }
        }
        let strangers = totals.keys().find(|player| {
            !self.totals.borrow().contains_key(*player) && !doubtful.contains_key(*player)
        });
        match strangers {
            Some(player) => Err(format!("nobody voted for {player}").into()),
            None => Ok(()),
        }
    }
}

fn is_sum_of_some(scores: &[i64], sum: i64) -> bool {
    match scores.split_first() {
        None => sum == 0,
        Some((first, rest)) => is_sum_of_some(rest, sum) || is_sum_of_some(rest, sum - first),
    }
}

/// 32 clients add 20,000 scores through the balancer, half of them with keys of their own, while the
/// leader is killed and restarted three times and a follower once.
pub(crate) async fn no_acknowledged_score_is_lost_and_none_counts_twice(
    cluster: &mut Cluster,
) -> Result<()> {
    let ledger = Rc::new(Ledger::default());
    let clients = LocalSet::new();
    let started = Instant::now();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| clients.spawn_local(vote_many(cluster.address(), client, ledger.clone())))
        .collect();
    clients
        .run_until(async {
            for turn in 1..=4 {
                wait_until(|| ledger.acknowledged.get() >= turn * VOTES / 6).await?;
                let leader = leader_of(cluster).await?;
                let victim = if turn == 3 { leader % 3 + 1 } else { leader };
                cluster.kill(victim).await?;
                let done = ledger.acknowledged.get();
                // The others go on without it before it comes back.
                wait_until(|| ledger.acknowledged.get() >= done + VOTES / 50).await?;
                cluster.restart(victim)?;
            }
            for task in tasks {
                task.await??;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .await?;
    println!(
        "{} scores acknowledged in {:.1} s, {} outcomes unknown at first, {} to the end",
        ledger.acknowledged.get(),
        started.elapsed().as_secs_f64(),
        ledger.unknown.get(),
        ledger.doubtful.borrow().values().map(Vec::len).sum::<usize>(),
    );
    all_agree(cluster, &ledger).await
}

/// What was acknowledged is on disk: SIGKILL of all three at once loses nothing.
pub(crate) async fn everything_killed_at_once_comes_back(cluster: &mut Cluster) -> Result<()> {
    let (client, ledger) = (Client::new(), Ledger::default());
    for number in 0..200 {
        let key = Some(format!("before-{number}"));
        let vote = Vote { player: format!("player-{}", number % 7), score: 3, key };
        vote_until_acknowledged(&client, cluster, &vote, &ledger).await?;
    }
    for id in cluster.ids().collect::<Vec<_>>() {
        cluster.kill(id).await?;
    }
    for id in cluster.ids().collect::<Vec<_>>() {
        cluster.restart(id)?;
    }
    all_agree(cluster, &ledger).await?;
    // The keys are remembered too: a retry from before the crash still counts once.
    let key = Some("before-0".to_owned());
    let again = Vote { player: "player-0".to_owned(), score: 3, key };
    let answered = client.vote(cluster.address(), &again).await?;
    if answered != Outcome::Acknowledged {
        return Err(format!("a retry after the restart: {answered:?}").into());
    }
    all_agree(cluster, &ledger).await
}

async fn vote_until_acknowledged(
    client: &Client,
    cluster: &Cluster,
    vote: &Vote,
    ledger: &Ledger,
) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while client.vote(cluster.address(), vote).await? != Outcome::Acknowledged {
        if Instant::now() > deadline {
            return Err(format!("never acknowledged: {vote:?}").into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    ledger.acknowledge(vote);
    Ok(())
}

/// One client's share of the votes, each repeated until it is acknowledged, as far as that is safe.
async fn vote_many(
    balancer: std::net::SocketAddr,
    client_number: u64,
    ledger: Rc<Ledger>,
) -> Result<()> {
    let client = Client::new();
    for number in 0..VOTES / CLIENTS {
        let mixed = (client_number * 1_000_003 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let vote = Vote {
            player: format!("player-{}", (mixed >> 32) % PLAYERS),
            score: 1 + (mixed >> 40) as i64 % 100,
            key: (number % 2 == 0).then(|| format!("client-{client_number}-{number}")),
        };
        loop {
            match client.vote(balancer, &vote).await? {
                Outcome::Acknowledged => {
                    ledger.acknowledge(&vote);
                    break;
                }
                Outcome::NotApplied => {}
                Outcome::Unknown if vote.key.is_some() => {
                    ledger.unknown.set(ledger.unknown.get() + 1);
                }
                Outcome::Unknown => {
                    ledger.unknown.set(ledger.unknown.get() + 1);
                    let mut doubtful = ledger.doubtful.borrow_mut();
                    doubtful.entry(vote.player.clone()).or_default().push(vote.score);
                    break;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

pub(super) async fn wait_until(reached: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        if Instant::now() > deadline {
            return Err("the clients make no progress".into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// The node that leads, as it says itself: of several the one with the latest term.
pub(crate) async fn leader_of(cluster: &Cluster) -> Result<usize> {
    let client = Client::new();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let mut leaders = Vec::new();
        for id in cluster.ids() {
            let Ok(seen) = client.get(cluster.address_of(id), "/v1/cluster").await else {
                continue;
            };
            if seen["role"] == "leader" {
                leaders.push((seen["term"].as_u64(), id));
            }
        }
        if let Some((_, id)) = leaders.into_iter().max() {
            return Ok(id);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err("no node leads".into())
}

/// All nodes come to the same index with the same digest, and their totals are what the clients know.
pub(super) async fn all_agree(cluster: &Cluster, ledger: &Ledger) -> Result<()> {
    let client = Client::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = states(&client, cluster).await;
        if seen.as_ref().is_ok_and(|seen| seen.iter().all(|state| *state == seen[0])) {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("the nodes do not come to the same state: {seen:?}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
    for id in cluster.ids() {
        let path = "/player_rankings?limit=1000";
        let rankings = client.get(cluster.address_of(id), path).await?;
        let rows = rankings.as_array().ok_or("the rankings are no list")?;
        let total = |row: &serde_json::Value| {
            Some((row["player"].as_str()?.to_owned(), row["score"].as_i64()?))
        };
        let totals: Option<BTreeMap<_, _>> = rows.iter().map(total).collect();
        let totals = totals.ok_or_else(|| format!("odd rankings: {rankings}"))?;
        ledger.check(&totals).map_err(|error| format!("node {id}: {error}"))?;
    }
    Ok(())
}

/// Of each node the applied index and the digest of the state there.
async fn states(client: &Client, cluster: &Cluster) -> Result<Vec<(u64, String)>> {
    let mut states = Vec::new();
    for id in cluster.ids() {
        // A read makes the node catch up with all that is acknowledged.
        client.get(cluster.address_of(id), "/top_n_scores?n=1").await?;
    }
    for id in cluster.ids() {
        let seen = client.get(cluster.address_of(id), "/v1/cluster").await?;
        let index = seen["applied_index"].as_u64().ok_or("no applied_index")?;
        states.push((index, seen["digest"].as_str().ok_or("no digest")?.to_owned()));
    }
    Ok(states)
}
