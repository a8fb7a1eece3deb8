//! Snapshots beside a log: damage to any file of a directory that has some, in a cluster and alone; how
//! they arrive, are read and make room.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    ChunkOrder, Entry, HardState, Incarnation, Incoming, LogBase, LogIndex, LogPosition, Snapshot,
    Term, Timestamp, Write,
};
use raft_wal::sim::{Damage, Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Log, OpenError, OpenedLog, SnapshotStore, WalConfig, WalError};
use support::{command, config, members, node, open};
use xxhash_rust::xxh3::xxh3_128;

const VOTE: HardState = HardState { term: Term(2), voted_for: None };
const LAST: u64 = 30;

/// A log of 30 entries, of which a snapshot goes up to 10 and another up to 20.
struct Storage {
    disk: SimDisk,
    config: WalConfig,
}

/// The second one takes more than a chunk.
fn content(index: u64) -> Vec<u8> {
    vec![index as u8; if index == 20 { 66_000 } else { 300 }]
}

fn base(voters: &[u64], index: u64) -> LogBase {
    LogBase {
        position: LogPosition::new(Term(2), LogIndex(index)),
        timestamp: Timestamp(1000 + index),
        membership: members(voters),
        membership_index: LogIndex(0),
    }
}

fn snapshot(index: u64) -> Snapshot {
    let content = content(index);
    let digest = xxh3_128(&content);
    Snapshot { base: base(&[1, 2, 3], index), length: content.len() as u64, digest }
}

impl Storage {
    fn of(voters: &[u64]) -> Self {
        let config = WalConfig { membership: members(voters), ..config() };
        let disk = SimDisk::new(1);
        let mut log = Log::open(Arc::new(disk.for_this_life()), &config).unwrap().log;
        log.append(&[Write::detached(Some(VOTE), None, Vec::new())]).unwrap();
        for index in 1..=LAST {
            log.append(&[Write::detached(None, None, vec![command(index, 2, 900)])]).unwrap();
            log.sync().unwrap();
            if index == 15 || index == 25 {
                let base = base(voters, index - 5);
                let mut writer = log.snapshots().create(base.clone()).unwrap();
                writer.write(&content(index - 5)).unwrap();
                writer.finish().unwrap();
                log.compact(&base).unwrap();
            }
        }
        log.close().unwrap();
        disk.restart();
        Self { disk, config }
    }

    fn fork(&self) -> Self {
        Self { disk: self.disk.fork(1), config: self.config.clone() }
    }

    fn open(&self) -> Result<OpenedLog, OpenError> {
        Log::open(Arc::new(self.disk.for_this_life()), &self.config)
    }

    fn files(&self, prefix: &str) -> Vec<String> {
        let mut names = self.disk.names();
        names.retain(|name| name.starts_with(prefix));
        names
    }

    /// What became of it: the same, or one of the ways in which it says that it is not, and goes on.
    fn judge(&self, damage: &str) -> Verdict {
        let opened = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                assert!(error.is_safety_refusal(), "{damage}: {error}");
                return Verdict::Refused;
            }
        };
        let restored = opened.restored;
        assert_eq!(restored.hard_state, VOTE, "{damage}");
        let first = restored.base.position.index.0 + 1;
        let last = first - 1 + restored.entries.len() as u64;
        let known: Vec<Entry> = (first..=last).map(|index| command(index, 2, 900)).collect();
        assert!(restored.entries == known, "{damage}: silently another log");
        let held = restored.snapshot.as_ref().map_or(0, |snapshot| snapshot.index().0);
        assert!([0, 10, 20].contains(&held) && first <= held + 1, "{damage}: {held}, {first}");
        if let Some(snapshot) = &restored.snapshot {
            let mut reader = opened.log.snapshots().open(snapshot.id()).unwrap().unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert!(read == content(held), "{damage}: another snapshot");
        }
        let verdict = match (last, held) {
            (LAST, 20) => Verdict::Same,
            (LAST, 10) => Verdict::OlderSnapshot,
            _ => Verdict::Limping,
        };
        let limping = verdict == Verdict::Limping;
        assert_eq!(opened.report.limping, limping, "{damage}");
        let (lost, lives) = match limping {
            true => (LogPosition::new(Term(2), LogIndex(LAST)), 1),
            false => (LogPosition::ZERO, 0),
        };
        assert_eq!((restored.lost, restored.incarnation), (lost, Incarnation(lives)), "{damage}");
        let aside = self.files("snapshot-").iter().filter(|name| name.ends_with(".broken")).count();
        assert_eq!(opened.report.snapshots_damaged, aside as u64, "{damage}");
        drop(opened.log);
        self.disk.crash();
        let again = self.open().unwrap_or_else(|error| panic!("{damage}: later {error}"));
        assert_eq!(again.restored, restored, "{damage}: later");
        assert!(!again.report.limping && again.report.damage.is_none(), "{damage}: later");
        verdict
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    OlderSnapshot,
    Limping,
    Refused,
}

