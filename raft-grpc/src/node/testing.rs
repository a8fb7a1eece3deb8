//! Nodes for the tests inside this crate.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::NodeId;
use raft_wal::sim::SimDisk;

use super::*;
use crate::state_machine::{AppliedEntry, Capture, RestoreError};

/// Counts its commands.
pub(crate) struct Count(pub(crate) u64);

impl StateMachine for Count {
    fn apply(&mut self, _: &AppliedEntry) -> Bytes {
        self.0 += 1;
        Bytes::new()
    }

    fn snapshot(&self) -> Capture {
        self.0.to_be_bytes().to_vec().into()
    }

    fn restore(&self, snapshot: &mut dyn std::io::Read) -> Result<Self, RestoreError> {
        let mut bytes = [0; 8];
        snapshot.read_exact(&mut bytes)?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

/// Node 1 of the cluster `test`, on a simulated disk and any free port.
pub(crate) async fn start_on_disk(
    disk: &SimDisk,
    peers: BTreeMap<NodeId, String>,
) -> (RaftHandle<Count>, NodeTask) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    start_member(1, listener, disk, peers).await
}

/// A cluster of as many nodes as there are disks.
pub(crate) async fn start_cluster(disks: &[SimDisk]) -> Vec<(RaftHandle<Count>, NodeTask)> {
    let listen = |_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let listeners: Vec<TcpListener> = disks.iter().map(listen).collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound").to_string();
    let addresses = listeners.iter().map(address);
    let peers: BTreeMap<_, _> = (1..).map_while(NodeId::new).zip(addresses).collect();
    let mut nodes = Vec::new();
    for ((id, listener), disk) in (1..).zip(listeners).zip(disks) {
        nodes.push(start_member(id, listener, disk, peers.clone()).await);
    }
    nodes
}

async fn start_member(
    id: u64,
    listener: TcpListener,
    disk: &SimDisk,
    peers: BTreeMap<NodeId, String>,
) -> (RaftHandle<Count>, NodeTask) {
    let id = NodeId::new(id).expect("not zero");
    let listen = listener.local_addr().expect("it is bound");
    let mut config = NodeConfig::new("test", id, "simulated", listen, peers);
    config.election_timeout = Duration::from_millis(40);
    config.heartbeat_interval = Duration::from_millis(10);
    config.segment_bytes = 64 << 10;
    let disk = Arc::new(disk.for_this_life());
    let open = move |config: WalConfig, on_completion| Wal::open_on(disk, config, on_completion);
    launch(config, Some(listener), Count(0), Box::new(open)).await.expect("it starts")
}
