//! A simulated disk that is watched: what was changed on it, operation by operation.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use raft_wal::sim::SimDisk;
use raft_wal::{Disk, DiskFile};

/// The disk, as a process sees it that the next crash or restart of the disk ends.
pub(crate) struct Watched {
    disk: SimDisk,
    state: Arc<Mutex<Watch>>,
}

#[derive(Default)]
struct Watch {
    seen: Vec<String>,
    /// What a file is called now that is open.
    names: BTreeMap<u64, String>,
    files: u64,
}

impl Watched {
    pub(crate) fn on(disk: &SimDisk) -> Arc<Self> {
        Arc::new(Self { disk: disk.for_this_life(), state: Arc::default() })
    }

    /// What was done since this was last asked; segments are told by their number, snapshots by their
    /// index.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    fn note(&self, what: String) {
        self.state.lock().unwrap().seen.push(what);
    }

    fn file(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let mut state = self.state.lock().unwrap();
        state.files += 1;
        let number = state.files;
        state.names.insert(number, short(name));
        Box::new(WatchedFile { number, file, state: Arc::clone(&self.state) })
    }
}

fn short(name: &str) -> String {
    let kind = ["segment", "snapshot"].into_iter().find(|kind| name.starts_with(kind));
    match kind {
        Some(kind) => {
            let digits = name.rsplit('-').next().unwrap_or_default();
            format!("{kind} {}", digits.trim_start_matches('0'))
        }
        None => name.to_owned(),
    }
}

impl Disk for Watched {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.note(format!("create {}", short(name)));
        Ok(self.file(name, self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (before, after) = (short(from), short(to));
        self.note(format!("rename {before} to {after}"));
        let names = &mut self.state.lock().unwrap().names;
        names.values_mut().filter(|name| **name == before).for_each(|name| name.clone_from(&after));
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.note(format!("remove {}", short(name)));
        self.disk.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.note("sync the directory".to_owned());
        self.disk.sync_directory()
    }

    fn random(&self) -> io::Result<u64> {
        self.disk.random()
    }
}

struct WatchedFile {
    number: u64,
    file: Box<dyn DiskFile>,
    state: Arc<Mutex<Watch>>,
}

impl WatchedFile {
    fn note(&self, what: &str) {
        let mut state = self.state.lock().unwrap();
        let told = format!("{what} {}", state.names[&self.number]);
        state.seen.push(told);
    }
}

impl DiskFile for WatchedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.note(&format!("write {} at {offset} of", bytes.len()));
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.note("sync");
        self.file.sync()
    }
}
