//! One request's way over the nodes: try, understand the answer, go on or give up.
//!
//! What may be sent again, and when:
//!
//! | what happened                        | certain?             | then                         |
//! |--------------------------------------|----------------------|------------------------------|
//! | no connection to the node            | it has not seen it   | next node                    |
//! | connection broke, or no answer       | it may have acted    | next node, under the same key|
//! | 503 or 504 with `retry: safe`        | it has not acted     | next node                    |
//! | 503 or 504, `retry: same_key_only`   | it may have acted    | next node, under the same key|
//! | any other answer                     | that is the answer   | it is handed on              |
//!
//! What operators do has no key, and is not sent again once it may have been acted on.
//!
//! When all nodes of a round have refused, there is a short pause: an election is likely under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode, Version, response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::client::{NodeClient, describe};
use super::nodes::{Node, Nodes};
use super::problem::{Kind, Outcome, Problem, Retry};
use super::reply::ReplyBody;
use super::request::{ClientRequest, IDEMPOTENCY_KEY, REQUEST_TIMEOUT, remove_hop_by_hop};

/// Rounds over the nodes when none of them can be hoped to answer soon. Nodes that are in the
/// middle of an election, say, are asked on until the deadline.
const HOPELESS_ROUNDS_MAX: u32 = 2;

/// The refusals that more tries do not help: of a cluster that has too much to do, and of a leader whose
/// disk is full and whose office nobody could take.
const LASTING: [&str; 2] = ["overloaded", "disk_full"];

/// The pause after a round, doubled each time up to the second value. An election with the default
/// timeouts takes a few hundred milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// No try is begun with less time than this.
const TRY_MIN: Duration = Duration::from_millis(10);

