//! The state machine that never failed: what every replica is compared with.

use bytes::Bytes;
use raft_core::{Entry, LogIndex, NodeId, Payload};

use crate::machine::StateMachine;

/// Applies what is committed as soon as it is, and remembers what came of it.
#[derive(Debug)]
pub struct Reference<M> {
    machine: M,
    /// By index from 1: the digest after that entry, and the response to it.
    outcomes: Vec<(u128, Option<Bytes>)>,
}

impl<M: StateMachine> Reference<M> {
    pub(crate) const fn new(machine: M) -> Self {
        Self { machine, outcomes: Vec::new() }
    }

    /// Applies what was committed since the last time; `committed` is everything.
    pub(crate) fn follow(&mut self, committed: &[Entry]) {
        for entry in &committed[self.outcomes.len()..] {
            let response = apply_entry(&mut self.machine, entry);
            self.outcomes.push((self.machine.digest(), response));
        }
    }

    fn outcome(&self, index: LogIndex) -> &(u128, Option<Bytes>) {
        let slot = usize::try_from(index.0 - 1).expect("a small log");
        self.outcomes.get(slot).unwrap_or_else(|| panic!("{index} was never committed"))
    }

    /// A replica has given this response.
    pub(crate) fn check_response(&self, id: NodeId, index: LogIndex, response: Option<&Bytes>) {
        let expected = self.outcome(index).1.as_ref();
        assert_eq!(response, expected, "State Machine Safety: another response of {id} at {index}");
    }

    /// A replica has applied everything up to here.
    pub(crate) fn check_state(&self, id: NodeId, index: LogIndex, machine: &M) {
        if index > LogIndex(0) {
            let expected = self.outcome(index).0;
            assert_eq!(machine.digest(), expected, "State Machine Safety: {id} at {index}");
        }
    }
}

/// What a machine answers to an entry, if it is for the machine at all.
pub(crate) fn apply_entry(machine: &mut impl StateMachine, entry: &Entry) -> Option<Bytes> {
    match &entry.payload {
        Payload::Command(command) => {
            Some(machine.apply(entry.position(), entry.timestamp, command))
        }
        Payload::Noop | Payload::Membership(_) => None,
    }
}
