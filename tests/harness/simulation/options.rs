//! What a seed draws for itself, and what it reports.

use std::time::Duration;

use raft_core::{Config, Event, NodeId, Promotion};

use super::{ELECTION_TIMEOUT, fold};

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
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub events: u64,
    pub elections: u64,
    pub committed: u64,
    pub reads: u64,
    pub crashes: u64,
    pub unsynced_writes_lost: u64,
    pub partitions: u64,
    pub pauses: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub receipts_out_of_order: u64,
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
    pub disks_damaged: u64,
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

    pub fn add(&mut self, other: &Self) {
        let Self {
            events,
            elections,
            committed,
            reads,
            crashes,
            unsynced_writes_lost,
            partitions,
            pauses,
            lost,
            duplicated,
            receipts_out_of_order,
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
        self.unsynced_writes_lost += unsynced_writes_lost;
        self.partitions += partitions;
        self.pauses += pauses;
        self.lost += lost;
        self.duplicated += duplicated;
        self.receipts_out_of_order += receipts_out_of_order;
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
