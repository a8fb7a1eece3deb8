//! Orders: given to the first node that takes them, and never given again if they may have been carried out.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Answer, Client, Unanswered};
use super::say;
use super::view::Refusal;
use crate::cli::{FAILED, Failure};

/// Why an order was not carried out.
#[derive(Debug)]
pub(super) enum Undone {
    /// Somebody says why.
    Refused(Refusal),
    /// It was not given to anybody, for this reason with each.
    Nobody(Vec<String>),
    /// It was given, and there is no answer.
    Broken(String),
}

/// Gives an order to the first address that takes it.
pub(super) async fn give(
    client: &Client,
    method: &Method,
    path: &str,
    body: Option<&Value>,
    limit: Duration,
) -> Result<Value, Undone> {
    let mut failures = Vec::new();
    let mut refused = None;
    for endpoint in &client.endpoints {
        match client.ask(endpoint.as_str(), method.clone(), path, body, limit).await {
            Ok(Answer { status: StatusCode::OK, body }) => return Ok(body),
            Ok(Answer { status, body }) => {
                let refusal = Refusal::of(status, &body);
                // It stops, say, or knows no leader: another one may.
                let elsewhere = refusal.may_try_again && status == StatusCode::SERVICE_UNAVAILABLE;
                if !elsewhere {
                    return Err(Undone::Refused(refusal));
                }
                refused = Some(refusal);
            }
            Err(Unanswered::NotSent(why)) => failures.push(format!("{endpoint}: {why}")),
            Err(Unanswered::Broken(why)) => {
                return Err(Undone::Broken(format!("{endpoint}: {why}")));
            }
        }
    }
    Err(refused.map_or(Undone::Nobody(failures), Undone::Refused))
}

/// `leaderboard transfer`.
pub(super) async fn transfer(client: &Client, to: Option<u64>) -> Result<(), Failure> {
    let body = to.map(|to| json!({ "to": to }));
    let done =
        give(client, &Method::POST, "/v1/cluster/leader:transfer", body.as_ref(), client.timeout);
    let done = done.await.map_err(|undone| undone.tell(client))?;
    let leader = done["leader"].as_u64().unwrap_or_default();
    match to {
        Some(to) if leader != to => Err(Failure {
            exit_code: FAILED,
            message: format!("node {leader} leads now, not node {to}: an election came in between"),
        }),
        _ => {
            say(&format!("node {leader} leads"));
            Ok(())
        }
    }
}

impl Undone {
    /// What an operator should know, and what to do.
    pub(super) fn tell(self, client: &Client) -> Failure {
        let message = match self {
            Self::Nobody(failures) => return nobody(client, &failures),
            Self::Broken(why) => format!(
                "{why}\nWhat became of it is not known: `leaderboard members list` shows. Giving the \
                 same order again does no harm."
            ),
            Self::Refused(Refusal { code, detail, unknown, .. }) => match advice(&code, unknown) {
                "" => detail,
                advice => format!("{detail}\n{advice}"),
            },
        };
        Failure { exit_code: FAILED, message }
    }
}

/// What to do about a refusal.
fn advice(code: &str, unknown: bool) -> &'static str {
    match code {
        _ if unknown => {
            "`leaderboard members list` shows what became of it. Giving the same order again does no \
             harm."
        }
        "no_leader" => {
            "A majority of the voters must run: `leaderboard status` shows which do. If there is an \
             election, it is over in a moment."
        }
        "unknown_member" => {
            "`leaderboard members list` shows the members; `leaderboard members add` adds one."
        }
        "last_voter" => "Add another node first, with `leaderboard members add`.",
        "not_a_voter" => "`leaderboard members promote` makes a learner a voter.",
        "would_lose_quorum" => {
            "Start the voters that do not answer, or remove one of them first; `leaderboard members \
             list` shows who is healthy."
        }
        "no_successor" => "`leaderboard members list` shows who is healthy, and how far behind.",
        "change_in_progress" | "leader_changed" | "overloaded" => "Try again in a moment.",
        "unknown_path" => "The node runs a version that does not know this yet.",
        _ => "",
    }
}

/// There is no cluster where it was looked for.
pub(super) fn nobody(client: &Client, failures: &[String]) -> Failure {
    let advice = if client.guessing {
        "Is the cluster running? `cargo run --release --example cluster` starts one; where another \
         one is, --endpoints HOST:PORT,… says."
    } else {
        "Are the nodes running? --endpoints takes the addresses where nodes or a balancer answer HTTP."
    };
    let message = format!("nobody answers\n{}\n{advice}", failures.join("\n"));
    Failure { exit_code: FAILED, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        let client = Client::new(vec!["127.0.0.1:1".parse().unwrap()], Duration::ZERO, true);
        let refused = |code: &str, unknown| {
            let refusal = Refusal {
                status: StatusCode::CONFLICT,
                code: code.to_owned(),
                detail: "The detail.".to_owned(),
                may_try_again: false,
                unknown,
            };
            Undone::Refused(refusal).tell(&client).message
        };
        for (code, unknown, told) in [
            ("no_leader", false, "`leaderboard status`"),
            ("unknown_member", false, "`leaderboard members list`"),
            ("last_voter", false, "Add another node first"),
            ("would_lose_quorum", false, "Start the voters"),
            ("deadline_passed", true, "does no harm"),
        ] {
            let message = refused(code, unknown);
            assert!(message.starts_with("The detail.\n") && message.contains(told), "{message}");
        }
        assert_eq!(refused("internal", false), "The detail.");
        let nobody = Undone::Nobody(vec!["127.0.0.1:1: connection refused".to_owned()]);
        let message = nobody.tell(&client).message;
        assert!(message.contains("connection refused\nIs the cluster running?"), "{message}");
    }
}
