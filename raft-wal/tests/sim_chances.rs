//! What chance decides on the simulated disk, and how often: all that may be happens, each of it about as
//! often as it should, and what is counted is what happened.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::io::ErrorKind;

use raft_wal::sim::{Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Disk, DiskFile};
use support::Random;

const SECTOR: usize = 512;
const SECTORS: usize = 40;

/// Of so many tries each of these outcomes took about its part, and there was no other.
fn assert_parts<T: Ord + std::fmt::Debug>(outcomes: &BTreeMap<T, usize>, parts: &[(T, usize)]) {
    let tries: usize = outcomes.values().sum();
    let whole: usize = parts.iter().map(|(_, part)| part).sum();
    assert_eq!(outcomes.len(), parts.len(), "{outcomes:?}");
    for (outcome, part) in parts {
        let (times, expected) = (outcomes.get(outcome).copied().unwrap_or(0), tries * part / whole);
        let near = expected * 3 / 4..expected * 5 / 4;
        assert!(near.contains(&times), "{outcome:?} {times} times of {tries}, not {expected}");
    }
}

/// Which part of the whole this is: of chances of 0, 1, 4, 7 and 8 in eight.
fn part(kept: usize) -> &'static str {
    match kept {
        0 => "nothing",
        1..13 => "little",
        13..28 => "half",
        28..SECTORS => "most",
        _ => "all",
    }
}

const FIFTHS: [(&str, usize); 5] =
    [("nothing", 1), ("little", 1), ("half", 1), ("most", 1), ("all", 1)];

/// A durable file in which all sectors have been written over, and none is synced.
fn at_risk(disk: &SimDisk, name: &str) -> Box<dyn DiskFile> {
    disk.put(name, vec![1; SECTORS * SECTOR]);
    let file = disk.open(name).unwrap();
    assert_eq!(file.write_at(&[9; SECTORS * SECTOR], 0).unwrap(), SECTORS * SECTOR);
    file
}

fn kept(disk: &SimDisk, name: &str) -> usize {
    disk.read(name).unwrap().chunks(SECTOR).filter(|sector| sector[0] == 9).count()
}

/// A file that no name leads to has no part in it: its sectors are none of those that survive.
#[test]
fn of_each_file_a_power_cut_keeps_nothing_little_half_most_or_all() {
    let (mut one, mut other, mut both) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for seed in 0..1500 {
        let disk = SimDisk::new(seed);
        let gone = at_risk(&disk, "gone");
        gone.sync().unwrap();
        disk.remove("gone").unwrap();
        disk.sync_directory().unwrap();
        gone.write_at(&[8; SECTORS / 2 * SECTOR], 0).unwrap();
        drop((at_risk(&disk, "one"), at_risk(&disk, "other")));
        disk.crash();
        let parts = [part(kept(&disk, "one")), part(kept(&disk, "other"))];
        *one.entry(parts[0]).or_default() += 1;
        *other.entry(parts[1]).or_default() += 1;
        *both.entry(parts[0] == parts[1]).or_default() += 1;
        let kept = kept(&disk, "one") + kept(&disk, "other");
        let stats = disk.stats();
        assert_eq!(stats.sectors_kept, kept as u64);
        assert_eq!(stats.sectors_lost, (2 * SECTORS - kept) as u64);
    }
    assert_parts(&one, &FIFTHS);
    assert_parts(&other, &FIFTHS);
    assert_parts(&both, &[(true, 1), (false, 4)]);
}

#[test]
fn a_failed_sync_writes_nothing_little_half_most_or_all() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..1500 {
        let disk = SimDisk::new(seed);
        let file = at_risk(&disk, "file");
        disk.inject(Fault::Error, 0);
        assert!(file.sync().is_err());
        disk.forget_cache();
        *outcomes.entry(part(kept(&disk, "file"))).or_default() += 1;
    }
    assert_parts(&outcomes, &FIFTHS);
}

