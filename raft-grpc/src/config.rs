//! What a node is told at its start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use raft_core::NodeId;

use crate::address_book::is_note;
use crate::security::PeerSecurity;

/// The largest command that a cluster can be configured for: one has to fit into a frame of the
/// wire together with everything else.
pub(crate) const COMMAND_BYTES_MAX: u64 = 1 << 20;

/// How one node runs. [`NodeConfig::new`] gives sound values for a local network; everything is
/// checked by [`start`](crate::start) before anything is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// The name of the cluster, 1 to 64 bytes, the same on all nodes. Nodes of another cluster are
    /// refused, and so are data directories.
    pub cluster: String,
    /// Who this node is.
    pub id: NodeId,
    /// Where its log is kept; created if it does not exist. It belongs to this node alone.
    pub data_dir: PathBuf,
    /// Where it listens for the other nodes. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The members that the cluster begins with, this node among them unless it [joins](Self::join), each with
    /// where it can be reached, as `host:port`. Who belongs to the cluster later is in its log, and where they
    /// are the nodes tell each other; then this only helps to find the first of them.
    pub peers: BTreeMap<NodeId, String>,
    /// This node joins a cluster that exists: it is not among those that the cluster began with, and waits
    /// until it is [added](crate::RaftHandle::add_member). Without meaning once it has a log.
    pub join: bool,
    /// Where the others reach this node, as `host:port`, which it tells them, and they each other. Unless set,
    /// they look where their own `peers` say: that suits a cluster whose nodes see each other under different
    /// addresses, or that never moves.
    pub advertise: Option<String>,
    /// What the others should know about this node besides, such as where its clients go; at most 256 bytes
    /// without control characters. It is in [`PeerLink::note`](crate::PeerLink).
    pub note: String,
    /// How this node and its peers know each other: [`PlaintextOnLoopback`](PeerSecurity::PlaintextOnLoopback)
    /// unless set.
    pub security: PeerSecurity,
    /// A follower that hears nothing from a leader campaigns after a random time between this and
    /// twice this; 300 ms unless set. At least four times `heartbeat_interval`.
    pub election_timeout: Duration,
    /// How often an idle leader shows that it is alive; 50 ms unless set.
    pub heartbeat_interval: Duration,
    /// How long [`propose`](crate::RaftHandle::propose) and [`read`](crate::RaftHandle::read) take
    /// at the most; 5 s unless set.
    pub request_timeout: Duration,
    /// How long [`shutdown`](crate::RaftHandle::shutdown) lets what is in flight finish; 2 s unless
    /// set.
    pub shutdown_grace: Duration,
    /// The largest command that may be proposed; 1 MiB unless set, which is also the most.
    pub command_bytes_max: u64,
    /// The size of one file of the log; 16 MiB unless set.
    pub segment_bytes: u64,
    /// After how many bytes of applied commands a node cuts a [snapshot](crate::StateMachine::snapshot) and
    /// lets go of the log before it; 64 MiB unless set. A start reads a snapshot and applies about as
    /// much of the log again.
    pub snapshot_after_bytes: u64,
    /// How much of the log a node keeps in memory and on disk behind its snapshot, so that another one that
    /// was away for a while need not fetch the snapshot; 16 MiB unless set.
    pub trailing_bytes_max: u64,
    /// At what pace a snapshot is read for another node at the most, in bytes per second; 64 MiB unless
    /// set.
    pub snapshot_bytes_per_second_max: u64,
    /// How long after one closed file of the log was read again, to find damage while the others can
    /// still make it good, the next one is; a minute unless set, and zero never.
    pub scrub_interval: Duration,
    /// A node that is the only voter, and whose log is damaged, refuses to start, because nobody has
    /// what it lost. With this it starts with what is before the damage, and keeps the damaged files
    /// aside.
    pub accept_data_loss: bool,
}

