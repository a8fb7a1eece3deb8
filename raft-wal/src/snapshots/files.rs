//! The snapshot files of a directory: what they hold, or what is wrong with them.

use raft_core::{LogIndex, LogPosition, Snapshot, Term};
use xxhash_rust::xxh3::Xxh3;

use super::{SNAPSHOT_PREFIX, snapshot_name};
use crate::disk::{Disk, NamedFile};
use crate::error::DiskError;
use crate::format::snapshot::{
    CHUNK_BYTES, FOOTER_BYTES_MAX, FOOTER_LENGTH_BYTES, HEADER_BYTES, chunk_crc, chunk_offset,
    decode_footer, decode_header, footer_offset,
};
use crate::format::u32_at;

/// What a snapshot file says that it is, and its salt, or what is wrong with that. Its content is not
/// looked at.
fn describe(
    file: &NamedFile,
    directory: u128,
) -> Result<Result<(Snapshot, u64), String>, DiskError> {
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
    Ok(Ok((snapshot, salt)))
}

/// Reads all of a snapshot file: what it is, or what is wrong with it.
pub(super) fn check(
    file: &NamedFile,
    directory: u128,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Result<Snapshot, String>, DiskError> {
    let (snapshot, salt) = match describe(file, directory)? {
        Ok(described) => described,
        Err(what) => return Ok(Err(what)),
    };
    let (mut content, mut digest) = (0, Xxh3::new());
    let mut chunk = vec![0; CHUNK_BYTES + 4];
    while content < snapshot.length {
        let length = (snapshot.length - content).min(CHUNK_BYTES as u64) as usize;
        let read = file.read_at(&mut chunk[..length + 4], chunk_offset(content))?;
        let Some(bytes) = intact_chunk(&chunk[..read], salt, content, length) else {
            return Ok(Err(format!("its content at {content} does not match its checksum")));
        };
        digest.update(bytes);
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

/// The content of a chunk of this length, if it and the checksum behind it were read as they were written.
pub(super) fn intact_chunk(read: &[u8], salt: u64, content: u64, length: usize) -> Option<&[u8]> {
    let (bytes, crc) = read.split_at_checked(length)?;
    (crc == chunk_crc(salt, content, bytes).to_le_bytes()).then_some(bytes)
}

/// What the footer of a file of this length says.
fn read_footer(
    file: &NamedFile,
    bytes: u64,
    salt: u64,
) -> Result<Result<Snapshot, &'static str>, DiskError> {
    let length_at = bytes.saturating_sub(FOOTER_LENGTH_BYTES as u64);
    let mut length = [0; FOOTER_LENGTH_BYTES];
    file.read_at(&mut length, length_at)?;
    let length = u32_at(&length, 0) as usize;
    let start = length_at.checked_sub(length as u64).filter(|_| length <= FOOTER_BYTES_MAX);
    let Some(start) = start else { return Ok(Err("it is cut off")) };
    let mut footer = vec![0; length];
    let read = file.read_at(&mut footer, start)?;
    Ok(decode_footer(&footer[..read], salt).and_then(|snapshot| {
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
#[derive(Clone)]
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

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
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

    /// As [`Self::next`], but believes what the file says that it holds.
    pub(crate) fn next_described(
        &mut self,
        disk: &dyn Disk,
        directory: u128,
    ) -> Result<Option<JudgedSnapshot>, DiskError> {
        let Some((_, name)) = self.names.pop() else { return Ok(None) };
        let file = NamedFile::open(disk, &name)?;
        let content = describe(&file, directory)?.map(|(snapshot, _salt)| snapshot);
        Ok(Some(JudgedSnapshot { name, content }))
    }
}