#[test]
fn of_changes_of_names_a_power_cut_keeps_none_some_or_all() {
    let (mut outcomes, mut halves) = (BTreeMap::new(), 0);
    for seed in 0..900 {
        let disk = SimDisk::new(seed);
        for n in 0..SECTORS {
            disk.create(&format!("f{n}")).unwrap();
        }
        let fork = disk.fork(seed);
        disk.crash();
        let kept = disk.names().len();
        *outcomes.entry((kept > 0, kept == SECTORS)).or_default() += 1;
        // A failed sync of the directory writes half of them, and none is unsynced any more.
        fork.inject(Fault::Error, 0);
        assert!(fork.sync_directory().is_err());
        assert_eq!((fork.names().len(), fork.unsynced()), (SECTORS, vec![]));
        fork.crash();
        halves += usize::from(part(fork.names().len()) == "half");
    }
    assert_parts(&outcomes, &[((false, false), 1), ((true, false), 1), ((true, true), 1)]);
    assert!(halves > 850, "{halves}");
}

/// A failed change of a name happened in half of all cases.
#[test]
fn a_failed_change_of_a_name_happened_or_not() {
    let mut outcomes = BTreeMap::new();
    for seed in 0..1000 {
        let disk = SimDisk::new(seed);
        disk.inject(Fault::Error, 0);
        assert!(disk.create("file").is_err());
        *outcomes.entry(disk.names().len()).or_default() += 1;
        assert_eq!(disk.unsynced().len(), disk.names().len());
    }
    assert_parts(&outcomes, &[(0, 1), (1, 1)]);
}

/// From the midst of a sector into the midst of the fifth: it ends where one does, each as often as the others.
#[test]
fn a_write_is_cut_short_at_the_end_of_any_sector() {
    const START: usize = 1000;
    const COUNT: usize = 2000;
    let (mut failed, mut short) = (BTreeMap::new(), BTreeMap::new());
    let disk = SimDisk::new(1);
    for _ in 0..6000 {
        disk.put("file", vec![0; START]);
        disk.inject(Fault::Error, 0);
        let file = disk.open("file").unwrap();
        assert!(file.write_at(&[9; COUNT], START as u64).is_err());
        let content = disk.read("file").unwrap();
        assert!(content[START..].iter().all(|byte| *byte == 9));
        *failed.entry(content.len() - START).or_default() += 1;
    }
    let ends = [24, 24 + SECTOR, 24 + 2 * SECTOR, 24 + 3 * SECTOR].map(|count| (count, 1));
    assert_parts(&failed, &[&[(0, 1), (COUNT, 1)], &ends[..]].concat());
    assert_eq!((disk.stats().write_errors, disk.stats().short_writes), (6000, 0));

    let fresh = disk.fork(2);
    fresh.shorten_writes();
    for _ in 0..6000 {
        let written = fresh.open("file").unwrap().write_at(&[9; COUNT], START as u64).unwrap();
        *short.entry(written).or_default() += 1;
    }
    // Nothing would be an error: then it is all.
    assert_parts(&short, &[&[(COUNT, 2)], &ends[..]].concat());
    assert_eq!(fresh.stats().short_writes, 6000 - short[&COUNT] as u64);
}

#[test]
fn a_read_is_cut_short_anywhere_but_gets_something() {
    let disk = SimDisk::new(1);
    disk.put("file", vec![7; 100]);
    disk.shorten_reads();
    let file = disk.open("file").unwrap();
    let mut outcomes = BTreeMap::new();
    for _ in 0..4000 {
        *outcomes.entry(file.read_at(&mut [0; 8], 50).unwrap()).or_default() += 1;
    }
    let parts: Vec<(usize, usize)> = (1..=8).map(|count| (count, 1)).collect();
    assert_parts(&outcomes, &parts);
    let short = 4000 - outcomes[&8] as u64;
    assert_eq!(disk.stats().short_reads, short);
    assert_eq!(file.read_at(&mut [0; 1], 50).unwrap(), 1);
    assert_eq!(file.read_at(&mut [], 50).unwrap(), 0);
    assert_eq!(disk.stats().short_reads, short);
}

