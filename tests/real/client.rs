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
        Ok(self.vote_within(to, vote, "30s").await?.0)
    }

    /// As [`Client::vote`], within this time; and the player's score after it, if it is acknowledged.
    pub(crate) async fn vote_within(
        &self,
        to: SocketAddr,
        vote: &Vote,
        time: &str,
    ) -> Result<(Outcome, Option<i64>)> {
        let body = serde_json::json!({ "player": vote.player, "score": vote.score }).to_string();
        let mut request = Request::post(format!("http://{to}/add_vote"))
            .header("Content-Type", "application/json")
            .header("Request-Timeout", time);
        if let Some(key) = &vote.key {
            request = request.header("Idempotency-Key", key);
        }
        let Ok((status, body)) = self.send(request.body(Full::from(body))?).await else {
            return Ok((Outcome::Unknown, None));
        };
        if status == StatusCode::OK {
            return Ok((Outcome::Acknowledged, body["score"].as_i64()));
        }
        match body["outcome"].as_str() {
            Some("not_applied") => Ok((Outcome::NotApplied, None)),
            Some("unknown") => Ok((Outcome::Unknown, None)),
            _ => Err(format!("{status} to {vote:?}: {body}").into()),
        }
    }

    /// The score of a player, `None` if there is no such player, as fresh as it is by default.
    #[allow(dead_code, reason = "not every test reads scores")]
    pub(crate) async fn score(
        &self,
        from: SocketAddr,
        player: &str,
        time: &str,
    ) -> Result<Option<i64>> {
        let request = Request::get(format!("http://{from}/player_rankings?player={player}"))
            .header("Request-Timeout", time);
        match self.send(request.body(Full::default())?).await? {
            (StatusCode::OK, body) => Ok(Some(body["score"].as_i64().ok_or("no score")?)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, body) => Err(format!("{status} to a read of {player}: {body}").into()),
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
