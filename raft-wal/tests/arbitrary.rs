//! Recovery of arbitrary directories: files of any name and content, most of them made from what a log
//! wrote, with checksums that are right around fields that are not.
//!
//!     DIRECTORIES=1000000 cargo test -p raft-wal --release --test arbitrary       a campaign
//!
//! The same bytes are read in the same way by the target `recovery` in `../../fuzz/`, which lets coverage choose them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;
mod arbitrary {
    pub(crate) mod forge;
    pub(crate) mod interpreter;
    pub(crate) mod verdict;
}

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use allocation_counter::measure;
use arbitrary::forge::{Identity, Segment, Snapshot};
use arbitrary::interpreter::{BASES, interpret};
use arbitrary::verdict::{Verdict, contents, judge, open};
use proptest::prelude::*;
use raft_wal::OpenError;
use raft_wal::sim::{Damage, SimDisk};

/// So many directories: `DIRECTORIES=n`.
fn cases() -> u32 {
    let Ok(cases) = std::env::var("DIRECTORIES") else { return 2_000 };
    cases.parse().unwrap_or_else(|_| panic!("DIRECTORIES={cases} is not a number"))
}

/// Opening takes at most so many times the memory that the files of the directory have bytes.
const MEMORY_PER_BYTE: u64 = 8;
/// And so much besides: a segment to be written, and what reads and writes are made with.
const MEMORY_BESIDES: u64 = 1 << 20;

fn check(input: &[u8]) -> Verdict {
    let directory = interpret(input);
    let before = contents(&directory.disk);
    let bytes: u64 = before.values().map(|content| content.len() as u64).sum();
    let mut outcome = None;
    // A panic must not leave the measuring half done.
    let try_open = || catch_unwind(AssertUnwindSafe(|| open(&directory.disk, &directory.config)));
    let memory = measure(|| outcome = Some(try_open()));
    let outcome = outcome.unwrap().unwrap_or_else(|panic| resume_unwind(panic));
    let limit = MEMORY_PER_BYTE * bytes + MEMORY_BESIDES;
    assert!(memory.bytes_max <= limit, "{memory:?} for {bytes} bytes of files");
    let verdict = judge(&directory, outcome);
    if verdict == Verdict::Refused {
        let changed = |(name, content)| before.get(name) != Some(content);
        let after = contents(&directory.disk);
        let changed: Vec<_> = after.iter().filter(|file| changed(*file)).map(|it| it.0).collect();
        assert!(after.keys().eq(before.keys()) && changed.is_empty(), "refused, and {changed:?}");
    }
    verdict
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn whatever_is_in_a_directory_is_refused_untouched_or_goes_on(
        input in prop::collection::vec(any::<u8>(), 2..90),
    ) {
        check(&input);
    }
}

/// Else the test above would show little.
#[test]
fn arbitrary_directories_are_of_all_kinds() {
    let mut random = support::Random(1);
    let mut verdicts = BTreeMap::new();
    for _ in 0..600 {
        let length = random.below(40);
        let input: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        *verdicts.entry(check(&input)).or_insert(0) += 1;
    }
    assert!(verdicts.len() == 3 && verdicts.values().all(|count| *count > 60), "{verdicts:?}");
}

/// Else nothing that is forged would get past the checksums.
#[test]
fn what_is_taken_apart_and_put_together_is_what_the_log_wrote() {
    let (mut segments, mut snapshots) = (0, 0);
    let whole = |name: &String| !name.ends_with(".broken") && !name.ends_with(".tmp");
    for disk in BASES.iter() {
        for name in disk.names().into_iter().filter(whole) {
            let content = disk.read(&name).unwrap();
            let again = if name == "IDENTITY" {
                Identity::parse(&content).unwrap().encode()
            } else if name.starts_with("segment-") {
                segments += 1;
                Segment::parse(&content).unwrap().encode()
            } else {
                snapshots += 1;
                Snapshot::parse(&content).unwrap().encode()
            };
            assert!(again == content, "{name}");
        }
    }
    assert!(segments > 20 && snapshots > 5, "{segments}, {snapshots}");
}

/// A directory with this changed: refused, and left alone.
fn refused(disk: &SimDisk, what: &str) {
    let before = contents(disk);
    let error = open(disk, &support::config()).err().unwrap_or_else(|| panic!("{what} was opened"));
    assert!(error.is_safety_refusal(), "{what}: {error}");
    assert!(contents(disk) == before, "{what}: it was changed");
}

/// A log with a snapshot that its beginning is gone for.
fn with_snapshots() -> SimDisk {
    let has_snapshot = |disk: &&SimDisk| disk.names().iter().any(|it| it.starts_with("snapshot-"));
    BASES.iter().find(has_snapshot).unwrap().fork(1)
}

