//! Bytes, whoever chose them, as a directory: one that a log wrote, and what was done to it since.

use std::sync::{Arc, LazyLock};

use raft_core::{HardState, Term, Write};
use raft_wal::sim::{Damage, SimDisk};
use raft_wal::{Log, WalConfig};

use super::forge::{Batch, Identity, Piece, Segment, Snapshot, relink, u64_at};
use crate::support::model::Model;
use crate::support::{Random, command, config, members, node, open};

/// A directory to be opened.
pub(crate) struct Directory {
    pub(crate) disk: SimDisk,
    pub(crate) config: WalConfig,
    /// Checksums were computed anew: then it may say anything.
    pub(crate) forged: bool,
}

/// Choices, one after the other, from bytes; zeros when they run out.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn short(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// Below `bound`; 0 if that is 0.
    fn below(&mut self, bound: usize) -> usize {
        let number = if bound > 256 { self.short() } else { usize::from(self.byte()) };
        // Whatever the bound, every place can be reached.
        let number = if bound > 1 << 16 { number * (bound >> 16) + number } else { number };
        number % bound.max(1)
    }

    /// One that code could fall over, often close to what was there.
    fn number(&mut self, before: u64) -> u64 {
        match self.byte() % 14 {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => u64::MAX - 1,
            4 => 1 << 63,
            5 => (1 << 63) + 1,
            6 => u64::from(u32::MAX),
            7 => before.wrapping_add(1),
            8 => before.wrapping_sub(1),
            9 => before ^ 1 << (self.byte() % 64),
            10 => u64::from(self.byte()),
            11 => before.wrapping_add(512),
            12 => before.wrapping_mul(2),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }
}

/// At most so many things are done to one directory.
const CHANGES_MAX: usize = 8;

/// What these bytes say.
pub(crate) fn interpret(input: &[u8]) -> Directory {
    let mut choices = Choices(input);
    let base = choices.below(BASES.len());
    let accept_data_loss = choices.flag();
    let directory = Directory {
        disk: BASES[base].fork(1),
        config: WalConfig { accept_data_loss, ..config() },
        forged: false,
    };
    let mut workshop = Workshop { directory, choices };
    for _ in 0..CHANGES_MAX {
        if workshop.choices.0.is_empty() {
            break;
        }
        workshop.change();
    }
    workshop.directory
}

struct Workshop<'a> {
    directory: Directory,
    choices: Choices<'a>,
}

