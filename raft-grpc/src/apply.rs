//! The last stage: a thread that owns the write side of the state machine. It applies committed
//! entries and answers whoever proposed them. Being a thread, it may wait for readers without
//! holding up anything else.

use std::collections::VecDeque;
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

    /// Applies what is queued and ends the thread. Blocks.
    pub(crate) fn close(self) {
        let Self { jobs, thread } = self;
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
        let thread = thread.spawn(move || {
            for job in &queue {
                match job {
                    Job::Apply(batch) => {
                        let begin = Instant::now();
                        apply_batch(&self.machine, batch, &self.applied);
                        apply_seconds.record(begin.elapsed());
                    }
                    Job::Capture => self.capture(),
                    Job::Restore(snapshot, store) => {
                        if let Err(fatal) = self.restore(&snapshot, &store) {
                            let _ = self.news.blocking_send(News::Failed(fatal));
                            return;
                        }
                    }
                }
            }
        })?;
        Ok(ApplyQueue { jobs, thread })
    }

    fn capture(&self) {
        // Nobody else writes, so readers need not wait.
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        let (index, capture) = (machine.applied.index, machine.state.snapshot());
        drop(machine);
        // Fails when the driver has ended, and nobody cares.
        let _ = self.news.blocking_send(News::Captured(index, capture));
    }

    fn restore(&self, snapshot: &Snapshot, store: &SnapshotStore) -> Result<(), Fatal> {
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        let restored = restore(&machine.state, store, snapshot)?;
        drop(machine);
        let applied = snapshot.base.position;
        let mut machine = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *machine, Machine { state: restored, applied });
        drop(machine);
        self.applied.send_replace(applied.index);
        tracing::info!(node = %self.id, "restored a snapshot as of {applied}");
        drop(before); // Which may take long.
        Ok(())
    }
}

/// The state that a snapshot in the store tells.
pub(crate) fn restore<S: StateMachine>(
    state: &S,
    store: &SnapshotStore,
    snapshot: &Snapshot,
) -> Result<S, Fatal> {
    let position = snapshot.base.position;
    let refuse = |error| Fatal::Restore { position, error };
    let mut reader = store.open(snapshot.id())?.ok_or_else(|| refuse("it is gone".into()))?;
    state.restore(&mut reader).map_err(refuse)
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
mod tests {
    use std::pin::pin;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake};

    use raft_core::{Term, Timestamp};
    use tokio::sync::oneshot;

    use super::*;
    use crate::state_machine::{Capture, RestoreError};

    struct Nothing;

    impl StateMachine for Nothing {
        fn apply(&mut self, _: &AppliedEntry) -> Bytes {
            Bytes::new()
        }

        fn snapshot(&self) -> Capture {
            Bytes::new().into()
        }

        fn restore(&self, _: &mut dyn std::io::Read) -> Result<Self, RestoreError> {
            Ok(Self)
        }
    }

    /// Notes what counts as applied at the moment at which it is woken.
    struct Watcher {
        applied: watch::Receiver<LogIndex>,
        seen: Mutex<Vec<LogIndex>>,
    }

    impl Wake for Watcher {
        fn wake(self: Arc<Self>) {
            self.seen.lock().unwrap().push(*self.applied.borrow());
        }
    }

    #[test]
    fn who_is_answered_finds_it_applied() {
        let (applied, of_applied) = watch::channel(LogIndex(0));
        let watcher = Arc::new(Watcher { applied: of_applied, seen: Mutex::default() });
        let machine = RwLock::new(Machine { state: Nothing, applied: LogPosition::default() });
        let (answer, answered) = oneshot::channel();
        let mut answered = pin!(answered);
        let waker = Arc::clone(&watcher).into();
        assert!(answered.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

        let (term, timestamp) = (Term(1), Timestamp(0));
        let command = |index| Entry {
            index: LogIndex(index),
            term,
            timestamp,
            payload: Payload::Command(Bytes::new()),
        };
        let waiter = Waiter::Local { answer, claimed: Arc::new(AtomicBool::new(true)) };
        let entries = vec![command(1), command(2)];
        let waiters = VecDeque::from([(LogIndex(1), waiter)]);
        apply_batch(&machine, Batch { entries, waiters }, &applied);
        assert!(answered.poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(*watcher.seen.lock().unwrap(), [LogIndex(2)]);
    }
}
