//! What the balancer would pass on of a request, without nodes behind it: see `../hostile.rs`.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::Request;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::body::Incoming;

use super::config::BalancerConfig;
use super::framing::{REFUSED_TARGET, StrictFraming};
use super::problem::{Kind, Problem};
use super::request::{self, Bodies, ClientRequest, IDEMPOTENCY_KEY};

const HEAD_BYTES_MAX: usize = 16 << 10;
const BODY_BYTES_MAX: usize = 64 << 10;

thread_local! {
    static ADMITTED: Cell<u64> = const { Cell::new(0) };
}

/// How many requests would have been passed on, in this thread.
#[cfg(test)]
pub(crate) fn admitted() -> u64 {
    ADMITTED.get()
}

/// The connection behind what looks at its framing.
pub(crate) fn gate<C>(connection: C) -> StrictFraming<C> {
    StrictFraming::new(connection, HEAD_BYTES_MAX).0
}

/// Admits a request as the server does.
pub(crate) async fn answer(request: Request<Incoming>) -> Response {
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let config = BalancerConfig {
        request_timeout: Duration::from_millis(50),
        body_bytes_max: BODY_BYTES_MAX,
        ..BalancerConfig::new(client, Vec::new())
    };
    if request.uri().path() == REFUSED_TARGET {
        let refused = Problem::new(Kind::MalformedRequest, "refused by its framing");
        return refused.response().map(Body::from);
    }
    match request::admit(request, client, &config, &Bodies::new(BODY_BYTES_MAX)).await {
        Ok(request) => {
            judge(&request);
            Response::new(Body::empty())
        }
        Err(problem) => problem.response().map(Body::from),
    }
}

/// What is passed on is one request and no more, and may be sent to one node after the other; what operators do,
/// which nodes do not know again by a key, only until one has got it.
fn judge(request: &ClientRequest) {
    ADMITTED.set(ADMITTED.get() + 1);
    assert!(request.target.as_str().starts_with('/'), "{request:?}");
    assert!(request.body.len() <= BODY_BYTES_MAX, "{request:?}");
    for name in [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
        assert!(!request.headers.contains_key(&name), "{name} is passed on: {request:?}");
    }
    let path = request.target.path();
    let operates = ["/v1/cluster", "/v1/snapshots"]
        .iter()
        .any(|operation| path == *operation || path.starts_with(&format!("{operation}/")));
    let once = request.is_write() && operates;
    assert_eq!(request.may_be_sent_twice(), !once, "a write without a key: {request:?}");
    if let Some(key) = &request.given_key {
        let sent = request.headers.get(IDEMPOTENCY_KEY);
        assert!(request.is_write() && !operates && sent == Some(key), "{request:?}");
    }
}
