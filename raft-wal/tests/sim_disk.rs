//! The simulated disk itself: each fault does what it says, and nothing else happens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use raft_core::Write;
use raft_wal::sim::{
    Cost, Damage, Fault, FaultRule, Latency, Operation, SimDisk, SimStats, Unsynced,
};
use raft_wal::{Disk, DiskFile, Log};
use support::{Random, Twin, config, twin_of};

const SECTOR: usize = 512;

/// A durable file of so many sectors, of which number `n` is filled with `first + n`.
fn put(disk: &SimDisk, name: &str, first: u8, sectors: usize) {
    disk.put(name, (0..sectors * SECTOR).map(|at| first + (at / SECTOR) as u8).collect());
}

/// The first byte of each sector, which the others must equal.
fn sectors(disk: &SimDisk, name: &str) -> Vec<u8> {
    let content = disk.read(name).unwrap();
    let whole = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
    assert!(content.chunks(SECTOR).all(whole), "a mixed sector");
    content.chunks(SECTOR).map(|sector| sector[0]).collect()
}

fn write(file: &dyn DiskFile, fill: u8, first: usize, sectors: usize) {
    let bytes = vec![fill; sectors * SECTOR];
    assert_eq!(file.write_at(&bytes, (first * SECTOR) as u64).unwrap(), bytes.len());
}

/// Does something of everything, and whatever comes of it.
fn exercise(disk: &SimDisk, seed: u64) {
    let mut random = Random(seed);
    for round in 0..200 {
        let (name, other) = (format!("f{}", random.below(4)), format!("f{}", random.below(4)));
        let file = disk.create(&name).or_else(|_| disk.open(&name));
        match (random.below(8), file) {
            (0, _) => drop(disk.rename(&name, &other)),
            (1, _) => drop(disk.remove(&name)),
            (2, _) => drop(disk.sync_directory()),
            (3, Ok(file)) => drop(file.sync()),
            (4, Ok(file)) => drop(file.read_at(&mut [0; 700], random.below(3000))),
            (_, Ok(file)) => {
                let bytes = vec![round as u8; random.below(3000) as usize];
                drop(file.write_at(&bytes, random.below(5000)));
            }
            (_, Err(_)) => {}
        }
    }
}

