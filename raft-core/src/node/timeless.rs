//! A node that has forgotten what time it is, for whoever tries every order of events instead of
//! measuring time: a model checker.
//!
//! Time would make the states of a node endless, and only in a few places does it matter which of two
//! moments comes first. [`Node::forget_time`] moves every moment that a node remembers to one of two
//! places: it has passed, or its [`Alarm`] will ring, each alarm at a moment of its own. So whoever holds
//! the node decides which one rings next, without moving any other: the orders in which alarms can ring
//! are all there.

use core::time::Duration;

use super::Node;
use super::role::Role;
use crate::random::Random;
use crate::types::Instant;

/// What a node that has [forgotten the time](Node::forget_time) waits for. To let one ring,
/// [`step`](Node::step) the node with [`Input::Timer`](crate::Input::Timer) at
/// [`rings_at`](Self::rings_at), and let it forget the time again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// A follower has not heard from its leader for so long that it may vote for others (thesis §4.2.3).
    /// Nothing else happens then.
    Patience = 1,
    /// A leader's heartbeat is due, or a follower asks again: for a read index, for a piece of a snapshot.
    Heartbeat,
    /// A node that does not lead campaigns (§5.2).
    Election,
    /// A leader gives up a transfer of leadership (thesis §3.10).
    Transfer,
    /// A leader gives up because its disk hangs; another node does not campaign for that reason.
    Disk,
    /// A leader has not heard from a majority (thesis §6.2).
    Quorum,
    /// What else ends at some time: the farewell of a removed member, a learner's round of catching up, the
    /// patience with the source of a snapshot, that of a read.
    Rest,
}

impl Alarm {
    /// What time it is for a node that has forgotten it; also when to start one.
    pub const ORIGIN: Instant = Instant::from_nanos(1 << 62);

    /// When it rings. Alarms of the same role ring in the order in which they stand here, so that one can
    /// ring before all that matter more.
    #[must_use]
    pub const fn rings_at(self) -> Instant {
        Instant::from_nanos(Self::ORIGIN.as_nanos() + self as u64)
    }
}

/// Which moments have passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forgetting {
    passed: Instant,
}

impl Forgetting {
    /// A moment at which something is due.
    pub(crate) fn due(self, moment: &mut Instant, alarm: Alarm) {
        if *moment <= self.passed {
            *moment = Alarm::ORIGIN;
        } else if *moment < Instant::FAR_FUTURE {
            *moment = alarm.rings_at();
        }
    }

    /// A moment that matters when it lies as far back as `timeout`.
    pub(crate) fn since(self, moment: &mut Instant, timeout: Duration, alarm: Alarm) {
        let mut due = moment.after(timeout);
        self.due(&mut due, alarm);
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        *moment = Instant::from_nanos(due.as_nanos().saturating_sub(timeout));
    }
}

impl Node {
    /// Moves every moment that this node remembers to one of two places: in the past, if it has passed
    /// when `passed` rings, or by [`Alarm::ORIGIN`] if that is `None`; else to where its [`Alarm`] rings
    /// (so that a moment which was set just now passes only the next time that the node forgets the time).
    /// What is left of chance goes as well. The clock stands at [`Alarm::ORIGIN`] then.
    ///
    /// # Panics
    /// If leases are on: a lease is made of nothing but time.
    pub fn forget_time(&mut self, passed: Option<Alarm>) {
        assert!(self.config.lease_clock_drift_ppm.is_none(), "a lease is made of time");
        let passed = passed.map_or(Alarm::ORIGIN, Alarm::rings_at);
        let forgetting = Forgetting { passed };
        let timeout = self.config.election_timeout;
        self.now = Alarm::ORIGIN;
        self.random = Random::new(0);
        forgetting.due(&mut self.sticky_until, Alarm::Patience);
        forgetting.due(&mut self.election_deadline, Alarm::Election);
        self.patient_reads.iter_mut().for_each(|read| read.forget_time(forgetting));
        self.snapshots.forget_time(forgetting, timeout);
        self.outbox.forget_time(forgetting, timeout);
        match &mut self.role {
            Role::Follower(follower) => follower.reads.forget_time(forgetting),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
            Role::Leader(leader) => {
                forgetting.due(&mut leader.heartbeat_due, Alarm::Heartbeat);
                leader.lease.forget();
                if let Some(transfer) = &mut leader.transfer {
                    forgetting.due(&mut transfer.deadline, Alarm::Transfer);
                }
                leader.peers.iter_mut().for_each(|peer| peer.forget_time(forgetting, timeout));
            }
        }
        self.debug_check_invariants();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_passed_or_rings_or_never_comes() {
        let rest = Alarm::Rest.rings_at();
        let at = |nanos: u64| Instant::from_nanos(Alarm::ORIGIN.as_nanos() + nanos);
        let cases = [
            (Alarm::ORIGIN, Instant::default(), Alarm::ORIGIN),
            (Alarm::ORIGIN, at(0), Alarm::ORIGIN),
            (Alarm::ORIGIN, at(1), rest),
            (Alarm::ORIGIN, at(1 << 40), rest),
            (Alarm::ORIGIN, Instant::FAR_FUTURE, Instant::FAR_FUTURE),
            (at(5), at(5), Alarm::ORIGIN),
            (at(5), at(6), rest),
        ];
        for (passed, moment, expected) in cases {
            let mut due = moment;
            Forgetting { passed }.due(&mut due, Alarm::Rest);
            assert_eq!(due, expected, "{moment:?} when {passed:?} has passed");
            // The same for one that comes so much later.
            let timeout = Duration::from_nanos(3);
            let Some(since) = moment.as_nanos().checked_sub(3) else { continue };
            let mut since = Instant::from_nanos(since);
            Forgetting { passed }.since(&mut since, timeout, Alarm::Rest);
            assert_eq!(since.after(timeout), expected, "since, {moment:?}, {passed:?}");
        }
    }
}
