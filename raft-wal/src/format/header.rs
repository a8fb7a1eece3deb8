//! The header of a segment: what must be known to read the segment without those before it.

use raft_core::{HardState, LogIndex, LogPosition, Membership, NodeId, Term, Timestamp};

use super::record::{decode_membership, encode_membership, membership_bytes};
use super::{BLOCK_BYTES, FORMAT_VERSION, put_u32, put_u64, round_up, scramble, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"RAFTWALS";

const AT_VERSION: usize = 8;
const AT_CRC: usize = 12;
const AT_LENGTH: usize = 16;
const AT_MEMBERSHIP_BYTES: usize = 20;
const AT_SALT: usize = 24;
const AT_INCARNATION: usize = 32;
const AT_ID: usize = 48;
const AT_FIRST_ID: usize = 56;
const AT_PREVIOUS_ID: usize = 64;
const AT_PREVIOUS_END: usize = 72;
const AT_TERM: usize = 80;
const AT_VOTED_FOR: usize = 88;
const AT_BASE_INDEX: usize = 96;
const AT_BASE_TERM: usize = 104;
const AT_BASE_TIMESTAMP: usize = 112;
const AT_PREVIOUS_CHAIN: usize = 120;
const AT_FILE_BLOCKS: usize = 124;
/// Up to here the header is in the clear, from here on it is scrambled.
const FIXED_BYTES: usize = 128;

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// A random number of its own: what was written for any other segment does not validate here.
    pub(crate) salt: u64,
    /// The directory that it was written for.
    pub(crate) incarnation: u128,
    /// Its number; each new segment of a directory has a greater one.
    pub(crate) id: u64,
    /// The length of its file, whole blocks: a file that was cut off is no shorter log.
    pub(crate) file_bytes: u64,
    /// It stands for all segments with numbers from this one up to its own: less than its own
    /// number if it is a copy of a tail.
    pub(crate) first_id: u64,
    /// What it continues, or `None` for the first segment of a directory.
    pub(crate) previous: Option<Link>,
    /// The vote as of its start.
    pub(crate) hard_state: HardState,
    /// The last entry of the log as of its start.
    pub(crate) base: LogPosition,
    /// The timestamp of that entry.
    pub(crate) base_timestamp: Timestamp,
    /// The members as of that entry.
    pub(crate) membership: Membership,
}

/// The end of a segment, before its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The number of the segment, never 0.
    pub(crate) id: u64,
    /// Where its batches end and the seal begins.
    pub(crate) end: u64,
    /// The chain value there.
    pub(crate) chain: u32,
}

/// Why bytes are not the header of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// It was written by another version of this code.
    Version(u32),
    /// It is damaged, or never was a header.
    Invalid(&'static str),
}

impl SegmentHeader {
    /// Bytes that the header takes, whole blocks.
    pub(crate) fn bytes(membership: &Membership) -> u64 {
        round_up((FIXED_BYTES + membership_bytes(membership)) as u64, BLOCK_BYTES)
    }

    /// The chain value that the first batch behind an encoded header continues: it ties the batches
    /// to this very header.
    pub(crate) fn chain(encoded: &[u8]) -> u32 {
        crc32c::crc32c(encoded)
    }

