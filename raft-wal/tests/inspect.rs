//! What an inspection tells of a directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft_core::{
    Entry, HardState, LogIndex, LogPosition, Membership, Payload, Term, Timestamp, Write,
};
use raft_wal::inspect::{Fate, FileKind, Inspector, Record, Start};
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{FORMAT_VERSION, OpenError, WalConfig};
use support::life::{Life, inspector};
use support::{Random, Twin, config, members, node, open, twin_of};

#[test]
fn identity_segments_and_snapshots_are_told() {
    let life = Life { seed: 3, acts: 30, closed: true, alone: false };
    let disk = life.disk();
    let inspection = inspector(&disk).inspect().unwrap();
    assert!(inspection.is_sound() && inspection.damages.is_empty(), "{inspection:#?}");
    let identity = inspection.identity.unwrap();
    assert_eq!(inspector(&disk).identity().unwrap().as_ref(), Some(&identity));
    assert_eq!((identity.identity.cluster.as_str(), identity.identity.node), ("tests", node(1)));
    assert!(identity.established && identity.intact);
    assert_eq!(identity.format_version, FORMAT_VERSION);
    let segment = |kind: &FileKind| match kind {
        FileKind::Segment(segment) => Some(segment.clone()),
        _ => None,
    };
    let mut segments: Vec<_> =
        inspection.files.iter().filter_map(|file| segment(&file.kind)).collect();
    segments.sort_by_key(|segment| segment.id);
    assert!(segments.len() >= 2, "{segments:#?}");
    for pair in segments.windows(2) {
        assert_eq!(pair[1].previous, Some(pair[0].id));
        assert_eq!(pair[1].base, pair[0].last);
        assert!((pair[1].first_id..=pair[1].id).contains(&pair[0].sealed_for.unwrap()));
    }
    let last = segments.last().unwrap();
    assert_eq!(last.sealed_for, None);
    for file in &inspection.files {
        let fate = if file.name == last.name { Fate::WrittenAgain } else { Fate::Stays };
        assert_eq!(file.fate, fate, "{}", file.name);
    }
    let snapshot = |kind: &FileKind| match kind {
        FileKind::Snapshot(snapshot) => Some(snapshot.clone().unwrap()),
        _ => None,
    };
    let snapshots: Vec<_> =
        inspection.files.iter().filter_map(|file| snapshot(&file.kind)).collect();
    assert_eq!(snapshots.len(), 2);
    let described = inspector(&disk).snapshots().unwrap();
    let newest = described[0].content.as_ref().unwrap();
    assert!(snapshots.contains(newest));
    let Start::Open(opening) = inspection.start else { panic!() };
    assert_eq!(opening.snapshot.as_ref(), Some(newest));
    assert!(inspection.members.is_some());
}

#[test]
fn damage_is_located_and_copies_are_counted() {
    let life = Life { seed: 5, acts: 12, closed: true, alone: true };
    let disk = life.disk();
    let names = disk.names();
    let first = names.iter().find(|name| name.starts_with("segment-")).unwrap();
    let content = disk.read(first).unwrap();

    let mut changed = content.clone();
    changed[100] ^= 1;
    disk.put(first, changed);
    let segment = inspector(&disk).segments().unwrap().next().unwrap().unwrap().summary;
    assert_eq!((segment.header_copies, &segment.damage), (1, &None));
    assert!(!inspector(&disk).inspect().unwrap().is_sound());

    let mut changed = content.clone();
    changed[2 * 4096 + 512 + 400] ^= 1;
    disk.put(first, changed);
    let inspection = inspector(&disk).inspect().unwrap();
    let damage = &inspection.damages[0];
    assert_eq!((&damage.file, damage.offset), (first, 2 * 4096 + 512), "{damage}");
    let Start::Refuse(error) = inspection.start else { panic!("it is the only voter") };
    assert!(error.to_string().contains("--accept-data-loss"), "{error}");
    let accepted = inspector(&disk).accepting_data_loss().inspect().unwrap();
    let Start::Open(opening) = accepted.start else { panic!() };
    assert_eq!(opening.last, LogPosition::ZERO);
    assert_eq!(accepted.members, Some(members(&[1])), "as the segments say");

    disk.put(first, content);
    disk.put("segment-of-\u{1b}[31mnothing", vec![]);
    let inspection = inspector(&disk).inspect().unwrap();
    assert!(matches!(inspection.start, Start::Refuse(OpenError::Corrupt { .. })));
    assert!(inspection.damages.iter().any(|damage| damage.what.contains("no segment has such")));
    // All others are told nevertheless.
    assert_eq!(inspection.identity.unwrap().identity.node, node(1));
    let whole = inspection.files.iter().filter(|file| matches!(file.kind, FileKind::Segment(_)));
    assert_eq!(whole.count(), names.iter().filter(|it| it.starts_with("segment-")).count());
}