const CLUSTER: &[u64] = &[1, 2, 3];
const ALONE: &[u64] = &[1];

#[test]
fn every_single_byte_flip_with_snapshots_is_harmless_or_reported() {
    for voters in [CLUSTER, ALONE] {
        let storage = Storage::of(voters);
        assert_eq!(storage.files("snapshot-").len(), 2);
        assert!(storage.files("segment-").len() > 2);
        let mut verdicts = [0; 4];
        for name in storage.disk.names() {
            let bytes = storage.disk.read(&name).unwrap();
            let is_snapshot = name.starts_with("snapshot-");
            // Sparsely in headers that are one like the other, in content and in unused room.
            let edge = |at: usize| is_snapshot && (at < 1024 || at + 300 > bytes.len());
            let places = (0..bytes.len()).filter(|at| edge(*at) || at % 37 == 0);
            for at in places {
                let copy = storage.fork();
                copy.disk.damage(&name, &Damage::FlipBit { at: at as u64, bit: at as u8 });
                let verdict = copy.judge(&format!("{name} at {at}, {voters:?}"));
                let harmless = [Verdict::Same, Verdict::OlderSnapshot].contains(&verdict);
                assert!(harmless || !is_snapshot, "{name} at {at}: {verdict:?}");
                verdicts[verdict as usize] += 1;
            }
        }
        let [same, older, limping, refused] = verdicts;
        assert!(same > 500 && older > 1000, "{verdicts:?}");
        let reported = if voters == ALONE { (refused, limping) } else { (limping, refused) };
        assert!(reported.0 > 100 && reported.1 == 0, "{verdicts:?}");
    }
}

