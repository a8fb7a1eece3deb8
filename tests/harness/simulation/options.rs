//! What a seed draws for itself, and what it reports.

use std::time::Duration;

use raft_core::{Config, Event, Membership, NodeId, Promotion};
use raft_wal::{RecoveryReport, SEGMENT_BYTES_MIN};

use super::{ELECTION_TIMEOUT, fold};
use crate::harness::storage::shipping::Store;

/// What a seed draws for itself.
#[derive(Clone, Debug)]
pub struct Options {
    pub size: u64,
    pub loss: f64,
    pub duplication: f64,
    pub delay_max: Duration,
    pub sync_max: Duration,
    /// Every how often, about, something breaks.
    pub fault_interval: Duration,
    pub client_interval: Duration,
    pub append_bytes_max: u64,
    pub inflight_messages_max: usize,
    pub uncommitted_bytes_max: u64,
    pub unapplied_bytes_max: u64,
    /// How likely a node is polled only after more has queued up.
    pub lazy_poll: f64,
    /// How likely a new leader is cut off or killed within moments: what makes the histories of
    /// Figures 7 and 8 common.
    pub curse: f64,
    /// Every how often, about, an operator does something.
    pub operator_interval: Duration,
    pub snapshot_after_bytes: u64,
    pub trailing_bytes_max: u64,
    pub snapshot_chunk_bytes_max: u64,
    pub promotion: Promotion,
    pub lease_clock_drift_ppm: Option<u32>,
    /// Every how often, about, something about a disk breaks.
    pub disk_fault_interval: Duration,
    /// Every how often, about, some node reads again a part of what it wrote long ago.
    pub scrub_interval: Duration,
    pub segment_bytes: u64,
    /// Reads and writes are cut short and interrupted, as systems may.
    pub short_io: bool,
}

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
    pub reborn: u64,
    /// Runs at whose end too much was lost for ever to demand anything.
    pub hopeless: u64,
    /// Reads by lease at a node that takes itself to lead, just after another node committed something.
    pub asked_old_leaders: u64,
    /// A digest of everything that happened, in order.
    pub digest: u64,
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
            reborn,
            hopeless,
            asked_old_leaders,
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
        self.reborn += reborn;
        self.hopeless += hopeless;
        self.asked_old_leaders += asked_old_leaders;
        // Threads finish in any order.
        self.digest = self.digest.wrapping_add(*digest);
    }
}

impl Options {
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let sometimes = |random: &mut fastrand::Rng, value: f64| {
            if random.bool() { random.f64() * value } else { 0.0 }
        };
        let millis = |random: &mut fastrand::Rng, of: &[u64]| {
            Duration::from_millis(of[random.usize(..of.len())])
        };
        let append_bytes_max = [1, 200, 1 << 20][random.usize(..3)];
        let inflight_messages_max = [1, 2, 64][random.usize(..3)];
        // Who sends little at a time must not have much to send, or catching up takes for ever.
        let slow = append_bytes_max < 1 << 20;
        let uncommitted = if slow { [300, 2_000] } else { [4_000, 1 << 20] };
        Self {
            size: [1, 2, 3, 3, 3, 4, 5, 5, 7][random.usize(..9)],
            loss: sometimes(random, 0.25),
            duplication: sometimes(random, 0.2),
            delay_max: millis(random, &[1, 5, 30, 150]),
            sync_max: millis(random, &[1, 4, 40, 400]),
            fault_interval: millis(random, &[50, 200, 600, 2000]),
            client_interval: millis(random, &[2, 10, 50]),
            append_bytes_max,
            inflight_messages_max,
            uncommitted_bytes_max: uncommitted[random.usize(..2)],
            unapplied_bytes_max: [200, 1 << 20][random.usize(..2)],
            lazy_poll: sometimes(random, 0.9),
            curse: sometimes(random, 0.9),
            operator_interval: millis(random, &[20, 100, 500, 100_000]),
            snapshot_after_bytes: [300, 3_000, 1 << 20][random.usize(..3)],
            trailing_bytes_max: [0, 500, 1 << 20][random.usize(..3)],
            snapshot_chunk_bytes_max: [7, 40, 1 << 20][random.usize(..3)],
            promotion: [Promotion::Manual, Promotion::WhenCaughtUp][random.usize(..2)],
            lease_clock_drift_ppm: [None, Some(1_000), Some(50_000)][random.usize(..3)],
            disk_fault_interval: millis(random, &[100, 300, 1_000, 100_000]),
            scrub_interval: millis(random, &[20, 100, 500]),
            segment_bytes: SEGMENT_BYTES_MIN << [0, 0, 0, 1, 2][random.usize(..5)],
            short_io: random.u8(..4) == 0,
        }
    }

    /// The disk of a node that never ran.
    pub(super) fn disk(&self, seed: u64) -> impl Fn(NodeId, Membership) -> Store + 'static {
        let (segment_bytes, short_io) = (self.segment_bytes, self.short_io);
        move |id, membership| {
            let seed = fold(fold(seed, id.get()), 0xD15C);
            let store = Store::empty(id, seed, membership, segment_bytes);
            if short_io {
                store.sim.shorten_reads();
                store.sim.shorten_writes();
            }
            store
        }
    }

    pub(super) fn config(&self, seed: u64) -> impl Fn(NodeId, u64) -> Config + 'static {
        let options = self.clone();
        move |id, life| {
            let seed = fold(fold(seed, id.get()), life);
            let append_bytes_max = options.append_bytes_max;
            Config {
                election_timeout: ELECTION_TIMEOUT,
                append_bytes_max,
                inflight_messages_max: options.inflight_messages_max,
                uncommitted_bytes_max: options.uncommitted_bytes_max.max(append_bytes_max),
                inflight_bytes_max: (append_bytes_max * 2).max(1_000),
                unapplied_bytes_max: options.unapplied_bytes_max,
                snapshot_after_bytes: options.snapshot_after_bytes,
                trailing_bytes_max: options.trailing_bytes_max,
                snapshot_chunk_bytes_max: options.snapshot_chunk_bytes_max,
                promotion: options.promotion,
                lease_clock_drift_ppm: options.lease_clock_drift_ppm,
                ..Config::new(id, seed)
            }
        }
    }
}
