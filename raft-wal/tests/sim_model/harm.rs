//! Faults of the disk, and what happens to it while nobody looks.

use std::io::ErrorKind;

use raft_wal::Disk;
use raft_wal::sim::{Damage, Fault, SimDisk, Unsynced};

use super::pair::{Handle, Pair, said};
use super::twin::{Change, File, SECTOR, sectors};

impl Pair {
    /// Lets an operation fail, or fails the power at it, or lets the device lose what it was given.
    pub(crate) fn fault(&mut self) -> String {
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
    pub(crate) fn failed_write(&mut self, number: usize, fault: Fault) -> String {
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
    pub(crate) fn failed_sync(&mut self, number: usize) -> String {
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

    pub(crate) fn lost_write(&mut self, number: usize) -> String {
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
    pub(crate) fn failed_change_of_a_name(&mut self) -> String {
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
    pub(crate) fn damage(&mut self) -> String {
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
    pub(crate) fn around(&mut self) -> String {
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
}
