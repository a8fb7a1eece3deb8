//! A log as the specification sees it: whole, from the first entry, whatever was compacted.

use raft_core::{LogIndex, LogPosition, Term};

/// The terms of all entries. What an entry says follows from its position (Log Matching, which the
/// checker holds the nodes to).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log(Vec<Term>);

impl Log {
    /// The position at `index`, if the log goes that far; `0@0` is in every log.
    pub(super) fn at(&self, index: LogIndex) -> Option<LogPosition> {
        let Some(slot) = index.0.checked_sub(1) else { return Some(LogPosition::ZERO) };
        let term = usize::try_from(slot).ok().and_then(|slot| self.0.get(slot));
        term.map(|&term| LogPosition::new(term, index))
    }

    pub(super) fn last(&self) -> LogPosition {
        let index = LogIndex(self.0.len() as u64);
        self.at(index).expect("a log goes to its end")
    }

    pub(super) fn contains(&self, position: LogPosition) -> bool {
        self.at(position.index) == Some(position)
    }

    /// Does it say the same as the other up to `index`, which both have?
    pub(super) fn agrees(&self, other: &Self, index: LogIndex) -> bool {
        let position = self.at(index);
        position.is_some() && position == other.at(index)
    }

    /// Puts an entry at its place, and nothing is behind it then.
    pub(super) fn put(&mut self, position: LogPosition) {
        self.cut(position.index.prev());
        assert_eq!(self.last().index.next(), position.index, "a log has no gap");
        self.0.push(position.term);
    }

    /// Keeps what goes up to `index`.
    pub(super) fn cut(&mut self, index: LogIndex) {
        self.0.truncate(usize::try_from(index.0).expect("a small log"));
    }

    /// The positions from `first` to `last`, those of them that there are.
    pub(super) fn between(
        &self,
        first: LogIndex,
        last: LogIndex,
    ) -> impl Iterator<Item = LogPosition> {
        (first.0..=last.0).map_while(|index| self.at(LogIndex(index)))
    }
}
