//! Reading the content of a snapshot, each piece checked before it is given out.

use std::fmt;
use std::io;

use super::files::intact_chunk;
use crate::disk::NamedFile;
use crate::format::snapshot::{CHUNK_BYTES, chunk_offset};

/// Reads the content of a snapshot from its beginning. Each chunk is compared with its checksum before
/// any of it is given out: damage is an error of the kind [`io::ErrorKind::InvalidData`].
pub struct SnapshotReader {
    pub(super) file: NamedFile,
    pub(super) salt: u64,
    pub(super) length: u64,
    pub(super) at: u64,
    /// The chunk with this content offset.
    pub(super) chunk: Option<(u64, Vec<u8>)>,
}

impl SnapshotReader {
    fn load(&mut self, start: u64) -> io::Result<&[u8]> {
        if self.chunk.as_ref().is_none_or(|(at, _)| *at != start) {
            // At most a chunk, so it fits.
            let length = (self.length - start).min(CHUNK_BYTES as u64) as usize;
            let mut bytes = vec![0; length + 4];
            let read = self.file.read_at(&mut bytes, chunk_offset(start));
            let read = read.map_err(io::Error::other)?;
            if intact_chunk(&bytes[..read], self.salt, start, length).is_none() {
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
