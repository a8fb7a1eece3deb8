//! The replicated log as one node holds it (§5.3), and how much of it the disk has.
//!
//! Invariants, checked by [`Log::check_invariants`]:
//! - indexes are contiguous from `base.index + 1`; terms never fall;
//! - `durable ≤ written ≤ last`: what the disk has, what it was given, what there is;
//! - `durable` speaks of the log as it is *now*: a truncation lowers it, a receipt raises it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use crate::entries::Entries;
use crate::entry::Entry;
use crate::types::{LogIndex, LogPosition, Term, Timestamp};

/// So many entries share one run after a restart.
const RESTORED_RUN_MAX: usize = 256;

/// The entries after `base`, all in memory: shared runs, and behind them those that came since the last
/// poll.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    base: LogPosition,
    base_timestamp: Timestamp,
    /// Contiguous, none empty.
    runs: VecDeque<Run>,
    base_end: u64,
    /// What follows the runs and is not shared yet.
    open: Vec<Entry>,
    open_bytes: u64,
    last: LogPosition,
    /// Entries up to here have been handed out in a write.
    written: LogIndex,
    /// The first index that the next write must remove from the disk.
    truncated: Option<LogIndex>,
    /// Entries up to here are on the disk.
    durable: LogIndex,
}

#[derive(Clone, Debug)]
struct Run {
    entries: Entries,
    /// The bytes of all entries up to its end, since the log was built: differences of them are exact
    /// byte counts that no bookkeeping can leak.
    end: u64,
}

