//! The bytes on disk: pure functions between records and bytes, no files.
//!
//! `FORMAT.md` describes every field. All integers are little-endian.

pub(crate) mod batch;
pub(crate) mod header;
pub(crate) mod record;
pub(crate) mod snapshot;
pub(crate) mod walk;

/// The version that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 2;

/// What a disk writes as a whole or not at all. Batches begin and end at a multiple of it, so that
/// no write ever touches a sector that holds bytes already acknowledged.
pub(crate) const SECTOR_BYTES: usize = 512;

/// The header of a segment fills a multiple of this.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// The smallest batch: what a seal or a marker takes.
pub(crate) const SMALL_BATCH_BYTES: u64 = SECTOR_BYTES as u64;

/// Where a checksum starts from: the same bytes at another offset, in another segment or after
/// another past have another checksum, so stale and misplaced bytes do not pass for what should be
/// there.
pub(crate) fn seed(salt: u64, offset: u64, chain: u32) -> u32 {
    let mut place = Aligned([0; 20]);
    place.0[..8].copy_from_slice(&salt.to_le_bytes());
    place.0[8..16].copy_from_slice(&offset.to_le_bytes());
    place.0[16..].copy_from_slice(&chain.to_le_bytes());
    crc32c::crc32c(&place.0)
}

/// Short bytes that a checksum is made of: from a word on it takes words, before it single bytes.
#[repr(align(8))]
pub(crate) struct Aligned<const N: usize>(pub(crate) [u8; N]);

/// Exclusive-ors `bytes`, which lie at `offset` (a multiple of 8) of the segment, with a number from the
/// salt, another one in each sector. Done twice it is undone.
///
/// Not for secrecy: it makes sure that no sector that was written reads as all zeros, whatever a
/// client puts into a command, so that recovery can tell a sector that never arrived from one that
/// did. One number per sector is enough for that, since nobody who writes commands knows it, and the
/// compiler makes wide instructions of it.
pub(crate) fn scramble(salt: u64, offset: u64, bytes: &mut [u8]) {
    debug_assert!(offset.is_multiple_of(8), "scrambled areas begin at a word");
    let in_sector = (offset % SECTOR_BYTES as u64) as usize;
    let first = (SECTOR_BYTES - in_sector).min(bytes.len());
    let (head, rest) = bytes.split_at_mut(first);
    let pieces = std::iter::once(head).chain(rest.chunks_mut(SECTOR_BYTES));
    for (sector, piece) in (offset / SECTOR_BYTES as u64..).zip(pieces) {
        let mask = mix(salt.wrapping_add(sector.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let (words, rest) = piece.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_le_bytes(*word) ^ mask).to_le_bytes();
        }
        for (byte, mask) in rest.iter_mut().zip(mask.to_le_bytes()) {
            *byte ^= mask;
        }
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of `x`.
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// `bytes` rounded up to a multiple of `unit`.
pub(crate) const fn round_up(bytes: u64, unit: usize) -> u64 {
    bytes.next_multiple_of(unit as u64)
}

/// The number at `at`, which the caller knows to be inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The number at `at`, which the caller knows to be inside.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Puts a number at `at`, which the caller knows to be inside.
pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Puts a number at `at`, which the caller knows to be inside.
pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Was nothing ever written here? Segments are filled with zeros before they are used.
///
/// A few other bytes in a sector do not count: they are damage to a place that was not in use. Of what
/// is written no sector has so few.
pub(crate) fn is_unwritten(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR_BYTES).all(|sector| {
        // Whole words first: recovery looks at the unused part of every tail with this.
        let (words, rest) = sector.as_chunks::<8>();
        let zeros = words.iter().all(|word| u64::from_le_bytes(*word) == 0);
        zeros && rest.iter().all(|&byte| byte == 0)
            || sector.iter().filter(|&&byte| byte != 0).count() <= STRAY_BYTES_MAX
    })
}

/// The header of a batch alone has more bytes than this that are not zero.
const STRAY_BYTES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrambled_sector_of_zeros_is_not_zeros_and_comes_back() {
        let mut sector = [0; SECTOR_BYTES];
        scramble(7, 4096, &mut sector);
        assert!(sector.chunks(8).all(|word| word != [0; 8]));
        scramble(7, 4096, &mut sector);
        assert!(is_unwritten(&sector));
    }

    #[test]
    fn a_few_stray_bytes_in_a_sector_are_not_something_that_was_written() {
        let with = |stray: usize| {
            let mut bytes = [0; 2 * SECTOR_BYTES + 5];
            bytes[SECTOR_BYTES..][..stray].fill(1);
            is_unwritten(&bytes)
        };
        assert!(with(0) && with(STRAY_BYTES_MAX) && !with(STRAY_BYTES_MAX + 1));
        assert!(!is_unwritten(&[1; 5]), "behind the last whole word");
    }

    #[test]
    fn what_is_scrambled_as_a_whole_is_unscrambled_in_pieces() {
        let whole: Vec<u8> = (0..3 * SECTOR_BYTES + 5).map(|n| n as u8).collect();
        let mut bytes = whole.clone();
        scramble(7, 4096 + 96, &mut bytes);
        for (start, end) in [(0, 416), (416, 424), (424, 1000), (1000, bytes.len())] {
            scramble(7, (4096 + 96 + start) as u64, &mut bytes[start..end]);
        }
        assert_eq!(bytes, whole);
    }

    #[test]
    fn sectors_are_scrambled_differently() {
        let mut bytes = [0; 3 * SECTOR_BYTES];
        scramble(7, 4096, &mut bytes);
        let [first, second, third] = [0, 1, 2].map(|n| &bytes[n * SECTOR_BYTES..][..8]);
        assert!(first != second && second != third && first != third);
    }

    #[test]
    fn the_seed_depends_on_salt_offset_and_past() {
        let here = seed(1, 2, 3);
        assert!(here != seed(2, 2, 3) && here != seed(1, 3, 3) && here != seed(1, 2, 4));
    }
}
