//! A disk that is full: votes find room, what waits goes on, and what makes room is not kept waiting.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::{
    HardState, Incoming, LogBase, LogIndex, LogPosition, Snapshot, Term, Timestamp, Write,
};
use raft_wal::sim::{Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Completion, Opened, Space, Wal, WalConfig};
use support::{Random, command, config, members, node, open};
use xxhash_rust::xxh3::xxh3_128;

const PATIENCE: Duration = Duration::from_secs(30);

fn base(index: u64) -> LogBase {
    LogBase {
        position: LogPosition::new(Term(1), LogIndex(index)),
        timestamp: Timestamp(1000 + index),
        membership: members(&[1, 2, 3]),
        membership_index: LogIndex(0),
    }
}

fn entry(index: u64) -> Write {
    Write::detached(None, None, vec![command(index, 1, 900)])
}

fn vote(term: u64) -> Write {
    let state = HardState { term: Term(term), voted_for: Some(node(2)) };
    Write::detached(Some(state), None, Vec::new())
}

/// A log on its thread, on a disk that is or gets full.
struct Full {
    disk: SimDisk,
    wal: Wal,
    completions: Receiver<Completion>,
    /// As long as it is locked, nothing more is acknowledged, and nothing more written then.
    gate: Arc<Mutex<()>>,
    last: u64,
}

impl Full {
    /// One whose log holds so many entries; without marks, so that what is written is what is
    /// submitted.
    fn new(disk: SimDisk, entries: u64) -> Self {
        let mut full = Self::with_marks(disk, 100 * PATIENCE);
        (0..entries).for_each(|_| full.append());
        full
    }

    fn with_marks(disk: SimDisk, mark_after: Duration) -> Self {
        let (tell, completions) = channel();
        let gate = Arc::new(Mutex::new(()));
        let pass = Arc::clone(&gate);
        let tell = move |completion| {
            drop(pass.lock());
            drop(tell.send(completion));
        };
        let config = WalConfig { mark_after, ..config() };
        let opened = Wal::open_on(Arc::new(disk.for_this_life()), config, tell).unwrap();
        let Opened { wal, .. } = opened;
        let full = Self { disk, wal, completions, gate, last: 0 };
        full.acknowledged(vote(1));
        full
    }

    fn append(&mut self) {
        self.last += 1;
        self.acknowledged(entry(self.last));
    }

    fn acknowledged(&self, write: Write) {
        self.wal.submit(write);
        self.hear();
    }

    fn hear(&self) {
        let completion = self.completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
    }

    /// Takes all room, and writes until an entry waits.
    fn fill(&mut self) {
        self.disk.set_capacity(Some(0));
        loop {
            self.last += 1;
            self.wal.submit(entry(self.last));
            if self.is_kept_waiting() {
                return;
            }
        }
    }

    /// Is what was submitted last kept waiting for room?
    fn is_kept_waiting(&self) -> bool {
        let (waits, deadline) = (self.wal.stats().waits_for_space, Instant::now() + PATIENCE);
        loop {
            match self.completions.recv_timeout(Duration::from_millis(2)) {
                Ok(Completion::Durable(_)) => return false,
                Ok(other) => panic!("{other:?}"),
                Err(_) if waits > 0 || self.wal.stats().waits_for_space > 0 => return true,
                Err(_) => assert!(Instant::now() < deadline, "neither written nor waiting"),
            }
        }
    }

    /// Are so many votes of a test on disk, the first of the log aside? If not, the last one waits.
    fn is_written(&self, votes: u64) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.wal.stats();
            if stats.writes > votes || stats.waits_for_space > 0 {
                return stats.writes > votes;
            }
            assert!(Instant::now() < deadline, "neither written nor waiting");
            std::thread::yield_now();
        }
    }

    fn cut(&self, index: u64) {
        let mut writer = self.wal.snapshots().create(base(index)).unwrap();
        writer.write(&[7; 100]).unwrap();
        writer.finish().unwrap();
    }
}

