//! Bounds on what one client may take, and the balancer's end.

use std::time::{Duration, Instant};

use bytes::Bytes;
use leaderboard_app::balancer::{Balancer, BalancerConfig, BalancerError};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::fake::{Act, Front, Node, config, until, within};
use crate::raw::Raw;

#[tokio::test]
async fn a_body_of_one_mebibyte_passes_and_one_byte_more_does_not() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    let largest = "x".repeat(1 << 20);
    assert_eq!(front.post("/add_vote", &largest).await.status, 200);
    assert_eq!(node.seen()[0].body.len(), 1 << 20);
    let reply = front.post("/add_vote", &format!("{largest}x")).await;
    reply.assert_problem(413, "body_too_large", "not_applied", "never");
    assert_eq!(node.seen().len(), 1);
}

#[tokio::test]
async fn a_chunked_body_is_measured_as_it_comes() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    let mut raw = Raw::connect(front.address).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(1 << 16));
    for _ in 0..20 {
        raw.send(&chunk).await;
    }
    raw.send("0\r\n\r\n").await;
    assert!(raw.until_closed().await.starts_with("HTTP/1.1 413 "));
    assert!(node.seen().is_empty());
}

/// Whatever the reason, a client that goes on sending can read why it was refused.
#[tokio::test]
async fn what_comes_after_a_refusal_does_not_destroy_it() {
    let node = Node::named("a").await;
    let mut config = config(&[&node]);
    config.bodies_bytes_max = 0;
    let front = Front::with(config).await;
    let length = "Content-Length: 2097152\r\n\r\n";
    for (head, status) in [
        (format!("POST / HTTP/1.1\r\nHost: a\r\n{length}"), "413"),
        (format!("POST / HTTP/1.1\r\n{length}"), "400"),
        (format!("TRACE / HTTP/1.1\r\nHost: a\r\n{length}"), "405"),
        (format!("POST /lb/status HTTP/1.1\r\nHost: a\r\n{length}"), "405"),
        (format!("GET /lb/status HTTP/1.1\r\nHost: a\r\n{length}"), "200"),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nno colon\r\n{length}"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}", "x".repeat(20 << 10)), "431"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\nx".to_owned(), "503"),
    ] {
        let mut raw = Raw::connect(front.address).await;
        raw.send(&head).await;
        raw.replied().await;
        for _ in 0..16 {
            raw.send(&"x".repeat(1 << 16)).await;
        }
        let reply = raw.until_closed().await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {reply}");
        assert!(reply.contains("\r\nconnection: close\r\n"), "{head}: {reply}");
    }
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn who_asks_first_is_refused_before_the_body() {
    let front = Front::before(&[&Node::named("a").await]).await;
    let mut raw = Raw::connect(front.address).await;
    raw.send(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n",
    )
    .await;
    assert!(raw.until_closed().await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let node = Node::start(|_| Act::Hang).await;
    let mut config = config(&[&node]);
    config.bodies_bytes_max = 1000;
    let front = Front::with(config).await;
    let body = "x".repeat(800);
    let first = front.post("/", &body);
    let second = async {
        until("the first to be at the node", || !node.seen().is_empty()).await;
        front.post("/", &body).await.assert_problem(503, "overloaded", "not_applied", "safe");
        node.behave(|_| Act::ok("a"));
    };
    tokio::select! {
        _ = first => unreachable!("its node hangs"),
        () = second => {}
    }
    // Given back when the first client left.
    let retrying = async { while front.post("/", &body).await.status != 200 {} };
    within("room for a body", retrying).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_wait() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    let mut raw = Raw::connect(front.address).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nRequest-Timeout: 200ms\r\nContent-Length: 5\r\n\r\nx")
        .await;
    assert!(raw.until_closed().await.starts_with("HTTP/1.1 408 "));
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let node = Node::named("a").await;
    let mut config = config(&[&node]);
    config.head_read_timeout = Duration::from_millis(200);
    let front = Front::with(config).await;
    let mut raw = Raw::connect(front.address).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow:").await;
    raw.until_closed().await;
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    let long = "x".repeat(20 << 10);
    let reply = front.request("GET", "/", &[("x-long", &long)], "").await;
    reply.assert_problem(431, "head_too_large", "not_applied", "never");
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn who_is_one_too_many_waits_to_be_served() {
    let node = Node::named("a").await;
    let mut config = config(&[&node]);
    config.connections_max = 1;
    let front = Front::with(config).await;
    let mut first = Raw::connect(front.address).await;
    first.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.until("a").await;
    let mut second = Raw::connect(front.address).await;
    second.send("GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    first.send("GET /third HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    first.until_closed().await;
    second.until_closed().await;
    let order: Vec<_> = node.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(order, ["/first", "/third", "/second"]);
}

#[tokio::test]
async fn what_is_in_flight_is_finished_before_the_end() {
    let (feed, pieces) = mpsc::channel(1);
    let pieces = std::sync::Mutex::new(Some(pieces));
    let node = Node::start(move |_| Act::Stream(pieces.lock().unwrap().take().unwrap())).await;
    let mut front = Front::before(&[&node]).await;
    let idle = TcpStream::connect(front.address).await.unwrap();
    let mut raw = Raw::connect(front.address).await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    feed.send(Bytes::from("first")).await.unwrap();
    raw.until("first").await;

    front.stop();
    let address = front.address;
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    within("new connections to be refused", refused).await;
    feed.send(Bytes::from("second")).await.unwrap();
    drop(feed);
    assert!(raw.until_closed().await.contains("second"));
    front.ended().await;
    drop(idle);
}

#[tokio::test]
async fn the_end_does_not_wait_for_ever() {
    let node = Node::start(|_| Act::Hang).await;
    let mut config = config(&[&node]);
    config.drain_timeout = Duration::from_millis(100);
    let mut front = Front::with(config).await;
    let mut stream = Raw::connect(front.address).await;
    stream.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request to be at the node", || !node.seen().is_empty()).await;
    front.stop();
    let started = Instant::now();
    front.ended().await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(stream.until_closed().await, "");
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let node = Node::start(|_| Act::Hang).await;
    let front = Front::before(&[&node]).await;
    let mut raw = Raw::connect(front.address).await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    until("the request to be at the node", || !node.seen().is_empty()).await;
    drop(raw);
    let forgotten = async {
        loop {
            let status = front.get("/lb/status").await.json();
            if status["in_flight"] == 0 && status["nodes"][0]["in_flight"] == 0 {
                return;
            }
        }
    };
    within("the request to be forgotten", forgotten).await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let any = "127.0.0.1:0".parse().unwrap();
    let nothing = Balancer::bind(BalancerConfig::new(any, Vec::new())).await;
    assert!(matches!(nothing.unwrap_err(), BalancerError::NoNodes));

    let node = Node::named("a").await;
    let taken = Balancer::bind(BalancerConfig::new(node.address, vec![any.into()])).await;
    let error = taken.unwrap_err();
    assert!(matches!(error, BalancerError::Listen { .. }));
    assert!(error.to_string().contains(&node.address.to_string()), "{error}");

    let mut stopped = Node::named("b").await;
    stopped.kill().await;
    let address = stopped.address;
    let itself = Balancer::bind(BalancerConfig::new(address, vec![address.into()])).await;
    assert!(matches!(itself.unwrap_err(), BalancerError::ListensOnNode(_)));
}
