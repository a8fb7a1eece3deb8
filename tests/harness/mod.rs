//! What runs the golden scripts, over a cluster of `raft_sim` with a hand-made disk.
#![allow(unreachable_pub, reason = "a module of a test is nobody's library")]

pub mod script;
