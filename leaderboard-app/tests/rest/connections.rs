//! What happens below the level of whole requests: broken, slow, oversized and many of them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{PATIENCE, Server};

/// Sends bytes as they are and reads to the end of the connection.
async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.client.0).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_refused_and_the_node_goes_on() {
    let server = Server::start().await;
    let digest = server.client.digest().await;
    for (bytes, expected) in [
        (&b"garbage\r\n\r\n"[..], "HTTP/1.1 400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n", "HTTP/1.1 400"),
        (
            b"POST /add_vote?player=a HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 400",
        ),
        (
            b"POST /add_vote?player=a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\
              content-length: 2\r\n\r\nab",
            "HTTP/1.1 400",
        ),
    ] {
        let answer = exchange(&server, bytes).await;
        assert!(answer.starts_with(expected), "{answer}");
    }
    let mut long = b"GET /livez HTTP/1.1\r\nhost: a\r\nx: ".to_vec();
    long.resize(64 << 10, b'a');
    long.extend_from_slice(b"\r\n\r\n");
    let answer = exchange(&server, &long).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(server.client.digest().await, digest);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_or_dawdles_is_no_vote() {
    let server = Server::start().await;
    let digest = server.client.digest().await;
    let head = "POST /add_vote HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                content-type: application/json\r\n";
    let slow = format!("{head}request-timeout: 100ms\r\ncontent-length: 30\r\n\r\n{{\"player\"");
    let answer = exchange(&server, slow.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains(r#""code":"slow_request","outcome":"not_applied","retry":"safe""#));

    let broken = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n{{\"pla\r\nnot a chunk\r\n");
    let answer = exchange(&server, broken.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");

    let mut endless = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..17 {
        endless.extend_from_slice(b"10000\r\n");
        endless.resize(endless.len() + 0x10000, b' ');
        endless.extend_from_slice(b"\r\n");
    }
    let answer = exchange(&server, &endless).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut stream = TcpStream::connect(server.client.0).await.unwrap();
    let cut = format!("{head}content-length: 30\r\n\r\n{{\"player\":\"a\"");
    stream.write_all(cut.as_bytes()).await.unwrap();
    drop(stream);
    assert_eq!(server.client.digest().await, digest);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_heads_are_cut_off_and_make_room() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_in(directory, |settings| {
        settings.connections_max = 2;
        settings.head_timeout = Duration::from_millis(300);
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.client.0).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.unwrap();
        slow.push(stream);
    }
    // All places are taken by clients that dawdle: this one waits, and gets its turn.
    assert!(server.client.get("/livez").await.status.is_success());
    for stream in &mut slow {
        let answer = read_to_end(stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_many_requests_and_closes_when_the_node_stops() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.client.0).await.unwrap();
    let request = b"POST /add_vote?player=a HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    let mut answers = String::new();
    for number in 1..=20 {
        stream.write_all(request).await.unwrap();
        let total = format!(r#"{{"player":"a","score":{number},"rank":1,"#);
        while !answers.contains(&total) {
            let mut part = [0; 1024];
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut part));
            let read = read.await.unwrap().unwrap();
            assert_ne!(read, 0, "closed after {answers}");
            answers.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
    }
    let address = server.client.0;
    server.stop().await;
    assert_eq!(read_to_end(&mut stream).await, "", "an idle connection just closes");
    assert!(TcpStream::connect(address).await.is_err(), "the port is released");
}