#[test]
fn snapshots_lost_moved_and_cut_short_are_missed_or_made_good() {
    let storage = Storage::of(CLUSTER);
    let [older, newest] = <[String; 2]>::try_from(storage.files("snapshot-")).unwrap();
    let damaged = |what: &str, damage: &dyn Fn(&SimDisk)| {
        let copy = storage.fork();
        damage(&copy.disk);
        copy.judge(what)
    };
    assert_eq!(damaged("nothing", &|_| {}), Verdict::Same);
    let zeros = Damage::Zeros { at: 512, bytes: 512 };
    let misplaced = Damage::Misplaced { sector: 1, from: older.clone(), from_sector: 0 };
    let cut = |bytes| Damage::Truncate { bytes };
    let longer = Damage::Extend { bytes: 3, fill: 0 };
    // The length of the footer stands at the end.
    let end = storage.disk.read(&newest).unwrap().len() as u64 - 4;
    let absurd = Damage::Overwrite { at: end, bytes: vec![0xFF; 4] };
    let large = Damage::Overwrite { at: end, bytes: vec![4, 0, 1, 0] };
    for damage in [zeros, misplaced, cut(0), cut(100), cut(512), cut(66_500), longer, absurd, large]
    {
        let spoil = |file: &str| {
            damaged(&format!("{file}: {damage:?}"), &|disk| assert!(disk.damage(file, &damage)))
        };
        assert_eq!(spoil(&newest), Verdict::OlderSnapshot);
        if damage != cut(66_500) {
            let oldest_kept = damage.clone();
            let copy = storage.fork();
            copy.disk.damage(&older, &oldest_kept);
            assert_eq!(copy.judge("the older one"), Verdict::Same);
        }
    }
    // Missing, but nothing says that there was one: the log since the older one is still there.
    assert_eq!(
        damaged("the newest is missing", &|it| assert!(it.take(&newest))),
        Verdict::OlderSnapshot
    );
    assert_eq!(damaged("the older is missing", &|it| assert!(it.take(&older))), Verdict::Same);
    let swap = |disk: &SimDisk| {
        let (one, two) = (disk.read(&older).unwrap(), disk.read(&newest).unwrap());
        disk.put(&older, two);
        disk.put(&newest, one);
    };
    assert_eq!(damaged("swapped", &swap), Verdict::Limping);
    let beyond = "snapshot-00000000000000000002-00000000000000000031";
    let copied = |disk: &SimDisk| assert!(disk.duplicate(&newest, beyond));
    assert_eq!(damaged("a copy that claims more", &copied), Verdict::Same);
    let renamed = |disk: &SimDisk| assert!(disk.rename_at_rest(&newest, beyond));
    assert_eq!(damaged("renamed", &renamed), Verdict::OlderSnapshot);
    let strange = |disk: &SimDisk| assert!(disk.duplicate(&newest, "snapshot-2-20"));
    assert_eq!(damaged("a copy with a strange name", &strange), Verdict::Same);
    let other = Storage::of(CLUSTER);
    let other = Storage { disk: SimDisk::new(9), ..other };
    let _ = other.open().unwrap();
    let foreign = |disk: &SimDisk| {
        // Of a directory that is the same but for its incarnation.
        let identity = other.disk.read("IDENTITY").unwrap();
        assert_ne!(disk.read("IDENTITY").unwrap(), identity);
        disk.put("IDENTITY", identity);
    };
    assert_eq!(damaged("the identity of another directory", &foreign), Verdict::Refused);
}

/// With all snapshots gone a cluster can fill the node up again; a node that is alone says so, and starts
/// only when it is told to, with the damaged files kept.
#[test]
fn without_any_snapshot_a_log_without_a_beginning_is_none() {
    let spoil = |storage: &Storage| {
        for name in storage.files("snapshot-") {
            assert!(storage.disk.damage(&name, &Damage::FlipBit { at: 600, bit: 1 }));
        }
    };
    let cluster = Storage::of(CLUSTER);
    spoil(&cluster);
    let opened = cluster.fork().open().unwrap();
    assert_eq!(
        (opened.restored.base.position.index, opened.restored.entries.len()),
        (LogIndex(0), 0)
    );
    let damage = opened.report.damage.unwrap().to_string();
    assert!(damage.contains("no whole snapshot stands for them"), "{damage}");
    assert_eq!(cluster.judge("both snapshots"), Verdict::Limping);

    let mut alone = Storage::of(ALONE);
    spoil(&alone);
    assert_eq!(alone.judge("both snapshots"), Verdict::Refused);
    let segments = alone.files("segment-");
    alone.config.accept_data_loss = true;
    let opened = alone.open().unwrap();
    assert_eq!(opened.restored.lost, LogPosition::ZERO, "it may lead: there is nobody else");
    assert_eq!(opened.restored.incarnation, Incarnation(1));
    assert_eq!(opened.restored.hard_state, VOTE);
    assert_eq!(alone.files("snapshot-").len(), 2, "kept aside");
    assert!(alone.files("snapshot-").iter().all(|name| name.ends_with(".broken")));
    assert!(segments.iter().all(|name| !alone.disk.names().contains(name)));
}

/// One generation of damaged files is kept.
#[test]
fn what_is_put_aside_makes_room_for_what_is_put_aside_later() {
    let storage = Storage::of(CLUSTER);
    let [older, newest] = <[String; 2]>::try_from(storage.files("snapshot-")).unwrap();
    storage.disk.put("notes.broken", vec![1]);
    for name in [&newest, &older] {
        storage.disk.damage(name, &Damage::FlipBit { at: 0, bit: 0 });
        storage.open().unwrap();
        let aside: Vec<String> =
            storage.disk.names().into_iter().filter(|name| name.ends_with(".broken")).collect();
        assert_eq!(aside, ["notes.broken".to_owned(), format!("{name}.broken")]);
    }
}

