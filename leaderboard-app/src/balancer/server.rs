//! Connections from clients: accepted up to a bound, served by hyper, drained at shutdown.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::client::NodeClient;
use super::config::BalancerConfig;
use super::forward::Forwarder;
use super::framing::{REFUSED_TARGET, Refusal, StrictFraming};
use super::health;
use super::nodes::Nodes;
use super::problem::{Kind, Problem};
use super::reply::ReplyBody;
use super::request::{self, Bodies};
use super::status::{Counted, PREFIX, Status};
use crate::lingering::{self, Unread};

/// After a failed accept (no file descriptors left, say) there is this pause, not a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all connections share.
#[derive(Debug)]
struct Shared {
    config: BalancerConfig,
    forwarder: Forwarder,
    status: Status,
    bodies: Arc<Bodies>,
}

/// Serves until `shutdown` resolves, then gives what is in flight its time to finish.
pub(super) async fn serve(
    config: BalancerConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    let client = NodeClient::new(&config);
    let nodes = Nodes::new(&config.nodes);
    // Dropping the set at the end stops the probes.
    let mut probes = JoinSet::new();
    for node in nodes.iter() {
        probes.spawn(health::probe(Arc::clone(node), client.clone(), config.clone()));
    }
    let shared = Arc::new(Shared {
        forwarder: Forwarder::new(nodes, client, config.try_timeout),
        status: Status::new(&config),
        bodies: Bodies::new(config.bodies_bytes_max),
        config,
    });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(&shared, &listener, &graceful, &mut connections) => {}
        () = shutdown => {}
    }
    drop(listener);
    if timeout(shared.config.drain_timeout, graceful.shutdown()).await.is_err() {
        let cut = connections.len();
        warn!(cut, "requests were still in flight at the end of the drain timeout");
    }
    connections.shutdown().await;
}

/// Accepts for ever; when too many are connected, the next wait in the listen queue.
async fn accept(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    graceful: &GracefulShutdown,
    connections: &mut JoinSet<()>,
) {
    let places = Arc::new(Semaphore::new(shared.config.connections_max as usize));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
        // What has ended is forgotten before more begins, so the set stays bounded.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                let watcher = graceful.watcher();
                connections.spawn(connection(Arc::clone(shared), stream, client, watcher, place));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    client: SocketAddr,
    watcher: Watcher,
    _place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%client, %error, "cannot turn off Nagle's algorithm");
    }
    let counters = shared.status.counters();
    let _counted = Counted::new(&counters.connections);
    let (stream, unread) = lingering::Connection::new(stream);
    let (gate, refusal) = StrictFraming::new(stream, shared.config.head_bytes_max);
    let service = service_fn(|request| {
        let (shared, unread, refusal) = (Arc::clone(&shared), unread.clone(), Arc::clone(&refusal));
        async move {
            let mut response = answer(&shared, request, client, &unread, &refusal).await;
            unread.close_after(response.headers_mut());
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.head_read_timeout)
        .serve_connection(TokioIo::new(gate), service);
    if let Err(error) = pin!(watcher.watch(serving)).await {
        // Clients come and go as they like: nothing here is the operator's concern.
        debug!(%client, %error, "connection ended");
    }
}

async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    client: SocketAddr,
    unread: &Unread,
    refusal: &OnceLock<Refusal>,
) -> Response<ReplyBody> {
    let counters = shared.status.counters();
    let request = unread.watch(request);
    let path = request.uri().path();
    if let (Some(refusal), REFUSED_TARGET) = (refusal.get(), path) {
        unread.head_was_refused();
        let kind = match refusal {
            Refusal::HeadTooLarge => Kind::HeadTooLarge,
            _ => Kind::MalformedRequest,
        };
        return Problem::new(kind, refusal.to_string()).closing().response().map(ReplyBody::from);
    }
    if path.starts_with(PREFIX) {
        let answer = shared.status.answer(request.method(), path, &shared.forwarder);
        return answer.await.map(ReplyBody::from);
    }
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let _counted = Counted::new(&counters.in_flight);
    match request::admit(request, client, &shared.config, &shared.bodies).await {
        Ok(request) => shared.forwarder.forward(&request).await,
        Err(problem) => problem.response().map(ReplyBody::from),
    }
}
