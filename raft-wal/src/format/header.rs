//! The header of a segment: what must be known to read the segment without those before it.
//!
//! It stands there twice, because the vote hangs on it: all that a segment says is read with the salt
//! in its header.

use raft_core::{HardState, Incarnation, LogBase, LogIndex, LogPosition, NodeId, Term, Timestamp};

use super::record::{decode_membership, encode_membership, membership_bytes};
use super::{BLOCK_BYTES, FORMAT_VERSION, put_u32, put_u64, round_up, scramble, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"RAFTWALS";

const AT_VERSION: usize = 8;
const AT_CRC: usize = 12;
const AT_LENGTH: usize = 16;
const AT_MEMBERSHIP_BYTES: usize = 20;
const AT_SALT: usize = 24;
const AT_DIRECTORY: usize = 32;
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
const AT_MEMBERSHIP_INDEX: usize = 128;
const AT_LIFE: usize = 136;
const AT_LOST_INDEX: usize = 144;
const AT_LOST_TERM: usize = 152;
/// Up to here the header is in the clear, from here on it is scrambled.
const FIXED_BYTES: usize = 192;

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// A random number of its own: what was written for any other segment does not validate here.
    pub(crate) salt: u64,
    /// The directory that it was written for.
    pub(crate) directory: u128,
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
    /// What stands before it: the last entry of the log as of its start, and the members.
    pub(crate) base: LogBase,
    /// What repairs of the log left behind.
    pub(crate) repairs: Repairs,
}

/// What is known about losses of this log, carried on for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repairs {
    /// Counts the repairs that forgot something.
    pub(crate) incarnation: Incarnation,
    /// The last entry that may have been acknowledged and was lost in one of them.
    pub(crate) lost: LogPosition,
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
    /// Bytes that one copy of the header takes, whole blocks.
    fn copy_bytes(&self) -> u64 {
        round_up((FIXED_BYTES + membership_bytes(&self.base.membership)) as u64, BLOCK_BYTES)
    }

    /// Bytes that both copies take: where the first batch begins.
    pub(crate) fn bytes(&self) -> u64 {
        2 * self.copy_bytes()
    }

    /// The chain value that the first batch continues: it ties the batches to this very header.
    pub(crate) fn chain(&self) -> u32 {
        crc32c::crc32c(&self.encode_copy())
    }

    /// Both copies.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_copy().repeat(2)
    }

    fn encode_copy(&self) -> Vec<u8> {
        let length = self.copy_bytes();
        let mut out = vec![0; usize::try_from(length).expect("a membership fits into memory")];
        let LogBase { position, timestamp, membership, membership_index } = &self.base;
        let members = encode_membership(membership);
        out[..8].copy_from_slice(MAGIC);
        put_u32(&mut out, AT_VERSION, FORMAT_VERSION);
        let as_u32 = |bytes| u32::try_from(bytes).expect("the log bounds lengths below 4 GiB");
        put_u32(&mut out, AT_LENGTH, as_u32(length));
        put_u32(&mut out, AT_MEMBERSHIP_BYTES, as_u32(members.len() as u64));
        put_u32(&mut out, AT_FILE_BLOCKS, as_u32(self.file_bytes / BLOCK_BYTES as u64));
        put_u64(&mut out, AT_SALT, self.salt);
        out[AT_DIRECTORY..AT_ID].copy_from_slice(&self.directory.to_le_bytes());
        put_u64(&mut out, AT_ID, self.id);
        put_u64(&mut out, AT_FIRST_ID, self.first_id);
        if let Some(Link { id, end, chain }) = self.previous {
            put_u64(&mut out, AT_PREVIOUS_ID, id);
            put_u64(&mut out, AT_PREVIOUS_END, end);
            put_u32(&mut out, AT_PREVIOUS_CHAIN, chain);
        }
        put_u64(&mut out, AT_TERM, self.hard_state.term.0);
        put_u64(&mut out, AT_VOTED_FOR, self.hard_state.voted_for.map_or(0, NodeId::get));
        put_u64(&mut out, AT_BASE_INDEX, position.index.0);
        put_u64(&mut out, AT_BASE_TERM, position.term.0);
        put_u64(&mut out, AT_BASE_TIMESTAMP, timestamp.0);
        put_u64(&mut out, AT_MEMBERSHIP_INDEX, membership_index.0);
        put_u64(&mut out, AT_LIFE, self.repairs.incarnation.0);
        put_u64(&mut out, AT_LOST_INDEX, self.repairs.lost.index.0);
        put_u64(&mut out, AT_LOST_TERM, self.repairs.lost.term.0);
        out[FIXED_BYTES..FIXED_BYTES + members.len()].copy_from_slice(&members);
        scramble(self.salt, FIXED_BYTES as u64, &mut out[FIXED_BYTES..]);
        let crc = checksum(&out);
        put_u32(&mut out, AT_CRC, crc);
        out
    }

    /// The header at the start of a segment, and whether both of its copies are intact.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, bool), HeaderError> {
        let first = match Self::decode_copy(bytes) {
            Ok((header, length)) => {
                let second = bytes.get(length..2 * length);
                return Ok((header, second == bytes.get(..length)));
            }
            Err(HeaderError::Invalid(what)) => what,
            Err(version) => return Err(version),
        };
        // Where the second copy begins can only be tried out: the length stands in the first.
        for at in (BLOCK_BYTES..bytes.len().min(COPY_LOOKED_FOR_BEFORE)).step_by(BLOCK_BYTES) {
            match Self::decode_copy(&bytes[at..]) {
                Ok((header, length)) if length == at => return Ok((header, false)),
                Err(version @ HeaderError::Version(_)) => return Err(version),
                Ok(_) | Err(HeaderError::Invalid(_)) => {}
            }
        }
        Err(HeaderError::Invalid(first))
    }

    fn decode_copy(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
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
        let mut directory = [0; 16];
        directory.copy_from_slice(&area[AT_DIRECTORY..AT_ID]);
        let previous_id = u64_at(area, AT_PREVIOUS_ID);
        let link = Link {
            id: previous_id,
            end: u64_at(area, AT_PREVIOUS_END),
            chain: u32_at(area, AT_PREVIOUS_CHAIN),
        };
        let header = Self {
            salt,
            directory: u128::from_le_bytes(directory),
            id: u64_at(area, AT_ID),
            file_bytes: u64::from(u32_at(area, AT_FILE_BLOCKS)) * BLOCK_BYTES as u64,
            first_id: u64_at(area, AT_FIRST_ID),
            previous: (previous_id != 0).then_some(link),
            hard_state: HardState {
                term: Term(u64_at(area, AT_TERM)),
                voted_for: NodeId::new(u64_at(area, AT_VOTED_FOR)),
            },
            base: LogBase {
                position: position_at(area, AT_BASE_TERM, AT_BASE_INDEX),
                timestamp: Timestamp(u64_at(area, AT_BASE_TIMESTAMP)),
                membership: decode_membership(members)?,
                membership_index: LogIndex(u64_at(area, AT_MEMBERSHIP_INDEX)),
            },
            repairs: Repairs {
                incarnation: Incarnation(u64_at(area, AT_LIFE)),
                lost: position_at(area, AT_LOST_TERM, AT_LOST_INDEX),
            },
        };
        let sound = header.first_id != 0
            && header.first_id <= header.id
            && header.previous.is_none_or(|previous| previous.id < header.first_id);
        (sound && header.encode_copy() == area).then_some(header)
    }
}