fn store(disk: &SimDisk) -> (Log, SnapshotStore) {
    let log = open(disk).unwrap().log;
    let store = log.snapshots().clone();
    (log, store)
}

fn chunk(snapshot: &Snapshot, offset: u64, bytes: Vec<u8>) -> Incoming {
    Incoming::Chunk { snapshot: snapshot.id(), offset, bytes: Bytes::from(bytes) }
}

fn temporary(disk: &SimDisk) -> usize {
    disk.names().iter().filter(|name| name.ends_with(".tmp")).count()
}

fn install(snapshot: &Snapshot) -> Write {
    Write::detached_snapshot(Some(VOTE), snapshot.clone(), Vec::new())
}

#[test]
fn a_snapshot_arrives_in_pieces_and_only_whole() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let (snapshot, content) = (snapshot(20), content(20));
    let held = |incoming| store.store(incoming).unwrap().map(|(_, held)| held);
    assert_eq!(held(chunk(&snapshot, 0, vec![1])), None, "of none that was begun");
    assert_eq!(held(Incoming::Begin(snapshot.clone())), Some(0));
    assert_eq!(held(chunk(&snapshot, 5, vec![1])), Some(0), "it does not follow");
    assert_eq!(held(chunk(&snapshot, 0, vec![1; 66_001])), Some(0), "more than there is");
    assert_eq!(held(chunk(&snapshot, 0, content[..40_000].to_vec())), Some(40_000));
    assert_eq!(held(Incoming::Begin(snapshot.clone())), Some(40_000), "it goes on where it was");
    assert!(store.open(snapshot.id()).unwrap().is_none(), "not yet");
    assert_eq!(held(chunk(&snapshot, 40_000, content[40_000..].to_vec())), Some(66_000));
    assert_eq!(held(chunk(&snapshot, 66_000, Vec::new())), Some(66_000));
    let mut read = Vec::new();
    store.open(snapshot.id()).unwrap().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == content, "complete, and readable before it is installed");
    log.append(&[install(&snapshot)]).unwrap();
    log.sync().unwrap();
    assert_eq!(store.held(), [snapshot.clone()]);
    assert_eq!(temporary(&disk), 0);
    // What is there already is not there twice.
    log.append(&[Write::detached(None, None, vec![command(21, 2, 10)])]).unwrap();
    log.close().unwrap();
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!((restored.snapshot, restored.entries.len()), (Some(snapshot), 1));
}

#[test]
fn a_snapshot_that_arrives_damaged_is_none() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let snapshot = snapshot(10);
    store.store(Incoming::Begin(snapshot.clone())).unwrap();
    let mut wrong = content(10);
    wrong[7] ^= 1;
    let told = store.store(chunk(&snapshot, 0, wrong)).unwrap();
    assert_eq!(told, Some((snapshot.id(), 0)));
    assert_eq!(temporary(&disk), 0);
    let refusal = log.append(&[install(&snapshot)]).unwrap_err();
    assert!(matches!(refusal, WalError::Refused { .. }), "{refusal}");
    assert_eq!(store.held(), []);
}

#[test]
fn a_snapshot_without_content_is_complete_at_once() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let empty = Snapshot { length: 0, digest: xxh3_128(&[]), ..snapshot(10) };
    store.store(Incoming::Begin(empty.clone())).unwrap();
    log.append(&[install(&empty)]).unwrap();
    log.close().unwrap();
    disk.crash();
    assert_eq!(open(&disk).unwrap().restored.snapshot, Some(empty));
}

