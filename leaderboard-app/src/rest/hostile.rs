//! What a node reads in a request, without a node behind it: see `../hostile.rs`.

use std::cell::Cell;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;

use super::problem::{self, Problem};
use super::{json, operations, rankings, unknown_path, votes};
use crate::command::{AddVote, Command};
use crate::types::{Player, Score};

const TIMEOUT: Duration = Duration::from_millis(50);

thread_local! {
    static VOTES_READ: Cell<u64> = const { Cell::new(0) };
}

/// How many votes have come through, in this thread.
#[cfg(test)]
pub(crate) fn votes_read() -> u64 {
    VOTES_READ.get()
}

/// Reads what is asked as the handler of the path does.
pub(crate) async fn answer(request: http::Request<Incoming>) -> Response {
    let request = request.map(Body::new);
    let response = match request.uri().path() {
        "/add_vote" => vote(request).await,
        "/top_n_scores" => rankings::read_top(&request, TIMEOUT).map(|(rows, _)| {
            assert!((1..=1000).contains(&rows), "{rows} rows");
            json(&rows)
        }),
        "/player_rankings" => rankings::read_rankings(&request, TIMEOUT).map(|(asked, _)| {
            if let rankings::Asked::Page { rows, .. } = asked {
                assert!((1..=1000).contains(&rows), "{rows} rows");
            }
            json(&())
        }),
        "/v1/cluster/members" => {
            operations::read_addition(request, TIMEOUT).await.map(|(addition, _)| {
                // What others are told about the node says where it answers, or nothing.
                let tells = crate::node::note::http(&addition.note).is_some();
                assert!(tells || addition.note.is_empty(), "{}", addition.note);
                json(&addition.id.get())
            })
        }
        _ => Err(unknown_path().await),
    };
    problem::finish(response.unwrap_or_else(Problem::into_response), None)
}

/// Whatever is taken for a vote is within the limits, survives the log, and is the same vote when it is said
/// in the plainest way.
async fn vote(request: Request) -> Result<Response, Problem> {
    let (vote, _) = votes::read_vote(request, TIMEOUT).await?;
    VOTES_READ.set(VOTES_READ.get() + 1);
    assert!(Player::new(vote.player.as_str()).is_ok(), "{vote:?}");
    assert!(Score::new(vote.delta.get()).is_some(), "{vote:?}");
    let command = Command::AddVote(vote.clone());
    assert_eq!(Command::decode(&command.encode()), Ok(command));
    let again = votes::read_vote(plain(&vote), TIMEOUT).await;
    assert_eq!(again.ok().map(|(vote, _)| vote), Some(vote));
    Ok(json(&()))
}

fn plain(vote: &AddVote) -> Request {
    let body = serde_json::json!({ "player": vote.player.as_str(), "score": vote.delta.get() });
    let mut request = http::Request::builder()
        .method(http::Method::POST)
        .uri("/add_vote")
        .header("content-type", "application/json");
    if let Some(idempotency) = &vote.idempotency {
        request = request.header("idempotency-key", idempotency.key.as_str());
    }
    request.body(Body::from(body.to_string())).expect("a request of ours")
}
