//! A door for tests: bytes from a client, as far as a command or a question. Fuzzing chooses them
//! (`fuzz/targets/http.rs`), and the test below draws them.
//!
//! They are taken for the requests of one connection, by the parser and the limits that serve: once by those
//! of a node (`rest/hostile.rs`), once by those of the balancer (`balancer/hostile.rs`). Nothing is proposed and
//! nobody is asked: what would be is looked at. There is no socket; the bytes end, and the answers are
//! thrown away.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{balancer, rest};

thread_local! {
    /// The refusals of the last connection, in this thread: code and advice.
    static REFUSED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// # Panics
/// If what comes of them is not as it must be.
pub fn requests(input: &[u8]) {
    REFUSED.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a thread's own runtime needs nothing");
    runtime.block_on(async {
        serve(Wire(io::Cursor::new(input.to_vec())), rest::hostile::answer).await;
        let gate = balancer::hostile::gate(Wire(io::Cursor::new(input.to_vec())));
        serve(gate, balancer::hostile::answer).await;
    });
}

/// Answers all requests of a connection.
async fn serve<C, F>(connection: C, answer: impl Fn(Request<Incoming>) -> F)
where
    C: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response>,
{
    let service = service_fn(|request| async {
        let response = answer(request).await;
        Ok::<_, Infallible>(judged(response).await)
    });
    // The bytes are all there is: who asks has not left because there are no more.
    let mut server = http1::Builder::new();
    server.half_close(true).max_buf_size(16 << 10);
    let serving = server.serve_connection(TokioIo::new(connection), service);
    let _broken_off_or_not = serving.await;
}

/// What clients are told of refusals.
const DOCUMENT: &str = include_str!("../docs/errors.md");

/// Whatever a client sends is no mistake of ours, and every refusal says what is wrong in the same form, as it
/// is documented.
async fn judged(response: Response) -> Response {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("bytes in memory").to_bytes();
    assert!(head.status.as_u16() < 500, "{}: {body:?}", head.status);
    if head.status != StatusCode::OK {
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("a problem is JSON");
        assert_eq!(problem["status"], head.status.as_u16(), "{problem}");
        assert_eq!(problem["outcome"], "not_applied", "{problem}");
        for member in ["type", "title", "detail", "code", "retry"] {
            let text = problem[member].as_str();
            assert!(text.is_some_and(|text| !text.is_empty()), "no {member}: {problem}");
        }
        let said = |member: &str| problem[member].as_str().unwrap_or_default();
        let (code, title, retry) = (said("code"), said("title"), said("retry"));
        REFUSED.with_borrow_mut(|refused| refused.push(format!("{code}: {retry}")));
        let section = DOCUMENT.split_once(&format!("\n### {code}\n"));
        let (_, section) = section.unwrap_or_else(|| panic!("not documented: {problem}"));
        let line = format!("{} · *{title}* · `not_applied`, retry `{retry}`", head.status.as_u16());
        assert!(section.trim_start().starts_with(&line), "documented otherwise: {problem}");
        assert_eq!(head.headers[CONTENT_TYPE], "application/problem+json", "{problem}");
    }
    Response::from_parts(head, Body::from(body))
}

/// What a client has sent. What it is sent goes nowhere.
struct Wire(io::Cursor<Vec<u8>>);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const PATHS: &[&str] = &[
        "/add_vote",
        "/top_n_scores",
        "/player_rankings",
        "/",
        "/v1/cluster",
        "/v1/cluster/members",
        "/v1/snapshots",
        "*",
        "http://a/b",
    ];
    const HEADERS: &[&str] = &[
        "Host: a",
        "Content-Type: application/json",
        "Content-Type: application/x-www-form-urlencoded; charset=utf-8",
        "Content-Encoding: gzip",
        "Idempotency-Key: k",
        "Origin: http://a",
        "Request-Timeout: 10ms",
        "Request-Timeout: 0",
        "Expect: 100-continue",
        "Connection: close, content-type",
        "Transfer-Encoding: chunked",
        "Content-Length: 7",
        "X: \u{1}",
        " folded",
    ];
    const QUERIES: &[&str] = &[
        "",
        "?n=3",
        "?n=",
        "?limit=1&cursor=00",
        "?player=alice",
        "?player=%f0%28",
        "?player=a&player=b",
        "?score=99999999999999999999",
        "?unknown",
    ];
    const BODIES: &[&str] = &[
        "",
        r#"{"player":"alice","score":10}"#,
        r#"{"player":"alice","score":1e9}"#,
        r#"{"player":1}"#,
        r#"{"id":4,"raft":"a:1","http":"b:2","learner":true}"#,
        r#"{"id":-4,"raft":"a"}"#,
        r#"{"player":"a\u0000","score":-5}"#,
        "player=bob&score=-3",
        "[[[[[[",
        "5\r\nhello\r\n0\r\n\r\n",
    ];

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let method = select(&["GET", "POST", "HEAD", "BREW", "CONNECT"][..]);
        let headers = prop::collection::vec(select(HEADERS), 0..5);
        let (path, query, body) = (select(PATHS), select(QUERIES), select(BODIES));
        (method, path, query, headers, body, any::<bool>()).prop_map(
            |(method, path, query, headers, body, honest)| {
                let mut text = format!("{method} {path}{query} HTTP/1.1\r\n");
                for header in headers {
                    text += header;
                    text += "\r\n";
                }
                if honest {
                    text += &format!("Host: a\r\nContent-Length: {}\r\n", body.len());
                }
                (text + "\r\n" + body).into_bytes()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_request_is_answered_with_a_mistake_of_ours(
            input in prop::collection::vec(request(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut input = input.concat();
            for (place, byte) in damage {
                let place = place.index(input.len());
                input[place] = byte;
            }
            requests(&input);
        }
    }

    /// The balancer once said that it must never be.
    #[test]
    fn a_body_that_breaks_off_may_be_sent_again() {
        let head = "POST /add_vote HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        requests(format!("{head}Content-Length: 9\r\n\r\n{{").as_bytes());
        // By the node, and by the balancer.
        assert_eq!(REFUSED.take(), ["incomplete_body: safe", "incomplete_body: safe"]);
    }

    #[test]
    fn a_vote_comes_through() {
        let seen = || (rest::hostile::votes_read(), balancer::hostile::admitted());
        let before = seen();
        let body = r#"{"player":"alice","score":10}"#;
        let head = "POST /add_vote HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        requests(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let after = seen();
        assert_eq!(REFUSED.take(), [""; 0]);
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1), "a door is shut");
    }
}
