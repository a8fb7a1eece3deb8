//! A disk in memory that loses what a real one may lose: for simulations and tests.
//!
//! [`SimDisk`] keeps, for every file, what was synced apart from what was only written, and names
//! apart from data. [`SimDisk::crash`] is a power cut: of everything not synced, a random subset of
//! 512-byte sectors and of changed names is kept. [`SimDisk::restart`] is the end of a process:
//! nothing is lost, but what was never synced may still be lost at a later power cut. Faults are
//! injected by [`SimDisk::inject`]; damage at rest is done by the methods under "at rest".
//!
//! Deterministic: the same seed and the same calls give the same bytes. There are no threads and no
//! clock here; a simulation decides itself how long an operation takes.
//!
//! ```
//! use std::sync::Arc;
//! use raft_core::{Membership, NodeId};
//! use raft_wal::{Log, WalConfig, sim::SimDisk};
//!
//! let node = NodeId::new(1).expect("not zero");
//! let members = Membership::new([node])?;
//! let mut config = WalConfig::new("simulated", "demo", node, members);
//! config.segment_bytes = 64 << 10;
//! let disk = SimDisk::new(7);
//! let opened = Log::open(Arc::new(disk.for_this_life()), &config)?;
//! assert!(opened.report.created);
//! disk.crash(); // the log of before only gets errors from now on
//! let opened = Log::open(Arc::new(disk.for_this_life()), &config)?;
//! assert!(!opened.report.created);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::format::mix;

mod state;

use state::{FileState, NameChange, State};

/// A simulated disk. Clones are the same disk; so is, after a [`crash`](SimDisk::crash) or a
/// [`restart`](SimDisk::restart), this handle, while files opened before only return errors.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The life in which this handle is used, or `None` for the owner's handle, which is always
    /// valid.
    life: Option<u64>,
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails at this operation: it may have happened in part, and every later one fails
    /// until [`SimDisk::crash`].
    PowerCut,
    /// This operation, of whatever kind, fails with an I/O error. A write may have happened in
    /// part. A failed sync drops what it could not write and keeps it readable, as Linux does: a
    /// second one succeeds and proves nothing.
    Error,
    /// From this operation on there is no space: everything that needs some fails.
    Full,
}

/// What happened on a disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimStats {
    /// Operations that change something: create, write, sync, rename, remove, sync of the
    /// directory.
    pub operations: u64,
    /// Syncs of a file that had failed to sync before: a well-made log does none.
    pub syncs_after_failure: u64,
    /// Writes that were cut short on purpose.
    pub short_writes: u64,
}

