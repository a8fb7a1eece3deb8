//! The matter of a simulated disk: what is there, what would survive, what is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use super::fault::{Fault, FaultRule, Operation};
use super::file::{FILE_BYTES_MAX, FileState};
use super::latency::Latency;
use super::stats::SimStats;
use crate::format::{SECTOR_BYTES, mix};

#[derive(Default)]
pub(super) struct State {
    pub(super) random: u64,
    pub(super) life: u64,
    pub(super) stats: SimStats,
    pub(super) rules: Vec<FaultRule>,
    pub(super) powerless: bool,
    pub(super) full: bool,
    pub(super) short_writes: bool,
    pub(super) short_reads: bool,
    pub(super) capacity: Option<u64>,
    pub(super) latency: Latency,
    /// Nanoseconds since they were last asked for.
    pub(super) cost_ns: u64,
    /// Copied when it is changed, and a fork is still there.
    pub(super) files: BTreeMap<u64, Arc<FileState>>,
    pub(super) next_file: u64,
    /// How many handles of this life each file has.
    pub(super) handles: BTreeMap<u64, usize>,
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

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Succeeds,
    /// It reports an error, or the power fails. It may have happened in part.
    Fails,
    /// It reports success, and the device does this.
    Lies(Fault),
}

impl State {
    pub(super) fn check_life(&self, life: Option<u64>) -> io::Result<()> {
        if self.powerless || life.is_some_and(|life| life != self.life) {
            return Err(io::Error::other("the simulated machine is off"));
        }
        Ok(())
    }

    /// An independent copy, without faults, with a chance of its own.
    pub(super) fn fork(&self, seed: u64) -> Self {
        Self {
            random: mix(seed ^ 0xF02C),
            capacity: self.capacity,
            latency: self.latency,
            files: self.files.clone(),
            next_file: self.next_file,
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            name_changes: self.name_changes.clone(),
            ..Self::default()
        }
    }

    pub(super) fn begin_life(&mut self) {
        self.handles.clear();
        self.collect_garbage();
        self.life += 1;
        self.rules.clear();
        self.powerless = false;
        self.full = false;
    }

    /// Files that nobody has open and that no name leads to, now or after a power cut, are gone.
    pub(super) fn collect_garbage(&mut self) {
        let mut used: BTreeSet<u64> = self.handles.keys().copied().collect();
        used.extend(self.names.values());
        used.extend(self.durable_names.values());
        used.extend(self.name_changes.iter().filter_map(NameChange::file));
        self.files.retain(|file, _| used.contains(file));
    }

    pub(super) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.random)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        // The bias of the remainder does not matter here.
        (self.next_random() % bound.max(1) as u64) as usize
    }

    /// Counts an injected error.
    pub(super) fn note_error(&mut self, operation: Operation) {
        let stats = &mut self.stats;
        *match operation {
            Operation::List | Operation::Open | Operation::Read => &mut stats.read_errors,
            Operation::Write => &mut stats.write_errors,
            Operation::Sync => &mut stats.sync_errors,
            Operation::Create
            | Operation::Rename
            | Operation::Remove
            | Operation::SyncDirectory => &mut stats.name_errors,
        } += 1;
    }

    pub(super) fn charge_operation(&mut self, operation: Operation) {
        self.charge(self.latency.of(operation));
    }

    pub(super) fn charge(&mut self, nanoseconds: u64) {
        self.cost_ns = self.cost_ns.saturating_add(nanoseconds);
    }

    /// What a new file is made of. It has no name yet.
    pub(super) fn add_file(&mut self, file: FileState) -> u64 {
        let number = self.next_file;
        self.next_file += 1;
        self.files.insert(number, Arc::new(file));
        number
    }

    pub(super) fn file(&self, file: u64) -> io::Result<&FileState> {
        self.files.get(&file).map(AsRef::as_ref).ok_or_else(gone)
    }

    pub(super) fn file_mut(&mut self, file: u64) -> io::Result<&mut FileState> {
        self.files.get_mut(&file).map(Arc::make_mut).ok_or_else(gone)
    }
}

