//! raft-wal: the log itself, and the log on its thread.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{Entry, LogIndex, Membership, NodeId, Payload, Term, Timestamp, Write};
use raft_wal::{Completion, Log, Opened, Wal, WalConfig};
use tempfile::TempDir;

use crate::counting::{CountingDisk, Syncs};
use crate::{Cost, Side, directory, measure};

/// A log with the default sizes in this directory.
pub fn config(directory: &Path) -> WalConfig {
    let node = NodeId::new(1).expect("not zero");
    let members = Membership::new([node]).expect("one member");
    WalConfig::new(directory, "bench", node, members)
}

/// Entries with these commands, each time the same ones, at growing indexes.
pub struct Entries {
    commands: Vec<Bytes>,
    last: u64,
}

impl Entries {
    /// Behind an empty log.
    pub fn new(commands: Vec<Bytes>) -> Self {
        Self { commands, last: 0 }
    }

    /// The next one.
    pub fn next_entry(&mut self) -> Entry {
        let command = self.commands[self.last as usize % self.commands.len()].clone();
        self.last += 1;
        Entry {
            index: LogIndex(self.last),
            term: Term(1),
            timestamp: Timestamp(self.last),
            payload: Payload::Command(command),
        }
    }

    /// As many writes of one entry each.
    pub fn writes(&mut self, count: usize) -> Vec<Write> {
        (0..count).map(|_| Write::detached(None, None, vec![self.next_entry()])).collect()
    }

    /// One write of as many entries: what a node hands out.
    pub fn one_write(&mut self, count: usize) -> Vec<Write> {
        vec![Write::detached(None, None, (0..count).map(|_| self.next_entry()).collect())]
    }
}

/// [`Log`] on one thread.
pub struct Synchronous {
    log: Log,
    syncs: Syncs,
    entries: Entries,
    _directory: TempDir,
}

impl Synchronous {
    /// With an empty log.
    pub fn new(commands: Vec<Bytes>) -> Self {
        let directory = directory();
        let (disk, syncs) = CountingDisk::open(directory.path());
        let opened = Log::open(Arc::new(disk), &config(directory.path()));
        let log = opened.expect("the directory is new").log;
        Self { log, syncs, entries: Entries::new(commands), _directory: directory }
    }
}

impl Side for Synchronous {
    fn run(&mut self, batches: usize, records: usize) -> Cost {
        // What the thread of a `Wal` beside the writer does.
        if let Some(job) = self.log.spare_wanted() {
            self.log.offer_spare(job.run().expect("there is room"));
        }
        let batches: Vec<_> = (0..batches).map(|_| self.entries.one_write(records)).collect();
        measure(
            &batches,
            || self.syncs.count(),
            |batch| {
                self.log.append(batch).expect("the disk works");
                self.log.sync().expect("the disk works");
            },
            || {},
        )
    }
}

/// How the commands of a batch reach the thread.
#[derive(Clone, Copy)]
pub enum Handover {
    /// In as many writes.
    Each,
    /// In one write.
    Together,
}

/// [`Wal`]: submits a batch, and waits for all of its receipts.
pub struct Threaded {
    wal: Wal,
    /// So many receipts are wanted.
    wanted: Arc<AtomicU64>,
    /// The last of them came.
    done: Receiver<()>,
    handover: Handover,
    syncs: Syncs,
    entries: Entries,
    _directory: TempDir,
}

impl Threaded {
    /// With an empty log.
    pub fn new(commands: Vec<Bytes>, handover: Handover) -> Self {
        let directory = directory();
        let (disk, syncs) = CountingDisk::open(directory.path());
        let (tell, done) = channel();
        let wanted = Arc::new(AtomicU64::new(0));
        let (all, mut came) = (Arc::clone(&wanted), 0);
        // They come in their order, so the last one is that of the whole batch.
        let on_completion = move |completion| match completion {
            Completion::Durable(_) => {
                came += 1;
                if came == all.load(Ordering::Relaxed) {
                    tell.send(()).expect("the benchmark waits for it");
                }
            }
            other => panic!("the disk works, but: {other:?}"),
        };
        let opened = Wal::open_on(Arc::new(disk), config(directory.path()), on_completion);
        let Opened { wal, .. } = opened.expect("the directory is new");
        let entries = Entries::new(commands);
        Self { wal, wanted, done, handover, syncs, entries, _directory: directory }
    }
}

impl Side for Threaded {
    fn run(&mut self, batches: usize, records: usize) -> Cost {
        let batch = |_| match self.handover {
            Handover::Each => self.entries.writes(records),
            Handover::Together => self.entries.one_write(records),
        };
        let batches: Vec<_> = (0..batches).map(batch).collect();
        measure(
            batches,
            || self.syncs.count(),
            |batch| {
                self.wanted.fetch_add(batch.len() as u64, Ordering::Relaxed);
                batch.into_iter().for_each(|write| self.wal.submit(write));
                self.done.recv().expect("the writer lives");
            },
            // For its mark, and for the segment that it may be preparing.
            || sleep(Duration::from_millis(60)),
        )
    }
}
