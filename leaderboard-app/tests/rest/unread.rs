//! Answers that are given before the request was read to its end: they arrive whole, whatever the
//! client still sends, and what a client may still send is bounded.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{PATIENCE, Server};

/// How much the clients of these tests send after the answer.
const LATE_BYTES: usize = 2 << 20;
static PIECE: [u8; 1 << 16] = [b' '; 1 << 16];

/// A head that is answered without its body, and how.
const EARLY: &[(&str, &str)] = &[
    ("POST /add_vote HTTP/1.1\r\ncontent-type: application/json", "413"),
    ("POST /nowhere HTTP/1.1", "404"),
    ("PUT /add_vote HTTP/1.1", "405"),
    ("POST /add_vote?player=a&player=a HTTP/1.1", "400"),
    ("POST /add_vote HTTP/1.1\r\nrequest-timeout: soon", "400"),
    ("POST /add_vote HTTP/1.1\r\nidempotency-key:", "400"),
    ("POST /add_vote HTTP/1.1\r\ncontent-type: text/plain", "415"),
    ("POST /add_vote HTTP/1.1\r\ncontent-encoding: gzip", "415"),
    ("GET /top_n_scores?n=0 HTTP/1.1", "422"),
    ("GET /livez HTTP/1.1", "200"),
    ("POST /nowhere HTTP/1.1\r\nconnection: close", "404"),
];

/// Everything until the node closes, which it has to do in good order.
async fn whole_answer(stream: &mut TcpStream, what: &str) -> String {
    let mut answer = String::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    match reading {
        Ok(Ok(_)) => answer,
        Ok(Err(error)) => panic!("{what}: {error} after {answer:?}"),
        Err(_) => panic!("{what}: not closed in {PATIENCE:?} after {answer:?}"),
    }
}

fn assert_whole(answer: &str, status: &str, what: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: {answer}"));
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap_or_else(|| panic!("{what}: {answer}")).parse().unwrap();
    assert_eq!(body.len(), length, "{what}: {answer}");
    let says_so = head.lines().any(|line| line == "connection: close");
    assert!(says_so, "{what}: the node does not say that it closes: {answer}");
}

/// Connects, sends this and waits until the node has answered. Nothing of the answer is read.
async fn answered(server: &Server, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.client.0).await.unwrap();
    stream.write_all(first).await.unwrap();
    tokio::time::timeout(PATIENCE, stream.readable()).await.expect("an answer").unwrap();
    stream
}

/// What is read by a client that sends `first`, and goes on sending after the node has answered.
async fn answer_to_a_talker(server: &Server, first: &[u8], what: &str) -> String {
    let mut stream = answered(server, first).await;
    for _ in 0..LATE_BYTES / PIECE.len() {
        stream.write_all(&PIECE).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    whole_answer(&mut stream, what).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_the_answer_does_not_destroy_it() {
    let server = Server::start().await;
    let digest = server.client.digest().await;
    for (head, status) in EARLY {
        let head = format!("{head}\r\nhost: a\r\ncontent-length: {LATE_BYTES}\r\n\r\n");
        let answer = answer_to_a_talker(&server, head.as_bytes(), &head).await;
        assert_whole(&answer, status, &head);
    }
    assert_eq!(server.client.digest().await, digest);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_turn_out_too_large_or_broken_or_slow_are_answered_too() {
    let server = Server::start().await;
    let digest = server.client.digest().await;
    let head = "POST /add_vote HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let slow = format!("{head}request-timeout: 50ms\r\ncontent-length: 1048576\r\n\r\n");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let broken = format!("{chunked}no chunk\r\n");
    let mut too_large = chunked.into_bytes();
    for _ in 0..17 {
        too_large.extend_from_slice(b"10000\r\n");
        too_large.extend_from_slice(&PIECE);
        too_large.extend_from_slice(b"\r\n");
    }
    for (first, status) in
        [(slow.as_bytes(), "408"), (broken.as_bytes(), "400"), (&too_large, "413")]
    {
        assert_whole(&answer_to_a_talker(&server, first, status).await, status, status);
    }
    assert_eq!(server.client.digest().await, digest);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_refused_are_answered_too() {
    let server = Server::start().await;
    let too_large = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(32 << 10));
    let malformed = "GET /livez HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n";
    for (first, status) in [(&*too_large, "431"), (malformed, "400")] {
        let answer = answer_to_a_talker(&server, first.as_bytes(), status).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer:?}");
    }
    server.stop().await;
}

/// A node that serves so many clients at a time.
async fn for_clients(connections_max: usize) -> Server {
    let directory = tempfile::tempdir().unwrap();
    Server::start_in(directory, |settings| settings.connections_max = connections_max).await
}

const HEAD: &str = "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999999\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_does_not_hold_its_connection() {
    let server = for_clients(1).await;
    let mut stream = answered(&server, HEAD.as_bytes()).await;
    let mut sent = 0_usize;
    let sending = async {
        while stream.write_all(&PIECE).await.is_ok() {
            sent += PIECE.len();
        }
    };
    tokio::time::timeout(PATIENCE, sending).await.expect("the node has enough some time");
    // What the node reads, and what fits into the buffers of both systems.
    assert!(sent < 64 << 20, "{sent} bytes");
    assert!(server.client.get("/livez").await.status.is_success());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_trickle_or_stay_do_not_hold_their_connections() {
    let server = for_clients(2).await;
    let mut trickles = answered(&server, HEAD.as_bytes()).await;
    let mut stays = answered(&server, HEAD.as_bytes()).await;
    let trickling = async {
        while trickles.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trickling).await.expect("the node has enough some time");
    // Both places are free again, at the same time.
    let first = answered(&server, b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(server.client.get("/livez").await.status.is_success());
    drop(first);
    assert_whole(&whole_answer(&mut stays, HEAD).await, "404", HEAD);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_whether_to_send_is_told_not_to() {
    let server = for_clients(1).await;
    let asking = HEAD.replace("host", "expect: 100-continue\r\nhost");
    let mut stream = answered(&server, asking.as_bytes()).await;
    assert!(server.client.get("/livez").await.status.is_success());
    assert_whole(&whole_answer(&mut stream, HEAD).await, "404", HEAD);
    server.stop().await;
}
