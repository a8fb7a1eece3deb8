//! A node's whole storage, the obvious way: everything that was ever handed to it, and how far it was
//! acknowledged.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use raft_core::{
    Config, Entry, HardState, Incoming, Instant, LogBase, LogIndex, LogPosition, Node, Payload,
    Restored, Snapshot, Term, Write,
};
use raft_wal::{Log, SnapshotStore, WalError};
use xxhash_rust::xxh3::xxh3_128;

use super::{Random, Twin, members, node};

/// What a log must remember, and what the state machine's snapshots hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    /// The vote, and all entries behind `base`: nothing is forgotten here.
    pub(crate) twin: Twin,
    /// What the log stands on since a snapshot took its place; at first the beginning.
    pub(crate) base: LogBase,
    /// Up to here the node does not need it.
    pub(crate) compacted: LogIndex,
}

/// What a run of a node did to its storage, over all lives.
#[derive(Clone)]
pub(crate) struct Model {
    /// The state after each operation that changes it, from the last acknowledged one on.
    states: Vec<State>,
    /// Snapshots that were complete, the newest last.
    pub(crate) snapshots: Vec<Snapshot>,
    /// One that may be complete: the process ended while it was made so.
    unsure: Option<Snapshot>,
    /// Such ones that were there at the next start: a later power cut may still take their names.
    possible: Vec<Snapshot>,
    /// What was once compacted is committed, and never cut off.
    committed: LogIndex,
    /// How often what was done, so that a test can show that all of it was.
    pub(crate) done: BTreeMap<&'static str, u64>,
}