#[test]
fn what_is_abandoned_or_replaced_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let (_log, store) = store(&disk);
    for index in [10, 20] {
        store.store(Incoming::Begin(snapshot(index))).unwrap();
        assert_eq!(temporary(&disk), 1);
    }
    store.store(Incoming::Abandon(snapshot(10).id())).unwrap();
    assert_eq!(temporary(&disk), 1, "that one is not on its way any more");
    store.store(Incoming::Abandon(snapshot(20).id())).unwrap();
    assert_eq!(temporary(&disk), 0);
    // Complete, and abandoned.
    store.store(Incoming::Begin(snapshot(10))).unwrap();
    store.store(chunk(&snapshot(10), 0, content(10))).unwrap();
    store.store(Incoming::Abandon(snapshot(10).id())).unwrap();
    assert_eq!(temporary(&disk), 0);
    let mut writer = store.create(base(CLUSTER, 1)).unwrap();
    std::io::Write::write_all(&mut writer, &[1; 100_000]).unwrap();
    writer.flush().unwrap();
    assert_eq!(temporary(&disk), 1);
    drop(writer);
    assert_eq!(temporary(&disk), 0);
}

#[test]
fn pieces_are_read_for_peers_until_they_are_found_damaged() {
    let storage = Storage::of(CLUSTER);
    let log = storage.open().unwrap().log;
    let store = log.snapshots();
    let newest = store.held()[1].clone();
    let order =
        |offset, bytes_max| ChunkOrder { to: node(2), snapshot: newest.id(), offset, bytes_max };
    let read = |offset, bytes_max| store.read_chunk(&order(offset, bytes_max)).unwrap();
    let content = content(20);
    assert_eq!(read(0, 1 << 40).unwrap(), content);
    assert_eq!(read(65_000, 700).unwrap(), content[65_000..65_700]);
    assert_eq!(read(65_900, 700).unwrap(), content[65_900..]);
    assert_eq!(read(66_000, 700), None, "behind its end");
    let other = ChunkOrder { snapshot: snapshot(7).id(), ..order(0, 9) };
    assert_eq!(store.read_chunk(&other).unwrap(), None, "not here");
    let reader = store.open(newest.id()).unwrap().unwrap();
    assert!(format!("{reader:?}").contains("0 of 66000 bytes"), "{reader:?}");

    let [_, name] = <[String; 2]>::try_from(storage.files("snapshot-")).unwrap();
    storage.disk.add_fault(FaultRule::new(Fault::Error).on(&[Operation::Read]).after(1));
    let failed = store.read_chunk(&order(0, 9)).unwrap_err();
    assert!(matches!(failed, WalError::Disk { .. }), "{failed}");
    assert_eq!(store.held().len(), 2, "a disk that fails says nothing about what is on it");
    storage.disk.damage(&name, &Damage::FlipBit { at: 1000, bit: 1 });
    assert_eq!(read(65_900, 10).unwrap(), content[65_900..65_910], "in the other chunk");
    assert_eq!(read(0, 10), None);
    assert_eq!(store.held().len(), 1, "it is out of use");
    // The header of the other one.
    let [name, _] = <[String; 2]>::try_from(storage.files("snapshot-")).unwrap();
    storage.disk.damage(&name, &Damage::FlipBit { at: 20, bit: 1 });
    assert!(store.open(store.held()[0].id()).unwrap().is_none());
    assert_eq!(store.held(), []);
}

/// Whatever fails while a snapshot is cut or arrives: the log goes on, and nothing is left behind.
#[test]
fn a_full_disk_gives_a_snapshot_up_and_keeps_the_log() {
    for arriving in [false, true] {
        for room in [0, 1, 512, 1024, 50_000, 66_000, 66_600] {
            let disk = SimDisk::new(1);
            let (mut log, store) = store(&disk);
            log.append(&[Write::detached(Some(VOTE), None, vec![command(1, 2, 10)])]).unwrap();
            log.sync().unwrap();
            disk.set_capacity(Some(disk.used_bytes() + room));
            let outcome = if arriving {
                let begun = store.store(Incoming::Begin(snapshot(20)));
                let mut pieces = [(0, 40_000), (40_000, 66_000)].into_iter();
                begun.and_then(|_| {
                    pieces.try_for_each(|(from, to)| {
                        let bytes = content(20)[from..to].to_vec();
                        store.store(chunk(&snapshot(20), from as u64, bytes)).map(drop)
                    })
                })
            } else {
                store.create(base(CLUSTER, 1)).and_then(|mut writer| {
                    let written = writer.write(&content(20));
                    if written.is_err() {
                        assert!(matches!(writer.write(&[1]), Err(WalError::Poisoned)));
                        assert!(std::io::Write::write(&mut writer, &[1]).is_err());
                        assert!(matches!(writer.finish(), Err(WalError::Poisoned)));
                        return written;
                    }
                    writer.finish().map(drop)
                })
            };
            let error = outcome.expect_err("there is no room");
            assert!(error.is_no_space(), "{room}: {error}");
            assert_eq!((temporary(&disk), store.held().len()), (0, 0), "{room}");
            log.append(&[Write::detached(None, None, vec![command(2, 2, 10)])]).unwrap();
            log.close().unwrap();
            disk.set_capacity(None);
            disk.crash();
            assert_eq!(open(&disk).unwrap().restored.entries.len(), 2);
        }
    }
}

