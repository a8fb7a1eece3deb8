//! The disk beside its twin: what both are asked for, and whether they agree.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::Range;

use raft_wal::sim::SimDisk;
use raft_wal::{Disk, DiskFile};

use super::twin::{Change, File, SECTOR, Twin, sectors};
use crate::support::Random;

pub(crate) struct Handle {
    pub(crate) file: usize,
    pub(crate) handle: Box<dyn DiskFile>,
}

/// The disk, its twin, and what is open.
pub(crate) struct Pair {
    pub(crate) disk: SimDisk,
    pub(crate) twin: Twin,
    pub(crate) open: Vec<Handle>,
    pub(crate) random: Random,
    /// The next byte to fill something with.
    pub(crate) fill: u8,
}

/// What an operation said, as far as both can say it.
pub(crate) fn said<T>(outcome: &io::Result<T>) -> Result<(), ErrorKind> {
    outcome.as_ref().map(drop).map_err(|error| match error.raw_os_error() {
        // The medium cannot give it back: no kind of its own.
        Some(_) => ErrorKind::InvalidData,
        None => error.kind(),
    })
}

impl Pair {
    pub(crate) fn new(seed: u64) -> Self {
        let (disk, twin, open) = (SimDisk::new(seed), Twin::default(), Vec::new());
        Self { disk, twin, open, random: Random(seed), fill: 0 }
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    pub(crate) fn name(&mut self) -> String {
        format!("f{}", self.below(5))
    }

    pub(crate) fn next_fill(&mut self) -> u8 {
        self.fill = self.fill % 250 + 1;
        self.fill
    }

    /// Some offset: at the border of a sector, or not.
    pub(crate) fn place(&mut self, sectors: usize) -> usize {
        let at = self.below(sectors) * SECTOR;
        if self.random.one_in(2) { at } else { at + self.below(SECTOR) }
    }

    pub(crate) fn open_files(&self) -> BTreeSet<usize> {
        self.open.iter().map(|open| open.file).collect()
    }

    pub(crate) fn compare(&self, context: &str) {
        let (disk, twin) = (&self.disk, &self.twin);
        let names: Vec<String> = twin.names.keys().cloned().collect();
        assert_eq!(disk.names(), names, "{context}");
        for (name, file) in &twin.names {
            assert!(disk.read(name).unwrap() == twin.files[*file].cache, "{context}: {name}");
        }
        assert_eq!(disk.unsynced(), twin.unsynced(), "{context}");
        assert_eq!(disk.used_bytes(), twin.used(&self.open_files()), "{context}");
        assert_eq!(disk.stats(), twin.stats, "{context}");
        for Handle { file, handle } in &self.open {
            assert_eq!(handle.bytes().unwrap(), twin.files[*file].cache.len() as u64, "{context}");
        }
    }

    /// Creates, opens, renames, removes, lists, makes names durable.
    pub(crate) fn names(&mut self) -> String {
        let (name, other) = (self.name(), self.name());
        let there = self.twin.names.get(&name).copied();
        let missing = there.map(drop).ok_or(ErrorKind::NotFound);
        let kind = self.below(6);
        self.twin.stats.operations += u64::from(![1, 4].contains(&kind));
        match kind {
            0 => {
                let expected = if there.is_some() {
                    Err(ErrorKind::AlreadyExists)
                } else if self.twin.room(&self.open_files()) == 0 {
                    self.twin.stats.space_refusals += 1;
                    Err(ErrorKind::StorageFull)
                } else {
                    let file = self.twin.add(File::default());
                    self.twin.change(Change::Create(name.clone(), file));
                    Ok(())
                };
                let outcome = self.disk.create(&name);
                assert_eq!(said(&outcome), expected, "create {name}");
                let newest = || self.twin.files.len() - 1;
                let opened = outcome.into_iter();
                self.open.extend(opened.map(|handle| Handle { file: newest(), handle }));
            }
            1 => {
                let outcome = self.disk.open(&name);
                assert_eq!(said(&outcome), missing, "open {name}");
                let opened = there.zip(outcome.ok());
                self.open.extend(opened.map(|(file, handle)| Handle { file, handle }));
            }
            2 => {
                assert_eq!(said(&self.disk.rename(&name, &other)), missing, "rename {name}");
                if let Some(file) = there {
                    self.twin.change(Change::Rename(name.clone(), other.clone(), file));
                }
            }
            3 => {
                assert_eq!(said(&self.disk.remove(&name)), missing, "remove {name}");
                if there.is_some() {
                    self.twin.change(Change::Remove(name.clone()));
                }
            }
            4 => {
                let names: Vec<&String> = self.twin.names.keys().collect();
                assert_eq!(self.disk.list().unwrap().iter().collect::<Vec<_>>(), names);
            }
            _ => {
                self.disk.sync_directory().unwrap();
                self.twin.sync_directory();
            }
        }
        format!("of names {kind}: {name} {other}")
    }

    /// Writes, reads, syncs, closes something that is open.
    pub(crate) fn data(&mut self) -> String {
        if self.open.is_empty() {
            for (name, file) in &self.twin.names {
                self.open.push(Handle { file: *file, handle: self.disk.open(name).unwrap() });
            }
            return "all is opened".to_owned();
        }
        let number = self.below(self.open.len());
        let file = self.open[number].file;
        match self.below(8) {
            0 => {
                self.open.swap_remove(number);
                format!("close {file}")
            }
            1 | 2 => {
                let held = &mut self.twin.files[file];
                self.twin.stats.operations += 1;
                self.twin.stats.syncs_after_failure += u64::from(held.sync_failed);
                held.sync();
                self.open[number].handle.sync().unwrap();
                format!("sync {file}")
            }
            3 => {
                let start = self.place(8);
                let range = start..start + self.place(4);
                self.read(number, range.clone());
                format!("read {range:?} of {file}")
            }
            _ => {
                let start = self.place(6);
                let range = start..start + self.place(4);
                let fill = if self.random.one_in(4) { 0 } else { self.next_fill() };
                self.write(number, range.clone(), fill);
                format!("write {range:?} of {file}")
            }
        }
    }

    pub(crate) fn read(&mut self, number: usize, range: Range<usize>) {
        let Handle { file, handle } = &self.open[number];
        let held = &self.twin.files[*file];
        let start = held.cache.len().min(range.start);
        let there = start..held.cache.len().min(range.end);
        let met = sectors(there.clone()).any(|sector| held.unreadable.contains(&sector));
        let met = met && !there.is_empty();
        self.twin.stats.unreadable_hits += u64::from(met);
        let mut into = vec![0xEE; range.len()];
        let outcome = handle.read_at(&mut into, range.start as u64);
        assert_eq!(said(&outcome), if met { Err(ErrorKind::InvalidData) } else { Ok(()) });
        if let Ok(count) = outcome {
            assert!(into[..count] == held.cache[there.clone()], "{there:?}");
            assert!(into[count..].iter().all(|byte| *byte == 0xEE));
        }
    }

    pub(crate) fn write(&mut self, number: usize, range: Range<usize>, fill: u8) {
        self.twin.stats.operations += 1;
        let open = self.open_files();
        let Handle { file, handle } = &self.open[number];
        let fits = self.twin.fits(*file, &range, &open);
        let written = range.start..range.start + fits;
        let (held, stats) = (&mut self.twin.files[*file], &mut self.twin.stats);
        let expected = if fits == 0 && !range.is_empty() {
            stats.space_refusals += 1;
            Err(ErrorKind::StorageFull)
        } else if held.needs_unreadable(&written) {
            stats.unreadable_hits += 1;
            Err(ErrorKind::InvalidData)
        } else {
            stats.short_writes += u64::from(written != range);
            held.write(&vec![fill; fits], written.start);
            Ok(())
        };
        let outcome = handle.write_at(&vec![fill; range.len()], range.start as u64);
        assert_eq!(said(&outcome), expected, "{range:?}");
        assert_eq!(outcome.unwrap_or(fits), fits);
    }

    /// Of what is unsynced, any subset survives; the copy is what goes on.
    pub(crate) fn cut_power(&mut self) {
        let items = self.disk.unsynced().len();
        let survives: Vec<bool> = (0..items).map(|_| self.random.one_in(2)).collect();
        let after = self.disk.after_power_cut(self.random.next(), |item| survives[item]);
        self.open.clear();
        self.twin = self.twin.after_power_cut(&survives);
        self.disk = after;
    }
}