impl Model {
    pub(crate) fn new() -> Self {
        let base = LogBase::initial(members(&[1, 2, 3]));
        let first = State { twin: Twin::default(), base, compacted: LogIndex(0) };
        Self {
            states: vec![first],
            snapshots: Vec::new(),
            unsure: None,
            possible: Vec::new(),
            committed: LogIndex(0),
            done: BTreeMap::new(),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    pub(crate) fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    fn acknowledge(&mut self) {
        self.states.drain(..self.states.len() - 1);
    }

    fn newest_snapshot(&self) -> LogIndex {
        self.snapshots.last().map_or(LogIndex(0), Snapshot::index)
    }

    /// The newest one that the node knows of.
    fn newest_known(&self) -> LogIndex {
        let possible = self.possible.last().map_or(LogIndex(0), Snapshot::index);
        self.newest_snapshot().max(possible)
    }

    /// Does something random to the log, and remembers it.
    pub(crate) fn act(&mut self, log: &mut Log, random: &mut Random) -> Result<(), WalError> {
        match random.below(12) {
            0 => self.cut(log, random),
            1 => self.compact(log, random),
            2 if random.one_in(3) => self.install(log, random),
            3 => {
                let was_marked = log.is_marked();
                log.mark()?;
                if !was_marked {
                    self.count("mark");
                }
                Ok(())
            }
            4 if random.one_in(3) => self.rewrite(log),
            5 => {
                match log.spare_wanted().map(raft_wal::SpareJob::run) {
                    Some(Ok(spare)) => {
                        log.offer_spare(spare);
                        self.count("spare");
                    }
                    Some(Err(_)) => log.spare_failed(),
                    None => {}
                }
                Ok(())
            }
            6 => self.scrub(log),
            _ => self.write(log, random),
        }
    }

    fn write(&mut self, log: &mut Log, random: &mut Random) -> Result<(), WalError> {
        let writes: Vec<Write> = (0..1 + random.below(3))
            .map(|_| {
                let mut state = self.now().clone();
                let first = self.committed.max(self.newest_known()).0;
                let write = state.twin.random_write_behind(random, state.base.position, first);
                state.twin.apply(&write);
                self.states.push(state);
                write
            })
            .collect();
        log.append(&writes)?;
        log.sync()?;
        for write in &writes {
            let kinds = [
                ("vote", write.hard_state().is_some()),
                ("truncate", write.truncate_from().is_some()),
                ("append", !write.entries().is_empty()),
            ];
            kinds.iter().filter(|(_, there)| *there).for_each(|(kind, _)| self.count(kind));
        }
        self.acknowledge();
        Ok(())
    }

    /// The state machine's own snapshot, of something that was applied.
    fn cut(&mut self, log: &Log, random: &mut Random) -> Result<(), WalError> {
        let (newest, state) = (self.newest_known().0, self.now());
        let new = state.last().index.0.saturating_sub(newest);
        if new == 0 {
            return Ok(());
        }
        let base = state.base_at(LogIndex(newest + 1 + random.below(new)));
        let content = content(&base);
        let snapshot = snapshot(base.clone(), &content);
        self.unsure = Some(snapshot.clone());
        let mut writer = log.snapshots().create(base)?;
        for piece in content.chunks(30_000) {
            writer.write(piece)?;
        }
        assert_eq!(writer.finish()?, snapshot);
        self.count("cut");
        self.snapshots.extend(self.unsure.take());
        Ok(())
    }

    fn compact(&mut self, log: &mut Log, random: &mut Random) -> Result<(), WalError> {
        let mut state = self.now().clone();
        let from = state.compacted.max(state.base.position.index).0;
        let Some(more) = self.newest_known().0.checked_sub(from) else { return Ok(()) };
        let base = state.base_at(LogIndex(from + random.below(more + 1)));
        state.compacted = base.position.index;
        self.committed = self.committed.max(state.compacted);
        self.states.push(state);
        log.compact(&base)?;
        self.count("compact");
        self.acknowledge();
        Ok(())
    }

    /// A leader's snapshot, which takes the place of the log.
    fn install(&mut self, log: &mut Log, random: &mut Random) -> Result<(), WalError> {
        let state = self.now().clone();
        let term = state.twin.hard_state.term.next();
        // In place of entries that were not committed, of which there may be more than it holds.
        let (first, last) = (self.committed.max(self.newest_known()).0, state.last().index.0);
        let index = first + 1 + random.below(last.saturating_sub(first) + 9);
        let mut base = state.base_at(LogIndex(index.min(last)));
        base.position = LogPosition::new(term, LogIndex(index));
        let content = content(&base);
        let snapshot = snapshot(base.clone(), &content);
        let store = log.snapshots().clone();
        store.store(Incoming::Begin(snapshot.clone()))?;
        let mut held = 0;
        for piece in content.chunks(70_000) {
            let bytes = Bytes::copy_from_slice(piece);
            let chunk = Incoming::Chunk { snapshot: snapshot.id(), offset: held, bytes };
            held = store.store(chunk)?.unwrap().1;
        }
        assert_eq!(held, snapshot.length);
        let vote = HardState { term, voted_for: None };
        let mut twin = Twin { hard_state: vote, entries: Vec::new() };
        let entries = twin.random_entries(random, base.position.index, term);
        let write = Write::detached_snapshot(Some(vote), snapshot.clone(), entries);
        twin.entries = write.entries().to_vec();
        let mut voted = state;
        voted.twin.hard_state = vote;
        self.states.push(voted);
        self.committed = base.position.index;
        self.unsure = Some(snapshot);
        self.states.push(State { compacted: base.position.index, base, twin });
        log.append(&[write])?;
        log.sync()?;
        self.count("install");
        self.snapshots.extend(self.unsure.take());
        self.acknowledge();
        Ok(())
    }

    /// As after damage to the oldest segment.
    fn rewrite(&mut self, log: &mut Log) -> Result<(), WalError> {
        let state = self.now();
        if state.compacted < self.committed {
            return Ok(()); // Whether the log knows of the compaction cannot be seen.
        }
        let above = |entry: &&Entry| entry.index > state.compacted;
        log.rewrite(&state.twin.entries.iter().filter(above).cloned().collect::<Vec<_>>())?;
        self.count("rewrite");
        Ok(())
    }

    /// Nothing is damaged.
    fn scrub(&mut self, log: &mut Log) -> Result<(), WalError> {
        if let Some(scrubbed) = log.next_scrub().and_then(|job| job.run(|_| true)) {
            match scrubbed.damage() {
                // The disk failed before, where it did not matter.
                Some(damage) if damage.what.contains("is off") => return Err(WalError::Poisoned),
                damage => assert_eq!(damage, None),
            }
            assert_eq!(log.scrubbed(&scrubbed)?, raft_wal::Repair::None);
            self.count("scrub");
        }
        Ok(())
    }

    /// What was recovered is one of the states from the last acknowledged one on, with a whole snapshot
    /// where the log does not begin at its beginning, and no older one than was complete. From here on
    /// it is as good as acknowledged: the node has told others what it remembers.
    pub(crate) fn check(&mut self, restored: &Restored, store: &SnapshotStore, context: &str) {
        let node = Node::new(Config::new(node(1), 1), restored.clone(), Instant::default());
        assert!(node.is_ok(), "{context}: {:?}", node.err());
        let newest = self.newest_snapshot();
        let found = restored.snapshot.clone();
        if let Some(snapshot) = &found {
            let unsure = self.unsure.as_ref() == Some(snapshot);
            let known = unsure || self.possible.contains(snapshot);
            assert!(known || self.snapshots.contains(snapshot), "{context}: {snapshot:?}");
            let mut read = Vec::new();
            let mut reader = store.open(snapshot.id()).unwrap().unwrap();
            reader.read_to_end(&mut read).unwrap();
            assert!(read == content(&snapshot.base), "{context}: the content of {snapshot:?}");
        }
        self.possible.retain(|possible| found.as_ref() == Some(possible));
        let held = found.as_ref().map_or(LogIndex(0), Snapshot::index);
        assert!(held >= newest, "{context}: the snapshot of {newest} is lost, {held} is there");
        assert!(restored.base.position.index <= held, "{context}: {:?}", restored.base);
        let known = self.states.iter().rposition(|state| state.is_remembered_by(restored));
        let known = known.or_else(|| {
            // Installed, but the log does not say so yet: the snapshot alone counts.
            let snapshot = found.as_ref().filter(|it| self.unsure.as_ref() == Some(it))?;
            let discarded = restored.entries.is_empty() && restored.base == snapshot.base;
            let vote = |state: &State| state.twin.hard_state == restored.hard_state;
            let state = self.states.iter().rposition(|state| discarded && vote(state))?;
            let twin = Twin { hard_state: restored.hard_state, entries: Vec::new() };
            let (base, compacted) = (snapshot.base.clone(), snapshot.index());
            self.committed = compacted;
            // The log relies on it from now on.
            self.snapshots.push(snapshot.clone());
            self.states.insert(state + 1, State { twin, base, compacted });
            Some(state + 1)
        });
        let Some(known) = known else {
            panic!(
                "{context}: recovered base {:?}, last {:?}, {:?}; acknowledged {:#?}, submitted {:#?}",
                restored.base.position,
                restored.entries.last().map(Entry::position),
                restored.hard_state,
                self.states.first().map(State::sketch),
                self.states.last().map(State::sketch),
            );
        };
        let mut state = self.states.swap_remove(known);
        // Whether a compaction was written down shows only here.
        state.compacted = restored.base.position.index;
        self.states = vec![state];
        let unsure = self.unsure.take();
        self.possible.extend(unsure.filter(|unsure| found.as_ref() == Some(unsure)));
    }
}

impl State {
    fn sketch(&self) -> impl std::fmt::Debug {
        (self.base.position, self.last(), self.twin.hard_state, self.compacted)
    }

    fn last(&self) -> LogPosition {
        self.twin.entries.last().map_or(self.base.position, Entry::position)
    }

    fn base_at(&self, index: LogIndex) -> LogBase {
        let mut base = self.base.clone();
        for entry in self.twin.entries.iter().take_while(|entry| entry.index <= index) {
            (base.position, base.timestamp) = (entry.position(), entry.timestamp);
            if let Payload::Membership(membership) = &entry.payload {
                (base.membership, base.membership_index) = (membership.clone(), entry.index);
            }
        }
        assert_eq!(base.position.index, index);
        base
    }

    fn is_remembered_by(&self, restored: &Restored) -> bool {
        let Restored { hard_state, base, entries, incarnation, lost, .. } = restored;
        let index = base.position.index;
        let known = index >= self.base.position.index && index <= self.last().index;
        known
            && *hard_state == self.twin.hard_state
            && *base == self.base_at(index)
            && self.twin.entries.iter().filter(|entry| entry.index > index).eq(entries)
            && (incarnation.0, *lost) == (0, LogPosition::ZERO)
    }
}

/// What a state machine would write: something that follows from the position, of any length.
fn content(base: &LogBase) -> Vec<u8> {
    let LogPosition { term: Term(term), index: LogIndex(index) } = base.position;
    let mut random = Random(term << 32 | index);
    let length = random.below(4) * random.below(50_000);
    (0..length).map(|n| (n % 251) as u8 ^ term as u8 ^ index as u8).collect()
}

fn snapshot(base: LogBase, content: &[u8]) -> Snapshot {
    Snapshot { base, length: content.len() as u64, digest: xxh3_128(content) }
}