#[test]
fn a_file_is_what_a_vector_would_be_and_loses_only_what_was_not_synced() {
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let mut random = Random(seed);
        let (mut twin, mut durable) = (Vec::new(), Vec::new());
        let file = disk.create("file").unwrap();
        disk.sync_directory().unwrap();
        for _ in 0..30 {
            let at = random.below(9000) as usize;
            let fill = random.below(3) as u8;
            let bytes = vec![fill; random.below(2500) as usize];
            assert_eq!(file.write_at(&bytes, at as u64).unwrap(), bytes.len());
            if !bytes.is_empty() {
                twin.resize(twin.len().max(at + bytes.len()), 0);
                twin[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            if random.one_in(4) {
                file.sync().unwrap();
                durable.clone_from(&twin);
            }
            let (at, mut into) = (random.below(9000) as usize, vec![9; 1500]);
            let count = file.read_at(&mut into, at as u64).unwrap();
            assert_eq!(into[..count], twin[at.min(twin.len())..(at + 1500).min(twin.len())]);
            assert_eq!(file.bytes().unwrap(), twin.len() as u64);
        }
        disk.restart();
        assert!(disk.read("file").unwrap() == twin, "seed {seed}: a restart loses nothing");
        disk.crash();
        let left = disk.read("file").unwrap();
        assert!((durable.len()..=twin.len()).contains(&left.len()), "seed {seed}");
        durable.resize(left.len(), 0);
        for (at, sector) in left.chunks(SECTOR).enumerate() {
            let range = at * SECTOR..at * SECTOR + sector.len();
            let known = *sector == durable[range.clone()] || *sector == twin[range];
            assert!(known, "seed {seed}: sector {at} is neither old nor new");
        }
        disk.crash();
        assert!(disk.read("file").unwrap() == left, "seed {seed}: what survived is durable");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed: u64| {
        let disk = SimDisk::new(seed);
        let mut trace = Vec::new();
        for life in 0..20 {
            disk.add_fault(FaultRule::new(Fault::Error).always().one_in(9));
            disk.add_fault(FaultRule::new(Fault::LostSector).always().one_in(9));
            disk.add_fault(FaultRule::new(Fault::MisplacedInOther).always().one_in(9));
            disk.set_capacity(Some(20_000));
            exercise(&disk, life);
            disk.crash();
            trace.extend(disk.names().into_iter().map(|name| (disk.read(&name), name)));
        }
        (trace, disk.stats())
    };
    let first = run(1);
    assert!(first == run(1));
    assert!(first != run(2));
    let SimStats { write_errors, sync_errors, name_errors, lost_writes, .. } = first.1;
    let SimStats { misplaced_writes, space_refusals, sectors_lost, files_torn, .. } = first.1;
    let counts = [write_errors, sync_errors, name_errors, lost_writes, misplaced_writes];
    assert!(counts.iter().all(|count| *count > 5), "{:?}", first.1);
    assert!(space_refusals > 5 && sectors_lost > 5 && files_torn > 5, "{:?}", first.1);
}

#[test]
fn every_subset_of_what_is_unsynced_survives_once() {
    let disk = SimDisk::new(1);
    put(&disk, "old", 1, 3);
    let old = disk.open("old").unwrap();
    write(old.as_ref(), 9, 1, 2);
    write(old.as_ref(), 1, 0, 1); // What it holds already: no difference.
    let new = disk.create("new").unwrap();
    write(new.as_ref(), 7, 0, 2);
    disk.rename("old", "older").unwrap();
    let unsynced = disk.unsynced();
    let sector = |name: &str, sector| Unsynced::Sector { name: name.to_owned(), sector };
    let expected = [
        Unsynced::Create { name: "new".to_owned() },
        Unsynced::Rename { from: "old".to_owned(), to: "older".to_owned() },
        sector("older", 1),
        sector("older", 2),
        sector("new", 0),
        sector("new", 1),
    ];
    assert_eq!(unsynced, expected);
    let cuts = disk.power_cuts(64, 1);
    assert!(cuts.is_exhaustive());
    assert_eq!(cuts.len(), 64);
    let (mut chosen, mut outcomes) = (BTreeSet::new(), BTreeSet::new());
    for cut in cuts {
        let kept = |item: usize| cut.survived.contains(&item);
        let name = if kept(1) { "older" } else { "old" };
        let fill = |item, old| if kept(item) { 9 } else { old };
        assert_eq!(sectors(&cut.disk, name), [1, fill(2, 2), fill(3, 3)]);
        let created =
            [&[][..], &[7], &[0, 7], &[7, 7]][usize::from(kept(4)) + 2 * usize::from(kept(5))];
        let left = kept(0).then(|| sectors(&cut.disk, "new"));
        assert_eq!(left, kept(0).then(|| created.to_vec()));
        assert_eq!(cut.disk.unsynced(), []);
        let stats = cut.disk.stats();
        assert_eq!(stats.names_kept + stats.sectors_kept, cut.survived.len() as u64);
        assert_eq!(stats.names_lost + stats.sectors_lost, 6 - cut.survived.len() as u64);
        outcomes.insert((cut.disk.names(), sectors(&cut.disk, name), left));
        chosen.insert(cut.survived);
    }
    assert_eq!((chosen.len(), outcomes.len()), (64, 2 * 4 * (1 + 4)));
    let cut = disk.after_power_cut(1, |item| item == 1 || item == 3);
    assert_eq!((cut.names(), sectors(&cut, "older")), (vec!["older".to_owned()], vec![1, 2, 9]));
    assert_eq!(disk.unsynced(), expected, "the disk itself still has its power");
}

#[test]
fn zeros_that_make_a_file_longer_are_at_risk_too() {
    let disk = SimDisk::new(1);
    disk.put("file", Vec::new());
    write(disk.open("file").unwrap().as_ref(), 0, 0, 2);
    let lengths = disk.power_cuts(99, 1).map(|cut| sectors(&cut.disk, "file").len());
    assert_eq!(lengths.collect::<Vec<_>>(), [0, 1, 2, 2]);
}

#[test]
fn of_too_many_subsets_none_all_and_random_ones_are_tried() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 100);
    write(disk.open("file").unwrap().as_ref(), 200, 0, 100);
    let cuts = disk.power_cuts(50, 3);
    assert!(!cuts.is_exhaustive());
    let survived: Vec<Vec<usize>> = cuts.map(|cut| cut.survived).collect();
    assert_eq!((survived.len(), survived[0].len(), survived[1].len()), (50, 0, 100));
    let different: BTreeSet<&Vec<usize>> = survived.iter().collect();
    assert!(different.len() > 20, "{}", different.len());
    assert!(survived == disk.power_cuts(50, 3).map(|cut| cut.survived).collect::<Vec<_>>());
}

#[test]
fn a_file_that_nothing_leads_to_is_not_at_risk() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 2);
    let file = disk.open("file").unwrap();
    disk.remove("file").unwrap();
    write(file.as_ref(), 9, 0, 1);
    let remove = Unsynced::Remove { name: "file".to_owned() };
    let sector = Unsynced::Sector { name: "file".to_owned(), sector: 0 };
    assert_eq!(disk.unsynced(), [remove, sector]);
    disk.sync_directory().unwrap();
    assert_eq!(disk.unsynced(), []);
    assert_eq!(file.read_at(&mut [0; 10], 0).unwrap(), 10, "who has it open still has it");
}

/// Its name has come and gone, but the power may fail in between.
#[test]
fn a_file_that_was_removed_at_once_is_at_risk_under_the_name_that_it_had() {
    let disk = SimDisk::new(1);
    put(&disk, "other", 1, 1);
    write(disk.create("file").unwrap().as_ref(), 9, 0, 1);
    let open = disk.open("file").unwrap();
    disk.rename("file", "renamed").unwrap();
    disk.remove("renamed").unwrap();
    let sector = Unsynced::Sector { name: "file".to_owned(), sector: 0 };
    assert_eq!(disk.unsynced()[3..], [sector]);
    let after = |kept: &[usize]| disk.after_power_cut(1, |item| kept.contains(&item));
    assert_eq!(after(&[0, 3]).names(), ["file", "other"]);
    assert_eq!(sectors(&after(&[0, 3]), "file"), [9]);
    assert_eq!(sectors(&after(&[0, 1, 3]), "renamed"), [9]);
    assert_eq!(after(&[0, 1, 2, 3]).names(), ["other"]);
    drop(open);
}

