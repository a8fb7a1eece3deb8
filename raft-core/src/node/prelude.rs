//! What every message passes before its chapter: nonsense and the past are dropped, a newer term is
//! adopted (Figure 2, rules for all servers).

use super::Node;
use super::role::Role;
use crate::entry::Entry;
use crate::event::{Event, Ignored};
use crate::message::{AppendOutcome, BallotKind, Envelope, Message, Round};
use crate::types::{
    INDEX_MAX, Incarnation, LogIndex, LogPosition, NodeId, TERM_MAX, Term, Timestamp,
};

/// A term this far above ours is damage, not an election: terms rise by one at a time.
const TERM_JUMP_MAX: u64 = 1 << 32;

impl Node {
    /// The prelude of every message: nonsense and the past are dropped, a newer term is adopted
    /// (Figure 2, rules for all servers); then the chapter that it belongs to.
    pub(super) fn on_message(&mut self, envelope: Envelope) {
        if let Some(why) = self.refuse_at_the_gate(&envelope) {
            return self.ignore(Some(envelope.from), why);
        }
        let Envelope { group: _, from, to: _, term, incarnation, message } = envelope;
        self.note_incarnation(from, incarnation);
        if term < self.hard_state.term {
            return self.on_stale(from, message);
        }
        if term > self.hard_state.term {
            self.become_follower(term);
        }
        match message {
            Message::RequestVote { ballot, last } => self.on_request_vote(from, ballot, last),
            Message::RequestVoteReply { ballot, granted } => {
                self.on_request_vote_reply(from, ballot, granted);
            }
            Message::AppendEntries { prev, entries, commit, round } => {
                self.on_append_entries(from, prev, entries, commit, round);
            }
            Message::AppendEntriesReply { round, outcome } => {
                self.on_append_entries_reply(from, round, outcome);
            }
            Message::ReadIndex { ticket, lease } => self.on_read_index(from, ticket, lease),
            Message::ReadIndexReply { ticket, index } => {
                self.on_read_index_reply(from, ticket, index);
            }
            Message::InstallSnapshot { snapshot } => self.on_install_snapshot(from, snapshot),
            Message::SnapshotRequest { snapshot, offset } => {
                self.on_snapshot_request(from, snapshot, offset);
            }
            Message::SnapshotChunk { snapshot, offset, bytes } => {
                self.on_snapshot_chunk(from, snapshot, offset, bytes);
            }
            Message::TimeoutNow => self.on_timeout_now(from),
        }
    }

    /// What must not change anything, not even the term.
    fn refuse_at_the_gate(&self, envelope: &Envelope) -> Option<Ignored> {
        let Envelope { group, from, to, term, incarnation, message } = envelope;
        if *group != self.config.group || *to != self.config.id || *from == self.config.id {
            return Some(Ignored::Misdirected);
        }
        if *term > TERM_MAX || term.0 > self.hard_state.term.0.saturating_add(TERM_JUMP_MAX) {
            return Some(Ignored::AbsurdTerm);
        }
        if *incarnation < self.incarnation_of(*from) {
            return Some(Ignored::StaleIncarnation);
        }
        match message {
            // Whoever hears from a leader does not help to depose it (thesis §4.2.3, §9.6), unless that
            // leader wants it.
            Message::RequestVote { ballot, .. }
                if *term >= self.hard_state.term
                    && ballot.kind != BallotKind::Transfer
                    && self.leader_is_alive() =>
            {
                Some(Ignored::LeaderIsAlive)
            }
            Message::AppendEntries { prev, entries, .. } if !well_formed(*prev, entries, *term) => {
                Some(Ignored::Malformed)
            }
            Message::InstallSnapshot { snapshot } if !snapshot.base.is_sound(*term) => {
                Some(Ignored::Malformed)
            }
            _ => None,
        }
    }

    fn incarnation_of(&self, peer: NodeId) -> Incarnation {
        let known = self.incarnations.iter().find(|(id, _)| *id == peer);
        known.map_or(Incarnation::default(), |(_, incarnation)| *incarnation)
    }

    /// A peer that comes back with another disk has what that disk has, whatever it said before.
    fn note_incarnation(&mut self, from: NodeId, incarnation: Incarnation) {
        let last = self.log.last().index;
        // Only these count for anything; so what is remembered is bounded. A leader goes on counting what
        // those acknowledge who are about to leave: they may be taken back.
        let counts = self.membership().contains(from)
            || matches!(&self.role, Role::Leader(leader) if leader.peer(from).is_some());
        match self.incarnations.iter_mut().find(|(id, _)| *id == from) {
            Some((_, known)) if *known == incarnation => return,
            Some((_, known)) => *known = incarnation,
            None if counts => {
                return self.incarnations.push((from, incarnation));
            }
            None => return,
        }
        self.events.push(Event::PeerReborn { peer: from, incarnation });
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peer_mut(from)
        {
            peer.reborn(last);
        }
    }

    /// A message of a term that has passed. A question is answered with the current term, so that its
    /// sender stops asking (§5.1); an answer is dropped.
    fn on_stale(&mut self, from: NodeId, message: Message) {
        match message {
            Message::RequestVote { ballot, .. } => {
                self.send(from, Message::RequestVoteReply { ballot, granted: false });
            }
            Message::ReadIndex { ticket, .. } => {
                self.send(from, Message::ReadIndexReply { ticket, index: None });
            }
            // It must not look like an answer to anything that this sender asks in the current term: it may
            // lead that one, too, and its rounds have the same numbers in every term.
            Message::AppendEntries { .. } | Message::InstallSnapshot { .. } => {
                let (round, prev, hint) = (Round(0), LogIndex(0), LogPosition::ZERO);
                let outcome = AppendOutcome::Refused { prev, hint };
                self.send(from, Message::AppendEntriesReply { round, outcome });
            }
            // Content has no term: it is asked for by name.
            Message::SnapshotRequest { snapshot, offset } => {
                return self.on_snapshot_request(from, snapshot, offset);
            }
            Message::SnapshotChunk { snapshot, offset, bytes } => {
                return self.on_snapshot_chunk(from, snapshot, offset, bytes);
            }
            Message::RequestVoteReply { .. }
            | Message::AppendEntriesReply { .. }
            | Message::ReadIndexReply { .. }
            | Message::TimeoutNow => {}
        }
        self.ignore(Some(from), Ignored::StaleTerm);
    }
}

/// Are these entries what a leader of `term` could send behind `prev`?
fn well_formed(prev: LogPosition, entries: &[Entry], term: Term) -> bool {
    let mut before = (prev, Timestamp::default());
    let end = prev.index.0.saturating_add(entries.len() as u64);
    if prev.term > term || end > INDEX_MAX.0 {
        return false;
    }
    entries.iter().all(|entry| {
        let (last, time) = core::mem::replace(&mut before, (entry.position(), entry.timestamp));
        entry.index == last.index.next()
            && entry.term >= last.term
            && entry.term <= term
            && entry.timestamp >= time
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Payload;

    #[test]
    fn entries_reach_as_far_as_indexes_do() {
        let entry = |index| Entry {
            index: LogIndex(index),
            term: Term(1),
            timestamp: Timestamp(0),
            payload: Payload::Noop,
        };
        let last = INDEX_MAX.0;
        let behind = |index| LogPosition::new(Term(1), LogIndex(index));
        assert!(well_formed(behind(last - 1), &[entry(last)], Term(1)));
        assert!(!well_formed(behind(last), &[entry(last + 1)], Term(1)));
    }
}
