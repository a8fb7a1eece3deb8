//! Damage at rest: what is looked at next, what is done about a finding, and writing a part of the log
//! again.

use std::sync::Arc;

use raft_core::{Entry, GroupId, LogIndex};

use super::segment::{data_bytes, write_again};
use super::{Log, WalError};
use crate::config::SEGMENT_BYTES_MAX;
use crate::disk::{remove, sync_directory};
use crate::format::header::SegmentHeader;
use crate::format::record::{Record, entry_bytes};
use crate::recovery::plan::{Sealed, Tail, TailBatch};
use crate::scrub::{ScrubJob, Scrubbed, Target};
use crate::state::LogState;

impl Log {
    /// An order to read something that was durable long ago, and to see whether it still is what it
    /// was: each sealed segment and each snapshot in turn. `None` if there is nothing of that kind.
    pub fn next_scrub(&mut self) -> Option<ScrubJob> {
        let target = match self.snapshots.damaged() {
            Some(snapshot) => Target::Snapshot(snapshot),
            None => self.next_in_turn()?,
        };
        let (disk, directory) = (Arc::clone(&self.disk), self.header.directory);
        Some(ScrubJob { disk, directory, snapshots: self.snapshots.clone(), target })
    }

    fn next_in_turn(&mut self) -> Option<Target> {
        let held = self.snapshots.held();
        let places = self.sealed.len() + held.len();
        let turn = self.scrub_turn.checked_rem(places)?;
        self.scrub_turn = turn + 1;
        Some(match self.sealed.get(turn) {
            Some(Sealed { name, header, .. }) => {
                let next = self.sealed.get(turn + 1).map_or(&self.header, |it| &it.header);
                let link = next.previous?;
                Target::Segment { name: name.clone(), id: header.id, link }
            }
            None => Target::Snapshot(held.get(turn - self.sealed.len())?.clone()),
        })
    }

    /// Takes in what a scrub found. What nothing needs any more is removed at once.
    ///
    /// # Errors
    /// If the disk fails while something is removed.
    pub fn scrubbed(&mut self, scrubbed: &Scrubbed) -> Result<Repair, WalError> {
        let Some(damage) = &scrubbed.damage else { return Ok(Repair::None) };
        let id = match &scrubbed.target {
            Target::Snapshot(snapshot) => {
                tracing::error!(%damage, "a snapshot was damaged at rest");
                self.snapshots.reported(snapshot.id());
                return Ok(Repair::Snapshot);
            }
            Target::Segment { id, .. } => *id,
        };
        let Some(place) = self.sealed.iter().position(|it| it.header.id == id) else {
            return Ok(Repair::None); // It was dropped meanwhile.
        };
        tracing::error!(%damage, "a segment was damaged at rest");
        let base = self.state.base().position.index;
        if place < self.count_not_needed(base) {
            return match self.unless_poisoned(|log| log.drop_behind_snapshot(base)) {
                Ok(false) => Ok(Repair::Snapshot),
                Err(error) if !error.is_no_space() => Err(error),
                _ => Ok(Repair::None),
            };
        }
        let beginning = self.sealed.iter().take(place + 1).rev().find(|it| it.is_beginning);
        let from = beginning.map_or(base, |it| it.header.base.position.index);
        Ok(Repair::Entries { after: from.max(base) })
    }

    /// Writes all entries behind a place named by [`Repair::Entries`] again, into a segment that takes
    /// the place of those that held them. `entries` is all of the log behind there, up to its last entry.
    ///
    /// # Errors
    /// As [`Log::append`]; but [`WalError::Refused`] does no harm here: the entries are not those (any
    /// more), they take more than [`SEGMENT_BYTES_MAX`], or the snapshot that they stand on is not there.
    /// The next scrub finds the damage again.
    pub fn rewrite(&mut self, entries: &[Entry]) -> Result<(), WalError> {
        let refused = |reason: &str| Err(WalError::Refused { reason: reason.to_owned() });
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        let (place, tail) = match self.plan_rewriting(entries) {
            Ok(plan) => plan,
            Err(reason) => return refused(reason),
        };
        let index = tail.header.base.position.index;
        if tail.header.previous.is_none()
            && !self.unless_poisoned(|log| log.snapshots.ascertain(index))?
        {
            return refused("entries behind a snapshot that is not there");
        }
        self.unless_poisoned(|log| log.try_rewrite(place, tail))
    }

