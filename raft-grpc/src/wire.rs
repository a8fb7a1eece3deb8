//! What `proto/raft.proto` compiles to. It stays inside this crate: what its fields mean, and what may
//! be in them, only `convert.rs` and `handshake.rs` know.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::cloned_instead_of_copied,
    clippy::match_same_arms,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    clippy::too_many_lines,
    reason = "generated code"
)]

tonic::include_proto!("raft.v1");
