//! The thread that owns the log: what it does next, and what besides.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use raft_core::{Entry, LogBase, Write};

use super::timers::{Timers, take_due};
use super::{Completion, Job, Queue, Shared, lock};
use crate::config::WalConfig;
use crate::error::WalError;
use crate::format::batch::batch_bytes;
use crate::helpers::{Finding, Helpers};
use crate::log::{Log, Repair};
use crate::meters::Meters;

/// The log failed and the failure was reported.
struct Failed;

/// The thread that owns the log.
pub(super) struct Writer<F> {
    shared: Arc<Shared>,
    log: Log,
    helpers: Helpers,
    timers: Timers,
    meters: Meters,
    batch_bytes: u64,
    batch_records: usize,
    on_completion: F,
}

/// What the writer does next.
enum Work {
    Writes(Vec<Write>),
    Compact(LogBase),
    Rewrite(Vec<Entry>),
    /// Findings of the helpers, or a timer.
    Chores,
    /// No more will come.
    End,
}

impl<F: FnMut(Completion)> Writer<F> {
    pub(super) fn new(
        shared: &Arc<Shared>,
        log: Log,
        helpers: Helpers,
        timers: Timers,
        config: &WalConfig,
        on_completion: F,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            timers,
            meters: Meters::new(),
            log,
            helpers,
            batch_bytes: config.batch_bytes,
            batch_records: config.batch_records,
            on_completion,
        }
    }

    /// The life of the thread: until the queue is closed and empty, or the log fails.
    pub(super) fn live(mut self) -> Result<(), WalError> {
        // A panic is a bug; whoever waits must learn of it all the same.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run()));
        let outcome = outcome.unwrap_or_else(|_| {
            self.fail(WalError::WriterPanicked);
            Err(Failed)
        });
        self.helpers.stop();
        match outcome {
            Ok(()) => self.log.close(),
            Err(Failed) => Err(WalError::Poisoned),
        }
    }

    fn run(&mut self) -> Result<(), Failed> {
        loop {
            let done = match self.next_work() {
                Work::Writes(mut batch) => self.write_when_there_is_room(&mut batch),
                Work::Compact(base) => self.log.compact(&base),
                Work::Rewrite(entries) => self.rewrite(&entries),
                Work::Chores => Ok(()),
                Work::End => return Ok(()),
            };
            if let Err(error) = done.and_then(|()| self.do_chores()) {
                self.fail(error);
                return Err(Failed);
            }
        }
    }

    /// Nothing more will be durable.
    fn fail(&mut self, error: WalError) {
        let mut queue = self.shared.queue();
        queue.failed = true;
        queue.jobs = VecDeque::new();
        drop(queue);
        tracing::error!(%error, "the log failed");
        (self.on_completion)(Completion::Failed(error));
    }

    /// Waits for something to do. Writes that are queued are taken together: they share the next
    /// sync.
    fn next_work(&self) -> Work {
        let timeout = self.timers.next().map(|at| at.saturating_duration_since(Instant::now()));
        let ready =
            |queue: &Queue| queue.closed || !queue.jobs.is_empty() || !queue.findings.is_empty();
        let mut queue = self.shared.wait(timeout, ready);
        let (mut batch, mut bytes, mut records) = (Vec::new(), 0, 0);
        while let Some(Job::Write(write)) = queue.jobs.front() {
            bytes += Log::write_bytes(write);
            // A vote, a truncation and a snapshot besides the entries.
            records += write.entries().len() + 3;
            let full = bytes > self.batch_bytes
                || records > self.batch_records
                // It begins a segment of its own.
                || write.snapshot().is_some();
            if full && !batch.is_empty() {
                break;
            }
            if let Some(Job::Write(write)) = queue.jobs.pop_front() {
                batch.push(write);
            }
        }
        if !batch.is_empty() {
            return Work::Writes(batch);
        }
        match queue.jobs.pop_front() {
            Some(Job::Write(write)) => Work::Writes(vec![write]),
            Some(Job::Compact(base)) => Work::Compact(base),
            Some(Job::Rewrite(entries)) => Work::Rewrite(entries),
            None if queue.closed => Work::End,
            None => Work::Chores,
        }
    }

    /// On a full disk the writes wait; those before the first that needs room go ahead, and so does a
    /// compaction, which makes some.
    fn write_when_there_is_room(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let mut waited = false;
        loop {
            let error = match self.write_what_fits(batch) {
                Err(error) if error.is_no_space() => error,
                done => return done,
            };
            if !waited {
                lock(&self.shared.stats).waits_for_space += 1;
                waited = true;
            }
            self.space_is_low(&error);
            let event = |queue: &Queue| queue.closed || !queue.findings.is_empty();
            let mut queue = self.shared.wait(Some(self.timers.space_retry), event);
            if queue.closed {
                return Err(error);
            }
            let compaction = queue.compaction_behind(batch);
            drop(queue);
            if let Some(base) = compaction {
                self.log.compact(&base)?;
            }
            self.take_findings()?;
        }
    }

    /// Writes the batch, or what stands in it before the first write that needs room; takes out of it
    /// what was written.
    fn write_what_fits(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let error = match self.write(batch) {
            Err(error) if error.is_no_space() => error,
            done => return done,
        };
        let modest = batch.iter().position(Log::is_bulk).unwrap_or_default();
        if modest == 0 {
            return Err(error);
        }
        let mut rest = batch.split_off(modest);
        let outcome = self.write(batch);
        batch.append(&mut rest);
        outcome?;
        self.write(batch)
    }

    /// Makes the batch durable and acknowledges it; only then, and only all of it.
    fn write(&mut self, batch: &mut Vec<Write>) -> Result<(), WalError> {
        let started = Instant::now();
        let segment = self.log.segment_id();
        self.log.append(batch)?;
        self.log.sync()?;
        let took = started.elapsed();
        if self.log.segment_id() != segment {
            self.space_is_ample();
        }
        self.timers.mark_later(Instant::now());
        self.tell_room();
        let room = batch.iter().map(|write| batch_bytes(Log::write_bytes(write))).sum();
        self.shared.backlog.fetch_sub(room, Ordering::AcqRel);
        let bytes: u64 = batch.iter().map(Log::write_bytes).sum();
        let mut stats = lock(&self.shared.stats);
        stats.batches += 1;
        stats.writes += batch.len() as u64;
        let entries = batch.iter().map(|write| write.entries().len() as u64).sum::<u64>();
        stats.entries += entries;
        stats.bytes += bytes;
        stats.last_sync = took;
        stats.longest_sync = stats.longest_sync.max(took);
        stats.total_sync += took;
        drop(stats);
        self.meters.synced(took, entries);
        if is_slow(took) {
            tracing::warn!(?took, "the log's disk is slow");
        }
        for write in batch.drain(..) {
            (self.on_completion)(Completion::Durable(write.into_receipt()));
        }
        Ok(())
    }

    fn tell_room(&self) {
        self.shared.room.store(self.log.room_bytes(), Ordering::Release);
    }

    fn rewrite(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        match self.log.rewrite(entries) {
            Err(error @ (WalError::NoSpace { .. } | WalError::Refused { .. })) => {
                // Of what was damaged something was cut off or dropped meanwhile, or there is no room.
                // The next scrub finds the damage again, if it is still there.
                tracing::warn!(%error, "a damaged segment cannot be written again yet");
                Ok(())
            }
            done => {
                done?;
                lock(&self.shared.stats).repairs += 1;
                self.meters.repaired();
                tracing::info!("a damaged segment was written again");
                Ok(())
            }
        }
    }

    /// What is due besides the jobs.
    fn do_chores(&mut self) -> Result<(), WalError> {
        self.take_findings()?;
        let now = Instant::now();
        // What is left on a full disk is for votes.
        if take_due(&mut self.timers.mark, now) && !self.shared.space_low.load(Ordering::Relaxed) {
            self.log.mark()?;
        }
        if take_due(&mut self.timers.scrub, now) {
            // Asked again when it is done, or later if there was nothing to do.
            self.timers.scrub_later(now);
            if self.log.next_scrub().is_some_and(|job| self.helpers.scrub(job)) {
                self.timers.scrub = None;
            }
        }
        if self.timers.may_ask_for_room(now)
            && let Some(job) = self.log.spare_wanted()
        {
            self.timers.space = None;
            self.helpers.prepare(job);
        }
        self.tell_room();
        Ok(())
    }

    fn take_findings(&mut self) -> Result<(), WalError> {
        let findings = std::mem::take(&mut self.shared.queue().findings);
        for finding in findings {
            match finding {
                Finding::Spare(Ok(spare)) => {
                    self.log.offer_spare(spare);
                    self.space_is_ample();
                }
                Finding::Spare(Err(error)) if error.is_no_space() => {
                    self.log.spare_failed();
                    self.timers.ask_for_room_later(Instant::now());
                    self.space_is_low(&error);
                }
                // Whoever submits no more than there is room for would wait for it for ever.
                Finding::Spare(Err(error)) => return Err(error),
                Finding::Scrubbed(scrubbed) => {
                    self.timers.scrub_later(Instant::now());
                    let mut stats = lock(&self.shared.stats);
                    stats.scrubbed_bytes += scrubbed.bytes();
                    stats.damages += u64::from(scrubbed.damage().is_some());
                    drop(stats);
                    self.meters.scrubbed(scrubbed.bytes(), scrubbed.damage().is_some());
                    let repair = self.log.scrubbed(&scrubbed)?;
                    if repair != Repair::None {
                        (self.on_completion)(Completion::Damaged(repair));
                    }
                }
            }
        }
        Ok(())
    }

    fn space_is_low(&self, error: &WalError) {
        if !self.shared.space_low.swap(true, Ordering::Relaxed) {
            self.meters.space(true);
            tracing::error!(%error, "the disk is full: entries wait for room");
        }
    }

    fn space_is_ample(&mut self) {
        self.timers.space = None;
        if self.shared.space_low.swap(false, Ordering::Relaxed) {
            self.meters.space(false);
            tracing::info!("there is room on the disk again");
        }
    }
}

/// Is a batch that took so long worth a warning?
pub(super) fn is_slow(took: Duration) -> bool {
    took > Duration::from_secs(1)
}