impl Workshop<'_> {
    fn change(&mut self) {
        match self.choices.byte() % 16 {
            0 => self.flip(),
            1 => self.overwrite(),
            2 => self.change_length(),
            3 => self.swap(),
            4 => self.move_or_copy(),
            5 => self.remove(),
            6 => self.put_anything(),
            7 => self.take_over(),
            8 => self.forge_identity(),
            9 => self.forge_snapshot(),
            10 | 11 => self.rearrange(),
            _ => self.forge_segment(),
        }
    }

    fn disk(&self) -> &SimDisk {
        &self.directory.disk
    }

    /// One of the files that begin so.
    fn some_file(&mut self, prefix: &str) -> Option<(String, Vec<u8>)> {
        let mut names = self.disk().names();
        names.retain(|name| name.starts_with(prefix));
        let name = names.get(self.choices.below(names.len()))?.clone();
        let content = self.disk().read(&name)?;
        Some((name, content))
    }

    /// Where something happens in a file: seldom where nothing was written.
    fn place(&mut self, content: &[u8]) -> usize {
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let bound = if self.choices.byte().is_multiple_of(8) { content.len() } else { used };
        self.choices.below(bound)
    }

    fn flip(&mut self) {
        let Some((name, content)) = self.some_file("") else { return };
        let (at, bit) = (self.place(&content) as u64, self.choices.byte());
        self.disk().damage(&name, &Damage::FlipBit { at, bit });
    }

    /// Zeros, garbage, or a range of some file, here or elsewhere.
    fn overwrite(&mut self) {
        let Some((name, content)) = self.some_file("") else { return };
        let mut at = self.place(&content);
        let mut bytes = 1 + self.choices.below(2048);
        if self.choices.flag() {
            at = at / 512 * 512;
            bytes = bytes.next_multiple_of(512);
        }
        let new = match self.choices.byte() % 3 {
            0 => vec![0; bytes],
            1 => {
                let mut random = Random(self.choices.number(0));
                (0..bytes).map(|_| random.next() as u8).collect()
            }
            _ => {
                let Some((_, other)) = self.some_file("") else { return };
                let from = self.place(&other) / 512 * 512;
                other[from..(from + bytes).min(other.len())].to_vec()
            }
        };
        self.disk().damage(&name, &Damage::Overwrite { at: at as u64, bytes: new });
    }

    fn change_length(&mut self) {
        let Some((name, content)) = self.some_file("") else { return };
        let damage = match self.choices.byte() % 3 {
            0 => Damage::Extend {
                bytes: self.choices.number(0) % 70_000,
                fill: self.choices.byte() % 2,
            },
            1 => Damage::Truncate { bytes: self.place(&content) as u64 },
            _ => Damage::Truncate { bytes: self.choices.below(content.len()) as u64 / 512 * 512 },
        };
        self.disk().damage(&name, &damage);
    }

    fn swap(&mut self) {
        let (one, other) = (self.some_file(""), self.some_file(""));
        let (Some((one, content)), Some((other, other_content))) = (one, other) else { return };
        self.disk().put(&one, other_content);
        self.disk().put(&other, content);
    }

    fn move_or_copy(&mut self) {
        let Some((from, _)) = self.some_file("") else { return };
        let to = self.some_name();
        if self.choices.flag() {
            self.disk().rename_at_rest(&from, &to);
        } else {
            self.disk().duplicate(&from, &to);
        }
    }

    fn remove(&mut self) {
        if let Some((name, _)) = self.some_file("") {
            self.disk().take(&name);
        }
    }

    fn put_anything(&mut self) {
        let name = self.some_name();
        let bytes = self.choices.below(9000);
        let mut random = Random(self.choices.number(0));
        let mut content: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
        if self.choices.flag() {
            let magic: &[u8] = match self.choices.byte() % 4 {
                0 => b"RAFTWALS\x02\0\0\0",
                1 => b"RAFTWALI\x02\0\0\0",
                2 => b"RAFTSNAP\x02\0\0\0",
                _ => b"BTCH",
            };
            content.splice(..magic.len().min(bytes), magic.iter().copied());
        }
        self.disk().put(&name, content);
    }

    /// A file from the life of another directory, or from another time of this one.
    fn take_over(&mut self) {
        let other = &BASES[self.choices.below(BASES.len())];
        let names = other.names();
        let Some(name) = names.get(self.choices.below(names.len())) else { return };
        if let Some(content) = other.read(name) {
            let to = if self.choices.flag() { name.clone() } else { self.some_name() };
            self.disk().put(&to, content);
        }
    }

    /// Often one that means something.
    fn some_name(&mut self) -> String {
        let (kind, one, two) =
            (self.choices.byte(), self.choices.number(2), self.choices.number(2));
        match kind % 12 {
            0 => "IDENTITY".to_owned(),
            1 | 2 => segment_name(one, two),
            3 | 4 => snapshot_name((one, two)),
            5 => "IDENTITY.tmp".to_owned(),
            6 => format!("spare-{one}.tmp"),
            7 => format!("incomplete-snapshot-{one}.tmp"),
            8 => format!("{}.broken", segment_name(one, two)),
            9 => format!("{}.broken", snapshot_name((one, two))),
            10 => format!("segment-{one}-{two}"),
            _ => ["LOCK", "notes", "segment-", "snapshot-1", "snapshot-x.broken", ".tmp", "x.tmp"]
                [one as usize % 7]
                .to_owned(),
        }
    }

    /// Puts something else into a word of a piece.
    fn lie(&mut self, piece: &mut Piece) {
        let words = piece.bytes.len() / 4;
        let at = 4 * self.choices.below(words);
        let before = u64_at(&piece.bytes, at).unwrap_or_default();
        let new = self.choices.number(before).to_le_bytes();
        // Most numbers are eight bytes long and lie at a multiple of eight.
        let wide = at.is_multiple_of(8) && !self.choices.byte().is_multiple_of(4);
        piece.lie(at, &new[..if wide { 8 } else { 4 }]);
    }

    fn forge_identity(&mut self) {
        self.directory.forged = true;
        let Some((name, content)) = self.some_file("IDENTITY") else { return };
        let Some(mut identity) = Identity::parse(&content) else { return };
        let mut lied = identity.copies[0].clone();
        self.lie(&mut lied);
        match self.choices.byte() % 3 {
            0 => identity.copies = [lied.clone(), lied],
            copy => identity.copies[usize::from(copy) - 1] = lied,
        }
        self.disk().put(&name, identity.encode());
    }

    fn forge_snapshot(&mut self) {
        self.directory.forged = true;
        let Some((name, content)) = self.some_file("snapshot-") else { return };
        let Some(mut snapshot) = Snapshot::parse(&content) else { return };
        match self.choices.byte() % 4 {
            0 => self.lie(&mut snapshot.header),
            1 => {
                let bytes = self.choices.below(200_000);
                snapshot.content.resize(bytes, 7);
                snapshot.digest_follows = self.choices.flag();
            }
            _ => self.lie(&mut snapshot.footer),
        }
        if self.choices.flag() {
            self.disk().take(&name);
            self.disk().put(&snapshot_name(snapshot.position()), snapshot.encode());
        } else {
            self.disk().put(&name, snapshot.encode());
        }
    }

    fn segments(&self) -> Vec<(String, Segment)> {
        let mut names = self.disk().names();
        names.retain(|name| name.starts_with("segment-"));
        let parse = |name: String| Some((name.clone(), Segment::parse(&self.disk().read(&name)?)?));
        let mut segments: Vec<_> = names.into_iter().filter_map(parse).collect();
        segments.sort_by_key(|(_, segment)| segment.id());
        segments
    }

    /// Puts the segments back: as they are, or so that they follow each other, with their names.
    fn put_back(&mut self, segments: Vec<(String, Segment)>) {
        let how = self.choices.byte();
        let (names, mut segments): (Vec<_>, Vec<_>) = segments.into_iter().unzip();
        if how & 1 == 0 {
            relink(&mut segments);
        }
        for name in &names {
            self.disk().take(name);
        }
        for (name, segment) in names.iter().zip(&segments) {
            let own = segment_name(segment.base(), segment.id());
            self.disk().put(if how & 2 == 0 { &own } else { name }, segment.encode());
        }
    }

    /// One field, anywhere in a segment.
    fn forge_segment(&mut self) {
        self.directory.forged = true;
        let mut segments = self.segments();
        if segments.is_empty() {
            return;
        }
        // The last one decides most.
        let last = segments.len() - 1;
        let chosen = if self.choices.flag() { last } else { self.choices.below(segments.len()) };
        let segment = &mut segments[chosen].1;
        let batches = segment.batches.len();
        let batch = segment.batches.get_mut(self.choices.below(batches));
        match (self.choices.byte() % 6, batch) {
            (0 | 1, _) | (_, None) => self.lie(&mut segment.header),
            (2, Some(batch)) => self.lie(&mut batch.header),
            (3, Some(batch)) => self.lie(&mut batch.trailer),
            (what, Some(batch)) => {
                let records = batch.records.len();
                let Some(record) = batch.records.get_mut(self.choices.below(records)) else {
                    return;
                };
                if what == 4 {
                    // The group is the caller's: nothing is said about it here.
                    let mut header = record.header.clone();
                    self.lie(&mut header);
                    let group = record.header.bytes[8..16].to_vec();
                    header.lie(8, &group);
                    record.header = header;
                } else {
                    let mut payload = Piece::of(&record.payload);
                    self.lie(&mut payload);
                    record.payload = payload.lied();
                }
            }
        }
        self.put_back(segments);
    }

    /// Batches and records at other places than they should be, a payload of another length.
    fn rearrange(&mut self) {
        self.directory.forged = true;
        let mut segments = self.segments();
        let (from, to) = (self.choices.below(segments.len()), self.choices.below(segments.len()));
        let Some((_, source)) = segments.get(from) else { return };
        let batch = source.batches.get(self.choices.below(source.batches.len())).cloned();
        let batches = &mut segments[to].1.batches;
        let place = self.choices.below(batches.len() + 1);
        let other = batches.get_mut(place);
        match (self.choices.byte() % 6, batch, other) {
            (0, Some(batch), _) => batches.insert(place, batch),
            (1, _, Some(_)) => drop(batches.remove(place)),
            (2, Some(batch), Some(other)) => *other = batch,
            (3, Some(batch), Some(other)) => other.records.extend(batch.records),
            (4, _, Some(Batch { records, .. })) if !records.is_empty() => {
                let record = self.choices.below(records.len());
                records.remove(record);
            }
            (_, _, Some(Batch { records, .. })) if !records.is_empty() => {
                let record = self.choices.below(records.len());
                let bytes = self.choices.below(4000);
                records[record].payload.resize(bytes, 0);
            }
            _ => {}
        }
        self.put_back(segments);
    }
}

