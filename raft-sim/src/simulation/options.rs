//! What a seed draws for itself.

use std::fmt;
use std::time::Duration;

use raft_core::{Config, Membership, NodeId, Promotion};
use raft_wal::SEGMENT_BYTES_MIN;

use super::clients::ClientOptions;
use super::faults::FAULTS;
use super::kinds::{Kind, Moment};
use crate::digest::seed_of;
use crate::storage::shipping::Store;

/// What a seed draws for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// How many voters there are in the beginning, 1 to 7.
    pub size: u64,
    /// How likely a message is lost, 0 to 1.
    pub loss: f64,
    /// How likely a message comes twice, 0 to 1.
    pub duplication: f64,
    /// The longest that a message takes.
    pub delay_max: Duration,
    /// The longest that a disk waits with what it was given.
    pub sync_max: Duration,
    /// Every how often, about, something breaks.
    pub fault_interval: Duration,
    /// Every how often, about, a client does something.
    pub client_interval: Duration,
    /// [`Config::append_bytes_max`](raft_core::Config).
    pub append_bytes_max: u64,
    /// [`Config::inflight_messages_max`](raft_core::Config).
    pub inflight_messages_max: usize,
    /// [`Config::uncommitted_bytes_max`](raft_core::Config).
    pub uncommitted_bytes_max: u64,
    /// [`Config::unapplied_bytes_max`](raft_core::Config).
    pub unapplied_bytes_max: u64,
    /// How likely a node is polled only after more has queued up.
    pub lazy_poll: f64,
    /// How likely a new leader is cut off or killed within moments: what makes the histories of
    /// Figures 7 and 8 common.
    pub curse: f64,
    /// Every how often, about, an operator does something.
    pub operator_interval: Duration,
    /// [`Config::snapshot_after_bytes`](raft_core::Config).
    pub snapshot_after_bytes: u64,
    /// [`Config::trailing_bytes_max`](raft_core::Config).
    pub trailing_bytes_max: u64,
    /// [`Config::snapshot_chunk_bytes_max`](raft_core::Config).
    pub snapshot_chunk_bytes_max: u64,
    /// Who makes voters of learners.
    pub promotion: Promotion,
    /// Are there leases, and how far may clocks be wrong then?
    pub lease_clock_drift_ppm: Option<u32>,
    /// Every how often, about, something about a disk breaks.
    pub disk_fault_interval: Duration,
    /// Every how often, about, some node reads again a part of what it wrote long ago.
    pub scrub_interval: Duration,
    /// The size of the files of a log.
    pub segment_bytes: u64,
    /// Reads and writes are cut short and interrupted, as systems may.
    pub short_io: bool,
    /// The shortest election timeout, of all members where there are leases.
    pub election_timeout: Duration,
    /// So many heartbeats make an election timeout.
    pub heartbeats: u32,
    /// Every other node waits twice as long; never with leases.
    pub uneven_timeouts: bool,
    /// [`Config::waiting_reads_max`](raft_core::Config).
    pub waiting_reads_max: usize,
    /// What `fault` may do in this run, besides crashes.
    pub faults: Vec<Kind>,
    /// At which moments a fault is likely, and how likely.
    pub moments: Vec<Moment>,
    /// How likely something happens at a moment that is watched for, 0 to 1.
    pub strike: f64,
    /// How likely a message is held back for seconds.
    pub late: f64,
    /// Every how often, about, somebody speaks who should not.
    pub stranger_interval: Duration,
    /// How likely an operator is after something that takes many steps.
    pub churn: f64,
    /// Without leases, clocks go at half to twice the pace of time.
    pub wrong_clocks: bool,
    /// How clients behave.
    pub clients: ClientOptions,
}

