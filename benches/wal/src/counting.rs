//! The real disk of raft-wal, with a count of what it is asked to do.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft_wal::{Disk, DiskFile, FileDisk};

/// Syncs of files and of the directory since the disk was opened.
#[derive(Clone, Default)]
pub struct Syncs(Arc<AtomicU64>);

impl Syncs {
    /// So many.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A [`FileDisk`] that counts its syncs.
pub struct CountingDisk {
    disk: FileDisk,
    syncs: Syncs,
}

impl CountingDisk {
    /// In this directory.
    pub fn open(directory: &Path) -> (Self, Syncs) {
        let disk = FileDisk::open(directory).expect("the directory is ours");
        let syncs = Syncs::default();
        (Self { disk, syncs: syncs.clone() }, syncs)
    }

    fn counted(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(CountingFile { file, syncs: self.syncs.clone() })
    }
}

impl Disk for CountingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.counted(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.counted(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.syncs.0.fetch_add(1, Ordering::Relaxed);
        self.disk.sync_directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
}

struct CountingFile {
    file: Box<dyn DiskFile>,
    syncs: Syncs,
}

impl DiskFile for CountingFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.0.fetch_add(1, Ordering::Relaxed);
        self.file.sync()
    }
}
