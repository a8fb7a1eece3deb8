//! A cluster of shipping `raft_core::Node`s in one thread, over storages that forget what was not synced,
//! with your state machine and your clients, watched by a checker after every step.
//!
//! [`machine`] is what you bring: a state machine, and what its clients do. [`storage`] is what a member
//! keeps, [`replica`] its state machine; [`cluster`] moves one node at a time and knows no chance;
//! [`checker`] holds the invariants, [`spec`] says what a node may do at all, [`reference`](mod@reference) what a state
//! machine must answer; [`simulation`] adds virtual time, faults and clients, all drawn from one seed,
//! over the shipping log. [`history`] is what the clients were told; it is compared with a replay of the
//! log, and [`linearizability`] judges it without one. [`campaign`] runs many seeds, [`shrink`] makes a
//! failing one small.
//!
//! Whoever brings a state machine needs no other crate: [`bytes`] and [`fastrand`] are re-exported, and what
//! it takes from `raft_core` is in [`machine`].
#![forbid(unsafe_code)]

pub use bytes;
pub use fastrand;

pub mod campaign;
pub mod checker;
pub mod cluster;
mod digest;
pub mod digest_machine;
pub mod history;
pub mod linearizability;
pub mod machine;
pub mod reference;
pub mod registers;
pub mod replica;
pub mod shrink;
pub mod simulation;
pub mod spec;
pub mod storage;
pub mod transcript;
