//! What the log needs from a disk: one flat directory of files.
//!
//! The shipping implementation is [`FileDisk`](crate::FileDisk); the simulated one is
//! [`sim::SimDisk`](crate::sim::SimDisk). The same log runs over both.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::error::DiskError;
use crate::format::SECTOR_BYTES;

/// One directory, as seen by one process at a time.
///
/// Data and names become durable apart: a file's bytes by [`DiskFile::sync`], its name by
/// [`Disk::sync_directory`]. Implementations translate nothing and retry nothing.
pub trait Disk: Send + Sync {
    /// The names of all files, in any order.
    ///
    /// # Errors
    /// Those of the operating system, as in all methods.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new, empty file for reading and writing. It is an error if the name is taken.
    ///
    /// # Errors
    /// As above.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// An existing file for reading.
    ///
    /// # Errors
    /// As above.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name, atomically; a file that has that name already is replaced.
    ///
    /// # Errors
    /// As above.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As above.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which names exist and what they refer to.
    ///
    /// # Errors
    /// As above. After an error nothing is known about any name changed since the last success.
    fn sync_directory(&self) -> io::Result<()>;

    /// An unpredictable number; in a simulation one from its seed.
    ///
    /// # Errors
    /// As above.
    fn random(&self) -> io::Result<u64>;
}

/// One open file.
pub trait DiskFile: Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Those of the operating system, as in all methods.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads some bytes at this offset; 0 at the end of the file.
    ///
    /// # Errors
    /// As above.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of these bytes at this offset, at least one, and says how many.
    ///
    /// # Errors
    /// As above.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written so far durable, and as much metadata as is needed to read it.
    ///
    /// # Errors
    /// As above. After an error nothing is known about any byte written since the last success, and
    /// asking again proves nothing: Linux marks the lost pages clean and then reports success.
    fn sync(&self) -> io::Result<()>;
}

/// A disk whose directory is never synced again after that failed once, whoever asks: the log and the
/// snapshots sync it from several threads, and the system tells only one of them.
pub(crate) struct Guarded {
    disk: Arc<dyn Disk>,
    failed: Mutex<bool>,
}

impl Guarded {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, failed: Mutex::new(false) }
    }
}

impl Disk for Guarded {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        // One at a time: what succeeds after a failure must not have begun before it.
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(io::Error::other("it failed earlier, and what it lost then is unknown"));
        }
        let outcome = self.disk.sync_directory();
        *failed = outcome.is_err();
        outcome
    }

    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
}

/// A file with its name, so that errors can tell it.
pub(crate) struct NamedFile {
    pub(crate) name: String,
    file: Box<dyn DiskFile>,
}

impl NamedFile {
    pub(crate) fn create(disk: &dyn Disk, name: String) -> Result<Self, DiskError> {
        let file = disk.create(&name).map_err(DiskError::of("create", &name))?;
        Ok(Self { name, file })
    }

    /// An existing file, for reading.
    pub(crate) fn open(disk: &dyn Disk, name: &str) -> Result<Self, DiskError> {
        let file = disk.open(name).map_err(DiskError::of("open", name))?;
        Ok(Self { name: name.to_owned(), file })
    }

    pub(crate) fn bytes(&self) -> Result<u64, DiskError> {
        self.file.bytes().map_err(DiskError::of("read", &self.name))
    }

    /// Fills `into` from this offset, or as much of it as there is before the end of the file; says
    /// how much.
    pub(crate) fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize, DiskError> {
        read_all(self.file.as_ref(), into, offset).map_err(DiskError::of("read", &self.name))
    }

    /// The first bytes of the file `name`, at most `bytes_max` of them: no length is believed
    /// blindly. With them the length of the whole.
    pub(crate) fn read(
        disk: &dyn Disk,
        name: &str,
        bytes_max: u64,
    ) -> Result<(Vec<u8>, u64), DiskError> {
        let mut content = Vec::new();
        let length = Self::read_into(&mut content, disk, name, bytes_max)?;
        Ok((content, length))
    }

    /// As [`Self::read`], into a buffer that served before: new memory costs more than the reading.
    pub(crate) fn read_into(
        content: &mut Vec<u8>,
        disk: &dyn Disk,
        name: &str,
        bytes_max: u64,
    ) -> Result<u64, DiskError> {
        let result = disk.open(name).and_then(|file| {
            let bytes = file.bytes()?;
            let wanted = usize::try_from(bytes.min(bytes_max)).map_err(io::Error::other)?;
            content.resize(wanted, 0);
            match read_all(file.as_ref(), content, 0)? {
                read if read == wanted => Ok(bytes),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        });
        result.map_err(DiskError::of("read", name))
    }

    /// Writes all of `bytes`, in as many steps as the system makes of it.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), DiskError> {
        write_all(self.file.as_ref(), bytes, offset).map_err(DiskError::of("write", &self.name))
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file.sync().map_err(DiskError::of("sync", &self.name))
    }

