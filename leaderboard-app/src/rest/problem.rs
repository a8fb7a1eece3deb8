//! Errors as clients see them: `application/problem+json` (RFC 9457), for everything.
//!
//! Beyond the standard members, each says what became of the write (`outcome`), whether to try again
//! (`retry`) and who leads (`leader`), so that a client never has to guess. `docs/errors.md` has a
//! section for each [`Code`], and a test that holds it to that.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use raft_grpc::{LogPosition, NodeId, NotApplied, ProposeError, ReadError};
use serde::Serialize;

mod code;

pub(crate) use code::Code;

/// What became of the write. Reads have no effect: for them it is `not_applied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    NotApplied,
    Unknown,
}

/// Whether to send the same request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Retry {
    /// It would fail again, or might count twice.
    Never,
    /// It can count only once.
    Safe,
    /// It can count only once if the `Idempotency-Key` is the same again.
    SameKeyOnly,
}

/// How soon to try again when the answer is 503.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    outcome: Outcome,
    retry: Retry,
    /// The log position that the refusal reflects, if the state machine refused.
    position: Option<LogPosition>,
    /// The refusal was decided by an earlier request with the same key.
    replayed: bool,
}

impl Problem {
    /// The client's mistake: nothing happened, and the same request would fail again.
    pub(crate) fn refused(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            outcome: Outcome::NotApplied,
            retry: Retry::Never,
            position: None,
            replayed: false,
        }
    }

    /// Nothing happened, and the same request may succeed another time.
    pub(crate) fn try_again(code: Code, detail: impl Into<String>) -> Self {
        Self { retry: Retry::Safe, ..Self::refused(code, detail) }
    }

    /// The same, refused by the state as it was right after the entry at `position`.
    pub(super) fn decided_at(self, position: LogPosition, replayed: bool) -> Self {
        Self { position: Some(position), replayed, ..self }
    }

    /// Nobody here knows whether it happened.
    pub(super) fn unknown(code: Code, why: &str, has_key: bool) -> Self {
        let (retry, advice) = if has_key {
            (Retry::SameKeyOnly, "send it again with the same Idempotency-Key")
        } else {
            (
                Retry::Never,
                "look at the player's score before sending it again, and send an Idempotency-Key \
                 with writes so that they can be retried",
            )
        };
        let detail = format!("{why}. It may have been applied, or may yet be: {advice}.");
        Self { outcome: Outcome::Unknown, retry, ..Self::refused(code, detail) }
    }

    /// Nobody here knows whether an order of an operator was carried out. Nothing sends it again by itself:
    /// meanwhile somebody may have wanted something else.
    pub(super) fn order_unknown(code: Code, detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unknown, ..Self::refused(code, detail) }
    }

    /// The same problem, when a first part of what was wanted is done.
    pub(super) fn half_way(self, done: &str) -> Self {
        let detail = format!("{done} {}", self.detail);
        Self { outcome: Outcome::Unknown, retry: Retry::Never, detail, ..self }
    }

    /// Why a write has no reply. `has_key`: did the client send an `Idempotency-Key`?
    pub(crate) fn of_write(error: &ProposeError, has_key: bool) -> Self {
        use raft_grpc::Unknown;
        match error {
            ProposeError::NotApplied(refusal) => {
                let code = match refusal {
                    NotApplied::NoLeader => Code::NoLeader,
                    NotApplied::Superseded => Code::LeaderChanged,
                    NotApplied::DiskFull => Code::DiskFull,
                    NotApplied::TooLarge { .. } => Code::BodyTooLarge,
                    NotApplied::ShuttingDown => Code::ShuttingDown,
                    NotApplied::Timeout => Code::DeadlinePassed,
                    // `Busy`, and whatever reason to refuse at the door comes to be.
                    _ => Code::Overloaded,
                };
                Self::try_again(code, format!("Nothing was added: {refusal}."))
            }
            ProposeError::Unknown(why @ Unknown::Timeout) => {
                Self::unknown(Code::DeadlinePassed, &sentence(why), has_key)
            }
            ProposeError::Unknown(why) => Self::unknown(Code::Interrupted, &sentence(why), has_key),
            // Not to know the error is not to know the outcome.
            other => Self::unknown(Code::Interrupted, &sentence(other), has_key),
        }
    }

    /// Why a read was not served.
    pub(crate) fn of_read(error: ReadError) -> Self {
        let code = match error {
            ReadError::NoLeader => Code::NoLeader,
            ReadError::Timeout => Code::DeadlinePassed,
            ReadError::ShuttingDown => Code::ShuttingDown,
            // `Busy`, and whatever reason to refuse at the door comes to be.
            _ => Code::Overloaded,
        };
        Self::try_again(code, format!("The read was not served: {error}."))
    }

    /// The reply to a write cannot be read. It was applied all the same.
    pub(crate) fn unreadable_reply(error: crate::DecodeError, has_key: bool) -> Self {
        let why = format!("The leader's answer cannot be understood here ({error})");
        Self::unknown(Code::Internal, &why, has_key)
    }

    /// The whole response. `leader` is who leads, as far as this node knows.
    pub(crate) fn render(&self, leader: Option<NodeId>) -> Response {
        let (status, code, title) = self.code.describe();
        let body = Members {
            r#type: format!("/docs/errors.md#{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            code,
            outcome: self.outcome,
            retry: self.retry,
            leader: leader.map(NodeId::get),
        };
        let bytes = serde_json::to_vec(&body).expect("a struct of texts and numbers is JSON");
        let mut response = (status, Body::from(bytes)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

#[derive(Serialize)]
struct Members<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    outcome: Outcome,
    retry: Retry,
    leader: Option<u64>,
}

/// A message of the library's as the start of a sentence. The name of a node stays as it is.
pub(super) fn sentence(message: &dyn std::fmt::Display) -> String {
    let message = message.to_string();
    let mut characters = message.chars();
    match (characters.next(), characters.clone().next()) {
        (Some('n'), Some(digit)) if digit.is_ascii_digit() => message,
        (Some(first), _) => first.to_uppercase().chain(characters).collect(),
        (None, _) => message,
    }
}

/// A problem travels as an empty response with itself attached; [`finish`] renders it, because only
/// there it is known who leads.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Renders the problem that a handler returned, if it did.
pub(crate) fn finish(mut response: Response, leader: Option<NodeId>) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let mut rendered = problem.render(leader);
    if let Some(allow) = response.headers_mut().remove(ALLOW) {
        rendered.headers_mut().insert(ALLOW, allow);
    }
    if let Some(position) = problem.position {
        super::reflects(&mut rendered, position);
    }
    if problem.replayed {
        super::mark_replayed(&mut rendered);
    }
    rendered
}

