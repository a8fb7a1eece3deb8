//! The shipping log over a simulated disk, driven as `raft_wal::Wal` and a node's driver do it, but one
//! step at a time: nothing happens on the disk except when the simulation says so.
//!
//! Beside it stands a [`Durable`], which is changed when a sync has returned, and which every start is
//! compared with.

mod as_storage;
mod found;
mod harm;
mod meddle;
mod rot;

use std::collections::VecDeque;

use raft_core::{
    Entry, HardState, LogBase, LogIndex, Membership, NodeId, Payload, Receipt, Snapshot,
    SnapshotId, Write,
};
use raft_wal::sim::SimDisk;
use raft_wal::{Log, OpenError, RecoveryReport, Repair, ScrubJob, SpareJob, WalConfig, WalError};

use super::durable::Durable;
use harm::Harmless;

/// A member's log, snapshots and disk.
pub struct Store {
    /// The disk, which can be told to fail.
    pub sim: SimDisk,
    config: WalConfig,
    random: fastrand::Rng,
    /// There while the node runs.
    log: Option<Log>,
    durable: Durable,
    /// Handed over and not begun.
    queue: VecDeque<Job>,
    /// Durable, and the node does not know yet.
    receipts: VecDeque<Receipt>,
    /// What was under way when the last life ended: it is on the disk, or it is not.
    unsure: Option<Unsure>,
    /// All snapshots that were ever complete here, or were about to be: an older copy of the file may come back.
    made: Vec<Snapshot>,
    /// Base and length of those whose cut failed: their files may have been complete.
    half_made: Vec<(LogBase, u64)>,
    /// Something was damaged, and no start has looked at all of it since.
    suspect: bool,
    /// Damage that the next start must not suffer from.
    harmless: Harmless,
    /// The newest snapshot may lose its name when the power fails: a sync has failed behind it.
    newest_unsure: bool,
    /// A start has failed that may have put a damaged snapshot aside. After a failed sync that may never be
    /// durable: until a power failure has shown what is, and a start has looked at that, the damaged one
    /// may come back.
    may_resurface: bool,
    /// The power failed when the last life ended: what the next start sees is what is durable.
    settled: bool,
    /// Some of it cannot be read.
    unreadable: bool,
    /// The end of the log was damaged in a way that may look as if it had never been written.
    tail_rotten: bool,
    /// When the last life ended, a mark stood behind the end of the log.
    ended_marked: bool,
    /// Files as they were when some life ended.
    copies: Vec<(String, Vec<u8>)>,
    spare: Option<SpareJob>,
    scrub: Option<ScrubJob>,
    /// Power cuts in the middle of an operation, in the lives before.
    cuts_seen: u64,
    /// The number of the newest segment when somebody last looked.
    newest_segment: u64,
    /// How many starts have found all that is on it.
    starts: u64,
    /// What the last start found.
    pub found: RecoveryReport,
    /// What happened to it.
    pub tally: Tally,
}

/// What happened to a store, besides what its disk counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Batches made durable.
    pub batches: u64,
    /// Segments begun.
    pub rolls: u64,
    /// Segments dropped behind a snapshot.
    pub segments_dropped: u64,
    /// Damage that a start must not suffer from.
    pub harmless: u64,
    /// Files read again.
    pub scrubs: u64,
    /// Scrubs that found damage.
    pub damage_scrubbed: u64,
    /// Damaged segments written again.
    pub rewritten: u64,
    /// Orders to write a segment again that had been overtaken.
    pub rewrites_refused: u64,
    /// Marks left behind the end of an idle log.
    pub marks: u64,
}

/// Something to do, in the order in which it was handed over.
enum Job {
    Write(Write),
    Compact(LogBase),
    Rewrite(Vec<Entry>),
}

/// Something that was begun and may be on the disk or not.
enum Unsure {
    Writes(Vec<Write>),
    /// What goes before a snapshot, whose write waits for room: the vote, and that the log ends before
    /// this index.
    BeforeSnapshot(Option<HardState>, LogIndex),
    Compaction(LogBase),
}

/// How far the log got with what it was given.
pub enum Progress {
    /// Some of it is durable.
    Done,
    /// All of it has to wait for room on the disk.
    NoSpace,
}