#[test]
fn errors_hit_chosen_operations_of_chosen_files_only() {
    use Operation::{Create, List, Open, Read, Remove, Rename, Sync, SyncDirectory};
    let all = [&[List, Open, Read], Operation::CHANGES].concat();
    assert_eq!(BTreeSet::from_iter(all.clone()).len(), 9);
    for chosen in all {
        let disk = SimDisk::new(1);
        put(&disk, "a-1", 1, 1);
        put(&disk, "b-1", 1, 1);
        for prefix in ["a-", "b-"] {
            let (one, two) = (format!("{prefix}1"), format!("{prefix}2"));
            let file = disk.open(&one).unwrap();
            // Of b- none is hit, and of what is not of a file only rules without a prefix.
            let rule = FaultRule::new(Fault::Error).on(&[chosen]).always();
            let of_files = ![List, SyncDirectory].contains(&chosen);
            disk.add_fault(if of_files { rule.files("a-") } else { rule });
            let outcomes = [
                (List, disk.list().is_err()),
                (Open, disk.open(&one).is_err()),
                (Read, file.read_at(&mut [0; 9], 0).is_err()),
                (Operation::Write, file.write_at(&[0; 9], 0).is_err()),
                (Sync, file.sync().is_err()),
                (SyncDirectory, disk.sync_directory().is_err()),
                (Create, disk.create(&two).is_err()),
                (Rename, disk.rename(&one, &two).is_err()),
            ];
            let hit = !of_files || prefix == "a-";
            for (operation, failed) in outcomes {
                assert_eq!(failed, hit && operation == chosen, "{chosen:?} {prefix} {operation:?}");
            }
            let there = disk.names().into_iter().find(|name| name.starts_with(prefix)).unwrap();
            assert_eq!(disk.remove(&there).is_err(), hit && chosen == Remove);
            disk.clear_faults();
        }
        let stats = disk.stats();
        let errors = [stats.read_errors, stats.write_errors, stats.sync_errors, stats.name_errors];
        assert!(errors.iter().sum::<u64>() >= 1, "{chosen:?}: {stats:?}");
        assert_eq!(errors.iter().filter(|count| **count > 0).count(), 1, "{chosen:?}: {stats:?}");
    }
}

#[test]
fn rules_count_and_end_with_the_life() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 1);
    let file = disk.open("file").unwrap();
    let fails = |count: usize| (0..count).filter(|_| file.sync().is_err()).count();
    disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::Sync]).after(3).times(2));
    assert_eq!([fails(3), fails(2), fails(9)], [0, 2, 0]);
    disk.add_fault(FaultRule::new(Fault::Error).times(0));
    disk.inject(Fault::Error, 2);
    disk.inject(Fault::Error, 4);
    assert_eq!([fails(4), fails(1), fails(9)], [0, 1, 0], "the second one took its place");
    disk.add_fault(FaultRule::new(Fault::Error).always().one_in(4));
    let hits = fails(1000);
    assert!((150..350).contains(&hits), "{hits}");
    disk.clear_faults();
    assert_eq!(fails(100), 0);
    disk.add_fault(FaultRule::new(Fault::Error).always());
    disk.restart();
    assert!(file.sync().is_err(), "it belongs to the life before");
    assert!(disk.open("file").unwrap().sync().is_ok());
}

#[test]
fn a_directory_is_no_file_and_room_can_be_made() {
    let disk = SimDisk::new(1);
    let of_files = FaultRule::new(Fault::Error).files("f");
    disk.add_fault(of_files.on(&[Operation::List, Operation::SyncDirectory]));
    disk.list().unwrap();
    disk.sync_directory().unwrap();
    disk.inject(Fault::Full, 0);
    assert!(disk.create("file").is_err());
    assert!(disk.create("file").is_err());
    disk.make_room();
    disk.create("file").unwrap();
}

#[test]
fn what_only_looks_is_not_counted() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 1);
    disk.inject(Fault::Error, 0);
    for _ in 0..9 {
        disk.list().unwrap();
        disk.open("file").unwrap().read_at(&mut [0; 9], 0).unwrap();
    }
    assert_eq!(disk.stats().operations, 0);
    assert!(disk.create("other").is_err());
    assert_eq!(disk.stats().operations, 1);
}

#[test]
fn a_power_cut_at_an_operation_turns_everything_off() {
    let mut halves = BTreeSet::new();
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        put(&disk, "file", 1, 4);
        let file = disk.open("file").unwrap();
        disk.inject(Fault::PowerCut, 0);
        assert!(file.write_at(&[9; 4 * SECTOR], 0).is_err());
        assert!(disk.list().is_err() && file.read_at(&mut [0; 9], 0).is_err());
        disk.crash();
        let changed = sectors(&disk, "file").iter().filter(|fill| **fill == 9).count();
        halves.insert(changed);
        let stats = disk.stats();
        assert_eq!((stats.operations_cut, stats.power_cuts), (1, 1));
        assert_eq!(stats.sectors_kept, changed as u64, "seed {seed}");
    }
    assert!(halves.len() >= 4, "{halves:?}");
}

