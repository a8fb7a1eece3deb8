//! Damage at rest: what happens to a disk while nobody looks.

use std::sync::Arc;

use super::SimDisk;
use super::file::{FILE_BYTES_MAX, FileState, bytes_of};
use super::state::State;
use crate::format::{SECTOR_BYTES, mix};

/// Something that happens to the bytes of a file. What lies behind its end is not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// One bit turns over.
    FlipBit {
        /// The offset of its byte.
        at: u64,
        /// Which of the eight, from the least significant one; taken modulo 8.
        bit: u8,
    },
    /// Other bytes stand there.
    Overwrite {
        /// Where they begin.
        at: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Garbage stands there.
    Garbage {
        /// Where it begins.
        at: u64,
        /// How much there is.
        bytes: u64,
        /// What garbage: the same seed, the same bytes.
        seed: u64,
    },
    /// Zeros stand there.
    Zeros {
        /// Where they begin.
        at: u64,
        /// How many there are.
        bytes: u64,
    },
    /// The sector holds what it held before the last durable write that changed it; zeros, if there
    /// was only one. That write seems never to have happened.
    Stale {
        /// The number of the sector, from 0.
        sector: u64,
    },
    /// The sector holds what another one holds, of this file or of another.
    Misplaced {
        /// The number of the sector, from 0.
        sector: u64,
        /// The file of the other one.
        from: String,
        /// The number of the other one.
        from_sector: u64,
    },
    /// Reading the sector fails, until all of it is written.
    Unreadable {
        /// The number of the sector, from 0.
        sector: u64,
    },
    /// The end is missing.
    Truncate {
        /// What is left.
        bytes: u64,
    },
    /// The file is longer.
    Extend {
        /// By so much.
        bytes: u64,
        /// The value of these bytes.
        fill: u8,
    },
}

impl Damage {
    /// A random damage to a file of so many bytes; the same for the same arguments. One in four
    /// changes no more than a bit, most others change a sector.
    #[must_use]
    pub fn random(file_bytes: u64, seed: u64) -> Self {
        let mut random = seed;
        let mut below = |bound: u64| {
            random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix(random) % bound.max(1)
        };
        let sector_bytes = SECTOR_BYTES as u64;
        let at = below(file_bytes);
        let sector = at / sector_bytes;
        let start = sector * sector_bytes;
        match below(8) {
            0 | 1 => Self::FlipBit { at, bit: below(8) as u8 },
            2 => Self::Garbage { at, bytes: 1 + below(2 * sector_bytes), seed: below(u64::MAX) },
            3 => Self::Garbage { at: start, bytes: sector_bytes, seed: below(u64::MAX) },
            4 => Self::Zeros { at: start, bytes: sector_bytes },
            5 => Self::Stale { sector },
            6 => Self::Unreadable { sector },
            _ => Self::Truncate { bytes: at },
        }
    }
}

/// At rest: what a test does to a disk between two lives. It is durable at once, and reads show it,
/// whatever the cache of the system held.
impl SimDisk {
    /// The names of all files, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// What is in a file, if there is one of this name. [Unreadable](Damage::Unreadable) sectors
    /// are read like others.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.files.get(state.names.get(name)?)?.content())
    }

    /// Puts a file of this content there in place of one of that name. The capacity is not asked.
    #[allow(clippy::needless_pass_by_value, reason = "what a test made for this goes with it")]
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        state.take(name);
        let file = state.add_file(FileState::durable(&content));
        state.give(name, file);
    }

    /// Removes a file. Was there one?
    pub fn take(&self, name: &str) -> bool {
        self.state().take(name).is_some()
    }

    /// Gives a file another name, in place of one of that name. Was there one to rename?
    pub fn rename_at_rest(&self, from: &str, to: &str) -> bool {
        let mut state = self.state();
        let Some(file) = state.names.get(from).copied() else {
            return false;
        };
        state.take(from);
        state.take(to);
        state.give(to, file);
        true
    }

    /// Puts a copy of a file there, in place of one of that name. Was there one to copy?
    pub fn duplicate(&self, from: &str, to: &str) -> bool {
        let mut state = self.state();
        let Some(file) = state.names.get(from).and_then(|file| state.files.get(file)) else {
            return false;
        };
        let copy = FileState::durable(&file.content());
        state.take(to);
        let file = state.add_file(copy);
        state.give(to, file);
        true
    }

    /// Damages a file. Does anything read differently now? If not, the damage met what was so
    /// already or what is not there: a campaign should not take it for one.
    pub fn damage(&self, name: &str, damage: &Damage) -> bool {
        let mut state = self.state();
        let changed = state.damage(name, damage).unwrap_or(false);
        state.stats.damages += u64::from(changed);
        changed
    }

    /// Empties the cache of the system: what is clean is read from the disk from now on. Lost and
    /// misplaced writes, and what a failed sync dropped, come to light.
    pub fn forget_cache(&self) {
        let mut state = self.state();
        for file in state.files.values_mut().filter(|file| !file.is_settled()) {
            Arc::make_mut(file).forget_cache();
        }
    }
}

