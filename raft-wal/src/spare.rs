//! Preparing segments: a file of zeros with a temporary name, complete before it is used.
//!
//! Writing over blocks that exist makes a sync cheaper than appending does, and the space is taken
//! before it is needed. A file of this kind means nothing until it is renamed: recovery removes it.

use std::sync::Arc;

use crate::disk::{Disk, NamedFile, remove};
use crate::error::{DiskError, WalError};

/// How much is written at once while a segment is filled with zeros. Measured on Linux: after larger
/// writes each later sync of a few sectors takes more processor time.
const CHUNK_BYTES: usize = 64 << 10;

/// The order to prepare a segment: to be [run](SpareJob::run) on any thread.
pub struct SpareJob {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
}

/// A prepared segment, to be given to [`Log::offer_spare`](crate::Log::offer_spare).
pub struct Spare {
    pub(crate) file: NamedFile,
    pub(crate) bytes: u64,
}

impl SpareJob {
    /// Prepares the segment: creates it, fills it with zeros, syncs it.
    ///
    /// # Errors
    /// [`WalError::NoSpace`] if the disk is full, or [`WalError::Disk`]. The log does not depend on it:
    /// when a segment is needed it tries once more. [`Wal`](crate::Wal), which tells whoever submits
    /// how much room there is, takes the second for a failure of the log.
    pub fn run(self) -> Result<Spare, WalError> {
        self.prepare().map_err(WalError::of_new_file)
    }

    pub(crate) fn prepare(self) -> Result<Spare, DiskError> {
        let Self { disk, number, bytes } = self;
        let name = format!("spare-{number}.tmp");
        let file = NamedFile::create(disk.as_ref(), name.clone())?;
        match fill(&file, bytes) {
            Ok(()) => Ok(Spare { file, bytes }),
            Err(error) => {
                // On a full disk the half-made file would take the room that is missing.
                if let Err(error) = remove(disk.as_ref(), &name) {
                    tracing::warn!(%error, "a half-prepared segment stays until the next start");
                }
                Err(error)
            }
        }
    }
}

fn fill(file: &NamedFile, bytes: u64) -> Result<(), DiskError> {
    let zeros = vec![0; usize::try_from(bytes).map_or(CHUNK_BYTES, |all| all.min(CHUNK_BYTES))];
    let mut offset = 0;
    while offset < bytes {
        let left = usize::try_from(bytes - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        file.write(&zeros[..left], offset)?;
        offset += left as u64;
    }
    file.sync()
}
