//! The door on the Raft port: accepts connections, and shows those out that do not speak HTTP/2, or not TLS and
//! HTTP/2 inside if this node does.
//!
//! tonic would close them too, but without a word, and a connection that says nothing it would keep
//! for ever.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use raft_core::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::meters::refused_peers;
use crate::security::{CertificateNames, Security};
use crate::throttle::Throttle;
use crate::transport::{Remote, Transport, accept_tls, begins_as_tls};

/// How many connections may be open at once. A cluster needs two per peer.
const CONNECTIONS_MAX: usize = 1024;

/// How many of them may be in the middle of a TLS handshake. Each may hold some tens of kilobytes for somebody
/// who has not shown a certificate yet.
const TLS_HANDSHAKES_MAX: usize = 128;

/// How many accepted connections may wait for tonic.
pub(crate) const ACCEPTED_MAX: usize = 16;

/// What every HTTP/2 connection begins with (RFC 9113, §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a connection may take to say it.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait when the system gives out no more connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until `stop`, then closes the port.
pub(crate) async fn accept(
    node: NodeId,
    listener: TcpListener,
    security: Security,
    accepted: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let throttle = Arc::new(Throttle::new(Duration::from_secs(1)));
    let mut handshakes = JoinSet::new();
    let accept_all = async {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Of one connection that is gone already, or the process has too many open
                    // files.
                    tracing::warn!(%node, "cannot accept a connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let arrival = Arrival { node, address, throttle: Arc::clone(&throttle) };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                arrival.refuse(format_args!("{CONNECTIONS_MAX} are open already"));
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%node, %address, "cannot set TCP_NODELAY: {error}");
            }
            let Some(credentials) = security.credentials() else {
                let connection = Connection::new(arrival, Transport::Plain(stream), None, place);
                if accepted.send(Ok(connection)).await.is_err() {
                    return;
                }
                continue;
            };
            while handshakes.try_join_next().is_some() {}
            if handshakes.len() >= TLS_HANDSHAKES_MAX {
                arrival.refuse(format_args!("{TLS_HANDSHAKES_MAX} TLS handshakes are under way"));
                continue;
            }
            let accepted = accepted.clone();
            handshakes.spawn(async move {
                match accept_tls(stream, &credentials).await {
                    Ok((transport, names)) => {
                        let connection = Connection::new(arrival, transport, Some(names), place);
                        let _ = accepted.send(Ok(connection)).await; // The server may have ended.
                    }
                    Err(why) => arrival.refuse(why),
                }
            });
        }
    };
    stop.run_until_cancelled(accept_all).await;
}

/// Somebody who is at the door.
#[derive(Debug)]
struct Arrival {
    node: NodeId,
    address: SocketAddr,
    throttle: Arc<Throttle>,
}

impl Arrival {
    fn refuse(&self, why: impl fmt::Display) {
        let Self { node, address: remote, throttle } = self;
        refused_peers().increment(1);
        if let Some(suppressed) = throttle.allow() {
            tracing::warn!(%node, %remote, suppressed, "refused a connection: {why}");
        }
    }
}

/// A connection that is closed unless it begins as HTTP/2 does.
#[derive(Debug)]
pub(crate) struct Connection {
    transport: Transport,
    remote: Remote,
    /// Until it is complete.
    preface: Option<Preface>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Preface {
    seen: usize,
    timeout: Pin<Box<Sleep>>,
    arrival: Arrival,
}

impl Connection {
    fn new(
        arrival: Arrival,
        transport: Transport,
        names: Option<CertificateNames>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let remote = Remote { address: arrival.address, names: names.map(Arc::new) };
        let timeout = Box::pin(sleep(PREFACE_TIMEOUT));
        let preface = Some(Preface { seen: 0, timeout, arrival });
        Self { transport, remote, preface, _place: place }
    }

    /// Compares what has arrived with what must.
    fn check(&mut self, arrived: &[u8]) -> io::Result<()> {
        let Some(preface) = &mut self.preface else {
            return Ok(());
        };
        let rest = &PREFACE[preface.seen..];
        let length = rest.len().min(arrived.len());
        if arrived[..length] != rest[..length] {
            let speaks_tls = preface.seen == 0 && begins_as_tls(arrived[0]);
            let why = match (speaks_tls, &self.transport) {
                (true, Transport::Plain(_)) => "it speaks TLS, and this node was started without",
                _ => "it does not speak HTTP/2",
            };
            return Err(self.refuse(why, io::ErrorKind::InvalidData));
        }
        preface.seen += length;
        if preface.seen == PREFACE.len() {
            self.preface = None;
        }
        Ok(())
    }

    fn refuse(&self, why: &'static str, kind: io::ErrorKind) -> io::Error {
        if let Some(Preface { arrival, .. }) = &self.preface {
            arrival.refuse(why);
        }
        io::Error::new(kind, why)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.transport).poll_read(cx, buffer);
        if let Some(preface) = &mut this.preface
            && read.is_pending()
            && preface.timeout.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(this.refuse("it says nothing", io::ErrorKind::TimedOut)));
        }
        ready!(read)?;
        Poll::Ready(this.check(&buffer.filled()[before..]))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote.clone()
    }
}