#[test]
fn a_disk_that_fails_ends_a_snapshot_with_its_reason() {
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename] {
        let disk = SimDisk::new(1);
        let (_log, store) = store(&disk);
        let fault = FaultRule::new(Fault::Error).on(&[operation]).files("incomplete-");
        disk.add_fault(fault);
        let cut = store.create(base(CLUSTER, 1)).and_then(|mut writer| {
            writer.write(&[1; 70_000])?;
            writer.finish()
        });
        let error = cut.unwrap_err();
        assert!(matches!(error, WalError::Disk { .. }), "{operation:?}: {error}");
        assert_eq!(store.held(), [], "{operation:?}");
    }
    // If also that fails which tidies up, the next start does it.
    let left = (0..8).filter(|seed| {
        let disk = SimDisk::new(*seed);
        let (_log, store) = store(&disk);
        let twice =
            FaultRule::new(Fault::Error).on(&[Operation::Write, Operation::Remove]).times(2);
        disk.add_fault(twice);
        assert!(store.create(base(CLUSTER, 1)).is_err());
        let left = temporary(&disk);
        disk.restart();
        open(&disk).unwrap();
        assert_eq!(temporary(&disk), 0);
        left > 0
    });
    assert!(left.count() > 0, "a removal that fails may have happened");
}

/// A snapshot is of what was durable, so it has no later term than the vote. One that does shows that an
/// older log was put there, and with it an older vote.
#[test]
fn a_log_that_is_older_than_its_snapshot_is_refused() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, vec![command(1, 2, 10)])]).unwrap();
    log.sync().unwrap();
    let before = disk.fork(1);
    let later = HardState { term: Term(3), voted_for: None };
    log.append(&[Write::detached(Some(later), None, vec![command(2, 3, 10)])]).unwrap();
    log.sync().unwrap();
    let mut base = base(CLUSTER, 2);
    base.position.term = Term(3);
    store.create(base).unwrap().finish().unwrap();
    let name = "snapshot-00000000000000000003-00000000000000000002";
    before.put(name, disk.read(name).unwrap());
    let (names, error) = (before.names(), open(&before).err().unwrap());
    assert!(error.is_safety_refusal() && error.to_string().contains("term 3"), "{error}");
    assert_eq!(before.names(), names);
}

#[test]
fn a_snapshot_comes_first_in_its_batch_or_not_at_all() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    store.store(Incoming::Begin(snapshot(10))).unwrap();
    store.store(chunk(&snapshot(10), 0, content(10))).unwrap();
    let before = Write::detached(Some(VOTE), None, vec![command(1, 2, 10)]);
    let refusal = log.append(&[before, install(&snapshot(10))]).unwrap_err();
    assert!(refusal.to_string().contains("in the middle of a batch"), "{refusal}");
}

