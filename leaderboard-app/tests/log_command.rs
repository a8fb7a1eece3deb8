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
        assert!(unfolded(&self.out).contains(&unfolded(part)), "{part:?} is not in:\n{}", self.out);
    }
}

/// Paragraphs are folded, and columns are wide.
fn unfolded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
    assert_eq!(lines.next(), Some("cluster \"test board\", node n1"));
    let second = lines.next().unwrap();
    assert!(second.starts_with("format 2, directory "), "{second}");
    let rest: Vec<_> = lines.collect();
    assert_eq!(
        rest,
        [
            "",
            "segment-00000000000000000000-00000000000000000001  open",
            "  behind 0@0, term=0 vote=none: 8 records in 5 batches",
            "    8800  term=1 vote=n1",
            "    8856  1@1        2024-11-27T08:07:05.001Z  no-op",
            "    9312  2@1        2024-11-27T08:07:05.002Z  add_vote default alice +10  \
             key=0123456789abcdef0123456789abcdef",
            "    9824  3@1        2024-11-27T08:07:05.003Z  add_vote default \
             \"zoë \\u{202e}x\" -2",
            "   10336  term=2 vote=n1",
            "   10392  truncate_from=3",
            "   10440  3@2        2024-11-27T08:07:05.003Z  0x1b5b324a07206120636f6d6d616e6420… \
             (25 bytes: version 27 is not known here; upgrade this node)",
            "   10848  4@2        2024-11-27T08:07:05.004Z  members {n1 n2 n3 n4}",
        ]
    );
    assert_eq!(contents(&dir), before);
}

/// Many entries over several segments, a snapshot of the first half, and a mark at the end.
fn long_log(dir: &Path) {
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

#[test]
fn segments_and_ranges_are_shown_alone() {
    let (_parent, dir) = place();
    long_log(&dir);
    let whole = dump(&dir);
    assert_eq!(whole.code, Some(0));
    let segments = files(&dir, "segment-");
    assert!(segments.len() >= 3, "{segments:?}");
    whole.has("sealed next=2");
    whole.has("compacted=30@1");
    whole.has("snapshot=30@1/100000  members {n1 n2 n3}  digest");

    let heads = run(&["log", "dump", "--segments"], &dir);
    assert_eq!(heads.code, Some(0));
    for segment in &segments {
        assert_eq!(heads.out.matches(name(segment)).count(), 1, "{}", heads.out);
    }
    assert!(!heads.out.contains("add_vote"), "{}", heads.out);

    let range = run(&["log", "dump", "--from", "29", "--to", "31"], &dir);
    let shown: Vec<_> =
        range.out.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    for wanted in ["29@1", "30@1", "31@1", "compacted=30@1"] {
        assert!(shown.contains(&wanted), "{}", range.out);
    }
    assert_eq!(range.out.matches('@').count(), range.out.matches("behind").count() + 4);
    assert!(!range.out.contains("vote=n1\n"), "votes are about no index: {}", range.out);
}

#[test]
fn every_line_for_programs_is_an_object_with_a_type() {
    let (_parent, dir) = place();
    known_log(&dir, &[1, 2, 3]);
    let told = run(&["log", "dump", "-o", "json"], &dir);
    assert_eq!(told.code, Some(0));
    let lines: Vec<Value> =
        told.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "directory",
            "segment",
            "vote",
            "noop",
            "command",
            "command",
            "vote",
            "truncate",
            "command",
            "members"
        ]
    );
    let [directory, segment, vote, _, keyed, odd, _, truncate, unknown, joined] = &lines[..] else {
        panic!("there are ten");
    };
    assert_eq!((&directory["cluster"], &directory["node"]), (&"test board".into(), &1.into()));
    assert_eq!((&segment["records"], &segment["state"]), (&8.into(), &"open".into()));
    assert_eq!((&vote["term"], &vote["voted_for"]), (&1.into(), &1.into()));
    let command = &keyed["command"];
    assert_eq!((&command["kind"], &command["board"]), (&"add_vote".into(), &"default".into()));
    assert_eq!((&command["player"], &command["delta"]), (&"alice".into(), &10.into()));
    assert_eq!(command["key"], "0123456789abcdef0123456789abcdef");
    assert_eq!((&keyed["index"], &keyed["term"]), (&2.into(), &1.into()));
    assert_eq!(keyed["timestamp_ms"], 1_732_694_825_002_u64);
    assert_eq!(odd["command"]["player"], "zoë \u{202e}x");
    assert_eq!(truncate["from"], 3);
    assert_eq!(unknown["command"], Value::Null);
    assert!(unknown["hex"].as_str().unwrap().starts_with("1b5b324a07"), "{unknown}");
    assert_eq!(joined["members"]["voters"], serde_json::json!([1, 2, 3, 4]));
    for line in &lines[2..] {
        assert_eq!(line["segment"], segment["segment"]);
        assert!(line["offset"].as_u64().unwrap() > HEADERS as u64 && line["group"] == 0, "{line}");
    }
}