impl Run {
    fn first(&self) -> LogIndex {
        self.entries[0].index
    }
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
            runs: VecDeque::new(),
            base_end: 0,
            open: Vec::new(),
            open_bytes: 0,
            last: base,
            written: base.index,
            truncated: None,
            durable: base.index,
        };
        // Short runs, so that what is compacted is freed before the whole of it is gone.
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            log.append_run(entries.by_ref().take(RESTORED_RUN_MAX).collect());
        }
        log.written = log.last.index;
        log.durable = log.written;
        log
    }

    /// The last entry that is no longer here.
    pub(crate) fn base(&self) -> LogPosition {
        self.base
    }

    /// The last entry, or the base if there is none.
    pub(crate) fn last(&self) -> LogPosition {
        self.last
    }

    fn last_entry(&self) -> Option<&Entry> {
        self.open.last().or_else(|| self.runs.back().and_then(|run| run.entries.last()))
    }

    /// The timestamp of the last entry.
    pub(crate) fn last_timestamp(&self) -> Timestamp {
        self.last_entry().map_or(self.base_timestamp, |entry| entry.timestamp)
    }

    /// On the disk up to here.
    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    /// The entry at `index`, if it is here.
    pub(crate) fn get(&self, index: LogIndex) -> Option<&Entry> {
        if index <= self.base.index || index > self.last.index {
            return None;
        }
        if index > self.sealed() {
            return self.open.get(distance(self.sealed().next(), index));
        }
        let run = &self.runs[self.run_of(index)];
        run.entries.get(distance(run.first(), index))
    }

    /// The last index in a shared run.
    fn sealed(&self) -> LogIndex {
        LogIndex(self.last.index.0 - self.open.len() as u64)
    }

    /// Which run holds `index`, which one does.
    fn run_of(&self, index: LogIndex) -> usize {
        // Most questions are about the end: what was just appended, committed or applied.
        let near = self.runs.iter().rev().take(4).position(|run| run.first() <= index);
        match near {
            Some(from_end) => self.runs.len() - 1 - from_end,
            None => self.runs.partition_point(|run| run.first() <= index) - 1,
        }
    }

    /// The term of the entry at `index`; known from the base to the last.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.last.index {
            return Some(self.last.term);
        }
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
        let index = index.min(self.last.index);
        let old_enough = match self.runs.partition_point(|run| run.entries[0].term <= term) {
            0 => self.base.index,
            runs => {
                let run = &self.runs[runs - 1];
                let count = run.entries.partition_point(|entry| entry.term <= term);
                run.entries[count - 1].index
            }
        };
        let open = self.open.partition_point(|entry| entry.term <= term);
        let old_enough = if open > 0 { self.open[open - 1].index } else { old_enough };
        self.get(index.min(old_enough)).map_or(self.base, Entry::position)
    }

    /// Appends the entry that follows on the last one.
    pub(crate) fn append(&mut self, entry: Entry) {
        debug_assert_eq!(entry.index, self.last.index.next());
        debug_assert!(entry.term >= self.last.term);
        self.last = entry.position();
        self.open_bytes += entry.size_bytes();
        self.open.push(entry);
    }

    /// Appends the entries that follow on the last one.
    pub(crate) fn append_run(&mut self, entries: Entries) {
        self.seal();
        let Some(last) = entries.last() else { return };
        debug_assert_eq!(entries[0].index, self.last.index.next());
        debug_assert!(entries[0].term >= self.last.term);
        self.last = last.position();
        let end = self.end() + bytes(&entries);
        self.runs.push_back(Run { entries, end });
    }

    /// From here on the entries that were appended one by one are shared.
    pub(crate) fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let entries = self.open.drain(..).collect();
        let end = self.end() + core::mem::take(&mut self.open_bytes);
        self.runs.push_back(Run { entries, end });
    }

    /// Bytes up to the end of the last run.
    fn end(&self) -> u64 {
        self.runs.back().map_or(self.base_end, |run| run.end)
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
        if from <= self.base.index || from > self.last.index {
            return;
        }
        self.seal();
        let kept = self.run_of(from);
        self.runs.truncate(kept + 1);
        if let Some(run) = self.runs.pop_back() {
            let entries = run.entries.slice(0..distance(run.first(), from));
            if !entries.is_empty() {
                let end = self.end() + bytes(&entries);
                self.runs.push_back(Run { entries, end });
            }
        }
        self.last = self.last_entry().map_or(self.base, Entry::position);
        if from <= self.written {
            self.written = from.prev();
            self.truncated = Some(self.truncated.map_or(from, |earlier| earlier.min(from)));
        }
        self.durable = self.durable.min(from.prev());
    }

    /// Forgets the entries up to `to`, which the disk has and a snapshot contains (§7). The memory of a
    /// run is free when nothing of it is held any more.
    pub(crate) fn compact(&mut self, to: LogIndex) {
        debug_assert!(to <= self.durable, "only what is durable can be compacted");
        self.seal();
        let Some(entry) = self.get(to) else { return };
        let (base, timestamp) = (entry.position(), entry.timestamp);
        self.base_end = self.bytes_through(to);
        self.runs.drain(..self.run_of(to));
        if let Some(run) = self.runs.front_mut() {
            let gone = distance(run.first(), to) + 1;
            run.entries = run.entries.slice(gone..run.entries.len());
            if run.entries.is_empty() {
                self.runs.pop_front();
            }
        }
        self.base = base;
        self.base_timestamp = timestamp;
    }

    /// A snapshot takes the place of everything (§7). What was durable of the log before stays so up to
    /// `agreed`: either that log or the snapshot will be found after a crash.
    pub(crate) fn reset(&mut self, base: LogPosition, timestamp: Timestamp, agreed: LogIndex) {
        debug_assert!(base.index >= self.last().index || !self.contains(base));
        self.seal();
        self.base_end = self.end();
        self.runs.clear();
        self.base = base;
        self.base_timestamp = timestamp;
        self.last = base;
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
        let whole = self.runs.partition_point(|run| run.end < limit);
        let gone = match self.runs.get(whole) {
            Some(run) => LogIndex(run.first().0 + fitting(run, limit - 1) as u64),
            None => self.sealed(),
        };
        gone.min(to)
    }

    /// What the disk has not been given yet: the truncation first, then the entries.
    pub(crate) fn take_unwritten(&mut self) -> (Option<LogIndex>, Entries) {
        self.seal();
        let last = self.last().index;
        let entries = self.share(self.written.next(), last, u64::MAX);
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

    /// Entries from `from` to `to`, as many as fit into `bytes_max`, at least one if there is one: as one
    /// run, copied only if the log has them in several.
    pub(crate) fn share(&self, from: LogIndex, to: LogIndex, bytes_max: u64) -> Entries {
        let mut pieces = self.pieces(from, to, bytes_max);
        let Some(first) = pieces.next() else { return Entries::default() };
        match pieces.next() {
            None => first,
            Some(second) => {
                let mut all = first.to_vec();
                all.extend_from_slice(&second);
                pieces.for_each(|piece| all.extend_from_slice(&piece));
                all.into()
            }
        }
    }

    /// The same, run by run.
    pub(crate) fn pieces(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: u64,
    ) -> impl Iterator<Item = Entries> {
        debug_assert!(self.open.is_empty(), "shared before it was sealed");
        let to = to.min(self.last.index);
        let some = from > self.base.index && from <= to;
        let first = if some { self.run_of(from) } else { self.runs.len() };
        let limit = self.runs.get(first).map_or(0, |run| {
            let before = run.end - bytes(&run.entries[distance(run.first(), from)..]);
            before.saturating_add(bytes_max)
        });
        let mut next = from;
        let mut full = false;
        self.runs.range(first..).map_while(move |run| {
            if full || next > to {
                return None;
            }
            let start = distance(run.first(), next);
            let wanted = distance(next, to).saturating_add(1).min(run.entries.len() - start);
            let mut count = wanted;
            if run.end > limit {
                let fits = fitting(run, limit).saturating_sub(start);
                count = wanted.min(if next == from { fits.max(1) } else { fits });
                full = true;
            }
            next = LogIndex(next.0 + count as u64);
            (count > 0).then(|| run.entries.slice(start..start + count))
        })
    }

    /// Bytes of the entries after `from` up to `to`.
    pub(crate) fn bytes_between(&self, from: LogIndex, to: LogIndex) -> u64 {
        if from >= to {
            return 0;
        }
        self.bytes_through(to).saturating_sub(self.bytes_through(from))
    }

    fn bytes_through(&self, index: LogIndex) -> u64 {
        if index >= self.last.index {
            return self.end() + self.open_bytes;
        }
        if index <= self.base.index {
            return self.base_end;
        }
        if index > self.sealed() {
            return self.end() + bytes(&self.open[..=distance(self.sealed().next(), index)]);
        }
        let run = &self.runs[self.run_of(index)];
        run.end - bytes(&run.entries[distance(run.first(), index) + 1..])
    }

    /// Everything that shows; not how the entries are cut into runs, and of the bytes only differences
    /// matter.
    pub(crate) fn fingerprint(&self, hasher: &mut impl Hasher) {
        let Self {
            base,
            base_timestamp,
            runs,
            base_end: _,
            open,
            open_bytes: _,
            last,
            written,
            truncated,
            durable,
        } = self;
        (base, base_timestamp, last, written, truncated, durable).hash(hasher);
        let sealed = runs.iter().flat_map(|run| run.entries.iter());
        sealed.chain(open).for_each(|entry| entry.hash(hasher));
    }

    /// Panics if an invariant of the type is broken.
    pub(crate) fn check_invariants(&self) {
        let last = self.last().index;
        assert!(self.durable <= self.written, "durable {} written {}", self.durable, self.written);
        assert!(self.written <= last, "written {} last {last}", self.written);
        assert!(self.written >= self.base.index, "written {} base {}", self.written, self.base);
        assert_eq!(self.last_entry().map_or(self.base, Entry::position), self.last);
        let count: usize = self.runs.iter().map(|run| run.entries.len()).sum();
        let count = count + self.open.len();
        assert_eq!(self.base.index.0 + count as u64, last.0, "indexes have a gap");
    }
}

