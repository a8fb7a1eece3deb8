//! Members come and go while scores are added.

use std::path::Path;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::chaos::PATIENCE;
use super::load::Load;
use crate::real::Result;
use crate::real::client::Client;
use crate::real::cluster::Cluster;

/// Each member in turn makes way for a new node, whoever leads, until none of those is left that the cluster began
/// with. What clients were told meanwhile must be explained by one order of votes and reads, and the new members
/// come to the same state.
pub(crate) async fn all_members_are_replaced_one_by_one(
    cluster: &mut Cluster,
    keep: &Path,
) -> Result<()> {
    let mut members: Vec<usize> = cluster.ids().collect();
    let doors = |cluster: &Cluster, members: &[usize]| {
        members.iter().map(|&id| cluster.address_of(id)).collect::<Vec<_>>()
    };
    let clients = LocalSet::new();
    let (load, tasks) = Load::start(&clients, doors(cluster, &members));
    clients
        .run_until(async {
            for _ in 0..members.len() {
                progress(&load).await?;
                let new = cluster.join(&members, keep).await?;
                let (id, raft) = (new.to_string(), cluster.raft_address_of(new).to_string());
                let http = cluster.address_of(new).to_string();
                cluster.command(&["members", "add", &id, &raft, &http], &members).await?;
                let old = members.remove(0);
                members.push(new);
                load.use_doors(doors(cluster, &members));
                cluster.command(&["members", "remove", &old.to_string()], &members).await?;
                let code = cluster.stop(old).await?;
                if code != Some(0) {
                    return Err(format!("node {old} ended with {code:?}").into());
                }
            }
            progress(&load).await?;
            println!("{} operations", load.judge(tasks).await?);
            all_agree(cluster, &members).await
        })
        .await
}

async fn progress(load: &Load) -> Result<()> {
    let (before, deadline) = (load.done(), Instant::now() + PATIENCE);
    while load.done().0 < before.0 + 200 || load.done().1 < before.1 + 50 {
        if Instant::now() > deadline {
            return Err("the clients make no progress".into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn all_agree(cluster: &Cluster, members: &[usize]) -> Result<()> {
    let (client, deadline) = (Client::new(), Instant::now() + PATIENCE);
    loop {
        let mut states = Vec::new();
        for &id in members {
            let state = client.get(cluster.address_of(id), "/v1/cluster").await?;
            states.push([state["applied_index"].clone(), state["digest"].clone()]);
        }
        if states.iter().all(|state| *state == states[0]) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the nodes do not come to the same state: {states:?}").into());
        }
        sleep(Duration::from_millis(50)).await;
    }
}