#[test]
fn a_sound_log_is_sound_and_stays_as_it_is() {
    for make in [long_log, |dir: &Path| known_log(dir, &[1])] {
        let (_parent, dir) = place();
        make(&dir);
        let before = contents(&dir);
        let told = verify(&dir);
        assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{}", told.out);
        told.has("verdict sound start opens the log with term=");
        told.has("to do nothing");
        assert!(!told.out.contains("damage"), "{}", told.out);
        let widest = told.out.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(80), "{widest:?}: {}", told.out);
        for file in files(&dir, "s") {
            assert!(told.out.contains(name(&file)), "{}", told.out);
        }
        let report = verdict(&dir);
        assert_eq!((&report["verdict"], &report["exit_code"]), (&"sound".into(), &0.into()));
        assert_eq!(report["start"]["does"], "opens");
        assert_eq!(contents(&dir), before);
    }
}

#[test]
fn a_torn_write_is_fine() {
    let (_parent, dir) = place();
    let mut log = open(&dir, &[1, 2, 3]);
    append(&mut log, Some(1), None, vec![entry(1, 1, add_vote("alice", 1, None))]);
    let long = Payload::Command(vec![b'x'; 2000].into());
    append(&mut log, None, None, vec![entry(2, 1, long)]);
    drop(log);
    change(&files(&dir, "segment-")[0], |content| {
        let last = content.iter().rposition(|&byte| byte != 0).unwrap() / SECTOR * SECTOR;
        content[last..last + SECTOR].fill(0);
    });
    let told = verify(&dir);
    assert_eq!(told.code, Some(0), "{}", told.out);
    told.has("verdict sound, with a torn write at its end");
    told.has("drops a torn write of 2048 bytes, which was never acknowledged");
    told.has("1 entry behind 0@0, up to 1@1");
    assert_eq!(verdict(&dir)["verdict"], "torn");
    let told = dump(&dir);
    assert_eq!(told.code, Some(0));
    told.has("torn: 2048 bytes of a write that was never acknowledged");
    assert_eq!(open(&dir, &[1, 2, 3]).snapshots().held(), []);
    assert_eq!(verify(&dir).code, Some(0), "repaired");
}

/// Damages the third batch of the first segment.
fn damage_the_middle(dir: &Path) -> String {
    let first = &files(dir, "segment-")[0];
    change(first, |content| content[HEADERS + 2 * SECTOR + 200] ^= 1);
    name(first).to_owned()
}

#[test]
fn damage_in_the_middle_is_located_and_told_what_comes_of_it() {
    let (_parent, dir) = place();
    known_log(&dir, &[1, 2, 3]);
    let segment = damage_the_middle(&dir);
    let before = contents(&dir);
    let told = verify(&dir);
    assert_eq!(told.code, Some(3), "{}", told.out);
    told.has(&format!(
        "damage {segment} at offset 9216: a batch is damaged: the payload of the \
        record of 2@1 does not match its checksum; the batch at offset 9728 shows"
    ));
    told.has("verdict damaged, and entries are lost here");
    told.has(
        "comes back limping with term=2 vote=n1 and 1 entry behind 0@0, up to 1@1; what it had \
        up to 4@2 may be lost",
    );
    told.has(&format!("puts aside, as .broken: {segment}"));
    told.has("to do keep a copy");
    let report = verdict(&dir);
    assert_eq!(report["verdict"], "limping");
    assert_eq!(report["start"]["lost_index"], 4);
    assert_eq!(report["damages"][0]["offset"], 9216);
    let told = dump(&dir);
    assert_eq!(told.code, Some(3));
    told.has("1@1 2024");
    told.has(&format!("! {segment} at offset 9216: a batch is damaged"));
    assert!(!told.out.contains("alice"), "{}", told.out);
    assert_eq!(contents(&dir), before);
}

