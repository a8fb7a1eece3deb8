//! A durable log for Raft: the vote and the entries of a node in one stream of checksummed
//! segments.
//!
//! Durable state is half of Raft's safety argument: a node that forgets a vote elects two leaders,
//! one that forgets an acknowledged entry loses it for the whole cluster. This crate keeps both,
//! tells when they are safe, and refuses to start when they are not.
//!
//! # The way of a write
//!
//! A node of [`raft_core`] hands out a [`Write`](raft_core::Write): a vote, a truncation, entries.
//! [`Wal::submit`] queues it without waiting. The writer thread takes all that is queued, appends
//! it as one batch, syncs once, and calls back with a [`Completion`] for each write: its
//! [`Receipt`](raft_core::Receipt) is the proof of durability that the node waits for.
//!
//! # What is promised
//!
//! - A write whose receipt was given survives power cuts. Recovery yields it, or an error.
//! - A write without receipt is recovered whole or not at all.
//! - A failed write or sync ends the log ([`Completion::Failed`]): nothing is retried, because
//!   after a failed sync the system forgets what it could not write and reports success next time.
//! - Recovery tells a *torn* end, which a power cut leaves and nobody was promised, from
//!   *corruption*, which it never drops or skips in silence. A node whose vote is intact comes back
//!   with what is whole and the mark of what it lost ([`Restored::lost`](raft_core::Restored)), which
//!   keeps it from helping anybody who lacks that; any other is refused ([`OpenError::Corrupt`]).
//! - A directory belongs to one node of one cluster, and to one process at a time.
//!
//! # The crate
//!
//! | to read | what it is |
//! |---|---|
//! | `FORMAT.md` | every byte on disk, and how recovery judges them |
//! | `format/` | records, batches, headers: pure functions between values and bytes |
//! | `format/walk.rs` | the judgement of torn and corrupt |
//! | `log.rs` | [`Log`]: append, sync, roll, drop, repair; synchronous, over a [`Disk`] |
//! | `recovery.rs`, `recovery/plan.rs` | opening: what is there, and what is done about it |
//! | `snapshots.rs` | [`SnapshotStore`]: snapshots cut here, and those that arrive in pieces |
//! | `scrub.rs` | reading again what was written long ago |
//! | `wal.rs`, `helpers.rs` | [`Wal`]: the log on a thread, with group commit, and the threads beside it |
//! | [`inspect`] | looking into a directory without touching it |
//! | `file_disk.rs`, [`sim`] | the real disk, and one that loses what a real one may lose |
//!
//! Deliberately absent: timers that delay a write, retries, memory maps, a choice of durability
//! levels, reading entries back while running (the node holds its log in memory), and any knowledge of
//! networks.
//!
//! # Example
//!
//! ```
//! use std::sync::mpsc;
//! use raft_core::{
//!     Entry, HardState, LogIndex, Membership, NodeId, Payload, Term, Timestamp, Write,
//! };
//! use raft_wal::{Completion, Wal, WalConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let parent = tempfile::tempdir()?;
//! # let dir = parent.path().join("n1");
//! let node = NodeId::new(1).expect("not zero");
//! let config = WalConfig::new(&dir, "demo", node, Membership::new([node])?);
//!
//! let (done, completions) = mpsc::channel();
//! let opened = Wal::open(config.clone(), move |completion| drop(done.send(completion)))?;
//! let vote = HardState { term: Term(1), voted_for: Some(node) };
//! let entry = Entry {
//!     index: LogIndex(1),
//!     term: Term(1),
//!     timestamp: Timestamp(0),
//!     payload: Payload::Command("hello".into()),
//! };
//! // A node would hand this out.
//! opened.wal.submit(Write::detached(Some(vote), None, vec![entry.clone()]));
//! assert!(matches!(completions.recv()?, Completion::Durable(_receipt)));
//! opened.wal.close()?;
//!
//! let opened = Wal::open(config, |_| {})?;
//! assert_eq!(opened.restored.hard_state, vote);
//! assert_eq!(opened.restored.entries, [entry]);
//! # Ok(())
//! # }
//! ```

#[cfg(not(unix))]
compile_error!(
    "raft-wal needs positioned reads and writes, flock and directory syncs: a Unix system"
);

mod config;
mod disk;
mod error;
mod file_disk;
mod format;
mod helpers;
mod identity;
pub mod inspect;
mod log;
mod meters;
mod recovery;
mod scrub;
pub mod sim;
mod snapshots;
mod spare;
mod state;
mod wal;

pub use config::{CLUSTER_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, WalConfig};
pub use disk::{Disk, DiskFile};
pub use error::{OpenError, OpenErrorKind, WalError};
pub use file_disk::FileDisk;
pub use format::FORMAT_VERSION;
pub use identity::Identity;
pub use log::{Log, OpenedLog, Repair};
pub use recovery::{Damage, RecoveryReport};
pub use scrub::{ScrubJob, Scrubbed};
pub use snapshots::{SnapshotReader, SnapshotStore, SnapshotWriter};
pub use spare::{Spare, SpareJob};
pub use wal::{Completion, Opened, Space, Wal, WalStats};
