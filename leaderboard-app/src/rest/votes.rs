//! `POST /add_vote`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use raft_grpc::LogPosition;
use serde::Serialize;

use super::params::Params;
use super::problem::{Code, Problem};
use super::request::{self, Deadline, Media};
use super::{Api, json, mark_replayed, reflects};
use crate::command::{AddVote, Command};
use crate::idempotency::{Idempotency, IdempotencyKey};
use crate::reply::{Outcome, Reply};
use crate::types::{BoardId, Player, Score};

/// What a vote counts that does not say.
const DEFAULT_SCORE: i64 = 1;

#[derive(Serialize)]
struct Added<'a> {
    player: &'a str,
    score: i64,
    rank: u64,
    index: u64,
}

/// Adds to a player's score; answered when that is committed and applied.
pub(crate) async fn add_vote(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (vote, deadline) = read_vote(request, api.request_timeout).await?;
    let has_key = vote.idempotency.is_some();
    let player = vote.player.clone();
    let command = Command::AddVote(vote).encode();
    let applied = api.raft.propose_within(command, deadline.left()).await;
    let applied = applied.map_err(|error| Problem::of_write(&error, has_key))?;
    let reply = Reply::decode(&applied.response);
    let reply = reply.map_err(|error| Problem::unreadable_reply(error, has_key))?;
    answer(&player, reply)
}

/// What is asked for, and until when; `timeout` is for requests that do not say.
pub(super) async fn read_vote(
    request: Request,
    timeout: Duration,
) -> Result<(AddVote, Deadline), Problem> {
    let (head, body) = request.into_parts();
    let deadline = Deadline::of(&head.headers, timeout)?;
    let key = request::idempotency_key(&head.headers)?;
    let media = Media::of(&head.headers)?;
    let mut params = Params::new(&["player", "score"]);
    params.add_query(head.uri.query())?;
    let body = request::read_body(&head.headers, body, deadline).await?;
    match media {
        Media::Json => params.add_json(&body)?,
        Media::Form => params.add_form(&body)?,
        Media::Undeclared if body.is_empty() => {}
        Media::Undeclared => {
            return Err(Problem::refused(
                Code::UnsupportedMediaType,
                "The body has no Content-Type; send `Content-Type: application/json` with it.",
            ));
        }
    }
    Ok((vote_of(params, key)?, deadline))
}

fn vote_of(mut params: Params, key: Option<IdempotencyKey>) -> Result<AddVote, Problem> {
    let Some(player) = player_of(&mut params)? else {
        return Err(Problem::refused(Code::MissingParameter, "`player` is missing."));
    };
    let bounds = Score::MIN.get()..=Score::MAX.get();
    let delta = params.integer("score", bounds)?.unwrap_or(DEFAULT_SCORE);
    let delta = Score::new(delta).expect("it was checked against the bounds of a score");
    let mut vote = AddVote { board: BoardId::default(), player, delta, idempotency: None };
    let fingerprint = vote.fingerprint();
    vote.idempotency = key.map(|key| Idempotency { key, fingerprint });
    Ok(vote)
}

/// The parameter `player`, if it was given.
pub(super) fn player_of(params: &mut Params) -> Result<Option<Player>, Problem> {
    let Some(name) = params.text("player")? else { return Ok(None) };
    Player::new(&name)
        .map(Some)
        .map_err(|error| Problem::refused(Code::InvalidName, format!("`player` {error}.")))
}

fn answer(player: &Player, reply: Reply) -> Result<Response, Problem> {
    let Reply { position, replayed, outcome } = reply;
    let receipt = match outcome {
        Outcome::Added(receipt) => receipt,
        refusal => return Err(refused(player, refusal, position, replayed)),
    };
    let mut response = json(&Added {
        player: player.as_str(),
        score: receipt.score.get(),
        rank: receipt.rank,
        index: position.index.0,
    });
    reflects(&mut response, position);
    if replayed {
        mark_replayed(&mut response);
    }
    Ok(response)
}

/// The state machine has refused; nothing was added.
fn refused(player: &Player, why: Outcome, position: LogPosition, replayed: bool) -> Problem {
    let (code, detail) = match why {
        Outcome::OutOfBounds { score, delta } => (
            Code::ScoreOutOfBounds,
            format!(
                "{player} has {score}; adding {delta} would leave the range from {} to {}.",
                Score::MIN,
                Score::MAX
            ),
        ),
        Outcome::KeyReused => (
            Code::IdempotencyKeyReused,
            "The Idempotency-Key was used for a different vote; take a new one for each vote."
                .to_owned(),
        ),
        Outcome::UnknownBoard => (Code::Internal, "The board does not exist.".to_owned()),
        Outcome::Unreadable | Outcome::Added(_) => {
            // Nodes of a newer version may have understood it.
            let why = "This node does not understand the command that it was sent: the nodes run \
                       different versions. Upgrade them all";
            return Problem::unknown(Code::Internal, why, false).decided_at(position, replayed);
        }
    };
    Problem::refused(code, detail).decided_at(position, replayed)
}
