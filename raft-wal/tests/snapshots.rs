//! Snapshots beside a log: damage to any file of a directory that has some, in a cluster and alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::io::Read as _;
use std::sync::Arc;

use raft_core::{ChunkOrder, Entry, Incarnation, LogIndex, LogPosition, Term, Write};
use raft_wal::sim::{Damage, Fault, FaultRule, Operation, SimDisk};
use raft_wal::{Log, OpenError, OpenedLog, WalConfig, WalError};
use support::life::inspector;
use support::snapshots::{ALONE, CLUSTER, VOTE, base, content, snapshot};
use support::{command, config, members, node};

const LAST: u64 = 30;

/// A log of 30 entries, of which a snapshot goes up to 10 and another up to 20.
struct Storage {
    disk: SimDisk,
    config: WalConfig,
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

/// All checksums are right, but the content is not what stands before the footer.
#[test]
fn a_footer_at_another_place_than_behind_its_content_is_none() {
    let storage = Storage::of(CLUSTER);
    let newest = storage.files("snapshot-").pop().unwrap();
    let whole = storage.disk.read(&newest).unwrap();
    let footer = whole.windows(8).rposition(|it| it == b"SNAPDONE").unwrap();
    let [before, behind] = [&whole[..footer], &whole[footer..]];
    for between in [4, 512, 100_000] {
        let fork = storage.fork();
        fork.disk.put(&newest, [before, &vec![0; between], behind].concat());
        let described = inspector(&fork.disk).snapshots().unwrap().remove(0);
        assert_eq!(described.content.unwrap_err(), "its length changed");
        assert!(matches!(fork.judge("a footer that was moved"), Verdict::OlderSnapshot));
    }
}
