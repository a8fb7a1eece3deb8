//! What the log holds, as far as writing and recovery need it: the vote, and per entry its term and
//! timestamp. The same rules check a write before it goes to disk and a record that comes back.

use std::collections::VecDeque;

use raft_core::{
    Entry, GroupId, HardState, LogBase, LogIndex, LogPosition, Membership, Payload, Term,
    Timestamp, Write,
};

use crate::format::batch::Outcome;
use crate::format::header::{Repairs, SegmentHeader};
use crate::format::record::Record;

/// The log without its payloads.
///
/// Invariants: `positions[n]` is of the entry at `base.position.index + 1 + n`; terms never fall;
/// `memberships` is sorted by index, all above the base and inside the log.
#[derive(Clone, Debug)]
pub(crate) struct LogState {
    group: Option<GroupId>,
    hard_state: HardState,
    base: LogBase,
    positions: VecDeque<(Term, Timestamp)>,
    memberships: VecDeque<(LogIndex, Membership)>,
    repairs: Repairs,
}

impl LogState {
    /// The state at the start of a segment.
    pub(crate) fn at_start_of(header: &SegmentHeader) -> Self {
        Self {
            group: None,
            hard_state: header.hard_state,
            base: header.base.clone(),
            positions: VecDeque::new(),
            memberships: VecDeque::new(),
            repairs: header.repairs,
        }
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(crate) fn repairs(&self) -> Repairs {
        self.repairs
    }

    pub(crate) fn set_repairs(&mut self, repairs: Repairs) {
        self.repairs = repairs;
    }

    /// What the log stands on.
    pub(crate) fn base(&self) -> &LogBase {
        &self.base
    }

    /// The group that everything in the log belongs to; any, as long as the log is empty.
    pub(crate) fn group(&self) -> GroupId {
        self.group.unwrap_or_default()
    }

    fn last_index(&self) -> LogIndex {
        LogIndex(self.base.position.index.0 + self.positions.len() as u64)
    }

    /// The last entry.
    pub(crate) fn last(&self) -> LogPosition {
        match self.positions.back() {
            Some(&(term, _)) => LogPosition::new(term, self.last_index()),
            None => self.base.position,
        }
    }

    /// The entry at `index`, or the base, if the log still knows it.
    pub(crate) fn position_at(&self, index: LogIndex) -> Option<LogPosition> {
        let LogPosition { term, index: base } = self.base.position;
        let Some(above) = index.0.checked_sub(base.0)?.checked_sub(1) else {
            return Some(LogPosition::new(term, base));
        };
        let (term, _) = self.positions.get(usize::try_from(above).ok()?)?;
        Some(LogPosition::new(*term, index))
    }

    /// What a segment that continues this log stands on.
    pub(crate) fn end(&self) -> LogBase {
        let (membership_index, membership) = match self.memberships.back() {
            Some((index, membership)) => (*index, membership),
            None => (self.base.membership_index, &self.base.membership),
        };
        LogBase {
            position: self.last(),
            timestamp: self.positions.back().map_or(self.base.timestamp, |(_, at)| *at),
            membership: membership.clone(),
            membership_index,
        }
    }

    /// What the last batch leaves behind.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome { hard_state: self.hard_state, last: self.last() }
    }

    /// Goes over to the segment with this header, if it continues this state.
    pub(crate) fn enter(&mut self, header: &SegmentHeader) -> bool {
        // A log that was repaired goes on in a segment that says so.
        let later = self.repairs.incarnation <= header.repairs.incarnation;
        self.repairs = header.repairs;
        later && self.end() == header.base && self.hard_state == header.hard_state
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
        if let Some(snapshot) = write.snapshot() {
            let (new, old) = (snapshot.base.position, self.base.position);
            if new.index <= old.index {
                return Err(format!(
                    "a snapshot of {new} in place of a log that begins behind {old}"
                ));
            }
            self.reset(&snapshot.base);
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
            Record::Reset(base) => {
                self.reset(base);
                Ok(())
            }
            Record::Compacted(base) => self.compact(base),
            Record::Seal(_) => Ok(()),
        }
    }

    /// A snapshot takes the place of all entries, also of such as go further: of a leader that was
    /// deposed. The segment that says so may be the first, and stands on the last of those.
    fn reset(&mut self, base: &LogBase) {
        self.base = base.clone();
        self.positions.clear();
        self.memberships.clear();
    }

    /// Forgets what is not needed any more; nothing if it has forgotten more.
    ///
    /// # Errors
    /// If the base is not in the log.
    pub(crate) fn compact(&mut self, base: &LogBase) -> Result<(), String> {
        if !self.can_compact(base)? {
            return Ok(());
        }
        let dropped = base.position.index.0 - self.base.position.index.0;
        // Not above the length, so it fits.
        self.positions.drain(..dropped as usize);
        let kept = self.memberships.partition_point(|(index, _)| *index <= base.position.index);
        self.memberships.drain(..kept);
        self.base = base.clone();
        Ok(())
    }

    /// Is there something to forget up to this base?
    ///
    /// # Errors
    /// If it is not in the log.
    pub(crate) fn can_compact(&self, base: &LogBase) -> Result<bool, String> {
        if base.position.index < self.base.position.index {
            return Ok(false);
        }
        if self.position_at(base.position.index) != Some(base.position) {
            let (new, old, last) = (base.position, self.base.position, self.last());
            return Err(format!("a compaction up to {new} of a log of {old} to {last}"));
        }
        Ok(true)
    }

