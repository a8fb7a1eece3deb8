//! Damage at rest: harmless, or reported; never a silently different log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use proptest::prelude::*;
use raft_core::{HardState, Term, Write};
use raft_wal::OpenError;
use raft_wal::sim::SimDisk;
use support::{Random, Twin, command, node, open, twin_of};

const SECTOR: usize = 512;

/// A directory of several segments, and what its log holds.
fn directory(seed: u64, writes: usize, clean_shutdown: bool) -> (SimDisk, Twin) {
    let disk = SimDisk::new(seed);
    let mut random = Random(seed);
    let mut twin = Twin::default();
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(3), voted_for: Some(node(2)) };
    let mut writes_left = vec![Write::detached(Some(vote), None, vec![command(1, 3, 600)])];
    for n in 0..=writes {
        let write = writes_left.pop().unwrap_or_else(|| twin.random_write(&mut random));
        twin.apply(&write);
        log.append(&[write]).unwrap();
        log.sync().unwrap();
        if n == writes / 2 {
            // A tail that was written again, and goes on.
            disk.restart();
            log = open(&disk).unwrap().log;
        }
    }
    if clean_shutdown {
        log.close().unwrap();
    }
    disk.restart();
    (disk, twin)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("segment-"));
    names.sort_by_key(|name| name[name.len() - 20..].to_owned());
    names
}

/// Opens a damaged copy: it must remember the same, or say that it is not what it was.
fn same_or_refused(disk: &SimDisk, twin: &Twin, damage: &str) -> bool {
    match open(disk) {
        Ok(opened) => {
            assert!(&twin_of(&opened.restored) == twin, "{damage}: silently another log");
            true
        }
        Err(error) => {
            assert!(error.is_safety_refusal(), "{damage}: {error}");
            false
        }
    }
}

fn refused(disk: &SimDisk, damage: &str) {
    let error = open(disk).err().unwrap_or_else(|| panic!("{damage} was not noticed"));
    let corrupt = matches!(&error, OpenError::Corrupt { advice, .. } if !advice.is_empty());
    assert!(corrupt, "{damage}: {error}");
}

#[test]
fn every_single_byte_flip_is_harmless_or_reported() {
    for (seed, clean_shutdown) in [(1, true), (2, false)] {
        let (disk, twin) = directory(seed, 24, clean_shutdown);
        assert!(segments(&disk).len() >= 3, "{:?}", disk.names());
        let (mut harmless, mut reported) = (0_u32, 0_u32);
        for name in disk.names() {
            let bytes = disk.read(&name).unwrap();
            for at in 0..bytes.len() {
                // In room that was never used, a few places stand for all.
                let sector = &bytes[at / SECTOR * SECTOR..][..SECTOR];
                if sector.iter().all(|&byte| byte == 0) && at % 97 != 0 {
                    continue;
                }
                let copy = disk.fork(at as u64);
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                copy.put(&name, changed);
                match same_or_refused(&copy, &twin, &format!("{name} at {at}")) {
                    true => harmless += 1,
                    false => reported += 1,
                }
            }
        }
        assert!(harmless > 1000 && reported > 10_000, "{harmless} harmless, {reported} reported");
    }
}

#[test]
fn every_lost_or_garbled_sector_after_a_clean_shutdown_is_harmless_or_reported() {
    let (disk, twin) = directory(3, 24, true);
    let mut random = Random(3);
    for name in disk.names() {
        let bytes = disk.read(&name).unwrap();
        for start in (0..bytes.len()).step_by(SECTOR) {
            let garbage: Vec<u8> = (0..SECTOR).map(|_| random.next() as u8).collect();
            let elsewhere = random.below((bytes.len() / SECTOR) as u64) as usize * SECTOR;
            let misplaced = bytes[elsewhere..elsewhere + SECTOR].to_vec();
            for sector in [vec![0; SECTOR], vec![0xFF; SECTOR], garbage, misplaced] {
                let copy = disk.fork(start as u64);
                let mut changed = bytes.clone();
                changed[start..start + SECTOR].copy_from_slice(&sector);
                copy.put(&name, changed);
                same_or_refused(&copy, &twin, &format!("{name}, the sector at {start}"));
            }
        }
    }
}