impl NodeConfig {
    /// The node `id` of `cluster` with these addresses, everything else at its default.
    #[must_use]
    pub fn new(
        cluster: impl Into<String>,
        id: NodeId,
        data_dir: impl Into<PathBuf>,
        listen: SocketAddr,
        peers: BTreeMap<NodeId, String>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            id,
            data_dir: data_dir.into(),
            listen,
            peers,
            join: false,
            advertise: None,
            note: String::new(),
            security: PeerSecurity::default(),
            election_timeout: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(50),
            request_timeout: Duration::from_secs(5),
            shutdown_grace: Duration::from_secs(2),
            command_bytes_max: COMMAND_BYTES_MAX,
            segment_bytes: 16 << 20,
            snapshot_after_bytes: 64 << 20,
            trailing_bytes_max: 16 << 20,
            snapshot_bytes_per_second_max: 64 << 20,
            scrub_interval: Duration::from_secs(60),
            accept_data_loss: false,
        }
    }

    /// Checks what the protocol and the log do not check themselves.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field, value: String, rule| Err(ConfigError { field, value, rule });
        if self.cluster.is_empty() || self.cluster.len() > 64 {
            let rule = "must be 1 to 64 bytes long";
            return refuse("cluster", format!("{:?}", self.cluster), rule);
        }
        if self.peers.len() > 255 {
            let count = format!("{} addresses", self.peers.len());
            return refuse("peers", count, "must be at most 255");
        }
        let ids = || {
            let ids: Vec<String> = self.peers.keys().map(ToString::to_string).collect();
            format!("[{}]", ids.join(", "))
        };
        if !self.join && !self.peers.contains_key(&self.id) {
            let rule = "must name every member, this node included, unless it joins";
            return refuse("peers", ids(), rule);
        }
        if self.first_members().next().is_none() {
            return refuse(
                "peers",
                ids(),
                "must name a member of the cluster that this node joins",
            );
        }
        if self.own_address().is_none() {
            let rule = "must be set, or peers must name this node too";
            return refuse("advertise", "none".into(), rule);
        }
        if let Some(address) = self.advertise.as_ref().filter(|address| !is_address(address)) {
            return refuse("advertise", format!("{address:?}"), "must be host:port");
        }
        if !is_note(&self.note) {
            let rule = "must be at most 256 bytes, without control characters";
            return refuse("note", format!("{} bytes", self.note.len()), rule);
        }
        if let Some((id, address)) = self.peers.iter().find(|(_, address)| !is_address(address)) {
            return refuse("peers", format!("{id}={address:?}"), "must be host:port");
        }
        self.security.validate(self)?;
        if self.request_timeout.is_zero() {
            return refuse("request_timeout", "0".into(), "must be longer than zero");
        }
        if !(1..=COMMAND_BYTES_MAX).contains(&self.command_bytes_max) {
            let value = self.command_bytes_max.to_string();
            return refuse("command_bytes_max", value, "must be between 1 byte and 1 MiB");
        }
        if self.snapshot_bytes_per_second_max == 0 {
            let rule = "must be at least one";
            return refuse("snapshot_bytes_per_second_max", "0".into(), rule);
        }
        self.raft(0).validate().map_err(ConfigError::from)
    }

    /// The members that the cluster began with, as far as this node knows.
    pub(crate) fn first_members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.keys().copied().filter(|&id| !self.join || id != self.id)
    }

    /// Where the others reach this node.
    pub(crate) fn own_address(&self) -> Option<&String> {
        self.advertise.as_ref().or_else(|| self.peers.get(&self.id))
    }

    /// What of this is for the protocol. `seed` must be another one at every start.
    pub(crate) fn raft(&self, seed: u64) -> raft_core::Config {
        let mut raft = raft_core::Config::new(self.id, seed);
        raft.election_timeout = self.election_timeout;
        raft.heartbeat_interval = self.heartbeat_interval;
        raft.snapshot_after_bytes = self.snapshot_after_bytes;
        raft.trailing_bytes_max = self.trailing_bytes_max;
        raft
    }
}

