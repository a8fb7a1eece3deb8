//! Closing connections without losing the last answer.
//!
//! A request may be answered before it was read to its end: a body that is too large, a path that
//! does not exist, a head that is malformed. Then the connection cannot be used any more. If it
//! were closed there and then, what the client still sends would meet a closed socket: its system
//! gets a reset, and throws away the answer that it has not handed to the client yet (RFC 9112
//! §9.6). So the connection is closed for writing only, and what still comes is read and thrown
//! away, until the client closes too or one of two bounds is reached.
//!
//! [`Connection`] goes below the HTTP parser and does that; [`Unread`] knows whether there is
//! anything left to come.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bytes that are thrown away after the last answer, at most.
const DISCARDED_BYTES_MAX: usize = 8 << 20;
/// How long a connection is kept open for them, at most.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// Whether a connection's request was read to its end. Clones are about the same connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<Flags>);

// One task reads, answers and closes a connection, so the order of the operations is that of the
// program, and relaxed ones will do.
#[derive(Debug, Default)]
struct Flags {
    /// Bytes have come of a request that was not read to its end.
    unread: AtomicBool,
    /// They are only its head, the client waits for `100 Continue`, and has not been told so.
    withheld: AtomicBool,
}

impl Unread {
    /// Watches how much of this request is read.
    pub(crate) fn watch<B: Body>(&self, request: Request<B>) -> Request<Watched<B>> {
        let waits = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let withheld = request.headers().get(EXPECT).is_some_and(waits);
        self.0.unread.store(!request.body().is_end_stream(), Ordering::Relaxed);
        self.0.withheld.store(withheld, Ordering::Relaxed);
        request.map(|body| Watched { body, unread: self.clone() })
    }