#[test]
fn what_a_failed_sync_drops_is_readable_until_the_cache_is_forgotten() {
    let mut dropped = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        put(&disk, "file", 1, 3);
        let file = disk.open("file").unwrap();
        write(file.as_ref(), 9, 0, 3);
        disk.inject(Fault::Error, 0);
        assert!(file.sync().is_err());
        assert_eq!(sectors(&disk, "file"), [9, 9, 9]);
        file.sync().unwrap();
        assert_eq!(disk.stats().syncs_after_failure, 1);
        let crashed = disk.after_power_cut(1, |_| true);
        disk.forget_cache();
        assert_eq!(sectors(&disk, "file"), sectors(&crashed, "file"));
        dropped += usize::from(sectors(&disk, "file") == [1, 2, 3]);
        write(file.as_ref(), 8, 0, 3);
        file.sync().unwrap();
        disk.crash();
        assert_eq!(sectors(&disk, "file"), [8, 8, 8], "writing it again is what helps");
    }
    assert!((5..35).contains(&dropped), "{dropped}");
}

#[test]
fn lost_writes_leave_stale_sectors_behind_a_successful_sync() {
    for (fault, lost_sectors) in [(Fault::LostWrite, 3), (Fault::LostSector, 1)] {
        let disk = SimDisk::new(1);
        put(&disk, "file", 1, 5);
        let file = disk.open("file").unwrap();
        disk.add_fault(FaultRule::new(fault).files("file"));
        write(file.as_ref(), 9, 1, 3);
        file.sync().unwrap();
        assert_eq!(sectors(&disk, "file"), [1, 9, 9, 9, 5], "the cache has it");
        assert_eq!(disk.unsynced(), []);
        let later = disk.fork(1);
        disk.crash();
        let stale = [2, 3, 4].iter().filter(|fill| sectors(&disk, "file").contains(fill)).count();
        assert_eq!(stale, lost_sectors);
        assert_eq!(sectors(&disk, "file").iter().filter(|fill| **fill == 9).count(), 3 - stale);
        assert_eq!((disk.stats().lost_writes, disk.stats().misplaced_writes), (1, 0));
        write(later.open("file").unwrap().as_ref(), 9, 1, 3);
        later.open("file").unwrap().sync().unwrap();
        later.crash();
        assert_eq!(sectors(&later, "file"), [1, 9, 9, 9, 5], "writing it again heals it");
    }
}

#[test]
fn misplaced_writes_leave_a_stale_sector_and_spoil_another() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        put(&disk, "file", 1, 4);
        put(&disk, "other", 11, 4);
        let file = disk.open("file").unwrap();
        for (fault, spoilt) in
            [(Fault::MisplacedInFile, "file"), (Fault::MisplacedInOther, "other")]
        {
            let before = [sectors(&disk, "file"), sectors(&disk, "other")].concat();
            disk.add_fault(FaultRule::new(fault));
            let fill = if spoilt == "file" { 101 } else { 102 };
            write(file.as_ref(), fill, 0, 1);
            file.sync().unwrap();
            disk.forget_cache();
            let after = [sectors(&disk, "file"), sectors(&disk, "other")].concat();
            assert_eq!(after[0], before[0], "seed {seed}");
            let changed: Vec<usize> = (0..8).filter(|at| after[*at] != before[*at]).collect();
            assert_eq!(changed.len(), 1, "seed {seed}");
            assert_eq!((after[changed[0]], changed[0] < 4), (fill, spoilt == "file"));
        }
        assert_eq!((disk.stats().lost_writes, disk.stats().misplaced_writes), (0, 2));
    }
    let disk = SimDisk::new(1);
    put(&disk, "only", 1, 1);
    disk.add_fault(FaultRule::new(Fault::MisplacedInFile));
    disk.add_fault(FaultRule::new(Fault::MisplacedInOther));
    (0..2).for_each(|_| write(disk.open("only").unwrap().as_ref(), 9, 0, 1));
    assert_eq!((disk.stats().lost_writes, disk.stats().misplaced_writes), (2, 0), "no other place");
}

#[test]
fn nothing_arrives_behind_the_end_of_a_file() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        put(&disk, "file", 1, 1);
        disk.put("short", vec![11; 100]);
        disk.add_fault(FaultRule::new(Fault::MisplacedInOther));
        write(disk.open("file").unwrap().as_ref(), 9, 0, 1);
        disk.forget_cache();
        assert_eq!(disk.read("short").unwrap(), [9; 100]);
        assert_eq!(disk.open("short").unwrap().write_at(&[1], 200).unwrap(), 1);
        assert_eq!(disk.read("short").unwrap()[100..200], [0; 100]);
    }
}

