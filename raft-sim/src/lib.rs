//! A cluster of shipping `raft_core::Node`s in one thread, over storages that forget what was not synced,
//! watched by a checker after every step.
//!
//! [`storage`] is what a member keeps; [`cluster`] moves one node at a time and knows no chance;
//! [`checker`] holds the invariants, [`spec`] says what a node may do at all; [`simulation`] adds virtual time, faults and clients, all drawn
//! from one seed, over the shipping log.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the way out of the tests is not complete")]

pub mod campaign;
pub mod checker;
pub mod cluster;
mod digest;
pub mod digest_machine;
pub mod history;
pub mod machine;
pub mod reference;
pub mod registers;
pub mod replica;
pub mod shrink;
pub mod simulation;
pub mod spec;
pub mod storage;
pub mod transcript;