    pub(crate) fn rename(&mut self, disk: &dyn Disk, to: String) -> Result<(), DiskError> {
        disk.rename(&self.name, &to).map_err(DiskError::of("rename", &self.name))?;
        self.name = to;
        Ok(())
    }
}

pub(crate) fn sync_directory(disk: &dyn Disk) -> Result<(), DiskError> {
    disk.sync_directory().map_err(DiskError::of("sync", "the directory"))
}

/// Removes a file. One that is gone already is what was wanted.
pub(crate) fn remove(disk: &dyn Disk, name: &str) -> Result<(), DiskError> {
    match disk.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(DiskError::of("remove", name)),
    }
}

pub(crate) fn random(disk: &dyn Disk) -> Result<u64, DiskError> {
    disk.random().map_err(DiskError::of("draw", "a random number"))
}

/// A write may be short without being an error: the rest is asked for again. An interruption wrote
/// nothing. Anything else ends it: whether a failed write arrived is unknown.
fn write_all(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written.min(bytes.len())..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sectors that the medium cannot give back any more are damaged like any others: something that no
/// checksum fits stands in for them, and whoever reads judges by that. Not if they are many: then the
/// disk has failed.
fn read_all(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let (mut done, mut unreadable) = (0, 0);
    while done < into.len() {
        let at = offset + done as u64;
        match file.read_at(&mut into[done..], at) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_unreadable(&error) => {
                // Less than a sector, so it fits.
                let within = (at % SECTOR_BYTES as u64) as usize;
                let end = into.len().min(done + SECTOR_BYTES - within);
                match file.read_at(&mut into[done..end], at) {
                    Ok(0) => break,
                    Ok(read) => done += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if is_unreadable(&error) && unreadable < UNREADABLE_MAX => {
                        into[done..end].fill(UNREADABLE);
                        unreadable += 1;
                        done = end;
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Did the medium itself fail, at this place?
fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// So many sectors may be unreadable in what is read at once: a bad place takes eight of them on most
/// disks, and of a disk that is gone not even the identity, sixteen sectors, can be read.
const UNREADABLE_MAX: usize = 15;

/// Stands in for what cannot be read: not zeros, which would look as if nothing had been written.
const UNREADABLE: u8 = 0xBD;

#[cfg(test)]
mod tests {
    use crate::sim::{Damage, SimDisk};

    use super::*;

    const FILE: &str = "file";
    const SECTORS: u64 = 4;

    fn content() -> Vec<u8> {
        (0..SECTORS * SECTOR_BYTES as u64).map(|at| (at % 181) as u8).collect()
    }

    /// Just the sectors that cannot be read are made up, and neither more nor less, wherever a read
    /// begins and ends.
    #[test]
    fn only_what_cannot_be_read_is_made_up() {
        for unreadable in 0..SECTORS {
            let disk = SimDisk::new(1);
            disk.put(FILE, content());
            assert!(disk.damage(FILE, &Damage::Unreadable { sector: unreadable }));
            let mut expected = content();
            expected[unreadable as usize * SECTOR_BYTES..][..SECTOR_BYTES].fill(UNREADABLE);
            let file = NamedFile::open(&disk, FILE).unwrap();
            for (start, length) in [(0, 2048), (0, 700), (100, 1000), (511, 1), (513, 1535)] {
                let mut read = vec![0; length];
                assert_eq!(file.read_at(&mut read, start as u64).unwrap(), length);
                assert!(
                    read == expected[start..start + length],
                    "{unreadable}: {length} at {start}"
                );
            }
        }
    }

    /// A file that counts what it is asked for.
    struct Counting(Mutex<Vec<usize>>);

    impl DiskFile for Counting {
        fn bytes(&self) -> io::Result<u64> {
            Ok(100)
        }

        fn read_at(&self, into: &mut [u8], _offset: u64) -> io::Result<usize> {
            self.0.lock().unwrap().push(into.len());
            Ok(into.len().min(60))
        }

        fn write_at(&self, bytes: &[u8], _offset: u64) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.len());
            Ok(bytes.len().min(60))
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_asked_for_that_is_not_missing() {
        let file = Counting(Mutex::default());
        assert_eq!(read_all(&file, &mut [0; 100], 0).unwrap(), 100);
        assert_eq!(read_all(&file, &mut [], 0).unwrap(), 0);
        write_all(&file, &[0; 100], 0).unwrap();
        write_all(&file, &[], 0).unwrap();
        assert_eq!(*file.0.lock().unwrap(), [100, 40, 100, 40]);
    }
}
