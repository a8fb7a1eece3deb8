//! The log does not grow for ever, and who has missed what it has let go of gets a snapshot.

mod harness;

use std::path::Path;

use harness::{Cluster, id, number_command, wait_for};
use raft_grpc::{Consistency, LogIndex};

/// A cluster whose nodes cut snapshots all the time and keep little of the log behind them.
fn forgetful(size: usize) -> Cluster {
    let mut cluster = Cluster::new(size);
    for config in &mut cluster.configs {
        config.segment_bytes = 64 << 10;
        config.snapshot_after_bytes = 32 << 10;
        config.trailing_bytes_max = 8 << 10;
    }
    for number in 1..=size {
        cluster.start(number);
    }
    cluster
}

/// Adds one so many times, for a hundred clients.
fn count(cluster: &Cluster, at: usize, times: u64) {
    cluster.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for client in 0..100 {
            let handle = cluster.handle(at);
            tasks.spawn(async move {
                for _ in (client..times).step_by(100) {
                    handle.propose(number_command(1)).await.expect("nothing is broken");
                }
            });
        }
        tasks.join_all().await;
    });
}

fn base(cluster: &Cluster, number: usize) -> LogIndex {
    cluster.handle(number).status().raft.base.index
}

fn segments(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir).expect("a data directory");
    let names = files.map(|file| file.expect("a file").file_name());
    names.filter(|name| name.to_string_lossy().starts_with("segment-")).count()
}

/// All nodes have the same state, which reflects so many commands.
fn agree(cluster: &Cluster, commands: u64) {
    let mut digests = Vec::new();
    for number in cluster.running() {
        let handle = cluster.handle(number);
        let state = cluster.block_on(async {
            let state = handle.read(Consistency::Linearizable).await.expect("it can be read");
            (state.commands, state.sum, state.digest)
        });
        assert_eq!((state.0, state.1), (commands, commands), "node {number}");
        digests.push(state.2);
    }
    assert!(digests.windows(2).all(|two| two[0] == two[1]), "{digests:?}");
}

#[test]
fn the_log_is_let_go_of_and_a_start_goes_on_from_the_snapshot() {
    let mut cluster = forgetful(3);
    count(&cluster, 1, 5_000);
    wait_for("all to let go of most of the log", || {
        (1..=3).all(|number| base(&cluster, number) > LogIndex(3_000)).then_some(())
    });
    for number in 1..=3 {
        let dir = cluster.dir.path().join(format!("n{number}"));
        // Segments go once the second snapshot after them is there.
        wait_for("segments to be dropped", || (segments(&dir) <= 6).then_some(()));
    }
    agree(&cluster, 5_000);
    for number in 1..=3 {
        cluster.kill(number);
    }
    for number in 1..=3 {
        cluster.start(number);
        let machine = cluster.handle(number).read_stale().applied();
        assert!(machine.index > LogIndex(3_000), "it starts with the snapshot: {machine}");
    }
    count(&cluster, 2, 10);
    agree(&cluster, 5_010);
}

#[test]
fn who_was_away_for_long_fetches_a_snapshot() {
    let mut cluster = forgetful(3);
    count(&cluster, 1, 100);
    cluster.leader();
    let away = cluster.follower();
    cluster.kill(away);
    let at = cluster.leader();
    count(&cluster, at, 5_000);
    wait_for("the leader to let go of what is missed", || {
        (base(&cluster, at) > LogIndex(3_000)).then_some(())
    });
    cluster.start(away);
    agree(&cluster, 5_100);
    wait_for("the status to say that it has it from a snapshot", || {
        (base(&cluster, away) > LogIndex(3_000)).then_some(())
    });
    count(&cluster, away, 10);
    agree(&cluster, 5_110);
    // It stands on its own: with one of the others gone it is needed, and it can lead.
    cluster.kill(at);
    cluster.leader();
    count(&cluster, away, 10);
    agree(&cluster, 5_120);
}

#[test]
fn a_large_snapshot_comes_in_pieces_while_the_others_go_on() {
    let mut cluster = forgetful(3);
    let padding = 20 << 20;
    cluster.padding = padding;
    for number in 1..=3 {
        cluster.kill(number);
        cluster.configs[number - 1].snapshot_after_bytes = 256 << 10;
        cluster.start(number);
    }
    cluster.leader();
    let away = cluster.follower();
    cluster.kill(away);
    let at = cluster.leader();
    count(&cluster, at, 10_000);
    wait_for("the leader to let go of what is missed", || {
        (base(&cluster, at) > LogIndex(2_000)).then_some(())
    });
    cluster.start(away);
    let term = cluster.handle(at).status().raft.term;
    count(&cluster, at, 2_000);
    agree(&cluster, 12_000);
    assert_eq!(cluster.handle(at).status().raft.term, term, "nobody had to be elected");
    assert_eq!(cluster.handle(away).read_stale().padding, padding);
    assert_ne!(cluster.handle(away).status().raft.leader, Some(id(away)));
}
