//! The simulated disk and a twin that is nothing but vectors and maps: after every operation, with and
//! without faults, both say the same about its outcome, about names and contents, about what is unsynced
//! and how much is used, and have counted the same; and every power cut leaves what it has to.
//!
//! What is up to chance, how much of a failed operation happened, is looked up and must be one of those
//! things that may be. How often which is: `sim_chances`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;
mod sim_model {
    pub(crate) mod twin;
}

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::Range;

use raft_wal::sim::{Damage, Fault, SimDisk, SimStats, Unsynced};
use raft_wal::{Disk, DiskFile};
use sim_model::twin::{Change, File, SECTOR, Twin, sectors};
use support::Random;

struct Handle {
    file: usize,
    handle: Box<dyn DiskFile>,
}

/// The disk, its twin, and what is open.
struct Pair {
    disk: SimDisk,
    twin: Twin,
    open: Vec<Handle>,
    random: Random,
    /// The next byte to fill something with.
    fill: u8,
}

/// What an operation said, as far as both can say it.
fn said<T>(outcome: &io::Result<T>) -> Result<(), ErrorKind> {
    outcome.as_ref().map(drop).map_err(|error| match error.raw_os_error() {
        // The medium cannot give it back: no kind of its own.
        Some(_) => ErrorKind::InvalidData,
        None => error.kind(),
    })
}

