//! How the storage of a directory was lived with.

use std::sync::Arc;

use raft_core::{HardState, Term, Write};
use raft_wal::inspect::Inspector;
use raft_wal::sim::{Fault, SimDisk};
use raft_wal::{Log, OpenError, OpenedLog, WalConfig};

use super::model::Model;
use super::{Random, command, config, members, node};

/// How the storage of a directory was lived with.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    pub(crate) seed: u64,
    /// How many things were done.
    pub(crate) acts: usize,
    /// Did the last run close the log?
    pub(crate) closed: bool,
    /// Is the node the only voter?
    pub(crate) alone: bool,
}

impl Life {
    pub(crate) fn config(self) -> WalConfig {
        let ids: &[u64] = if self.alone { &[1] } else { &[1, 2, 3] };
        WalConfig { membership: members(ids), ..config() }
    }

    fn open(self, disk: &SimDisk) -> Result<OpenedLog, OpenError> {
        Log::open(Arc::new(disk.for_this_life()), &self.config())
    }

    /// The directory that it leaves behind.
    pub(crate) fn disk(self) -> SimDisk {
        self.disks().0
    }

    /// The same, and what it could become later.
    pub(crate) fn disks(self) -> (SimDisk, SimDisk) {
        let disk = SimDisk::new(self.seed);
        let mut random = Random(self.seed);
        let mut model = Model::new();
        for run in 0..3 {
            let mut log = self.open(&disk).unwrap().log;
            if run == 2 && !self.closed {
                disk.inject(Fault::PowerCut, 3 * self.acts as u64);
            }
            let mut acts = 0..self.acts;
            let done = acts.try_for_each(|n| match self.alone {
                true => {
                    log.append(&[alone(run * self.acts + n)])?;
                    log.sync()
                }
                false => model.act(&mut log, &mut random),
            });
            match done.and_then(|()| log.close()) {
                Ok(()) => disk.restart(),
                Err(_) => disk.crash(),
            }
        }
        let future = disk.fork(self.seed);
        let mut log = self.open(&future).unwrap().log;
        if !self.alone && self.closed {
            (0..30).for_each(|_| model.act(&mut log, &mut random).unwrap());
        }
        (disk, future)
    }
}

/// A write of a node that decides alone: its members never change.
fn alone(n: usize) -> Write {
    let vote = HardState { term: Term(3), voted_for: Some(node(1)) };
    Write::detached((n == 0).then_some(vote), None, vec![command(n as u64 + 1, 3, 600)])
}

/// To look at a disk with.
pub(crate) fn inspector(disk: &SimDisk) -> Inspector {
    Inspector::on(Arc::new(disk.for_this_life()), "simulated")
}
