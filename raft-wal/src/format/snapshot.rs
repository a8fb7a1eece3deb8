//! The bytes of a snapshot file: a header, chunks with a checksum each, a footer that says what it is.
//!
//! Chunks can be checked one by one, for peers that fetch it in pieces; the footer stands at the end
//! because only then is everything known, and a file without one is none.

use raft_core::{LogBase, LogIndex, LogPosition, Snapshot, Term, Timestamp};

use super::record::{decode_membership, encode_membership};
use super::{FORMAT_VERSION, SECTOR_BYTES, put_u32, put_u64, seed, u32_at, u64_at};

/// The content of a snapshot is cut into pieces of this length, the last one aside.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// A chunk with its checksum.
const STRIDE_BYTES: u64 = CHUNK_BYTES as u64 + 4;
/// The header fills a sector.
pub(crate) const HEADER_BYTES: usize = SECTOR_BYTES;

const MAGIC: &[u8; 8] = b"RAFTSNAP";
const FOOTER_MAGIC: &[u8; 8] = b"SNAPDONE";

const AT_VERSION: usize = 8;
const AT_CRC: usize = 12;
const AT_SALT: usize = 16;
const AT_DIRECTORY: usize = 24;

const AT_FOOTER_CRC: usize = 8;
const AT_MEMBERSHIP_BYTES: usize = 12;
const AT_INDEX: usize = 16;
const AT_TERM: usize = 24;
const AT_TIMESTAMP: usize = 32;
const AT_MEMBERSHIP_INDEX: usize = 40;
const AT_LENGTH: usize = 48;
const AT_DIGEST: usize = 56;
const FOOTER_FIXED_BYTES: usize = 72;

/// The end of the file tells how long the footer is.
pub(crate) const FOOTER_LENGTH_BYTES: usize = 4;
/// A footer is never longer than this: that of 8,000 members is shorter.
pub(crate) const FOOTER_BYTES_MAX: usize = 64 << 10;

/// The header of a file in this directory; the salt is what its checksums are seeded with.
pub(crate) fn encode_header(salt: u64, directory: u128) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    put_u32(&mut out, AT_VERSION, FORMAT_VERSION);
    put_u64(&mut out, AT_SALT, salt);
    out[AT_DIRECTORY..AT_DIRECTORY + 16].copy_from_slice(&directory.to_le_bytes());
    let crc = header_crc(&out);
    put_u32(&mut out, AT_CRC, crc);
    out
}

fn header_crc(header: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&header[..AT_CRC]);
    crc32c::crc32c_append(crc, &header[AT_CRC + 4..])
}

/// The salt of the file with this header, if it is one of this directory.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode_header(header: &[u8], directory: u128) -> Result<u64, &'static str> {
    if header.len() != HEADER_BYTES || &header[..8] != MAGIC {
        return Err("it does not begin like a snapshot");
    }
    if header_crc(header) != u32_at(header, AT_CRC) {
        return Err("its header does not match its checksum");
    }
    if u32_at(header, AT_VERSION) != FORMAT_VERSION {
        return Err("it was written by another version");
    }
    if header[AT_DIRECTORY..AT_DIRECTORY + 16] != directory.to_le_bytes() {
        return Err("it belongs to another directory");
    }
    Ok(u64_at(header, AT_SALT))
}

/// Where the chunk with this content offset, a multiple of [`CHUNK_BYTES`], lies in the file.
pub(crate) const fn chunk_offset(content: u64) -> u64 {
    HEADER_BYTES as u64 + content / CHUNK_BYTES as u64 * STRIDE_BYTES
}

/// Where the footer lies behind so much content.
pub(crate) const fn footer_offset(content: u64) -> u64 {
    let rest = content % CHUNK_BYTES as u64;
    chunk_offset(content) + if rest == 0 { 0 } else { rest + 4 }
}

/// The checksum behind a chunk.
pub(crate) fn chunk_crc(salt: u64, content: u64, chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(salt, content, 0), chunk)
}

