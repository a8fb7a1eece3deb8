//! What happened on a simulated disk.

/// What happened on a disk since it was made: a campaign shows with it that its faults occurred.
/// Counts what was really hit, not what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimStats {
    /// Operations that change something: create, write, sync, rename, remove, sync of the
    /// directory.
    pub operations: u64,
    /// Syncs of a file that had failed to sync before: a well-made log does none.
    pub syncs_after_failure: u64,
    /// Writes that were cut short: [on purpose](super::SimDisk::shorten_writes), or because not all
    /// found room.
    pub short_writes: u64,
    /// Reads that were cut short on purpose.
    pub short_reads: u64,
    /// Injected errors of listing, opening and reading.
    pub read_errors: u64,
    /// Injected errors of writing.
    pub write_errors: u64,
    /// Injected errors of syncing a file.
    pub sync_errors: u64,
    /// Injected errors of creating, renaming and removing files and of syncing the directory.
    pub name_errors: u64,
    /// Operations that were interrupted.
    pub interruptions: u64,
    /// Operations that were made slower.
    pub slow_operations: u64,
    /// Operations that found no space.
    pub space_refusals: u64,
    /// Writes of which something was lost without an error.
    pub lost_writes: u64,
    /// Writes of which a sector arrived at another place without an error.
    pub misplaced_writes: u64,
    /// Reads and writes that met an [unreadable](super::Damage::Unreadable) sector.
    pub unreadable_hits: u64,
    /// Damages at rest after which something reads differently than before.
    pub damages: u64,
    /// Operations at which the power failed.
    pub operations_cut: u64,
    /// Power cuts, at an operation or between.
    pub power_cuts: u64,
    /// Unsynced sectors that survived power cuts.
    pub sectors_kept: u64,
    /// Unsynced sectors that did not.
    pub sectors_lost: u64,
    /// Files of which a power cut kept some unsynced sectors and lost others.
    pub files_torn: u64,
    /// Unsynced changes of names that survived power cuts.
    pub names_kept: u64,
    /// Unsynced changes of names that did not.
    pub names_lost: u64,
}
