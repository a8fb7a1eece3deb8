//! A leaderboard replicated with Raft: nodes that answer HTTP, a balancer before them, and a page.

pub mod balancer;
pub mod board;
pub mod cli;
mod codec;
pub mod command;
pub mod digest;
pub mod idempotency;
pub mod leaderboard;
pub mod ordered_index;
pub mod reply;
pub mod types;

pub use codec::DecodeError;
