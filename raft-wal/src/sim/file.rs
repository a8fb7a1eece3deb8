//! One file of a simulated disk, sector by sector.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::format::SECTOR_BYTES;

/// What is in a sector; `None` is zeros. Shared, because most copies are never changed: between what
/// is read and what is durable, and between a disk and its forks.
pub(super) type Content = Option<Arc<[u8; SECTOR_BYTES]>>;

/// What a file may hold, so that a wrong offset is an error and not all of the memory.
pub(super) const FILE_BYTES_MAX: usize = 1 << 32;

static ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

#[derive(Clone, Default)]
struct Sector {
    /// What reads return: the cache of the system.
    content: Content,
    /// What a power cut leaves.
    durable: Content,
    /// What was durable before the last write that changed it.
    older: Content,
    /// A sync would write it.
    dirty: bool,
}

/// Invariants: there are exactly as many sectors as `bytes` need; `durable_bytes <= bytes`; bytes of
/// a content behind `bytes`, and of what is durable behind `durable_bytes`, are zeros; `content` and
/// `durable` of a sector differ only if it is in `dirty` or in `hidden`.
#[derive(Clone, Default)]
pub(super) struct FileState {
    bytes: usize,
    durable_bytes: usize,
    sectors: Vec<Sector>,
    /// Each of them once, in the order in which they became dirty.
    dirty: Vec<usize>,
    /// Sectors that are clean and may yet differ from what is durable: the failure was hidden from
    /// the system. Perhaps more than once.
    hidden: Vec<usize>,
    unreadable: BTreeSet<usize>,
    /// A sync failed, so that another one proves nothing.
    pub(super) sync_failed: bool,
}

impl FileState {
    pub(super) fn durable(content: &[u8]) -> Self {
        let mut file = Self::default();
        file.write(content, 0);
        file.sync();
        file
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies from `offset` on and says how much. `None` if it met a sector that cannot be read.
    pub(super) fn read(&self, into: &mut [u8], offset: usize) -> Option<usize> {
        let start = offset.min(self.bytes);
        let count = into.len().min(self.bytes - start);
        let end = start + count;
        let touched = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        if count > 0 && self.unreadable.range(touched).next().is_some() {
            return None;
        }
        let mut rest = &mut into[..count];
        for (sector, range) in pieces(start, end) {
            let (piece, behind) = rest.split_at_mut(range.len());
            piece.copy_from_slice(&bytes_of(&self.sectors[sector].content)[range]);
            rest = behind;
        }
        Some(count)
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.bytes_at(0, self.bytes)
    }

    /// As many bytes as there are, up to `count`, whether readable or not.
    pub(super) fn bytes_at(&self, offset: usize, count: usize) -> Vec<u8> {
        let start = offset.min(self.bytes);
        let end = offset.saturating_add(count).min(self.bytes);
        let mut bytes = Vec::with_capacity(end - start);
        for (sector, range) in pieces(start, end) {
            bytes.extend_from_slice(&bytes_of(&self.sectors[sector].content)[range]);
        }
        bytes
    }

    /// Puts bytes into the cache. A sector that could not be read can be again when all of it was
    /// written.
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        self.bytes = self.bytes.max(end);
        self.sectors.resize_with(self.bytes.div_ceil(SECTOR_BYTES), Sector::default);
        let mut rest = bytes;
        for (number, range) in pieces(offset, end) {
            let (piece, behind) = rest.split_at(range.len());
            let sector = &mut self.sectors[number];
            if let Ok(whole) = piece.try_into() {
                sector.content = content_of(whole);
                self.unreadable.remove(&number);
            } else {
                patch(&mut sector.content, piece, range.start);
            }
            if !sector.dirty {
                sector.dirty = true;
                self.dirty.push(number);
            }
            rest = behind;
        }
    }

    /// Would a write of these bytes have to read a sector that cannot be read?
    pub(super) fn needs_unreadable(&self, offset: usize, count: usize) -> bool {
        !self.unreadable.is_empty()
            && pieces(offset, offset + count).any(|(sector, range)| {
                range.len() < SECTOR_BYTES && self.unreadable.contains(&sector)
            })
    }