impl Store {
    /// The store of a node that was told of these members, on an empty disk.
    pub fn empty(id: NodeId, seed: u64, membership: Membership, segment_bytes: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut config = WalConfig::new("simulated", "simulation", id, membership.clone());
        config.segment_bytes = segment_bytes;
        config.batch_bytes = [1, 2_000, 1 << 20][random.usize(..3)];
        Self {
            sim: SimDisk::new(seed),
            config,
            random,
            log: None,
            durable: Durable::empty(membership),
            queue: VecDeque::new(),
            receipts: VecDeque::new(),
            unsure: None,
            made: Vec::new(),
            half_made: Vec::new(),
            suspect: false,
            harmless: Harmless::default(),
            newest_unsure: false,
            may_resurface: false,
            settled: true,
            unreadable: false,
            tail_rotten: false,
            ended_marked: false,
            copies: Vec::new(),
            spare: None,
            scrub: None,
            cuts_seen: 0,
            newest_segment: 0,
            starts: 0,
            found: RecoveryReport::default(),
            tally: Tally::default(),
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("a node that runs has its log open")
    }

    /// How many orders wait for the disk.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Is a snapshot next that takes the place of the log?
    pub fn installs_next(&self) -> bool {
        matches!(self.queue.front(), Some(Job::Write(write)) if write.snapshot().is_some())
    }

    /// Has something been damaged that may be needed, and that no start has looked at since?
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Has anything been damaged that no start has looked at since?
    pub fn is_damaged(&self) -> bool {
        self.suspect || self.harmless.unseen
    }

    /// Does this error say that it cannot read what cannot be read? Then no start will.
    pub fn fails_for_good(&self, error: &OpenError) -> bool {
        self.unreadable && matches!(error, OpenError::Io { doing: "read", .. })
    }

    /// How many operations the disk has failed because somebody made it fail, or full.
    pub fn faults_met(&self) -> u64 {
        let stats = self.sim.stats();
        stats.read_errors
            + stats.write_errors
            + stats.sync_errors
            + stats.name_errors
            + stats.operations_cut
            + stats.space_refusals
    }

    /// Is this snapshot there, as far as the store knows?
    pub fn holds_snapshot(&self, id: SnapshotId) -> bool {
        let held = self.log.as_ref().map(|log| log.snapshots().held());
        held.is_some_and(|held| held.iter().any(|snapshot| snapshot.id() == id))
    }

    /// Receipts for what became durable, in order.
    pub fn take_receipts(&mut self) -> impl Iterator<Item = Receipt> + use<> {
        std::mem::take(&mut self.receipts).into_iter()
    }

    /// Does the next thing: up to `writes_max` writes as one batch with one sync, or one other order.
    pub fn work(&mut self, writes_max: usize) -> Result<Progress, WalError> {
        let progress = match self.queue.pop_front() {
            None => Ok(Progress::Done),
            Some(Job::Write(first)) => {
                let batch = self.batch(first, writes_max);
                self.write_when_there_is_room(batch)
            }
            Some(Job::Compact(base)) => self.forget_up_to(base),
            Some(Job::Rewrite(entries)) => self.write_again(&entries),
        };
        self.prepare_spare();
        self.unless_cut_off(progress)
    }

    /// Writes that are queued together share a sync. A snapshot begins a batch.
    fn batch(&mut self, first: Write, writes_max: usize) -> Vec<Write> {
        let mut batch = vec![first];
        while batch.len() < writes_max {
            match self.queue.pop_front() {
                Some(Job::Write(write)) if write.snapshot().is_none() => batch.push(write),
                other => {
                    other.into_iter().for_each(|job| self.queue.push_front(job));
                    break;
                }
            }
        }
        batch
    }

    /// On a full disk the writes wait; those before the first that needs room go ahead.
    fn write_when_there_is_room(&mut self, batch: Vec<Write>) -> Result<Progress, WalError> {
        let Some(mut batch) = self.write(batch)? else { return Ok(Progress::Done) };
        let modest = batch.iter().position(is_bulk).unwrap_or_default();
        let rest = batch.split_off(modest);
        rest.into_iter().rev().for_each(|write| self.queue.push_front(Job::Write(write)));
        if batch.is_empty() {
            return Ok(Progress::NoSpace);
        }
        match self.write(batch)? {
            None => Ok(Progress::Done),
            Some(batch) => {
                batch.into_iter().rev().for_each(|it| self.queue.push_front(Job::Write(it)));
                Ok(Progress::NoSpace)
            }
        }
    }

    /// Makes a batch durable; gives it back if there is no room for it.
    fn write(&mut self, batch: Vec<Write>) -> Result<Option<Vec<Write>>, WalError> {
        let replaces_log = batch[0].snapshot().is_some();
        let segments = if replaces_log { self.segments() } else { 0 };
        let log = self.log();
        match log.append(&batch).and_then(|()| log.sync()) {
            Ok(()) => {
                self.unsure = None;
                self.tally.batches += 1;
                for write in batch {
                    self.newest_unsure &= write.snapshot().is_none();
                    self.made.extend(write.snapshot().cloned());
                    self.durable.write(&write);
                    self.receipts.push_back(write.into_receipt());
                }
                if replaces_log {
                    self.note_dropped(segments);
                }
                Ok(None)
            }
            Err(error) if error.is_no_space() => {
                if let Some(snapshot) = batch[0].snapshot() {
                    let vote = batch[0].hard_state();
                    self.unsure = Some(Unsure::BeforeSnapshot(vote, snapshot.index()));
                }
                Ok(Some(batch))
            }
            Err(error) => {
                self.made.extend(batch[0].snapshot().cloned());
                self.unsure = Some(Unsure::Writes(batch));
                Err(error)
            }
        }
    }

    fn forget_up_to(&mut self, base: LogBase) -> Result<Progress, WalError> {
        let segments = self.segments();
        match self.log().compact(&base) {
            Ok(()) => {
                self.durable.compact(base);
                self.note_dropped(segments);
                Ok(Progress::Done)
            }
            Err(error) => {
                self.unsure = Some(Unsure::Compaction(base));
                Err(error)
            }
        }
    }

    /// If it cannot be done, because there is no room or the log has changed meanwhile, the next scrub
    /// finds the damage again.
    fn write_again(&mut self, entries: &[Entry]) -> Result<Progress, WalError> {
        match self.log().rewrite(entries) {
            Ok(()) => self.tally.rewritten += 1,
            Err(WalError::Refused { .. }) => self.tally.rewrites_refused += 1,
            Err(error) if error.is_no_space() => {}
            Err(error) => return Err(error),
        }
        Ok(Progress::Done)
    }

    /// Beside the log: the segment that it will need next.
    fn prepare_spare(&mut self) {
        let Some(log) = &mut self.log else { return };
        match self.spare.take().map(SpareJob::run) {
            Some(Ok(spare)) => log.offer_spare(spare),
            Some(Err(_)) => log.spare_failed(),
            None => self.spare = log.spare_wanted(),
        }
    }

    /// Leaves a mark behind the end of the log, which was idle for a while.
    pub fn mark(&mut self) -> Result<(), WalError> {
        self.tally.marks += 1;
        let marked = self.log().mark();
        self.unless_cut_off(marked)
    }

    /// Takes one step of a scrub: the order, or what came of it.
    pub fn scrub(&mut self) -> Result<Repair, WalError> {
        let Some(job) = self.scrub.take() else {
            self.scrub = self.log().next_scrub();
            return Ok(Repair::None);
        };
        let Some(scrubbed) = job.run(|_| true) else { return Ok(Repair::None) };
        self.tally.scrubs += 1;
        self.tally.damage_scrubbed += u64::from(scrubbed.damage().is_some());
        let repair = self.log().scrubbed(&scrubbed);
        self.unless_cut_off(repair)
    }

    /// A machine without power does nothing more, whatever the last operation said.
    fn unless_cut_off<T>(&mut self, outcome: Result<T, WalError>) -> Result<T, WalError> {
        if self.is_cut_off() { outcome.and(Err(WalError::Poisoned)) } else { outcome }
    }

    /// Has its power failed in this life?
    pub fn is_cut_off(&self) -> bool {
        self.sim.stats().operations_cut > self.cuts_seen
    }

    fn segment_numbers(&self) -> impl Iterator<Item = u64> {
        let number = |name: String| {
            name.strip_prefix("segment-").and_then(|rest| rest.split_once('-')?.1.parse().ok())
        };
        self.sim.names().into_iter().filter_map(number)
    }

    fn segments(&self) -> u64 {
        self.segment_numbers().count() as u64
    }

    fn note_dropped(&mut self, before: u64) {
        self.tally.segments_dropped += before.saturating_sub(self.segments());
    }

    /// Counts the segments that were begun since somebody last looked.
    pub fn note_rolls(&mut self) {
        let newest = self.segment_numbers().max().unwrap_or(0);
        self.tally.rolls += newest.saturating_sub(self.newest_segment);
        self.newest_segment = newest;
    }
}

/// As the log sees it: what leaves the room alone that is kept for votes.
fn is_bulk(write: &Write) -> bool {
    let is_command = |entry: &Entry| matches!(entry.payload, Payload::Command(_));
    write.snapshot().is_some() || write.entries().iter().any(is_command)
}