    /// This log is of a group, whatever it holds.
    pub(crate) fn join(&mut self, group: GroupId) {
        self.group = Some(group);
    }

    /// What follows is of this group.
    ///
    /// # Errors
    /// If the log is of another one.
    pub(crate) fn join_group(&mut self, group: GroupId) -> Result<(), String> {
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
        let base = self.base.position.index;
        if from <= base || from > self.last_index().next() {
            let last = self.last_index();
            return Err(format!("a truncation from {from} of a log of {base} to {last}"));
        }
        // Not above the length, so it fits.
        self.positions.truncate((from.0 - base.0 - 1) as usize);
        let kept = self.memberships.partition_point(|(index, _)| *index < from);
        self.memberships.truncate(kept);
        Ok(())
    }

    fn append(&mut self, entry: &Entry) -> Result<(), String> {
        let last = self.last();
        // Not `next()`, which saturates: at the end of the range nothing follows.
        if last.index.0.checked_add(1) != Some(entry.index.0) || entry.term < last.term {
            return Err(format!("the entry {} behind {last}", entry.position()));
        }
        self.positions.push_back((entry.term, entry.timestamp));
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push_back((entry.index, membership.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{Incarnation, NodeId};

    use super::*;

    fn empty() -> LogState {
        let members = Membership::new(NodeId::new(1)).unwrap();
        LogState {
            group: None,
            hard_state: HardState::default(),
            base: LogBase::initial(members),
            positions: VecDeque::new(),
            memberships: VecDeque::new(),
            repairs: Repairs::default(),
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

    /// The vote, the last entry and the number of the disk: whatever a header says else than the log
    /// before it ended with, it is not its continuation.
    #[test]
    fn a_header_continues_the_log_or_not() {
        let repairs = |life| Repairs { incarnation: Incarnation(life), ..Repairs::default() };
        let mut state = empty();
        state.set_repairs(repairs(2));
        state.apply_write(&vote(2, 1)).unwrap();
        state.apply_write(&Write::detached(None, None, vec![entry(2, 1, Payload::Noop)])).unwrap();
        let continues = |change: fn(&mut SegmentHeader)| {
            let mut header = SegmentHeader {
                salt: 1,
                directory: 1,
                id: 2,
                file_bytes: 4096,
                first_id: 2,
                previous: None,
                hard_state: state.hard_state(),
                base: state.end(),
                repairs: repairs(2),
            };
            change(&mut header);
            state.clone().enter(&header)
        };
        assert!(continues(|_| {}));
        assert!(continues(|it| it.repairs.incarnation.0 = 3), "repaired since");
        assert!(!continues(|it| it.repairs.incarnation.0 = 1));
        assert!(!continues(|it| it.hard_state.voted_for = None));
        assert!(!continues(|it| it.hard_state.term.0 = 3));
        assert!(!continues(|it| it.base.position.index.0 = 2));
        assert!(!continues(|it| it.base.timestamp.0 = 7));
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
        assert_eq!((state.end().membership, state.end().membership_index), (two, LogIndex(2)));
        for (from, fine) in [(0, false), (5, false), (4, true), (3, true)] {
            let write = Write::detached(None, Some(LogIndex(from)), Vec::new());
            assert_eq!(state.clone().apply_write(&write).is_ok(), fine, "{from}");
        }
        state.apply_write(&Write::detached(None, Some(LogIndex(2)), Vec::new())).unwrap();
        assert_eq!(state.end().membership, empty().base.membership);
        assert_eq!(state.last(), LogPosition::new(Term(1), LogIndex(1)));
    }

    #[test]
    fn what_is_compacted_is_forgotten_and_a_snapshot_takes_the_place_of_all() {
        let mut state = empty();
        let two = Membership::new([1, 2].into_iter().filter_map(NodeId::new)).unwrap();
        let entries = vec![
            entry(1, 1, Payload::Noop),
            entry(1, 2, Payload::Membership(two.clone())),
            entry(2, 3, Payload::Noop),
        ];
        state.apply_write(&Write::detached(None, None, entries)).unwrap();
        let base = |term, index| LogBase {
            position: LogPosition::new(Term(term), LogIndex(index)),
            timestamp: Timestamp(index),
            membership: two.clone(),
            membership_index: LogIndex(2),
        };
        assert!(state.compact(&base(1, 3)).is_err(), "another entry");
        assert!(state.compact(&base(2, 4)).is_err(), "not there yet");
        let end = state.end();
        for index in [2, 2, 3] {
            state.compact(&base(if index == 3 { 2 } else { 1 }, index)).unwrap();
            assert_eq!(state.end(), end);
        }
        state.compact(&base(1, 2)).unwrap();
        assert_eq!(state.base(), &base(2, 3), "gone already");
        assert!(state.truncate(LogIndex(3)).is_err(), "committed");
        state.reset(&base(2, 9));
        assert_eq!(state.end(), base(2, 9));
        assert_eq!(state.position_at(LogIndex(9)), Some(state.last()));
        assert_eq!(state.position_at(LogIndex(8)), None);
        assert_eq!(state.position_at(LogIndex(10)), None);
    }
}
