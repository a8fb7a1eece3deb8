//! The last stage: a thread that owns the write side of the state machine. It applies committed
//! entries and answers whoever proposed them. Being a thread, it may wait for readers without
//! holding up anything else.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use raft_core::{Entry, LogIndex, LogPosition, NodeId, Payload, Snapshot};
use raft_wal::SnapshotStore;
use tokio::sync::watch;

use crate::error::{Fatal, Unknown};
use crate::handle::Applied;
use crate::meters::apply_seconds;
use crate::pending::{Answer, Waiter};
use crate::snapshots::{News, NewsSender};
use crate::state_machine::{AppliedEntry, RESPONSE_BYTES_MAX, StateMachine};

/// After so many entries readers get their turn.
const ENTRIES_PER_LOCK: usize = 512;

/// The state machine and the last entry that it reflects, which change together.
#[derive(Debug)]
pub(crate) struct Machine<S> {
    pub(crate) state: S,
    pub(crate) applied: LogPosition,
}

/// Committed entries, and those who wait for some of them, in log order.
struct Batch {
    entries: Vec<Entry>,
    waiters: VecDeque<(LogIndex, Waiter)>,
}

impl Batch {
    /// They are in a snapshot that comes later. Who waits for one of them is not told what came of it.
    fn leave_out(self) {
        for (_, waiter) in self.waiters {
            waiter.answer(Err(Unknown::LeadershipLost.into()));
        }
    }
}

/// What the thread is to do, in order.
enum Job {
    Apply(Batch),
    /// Becomes what this snapshot tells.
    Restore(Snapshot, SnapshotStore),
    /// Tells what a snapshot as of now would hold.
    Capture,
}

/// The way into the apply thread.
#[derive(Debug)]
pub(crate) struct ApplyQueue {
    /// Without a limit of its own: raft-core hands out no more than
    /// `Config::unapplied_bytes_max` ahead of what has been reported as applied.
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
    /// A snapshot that is being restored is not wanted any more.
    stopping: Arc<AtomicBool>,
}

impl ApplyQueue {
    pub(crate) fn push(&self, entries: Vec<Entry>, waiters: VecDeque<(LogIndex, Waiter)>) {
        self.send(Job::Apply(Batch { entries, waiters }));
    }

    /// What comes next goes on from this snapshot, which the store has.
    pub(crate) fn restore(&self, snapshot: Snapshot, store: SnapshotStore) {
        self.send(Job::Restore(snapshot, store));
    }

    /// Captures the state as it is after all that was pushed; comes as [`News::Captured`].
    pub(crate) fn capture(&self) {
        self.send(Job::Capture);
    }

    fn send(&self, job: Job) {
        // If the thread has panicked, the driver sees it by `applied`, and waiters by being dropped
        // here.
        let _ = self.jobs.send(job);
    }

    /// Applies what is queued and ends the thread, but restores no snapshot any more: that may take long, and
    /// the next start does it anyway. Blocks.
    pub(crate) fn close(self) {
        let Self { jobs, thread, stopping } = self;
        stopping.store(true, Ordering::Relaxed);
        drop(jobs);
        let _ = thread.join(); // A panic has been reported by `applied`.
    }
}

/// What the thread has to do with.
pub(crate) struct Applier<S> {
    pub(crate) id: NodeId,
    pub(crate) machine: Arc<RwLock<Machine<S>>>,
    /// Where it tells how far it got; closed when it ends, also by a panic.
    pub(crate) applied: watch::Sender<LogIndex>,
    pub(crate) news: NewsSender,
}

