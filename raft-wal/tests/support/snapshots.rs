//! Snapshots of a log whose entries all have the term 2.

use raft_core::{HardState, LogBase, LogIndex, LogPosition, Snapshot, Term, Timestamp};
use xxhash_rust::xxh3::xxh3_128;

use super::members;

pub(crate) const VOTE: HardState = HardState { term: Term(2), voted_for: None };
pub(crate) const CLUSTER: &[u64] = &[1, 2, 3];
pub(crate) const ALONE: &[u64] = &[1];

/// The second one takes more than a chunk.
pub(crate) fn content(index: u64) -> Vec<u8> {
    vec![index as u8; if index == 20 { 66_000 } else { 300 }]
}

pub(crate) fn base(voters: &[u64], index: u64) -> LogBase {
    LogBase {
        position: LogPosition::new(Term(2), LogIndex(index)),
        timestamp: Timestamp(1000 + index),
        membership: members(voters),
        membership_index: LogIndex(0),
    }
}

pub(crate) fn snapshot(index: u64) -> Snapshot {
    let content = content(index);
    let digest = xxh3_128(&content);
    Snapshot { base: base(&[1, 2, 3], index), length: content.len() as u64, digest }
}
