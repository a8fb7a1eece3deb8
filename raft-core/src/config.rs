//! What a node is told at its start, and the rules that keep it from breaking Raft.

use core::fmt;
use core::time::Duration;

use crate::types::{GroupId, NodeId};

/// How one node of one group behaves. [`Config::new`] gives sound values for a local network; what is
/// changed is checked by [`Node::new`](crate::Node::new).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Who this node is.
    pub id: NodeId,
    /// The Raft group; 0 in a cluster with a single group.
    pub group: GroupId,
    /// Seeds the election timeouts and names this life of the node: use a fresh random number at every
    /// start. Two runs with the same seed and the same inputs do the same, byte for byte.
    pub seed: u64,
    /// A follower that hears nothing campaigns after a random time between this and twice this (§5.2),
    /// and a leader that hears from no quorum for this long steps down. At least four times
    /// `heartbeat_interval`; 300 ms unless set.
    pub election_timeout: Duration,
    /// How often an idle leader shows that it is alive; 50 ms unless set.
    pub heartbeat_interval: Duration,
    /// How many bytes of entries one AppendEntries carries at the most (a single larger entry travels
    /// alone); 1 MiB unless set.
    pub append_bytes_max: u64,
    /// How many AppendEntries may be on their way to one peer without an answer; 64 unless set.
    pub inflight_messages_max: usize,
    /// How many bytes of entries may be on their way to one peer; 8 MiB unless set.
    pub inflight_bytes_max: u64,
    /// How many bytes of entries a leader accepts beyond the commit index before it refuses proposals;
    /// 64 MiB unless set.
    pub uncommitted_bytes_max: u64,
    /// How many bytes of committed entries are handed out before the state machine reports
    /// [`Input::Applied`](crate::Input::Applied); 16 MiB unless set.
    pub unapplied_bytes_max: u64,
    /// How many reads may wait for their index at once; 100,000 unless set.
    pub waiting_reads_max: usize,
}

/// A value of [`Config`] that would break Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// What it was set to.
    pub value: u128,
    /// What it must be.
    pub rule: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, rule } = self;
        write!(f, "config: {field} = {value}: {rule}")
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// The node `id` with this seed, everything else at its default.
    #[must_use]
    pub const fn new(id: NodeId, seed: u64) -> Self {
        Self {
            id,
            group: GroupId(0),
            seed,
            election_timeout: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(50),
            append_bytes_max: 1 << 20,
            inflight_messages_max: 64,
            inflight_bytes_max: 8 << 20,
            uncommitted_bytes_max: 64 << 20,
            unapplied_bytes_max: 16 << 20,
            waiting_reads_max: 100_000,
        }
    }

    /// Checks the rules that the fields name.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let nanos = |time: Duration| time.as_nanos();
        let rules = [
            (
                "heartbeat_interval",
                nanos(self.heartbeat_interval),
                !self.heartbeat_interval.is_zero(),
                "must be longer than zero nanoseconds",
            ),
            (
                "election_timeout",
                nanos(self.election_timeout),
                nanos(self.election_timeout) >= nanos(self.heartbeat_interval) * 4,
                "must be at least four heartbeat intervals (nanoseconds), so that one lost \
                 heartbeat is no election",
            ),
            (
                "election_timeout",
                nanos(self.election_timeout),
                self.election_timeout <= Duration::from_secs(3600),
                "must be at most an hour (nanoseconds)",
            ),
            (
                "append_bytes_max",
                self.append_bytes_max.into(),
                self.append_bytes_max > 0,
                "must be at least one byte",
            ),
            (
                "inflight_messages_max",
                self.inflight_messages_max as u128,
                (1..=4096).contains(&self.inflight_messages_max),
                "must be between 1 and 4096",
            ),
            (
                "inflight_bytes_max",
                self.inflight_bytes_max.into(),
                self.inflight_bytes_max >= self.append_bytes_max,
                "must hold at least one message of append_bytes_max",
            ),
            (
                "uncommitted_bytes_max",
                self.uncommitted_bytes_max.into(),
                self.uncommitted_bytes_max >= self.append_bytes_max,
                "must hold at least one message of append_bytes_max",
            ),
            (
                "unapplied_bytes_max",
                self.unapplied_bytes_max.into(),
                self.unapplied_bytes_max > 0,
                "must be at least one byte",
            ),
            (
                "waiting_reads_max",
                self.waiting_reads_max as u128,
                self.waiting_reads_max > 0,
                "must be at least one",
            ),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((field, value, _, rule)) => Err(ConfigError { field, value, rule }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(NodeId::new(1).unwrap(), 1)
    }

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(config().validate(), Ok(()));
    }

    #[test]
    fn each_broken_rule_names_its_field() {
        type Break = fn(&mut Config);
        let cases: [(&str, Break); 8] = [
            ("heartbeat_interval", |c| {
                c.heartbeat_interval = Duration::ZERO;
            }),
            ("election_timeout", |c| {
                c.election_timeout = c.heartbeat_interval * 4 - Duration::from_nanos(1);
            }),
            ("election_timeout", |c| c.election_timeout = Duration::MAX),
            ("append_bytes_max", |c| c.append_bytes_max = 0),
            ("inflight_messages_max", |c| c.inflight_messages_max = 0),
            ("inflight_bytes_max", |c| {
                c.inflight_bytes_max = c.append_bytes_max - 1;
            }),
            ("uncommitted_bytes_max", |c| c.uncommitted_bytes_max = 0),
            ("waiting_reads_max", |c| c.waiting_reads_max = 0),
        ];
        for (field, break_it) in cases {
            let mut broken = config();
            break_it(&mut broken);
            assert_eq!(broken.validate().map_err(|error| error.field), Err(field));
        }
    }
}
