//! Nodes that are dead, break off, hang or refuse; and that no write is counted twice by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::sync::Notify;

use crate::fake::{Act, Front, Node, Probes, config, until, within};

#[tokio::test]
async fn a_dead_node_is_skipped_and_used_again_when_it_is_back() {
    let mut nodes = [Node::named("a").await, Node::named("b").await, Node::named("c").await];
    let front = Front::before(&nodes.each_ref()).await;
    nodes[1].kill().await;
    for _ in 0..9 {
        assert_ne!(front.get("/").await.text(), "b");
    }
    front.until_healthy(&[true, false, true]).await;
    let before = nodes.each_ref().map(|node| node.seen().len());
    for _ in 0..10 {
        front.get("/").await;
    }
    let after = nodes.each_ref().map(|node| node.seen().len());
    assert_eq!([after[0] - before[0], after[2] - before[2]], [5, 5], "even over those left");

    nodes[1].restart();
    front.until_healthy(&[true, true, true]).await;
    let before = nodes[1].seen().len();
    for _ in 0..9 {
        front.get("/").await;
    }
    assert_eq!(nodes[1].seen().len() - before, 3);
}

#[tokio::test]
async fn a_node_that_is_not_ready_gets_no_requests() {
    let nodes = [Node::named("a").await, Node::named("b").await];
    let front = Front::before(&nodes.each_ref()).await;
    nodes[0].answer_probes(Probes::NotReady);
    front.until_healthy(&[false, true]).await;
    for _ in 0..4 {
        assert_eq!(front.get("/").await.text(), "b");
    }
    nodes[0].answer_probes(Probes::Ready);
    front.until_healthy(&[true, true]).await;
}

#[tokio::test]
async fn a_node_held_for_down_still_answers_when_no_other_does() {
    let node = Node::named("a").await;
    node.answer_probes(Probes::NotReady);
    let front = Front::before(&[&node]).await;
    front.until_healthy(&[false]).await;
    assert_eq!(front.get("/").await.text(), "a");
}

#[tokio::test]
async fn a_write_whose_node_dies_is_sent_again_under_the_same_key() {
    let broken = Node::start(|_| Act::Break).await;
    let good = Node::named("counted").await;
    let front = Front::before(&[&broken, &good]).await;
    let body = r#"{"player":"alice"}"#;

    let reply = front.post("/add_vote", body).await;
    assert_eq!((reply.status, reply.text()), (200, "counted"));
    let (first, second) = (&broken.seen()[0], &good.seen()[0]);
    assert_eq!((&first.body[..], &second.body[..]), (body.as_bytes(), body.as_bytes()));
    assert_eq!(first.key(), second.key());
    assert!(first.key().starts_with("lb-") && first.key().len() == 35, "{}", first.key());
    assert_eq!(reply.header("idempotency-key"), Some(first.key()), "the client learns the key");

    front.post("/add_vote", body).await;
    let sent = good.seen();
    assert_ne!(sent[0].key(), sent[1].key(), "another write, another key");
}

#[tokio::test]
async fn a_write_keeps_the_key_that_it_came_with() {
    let broken = Node::start(|_| Act::Break).await;
    let good = Node::named("counted").await;
    let front = Front::before(&[&broken, &good]).await;
    let reply = front.request("POST", "/add_vote", &[("Idempotency-Key", "mine")], "{}").await;
    assert_eq!(reply.text(), "counted");
    assert_eq!((broken.seen()[0].key(), good.seen()[0].key()), ("mine", "mine"));
    assert_eq!(reply.header("idempotency-key"), None, "the client has it already");
}

#[tokio::test]
async fn every_try_of_every_write_has_a_key_and_reads_have_none() {
    let broken = Node::start(|_| Act::Break).await;
    let front = Front::before(&[&broken]).await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
        let before = broken.seen().len();
        front.request(method, "/", &[], "x").await.assert_problem(
            503,
            "no_node_reachable",
            "unknown",
            "same_key_only",
        );
        let tries = broken.seen().split_off(before);
        assert!((1..=2).contains(&tries.len()), "{method}: {} tries", tries.len());
        assert!(tries.iter().all(|seen| seen.key() == tries[0].key()));
    }
    let before = broken.seen().len();
    let reply = front.get("/").await;
    reply.assert_problem(503, "no_node_reachable", "not_applied", "safe");
    for seen in &broken.seen()[before..] {
        assert_eq!(seen.header("idempotency-key"), None);
    }
}