/// A refusal longer than this is not one of ours.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Retries since the start, by what made them necessary.
#[derive(Debug, Default)]
pub(super) struct Retries {
    pub(super) unreachable: AtomicU64,
    pub(super) broken: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Sends requests to the nodes until one answers.
#[derive(Debug)]
pub(super) struct Forwarder {
    nodes: Nodes,
    client: NodeClient,
    try_timeout: Duration,
    retries: Retries,
}

/// How one try ended.
enum Tried {
    /// With an answer to hand on.
    Answered(Response<ReplyBody>),
    /// With a refusal that another node may not repeat.
    Refused(Refused),
    /// Without a connection: the node has not seen the request.
    Unreachable(String),
    /// After the request was sent, without an answer.
    Broken(String),
}

/// A node's refusal, kept in case no node does better.
struct Refused {
    response: Response<ReplyBody>,
    outcome: Outcome,
    /// The reason may be gone in a moment.
    passing: bool,
}

/// The words of a node's problem document that decide what comes next.
#[derive(Deserialize)]
struct Verdict {
    code: String,
    outcome: Outcome,
    retry: Retry,
}

impl Forwarder {
    pub(super) fn new(nodes: Nodes, client: NodeClient, try_timeout: Duration) -> Self {
        Self { nodes, client, try_timeout, retries: Retries::default() }
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(super) fn client(&self) -> &NodeClient {
        &self.client
    }

    pub(super) fn retries(&self) -> &Retries {
        &self.retries
    }

    /// Gets an answer from some node, or says why there is none.
    pub(super) async fn forward(&self, request: &ClientRequest) -> Response<ReplyBody> {
        let mut response = self.try_until_answered(request).await;
        if let Some(key) = &request.given_key {
            // A client that must find out about an unknown outcome can ask again with this key.
            response.headers_mut().insert(IDEMPOTENCY_KEY, key.clone());
        }
        response
    }

    async fn try_until_answered(&self, request: &ClientRequest) -> Response<ReplyBody> {
        let no_key_helps = request.is_write() && !request.may_be_sent_twice();
        let mut history = History { no_key_helps, ..History::default() };
        let mut round = self.nodes.round();
        loop {
            let Some(node) = round.pop_front() else {
                if !history.another_round_may_help() {
                    return history.last_word();
                }
                sleep(history.pause().min(request.time_left())).await;
                round = self.nodes.round();
                continue;
            };
            let left = request.time_left();
            if left < TRY_MIN {
                history.deadline_passed = true;
                return history.last_word();
            }
            history.tries += 1;
            // What cannot be tried again gets all the time that there is.
            let limit = if no_key_helps { left } else { left.min(self.try_timeout) };
            let tried = self.try_node(&node, request, limit).await;
            if let Some(answer) = self.learn(tried, &mut history, request) {
                return answer;
            }
            if history.may_be_applied && !request.may_be_sent_twice() {
                return history.last_word();
            }
        }
    }

    /// Takes in how a try ended; returns the answer when there is one to hand on.
    fn learn(
        &self,
        tried: Tried,
        history: &mut History,
        request: &ClientRequest,
    ) -> Option<Response<ReplyBody>> {
        let reason = match tried {
            // An earlier try may have been applied, and this answer does not say.
            Tried::Answered(answer)
                if history.may_be_applied && !speaks_for_all_tries(answer.status()) =>
            {
                return Some(std::mem::take(history).last_word());
            }
            Tried::Answered(answer) => return Some(answer),
            Tried::Refused(refused) => {
                history.may_be_applied |=
                    request.is_write() && refused.outcome != Outcome::NotApplied;
                history.hope_this_round |= refused.passing;
                history.last_refusal = Some(refused);
                &self.retries.refused
            }
            Tried::Unreachable(error) => {
                history.last_error = Some(error);
                &self.retries.unreachable
            }
            Tried::Broken(error) => {
                history.may_be_applied |= request.is_write();
                history.last_error = Some(error);
                &self.retries.broken
            }
        };
        reason.fetch_add(1, Ordering::Relaxed);
        None
    }

    async fn try_node(&self, node: &Arc<Node>, request: &ClientRequest, limit: Duration) -> Tried {
        let attempt = node.start_try();
        let tried = tokio::select! {
            biased;
            tried = timeout(limit, self.send(node, request, limit)) => tried,
            // A process that hangs still accepts connections: only its silence gives it away, and
            // a probe notices that sooner than this request would.
            () = node.falls_silent() => Ok(Tried::Broken("the node fell silent".to_owned())),
        };
        match tried {
            Ok(Tried::Answered(answer)) => Tried::Answered(answer.map(|body| body.of(attempt))),
            Ok(Tried::Refused(refused)) => Tried::Refused(refused),
            Ok(Tried::Unreachable(error)) => {
                attempt.failed(&error);
                Tried::Unreachable(error)
            }
            Ok(Tried::Broken(error)) => {
                attempt.failed(&error);
                Tried::Broken(error)
            }
            Err(_) => {
                let error = format!("no answer within {limit:?}");
                // A client in a hurry says nothing about the node.
                if limit >= self.try_timeout {
                    attempt.failed(&error);
                }
                Tried::Broken(error)
            }
        }
    }

    async fn send(&self, node: &Node, request: &ClientRequest, limit: Duration) -> Tried {
        let message = message(request, limit);
        let sent = self.client.send(node.address(), request.target.clone(), message).await;
        let tried = match sent {
            Ok(answer) => understand(answer, request).await,
            Err(error) if error.is_connect() => Tried::Unreachable(describe(&error)),
            Err(error) => Tried::Broken(describe(&error)),
        };
        if let Tried::Unreachable(error) | Tried::Broken(error) = &tried {
            debug!(node = %node.address(), method = %request.method, error, "a try failed");
        }
        tried
    }
}

/// What was learned about one request so far.
#[derive(Default)]
struct History {
    rounds: u32,
    tries: u32,
    /// A node has refused in this round for a reason that may be gone in a moment.
    hope_this_round: bool,
    /// A node may have acted on this write.
    may_be_applied: bool,
    deadline_passed: bool,
    /// Nodes would do it again, whatever key it has.
    no_key_helps: bool,
    last_refusal: Option<Refused>,
    last_error: Option<String>,
}

impl History {
    /// Ends a round.
    fn another_round_may_help(&mut self) -> bool {
        self.rounds += 1;
        std::mem::take(&mut self.hope_this_round) || self.rounds < HOPELESS_ROUNDS_MAX
    }

