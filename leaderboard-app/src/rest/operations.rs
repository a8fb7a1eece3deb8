//! What operators do to the cluster: its members, who leads, snapshots. Any node can be asked; it passes on to
//! the leader what only the leader can do.
//!
//! An order says what is to be in the end, so giving it again is harmless as long as that is still wanted. Only
//! whoever gave it knows that: when its outcome is unknown, `retry` is `never`, and nothing on the way gives it
//! again.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::HeaderMap;
use http::header::{HOST, ORIGIN};
use raft_grpc::{ChangeRefusal, NodeId, OrderError, TransferRefusal};
use serde::Serialize;

use super::params::Params;
use super::problem::{Code, Problem, sentence};
use super::request::{self, Deadline, Media};
use super::{Api, json};
use crate::balancer::NodeAddress;
use crate::node::note;

/// The longest HTTP address: it travels in a note.
const HTTP_BYTES_MAX: usize = 200;

const FORWARDED_HOST: &str = "x-forwarded-host";

#[derive(Serialize)]
struct Added {
    id: u64,
    kind: &'static str,
}

/// A node that is to be added.
pub(super) struct Addition {
    pub(super) id: NodeId,
    raft: String,
    /// Where it answers HTTP, if that was said, for the other nodes.
    pub(super) note: String,
    stays_learner: bool,
}

/// `POST /v1/cluster/members`: adds a node as a learner, and makes it a voter once it has caught up, unless it
/// is to stay a learner.
pub(crate) async fn add_member(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (addition, deadline) = read_addition(request, api.request_timeout).await?;
    refuse_if_stopping(&api)?;
    let Addition { id, raft, note, stays_learner } = addition;
    let added = api.raft.add_member_with_note(id, &raft, &note, deadline.left()).await;
    added.map_err(|error| problem_of(&error))?;
    let kind = if stays_learner {
        let votes = api.raft.status().raft.membership.is_voter(id);
        if votes { "voter" } else { "learner" }
    } else {
        api.raft.promote(id, deadline.left()).await.map_err(|error| {
            let done = format!("Node {} is a member, but not a voter yet.", id.get());
            problem_of(&error).half_way(&done)
        })?;
        "voter"
    };
    Ok(json(&Added { id: id.get(), kind }))
}

/// Which node is to be added, and until when; `timeout` is for requests that do not say.
pub(super) async fn read_addition(
    request: Request,
    timeout: Duration,
) -> Result<(Addition, Deadline), Problem> {
    let (mut params, deadline) = read(timeout, request, &["id", "raft", "http", "learner"]).await?;
    let missing = |name| Problem::refused(Code::MissingParameter, format!("`{name}` is missing."));
    let id = id_of(&mut params, "id")?.ok_or_else(|| missing("id"))?;
    let raft = params.text("raft")?.ok_or_else(|| missing("raft"))?;
    let http = params.text("http")?.map(|http| http_address(&http)).transpose()?;
    let stays_learner = params.boolean("learner")?.unwrap_or(false);
    let note = http.map(|http| note::of_http(&http)).unwrap_or_default();
    Ok((Addition { id, raft, note, stays_learner }, deadline))
}

/// `POST /v1/cluster/members/{id}:promote`: makes a learner a voter, once it has caught up.
pub(crate) async fn promote(
    State(api): State<Arc<Api>>,
    Path(member): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = member.strip_suffix(":promote").and_then(id_in_path).ok_or_else(no_such_path)?;
    let (_, deadline) = read(api.request_timeout, request, &[]).await?;
    refuse_if_stopping(&api)?;
    api.raft.promote(id, deadline.left()).await.map_err(|error| problem_of(&error))?;
    Ok(json(&Added { id: id.get(), kind: "voter" }))
}

#[derive(Serialize)]
struct Removed {
    id: u64,
    removed: bool,
}

/// `DELETE /v1/cluster/members/{id}`: the node is no member any more, if it was one.
pub(crate) async fn remove_member(
    State(api): State<Arc<Api>>,
    Path(member): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let id = id_in_path(&member).ok_or_else(no_such_path)?;
    let (_, deadline) = read(api.request_timeout, request, &[]).await?;
    refuse_if_stopping(&api)?;
    api.raft.remove_member(id, deadline.left()).await.map_err(|error| problem_of(&error))?;
    Ok(json(&Removed { id: id.get(), removed: true }))
}

#[derive(Serialize)]
struct Leads {
    leader: u64,
}

/// `POST /v1/cluster/leader:transfer`: another node is to lead.
pub(crate) async fn transfer(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut params, deadline) = read(api.request_timeout, request, &["to"]).await?;
    refuse_if_stopping(&api)?;
    let to = id_of(&mut params, "to")?;
    let leader = api.raft.transfer_leadership(to, deadline.left()).await;
    let leader = leader.map_err(|error| problem_of(&error))?;
    Ok(json(&Leads { leader: leader.get() }))
}

#[derive(Serialize)]
struct Snapshot {
    node: u64,
    index: u64,
    term: u64,
    bytes: u64,
}

