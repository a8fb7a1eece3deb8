//! What operations of a simulated disk cost, in a time that the simulation keeps.

use super::fault::Operation;

/// What one operation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Nanoseconds for each operation, however much it moves.
    pub operation_ns: u64,
    /// Nanoseconds for each KiB moved, on top; a part of one costs a part.
    pub kib_ns: u64,
}

impl Cost {
    pub(super) fn of_bytes(self, bytes: usize) -> u64 {
        self.kib_ns.saturating_mul(bytes as u64) / 1024
    }
}

/// How slow a disk is. There is no clock in it: costs are added up, and a simulation adds what
/// [`SimDisk::take_cost`](super::SimDisk::take_cost) returns to its own time.
///
/// The default costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Of reads.
    pub read: Cost,
    /// Of writes, which only go to the cache of the system; per byte written.
    pub write: Cost,
    /// Of syncs of a file; per byte that had to be written, in whole sectors.
    pub sync: Cost,
    /// Of everything about names: listing, creating, opening, renaming and removing files.
    pub names_ns: u64,
    /// Of syncs of the directory.
    pub sync_directory_ns: u64,
}

impl Latency {
    /// The cost of an operation, without that of its bytes.
    pub(super) fn of(&self, operation: Operation) -> u64 {
        match operation {
            Operation::Read => self.read.operation_ns,
            Operation::Write => self.write.operation_ns,
            Operation::Sync => self.sync.operation_ns,
            Operation::SyncDirectory => self.sync_directory_ns,
            Operation::List
            | Operation::Create
            | Operation::Open
            | Operation::Rename
            | Operation::Remove => self.names_ns,
        }
    }
}
