//! What a storage would remember after a crash, the obvious way.

use raft_core::{
    Entry, HardState, Incarnation, LogBase, LogIndex, LogPosition, Membership, Restored, Snapshot,
    Write,
};

/// A vote, a log, snapshots: all in memory, changed at once.
#[derive(Clone, Debug)]
pub struct Durable {
    /// The vote record.
    pub hard_state: HardState,
    /// Which disk it is.
    pub incarnation: Incarnation,
    /// What the log stands on.
    pub base: LogBase,
    /// The log behind its base.
    pub entries: Vec<Entry>,
    /// What this disk once had and lost.
    pub lost: LogPosition,
    /// Complete snapshots, the newest last; two are kept.
    pub snapshots: Vec<Snapshot>,
}

impl Durable {
    /// Of a node that was told of these members, and has never run.
    pub fn empty(membership: Membership) -> Self {
        Self::of(&Restored::empty(membership))
    }

    /// Of a node that was started with this.
    pub fn of(restored: &Restored) -> Self {
        let Restored { hard_state, incarnation, base, entries, snapshot, lost } = restored;
        Self {
            hard_state: *hard_state,
            incarnation: *incarnation,
            base: base.clone(),
            entries: entries.clone(),
            lost: *lost,
            snapshots: snapshot.iter().cloned().collect(),
        }
    }

    /// What a node finds at its start.
    pub fn restored(&self) -> Restored {
        Restored {
            hard_state: self.hard_state,
            incarnation: self.incarnation,
            base: self.base.clone(),
            entries: self.entries.clone(),
            snapshot: self.snapshots.last().cloned(),
            lost: self.lost,
        }
    }

    /// A write is durable: the vote, the snapshot, the truncation, the entries.
    pub fn write(&mut self, write: &Write) {
        self.vote(write.hard_state());
        if let Some(snapshot) = write.snapshot() {
            self.install(snapshot);
        }
        self.append(write.truncate_from(), write.entries());
    }

    /// A vote is durable, if there is one.
    pub fn vote(&mut self, hard_state: Option<HardState>) {
        self.hard_state = hard_state.unwrap_or(self.hard_state);
    }

    /// Before a snapshot is installed: the vote that goes with it, and what it contradicts goes.
    pub fn make_way(&mut self, vote: Option<HardState>, index: LogIndex) {
        self.vote(vote);
        self.append(Some(index), &[]);
    }

    /// A snapshot that came from another node takes the place of the log.
    pub fn install(&mut self, snapshot: &Snapshot) {
        if self.snapshots.last() != Some(snapshot) {
            self.keep(snapshot.clone());
        }
        self.drop_log_without_snapshot();
    }

    /// What is from here on is cut off, and this comes behind.
    pub fn append(&mut self, truncate_from: Option<LogIndex>, entries: &[Entry]) {
        if let Some(from) = truncate_from {
            self.entries.truncate(self.entries.partition_point(|entry| entry.index < from));
        }
        // What was compacted meanwhile does not come back.
        let base = self.base.position.index;
        self.entries.extend(entries.iter().filter(|entry| entry.index > base).cloned());
    }

    /// A snapshot is durable; the two newest stay.
    pub fn keep(&mut self, snapshot: Snapshot) {
        self.snapshots.retain(|held| held.base.position != snapshot.base.position);
        self.snapshots.push(snapshot);
        if self.snapshots.len() > 2 {
            self.snapshots.remove(0);
        }
    }

    /// The rule for the storage after a crash: a log that does not contain the position of the snapshot
    /// is no use.
    pub fn drop_log_without_snapshot(&mut self) {
        let Some(snapshot) = self.snapshots.last() else { return };
        if !self.contains(snapshot.base.position) {
            self.base = snapshot.base.clone();
            self.entries.clear();
        }
    }

    /// Entries up to the base are not needed any more.
    pub fn compact(&mut self, base: LogBase) {
        if base.position.index > self.base.position.index {
            self.entries.retain(|entry| entry.index > base.position.index);
            self.base = base;
        }
    }

    /// Where the log ends.
    pub fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base.position, Entry::position)
    }

    /// Is this entry in the log, or what it stands on?
    pub fn contains(&self, position: LogPosition) -> bool {
        let base = self.base.position;
        let Some(above) = position.index.0.checked_sub(base.index.0) else { return false };
        let Some(slot) = above.checked_sub(1) else { return position == base };
        let entry = usize::try_from(slot).ok().and_then(|slot| self.entries.get(slot));
        entry.is_some_and(|entry| entry.position() == position)
    }

    /// Is this committed entry, and so all before it, there, as an entry or in a snapshot?
    pub fn holds(&self, position: LogPosition) -> bool {
        position.index <= self.base.position.index
            || self.contains(position)
            || self.snapshots.last().is_some_and(|it| it.index() >= position.index)
    }
}