/// The footer, and its length.
pub(crate) fn encode_footer(salt: u64, snapshot: &Snapshot) -> Vec<u8> {
    let Snapshot { base, length, digest } = snapshot;
    let LogBase { position, timestamp, membership, membership_index } = base;
    let members = encode_membership(membership);
    let mut out = vec![0; FOOTER_FIXED_BYTES];
    out[..8].copy_from_slice(FOOTER_MAGIC);
    let bytes = u32::try_from(members.len()).expect("memory holds fewer than 2^32 members");
    put_u32(&mut out, AT_MEMBERSHIP_BYTES, bytes);
    put_u64(&mut out, AT_INDEX, position.index.0);
    put_u64(&mut out, AT_TERM, position.term.0);
    put_u64(&mut out, AT_TIMESTAMP, timestamp.0);
    put_u64(&mut out, AT_MEMBERSHIP_INDEX, membership_index.0);
    put_u64(&mut out, AT_LENGTH, *length);
    out[AT_DIGEST..AT_DIGEST + 16].copy_from_slice(&digest.to_le_bytes());
    out.extend_from_slice(&members);
    let crc = crc32c::crc32c_append(seed(salt, 0, 0), &out[AT_MEMBERSHIP_BYTES..]);
    put_u32(&mut out, AT_FOOTER_CRC, crc);
    let bytes = u32::try_from(out.len()).expect("memory holds fewer than 2^32 members");
    out.extend_from_slice(&bytes.to_le_bytes());
    out
}

/// What the file with this footer, all of it but its length, says that it is.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode_footer(footer: &[u8], salt: u64) -> Result<Snapshot, &'static str> {
    let parts = footer.split_at_checked(FOOTER_FIXED_BYTES);
    let Some((_, members)) = parts.filter(|_| footer.starts_with(FOOTER_MAGIC)) else {
        return Err("it does not end like a snapshot");
    };
    let crc = crc32c::crc32c_append(seed(salt, 0, 0), &footer[AT_MEMBERSHIP_BYTES..]);
    let whole = members.len() == u32_at(footer, AT_MEMBERSHIP_BYTES) as usize;
    if crc != u32_at(footer, AT_FOOTER_CRC) || !whole {
        return Err("its footer does not match its checksum");
    }
    let mut digest = [0; 16];
    digest.copy_from_slice(&footer[AT_DIGEST..AT_DIGEST + 16]);
    let membership = decode_membership(members).ok_or("its footer has no meaning")?;
    Ok(Snapshot {
        base: LogBase {
            position: LogPosition::new(
                Term(u64_at(footer, AT_TERM)),
                LogIndex(u64_at(footer, AT_INDEX)),
            ),
            timestamp: Timestamp(u64_at(footer, AT_TIMESTAMP)),
            membership,
            membership_index: LogIndex(u64_at(footer, AT_MEMBERSHIP_INDEX)),
        },
        length: u64_at(footer, AT_LENGTH),
        digest: u128::from_le_bytes(digest),
    })
}

#[cfg(test)]
mod tests {
    use raft_core::{Membership, NodeId};

    use super::*;

    #[test]
    fn header_and_footer_come_back_and_every_changed_byte_is_noticed() {
        let header = encode_header(7, 99);
        assert_eq!(decode_header(&header, 99), Ok(7));
        assert!(decode_header(&header, 98).is_err());
        for at in 0..header.len() {
            let mut changed = header;
            changed[at] ^= 0x40;
            assert!(decode_header(&changed, 99).is_err(), "{at}");
        }
        let snapshot = Snapshot {
            base: LogBase {
                position: LogPosition::new(Term(3), LogIndex(50)),
                timestamp: Timestamp(1234),
                membership: Membership::new((1..=3).filter_map(NodeId::new)).unwrap(),
                membership_index: LogIndex(44),
            },
            length: 1 << 40,
            digest: 5 << 100,
        };
        let footer = encode_footer(7, &snapshot);
        let (footer, length) = footer.split_at(footer.len() - FOOTER_LENGTH_BYTES);
        assert_eq!(u32_at(length, 0) as usize, footer.len());
        assert_eq!(decode_footer(footer, 7), Ok(snapshot));
        assert!(decode_footer(footer, 8).is_err(), "of another file");
        for at in 0..footer.len() {
            let mut changed = footer.to_vec();
            changed[at] ^= 0x40;
            assert!(decode_footer(&changed, 7).is_err(), "{at}");
        }
    }

    #[test]
    fn chunks_and_footer_follow_each_other() {
        let chunk = CHUNK_BYTES as u64;
        assert_eq!(footer_offset(0), HEADER_BYTES as u64);
        assert_eq!(footer_offset(1), HEADER_BYTES as u64 + 5);
        assert_eq!(footer_offset(chunk), chunk_offset(chunk));
        assert_eq!(footer_offset(chunk + 1), chunk_offset(chunk) + 5);
    }
}
