//! The door on the Raft port: accepts connections, and shows those out that do not speak HTTP/2.
//!
//! tonic would close them too, but without a word, and a connection that says nothing it would keep
//! for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use raft_core::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::throttle::Throttle;

/// How many connections may be open at once. A cluster needs two per peer.
const CONNECTIONS_MAX: usize = 1024;

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
    accepted: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let throttle = Arc::new(Throttle::new(Duration::from_secs(1)));
    let accept_all = async {
        loop {
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Of one connection that is gone already, or the process has too many open
                    // files.
                    tracing::warn!(%node, "cannot accept a connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                if let Some(suppressed) = throttle.allow() {
                    tracing::warn!(
                        %node, %remote, suppressed,
                        "refused a connection: {CONNECTIONS_MAX} are open already"
                    );
                }
                continue;
            };
            let connection = Connection {
                stream,
                node,
                remote,
                preface: Some(Preface {
                    seen: 0,
                    timeout: Box::pin(sleep(PREFACE_TIMEOUT)),
                    throttle: Arc::clone(&throttle),
                }),
                _place: place,
            };
            if let Err(error) = connection.stream.set_nodelay(true) {
                tracing::debug!(%node, %remote, "cannot set TCP_NODELAY: {error}");
            }
            if accepted.send(Ok(connection)).await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(accept_all).await;
}

/// A connection that is closed unless it begins as HTTP/2 does.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    node: NodeId,
    remote: SocketAddr,
    /// Until it is complete.
    preface: Option<Preface>,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Preface {
    seen: usize,
    timeout: Pin<Box<Sleep>>,
    throttle: Arc<Throttle>,
}

impl Connection {
    /// Compares what has arrived with what must.
    fn check(&mut self, arrived: &[u8]) -> io::Result<()> {
        let Some(preface) = &mut self.preface else {
            return Ok(());
        };
        let rest = &PREFACE[preface.seen..];
        let length = rest.len().min(arrived.len());
        if arrived[..length] != rest[..length] {
            return Err(self.refuse("it does not speak HTTP/2", io::ErrorKind::InvalidData));
        }
        preface.seen += length;
        if preface.seen == PREFACE.len() {
            self.preface = None;
        }
        Ok(())
    }

    fn refuse(&self, why: &'static str, kind: io::ErrorKind) -> io::Error {
        let Self { node, remote, .. } = self;
        let throttle = self.preface.as_ref().map(|preface| &preface.throttle);
        if let Some(suppressed) = throttle.and_then(|throttle| throttle.allow()) {
            tracing::warn!(%node, %remote, suppressed, "refused a connection: {why}");
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
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
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
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
