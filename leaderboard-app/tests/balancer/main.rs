//! The balancer before small fake nodes: what it does with dead, broken, slow and refusing ones,
//! and with clients that mean no good.

#![allow(clippy::unwrap_used, reason = "in a test, a failed unwrap is a failed expectation")]

mod fake;
mod forwarding;
mod limits;
mod raw;
mod retries;
mod status;