/// Names the directory as one whose log never came to be.
fn make_fresh(disk: &SimDisk) {
    let mut identity = Identity::parse(&disk.read("IDENTITY").unwrap()).unwrap();
    identity.copies.iter_mut().for_each(|copy| copy.lie(40, &[1]));
    disk.put("IDENTITY", identity.encode());
}

#[test]
fn a_damaged_name_is_not_mended_in_a_directory_that_is_refused() {
    let disk = SimDisk::new(1);
    support::open(&disk).unwrap();
    make_fresh(&disk);
    disk.damage("IDENTITY", &Damage::FlipBit { at: 5000, bit: 1 });
    disk.put("segment-something", vec![1]);
    refused(&disk, "a stray segment");
    disk.take("segment-something");
    let segment = disk.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    disk.put(&segment, vec![1; 20_000]);
    refused(&disk, "nothing but a damaged segment");
}

#[test]
fn snapshots_alone_are_no_new_directory() {
    let disk = with_snapshots();
    let segments = disk.names().into_iter().filter(|name| name.starts_with("segment-"));
    segments.for_each(|name| assert!(disk.take(&name)));
    refused(&disk, "an established directory");
    make_fresh(&disk);
    refused(&disk, "one that is named, but not more");
    disk.take("IDENTITY");
    refused(&disk, "one without a name");
}

/// Numbers are drawn one by one from 1, so these were not; and there must be one for the next segment.
#[test]
fn numbers_that_no_log_reaches_are_refused() {
    for id in [0, u64::MAX, u64::MAX - 1, 1 << 63] {
        let disk = SimDisk::new(1);
        support::open(&disk).unwrap();
        let stray = disk.fork(1);
        stray.put(&format!("segment-{:020}-{id:020}", 0), vec![0; 100]);
        refused(&stray, &format!("a stray segment {id}"));
        let name = disk.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
        let mut segment = Segment::parse(&disk.read(&name).unwrap()).unwrap();
        segment.header.lie(48, &id.to_le_bytes());
        disk.take(&name);
        disk.put(&format!("segment-{:020}-{id:020}", 0), segment.encode());
        refused(&disk, &format!("segment {id}"));
    }
}

/// Another version is named, whichever copy says so; two valid copies that differ are nobody's.
#[test]
fn other_versions_and_contradictions_are_refused_by_name() {
    let disk = with_snapshots();
    let (first, second) = ([true, false], [false, true]);
    for [one, two] in [first, second, [true, true]] {
        let identity = |at: usize, lie: &[u8]| {
            let disk = disk.fork(1);
            let mut identity = Identity::parse(&disk.read("IDENTITY").unwrap()).unwrap();
            for (copy, _) in identity.copies.iter_mut().zip([one, two]).filter(|(_, lies)| *lies) {
                copy.lie(at, lie);
            }
            disk.put("IDENTITY", identity.encode());
            disk
        };
        let other = identity(8, &[7]);
        refused(&other, "another version");
        let error = open(&other, &support::config()).err().unwrap();
        assert!(matches!(error, OpenError::UnsupportedVersion { found: 7, .. }), "{error}");
        if one != two {
            refused(&identity(16, &[7, 7]), "two incarnations");
        }
        // A stage that there is not: as good as damaged.
        let outcome = open(&identity(40, &[9]), &support::config());
        assert_eq!(outcome.is_ok(), one != two);
    }
    let mut names = disk.names();
    names.retain(|name| name.starts_with("segment-"));
    for name in names {
        let mut segment = Segment::parse(&disk.read(&name).unwrap()).unwrap();
        segment.header.lie(8, &[7]);
        let bytes = segment.encode();
        for damaged in [false, true] {
            let copy = disk.fork(1);
            copy.put(&name, bytes.clone());
            // Also if only the second copy of its header says so.
            copy.damage(&name, &Damage::Garbage { at: 0, bytes: u64::from(damaged) * 64, seed: 1 });
            let error = open(&copy, &support::config()).err().unwrap();
            assert!(matches!(error, OpenError::UnsupportedVersion { found: 7, .. }), "{error}");
        }
    }
    let name = disk.names().into_iter().find(|name| name.starts_with("snapshot-")).unwrap();
    let mut snapshot = Snapshot::parse(&disk.read(&name).unwrap()).unwrap();
    snapshot.header.lie(8, &[7]);
    disk.put(&name, snapshot.encode());
    let report = open(&disk, &support::config()).map(|opened| opened.report);
    assert!(report.is_err() || report.unwrap().snapshots_damaged == 1);
}

