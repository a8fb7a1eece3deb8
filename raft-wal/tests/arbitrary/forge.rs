//! The format on disk once more, written down apart from the crate: takes files apart, and puts them
//! together again with valid checksums around whatever was changed in between.

use crc32c::{crc32c, crc32c_append};
use xxhash_rust::xxh3::xxh3_128;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const CHUNK: usize = 64 << 10;
/// Up to here the header of a segment is in the clear.
const FIXED: usize = 192;
const BATCH_HEADER: usize = 96;
const TRAILER: usize = 56;
const RECORD_HEADER: usize = 48;
const SEAL: u8 = 6;

/// A part of a file, and fields in it that are to hold something else than what belongs there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    lies: Vec<(usize, Vec<u8>)>,
}

impl Piece {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), lies: Vec::new() }
    }

    /// From now on these bytes stand at `at`, whatever should.
    pub(crate) fn lie(&mut self, at: usize, bytes: &[u8]) {
        self.lies.push((at, bytes.to_vec()));
    }

    /// What it says, as it is.
    pub(crate) fn lied(&self) -> Vec<u8> {
        self.told(|_| {})
    }

    /// What it says, after the fields that follow from the rest were set.
    fn told(&self, set: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        set(&mut bytes);
        for (at, lie) in &self.lies {
            if let Some(place) = bytes.get_mut(*at..at + lie.len()) {
                place.copy_from_slice(lie);
            }
        }
        bytes
    }
}

/// The file `IDENTITY`.
pub(crate) struct Identity {
    pub(crate) copies: [Piece; 2],
}

impl Identity {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let copies = [bytes.get(..BLOCK)?, bytes.get(BLOCK..2 * BLOCK)?];
        Some(Self { copies: copies.map(Piece::of) })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let copy = |piece: &Piece| {
            let mut bytes = piece.told(|_| {});
            put_crc_around(&mut bytes);
            bytes
        };
        self.copies.iter().flat_map(copy).collect()
    }
}

/// A segment.
#[derive(Clone)]
pub(crate) struct Segment {
    /// One copy of the header, the membership in the clear.
    pub(crate) header: Piece,
    pub(crate) batches: Vec<Batch>,
    /// The file is at least so long.
    bytes: usize,
}

/// A batch of a segment.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) header: Piece,
    pub(crate) records: Vec<Record>,
    pub(crate) trailer: Piece,
}

/// A record of a batch.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) header: Piece,
    pub(crate) payload: Vec<u8>,
}

/// Where the data of a segment end, as its successor says.
struct End {
    offset: u64,
    chain: u32,
}

impl Segment {
    /// As much of a segment as is one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..8)? != b"RAFTWALS" {
            return None;
        }
        let length = u32_at(bytes, 16)? as usize;
        let mut header = bytes.get(..length).filter(|_| length >= FIXED)?.to_vec();
        let salt = u64_at(bytes, 24)?;
        scramble(salt, FIXED, &mut header[FIXED..]);
        let (mut at, mut batches) = (2 * length, Vec::new());
        while let Some((batch, length)) =
            bytes.get(at..).and_then(|rest| Batch::parse(rest, salt, at))
        {
            batches.push(batch);
            at += length;
        }
        Some(Self { header: Piece::of(&header), batches, bytes: bytes.len() })
    }

    pub(crate) fn base(&self) -> u64 {
        u64_at(&self.header.told(|_| {}), 96).unwrap()
    }

    pub(crate) fn id(&self) -> u64 {
        u64_at(&self.header.told(|_| {}), 48).unwrap()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_with_end().0
    }

    fn encode_with_end(&self) -> (Vec<u8>, End) {
        let batches: usize = self.batches.iter().map(Batch::length).sum();
        let used = 2 * self.header.bytes.len() + batches;
        let bytes = self.bytes.max(used.next_multiple_of(BLOCK));
        let mut header = self.header.told(|header| put_u32(header, 124, (bytes / BLOCK) as u32));
        let (salt, id) = (u64_at(&header, 24).unwrap(), u64_at(&header, 48).unwrap());
        scramble(salt, FIXED, &mut header[FIXED..]);
        put_crc_around(&mut header);
        let mut out = header.repeat(2);
        let mut end = End { offset: out.len() as u64, chain: crc32c(&header) };
        let mut chain = end.chain;
        for (sequence, batch) in self.batches.iter().enumerate() {
            chain = batch.encode(&mut out, salt, id, sequence as u64, chain);
            if !batch.is_seal() {
                end = End { offset: out.len() as u64, chain };
            }
        }
        out.resize(bytes, 0);
        (out, end)
    }
}

