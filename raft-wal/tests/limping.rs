//! Lives of a node whose disk rots now and then: what it may have promised is never forgotten, neither
//! over restarts and power cuts nor over repairs, snapshots and compactions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use bytes::Bytes;
use raft_core::{
    Entry, HardState, Incarnation, Incoming, LogBase, LogIndex, LogPosition, Payload, Restored,
    Snapshot, Write,
};
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{Log, OpenedLog, Repair, WalError};
use support::{Random, Twin, open};
use xxhash_rust::xxh3::xxh3_128;

/// A node as others know it.
struct Node {
    /// What it remembers, and has acknowledged.
    hard_state: HardState,
    base: LogBase,
    entries: Vec<Entry>,
    snapshot: Option<Snapshot>,
    incarnation: Incarnation,
    /// As new as this its log has been, as far as others may rely on it.
    floor: LogPosition,
    /// A write that was not acknowledged.
    unsure: Option<(HardState, Vec<Entry>)>,
}

/// What happened, so that it did happen.
#[derive(Clone, Copy, Default, Debug)]
struct Counts {
    limping: u64,
    refused: u64,
    rewritten: u64,
    installed: u64,
    opened: u64,
}

impl Node {
    fn of(restored: &Restored) -> Self {
        let Restored { hard_state, base, entries, snapshot, incarnation, .. } = restored.clone();
        let floor = LogPosition::ZERO;
        Self { hard_state, base, entries, snapshot, incarnation, floor, unsure: None }
    }

    fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.base.position, Entry::position)
    }

    /// Once it is as new as before the loss, the log speaks for itself: what is cut off later was never
    /// committed.
    fn note_recovery(&mut self) {
        if self.last() >= self.floor {
            self.floor = LogPosition::ZERO;
        }
    }

    fn snapshot_index(&self) -> LogIndex {
        self.snapshot.as_ref().map_or(LogIndex(0), Snapshot::index)
    }

    fn base_at(&self, index: LogIndex) -> LogBase {
        let mut base = self.base.clone();
        for entry in self.entries.iter().take_while(|entry| entry.index <= index) {
            (base.position, base.timestamp) = (entry.position(), entry.timestamp);
            if let Payload::Membership(membership) = &entry.payload {
                (base.membership, base.membership_index) = (membership.clone(), entry.index);
            }
        }
        base
    }

    /// What a start remembers is what was promised, or it says how far that may have gone.
    fn check(&mut self, restored: &Restored, context: &str) {
        let last = restored.entries.last().map_or(restored.base.position, Entry::position);
        let unsure = self.unsure.take();
        let vote = restored.hard_state;
        let votes = [Some(self.hard_state), unsure.as_ref().map(|(vote, _)| *vote)];
        assert!(votes.contains(&Some(vote)), "{context}: {vote:?} of {votes:?}");
        assert!(restored.incarnation >= self.incarnation, "{context}: the incarnation");
        // It may remember more of what was compacted.
        let from = self.base.position.index.max(restored.base.position.index);
        let above = |entry: &&Entry| entry.index > from;
        let known = |entries: &[Entry]| {
            let [then, now] = [entries, &restored.entries].map(|it| it.iter().filter(above));
            then.eq(now)
        };
        let is_same = known(&self.entries) || unsure.as_ref().is_some_and(|(_, it)| known(it));
        // A write that was not acknowledged may have cut something off.
        let later = unsure.as_ref().and_then(|(_, it)| it.last()).map(Entry::position);
        let last_promised = unsure
            .as_ref()
            .map_or(self.last(), |_| self.last().min(later.unwrap_or(self.base.position)));
        let floor = self.floor.max(last_promised);
        assert!(
            last.max(restored.lost) >= floor,
            "{context}: {last} and lost {} of {floor}",
            restored.lost
        );
        if restored.incarnation == self.incarnation {
            let instead = restored.entries.is_empty() && restored.snapshot != self.snapshot;
            assert!(
                is_same || instead,
                "{context}: silently another log, {last} for {}",
                self.last()
            );
        }
        let index = restored.base.position.index;
        let held = restored.snapshot.as_ref().map_or(LogIndex(0), Snapshot::index);
        assert!(index == LogIndex(0) || held >= index, "{context}: base {index} and {held}");
        *self = Self { floor, ..Self::of(restored) };
        self.note_recovery();
    }

    fn act(
        &mut self,
        log: &mut Log,
        random: &mut Random,
        counts: &mut Counts,
    ) -> Result<(), WalError> {
        match random.below(10) {
            0 => self.cut(log, random),
            1 => self.compact(log, random),
            2 if random.one_in(4) => self.install(log, random, counts),
            3 | 4 => self.scrub(log, counts),
            5 => log.mark(),
            _ => self.write(log, random),
        }
    }

    fn write(&mut self, log: &mut Log, random: &mut Random) -> Result<(), WalError> {
        let fixed = self.base.position.index.max(self.snapshot_index()).0;
        let mut twin = Twin { hard_state: self.hard_state, entries: self.entries.clone() };
        let write = twin.random_write_behind(random, self.base.position, fixed);
        twin.apply(&write);
        self.unsure = Some((twin.hard_state, twin.entries.clone()));
        log.append(&[write])?;
        log.sync()?;
        self.unsure = None;
        (self.hard_state, self.entries) = (twin.hard_state, twin.entries);
        self.note_recovery();
        Ok(())
    }

    fn cut(&mut self, log: &Log, random: &mut Random) -> Result<(), WalError> {
        let held = log.snapshots().held().last().map_or(LogIndex(0), Snapshot::index);
        let from = held.max(self.base.position.index).max(self.snapshot_index());
        let Some(new) = self.last().index.0.checked_sub(from.0).filter(|new| *new > 0) else {
            return Ok(());
        };
        let base = self.base_at(LogIndex(from.0 + 1 + random.below(new)));
        let mut writer = log.snapshots().create(base)?;
        writer.write(&[3; 700])?;
        self.snapshot = Some(writer.finish()?);
        Ok(())
    }

    fn compact(&mut self, log: &mut Log, random: &mut Random) -> Result<(), WalError> {
        let from = self.base.position.index.0;
        let Some(more) = self.snapshot_index().0.checked_sub(from) else { return Ok(()) };
        let base = self.base_at(LogIndex(from + random.below(more + 1)));
        self.entries.retain(|entry| entry.index > base.position.index);
        self.base = base.clone();
        log.compact(&base)
    }

    fn install(
        &mut self,
        log: &mut Log,
        random: &mut Random,
        counts: &mut Counts,
    ) -> Result<(), WalError> {
        let term = self.hard_state.term.next();
        let (first, last) =
            (self.base.position.index.max(self.snapshot_index()).0, self.last().index.0);
        let index = LogIndex(first + 1 + random.below(last.saturating_sub(first) + 5));
        let mut base = self.base_at(index.min(LogIndex(last)));
        base.position = LogPosition::new(term, index);
        let content = vec![9; 900];
        let snapshot = Snapshot { base: base.clone(), length: 900, digest: xxh3_128(&content) };
        let store = log.snapshots().clone();
        store.store(Incoming::Begin(snapshot.clone()))?;
        let bytes = Bytes::from(content);
        store.store(Incoming::Chunk { snapshot: snapshot.id(), offset: 0, bytes })?;
        let vote = HardState { term, voted_for: None };
        self.unsure = Some((vote, self.entries.clone()));
        let write = Write::detached_snapshot(Some(vote), snapshot.clone(), Vec::new());
        log.append(&[write])?;
        log.sync()?;
        counts.installed += 1;
        self.unsure = None;
        (self.hard_state, self.base, self.entries) = (vote, base, Vec::new());
        self.snapshot = Some(snapshot);
        self.note_recovery();
        Ok(())
    }

    fn scrub(&mut self, log: &mut Log, counts: &mut Counts) -> Result<(), WalError> {
        for _ in 0..12 {
            let Some(job) = log.next_scrub() else { continue };
            match log.scrubbed(&job.run(|_| true).unwrap())? {
                Repair::Entries { after } if after >= self.base.position.index => {
                    let above = |entry: &&Entry| entry.index > after;
                    let entries: Vec<_> = self.entries.iter().filter(above).cloned().collect();
                    match log.rewrite(&entries) {
                        Err(WalError::Refused { .. }) => {}
                        done => {
                            counts.rewritten += 1;
                            done?;
                        }
                    }
                }
                Repair::Entries { after } => {
                    panic!("{after} is compacted: {:?}", self.base.position)
                }
                Repair::Snapshot | Repair::None => {}
            }
        }
        Ok(())
    }
}

