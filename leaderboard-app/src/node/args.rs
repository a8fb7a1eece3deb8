//! The options of `leaderboard node`, and what they mean together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raft_grpc::{NodeConfig, NodeId, PeerSecurity, TlsFiles};

use super::{NodeError, NodeSettings};
use crate::byte_size::parse_bytes;
use crate::duration::parse_duration;

/// Options of `leaderboard node`.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// This node's number in the cluster, from 1; it never changes
    #[arg(long, env = "LEADERBOARD_ID", value_name = "ID", value_parser = node_id)]
    pub id: NodeId,
    /// Where the log is kept; created if missing, and this node's alone
    #[arg(long, env = "LEADERBOARD_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where clients connect
    #[arg(
        long,
        env = "LEADERBOARD_HTTP",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8081",
        value_parser = host_port
    )]
    pub http: String,
    /// Where the other nodes connect
    #[arg(
        long,
        env = "LEADERBOARD_RAFT",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7081",
        value_parser = host_port
    )]
    pub raft: String,
    /// The Raft address of every member, this node included; with --join, of those that the cluster has. Who
    /// is a member is decided at the first start; from then on the log knows, and this says only where to look
    /// for them
    #[arg(
        long,
        env = "LEADERBOARD_PEERS",
        value_name = "ID=HOST:PORT,…",
        value_delimiter = ',',
        required = true,
        value_parser = member
    )]
    pub peers: Vec<(NodeId, String)>,
    /// Join a cluster that exists: wait until `leaderboard members add` names this node. Without meaning once
    /// it has a log
    #[arg(long, env = "LEADERBOARD_JOIN")]
    pub join: bool,
    /// Where the other nodes reach this one, which it tells them; with --join the default is --raft. Without it
    /// they look where their own --peers say
    #[arg(long, env = "LEADERBOARD_ADVERTISE", value_name = "HOST:PORT", value_parser = host_port)]
    pub advertise: Option<String>,
    /// Where clients reach this node, which it tells the others for GET /v1/cluster, if it tells them anything
    /// (--advertise or --join) [default: --http, unless that is a wildcard]
    #[arg(
        long,
        env = "LEADERBOARD_ADVERTISE_HTTP",
        value_name = "HOST:PORT",
        value_parser = host_port
    )]
    pub advertise_http: Option<String>,
    /// The HTTP addresses of members that do not tell their own, shown by GET /v1/cluster
    #[arg(
        long,
        env = "LEADERBOARD_HTTP_PEERS",
        value_name = "ID=HOST:PORT,…",
        value_delimiter = ',',
        value_parser = member
    )]
    pub http_peers: Vec<(NodeId, String)>,
    /// The cluster's name, the same on all its nodes; 1 to 64 bytes
    #[arg(long, env = "LEADERBOARD_CLUSTER", value_name = "NAME", default_value = "leaderboard")]
    pub cluster: String,
    /// The authorities whose certificates make a node of this cluster, in PEM. With --tls-cert and --tls-key
    /// nodes prove to each other who they are, and nobody else can listen; `leaderboard certs` makes all three
    #[arg(long, env = "LEADERBOARD_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This node's certificate, in PEM, with its name: n1.CLUSTER.raft.internal for node 1
    #[arg(long, env = "LEADERBOARD_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, env = "LEADERBOARD_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Talk to other nodes without TLS although other machines can reach --raft: everyone there can pass
    /// for a node, read and change everything
    #[arg(long, env = "LEADERBOARD_INSECURE_PEERS")]
    pub insecure_peers: bool,
    /// A follower that hears nothing campaigns after once to twice this time (ms, s, m)
    #[arg(
        long,
        env = "LEADERBOARD_ELECTION_TIMEOUT",
        value_name = "DURATION",
        default_value = "300ms",
        value_parser = duration
    )]
    pub election_timeout: Duration,
    /// How often an idle leader shows that it is alive; at most a quarter of the election timeout
    #[arg(
        long,
        env = "LEADERBOARD_HEARTBEAT_INTERVAL",
        value_name = "DURATION",
        default_value = "50ms",
        value_parser = duration
    )]
    pub heartbeat_interval: Duration,
    /// How long a request may take that has no Request-Timeout header
    #[arg(
        long,
        env = "LEADERBOARD_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration
    )]
    pub request_timeout: Duration,
    /// How long requests under way may take to finish when the node is told to stop
    #[arg(
        long,
        env = "LEADERBOARD_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration
    )]
    pub drain_timeout: Duration,
    /// How many clients may be connected at once; more wait to be accepted
    #[arg(
        long,
        env = "LEADERBOARD_CONNECTIONS_MAX",
        value_name = "COUNT",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub connections_max: u32,
    /// After how many bytes of writes a snapshot is cut, and the log before it let go of (bytes, KiB, MiB, GiB)
    #[arg(
        long,
        env = "LEADERBOARD_SNAPSHOT_AFTER_BYTES",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size
    )]
    pub snapshot_after_bytes: u64,
    /// How much of the log is kept behind the snapshot, so that a node that was away for a moment need not
    /// fetch the snapshot (bytes, KiB, MiB, GiB)
    #[arg(
        long,
        env = "LEADERBOARD_TRAILING_BYTES_MAX",
        value_name = "SIZE",
        default_value = "16MiB",
        value_parser = size
    )]
    pub trailing_bytes_max: u64,
    /// At what pace a snapshot is read for another node at the most, in a second (bytes, KiB, MiB, GiB)
    #[arg(
        long,
        env = "LEADERBOARD_SNAPSHOT_BYTES_PER_SECOND_MAX",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size
    )]
    pub snapshot_bytes_per_second_max: u64,
    /// How long after one closed file of the log was read again, to find damage early, the next one
    /// is (ms, s, m); 0s never
    #[arg(
        long,
        env = "LEADERBOARD_SCRUB_INTERVAL",
        value_name = "DURATION",
        default_value = "1m",
        value_parser = duration_or_zero
    )]
    pub scrub_interval: Duration,
    /// Start although the log is damaged and no other voter has what it lost; with what is before the
    /// damage. Keeps the damaged files and those behind them aside. For one start, so there is no
    /// variable for it
    #[arg(long)]
    pub accept_data_loss: bool,
}