#[test]
fn the_only_voter_does_not_start_but_could() {
    let (_parent, dir) = place();
    let mut log = open(&dir, &[1]);
    for index in 1..=4 {
        let vote = (index == 1).then_some(1);
        append(&mut log, vote, None, vec![entry(index, 1, add_vote("alice", 1, None))]);
    }
    log.close().unwrap();
    damage_the_middle(&dir);
    let told = verify(&dir);
    assert_eq!(told.code, Some(3));
    told.has("verdict a node does not start on this start is refused: the log is corrupt");
    told.has("this node is the only voter");
    assert_eq!(
        unfolded(&told.out).matches("a batch is damaged").count(),
        1,
        "once is enough: {}",
        told.out
    );
    told.has(
        "with --accept-data-loss it keeps term=1 vote=n1 and 1 entry behind 0@0, up to 1@1, and \
        forgets what came behind",
    );
    let report = verdict(&dir);
    assert_eq!(
        (&report["verdict"], &report["start"]["does"]),
        (&"refused".into(), &"refused".into())
    );
    assert_eq!(report["with_accept_data_loss"]["last_index"], 1);
}

#[test]
fn one_damaged_copy_is_damage_that_costs_nothing() {
    for file in ["IDENTITY", "segment-"] {
        let (_parent, dir) = place();
        known_log(&dir, &[1, 2, 3]);
        change(&files(&dir, file)[0], |content| content[50] ^= 1);
        let told = verify(&dir);
        assert_eq!(told.code, Some(3), "{}", told.out);
        told.has("verdict damaged, but nothing that is needed is lost");
        assert_eq!(verdict(&dir)["verdict"], "damaged");
        assert_eq!(dump(&dir).code, Some(3));
        open(&dir, &[1, 2, 3]).close().unwrap();
        assert_eq!(verify(&dir).code, Some(0), "repaired");
    }
}

#[test]
fn a_damaged_snapshot_is_told() {
    let (_parent, dir) = place();
    long_log(&dir);
    let snapshot = &files(&dir, "snapshot-")[0];
    change(snapshot, |content| content[70_000] ^= 1);
    let told = verify(&dir);
    assert_eq!(told.code, Some(3), "{}", told.out);
    told.has(&format!("damage {} at offset 0: its content at 65536", name(snapshot)));
    told.has(&format!("{}  damaged", name(snapshot)));
    change(snapshot, |content| content.truncate(600));
    let told = dump(&dir);
    assert_eq!(told.code, Some(3));
    told.has(&format!("! {} at offset 0: it", name(snapshot)));
}

#[test]
fn an_identity_of_which_nothing_is_left_does_not_hide_the_records() {
    let (_parent, dir) = place();
    known_log(&dir, &[1, 2, 3]);
    fs::write(dir.join("IDENTITY"), [0xEE; 8192]).unwrap();
    let told = verify(&dir);
    assert_eq!(told.code, Some(3), "{}", told.out);
    told.has("start is refused: the log is corrupt: IDENTITY at offset 0: both of its copies are damaged");
    told.has("remove this node from the cluster and add it again");
    let told = dump(&dir);
    assert_eq!(told.code, Some(3));
    told.has("add_vote default alice +10");
    fs::remove_file(dir.join("IDENTITY")).unwrap();
    assert_eq!(verify(&dir).code, Some(3), "it is missing");
    dump(&dir).has("add_vote default alice +10");
}

#[test]
fn a_segment_of_another_directory_is_no_part_of_this_one() {
    let (_parent, dir) = place();
    let (_other, other) = place();
    known_log(&dir, &[1, 2, 3]);
    known_log(&other, &[1, 2, 3]);
    let segment = &files(&dir, "segment-")[0];
    fs::copy(other.join(name(segment)), segment).unwrap();
    let told = verify(&dir);
    assert_eq!(told.code, Some(3));
    told.has("it belongs to another directory");
}

#[test]
fn what_is_no_log_is_exit_code_1_and_stays_as_it_is() {
    let (parent, dir) = place();
    let missing = parent.path().join("missing");
    let file = parent.path().join("file");
    fs::write(&file, "hello").unwrap();
    let foreign = parent.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "hello").unwrap();
    for (path, reason) in [
        (&missing, "there is no such directory"),
        (&file, "it is a file"),
        (&dir, "there is neither an identity nor a segment in it"),
        (&foreign, "there is neither an identity nor a segment in it"),
    ] {
        for told in [dump(path), verify(path)] {
            assert_eq!((told.code, told.out.as_str()), (Some(1), ""), "{}", told.err);
            assert!(told.err.contains(reason), "{}", told.err);
            assert!(told.err.contains(path.to_str().unwrap()), "{}", told.err);
        }
        assert_eq!(verdict(path)["verdict"], "no_log");
    }
    assert!(!missing.exists() && files(&dir, "").is_empty());
    assert_eq!(files(&foreign, "").len(), 1);
}