/// Has it the form `host:port`? Whether there is such a host shows when it is called.
pub(crate) fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let host_is_plain = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:%".contains(&b));
    host_is_plain && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// A setting that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config: {field} = {value}: {rule}")]
pub struct ConfigError {
    /// The field of [`NodeConfig`].
    pub field: &'static str,
    /// What it was set to.
    pub value: String,
    /// What it must be.
    pub rule: &'static str,
}

impl From<raft_core::ConfigError> for ConfigError {
    fn from(error: raft_core::ConfigError) -> Self {
        let raft_core::ConfigError { field, value, rule } = error;
        let value = value.to_string();
        Self { field, value, rule }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::TlsFiles;

    fn config() -> NodeConfig {
        let id = NodeId::new(1).unwrap();
        let peers = BTreeMap::from([(id, "localhost:7081".to_owned())]);
        NodeConfig::new("test", id, "unused", "127.0.0.1:0".parse().unwrap(), peers)
    }

    fn tls() -> PeerSecurity {
        let [ca, certificate, key] = ["ca.pem", "n1.pem", "n1.key"].map(PathBuf::from);
        PeerSecurity::Tls(TlsFiles { ca, certificate, key })
    }

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn other_machines_reach_a_node_only_if_it_is_told_how_to_know_them() {
        for listen in ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let listen = listen.parse().unwrap();
            assert_eq!(NodeConfig { listen, ..config() }.validate(), Ok(()), "{listen}");
        }
        for listen in ["0.0.0.0:0", "10.0.0.1:1", "[::]:0", "[::ffff:10.0.0.1]:0"] {
            let listen = listen.parse().unwrap();
            let mut config = NodeConfig { listen, ..config() };
            assert_eq!(config.validate().map_err(|error| error.field), Err("security"), "{listen}");
            for security in [PeerSecurity::Plaintext, tls()] {
                config.security = security;
                assert_eq!(config.validate(), Ok(()));
            }
        }
    }

    #[test]
    fn each_broken_rule_names_its_field() {
        type Break = fn(&mut NodeConfig);
        let cases: [(&str, Break); 19] = [
            ("election_timeout", |c| c.heartbeat_interval = c.election_timeout),
            ("cluster", |c| c.cluster.clear()),
            ("cluster", |c| c.cluster = "x".repeat(65)),
            ("peers", |c| c.peers.clear()),
            ("peers", |c| c.join = true),
            ("advertise", |c| (c.join, c.id) = (true, NodeId::new(2).unwrap())),
            ("advertise", |c| c.advertise = Some("no port".into())),
            ("note", |c| c.note = "x".repeat(257)),
            ("note", |c| c.note = "\n".into()),
            ("peers", |c| c.id = NodeId::new(2).unwrap()),
            ("peers", |c| c.peers.values_mut().for_each(|a| *a = "no port".into())),
            ("peers", |c| c.peers.values_mut().for_each(|a| *a = "host:0".into())),
            ("security", |c| c.listen = "0.0.0.0:0".parse().unwrap()),
            ("cluster", |c| (c.cluster, c.security) = ("a cluster".into(), tls())),
            ("request_timeout", |c| c.request_timeout = Duration::ZERO),
            ("command_bytes_max", |c| c.command_bytes_max = 0),
            ("snapshot_after_bytes", |c| c.snapshot_after_bytes = 0),
            ("snapshot_bytes_per_second_max", |c| c.snapshot_bytes_per_second_max = 0),
            ("command_bytes_max", |c| c.command_bytes_max = COMMAND_BYTES_MAX + 1),
        ];
        for (field, break_it) in cases {
            let mut broken = config();
            break_it(&mut broken);
            assert_eq!(broken.validate().map_err(|error| error.field), Err(field));
        }
    }
}
