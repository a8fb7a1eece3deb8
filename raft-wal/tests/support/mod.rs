//! What the tests share: random writes, and a twin that says what a log must remember.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod between;
pub(crate) mod history;
pub(crate) mod life;
pub(crate) mod model;
pub(crate) mod snapshots;
pub(crate) mod watched;

use std::sync::Arc;

use raft_core::{
    Entry, HardState, LogIndex, LogPosition, Membership, NodeId, Payload, Restored, Term,
    Timestamp, Write,
};
use raft_wal::sim::SimDisk;
use raft_wal::{Log, OpenError, OpenedLog, SEGMENT_BYTES_MIN, WalConfig};

pub(crate) fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn members(ids: &[u64]) -> Membership {
    Membership::new(ids.iter().map(|&id| node(id))).unwrap()
}

/// A node with the smallest segments, so that logs roll often.
pub(crate) fn config() -> WalConfig {
    WalConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        ..WalConfig::new("simulated", "tests", node(1), members(&[1, 2, 3]))
    }
}

/// Opens the log as a process that the next crash or restart of the disk ends.
pub(crate) fn open(disk: &SimDisk) -> Result<OpenedLog, OpenError> {
    Log::open(Arc::new(disk.for_this_life()), &config())
}

/// A generator of numbers, the same for the same seed everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a log must remember: the obvious implementation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Twin {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
}

impl Twin {
    pub(crate) fn apply(&mut self, write: &Write) {
        self.hard_state = write.hard_state().unwrap_or(self.hard_state);
        if let Some(from) = write.truncate_from() {
            self.entries.retain(|entry| entry.index < from);
        }
        self.entries.extend_from_slice(write.entries());
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.entries.len() as u64
    }

    /// A random write that continues this log as Raft would.
    pub(crate) fn random_write(&self, random: &mut Random) -> Write {
        self.random_write_behind(random, LogPosition::ZERO, 0)
    }

    /// The same for a log that stands on `base`, and whose entries up to `fixed` are committed.
    pub(crate) fn random_write_behind(
        &self,
        random: &mut Random,
        base: LogPosition,
        fixed: u64,
    ) -> Write {
        let mut hard_state = None;
        let mut term = self.hard_state.term;
        if self.hard_state.term == Term(0) || random.one_in(4) {
            term = term.next();
            let voted_for = NodeId::new(random.below(4));
            hard_state = Some(HardState { term, voted_for });
        } else if self.hard_state.voted_for.is_none() && random.one_in(4) {
            hard_state = Some(HardState { term, voted_for: Some(node(2)) });
        }
        let mut last = self.entries.last().map_or(base, Entry::position).index.0;
        let loose = last - fixed.min(last);
        let mut truncate_from = None;
        // As with Raft, no leader overwrites what it wrote itself: a position says what is there.
        let overwritable = self.entries.last().is_some_and(|entry| entry.term < term);
        if loose > 0 && overwritable && random.one_in(2) {
            let from = last + 1 - random.below(loose.min(12) + 1);
            truncate_from = Some(LogIndex(from));
            last = from - 1;
        }
        let entries = self.random_entries(random, LogIndex(last), term);
        Write::detached(hard_state, truncate_from, entries)
    }

    /// Some entries that follow on this index.
    pub(crate) fn random_entries(
        &self,
        random: &mut Random,
        last: LogIndex,
        term: Term,
    ) -> Vec<Entry> {
        let count = random.below(5);
        (last.0 + 1..=last.0 + count).map(|index| random_entry(random, index, term)).collect()
    }
}

pub(crate) fn command(index: u64, term: u64, bytes: usize) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        timestamp: Timestamp(1000 + index),
        payload: Payload::Command(vec![index as u8; bytes].into()),
    }
}

fn random_entry(random: &mut Random, index: u64, term: Term) -> Entry {
    let payload = match random.below(8) {
        0 => Payload::Noop,
        1 => Payload::Membership(members(&[1, 2, 3 + random.below(4)])),
        // Whole sectors of zeros: what a torn write looks like, if one does not take care.
        2 => Payload::Command(vec![0; random.below(3000) as usize].into()),
        _ => {
            let bytes = random.below(900);
            Payload::Command((0..bytes).map(|_| random.next() as u8).collect())
        }
    };
    Entry { index: LogIndex(index), term, timestamp: Timestamp(index * 3), payload }
}

/// Says the same as [`Restored`], as far as it is not fixed.
pub(crate) fn twin_of(restored: &Restored) -> Twin {
    assert_eq!(restored.base, raft_core::LogBase::initial(members(&[1, 2, 3])));
    Twin { hard_state: restored.hard_state, entries: restored.entries.clone() }
}
