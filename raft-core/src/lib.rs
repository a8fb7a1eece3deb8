//! The [Raft](https://raft.github.io/raft.pdf) consensus protocol as a pure, deterministic state machine.
//!
//! A [`Node`] is one member of a Raft group. It has no clock, no thread, no socket and no file: you tell it
//! what happens, and it tells you what to do. Whoever calls it decides how messages travel and where the log
//! is kept; what the protocol needs to stay safe cannot be got wrong from outside:
//!
//! - every message that comes out may be sent at once, because promises wait inside until the disk has
//!   confirmed what they promise;
//! - that confirmation, a [`Receipt`], can only be made from the [`Write`] that it stands for;
//! - nothing that a peer sends, however wrong, makes a node panic or fail;
//! - the same configuration and inputs give the same outputs, byte for byte.
//!
//! # A node in ten lines
//!
//! ```
//! use raft_core::{Config, Input, Instant, Membership, Node, NodeId, Output, Restored, Timestamp};
//!
//! let n1 = NodeId::new(1).expect("not zero");
//! let alone = Membership::new([n1])?;
//! let mut node = Node::new(Config::new(n1, 42), Restored::empty(alone), Instant::default())?;
//! let mut output = Output::default();
//! let mut applied = Vec::new();
//! while applied.is_empty() {
//!     let now = node.deadline();
//!     node.step(now, Input::Timer);
//!     let _ = node.propose(now, Timestamp(0), vec!["hello".into()]); // refused until it leads
//!     node.poll(&mut output);
//!     if let Some(write) = output.write.take() {
//!         // A real caller makes `write.hard_state()`, `truncate_from()` and `entries()` durable here.
//!         node.step(now, Input::Written(write.into_receipt()));
//!         node.poll(&mut output);
//!     }
//!     applied.extend(output.committed.drain(..).filter(|entry| entry.index.0 > 1));
//!     output.messages.clear(); // There is nobody to send them to.
//! }
//! assert_eq!(applied[0].to_string(), "2@1=hello");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! A driver for a real cluster is the same loop: wait for an input or the [deadline](Node::deadline), feed
//! everything that has queued up, [poll](Node::poll) once, and hand each field of the [`Output`] to whom it
//! concerns. Feeding all before one poll is what makes batches: ten proposals become one write and one
//! message to each peer.
//!
//! # Raft, told with this code
//!
//! **Terms and roles** (§5.1, Figure 4). Time is cut into terms, each with at most one leader. A node is a
//! follower, a pre-candidate, a candidate or a leader ([`RoleKind`]); each role owns the data that only it
//! needs. Every [`Envelope`] carries its sender's term. The past is answered with the present, the future is
//! adopted: that rule stands once, above the dispatch.
//!
//! **Elections** (§5.2). A follower that hears nothing for a random time first asks whether it would be
//! elected ([`BallotKind::PreVote`], thesis §9.6), which changes nothing anywhere; with a majority of
//! "yes" it starts a term and asks for real ([`BallotKind::Vote`]). A vote goes only to a log that is at least
//! as up-to-date (§5.4.1), which is one comparison of [`LogPosition`]s, and only when no leader has been heard
//! lately. Term and vote are one record ([`HardState`]), durable before anyone hears of them.
//!
//! **Replication** (§5.3). The leader appends commands and sends each peer what it lacks: one message at a time
//! while it looks for the place where the logs agree, then ahead of the answers within a window. A
//! follower refuses what does not fit and hints at where to look, whole terms at a time. It acknowledges what is
//! on its *disk* ([`AppendOutcome::Accepted`]), once for everything that arrived since it was last polled.
//!
//! **Commitment** (§5.3, §5.4.2). What a majority has on disk is committed, if it is of the leader's own term;
//! what precedes it is committed along with it (Figure 8 shows why not before). The leader's disk is just
//! another voter: an entry can be committed before the leader's own write is done.
//!
//! **Reads** (thesis §6.4). A linearizable read needs no log entry: the leader notes its commit index, makes
//! sure with one round of heartbeats that it still leads, and lets the read go ahead at that index
//! ([`Node::read`], [`ReadOutcome`]). All reads that wait share a round; followers ask the leader.
//!
//! **Fates.** Every proposal that was taken ends as [`Fate::Committed`] or [`Fate::Superseded`], which means
//! that it is certainly in no state machine, now or later.
//!
//! # Where things are
//!
//! The vocabulary (`types`, `entry`, `message`, `write`, `membership`, `log`, `progress`, …) never mentions the
//! node. `node.rs` has the doors and the prelude; the files below `node/` are the chapters, each with one
//! conversation from its first request to its last reply.
//!
//! # What is not here
//!
//! Membership changes, leadership transfer, snapshots and leases are not done yet. Deliberately absent for ever:
//! ticks (time is an argument, so that a process that was paused does not take its lease for good), type
//! parameters over storage and network, features, callbacks, and retries.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod configurations;
mod entry;
mod event;
mod input;
mod log;
mod membership;
mod message;
mod node;
mod output;
mod progress;
mod random;
mod refusal;
mod snapshot;
mod status;
mod types;
mod write;

pub use config::{Config, ConfigError, Promotion};
pub use entry::{ENTRY_OVERHEAD_BYTES, Entry, Payload};
pub use event::{Event, Ignored, VoteRefusal};
pub use input::Input;
pub use membership::{Membership, MembershipError, SMALL_CLUSTER};
pub use message::{AppendOutcome, Ballot, BallotKind, Envelope, Message, QuestionId, Round};
pub use node::{Node, StartError};
pub use output::{
    ChangeOutcome, Consistency, Fate, Output, ProposalOutcome, Proposed, ReadId, ReadOutcome,
};
pub use refusal::{ChangeRefusal, ProposeRefusal, ProposeRefused, ReadRefused, TransferRefusal};
pub use snapshot::{ChunkOrder, Incoming, LogBase, Snapshot, SnapshotId};
pub use status::{PeerPace, PeerStatus, RoleKind, Status};
pub use types::{GroupId, Incarnation, Instant, LogIndex, LogPosition, NodeId, Term, Timestamp};
pub use write::{HardState, LogMark, Receipt, Restored, Write};