fn gone() -> io::Error {
    io::Error::other("the simulated file is gone")
}

/// Names.
impl State {
    /// There is one more handle of this file, in this life, unless it is kept back.
    pub(super) fn opened(&mut self, file: u64, fate: Fate) -> (u64, u64) {
        if fate == Fate::Succeeds {
            *self.handles.entry(file).or_default() += 1;
        }
        (file, self.life)
    }

    /// There is one handle less.
    pub(super) fn closed(&mut self, file: u64) {
        if let Some(handles) = self.handles.get_mut(&file) {
            *handles -= 1;
            if *handles == 0 {
                self.handles.remove(&file);
            }
        }
    }

    pub(super) fn named(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, name: &str, fate: Fate) -> io::Result<u64> {
        if self.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.room() == 0 {
            self.stats.space_refusals += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.add_file(FileState::default());
        self.change_name(NameChange::Create { name: name.to_owned(), file }, fate);
        Ok(file)
    }

    pub(super) fn change_name(&mut self, change: NameChange, fate: Fate) {
        if fate == Fate::Succeeds || self.below(2) == 0 {
            change.apply(&mut self.names);
            self.name_changes.push(change);
        }
    }

    pub(super) fn sync_directory(&mut self, fate: Fate) {
        if fate == Fate::Succeeds {
            for change in std::mem::take(&mut self.name_changes) {
                change.apply(&mut self.durable_names);
            }
        } else if !self.powerless {
            // As with data: what could not be written is visible, and forgotten.
            for change in std::mem::take(&mut self.name_changes) {
                if self.below(2) == 0 {
                    change.apply(&mut self.durable_names);
                }
            }
        }
        self.collect_garbage();
    }
}

impl NameChange {
    pub(super) fn file(&self) -> Option<u64> {
        match self {
            Self::Create { file, .. } | Self::Rename { file, .. } => Some(*file),
            Self::Remove { .. } => None,
        }
    }

