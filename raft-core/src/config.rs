//! What a node is told at its start, and the rules that keep it from breaking Raft.

use core::fmt;
use core::time::Duration;

use crate::entry::ENTRY_OVERHEAD_BYTES;
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
    /// `heartbeat_interval`; 300 ms unless set. With leases it must be the same on all members, and may only
    /// be changed while they are off everywhere: a lease counts on the others' patience.
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
    /// The largest message that the transport carries, in bytes: nothing larger is accepted into the
    /// log or sent; 4 MiB unless set.
    pub frame_bytes_max: u64,
    /// After how many bytes of applied entries a new snapshot of the state machine is
    /// [due](crate::Output::snapshot_due) (§7); 64 MiB unless set.
    pub snapshot_after_bytes: u64,
    /// How many bytes of entries stay in the log behind a snapshot, so that a follower that was away
    /// for a moment needs none; 16 MiB unless set.
    pub trailing_bytes_max: u64,
    /// How many bytes of a snapshot one message carries at the most; 1 MiB unless set.
    pub snapshot_chunk_bytes_max: u64,
    /// When a leader makes a learner a voter by itself; never unless set.
    pub promotion: Promotion,
    /// How far the clocks of two members may drift apart, in millionths, for lease reads (thesis
    /// §6.4.1); `None`, as unless set: lease reads ask a majority like all others. The same on all
    /// members, as is `election_timeout` then.
    pub lease_clock_drift_ppm: Option<u32>,
}

/// When a leader makes a learner a voter by itself (thesis §4.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Promotion {
    /// Only when asked to.
    #[default]
    Manual,
    /// As soon as it has caught up: in rounds, each of which replicates what the log held when the round
    /// began, until one takes less than an election timeout. So no node stays a learner, not even one
    /// that was made one on purpose.
    WhenCaughtUp,
}

/// Bytes of a message besides its entries or its chunk of a snapshot, at the most.
const MESSAGE_OVERHEAD_BYTES: u64 = 1024;

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
            frame_bytes_max: 4 << 20,
            snapshot_after_bytes: 64 << 20,
            trailing_bytes_max: 16 << 20,
            snapshot_chunk_bytes_max: 1 << 20,
            promotion: Promotion::Manual,
            lease_clock_drift_ppm: None,
        }
    }

    /// Checks the rules that the fields name.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let broken = |rule: &Rule| !rule.holds;
        match self.rules_of_time().into_iter().chain(self.rules_of_size()).find(broken) {
            Some(Rule { field, value, rule, .. }) => Err(ConfigError { field, value, rule }),
            None => Ok(()),
        }
    }

    /// The largest command that [`Node::propose`](crate::Node::propose) takes, in bytes: what fits into a
    /// message of the transport.
    #[must_use]
    pub const fn command_bytes_max(&self) -> u64 {
        self.frame_bytes_max.saturating_sub(MESSAGE_OVERHEAD_BYTES + ENTRY_OVERHEAD_BYTES)
    }

    /// How long a lease lasts, by the leader's clock, from the moment at which the round was sent that
    /// confirmed it: even if that clock is as slow and a follower's as fast as they may be, the follower
    /// still refuses its vote.
    pub(crate) fn lease_duration(&self) -> Option<Duration> {
        let drift = u128::from(self.lease_clock_drift_ppm?);
        let nanos = self.election_timeout.as_nanos() * (MILLION - drift) / (MILLION + drift);
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn rules_of_time(&self) -> [Rule; 4] {
        let (election, heartbeat) = (self.election_timeout, self.heartbeat_interval);
        let drift = self.lease_clock_drift_ppm.unwrap_or(0);
        [
            Rule {
                field: "heartbeat_interval",
                value: heartbeat.as_nanos(),
                holds: !heartbeat.is_zero(),
                rule: "must be longer than zero nanoseconds",
            },
            Rule {
                field: "election_timeout",
                value: election.as_nanos(),
                holds: election.as_nanos() >= heartbeat.as_nanos() * 4,
                rule: "must be at least four heartbeat intervals (nanoseconds), so that one lost \
                       heartbeat is no election",
            },
            Rule {
                field: "election_timeout",
                value: election.as_nanos(),
                holds: election <= Duration::from_secs(3600),
                rule: "must be at most an hour (nanoseconds)",
            },
            Rule {
                field: "lease_clock_drift_ppm",
                value: drift.into(),
                holds: drift <= 500_000,
                rule: "must be at most 500,000 millionths; with clocks worse than that, leave leases off",
            },
        ]
    }

    fn rules_of_size(&self) -> [Rule; 10] {
        let at_least_one = |field, value: u64| Rule {
            field,
            value: value.into(),
            holds: value > 0,
            rule: "must be at least one",
        };
        let holds_a_message = |field, value: u64| Rule {
            field,
            value: value.into(),
            holds: value >= self.append_bytes_max,
            rule: "must hold at least one message of append_bytes_max",
        };
        let fits_a_frame = |field, value: u64| Rule {
            field,
            value: value.into(),
            holds: value.saturating_add(MESSAGE_OVERHEAD_BYTES) <= self.frame_bytes_max,
            rule: "must be at least 1 KiB less than frame_bytes_max, what the transport carries",
        };
        [
            at_least_one("append_bytes_max", self.append_bytes_max),
            at_least_one("unapplied_bytes_max", self.unapplied_bytes_max),
            at_least_one("waiting_reads_max", self.waiting_reads_max as u64),
            at_least_one("snapshot_after_bytes", self.snapshot_after_bytes),
            at_least_one("snapshot_chunk_bytes_max", self.snapshot_chunk_bytes_max),
            Rule {
                field: "inflight_messages_max",
                value: self.inflight_messages_max as u128,
                holds: (1..=4096).contains(&self.inflight_messages_max),
                rule: "must be between 1 and 4096",
            },
            holds_a_message("inflight_bytes_max", self.inflight_bytes_max),
            holds_a_message("uncommitted_bytes_max", self.uncommitted_bytes_max),
            fits_a_frame("append_bytes_max", self.append_bytes_max),
            fits_a_frame("snapshot_chunk_bytes_max", self.snapshot_chunk_bytes_max),
        ]
    }
}

const MILLION: u128 = 1_000_000;

struct Rule {
    field: &'static str,
    value: u128,
    holds: bool,
    rule: &'static str,
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
        let cases: [(&str, Break); 13] = [
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
            ("append_bytes_max", |c| c.frame_bytes_max = c.append_bytes_max),
            ("snapshot_after_bytes", |c| c.snapshot_after_bytes = 0),
            ("snapshot_chunk_bytes_max", |c| c.snapshot_chunk_bytes_max = 0),
            ("snapshot_chunk_bytes_max", |c| {
                c.snapshot_chunk_bytes_max = c.frame_bytes_max;
            }),
            ("lease_clock_drift_ppm", |c| c.lease_clock_drift_ppm = Some(500_001)),
        ];
        for (field, break_it) in cases {
            let mut broken = config();
            break_it(&mut broken);
            assert_eq!(broken.validate().map_err(|error| error.field), Err(field));
        }
    }
}