#[test]
fn a_disk_of_a_size_fills_up_and_gets_room_back() {
    let disk = SimDisk::new(1);
    put(&disk, "a", 1, 4);
    disk.set_capacity(Some(6 * SECTOR as u64 + 100));
    let full =
        |outcome: std::io::Result<usize>| outcome.unwrap_err().kind() == ErrorKind::StorageFull;
    let file = disk.create("b").unwrap();
    assert_eq!(file.write_at(&[2; 5 * SECTOR], 0).unwrap(), 2 * SECTOR, "what fits");
    assert!(full(file.write_at(&[2; SECTOR], 2 * SECTOR as u64)));
    assert!(full(file.write_at(&[2; 1], 9999)));
    write(file.as_ref(), 3, 0, 2);
    assert_eq!(file.write_at(&[3; 100], 2 * SECTOR as u64).unwrap(), 100, "to the last byte");
    assert_eq!(disk.create("c").err().unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.stats().space_refusals, 3);
    // Removed, but open.
    let open = disk.open("a").unwrap();
    disk.remove("a").unwrap();
    assert_eq!(disk.used_bytes(), 6 * SECTOR as u64 + 100);
    drop(open);
    assert_eq!(disk.used_bytes(), 2 * SECTOR as u64 + 100);
    let grown = disk.create("c").unwrap();
    write(grown.as_ref(), 1, 0, 4);
    disk.rename("c", "b").unwrap();
    assert_eq!(disk.used_bytes(), 6 * SECTOR as u64 + 100, "b is replaced, but open");
    disk.set_capacity(Some(1));
    assert!(full(grown.write_at(&[2; 1], 4 * SECTOR as u64)));
    assert!(full(disk.fork(1).open("b").unwrap().write_at(&[2; 1], 4 * SECTOR as u64)));
    disk.restart();
    assert_eq!(disk.used_bytes(), 4 * SECTOR as u64);
    let file = disk.open("b").unwrap();
    assert!(full(file.write_at(&[2; 1], 4 * SECTOR as u64)), "no larger in the next life");
    disk.set_capacity(None);
    write(file.as_ref(), 1, 4, 4);
    disk.inject(Fault::Full, 1);
    write(file.as_ref(), 1, 8, 1);
    assert!(full(file.write_at(&[2; SECTOR], 9 * SECTOR as u64)));
    disk.restart();
    write(disk.open("b").unwrap().as_ref(), 1, 9, 1);
    let error = disk.open("b").unwrap().write_at(&[1], u64::MAX - 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FileTooLarge);
}

#[test]
fn time_is_added_up_and_given_out_once() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 4);
    let file = disk.open("file").unwrap();
    write(file.as_ref(), 2, 0, 4);
    file.sync().unwrap();
    assert_eq!(disk.take_cost(), Duration::ZERO, "nothing costs anything unless it is said");
    disk.set_latency(Latency {
        read: Cost { operation_ns: 1, kib_ns: 1024 },
        write: Cost { operation_ns: 10_000, kib_ns: 1_000_000 },
        sync: Cost { operation_ns: 100, kib_ns: 1000 },
        names_ns: 7,
        sync_directory_ns: 70,
    });
    let cost = |act: &dyn Fn()| {
        act();
        disk.take_cost().as_nanos()
    };
    assert_eq!(cost(&|| write(file.as_ref(), 2, 0, 4)), 2_010_000);
    assert_eq!(cost(&|| file.sync().unwrap()), 2100);
    assert_eq!(cost(&|| file.sync().unwrap()), 100, "nothing was dirty");
    assert_eq!(cost(&|| drop(file.read_at(&mut [0; 100], 0))), 101);
    assert_eq!(cost(&|| drop(disk.create("other"))), 7);
    assert_eq!(cost(&|| disk.sync_directory().unwrap()), 70);
    disk.add_fault(FaultRule::new(Fault::Slow(Duration::from_secs(1))).on(&[Operation::Read]));
    assert_eq!(cost(&|| drop(file.read_at(&mut [0; 100], 0))), 1_000_000_101);
    let fork = disk.fork(1);
    fork.sync_directory().unwrap();
    assert_eq!(fork.take_cost().as_nanos(), 70, "a fork is as fast as its origin");
    disk.inject(Fault::Error, 0);
    assert_eq!(cost(&|| assert!(file.sync().is_err())), 100, "failing takes time too");
    assert_eq!((disk.take_cost(), disk.stats().slow_operations), (Duration::ZERO, 1));
}

#[test]
fn damage_at_rest_is_what_it_says_and_lasts() {
    let sector = |sector| [(sector * SECTOR) as u64, SECTOR as u64];
    let [at, bytes] = sector(1);
    let misplaced = |from: &str, from_sector| {
        let from = from.to_owned();
        Damage::Misplaced { sector: 1, from, from_sector }
    };
    let cases: [(Damage, &[u8]); 9] = [
        (Damage::Zeros { at, bytes }, &[1, 0, 3]),
        (Damage::Overwrite { at, bytes: vec![77; SECTOR] }, &[1, 77, 3]),
        (Damage::Overwrite { at: 2 * at, bytes: vec![77; 9 * SECTOR] }, &[1, 2, 77]),
        (misplaced("file", 2), &[1, 3, 3]),
        (misplaced("other", 1), &[1, 52, 3]),
        (Damage::Truncate { bytes: at + 100 }, &[1, 2]),
        (Damage::Extend { bytes: 700, fill: 5 }, &[1, 2, 3, 5, 5]),
        (Damage::Extend { bytes, fill: 0 }, &[1, 2, 3, 0]),
        (Damage::Stale { sector: 1 }, &[1, 0, 3]),
    ];
    for (damage, expected) in cases {
        let disk = SimDisk::new(1);
        put(&disk, "file", 1, 3);
        put(&disk, "other", 51, 3);
        let file = disk.open("file").unwrap();
        assert!(disk.damage("file", &damage), "{damage:?}");
        assert_eq!(sectors(&disk, "file"), expected, "{damage:?}");
        assert_eq!(disk.stats().damages, 1);
        file.sync().unwrap();
        disk.crash();
        assert_eq!(sectors(&disk, "file"), expected, "{damage:?} is durable");
        assert_eq!(sectors(&disk, "other"), [51, 52, 53]);
    }
}

