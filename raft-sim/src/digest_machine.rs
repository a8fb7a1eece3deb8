//! A state machine that takes any bytes for a command: what golden scripts replicate.

use std::hash::{Hash, Hasher};

use bytes::Bytes;
use raft_core::{LogIndex, LogPosition, Timestamp};

use crate::digest::Digest;
use crate::machine::{RestoreError, StateMachine};

/// All that it remembers of its commands is a digest, and the index of the last.
#[derive(Clone, Debug, Default)]
pub struct DigestMachine {
    last: LogIndex,
    state: u64,
}

impl StateMachine for DigestMachine {
    fn apply(&mut self, position: LogPosition, timestamp: Timestamp, command: &Bytes) -> Bytes {
        let mut digest = Digest::default();
        (self.state, position, timestamp, command).hash(&mut digest);
        (self.last, self.state) = (position.index, digest.finish());
        self.query(command)
    }

    /// The digest, whatever the question.
    fn query(&self, _query: &Bytes) -> Bytes {
        Bytes::copy_from_slice(&self.state.to_le_bytes())
    }

    /// Text whose length varies.
    fn snapshot(&self) -> Bytes {
        let Self { last, state } = self;
        let padding = "-".repeat(usize::try_from(last.0 % 97).expect("less than 97"));
        Bytes::from(format!("{} {state:020} {padding}", last.0))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let text = std::str::from_utf8(snapshot)?;
        let mut words = text.split(' ').map(str::parse::<u64>);
        let (Some(last), Some(state)) = (words.next(), words.next()) else {
            return Err(format!("not a snapshot of ours: {text}").into());
        };
        (self.last, self.state) = (LogIndex(last?), state?);
        Ok(())
    }
}
