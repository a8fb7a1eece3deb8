//! The limit: a loop of `pwrite` and `fdatasync` over a file of zeros, which checks nothing and can
//! recover nothing.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use crate::{Cost, Side, directory, measure};

/// As long as a segment of raft-wal is by default.
const FILE_BYTES: u64 = 16 << 20;

/// Who prepares the files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Preparing {
    /// Nobody, as far as the clock sees.
    Before,
    /// A thread beside the loop, when the file before is half full.
    Beside,
}

/// The loop, with so many bytes per batch.
pub struct Bare {
    directory: TempDir,
    preparing: Preparing,
    file: File,
    files: u64,
    next: Option<JoinHandle<File>>,
    /// Held by the thread that prepares, while it does.
    busy: Arc<Mutex<()>>,
    /// Where the next batch goes.
    end: u64,
    batch: Vec<u8>,
}

impl Bare {
    /// Prepares the file.
    pub fn new(batch_bytes: usize, preparing: Preparing) -> Self {
        let directory = directory();
        let file = prepare(&directory.path().join("file-0"));
        let mut batch = vec![0; batch_bytes];
        fastrand::Rng::with_seed(2).fill(&mut batch);
        Self {
            directory,
            preparing,
            file,
            files: 1,
            next: None,
            busy: Arc::default(),
            end: 0,
            batch,
        }
    }

    fn prepare_next(&mut self) -> JoinHandle<File> {
        let path = self.directory.path().join(format!("file-{}", self.files));
        self.files += 1;
        let (busy, started) = (Arc::clone(&self.busy), Arc::new(Barrier::new(2)));
        let starting = Arc::clone(&started);
        let thread = thread::spawn(move || {
            let _held = busy.lock();
            starting.wait();
            prepare(&path)
        });
        started.wait();
        thread
    }

    fn go_over(&mut self) {
        let next = self.next.take().unwrap_or_else(|| self.prepare_next());
        self.file = next.join().expect("there is room");
        self.end = 0;
    }

    fn append(&mut self) {
        let bytes = self.batch.len() as u64;
        if self.end + bytes > FILE_BYTES {
            self.go_over();
        }
        self.file.write_all_at(&self.batch, self.end).expect("the file is long enough");
        self.file.sync_data().expect("the disk works");
        self.end += bytes;
        if self.preparing == Preparing::Beside && self.next.is_none() && self.end > FILE_BYTES / 2 {
            self.next = Some(self.prepare_next());
        }
    }
}

fn prepare(path: &Path) -> File {
    let file = File::create_new(path).expect("no such file yet");
    // In pieces as raft-wal does it: after larger writes each later sync takes more processor time.
    let zeros = vec![0; 64 << 10];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset).expect("there is room");
    }
    file.sync_all().expect("the disk works");
    file
}

impl Side for Bare {
    fn run(&mut self, batches: usize, _: usize) -> Cost {
        let bytes = (self.batch.len() * batches) as u64;
        if self.preparing == Preparing::Before && self.end + bytes > FILE_BYTES {
            self.go_over();
        }
        let syncs = Cell::new(0);
        let busy = Arc::clone(&self.busy);
        measure(
            0..batches,
            || syncs.get(),
            |_| {
                self.append();
                syncs.set(syncs.get() + 1);
            },
            || drop(busy.lock()),
        )
    }
}