/// How many entries of the run end within `limit`.
fn fitting(run: &Run, limit: u64) -> usize {
    let mut end = run.end - bytes(&run.entries);
    let fits = |entry: &&Entry| {
        end += entry.size_bytes();
        end <= limit
    };
    run.entries.iter().take_while(fits).count()
}

fn bytes(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::size_bytes).sum()
}

/// How far `to` lies behind `from`; both are in memory, or one past it.
fn distance(from: LogIndex, to: LogIndex) -> usize {
    usize::try_from(to.0.saturating_sub(from.0)).unwrap_or(usize::MAX)
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
        assert_eq!(log.take_unwritten(), (Some(LogIndex(2)), vec![entry(2, 3)].into()));
        assert!(!log.has_unwritten());
    }

    #[test]
    fn two_truncations_before_a_write_are_one() {
        let mut log = log(&[1, 1, 1]);
        log.truncate_from(LogIndex(3));
        log.append(entry(3, 2));
        log.truncate_from(LogIndex(2));
        log.append(entry(2, 3));
        assert_eq!(log.take_unwritten(), (Some(LogIndex(2)), vec![entry(2, 3)].into()));
    }

    #[test]
    fn what_was_never_written_needs_no_truncation_on_disk() {
        let mut log = log(&[1]);
        log.append(entry(2, 1));
        log.truncate_from(LogIndex(2));
        assert_eq!(log.take_unwritten(), (None, vec![].into()));
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
        let count = |from, to, bytes| log.share(LogIndex(from), LogIndex(to), bytes).len();
        assert_eq!(count(1, 3, 0), 1);
        assert_eq!(count(1, 3, one * 2), 2);
        assert_eq!(count(1, 2, u64::MAX), 2);
        assert_eq!(count(2, 3, u64::MAX), 2);
        assert_eq!(count(4, 9, u64::MAX), 0);
        assert_eq!(log.bytes_between(LogIndex(1), LogIndex(3)), one * 2);
    }

    /// However the entries are cut into runs, the log answers as if it were one list of them.
    #[test]
    fn runs_do_not_show() {
        let terms = [1, 1, 2, 2, 2, 4];
        let all: Vec<Entry> = (1..).zip(terms).map(|(index, term)| entry(index, term)).collect();
        for cuts in 0u32..1 << (terms.len() - 1) {
            for base in 0..=all.len() {
                let mut log = Log::restored(LogPosition::default(), Timestamp(0), Vec::new());
                for entry in &all {
                    log.append(entry.clone());
                    if cuts >> (entry.index.0 - 1) & 1 == 1 {
                        log.seal();
                    }
                    compare_questions(&log, &all[..entry.index.0 as usize], 0);
                }
                let _ = log.take_unwritten();
                log.set_durable(log.last().index);
                log.compact(LogIndex(base as u64));
                log.check_invariants();
                compare(&log, &all, base);
            }
        }
    }

    /// What a log answers also while its last entries are not in a run yet.
    fn compare_questions(log: &Log, all: &[Entry], base: usize) {
        let one = all[0].size_bytes();
        let kept = &all[base..];
        for index in 0..=all.len() as u64 + 1 {
            let here = kept.iter().find(|entry| entry.index.0 == index);
            assert_eq!(log.get(LogIndex(index)), here);
            for other in base as u64..=all.len() as u64 {
                if index > base as u64 {
                    let between = other.saturating_sub(index.min(all.len() as u64));
                    let bytes = log.bytes_between(LogIndex(index), LogIndex(other));
                    assert_eq!(bytes, between * one, "{index} to {other}");
                }
            }
            for term in 0..=5 {
                let found = kept.iter().rev().find(|e| e.index.0 <= index && e.term.0 <= term);
                let found = found.map_or(log.base(), Entry::position);
                assert_eq!(log.last_at_or_below(LogIndex(index), Term(term)), found);
            }
        }
    }

    fn compare(log: &Log, all: &[Entry], base: usize) {
        compare_questions(log, all, base);
        let one = all[0].size_bytes();
        let kept = &all[base..];
        for index in 0..=all.len() as u64 + 1 {
            for other in base as u64..=all.len() as u64 {
                let (from, to) = (LogIndex(index), LogIndex(other));
                if index > base as u64 {
                    for count in 0..=all.len() {
                        let shared = log.share(from, to, count as u64 * one);
                        let fitting = kept.iter().filter(|entry| entry.index >= from);
                        let fitting = fitting.filter(|entry| entry.index <= to).take(count.max(1));
                        assert!(shared.iter().eq(fitting), "{from}..={to}, room for {count}");
                        let mut pieces = log.pieces(from, to, count as u64 * one);
                        assert!(pieces.all(|piece| !piece.is_empty()), "{from}..={to}");
                    }
                } else {
                    let shared = log.pieces(from, to, u64::MAX).count();
                    assert_eq!(shared, 0, "{from}..={to} does not begin in the log");
                }
                let few = log.trailing_from(to, index * one).0;
                assert_eq!(few, other.saturating_sub(index).max(base as u64).min(other));
            }
        }
        for from in base..=all.len() + 1 {
            let mut log = log.clone();
            log.truncate_from(LogIndex(from as u64));
            log.check_invariants();
            let end = if from > base { (from - 1).min(all.len()) } else { all.len() };
            assert!(
                log.share(log.base().index.next(), LogIndex(99), u64::MAX)
                    .iter()
                    .eq(&all[base..end])
            );
        }
    }
}
