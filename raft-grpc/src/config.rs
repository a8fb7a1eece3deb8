//! What a node is told at its start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raft_core::NodeId;

/// How one node runs. [`NodeConfig::new`] gives sound values for a local network; everything is checked
/// by [`start`](crate::start) before anything is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The name of the cluster, 1 to 64 bytes, the same on all nodes. Nodes of another cluster are
    /// refused, and so are data directories.
    pub cluster: String,
    /// Who this node is.
    pub id: NodeId,
    /// Where its log is kept; created if it does not exist. It belongs to this node alone.
    pub data_dir: PathBuf,
    /// Where it listens for the other nodes. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// Where every member can be reached, itself included, as `host:port`.
    pub peers: BTreeMap<NodeId, String>,
    /// A follower that hears nothing from a leader campaigns after a random time between this and
    /// twice this; 300 ms unless set. At least four times `heartbeat_interval`.
    pub election_timeout: Duration,
    /// How often an idle leader shows that it is alive; 50 ms unless set.
    pub heartbeat_interval: Duration,
    /// How long [`propose`](crate::RaftHandle::propose) and [`read`](crate::RaftHandle::read) take at
    /// the most; 5 s unless set.
    pub request_timeout: Duration,
    /// How long [`shutdown`](crate::RaftHandle::shutdown) lets what is in flight finish; 2 s unless
    /// set.
    pub shutdown_grace: Duration,
    /// The largest command that may be proposed; 1 MiB unless set, which is also the most.
    pub command_bytes_max: u64,
    /// The size of one file of the log; 16 MiB unless set.
    pub segment_bytes: u64,
}

impl NodeConfig {
    /// The node `id` of `cluster` with these addresses, everything else at its default.
    #[must_use]
    pub fn new(
        cluster: impl Into<String>,
        id: NodeId,
        data_dir: impl Into<PathBuf>,
        listen: SocketAddr,
        peers: BTreeMap<NodeId, String>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            id,
            data_dir: data_dir.into(),
            listen,
            peers,
            election_timeout: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(50),
            request_timeout: Duration::from_secs(5),
            shutdown_grace: Duration::from_secs(2),
            command_bytes_max: 1 << 20,
            segment_bytes: 16 << 20,
        }
    }
}

/// A setting that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config: {field} = {value}: {rule}")]
pub struct ConfigError {
    /// The field of [`NodeConfig`].
    pub field: &'static str,
    /// What it was set to.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}
