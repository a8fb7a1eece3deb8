//! The log on a thread of its own: writes go in without waiting, receipts come back in order.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use raft_core::{Entry, LogBase, Receipt, Restored, Write};

use crate::config::WalConfig;
use crate::disk::Disk;
use crate::error::{DiskError, OpenError, WalError};
use crate::file_disk::FileDisk;
use crate::format::batch::batch_bytes;
use crate::helpers::{Finding, Helpers};
use crate::identity::Identity;
use crate::log::{Log, OpenedLog, Repair};
use crate::meters::Meters;
use crate::recovery::RecoveryReport;
use crate::snapshots::SnapshotStore;

/// What became of the writes, and of the log.
#[derive(Debug)]
pub enum Completion {
    /// The write of this receipt, and every one submitted before it, would survive a power cut now.
    Durable(Receipt),
    /// The log failed. Comes at most once, and nothing comes after it: no write that has not been
    /// acknowledged ever will be.
    Failed(WalError),
    /// Something on disk was found damaged at rest. As long as the process runs nothing is lost: its
    /// memory has what is needed. [`Repair::Entries`]: hand the log behind that index to
    /// [`Wal::rewrite`]. [`Repair::Snapshot`]: cut another snapshot.
    Damaged(Repair),
}

/// Is there room on the disk?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// As far as the log has asked for room, it was there.
    Ample,
    /// There was none for the next segment. What was submitted still finds room, or waits until there
    /// is some; nothing more than votes should be.
    Low,
}

/// A log that was just opened, and what it remembers.
pub struct Opened {
    /// To write to.
    pub wal: Wal,
    /// What the node starts from.
    pub restored: Restored,
    /// Whose log it is.
    pub identity: Identity,
    /// What recovery read and dropped.
    pub report: RecoveryReport,
}

/// Counts since the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Batches that were written and synced: one sync each, the ones of a roll aside.
    pub batches: u64,
    /// Writes in them.
    pub writes: u64,
    /// Entries in them.
    pub entries: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// How long the last batch took to be written and synced.
    pub last_sync: Duration,
    /// How long the slowest one took.
    pub longest_sync: Duration,
    /// How long all of them took.
    pub total_sync: Duration,
    /// Bytes that were read again to see whether they are still what they were.
    pub scrubbed_bytes: u64,
    /// How often that found damage.
    pub damages: u64,
    /// How often a damaged segment was written again.
    pub repairs: u64,
    /// How often the writer had to wait for room on the disk.
    pub waits_for_space: u64,
}

/// A durable log with a writer thread.
///
/// Everything that is queued when the thread looks becomes one batch with one sync: the longer a
/// sync takes, the more writes share the next one. There is no timer. Dropping it does what
/// [`Wal::close`] does and keeps the outcome to itself.
pub struct Wal {
    shared: Arc<Shared>,
    snapshots: SnapshotStore,
    writer: Option<JoinHandle<Result<(), WalError>>>,
}

/// What the two sides share.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// What was submitted and is not durable yet takes at most so many bytes.
    backlog: AtomicU64,
    /// So many bytes find room for certain, the backlog included.
    room: AtomicU64,
    space_low: AtomicBool,
    stats: Mutex<WalStats>,
}

/// What waits for the writer. Bounded by whoever submits, see [`Wal::backlog_bytes`].
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// What the helpers found: at most one of each.
    findings: VecDeque<Finding>,
    /// The writer sleeps until somebody wakes it, which takes a call of the system.
    asleep: bool,
    /// No more jobs will come.
    closed: bool,
    /// No more jobs will be done.
    failed: bool,
}

impl Queue {
    /// Takes out the first compaction, if it can go ahead of everything before it, `waiting` included:
    /// what it forgets is durable already, unless a snapshot takes the place of the log before.
    fn compaction_behind(&mut self, waiting: &[Write]) -> Option<LogBase> {
        if waiting.iter().any(|write| write.snapshot().is_some()) {
            return None;
        }
        let ordinary = |job: &&Job| matches!(job, Job::Write(write) if write.snapshot().is_none());
        let place = self.jobs.iter().take_while(ordinary).count();
        let Some(Job::Compact(base)) = self.jobs.get(place) else { return None };
        let base = base.clone();
        self.jobs.remove(place);
        Some(base)
    }
}

