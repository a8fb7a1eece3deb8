//! The matter of a simulated disk: what is there, what would survive, what is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::{Fault, SimStats};
use crate::format::{SECTOR_BYTES, mix};

#[derive(Default)]
pub(super) struct State {
    pub(super) random: u64,
    pub(super) life: u64,
    pub(super) stats: SimStats,
    pub(super) fault: Option<(u64, Fault)>,
    pub(super) powerless: bool,
    pub(super) full: bool,
    pub(super) short_writes: bool,
    pub(super) files: BTreeMap<u64, FileState>,
    pub(super) next_file: u64,
    /// The names as the running system sees them, and as a power cut would leave them at the worst.
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    /// What a sync of the directory would do to the second, in order.
    pub(super) name_changes: Vec<NameChange>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Create { name: String, file: u64 },
    Rename { from: String, to: String, file: u64 },
    Remove { name: String },
}

/// Invariant: `durable` and `content` differ only in `dirty` and `lost` sectors and in length.
#[derive(Clone, Default)]
pub(super) struct FileState {
    pub(super) content: Vec<u8>,
    pub(super) durable: Vec<u8>,
    /// Sectors that a sync would write.
    pub(super) dirty: BTreeSet<usize>,
    pub(super) sync_failed: bool,
}

impl State {
    pub(super) fn check_life(&self, life: Option<u64>) -> io::Result<()> {
        if self.powerless || life.is_some_and(|life| life != self.life) {
            return Err(io::Error::other("the simulated machine is off"));
        }
        Ok(())
    }

    pub(super) fn change_name(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
    }

    pub(super) fn begin_life(&mut self) {
        // Nobody has a file open any more: one that no name leads to, now or after a power cut, is
        // gone.
        let mut used: BTreeSet<u64> = self.names.values().copied().collect();
        used.extend(self.durable_names.values());
        used.extend(self.name_changes.iter().filter_map(NameChange::file));
        self.files.retain(|file, _| used.contains(file));
        self.life += 1;
        self.fault = None;
        self.powerless = false;
        self.full = false;
    }

    pub(super) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.random)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        // The bias of the remainder does not matter here.
        (self.next_random() % bound.max(1) as u64) as usize
    }

    /// How much of a write of `count` bytes happens, up to all of it: to the end of some sector of
    /// the file. Systems copy into their cache by whole pages, so no sector is ever left half
    /// written.
    pub(super) fn cut_short(&mut self, offset: usize, count: usize) -> usize {
        let sectors = (offset + count).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES;
        let end = (offset / SECTOR_BYTES + self.below(sectors + 1)) * SECTOR_BYTES;
        end.clamp(offset, offset + count) - offset
    }

    pub(super) fn settle_names(&mut self) {
        for change in std::mem::take(&mut self.name_changes) {
            change.apply(&mut self.durable_names);
        }
    }

    /// Each change of a name since the last directory sync arrives or not, whatever the others do:
    /// harsher than journalling file systems are.
    pub(super) fn lose_names(&mut self) {
        let keep_in_eight = [0, 4, 8][self.below(3)];
        for change in std::mem::take(&mut self.name_changes) {
            if self.below(8) < keep_in_eight {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
    }

    pub(super) fn lose_data(&mut self) {
        let mut files = std::mem::take(&mut self.files);
        for file in files.values_mut() {
            let keep_in_eight = [0, 1, 4, 7, 8][self.below(5)];
            for sector in std::mem::take(&mut file.dirty) {
                if self.below(8) < keep_in_eight {
                    file.settle(sector);
                }
            }
            file.content = file.durable.clone();
            file.sync_failed = false;
        }
        self.files = files;
    }

    pub(super) fn file(&mut self, file: u64) -> io::Result<&mut FileState> {
        self.files.get_mut(&file).ok_or_else(|| io::Error::other("the simulated file is gone"))
    }

    pub(super) fn no_space(&self) -> io::Result<()> {
        if self.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl NameChange {
    pub(super) fn file(&self) -> Option<u64> {
        match self {
            Self::Create { file, .. } | Self::Rename { file, .. } => Some(*file),
            Self::Remove { .. } => None,
        }
    }

    pub(super) fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create { name, file } => {
                names.insert(name, file);
            }
            Self::Rename { from, to, file } => {
                names.remove(&from);
                names.insert(to, file);
            }
            Self::Remove { name } => {
                names.remove(&name);
            }
        }
    }
}

impl FileState {
    /// Makes one sector durable.
    pub(super) fn settle(&mut self, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.content.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.content[start..end]);
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.content.len() < end {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
    }
}
