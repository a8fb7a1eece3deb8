use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, Server};

#[tokio::test(flavor = "multi_thread")]
async fn the_top_is_ranked_and_bounded() {
    let server = Server::start().await;
    let client = server.client;
    let empty = client.get("/top_n_scores").await;
    assert_eq!((empty.status, &*empty.body), (StatusCode::OK, &b"[]"[..]));
    let mut last = 0;
    for (player, score) in [("first", 5), ("second", 5), ("best", 9), ("least", -1)] {
        last = client.vote(player, score).await.index();
    }
    let answer = client.get("/top_n_scores?n=3").await;
    let expected = r#"[{"rank":1,"player":"best","score":9},{"rank":2,"player":"first","score":5},{"rank":3,"player":"second","score":5}]"#;
    assert_eq!(answer.body, expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("consistency"), Some("linearizable"));
    assert_eq!(answer.header("raft-node"), Some("1"));
    assert!(answer.index() >= last && answer.header("raft-term").is_some());

    for number in 0..12 {
        client.vote(&format!("p{number}"), 1).await;
    }
    let count = |value: Value| value.as_array().unwrap().len();
    assert_eq!(count(client.get("/top_n_scores").await.json()), 10);
    assert_eq!(count(client.get("/top_n_scores?n=1000").await.json()), 16);
    assert_eq!(count(client.get("/player_rankings").await.json()), 16);
    let head = client.send("HEAD", "/top_n_scores", &[], "").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    server.stop().await;
}

/// Follows the `Link` headers from a page to the last one.
async fn pages_from(client: Client, mut target: String) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    loop {
        let answer = client.get(&target).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        pages.push(answer.json().as_array().unwrap().clone());
        let Some(link) = answer.header("link") else { return pages };
        let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
        target = next.to_owned();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_gap_or_repeat() {
    let server = Server::start().await;
    let client = server.client;
    for number in 0..25 {
        client.vote(&format!("player {number}"), number % 4).await;
    }
    let whole = client.get("/player_rankings?limit=1000").await;
    assert_eq!(whole.header("link"), None, "a single page has no next one");
    let whole = whole.json().as_array().unwrap().clone();
    assert_eq!(whole.len(), 25);
    for limit in [1, 7, 24, 25] {
        let pages = pages_from(client, format!("/player_rankings?limit={limit}")).await;
        assert!(pages.iter().rev().skip(1).all(|page| page.len() == limit));
        assert_eq!(pages.concat(), whole, "limit {limit}");
    }

    // The player at the end of the first page moves away; the second page still starts behind the
    // place where that player stood.
    let first = client.get("/player_rankings?limit=5").await;
    let moved = first.json()[4]["player"].as_str().unwrap().to_owned();
    let next = first.header("link").unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    client.vote(&moved, 50).await;
    let second = client.get(&next).await.json();
    assert_eq!(second[0]["player"], whole[5]["player"]);
    assert_eq!(second[0]["rank"], 6);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_player_is_found_or_404() {
    let server = Server::start().await;
    let client = server.client;
    client.vote("a b/ü", 3).await;
    client.vote("c", 4).await;
    let answer = client.get("/player_rankings?player=a+b%2F%C3%BC").await;
    assert_eq!(answer.body, r#"{"rank":2,"player":"a b/ü","score":3,"of":2}"#);
    let missing = client.get("/player_rankings?player=nobody").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(missing.json()["code"], "unknown_player");
    assert_eq!(missing.json()["leader"], json!(1));
    assert!(missing.index() > 0, "unknown as of an index");
    server.stop().await;
}
