//! What the log holds, as far as writing and recovery need it: the vote, and per entry its term and
//! timestamp. The same rules check a write before it goes to disk and a record that comes back.

use raft_core::{
    Entry, GroupId, HardState, LogIndex, LogPosition, Membership, Payload, Term, Timestamp, Write,
};

use crate::format::header::SegmentHeader;
use crate::format::record::Record;

/// The log without its payloads.
///
/// Invariants: `positions[n]` is of the entry at `base.index + 1 + n`; terms never fall;
/// `memberships` is sorted by index, all above the base and inside the log.
#[derive(Clone, Debug)]
pub(crate) struct LogState {
    group: Option<GroupId>,
    hard_state: HardState,
    base: LogPosition,
    base_timestamp: Timestamp,
    base_membership: Membership,
    positions: Vec<(Term, Timestamp)>,
    memberships: Vec<(LogIndex, Membership)>,
}

impl LogState {
    /// The state at the start of a segment.
    pub(crate) fn at_start_of(header: &SegmentHeader) -> Self {
        Self {
            group: None,
            hard_state: header.hard_state,
            base: header.base,
            base_timestamp: header.base_timestamp,
            base_membership: header.membership.clone(),
            positions: Vec::new(),
            memberships: Vec::new(),
        }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The group that everything in the log belongs to; any, as long as the log is empty.
    pub(crate) fn group(&self) -> GroupId {
        self.group.unwrap_or_default()
    }

    fn last_index(&self) -> LogIndex {
        LogIndex(self.base.index.0 + self.positions.len() as u64)
    }

    /// The last entry: where the next segment's base is.
    pub(crate) fn last(&self) -> (LogPosition, Timestamp) {
        match self.positions.last() {
            Some(&(term, timestamp)) => (LogPosition::new(term, self.last_index()), timestamp),
            None => (self.base, self.base_timestamp),
        }
    }

    /// The members as of the last entry.
    pub(crate) fn membership(&self) -> &Membership {
        self.memberships.last().map_or(&self.base_membership, |(_, membership)| membership)
    }

    /// Does a segment with this header continue this state?
    pub(crate) fn is_start_of(&self, header: &SegmentHeader) -> bool {
        self.last() == (header.base, header.base_timestamp)
            && self.hard_state == header.hard_state
            && *self.membership() == header.membership
    }

    /// Takes over what a write changes.
    ///
    /// # Errors
    /// If the write breaks a rule of the log; the state is then between two writes and of no use.
    pub(crate) fn apply_write(&mut self, write: &Write) -> Result<(), String> {
        self.join_group(write.group())?;
        if let Some(state) = write.hard_state() {
            self.set_hard_state(state)?;
        }
        if write.snapshot().is_some() {
            return Err("a snapshot, which this log cannot keep".to_owned());
        }
        if let Some(from) = write.truncate_from() {
            self.truncate(from)?;
        }
        write.entries().iter().try_for_each(|entry| self.append(entry))
    }

    /// Takes over what a record says; a seal says nothing here.
    ///
    /// # Errors
    /// As [`Self::apply_write`].
    pub(crate) fn apply_record(&mut self, group: GroupId, record: &Record) -> Result<(), String> {
        self.join_group(group)?;
        match record {
            Record::HardState(state) => self.set_hard_state(*state),
            Record::Truncate(from) => self.truncate(*from),
            Record::Entry(entry) => self.append(entry),
            Record::Seal(_) => Ok(()),
        }
    }

    fn join_group(&mut self, group: GroupId) -> Result<(), String> {
        match self.group {
            Some(own) if own != group => Err(format!("{group} in a log of {own}")),
            _ => {
                self.group = Some(group);
                Ok(())
            }
        }
    }

    /// The rule of §5.2 that no crash may break: terms never fall, one vote per term.
    fn set_hard_state(&mut self, new: HardState) -> Result<(), String> {
        let old = self.hard_state;
        if new.term < old.term {
            return Err(format!("the term falls from {} to {}", old.term, new.term));
        }
        if new.term == old.term && old.voted_for.is_some() && new.voted_for != old.voted_for {
            return Err(format!("the vote in term {} changes", old.term));
        }
        self.hard_state = new;
        Ok(())
    }

    fn truncate(&mut self, from: LogIndex) -> Result<(), String> {
        if from <= self.base.index || from > self.last_index().next() {
            let (base, last) = (self.base.index, self.last_index());
            return Err(format!("a truncation from {from} of a log of {base} to {last}"));
        }
        // Not above the length, so it fits.
        self.positions.truncate((from.0 - self.base.index.0 - 1) as usize);
        let kept = self.memberships.partition_point(|(index, _)| *index < from);
        self.memberships.truncate(kept);
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<(), String> {
        let (last, _) = self.last();
        // Not `next()`, which saturates: at the end of the range nothing follows.
        if last.index.0.checked_add(1) != Some(entry.index.0) || entry.term < last.term {
            return Err(format!("the entry {} behind {last}", entry.position()));
        }
        self.positions.push((entry.term, entry.timestamp));
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.index, membership.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_core::NodeId;

    use super::*;

    fn empty() -> LogState {
        let members = Membership::new(NodeId::new(1)).unwrap();
        LogState {
            group: None,
            hard_state: HardState::default(),
            base: LogPosition::default(),
            base_timestamp: Timestamp::default(),
            base_membership: members,
            positions: Vec::new(),
            memberships: Vec::new(),
        }
    }

    fn entry(term: u64, index: u64, payload: Payload) -> Entry {
        let (term, index) = (Term(term), LogIndex(index));
        Entry { index, term, timestamp: Timestamp(index.0), payload }
    }

    fn vote(term: u64, node: u64) -> Write {
        let voted_for = NodeId::new(node);
        Write::detached(Some(HardState { term: Term(term), voted_for }), None, Vec::new())
    }

    #[test]
    fn a_vote_is_given_once_per_term_and_terms_never_fall() {
        let mut state = empty();
        for (term, node, fine) in
            [(2, 0, true), (2, 1, true), (2, 1, true), (2, 3, false), (2, 0, false), (1, 1, false)]
        {
            assert_eq!(state.apply_write(&vote(term, node)).is_ok(), fine, "n{node} in {term}");
        }
        assert_eq!(state.hard_state(), HardState { term: Term(2), voted_for: NodeId::new(1) });
    }

    #[test]
    fn entries_are_contiguous_and_terms_never_fall() {
        let mut state = empty();
        let mut append = |term, index| {
            let write = Write::detached(None, None, vec![entry(term, index, Payload::Noop)]);
            state.apply_write(&write).is_ok()
        };
        assert!(append(2, 1) && append(2, 2));
        assert!(!append(2, 4), "a gap");
        assert!(!append(2, 2), "a repeat");
        assert!(!append(1, 3), "an older term");
    }

    #[test]
    fn a_truncation_takes_the_memberships_with_it() {
        let mut state = empty();
        let two = Membership::new([1, 2].into_iter().filter_map(NodeId::new)).unwrap();
        let entries = vec![
            entry(1, 1, Payload::Noop),
            entry(1, 2, Payload::Membership(two.clone())),
            entry(1, 3, Payload::Noop),
        ];
        state.apply_write(&Write::detached(None, None, entries)).unwrap();
        assert_eq!(*state.membership(), two);
        for (from, fine) in [(0, false), (5, false), (4, true), (3, true)] {
            let write = Write::detached(None, Some(LogIndex(from)), Vec::new());
            assert_eq!(state.clone().apply_write(&write).is_ok(), fine, "{from}");
        }
        state.apply_write(&Write::detached(None, Some(LogIndex(2)), Vec::new())).unwrap();
        assert_eq!(state.membership(), &empty().base_membership);
        assert_eq!(state.last().0, LogPosition::new(Term(1), LogIndex(1)));
    }
}
