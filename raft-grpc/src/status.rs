//! What a node tells about itself.

use raft_core::{NodeId, Status};

/// A node as it sees itself and its links, a copy of what it last published: at once when its role, its
/// term or its leader change, and at most ten milliseconds late otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// The protocol's view.
    pub raft: Status,
    /// The name of the cluster.
    pub cluster: String,
    /// This node's outgoing links to the other members, in order of their ids.
    pub peers: Vec<PeerLink>,
    /// The random number of this node's data directory: another one means another directory.
    pub incarnation: u128,
}

/// One outgoing link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// The member at its end.
    pub id: NodeId,
    /// Its address, `host:port`.
    pub address: String,
    /// Is there a connection on which the member has accepted this node?
    pub connected: bool,
    /// Messages that were dropped because there was no connection or the queue was full. Raft sends
    /// again what matters.
    pub dropped: u64,
}
