//! A simulated disk with somebody in between, who does something else than the log asked for.

use std::io;
use std::sync::Arc;

use raft_wal::sim::SimDisk;
use raft_wal::{Disk, DiskFile};

/// What is done before an operation, instead of it, or behind it; nothing, unless it is said here.
pub(crate) trait Meddler: Send + Sync + 'static {
    /// Before a file is created: it is not, if this fails.
    fn create(&self) -> io::Result<()> {
        Ok(())
    }

    /// Instead of a read: it says that it read so many bytes.
    fn read(&self) -> Option<usize> {
        None
    }

    /// Instead of a write: it says that it wrote so many bytes.
    fn write(&self) -> Option<usize> {
        None
    }

    /// A file got this name just now, and the directory was not synced yet.
    fn renamed(&self, _to: &str) {}
}

/// The disk, as a process sees it that the next crash or restart of the disk ends.
pub(crate) struct Between<M> {
    disk: SimDisk,
    meddler: Arc<M>,
}

impl<M: Meddler> Between<M> {
    pub(crate) fn on(disk: &SimDisk, meddler: Arc<M>) -> Arc<dyn Disk> {
        Arc::new(Self { disk: disk.for_this_life(), meddler })
    }

    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FileBetween { file, meddler: Arc::clone(&self.meddler) })
    }
}

impl<M: Meddler> Disk for Between<M> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.meddler.create()?;
        Ok(self.file(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)?;
        self.meddler.renamed(to);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
}

struct FileBetween<M> {
    file: Box<dyn DiskFile>,
    meddler: Arc<M>,
}

impl<M: Meddler> DiskFile for FileBetween<M> {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.meddler.read().map_or_else(|| self.file.read_at(into, offset), Ok)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.meddler.write().map_or_else(|| self.file.write_at(bytes, offset), Ok)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
