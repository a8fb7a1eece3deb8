//! What a leader knows of one peer's log, and how much it may send to it (§5.3).
//!
//! Invariants: `match_index < next_index`; `match_index` never falls within a leadership; what is on its
//! way is bounded in messages and in bytes.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::message::Round;
use crate::node::{Alarm, Forgetting};
use crate::types::{Instant, LogIndex, NodeId};

/// One peer, as its leader sees it.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Progress {
    /// The peer.
    pub(crate) id: NodeId,
    /// It holds the leader's log durably up to here.
    pub(crate) match_index: LogIndex,
    /// The next entry to send.
    pub(crate) next_index: LogIndex,
    /// How to send.
    pub(crate) pace: Pace,
    /// When it last answered in this term; at first, when it was met.
    pub(crate) last_contact: Instant,
    /// It has answered in this term.
    pub(crate) has_answered: bool,
    /// It has confirmed that it follows this leader, up to this round (thesis §6.4).
    pub(crate) confirmed: Round,
    /// The commit index that it was last told.
    pub(crate) commit_told: LogIndex,
    /// A learner's round of catching up (thesis §4.2.1).
    pub(crate) catch_up: Option<CatchUp>,
    /// No member any more: it is only told so, until then. That is not known before the configuration
    /// without it is committed.
    pub(crate) departing: Option<Instant>,
}

/// A round of catching up: what the leader's log held when it began is to be replicated.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct CatchUp {
    through: LogIndex,
    since: Instant,
}

/// How a leader sends to a peer.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Pace {
    /// Where the logs agree is not known: one message at a time.
    Probe {
        /// One is on its way; the answer or the next heartbeat allows another.
        waiting: bool,
        /// What the last one carried.
        asked: Option<Sent>,
    },
    /// The logs agree: send ahead of the answers, within the window.
    Replicate(Window),
    /// The peer's log ends before ours begins: it is told which snapshot to fetch, once per heartbeat,
    /// until it has it. There is nothing to forget or to get stuck in: as soon as the peer's own
    /// acknowledgements reach our log, it is probed again.
    Snapshot {
        /// It is to be told now.
        offer_due: bool,
        /// How many bytes of it the peer was last known to hold.
        held: u64,
    },
}

/// Messages that were sent and not acknowledged.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Window {
    sent: VecDeque<Sent>,
    bytes: u64,
    /// The round of the probe that found where the logs agree: refusals of earlier rounds say nothing.
    since: Round,
}

/// One of them.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) struct Sent {
    last: LogIndex,
    bytes: u64,
    /// The round it carried: an answer to a later round was given after it should have arrived.
    round: Round,
}

impl Sent {
    /// A message that ends at `last`.
    pub(crate) const fn new(last: LogIndex, bytes: u64, round: Round) -> Self {
        Self { last, bytes, round }
    }
}

impl Progress {
    /// A peer of which a new leader knows nothing yet: it is taken to have the leader's log (§5.3).
    pub(crate) fn new(id: NodeId, last: LogIndex, now: Instant) -> Self {
        Self {
            id,
            match_index: LogIndex(0),
            next_index: last.next(),
            pace: Pace::Probe { waiting: false, asked: None },
            last_contact: now,
            has_answered: false,
            confirmed: Round(0),
            commit_told: LogIndex(0),
            catch_up: None,
            departing: None,
        }
    }

    /// The peer has lost its disk: what it acknowledged counts no longer.
    pub(crate) fn reborn(&mut self, last: LogIndex) {
        let Self { id, last_contact, departing, .. } = *self;
        *self = Self { departing, ..Self::new(id, last, last_contact) };
    }

    /// Has a learner caught up with a log that ends at `last`? It has, when what the log held at the
    /// beginning of a round was replicated in less than `within`: then so is the rest (thesis §4.2.1).
    pub(crate) fn has_caught_up(&mut self, last: LogIndex, now: Instant, within: Duration) -> bool {
        match self.catch_up {
            Some(CatchUp { through, .. }) if self.match_index < through => false,
            Some(CatchUp { since, .. }) if now.since(since) < within => true,
            Some(_) | None => {
                self.catch_up = Some(CatchUp { through: last, since: now });
                false
            }
        }
    }

    /// May it be there: did it answer within this time, or is it not known for longer?
    pub(crate) fn may_be_active(&self, now: Instant, within: Duration) -> bool {
        now.since(self.last_contact) < within
    }

    /// Did it answer within this time?
    pub(crate) fn is_active(&self, now: Instant, within: Duration) -> bool {
        self.has_answered && self.may_be_active(now, within)
    }

