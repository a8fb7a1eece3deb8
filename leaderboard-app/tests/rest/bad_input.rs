//! Everything that a client can get wrong, what it is told, and that nothing changes.

use http::StatusCode;

use crate::client::Server;

type Headers = &'static [(&'static str, &'static str)];

const JSON: Headers = &[("content-type", "application/json")];
const FORM: Headers = &[("content-type", "application/x-www-form-urlencoded")];
const NONE: Headers = &[];

/// A bad vote: query, headers, body; status and code of the answer.
const VOTES: &[(&str, Headers, &str, u16, &str)] = &[
    ("", JSON, "", 400, "malformed_json"),
    ("", JSON, "{", 400, "malformed_json"),
    ("", JSON, "{\"player\":\"a\"", 400, "malformed_json"),
    ("", JSON, "{\"player\":\"a\"}x", 400, "malformed_json"),
    ("", JSON, "{\"player\":\"a\",}", 400, "malformed_json"),
    ("", JSON, "{'player':'a'}", 400, "malformed_json"),
    ("", JSON, "{\"player\":\"a\\ud800\"}", 400, "malformed_json"),
    ("", JSON, "{\"player\":\"a\",\"score\":01}", 400, "malformed_json"),
    ("", JSON, "{\"player\":\"a\",\"score\":+1}", 400, "malformed_json"),
    ("", JSON, "{\"player\":\"a\",\"score\":NaN}", 400, "malformed_json"),
    ("", JSON, "player=a", 400, "malformed_json"),
    ("", JSON, "[]", 400, "wrong_type"),
    ("", JSON, "null", 400, "wrong_type"),
    ("", JSON, "\"alice\"", 400, "wrong_type"),
    ("", JSON, "{}", 400, "missing_parameter"),
    ("", JSON, "{\"score\":1}", 400, "missing_parameter"),
    ("", JSON, "{\"player\":1}", 400, "wrong_type"),
    ("", JSON, "{\"player\":null}", 400, "wrong_type"),
    ("", JSON, "{\"player\":[\"a\"]}", 400, "wrong_type"),
    ("", JSON, "{\"player\":{\"name\":\"a\"}}", 400, "wrong_type"),
    ("", JSON, "{\"player\":\"a\",\"score\":\"1\"}", 400, "wrong_type"),
    ("", JSON, "{\"player\":\"a\",\"score\":null}", 400, "wrong_type"),
    ("", JSON, "{\"player\":\"a\",\"score\":true}", 400, "wrong_type"),
    ("", JSON, "{\"player\":\"a\",\"score\":1.5}", 400, "wrong_type"),
    ("", JSON, "{\"player\":\"a\",\"score\":1e3}", 400, "wrong_type"),
    ("", JSON, "{\"player\":\"a\",\"scroe\":1}", 400, "unknown_parameter"),
    ("", JSON, "{\"player\":\"a\",\"player\":\"b\"}", 400, "duplicate_parameter"),
    ("?player=a", JSON, "{\"player\":\"a\"}", 400, "duplicate_parameter"),
    ("", JSON, "{\"player\":\"\"}", 422, "invalid_name"),
    ("", JSON, "{\"player\":\"a\\u0000\"}", 422, "invalid_name"),
    ("", JSON, "{\"player\":\"a\\nb\"}", 422, "invalid_name"),
    ("", JSON, "{\"player\":\"\\u0085\"}", 422, "invalid_name"),
    ("", JSON, "{\"player\":\"a\",\"score\":9007199254740992}", 422, "out_of_range"),
    ("", JSON, "{\"player\":\"a\",\"score\":-9007199254740992}", 422, "out_of_range"),
    ("", JSON, "{\"player\":\"a\",\"score\":99999999999999999999999}", 422, "out_of_range"),
    ("", FORM, "", 400, "missing_parameter"),
    ("", FORM, "score=1", 400, "missing_parameter"),
    ("", FORM, "player=a&score=", 400, "wrong_type"),
    ("", FORM, "player=a&score=one", 400, "wrong_type"),
    ("", FORM, "player=a&score=1.0", 400, "wrong_type"),
    ("", FORM, "player=a&score=+1", 400, "wrong_type"),
    ("", FORM, "player=a&score=--1", 400, "wrong_type"),
    ("", FORM, "player=a&score=9007199254740992", 422, "out_of_range"),
    ("", FORM, "player=", 422, "invalid_name"),
    ("", FORM, "player", 422, "invalid_name"),
    ("", FORM, "player=a%00", 422, "invalid_name"),
    ("", FORM, "player=a&player=a", 400, "duplicate_parameter"),
    ("", FORM, "player=a&name=b", 400, "unknown_parameter"),
    ("", FORM, "player=%zz", 400, "malformed_parameters"),
    ("", FORM, "player=%f", 400, "malformed_parameters"),
    ("", FORM, "player=%ff", 400, "malformed_parameters"),
    ("", FORM, "{\"player\":\"a\"}", 400, "malformed_parameters"),
    ("?player=%ff", NONE, "", 400, "malformed_parameters"),
    ("?player=a&scroe=2", NONE, "", 400, "unknown_parameter"),
    ("?player=a&score=2&score=2", NONE, "", 400, "duplicate_parameter"),
    ("", NONE, "", 400, "missing_parameter"),
    ("", NONE, "{\"player\":\"a\"}", 415, "unsupported_media_type"),
    ("", &[("content-type", "text/plain")], "{\"player\":\"a\"}", 415, "unsupported_media_type"),
    ("", &[("content-type", "application/xml")], "<a/>", 415, "unsupported_media_type"),
    (
        "",
        &[("content-type", "application/json; charset=latin1")],
        "{\"player\":\"a\"}",
        415,
        "unsupported_media_type",
    ),
    (
        "",
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        "{\"player\":\"a\"}",
        415,
        "unsupported_media_type",
    ),
    ("?player=a", &[("idempotency-key", "")], "", 400, "invalid_header"),
    ("?player=a", &[("idempotency-key", "ä")], "", 400, "invalid_header"),
    ("?player=a", &[("idempotency-key", "a"), ("idempotency-key", "b")], "", 400, "invalid_header"),
    ("?player=a", &[("request-timeout", "800")], "", 400, "invalid_header"),
    ("?player=a", &[("request-timeout", "soon")], "", 400, "invalid_header"),
    ("?player=a", &[("request-timeout", "0ms")], "", 400, "invalid_header"),
    ("?player=a", &[("request-timeout", "-1s")], "", 400, "invalid_header"),
    ("?player=a", &[("request-timeout", "61s")], "", 400, "invalid_header"),
];

