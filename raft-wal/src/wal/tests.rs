//! A log that waits for room: what wakes it, and how often it asks.

use std::sync::mpsc::{Receiver, channel};

use raft_core::{HardState, LogIndex, Membership, NodeId, Payload, Term, Timestamp};

use super::*;
use crate::sim::{Fault, FaultRule, Operation, SimDisk};

const PATIENCE: Duration = Duration::from_secs(30);

fn config() -> WalConfig {
    let node = NodeId::new(1).unwrap();
    WalConfig {
        segment_bytes: crate::SEGMENT_BYTES_MIN,
        mark_after: 100 * PATIENCE,
        scrub_interval: Duration::ZERO,
        ..WalConfig::new("simulated", "tests", node, Membership::new([node]).unwrap())
    }
}

fn entry(index: u64) -> Write {
    let entry = Entry {
        index: LogIndex(index),
        term: Term(0),
        timestamp: Timestamp(0),
        payload: Payload::Command(vec![7; 900].into()),
    };
    Write::detached(None, None, vec![entry])
}

fn vote(term: u64) -> Write {
    Write::detached(Some(HardState { term: Term(term), voted_for: None }), None, Vec::new())
}

/// A log of a full disk that does not look by itself whether there is room again.
fn full(disk: &SimDisk) -> (Wal, Receiver<Completion>) {
    full_with(disk, || {})
}

/// The same; behind each completion the writer does this before anything else.
fn full_with(disk: &SimDisk, behind: impl Fn() + Send + 'static) -> (Wal, Receiver<Completion>) {
    let (tell, completions) = channel();
    let OpenedLog { log, .. } = Log::open(Arc::new(disk.for_this_life()), &config()).unwrap();
    let mut timers = Timers::new(&config(), Instant::now());
    timers.space_retry = 100 * PATIENCE;
    disk.set_capacity(Some(disk.used_bytes()));
    let tell = move |completion| {
        drop(tell.send(completion));
        behind();
    };
    (Wal::start(log, timers, &config(), tell).unwrap(), completions)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for ever: {what}");
        thread::yield_now();
    }
}

/// Submits entries until one waits; the number of the last.
fn fill(wal: &Wal, completions: &Receiver<Completion>) -> u64 {
    for index in 1.. {
        wal.submit(entry(index));
        wait_until("written or not", || {
            let stats = wal.stats();
            stats.writes == index || stats.waits_for_space > 0
        });
        if wal.stats().waits_for_space > 0 {
            return index;
        }
        let completion = completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
    }
    unreachable!("the disk is full")
}

/// Closed, it ends at once: what waits was never acknowledged. Until then it asks for room when there is
/// a reason to, and not all the time.
#[test]
fn a_log_that_waits_for_room_wakes_up_to_be_closed() {
    let disk = SimDisk::new(1);
    let (wal, completions) = full(&disk);
    // Whoever asks for room creates a file, or tries to; what is slow is counted.
    let slow = Fault::Slow(Duration::from_nanos(1));
    disk.add_fault(FaultRule::new(slow).on(&[Operation::Create]).always());
    fill(&wal, &completions);
    assert_eq!(wal.space(), Space::Low);
    let quiet = completions.recv_timeout(Duration::from_millis(20));
    assert!(quiet.is_err(), "{quiet:?}");
    let (done, closed) = channel();
    thread::spawn(move || done.send(wal.close()));
    let outcome = closed.recv_timeout(PATIENCE).expect("it is woken up");
    assert!(matches!(outcome, Err(WalError::Poisoned)), "{outcome:?}");
    let told = completions.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(told, Completion::Failed(WalError::NoSpace { .. })), "{told:?}");
    // One to prepare the next segment, one for the write, and that again when the first has failed.
    let attempts = disk.stats().slow_operations;
    assert!((2..=3).contains(&attempts), "{attempts}");
}

/// A vote that finds its place in the segment says nothing about room for another one.
#[test]
fn a_disk_stays_full_until_there_is_room_for_a_segment() {
    let disk = SimDisk::new(1);
    let gate = Arc::new(Mutex::new(()));
    let pass = Arc::clone(&gate);
    let (wal, completions) = full_with(&disk, move || drop(lock(&pass)));
    let hear = || {
        let completion = completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
    };
    // Until the next segment is to be prepared, and cannot be.
    let mut index = 0;
    while wal.room_bytes() > 2 * Wal::bytes_of(entry(1).entries()) {
        index += 1;
        wal.submit(entry(index));
        hear();
    }
    wait_until("the shortage", || wal.space() == Space::Low);
    let standstill = lock(&gate);
    wal.submit(vote(1));
    hear();
    assert_eq!(wal.space(), Space::Low);
    drop(standstill);
    disk.set_capacity(None);
    assert_eq!(wal.stats().waits_for_space, 0);
    for _ in 0..4 {
        index += 1;
        wal.submit(entry(index));
        hear();
    }
    assert_eq!(wal.space(), Space::Ample);
    wal.close().unwrap();
}

/// Whoever submits no more than there is room for would wait for a segment that never comes.
#[test]
fn a_segment_that_cannot_be_prepared_for_another_reason_ends_the_log() {
    let disk = SimDisk::new(1);
    let (wal, completions) = full(&disk);
    disk.set_capacity(None);
    disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::Create]).files("spare-"));
    wal.submit(entry(1));
    wal.submit(entry(2));
    let mut told = completions.iter().filter(|it| !matches!(it, Completion::Durable(_)));
    let failure = told.next().unwrap();
    assert!(matches!(failure, Completion::Failed(WalError::Disk { .. })), "{failure:?}");
    assert!(wal.close().is_err());
}

#[test]
fn a_sync_of_more_than_a_second_is_slow() {
    assert!(!writer::is_slow(Duration::from_secs(1)));
    assert!(writer::is_slow(Duration::from_millis(1001)));
}