impl NodeArgs {
    /// Checks the options against each other and resolves the names of hosts.
    pub(super) async fn into_settings(self) -> Result<NodeSettings, NodeError> {
        let peers = members("--peers", self.peers)?;
        let http_peers = members("--http-peers", self.http_peers)?;
        if !self.join && !peers.contains_key(&self.id) {
            return Err(NodeError::Usage(format!(
                "--peers does not name this node: add {}={} to it, or --join if the cluster exists \
                 already",
                self.id.get(),
                self.raft
            )));
        }
        let is_known = |id: &NodeId| peers.contains_key(id) || (self.join && *id == self.id);
        if let Some(stranger) = http_peers.keys().find(|id| !is_known(id)) {
            let stranger = stranger.get();
            return Err(NodeError::Usage(format!(
                "--http-peers names node {stranger}, which --peers does not"
            )));
        }
        let listen = resolve(&self.raft).await?;
        let http = resolve(&self.http).await?;
        let advertise = match self.advertise {
            None if self.join && (listen.ip().is_unspecified() || listen.port() == 0) => {
                return Err(NodeError::Usage(format!(
                    "--join: the others cannot reach this node at {}: say where with --advertise \
                     HOST:PORT",
                    self.raft
                )));
            }
            None if self.join => Some(self.raft.clone()),
            given => given,
        };
        let tls = tls_files(self.tls_ca, self.tls_cert, self.tls_key)?;
        let security = security(tls, self.insecure_peers, &self.raft, listen)?;
        let raft = NodeConfig {
            join: self.join,
            advertise,
            snapshot_after_bytes: self.snapshot_after_bytes,
            trailing_bytes_max: self.trailing_bytes_max,
            snapshot_bytes_per_second_max: self.snapshot_bytes_per_second_max,
            security,
            election_timeout: self.election_timeout,
            heartbeat_interval: self.heartbeat_interval,
            request_timeout: self.request_timeout,
            scrub_interval: self.scrub_interval,
            accept_data_loss: self.accept_data_loss,
            ..NodeConfig::new(self.cluster, self.id, self.data_dir, listen, peers)
        };
        Ok(NodeSettings {
            http_peers,
            advertise_http: self.advertise_http,
            drain_timeout: self.drain_timeout,
            connections_max: usize::try_from(self.connections_max).unwrap_or(usize::MAX),
            ..NodeSettings::new(raft, http)
        })
    }
}

/// All three options, or none.
fn tls_files(
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Result<Option<TlsFiles>, NodeError> {
    match (ca, certificate, key) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(certificate), Some(key)) => Ok(Some(TlsFiles { ca, certificate, key })),
        (ca, certificate, key) => {
            let given = [("--tls-ca", ca), ("--tls-cert", certificate), ("--tls-key", key)];
            let missing: Vec<&str> = given
                .iter()
                .filter(|(_, file)| file.is_none())
                .map(|(option, _)| *option)
                .collect();
            let missing = missing.join(" and ");
            Err(NodeError::Usage(format!("TLS between nodes also needs {missing}")))
        }
    }
}

