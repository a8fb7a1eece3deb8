//! Snapshots, beside the log: cutting one of the state machine, reading pieces of one for another node,
//! storing one that arrives. All of it waits for the disk, so it happens on threads of its own; the driver
//! hands out the work and is told what came of it.

use std::io::{self, BufWriter, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::{
    ChunkOrder, Incoming, Input, LogBase, LogIndex, Node, NodeId, Snapshot, SnapshotId,
};
use raft_wal::{SnapshotStore, SnapshotWriter, WalError};
use tokio::sync::mpsc;

use crate::apply::ApplyQueue;
use crate::error::Fatal;
use crate::meters::snapshot_seconds;
use crate::state_machine::Capture;

/// News for the driver that it has not looked at. Few are ever under way: one cut, one chunk for each peer,
/// and what arrives in answer to the node's own requests.
const NEWS_MAX: usize = 1024;

/// How much of a snapshot is gathered before it is handed to the disk.
const BUFFER_BYTES: usize = 256 << 10;

/// How long a piece of an arriving snapshot that found no room on the disk is kept back before the node
/// hears of it, and asks again.
const NO_SPACE_PAUSE: Duration = Duration::from_millis(500);

/// What came of the work.
pub(crate) enum News {
    /// The state machine as it was with this index applied.
    Captured(LogIndex, Capture),
    /// A snapshot is durable; or could not be written, which the log has been told.
    Cut(Option<Snapshot>),
    /// A piece that a peer wants.
    ChunkRead(ChunkOrder, Option<Bytes>),
    /// So much of an arriving snapshot is here.
    Held(SnapshotId, u64),
    /// The node must stop.
    Failed(Fatal),
}

/// The way for news to the driver.
pub(crate) type NewsSender = mpsc::Sender<News>;

/// The two ends of it.
pub(crate) fn news() -> (NewsSender, mpsc::Receiver<News>) {
    mpsc::channel(NEWS_MAX)
}

/// The driver's side.
pub(crate) struct Snapshots {
    id: NodeId,
    store: SnapshotStore,
    news: NewsSender,
    cutting: Cutting,
    /// Tells whoever writes a snapshot to stop.
    cancelled: Arc<AtomicBool>,
    /// There until the end.
    workers: Option<(Worker<ChunkOrder>, Worker<Incoming>)>,
}

/// How far the cut of a snapshot is.
enum Cutting {
    /// None is under way.
    Idle,
    /// The state machine was asked.
    Asked,
    /// It waits until the node knows all that belongs to that index, and has it on its own disk.
    Captured(LogIndex, Capture),
    /// A thread writes it.
    Writing(JoinHandle<()>),
}

/// A thread with a queue, whose length the protocol bounds.
struct Worker<T> {
    queue: std_mpsc::Sender<T>,
    thread: JoinHandle<()>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(name: String, work: impl FnMut(T) + Send + 'static) -> io::Result<Self> {
        let (queue, jobs) = std_mpsc::channel();
        let thread = std::thread::Builder::new().name(name);
        let thread = thread.spawn(move || jobs.into_iter().for_each(work))?;
        Ok(Self { queue, thread })
    }

    fn push(&self, job: T) {
        // A thread that has ended has told why, unless the driver has ended before.
        let _ = self.queue.send(job);
    }

    fn close(self) {
        let Self { queue, thread } = self;
        drop(queue);
        let _ = thread.join();
    }
}

impl Snapshots {
    /// Starts the threads. Pieces for peers are read at most at this pace.
    pub(crate) fn start(
        id: NodeId,
        store: SnapshotStore,
        news: NewsSender,
        bytes_per_second_max: u64,
    ) -> io::Result<Self> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut pace = Pace::new(bytes_per_second_max, Arc::clone(&cancelled));
        let (store_to_read, news_of_reads) = (store.clone(), news.clone());
        let reading = Worker::start(format!("snapshots-out-{id}"), move |order| {
            let read = store_to_read.read_chunk(&order);
            if let Ok(Some(bytes)) = &read {
                pace.wait_for(bytes.len() as u64);
            }
            tell(&news_of_reads, read.map(|bytes| News::ChunkRead(order, bytes)));
        })?;
        let (store_to_write, news_of_writes) = (store.clone(), news.clone());
        let stopping = Arc::clone(&cancelled);
        let storing = Worker::start(format!("snapshots-in-{id}"), move |incoming| {
            let snapshot = match &incoming {
                Incoming::Begin(snapshot) => snapshot.id(),
                Incoming::Chunk { snapshot, .. } | Incoming::Abandon(snapshot) => *snapshot,
            };
            match store_to_write.store(incoming) {
                Ok(None) => {}
                Ok(Some((snapshot, held))) => {
                    tell(&news_of_writes, Ok(News::Held(snapshot, held)));
                }
                Err(error) if error.is_no_space() => {
                    tracing::warn!(node = %id, "a snapshot that arrives finds no room: {error}");
                    sleep_unless(&stopping, NO_SPACE_PAUSE);
                    tell(&news_of_writes, Ok(News::Held(snapshot, 0)));
                }
                Err(error) => tell(&news_of_writes, Err(error)),
            }
        })?;
        Ok(Self {
            id,
            store,
            news,
            cutting: Cutting::Idle,
            cancelled,
            workers: Some((reading, storing)),
        })
    }

    /// Does what the node wants done.
    pub(crate) fn hand_on(&self, chunks: &mut Vec<ChunkOrder>, incoming: &mut Vec<Incoming>) {
        if let Some((reading, storing)) = &self.workers {
            chunks.drain(..).for_each(|order| reading.push(order));
            incoming.drain(..).for_each(|arriving| storing.push(arriving));
        }
    }

    /// A snapshot is wanted. True unless one is being cut already.
    pub(crate) fn cut(&mut self, apply: &ApplyQueue) -> bool {
        let is_idle = matches!(self.cutting, Cutting::Idle);
        if is_idle {
            self.cutting = Cutting::Asked;
            apply.capture();
        }
        is_idle
    }

    /// The state machine was captured as it was with this index applied.
    pub(crate) fn captured(&mut self, index: LogIndex, capture: Capture) {
        self.cutting = Cutting::Captured(index, capture);
    }

    /// Begins to write what was captured, as soon as the node knows what belongs to it. To be called when
    /// it has been told what is applied. False if nothing comes of what was captured.
    pub(crate) fn go_on(&mut self, node: &Node) -> Result<bool, Fatal> {
        if !matches!(self.cutting, Cutting::Captured(..)) {
            return Ok(true);
        }
        let Cutting::Captured(index, capture) = std::mem::replace(&mut self.cutting, Cutting::Idle)
        else {
            return Ok(true);
        };
        let status = node.status();
        if index == LogIndex(0) || index < status.base.index {
            return Ok(false); // Meanwhile another snapshot took the place of that part of the log.
        }
        let Some(base) = node.snapshot_base(index) else {
            self.cutting = Cutting::Captured(index, capture); // Not yet.
            return Ok(true);
        };
        if !base.membership.contains(self.id) {
            // Of the members before it was one a node that joins knows only what it was told at its start.
            return Ok(false);
        }
        let job = CutJob {
            id: self.id,
            store: self.store.clone(),
            base,
            capture,
            cancelled: Arc::clone(&self.cancelled),
        };
        let news = self.news.clone();
        let thread = std::thread::Builder::new().name(format!("snapshot-{}", self.id));
        let thread = thread.spawn(move || {
            // The state machine's own code runs in it.
            let cut = catch_unwind(AssertUnwindSafe(|| job.run()));
            match cut {
                Ok(cut) => tell(&news, cut.map(News::Cut)),
                Err(_panic) => tell(&news, Ok(News::Failed(Fatal::StateMachinePanicked))),
            }
        });
        self.cutting = Cutting::Writing(thread.map_err(Fatal::Thread)?);
        Ok(true)
    }

    /// The cut is over: what the node is to be told of it.
    pub(crate) fn cut_ended(&mut self, cut: Option<Snapshot>, node: &Node) -> Option<Input> {
        self.cutting = Cutting::Idle;
        let snapshot = cut?;
        // The same once more, in place of a damaged one, is none of its business.
        let held = node.status().snapshot.map_or(LogIndex(0), |held| held.position.index);
        (snapshot.index() > held).then_some(Input::SnapshotCut(snapshot))
    }
}

