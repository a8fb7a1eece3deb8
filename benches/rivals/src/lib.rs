//! raft-core beside raft-rs and openraft: three nodes in one thread, the same commands, in memory.
//!
//! What each side does and does not do is told in `../README.md`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};

#[path = "../../cores/applied.rs"]
mod applied;
#[path = "../../cores/cluster.rs"]
mod cluster;
mod openraft;
mod raft_rs;

use openraft::Clients;
use raft_rs::Settings;

/// A library with the settings that it is run with.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// This repository's core.
    RaftCore,
    /// raft-rs.
    RaftRs(Settings),
    /// openraft.
    Openraft(Clients),
}

/// All of them with the names that tables show; raft-core, the yardstick, first.
pub const SIDES: [(&str, Side); 6] = [
    ("raft-core", Side::RaftCore),
    ("raft-rs", Side::RaftRs(Settings { batch_append: false, together: false })),
    ("raft-rs, batch_append", Side::RaftRs(Settings { batch_append: true, together: false })),
    ("raft-rs, one proposal", Side::RaftRs(Settings { batch_append: true, together: true })),
    ("openraft, client_write", Side::Openraft(Clients::Each)),
    ("openraft, client_write_many", Side::Openraft(Clients::Together)),
];

/// Bytes of a command.
pub const SIZES: [usize; 2] = [16, 256];
/// Commands that are under way together.
pub const BATCHES: [usize; 3] = [1, 16, 256];

/// What it took to commit some entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// By the clock on the wall.
    pub wall: Duration,
    /// By the processor: what neighbours do in the meantime does not count.
    pub processor: Duration,
}

/// Distinct commands of this size.
pub fn commands(size: usize, count: usize) -> Vec<Bytes> {
    let command = |number: usize| {
        let mut command = vec![0x5a; size];
        let number = number.to_le_bytes();
        command[..number.len()].copy_from_slice(&number);
        command.into()
    };
    (0..count).map(command).collect()
}

/// So many rounds make a log of a length that a service would keep, not one that only grows.
pub fn rounds(batch: usize) -> usize {
    (16_384 / batch).min(4_096)
}

impl Side {
    /// What it takes a new cluster, once it has a leader, to commit the commands together, so many
    /// times over. Checks afterwards that all nodes stored and applied them.
    pub fn run(self, commands: &[Bytes], rounds: usize) -> Cost {
        let (cost, applied) = match self {
            Self::RaftCore => {
                let mut cluster = cluster::Cluster::new();
                let cost = measure(|| {
                    for _ in 0..rounds {
                        cluster.commit(commands.to_vec());
                    }
                });
                (cost, cluster.applied())
            }
            Self::RaftRs(settings) => {
                let mut cluster = raft_rs::Cluster::new(settings);
                let cost = measure(|| {
                    for _ in 0..rounds {
                        cluster.commit(commands.to_vec());
                    }
                });
                (cost, cluster.applied())
            }
            Self::Openraft(clients) => {
                let mut cluster = openraft::Cluster::new(clients);
                let cost = measure(|| cluster.commit(commands, rounds));
                (cost, cluster.applied())
            }
        };
        assert_eq!(applied.count, (commands.len() * rounds) as u64, "each command once");
        cost
    }
}

/// Lets glibc keep what a dropped cluster frees for the next one: else each run would measure how fast
/// the kernel hands out memory. Freeing one large block raises its threshold; elsewhere it does nothing.
pub fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(31 << 20)));
}

fn measure(work: impl FnOnce()) -> Cost {
    let (wall, processor) = (Instant::now(), processor_time());
    work();
    Cost { wall: wall.elapsed(), processor: processor_time() - processor }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("not negative")
}
