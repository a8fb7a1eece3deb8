//! When the writer has to do something of its own accord.

use std::time::{Duration, Instant};

use crate::config::WalConfig;

pub(super) struct Timers {
    mark_after: Duration,
    scrub_interval: Duration,
    /// How often a full disk is asked for room.
    pub(super) space_retry: Duration,
    /// The end of the log is to be marked.
    pub(super) mark: Option<Instant>,
    /// The next file is to be read again.
    pub(super) scrub: Option<Instant>,
    /// Room is to be asked for again.
    pub(super) space: Option<Instant>,
}

impl Timers {
    pub(super) fn new(config: &WalConfig, now: Instant) -> Self {
        let WalConfig { mark_after, scrub_interval, .. } = *config;
        let space_retry = SPACE_RETRY;
        let (mark, scrub, space) = (None, None, None);
        let mut timers = Self { mark_after, scrub_interval, space_retry, mark, scrub, space };
        if !scrub_interval.is_zero() {
            timers.scrub_later(now);
        }
        timers
    }

    /// The first of them.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.mark, self.scrub, self.space].into_iter().flatten().min()
    }

    pub(super) fn mark_later(&mut self, now: Instant) {
        self.mark = Some(now + self.mark_after);
    }

    pub(super) fn scrub_later(&mut self, now: Instant) {
        self.scrub = Some(now + self.scrub_interval);
    }

    pub(super) fn ask_for_room_later(&mut self, now: Instant) {
        self.space = Some(now + self.space_retry);
    }

    /// Nothing speaks against asking for room: it was there, or was asked for long enough ago.
    pub(super) fn may_ask_for_room(&self, now: Instant) -> bool {
        self.space.is_none_or(|at| at <= now)
    }
}

/// Is it time? Then not any more, until the timer is set again.
pub(super) fn take_due(timer: &mut Option<Instant>, now: Instant) -> bool {
    timer.take_if(|at| *at <= now).is_some()
}

const SPACE_RETRY: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use raft_core::{Membership, NodeId};

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn timers(scrub_interval: Duration, now: Instant) -> Timers {
        let node = NodeId::new(1).unwrap();
        let config = WalConfig::new("d", "c", node, Membership::new([node]).unwrap());
        let mark_after = 10 * MILLISECOND;
        Timers::new(&WalConfig { mark_after, scrub_interval, ..config }, now)
    }

    #[test]
    fn everything_comes_in_its_time_and_once() {
        let now = Instant::now();
        let mut timers = timers(20 * MILLISECOND, now);
        assert_eq!(timers.next(), Some(now + 20 * MILLISECOND));
        timers.mark_later(now);
        assert_eq!(timers.next(), Some(now + 10 * MILLISECOND));
        assert!(!take_due(&mut timers.mark, now + 9 * MILLISECOND));
        assert!(take_due(&mut timers.mark, now + 10 * MILLISECOND));
        assert!(!take_due(&mut timers.mark, now + 10 * MILLISECOND));
        assert!(take_due(&mut timers.scrub, now + 21 * MILLISECOND));
        assert_eq!(timers.next(), None);
        timers.scrub_later(now + 21 * MILLISECOND);
        assert_eq!(timers.next(), Some(now + 41 * MILLISECOND));
    }

    #[test]
    fn a_full_disk_is_not_asked_all_the_time() {
        let now = Instant::now();
        let mut timers = timers(Duration::ZERO, now);
        assert_eq!(timers.next(), None, "zero is never");
        assert!(timers.may_ask_for_room(now));
        timers.ask_for_room_later(now);
        assert_eq!(timers.next(), Some(now + 500 * MILLISECOND));
        assert!(!timers.may_ask_for_room(now + 499 * MILLISECOND));
        assert!(timers.may_ask_for_room(now + 500 * MILLISECOND));
    }
}
