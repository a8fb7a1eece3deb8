//! What happened in a run.

use std::time::Duration;

use raft_core::Event;
use raft_wal::RecoveryReport;

use super::kinds::{self, Counts, Kind, Moment};
use crate::storage::shipping::Store;

/// Declares a struct of counters that can be added up and listed by name, and of what else there is.
macro_rules! counters {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$what:meta])* $counter:ident,)* }
        and { $($(#[$which:meta])* $other:ident: $type:ty,)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "most counters say by their names what they count")]
        pub struct $name {
            $($(#[$what])* pub $counter: u64,)*
            $($(#[$which])* pub $other: $type,)*
        }

        impl $name {
            fn add_counters(&mut self, other: &Self) {
                $(self.$counter += other.$counter;)*
            }

            fn list_counters(&self) -> Vec<(String, u64)> {
                vec![$((stringify!($counter).replace('_', " "), self.$counter),)*]
            }
        }
    };
}

counters! {
/// What happened in a run, or in many.
Report {
    events,
    elections,
    committed,
    reads,
    crashes,
    /// Writes that were handed to a log and never begun.
    writes_lost,
    partitions,
    pauses,
    lost,
    duplicated,
    superseded,
    /// Configurations that took effect at a leader, and changes that were asked for, taken, completed.
    configurations,
    changes_taken,
    changes_committed,
    unknown_fates,
    promotions,
    transfers,
    transfers_failed,
    cuts,
    compactions,
    installs,
    reborn,
    /// Runs at whose end too much was lost for ever to demand anything.
    hopeless,
    /// Reads by lease at a node that takes itself to lead, just after another node committed something.
    asked_old_leaders,
    /// What clients began, and how it went on: asked again elsewhere, passed on to a leader, refused (because
    /// too much waited), told that nobody knows, given up.
    operations,
    retries,
    forwarded,
    proposals,
    refused,
    refused_busy,
    told_unknown,
    given_up,
    writes_acknowledged,
    linearizable_reads,
    lease_reads,
    session_reads,
    stale_reads,
    /// Runs in which clients asked ten times as much as could be done.
    floods,
}
and {
    /// What happened to disks.
    disks: Disks,
    /// Faults by kind.
    faults: Counts<Kind>,
    /// How often a moment was used for a fault.
    moments: Counts<Moment>,
    /// How long it took, by the clock of the simulation.
    simulated: Duration,
    /// A digest of everything that happened, in order.
    digest: u128,
}
}

impl Report {
    /// Adds another run.
    pub fn add(&mut self, other: &Self) {
        self.add_counters(other);
        self.disks.add_counters(&other.disks);
        kinds::add(&mut self.faults, &other.faults);
        kinds::add(&mut self.moments, &other.moments);
        self.simulated += other.simulated;
        // Threads finish in any order.
        self.digest = self.digest.wrapping_add(other.digest);
    }

    /// All that was counted, by name.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let mut counts = self.list_counters();
        counts.extend(self.disks.list_counters());
        let of = |count: Option<&u64>| count.copied().unwrap_or(0);
        let faults = Kind::ALL.iter().map(|it| (it.name().to_owned(), of(self.faults.get(it))));
        counts.extend(faults);
        let moment = |it: &Moment| (format!("strikes as {}", it.name()), of(self.moments.get(it)));
        counts.extend(Moment::ALL.iter().map(moment));
        counts.push(("simulated seconds".to_owned(), self.simulated.as_secs()));
        counts
    }

    /// How often something about a disk went wrong.
    pub fn disk_faults(&self) -> u64 {
        let Disks {
            disks_damaged,
            disks_lost,
            cut_operations,
            files_torn,
            names_lost,
            read_errors,
            write_errors,
            sync_errors,
            name_errors,
            interruptions,
            short_writes,
            unreadable_hits,
            slow_syncs,
            waits_for_room,
            ..
        } = &self.disks;
        disks_damaged
            + disks_lost
            + cut_operations
            + files_torn
            + names_lost
            + read_errors
            + write_errors
            + sync_errors
            + name_errors
            + interruptions
            + short_writes
            + unreadable_hits
            + slow_syncs
            + waits_for_room
    }

    /// Counts what a node tells of.
    pub fn count(&mut self, event: &Event) {
        match event {
            Event::Promoting { .. } => self.promotions += 1,
            Event::TransferFailed { .. } => self.transfers_failed += 1,
            Event::Compacted { .. } => self.compactions += 1,
            Event::PeerReborn { .. } => self.reborn += 1,
            _ => {}
        }
    }
}

counters! {
/// What happened to disks, and to logs by them.
Disks {
    /// Disks on which something rotted.
    disks_damaged,
    /// Nodes that are gone with their disks.
    disks_lost,
    /// Starts that dropped a torn write.
    torn_ends,
    /// Starts of a node that knows that it lost something.
    limping,
    /// Starts that were refused, or would never succeed: another node took the place of this one.
    refusals,
    /// Starts that found a damaged snapshot.
    snapshots_damaged,
    /// Starts that found damage and lost nothing by it.
    repaired_starts,
    identities_repaired,
    /// Starts that failed because the disk did, and were tried again.
    starts_failed,
    /// Nodes that ended because their disk failed.
    ended_by_disk,
    /// Batches that waited for room.
    waits_for_room,
    slow_syncs,
    batches,
    rolls,
    segments_dropped,
    marks,
    scrubs,
    damage_scrubbed,
    /// Damaged segments that were written again.
    rewritten,
    rewrites_refused,
    /// As the disks count them.
    power_cuts,
    cut_operations,
    sectors_kept,
    sectors_lost,
    files_torn,
    names_lost,
    read_errors,
    write_errors,
    sync_errors,
    name_errors,
    interruptions,
    short_writes,
    unreadable_hits,
}
and {}
}

impl Disks {
    pub fn count_start(&mut self, found: &RecoveryReport) {
        self.torn_ends += u64::from(found.torn_bytes > 0);
        self.limping += u64::from(found.limping);
        self.snapshots_damaged += u64::from(found.snapshots_damaged > 0);
        self.repaired_starts += u64::from(found.damage.is_some() && !found.limping);
        self.identities_repaired += u64::from(found.identity_repaired);
    }

    pub fn count_disk(&mut self, mut store: Store) {
        store.note_rolls();
        let (tally, disk) = (store.tally, store.sim.stats());
        assert_eq!(disk.syncs_after_failure, 0, "a file was synced again after that had failed");
        self.batches += tally.batches;
        self.rolls += tally.rolls;
        self.segments_dropped += tally.segments_dropped;
        self.marks += tally.marks;
        self.scrubs += tally.scrubs;
        self.damage_scrubbed += tally.damage_scrubbed;
        self.rewritten += tally.rewritten;
        self.rewrites_refused += tally.rewrites_refused;
        self.power_cuts += disk.power_cuts;
        self.cut_operations += disk.operations_cut;
        self.sectors_kept += disk.sectors_kept;
        self.sectors_lost += disk.sectors_lost;
        self.files_torn += disk.files_torn;
        self.names_lost += disk.names_lost;
        self.read_errors += disk.read_errors;
        self.write_errors += disk.write_errors;
        self.sync_errors += disk.sync_errors;
        self.name_errors += disk.name_errors;
        self.interruptions += disk.interruptions;
        self.short_writes += disk.short_writes;
        self.unreadable_hits += disk.unreadable_hits;
        self.slow_syncs += disk.slow_operations;
    }
}