#[test]
fn a_file_that_cannot_be_read_does_not_hide_the_others() {
    let disk = Life { seed: 3, acts: 30, closed: true, alone: false }.disk();
    let segments: Vec<_> =
        disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect();
    // So many that it is not one bad place.
    for sector in 0..20 {
        assert!(disk.damage(&segments[0], &Damage::Unreadable { sector }));
    }
    let inspection = inspector(&disk).inspect().unwrap();
    assert!(matches!(&inspection.start, Start::Refuse(error) if error.is_disk_failure()));
    for name in &segments {
        let file = inspection.files.iter().find(|file| file.name == *name).unwrap();
        match &file.kind {
            FileKind::Unreadable(what) => assert!(name == &segments[0] && what.contains(name)),
            FileKind::Segment(segment) => assert_eq!(segment.damage, None),
            other => panic!("{other:?}"),
        }
    }
}

/// One copy of the identity stands for the other; without both nobody knows whose directory it is.
#[test]
fn an_identity_is_damaged_if_both_of_its_copies_are() {
    let disk = Life { seed: 5, acts: 12, closed: true, alone: true }.disk();
    for (at, whole) in [(100, true), (4096 + 100, false)] {
        assert!(disk.damage("IDENTITY", &Damage::FlipBit { at, bit: 0 }));
        let inspection = inspector(&disk).inspect().unwrap();
        let file = inspection.files.iter().find(|file| file.name == "IDENTITY").unwrap();
        let FileKind::Identity(Err(what)) = &file.kind else { panic!("{file:?}") };
        let expected = Vec::from_iter((!whole).then_some(("IDENTITY", 0, what.as_str())));
        let damages = inspection.damages.iter();
        let damages: Vec<_> =
            damages.map(|it| (it.file.as_str(), it.offset, it.what.as_str())).collect();
        assert_eq!(damages, expected);
        assert!(!inspection.is_sound());
        assert_eq!(inspection.identity.map(|it| it.intact), whole.then_some(false));
        assert_eq!(inspector(&disk).identity().is_ok(), whole);
    }
    assert!(disk.take("IDENTITY"));
    assert!(inspector(&disk).identity().is_err(), "there are segments");
    assert_eq!(inspector(&SimDisk::new(1)).identity().unwrap(), None);
}

/// The last change counts, although no header of a segment tells of it yet.
#[test]
fn the_members_are_those_at_the_end_of_the_log() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(3), voted_for: Some(node(1)) };
    let change = |index: u64, ids: &[u64]| Entry {
        index: LogIndex(index),
        term: Term(3),
        timestamp: Timestamp(index),
        payload: Payload::Membership(members(ids)),
    };
    let told = || inspector(&disk).inspect().unwrap().members;
    log.append(&[Write::detached(Some(vote), None, vec![change(1, &[1, 2])])]).unwrap();
    log.sync().unwrap();
    assert_eq!(told(), Some(members(&[1, 2])));
    log.append(&[Write::detached(None, None, vec![change(2, &[2, 3, 4])])]).unwrap();
    log.close().unwrap();
    assert_eq!(told(), Some(members(&[2, 3, 4])));
}

/// Whoever changes the byte there changes that record, and hears of it.
#[test]
fn a_record_stands_where_it_is_said_to_stand() {
    let disk = Life { seed: 5, acts: 12, closed: true, alone: true }.disk();
    let content = inspector(&disk).segments().unwrap().next().unwrap().unwrap();
    let name = content.summary.name.clone();
    let mut offset_before = 0;
    for located in content.into_records() {
        assert!(located.offset > offset_before, "{located:?}");
        offset_before = located.offset;
        let harm = |at: u64, bit: u8| {
            let disk = disk.fork(1);
            assert!(disk.damage(&name, &Damage::FlipBit { at, bit }));
            let summary = inspector(&disk).segments().unwrap().next().unwrap().unwrap().summary;
            summary.damage.unwrap().what
        };
        // Its first byte and the last one of its header, which is the last of a checksum.
        for at in [located.offset, located.offset + 47] {
            let what = harm(at, 3);
            assert!(what.contains("a record's header does not match its checksum"), "{what}");
        }
        if let Record::Entry(Entry { index, term, .. }) = located.record {
            let what = harm(located.offset + 48, 3);
            assert!(
                what.contains(&format!("the payload of the record of {index}@{term}")),
                "{what}"
            );
        }
    }
    assert!(offset_before > 0);
}

