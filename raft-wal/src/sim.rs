//! A disk in memory that does what a real one may do: for simulations and tests.
//!
//! [`SimDisk`] is a [`Disk`] like any other, so the shipping log runs over it unchanged, and so does
//! whatever else writes to a `Disk`. It keeps what reads return (the cache of the system) apart from
//! what a power cut leaves, for every 512-byte sector, and names apart from data.
//!
//! # Lives
//!
//! The code under test gets [`SimDisk::for_this_life`], the test keeps the disk itself.
//! [`SimDisk::crash`] is a power cut: of everything not synced, a random subset of sectors and of
//! changed names is kept. [`SimDisk::restart`] is the end of a process: nothing is lost, but what
//! was never synced may still be lost at a later power cut. Both end all faults and make everything
//! that was open before return errors.
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
//!
//! # Faults
//!
//! * *At every operation*: [`SimDisk::inject`] lets one fault happen after so many operations that
//!   change something. A loop over that number, until a run ends before its fault, tries every
//!   place there is.
//! * *Of a kind*: a [`FaultRule`] hits chosen [`Operation`]s of chosen files, once, some times, or
//!   with a chance: errors, interruptions, slowness, writes that the device loses or puts elsewhere.
//! * *Space*: [`SimDisk::set_capacity`].
//! * *At rest*: [`Damage`] to bytes, and files that are missing, renamed, duplicated.
//! * *Every power cut*: [`SimDisk::power_cuts`] forks the disk for every subset of what is unsynced.
//!
//! ```
//! use raft_wal::{Disk, sim::SimDisk};
//!
//! let disk = SimDisk::new(7);
//! let file = disk.create("file")?;
//! file.write_at(&[1; 1024], 0)?;
//! let cuts = disk.power_cuts(100, 7);
//! // The name and each of two sectors survive or not.
//! assert!(cuts.is_exhaustive());
//! assert_eq!(cuts.len(), 8);
//! for cut in cuts {
//!     let left = cut.disk.read("file").map_or(0, |content| content.len());
//!     assert!([0, 512, 1024].contains(&left), "{:?}", cut.survived);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`SimStats`] counts what really happened, so that a campaign can show that its faults did.
//!
//! # What it promises
//!
//! Deterministic: the same seed and the same calls give the same bytes. There are no threads and no
//! clock here; a [`Latency`] adds up what operations cost, for the clock of the simulation.
//!
//! Cheap: content is shared between cache, disk and forks until it changes, zeros take no room, and
//! a power cut or a fork costs what is unsynced or how many files there are, not what is in them.
//!
//! Of a sector that was written several times between two syncs, a power cut leaves what was durable
//! or what was written last, nothing between. A sector is never half written.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::disk::{Disk, DiskFile};
use crate::format::mix;

mod fault;
mod file;
mod latency;
mod power;
mod rest;
mod state;
mod stats;
#[cfg(test)]
mod tests;

pub use fault::{Fault, FaultRule, Operation};
pub use latency::{Cost, Latency};
pub use power::{PowerCut, PowerCuts, Unsynced};
pub use rest::Damage;
pub use stats::SimStats;

use fault::Target;
use state::{Fate, NameChange, State};

/// A simulated disk. Clones are the same disk; so is, after a [`crash`](SimDisk::crash) or a
/// [`restart`](SimDisk::restart), this handle, while files opened before only return errors.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The life in which this handle is used, or `None` for the owner's handle, which is always
    /// valid.
    life: Option<u64>,
}