#[test]
fn a_missing_segment_is_missed_wherever_it_was() {
    for (seed, clean_shutdown) in [(4, true), (5, false)] {
        let (disk, _) = directory(seed, 40, clean_shutdown);
        for name in segments(&disk) {
            let copy = disk.fork(0);
            assert!(copy.take(&name));
            refused(&copy, &format!("without {name}"));
        }
        let copy = disk.fork(0);
        segments(&disk).iter().for_each(|name| assert!(copy.take(name)));
        refused(&copy, "without any segment");
        let copy = disk.fork(0);
        assert!(copy.take("IDENTITY"));
        refused(&copy, "without an identity");
    }
}

#[test]
fn renamed_duplicated_and_swapped_segments_are_refused() {
    let (disk, _) = directory(6, 40, true);
    let names = segments(&disk);
    let last_id: u64 = names.last().unwrap()[names[0].len() - 20..].parse().unwrap();
    for (n, name) in names.iter().enumerate() {
        let bytes = disk.read(name).unwrap();
        let beyond = format!("segment-{:020}-{:020}", 7, last_id + 1);
        for other in [beyond, "segment-1-1".to_owned(), "segment-of-nothing".to_owned()] {
            let copy = disk.fork(0);
            copy.put(&other, bytes.clone());
            refused(&copy, &format!("{name} once more as {other}"));
            copy.take(name);
            refused(&copy, &format!("{name} renamed to {other}"));
        }
        for other in &names[n + 1..] {
            let copy = disk.fork(0);
            copy.put(name, disk.read(other).unwrap());
            refused(&copy, &format!("{other} in place of {name}"));
            copy.put(other, bytes.clone());
            refused(&copy, &format!("{name} and {other} swapped"));
        }
    }
}

#[test]
fn a_segment_of_another_directory_does_not_pass() {
    let (disk, _) = directory(7, 40, true);
    let (other, _) = directory(8, 40, true);
    let first = &segments(&disk)[0];
    disk.put(first, other.read(&segments(&other)[0]).unwrap());
    refused(&disk, "the first segment of another directory");
}

#[test]
fn all_segments_of_another_directory_do_not_pass_either() {
    let (disk, _) = directory(7, 40, true);
    let (other, _) = directory(8, 40, true);
    segments(&disk).iter().for_each(|name| assert!(disk.take(name)));
    for name in segments(&other) {
        disk.put(&name, other.read(&name).unwrap());
    }
    refused(&disk, "the segments of another directory of the same node");
}

/// Between the successor and the seal, the header of the successor knows how far the data went.
#[test]
fn data_lost_before_a_successor_that_is_still_empty_are_missed() {
    let disk = SimDisk::new(13);
    let mut log = open(&disk).unwrap().log;
    let mut index = 0;
    while segments(&disk).len() < 2 {
        index += 1;
        // The disk before the write that rolls, to which the successor's header is then added.
        let before = disk.fork(index);
        log.append(&[Write::detached(None, None, vec![command(index, 1, 900)])]).unwrap();
        log.sync().unwrap();
        if segments(&disk).len() == 2 {
            let [first, second] = <[String; 2]>::try_from(segments(&disk)).unwrap();
            let mut successor = disk.read(&second).unwrap();
            successor[4096..].fill(0);
            let unsealed = before.read(&first).unwrap();
            before.put(&second, successor);
            let whole = open(&before.fork(1)).unwrap().restored.entries.len() as u64;
            assert_eq!(whole, index - 1, "the roll alone changes nothing");
            let written = unsealed.chunks(SECTOR).rposition(|sector| sector != [0; SECTOR]);
            let mut lost = unsealed.clone();
            lost[written.unwrap() * SECTOR..].fill(0);
            before.put(&first, lost);
            refused(&before, "a sector lost between successor and seal");
        }
    }
}