fn segment_name(base: u64, id: u64) -> String {
    format!("segment-{base:020}-{id:020}")
}

fn snapshot_name((term, index): (u64, u64)) -> String {
    format!("snapshot-{term:020}-{index:020}")
}

/// Directories as logs left them; the first one is empty.
pub(crate) static BASES: LazyLock<Vec<SimDisk>> = LazyLock::new(|| {
    let mut bases = vec![SimDisk::new(1), fresh(), plain(40, true), plain(6, false)];
    // Whole storages, each at two times of its life.
    for seed in 0..6 {
        bases.extend(storage(seed));
    }
    bases.extend([repaired(), alone()]);
    bases
});

/// Named, but the log never came to be.
fn fresh() -> SimDisk {
    let disk = SimDisk::new(2);
    open(&disk).unwrap();
    let identity = Identity::parse(&disk.read("IDENTITY").unwrap()).unwrap();
    let mut copy = identity.copies[0].clone();
    copy.bytes[40] = 1;
    let fresh = SimDisk::new(2);
    fresh.put("IDENTITY", Identity { copies: [copy.clone(), copy] }.encode());
    fresh
}

fn plain(entries: u64, clean_shutdown: bool) -> SimDisk {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap().log;
    let vote = HardState { term: Term(2), voted_for: Some(node(3)) };
    log.append(&[Write::detached(Some(vote), None, Vec::new())]).unwrap();
    for index in 1..=entries {
        log.append(&[Write::detached(None, None, vec![command(index, 2, 700)])]).unwrap();
        log.sync().unwrap();
    }
    if clean_shutdown {
        log.close().unwrap();
    }
    disk.restart();
    disk
}

