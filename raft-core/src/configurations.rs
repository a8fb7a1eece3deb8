//! The configurations in a log: each takes effect when it is appended and is gone when it is truncated
//! (§6: a server uses the latest configuration in its log, committed or not).

use alloc::vec;
use alloc::vec::Vec;

use crate::entry::{Entry, Payload};
use crate::membership::Membership;
use crate::types::{LogIndex, NodeId};

/// A stack of memberships by log index. Invariants: never empty, indexes rise.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Configurations {
    stack: Vec<(LogIndex, Membership)>,
}

impl Configurations {
    /// The membership before the log, which the entry at `index` brought, and those of the entries in
    /// the log.
    pub(crate) fn new<'a>(
        index: LogIndex,
        membership: Membership,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Self {
        let mut configurations = Self { stack: vec![(index, membership)] };
        for entry in entries {
            configurations.append(entry);
        }
        configurations
    }

    /// The membership in effect.
    pub(crate) fn current(&self) -> &Membership {
        &self.stack[self.stack.len() - 1].1
    }

    /// The index that the membership in effect comes from.
    pub(crate) fn current_index(&self) -> LogIndex {
        self.stack[self.stack.len() - 1].0
    }

    /// The membership as of `index`, at or after the log's base, and the index it comes from.
    pub(crate) fn as_of(&self, index: LogIndex) -> (LogIndex, &Membership) {
        let count = self.stack.partition_point(|(from, _)| *from <= index).max(1);
        let (from, membership) = &self.stack[count - 1];
        (*from, membership)
    }

    /// Does `id` vote in the configuration as of `committed`, or in one behind it, which may or may not
    /// come to be?
    pub(crate) fn may_need_vote_of(&self, id: NodeId, committed: LogIndex) -> bool {
        let first = self.stack.partition_point(|(from, _)| *from <= committed).max(1) - 1;
        self.stack[first..].iter().any(|(_, membership)| membership.is_voter(id))
    }

    /// Notes an appended entry; true if it changed the membership.
    pub(crate) fn append(&mut self, entry: &Entry) -> bool {
        match &entry.payload {
            Payload::Membership(membership) => {
                self.stack.push((entry.index, membership.clone()));
                true
            }
            Payload::Noop | Payload::Command(_) => false,
        }
    }

    /// Forgets what entries from `from` on said; true if that changed the membership.
    pub(crate) fn truncate_from(&mut self, from: LogIndex) -> bool {
        let kept = self.stack.partition_point(|(index, _)| *index < from).max(1);
        let changed = kept < self.stack.len();
        self.stack.truncate(kept);
        changed
    }

    /// Forgets what was replaced at or before `index`: the log begins behind it now.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        let replaced = self.stack.partition_point(|(from, _)| *from <= index).saturating_sub(1);
        self.stack.drain(..replaced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Term, Timestamp};

    fn membership(voter: u64) -> Membership {
        Membership::new([NodeId::new(voter).unwrap()]).unwrap()
    }

    fn change(index: u64, voter: u64) -> Entry {
        let payload = Payload::Membership(membership(voter));
        Entry { index: LogIndex(index), term: Term(1), timestamp: Timestamp(0), payload }
    }

    #[test]
    fn a_compaction_keeps_what_is_in_effect_at_its_end_and_no_more() {
        let entries = [change(3, 2), change(5, 3), change(9, 4)];
        let mut all = Configurations::new(LogIndex(0), membership(1), &entries);
        for (index, kept, from, voter) in [(2, 4, 0, 1), (5, 2, 5, 3), (6, 2, 5, 3), (9, 1, 9, 4)] {
            all.compact(LogIndex(index));
            assert_eq!(all.stack.len(), kept, "compacted up to {index}");
            assert_eq!(all.as_of(LogIndex(index)), (LogIndex(from), &membership(voter)));
            assert_eq!(all.current(), &membership(4));
        }
    }
}
