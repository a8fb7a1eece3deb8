//! Nodes are restarted one after the other, as in an upgrade, while scores are added.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

use super::chaos::{Ledger, PATIENCE, all_agree, wait_until};
use crate::real::Result;
use crate::real::client::{Client, Outcome, Vote};
use crate::real::cluster::Cluster;

const CLIENTS: u64 = 16;
const RESTARTS: usize = 6;

/// Every request is answered with an acknowledgement, although each node in turn gets SIGTERM, ends with 0 and
/// comes back: whoever leads hands over first, and answers until the next one leads; the balancer asks
/// somebody else what a node has no time for.
pub(crate) async fn a_rolling_restart_fails_no_request(cluster: &mut Cluster) -> Result<()> {
    let ledger = Rc::new(Ledger::default());
    let enough = Rc::new(Cell::new(false));
    let balancer = cluster.address();
    let clients = LocalSet::new();
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (ledger, enough) = (Rc::clone(&ledger), Rc::clone(&enough));
            clients.spawn_local(async move { vote(balancer, number, &ledger, &enough).await })
        })
        .collect();
    clients.run_until(restart_each(cluster, &ledger)).await?;
    enough.set(true);
    clients.run_until(all_of(tasks)).await?;
    all_agree(cluster, &ledger).await
}

async fn all_of(tasks: Vec<JoinHandle<Result<()>>>) -> Result<()> {
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn vote(
    balancer: SocketAddr,
    number: u64,
    ledger: &Ledger,
    enough: &Cell<bool>,
) -> Result<()> {
    let client = Client::new();
    while !enough.get() {
        // Without a key of its own: whoever cannot repeat a request needs it to pass at once.
        let vote = Vote { player: format!("player-{number}"), score: 1, key: None };
        match client.vote(balancer, &vote).await? {
            Outcome::Acknowledged => ledger.acknowledge(&vote),
            other => return Err(format!("{other:?} while a node was restarted").into()),
        }
    }
    Ok(())
}

async fn restart_each(cluster: &mut Cluster, ledger: &Ledger) -> Result<()> {
    let ids: Vec<usize> = cluster.ids().collect();
    for id in ids.into_iter().cycle().take(RESTARTS) {
        let code = cluster.stop(id).await?;
        if code != Some(0) {
            return Err(format!("node {id} ended with {code:?}").into());
        }
        let done = ledger.acknowledged();
        // The others go on without it.
        wait_until(|| ledger.acknowledged() >= done + 200).await?;
        cluster.restart(id)?;
        follows_again(cluster, id).await?;
    }
    Ok(())
}

/// Waits until a node knows who leads, so that the next one may go.
async fn follows_again(cluster: &Cluster, id: usize) -> Result<()> {
    let (client, deadline) = (Client::new(), Instant::now() + PATIENCE);
    while client.get(cluster.address_of(id), "/readyz").await.is_err() {
        if Instant::now() > deadline {
            return Err(format!("node {id} does not come back").into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}