    /// Makes this answer the connection's last one, and says so, if the request was not read to
    /// its end.
    pub(crate) fn close_after(&self, headers: &mut HeaderMap) {
        if self.0.unread.load(Ordering::Relaxed) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// What has come last is no request, so nobody can tell where it ends.
    pub(crate) fn head_was_refused(&self) {
        self.more_has_come();
    }

    fn more_has_come(&self) {
        self.0.unread.store(true, Ordering::Relaxed);
        self.0.withheld.store(false, Ordering::Relaxed);
    }

    fn end_was_read(&self) {
        self.0.unread.store(false, Ordering::Relaxed);
    }

    /// Whether there is more to come than what is there already.
    fn more_will_come(&self) -> bool {
        self.0.unread.load(Ordering::Relaxed) && !self.0.withheld.load(Ordering::Relaxed)
    }
}

/// A request's body, watched.
#[derive(Debug)]
pub(crate) struct Watched<B> {
    body: B,
    unread: Unread,
}

impl<B: Body + Unpin> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        // Who waits for `100 Continue` is told so by the parser, now that somebody wants the body.
        self.unread.0.withheld.store(false, Ordering::Relaxed);
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.unread.end_was_read();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that is closed as this module says; everything else is that of `C`.
#[derive(Debug)]
pub(crate) struct Connection<C> {
    connection: C,
    unread: Unread,
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Closing {
    discarded: usize,
    timeout: Pin<Box<Sleep>>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Connection<C> {
    /// The second value is for watching the requests that come on the connection.
    pub(crate) fn new(connection: C) -> (Self, Unread) {
        let unread = Unread::default();
        (Self { connection, unread: unread.clone(), closing: None }, unread)
    }

    /// Ready when the client has closed, or is given up, or when nothing has to be waited for.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closing = self.closing.get_or_insert_with(|| Closing {
            discarded: 0,
            timeout: Box::pin(tokio::time::sleep(DISCARD_TIMEOUT)),
        });
        if closing.timeout.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while closing.discarded < DISCARDED_BYTES_MAX {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.connection).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    closing.discarded += read.filled().len();
                    self.unread.more_has_come();
                }
                Poll::Pending if self.unread.more_will_come() => return Poll::Pending,
                // The client has closed, properly or not; or it has nothing to send.
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Connection<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.connection).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.unread.more_has_come();
        }
        Poll::Ready(result)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.connection).poll_shutdown(cx))?;
        }
        self.poll_discard(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use bytes::Bytes;
    use http_body_util::{BodyExt as _, Empty, Full};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// A connection on which a head and this much of a body have come, and its client.
    async fn after_a_head(body_bytes: usize) -> (Connection<DuplexStream>, Unread, DuplexStream) {
        let (mut client, stream) = tokio::io::duplex(READ_BYTES);
        let (mut connection, unread) = Connection::new(stream);
        client.write_all(b"head").await.unwrap();
        connection.read_exact(&mut [0; 4]).await.unwrap();
        client.write_all(&vec![b' '; body_bytes]).await.unwrap();
        (connection, unread, client)
    }

    /// A body of which nothing has come.
    struct Slow;

    impl Body for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    fn request(expects: bool) -> Request<Full<Bytes>> {
        let request = Request::post("/");
        let request = if expects { request.header(EXPECT, "100-Continue") } else { request };
        request.body(Full::from("body")).unwrap()
    }

    /// Whether the connection closes without waiting for the client.
    async fn closes_at_once(connection: &mut Connection<DuplexStream>) -> bool {
        let mut connection = Pin::new(connection);
        poll_fn(|cx| Poll::Ready(connection.as_mut().poll_shutdown(cx).is_ready())).await
    }

    #[tokio::test]
    async fn without_a_request_there_is_nothing_to_wait_for() {
        let (_client, stream) = tokio::io::duplex(1);
        assert!(closes_at_once(&mut Connection::new(stream).0).await);
    }

    #[tokio::test]
    async fn a_request_that_was_read_to_its_end_is_not_waited_for() {
        let (mut connection, unread, _client) = after_a_head(0).await;
        drop(unread.watch(Request::get("/").body(Empty::<Bytes>::new()).unwrap()));
        assert!(closes_at_once(&mut connection).await);

        let (mut connection, unread, _client) = after_a_head(4).await;
        connection.read_exact(&mut [0; 4]).await.unwrap();
        unread.watch(request(true)).into_body().collect().await.unwrap();
        let mut headers = HeaderMap::new();
        unread.close_after(&mut headers);
        assert!(headers.is_empty());
        assert!(closes_at_once(&mut connection).await);
    }

    #[tokio::test]
    async fn a_client_that_may_still_send_is_waited_for_until_it_closes() {
        for body_bytes in [0, 1] {
            let (mut connection, unread, mut client) = after_a_head(body_bytes).await;
            drop(unread.watch(request(false)));
            let mut headers = HeaderMap::new();
            unread.close_after(&mut headers);
            assert_eq!(headers[CONNECTION], "close");
            assert!(!closes_at_once(&mut connection).await);
            // The client sees the end of the answer, and may send in spite of it.
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            client.write_all(&[b' '; READ_BYTES]).await.unwrap();
            assert!(!closes_at_once(&mut connection).await);
            drop(client);
            assert!(closes_at_once(&mut connection).await);
        }
    }

    #[tokio::test]
    async fn a_client_that_waits_to_be_told_to_send_is_not_waited_for() {
        let (mut connection, unread, _client) = after_a_head(0).await;
        drop(unread.watch(request(true)));
        let mut headers = HeaderMap::new();
        unread.close_after(&mut headers);
        assert_eq!(headers[CONNECTION], "close");
        assert!(closes_at_once(&mut connection).await);
    }

    #[tokio::test]
    async fn a_client_that_sends_without_being_told_to_is_waited_for() {
        let (mut connection, unread, _client) = after_a_head(1).await;
        drop(unread.watch(request(true)));
        assert!(!closes_at_once(&mut connection).await);

        // It was told, and has not begun yet.
        let (mut connection, unread, _client) = after_a_head(0).await;
        let mut body = unread.watch(request(true).map(|_| Slow)).into_body();
        assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await.is_pending());
        assert!(!closes_at_once(&mut connection).await);
    }

    #[tokio::test]
    async fn a_head_that_was_refused_has_no_end() {
        let (mut connection, unread, _client) = after_a_head(0).await;
        drop(unread.watch(Request::get("/").body(Empty::<Bytes>::new()).unwrap()));
        unread.head_was_refused();
        assert!(!closes_at_once(&mut connection).await);
    }

    #[tokio::test]
    async fn what_is_thrown_away_is_bounded() {
        let (mut connection, unread, mut client) = after_a_head(0).await;
        drop(unread.watch(request(false)));
        let sending = async {
            let mut sent = 0;
            while client.write_all(&[b' '; READ_BYTES]).await.is_ok() {
                sent += READ_BYTES;
            }
            sent
        };
        let closing = async {
            connection.shutdown().await.unwrap();
            drop(connection);
        };
        let (sent, ()) = tokio::join!(sending, closing);
        assert!((DISCARDED_BYTES_MAX..=DISCARDED_BYTES_MAX + READ_BYTES).contains(&sent));
    }
}
