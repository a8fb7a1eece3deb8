//! Damage at rest: harmless, or reported; never a silently different log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use raft_core::{Entry, HardState, Incarnation, LogPosition, Term, Write};
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{Log, OpenError, WalConfig};
use support::{Random, Twin, command, config, node, open, twin_of};

const SECTOR: usize = 512;
/// Both copies of the header of a segment.
const HEADERS: usize = 2 * 4096;

/// A directory of several segments, and what its log holds.
fn directory(seed: u64, writes: usize, clean_shutdown: bool) -> (SimDisk, History) {
    let disk = SimDisk::new(seed);
    let mut random = Random(seed);
    let mut twin = Twin::default();
    let mut history = vec![twin.clone()];
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(3), voted_for: Some(node(2)) };
    let mut writes_left = vec![Write::detached(Some(vote), None, vec![command(1, 3, 600)])];
    for n in 0..=writes {
        let write = writes_left.pop().unwrap_or_else(|| twin.random_write(&mut random));
        twin.apply(&write);
        history.push(twin.clone());
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
    (disk, history)
}

/// The log after each write, the last one what it holds now.
type History = Vec<Twin>;

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.starts_with("segment-"));
    names.sort_by_key(|name| name[name.len() - 20..].to_owned());
    names
}

/// What an opening of a damaged directory came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// It remembers the same.
    Same,
    /// It says what is damaged, keeps the vote, and knows how far its log may have gone.
    Limping,
    /// It refuses to start.
    Refused,
}

/// Opens a damaged copy: it must remember the same, or come back limping with the beginning of it, or
/// say that it is not what it was.
fn judge(disk: &SimDisk, history: &[Twin], damage: &str) -> Verdict {
    let twin = history.last().unwrap();
    let opened = match open(disk) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(error.is_safety_refusal(), "{damage}: {error}");
            return Verdict::Refused;
        }
    };
    let remembered = twin_of(&opened.restored);
    let last = twin.entries.last().map(Entry::position).unwrap_or_default();
    assert_eq!(remembered.hard_state, twin.hard_state, "{damage}: the vote");
    let verdict = if remembered == *twin {
        assert!(!opened.report.limping, "{damage}");
        Verdict::Same
    } else {
        // What stands before the damage may have been cut off behind it.
        let was_there = |past: &Twin| past.entries.starts_with(&remembered.entries);
        assert!(history.iter().any(was_there), "{damage}: silently another log");
        assert!(opened.report.limping && opened.report.damage.is_some(), "{damage}");
        assert_eq!(opened.restored.lost, last, "{damage}");
        assert_eq!(opened.restored.incarnation, Incarnation(1), "{damage}");
        Verdict::Limping
    };
    // It stays so.
    drop(opened.log);
    disk.crash();
    let again = open(disk).unwrap_or_else(|error| panic!("{damage}: {error}"));
    assert_eq!(twin_of(&again.restored), remembered, "{damage}: later");
    assert_eq!(again.restored.lost, opened.restored.lost, "{damage}: later");
    assert!(!again.report.limping && again.report.damage.is_none(), "{damage}: repaired once");
    verdict
}

fn refused(disk: &SimDisk, damage: &str) {
    let error = open(disk).err().unwrap_or_else(|| panic!("{damage} was not noticed"));
    let corrupt = matches!(&error, OpenError::Corrupt { advice, .. } if !advice.is_empty());
    assert!(corrupt, "{damage}: {error}");
}

#[test]
fn every_single_byte_flip_is_harmless_or_reported() {
    for (seed, clean_shutdown) in [(1, true), (2, false)] {
        let (disk, history) = directory(seed, 12, clean_shutdown);
        assert!(segments(&disk).len() >= 3, "{:?}", disk.names());
        let mut verdicts = [0_u32; 3];
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
                verdicts[judge(&copy, &history, &format!("{name} at {at}")) as usize] += 1;
            }
        }
        let [same, limping, refused] = verdicts;
        // A single changed byte never takes the vote away.
        assert!(same > 1000 && limping > 5000 && refused == 0, "{verdicts:?}");
    }
}