/// `POST /v1/snapshots`: this node cuts one now.
pub(crate) async fn snapshot(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let (_, deadline) = read(api.request_timeout, request, &[]).await?;
    refuse_if_stopping(&api)?;
    let snapshot = api.raft.snapshot(deadline.left()).await.map_err(|error| problem_of(&error))?;
    Ok(json(&Snapshot {
        node: api.node.get(),
        index: snapshot.position.index.0,
        term: snapshot.position.term.0,
        bytes: snapshot.length,
    }))
}

/// The parameters, which are JSON, and until when. What has none needs no body either.
async fn read(
    timeout: Duration,
    request: Request,
    allowed: &'static [&'static str],
) -> Result<(Params, Deadline), Problem> {
    let (head, body) = request.into_parts();
    check_origin(&head.headers)?;
    let deadline = Deadline::of(&head.headers, timeout)?;
    Params::of_query(head.uri.query(), &[])?;
    let media = Media::of(&head.headers)?;
    let body = request::read_body(&head.headers, body, deadline).await?;
    let mut params = Params::new(allowed);
    match media {
        Media::Json if allowed.is_empty() && body.is_empty() => {}
        Media::Json => params.add_json(&body)?,
        Media::Undeclared | Media::Form if body.is_empty() => {}
        Media::Undeclared | Media::Form => {
            return Err(Problem::refused(
                Code::UnsupportedMediaType,
                "Send a JSON object, with `Content-Type: application/json`.",
            ));
        }
    }
    Ok((params, deadline))
}

fn refuse_if_stopping(api: &Api) -> Result<(), Problem> {
    if api.is_stopping() {
        let detail = "This node is stopping; use another one.";
        return Err(Problem::try_again(Code::ShuttingDown, detail));
    }
    Ok(())
}

/// A page of another site, which an operator happens to look at, can make the browser send requests that need no
/// permission, such as a POST without a body. The browser then says which site that is.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(FORWARDED_HOST).or_else(|| headers.get(HOST));
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host))
            if origin.as_bytes().eq_ignore_ascii_case(host.as_bytes()) =>
        {
            Ok(())
        }
        _ => Err(Problem::refused(
            Code::CrossOrigin,
            "The request comes from a page of another site, by its header Origin.",
        )),
    }
}

fn id_of(params: &mut Params, name: &str) -> Result<Option<NodeId>, Problem> {
    let number = params.integer(name, 1..=i64::MAX)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()).and_then(NodeId::new))
}

fn id_in_path(text: &str) -> Option<NodeId> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain).and_then(NodeId::new)
}

fn no_such_path() -> Problem {
    Problem::refused(
        Code::UnknownPath,
        "There is nothing at this path; a member's is /v1/cluster/members/ID, and to promote it \
         POST /v1/cluster/members/ID:promote.",
    )
}

fn http_address(text: &str) -> Result<String, Problem> {
    let address = text.parse().ok().map(|address: NodeAddress| address.to_string());
    address.filter(|address| address.len() <= HTTP_BYTES_MAX).ok_or_else(|| {
        let detail = "`http` must be HOST:PORT, as in 127.0.0.1:8084, and at most 200 bytes.";
        Problem::refused(Code::InvalidAddress, detail)
    })
}

/// Why an order was not carried out.
fn problem_of(error: &OrderError) -> Problem {
    use ChangeRefusal as C;
    use OrderError as E;
    use TransferRefusal as T;
    let detail = format!("{}.", sentence(error));
    match error {
        E::Unknown => Problem::order_unknown(Code::Interrupted, detail),
        E::Timeout => Problem::order_unknown(Code::DeadlinePassed, detail),
        E::BadAddress(_) => Problem::refused(Code::InvalidAddress, detail),
        E::NotAMember(_) => Problem::refused(Code::UnknownMember, detail),
        E::LastVoter(_) => Problem::refused(Code::LastVoter, detail),
        E::Transfer(T::NotAVoter) => Problem::refused(Code::NotAVoter, detail),
        E::NotCaughtUp { .. } => Problem::try_again(Code::NotCaughtUp, detail),
        E::Change(C::WouldLoseQuorum { .. }) => Problem::try_again(Code::WouldLoseQuorum, detail),
        E::Change(_) | E::Leaving(_) | E::Transfer(T::InFlight { .. }) => {
            Problem::try_again(Code::ChangeInProgress, detail)
        }
        E::Transfer(_) | E::DidNotTakeOver(_) => Problem::try_again(Code::NoSuccessor, detail),
        E::NoSnapshot(_) => Problem::try_again(Code::NoSnapshot, detail),
        E::NotLeader { .. } => Problem::try_again(Code::NoLeader, detail),
        // Another version of this program leads.
        E::Other(_) => Problem::refused(Code::Internal, detail),
        E::Superseded => Problem::try_again(Code::LeaderChanged, detail),
        E::ShuttingDown => Problem::try_again(Code::ShuttingDown, detail),
        // `Busy`, and whatever reason to refuse at the door comes to be.
        _ => Problem::try_again(Code::Overloaded, detail),
    }
}