#[test]
fn bits_and_garbage_come_from_the_arguments_and_nothing_else() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 3);
    let before = disk.read("file").unwrap();
    assert!(disk.damage("file", &Damage::FlipBit { at: 700, bit: 11 }));
    let mut expected = before.clone();
    expected[700] ^= 8;
    assert!(disk.read("file").unwrap() == expected);
    let garbage = |seed| Damage::Garbage { at: 300, bytes: 600, seed };
    let [one, again, other] = [1, 1, 2].map(|seed| {
        let fork = disk.fork(seed);
        assert!(fork.damage("file", &garbage(seed)));
        fork.read("file").unwrap()
    });
    assert!(one == again && one != other);
    assert!(one[..300] == expected[..300] && one[900..] == expected[900..]);
    for nothing in [
        Damage::FlipBit { at: 1536, bit: 0 },
        Damage::Overwrite { at: 0, bytes: vec![1; 9] },
        Damage::Zeros { at: u64::MAX, bytes: u64::MAX },
        Damage::Garbage { at: 0, bytes: 0, seed: 1 },
        Damage::Stale { sector: u64::MAX },
        Damage::Misplaced { sector: 0, from: "nobody".to_owned(), from_sector: 0 },
        Damage::Misplaced { sector: 0, from: "file".to_owned(), from_sector: 3 },
        Damage::Unreadable { sector: 3 },
        Damage::Truncate { bytes: 1536 },
        Damage::Extend { bytes: 0, fill: 1 },
    ] {
        assert!(!disk.damage("file", &nothing), "{nothing:?}");
    }
    assert!(!disk.damage("nobody", &Damage::FlipBit { at: 0, bit: 0 }));
    assert_eq!(disk.stats().damages, 1);
    let kinds: BTreeSet<_> = (0..200)
        .map(|seed| {
            let (damage, fork) = (Damage::random(1536, seed), disk.fork(seed));
            assert_eq!(damage, Damage::random(1536, seed));
            fork.damage("file", &damage);
            format!("{damage:?}").split(' ').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

#[test]
fn a_stale_sector_is_what_it_was_before_its_last_change() {
    let disk = SimDisk::new(1);
    let file = disk.create("file").unwrap();
    for fill in [1, 2, 2] {
        write(file.as_ref(), fill, 0, 2);
        file.sync().unwrap();
    }
    write(file.as_ref(), 3, 1, 1); // Not durable.
    assert!(disk.damage("file", &Damage::Stale { sector: 0 }));
    assert!(!disk.damage("file", &Damage::Stale { sector: 0 }), "it has no deeper memory");
    assert_eq!(sectors(&disk, "file"), [1, 3]);
}

#[test]
fn an_unreadable_sector_fails_reads_until_it_is_written() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 3);
    assert!(disk.damage("file", &Damage::Unreadable { sector: 1 }));
    disk.crash();
    let file = disk.open("file").unwrap();
    let read = |at: usize, count: usize| file.read_at(&mut vec![0; count], at as u64);
    assert_eq!(read(0, SECTOR).unwrap(), SECTOR);
    assert_eq!(read(2 * SECTOR, SECTOR).unwrap(), SECTOR);
    assert!(read(SECTOR - 1, 2).is_err() && read(0, 3 * SECTOR).is_err());
    assert!(file.write_at(&[9; 3], SECTOR as u64).is_err(), "the rest of it would be needed");
    assert_eq!(disk.stats().unreadable_hits, 3);
    write(file.as_ref(), 9, 1, 1);
    assert_eq!(read(0, 3 * SECTOR).unwrap(), 3 * SECTOR);
}

#[test]
fn files_moved_at_rest_stay_so_whatever_was_unsynced() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        for (name, fill) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            put(&disk, name, fill, 1);
        }
        disk.rename("a", "aa").unwrap();
        disk.create("new").unwrap();
        disk.remove("c").unwrap();
        disk.create("x").unwrap();
        disk.rename("x", "y").unwrap();
        assert!(disk.take("y"));
        assert!(disk.take("aa") && !disk.take("aa"));
        assert!(disk.rename_at_rest("new", "newer") && !disk.rename_at_rest("nobody", "e"));
        assert!(disk.duplicate("b", "c") && !disk.duplicate("nobody", "e"));
        assert!(disk.rename_at_rest("d", "b") && disk.rename_at_rest("b", "b"));
        disk.crash();
        assert_eq!(disk.names(), ["b", "c", "newer"], "seed {seed}");
        assert_eq!([sectors(&disk, "b"), sectors(&disk, "c")], [[4], [2]]);
        write(disk.open("b").unwrap().as_ref(), 9, 0, 1);
        assert_eq!(sectors(&disk, "c"), [2], "a copy is a file of its own");
    }
}

