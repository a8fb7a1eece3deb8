//! The log on a thread of its own: writes go in without waiting, receipts come back in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use raft_core::{Entry, LogBase, Receipt, Restored, Write};

use crate::config::WalConfig;
use crate::disk::Disk;
use crate::error::{DiskError, OpenError, WalError};
use crate::file_disk::FileDisk;
use crate::helpers::{Finding, Helpers};
use crate::identity::Identity;
use crate::log::{Log, OpenedLog, Repair};
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
    /// Bytes submitted and not yet durable.
    backlog: AtomicU64,
    space_low: AtomicBool,
    stats: Mutex<WalStats>,
}

/// What waits for the writer. Bounded by whoever submits, see [`Wal::backlog_bytes`].
#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// What the helpers found: at most one of each.
    findings: VecDeque<Finding>,
    /// No more jobs will come.
    closed: bool,
    /// No more jobs will be done.
    failed: bool,
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
            space_low: AtomicBool::new(false),
            stats: Mutex::default(),
        });
        let failed = || DiskError::of("start", "the threads of the log");
        let snapshots = log.snapshots().clone();
        let helpers = Helpers::start(&shared).map_err(failed())?;
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            timers: Timers::new(&config),
            log,
            helpers,
            batch_bytes: config.batch_bytes,
            batch_records: config.batch_records,
            on_completion,
        };
        let name = format!("wal-{}", config.node);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let outcome = writer.run();
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
        self.shared.backlog.fetch_add(Log::write_bytes(&write), Ordering::Relaxed);
        queue.jobs.push_back(Job::Write(write));
        drop(queue);
        self.shared.wake.notify_all();
    }

    /// Tells that the log up to `base` is not needed any more ([`Output::compacted`]), once everything
    /// submitted before is durable. Segments that nothing needs are removed.
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
        drop(queue);
        self.shared.wake.notify_all();
    }

    /// The snapshots beside the log; to be used from any thread but the node's own, because it waits
    /// for the disk.
    #[must_use]
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.snapshots
    }

    /// Is there room on the disk? While it is [`Space::Low`], entries should be refused at the door:
    /// what was submitted waits for room, and with it every vote behind it.
    #[must_use]
    pub fn space(&self) -> Space {
        if self.shared.space_low.load(Ordering::Relaxed) { Space::Low } else { Space::Ample }
    }

    /// Bytes submitted and not yet durable. The queue takes everything: whoever submits looks here
    /// and stops taking input above a limit of its own.
    #[must_use]
    pub fn backlog_bytes(&self) -> u64 {
        self.shared.backlog.load(Ordering::Relaxed)
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
        self.shared.queue().closed = true;
        self.shared.wake.notify_all();
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
        self.queue().findings.push_back(finding);
        self.wake.notify_all();
    }

    /// Waits until `ready`, or for this long, or for ever.
    fn wait(
        &self,
        timeout: Option<Duration>,
        mut ready: impl FnMut(&Queue) -> bool,
    ) -> MutexGuard<'_, Queue> {
        let queue = self.queue();
        let waiting = |queue: &mut Queue| !ready(queue);
        match timeout {
            None => self.wake.wait_while(queue, waiting).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.wake.wait_timeout_while(queue, timeout, waiting);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
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
                let mut queue = self.shared.queue();
                queue.failed = true;
                queue.jobs = VecDeque::new();
                drop(queue);
                tracing::error!(%error, "the log failed");
                (self.on_completion)(Completion::Failed(error));
                return Err(Failed);
            }
        }
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

    /// On a full disk the writes wait; those before the first that needs room go ahead.
    fn write_when_there_is_room(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let mut waited = false;
        loop {
            match self.write(batch) {
                Err(error) if error.is_no_space() => {
                    let needs_room =
                        |write: &Write| !write.entries().is_empty() || write.snapshot().is_some();
                    let modest = batch.iter().position(needs_room).unwrap_or_default();
                    if modest > 0 {
                        let mut first: Vec<Write> = batch.drain(..modest).collect();
                        self.write(&mut first)?;
                        continue;
                    }
                    if !waited {
                        lock(&self.shared.stats).waits_for_space += 1;
                        waited = true;
                    }
                    self.space_is_low(&error);
                    let event = |queue: &Queue| queue.closed || !queue.findings.is_empty();
                    let closed = self.shared.wait(Some(SPACE_RETRY), event).closed;
                    if closed {
                        return Err(error);
                    }
                    self.take_findings()?;
                }
                done => return done,
            }
        }
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
        let bytes = batch.iter().map(Log::write_bytes).sum();
        self.shared.backlog.fetch_sub(bytes, Ordering::Relaxed);
        let mut stats = lock(&self.shared.stats);
        stats.batches += 1;
        stats.writes += batch.len() as u64;
        stats.entries += batch.iter().map(|write| write.entries().len() as u64).sum::<u64>();
        stats.bytes += bytes;
        stats.last_sync = took;
        stats.longest_sync = stats.longest_sync.max(took);
        stats.total_sync += took;
        drop(stats);
        if took > SLOW_SYNC {
            tracing::warn!(?took, "the log's disk is slow");
        }
        for write in batch.drain(..) {
            (self.on_completion)(Completion::Durable(write.into_receipt()));
        }
        Ok(())
    }

    fn rewrite(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        match self.log.rewrite(entries) {
            Err(error) if error.is_no_space() || matches!(error, WalError::Refused { .. }) => {
                // The next scrub finds the damage again, if it is still there: what was asked for may
                // have been compacted or cut off meanwhile.
                tracing::warn!(%error, "a damaged segment cannot be written again yet");
                Ok(())
            }
            done => done,
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
                Finding::Spare(Err(error)) => {
                    self.log.spare_failed();
                    self.timers.space = Some(Instant::now() + SPACE_RETRY);
                    if error.is_no_space() {
                        self.space_is_low(&error);
                    } else {
                        tracing::warn!(%error, "could not prepare the next segment");
                    }
                }
                Finding::Scrubbed(scrubbed) => {
                    self.timers.scrub = Some(Instant::now() + self.timers.scrub_interval);
                    let mut stats = lock(&self.shared.stats);
                    stats.scrubbed_bytes += scrubbed.bytes();
                    stats.damages += u64::from(scrubbed.damage().is_some());
                    drop(stats);
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
            tracing::error!(%error, "the disk is full: entries wait for room");
        }
    }

    fn space_is_ample(&mut self) {
        self.timers.space = None;
        if self.shared.space_low.swap(false, Ordering::Relaxed) {
            tracing::info!("there is room on the disk again");
        }
    }
}

/// A batch that takes longer than this is worth a warning.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// How often a full disk is asked for room.
const SPACE_RETRY: Duration = Duration::from_millis(500);
