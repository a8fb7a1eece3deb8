//! Snapshots on disk: written piece by piece under a temporary name, checked, synced, and only then
//! given the name under which recovery believes them. Two are kept.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft_core::{ChunkOrder, Incoming, LogBase, LogIndex, LogPosition, Snapshot, SnapshotId};

use crate::disk::{Disk, NamedFile, remove, sync_directory};
use crate::error::{DiskError, WalError};
use crate::format::snapshot::{CHUNK_BYTES, HEADER_BYTES, decode_header};

mod files;
mod reading;
mod writing;

use files::check;
pub(crate) use files::{JudgedSnapshot, SnapshotFiles};
pub use reading::SnapshotReader;
use writing::GrowingFile;
pub use writing::SnapshotWriter;

const SNAPSHOT_PREFIX: &str = "snapshot-";
/// What the names of files begin with that are not complete.
const TEMPORARY_PREFIX: &str = "incomplete-";

/// The newest snapshot, and the one before it: if the newest turns out damaged, the log is kept since
/// the other.
const SNAPSHOTS_KEPT: usize = 2;

/// The name of a snapshot: term and index of the last entry in it, with 20 digits so that they sort.
pub(crate) fn snapshot_name(position: LogPosition) -> String {
    format!("{SNAPSHOT_PREFIX}{:020}-{:020}", position.term.0, position.index.0)
}

/// Is it named like one?
pub(crate) fn is_snapshot(name: &str) -> bool {
    name.starts_with(SNAPSHOT_PREFIX)
}

/// The snapshots of a log: cut here, or fetched from another node.
///
/// Clones are the same store. It is used beside the log, by any thread: writing a snapshot does not
/// keep the log waiting.
#[derive(Clone)]
pub struct SnapshotStore {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    directory: u128,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Complete and durable, the newest last.
    held: Vec<Snapshot>,
    /// Those of them that this run wrote: their names are durable for certain. After a sync of the
    /// directory that failed, a run before this one may have left a name that only memory holds.
    certain: Vec<SnapshotId>,
    /// Found damaged by whoever read them, and not reported yet.
    damaged: Vec<Snapshot>,
    arriving: Option<Arriving>,
    /// Complete, checked and synced under a temporary name: each waits for the write that puts it in
    /// place of the log, while the next one may already be arriving.
    arrived: Vec<(Snapshot, NamedFile)>,
    /// How many temporary files there were.
    files: u64,
}

/// A snapshot that comes from another node.
struct Arriving {
    snapshot: Snapshot,
    /// Bytes of it that are here.
    held: u64,
    growing: GrowingFile,
}