impl Batch {
    fn parse(bytes: &[u8], salt: u64, offset: usize) -> Option<(Self, usize)> {
        if bytes.get(..4)? != b"BTCH" {
            return None;
        }
        let (length, body) = (u32_at(bytes, 8)? as usize, u32_at(bytes, 40)? as usize);
        let whole = bytes.get(..length).filter(|_| length >= BATCH_HEADER + TRAILER)?;
        let mut body = whole.get(BATCH_HEADER..BATCH_HEADER.checked_add(body)?)?.to_vec();
        scramble(salt, offset + BATCH_HEADER, &mut body);
        let (mut at, mut records) = (0, Vec::new());
        while let Some(header) = body.get(at..at + RECORD_HEADER) {
            let start = at + RECORD_HEADER;
            let payload = body.get(start..start + u32_at(header, 4)? as usize)?.to_vec();
            at = (start + payload.len()).next_multiple_of(8);
            records.push(Record { header: Piece::of(header), payload });
        }
        let (header, trailer) = (&whole[..BATCH_HEADER], &whole[length - TRAILER..]);
        Some((Self { header: Piece::of(header), records, trailer: Piece::of(trailer) }, length))
    }

    fn body(&self) -> usize {
        self.records.iter().map(|it| RECORD_HEADER + it.payload.len().next_multiple_of(8)).sum()
    }

    fn length(&self) -> usize {
        (BATCH_HEADER + TRAILER + self.body()).next_multiple_of(SECTOR)
    }

    fn is_seal(&self) -> bool {
        self.records.first().is_some_and(|record| record.header.bytes[0] == SEAL)
    }

    /// Appends it to the segment; its chain value.
    fn encode(&self, out: &mut Vec<u8>, salt: u64, id: u64, sequence: u64, chain: u32) -> u32 {
        let (start, length) = (out.len(), self.length());
        let offset = start as u64;
        let header = self.header.told(|header| {
            put_u32(header, 8, length as u32);
            put_u32(header, 12, self.records.len() as u32);
            put_u64(header, 16, sequence);
            put_u64(header, 24, offset);
            let durable = u64_at(header, 32).unwrap().min(offset);
            put_u64(header, 32, durable);
            put_u32(header, 40, self.body() as u32);
            put_u32(header, 44, chain);
            put_u64(header, 48, id);
        });
        out.extend_from_slice(&header);
        let crc = crc32c_append(seed(salt, offset, 0), &out[start + 8..]);
        put_u32(out, start + 4, crc);
        for record in &self.records {
            record.encode(out, salt, chain);
        }
        let trailer_at = start + length - TRAILER;
        out.resize(trailer_at, 0);
        scramble(salt, start + BATCH_HEADER, &mut out[start + BATCH_HEADER..]);
        let trailer = self.trailer.told(|trailer| put_u64(trailer, 8, sequence));
        out.extend_from_slice(&trailer[..TRAILER - 4]);
        let crc = crc32c_append(seed(salt, trailer_at as u64, 0), &out[trailer_at + 8..]);
        put_u32(out, trailer_at + 4, crc);
        let chain = crc32c_append(seed(salt, offset, chain), &out[start..]);
        out.extend_from_slice(&chain.to_le_bytes());
        chain
    }
}

