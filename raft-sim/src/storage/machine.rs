//! The state machine of a member.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use raft_core::{Entry, LogIndex};

use crate::digest::Digest;

/// A state machine: all that it remembers of its commands is a digest.
#[derive(Default)]
pub struct Machine {
    /// The digest as of each index since the last that was reported as applied.
    states: BTreeMap<LogIndex, u64>,
}

impl Machine {
    pub fn apply(&mut self, entry: &Entry) {
        let before = self.states.last_key_value().map_or(0, |(_, state)| *state);
        self.states.insert(entry.index, apply(before, entry));
    }

    /// The digest as of an index.
    pub fn state_at(&self, index: LogIndex) -> Option<u64> {
        self.states.get(&index).copied()
    }

    pub fn forget_before(&mut self, index: LogIndex) {
        self.states = self.states.split_off(&index);
    }

    /// The bytes of a snapshot; their length varies with the index, and with nothing else.
    pub fn snapshot_at(&self, index: LogIndex) -> Option<Bytes> {
        let state = self.state_at(index)?;
        let padding = "-".repeat(usize::try_from(index.0 % 97).expect("less than 97"));
        Some(Bytes::from(format!("{} {state:020} {padding}", index.0)))
    }

    pub fn restore(&mut self, bytes: &[u8]) {
        let text = std::str::from_utf8(bytes).expect("a snapshot of ours is text");
        let mut words = text.split(' ').map(str::parse::<u64>);
        let (index, state) = (words.next(), words.next());
        let (Some(Ok(index)), Some(Ok(state))) = (index, state) else {
            panic!("not a snapshot of ours: {text}");
        };
        self.states = BTreeMap::from([(LogIndex(index), state)]);
    }
}

/// What an entry makes of a state.
pub fn apply(state: u64, entry: &Entry) -> u64 {
    let mut digest = Digest::default();
    (state, entry).hash(&mut digest);
    digest.finish()
}