impl SnapshotStore {
    /// A store of these snapshots, the newest last.
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: u128, held: Vec<Snapshot>) -> Self {
        let state = Mutex::new(State { held, ..State::default() });
        Self { shared: Arc::new(Shared { disk, directory, state }) }
    }

    fn disk(&self) -> &dyn Disk {
        self.shared.disk.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every statement: a panic elsewhere changes nothing.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshots that are held, the newest last.
    #[must_use]
    pub fn held(&self) -> Vec<Snapshot> {
        self.state().held.clone()
    }

    /// The log behind this index is what a damaged newest snapshot would be made good with: from the
    /// one before it, or from the beginning.
    pub(crate) fn fallback_index(&self) -> LogIndex {
        let state = self.state();
        let before = state.held.len().checked_sub(2).and_then(|n| state.held.get(n));
        before.map_or(LogIndex(0), Snapshot::index)
    }

    /// Begins a snapshot of the state machine as of `base`, which
    /// [`Node::snapshot_base`](raft_core::Node::snapshot_base) gave.
    ///
    /// # Errors
    /// [`WalError::NoSpace`], or [`WalError::Disk`].
    pub fn create(&self, base: LogBase) -> Result<SnapshotWriter, WalError> {
        let file = self.grow()?;
        Ok(SnapshotWriter { store: self.clone(), base, file: Some(file) })
    }

    fn grow(&self) -> Result<GrowingFile, WalError> {
        let number = {
            let mut state = self.state();
            state.files += 1;
            state.files
        };
        let name = format!("{TEMPORARY_PREFIX}{SNAPSHOT_PREFIX}{number}.tmp");
        GrowingFile::create(self.disk(), self.shared.directory, name).map_err(WalError::of_new_file)
    }

    /// Does what a node wants done with a snapshot that is on its way here, and says how much of it is
    /// here then: to be told the node as [`Input::SnapshotHeld`](raft_core::Input). A whole one is
    /// durable and was compared with its digest; if they differ it is discarded, and zero bytes are
    /// here.
    ///
    /// # Errors
    /// [`WalError::NoSpace`]: what had come of it is discarded; telling the node zero makes it ask
    /// again, which is better done after a pause. [`WalError::Disk`]: end the process.
    pub fn store(&self, incoming: Incoming) -> Result<Option<(SnapshotId, u64)>, WalError> {
        match incoming {
            Incoming::Begin(snapshot) => self.begin(snapshot).map(Some),
            Incoming::Chunk { snapshot, offset, bytes } => self.take(snapshot, offset, &bytes),
            Incoming::Abandon(id) => {
                let mut state = self.state();
                if let Some(arriving) = state.arriving.take_if(|it| it.snapshot.id() == id) {
                    discard(self.disk(), &arriving.growing.file.name);
                }
                self.discard_arrived(&mut state, |snapshot| snapshot.id() == id);
                Ok(None)
            }
        }
    }

    fn begin(&self, snapshot: Snapshot) -> Result<(SnapshotId, u64), WalError> {
        let id = snapshot.id();
        if let Some(held) = self.state().held_of(|known| *known == snapshot) {
            return Ok((id, held));
        }
        let growing = self.grow()?;
        let arriving = Arriving { snapshot, held: 0, growing };
        let mut state = self.state();
        if let Some(before) = state.arriving.replace(arriving) {
            discard(self.disk(), &before.growing.file.name);
        }
        if id.length == 0 {
            self.complete_arriving(&mut state)?;
        }
        Ok((id, 0))
    }

    fn take(
        &self,
        id: SnapshotId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Option<(SnapshotId, u64)>, WalError> {
        let mut state = self.state();
        let Some(arriving) = state.arriving.as_mut().filter(|it| it.snapshot.id() == id) else {
            // All of it is here; or nothing: it was abandoned, or had found no room.
            let held = state.held_of(|known| known.id() == id);
            return Ok(Some((id, held.unwrap_or_default())));
        };
        let follows = offset == arriving.held;
        let fits = bytes.len() as u64 <= arriving.snapshot.length - arriving.held;
        let mut outcome = Ok(());
        if follows && fits {
            outcome = arriving.growing.write(bytes).map_err(WalError::of_new_file);
            arriving.held = arriving.growing.length;
        }
        let is_complete = arriving.held == arriving.snapshot.length;
        if outcome.is_err()
            && let Some(arriving) = state.arriving.take()
        {
            discard(self.disk(), &arriving.growing.file.name);
        }
        outcome?;
        if is_complete {
            self.complete_arriving(&mut state)?;
        }
        Ok(Some((id, state.held_of(|known| known.id() == id).unwrap_or(0))))
    }

    /// All bytes are here: are they the right ones?
    fn complete_arriving(&self, state: &mut State) -> Result<(), WalError> {
        let Some(Arriving { snapshot, growing, .. }) = state.arriving.take() else {
            return Ok(());
        };
        let name = growing.file.name.clone();
        let finished = growing.finish(snapshot.base.clone()).map_err(|error| {
            discard(self.disk(), &name);
            WalError::of_new_file(error)
        });
        let (file, complete) = finished?;
        if complete == snapshot {
            state.arrived.push((snapshot, file));
        } else {
            tracing::warn!(snapshot = %snapshot.id(), "a snapshot arrived damaged");
            discard(self.disk(), &file.name);
        }
        Ok(())
    }

    fn discard_arrived(&self, state: &mut State, unwanted: impl Fn(&Snapshot) -> bool) {
        for (_, file) in state.arrived.extract_if(.., |(snapshot, _)| unwanted(snapshot)) {
            discard(self.disk(), &file.name);
        }
    }

    /// Makes the snapshot that has arrived one that is held, durably.
    pub(crate) fn publish(&self, snapshot: &Snapshot) -> Result<(), WalError> {
        let mut state = self.state();
        if state.held.last() == Some(snapshot) {
            return Ok(());
        }
        let Some(place) = state.arrived.iter().position(|(arrived, _)| arrived == snapshot) else {
            let reason = format!("a snapshot, {}, that has not arrived", snapshot.id());
            return Err(WalError::Refused { reason });
        };
        let (_, file) = state.arrived.remove(place);
        self.keep(&mut state, file, snapshot.clone())?;
        // Whatever else goes no further is not going to be wanted.
        self.discard_arrived(&mut state, |other| other.index() <= snapshot.index());
        Ok(())
    }

    /// The order carries the safety: content durable, then the name, then those before it may go.
    fn keep(
        &self,
        state: &mut State,
        mut file: NamedFile,
        snapshot: Snapshot,
    ) -> Result<(), WalError> {
        file.rename(self.disk(), snapshot_name(snapshot.base.position))?;
        sync_directory(self.disk())?;
        state.held.retain(|held| held.base.position != snapshot.base.position);
        state.damaged.retain(|damaged| damaged.base.position != snapshot.base.position);
        state.certain.push(snapshot.id());
        state.held.push(snapshot);
        state.held.sort_by_key(Snapshot::index);
        while state.held.len() > SNAPSHOTS_KEPT {
            let old = state.held.remove(0);
            state.certain.retain(|id| *id != old.id());
            // If it comes back after a power cut, the next start removes it.
            discard(self.disk(), &snapshot_name(old.base.position));
        }
        Ok(())
    }

    /// Reads a piece for a peer; `None` if the snapshot is not there, or not whole any more.
    ///
    /// # Errors
    /// [`WalError::Disk`]
    pub fn read_chunk(&self, order: &ChunkOrder) -> Result<Option<Bytes>, WalError> {
        let Some(mut reader) = self.open(order.snapshot)? else { return Ok(None) };
        let rest = order.snapshot.length.saturating_sub(order.offset);
        let wanted = rest.min(order.bytes_max);
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(CHUNKS_BYTES_MAX);
        let mut bytes = vec![0; wanted];
        reader.at = order.offset;
        match io::Read::read_exact(&mut reader, &mut bytes) {
            Ok(()) => Ok((wanted > 0).then(|| bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(%error, "a snapshot cannot be handed on");
                self.forget(order.snapshot);
                Ok(None)
            }
            Err(error) => Err(DiskError::of("read", &reader.file.name)(error).into()),
        }
    }

    /// The content of a snapshot that is held or has arrived, checked while it is read; `None` if
    /// there is no such one.
    ///
    /// # Errors
    /// [`WalError::Disk`]
    pub fn open(&self, id: SnapshotId) -> Result<Option<SnapshotReader>, WalError> {
        // Under the lock, so that it is not removed or renamed meanwhile.
        let state = self.state();
        let held = state.held.iter().find(|held| held.id() == id);
        let held = held.map(|held| snapshot_name(held.base.position));
        let arrived = state.arrived.iter().find(|(arrived, _)| arrived.id() == id);
        let Some(name) = held.or_else(|| arrived.map(|(_, file)| file.name.clone())) else {
            return Ok(None);
        };
        let file = NamedFile::open(self.disk(), &name)?;
        drop(state);
        let mut header = [0; HEADER_BYTES];
        let read = file.read_at(&mut header, 0)?;
        let Ok(salt) = decode_header(&header[..read], self.shared.directory) else {
            tracing::error!(file = file.name, "the header of a snapshot is damaged");
            self.forget(id);
            return Ok(None);
        };
        Ok(Some(SnapshotReader { file, salt, length: id.length, at: 0, chunk: None }))
    }

    /// Before the log up to this index is removed: makes sure that a snapshot stands for it. Is there
    /// one?
    pub(crate) fn ascertain(&self, index: LogIndex) -> Result<bool, WalError> {
        if index == LogIndex(0) {
            return Ok(true);
        }
        let (newest, is_certain) = {
            let state = self.state();
            let mut reaching = state.held.iter().rev().take_while(|held| held.index() >= index);
            let newest = reaching.clone().next().cloned();
            (newest, reaching.any(|held| state.certain.contains(&held.id())))
        };
        match newest {
            Some(_) if is_certain => Ok(true),
            Some(snapshot) => self.write_again(&snapshot),
            None => Ok(false),
        }
    }

    /// Writes a held snapshot again. As with the log's tail: what a run before this one left behind may
    /// be in memory only, and the log is about to rely on it. False if it is not whole any more.
    pub(crate) fn write_again(&self, snapshot: &Snapshot) -> Result<bool, WalError> {
        let Some(mut reader) = self.open(snapshot.id())? else { return Ok(false) };
        let mut writer = self.create(snapshot.base.clone())?;
        let mut piece = vec![0; CHUNK_BYTES];
        loop {
            match io::Read::read(&mut reader, &mut piece) {
                Ok(0) => break,
                Ok(read) => writer.write(&piece[..read])?,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%error, "a snapshot was damaged at rest");
                    self.forget(snapshot.id());
                    return Ok(false);
                }
                Err(error) => return Err(DiskError::of("read", &reader.file.name)(error).into()),
            }
        }
        Ok(writer.finish()? == *snapshot)
    }

    /// A damaged snapshot is none. Its file stays until another one takes its name. The next scrub
    /// reports it.
    pub(crate) fn forget(&self, id: SnapshotId) {
        let state = &mut *self.state();
        state.damaged.extend(state.held.extract_if(.., |held| held.id() == id));
    }

    /// One that is out of use and was not reported yet.
    pub(crate) fn damaged(&self) -> Option<Snapshot> {
        self.state().damaged.first().cloned()
    }

    pub(crate) fn reported(&self, id: SnapshotId) {
        self.forget(id);
        self.state().damaged.retain(|damaged| damaged.id() != id);
    }

    /// Reads all of a held snapshot and compares it with its digest, telling `pace` after each piece
    /// how many bytes that were, until that returns false. What is wrong with it, if it is still held.
    pub(crate) fn verify(
        &self,
        snapshot: &Snapshot,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Option<String> {
        if self.state().damaged.contains(snapshot) {
            return Some("it was found damaged when it was read".to_owned());
        }
        let name = snapshot_name(snapshot.base.position);
        let found = NamedFile::open(self.disk(), &name)
            .and_then(|file| check(&file, self.shared.directory, pace))
            .unwrap_or_else(|error| Err(error.to_string()));
        let what = match found {
            Ok(found) if found == *snapshot => return None,
            Ok(_) => "it is another snapshot than it was".to_owned(),
            Err(what) => what,
        };
        self.state().held.contains(snapshot).then_some(what)
    }
}

/// One order is served with at most this much.
const CHUNKS_BYTES_MAX: usize = 64 << 20;

fn discard(disk: &dyn Disk, name: &str) {
    if let Err(error) = remove(disk, name) {
        tracing::warn!(%error, "a file that is not needed stays until the next start");
    }
}

impl State {
    /// How much is here of a snapshot that is on its way or waits for its write.
    fn held_of(&self, is_it: impl Fn(&Snapshot) -> bool) -> Option<u64> {
        let arriving = self.arriving.as_ref().filter(|arriving| is_it(&arriving.snapshot));
        let arrived = self.arrived.iter().find(|(arrived, _)| is_it(arrived));
        arriving.map(|it| it.held).or(arrived.map(|(arrived, _)| arrived.length))
    }
}