fn storage(seed: u64) -> [SimDisk; 2] {
    let disk = SimDisk::new(10 + seed);
    let (mut random, mut model) = (Random(seed), Model::new());
    let mut log = open(&disk).unwrap().log;
    let mut live = |acts| {
        for _ in 0..acts {
            model.act(&mut log, &mut random).unwrap();
        }
        let then = disk.fork(seed);
        then.restart();
        then
    };
    [live(20), live(15)]
}

/// It was damaged once, and knows what it lost.
fn repaired() -> SimDisk {
    let disk = plain(40, true);
    let names = disk.names();
    let first = names.iter().find(|name| name.starts_with("segment-")).unwrap();
    assert!(disk.damage(first, &Damage::FlipBit { at: 10_000, bit: 0 }));
    assert!(open(&disk).unwrap().report.limping);
    disk.restart();
    disk
}

/// The only voter.
fn alone() -> SimDisk {
    let disk = SimDisk::new(4);
    let config = WalConfig { membership: members(&[1]), ..config() };
    let mut log = Log::open(Arc::new(disk.for_this_life()), &config).unwrap().log;
    for index in 1..=20 {
        log.append(&[Write::detached(None, None, vec![command(index, 0, 900)])]).unwrap();
    }
    log.close().unwrap();
    disk.restart();
    disk
}