/// Damages a bit or a sector of something that was written.
fn rot(disk: &SimDisk, random: &mut Random) {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("segment-") || name.starts_with("snapshot-"));
    let Some(name) = names.get(random.below(names.len().max(1) as u64) as usize) else { return };
    let bytes = disk.read(name).unwrap();
    let Some(used) = bytes.iter().rposition(|byte| *byte != 0) else { return };
    let at = random.below(used as u64 + 1);
    let damage = if random.one_in(2) {
        Damage::FlipBit { at, bit: 5 }
    } else {
        Damage::Garbage { at: at / 512 * 512, bytes: 512, seed: random.next() }
    };
    disk.damage(name, &damage);
}

/// Some lives of one node on one disk.
fn lives(seed: u64, counts: &mut Counts) {
    let disk = SimDisk::new(seed);
    let mut random = Random(seed);
    let mut node: Option<Node> = None;
    for life in 0..12 {
        let context = format!("seed {seed}, life {life}");
        let rotten = life > 0 && random.one_in(2);
        if rotten {
            rot(&disk, &mut random);
        }
        let OpenedLog { mut log, restored, report, .. } = match open(&disk) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(error.is_safety_refusal(), "{context}: {error}");
                counts.refused += 1;
                return;
            }
        };
        counts.opened += 1;
        counts.limping += u64::from(report.limping);
        match &mut node {
            Some(node) => node.check(&restored, &context),
            None => node = Some(Node::of(&restored)),
        }
        let node = node.as_mut().unwrap();
        if random.one_in(3) {
            disk.inject(Fault::PowerCut, 20 + random.below(100));
        }
        for _ in 0..random.below(40) {
            if random.one_in(60) {
                rot(&disk, &mut random);
            }
            match node.act(&mut log, &mut random, counts) {
                Ok(()) => {}
                Err(WalError::Refused { reason }) => panic!("{context}: {reason}"),
                Err(_) => break,
            }
        }
        if random.one_in(2) { disk.crash() } else { disk.restart() }
    }
}

/// How many nodes live: `LIVES=n`, from `FIRST_SEED=n` on.
#[test]
fn what_a_node_may_have_promised_is_never_forgotten() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("FIRST_SEED").unwrap_or(0);
    let nodes = number("LIVES").unwrap_or(200);
    let mut counts = Counts::default();
    (first..first + nodes).for_each(|seed| lives(seed, &mut counts));
    let Counts { limping, refused, rewritten, installed, opened } = counts;
    assert!(limping > nodes / 2 && rewritten > nodes / 2 && installed > nodes, "{counts:?}");
    assert!(refused < opened / 50, "the vote is seldom gone: {counts:?}");
}