#[test]
fn every_lost_or_garbled_sector_after_a_clean_shutdown_is_harmless_or_reported() {
    let (disk, history) = directory(3, 24, true);
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
                judge(&copy, &history, &format!("{name}, the sector at {start}"));
            }
        }
    }
}

#[test]
fn a_missing_segment_is_missed_wherever_it_was() {
    for (seed, clean_shutdown) in [(4, true), (5, false)] {
        let (disk, history) = directory(seed, 40, clean_shutdown);
        let names = segments(&disk);
        for name in &names {
            let copy = disk.fork(0);
            assert!(copy.take(name));
            let verdict = judge(&copy, &history, &format!("without {name}"));
            // With the last one the vote is gone.
            let expected =
                if Some(name) == names.last() { Verdict::Refused } else { Verdict::Limping };
            assert_eq!(verdict, expected, "without {name}");
        }
        let copy = disk.fork(0);
        names.iter().for_each(|name| assert!(copy.take(name)));
        refused(&copy, "without any segment");
        let copy = disk.fork(0);
        assert!(copy.take("IDENTITY"));
        refused(&copy, "without an identity");
    }
}

#[test]
fn renamed_duplicated_and_swapped_segments_are_noticed() {
    let (disk, history) = directory(6, 40, true);
    let names = segments(&disk);
    let last_id: u64 = names.last().unwrap()[names[0].len() - 20..].parse().unwrap();
    for (n, name) in names.iter().enumerate() {
        let bytes = disk.read(name).unwrap();
        for other in ["segment-1-1", "segment-of-nothing"] {
            let copy = disk.fork(0);
            copy.put(other, bytes.clone());
            refused(&copy, &format!("{name} once more as {other}"));
        }
        let beyond = format!("segment-{:020}-{:020}", 7, last_id + 1);
        let copy = disk.fork(0);
        copy.put(&beyond, bytes.clone());
        refused(&copy, &format!("{name} once more as {beyond}: it could be a newer one"));
        copy.take(name);
        refused(&copy, &format!("{name} renamed to {beyond}"));
        for other in &names[n + 1..] {
            let copy = disk.fork(0);
            copy.put(name, disk.read(other).unwrap());
            let damage = format!("{other} in place of {name}");
            assert_eq!(judge(&copy.fork(0), &history, &damage), Verdict::Limping);
            copy.put(other, bytes.clone());
            let damage = format!("{name} and {other} swapped");
            assert_ne!(judge(&copy, &history, &damage), Verdict::Same);
        }
    }
}

#[test]
fn a_segment_of_another_directory_does_not_pass() {
    let (disk, history) = directory(7, 40, true);
    let (other, _) = directory(8, 40, true);
    let first = &segments(&disk)[0];
    disk.put(first, other.read(&segments(&other)[0]).unwrap());
    let verdict = judge(&disk, &history, "the first segment of another directory");
    assert_eq!(verdict, Verdict::Limping);
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
            successor[HEADERS..].fill(0);
            let unsealed = before.read(&first).unwrap();
            before.put(&second, successor);
            let history = [twin_of(&open(&before.fork(1)).unwrap().restored)];
            assert_eq!(history[0].last_index(), index - 1, "the roll alone changes nothing");
            let written = unsealed.chunks(SECTOR).rposition(|sector| sector != [0; SECTOR]);
            let mut lost = unsealed.clone();
            lost[written.unwrap() * SECTOR..].fill(0);
            before.put(&first, lost);
            let verdict = judge(&before, &history, "a sector lost between successor and seal");
            assert_eq!(verdict, Verdict::Limping);
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
        if index == 3 {
            let name = segments(&disk)[0].clone();
            older = Some((name.clone(), disk.read(&name).unwrap()));
        }
    }
    log.close().unwrap();
    let history = [twin_of(&open(&disk.fork(0)).unwrap().restored)];
    let (name, bytes) = older.unwrap();
    assert_eq!(segments(&disk)[0], name);
    disk.put(&name, bytes);
    assert_eq!(judge(&disk, &history, "an older copy"), Verdict::Limping);
}

