//! What a node tells about itself.

use std::time::Duration;

use raft_core::{Event, Instant as Moment, LogPosition, Node, NodeId, Status};
use raft_wal::{Space, Wal, WalStats};
use tokio::sync::watch;

use crate::events::{Chronicle, Readers, chronicle};
use crate::handshake::Identity;
use crate::meters::Standing;
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
    /// Its log on disk.
    pub log: LogStatus,
    /// What waits inside of it.
    pub queues: QueueDepths,
}

/// How much waits in a node, and where. All of it is bounded: what does not fit is refused at the door, or not
/// read from the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueDepths {
    /// Proposals at the door, of at most 8192.
    pub proposals: usize,
    /// Proposals in this node's log that are not applied yet, of at most 65,536.
    pub proposals_in_log: usize,
    /// Reads at the door, of at most 8192.
    pub reads: usize,
    /// Reads that wait for a confirmation or for something to be applied, of at most 100,000.
    pub reads_waiting: usize,
    /// Frames of messages from other nodes, of at most 8.
    pub frames: usize,
    /// Receipts of the log's thread, of at most 1024.
    pub receipts: usize,
}

/// How the log on disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// Is there room? While there is none, a leader refuses proposals and a follower takes no
    /// entries.
    pub space: Space,
    /// The last entry that this node may have acknowledged and then lost from its disk. Until its log
    /// reaches there again it is *limping*: it neither campaigns nor votes for a log that is shorter.
    pub limping_until: Option<LogPosition>,
    /// Bytes that were handed to it and are not durable yet.
    pub backlog_bytes: u64,
    /// What was written, and what reading again has found.
    pub stats: WalStats,
}

impl LogStatus {
    fn of(wal: &Wal, lost: LogPosition, status: &Status) -> Self {
        let limping_until = (status.last < lost).then_some(lost);
        let backlog_bytes = wal.backlog_bytes();
        Self { space: wal.space(), limping_until, backlog_bytes, stats: wal.stats() }
    }
}

/// One outgoing link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// The member at its end.
    pub id: NodeId,
    /// Its address, `host:port`; empty if it is not known.
    pub address: String,
    /// What it wants others to know ([`NodeConfig::note`](crate::NodeConfig)).
    pub note: String,
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

/// The receiving side of all that is published.
pub(crate) struct Published {
    pub(crate) status: watch::Receiver<NodeStatus>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) events: Readers,
}

/// The sending side of all that is published.
#[derive(Debug)]
pub(crate) struct Publisher {
    id: NodeId,
    /// What was lost from the disk before this start.
    lost: LogPosition,
    status: watch::Sender<NodeStatus>,
    leadership: watch::Sender<Leadership>,
    chronicle: Chronicle,
    standing: Standing,
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
        wal: &Wal,
        lost: LogPosition,
    ) -> (Self, Published) {
        let raft = node.status();
        let log = LogStatus::of(wal, lost, &raft);
        let (status, watch_status) = watch::channel(NodeStatus {
            raft,
            cluster: identity.cluster.clone(),
            peers: links.statuses(),
            incarnation: identity.incarnation,
            log,
            queues: QueueDepths::default(),
        });
        let (chronicle, events) = chronicle();
        let (leadership, watch_leadership) = watch::channel(Leadership::default());
        let publisher = Self {
            id: identity.id,
            lost,
            status,
            leadership,
            chronicle,
            standing: Standing::new(),
            is_urgent: false,
            last: Moment::default(),
            due: None,
        };
        let published = Published { status: watch_status, leadership: watch_leadership, events };
        (publisher, published)
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
        self.chronicle.note(event);
        match event {
            Event::Role { leader, term, .. } => {
                let leader = *leader;
                if let Some(leader) = leader {
                    self.standing.leader(*term, leader);
                }
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
    pub(crate) fn publish(
        &mut self,
        now: Moment,
        node: &Node,
        links: &Links,
        wal: &Wal,
        queues: QueueDepths,
    ) {
        let next = self.last.after(PUBLISH_INTERVAL);
        if !self.is_urgent && now < next {
            self.due = Some(next);
            return;
        }
        self.is_urgent = false;
        self.last = now;
        self.due = None;
        let (raft, peers) = (node.status(), links.statuses());
        let log = LogStatus::of(wal, self.lost, &raft);
        self.standing.tell(&raft);
        self.status.send_if_modified(|status| {
            let is_new = (&status.raft, &status.peers) != (&raft, &peers)
                || (status.log, status.queues) != (log, queues);
            status.raft = raft;
            status.peers = peers;
            status.log = log;
            status.queues = queues;
            is_new
        });
    }
}
