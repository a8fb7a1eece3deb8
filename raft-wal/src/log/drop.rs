//! What is not needed any more: compaction, and the removal of segments.

use raft_core::{LogBase, LogIndex};

use super::{Log, Urgency};
use crate::disk::{remove, sync_directory};
use crate::error::WalError;
use crate::format::batch::Encoder;
use crate::format::header::SegmentHeader;
use crate::format::record::base_bytes;
use crate::recovery::plan::Sealed;

impl Log {
    /// Writes down that the log up to `base` is not needed any more
    /// ([`Output::compacted`](raft_core::Output)), and removes the segments that nothing needs: not
    /// the node, and not the older of the two snapshots, which would have to stand in if the newer
    /// one turned out damaged.
    ///
    /// # Errors
    /// If the disk fails, or the base is not in the log. The log is then poisoned.
    pub fn compact(&mut self, base: &LogBase) -> Result<(), WalError> {
        self.unless_poisoned(|log| {
            log.state.compact(base).map_err(|reason| WalError::Refused { reason })?;
            let written = log.put_batch(base_bytes(base), Urgency::Urgent, |log| {
                let group = log.state.group();
                let mut encoder = Encoder::new(&mut log.buffer, log.segment.frame());
                encoder.compacted(group, base);
                Ok(encoder.finish(log.state.outcome()))
            });
            // On a full disk this is what makes room. Without the record the next start merely
            // remembers more than it needs.
            unless_full(written)?;
            log.sync_segment()?;
            let needed = base.position.index.min(log.snapshots.fallback_index());
            unless_full(log.drop_behind_snapshot(needed).map(drop))
        })
    }

    /// The log is cut off from here on: segments that stand on what was there are no beginnings.
    pub(super) fn cut_off(&mut self, from: LogIndex) {
        let current = (&self.header, &mut self.is_beginning);
        let sealed = self.sealed.iter_mut().map(|it| (&it.header, &mut it.is_beginning));
        for (header, is_beginning) in sealed.chain([current]) {
            *is_beginning &= header.base.position.index < from;
        }
    }

    /// How many sealed segments could go, if the log up to this index is not needed.
    pub(super) fn count_not_needed(&self, index: LogIndex) -> usize {
        let could_begin = |is_beginning, header: &SegmentHeader| {
            is_beginning && header.base.position.index <= index
        };
        if could_begin(self.is_beginning, &self.header) {
            return self.sealed.len();
        }
        let first = self.sealed.iter().rposition(|it| could_begin(it.is_beginning, &it.header));
        first.unwrap_or_default()
    }

    /// Removes the segments that hold nothing behind this index, if there is a snapshot that stands for
    /// them; false if there is none.
    pub(super) fn drop_behind_snapshot(&mut self, index: LogIndex) -> Result<bool, WalError> {
        let count = self.count_not_needed(index);
        if count > 0 && !self.snapshots.ascertain(index)? {
            return Ok(false);
        }
        self.drop_segments(count)?;
        Ok(true)
    }

    /// Removes so many sealed segments, the oldest ones.
    pub(super) fn drop_segments(&mut self, count: usize) -> Result<(), WalError> {
        if count == 0 {
            return Ok(());
        }
        for Sealed { name, .. } in self.sealed.drain(..count) {
            remove(self.disk.as_ref(), &name)?;
        }
        // If they come back after a power cut, the next start removes them again.
        Ok(sync_directory(self.disk.as_ref())?)
    }
}

/// No room is no failure of something that can be done later.
fn unless_full(outcome: Result<(), WalError>) -> Result<(), WalError> {
    match outcome {
        Err(error) if error.is_no_space() => Ok(()),
        outcome => outcome,
    }
}
