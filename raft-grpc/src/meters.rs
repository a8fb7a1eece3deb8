//! What a node tells to whoever collects metrics. Without a recorder all of this costs next to nothing.
//! Nodes in one process share the metrics of the process.

use std::sync::Once;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use raft_core::{NodeId, RoleKind, Status, Term};

use crate::error::ProposeError;

/// Where a node stands.
pub(crate) struct Standing {
    term: Gauge,
    is_leader: Gauge,
    leader_changes: Counter,
    commit_index: Gauge,
    applied_index: Gauge,
    /// The newest leader that this node knew of.
    leader: Option<(Term, NodeId)>,
    /// Whom a lag was told of.
    lagging: Vec<NodeId>,
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standing").field("leader", &self.leader).finish_non_exhaustive()
    }
}

impl Standing {
    pub(crate) fn new() -> Self {
        describe();
        let leader_changes = metrics::counter!("raft_leader_changes_total");
        // So that it is there before anything has happened.
        leader_changes.increment(0);
        Self {
            term: metrics::gauge!("raft_term"),
            is_leader: metrics::gauge!("raft_is_leader"),
            leader_changes,
            commit_index: metrics::gauge!("raft_commit_index"),
            applied_index: metrics::gauge!("raft_applied_index"),
            leader: None,
            lagging: Vec::new(),
        }
    }

    /// This node knows who leads its term.
    pub(crate) fn leader(&mut self, term: Term, leader: NodeId) {
        let newest = Some((term, leader));
        let known = std::mem::replace(&mut self.leader, newest);
        self.leader_changes.increment(u64::from(known != newest));
    }

    /// The numbers now.
    pub(crate) fn tell(&mut self, status: &Status) {
        // Exact up to 2^53.
        self.term.set(status.term.0 as f64);
        self.is_leader.set(f64::from(u8::from(status.role == RoleKind::Leader)));
        self.commit_index.set(status.commit.0 as f64);
        self.applied_index.set(status.applied.0 as f64);
        for peer in &status.peers {
            let lag = status.last.index.0.saturating_sub(peer.match_index.0);
            lag_of(peer.id).set(lag as f64);
        }
        // Only a leader knows: what it knew once is not to look like news.
        let gone = |id: &&NodeId| !status.peers.iter().any(|peer| peer.id == **id);
        self.lagging.iter().filter(gone).for_each(|id| lag_of(*id).set(f64::NAN));
        self.lagging.clear();
        self.lagging.extend(status.peers.iter().map(|peer| peer.id));
    }
}

fn lag_of(peer: NodeId) -> Gauge {
    metrics::gauge!("raft_follower_lag_entries", "peer" => peer.get().to_string())
}

/// How long callers waited.
pub(crate) struct Doors {
    proposal: Histogram,
    read_index: Histogram,
    not_applied: Counter,
    unknown: Counter,
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").finish_non_exhaustive()
    }
}

impl Doors {
    pub(crate) fn new() -> Self {
        describe();
        let failed = |outcome: &'static str| {
            let counter = metrics::counter!("raft_proposals_failed_total", "outcome" => outcome);
            counter.increment(0);
            counter
        };
        Self {
            proposal: metrics::histogram!("raft_proposal_seconds"),
            read_index: metrics::histogram!("raft_read_index_seconds"),
            not_applied: failed("not_applied"),
            unknown: failed("unknown"),
        }
    }

    /// A proposal of this process is answered.
    pub(crate) fn proposed<T>(&self, took: Duration, outcome: &Result<T, ProposeError>) {
        match outcome {
            Ok(_) => self.proposal.record(took),
            Err(ProposeError::NotApplied(_)) => self.not_applied.increment(1),
            Err(ProposeError::Unknown(_)) => self.unknown.increment(1),
        }
    }

    /// A linearizable read of this process may look at the state machine.
    pub(crate) fn read(&self, took: Duration) {
        self.read_index.record(took);
    }
}

/// How long entries took to be applied, those that were committed together.
pub(crate) fn apply_seconds() -> Histogram {
    describe();
    metrics::histogram!("apply_seconds")
}

/// How long it took to write a snapshot.
pub(crate) fn snapshot_seconds() -> Histogram {
    describe();
    metrics::histogram!("snapshot_seconds")
}

/// Messages that were dropped on their way to a member.
pub(crate) fn dropped_messages(peer: NodeId) -> Counter {
    metrics::counter!("raft_messages_dropped_total", "peer" => peer.get().to_string())
}

/// Strangers, and members that are not what they say.
pub(crate) fn refused_peers() -> Counter {
    metrics::counter!("raft_peers_refused_total")
}

/// Until when this node's certificate is valid, in seconds since 1970.
pub(crate) fn certificate_expires(timestamp: u64) {
    describe();
    // Exact up to 2^53.
    metrics::gauge!("raft_certificate_expires_timestamp_seconds").set(timestamp as f64);
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        describe_gauge!("raft_term", "The term of this node");
        describe_gauge!("raft_is_leader", "1 while this node leads");
        describe_counter!(
            "raft_leader_changes_total",
            "How often this node learned of a new leader"
        );
        describe_gauge!("raft_commit_index", "The last log index known to be committed");
        describe_gauge!("raft_applied_index", "The last log index in the state machine");
        describe_gauge!(
            "raft_follower_lag_entries",
            "Entries of this leader's log that a member is not known to have; NaN when no longer known"
        );
        describe_counter!(
            "raft_messages_dropped_total",
            "Messages to a member that were dropped: no connection, or its queue was full"
        );
        describe_counter!(
            "raft_peers_refused_total",
            "Connections that were refused: of strangers, or of a member that is not what it says"
        );
        refused_peers().increment(0);
        describe_gauge!(
            "raft_certificate_expires_timestamp_seconds",
            "When the certificate of this node expires, in seconds since 1970; only there with TLS"
        );
        describe_histogram!(
            "raft_proposal_seconds",
            Unit::Seconds,
            "From the call until the command was applied, forwarding included"
        );
        describe_counter!(
            "raft_proposals_failed_total",
            "Proposals without a result, by what is known of them"
        );
        describe_histogram!(
            "raft_read_index_seconds",
            Unit::Seconds,
            "How long linearizable reads waited until they could look"
        );
        describe_histogram!(
            "apply_seconds",
            Unit::Seconds,
            "How long entries that were committed together took to be applied"
        );
        describe_histogram!(
            "snapshot_seconds",
            Unit::Seconds,
            "How long a snapshot took to be written"
        );
    });
}
