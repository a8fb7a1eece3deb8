//! `leaderboard log`: the real program on directories that the real log has made, and that were damaged
//! afterwards.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod dump;
mod making;
mod verify;

use std::fs;

use making::{dump, files, known_log, long_log, name, open, place, run, verdict, verify};

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