impl SimDisk {
    /// An empty disk of unlimited size that costs no time; everything random about it comes from
    /// this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State { random: mix(seed ^ 0xD15C), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), life: None }
    }

    /// A handle that dies with the next [`crash`](Self::crash) or [`restart`](Self::restart): to be
    /// given to the process that these will end.
    #[must_use]
    pub fn for_this_life(&self) -> Self {
        let life = self.state().life;
        self.in_life(life)
    }

    fn in_life(&self, life: u64) -> Self {
        Self { state: Arc::clone(&self.state), life: Some(life) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere has its own message to tell.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the power: of what was not synced, a random subset survives. Faults are over.
    pub fn crash(&self) {
        let mut state = self.state();
        let survives = state.draw_survivors();
        state.cut_power(&survives);
    }

    /// Ends the process that uses the disk, without a power cut: what it wrote is still there.
    /// Faults are over.
    pub fn restart(&self) {
        self.state().begin_life();
    }

    /// An independent copy of the disk as it is, with its capacity and latency but without faults:
    /// to try several futures.
    #[must_use]
    pub fn fork(&self, seed: u64) -> Self {
        let fork = self.state().fork(seed);
        Self { state: Arc::new(Mutex::new(fork)), life: None }
    }

    /// Lets a fault happen after this many more operations that change something succeeded, in
    /// place of the one injected before, if that has not happened yet. [Rules](Self::add_fault)
    /// stay.
    pub fn inject(&self, fault: Fault, after: u64) {
        let mut state = self.state();
        state.rules.retain(|rule| !rule.injected);
        let mut rule = FaultRule::new(fault).after(after);
        rule.injected = true;
        state.rules.insert(0, rule);
    }

    /// Adds a rule about faults to come. Where several rules could hit, the first one does.
    pub fn add_fault(&self, rule: FaultRule) {
        if rule.can_hit_again() {
            self.state().rules.push(rule);
        }
    }

    /// No faults from now on: forgets rules and what was injected, and ends
    /// [`Fault::Full`]. What they did so far stays.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.rules.clear();
        state.full = false;
    }

    /// Ends [`Fault::Full`], as if somebody had tidied up. A [capacity](Self::set_capacity) stays.
    pub fn make_room(&self) {
        self.state().full = false;
    }

    /// Makes every write write a part of what it was asked to, as a disk may.
    pub fn shorten_writes(&self) {
        self.state().short_writes = true;
    }

    /// Makes every read return a part of what it was asked for, as a disk may.
    pub fn shorten_reads(&self) {
        self.state().short_reads = true;
    }

    /// How many bytes fit from now on, in all lives; `None` is no limit. It may be less than what
    /// is used.
    ///
    /// A write that makes a file longer gets what is left, in whole sectors, and fails with
    /// [`StorageFull`](io::ErrorKind::StorageFull) if that is none; so does a creation when nothing
    /// is left. Writes inside of a file always find room. What was removed gives its room back when
    /// no handle of it is open any more, at the latest in the next life.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// How many bytes are used: the lengths of all files that have a name or are open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// What operations cost from now on, in all lives.
    pub fn set_latency(&self, latency: Latency) {
        self.state().latency = latency;
    }

    /// What the operations cost since this was last asked, those that failed included.
    #[must_use]
    pub fn take_cost(&self) -> Duration {
        Duration::from_nanos(std::mem::take(&mut self.state().cost_ns))
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> SimStats {
        self.state().stats
    }

    /// Does what is asked, unless a fault hits it.
    fn operate<T>(
        &self,
        operation: Operation,
        target: Target<'_>,
        act: impl FnOnce(&mut State, Fate) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state();
        state.check_life(self.life)?;
        state.stats.operations += u64::from(operation.changes());
        state.charge_operation(operation);
        match state.due(operation, target) {
            None => act(&mut state, Fate::Succeeds),
            Some(Fault::Full) => {
                state.full = true;
                act(&mut state, Fate::Succeeds)
            }
            Some(Fault::Slow(longer)) => {
                state.stats.slow_operations += 1;
                state.charge(u64::try_from(longer.as_nanos()).unwrap_or(u64::MAX));
                act(&mut state, Fate::Succeeds)
            }
            Some(Fault::Interrupted) => {
                state.stats.interruptions += 1;
                Err(io::ErrorKind::Interrupted.into())
            }
            Some(fault @ (Fault::PowerCut | Fault::Error)) => {
                if fault == Fault::PowerCut {
                    state.powerless = true;
                    state.stats.operations_cut += 1;
                } else {
                    state.note_error(operation);
                }
                // Whether and how far the operation went is up to chance; that it failed is not.
                let _outcome = act(&mut state, Fate::Fails);
                Err(io::Error::other("injected fault"))
            }
            Some(lie) => act(&mut state, Fate::Lies(lie)),
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
        self.operate(Operation::List, Target::Directory, |state, _| {
            Ok(state.names.keys().cloned().collect())
        })
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.operate(Operation::Create, Target::Name(name), |state, fate| {
            let file = state.create(name, fate)?;
            Ok(state.opened(file, fate))
        })?;
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.operate(Operation::Open, Target::Name(name), |state, fate| {
            let file = state.named(name)?;
            Ok(state.opened(file, fate))
        })?;
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operate(Operation::Rename, Target::Names(from, to), |state, fate| {
            let file = state.named(from)?;
            let (from, to) = (from.to_owned(), to.to_owned());
            state.change_name(NameChange::Rename { from, to, file }, fate);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.operate(Operation::Remove, Target::Name(name), |state, fate| {
            state.named(name)?;
            state.change_name(NameChange::Remove { name: name.to_owned() }, fate);
            Ok(())
        })
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.operate(Operation::SyncDirectory, Target::Directory, |state, fate| {
            state.sync_directory(fate);
            Ok(())
        })
    }

    fn random(&self) -> io::Result<u64> {
        self.look(|state| Ok(state.next_random()))
    }
}

impl SimDisk {
    fn handle(&self, (file, life): (u64, u64)) -> Box<dyn DiskFile> {
        Box::new(SimFile { disk: self.in_life(life), file })
    }
}

struct SimFile {
    /// In the life in which the file was opened.
    disk: SimDisk,
    file: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if self.disk.life == Some(state.life) {
            state.closed(self.file);
        }
    }
}

impl DiskFile for SimFile {
    fn bytes(&self) -> io::Result<u64> {
        self.disk.look(|state| Ok(state.file(self.file)?.bytes() as u64))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.operate(Operation::Read, Target::File(self.file), |state, _| {
            state.read(self.file, into, offset)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.operate(Operation::Write, Target::File(self.file), |state, fate| {
            state.write(self.file, bytes, offset, fate)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate(Operation::Sync, Target::File(self.file), |state, fate| {
            state.sync(self.file, fate)
        })
    }
}
