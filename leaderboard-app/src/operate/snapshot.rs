//! `leaderboard snapshot`: one is cut now.

use http::{Method, StatusCode};

use super::client::{Answer, Unanswered};
use super::view::Refusal;
use super::{EndpointArgs, progress, say, status};
use crate::cli::{FAILED, Failure};

/// On each of those that were given, or of all members.
pub(super) async fn run(args: &EndpointArgs) -> Result<(), Failure> {
    let client = args.client();
    let endpoints = status::endpoints(&client).await?;
    let mut failed = 0;
    for endpoint in &endpoints {
        let cut = client.ask(endpoint, Method::POST, "/v1/snapshots", None, client.timeout).await;
        match cut {
            Ok(Answer { status: StatusCode::OK, body }) => {
                let number = |name: &str| body[name].as_u64().unwrap_or_default();
                let (node, index, bytes) = (number("node"), number("index"), number("bytes"));
                say(&format!(
                    "{endpoint}: node {node} has a snapshot at index {index}, {bytes} bytes"
                ));
            }
            Ok(Answer { status, body }) => {
                failed += 1;
                progress(&format!("{endpoint}: {}", Refusal::of(status, &body).detail));
            }
            Err(Unanswered::NotSent(why) | Unanswered::Broken(why)) => {
                failed += 1;
                progress(&format!("{endpoint}: {why}"));
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    let message = format!("{failed} of {} cut no snapshot", endpoints.len());
    Err(Failure { exit_code: FAILED, message })
}
