//! What a node tells about itself.

use std::time::Duration;

use raft_core::{Event, Instant as Moment, Node, NodeId, Status};
use tokio::sync::watch;

use crate::handshake::Identity;
use crate::peer::Links;

/// A node as it sees itself and its links, a copy of what it last published: at once when its role,
/// its term or its leader change, and at most ten milliseconds late otherwise.
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

/// How often the status is published when only its numbers change.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);

/// Who leads, as far as this node knows: where requests go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) leader: Option<NodeId>,
}

/// The sending side of all that is published.
#[derive(Debug)]
pub(crate) struct Publisher {
    id: NodeId,
    status: watch::Sender<NodeStatus>,
    leadership: watch::Sender<Leadership>,
    is_urgent: bool,
    last: Moment,
    due: Option<Moment>,
}

impl Publisher {
    /// Publishes a first status.
    pub(crate) fn new(
        identity: &Identity,
        node: &Node,
        links: &Links,
    ) -> (Self, watch::Receiver<NodeStatus>, watch::Receiver<Leadership>) {
        let (status, watch_status) = watch::channel(NodeStatus {
            raft: node.status(),
            cluster: identity.cluster.clone(),
            peers: links.statuses(),
            incarnation: identity.incarnation,
        });
        let (leadership, watch_leadership) = watch::channel(Leadership::default());
        let publisher = Self {
            id: identity.id,
            status,
            leadership,
            is_urgent: false,
            last: Moment::default(),
            due: None,
        };
        (publisher, watch_status, watch_leadership)
    }

    /// Who this is about.
    pub(crate) fn id(&self) -> NodeId {
        self.id
    }

    /// When [`publish`](Self::publish) wants to be called again, if nothing happens before.
    pub(crate) fn due(&self) -> Moment {
        self.due.unwrap_or(Moment::FAR_FUTURE)
    }

    /// Something has happened in the node.
    pub(crate) fn on_event(&mut self, event: &Event) {
        match event {
            Event::Role { leader, .. } => {
                let leader = *leader;
                self.leadership.send_if_modified(|leadership| {
                    std::mem::replace(leadership, Leadership { leader }) != *leadership
                });
                self.is_urgent = true;
            }
            Event::QuorumLost { .. }
            | Event::DiskHangs { .. }
            | Event::MembershipChanged { .. } => {
                self.is_urgent = true;
            }
            _ => {}
        }
    }

    /// Publishes the status if it is time. To be called at the end of every turn.
    pub(crate) fn publish(&mut self, now: Moment, node: &Node, links: &Links) {
        let next = self.last.after(PUBLISH_INTERVAL);
        if !self.is_urgent && now < next {
            self.due = Some(next);
            return;
        }
        self.is_urgent = false;
        self.last = now;
        self.due = None;
        let (raft, peers) = (node.status(), links.statuses());
        self.status.send_if_modified(|status| {
            let is_new = status.raft != raft || status.peers != peers;
            status.raft = raft;
            status.peers = peers;
            is_new
        });
    }
}