impl Pair {
    fn new(seed: u64) -> Self {
        let (disk, twin, open) = (SimDisk::new(seed), Twin::default(), Vec::new());
        Self { disk, twin, open, random: Random(seed), fill: 0 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn name(&mut self) -> String {
        format!("f{}", self.below(5))
    }

    fn next_fill(&mut self) -> u8 {
        self.fill = self.fill % 250 + 1;
        self.fill
    }

    /// Some offset: at the border of a sector, or not.
    fn place(&mut self, sectors: usize) -> usize {
        let at = self.below(sectors) * SECTOR;
        if self.random.one_in(2) { at } else { at + self.below(SECTOR) }
    }

    fn open_files(&self) -> BTreeSet<usize> {
        self.open.iter().map(|open| open.file).collect()
    }

    fn compare(&self, context: &str) {
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
    fn names(&mut self) -> String {
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
    fn data(&mut self) -> String {
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

    fn read(&mut self, number: usize, range: Range<usize>) {
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

    fn write(&mut self, number: usize, range: Range<usize>, fill: u8) {
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

    /// Lets an operation fail, or fails the power at it, or lets the device lose what it was given.
    fn fault(&mut self) -> String {
        let number = self.open.iter().position(|open| self.twin.lasting_name(open.file).is_some());
        let unlimited = self.twin.capacity.is_none() && !self.twin.full;
        let number = number.filter(|number| {
            unlimited && self.twin.files[self.open[*number].file].unreadable.is_empty()
        });
        let Some(number) = number else { return "no fault".to_owned() };
        match self.below(6) {
            0 => self.failed_sync(number),
            1 => self.failed_write(number, Fault::Error),
            2 => {
                let story = self.failed_write(number, Fault::PowerCut);
                assert!(self.disk.list().is_err() && self.disk.create("new").is_err(), "{story}");
                assert!(self.open.iter().all(|open| open.handle.bytes().is_err()), "{story}");
                self.cut_power();
                story
            }
            3 => self.lost_write(number),
            4 => {
                self.twin.stats.operations += 1;
                self.twin.stats.interruptions += 1;
                self.disk.inject(Fault::Interrupted, 0);
                let outcome = self.open[number].handle.write_at(&[1; SECTOR], 0);
                assert_eq!(said(&outcome), Err(ErrorKind::Interrupted));
                "an interruption".to_owned()
            }
            _ => self.failed_change_of_a_name(),
        }
    }

    /// To the end of some sector it happened, or all of it, or nothing.
    fn failed_write(&mut self, number: usize, fault: Fault) -> String {
        let start = self.place(6);
        let range = start..start + self.place(4);
        let fill = self.next_fill();
        let Handle { file, handle } = &self.open[number];
        let name = &self.twin.lasting_name(*file).unwrap();
        self.disk.inject(fault, 0);
        assert!(handle.write_at(&vec![fill; range.len()], start as u64).is_err());
        let after = self.disk.read(name).unwrap();
        let ends = sectors(range.clone()).map(|sector| sector * SECTOR).skip(1);
        let ends = [range.start, range.end].into_iter().chain(ends);
        let mut twins = ends.map(|end| {
            let mut file = self.twin.files[*file].clone();
            file.write(&vec![fill; end - range.start], range.start);
            file
        });
        let twin = twins.find(|twin| twin.cache == after);
        self.twin.files[*file] = twin.expect("it ended in the midst of a sector");
        let stats = &mut self.twin.stats;
        stats.operations += 1;
        let is_error = fault == Fault::Error;
        *(if is_error { &mut stats.write_errors } else { &mut stats.operations_cut }) += 1;
        format!("{fault:?} at a write of {range:?}")
    }

    /// Of each sector it is durable or not, and none of them is unsynced any more.
    fn failed_sync(&mut self, number: usize) -> String {
        let Handle { file, handle } = &self.open[number];
        let names = self.twin.changes.len();
        let name = &self.twin.lasting_name(*file).unwrap();
        self.disk.inject(Fault::Error, 0);
        assert!(handle.sync().is_err());
        let held = &mut self.twin.files[*file];
        let stats = &mut self.twin.stats;
        stats.operations += 1;
        stats.sync_errors += 1;
        stats.syncs_after_failure += u64::from(held.sync_failed);
        held.sync_failed = true;
        let left = self.disk.after_power_cut(1, |item| item < names).read(name).unwrap();
        let mut arrived = held.clone();
        for sector in held.unsynced() {
            let mut with = arrived.clone();
            with.settle(sector);
            let range = sector * SECTOR..with.durable.len().min((sector + 1) * SECTOR);
            if left.get(range.clone()).is_some_and(|left| *left == with.durable[range]) {
                arrived = with;
            }
        }
        assert!(arrived.durable == left, "a sector is neither old nor new");
        arrived.dirty.clear();
        *held = arrived;
        format!("a failed sync of {file}")
    }

    fn lost_write(&mut self, number: usize) -> String {
        let start = self.place(6);
        let bytes = vec![self.next_fill(); 1 + self.place(4)];
        let Handle { file, handle } = &self.open[number];
        self.disk.inject(Fault::LostWrite, 0);
        assert_eq!(handle.write_at(&bytes, start as u64).unwrap(), bytes.len());
        let held = &mut self.twin.files[*file];
        held.write(&bytes, start);
        held.dirty.retain(|sector| !sectors(start..start + bytes.len()).contains(sector));
        self.twin.stats.operations += 1;
        self.twin.stats.lost_writes += 1;
        format!("a lost write of {} bytes at {start} of {file}", bytes.len())
    }

    /// It happened or not.
    fn failed_change_of_a_name(&mut self) -> String {
        let (name, other) = (self.name(), self.name());
        let changes = |disk: &SimDisk| {
            let of_name = |it: &&Unsynced| !matches!(it, Unsynced::Sector { .. });
            disk.unsynced().iter().filter(of_name).count()
        };
        let before = changes(&self.disk);
        self.twin.stats.operations += 1;
        self.twin.stats.name_errors += 1;
        self.disk.inject(Fault::Error, 0);
        let there = self.twin.names.get(&name).copied();
        let change = match (self.random.one_in(2), there) {
            (true, _) => {
                assert!(self.disk.rename(&name, &other).is_err());
                there.map(|file| Change::Rename(name.clone(), other.clone(), file))
            }
            (false, Some(_)) => {
                assert!(self.disk.remove(&name).is_err());
                Some(Change::Remove(name.clone()))
            }
            (false, None) => {
                assert!(self.disk.create(&name).is_err());
                let file = self.twin.add(File::default());
                Some(Change::Create(name.clone(), file))
            }
        };
        let happened = changes(&self.disk) > before;
        change.filter(|_| happened).into_iter().for_each(|change| self.twin.change(change));
        format!("a failed change of {name} and {other}: {happened}")
    }

    /// What happens to a file while nobody looks.
    fn damage(&mut self) -> String {
        let (name, from) = (self.name(), self.name());
        let sector = self.below(6) as u64;
        let (at, bytes) = (self.place(6), self.place(3));
        let fill = self.next_fill();
        let damage = match self.below(9) {
            0 => Damage::FlipBit { at: at as u64, bit: fill },
            1 => Damage::Overwrite { at: at as u64, bytes: vec![fill; bytes] },
            2 => Damage::Zeros { at: at as u64, bytes: bytes as u64 },
            3 => Damage::Stale { sector },
            4 => Damage::Misplaced { sector, from: from.clone(), from_sector: fill.into() },
            5 | 6 => Damage::Unreadable { sector },
            7 => Damage::Truncate { bytes: at as u64 },
            _ => Damage::Extend { bytes: bytes as u64, fill },
        };
        let damage = match damage {
            Damage::Misplaced { from_sector, .. } => {
                Damage::Misplaced { sector, from: from.clone(), from_sector: from_sector % 6 }
            }
            other => other,
        };
        let misplaced = self
            .twin
            .names
            .get(&from)
            .and_then(|file| self.twin.files[*file].sector(fill as usize % 6));
        let expected = self.twin.names.get(&name).is_some_and(|file| {
            let file = &mut self.twin.files[*file];
            let (before, unreadable) = (file.cache.clone(), file.unreadable.len());
            let start = sector as usize * SECTOR;
            match &damage {
                Damage::FlipBit { bit, .. } => {
                    let byte = file.cache.get(at).copied();
                    byte.into_iter().for_each(|byte| file.overwrite(&[byte ^ 1 << (bit % 8)], at));
                }
                Damage::Overwrite { bytes, .. } => file.overwrite(bytes, at),
                Damage::Zeros { .. } => file.overwrite(&vec![0; bytes], at),
                Damage::Stale { .. } => file.make_stale(sector as usize),
                Damage::Misplaced { .. } => {
                    misplaced.into_iter().for_each(|content| file.overwrite(&content, start));
                }
                Damage::Unreadable { .. } if start < file.cache.len() => {
                    file.unreadable.insert(sector as usize);
                }
                Damage::Truncate { .. } => file.truncate(at),
                Damage::Extend { .. } => file.extend(bytes, fill),
                _ => {}
            }
            file.cache != before || file.unreadable.len() > unreadable
        });
        assert_eq!(self.disk.damage(&name, &damage), expected, "{name}: {damage:?}");
        self.twin.stats.damages += u64::from(expected);
        format!("{damage:?} to {name}")
    }

    /// Files come, go and move while nobody looks; the machine starts again; space is given and taken.
    fn around(&mut self) -> String {
        let (name, other) = (self.name(), self.name());
        let twin = &mut self.twin;
        let kind = self.random.below(9);
        match kind {
            0 => {
                let content = vec![name.len() as u8; self.random.below(2000) as usize];
                self.disk.put(&name, content.clone());
                twin.take(&name);
                let file = twin.add(File::durable(content));
                twin.give(&name, file);
            }
            1 => assert_eq!(self.disk.take(&name), twin.take(&name).is_some()),
            2 => {
                let file = twin.names.get(&name).copied();
                assert_eq!(self.disk.rename_at_rest(&name, &other), file.is_some());
                if let Some(file) = file {
                    twin.take(&name);
                    twin.take(&other);
                    twin.give(&other, file);
                }
            }
            3 => {
                let file = twin.names.get(&name).copied();
                assert_eq!(self.disk.duplicate(&name, &other), file.is_some());
                if let Some(file) = file {
                    let copy = File::durable(twin.files[file].cache.clone());
                    twin.take(&other);
                    let copy = twin.add(copy);
                    twin.give(&other, copy);
                }
            }
            4 => {
                self.disk.forget_cache();
                twin.files.iter_mut().for_each(File::forget_cache);
            }
            5 => {
                self.disk.restart();
                assert!(self.open.iter().all(|open| open.handle.bytes().is_err()));
                self.open.clear();
                twin.full = false;
            }
            6 => {
                let capacity = self.disk.used_bytes() + self.random.below(2000);
                twin.capacity = self.random.one_in(2).then_some(capacity);
                self.disk.set_capacity(twin.capacity);
            }
            7 if !twin.full => {
                self.disk.inject(Fault::Full, 0);
                self.disk.sync_directory().unwrap();
                twin.stats.operations += 1;
                twin.sync_directory();
                twin.full = true;
            }
            _ => {
                self.disk.make_room();
                twin.full = false;
            }
        }
        format!("around {kind}: {name} {other}")
    }

    /// Of what is unsynced, any subset survives; the copy is what goes on.
    fn cut_power(&mut self) {
        let items = self.disk.unsynced().len();
        let survives: Vec<bool> = (0..items).map(|_| self.random.one_in(2)).collect();
        let after = self.disk.after_power_cut(self.random.next(), |item| survives[item]);
        self.open.clear();
        self.twin = self.twin.after_power_cut(&survives);
        self.disk = after;
    }
}

#[test]
fn the_disk_does_what_its_twin_does() {
    let mut total = SimStats::default();
    for seed in 0..500 {
        let mut pair = Pair::new(seed);
        for step in 0..150 {
            let story = match pair.below(20) {
                0..5 => pair.names(),
                5..14 => pair.data(),
                14 | 15 => pair.fault(),
                16 | 17 => pair.damage(),
                18 => pair.around(),
                _ => {
                    let stats = pair.disk.stats();
                    total.syncs_after_failure += stats.syncs_after_failure;
                    total.unreadable_hits += stats.unreadable_hits;
                    total.space_refusals += stats.space_refusals;
                    total.short_writes += stats.short_writes;
                    pair.cut_power();
                    total.files_torn += pair.disk.stats().files_torn;
                    "a power cut".to_owned()
                }
            };
            pair.compare(&format!("seed {seed}, step {step}: {story}"));
        }
    }
    assert!(total.syncs_after_failure > 20 && total.unreadable_hits > 20, "{total:?}");
    assert!(total.space_refusals > 20 && total.short_writes > 20, "{total:?}");
    assert!(total.files_torn > 20, "{total:?}");
}
