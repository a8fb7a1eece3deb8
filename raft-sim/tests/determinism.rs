//! The same seed does the same: in another process, and in another build.
//!
//! `the_digests_of_some_runs` prints them; the gate compares what a debug and a release build print.

use std::process::Command;

use raft_sim::registers::Registers;
use raft_sim::simulation::{Plan, Simulation, Watch};

const SEEDS: u64 = 20;
const EVENTS: u64 = 3_000;

/// A line for each run: its seed, and the digest of all that happened in it.
fn digests() -> Vec<String> {
    let run = |seed| Simulation::new(&Plan::new(seed, EVENTS), Registers, Watch::default()).run();
    (1..=SEEDS).map(|seed| format!("digest {seed} {:032x}", run(seed).digest)).collect()
}

#[test]
fn the_digests_of_some_runs() {
    let digests = digests();
    println!("\n{}", digests.join("\n"));
    let different: std::collections::BTreeSet<_> =
        digests.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(different.len() as u64, SEEDS, "seeds that do not matter");
}

#[test]
fn another_process_does_the_same() {
    let this = std::env::current_exe().expect("a test knows its program");
    let output = Command::new(this)
        .args(["--exact", "the_digests_of_some_runs", "--nocapture"])
        .output()
        .expect("this program starts again");
    let text = String::from_utf8(output.stdout).expect("a test prints text");
    let theirs: Vec<&str> = text.lines().filter(|line| line.starts_with("digest ")).collect();
    assert_eq!(theirs, digests());
}
