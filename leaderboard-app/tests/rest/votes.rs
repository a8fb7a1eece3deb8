use http::StatusCode;
use serde_json::json;

use crate::client::{Answer, Client, Server};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_is_added_and_the_reply_says_what_it_did() {
    let server = Server::start().await;
    let answer = server.client.vote("alice", 10).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let index = answer.index();
    let expected = format!(r#"{{"player":"alice","score":10,"rank":1,"index":{index}}}"#);
    assert_eq!(answer.body, expected, "fields and their order are fixed");
    assert_eq!(answer.header("raft-node"), Some("1"));
    assert_eq!(answer.header("raft-leader"), Some("1"));
    assert_eq!(answer.header("consistency"), Some("linearizable"));
    assert_eq!(answer.header("idempotency-replayed"), None);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("raft-term").unwrap().parse::<u64>().unwrap() >= 1);

    let next = server.client.vote("bob", 11).await;
    assert!(next.index() > index);
    assert_eq!(next.json()["rank"], 1);
    assert_eq!(server.client.vote("alice", -3).await.json()["score"], 7);
    assert_eq!(server.client.vote("alice", 0).await.json()["rank"], 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_form_and_query_mean_the_same() {
    let server = Server::start().await;
    let client = server.client;
    let mut total = 0;
    for (target, header, body, score) in [
        ("/add_vote", Some(JSON), r#"{"player":"zoë +1","score":5}"#, 5),
        ("/add_vote", Some(JSON), r#"{"score":-2,"player":"zo\u00eb +1"}"#, -2),
        ("/add_vote", Some(JSON), r#" {"player":"zoë +1"} "#, 1),
        ("/add_vote", Some(FORM), "player=zo%C3%AB+%2B1&score=5", 5),
        ("/add_vote", Some(FORM), "player=zoë+%2B1", 1),
        ("/add_vote?player=zo%C3%AB%20%2b1&score=-4", None, "", -4),
        ("/add_vote?player=zo%C3%AB+%2B1", None, "", 1),
        ("/add_vote?score=7", Some(JSON), r#"{"player":"zoë +1"}"#, 7),
        ("/add_vote?", Some(FORM), "&player=zoë+%2B1&&score=007&", 7),
        ("/add_vote?player=zo%C3%AB+%2B1", Some(JSON), "{}", 1),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let answer = client.send("POST", target, &headers, body).await;
        total += score;
        assert_eq!(answer.status, StatusCode::OK, "{target} {body}: {answer:?}");
        assert_eq!(answer.json()["player"], "zoë +1");
        assert_eq!(answer.json()["score"], total, "{target} {body}");
    }
    let utf8 = ("content-type", "Application/JSON; Charset=\"UTF-8\"");
    let answer = client.send("POST", "/add_vote", &[utf8], r#"{"player":"a"}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    server.stop().await;
}

async fn vote_with_key(client: Client, key: &str, body: &str) -> Answer {
    client.send("POST", "/add_vote", &[JSON, ("idempotency-key", key)], body.to_owned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_counts_once_also_after_a_restart() {
    let server = Server::start().await;
    let first = vote_with_key(server.client, "k1", r#"{"player":"a","score":5}"#).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (StatusCode::OK, None));
    server.client.vote("b", 100).await;

    let directory = server.stop().await;
    let server = Server::start_in(directory, |_| {}).await;
    let client = server.client;
    // Spelled differently, but the same vote.
    let form = [FORM, ("idempotency-key", "k1")];
    let again = client.send("POST", "/add_vote", &form, "score=5&player=a").await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.body, first.body, "the receipt of the first time, rank and index and all");
    assert_eq!(again.index(), first.index());
    assert_eq!(again.header("raft-term"), first.header("raft-term"));

    let other = vote_with_key(client, "k1", r#"{"player":"a","score":6}"#).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem = other.json();
    assert_eq!(problem["code"], "idempotency_key_reused");
    assert_eq!(problem["outcome"], "not_applied");
    let ranking = client.get("/player_rankings").await.json();
    let expected = json!([
        { "rank": 1, "player": "b", "score": 100 },
        { "rank": 2, "player": "a", "score": 5 },
    ]);
    assert_eq!(ranking, expected);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_with_the_same_key_count_once() {
    let server = Server::start().await;
    let client = server.client;
    let tasks: Vec<_> = (0..20)
        .map(|_| tokio::spawn(vote_with_key(client, "k", r#"{"player":"a","score":5}"#)))
        .collect();
    let mut replayed = 0;
    let mut bodies = Vec::new();
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        replayed += usize::from(answer.header("idempotency-replayed").is_some());
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!((replayed, bodies.len()), (19, 1));
    assert_eq!(client.get("/player_rankings?player=a").await.json()["score"], 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_out_of_bounds_is_refused_and_the_refusal_is_final_for_its_key() {
    const MAX: i64 = 9_007_199_254_740_991;
    let server = Server::start().await;
    let client = server.client;
    client.vote("a", MAX).await;
    let digest = client.digest().await;
    let refused = client.post_json("/add_vote", r#"{"player":"a"}"#).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let problem = refused.json();
    assert_eq!(problem["code"], "score_out_of_bounds");
    assert_eq!((&problem["outcome"], &problem["retry"]), (&json!("not_applied"), &json!("never")));
    assert!(refused.index() > 0, "the state refused it, as of an index");
    assert_eq!(client.digest().await, digest);

    let keyed = vote_with_key(client, "k", r#"{"player":"a","score":1}"#).await;
    client.vote("a", -10).await;
    let again = vote_with_key(client, "k", r#"{"player":"a","score":1}"#).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.body, keyed.body);
    assert_eq!(client.get("/player_rankings?player=a").await.json()["score"], MAX - 10);
    server.stop().await;
}
