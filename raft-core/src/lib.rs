//! The Raft consensus protocol as a pure, deterministic state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod entry;
mod membership;
mod message;
mod types;
mod write;

pub use entry::{ENTRY_OVERHEAD_BYTES, Entry, Payload};
pub use membership::{Membership, MembershipError, SMALL_CLUSTER};
pub use message::{AppendOutcome, Ballot, BallotKind, Envelope, Message, Round};
pub use types::{GroupId, Instant, LogIndex, LogPosition, NodeId, Term, Timestamp};
pub use write::{HardState, LogMark, Receipt, Restored, Write};
