//! What a node does while the disk of its log is full: all that needs no more room.
//!
//! What is left of the room is for votes, so that elections go on and a leader can step down. A leader
//! refuses proposals, and offers its leadership to another node, which may have room. A follower takes
//! no entries: to the leader it is as if those messages were lost, and heartbeats come all the same.
//! Reads are served by either. When there is room again, everything goes on by itself.

use raft_core::{Envelope, Message};
use raft_wal::Space;

/// Is the disk full, and what was done about it?
#[derive(Debug, Default)]
pub(crate) struct FullDisk {
    is_full: bool,
    /// It was once, since there was room. If all disks are full, the leadership must not go round
    /// and round, and use up what is left for votes.
    has_offered_leadership: bool,
}

impl FullDisk {
    /// To be told at every turn.
    pub(crate) fn observe(&mut self, space: Space) {
        self.is_full = space == Space::Low;
        self.has_offered_leadership &= self.is_full;
    }

    /// Are proposals refused here?
    pub(crate) fn refuses_proposals(&self) -> bool {
        self.is_full
    }

    /// May a message come in?
    pub(crate) fn admits(&self, envelope: &Envelope) -> bool {
        let has_entries = matches!(
            &envelope.message,
            Message::AppendEntries { entries, .. } if !entries.is_empty()
        );
        !(self.is_full && has_entries)
    }

    /// Should this node, which leads, try now to find another leader? Says so once.
    pub(crate) fn offers_leadership(&mut self) -> bool {
        self.is_full && !std::mem::replace(&mut self.has_offered_leadership, true)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{
        Entries, Entry, GroupId, Incarnation, LogIndex, LogPosition, NodeId, Payload, Round, Term,
        Timestamp,
    };

    use super::*;

    fn append(count: u64) -> Envelope {
        let entry = |index| Entry {
            index: LogIndex(index),
            term: Term(1),
            timestamp: Timestamp(0),
            payload: Payload::Command(Bytes::new()),
        };
        let entries: Entries = (1..=count).map(entry).collect::<Vec<_>>().into();
        let message = Message::AppendEntries {
            prev: LogPosition::ZERO,
            entries,
            commit: LogIndex(0),
            round: Round(0),
        };
        let id = |number| NodeId::new(number).unwrap();
        Envelope {
            group: GroupId(0),
            from: id(1),
            to: id(2),
            term: Term(1),
            incarnation: Incarnation(0),
            message,
        }
    }

    #[test]
    fn only_entries_are_kept_out_and_leadership_is_offered_once_per_shortage() {
        let mut disk = FullDisk::default();
        disk.observe(Space::Ample);
        assert!(disk.admits(&append(1)) && !disk.refuses_proposals() && !disk.offers_leadership());
        for _ in 0..2 {
            disk.observe(Space::Low);
            assert!(!disk.admits(&append(1)) && disk.admits(&append(0)));
            assert!(disk.refuses_proposals());
            assert!(disk.offers_leadership());
            disk.observe(Space::Low);
            assert!(!disk.offers_leadership());
            disk.observe(Space::Ample);
            assert!(disk.admits(&append(1)));
        }
    }
}
