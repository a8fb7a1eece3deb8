//! The state machine that never failed: what every replica is compared with.

use std::fmt;

use bytes::Bytes;
use raft_core::{Entry, LogIndex, NodeId, Payload};

use crate::machine::{StateMachine, Words};

/// How a workload shows what is said.
pub(crate) type Describe = Box<dyn Fn(Words<'_>) -> String>;

/// Applies what is committed as soon as it is, and remembers what came of it.
pub struct Reference<M> {
    machine: M,
    describe: Describe,
    /// By index from 1: the digest after that entry, and the response to it.
    outcomes: Vec<(u128, Option<Bytes>)>,
}

impl<M: fmt::Debug> fmt::Debug for Reference<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, describe: _, outcomes } = self;
        f.debug_struct("Reference")
            .field("machine", machine)
            .field("outcomes", outcomes)
            .finish_non_exhaustive()
    }
}

/// What follows in a message that says what a replica did.
const WHAT_IT_IS: &str = "The reference is one machine that applied the same log once, in order, and never \
                          stopped.";

impl<M: StateMachine> Reference<M> {
    pub(crate) fn new(machine: M) -> Self {
        let describe = |words: Words<'_>| words.bytes().escape_ascii().to_string();
        Self { machine, describe: Box::new(describe), outcomes: Vec::new() }
    }

    /// From here on messages show commands as a workload does.
    pub(crate) fn describe_by(&mut self, describe: Describe) {
        self.describe = describe;
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

    /// A replica has given this response to this entry.
    pub(crate) fn check_response(&self, id: NodeId, entry: &Entry, response: Option<&Bytes>) {
        let expected = self.outcome(entry.index).1.as_ref();
        if response == expected {
            return;
        }
        let position = entry.position();
        let told = |response: Option<&Bytes>| {
            response.map_or_else(|| "nothing".to_owned(), |it| (self.describe)(Words::Response(it)))
        };
        panic!(
            "State Machine Safety: {id} answers otherwise than the reference\n  \
             the command at {position}: {}\n  {id} answers: {}\n  the reference answers: {}\n{WHAT_IT_IS}",
            self.payload(entry),
            told(response),
            told(expected)
        );
    }

    /// A replica has applied everything up to here; `last` is what it did just now.
    pub(crate) fn check_state(&self, id: NodeId, index: LogIndex, machine: &M, last: Last<'_>) {
        if index == LogIndex(0) {
            return;
        }
        let (expected, digest) = (self.outcome(index).0, machine.digest());
        if digest == expected {
            return;
        }
        let did = match last {
            Last::Applied(entry) => {
                format!("last applied the command at {}: {}", entry.position(), self.payload(entry))
            }
            Last::Restored => format!("has just restored a snapshot as of {index}"),
            Last::Nothing => "did nothing, and what its digest looks at has changed".to_owned(),
        };
        panic!(
            "State Machine Safety: {id} is in another state than the reference at {index}\n  \
             {id} {did}\n  its digest: {digest:032x}\n  that of the reference: \
             {expected:032x}\n{WHAT_IT_IS}"
        );
    }

    fn payload(&self, entry: &Entry) -> String {
        match &entry.payload {
            Payload::Command(command) => (self.describe)(Words::Command(command)),
            Payload::Noop | Payload::Membership(_) => "none, it is not for the machine".to_owned(),
        }
    }
}

/// What a replica did before it was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Last<'a> {
    Applied(&'a Entry),
    Restored,
    Nothing,
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