#[test]
fn two_snapshots_are_kept() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, Vec::new())]).unwrap();
    for index in 1..=5 {
        log.append(&[Write::detached(None, None, vec![command(index, 2, 10)])]).unwrap();
        log.sync().unwrap();
        let mut writer = store.create(base(CLUSTER, index)).unwrap();
        writer.write(&[index as u8]).unwrap();
        writer.finish().unwrap();
        let held: Vec<u64> = store.held().iter().map(|held| held.index().0).collect();
        assert_eq!(held, [index - 1, index][usize::from(index == 1)..]);
    }
    let snapshots =
        |disk: &SimDisk| disk.names().iter().filter(|name| name.starts_with("snapshot-")).count();
    assert_eq!(snapshots(&disk), 2);
    // The names of those before may come back: the next start removes them.
    disk.restart();
    disk.duplicate(
        "snapshot-00000000000000000002-00000000000000000004",
        "snapshot-00000000000000000002-00000000000000000003",
    );
    let opened = open(&disk).unwrap();
    assert_eq!((opened.report.snapshots_damaged, snapshots(&disk)), (1, 3), "a copy is no other");
}

/// After a sync of the directory that failed, the system may go on showing a name that it never wrote. Two
/// snapshots with such names: before the first segment is removed for them, one is written again.
#[test]
fn the_log_is_not_removed_for_snapshots_that_only_memory_holds() {
    let mut forgotten = 0;
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let entries = |log: &mut Log, range: std::ops::RangeInclusive<u64>| {
            for index in range {
                log.append(&[Write::detached(None, None, vec![command(index, 2, 900)])]).unwrap();
                log.sync().unwrap();
            }
        };
        for (index, range) in [(10, 1..=15), (20, 16..=25)] {
            let mut log = open(&disk).unwrap().log;
            log.append(&[Write::detached(Some(VOTE), None, Vec::new())]).unwrap();
            entries(&mut log, range);
            let mut writer = log.snapshots().create(base(CLUSTER, index)).unwrap();
            writer.write(&content(index)).unwrap();
            let failing = FaultRule::new(Fault::Error).on(&[Operation::SyncDirectory]);
            disk.add_fault(failing);
            assert!(matches!(writer.finish(), Err(WalError::Disk { .. })));
            disk.restart();
        }
        let mut log = open(&disk).unwrap().log;
        assert_eq!(log.snapshots().held(), [snapshot(10), snapshot(20)], "seed {seed}");
        let cut = disk.after_power_cut(seed, |_| true);
        let is_snapshot = |name: &&String| name.starts_with("snapshot-");
        forgotten += usize::from(cut.names().iter().filter(is_snapshot).count() == 0);
        log.compact(&base(CLUSTER, 20)).unwrap();
        disk.crash();
        let opened = open(&disk).unwrap();
        assert!(opened.report.damage.is_none() && !opened.report.limping, "seed {seed}");
        let base = opened.restored.base.position.index.0;
        assert_eq!(base + opened.restored.entries.len() as u64, 25, "seed {seed}");
    }
    assert!(forgotten > 1, "{forgotten}");
}

/// What makes room on a full disk needs none.
#[test]
fn a_compaction_makes_room_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, Vec::new())]).unwrap();
    let append = |log: &mut Log, index| {
        let write = Write::detached(None, None, vec![command(index, 2, 900)]);
        log.append(&[write]).and_then(|()| log.sync())
    };
    (1..=40).for_each(|index| append(&mut log, index).unwrap());
    for index in [20, 30] {
        store.create(base(CLUSTER, index)).unwrap().finish().unwrap();
    }
    disk.set_capacity(Some(disk.used_bytes()));
    let full = (41..).find(|index| append(&mut log, *index).is_err()).unwrap();
    // Not even a vote finds room any more.
    let mut term = 2;
    let vote = |term| HardState { term: Term(term), voted_for: None };
    while log.append(&[Write::detached(Some(vote(term + 1)), None, Vec::new())]).is_ok() {
        term += 1;
    }
    let names = disk.names().len();
    log.compact(&base(CLUSTER, 30)).unwrap();
    assert!(disk.names().len() + 1 < names);
    append(&mut log, full).unwrap();
    log.close().unwrap();
    disk.set_capacity(None);
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!(restored.hard_state, vote(term));
    assert_eq!(restored.base.position.index.0 + restored.entries.len() as u64, full);
}