/// Whoever follows the records comes to what a start remembers.
#[test]
fn the_records_are_those_of_the_log() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let mut random = Random(seed);
        let mut twin = Twin::default();
        let mut log = open(&disk).unwrap().log;
        for _ in 0..40 {
            let write = twin.random_write(&mut random);
            twin.apply(&write);
            log.append(&[write]).unwrap();
            log.sync().unwrap();
        }
        log.close().unwrap();
        disk.restart();
        let mut told = Twin::default();
        let mut last_offset = (0, 0);
        for content in inspector(&disk).segments().unwrap() {
            let content = content.unwrap();
            let (id, records) = (content.summary.id, content.summary.records);
            let mut count = 0;
            for located in content.into_records() {
                assert!((id, located.offset) > last_offset, "seed {seed}: {located:?}");
                last_offset = (id, located.offset);
                count += 1;
                match located.record {
                    Record::HardState(state) => told.hard_state = state,
                    Record::Truncate(from) => told.entries.retain(|entry| entry.index < from),
                    Record::Entry(entry) => told.entries.push(entry),
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
            assert_eq!(count, records, "seed {seed}");
        }
        assert_eq!(told, twin_of(&open(&disk).unwrap().restored), "seed {seed}");
        assert_eq!(told, twin, "seed {seed}");
    }
}

#[test]
fn records_are_told_in_the_notation_of_the_core() {
    let entry = Entry {
        index: LogIndex(5),
        term: Term(3),
        timestamp: Timestamp(0),
        payload: Payload::Command(bytes::Bytes::from_static(b"hi\n")),
    };
    let mut base = raft_core::LogBase::initial(members(&[1, 2]));
    base.position = LogPosition::new(Term(2), LogIndex(8));
    let vote = HardState { term: Term(3), voted_for: Some(node(1)) };
    for (record, told) in [
        (Record::HardState(vote), "term=3 vote=n1"),
        (Record::HardState(HardState { voted_for: None, ..vote }), "term=3 vote=none"),
        (Record::Truncate(LogIndex(5)), "truncate_from=5"),
        (Record::Entry(entry), "5@3=hi\\n"),
        (Record::Reset(base.clone()), "snapshot=8@2 members={n1 n2}"),
        (Record::Compacted(base), "compacted=8@2"),
        (Record::Seal(7), "sealed next=7"),
    ] {
        assert_eq!(record.to_string(), told);
    }
}

#[test]
fn reading_is_watched_byte_for_byte() {
    let disk = Life { seed: 3, acts: 30, closed: true, alone: false }.disk();
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let watched = inspector(&disk).watched_by(move |bytes| {
        counter.fetch_add(bytes, Ordering::Relaxed);
    });
    let announced = watched.bytes().unwrap();
    watched.inspect().unwrap();
    let read = read.load(Ordering::Relaxed);
    assert!(announced > 0 && read >= announced && read < 2 * announced, "{read} of {announced}");
}

#[test]
fn a_real_directory_in_use_is_refused_and_one_that_is_looked_at_does_not_start() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("n1");
    let missing = Inspector::open(&dir).err().unwrap();
    assert!(missing.is_disk_failure(), "{missing}");
    assert!(!dir.exists(), "looking creates nothing");
    let config = WalConfig { dir: dir.clone(), ..config() };
    let wal = raft_wal::Wal::open(config.clone(), |_| {}).unwrap().wal;
    let in_use = Inspector::open(&dir).err().unwrap();
    assert!(matches!(in_use, OpenError::Locked { .. }), "{in_use}");
    wal.close().unwrap();

    let list = || {
        let files = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap());
        let mut files: Vec<_> = files
            .map(|file| (file.file_name(), file.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = list();
    let inspector = Inspector::open(&dir).unwrap();
    let inspection = inspector.inspect().unwrap();
    assert!(inspection.is_sound());
    assert_eq!(inspection.members, Some(Membership::clone(&config.membership)));
    let kept_out = raft_wal::Wal::open(config.clone(), |_| {}).err().unwrap();
    assert!(matches!(kept_out, OpenError::Locked { .. }), "{kept_out}");
    drop(inspector);
    assert_eq!(list(), before, "nothing was created, removed or changed");
    // A copy has no lock, and gets none.
    std::fs::remove_file(dir.join("LOCK")).unwrap();
    assert!(Inspector::open(&dir).unwrap().inspect().unwrap().is_sound());
    assert!(!dir.join("LOCK").exists());
    // Something that is no lock tells nothing of who else is there.
    std::fs::create_dir(dir.join("LOCK")).unwrap();
    let error = Inspector::open(&dir).err().unwrap();
    assert!(error.is_disk_failure(), "{error}");
}

/// Whose directory it is can be read from the segments as well, from either copy of a header.
#[test]
fn segments_are_told_without_the_identity() {
    let disk = Life { seed: 3, acts: 30, closed: true, alone: false }.disk();
    assert!(disk.take("IDENTITY"));
    for copies in [2, 1] {
        let inspector = inspector(&disk);
        let segments = inspector.segments().unwrap();
        let segments: Vec<_> = segments.map(|content| content.unwrap().summary).collect();
        assert!(segments.len() >= 2, "{segments:#?}");
        for segment in &segments {
            assert_eq!((segment.header_copies, &segment.damage), (copies, &None), "{segment:#?}");
            assert!(disk.damage(&segment.name, &Damage::FlipBit { at: 100, bit: 0 }));
        }
    }
}