/// A bad request besides votes: method, target, status, code.
const OTHERS: &[(&str, &str, u16, &str)] = &[
    ("GET", "/top_n_scores?n=0", 422, "out_of_range"),
    ("GET", "/top_n_scores?n=-1", 422, "out_of_range"),
    ("GET", "/top_n_scores?n=1001", 422, "out_of_range"),
    ("GET", "/top_n_scores?n=99999999999999999999", 422, "out_of_range"),
    ("GET", "/top_n_scores?n=abc", 400, "wrong_type"),
    ("GET", "/top_n_scores?n=1.5", 400, "wrong_type"),
    ("GET", "/top_n_scores?n=", 400, "wrong_type"),
    ("GET", "/top_n_scores?n", 400, "wrong_type"),
    ("GET", "/top_n_scores?n=1&n=2", 400, "duplicate_parameter"),
    ("GET", "/top_n_scores?limit=5", 400, "unknown_parameter"),
    ("GET", "/top_n_scores?n=%", 400, "malformed_parameters"),
    ("GET", "/player_rankings?limit=0", 422, "out_of_range"),
    ("GET", "/player_rankings?limit=1001", 422, "out_of_range"),
    ("GET", "/player_rankings?limit=ten", 400, "wrong_type"),
    ("GET", "/player_rankings?cursor=", 400, "invalid_cursor"),
    ("GET", "/player_rankings?cursor=00", 400, "invalid_cursor"),
    ("GET", "/player_rankings?cursor=%00%ff", 400, "malformed_parameters"),
    (
        "GET",
        "/player_rankings?cursor=010000000000000000000000000000000000000000",
        400,
        "invalid_cursor",
    ),
    ("GET", "/player_rankings?player=", 422, "invalid_name"),
    ("GET", "/player_rankings?player=%0a", 422, "invalid_name"),
    ("GET", "/player_rankings?player=a&limit=5", 400, "conflicting_parameters"),
    ("GET", "/player_rankings?player=a&cursor=00", 400, "conflicting_parameters"),
    ("GET", "/player_rankings?player=nobody", 404, "unknown_player"),
    ("GET", "/readyz?level=none", 422, "out_of_range"),
    ("GET", "/readyz?lvl=stale", 400, "unknown_parameter"),
    ("GET", "/v1/cluster?x=1", 400, "unknown_parameter"),
    ("GET", "/no/such/path", 404, "unknown_path"),
    ("GET", "/top_n_scores/", 404, "unknown_path"),
    ("GET", "//", 404, "unknown_path"),
    ("GET", "/%2e%2e/secret", 404, "unknown_path"),
    ("GET", "/lb/cluster", 404, "unknown_path"),
    ("GET", "/add_vote?player=a", 405, "method_not_allowed"),
    ("HEAD", "/add_vote?player=a", 405, ""),
    ("PUT", "/add_vote?player=a", 405, "method_not_allowed"),
    ("OPTIONS", "/add_vote", 405, "method_not_allowed"),
    ("BREW", "/add_vote", 405, "method_not_allowed"),
    ("POST", "/top_n_scores", 405, "method_not_allowed"),
    ("DELETE", "/player_rankings", 405, "method_not_allowed"),
    ("POST", "/v1/cluster", 405, "method_not_allowed"),
    ("POST", "/", 405, "method_not_allowed"),
];

