//! Nodes for the tests inside this crate.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::NodeId;
use raft_wal::sim::SimDisk;

use super::*;
use crate::state_machine::AppliedEntry;

/// Counts its commands.
pub(crate) struct Count(pub(crate) u64);

impl StateMachine for Count {
    fn apply(&mut self, _: &AppliedEntry) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }
}

/// Node 1 of the cluster `test`, on a simulated disk and any free port.
pub(crate) async fn start_on_disk(
    disk: &SimDisk,
    peers: BTreeMap<NodeId, String>,
) -> (RaftHandle<Count>, NodeTask) {
    let id = NodeId::new(1).expect("not zero");
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = NodeConfig::new("test", id, "simulated", listen, peers);
    config.election_timeout = Duration::from_millis(40);
    config.heartbeat_interval = Duration::from_millis(10);
    config.segment_bytes = 64 << 10;
    let disk = Arc::new(disk.for_this_life());
    let open = move |config: WalConfig, on_completion| Wal::open_on(disk, config, on_completion);
    launch(config, None, Count(0), Box::new(open)).await.expect("it starts")
}