#[test]
fn a_directory_in_use_is_refused_and_one_that_is_looked_at_is_in_use() {
    let (_parent, dir) = place();
    let log = open(&dir, &[1, 2, 3]);
    for told in [dump(&dir), verify(&dir)] {
        assert_eq!((told.code, told.out.as_str()), (Some(3), ""), "{}", told.err);
        assert!(told.err.contains("is in use: a node runs on it"), "{}", told.err);
    }
    assert_eq!(verdict(&dir)["verdict"], "in_use");
    log.close().unwrap();
    assert_eq!(verify(&dir).code, Some(0));
}

#[test]
fn what_cannot_be_read_is_exit_code_4() {
    let (_parent, dir) = place();
    long_log(&dir);
    let segment = &files(&dir, "segment-")[0];
    fs::remove_file(segment).unwrap();
    // Reading a directory fails for everybody.
    fs::create_dir(segment).unwrap();
    let told = verify(&dir);
    assert_eq!(told.code, Some(4), "{}{}", told.out, told.err);
    told.has(&format!("{}  unreadable", name(segment)));
    told.has("verdict not all of it can be read");
    told.has("sealed");
    assert_eq!(verdict(&dir)["verdict"], "unreadable");
    assert_eq!(dump(&dir).code, Some(4));
}

#[test]
fn names_and_contents_do_not_reach_the_terminal_as_commands() {
    let (_parent, dir) = place();
    known_log(&dir, &[1, 2, 3]);
    fs::write(dir.join("evil\u{1b}[31m\nname"), "").unwrap();
    fs::write(dir.join("segment-\u{1b}]0;title\u{7}"), "").unwrap();
    for told in [dump(&dir), verify(&dir)] {
        let obeyed = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!told.out.contains(obeyed) && !told.err.contains(obeyed), "{:?}", told.out);
    }
    let told = verify(&dir);
    assert_eq!(told.code, Some(3), "a segment of no such name");
    told.has("evil\\u{1b}[31m\\nname");
}

#[test]
fn bad_usage_is_exit_code_2_and_help_has_examples() {
    let (_parent, dir) = place();
    known_log(&dir, &[1, 2, 3]);
    for words in [
        &["log", "dump", "--from", "3", "--to", "2"][..],
        &["log", "dump", "--from", "x"],
        &["log", "verify", "-o", "xml"],
        &["log", "fly"],
        &["log"],
    ] {
        assert_eq!(run(words, &dir).code, Some(2), "{words:?}");
    }
    for words in [["log", "dump", "--help"], ["log", "verify", "--help"]] {
        let told = run(&words, &dir);
        assert_eq!(told.code, Some(0));
        told.has("Examples:");
        told.has("Exit codes: 0");
        told.has("stop the node first");
        let widest = told.out.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(105), "{widest:?}");
    }
}

#[test]
fn whoever_has_seen_enough_may_close_the_pipe() {
    let (_parent, dir) = place();
    let mut log = open(&dir, &[1, 2, 3]);
    append(&mut log, Some(1), None, vec![entry(1, 1, Payload::Noop)]);
    for first in (2..20_000).step_by(500) {
        let entries = (first..first + 500).map(|index| entry(index, 1, Payload::Noop));
        append(&mut log, None, None, entries.collect());
    }
    log.close().unwrap();
    for output in ["text", "json"] {
        let mut child = leaderboard(&["log", "dump", "-o", output], &dir).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("test board"), "{line}");
        drop(stdout);
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(0), ""));
    }
}

/// Whatever is in the files, it is told, and told within the exit codes.
#[test]
fn arbitrary_damage_is_told_without_a_panic() {
    let (_parent, dir) = place();
    long_log(&dir);
    let intact = contents(&dir);
    let mut random = 1_u64;
    let mut below = |bound: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    let mut codes = [0; 5];
    for case in 0..60 {
        for _ in 0..=below(3) {
            let (path, content) = &intact[below(intact.len())];
            let mut content = content.clone();
            if content.is_empty() {
                continue;
            }
            match below(3) {
                0 => content.truncate(below(content.len())),
                _ => {
                    let start = below(content.len());
                    let end = content.len().min(start + 1 + below(600));
                    content[start..end].fill_with(|| below(256) as u8);
                }
            }
            fs::write(path, content).unwrap();
        }
        let (verified, dumped) = (verify(&dir), dump(&dir));
        let code = verified.code.unwrap_or_else(|| panic!("case {case}: {}", verified.err));
        codes[usize::try_from(code).unwrap()] += 1;
        assert!(matches!(dumped.code, Some(0 | 3)), "case {case}: {}", dumped.err);
        serde_json::from_str::<Value>(&run(&["log", "verify", "-ojson"], &dir).out).unwrap();
        for (path, content) in &intact {
            fs::write(path, content).unwrap();
        }
    }
    assert!(codes[3] > 20 && codes[1] + codes[2] + codes[4] == 0, "{codes:?}");
}
