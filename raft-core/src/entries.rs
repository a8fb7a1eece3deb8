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
