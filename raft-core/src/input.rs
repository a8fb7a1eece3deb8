//! What the world does to a node.

use bytes::Bytes;

use crate::message::Envelope;
use crate::snapshot::{ChunkOrder, Snapshot, SnapshotId};
use crate::types::LogIndex;
use crate::write::Receipt;

/// Something that happened, to be fed to [`Node::step`](crate::Node::step) in the order in which it did.
#[derive(Debug)]
pub enum Input {
    /// [`Node::deadline`](crate::Node::deadline) has passed. Early, late or needless calls are harmless.
    Timer,
    /// A message arrived. It may be late, repeated, out of order or nonsense.
    Message(Envelope),
    /// A write became durable.
    Written(Receipt),
    /// The state machine has applied all entries up to this index, or restored a snapshot that contains
    /// them.
    Applied(LogIndex),
    /// The state machine's own snapshot is durable, with the base that
    /// [`Node::snapshot_base`](crate::Node::snapshot_base) gave for it (§7): the log before it is
    /// compacted.
    SnapshotCut(Snapshot),
    /// A piece of a stored snapshot was read, by order of [`Output::chunks`](crate::Output::chunks).
    ChunkRead {
        /// The order.
        order: ChunkOrder,
        /// What was read, or `None` if the snapshot is not there any more.
        bytes: Option<Bytes>,
    },
    /// So much of the snapshot that is on its way here is durable, from its beginning, by order of
    /// [`Output::incoming`](crate::Output::incoming). All of it means: verified against its digest. If
    /// that fails, the storage discards it and reports zero.
    SnapshotHeld {
        /// Of which snapshot.
        snapshot: SnapshotId,
        /// How many bytes.
        bytes: u64,
    },
}
