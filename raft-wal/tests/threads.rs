//! The log on its thread and on real files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use raft_core::{HardState, LogBase, LogIndex, LogPosition, Term, Timestamp, Write};
use raft_wal::sim::{Damage, Fault, FaultRule, SimDisk};
use raft_wal::{Completion, OpenError, OpenErrorKind, Opened, Repair, Wal, WalConfig, WalError};
use support::between::{Between, Meddler};
use support::{Random, Twin, command, config, twin_of};

const PATIENCE: Duration = Duration::from_secs(30);

fn open_in(dir: &std::path::Path) -> Result<(Opened, Receiver<Completion>), OpenError> {
    let (done, completions) = channel();
    let config = WalConfig { dir: dir.to_owned(), ..config() };
    let opened = Wal::open(config, move |completion| drop(done.send(completion)))?;
    Ok((opened, completions))
}

fn open_on(disk: &SimDisk) -> (Opened, Receiver<Completion>) {
    let (done, completions) = channel();
    let tell = move |completion| drop(done.send(completion));
    let opened = Wal::open_on(Arc::new(disk.for_this_life()), config(), tell).unwrap();
    (opened, completions)
}

fn append(index: u64) -> Write {
    Write::detached(None, None, vec![command(index, 1, 300)])
}

#[test]
fn what_waits_shares_a_sync_and_is_acknowledged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (done, completions) = channel();
    let (open_gate, gate) = channel::<()>();
    let config = WalConfig { dir: dir.path().to_owned(), segment_bytes: 1 << 20, ..config() };
    // The first acknowledgement holds the writer up until the rest is submitted, or the gate is
    // gone.
    let mut held_up = false;
    let on_completion = move |completion| {
        if !std::mem::replace(&mut held_up, true) {
            gate.recv_timeout(PATIENCE).ok();
        }
        drop(done.send(completion));
    };
    let Opened { wal, .. } = Wal::open(config.clone(), on_completion).unwrap();
    let mut random = Random(1);
    let mut twin = Twin::default();
    let mut expected = Vec::new();
    for _ in 0..1000 {
        let write = twin.random_write(&mut random);
        twin.apply(&write);
        let (state, from) = (write.hard_state(), write.truncate_from());
        expected.push(Write::detached(state, from, write.entries().to_vec()).into_receipt());
        wal.submit(write);
    }
    open_gate.send(()).unwrap();
    for receipt in expected {
        match completions.recv_timeout(PATIENCE).unwrap() {
            Completion::Durable(acknowledged) => assert_eq!(acknowledged, receipt),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(wal.backlog_bytes(), 0);
    let stats = wal.stats();
    assert_eq!(stats.writes, 1000);
    // Some before the gate, then as few as the limits of a batch allow.
    assert!(stats.batches < 20, "{stats:?}");
    assert!(stats.longest_sync >= stats.last_sync && stats.total_sync >= stats.longest_sync);
    wal.close().unwrap();
    assert!(completions.recv().is_err(), "the callback is gone, nothing comes any more");
    let Opened { restored, .. } = Wal::open(config, |_| {}).unwrap();
    assert!(twin_of(&restored) == twin);
}

#[test]
fn closing_and_dropping_finish_what_was_submitted() {
    for close in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (opened, completions) = open_in(dir.path()).unwrap();
        (1..=500).for_each(|index| opened.wal.submit(append(index)));
        if close {
            opened.wal.close().unwrap();
        } else {
            drop(opened);
        }
        assert_eq!(completions.iter().count(), 500);
        let (opened, _) = open_in(dir.path()).unwrap();
        assert_eq!(opened.restored.entries.len(), 500);
        assert_eq!(opened.report.torn_bytes, 0);
    }
}

#[test]
fn a_failure_is_told_once_and_nothing_after_it() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (opened, completions) = open_on(&disk);
        disk.inject(Fault::Error, seed);
        let mut index = 0;
        let error = loop {
            index += 1;
            if index % 100 == 0 {
                // The fault may have hit the preparation of a spare, which the log does without.
                disk.inject(Fault::Error, 0);
            }
            assert!(index < 10_000, "seed {seed}: no fault ever reached the log");
            opened.wal.submit(append(index));
            match completions.recv_timeout(PATIENCE).unwrap() {
                Completion::Durable(_) => {}
                Completion::Failed(error) => break error,
                other @ Completion::Damaged(_) => panic!("{other:?}"),
            }
        };
        assert!(matches!(error, WalError::Disk { .. }), "seed {seed}: {error}");
        opened.wal.submit(append(index + 1));
        assert!(matches!(opened.wal.close(), Err(WalError::Poisoned)), "seed {seed}");
        assert!(completions.recv().is_err(), "seed {seed}");
        assert_eq!(disk.stats().syncs_after_failure, 0, "seed {seed}");
        disk.crash();
        let (opened, _) = open_on(&disk);
        let entries = opened.restored.entries.len() as u64;
        assert!(entries == index - 1 || entries == index, "seed {seed}: {entries} of {index}");
    }
}