/// Two directories with the same history, of which one goes on. A sector behind the end of the other one
/// was recycled from there: it says nothing here, neither that something was durable nor how the log
/// ended. Only the random number of the segment tells them apart there.
#[test]
fn a_recycled_sector_of_another_directory_says_nothing() {
    let written = |seed: u64, entries: u64| {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk).unwrap().log;
        for index in 1..=entries {
            log.append(&[Write::detached(None, None, vec![command(index, 1, 100)])]).unwrap();
            log.sync().unwrap();
        }
        drop(log);
        disk.restart();
        disk
    };
    let (disk, other) = (written(1, 3), written(2, 5));
    let history = [twin_of(&open(&disk.fork(1)).unwrap().restored)];
    let name = segments(&disk)[0].clone();
    assert_eq!(segments(&other), segments(&disk));
    let used = |disk: &SimDisk| {
        let content = disk.read(&name).unwrap();
        content.chunks(SECTOR).rposition(|sector| sector != [0; SECTOR]).unwrap() + 1
    };
    assert_eq!((used(&disk), used(&other)), (HEADERS / SECTOR + 4, HEADERS / SECTOR + 6));
    let at = (used(&other) - 1) * SECTOR;
    let recycled = other.read(&name).unwrap()[at..at + SECTOR].to_vec();
    let mut content = disk.read(&name).unwrap();
    content[at..at + SECTOR].copy_from_slice(&recycled);
    disk.put(&name, content);
    let verdict = judge(&disk, &history, "a recycled sector behind the end");
    assert_eq!(verdict, Verdict::Same);
}

#[test]
fn segments_cut_short_or_made_longer_are_harmless_or_refused() {
    let (disk, history) = directory(10, 24, true);
    for name in segments(&disk) {
        let bytes = disk.read(&name).unwrap();
        for length in (0..bytes.len()).step_by(256) {
            let copy = disk.fork(0);
            copy.put(&name, bytes[..length].to_vec());
            judge(&copy, &history, &format!("{name} cut to {length}"));
        }
        for (more, fill) in [(4096, 0), (4096, 1), (100, 0)] {
            let copy = disk.fork(0);
            copy.put(&name, [bytes.clone(), vec![fill; more]].concat());
            judge(&copy, &history, &format!("{name} with {more} more bytes of {fill}"));
        }
    }
}

#[test]
fn one_damaged_copy_of_the_identity_is_repaired() {
    let (disk, history) = directory(11, 10, true);
    let intact = disk.read("IDENTITY").unwrap();
    for half in [0, 4096] {
        let mut damaged = intact.clone();
        damaged[half..half + 4096].fill(0xEE);
        disk.put("IDENTITY", damaged);
        let opened = open(&disk).unwrap();
        assert!(opened.report.identity_repaired);
        assert_eq!(Some(&twin_of(&opened.restored)), history.last());
        assert_eq!(disk.read("IDENTITY").unwrap(), intact);
    }
    disk.put("IDENTITY", vec![0; 8192]);
    refused(&disk, "both copies damaged");
}

#[test]
fn the_message_says_where_what_and_what_to_do() {
    let damaged = |members: &[u64], all_of_it: bool| {
        let disk = SimDisk::new(12);
        let config = WalConfig { membership: support::members(members), ..config() };
        let open = |accept_data_loss| {
            let config = WalConfig { accept_data_loss, ..config.clone() };
            Log::open(Arc::new(disk.for_this_life()), &config)
        };
        let mut log = open(false).unwrap().log;
        let entries = vec![command(1, 3, 600)];
        let vote = HardState { term: Term(3), voted_for: Some(node(1)) };
        log.append(&[Write::detached(Some(vote), None, entries)]).unwrap();
        log.sync().unwrap();
        log.close().unwrap();
        disk.restart();
        let name = segments(&disk)[0].clone();
        let mut bytes = disk.read(&name).unwrap();
        // Behind the headers and the mark of the start.
        match all_of_it {
            false => bytes[HEADERS + SECTOR + 400] ^= 1,
            true => bytes[HEADERS + SECTOR..][..4 * SECTOR].fill(0xFF),
        }
        disk.put(&name, bytes);
        let error = open(false).map(|opened| opened.report.damage.unwrap().to_string());
        let accepted = open(true).map(|opened| (opened.restored, disk.names()));
        (name, error.map_err(|error| error.to_string()), accepted)
    };
    let says = |message: &str, parts: &[&str]| {
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    };
    let (name, report, _) = damaged(&[1, 2, 3], false);
    says(&report.unwrap(), &[&name, "offset 8704", "1@3", "durable"]);
    let (name, refusal, _) = damaged(&[1, 2, 3], true);
    says(&refusal.unwrap_err(), &[&name, "vote", "keep a copy of the directory", "new number"]);

    // What was only renamed is not lost.
    let disk = SimDisk::new(1);
    disk.put("segment-1.bak", vec![1; 4096]);
    let error = Log::open(Arc::new(disk), &config()).map(|opened| opened.report).unwrap_err();
    says(&error.to_string(), &["segment-1.bak", "give it back its name"]);

    // Nobody else has what a node lost that decides alone.
    let (name, refusal, accepted) = damaged(&[1], false);
    says(&refusal.unwrap_err(), &[&name, "1@3", "only voter", "backup", "--accept-data-loss"]);
    let (restored, names) = accepted.unwrap();
    assert_eq!((restored.entries.len(), restored.hard_state.term), (0, Term(3)));
    assert_eq!(restored.lost, LogPosition::ZERO, "it may lead: there is nobody else");
    assert!(names.contains(&format!("{name}.broken")), "{names:?}");
}

