//! The Raft consensus protocol as a pure, deterministic state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod configurations;
mod entry;
mod input;
mod log;
mod membership;
mod message;
mod node;
mod output;
mod progress;
mod random;
mod types;
mod write;

pub use config::{Config, ConfigError};
pub use entry::{ENTRY_OVERHEAD_BYTES, Entry, Payload};
pub use input::Input;
pub use membership::{Membership, MembershipError, SMALL_CLUSTER};
pub use message::{AppendOutcome, Ballot, BallotKind, Envelope, Message, QuestionId, Round};
pub use node::{Node, StartError};
pub use output::{
    Event, Fate, Ignored, Output, PeerStatus, ProposalOutcome, ProposeRefusal, ProposeRefused,
    Proposed, ReadId, ReadOutcome, ReadRefused, RoleKind, Status,
};
pub use types::{GroupId, Instant, LogIndex, LogPosition, NodeId, Term, Timestamp};
pub use write::{HardState, LogMark, Receipt, Restored, Write};
