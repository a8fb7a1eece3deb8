//! The real disk: a directory of this machine, locked against other processes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::disk::{Disk, DiskFile};
use crate::error::{DiskError, OpenError};

/// The file whose lock keeps a second process away. It is empty and never removed.
pub(crate) const LOCK_FILE: &str = "LOCK";

/// A directory of real files.
///
/// It holds an exclusive `flock` on `LOCK` as long as it lives. The system releases the lock when
/// the process ends, however it ends.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    /// Open for as long as the disk is: names are made durable by syncing it.
    directory: File,
    lock: Option<File>,
}

impl FileDisk {
    /// Opens and locks the directory; creates it, and those above it, if there is none.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if it is in use, [`OpenError::Io`] if it cannot be used.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let failed = |doing| DiskError::of(doing, &dir.display().to_string());
        create_durably(dir).map_err(failed("create"))?;
        // Whoever made it may have been interrupted before its name was durable.
        sync_parent(dir).map_err(failed("sync the parent of"))?;
        let directory = File::open(dir).map_err(failed("open"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let path = dir.join(LOCK_FILE);
        let lock = options.open(&path);
        let lock = lock.map_err(DiskError::of("open", &path.display().to_string()))?;
        take_lock(&lock, FlockOperation::NonBlockingLockExclusive, dir)?;
        Ok(Self { dir: dir.to_owned(), directory, lock: Some(lock) })
    }

    /// Opens an existing directory for somebody who only looks at it: creates nothing, and shares the
    /// lock with others of that kind. Without a `LOCK`, as in a copy, there is nobody to keep away.
    pub(crate) fn open_shared(dir: &Path) -> Result<Self, OpenError> {
        let directory = File::open(dir);
        let directory = directory.map_err(DiskError::of("open", &dir.display().to_string()))?;
        let lock = match open_regular(&dir.join(LOCK_FILE)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(DiskError::of("open", LOCK_FILE)(error).into()),
        };
        if let Some(lock) = &lock {
            take_lock(lock, FlockOperation::NonBlockingLockShared, dir)?;
        }
        Ok(Self { dir: dir.to_owned(), directory, lock })
    }
}

fn take_lock(lock: &File, operation: FlockOperation, dir: &Path) -> Result<(), OpenError> {
    match flock(lock, operation) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(OpenError::Locked { dir: dir.to_owned() }),
        Err(error) => Err(DiskError::of("lock", LOCK_FILE)(error.into()).into()),
    }
}

/// Opens a file for reading that is one: opening a pipe would wait for somebody who writes to it.
fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)
}

/// Creates a directory with its parents, and makes each new name durable in the directory above it.
fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    create_durably(parent_of(dir))?;
    let created = fs::create_dir(dir);
    // Or somebody else did so at the same time; the lock decides whose it is.
    if dir.is_dir() { sync_parent(dir) } else { created }
}

fn parent_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => dir, // The root is its own parent.
    }
}

fn sync_parent(dir: &Path) -> io::Result<()> {
    File::open(parent_of(dir))?.sync_all()
}

/// Unlocked, not only closed: a process that another thread is just starting has a copy of the file, and
/// would keep the lock until it runs its own program.
impl Drop for FileDisk {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            let _ = flock(lock, FlockOperation::Unlock); // Closing it does the same, a moment later.
        }
    }
}

impl Disk for FileDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            // A name that is no text is none of ours.
            names.extend(file?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        Ok(Box::new(RealFile(options.open(self.dir.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(open_regular(&self.dir.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn random(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // `fdatasync` where there is one: segments have their length before they are used.
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_created_with_its_parents_and_locked() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let disk = FileDisk::open(&dir).unwrap();
        assert_eq!(disk.list().unwrap(), [LOCK_FILE]);
        assert!(matches!(FileDisk::open(&dir), Err(OpenError::Locked { .. })));
        drop(disk);
        FileDisk::open(&dir).unwrap();
    }

    /// Whoever starts a process has a copy of every open file for a moment, also of the lock.
    #[test]
    fn a_copy_of_the_lock_does_not_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path()).unwrap();
        let copy = disk.lock.as_ref().unwrap().try_clone().unwrap();
        drop(disk);
        FileDisk::open(dir.path()).unwrap();
        drop(copy);
    }

    #[test]
    fn whoever_creates_a_directory_at_the_same_time_is_in_nobodys_way() {
        let parent = tempfile::tempdir().unwrap();
        let start = std::sync::Barrier::new(4);
        for round in 0..50 {
            let dir = parent.path().join(format!("{round}/a/b"));
            std::thread::scope(|scope| {
                let create = || {
                    start.wait();
                    create_durably(&dir)
                };
                let created = [(); 4].map(|()| scope.spawn(create));
                for outcome in created.map(|thread| thread.join().unwrap()) {
                    outcome.unwrap();
                }
            });
        }
    }

    #[test]
    fn a_file_where_the_directory_should_be_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("data");
        std::fs::write(&file, "").unwrap();
        for dir in [file.clone(), file.join("n1")] {
            let error = FileDisk::open(&dir).unwrap_err();
            assert!(error.is_disk_failure(), "{error}");
            assert!(error.to_string().contains(&format!("create {}", dir.display())), "{error}");
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"");
    }

    #[test]
    fn whoever_only_looks_shares_the_lock_and_creates_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a");
        assert!(matches!(FileDisk::open_shared(&dir), Err(OpenError::Io { .. })));
        fs::create_dir(&dir).unwrap();
        let copy = FileDisk::open_shared(&dir).unwrap();
        assert!(copy.list().unwrap().is_empty());
        let owner = FileDisk::open(&dir).unwrap();
        assert!(matches!(FileDisk::open_shared(&dir), Err(OpenError::Locked { .. })));
        drop(owner);
        let one = FileDisk::open_shared(&dir).unwrap();
        let _two = FileDisk::open_shared(&dir).unwrap();
        drop(one);
        assert!(matches!(FileDisk::open(&dir), Err(OpenError::Locked { .. })));
    }

    #[test]
    fn what_is_no_file_is_an_error_and_is_not_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path()).unwrap();
        mknodat(CWD, dir.path().join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        for name in ["pipe", "directory"] {
            let error = disk.open(name).map(drop).unwrap_err();
            assert!(error.to_string().contains("no regular file"), "{error}");
        }
    }

    #[test]
    fn every_directory_has_one_above_it() {
        let above = [("a/b", "a"), ("/a", "/"), ("a", "."), ("/", "/")];
        for (dir, parent) in above {
            assert_eq!(parent_of(Path::new(dir)), Path::new(parent));
        }
    }

    #[test]
    fn files_are_written_read_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path()).unwrap();
        let file = disk.create("one").unwrap();
        assert_eq!(file.write_at(b"word", 4).unwrap(), 4);
        file.sync().unwrap();
        disk.rename("one", "two").unwrap();
        disk.sync_directory().unwrap();
        let file = disk.open("two").unwrap();
        let mut read = [0; 8];
        assert_eq!((file.bytes().unwrap(), file.read_at(&mut read, 0).unwrap()), (8, 8));
        assert_eq!(&read, b"\0\0\0\0word");
        assert!(disk.create("two").is_err(), "the name is taken");
        disk.remove("two").unwrap();
        assert!(disk.open("two").is_err());
        assert_ne!(disk.random().unwrap(), disk.random().unwrap());
    }
}