/// Without TLS only this machine may reach the node, unless that was asked for.
fn security(
    tls: Option<TlsFiles>,
    insecure: bool,
    raft: &str,
    listen: SocketAddr,
) -> Result<PeerSecurity, NodeError> {
    match (tls, insecure) {
        (Some(_), true) => Err(NodeError::Usage(
            "--insecure-peers does without TLS, --tls-ca and the like ask for it: choose one"
                .into(),
        )),
        (Some(files), false) => Ok(PeerSecurity::Tls(files)),
        (None, true) => Ok(PeerSecurity::Plaintext),
        (None, false) if listen.ip().to_canonical().is_loopback() => {
            Ok(PeerSecurity::PlaintextOnLoopback)
        }
        (None, false) => Err(NodeError::Usage(format!(
            "other machines can reach --raft {raft}, and without TLS each of them could pass for a node: give \
             --tls-ca, --tls-cert and --tls-key (`leaderboard certs` makes the files), or --insecure-peers if \
             you trust everyone on that network"
        ))),
    }
}

fn members(
    option: &str,
    list: Vec<(NodeId, String)>,
) -> Result<BTreeMap<NodeId, String>, NodeError> {
    let mut members = BTreeMap::new();
    for (id, address) in list {
        if members.insert(id, address).is_some() {
            return Err(NodeError::Usage(format!("{option} names node {} twice", id.get())));
        }
    }
    Ok(members)
}

async fn resolve(address: &str) -> Result<SocketAddr, NodeError> {
    let failed = |source| NodeError::Listen { address: address.to_owned(), source };
    let mut found = tokio::net::lookup_host(address).await.map_err(failed)?;
    found.next().ok_or_else(|| {
        failed(std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
    })
}

pub(crate) fn node_id(text: &str) -> Result<NodeId, String> {
    let id = text.parse().ok().and_then(NodeId::new);
    id.ok_or_else(|| "a node's id is a whole number from 1".to_owned())
}

/// `host:port`; whether the host exists shows later, when the network is there.
fn host_port(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':');
    match parts {
        Some((host, port))
            if !host.is_empty()
                && !text.contains(char::is_whitespace)
                && port.parse::<u16>().is_ok() =>
        {
            Ok(text.to_owned())
        }
        _ => Err("an address is HOST:PORT, as in 127.0.0.1:8081".to_owned()),
    }
}

fn member(text: &str) -> Result<(NodeId, String), String> {
    let (id, address) = text
        .trim()
        .split_once('=')
        .ok_or_else(|| "a member is ID=HOST:PORT, as in 1=127.0.0.1:7081".to_owned())?;
    Ok((node_id(id)?, host_port(address)?))
}

fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).filter(|size| *size > 0).ok_or_else(|| {
        "a size is a whole number of bytes, KiB, MiB or GiB, as in 64MiB, and more than none"
            .to_owned()
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    duration_or_zero(text).and_then(|duration| match duration {
        Duration::ZERO => Err("it must be longer than zero".to_owned()),
        duration => Ok(duration),
    })
}

fn duration_or_zero(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "a duration is a whole number of ms, s or m, as in 300ms or 5s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_other_machines_are_only_let_in_if_that_is_asked_for() {
        let tls = || Some(TlsFiles { ca: "a".into(), certificate: "b".into(), key: "c".into() });
        let choose = |tls, insecure, listen: &str| {
            security(tls, insecure, listen, listen.parse().unwrap()).map_err(|why| why.to_string())
        };
        for near in ["127.0.0.1:7081", "[::1]:7081"] {
            assert_eq!(choose(None, false, near), Ok(PeerSecurity::PlaintextOnLoopback));
            assert_eq!(choose(None, true, near), Ok(PeerSecurity::Plaintext));
        }
        let far = "10.0.0.1:7081";
        let why = choose(None, false, far).unwrap_err();
        assert!(why.contains(far) && why.contains("--insecure-peers"), "{why}");
        assert_eq!(choose(None, true, far), Ok(PeerSecurity::Plaintext));
        assert!(matches!(choose(tls(), false, far), Ok(PeerSecurity::Tls(_))));
        assert!(choose(tls(), true, far).unwrap_err().contains("choose one"));
        assert_eq!(tls_files(None, None, None).unwrap(), None);
        let why = tls_files(None, Some("b".into()), None).unwrap_err().to_string();
        assert!(why.ends_with("--tls-ca and --tls-key"), "{why}");
    }
}
