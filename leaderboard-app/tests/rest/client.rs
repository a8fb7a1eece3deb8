//! A single node to talk to, and a client that says what it got.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use leaderboard_app::node::{Node, NodeSettings};
use raft_grpc::{NodeConfig, NodeId};
use serde_json::Value;
use tokio::net::TcpStream;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node in a directory of its own, which leads its cluster of one.
pub(crate) struct Server {
    pub(crate) node: Node,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) client: Client,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |_| {}).await
    }

    /// In a directory that may hold a log already, with other settings.
    pub(crate) async fn start_in(
        directory: tempfile::TempDir,
        change: impl FnOnce(&mut NodeSettings),
    ) -> Self {
        let mut settings = settings(directory.path(), 1);
        change(&mut settings);
        let node = Node::start(settings).await.unwrap();
        let client = Client(node.http_address());
        let server = Self { node, directory, client };
        server.client.wait_until_ready().await;
        server
    }

    /// Stops, and gives the directory back.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.node.stop().await.unwrap();
        self.directory
    }
}

/// Node 1 of a cluster of `members`, of which no other is there.
pub(crate) fn settings(directory: &Path, members: u64) -> NodeSettings {
    let id = |id| NodeId::new(id).unwrap();
    // Port 0 is free to take, and nobody answers at port 1.
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let peers: BTreeMap<_, _> = (1..=members).map(|n| (id(n), "127.0.0.1:1".to_owned())).collect();
    let mut raft = NodeConfig::new("rest-test", id(1), directory, local, peers);
    raft.election_timeout = Duration::from_millis(100);
    raft.heartbeat_interval = Duration::from_millis(20);
    NodeSettings::new(raft, local)
}

#[derive(Clone, Copy)]
pub(crate) struct Client(pub(crate) SocketAddr);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The index that the answer reflects.
    pub(crate) fn index(&self) -> u64 {
        self.header("raft-index").unwrap().parse().unwrap()
    }
}

impl Client {
    /// Sends one request on a connection of its own.
    pub(crate) async fn send(
        self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let answer = self.send_patiently(method, target, headers, body.into());
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        answer.unwrap_or_else(|_| panic!("{method} {target} was not answered in {PATIENCE:?}"))
    }

    async fn send_patiently(
        self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Answer {
        let stream = TcpStream::connect(self.0).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(target)
            .header("host", self.0.to_string());
        for (name, value) in headers {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        drop(sender);
        let _ = connection.await.unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub(crate) async fn get(self, target: &str) -> Answer {
        self.send("GET", target, &[], "").await
    }

    pub(crate) async fn post_json(self, target: &str, body: &str) -> Answer {
        self.send("POST", target, &[("content-type", "application/json")], body.to_owned()).await
    }

    /// Adds a score, which has to work.
    pub(crate) async fn vote(self, player: &str, score: i64) -> Answer {
        let body = serde_json::json!({ "player": player, "score": score }).to_string();
        let answer = self.post_json("/add_vote", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer
    }

    /// The digest of the whole state, as of now.
    pub(crate) async fn digest(self) -> String {
        self.get("/v1/cluster").await.json()["digest"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn wait_until_ready(self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/readyz").await.status != StatusCode::OK {
            assert!(Instant::now() < deadline, "the node did not become ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
