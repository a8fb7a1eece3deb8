//! The limit: a loop of `pwrite` and `fdatasync` over a file of zeros, which checks nothing and can
//! recover nothing.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use crate::{Cost, Side, directory, measure};

/// As long as a segment of raft-wal is by default.
const FILE_BYTES: u64 = 16 << 20;

/// The loop, with so many bytes per batch.
pub struct Bare {
    directory: TempDir,
    file: File,
    files: u64,
    /// Where the next batch goes.
    end: u64,
    batch: Vec<u8>,
}

impl Bare {
    /// Prepares the file.
    pub fn new(batch_bytes: usize) -> Self {
        let directory = directory();
        let file = prepare(&directory, 0);
        let mut batch = vec![0; batch_bytes];
        fastrand::Rng::with_seed(2).fill(&mut batch);
        Self { directory, file, files: 1, end: 0, batch }
    }
}

fn prepare(directory: &TempDir, number: u64) -> File {
    let path = directory.path().join(format!("file-{number}"));
    let file = File::create_new(path).expect("no such file yet");
    file.write_all_at(&vec![0; FILE_BYTES as usize], 0).expect("there is room");
    file.sync_all().expect("the disk works");
    file
}

impl Side for Bare {
    fn run(&mut self, batches: usize, _: usize) -> Cost {
        let bytes = self.batch.len() as u64;
        if self.end + bytes * batches as u64 > FILE_BYTES {
            // Before the clock starts, as those of raft-wal are on their own thread.
            self.file = prepare(&self.directory, self.files);
            self.files += 1;
            self.end = 0;
        }
        let syncs = Cell::new(0);
        measure(
            0..batches,
            || syncs.get(),
            |_| {
                self.file.write_all_at(&self.batch, self.end).expect("the file is long enough");
                self.file.sync_data().expect("the disk works");
                self.end += bytes;
                syncs.set(syncs.get() + 1);
            },
        )
    }
}