/// Ends the threads, without waiting for a snapshot to be complete. Blocks, because nobody else may have
/// the data directory before they have ended.
impl Drop for Snapshots {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some((reading, storing)) = self.workers.take() {
            reading.close();
            storing.close();
        }
        if let Cutting::Writing(thread) = std::mem::replace(&mut self.cutting, Cutting::Idle) {
            let _ = thread.join();
        }
    }
}

fn tell(news: &NewsSender, outcome: Result<News, WalError>) {
    let outcome = outcome.unwrap_or_else(|error| News::Failed(Fatal::Disk(error)));
    // Fails when the driver has ended, and nobody cares.
    let _ = news.blocking_send(outcome);
}

/// One snapshot to be written.
struct CutJob {
    id: NodeId,
    store: SnapshotStore,
    base: LogBase,
    capture: Capture,
    cancelled: Arc<AtomicBool>,
}

impl CutJob {
    fn run(self) -> Result<Option<Snapshot>, WalError> {
        let Self { id, store, base, capture, cancelled } = self;
        let (started, position) = (Instant::now(), base.position);
        let written = store.create(base).and_then(|writer| {
            let mut out = Out { writer, failed: None, cancelled: &cancelled };
            let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, &mut out);
            let outcome = capture.write(&mut buffered).and_then(|()| buffered.flush());
            // What is still buffered after an error is not wanted.
            let _unwanted = buffered.into_parts();
            let Out { writer, failed, .. } = out;
            match (failed, outcome) {
                (Some(error), _) => Err(error),
                (None, Ok(())) if cancelled.load(Ordering::Relaxed) => Ok(None),
                (None, Ok(())) => writer.finish().map(Some),
                (None, Err(error)) => {
                    if !cancelled.load(Ordering::Relaxed) {
                        tracing::error!(node = %id, "the state machine cannot write a snapshot: {error}");
                    }
                    Ok(None)
                }
            }
        });
        match written {
            Ok(Some(snapshot)) => {
                let (length, took) = (snapshot.length, started.elapsed());
                snapshot_seconds().record(took);
                tracing::info!(node = %id, "cut a snapshot as of {position}: {length} bytes in {took:.1?}");
                Ok(Some(snapshot))
            }
            Ok(None) => Ok(None),
            Err(error) if error.is_no_space() => {
                tracing::warn!(node = %id, "no snapshot as of {position}, and the log grows: {error}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// A snapshot that is being written, until somebody says stop.
struct Out<'a> {
    writer: SnapshotWriter,
    /// What the store said, which says more than an [`io::Error`].
    failed: Option<WalError>,
    cancelled: &'a AtomicBool,
}

impl io::Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("the node stops"));
        }
        match self.writer.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let told = io::Error::other(error.to_string());
                self.failed = Some(error);
                Err(told)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps snapshots for others from taking all of the disk and the network.
struct Pace {
    bytes_per_second_max: u64,
    /// When what was read so far may all have been read.
    free_at: Instant,
    cancelled: Arc<AtomicBool>,
}

impl Pace {
    fn new(bytes_per_second_max: u64, cancelled: Arc<AtomicBool>) -> Self {
        Self { bytes_per_second_max, free_at: Instant::now(), cancelled }
    }

    fn wait_for(&mut self, bytes: u64) {
        let now = Instant::now();
        let wait = self.free_at.saturating_duration_since(now);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second_max as f64);
        self.free_at = self.free_at.max(now) + takes;
        sleep_unless(&self.cancelled, wait);
    }
}

/// Sleeps, but does not keep a node that stops waiting.
fn sleep_unless(cancelled: &AtomicBool, time: Duration) {
    const STEP: Duration = Duration::from_millis(20);
    let until = Instant::now() + time;
    while !cancelled.load(Ordering::Relaxed)
        && let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        std::thread::sleep(left.min(STEP));
    }
}