#[test]
fn a_spare_is_prepared_in_the_background_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let (opened, completions) = open_in(dir.path()).unwrap();
    for index in 1..=400 {
        opened.wal.submit(append(index));
        let completion = completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
    }
    opened.wal.close().unwrap();
    let (opened, _) = open_in(dir.path()).unwrap();
    assert!(opened.report.segments > 5, "{:?}", opened.report);
    assert_eq!(opened.report.entries, 400);
}

#[test]
fn a_failed_callback_thread_does_not_hang_the_owner() {
    let disk = SimDisk::new(1);
    let panics = |_| panic!("this panic is part of the test");
    let opened = Wal::open_on(Arc::new(disk), config(), panics).unwrap();
    opened.wal.submit(append(1));
    assert!(matches!(opened.wal.close(), Err(WalError::WriterPanicked)));
}

#[test]
fn a_wrong_configuration_touches_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("never");
    let config = WalConfig { dir: dir.clone(), cluster: String::new(), ..config() };
    let error = Wal::open(config, |_| {}).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::Misconfigured);
    assert!(!dir.exists());
}

#[test]
fn a_directory_that_is_a_file_is_a_disk_failure() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("file");
    std::fs::write(&dir, "not a directory").unwrap();
    let error = open_in(&dir).err().unwrap();
    assert_eq!(error.kind(), OpenErrorKind::DiskFailure, "{error}");
}

/// The file that holds the entries is read again, found damaged, and written again from memory.
#[test]
fn damage_at_rest_is_found_told_and_repaired() {
    let disk = SimDisk::new(1);
    let (done, completions) = channel();
    let tell = move |completion| drop(done.send(completion));
    let often = WalConfig { scrub_interval: Duration::from_millis(1), ..config() };
    let handle = Arc::new(disk.for_this_life());
    let Opened { wal, .. } = Wal::open_on(handle, often, tell).unwrap();
    for index in 1..=100 {
        // One by one, so that they do not share one long segment.
        wal.submit(append(index));
        let completion = completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
    }
    // Of another log, or too late: nothing comes of it.
    wal.rewrite(vec![command(7, 9, 1)]);
    let mut names = disk.names();
    names.sort_by_key(|name| name[name.len().saturating_sub(20)..].to_owned());
    let second = names.iter().filter(|name| name.starts_with("segment-")).nth(1).unwrap();
    assert!(disk.damage(second, &Damage::FlipBit { at: 9000, bit: 3 }));
    let Completion::Damaged(Repair::Entries { after }) =
        completions.recv_timeout(PATIENCE).unwrap()
    else {
        panic!("something else came first");
    };
    wal.rewrite((after.0 + 1..=100).map(|index| command(index, 1, 300)).collect());
    // Behind it in the queue.
    wal.submit(append(101));
    while !matches!(completions.recv_timeout(PATIENCE).unwrap(), Completion::Durable(_)) {}
    let stats = wal.stats();
    assert!(stats.damages >= 1 && stats.scrubbed_bytes >= 16 << 10, "{stats:?}");
    wal.close().unwrap();
    disk.crash();
    let (opened, _) = open_on(&disk);
    assert_eq!(opened.restored.entries.len(), 101);
    assert_eq!(opened.report.damage, None);
}

