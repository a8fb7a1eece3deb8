//! What a simulated disk has to be like: vectors for files, maps for names, and nothing clever.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use raft_wal::sim::{SimStats, Unsynced};

pub(crate) const SECTOR: usize = 512;

pub(crate) type Sector = [u8; SECTOR];

/// What is in this sector; zeros behind the end.
fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut content = [0; SECTOR];
    let start = bytes.len().min(sector * SECTOR);
    let held = &bytes[start..bytes.len().min(start + SECTOR)];
    content[..held.len()].copy_from_slice(held);
    content
}

/// The sectors of which these bytes are a part.
pub(crate) fn sectors(bytes: Range<usize>) -> Range<usize> {
    bytes.start / SECTOR..bytes.end.div_ceil(SECTOR)
}

/// One file.
#[derive(Clone, Default)]
pub(crate) struct File {
    /// What is read.
    pub(crate) cache: Vec<u8>,
    /// What a power cut leaves.
    pub(crate) durable: Vec<u8>,
    /// What a sector was before its durable content last changed; zeros, if it is not here.
    older: BTreeMap<usize, Sector>,
    /// Written, and not synced since.
    pub(crate) dirty: BTreeSet<usize>,
    pub(crate) unreadable: BTreeSet<usize>,
    pub(crate) sync_failed: bool,
}

impl File {
    pub(crate) fn durable(content: Vec<u8>) -> Self {
        Self { durable: content.clone(), cache: content, ..Self::default() }
    }

    fn end_of(&self, sector: usize) -> usize {
        self.cache.len().min((sector + 1) * SECTOR)
    }

    /// The dirty sectors of which a power cut can make something else.
    pub(crate) fn unsynced(&self) -> Vec<usize> {
        let at_risk = |&sector: &usize| {
            self.end_of(sector) > self.durable.len()
                || sector_of(&self.cache, sector) != sector_of(&self.durable, sector)
        };
        self.dirty.iter().copied().filter(at_risk).collect()
    }

    pub(crate) fn write(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        let range = at..at + bytes.len();
        self.cache.resize(self.cache.len().max(range.end), 0);
        self.cache[range.clone()].copy_from_slice(bytes);
        self.dirty.extend(sectors(range.clone()));
        self.unreadable.retain(|sector| {
            !(range.start <= sector * SECTOR && (sector + 1) * SECTOR <= range.end)
        });
    }

    /// Does a write of these bytes have to read what cannot be read?
    pub(crate) fn needs_unreadable(&self, range: &Range<usize>) -> bool {
        let mut after = self.clone();
        after.write(&vec![0; range.len()], range.start);
        let touched = self.unreadable.iter().filter(|it| sectors(range.clone()).contains(it));
        !range.is_empty() && touched.into_iter().any(|it| after.unreadable.contains(it))
    }

    pub(crate) fn settle(&mut self, sector: usize) {
        let (new, old) = (sector_of(&self.cache, sector), sector_of(&self.durable, sector));
        if new != old {
            self.older.insert(sector, old);
        }
        let range = sector * SECTOR..self.end_of(sector);
        self.durable.resize(self.durable.len().max(range.end), 0);
        self.durable[range.clone()].copy_from_slice(&self.cache[range]);
        self.dirty.remove(&sector);
    }

    /// Says how many sectors there were to be written.
    pub(crate) fn sync(&mut self) -> usize {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().for_each(|sector| self.settle(*sector));
        self.durable.resize(self.cache.len(), 0);
        dirty.len()
    }

    /// Clean sectors are read from the disk.
    pub(crate) fn forget_cache(&mut self) {
        for sector in sectors(0..self.cache.len()).filter(|sector| !self.dirty.contains(sector)) {
            let range = sector * SECTOR..self.end_of(sector);
            let count = range.len();
            self.cache[range].copy_from_slice(&sector_of(&self.durable, sector)[..count]);
        }
    }

