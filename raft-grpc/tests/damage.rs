//! Logs that were damaged on disk: the node keeps its vote, is filled up by the others, and is as before.

mod harness;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use harness::{Cluster, Counter, Running, number_command, wait_for};
use raft_grpc::{NotApplied, StartError};

/// The segments of a node, in order.
fn segments(cluster: &Cluster, number: usize) -> Vec<PathBuf> {
    let files = fs::read_dir(&cluster.configs[number - 1].data_dir).expect("it has a directory");
    let files = files.map(|file| file.expect("a file").path());
    let is_segment = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("segment-") && !name.ends_with(".broken")
    };
    let mut segments: Vec<_> = files.filter(is_segment).collect();
    segments.sort();
    segments
}

/// Changes a byte in the first batch of a segment, behind the two copies of its header.
fn damage(segment: &PathBuf) {
    let file = OpenOptions::new().read(true).write(true).open(segment).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 2 * 4096 + 150).expect("it is longer");
    byte[0] ^= 0x40;
    file.write_all_at(&byte, 2 * 4096 + 150).expect("it can be written");
}

fn is_limping(cluster: &Cluster, number: usize) -> bool {
    cluster.handle(number).status().log.limping_until.is_some()
}

/// A cluster that was stopped after some commands.
fn stopped_after(commands: u64) -> Cluster {
    let mut cluster = Cluster::started(3);
    for _ in 0..commands {
        cluster.propose(1, 1).expect("nothing is broken");
    }
    cluster.agreed_state();
    for number in 1..=3 {
        cluster.kill(number);
    }
    cluster
}

#[test]
fn a_node_whose_entries_are_damaged_limps_until_the_others_have_filled_it_up() {
    let mut cluster = stopped_after(40);
    damage(segments(&cluster, 2).last().expect("it has a log"));
    cluster.start(2);
    assert!(is_limping(&cluster, 2), "it has lost entries that it had acknowledged");
    cluster.start(1);
    cluster.start(3);
    wait_for("the damaged node to be whole", || (!is_limping(&cluster, 2)).then_some(()));
    assert_eq!(cluster.agreed_state(), (40, 40));
    // It is a member like any other again, also after another start.
    cluster.kill(2);
    cluster.start(2);
    assert!(!is_limping(&cluster, 2));
    cluster.kill(if cluster.leader() == 1 { 1 } else { 3 });
    cluster.propose(2, 1).expect("two of three are a majority");
    assert_eq!(cluster.agreed_state(), (41, 41));
}

#[test]
fn two_damaged_nodes_of_three_elect_the_one_that_is_whole() {
    let mut cluster = stopped_after(40);
    for number in [1, 3] {
        damage(segments(&cluster, number).last().expect("it has a log"));
        cluster.start(number);
    }
    // The two are a majority, and have lost what they acknowledged: they must not lead each other.
    let patience = 4 * cluster.configs[0].election_timeout;
    let handle = cluster.handle(1);
    let answer = cluster.block_on(handle.propose_within(number_command(1), patience));
    assert_eq!(answer, Err(NotApplied::NoLeader.into()));
    cluster.start(2);
    assert_eq!(cluster.leader(), 2, "nobody else has what was acknowledged");
    wait_for("both to be whole", || {
        (!is_limping(&cluster, 1) && !is_limping(&cluster, 3)).then_some(())
    });
    assert_eq!(cluster.agreed_state(), (40, 40));
}

#[test]
fn damage_to_a_closed_segment_is_found_and_repaired_while_the_node_runs() {
    let mut cluster = Cluster::new(3);
    for config in &mut cluster.configs {
        config.segment_bytes = 32 << 10;
        config.scrub_interval = Duration::from_millis(10);
    }
    for number in 1..=3 {
        cluster.start(number);
    }
    let mut commands = 0;
    while segments(&cluster, 2).len() < 4 {
        cluster.propose(1, 1).expect("nothing is broken");
        commands += 1;
    }
    damage(&segments(&cluster, 2)[1]);
    let stats = || cluster.handle(2).status().log.stats;
    wait_for("the damage to be found and repaired", || (stats().repairs > 0).then_some(()));
    assert_eq!(stats().damages, 1);
    assert!(!is_limping(&cluster, 2), "nothing is lost while it runs");
    // What it starts from now is whole.
    cluster.kill(2);
    cluster.start(2);
    assert!(!is_limping(&cluster, 2));
    assert_eq!(cluster.agreed_state(), (commands, commands));
}

#[test]
fn the_only_voter_refuses_to_start_on_a_damaged_log_unless_told_to_accept_the_loss() {
    let mut cluster = Cluster::started(1);
    for _ in 0..20 {
        cluster.propose(1, 1).expect("nothing is broken");
    }
    cluster.kill(1);
    let damaged = segments(&cluster, 1).pop().expect("it has a log");
    damage(&damaged);
    let refused = Running::start(cluster.configs[0].clone(), Counter::default());
    let refusal = refused.err().expect("nobody else has what is lost");
    assert!(matches!(&refusal, StartError::Log(error) if error.is_safety_refusal()), "{refusal}");
    assert!(refusal.to_string().contains("--accept-data-loss"), "{refusal}");

    cluster.configs[0].accept_data_loss = true;
    cluster.start(1);
    cluster.propose(1, 1).expect("it leads, with what is left");
    let (_, commands) = cluster.agreed_state();
    assert!(commands <= 20, "{commands}");
    let name = damaged.file_name().and_then(|name| name.to_str()).expect("a name of ours");
    let kept = damaged.with_file_name(format!("{name}.broken"));
    assert!(kept.exists(), "the damaged file is kept for whoever wants to save something from it");
}
