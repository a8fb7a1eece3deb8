//! What operators do, at a cluster of one: what is understood, what is refused, and what it says.

use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Server};

fn assert_problem(answer: &Answer, status: u16, code: &str, outcome: &str, retry: &str) {
    let problem = answer.json();
    let (outcome, retry) = (json!(outcome), json!(retry));
    assert_eq!((answer.status.as_u16(), &problem["code"]), (status, &json!(code)), "{problem}");
    assert_eq!((&problem["outcome"], &problem["retry"]), (&outcome, &retry), "{problem}");
}

async fn kinds(client: Client) -> Vec<(u64, String)> {
    let cluster = client.get("/v1/cluster").await.json();
    let members = cluster["members"].as_array().unwrap().iter();
    let kind = |it: &Value| (it["id"].as_u64().unwrap(), it["kind"].as_str().unwrap().to_owned());
    members.map(kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let client = server.client;
    for (body, status, code) in [
        ("", 400, "malformed_json"),
        ("{}", 400, "missing_parameter"),
        (r#"{"id":4}"#, 400, "missing_parameter"),
        (r#"{"raft":"a:1"}"#, 400, "missing_parameter"),
        (r#"{"id":"4","raft":"a:1"}"#, 400, "wrong_type"),
        (r#"{"id":4,"raft":1}"#, 400, "wrong_type"),
        (r#"{"id":4,"raft":"a:1","learner":"yes"}"#, 400, "wrong_type"),
        (r#"{"id":4,"raft":"a:1","voter":true}"#, 400, "unknown_parameter"),
        (r#"{"id":0,"raft":"a:1"}"#, 422, "out_of_range"),
        (r#"{"id":4,"raft":"a"}"#, 422, "invalid_address"),
        (r#"{"id":4,"raft":"a:0"}"#, 422, "invalid_address"),
        (r#"{"id":4,"raft":"a:1","http":"http://a:1"}"#, 422, "invalid_address"),
    ] {
        let answer = client.post_json("/v1/cluster/members", body).await;
        assert_problem(&answer, status, code, "not_applied", "never");
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = client.send("POST", "/v1/cluster/members", &form, "id=4&raft=a:1").await;
    assert_problem(&answer, 415, "unsupported_media_type", "not_applied", "never");
    for (method, target, status, code) in [
        ("POST", "/v1/cluster/members/4", 404, "unknown_path"),
        ("POST", "/v1/cluster/members/4:demote", 404, "unknown_path"),
        ("POST", "/v1/cluster/members/0:promote", 404, "unknown_path"),
        ("DELETE", "/v1/cluster/members/four", 404, "unknown_path"),
        ("DELETE", "/v1/cluster/members/4:promote", 404, "unknown_path"),
        ("DELETE", "/v1/cluster/members/+1", 404, "unknown_path"),
        ("GET", "/v1/cluster/members/1", 405, "method_not_allowed"),
        ("GET", "/v1/cluster/leader:transfer", 405, "method_not_allowed"),
        ("GET", "/v1/snapshots", 405, "method_not_allowed"),
        ("POST", "/v1/cluster/members/9:promote", 404, "unknown_member"),
        ("POST", "/v1/snapshots?now=yes", 400, "unknown_parameter"),
        ("DELETE", "/v1/cluster/members/1", 409, "last_voter"),
    ] {
        let answer = client.send(method, target, &[], "").await;
        assert_problem(&answer, status, code, "not_applied", "never");
    }
    assert_eq!(kinds(client).await, [(1, "voter".to_owned())]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_cannot_operate_the_cluster() {
    let server = Server::start().await;
    let client = server.client;
    let own = format!("http://{}", client.0);
    for (origin, status) in
        [("http://evil.example", 403), ("null", 403), ("", 403), (own.as_str(), 200)]
    {
        let headers = [("origin", origin)];
        let answer = client.send("DELETE", "/v1/cluster/members/9", &headers, "").await;
        assert_eq!(answer.status.as_u16(), status, "{origin}: {answer:?}");
        if status == 403 {
            assert_problem(&answer, 403, "cross_origin", "not_applied", "never");
        }
    }
    // Behind a balancer it is the balancer that the page came from.
    let headers = [("origin", "http://lb:8080"), ("x-forwarded-host", "lb:8080")];
    let answer = client.send("DELETE", "/v1/cluster/members/9", &headers, "").await;
    assert_eq!(answer.status, StatusCode::OK);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_comes_and_goes_and_giving_an_order_again_changes_nothing() {
    let server = Server::start().await;
    let client = server.client;
    client.vote("a", 1).await;
    let add = r#"{"id":4,"raft":"127.0.0.1:1","http":"127.0.0.1:2","learner":true}"#;
    for _ in 0..2 {
        let added = client.post_json("/v1/cluster/members", add).await;
        assert_eq!(added.json(), json!({ "id": 4, "kind": "learner" }), "{added:?}");
    }
    let members = client.get("/v1/cluster").await.json()["members"].clone();
    assert_eq!(
        (&members[1]["raft"], &members[1]["http"]),
        (&json!("127.0.0.1:1"), &json!("127.0.0.1:2"))
    );
    assert_eq!((&members[1]["kind"], &members[1]["healthy"]), (&json!("learner"), &json!(false)));

    // It does not run, so it cannot catch up; what is done of it is told.
    let soon = [("request-timeout", "200ms"), ("content-type", "application/json")];
    let promote = "/v1/cluster/members/4:promote";
    let answer = client.send("POST", promote, &soon[..1], "").await;
    assert_problem(&answer, 409, "not_caught_up", "not_applied", "safe");
    let vote = add.replace("true", "false");
    let answer = client.send("POST", "/v1/cluster/members", &soon, vote).await;
    assert_problem(&answer, 409, "not_caught_up", "unknown", "never");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("Node 4 is a member, but not a voter yet. n4 has not"), "{detail}");
    assert_eq!(kinds(client).await, [(1, "voter".to_owned()), (4, "learner".to_owned())]);

    for _ in 0..2 {
        let removed = client.send("DELETE", "/v1/cluster/members/4", &[], "").await;
        assert_eq!(removed.json(), json!({ "id": 4, "removed": true }), "{removed:?}");
    }
    assert_eq!(kinds(client).await, [(1, "voter".to_owned())]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_stays_where_nobody_else_votes_and_a_snapshot_is_cut() {
    let server = Server::start().await;
    let client = server.client;
    let index = client.vote("a", 1).await.index();
    let transfer = "/v1/cluster/leader:transfer";
    let answer = client.send("POST", transfer, &[], "").await;
    assert_problem(&answer, 409, "no_successor", "not_applied", "safe");
    let answer = client.post_json(transfer, r#"{"to":9}"#).await;
    assert_problem(&answer, 409, "not_a_voter", "not_applied", "never");
    let answer = client.post_json(transfer, r#"{"to":1}"#).await;
    assert_eq!(answer.json(), json!({ "leader": 1 }), "it leads already");

    let cut = client.send("POST", "/v1/snapshots", &[], "").await.json();
    assert_eq!((&cut["node"], &cut["index"]), (&json!(1), &json!(index)), "{cut}");
    assert!(cut["bytes"].as_u64().unwrap() > 0);
    let deadline = std::time::Instant::now() + crate::client::PATIENCE;
    while client.get("/v1/cluster").await.json()["snapshot_index"] != index {
        assert!(std::time::Instant::now() < deadline, "the status does not tell of it");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    server.stop().await;
}
