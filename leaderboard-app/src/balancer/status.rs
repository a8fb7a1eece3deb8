//! What the balancer says about itself and about the nodes, below `/lb/`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::client::{NodeClient, describe};
use super::config::{BalancerConfig, NodeAddress};
use super::forward::Forwarder;
use super::problem::{Kind, Problem};

/// Everything below this path is answered by the balancer; everything else goes to a node.
pub(super) const PREFIX: &str = "/lb/";

/// Bytes of a node's description of itself.
const DESCRIPTION_BYTES_MAX: usize = 256 << 10;

/// An overview this young is shared: any number of open pages costs each node only so many
/// requests.
const OVERVIEW_AGE_MAX: Duration = Duration::from_millis(200);

/// The balancer's counters, beside those of its nodes.
#[derive(Debug)]
pub(super) struct Counters {
    started: Instant,
    pub(super) connections: AtomicUsize,
    pub(super) in_flight: AtomicUsize,
    pub(super) requests: AtomicU64,
}

/// One of what a gauge counts, for as long as it lives: also when a client leaves and the work for
/// it is dropped half done.
#[derive(Debug)]
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(super) fn new(gauge: &'a AtomicUsize) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers below [`PREFIX`].
#[derive(Debug)]
pub(super) struct Status {
    counters: Counters,
    probe_timeout: Duration,
    overview: Mutex<Option<(Instant, Bytes)>>,
}

/// `GET /lb/status`.
#[derive(Serialize)]
struct StatusDocument {
    nodes: Vec<NodeStatus>,
    #[serde(flatten)]
    balancer: BalancerStatus,
}

/// `GET /lb/cluster`.
#[derive(Serialize)]
struct Overview {
    nodes: Vec<NodeOverview>,
    balancer: BalancerStatus,
}

#[derive(Serialize)]
struct BalancerStatus {
    uptime_ms: u64,
    connections: usize,
    in_flight: usize,
    requests: u64,
    retries: RetryCounts,
}

#[derive(Serialize)]
struct RetryCounts {
    unreachable: u64,
    broken: u64,
    refused: u64,
}

#[derive(Serialize)]
struct NodeStatus {
    address: String,
    healthy: bool,
    /// How long it has been so.
    since_ms: u64,
    in_flight: usize,
    tries: u64,
    failures: u64,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct NodeOverview {
    address: String,
    /// Whether it described itself just now.
    reachable: bool,
    /// Whether requests are sent to it first.
    healthy: bool,
    /// How long it has been healthy or not.
    since_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Status {
    pub(super) fn new(config: &BalancerConfig) -> Self {
        let counters = Counters {
            started: Instant::now(),
            connections: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
        };
        Self { counters, probe_timeout: config.probe_timeout, overview: Mutex::new(None) }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The answer to a request below [`PREFIX`].
    pub(super) async fn answer(
        &self,
        method: &Method,
        path: &str,
        forwarder: &Forwarder,
    ) -> Response<Bytes> {
        let known = matches!(path, "/lb/status" | "/lb/cluster");
        if known && method != Method::GET && method != Method::HEAD {
            let kind = Kind::MethodNotAllowed { allow: "GET, HEAD" };
            return Problem::new(kind, format!("{path} can only be read")).response();
        }
        match path {
            "/lb/status" => json(self.status(forwarder)),
            "/lb/cluster" => json(self.overview(forwarder).await),
            _ => {
                let detail = "below /lb/ there are /lb/status and /lb/cluster";
                Problem::new(Kind::UnknownPath, detail).response()
            }
        }
    }

    fn status(&self, forwarder: &Forwarder) -> Bytes {
        let nodes = forwarder.nodes().iter().map(|node| {
            let now = node.snapshot();
            NodeStatus {
                address: node.address().to_string(),
                healthy: now.healthy,
                since_ms: milliseconds(now.since),
                in_flight: now.in_flight,
                tries: now.tries,
                failures: now.failures,
                last_error: now.last_error,
            }
        });
        let document = StatusDocument { nodes: nodes.collect(), balancer: self.own(forwarder) };
        encode(&document)
    }

    /// What every node says about itself. Who comes while an overview is being made waits for it
    /// and shares it.
    async fn overview(&self, forwarder: &Forwarder) -> Bytes {
        let mut last = self.overview.lock().await;
        if let Some((made, overview)) = &*last
            && made.elapsed() < OVERVIEW_AGE_MAX
        {
            return overview.clone();
        }
        let mut asked = JoinSet::new();
        for (index, node) in forwarder.nodes().iter().enumerate() {
            let (address, client) = (node.address().clone(), forwarder.client().clone());
            let limit = self.probe_timeout;
            asked.spawn(async move { (index, describe_itself(&address, &client, limit).await) });
        }
        let mut said: Vec<_> = asked.join_all().await;
        said.sort_by_key(|(index, _)| *index);
        let nodes = forwarder.nodes().iter().zip(said).map(|(node, (_, said))| {
            let now = node.snapshot();
            NodeOverview {
                address: node.address().to_string(),
                reachable: said.is_ok(),
                healthy: now.healthy,
                since_ms: milliseconds(now.since),
                error: said.as_ref().err().cloned(),
                cluster: said.ok(),
            }
        });
        let overview = Overview { nodes: nodes.collect(), balancer: self.own(forwarder) };
        let overview = encode(&overview);
        *last = Some((Instant::now(), overview.clone()));
        overview
    }

    fn own(&self, forwarder: &Forwarder) -> BalancerStatus {
        let retries = forwarder.retries();
        BalancerStatus {
            uptime_ms: milliseconds(self.counters.started.elapsed()),
            connections: self.counters.connections.load(Ordering::Relaxed),
            in_flight: self.counters.in_flight.load(Ordering::Relaxed),
            requests: self.counters.requests.load(Ordering::Relaxed),
            retries: RetryCounts {
                unreachable: retries.unreachable.load(Ordering::Relaxed),
                broken: retries.broken.load(Ordering::Relaxed),
                refused: retries.refused.load(Ordering::Relaxed),
            },
        }
    }
}

/// A node's own `GET /v1/cluster`.
async fn describe_itself(
    node: &NodeAddress,
    client: &NodeClient,
    limit: Duration,
) -> Result<Value, String> {
    let asking = async {
        let answer = client.get(node, "/v1/cluster").await.map_err(|error| describe(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("/v1/cluster was answered with {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), DESCRIPTION_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("/v1/cluster broke off: {error}"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("/v1/cluster is not JSON: {error}"))
    };
    let answered = timeout(limit, asking).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

fn json(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn encode(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).expect("only plain fields and string keys").into()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