    /// The header as bytes, whole blocks.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = Self::bytes(&self.membership);
        let mut out = vec![0; usize::try_from(length).expect("a membership fits into memory")];
        let members = encode_membership(&self.membership);
        out[..8].copy_from_slice(MAGIC);
        put_u32(&mut out, AT_VERSION, FORMAT_VERSION);
        let as_u32 = |bytes| u32::try_from(bytes).expect("the log bounds lengths below 4 GiB");
        put_u32(&mut out, AT_LENGTH, as_u32(length));
        put_u32(&mut out, AT_MEMBERSHIP_BYTES, as_u32(members.len() as u64));
        put_u32(&mut out, AT_FILE_BLOCKS, as_u32(self.file_bytes / BLOCK_BYTES as u64));
        put_u64(&mut out, AT_SALT, self.salt);
        out[AT_INCARNATION..AT_ID].copy_from_slice(&self.incarnation.to_le_bytes());
        put_u64(&mut out, AT_ID, self.id);
        put_u64(&mut out, AT_FIRST_ID, self.first_id);
        if let Some(Link { id, end, chain }) = self.previous {
            put_u64(&mut out, AT_PREVIOUS_ID, id);
            put_u64(&mut out, AT_PREVIOUS_END, end);
            put_u32(&mut out, AT_PREVIOUS_CHAIN, chain);
        }
        put_u64(&mut out, AT_TERM, self.hard_state.term.0);
        put_u64(&mut out, AT_VOTED_FOR, self.hard_state.voted_for.map_or(0, NodeId::get));
        put_u64(&mut out, AT_BASE_INDEX, self.base.index.0);
        put_u64(&mut out, AT_BASE_TERM, self.base.term.0);
        put_u64(&mut out, AT_BASE_TIMESTAMP, self.base_timestamp.0);
        out[FIXED_BYTES..FIXED_BYTES + members.len()].copy_from_slice(&members);
        scramble(self.salt, FIXED_BYTES as u64, &mut out[FIXED_BYTES..]);
        let crc = checksum(&out);
        put_u32(&mut out, AT_CRC, crc);
        out
    }

    /// The header at the start of a segment, and its length in bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        use HeaderError::Invalid;
        let fixed = bytes.get(..FIXED_BYTES).ok_or(Invalid("the header is cut off"))?;
        if &fixed[..8] != MAGIC {
            return Err(Invalid("the header does not begin like one"));
        }
        let length = u32_at(fixed, AT_LENGTH) as usize;
        let area = bytes.get(..length).filter(|_| length >= FIXED_BYTES);
        let area = area.ok_or(Invalid("the header's length is impossible"))?;
        if checksum(area) != u32_at(fixed, AT_CRC) {
            return Err(Invalid("the header does not match its checksum"));
        }
        // Only now: a version that a valid checksum covers was really written.
        let version = u32_at(fixed, AT_VERSION);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let header = Self::interpret(area).ok_or(Invalid("a valid header makes no sense"))?;
        Ok((header, length))
    }

    /// What a header with a valid checksum says, if it is one that [`Self::encode`] makes.
    fn interpret(area: &[u8]) -> Option<Self> {
        let salt = u64_at(area, AT_SALT);
        let mut members = area[FIXED_BYTES..].to_vec();
        scramble(salt, FIXED_BYTES as u64, &mut members);
        let members = members.get(..u32_at(area, AT_MEMBERSHIP_BYTES) as usize)?;
        let mut incarnation = [0; 16];
        incarnation.copy_from_slice(&area[AT_INCARNATION..AT_ID]);
        let previous_id = u64_at(area, AT_PREVIOUS_ID);
        let link = Link {
            id: previous_id,
            end: u64_at(area, AT_PREVIOUS_END),
            chain: u32_at(area, AT_PREVIOUS_CHAIN),
        };
        let header = Self {
            salt,
            incarnation: u128::from_le_bytes(incarnation),
            id: u64_at(area, AT_ID),
            file_bytes: u64::from(u32_at(area, AT_FILE_BLOCKS)) * BLOCK_BYTES as u64,
            first_id: u64_at(area, AT_FIRST_ID),
            previous: (previous_id != 0).then_some(link),
            hard_state: HardState {
                term: Term(u64_at(area, AT_TERM)),
                voted_for: NodeId::new(u64_at(area, AT_VOTED_FOR)),
            },
            base: LogPosition::new(
                Term(u64_at(area, AT_BASE_TERM)),
                LogIndex(u64_at(area, AT_BASE_INDEX)),
            ),
            base_timestamp: Timestamp(u64_at(area, AT_BASE_TIMESTAMP)),
            membership: decode_membership(members)?,
        };
        let sound = header.first_id != 0
            && header.first_id <= header.id
            && header.previous.is_none_or(|previous| previous.id < header.first_id);
        (sound && header.encode() == area).then_some(header)
    }
}

/// Over the header as it lies on disk, its checksum taken as zero.
fn checksum(area: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&area[..AT_CRC]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &area[AT_CRC + 4..])
}

#[cfg(test)]
mod tests {
    use super::super::{SECTOR_BYTES, is_unwritten};
    use super::*;

    fn header(members: u64) -> SegmentHeader {
        SegmentHeader {
            salt: 77,
            incarnation: 1 << 100,
            id: 9,
            file_bytes: 16 << 20,
            first_id: 7,
            previous: Some(Link { id: 6, end: 8192, chain: 3 }),
            hard_state: HardState { term: Term(4), voted_for: NodeId::new(2) },
            base: LogPosition::new(Term(3), LogIndex(50)),
            base_timestamp: Timestamp(1234),
            membership: Membership::new((1..=members).filter_map(NodeId::new)).unwrap(),
        }
    }

    #[test]
    fn headers_come_back_whole_also_with_many_members() {
        for (members, blocks) in [(1, 1), (5, 1), (1000, 2)] {
            let header = header(members);
            let bytes = header.encode();
            assert_eq!(bytes.len(), blocks * BLOCK_BYTES);
            assert_eq!(SegmentHeader::decode(&bytes), Ok((header, bytes.len())));
            assert!(!bytes.chunks(SECTOR_BYTES).any(is_unwritten));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = header(3).encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = SegmentHeader::decode(&changed).unwrap_err();
            assert!(matches!(error, HeaderError::Invalid(_)), "byte {at}");
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let mut bytes = header(3).encode();
        put_u32(&mut bytes, AT_VERSION, 2);
        let crc = checksum(&bytes);
        put_u32(&mut bytes, AT_CRC, crc);
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(2)));
    }
}