/// A device can lie about a write only: whatever else it is asked goes as ever, and waits for no rule.
#[test]
fn only_writes_are_lost_or_misplaced() {
    use Fault::{LostSector, LostWrite, MisplacedInFile, MisplacedInOther};
    for fault in [LostSector, LostWrite, MisplacedInFile, MisplacedInOther] {
        let disk = SimDisk::new(1);
        disk.put("file", vec![1; 2 * SECTOR]);
        disk.put("other", vec![1; 2 * SECTOR]);
        let all = [Operation::CHANGES, Operation::LOOKS].concat();
        disk.add_fault(FaultRule::new(fault).on(&all));
        let file = disk.open("file").unwrap();
        disk.create("new").unwrap();
        disk.rename("new", "newer").unwrap();
        file.sync().unwrap();
        disk.remove("newer").unwrap();
        disk.sync_directory().unwrap();
        assert_eq!((disk.list().unwrap().len(), disk.unsynced()), (2, vec![]), "{fault:?}");
        file.read_at(&mut [0; 8], 0).unwrap();
        assert_eq!((disk.stats().lost_writes, disk.stats().misplaced_writes), (0, 0), "{fault:?}");
        file.write_at(&[9; SECTOR], 0).unwrap();
        file.sync().unwrap();
        let (lost, misplaced) = (disk.stats().lost_writes, disk.stats().misplaced_writes);
        let is_lost = matches!(fault, LostSector | LostWrite);
        assert_eq!((lost, misplaced), (is_lost.into(), (!is_lost).into()), "{fault:?}");
        assert_eq!(disk.stats().syncs_after_failure, 0);
        disk.crash();
        assert_eq!(disk.read("file").unwrap()[0], 1, "{fault:?}");
        assert_eq!(disk.read("other").unwrap().len(), 2 * SECTOR);
    }
}

/// What makes the file longer can go astray as well; then it arrives in one of the sectors that were there.
#[test]
fn what_was_to_be_behind_the_end_arrives_in_any_sector_of_the_file() {
    for sectors in 1..4 {
        let mut outcomes = BTreeMap::new();
        for seed in 0..600 {
            let disk = SimDisk::new(seed);
            disk.put("file", vec![1; sectors * SECTOR]);
            disk.add_fault(FaultRule::new(Fault::MisplacedInFile));
            let file = disk.open("file").unwrap();
            file.write_at(&[9; SECTOR], (sectors * SECTOR) as u64).unwrap();
            disk.crash();
            let content = disk.read("file").unwrap();
            assert_eq!((content.len(), kept(&disk, "file")), (sectors * SECTOR, 1));
            let place = content.iter().position(|byte| *byte == 9).unwrap() / SECTOR;
            *outcomes.entry(place).or_default() += 1;
        }
        let parts: Vec<(usize, usize)> = (0..sectors).map(|place| (place, 1)).collect();
        assert_parts(&outcomes, &parts);
    }
}

#[test]
fn of_too_many_subsets_the_second_is_all_and_they_are_counted_down() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        drop(at_risk(&disk, "file"));
        let mut cuts = disk.power_cuts(9, Random(seed).next());
        for left in (1..=9).rev() {
            assert_eq!(cuts.len(), left);
            let cut = cuts.next().unwrap();
            let expected = [None, Some(SECTORS), Some(0)][left.saturating_sub(7)];
            let kept = kept(&cut.disk, "file");
            assert_eq!(kept, expected.unwrap_or(kept), "seed {seed}, {left} left");
            assert_eq!(kept, cut.survived.len());
        }
        assert!(cuts.next().is_none() && cuts.len() == 0);
    }
}

/// A file can have 4 GiB and not a byte more. Here there is no room for any of it.
#[test]
fn a_file_is_at_most_so_long() {
    const BYTES_MAX: u64 = 4 << 30;
    let disk = SimDisk::new(1);
    let file = disk.create("file").unwrap();
    disk.set_capacity(Some(0));
    let refusal = |offset: u64| file.write_at(&[1], offset).unwrap_err().kind();
    assert_eq!(refusal(BYTES_MAX - 1), ErrorKind::StorageFull);
    assert_eq!(refusal(BYTES_MAX), ErrorKind::FileTooLarge);
    assert_eq!(refusal(u64::MAX), ErrorKind::FileTooLarge);
    assert_eq!(file.write_at(&[], 9999).unwrap(), 0, "nothing always has room");
}