#[tokio::test]
async fn with_no_node_the_client_hears_that_nothing_happened() {
    let nodes = [Node::dead().await, Node::dead().await];
    let front = Front::before(&nodes.each_ref()).await;
    for method in ["GET", "POST"] {
        let reply = front.request(method, "/add_vote", &[], "").await;
        reply.assert_problem(503, "no_node_reachable", "not_applied", "safe");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
}

#[tokio::test]
async fn a_safe_refusal_is_repaired_by_another_node() {
    for status in [503, 504] {
        let refusing = Node::start(move |_| Act::problem(status, "not_applied", "safe")).await;
        let good = Node::named("counted").await;
        let front = Front::before(&[&refusing, &good]).await;
        assert_eq!(front.post("/add_vote", "{}").await.text(), "counted");
        assert_eq!(refusing.seen()[0].key(), good.seen()[0].key());
        let status = front.get("/lb/status").await.json();
        assert_eq!(status["nodes"][0]["healthy"], true, "a node that refuses is not down");
        assert_eq!(status["retries"]["refused"], 1);
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_under_the_same_key() {
    let unsure = Node::start(|_| Act::problem(504, "unknown", "same_key_only")).await;
    let good = Node::named("counted once").await;
    let front = Front::before(&[&unsure, &good]).await;
    assert_eq!(front.post("/add_vote", "{}").await.text(), "counted once");
    assert_eq!(unsure.seen()[0].key(), good.seen()[0].key());
}

#[tokio::test]
async fn a_final_refusal_is_not_repeated() {
    let refusals = [
        (503, "never"),
        (504, "never"),
        (429, "safe"),
        (422, "never"),
        (500, "safe"),
        (409, "safe"),
    ];
    for (status, retry) in refusals {
        let refusing = Node::start(move |_| Act::problem(status, "not_applied", retry)).await;
        let other = Node::named("not asked").await;
        let front = Front::before(&[&refusing, &other]).await;
        assert_eq!(front.post("/add_vote", "{}").await.status, status);
        assert_eq!((refusing.seen().len(), other.seen().len()), (1, 0), "{status} {retry}");
    }
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let asked = Arc::new(AtomicUsize::new(0));
    let elect = |asked: &Arc<AtomicUsize>| {
        let asked = Arc::clone(asked);
        move |_: &_| match asked.fetch_add(1, Ordering::SeqCst) {
            ..7 => Act::problem(503, "not_applied", "safe"),
            _ => Act::ok("elected"),
        }
    };
    let nodes = [Node::start(elect(&asked)).await, Node::start(elect(&asked)).await];
    let front = Front::before(&nodes.each_ref()).await;
    assert_eq!(front.post("/add_vote", "{}").await.text(), "elected");
    assert_eq!(asked.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn without_an_election_the_nodes_own_words_are_handed_on() {
    let node = Node::start(|_| Act::problem(503, "not_applied", "safe")).await;
    let front = Front::before(&[&node]).await;
    let started = Instant::now();
    let reply = front.request("POST", "/", &[("Request-Timeout", "1s")], "").await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("x")));
    assert!(started.elapsed() >= Duration::from_millis(900), "it was worth asking for a while");
    assert!(node.seen().len() > 2);
}

#[tokio::test]
async fn overload_is_not_made_worse() {
    let overloaded = |_: &_| Act::problem_with_code("overloaded", 503, "not_applied", "safe");
    let nodes = [Node::start(overloaded).await, Node::start(overloaded).await];
    let front = Front::before(&nodes.each_ref()).await;
    let reply = front.post("/add_vote", "{}").await;
    assert_eq!((reply.status, reply.json()["code"].as_str()), (503, Some("overloaded")));
    assert!(nodes.iter().all(|node| node.seen().len() <= 2));
}

#[tokio::test]
async fn certainty_is_not_regained_by_a_later_refusal() {
    let refusals = [(503, "safe"), (503, "never"), (429, "safe"), (500, "safe"), (408, "safe")];
    // The first try may be applied; that the second was not says nothing about the first.
    for (status, retry) in refusals {
        let broken = Node::start(|_| Act::Break).await;
        let refusing = Node::start(move |_| Act::problem(status, "not_applied", retry)).await;
        let front = Front::before(&[&broken, &refusing]).await;
        let headers = [("Request-Timeout", "300ms")];
        let reply = front.request("POST", "/add_vote", &headers, "").await;
        assert_eq!(reply.json()["outcome"], "unknown", "{status} {retry}");
        assert_eq!(reply.json()["retry"], "same_key_only");
    }
}

#[tokio::test]
async fn a_node_that_hangs_costs_one_try_and_is_then_avoided() {
    let hanging = Node::start(|_| Act::Hang).await;
    let good = Node::named("a").await;
    let mut config = config(&[&hanging, &good]);
    config.try_timeout = Duration::from_millis(200);
    // Probes are answered, so it is tried again after one; not within this test.
    config.probe_interval = Duration::from_secs(60);
    let front = Front::with(config).await;
    assert_eq!(front.post("/add_vote", "{}").await.text(), "a");
    assert_eq!(hanging.seen()[0].key(), good.seen()[0].key());
    let announced = hanging.seen()[0].header("request-timeout").unwrap().to_owned();
    assert_eq!(announced, "180ms", "the node hears how long it has");
    let status = front.get("/lb/status").await.json();
    assert_eq!(status["nodes"][0]["failures"], 1);
}

#[tokio::test]
async fn a_request_does_not_stay_with_a_node_that_fell_silent() {
    let hanging = Node::start(|_| Act::Hang).await;
    let good = Node::named("a").await;
    let mut config = config(&[&hanging, &good]);
    config.try_timeout = Duration::from_secs(3600);
    config.request_timeout = config.try_timeout;
    config.probe_timeout = Duration::from_millis(200);
    let front = Front::with(config).await;
    hanging.answer_probes(Probes::Silent);
    assert_eq!(front.post("/add_vote", "{}").await.text(), "a");
    assert_eq!(hanging.seen()[0].key(), good.seen()[0].key());
}

#[tokio::test]
async fn a_node_that_stops_may_finish_what_it_has() {
    let told = Arc::new(Notify::new());
    let waiting = Arc::clone(&told);
    let stopping = Node::start(move |_| Act::Wait(Arc::clone(&waiting), "finished")).await;
    let other = Node::named("not asked").await;
    let front = Front::before(&[&stopping, &other]).await;
    let asking = front.post("/add_vote", "{}");
    let finishing = async {
        until("the request to be at the node", || !stopping.seen().is_empty()).await;
        stopping.answer_probes(Probes::NotReady);
        front.until_healthy(&[false, true]).await;
        told.notify_one();
    };
    let (reply, ()) = tokio::join!(asking, finishing);
    assert_eq!(reply.text(), "finished");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn the_request_timeout_bounds_all_tries_together() {
    let nodes = [Node::start(|_| Act::Hang).await, Node::start(|_| Act::Hang).await];
    let front = Front::before(&nodes.each_ref()).await;
    for (method, outcome, retry) in
        [("GET", "not_applied", "safe"), ("POST", "unknown", "same_key_only")]
    {
        let started = Instant::now();
        let reply = front.request(method, "/", &[("Request-Timeout", "200ms")], "").await;
        reply.assert_problem(504, "deadline_passed", outcome, retry);
        assert!(started.elapsed() >= Duration::from_millis(150));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    let status = front.get("/lb/status").await.json();
    assert_eq!(status["nodes"][0]["healthy"], true, "a client in a hurry proves nothing");
}

#[tokio::test]
async fn a_malformed_request_timeout_is_left_to_the_node() {
    let node = Node::named("refused by the node").await;
    let front = Front::before(&[&node]).await;
    front.request("GET", "/", &[("Request-Timeout", "soon")], "").await;
    assert_eq!(node.seen()[0].header("request-timeout"), Some("soon"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_off_as_whole() {
    let (feed, pieces) = tokio::sync::mpsc::channel(1);
    let pieces = std::sync::Mutex::new(Some(pieces));
    let mut node = Node::start(move |_| Act::Stream(pieces.lock().unwrap().take().unwrap())).await;
    let front = Front::before(&[&node]).await;
    feed.send("half".into()).await.unwrap();
    let uri = format!("http://{}/", front.address).parse().unwrap();
    let mut body = within("the head", front.client.get(uri)).await.unwrap().into_body();
    assert!(within("the first half", body.frame()).await.unwrap().is_ok());
    node.kill().await;
    assert!(within("the break", body.frame()).await.unwrap().is_err());
    front.until_healthy(&[false]).await;
}

/// Nodes do not know such a request again, and meanwhile somebody may have wanted something else.
#[tokio::test]
async fn what_operators_do_is_never_sent_again_once_a_node_may_have_done_it() {
    let broken = Node::start(|_| Act::Break).await;
    let done = Node::named("done").await;
    let operations = [
        ("POST", "/v1/cluster/members"),
        ("POST", "/v1/cluster/members/4:promote"),
        ("DELETE", "/v1/cluster/members/4"),
        ("POST", "/v1/cluster/leader:transfer"),
        ("POST", "/v1/snapshots"),
    ];
    for (method, target) in operations {
        // Whoever knows better than the balancer sends a key; it does not help.
        for headers in [&[][..], &[("Idempotency-Key", "mine")]] {
            let front = Front::before(&[&broken, &done]).await;
            let before = (broken.seen().len(), done.seen().len());
            let reply = front.request(method, target, headers, "").await;
            reply.assert_problem(503, "no_node_reachable", "unknown", "never");
            assert_eq!(reply.header("idempotency-key"), None, "none was made");
            assert_eq!((broken.seen().len(), done.seen().len()), (before.0 + 1, before.1));
        }
    }
}

#[tokio::test]
async fn what_operators_do_goes_on_to_the_next_node_when_certainly_nothing_was_done() {
    let refusing = Node::start(|_| Act::problem(503, "not_applied", "safe")).await;
    let done = Node::named("done").await;
    let dead = Node::dead().await;
    let front = Front::before(&[&dead, &refusing, &done]).await;
    for _ in 0..3 {
        let reply = front.request("DELETE", "/v1/cluster/members/4", &[], "").await;
        assert_eq!((reply.status, reply.text()), (200, "done"));
    }
    assert!(done.seen().iter().all(|seen| seen.header("idempotency-key").is_none()));
    assert!(!refusing.seen().is_empty());
}
