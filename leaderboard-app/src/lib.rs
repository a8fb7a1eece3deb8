//! A leaderboard replicated with Raft: nodes that answer HTTP, a balancer before them, and a page.

pub mod balancer;
pub mod cli;
