//! Raft over gRPC: replicate a deterministic state machine over a few nodes.

mod apply;
mod config;
mod connect;
mod convert;
mod driver;
mod error;
mod forward;
mod handle;
mod handshake;
mod inbox;
mod listener;
mod node;
mod peer;
mod pending;
mod queue;
mod requests;
mod service;
mod state_machine;
mod status;
mod throttle;
mod wire;

pub use config::{ConfigError, NodeConfig};
pub use error::{Fatal, NotApplied, ProposeError, ReadError, StartError, Unknown};
pub use handle::{Applied, Consistency, RaftHandle, ReadGuard};
pub use node::{NodeTask, start, start_on};
pub use raft_core::{
    LogIndex, LogPosition, Membership, NodeId, PeerStatus, RoleKind, Status, Term, Timestamp,
};
pub use state_machine::{AppliedEntry, RESPONSE_BYTES_MAX, StateMachine};
pub use status::{NodeStatus, PeerLink};
