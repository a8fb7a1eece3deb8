//! Connections: hyper underneath, with a bound on everything that a client could use up.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Rest;
use crate::lingering;

/// What one client may use, and all of them together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at once; more wait in the system's queue until one closes.
    pub(crate) connections_max: usize,
    /// How long a connection may take to send the head of a request, and so be idle between two.
    pub(crate) head_timeout: Duration,
    /// Bytes in the head of a request; more are answered with 431.
    pub(crate) head_bytes_max: usize,
    /// How long requests under way may take when the node stops.
    pub(crate) drain_timeout: Duration,
}

/// How long to pause after an error of `accept`, which mostly means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` resolves; then takes no more connections, lets requests under way finish
/// and returns.
pub(crate) async fn serve(
    listener: TcpListener,
    rest: Rest,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let connections = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot.expect("the semaphore is never closed"), listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, rest.clone(), limits);
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "an HTTP connection ended badly");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, connections.shutdown()).await.is_err() {
        tracing::warn!("some HTTP requests were cut off: they took too long to finish");
    }
}

/// One connection, from its first request to its last.
fn connection(
    stream: TcpStream,
    rest: Rest,
    limits: Limits,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send {
    // Replies are small and whole: waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (stream, unread) = lingering::Connection::new(stream);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (mut rest, unread) = (rest.clone(), unread.clone());
        async move {
            let request = unread.watch(request).map(Body::new);
            let mut response = rest.answer(request).await;
            unread.close_after(response.headers_mut());
            Ok::<_, Infallible>(response)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes_max)
        .serve_connection(TokioIo::new(stream), service)
}
