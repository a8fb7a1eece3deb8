//! What a library user implements.

use std::io;

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
/// The log does not grow for ever: now and then a node asks for a [snapshot](StateMachine::snapshot),
/// keeps it on disk and forgets the log before it. After a restart, and when it lags behind further
/// than the others' logs reach back, it [restores](StateMachine::restore) one.
pub trait StateMachine: Send + Sync + Sized + 'static {
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

    /// Captures all that it remembers, as it is now, for [`restore`](StateMachine::restore) to read.
    ///
    /// Nothing is applied until this returns, so let it be quick: clone what is cheap to clone (an
    /// `Arc`, a persistent map) and do the work in the [`Capture`], which runs on a thread of its own
    /// while commands go on being applied. Equal states should have equal bytes: then the snapshot of
    /// one node can be fetched from another.
    fn snapshot(&self) -> Capture;

    /// A state machine with the state that a [`Capture`] of this program, or of an older version of it,
    /// has written. `self` is what is there until now, of which nothing but its settings should matter;
    /// it is read from meanwhile, and then dropped.
    ///
    /// # Errors
    /// If these are not the bytes of a snapshot. Damage on disk is noticed before that, by checksums, so
    /// the node takes it for a bug, or for a snapshot of a version that it does not know, and stops.
    fn restore(&self, snapshot: &mut dyn io::Read) -> Result<Self, RestoreError>;
}

/// A state that was captured, and how to write it down.
pub struct Capture(Box<Writing>);

type Writing = dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send;

impl Capture {
    /// What `write` writes, on a thread of its own. It is buffered, so small pieces are fine. `write` must hand
    /// on errors of the writer as they are.
    pub fn new(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()> + Send + 'static) -> Self {
        Self(Box::new(write))
    }

    /// Writes it down.
    pub(crate) fn write(self, to: &mut dyn io::Write) -> io::Result<()> {
        (self.0)(to)
    }
}

/// Bytes that are there already.
impl From<Bytes> for Capture {
    fn from(bytes: Bytes) -> Self {
        Self::new(move |to| to.write_all(&bytes))
    }
}

/// Bytes that are there already.
impl From<Vec<u8>> for Capture {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

/// Why a snapshot cannot be restored.
pub type RestoreError = Box<dyn std::error::Error + Send + Sync>;

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
