//! What a node does while the disk of its log is full: all that needs no more room.
//!
//! Receipts count in order, so a vote behind commands that wait for room would wait too, and with it an
//! election. So nothing is handed to the log but what finds room for certain, and what is left in the end
//! is for votes. A leader refuses proposals, and offers its leadership to another node, which may have
//! room. A follower takes no commands: to the leader it is as if those messages were lost, and heartbeats
//! come all the same. Reads are served by either. When there is room again, everything goes on by itself.

use std::time::Duration;

use bytes::Bytes;
use raft_core::{Entry, Envelope, Instant as Moment, Message, Payload};
use raft_wal::{Space, Wal};

/// What a batch takes besides its entries, a vote and a truncation included.
const BATCH_BYTES: u64 = 1024;
/// What an entry takes besides its command: the header of its record, and padding.
const ENTRY_BYTES: u64 = 56;

/// How long an offer of the leadership stands before the next one.
const OFFER_INTERVAL: Duration = Duration::from_secs(5);

/// How much room is there, and what was done about it?
#[derive(Debug, Default)]
pub(crate) struct FullDisk {
    is_full: bool,
    /// So many bytes may still be handed to the log in this turn.
    room: u64,
    /// The length of a segment.
    segment_bytes: u64,
    /// The leadership was offered, and is again then, if nobody took it.
    offer_again_at: Option<Moment>,
    /// Somebody took it, since there was room. If all disks are full, it must not go round and round,
    /// and use up what is left for votes.
    has_handed_over: bool,
}

impl FullDisk {
    /// For a log with segments of this length.
    pub(crate) fn new(segment_bytes: u64) -> Self {
        Self { segment_bytes, ..Self::default() }
    }

    /// Looks at the log, at the beginning of a turn.
    pub(crate) fn observe(&mut self, wal: &Wal) {
        self.begin_turn(wal.space(), wal.room_bytes());
    }

    fn begin_turn(&mut self, space: Space, room: u64) {
        self.is_full = space == Space::Low;
        self.room = room;
        if !self.is_full {
            (self.offer_again_at, self.has_handed_over) = (None, false);
        }
    }

    /// Is there so little room, until the next segment is prepared, that proposals should wait at the
    /// door? Not when the disk is full: then they are refused.
    pub(crate) fn is_short_of_room(&self) -> bool {
        !self.is_full && self.room < self.moderate_bytes()
    }

    /// Is it the reason why there is no room?
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// May these commands be proposed here?
    pub(crate) fn admits_commands(&mut self, commands: &[Bytes]) -> bool {
        let bytes = |command: &Bytes| command.len() as u64 + ENTRY_BYTES;
        self.take(BATCH_BYTES + commands.iter().map(bytes).sum::<u64>())
    }

    /// May a message come in?
    pub(crate) fn admits(&mut self, envelope: &Envelope) -> bool {
        // A leader's first entry and changes of members may use what is kept for votes.
        let is_command = |entry: &Entry| matches!(entry.payload, Payload::Command(_));
        match &envelope.message {
            Message::AppendEntries { entries, .. } if entries.iter().any(is_command) => {
                self.take(BATCH_BYTES + Wal::bytes_of(entries))
            }
            _ => true,
        }
    }

    fn take(&mut self, bytes: u64) -> bool {
        if self.is_full {
            return false;
        }
        // What is longer may never find room beside headers and reserve, or not when it is needed: it
        // gets a segment of its own.
        if bytes > self.moderate_bytes() {
            return true;
        }
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }

    /// So much finds room in a new segment, however short segments are.
    fn moderate_bytes(&self) -> u64 {
        self.segment_bytes / 4
    }

    /// Should this node, if it leads, try now to find another leader?
    pub(crate) fn offers_leadership(&mut self, leads: bool, now: Moment) -> bool {
        if !leads {
            self.has_handed_over |= self.offer_again_at.is_some();
            return false;
        }
        let is_due = self.offer_again_at.is_none_or(|at| at <= now);
        let offers = self.is_full && !self.has_handed_over && is_due;
        if offers {
            self.offer_again_at = Some(now.after(OFFER_INTERVAL));
        }
        offers
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use raft_core::{
        Entries, Entry, GroupId, Incarnation, LogIndex, LogPosition, Membership, NodeId, Payload,
        Round, Term, Timestamp,
    };
    use raft_wal::WalConfig;
    use raft_wal::sim::SimDisk;

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
    fn only_commands_are_kept_out() {
        let mut disk = FullDisk::new(64 << 10);
        let command = [Bytes::from_static(b"x")];
        disk.begin_turn(Space::Ample, 32 << 10);
        assert!(disk.admits(&append(1)) && disk.admits_commands(&command));
        assert!(!disk.is_short_of_room());
        disk.begin_turn(Space::Low, 32 << 10);
        assert!(!disk.admits(&append(1)) && disk.admits(&append(0)));
        assert!(!disk.admits_commands(&command) && !disk.is_short_of_room());
        disk.begin_turn(Space::Ample, 32 << 10);
        assert!(disk.admits(&append(1)));
    }

    #[test]
    fn leadership_is_offered_until_somebody_takes_it_and_then_not_again_before_there_is_room() {
        let mut disk = FullDisk::new(64 << 10);
        let at = |seconds| Moment::default().after(Duration::from_secs(seconds));
        disk.begin_turn(Space::Ample, 32 << 10);
        assert!(!disk.offers_leadership(true, at(0)));
        for start in [0, 100] {
            disk.begin_turn(Space::Low, 32 << 10);
            assert!(!disk.offers_leadership(false, at(start)), "it does not lead");
            assert!(disk.offers_leadership(true, at(start)));
            assert!(!disk.offers_leadership(true, at(start + 1)), "the first offer stands");
            assert!(disk.offers_leadership(true, at(start + 5)), "nobody took it");
            assert!(!disk.offers_leadership(false, at(start + 6)));
            assert!(!disk.offers_leadership(true, at(start + 20)), "it came back");
            disk.begin_turn(Space::Ample, 32 << 10);
        }
    }

    #[test]
    fn whatever_its_length_a_command_finds_its_way_into_an_empty_log() {
        for segment_bytes in [16 << 10, 20 << 10, 32 << 10, 64 << 10, 1 << 20] {
            let node = NodeId::new(1).unwrap();
            let membership = Membership::new([node]).unwrap();
            let config = WalConfig {
                segment_bytes,
                ..WalConfig::new("simulated", "test", node, membership)
            };
            let disk = Arc::new(SimDisk::new(1).for_this_life());
            let wal = Wal::open_on(disk, config, |_| {}).unwrap().wal;
            let mut full_disk = FullDisk::new(segment_bytes);
            for bytes in (0..segment_bytes as usize).step_by(100) {
                full_disk.observe(&wal);
                let command = [Bytes::from(vec![0; bytes])];
                assert!(full_disk.admits_commands(&command), "{bytes} in {segment_bytes}");
            }
        }
    }

    #[test]
    fn a_turn_takes_no_more_than_there_is_room_for() {
        let mut disk = FullDisk::new(64 << 10);
        disk.begin_turn(Space::Ample, 10 << 10);
        assert!(disk.is_short_of_room());
        let taken = (0..).take_while(|_| disk.admits(&append(10))).count();
        assert!((2..10).contains(&taken), "{taken}");
        assert!(disk.admits(&append(0)), "heartbeats always");
        let large = [Bytes::from(vec![0; 40 << 10])];
        assert!(disk.admits_commands(&large), "or it would never get in");
    }
}