impl State {
    /// Removes a name for good, and every other that a power cut could give to its file.
    fn take(&mut self, name: &str) -> Option<u64> {
        let file = self.names.remove(name);
        self.durable_names.remove(name);
        self.durable_names.retain(|_, other| Some(*other) != file);
        self.name_changes
            .retain(|change| !change.concerns(name) && (file.is_none() || change.file() != file));
        file
    }

    fn give(&mut self, name: &str, file: u64) {
        self.names.insert(name.to_owned(), file);
        self.durable_names.insert(name.to_owned(), file);
    }

    fn damage(&mut self, name: &str, damage: &Damage) -> Option<bool> {
        let misplaced = match damage {
            Damage::Misplaced { from, from_sector, .. } => {
                let other = self.files.get(self.names.get(from)?)?;
                other.sector(usize::try_from(*from_sector).ok()?)?
            }
            _ => None,
        };
        let file = self.names.get(name)?;
        let file = Arc::make_mut(self.files.get_mut(file)?);
        let overwrite = |file: &mut FileState, at: u64, bytes: &[u8]| {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let before = file.bytes_at(at, bytes.len());
            file.overwrite(bytes, at);
            before != file.bytes_at(at, bytes.len())
        };
        // No more than the file has, so that no argument asks for more memory than that.
        let within = |file: &FileState, bytes: u64| (file.bytes() as u64).min(bytes) as usize;
        Some(match damage {
            Damage::FlipBit { at, bit } => {
                let byte = *file.bytes_at(usize::try_from(*at).ok()?, 1).first()?;
                overwrite(file, *at, &[byte ^ 1 << (bit % 8)])
            }
            Damage::Overwrite { at, bytes } => overwrite(file, *at, bytes),
            Damage::Garbage { at, bytes, seed } => {
                let count = within(file, *bytes);
                let garbage: Vec<u8> =
                    (0..count as u64).map(|n| mix(seed.wrapping_add(mix(n))) as u8).collect();
                overwrite(file, *at, &garbage)
            }
            Damage::Zeros { at, bytes } => {
                let count = within(file, *bytes);
                overwrite(file, *at, &vec![0; count])
            }
            Damage::Stale { sector } => {
                let at = usize::try_from(*sector).ok()?.saturating_mul(SECTOR_BYTES);
                let before = file.bytes_at(at, SECTOR_BYTES);
                file.make_stale(at / SECTOR_BYTES);
                before != file.bytes_at(at, SECTOR_BYTES)
            }
            Damage::Misplaced { sector, .. } => {
                overwrite(file, sector.saturating_mul(SECTOR_BYTES as u64), bytes_of(&misplaced))
            }
            Damage::Unreadable { sector } => file.make_unreadable(usize::try_from(*sector).ok()?),
            Damage::Truncate { bytes } => {
                let before = file.bytes();
                file.truncate(within(file, *bytes));
                file.bytes() < before
            }
            Damage::Extend { bytes, fill } => {
                let room = FILE_BYTES_MAX.saturating_sub(file.bytes());
                let more = usize::try_from(*bytes).unwrap_or(usize::MAX).min(room);
                file.extend(more, *fill);
                more > 0
            }
        })
    }
}