    /// Makes everything durable that is dirty. Returns how many sectors that were.
    pub(super) fn sync(&mut self) -> usize {
        let dirty = std::mem::take(&mut self.dirty);
        for &sector in &dirty {
            self.settle(sector);
        }
        self.durable_bytes = self.bytes;
        let count = dirty.len();
        // Its capacity is used again: a log syncs often.
        self.dirty = dirty;
        self.dirty.clear();
        count
    }

    /// A sync that failed: what did not arrive counts as clean, is readable, and lost.
    pub(super) fn fail_sync(&mut self, mut arrives: impl FnMut() -> bool) {
        self.sync_failed = true;
        for sector in self.unsynced() {
            if arrives() {
                self.settle(sector);
            }
        }
        for sector in std::mem::take(&mut self.dirty) {
            self.hide(sector);
        }
    }

    /// The dirty sectors in order, without those for which it makes no difference.
    pub(super) fn unsynced(&self) -> Vec<usize> {
        let mut unsynced: Vec<usize> =
            self.dirty.iter().copied().filter(|&sector| self.matters(sector)).collect();
        unsynced.sort_unstable();
        unsynced
    }

    fn matters(&self, sector: usize) -> bool {
        let Sector { content, durable, dirty, .. } = &self.sectors[sector];
        let longer = self.end_of(sector) > self.durable_bytes;
        *dirty && (longer || !same(content, durable))
    }

    fn end_of(&self, sector: usize) -> usize {
        ((sector + 1) * SECTOR_BYTES).min(self.bytes)
    }

    /// Makes one sector durable.
    fn settle(&mut self, number: usize) {
        let end = self.end_of(number);
        let sector = &mut self.sectors[number];
        sector.dirty = false;
        if !same(&sector.content, &sector.durable) {
            let content = sector.content.clone();
            sector.older = std::mem::replace(&mut sector.durable, content);
        }
        self.durable_bytes = self.durable_bytes.max(end);
    }

    /// The system believes that this sector is clean.
    fn hide(&mut self, number: usize) {
        let sector = &mut self.sectors[number];
        sector.dirty = false;
        if !same(&sector.content, &sector.durable) {
            self.hidden.push(number);
        }
    }

    /// The device loses these sectors, which were just written, and tells nobody.
    pub(super) fn lose_quietly(&mut self, sectors: std::ops::Range<usize>) {
        self.dirty.retain(|sector| !sectors.contains(sector));
        for sector in sectors {
            self.hide(sector);
        }
    }

    /// What the cache has for this sector.
    pub(super) fn sector(&self, sector: usize) -> Option<Content> {
        self.sectors.get(sector).map(|sector| sector.content.clone())
    }

    /// So many sectors are durable, at least in part.
    pub(super) fn durable_sectors(&self) -> usize {
        self.durable_bytes.div_ceil(SECTOR_BYTES)
    }

    /// Something that was meant for another place arrives in this durable sector. The cache does
    /// not know.
    pub(super) fn receive(&mut self, number: usize, content: Content) {
        let cut = self.cut(number, content);
        let sector = &mut self.sectors[number];
        if !same(&sector.durable, &cut) {
            sector.older = std::mem::replace(&mut sector.durable, cut);
            self.hidden.push(number);
        }
    }

    /// Without what would be behind the durable end.
    fn cut(&self, sector: usize, mut content: Content) -> Content {
        cut_off(&mut content, sector, self.durable_bytes);
        content
    }

    /// Power fails: of [unsynced](Self::unsynced) sectors those survive of which `survives` says so.
    pub(super) fn lose_unsynced(&mut self, mut survives: impl FnMut() -> bool) {
        for sector in self.unsynced() {
            if survives() {
                self.settle(sector);
            }
        }
        for number in std::mem::take(&mut self.dirty) {
            self.sectors[number].dirty = false;
            self.hidden.push(number);
        }
        self.forget_cache();
        self.end_at(self.durable_bytes);
        self.sync_failed = false;
    }

    /// Would a power cut, or forgetting the cache, change anything?
    pub(super) fn is_settled(&self) -> bool {
        let same_length = self.durable_bytes == self.bytes;
        self.dirty.is_empty() && self.hidden.is_empty() && same_length && !self.sync_failed
    }