impl SimDisk {
    /// An empty disk; everything random about it comes from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { random: mix(seed ^ 0xD15C), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), life: None }
    }

    /// A handle that dies with the next [`crash`](Self::crash) or [`restart`](Self::restart): to be
    /// given to the process that these will end.
    #[must_use]
    pub fn for_this_life(&self) -> Self {
        let life = Some(self.state().life);
        Self { state: Arc::clone(&self.state), life }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere has its own message to tell.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power: of what was not synced, a random subset survives. Faults are over.
    pub fn crash(&self) {
        let mut state = self.state();
        state.lose_names();
        state.lose_data();
        state.begin_life();
    }

    /// Ends the process that uses the disk, without a power cut: what it wrote is still there.
    /// Faults are over.
    pub fn restart(&self) {
        self.state().begin_life();
    }

    /// Lets a fault happen after this many more operations that change something succeeded.
    pub fn inject(&self, fault: Fault, after: u64) {
        let mut state = self.state();
        state.fault = Some((state.stats.operations + after, fault));
    }

    /// Makes every write write a part of what it was asked to, as a disk may.
    pub fn shorten_writes(&self) {
        self.state().short_writes = true;
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> SimStats {
        self.state().stats
    }

    /// An independent copy of the disk as it is: to try several futures.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let state = self.state();
        let fork = State {
            random: mix(seed ^ 0xF02C),
            life: state.life,
            files: state.files.clone(),
            next_file: state.next_file,
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: state.name_changes.clone(),
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(fork)), life: None }
    }

    /// At rest: the names of all files, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// At rest: what is in a file, if there is one of this name.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.names.get(name)?;
        Some(state.files.get(file)?.content.clone())
    }

    /// At rest: puts a file of this content there, durable at once, in place of one of that name.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        let mut state = self.state();
        let file = state.next_file;
        state.next_file += 1;
        let durable = content.clone();
        state.files.insert(file, FileState { content, durable, ..FileState::default() });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// At rest: removes a file, durably. Was there one?
    pub fn take(&self, name: &str) -> bool {
        let mut state = self.state();
        state.durable_names.remove(name);
        state.names.remove(name).is_some()
    }

    fn operate<T>(&self, act: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        state.check_life(self.life)?;
        let number = state.stats.operations;
        state.stats.operations += 1;
        let due = state.fault.filter(|(at, _)| number >= *at).map(|(_, fault)| fault);
        match due {
            None => act(&mut state, true),
            Some(Fault::Full) => {
                state.full = true;
                act(&mut state, true)
            }
            Some(fault) => {
                state.fault = None;
                state.powerless = fault == Fault::PowerCut;
                // Whether and how far the operation went is up to chance; that it failed is not.
                let _outcome = act(&mut state, false);
                Err(io::Error::other("injected fault"))
            }
        }
    }

    fn look<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        state.check_life(self.life)?;
        act(&mut state)
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.look(|state| Ok(state.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let (file, life) = self.operate(|state, _| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.no_space()?;
            let file = state.next_file;
            state.next_file += 1;
            state.files.insert(file, FileState::default());
            let change = NameChange::Create { name: name.to_owned(), file };
            state.change_name(change);
            Ok((file, state.life))
        })?;
        Ok(Box::new(SimFile { disk: self.in_life(life), file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let (file, life) = self.look(|state| {
            let file = state.names.get(name).copied();
            let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            Ok((file, state.life))
        })?;
        Ok(Box::new(SimFile { disk: self.in_life(life), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate(|state, _| {
            let file = state.names.get(from).copied();
            let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let (from, to) = (from.to_owned(), to.to_owned());
            state.change_name(NameChange::Rename { from, to, file });
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate(|state, _| {
            if !state.names.contains_key(name) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.change_name(NameChange::Remove { name: name.to_owned() });
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.operate(|state, healthy| {
            if healthy {
                state.settle_names();
            } else if !state.powerless {
                // As with data: what could not be written is visible, and forgotten.
                state.name_changes.clear();
            }
            Ok(())
        })
    }

    fn random(&self) -> io::Result<u64> {
        self.look(|state| Ok(state.next_random()))
    }
}

impl SimDisk {
    fn in_life(&self, life: u64) -> Self {
        Self { state: Arc::clone(&self.state), life: Some(life) }
    }
}

struct SimFile {
    disk: SimDisk,
    file: u64,
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.look(|state| Ok(state.file(self.file)?.content.len() as u64))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.look(|state| {
            let content = &state.file(self.file)?.content;
            let start = usize::try_from(offset).map_or(content.len(), |at| at.min(content.len()));
            let count = into.len().min(content.len() - start);
            into[..count].copy_from_slice(&content[start..start + count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.operate(|state, healthy| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            let mut count = bytes.len();
            if !healthy {
                count = state.cut_short(offset, count);
            } else if state.short_writes {
                // At least one byte, or it would have been an error.
                count = match state.cut_short(offset, count) {
                    0 => count,
                    cut => cut,
                };
                state.stats.short_writes += u64::from(count < bytes.len());
            }
            let grows = offset + count > state.file(self.file)?.content.len();
            if grows {
                state.no_space()?;
            }
            state.file(self.file)?.write(&bytes[..count], offset);
            Ok(count)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate(|state, healthy| {
            let powerless = state.powerless;
            let again = state.file(self.file)?.sync_failed;
            state.stats.syncs_after_failure += u64::from(again);
            let file = state.file(self.file)?;
            if healthy {
                for sector in std::mem::take(&mut file.dirty) {
                    file.settle(sector);
                }
                if file.durable.len() < file.content.len() {
                    file.durable.resize(file.content.len(), 0);
                }
            } else if !powerless {
                // The pages are marked clean, readable and lost.
                file.dirty.clear();
                file.sync_failed = true;
            }
            Ok(())
        })
    }
}
