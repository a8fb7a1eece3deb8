//! Looking into a directory changes nothing, and foretells what a start does with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use raft_core::{
    Entry, HardState, LogIndex, LogPosition, Membership, Payload, Term, Timestamp, Write,
};
use raft_wal::inspect::{Fate, FileKind, Inspection, Inspector, Opening, Record, Start};
use raft_wal::sim::{Damage, Fault, SimDisk};
use raft_wal::{FORMAT_VERSION, Log, OpenError, OpenedLog, WalConfig};
use support::model::Model;
use support::{Random, Twin, command, config, members, node, open, twin_of};

/// How the storage of a directory was lived with.
#[derive(Clone, Copy)]
struct Life {
    seed: u64,
    /// How many things were done.
    acts: usize,
    /// Did the last run close the log?
    closed: bool,
    /// Is the node the only voter?
    alone: bool,
}

impl Life {
    fn config(self) -> WalConfig {
        let ids: &[u64] = if self.alone { &[1] } else { &[1, 2, 3] };
        WalConfig { membership: members(ids), ..config() }
    }

    fn open(self, disk: &SimDisk) -> Result<OpenedLog, OpenError> {
        Log::open(Arc::new(disk.for_this_life()), &self.config())
    }

    /// The directory that it leaves behind.
    fn disk(self) -> SimDisk {
        self.disks().0
    }

    /// The same, and what it could become later.
    fn disks(self) -> (SimDisk, SimDisk) {
        let disk = SimDisk::new(self.seed);
        let mut random = Random(self.seed);
        let mut model = Model::new();
        for run in 0..3 {
            let mut log = self.open(&disk).unwrap().log;
            if run == 2 && !self.closed {
                disk.inject(Fault::PowerCut, 3 * self.acts as u64);
            }
            let mut acts = 0..self.acts;
            let done = acts.try_for_each(|n| match self.alone {
                true => {
                    log.append(&[alone(run * self.acts + n)])?;
                    log.sync()
                }
                false => model.act(&mut log, &mut random),
            });
            match done.and_then(|()| log.close()) {
                Ok(()) => disk.restart(),
                Err(_) => disk.crash(),
            }
        }
        let future = disk.fork(self.seed);
        let mut log = self.open(&future).unwrap().log;
        if !self.alone && self.closed {
            (0..30).for_each(|_| model.act(&mut log, &mut random).unwrap());
        }
        (disk, future)
    }
}

/// A write of a node that decides alone: its members never change.
fn alone(n: usize) -> Write {
    let vote = HardState { term: Term(3), voted_for: Some(node(1)) };
    Write::detached((n == 0).then_some(vote), None, vec![command(n as u64 + 1, 3, 600)])
}

fn contents(disk: &SimDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.names().into_iter().map(|name| (name.clone(), disk.read(&name))).collect()
}

fn inspector(disk: &SimDisk) -> Inspector {
    Inspector::on(Arc::new(disk.for_this_life()), "simulated")
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

#[test]
fn identity_segments_and_snapshots_are_told() {
    let life = Life { seed: 3, acts: 30, closed: true, alone: false };
    let disk = life.disk();
    let inspection = inspector(&disk).inspect().unwrap();
    assert!(inspection.is_sound() && inspection.damages.is_empty(), "{inspection:#?}");
    let identity = inspection.identity.unwrap();
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
    let unreadable = Damage::Unreadable { sector: 20 };
    let segments: Vec<_> =
        disk.names().into_iter().filter(|name| name.starts_with("segment-")).collect();
    assert!(disk.damage(&segments[0], &unreadable));
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
