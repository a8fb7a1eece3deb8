//! What is shown, line by line.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Output;

use raft_core::Payload;
use serde_json::Value;

use crate::making::{
    HEADERS, append, contents, dump, entry, files, known_log, leaderboard, long_log, name, open,
    place, run, verify,
};

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