/// A compaction is what makes room; it must not stand behind the write that waits for some.
#[test]
fn a_compaction_makes_room_for_the_write_that_waits_before_it() {
    let mut full = Full::new(SimDisk::new(1), 30);
    full.cut(20);
    full.cut(25);
    full.fill();
    // As much as there is: only what is removed makes room.
    full.disk.set_capacity(Some(full.disk.used_bytes()));
    full.wal.compact(base(25));
    full.hear();
    let last = full.last;
    full.wal.close().unwrap();
    full.disk.crash();
    let restored = open(&full.disk).unwrap().restored;
    assert_eq!(restored.entries.last().unwrap().index.0, last);
}

/// Votes that find no room any more wait like everything else, and are no failure.
#[test]
fn a_vote_and_an_entry_wait_together_when_even_the_reserve_is_used_up() {
    let mut waited = 0;
    for votes in 1.. {
        let disk = SimDisk::new(2);
        // From the first segment on that is prepared.
        let full = FaultRule::new(Fault::Full).on(&[Operation::Create]).files("spare-").after(1);
        disk.add_fault(full);
        let full = Full::new(disk, 0);
        (1..votes).for_each(|term| full.acknowledged(vote(1 + term)));
        // Held up behind the first, the other two share a batch.
        let gate = full.gate.lock().unwrap();
        full.wal.submit(vote(1 + votes));
        if !full.is_written(votes) {
            break; // The reserve ended before.
        }
        full.wal.submit(vote(2 + votes));
        full.wal.submit(entry(1));
        drop(gate);
        full.hear();
        let waits = full.is_kept_waiting();
        waited += u64::from(waits);
        full.disk.make_room();
        let left = if waits { 2 } else { 1 };
        (0..left).for_each(|_| full.hear());
        full.wal.close().unwrap();
    }
    assert_eq!(waited, 1);
}

/// A snapshot that takes the place of the log waits for room, and its vote is written down only once.
#[test]
fn a_snapshot_that_waits_for_room_does_not_use_up_the_room_for_votes() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap().log;
    let content = vec![5; 10];
    let snapshot =
        Snapshot { base: base(50), length: content.len() as u64, digest: xxh3_128(&content) };
    let store = log.snapshots().clone();
    store.store(Incoming::Begin(snapshot.clone())).unwrap();
    let bytes = Bytes::from(content);
    store.store(Incoming::Chunk { snapshot: snapshot.id(), offset: 0, bytes }).unwrap();
    disk.set_capacity(Some(0));
    let state = HardState { term: Term(7), voted_for: None };
    let writes = [Write::detached_snapshot(Some(state), snapshot, Vec::new())];
    for _ in 0..100 {
        assert!(log.append(&writes).unwrap_err().is_no_space());
    }
    for term in 8..12 {
        log.append(&[vote(term)]).and_then(|()| log.sync()).unwrap();
    }
}

/// Whoever takes in no more than there is room for never has a vote wait, however the disk fills up; and
/// room comes back by itself.
#[test]
fn votes_never_wait_for_one_who_submits_no_more_than_there_is_room_for() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let mut full = Full::with_marks(SimDisk::new(seed), Duration::from_millis(1));
        let full_at = 20 + random.below(30);
        let (mut term, mut refused, mut pending) = (1, 0, 0);
        for step in 0.. {
            if step == full_at {
                let room = random.below(3) * config().segment_bytes;
                full.disk.set_capacity(Some(full.disk.used_bytes() + room));
            }
            let command = command(full.last + 1, 1, random.below(1500) as usize);
            if full.wal.room_bytes() >= Wal::bytes_of(std::slice::from_ref(&command)) {
                full.wal.submit(Write::detached(None, None, vec![command]));
                (full.last, pending, refused) = (full.last + 1, pending + 1, 0);
            } else {
                refused += 1;
                std::thread::yield_now();
            }
            if random.one_in(4) {
                (0..pending).for_each(|_| full.hear());
                pending = 0;
            }
            if full.wal.space() == Space::Low && refused > 100 {
                break;
            }
        }
        (0..pending).for_each(|_| full.hear());
        for _ in 0..4 {
            term += 1;
            full.acknowledged(vote(term));
        }
        assert_eq!(full.wal.stats().waits_for_space, 0, "seed {seed}");
        full.disk.set_capacity(None);
        let deadline = Instant::now() + PATIENCE;
        while full.wal.room_bytes() < 2000 {
            assert!(Instant::now() < deadline, "seed {seed}: no room");
            std::thread::yield_now();
        }
        full.append();
        full.wal.close().unwrap();
    }
}
