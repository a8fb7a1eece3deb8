//! The bytes of a directory of the present format version, pinned: a program must read what the last release
//! wrote. `format/v2.txt` never changes; what is to look different on disk is a new version, with a file of its
//! own, and the file of the version before it goes on being read.
//!
//! `PRINT_FORMAT=1 cargo test -p raft-wal --test format -- --nocapture` prints what this program writes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;

use raft_core::{
    Entry, Incarnation, LogBase, LogIndex, LogPosition, Membership, Payload, Restored, Snapshot,
    Term, Timestamp, Write,
};
use raft_wal::FORMAT_VERSION;
use raft_wal::sim::SimDisk;
use support::history::{install, receive, vote};
use support::snapshots::{base, content, snapshot};
use support::{command, node, open};
use xxhash_rust::xxh3::xxh3_128;

const VERSION_2: &str = include_str!("format/v2.txt");

const ROW: usize = 32;

fn entry(index: u64, payload: Payload) -> Entry {
    Entry { index: LogIndex(index), term: Term(1), timestamp: Timestamp(1000 + index), payload }
}

fn learner_joins() -> Membership {
    Membership::from_parts(vec![node(1), node(2), node(3)], Vec::new(), vec![node(4)]).unwrap()
}

/// Votes, entries of each kind, a truncation, a seal, a snapshot, a compaction, a mark.
fn grown() -> SimDisk {
    let disk = SimDisk::new(2);
    let mut log = open(&disk).unwrap().log;
    let first = vec![
        entry(1, Payload::Noop),
        entry(2, Payload::Command("ten to alice".into())),
        entry(3, Payload::Membership(learner_joins())),
        entry(4, Payload::Command("lost".into())),
    ];
    let cut = Some(LogIndex(4));
    let mut write = |write: Write| {
        log.append(&[write]).unwrap();
        log.sync().unwrap();
    };
    write(Write::detached(Some(vote(1)), None, first));
    write(Write::detached(Some(vote(2)), cut, vec![command(4, 2, 5), command(5, 2, 0)]));
    // Two that do not fit into one segment.
    write(Write::detached(None, None, vec![command(6, 2, 1_500)]));
    write(Write::detached(None, None, vec![command(7, 2, 3_000)]));
    let base = base(&[1, 2, 3], 5);
    let base = LogBase { membership: learner_joins(), membership_index: LogIndex(3), ..base };
    let mut writer = log.snapshots().create(base.clone()).unwrap();
    writer.write(&content(5)).unwrap();
    writer.finish().unwrap();
    log.compact(&base).unwrap();
    log.close().unwrap();
    disk.restart();
    disk
}

/// A log that begins with a snapshot that another node has sent, and holds no mark.
fn installed() -> SimDisk {
    let disk = SimDisk::new(3);
    let mut log = open(&disk).unwrap().log;
    log.append(&[Write::detached(Some(vote(1)), None, vec![entry(1, Payload::Noop)])]).unwrap();
    receive(log.snapshots(), &snapshot(7));
    install(&mut log, &snapshot(7));
    log.append(&[Write::detached(None, None, vec![command(8, 2, 5)])]).unwrap();
    log.sync().unwrap();
    disk.restart();
    disk
}

/// Names, lengths, and the rows that are not zero.
fn told(disk: &SimDisk) -> String {
    let mut text = String::new();
    for name in disk.names() {
        let bytes = disk.read(&name).unwrap();
        writeln!(text, "{name} {}", bytes.len()).unwrap();
        for (n, row) in bytes.chunks(ROW).enumerate().filter(|(_, row)| row.iter().any(|b| *b > 0))
        {
            let hex: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{:6} {hex}", n * ROW).unwrap();
        }
    }
    text
}

fn put_back(text: &str) -> SimDisk {
    let mut files: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        let (left, right) = line.trim().split_once(' ').unwrap();
        if let Ok(offset) = left.parse::<usize>() {
            let byte = |at: usize| u8::from_str_radix(&right[at..at + 2], 16).unwrap();
            let row: Vec<u8> = (0..right.len()).step_by(2).map(byte).collect();
            files.get_mut(name).unwrap()[offset..offset + row.len()].copy_from_slice(&row);
        } else {
            name = left;
            files.insert(name, vec![0; right.parse().unwrap()]);
        }
    }
    let disk = SimDisk::new(1);
    files.into_iter().for_each(|(name, bytes)| disk.put(name, bytes));
    disk
}

fn all_told() -> String {
    format!("grown\n{}installed\n{}", told(&grown()), told(&installed()))
}

/// The directory with this name in the file.
fn pinned(name: &str) -> SimDisk {
    let (grown, installed) = VERSION_2.split_once("installed\n").unwrap();
    put_back(if name == "installed" { installed } else { grown.strip_prefix("grown\n").unwrap() })
}

#[test]
fn what_this_program_writes_is_version_2_byte_for_byte() {
    assert_eq!(FORMAT_VERSION, 2, "a new version needs a file of its own");
    let told = all_told();
    if std::env::var_os("PRINT_FORMAT").is_some() {
        println!("{told}");
    }
    let first = told.lines().zip(VERSION_2.lines()).find(|(now, pinned)| now != pinned);
    assert!(told == VERSION_2, "not as in format/v2.txt; the first line that differs: {first:?}");
}

#[test]
fn directories_of_version_2_are_read() {
    let base_of_7 = base(&[1, 2, 3], 7);
    let base = LogBase {
        membership: learner_joins(),
        membership_index: LogIndex(3),
        ..base(&[1, 2, 3], 5)
    };
    let digest = xxh3_128(&content(5));
    let cut = Snapshot { base: base.clone(), length: 300, digest };
    let restored = |base, entries, snapshot| Restored {
        hard_state: vote(2),
        incarnation: Incarnation(0),
        lost: LogPosition::ZERO,
        base,
        entries,
        snapshot: Some(snapshot),
    };
    let entries = vec![command(6, 2, 1_500), command(7, 2, 3_000)];
    let grown = (restored(base, entries, cut), content(5), 2);
    let installed = (restored(base_of_7, vec![command(8, 2, 5)], snapshot(7)), content(7), 1);
    for (name, (restored, content, segments)) in [("grown", grown), ("installed", installed)] {
        let disk = pinned(name);
        let opened = open(&disk).unwrap();
        assert_eq!(opened.restored, restored, "{name}");
        assert_eq!((opened.report.damage, opened.report.limping), (None, false));
        assert_eq!(opened.report.segments, segments, "{name}");
        let snapshot = restored.snapshot.unwrap();
        let mut reader = opened.log.snapshots().open(snapshot.id()).unwrap().unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, content, "{name}");
    }
}
