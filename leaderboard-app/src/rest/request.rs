//! What requests have besides parameters: a deadline, an idempotency key, a body.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::Instant;

use super::problem::{Code, Problem};
use crate::duration::parse_duration;
use crate::idempotency::IdempotencyKey;

const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest `Request-Timeout`.
const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The largest body, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// When the client stops waiting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// From the header `Request-Timeout`, or after `default`.
    pub(crate) fn of(headers: &HeaderMap, default: Duration) -> Result<Self, Problem> {
        let timeout = match single(headers, &REQUEST_TIMEOUT)? {
            None => default,
            Some(text) => parse_duration(text)
                .filter(|timeout| !timeout.is_zero() && *timeout <= REQUEST_TIMEOUT_MAX)
                .ok_or_else(|| {
                    Problem::refused(
                        Code::InvalidHeader,
                        "Request-Timeout must be a whole number with the unit ms, s or m, from 1ms \
                         to 60s, as in `Request-Timeout: 800ms`.",
                    )
                })?,
        };
        Ok(Self(Instant::now() + timeout))
    }

    /// How much time is left.
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// The header `Idempotency-Key`, if there is one.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(key) = single(headers, &IDEMPOTENCY_KEY)? else { return Ok(None) };
    IdempotencyKey::new(key)
        .map(Some)
        .map_err(|error| Problem::refused(Code::InvalidHeader, format!("Idempotency-Key {error}.")))
}

/// The value of a header that may be given once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        let detail = format!("The header {name} is given more than once.");
        return Err(Problem::refused(Code::InvalidHeader, detail));
    }
    value.to_str().map(Some).map_err(|_| {
        let detail = format!("The header {name} has a character that is not printable ASCII.");
        Problem::refused(Code::InvalidHeader, detail)
    })
}

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Form,
    /// Not declared: fine as long as there is no body.
    Undeclared,
}

impl Media {
    /// From `Content-Type` and `Content-Encoding`.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let unsupported =
            |detail: &str| Err(Problem::refused(Code::UnsupportedMediaType, detail.to_owned()));
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return unsupported(
                "Compressed bodies are not read; send it without Content-Encoding.",
            );
        }
        let Some(declared) = single(headers, &CONTENT_TYPE)? else { return Ok(Self::Undeclared) };
        let mut parts = declared.split(';').map(|part| part.trim().to_ascii_lowercase());
        let essence = parts.next().unwrap_or_default();
        let is_utf8 = |parameter: String| match parameter.strip_prefix("charset=") {
            Some(charset) => matches!(charset.trim_matches('"'), "utf-8" | "utf8"),
            None => true,
        };
        if !parts.all(is_utf8) {
            return unsupported("Only the charset utf-8 is read.");
        }
        match &*essence {
            "application/json" => Ok(Self::Json),
            "application/x-www-form-urlencoded" => Ok(Self::Form),
            _ => unsupported(
                "Send the body as application/json or application/x-www-form-urlencoded, and say \
                 so in Content-Type.",
            ),
        }
    }
}

/// The whole body, if it is small enough and comes before the deadline.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    deadline: Deadline,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("The body may have at most {BODY_BYTES_MAX} bytes.");
        Problem::refused(Code::BodyTooLarge, detail)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let announced = announced.and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(deadline.left(), whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::try_again(
            Code::IncompleteBody,
            "The connection or the encoding broke off before the end of the body.",
        )),
        Err(_) => Err(Problem::try_again(
            Code::SlowRequest,
            "The body was not complete when the time was up; nothing was done.",
        )),
    }
}