    /// What is clean is read from the disk from now on.
    pub(super) fn forget_cache(&mut self) {
        let mut hidden = std::mem::take(&mut self.hidden);
        hidden.retain(|&number| {
            let sector = &mut self.sectors[number];
            if !sector.dirty {
                sector.content = sector.durable.clone();
            }
            sector.dirty
        });
        self.hidden = hidden;
    }

    /// At rest: other bytes, in the cache and on the disk, as far as the file goes.
    pub(super) fn overwrite(&mut self, bytes: &[u8], offset: usize) {
        let end = offset.saturating_add(bytes.len()).min(self.bytes);
        let mut rest = bytes;
        for (number, range) in pieces(offset.min(end), end) {
            let (piece, behind) = rest.split_at(range.len());
            let room = self.durable_bytes.saturating_sub(number * SECTOR_BYTES + range.start);
            let sector = &mut self.sectors[number];
            patch(&mut sector.content, piece, range.start);
            patch(&mut sector.durable, &piece[..piece.len().min(room)], range.start);
            // Behind the durable end only the cache has it.
            if !sector.dirty {
                self.hide(number);
            }
            rest = behind;
        }
    }

    /// At rest: the sector is what it was before the last write that changed it.
    pub(super) fn make_stale(&mut self, number: usize) {
        if number < self.sectors.len() {
            let older = self.cut(number, self.sectors[number].older.clone());
            let sector = &mut self.sectors[number];
            sector.durable = older.clone();
            sector.content = older;
        }
    }

    /// At rest: reading this sector fails until all of it is written.
    pub(super) fn make_unreadable(&mut self, sector: usize) -> bool {
        sector < self.sectors.len() && self.unreadable.insert(sector)
    }

    /// At rest: cuts it off.
    pub(super) fn truncate(&mut self, bytes: usize) {
        self.end_at(self.bytes.min(bytes));
        if let Some((number, last)) = self.sectors.iter_mut().enumerate().next_back() {
            for content in [&mut last.content, &mut last.durable, &mut last.older] {
                cut_off(content, number, bytes);
            }
        }
    }

    /// Lets the file end here, which is not behind its end, and forgets what it knew about sectors behind.
    fn end_at(&mut self, bytes: usize) {
        self.bytes = bytes;
        self.durable_bytes = self.durable_bytes.min(bytes);
        let sectors = bytes.div_ceil(SECTOR_BYTES);
        self.sectors.truncate(sectors);
        self.dirty.retain(|&sector| sector < sectors);
        self.hidden.retain(|&sector| sector < sectors);
        self.unreadable.retain(|&sector| sector < sectors);
    }

    /// At rest: makes it longer.
    pub(super) fn extend(&mut self, bytes: usize, fill: u8) {
        let end = self.bytes;
        self.bytes += bytes;
        self.durable_bytes = self.bytes;
        self.sectors.resize_with(self.bytes.div_ceil(SECTOR_BYTES), Sector::default);
        self.overwrite(&vec![fill; bytes], end);
    }
}

/// The sectors between two offsets, each with the range of its bytes that is between them.
fn pieces(start: usize, end: usize) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let sectors = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
    sectors.filter(move |_| start < end).map(move |sector| {
        let first = sector * SECTOR_BYTES;
        let from = start.saturating_sub(first);
        (sector, from..(end - first).min(SECTOR_BYTES))
    })
}

fn content_of(bytes: &[u8; SECTOR_BYTES]) -> Content {
    (*bytes != ZEROS).then(|| Arc::new(*bytes))
}

pub(super) fn bytes_of(content: &Content) -> &[u8; SECTOR_BYTES] {
    content.as_deref().unwrap_or(&ZEROS)
}

fn same(one: &Content, other: &Content) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (one, other) => bytes_of(one) == bytes_of(other),
    }
}

/// Zeros what this sector holds behind the end of a file of so many bytes.
fn cut_off(content: &mut Content, sector: usize, bytes: usize) {
    let room = bytes.saturating_sub(sector * SECTOR_BYTES).min(SECTOR_BYTES);
    patch(content, &ZEROS[room..], room);
}

fn patch(content: &mut Content, bytes: &[u8], at: usize) {
    if bytes_of(content)[at..at + bytes.len()] != *bytes {
        let sector = Arc::make_mut(content.get_or_insert_with(|| Arc::new(ZEROS)));
        sector[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
