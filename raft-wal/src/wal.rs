//! The log on a thread of its own: writes go in without waiting, receipts come back in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use raft_core::{Receipt, Restored, Write};

use crate::config::WalConfig;
use crate::disk::Disk;
use crate::error::{DiskError, OpenError, WalError};
use crate::file_disk::FileDisk;
use crate::identity::Identity;
use crate::log::{Log, OpenedLog};
use crate::recovery::RecoveryReport;
use crate::spare::{Spare, SpareJob};

/// What became of the writes.
#[derive(Debug)]
pub enum Completion {
    /// The write of this receipt, and every one submitted before it, would survive a power cut now.
    Durable(Receipt),
    /// The log failed. Comes at most once, and nothing comes after it: no write that has not been
    /// acknowledged ever will be.
    Failed(WalError),
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
}

/// A durable log with a writer thread.
///
/// Everything that is queued when the thread looks becomes one batch with one sync: the longer a
/// sync takes, the more writes share the next one. There is no timer. Dropping it does what
/// [`Wal::close`] does and keeps the outcome to itself.
pub struct Wal {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Result<(), WalError>>>,
}

/// What the two sides share.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Bytes submitted and not yet durable.
    backlog: AtomicU64,
    stats: Mutex<WalStats>,
}

/// The writes that wait. Bounded by whoever submits, see [`Wal::backlog_bytes`].
#[derive(Default)]
struct Queue {
    writes: VecDeque<Write>,
    /// No more writes will come.
    closed: bool,
    /// No more writes will be done.
    failed: bool,
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
            stats: Mutex::default(),
        });
        let failed = || DiskError::of("start", "the threads of the log");
        let helper = Helper::start().map_err(failed())?;
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            log,
            helper,
            batch_bytes: config.batch_bytes,
            batch_records: config.batch_records,
            on_completion,
        };
        let name = format!("wal-{}", config.node);
        let thread = thread::Builder::new().name(name).spawn(move || {
            let outcome = writer.run();
            writer.helper.stop();
            match outcome {
                Ok(()) => writer.log.close(),
                Err(Failed) => Err(WalError::Poisoned),
            }
        });
        let writer = Some(thread.map_err(failed())?);
        Ok(Opened { wal: Self { shared, writer }, restored, identity, report })
    }

    /// Queues a write. Never waits, and keeps the order of the calls. After a failure it does
    /// nothing: the failure was reported.
    pub fn submit(&self, write: Write) {
        let mut queue = self.shared.queue();
        if queue.failed {
            return;
        }
        self.shared.backlog.fetch_add(Log::write_bytes(&write), Ordering::Relaxed);
        queue.writes.push_back(write);
        drop(queue);
        self.shared.wake.notify_one();
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
        self.shared.wake.notify_one();
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
    helper: Helper,
    batch_bytes: u64,
    batch_records: usize,
    on_completion: F,
}

impl<F: FnMut(Completion)> Writer<F> {
    fn run(&mut self) -> Result<(), Failed> {
        let mut batch = Vec::new();
        while self.take_batch(&mut batch) {
            if let Err(error) = self.write(&mut batch) {
                let mut queue = self.shared.queue();
                queue.failed = true;
                queue.writes = VecDeque::new();
                drop(queue);
                tracing::error!(%error, "the log failed");
                (self.on_completion)(Completion::Failed(error));
                return Err(Failed);
            }
            self.helper.exchange(&mut self.log);
        }
        Ok(())
    }

    /// Waits for writes and takes those that share the next sync; false when no more will come.
    fn take_batch(&self, batch: &mut Vec<Write>) -> bool {
        let queue = self.shared.queue();
        let waiting = |queue: &mut Queue| queue.writes.is_empty() && !queue.closed;
        let waited = self.shared.wake.wait_while(queue, waiting);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
        let (mut bytes, mut records) = (0, 0);
        while let Some(write) = queue.writes.front() {
            bytes += Log::write_bytes(write);
            // A vote and a truncation besides the entries.
            records += write.entries().len() + 2;
            let full = bytes > self.batch_bytes || records > self.batch_records;
            if full && !batch.is_empty() {
                break;
            }
            batch.extend(queue.writes.pop_front());
        }
        !batch.is_empty()
    }

    /// Makes the batch durable and acknowledges it; only then, and only all of it.
    fn write(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let started = Instant::now();
        self.log.append(batch)?;
        self.log.sync()?;
        let took = started.elapsed();
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
}

/// A batch that takes longer than this is worth a warning.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// The thread that prepares segments, one at a time.
struct Helper {
    jobs: Option<SyncSender<SpareJob>>,
    spares: Option<Receiver<Spare>>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    fn start() -> std::io::Result<Self> {
        // One order at a time is all that the log gives.
        let (jobs, orders) = sync_channel::<SpareJob>(1);
        let (results, spares) = sync_channel(1);
        let work = move || {
            for job in orders {
                match job.run() {
                    Ok(spare) => {
                        if results.send(spare).is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "could not prepare the next segment"),
                }
            }
        };
        let thread = thread::Builder::new().name("wal-spare".to_owned()).spawn(work)?;
        Ok(Self { jobs: Some(jobs), spares: Some(spares), thread: Some(thread) })
    }

    /// Hands a prepared segment to the log, and its next order to the thread.
    fn exchange(&self, log: &mut Log) {
        if let Some(spare) = self.spares.as_ref().and_then(|spares| spares.try_recv().ok()) {
            log.offer_spare(spare);
        }
        if let (Some(jobs), Some(job)) = (&self.jobs, log.spare_wanted()) {
            // The order is not lost for long if the thread is busy: the next segment asks again.
            drop(jobs.try_send(job));
        }
    }

    fn stop(&mut self) {
        // Both ends, so that the thread waits neither for an order nor for a place for its result.
        self.jobs = None;
        self.spares = None;
        if let Some(thread) = self.thread.take() {
            // It panics only by a bug, and its message is out; the log does not depend on it.
            drop(thread.join());
        }
    }
}
