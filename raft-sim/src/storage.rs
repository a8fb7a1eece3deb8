//! What a member of the test cluster keeps: a storage that survives its crashes.
//!
//! There are two kinds of storage. [`memory::Disk`] is made for golden scripts: each write completes when
//! the script says so, in any order. [`shipping::Store`] is what ships: `raft_wal::Log` over a simulated
//! disk, for the simulation. [`durable::Durable`] says for both what would survive a crash now.

pub mod durable;
pub mod memory;
pub mod shipping;

use bytes::Bytes;
use raft_core::{ChunkOrder, Entry, Incoming, LogBase, Restored, Snapshot, SnapshotId, Write};
use raft_wal::{OpenError, WalError};

use durable::Durable;

/// A member's storage, as a driver of a node sees it.
pub trait Storage {
    /// What would survive a crash at this moment: all that was acknowledged, and nothing that was not
    /// even begun.
    fn durable(&self) -> &Durable;

    /// Entries that were handed over, and may or may not be durable yet.
    fn pending(&self) -> impl Iterator<Item = &Entry>;

    /// Begins a life of the node.
    fn start(&mut self) -> Result<Restored, OpenError>;

    /// Ends it. What was not durable is gone, or will turn out to be there.
    fn stop(&mut self);

    /// Takes a write over, to be made durable later.
    fn enqueue(&mut self, write: Write);

    /// Takes an order over to forget the log up to here.
    fn compact(&mut self, base: LogBase);

    /// Takes all entries behind the place over that a repair named, in the order of the writes.
    fn rewrite(&mut self, entries: Vec<Entry>);

    /// Makes a snapshot of the state machine durable.
    fn keep(&mut self, base: LogBase, bytes: &Bytes) -> Result<Snapshot, WalError>;

    /// Reads a piece of a snapshot for a peer.
    fn read_chunk(&mut self, order: &ChunkOrder) -> Result<Option<Bytes>, WalError>;

    /// Does what the node wants with a snapshot that is on its way; how much of it is here then.
    fn store(&mut self, incoming: Incoming) -> Result<Option<(SnapshotId, u64)>, WalError>;

    /// All of a snapshot that is held or has arrived.
    fn content(&mut self, snapshot: &Snapshot) -> Result<Vec<u8>, WalError>;
}
