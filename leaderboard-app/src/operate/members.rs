//! `leaderboard members`: who belongs to the cluster.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::client::Client;
use super::order::{Undone, give, nobody};
use super::table::{or_dash, table};
use super::view::{ClusterView, Refusal};
use super::{Output, progress, say};
use crate::balancer::NodeAddress;
use crate::cli::{FAILED, Failure};

const HEAD: [&str; 8] = ["ID", "KIND", "LEADS", "RAFT", "HTTP", "MATCH", "LAG", "HEALTHY"];

/// While a learner catches up, it is asked for its promotion so long at a time: so often there is news.
const PROMOTION_ROUND: Duration = Duration::from_secs(2);

/// Between two orders that were refused at once.
const PAUSE: Duration = Duration::from_millis(500);

/// `leaderboard members list`.
pub(super) async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let said = client.describe_by_leader().await;
    let (view, mut said) = said.map_err(|failures| nobody(client, &failures))?;
    match output {
        Output::Text => say(&table(&HEAD, &rows(&view))),
        Output::Json => {
            let (leader, members) = (said["leader"].take(), said["members"].take());
            let list = json!({ "cluster": view.cluster, "leader": leader, "members": members });
            say(&list.to_string());
        }
    }
    Ok(())
}

fn rows(view: &ClusterView) -> Vec<Vec<String>> {
    let row = |member: &super::view::MemberView| {
        vec![
            member.id.to_string(),
            member.kind.clone(),
            if view.leader == Some(member.id) { "yes" } else { "" }.to_owned(),
            or_dash(member.raft.as_ref()),
            or_dash(member.http.as_ref()),
            or_dash(member.match_index),
            or_dash(member.lag_entries),
            if member.healthy { "yes" } else { "no" }.to_owned(),
        ]
    };
    view.members.iter().map(row).collect()
}

/// `leaderboard members add`.
pub(super) async fn add(
    client: &Client,
    id: u64,
    raft: &NodeAddress,
    http: &NodeAddress,
    learner: bool,
) -> Result<(), Failure> {
    let view = look(client).await?;
    match view.member(id) {
        Some(member) => {
            if let Some(known) = member.raft.as_deref().filter(|known| *known != raft.as_str()) {
                progress(&format!(
                    "node {id} is a member already, at {known}: it says where it is itself, when it is \
                     started with --advertise"
                ));
            }
            if member.votes() || learner {
                say(&format!("node {id} is a {} already", member.kind));
                return Ok(());
            }
        }
        None => {
            let body = json!({ "id": id, "raft": raft.as_str(), "http": http.as_str(),
                               "learner": true });
            let path = "/v1/cluster/members";
            let added = give(client, &Method::POST, path, Some(&body), client.timeout).await;
            added.map_err(|undone| undone.tell(client))?;
            if learner {
                say(&format!("node {id} is a learner now"));
                return Ok(());
            }
        }
    }
    progress(&format!(
        "node {id} is a learner; it votes when it has caught up (Ctrl-C leaves it so)"
    ));
    tokio::select! {
        promoted = promote_when_ready(client, id) => promoted,
        _ = tokio::signal::ctrl_c() => Err(interrupted(client, id).await),
    }
}

/// Asks for the promotion until it is possible.
async fn promote_when_ready(client: &Client, id: u64) -> Result<(), Failure> {
    let path = format!("/v1/cluster/members/{id}:promote");
    let mut told = String::new();
    loop {
        let asked = tokio::time::Instant::now();
        let limit = PROMOTION_ROUND.min(client.timeout);
        let news = match give(client, &Method::POST, &path, None, limit).await {
            Ok(_) => {
                say(&format!("node {id} is a voter now"));
                return Ok(());
            }
            // Orders are the same given twice, and this one is still wanted: nobody but Ctrl-C ends it.
            Err(Undone::Refused(refusal)) if goes_on(&refusal) => refusal.detail,
            Err(Undone::Broken(why)) => why,
            Err(undone) => return Err(undone.tell(client)),
        };
        if news != told {
            progress(&format!("waiting: {news}"));
            told = news;
        }
        // A refusal that came at once would come at once again.
        tokio::time::sleep_until(asked + PAUSE).await;
    }
}

/// Is there hope for a learner's promotion?
fn goes_on(refusal: &Refusal) -> bool {
    refusal.may_try_again || refusal.unknown
}

/// What is left when an operator does not wait.
async fn interrupted(client: &Client, id: u64) -> Failure {
    let kind = match look(client).await {
        Ok(view) => view.member(id).map(|member| member.kind.clone()),
        Err(_) => Some("learner, as far as is known".to_owned()),
    };
    let message = match kind.as_deref() {
        Some("voter") => format!("interrupted, but node {id} is a voter already"),
        Some(kind) => format!(
            "interrupted: node {id} is a {kind}\n`leaderboard members promote {id}` makes it a voter, \
             `leaderboard members remove {id}` takes it out again."
        ),
        None => format!("interrupted: node {id} is no member any more"),
    };
    Failure { exit_code: FAILED, message }
}

/// `leaderboard members promote`.
pub(super) async fn promote(client: &Client, id: u64) -> Result<(), Failure> {
    let view = look(client).await?;
    if view.member(id).is_some_and(super::view::MemberView::votes) {
        say(&format!("node {id} is a voter already"));
        return Ok(());
    }
    let path = format!("/v1/cluster/members/{id}:promote");
    let promoted = give(client, &Method::POST, &path, None, client.timeout).await;
    promoted.map_err(|undone| undone.tell(client))?;
    say(&format!("node {id} is a voter now"));
    Ok(())
}

/// `leaderboard members remove`.
pub(super) async fn remove(client: &Client, id: u64) -> Result<(), Failure> {
    let view = look(client).await?;
    let was_member = view.member(id).is_some();
    // Given also if it seems to be none: who was asked may not have heard of it yet.
    let path = format!("/v1/cluster/members/{id}");
    let removed = give(client, &Method::DELETE, &path, None, client.timeout).await;
    removed.map_err(|undone| undone.tell(client))?;
    if was_member {
        say(&format!("node {id} is no member any more; stop its process"));
    } else {
        say(&format!("node {id} is no member: there was nothing to do"));
    }
    Ok(())
}

async fn look(client: &Client) -> Result<ClusterView, Failure> {
    let said = client.describe_by_leader().await;
    said.map(|(view, _)| view).map_err(|failures| nobody(client, &failures))
}
