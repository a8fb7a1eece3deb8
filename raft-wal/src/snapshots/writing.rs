//! Snapshot files that are being written, whether they are cut here or come from another node.

use std::io;

use raft_core::{LogBase, Snapshot};
use xxhash_rust::xxh3::Xxh3;

use super::{SnapshotStore, discard};
use crate::disk::{Disk, NamedFile, random};
use crate::error::{DiskError, WalError};
use crate::format::snapshot::{
    CHUNK_BYTES, chunk_crc, chunk_offset, encode_footer, encode_header, footer_offset,
};

/// A snapshot file that is being written.
pub(super) struct GrowingFile {
    pub(super) file: NamedFile,
    salt: u64,
    /// The beginning of the next chunk.
    rest: Vec<u8>,
    /// Bytes of content, `rest` included.
    pub(super) length: u64,
    digest: Xxh3,
}

impl GrowingFile {
    pub(super) fn create(
        disk: &dyn Disk,
        directory: u128,
        name: String,
    ) -> Result<Self, DiskError> {
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

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), DiskError> {
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
    pub(super) fn finish(mut self, base: LogBase) -> Result<(NamedFile, Snapshot), DiskError> {
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
    pub(super) store: SnapshotStore,
    pub(super) base: LogBase,
    /// There until it is finished or has failed.
    pub(super) file: Option<GrowingFile>,
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
