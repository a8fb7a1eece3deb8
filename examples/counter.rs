//! The smallest replicated state machine: a counter on three nodes, all in this process, each with its own log.
//! One of them is stopped and comes back. `cargo run --example counter`
//!
//! In earnest each node is a process of its own: see the README of `raft-grpc`.

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use raft_grpc::{
    AppliedEntry, Capture, Consistency, LocalCluster, NodeId, RestoreError, StateMachine,
};

#[derive(Default)]
struct Counter {
    count: u64,
}

impl StateMachine for Counter {
    /// Called with the same entries in the same order on every node, so it must do the same on each of them.
    fn apply(&mut self, entry: &AppliedEntry) -> Bytes {
        // A command that makes no sense must not make one here either: it is in every node's log.
        let step = entry.command.as_ref().try_into().map_or(0, u64::from_be_bytes);
        self.count = self.count.wrapping_add(step);
        Bytes::copy_from_slice(&self.count.to_be_bytes())
    }

    fn snapshot(&self) -> Capture {
        self.count.to_be_bytes().to_vec().into()
    }

    fn restore(&self, snapshot: &mut dyn Read) -> Result<Self, RestoreError> {
        let mut count = [0; 8];
        snapshot.read_exact(&mut count)?;
        Ok(Self { count: u64::from_be_bytes(count) })
    }
}

fn add(step: u64) -> Bytes {
    Bytes::copy_from_slice(&step.to_be_bytes())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut cluster = LocalCluster::start(dir.path(), 3, |_| Counter::default()).await?;
    let leader = cluster.leader(Duration::from_secs(10)).await.ok_or("no leader in ten seconds")?;
    let leader = leader.status().raft.id;
    println!("{leader} leads");

    // Any node takes commands: followers forward them.
    for node in cluster.nodes() {
        let applied = node.propose(add(10)).await?;
        println!("{} added 10 at {}", node.status().raft.id, applied.position);
    }

    cluster.stop(leader).await?;
    let [other, ..] = &cluster.nodes()[..] else { return Err("two are left".into()) };
    let applied = other.propose(add(12)).await?;
    println!("{leader} is stopped; 12 added at {}", applied.position);

    // The one that was away has it all as well, as fresh as anybody's.
    cluster.restart(leader, Counter::default()).await?;
    for id in (1..=3).filter_map(NodeId::new) {
        let count = cluster.node(id).read(Consistency::Linearizable).await?.count;
        println!("{id} says {count}");
        assert_eq!(count, 42);
    }
    Ok(cluster.shutdown().await?)
}
