//! Where a page of the ranking ended, as an opaque text that every node understands.
//!
//! It holds a place in the order (score and tie-break), not a rank and not a position in memory: the
//! next page goes on from there on any node, whatever has changed in between.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::board::Place;
use crate::types::{BoardId, Score};

const VERSION: u8 = 1;
/// Version, score, sequence number, check.
const BYTES: usize = 1 + 8 + 8 + 4;

/// The cursor behind which everything stands after `place` on `board`.
pub(crate) fn encode(board: &BoardId, place: Place) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&place.score.get().to_be_bytes());
    bytes.extend_from_slice(&place.seq.to_be_bytes());
    let check = check(board, &bytes);
    bytes.extend_from_slice(&check);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The place that [`encode`] was given; `None` for anything else, other boards' cursors included.
pub(crate) fn decode(board: &BoardId, cursor: &str) -> Option<Place> {
    if cursor.len() != BYTES * 2 || cursor.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, digits) in bytes.iter_mut().zip(cursor.as_bytes().chunks(2)) {
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    let (place, check_bytes) = bytes.split_last_chunk::<4>()?;
    if *check_bytes != check(board, place) || place[0] != VERSION {
        return None;
    }
    let score = i64::from_be_bytes(place[1..9].try_into().ok()?);
    let seq = u64::from_be_bytes(place[9..17].try_into().ok()?);
    Some(Place { score: Score::new(score)?, seq })
}

/// Catches cursors that were cut, mistyped, or meant for another board. No protection against
/// forgery: a forged cursor can only ask for another part of a public ranking.
fn check(board: &BoardId, place: &[u8]) -> [u8; 4] {
    let seed = xxh3_64_with_seed(board.as_str().as_bytes(), 0);
    let hash = xxh3_64_with_seed(place, seed).to_be_bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_leads_back_to_its_place(
            score in Score::MIN.get()..=Score::MAX.get(),
            seq: u64,
            at in 0..BYTES * 2,
        ) {
            let board = BoardId::default();
            let place = Place { score: Score::new(score).unwrap(), seq };
            let cursor = encode(&board, place);
            prop_assert_eq!(decode(&board, &cursor), Some(place));
            prop_assert_eq!(decode(&BoardId::new("other").unwrap(), &cursor), None);
            prop_assert_eq!(decode(&board, &cursor[1..]), None);
            prop_assert_eq!(decode(&board, &cursor[..at]), None);
            let mut mistyped = cursor.clone().into_bytes();
            mistyped[at] = if mistyped[at] == b'0' { b'1' } else { b'0' };
            prop_assert_eq!(decode(&board, std::str::from_utf8(&mistyped).unwrap()), None);
        }

        #[test]
        fn other_texts_are_no_cursors(text in "\\PC{0,50}") {
            prop_assert_eq!(decode(&BoardId::default(), &text), None);
        }
    }
}