fn check(what: &str, answer: &crate::client::Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(answer.header("raft-node"), Some("1"), "{what}");
    if code.is_empty() {
        assert!(answer.body.is_empty(), "{what}: HEAD has no body");
        return;
    }
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{what}: {problem}");
    assert_eq!(problem["type"], format!("/docs/errors.md#{code}"), "{what}");
    assert_eq!(problem["status"], status, "{what}");
    assert_eq!(problem["outcome"], "not_applied", "{what}");
    assert_eq!(problem["retry"], "never", "{what}");
    assert_eq!(problem["leader"], 1, "{what}");
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| text.len() > 5), "{what}: {problem}");
    }
    assert_eq!(problem.as_object().unwrap().len(), 8, "{what}: {problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_named_and_changes_nothing() {
    let server = Server::start().await;
    let client = server.client;
    client.vote("alice", 10).await;
    let before = (client.digest().await, client.get("/player_rankings").await.body);
    for (query, headers, body, status, code) in VOTES {
        let answer = client.send("POST", &format!("/add_vote{query}"), headers, *body).await;
        check(&format!("{query} {headers:?} {body}"), &answer, *status, code);
    }
    for (method, target, status, code) in OTHERS {
        let answer = client.send(method, target, &[], "").await;
        check(&format!("{method} {target}"), &answer, *status, code);
        let allow = answer.header("allow");
        assert_eq!(allow.is_some(), *status == 405, "{method} {target}: {allow:?}");
    }
    let allow = client.get("/add_vote").await;
    assert_eq!(allow.header("allow"), Some("POST"));
    let after = (client.digest().await, client.get("/player_rankings").await.body);
    assert_eq!(before, after);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_are_bounded_to_the_byte() {
    let server = Server::start().await;
    let client = server.client;
    for (name, status) in [
        ("a".repeat(64), 200),
        ("a".repeat(65), 422),
        ("ä".repeat(32), 200),
        (format!("{}a", "ä".repeat(32)), 422),
        ("🎲".repeat(16), 200),
        ("a".repeat(100_000), 422),
    ] {
        let body = serde_json::json!({ "player": name }).to_string();
        let answer = client.post_json("/add_vote", &body).await;
        assert_eq!(answer.status.as_u16(), status, "{} bytes", name.len());
    }
    for (length, status) in [(1, 200), (128, 200), (129, 400)] {
        let key = "k".repeat(length);
        let answer =
            client.send("POST", "/add_vote?player=k", &[("idempotency-key", &key)], "").await;
        assert_eq!(answer.status.as_u16(), status, "a key of {length}");
    }
    let mib = 1 << 20;
    let frame = r#"{"player":"big"}"#.len();
    let padded = |length: usize| format!("{{\"player\":\"big\"{}}}", " ".repeat(length - frame));
    let answer = client.post_json("/add_vote", &padded(mib)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let digest = client.digest().await;
    let answer = client.post_json("/add_vote", &padded(mib + 1)).await;
    check("1 MiB and a byte", &answer, 413, "body_too_large");
    assert_eq!(client.digest().await, digest);
    server.stop().await;
}
