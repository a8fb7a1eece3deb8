//! The HTTP interface of a node, over real connections to a real hyper server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod bad_input;
mod client;
mod cluster;
mod connections;
mod operations;
mod page;
mod rankings;
mod unread;
mod votes;
