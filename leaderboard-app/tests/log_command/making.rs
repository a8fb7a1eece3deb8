//! Logs that the real log has made, and the program that looks into them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use leaderboard_app::command::{AddVote, Command as Replicated};
use leaderboard_app::idempotency::{Idempotency, IdempotencyKey};
use leaderboard_app::types::{BoardId, Player, Score};
use raft_core::{
    Entry, HardState, LogBase, LogIndex, LogPosition, Membership, NodeId, Payload, Term, Timestamp,
    Write,
};
use raft_wal::{FileDisk, Log, SEGMENT_BYTES_MIN, WalConfig};
use serde_json::Value;

/// Both copies of the header of a segment.
pub(crate) const HEADERS: usize = 2 * 4096;
pub(crate) const SECTOR: usize = 512;

pub(crate) fn leaderboard(words: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leaderboard"));
    command.args(words).arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Whoever runs the tests may have a configuration of their own.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEADERBOARD_") {
            command.env_remove(name);
        }
    }
    command
}

/// What a command told, and how it ended.
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Told {
    pub(crate) fn has(&self, part: &str) {
        assert!(unfolded(&self.out).contains(&unfolded(part)), "{part:?} is not in:\n{}", self.out);
    }
}

/// Paragraphs are folded, and columns are wide.
pub(crate) fn unfolded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn run(words: &[&str], dir: &Path) -> Told {
    let Output { status, stdout, stderr } = leaderboard(words, dir).output().unwrap();
    let told = Told {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    };
    assert!(!told.err.contains("panicked"), "{}", told.err);
    told
}

pub(crate) fn dump(dir: &Path) -> Told {
    run(&["log", "dump"], dir)
}

pub(crate) fn verify(dir: &Path) -> Told {
    run(&["log", "verify"], dir)
}

/// The verification for programs.
pub(crate) fn verdict(dir: &Path) -> Value {
    let told = run(&["log", "verify", "-o", "json"], dir);
    let report: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(report["exit_code"], told.code.unwrap());
    report
}

pub(crate) fn members(ids: &[u64]) -> Membership {
    Membership::new(ids.iter().filter_map(|&id| NodeId::new(id))).unwrap()
}

pub(crate) fn open(dir: &Path, ids: &[u64]) -> Log {
    let config = WalConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        ..WalConfig::new(dir, "test board", NodeId::new(1).unwrap(), members(ids))
    };
    Log::open(Arc::new(FileDisk::open(dir).unwrap()), &config).unwrap().log
}

pub(crate) fn entry(index: u64, term: u64, payload: Payload) -> Entry {
    let timestamp = Timestamp(1_732_694_825_000 + index);
    Entry { index: LogIndex(index), term: Term(term), timestamp, payload }
}

pub(crate) fn add_vote(player: &str, delta: i64, key: Option<&str>) -> Payload {
    let vote = AddVote {
        board: BoardId::default(),
        player: Player::new(player).unwrap(),
        delta: Score::new(delta).unwrap(),
        idempotency: key
            .map(|key| Idempotency { key: IdempotencyKey::new(key).unwrap(), fingerprint: 7 }),
    };
    Payload::Command(Replicated::AddVote(vote).encode())
}

pub(crate) fn append(log: &mut Log, vote: Option<u64>, cut: Option<u64>, entries: Vec<Entry>) {
    let voted_for = NodeId::new(1);
    let vote = vote.map(|term| HardState { term: Term(term), voted_for });
    log.append(&[Write::detached(vote, cut.map(LogIndex), entries)]).unwrap();
    log.sync().unwrap();
}

/// Makes a log of known records, and closes it.
pub(crate) fn known_log(dir: &Path, ids: &[u64]) {
    let mut log = open(dir, ids);
    append(&mut log, Some(1), None, vec![entry(1, 1, Payload::Noop)]);
    let key = Some("0123456789abcdef0123456789abcdef");
    append(&mut log, None, None, vec![entry(2, 1, add_vote("alice", 10, key))]);
    append(&mut log, None, None, vec![entry(3, 1, add_vote("zoë \u{202e}x", -2, None))]);
    let hostile = Bytes::from_static(b"\x1b[2J\x07 a command of nobody");
    append(&mut log, Some(2), Some(3), vec![entry(3, 2, Payload::Command(hostile))]);
    append(&mut log, None, None, vec![entry(4, 2, Payload::Membership(members(&[1, 2, 3, 4])))]);
    log.close().unwrap();
}

/// A temporary directory, and one in it for a log.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("n1");
    fs::create_dir(&dir).unwrap();
    (parent, dir)
}

pub(crate) fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    files.sort();
    files
}

pub(crate) fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::write(path, content).unwrap();
}

pub(crate) fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Everything in a directory, to see that nothing changed.
pub(crate) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir, "").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Many entries over several segments, a snapshot of the first half, and a mark at the end.
pub(crate) fn long_log(dir: &Path) {
    let mut log = open(dir, &[1, 2, 3]);
    append(&mut log, Some(1), None, vec![entry(1, 1, Payload::Noop)]);
    for index in 2..=60 {
        append(&mut log, None, None, vec![entry(index, 1, add_vote("bob", 1, Some("k")))]);
    }
    let mut base = LogBase::initial(members(&[1, 2, 3]));
    base.position = LogPosition::new(Term(1), LogIndex(30));
    let mut snapshot = log.snapshots().create(base.clone()).unwrap();
    snapshot.write(&[7; 100_000]).unwrap();
    snapshot.finish().unwrap();
    log.compact(&base).unwrap();
    log.close().unwrap();
}
