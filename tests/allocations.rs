//! How often raft-core asks for memory.
//!
//! The allocator of this test counts per thread, so that neither other tests nor the test harness
//! disturb: that is why it is `allocation-counter`, and not one of those that count per process.

use allocation_counter::measure;
use bytes::Bytes;

#[path = "../benches/cores/applied.rs"]
mod applied;
#[path = "../benches/cores/cluster.rs"]
mod cluster;

use cluster::Cluster;

/// What one round of proposing, replicating, writing, acknowledging, committing and applying takes on
/// all three nodes together, however many entries it carries: the run that the leader makes of them,
/// which its log, its messages, all disks and all state machines share.
const ALLOCATIONS_PER_ROUND: u64 = 1;

#[test]
fn entries_cost_no_allocation_only_rounds_do() {
    for batch in [1, 16, 64, 256] {
        let usual = usual_allocations(batch);
        assert_eq!(usual, ALLOCATIONS_PER_ROUND, "in a round of {batch} entries");
    }
}

#[test]
fn only_the_growth_of_the_logs_comes_on_top() {
    let rounds = 1_000;
    let mut cluster = warm(64);
    let count: u64 = (0..rounds).map(|_| allocations(&mut cluster, 64)).sum();
    let growth = count - rounds * ALLOCATIONS_PER_ROUND;
    // Three logs, the byte sums of each, and three disks, doubling a few times each.
    assert!(growth < 50, "{growth} allocations for the growth of the logs");
    assert!(count < rounds * 64 / 8, "{count} allocations for {} entries", rounds * 64);
}

/// What most rounds take: the few in which a log doubles its capacity do not count.
fn usual_allocations(batch: usize) -> u64 {
    let mut cluster = warm(batch);
    let mut counts: Vec<u64> = (0..101).map(|_| allocations(&mut cluster, batch)).collect();
    counts.sort_unstable();
    assert_eq!(cluster.applied().count, (WARM_UP + 101) * batch as u64);
    counts[counts.len() / 2]
}

/// So many rounds give all buffers the capacity that they need.
const WARM_UP: u64 = 16;

fn warm(batch: usize) -> Cluster {
    let mut cluster = Cluster::new();
    for _ in 0..WARM_UP {
        cluster.commit(commands(batch));
    }
    cluster
}

/// What one round takes, the client's list of commands not counted.
fn allocations(cluster: &mut Cluster, batch: usize) -> u64 {
    let commands = commands(batch);
    measure(|| cluster.commit(commands)).count_total
}

/// Commands that share their bytes.
fn commands(count: usize) -> Vec<Bytes> {
    let command = Bytes::from(vec![0x5a; 16]);
    // Cloned, because the first clone of `Bytes` allocates the count of those that share them.
    (0..count).map(|_| command.clone()).collect()
}
