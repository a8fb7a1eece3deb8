//! The body of a reply to a client.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::client::describe;
use super::nodes::Try;

/// The body of a reply: the balancer's own words, or a node's, streamed.
#[derive(Debug)]
pub(super) struct ReplyBody {
    content: Content,
    /// Keeps the try counted while its answer streams.
    attempt: Option<Try>,
}

#[derive(Debug)]
enum Content {
    Whole(Full<Bytes>),
    Streamed(Incoming),
}

impl ReplyBody {
    /// The same, as the answer to this try.
    pub(super) fn of(self, attempt: Try) -> Self {
        Self { attempt: Some(attempt), ..self }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self { content: Content::Whole(Full::new(bytes)), attempt: None }
    }
}

impl From<Incoming> for ReplyBody {
    fn from(body: Incoming) -> Self {
        Self { content: Content::Streamed(body), attempt: None }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = self.get_mut();
        match &mut body.content {
            Content::Whole(whole) => {
                Pin::new(whole).poll_frame(cx).map_err(|never: Infallible| match never {})
            }
            Content::Streamed(streamed) => {
                let polled = Pin::new(streamed).poll_frame(cx);
                if let (Poll::Ready(Some(Err(error))), Some(attempt)) = (&polled, &body.attempt) {
                    // Too late for another node: the client has half an answer, and sees it cut.
                    attempt.failed(&describe(error));
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(whole) => whole.is_end_stream(),
            Content::Streamed(streamed) => streamed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(whole) => whole.size_hint(),
            Content::Streamed(streamed) => streamed.size_hint(),
        }
    }
}
