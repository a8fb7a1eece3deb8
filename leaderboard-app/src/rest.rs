//! The HTTP interface of a node: what is asked, how it is answered, how it is refused.
//!
//! A request comes in through `server` (hyper), is routed here, read by `params` and `request`, and
//! handled by one function in `votes`, `rankings`, `cluster`, `operations`, `metrics` or `page`. A handler returns its response
//! or a [`Problem`]; every problem is rendered in one place, on the way out, where it is known who
//! leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};
use raft_grpc::{LogPosition, NodeId, RaftHandle};
use serde::Serialize;
use tower_service::Service as _;

use crate::leaderboard::Leaderboard;

mod cluster;
mod cursor;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
pub(crate) mod metrics;
mod operations;
mod page;
mod params;
mod problem;
mod rankings;
mod request;
pub(crate) mod server;
mod votes;

use problem::{Code, Problem};

const RAFT_INDEX: HeaderName = HeaderName::from_static("raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("raft-term");
const RAFT_NODE: HeaderName = HeaderName::from_static("raft-node");
const RAFT_LEADER: HeaderName = HeaderName::from_static("raft-leader");
const CONSISTENCY: HeaderName = HeaderName::from_static("consistency");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What handlers work with.
pub(crate) struct Api {
    pub(crate) raft: RaftHandle<Leaderboard>,
    pub(crate) node: NodeId,
    /// Where members answer HTTP that do not tell it themselves, as far as this node was told.
    pub(crate) http_peers: BTreeMap<NodeId, String>,
    /// How long a request may take that does not say.
    pub(crate) request_timeout: Duration,
    /// Set when the node begins to stop: it is not ready any more, so that balancers leave it alone.
    pub(crate) stopping: AtomicBool,
}

impl Api {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// The routes, and what every response has in common. Cheap to clone, one for each connection.
#[derive(Clone)]
pub(crate) struct Rest {
    api: Arc<Api>,
    router: Router,
}

impl Rest {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        let router = Router::new()
            .route("/add_vote", post(votes::add_vote))
            .route("/top_n_scores", get(rankings::top_n_scores))
            .route("/player_rankings", get(rankings::player_rankings))
            .route("/v1/cluster", get(cluster::cluster))
            .route("/v1/cluster/members", post(operations::add_member))
            .route(
                "/v1/cluster/members/{member}",
                post(operations::promote).delete(operations::remove_member),
            )
            .route("/v1/cluster/leader:transfer", post(operations::transfer))
            .route("/v1/snapshots", post(operations::snapshot))
            .route("/metrics", get(metrics::metrics))
            .route("/livez", get(cluster::livez))
            .route("/readyz", get(cluster::readyz));
        let router = page::routes(router)
            .fallback(unknown_path)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::clone(&api));
        Self { api, router }
    }

    /// Answers one request.
    pub(crate) async fn answer(&mut self, request: Request) -> Response {
        let asked = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned()));
        // A router is always ready, and cannot fail.
        let Ok(response) = self.router.call(request).await;
        let leader = self.api.raft.status().raft.leader;
        let mut response = problem::finish(response, leader);
        let headers = response.headers_mut();
        headers.insert(RAFT_NODE, self.api.node.get().into());
        if let Some(leader) = leader {
            headers.insert(RAFT_LEADER, leader.get().into());
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        if let Some((method, path)) = asked {
            tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        }
        response
    }
}

async fn unknown_path() -> Problem {
    Problem::refused(Code::UnknownPath, "There is nothing at this path.")
}

async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("This path does not know {}; see the header Allow.", request.method());
    Problem::refused(Code::MethodNotAllowed, detail)
}

/// A response with this value as JSON.
fn json(value: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(value).expect("structs of texts and numbers are JSON");
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Says which state the response reflects: that right after the entry at `position`.
fn reflects(response: &mut Response, position: LogPosition) {
    let headers = response.headers_mut();
    headers.insert(RAFT_INDEX, position.index.0.into());
    headers.insert(RAFT_TERM, position.term.0.into());
    headers.insert(CONSISTENCY, HeaderValue::from_static("linearizable"));
}

/// Says that the response was decided by an earlier request with the same key.
fn mark_replayed(response: &mut Response) {
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
}
