//! What a user of the simulator brings: a state machine, and what its clients do.
//!
//! Implement [`StateMachine`] for what you replicate and [`Workload`] for what your clients ask of it, give
//! the workload to [`Simulation::new`](crate::simulation::Simulation::new), and every seed runs your code
//! on a cluster whose network, disks and clocks fail. The simulator compares every response of every
//! replica with that of a reference that never failed, every answer to a client with a replay of the
//! committed log, and panics with what broke.

use std::error::Error;
use std::hash::Hash;

pub use bytes::Bytes;
pub use raft_core::{LogPosition, Timestamp};

use crate::digest::Digest;
use crate::history::History;

/// Why a snapshot cannot be restored.
pub type RestoreError = Box<dyn Error + Send + Sync>;

/// What is replicated: something that changes only by applying commands, in log order.
///
/// **Deterministic by contract**: the same commands lead to the same state, the same responses and the
/// same snapshots, on every node, in every life. So an implementation looks at nothing but itself and
/// its arguments: no clock (the leader's is the timestamp), no random numbers, no iteration over a map
/// whose order is not stable. The simulator finds out if it does.
pub trait StateMachine: 'static {
    /// Applies one committed command and returns the response for whoever proposed it. It never fails: a
    /// command that cannot be done is answered with a response that says so.
    ///
    /// Indexes rise, but not by one: the log also holds entries that are not for the state machine.
    fn apply(&mut self, position: LogPosition, timestamp: Timestamp, command: &Bytes) -> Bytes;

    /// Answers a question without changing anything.
    fn query(&self, query: &Bytes) -> Bytes;

    /// All that it remembers, as bytes: equal states have equal snapshots. What a snapshot forgets is gone
    /// after a restart; [`StateMachine::digest`] is how the simulator can see that.
    fn snapshot(&self) -> Bytes;

    /// Becomes what such bytes tell, whatever it was before.
    ///
    /// # Errors
    /// If no snapshot has such bytes. The simulator takes that for a bug: its disks tell damage.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError>;

    /// What tells two states apart; compared with that of a machine that never failed, after every entry that
    /// is applied and every snapshot that is restored.
    ///
    /// **Write it yourself**, over all fields: `digest_of(&(&self.accounts, &self.sessions))`, with
    /// [`digest_of`]. Unless you do, it is the hash of a snapshot, and then a field that
    /// [`snapshot`](StateMachine::snapshot) forgets is in neither of the two that are compared: it goes
    /// unnoticed until some answer shows it, if any does. It is asked for after every entry, so a machine
    /// that has much to remember should keep it up to date instead of counting it all again.
    fn digest(&self) -> u128 {
        digest_of(&self.snapshot())
    }
}

/// A digest of anything that can be hashed, the same in every build and process. A `HashMap` cannot be, for
/// its order is not stable: another reason for a `BTreeMap`.
#[must_use]
pub fn digest_of(what: &impl Hash) -> u128 {
    let mut digest = Digest::default();
    what.hash(&mut digest);
    digest.value()
}

/// What a client wants next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A command for the log.
    Write {
        /// Its bytes. The same again if the client tries it again.
        command: Bytes,
        /// May the client try it again although it may have been applied? Only if the machine would know
        /// it again, say by an id in the command, and change nothing. Else the client tries again only
        /// after it was told that nothing was done.
        repeatable: bool,
    },
    /// A question for [`StateMachine::query`].
    Query(Bytes),
}

/// What clients and state machines say to each other, for [`Workload::describe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words<'a> {
    /// What a client wants to have done.
    Command(&'a Bytes),
    /// The machine's response to a command.
    Response(&'a Bytes),
    /// What a client wants to know.
    Query(&'a Bytes),
    /// The machine's answer to a question.
    Answer(&'a Bytes),
}

impl<'a> Words<'a> {
    /// The bytes, whatever they are.
    #[must_use]
    pub const fn bytes(self) -> &'a Bytes {
        match self {
            Self::Command(it) | Self::Response(it) | Self::Query(it) | Self::Answer(it) => it,
        }
    }
}

/// What the clients of a run do, and how what they saw is judged.
pub trait Workload: 'static {
    /// What they talk to.
    type Machine: StateMachine;

    /// The machine as it is before the first command.
    fn machine(&self) -> Self::Machine;

    /// The next operation of a client, drawn from `random` and nothing else. `client` and `number`
    /// together are never given twice in a run: what makes an id for a command.
    fn next(&self, client: u64, number: u64, random: &mut fastrand::Rng) -> Operation;

    /// Is this the response of the entry that decides about this command, and not of a repetition that the
    /// machine knew? Of all entries with the command of one operation at most one may decide; if the
    /// operation was answered, exactly one has.
    fn decides(&self, command: &Bytes, response: &Bytes) -> bool;

    /// How these bytes are shown in stories and failures. Text is as it is unless you say otherwise, other
    /// bytes are escaped.
    fn describe(&self, words: Words<'_>) -> String {
        format!("\"{}\"", words.bytes().escape_ascii())
    }

    /// A last look at all that the clients asked and were told.
    ///
    /// # Errors
    /// What is wrong with it; the run fails then.
    fn check(&self, history: &History) -> Result<(), String> {
        let _ = history;
        Ok(())
    }
}
