//! What every outgoing stream needs: a connection that notices a dead peer, and patience.

use std::error::Error;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use raft_core::NodeId;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::handshake::{Identity, Refusal};
use crate::transport::Connector;
use crate::wire::raft_client::RaftClient;

/// The largest message that is decoded, on either side: a frame is closed when it has reached
/// [`FRAME_BYTES_TARGET`], so at most it holds that much and one more AppendEntries of raft-core's
/// `append_bytes_max`, or one more command or response of 1 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A frame that has got this far takes nothing more in.
pub(crate) const FRAME_BYTES_TARGET: u64 = 1 << 20;

/// HTTP/2 flow control: how much a stream, and all streams of a connection together, may have under
/// way.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 2 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Without a sign of life for `KEEPALIVE_INTERVAL` the other side is asked for one, and after
/// `KEEPALIVE_TIMEOUT` more it is taken for dead: so half-open connections are noticed.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection, and how long the greeting on it, may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no stream to a peer, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("its address is not known")]
    NoAddress,
    #[error("cannot connect: {}", chain(.0))]
    Connect(#[from] tonic::transport::Error),
    #[error("{}", describe(.0))]
    Status(#[from] Status),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("no greeting within {GREETING_TIMEOUT:?}")]
    Silent,
    #[error("it closed the stream")]
    Closed,
}

/// All of an error on one line: those of tonic say what happened only in their sources.
fn chain(error: &dyn Error) -> String {
    with_causes(error.to_string(), error)
}

/// A line, and what is behind the error that it is about, unless the line ends with it already.
fn with_causes(mut line: String, error: &dyn Error) -> String {
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !line.ends_with(&next) {
            line = format!("{line}: {next}");
        }
        source = error.source();
    }
    line
}

fn describe(status: &Status) -> String {
    with_causes(status.message().to_owned(), status)
}

/// Opens a connection to `peer`, where this node knows it.
pub(crate) async fn connect(
    identity: &Identity,
    peer: NodeId,
) -> Result<RaftClient<Channel>, LinkError> {
    let known = identity.book.get(peer).ok_or(LinkError::NoAddress)?;
    let connector = Connector::new(&identity.security, peer, CONNECT_TIMEOUT);
    let endpoint = Endpoint::from_shared(format!("http://{}", known.address))?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let client = RaftClient::new(endpoint.connect_with_connector(connector).await?);
    Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// Waits for the greeting, not for ever.
pub(crate) async fn in_time<T>(
    greeting: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    let greeting = tokio::time::timeout(GREETING_TIMEOUT, greeting).await;
    greeting.unwrap_or(Err(LinkError::Silent))
}

/// Pauses between attempts: 20 ms at first, twice as much each time, a second at the most; each
/// between half and all of it, so that peers that lost each other together do not come back
/// together.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: Duration,
}

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { pause: PAUSE_MIN }
    }

    /// The connection works: the next failure is a first one again.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }

    pub(crate) fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        let half = pause / 2;
        half + half.mul_f64(f64::from((random() >> 32) as u32) / f64::from(u32::MAX))
    }
}

/// A number that nobody can guess: the standard library seeds its hash maps from the system.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Tells the log about a link: each loss and each recovery once, not each attempt; but again if there is another
/// reason, because a node that was down may have come up as a stranger.
#[derive(Debug)]
pub(crate) struct LinkReport {
    pub(crate) node: NodeId,
    pub(crate) peer: NodeId,
    pub(crate) address: String,
    /// Why there is no connection, but for the numbers in it, such as the time.
    told: Option<String>,
}

impl LinkReport {
    pub(crate) fn new(node: NodeId, peer: NodeId) -> Self {
        Self { node, peer, address: String::new(), told: None }
    }

    pub(crate) fn connected(&mut self) {
        self.told = None;
        let Self { node, peer, address, .. } = self;
        tracing::info!(%node, "connected to {peer} at {address}");
    }

    pub(crate) fn lost(&mut self, why: &LinkError) {
        let is_news = self.is_news(&why.to_string());
        let Self { node, peer, address, .. } = self;
        if is_news {
            tracing::warn!(%node, "no connection to {peer} at {address}: {why}; trying again");
        } else {
            tracing::debug!(%node, "no connection to {peer} at {address}: {why}");
        }
    }

    fn is_news(&mut self, why: &str) -> bool {
        let reason: String = why.chars().filter(|character| !character.is_ascii_digit()).collect();
        let is_news = self.told.as_ref() != Some(&reason);
        self.told = Some(reason);
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_second_and_differ() {
        let mut backoff = Backoff::new();
        for step in 0..20 {
            let all = PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(step));
            let pause = backoff.next_pause();
            assert!(all / 2 <= pause && pause <= all, "step {step}: {pause:?}");
        }
        assert_ne!(backoff.next_pause(), backoff.next_pause());
        backoff.reset();
        assert!(backoff.next_pause() <= PAUSE_MIN);
    }

    #[test]
    fn a_reason_is_told_once_and_another_one_too() {
        let id = |number| NodeId::new(number).unwrap();
        let mut report = LinkReport::new(id(1), id(2));
        let words = ["it is down", "it is down", "late by 1 s", "late by 29 s", "it is down"];
        assert_eq!(words.map(|why| report.is_news(why)), [true, false, true, false, true]);
        report.connected();
        assert!(report.is_news("it is down"));
    }

    #[test]
    fn what_an_error_says_twice_is_written_once() {
        let inner = std::io::Error::other("the cause");
        let outer = std::io::Error::other(inner);
        assert_eq!(chain(&outer), "the cause");
    }
}
