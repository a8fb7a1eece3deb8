//! What the balancer says about itself and the nodes.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::fake::{Act, Front, Node, Seen, config};

fn describe(seen: &Seen) -> Act {
    match seen.target.as_str() {
        "/v1/cluster" => Act::ok(&json!({"node": 1, "role": "leader", "term": 3}).to_string()),
        other => Act::ok(other),
    }
}

#[tokio::test]
async fn the_overview_gathers_what_every_node_says() {
    let nodes = [Node::start(describe).await, Node::dead().await, Node::named("no JSON").await];
    let front = Front::before(&nodes.each_ref()).await;
    front.until_healthy(&[true, false, true]).await;
    let reply = front.get("/lb/cluster").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let overview = reply.json();

    let [first, dead, strange] = [0, 1, 2].map(|index| &overview["nodes"][index]);
    assert_eq!(first["address"], nodes[0].address.to_string());
    assert_eq!((&first["reachable"], &first["healthy"]), (&json!(true), &json!(true)));
    assert_eq!(first["cluster"], json!({"node": 1, "role": "leader", "term": 3}));
    assert!(first.get("error").is_none());

    assert_eq!(dead["address"], nodes[1].address.to_string());
    assert_eq!((&dead["reachable"], &dead["healthy"]), (&json!(false), &json!(false)));
    assert!(dead["error"].as_str().unwrap().contains("refused"), "{dead}");
    assert!(dead["since_ms"].is_u64());
    assert!(dead.get("cluster").is_none());

    assert_eq!(strange["reachable"], false);
    assert!(strange["error"].as_str().unwrap().contains("not JSON"), "{strange}");
    assert!(overview["balancer"]["uptime_ms"].is_u64());
}

#[tokio::test]
async fn an_overview_does_not_wait_for_a_node_that_hangs() {
    let nodes = [Node::start(|_| Act::Hang).await, Node::start(describe).await];
    let mut config = config(&nodes.each_ref());
    config.probe_timeout = Duration::from_millis(200);
    let front = Front::with(config).await;
    let overview = front.get("/lb/cluster").await.json();
    assert_eq!(overview["nodes"][0]["reachable"], false);
    assert!(overview["nodes"][0]["error"].as_str().unwrap().contains("no answer within"));
    assert_eq!(overview["nodes"][1]["cluster"]["term"], 3);
}

#[tokio::test]
async fn pages_that_poll_at_once_share_one_overview() {
    let node = Node::start(describe).await;
    let front = Arc::new(Front::before(&[&node]).await);
    let mut pages = JoinSet::new();
    for _ in 0..20 {
        let front = Arc::clone(&front);
        pages.spawn(async move { front.get("/lb/cluster").await.status });
    }
    assert_eq!(pages.join_all().await, [200; 20]);
    let asked = node.seen().len();
    assert!(asked < 20, "the node was asked {asked} times");
}

#[tokio::test]
async fn status_counts_what_happened() {
    let nodes = [Node::start(|_| Act::Break).await, Node::named("a").await];
    let front = Front::before(&nodes.each_ref()).await;
    front.get("/").await;
    let status = front.get("/lb/status").await.json();
    assert_eq!((&status["requests"], &status["in_flight"]), (&json!(1), &json!(0)));
    assert_eq!(status["retries"], json!({"unreachable": 0, "broken": 1, "refused": 0}));
    let broken = &status["nodes"][0];
    assert_eq!((&broken["tries"], &broken["failures"]), (&json!(1), &json!(1)));
    assert!(!broken["last_error"].as_str().unwrap().is_empty());
    assert_eq!(status["nodes"][1]["tries"], 1);
    assert!(status["connections"].as_u64().unwrap() >= 1);
}

#[tokio::test]
async fn what_is_not_there_is_said_as_a_problem() {
    let node = Node::named("a").await;
    let front = Front::before(&[&node]).await;
    front.get("/lb/nothing").await.assert_problem(404, "unknown_path", "not_applied", "never");
    front.get("/lb/refused").await.assert_problem(404, "unknown_path", "not_applied", "never");
    let reply = front.post("/lb/status", "").await;
    reply.assert_problem(405, "method_not_allowed", "not_applied", "never");
    assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    assert!(node.seen().is_empty(), "the balancer's own paths are not forwarded");
}