/// A whole snapshot that is neither in the log nor takes its place, because a newer one is damaged: it must
/// not take the place of the log at the next start, when the damaged one is out of the way.
#[test]
fn a_snapshot_that_was_passed_over_stays_so() {
    let disk = with_snapshots();
    let name = disk.names().into_iter().find(|name| name.starts_with("snapshot-")).unwrap();
    let mut snapshot = Snapshot::parse(&disk.read(&name).unwrap()).unwrap();
    let (term, _) = snapshot.position();
    snapshot.footer.lie(16, &5000_u64.to_le_bytes());
    disk.put(&format!("snapshot-{term:020}-{:020}", 5000), snapshot.encode());
    disk.put(&format!("snapshot-{term:020}-{:020}", 6000), vec![0; 100]);
    let opened = open(&disk, &support::config()).unwrap();
    assert_eq!(opened.report.snapshots_damaged, 2, "one is no snapshot, one is not of this log");
    let first = opened.restored;
    assert!(first.base.position.index.0 < 5000);
    disk.crash();
    assert_eq!(open(&disk, &support::config()).unwrap().restored, first);
}

/// A batch says twice what it leaves behind, and its records say it too.
#[test]
fn a_batch_that_contradicts_its_own_records_is_refused() {
    let disk = BASES[3].fork(1);
    let name = disk.names().into_iter().rfind(|name| name.starts_with("segment-")).unwrap();
    let mut segment = Segment::parse(&disk.read(&name).unwrap()).unwrap();
    let last = segment.batches.iter_mut().rfind(|batch| !batch.records.is_empty()).unwrap();
    last.header.lie(56, &77_u64.to_le_bytes());
    disk.put(&name, segment.encode());
    refused(&disk, "another term than the records say");
}

/// The header of a segment says what the log before it came to: the vote, and the last entry.
#[test]
fn a_header_that_contradicts_the_log_before_it_is_damage() {
    const VOTED_FOR: usize = 88;
    const BASE_TERM: usize = 104;
    const BASE_TIMESTAMP: usize = 112;
    let (disk, log) = support::history::log_of(30);
    log.close().unwrap();
    disk.restart();
    let names = support::history::segments(&disk);
    let content = |name: &String| Segment::parse(&disk.read(name).unwrap()).unwrap();
    for lie in [None, Some((VOTED_FOR, 3)), Some((BASE_TERM, 1)), Some((BASE_TIMESTAMP, 1_u64))] {
        let mut segments: Vec<Segment> = names.iter().map(content).collect();
        if let Some((at, value)) = lie {
            segments[2].header.lie(at, &value.to_le_bytes());
        }
        arbitrary::forge::relink(&mut segments);
        let copy = disk.fork(1);
        for (name, segment) in names.iter().zip(&segments) {
            copy.put(name, segment.encode());
        }
        let opened = open(&copy, &support::config()).unwrap();
        let lost = opened.restored.lost.index.0 > 0;
        assert_eq!(
            (opened.report.damage.is_some(), lost),
            (lie.is_some(), lie.is_some()),
            "{lie:?}"
        );
    }
}

/// Numbers of segments that cannot be, with checksums that are right.
#[test]
fn a_header_with_impossible_numbers_is_none() {
    const FIRST_ID: usize = 56;
    const PREVIOUS_ID: usize = 64;
    let (disk, log) = support::history::log_of(30);
    log.close().unwrap();
    disk.restart();
    let name = &support::history::segments(&disk)[2];
    let id: u64 = name[name.len() - 20..].parse().unwrap();
    // Before all segments, behind itself, and behind a segment that is not before it.
    for (at, value) in [(FIRST_ID, 0), (FIRST_ID, id + 1), (PREVIOUS_ID, id)] {
        let mut segment = Segment::parse(&disk.read(name).unwrap()).unwrap();
        segment.header.lie(at, &value.to_le_bytes());
        let copy = disk.fork(1);
        copy.put(name, segment.encode());
        let inspector = support::life::inspector(&copy);
        let mut found = inspector.segments().unwrap().map(|content| content.unwrap().summary);
        let found = found.find(|summary| summary.name == *name).unwrap();
        assert_eq!((found.header_copies, found.damage.is_some()), (0, true), "{at}: {value}");
    }
}

/// A seal is written when all that stands before it is durable, so it is alone in its batch.
#[test]
fn a_seal_among_other_records_is_damage() {
    let (disk, log) = support::history::log_of(30);
    log.close().unwrap();
    disk.restart();
    let name = &support::history::segments(&disk)[0];
    let content = disk.read(name).unwrap();
    for alone in [true, false] {
        let mut segment = Segment::parse(&content).unwrap();
        let seal = segment.batches.pop().unwrap();
        assert_eq!(seal.records.len(), 1);
        match segment.batches.last_mut() {
            Some(last) if !alone => last.records.extend(seal.records),
            _ => segment.batches.push(seal),
        }
        disk.put(name, segment.encode());
        let inspector = support::life::inspector(&disk);
        let found = inspector.segments().unwrap().next().unwrap().unwrap().summary;
        assert_eq!((&found.name, found.sealed_for.is_some()), (name, alone));
        let damage = found.damage.map(|damage| damage.what);
        let expected = (!alone).then(|| "a seal stands among other records".to_owned());
        assert_eq!(damage, expected);
    }
}
