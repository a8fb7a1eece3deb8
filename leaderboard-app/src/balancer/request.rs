//! From what a client sent to what a node is sent: checked, buffered, rewritten.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Version, request};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use super::config::BalancerConfig;
use super::problem::{Kind, Problem};
use crate::duration::parse_duration;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("request-timeout");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that concern one connection only (RFC 9110 §7.6.1), whether `Connection` names them or
/// not.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What operators do to the cluster is below these paths. Nodes do not know such a request again by its key.
const OPERATIONS: [&str; 2] = ["/v1/cluster", "/v1/snapshots"];

const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A client's request, ready to be sent to any node any number of times.
#[derive(Debug)]
pub(super) struct ClientRequest {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    /// End-to-end headers and the balancer's own, without the time that a try may take.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    deadline: Instant,
    /// The key that the balancer gave to a write that had none.
    pub(super) given_key: Option<HeaderValue>,
    /// Nodes are told how long they may take, unless the client's own words about it are
    /// malformed: then a node refuses them in the API's way.
    pub(super) announces_timeout: bool,
    _lease: Lease,
}

impl ClientRequest {
    /// Whether it may change something, so that sending it twice needs a key.
    pub(super) fn is_write(&self) -> bool {
        !self.method.is_safe()
    }

    /// How much time there is until the deadline.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether sending it twice is harmless.
    pub(super) fn may_be_sent_twice(&self) -> bool {
        let has_key = self.headers.contains_key(IDEMPOTENCY_KEY);
        !self.is_write() || (has_key && !is_operation(self.target.path()))
    }
}

/// Checks a request and reads its body.
///
/// # Errors
/// The refusal, when the request may not be forwarded; no node has seen it.
pub(super) async fn admit<B>(
    request: Request<B>,
    client: SocketAddr,
    config: &BalancerConfig,
    bodies: &Arc<Bodies>,
) -> Result<ClientRequest, Problem>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let (parts, body) = request.into_parts();
    let (target, host) = check_head(&parts)?;
    let asked = asked_timeout(&parts.headers);
    let limit = match asked {
        Asked::For(limit) => limit.min(config.request_timeout),
        Asked::Nothing | Asked::Nonsense => config.request_timeout,
    };
    let deadline = Instant::now() + limit;

    let mut lease = Lease::new(Arc::clone(bodies));
    let reading = read_body(body, config.body_bytes_max, &mut lease);
    let body = match timeout_at(deadline, reading).await {
        Ok(body) => body?,
        Err(_) => {
            let detail = format!("the body did not arrive within {limit:?}");
            return Err(Problem::new(Kind::SlowRequest, detail));
        }
    };

    let mut headers = parts.headers;
    remove_hop_by_hop(&mut headers);
    for name in [CONTENT_LENGTH, EXPECT, HOST] {
        headers.remove(name);
    }
    add_origin(&mut headers, client.ip(), host);
    let needs_key = !parts.method.is_safe() && !is_operation(target.path());
    let given_key = match needs_key && !headers.contains_key(IDEMPOTENCY_KEY) {
        true => Some(new_key()?),
        false => None,
    };
    if let Some(key) = &given_key {
        headers.insert(IDEMPOTENCY_KEY, key.clone());
    }
    Ok(ClientRequest {
        method: parts.method,
        target,
        headers,
        body,
        deadline,
        given_key,
        announces_timeout: asked != Asked::Nonsense,
        _lease: lease,
    })
}

/// Is that something that operators do?
fn is_operation(path: &str) -> bool {
    OPERATIONS.iter().any(|operation| {
        let below = path.strip_prefix(operation);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    })
}

/// What the parser lets pass and a gateway must not: no path to forward, no single host.
fn check_head(parts: &request::Parts) -> Result<(PathAndQuery, Option<HeaderValue>), Problem> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        let kind = Kind::MethodNotAllowed { allow: ALLOWED_METHODS };
        return Err(Problem::new(kind, format!("{} is not forwarded", parts.method)).closing());
    }
    let malformed = |detail| Problem::new(Kind::MalformedRequest, detail).closing();
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (host.is_none() && parts.version == Version::HTTP_11) {
        return Err(malformed("a request has exactly one Host header"));
    }
    // In a target like `http://host/path` the host overrides the header (RFC 9112 §3.2.2).
    let target_host = parts.uri.authority().map(|host| HeaderValue::from_str(host.as_str()));
    let host = match target_host {
        Some(host) => Some(host.map_err(|_| malformed("the target's host is malformed"))?),
        None => host.cloned(),
    };
    match parts.uri.path_and_query() {
        Some(target) if target.as_str().starts_with('/') => Ok((target.clone(), host)),
        _ => Err(malformed("the target of a request is a path, as in /top_n_scores?n=10")),
    }
}

/// What the header `Request-Timeout` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    For(Duration),
    Nonsense,
}

