//! Raft over gRPC: replicate a deterministic state machine over a few nodes.

mod config;
mod error;
mod handle;
mod state_machine;
mod status;

pub use config::{ConfigError, NodeConfig};
pub use error::{Fatal, NotApplied, ProposeError, ReadError, StartError, Unknown};
pub use handle::{Applied, Consistency, NodeTask, RaftHandle, ReadGuard, start};
pub use raft_core::{
    LogIndex, LogPosition, Membership, NodeId, PeerStatus, RoleKind, Status, Term, Timestamp,
};
pub use state_machine::{AppliedEntry, StateMachine};
pub use status::{NodeStatus, PeerLink};
