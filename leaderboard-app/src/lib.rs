//! A leaderboard replicated with Raft: nodes that answer HTTP, a balancer before them, and a page.
//!
//! Three layers, each knowing only the one below it:
//!
//! - **The state**, pure and deterministic: [`leaderboard`] holds boards and idempotency keys and is
//!   changed only by [`command`]s, each answered with a [`reply`]. A [`board`] ranks its players with
//!   an [`ordered_index`]; [`idempotency`] makes writes exactly-once; a [`digest`] tells whether two
//!   nodes hold the same; a [`snapshot`] is all of it as bytes.
//! - **The node**: [`node`] runs that state on `raft-grpc` and answers HTTP.
//! - **The command line**: [`cli`], with [`balancer`] as the second thing that it can run, what operators ask of
//!   a running cluster, `leaderboard log`, which looks into the log directory of a node that does not run, and
//!   [`certs`], which makes certificates for nodes.
//!
//! The life of a vote: `POST /add_vote` is read and checked, becomes the bytes of a command, is
//! proposed, replicated and applied on every node; the reply of the node that was asked travels back as
//! bytes too, because it may come from the leader, and becomes JSON. A read asks Raft how fresh it has
//! to be, waits until this node is, and looks at the state.

pub mod balancer;
pub mod board;
mod byte_size;
pub mod certs;
pub mod cli;
mod codec;
pub mod command;
pub mod digest;
mod duration;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod hostile;
pub mod idempotency;
pub mod leaderboard;
mod lingering;
mod log_command;
pub mod node;
mod operate;
pub mod ordered_index;
pub mod reply;
mod rest;
pub mod snapshot;
pub mod types;

pub use codec::DecodeError;