impl Options {
    /// What this seed draws.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self::draw(&mut fastrand::Rng::with_seed(seed))
    }

    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        let sometimes = |random: &mut fastrand::Rng, value: f64| {
            if random.bool() { random.f64() * value } else { 0.0 }
        };
        let millis = |random: &mut fastrand::Rng, of: &[u64]| {
            Duration::from_millis(of[random.usize(..of.len())])
        };
        let election_timeout = millis(random, &[50, 150, 300, 300, 1_000]);
        let lease_clock_drift_ppm = [None, None, Some(1_000), Some(50_000)][random.usize(..4)];
        let append_bytes_max = [1, 200, 1 << 20][random.usize(..3)];
        let inflight_messages_max = [1, 2, 64][random.usize(..3)];
        // Who sends little at a time must not have much to send, or catching up takes for ever.
        let slow = append_bytes_max < 1 << 20;
        // Where networks and disks are nearly as slow as elections, hardly anybody is elected.
        let slowest = if random.bool() { election_timeout / 12 } else { election_timeout };
        let uncommitted = if slow { [300, 2_000] } else { [4_000, 1 << 20] };
        let mut drawn = Self {
            size: [1, 2, 3, 3, 3, 4, 5, 5, 6, 7][random.usize(..10)],
            loss: sometimes(random, 0.25),
            duplication: sometimes(random, 0.2),
            delay_max: millis(random, &[1, 5, 30, 150]).min(slowest / 2),
            sync_max: millis(random, &[1, 4, 40, 400]).min(slowest * 4 / 3),
            // In half of all seeds a leader has some time.
            fault_interval: election_timeout * [1, 4, 10, 20, 40, 80][random.usize(..6)] / 2,
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
            snapshot_chunk_bytes_max: [40, 400, 1 << 20][random.usize(..3)],
            promotion: [Promotion::Manual, Promotion::WhenCaughtUp][random.usize(..2)],
            lease_clock_drift_ppm,
            disk_fault_interval: election_timeout * [1, 2, 8, 400][random.usize(..4)] / 2,
            scrub_interval: millis(random, &[20, 100, 500]),
            segment_bytes: SEGMENT_BYTES_MIN << [0, 0, 0, 1, 2][random.usize(..5)],
            short_io: random.u8(..4) == 0,
            election_timeout,
            heartbeats: random.u32(4..=10),
            uneven_timeouts: lease_clock_drift_ppm.is_none() && random.u8(..4) == 0,
            waiting_reads_max: [1, 3, 100_000][random.usize(..3)],
            faults: FAULTS.iter().copied().filter(|_| random.bool()).collect(),
            moments: Moment::ALL
                .iter()
                .copied()
                .filter(|&it| random.u8(..3) > 0 || it == Moment::PeerReborn)
                .collect(),
            strike: if random.u8(..3) > 0 { 0.1 + 0.9 * random.f64() } else { 0.0 },
            late: sometimes(random, 0.05),
            stranger_interval: millis(random, &[20, 100, 400, 100_000]),
            churn: sometimes(random, 1.0),
            wrong_clocks: random.bool(),
            clients: ClientOptions::draw(random),
        };
        if drawn.clients.flood {
            // A state that grows fast is not to be had in the smallest pieces before it has grown again.
            drawn.snapshot_chunk_bytes_max = drawn.snapshot_chunk_bytes_max.max(400);
        }
        match random.u8(..8) {
            0 | 1 => drawn.in_peace_with_operators(random),
            2 => drawn.in_peace_with_clients(random),
            _ => drawn,
        }
    }

    /// Little goes wrong, so that clients get many answers that must fit together.
    fn in_peace_with_clients(self, random: &mut fastrand::Rng) -> Self {
        let timeout = self.election_timeout;
        Self {
            loss: self.loss.min(0.02),
            delay_max: self.delay_max.min(timeout / 20),
            sync_max: self.sync_max.min(timeout / 20),
            curse: self.curse.min(0.2),
            lazy_poll: self.lazy_poll.min(0.3),
            fault_interval: self.fault_interval.max(timeout * 10),
            disk_fault_interval: self.disk_fault_interval.max(timeout * 20),
            operator_interval: timeout * 4,
            late: self.late.max(0.03),
            stranger_interval: self.stranger_interval.max(timeout * 10),
            strike: 0.3 * random.f64(),
            waiting_reads_max: 100_000,
            client_interval: Duration::from_millis(2),
            clients: self.clients.patient(),
            ..self
        }
    }

    /// Little goes wrong, so that operators get far, and what goes wrong does so at bad moments.
    fn in_peace_with_operators(self, random: &mut fastrand::Rng) -> Self {
        Self {
            churn: 0.9,
            operator_interval: self.election_timeout / 2,
            loss: self.loss.min(0.03),
            delay_max: self.delay_max.min(self.election_timeout / 20),
            sync_max: self.sync_max.min(self.election_timeout / 20),
            curse: self.curse.min(0.2),
            fault_interval: self.fault_interval.max(self.election_timeout * 20),
            disk_fault_interval: self.disk_fault_interval.max(self.election_timeout * 20),
            client_interval: Duration::from_millis(20).max(self.client_interval),
            strike: 0.3 * random.f64(),
            snapshot_after_bytes: [300, 3_000][random.usize(..2)],
            trailing_bytes_max: [0, 500][random.usize(..2)],
            ..self
        }
    }

    /// The disk of a node that never ran.
    pub(super) fn disk(&self, seed: u64) -> impl Fn(NodeId, Membership) -> Store + 'static {
        let (segment_bytes, short_io) = (self.segment_bytes, self.short_io);
        move |id, membership| {
            let seed = seed_of(seed_of(seed, id.get()), 0xD15C);
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
            let seed = seed_of(seed_of(seed, id.get()), life);
            let append_bytes_max = options.append_bytes_max;
            let longer = options.uneven_timeouts && id.get() % 2 == 0;
            let election_timeout = options.election_timeout * if longer { 2 } else { 1 };
            Config {
                election_timeout,
                heartbeat_interval: options.election_timeout / options.heartbeats,
                waiting_reads_max: options.waiting_reads_max,
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

/// What a story begins with.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |chance: f64| format!("{:.1} %", chance * 100.0);
        let yes = |it: bool, words: &'static str| if it { words } else { "" };
        let voters = if self.size == 1 { "voter" } else { "voters" };
        let leases = self.lease_clock_drift_ppm.map_or_else(
            || "no leases".to_owned(),
            |ppm| format!("leases, clocks wrong by up to {ppm} ppm"),
        );
        writeln!(
            f,
            "{} {voters}, election timeout {:?}{}, {} heartbeats in it, {leases}{}",
            self.size,
            self.election_timeout,
            yes(self.uneven_timeouts, " (twice as long on every other node)"),
            self.heartbeats,
            yes(self.wrong_clocks, ", clocks at half to twice the pace of time"),
        )?;
        writeln!(
            f,
            "network: up to {:?}, {} lost, {} twice, {} late; nodes polled later {}",
            self.delay_max,
            percent(self.loss),
            percent(self.duplication),
            percent(self.late),
            percent(self.lazy_poll),
        )?;
        writeln!(
            f,
            "disks: up to {:?}, segments of {} bytes{}; read again every {:?}, fault every {:?}",
            self.sync_max,
            self.segment_bytes,
            yes(self.short_io, ", short reads and writes"),
            self.scrub_interval,
            self.disk_fault_interval,
        )?;
        writeln!(
            f,
            "limits in bytes: append {}, uncommitted {}, unapplied {}, snapshot after {}, trail {}, \
             piece of a snapshot {}; {} messages in flight, {} waiting reads",
            self.append_bytes_max,
            self.uncommitted_bytes_max,
            self.unapplied_bytes_max,
            self.snapshot_after_bytes,
            self.trailing_bytes_max,
            self.snapshot_chunk_bytes_max,
            self.inflight_messages_max,
            self.waiting_reads_max,
        )?;
        let ClientOptions { count: _, flood, patience, tries, apply_max } = &self.clients;
        writeln!(
            f,
            "clients: {}{}, each every {:?}, waits {patience:?}, asks up to {tries} times; machines \
             take up to {apply_max:?}",
            self.clients.all(),
            yes(*flood, " (a flood)"),
            self.client_interval,
        )?;
        writeln!(
            f,
            "operators every {:?} (long plans {}), strangers every {:?}, promotion: {:?}",
            self.operator_interval,
            percent(self.churn),
            self.stranger_interval,
            self.promotion,
        )?;
        let faults: Vec<_> = self.faults.iter().map(|kind| kind.name()).collect();
        writeln!(f, "faults every {:?}: crashes, {}", self.fault_interval, faults.join(", "))?;
        let moments: Vec<_> = self.moments.iter().map(|moment| moment.name()).collect();
        let (strike, curse) = (percent(self.strike), percent(self.curse));
        write!(f, "new leaders cursed {curse}; strikes {strike}, as: {}", moments.join(", "))
    }
}
