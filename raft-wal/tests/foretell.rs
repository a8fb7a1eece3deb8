//! Looking into a directory changes nothing, and foretells what a start does with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use raft_core::Entry;
use raft_wal::inspect::{Fate, FileKind, Inspection, Opening, Start};
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{Log, OpenedLog, WalConfig};
use support::history::{install, log_of, newest_snapshot, receive};
use support::life::{Life, inspector};
use support::snapshots::snapshot;
use support::{Random, config, open};

fn contents(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.names().into_iter().map(|name| (name.clone(), disk.read(&name))).collect()
}

/// What was foretold, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Foretold {
    Begin,
    Clean,
    Torn,
    Repaired,
    BehindSnapshot,
    Limping,
    Refused,
    Unreadable,
}

impl Foretold {
    const ALL: usize = Self::Unreadable as usize + 1;

    fn of(start: &Start) -> Self {
        match start {
            Start::Begin => Self::Begin,
            Start::Refuse(error) if error.is_disk_failure() => Self::Unreadable,
            Start::Refuse(_) => Self::Refused,
            Start::Open(opening) if opening.report.limping => Self::Limping,
            Start::Open(opening) if opening.begins_behind_snapshot => Self::BehindSnapshot,
            Start::Open(opening) if opening.report.damage.is_some() => Self::Repaired,
            Start::Open(opening) if opening.report.torn_bytes > 0 => Self::Torn,
            Start::Open(_) => Self::Clean,
            other => panic!("{other:?}"),
        }
    }
}

/// Inspects a directory, opens a copy of it, and compares.
fn compare(disk: &SimDisk, config: &WalConfig, context: &str) -> Foretold {
    let before = contents(disk);
    let mut inspector = inspector(disk);
    if config.accept_data_loss {
        inspector = inspector.accepting_data_loss();
    }
    let inspection = inspector.inspect().unwrap();
    let fork = disk.fork(7);
    let opened = Log::open(Arc::new(fork.for_this_life()), config);
    assert_eq!(contents(disk), before, "{context}: looking changed something");
    match (&inspection.start, opened) {
        (Start::Refuse(foretold), Err(error)) => {
            assert_eq!(foretold.to_string(), error.to_string(), "{context}");
            assert!(!inspection.is_sound(), "{context}");
            for file in &inspection.files {
                let stays = fork.names().contains(&file.name);
                let foretold = if stays { Fate::Stays } else { Fate::Removed };
                assert_eq!(file.fate, foretold, "{context}: {}", file.name);
            }
        }
        (Start::Begin, Ok(opened)) => assert!(opened.report.created, "{context}"),
        (Start::Open(opening), Ok(opened)) => {
            compare_opening(opening, &opened, context);
            let identity = inspection.identity.as_ref().unwrap();
            assert_eq!(identity.identity, opened.identity, "{context}");
            compare_files(&inspection, &fork.names(), context);
            if inspection.is_sound() {
                assert_eq!(opening.report.damage, None, "{context}");
                assert_eq!(opening.report.header_copies_damaged, 0, "{context}");
                assert_eq!(opening.report.snapshots_damaged, 0, "{context}");
                assert!(!opening.report.identity_repaired, "{context}");
            }
            if let Some(damage) = &opening.report.damage {
                assert!(inspection.damages.contains(damage), "{context}: {inspection:#?}");
            }
        }
        (foretold, opened) => {
            let opened = opened.map(|opened| opened.report);
            panic!("{context}: foretold {foretold:?}, but {opened:?}");
        }
    }
    Foretold::of(&inspection.start)
}

fn compare_opening(opening: &Opening, opened: &OpenedLog, context: &str) {
    let restored = &opened.restored;
    assert_eq!(opening.report, opened.report, "{context}");
    assert_eq!(opening.hard_state, restored.hard_state, "{context}");
    assert_eq!(opening.incarnation, restored.incarnation, "{context}");
    assert_eq!(opening.lost, restored.lost, "{context}");
    assert_eq!(opening.base, restored.base.position, "{context}");
    let last = restored.entries.last().map_or(restored.base.position, Entry::position);
    assert_eq!(opening.last, last, "{context}");
    assert_eq!(opening.snapshot, restored.snapshot, "{context}");
}

