//! Which damage must do no harm: to what is there twice, or to what nobody needs. After it a start must find
//! everything, and neither refuse nor limp.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use raft_core::{LogIndex, Snapshot};
use raft_wal::sim::Damage;

use super::Store;
use super::rot::SECTOR_BYTES;

/// There are two copies, one behind the other, of the identity, and of the header of each segment as long as
/// there are few members.
const COPY_BYTES: u64 = 4096;
const COPIES_BYTES: u64 = 2 * COPY_BYTES;

/// What is damaged and must do no harm.
#[derive(Debug, Default)]
pub(super) struct Harmless {
    /// Which of its two copies were ever damaged, by the name of the file.
    copies: BTreeMap<String, BTreeSet<u64>>,
    /// There may be a damaged snapshot that nobody needs.
    pub(super) snapshot: bool,
    /// Some of it cannot be read.
    pub(super) unreadable: bool,
    /// No start has found it since.
    pub(super) unseen: bool,
}

impl Store {
    /// Something was changed: must the next start find everything all the same?
    pub(super) fn note_damage(&mut self, harmless: bool) {
        if harmless {
            self.tally.harmless += 1;
            self.harmless.unseen = true;
        } else {
            self.suspect = true;
        }
    }

    /// Must this damage do no harm, to a file of this length? To be asked of all that is done.
    pub(super) fn is_harmless(&mut self, name: &str, damage: &Damage, bytes: u64) -> bool {
        let harmless = if name.starts_with("snapshot-") {
            let harmless = !self.is_needed_snapshot(name);
            self.harmless.snapshot |= harmless;
            harmless
        } else {
            self.leaves_a_copy(name, touched(damage, bytes))
        };
        self.harmless.unreadable |= harmless && matches!(damage, Damage::Unreadable { .. });
        harmless
    }

    /// Is a copy of all that is touched left whole?
    fn leaves_a_copy(&mut self, name: &str, touched: Range<u64>) -> bool {
        let first = touched.start / COPY_BYTES;
        let last = touched.end.saturating_sub(1) / COPY_BYTES;
        let damaged = self.harmless.copies.entry(name.to_owned()).or_default();
        damaged.extend((first..=last).filter(|&copy| copy < 2));
        touched.end <= COPIES_BYTES && damaged.len() == 1
    }

    /// May the log need the snapshot with this name? Not if it is older than one that is certainly there, or no
    /// snapshot has such a name: the log is kept since the older of two.
    pub(super) fn is_needed_snapshot(&self, name: &str) -> bool {
        let index = name.rsplit_once('-').and_then(|(_, index)| index.parse().ok()).map(LogIndex);
        let newest = self.durable.snapshots.last().filter(|_| !self.newest_unsure);
        index.is_some_and(|index| newest.is_none_or(|newest| index >= newest.index()))
    }

    /// A file may be there under another name as well, or instead. Must that do no harm?
    pub(super) fn may_be_copied(&mut self, name: &str, other: &str, instead: bool) -> bool {
        let harmless = name.starts_with("snapshot-")
            && !self.is_needed_snapshot(other)
            && !(instead && self.is_needed_snapshot(name));
        self.harmless.snapshot |= harmless;
        harmless
    }

    /// Is it one of those snapshots that may be gone, or be what they were?
    pub(super) fn may_change(&mut self, name: &str) -> bool {
        let harmless = name.starts_with("snapshot-") && !self.is_needed_snapshot(name);
        self.harmless.snapshot |= harmless;
        harmless
    }

    /// A start has found all that it must, and put aside what is damaged.
    pub(super) fn forget_harmless(&mut self, newest_before: Option<&Snapshot>) {
        self.harmless.unseen = false;
        if self.settled {
            self.harmless.snapshot = false;
            let names = self.sim.names();
            // A start writes the identity again, but no segment for the sake of a header.
            self.harmless.copies.retain(|name, _| name != "IDENTITY" && names.contains(name));
            self.newest_unsure = false;
        } else {
            // Its name may never become durable, whatever is seen of it.
            self.newest_unsure |= self.durable.snapshots.last() != newest_before;
        }
    }
}

/// Which bytes may change.
fn touched(damage: &Damage, file_bytes: u64) -> Range<u64> {
    let sector = |sector: u64| sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
    match *damage {
        Damage::FlipBit { at, .. } => at..at + 1,
        Damage::Garbage { at, bytes, .. } | Damage::Zeros { at, bytes } => {
            at..(at + bytes).min(file_bytes)
        }
        Damage::Stale { sector: it }
        | Damage::Misplaced { sector: it, .. }
        | Damage::Unreadable { sector: it } => sector(it),
        Damage::Truncate { bytes } => bytes..file_bytes,
        _ => 0..file_bytes,
    }
}
