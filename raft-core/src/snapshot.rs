//! Snapshots (§7): what stands in for the log before it, and how one travels.
//!
//! The bytes of a snapshot are the state machine's and never pass through the node, except chunk by
//! chunk on their way from one member to another. A snapshot is named by its *content*
//! ([`SnapshotId`]), so that a transfer goes on where it stopped after a broken link, with another
//! leader, or from any member that holds the same.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::membership::Membership;
use crate::types::{INDEX_MAX, LogIndex, LogPosition, NodeId, Term, Timestamp};

/// What a log stands on: the last entry that is not in it, and what the log up to there amounts to
/// besides the state machine (§7: last included index and term, latest configuration).
///
/// A whole log stands on the position `0@0` and the members that the cluster started with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogBase {
    /// That entry.
    pub position: LogPosition,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// The members as of that entry, both halves if it lies in a joint phase.
    pub membership: Membership,
    /// The index of the entry that brought these members.
    pub membership_index: LogIndex,
}

impl LogBase {
    /// What the log of a new cluster stands on.
    #[must_use]
    pub const fn initial(membership: Membership) -> Self {
        Self {
            position: LogPosition::ZERO,
            timestamp: Timestamp(0),
            membership,
            membership_index: LogIndex(0),
        }
    }

    /// Can a snapshot with this base come from a node in `term`?
    pub(crate) fn is_sound(&self, term: Term) -> bool {
        let Self { position, timestamp: _, membership: _, membership_index } = self;
        let possible = position.index > LogIndex(0) && position.index <= INDEX_MAX;
        possible && position.term <= term && *membership_index <= position.index
    }
}

/// A state machine as of one index, in some storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last entry that it contains, and what else must be known to go on from there.
    pub base: LogBase,
    /// How long it is, in bytes.
    pub length: u64,
    /// A digest of its bytes, chosen and checked by the storage.
    pub digest: u128,
}

/// What a snapshot is: two with the same id are the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    /// The last entry that it contains.
    pub position: LogPosition,
    /// How long it is, in bytes.
    pub length: u64,
    /// The digest of its bytes.
    pub digest: u128,
}

impl Snapshot {
    /// Its name.
    #[must_use]
    pub const fn id(&self) -> SnapshotId {
        SnapshotId { position: self.base.position, length: self.length, digest: self.digest }
    }

    /// The last index that it contains.
    #[must_use]
    pub const fn index(&self) -> LogIndex {
        self.base.position.index
    }
}

/// An order to read a piece of a stored snapshot for a peer; answered by
/// [`Input::ChunkRead`](crate::Input::ChunkRead).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkOrder {
    /// Who asked for it.
    pub to: NodeId,
    /// Of which snapshot.
    pub snapshot: SnapshotId,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes at the most. At least one less than the rest is a short read, and fine.
    pub bytes_max: u64,
}

/// What to do with a snapshot that is on its way to this node. The storage answers each with how much
/// of the snapshot it then holds ([`Input::SnapshotHeld`](crate::Input::SnapshotHeld)), except
/// [`Incoming::Abandon`], which has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Incoming {
    /// This snapshot is about to come: how much of it is there already?
    Begin(Snapshot),
    /// The bytes that follow on those held.
    Chunk {
        /// Of which snapshot.
        snapshot: SnapshotId,
        /// Where they begin: as many are held.
        offset: u64,
        /// The bytes, never empty.
        bytes: Bytes,
    },
    /// It is not needed any more; what is held of it may be deleted.
    Abandon(SnapshotId),
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.position, self.length)
    }
}

/// The newest snapshot and the one before it: a peer may still be reading that.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Held(Vec<Snapshot>);

impl Held {
    const MAX: usize = 2;

    pub(crate) fn new(snapshot: Option<Snapshot>) -> Self {
        Self(Vec::from_iter(snapshot))
    }

    pub(crate) fn newest(&self) -> Option<&Snapshot> {
        self.0.last()
    }

    /// The index up to which the newest one goes, 0 if there is none.
    pub(crate) fn index(&self) -> LogIndex {
        self.newest().map_or(LogIndex(0), Snapshot::index)
    }

    pub(crate) fn contains(&self, id: SnapshotId) -> bool {
        self.0.iter().any(|snapshot| snapshot.id() == id)
    }

    pub(crate) fn push(&mut self, snapshot: Snapshot) {
        debug_assert!(snapshot.index() > self.index());
        if self.0.len() == Self::MAX {
            self.0.remove(0);
        }
        self.0.push(snapshot);
    }
}