impl Record {
    fn encode(&self, out: &mut Vec<u8>, salt: u64, chain: u32) {
        let seed = seed(salt, out.len() as u64, chain);
        let mut header = self.header.told(|it| put_u32(it, 4, self.payload.len() as u32));
        // A length that lies covers what it says, if that is there.
        let length = u32_at(&header, 4).unwrap() as usize;
        let covered = &self.payload[..length.min(self.payload.len())];
        put_u32(&mut header, 40, crc32c_append(seed, covered));
        let crc = crc32c_append(seed, &header[..44]);
        put_u32(&mut header, 44, crc);
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.payload);
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

/// Makes each segment but the first continue the one before it, and each seal name the next one.
pub(crate) fn relink(segments: &mut [Segment]) {
    for n in 1..segments.len() {
        let (before, behind) = segments.split_at_mut(n);
        let (previous, next) = (&mut before[n - 1], &mut behind[0]);
        let seal = previous.batches.last_mut().filter(|batch| batch.is_seal());
        if let Some(record) = seal.and_then(|batch| batch.records.first_mut()) {
            record.payload = next.id().to_le_bytes().to_vec();
        }
        let (_, End { offset, chain }) = previous.encode_with_end();
        let header = &mut next.header.bytes;
        put_u64(header, 64, previous.id());
        put_u64(header, 72, offset);
        put_u32(header, 120, chain);
    }
}

/// A snapshot.
pub(crate) struct Snapshot {
    pub(crate) header: Piece,
    pub(crate) content: Vec<u8>,
    pub(crate) footer: Piece,
    /// Is the digest that of the content, whatever stood there?
    pub(crate) digest_follows: bool,
}

impl Snapshot {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(..8)? != b"RAFTSNAP" {
            return None;
        }
        let end = bytes.len().checked_sub(4)?;
        let start = end.checked_sub(u32_at(bytes, end)? as usize)?;
        let footer = bytes.get(start..end).filter(|footer| footer.len() >= 72)?;
        let chunks = bytes.get(SECTOR..start)?.chunks(CHUNK + 4);
        let content = chunks.flat_map(|chunk| &chunk[..chunk.len().saturating_sub(4)]);
        Some(Self {
            header: Piece::of(&bytes[..SECTOR]),
            content: content.copied().collect(),
            footer: Piece::of(footer),
            digest_follows: false,
        })
    }

    /// Term and index.
    pub(crate) fn position(&self) -> (u64, u64) {
        let footer = self.footer.told(|_| {});
        (u64_at(&footer, 24).unwrap(), u64_at(&footer, 16).unwrap())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.header.told(|_| {});
        let crc = crc32c_append(crc32c(&out[..12]), &out[16..]);
        put_u32(&mut out, 12, crc);
        let salt = u64_at(&out, 16).unwrap();
        for (n, chunk) in self.content.chunks(CHUNK).enumerate() {
            out.extend_from_slice(chunk);
            let crc = crc32c_append(seed(salt, (n * CHUNK) as u64, 0), chunk);
            out.extend_from_slice(&crc.to_le_bytes());
        }
        let mut footer = self.footer.told(|footer| {
            put_u32(footer, 12, (footer.len() - 72) as u32);
            put_u64(footer, 48, self.content.len() as u64);
            if self.digest_follows {
                footer[56..72].copy_from_slice(&xxh3_128(&self.content).to_le_bytes());
            }
        });
        let crc = crc32c_append(seed(salt, 0, 0), &footer[12..]);
        put_u32(&mut footer, 8, crc);
        out.extend_from_slice(&footer);
        out.extend_from_slice(&(footer.len() as u32).to_le_bytes());
        out
    }
}

fn seed(salt: u64, offset: u64, chain: u32) -> u32 {
    let place = [&salt.to_le_bytes()[..], &offset.to_le_bytes(), &chain.to_le_bytes()];
    crc32c(&place.concat())
}

/// The checksum over all of it, itself taken as zero.
fn put_crc_around(bytes: &mut [u8]) {
    put_u32(bytes, 12, 0);
    let crc = crc32c(bytes);
    put_u32(bytes, 12, crc);
}

fn scramble(salt: u64, offset: usize, bytes: &mut [u8]) {
    for (n, byte) in bytes.iter_mut().enumerate() {
        let sector = ((offset + n) / 512) as u64;
        let mut x = salt.wrapping_add(sector.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        *byte ^= (x ^ (x >> 31)).to_le_bytes()[(offset + n) % 8];
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().unwrap()))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().unwrap()))
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