    fn pause(&self) -> Duration {
        let doublings = self.rounds.saturating_sub(1).min(8);
        (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX)
    }

    /// The reply when no node has given an answer.
    fn last_word(self) -> Response<ReplyBody> {
        match self.last_refusal {
            // A node's own words are better than ours, unless they claim more than is certain.
            Some(refused) if refused.outcome == Outcome::Unknown || !self.may_be_applied => {
                return refused.response;
            }
            _ => {}
        }
        let error = self.last_error.as_deref().unwrap_or("no node gave an answer");
        let detail = format!("after {} tries: {error}", self.tries);
        let kind = match self.deadline_passed {
            true => Kind::DeadlinePassed,
            false => Kind::NoNodeReachable,
        };
        let outcome = match self.may_be_applied {
            true => Outcome::Unknown,
            false => Outcome::NotApplied,
        };
        let problem = Problem::new(kind, detail).with_outcome(outcome);
        let problem = if self.no_key_helps { problem.without_key() } else { problem };
        problem.response().map(ReplyBody::from)
    }
}

/// Whether an answer holds for the earlier tries of the same write too. What a node decides by the
/// request and the replicated state it decides for the key, however often it was sent; that it
/// is busy or broken, or did not get the body in time, it says for this try only.
fn speaks_for_all_tries(status: StatusCode) -> bool {
    let of_this_try = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
    !status.is_server_error() && !of_this_try.contains(&status)
}

/// The request as one node gets it.
fn message(request: &ClientRequest, limit: Duration) -> Request<Full<Bytes>> {
    let mut message = Request::new(Full::new(request.body.clone()));
    *message.method_mut() = request.method.clone();
    *message.headers_mut() = request.headers.clone();
    if request.announces_timeout {
        // A little less than what we wait, so that the node's own words about it arrive in time.
        let margin = (limit / 10).min(Duration::from_millis(100));
        let value = format!("{}ms", (limit - margin).as_millis().max(1));
        let value = HeaderValue::from_str(&value).expect("digits and a unit");
        message.headers_mut().insert(REQUEST_TIMEOUT, value);
    }
    message
}

/// Tells an answer to hand on from a refusal that another node may not repeat.
async fn understand(answer: Response<Incoming>, request: &ClientRequest) -> Tried {
    let (mut head, body) = answer.into_parts();
    if head.status.is_informational() {
        return Tried::Broken(format!("the node answered with status {}", head.status));
    }
    remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    if !may_be_a_refusal(&head) {
        return Tried::Answered(Response::from_parts(head, ReplyBody::from(body)));
    }
    let body = match Limited::new(body, REFUSAL_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Tried::Broken(format!("an answer broke off: {error}")),
    };
    let verdict = serde_json::from_slice::<Verdict>(&body).ok();
    let response = Response::from_parts(head, ReplyBody::from(body));
    let repairable = |retry| match retry {
        Retry::Safe => true,
        Retry::SameKeyOnly => request.may_be_sent_twice(),
        Retry::Never => false,
    };
    match verdict {
        Some(Verdict { code, outcome, retry }) if repairable(retry) => {
            let passing = !LASTING.contains(&code.as_str());
            Tried::Refused(Refused { response, outcome, passing })
        }
        _ => Tried::Answered(response),
    }
}

fn may_be_a_refusal(head: &response::Parts) -> bool {
    let status = head.status;
    let problem = head.headers.get(CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().to_ascii_lowercase().starts_with(b"application/problem+json")
    });
    problem && (status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::GATEWAY_TIMEOUT)
}
