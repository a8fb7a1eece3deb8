//! What is visible when somebody is answered; snapshots that are restored, and those that need not be.

use std::pin::pin;
use std::sync::Mutex;
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
/// Remembers the index of the last entry, or of the snapshot.
struct Last(u64);

impl StateMachine for Last {
    fn apply(&mut self, entry: &AppliedEntry) -> Bytes {
        self.0 = entry.position.index.0;
        Bytes::new()
    }

    fn snapshot(&self) -> Capture {
        self.0.to_be_bytes().to_vec().into()
    }

    /// One of index 7 is never read to its end; one of index 8 until a read fails, which is taken for the end.
    fn restore(&self, snapshot: &mut dyn io::Read) -> Result<Self, RestoreError> {
        let mut bytes = [0; 8];
        snapshot.read_exact(&mut bytes)?;
        let index = u64::from_be_bytes(bytes);
        if index == 7 {
            loop {
                let _ = snapshot.read(&mut [0])?;
                std::thread::yield_now();
            }
        }
        while index == 8 && snapshot.read(&mut [0]).is_ok() {
            std::thread::yield_now();
        }
        Ok(Self(index))
    }
}

/// A store of snapshots of `Last` as of these indexes.
fn store_of(indexes: &[u64]) -> (SnapshotStore, Vec<Snapshot>) {
    let members = raft_core::Membership::new(NodeId::new(1)).unwrap();
    let config = raft_wal::WalConfig::new("simulated", "c", NodeId::new(1).unwrap(), members);
    let disk = Arc::new(raft_wal::sim::SimDisk::new(1));
    let store = raft_wal::Log::open(disk, &config).unwrap().log.snapshots().clone();
    let cut = |index: &u64| {
        let position = LogPosition::new(Term(1), LogIndex(*index));
        let base = raft_core::LogBase {
            position,
            ..raft_core::LogBase::initial(config.membership.clone())
        };
        let mut writer = store.create(base).unwrap();
        writer.write(&index.to_be_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let snapshots = indexes.iter().map(cut).collect();
    (store, snapshots)
}

fn entry(index: u64) -> Entry {
    let payload = Payload::Command(Bytes::new());
    Entry { index: LogIndex(index), term: Term(1), timestamp: Timestamp(0), payload }
}

type Machines = Arc<RwLock<Machine<Last>>>;
type Ends = (watch::Receiver<LogIndex>, tokio::sync::mpsc::Receiver<News>);

fn applier() -> (ApplyQueue, Machines, Ends) {
    let machine = Arc::new(RwLock::new(Machine { state: Last(0), applied: LogPosition::ZERO }));
    let (applied, of_applied) = watch::channel(LogIndex(0));
    let (news, told) = crate::snapshots::news();
    let id = NodeId::new(1).unwrap();
    let applier = Applier { id, machine: Arc::clone(&machine), applied, news };
    (applier.spawn().unwrap(), machine, (of_applied, told))
}

/// A node that hears of the next snapshot, and the one after it, before it comes to restore the first: two are kept.
#[tokio::test]
async fn a_snapshot_that_has_made_way_for_newer_ones_is_left_out_with_what_follows_on_it() {
    let (store, snapshots) = store_of(&[10, 20, 30]);
    assert_eq!(store.held().len(), 2, "the first one is gone");
    let (queue, machine, (mut applied, mut news)) = applier();
    for snapshot in snapshots {
        let next = snapshot.index().0 + 1;
        queue.restore(snapshot, store.clone());
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter::Local { answer, claimed: Arc::new(AtomicBool::new(true)) };
        queue.push(vec![entry(next)], VecDeque::from([(LogIndex(next), waiter)]));
        let answer = answered.await.unwrap();
        assert_eq!(answer.is_ok(), next == 31, "{next}: {answer:?}");
    }
    applied.wait_for(|index| *index == LogIndex(31)).await.unwrap();
    assert_eq!(machine.read().unwrap().state.0, 31);
    queue.close();
    assert!(news.recv().await.is_none(), "nothing failed");
}

#[tokio::test]
async fn a_restore_that_takes_long_does_not_keep_a_node_from_stopping() {
    let (store, snapshots) = store_of(&[7]);
    let (queue, machine, (_, mut news)) = applier();
    queue.restore(snapshots[0].clone(), store);
    queue.push(vec![entry(8)], VecDeque::new());
    tokio::task::spawn_blocking(move || queue.close()).await.unwrap();
    assert!(news.recv().await.is_none(), "nothing failed");
    assert_eq!(machine.read().unwrap().state.0, 0, "what follows on it is not applied without it");
}

#[test]
fn a_state_that_was_read_in_part_is_none() {
    let (store, snapshots) = store_of(&[8]);
    let stopping = AtomicBool::new(true);
    let restored = restore(&Last(0), &store, &snapshots[0], Some(&stopping));
    assert!(matches!(restored, Err(Fatal::Restore { .. })));
    // Told to stop in the middle of it.
    let (queue, machine, (_, mut news)) = applier();
    queue.restore(snapshots[0].clone(), store);
    queue.close();
    assert!(news.try_recv().is_err(), "nothing failed");
    assert_eq!(machine.read().unwrap().state.0, 0);
}
