//! A disk that only reads, whatever the one beneath it could do.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};

type Watcher = Arc<dyn Fn(u64) + Send + Sync>;

/// Hands reads through and tells how many bytes they were; refuses everything else.
pub(super) struct ReadOnly {
    disk: Arc<dyn Disk>,
    watcher: Option<Watcher>,
}

impl ReadOnly {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, watcher: None }
    }

    pub(super) fn watch(&mut self, watcher: Watcher) {
        self.watcher = Some(watcher);
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnly {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(ReadOnlyFile { file: self.disk.open(name)?, watcher: self.watcher.clone() }))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self) -> io::Result<()> {
        refused()
    }

    fn random(&self) -> io::Result<u64> {
        refused()
    }
}

struct ReadOnlyFile {
    file: Box<dyn DiskFile>,
    watcher: Option<Watcher>,
}

impl DiskFile for ReadOnlyFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        // In pieces, so that whoever watches a large file being read sees it come.
        let piece = into.len().min(READ_BYTES_MAX);
        let read = self.file.read_at(&mut into[..piece], offset)?;
        if let Some(watcher) = &self.watcher {
            watcher(read as u64);
        }
        Ok(read)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }
}

const READ_BYTES_MAX: usize = 4 << 20;
