//! Runs of entries that are shared: by the log, the messages to all followers, the write to the disk and
//! the state machine. Nobody copies an entry that somebody else holds already.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, Range};

use crate::entry::Entry;

/// A run of consecutive entries. A clone, and a part of it, cost a reference count, not a copy; the whole
/// run stays in memory as long as a part of it is held.
#[derive(Clone, Default)]
pub struct Entries {
    shared: Arc<[Entry]>,
    start: usize,
    end: usize,
}

impl Entries {
    /// A part of it, by places from 0.
    ///
    /// # Panics
    /// If the run does not have these places.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "a part of the run");
        let shared = self.shared.clone();
        Self { shared, start: self.start + range.start, end: self.start + range.end }
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        &self.shared[self.start..self.end]
    }
}

impl From<Arc<[Entry]>> for Entries {
    fn from(shared: Arc<[Entry]>) -> Self {
        let end = shared.len();
        Self { shared, start: 0, end }
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Self {
        if entries.is_empty() { Self::default() } else { Self::from(Arc::from(entries)) }
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self::from(entries.into_iter().collect::<Arc<[Entry]>>())
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = core::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl core::fmt::Debug for Entries {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self[..].fmt(f)
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Entries {}

impl Hash for Entries {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

/// Committed entries, in order: shared runs, one after the other.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Committed {
    runs: Vec<Entries>,
}

impl Committed {
    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Looks at each entry; nothing is copied.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flat_map(|run| run.iter())
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&Entry> {
        self.runs.last().and_then(|run| run.last())
    }

    /// Takes the runs out; the buffer stays.
    pub fn drain_runs(&mut self) -> impl Iterator<Item = Entries> {
        self.runs.drain(..)
    }

    /// Takes the entries out, one by one; the buffer stays.
    pub fn drain_entries(&mut self) -> impl Iterator<Item = Entry> {
        self.runs.drain(..).flat_map(|run| (0..run.len()).map(move |place| run[place].clone()))
    }

    /// Forgets them all; the buffer stays.
    pub fn clear(&mut self) {
        self.runs.clear();
    }

    pub(crate) fn push(&mut self, run: Entries) {
        debug_assert!(!run.is_empty());
        self.runs.push(run);
    }
}

impl core::fmt::Debug for Committed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Payload;
    use crate::types::{LogIndex, Term, Timestamp};
    use alloc::vec;

    fn run(terms: &[u64]) -> Entries {
        let entry = |(index, &term)| Entry {
            index: LogIndex(index),
            term: Term(term),
            timestamp: Timestamp(0),
            payload: Payload::Noop,
        };
        (1..).zip(terms).map(entry).collect()
    }

    #[test]
    fn runs_are_equal_if_their_entries_are_whatever_they_are_parts_of() {
        assert_eq!(run(&[1, 1, 2]).slice(0..2), run(&[1, 1]));
        assert_ne!(run(&[1, 1, 2]).slice(0..2), run(&[1, 2]));
        assert_ne!(run(&[1, 1]), run(&[1, 1, 2]));
        assert_eq!(digest(&run(&[1, 1, 2]).slice(0..2)), digest(&run(&[1, 1])));
        assert_ne!(digest(&run(&[1, 2])), digest(&run(&[1, 1])));
    }

    /// FNV-1a.
    struct Digest(u64);

    impl Hasher for Digest {
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    fn digest(entries: &Entries) -> u64 {
        let mut digest = Digest(0xcbf2_9ce4_8422_2325);
        entries.hash(&mut digest);
        digest.finish()
    }

    #[test]
    fn what_is_committed_is_looked_at_taken_out_or_forgotten() {
        let mut committed = Committed::default();
        assert!(committed.is_empty());
        assert_eq!(committed.last(), None);
        let (long, short) = (run(&[1, 1, 2]), run(&[3]));
        committed.push(long.clone());
        committed.push(short.clone());
        assert!(!committed.is_empty());
        assert!(committed.iter().eq([&long[0], &long[1], &long[2], &short[0]]));
        assert_eq!(committed.last(), Some(&short[0]));
        assert_eq!(committed.clone().drain_runs().collect::<Vec<_>>(), vec![long, short]);
        assert_eq!(committed.clone().drain_entries().count(), 4);
        committed.clear();
        assert_eq!(committed, Committed::default());
    }
}
