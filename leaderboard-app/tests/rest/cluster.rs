use std::time::{Duration, Instant};

use http::StatusCode;
use leaderboard_app::node::Node;
use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, Server, settings};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_describes_itself_and_its_cluster() {
    let server = Server::start().await;
    let client = server.client;
    let index = client.vote("a", 1).await.index();
    // The published status follows the state within moments.
    let deadline = Instant::now() + PATIENCE;
    let cluster = loop {
        let cluster = client.get("/v1/cluster").await.json();
        if cluster["members"][0]["match_index"] == index {
            break cluster;
        }
        assert!(Instant::now() < deadline, "{cluster}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(cluster["cluster"], "rest-test");
    assert_eq!((&cluster["node"], &cluster["leader"]), (&json!(1), &json!(1)));
    assert_eq!(cluster["role"], "leader");
    assert!(cluster["term"].as_u64().unwrap() >= 1);
    for member in ["last_index", "commit_index", "applied_index"] {
        assert_eq!(cluster[member], index, "{member}");
    }
    assert_eq!(cluster["snapshot_index"], 0);
    assert_eq!(cluster["digest"].as_str().unwrap().len(), 32);
    let member = json!({
        "id": 1,
        "raft": "127.0.0.1:1",
        "http": client.0.to_string(),
        "kind": "voter",
        "match_index": index,
        "lag_entries": 0,
        "healthy": true,
    });
    assert_eq!(cluster["members"], Value::Array(vec![member]));
    let log = &cluster["log"];
    assert_eq!((&log["space"], &log["limping"]), (&json!("ample"), &json!(false)));
    assert_eq!((&log["damages"], &log["repairs"]), (&json!(0), &json!(0)));
    assert!(log["syncs"].as_u64().unwrap() >= 1, "{log}");

    let alive = client.get("/livez").await;
    assert_eq!((alive.status, alive.json()["status"].clone()), (StatusCode::OK, json!("alive")));
    for (level, target) in [("linearizable", "/readyz"), ("stale", "/readyz?level=stale")] {
        let ready = client.get(target).await;
        assert_eq!(ready.status, StatusCode::OK);
        assert_eq!(ready.json(), json!({ "status": "ready", "node": 1, "level": level }));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_in_the_format_of_prometheus() {
    let server = Server::start().await;
    server.client.vote("a", 1).await;
    let reply = server.client.get("/metrics").await;
    assert_eq!(reply.status, StatusCode::OK);
    let kind = reply.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("wal_sync_seconds_count") >= 1.0);
    assert!(value("wal_batch_entries_sum") >= 1.0);
    assert!(value("raft_term") >= 1.0 && value("raft_leader_changes_total") >= 1.0);
    assert!(value("raft_commit_index") >= 1.0 && value("raft_is_leader") == 1.0);
    assert!(value("raft_proposal_seconds_count") >= 1.0 && value("apply_seconds_count") >= 1.0);
    assert_eq!(value("raft_proposals_failed_total{outcome=\"unknown\"}"), 0.0);
    // Other nodes of this process share the numbers, and none of them has a damaged or full disk.
    assert_eq!((value("wal_damages_total"), value("wal_space_low")), (0.0, 0.0));
    assert_eq!(server.client.get("/metrics?x=1").await.status, StatusCode::BAD_REQUEST);
    server.stop().await;
}

/// One of three members, the others never there: it lives, and says what it cannot do.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_it_answers_and_promises_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(settings(directory.path(), 3)).await.unwrap();
    let client = Client(node.http_address());
    assert_eq!(client.get("/livez").await.status, StatusCode::OK);
    assert_eq!(client.get("/readyz?level=stale").await.status, StatusCode::OK);
    let cluster = client.get("/v1/cluster").await.json();
    assert_eq!(cluster["leader"], Value::Null);
    assert_eq!(cluster["members"].as_array().unwrap().len(), 3);
    assert_eq!(cluster["members"][1]["healthy"], false);
    assert_eq!(cluster["links"].as_array().unwrap().len(), 2);
    let digest = cluster["digest"].clone();

    let soon = [("request-timeout", "60ms")];
    for (method, target) in [
        ("POST", "/add_vote?player=a"),
        ("GET", "/top_n_scores"),
        ("GET", "/player_rankings"),
        ("GET", "/player_rankings?player=a"),
        ("GET", "/readyz"),
    ] {
        let asked = Instant::now();
        let answer = client.send(method, target, &soon, "").await;
        assert!(asked.elapsed() < Duration::from_secs(4), "{target} took {:?}", asked.elapsed());
        let problem = answer.json();
        // Which of the two it is depends on what the node was doing when the time was up.
        match answer.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                assert_eq!(problem["code"], "no_leader", "{target}: {problem}");
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
            status => assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{target}: {problem}"),
        }
        assert_eq!(problem["outcome"], "not_applied", "{target}: {problem}");
        assert_eq!(problem["retry"], "safe");
        assert_eq!(problem["leader"], Value::Null);
        assert_eq!(answer.header("raft-leader"), None);
    }
    assert_eq!(client.get("/v1/cluster").await.json()["digest"], digest);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_brings_the_same_state_back() {
    let server = Server::start().await;
    for number in 0..20 {
        server.client.vote(&format!("p{}", number % 7), number).await;
    }
    let digest = server.client.digest().await;
    let ranking = server.client.get("/player_rankings").await.body;
    let directory = server.stop().await;
    let server = Server::start_in(directory, |_| {}).await;
    assert_eq!(server.client.get("/player_rankings").await.body, ranking);
    assert_eq!(server.client.digest().await, digest);
    server.stop().await;
}
