//! What a start found, against what it had to find.

use raft_core::{LogBase, LogIndex, LogPosition, Restored, Snapshot};
use raft_wal::{OpenError, RecoveryReport};

use super::{Store, Unsure};
use crate::storage::durable::Durable;

impl Store {
    /// A start may fail because the disk does, and be refused because something was damaged that it needs; a
    /// power cut is no reason.
    pub(super) fn check_refusal(&self, error: &OpenError) {
        assert!(self.suspect || !error.is_safety_refusal(), "refused without damage: {error}");
    }

    /// All that was acknowledged is there, and nothing else, except that what was under way when the last
    /// life ended may be there as well. After damage that may do harm the node must know what it lost.
    pub(super) fn compare(
        &mut self,
        restored: &Restored,
        held: &[Snapshot],
        report: &RecoveryReport,
    ) {
        let possible: Vec<Durable> = self.possible_states();
        let agrees = |state: &&Durable| {
            let exact = remembers_all(state, restored);
            exact || self.suspect && knows_what_it_lost(state, restored)
        };
        let Some(state) = possible.iter().find(agrees) else {
            let sketches: Vec<String> = possible.iter().map(sketch).collect();
            panic!(
                "recovered {}, {report:?}; possible, with suspect={}: {sketches:#?}",
                sketch(&Durable::of(restored)),
                self.suspect
            );
        };
        if !self.suspect {
            assert!(!report.limping && report.damage.is_none(), "nothing was damaged: {report:?}");
            let known = self.may_resurface || self.harmless.snapshot;
            assert!(known || report.snapshots_damaged == 0, "no snapshot was damaged: {report:?}");
        }
        self.check_snapshot(state, restored);
        // A damaged one was put aside: from here on nobody has it.
        let certain = state.snapshots.iter().filter(|it| held.contains(it));
        let snapshots = certain.cloned().collect();
        let before =
            std::mem::replace(&mut self.durable, Durable { snapshots, ..Durable::of(restored) });
        self.made.extend(restored.snapshot.clone());
        (self.unsure, self.suspect, self.unreadable, self.tail_rotten) =
            (None, false, false, false);
        self.forget_harmless(before.snapshots.last());
        // All that it has put aside is so for good.
        self.may_resurface &= !self.settled;
    }

    /// What was acknowledged last, and what may have come of that which was under way.
    fn possible_states(&self) -> Vec<Durable> {
        let mut states = vec![self.durable.clone()];
        let mut and = |change: &dyn Fn(&mut Durable)| {
            let mut state = states.last().cloned().expect("there is one");
            change(&mut state);
            states.push(state);
        };
        match &self.unsure {
            None => {}
            Some(Unsure::BeforeSnapshot(vote, index)) => {
                and(&|state| state.make_way(*vote, *index));
            }
            Some(Unsure::Compaction(base)) => and(&|state| state.compact(base.clone())),
            Some(Unsure::Writes(batch)) => {
                let first = &batch[0];
                if let Some(snapshot) = first.snapshot() {
                    and(&|state| state.make_way(first.hard_state(), snapshot.index()));
                    and(&|state| state.install(snapshot));
                    // The same again, and all that follows on it.
                    and(&|state| state.append(first.truncate_from(), first.entries()));
                    let state = states.last_mut().expect("there are some");
                    batch[1..].iter().for_each(|write| state.write(write));
                } else {
                    and(&|state| batch.iter().for_each(|write| state.write(write)));
                }
            }
        }
        states
    }

    /// The newest snapshot is one that was made, and none is older than the last that was acknowledged.
    fn check_snapshot(&self, state: &Durable, restored: &Restored) {
        let newest = state.snapshots.last().map_or(LogIndex(0), Snapshot::index);
        let found = restored.snapshot.as_ref().map_or(LogIndex(0), Snapshot::index);
        assert!(self.suspect || found >= newest, "snapshot {newest} is lost, {found} is there");
        let Some(snapshot) = &restored.snapshot else { return };
        let is_it =
            |(base, length): &(LogBase, u64)| snapshot.base == *base && snapshot.length == *length;
        let known = self.made.contains(snapshot) || self.half_made.iter().any(is_it);
        assert!(known, "nobody made this snapshot: {snapshot:?}");
    }
}

/// Is it the vote and the whole log, perhaps with entries that were not needed any more?
fn remembers_all(state: &Durable, restored: &Restored) -> bool {
    let base = &restored.base;
    // What was compacted once is so as long as there is a snapshot for it.
    let behind_snapshot =
        restored.snapshot.as_ref().is_some_and(|it| it.index() >= base.position.index);
    let same_base = base.position.index < state.base.position.index
        || *base == state.base
        || behind_snapshot && state.contains(base.position);
    restored.hard_state == state.hard_state
        && restored.incarnation == state.incarnation
        && restored.lost == state.lost
        && same_base
        && last(restored) == state.last()
        && common(state, restored)
}

/// Is the vote there, and all of the log or a note of how far it may have gone? What is left of it may
/// be what it was before something was cut off: the checker compares each entry with what it knows.
fn knows_what_it_lost(state: &Durable, restored: &Restored) -> bool {
    let lost = restored.lost;
    let all = last(restored) == state.last() && common(state, restored);
    restored.hard_state == state.hard_state
        && lost >= state.lost
        && (all || lost >= state.last() && restored.incarnation > state.incarnation)
}

/// Is every entry that is found where the log has one the same?
fn common(state: &Durable, restored: &Restored) -> bool {
    let behind = restored.entries.iter().filter(|it| it.index > state.base.position.index);
    behind.clone().all(|entry| {
        let above = entry.index.0 - state.base.position.index.0;
        usize::try_from(above - 1).ok().and_then(|slot| state.entries.get(slot)) == Some(entry)
    })
}

fn last(restored: &Restored) -> LogPosition {
    restored.entries.last().map_or(restored.base.position, raft_core::Entry::position)
}

fn sketch(state: &Durable) -> String {
    let Durable { hard_state, incarnation, base, entries: _, lost, snapshots } = state;
    let snapshots: Vec<String> = snapshots.iter().map(|it| it.id().to_string()).collect();
    format!(
        "{hard_state:?}, {incarnation:?}, {} to {}, lost {lost}, snapshots {snapshots:?}",
        base.position,
        state.last()
    )
}