    pub(crate) fn forget_time(&mut self, forgetting: Forgetting, timeout: Duration) {
        forgetting.since(&mut self.last_contact, timeout, Alarm::Quorum);
        if let Some(CatchUp { since, .. }) = &mut self.catch_up {
            forgetting.since(since, timeout, Alarm::Rest);
        }
        if let Some(until) = &mut self.departing {
            forgetting.due(until, Alarm::Rest);
        }
    }

    /// It has answered.
    pub(crate) fn on_contact(&mut self, now: Instant) {
        self.last_contact = now;
        self.has_answered = true;
    }

    /// The peer holds the leader's log up to `durable` on its disk, up to `received` in memory, as of
    /// `round`. True if the match index rose.
    pub(crate) fn on_accepted(
        &mut self,
        durable: LogIndex,
        received: LogIndex,
        round: Round,
    ) -> bool {
        let rose = durable > self.match_index;
        self.match_index = self.match_index.max(durable);
        self.next_index = self.next_index.max(self.match_index.next());
        match &mut self.pace {
            Pace::Probe { asked, .. } if received.next() >= self.next_index => {
                self.next_index = received.next();
                let since = asked.map_or(round, |asked| asked.round);
                let mut window = Window { since, ..Window::default() };
                let asked = asked.filter(|asked| asked.last > received);
                if received > self.match_index {
                    // Received is not durable: should the peer lose it again, that must be noticed.
                    window.push(received, 0, round);
                }
                if let Some(Sent { last, bytes, round }) = asked {
                    // The probe itself is still on its way, or was lost: it is not sent twice.
                    window.push(last, bytes, round);
                    self.next_index = last.next();
                }
                self.pace = Pace::Replicate(window);
            }
            Pace::Probe { .. } => {}
            Pace::Snapshot { .. } => self.next_index = self.next_index.max(received.next()),
            Pace::Replicate(window) => {
                window.acknowledge(self.match_index);
                if window.lost_before(received, round) {
                    self.probe_from(received.next());
                }
            }
        }
        rose
    }

    /// The peer did not have the entry before the ones that were sent; `next` is the place to try
    /// next.
    pub(crate) fn probe_from(&mut self, next: LogIndex) {
        self.next_index = next.max(self.match_index.next());
        self.pace = Pace::Probe { waiting: false, asked: None };
    }

    /// The peer has received what a snapshot contains, up to `received`: sends what follows. Should it lose
    /// that again before it is durable, that must be noticed.
    pub(crate) fn replicate_behind(&mut self, received: LogIndex, round: Round) {
        let mut window = Window::default();
        if received > self.match_index {
            window.push(received, 0, round);
        }
        self.pace = Pace::Replicate(window);
    }

    /// The log does not go back to where the peer's ends: is it to be told so now?
    pub(crate) fn offer_snapshot(&mut self) -> bool {
        match &mut self.pace {
            Pace::Snapshot { offer_due, .. } => core::mem::take(offer_due),
            Pace::Probe { .. } | Pace::Replicate(_) => {
                self.pace = Pace::Snapshot { offer_due: false, held: 0 };
                true
            }
        }
    }

    /// Is a refusal of `prev` an answer to what is being asked now? Late ones are not (they would
    /// overwrite what was learned since).
    pub(crate) fn refusal_is_fresh(&self, prev: LogIndex, round: Round) -> bool {
        match &self.pace {
            Pace::Probe { .. } => prev.next() == self.next_index,
            Pace::Replicate(window) => {
                round >= window.since && prev > self.match_index && prev < self.next_index
            }
            Pace::Snapshot { .. } => false,
        }
    }

    /// A heartbeat went by: a probe may be repeated, and a snapshot offered again.
    pub(crate) fn on_heartbeat(&mut self) {
        match &mut self.pace {
            Pace::Probe { waiting, .. } => *waiting = false,
            Pace::Snapshot { offer_due, .. } => *offer_due = true,
            Pace::Replicate(_) => {}
        }
    }

    /// Panics if an invariant of the type is broken.
    pub(crate) fn check_invariants(&self) {
        assert!(self.match_index < self.next_index, "{}: match not below next", self.id);
        if let Pace::Replicate(window) = &self.pace {
            let bytes: u64 = window.sent.iter().map(|sent| sent.bytes).sum();
            assert_eq!(bytes, window.bytes, "{}: window bytes", self.id);
            assert!(window.sent.iter().all(|sent| sent.last > self.match_index), "{}", self.id);
        }
    }
}

