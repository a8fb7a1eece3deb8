//! The small words of the protocol: who, when, where in the log.
//!
//! Each is a newtype, so that no signature holds two bare integers side by side. Their `Display` is
//! the one notation used in logs, golden scripts, docs and panics: `n1` a node, `4@2` the entry at
//! index 4 of term 2.

use core::fmt;
use core::num::NonZeroU64;
use core::time::Duration;

/// A member of the cluster. Never zero: zero is what a forgotten field decodes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The node with this number, or `None` for zero.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number, at least 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// One of many Raft groups that may share nodes, connections and a disk. A cluster with a single
/// group uses `GroupId::default()`, which is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{}", self.0)
    }
}

/// Which of its disks a node runs on. A disk that lost something it had promised (a repaired log)
/// begins a new incarnation, higher than all before: what the node said in an earlier one counts no
/// longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// A term, Raft's logical clock (§5.1). Term 0 is before the first election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

impl Term {
    /// The term after this one. At the end of the range it stays, which no honest cluster reaches:
    /// terms that jump are refused long before (see [`Ignored::AbsurdTerm`](crate::Ignored)).
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// No index is above this, so that the next one always exists.
pub(crate) const INDEX_MAX: LogIndex = LogIndex(1 << 63);

/// No term is above this, so that the next one always exists.
pub(crate) const TERM_MAX: Term = Term(1 << 63);

/// A place in the log. The first entry has index 1; index 0 is the place before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What identifies an entry: two logs with the same position agree up to there (§5.3, Log Matching).
///
/// The order is term first, then index, so that "at least as up-to-date" of §5.4.1 is one `>=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The term in which a leader created the entry.
    pub term: Term,
    /// The entry's place.
    pub index: LogIndex,
}

impl LogPosition {
    /// Before the first entry: every log contains it.
    pub const ZERO: Self = Self { term: Term(0), index: LogIndex(0) };

    /// The position `index@term`.
    #[must_use]
    pub const fn new(term: Term, index: LogIndex) -> Self {
        Self { term, index }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// A moment of the caller's monotonic clock, in nanoseconds from an origin that the caller chose.
///
/// Only differences matter. A moment earlier than one already seen is taken as that one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment that never comes: the deadline of a node that waits for nothing.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The moment this many nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `later` after this one, at most [`Instant::FAR_FUTURE`].
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        let nanos = u64::try_from(later.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// How long ago `earlier` was, zero if it lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time in milliseconds since the Unix epoch, as the leader saw it.
///
/// The protocol never decides by it. It travels in entries so that state machines have a clock that
/// is the same on all nodes and never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_date_compares_the_term_first() {
        let longer_but_older = LogPosition::new(Term(2), LogIndex(9));
        let shorter_but_newer = LogPosition::new(Term(3), LogIndex(4));
        assert!(shorter_but_newer > longer_but_older);
        assert!(LogPosition::new(Term(3), LogIndex(5)) > shorter_but_newer);
    }

    #[test]
    fn time_saturates_at_both_ends() {
        let start = Instant::from_nanos(5);
        assert_eq!(start.since(Instant::from_nanos(9)), Duration::ZERO);
        assert_eq!(start.after(Duration::MAX), Instant::FAR_FUTURE);
        assert_eq!(NodeId::new(0), None);
    }
}