#[test]
fn a_fork_and_its_origin_do_not_know_each_other() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 2);
    let file = disk.open("file").unwrap();
    write(file.as_ref(), 9, 0, 1);
    let fork = disk.fork(1);
    assert_eq!(fork.unsynced(), disk.unsynced());
    write(file.as_ref(), 8, 1, 1);
    write(fork.open("file").unwrap().as_ref(), 7, 1, 1);
    fork.create("other").unwrap();
    assert_eq!((sectors(&disk, "file"), sectors(&fork, "file")), (vec![9, 8], vec![9, 7]));
    assert_eq!((disk.names().len(), fork.names().len()), (1, 2));
    assert_eq!(fork.stats().operations, 2);
}

/// What was unsynced about other names may still happen, but nothing that would change this one.
#[test]
fn a_name_at_rest_is_not_touched_by_what_was_unsynced_about_it() {
    let mut others = BTreeSet::new();
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        for (name, fill) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            put(&disk, name, fill, 1);
        }
        // Others' files come and go under both names.
        disk.rename("a", "to").unwrap();
        disk.rename("b", "to").unwrap();
        disk.rename("c", "away").unwrap();
        disk.create("c").unwrap();
        disk.rename("d", "e").unwrap();
        disk.create("new").unwrap();
        disk.rename("new", "newer").unwrap();
        for (name, fill) in [("to", 5), ("c", 6), ("new", 7)] {
            put(&disk, name, fill, 1);
        }
        disk.crash();
        let content = ["to", "c", "new"].map(|name| sectors(&disk, name));
        assert_eq!(content, [[5], [6], [7]], "seed {seed}");
        let names = disk.names();
        let is_there = |name: &str| names.iter().any(|it| it == name);
        assert!(is_there("d") != is_there("e"), "seed {seed}: {names:?}");
        others.insert(is_there("e"));
    }
    assert_eq!(others.len(), 2, "the other one is renamed, or not");
}

#[test]
fn what_is_cut_off_or_overwritten_at_rest_is_not_more_than_that() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 6);
    let file = disk.open("file").unwrap();
    for sector in [1, 5] {
        assert!(disk.damage("file", &Damage::Unreadable { sector }));
    }
    assert!(disk.damage("file", &Damage::Truncate { bytes: 4 * SECTOR as u64 }));
    assert!(disk.damage("file", &Damage::Extend { bytes: 2 * SECTOR as u64, fill: 9 }));
    let is_readable = |sector: usize| file.read_at(&mut [0; 8], (sector * SECTOR) as u64).is_ok();
    let readable: Vec<bool> = (0..6).map(is_readable).collect();
    assert_eq!(readable, [true, false, true, true, true, true]);

    // What is unsynced or was lost before the cut is so still, and nothing behind it is.
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 4);
    let file = disk.open("file").unwrap();
    disk.add_fault(FaultRule::new(Fault::LostWrite).on(&[Operation::Write]).always());
    write(file.as_ref(), 7, 0, 4);
    file.sync().unwrap();
    disk.clear_faults();
    write(file.as_ref(), 8, 1, 3);
    let (bytes, last) = (2 * SECTOR as u64 + 100, 2);
    assert!(disk.damage("file", &Damage::Truncate { bytes }));
    let unsynced = |sector| Unsynced::Sector { name: "file".to_owned(), sector };
    assert_eq!(disk.unsynced(), [unsynced(1), unsynced(last)]);
    assert_eq!(sectors(&disk, "file"), [7, 8, 8]);
    disk.forget_cache();
    assert_eq!(sectors(&disk, "file"), [1, 8, 8]);
    // What stood behind the cut does not come back when the file grows again.
    let at = 3 * SECTOR as u64;
    assert_eq!(file.write_at(&[9; SECTOR], at).unwrap(), SECTOR);
    let content = disk.read("file").unwrap();
    assert_eq!(
        content[2 * SECTOR..],
        [[8; 100].as_slice(), &[0; SECTOR - 100], &[9; SECTOR]].concat()
    );
    assert!(!disk.damage("file", &Damage::Stale { sector: 4 }), "it has no such sector");

    // What has never reached the disk is overwritten in the cache only.
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 2);
    write(disk.open("file").unwrap().as_ref(), 9, 2, 2);
    let (at, bytes) = (2 * SECTOR as u64, vec![77; SECTOR]);
    assert!(disk.damage("file", &Damage::Overwrite { at, bytes }));
    assert_eq!(sectors(&disk, "file"), [1, 2, 77, 9]);
    assert_eq!(disk.unsynced().len(), 2);
    let cut = disk.after_power_cut(1, |item| item == 1);
    assert_eq!(sectors(&cut, "file"), [1, 2, 0, 9]);
}

