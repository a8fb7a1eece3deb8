//! The clocks of a node: one for its timers and leases, of any pace, and the one on the wall.

use std::time::Duration;

use raft_core::{Instant, NodeId, Timestamp};

use crate::digest::seed_of;

/// The wall clock of a node, which gives entries their timestamps, is ahead of the true time by less than
/// this, and never behind it. The clock of its timers and leases is another one, and may be wrong by more.
pub const WALL_CLOCK_AHEAD_MAX: Duration = Duration::from_secs(4);

/// A clock: what it showed at some moment, and how fast it has been since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub(super) since: Instant,
    pub(super) shown: Instant,
    pub(super) drift_ppm: i64,
}

impl Pace {
    /// What it shows.
    pub(super) fn at(&self, now: Instant) -> Instant {
        let passed = nanos(now) - nanos(self.since);
        instant(nanos(self.shown) + passed + passed * i128::from(self.drift_ppm) / 1_000_000)
    }

    /// When it will show this; at once, if it shows more already.
    pub(super) fn when(&self, clock: Instant) -> Instant {
        if clock == Instant::FAR_FUTURE {
            return clock;
        }
        let to_pass = (nanos(clock) - nanos(self.shown)).max(0) * 1_000_000;
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        // Rounded up, and a little more: a timer must not be called too early for ever.
        instant(nanos(self.since) + to_pass / rate + 1 + i128::from(self.drift_ppm != 0))
    }
}

fn nanos(time: Instant) -> i128 {
    time.as_nanos().into()
}

fn instant(nanos: i128) -> Instant {
    Instant::from_nanos(u64::try_from(nanos).expect("a test is shorter than 584 years"))
}

/// What the wall clock of a node shows in one of its lives. It is set anew every few seconds, and those of
/// others are set to something else: time goes back with a new leader, or without.
pub(super) fn wall_clock(now: Instant, id: NodeId, life: u64) -> Timestamp {
    let millis = now.as_nanos() / 1_000_000;
    let set = seed_of(seed_of(id.get(), life), millis / 3_000);
    Timestamp(millis + set % (1_000 * WALL_CLOCK_AHEAD_MAX.as_secs()))
}
