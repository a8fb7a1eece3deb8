//! The store as the cluster uses it: it starts and stops with its node, and is handed what is to be done.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{ChunkOrder, Entry, Incoming, LogBase, Restored, Snapshot, SnapshotId, Write};
use raft_wal::{Log, OpenError, OpenedLog, WalError};

use super::{Job, Store, Unsure};
use crate::storage::Storage;
use crate::storage::durable::Durable;

impl Storage for Store {
    fn durable(&self) -> &Durable {
        &self.durable
    }

    fn pending(&self) -> impl Iterator<Item = &Entry> {
        let queued = self.queue.iter().filter_map(|job| match job {
            Job::Write(write) => Some(write),
            Job::Compact(_) | Job::Rewrite(_) => None,
        });
        let unsure = match &self.unsure {
            Some(Unsure::Writes(writes)) => writes.as_slice(),
            _ => &[],
        };
        queued.chain(unsure).flat_map(Write::entries)
    }

    fn start(&mut self) -> Result<Restored, OpenError> {
        let disk = Arc::new(self.sim.for_this_life());
        let read_errors = self.sim.stats().read_errors;
        let opened = Log::open(disk, &self.config);
        // What cannot be read for a moment may be the other copy of what cannot be read for ever.
        self.suspect |= self.harmless.unreadable && self.sim.stats().read_errors > read_errors;
        let OpenedLog { log, restored, identity: _, report } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.check_refusal(&error);
                self.may_resurface |= self.suspect || self.harmless.snapshot;
                return Err(error);
            }
        };
        self.compare(&restored, &log.snapshots().held(), &report);
        self.starts += 1;
        self.found = report;
        self.log = Some(log);
        self.newest_segment = self.segment_numbers().max().unwrap_or(0);
        Ok(restored)
    }

    /// The process ends, or the power fails.
    fn stop(&mut self) {
        self.note_rolls();
        self.copy_something();
        if let Some(log) = &self.log {
            self.ended_marked = log.is_marked();
        }
        (self.log, self.spare, self.scrub) = (None, None, None);
        self.queue.clear();
        self.receipts.clear();
        // A machine without power has to be switched off; else the cache of the system may survive.
        let power_fails = self.is_cut_off() || self.random.bool();
        self.settled = power_fails;
        if power_fails {
            self.sim.crash();
        } else {
            self.sim.restart();
        }
        self.cuts_seen = self.sim.stats().operations_cut;
    }

    fn enqueue(&mut self, write: Write) {
        self.queue.push_back(Job::Write(write));
    }

    fn compact(&mut self, base: LogBase) {
        self.queue.push_back(Job::Compact(base));
    }

    fn rewrite(&mut self, entries: Vec<Entry>) {
        self.queue.push_back(Job::Rewrite(entries));
    }

    fn keep(&mut self, base: LogBase, bytes: &Bytes) -> Result<Snapshot, WalError> {
        let writer = self.log().snapshots().create(base.clone());
        let kept = writer.and_then(|mut writer| {
            writer.write(bytes)?;
            writer.finish()
        });
        match &kept {
            Ok(snapshot) => {
                self.newest_unsure = false;
                self.durable.keep(snapshot.clone());
                self.made.push(snapshot.clone());
            }
            // Its file never had the name of a snapshot.
            Err(error) if error.is_no_space() => {}
            Err(_) => self.half_made.push((base, bytes.len() as u64)),
        }
        self.unless_cut_off(kept)
    }

    fn read_chunk(&mut self, order: &ChunkOrder) -> Result<Option<Bytes>, WalError> {
        let read = self.log().snapshots().read_chunk(order);
        self.unless_cut_off(read)
    }

    fn store(&mut self, incoming: Incoming) -> Result<Option<(SnapshotId, u64)>, WalError> {
        let held = self.log().snapshots().store(incoming);
        self.unless_cut_off(held)
    }

    fn content(&mut self, snapshot: &Snapshot) -> Result<Vec<u8>, WalError> {
        let mut bytes = Vec::new();
        let Some(mut reader) = self.log().snapshots().open(snapshot.id())? else {
            return Err(WalError::Poisoned); // It was damaged since it arrived.
        };
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(source) => Err(WalError::Disk { doing: "read", file: "a snapshot".into(), source }),
        }
    }
}