impl Window {
    /// May another message be sent?
    pub(crate) fn has_room(&self, messages_max: usize, bytes_max: u64) -> bool {
        self.sent.len() < messages_max && self.bytes < bytes_max
    }

    /// Notes a message that ends at `last`.
    pub(crate) fn push(&mut self, last: LogIndex, bytes: u64, round: Round) {
        self.bytes += bytes;
        self.sent.push_back(Sent { last, bytes, round });
    }

    /// Everything up to `index` has arrived for good.
    fn acknowledge(&mut self, index: LogIndex) {
        while self.sent.front().is_some_and(|sent| sent.last <= index) {
            if let Some(sent) = self.sent.pop_front() {
                self.bytes -= sent.bytes;
            }
        }
    }

    /// The peer had seen `round` and only had entries up to `received`: is there a message that was
    /// sent before that round and is not among them?
    fn lost_before(&self, received: LogIndex, round: Round) -> bool {
        self.sent.iter().find(|sent| sent.last > received).is_some_and(|sent| sent.round < round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// A peer of a leader whose log ends at 9.
    fn peer() -> Progress {
        Progress::new(NodeId::new(2).unwrap(), LogIndex(9), at(0))
    }

    #[test]
    fn a_round_of_catching_up_must_take_less_than_an_election_timeout() {
        let within = Duration::from_millis(10);
        for (took, caught_up) in [(9, true), (10, false), (11, false)] {
            let mut peer = peer();
            assert!(!peer.has_caught_up(LogIndex(9), at(5), within), "a round begins");
            peer.match_index = LogIndex(8);
            assert!(!peer.has_caught_up(LogIndex(20), at(6), within), "one entry is missing");
            peer.match_index = LogIndex(9);
            assert_eq!(peer.has_caught_up(LogIndex(20), at(5 + took), within), caught_up);
            let next = peer.catch_up.unwrap();
            let through = if caught_up { LogIndex(9) } else { LogIndex(20) };
            assert_eq!(next.through, through, "the next round begins after one that took {took}");
        }
    }

    #[test]
    fn a_peer_counts_as_active_for_less_than_the_time() {
        let mut peer = peer();
        let within = Duration::from_millis(10);
        assert!(peer.may_be_active(at(9), within) && !peer.is_active(at(9), within));
        peer.on_contact(at(5));
        assert!(peer.is_active(at(14), within));
        assert!(!peer.is_active(at(15), within) && !peer.may_be_active(at(15), within));
    }

    #[test]
    fn a_window_has_room_below_both_its_limits() {
        let mut window = Window::default();
        window.push(LogIndex(1), 10, Round(1));
        assert!(window.has_room(2, 11));
        assert!(!window.has_room(2, 10), "full of bytes");
        assert!(!window.has_room(1, 11), "full of messages");
        window.acknowledge(LogIndex(1));
        assert!(window.has_room(1, 1));
    }

    #[test]
    fn only_a_refusal_of_what_is_on_its_way_is_fresh() {
        let mut peer = peer();
        peer.match_index = LogIndex(4);
        let since = Round(3);
        peer.pace = Pace::Replicate(Window { since, ..Window::default() });
        let fresh = |prev, round| peer.refusal_is_fresh(LogIndex(prev), Round(round));
        assert!(fresh(5, 3) && fresh(9, 3));
        assert!(!fresh(4, 3), "it has acknowledged that");
        assert!(!fresh(10, 3), "nothing was sent behind that");
        assert!(!fresh(5, 2), "that was asked before the probe which found where the logs agree");
    }

    #[test]
    fn what_a_snapshot_brought_is_in_the_window_until_it_is_durable() {
        for (received, sent) in [(5, 1), (4, 0), (3, 0)] {
            let mut peer = peer();
            peer.match_index = LogIndex(4);
            peer.replicate_behind(LogIndex(received), Round(3));
            let Pace::Replicate(window) = &peer.pace else { panic!("{:?}", peer.pace) };
            assert_eq!(window.sent.len(), sent, "received {received}, durable 4");
        }
    }

    #[test]
    fn a_peer_that_lost_its_disk_still_departs() {
        let mut peer = peer();
        peer.departing = Some(at(7));
        peer.match_index = LogIndex(9);
        peer.on_contact(at(8));
        peer.reborn(LogIndex(12));
        assert_eq!((peer.match_index, peer.next_index), (LogIndex(0), LogIndex(13)));
        assert_eq!((peer.last_contact, peer.has_answered), (at(8), false));
        assert_eq!(peer.departing, Some(at(7)));
    }
}