/// A leader may send what this node has cut itself.
#[test]
fn a_snapshot_that_is_held_already_need_not_arrive() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    log.append(&[Write::detached(Some(VOTE), None, vec![command(1, 2, 10)])]).unwrap();
    log.sync().unwrap();
    let held = store.create(base(CLUSTER, 1)).unwrap().finish().unwrap();
    log.append(&[install(&held)]).unwrap();
    log.close().unwrap();
    disk.crash();
    let restored = open(&disk).unwrap().restored;
    assert_eq!((restored.base, restored.snapshot), (held.base.clone(), Some(held)));
}

/// The members are those of the snapshot that took the place of the log, also when what stands behind it
/// is damaged.
#[test]
fn who_decides_alone_is_told_by_the_snapshot_that_was_installed() {
    for (members_then, verdict) in [(ALONE, Verdict::Refused), (CLUSTER, Verdict::Limping)] {
        let disk = SimDisk::new(1);
        let (mut log, store) = store(&disk);
        let snapshot = Snapshot { base: base(members_then, 20), ..snapshot(20) };
        store.store(Incoming::Begin(snapshot.clone())).unwrap();
        store.store(chunk(&snapshot, 0, content(20))).unwrap();
        log.append(&[install(&snapshot)]).unwrap();
        for index in 21..=23 {
            log.append(&[Write::detached(None, None, vec![command(index, 2, 900)])]).unwrap();
            log.sync().unwrap();
        }
        log.close().unwrap();
        disk.restart();
        let last = disk.names().into_iter().filter(|name| name.starts_with("segment-")).next_back();
        // Behind the record of the snapshot, in the first entry.
        assert!(disk.damage(&last.unwrap(), &Damage::FlipBit { at: 2 * 4096 + 512 + 200, bit: 1 }));
        match open(&disk) {
            Ok(opened) => {
                assert!(opened.report.limping && verdict == Verdict::Limping);
                assert_eq!(opened.restored.lost, LogPosition::new(Term(2), LogIndex(23)));
            }
            Err(error) => assert!(error.is_safety_refusal() && verdict == Verdict::Refused),
        }
    }
}

/// A segment that stands on entries that were cut off later cannot be where the log begins, so the one
/// before it stays as long as the older snapshot may be needed.
#[test]
fn the_older_snapshot_finds_its_log_also_behind_a_truncation() {
    let disk = SimDisk::new(1);
    let (mut log, store) = store(&disk);
    let segments = || disk.names().iter().filter(|name| name.starts_with("segment-")).count();
    let append = |log: &mut Log, vote, cut, entry: Entry| {
        log.append(&[Write::detached(vote, cut, vec![entry])]).unwrap();
        log.sync().unwrap();
    };
    append(&mut log, Some(VOTE), None, command(1, 2, 900));
    let mut last = 1;
    while segments() == 1 {
        last += 1;
        append(&mut log, None, None, command(last, 2, 900));
    }
    // The second segment stands on the entry before the last; from the one before that on, the log is
    // another leader's.
    let vote = HardState { term: Term(3), voted_for: None };
    append(&mut log, Some(vote), Some(LogIndex(last - 2)), command(last - 2, 3, 10));
    for index in last - 1..=last {
        append(&mut log, None, None, command(index, 3, 10));
        let position = LogPosition::new(Term(3), LogIndex(index));
        let base = LogBase { position, ..base(CLUSTER, index) };
        store.create(base.clone()).unwrap().finish().unwrap();
        log.compact(&base).unwrap();
    }
    let newest = format!("snapshot-{:020}-{last:020}", 3);
    while segments() < 4 {
        last += 1;
        append(&mut log, None, None, command(last, 3, 900));
    }
    log.close().unwrap();
    disk.restart();
    assert!(disk.damage(&newest, &Damage::FlipBit { at: 0, bit: 1 }));
    let OpenedLog { restored, report, .. } = open(&disk).unwrap();
    assert!(!report.limping && report.snapshots_damaged == 1, "{report:?}");
    assert_eq!(restored.entries.last().map(|entry| entry.index), Some(LogIndex(last)));
}