    pub(super) fn concerns(&self, of: &str) -> bool {
        match self {
            Self::Create { name, .. } | Self::Remove { name } => name == of,
            Self::Rename { from, to, .. } => from == of || to == of,
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

/// Data and space.
impl State {
    /// What all files take that have a name or are open.
    pub(super) fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let counts = |file| named.contains(file) || self.handles.contains_key(file);
        let files = self.files.iter().filter(|(file, _)| counts(*file));
        files.map(|(_, file)| file.bytes() as u64).sum()
    }

    fn room(&self) -> u64 {
        match self.capacity {
            _ if self.full => 0,
            None => u64::MAX,
            Some(capacity) => capacity.saturating_sub(self.used()),
        }
    }

    pub(super) fn read(&mut self, file: u64, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut into = into;
        if self.short_reads && into.len() > 1 {
            let count = 1 + self.below(into.len());
            self.stats.short_reads += u64::from(count < into.len());
            into = &mut into[..count];
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(count) = self.file(file)?.read(into, offset) else {
            return Err(self.unreadable());
        };
        self.charge(self.latency.read.of_bytes(count));
        Ok(count)
    }

    fn unreadable(&mut self) -> io::Error {
        self.stats.unreadable_hits += 1;
        Errno::IO.into()
    }

    pub(super) fn write(
        &mut self,
        file: u64,
        bytes: &[u8],
        offset: u64,
        fate: Fate,
    ) -> io::Result<usize> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut count = bytes.len();
        if offset.checked_add(count).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if fate == Fate::Fails {
            count = self.cut_short(offset, count);
        } else if self.short_writes {
            // At least one byte, or it would have been an error.
            count = match self.cut_short(offset, count) {
                0 => count,
                cut => cut,
            };
        }
        count = self.find_room(file, offset, count)?;
        if self.file(file)?.needs_unreadable(offset, count) {
            return Err(self.unreadable());
        }
        self.stats.short_writes += u64::from(fate != Fate::Fails && count < bytes.len());
        self.file_mut(file)?.write(&bytes[..count], offset);
        self.charge(self.latency.write.of_bytes(count));
        if let Fate::Lies(fault) = fate {
            self.lie(file, offset, count, fault)?;
        }
        Ok(count)
    }

    /// How much of a write of `count` bytes happens, up to all of it: to the end of some sector of
    /// the file. Systems copy into their cache by whole pages, so no sector is ever left half
    /// written.
    fn cut_short(&mut self, offset: usize, count: usize) -> usize {
        let sectors = (offset + count).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES;
        let end = (offset / SECTOR_BYTES + self.below(sectors + 1)) * SECTOR_BYTES;
        end.clamp(offset, offset + count) - offset
    }

    /// How much of a write finds room: what does not make the file longer always does.
    fn find_room(&mut self, file: u64, offset: usize, count: usize) -> io::Result<usize> {
        let bytes = self.file(file)?.bytes();
        if count == 0 || offset + count <= bytes {
            return Ok(count);
        }
        let longest = usize::try_from(self.room()).unwrap_or(usize::MAX).saturating_add(bytes);
        if longest >= offset + count {
            return Ok(count);
        }
        let whole_sectors = (longest / SECTOR_BYTES * SECTOR_BYTES).max(bytes);
        if whole_sectors <= offset {
            self.stats.space_refusals += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(whole_sectors - offset)
    }

    /// The device does something else with a write than it says.
    fn lie(&mut self, file: u64, offset: usize, count: usize, fault: Fault) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let mut sectors = offset / SECTOR_BYTES..(offset + count).div_ceil(SECTOR_BYTES);
        if fault != Fault::LostWrite {
            let chosen = sectors.start + self.below(sectors.len());
            sectors = chosen..chosen + 1;
        }
        let target = match fault {
            Fault::MisplacedInFile => self.other_sector(file, sectors.start)?,
            Fault::MisplacedInOther => self.sector_of_another(file),
            _ => None,
        };
        let content = self.file(file)?.sector(sectors.start).flatten();
        self.file_mut(file)?.lose_quietly(sectors);
        if let Some((other, sector)) = target {
            self.file_mut(other)?.receive(sector, content);
            self.stats.misplaced_writes += 1;
        } else {
            self.stats.lost_writes += 1;
        }
        Ok(())
    }

    fn other_sector(&mut self, file: u64, but: usize) -> io::Result<Option<(u64, usize)>> {
        let sectors = self.file(file)?.durable_sectors();
        let others = sectors - usize::from(but < sectors);
        if others == 0 {
            return Ok(None);
        }
        let chosen = self.below(others);
        Ok(Some((file, chosen + usize::from(chosen >= but))))
    }

    fn sector_of_another(&mut self, file: u64) -> Option<(u64, usize)> {
        let named = self.names.values().filter(|other| **other != file);
        let sizes = named.map(|other| (*other, self.files[other].durable_sectors()));
        let others: Vec<(u64, usize)> = sizes.filter(|(_, sectors)| *sectors > 0).collect();
        let (other, sectors) = *others.get(self.below(others.len()))?;
        Some((other, self.below(sectors)))
    }

    pub(super) fn sync(&mut self, file: u64, fate: Fate) -> io::Result<()> {
        let again = self.file(file)?.sync_failed;
        self.stats.syncs_after_failure += u64::from(again);
        if fate == Fate::Succeeds {
            let sectors = self.file_mut(file)?.sync();
            self.charge(self.latency.sync.of_bytes(sectors * SECTOR_BYTES));
        } else if !self.powerless {
            let keep_in_eight = self.keep_in_eight();
            let mut random = self.next_random();
            self.file_mut(file)?.fail_sync(|| {
                random = mix(random.wrapping_add(1));
                random % 8 < keep_in_eight
            });
        }
        Ok(())
    }

    /// How much of what is at risk survives: nothing, little, half, most or all of it.
    pub(super) fn keep_in_eight(&mut self) -> u64 {
        [0, 1, 4, 7, 8][self.below(5)]
    }
}
