//! What reaches a node, what reaches the client, and whose turn it is.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

use crate::fake::{Act, Front, Node, within};

#[tokio::test]
async fn requests_go_round_evenly() {
    let nodes = [Node::named("a").await, Node::named("b").await, Node::named("c").await];
    let front = Front::before(&nodes.each_ref()).await;
    for _ in 0..30 {
        assert_eq!(front.get("/top_n_scores").await.status, 200);
    }
    assert_eq!(nodes.each_ref().map(|node| node.seen().len()), [10, 10, 10]);
}

#[tokio::test]
async fn a_request_reaches_the_node_unchanged_but_for_the_hop() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    let headers = [
        ("connection", "x-private"),
        ("x-private", "1"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "secret"),
        ("x-forwarded-for", "10.1.1.1"),
        ("x-forwarded-host", "forged"),
        ("x-forwarded-proto", "https"),
        ("content-type", "application/json"),
        ("consistency", "linearizable"),
    ];
    let target = "/add_vote?x=%20y&z=1";
    let reply = front.request("POST", target, &headers, r#"{"player":"alice"}"#).await;
    assert_eq!(reply.text(), "a");

    let seen = &node.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", target));
    assert_eq!(seen.body, r#"{"player":"alice"}"#);
    for gone in ["connection", "x-private", "te", "upgrade", "proxy-authorization"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("consistency"), Some("linearizable"));
    assert_eq!(seen.header("x-forwarded-for"), Some("10.1.1.1, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-host"), Some(front.address.to_string().as_str()));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("host"), Some(node.address.to_string().as_str()));
    assert_eq!(seen.header("via"), Some("1.1 leaderboard-balancer"));
}

#[tokio::test]
async fn a_reply_reaches_the_client_unchanged_but_for_the_hop() {
    let node = Node::start(|_| {
        let response = Response::builder()
            .status(422)
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("keep-alive", "timeout=1")
            .header("content-type", "application/problem+json")
            .header("raft-index", "7")
            .header("raft-leader", "2")
            .header("link", "</player_rankings?cursor=x>; rel=\"next\"")
            .body(Full::from("{}"));
        Act::Reply(response.unwrap())
    })
    .await;
    let front = Front::before(&[&node]).await;
    let reply = front.get("/player_rankings").await;
    assert_eq!((reply.status, reply.text()), (422, "{}"));
    for gone in ["x-private", "keep-alive"] {
        assert_eq!(reply.header(gone), None, "{gone}");
    }
    assert_eq!(reply.header("raft-index"), Some("7"));
    assert_eq!(reply.header("raft-leader"), Some("2"));
    assert_eq!(reply.header("link"), Some("</player_rankings?cursor=x>; rel=\"next\""));
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let node = Node::named("four").await;
    let front = Front::before(&[&node]).await;
    let reply = front.request("HEAD", "/", &[], "").await;
    assert_eq!((reply.status, reply.text()), (200, ""));
    assert_eq!(reply.header("content-length"), Some("4"));
}

#[tokio::test]
async fn an_answer_streams_while_the_node_still_writes_it() {
    let (feed, pieces) = mpsc::channel(1);
    let pieces = std::sync::Mutex::new(Some(pieces));
    let node =
        Node::start(move |_| Act::Stream(pieces.lock().unwrap().take().expect("asked once"))).await;
    let front = Front::before(&[&node]).await;
    let piece = Bytes::from(vec![7; 64 << 10]);

    let request = Request::get(format!("http://{}/", front.address)).body(Full::default());
    feed.send(piece.clone()).await.unwrap();
    let response = within("the head", front.client.request(request.unwrap())).await.unwrap();
    let mut body = response.into_body();
    let mut received = 0;
    for round in 1..=64 {
        // The next piece is written only when the last one has come through.
        while received < round * piece.len() {
            let frame = within("a piece", body.frame()).await.expect("not the end").unwrap();
            let data = frame.into_data().expect("no trailers");
            assert!(data.iter().all(|&byte| byte == 7));
            received += data.len();
        }
        if round < 64 {
            feed.send(piece.clone()).await.unwrap();
        }
    }
    let status = front.get("/lb/status").await.json();
    assert_eq!(status["nodes"][0]["in_flight"], 1, "an answer that streams is in flight");
    drop(feed);
    assert!(within("the end", body.frame()).await.is_none());
}

#[tokio::test]
async fn a_large_answer_comes_whole() {
    let node = Node::start(|_| Act::Reply(Response::new(Full::from(vec![b'x'; 32 << 20])))).await;
    let front = Front::before(&[&node]).await;
    assert_eq!(front.get("/").await.body.len(), 32 << 20);
}
