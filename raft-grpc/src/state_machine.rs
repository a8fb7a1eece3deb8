//! What a library user implements.

use bytes::Bytes;
use raft_core::{LogPosition, Timestamp};

/// The largest response that [`StateMachine::apply`] may return: 1 MiB.
pub const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// What is replicated: something that changes only by applying commands, in log order.
///
/// **Deterministic by contract**: the same entries lead to the same state and the same responses,
/// on every node, in every life of the process. So an implementation looks at nothing but itself
/// and the entry: no clock (the leader's is in [`AppliedEntry::timestamp`]), no random numbers, no
/// files, no iteration over a map whose order is not stable.
///
/// After a restart the node applies the log from the start again to a fresh value.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies one committed command and returns the response for whoever proposed it.
    ///
    /// The response is at most [`RESPONSE_BYTES_MAX`] long, or the proposer gets
    /// [`Unknown::ResponseTooLarge`](crate::Unknown) instead.
    ///
    /// It never fails: a command that cannot be done is answered with a response that says so. The
    /// bytes come from proposals, which anyone may have made: it must not panic on malformed ones.
    /// A panic stops the node ([`Fatal::StateMachinePanicked`](crate::Fatal)), and because every
    /// node applies the same command, it stops the cluster.
    fn apply(&mut self, entry: &AppliedEntry) -> Bytes;
}

/// A committed command, as the state machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Its place in the log. Indexes rise, but not by one: the log also holds entries that are not
    /// for the state machine.
    pub position: LogPosition,
    /// The leader's wall clock when it took the command, in milliseconds since the Unix epoch. It
    /// never falls from one entry to the next, and is the same on all nodes.
    pub timestamp: Timestamp,
    /// The bytes that were proposed.
    pub command: Bytes,
}