fn compare_files(inspection: &Inspection, after: &[String], context: &str) {
    let is_there = |name: &String| after.contains(name);
    let aside = |name: &str| format!("{name}.broken");
    for file in &inspection.files {
        let name = &file.name;
        let fine = match file.fate {
            Fate::Stays => is_there(name),
            Fate::WrittenAgain => !is_there(name),
            Fate::PutAside => !is_there(name) && is_there(&aside(name)),
            // Another one may get its name.
            Fate::Removed => {
                !is_there(name) || inspection.files.iter().any(|other| aside(&other.name) == *name)
            }
            other => panic!("{other:?}"),
        };
        assert!(fine, "{context}: {file:?} was not to be expected: {after:?}");
    }
    // The log goes on in one segment, with what counts of one.
    let again = inspection.files.iter().filter(|file| file.fate == Fate::WrittenAgain).count();
    let Start::Open(opening) = &inspection.start else { panic!("{context}: opened") };
    let report = &opening.report;
    let anew = report.created || opening.begins_behind_snapshot;
    let goes_on = again == 1 || again == 0 && report.damage.is_some();
    assert!(if anew { again == 0 } else { goes_on }, "{context}: {again}");
    let news = |name: &&String| !inspection.files.iter().any(|file| file.name == **name);
    let news: Vec<_> = after.iter().filter(news).filter(|it| !it.ends_with(".broken")).collect();
    assert!(news.len() == 1 && news[0].starts_with("segment-"), "{context}: {news:?}");
}

/// Does something bad to a directory, or puts a snapshot of its future there, as if its log had not
/// got so far yet.
fn harm(disk: &SimDisk, future: &SimDisk, random: &mut Random) -> String {
    let names = disk.names();
    let name = &names[random.below(names.len() as u64) as usize];
    let other = &names[random.below(names.len() as u64) as usize];
    match random.below(12) {
        0 => {
            disk.take(name);
            format!("without {name}")
        }
        1 => {
            disk.rename_at_rest(name, other);
            format!("{name} renamed to {other}")
        }
        2 => {
            disk.duplicate(name, other);
            format!("{name} copied to {other}")
        }
        3 => {
            let free = format!("segment-{:020}-{:020}", 3, random.below(30));
            disk.duplicate(name, &free);
            format!("{name} copied to {free}")
        }
        4 => {
            disk.duplicate(name, &format!("{name}.broken"));
            disk.put("spare-3.tmp", vec![1; 100]);
            format!("an older {name}.broken")
        }
        5 => {
            let snapshots = future.names().into_iter().filter(|it| it.starts_with("snapshot-"));
            let Some(newest) = snapshots.max_by_key(|name| name[name.len() - 20..].to_owned())
            else {
                return "nothing".to_owned();
            };
            disk.put(&newest, future.read(&newest).unwrap());
            format!("{newest} of the future")
        }
        6 if name.starts_with("segment-") => {
            // With a mark nothing is lost there.
            let mut content = disk.read(name).unwrap();
            let end = content.iter().rposition(|&byte| byte != 0).unwrap_or_default();
            content[end] ^= 1;
            disk.put(name, content);
            format!("{name}: the last byte that is used")
        }
        7 if random.one_in(3) => {
            // Single sectors are damage like any other; this is a disk that fails.
            let sectors = disk.read(name).map_or(0, |content| content.len().div_ceil(512) as u64);
            for sector in 0..sectors {
                disk.damage(name, &Damage::Unreadable { sector });
            }
            format!("nothing of {name} can be read")
        }
        _ => {
            let bytes = disk.read(name).map_or(0, |content| content.len() as u64);
            let damage = Damage::random(bytes, random.next());
            disk.damage(name, &damage);
            format!("{name}: {damage:?}")
        }
    }
}