impl<S: StateMachine> Applier<S> {
    /// Starts the thread.
    pub(crate) fn spawn(self) -> std::io::Result<ApplyQueue> {
        let (jobs, queue) = mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("apply-{}", self.id));
        let apply_seconds = apply_seconds();
        let stopping = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stopping);
        let thread = thread.spawn(move || {
            // A snapshot was left out: what follows on it is of no use before the next one.
            let mut is_behind = false;
            for job in &queue {
                match job {
                    Job::Apply(batch) if is_behind => batch.leave_out(),
                    Job::Apply(batch) => {
                        let begin = Instant::now();
                        apply_batch(&self.machine, batch, &self.applied);
                        apply_seconds.record(begin.elapsed());
                    }
                    Job::Capture => self.capture(),
                    Job::Restore(snapshot, store) => {
                        match self.restore(&snapshot, &store, &stops) {
                            Ok(restored) => is_behind = !restored,
                            Err(fatal) => {
                                let _ = self.news.blocking_send(News::Failed(fatal));
                                return;
                            }
                        }
                    }
                }
            }
        })?;
        Ok(ApplyQueue { jobs, thread, stopping })
    }

    fn capture(&self) {
        // Nobody else writes, so readers need not wait.
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        let (index, capture) = (machine.applied.index, machine.state.snapshot());
        drop(machine);
        // Fails when the driver has ended, and nobody cares.
        let _ = self.news.blocking_send(News::Captured(index, capture));
    }

    /// False if that was left out: the node stops, or a newer one has taken its place and is in the queue.
    fn restore(
        &self,
        snapshot: &Snapshot,
        store: &SnapshotStore,
        stopping: &Arc<AtomicBool>,
    ) -> Result<bool, Fatal> {
        let newest = store.held().last().map_or(LogIndex(0), Snapshot::index);
        if newest > snapshot.index() || stopping.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        let restored = match restore(&machine.state, store, snapshot, Some(stopping)) {
            Err(_) if stopping.load(Ordering::Relaxed) => return Ok(false),
            restored => restored?,
        };
        drop(machine);
        let applied = snapshot.base.position;
        let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *machine, Machine { state: restored, applied });
        drop(machine);
        self.applied.send_replace(applied.index);
        tracing::info!(node = %self.id, "restored a snapshot as of {applied}");
        drop(before); // Which may take long.
        Ok(true)
    }
}

/// The state that a snapshot in the store tells. Fails when it is told to stop meanwhile.
pub(crate) fn restore<S: StateMachine>(
    state: &S,
    store: &SnapshotStore,
    snapshot: &Snapshot,
    stopping: Option<&AtomicBool>,
) -> Result<S, Fatal> {
    let position = snapshot.base.position;
    let refuse = |error| Fatal::Restore { position, error };
    let reader = store.open(snapshot.id())?.ok_or_else(|| refuse("it is gone".into()))?;
    let mut reader = UntilStopped { reader, stopping, failed: false };
    let restored = state.restore(&mut reader).map_err(refuse)?;
    if reader.failed {
        // It has a part of the state, and takes it for all.
        return Err(refuse("a read failed, and the state machine took that for the end".into()));
    }
    Ok(restored)
}

/// A reader that fails as soon as the node stops.
struct UntilStopped<'a, R> {
    reader: R,
    stopping: Option<&'a AtomicBool>,
    /// A read has failed, for that reason or another.
    failed: bool,
}

impl<R: io::Read> io::Read for UntilStopped<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = if self.stopping.is_some_and(|stopping| stopping.load(Ordering::Relaxed)) {
            Err(io::Error::other("the node stops"))
        } else {
            self.reader.read(buffer)
        };
        let interrupted = |error: &io::Error| error.kind() == io::ErrorKind::Interrupted;
        self.failed |= outcome.as_ref().is_err_and(|error| !interrupted(error));
        outcome
    }
}

fn apply_batch<S: StateMachine>(
    machine: &RwLock<Machine<S>>,
    batch: Batch,
    applied: &watch::Sender<LogIndex>,
) {
    let Batch { entries, mut waiters } = batch;
    let mut answers = Vec::with_capacity(waiters.len().min(ENTRIES_PER_LOCK));
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let mut machine = machine.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.by_ref().take(ENTRIES_PER_LOCK) {
            let position = entry.position();
            let response = apply_entry(&mut machine.state, entry);
            machine.applied = position;
            if waiters.front().is_some_and(|(index, _)| *index == position.index)
                && let Some((_, waiter)) = waiters.pop_front()
            {
                answers.push((waiter, answer(position, response)));
            }
        }
        let index = machine.applied.index;
        drop(machine);
        // Whoever is answered may read at once, here: the state must be visible before.
        applied.send_replace(index);
        for (waiter, answer) in answers.drain(..) {
            waiter.answer(answer);
        }
    }
}

fn apply_entry<S: StateMachine>(state: &mut S, entry: Entry) -> Bytes {
    let position = entry.position();
    match entry.payload {
        Payload::Command(command) => {
            state.apply(&AppliedEntry { position, timestamp: entry.timestamp, command })
        }
        Payload::Noop | Payload::Membership(_) => Bytes::new(), // Not for the state machine.
    }
}

fn answer(position: LogPosition, response: Bytes) -> Answer {
    if response.len() > RESPONSE_BYTES_MAX {
        // The same wherever the command was proposed, although only a forwarded one needs the
        // limit.
        let bytes = response.len() as u64;
        let max = RESPONSE_BYTES_MAX as u64;
        return Err(Unknown::ResponseTooLarge { bytes, max }.into());
    }
    Ok(Applied { position, response })
}

#[cfg(test)]
mod tests;