fn asked_timeout(headers: &HeaderMap) -> Asked {
    let mut values = headers.get_all(REQUEST_TIMEOUT).iter();
    match (values.next(), values.next()) {
        (None, _) => Asked::Nothing,
        (Some(value), None) => {
            let limit = value.to_str().ok().and_then(|text| parse_duration(text.trim()));
            limit.filter(|limit| !limit.is_zero()).map_or(Asked::Nonsense, Asked::For)
        }
        (Some(_), Some(_)) => Asked::Nonsense,
    }
}

async fn read_body<B>(mut body: B, max: usize, lease: &mut Lease) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let too_large =
        || Problem::new(Kind::BodyTooLarge, format!("a request body has at most {max} bytes"));
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let detail = format!("the body is malformed or broke off: {error}");
            Problem::new(Kind::IncompleteBody, detail)
        })?;
        // Trailers concern nobody here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.len() + data.len() > max {
            return Err(too_large());
        }
        if !lease.grow(data.len()) {
            let detail = "too many request bodies are being held; try again in a second";
            return Err(Problem::new(Kind::Overloaded, detail));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

/// Removes what concerns only the connection that the message came on.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Tells the node who asked, and for what host. The balancer is the edge: only the list of
/// addresses is continued, what a client claims about host and scheme is overwritten.
fn add_origin(headers: &mut HeaderMap, client: IpAddr, host: Option<HeaderValue>) {
    let mut addresses: Vec<u8> = Vec::new();
    for value in headers.get_all(FORWARDED_FOR) {
        addresses.extend_from_slice(value.as_bytes());
        addresses.extend_from_slice(b", ");
    }
    addresses.extend_from_slice(client.to_string().as_bytes());
    let addresses = HeaderValue::from_bytes(&addresses).expect("joined of valid values and ASCII");
    headers.insert(FORWARDED_FOR, addresses);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.remove(FORWARDED_HOST);
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host);
    }
    headers.append(VIA, HeaderValue::from_static("1.1 leaderboard-balancer"));
}

/// 128 random bits: no two writes may ever share a key by chance, since the second would be
/// taken for a repetition of the first and not be counted.
fn new_key() -> Result<HeaderValue, Problem> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        Problem::new(Kind::Internal, format!("the operating system has no random bytes: {error}"))
    })?;
    let key = format!("lb-{:032x}", u128::from_be_bytes(random));
    Ok(HeaderValue::from_str(&key).expect("hexadecimal digits"))
}

/// The bytes of all request bodies that are held, and their bound.
#[derive(Debug)]
pub(super) struct Bodies {
    held: AtomicUsize,
    bytes_max: usize,
}

impl Bodies {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), bytes_max })
    }
}

/// One body's share. It grows with what has arrived, not with what was announced, so that
/// connections which only announce take nothing from the others.
#[derive(Debug)]
struct Lease {
    bodies: Arc<Bodies>,
    bytes: usize,
}

impl Lease {
    fn new(bodies: Arc<Bodies>) -> Self {
        Self { bodies, bytes: 0 }
    }

    fn grow(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.bodies.held.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bodies.bytes_max
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_go_also_those_that_connection_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("x-kept", "1"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn a_timeout_is_taken_only_when_it_is_clear() {
        let asked = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(REQUEST_TIMEOUT, value.parse().unwrap());
            }
            asked_timeout(&headers)
        };
        assert_eq!(asked(&[]), Asked::Nothing);
        assert_eq!(asked(&["800ms"]), Asked::For(Duration::from_millis(800)));
        for nonsense in [&["soon"][..], &["0ms"], &["1s", "2s"], &[""]] {
            assert_eq!(asked(nonsense), Asked::Nonsense);
        }
    }

    #[test]
    fn what_operators_do_is_known_by_its_path() {
        for path in ["/v1/cluster/members", "/v1/cluster/members/4:promote", "/v1/snapshots"] {
            assert!(is_operation(path), "{path}");
        }
        for path in ["/add_vote", "/v1/clusters", "/v1/boards/v1/cluster/scores", "/"] {
            assert!(!is_operation(path), "{path}");
        }
    }

    #[test]
    fn keys_differ_and_are_long_enough() {
        let keys: std::collections::HashSet<_> =
            (0..1000).map(|_| new_key().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| key.len() == 35 && key.starts_with("lb-")));
    }

    #[test]
    fn bodies_share_a_bound_and_give_back() {
        let bodies = Bodies::new(100);
        let mut first = Lease::new(Arc::clone(&bodies));
        let mut second = Lease::new(Arc::clone(&bodies));
        assert!(first.grow(60));
        assert!(!second.grow(60));
        drop(second);
        assert!(first.grow(40));
        drop(first);
        assert_eq!(bodies.held.load(Ordering::Relaxed), 0);
    }
}
