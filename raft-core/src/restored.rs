//! What a node is started with: what its storage remembers, checked before it is used.

use alloc::vec::Vec;
use core::fmt;

use crate::config::ConfigError;
use crate::entry::Entry;
use crate::membership::Membership;
use crate::snapshot::{LogBase, Snapshot};
use crate::types::{INDEX_MAX, Incarnation, LogIndex, LogPosition, TERM_MAX, Term};
use crate::write::HardState;

/// What a node's storage remembers, checked by [`Node::new`](crate::Node::new).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The last vote record; the default before the first one.
    pub hard_state: HardState,
    /// Which of the node's disks this is.
    pub incarnation: Incarnation,
    /// What the log stands on: for a new cluster the members that it starts with, the same on every
    /// node. A node that joins later starts with members as it was told of them, without itself.
    pub base: LogBase,
    /// The log after `base`: contiguous, terms that never fall.
    pub entries: Vec<Entry>,
    /// The newest snapshot, from which the state machine was restored. Its position is in the log, or
    /// is the base. There must be one if the log does not begin at its beginning.
    pub snapshot: Option<Snapshot>,
    /// On a repaired disk, the last entry that may have been acknowledged and lost; else the default.
    /// Until its log is as new as this, the node does not campaign, and votes only for logs that are.
    pub lost: LogPosition,
}

impl Restored {
    /// A node that has never run, in a cluster that starts with these members.
    #[must_use]
    pub fn empty(membership: Membership) -> Self {
        Self {
            hard_state: HardState::default(),
            incarnation: Incarnation::default(),
            base: LogBase::initial(membership),
            entries: Vec::new(),
            snapshot: None,
            lost: LogPosition::ZERO,
        }
    }

    /// Can this be the state of a Raft node?
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let base = self.base.position;
        let mut last = base;
        let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.base.position);
        let mut snapshot_in_log = snapshot.is_none_or(|snapshot| snapshot == base);
        for entry in &self.entries {
            if entry.index.0 != last.index.0.wrapping_add(1) {
                return Err(StartError::Gap { expected: last.index.next(), found: entry.index });
            }
            if entry.term < last.term {
                return Err(StartError::TermFalls(entry.position()));
            }
            last = entry.position();
            snapshot_in_log |= snapshot == Some(last);
        }
        if last.index > INDEX_MAX {
            return Err(StartError::AbsurdIndex(last.index));
        }
        if self.hard_state.term > TERM_MAX {
            return Err(StartError::AbsurdTerm(self.hard_state.term));
        }
        if last.term > self.hard_state.term {
            return Err(StartError::TermAheadOfVote { last, term: self.hard_state.term });
        }
        match snapshot {
            None if base.index > LogIndex(0) => Err(StartError::NoSnapshot { base }),
            Some(snapshot) if !snapshot_in_log => Err(StartError::SnapshotOffLog { snapshot }),
            _ => Ok(()),
        }
    }
}

/// Why a node cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration would break Raft.
    Config(ConfigError),
    /// The restored log has `found` where an entry with index `expected` must be.
    Gap {
        /// The index that must come next.
        expected: LogIndex,
        /// The index that is there.
        found: LogIndex,
    },
    /// The entry at this position has a lower term than the one before it.
    TermFalls(LogPosition),
    /// No log gets that long.
    AbsurdIndex(LogIndex),
    /// No cluster gets to this term by elections.
    AbsurdTerm(Term),
    /// The log has an entry of a term that the vote record has not seen yet.
    TermAheadOfVote {
        /// The last entry.
        last: LogPosition,
        /// The term of the vote record.
        term: Term,
    },
    /// The log does not begin at its beginning, and there is no snapshot of what came before `base`.
    NoSnapshot {
        /// What the log stands on.
        base: LogPosition,
    },
    /// The snapshot ends before the log begins, or at an entry that the log does not have. (After a
    /// crash while one was installed, the storage has to drop the log before it.)
    SnapshotOffLog {
        /// The last entry in the snapshot.
        snapshot: LogPosition,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Gap { expected, found } => {
                write!(f, "restored log: index {found} where {expected} must be")
            }
            Self::TermFalls(position) => {
                write!(f, "restored log: the term falls at {position}")
            }
            Self::AbsurdIndex(index) => write!(f, "restored log: no log reaches index {index}"),
            Self::AbsurdTerm(term) => write!(f, "restored vote: no cluster reaches term {term}"),
            Self::TermAheadOfVote { last, term } => {
                write!(
                    f,
                    "restored log: its last entry {last} is of a later term than the vote, {term}"
                )
            }
            Self::NoSnapshot { base } => {
                write!(f, "restored log: it begins after {base}, and there is no snapshot")
            }
            Self::SnapshotOffLog { snapshot } => {
                write!(f, "restored snapshot: its last entry {snapshot} is not in the log")
            }
        }
    }
}

