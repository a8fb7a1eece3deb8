//! What the operator chooses, and the bounds that keep one client from taking everything.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use http::uri::Authority;

use crate::duration::parse_duration;

/// Options of `leaderboard balancer`.
#[derive(Clone, Debug, clap::Args)]
pub struct BalancerArgs {
    /// Where clients connect
    #[arg(
        long,
        env = "LEADERBOARD_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// HTTP addresses of the nodes, separated by commas
    #[arg(
        long,
        env = "LEADERBOARD_NODES",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        required = true
    )]
    pub nodes: Vec<NodeAddress>,
    /// How long a request may take over all its tries (e.g. 800ms, 10s), unless its
    /// Request-Timeout header asks for less
    #[arg(
        long,
        env = "LEADERBOARD_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = duration_argument
    )]
    pub request_timeout: Duration,
    /// How long one node may take to begin its answer before another is asked (e.g. 3s)
    #[arg(
        long,
        env = "LEADERBOARD_TRY_TIMEOUT",
        value_name = "DURATION",
        default_value = "3s",
        value_parser = duration_argument
    )]
    pub try_timeout: Duration,
    /// How long requests in flight may take to finish when the balancer is told to stop (e.g. 10s)
    #[arg(
        long,
        env = "LEADERBOARD_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = duration_argument
    )]
    pub drain_timeout: Duration,
    /// How many clients may be connected at once; more wait to be accepted
    #[arg(
        long,
        env = "LEADERBOARD_CONNECTIONS_MAX",
        value_name = "COUNT",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub connections_max: u32,
}

/// What a balancer needs to know; [`BalancerConfig::new`] fills in the defaults.
#[derive(Clone, Debug)]
pub struct BalancerConfig {
    /// Where clients connect; port 0 takes a free port.
    pub listen: SocketAddr,
    /// The nodes' HTTP addresses, in the order in which status lists them.
    pub nodes: Vec<NodeAddress>,
    /// How long a request may take over all its tries.
    pub request_timeout: Duration,
    /// How long one node may take to begin its answer.
    pub try_timeout: Duration,
    /// How long a connection to a node may take to be made.
    pub connect_timeout: Duration,
    /// How long a client may take to send the head of a request, and to sit idle between two.
    pub head_read_timeout: Duration,
    /// How long requests in flight may take to finish at shutdown.
    pub drain_timeout: Duration,
    /// How often a node that answers is probed.
    pub probe_interval: Duration,
    /// How long a node may take to answer a probe, or to describe itself for `GET /lb/cluster`.
    pub probe_timeout: Duration,
    /// Clients connected at once.
    pub connections_max: u32,
    /// Bytes of one request's body; the nodes accept no more.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that are held at once.
    pub bodies_bytes_max: usize,
    /// Bytes of one request's head (request line and headers).
    pub head_bytes_max: usize,
}

impl BalancerConfig {
    /// The defaults, for these nodes.
    #[must_use]
    pub fn new(listen: SocketAddr, nodes: Vec<NodeAddress>) -> Self {
        Self {
            listen,
            nodes,
            request_timeout: Duration::from_secs(10),
            try_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_millis(500),
            head_read_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(10),
            probe_interval: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(500),
            connections_max: 4096,
            body_bytes_max: 1 << 20,
            bodies_bytes_max: 64 << 20,
            head_bytes_max: 16 << 10,
        }
    }
}

impl From<BalancerArgs> for BalancerConfig {
    fn from(args: BalancerArgs) -> Self {
        Self {
            request_timeout: args.request_timeout,
            try_timeout: args.try_timeout,
            drain_timeout: args.drain_timeout,
            connections_max: args.connections_max,
            ..Self::new(args.listen, args.nodes)
        }
    }
}

/// A node's HTTP address, `host:port`; the host may be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress(Authority);

/// A node's address that is not `host:port`.
#[derive(Debug, thiserror::Error)]
#[error("a node's address is HOST:PORT, as in 127.0.0.1:8081")]
pub struct NodeAddressError;

impl NodeAddress {
    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The address as the authority of a URI.
    pub(super) fn authority(&self) -> Authority {
        self.0.clone()
    }

    /// Whether this is literally that socket address (names are not resolved).
    pub(super) fn is(&self, address: SocketAddr) -> bool {
        self.as_str().parse() == Ok(address)
    }
}

impl FromStr for NodeAddress {
    type Err = NodeAddressError;

    fn from_str(text: &str) -> Result<Self, NodeAddressError> {
        let authority: Authority = text.trim().parse().map_err(|_| NodeAddressError)?;
        let port_given = authority.port_u16().is_some_and(|port| port != 0);
        let plain = !authority.host().is_empty() && !authority.as_str().contains('@');
        if port_given && plain { Ok(Self(authority)) } else { Err(NodeAddressError) }
    }
}

impl From<SocketAddr> for NodeAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().parse().expect("a socket address is a valid authority"))
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn duration_argument(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a whole number of ms, s or m, as in 800ms or 10s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_nothing_is_refused() {
        assert_eq!(duration_argument("10s"), Ok(Duration::from_secs(10)));
        assert!(duration_argument("0ms").is_err());
    }

    #[test]
    fn a_node_address_is_a_host_and_a_port() {
        for text in ["127.0.0.1:8081", "node-1:8081", "[::1]:8081", " 127.0.0.1:8081"] {
            assert_eq!(text.parse::<NodeAddress>().unwrap().as_str(), text.trim());
        }
        for text in ["", ":", ":80", "node", "node:", "node:0", "node:99999", "http://a:1", "u@a:1"]
        {
            assert!(text.parse::<NodeAddress>().is_err(), "{text}");
        }
    }
}
