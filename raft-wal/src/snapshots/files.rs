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
