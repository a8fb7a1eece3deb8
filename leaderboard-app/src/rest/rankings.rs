//! `GET /top_n_scores` and `GET /player_rankings`, both linearizable.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderValue;
use http::header::LINK;
use raft_grpc::{Consistency, ReadGuard};
use serde::Serialize;

use super::params::Params;
use super::problem::{Code, Problem};
use super::request::Deadline;
use super::votes::player_of;
use super::{Api, cursor, json, reflects};
use crate::board::{Board, Place, Row};
use crate::leaderboard::Leaderboard;
use crate::types::{BoardId, Player};

/// How many rows one reply may have, and how many `/player_rankings` gives unless asked.
const ROWS_MAX: i64 = 1000;
const PAGE_ROWS: i64 = 100;
/// How many rows `/top_n_scores` gives unless asked.
const TOP_ROWS: i64 = 10;

#[derive(Serialize)]
struct RowJson<'a> {
    rank: u64,
    player: &'a str,
    score: i64,
}

impl<'a> From<Row<'a>> for RowJson<'a> {
    fn from(row: Row<'a>) -> Self {
        let Row { rank, player, place } = row;
        Self { rank, player: player.as_str(), score: place.score.get() }
    }
}

#[derive(Serialize)]
struct PlayerJson<'a> {
    #[serde(flatten)]
    row: RowJson<'a>,
    of: u64,
}

/// The first `n` of the ranking.
pub(crate) async fn top_n_scores(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (rows, deadline) = read_top(&request, api.request_timeout)?;
    let state = fresh_state(&api, deadline).await?;
    let top: Vec<RowJson<'_>> =
        board(&state, &BoardId::default())?.rows_from(1).take(rows).map(RowJson::from).collect();
    let mut response = json(&top);
    reflects(&mut response, state.applied());
    Ok(response)
}

/// How many rows are asked for, and until when; `timeout` is for requests that do not say.
pub(super) fn read_top(request: &Request, timeout: Duration) -> Result<(usize, Deadline), Problem> {
    let deadline = Deadline::of(request.headers(), timeout)?;
    let mut params = Params::of_query(request.uri().query(), &["n"])?;
    Ok((rows_wanted(&mut params, "n", TOP_ROWS)?, deadline))
}

/// The whole ranking page by page, or one player's line.
pub(crate) async fn player_rankings(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (asked, deadline) = read_rankings(&request, api.request_timeout)?;
    let state = fresh_state(&api, deadline).await?;
    let board_id = BoardId::default();
    match asked {
        Asked::Player(player) => one_player(&state, &board_id, &player),
        Asked::Page { rows, after } => page(&state, &board_id, rows, after),
    }
}

/// What `/player_rankings` is asked for.
#[derive(Debug)]
pub(super) enum Asked {
    Player(Player),
    /// So many rows behind this place, or the first ones.
    Page {
        rows: usize,
        after: Option<Place>,
    },
}

/// What is asked for, and until when; `timeout` is for requests that do not say.
pub(super) fn read_rankings(
    request: &Request,
    timeout: Duration,
) -> Result<(Asked, Deadline), Problem> {
    let deadline = Deadline::of(request.headers(), timeout)?;
    let mut params = Params::of_query(request.uri().query(), &["limit", "cursor", "player"])?;
    if params.has("player") && (params.has("limit") || params.has("cursor")) {
        return Err(Problem::refused(
            Code::ConflictingParameters,
            "`player` asks for one line; `limit` and `cursor` do not go with it.",
        ));
    }
    if let Some(player) = player_of(&mut params)? {
        return Ok((Asked::Player(player), deadline));
    }
    let rows = rows_wanted(&mut params, "limit", PAGE_ROWS)?;
    let after = match params.text("cursor")? {
        None => None,
        Some(text) => Some(cursor::decode(&BoardId::default(), &text).ok_or_else(|| {
            Problem::refused(
                Code::InvalidCursor,
                "Take the cursor from the Link header of the page before, unchanged, or leave it \
                 out for the first page.",
            )
        })?),
    };
    Ok((Asked::Page { rows, after }, deadline))
}

fn page(
    state: &ReadGuard<'_, Leaderboard>,
    board_id: &BoardId,
    rows: usize,
    after: Option<Place>,
) -> Result<Response, Problem> {
    let board = board(state, board_id)?;
    // One more than asked tells whether there is a next page.
    let mut page: Vec<Row<'_>> = match after {
        None => board.rows_from(1).take(rows + 1).collect(),
        Some(place) => board.rows_after(place).take(rows + 1).collect(),
    };
    let has_next = page.len() > rows;
    page.truncate(rows);
    let mut response = json(&page.iter().copied().map(RowJson::from).collect::<Vec<_>>());
    if let (true, Some(last)) = (has_next, page.last()) {
        let cursor = cursor::encode(board_id, last.place);
        let link = format!("</player_rankings?limit={rows}&cursor={cursor}>; rel=\"next\"");
        let link = HeaderValue::try_from(link).expect("digits and letters make a header");
        response.headers_mut().insert(LINK, link);
    }
    reflects(&mut response, state.applied());
    Ok(response)
}

fn one_player(
    state: &ReadGuard<'_, Leaderboard>,
    board_id: &BoardId,
    player: &Player,
) -> Result<Response, Problem> {
    let board = board(state, board_id)?;
    let Some(row) = board.row_of(player) else {
        let unknown = Problem::refused(Code::UnknownPlayer, format!("{player} has no score yet."));
        return Err(unknown.decided_at(state.applied(), false));
    };
    let mut response = json(&PlayerJson { row: row.into(), of: board.len() });
    reflects(&mut response, state.applied());
    Ok(response)
}

fn rows_wanted(params: &mut Params, name: &str, default: i64) -> Result<usize, Problem> {
    let rows = params.integer(name, 1..=ROWS_MAX)?.unwrap_or(default);
    Ok(usize::try_from(rows).expect("it was checked against 1 to 1000"))
}

/// The state with every write in it that was acknowledged before now, by any node.
async fn fresh_state(api: &Api, deadline: Deadline) -> Result<ReadGuard<'_, Leaderboard>, Problem> {
    let state = api.raft.read_within(Consistency::Linearizable, deadline.left()).await;
    state.map_err(Problem::of_read)
}

fn board<'a>(leaderboard: &'a Leaderboard, id: &BoardId) -> Result<&'a Board, Problem> {
    let missing = || Problem::refused(Code::Internal, format!("The board {id} does not exist."));
    leaderboard.board(id).ok_or_else(missing)
}