/// Snapshots are cut beside the log, which then forgets what it does not need; and a log with nothing to do
/// at any time waits for what comes.
#[test]
fn a_log_is_compacted_in_its_turn() {
    let disk = SimDisk::new(1);
    let (done, completions) = channel();
    let tell = move |completion| drop(done.send(completion));
    let idle = WalConfig { scrub_interval: Duration::ZERO, ..config() };
    let Opened { wal, .. } = Wal::open_on(Arc::new(disk.for_this_life()), idle, tell).unwrap();
    let base = |index| LogBase {
        position: LogPosition::new(Term(1), LogIndex(index)),
        timestamp: Timestamp(1000 + index),
        membership: support::members(&[1, 2, 3]),
        membership_index: LogIndex(0),
    };
    let vote = HardState { term: Term(1), voted_for: None };
    wal.submit(Write::detached(Some(vote), None, Vec::new()));
    completions.recv_timeout(PATIENCE).unwrap();
    for index in 1..=200 {
        wal.submit(append(index));
        completions.recv_timeout(PATIENCE).unwrap();
        if index % 50 == 0 {
            wal.snapshots().create(base(index)).unwrap().finish().unwrap();
            wal.compact(base(index));
        }
    }
    wal.close().unwrap();
    disk.crash();
    let (opened, _) = open_on(&disk);
    assert_eq!((opened.restored.base, opened.restored.entries.len()), (base(200), 0));
    assert!(opened.report.segments < 12, "{:?}", opened.report);
}

/// Nobody asks how it went, and it went badly.
#[test]
fn dropping_a_log_that_failed_is_no_panic() {
    let disk = SimDisk::new(1);
    let (opened, completions) = open_on(&disk);
    disk.add_fault(FaultRule::new(Fault::Error).files("segment-"));
    opened.wal.submit(append(1));
    assert!(matches!(completions.recv_timeout(PATIENCE).unwrap(), Completion::Failed(_)));
    drop(opened);
}

const CHILD_DIRECTORY: &str = "RAFT_WAL_TEST_CHILD_DIRECTORY";

/// The process that [`a_killed_process_loses_nothing_and_its_lock`] starts: it writes, tells on its
/// standard error what was acknowledged, and goes on until it is killed.
#[test]
#[ignore = "no test of its own: another one runs it as a process"]
fn child_process() {
    let Some(dir) = std::env::var_os(CHILD_DIRECTORY) else {
        return;
    };
    let (opened, completions) = open_in(dir.as_ref()).unwrap();
    for index in 1.. {
        opened.wal.submit(append(index));
        let completion = completions.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(completion, Completion::Durable(_)), "{completion:?}");
        // In one piece, so that no half of a number is ever read.
        std::io::stderr().write_all(format!("acknowledged {index}\n").as_bytes()).unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_and_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--ignored", "--nocapture"])
        .env(CHILD_DIRECTORY, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged: u64 = 0;
    let mut note = |line: String| {
        if let Some(index) = line.strip_prefix("acknowledged ") {
            acknowledged = index.parse().unwrap();
        }
        acknowledged
    };
    while note(lines.next().expect("the child writes until it is killed")) < 100 {}
    let error = open_in(dir.path()).err().unwrap();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    assert!(error.is_safety_refusal());
    child.kill().unwrap();
    child.wait().unwrap();
    lines.for_each(|line| {
        note(line);
    });
    let (opened, _) = open_in(dir.path()).unwrap();
    let entries = opened.restored.entries.len() as u64;
    assert!(entries >= acknowledged, "{entries} of {acknowledged} acknowledged");
    assert!(entries <= acknowledged + 1);
}

/// From when on a write panics.
#[derive(Default)]
struct Bug(AtomicBool);

impl Meddler for Bug {
    fn write(&self) -> Option<usize> {
        assert!(!self.0.load(Ordering::Relaxed), "a bug, for the test");
        None
    }
}

#[test]
fn a_bug_in_the_writer_is_told_and_nothing_is_queued_for_ever() {
    let bug = Arc::new(Bug::default());
    let disk = Between::on(&SimDisk::new(1), Arc::clone(&bug));
    let (done, completions) = channel();
    let tell = move |completion| drop(done.send(completion));
    let Opened { wal, .. } = Wal::open_on(disk, config(), tell).unwrap();
    let next = || completions.recv_timeout(PATIENCE).unwrap();
    wal.submit(append(1));
    assert!(matches!(next(), Completion::Durable(_)));
    bug.0.store(true, Ordering::Relaxed);
    wal.submit(append(2));
    assert!(matches!(next(), Completion::Failed(WalError::WriterPanicked)));
    let backlog = wal.backlog_bytes();
    wal.submit(append(3));
    assert_eq!(wal.backlog_bytes(), backlog);
    assert!(matches!(wal.close(), Err(WalError::Poisoned)));
}
