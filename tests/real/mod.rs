//! What the tests and benchmarks with real processes share: a cluster of them, and a client.
#![allow(dead_code, reason = "each program uses its own part")]

pub(crate) mod client;
pub(crate) mod cluster;

/// A step that fails says why; what kind of error it was interests nobody.
pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;