#[test]
fn an_older_copy_of_a_sealed_segment_does_not_pass() {
    let disk = SimDisk::new(9);
    let mut log = open(&disk).unwrap().log;
    let mut older = None;
    for index in 1..=40 {
        log.append(&[Write::detached(None, None, vec![command(index, 1, 900)])]).unwrap();
        log.sync().unwrap();
        if index == 8 {
            let name = segments(&disk)[0].clone();
            older = Some((name.clone(), disk.read(&name).unwrap()));
        }
    }
    log.close().unwrap();
    let (name, bytes) = older.unwrap();
    assert_eq!(segments(&disk)[0], name);
    disk.put(&name, bytes);
    refused(&disk, "an older copy");
}

#[test]
fn segments_cut_short_or_made_longer_are_harmless_or_refused() {
    let (disk, twin) = directory(10, 24, true);
    for name in segments(&disk) {
        let bytes = disk.read(&name).unwrap();
        for length in (0..bytes.len()).step_by(256) {
            let copy = disk.fork(0);
            copy.put(&name, bytes[..length].to_vec());
            same_or_refused(&copy, &twin, &format!("{name} cut to {length}"));
        }
        for (more, fill) in [(4096, 0), (4096, 1), (100, 0)] {
            let copy = disk.fork(0);
            copy.put(&name, [bytes.clone(), vec![fill; more]].concat());
            same_or_refused(&copy, &twin, &format!("{name} with {more} more bytes of {fill}"));
        }
    }
}

#[test]
fn one_damaged_copy_of_the_identity_is_repaired() {
    let (disk, twin) = directory(11, 10, true);
    let intact = disk.read("IDENTITY").unwrap();
    for half in [0, 4096] {
        let mut damaged = intact.clone();
        damaged[half..half + 4096].fill(0xEE);
        disk.put("IDENTITY", damaged);
        let opened = open(&disk).unwrap();
        assert!(opened.report.identity_repaired);
        assert_eq!(twin_of(&opened.restored), twin);
        assert_eq!(disk.read("IDENTITY").unwrap(), intact);
    }
    disk.put("IDENTITY", vec![0; 8192]);
    refused(&disk, "both copies damaged");
}

#[test]
fn the_message_says_where_what_and_what_to_do() {
    let (disk, _) = directory(12, 40, true);
    let name = segments(&disk)[0].clone();
    let mut bytes = disk.read(&name).unwrap();
    // Behind the header and the empty batch of the start.
    bytes[4096 + SECTOR + 400] ^= 1;
    disk.put(&name, bytes);
    let message = open(&disk).err().unwrap().to_string();
    for part in [&*name, "offset 4608", "1@3", "durable", "keep a copy of the directory"] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_files_never_panic(
        files in prop::collection::vec(
            ((0..3_u64, 0..4_u64), prop::collection::vec(any::<u8>(), 0..9000)), 0..4),
        identity in prop::option::of(prop::collection::vec(any::<u8>(), 0..9000)),
    ) {
        let disk = SimDisk::new(0);
        for ((base, id), bytes) in files {
            disk.put(&format!("segment-{base:020}-{id:020}"), bytes);
        }
        if let Some(identity) = identity {
            disk.put("IDENTITY", identity);
        }
        // Whatever it says, it says it.
        let _outcome = open(&disk);
    }

    #[test]
    fn arbitrary_damage_is_harmless_or_reported(
        seed in 0..20_u64,
        damages in prop::collection::vec(
            (any::<u32>(), any::<u16>(), 1..700_usize, any::<u64>()), 1..4),
    ) {
        let (disk, twin) = directory(100 + seed, 16, true);
        let names = disk.names();
        for (file, at, length, content) in damages {
            let name = &names[file as usize % names.len()];
            let mut bytes = disk.read(name).unwrap();
            let at = at as usize % bytes.len();
            let end = (at + length).min(bytes.len());
            let mut content = Random(content);
            bytes[at..end].fill_with(|| content.next() as u8);
            disk.put(name, bytes);
        }
        same_or_refused(&disk, &twin, "damage");
    }
}
