//! Refusals that come from the balancer itself, as problem details (RFC 9457).

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

/// What is certain about a write that did not get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It had its effect.
    Applied,
    /// It had no effect and will have none.
    NotApplied,
    /// It may have had its effect, or may yet have it.
    Unknown,
}

/// Whether sending the request again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Retry {
    /// It would be refused again.
    Never,
    /// It can do no harm.
    Safe,
    /// Only under the same `Idempotency-Key`.
    SameKeyOnly,
}

/// One kind of refusal. The status and the code belong together for ever; the detail is for people.
/// Where a node refuses for the same reason, the word is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    SlowRequest,
    BodyTooLarge,
    DeadlinePassed,
    HeadTooLarge,
    IncompleteBody,
    Internal,
    MalformedRequest,
    MethodNotAllowed { allow: &'static str },
    NoNodeReachable,
    UnknownPath,
    Overloaded,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::DeadlinePassed => StatusCode::GATEWAY_TIMEOUT,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::IncompleteBody | Self::MalformedRequest => StatusCode::BAD_REQUEST,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoNodeReachable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnknownPath => StatusCode::NOT_FOUND,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::SlowRequest => "slow_request",
            Self::BodyTooLarge => "body_too_large",
            Self::DeadlinePassed => "deadline_passed",
            Self::HeadTooLarge => "head_too_large",
            Self::IncompleteBody => "incomplete_body",
            Self::Internal => "internal",
            Self::MalformedRequest => "malformed_request",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::NoNodeReachable => "no_node_reachable",
            Self::UnknownPath => "unknown_path",
            Self::Overloaded => "overloaded",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::SlowRequest => "The body came too slowly",
            Self::BodyTooLarge => "The body is too large",
            Self::DeadlinePassed => "No node answered in time",
            Self::HeadTooLarge => "The request's headers are too large",
            Self::IncompleteBody => "The body broke off",
            Self::Internal => "The balancer made a mistake",
            Self::MalformedRequest => "The request is malformed",
            Self::MethodNotAllowed { .. } => "This path does not know this method",
            Self::NoNodeReachable => "No node can be reached",
            Self::UnknownPath => "There is nothing at this path",
            Self::Overloaded => "The balancer holds too many requests",
        }
    }

    /// Whether the very same request may be accepted later.
    fn passes(self) -> bool {
        matches!(
            self,
            Self::SlowRequest
                | Self::IncompleteBody
                | Self::DeadlinePassed
                | Self::Internal
                | Self::NoNodeReachable
                | Self::Overloaded
        )
    }
}

/// A refusal, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    outcome: Outcome,
    /// A key does not make it safe to send the request again.
    no_key_helps: bool,
    /// The connection cannot be used again: where the next request begins is not known.
    close: bool,
}

/// The document; field order is what people see.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    outcome: Outcome,
    retry: Retry,
    leader: Option<u64>,
}

impl Problem {
    /// A refusal of something that certainly had no effect.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            outcome: Outcome::NotApplied,
            no_key_helps: false,
            close: false,
        }
    }

    /// The same, but a node may have acted on the request.
    pub(super) fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// The same about a request that nodes do not know again by its key.
    pub(super) fn without_key(self) -> Self {
        Self { no_key_helps: true, ..self }
    }

    /// The same, but the connection is closed after it.
    pub(super) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    fn retry(&self) -> Retry {
        match self.outcome {
            Outcome::Unknown if self.no_key_helps => Retry::Never,
            Outcome::Unknown => Retry::SameKeyOnly,
            Outcome::NotApplied if self.kind.passes() => Retry::Safe,
            Outcome::NotApplied | Outcome::Applied => Retry::Never,
        }
    }

    /// The reply.
    pub(super) fn response(&self) -> Response<Bytes> {
        let code = self.kind.code();
        let document = Document {
            r#type: format!("/docs/errors.md#{code}"),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            code,
            outcome: self.outcome,
            retry: self.retry(),
            leader: None,
        };
        let body = serde_json::to_vec(&document).expect("a problem has only plain fields");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.kind.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Kind::MethodNotAllowed { allow } = self.kind {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
