//! A client of the leaderboard's HTTP API, for tests.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Result;

/// No answer may take longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Keeps connections open between requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    http: HyperClient<HttpConnector, Full<bytes::Bytes>>,
}

/// A score to be added.
#[derive(Clone, Debug)]
pub(crate) struct Vote {
    pub(crate) player: String,
    pub(crate) score: i64,
    /// Sent as `Idempotency-Key`.
    pub(crate) key: Option<String>,
}

/// What a client learned of a vote.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Counted, durable on a majority.
    Acknowledged,
    /// Certainly not counted.
    NotApplied,
    /// Counted or not, now or later.
    Unknown,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self { http: HyperClient::builder(TokioExecutor::new()).build_http() }
    }

    /// Adds a score at a node or balancer.
    pub(crate) async fn vote(&self, to: SocketAddr, vote: &Vote) -> Result<Outcome> {
        let body = serde_json::json!({ "player": vote.player, "score": vote.score }).to_string();
        let mut request = Request::post(format!("http://{to}/add_vote"))
            .header("Content-Type", "application/json")
            .header("Request-Timeout", "30s");
        if let Some(key) = &vote.key {
            request = request.header("Idempotency-Key", key);
        }
        let Ok((status, body)) = self.send(request.body(Full::from(body))?).await else {
            return Ok(Outcome::Unknown);
        };
        if status == StatusCode::OK {
            return Ok(Outcome::Acknowledged);
        }
        match body["outcome"].as_str() {
            Some("not_applied") => Ok(Outcome::NotApplied),
            Some("unknown") => Ok(Outcome::Unknown),
            _ => Err(format!("{status} to {vote:?}: {body}").into()),
        }
    }

    /// The JSON document at `path`, if it is answered with 200.
    pub(crate) async fn get(&self, from: SocketAddr, path: &str) -> Result<Value> {
        let request = Request::get(format!("http://{from}{path}")).body(Full::default())?;
        let (status, body) = self.send(request).await?;
        if status != StatusCode::OK {
            return Err(format!("{status} at {path}: {body}").into());
        }
        Ok(body)
    }

    async fn send(&self, request: Request<Full<bytes::Bytes>>) -> Result<(StatusCode, Value)> {
        let answer = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer).await?
    }
}
