//! Connections to the nodes: pooled, with a bound on connecting and on what waits idle.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::config::{BalancerConfig, NodeAddress};

/// Idle connections kept per node.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// An idle connection is closed before the node would close it: a request that meets a closing
/// connection looks like one that broke, and costs a retry.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends requests to nodes; a clone shares the connections.
#[derive(Clone, Debug)]
pub(super) struct NodeClient {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl NodeClient {
    pub(super) fn new(config: &BalancerConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.connect_timeout));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            // Concerns only requests of which no byte was sent, on a connection found closed.
            .retry_canceled_requests(true)
            .build(connector);
        Self { http }
    }

    /// Sends a request to a node; resolves when the head of the answer is there.
    pub(super) async fn send(
        &self,
        node: &NodeAddress,
        target: PathAndQuery,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(node.authority());
        parts.path_and_query = Some(target);
        *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are there");
        self.http.request(request).await
    }

    /// A plain `GET` of one of the balancer's own.
    pub(super) async fn get(
        &self,
        node: &NodeAddress,
        target: &'static str,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let request = Request::new(Full::default());
        self.send(node, PathAndQuery::from_static(target), request).await
    }
}

/// The error and its causes on one line; the cause is where "connection refused" stands.
pub(super) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
