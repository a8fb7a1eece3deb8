//! What the tests of the protocol share: a cluster of shipping `raft_core::Node`s in one thread, over
//! storages that forget what was not synced, watched by a checker after every step.
//!
//! `storage.rs` is what a member keeps; `cluster.rs` moves one node at a time and knows no chance;
//! `checker.rs` holds the invariants; `simulation.rs` adds virtual time, faults and clients, all drawn
//! from one seed, over the shipping log; `script.rs` runs the golden scripts, over a hand-made disk.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the harness")]

pub mod checker;
pub mod cluster;
pub mod script;
pub mod simulation;
pub mod storage;
