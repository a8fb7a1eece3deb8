//! Connections between nodes, plaintext or TLS: how they are made, and who is at the other end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use raft_core::NodeId;
use rustls::PeerIncompatible;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tonic::transport::Uri;
use tower_service::Service;

use crate::security::{CertificateNames, Credentials, Security};

/// How long the other side may take for its part of a TLS handshake.
pub(crate) const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The first bytes of TLS: of a handshake, and of an alert.
const TLS_HANDSHAKE: u8 = 0x16;
const TLS_ALERT: u8 = 0x15;

/// Bytes to and from another node.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Who is at the other end of a connection that was accepted, as far as the connection itself tells.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) address: SocketAddr,
    /// What its certificate names; nothing on a plaintext connection.
    pub(crate) names: Option<Arc<CertificateNames>>,
}

impl Remote {
    /// Who has sent this.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Option<Self> {
        request.extensions().get().cloned()
    }
}

/// A TLS connection to whoever has called, if it has a certificate.
pub(crate) async fn accept_tls(
    stream: TcpStream,
    credentials: &Credentials,
) -> Result<(Transport, CertificateNames), String> {
    let acceptor = TlsAcceptor::from(Arc::clone(&credentials.server));
    let accepted = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let accepted = accepted.map_err(|_| "no TLS handshake in time".to_owned())?;
    let stream = TlsStream::from(accepted.map_err(|error| why_no_tls(&error))?);
    let names = names_in(&stream);
    Ok((Transport::Tls(Box::new(stream)), names))
}

fn names_in(stream: &TlsStream<TcpStream>) -> CertificateNames {
    let certificates = stream.get_ref().1.peer_certificates();
    let own = certificates.and_then(<[_]>::first);
    own.map(CertificateNames::of).unwrap_or_default()
}

/// Why a handshake failed. The mistakes that everybody makes get plain words.
fn why_no_tls(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired,
        )) => "it does not speak TLS 1.3".to_owned(),
        Some(rustls::Error::InvalidMessage(_)) => {
            "it does not speak TLS, as this node does; was it started without?".to_owned()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection instead of speaking TLS; was it started without?".to_owned()
        }
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    }
}

/// Does a connection begin with this byte as TLS does? HTTP/2 never begins so: a client says `P`, and a server
/// the length of its settings, which is short.
pub(crate) fn begins_as_tls(first: u8) -> bool {
    first == TLS_HANDSHAKE || first == TLS_ALERT
}

/// Makes connections to one node.
#[derive(Clone)]
pub(crate) struct Connector {
    http: HttpConnector,
    tls: Option<TlsTo>,
}

/// What a TLS connection to one node needs.
#[derive(Clone)]
struct TlsTo {
    name: String,
    credentials: Arc<Credentials>,
}

impl Connector {
    /// Makes connections to `peer`, and to nobody else, if `security` can tell.
    pub(crate) fn new(security: &Security, peer: NodeId, connect_timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        let tls = match security {
            Security::Plaintext => None,
            Security::Tls(rotation) => {
                Some(TlsTo { name: rotation.name_of(peer), credentials: rotation.current() })
            }
        };
        Self { http, tls }
    }
}

impl TlsTo {
    async fn connect(self, stream: TcpStream) -> io::Result<Transport> {
        let Self { name, credentials } = self;
        let server = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&credentials.client));
        let connected = connector.connect(server, stream).await;
        let stream = TlsStream::from(
            connected.map_err(|error| io::Error::new(error.kind(), why_no_tls(&error)))?,
        );
        // That it was made for this name is checked; but not that it is no wildcard.
        let names = names_in(&stream);
        if !names.contain(&name) {
            let why = format!("its certificate names {names}, and must name {name}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Transport::Tls(Box::new(stream)))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Outgoing>;
    type Error = tonic::codegen::StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, tls) = (self.http.call(uri), self.tls.clone());
        Box::pin(async move {
            let stream = connecting.await?.into_inner();
            let (transport, is_checked) = match tls {
                None => (Transport::Plain(stream), false),
                Some(tls) => (tls.connect(stream).await?, true),
            };
            Ok(TokioIo::new(Outgoing { transport, is_checked }))
        })
    }
}

/// A connection that this node has made. If it is plaintext, the first byte tells whether the other side speaks
/// TLS, which HTTP/2 would call a frame of the wrong size.
#[derive(Debug)]
pub(crate) struct Outgoing {
    transport: Transport,
    is_checked: bool,
}

impl AsyncRead for Outgoing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.transport).poll_read(cx, buffer);
        if !this.is_checked
            && let Some(&first) = buffer.filled().get(before)
        {
            this.is_checked = true;
            if begins_as_tls(first) {
                let why = "it speaks TLS, and this node was started without";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
        }
        read
    }
}

impl AsyncWrite for Outgoing {
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

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer).map_err(|error| {
                // A process that was killed says no goodbye, and rustls many words about it.
                match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        io::Error::new(error.kind(), "it closed the connection")
                    }
                    _ => error,
                }
            }),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpListener;

    use super::*;
    use crate::security::testing::{Authority, VALID};

    const NAME: &str = "n1.prod.raft.internal";

    /// A server that shows a certificate with these names, and asks for none.
    async fn serve(authority: &Authority, names: &[&str]) -> SocketAddr {
        let (certificate, key) = authority.sign(names, VALID);
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        });
        address
    }

    #[tokio::test]
    async fn a_server_must_have_exactly_the_name_that_is_meant() {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let dir = tempfile::tempdir().unwrap();
        let [ca, certificate, key] =
            ours.write(dir.path(), "n2", &["n2.prod.raft.internal"], VALID);
        let (files, two) = (crate::TlsFiles { ca, certificate, key }, NodeId::new(2).unwrap());
        let credentials = Security::with_files("prod", two, files).credentials().unwrap();
        for (authority, names, refusal) in [
            (&ours, &[NAME][..], None),
            (&ours, &["other", NAME], None),
            (&ours, &["n3.prod.raft.internal"], Some("not valid for name")),
            (&ours, &["n1.test.raft.internal"], Some("not valid for name")),
            (&ours, &["*.prod.raft.internal"], Some("its certificate names *.prod")),
            (&theirs, &[NAME], Some("UnknownIssuer")),
        ] {
            let stream = TcpStream::connect(serve(authority, names).await).await.unwrap();
            let to = TlsTo { name: NAME.into(), credentials: Arc::clone(&credentials) };
            let refused = to.connect(stream).await.map(|_| ()).map_err(|error| error.to_string());
            match (&refused, refusal) {
                (Ok(()), None) => {}
                (Err(why), Some(words)) if why.contains(words) => {}
                _ => panic!("{names:?}: {refused:?}"),
            }
        }
    }
}
