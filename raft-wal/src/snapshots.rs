//! Snapshots on disk: written piece by piece under a temporary name, checked, synced, and only then
//! given the name under which recovery believes them. Two are kept.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use raft_core::{ChunkOrder, Incoming, LogBase, LogIndex, LogPosition, Snapshot, SnapshotId, Term};
use xxhash_rust::xxh3::Xxh3;

use crate::disk::{Disk, NamedFile, random, remove, sync_directory};
use crate::error::{DiskError, WalError};
use crate::format::snapshot::{
    CHUNK_BYTES, FOOTER_BYTES_MAX, FOOTER_LENGTH_BYTES, HEADER_BYTES, chunk_crc, chunk_offset,
    decode_footer, decode_header, encode_footer, encode_header, footer_offset,
};
use crate::format::u32_at;

const SNAPSHOT_PREFIX: &str = "snapshot-";
/// What the names of files begin with that are not complete.
const TEMPORARY_PREFIX: &str = "incomplete-";

/// The newest snapshot, and the one before it: if the newest turns out damaged, the log is kept since
/// the other.
const SNAPSHOTS_KEPT: usize = 2;

/// The name of a snapshot: term and index of the last entry in it, with 20 digits so that they sort.
fn snapshot_name(position: LogPosition) -> String {
    format!("{SNAPSHOT_PREFIX}{:020}-{:020}", position.term.0, position.index.0)
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
    arriving: Option<Arriving>,
    /// Those that have arrived, checked and synced, with files that have no lasting names yet: the write
    /// that puts one in the place of the log may wait in a queue while the next one arrives.
    arrived: Vec<(Snapshot, NamedFile)>,
    /// How many temporary files there were.
    files: u64,
}

/// A snapshot that comes from another node.
struct Arriving {
    snapshot: Snapshot,
    file: GrowingFile,
}

