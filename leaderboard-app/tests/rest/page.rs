use http::StatusCode;

use crate::client::Server;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_under_a_strict_policy_and_cached_by_content() {
    let server = Server::start().await;
    let client = server.client;
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.css", "text/css; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/docs/errors.md", "text/markdown; charset=utf-8"),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("content-type"), Some(media_type));
        assert_eq!(answer.header("cache-control"), Some("no-cache"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        assert!(!policy.contains("unsafe"));
        assert!(!answer.body.is_empty());

        let tag = answer.header("etag").unwrap();
        let again = client.send("GET", path, &[("if-none-match", tag)], "").await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(again.header("etag"), Some(tag));
        let other = client.send("GET", path, &[("if-none-match", "\"other\"")], "").await;
        assert_eq!((other.status, other.body), (StatusCode::OK, answer.body.clone()));
        let head = client.send("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    }
    server.stop().await;
}