#[test]
fn what_a_start_does_is_foretold() {
    let mut foretold = [0_u32; Foretold::ALL];
    for seed in 0..80 {
        let (closed, alone) = (seed % 3 != 0, seed % 5 == 0);
        let life = Life { seed, acts: 5 + seed as usize % 11, closed, alone };
        let (disk, future) = life.disks();
        foretold[compare(&disk, &life.config(), &format!("seed {seed}")) as usize] += 1;
        let mut random = Random(seed);
        for case in 0..40 {
            let harmed = disk.fork(case);
            let harm: Vec<_> =
                (0..=random.below(3)).map(|_| harm(&harmed, &future, &mut random)).collect();
            let accept_data_loss = random.one_in(4);
            let config = WalConfig { accept_data_loss, ..life.config() };
            let context = format!("seed {seed}, case {case}: {harm:?}");
            foretold[compare(&harmed, &config, &context) as usize] += 1;
        }
    }
    println!("foretold, in the order of the kinds: {foretold:?}");
    // A new directory needs the loss of all of it; the next test has one.
    assert!(foretold[1..].iter().all(|&count| count >= 10), "{foretold:?}");
}

#[test]
fn empty_and_new_directories_are_foretold() {
    let disk = SimDisk::new(1);
    let inspection = inspector(&disk).inspect().unwrap();
    assert!(matches!(inspection.start, Start::Begin));
    assert!(inspection.identity.is_none() && inspection.files.is_empty());
    assert!(disk.names().is_empty(), "nothing was created");
    disk.put("notes", b"hello".to_vec());
    disk.put("spare-1.tmp", vec![0; 9]);
    assert_eq!(compare(&disk, &config(), "files of others"), Foretold::Begin);
    let inspection = inspector(&disk).inspect().unwrap();
    let [notes, spare] = &inspection.files[..] else { panic!("{inspection:?}") };
    assert!(matches!((&notes.kind, notes.fate), (FileKind::Foreign, Fate::Stays)));
    assert!(matches!((&spare.kind, spare.fate), (FileKind::Temporary, Fate::Removed)));

    // The first start of all was cut short.
    let disk = SimDisk::new(1);
    disk.inject(Fault::PowerCut, 4);
    assert!(open(&disk).is_err());
    disk.restart();
    assert!(disk.names().contains(&"IDENTITY".to_owned()));
    assert_eq!(compare(&disk, &config(), "a first start cut short"), Foretold::Clean);
    let Start::Open(opening) = inspector(&disk).inspect().unwrap().start else { panic!() };
    assert!(opening.report.created);
}

/// Once it has begun there, the log goes on in its own segment, although nothing stands in that yet.
#[test]
fn a_log_begins_behind_a_snapshot_once() {
    let (disk, log) = log_of(9);
    log.close().unwrap();
    let future = disk.fork(1);
    let mut log = open(&future).unwrap().log;
    receive(log.snapshots(), &snapshot(50));
    install(&mut log, &snapshot(50));
    let newest = newest_snapshot(&future);
    disk.put(&newest, future.read(&newest).unwrap());
    disk.restart();
    for expected in [Foretold::BehindSnapshot, Foretold::Clean, Foretold::Clean] {
        assert_eq!(compare(&disk, &config(), "behind a snapshot"), expected);
        let Start::Open(opening) = inspector(&disk).inspect().unwrap().start else { panic!() };
        let at = snapshot(50).base.position;
        assert_eq!((opening.base, opening.last), (at, at));
        open(&disk).unwrap().log.close().unwrap();
        disk.restart();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_files_are_told_and_foretold(
        files in prop::collection::vec(
            ((0..3_u64, 0..4_u64), prop::collection::vec(any::<u8>(), 0..9000)), 0..4),
        snapshot in prop::option::of(prop::collection::vec(any::<u8>(), 0..2000)),
        identity in any::<bool>(),
    ) {
        let disk = SimDisk::new(0);
        if identity {
            open(&disk).unwrap().log.close().unwrap();
            disk.restart();
        }
        for ((base, id), bytes) in files {
            disk.put(&format!("segment-{base:020}-{id:020}"), bytes);
        }
        if let Some(bytes) = snapshot {
            disk.put(&format!("snapshot-{:020}-{:020}", 1, 2), bytes);
        }
        compare(&disk, &config(), "arbitrary files");
        for content in inspector(&disk).segments().unwrap() {
            content.unwrap().into_records().for_each(drop);
        }
        inspector(&disk).snapshots().unwrap();
    }
}
