//! The log on a thread of its own: writes go in without waiting, receipts come back in order.

use std::collections::VecDeque;
use std::io;
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
use crate::recovery::RecoveryReport;
use crate::snapshots::SnapshotStore;

mod timers;
mod writer;

use timers::Timers;
use writer::Writer;

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
        let timers = Timers::new(&config, Instant::now());
        let wal = Self::start(log, timers, &config, on_completion);
        let wal = wal.map_err(DiskError::of("start", "the threads of the log"))?;
        Ok(Opened { wal, restored, identity, report })
    }

    fn start(
        log: Log,
        timers: Timers,
        config: &WalConfig,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            backlog: AtomicU64::new(0),
            room: AtomicU64::new(log.room_bytes()),
            space_low: AtomicBool::new(false),
            stats: Mutex::default(),
        });
        let snapshots = log.snapshots().clone();
        let helpers = Helpers::start(&shared)?;
        let writer = Writer::new(&shared, log, helpers, timers, config, on_completion);
        let name = format!("wal-{}", config.node);
        let thread = thread::Builder::new().name(name).spawn(move || writer.live())?;
        Ok(Self { shared, snapshots, writer: Some(thread) })
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
        let sleeps = |queue: &mut Queue| {
            queue.asleep = !ready(queue);
            queue.asleep
        };
        let queue = self.queue();
        let mut queue = match timeout {
            None => self.wake.wait_while(queue, sleeps).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let woken = self.wake.wait_timeout_while(queue, timeout, sleeps);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        queue.asleep = false;
        queue
    }
}

/// The data behind these locks are whole after every statement, so a panic elsewhere changes
/// nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
