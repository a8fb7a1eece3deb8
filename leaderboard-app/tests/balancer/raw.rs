//! Bytes that no honest client sends: each is refused, and nothing behind it reaches a node.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{Front, Node, within};

/// A client that sends what it likes.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits for a reply, and reads nothing of it.
    pub(crate) async fn replied(&mut self) {
        within("a raw reply", self.0.readable()).await.unwrap();
    }

    /// Reads until this was received.
    pub(crate) async fn until(&mut self, expected: &str) {
        let mut received = Vec::new();
        let reading = async {
            while !String::from_utf8_lossy(&received).contains(expected) {
                assert_ne!(self.0.read_buf(&mut received).await.unwrap(), 0, "closed too early");
            }
        };
        within("a raw reply", reading).await;
    }

    /// Everything until the other side closes.
    pub(crate) async fn until_closed(&mut self) -> String {
        let mut received = Vec::new();
        let reading = async { while self.0.read_buf(&mut received).await.unwrap() > 0 {} };
        within("the connection to be closed", reading).await;
        String::from_utf8(received).unwrap()
    }
}

/// Sends the bytes and expects one refusal, and no request at the node.
async fn assert_refused(bytes: &str) {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    let mut raw = Raw::connect(front.address).await;
    raw.send(bytes).await;
    let reply = raw.until_closed().await;
    assert!(reply.starts_with("HTTP/1.1 400 "), "{bytes:?} was answered with {reply:?}");
    assert_eq!(reply.matches("HTTP/1.1 ").count(), 1, "{bytes:?} was answered with {reply:?}");
    let seen: Vec<_> = node.seen().into_iter().map(|seen| seen.target).collect();
    assert!(seen.is_empty(), "{bytes:?} let {seen:?} pass");
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn two_framings_at_once_are_refused() {
    for headers in [
        "Content-Length: 5\r\nContent-Length: 44\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5,44\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 44\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let head = format!("POST /add_vote HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
        assert_refused(&format!("{head}0\r\n\r\n{SMUGGLED}")).await;
    }
}

#[tokio::test]
async fn lines_that_end_in_doubt_are_refused() {
    for bytes in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: one\r\n two\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: one\r\n\tContent-Length: 5\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    ] {
        assert_refused(&format!("{bytes}{SMUGGLED}")).await;
    }
}

#[tokio::test]
async fn a_chunked_body_in_doubt_is_refused() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["5\nhello\r\n0\r\n\r\n", "5;\n\r\nhello\r\n", "-1\r\n\r\n", "5 \r\nhello\r\n", "x"]
    {
        assert_refused(&format!("{head}{body}{SMUGGLED}")).await;
    }
}

#[tokio::test]
async fn a_target_or_host_in_doubt_is_refused() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET nowhere:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_refused(head).await;
    }
}

#[tokio::test]
async fn requests_before_a_bad_one_are_answered_first() {
    let node = Node::named("fine").await;
    let front = Front::before(&[&node]).await;
    let mut raw = Raw::connect(front.address).await;
    let good = "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                POST /two HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                3\r\nabc\r\n0\r\n\r\n";
    let bad = "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx";
    raw.send(&format!("{good}{bad}{SMUGGLED}")).await;
    let reply = raw.until_closed().await;
    let statuses: Vec<_> =
        reply.split("HTTP/1.1 ").skip(1).map(|reply| reply.split(' ').next().unwrap()).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{reply}");
    assert!(reply.contains("there is more than one Content-Length"), "{reply}");
    let targets: Vec<_> = node.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/one", "/two"]);
    assert!(node.seen().iter().all(|seen| seen.body == "abc"));
}

#[tokio::test]
async fn tunnels_and_echoes_are_refused() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    for method in ["CONNECT a:80", "TRACE /"] {
        let mut raw = Raw::connect(front.address).await;
        raw.send(&format!("{method} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let reply = raw.until_closed().await;
        assert!(reply.starts_with("HTTP/1.1 405 "), "{reply}");
        assert!(reply.contains("allow: GET"), "{reply}");
    }
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn garbage_is_answered_or_dropped_and_harms_nobody() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    for bytes in
        ["\0\0\0\0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\0\r\n\r\n", "\r\n\r\n"]
    {
        let mut raw = Raw::connect(front.address).await;
        raw.send(bytes).await;
        let _ = raw.0.shutdown().await;
        let reply = raw.until_closed().await;
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{bytes:?}: {reply}");
    }
    assert_eq!(front.get("/").await.status, 200);
}