    /// The power fails. How many sectors were kept, and lost?
    pub(crate) fn cut_power(&mut self, mut survives: impl FnMut() -> bool) -> (u64, u64) {
        let (kept, lost): (Vec<_>, Vec<_>) = self.unsynced().into_iter().partition(|_| survives());
        kept.iter().for_each(|sector| self.settle(*sector));
        self.cache.clone_from(&self.durable);
        self.dirty.clear();
        self.forget_what_is_behind_the_end();
        self.sync_failed = false;
        (kept.len() as u64, lost.len() as u64)
    }

    fn forget_what_is_behind_the_end(&mut self) {
        let there = sectors(0..self.cache.len());
        self.dirty.retain(|sector| there.contains(sector));
        self.unreadable.retain(|sector| there.contains(sector));
        for (sector, content) in &mut self.older {
            let inside = self.cache.len().saturating_sub(sector * SECTOR).min(SECTOR);
            content[inside..].fill(0);
        }
    }

    /// As far as the file goes, in the cache and on the disk.
    pub(crate) fn overwrite(&mut self, bytes: &[u8], at: usize) {
        for content in [&mut self.cache, &mut self.durable] {
            let start = content.len().min(at);
            for (byte, other) in content[start..].iter_mut().zip(bytes) {
                *byte = *other;
            }
        }
    }

    pub(crate) fn make_stale(&mut self, sector: usize) {
        let older = self.older.get(&sector).copied().unwrap_or([0; SECTOR]);
        let mut stale = older.to_vec();
        stale.truncate(self.durable.len().saturating_sub(sector * SECTOR));
        stale.resize(SECTOR, 0);
        self.overwrite(&stale, sector * SECTOR);
    }

    pub(crate) fn truncate(&mut self, bytes: usize) {
        self.cache.truncate(bytes);
        self.durable.truncate(bytes);
        self.forget_what_is_behind_the_end();
    }

    pub(crate) fn extend(&mut self, bytes: usize, fill: u8) {
        self.durable.resize(self.cache.len(), 0);
        self.cache.resize(self.cache.len() + bytes, fill);
        self.durable.resize(self.cache.len(), fill);
    }

    pub(crate) fn sector(&self, sector: usize) -> Option<Sector> {
        sectors(0..self.cache.len()).contains(&sector).then(|| sector_of(&self.cache, sector))
    }
}

/// A change of a name that is not durable yet.
#[derive(Clone)]
pub(crate) enum Change {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl Change {
    pub(crate) fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }

    /// The names that it is about, and the file that the last of them may lead to then.
    fn about(&self) -> (Vec<&str>, Option<usize>) {
        match self {
            Self::Create(name, file) => (vec![name], Some(*file)),
            Self::Rename(from, to, file) => (vec![from, to], Some(*file)),
            Self::Remove(name) => (vec![name], None),
        }
    }
}

/// The disk. Files are counted and never forgotten.
#[derive(Clone, Default)]
pub(crate) struct Twin {
    pub(crate) files: Vec<File>,
    pub(crate) names: BTreeMap<String, usize>,
    pub(crate) durable_names: BTreeMap<String, usize>,
    pub(crate) changes: Vec<Change>,
    pub(crate) capacity: Option<u64>,
    pub(crate) full: bool,
    pub(crate) stats: SimStats,
}

impl Twin {
    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    pub(crate) fn add(&mut self, file: File) -> usize {
        self.files.push(file);
        self.files.len() - 1
    }

