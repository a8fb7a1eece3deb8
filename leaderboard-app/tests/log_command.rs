//! `leaderboard log`: the real program on directories that the real log has made, and that were damaged
//! afterwards.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::io::{BufRead as _, BufReader};
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
const HEADERS: usize = 2 * 4096;
const SECTOR: usize = 512;

fn leaderboard(words: &[&str], dir: &Path) -> Command {
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
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Told {
    fn has(&self, part: &str) {
        // Paragraphs are wrapped.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&self.out).contains(&words(part)), "{part:?} is not in:\n{}", self.out);
    }
}

fn run(words: &[&str], dir: &Path) -> Told {
    let Output { status, stdout, stderr } = leaderboard(words, dir).output().unwrap();
    let told = Told {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    };
    assert!(!told.err.contains("panicked"), "{}", told.err);
    told
}

fn dump(dir: &Path) -> Told {
    run(&["log", "dump"], dir)
}

fn verify(dir: &Path) -> Told {
    run(&["log", "verify"], dir)
}

/// The verification for programs.
fn verdict(dir: &Path) -> Value {
    let told = run(&["log", "verify", "-o", "json"], dir);
    let report: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!(report["exit_code"], told.code.unwrap());
    report
}

fn members(ids: &[u64]) -> Membership {
    Membership::new(ids.iter().filter_map(|&id| NodeId::new(id))).unwrap()
}

fn open(dir: &Path, ids: &[u64]) -> Log {
    let config = WalConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        ..WalConfig::new(dir, "test board", NodeId::new(1).unwrap(), members(ids))
    };
    Log::open(Arc::new(FileDisk::open(dir).unwrap()), &config).unwrap().log
}

fn entry(index: u64, term: u64, payload: Payload) -> Entry {
    let timestamp = Timestamp(1_732_694_825_000 + index);
    Entry { index: LogIndex(index), term: Term(term), timestamp, payload }
}

fn add_vote(player: &str, delta: i64, key: Option<&str>) -> Payload {
    let vote = AddVote {
        board: BoardId::default(),
        player: Player::new(player).unwrap(),
        delta: Score::new(delta).unwrap(),
        idempotency: key
            .map(|key| Idempotency { key: IdempotencyKey::new(key).unwrap(), fingerprint: 7 }),
    };
    Payload::Command(Replicated::AddVote(vote).encode())
}

fn append(log: &mut Log, vote: Option<u64>, cut: Option<u64>, entries: Vec<Entry>) {
    let voted_for = NodeId::new(1);
    let vote = vote.map(|term| HardState { term: Term(term), voted_for });
    log.append(&[Write::detached(vote, cut.map(LogIndex), entries)]).unwrap();
    log.sync().unwrap();
}

/// Makes a log of known records, and closes it.
fn known_log(dir: &Path, ids: &[u64]) {
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
fn place() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("n1");
    fs::create_dir(&dir).unwrap();
    (parent, dir)
}

fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    files.sort();
    files
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    fs::write(path, content).unwrap();
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Everything in a directory, to see that nothing changed.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    files(dir, "").into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn known_records_are_shown_line_by_line() {
    let (_parent, dir) = place();
    known_log(&dir, &[1, 2, 3]);
    let before = contents(&dir);
    let told = dump(&dir);
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""));
    let mut lines = told.out.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("cluster \"test board\", node n1, format 2, directory "), "{first}");
    let rest: Vec<_> = lines.collect();
    assert_eq!(
        rest,
        [
            "",
            "segment-00000000000000000000-00000000000000000001  open",
            "  behind 0@0, term=0 vote=none: 8 records in 5 batches",
            "       8800  term=1 vote=n1",
            "       8856  1@1           2024-11-27T08:07:05.001Z  no-op",
            "       9312  2@1           2024-11-27T08:07:05.002Z  add_vote default alice +10  \
             key=0123456789abcdef0123456789abcdef",
            "       9824  3@1           2024-11-27T08:07:05.003Z  add_vote default \
             \"zoë \\u{202e}x\" -2",
            "      10336  term=2 vote=n1",
            "      10392  truncate_from=3",
            "      10440  3@2           2024-11-27T08:07:05.003Z  0x1b5b324a0720612063 0x",
            "      10848  4@2           2024-11-27T08:07:05.004Z  members {n1 n2 n3 n4}",
        ]
    );
    assert_eq!(contents(&dir), before);
}