impl core::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Payload;
    use crate::types::{LogIndex, NodeId, Term, Timestamp};
    use alloc::string::ToString;

    /// A node whose snapshot, after which its log is empty, ends here, and which has seen this term.
    fn restored(index: LogIndex, term: Term) -> Result<(), StartError> {
        let membership = Membership::new([NodeId::new(1).unwrap()]).unwrap();
        let mut restored = Restored::empty(membership.clone());
        restored.base.position = LogPosition::new(Term(1), index);
        restored.hard_state.term = term;
        restored.snapshot = Some(Snapshot { base: restored.base.clone(), length: 1, digest: 0 });
        restored.check()
    }

    #[test]
    fn what_is_restored_is_possible_up_to_the_limits() {
        let beyond = |limit: u64| limit + 1;
        assert_eq!(restored(INDEX_MAX, TERM_MAX), Ok(()));
        assert_eq!(restored(LogIndex(0), Term(1)), Ok(()), "a snapshot of nothing");
        let (index, term) = (LogIndex(beyond(INDEX_MAX.0)), Term(beyond(TERM_MAX.0)));
        assert_eq!(restored(index, TERM_MAX), Err(StartError::AbsurdIndex(index)));
        assert_eq!(restored(INDEX_MAX, term), Err(StartError::AbsurdTerm(term)));
    }

    #[test]
    fn a_log_without_its_beginning_needs_a_snapshot() {
        let mut restored = Restored::empty(Membership::new([NodeId::new(1).unwrap()]).unwrap());
        assert_eq!(restored.check(), Ok(()));
        let base = LogPosition::new(Term(1), LogIndex(1));
        restored.base.position = base;
        restored.hard_state.term = Term(1);
        assert_eq!(restored.check(), Err(StartError::NoSnapshot { base }));
    }

    fn entry(index: u64, term: u64) -> Entry {
        let (index, term, timestamp) = (LogIndex(index), Term(term), Timestamp(0));
        Entry { index, term, timestamp, payload: Payload::Noop }
    }

    /// An operator reads this, and nothing else, when a node does not start.
    #[test]
    fn what_is_wrong_is_said() {
        let membership = Membership::new([NodeId::new(1).unwrap()]).unwrap();
        let sound = |entries: &[(u64, u64)]| Restored {
            hard_state: HardState { term: Term(2), voted_for: None },
            entries: entries.iter().map(|&(index, term)| entry(index, term)).collect(),
            ..Restored::empty(membership.clone())
        };
        assert_eq!(sound(&[(1, 1), (2, 1), (3, 2)]).check(), Ok(()));
        let said = |restored: Restored| restored.check().map_err(|error| error.to_string());
        let with_base = |index, snapshot: Option<u64>| {
            let mut restored = sound(&[(index + 1, 2)]);
            restored.base.position = LogPosition::new(Term(1), LogIndex(index));
            let base = |at| LogBase {
                position: LogPosition::new(Term(1), LogIndex(at)),
                ..restored.base.clone()
            };
            restored.snapshot =
                snapshot.map(|at| Snapshot { base: base(at), length: 1, digest: 0 });
            restored
        };
        let mut absurd = sound(&[]);
        absurd.hard_state.term = Term(TERM_MAX.0 + 1);
        let cases = [
            (sound(&[(1, 1), (3, 1)]), "restored log: index 3 where 2 must be"),
            (sound(&[(1, 2), (2, 1)]), "restored log: the term falls at 2@1"),
            (
                with_base(INDEX_MAX.0, Some(INDEX_MAX.0)),
                "restored log: no log reaches index 9223372036854775809",
            ),
            (absurd, "restored vote: no cluster reaches term 9223372036854775809"),
            (
                sound(&[(1, 3)]),
                "restored log: its last entry 1@3 is of a later term than the vote, 2",
            ),
            (with_base(4, None), "restored log: it begins after 4@1, and there is no snapshot"),
            (with_base(4, Some(3)), "restored snapshot: its last entry 3@1 is not in the log"),
        ];
        for (restored, words) in cases {
            assert_eq!(said(restored), Err(words.to_string()));
        }
        let error = crate::Config { waiting_reads_max: 0, ..config() }.validate();
        let words = "config: waiting_reads_max = 0: must be at least one";
        assert_eq!(error.map_err(|e| StartError::Config(e).to_string()), Err(words.to_string()));
    }

    fn config() -> crate::Config {
        crate::Config::new(NodeId::new(1).unwrap(), 1)
    }
}