#[test]
fn a_file_is_torn_if_some_of_it_survives_and_some_does_not() {
    let disk = SimDisk::new(1);
    put(&disk, "file", 1, 4);
    write(disk.open("file").unwrap().as_ref(), 9, 0, 4);
    let torn = |survives: &dyn Fn(usize) -> bool| {
        let stats = disk.after_power_cut(1, survives).stats();
        (stats.sectors_kept, stats.sectors_lost, stats.files_torn)
    };
    assert_eq!(torn(&|_| true), (4, 0, 0));
    assert_eq!(torn(&|_| false), (0, 4, 0));
    assert_eq!(torn(&|item| item == 2), (1, 3, 1));
}

#[test]
fn random_damage_is_of_all_kinds_and_lies_in_the_file() {
    const FILE: u64 = 10 * SECTOR as u64 + 100;
    let (mut bits, mut longest, mut kinds) = (0, 0, BTreeSet::new());
    let mut zeroed = BTreeSet::new();
    for seed in 0..4000 {
        let damage = Damage::random(FILE, seed);
        assert_eq!(damage, Damage::random(FILE, seed));
        let whole_sector = |at: u64, bytes: u64| {
            at.is_multiple_of(SECTOR as u64) && bytes == SECTOR as u64 && at < FILE
        };
        let kind = match damage {
            Damage::FlipBit { at, bit } => {
                assert!(at < FILE && bit < 8);
                bits += 1;
                0
            }
            Damage::Garbage { at, bytes, .. } if whole_sector(at, bytes) => 1,
            Damage::Garbage { at, bytes, .. } => {
                assert!(at < FILE && (1..=2 * SECTOR as u64).contains(&bytes));
                longest = longest.max(bytes);
                2
            }
            Damage::Zeros { at, bytes } => {
                assert!(whole_sector(at, bytes));
                zeroed.insert(at);
                3
            }
            Damage::Stale { sector } | Damage::Unreadable { sector } => {
                assert!(sector <= 10);
                4 + u64::from(matches!(damage, Damage::Stale { .. }))
            }
            Damage::Truncate { bytes } => {
                assert!(bytes < FILE);
                6
            }
            other => panic!("{other:?}"),
        };
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 7);
    assert_eq!(zeroed.len(), 11, "any sector");
    assert!((800..1200).contains(&bits), "one in four, not {bits} of 4000");
    assert!(longest > 1000, "up to two sectors, not {longest} bytes");
    assert_eq!(Damage::random(0, 1), Damage::random(0, 1), "of an empty file, too");
}

/// Interruptions, short writes and short reads are no failures: the log does not even notice.
#[test]
fn a_log_works_on_a_disk_that_interrupts_and_does_things_by_halves() {
    let disk = SimDisk::new(1);
    disk.shorten_writes();
    disk.shorten_reads();
    let mut twin = Twin::default();
    let mut random = Random(1);
    for _ in 0..10 {
        let often = FaultRule::new(Fault::Interrupted).always().one_in(3);
        disk.add_fault(often.on(&[Operation::Read, Operation::Write]));
        let opened = Log::open(Arc::new(disk.for_this_life()), &config()).unwrap();
        assert!(twin_of(&opened.restored) == twin);
        let mut log = opened.log;
        for _ in 0..20 {
            let write: Write = twin.random_write(&mut random);
            twin.apply(&write);
            log.append(&[write]).unwrap();
            log.sync().unwrap();
        }
        disk.crash();
    }
    let stats = disk.stats();
    assert!(stats.interruptions > 100 && stats.short_writes > 100, "{stats:?}");
    assert!(stats.short_reads > 100, "{stats:?}");
}

/// What operations cost the machine that simulates: `cargo test -p raft-wal --release --test
/// sim_disk -- --ignored --nocapture`.
#[test]
#[ignore = "it measures and asserts nothing"]
fn measure() {
    let time = |what: &str, rounds: u32, act: &mut dyn FnMut(u32)| {
        let start = Instant::now();
        (0..rounds).for_each(act);
        println!("{what}: {:?}", start.elapsed() / rounds);
    };
    let disk = SimDisk::new(1);
    let zeros = vec![0; 1 << 20];
    put(&disk, "segment", 0, 256);
    let file = disk.open("segment").unwrap();
    for bytes in [512, 4096] {
        let content = vec![7; bytes];
        time(&format!("write {bytes} bytes and sync"), 100_000, &mut |n| {
            file.write_at(&content, u64::from(n) % 16 * bytes as u64).unwrap();
            file.sync().unwrap();
        });
    }
    time("read 64 KiB", 10_000, &mut |_| {
        file.read_at(&mut vec![0; 1 << 16], 0).unwrap();
    });
    for kib in [16, 1024] {
        time(&format!("create, fill {kib} KiB with zeros, sync, remove"), 500, &mut |_| {
            let spare = disk.create("spare").unwrap();
            spare.write_at(&zeros[..kib << 10], 0).unwrap();
            spare.sync().unwrap();
            disk.remove("spare").unwrap();
            disk.sync_directory().unwrap();
        });
    }
    let disk = SimDisk::new(2);
    (0..10).for_each(|n| disk.put(&format!("f{n}"), vec![5; 1 << 20]));
    time("fork of 10 MiB", 10_000, &mut |n| drop(disk.fork(n.into())));
    time("power cut, 10 MiB, 8 sectors unsynced", 10_000, &mut |n| {
        disk.open("f1").unwrap().write_at(&[n as u8; 4096], 0).unwrap();
        disk.crash();
    });
}