fn position_at(area: &[u8], term: usize, index: usize) -> LogPosition {
    LogPosition::new(Term(u64_at(area, term)), LogIndex(u64_at(area, index)))
}

/// The second copy of a header is looked for up to here: headers of 8,000 members are shorter.
const COPY_LOOKED_FOR_BEFORE: usize = 64 << 10;

/// Over one copy as it lies on disk, its checksum taken as zero.
fn checksum(area: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&area[..AT_CRC]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &area[AT_CRC + 4..])
}

#[cfg(test)]
mod tests {
    use raft_core::Membership;

    use super::super::{SECTOR_BYTES, is_unwritten};
    use super::*;

    fn header(members: u64) -> SegmentHeader {
        SegmentHeader {
            salt: 77,
            directory: 1 << 100,
            id: 9,
            file_bytes: 16 << 20,
            first_id: 7,
            previous: Some(Link { id: 6, end: 8192, chain: 3 }),
            hard_state: HardState { term: Term(4), voted_for: NodeId::new(2) },
            base: LogBase {
                position: LogPosition::new(Term(3), LogIndex(50)),
                timestamp: Timestamp(1234),
                membership: Membership::new((1..=members).filter_map(NodeId::new)).unwrap(),
                membership_index: LogIndex(44),
            },
            repairs: Repairs {
                incarnation: Incarnation(2),
                lost: LogPosition::new(Term(2), LogIndex(60)),
            },
        }
    }

    #[test]
    fn headers_come_back_whole_also_with_many_members() {
        for (members, blocks) in [(1, 2), (5, 2), (1000, 6)] {
            let header = header(members);
            let bytes = header.encode();
            assert_eq!(bytes.len() as u64, header.bytes());
            assert_eq!(bytes.len(), blocks * BLOCK_BYTES);
            assert_eq!(SegmentHeader::decode(&bytes), Ok((header, true)));
            assert!(!bytes.chunks(SECTOR_BYTES).any(is_unwritten));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed_and_the_other_copy_counts() {
        for members in [3, 1000] {
            let header = header(members);
            let bytes = header.encode();
            for at in (0..bytes.len()).step_by(1 + members as usize / 100) {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(SegmentHeader::decode(&changed), Ok((header.clone(), false)), "{at}");
                changed[(at + bytes.len() / 2) % bytes.len()] ^= 1;
                let error = SegmentHeader::decode(&changed).unwrap_err();
                assert!(matches!(error, HeaderError::Invalid(_)), "byte {at}");
            }
        }
    }

    /// The second copy begins where the first one would end, or it is not the second copy of it.
    #[test]
    fn a_copy_at_another_place_is_none() {
        let copy = header(3).encode_copy();
        let behind = |blocks: usize| {
            let bytes = [vec![0xA5; blocks * BLOCK_BYTES], copy.clone()].concat();
            SegmentHeader::decode(&bytes).is_ok()
        };
        assert!(behind(0) && behind(1) && !behind(2) && !behind(3));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = header(3).encode();
        put_u32(&mut bytes, AT_VERSION, 1);
        let crc = checksum(&bytes[..BLOCK_BYTES]);
        put_u32(&mut bytes, AT_CRC, crc);
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Version(1)));
    }
}
