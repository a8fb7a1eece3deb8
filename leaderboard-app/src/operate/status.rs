//! `leaderboard status`: a line for each node, as it sees itself.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::Client;
use super::order::nobody;
use super::table::{or_dash, table};
use super::view::ClusterView;
use super::{Output, StatusArgs, say};
use crate::cli::{FAILED, Failure};

const INTERVAL: Duration = Duration::from_secs(1);

const HEAD: [&str; 11] = [
    "ENDPOINT", "ID", "ROLE", "LEADER", "TERM", "MEMBERS", "LAST", "COMMIT", "APPLIED", "SNAPSHOT",
    "DIGEST",
];

/// So much of a digest tells two apart.
const DIGEST_SHOWN: usize = 12;

/// What one address said.
struct Line {
    endpoint: String,
    said: Result<(ClusterView, Value), String>,
}

/// Shows it once, or again and again.
pub(super) async fn run(args: &StatusArgs) -> Result<(), Failure> {
    let client = std::sync::Arc::new(args.endpoints.client());
    if !args.watch {
        return look(&client, args.output, "").await;
    }
    // A screen that is always whole; in a file, one after the other.
    let before = if io::stdout().is_terminal() { "\u{1b}[H\u{1b}[2J" } else { "" };
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let round = async {
            if let Err(Failure { message, .. }) = look(&client, args.output, before).await {
                say(&message);
            }
            tokio::time::sleep(INTERVAL).await;
        };
        tokio::select! {
            () = round => {}
            _ = &mut interrupted => return Ok(()),
        }
    }
}

async fn look(
    client: &std::sync::Arc<Client>,
    output: Output,
    before: &str,
) -> Result<(), Failure> {
    let endpoints = endpoints(client).await?;
    let mut asked = JoinSet::new();
    for (place, endpoint) in endpoints.into_iter().enumerate() {
        let client = std::sync::Arc::clone(client);
        asked.spawn(async move {
            let said = client.describe(&endpoint).await;
            (place, Line { endpoint, said })
        });
    }
    let mut lines = asked.join_all().await;
    lines.sort_by_key(|(place, _)| *place);
    let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
    let text = match output {
        Output::Text => table(&HEAD, &lines.iter().map(row).collect::<Vec<_>>()),
        Output::Json => Value::Array(lines.iter().map(object).collect()).to_string(),
    };
    // All at once, so that a screen does not flicker.
    let _ = writeln!(io::stdout(), "{before}{text}");
    verdict(&lines)
}

/// Exactly those that were given, or all members that somebody knows.
pub(super) async fn endpoints(client: &Client) -> Result<Vec<String>, Failure> {
    if !client.guessing {
        return Ok(client.endpoints.iter().map(ToString::to_string).collect());
    }
    let (view, _) = client.describe_any().await.map_err(|failures| nobody(client, &failures))?;
    let known: Vec<String> = view.members.iter().filter_map(|member| member.http.clone()).collect();
    for member in view.members.iter().filter(|member| member.http.is_none()) {
        super::progress(&format!(
            "where node {} answers HTTP is not known: start it with --advertise, or name it with \
             --endpoints",
            member.id
        ));
    }
    Ok(known)
}

fn row(Line { endpoint, said }: &Line) -> Vec<String> {
    let (view, _) = match said {
        Ok(said) => said,
        Err(why) => return vec![endpoint.clone(), "-".to_owned(), why.clone()],
    };
    let learners = view.members.iter().filter(|member| !member.votes()).count();
    let members = match (view.members.len() - learners, learners) {
        (voters, 0) => voters.to_string(),
        (voters, learners) => format!("{voters}+{learners}"),
    };
    vec![
        endpoint.clone(),
        view.node.to_string(),
        view.role.clone(),
        or_dash(view.leader),
        view.term.to_string(),
        members,
        view.last_index.to_string(),
        view.commit_index.to_string(),
        view.applied_index.to_string(),
        view.snapshot_index.to_string(),
        view.digest.chars().take(DIGEST_SHOWN).collect(),
    ]
}

fn object(Line { endpoint, said }: &Line) -> Value {
    match said {
        Ok((_, said)) => json!({ "endpoint": endpoint, "cluster": said }),
        Err(why) => json!({ "endpoint": endpoint, "error": why }),
    }
}

/// Is all well, as far as this can be seen from here?
fn verdict(lines: &[Line]) -> Result<(), Failure> {
    let silent = lines.iter().filter(|line| line.said.is_err()).count();
    let views = || lines.iter().filter_map(|line| line.said.as_ref().ok().map(|(view, _)| view));
    let message = if silent > 0 {
        format!("{silent} of {} do not answer", lines.len())
    } else if views().any(|view| view.leader.is_none()) {
        "there is a node without a leader: an election is going on, or no majority runs".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure { exit_code: FAILED, message })
}
