//! Asks nodes and balancers over HTTP, one address after another.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::timeout;

use super::view::{ClusterView, Refusal};
use crate::balancer::NodeAddress;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How much longer than the other side this one waits: its words about the time should arrive.
const MARGIN: Duration = Duration::from_secs(1);

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Whom to ask, and how.
#[derive(Debug)]
pub(super) struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    pub(super) endpoints: Vec<NodeAddress>,
    pub(super) timeout: Duration,
    /// Nobody has said whom to ask.
    pub(super) guessing: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The request was not sent.
    NotSent(String),
    /// It was sent, and may have been acted on.
    Broken(String),
}

impl Unanswered {
    pub(super) fn why(self) -> String {
        match self {
            Self::NotSent(why) | Self::Broken(why) => why,
        }
    }
}

/// An answer, whatever it says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(endpoints: Vec<NodeAddress>, timeout: Duration, guessing: bool) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        // A connection for each request: one that was kept might be closed meanwhile.
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self { http, endpoints, timeout, guessing }
    }

    /// One request to one address.
    pub(super) async fn ask(
        &self,
        endpoint: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, Unanswered> {
        let not_sent = |error: http::Error| Unanswered::NotSent(error.to_string());
        let uri = Uri::builder().scheme("http").authority(endpoint).path_and_query(path).build();
        let mut request = Request::builder()
            .method(method)
            .uri(uri.map_err(not_sent)?)
            .header("request-timeout", format!("{}ms", limit.as_millis().max(1)));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| body.to_string().into()).unwrap_or_default();
        let request = request.body(Full::new(body)).map_err(not_sent)?;
        match timeout(limit + MARGIN, self.exchange(request)).await {
            Ok(end) => end,
            Err(_) => Err(Unanswered::Broken(format!("no answer within {limit:?}"))),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Unanswered> {
        let answer = self.http.request(request).await.map_err(|error| {
            let why = reason(&error);
            if error.is_connect() { Unanswered::NotSent(why) } else { Unanswered::Broken(why) }
        })?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Unanswered::Broken(error.to_string()))?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Answer { status: head.status, body })
    }

    /// What this address says about the cluster.
    pub(super) async fn describe(&self, endpoint: &str) -> Result<(ClusterView, Value), String> {
        let asked = self.ask(endpoint, Method::GET, "/v1/cluster", None, self.timeout).await;
        let Answer { status, body } = asked.map_err(Unanswered::why)?;
        if status != StatusCode::OK {
            let refusal = Refusal::of(status, &body);
            return Err(refusal.detail);
        }
        let view = serde_json::from_value(body.clone());
        view.map(|view| (view, body)).map_err(|_| "it is no node of a leaderboard".to_owned())
    }

    /// What the first that answers says about the cluster, or what is the matter with each.
    pub(super) async fn describe_any(&self) -> Result<(ClusterView, Value), Vec<String>> {
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            match self.describe(endpoint.as_str()).await {
                Ok(said) => return Ok(said),
                Err(why) => failures.push(format!("{endpoint}: {why}")),
            }
        }
        Err(failures)
    }

    /// What the leader says, if it can be asked, else what the first says that answers.
    pub(super) async fn describe_by_leader(&self) -> Result<(ClusterView, Value), Vec<String>> {
        let (view, said) = self.describe_any().await?;
        if view.leader == Some(view.node) {
            return Ok((view, said));
        }
        let leader = view.members.iter().find(|member| Some(member.id) == view.leader);
        let Some(http) = leader.and_then(|leader| leader.http.as_deref()) else {
            return Ok((view, said));
        };
        match self.describe(http).await {
            // The same address may be another cluster's from where this runs.
            Ok((its, said)) if its.cluster == view.cluster => Ok((its, said)),
            Ok(_) | Err(_) => Ok((view, said)),
        }
    }
}

/// What happened, without the layers that it went through.
fn reason(error: &legacy::Error) -> String {
    let mut innermost = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        innermost = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
            _ => error.to_string(),
        };
        source = error.source();
    }
    innermost
}