    /// Where a rewriting of all that ends with these entries begins: so many sealed segments stay, and
    /// this follows them.
    ///
    /// # Errors
    /// Why there can be no such rewriting: the entries are not those of this log, or what they stand on
    /// is not certain, or they do not fit into a segment.
    fn plan_rewriting(&self, entries: &[Entry]) -> Result<(usize, Tail), &'static str> {
        const OTHERS: &str = "entries that are not those of this log";
        let first = entries.first().map_or(self.state.last().index.next(), |entry| entry.index);
        let after = first.prev();
        let begins_there = |it: &Sealed| it.is_beginning && it.header.base.position.index == after;
        let (place, header) = if self.state.base().position.index == after {
            let first_id = self.sealed.front().map_or(&self.header, |it| &it.header).first_id;
            let (base, hard_state) = (self.state.base().clone(), self.state.hard_state());
            let header = self.header.clone();
            (0, SegmentHeader { first_id, previous: None, base, hard_state, ..header })
        } else {
            let place = self.sealed.iter().position(begins_there).ok_or(OTHERS)?;
            (place, self.sealed[place].header.clone())
        };
        // What was lost is not forgotten, even if the segment is older than that.
        let (id, repairs) = (self.segment.id + 1, self.state.repairs());
        let header = SegmentHeader { id, repairs, ..header };
        let mut state = LogState::at_start_of(&header);
        let batches = self.batches_of(entries, &mut state, self.state.group());
        let batches = batches.map_err(|_| OTHERS)?;
        let fits = data_bytes(&batches) <= SEGMENT_BYTES_MAX;
        fits.then_some(()).ok_or("more than a segment can be made to hold")?;
        let is_this = state.end() == self.state.end() && state.outcome() == self.state.outcome();
        is_this.then_some((place, Tail { header, batches })).ok_or(OTHERS)
    }

    fn try_rewrite(&mut self, place: usize, tail: Tail) -> Result<(), WalError> {
        self.sync_segment()?;
        let number = self.spare_number();
        let (segment, header) =
            write_again(&self.disk, self.segment_bytes, tail, number, &mut self.buffer)
                .map_err(WalError::of_new_file)?;
        let before = std::mem::replace(&mut self.segment, segment);
        self.header = header;
        self.is_beginning = true;
        for Sealed { name, .. } in self.sealed.drain(place..) {
            remove(self.disk.as_ref(), &name)?;
        }
        remove(self.disk.as_ref(), &before.file.name)?;
        Ok(sync_directory(self.disk.as_ref())?)
    }

    /// Entries in batches of the usual size behind `state`, and the vote if that does not have it.
    fn batches_of(
        &self,
        entries: &[Entry],
        state: &mut LogState,
        group: GroupId,
    ) -> Result<Vec<TailBatch>, String> {
        let mut batches = Vec::new();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        if state.hard_state() != self.state.hard_state() {
            batch.push((group, Record::HardState(self.state.hard_state())));
        }
        for entry in entries {
            bytes += entry_bytes(entry);
            batch.push((group, Record::Entry(entry.clone())));
            if bytes >= self.batch_bytes {
                batches.push(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        batches.push(batch);
        let with_outcome = |records: Vec<(GroupId, Record)>| {
            for (group, record) in &records {
                state.apply_record(*group, record)?;
            }
            Ok(TailBatch { outcome: state.outcome(), records })
        };
        batches.into_iter().filter(|records| !records.is_empty()).map(with_outcome).collect()
    }
}

/// What a scrub calls for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing: there was no damage, or what was damaged is not needed.
    #[default]
    None,
    /// The snapshot is out of use: another one should be cut, or the same one again if nothing was
    /// applied since.
    Snapshot,
    /// A segment has to be written again: give all entries behind this index to [`Log::rewrite`].
    Entries {
        /// The entry before the first one that is wanted.
        after: LogIndex,
    },
}
