//! What becomes of a node, from what it was first restored with to the last thing that happened to it.

use raft_core::{Config, LogPosition, Promotion, Restored, RoleKind};

use super::driven::{Driven, SEED, Step, election, n};

/// Where it begins, and what happens then.
#[derive(Clone, Debug)]
pub struct Life {
    /// What its storage has.
    pub restored: Restored,
    pub steps: Vec<Step>,
    /// All limits are as low as they can be.
    pub tight: bool,
    /// It is elected first, if it may be.
    pub leads: bool,
    /// There are leases.
    pub lease: bool,
    /// It promotes learners by itself.
    pub promotes: bool,
}

impl Life {
    /// Lives it. Whatever is wrong panics.
    pub fn live(self) {
        let Self { restored, steps, tight, leads, lease, promotes } = self;
        let mut config = Config::new(n(1), SEED);
        if tight {
            config.append_bytes_max = 1;
            config.inflight_messages_max = 1;
            config.uncommitted_bytes_max = 100;
            config.unapplied_bytes_max = 1;
            config.waiting_reads_max = 2;
            config.snapshot_after_bytes = 1;
            config.trailing_bytes_max = 0;
            config.snapshot_chunk_bytes_max = 1;
        }
        config.lease_clock_drift_ppm = lease.then_some(1000);
        config.promotion = if promotes { Promotion::WhenCaughtUp } else { Promotion::Manual };
        let leads = leads && restored.lost == LogPosition::ZERO;
        let mut driven = Driven::new(config, &restored);
        if leads {
            election().into_iter().for_each(|step| driven.step(step));
            assert_eq!(driven.node.role().0, RoleKind::Leader);
        }
        for step in steps {
            driven.step(step);
        }
    }
}
