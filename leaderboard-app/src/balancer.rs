//! The balancer: one address for the page and the API, in front of all nodes.
//!
//! It spreads requests round robin over the nodes that answer and goes on to the next node when one
//! does not. A write is only ever sent twice under an `Idempotency-Key`, and a write that comes
//! without one is given one before its first send, so that the balancer's own retries cannot count
//! a score twice. Every node serves every request (followers forward to the leader), so the
//! balancer needs to know nothing of Raft: it reads `outcome` and `retry` in a node's refusal, and
//! nothing else of any answer.
//!
//! The life of a request, in the order of the files:
//!
//! 1. `framing`: the raw bytes must leave no doubt about where a request ends.
//! 2. `server`: hyper parses them; connections, headers and waiting are bounded.
//! 3. `request`: the request is checked, its body buffered, its headers rewritten.
//! 4. `forward` and `client`: nodes are tried until one gives an answer or the deadline passes;
//!    `reply`: the answer streams to the client.
//! 5. `nodes` and `health`: which nodes answer, learned from requests and from probes.
//! 6. `status`: `GET /lb/status` and `GET /lb/cluster`, the balancer's own words.
//! 7. `problem`: refusals that come from the balancer itself (RFC 9457).
//!
//! Deliberately not: TLS and HTTP/2 (put a TLS terminator in front), sticky sessions, caching, and
//! a preference for the leader (a follower forwards in batches, which is cheaper than it looks).

mod client;
mod config;
mod forward;
mod framing;
mod health;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod nodes;
mod problem;
mod reply;
mod request;
mod server;
mod status;

use std::future::Future;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tracing::info;

pub use config::{BalancerArgs, BalancerConfig, NodeAddress, NodeAddressError};

/// Why the balancer could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BalancerError {
    /// There is nothing to balance.
    #[error("no node to balance: name at least one with --nodes HOST:PORT,…")]
    NoNodes,
    /// The balancer would send requests to itself, for ever.
    #[error("{0} is the balancer's own address: take it out of --nodes")]
    ListensOnNode(SocketAddr),
    /// The listening port could not be had.
    #[error("cannot listen on {address}: {source}; free the port or choose another with --listen")]
    Listen {
        /// Where the balancer was told to listen.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Runs the balancer until `shutdown` resolves, then finishes what is in flight.
///
/// # Errors
/// [`BalancerError`] when it cannot start. Once it listens it does not fail: a node that is gone or
/// a client that misbehaves is no reason to stop serving the others.
pub async fn run(
    args: BalancerArgs,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), BalancerError> {
    let (_, serving) = Balancer::bind(args.into()).await?.serve(shutdown);
    serving.await;
    Ok(())
}

/// A balancer that has its port and does not serve yet.
#[derive(Debug)]
pub struct Balancer {
    config: BalancerConfig,
    listener: TcpListener,
    address: SocketAddr,
}

impl Balancer {
    /// Takes the listening port. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`BalancerError`]: no nodes, the balancer itself among the nodes, or the port is taken.
    pub async fn bind(config: BalancerConfig) -> Result<Self, BalancerError> {
        if config.nodes.is_empty() {
            return Err(BalancerError::NoNodes);
        }
        let listen_failed = |source| BalancerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_failed)?;
        let address = listener.local_addr().map_err(listen_failed)?;
        if config.nodes.iter().any(|node| node.is(address)) {
            return Err(BalancerError::ListensOnNode(address));
        }
        Ok(Self { config, listener, address })
    }

    /// The address that it listens on; tells the port when port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address, and the balancer's life: serves until `shutdown` resolves, then drains.
    pub fn serve<F>(self, shutdown: F) -> (SocketAddr, impl Future<Output = ()> + use<F>)
    where
        F: Future<Output = ()> + Send,
    {
        let address = self.address;
        let serving = async move {
            let nodes: Vec<&str> = self.config.nodes.iter().map(NodeAddress::as_str).collect();
            info!(%address, nodes = nodes.join(","), "balancer listens");
            server::serve(self.config, self.listener, shutdown).await;
            info!(%address, "balancer stopped");
        };
        (address, serving)
    }
}
