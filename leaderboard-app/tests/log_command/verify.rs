//! What is damaged, and what a start would do.

use std::fs;
use std::path::Path;

use raft_core::Payload;
use serde_json::Value;

use crate::making::{
    HEADERS, SECTOR, add_vote, append, change, contents, dump, entry, files, known_log, long_log,
    name, open, place, run, unfolded, verdict, verify,
};

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
    told.has("removed from the cluster and added again");
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