#[cfg(test)]
mod tests {
    use raft_grpc::Unknown;

    use super::*;

    #[test]
    fn every_code_has_its_own_section_in_the_document() {
        let document = include_str!("../../docs/errors.md");
        let mut words = Vec::new();
        for code in Code::all() {
            let (status, word, title) = code.describe();
            assert!(document.contains(&format!("\n### {word}\n")), "{word} is not described");
            let line = format!("{} · *{title}*", status.as_u16());
            assert!(document.contains(&line), "{word}: the document lacks `{line}`");
            words.push(word);
        }
        // The balancer's own words are its own business.
        let of_nodes = document.split("\n## Only from the balancer\n").next().unwrap_or_default();
        let sections = of_nodes.lines().filter(|line| line.starts_with("### ")).count();
        assert_eq!(sections, words.len(), "the document describes what does not exist");
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::all().count(), "two codes share a word");
    }

    #[test]
    fn a_retry_is_called_safe_only_when_it_is() {
        let timeout = ProposeError::Unknown(Unknown::Timeout);
        let with_key = Problem::of_write(&timeout, true);
        assert_eq!((with_key.outcome, with_key.retry), (Outcome::Unknown, Retry::SameKeyOnly));
        let without = Problem::of_write(&timeout, false);
        assert_eq!((without.outcome, without.retry), (Outcome::Unknown, Retry::Never));
        assert_eq!(without.code.status(), StatusCode::GATEWAY_TIMEOUT);
        for unknown in [Unknown::ConnectionLost, Unknown::LeadershipLost, Unknown::ShuttingDown] {
            let problem = Problem::of_write(&ProposeError::Unknown(unknown), true);
            assert_eq!((problem.code, problem.outcome), (Code::Interrupted, Outcome::Unknown));
        }
        for refusal in
            [NotApplied::NoLeader, NotApplied::Busy, NotApplied::DiskFull, NotApplied::Superseded]
        {
            let problem = Problem::of_write(&ProposeError::NotApplied(refusal), false);
            assert_eq!((problem.outcome, problem.retry), (Outcome::NotApplied, Retry::Safe));
            assert_eq!(problem.code.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(Problem::of_read(ReadError::Timeout).retry, Retry::Safe);
    }
}
