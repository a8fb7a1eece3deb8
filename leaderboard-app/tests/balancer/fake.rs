//! Fake nodes, a balancer before them, and a client.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use leaderboard_app::balancer::{Balancer, BalancerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

/// Longer than anything here takes, even on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition; panics with `what` when it does not come true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, waiting).await;
}

/// Waits for a future; panics with `what` when it takes too long.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long: {what}"),
    }
}

/// A request as a fake node saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn key(&self) -> &str {
        self.header("idempotency-key").expect("every write has a key")
    }
}

/// What a fake node does with a request.
pub(crate) enum Act {
    Reply(Response<Full<Bytes>>),
    /// Replies with what is sent through the channel, until it is closed.
    Stream(mpsc::Receiver<Bytes>),
    /// Closes the connection without a word.
    Break,
    /// Never answers.
    Hang,
    /// Answers with this text when it is told to.
    Wait(Arc<Notify>, &'static str),
}

impl Act {
    pub(crate) fn ok(text: &str) -> Self {
        Self::Reply(Response::new(Full::from(text.to_owned())))
    }

    pub(crate) fn problem(status: u16, outcome: &str, retry: &str) -> Self {
        Self::problem_with_code("x", status, outcome, retry)
    }

    pub(crate) fn problem_with_code(code: &str, status: u16, outcome: &str, retry: &str) -> Self {
        let problem = json!({"status": status, "code": code, "outcome": outcome, "retry": retry});
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/problem+json")
            .body(Full::from(problem.to_string()));
        Self::Reply(response.unwrap())
    }
}

type Behaviour = dyn Fn(&Seen) -> Act + Send + Sync;

/// A fake node: answers probes, records every other request and does with it as it was told.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
    probes: Arc<Mutex<Probes>>,
    serving: Option<JoinHandle<()>>,
}

/// How a fake node answers probes.
#[derive(Clone, Copy)]
pub(crate) enum Probes {
    Ready,
    NotReady,
    Silent,
}

impl Node {
    pub(crate) async fn start(behaviour: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut node = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            behaviour: Arc::new(Mutex::new(Arc::new(behaviour))),
            probes: Arc::new(Mutex::new(Probes::Ready)),
            serving: None,
        };
        node.serve(listener);
        node
    }

    /// A node that answers everything with its name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |_| Act::ok(name)).await
    }

    /// An address at which nobody listens.
    pub(crate) async fn dead() -> Self {
        let mut node = Self::named("dead").await;
        node.kill().await;
        node
    }

    /// Ends all connections and stops listening, as a killed process does.
    pub(crate) async fn kill(&mut self) {
        let serving = self.serving.take().expect("a node is killed once");
        serving.abort();
        let _ = serving.await;
    }

    /// Listens again at the same address.
    pub(crate) fn restart(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(64).unwrap());
    }

    pub(crate) fn behave(&self, behaviour: impl Fn(&Seen) -> Act + Send + Sync + 'static) {
        *self.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    pub(crate) fn answer_probes(&self, probes: Probes) {
        *self.probes.lock().unwrap() = probes;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn serve(&mut self, listener: TcpListener) {
        let (seen, probes) = (Arc::clone(&self.seen), Arc::clone(&self.probes));
        let behaviour = Arc::clone(&self.behaviour);
        self.serving = Some(tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, probes) = (Arc::clone(&seen), Arc::clone(&probes));
                let behaviour = Arc::clone(&behaviour);
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let behaviour = Arc::clone(&behaviour.lock().unwrap());
                        let probes = *probes.lock().unwrap();
                        handle(request, Arc::clone(&seen), probes, behaviour)
                    });
                    let io = TokioIo::new(stream);
                    let _ = http1::Builder::new().serve_connection(io, service).await;
                });
            }
        }));
    }
}

async fn handle(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    probes: Probes,
    behaviour: Arc<Behaviour>,
) -> io::Result<Response<Fed>> {
    if request.uri().path() == "/readyz" {
        let mut response = Response::new(Fed::Whole(Full::default()));
        match probes {
            Probes::Ready => {}
            Probes::NotReady => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
            Probes::Silent => std::future::pending().await,
        }
        return Ok(response);
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let request =
        Seen { method: parts.method, target: parts.uri.to_string(), headers: parts.headers, body };
    seen.lock().unwrap().push(request.clone());
    match behaviour(&request) {
        Act::Reply(response) => Ok(response.map(Fed::Whole)),
        Act::Stream(pieces) => Ok(Response::new(Fed::Piecewise(pieces))),
        Act::Break => Err(io::Error::other("told to break")),
        Act::Hang => std::future::pending().await,
        Act::Wait(told, text) => {
            told.notified().await;
            Ok(Response::new(Fed::Whole(Full::from(text))))
        }
    }
}

enum Fed {
    Whole(Full<Bytes>),
    Piecewise(mpsc::Receiver<Bytes>),
}

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            Self::Piecewise(pieces) => {
                pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Piecewise(_) => SizeHint::default(),
        }
    }
}

/// A balancer before these nodes, and a client of it.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client<HttpConnector, Full<Bytes>>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

/// A whole reply.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Asserts that it is a problem document with these words.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str, outcome: &str, retry: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        let words = ["code", "outcome", "retry"].map(|word| problem[word].as_str().unwrap());
        assert_eq!(words, [code, outcome, retry], "{problem}");
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
}

/// The defaults, with more probes, and with more patience where a busy machine could be mistaken
/// for a dead node.
pub(crate) fn config(nodes: &[&Node]) -> BalancerConfig {
    let nodes = nodes.iter().map(|node| node.address.into()).collect();
    BalancerConfig {
        probe_interval: Duration::from_millis(50),
        probe_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        ..BalancerConfig::new("127.0.0.1:0".parse().unwrap(), nodes)
    }
}

impl Front {
    pub(crate) async fn before(nodes: &[&Node]) -> Self {
        Self::with(config(nodes)).await
    }

    pub(crate) async fn with(config: BalancerConfig) -> Self {
        let (stop, stopped) = oneshot::channel();
        let balancer = Balancer::bind(config).await.unwrap();
        let (address, serving) = balancer.serve(async {
            // A sender that is dropped stops it too.
            let _ = stopped.await;
        });
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { address, client, stop: Some(stop), serving: tokio::spawn(serving) }
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.request("GET", target, &[], "").await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Reply {
        self.request("POST", target, &[], body).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let mut request =
            Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let replying = async {
            let (head, body) = self.client.request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Reply { status: head.status.as_u16(), headers: head.headers, body }
        };
        within("a reply", replying).await
    }

    /// Waits until the balancer holds each node for healthy (`true`) or down, in order.
    pub(crate) async fn until_healthy(&self, expected: &[bool]) {
        let asking = async {
            loop {
                let status = self.get("/lb/status").await.json();
                let nodes = status["nodes"].as_array().unwrap();
                let healthy: Vec<bool> =
                    nodes.iter().map(|node| node["healthy"].as_bool().unwrap()).collect();
                if healthy == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("the balancer to see which nodes answer", asking).await;
    }

    /// Tells the balancer to stop, without waiting for it.
    pub(crate) fn stop(&mut self) {
        self.stop.take().expect("stopped once").send(()).unwrap();
    }

    /// Waits for the balancer's end.
    pub(crate) async fn ended(self) {
        within("the balancer to end", self.serving).await.unwrap();
    }
}
