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

#[cfg(test)]
mod tests {
    use crate::sim::SimDisk;

    use super::*;

    #[test]
    fn everything_that_changes_something_is_refused() {
        let disk = SimDisk::new(1);
        disk.put("file", vec![7; 100]);
        let operations = disk.stats().operations;
        let read_only = ReadOnly::new(Arc::new(disk.for_this_life()));
        let file = read_only.open("file").unwrap();
        let mut content = [0; 100];
        assert_eq!((file.bytes().unwrap(), file.read_at(&mut content, 0).unwrap()), (100, 100));
        assert_eq!(content, [7; 100]);
        let outcomes = [
            read_only.create("other").map(drop),
            read_only.rename("file", "other"),
            read_only.remove("file"),
            read_only.sync_directory(),
            read_only.random().map(drop),
            file.write_at(&[1], 0).map(drop),
            file.sync(),
        ];
        for outcome in outcomes {
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
        assert_eq!(disk.stats().operations, operations);
        assert_eq!(disk.read("file").unwrap(), [7; 100]);
    }
}