#[test]
fn who_accepts_a_loss_keeps_what_is_whole_behind_the_damage_aside() {
    let disk = SimDisk::new(13);
    let open = |accept_data_loss| {
        let membership = support::members(&[1]);
        let config = WalConfig { membership, accept_data_loss, ..config() };
        Log::open(Arc::new(disk.for_this_life()), &config)
    };
    let mut log = open(false).unwrap().log;
    let mut vote = Some(HardState { term: Term(1), voted_for: Some(node(1)) });
    let mut index = 0;
    while segments(&disk).len() < 4 {
        index += 1;
        log.append(&[Write::detached(vote.take(), None, vec![command(index, 1, 600)])]).unwrap();
        log.sync().unwrap();
    }
    log.close().unwrap();
    disk.restart();
    let before = segments(&disk);
    let content = |name: &str| disk.read(name).unwrap();
    let (third, mut second) = (content(&before[2]), content(&before[1]));
    second[HEADERS + 400] ^= 1;
    disk.put(&before[1], second);

    assert!(open(false).is_err());
    let opened = open(true).unwrap();
    let kept = opened.restored.entries.len() as u64;
    assert!(0 < kept && kept < index, "{kept} of {index}");
    // Nobody else has it, so it is there for whoever wants to get it back by hand.
    assert!(disk.read(&format!("{}.broken", before[2])) == Some(third), "it is not as it was");
    let names = disk.names();
    for name in &before[1..] {
        assert!(names.contains(&format!("{name}.broken")), "{name} is not in {names:?}");
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
        let (disk, history) = directory(100 + seed, 16, true);
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
        judge(&disk, &history, "damage");
    }
}

/// A medium fails at single places: that is damage like any other, which the others make good, and no
/// reason never to start again. A medium that fails everywhere is another matter.
#[test]
fn a_sector_that_cannot_be_read_is_damaged_like_any_other() {
    let (disk, history) = directory(12, 16, true);
    let mut limping = 0;
    let files = segments(&disk).into_iter().chain(["IDENTITY".to_owned()]);
    for name in files {
        let sectors = disk.read(&name).unwrap().len() / SECTOR;
        for sector in (0..sectors as u64).step_by(3) {
            let verdict = |damage: &Damage| {
                let fork = disk.fork(sector);
                fork.damage(&name, damage);
                judge(&fork, &history, &format!("{name}: {damage:?}"))
            };
            let unreadable = verdict(&Damage::Unreadable { sector });
            let (at, bytes) = (sector * SECTOR as u64, SECTOR as u64);
            assert_eq!(unreadable, verdict(&Damage::Garbage { at, bytes, seed: sector }));
            limping += u32::from(unreadable == Verdict::Limping);
        }
    }
    assert!(limping > 5, "{limping}");
    let gone = disk.fork(1);
    for sector in 0..16 {
        gone.damage("IDENTITY", &Damage::Unreadable { sector });
    }
    let error = open(&gone).map(drop).unwrap_err();
    assert!(error.is_disk_failure(), "{error}");
}
