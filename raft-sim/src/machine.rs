//! What a user of the simulator brings: a state machine, and what its clients do.
//!
//! Implement [`StateMachine`] for what you replicate and [`Workload`] for what your clients ask of it, give
//! the workload to [`Simulation::new`](crate::simulation::Simulation::new), and every seed runs your code
//! on a cluster whose network, disks and clocks fail. The simulator compares every response of every
//! replica with that of a reference that never failed, every answer to a client with a replay of the
//! committed log, and panics with what broke.

use std::error::Error;
use std::hash::Hash;

use bytes::Bytes;
use raft_core::{LogPosition, Timestamp};

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

    /// All that it remembers, as bytes: equal states have equal snapshots.
    fn snapshot(&self) -> Bytes;

    /// Becomes what such bytes tell, whatever it was before.
    ///
    /// # Errors
    /// If no snapshot has such bytes. The simulator takes that for a bug: its disks tell damage.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError>;

    /// What tells two states apart. It is asked for after every entry, so a machine that has much to
    /// remember should know it at once; unless it does, it is the hash of a snapshot.
    fn digest(&self) -> u128 {
        let mut digest = Digest::default();
        self.snapshot().hash(&mut digest);
        digest.value()
    }
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

    /// A last look at all that the clients asked and were told.
    ///
    /// # Errors
    /// What is wrong with it; the run fails then.
    fn check(&self, history: &History) -> Result<(), String> {
        let _ = history;
        Ok(())
    }
}
