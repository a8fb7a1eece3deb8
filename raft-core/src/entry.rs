//! What the log is made of.

use bytes::Bytes;
use core::fmt;

use crate::membership::Membership;
use crate::types::{LogIndex, LogPosition, Term, Timestamp};

/// One entry of the replicated log (§5.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its place in the log, from 1.
    pub index: LogIndex,
    /// The term of the leader that created it.
    pub term: Term,
    /// The leader's wall clock when it created the entry, never earlier than that of the entry
    /// before. The only clock that a deterministic state machine may look at.
    pub timestamp: Timestamp,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing: what a new leader appends so that it can commit its predecessors' entries (§5.4.2, §8).
    Noop,
    /// A command for the state machine; shared, never copied.
    Command(Bytes),
    /// The cluster's members from here on (§6), effective as soon as it is in the log.
    Membership(Membership),
}

/// Bytes that an entry is taken to cost besides its command, in memory and on the wire.
pub const ENTRY_OVERHEAD_BYTES: u64 = 48;

impl Entry {
    /// What identifies it.
    #[must_use]
    pub const fn position(&self) -> LogPosition {
        LogPosition::new(self.term, self.index)
    }

    /// What it counts for against the byte limits of [`Config`](crate::Config): its payload and
    /// [`ENTRY_OVERHEAD_BYTES`].
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let payload = match &self.payload {
            Payload::Noop => 0,
            Payload::Command(command) => command.len() as u64,
            Payload::Membership(membership) => membership.nodes().count() as u64 * 8,
        };
        ENTRY_OVERHEAD_BYTES + payload
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.payload {
            Payload::Noop => write!(f, "{}", self.position()),
            Payload::Command(command) => {
                write!(f, "{}={}", self.position(), command.escape_ascii())
            }
            Payload::Membership(membership) => write!(f, "{}={membership}", self.position()),
        }
    }
}
