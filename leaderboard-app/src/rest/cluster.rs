//! `GET /v1/cluster`, `/livez` and `/readyz`: how this node is, and how it sees the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use raft_grpc::{Consistency, LogIndex, LogStatus, NodeId, NodeStatus, RoleKind, Space};
use serde::Serialize;

use super::params::Params;
use super::problem::{Code, Problem};
use super::request::Deadline;
use super::{Api, json};
use crate::node::note;

/// How long `/readyz` waits for a leader to confirm a read, unless the request says less.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Serialize)]
struct Cluster {
    cluster: String,
    node: u64,
    role: String,
    leader: Option<u64>,
    term: u64,
    members: Vec<Member>,
    last_index: u64,
    commit_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    /// Of the state right after `applied_index`.
    digest: String,
    incarnation: String,
    links: Vec<Link>,
    log: Log,
}

/// The log on this node's disk, since its start.
#[derive(Serialize)]
struct Log {
    /// `ample`, or `low`: entries wait for room.
    space: &'static str,
    /// Lost entries that it may have acknowledged, and waits for the others to fill it up again.
    limping: bool,
    backlog_bytes: u64,
    syncs: u64,
    longest_sync_ms: u64,
    scrubbed_bytes: u64,
    damages: u64,
    repairs: u64,
}

impl Log {
    fn of(status: &LogStatus) -> Self {
        let LogStatus { space, limping_until, stats, backlog_bytes } = status;
        Self {
            space: match space {
                Space::Ample => "ample",
                Space::Low => "low",
            },
            limping: limping_until.is_some(),
            backlog_bytes: *backlog_bytes,
            syncs: stats.batches,
            longest_sync_ms: u64::try_from(stats.longest_sync.as_millis()).unwrap_or(u64::MAX),
            scrubbed_bytes: stats.scrubbed_bytes,
            damages: stats.damages,
            repairs: stats.repairs,
        }
    }
}

#[derive(Serialize)]
struct Member {
    id: u64,
    raft: Option<String>,
    http: Option<String>,
    kind: &'static str,
    /// Known to the leader, and to each node for itself.
    match_index: Option<u64>,
    /// Known to the leader.
    lag_entries: Option<u64>,
    healthy: bool,
}

#[derive(Serialize)]
struct Link {
    id: u64,
    address: String,
    connected: bool,
    dropped: u64,
}

/// This node's view of the cluster. Answered at once from what is known here, with or without a leader.
pub(crate) async fn cluster(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    Params::of_query(request.uri().query(), &[])?;
    let (applied, digest) = {
        let state = api.raft.read_stale();
        (state.applied().index, state.digest())
    };
    let status = api.raft.status();
    let raft = &status.raft;
    // The published status may be a moment older than the state machine.
    let commit = raft.commit.max(applied);
    let addresses = api.raft.addresses();
    let members = raft.membership.nodes().map(|id| member(&api, &status, &addresses, id)).collect();
    let links = status.peers.iter().map(|link| Link {
        id: link.id.get(),
        address: link.address.clone(),
        connected: link.connected,
        dropped: link.dropped,
    });
    Ok(json(&Cluster {
        node: raft.id.get(),
        role: raft.role.to_string(),
        leader: raft.leader.map(NodeId::get),
        term: raft.term.0,
        members,
        last_index: raft.last.index.max(commit).0,
        commit_index: commit.0,
        applied_index: applied.0,
        snapshot_index: raft.snapshot.map_or(0, |snapshot| snapshot.position.index.0),
        digest: digest.to_string(),
        incarnation: format!("{:032x}", status.incarnation),
        links: links.collect(),
        log: Log::of(&status.log),
        cluster: status.cluster,
    }))
}

fn member(
    api: &Api,
    status: &NodeStatus,
    addresses: &BTreeMap<NodeId, (String, String)>,
    id: NodeId,
) -> Member {
    let (raft_address, http) = match addresses.get(&id) {
        Some((address, told)) => (Some(address.clone()), note::http(told).map(str::to_owned)),
        None => (None, None),
    };
    let raft = &status.raft;
    let is_self = id == raft.id;
    let as_leader = raft.peers.iter().find(|peer| peer.id == id);
    let link = status.peers.iter().find(|link| link.id == id);
    let match_index = if is_self { Some(raft.durable) } else { as_leader.map(|p| p.match_index) };
    let lag = |durable: LogIndex| raft.last.index.0.saturating_sub(durable.0);
    let leads = raft.role == RoleKind::Leader;
    Member {
        id: id.get(),
        raft: raft_address,
        // Its own word is newer than what this node was told at its start.
        http: http.or_else(|| api.http_peers.get(&id).cloned()),
        kind: if raft.membership.is_voter(id) { "voter" } else { "learner" },
        match_index: match_index.map(|index| index.0),
        lag_entries: match_index.filter(|_| leads).map(lag),
        // Whom this node can reach, and if it leads, who has answered lately too.
        healthy: is_self
            || link.is_some_and(|link| link.connected)
                && as_leader.is_none_or(|peer| peer.recently_active),
    }
}

#[derive(Serialize)]
struct Alive {
    status: &'static str,
    node: u64,
}

/// The process runs and answers. Says nothing about the cluster.
pub(crate) async fn livez(State(api): State<Arc<Api>>) -> Response {
    json(&Alive { status: "alive", node: api.node.get() })
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    node: u64,
    level: &'static str,
}

/// Can this node serve now: linearizable reads and so writes too, or with `level=stale` reads of its own
/// state?
pub(crate) async fn readyz(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = Deadline::of(request.headers(), READY_TIMEOUT)?;
    let mut params = Params::of_query(request.uri().query(), &["level"])?;
    let level = match params.text("level")?.as_deref() {
        None | Some("linearizable") => "linearizable",
        Some("stale") => "stale",
        Some(_) => {
            let detail = "`level` must be `linearizable` or `stale`.";
            return Err(Problem::refused(Code::OutOfRange, detail));
        }
    };
    if api.is_stopping() {
        let detail = "This node is stopping; use another one.";
        return Err(Problem::try_again(Code::ShuttingDown, detail));
    }
    if level == "linearizable" {
        let read = api.raft.read_within(Consistency::Linearizable, deadline.left()).await;
        drop(read.map_err(Problem::of_read)?);
    }
    Ok(json(&Ready { status: "ready", node: api.node.get(), level }))
}