/// Something to do, in the order of the submissions.
enum Job {
    Write(Write),
    Compact(LogBase),
    Rewrite(Vec<Entry>),
}

impl Wal {
    /// Opens the log of `config` and starts its threads. `on_completion` is called on the writer
    /// thread, in the order of the submissions; while it runs nothing is written, so it should only
    /// pass things on.
    ///
    /// # Errors
    /// See [`OpenError`], and [`OpenError::kind`] for how to take it.
    pub fn open(
        config: WalConfig,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> Result<Opened, OpenError> {
        // Before the directory is created.
        config.check()?;
        let disk = FileDisk::open(&config.dir)?;
        Self::open_on(Arc::new(disk), config, on_completion)
    }

    /// As [`Wal::open`], on another disk; `config.dir` then only serves messages.
    ///
    /// # Errors
    /// As [`Wal::open`].
    #[expect(clippy::needless_pass_by_value, reason = "the same shape as `open`")]
    pub fn open_on(
        disk: Arc<dyn Disk>,
        config: WalConfig,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> Result<Opened, OpenError> {
        let OpenedLog { log, restored, identity, report } = Log::open(disk, &config)?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            backlog: AtomicU64::new(0),
            room: AtomicU64::new(log.room_bytes()),
            space_low: AtomicBool::new(false),
            stats: Mutex::default(),
        });
        let failed = || DiskError::of("start", "the threads of the log");
        let snapshots = log.snapshots().clone();
        let helpers = Helpers::start(&shared).map_err(failed())?;
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            timers: Timers::new(&config),
            meters: Meters::new(),
            log,
            helpers,
            batch_bytes: config.batch_bytes,
            batch_records: config.batch_records,
            on_completion,
        };
        let name = format!("wal-{}", config.node);
        let thread = thread::Builder::new().name(name).spawn(move || {
            // A panic is a bug; whoever waits must learn of it all the same.
            let outcome = catch_unwind(AssertUnwindSafe(|| writer.run()));
            let outcome = outcome.unwrap_or_else(|_| {
                writer.fail(WalError::WriterPanicked);
                Err(Failed)
            });
            writer.helpers.stop();
            match outcome {
                Ok(()) => writer.log.close(),
                Err(Failed) => Err(WalError::Poisoned),
            }
        });
        let writer = Some(thread.map_err(failed())?);
        Ok(Opened { wal: Self { shared, snapshots, writer }, restored, identity, report })
    }

    /// Queues a write. Never waits, and keeps the order of the calls. After a failure it does
    /// nothing: the failure was reported.
    pub fn submit(&self, write: Write) {
        let mut queue = self.shared.queue();
        if queue.failed {
            return;
        }
        self.shared.backlog.fetch_add(batch_bytes(Log::write_bytes(&write)), Ordering::AcqRel);
        queue.jobs.push_back(Job::Write(write));
        self.shared.wake_writer(queue);
    }

    /// Tells that the log up to `base`, which is durable, is not needed any more
    /// ([`Output::compacted`]). Segments that nothing needs are removed.
    ///
    /// [`Output::compacted`]: raft_core::Output
    pub fn compact(&self, base: LogBase) {
        self.push(Job::Compact(base));
    }

    /// Hands over all entries of the log behind the index of [`Repair::Entries`], up to the last one
    /// that was submitted, to be written again in place of a damaged segment.
    pub fn rewrite(&self, entries: Vec<Entry>) {
        self.push(Job::Rewrite(entries));
    }

    fn push(&self, job: Job) {
        let mut queue = self.shared.queue();
        if !queue.failed {
            queue.jobs.push_back(job);
        }
        self.shared.wake_writer(queue);
    }

    /// The snapshots beside the log; to be used from any thread but the node's own, because it waits
    /// for the disk.
    #[must_use]
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// Is there room on the disk? While it is [`Space::Low`], commands should be refused at the door.
    /// That alone comes too late for what is on its way: [`Wal::room_bytes`] does not.
    #[must_use]
    pub fn space(&self) -> Space {
        if self.shared.space_low.load(Ordering::Relaxed) { Space::Low } else { Space::Ample }
    }

    /// Bytes that what was submitted and is not durable yet takes on disk at most. The queue takes
    /// everything: whoever submits looks here and stops taking input above a limit of its own.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        self.shared.backlog.load(Ordering::Acquire)
    }

    /// So many bytes, in the measure of [`Wal::bytes_of`], may be submitted and do not have to wait for
    /// room, even if the disk is full by now.
    ///
    /// Receipts count in the order of the writes, so a vote behind commands that wait for room does not
    /// count before these. Whoever submits no more than this at a time, of writes other than votes,
    /// never has a vote wait. It is more again once the next segment is prepared; if that fails for
    /// want of room, [`Wal::space`] says so.
    #[must_use]
    pub fn room_bytes(&self) -> u64 {
        // In this order: meanwhile the writer makes less of the room first, then of the backlog.
        let backlog = self.backlog_bytes();
        self.shared.room.load(Ordering::Acquire).saturating_sub(backlog)
    }

    /// Bytes that one write of these entries takes at most, a vote and a truncation with them. What
    /// takes more than a segment, [`WalConfig::segment_bytes`], never finds enough of
    /// [`Wal::room_bytes`].
    #[must_use]
    pub fn bytes_of(entries: &[Entry]) -> u64 {
        Log::bytes_of(entries)
    }

    /// Counts since the log was opened.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        *lock(&self.shared.stats)
    }

    /// Writes and acknowledges what is queued, then ends the threads and unlocks the directory. All
    /// completions have been delivered when it returns.
    ///
    /// # Errors
    /// If the log failed, now or before.
    pub fn close(mut self) -> Result<(), WalError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), WalError> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let mut queue = self.shared.queue();
        queue.closed = true;
        self.shared.wake_writer(queue);
        writer.join().unwrap_or(Err(WalError::WriterPanicked))
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!(%error, "the log did not close cleanly");
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Tells the writer what a helper found.
    pub(crate) fn found(&self, finding: Finding) {
        let mut queue = self.queue();
        queue.findings.push_back(finding);
        self.wake_writer(queue);
    }

    /// Wakes the writer after a change, if it sleeps.
    fn wake_writer(&self, mut queue: MutexGuard<'_, Queue>) {
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Waits until `ready`, or for this long, or for ever. Only the writer does.
    fn wait(
        &self,
        timeout: Option<Duration>,
        ready: impl Fn(&Queue) -> bool,
    ) -> MutexGuard<'_, Queue> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut queue = self.queue();
        while !ready(&queue) {
            queue.asleep = true;
            queue = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let woken = self.wake.wait_timeout(queue, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        queue.asleep = false;
        queue
    }
}

/// The data behind these locks are whole after every statement, so a panic elsewhere changes
/// nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log failed and the failure was reported.
struct Failed;

/// The thread that owns the log.
struct Writer<F> {
    shared: Arc<Shared>,
    log: Log,
    helpers: Helpers,
    timers: Timers,
    meters: Meters,
    batch_bytes: u64,
    batch_records: usize,
    on_completion: F,
}

/// When the writer has to do something of its own accord.
struct Timers {
    mark_after: Duration,
    scrub_interval: Duration,
    /// The end of the log is to be marked.
    mark: Option<Instant>,
    /// The next file is to be read again.
    scrub: Option<Instant>,
    /// Room is to be asked for again.
    space: Option<Instant>,
}

impl Timers {
    fn new(config: &WalConfig) -> Self {
        let WalConfig { mark_after, scrub_interval, .. } = *config;
        let scrub = (!scrub_interval.is_zero()).then(|| Instant::now() + scrub_interval);
        Self { mark_after, scrub_interval, mark: None, scrub, space: None }
    }

    fn next(&self) -> Option<Instant> {
        [self.mark, self.scrub, self.space].into_iter().flatten().min()
    }
}

/// What the writer does next.
enum Work {
    Writes(Vec<Write>),
    Compact(LogBase),
    Rewrite(Vec<Entry>),
    /// Findings of the helpers, or a timer.
    Chores,
    /// No more will come.
    End,
}

impl<F: FnMut(Completion)> Writer<F> {
    fn run(&mut self) -> Result<(), Failed> {
        loop {
            let done = match self.next_work() {
                Work::Writes(mut batch) => self.write_when_there_is_room(&mut batch),
                Work::Compact(base) => self.log.compact(&base),
                Work::Rewrite(entries) => self.rewrite(&entries),
                Work::Chores => Ok(()),
                Work::End => return Ok(()),
            };
            if let Err(error) = done.and_then(|()| self.do_chores()) {
                self.fail(error);
                return Err(Failed);
            }
        }
    }

    /// Nothing more will be durable.
    fn fail(&mut self, error: WalError) {
        let mut queue = self.shared.queue();
        queue.failed = true;
        queue.jobs = VecDeque::new();
        drop(queue);
        tracing::error!(%error, "the log failed");
        (self.on_completion)(Completion::Failed(error));
    }

    /// Waits for something to do. Writes that are queued are taken together: they share the next
    /// sync.
    fn next_work(&self) -> Work {
        let timeout = self.timers.next().map(|at| at.saturating_duration_since(Instant::now()));
        let ready =
            |queue: &Queue| queue.closed || !queue.jobs.is_empty() || !queue.findings.is_empty();
        let mut queue = self.shared.wait(timeout, ready);
        let (mut batch, mut bytes, mut records) = (Vec::new(), 0, 0);
        while let Some(Job::Write(write)) = queue.jobs.front() {
            bytes += Log::write_bytes(write);
            // A vote, a truncation and a snapshot besides the entries.
            records += write.entries().len() + 3;
            let full = bytes > self.batch_bytes
                || records > self.batch_records
                // It begins a segment of its own.
                || write.snapshot().is_some();
            if full && !batch.is_empty() {
                break;
            }
            if let Some(Job::Write(write)) = queue.jobs.pop_front() {
                batch.push(write);
            }
        }
        if !batch.is_empty() {
            return Work::Writes(batch);
        }
        match queue.jobs.pop_front() {
            Some(Job::Write(write)) => Work::Writes(vec![write]),
            Some(Job::Compact(base)) => Work::Compact(base),
            Some(Job::Rewrite(entries)) => Work::Rewrite(entries),
            None if queue.closed => Work::End,
            None => Work::Chores,
        }
    }

    /// On a full disk the writes wait; those before the first that needs room go ahead, and so does a
    /// compaction, which makes some.
    fn write_when_there_is_room(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let mut waited = false;
        loop {
            let error = match self.write_what_fits(batch) {
                Err(error) if error.is_no_space() => error,
                done => return done,
            };
            if !waited {
                lock(&self.shared.stats).waits_for_space += 1;
                waited = true;
            }
            self.space_is_low(&error);
            let event = |queue: &Queue| queue.closed || !queue.findings.is_empty();
            let mut queue = self.shared.wait(Some(SPACE_RETRY), event);
            if queue.closed {
                return Err(error);
            }
            let compaction = queue.compaction_behind(batch);
            drop(queue);
            if let Some(base) = compaction {
                self.log.compact(&base)?;
            }
            self.take_findings()?;
        }
    }

    /// Writes the batch, or what stands in it before the first write that needs room; takes out of it
    /// what was written.
    fn write_what_fits(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let error = match self.write(batch) {
            Err(error) if error.is_no_space() => error,
            done => return done,
        };
        let modest = batch.iter().position(Log::is_bulk).unwrap_or_default();
        if modest == 0 {
            return Err(error);
        }
        let mut rest = batch.split_off(modest);
        let outcome = self.write(batch);
        batch.append(&mut rest);
        outcome?;
        self.write(batch)
    }

    /// Makes the batch durable and acknowledges it; only then, and only all of it.
    fn write(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let started = Instant::now();
        let segment = self.log.segment_id();
        self.log.append(batch)?;
        self.log.sync()?;
        let took = started.elapsed();
        if self.log.segment_id() != segment {
            self.space_is_ample();
        }
        self.timers.mark = Some(Instant::now() + self.timers.mark_after);
        self.tell_room();
        let room = batch.iter().map(|write| batch_bytes(Log::write_bytes(write))).sum();
        self.shared.backlog.fetch_sub(room, Ordering::AcqRel);
        let bytes: u64 = batch.iter().map(Log::write_bytes).sum();
        let mut stats = lock(&self.shared.stats);
        stats.batches += 1;
        stats.writes += batch.len() as u64;
        let entries = batch.iter().map(|write| write.entries().len() as u64).sum::<u64>();
        stats.entries += entries;
        stats.bytes += bytes;
        stats.last_sync = took;
        stats.longest_sync = stats.longest_sync.max(took);
        stats.total_sync += took;
        drop(stats);
        self.meters.synced(took, entries);
        if took > SLOW_SYNC {
            tracing::warn!(?took, "the log's disk is slow");
        }
        for write in batch.drain(..) {
            (self.on_completion)(Completion::Durable(write.into_receipt()));
        }
        Ok(())
    }

    fn tell_room(&self) {
        self.shared.room.store(self.log.room_bytes(), Ordering::Release);
    }

    fn rewrite(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        match self.log.rewrite(entries) {
            Err(error @ (WalError::NoSpace { .. } | WalError::Refused { .. })) => {
                // Of what was damaged something was cut off or dropped meanwhile, or there is no room.
                // The next scrub finds the damage again, if it is still there.
                tracing::warn!(%error, "a damaged segment cannot be written again yet");
                Ok(())
            }
            done => {
                done?;
                lock(&self.shared.stats).repairs += 1;
                self.meters.repaired();
                tracing::info!("a damaged segment was written again");
                Ok(())
            }
        }
    }

    /// What is due besides the jobs.
    fn do_chores(&mut self) -> Result<(), WalError> {
        self.take_findings()?;
        let now = Instant::now();
        let is_due = |timer: Option<Instant>| timer.is_some_and(|at| at <= now);
        if is_due(self.timers.mark) {
            self.timers.mark = None;
            // What is left on a full disk is for votes.
            if !self.shared.space_low.load(Ordering::Relaxed) {
                self.log.mark()?;
            }
        }
        if is_due(self.timers.scrub) {
            // Asked again when it is done, or later if there was nothing to do.
            self.timers.scrub = Some(now + self.timers.scrub_interval);
            if let Some(job) = self.log.next_scrub()
                && self.helpers.scrub(job)
            {
                self.timers.scrub = None;
            }
        }
        let wait = self.timers.space.is_some_and(|at| at > now);
        if !wait && let Some(job) = self.log.spare_wanted() {
            self.timers.space = None;
            self.helpers.prepare(job);
        }
        self.tell_room();
        Ok(())
    }

    fn take_findings(&mut self) -> Result<(), WalError> {
        let findings = std::mem::take(&mut self.shared.queue().findings);
        for finding in findings {
            match finding {
                Finding::Spare(Ok(spare)) => {
                    self.log.offer_spare(spare);
                    self.space_is_ample();
                }
                Finding::Spare(Err(error)) if error.is_no_space() => {
                    self.log.spare_failed();
                    self.timers.space = Some(Instant::now() + SPACE_RETRY);
                    self.space_is_low(&error);
                }
                // Whoever submits no more than there is room for would wait for it for ever.
                Finding::Spare(Err(error)) => return Err(error),
                Finding::Scrubbed(scrubbed) => {
                    self.timers.scrub = Some(Instant::now() + self.timers.scrub_interval);
                    let mut stats = lock(&self.shared.stats);
                    stats.scrubbed_bytes += scrubbed.bytes();
                    stats.damages += u64::from(scrubbed.damage().is_some());
                    drop(stats);
                    self.meters.scrubbed(scrubbed.bytes(), scrubbed.damage().is_some());
                    let repair = self.log.scrubbed(&scrubbed)?;
                    if repair != Repair::None {
                        (self.on_completion)(Completion::Damaged(repair));
                    }
                }
            }
        }
        Ok(())
    }

    fn space_is_low(&self, error: &WalError) {
        if !self.shared.space_low.swap(true, Ordering::Relaxed) {
            self.meters.space(true);
            tracing::error!(%error, "the disk is full: entries wait for room");
        }
    }

    fn space_is_ample(&mut self) {
        self.timers.space = None;
        if self.shared.space_low.swap(false, Ordering::Relaxed) {
            self.meters.space(false);
            tracing::info!("there is room on the disk again");
        }
    }
}

/// A batch that takes longer than this is worth a warning.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// How often a full disk is asked for room.
const SPACE_RETRY: Duration = Duration::from_millis(500);
