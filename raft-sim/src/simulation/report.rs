//! What happened in a run.

use std::time::Duration;

use raft_core::Event;
use raft_wal::RecoveryReport;

use crate::storage::shipping::Store;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub elections: u64,
    pub committed: u64,
    pub reads: u64,
    pub crashes: u64,
    /// Writes that were handed to a log and never begun.
    pub writes_lost: u64,
    pub partitions: u64,
    pub pauses: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub superseded: u64,
    /// Configurations that took effect at a leader, and changes that were asked for, taken, completed.
    pub configurations: u64,
    pub changes_taken: u64,
    pub changes_committed: u64,
    pub unknown_fates: u64,
    pub promotions: u64,
    pub transfers: u64,
    pub transfers_failed: u64,
    pub cuts: u64,
    pub compactions: u64,
    pub installs: u64,
    pub reborn: u64,
    /// Runs at whose end too much was lost for ever to demand anything.
    pub hopeless: u64,
    /// Reads by lease at a node that takes itself to lead, just after another node committed something.
    pub asked_old_leaders: u64,
    pub disks: Disks,
    /// How long it took, by the clock of the simulation.
    pub simulated: Duration,
    /// A digest of everything that happened, in order.
    pub digest: u128,
}

impl Report {
    pub fn count(&mut self, event: &Event) {
        match event {
            Event::Promoting { .. } => self.promotions += 1,
            Event::TransferFailed { .. } => self.transfers_failed += 1,
            Event::Compacted { .. } => self.compactions += 1,
            Event::PeerReborn { .. } => self.reborn += 1,
            _ => {}
        }
    }

    pub fn add(&mut self, other: &Self) {
        let Self {
            events,
            elections,
            committed,
            reads,
            crashes,
            writes_lost,
            partitions,
            pauses,
            lost,
            duplicated,
            superseded,
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
            hopeless,
            asked_old_leaders,
            disks,
            simulated,
            digest,
        } = other;
        self.events += events;
        self.elections += elections;
        self.committed += committed;
        self.reads += reads;
        self.crashes += crashes;
        self.writes_lost += writes_lost;
        self.partitions += partitions;
        self.pauses += pauses;
        self.lost += lost;
        self.duplicated += duplicated;
        self.superseded += superseded;
        self.configurations += configurations;
        self.changes_taken += changes_taken;
        self.changes_committed += changes_committed;
        self.unknown_fates += unknown_fates;
        self.promotions += promotions;
        self.transfers += transfers;
        self.transfers_failed += transfers_failed;
        self.cuts += cuts;
        self.compactions += compactions;
        self.installs += installs;
        self.reborn += reborn;
        self.hopeless += hopeless;
        self.asked_old_leaders += asked_old_leaders;
        self.disks.add(disks);
        self.simulated += *simulated;
        // Threads finish in any order.
        self.digest = self.digest.wrapping_add(*digest);
    }
}

/// What happened to disks, and to logs by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disks {
    /// Disks on which something rotted.
    pub disks_damaged: u64,
    /// Nodes that are gone with their disks.
    pub disks_lost: u64,
    /// Starts that dropped a torn write.
    pub torn_ends: u64,
    /// Starts of a node that knows that it lost something.
    pub limping: u64,
    /// Starts that were refused, or would never succeed: another node took the place of this one.
    pub refusals: u64,
    /// Starts that found a damaged snapshot.
    pub snapshots_damaged: u64,
    /// Starts that found damage and lost nothing by it.
    pub repaired_starts: u64,
    pub identities_repaired: u64,
    /// Starts that failed because the disk did, and were tried again.
    pub starts_failed: u64,
    /// Nodes that ended because their disk failed.
    pub ended_by_disk: u64,
    /// Batches that waited for room.
    pub waits_for_room: u64,
    pub slow_syncs: u64,
    pub batches: u64,
    pub rolls: u64,
    pub segments_dropped: u64,
    pub marks: u64,
    pub scrubs: u64,
    pub damage_scrubbed: u64,
    /// Damaged segments that were written again.
    pub rewritten: u64,
    pub rewrites_refused: u64,
    /// As the disks count them.
    pub power_cuts: u64,
    pub cut_operations: u64,
    pub sectors_kept: u64,
    pub sectors_lost: u64,
    pub files_torn: u64,
    pub names_lost: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub sync_errors: u64,
    pub name_errors: u64,
    pub interruptions: u64,
    pub short_writes: u64,
    pub unreadable_hits: u64,
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

    fn add(&mut self, other: &Self) {
        let Self {
            disks_damaged,
            disks_lost,
            torn_ends,
            limping,
            refusals,
            snapshots_damaged,
            repaired_starts,
            identities_repaired,
            starts_failed,
            ended_by_disk,
            waits_for_room,
            slow_syncs,
            batches,
            rolls,
            segments_dropped,
            marks,
            scrubs,
            damage_scrubbed,
            rewritten,
            rewrites_refused,
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
        } = other;
        self.disks_damaged += disks_damaged;
        self.disks_lost += disks_lost;
        self.torn_ends += torn_ends;
        self.limping += limping;
        self.refusals += refusals;
        self.snapshots_damaged += snapshots_damaged;
        self.repaired_starts += repaired_starts;
        self.identities_repaired += identities_repaired;
        self.starts_failed += starts_failed;
        self.ended_by_disk += ended_by_disk;
        self.waits_for_room += waits_for_room;
        self.slow_syncs += slow_syncs;
        self.batches += batches;
        self.rolls += rolls;
        self.segments_dropped += segments_dropped;
        self.marks += marks;
        self.scrubs += scrubs;
        self.damage_scrubbed += damage_scrubbed;
        self.rewritten += rewritten;
        self.rewrites_refused += rewrites_refused;
        self.power_cuts += power_cuts;
        self.cut_operations += cut_operations;
        self.sectors_kept += sectors_kept;
        self.sectors_lost += sectors_lost;
        self.files_torn += files_torn;
        self.names_lost += names_lost;
        self.read_errors += read_errors;
        self.write_errors += write_errors;
        self.sync_errors += sync_errors;
        self.name_errors += name_errors;
        self.interruptions += interruptions;
        self.short_writes += short_writes;
        self.unreadable_hits += unreadable_hits;
    }
}