    pub(crate) fn sync_directory(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            change.apply(&mut self.durable_names);
        }
    }

    /// Of the files that a power cut may leave, by a name that they have now, would have if nothing were
    /// durable any more, or may get: all files in the order in which they were made.
    fn reachable(&self) -> Vec<(usize, String)> {
        let name_of = |file: usize| {
            let names = self.names.iter().chain(&self.durable_names);
            let mut names = names.filter(|(_, it)| **it == file).map(|(name, _)| name.as_str());
            names.next().map(str::to_owned).or_else(|| {
                let mut pending = self.changes.iter().map(Change::about);
                let found = pending.find(|(_, it)| *it == Some(file));
                found.and_then(|(names, _)| names.last().map(|name| (*name).to_owned()))
            })
        };
        (0..self.files.len()).filter_map(|file| Some((file, name_of(file)?))).collect()
    }

    /// A name that leads to this file, and will if all changes become durable.
    pub(crate) fn lasting_name(&self, file: usize) -> Option<String> {
        let mut after = self.durable_names.clone();
        self.changes.iter().for_each(|change| change.apply(&mut after));
        let mut names = self.names.iter().filter(|(_, it)| **it == file);
        names.find(|(name, _)| after.get(*name) == Some(&file)).map(|(name, _)| name.clone())
    }

    pub(crate) fn unsynced(&self) -> Vec<Unsynced> {
        let mut unsynced: Vec<Unsynced> = self
            .changes
            .iter()
            .cloned()
            .map(|change| match change {
                Change::Create(name, _) => Unsynced::Create { name },
                Change::Rename(from, to, _) => Unsynced::Rename { from, to },
                Change::Remove(name) => Unsynced::Remove { name },
            })
            .collect();
        for (file, name) in self.reachable() {
            unsynced.extend(
                self.files[file]
                    .unsynced()
                    .into_iter()
                    .map(|sector| Unsynced::Sector { name: name.clone(), sector: sector as u64 }),
            );
        }
        unsynced
    }

    /// The twin of the copy that a power cut makes, which has counted nothing before.
    pub(crate) fn after_power_cut(&self, survives: &[bool]) -> Self {
        let mut after = Self { full: false, stats: SimStats::default(), ..self.clone() };
        let mut survives = survives.iter().copied();
        let mut survives = || survives.next().unwrap();
        let reachable = self.reachable();
        for change in std::mem::take(&mut after.changes) {
            if survives() {
                change.apply(&mut after.durable_names);
                after.stats.names_kept += 1;
            } else {
                after.stats.names_lost += 1;
            }
        }
        after.names.clone_from(&after.durable_names);
        for (file, _) in reachable {
            let (kept, lost) = after.files[file].cut_power(&mut survives);
            after.stats.sectors_kept += kept;
            after.stats.sectors_lost += lost;
            after.stats.files_torn += u64::from(kept > 0 && lost > 0);
        }
        after.stats.power_cuts = 1;
        after
    }

    /// Takes a file away at rest, and everything that could give it back, or give its name to another.
    pub(crate) fn take(&mut self, name: &str) -> Option<usize> {
        let file = self.names.remove(name);
        self.durable_names.retain(|other, it| other != name && Some(*it) != file);
        self.changes.retain(|change| {
            let (names, leads_to) = change.about();
            !names.contains(&name) && (leads_to.is_none() || leads_to != file)
        });
        file
    }

    pub(crate) fn give(&mut self, name: &str, file: usize) {
        self.names.insert(name.to_owned(), file);
        self.durable_names.insert(name.to_owned(), file);
    }

    /// What all files take that have a name or are open.
    pub(crate) fn used(&self, open: &BTreeSet<usize>) -> u64 {
        let mut counted = open.clone();
        counted.extend(self.names.values());
        counted.into_iter().map(|file| self.files[file].cache.len() as u64).sum()
    }

    pub(crate) fn room(&self, open: &BTreeSet<usize>) -> u64 {
        match self.capacity {
            _ if self.full => 0,
            None => u64::MAX,
            Some(capacity) => capacity.saturating_sub(self.used(open)),
        }
    }

    /// How much of a write finds room.
    pub(crate) fn fits(&self, file: usize, range: &Range<usize>, open: &BTreeSet<usize>) -> usize {
        let bytes = self.files[file].cache.len() as u64;
        let longest = self.room(open).saturating_add(bytes);
        if range.is_empty() || range.end as u64 <= longest {
            return range.len();
        }
        let whole_sectors = (longest / SECTOR as u64 * SECTOR as u64).max(bytes);
        whole_sectors.saturating_sub(range.start as u64) as usize
    }
}
