//! A node on a disk that fails.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::NodeId;
use raft_wal::sim::{Fault, SimDisk};

use super::*;
use crate::error::{NotApplied, ProposeError, Unknown};
use crate::handle::Consistency;
use crate::state_machine::AppliedEntry;

/// Counts its commands.
struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _: &AppliedEntry) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }
}

async fn start_on_disk(disk: &SimDisk) -> (RaftHandle<Count>, NodeTask) {
    let id = NodeId::new(1).unwrap();
    let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let peers = BTreeMap::from([(id, "localhost:1".to_owned())]);
    let mut config = NodeConfig::new("test", id, "simulated", listen, peers);
    config.election_timeout = Duration::from_millis(40);
    config.heartbeat_interval = Duration::from_millis(10);
    let disk = Arc::new(disk.for_this_life());
    let open = move |config: WalConfig, on_completion| Wal::open_on(disk, config, on_completion);
    launch(config, None, Count(0), Box::new(open)).await.unwrap()
}

#[tokio::test]
async fn a_failing_disk_ends_the_node_and_everyone_is_answered() {
    for (seed, after) in [(1, 0), (2, 1), (3, 2), (4, 7), (5, 20)] {
        let disk = SimDisk::new(seed);
        let (handle, task) = start_on_disk(&disk).await;
        handle.propose(Bytes::new()).await.unwrap();
        disk.inject(Fault::Error, after);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let handle = handle.clone();
            callers.spawn(async move {
                let mut applied = 0;
                loop {
                    match handle.propose(Bytes::new()).await {
                        Ok(_) => applied += 1,
                        Err(error) => return (applied, error),
                    }
                }
            });
        }
        let end = task.wait().await;
        assert!(matches!(end, Err(Fatal::Disk(_))), "seed {seed}: {end:?}");
        let mut sure = 1;
        let mut unsure = 0;
        for (applied, error) in callers.join_all().await {
            sure += applied;
            match error {
                ProposeError::Unknown(Unknown::ShuttingDown) => unsure += 1,
                ProposeError::NotApplied(NotApplied::ShuttingDown) => {}
                error => panic!("seed {seed}: {error}"),
            }
        }
        let refused = handle.propose(Bytes::new()).await;
        assert_eq!(refused, Err(NotApplied::ShuttingDown.into()));

        disk.restart();
        let (handle, task) = start_on_disk(&disk).await;
        handle.propose(Bytes::new()).await.unwrap();
        let count = handle.read(Consistency::Linearizable).await.unwrap().0 - 1;
        assert!((sure..=sure + unsure).contains(&count), "seed {seed}: {sure} + {unsure}? {count}");
        handle.shutdown().await;
        task.wait().await.unwrap();
    }
}
