//! The replicated log as one node holds it (§5.3), and how much of it the disk has.
//!
//! Invariants, checked by [`Log::check_invariants`]:
//! - indexes are contiguous from `base.index + 1`; terms never fall;
//! - `durable ≤ written ≤ last`: what the disk has, what it was given, what there is;
//! - `durable` speaks of the log as it is *now*: a truncation lowers it, a receipt raises it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::entry::Entry;
use crate::types::{LogIndex, LogPosition, Term, Timestamp};

/// The entries after `base`, all in memory.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    base: LogPosition,
    base_timestamp: Timestamp,
    entries: VecDeque<Entry>,
    /// For each entry the bytes of all entries up to its end, since the log was built: differences of
    /// them are exact byte counts that no bookkeeping can leak.
    ends: VecDeque<u64>,
    base_end: u64,
    /// Entries up to here have been handed out in a write.
    written: LogIndex,
    /// The first index that the next write must remove from the disk.
    truncated: Option<LogIndex>,
    /// Entries up to here are on the disk.
    durable: LogIndex,
}

/// How a run of entries from a leader fits into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// So many of them are there already.
    pub(crate) known: usize,
    /// The first index at which the log says something else, if it does.
    pub(crate) conflict: Option<LogIndex>,
}

impl Log {
    /// A log as storage restored it: all of it durable.
    pub(crate) fn restored(
        base: LogPosition,
        base_timestamp: Timestamp,
        entries: Vec<Entry>,
    ) -> Self {
        let mut log = Self {
            base,
            base_timestamp,
            entries: VecDeque::with_capacity(entries.len()),
            ends: VecDeque::with_capacity(entries.len()),
            base_end: 0,
            written: base.index,
            truncated: None,
            durable: base.index,
        };
        for entry in entries {
            log.append(entry);
        }
        log.written = log.last().index;
        log.durable = log.written;
        log
    }

    /// The last entry that is no longer here.
    pub(crate) fn base(&self) -> LogPosition {
        self.base
    }

    /// The last entry, or the base if there is none.
    pub(crate) fn last(&self) -> LogPosition {
        self.entries.back().map_or(self.base, Entry::position)
    }

    /// The timestamp of the last entry.
    pub(crate) fn last_timestamp(&self) -> Timestamp {
        self.entries.back().map_or(self.base_timestamp, |entry| entry.timestamp)
    }