/// A snapshot file that is being written.
struct GrowingFile {
    file: NamedFile,
    salt: u64,
    /// The beginning of the next chunk.
    rest: Vec<u8>,
    /// Bytes of content, `rest` included.
    length: u64,
    digest: Xxh3,
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
                    discard(self.disk(), &arriving.file.file.name);
                }
                for (_, file) in state.arrived.extract_if(.., |(it, _)| it.id() == id) {
                    discard(self.disk(), &file.name);
                }
                Ok(None)
            }
        }
    }

    fn begin(&self, snapshot: Snapshot) -> Result<(SnapshotId, u64), WalError> {
        let id = snapshot.id();
        if let Some(held) = self.state().held_of(id) {
            return Ok((id, held));
        }
        let file = self.grow()?;
        let mut state = self.state();
        if let Some(before) = state.arriving.take() {
            discard(self.disk(), &before.file.file.name);
        }
        let empty = snapshot.length == 0;
        let arriving = Arriving { snapshot, file };
        if empty {
            self.complete(&mut state, arriving)?;
        } else {
            state.arriving = Some(arriving);
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
        let Some(mut arriving) = state.arriving.take_if(|it| it.snapshot.id() == id) else {
            // All of it is here; or nothing: it was abandoned, or had found no room.
            return Ok(Some((id, state.held_of(id).unwrap_or_default())));
        };
        let held = arriving.file.length;
        if offset == held && bytes.len() as u64 <= id.length - held {
            arriving.file.write(bytes).map_err(|error| {
                discard(self.disk(), &arriving.file.file.name);
                WalError::of_new_file(error)
            })?;
        }
        if arriving.file.length == id.length {
            self.complete(&mut state, arriving)?;
        } else {
            state.arriving = Some(arriving);
        }
        Ok(Some((id, state.held_of(id).unwrap_or_default())))
    }

    /// All bytes are here: are they the right ones?
    fn complete(&self, state: &mut State, arriving: Arriving) -> Result<(), WalError> {
        let Arriving { snapshot, file } = arriving;
        let name = file.file.name.clone();
        let finished = file.finish(snapshot.base.clone()).map_err(|error| {
            discard(self.disk(), &name);
            WalError::of_new_file(error)
        });
        let (file, complete) = finished?;
        if complete == snapshot {
            state.arrived.push((snapshot, file));
        } else {
            tracing::warn!(snapshot = %snapshot.id(), "a snapshot arrived damaged");
            discard(self.disk(), &name);
        }
        Ok(())
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
        let (snapshot, file) = state.arrived.swap_remove(place);
        self.keep(&mut state, file, snapshot)
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
        state.certain.push(snapshot.id());
        let place = state.held.partition_point(|held| held.index() < snapshot.index());
        state.held.insert(place, snapshot);
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

    /// Before the log up to this index is removed: makes sure that a snapshot stands for it. False if
    /// there is none.
    pub(crate) fn ascertain(&self, index: LogIndex) -> Result<bool, WalError> {
        if index == LogIndex(0) {
            return Ok(true);
        }
        let newest = {
            let state = self.state();
            let mut reaching = state.held.iter().rev().take_while(|held| held.index() >= index);
            let newest = reaching.clone().next().cloned();
            if reaching.any(|held| state.certain.contains(&held.id())) {
                return Ok(true);
            }
            newest
        };
        match newest {
            Some(snapshot) => self.write_again(&snapshot),
            None => Ok(false),
        }
    }

    /// Writes a held snapshot again. As with the log's tail: what a run before this one left behind may
    /// be in memory only, and the log is about to rely on it. False if it turns out damaged: then it is
    /// none.
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
        writer.finish().map(|_| true)
    }

    /// A damaged snapshot is none. Its file stays until another one takes its name.
    pub(crate) fn forget(&self, id: SnapshotId) {
        self.state().held.retain(|held| held.id() != id);
    }

    /// Reads all of a held snapshot and compares it with its digest, telling `pace` after each piece
    /// how many bytes that were, until that returns false. What is wrong with it, if it is still held.
    pub(crate) fn verify(
        &self,
        snapshot: &Snapshot,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Option<String> {
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
    /// How much of a snapshot on its way is here, if it is that one.
    fn held_of(&self, id: SnapshotId) -> Option<u64> {
        let arrived = self.arrived.iter().any(|(arrived, _)| arrived.id() == id);
        let arriving = self.arriving.as_ref().filter(|it| it.snapshot.id() == id);
        arriving.map(|it| it.file.length).or(arrived.then_some(id.length))
    }
}

impl GrowingFile {
    fn create(disk: &dyn Disk, directory: u128, name: String) -> Result<Self, DiskError> {
        let salt = random(disk)?;
        let file = NamedFile::create(disk, name)?;
        let growing = Self { file, salt, rest: Vec::new(), length: 0, digest: Xxh3::new() };
        match growing.file.write(&encode_header(salt, directory), 0) {
            Ok(()) => Ok(growing),
            Err(error) => {
                discard(disk, &growing.file.name);
                Err(error)
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), DiskError> {
        self.digest.update(bytes);
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.rest.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.rest.extend_from_slice(now);
            self.length += now.len() as u64;
            bytes = later;
            if self.rest.len() == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let content = self.length - self.rest.len() as u64;
        let crc = chunk_crc(self.salt, content, &self.rest);
        self.rest.extend_from_slice(&crc.to_le_bytes());
        self.file.write(&self.rest, chunk_offset(content))?;
        self.rest.clear();
        Ok(())
    }

    /// Completes and syncs the file; what it holds.
    fn finish(mut self, base: LogBase) -> Result<(NamedFile, Snapshot), DiskError> {
        if !self.rest.is_empty() {
            self.flush()?;
        }
        let snapshot = Snapshot { base, length: self.length, digest: self.digest.digest128() };
        self.file.write(&encode_footer(self.salt, &snapshot), footer_offset(self.length))?;
        self.file.sync()?;
        Ok((self.file, snapshot))
    }
}

/// Writes a snapshot of the state machine. Dropped before [`SnapshotWriter::finish`], it leaves
/// nothing behind.
pub struct SnapshotWriter {
    store: SnapshotStore,
    base: LogBase,
    /// There until it is finished or has failed.
    file: Option<GrowingFile>,
}

impl SnapshotWriter {
    /// Appends to the content.
    ///
    /// # Errors
    /// [`WalError::NoSpace`] or [`WalError::Disk`]; the snapshot is then given up.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WalError> {
        let Some(file) = &mut self.file else { return Err(WalError::Poisoned) };
        file.write(bytes).map_err(|error| {
            self.give_up();
            WalError::of_new_file(error)
        })
    }

    /// Makes the snapshot durable under its name. To be told the node as
    /// [`Input::SnapshotCut`](raft_core::Input).
    ///
    /// # Errors
    /// [`WalError::NoSpace`]: the snapshot is given up, the log is as it was. [`WalError::Disk`]: end
    /// the process.
    pub fn finish(mut self) -> Result<Snapshot, WalError> {
        let Some(growing) = self.file.take() else { return Err(WalError::Poisoned) };
        let name = growing.file.name.clone();
        match growing.finish(self.base.clone()) {
            Ok((file, snapshot)) => {
                self.store.keep(&mut self.store.state(), file, snapshot.clone())?;
                Ok(snapshot)
            }
            Err(error) => {
                discard(self.store.disk(), &name);
                Err(WalError::of_new_file(error))
            }
        }
    }

    fn give_up(&mut self) {
        if let Some(growing) = self.file.take() {
            discard(self.store.disk(), &growing.file.name);
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SnapshotWriter::write(self, bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the content of a snapshot from its beginning. Each chunk is compared with its checksum before
/// any of it is given out: damage is an error of the kind [`io::ErrorKind::InvalidData`].
pub struct SnapshotReader {
    file: NamedFile,
    salt: u64,
    length: u64,
    at: u64,
    /// The chunk with this content offset.
    chunk: Option<(u64, Vec<u8>)>,
}

impl SnapshotReader {
    fn load(&mut self, start: u64) -> io::Result<&[u8]> {
        if self.chunk.as_ref().is_none_or(|(at, _)| *at != start) {
            // At most a chunk, so it fits.
            let length = (self.length - start).min(CHUNK_BYTES as u64) as usize;
            let mut bytes = vec![0; length + 4];
            let read = self.file.read_at(&mut bytes, chunk_offset(start));
            let read = read.map_err(io::Error::other)?;
            let whole = read == bytes.len();
            if !whole || chunk_crc(self.salt, start, &bytes[..length]) != u32_at(&bytes, length) {
                let what = format!("{} is damaged at {start} of its content", self.file.name);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            bytes.truncate(length);
            self.chunk = Some((start, bytes));
        }
        Ok(self.chunk.as_ref().map_or(&[], |(_, bytes)| bytes))
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.length || into.is_empty() {
            return Ok(0);
        }
        let start = self.at - self.at % CHUNK_BYTES as u64;
        let within = (self.at - start) as usize;
        let chunk = self.load(start)?;
        let count = into.len().min(chunk.len() - within);
        into[..count].copy_from_slice(&chunk[within..within + count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, length, at, .. } = self;
        write!(f, "SnapshotReader({}, {at} of {length} bytes)", file.name)
    }
}

/// Reads all of a snapshot file: what it is, or what is wrong with it.
fn check(
    file: &NamedFile,
    directory: u128,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Result<Snapshot, String>, DiskError> {
    let mut header = [0; HEADER_BYTES];
    let read = file.read_at(&mut header, 0)?;
    let salt = match decode_header(&header[..read], directory) {
        Ok(salt) => salt,
        Err(what) => return Ok(Err(what.to_owned())),
    };
    let bytes = file.bytes()?;
    let snapshot = match read_footer(file, bytes, salt)? {
        Ok(snapshot) => snapshot,
        Err(what) => return Ok(Err(what.to_owned())),
    };
    if snapshot_name(snapshot.base.position) != file.name {
        return Ok(Err("it is not the snapshot that its name says".to_owned()));
    }
    let (mut content, mut digest) = (0, Xxh3::new());
    let mut chunk = vec![0; CHUNK_BYTES + 4];
    while content < snapshot.length {
        let length = (snapshot.length - content).min(CHUNK_BYTES as u64) as usize;
        let read = file.read_at(&mut chunk[..length + 4], chunk_offset(content))?;
        let whole = read == length + 4;
        if !whole || chunk_crc(salt, content, &chunk[..length]) != u32_at(&chunk, length) {
            return Ok(Err(format!("its content at {content} does not match its checksum")));
        }
        digest.update(&chunk[..length]);
        content += length as u64;
        if !pace(length as u64) {
            return Ok(Err("it was not read to its end".to_owned()));
        }
    }
    if digest.digest128() != snapshot.digest {
        return Ok(Err("its content does not match its digest".to_owned()));
    }
    Ok(Ok(snapshot))
}

/// What the footer of a file of this length says.
fn read_footer(
    file: &NamedFile,
    bytes: u64,
    salt: u64,
) -> Result<Result<Snapshot, &'static str>, DiskError> {
    const CUT_OFF: &str = "it is cut off";
    let length_at = bytes.saturating_sub(FOOTER_LENGTH_BYTES as u64);
    let mut length = [0; FOOTER_LENGTH_BYTES];
    if file.read_at(&mut length, length_at)? < length.len() {
        return Ok(Err(CUT_OFF));
    }
    let length = u32_at(&length, 0) as usize;
    let Some(start) = length_at.checked_sub(length as u64) else { return Ok(Err(CUT_OFF)) };
    if length > FOOTER_BYTES_MAX {
        return Ok(Err(CUT_OFF));
    }
    let mut footer = vec![0; length];
    if file.read_at(&mut footer, start)? < length {
        return Ok(Err(CUT_OFF));
    }
    Ok(decode_footer(&footer, salt).and_then(|snapshot| {
        // Computed without overflow: the start of the footer bounds the content.
        let fits = snapshot.length <= start && footer_offset(snapshot.length) == start;
        fits.then_some(snapshot).ok_or("its length changed")
    }))
}

/// The snapshot files of a directory, from the newest on, each judged when it is asked for.
pub(crate) struct SnapshotFiles {
    /// Names, the newest last.
    names: Vec<(LogPosition, String)>,
}

/// A snapshot file and what it holds, or what is wrong with it.
pub(crate) struct JudgedSnapshot {
    pub(crate) name: String,
    pub(crate) content: Result<Snapshot, String>,
}

impl SnapshotFiles {
    pub(crate) fn among(names: &[String]) -> Self {
        let position = |name: &str| {
            let (term, index) = name.strip_prefix(SNAPSHOT_PREFIX)?.split_once('-')?;
            let (term, index) = (term.parse().ok()?, index.parse().ok()?);
            let position = LogPosition::new(Term(term), LogIndex(index));
            // Spelled back, so that there is one spelling.
            (snapshot_name(position) == name).then_some(position)
        };
        let named = |name: &String| Some((position(name)?, name.clone()));
        let mut names: Vec<_> = names.iter().filter_map(named).collect();
        names.sort_unstable_by_key(|(position, _)| position.index);
        Self { names }
    }

    /// The newest one that was not judged yet.
    pub(crate) fn next(
        &mut self,
        disk: &dyn Disk,
        directory: u128,
    ) -> Result<Option<JudgedSnapshot>, DiskError> {
        let Some((_, name)) = self.names.pop() else { return Ok(None) };
        let file = NamedFile::open(disk, &name)?;
        let content = check(&file, directory, &mut |_| true)?;
        Ok(Some(JudgedSnapshot { name, content }))
    }
}
