//! The disk's side of the protocol: a [`Write`] goes out, its [`Receipt`] comes back once it is durable.
//!
//! A receipt can only be made by consuming the write that it stands for, and it names the node's life
//! and the write's number, so that it can be neither forged, used twice nor carried over a restart.
//! Everything that a write promises to others waits inside the node until the receipt is there.

use alloc::vec::Vec;

use crate::entries::Entries;
use crate::entry::Entry;
use crate::snapshot::Snapshot;
use crate::types::{GroupId, LogIndex, NodeId, Term};

/// What a node must never forget about elections (Figure 2, persistent state): one record, because a
/// term and a vote that are saved apart can be lost apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The latest term that the node has seen.
    pub term: Term,
    /// Whom it voted for in that term, if anyone.
    pub voted_for: Option<NodeId>,
}

/// How far the log goes once a write is durable, and under which leader it was accepted.
///
/// An index alone would not do: a suffix may be overwritten while the write is on its way, and its late
/// acknowledgement must not be taken for one of the entries that came in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogMark {
    /// The node's term when it handed out the write.
    pub term: Term,
    /// The last index of its log at that moment.
    pub index: LogIndex,
}

/// Something to make durable: in this order the vote, the snapshot, the truncation, the entries.
///
/// Writes must reach the disk in the order in which they were handed out; their receipts may come back
/// in any order. A write that failed has no receipt: the node then promises nothing more, and the
/// process should end.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a write that is not made durable stops the node from promising anything"]
pub struct Write {
    pub(crate) ticket: Ticket,
    pub(crate) group: GroupId,
    pub(crate) hard_state: Option<HardState>,
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) truncate_from: Option<LogIndex>,
    pub(crate) entries: Entries,
}

/// What ties a receipt to its write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket {
    /// The life of the node that handed out the write: its seed, new at every start. `None` for a
    /// write that no node handed out.
    pub(crate) life: Option<u64>,
    pub(crate) number: u64,
    pub(crate) mark: LogMark,
}

impl Write {
    /// A write that no node handed out, for tests of a storage layer: its receipt belongs to no
    /// node's life, so every node ignores it.
    pub fn detached(
        hard_state: Option<HardState>,
        truncate_from: Option<LogIndex>,
        entries: Vec<Entry>,
    ) -> Self {
        let term = entries.last().map(|entry| entry.term);
        let term = term.or(hard_state.map(|state| state.term)).unwrap_or_default();
        let index = entries.last().map(|entry| entry.index);
        let index = index.or(truncate_from.map(LogIndex::prev)).unwrap_or_default();
        let ticket = Ticket { life: None, number: 0, mark: LogMark { term, index } };
        Self {
            ticket,
            group: GroupId::default(),
            hard_state,
            snapshot: None,
            truncate_from,
            entries: entries.into(),
        }
    }

    /// As [`Write::detached`], of a snapshot that takes the place of the whole log.
    pub fn detached_snapshot(
        hard_state: Option<HardState>,
        snapshot: Snapshot,
        entries: Vec<Entry>,
    ) -> Self {
        let mut write = Self::detached(hard_state, None, entries);
        write.ticket.mark.index = write.ticket.mark.index.max(snapshot.index());
        write.snapshot = Some(snapshot);
        write
    }

    /// The Raft group whose log it changes.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The new term and vote, if they changed.
    #[must_use]
    pub fn hard_state(&self) -> Option<HardState> {
        self.hard_state
    }

    /// A received snapshot that takes the place of the whole log, if there is one: once *it* is durable
    /// the log before it may go; `entries` follow on it. A crash in between leaves the snapshot and a
    /// log that does not contain its position: such a log is to be discarded at the next start.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The first index to remove, with everything behind it, before `entries` are appended.
    #[must_use]
    pub fn truncate_from(&self) -> Option<LogIndex> {
        self.truncate_from
    }

    /// What to append: contiguous, following on the log as truncated.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How far the log goes once this is durable.
    #[must_use]
    pub fn mark(&self) -> LogMark {
        self.ticket.mark
    }

    /// Says that this write is durable: it would survive a power cut at this moment, as soon as every
    /// write handed out before it would. To be given back as
    /// [`Input::Written`](crate::Input::Written); a receipt that comes before an earlier write's is
    /// parked until that one's is there too.
    #[must_use = "the node waits for the receipt"]
    pub fn into_receipt(self) -> Receipt {
        Receipt { ticket: self.ticket }
    }
}

/// Proof that a [`Write`] is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    pub(crate) ticket: Ticket,
}