    /// On the disk up to here.
    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The entry at `index`, if it is here.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(self.slot(index)?)
    }

    /// The term of the entry at `index`; known from the base to the last.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    /// The timestamp of the entry at `index`; known from the base to the last.
    pub(crate) fn timestamp_at(&self, index: LogIndex) -> Option<Timestamp> {
        if index == self.base.index {
            return Some(self.base_timestamp);
        }
        self.get(index).map(|entry| entry.timestamp)
    }

    /// Does the log contain this very entry?
    pub(crate) fn contains(&self, position: LogPosition) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The last entry at or before `index` whose term is at most `term`: where two logs can begin to
    /// agree at the latest (§5.3). The base if there is none.
    pub(crate) fn last_at_or_below(&self, index: LogIndex, term: Term) -> LogPosition {
        let not_after = index.0.saturating_sub(self.base.index.0);
        let in_range = usize::try_from(not_after).unwrap_or(usize::MAX).min(self.entries.len());
        let old_enough = self.entries.partition_point(|entry| entry.term <= term);
        match in_range.min(old_enough) {
            0 => self.base,
            count => self.entries[count - 1].position(),
        }
    }

    /// Appends the entry that follows on the last one.
    pub(crate) fn append(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.last().index.next());
        debug_assert!(entry.term >= self.last().term);
        let end = self.ends.back().copied().unwrap_or(self.base_end);
        self.ends.push_back(end + entry.size_bytes());
        self.entries.push_back(entry);
    }

    /// How entries that follow on `prev`, which the log contains, fit in. Changes nothing.
    pub(crate) fn fit(&self, entries: &[Entry]) -> Fit {
        let known = entries.iter().take_while(|entry| self.contains(entry.position())).count();
        let conflict = entries.get(known).map(|entry| entry.index);
        Fit { known, conflict: conflict.filter(|&index| index <= self.last().index) }
    }

    /// Removes the entry at `from` and all behind it (§5.3). What was on its way to the disk is no
    /// longer counted; what had arrived there is removed by the next write.
    pub(crate) fn truncate_from(&mut self, from: LogIndex) {
        let Some(slot) = self.slot(from) else { return };
        self.entries.truncate(slot);
        self.ends.truncate(slot);
        if from <= self.written {
            self.written = from.prev();
            self.truncated = Some(self.truncated.map_or(from, |earlier| earlier.min(from)));
        }
        self.durable = self.durable.min(from.prev());
    }

    /// Forgets the entries up to `to`, which the disk has and a snapshot contains (§7).
    pub(crate) fn compact(&mut self, to: LogIndex) {
        debug_assert!(to <= self.durable, "only what is durable can be compacted");
        let Some(entry) = self.get(to) else { return };
        let (base, timestamp) = (entry.position(), entry.timestamp);
        self.base_end = self.bytes_through(to);
        let count = (to.0 - self.base.index.0) as usize;
        self.entries.drain(..count);
        self.ends.drain(..count);
        self.base = base;
        self.base_timestamp = timestamp;
    }

    /// A snapshot takes the place of everything (§7). What was durable of the log before stays so up to
    /// `agreed`: either that log or the snapshot will be found after a crash.
    pub(crate) fn reset(&mut self, base: LogPosition, timestamp: Timestamp, agreed: LogIndex) {
        debug_assert!(base.index >= self.last().index || !self.contains(base));
        self.base_end = self.bytes_through(self.last().index);
        self.entries.clear();
        self.ends.clear();
        self.base = base;
        self.base_timestamp = timestamp;
        self.written = base.index;
        self.truncated = None;
        self.durable = self.durable.min(agreed);
    }

    /// The last index of the entries from the base on that can go, so that those up to `to` that stay
    /// have at most `bytes_max` bytes.
    pub(crate) fn trailing_from(&self, to: LogIndex, bytes_max: u64) -> LogIndex {
        let limit = self.bytes_through(to).saturating_sub(bytes_max);
        if limit <= self.base_end {
            return self.base.index;
        }
        let stay = self.ends.partition_point(|&end| end < limit);
        LogIndex(self.base.index.0 + stay as u64 + 1).min(to)
    }

    /// What the disk has not been given yet: the truncation first, then the entries.
    pub(crate) fn take_unwritten(&mut self) -> (Option<LogIndex>, Vec<Entry>) {
        let last = self.last().index;
        let entries = self.range(self.written.next(), last, u64::MAX).cloned().collect();
        self.written = last;
        (self.truncated.take(), entries)
    }

    /// Is there something that the disk has not been given yet?
    pub(crate) fn has_unwritten(&self) -> bool {
        self.truncated.is_some() || self.written < self.last().index
    }

    /// The disk has the log as it is now, up to `index`.
    pub(crate) fn set_durable(&mut self, index: LogIndex) {
        debug_assert!(index <= self.written, "durable before it was written");
        self.durable = self.durable.max(index);
    }

    /// Entries from `from` to `to`, as many as fit into `bytes_max`, at least one if there is one.
    pub(crate) fn range(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: u64,
    ) -> impl ExactSizeIterator<Item = &Entry> {
        let start = self.slot(from).unwrap_or(self.entries.len());
        let limit = self.bytes_through(from.prev()).saturating_add(bytes_max);
        let fitting = self.ends.partition_point(|&end| end <= limit).max(start.saturating_add(1));
        let wanted = usize::try_from(to.0.saturating_sub(self.base.index.0)).unwrap_or(usize::MAX);
        let end = fitting.min(wanted).min(self.entries.len());
        self.entries.range(start..end.max(start))
    }

    /// Bytes of the entries after `from` up to `to`.
    pub(crate) fn bytes_between(&self, from: LogIndex, to: LogIndex) -> u64 {
        self.bytes_through(to).saturating_sub(self.bytes_through(from))
    }

    fn bytes_through(&self, index: LogIndex) -> u64 {
        match self.slot(index.min(self.last().index)) {
            Some(slot) => self.ends[slot],
            None => self.base_end,
        }
    }

    /// Where `index` is kept, if it is after the base and not after the last entry.
    fn slot(&self, index: LogIndex) -> Option<usize> {
        let offset = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        usize::try_from(offset).ok().filter(|&slot| slot < self.entries.len())
    }

    /// Panics if an invariant of the type is broken.
    pub(crate) fn check_invariants(&self) {
        let last = self.last().index;
        assert!(self.durable <= self.written, "durable {} written {}", self.durable, self.written);
        assert!(self.written <= last, "written {} last {last}", self.written);
        assert!(self.written >= self.base.index, "written {} base {}", self.written, self.base);
        assert_eq!(self.entries.len(), self.ends.len());
        assert_eq!(self.base.index.0 + self.entries.len() as u64, last.0, "indexes have a gap");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Payload;
    use alloc::vec;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index: LogIndex(index),
            term: Term(term),
            timestamp: Timestamp(0),
            payload: Payload::Noop,
        }
    }

    fn log(terms: &[u64]) -> Log {
        let entries = (1..).zip(terms).map(|(index, &term)| entry(index, term)).collect();
        Log::restored(LogPosition::default(), Timestamp(0), entries)
    }

    #[test]
    fn a_truncation_lowers_what_counts_as_durable() {
        let mut log = log(&[1, 1, 2]);
        assert_eq!(log.durable(), LogIndex(3));
        log.truncate_from(LogIndex(2));
        log.append(entry(2, 3));
        assert_eq!(log.durable(), LogIndex(1));
        assert_eq!(log.take_unwritten(), (Some(LogIndex(2)), vec![entry(2, 3)]));
        assert!(!log.has_unwritten());
    }

    #[test]
    fn two_truncations_before_a_write_are_one() {
        let mut log = log(&[1, 1, 1]);
        log.truncate_from(LogIndex(3));
        log.append(entry(3, 2));
        log.truncate_from(LogIndex(2));
        log.append(entry(2, 3));
        assert_eq!(log.take_unwritten(), (Some(LogIndex(2)), vec![entry(2, 3)]));
    }

    #[test]
    fn what_was_never_written_needs_no_truncation_on_disk() {
        let mut log = log(&[1]);
        log.append(entry(2, 1));
        log.truncate_from(LogIndex(2));
        assert_eq!(log.take_unwritten(), (None, vec![]));
    }

    #[test]
    fn hints_skip_whole_terms() {
        let log = log(&[1, 1, 4, 4, 4, 6]);
        assert_eq!(log.last_at_or_below(LogIndex(6), Term(3)).index, LogIndex(2));
        assert_eq!(log.last_at_or_below(LogIndex(4), Term(9)).index, LogIndex(4));
        assert_eq!(log.last_at_or_below(LogIndex(9), Term(0)), LogPosition::default());
    }

    #[test]
    fn a_range_respects_bytes_but_gives_at_least_one() {
        let log = log(&[1, 1, 1]);
        let one = entry(1, 1).size_bytes();
        let count = |from, to, bytes| log.range(LogIndex(from), LogIndex(to), bytes).len();
        assert_eq!(count(1, 3, 0), 1);
        assert_eq!(count(1, 3, one * 2), 2);
        assert_eq!(count(1, 2, u64::MAX), 2);
        assert_eq!(count(2, 3, u64::MAX), 2);
        assert_eq!(count(4, 9, u64::MAX), 0);
        assert_eq!(log.bytes_between(LogIndex(1), LogIndex(3)), one * 2);
    }
}
